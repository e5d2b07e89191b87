"""The token endpoint's own rules, whatever the grant (OAuth 2.1, 3.2)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from authserver.engine.records import Client
from authserver.testing.rules import (
    Rules,
    assert_redirect_error,
    assert_refused,
)
from authserver.testing.server import basic
from authserver.testing.stories import stored

Registered = tuple[Client, str]


@pytest.fixture
def service(rules: Rules) -> Registered:
    """A client that acts on its own behalf, and its secret."""
    client, secret = rules.add_client(grant_types=("client_credentials",))
    assert secret
    return client, secret


def test_unknown_and_empty_parameters_count_for_nothing(rules: Rules, service: Registered) -> None:
    """F-03: an unknown parameter is ignored, an empty one is absent."""
    body = (
        "grant_type=client_credentials&scope=&resource=&client_secret=&client_id=&nonsense=1&%F0%9F%A6%89=2"
    )
    answer = rules.post("/oauth/token", body, authorization=basic(service[0].client_id, service[1]))
    assert (answer.status_int, answer.json["scope"]) == (200, "profile")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "grant_type=",
        "scope=profile",
        *(
            f"grant_type=client_credentials&{name}=a&{name}={value}"
            for name in ("scope", "client_id", "client_secret", "code", "redirect_uri", "nonsense")
            for value in ("a", "b", "")
        ),
        "grant_type=client_credentials&grant_type=client_credentials",
        "grant_type=client_credentials&grant_type=",
        "grant_type=client_credentials&gr%61nt_type=password",
    ],
)
def test_a_repeated_parameter_or_no_grant_type_is_refused(
    rules: Rules, service: Registered, body: str
) -> None:
    """F-04, T084: nobody has to guess which of two values counts."""
    before = stored(rules)
    assert_refused(
        rules.post("/oauth/token", body, authorization=basic(service[0].client_id, service[1])),
        "invalid_request",
    )
    assert stored(rules) == before


@pytest.mark.parametrize(
    "grant_type",
    [
        "password",
        "implicit",
        "CLIENT_CREDENTIALS",
        "client_credentials ",
        "__class__",
        "urn:ietf:params:oauth:grant-type:device_code",
    ],
)
def test_an_unknown_grant_type_is_refused(rules: Rules, service: Registered, grant_type: str) -> None:
    """F-05: `password` included."""
    before = stored(rules)
    answer = rules.token(*service, grant_type=grant_type)
    assert_refused(answer, "unsupported_grant_type")
    assert stored(rules) == before


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "invalid_request"),
        ("grant_type=", "invalid_request"),
        ("grant_type=password&username=ann&password=secret", "unsupported_grant_type"),
        ("grant_type=client_credentials", "invalid_client"),
        ("client_id=nobody&grant_type=password", "invalid_client"),
    ],
)
def test_a_request_that_names_no_client_is_told_first_what_else_is_wrong(
    rules: Rules, body: str, code: str
) -> None:
    """F-04, F-05: a client that is named is authenticated first, so that the event says who it was."""
    before = stored(rules)
    status = 401 if code == "invalid_client" else 400
    assert_refused(rules.post("/oauth/token", body), code, status=status)
    assert stored(rules) == before


def test_a_grant_type_that_the_server_does_not_offer_is_unknown(make_rules: Callable[..., Rules]) -> None:
    """F-05: a client keeps no grant type that was switched off."""
    rules = make_rules()
    client, secret = rules.add_client(grant_types=("client_credentials",))
    rules = make_rules({"authserver.grant_types": "authorization_code"}, rules.stores)
    answer = rules.token(client, secret, grant_type="client_credentials")
    assert_refused(answer, "unsupported_grant_type")


@pytest.mark.parametrize(
    ("registered", "used"),
    [
        (("client_credentials",), {"grant_type": "authorization_code", "code": "x", "code_verifier": "x"}),
        (("client_credentials",), {"grant_type": "refresh_token", "refresh_token": "x"}),
        (("authorization_code",), {"grant_type": "client_credentials"}),
        (("authorization_code",), {"grant_type": "refresh_token", "refresh_token": "x"}),
    ],
)
def test_a_client_uses_only_its_own_grant_types(
    rules: Rules, registered: tuple[str, ...], used: dict[str, str]
) -> None:
    """F-06: known to the server, but not this client's."""
    client, secret = rules.add_client(grant_types=registered)
    before = stored(rules)
    assert_refused(rules.token(client, secret, **used), "unauthorized_client")
    assert stored(rules) == before


def test_one_filter_of_scopes_for_every_grant_type(rules: Rules) -> None:
    """T081, F-08: what the client is not registered for is `invalid_scope`, whatever the way to it (CVE-2024-52287)."""
    client, secret = rules.add_client(
        grant_types=("authorization_code", "refresh_token", "client_credentials"), scopes=("profile",)
    )
    token = rules.redeem(client, secret, rules.code(client)).json["refresh_token"]
    browser = rules.signed_in()
    before = stored(rules)
    for scope in ("files.read", "profile files.read", "admin", "nonsense"):
        answer = rules.authorize(client, browser, scope=scope)
        assert_redirect_error(answer, "invalid_scope")
        answer = rules.token(client, secret, grant_type="client_credentials", scope=scope)
        assert_refused(answer, "invalid_scope")
        assert_refused(rules.refresh(client, secret, token, scope=scope), "invalid_scope")
    assert stored(rules) == before
