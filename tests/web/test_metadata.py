"""The metadata document and the JWKS: made of what is on, and true in every member."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from pyramid.response import Response

from authserver.api import hookimpl, json_response
from authserver.engine import offered
from authserver.engine.setting_records import DeclaredKind, StoredSetting
from authserver.testing.server import (
    CHALLENGE,
    ISSUER,
    REDIRECT_URI,
    SETTINGS,
    Server,
    query_of,
    with_plugin,
)

MakeServer = Callable[..., Server]
WELL_KNOWN = "/.well-known/oauth-authorization-server"
PLUGINS = SETTINGS["authserver.plugins"].split()
EVERY_GRANT_TYPE = ("authorization_code", "refresh_token", "client_credentials")


def document(server: Server, path: str = WELL_KNOWN) -> dict[str, Any]:
    answer: dict[str, Any] = server.http.get(path).json
    return answer


def without(*names: str) -> dict[str, str | None]:
    """Settings without these plugins and their settings."""
    listed = [name for name in SETTINGS["authserver.plugins"].split() if name not in names]
    gone = {
        key: None for key in SETTINGS if key.startswith(tuple(f"authserver.plugin.{name}." for name in names))
    }
    return {**gone, "authserver.plugins": " ".join(listed)}


# ---- The document ----------------------------------------------------------------------------------


def test_the_document_is_one_json_object_for_everybody(shared_server: Server) -> None:
    """A-01: 200, application/json, no authentication."""
    answer = shared_server.http.get(WELL_KNOWN)
    assert (answer.status_int, answer.content_type) == (200, "application/json")
    assert isinstance(answer.json, dict)
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_the_document_is_only_read(method: str, shared_server: Server) -> None:
    """A-01: 405 with Allow for other methods."""
    answer = getattr(shared_server.http, method.lower())(WELL_KNOWN, expect_errors=True)
    assert (answer.status_int, answer.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "path",
    [
        f"{WELL_KNOWN}/",
        f"{WELL_KNOWN}/tenant",
        f"{WELL_KNOWN}/oauth/authorize",
        f"/tenant{WELL_KNOWN}",
        "/.well-known/openid-configuration/tenant",
        "/tenant/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-serve",
        "/.well-known/",
    ],
)
def test_another_issuers_document_is_not_here(path: str, shared_server: Server) -> None:
    """A-07: 404, never this issuer's document."""
    answer = shared_server.http.get(path, expect_errors=True)
    assert answer.status_int == 404
    assert "token_endpoint" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "evil.example"},
        {"X-Forwarded-Proto": "http"},
        {"X-Forwarded-Prefix": "/evil"},
        {"Forwarded": "host=evil.example;proto=http"},
        {"X-Original-URL": "/evil"},
        {"X-Script-Name": "/evil"},
    ],
)
def test_no_header_changes_an_address(headers: dict[str, str], shared_server: Server) -> None:
    """A-04, T138: the issuer and the endpoints come from the settings."""
    answer = shared_server.http.get(WELL_KNOWN, headers=headers)
    assert answer.body == shared_server.http.get(WELL_KNOWN).body
    assert "evil" not in answer.text


def test_every_address_begins_with_the_issuer(shared_server: Server) -> None:
    """A-03, A-04: one issuer, and the endpoints below it."""
    members = document(shared_server)
    assert members["issuer"] == ISSUER
    addresses = [members[name] for name in members if name.endswith(("_endpoint", "_uri"))]
    assert len(addresses) == 6
    assert all(address.startswith(f"{ISSUER}/") for address in addresses)


def test_no_member_is_null_or_empty(make_server: MakeServer) -> None:
    """A-17: what would be empty is left out."""
    bare = make_server({"authserver.scopes": None, "authserver.hidden_scopes": None, **without(*PLUGINS)})
    members = document(bare)
    assert "scopes_supported" not in members
    assert "token_endpoint_auth_methods_supported" not in members
    for value in (*members.values(), *document(make_server()).values()):
        assert value not in (None, [], "", {})


