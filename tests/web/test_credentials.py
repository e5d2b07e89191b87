"""Every credential that is handed out: how it is made, how it is kept, and where alone it counts."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from webtest import TestApp

from authserver.engine.clients.secrets import rotate_secret
from authserver.engine.crypto import digests
from authserver.engine.keys import signing_keys
from authserver.engine.records import Client
from authserver.testing.server import PASSWORD, SETTINGS, VERIFIER, Server, basic, query_of
from authserver.testing.stories import assert_json_error, assert_page_error, fields_of, sign_in_at, stored
from tests.web.account_steps import NEW_PASSWORD, change_password

COOKIE = "__Host-authserver-session"
INITIAL = "an initial access token of 40 characters".replace(" ", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A flow from registration to refresh, with every credential that was issued or shown in it."""

    server: Server
    client: Client
    secret: str
    issued: dict[str, str]
    browser: TestApp


def with_initial_access_token(url: str) -> Server:
    """A server with opaque access tokens, where registering takes an initial access token."""
    plugins = SETTINGS["authserver.plugins"].replace("registration_open", "registration_token")
    return Server(
        url,
        {
            "authserver.access_token_format": "opaque",
            "authserver.plugins": plugins,
            "authserver.plugin.registration_open.scopes": None,
            "authserver.plugin.registration_token.tokens": INITIAL,
            "authserver.plugin.registration_token.scopes": "profile files.read",
        },
    )


