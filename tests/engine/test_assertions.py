"""Key sets of others: read strictly, so that no weak, private or ambiguous key is ever believed."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from authserver.engine.errors import InvalidGrant
from authserver.engine.tokens.assertions import SKEW, BadAssertion, TrustedKeys, single_use
from authserver.limits import MAXIMUM_IDENTIFIER

EC = ECKey.generate_key("P-256")
RSA = RSAKey.generate_key(2048)
ED = OKPKey.generate_key("Ed25519")
SMALL_MODULUS = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key().public_numbers().n


def public(key: Any, **members: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": "a", **members}


def base64url(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(128, "big")).rstrip(b"=").decode()


def read(*keys: Any) -> TrustedKeys:
    return TrustedKeys.read(json.dumps({"keys": keys}).encode())


@pytest.mark.parametrize(
    ("jwk", "algorithm"),
    [
        (public(EC), "ES256"),
        (public(EC, alg="ES256", use="sig", key_ops=["verify"]), "ES256"),
        (public(RSA), "RS256"),
        (public(RSA, alg="RS256"), "RS256"),
        (public(RSA, alg="PS256"), "PS256"),
        (public(ED), "EdDSA"),
        (public(EC, x5c=["MIIB"], x5u="https://stranger.example/"), "ES256"),
    ],
)
def test_a_key_is_for_one_algorithm(jwk: dict[str, Any], algorithm: str) -> None:
    """T054: what it says, or the usual one of its kind; certificates beside it count for nothing."""
    ((_, key),) = read(jwk).keys
    assert key.algorithm == algorithm
    assert not key.public.is_private


@pytest.mark.parametrize(
    "other",
    [
        public(RSA, kid="b", use="enc"),
        public(RSA, kid="b", alg="RSA-OAEP"),
        public(RSA, kid="b", alg="RS512"),
        public(EC, kid="b", alg="HS256"),
        public(EC, kid="b", alg="none"),
        public(EC, kid="b", alg=["ES256"]),
        public(EC, kid="b", key_ops=["encrypt"]),
        public(EC, kid="b", key_ops="verify"),
        public(ECKey.generate_key("P-384"), kid="b"),
        public(OKPKey.generate_key("X25519"), kid="b"),
        {"kty": "AKP", "kid": "b", "alg": "ML-DSA-44", "pub": "AAAA"},
        {"kid": "b"},
    ],
)
def test_a_key_that_is_for_something_else_is_left_out(other: dict[str, Any]) -> None:
    """RFC 7517, 5: it harms no other, and is no key by itself."""
    assert [kid for kid, _ in read(other, public(EC)).keys] == ["a"]
    assert read(other, public(EC)).find("b") is None
    with pytest.raises(ValueError, match="no signature key"):
        read(other)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ([EC.as_dict(private=True)], "private or symmetric"),
        ([public(EC), RSA.as_dict(private=True) | {"use": "enc"}], "private or symmetric"),
        ([OctKey.generate_key(256).as_dict()], "private or symmetric"),
        (
            [public(RSA, n=base64url(SMALL_MODULUS))],
            "key 1 of the JWK Set is not a key for RS256: an RSA key must have 2,048 to 8,192 bits",
        ),
        ([public(RSA, e="AQ")], "key 1 of the JWK Set is not a key for RS256"),
        ([public(RSA, e="Ag")], "key 1 of the JWK Set is not a key for RS256"),
        ([public(RSA, n="")], "key 1 of the JWK Set is not a key for RS256"),
        ([public(RSA, n="!")], "key 1 of the JWK Set is not a key for RS256"),
        ([public(RSA, n=7)], "key 1 of the JWK Set is not a key for RS256"),
        ([public(EC, x="AAAA")], "key 1 of the JWK Set is not a key for ES256"),
        ([public(EC, x=public(EC)["y"])], "key 1 of the JWK Set is not a key for ES256"),
        ([{"kty": "EC", "crv": "P-256", "kid": "a"}], "key 1 of the JWK Set is not a key for ES256"),
        ([public(ED, x="AAAA")], "key 1 of the JWK Set is not a key for EdDSA"),
        ([public(EC), public(RSA)], "same kid"),
        ([public(EC, kid=None), public(RSA, kid=None)], "same kid, or none"),
        ([public(EC, kid="")], "kid that is not a text"),
        ([public(EC, kid=7)], "kid that is not a text"),
        ([public(EC, kid="k" * 129)], "kid that is not a text"),
        ([public(EC, kid="a\nb")], "kid that is not a text"),
        ([public(EC, kid=str(number)) for number in range(21)], "more than 20 keys"),
        ([public(EC, more="x" * 40_000)], "too large"),
        ([], "no signature key"),
        (["x"], "not a JWK Set"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_a_hostile_key_set_is_refused(keys: list[Any], problem: str) -> None:
    """T058: and the message repeats nothing of a key."""
    with pytest.raises(ValueError, match=problem) as refused:
        read(*keys)
    assert str(EC.as_dict(private=True)["d"]) not in str(refused.value)


def test_without_kid_only_the_single_key_of_a_set_is_meant() -> None:
    """T055: nobody tries one key after another."""
    assert read(public(EC, kid=None)).find(None) is not None
    assert read(public(EC)).find(None) is not None
    assert read(public(EC), public(RSA, kid="b")).find(None) is None
    assert read(public(EC, kid=None)).find("a") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "kid", "key_ops"])


@given(base=st.sampled_from([EC, RSA, ED]), changes=st.dictionaries(MEMBERS, JSON, max_size=4), other=JSON)
def test_no_key_set_causes_a_fault(base: Any, changes: dict[str, Any], other: Any) -> None:
    """T058: it is read, or refused with a ValueError."""
    for text in (
        json.dumps({"keys": [public(base, **changes)]}),
        json.dumps(other),
        json.dumps({"keys": other}),
    ):
        try:
            keys = TrustedKeys.read(text.encode()).keys
        except ValueError:
            continue
        assert all(key.algorithm in ("ES256", "RS256", "PS256", "EdDSA") for _, key in keys)


# ---- What using an assertion once means (T051) --------------------------------------------------------


NOW = 1_800_000_000
CLAIMS = {"iss": "https://issuer.example", "jti": "one", "exp": NOW + 100}
USED = InvalidGrant("It was used.")


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize("jti", [None, "", 7, ["one"]])
def test_an_assertion_without_an_identifier_cannot_be_used_once(jti: Any) -> None:
    """T051"""
    with pytest.raises(BadAssertion) as caught:
        single_use({**CLAIMS, "jti": jti}, lifetime=300, refusal=USED)
    assert caught.value.reason == str(caught.value) == "assertion-jti-missing"


def test_an_identifier_of_an_assertion_has_a_limit() -> None:
    """T051"""
    longest = "j" * MAXIMUM_IDENTIFIER
    assert longest in single_use({**CLAIMS, "jti": longest}, lifetime=300, refusal=USED).text
    with pytest.raises(BadAssertion) as caught:
        single_use({**CLAIMS, "jti": longest + "j"}, lifetime=300, refusal=USED)
    assert caught.value.reason == "assertion-malformed"


def test_an_assertion_is_one_of_its_issuer_and_its_purpose() -> None:
    """T051: another issuer, identifier or purpose is another assertion."""
    use = single_use(CLAIMS, lifetime=300, refusal=USED)
    assert (use.purpose, use.text, use.refusal) == ("assertion", "https://issuer.example\0one", USED)
    other = single_use(CLAIMS, lifetime=300, refusal=USED, purpose="client_assertion")
    assert (other.purpose, other.text) == ("client_assertion", use.text)


def test_a_use_is_kept_a_minute_longer_than_the_assertion_can_be_presented() -> None:
    """T052: by a clock that goes wrong by as much as `skew` allows."""
    assert single_use(CLAIMS, lifetime=300, refusal=USED).until == moment(NOW + 100) + SKEW + timedelta(
        minutes=1
    )
    exact = single_use(CLAIMS, lifetime=300, refusal=USED, skew=timedelta(0))
    assert exact.until == moment(NOW + 160)


@pytest.mark.parametrize(
    ("claims", "begun"),
    [
        ({}, NOW - 200),
        ({"nbf": NOW - 300, "iat": NOW - 300}, NOW - 200),
        ({"nbf": NOW - 50}, NOW - 50),
        ({"iat": NOW - 40}, NOW - 40),
        ({"nbf": NOW - 50, "iat": NOW - 40}, NOW - 40),
    ],
)
def test_an_assertion_can_be_known_to_be_new_from_when_it_is_accepted_first(
    claims: dict[str, Any], begun: int
) -> None:
    """T051, T149: an earlier restore of the database has lost no use of it."""
    exact = single_use({**CLAIMS, **claims}, lifetime=300, refusal=USED, skew=timedelta(0))
    assert exact.since == moment(begun)
    assert single_use({**CLAIMS, **claims}, lifetime=300, refusal=USED).since == moment(begun) - SKEW