def test_the_document_may_be_kept_for_a_while(shared_server: Server) -> None:
    """A-01: public and cacheable; an unchanged one costs no body."""
    answer = shared_server.http.get(WELL_KNOWN)
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    again = shared_server.http.get(WELL_KNOWN, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_int, again.body) == (304, b"")


@pytest.mark.parametrize("path", [WELL_KNOWN, "/oauth/jwks", "/static/style.css"])
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("{}", 304),
        # So a proxy passes it on that compressed the answer.
        ("W/{}", 304),
        ('"another", W/"one more", {}', 304),
        ("*", 304),
        ('"another"', 200),
        ('W/"another"', 200),
        ('"', 200),
        ("", 200),
    ],
)
def test_what_a_caller_has_is_not_sent_again(
    shared_server: Server, path: str, sent: str, status: int
) -> None:
    """A-21: any of the validators that the caller has counts, weak ones too (RFC 9110, 13.1.2)."""
    first = shared_server.http.get(path)
    again = shared_server.http.get(path, headers={"If-None-Match": sent.format(first.headers["ETag"])})
    assert (again.status_int, again.body) == (status, b"" if status == 304 else first.body)
    assert again.headers["ETag"] == first.headers["ETag"]
    assert again.headers["Cache-Control"] == first.headers["Cache-Control"]
    assert ("Content-Type" in again.headers) == (status == 200)


# ---- Documents of others -----------------------------------------------------------------------------

# In what order programs ask for the document of the issuer https://as.example and of https://as.example/tenant.
ORDERS = {
    "Spring Security": ("{path}/.well-known/openid-configuration", "{openid}{path}", "{oauth}{path}"),
    "MCP SDK for TypeScript": ("{oauth}{path}", "{openid}{path}", "{path}/.well-known/openid-configuration"),
    "an OpenID Connect library": ("{path}/.well-known/openid-configuration", "{oauth}{path}"),
}


@pytest.mark.parametrize("issuer_path", ["", "/tenant"])
@pytest.mark.parametrize("program", ORDERS)
def test_every_program_comes_to_the_document(program: str, issuer_path: str, make_server: MakeServer) -> None:
    """A-06, B069: half a document of OpenID Connect ends the search; after a 404 programs ask for ours."""
    server = make_server({"authserver.issuer": ISSUER + issuer_path})
    openid = WELL_KNOWN.replace("oauth-authorization-server", "openid-configuration")
    for template in ORDERS[program]:
        path = template.format(path=issuer_path, openid=openid, oauth=WELL_KNOWN)
        answer = server.http.get(path, headers={"Origin": "https://app.example"}, expect_errors=True)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.content_type == "application/json"
        if answer.status_int == 200:
            break
        assert answer.status_int == 404
    assert answer.json["issuer"] == ISSUER + issuer_path


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/tenant",
        "/tenant/.well-known/openid-configuration",
        "/.well-known/oauth-protected-resource",
        "/.well-known/",
    ],
)
def test_programs_of_every_origin_can_read_that_there_is_no_document(
    path: str, make_server: MakeServer
) -> None:
    """A-06: also those that send a header of the Model Context Protocol, for which browsers ask first."""
    server = make_server({"authserver.issuer": f"{ISSUER}/tenant"})
    origin = {"Origin": "https://app.example"}
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "mcp-protocol-version"}
    preflight = server.http.options(path, headers={**origin, **asked})
    assert preflight.status_int == 204
    assert "MCP-Protocol-Version" in preflight.headers["Access-Control-Allow-Headers"]
    for method in ("get", "head", "post_json"):
        answer = getattr(server.http, method)(path, headers=origin, expect_errors=True)
        assert answer.status_int == 404
        assert answer.content_type == "application/json"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in answer.headers
    assert {row["type"] for row in server.rows("events")} == {"key.created"}