@pytest.fixture(scope="module")
def guarded(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("guarded") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    server = with_initial_access_token(f"sqlite:///{path}")
    yield server
    server.close()


@pytest.fixture
def flow(sqlite_url: str) -> Iterator[Flow]:
    flow = run_flow(with_initial_access_token(sqlite_url))
    yield flow
    flow.server.close()


def run_flow(server: Server) -> Flow:
    server.add_user()
    body = {"redirect_uris": ["https://client.example/cb"], "scope": "profile"}
    registered = server.http.post_json(
        "/oauth/register", body, headers={"Authorization": f"Bearer {INITIAL}"}, status=201
    ).json
    client, secret = server.add_client(grant_types=("authorization_code", "refresh_token"))
    assert secret
    browser = server.browser()
    page = browser.get(server.authorization_url(client)).follow()
    issued = {
        "password": PASSWORD,
        "verifier": VERIFIER,
        "initial access token": INITIAL,
        "secret": secret,
        "registered secret": registered["client_secret"],
        "request mark": next(iter(browser.cookies.values())).strip('"'),
        "login request": fields_of(page, "username")["request"],
        "login form token": fields_of(page, "username")["csrf_token"],
    }
    page = sign_in_at(page).follow()
    issued |= {
        "session cookie": browser.cookies[COOKIE].strip('"'),
        "consent request": fields_of(page, "scope")["request"],
        "consent form token": fields_of(page, "scope")["csrf_token"],
    }
    issued["code"] = query_of(server.consent(page))["code"]
    answer = server.redeem(client, secret, issued["code"]).json
    issued |= {"access": answer["access_token"], "rotated": answer["refresh_token"]}
    answer = server.refresh(client, secret, issued["rotated"]).json
    issued |= {"second access": answer["access_token"], "refresh": answer["refresh_token"]}
    issued["live code"] = server.code(client, browser)
    # An identifier in a cookie counts without its MAC, too.
    issued["session"] = issued["session cookie"].partition(".")[0]
    return Flow(server=server, client=client, secret=secret, issued=issued, browser=browser)


def go_on(flow: Flow) -> None:
    """What comes later: another secret, another key, another password; with every credential of that."""
    server, client, issued = flow.server, flow.client, flow.issued
    with server.application.begin() as engine:
        issued["second secret"] = rotate_secret(engine, client.client_id, timedelta(hours=1))
        staged = signing_keys.rotate(engine).new
        issued["private key"] = signing_keys.open_private(engine.ring, staged)["d"]
    answer = server.refresh(client, issued["second secret"], issued["refresh"]).json  # which notes its use
    issued |= {"third access": answer["access_token"], "third refresh": answer["refresh_token"]}
    change_password(server, flow.browser)
    issued |= {
        "new password": NEW_PASSWORD,
        "renewed session cookie": flow.browser.cookies[COOKIE].strip('"'),
    }
    issued["renewed session"] = issued["renewed session cookie"].partition(".")[0]


def test_no_credential_can_be_read_from_the_database(database_url: str) -> None:
    """R-01, R-02, T040: not one that was ever issued or shown, in no table and, on SQLite, no page of the file."""
    everything = b""
    with closing(with_initial_access_token(database_url)) as server:
        flow = run_flow(server)
        go_on(flow)
        for table in sa.inspect(server.application.storage.engine).get_table_names():
            for row in server.rows(table):
                for value in row.values():
                    everything += value if isinstance(value, bytes) else str(value).encode()
                    everything += b"\n"
    if database_url.startswith("sqlite:"):
        path = Path(database_url.removeprefix("sqlite:///"))
        for file in path.parent.glob(path.name + "*"):
            everything += file.read_bytes()
    assert flow.client.client_id.encode() in everything  # it was looked for in the right place
    for name, text in flow.issued.items():
        raw = text.encode()
        for spelling in (raw, base64.b64encode(raw).rstrip(b"="), raw.hex().encode()):
            assert spelling not in everything, name
    # Whatever made a credential unguessable is not there without its prefix and checksum either.
    for name in (
        "secret",
        "registered secret",
        "code",
        "access",
        "rotated",
        "refresh",
        "session",
        "second secret",
        "renewed session",
    ):
        assert re.sub("as_[a-z]+?_", "", flow.issued[name], count=1)[:24].encode() not in everything, name


def test_no_credential_is_logged(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> None:
    """R-02, T084: at the lowest level, errors included."""
    caplog.set_level("DEBUG")
    flow: Flow = request.getfixturevalue("flow")  # only now, to hear all of it
    flow.server.redeem(flow.client, flow.secret, flow.issued["code"])
    flow.server.redeem(flow.client, flow.secret + "x", flow.issued["code"])
    assert "token.refused" in caplog.text
    for name, text in flow.issued.items():
        assert text not in caplog.text, name


def test_generated_credentials_have_256_random_bits(flow: Flow) -> None:
    """R-03, T039: 43 characters of base64url each, and a prefix and checksum that a scanner knows."""
    kinds = {
        "code": digests.CODE,
        "live code": digests.CODE,
        "access": digests.ACCESS,
        "second access": digests.ACCESS,
        "refresh": digests.REFRESH,
        "rotated": digests.REFRESH,
        "secret": digests.SECRET,
        "registered secret": digests.SECRET,
        "session": digests.SESSION,
    }
    parts = set()
    for name, prefix in kinds.items():
        assert digests.well_formed(prefix, flow.issued[name]), name
        random = flow.issued[name].removeprefix(prefix)[:43]
        assert len(base64.urlsafe_b64decode(random + "=")) == 32
        parts.add(random)
    assert len(parts) == len(kinds)


def test_a_client_secret_is_shown_once(flow: Flow) -> None:
    """R-02: stored is a digest under a key of the ring, which a copy of the database lacks."""
    rows = flow.server.rows("client_secrets")
    for name in ("secret", "registered secret"):
        plain = digests.digest("client-secret", flow.issued[name])
        assert plain not in {row["digest"] for row in rows}
    assert {len(row["digest"]) for row in rows} == {32}


def as_code(flow: Flow, text: str) -> None:
    assert_json_error(flow.server.redeem(flow.client, flow.secret, text), "invalid_grant")


def as_refresh_token(flow: Flow, text: str) -> None:
    assert_json_error(flow.server.refresh(flow.client, flow.secret, text), "invalid_grant")


def as_client_secret(flow: Flow, text: str) -> None:
    answer = flow.server.token(flow.client, text, grant_type="refresh_token", refresh_token="x")
    assert_json_error(answer, "invalid_client", status=401)


def as_bearer(flow: Flow, text: str) -> None:
    answer = flow.server.http.post_json(
        "/oauth/register",
        {"redirect_uris": ["https://client.example/cb"]},
        headers={"Authorization": f"Bearer {text}"},
        expect_errors=True,
    )
    assert_json_error(answer, "invalid_token", status=401)


def as_cookie(flow: Flow, text: str) -> None:
    browser = flow.server.browser()
    headers = {"Cookie": f"{COOKIE}={text}"}
    answer = browser.get(flow.server.authorization_url(flow.client), headers=headers)
    assert answer.location.startswith("https://as.example/login?")


def as_pending_request(flow: Flow, text: str) -> None:
    for path in ("/oauth/consent", "/login"):
        answer = flow.server.browser().get(f"{path}?{urlencode({'request': text})}", expect_errors=True)
        assert_page_error(answer, status=403)


PLACES: dict[Callable[[Flow, str], None], set[str]] = {
    # What counts there; a used one has its own consequences, tested with its grant.
    as_code: {"code", "live code"},
    as_refresh_token: {"rotated", "refresh"},
    as_client_secret: {"secret"},
    as_bearer: {"initial access token"},
    as_cookie: {"session cookie"},
    # Without the browser they are bound to they are refused as well.
    as_pending_request: set(),
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_credential_counts_in_its_own_place_alone(flow: Flow, place: Callable[[Flow, str], None]) -> None:
    """T038, I-15: every kind at every endpoint: nothing passes for something else, and nothing is stored."""
    before = stored(flow.server)
    for name, text in flow.issued.items():
        if name not in PLACES[place]:
            place(flow, text)
    assert stored(flow.server) == before
    # Nothing of this harmed what was live.
    answer = flow.server.redeem(flow.client, flow.secret, flow.issued["live code"])
    assert answer.status_int == 200
    assert flow.server.refresh(flow.client, flow.secret, flow.issued["refresh"]).status_int == 200


def test_a_digest_is_of_one_kind(flow: Flow) -> None:
    """T038: a row moved to another kind is found by nobody: the kind is part of what was hashed."""
    server = flow.server
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE tokens SET kind = 'code' WHERE kind = 'refresh'"))
    before = stored(server)
    text = flow.issued["refresh"]
    as_refresh_token(flow, text)
    renamed = digests.CODE + text.removeprefix(digests.REFRESH)
    for code in (text, renamed, flow.issued["access"]):
        as_code(flow, code)
    assert stored(server) == before


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (f"Bearer {INITIAL}", True),
        (f"bearer {INITIAL}", True),
        (f"BEARER {INITIAL}", True),
        (f"BearerX {INITIAL}", False),
        (f"Bearer{INITIAL}", False),
        (f"Bearer  {INITIAL}", False),
        (f"Bearer\t{INITIAL}", False),
        (f"Bearer {INITIAL} x", False),
        (f"Bearer {INITIAL},", False),
        (f"Bearer {INITIAL}, Bearer {INITIAL}", False),
        (f"Bearer {INITIAL},Basic eDp5", False),
        (f"Bearer {INITIAL}=", False),
        (f"Bearer {INITIAL[:-1]}", False),
        (f"Bearer {INITIAL}\xff", False),
        ("Bearer", False),
        ("Bearer ", False),
        ("", False),
        (INITIAL, False),
        (f"Basic {INITIAL}", False),
        (basic("x", INITIAL), False),
    ],
)
def test_a_bearer_token_is_one_token_and_nothing_else(guarded: Server, header: str, accepted: bool) -> None:
    """T086: the scheme in any case, one token68; anything joined or malformed is 401, never a failure."""
    before = stored(guarded)
    body: dict[str, Any] = {"redirect_uris": ["https://client.example/cb"]}
    answer = guarded.http.post_json(
        "/oauth/register", body, headers={"Authorization": header}, expect_errors=True
    )
    if accepted:
        assert answer.status_int == 201
        return
    assert_json_error(answer, "invalid_token", status=401)
    # Whoever sends another scheme, or none, is told which one is wanted, and of no error (RFC 6750, 3.1).
    error = ', error="invalid_token"' if header.lower().split(" ")[0] == "bearer" else ""
    assert answer.headers["WWW-Authenticate"] == f'Bearer realm="{guarded.issuer}"{error}'
    assert stored(guarded) == before


def test_a_missing_bearer_token_is_asked_for(guarded: Server) -> None:
    """T086: without a header the challenge carries no error (RFC 6750, 3)."""
    body = {"redirect_uris": ["https://client.example/cb"]}
    answer = guarded.http.post_json("/oauth/register", body, expect_errors=True)
    assert_json_error(answer, "invalid_token", status=401)
    assert answer.headers["WWW-Authenticate"] == f'Bearer realm="{guarded.issuer}"'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"client_name": "a", "client_name": "b"}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"x": NaN}',
        b'{"x": Infinity}',
        b'{"x": 1' + b"0" * 5000 + b"}",
        b'{"x": ' + b"[" * 100 + b"]" * 100 + b"}",
        b"[" * 9_000,
        b'{"a":' * 1_800,
        b'{"x": "\xff"}',
        b'{"x": "\\ud800"}',
        b'{"x": 1} x',
        b"\xef\xbb\xbf{}",
        b"{'x': 1}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_strange_json_is_refused(shared_server: Server, body: bytes) -> None:
    """T062: duplicates, NaN, deep nesting, long numbers, other encodings: 400, never a failure."""
    before = stored(shared_server)
    headers = {"Content-Type": "application/json"}
    answer = shared_server.http.post("/oauth/register", body, headers=headers, expect_errors=True)
    assert_json_error(answer, "invalid_client_metadata")
    assert stored(shared_server) == before
