"""Which access tokens are good (RFC 9068, 4), and a corpus of those that are not."""

from __future__ import annotations

import time

import pytest
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey
from steps import ISSUER, RESOURCE, let_in, refused, request

from authserver.testing import forgeries
from authserver_resource import InvalidRequest, InvalidToken, Issuer, ProtectedResource, Refusal, needs
from authserver_resource.testing import LocalIssuer, signed


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256", "PS256"])
@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "AT+JWT"])
def test_a_good_token_is_let_in(make, algorithm, typ):
    """P-08, RFC 9068, 4."""
    protected, issuer = make(algorithm=algorithm)
    for _ in range(2):  # read, and remembered
        access = let_in(protected, issuer.token(scope="files.write", header={"typ": typ}, acr="gold"))
        assert (access.issuer, access.subject, access.client_id) == (ISSUER, "ann", "example-client")
        assert access.held == {"files.write"}
        assert access.scopes == {"files.write", "files.read"}
        assert "files.read" in access
        assert access.claims["acr"] == "gold"
        assert access.scheme == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_has_no_case(protected, issuer, scheme):
    """P-01, T086."""
    assert protected.check(request(f"{scheme}  {issuer.token()} ")).subject == "ann"


# Those of other kinds of JWT, all of which the same issuer may sign.
OTHER_TYPES = (
    "JWT",
    "application/jwt",
    "dpop+jwt",
    "client-authentication+jwt",
    "authorization-grant+jwt",
    None,
)


def hostile(issuer: LocalIssuer) -> dict[str, str]:
    """Tokens that must not be good, by what is wrong with them: the corpus of all JWTs, and what access tokens add."""
    now, other = int(time.time()), ECKey.generate_key("P-256")
    header = {"alg": "ES256", "typ": "at+jwt", "kid": issuer.kid}
    return {
        **forgeries.jwts(
            header,
            issuer.claims(scope="files.read"),
            issuer.key,
            required=("iss", "aud", "sub", "client_id", "jti"),
            times=("exp", "iat"),
            types=OTHER_TYPES,
        ),
        "typ missing": issuer.token(header={"typ": None}),
        "kid of a key in the header": signed(
            {**header, "jwk": other.as_dict(private=False), "kid": other.thumbprint()}, issuer.claims(), other
        ),
        "an ID token": signed(
            {**header, "typ": "JWT"},
            {"iss": ISSUER, "aud": "example-client", "sub": "ann", "exp": now + 60, "iat": now, "nonce": "n"},
            issuer.key,
        ),
        "expired": issuer.token(exp=now - 31),
        "not yet": issuer.token(nbf=now + 60),
        "nbf a text": issuer.token(nbf="now"),
        "from the future": issuer.token(iat=now + 60),
        "other issuer": issuer.token(iss="https://evil.example"),
        "issuer with a slash": issuer.token(iss=ISSUER + "/"),
        "other audience": issuer.token(aud="https://other.example/"),
        "audience of a prefix": issuer.token(aud="https://api.example/"),
        "audience of a longer path": issuer.token(aud=RESOURCE + "/files"),
        "scope a list": issuer.token(scope=["files.read"]),
        "cnf text": issuer.token(cnf="x"),
        "cnf empty": issuer.token(cnf={}),
        "cnf of another kind": issuer.token(cnf={"jwk": {}}),
        "other characters": "a=b",
        "control characters": "a\x00b",
    }


def test_hostile_tokens_are_refused_and_nothing_of_them_is_said(protected, issuer):
    """P-05, P-08, T053, T054, T055, T056, T057, T060, T061, T079: never let in, and never a fault."""
    let_in(protected, issuer.token())
    for name, token in hostile(issuer).items():
        for _ in range(2):  # nothing bad is remembered as good
            refusal = refused(protected, f"Bearer {token}")
            # Two tokens with a comma or a space between them are a malformed request.
            wanted = InvalidRequest if {" ", ","} & set(token) or not token else InvalidToken
            assert isinstance(refusal, wanted), name
        assert token not in str(refusal.headers) + refusal.body.decode(), name
    assert not any("jku" in url or "x5u" in url for url in issuer.requests)
    # A good one is still good.
    let_in(protected, issuer.token())


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_.-]{0,200}", fullmatch=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_is_sent_gets_a_refusal(protected, issuer, text):
    """P-05, T086: never an exception of another kind."""
    for header in (f"Bearer {text}", f"DPoP {text}", text):
        with pytest.raises(Refusal):
            protected.check(request(header, dpop=(text,)))


def test_a_key_signs_with_its_own_algorithm_only(make):
    """T054: an RSA key that is published for RS256 verifies no PS256."""
    protected, issuer = make(algorithm="RS256")
    let_in(protected, issuer.token())
    assert isinstance(refused(protected, f"Bearer {issuer.token(header={'alg': 'PS256'})}"), InvalidToken)


