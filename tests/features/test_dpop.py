"""Tokens bound to a key of the client: DPoP at the token endpoint and for pushed requests (RFC 9449)."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from webtest import TestResponse

from authserver.api import Binding, hookimpl
from authserver.engine.records import Client
from authserver.settings import SettingsError
from authserver.storage.tables import kept
from authserver.testing import forgeries
from authserver.testing.server import (
    CHALLENGE,
    ISSUER,
    REDIRECT_URI,
    SETTINGS,
    VERIFIER,
    Server,
    basic,
    query_of,
    with_plugin,
)
from authserver.testing.stories import assert_code, assert_json_error, sign_in_at, signed_in, stored
from authserver.testing.threads import at_once
from tests.dpop_proofs import KEY, OTHER, encoded, proof

ENDPOINT = f"{ISSUER}/oauth/token"
PUSH = f"{ISSUER}/oauth/par"
KEYS = {
    "ES256": KEY,
    "EdDSA": OKPKey.generate_key("Ed25519"),
    "Ed25519": OKPKey.generate_key("Ed25519"),
    "PS256": RSAKey.generate_key(2048),
    "RS256": RSAKey.generate_key(2048),
}
SERVICE = {"grant_type": "client_credentials", "scope": "profile"}
OPAQUE: Any = {"authserver.access_token_format": "opaque"}


def post(
    server: Server, client: Client, secret: str | None, dpop: str | None, browser: Any = None, **form: Any
) -> TestResponse:
    """A token request with this DPoP header."""
    headers = {} if dpop is None else {"DPoP": dpop}
    if secret:
        headers["Authorization"] = basic(client.client_id, secret)
    else:
        form["client_id"] = client.client_id
    return (browser or server.http).post(
        server.path("/oauth/token"),
        urlencode(form),
        headers=headers,
        content_type="application/x-www-form-urlencoded",
        expect_errors=True,
    )


def redeem(server: Server, client: Client, secret: str | None, code: str, dpop: str | None) -> TestResponse:
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
    return post(server, client, secret, dpop, **form)


def refresh(server: Server, client: Client, secret: str | None, token: str, dpop: str | None) -> TestResponse:
    return post(server, client, secret, dpop, grant_type="refresh_token", refresh_token=token)


Make = Callable[..., Server]


@pytest.fixture
def make(sqlite_url: str) -> Iterator[Make]:
    """A server with the plugin, set by texts, and with other settings."""
    servers: list[Server] = []

    def make(*, database_url: str = sqlite_url, other: Any = None, **fields: str) -> Server:
        servers.append(Server(database_url, {**with_plugin("dpop", fields), **(other or {})}))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(make: Make) -> Server:
    server = make()
    server.add_user("ann")
    return server


@pytest.fixture
def service(server: Server) -> tuple[Client, str]:
    client, secret = server.add_client(grant_types=("client_credentials",))
    assert secret
    return client, secret


def public_client(server: Server) -> Client:
    return server.add_client(token_endpoint_auth_method="none")[0]


# ---- what a proof gives -----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_token_is_bound_to_the_proven_key(
    server: Server, service: tuple[Client, str], algorithm: str
) -> None:
    """DPOP-01, DPOP-02, token_binding: `cnf.jkt` in the JWT and `token_type` DPoP."""
    key = KEYS[algorithm]
    answer = post(server, *service, proof(key, algorithm), **SERVICE)
    assert (answer.status_int, answer.json["token_type"]) == (200, "DPoP")
    assert server.claims(answer.json["access_token"])["cnf"] == {"jkt": key.thumbprint()}
    (event,) = server.events("token.issued")
    assert json.loads(event["details"])["cnf"] == {"jkt": key.thumbprint()}


def test_an_opaque_token_is_bound_in_its_record(make: Make) -> None:
    """DPOP-02: whoever looks the token up finds the key."""
    server = make(other=OPAQUE)
    client, secret = server.add_client(grant_types=("client_credentials",))
    answer = post(server, client, secret, proof(), **SERVICE)
    assert answer.json["token_type"] == "DPoP"
    (token,) = [row for row in server.rows("tokens") if row["kind"] == "access"]
    assert json.loads(token["details"]) == {"cnf": {"jkt": KEY.thumbprint()}}


def test_introspection_names_the_key(make: Make) -> None:
    """DPOP-02 (RFC 9449, 6.2): a resource server that asks learns of the key, whatever the format."""
    for other in ({}, OPAQUE):
        server = make(other=other)
        client, secret = server.add_client(grant_types=("client_credentials",))
        for dpop, kind, cnf in ((proof(), "DPoP", {"jkt": KEY.thumbprint()}), (None, "Bearer", None)):
            token = post(server, client, secret, dpop, **SERVICE).json["access_token"]
            answer = server.http.post(
                server.path("/oauth/introspect"),
                {"token": token},
                headers={"Authorization": basic(client.client_id, secret or "")},
            )
            assert (answer.json["token_type"], answer.json.get("cnf")) == (kind, cnf)


@pytest.mark.parametrize("other", [{}, OPAQUE], ids=["jwt", "opaque"])
def test_without_the_plugin_nobody_takes_a_bound_token_for_a_bearer_token(
    make: Make, sqlite_url: str, other: Any
) -> None:
    """DPOP-02: the key is named, and the type left out (RFC 7662, 2.2), when the plugin was taken out meanwhile."""
    bound = make(other=other)
    client, secret = bound.add_client(grant_types=("client_credentials",))
    token = post(bound, client, secret, proof(), **SERVICE).json["access_token"]
    server = Server(sqlite_url, dict(other))
    answer = server.introspect(client, secret, token).json
    server.close()
    assert answer["active"] is True
    assert "token_type" not in answer
    assert answer["cnf"] == {"jkt": KEY.thumbprint()}


def test_a_refusal_challenges_in_the_scheme_of_the_token_type(server: Server) -> None:
    """J-03: `DPoP` is a scheme where tokens are of that type."""
    for authorization in ("DPoP x", "dpop x"):
        answer = server.http.post(
            server.path("/oauth/token"), SERVICE, headers={"Authorization": authorization}, expect_errors=True
        )
        assert_json_error(answer, "invalid_client", status=401)
        assert answer.headers["WWW-Authenticate"] == f'DPoP realm="{server.issuer}"'


def test_without_a_proof_a_token_is_a_bearer_token(server: Server, service: tuple[Client, str]) -> None:
    answer = post(server, *service, None, **SERVICE)
    assert answer.json["token_type"] == "Bearer"
    assert "cnf" not in server.claims(answer.json["access_token"])
    assert server.rows("tokens") == []


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke", "/oauth/register"])
def test_programs_in_browsers_may_send_proofs(server: Server, path: str) -> None:
    """Q-03 (RFC 9449, 8.2): the preflight allows the header, and answers let a nonce be read."""
    public_client(server)
    origin = {"Origin": "https://client.example", "Access-Control-Request-Method": "POST"}
    answer = server.http.options(path, headers={**origin, "Access-Control-Request-Headers": "dpop"})
    allowed = answer.headers["Access-Control-Allow-Headers"]
    assert allowed == "Authorization, Content-Type, DPoP, MCP-Protocol-Version"
    assert {"DPoP-Nonce", "WWW-Authenticate"} <= set(
        answer.headers["Access-Control-Expose-Headers"].split(", ")
    )


def test_without_the_plugin_a_proof_is_nothing(sqlite_url: str) -> None:
    """And the metadata does not promise anything."""
    server = Server(sqlite_url)
    client, secret = server.add_client(grant_types=("client_credentials",))
    assert post(server, client, secret, proof(), **SERVICE).json["token_type"] == "Bearer"
    assert "dpop" not in server.http.get("/.well-known/oauth-authorization-server").text
    server.close()


def test_the_metadata_lists_the_algorithms(server: Server, make: Make) -> None:
    """DPOP-09, server_metadata: asymmetric ones only."""
    name = "dpop_signing_alg_values_supported"
    listed = server.http.get("/.well-known/oauth-authorization-server").json[name]
    assert listed == ["ES256", "EdDSA", "Ed25519", "PS256", "RS256"]
    fewer = make(algorithms="ES384 EdDSA")
    assert fewer.http.get("/.well-known/oauth-authorization-server").json[name] == ["ES384", "EdDSA"]
    client, secret = fewer.add_client(grant_types=("client_credentials",))
    assert_json_error(post(fewer, client, secret, proof(), **SERVICE), "invalid_dpop_proof")
    key = ECKey.generate_key("P-384")
    assert post(fewer, client, secret, proof(key, "ES384"), **SERVICE).status_int == 200


@pytest.mark.parametrize(
    ("field", "text", "problem"),
    [
        ("algorithms", "ES256 none", "algorithms: must be some of ES256"),
        ("algorithms", "HS256", "algorithms: must be some of ES256"),
        ("algorithms", "", "algorithms: must be some of ES256"),
        ("tolerance", "59", "tolerance: must be 60 to 300 seconds"),
        ("tolerance", "301", "tolerance: must be 60 to 300 seconds"),
    ],
)
def test_a_setting_that_would_weaken_it_stops_the_start(
    make: Make, field: str, text: str, problem: str
) -> None:
    """DPOP-09, DPOP-10, T054."""
    with pytest.raises(SettingsError, match=problem):
        make(**{field: text})


# ---- what a proof must be ---------------------------------------------------------------------------

PUBLIC = KEY.as_dict(private=False)
RSA_PUBLIC = KEYS["RS256"].as_dict(private=False)
WEAK = {"kty": "RSA", "e": "AQAB", "n": encoded((2**1023 + 1).to_bytes(128)).decode()}
HUGE = {"kty": "RSA", "e": "AQAB", "n": encoded((2**8199 + 1).to_bytes(1025)).decode()}


def now(seconds: int) -> int:
    return int(time.time()) + seconds


def by_secret(**header: Any) -> str:
    """Signed with a MAC under a key that the header shows."""
    key = OctKey.import_key(b"k" * 32)
    signed = encoded({"typ": "dpop+jwt", "alg": "HS256", "jwk": key.as_dict(), **header})
    signed += b"." + encoded({"htm": "POST", "htu": ENDPOINT, "iat": now(0), "jti": "x"})
    return (signed + b"." + encoded(JWSRegistry.algorithms["HS256"].sign(signed, key))).decode()


def parts(change: Callable[[list[str]], list[str]]) -> str:
    return ".".join(change(proof().split(".")))


def noncanonical(text: str) -> str:
    """Another spelling of the same bytes, in the bits that padding ignores."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(text) % 4
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


