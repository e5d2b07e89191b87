"""A database of the first version with rows in every table, on its way to this version and back."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from authserver.engine.clients import secrets
from authserver.engine.crypto import digests, jose
from authserver.engine.crypto.sealing import KeyRing, to_text
from authserver.engine.keys import signing_keys
from authserver.engine.records import TokenKind
from authserver.ini import load
from authserver.settings import key_ring
from authserver.storage import migrate
from authserver.testing.server import CHALLENGE, ISSUER, PASSWORD, SETTINGS, Server
from authserver.testing.stories import is_signed_in

SECRET = "as_secret_" + "A" * 43
SECRET += digests.checksum(SECRET)
CODE, ACCESS, REFRESH, SESSION = (
    prefix + "B" * 43 + digests.checksum(prefix + "B" * 43)
    for prefix in (digests.CODE, digests.ACCESS, digests.REFRESH, digests.SESSION)
)
RING = KeyRing(key_ring(load({**SETTINGS, "authserver.database_url": "sqlite:///none.db"}).settings))
CHECKOUT = Path(__file__).parents[2]
DAY = timedelta(days=1)


def alembic(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", f"{CHECKOUT}/alembic")
    config.attributes["database_url"] = url
    return config


def rows_of_the_first_version(now: datetime) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """Rows for each table of migration 0001, and a JWT that its signing key made."""
    kid, public, private = jose.new_signing_key("ES256")
    key_id, secret = RING.keyed_digest(f"reports\0{SECRET}", purpose=secrets.PURPOSE)
    client = {
        "auth_method": "client_secret_basic",
        "redirect_uris": "https://client.example/cb",
        "grant_types": "authorization_code refresh_token",
        "response_types": "code",
        "scopes": "profile files.read",
        "resources": "",
        "application_type": "web",
        "registered_by": "operator",
        "first_party": False,
        "created_at": now - DAY,
        "disabled_at": None,
        "details": {"client_uri": "https://client.example/"},
    }
    grant = {
        "client_id": "reports",
        "user_id": "user_ann",
        "scopes": "profile",
        "resources": "https://api.example/",
        "created_at": now,
        "expires_at": now + DAY,
        "revoked_at": None,
        "revoked_reason": None,
        "details": {"auth_time": 1, "amr": ["pwd"]},
    }
    token = {
        "client_id": "reports",
        "scopes": "profile",
        "resources": "https://api.example/",
        "created_at": now,
        "expires_at": now + timedelta(seconds=60),
        "claimed_at": None,
        "successor_digest": None,
        "sealed_successor": None,
        "failures": 0,
        "details": {},
    }
    user = {"display_name": "", "is_admin": False, "created_at": now, "disabled_at": None}
    challenge = {"redirect_uri": "https://client.example/cb", "code_challenge": CHALLENGE}

    def of_kind(kind: str, text: str, grant_id: str | None, **changes: Any) -> dict[str, Any]:
        return token | {"kind": kind, "digest": digests.digest(kind, text), "grant_id": grant_id} | changes

    rows: dict[str, list[dict[str, Any]]] = {
        "clients": [
            client | {"client_id": "reports", "name": "Reports"},
            client
            | {"client_id": "stranger", "name": "Stranger", "auth_method": "none", "registered_by": "self"},
            client | {"client_id": "locked", "name": "Locked", "disabled_at": now},
        ],
        "client_secrets": [
            {
                "client_id": "reports",
                "digest": secret,
                "key_id": key_id,
                "created_at": now,
                "expires_at": None,
            },
            {"client_id": "locked", "digest": b"x", "key_id": key_id, "created_at": now, "expires_at": now},
        ],
        "client_origins": [
            {"client_id": name, "origin": "https://client.example"} for name in ("reports", "stranger")
        ],
        "users": [
            user
            | {"user_id": "user_ann", "username": "ann", "password_hash": digests.hash_password(PASSWORD)},
            user | {"user_id": "user_bob", "username": "bob", "password_hash": None, "disabled_at": now},
        ],
        "grants": [
            grant | {"grant_id": "by code"},
            grant | {"grant_id": "live"},
            grant | {"grant_id": "revoked", "revoked_at": now, "revoked_reason": "token-revoked"},
            grant | {"grant_id": "of nobody", "user_id": None},
        ],
        "tokens": [
            of_kind(TokenKind.CODE, CODE, "by code", details=challenge),
            of_kind(TokenKind.ACCESS, ACCESS, "live"),
            of_kind(TokenKind.REFRESH, REFRESH, "live", expires_at=now + DAY),
            of_kind(
                TokenKind.REFRESH,
                "rotated",
                "live",
                claimed_at=now,
                successor_digest=digests.digest(TokenKind.REFRESH, REFRESH),
                sealed_successor=b"sealed",
            ),
            of_kind(TokenKind.ACCESS, "of a revoked grant", "revoked"),
            of_kind("request", "answered", None, claimed_at=now, scopes="", resources=""),
        ],
        "consents": [
            {
                "user_id": "user_ann",
                "client_id": "reports",
                "scopes": "profile",
                "resources": "https://api.example/",
                "redirect_uris": "https://client.example/cb",
                "granted_at": now,
            }
        ],
        "events": [
            {
                "event_id": "event",
                "type": "token.issued",
                "at": now,
                "client_id": "reports",
                "user_id": "user_ann",
                "grant_id": "live",
                "reason": "",
                "decisions": [{"slot": "scope_decision"}],
                "details": {"grant_type": "authorization_code"},
            }
        ],
        "sessions": [
            {
                "digest": digests.digest("session", SESSION),
                "user_id": "user_ann",
                "authenticated_at": now,
                "last_seen_at": now,
                "expires_at": now + DAY,
                "details": {"amr": ["pwd"]},
            }
        ],
        "signing_keys": [
            {
                "kid": kid,
                "algorithm": "ES256",
                "public_jwk": public,
                "sealed_private_jwk": signing_keys.seal_private(RING, kid, private),
                "state": "active",
                "created_at": now,
            }
        ],
    }
    claims = {
        "iss": ISSUER,
        "sub": "user_ann",
        "client_id": "reports",
        "aud": "https://api.example/",
        "scope": "profile",
        "iat": int(now.timestamp()),
        "exp": int(now.timestamp()) + 600,
        "jti": "live.jwt",
    }
    return rows, jose.KeySet([(kid, "ES256", public, private, True)]).sign(claims, typ="at+jwt")


@pytest.fixture
def first_version(empty_url: str) -> tuple[str, str]:
    """A database at migration 0001 with rows in every table, and a JWT of its time."""
    command.upgrade(alembic(empty_url), "0001")
    rows, jwt = rows_of_the_first_version(datetime.now(UTC))
    with connected(empty_url) as connection, connection.begin():
        tables = sa.MetaData()
        tables.reflect(connection)
        assert {table.name for table in tables.sorted_tables} - {"alembic_version"} == rows.keys()
        for table in tables.sorted_tables:
            for row in rows.get(table.name, []):
                connection.execute(table.insert(), row)
    return empty_url, jwt


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """A connection that knows nothing of our types."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def contents(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, as it is stored."""
    with connected(url) as connection:
        names = set(sa.inspect(connection).get_table_names()) - {"alembic_version"}
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
        return {
            name: [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {name}")).mappings()]
            for name in names
        }


def in_common(
    before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]
) -> Iterator[tuple[str, set[str], set[str]]]:
    """The rows of each earlier table before and after, as far as both have the same columns."""
    for name, rows in before.items():
        columns = sorted(rows[0].keys() & after[name][0].keys())
        were, are = (
            {repr([(column, row[column]) for column in columns]) for row in found}
            for found in (rows, after[name])
        )
        yield name, were, are


