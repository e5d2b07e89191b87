"""Fill a database with clients, users, grants, tokens and what comes with them, in a few statements.

fill.py KEY_ID CLIENTS TOKENS    fill the database of DATABASE_URL, which must be migrated

Of five tokens one is a redeemed code, two are rotated refresh tokens, one is a live refresh token and one is an
opaque access token; they share a grant. Half of the grants belong to one popular client, and half of the clients
registered themselves, a loopback address each, and are said to be never used. Nobody knows the texts of these tokens. Nothing has expired.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import literal

from authserver.engine.count_records import Gauge, Step
from authserver.engine.crypto import digests
from authserver.engine.records import EventType, Grant, RegisteredBy, Token, TokenKind
from authserver.storage.columns import UtcDateTime
from authserver.storage.rows import Rows
from authserver.storage.tables import (
    client_logos,
    client_origins,
    client_secrets,
    clients,
    consents,
    event_counts,
    events,
    gauge_samples,
    grants,
    identities,
    kept,
    sessions,
    tokens,
    users,
)

RESOURCE = "https://api.example/"
TOKENS_OF_A_GRANT = 5
GRANTS_OF_A_USER = 4
POPULAR = "client-1"
DAY = 24 * 60 * 60
# Of how many hours and days there are counts.
DAYS = 365
HOURS = DAYS * 24
TOKEN_ROWS, GRANT_ROWS = Rows(Token, tokens), Rows(Grant, grants)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A grant whose refresh token was rotated many times, and the texts of its first and its last one."""

    grant_id: str
    first: str
    last: str


