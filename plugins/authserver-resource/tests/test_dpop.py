"""Tokens that are bound to a key of the client (RFC 9449, 7)."""

from __future__ import annotations

import hashlib
import re
import time

import pytest
import time_machine
from steps import challenge, let_in, refused, request

from authserver.testing import forgeries
from authserver_resource import (
    Dpop,
    InvalidProof,
    InvalidRequest,
    InvalidToken,
    MemoryReplays,
    NonceNeeded,
    Nonces,
    Unavailable,
)
from authserver_resource.testing import DpopKey

URL = "https://api.example/v1/files"
KEY, OTHER = DpopKey(), DpopKey()


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256", "PS256"])
@pytest.mark.parametrize("opaque", [False, True])
def test_a_bound_token_with_its_proof_is_let_in(protected, issuer, algorithm, opaque):
    """DPOP-07."""
    key = DpopKey(algorithm)
    token = (issuer.opaque_token if opaque else issuer.token)(cnf=key.confirmation, token_type="DPoP")
    for _ in range(2):
        access = protected.check(request(f"dpop {token}", dpop=(key.proof("GET", URL, token),)))
        assert access.scheme == "DPoP"
        assert access.headers == ()


@pytest.mark.parametrize(
    "htu",
    [
        URL + "?a=b",
        URL + "#c",
        "HTTPS://API.EXAMPLE:443/v1/files",
        "https://api.example/v1/%66iles",
        "https://api.example/x/../v1/./files",
    ],
)
def test_the_url_is_compared_without_query_and_normalised(protected, issuer, htu):
    """DPOP-15."""
    token = issuer.token(cnf=KEY.confirmation)
    assert protected.check(request(f"DPoP {token}", dpop=(KEY.proof("GET", htu, token),))).scheme == "DPoP"


def wrong_proofs(token: str) -> dict[str, str]:
    """What is no proof for a request with this token: the corpus of all JWTs, and what proofs add."""
    now, url = int(time.time()), URL
    public, private = KEY.key.as_dict(private=False), KEY.key.as_dict(private=True)
    claims = {"jti": "one", "htm": "GET", "htu": url, "iat": now, "ath": ath_of(token)}

    def proof(**changes):
        return KEY.proof("GET", url, token, **changes)

    return {
        **forgeries.jwts(
            {"alg": "ES256", "typ": "dpop+jwt", "jwk": public},
            claims,
            KEY.key,
            required=("jti", "htm", "htu", "ath"),
            times=("iat",),
            types=("JWT", "at+jwt", "client-authentication+jwt", None),
        ),
        **{
            f"jwk: {name}": proof(header={"jwk": jwk})
            for name, keys in forgeries.key_sets(KEY.key, "one").items()
            if isinstance(keys, dict) and isinstance(keys.get("keys"), list) and len(keys["keys"]) == 1
            # Nobody names the use or the algorithm of a key that is sent along.
            for jwk in keys["keys"]
            if name not in ("for encryption", "another type than its algorithm")
        },
        "another key": OTHER.proof("GET", url, token),
        "another method": KEY.proof("POST", url, token),
        "small letters": KEY.proof("get", url, token),
        "another path": KEY.proof("GET", url + "/", token),
        "another host": KEY.proof("GET", "https://evil.example/v1/files", token),
        "another scheme": KEY.proof("GET", "http://api.example/v1/files", token),
        "another port": KEY.proof("GET", "https://api.example:8443/v1/files", token),
        "a user name": KEY.proof("GET", "https://ann@api.example/v1/files", token),
        "a malformed host": KEY.proof("GET", "https://[/v1/files", token),
        "a path alone": KEY.proof("GET", "/v1/files", token),
        "another token": KEY.proof("GET", url, token + "x"),
        "old": proof(iat=now - 70),
        "from the future": proof(iat=now + 70),
        "jti endless": proof(jti="j" * 300),
        "no jwk": proof(header={"jwk": None}),
        "a private jwk": proof(header={"jwk": private}),
        "jwk empty": proof(header={"jwk": {}}),
        "jwk a list": proof(header={"jwk": [public]}),
        "empty": "",
    }


def ath_of(token: str) -> str:
    return forgeries.encoded(hashlib.sha256(token.encode()).digest())


def test_a_wrong_proof_is_refused(protected, issuer):
    """DPOP-01, DPOP-07, DPOP-16, T053, T054, T055, T056, T057, T058, T060, T087: with a challenge of DPoP that names the algorithms."""
    token = issuer.token(cnf=KEY.confirmation)
    for name, proof in wrong_proofs(token).items():
        refusal = refused(protected, f"DPoP {token}", dpop=(proof,))
        assert isinstance(refusal, InvalidProof), name
        assert re.match(
            r'DPoP error="invalid_dpop_proof", error_description="[^"]+", algs="ES256 EdDSA PS256 RS256", '
            r'resource_metadata="[^"]+", Bearer resource_metadata="[^"]+"$',
            challenge(refusal),
        ), name


def test_a_key_that_was_read_once_proves_nothing_by_itself(make):
    """DPOP-01: what is remembered of a proof's header is the key, for the algorithms of this resource."""
    protected, issuer = make()
    token = issuer.token(cnf=KEY.confirmation)
    good = KEY.proof("GET", URL, token)
    assert protected.check(request(f"DPoP {token}", dpop=(good,))).scheme == "DPoP"
    head, payload, _ = KEY.proof("GET", URL, token).split(".")
    forged = f"{head}.{payload}.{OTHER.proof('GET', URL, token).split('.')[2]}"
    assert isinstance(refused(protected, f"DPoP {token}", dpop=(forged,)), InvalidProof)
    stricter, its_issuer = make(dpop=Dpop(algorithms=["EdDSA"]))
    token = its_issuer.token(cnf=KEY.confirmation)
    proof = KEY.proof("GET", URL, token)
    assert isinstance(refused(stricter, f"DPoP {token}", dpop=(proof,)), InvalidProof)


