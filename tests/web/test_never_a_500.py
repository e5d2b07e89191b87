"""What is sent to whichever endpoint beyond every bound: an answer of ours, never a fault, a trace or a secret.

`tests/fuzzing` sends everything else.
"""

from __future__ import annotations

import itertools
import shutil
from urllib.parse import quote, urlencode

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from webob import Request

from authserver.limits import MAXIMUM_PARAMETER, sealed_length
from authserver.testing.server import (
    CHALLENGE,
    ISSUER,
    PASSWORD,
    REDIRECT_URI,
    SETTINGS,
    Server,
    basic,
    forged,
)
from tests.fuzzing.messages import SEGMENTS
from tests.web.account_steps import form_token

HOST = ISSUER.removeprefix("https://")
FORM = "application/x-www-form-urlencoded"
ERRORS = {
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_token_type",
    "invalid_scope",
    "invalid_target",
    "invalid_token",
    "invalid_redirect_uri",
    "invalid_client_metadata",
}
SECRET = forged("as_secret_")
SETTINGS_HERE = {
    "authserver.plugins": SETTINGS["authserver.plugins"] + " registration_token playground admin_console",
    "authserver.plugin.registration_token.tokens": SECRET,
}


class Target:
    """A server with a client and a signed-in person, and what somebody who attacks it could know or guess."""

    def __init__(self, database_url: str) -> None:
        self.server = Server(database_url, SETTINGS_HERE)
        # An administrator, so that the pages for operators are reached, too.
        self.server.add_user("ann", groups=["authserver-admins"])
        self.client, self.secret = self.server.add_client(client_id="known")
        browser = self.server.browser()
        self.server.sign_in(browser)
        self.form_tokens = {
            route.path: form_token(self.server, browser, route.name)
            for route in self.server.wsgi.registry.routes.values()
        }
        self.cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        self.paths = sorted(
            {route.path for route in self.server.wsgi.registry.routes.values()} | {"/playground"}
        )
        hashes = [row["password_hash"] for row in self.server.rows("users")]
        self.secrets = (SECRET, self.secret, self.server.ini["authserver.secret_keys"], database_url, *hashes)

    def send(self, method, path, *, query="", body=b"", **headers):
        """One request, past everything that a client library or HTTP server would mend or refuse."""
        environ = Request.blank("/", base_url=ISSUER).environ
        environ |= {
            "REQUEST_METHOD": method,
            "PATH_INFO": path.decode("latin-1") if isinstance(path, bytes) else path,
            "QUERY_STRING": query,
            "REMOTE_ADDR": "192.0.2.1",
        }
        request = Request(environ)
        request.body = body
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        before = self.issued()
        answer = request.get_response(self.server.wsgi)
        self.assert_sound(answer)
        assert self.issued() == before
        return answer

    def issued(self):
        """How much there is of what nothing here may bring about."""
        with self.server.application.storage.engine.connect() as connection:
            return connection.execute(
                sa.text("SELECT (SELECT count(*) FROM grants), (SELECT count(*) FROM tokens)")
            ).one()

    def assert_sound(self, answer):
        """No fault, no trace, no secret; the headers that every such answer has."""
        assert answer.status_int < 500, answer.text
        shown = f"{answer.body.decode('utf-8', 'replace')} {answer.headerlist}"
        assert "Traceback" not in shown
        assert "authserver/" not in shown
        assert not [secret for secret in self.secrets if secret in shown]
        assert all(character.isprintable() for _, value in answer.headerlist for character in value)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Strict-Transport-Security"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
        if answer.content_type == "text/html":
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
        if answer.status_int >= 400 and answer.content_type == "application/json":
            assert answer.headers["Cache-Control"] == "no-store"
            assert not answer.body or answer.json["error"] in ERRORS
        if 300 < answer.status_int < 400 and answer.status_int != 304:
            # 301 is how the playground's folder of files adds a slash; an endpoint says 303 (B-18).
            assert answer.status_int == 303 or answer.location.startswith(f"{ISSUER}/playground/static/")
            assert answer.location.startswith((f"{ISSUER}/", f"{REDIRECT_URI}?"))


@pytest.fixture(scope="module")
def target(migrated_sqlite_file, tmp_path_factory):
    path = shutil.copy(migrated_sqlite_file, tmp_path_factory.mktemp("target") / "authserver.db")
    target = Target(f"sqlite:///{path}")
    yield target
    target.server.close()


CORRECT = [
    ("response_type", "code"),
    ("client_id", "known"),
    ("redirect_uri", REDIRECT_URI),
    ("code_challenge", CHALLENGE),
    ("code_challenge_method", "S256"),
    ("scope", "profile"),
]


@given(data=st.data(), noise=SEGMENTS.filter(bool))
def test_nothing_after_a_path_reaches_its_endpoint(target, data, noise):
    """T015: `/oauth/token;x` and `/oauth/token/` are not `/oauth/token`."""
    path = data.draw(st.sampled_from([path for path in target.paths if path != "/"])).encode()
    for changed in (path + b"\n", path + b"/" + noise, path + b";" + noise, path + b"//", b"/" + path):
        if changed.decode("utf-8", "replace") not in target.paths:
            assert target.send("POST", changed, body=b"", **{"Content-Type": FORM}).status_int == 404