def test_an_upgrade_keeps_every_row_and_downgrading_brings_back_what_was(
    first_version: tuple[str, str],
) -> None:
    """House rule 24, T113: every table, with foreign keys on; and once more up and down."""
    url, _ = first_version
    before = contents(url)
    for _ in range(2):
        migrate.upgrade(url)
        upgraded = contents(url)
        # What was used has a table of its own by now.
        (used,) = upgraded["kept"]
        nothing_else = dict.fromkeys(upgraded["tokens"][0]) | {"scopes": "", "resources": "", "failures": 0}
        upgraded["tokens"].append(nothing_else | used | {"kind": "request"})
        for name, were, are in in_common(before, upgraded):
            assert are == were, name
            assert len(upgraded[name]) == len(before[name]), name
        (key,) = upgraded["signing_keys"]
        assert key["activates_at"] == key["created_at"]
        assert (key["retires_at"], key["ends_at"]) == (None, None)
        assert all(row["rotates_refresh_tokens"] for row in upgraded["clients"])
        assert [row["client_name"] for row in upgraded["consents"]] == ["Reports"]
        command.downgrade(alembic(url), "0001")
        downgraded = contents(url)
        assert downgraded.keys() == before.keys()
        for name, were, are in in_common(before, downgraded):
            assert are == were, name
            assert downgraded[name][0].keys() == before[name][0].keys(), name


