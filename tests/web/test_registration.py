"""POST /oauth/register: who may register, what comes back, and what a refusal leaves behind (RFC 7591)."""

from __future__ import annotations

import json
import shutil

import pytest

from authserver.testing.server import ISSUER, SETTINGS, Server, basic, query_of

REGISTER = "/oauth/register"
METADATA = "/.well-known/oauth-authorization-server"
TOKEN = "initial-access-token-0123456789abcdefABCDEF"
OTHER_TOKEN = "another-access-token-0123456789abcdefABCDEF"
WEB = {"redirect_uris": ["https://client.example/cb"]}


def with_registration(*policies, **settings):
    """Settings in which these plugins decide about registration."""
    others = SETTINGS["authserver.plugins"].replace("registration_open", "")
    changed = {
        "authserver.plugins": f"{others} {' '.join(policies)}",
        "authserver.plugin.registration_open.scopes": None,
        **settings,
    }
    if "registration_token" in policies:
        changed["authserver.plugin.registration_token.tokens"] = f"{TOKEN} {OTHER_TOKEN}"
        changed["authserver.plugin.registration_token.scopes"] = "profile files.read"
        changed["authserver.plugin.registration_token.grant_types"] = (
            "authorization_code refresh_token client_credentials"
        )
    if "registration_open" in policies:
        changed["authserver.plugin.registration_open.scopes"] = "profile files.read"
    return changed


def register(server, metadata, *, authorization=None, **headers):
    if authorization is not None:
        headers["Authorization"] = authorization
    return server.http.post_json(server.path(REGISTER), metadata, headers=headers, expect_errors=True)


def assert_refused(answer, status, error):
    assert (answer.status_int, answer.json["error"]) == (status, error)
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.fixture
def closed(make_server):
    return make_server(with_registration())


@pytest.fixture(scope="module")
def by_token(migrated_sqlite_file, tmp_path_factory):
    """One server for all tests here, which therefore look at what is added only."""
    path = shutil.copy(migrated_sqlite_file, tmp_path_factory.mktemp("by_token") / "authserver.db")
    server = Server(f"sqlite:///{path}", with_registration("registration_token"))
    yield server
    server.close()


# ---- What comes back ------------------------------------------------------------------------------


