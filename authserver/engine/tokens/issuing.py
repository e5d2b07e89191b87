"""The one place that issues codes and tokens: ask, mint, claim, store digests, write the event; one transaction.

All questions to plugins come before the first write: on SQLite a write makes all other writers wait, and a
plugin may be slow.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from authserver.engine import issuer_registry
from authserver.engine.context import Binding, Engine, Issue
from authserver.engine.crypto import digests
from authserver.engine.crypto.sealing import seal_under
from authserver.engine.errors import (
    InvalidClient,
    InvalidGrant,
    InvalidTarget,
    ServerError,
    UnauthorizedClient,
)
from authserver.engine.ports import AlreadyExists, StorageUnavailable
from authserver.engine.records import (
    AUTHENTICATES,
    NOTHING,
    ON_ANOTHER_DEVICE,
    SESSION,
    THROUGH,
    VOUCHED_BY,
    Client,
    EventType,
    Grant,
    JoinedIdentity,
    Token,
    TokenKind,
)
from authserver.engine.tokens import once
from authserver.engine.tokens.widening import WIDENS, widen_others
from authserver.settings import AccessTokenFormat

log = logging.getLogger(__name__)

# Claims that no plugin may add: the core writes them, or reserves them for parts of the protocol.
CORE_CLAIMS = frozenset(
    {
        "iss",
        "sub",
        "aud",
        "client_id",
        "iat",
        "nbf",
        "exp",
        "jti",
        "scope",
        "auth_time",
        "acr",
        "amr",
        "cnf",
        "act",
    }
)
CORE_RESPONSE_MEMBERS = frozenset(
    {
        "access_token",
        "token_type",
        "expires_in",
        "scope",
        "refresh_token",
        "error",
        "error_description",
        "error_id",
    }
)

# How and when the person signed in: of the grant, and the same in each of its tokens (RFC 9068, 2.2.1).
SIGN_IN_CLAIMS = ("auth_time", "acr", "amr")
# Who acts for the subject: of the grant, and the same in each of its tokens (RFC 8693, 4.1).
ACTOR = "act"
GRANT_CLAIMS = (*SIGN_IN_CLAIMS, ACTOR)

CODE_DETAILS = frozenset({"redirect_uri", "code_challenge"})
# The details of a grant that no plugin may write: the core writes them, and relies on them.
GRANT_DETAILS = frozenset(
    {
        *GRANT_CLAIMS,
        SESSION,
        THROUGH,
        VOUCHED_BY,
        WIDENS,
        AUTHENTICATES,
        ON_ANOTHER_DEVICE,
        "grant_type",
        "added_scopes",
        "narrowed",
    }
)

# The last use of a client is stored to the day, so that a client that gets tokens all the time is written once a day.
USED_EVERY = timedelta(days=1)

# People see when an application last got tokens. To the minute is exact enough, and needs fewer writes.
TOUCHED_EVERY = timedelta(minutes=1)


# The token type in a response whose token is no access token (RFC 8693, 2.2.1).
NOT_APPLICABLE = "N_A"


class AlreadyClaimed(Exception):
    """Another request claimed the same code or refresh token first, or its grant was revoked; undo what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenResponse:
    """The answer of the token endpoint (OAuth 2.1, 3.2.3). `expires_in` is in seconds."""

    access_token: str = field(repr=False)
    token_type: str = "Bearer"
    expires_in: int
    scopes: tuple[str, ...]
    refresh_token: str | None = field(default=None, repr=False)
    added: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    def as_json(self) -> dict[str, Any]:
        """The members of the response; `refresh_token` only if there is one."""
        answer = {
            "access_token": self.access_token,
            "token_type": self.token_type,
            "expires_in": self.expires_in,
            "scope": " ".join(self.scopes),
            **self.added,
        }
        if self.refresh_token is not None:
            answer["refresh_token"] = self.refresh_token
        return answer


