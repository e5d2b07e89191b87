"""What went wrong in other servers that sign people in and out, each told as a story here (`threats`, T001, T024, T106, T170).

How accounts are joined is in tests/features/test_upstream*.py, and what is no ID token of ours in the tests of each endpoint.
"""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from authserver.engine.errors import PageError
from authserver.testing.rules import STRANGER, Rules, assert_refused
from authserver.testing.server import Server, form_with
from tests.features.openid_steps import ON, SCOPES, a_client_of, a_server, id_claims, outcome_of, tokens

BYE = "https://client.example/bye"
EVIL = "https://evil.example/cb"


@pytest.fixture
def rules() -> Rules:
    return a_server(ON)


@pytest.mark.parametrize("prompt", ["none", "none login", "nonsense"])
def test_no_error_goes_to_an_address_that_is_not_registered(rules: Rules, prompt: str) -> None:
    """T001 (Authlib CVE-2026-41479, CVE-2026-44681): not even one that is sent before anybody has signed in."""
    client, _ = a_client_of(rules)
    for browser in (STRANGER, rules.signed_in()):
        for wrong in (
            {"redirect_uri": EVIL},
            {"redirect_uri": EVIL, "response_type": "x"},
            {"client_id": "nobody"},
        ):
            answer = rules.authorize(client, browser, **{"scope": "openid", "prompt": prompt, **wrong})
            assert isinstance(answer, PageError), (prompt, wrong)


def test_a_consent_that_waits_is_no_sign_in(rules: Rules) -> None:
    """T024 (better-auth #9344, #9936): `prompt=login` and `max_age` are met by a sign-in of this request alone."""
    client, secret = a_client_of(rules)
    before = rules.signed_in(seconds_ago=100)
    for wish in ({"prompt": "login consent"}, {"prompt": "consent", "max_age": "50"}):
        asked = rules.authorize(client, before, scope="openid", **wish)
        assert outcome_of(asked) == "sign in again"
        assert outcome_of(rules.resume(asked, before)) == "sign in again"
        assert outcome_of(rules.resume(asked, rules.signed_in())) == "consent"
    assert (
        outcome_of(rules.authorize(client, before, scope="openid", prompt="none", max_age="50"))
        == "login_required"
    )
    # What it says of the time is true.
    browser = rules.signed_in(seconds_ago=30)
    claims = id_claims(rules, tokens(rules, client, secret, browser=browser, max_age="50")["id_token"])
    assert claims["iat"] - claims["auth_time"] in range(29, 40)


@pytest.mark.parametrize("text", ["${header.x}", "{tenant}", "%24%7Bheader.x%7D", "*"])
def test_a_template_in_an_address_of_a_client_stays_text(text: str) -> None:
    """T170 (Keycloak CVE-2026-4874): it is refused, or goes nowhere but to the very text that was registered."""
    rules = a_server({**ON, "authserver.plugin.registration_open.scopes": " ".join(SCOPES)})
    metadata = {
        "redirect_uris": ["https://client.example/cb"],
        "token_endpoint_auth_method": "client_secret_basic",
    }
    address = f"https://{text}.internal.example/bye"
    for member, value in (("backchannel_logout_uri", address), ("post_logout_redirect_uris", [address])):
        assert_refused(rules.register({**metadata, member: value}), "invalid_client_metadata")


def test_signing_out_twice_and_by_a_stranger_harms_nobody(sqlite_url: str) -> None:
    """T106 (hydra #3675, django-oauth-toolkit #1804): the same form again, another's ID token, and an address of nobody."""
    server = Server(sqlite_url, ON)
    server.add_user("ann")
    server.add_user("bob")
    client, secret = server.add_client(scopes=SCOPES, details={"post_logout_redirect_uris": [BYE]})
    browser, other = server.browser(), server.browser()
    server.sign_in(browser)
    server.sign_in(other, "bob")
    answer = server.redeem(client, secret, server.code(client, browser, scope="openid"))
    hint = answer.json["id_token"]

    # Ann's ID token in Bob's browser ends nothing unasked, and names nobody.
    page = other.get("/oauth/logout?" + urlencode({"id_token_hint": hint, "post_logout_redirect_uri": BYE}))
    assert page.status_int == 200 and form_with(page, "request")
    assert other.get("/account/apps").status_int == browser.get("/account/apps").status_int == 200

    # The answer twice, as a double click sends it, and once more when the session has ended long since.
    form = form_with(page, "request")
    assert form.submit().location == BYE
    again = form.submit(expect_errors=True)
    assert again.status_int in (303, 403) and again.status_int < 500
    assert browser.get("/account/apps").status_int == 200

    # Nobody is sent where no client said, whoever asks.
    wrong = {"id_token_hint": hint, "post_logout_redirect_uri": EVIL}
    refused = browser.get("/oauth/logout?" + urlencode(wrong), expect_errors=True)
    assert refused.status_int == 400 and "evil.example" not in refused.text
    assert browser.get("/account/apps").status_int == 200
    server.close()