def test_a_registration_answers_with_everything_in_effect(server):
    """K-01, K-02.a, K-04: 201, JSON that nobody stores, and all metadata, with the id and the secret."""
    sent = {
        "client_name": "Photo printer",
        "redirect_uris": ["https://client.example/cb", "https://client.example/other"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_post",
        "scope": "profile files.read",
        "application_type": "web",
        "client_uri": "https://client.example/",
        "logo_uri": "https://client.example/logo.png",
        "tos_uri": "https://client.example/terms",
        "policy_uri": "https://client.example/privacy",
        "contacts": ["ops@client.example"],
        "software_id": "4NRB1-0XZABZI9E6-5SM3R",
        "software_version": "2.1",
    }
    answer = register(server, sent)
    assert answer.status_int == 201
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert {name: answer.json[name] for name in sent} == sent
    assert answer.json["client_secret_expires_at"] == 0
    assert set(answer.json) - set(sent) == {
        "client_id",
        "client_id_issued_at",
        "client_secret",
        "client_secret_expires_at",
    }


def test_a_registered_client_can_be_used_at_once(server):
    """K-01, K-02.a: what was answered is what counts: code, tokens and refresh."""
    registered = register(
        server,
        {**WEB, "grant_types": ["authorization_code", "refresh_token"]},
    ).json
    with server.application.begin() as engine:
        client = engine.stores.clients.find(registered["client_id"], engine.now)
    secret = registered.get("client_secret")
    tokens = server.redeem(client, secret, server.code(client))
    assert tokens.status_int == 200
    assert server.refresh(client, secret, tokens.json["refresh_token"]).status_int == 200


# ---- Privileges that nobody can give himself -------------------------------------------------------


def test_an_operator_may_open_more_grant_types(make_server):
    """K-11: the allow list is a setting."""
    server = make_server(
        with_registration(
            "registration_open",
            **{"authserver.plugin.registration_open.grant_types": "client_credentials"},
        )
    )
    registered = register(server, {"grant_types": ["client_credentials"], "scope": "profile"})
    assert registered.status_int == 201
    authorization = basic(registered.json["client_id"], registered.json["client_secret"])
    tokens = server.http.post(
        "/oauth/token", {"grant_type": "client_credentials"}, headers={"Authorization": authorization}
    )
    assert tokens.json["scope"] == "profile"
    assert_refused(register(server, WEB), 400, "invalid_client_metadata")


# ---- Who may register -----------------------------------------------------------------------------


def test_with_both_policies_each_can_refuse(make_server):
    """K-08, K-11: any refusal refuses: a token is needed, and the grant types are confined as well."""
    server = make_server(with_registration("registration_open", "registration_token"))
    assert register(server, WEB).status_int == 401
    by_token = {"authorization": f"Bearer {TOKEN}"}
    assert_refused(
        register(server, {"grant_types": ["client_credentials"]}, **by_token), 400, "invalid_client_metadata"
    )
    assert server.rows("clients") == []
    answer = register(server, {**WEB, "scope": "profile admin"}, **by_token)
    assert (answer.status_int, answer.json["scope"]) == (201, "profile")


def test_the_secret_is_stored_as_a_digest_only(server):
    """K-02.a, R-01, R-02: no column of any table holds the secret that was handed out."""
    secret = register(server, WEB).json["client_secret"]
    for table in ("clients", "client_secrets", "events"):
        assert secret not in repr(server.rows(table))
        assert secret.encode() not in repr(server.rows(table)).encode()
    assert len(server.rows("client_secrets")) == 1


def test_a_client_without_redirects_is_told_that_it_has_no_response_type(by_token):
    """K-03, K-04: left out of the answer, response_types would mean `code`."""
    answer = register(by_token, {"grant_types": ["client_credentials"]}, authorization=f"Bearer {TOKEN}")
    assert answer.status_int == 201
    assert answer.json["response_types"] == []


def test_without_a_policy_there_is_no_registration(closed):
    """A-14, K-09, T131: off unless the operator lists a policy: 404, and the metadata does not name it."""
    assert "registration_endpoint" not in closed.http.get(METADATA).json
    assert register(closed, WEB).status_int == 404
    assert closed.http.get(REGISTER, expect_errors=True).status_int == 404
    # A program in a browser can read that, too: the question first, and then the answer.
    asked = {"Origin": "https://anywhere.example", "Access-Control-Request-Method": "POST"}
    assert closed.http.options(REGISTER, headers=asked).headers["Access-Control-Allow-Methods"] == "POST"
    answer = closed.http.post_json(REGISTER, WEB, headers={"Origin": "https://anywhere.example"}, status=404)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.json == {"error": "invalid_request", "error_description": "Not Found"}
    assert closed.rows("clients") == []


@pytest.mark.parametrize(
    "policies", [("registration_open",), ("registration_token",), ("registration_token", "registration_open")]
)
def test_with_a_policy_the_metadata_names_the_endpoint(make_server, policies):
    """A-14: the member is there, and what it names answers."""
    server = make_server(with_registration(*policies))
    assert server.http.get(METADATA).json["registration_endpoint"] == f"{ISSUER}/oauth/register"
    assert register(server, WEB, authorization=f"Bearer {TOKEN}").status_int == 201


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.parametrize("token", [TOKEN, OTHER_TOKEN])
def test_an_initial_access_token_lets_in(by_token, scheme, token):
    """K-08, T086: any of the configured ones, whatever the case of the scheme."""
    answer = register(by_token, WEB, authorization=f"{scheme} {token}")
    assert answer.status_int == 201
    assert token not in repr(by_token.rows("events"))


def test_without_an_initial_access_token_there_is_a_challenge(by_token):
    """K-08: 401 Bearer, without an error code, for nothing was sent."""
    before = by_token.rows("clients")
    answer = register(by_token, WEB)
    assert answer.status_int == 401
    assert answer.headers["WWW-Authenticate"] == f'Bearer realm="{ISSUER}"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert by_token.rows("clients") == before
    (event,) = [event for event in by_token.events() if event["event_id"] == answer.json["error_id"]]
    assert event["type"] == "registration.refused"
    assert event["reason"] == "initial-access-token-required"


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer ",
        f"Bearer  {TOKEN}",
        f"Bearer {TOKEN} ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.swapcase()}",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        f"Bearer {OTHER_TOKEN},Bearer {TOKEN}",
        f"Bearer {TOKEN} {OTHER_TOKEN}",
        f'Bearer "{TOKEN}"',
        f"Bearer token={TOKEN}",
        "Bearer malformed",
        "Bearer \xe9\xff",
        "Bearer " + "a" * 9000,
    ],
)
def test_anything_but_one_right_bearer_token_is_refused(by_token, authorization):
    """K-08, T086: 401 `invalid_token` for joined, quoted, empty, near and foreign credentials, never a 500."""
    before = by_token.rows("clients")
    answer = register(by_token, WEB, authorization=authorization)
    assert_refused(answer, 401, "invalid_token")
    assert answer.headers["WWW-Authenticate"] == f'Bearer realm="{ISSUER}", error="invalid_token"'
    assert by_token.rows("clients") == before
    assert TOKEN not in answer.text
    assert TOKEN not in repr(by_token.rows("events"))


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        f"BearerX {TOKEN}",
        f"Bearer{TOKEN}",
        f"Bearer\t{TOKEN}",
        f"Basic {TOKEN}",
        basic("client", TOKEN),
        f"DPoP {TOKEN}",
        TOKEN,
    ],
)
def test_another_scheme_is_no_bearer_token(by_token, authorization):
    """K-08, P-04, T086: 401, and the challenge names the scheme and no error (RFC 6750, 3.1)."""
    before = by_token.rows("clients")
    answer = register(by_token, WEB, authorization=authorization)
    assert_refused(answer, 401, "invalid_token")
    assert answer.headers["WWW-Authenticate"] == f'Bearer realm="{ISSUER}"'
    assert by_token.rows("clients") == before
    assert TOKEN not in answer.text


