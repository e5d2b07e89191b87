"""What was agreed: consents, grants, and the codes and tokens that belong to grants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from authserver.engine.records import (
    Consent,
    FoundGrant,
    FoundToken,
    Grant,
    GrantFilter,
    Token,
    TokenKind,
    User,
)
from authserver.engine.upkeep_records import Place
from authserver.storage.columns import UtcDateTime
from authserver.storage.prepared import Prepared, unless_none
from authserver.storage.rows import Rows
from authserver.storage.tables import DISPOSABLE, consents, grants, tokens, users
from authserver.storage.work import Work, insert_new, insert_or_fail, insert_or_replace, spelt_out

_CONSENT = Rows(Consent, consents)
_CONSENT_OF_USER = consents.c.user_id == bindparam("user_id")
_CONSENT_TO_CLIENT = consents.c.client_id == bindparam("client_id")
_FIND_CONSENT = Prepared(select(*_CONSENT.columns).where(_CONSENT_OF_USER, _CONSENT_TO_CLIENT))
_LIST_CONSENTS = select(*_CONSENT.columns).order_by(
    consents.c.granted_at.desc(), consents.c.user_id, consents.c.client_id
)
_REMEMBER_CONSENT = Prepared(insert_or_replace(consents))
_FORGET_CONSENTS = sa.delete(consents).where(_CONSENT_OF_USER)
_FORGET_CONSENT = _FORGET_CONSENTS.where(_CONSENT_TO_CLIENT)
_FORGET_CONSENTS_TO_CLIENT = sa.delete(consents).where(consents.c.client_id == bindparam("to_client"))
_CONSENT_KEY = sa.tuple_(consents.c.user_id, consents.c.client_id)
_PAGE_OF_CONSENTS = (
    select(*_CONSENT.columns)
    .where(
        sa.tuple_(bindparam("after_user", type_=sa.Text), bindparam("after_client", type_=sa.Text))
        < _CONSENT_KEY
    )
    .order_by(*consents.primary_key)
    .limit(bindparam("limit"))
)
_THIS_CONSENT = (
    (consents.c.user_id == bindparam("of_user"))
    & (consents.c.client_id == bindparam("to_client"))
    & (consents.c.resources == bindparam("old_resources", type_=consents.c.resources.type))
    & (consents.c.scopes == bindparam("old_scopes", type_=consents.c.scopes.type))
)
_NARROW_CONSENT = (
    sa.update(consents)
    .where(_THIS_CONSENT)
    .values(resources=bindparam("new_resources"), scopes=bindparam("new_scopes"))
)
_FORGET_UNCHANGED_CONSENT = sa.delete(consents).where(_THIS_CONSENT)
_FORGET_SOME_CONSENTS = sa.delete(consents).where(
    _CONSENT_KEY.in_(select(*consents.primary_key).order_by(*consents.primary_key).limit(bindparam("limit")))
)

_FORGET_SOME_CONSENTS_TO_CLIENT = sa.delete(consents).where(
    _CONSENT_KEY.in_(
        select(*consents.primary_key)
        .where(_CONSENT_TO_CLIENT)
        .order_by(consents.c.user_id)
        .limit(bindparam("limit"))
    )
)
_COUNT_CONSENTS = select(sa.func.count()).select_from(consents)

_GRANT = Rows(Grant, grants)
_FIND_GRANT = Prepared(select(*_GRANT.columns).where(grants.c.grant_id == bindparam("grant_id")))
_GRANT_USER = Rows(User, users, at=_GRANT.end)
_FIND_GRANT_WITH_USER = Prepared(
    select(*_GRANT.columns, *_GRANT_USER.columns)
    .outerjoin_from(grants, users, users.c.user_id == grants.c.user_id)
    .where(grants.c.grant_id == bindparam("grant_id"))
)
_ADD_GRANT = Prepared(insert_new(grants))
_ADD_GRANT_OR_FAIL = Prepared(insert_or_fail(grants))
_PARENTS = grants.alias("parents")


def _derived(seed: sa.Select[Any]) -> sa.Select[Any]:
    """The ids of these grants, and of all that were derived from them at any distance."""
    found = seed.cte("descendants", recursive=True)
    child = grants.alias("child")
    step = select(child.c.grant_id).where(child.c.parent_id == found.c.grant_id)
    return select(found.union(step).c.grant_id)


def _revocation_of(seed: sa.Select[Any]) -> sa.Update:
    return (
        sa.update(grants)
        .where(grants.c.grant_id.in_(_derived(seed)), grants.c.revoked_at.is_(None))
        .values(revoked_at=bindparam("now"), revoked_reason=bindparam("reason"))
    )


# Those that were derived from grants of these ids, or of grants of a user or client.
_CHILDREN = select(grants.c.grant_id).where(grants.c.parent_id.in_(bindparam("ids", expanding=True)))
_CHILDREN_OF_CLIENT = (
    select(grants.c.grant_id)
    .join_from(_PARENTS, grants, grants.c.parent_id == _PARENTS.c.grant_id)
    .where(_PARENTS.c.client_id == bindparam("to_client"))
)
_REVOKE_DERIVED = _revocation_of(_CHILDREN)
_REVOKE_DERIVED_OF_CLIENT = _revocation_of(_CHILDREN_OF_CLIENT)
_REVOKE_DERIVED_OF_USER_TO_CLIENT = _revocation_of(
    _CHILDREN_OF_CLIENT.where(_PARENTS.c.user_id == bindparam("of_user"))
)
_REVOKE_GRANT = Prepared(
    sa.update(grants)
    .where(grants.c.grant_id == bindparam("id"), grants.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"), revoked_reason=bindparam("reason"))
)
_OF_USER = grants.c.user_id == bindparam("of_user")
_TO_CLIENT = grants.c.client_id == bindparam("to_client")
_REVOKE_OF_USER = (
    sa.update(grants)
    .where(_OF_USER, grants.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"), revoked_reason=bindparam("reason"))
)
_REVOKE_OF_USER_TO_CLIENT = _REVOKE_OF_USER.where(_TO_CLIENT)
_REVOKE_OF_CLIENT = (
    sa.update(grants)
    .where(_TO_CLIENT, grants.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"), revoked_reason=bindparam("reason"))
)
_REVOKE_SOME = (
    sa.update(grants)
    .where(grants.c.grant_id.in_(bindparam("ids", expanding=True)), grants.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"), revoked_reason=bindparam("reason"))
)
_LIVE = grants.c.revoked_at.is_(None), grants.c.expires_at > bindparam("now")
_FIND_DERIVED = select(*_GRANT.columns).where(grants.c.grant_id.in_(_derived(_CHILDREN)), *_LIVE)
# The oldest first, because all transactions that lock several grants do it in this order.
_HOLD_GRANTS = (
    select(grants.c.grant_id)
    .where(grants.c.grant_id.in_(bindparam("ids", expanding=True)), grants.c.revoked_at.is_(None))
    .order_by(grants.c.created_at, grants.c.grant_id)
    .with_for_update(read=True)
)
# Most tokens depend on only one grant.
_HOLD_THIS_GRANT = (
    select(grants.c.grant_id)
    .where(grants.c.grant_id == bindparam("id"), grants.c.revoked_at.is_(None))
    .with_for_update(read=True)
)
_HOLD_ONE_GRANT = Prepared(_HOLD_THIS_GRANT)
_HOLD_ONE_GRANT_OR_FAIL = Prepared(unless_none(_HOLD_THIS_GRANT.subquery("held")))
_REDEEMED = ~sa.exists().where(
    tokens.c.grant_id == grants.c.grant_id,
    tokens.c.kind == TokenKind.CODE,
    tokens.c.claimed_at.is_(None),
)
_LIST_GRANTS = (
    select(*_GRANT.columns).where(*_LIVE, _REDEEMED).order_by(grants.c.created_at.desc(), grants.c.grant_id)
)
# The grants of one person are few. No index may be used for the client, or SQLite would read all grants to the client.
_ALSO_TO_CLIENT = grants.c.client_id + "" == bindparam("to_client")
_SEARCH_GRANTS = (
    select(*_GRANT.columns)
    .where(
        sa.tuple_(grants.c.created_at, grants.c.grant_id)
        < sa.tuple_(bindparam("at", type_=UtcDateTime), bindparam("last_id", type_=sa.Text))
    )
    .order_by(grants.c.created_at.desc(), grants.c.grant_id.desc())
    # Written into the statement: PostgreSQL plans for a tenth of the table if it does not know it.
    .limit(bindparam("limit", type_=sa.Integer, literal_execute=True))
)
_END: Place = (datetime.max.replace(tzinfo=UTC), "")
_PAGE_OF_GRANTS = (
    select(*_GRANT.columns)
    .where(grants.c.grant_id > bindparam("after"))
    .order_by(grants.c.grant_id)
    .limit(bindparam("limit"))
)
_NARROW_GRANT = (
    sa.update(grants)
    .where(
        grants.c.grant_id == bindparam("id"),
        grants.c.resources == bindparam("old_resources", type_=grants.c.resources.type),
        grants.c.scopes == bindparam("old_scopes", type_=grants.c.scopes.type),
        grants.c.revoked_at.is_(None),
    )
    # Other requests change the details together with the scopes.
    .values(
        resources=bindparam("new_resources"), scopes=bindparam("new_scopes"), details=bindparam("and_says")
    )
)
_TOUCH_GRANT = Prepared(
    sa.update(grants).where(grants.c.grant_id == bindparam("id")).values(last_used_at=bindparam("now"))
)
_WIDEN_GRANT = Prepared(
    sa.update(grants)
    .where(
        grants.c.grant_id == bindparam("id"),
        grants.c.scopes == bindparam("before"),
        grants.c.revoked_at.is_(None),
    )
    .values(scopes=bindparam("now_has"), details=bindparam("and_says"))
)
_COUNT_GRANTS = select(sa.func.count()).select_from(grants)
_COUNT_LIVE_GRANTS = select(sa.func.count()).select_from(
    select(grants.c.grant_id)
    .where(grants.c.expires_at > bindparam("now"), grants.c.revoked_at.is_(None))
    .order_by(grants.c.expires_at)
    .limit(bindparam("limit", type_=sa.Integer, literal_execute=True))
    .subquery()
)
_NEXT_GRANTS = (
    select(grants.c.grant_id)
    .where(grants.c.grant_id > bindparam("after"))
    .order_by(grants.c.grant_id)
    .limit(bindparam("limit"))
    .subquery()
)
_LAST_OF_NEXT_GRANTS = select(sa.func.max(_NEXT_GRANTS.c.grant_id))
_REVOKE_UP_TO = (
    sa.update(grants)
    .where(
        grants.c.grant_id > bindparam("after"),
        grants.c.grant_id <= bindparam("last"),
        grants.c.revoked_at.is_(None),
    )
    .values(revoked_at=bindparam("now"), revoked_reason=bindparam("reason"))
)

_TOKEN = Rows(Token, tokens)
_TOKEN_GRANT = Rows(Grant, grants, at=_TOKEN.end)
_TOKEN_USER = Rows(User, users, at=_TOKEN_GRANT.end)
_ADD_TOKEN = Prepared(sa.insert(tokens), is_new=True)
_FIND_TOKEN = Prepared(
    select(*_TOKEN.columns, *_TOKEN_GRANT.columns, *_TOKEN_USER.columns)
    .join_from(tokens, grants)
    .outerjoin(users, users.c.user_id == grants.c.user_id)
    .where(tokens.c.kind == bindparam("kind"), tokens.c.digest == bindparam("digest"))
)
_USABLE_REFRESH_TOKENS = (
    select(*_TOKEN.columns, *_TOKEN_GRANT.columns, *_TOKEN_USER.columns)
    .join_from(tokens, grants)
    .join(users, users.c.user_id == grants.c.user_id)
    .where(
        grants.c.user_id == bindparam("of_user"),
        grants.c.client_id == bindparam("to_client"),
        grants.c.revoked_at.is_(None),
        grants.c.expires_at > bindparam("now"),
        tokens.c.kind == TokenKind.REFRESH,
        tokens.c.claimed_at.is_(None),
        tokens.c.expires_at > bindparam("now"),
    )
    .order_by(grants.c.created_at.desc(), grants.c.grant_id)
    .limit(bindparam("limit"))
)
_COUNT_LIVE = (
    select(tokens.c.kind, sa.func.count().label("number"))
    .where(
        tokens.c.grant_id.in_(bindparam("ids", expanding=True)),
        tokens.c.claimed_at.is_(None),
        tokens.c.expires_at > bindparam("now"),
    )
    .group_by(tokens.c.kind)
)
_ACCESS_TOKENS = select(*_TOKEN.columns).where(
    tokens.c.grant_id.in_(bindparam("ids", expanding=True)),
    spelt_out(DISPOSABLE),
    tokens.c.expires_at > bindparam("now"),
)
_NEWEST_TOKENS = (
    select(*_TOKEN.columns)
    .where(tokens.c.grant_id == bindparam("grant_id"))
    .order_by(tokens.c.created_at.desc(), tokens.c.kind, tokens.c.digest)
    .limit(bindparam("limit"))
)
_THIS_UNCLAIMED = (
    (tokens.c.kind == bindparam("by_kind"))
    & (tokens.c.digest == bindparam("by_digest"))
    & tokens.c.claimed_at.is_(None)
)
_OF_LIVE_GRANT = sa.exists().where(grants.c.grant_id == tokens.c.grant_id, grants.c.revoked_at.is_(None))
# The row count is the answer. Of two transactions the second one waits for the first, and then finds the condition
# false, even under read committed isolation.
_CLAIM_THIS = (
    sa.update(tokens)
    .where(_THIS_UNCLAIMED, _OF_LIVE_GRANT)
    .values(
        claimed_at=bindparam("now"),
        successor_digest=bindparam("next_digest"),
        sealed_successor=bindparam("sealed_next"),
    )
)
_CLAIM = Prepared(_CLAIM_THIS)
_CLAIM_OR_FAIL = Prepared(unless_none(_CLAIM_THIS.returning(sa.literal_column("1")).cte("claimed")))
_EXTEND_THIS = sa.update(tokens).where(_THIS_UNCLAIMED, _OF_LIVE_GRANT).values(expires_at=bindparam("until"))
_EXTEND = Prepared(_EXTEND_THIS)
_EXTEND_OR_FAIL = Prepared(unless_none(_EXTEND_THIS.returning(sa.literal_column("1")).cte("extended")))
_NOTE_FAILURE = Prepared(
    sa.update(tokens)
    .where(_THIS_UNCLAIMED)
    .values(
        failures=tokens.c.failures + 1,
        claimed_at=sa.case(
            (tokens.c.failures + 1 >= bindparam("limit"), bindparam("now", type_=UtcDateTime)), else_=None
        ),
    )
)


class SqlConsents:
    """`engine.ports.Consents` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def find(self, user_id: str, client_id: str) -> Consent | None:
        row = self._work.read(_FIND_CONSENT, {"user_id": user_id, "client_id": client_id}).one_or_none()
        return _CONSENT.record(row) if row else None

    def remember(self, consent: Consent) -> None:
        self._work.insert(_REMEMBER_CONSENT, _CONSENT.row(consent))

    def list(self, *, user_id: str | None = None, client_id: str | None = None) -> Sequence[Consent]:
        statement, parameters = _consents_of(_LIST_CONSENTS, user_id, client_id)
        return [_CONSENT.record(row) for row in self._work.read(statement, parameters)]

    def forget(self, user_id: str, client_id: str | None = None) -> int:
        if client_id is None:
            return self._work.write(_FORGET_CONSENTS, {"user_id": user_id})
        return self._work.write(_FORGET_CONSENT, {"user_id": user_id, "client_id": client_id})

    def forget_client(self, client_id: str) -> int:
        return self._work.write(_FORGET_CONSENTS_TO_CLIENT, {"to_client": client_id})

    def forget_some(self, limit: int, *, client_id: str | None = None) -> int:
        if client_id is None:
            return self._work.write(_FORGET_SOME_CONSENTS, {"limit": limit})
        return self._work.write(_FORGET_SOME_CONSENTS_TO_CLIENT, {"limit": limit, "client_id": client_id})

    def count(self, *, user_id: str | None = None, client_id: str | None = None) -> int:
        statement, parameters = _consents_of(_COUNT_CONSENTS, user_id, client_id)
        return int(self._work.read(statement, parameters).scalar_one())

    def page(
        self,
        *,
        after: tuple[str, str] = ("", ""),
        limit: int,
        user_id: str | None = None,
        client_id: str | None = None,
    ) -> Sequence[Consent]:
        statement, parameters = _consents_of(_PAGE_OF_CONSENTS, user_id, client_id)
        parameters |= {"after_user": after[0], "after_client": after[1], "limit": limit}
        return [_CONSENT.record(row) for row in self._work.read(statement, parameters)]

    def narrow(self, before: Consent, after: Consent | None) -> bool:
        this = {
            "of_user": before.user_id,
            "to_client": before.client_id,
            "old_resources": before.resources,
            "old_scopes": before.scopes,
        }
        if after is None:
            return self._work.write(_FORGET_UNCHANGED_CONSENT, this) == 1
        left = {"new_resources": after.resources, "new_scopes": after.scopes}
        return self._work.write(_NARROW_CONSENT, this | left) == 1


