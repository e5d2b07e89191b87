"""People, and their sessions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from authserver.engine.records import FoundSession, Session, User
from authserver.storage.prepared import Prepared, Remembered
from authserver.storage.rows import Rows
from authserver.storage.tables import sessions, users
from authserver.storage.work import Work, insert_new

_USER = Rows(User, users)
_DISABLED_AT = _USER.place("disabled_at")
_FIND_USER, _FIND_USER_BY_NAME = (
    Remembered(select(*_USER.columns).where(users.c[name] == bindparam(name)), key=[name], tables=[users])
    for name in ("user_id", "username")
)
_FIND_USERS = select(*_USER.columns).where(users.c.user_id.in_(bindparam("user_ids", expanding=True)))
_LIST_USERS = select(*_USER.columns).order_by(users.c.username)
# The limit is written into the statement: PostgreSQL plans for a tenth of the table if it does not know it.
_PAGE_OF_USERS = _LIST_USERS.where(users.c.username > bindparam("after")).limit(
    bindparam("limit", type_=sa.Integer, literal_execute=True)
)
_PAGE_OF_USERS_THAT_BEGIN = _PAGE_OF_USERS.where(
    # The first condition finds the place in the index; the second one is correct with every collation.
    users.c.username >= bindparam("prefix"),
    sa.func.substr(users.c.username, 1, bindparam("size", type_=sa.Integer)) == bindparam("prefix"),
)
_ADD_USER = insert_new(users)
_DISABLE_USER = (
    sa.update(users)
    .where(users.c.user_id == bindparam("id"), users.c.disabled_at.is_(None))
    .values(disabled_at=bindparam("now"))
)
_COUNT_USERS = select(sa.func.count()).select_from(
    # In the order of an index, so that the index is used and no more of the table is read.
    select(users.c.user_id)
    .where(users.c.user_id > "")
    .order_by(users.c.user_id)
    .limit(bindparam("limit", type_=sa.Integer, literal_execute=True))
    .subquery()
)
_ENABLE_USER = (
    sa.update(users)
    # In this form PostgreSQL does not read the index of all disabled users to find one by id.
    .where(users.c.user_id == bindparam("id"), sa.case((users.c.disabled_at.is_(None), 0), else_=1) == 1)
    .values(disabled_at=None)
)
_CHANGE_USER = (
    sa.update(users)
    .where(users.c.user_id == bindparam("id"))
    .values({name: bindparam(f"new_{name}") for name in ("display_name", "groups", "attributes")})
)
_HOLD_ENABLED = Prepared(
    select(users.c.user_id)
    .where(users.c.user_id == bindparam("user_id"), users.c.disabled_at.is_(None))
    .with_for_update(read=True)
)
# Two changes of one user wait for each other.
_HOLD_USER_TO_CHANGE = (
    select(users.c.user_id).where(users.c.user_id == bindparam("user_id")).with_for_update(key_share=True)
)
_SET_PASSWORD = (
    sa.update(users).where(users.c.user_id == bindparam("id")).values(password_hash=bindparam("hash"))
)
_REPLACE_PASSWORD = _SET_PASSWORD.where(users.c.password_hash == bindparam("before"))
_HOLD_USER = Prepared(
    select(users.c.user_id)
    .where(
        users.c.user_id == bindparam("user_id"),
        users.c.password_hash.is_not_distinct_from(bindparam("hash", type_=users.c.password_hash.type)),
    )
    .with_for_update(read=True)
)

_SESSION = Rows(Session, sessions)
_SESSION_USER = Rows(User, users, at=_SESSION.end)
_FIND_SESSION = Prepared(
    select(*_SESSION.columns, *_SESSION_USER.columns)
    .join_from(sessions, users)
    .where(
        sessions.c.digest == bindparam("digest"),
        sessions.c.expires_at > bindparam("now"),
        sessions.c.last_seen_at >= bindparam("idle_since"),
        users.c.disabled_at.is_(None),
    )
)
_ADD_SESSION = Prepared(insert_new(sessions))
_TOUCH_SESSION = Prepared(
    sa.update(sessions)
    .where(sessions.c.digest == bindparam("id"), sessions.c.last_seen_at < bindparam("now"))
    .values(last_seen_at=bindparam("now"))
)
_LIST_SESSIONS = (
    select(*_SESSION.columns)
    .where(
        sessions.c.user_id == bindparam("user_id"),
        sessions.c.expires_at > bindparam("now"),
        sessions.c.last_seen_at >= bindparam("idle_since"),
    )
    .order_by(sessions.c.last_seen_at.desc(), sessions.c.digest)
)
_HOLD_SESSION = Prepared(
    select(sessions.c.digest)
    .where(sessions.c.digest == bindparam("digest"))
    .with_for_update(read=True, key_share=True)
)
_END_SESSION = sa.delete(sessions).where(sessions.c.digest == bindparam("digest"))
_END_SESSIONS = sa.delete(sessions).where(
    sessions.c.user_id == bindparam("user_id"), sessions.c.digest != bindparam("but")
)
_END_SOME_SESSIONS = sa.delete(sessions).where(
    sessions.c.digest.in_(select(sessions.c.digest).order_by(sessions.c.digest).limit(bindparam("limit")))
)


class SqlUsers:
    """`engine.ports.Users` in the database."""

    __slots__ = ("_names", "_work")

    def __init__(self, work: Work) -> None:
        self._work = work
        # The name by which each user was found.
        self._names: dict[str, str] = {}

    def find(self, user_id: str) -> User | None:
        row = self._work.recall(_FIND_USER, {"user_id": user_id}).one_or_none()
        return _USER.record(row) if row else None

    def find_by_name(self, username: str) -> User | None:
        if "\0" in username:  # which PostgreSQL refuses to compare
            return None
        row = self._work.recall(_FIND_USER_BY_NAME, {"username": username}).one_or_none()
        if row is None:
            return None
        user = _USER.record(row)
        self._names[user.user_id] = username
        return user

    def add(self, user: User) -> None:
        self._work.add(_ADD_USER, _USER.row(user))

    def find_all(self, user_ids: Sequence[str]) -> Sequence[User]:
        return [_USER.record(row) for row in self._work.read(_FIND_USERS, {"user_ids": list(user_ids)})]

    def list(self) -> Sequence[User]:
        return [_USER.record(row) for row in self._work.read(_LIST_USERS, {})]

    def page(
        self, *, after: str = "", prefix: str = "", disabled: bool = False, limit: int
    ) -> Sequence[User]:
        if "\0" in prefix:  # which PostgreSQL refuses to compare
            return []
        statement = _PAGE_OF_USERS_THAT_BEGIN if prefix else _PAGE_OF_USERS
        if disabled:
            statement = statement.where(users.c.disabled_at.is_not(None))
        parameters = {"after": after, "prefix": prefix, "size": len(prefix), "limit": limit}
        return [_USER.record(row) for row in self._work.read(statement, parameters)]

    def count(self, *, limit: int) -> int:
        return int(self._work.read(_COUNT_USERS, {"limit": limit}).scalar_one())

    def disable(self, user_id: str, now: datetime) -> bool:
        return self._work.write(_DISABLE_USER, {"id": user_id, "now": now}) == 1

    def hold_enabled(self, user_id: str) -> bool:
        name = self._names.get(user_id, "")
        row = self._work.lock(_FIND_USER, {"user_id": user_id})
        row = row or self._work.lock(_FIND_USER_BY_NAME, {"username": name})
        return row[_DISABLED_AT] is None if row else self._work.hold(_HOLD_ENABLED, {"user_id": user_id})

    def enable(self, user_id: str) -> bool:
        return self._work.write(_ENABLE_USER, {"id": user_id}) == 1

    def change(self, user: User, *, instead_of: User | None = None) -> bool:
        parameters = {
            "id": user.user_id,
            "new_display_name": user.display_name,
            "new_groups": user.groups,
            "new_attributes": user.attributes,
        }
        if instead_of is not None:
            # Compared as records, because an equal JSON text may have another spelling in the database.
            if not self._work.hold(_HOLD_USER_TO_CHANGE, {"user_id": user.user_id}):
                return False
            if _kept(self.find(user.user_id)) != _kept(instead_of):
                return False
        return self._work.write(_CHANGE_USER, parameters) == 1

    def set_password(self, user_id: str, password_hash: str | None, *, instead_of: str | None = None) -> bool:
        parameters = {"id": user_id, "hash": password_hash}
        if instead_of is None:
            return self._work.write(_SET_PASSWORD, parameters) == 1
        return self._work.write(_REPLACE_PASSWORD, parameters | {"before": instead_of}) == 1

    def hold(self, user: User) -> bool:
        return self._work.hold(_HOLD_USER, {"user_id": user.user_id, "hash": user.password_hash})


class SqlSessions:
    """`engine.ports.Sessions` in the database."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(self, session: Session) -> None:
        self._work.add(_ADD_SESSION, _SESSION.row(session))

    def find(self, digest: bytes, now: datetime, idle_since: datetime) -> FoundSession | None:
        parameters = {"digest": digest, "now": now, "idle_since": idle_since}
        row = self._work.read(_FIND_SESSION, parameters).one_or_none()
        return FoundSession(session=_SESSION.record(row), user=_SESSION_USER.record(row)) if row else None

    def touch(self, digest: bytes, now: datetime) -> None:
        self._work.defer(_TOUCH_SESSION, {"id": digest, "now": now})

    def hold(self, digest: bytes) -> bool:
        return self._work.hold(_HOLD_SESSION, {"digest": digest})

    def end(self, digest: bytes) -> None:
        self._work.write(_END_SESSION, {"digest": digest})

    def list(self, user_id: str, now: datetime, idle_since: datetime) -> Sequence[Session]:
        parameters = {"user_id": user_id, "now": now, "idle_since": idle_since}
        return [_SESSION.record(row) for row in self._work.read(_LIST_SESSIONS, parameters)]

    def end_all(self, user_id: str, *, but: bytes | None = None) -> int:
        return self._work.write(_END_SESSIONS, {"user_id": user_id, "but": but or b""})

    def end_some(self, limit: int) -> int:
        return self._work.write(_END_SOME_SESSIONS, {"limit": limit})


def _kept(user: User | None) -> tuple[object, ...]:
    """The members that `SqlUsers.change` replaces; empty without a user."""
    return (user.display_name, user.groups, user.attributes) if user else ()