@dataclass(frozen=True)
class FurtherDocument:
    @hookimpl
    def includeme(self, config: Any) -> None:
        config.add_well_known("openid-configuration", self.show, appended=True)
        config.add_well_known("acme-configuration", self.show)

    def show(self, request: Any) -> Response:
        return json_response({"issuer": request.engine.settings.issuer})


@pytest.mark.parametrize("issuer_path", ["", "/tenant"])
def test_a_plugin_adds_documents_at_their_addresses(issuer_path: str, make_server: MakeServer) -> None:
    """A-06: a feature that has a document to show needs no change elsewhere."""
    server = make_server({"authserver.issuer": ISSUER + issuer_path, **with_plugin(FurtherDocument, {})})
    found = {
        "/.well-known/openid-configuration" + issuer_path,
        issuer_path + "/.well-known/openid-configuration",
        "/.well-known/acme-configuration" + issuer_path,
    }
    for path in found | {"/tenant/.well-known/acme-configuration"}:
        answer = server.http.get(path, headers={"Origin": "https://app.example"}, expect_errors=True)
        assert answer.status_int == (200 if path in found else 404)
        if path in found:
            assert answer.json == {"issuer": ISSUER + issuer_path}
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert server.http.post(path, expect_errors=True).headers["Allow"] == "GET"


# ---- One issuer everywhere -------------------------------------------------------------------------


def test_the_issuer_is_the_same_to_the_byte_everywhere(server: Server) -> None:
    """A-03, ISS-01, ISS-02: metadata, authorization responses, redirected errors, JWT."""
    client, secret = server.add_client()
    browser = server.browser()
    server.sign_in(browser)
    error = browser.get(server.authorization_url(client, scope="no.such.scope"))
    page = browser.get(server.authorization_url(client))
    denied = server.consent(page, "deny")
    allowed = server.consent(browser.get(server.authorization_url(client)))
    token = server.redeem(client, secret, query_of(allowed)["code"]).json["access_token"]
    members = document(server)
    assert members["authorization_response_iss_parameter_supported"] is True
    for answer in (error, denied, allowed):
        assert answer.location.count("iss=") == 1
        assert query_of(answer)["iss"] == members["issuer"] == ISSUER
    assert server.claims(token)["iss"] == ISSUER


# ---- Each advertised value is exercised (T143) -----------------------------------------------------


def test_every_advertised_address_answers(server: Server) -> None:
    """A-18: none of them is 404, and each speaks its method."""
    members = document(server)
    answers = {
        name: server.http.get(urlsplit(members[name]).path, expect_errors=True).status_int
        for name in members
        if name.endswith(("_endpoint", "_uri"))
    }
    assert answers == {
        "authorization_endpoint": 400,
        "token_endpoint": 405,
        "revocation_endpoint": 405,
        "introspection_endpoint": 405,
        "registration_endpoint": 405,
        "jwks_uri": 200,
    }


@pytest.mark.parametrize("grant_type", EVERY_GRANT_TYPE)
def test_every_advertised_grant_type_gives_a_token(grant_type: str, server: Server) -> None:
    """A-09, T143: the list is what the token endpoint accepts."""
    assert tuple(document(server)["grant_types_supported"]) == EVERY_GRANT_TYPE
    client, secret = server.add_client(grant_types=EVERY_GRANT_TYPE)
    if grant_type == "client_credentials":
        answer = server.token(client, secret, grant_type=grant_type, scope="profile")
    else:
        answer = server.redeem(client, secret, server.code(client))
    if grant_type == "refresh_token":
        answer = server.refresh(client, secret, answer.json["refresh_token"])
    assert answer.status_int == 200