# Pages of ours take the requests that we sealed ourselves, which are longer than what was sent.
SEALED = sealed_length(10_000)
MAXIMUM = {
    "/oauth/token": MAXIMUM_PARAMETER,
    "/oauth/authorize": SEALED,
    "/oauth/consent": SEALED,
    "/login": SEALED,
    "/logout": SEALED,
}
# The consent page may send one more for each scope.
TOO_MANY = ("&".join(f"p{number}=x" for number in range(105)), "&" * 104, "p&" * 10_000)


@pytest.mark.parametrize("path", MAXIMUM)
def test_a_form_has_so_many_parameters_of_a_certain_length(target, path):
    """T137: one more, or one longer, is 400 before anything looks at them."""
    long = "a" * (MAXIMUM[path] + 1)
    for body in (*TOO_MANY, f"state={long}", f"{long}=x"):
        assert target.send("POST", path, body=body.encode(), **{"Content-Type": FORM}).status_int == 400


@pytest.mark.parametrize("path", ["/oauth/authorize", "/oauth/consent", "/login"])
def test_a_query_has_so_many_parameters_of_a_certain_length(target, path):
    """T137: as for a form."""
    for query in (*TOO_MANY, "state=" + "a" * (MAXIMUM[path] + 1)):
        assert target.send("GET", path, query=query).status_int == 400


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/register", "/oauth/authorize", "/login"])
def test_a_body_of_more_than_64_kilobytes_is_not_read(target, path):
    """T136, T137: 413."""
    kind = "application/json" if path == "/oauth/register" else FORM
    assert target.send("POST", path, body=b"a" * 65_537, **{"Content-Type": kind}).status_int == 413


def test_a_semicolon_separates_nothing(target):
    """T013: `a;client_id=known` is one value, so there is no client here."""
    query = urlencode(CORRECT).replace("client_id=known&", "") + "&state=a;client_id=known"
    answer = target.send("GET", "/oauth/authorize", query=query, Cookie=target.cookie)
    assert answer.status_int == 400
    assert answer.location is None
    form = b"grant_type=client_credentials;client_id=known"
    answer = target.send("POST", "/oauth/token", body=form, **{"Content-Type": FORM})
    assert (answer.status_int, answer.json["error"]) == (400, "unsupported_grant_type")


@pytest.mark.parametrize(
    "raw", ["%ff", "\xff", "%c0%ae", "%ed%a0%80", "%00", "\0", "%f4%90%80%80"], ids=ascii
)
def test_what_is_no_text_is_refused_on_both_databases(database_url, raw):
    """T015: invalid UTF-8, lone surrogates and NUL are 400 in query and form, 404 in a path; no driver sees them.

    B-25.b: where client and redirect URI of an authorization request can be read, the client hears of it.
    """
    target = Target(database_url)
    try:
        parameters = urlencode(CORRECT)
        for name in ("client_id", "state", "scope", "request", "anything"):
            changed = f"{parameters}&{name}x={raw}"
            for path in ("/oauth/consent", "/login"):
                assert target.send("GET", path, query=changed, Cookie=target.cookie).status_int == 400
            answer = target.send("GET", "/oauth/authorize", query=changed, Cookie=target.cookie)
            assert answer.status_int == 303
            assert answer.location.startswith(f"{REDIRECT_URI}?error=invalid_request&")
        for path in ("/oauth/token", "/oauth/authorize", "/login", "/logout", "/oauth/consent"):
            body = f"client_id={raw}&username={raw}&password={PASSWORD}".encode("latin-1")
            assert target.send("POST", path, body=body, **{"Content-Type": FORM}).status_int in (400, 403)
        for path in ("/{}", "/oauth/{}", "/oauth/token/{}", "/admin/{}", "/static/{}"):
            from_wire = raw.replace("%00", "\0") if not raw.startswith("%f") else raw
            assert target.send("GET", path.format(from_wire)).status_int == 404
        for half in (raw, quote(raw, safe="%")):
            answer = target.send(
                "POST", "/oauth/token", Authorization=basic(half, half), **{"Content-Type": FORM}
            )
            assert (answer.status_int, answer.json["error"]) == (401, "invalid_client")
        origin = f"https://client.example{raw}"
        target.send("OPTIONS", "/oauth/token", Origin=origin)
    finally:
        target.server.close()


def test_while_the_database_is_away_every_endpoint_still_answers(migrated_sqlite_file, tmp_path):
    """T114, B-19, F-12: 503, or what needs no database; to other origins and signed-in people too."""
    path = shutil.copy(migrated_sqlite_file, tmp_path / "authserver.db")
    target = Target(f"sqlite:///{path}")
    target.server.application.storage.engine.dispose()
    path.unlink()
    path.mkdir()
    try:
        for path, method in itertools.product(target.paths, ("GET", "POST", "OPTIONS")):
            environ = Request.blank(path, base_url=ISSUER).environ
            environ |= {
                "REQUEST_METHOD": method,
                "QUERY_STRING": urlencode(CORRECT),
                "CONTENT_TYPE": "application/json" if path == "/oauth/register" else FORM,
                "HTTP_ORIGIN": "https://client.example",
                "HTTP_COOKIE": target.cookie,
            }
            request = Request(environ)
            request.body = b"client_id=known&grant_type=client_credentials"
            answer = request.get_response(target.server.wsgi)
            assert answer.status_int < 500 or answer.status_int == 503, (method, path)
            assert "Traceback" not in answer.text
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
    finally:
        target.server.close()