def issue(engine: Engine, client: Client, order: Issue, binding: Binding | None = None) -> TokenResponse:
    """Issue what a grant type allows in its `Issue`.


    Args:
        binding: the key that the client proved, if any.

    Raises:
        InvalidGrant: its person may not sign in, or a grant or issuer from which it was derived has ended.
        OAuthError: the presented code or token is bound to a key that this request does not prove; it stays usable
            (`Issue.bound_refusal`).
        ServerError: a plugin failed, or ordered something that cannot be issued.
        InvalidTarget: a resource of a new grant was removed meanwhile.
        OAuthError: another thing of single use was used before.
        AlreadyClaimed: the code or refresh token was used at the same time.
    """
    journal = engine.journal
    journal.client_id, journal.grant_id = client.client_id, order.grant.grant_id
    journal.user_id = order.grant.user_id
    if order.bound and (binding is None or binding.confirmation != order.bound):
        raise order.bound_refusal("What was presented is bound to another key.", reason="key-differs")
    token_type = engine.token_type(binding.confirmation if binding else NOTHING)
    assert token_type is not None  # a binding with another key is a fault of its plugin
    if order.other is not None:
        token_type = NOT_APPLICABLE
    _check_kept(engine, order)
    _check_person(order)
    access_token, expires_at, kept = _access_token(engine, client, order, binding)
    added = engine.gather(
        "token_response",
        engine=engine,
        client=client,
        user=order.user,
        grant=order.grant,
        scopes=order.scopes,
        spends=order.spends,
        access_token=access_token,
        now=engine.now,
    )
    # From here on no plugin is asked.
    for use in (*order.uses, *(binding.uses if binding else ())):
        once.claim(engine, client, use)
    # A grant without a user that has only one JWT is not stored: the JWT contains everything until it expires. But it
    # does not say from which grant or issuer it was derived.
    hangs = order.derived_from or VOUCHED_BY in order.grant.details
    # Before the grant is locked for sharing: of two requests that share it, none could change it.
    _touch(engine, order)
    if order.is_new and (order.grant.user_id or kept or order.refreshable or hangs):
        _keep(engine, order)
    elif order.derived_from and not engine.stores.grants.hold(
        [each.grant_id for each in (order.grant, *order.derived_from)]
    ):
        raise InvalidGrant("The access behind this request has ended.", reason="parent-grant-revoked")
    refresh_token = _spend(engine, client, order, binding)
    if kept:
        engine.stores.tokens.add(kept)
    _note_use(engine, client)
    journal.acts(client)
    if order.spends and order.spends.kind is TokenKind.CODE and order.grant.details.get(WIDENS):
        widen_others(engine, client, order.grant, binding)
    engine.record(
        EventType.TOKEN_ISSUED,
        details={
            "scopes": list(order.scopes),
            "resources": list(order.resources),
            "refresh_token": refresh_token is not None,
            "retry": order.refresh_token is not None,
            **({"grant_type": journal.grant_type} if journal.grant_type else {}),
            **_confirmed(binding),
            **order.noted,
        },
    )
    return TokenResponse(
        access_token=access_token,
        token_type=token_type,
        expires_in=int((expires_at - engine.now).total_seconds()),
        scopes=order.scopes,
        refresh_token=refresh_token,
        added=added,
    )


def new_code() -> str:
    """A fresh code, for `issue_code` to store."""
    return digests.new_credential(digests.CODE)


def issue_code(
    engine: Engine,
    client: Client,
    grant: Grant,
    code: str,
    *,
    redirect_uri: str,
    code_challenge: str | None,
    details: Mapping[str, Any] = NOTHING,
) -> None:
    """Store a new grant and a code for it; the client gets the code, only its digest is stored (B-22, B-23).

    Args:
        code_challenge: None if a plugin protects the code in another way (`pkce_replacements`).
        details: further details of the code, from plugins.

    Raises:
        InvalidTarget: a resource was removed meanwhile.
        UnauthorizedClient: the client was disabled meanwhile.
    """
    keep_approved(
        engine,
        client,
        grant,
        digests.digest(TokenKind.CODE, code),
        expires_at=engine.now + timedelta(seconds=engine.settings.code_lifetime),
        details={
            **details,
            "redirect_uri": redirect_uri,
            **({"code_challenge": code_challenge} if code_challenge else {}),
        },
    )


