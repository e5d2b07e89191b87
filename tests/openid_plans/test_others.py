"""The plans beside the basic one: config, dynamic, RP-initiated logout, back-channel logout, third-party initiated login."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from authserver.testing.origins import sending
from tests.openid_plans.conftest import ISSUER, LOGOUT_CALLBACK, PAGE, Provider, public
from tests.openid_plans.judge import CALLBACK, HOST, LOGOUT_EVENT, Came, Judge, RelyingParty, Variant

Begin = Callable[..., Judge]
DYNAMIC = Variant(name="dynamic", dynamic=True, auth_method="private_key_jwt")
LOCALE = re.compile(r"[a-z]{2,3}(-[A-Z]{2})?")


# ---- Discovery ----------------------------------------------------------------------------------------


def test_discovery(begin: Begin) -> None:
    """oidcc-discovery-endpoint-verification, oidcc-discovery-issuer-not-matching-config,
    oidcc-rp-initiated-logout-discovery-endpoint-verification, oidcc-backchannel-logout-discovery-endpoint-verification: OIDC-12,
    OIDC-33, OIDC-49, OUT-13."""
    judge = begin()
    told = judge.metadata
    assert told["issuer"] == ISSUER
    # Of the three that a dynamic provider must have, two put tokens into addresses (OAuth 2.1, 10.1).
    assert told["response_types_supported"] == ["code"]
    assert {"query", "form_post"} == set(told["response_modes_supported"])
    assert {"public", "pairwise"} == set(told["subject_types_supported"])
    for name in ("id_token", "userinfo"):
        algorithms = told[f"{name}_signing_alg_values_supported"]
        assert "RS256" in algorithms and "none" not in algorithms
    endpoints = [name for name in told if name.endswith(("_endpoint", "_uri"))]
    assert {
        "authorization_endpoint",
        "token_endpoint",
        "userinfo_endpoint",
        "registration_endpoint",
        "jwks_uri",
    } <= set(endpoints)
    assert "end_session_endpoint" in endpoints
    assert all(urlsplit(told[name]).scheme == "https" for name in endpoints)
    assert told["request_parameter_supported"] is told["request_uri_parameter_supported"] is False
    assert told["claims_parameter_supported"] is True and {"sub", "email"} <= set(told["claims_supported"])
    assert {"authorization_code", "refresh_token"} <= set(told["grant_types_supported"])
    assert "openid" in told["scopes_supported"] and all(
        re.fullmatch(r"[!#-\[\]-~]+", each) for each in told["scopes_supported"]
    )
    assert all(LOCALE.fullmatch(each) for each in told["ui_locales_supported"])
    assert told["code_challenge_methods_supported"] == ["S256"]
    assert told["backchannel_logout_supported"] is told["backchannel_logout_session_supported"] is True
    methods = set(told["token_endpoint_auth_methods_supported"])
    assert methods == {"client_secret_basic", "client_secret_post", "none", "private_key_jwt"}


def signing_keys(judge: Judge) -> dict[str, Any]:
    """The keys by their names, each as the suite wants it: named, and without its private part."""
    keys = judge.keys()["keys"]
    named = {key["kid"]: key for key in keys}
    assert len(named) == len(keys)
    assert not any({"d", "p", "q", "k"} & key.keys() for key in keys)
    KeySet.import_key_set({"keys": keys})
    return named


def test_rotation(provider: Provider, begin: Begin) -> None:
    """oidcc-server-rotate-keys: T144; a client that watches sees a new key beside the old one, and goes on."""
    judge = begin()
    before = signing_keys(judge)
    first = judge.flow()
    provider.command("keys", "rotate", "--algorithm", "RS256")
    deadline = time.monotonic() + 30
    while not (after := signing_keys(judge)).keys() - before.keys() and time.monotonic() < deadline:
        time.sleep(0.2)
    new = after.keys() - before.keys()
    assert len(new) == 1 and before.keys() < after.keys()
    assert {after[kid]["alg"] for kid in new} == {"RS256"}
    second = judge.flow(prompt="none", id_token_hint=first.tokens["id_token"])
    assert second.claims["sub"] == first.claims["sub"]


# ---- Registration -------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False], ids=["named", "without names"])
def test_registration(provider: Provider, begin: Begin, named: bool) -> None:
    """oidcc-server, oidcc-registration-dynamic: OIDC-51; private_key_jwt, with keys in the registration."""
    keys = [public(provider.key)] if named else [provider.key.as_dict(private=False, use="sig", alg="RS256")]
    if not named:
        del keys[0]["kid"]
    judge = begin(DYNAMIC, jwks={"keys": keys})
    assert judge.rp.registration["token_endpoint_auth_method"] == "private_key_jwt"
    if not named:
        unnamed = RSAKey.import_key(provider.key.as_dict(private=True), {"kid": ""})
        judge.rp = replace(judge.rp, key=unnamed)
    judge.flow()


def test_assertion_for_the_issuer(begin: Begin) -> None:
    """oidcc-ensure-client-assertion-with-iss-aud-succeeds: J-11."""
    judge = begin(DYNAMIC)
    came, _ = judge.authorize()
    form = {"grant_type": "authorization_code", "code": came.parameters["code"], "redirect_uri": CALLBACK}
    assert judge.ask(form, audience=ISSUER).status_code == 200


def test_signed_userinfo(begin: Begin) -> None:
    """oidcc-userinfo-rs256: OIDC-40."""
    judge = begin(DYNAMIC, userinfo_signed_response_alg="RS256")
    flow = judge.flow()
    told = judge.userinfo(flow.tokens["access_token"])
    assert told.headers["Content-Type"].startswith("application/jwt")
    claims = jwt.decode(told.text, KeySet.import_key_set(dict(judge.keys())), algorithms=["RS256"]).claims
    assert (
        claims["iss"] == ISSUER
        and claims["aud"] == judge.rp.client_id
        and claims["sub"] == flow.claims["sub"]
    )


def test_queries_of_redirect_uris(begin: Begin) -> None:
    """oidcc-redirect-uri-query-OK, oidcc-redirect-uri-query-mismatch, oidcc-redirect-uri-query-added: B-14, C-03."""
    with_query = f"{CALLBACK}?foo=bar"
    judge = begin(DYNAMIC, redirect_uris=[with_query])
    came, sent = judge.authorize(redirect_uri=with_query)
    assert came.parameters["foo"] == "bar"
    assert judge.redeem(came.parameters["code"], redirect_uri=sent["redirect_uri"]).status_code == 200
    for other in (f"{CALLBACK}?foo=baz", f"{with_query}&more=1", CALLBACK):
        came, _ = judge.authorize(redirect_uri=other)
        assert came.is_page and came.status == 400


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"redirect_uris": [f"{CALLBACK}#foobar"]}, "invalid_redirect_uri"),
        ({"initiate_login_uri": "http://rp.example/login"}, "invalid_client_metadata"),
        ({"id_token_signed_response_alg": "none"}, "invalid_client_metadata"),
        ({"response_types": ["id_token"], "grant_types": ["implicit"]}, "invalid_client_metadata"),
    ],
    ids=["fragment", "no https", "unsigned", "implicit"],
)
def test_registrations_that_are_refused(provider: Provider, changes: dict[str, Any], code: str) -> None:
    """oidcc-redirect-uri-regfrag, oidcc-3rd_party-init-login-nohttps: C-02, K-04, OIDC-51."""
    reply = provider.post_registration("client_secret_basic", **changes)
    assert (reply.status_code, reply.json()["error"]) == (400, code)
    assert reply.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize("member", ["logo_uri", "policy_uri", "tos_uri"])
def test_links(begin: Begin, member: str) -> None:
    """oidcc-registration-logo-uri, oidcc-registration-policy-uri, oidcc-registration-tos-uri: K-04; the page shows the links,
    and a logo only of clients that an operator vouches for."""
    address = f"{HOST}/{member}"
    judge = begin(DYNAMIC, **{member: address})
    judge.browser.go(judge.request()[1])
    page = judge.browser.go(judge.request()[1], answers=False).pages[-1]
    assert bool(page.select(f'a[href="{address}"]')) is (member != "logo_uri")
    assert not page.select(f'img[src="{address}"]')
    judge.flow()


def at(provider: Provider, path: str) -> str:
    return f"http://127.0.0.1:{provider.origin.port}{path}"


@pytest.fixture
def document(provider: Provider) -> Iterator[Callable[[object], None]]:
    """What the host of the relying party answers."""

    def put(value: object) -> None:
        # As the suite answers: nobody keeps it, so that a key that changed counts at once.
        provider.origin.reply = sending(
            json.dumps(value).encode(), content_type="application/json", cache_control="no-store"
        )

    before = provider.origin.reply
    yield put
    provider.origin.reply = before


def test_keys_at_an_address(provider: Provider, begin: Begin, document: Callable[[object], None]) -> None:
    """oidcc-registration-jwks-uri, oidcc-refreshtoken-rp-key-rotation: J-15; the client changes its key, and the next
    assertion is verified with the new one."""
    document({"keys": [public(provider.key)]})
    grants = ["authorization_code", "refresh_token"]
    judge = begin(DYNAMIC, jwks=None, jwks_uri=at(provider, "/jwks/rotating"), grant_types=grants)
    flow = judge.flow()
    new = RSAKey.generate_key(2048, {"kid": "next"}, auto_kid=False)
    document({"keys": [public(new)]})
    rotated = RelyingParty(client_id=judge.rp.client_id, secret="", auth_method="private_key_jwt", key=new)
    reply = judge.refresh(flow.tokens["refresh_token"], rp=rotated)
    assert reply.status_code == 200, reply.text
    claims = judge.check_id_token(reply.json()["id_token"], nonce=None)
    assert claims["sub"] == flow.claims["sub"]


def test_sectors(provider: Provider, begin: Begin, document: Callable[[object], None]) -> None:
    """oidcc-registration-sector-uri, oidcc-registration-sector-bad: OIDC-46."""
    document([CALLBACK, "https://other.example/callback"])
    uris = {"redirect_uris": [CALLBACK, "https://other.example/callback"], "subject_type": "pairwise"}
    judge = begin(DYNAMIC, **uris, sector_identifier_uri=at(provider, "/sector/good"))
    public_sub = begin().flow().claims["sub"]
    assert judge.flow().claims["sub"] != public_sub
    document(["https://other.example/callback"])
    reply = provider.post_registration(
        "private_key_jwt", **uris, sector_identifier_uri=at(provider, "/sector/bad")
    )
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_client_metadata")


def test_third_party_initiated_login(provider: Provider, begin: Begin) -> None:
    """oidcc-3rd_party-init-login: OIDC-51; the address comes back, also when the client reads its registration (RFC 7592)."""
    address = f"{HOST}/initiate"
    judge = begin(DYNAMIC, initiate_login_uri=address)
    told = judge.rp.registration
    assert told["initiate_login_uri"] == address
    own = {"Authorization": f"Bearer {told['registration_access_token']}"}
    read = provider.http().get(told["registration_client_uri"], headers=own, timeout=20)
    assert read.status_code == 200 and read.json()["initiate_login_uri"] == address
    # How the suite leaves a server: its clients are gone.
    ended = provider.http().delete(told["registration_client_uri"], headers=own, timeout=20)
    assert ended.status_code == 204


# ---- RP-initiated logout ------------------------------------------------------------------------------


def signed_out(judge: Judge) -> bool:
    """Whether the provider says that nobody is signed in any more."""
    came, _ = judge.authorize(answers=False, prompt="none")
    return came.parameters.get("error") == "login_required"


@pytest.mark.parametrize("dynamic", [False, True], ids=["added", "registered"])
def test_rp_initiated_logout(begin: Begin, dynamic: bool) -> None:
    """oidcc-rp-initiated-logout, oidcc-rp-initiated-logout-no-state: OUT-01, OUT-02, OUT-08."""
    variant = Variant(name="logout", dynamic=dynamic)
    for state in ("s" * 128, None):
        judge = begin(variant, post_logout_redirect_uris=[LOGOUT_CALLBACK])
        hint = judge.flow().tokens["id_token"]
        came = judge.end_session(id_token_hint=hint, post_logout_redirect_uri=LOGOUT_CALLBACK, state=state)
        assert came.url.partition("?")[0] == LOGOUT_CALLBACK and not came.pages
        assert came.parameters == ({} if state is None else {"state": state})
        assert signed_out(judge)


def stays(judge: Judge, **parameters: str | None) -> Came:
    """The browser ends on a page of the provider, nobody is sent on, and nobody is signed out unasked."""
    came = judge.end_session(**parameters)
    assert came.is_page
    assert not signed_out(judge)
    return came


def test_bad_logout_redirect_uris(begin: Begin) -> None:
    """oidcc-rp-initiated-logout-bad-post-logout-redirect-uri, oidcc-rp-initiated-logout-query-added-to-post-logout-redirect-uri:
    OUT-01; a page says so."""
    judge = begin(post_logout_redirect_uris=[LOGOUT_CALLBACK])
    hint = judge.flow().tokens["id_token"]
    for uri in (f"{LOGOUT_CALLBACK}?foo=bar", f"{LOGOUT_CALLBACK}/other", "https://elsewhere.example/"):
        assert stays(judge, id_token_hint=hint, post_logout_redirect_uri=uri, state="s").status == 400


def test_bad_hints(begin: Begin) -> None:
    """oidcc-rp-initiated-logout-bad-id-token-hint, oidcc-rp-initiated-logout-modified-id-token-hint,
    oidcc-rp-initiated-logout-no-id-token-hint: OUT-02, OUT-06, OUT-07."""
    judge = begin(post_logout_redirect_uris=[LOGOUT_CALLBACK])
    hint = judge.flow().tokens["id_token"]
    forged = jwt.encode(
        {"alg": "RS256"}, {"iss": ISSUER, "aud": judge.rp.client_id, "sub": "x"}, judge.rp.key
    )
    head, body, seal = hint.split(".")
    for bad in (forged, f"{head}.{body}.{seal[::-1]}", f"{head}.{body[:-4]}AAAA.{seal}"):
        assert (
            stays(judge, id_token_hint=bad, post_logout_redirect_uri=LOGOUT_CALLBACK, state="s").status == 400
        )
    asked = stays(judge, post_logout_redirect_uri=LOGOUT_CALLBACK, state="s")
    assert asked.status == 200 and asked.pages[-1].select("form")


def test_few_parameters(begin: Begin) -> None:
    """oidcc-rp-initiated-logout-no-params, oidcc-rp-initiated-logout-no-post-logout-redirect-uri,
    oidcc-rp-initiated-logout-only-state: OUT-01, OUT-07."""
    judge = begin(post_logout_redirect_uris=[LOGOUT_CALLBACK])
    hint = judge.flow().tokens["id_token"]
    for parameters in ({}, {"state": "s"}):
        assert stays(judge, **parameters).status == 200
    came = judge.end_session(id_token_hint=hint, state="s")
    assert came.is_page and came.status == 200
    assert signed_out(judge)


# ---- Back-channel logout ------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True], ids=["added", "registered"])
def test_backchannel_rp_initiated_logout(provider: Provider, begin: Begin, dynamic: bool) -> None:
    """oidcc-backchannel-rp-initiated-logout: OUT-03, OUT-04, OUT-10, OUT-14."""
    path = f"/backchannel/{dynamic}"
    told = {"backchannel_logout_uri": at(provider, path), "backchannel_logout_session_required": True}
    judge = begin(
        Variant(name="logout", dynamic=dynamic), post_logout_redirect_uris=[LOGOUT_CALLBACK], **told
    )
    flow = judge.flow()
    came = judge.end_session(
        id_token_hint=flow.tokens["id_token"], post_logout_redirect_uri=LOGOUT_CALLBACK, state="s"
    )
    assert came.parameters == {"state": "s"}
    deadline = time.monotonic() + 30
    while (
        not (got := [each for each in provider.origin.received if each.path == path])
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    (request,) = got
    form = parse_qs(request.body.decode())
    assert request.method == "POST" and form.keys() == {"logout_token"}
    token = jwt.decode(
        form["logout_token"][0], KeySet.import_key_set(dict(judge.keys())), algorithms=["RS256"]
    )
    said, now = token.claims, time.time()
    assert said["iss"] == ISSUER and said["aud"] == judge.rp.client_id
    assert said["iat"] <= now + 10 and now < said["exp"] <= said["iat"] + 120 and said["jti"]
    assert said["events"] == {LOGOUT_EVENT: {}} and "nonce" not in said
    assert (said["sub"], said["sid"]) == (flow.claims["sub"], flow.claims["sid"])
    assert token.header["typ"] == "logout+jwt"
    assert signed_out(judge)


# ---- The page of these plans --------------------------------------------------------------------------


def test_the_page_names_each_test_of_a_module_and_no_other() -> None:
    """What the documentation says is tested is what is here, module by module."""
    here = ""
    for path in sorted(PAGE.parents[1].glob("tests/openid_plans/test_*.py")):
        here += path.read_text(encoding="utf-8")
    tests = dict(re.findall(r'def (test_\w+)\([^)]*\) -> None:\n    """(.*?)"""', here, flags=re.DOTALL))
    tables = PAGE.read_text(encoding="utf-8").partition("Config\n------")[2]
    for row in re.split(r"\n   \* - ", tables)[1:]:
        modules, named = set(re.findall(r"`(oidcc-[\w-]+)`", row)), re.findall(r"`(test_\w+)`", row)
        if row.startswith("Module"):
            continue
        described = " ".join(tests.pop(name, here if name in here else "") for name in named)
        assert named and all(module in described for module in modules), row
    assert [name for name in tests if not name.startswith("test_the_page")] == []