@pytest.mark.parametrize("grant_type", EVERY_GRANT_TYPE)
def test_a_grant_type_that_is_off_is_neither_listed_nor_accepted(
    grant_type: str, make_server: MakeServer
) -> None:
    """A-09, A-18: gone from the document and from the endpoint at once."""
    everything = make_server()
    client, secret = everything.add_client(grant_types=EVERY_GRANT_TYPE)
    left = [name for name in EVERY_GRANT_TYPE if name != grant_type]
    server = make_server({"authserver.grant_types": " ".join(left)})
    assert document(server)["grant_types_supported"] == left
    answer = server.token(client, secret, grant_type=grant_type, code="x", refresh_token="x")
    assert (answer.status_int, answer.json["error"]) == (400, "unsupported_grant_type")
    metadata = {"redirect_uris": [REDIRECT_URI], "grant_types": [grant_type]}
    refused = server.http.post_json("/oauth/register", metadata, expect_errors=True)
    assert (refused.status_int, refused.json["error"]) == (400, "invalid_client_metadata")


def test_without_refresh_tokens_none_is_issued(make_server: MakeServer) -> None:
    """A-18: a code gives no refresh token that nobody would take."""
    server = make_server({"authserver.grant_types": "authorization_code"})
    server.add_user()
    client, secret = server.add_client(grant_types=("authorization_code",))
    assert "refresh_token" not in server.redeem(client, secret, server.code(client)).json


@pytest.mark.parametrize(
    "grant_type", ["implicit", "password", "urn:ietf:params:oauth:grant-type:jwt-bearer", "x"]
)
def test_a_grant_type_that_is_not_listed_is_refused(grant_type: str, server: Server) -> None:
    """A-09, T143: nothing is accepted that the document does not say."""
    assert grant_type not in document(server)["grant_types_supported"]
    client, secret = server.add_client()
    answer = server.token(client, secret, grant_type=grant_type)
    assert (answer.status_int, answer.json["error"]) == (400, "unsupported_grant_type")


def test_code_is_the_only_response_type(server: Server) -> None:
    """A-08: `code` works; `token` and its hybrids are neither listed nor accepted."""
    assert document(server)["response_types_supported"] == ["code"]
    client, _ = server.add_client()
    assert server.code(client)
    browser = server.browser()
    server.sign_in(browser)
    for response_type in ("token", "id_token", "code token", "none"):
        answer = browser.get(server.authorization_url(client, response_type=response_type))
        assert query_of(answer)["error"] == "unsupported_response_type"


def test_query_is_the_only_response_mode(server: Server) -> None:
    """T143: the listed mode works, another is refused."""
    assert document(server)["response_modes_supported"] == ["query"]
    client, _ = server.add_client()
    assert server.code(client, response_mode="query")
    browser = server.browser()
    server.sign_in(browser)
    answer = browser.get(server.authorization_url(client, response_mode="fragment"))
    assert query_of(answer)["error"] == "invalid_request"


def test_s256_is_the_only_challenge_method(server: Server) -> None:
    """A-10: the document has it; it works, and `plain` does not."""
    assert document(server)["code_challenge_methods_supported"] == ["S256"]
    client, secret = server.add_client()
    assert server.redeem(client, secret, server.code(client, code_challenge=CHALLENGE)).status_int == 200
    browser = server.browser()
    server.sign_in(browser)
    answer = browser.get(server.authorization_url(client, code_challenge_method="plain"))
    assert query_of(answer)["error"] == "invalid_request"


METHODS = ("client_secret_basic", "client_secret_post", "none")


@pytest.mark.parametrize("method", METHODS)
def test_every_advertised_method_of_client_authentication_works(method: str, server: Server) -> None:
    """A-11, T143: for clients of the operator and for those that register themselves."""
    assert tuple(document(server)["token_endpoint_auth_methods_supported"]) == METHODS
    client, secret = server.add_client(token_endpoint_auth_method=method)
    assert (secret is None) == (method == "none")
    assert server.redeem(client, secret, server.code(client)).status_int == 200
    metadata = {"redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": method}
    assert server.http.post_json("/oauth/register", metadata).status_int == 201