def test_an_initial_access_token_counts_in_the_header_only(by_token):
    """K-08: not in the query, not in the body, not in a cookie."""
    body = json.dumps({**WEB, "access_token": TOKEN, "initial_access_token": TOKEN})
    answer = by_token.http.post(
        f"{REGISTER}?access_token={TOKEN}",
        body,
        content_type="application/json",
        headers={"Cookie": f"access_token={TOKEN}"},
        expect_errors=True,
    )
    assert_refused(answer, 401, "invalid_token")


def test_a_policy_without_tokens_lets_nobody_in(make_server):
    """K-08, T131: forgetting the setting closes the endpoint, it does not open it."""
    settings = with_registration("registration_token")
    server = make_server({**settings, "authserver.plugin.registration_token.tokens": None})
    for authorization in (None, "", "Bearer", "Bearer malformed", f"Bearer {TOKEN}"):
        assert register(server, WEB, authorization=authorization).status_int == 401
    assert server.rows("clients") == []


# ---- Methods, media types, sizes, origins ---------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_only_post_registers(shared_server, method):
    """K-01: another method is 405 and named so."""
    answer = shared_server.http.request(ISSUER + REGISTER, method=method, expect_errors=True)
    assert answer.status_int == 405
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "text/json",
        "application/jsonx",
        "application/json, text/html",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; version=2",
        "application/merge-patch+json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "application/json\xff",
    ],
)
def test_another_media_type_is_refused(shared_server, content_type):
    """T083: exactly JSON in UTF-8; else 400 `invalid_request`, and nothing is read."""
    before = shared_server.rows("clients")
    answer = shared_server.http.post(
        REGISTER,
        json.dumps(WEB),
        headers={"Content-Type": content_type} if content_type else {},
        content_type=content_type or "application/octet-stream",
        expect_errors=True,
    )
    assert_refused(answer, 400, "invalid_request")
    assert shared_server.rows("clients") == before


