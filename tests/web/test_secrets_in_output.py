"""Canaries in every secret field, through success and failure: none of them comes out anywhere."""

from __future__ import annotations

import base64
import hashlib
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from webtest import TestApp, TestResponse

from authserver import ini
from authserver.api import Client, ClientMetadata, Credentials, Secret, User, hookimpl
from authserver.engine.parameters import Parameters
from authserver.testing.records import a_user
from authserver.testing.server import (
    PASSWORD,
    REDIRECT_URI,
    SETTINGS,
    VERIFIER,
    Server,
    basic,
    forged,
    form_with,
    query_of,
)
from authserver.testing.stories import Granted

MakeServer = Callable[..., Server]
RAW_KEY = hashlib.sha256(b"canary of a key ring").digest()
KEY = base64.b64encode(RAW_KEY).decode()
INITIAL_TOKEN = "canary-initial-access-token-0123456789"
CANARY_PASSWORD = "canary password & more"
OPAQUE = {"authserver.access_token_format": "opaque", "authserver.plugin.registration_open.scopes": None}
TABLES = (
    "clients",
    "client_secrets",
    "users",
    "grants",
    "tokens",
    "kept",
    "consents",
    "sessions",
    "events",
    "signing_keys",
)


@dataclass
class Run:
    """A server, everything it said, and the secrets that it must not say."""

    server: Server
    log: pytest.LogCaptureFixture
    secrets: dict[str, str] = field(default_factory=dict)
    answers: list[TestResponse] = field(default_factory=list)

    def keep(self, name: str, value: str | None) -> str:
        assert value, name
        assert len(value) >= 12, f"{name} is too short to be found by accident"
        self.secrets[name] = value
        return value

    def told(self, answer: TestResponse) -> TestResponse:
        """Keep an answer that must hold no secret at all."""
        self.answers.append(answer)
        return answer

    def leaks(self) -> list[str]:
        """Which secrets stand in the log, in rows, in answers or in what the server's objects show of themselves."""
        application = self.server.application
        places = {
            "log": "\n".join(f"{record.getMessage()} {record.args!r}" for record in self.log.records)
            + self.log.text,
            "rows": "\n".join(str(self.server.rows(table)) for table in TABLES),
            "answers": "\n".join(f"{answer.headers} {answer.text}" for answer in self.answers),
            "reprs": repr(
                [
                    application,
                    ini.load(self.server.ini),
                    application.parts.ring,
                    application.parts.policies.table(),
                    [application.parts.policies.plugin(name) for name in application.parts.policies.names],
                    application.storage.engine,
                ]
            ),
        }
        found = []
        for name, secret in self.secrets.items():
            written = {secret, quote(secret), quote_plus(secret), base64.b64encode(secret.encode()).decode()}
            found += [
                f"{name} in {place}" for place, text in places.items() if any(w in text for w in written)
            ]
        return found


@dataclass(frozen=True)
class Watcher:
    """A policy that logs everything it is handed, as a careless one would."""

    @hookimpl
    def client_auth_decision(self, client: Client, credentials: Credentials) -> None:
        logging.getLogger("watcher").debug("%r %r %s", client, credentials, dict(credentials.headers))

    @hookimpl
    def login_decision(self, username: str, password: Secret, user: User | None) -> None:
        logging.getLogger("watcher").debug("%r %r %s", username, password, user)

    @hookimpl
    def registration_decision(self, metadata: ClientMetadata, bearer: Secret | None) -> None:
        logging.getLogger("watcher").debug("%r %s", metadata, bearer)


@pytest.fixture
def run(make_server: MakeServer, caplog: pytest.LogCaptureFixture) -> Run:
    """Every logger at DEBUG before anything is built, SQL included."""
    caplog.set_level(logging.DEBUG)
    for name in ("sqlalchemy.engine", "sqlalchemy.pool", "authserver", "pyramid", "txn"):
        caplog.set_level(logging.DEBUG, logger=name)
    plugins = SETTINGS["authserver.plugins"].replace("registration_open", "registration_token")
    server = make_server(
        {
            "authserver.secret_keys": f"canary:{KEY}",
            "authserver.plugins": f"{plugins} {__name__}:Watcher",
            "authserver.plugin.registration_open.scopes": None,
            "authserver.plugin.registration_token.tokens": INITIAL_TOKEN,
            "authserver.plugin.registration_token.scopes": "profile",
        }
    )
    server.add_user("ann", CANARY_PASSWORD)
    run = Run(server, caplog)
    run.keep("key of the ring", KEY)
    run.keep("key of the ring, as bytes", repr(RAW_KEY)[2:-1])
    run.keep("initial access token", INITIAL_TOKEN)
    run.keep("password", CANARY_PASSWORD)
    return run