def keep_approved(
    engine: Engine,
    client: Client,
    grant: Grant,
    digest: bytes,
    *,
    expires_at: datetime,
    details: Mapping[str, Any] = NOTHING,
) -> None:
    """Store a new grant, to which a person agreed, and the code that redeems it once, before `expires_at`.

    Args:
        digest: the digest of the code, which the client has or gets.
        details: the details of the code; `cnf` is the key that it is bound to.

    Raises: as `issue_code`.
    """
    if not engine.stores.clients.hold(client.client_id):
        raise UnauthorizedClient("The client is disabled.", reason="client-disabled")
    _hold_resources(engine, grant)
    engine.stores.grants.add(grant)
    engine.stores.tokens.add(
        Token(
            kind=TokenKind.CODE,
            digest=digest,
            grant_id=grant.grant_id,
            client_id=grant.client_id,
            scopes=grant.scopes,
            resources=grant.resources,
            created_at=engine.now,
            expires_at=expires_at,
            details=details,
        )
    )
    _note_use(engine, client)
    engine.journal.grant_id = grant.grant_id
    engine.record(
        EventType.CODE_ISSUED, details={"scopes": list(grant.scopes), "resources": list(grant.resources)}
    )


def _hold_resources(engine: Engine, grant: Grant) -> None:
    """Lock the resources of a new grant that are in the database: a removal of one then finds this grant (L-08).

    Raises:
        InvalidTarget: one was removed after it was looked up for this request.
    """
    for resource in engine.resources.of(grant.resources):
        if resource.is_stored and not engine.stores.resources.hold(resource.form):
            raise InvalidTarget("The requested resource is not allowed.", reason="resource-gone")


def _check_kept(engine: Engine, order: Issue) -> None:
    """A grant that is not new must be stored already, or it could not be revoked.

    Raises:
        InvalidGrant: it has ended.
        ServerError: it is not stored, or not the grant of the code or refresh token that is used up.
    """
    # A successor that is sent again belongs to a grant that was just read.
    if order.is_new or order.refresh_token is not None:
        return
    token = order.spends or order.keeps
    if token is not None:
        if token.grant_id != order.grant.grant_id:
            raise _faulty(order, "grant-of-another-token")
        return
    grant = engine.stores.grants.find(order.grant.grant_id)
    if grant is None:
        raise _faulty(order, "grant-not-kept")
    if grant.revoked_at is not None or grant.expires_at <= engine.now:
        raise InvalidGrant("The grant has ended.", reason="grant-ended")


def _check_person(order: Issue) -> None:
    """Tokens are issued only for a user who may sign in, whatever the grant type (R-09).

    Raises:
        InvalidGrant: the user is disabled.
        ServerError: the grant type did not name the user whose grant it is.
    """
    user, user_id = order.user, order.grant.user_id
    if user_id is None:
        return
    if user is None or user.user_id != user_id:
        raise _faulty(order, "grant-without-its-user")
    if not user.is_enabled:
        raise InvalidGrant("The user may not sign in.", reason="user-disabled")


def _keep(engine: Engine, order: Issue) -> None:
    """Store a new grant, so that it can be listed and revoked like every other.

    A transaction that disables its client or user, or removes a resource, waits for it and finds it (L-08).

    Raises:
        InvalidClient, InvalidGrant, InvalidTarget: one of them was disabled or removed meanwhile.
    """
    grant, stores = order.grant, engine.stores
    _hold_parents(engine, order)
    _hold_issuer(engine, grant)
    if not stores.clients.hold(grant.client_id):
        raise InvalidClient("The client is disabled.", reason="client-disabled")
    if order.joins is not None:
        _add_user(engine, order, order.joins)
    elif grant.user_id is not None and not stores.users.hold_enabled(grant.user_id):
        raise InvalidGrant("The user may not sign in.", reason="user-disabled")
    _hold_resources(engine, grant)
    try:
        engine.stores.grants.add(order.grant)
    except AlreadyExists:
        raise _faulty(order, "grant-kept-already") from None