BAD: dict[str, Callable[[], str]] = {
    # One header
    "empty": lambda: "",
    "two headers": lambda: f"{proof()}, {proof()}",
    "two headers joined": lambda: f"{proof()},{proof()}",
    # Header
    "no alg": lambda: proof(header={"alg": None}),
    "mac": by_secret,
    "mac called ES256": lambda: by_secret(alg="ES256"),
    "alg not allowed": lambda: proof(ECKey.generate_key("P-384"), "ES384"),
    "alg of another key": lambda: proof(header={"alg": "RS256"}),
    "alg of another rsa padding": lambda: proof(KEYS["RS256"], "RS256", header={"alg": "PS256"}),
    # Key
    "no jwk": lambda: proof(header={"jwk": None}),
    "jwk a text": lambda: proof(header={"jwk": "x"}),
    "jwk a list": lambda: proof(header={"jwk": [PUBLIC]}),
    "jwk empty": lambda: proof(header={"jwk": {}}),
    "jwk private": lambda: proof(header={"jwk": KEY.as_dict(private=True)}),
    "jwk half private": lambda: proof(header={"jwk": {**PUBLIC, "d": ""}}),
    "jwk symmetric": lambda: proof(header={"jwk": {**PUBLIC, "k": "AAAA"}}),
    "jwk with numbers": lambda: proof(header={"jwk": {**PUBLIC, "x": 1}}),
    "jwk incomplete": lambda: proof(header={"jwk": {"kty": "EC", "crv": "P-256", "x": PUBLIC["x"]}}),
    "jwk off the curve": lambda: proof(header={"jwk": {**PUBLIC, "y": PUBLIC["x"]}}),
    "jwk of another curve": lambda: proof(header={"jwk": {**PUBLIC, "crv": "secp256k1"}}),
    "jwk with a leading zero": lambda: proof(
        header={"jwk": {**PUBLIC, "x": encoded(b"\0" + base64.urlsafe_b64decode(PUBLIC["x"] + "=")).decode()}}
    ),
    "jwk spelt otherwise": lambda: proof(header={"jwk": {**PUBLIC, "x": noncanonical(PUBLIC["x"])}}),
    "jwk not ascii": lambda: proof(header={"jwk": {**PUBLIC, "x": "é"}}),
    "jwk of another algorithm": lambda: proof(header={"jwk": RSA_PUBLIC}),
    "jwk for agreement": lambda: proof(
        KEYS["EdDSA"], "EdDSA", header={"jwk": {**KEYS["EdDSA"].as_dict(private=False), "crv": "X25519"}}
    ),
    "rsa of 1024 bits": lambda: proof(KEYS["RS256"], "RS256", header={"jwk": WEAK}),
    "rsa of 8200 bits": lambda: proof(KEYS["RS256"], "RS256", header={"jwk": HUGE}),
    "rsa with exponent 1": lambda: proof(KEYS["RS256"], "RS256", header={"jwk": {**RSA_PUBLIC, "e": "AQ"}}),
    "rsa with exponent 0": lambda: proof(KEYS["RS256"], "RS256", header={"jwk": {**RSA_PUBLIC, "e": "AA"}}),
    # Claims
    "htm GET": lambda: proof(htm="GET"),
    "htm in lower case": lambda: proof(htm="post"),
    "htu of the issuer": lambda: proof(htu=ISSUER),
    "htu of another path": lambda: proof(htu=f"{ISSUER}/oauth/revoke"),
    "htu with a slash more": lambda: proof(htu=f"{ENDPOINT}/"),
    "htu that ends in a dot segment": lambda: proof(htu=f"{ENDPOINT}/x/.."),
    "htu with an encoded slash": lambda: proof(htu=ENDPOINT.replace("/oauth/", "/oauth%2F")),
    "htu encoded twice": lambda: proof(htu=ENDPOINT.replace("/oauth", "/%256Fauth")),
    "htu with an empty segment": lambda: proof(htu=ENDPOINT.replace("/oauth/", "/oauth//")),
    "htu in capitals": lambda: proof(htu=ENDPOINT.replace("/oauth", "/OAUTH")),
    "htu of another host": lambda: proof(htu="https://evil.example/oauth/token"),
    "htu of another scheme": lambda: proof(htu=ENDPOINT.replace("https:", "http:")),
    "htu of another port": lambda: proof(htu=ENDPOINT.replace("/oauth", ":8443/oauth")),
    "htu with a user name": lambda: proof(htu=ENDPOINT.replace("//", "//ann@")),
    "htu relative": lambda: proof(htu="/oauth/token"),
    "iat a fraction": lambda: proof(iat=now(0) + 0.5),
    "iat negative": lambda: proof(iat=-1),
    "iat giant": lambda: proof(iat=2**63 - 1),
    "iat too old": lambda: proof(iat=now(-63)),
    "iat too far ahead": lambda: proof(iat=now(63)),
    "jti too long": lambda: proof(jti="x" * 513),
    "jti with NUL": lambda: proof(jti="a\0b"),
}


