"""Resource indicators (RFC 8707), at the authorization and the token endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from authserver.engine.errors import RedirectError
from authserver.engine.records import Client
from authserver.testing.rules import (
    Rules,
    assert_redirect_error,
    assert_refused,
)
from authserver.testing.server import RESOURCE, SETTINGS
from authserver.testing.stories import FILES, stored

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


@pytest.fixture
def service(rules: Rules) -> tuple[Client, str]:
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    assert secret
    return client, secret


@pytest.fixture
def web(rules: Rules) -> tuple[Client, Any]:
    """A web client, and the browser of a user who is signed in."""
    return rules.add_client(scopes=SCOPES)[0], rules.signed_in()


def audience(rules: Rules, answer: Any) -> list[str]:
    value = rules.claims(answer.json["access_token"])["aud"]
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("resource", NOT_A_RESOURCE + NOT_LISTED)
def test_another_resource_is_refused(
    rules: Rules, service: tuple[Client, str], web: tuple[Client, Any], resource: str
) -> None:
    """O-02, O-03: not absolute, with a fragment, or unknown: redirected at authorization, JSON here."""
    client, browser = web
    before = stored(rules)
    for resources in ([resource], [FILES, resource], [resource, FILES]):
        answer = rules.token(*service, grant_type="client_credentials", resource=resources)
        assert_refused(answer, "invalid_target")
        answer = rules.authorize(client, browser, resource=resources)
        assert_redirect_error(answer, "invalid_target")
    assert stored(rules) == before


@pytest.mark.parametrize("grant_type", ["client_credentials", "authorization_code"])
def test_a_client_may_be_confined_to_its_resources(rules: Rules, grant_type: str) -> None:
    """O-03: what others may have is `invalid_target` for it, the default included."""
    client, secret = rules.add_client(grant_types=(grant_type,), scopes=SCOPES)
    rules.change("clients", resources=(FILES,))
    browser = rules.signed_in()
    before = stored(rules)
    for resource in ([], [RESOURCE], [FILES, RESOURCE]):
        if grant_type == "client_credentials":
            answer = rules.token(client, secret, grant_type=grant_type, resource=resource)
            assert_refused(answer, "invalid_target")
        else:
            answer = rules.authorize(client, browser, resource=resource)
            assert_redirect_error(answer, "invalid_target")
    assert stored(rules) == before


@pytest.mark.parametrize(
    "written", ["https://files.example", "HTTPS://FILES.example/", "https://Files.Example", FILES]
)
def test_scheme_and_host_compare_without_case(
    rules: Rules, service: tuple[Client, str], written: str
) -> None:
    """O-01, O-09: however it is written, the audience is the listed form."""
    answer = rules.token(*service, grant_type="client_credentials", scope="files.read", resource=written)
    assert audience(rules, answer) == [FILES]


def test_a_resource_may_repeat(rules: Rules, service: tuple[Client, str]) -> None:
    """O-01, O-05: each counts once, in the order asked for."""
    answer = rules.token(
        *service,
        grant_type="client_credentials",
        scope="files.read",
        resource=[FILES, RESOURCE, "https://FILES.example"],
    )
    assert audience(rules, answer) == [FILES, RESOURCE]


def test_too_many_resources_are_refused(rules: Rules, service: tuple[Client, str]) -> None:
    """O-03, T137: eleven, be they all the same."""
    answer = rules.token(*service, grant_type="client_credentials", resource=[FILES] * 11)
    assert_refused(answer, "invalid_target")


def test_the_token_request_narrows_and_never_widens(rules: Rules) -> None:
    """O-04, O-05, O-06, I-16, T036, T070: by code and by refresh, one token for one resource each."""
    client, secret = rules.add_client(scopes=SCOPES)
    code = rules.code(client, scope="profile files.read", resource=[RESOURCE, FILES])
    before = stored(rules)
    answer = rules.redeem(client, secret, code, resource="https://other.example/")
    assert_refused(answer, "invalid_target")
    assert stored(rules) == before
    answer = rules.redeem(client, secret, code, resource=RESOURCE)
    assert audience(rules, answer) == [RESOURCE]
    # The refresh token stands for all that was agreed, not for that one request.
    answer = rules.refresh(client, secret, answer.json["refresh_token"], resource="https://Files.example")
    assert audience(rules, answer) == [FILES]
    answer = rules.refresh(client, secret, answer.json["refresh_token"])
    assert audience(rules, answer) == [RESOURCE, FILES]


@pytest.mark.parametrize("resource", [FILES, [RESOURCE, FILES]])
def test_a_resource_that_was_not_granted_is_refused(rules: Rules, resource: str | list[str]) -> None:
    """O-04, I-16: though the server knows it and the client could have asked for it."""
    client, secret = rules.add_client(scopes=SCOPES)
    code = rules.code(client, scope="files.read", resource=RESOURCE)
    before = stored(rules)
    assert_refused(rules.redeem(client, secret, code, resource=resource), "invalid_target")
    assert stored(rules) == before
    token = rules.redeem(client, secret, code).json["refresh_token"]
    before = stored(rules)
    assert_refused(rules.refresh(client, secret, token, resource=resource), "invalid_target")
    assert stored(rules) == before


def test_a_token_holds_the_scopes_of_its_resource(rules: Rules) -> None:
    """O-07, F-08, T081: by every grant type, and the answer says which are left."""
    client, secret = rules.add_client(
        grant_types=("authorization_code", "refresh_token", "client_credentials"), scopes=SCOPES
    )
    wide, narrow = "profile files.read", "files.read"
    own = rules.token(client, secret, grant_type="client_credentials", scope=wide, resource=FILES)
    code = rules.code(client, scope=wide, resource=[RESOURCE, FILES])
    redeemed = rules.redeem(client, secret, code, resource=FILES)
    refreshed = rules.refresh(client, secret, redeemed.json["refresh_token"], resource=FILES)
    for answer in (own, redeemed, refreshed):
        assert answer.json["scope"] == narrow
        assert rules.claims(answer.json["access_token"])["scope"] == narrow
    back = rules.refresh(client, secret, refreshed.json["refresh_token"])
    assert back.json["scope"] == wide


def test_no_scope_left_is_refused(rules: Rules, service: tuple[Client, str]) -> None:
    """O-07, H-03: a token that is good for nothing is not issued."""
    before = stored(rules)
    answer = rules.token(*service, grant_type="client_credentials", scope="profile", resource=FILES)
    assert_refused(answer, "invalid_scope")
    assert stored(rules) == before


def test_without_a_resource_the_default_counts(rules: Rules, service: tuple[Client, str]) -> None:
    """O-08, O-05: a request that names none, or an empty one, is for the configured resource."""
    for form in ({}, {"resource": ""}):
        answer = rules.token(*service, grant_type="client_credentials", **form)
        assert audience(rules, answer) == [RESOURCE]


def test_without_a_default_a_resource_must_be_named(make_rules: Callable[..., Rules]) -> None:
    """O-08: never a token for everything."""
    rules = make_rules({"authserver.plugin.resources_listed.default": None})
    rules.add_user()
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    web, _ = rules.add_client(scopes=SCOPES)
    before = stored(rules)
    refused = rules.token(client, secret, grant_type="client_credentials")
    assert_refused(refused, "invalid_target")
    missing = "The request names no resource: the parameter resource is required."
    assert refused.refusal is not None and refused.refusal.description == missing
    assert stored(rules) == before
    answer = rules.authorize(web, rules.signed_in())
    assert_redirect_error(answer, "invalid_target")
    assert isinstance(answer, RedirectError) and answer.description == missing
    assert not rules.events("code.issued")


def test_only_is_the_one_that_is_listed(make_rules: Callable[..., Rules]) -> None:
    """O-08, O-05: an operator of one API names it once, and clients that know of no resources get tokens for it."""
    rules = make_rules(
        {
            "authserver.plugin.resources_listed.resources": f"{FILES} = *",
            "authserver.plugin.resources_listed.default": "only",
        }
    )
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    for form in ({}, {"resource": FILES}):
        assert audience(rules, rules.token(client, secret, grant_type="client_credentials", **form)) == [
            FILES
        ]


def test_a_client_whose_resource_is_not_the_default_is_told_to_name_one(rules: Rules) -> None:
    """O-03, O-08: nobody who named nothing is told that what they named is not allowed."""
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    rules.change("clients", resources=(FILES,))
    for resource, told in (
        ([], "The request names no resource: the parameter resource is required."),
        ([RESOURCE], "The requested resource is not allowed."),
    ):
        refused = rules.token(client, secret, grant_type="client_credentials", resource=resource)
        assert_refused(refused, "invalid_target")
        assert refused.refusal is not None
        assert (refused.refusal.description, refused.refusal.reason) == (told, "resource-not-registered")


def test_without_a_policy_every_resource_is_refused(make_rules: Callable[..., Rules]) -> None:
    """O-03, O-08: nobody answered means refused."""
    plugins = SETTINGS["authserver.plugins"].replace("resources_listed", "")
    without = {name: None for name in SETTINGS if ".resources_listed." in name}
    rules = make_rules({"authserver.plugins": plugins, **without})
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    for form in ({}, {"resource": RESOURCE}):
        answer = rules.token(client, secret, grant_type="client_credentials", **form)
        assert_refused(answer, "invalid_target")
