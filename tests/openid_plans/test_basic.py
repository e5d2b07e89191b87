"""The modules of the basic plan, each run for every way in which clients authenticate, register and get their answers.

The same modules are the form post plan, and what a plan of response type `code` has for `client_secret_basic`,
`client_secret_post`, `none` and `private_key_jwt`. A docstring begins with the names of its modules.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from tests.openid_plans.conftest import ISSUER, PERSON, Provider
from tests.openid_plans.judge import CALLBACK, HOST, Came, Flow, Judge

PROFILE = set(PERSON) - {"email", "email_verified", "phone_number", "phone_number_verified"}
PROFILE = {name for name in PROFILE if not name.startswith("address.")} | {"preferred_username"}
OF_SCOPE = {
    "profile": PROFILE,
    "email": {"email", "email_verified"},
    "address": {"address"},
    "phone": {"phone_number", "phone_number_verified"},
}


def unsigned(claims: dict[str, Any]) -> str:
    """A request object without a signature (OIDC Core, 6.1)."""
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), ""])


def text_of(came: Came) -> str:
    assert came.is_page
    return str(came.pages[-1].main.get_text(" ", strip=True))


# ---- Answers ------------------------------------------------------------------------------------------


def test_server(judge: Judge) -> None:
    """oidcc-server, oidcc-server-client-secret-post, oidcc-idtoken-signature, oidcc-idtoken-rs256: OIDC-02, OIDC-03, OIDC-22,
    OIDC-28."""
    flow = judge.flow()
    assert flow.came.signed_in


def test_response_type_missing(judge: Judge) -> None:
    """oidcc-response-type-missing: B-07, once somebody is signed in (B-16)."""
    came, _ = judge.authorize(response_type=None)
    if judge.variant.dynamic:
        # A page says where it leads before it leads there (B-17).
        assert HOST.removeprefix("https://") in text_of(came)
    else:
        assert came.parameters["error"] == "invalid_request"


def test_idtoken_unsigned(judge: Judge) -> None:
    """oidcc-idtoken-unsigned: OIDC-03; the suite skips it, because `none` is not offered."""
    assert "none" not in judge.metadata["id_token_signing_alg_values_supported"]


def test_codereuse(judge: Judge) -> None:
    """oidcc-codereuse, oidcc-codereuse-30seconds: G-05; a code is of use once, and its second use ends what the first gave."""
    flow = judge.flow()
    again = judge.redeem(flow.code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert judge.userinfo(flow.tokens["access_token"]).status_code == 401


# ---- UserInfo and claims ------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["get", "post", "form"])
def test_userinfo(judge: Judge, by: str) -> None:
    """oidcc-userinfo-get, oidcc-userinfo-post-header, oidcc-userinfo-post-body: OIDC-09, OIDC-38."""
    flow = judge.flow()
    told = judge.userinfo(flow.tokens["access_token"], by=by)
    assert told.status_code == 200 and told.json() == {"sub": flow.claims["sub"]}


@pytest.mark.parametrize(
    "scope",
    [
        "openid profile",
        "openid email",
        "openid address",
        "openid phone",
        "openid profile email address phone",
        "email openid",
    ],
)
def test_scope(judge: Judge, scope: str) -> None:
    """oidcc-scope-profile, oidcc-scope-email, oidcc-scope-address, oidcc-scope-phone, oidcc-scope-all,
    oidcc-ensure-other-scope-order-succeeds: OIDC-10, OIDC-31, OIDC-41; each claim has the type that it must have."""
    flow = judge.flow(scope=scope)
    told = judge.userinfo(flow.tokens["access_token"]).json()
    names = {"sub"}.union(*(OF_SCOPE.get(name, set()) for name in scope.split()))
    assert told.keys() == names
    assert told["sub"] == flow.claims["sub"]
    for name in names - {"sub", "address", "preferred_username"}:
        assert told[name] is True if name.endswith("_verified") else told[name] == PERSON[name], name
    if "address" in names:
        assert told["address"] == {"locality": "Berlin", "country": "DE"}
    assert not (names - {"sub"}) & flow.claims.keys()


def test_claims_essential(judge: Judge) -> None:
    """oidcc-claims-essential: OIDC-35, OIDC-36; no error, and a value only with a scope that covers it (the suite warns)."""
    claims = json.dumps({"userinfo": {"name": {"essential": True}}})
    flow = judge.flow(claims=claims)
    assert judge.userinfo(flow.tokens["access_token"]).json() == {"sub": flow.claims["sub"]}
    flow = judge.flow(claims=claims, scope="openid profile")
    assert judge.userinfo(flow.tokens["access_token"]).json()["name"] == PERSON["name"]
    assert "name" not in flow.claims


# ---- What a request may say ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": None},
        {"display": "page"},
        {"display": "popup"},
        {"extra": "foobar"},
        {"login_hint": "ann@op.example"},
        {"ui_locales": "se"},
        {"claims_locales": "se"},
        {"acr_values": "password"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_request(judge: Judge, changes: dict[str, str | None]) -> None:
    """oidcc-ensure-request-without-nonce-succeeds-for-code-flow, oidcc-display-page, oidcc-display-popup,
    oidcc-ensure-request-with-unknown-parameter-succeeds, oidcc-login-hint, oidcc-ui-locales, oidcc-claims-locales,
    oidcc-ensure-request-with-acr-values-succeeds, oidcc-alternate-happy-flow: OIDC-15, OIDC-22."""
    flow = judge.flow(**changes)
    if "acr_values" in changes:
        assert judge.metadata["acr_values_supported"] and flow.claims["acr"] == "password"


def test_valid_pkce(judge: Judge) -> None:
    """oidcc-ensure-request-with-valid-pkce-succeeds: D-01, also where the server does not ask for it; a wrong verifier fails."""
    verifier = "v" * 43
    flow = judge.flow(verifier=verifier)
    assert flow.claims["sub"]
    came, _ = judge.authorize(code_challenge="A" * 42 + "E", code_challenge_method="S256")
    wrong = judge.redeem(came.parameters["code"], code_verifier=verifier)
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_grant")


def test_post_request(judge: Judge) -> None:
    """oidcc-ensure-post-request-succeeds: B-01."""
    sent, _ = judge.request()
    came = judge.browser.go(judge.metadata["authorization_endpoint"], form=sent)
    judge.check_answer(came, sent)
    assert judge.redeem(came.parameters["code"]).status_code == 200


def test_registered_redirect_uri(judge: Judge) -> None:
    """oidcc-ensure-registered-redirect-uri: B-06, C-03; a page, and nobody is sent there."""
    came, _ = judge.authorize(redirect_uri=f"{CALLBACK}/other")
    assert came.is_page and came.status == 400
    assert not any(HOST in form["action"] for form in came.pages[-1].select("form"))


def test_redirect_uri_missing(judge: Judge) -> None:
    """oidcc-ensure-redirect-uri-in-authorization-request: OIDC-04."""
    came, _ = judge.authorize(redirect_uri=None)
    assert came.is_page and came.status == 400


def test_request_objects(judge: Judge) -> None:
    """oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported,
    oidcc-request-uri-unsigned-supported-correctly-or-rejected-as-unsupported: OIDC-12; refused as what is not supported."""
    judge.flow()
    assert (
        judge.metadata["request_parameter_supported"]
        is judge.metadata["request_uri_parameter_supported"]
        is False
    )
    sent, _ = judge.request()
    given = {
        "request": unsigned({**sent, "iss": judge.rp.client_id, "aud": ISSUER}),
        "request_uri": f"{HOST}/request.jwt",
    }
    for name, value in given.items():
        came, _ = judge.authorize(**{name: value}, prompt="none")
        assert came.parameters["error"] == f"{name}_not_supported"


def test_request_object_with_redirect_uri(judge: Judge) -> None:
    """oidcc-ensure-request-object-with-redirect-uri: B-28; the address beside the object counts, and it is not registered."""
    sent, _ = judge.request()
    came, _ = judge.authorize(request=unsigned(sent), redirect_uri=f"{CALLBACK}/bad")
    assert came.is_page and came.status == 400


# ---- Who signs in, and when ---------------------------------------------------------------------------


def test_prompt_login(judge: Judge) -> None:
    """oidcc-prompt-login: OIDC-06, OIDC-18; the same person, and a later sign-in."""
    first = judge.flow()
    time.sleep(1.1)
    second = judge.flow(prompt="login")
    assert second.came.signed_in
    assert second.claims["sub"] == first.claims["sub"]
    assert second.claims["auth_time"] > first.claims["auth_time"]


def test_prompt_none_not_logged_in(judge: Judge) -> None:
    """oidcc-prompt-none-not-logged-in: OIDC-05, B-16 before B-17."""
    assert judge.error(prompt="none") == "login_required"


def same_sign_in(judge: Judge, first: Flow, **changes: str) -> None:
    second = judge.flow(**changes)
    assert not second.came.signed_in and not second.came.asked
    assert second.claims["sub"] == first.claims["sub"]
    assert second.claims["auth_time"] == first.claims["auth_time"]


def test_prompt_none_logged_in(judge: Judge) -> None:
    """oidcc-prompt-none-logged-in: OIDC-05, E-12; what the person agreed to stands, also for a client that registered itself."""
    same_sign_in(judge, judge.flow(), prompt="none")


def test_id_token_hint(judge: Judge) -> None:
    """oidcc-id-token-hint: OIDC-14, OIDC-21."""
    first = judge.flow()
    same_sign_in(judge, first, prompt="none", id_token_hint=first.tokens["id_token"])


def test_max_age_1(judge: Judge) -> None:
    """oidcc-max-age-1: OIDC-16; two seconds later the person signs in again."""
    first = judge.flow()
    time.sleep(2.1)
    second = judge.flow(max_age="1")
    assert second.came.signed_in
    assert second.claims["sub"] == first.claims["sub"]
    assert first.claims["auth_time"] < second.claims["auth_time"] <= time.time() + 1


def test_max_age_10000(judge: Judge) -> None:
    """oidcc-max-age-10000: OIDC-16; the same sign-in will do."""
    first = judge.flow(max_age="15000")
    second = judge.flow(max_age="10000")
    assert not second.came.signed_in
    assert second.claims["auth_time"] == first.claims["auth_time"]


# ---- Refresh tokens -----------------------------------------------------------------------------------


def test_refresh_token(provider: Provider, judge: Judge) -> None:
    """oidcc-refresh-token: OIDC-08, L-02; bound to its client, and the new ID token is of the same sign-in."""
    if judge.variant.dynamic:
        grants = ["authorization_code", "refresh_token"]
        rp = provider.register(judge.variant.auth_method, grant_types=grants)
        judge = Judge(ISSUER, provider.port, judge.variant, rp, judge.browser)
    first = judge.flow()
    assert "refresh_token" in judge.metadata["grant_types_supported"]
    refreshed = judge.refresh(first.tokens["refresh_token"]).json()
    claims = judge.check_id_token(refreshed["id_token"], nonce=None, access_token=refreshed["access_token"])
    assert {name: claims[name] for name in ("iss", "sub", "aud", "auth_time")} == {
        name: first.claims[name] for name in ("iss", "sub", "aud", "auth_time")
    }
    assert claims["iat"] >= first.claims["iat"]
    assert refreshed["access_token"] != first.tokens["access_token"]
    assert judge.userinfo(refreshed["access_token"]).status_code == 200
    other = provider.add(judge.variant.auth_method, default_max_age=100_000)
    refused = judge.refresh(refreshed["refresh_token"], rp=other)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