def test_what_an_earlier_version_gave_out_is_good_after_an_upgrade(first_version: tuple[str, str]) -> None:
    """R-01, R-02: the client's secret, a code, tokens of each kind, a session and a password; what ended has ended."""
    url, jwt = first_version
    migrate.upgrade(url)
    check_server(url, jwt)


def test_a_server_starts_after_a_way_down_and_up_again(first_version: tuple[str, str]) -> None:
    url, jwt = first_version
    migrate.upgrade(url)
    Server(url).close()
    command.downgrade(alembic(url), "0001")
    migrate.upgrade(url)
    check_server(url, jwt)


def check_server(url: str, jwt: str) -> None:
    """Everything that was given out before the upgrade is taken, and one revocation ends it."""
    server = Server(url)
    try:
        with server.application.begin() as engine:
            client = engine.stores.clients.find("reports", engine.now)
        assert client is not None
        assert [key["kid"] for key in server.http.get("/oauth/jwks").json["keys"]] == [kid_of(jwt)]
        for text in (ACCESS, jwt):
            assert server.introspect(client, SECRET, text).json["active"] is True
        assert server.redeem(client, SECRET, CODE).status_int == 200
        refreshed = server.refresh(client, SECRET, REFRESH)
        assert refreshed.status_int == 200
        assert kid_of(refreshed.json["access_token"]) == kid_of(jwt)
        mac = to_text(server.application.parts.ring.mac(SESSION.encode(), purpose="session-cookie"))
        assert is_signed_in(server, server.browser(), cookie=f"__Host-authserver-session={SESSION}.{mac}")
        assert server.sign_in(server.browser()).status_int == 303
        assert server.revoke(client, SECRET, refreshed.json["refresh_token"]).status_int == 200
        assert server.introspect(client, SECRET, ACCESS).json == {"active": False}
    finally:
        server.close()


def kid_of(jwt: str) -> str:
    header = jwt.partition(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


def test_a_downgrade_keeps_what_the_first_version_can_keep(empty_url: str) -> None:
    """Keys that retire or ended have no place there; clients, people and what they agreed to stay."""
    migrate.upgrade(empty_url)
    server = Server(empty_url)
    try:
        server.add_user("ann")
        client, _ = server.add_client()
        server.code(client)
        with server.application.begin() as engine:
            signing_keys.rotate(engine)
            engine.stores.generations.begin(engine.now)
        counts = {name: len(rows) for name, rows in contents(empty_url).items()}
    finally:
        server.close()
    assert counts["signing_keys"] == 2
    command.downgrade(alembic(empty_url), "0001")
    after = {name: len(rows) for name, rows in contents(empty_url).items()}
    # What was used, the answered request, is among the tokens there.
    counts |= {"signing_keys": 1, "tokens": counts["tokens"] + counts["kept"]}
    assert after == {name: counts[name] for name in after}
    migrate.upgrade(empty_url)
    Server(empty_url).close()
