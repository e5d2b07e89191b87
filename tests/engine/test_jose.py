"""Signing keys: what is published, what is signed, and what is taken for our own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwk, jws

from authserver.engine.crypto import jose
from authserver.engine.crypto.jose import NotVerified

CLAIMS = {"iss": "https://as.example", "sub": "user_1", "exp": 1, "scope": "les skriv", "name": "Blåbær"}
KEYS = {algorithm: jose.new_signing_key(algorithm) for algorithm in jose.ALGORITHMS}
KID, PUBLIC, PRIVATE = KEYS["ES256"]
SET = jose.KeySet(
    [(kid, algorithm, public, private, True) for algorithm, (kid, public, private) in KEYS.items()]
)


@pytest.mark.parametrize("algorithm", jose.ALGORITHMS)
def test_the_kid_is_the_thumbprint(algorithm: str) -> None:
    """N-07: RFC 7638, 3: required members in order, without white space."""
    kid, public, private = KEYS[algorithm]
    required = {name: public[name] for name in sorted({"crv", "e", "kty", "n", "x", "y"} & set(public))}
    text = json.dumps(required, separators=(",", ":"))
    assert kid == base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    assert public["kid"] == private["kid"] == kid
    assert public["alg"] == algorithm
    assert public["use"] == "sig"


def test_an_rsa_key_has_2048_bits() -> None:
    assert len(base64.urlsafe_b64decode(KEYS["RS256"][1]["n"] + "==")) == 256


def test_the_published_keys_hold_no_private_member() -> None:
    """A-19: not even when a private JWK is handed over as the public one."""
    careless = jose.KeySet(
        [(kid, algorithm, private, private, True) for algorithm, (kid, _, private) in KEYS.items()]
    )
    for key_set in (SET, careless):
        published = key_set.jwks()["keys"]
        assert [key["kid"] for key in published] == [kid for kid, _, _ in KEYS.values()]
        for key in published:
            assert set(key) <= {"kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"}
            assert key["alg"] in jose.ALGORITHMS
            assert key["use"] == "sig"
            assert not jwk.import_key(key).is_private


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize("algorithm", jose.ALGORITHMS)
def test_a_signature_verifies_with_the_published_key_alone(algorithm: str) -> None:
    """N-02, N-06, N-07"""
    token = SET.sign(CLAIMS, typ="at+jwt", algorithm=algorithm)
    [key] = [key for key in SET.jwks()["keys"] if key["alg"] == algorithm]
    verified = jws.deserialize_compact(token, jwk.import_key(key), algorithms=[algorithm])
    assert verified.headers() == {"alg": algorithm, "typ": "at+jwt", "kid": key["kid"]}
    assert json.loads(verified.payload) == CLAIMS
    assert SET.verify(token, typ="at+jwt") == CLAIMS


def test_the_first_active_key_signs() -> None:
    retiring, active, later = (jose.new_signing_key("ES256") for _ in range(3))
    keys = jose.KeySet(
        [
            (retiring[0], "ES256", retiring[1], None, False),
            (active[0], "ES256", active[1], active[2], True),
            (later[0], "ES256", later[1], later[2], True),
        ]
    )
    assert keys.algorithm == "ES256"
    assert _header(keys.sign(CLAIMS, typ="at+jwt"))["kid"] == active[0]


def test_the_default_algorithm_can_be_chosen() -> None:
    keys = [(kid, algorithm, public, private, True) for algorithm, (kid, public, private) in KEYS.items()]
    chosen = jose.KeySet(keys, algorithm="RS256")
    assert chosen.algorithm == "RS256"
    assert _header(chosen.sign(CLAIMS, typ="at+jwt"))["alg"] == "RS256"


def test_a_retiring_key_still_verifies_and_a_removed_one_does_not() -> None:
    """N-07"""
    token = SET.sign(CLAIMS, typ="at+jwt", algorithm="ES256")
    new = jose.new_signing_key("ES256")
    after = (new[0], "ES256", new[1], new[2], True)
    assert jose.KeySet([after, (KID, "ES256", PUBLIC, None, False)]).verify(token, typ="at+jwt") == CLAIMS
    with pytest.raises(NotVerified) as refused:
        jose.KeySet([after]).verify(token, typ="at+jwt")
    assert refused.value.reason == "token-key-unknown"


def test_without_an_active_key_nothing_is_signed() -> None:
    keys = jose.KeySet([(KID, "ES256", PUBLIC, PRIVATE, False)])
    assert keys.algorithm == ""
    with pytest.raises(LookupError, match="no active signing key"):
        keys.sign(CLAIMS, typ="at+jwt")
    with pytest.raises(LookupError, match="RS256"):
        keys.sign(CLAIMS, typ="at+jwt", algorithm="RS256")


def test_a_key_that_cannot_be_used_is_refused_at_start_without_showing_it() -> None:
    """R-04"""
    other = jose.new_signing_key("ES256")
    broken = {**PRIVATE, "d": PRIVATE["d"][:-6]}
    p384 = jwk.ECKey.generate_key("P-384").as_dict(private=False)
    for keys in (
        [(KID, "ES256", PUBLIC, None, True)],
        [(KID, "ES256", PUBLIC, PRIVATE, True)] * 2,
        [(KID, "ES256", PUBLIC, other[2], True)],
        [(KID, "RS256", PUBLIC, None, False)],
        [(KID, "HS256", {"kty": "oct", "k": "c2VjcmV0"}, None, False)],
        [(KID, "none", PUBLIC, None, False)],
        [(KID, "ES256", p384, None, False)],
        [(KID, "ES256", PUBLIC, broken, True)],
        [(KID, "ES256", {"kty": "EC"}, None, False)],
        [(KID, "EdDSA", {**KEYS["EdDSA"][1], "x": "!"}, None, False)],
    ):
        with pytest.raises(ValueError, match="signing key") as refused:
            jose.KeySet(keys)
        assert PRIVATE["d"][:10] not in str(refused.value)
    with pytest.raises(ValueError, match="known: ES256 RS256 EdDSA"):
        jose.new_signing_key("HS256")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"alg": "none"}, "token-algorithm"),
        ({"alg": "HS256"}, "token-algorithm"),
        ({"alg": "RS256"}, "token-algorithm"),
        ({"typ": "JWT"}, "token-type"),
        ({"typ": "application/at+jwt"}, "token-type"),
        ({"typ": None}, "token-type"),
        ({"kid": KEYS["EdDSA"][0]}, "token-algorithm"),
        ({"kid": "unknown"}, "token-key-unknown"),
        ({"kid": [KID]}, "token-key-unknown"),
        ({"crit": ["exp"]}, "token-header"),
        ({"jwk": PUBLIC}, "token-header"),
        ({"jku": "https://evil.example/jwks"}, "token-header"),
        ({"x5u": "https://evil.example/cert"}, "token-header"),
        ({"x5c": ["MII"]}, "token-header"),
        ({"b64": False}, "token-header"),
        ({"zip": "DEF"}, "token-header"),
    ],
)
def test_a_header_that_we_do_not_make_is_refused(change: dict[str, Any], reason: str) -> None:
    """N-02, N-09, T061: even with a right signature under our key."""
    header = {"alg": "ES256", "typ": "at+jwt", "kid": KID, **change}
    with pytest.raises(NotVerified) as refused:
        SET.verify(_signed(header, CLAIMS), typ="at+jwt")
    assert refused.value.reason == reason


def test_the_public_key_is_no_hmac_secret() -> None:
    """N-02: the classic confusion of algorithms."""
    header = _encode(json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": KID}).encode())
    signed = f"{header}.{_encode(json.dumps(CLAIMS).encode())}"
    key = jwk.ECKey.import_key(PUBLIC)
    for secret in (key.as_pem(private=False), key.as_der(private=False), json.dumps(PUBLIC).encode()):
        mac = hmac.digest(secret, signed.encode(), "sha256")
        with pytest.raises(NotVerified):
            SET.verify(f"{signed}.{_encode(mac)}", typ="at+jwt")


def test_our_token_of_one_type_is_not_taken_for_another() -> None:
    """N-09, T061"""
    token = SET.sign(CLAIMS, typ="JWT")
    assert SET.verify(token, typ="JWT") == CLAIMS
    with pytest.raises(NotVerified):
        SET.verify(token, typ="at+jwt")


def test_a_token_has_one_spelling() -> None:
    """T060: padding, white space and unused bits in the last character make another text, so it is refused."""
    token = SET.sign(CLAIMS, typ="at+jwt", algorithm="ES256")
    header, claims, signature = token.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    loose = signature[:-1] + alphabet[alphabet.index(signature[-1]) ^ 1]
    for other in (
        token + "=",
        token + "==",
        token + "\n",
        " " + token,
        f"{header}.{claims}.{loose}",
        f"{header}=.{claims}.{signature}",
        f"{header}.{claims[:5]} {claims[5:]}.{signature}",
        token + ".",
        f"{header}..{signature}",
        f"{header}.{claims}.",
    ):
        with pytest.raises(NotVerified):
            SET.verify(other, typ="at+jwt")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.characters(codec="ascii"))
def test_a_changed_token_is_refused(place: int, other: str) -> None:
    token = _ONE_TOKEN
    place %= len(token)
    changed = token[:place] + other + token[place + 1 :]
    if changed != token:
        with pytest.raises(NotVerified):
            SET.verify(changed, typ="at+jwt")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.text("ey.JhA-_", max_size=60))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(NotVerified):
        SET.verify(text, typ="at+jwt")


def test_a_giant_token_is_refused_before_it_is_read() -> None:
    with pytest.raises(NotVerified):
        SET.verify(SET.sign({**CLAIMS, "x": "a" * 8192}, typ="at+jwt"), typ="at+jwt")


@pytest.mark.parametrize("payload", [b"[]", b'"x"', b'{"sub": "a", "sub": "b"}', b'{"exp": NaN}', b"\xff"])
def test_a_payload_that_is_no_plain_object_is_refused(payload: bytes) -> None:
    """T062"""
    header = _encode(json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": KID}).encode())
    signed = f"{header}.{_encode(payload)}"
    signature = jws.JWSRegistry.algorithms["ES256"].sign(signed.encode(), jwk.ECKey.import_key(PRIVATE))
    with pytest.raises(NotVerified) as refused:
        SET.verify(f"{signed}.{_encode(signature)}", typ="at+jwt")
    assert refused.value.reason == "token-malformed"


def _signed(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """A token with any header, signed with our ES256 key whatever the header says."""
    signed = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(claims).encode())}"
    signature = jws.JWSRegistry.algorithms["ES256"].sign(signed.encode(), jwk.ECKey.import_key(PRIVATE))
    return f"{signed}.{_encode(signature)}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _header(token: str) -> Any:
    text = token.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


_ONE_TOKEN = SET.sign(CLAIMS, typ="at+jwt", algorithm="ES256")


def rsa_key(modulus: int, exponent: int = 65537) -> dict[str, str]:
    members = {
        "n": modulus.to_bytes((modulus.bit_length() + 7) // 8),
        "e": exponent.to_bytes(3).lstrip(b"\0"),
    }
    return {"kty": "RSA", **{name: encoded(value) for name, value in members.items()}}


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", jose.ALGORITHMS)
def test_what_another_signed_is_believed_under_its_key(algorithm: str) -> None:
    """N-07: a key that came from elsewhere has its thumbprint of RFC 7638, and verifies what it signed alone."""
    kid, public, _ = KEYS[algorithm]
    key = jose.foreign_key(public, algorithm)
    token = jose.read_jws(SET.sign(CLAIMS, typ="at+jwt", algorithm=algorithm))
    assert key.thumbprint == kid
    assert key.verifies(token)
    assert token.claims == CLAIMS
    assert not key.verifies(jose.read_jws(SET.sign({}, typ="x", algorithm=algorithm)[:-8] + "AAAAAAAA"))


@pytest.mark.parametrize("bits", [2047, 8193])
def test_an_rsa_key_of_another_that_is_weak_or_costly_is_refused(bits: int) -> None:
    """T058, T057: to the bit."""
    with pytest.raises(ValueError, match="2,048 to 8,192 bits"):
        jose.foreign_key(rsa_key(2 ** (bits - 1) + 1), "RS256")


@pytest.mark.parametrize("bits", [2048, 8192])
def test_an_rsa_key_of_another_of_a_good_size_is_taken(bits: int) -> None:
    assert jose.foreign_key(rsa_key(2 ** (bits - 1) + 1), "RS256").thumbprint


@pytest.mark.parametrize("exponent", [0, 1, 2, 65536])
def test_an_rsa_key_of_another_with_a_broken_exponent_is_refused(exponent: int) -> None:
    """T058."""
    with pytest.raises(ValueError, match=r"broken|canonical"):
        jose.foreign_key(rsa_key(2**2047 + 1, exponent), "PS256")


@pytest.mark.parametrize("name", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
def test_a_key_of_another_with_a_secret_member_is_refused(name: str) -> None:
    """T058: whatever the member holds."""
    with pytest.raises(ValueError, match="public"):
        jose.foreign_key({**PUBLIC, name: ""}, "ES256")


@given(
    members=st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e"]),
        st.sampled_from(["RSA", "EC", "OKP", "P-256", "P-384", "Ed25519", "X25519", PUBLIC["x"], ""])
        | st.text(max_size=50)
        | st.integers()
        | st.none(),
    ),
    algorithm=st.sampled_from(jose.FOREIGN_ALGORITHMS),
)
def test_no_key_of_another_fails_otherwise(members: dict[str, Any], algorithm: str) -> None:
    """T058: a ValueError is all that garbage leads to."""
    for given_key in (members, {**PUBLIC, **members}):
        with contextlib.suppress(ValueError):
            assert jose.foreign_key(given_key, algorithm).thumbprint