@pytest.mark.parametrize("count", [1, 2])
def test_the_methods_are_those_of_the_listed_plugins(count: int, make_server: MakeServer) -> None:
    """A-11, A-18: whichever plugins are on, in the order of the INI."""
    plugins = ("client_secret_basic", "client_secret_post", "public_client")
    names = dict(zip(plugins, METHODS, strict=True))
    for gone in itertools.combinations(plugins, count):
        members = document(make_server(without(*gone)))
        expected = [names[plugin] for plugin in plugins if plugin not in gone]
        assert members["token_endpoint_auth_methods_supported"] == expected


def test_revocation_and_introspection_list_their_own_methods(make_server: MakeServer) -> None:
    """A-13, M-07.a: nobody infers them from the token endpoint; a public client revokes, but does not introspect."""
    members = document(make_server())
    assert members["revocation_endpoint"] == f"{ISSUER}/oauth/revoke"
    assert members["introspection_endpoint"] == f"{ISSUER}/oauth/introspect"
    assert tuple(members["revocation_endpoint_auth_methods_supported"]) == METHODS
    assert tuple(members["introspection_endpoint_auth_methods_supported"]) == METHODS[:2]
    members = document(make_server(without("client_secret_post", "public_client")))
    for endpoint in ("token", "revocation", "introspection"):
        assert members[f"{endpoint}_endpoint_auth_methods_supported"] == ["client_secret_basic"]
    # An empty list would be left out.
    members = document(make_server(without("client_secret_basic", "client_secret_post")))
    assert members["revocation_endpoint_auth_methods_supported"] == ["none"]
    assert "introspection_endpoint_auth_methods_supported" not in members


@dataclass(frozen=True)
class SignedAssertions:
    """Advertises a method that signs."""

    @hookimpl
    def server_metadata(self) -> dict[str, list[str]]:
        return {
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": ["ES256"],
        }


def test_the_algorithms_of_a_method_that_signs_are_listed_for_each_endpoint(make_server: MakeServer) -> None:
    """A-12, A-13: RFC 8414 asks for them wherever such a method is listed."""
    members = document(make_server(with_plugin(SignedAssertions, {})))
    for endpoint in ("token", "revocation", "introspection"):
        assert "private_key_jwt" in members[f"{endpoint}_endpoint_auth_methods_supported"]
        assert members[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] == ["ES256"]


def test_what_is_not_there_is_not_described(shared_server: Server) -> None:
    """A-12, T143: no JWT method, so no algorithms; and nothing that nobody serves."""
    members = document(shared_server)
    assert not any("jwt" in method for method in members["token_endpoint_auth_methods_supported"])
    assert set(members) == {
        "issuer",
        "authorization_endpoint",
        "token_endpoint",
        "registration_endpoint",
        "jwks_uri",
        "scopes_supported",
        "response_types_supported",
        "response_modes_supported",
        "grant_types_supported",
        "code_challenge_methods_supported",
        "token_endpoint_auth_methods_supported",
        "revocation_endpoint",
        "revocation_endpoint_auth_methods_supported",
        "introspection_endpoint",
        "introspection_endpoint_auth_methods_supported",
        "introspection_signing_alg_values_supported",
        "authorization_response_iss_parameter_supported",
        "ui_locales_supported",
    }


def test_registration_is_listed_while_it_is_on(make_server: MakeServer) -> None:
    """A-14: the address works while it is listed, and is gone with its policy."""
    metadata = {"redirect_uris": [REDIRECT_URI]}
    on = make_server()
    path = urlsplit(document(on)["registration_endpoint"]).path
    assert on.http.post_json(path, metadata).status_int == 201
    off = make_server(without("registration_open"))
    assert "registration_endpoint" not in document(off)
    assert off.http.post_json(path, metadata, expect_errors=True).status_int == 404


