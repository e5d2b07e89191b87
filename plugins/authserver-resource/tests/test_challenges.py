"""What a refused client is told (OAuth 2.1, 5.3; RFC 6750, 3; RFC 9470, 3; RFC 9728, 5.1), byte for byte."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import METADATA, challenge, let_in, refused

from authserver_resource import Challenge, Dpop, needs
from authserver_resource.testing import DpopKey

FOUND = f'resource_metadata="{METADATA}"'
DPOP = f'DPoP algs="ES256 EdDSA PS256 RS256", {FOUND}'


def test_without_a_token_no_error_code_is_sent(protected):
    """P-04, P-09: the scopes that are needed are there already."""
    refusal = refused(protected)
    assert (refusal.status, refusal.body) == (401, b"{}")
    assert challenge(refusal) == f"Bearer {FOUND}, {DPOP}"
    assert challenge(refused(protected, needed=needs("a", "b"))) == (
        f'Bearer scope="a b", {FOUND}, DPoP scope="a b", algs="ES256 EdDSA PS256 RS256", {FOUND}'
    )


@pytest.mark.parametrize("header", ["", " ", "Basic YTpi", "BearerX abc", "Digest a=b"])
def test_another_scheme_is_no_token(protected, header):
    """P-04, T086."""
    assert challenge(refused(protected, header)) == f"Bearer {FOUND}, {DPOP}"


@pytest.mark.parametrize(
    "headers",
    [("Bearer",), ("Bearer a, Bearer b",), ("Bearer a b",), ("Bearer a", "Bearer a")],
)
def test_more_than_one_token_is_a_malformed_request(protected, headers):
    """P-03, T086."""
    refusal = refused(protected, *headers)
    assert refusal.status == 400
    assert challenge(refusal).startswith('Bearer error="invalid_request", error_description="')


def test_a_bad_token_is_said(protected):
    """P-05, P-09."""
    refusal = refused(protected, "Bearer a.b.c")
    said = "The access token is not valid: it is not a compact JWS."
    assert challenge(refusal) == f'Bearer error="invalid_token", error_description="{said}", {FOUND}, {DPOP}'
    assert json.loads(refusal.body) == {"error": "invalid_token", "error_description": said}
    assert dict(refusal.headers)["Cache-Control"] == "no-store"


def test_too_little_scope_names_what_is_held_and_what_is_needed(protected, issuer):
    """P-06, P-14: the union, so that the next token has no less than this one; without offline_access."""
    token = issuer.token(scope="zoo offline_access files.read")
    refusal = refused(protected, f"Bearer {token}", needed=needs("files.write", "files.read"))
    assert refusal.status == 403
    assert challenge(refusal) == (
        'Bearer error="insufficient_scope", error_description="The access token lacks a scope.", '
        f'scope="files.read files.write zoo", {FOUND}'
    )


def test_the_same_challenge_again_is_the_same_to_the_byte(protected, issuer):
    """P-14: a client that asked for more, and got what it had, sees that it goes in a circle."""
    first = refused(protected, f"Bearer {issuer.token(scope='a b c')}", needed=needs("x", "y"))
    again = refused(protected, f"Bearer {issuer.token(scope='c a b')}", needed=needs("x", "y"))
    assert first.headers == again.headers
    with_more = refused(protected, f"Bearer {issuer.token(scope='a b c x')}", needed=needs("x", "y"))
    assert with_more.headers == first.headers


def test_a_weak_or_old_sign_in_is_stepped_up(protected, issuer):
    """STEP-03: and the scopes that lack are in the same challenge."""
    token = issuer.token(acr="bronze", auth_time=int(time.time()) - 3600, scope="files.read")
    needed = needs("files.read", acr_values=("gold", "silver"), max_age=300)
    assert challenge(refused(protected, f"Bearer {token}", needed=needed)) == (
        'Bearer error="insufficient_user_authentication", '
        'error_description="A more recent or stronger sign-in is needed.", '
        f'acr_values="gold silver", max_age=300, {FOUND}'
    )
    more = needs("files.write", max_age=300)
    assert challenge(refused(protected, f"Bearer {token}", needed=more)).endswith(
        f'max_age=300, scope="files.read files.write", {FOUND}'
    )
    good = issuer.token(acr="silver", auth_time=int(time.time()) - 60, scope="files.read")
    assert let_in(protected, good, needed).subject == "ann"


@pytest.mark.parametrize("claims", [{}, {"acr": 7, "auth_time": "now"}, {"acr": None, "auth_time": True}])
def test_a_token_that_does_not_say_how_the_person_signed_in_is_stepped_up(protected, issuer, claims):
    """STEP-03."""
    for needed in (needs(acr_values=("gold",)), needs(max_age=10**9)):
        refusal = refused(protected, f"Bearer {issuer.token(**claims)}", needed=needed)
        assert refusal.error == "insufficient_user_authentication"


def test_a_rule_of_the_api_can_refuse_too(make):
    """P-13: what would help is sent where the setting says so."""
    details = [{"type": "payment", "amount": "10"}]
    for sends in (False, True):
        protected, issuer = make(send_authorization_details=sends)
        access = let_in(protected, issuer.token(scope="pay"))
        refusal = protected.refusal(
            access, "pay.more", description="Too much for this token.", authorization_details=details
        )
        assert 'scope="pay pay.more"' in challenge(refusal)
        assert json.loads(refusal.body).get("authorization_details") == (details if sends else None)


def test_where_bound_tokens_are_demanded_only_dpop_is_offered(make):
    """DPOP-18."""
    protected, issuer = make(dpop=Dpop(required=True))
    assert challenge(refused(protected)) == DPOP
    assert challenge(refused(protected, f"Bearer {issuer.token()}")).startswith('DPoP error="invalid_token"')


def test_without_dpop_it_is_not_offered(make):
    protected, issuer = make(dpop=None)
    assert challenge(refused(protected)) == f"Bearer {FOUND}"
    assert challenge(refused(protected, f"DPoP {issuer.token()}")) == f"Bearer {FOUND}"
    bound = issuer.token(cnf=DpopKey().confirmation)
    assert refused(protected, f"Bearer {bound}").error == "invalid_token"


@given(st.dictionaries(st.sampled_from(["error", "scope", "x"]), st.text(max_size=50), min_size=1))
def test_attributes_hold_allowed_characters_only(attributes):
    """P-07: each once, with no way out of its quotation marks."""
    text = str(Challenge("Bearer", attributes))
    pair = r'[a-z]+="[\x20\x21\x23-\x5B\x5D-\x7E]*"'
    assert re.fullmatch(rf"Bearer {pair}(, {pair})*", text)
    assert text.count('"') == 2 * len(attributes)
