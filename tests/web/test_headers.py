"""Which host and scheme are answered, who may call cross-origin, and the headers of every answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import event
from webob import Request, Response
from webtest import TestResponse

from authserver.engine.clients.authentication import disable_client
from authserver.storage.database import StorageBusy
from authserver.testing.server import REDIRECT_URI, VERIFIER, Server, basic, with_plugin

MakeServer = Callable[..., Server]
METADATA = "/.well-known/oauth-authorization-server"
ORIGIN = "https://client.example"
# What anybody may read, and what clients' own pages may read as well.
FOR_ALL = (METADATA, "/.well-known/openid-configuration", "/oauth/jwks", "/oauth/register")
FOR_CLIENTS = ("/oauth/token", "/oauth/revoke")
FOR_NOBODY = (
    "/oauth/introspect",
    "/",
    "/login",
    "/logout",
    "/oauth/authorize",
    "/oauth/consent",
    "/health/live",
    "/static/style.css",
)
PAGES = ("/", "/login", "/logout", "/oauth/authorize", "/oauth/consent", "/nowhere")


def raw(server: Server, **environ: str) -> Response:
    """An answer to what no tidy client would send."""
    sound = {"HTTP_HOST": "as.example", "wsgi.url_scheme": "https", "REMOTE_ADDR": "192.0.2.1"}
    return Request.blank("/", environ={**sound, **environ}).get_response(server.wsgi)


def cross_origin(answer: TestResponse) -> list[str]:
    return [name for name in answer.headers if name.lower().startswith("access-control-")]


# ---- CORS ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [ORIGIN, "https://anywhere.example", "null"])
@pytest.mark.parametrize("path", FOR_ALL)
def test_public_documents_and_registration_answer_any_origin(
    path: str, origin: str, shared_server: Server
) -> None:
    """Q-01, Q-02, T085: `*`, never with credentials, errors included (Q-04)."""
    get = shared_server.http.get(path, headers={"Origin": origin}, expect_errors=True)
    post = shared_server.http.post(path, "", headers={"Origin": origin}, expect_errors=True)
    assert {get.status_int, post.status_int} & {400, 404, 405}
    for answer in (get, post):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Set-Cookie" not in answer.headers


def token_request(server: Server, origin: str, **form: str) -> TestResponse:
    return server.http.post("/oauth/token", form, headers={"Origin": origin}, expect_errors=True)


@pytest.mark.parametrize(
    ("origin", "redirect_uri"),
    [
        (ORIGIN, REDIRECT_URI),
        ("https://client.example:8443", "https://client.example:8443/cb"),
        ("http://127.0.0.1:5173", "http://127.0.0.1/cb"),
        ("http://localhost:3000", "http://localhost/cb"),
    ],
)
def test_the_token_endpoint_answers_the_origins_of_registered_redirect_uris(
    origin: str, redirect_uri: str, server: Server
) -> None:
    """Q-01, T085: that very origin, marked as varying; a success as well as an error (Q-04)."""
    client, _ = server.add_client(
        token_endpoint_auth_method="none", redirect_uris=(redirect_uri,), application_type="native"
    )
    refused = token_request(server, origin, grant_type="x")
    issued = server.token(
        client,
        headers={"Origin": origin},
        grant_type="authorization_code",
        code=server.code(client),
        code_verifier=VERIFIER,
    )
    assert (refused.status_int, issued.status_int) == (400, 200)
    for answer in (refused, issued):
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in answer.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "http://client.example",
        "https://client.example:8443",
        "https://client.example.evil.example",
        "https://sub.client.example",
        "https://client.example/cb",
        "https://client.example@evil.example",
        "*",
        "",
        "file://",
        "\u00e9",
    ],
)
def test_the_token_endpoint_answers_no_other_origin(origin: str, shared_server: Server) -> None:
    """T085: `null`, other schemes, ports and hosts get no CORS header, preflights included."""
    shared_server.rows("clients") or shared_server.add_client()
    headers = {"Origin": origin.encode().decode("latin-1")}
    for answer in (
        shared_server.http.post("/oauth/token", {}, headers=headers, expect_errors=True),
        shared_server.http.options("/oauth/token", headers=headers, expect_errors=True),
    ):
        assert cross_origin(answer) == []
        assert "Origin" in answer.headers["Vary"]


def test_a_disabled_client_takes_its_origin_along(server: Server) -> None:
    """T085, R-09: from the next request on."""
    client, _ = server.add_client()
    assert cross_origin(token_request(server, ORIGIN)) != []
    with server.application.begin() as engine:
        disable_client(engine, client.client_id)
    assert cross_origin(token_request(server, ORIGIN)) == []


@pytest.mark.parametrize("path", FOR_NOBODY)
@pytest.mark.parametrize("method", ["get", "post", "options"])
def test_pages_answer_no_origin_at_all(path: str, method: str, shared_server: Server) -> None:
    """B-21, T085: nothing on login, consent, authorization; preflights included."""
    shared_server.rows("clients") or shared_server.add_client()
    for origin in (ORIGIN, "null", "https://as.example"):
        answer = getattr(shared_server.http, method)(path, headers={"Origin": origin}, expect_errors=True)
        assert cross_origin(answer) == []


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        *((path, "GET") for path in (METADATA, "/oauth/jwks")),
        *((path, "POST") for path in ("/oauth/register", *FOR_CLIENTS)),
    ],
)
def test_a_preflight_says_what_may_be_sent_and_read(path: str, methods: str, shared_server: Server) -> None:
    """Q-03: the headers that clients need, and those of the answer that they may read."""
    shared_server.rows("clients") or shared_server.add_client()
    answer = shared_server.http.options(
        path,
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": methods,
            "Access-Control-Request-Headers": "authorization, content-type",
        },
    )
    assert answer.status_int == 204
    assert answer.headers["Access-Control-Allow-Methods"] == methods
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert set(allowed) == {"authorization", "content-type", "mcp-protocol-version"}
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert set(exposed) == {"WWW-Authenticate", "Retry-After"}
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_cookies_are_not_honoured_where_other_origins_may_call(server: Server) -> None:
    """Q-02: a signed-in browser is nobody at the token and registration endpoints, and gets no cookie there."""
    browser = server.browser()
    server.sign_in(browser)
    for path in (METADATA, "/oauth/jwks", "/oauth/token", "/oauth/register"):
        with_cookie = browser.post(path, "", headers={"Origin": ORIGIN}, expect_errors=True)
        assert with_cookie.status_int in (400, 401, 405)
        assert "Set-Cookie" not in with_cookie.headers
        assert "Cookie" not in with_cookie.headers.get("Vary", "")


@pytest.mark.parametrize("path", ["/oauth/register", *FOR_CLIENTS])
def test_every_refusal_can_be_read_by_the_same_origins_as_a_success(path: str, server: Server) -> None:
    """Q-04: bad forms and credentials, media types, methods, sizes; and a database that is away."""
    server.add_client()
    headers = {"Origin": ORIGIN}
    kind = "application/json" if path == "/oauth/register" else "application/x-www-form-urlencoded"
    post = server.http.post
    answers = [
        post(path, "", headers=headers, expect_errors=True),
        post(path, "x=%ff", headers=headers, expect_errors=True),
        post(path, "{}", content_type="application/json", headers=headers, expect_errors=True),
        post(path, "", headers={**headers, "Authorization": "Bearer x"}, expect_errors=True),
        post(path, "x" * 70_000, content_type=kind, headers=headers, expect_errors=True),
        server.http.put(path, headers=headers, expect_errors=True),
    ]
    assert {400, 405, 413} <= {answer.status_int for answer in answers}
    for answer in answers:
        assert answer.status_int >= 400
        assert answer.headers["Access-Control-Allow-Origin"] in ("*", ORIGIN)
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert set(answer.headers) & {"WWW-Authenticate", "Retry-After"} <= set(exposed)


@pytest.mark.parametrize("path", [*FOR_ALL, *FOR_CLIENTS])
def test_a_refusal_before_routing_can_be_read_by_the_same_origins(path: str, shared_server: Server) -> None:
    """Q-04: a page that was given the address with http sees why it is refused."""
    shared_server.rows("clients") or shared_server.add_client()
    for origin in (ORIGIN, "https://evil.example"):
        answer = raw(shared_server, PATH_INFO=path, HTTP_ORIGIN=origin, **{"wsgi.url_scheme": "http"})
        assert answer.status_int == 400
        allowed = path in FOR_ALL or origin == ORIGIN
        assert ("Access-Control-Allow-Origin" in answer.headers) == allowed


EXTENSION_ID = "abcdefghijklmnopabcdefghijklmnop"
EXTENSION = f"chrome-extension://{EXTENSION_ID}"
# A page whose origin an operator lists, and limits that a test reaches.
LISTED = {
    **with_plugin("origins_listed", {"origins": f"https://docs.example {EXTENSION} capacitor://localhost"}),
    "authserver.plugin.rate_limits.limits": "strange = unknown_origin, source, 5, minute\n"
    "guesses = failed_client_authentication, source, 2, minute",
}
LISTED["authserver.plugins"] += "\nrate_limits\npushed_requests"


@pytest.mark.parametrize("origin", ["https://docs.example", EXTENSION, "capacitor://localhost"])
def test_a_listed_origin_reads_every_answer(origin: str, make_server: MakeServer) -> None:
    """Q-01, Q-04, T085: errors of every kind, up to 429 and 405; still never with credentials."""
    server = make_server(LISTED)
    for path in ("/oauth/token", "/oauth/revoke", "/oauth/par"):
        preflight = server.http.options(path, headers={"Origin": origin})
        assert (preflight.status_int, preflight.headers["Access-Control-Max-Age"]) == (204, "3600")
        put = server.http.put(path, headers={"Origin": origin}, expect_errors=True)
        assert put.status_int == 405
        for answer in (preflight, put):
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert "Access-Control-Allow-Credentials" not in answer.headers
    guess = {"Origin": origin, "Authorization": basic("nobody", "as_cs_made_up")}
    statuses = []
    for _ in range(3):
        answer = server.http.post("/oauth/token", {"grant_type": "x"}, headers=guess, expect_errors=True)
        statuses.append(answer.status_int)
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert statuses == [401, 401, 429]
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert "Retry-After" in answer.headers
    strange = server.http.options("/oauth/token", headers={"Origin": "https://evil.example"})
    assert cross_origin(strange) == []


def test_a_browser_extension_registers_itself_and_gets_tokens(make_server: MakeServer) -> None:
    """Q-01: its redirect URI is of the browser's maker, and its origin is listed; another extension reads nothing."""
    server = make_server(LISTED)
    server.add_user("ann")
    headers = {"Origin": EXTENSION}
    redirect_uri = f"https://{EXTENSION_ID}.chromiumapp.org/"
    metadata = {
        "client_name": "Extension",
        "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
    }
    registered = server.http.post_json("/oauth/register", metadata, headers=headers)
    assert registered.headers["Access-Control-Allow-Origin"] == "*"
    with server.application.begin() as engine:
        client = engine.find_client(registered.json["client_id"])
    assert client is not None
    code = server.code(client, redirect_uri=redirect_uri)
    form = {
        "grant_type": "authorization_code",
        "client_id": client.client_id,
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": VERIFIER,
    }
    assert server.http.options("/oauth/token", headers=headers).headers["Access-Control-Allow-Origin"]
    issued = server.http.post("/oauth/token", form, headers=headers)
    assert issued.headers["Access-Control-Allow-Origin"] == EXTENSION
    assert "access_token" in issued.json
    other = server.http.options("/oauth/token", headers={"Origin": EXTENSION.replace("abc", "bcd")})
    assert cross_origin(other) == []


