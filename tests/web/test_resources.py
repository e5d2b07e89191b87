"""Resource indicators (RFC 8707), at the authorization and the token endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from authserver.engine.records import Client
from authserver.testing.server import RESOURCE, Server
from authserver.testing.stories import assert_json_error, assert_redirect_error, signed_in, stored

FILES = "https://files.example/"
SCOPES = ("profile", "files.read", "files.write")

NOT_A_RESOURCE = [
    "files",
    "/files",
    "//files.example/",
    "https://",
    "https:///x",
    FILES + "#",
    FILES + "#part",
    "https://user@files.example/",
    "https://files example/",
    "https://files.example/\\",
    " " + FILES,
    "é",
    "https://files.example/" + "a" * 3000,
]
NOT_LISTED = [
    "https://other.example/",
    "http://files.example/",
    FILES + "x",
    FILES + "?",
    FILES[:-1] + ":443/",
    FILES[:-1] + ":8443/",
    "https://files.example./",
    "https://sub.files.example/",
    "https://files.example//",
    "urn:files",
    "https://as.example",
]


@pytest.fixture(scope="module")
def service(shared_server: Server) -> tuple[Client, str]:
    client, secret = shared_server.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    assert secret
    return client, secret


@pytest.fixture(scope="module")
def web(shared_server: Server) -> tuple[Client, Any]:
    """A web client, and the browser of a user who is signed in."""
    return shared_server.add_client(scopes=SCOPES)[0], signed_in(shared_server)


def audience(server: Server, answer: Any) -> list[str]:
    value = server.claims(answer.json["access_token"])["aud"]
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("resource", NOT_A_RESOURCE + NOT_LISTED)
def test_another_resource_is_refused(
    shared_server: Server, service: tuple[Client, str], web: tuple[Client, Any], resource: str
) -> None:
    """O-02, O-03: not absolute, with a fragment, or unknown: redirected at authorization, JSON here."""
    client, browser = web
    before = stored(shared_server)
    for resources in ([resource], [FILES, resource], [resource, FILES]):
        answer = shared_server.token(*service, grant_type="client_credentials", resource=resources)
        assert_json_error(answer, "invalid_target")
        answer = browser.get(shared_server.authorization_url(client, resource=resources))
        assert_redirect_error(answer, "invalid_target")
    assert stored(shared_server) == before


@pytest.mark.parametrize("grant_type", ["client_credentials", "authorization_code"])
def test_a_client_may_be_confined_to_its_resources(server: Server, grant_type: str) -> None:
    """O-03: what others may have is `invalid_target` for it, the default included."""
    client, secret = server.add_client(grant_types=(grant_type,), scopes=SCOPES)
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE clients SET resources = :resources"), {"resources": FILES})
    browser = signed_in(server)
    before = stored(server)
    for resource in ([], [RESOURCE], [FILES, RESOURCE]):
        if grant_type == "client_credentials":
            answer = server.token(client, secret, grant_type=grant_type, resource=resource)
            assert_json_error(answer, "invalid_target")
        else:
            answer = browser.get(server.authorization_url(client, resource=resource))
            assert_redirect_error(answer, "invalid_target")
    assert stored(server) == before


@pytest.mark.parametrize(
    "written", ["https://files.example", "HTTPS://FILES.example/", "https://Files.Example", FILES]
)
def test_scheme_and_host_compare_without_case(
    shared_server: Server, service: tuple[Client, str], written: str
) -> None:
    """O-01, O-09: however it is written, the audience is the listed form."""
    answer = shared_server.token(
        *service, grant_type="client_credentials", scope="files.read", resource=written
    )
    assert audience(shared_server, answer) == [FILES]


def test_a_resource_may_repeat(shared_server: Server, service: tuple[Client, str]) -> None:
    """O-01, O-05: each counts once, in the order asked for."""
    answer = shared_server.token(
        *service,
        grant_type="client_credentials",
        scope="files.read",
        resource=[FILES, RESOURCE, "https://FILES.example"],
    )
    assert audience(shared_server, answer) == [FILES, RESOURCE]


def test_too_many_resources_are_refused(shared_server: Server, service: tuple[Client, str]) -> None:
    """O-03, T137: eleven, be they all the same."""
    answer = shared_server.token(*service, grant_type="client_credentials", resource=[FILES] * 11)
    assert_json_error(answer, "invalid_target")


def test_the_token_request_narrows_and_never_widens(server: Server) -> None:
    """O-04, O-05, O-06, I-16, T036, T070: by code and by refresh, one token for one resource each."""
    client, secret = server.add_client(scopes=SCOPES)
    code = server.code(client, scope="profile files.read", resource=[RESOURCE, FILES])
    before = stored(server)
    answer = server.redeem(client, secret, code, resource="https://other.example/")
    assert_json_error(answer, "invalid_target")
    assert stored(server) == before
    answer = server.redeem(client, secret, code, resource=RESOURCE)
    assert audience(server, answer) == [RESOURCE]
    # The refresh token stands for all that was agreed, not for that one request.
    answer = server.refresh(client, secret, answer.json["refresh_token"], resource="https://Files.example")
    assert audience(server, answer) == [FILES]
    answer = server.refresh(client, secret, answer.json["refresh_token"])
    assert audience(server, answer) == [RESOURCE, FILES]


@pytest.mark.parametrize("resource", [FILES, [RESOURCE, FILES]])
def test_a_resource_that_was_not_granted_is_refused(server: Server, resource: str | list[str]) -> None:
    """O-04, I-16: though the server knows it and the client could have asked for it."""
    client, secret = server.add_client(scopes=SCOPES)
    code = server.code(client, scope="files.read", resource=RESOURCE)
    before = stored(server)
    assert_json_error(server.redeem(client, secret, code, resource=resource), "invalid_target")
    assert stored(server) == before
    token = server.redeem(client, secret, code).json["refresh_token"]
    before = stored(server)
    assert_json_error(server.refresh(client, secret, token, resource=resource), "invalid_target")
    assert stored(server) == before


def test_a_token_holds_the_scopes_of_its_resource(server: Server) -> None:
    """O-07, F-08, T081: by every grant type, and the answer says which are left."""
    client, secret = server.add_client(
        grant_types=("authorization_code", "refresh_token", "client_credentials"), scopes=SCOPES
    )
    wide, narrow = "profile files.read", "files.read"
    own = server.token(client, secret, grant_type="client_credentials", scope=wide, resource=FILES)
    code = server.code(client, scope=wide, resource=[RESOURCE, FILES])
    redeemed = server.redeem(client, secret, code, resource=FILES)
    refreshed = server.refresh(client, secret, redeemed.json["refresh_token"], resource=FILES)
    for answer in (own, redeemed, refreshed):
        assert answer.json["scope"] == narrow
        assert server.claims(answer.json["access_token"])["scope"] == narrow
    back = server.refresh(client, secret, refreshed.json["refresh_token"])
    assert back.json["scope"] == wide


def test_no_scope_left_is_refused(shared_server: Server, service: tuple[Client, str]) -> None:
    """O-07, H-03: a token that is good for nothing is not issued."""
    before = stored(shared_server)
    answer = shared_server.token(*service, grant_type="client_credentials", scope="profile", resource=FILES)
    assert_json_error(answer, "invalid_scope")
    assert stored(shared_server) == before


def test_without_a_resource_the_default_counts(shared_server: Server, service: tuple[Client, str]) -> None:
    """O-08, O-05: a request that names none, or an empty one, is for the configured resource."""
    for form in ({}, {"resource": ""}):
        answer = shared_server.token(*service, grant_type="client_credentials", **form)
        assert audience(shared_server, answer) == [RESOURCE]


def test_without_a_default_a_resource_must_be_named(make_server: Callable[..., Server]) -> None:
    """O-08: never a token for everything."""
    server = make_server({"authserver.plugin.resources_listed.default": None})
    server.add_user()
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    web, _ = server.add_client(scopes=SCOPES)
    before = stored(server)
    assert_json_error(server.token(client, secret, grant_type="client_credentials"), "invalid_target")
    assert stored(server) == before
    answer = signed_in(server).get(server.authorization_url(web))
    assert_redirect_error(answer, "invalid_target")
    assert not server.events("code.issued")


def test_without_a_policy_every_resource_is_refused(make_server: Callable[..., Server]) -> None:
    """O-03, O-08: nobody answered means refused."""
    first = make_server()
    client, secret = first.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    plugins = first.ini["authserver.plugins"].replace("resources_listed", "")
    settings: dict[str, str | None] = {"authserver.plugins": plugins}
    settings |= {name: None for name in first.ini if ".resources_listed." in name}
    server = make_server(settings)
    for form in ({}, {"resource": RESOURCE}):
        answer = server.token(client, secret, grant_type="client_credentials", **form)
        assert_json_error(answer, "invalid_target")