@pytest.mark.parametrize("count", [0, 2])
def test_there_is_one_proof(protected, issuer, count):
    """DPOP-07, T087."""
    token = issuer.token(cnf=KEY.confirmation)
    proofs = tuple(KEY.proof("GET", URL, token) for _ in range(count))
    assert isinstance(refused(protected, f"DPoP {token}", dpop=proofs), InvalidProof)


def test_a_proof_is_good_once(protected, issuer):
    """DPOP-07, DPOP-10, T087: also by a second token, and until it is too old anyway."""
    token = issuer.token(cnf=KEY.confirmation)
    proof = KEY.proof("GET", URL, token)
    protected.check(request(f"DPoP {token}", dpop=(proof,)))
    assert isinstance(refused(protected, f"DPoP {token}", dpop=(proof,)), InvalidProof)
    with time_machine.travel(time.time() + 59, tick=False):
        assert isinstance(refused(protected, f"DPoP {token}", dpop=(proof,)), InvalidProof)


def test_a_refused_proof_is_not_used_up(protected, issuer):
    """What was sent to the wrong address can be sent again."""
    token = issuer.token(cnf=KEY.confirmation)
    proof = KEY.proof("GET", URL, token)
    refused(protected, f"DPoP {token}", dpop=(proof,), path="/v1/other")
    protected.check(request(f"DPoP {token}", dpop=(proof,)))


def test_proofs_are_forgotten_when_they_are_too_old():
    replays = MemoryReplays(size=2)
    now = time.time()
    assert replays.claim("a", now + 60)
    assert not replays.claim("a", now + 60)
    assert replays.claim("b", now + 60)
    with pytest.raises(Unavailable):
        replays.claim("c", now + 60)
    with time_machine.travel(now + 61, tick=False):
        assert replays.claim("c", now + 120)


def test_a_bound_token_is_no_bearer_token(protected, issuer):
    """DPOP-08, T087."""
    token = issuer.token(cnf=KEY.confirmation)
    refusal = refused(protected, f"Bearer {token}")
    assert isinstance(refusal, InvalidToken)
    assert challenge(refusal).startswith('DPoP error="invalid_token"')


def test_a_bearer_token_is_no_bound_token(protected, issuer):
    token = issuer.token()
    assert isinstance(refused(protected, f"DPoP {token}", dpop=(KEY.proof("GET", URL, token),)), InvalidToken)


def test_a_proof_is_never_ignored(protected, issuer):
    """RFC 9449, 7.1."""
    token = issuer.token()
    assert isinstance(
        refused(protected, f"Bearer {token}", dpop=(KEY.proof("GET", URL, token),)), InvalidRequest
    )


def test_a_nonce_is_asked_for_and_replaced_before_it_ends(make):
    """DPOP-06, DPOP-11, DPOP-12, DPOP-13."""
    nonces = Nonces(b"k" * 32)
    protected, issuer = make(dpop=Dpop(nonces=nonces))
    token = issuer.token(cnf=KEY.confirmation, exp=int(time.time()) + 3600)
    start = (time.time() // 120) * 120 + 120
    with time_machine.travel(start, tick=False):
        refusal = refused(protected, f"DPoP {token}", dpop=(KEY.proof("GET", URL, token),))
        assert isinstance(refusal, NonceNeeded)
        assert challenge(refusal).startswith('DPoP error="use_dpop_nonce"')
        nonce = dict(refusal.headers)["DPoP-Nonce"]

        def sent():
            return protected.check(
                request(f"DPoP {token}", dpop=(KEY.proof("GET", URL, token, nonce=nonce),))
            ).headers

        assert sent() == ()
        for wrong in ("x", "é", 7, [nonce]):
            proof = KEY.proof("GET", URL, token, nonce=wrong)
            assert isinstance(refused(protected, f"DPoP {token}", dpop=(proof,)), NonceNeeded)
        # A client without a token learns it too, and need not come a third time.
        assert dict(refused(protected).headers)["DPoP-Nonce"] == nonce
    with time_machine.travel(start + 121, tick=False):
        given = dict(sent())
        assert given == {"DPoP-Nonce": nonces.current(), "Cache-Control": "no-store"}
        assert given["DPoP-Nonce"] != nonce
    with time_machine.travel(start + 241, tick=False):
        assert isinstance(
            refused(protected, f"DPoP {token}", dpop=(KEY.proof("GET", URL, token, nonce=nonce),)),
            NonceNeeded,
        )


def test_without_nonces_the_header_never_appears(protected, issuer):
    """DPOP-14."""
    assert "DPoP-Nonce" not in dict(refused(protected).headers)
    assert let_in(protected, issuer.token()).headers == ()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Dpop(algorithms=("HS256",)),
        lambda: Dpop(algorithms=()),
        lambda: Dpop(tolerance=301),
        lambda: Nonces(b"short"),
        lambda: Nonces(b"k" * 32, seconds=59),
    ],
)
def test_a_wrong_setting_is_said(wrong):
    with pytest.raises(ValueError, match="must"):
        wrong()