def statements(server: Server, act: Callable[[], object]) -> int:
    """How many SQL statements this takes."""
    seen = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    event.listen(server.application.storage.engine, "before_cursor_execute", note)
    act()
    event.remove(server.application.storage.engine, "before_cursor_execute", note)
    return len(seen)


def test_a_flood_of_preflights_costs_the_database_little(make_server: MakeServer) -> None:
    """T085: one query each, until the source has asked with too many strange origins; then none."""
    server = make_server(LISTED)
    server.add_client(redirect_uris=(REDIRECT_URI, "https://other.example/cb"))

    def preflight(origin: str, source: str = "192.0.2.9") -> bool:
        environ = {"REMOTE_ADDR": source}
        answer = server.http.options("/oauth/token", headers={"Origin": origin}, extra_environ=environ)
        assert answer.status_int == 204
        return bool(cross_origin(answer))

    def flood() -> None:
        assert not any(preflight(f"https://{number}.example") for number in range(100))

    events = server.rows("events")
    preflight(ORIGIN)
    assert statements(server, lambda: preflight(ORIGIN)) == 1
    assert statements(server, lambda: preflight("null")) == 0
    assert statements(server, lambda: preflight(EXTENSION)) == 0
    assert statements(server, flood) == 5
    # What was known lately is still answered there, and others are not affected.
    assert preflight(ORIGIN)
    assert not preflight("https://other.example")
    assert preflight("https://other.example", "192.0.2.10")
    assert server.rows("events") == events