def _hold_parents(engine: Engine, order: Issue) -> None:
    """Lock the grants from which a new one is derived: a transaction that ends one waits, and then ends the new one (T163).

    Before the client is locked: a token request locks its grant before its client.

    Raises:
        InvalidGrant: one of them ended meanwhile.
        ServerError: the first of them is not the parent of the grant, or the grant would end later than one of them.
    """
    parents, grants = order.derived_from, engine.stores.grants
    if order.grant.parent_id != (parents[0].grant_id if parents else None):
        raise _faulty(order, "grant-without-its-parent")
    if any(order.grant.expires_at > parent.expires_at for parent in parents):
        raise _faulty(order, "grant-longer-than-its-parent")
    if not parents:
        return
    if not grants.hold([parent.grant_id for parent in parents]):
        raise InvalidGrant("The access behind this request has ended.", reason="parent-grant-revoked")


def _hold_issuer(engine: Engine, grant: Grant) -> None:
    """Lock the issuer that vouched for the person: a transaction that disables it waits, and then finds this grant (T164).

    Raises:
        InvalidGrant: it was disabled meanwhile.
    """
    issuer = grant.details.get(VOUCHED_BY)
    found = issuer_registry.hold(engine, issuer) if isinstance(issuer, str) else None
    if found is not None and not found.is_enabled:
        raise InvalidGrant("The access behind this request has ended.", reason="issuer-disabled")


def _add_user(engine: Engine, order: Issue, joins: JoinedIdentity) -> None:
    """Store the person for whom an issuer vouched for the first time.

    Raises:
        AlreadyClaimed: another request did so at the same time; when the grant type is asked again, it finds the person.
        ServerError: the grant type named an identity of another person.
    """
    user = order.user
    if user is None or joins.user_id != user.user_id:
        raise _faulty(order, "identity-of-somebody-else")
    try:
        engine.stores.users.add(user)
        engine.stores.identities.add(joins)
    except AlreadyExists:
        raise AlreadyClaimed from None
    details = {"groups": list(user.groups), "attributes": sorted(user.attributes), "password": False}
    engine.record(EventType.USER_ADDED, details=details)
    engine.record(EventType.IDENTITY_JOINED, details={"issuer": joins.issuer})


def _faulty(order: Issue, reason: str) -> ServerError:
    """The refusal of an order that only a faulty grant type makes."""
    name = order.grant.details.get("grant_type", "of the core")
    log.error(
        "the grant type %s ordered what cannot be issued (%s): refusing; fix or remove it", name, reason
    )
    return ServerError("The server could not answer this request.", reason=reason)


def _confirmed(binding: Binding | None) -> dict[str, Any]:
    """The `cnf` of the key, as a token and its record have it (RFC 7800, 3.1)."""
    return {"cnf": dict(binding.confirmation)} if binding else {}


def _spend(engine: Engine, client: Client, order: Issue, binding: Binding | None) -> str | None:
    """Use up the code or refresh token; make and store the refresh token that comes with the access token, if any."""
    spends, tokens = order.spends, engine.stores.tokens
    if order.keeps is not None:
        # Its client has it, so it is not sent again (OAuth 2.1, 4.3.3).
        if not tokens.extend(order.keeps, _idle_end(engine, order.grant)):
            raise AlreadyClaimed
        return None
    if not order.refreshable or order.refresh_token is not None:
        if spends and not tokens.claim(spends, engine.now):
            raise AlreadyClaimed
        return order.refresh_token
    token = digests.new_credential(digests.REFRESH)
    digest = digests.digest(TokenKind.REFRESH, token)
    if spends and order.presented:
        # Only the used token opens the successor: no key of this server does.
        sealed = seal_under(order.presented, token.encode())
        claimed = tokens.claim(spends, engine.now, successor_digest=digest, sealed_successor=sealed)
    else:
        claimed = spends is None or tokens.claim(spends, engine.now)
    if not claimed:
        raise AlreadyClaimed
    tokens.add(
        Token(
            kind=TokenKind.REFRESH,
            digest=digest,
            grant_id=order.grant.grant_id,
            client_id=client.client_id,
            # A successor has all scopes and resources of its predecessor, however narrow this request was (I-11).
            scopes=spends.scopes if spends else order.scopes,
            resources=spends.resources if spends else order.resources,
            created_at=engine.now,
            expires_at=_idle_end(engine, order.grant),
            details=_confirmed(binding) if binding and binding.binds_refresh else NOTHING,
        )
    )
    return token