def fill(
    url: str, *, key_id: str, client_count: int, token_count: int, other_count: int | None = None
) -> None:
    """Fill a migrated, empty database, with a user for every four grants.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://…`.
        key_id: the key of the server's key ring that the clients' secrets are said to need.
        other_count: of events, kept records and statistics, each. None: as many as tokens.
    """
    others = token_count if other_count is None else other_count
    engine = sa.create_engine(url)
    grant_count = max(token_count // TOKENS_OF_A_GRANT, 1)
    user_count = max(grant_count // GRANTS_OF_A_USER, 1)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            # Keys come in no order: with the usual 2 MB of cache nearly each row would be read from the disk and written to it.
            for pragma in ("synchronous = OFF", "cache_size = -500000"):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
        put = _Putter(connection)
        put.rows(clients, client_count, _clients)
        put.rows(client_secrets, client_count, lambda n: _client_secrets(n, key_id))
        put.rows(client_origins, client_count, _client_origins)
        put.rows(client_logos, client_count, _client_logos)
        put.rows(users, user_count, _users)
        put.rows(identities, user_count, _identities)
        put.rows(sessions, user_count, _sessions)
        put.rows(consents, user_count, lambda n: _consents(n, client_count))
        put.rows(grants, grant_count, lambda n: _grants(n, user_count, client_count))
        put.rows(tokens, grant_count * TOKENS_OF_A_GRANT, lambda n: _tokens(n, client_count))
        put.rows(kept, others, _kept)
        put.rows(events, others, lambda n: _events(n, client_count))
        put.rows(event_counts, others, lambda n: _event_counts(n, client_count))
        put.rows(gauge_samples, others, _gauge_samples)
    tidy(engine)
    engine.dispose()


def add_family(
    url: str,
    *,
    client_id: str,
    user_id: str,
    scopes: tuple[str, ...],
    resources: tuple[str, ...] = (RESOURCE,),
    rotations: int,
) -> Family:
    """Add a grant of this client and user with a redeemed code and `rotations` + 1 refresh tokens.

    They were rotated within the last hour; the last one is live.
    """
    engine = sa.create_engine(url)
    now = datetime.now(UTC)
    family = Family(
        grant_id=digests.new_identifier(),
        first=digests.new_credential(digests.REFRESH),
        last=digests.new_credential(digests.REFRESH),
    )
    grant = Grant(
        grant_id=family.grant_id,
        client_id=client_id,
        user_id=user_id,
        scopes=scopes,
        resources=resources,
        created_at=now - timedelta(hours=1),
        expires_at=now + timedelta(days=30),
        details={},
    )
    common: dict[str, Any] = {
        "grant_id": family.grant_id,
        "client_id": client_id,
        "scopes": scopes,
        "resources": resources,
        "created_at": grant.created_at,
        "expires_at": grant.expires_at,
        "details": {},
    }
    used: dict[str, Any] = {"claimed_at": now - timedelta(minutes=30)}
    rotated = {**used, "successor_digest": bytes(32), "sealed_successor": bytes(100)}
    ends = [
        Token(kind=TokenKind.CODE, digest=os.urandom(32), **common, **used),
        Token(
            kind=TokenKind.REFRESH,
            digest=digests.digest(TokenKind.REFRESH, family.first),
            **common,
            **(rotated if rotations else {}),
        ),
    ]
    if rotations:
        last = digests.digest(TokenKind.REFRESH, family.last)
        ends.append(Token(kind=TokenKind.REFRESH, digest=last, **common))
    with engine.begin() as connection:
        connection.execute(sa.insert(grants), [GRANT_ROWS.row(grant)])
        connection.execute(sa.insert(tokens), [TOKEN_ROWS.row(token) for token in ends])
        _Putter(connection).rows(
            tokens,
            rotations - 1,
            lambda n: {**TOKEN_ROWS.row(ends[1]), "digest": n.digest},
        )
    engine.dispose()
    return family


def tidy(engine: sa.Engine) -> None:
    """What autovacuum does by itself, a little later. SQLite has none, so nothing is done there."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


class _Numbers:
    """The numbers 1 to `count` as a column, and what either database makes of them."""

    def __init__(self, count: int, dialect: str) -> None:
        first = sa.select(literal(1).label("i")).cte("numbers", recursive=True)
        self.table = first.union_all(sa.select(first.c.i + 1).where(first.c.i < count))
        self.i = self.table.c.i
        self._dialect = dialect
        self._now = datetime.now(UTC)

    def named(self, prefix: str, number: sa.ColumnElement[int] | None = None) -> sa.ColumnElement[str]:
        """A text that ends with the number."""
        return literal(prefix) + sa.cast(self.i if number is None else number, sa.Text)

    @property
    def digest(self) -> sa.ColumnElement[bytes]:
        """32 bytes that nobody can guess."""
        if self._dialect == "sqlite":
            return sa.func.randomblob(32)
        seed = literal(os.urandom(16).hex()) + sa.cast(self.i, sa.Text)
        return sa.func.sha256(sa.func.convert_to(seed, "UTF8"))

    def past(self) -> sa.ColumnElement[datetime]:
        """A moment of the last day, each its own."""
        return self._moved(self._now - timedelta(seconds=DAY))

    def future(self) -> sa.ColumnElement[datetime]:
        """A moment a month ahead, each its own."""
        return self._moved(self._now + timedelta(days=30))

    def hours_before(
        self, number: sa.ColumnElement[int], *, of_day: bool = False
    ) -> sa.ColumnElement[datetime]:
        """The beginning of an hour so many hours before this one, or of a day so many days before today."""
        start = self._now.replace(minute=0, second=0, microsecond=0)
        start, unit = (start.replace(hour=0), "days") if of_day else (start, "hours")
        if self._dialect == "sqlite":
            text = literal(start.strftime("%Y-%m-%d %H:%M:%S"))
            shift = literal("-") + sa.cast(number, sa.Text) + f" {unit}"
            return sa.func.strftime("%Y-%m-%d %H:%M:%S", text, shift) + ".000000"
        return literal(start, UtcDateTime()) - number * sa.literal_column(f"INTERVAL '1 {unit[:-1]}'")

    def _moved(self, start: datetime) -> sa.ColumnElement[Any]:
        milliseconds = (self.i * 37) % (DAY * 1000)
        if self._dialect == "sqlite":
            text = literal(start.strftime("%Y-%m-%d %H:%M:%S"))
            shift = literal("+") + sa.cast(milliseconds / 1000.0, sa.Text) + " seconds"
            # As SQLAlchemy writes a DateTime: with six digits of a second.
            return sa.func.strftime("%Y-%m-%d %H:%M:%f", text, shift) + "000"
        return literal(start, UtcDateTime()) + milliseconds * sa.literal_column("INTERVAL '1 millisecond'")


class _Putter:
    """Inserts as many rows as asked for, in one statement."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def rows(self, table: sa.Table, count: int, row_of: Any) -> None:
        if count < 1:
            return
        numbers = _Numbers(count, self._connection.dialect.name)
        row: Mapping[str, Any] = row_of(numbers)
        values = [
            value if isinstance(value, sa.ColumnElement) else literal(value, table.c[name].type)
            for name, value in row.items()
        ]
        self._connection.execute(
            sa.insert(table).from_select(list(row), sa.select(*values).select_from(numbers.table))
        )


def _every_second(n: _Numbers, one: Any, other: Any) -> Any:
    return sa.case((n.i % 2 == 0, one), else_=other)


def _client_of(n: _Numbers, number: sa.ColumnElement[int], client_count: int) -> Any:
    """Whose grant this is: every second one is the popular client's."""
    return sa.case((number % 2 == 0, literal(POPULAR)), else_=n.named("client-", number % client_count + 1))


def _clients(n: _Numbers) -> Mapping[str, Any]:
    uri = _every_second(n, literal("http://127.0.0.1/cb"), n.named("https://client-") + ".example/cb")
    return {
        "client_id": n.named("client-"),
        "name": n.named("Client "),
        "auth_method": "client_secret_basic",
        "redirect_uris": uri,
        "grant_types": ("authorization_code", "refresh_token"),
        "response_types": ("code",),
        "scopes": ("profile",),
        "resources": (),
        "application_type": "web",
        "registered_by": _every_second(
            n,
            literal(RegisteredBy.SELF, clients.c.registered_by.type),
            literal(RegisteredBy.OPERATOR, clients.c.registered_by.type),
        ),
        "registered_from": n.named("network-"),
        "first_party": False,
        "rotates_refresh_tokens": True,
        "created_at": n.past(),
        "details": {},
    }


def _client_secrets(n: _Numbers, key_id: str) -> Mapping[str, Any]:
    return {
        "client_id": n.named("client-"),
        "digest": n.digest,
        "key_id": key_id,
        "created_at": n.past(),
    }


def _client_logos(n: _Numbers) -> Mapping[str, Any]:
    return {
        "client_id": n.named("client-"),
        "digest": n.named("digest-"),
        "media_type": "image/png",
        "body": n.digest,
    }


def _client_origins(n: _Numbers) -> Mapping[str, Any]:
    origin = _every_second(n, literal("http://127.0.0.1"), n.named("https://client-") + ".example")
    return {"origin": origin, "client_id": n.named("client-")}


def _users(n: _Numbers) -> Mapping[str, Any]:
    return {
        "user_id": n.named("user_"),
        "username": n.named("user"),
        "display_name": n.named("User "),
        "groups": (),
        "attributes": {},
        "created_at": n.past(),
    }


def _identities(n: _Numbers) -> Mapping[str, Any]:
    return {
        "issuer": "https://login.example",
        "subject": n.named("subject-"),
        "user_id": n.named("user_"),
        "label": n.named("user"),
        "joined_at": n.past(),
    }


def _sessions(n: _Numbers) -> Mapping[str, Any]:
    return {
        "digest": n.digest,
        "user_id": n.named("user_"),
        "authenticated_at": n.past(),
        "last_seen_at": n.past(),
        "expires_at": n.future(),
        "details": {},
    }


def _consents(n: _Numbers, client_count: int) -> Mapping[str, Any]:
    return {
        "user_id": n.named("user_"),
        "client_id": _client_of(n, n.i, client_count),
        "scopes": ("profile",),
        "resources": (RESOURCE,),
        "redirect_uris": ("https://client.example/cb",),
        "granted_at": n.past(),
    }


def _grants(n: _Numbers, user_count: int, client_count: int) -> Mapping[str, Any]:
    return {
        "grant_id": n.named("grant-"),
        "client_id": _client_of(n, n.i, client_count),
        "user_id": n.named("user_", n.i % user_count + 1),
        "scopes": ("profile",),
        "resources": (RESOURCE,),
        "created_at": n.past(),
        "expires_at": n.future(),
        "details": {},
    }


def _tokens(n: _Numbers, client_count: int) -> Mapping[str, Any]:
    # Whole numbers on both databases: SQLAlchemy's / is a true division.
    grant, turn = (n.i - 1) // TOKENS_OF_A_GRANT + 1, (n.i - 1) % TOKENS_OF_A_GRANT
    kinds = {0: TokenKind.CODE, 1: TokenKind.ACCESS}
    kind = sa.case(
        *((turn == number, literal(kind.value)) for number, kind in kinds.items()),
        else_=literal(TokenKind.REFRESH.value),
    )
    is_rotated, is_used = turn.in_([3, 4]), turn.in_([0, 3, 4])
    return {
        "kind": kind,
        "digest": n.digest,
        "grant_id": n.named("grant-", grant),
        "client_id": _client_of(n, grant, client_count),
        "scopes": ("profile",),
        "resources": (RESOURCE,),
        "created_at": n.past(),
        "expires_at": n.future(),
        "claimed_at": sa.case((is_used, n.past()), else_=sa.null()),
        "successor_digest": sa.case((is_rotated, n.digest), else_=sa.null()),
        "sealed_successor": sa.case((is_rotated, literal(bytes(100))), else_=sa.null()),
        "failures": 0,
        "details": {},
    }


def _kept(n: _Numbers) -> Mapping[str, Any]:
    return {
        "kind": "used",
        "digest": n.digest,
        "client_id": None,
        "created_at": n.past(),
        "expires_at": n.future(),
        "claimed_at": n.past(),
        "details": {},
    }


def _events(n: _Numbers, client_count: int) -> Mapping[str, Any]:
    return {
        "event_id": n.named("event-"),
        "type": EventType.TOKEN_ISSUED,
        "at": n.past(),
        "client_id": _client_of(n, n.i, client_count),
        "grant_id": n.named("grant-"),
        "reason": "",
        "decisions": [],
        "details": {},
    }


def _event_counts(n: _Numbers, client_count: int) -> Mapping[str, Any]:
    return {
        "step": _every_second(n, literal("hour"), literal("day")),
        "client_id": sa.case((n.i % 10 == 0, literal("")), else_=_client_of(n, n.i, client_count)),
        "at": _every_second(n, n.hours_before(n.i % HOURS), n.hours_before(n.i % DAYS, of_day=True)),
        "type": EventType.TOKEN_ISSUED,
        "grant_type": "refresh_token",
        # Each row is another one.
        "reason": _every_second(n, n.named("reason-", n.i / HOURS), n.named("reason-", n.i / DAYS)),
        "count": n.i,
    }


def _gauge_samples(n: _Numbers) -> Mapping[str, Any]:
    return {"gauge": Gauge.PEOPLE, "step": Step.HOUR, "at": n.hours_before(n.i), "value": n.i}


def main() -> None:
    client_count, token_count = (int(argument) for argument in sys.argv[2:4])
    begun = time.perf_counter()
    fill(os.environ["DATABASE_URL"], key_id=sys.argv[1], client_count=client_count, token_count=token_count)
    print(
        f"{client_count} clients, {token_count} tokens: {time.perf_counter() - begun:.0f} s", file=sys.stderr
    )


if __name__ == "__main__":
    main()