@pytest.mark.parametrize("path", [*FOR_ALL, *FOR_CLIENTS])
def test_an_answer_to_nobodys_origin_can_be_cached_for_all(path: str, shared_server: Server) -> None:
    """T085, Q-04: a cache may give it to a script later, so it says that all may read it, or on what that depends."""
    for answer in (
        shared_server.http.get(path, expect_errors=True),
        shared_server.http.post(path, "", expect_errors=True),
        raw(shared_server, PATH_INFO=path, **{"wsgi.url_scheme": "http"}),
    ):
        if path in FOR_ALL:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "Origin" not in answer.headers.get("Vary", "")
        else:
            assert cross_origin(answer) == []
            assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("error", [RuntimeError("injected"), StorageBusy("injected")])
def test_an_origin_that_cannot_be_looked_up_costs_no_tokens(server: Server, error: Exception) -> None:
    """T109: they are issued and committed by then; the script alone cannot read them, the client may ask again."""
    client, secret = server.add_client(grant_types=("client_credentials",))

    def fail(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "redirect_uris" in statement and "client_id" not in statement:
            raise error

    event.listen(server.application.storage.engine, "before_cursor_execute", fail)
    answer = server.token(client, secret, headers={"Origin": ORIGIN}, grant_type="client_credentials")
    assert answer.status_int == 200
    assert cross_origin(answer) == []


# ---- Caching ---------------------------------------------------------------------------------------


def test_every_answer_with_a_secret_and_every_error_is_not_stored(server: Server) -> None:
    """T082, Q-05: tokens, registrations, their errors, and the pages and redirects on the way there."""
    client, secret = server.add_client()
    browser = server.browser()
    to_login = browser.get(server.authorization_url(client))
    server.sign_in(browser)
    consent = browser.get(server.authorization_url(client))
    to_client = server.consent(consent)
    code = to_client.location.partition("code=")[2].partition("&")[0]
    issued = server.redeem(client, secret, code)
    replayed = server.redeem(client, secret, code)
    registered = server.http.post_json("/oauth/register", {"redirect_uris": [REDIRECT_URI]})
    introspected = server.introspect(client, secret, issued.json["access_token"])
    revoked = server.revoke(client, secret, issued.json["access_token"])
    answers = [
        to_login,
        browser.get("/login"),
        consent,
        to_client,
        issued,
        replayed,
        registered,
        introspected,
        server.introspect(client, "wrong", "token"),
        revoked,
        server.revoke(client, "wrong", "token"),
        server.http.post_json("/oauth/register", {}, expect_errors=True),
        server.http.get("/oauth/token", expect_errors=True),
        server.http.get("/oauth/authorize", expect_errors=True),
        browser.get(server.authorization_url(client, scope="no.such.scope")),
        browser.get("/"),
        server.http.get("/health/live"),
        server.http.get("/nowhere", expect_errors=True),
        server.http.get(METADATA + "/x", expect_errors=True),
    ]
    statuses = [answer.status_int for answer in answers]
    assert statuses[:9] == [303, 200, 200, 303, 200, 400, 201, 200, 401]
    assert statuses[9:] == [200, 401, 400, 405, 400, 303, 200, 200, 404, 404]
    assert [answer.headers["Cache-Control"] for answer in answers] == ["no-store"] * len(answers)


# ---- The headers of pages --------------------------------------------------------------------------


def policy_of(answer: TestResponse) -> dict[str, list[str]]:
    directives = answer.headers["Content-Security-Policy"].split("; ")
    return {name: sources for name, *sources in (directive.split() for directive in directives)}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_neither_framed_nor_scripted_nor_told_of(path: str, shared_server: Server) -> None:
    """E-06, Q-06, Q-07: frames, scripts, referrers, and nothing loaded from elsewhere; errors included."""
    answer = shared_server.http.get(path, expect_errors=True)
    policy = policy_of(answer)
    assert policy["default-src"] == ["'none'"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert policy["base-uri"] == ["'none'"]
    assert policy["form-action"] == ["'self'"]
    # The sign-in page has one script, named with its path.
    script = ["https://as.example/static/show-password.js"] if path == "/login" else None
    assert policy.get("script-src") == script
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    loaded = [tag.get("src") or tag.get("href") for tag in answer.html.find_all(["link", "script", "img"])]
    assert loaded
    assert all(urlsplit(address).netloc == "as.example" for address in loaded)


@pytest.mark.parametrize(
    "redirect_uri",
    [REDIRECT_URI, "http://127.0.0.1:5173/cb", "com.example.app:/cb", "com.example.app://h/cb"],
)
def test_the_forms_on_the_way_may_end_at_the_client(redirect_uri: str, server: Server) -> None:
    """Q-07, B048: Chromium holds each redirect after a form to `form-action`, whatever the client does then."""
    client, _ = server.add_client(redirect_uris=(redirect_uri,), application_type="native")
    browser = server.browser()
    login = browser.get(server.authorization_url(client)).follow()
    server.sign_in(browser)
    consent = browser.get(server.authorization_url(client))
    for page in (login, consent):
        assert "form-action" not in policy_of(page), "without Fetch Metadata the answer is a redirect"
        again = browser.get(page.request.url, headers={"Sec-Fetch-Dest": "document"})
        if again.status_int == 303:  # the sign-in page of somebody who has signed in meanwhile
            again = browser.get(again.location, headers={"Sec-Fetch-Dest": "document"})
        assert policy_of(again)["form-action"] == ["'self'"], "with it, the answer is a page that goes on"


@pytest.mark.parametrize("path", [*PAGES, *FOR_ALL, *FOR_CLIENTS, "/health/live", "/static/style.css"])
def test_every_answer_is_taken_for_what_it_says(path: str, shared_server: Server) -> None:
    """Q-08: nosniff and HSTS on pages, JSON and files, errors included."""
    answer = shared_server.http.get(path, expect_errors=True)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert int(answer.headers["Strict-Transport-Security"].partition("max-age=")[2]) >= 31536000


def test_a_development_issuer_on_http_sends_no_hsts(make_server: MakeServer) -> None:
    """Q-08: a browser would never again reach http://localhost."""
    answer = make_server({"authserver.issuer": "http://localhost:6543"}).http.get("/login")
    assert "Strict-Transport-Security" not in answer.headers
    assert answer.headers["Set-Cookie"].startswith("authserver-request-")


# ---- Host and scheme -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", METADATA, "/oauth/token", "/login", "/static/style.css", "/nowhere"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "as.example.evil.example",
        "as.example:8443",
        "evil@as.example",
        "as.example,evil",
        "localhost",
        "",
    ],
)
def test_another_host_is_not_served(host: str, path: str, shared_server: Server) -> None:
    """A-04, T138: 400, without a word of the document, and nothing redirected."""
    answer = raw(shared_server, PATH_INFO=path, HTTP_HOST=host)
    assert (answer.status_int, answer.json["error"]) == (400, "invalid_request")
    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == (
        "no-store",
        "nosniff",
    )
    assert answer.location is None
    assert "evil" not in answer.text
    assert answer.json["error_description"] == "This host is not served here."
    assert int(answer.headers["Strict-Transport-Security"].partition("max-age=")[2]) >= 31536000
    if path in PAGES:
        assert policy_of(answer)["frame-ancestors"] == ["'none'"]