def test_an_algorithm_that_is_not_listed_is_refused_without_asking_for_keys(make):
    protected, issuer = make(algorithm="RS256", issuer={"algorithms": ("ES256",)})
    assert isinstance(refused(protected, f"Bearer {issuer.token()}"), InvalidToken)
    assert issuer.requests == []


def test_a_symmetric_key_in_the_key_set_is_no_key(protected, issuer):
    """T058."""
    secret = OctKey.import_key("a secret that everybody knows ....")
    issuer.keys.append({**secret.as_dict(), "kid": "shared", "alg": "HS256"})
    token = signed({"alg": "HS256", "typ": "at+jwt", "kid": "shared"}, issuer.claims(), secret)
    assert isinstance(refused(protected, f"Bearer {token}"), InvalidToken)


def test_a_token_without_kid_is_good_while_there_is_one_key(make):
    protected, issuer = make()
    token = issuer.token(header={"kid": None})
    let_in(protected, token)
    protected, issuer = make()
    issuer.rotate()
    assert isinstance(refused(protected, f"Bearer {issuer.token(header={'kid': None})}"), InvalidToken)


def test_a_remembered_token_ends_with_its_time(protected, issuer):
    token = issuer.token(exp=int(time.time()) + 100)
    let_in(protected, token)
    with time_machine.travel(time.time() + 131, tick=False):
        assert isinstance(refused(protected, f"Bearer {token}"), InvalidToken)


def test_every_issuer_has_keys_of_its_own():
    """T061: the key of one issuer verifies no token of another."""
    protected = ProtectedResource("https://api.example/", ["https://a.example", "https://b.example"])
    a, b = (LocalIssuer(f"https://{name}.example", "https://api.example/") for name in "ab")
    protected.use(lambda method, url, *rest: (a if "//a." in url else b).fetch(method, url, *rest))
    assert let_in(protected, a.token()).issuer == a.issuer
    assert let_in(protected, b.token()).issuer == b.issuer
    assert isinstance(refused(protected, f"Bearer {a.token(iss=b.issuer)}"), InvalidToken)


@pytest.mark.parametrize(
    "audience", ["https://api.example", "https://api.example/", ["x", "https://api.example"]]
)
def test_a_host_with_and_without_a_slash_is_one_resource(audience):
    protected = ProtectedResource("https://api.example", "https://as.example")
    issuer = LocalIssuer.of(protected)
    assert let_in(protected, issuer.token(aud=audience)).subject == "ann"


def test_broad_scopes_imply_narrow_ones(protected, issuer):
    """P-12: over several steps, and in no circle."""
    access = let_in(protected, issuer.token(scope="admin"), needs("files.read", "files.write"))
    assert access.held == {"admin"}
    assert access.scopes == {"admin", "files.write", "files.read"}


def test_the_token_is_not_in_the_access(protected, issuer):
    """P-08: what has no token can pass none on."""
    token = issuer.token()
    access = let_in(protected, token)
    with pytest.raises(TypeError):
        access.claims["sub"] = "eve"  # it would be another's next
    assert token not in repr(access)
    assert token not in str(access.claims)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"identifier": "http://api.example/"}, "must be https"),
        ({"identifier": "http://localhost:1/"}, "development=True"),
        ({"identifier": "https://api.example/?a=b"}, "no query"),
        ({"identifier": "https://api.example/#a"}, "fragment"),
        ({"identifier": "https://ann@api.example/"}, "user name"),
        ({"identifier": "api"}, "absolute URL"),
        ({"issuers": []}, "one at least"),
        ({"issuers": "http://as.example"}, "must be https"),
        ({"issuers": ["https://as.example", "https://as.example"]}, "each once"),
        ({"leeway": 301}, "leeway"),
        ({"scopes": "files.read"}, "lists"),
        ({"scopes": ['a"b']}, "one word"),
        ({"implied_scopes": {"a": "bc"}}, "list of scopes"),
        ({"documentation": "javascript:alert(1)"}, "absolute URL"),
    ],
)
def test_a_wrong_setting_is_said(settings, said):
    values = {"identifier": "https://api.example/", "issuers": "https://as.example", **settings}
    with pytest.raises(ValueError, match=said):
        ProtectedResource(**values)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"algorithms": ("none",)}, "algorithms"),
        ({"algorithms": ("HS256",)}, "algorithms"),
        ({"algorithms": ()}, "algorithms"),
        ({"client_id": "a"}, "both or neither"),
        ({"introspect_jwts": True}, "client_id"),
        ({"active_seconds": 3601}, "active_seconds"),
        ({"inactive_seconds": 31}, "inactive_seconds"),
        ({"cache_size": 0}, "cache_size"),
    ],
)
def test_a_wrong_setting_of_an_issuer_is_said(settings, said):
    with pytest.raises(ValueError, match=said):
        Issuer("https://as.example", **settings)


def test_a_secret_is_not_printed():
    assert "hush" not in repr(Issuer("https://as.example", client_id="a", client_secret="hush"))