PUSHING: dict[str, Any] = {"authserver.plugins": f"{SETTINGS['authserver.plugins']}\npushed_requests\ndpop"}


@pytest.fixture(scope="module")
def shared(migrated_sqlite_file: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server and a service for tests that only see refusals: nothing they do leaves anything behind."""
    path = tmp_path_factory.mktemp("dpop") / "authserver.db"
    path.write_bytes(migrated_sqlite_file.read_bytes())
    server = Server(f"sqlite:///{path}", PUSHING)
    client, secret = server.add_client(grant_types=("authorization_code", "client_credentials"))
    yield server, client, secret
    server.close()


def test_what_no_verifier_may_accept_is_no_proof(shared: Any) -> None:
    """DPOP-01, T053, T054, T055, T056, T057, T058, T060: the corpus that `authserver-resource` is tested with."""
    server, client, secret = shared
    before, browser = stored(server), server.browser()
    right = {"htm": "POST", "htu": ENDPOINT, "iat": now(0), "jti": "one"}
    forged = forgeries.jwts(
        {"alg": "ES256", "typ": "dpop+jwt", "jwk": PUBLIC},
        right,
        KEY,
        required=("htm", "htu", "jti"),
        times=("iat",),
        types=("JWT", "at+jwt", "client-authentication+jwt", None),
    )
    for name, text in forged.items():
        browser.extra_environ["HTTP_DPOP"] = text
        answer = post(server, client, secret, None, browser, **SERVICE)
        assert (answer.status_int, answer.json["error"]) == (400, "invalid_dpop_proof"), name
    assert stored(server) == before
    browser.extra_environ["HTTP_DPOP"] = forgeries.signed(
        {"alg": "ES256", "typ": "dpop+jwt", "jwk": PUBLIC}, right, KEY
    )
    assert post(server, client, secret, None, browser, **SERVICE).status_int == 200


@pytest.mark.parametrize("name", BAD)
def test_a_bad_proof_is_refused(shared: Any, name: str) -> None:
    """DPOP-01, T053, T054, T055, T056, T057, T060, T087: 400 json, nothing issued or stored, one event."""
    server, client, secret = shared
    text = BAD[name]()
    before, refused = stored(server), len(server.events("token.refused"))
    answer = post(server, client, secret, text, **SERVICE)
    assert_json_error(answer, "invalid_dpop_proof")
    assert stored(server) == before
    assert len(server.events("token.refused")) == refused + 1
    assert len(text) < 100 or text[-60:] not in answer.text + str(server.events())


@pytest.mark.parametrize(
    "changes",
    [
        {"htu": f"{ENDPOINT}?a=b"},
        {"htu": f"{ENDPOINT}#top"},
        {"htu": f"{ENDPOINT}?a=b#c"},
        {"htu": ENDPOINT.replace("https://", "HTTPS://")},
        {"htu": ENDPOINT.replace("/oauth", ":443/oauth")},
        {"htu": ENDPOINT.replace("/oauth", "/%6F%61uth")},
        {"htu": ENDPOINT.replace("/oauth/", "/../x/%2e%2E/oauth/./")},
        {"iat": -58},
        {"iat": 58},
        {"header": {"kid": "1"}},
        {"header": {"jwk": {**PUBLIC, "kid": "1", "use": "sig", "alg": "ES256"}}},
        {"nonce": "of another server", "ath": "unasked", "exp": 1},
    ],
)
def test_what_does_not_matter_is_let_pass(
    server: Server, service: tuple[Client, str], changes: dict[str, Any]
) -> None:
    """DPOP-01, DPOP-10, DPOP-15: query, fragment and spelling of `htu`, a clock a little off, members nobody needs."""
    if "iat" in changes:
        changes = {"iat": now(changes["iat"])}
    answer = post(server, *service, proof(**changes), **SERVICE)
    assert answer.status_int == 200, answer.text
    assert server.claims(answer.json["access_token"])["cnf"] == {"jkt": KEY.thumbprint()}


def test_the_tolerance_is_a_setting(make: Make) -> None:
    """DPOP-10: up to five minutes either way."""
    server = make(tolerance="300")
    client, secret = server.add_client(grant_types=("client_credentials",))
    for seconds in (-295, 295):
        assert post(server, client, secret, proof(iat=now(seconds)), **SERVICE).status_int == 200
    for seconds in (-305, 305):
        answer = post(server, client, secret, proof(iat=now(seconds)), **SERVICE)
        assert_json_error(answer, "invalid_dpop_proof")


def test_an_issuer_with_a_path_is_part_of_the_url(make: Make) -> None:
    """DPOP-01: `htu` is compared with the address made from the issuer, never from the request."""
    server = make(other={"authserver.issuer": f"{ISSUER}/tenant"})
    client, secret = server.add_client(grant_types=("client_credentials",))
    assert_json_error(post(server, client, secret, proof(), **SERVICE), "invalid_dpop_proof")
    answer = post(server, client, secret, proof(htu=f"{ISSUER}/tenant/oauth/token"), **SERVICE)
    assert answer.json["token_type"] == "DPoP"


def is_json_value() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    return st.recursive(
        leaves | st.sampled_from([PUBLIC, RSA_PUBLIC, "ES256", "RS256", "dpop+jwt", "POST", ENDPOINT]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )


def members(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), is_json_value(), min_size=1, max_size=3)


ONE_SERVER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@ONE_SERVER
@example(text="\x00")
@example(text="\xff" * 100)
@given(text=st.text(st.characters(min_codepoint=1, max_codepoint=255)) | st.from_regex(r"\A[\w.-]{1,80}\Z"))
def test_garbage_is_refused_and_never_a_500(shared: Any, text: str) -> None:
    """DPOP-01, T087, F-12: whatever stands in the header."""
    server, client, secret = shared
    before = stored(server)
    browser = server.browser()
    browser.extra_environ["HTTP_DPOP"] = text
    assert_json_error(post(server, client, secret, None, browser, **SERVICE), "invalid_dpop_proof")
    assert stored(server) == before


@ONE_SERVER
@given(
    jwk=st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "use"]), is_json_value()),
    header=members("typ", "alg", "crit", "kid"),
    claims=members("htm", "htu", "iat", "jti"),
    where=st.sampled_from(["jwk", "header", "claims"]),
)
def test_a_proof_with_one_strange_part_is_refused_or_good(
    shared: Any, jwk: Any, header: Any, claims: Any, where: str
) -> None:
    """DPOP-01, T053, T058: never a 500, and a token only for the key that signed."""
    server, client, secret = shared
    changes = {"jwk": {"header": {"jwk": {**PUBLIC, **jwk}}}, "header": {"header": header}, "claims": claims}
    answer = post(server, client, secret, proof(**changes[where]), **SERVICE)
    if answer.status_int == 200:
        assert server.claims(answer.json["access_token"])["cnf"] == {"jkt": KEY.thumbprint()}
    else:
        assert_json_error(answer, "invalid_dpop_proof")


# ---- a proof is used once ---------------------------------------------------------------------------


def test_a_proof_is_used_once(server: Server, service: tuple[Client, str]) -> None:
    """DPOP-01, T087: neither again nor by another client; the same `jti` under another key is another proof."""
    once = proof(jti="one")
    assert post(server, *service, once, **SERVICE).status_int == 200
    other, secret = server.add_client(grant_types=("client_credentials",))
    before = stored(server)
    assert_json_error(post(server, *service, once, **SERVICE), "invalid_dpop_proof")
    assert_json_error(post(server, *service, proof(jti="one"), **SERVICE), "invalid_dpop_proof")
    assert_json_error(post(server, other, secret, once, **SERVICE), "invalid_dpop_proof")
    assert stored(server) == before
    assert post(server, *service, proof(OTHER, jti="one"), **SERVICE).status_int == 200


def test_a_proof_is_remembered_for_as_long_as_it_is_good(make: Make) -> None:
    """DPOP-10, T052: one dated ahead too, until its last moment and a minute more."""
    server = make(tolerance="300")
    client, secret = server.add_client(grant_types=("client_credentials",))
    issued_at = now(290)
    assert post(server, client, secret, proof(iat=issued_at), **SERVICE).status_int == 200
    with server.application.storage.engine.connect() as connection:
        (mark,) = connection.execute(sa.select(kept.c.kind, kept.c.expires_at))
    assert mark.kind == "used"
    assert mark.expires_at.timestamp() == issued_at + 300 + 60


def test_the_proof_of_a_refused_request_is_not_used_up(server: Server, service: tuple[Client, str]) -> None:
    """DPOP-01: a refusal stores nothing, whether it comes before or after the proof was looked at."""
    text = proof()
    assert_json_error(
        post(server, *service, text, grant_type="client_credentials", scope="admin"), "invalid_scope"
    )
    assert post(server, *service, text, **SERVICE).status_int == 200


def test_of_many_who_send_one_proof_at_once_one_gets_a_token(make: Make, database_url: str) -> None:
    """DPOP-01, T087: the database decides, for all processes that share it."""
    server = make(database_url=database_url)
    client, secret = server.add_client(grant_types=("client_credentials",))
    text = proof()
    answers = at_once(8, lambda number: post(server, client, secret, text, server.browser(), **SERVICE))
    assert Counter(answer.status_int for answer in answers) == {200: 1, 400: 7}
    for answer in answers:
        if answer.status_int == 400:
            assert_json_error(answer, "invalid_dpop_proof")
    assert len(server.events("token.issued")) == 1


MEANWHILE: list[Callable[[], Any]] = []


@dataclass(frozen=True)
class Interrupts:
    """Lets something else happen between the checks of a token request and its claim."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def token_binding(self) -> None:
        while MEANWHILE:
            MEANWHILE.pop()()


def test_a_proof_is_asked_for_once_although_the_token_is_looked_at_twice(
    make: Make, database_url: str
) -> None:
    """I-09, DPOP-01: who loses a race for a refresh token gets what a retry gets, by the proof of its one request."""
    server = make(database_url=database_url, other=with_another(Interrupts))
    server.add_user("ann")
    client = public_client(server)
    first = redeem(server, client, None, server.code(client), proof()).json
    quicker: list[TestResponse] = []
    browser = server.browser()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    MEANWHILE.append(lambda: quicker.append(post(server, client, None, proof(), browser, **form)))
    answer = post(server, client, None, proof(), **form)
    assert [answer.status_int, *(other.status_int for other in quicker)] == [200, 200]
    assert answer.json["refresh_token"] == quicker[0].json["refresh_token"]
    assert answer.json["token_type"] == "DPoP"


# ---- refresh tokens ---------------------------------------------------------------------------------


def test_a_refresh_token_of_a_public_client_is_bound(server: Server) -> None:
    """DPOP-03, DPOP-17: for another key and for none the family is as it was; the right key goes on."""
    client = public_client(server)
    first = redeem(server, client, None, server.code(client), proof()).json
    assert first["token_type"] == "DPoP"
    before = stored(server)
    for dpop, error in ((proof(OTHER), "invalid_grant"), (None, "invalid_dpop_proof")):
        answer = refresh(server, client, None, first["refresh_token"], dpop)
        assert_json_error(answer, error)
        assert stored(server) == before
    assert server.events("grant.revoked") == []
    second = refresh(server, client, None, first["refresh_token"], proof()).json
    assert second["token_type"] == "DPoP"
    assert server.claims(second["access_token"])["cnf"] == {"jkt": KEY.thumbprint()}
    # The successor is bound, too.
    assert_json_error(refresh(server, client, None, second["refresh_token"], proof(OTHER)), "invalid_grant")
    assert refresh(server, client, None, second["refresh_token"], proof()).status_int == 200


def test_a_retry_must_prove_the_key_as_well(server: Server) -> None:
    """DPOP-03, I-08: the same successor again, for the same key only."""
    client = public_client(server)
    first = redeem(server, client, None, server.code(client), proof()).json
    second = refresh(server, client, None, first["refresh_token"], proof()).json
    before = stored(server)
    for dpop in (proof(OTHER), None):
        assert_json_error(refresh(server, client, None, first["refresh_token"], dpop), "invalid_grant")
    assert stored(server) == before
    again = refresh(server, client, None, first["refresh_token"], proof()).json
    assert again["refresh_token"] == second["refresh_token"]


def test_a_refresh_token_that_was_not_bound_becomes_so(server: Server) -> None:
    """DPOP-03: from the first proof on."""
    client = public_client(server)
    first = redeem(server, client, None, server.code(client), None).json
    assert first["token_type"] == "Bearer"
    second = refresh(server, client, None, first["refresh_token"], proof()).json
    assert second["token_type"] == "DPoP"
    assert_json_error(refresh(server, client, None, second["refresh_token"], None), "invalid_dpop_proof")


def test_a_refresh_token_of_a_confidential_client_is_not_bound(server: Server) -> None:
    """DPOP-03 (RFC 9449, 5): its own credential protects it, and its keys may change."""
    client, secret = server.add_client()
    first = redeem(server, client, secret, server.code(client), proof()).json
    second = refresh(server, client, secret, first["refresh_token"], proof(OTHER)).json
    assert server.claims(second["access_token"])["cnf"] == {"jkt": OTHER.thumbprint()}
    third = refresh(server, client, secret, second["refresh_token"], None).json
    assert third["token_type"] == "Bearer"


@pytest.mark.parametrize(("key", "scope"), [(KEY, "profile files.read"), (OTHER, "profile")])
def test_a_step_up_widens_the_grants_of_the_same_key(server: Server, key: ECKey, scope: str) -> None:
    """I-19: the key tells one installation of a public client from another, of which the user may know nothing."""
    client = public_client(server)
    browser = signed_in(server)
    first = redeem(server, client, None, server.code(client, browser), proof()).json
    code = server.code(client, browser, scope="profile files.read")
    assert redeem(server, client, None, code, proof(key)).json["scope"] == "profile files.read"
    assert refresh(server, client, None, first["refresh_token"], proof()).json["scope"] == scope


def test_what_is_bound_stays_so_when_the_plugin_is_gone(server: Server, sqlite_url: str) -> None:
    """DPOP-03, R-14: leaving the plugin out does not turn bound refresh tokens into bearer tokens."""
    client = public_client(server)
    first = redeem(server, client, None, server.code(client), proof()).json
    without = Server(sqlite_url)
    assert_json_error(refresh(without, client, None, first["refresh_token"], proof()), "invalid_grant")
    without.close()
    assert refresh(server, client, None, first["refresh_token"], proof()).status_int == 200


# ---- codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_public", [True, False])
def test_a_code_is_bound_to_the_key_of_the_request(server: Server, is_public: bool) -> None:
    """DPOP-04, code_details: another key or none gets `invalid_grant`, and the code is as it was."""
    client, secret = (public_client(server), None) if is_public else server.add_client()
    code = server.code(client, dpop_jkt=KEY.thumbprint())
    before = stored(server)
    for dpop in (proof(OTHER), None):
        assert_json_error(redeem(server, client, secret, code, dpop), "invalid_grant")
        assert stored(server) == before
    assert redeem(server, client, secret, code, proof()).json["token_type"] == "DPoP"


@pytest.mark.parametrize(
    "thumbprint", ["x", "A" * 42, "A" * 44, "A" * 42 + "B", "A" * 42 + "=", "é" * 43, "A" * 42 + " "]
)
def test_a_malformed_thumbprint_is_told_to_the_client(server: Server, thumbprint: str) -> None:
    """DPOP-04: 303 with `invalid_request`, state and iss."""
    client, _ = server.add_client()
    browser = server.browser()
    server.sign_in(browser)
    before = stored(server)
    answer = browser.get(server.authorization_url(client, dpop_jkt=thumbprint), expect_errors=True)
    assert answer.status_int == 303
    told = query_of(answer)
    assert (told["error"], told["state"], told["iss"]) == ("invalid_request", "xyz", ISSUER)
    assert stored(server) == before


# ---- pushed requests --------------------------------------------------------------------------------


@pytest.fixture
def pushing(make: Make) -> Server:
    """A server that takes pushed requests, too."""
    server = make(other=PUSHING)
    server.add_user("ann")
    return server


def push(
    server: Server, client: Client, secret: str | None, dpop: str | None, **changes: Any
) -> TestResponse:
    """A pushed request that is right, apart from these parameters, with this DPoP header."""
    form = {
        "response_type": "code",
        "redirect_uri": REDIRECT_URI,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "client_id": client.client_id,
        **changes,
    }
    headers = {"DPoP": dpop} if dpop is not None else {}
    if secret:
        headers["Authorization"] = basic(client.client_id, secret)
    answer: TestResponse = server.http.post(
        server.path("/oauth/par"),
        urlencode(form),
        headers=headers,
        content_type="application/x-www-form-urlencoded",
        expect_errors=True,
    )
    return answer


def code_of(server: Server, client: Client, answer: TestResponse) -> str:
    """The code for a pushed request, which somebody agrees to who signs in for it."""
    assert answer.status_int == 201, answer.text
    query = urlencode({"client_id": client.client_id, "request_uri": answer.json["request_uri"]})
    browser = server.browser()
    page = sign_in_at(browser.get(server.path(f"/oauth/authorize?{query}")).follow()).follow()
    return assert_code(server.consent(page), state=None)


@pytest.mark.parametrize("is_public", [True, False])
@pytest.mark.parametrize("named", [{}, {"dpop_jkt": KEY.thumbprint()}], ids=["proof", "proof-and-dpop_jkt"])
def test_a_proof_that_comes_with_a_pushed_request_binds_the_code(
    pushing: Server, is_public: bool, named: dict[str, str]
) -> None:
    """DPOP-04, PAR-10: another key or none gets `invalid_grant`, and the code is as it was."""
    client, secret = (public_client(pushing), None) if is_public else pushing.add_client()
    code = code_of(pushing, client, push(pushing, client, secret, proof(htu=PUSH), **named))
    before = stored(pushing)
    for dpop in (proof(OTHER), None):
        assert_json_error(redeem(pushing, client, secret, code, dpop), "invalid_grant")
        assert stored(pushing) == before
    assert redeem(pushing, client, secret, code, proof()).json["token_type"] == "DPoP"


def test_a_request_that_is_pushed_without_a_proof_binds_nothing(pushing: Server) -> None:
    """DPOP-04: a bearer token; and with `dpop_jkt` alone the code is bound as that of any request."""
    client, secret = pushing.add_client()
    code = code_of(pushing, client, push(pushing, client, secret, None))
    assert redeem(pushing, client, secret, code, None).json["token_type"] == "Bearer"
    client, secret = pushing.add_client()
    code = code_of(pushing, client, push(pushing, client, secret, None, dpop_jkt=KEY.thumbprint()))
    assert_json_error(redeem(pushing, client, secret, code, None), "invalid_grant")
    assert redeem(pushing, client, secret, code, proof()).json["token_type"] == "DPoP"


def test_a_client_that_promised_to_bind_may_push_without_a_proof(pushing: Server) -> None:
    """DPOP-05: the promise is about token requests."""
    client, secret = pushing.add_client(details={"dpop_bound_access_tokens": True})
    code = code_of(pushing, client, push(pushing, client, secret, None))
    assert_json_error(redeem(pushing, client, secret, code, None), "invalid_dpop_proof")
    assert redeem(pushing, client, secret, code, proof()).json["token_type"] == "DPoP"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_proof_of_a_pushed_request_is_refused(
    shared: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T158, DPOP-01, DPOP-04, PAR-10: as at the token endpoint; no reference, nothing stored, one event."""
    monkeypatch.setitem(globals(), "ENDPOINT", PUSH)  # the proofs are for it
    server, client, secret = shared
    before, refused = stored(server), len(server.events("request.refused"))
    answer = push(server, client, secret, BAD[name]())
    assert_json_error(answer, "invalid_dpop_proof")
    assert "request_uri" not in answer.json
    assert stored(server) == before
    assert len(server.events("request.refused")) == refused + 1


@pytest.mark.parametrize(
    ("dpop", "changes", "error"),
    [
        (lambda: proof(htu=PUSH), {"dpop_jkt": OTHER.thumbprint()}, "invalid_dpop_proof"),
        (lambda: proof(htu=PUSH), {"dpop_jkt": "x"}, "invalid_dpop_proof"),
        (lambda: proof(), {}, "invalid_dpop_proof"),
        (lambda: proof(htu=f"{ISSUER}/oauth/authorize"), {}, "invalid_dpop_proof"),
        (lambda: proof(htu=PUSH), {"scope": "admin"}, "invalid_scope"),
        (lambda: proof(htu=PUSH), {"client_id": "another"}, "invalid_request"),
        (lambda: None, {"dpop_jkt": "x"}, "invalid_request"),
    ],
    ids=[
        "key of another dpop_jkt",
        "malformed dpop_jkt",
        "for the token endpoint",
        "for the authorization endpoint",
        "another fault",
        "of another client",
        "malformed dpop_jkt alone",
    ],
)
def test_a_refused_push_binds_and_uses_up_nothing(
    pushing: Server, dpop: Callable[[], str | None], changes: dict[str, str], error: str
) -> None:
    """DPOP-04: both must agree; the proof of a refused request is good for the next one."""
    client, secret = pushing.add_client()
    text, before = dpop(), stored(pushing)
    assert_json_error(push(pushing, client, secret, text, **changes), error)
    assert stored(pushing) == before
    if error == "invalid_scope":
        assert push(pushing, client, secret, text).status_int == 201


def test_a_proof_is_used_for_one_push(pushing: Server) -> None:
    """DPOP-01, T087: neither for the next push, nor by another client."""
    once = proof(htu=PUSH)
    clients = [pushing.add_client() for _ in range(2)]
    assert push(pushing, *clients[0], once).status_int == 201
    for client, secret in clients:
        assert_json_error(push(pushing, client, secret, once), "invalid_dpop_proof")
    assert push(pushing, *clients[0], proof(htu=PUSH)).status_int == 201


def test_where_no_plugin_proves_keys_a_proof_is_nothing_to_a_push(make: Make) -> None:
    """Only what the INI names is loaded."""
    plugins = f"{SETTINGS['authserver.plugins']} pushed_requests"
    server = make(other={"authserver.plugins": plugins, "authserver.plugin.dpop.tolerance": None})
    server.add_user("ann")
    client, secret = server.add_client()
    code = code_of(server, client, push(server, client, secret, "x"))
    assert redeem(server, client, secret, code, None).json["token_type"] == "Bearer"


# ---- clients that must ------------------------------------------------------------------------------


def test_a_client_that_promised_to_bind_must_send_a_proof(server: Server) -> None:
    """DPOP-05: registered with `dpop_bound_access_tokens`: 400 json, nothing issued, the code as it was."""
    body = {
        "redirect_uris": ["https://client.example/cb"],
        "token_endpoint_auth_method": "none",
        "scope": "profile",
        "dpop_bound_access_tokens": True,
    }
    registered = server.http.post_json(server.path("/oauth/register"), body).json
    assert registered["dpop_bound_access_tokens"] is True
    with server.application.begin() as engine:
        client = engine.find_client(registered["client_id"])
    assert client
    code = server.code(client)
    before = stored(server)
    assert_json_error(redeem(server, client, None, code, None), "invalid_dpop_proof")
    assert stored(server) == before
    assert redeem(server, client, None, code, proof()).json["token_type"] == "DPoP"


@pytest.mark.parametrize("value", ["true", 1, 0, [None], {}])
def test_the_promise_is_true_or_false(server: Server, value: Any) -> None:
    """DPOP-05, K-06."""
    body = {"redirect_uris": ["https://client.example/cb"], "dpop_bound_access_tokens": value}
    before = stored(server)
    answer = server.http.post_json(server.path("/oauth/register"), body, expect_errors=True)
    assert_json_error(answer, "invalid_client_metadata")
    assert stored(server) == before


@pytest.mark.parametrize("value", [None, "", [], False])
def test_no_promise_is_kept_where_none_is_made(server: Server, value: Any) -> None:
    """K-24: what is empty or null counts as absent, and false is the default (RFC 9449, 5.2)."""
    body = {"redirect_uris": ["https://client.example/cb"], "dpop_bound_access_tokens": value}
    assert "dpop_bound_access_tokens" not in server.http.post_json("/oauth/register", body).json


def test_where_nothing_binds_no_promise_is_taken(sqlite_url: str) -> None:
    """DPOP-05: the answer says what is in effect (RFC 7591, 3.2.1)."""
    server = Server(sqlite_url)
    body = {"redirect_uris": ["https://client.example/cb"], "dpop_bound_access_tokens": True}
    assert "dpop_bound_access_tokens" not in server.http.post_json("/oauth/register", body).json
    server.close()


# ---- the hook ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BindsToo:
    """Another binding, for every request."""

    immediate: ClassVar[bool] = True
    confirmations: ClassVar[Mapping[str, str]] = {"x5t#S256": "Bearer"}

    @hookimpl
    def token_binding(self) -> Binding:
        return Binding(confirmation={"x5t#S256": "x"}, binds_refresh=False)


@dataclass(frozen=True)
class BindsWrongly:
    """What is no binding."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def token_binding(self) -> Any:
        return {"jkt": "x"}


def with_another(kind: type) -> dict[str, str]:
    plugins = f"{SETTINGS['authserver.plugins']}\n{kind.__module__}:{kind.__qualname__}\ndpop"
    return {"authserver.plugins": plugins}


def test_two_bindings_at_once_are_a_fault(make: Make) -> None:
    """token_binding, R-14: `server_error`, nothing issued; one at a time is fine."""
    server = make(other=with_another(BindsToo))
    client, secret = server.add_client(grant_types=("client_credentials",))
    before = stored(server)
    assert_json_error(post(server, client, secret, proof(), **SERVICE), "server_error", status=500)
    assert stored(server) == before
    answer = post(server, client, secret, None, **SERVICE)
    assert answer.json["token_type"] == "Bearer"
    assert server.claims(answer.json["access_token"])["cnf"] == {"x5t#S256": "x"}


def test_another_kind_of_key_binds_the_code_of_a_pushed_request_in_the_same_way(make: Make) -> None:
    """PAR-10, token_binding: what the push proved, the token request must prove; a request names no other key."""
    plugins = f"{SETTINGS['authserver.plugins']}\npushed_requests\ndpop\n{__name__}:{BindsToo.__qualname__}"
    server = make(other={"authserver.plugins": plugins})
    server.add_user("ann")
    client, secret = server.add_client()
    code = code_of(server, client, push(server, client, secret, None))
    answer = redeem(server, client, secret, code, None)
    assert server.claims(answer.json["access_token"])["cnf"] == {"x5t#S256": "x"}
    before = stored(server)
    assert_json_error(push(server, client, secret, None, dpop_jkt=KEY.thumbprint()), "invalid_request")
    assert_json_error(push(server, client, secret, proof(htu=PUSH)), "server_error", status=500)
    assert stored(server) == before


def test_what_is_no_binding_is_a_fault(make: Make) -> None:
    """token_binding, R-14, T140: a plugin that fails never leads to a bearer token."""
    server = make(other=with_another(BindsWrongly))
    client, secret = server.add_client(grant_types=("client_credentials",))
    before = stored(server)
    assert_json_error(post(server, client, secret, None, **SERVICE), "server_error", status=500)
    assert stored(server) == before


@dataclass(frozen=True)
class BindsUnsaid:
    """Binds to a key of which it did not say what its tokens are called."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def token_binding(self) -> Binding:
        return Binding(confirmation={"kid": "x"}, binds_refresh=False)


def test_a_binding_that_was_not_declared_is_a_fault(make: Make) -> None:
    """token_binding, R-14: nobody would know the type of such a token."""
    server = make(other=with_another(BindsUnsaid))
    client, secret = server.add_client(grant_types=("client_credentials",))
    before = stored(server)
    assert_json_error(post(server, client, secret, None, **SERVICE), "server_error", status=500)
    assert stored(server) == before


@dataclass(frozen=True)
class BindsAlike:
    """Calls tokens that are bound to the same kind of key something else."""

    confirmations: ClassVar[Mapping[str, str]] = {"jkt": "Bearer"}

    @hookimpl
    def token_binding(self) -> None:
        return None


@dataclass(frozen=True)
class BindsNameless:
    """Names the key, and no type."""

    confirmations: ClassVar[Any] = frozenset({"kid"})

    @hookimpl
    def token_binding(self) -> None:
        return None


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (BindsAlike, "plugin dpop: token_binding adds jkt, which plugin binds_alike adds already"),
        (BindsNameless, "plugin binds_nameless: confirmations must be a mapping"),
    ],
)
def test_each_kind_of_key_has_one_type_of_token(make: Make, kind: type, problem: str) -> None:
    """token_binding: else the start stops, naming the plugin."""
    with pytest.raises(SettingsError, match=problem):
        make(other=with_another(kind))


@dataclass(frozen=True)
class KeepsTheKey:
    """Wants a name that the plugin for DPoP has."""

    details: ClassVar[frozenset[str]] = frozenset({"cnf"})

    @hookimpl
    def code_details(self) -> Any:
        return {"cnf": {}}


def test_two_plugins_cannot_bind_a_code(make: Make) -> None:
    """code_details: the start stops, naming both."""
    with pytest.raises(SettingsError, match=r"code_details adds cnf, which plugin .* adds already"):
        make(other=with_another(KeepsTheKey))