def _consents_of(
    statement: sa.Select[Any], user_id: str | None, client_id: str | None
) -> tuple[sa.Select[Any], dict[str, Any]]:
    """The statement, narrowed to the consents of one user or of all, to one client or to all; and its parameters."""
    parameters: dict[str, Any] = {}
    if user_id is not None:
        statement, parameters = statement.where(_CONSENT_OF_USER), {"user_id": user_id}
    if client_id is not None:
        statement = statement.where(_CONSENT_TO_CLIENT)
        parameters = parameters | {"client_id": client_id}
    return statement, parameters


class SqlGrants:
    """`engine.ports.Grants` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(self, grant: Grant) -> None:
        if self._work.is_optimistic:
            self._work.along(_ADD_GRANT_OR_FAIL, _GRANT.row(grant))
        else:
            self._work.add(_ADD_GRANT, _GRANT.row(grant))

    def find(self, grant_id: str) -> Grant | None:
        row = self._work.read(_FIND_GRANT, {"grant_id": grant_id}).one_or_none()
        return _GRANT.record(row) if row else None

    def find_with_user(self, grant_id: str) -> FoundGrant | None:
        row = self._work.read(_FIND_GRANT_WITH_USER, {"grant_id": grant_id}).one_or_none()
        if row is None:
            return None
        user = _GRANT_USER.record(row) if row[_GRANT_USER.start] is not None else None
        return FoundGrant(grant=_GRANT.record(row), user=user)

    def foresee_with_user(self, grant_id: str) -> None:
        if "\0" not in grant_id:
            self._work.foresee(_FIND_GRANT_WITH_USER, {"grant_id": grant_id})

    def derived(self, grant_ids: Sequence[str], now: datetime) -> Sequence[Grant]:
        found = self._work.read(_FIND_DERIVED, {"ids": list(grant_ids), "now": now})
        return [_GRANT.record(row) for row in found]

    def hold(self, grant_ids: Sequence[str]) -> bool:
        if len(grant_ids) == 1:
            if self._work.is_optimistic:
                self._work.along(_HOLD_ONE_GRANT_OR_FAIL, {"id": grant_ids[0]})
                return True
            return self._work.hold(_HOLD_ONE_GRANT, {"id": grant_ids[0]})
        return self._work.count_held(_HOLD_GRANTS, {"ids": list(grant_ids)}) == len(set(grant_ids))

    def revoke(self, grant_id: str, now: datetime, reason: str) -> bool:
        """Only one row changes: its codes and tokens are invalid, because they are always read together with it."""
        done = self._work.write(_REVOKE_GRANT, {"id": grant_id, "now": now, "reason": reason}) == 1
        # After that: a transaction that derives a grant holds this one (`hold`), so the derived grant is stored now.
        self._work.write(_REVOKE_DERIVED, {"ids": [grant_id], "now": now, "reason": reason})
        return done

    def list(
        self, now: datetime, *, user_id: str | None = None, client_id: str | None = None
    ) -> Sequence[Grant]:
        statement, parameters = _between(_LIST_GRANTS, user_id, client_id)
        parameters["now"] = now
        return [_GRANT.record(row) for row in self._work.read(statement, parameters)]

    def revoke_of_user(
        self, user_id: str, now: datetime, reason: str, *, client_id: str | None = None
    ) -> int:
        parameters = {"of_user": user_id, "now": now, "reason": reason}
        if client_id is None:
            return self._work.write(_REVOKE_OF_USER, parameters)
        parameters |= {"to_client": client_id}
        revoked = self._work.write(_REVOKE_OF_USER_TO_CLIENT, parameters)
        self._work.write(_REVOKE_DERIVED_OF_USER_TO_CLIENT, parameters)
        return revoked

    def revoke_of_client(self, client_id: str, now: datetime, reason: str) -> int:
        parameters = {"to_client": client_id, "now": now, "reason": reason}
        revoked = self._work.write(_REVOKE_OF_CLIENT, parameters)
        self._work.write(_REVOKE_DERIVED_OF_CLIENT, parameters)
        return revoked

    def touch(self, grant_id: str, now: datetime) -> None:
        self._work.along(_TOUCH_GRANT, {"id": grant_id, "now": now})

    def widen(self, grant: Grant, scopes: tuple[str, ...]) -> bool:
        wider = grant.wider(scopes)
        parameters = {
            "id": grant.grant_id,
            "before": grant.scopes,
            "now_has": wider.scopes,
            "and_says": wider.details,
        }
        return self._work.write(_WIDEN_GRANT, parameters) == 1

    def count(self) -> int:
        return int(self._work.read(_COUNT_GRANTS, {}).scalar_one())

    def count_live(self, now: datetime, *, limit: int) -> int:
        return int(self._work.read(_COUNT_LIVE_GRANTS, {"now": now, "limit": limit}).scalar_one())

    def revoke_next(
        self, now: datetime, reason: str, *, after: str = "", limit: int
    ) -> tuple[str, int] | None:
        last = self._work.read(_LAST_OF_NEXT_GRANTS, {"after": after, "limit": limit}).scalar_one()
        if last is None:
            return None
        parameters = {"after": after, "last": last, "now": now, "reason": reason}
        return last, self._work.write(_REVOKE_UP_TO, parameters)

    def page(self, *, after: str = "", limit: int) -> Sequence[Grant]:
        found = self._work.read(_PAGE_OF_GRANTS, {"after": after, "limit": limit})
        return [_GRANT.record(row) for row in found]

    def search(self, wanted: GrantFilter, *, after: Place | None = None, limit: int) -> Sequence[Grant]:
        at, last_id = after or _END
        statement, parameters = _between(_SEARCH_GRANTS, wanted.user_id, wanted.client_id)
        parameters |= {"at": at, "last_id": last_id, "limit": limit}
        if wanted.live_at is not None:
            statement, parameters["now"] = statement.where(*_LIVE), wanted.live_at
        if wanted.redeemed:
            statement = statement.where(_REDEEMED)
        return [_GRANT.record(row) for row in self._work.read(statement, parameters)]

    def revoke_some(self, grant_ids: Sequence[str], now: datetime, reason: str) -> int:
        parameters = {"ids": list(grant_ids), "now": now, "reason": reason}
        revoked = self._work.write(_REVOKE_SOME, parameters)
        self._work.write(_REVOKE_DERIVED, parameters)
        return revoked

    def narrow(self, before: Grant, after: Grant) -> bool:
        parameters = {
            "id": before.grant_id,
            "old_resources": before.resources,
            "old_scopes": before.scopes,
            "new_resources": after.resources,
            "new_scopes": after.scopes,
            "and_says": after.details,
        }
        return self._work.write(_NARROW_GRANT, parameters) == 1


def _between(
    statement: sa.Select[Any], user_id: str | None, client_id: str | None
) -> tuple[sa.Select[Any], dict[str, Any]]:
    """The statement, narrowed to the grants of a person, to a client, or both; and its parameters so far."""
    parameters: dict[str, Any] = {}
    if user_id is not None:
        statement, parameters["of_user"] = statement.where(_OF_USER), user_id
    if client_id is not None:
        is_theirs = _TO_CLIENT if user_id is None else _ALSO_TO_CLIENT
        statement, parameters["to_client"] = statement.where(is_theirs), client_id
    return statement, parameters


class SqlTokens:
    """`engine.ports.Tokens` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(self, token: Token) -> None:
        self._work.along(_ADD_TOKEN, _TOKEN.row(token))

    def find(self, kind: TokenKind, digest: bytes) -> FoundToken | None:
        row = self._work.read(_FIND_TOKEN, {"kind": kind, "digest": digest}).one_or_none()
        return _found_token(row) if row else None

    def foresee(self, kind: TokenKind, digest: bytes) -> None:
        self._work.foresee(_FIND_TOKEN, {"kind": kind, "digest": digest})

    def claim(
        self,
        token: Token,
        now: datetime,
        *,
        successor_digest: bytes | None = None,
        sealed_successor: bytes | None = None,
    ) -> bool:
        parameters = {
            "by_kind": token.kind,
            "by_digest": token.digest,
            "now": now,
            "next_digest": successor_digest,
            "sealed_next": sealed_successor,
        }
        if self._work.is_optimistic:
            self._work.along(_CLAIM_OR_FAIL, parameters)
            return True
        return self._work.write(_CLAIM, parameters) == 1

    def note_failure(self, token: Token, now: datetime, *, limit: int) -> None:
        parameters = {"by_kind": token.kind, "by_digest": token.digest, "now": now, "limit": limit}
        self._work.write(_NOTE_FAILURE, parameters)

    def usable_refresh_tokens(
        self, user_id: str, client_id: str, now: datetime, *, limit: int
    ) -> Sequence[FoundToken]:
        parameters = {"of_user": user_id, "to_client": client_id, "now": now, "limit": limit}
        return [_found_token(row) for row in self._work.read(_USABLE_REFRESH_TOKENS, parameters)]

    def extend(self, token: Token, expires_at: datetime) -> bool:
        parameters = {"by_kind": token.kind, "by_digest": token.digest, "until": expires_at}
        if self._work.is_optimistic:
            self._work.along(_EXTEND_OR_FAIL, parameters)
            return True
        return self._work.write(_EXTEND, parameters) == 1

    def count_live(self, grant_ids: Sequence[str], now: datetime) -> Mapping[TokenKind, int]:
        found = self._work.read(_COUNT_LIVE, {"ids": list(grant_ids), "now": now})
        return {row.kind: row.number for row in found}

    def access_tokens(self, grant_ids: Sequence[str], now: datetime) -> Sequence[Token]:
        found = self._work.read(_ACCESS_TOKENS, {"ids": list(grant_ids), "now": now})
        return [_TOKEN.record(row) for row in found]

    def newest(self, grant_id: str, *, limit: int) -> Sequence[Token]:
        found = self._work.read(_NEWEST_TOKENS, {"grant_id": grant_id, "limit": limit})
        return [_TOKEN.record(row) for row in found]


def _found_token(row: Sequence[Any]) -> FoundToken:
    return FoundToken(
        token=_TOKEN.record(row),
        grant=_TOKEN_GRANT.record(row),
        user=_TOKEN_USER.record(row) if row[_TOKEN_USER.start] is not None else None,
    )