def test_scopes_are_listed_without_the_hidden_ones(server: Server) -> None:
    """A-16: each listed scope can be granted; a hidden one is not listed, and works for who knows it."""
    listed = document(server)["scopes_supported"]
    assert listed == ["profile", "files.read", "files.write"]
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=(*listed, "admin"))
    for scope in (*listed, "admin"):
        assert (
            server.token(client, secret, grant_type="client_credentials", scope=scope).json["scope"] == scope
        )
    refused = server.token(client, secret, grant_type="client_credentials", scope="unlisted")
    assert refused.json["error"] == "invalid_scope"


def test_a_scope_that_is_applied_while_the_server_runs_is_listed_and_granted(server: Server) -> None:
    """R-17: each process reads them again every few seconds."""
    before = document(server)
    calendar = StoredSetting(
        kind=DeclaredKind.SCOPE,
        name="calendar",
        value={"sentence": "See your calendar"},
        changed_at=datetime.now(UTC),
    )
    with server.application.begin() as engine:
        offered.keep(engine, None, calendar)
    assert document(server) == before
    server.application.parts.offered.read()
    assert document(server) == {**before, "scopes_supported": [*before["scopes_supported"], "calendar"]}
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=("calendar",))
    assert (
        server.token(client, secret, grant_type="client_credentials", scope="calendar").json["scope"]
        == "calendar"
    )


@dataclass(frozen=True)
class ListsAScope:
    """Advertises a scope that it grants by itself."""

    @hookimpl
    def server_metadata(self) -> dict[str, list[str]]:
        return {"scopes_supported": ["by-plugin"]}


def test_what_a_plugin_lists_stays_listed_beside_the_scopes_of_the_store(make_server: MakeServer) -> None:
    """A-17, R-17: and the member is left out again when the last scope is removed from the store."""
    for settings, before in ((with_plugin(ListsAScope, {}), ["by-plugin"]), ({}, None)):
        server = make_server({**settings, "authserver.scopes": None, "authserver.hidden_scopes": None})
        setting = StoredSetting(
            kind=DeclaredKind.SCOPE, name="new", value={"sentence": "New"}, changed_at=datetime.now(UTC)
        )
        assert document(server).get("scopes_supported") == before
        with server.application.begin() as engine:
            offered.keep(engine, None, setting)
        server.application.parts.offered.read()
        assert document(server)["scopes_supported"] == [*(before or ()), "new"]
        with server.application.begin() as engine:
            assert offered.remove(engine, setting)
        server.application.parts.offered.read()
        assert document(server).get("scopes_supported") == before


# ---- The keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_the_keys_are_public_and_verify_what_was_issued(algorithm: str, make_server: MakeServer) -> None:
    """A-19: no private member, each with kid, alg and use; the token's kid is among them."""
    server = make_server({"authserver.signing_algorithm": algorithm})
    keys = server.http.get(urlsplit(document(server)["jwks_uri"]).path).json["keys"]
    private = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
    assert all(not private & set(key) for key in keys)
    assert all(key["use"] == "sig" and key["kid"] and key["alg"] for key in keys)
    assert [key["alg"] for key in keys] == [algorithm]
    client, secret = server.add_client(grant_types=("client_credentials",))
    token = server.token(client, secret, grant_type="client_credentials", scope="profile").json[
        "access_token"
    ]
    assert server.claims(token)["client_id"] == client.client_id
    header = json.loads(_decoded(token.split(".")[0]))
    assert (header["alg"], header["typ"]) == (algorithm, "at+jwt")
    assert header["kid"] in {key["kid"] for key in keys}


def test_the_keys_may_be_kept_for_a_while(shared_server: Server) -> None:
    """A-19: as long as a new key is published before it signs, and no longer."""
    answer = shared_server.http.get("/oauth/jwks")
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "public, max-age=300"


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