def _idle_end(engine: Engine, grant: Grant) -> datetime:
    """The time at which a refresh token expires if it is not used; never after its grant (I-13)."""
    idle = timedelta(seconds=engine.settings.refresh_token_idle_lifetime)
    return min(engine.now + idle, grant.expires_at)


def _touch(engine: Engine, order: Issue) -> None:
    """Note that the client got tokens of this grant, unless that was noted less than a minute ago."""
    grant = order.grant
    if not order.is_new and engine.now - (grant.last_used_at or grant.created_at) >= TOUCHED_EVERY:
        engine.stores.grants.touch(grant.grant_id, engine.now)


def _note_use(engine: Engine, client: Client) -> None:
    """Note that the client got a code or token, unless that was noted less than a day ago.

    Raises StorageUnavailable when it has just been deleted, as an unused client may be (`clients.room`): no code or
    token must be stored for a client that does not exist. If the request is repeated, its client is unknown.
    """
    if client.last_used_at is None and client.is_self_registered:
        if not engine.stores.clients.note_first_use(client.client_id, engine.now):
            raise StorageUnavailable("the client was deleted at the same time")
    elif client.last_used_at is None or engine.now - client.last_used_at >= USED_EVERY:
        engine.stores.clients.touch(client.client_id, engine.now)


def _access_token(
    engine: Engine, client: Client, order: Issue, binding: Binding | None
) -> tuple[str, datetime, Token | None]:
    """A JWT (RFC 9068) or an opaque token, as client and resources require; its end; and its record, None for a JWT."""
    grant, other = order.grant, order.other
    if other is not None:
        ends = min(engine.now + timedelta(seconds=other.lifetime), grant.expires_at)
        return engine.signer.sign(_others_claims(engine, order, binding, ends), typ=other.typ), ends, None
    token_format, lifetime = engine.token_form(client, order.resources)
    expires_at = min(engine.now + lifetime, grant.expires_at)
    if token_format is AccessTokenFormat.JWT:
        claims = _claims(engine, client, order, binding, expires_at)
        return engine.signer.sign(claims, typ="at+jwt"), expires_at, None
    token = digests.new_credential(digests.ACCESS)
    kept = Token(
        kind=TokenKind.ACCESS,
        digest=digests.digest(TokenKind.ACCESS, token),
        grant_id=grant.grant_id,
        client_id=client.client_id,
        scopes=order.scopes,
        resources=order.resources,
        created_at=engine.now,
        expires_at=expires_at,
        details=_confirmed(binding),
    )
    return token, expires_at, kept


def _others_claims(
    engine: Engine, order: Issue, binding: Binding | None, expires_at: datetime
) -> Mapping[str, Any]:
    """The claims of a token for another server. Its `jti` begins with the grant id, too."""
    assert order.other is not None
    return {
        **order.other.claims,
        "iss": engine.settings.issuer,
        "iat": int(engine.now.timestamp()),
        "exp": int(expires_at.timestamp()),
        "jti": f"{order.grant.grant_id}.{digests.new_identifier()}",
        **_confirmed(binding),
    }


def _claims(
    engine: Engine, client: Client, order: Issue, binding: Binding | None, expires_at: datetime
) -> Mapping[str, Any]:
    """RFC 9068, 2.2. The `jti` begins with the grant id, so a token leads to what was agreed."""
    grant = order.grant
    claims: dict[str, Any] = {
        "iss": engine.settings.issuer,
        "sub": grant.subject,
        "aud": order.resources[0] if len(order.resources) == 1 else list(order.resources),
        "client_id": client.client_id,
        "iat": int(engine.now.timestamp()),
        "exp": int(expires_at.timestamp()),
        "jti": f"{grant.grant_id}.{digests.new_identifier()}",
        "scope": " ".join(order.scopes),
        **_confirmed(binding),
        **engine.gather(
            "token_claims",
            client=client,
            user=order.user,
            grant=grant,
            scopes=order.scopes,
            resources=order.resources,
        ),
    }
    for name in GRANT_CLAIMS:
        if name in grant.details:
            claims[name] = grant.details[name]
    return claims