def test_on_a_laptop_another_host_is_told_the_right_one(make_server) -> None:
    """T138: the issuer is loopback, so nobody far away learns a name by this."""
    server = make_server({"authserver.issuer": "http://localhost:6543"})
    answer = raw(server, PATH_INFO="/", HTTP_HOST="127.0.0.1:6543", **{"wsgi.url_scheme": "http"})
    assert (answer.status_int, answer.location) == (400, None)
    told = "This host is not served here. Use http://localhost:6543 instead."
    assert answer.json["error_description"] == told


@pytest.mark.parametrize("host", ["as.example", "AS.Example", "as.example:443"])
def test_the_issuers_host_is_served_however_it_is_written(host: str, shared_server: Server) -> None:
    """T138: case and default port mean the same host, and addresses stay the issuer's."""
    answer = shared_server.http.get(METADATA, extra_environ={"HTTP_HOST": host})
    assert answer.json["issuer"] == "https://as.example"


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/register", "/oauth/authorize", "/login", METADATA])
def test_plain_http_is_refused_and_not_redirected(
    path: str, method: str, shared_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Q-09: credentials that were sent in the clear are not rewarded with a redirect."""
    caplog.set_level("INFO")
    before = shared_server.rows("tokens")
    answer = getattr(shared_server.http, method)(
        path, extra_environ={"wsgi.url_scheme": "http"}, expect_errors=True
    )
    assert (answer.status_int, answer.json["error"]) == (400, "invalid_request")
    assert "Location" not in answer.headers
    assert "Set-Cookie" not in answer.headers
    assert "Strict-Transport-Security" not in answer.headers  # RFC 6797, 7.2
    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == (
        "no-store",
        "nosniff",
    )
    assert f"error_id={answer.json['error_id']}" in caplog.text
    assert shared_server.rows("tokens") == before


@pytest.mark.parametrize("name", ["X-Forwarded-Proto", "X-Forwarded-Ssl", "X-Url-Scheme", "Front-End-Https"])
def test_a_header_does_not_make_http_https(name: str, shared_server: Server) -> None:
    """Q-09, Q-10: the scheme is the server's word, or its trusted proxy's."""
    for value in ("https", "on"):
        answer = shared_server.http.get(
            METADATA, headers={name: value}, extra_environ={"wsgi.url_scheme": "http"}, expect_errors=True
        )
        assert answer.status_int == 400


# ---- What cannot be read ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        b"/login\n",
        b"/oauth/token\n",
        b"/health/live\n",
        b"/\xff",
        b"/login\xc3(",
        b"/oauth/token\xff",
        b"/static/\xff",
        b"/.well-known/\xff",
        b"/\xc0\xae",
    ],
)
def test_a_path_with_a_newline_or_no_utf8_is_not_found(path: bytes, shared_server: Server) -> None:
    """T015: 404, on every kind of endpoint."""
    for method in ("GET", "POST", "OPTIONS"):
        answer = raw(shared_server, PATH_INFO=path.decode("latin-1"), REQUEST_METHOD=method)
        assert answer.status_int == 404
        assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "query",
    ["client_id=%ff", "client_id=%ed%a0%80", "client_id=a%00b", "%ff=1", "state=%c3%28", "_LOCALE_=%ff"],
)
@pytest.mark.parametrize("path", ["/oauth/authorize", "/oauth/consent", "/login"])
def test_a_query_that_is_no_utf8_is_400(path: str, query: str, shared_server: Server) -> None:
    """T015: invalid UTF-8, lone surrogates and NUL: a 400 page, no redirect."""
    answer = shared_server.http.get(f"{path}?{query}", expect_errors=True)
    assert (answer.status_int, answer.content_type) == (400, "text/html")
    assert answer.location is None


@pytest.mark.parametrize(
    "path", ["/", "/logout", METADATA, "/oauth/jwks", "/health/live", "/static/style.css"]
)
def test_a_query_that_nobody_reads_harms_nothing(path: str, shared_server: Server) -> None:
    """T015: pages without parameters do not decode any."""
    assert shared_server.http.get(f"{path}?a=%ff&_LOCALE_=%ff").status_int == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/oauth/token", b"a=%ff", 400),
        ("/oauth/token", b"a=\xff", 400),
        ("/oauth/token", b"a=b%00", 400),
        ("/oauth/token", b"&".join(b"a%d=1" % n for n in range(101)), 400),
        ("/oauth/token", b"a=1&" * 15_000, 400),
        ("/oauth/token", b"a=" + b"x" * 8_193, 400),
        ("/oauth/token", b"a=" + b"x" * 65_536, 413),
        ("/oauth/register", b"\xff", 400),
        ("/oauth/register", b"{" + b" " * 65_536 + b"}", 413),
        ("/login", b"a=%ff", 400),
        ("/login", b"a=" + b"x" * 65_536, 413),
        ("/oauth/authorize", b"&".join(b"a%d=1" % n for n in range(101)), 400),
    ],
)
def test_a_flood_or_garbage_of_a_body_is_refused_before_it_means_anything(
    path: str, body: bytes, status: int, shared_server: Server
) -> None:
    """T015, T137: at most 100 parameters of at most 8 kB, 64 kB in all; 400 or 413, nothing stored."""
    kind = "application/json" if path.endswith("register") else "application/x-www-form-urlencoded"
    before: dict[str, Any] = {name: shared_server.rows(name) for name in ("tokens", "grants", "sessions")}
    answer = shared_server.http.post(path, body, content_type=kind, expect_errors=True)
    assert answer.status_int == status
    assert {name: shared_server.rows(name) for name in before} == before