def signed_in_browser(run: Run) -> TestApp:
    browser = run.server.browser()
    answer = run.server.sign_in(browser, "ann", CANARY_PASSWORD)
    assert answer.status_int == 303
    cookie = next(iter(browser.cookiejar)).value
    run.keep("session cookie", cookie.partition(".")[0])
    return browser


def code_for(run: Run, client: Client, browser: TestApp) -> str:
    page = browser.get(run.server.authorization_url(client))
    answer = run.server.consent(page) if page.status_int == 200 else page
    return run.keep("code", query_of(answer)["code"])


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_no_secret_comes_out_of_the_whole_flow(
    method: str, token_format: str, run: Run, make_server: MakeServer
) -> None:
    """R-01, R-02, R-04, T145: sign-in, consent, code, tokens, refresh, replay; everything logged at DEBUG."""
    if token_format == "opaque":
        run.server = make_server({**run.server.ini, **OPAQUE})
    client, secret = run.server.add_client(token_endpoint_auth_method=method)
    if secret:
        run.keep("client secret", secret)
    browser = signed_in_browser(run)
    code = code_for(run, client, browser)
    run.keep("verifier", VERIFIER)
    tokens = run.server.redeem(client, secret, code).json
    run.keep("access token", tokens["access_token"])
    renewed = run.server.refresh(client, secret, run.keep("refresh token", tokens["refresh_token"])).json
    run.keep("next access token", renewed["access_token"])
    run.keep("next refresh token", renewed["refresh_token"])
    retried = run.server.refresh(client, secret, tokens["refresh_token"])
    assert retried.json["refresh_token"] == renewed["refresh_token"]
    replayed = run.told(run.server.redeem(client, secret, code))
    assert replayed.json["error"] == "invalid_grant"
    reused = run.told(run.server.refresh(client, secret, renewed["refresh_token"]))
    assert reused.json["error"] == "invalid_grant"
    run.told(browser.get("/"))
    run.told(browser.get("/logout"))
    run.told(form_with(browser.get("/logout"), "csrf_token").submit())
    assert len(run.log.records) > 20
    assert "watcher" in run.log.text
    assert "INSERT INTO tokens" in run.log.text
    assert run.leaks() == []


def test_no_secret_comes_out_of_a_registration(run: Run) -> None:
    """R-02, R-04, T145: the initial access token and the new secret, which is shown once."""
    metadata = {"redirect_uris": [REDIRECT_URI], "client_name": "New"}
    headers = {"Authorization": f"Bearer {INITIAL_TOKEN}"}
    registered = run.server.http.post_json("/oauth/register", metadata, headers=headers)
    run.keep("client secret", registered.json["client_secret"])
    wrong = run.keep("wrong initial access token", "canary-wrong-initial-access-token")
    headers = {"Authorization": f"Bearer {wrong}"}
    refused = run.server.http.post_json("/oauth/register", metadata, headers=headers, expect_errors=True)
    assert run.told(refused).status_int == 401
    assert run.leaks() == []


REFUSED: list[dict[str, Any]] = [
    {"grant_type": "authorization_code", "code": forged("as_code_"), "code_verifier": "canary-" + "v" * 43},
    {"grant_type": "authorization_code", "code": "canary-malformed-code", "code_verifier": "canary verifier"},
    {"grant_type": "refresh_token", "refresh_token": forged("as_refresh_")},
    {"grant_type": "refresh_token", "refresh_token": "canary-malformed-token\r\nInjected: line"},
    {"grant_type": "client_credentials", "scope": "profile", "client_secret": "canary-second-method"},
    {"grant_type": "client_credentials", "scope": "profile", "client_assertion": "canary.assertion.text"},
    {"grant_type": "canary-unknown-grant-type", "assertion": "canary-assertion"},
    {"grant_type": ["refresh_token", "refresh_token"], "refresh_token": "canary-refresh-token"},
    {"grant_type": "refresh_token", "refresh_token": ["canary-first-token", "canary-second-token"]},
]


@pytest.mark.parametrize("form", REFUSED)
def test_no_secret_comes_out_of_a_refused_token_request(form: dict[str, Any], run: Run) -> None:
    """R-04, T145: wrong, malformed, repeated and misplaced secrets are not repeated either."""
    client, secret = run.server.add_client()
    run.keep("client secret", secret)
    for name, value in form.items():
        for number, text in enumerate([value] if isinstance(value, str) else value):
            if name not in ("grant_type", "scope"):
                run.keep(f"{name} {number}", text)
    answer = run.told(run.server.token(client, secret, **form))
    assert answer.status_int in (400, 401)
    assert run.leaks() == []
    assert not any("Injected" in line[:8] for line in run.log.text.splitlines())