@pytest.mark.parametrize(
    "content_type", ["application/json", "APPLICATION/JSON", 'application/json ; charset="UTF-8"']
)
def test_json_in_utf_8_is_read(shared_server, content_type):
    """T083: the charset that JSON has anyway may be named."""
    answer = shared_server.http.post(REGISTER, json.dumps(WEB), content_type=content_type)
    assert answer.status_int == 201


@pytest.mark.parametrize(
    ("size", "status"), [(16_384, 201), (16_385, 400), (65_536, 400), (65_537, 413), (1_000_000, 413)]
)
def test_metadata_has_at_most_16_kilobytes(shared_server, size, status):
    """T131, K-09: one byte more and nothing is registered."""
    before = len(shared_server.rows("clients"))
    body = json.dumps(WEB).encode().ljust(size)
    answer = shared_server.http.post(REGISTER, body, content_type="application/json", expect_errors=True)
    assert answer.status_int == status
    if status == 400:
        assert_refused(answer, 400, "invalid_client_metadata")
    assert len(shared_server.rows("clients")) - before == (status == 201)


@pytest.mark.parametrize("origin", ["https://spa.example", "null", "http://localhost:5173", "garbage\xff"])
def test_every_origin_may_register_and_read_the_answer(shared_server, origin):
    """Q-01 to Q-04: preflight, success and refusal carry the same CORS headers, never with credentials."""
    preflight = shared_server.http.options(
        REGISTER,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, mcp-protocol-version",
        },
    )
    assert preflight.status_int in (200, 204)
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    allowed = preflight.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "content-type", "mcp-protocol-version"} <= set(allowed)
    success = register(shared_server, WEB, Origin=origin)
    refusal = register(shared_server, [], Origin=origin)
    assert (success.status_int, refusal.status_int) == (201, 400)
    for answer in (preflight, success, refusal):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
    for answer in (success, refusal):
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"WWW-Authenticate", "Retry-After"} <= set(exposed)


def test_a_challenge_can_be_read_across_origins(by_token):
    """Q-04, K-08: a 401 has the CORS headers too."""
    answer = register(by_token, WEB, Origin="https://spa.example")
    assert answer.status_int == 401
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_a_cookie_changes_nothing(server):
    """Q-02: the session of a signed-in person is neither read nor touched here."""
    browser = server.browser()
    server.sign_in(browser)
    answer = browser.post_json(REGISTER, WEB)
    assert answer.status_int == 201
    assert "Set-Cookie" not in answer.headers
    assert server.events("client.registered")[0]["user_id"] is None


def test_a_refusal_is_an_event_that_names_its_reason(server):
    """R-08, R-12: it outlives the rolled back request, under the id that the client was told."""
    answer = register(server, {"redirect_uris": ["javascript:alert(1)"]})
    assert_refused(answer, 400, "invalid_redirect_uri")
    (event,) = server.events("registration.refused")
    assert event["event_id"] == answer.json["error_id"]
    assert server.rows("clients") == []


def test_a_self_registered_client_is_always_asked_for(server):
    """T132, E-12: it is unverified, and no registration makes consent skippable."""
    registered = register(server, {**WEB, "token_endpoint_auth_method": "none"}).json
    with server.application.begin() as engine:
        client = engine.stores.clients.find(registered["client_id"], engine.now)
    browser = server.browser()
    server.sign_in(browser)
    page = browser.get(server.authorization_url(client))
    assert page.status_int == 200
    assert "unverified" in page.text.lower()
    assert "code" in query_of(server.consent(page))
    assert browser.get(server.authorization_url(client)).status_int == 200