@pytest.mark.parametrize("place", ["scope", "resource"])
def test_a_credential_in_the_wrong_parameter_is_masked_in_the_event(server: Server, place: str) -> None:
    """R-04, T145: found by fuzzing; what a policy was asked about is recorded, with dots where a credential was."""
    granted = Granted(server)
    client, secret = server.add_client(client_id="service", grant_types=("client_credentials",))
    credentials = (
        secret,
        granted.secret,
        granted.code,
        granted.access,
        granted.refresh,
        forged("as_session_"),
    )
    for credential in map(str, credentials):
        sent = {"scope": f"profile {credential}", "resource": f"https://api.example/{credential}"}[place]
        answer = server.token(client, secret, grant_type="client_credentials", **{place: sent})
        assert answer.status_int == 400
        (event,) = [
            row for row in server.events("token.refused") if row["event_id"] == answer.json["error_id"]
        ]
        assert credential not in repr(event)
        prefix = "eyJ" if credential.startswith("eyJ") else credential[: credential.index("_", 3) + 1]
        assert f"{prefix}..." in event["decisions"]


@pytest.mark.parametrize(
    "authorization",
    [
        basic("canary-client", "canary-wrong-secret"),
        "Basic " + base64.b64encode(b"canary-no-colon-here").decode(),
        "Bearer canary-bearer-token",
        "Basic canary-not-base64!",
        "canary-without-scheme",
    ],
)
def test_no_wrong_credential_comes_out(authorization: str, run: Run) -> None:
    """R-04, T145, J-07: what failed to authenticate is not quoted anywhere."""
    run.keep("header", authorization.rpartition(" ")[2])
    run.keep("wrong secret", "canary-wrong-secret")
    headers = {"Authorization": authorization}
    answer = run.server.http.post(
        "/oauth/token", {"grant_type": "client_credentials"}, headers=headers, expect_errors=True
    )
    assert run.told(answer).status_int == 401
    assert run.leaks() == []


@pytest.mark.parametrize(
    "password", ["canary wrong password", "canary" + "p" * 2_000, "canary pass\u0000word x"]
)
def test_no_wrong_password_comes_out(password: str, run: Run) -> None:
    """R-04, T100, T145: not into the page that comes back, either."""
    run.keep("wrong password", password)
    answer = run.told(run.server.sign_in(run.server.browser(), "ann", password))
    assert answer.status_int == 400
    assert run.leaks() == []


def test_a_password_typed_as_the_user_name_is_not_kept(run: Run) -> None:
    """T145: the page shows it back to whoever typed it; log and tables do not hold it."""
    run.keep("password as name", "canaryPasswordInTheWrongField")
    run.server.sign_in(run.server.browser(), "canaryPasswordInTheWrongField", "x" * 12)
    assert run.leaks() == []


def test_no_secret_comes_out_of_an_unexpected_fault(run: Run) -> None:
    """F-12, R-04, T145: the traceback in the log names no value, and the answer names nothing."""
    client, secret = run.server.add_client(token_endpoint_auth_method="client_secret_post")
    run.keep("client secret", secret)
    browser = signed_in_browser(run)
    code = code_for(run, client, browser)
    run.keep("verifier", VERIFIER)
    with run.server.application.storage.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE events RENAME TO events_lost")
    failed = run.told(run.server.redeem(client, secret, code))
    assert (failed.status_int, failed.json["error"]) == (500, "server_error")
    login = run.told(run.server.sign_in(run.server.browser(), "ann", CANARY_PASSWORD))
    assert login.status_int == 500
    with run.server.application.storage.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE events_lost RENAME TO events")
    assert "Traceback" in run.log.text
    assert run.leaks() == []
    # Nothing was spent by the answer that was lost.
    assert run.server.redeem(client, secret, code).status_int == 200


def test_the_database_password_never_comes_out(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """R-04, T142, T145: a database that cannot be reached is reported without the URL's password."""
    caplog.set_level(logging.DEBUG)
    url = "postgresql+psycopg://as:canary-database-password@127.0.0.1:1/as"
    with pytest.raises(Exception) as raised:
        make_server(database_url=url)
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + caplog.text
    assert "canary" not in shown


def test_no_repr_of_what_carries_a_secret_shows_it() -> None:
    """R-04: whoever logs a whole object logs no secret."""
    shown = repr(
        [
            Parameters.parse("client_secret=canary&password=canary"),
            Secret("canary"),
            a_user(password_hash="canary"),
            Credentials(method="client_assertion", client_id="a", assertion="canary"),
        ]
    )
    assert "canary" not in shown
    assert PASSWORD not in shown
