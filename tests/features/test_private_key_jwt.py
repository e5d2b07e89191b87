"""Clients that authenticate with a key of their own (RFC 7523, 2.2): `private_key_jwt`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import time_machine
from click.testing import CliRunner
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry

from authserver import doctor
from authserver.cli import main
from authserver.engine.records import Client
from authserver.features.private_key_jwt import PrivateKeyJwt
from authserver.fetching.addresses import Reach
from authserver.fetching.fetcher import FIRST_PAUSE, Fetcher, Limits
from authserver.testing import forgeries
from authserver.testing.origins import Authority, Origin, sending, serving
from authserver.testing.rules import Answer, Rules, assert_refused
from authserver.testing.server import ISSUER, SETTINGS, VERIFIER, Server, forged, with_plugin
from authserver.testing.service import basic
from authserver.testing.stories import assert_json_error, stored
from authserver.testing.threads import at_once
from tests.client_keys import ABSENT, ALGORITHMS, METHOD, Key, encoded

OWN = {"grant_type": "client_credentials"}
METADATA = "/.well-known/oauth-authorization-server"
KEYS = {name: Key(name, kid=name) for name in ALGORITHMS}
KEY, STRANGER = KEYS["ES256"], Key(kid="ES256")


def with_keys(**fields: str) -> dict[str, str]:
    return with_plugin("private_key_jwt", fields)


class Signing(Rules):
    """The rules with the plugin, and a client that signs with KEY."""

    def __init__(self, **fields: str) -> None:
        super().__init__(with_keys(**fields))
        self.add_user("ann")
        self.one = KEY.client(self)

    def own(
        self, text: str | None = None, *, key: Key = KEY, client: Client | None = None, **form: Any
    ) -> Answer:
        """A token request of a client on its own behalf."""
        return key.ask(self, client or self.one, text=text, **{**OWN, **form})

    def refused(
        self,
        reason: str,
        text: str | None = None,
        *,
        code: str = "invalid_client",
        status: int = 401,
        **sent: Any,
    ) -> None:
        """This error for the client, the reason for the operator, and nothing issued or used up."""
        before = stored(self)
        assert_refused(self.own(text, **sent), code, status=status)
        assert stored(self) == before
        assert self.events("token.refused")[-1]["reason"] == reason


@pytest.fixture(scope="module")
def signing() -> Signing:
    return Signing()


# ---- What is accepted ---------------------------------------------------------------------------------


@pytest.mark.parametrize("typ", ["client-authentication+jwt", "JWT", "application/JWT", ABSENT])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_signed_assertion_authenticates(signing: Signing, name: str, typ: object) -> None:
    """J-10, J-12, J-17: with each algorithm, and with or without a type."""
    key = KEYS[name]
    client = key.client(signing)
    text = key.signed(key.header(typ=typ), key.claims(client.client_id))
    answer = signing.own(text, key=key, client=client)
    assert answer.status_int == 200, answer
    assert signing.claims(answer.json["access_token"])["client_id"] == client.client_id
    assert signing.events("token.issued")[-1]["actor"] == f"client:{client.client_id}"


def test_the_assertion_names_its_client_by_itself(signing: Signing) -> None:
    """RFC 7521, 4.2: `client_id` need not be sent; another one is refused, as no assertion is about two clients."""
    assert signing.own(client_id=ABSENT).status_int == 200
    other = KEY.client(signing)
    signing.refused("client-assertion-issuer-not-trusted", KEY.assertion(signing.one), client=other)
    for text in ("a.b.c", "", KEY.signed(KEY.header(), KEY.claims("x", sub=7))):
        reason = "client-assertion-malformed" if text else "client-id-missing"
        signing.refused(reason, text, client_id=ABSENT)


def test_the_audience_may_be_an_array_of_one_and_clocks_may_differ_a_little(signing: Signing) -> None:
    """J-11, T150: our issuer alone, and half a minute."""
    now = int(time.time())
    for changes in (
        {"aud": [ISSUER]},
        {"exp": now - 20},
        {"exp": now + 320},
        {"iat": now + 20, "nbf": now + 20},
        {"iat": ABSENT},
    ):
        assert signing.own(KEY.assertion(signing.one, **changes)).status_int == 200, changes


def test_an_operator_may_take_the_address_of_the_token_endpoint() -> None:
    """J-11, OIDC Core, 9: at that endpoint alone, and announced as insecure; as shipped it is refused."""
    address = f"{ISSUER}/oauth/token"
    loose = Signing(token_endpoint_audience="true")
    for audience in (address, [address], ISSUER):
        assert loose.own(KEY.assertion(loose.one, aud=audience)).status_int == 200, audience
    both = KEY.assertion(loose.one, aud=[ISSUER, address])
    loose.refused("client-assertion-audience", both)
    loose.refused("client-assertion-audience", KEY.assertion(loose.one, aud=f"{ISSUER}/oauth/introspect"))
    elsewhere = KEY.ask(
        loose, loose.one, "/oauth/introspect", text=KEY.assertion(loose.one, aud=address), token="x"
    )
    assert_refused(elsewhere, "invalid_client", status=401)
    assert PrivateKeyJwt(token_endpoint_audience=True).insecure and not PrivateKeyJwt().insecure


def test_it_serves_every_endpoint_that_authenticates_clients(sqlite_url: str) -> None:
    """J-11, T044: token, introspection, revocation and pushed requests, each with the issuer as the audience."""
    settings = with_keys()
    settings["authserver.plugins"] += "\npushed_requests"
    server = Server(sqlite_url, settings)
    server.add_user("ann")
    client = KEY.client(server, grant_types=("authorization_code", "refresh_token"))
    query = dict(parse_qsl(urlsplit(server.authorization_url(client)).query))
    pushed = KEY.ask(server, client, "/oauth/par", **query)
    assert pushed.status_int == 201, pushed.text
    code = server.code(client)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": "wrong" * 10}
    assert_json_error(KEY.ask(server, client, **form), "invalid_grant")
    answer = KEY.ask(server, client, **form | {"code_verifier": VERIFIER})
    assert answer.status_int == 200, answer.text
    renewed = KEY.ask(server, client, grant_type="refresh_token", refresh_token=answer.json["refresh_token"])
    token = renewed.json["access_token"]
    assert KEY.ask(server, client, "/oauth/introspect", token=token).json["active"] is True
    for path in ("/oauth/introspect", "/oauth/revoke", "/oauth/par"):
        url = f"{ISSUER}{path}"
        wrong = KEY.ask(server, client, path, text=KEY.assertion(client, aud=url), token=token, **query)
        assert_json_error(wrong, "invalid_client", status=401)
        used = KEY.assertion(client)
        seen = [KEY.ask(server, client, path, text=used, token="x", **query).status_int for _ in range(2)]
        assert seen == [201 if path == "/oauth/par" else 200, 401]
        secret = KEY.ask(server, client, path, token=token, client_secret=forged("as_secret_"), **query)
        assert_json_error(secret, "invalid_request")
    assert KEY.ask(server, client, "/oauth/revoke", token=token).status_int == 200
    assert KEY.ask(server, client, "/oauth/introspect", token=token).json == {"active": False}
    server.close()


def test_the_metadata_says_so_only_where_it_is_on(sqlite_url: str) -> None:
    """J-09, A-13, T059: for each endpoint; a method with a shared secret as the key of a MAC is not offered."""
    server = Server(sqlite_url, with_keys(algorithms="RS256 ES256"))
    members = server.http.get(METADATA).json
    for endpoint in ("token", "revocation", "introspection"):
        assert METHOD in members[f"{endpoint}_endpoint_auth_methods_supported"]
        assert "client_secret_jwt" not in members[f"{endpoint}_endpoint_auth_methods_supported"]
        name = f"{endpoint}_endpoint_auth_signing_alg_values_supported"
        assert members[name] == ["RS256", "ES256"]
    server.close()
    server = Server(sqlite_url)
    assert METHOD not in server.http.get(METADATA).text
    assert "auth_signing_alg_values" not in server.http.get(METADATA).text
    server.close()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"algorithms": ()}, "algorithms: must be some of"),
        ({"algorithms": ("HS256",)}, "algorithms: must be some of"),
        ({"algorithms": ("none",)}, "algorithms: must be some of"),
        ({"lifetime": 9}, "lifetime: must be 10 to 3600"),
        ({"lifetime": 3601}, "lifetime: must be 10 to 3600"),
    ],
)
def test_a_setting_that_is_not_safe_stops_the_start(fields: dict[str, Any], problem: str) -> None:
    """J-14, J-18."""
    with pytest.raises(ValueError, match=problem):
        PrivateKeyJwt(**fields)


# ---- What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "another"}, "issuer-not-trusted"),
        ({"iss": ABSENT}, "issuer-not-trusted"),
        ({"iss": ISSUER}, "issuer-not-trusted"),
        ({"iss": ["x"]}, "issuer-not-trusted"),
        ({"sub": "another"}, "subject-differs"),
        ({"sub": ABSENT}, "subject-missing"),
        ({"sub": ["x"]}, "subject-missing"),
        ({"aud": ABSENT}, "audience"),
        ({"aud": f"{ISSUER}/"}, "audience"),
        ({"aud": f"{ISSUER}/oauth/token"}, "audience"),
        ({"aud": "https://other.example"}, "audience"),
        ({"aud": [ISSUER, f"{ISSUER}/oauth/token"]}, "audience"),
        ({"aud": [ISSUER, ISSUER]}, "audience"),
        ({"aud": [[ISSUER]]}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": 7}, "audience"),
        ({"aud": {ISSUER: 1}}, "audience"),
        ({"aud": None}, "audience"),
        ({"exp": ABSENT}, "times-malformed"),
        ({"exp": "soon"}, "times-malformed"),
        ({"exp": True}, "times-malformed"),
        ({"exp": -1}, "times-malformed"),
        ({"exp": 1.5}, "times-malformed"),
        ({"nbf": []}, "times-malformed"),
        ({"iat": None}, "times-malformed"),
        ({"exp": float("nan")}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"exp": 10**30}, "malformed"),
        ({"exp": 10**12}, "lives-too-long"),
        ({"jti": ABSENT}, "jti-missing"),
        ({"jti": ""}, "jti-missing"),
        ({"jti": 7}, "jti-missing"),
        ({"jti": "x" * 513}, "malformed"),
    ],
)
def test_wrong_claims_are_refused(signing: Signing, changes: dict[str, Any], reason: str) -> None:
    """J-10, J-11, J-13, T049, T050, T053: `invalid_client`, whatever it is, and no fault."""
    signing.refused(f"client-assertion-{reason}", KEY.assertion(signing.one, **changes))


@pytest.mark.parametrize(
    ("name", "offset", "reason"),
    [
        ("exp", -31, "expired"),
        ("exp", 331, "lives-too-long"),
        ("nbf", 40, "not-yet-valid"),
        ("iat", 40, "not-yet-valid"),
    ],
)
def test_an_assertion_out_of_its_time_is_refused(
    signing: Signing, name: str, offset: int, reason: str
) -> None:
    """J-10, J-18, T052: expired, of the future, or valid for too long."""
    text = KEY.assertion(signing.one, **{name: int(time.time()) + offset})
    signing.refused(f"client-assertion-{reason}", text)


def test_an_operator_may_allow_an_hour() -> None:
    """J-18: and not a minute more."""
    hour = Signing(lifetime="3600")
    now = int(time.time())
    assert hour.own(KEY.assertion(hour.one, exp=now + 3600)).status_int == 200
    text = KEY.assertion(hour.one, exp=now + 3640)
    hour.refused("client-assertion-lives-too-long", text)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"alg": ABSENT}, "header"),
        *(
            ({"alg": name}, "algorithm")
            for name in ("none", "None", "nOnE", "", None, 7, "HS256", "RS256", "PS256")
        ),
        *(
            ({name: value}, "header")
            for name, value in {
                "jwk": STRANGER.jwk(),
                "jku": "https://stranger.example/jwks",
                "x5u": "https://stranger.example/x5u",
                "x5c": ["MIIB"],
                "crit": ["exp"],
                "b64": False,
                "zip": "DEF",
                "enc": "A256GCM",
            }.items()
        ),
        *(
            ({"typ": typ}, "type")
            for typ in ("at+jwt", "logout+jwt", "authorization-grant+jwt", "dpop+jwt", "", 7)
        ),
        *(
            ({"kid": kid}, "key-unknown")
            for kid in ("", "unknown", "../../etc/passwd", "' OR 1=1", 7, "k" * 1000)
        ),
    ],
)
def test_nothing_in_the_header_chooses_how_it_is_verified(
    signing: Signing, changes: dict[str, Any], reason: str
) -> None:
    """J-14, T054, T055, T056, T061: algorithm and key are those that are registered."""
    text = KEY.signed(KEY.header(**changes), KEY.claims(signing.one.client_id))
    signing.refused(f"client-assertion-{reason}", text)


def test_a_signature_of_somebody_else_is_refused(signing: Signing) -> None:
    """J-10, J-14, T054: another's key, none at all, other claims, and a MAC under the public key."""
    claims = KEY.claims(signing.one.client_id)
    head, body, signature = KEY.signed(KEY.header(), claims).split(".")
    mac = f"{encoded(KEY.header(alg='HS256'))}.{encoded(claims)}"
    secret = OctKey.import_key(json.dumps(KEY.jwk()).encode())
    public_mac = f"{mac}.{encoded(JWSRegistry.algorithms['HS256'].sign(mac.encode(), secret))}"
    for text, reason in (
        (STRANGER.signed(KEY.header(), claims), "signature"),
        (f"{head}.{body}.", "signature"),
        (f"{head}.{encoded({**claims, 'jti': 'other'})}.{signature}", "signature"),
        (f"{head}.{body}.{encoded(bytes(64))}", "signature"),
        (public_mac, "algorithm"),
    ):
        signing.refused(f"client-assertion-{reason}", text)


def test_what_no_verifier_may_accept_authenticates_nobody(signing: Signing) -> None:
    """J-10, J-11, J-12, J-13, J-14, T050, T053, T054, T055, T056, T057, T060, T061: the corpus that `authserver-resource` is tested with."""
    claims, before = KEY.claims(signing.one.client_id), stored(signing)
    forged = forgeries.jwts(
        KEY.header(),
        claims,
        KEY.private,
        required=("iss", "sub", "aud", "jti"),
        times=("exp",),
        types=("at+jwt", "dpop+jwt", "authorization-grant+jwt"),
    )
    for name, text in forged.items():
        answer = signing.own(text)
        assert (answer.status_int, answer.json["error"]) in (
            (401, "invalid_client"),
            (400, "invalid_request"),  # no parameter may hold NUL or so many characters
        ), name
        assert answer.status_int == 401 or name in ("NUL in it", "huge", "a long header"), name
    assert stored(signing) == before
    assert signing.own(forgeries.signed(KEY.header(), claims, KEY.private)).status_int == 200


def test_an_assertion_has_one_spelling_and_an_end(signing: Signing) -> None:
    """T057, T060: no padding, no white space, no other last bits; more than 8 kB are refused unread."""
    text = KEY.assertion(signing.one)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet[alphabet.index(text[-1]) ^ 1]
    for other in (
        f"{text}=",
        f" {text}",
        f"{text}\n",
        text.replace(".", "=."),
        text[:-1] + last,
        f"{text}.",
        "x",
    ):
        signing.refused("client-assertion-malformed", other)
    long = KEY.assertion(signing.one, padding="canary" * 1400)
    before = stored(signing)
    answer = signing.own(long)
    assert answer.refusal is not None
    assert answer.json["error"] in ("invalid_request", "invalid_client")
    assert stored(signing) == before
    assert "canary" not in str(signing.events()[-1])
    assert signing.own(text).status_int == 200, "no refusal has used it up"


def test_our_own_tokens_are_no_assertions(signing: Signing) -> None:
    """T061: nor is what is signed with a key of ours, registered by a client or not; and the reverse."""
    token = signing.own().json["access_token"]
    signing.refused("client-assertion-type", token)
    claims = KEY.claims(signing.one.client_id)
    signer = signing.parts.signer
    text = signer.sign(claims, typ="JWT")
    signing.refused("client-assertion-key-unknown", text)
    ours = KEY.client(signing, details={"jwks": {"keys": [KEY.jwk(), signer.jwks()["keys"][0]]}})
    text = signer.sign(KEY.claims(ours.client_id), typ="JWT")
    signing.refused("client-assertion-key-unknown", text, client=ours)
    assertion = KEY.assertion(signing.one)
    answer = KEY.ask(signing, signing.one, "/oauth/introspect", token=assertion)
    assert answer.json == {"active": False}


def test_the_kind_of_the_assertion_must_be_named(signing: Signing) -> None:
    """RFC 7521, 4.2: an unknown kind, such as SAML, is refused."""
    for kind in (ABSENT, "urn:ietf:params:oauth:client-assertion-type:saml2-bearer", "jwt"):
        signing.refused("client-assertion-type-unknown", client_assertion_type=kind)


# ---- One method ---------------------------------------------------------------------------------------


def test_only_the_registered_method_counts(signing: Signing) -> None:
    """J-04, J-05, T042, T044: no secret, nothing at all, and never two methods."""
    one = signing.one
    reasons = {}
    for method in ("client_secret_basic", "client_secret_post", "none"):
        metadata = {} if method == "none" else {"grant_types": ("client_credentials",)}
        other, secret = signing.add_client(token_endpoint_auth_method=method, **metadata)
        text = KEY.assertion(other)
        signing.refused("method-not-registered", text, client=other)
        reasons[method] = secret
    right = reasons["client_secret_post"] or ""
    signing.refused("client-assertion-missing", client_assertion=ABSENT)
    signing.refused("method-not-registered", client_assertion=ABSENT, client_secret=right)
    header = signing.post(
        "/oauth/token", "grant_type=client_credentials", authorization=basic(one.client_id, right)
    )
    assert_refused(header, "invalid_client", status=401)
    assert signing.events()[-1]["reason"] == "method-not-registered"
    signing.refused("two-methods", client_secret=right, code="invalid_request", status=400)
    twice = [KEY.assertion(one), KEY.assertion(one)]
    signing.refused("invalid_request", client_assertion=twice, code="invalid_request", status=400)


def test_a_disabled_and_an_unknown_client_get_the_same_answer(signing: Signing) -> None:
    """J-07: as for a wrong signature."""
    gone = KEY.client(signing)
    with signing.begin() as engine:
        assert engine.stores.clients.disable(gone.client_id, engine.now)
    unknown = replace(gone, client_id="client_unknown")
    texts = {
        signing.own(client=gone).json["error_description"],
        signing.own(client=unknown).json["error_description"],
        signing.own(STRANGER.assertion(signing.one)).json["error_description"],
    }
    assert texts == {"Client authentication failed."}


def test_failed_assertions_are_counted_like_wrong_secrets() -> None:
    """J-08, T048: too many get 429, by client and address; the right one is accepted meanwhile."""
    settings = with_keys()
    settings["authserver.plugins"] += "\nrate_limits"
    settings["authserver.plugin.rate_limits.limits"] = (
        "wrong = failed_client_authentication, client, 3, minute"
    )
    rules = Rules(settings)
    client = KEY.client(rules)
    assert [STRANGER.ask(rules, client, **OWN).status_int for _ in range(5)] == [401, 401, 401, 429, 429]
    assert KEY.ask(rules, client, **OWN).status_int == 200


# ---- Once ---------------------------------------------------------------------------------------------


def test_an_assertion_is_accepted_once(signing: Signing) -> None:
    """J-13, T051: by its jti, among those of its client, whatever endpoint it is sent to."""
    text = KEY.assertion(signing.one, jti="the same")
    assert signing.own(text).status_int == 200
    signing.refused("client-assertion-replayed", text)
    again = KEY.assertion(signing.one, jti="the same", iat=ABSENT)
    signing.refused("client-assertion-replayed", again)
    other = KEY.client(signing)
    assert signing.own(KEY.assertion(other, jti="the same"), client=other).status_int == 200
    answer = KEY.ask(signing, signing.one, "/oauth/introspect", text=text, token="x")
    assert_refused(answer, "invalid_client", status=401)


def test_a_refused_request_uses_nothing_up(signing: Signing) -> None:
    """R-07: a client that made a mistake may send the same assertion again."""
    text = KEY.assertion(signing.one)
    signing.refused("scope-not-registered", text, scope="admin", code="invalid_scope", status=400)
    assert signing.own(text).status_int == 200


def test_a_replay_gets_no_further_than_its_signature(signing: Signing) -> None:
    """T051: whoever copied an assertion cannot end a grant with a code that is spent."""
    client = KEY.client(signing, grant_types=("authorization_code", "refresh_token"))
    code, text = signing.code(client), KEY.assertion(client)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
    first = KEY.ask(signing, client, text=text, **form)
    assert first.status_int == 200, first
    assert_refused(KEY.ask(signing, client, text=text, **form), "invalid_client", status=401)
    renewed = KEY.ask(signing, client, grant_type="refresh_token", refresh_token=first.json["refresh_token"])
    assert renewed.status_int == 200, "the grant is not revoked"


def test_it_is_remembered_until_nobody_could_present_it_any_more() -> None:
    """T052: to its end, the skew of clocks, and a minute more."""
    signing = Signing()
    now = datetime.now(UTC)
    with time_machine.travel(now, tick=False) as clock:
        text = KEY.assertion(signing.one, exp=int(now.timestamp()) + 60)
        assert signing.own(text).status_int == 200
        (used,) = signing.rows("kept")
        assert used["expires_at"] >= now + timedelta(seconds=60 + 30 + 59)
        clock.shift(85)
        signing.refused("client-assertion-replayed", text)


def test_of_eight_at_once_one_succeeds(database_url: str) -> None:
    """T051, J-18: a unique row of the database decides, for all processes; nothing is issued without it."""
    servers = [Server(database_url, with_keys()) for _ in range(2)]
    client = KEY.client(servers[0])
    text = KEY.assertion(client)
    answers = at_once(8, lambda number: KEY.ask(servers[number % 2], client, text=text, **OWN))
    assert sorted(answer.status_int for answer in answers) == [200] + [401] * 7
    assert len(servers[0].events("token.issued")) == 1
    assert {event["reason"] for event in servers[0].events("token.refused")} == {"client-assertion-replayed"}
    for server in servers:
        server.close()


# ---- Keys ---------------------------------------------------------------------------------------------


def test_two_keys_overlap(signing: Signing) -> None:
    """J-17: a client signs with the new one while the old one is still accepted."""
    new = Key("EdDSA", kid="two")
    client = KEY.client(signing, details={"jwks": KEY.jwks(new)})
    for key in (KEY, new):
        assert signing.own(key=key, client=client).status_int == 200
    no_name = KEY.signed(KEY.header(kid=ABSENT), KEY.claims(client.client_id))
    signing.refused("client-assertion-key-unknown", no_name, client=client)
    alone = KEY.client(signing, details={"jwks": KEY.jwks(kid=ABSENT)})
    no_name = KEY.signed(KEY.header(kid=ABSENT), KEY.claims(alone.client_id))
    assert signing.own(no_name, client=alone).status_int == 200


def test_a_client_may_be_bound_to_one_algorithm(signing: Signing) -> None:
    """J-14, J-17, T054: of the server's list those that the client is registered for; a key may leave it open."""
    details = {"jwks": KEY.jwks(KEYS["EdDSA"]), "token_endpoint_auth_signing_alg": "EdDSA"}
    client = KEY.client(signing, details=details)
    assert signing.own(key=KEYS["EdDSA"], client=client).status_int == 200
    signing.refused("client-assertion-algorithm", client=client)
    rsa = KEYS["PS256"]
    for said, accepted in ((None, "RS256"), ("RS256", "RS256"), ("PS256", "PS256")):
        details = {"jwks": rsa.jwks(alg=ABSENT)} | ({"token_endpoint_auth_signing_alg": said} if said else {})
        client = rsa.client(signing, details=details)
        for name in ("RS256", "PS256"):
            header = rsa.header(alg=name)
            text = rsa.signed(header, rsa.claims(client.client_id), algorithm=name)
            answer = signing.own(text, client=client)
            assert answer.status_int == (200 if name == accepted else 401), (said, name)


@pytest.mark.parametrize("said", [ABSENT, "EdDSA", "Ed25519"])
@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
def test_one_algorithm_has_two_names(signing: Signing, said: object, name: str) -> None:
    """J-14, J-17, T054: whichever the key says (RFC 9864, 2.2); a client or a server may be bound to one of them."""
    key = KEYS["EdDSA"]
    client = key.client(signing, details={"jwks": key.jwks(alg=said)})
    text = key.signed(key.header(alg=name), key.claims(client.client_id))
    assert signing.own(text, client=client).status_int == 200
    for only in ("EdDSA", "Ed25519"):
        expected = 200 if only == name else 401
        details = {"jwks": key.jwks(alg=said), "token_endpoint_auth_signing_alg": only}
        bound = key.client(signing, details=details)
        text = key.signed(key.header(alg=name), key.claims(bound.client_id))
        assert signing.own(text, client=bound).status_int == expected
        one = Signing(algorithms=f"ES256 {only}")
        theirs = key.client(one, details={"jwks": key.jwks(alg=said)})
        text = key.signed(key.header(alg=name), key.claims(theirs.client_id))
        assert one.own(text, client=theirs).status_int == expected
    for wrong in (["EdDSA"], {}, None, 7, "Ed448", "ES256"):
        signing.refused(
            "client-assertion-algorithm",
            key.signed(key.header(alg=wrong), key.claims(client.client_id)),
            client=client,
        )


def test_the_list_of_the_server_counts_at_each_request() -> None:
    """J-14, J-17: a key of an algorithm that was taken off the list is of no use any more."""
    before = Signing()
    after = Rules(with_keys(algorithms="RS256 PS256"), before.stores)
    assert_refused(KEY.ask(after, before.one, **OWN), "invalid_client", status=401)
    assert after.events("token.refused")[-1]["reason"] == "client-assertion-algorithm"


# Of a client every key set is wrong that holds anything wrong.
HOSTILE: dict[str, Any] = {
    **forgeries.key_sets(KEY.private, KEY.kid),
    "a private key beside": {"keys": [KEY.jwk(), KEYS["RS256"].private.as_dict(private=True)]},
    "a name that is too long": {"keys": [KEY.jwk(kid="k" * 129)]},
    "too many": {"keys": [KEY.jwk(kid=str(number)) for number in range(21)]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_key_set_is_not_registered(signing: Signing, name: str) -> None:
    """T058, K-06: `invalid_client_metadata`, which repeats nothing of it."""
    before = stored(signing)
    answer = signing.register(registration(jwks=HOSTILE[name]))
    assert_refused(answer, "invalid_client_metadata")
    assert stored(signing) == before
    private = KEY.private.as_dict(private=True)["d"]
    assert private not in str(answer.json)
    assert private not in str(signing.events()[-1])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_key_set_is_of_no_use(signing: Signing, name: str) -> None:
    """T058: a client of a plugin, or of an earlier version, may have one: `invalid_client`, and no fault."""
    client = KEY.client(signing)
    clients = signing.stores.tables.clients
    clients[client.client_id] = replace(client, details={"jwks": HOSTILE[name]})
    signing.refused("client-keys-refused", client=client)


def registration(**changes: Any) -> dict[str, Any]:
    """What a program sends that registers itself with this method."""
    metadata = {
        "client_name": "Program",
        "redirect_uris": ["https://client.example/cb"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": METHOD,
        **changes,
    }
    return {name: value for name, value in metadata.items() if value is not ABSENT}


def test_a_program_registers_itself_with_its_keys(signing: Signing) -> None:
    """K-01, K-23: it gets no secret, and is told what is in effect."""
    sent = registration(jwks=KEY.jwks(), token_endpoint_auth_signing_alg="ES256")
    answer = signing.register(sent)
    assert answer.status_int == 201, answer
    assert "client_secret" not in answer.json
    for name in ("jwks", "token_endpoint_auth_signing_alg", "token_endpoint_auth_method"):
        assert answer.json[name] == sent[name]
    client = signing.stores.tables.clients[answer.json["client_id"]]
    code = signing.code(client)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
    assert KEY.ask(signing, client, **form).status_int == 200


def test_chatgpt_registers_what_its_document_says(published: Published) -> None:
    """J-17, K-25: `private_key_jwt` with RS256 and a `jwks_uri`, as recorded; members that nobody reads are ignored."""
    path = Path(doctor.__file__).parent / "programs" / "chatgpt.json"
    document = json.loads(path.read_text())["metadata_document"]["document"]
    del document["client_id"]
    rules, key = published.rules, KEYS["RS256"]
    published.publish(key)
    document["jwks_uri"] = f"https://127.0.0.1:{published.origin.port}/jwks"
    answer = rules.register(document)
    assert answer.status_int == 201, answer
    for name in ("token_endpoint_auth_method", "token_endpoint_auth_signing_alg", "jwks_uri"):
        assert answer.json[name] == document[name]
    client = rules.stores.tables.clients[answer.json["client_id"]]
    code = rules.code(client)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
    tokens = key.ask(rules, client, **form)
    assert tokens.status_int == 200, tokens
    form = {"grant_type": "refresh_token", "refresh_token": tokens.json["refresh_token"]}
    assert key.ask(rules, client, **form).status_int == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_keys_on_this_machine_may_come_without_tls_in_development(host: str) -> None:
    """J-15, CIMD-07: where `fetch_loopback` lets a development server fetch from itself, as for documents; else refused."""
    rules = Rules(with_keys() | {"authserver.fetch_loopback": "true"})
    rules.add_user("ann")
    with serving() as origin:
        origin.reply = sending(json.dumps(KEY.jwks()).encode(), Content_Type="application/jwk-set+json")
        address = f"http://{host}:{origin.port}/jwks"
        answer = rules.register(registration(jwks_uri=address))
        assert answer.status_int == 201, answer
        client = rules.stores.tables.clients[answer.json["client_id"]]
        form = {"grant_type": "authorization_code", "code": rules.code(client), "code_verifier": VERIFIER}
        assert KEY.ask(rules, client, **form).status_int == 200
        answer = Signing().register(registration(jwks_uri=address))
        assert_refused(answer, "invalid_client_metadata")
        assert "jwks_uri: It must be a complete https URI" in answer.json["error_description"]
        answer = rules.register(registration(jwks_uri=f"http://{host}.example:{origin.port}/jwks"))
        assert_refused(answer, "invalid_client_metadata")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "needs jwks or jwks_uri"),
        ({"jwks": {"keys": []}}, "needs jwks or jwks_uri"),
        ({"jwks": KEY.jwks(), "jwks_uri": "https://client.example/jwks"}, "exclude each other"),
        ({"jwks_uri": "http://client.example/jwks"}, "jwks_uri: It must be a complete https URI"),
        ({"jwks_uri": "https://client.example/jwks#x"}, "jwks_uri: It must not have a fragment"),
        ({"jwks_uri": "https://ann:pw@client.example/"}, "jwks_uri: It must not have a user name"),
        ({"jwks_uri": 7}, "jwks_uri must be a string"),
        ({"jwks": KEY.jwks(), "token_endpoint_auth_signing_alg": "none"}, "must be one of ES256"),
        ({"jwks": KEY.jwks(), "token_endpoint_auth_signing_alg": "HS256"}, "must be one of ES256"),
        ({"jwks": KEY.jwks(), "token_endpoint_auth_signing_alg": ["ES256"]}, "must be one of ES256"),
        ({"jwks": KEY.jwks(), "token_endpoint_auth_signing_alg": "RS256"}, "no key for RS256"),
        ({"token_endpoint_auth_method": "client_secret_jwt"}, "token_endpoint_auth_method is not offered"),
    ],
)
def test_a_client_that_could_not_sign_is_not_registered(
    signing: Signing, changes: dict[str, Any], words: str
) -> None:
    """K-06, J-14, T059: `invalid_client_metadata` says what is wrong."""
    before = stored(signing)
    answer = signing.register(registration(**changes))
    assert_refused(answer, "invalid_client_metadata")
    assert words in answer.json["error_description"]
    assert stored(signing) == before


def test_a_program_of_another_method_may_have_keys(signing: Signing) -> None:
    """RFC 7591, 2: they are kept, and an empty set counts as none."""
    sent = registration(token_endpoint_auth_method="none", jwks=KEY.jwks())
    assert signing.register(sent).json["jwks"] == KEY.jwks()
    sent = registration(token_endpoint_auth_method="none", jwks={"keys": []})
    assert "jwks" not in signing.register(sent).json


def test_a_program_replaces_its_keys(sqlite_url: str) -> None:
    """RFC 7592, 2.2: by the update of its registration, and from the next request on."""
    settings = with_keys()
    settings["authserver.plugins"] += "\nclient_management"
    settings["authserver.plugin.registration_open.grant_types"] = "client_credentials"
    server = Server(sqlite_url, settings)
    metadata = {
        "grant_types": ["client_credentials"],
        "token_endpoint_auth_method": METHOD,
        "scope": "profile",
    }
    registered = server.http.post_json("/oauth/register", {**metadata, "jwks": KEY.jwks()}, status=201).json
    with server.begin() as engine:
        client = engine.find_client(registered["client_id"])
    assert client
    assert KEY.ask(server, client, **OWN).status_int == 200
    new = Key("EdDSA", kid="new")
    path = urlsplit(registered["registration_client_uri"])
    headers = {"Authorization": f"Bearer {registered['registration_access_token']}"}
    body = {**metadata, "client_id": client.client_id, "jwks": new.jwks()}
    answer = server.http.put_json(f"{path.path}?{path.query}", body, headers=headers)
    assert answer.json["jwks"] == new.jwks()
    assert KEY.ask(server, client, **OWN).status_int == 401
    assert new.ask(server, client, **OWN).status_int == 200
    server.close()


# ---- Keys elsewhere -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Published:
    """The rules, and a client that publishes its keys at an https address of its own."""

    def __init__(self, origin: Origin, authority: Authority) -> None:
        self.origin = origin
        self.rules = Signing()
        self.now = 0.0
        limits = Limits(reach=Reach(loopback=True), ca_file=str(authority.ca_file))
        fetcher = Fetcher(limits, clock=lambda: self.now)
        self.rules.parts = replace(self.rules.parts, fetcher=fetcher)
        self.publish(KEY)
        details = {"jwks_uri": f"https://127.0.0.1:{origin.port}/jwks"}
        self.client = KEY.client(self.rules, details=details)

    def publish(self, *keys: Key, **headers: str) -> None:
        body = json.dumps({"keys": [key.jwk() for key in keys]}).encode()
        self.origin.reply = sending(body, Content_Type="application/jwk-set+json", **headers)

    def ask(self, key: Key = KEY) -> Answer:
        return self.rules.own(key=key, client=self.client)

    @property
    def fetches(self) -> int:
        return len(self.origin.received)

    def reason(self) -> str:
        return str(self.rules.events("token.refused")[-1]["reason"])


@pytest.fixture
def published(authority: Authority) -> Iterator[Published]:
    with serving(authority.context("127.0.0.1")) as origin:
        yield Published(origin, authority)


def test_keys_are_fetched_once_and_kept(published: Published) -> None:
    """J-15, J-17: from the address that the client registered, over https."""
    assert [published.ask().status_int for _ in range(3)] == [200, 200, 200]
    assert published.fetches == 1
    (received,) = published.origin.received
    assert (received.method, received.path) == ("GET", "/jwks")
    assert "application/jwk-set+json" in received.headers["Accept"]


def test_nobody_causes_a_request_by_naming_a_client(published: Published) -> None:
    """J-15: only an assertion that says it is of this client, for this server, does."""
    for changes in ({"iss": "another"}, {"iss": ABSENT}):
        text = KEY.assertion(published.client, **changes)
        assert published.rules.own(text, client=published.client).status_int == 401
    text = KEY.signed(KEY.header(jku="https://x.example/"), KEY.claims(published.client.client_id))
    assert published.rules.own(text, client=published.client).status_int == 401
    assert published.fetches == 0


def test_a_new_key_is_found_and_an_unknown_one_fetches_no_more_than_once_a_minute(
    published: Published,
) -> None:
    """J-15: at a bounded rate, whoever sends assertions with names of keys that there are not."""
    assert published.ask().status_int == 200
    new = Key("EdDSA", kid="new")
    published.publish(KEY, new)
    assert published.ask(new).status_int == 401
    assert published.fetches == 1, "the keys are fresh, so it is too early"
    published.now += 61
    assert published.ask(new).status_int == 200
    assert published.ask().status_int == 200, "the old one is accepted beside it"
    assert published.fetches == 2
    for _ in range(5):
        assert published.ask(Key(kid="nobody")).status_int == 401
    assert published.reason() == "client-assertion-key-unknown"
    assert published.fetches == 2


def test_an_outage_of_the_clients_server_is_bridged_for_a_day(published: Published) -> None:
    """J-15, F-14: the last good keys serve; then it is 503 with `Retry-After`, and never `invalid_client`."""
    assert published.ask().status_int == 200
    published.origin.reply = sending(status=503, Retry_After="7")
    published.now += 3600
    assert published.ask().status_int == 200
    published.now += 86_400
    answer = published.ask()
    assert_refused(answer, "temporarily_unavailable", status=503)
    assert answer.refusal is not None
    assert answer.refusal.retry_after > 0
    assert published.reason() == "client-keys-unreachable"
    details = published.rules.events("token.refused")[-1]["details"]
    assert "503" in str(details) or "paced" in str(details)
    published.publish(KEY)
    published.now += 3600
    assert published.ask().status_int == 200


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (sending(status=500), 503),
        (sending(status=429, Retry_After="30"), 503),
        (sending(status=403), 401),
        (sending(status=404), 401),
        (sending(status=302, Location="https://127.0.0.1/elsewhere"), 401),
        (sending(b"<html>"), 401),
        (sending(b'{"keys": []}'), 401),
        (sending(json.dumps({"keys": [KEY.private.as_dict(private=True)]}).encode()), 401),
        (sending(b'{"keys": [' + b" " * 40_000 + b"]}"), 401),
        (sending(b"\x1f\x8b" + bytes(100), Content_Encoding="gzip"), 401),
    ],
    ids=range(10),
)
def test_what_cannot_be_had_now_is_told_from_what_is_wrong(
    published: Published, reply: Any, status: int
) -> None:
    """F-14, T058: clients throw their registration away after `invalid_client`."""
    published.origin.reply = reply
    answer = published.ask()
    assert answer.status_int == status, (answer, published.reason())
    reason = "client-keys-unreachable" if status == 503 else "client-keys-refused"
    assert published.reason() == reason


def test_a_failed_fetch_counts_as_no_wrong_assertion(published: Published) -> None:
    """J-08: only what the client does wrong counts; and when its server is back, it goes on."""
    published.origin.reply = sending(status=503)
    assert published.ask().status_int == 503
    assert published.ask().status_int == 503, "paced"
    assert published.fetches == 1
    published.publish(KEY)
    published.now += FIRST_PAUSE + 1
    assert published.ask().status_int == 200


def test_a_stranger_cannot_make_us_fetch_without_bound(published: Published) -> None:
    """J-15, T128, R-20: keys that cannot be had count by source; clients whose keys are known go on, and good ones are free."""
    limited = Rules(
        {
            **with_keys(),
            "authserver.plugins": f"{SETTINGS['authserver.plugins']} private_key_jwt rate_limits",
            "authserver.plugin.rate_limits.limits": "f = failed_fetch, source, 3, minute",
        },
        published.rules.stores,
    )
    limited.parts = replace(limited.parts, fetcher=published.rules.parts.fetcher)
    for _ in range(5):
        assert KEY.ask(limited, published.client, **OWN).status_int == 200
    published.origin.reply = sending(b"", 404)
    address = f"https://127.0.0.1:{published.origin.port}/strange"
    strangers = [KEY.client(limited, details={"jwks_uri": f"{address}/{number}"}) for number in range(6)]
    assert [KEY.ask(limited, stranger, **OWN).status_int for stranger in strangers] == [401] * 3 + [429] * 3
    assert published.fetches == 4
    assert KEY.ask(limited, published.client, **OWN).status_int == 200


def test_a_story_over_http_with_retry_after(sqlite_url: str, authority: Authority) -> None:
    """F-14, J-15: the settings of the INI lead to the keys, and 503 comes with `Retry-After`."""
    settings = {
        **with_keys(),
        "authserver.fetch_loopback": "true",
        "authserver.fetch_ca_file": str(authority.ca_file),
    }
    with serving(authority.context("127.0.0.1")) as origin:
        server = Server(sqlite_url, settings)
        origin.reply = sending(status=503, Retry_After="17")
        client = KEY.client(server, details={"jwks_uri": f"https://127.0.0.1:{origin.port}/jwks"})
        answer = KEY.ask(server, client, **OWN)
        assert_json_error(answer, "temporarily_unavailable", status=503)
        assert answer.headers["Retry-After"] == "17"
        assert "WWW-Authenticate" not in answer.headers
        server.close()
        server = Server(sqlite_url, settings)
        origin.reply = sending(json.dumps(KEY.jwks()).encode())
        assert KEY.ask(server, client, **OWN).status_int == 200
        answer = STRANGER.ask(server, client, **OWN)
        assert_json_error(answer, "invalid_client", status=401)
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        server.close()


# ---- Operators ----------------------------------------------------------------------------------------


def test_an_operator_registers_and_changes_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """J-17: by a file or an address, with the lines that stand commented in development.ini."""
    monkeypatch.delenv("AUTHSERVER_CONFIG", raising=False)
    ini, keys = tmp_path / "development.ini", tmp_path / "keys.json"
    text = (Path(__file__).parents[2] / "development.ini").read_text()
    keys.write_text(json.dumps(KEY.jwks()))

    def run(*words: str) -> Any:
        return CliRunner().invoke(main, ["-c", str(ini), "client", *words])

    add = ["add", "--json", "--name", "Robot", "--scope", "profile", "--auth-method"]
    ini.write_text(text)
    assert CliRunner().invoke(main, ["-c", str(ini), "demo"]).exit_code == 0
    assert run(*add, METHOD, "--jwks", str(keys)).exit_code == 2
    assert "no plugin here keeps keys" in run(*add, "client_secret_basic", "--jwks", str(keys)).output
    ini.write_text(text.replace("    # private_key_jwt\n", "    private_key_jwt\n"))
    added = run(*add, METHOD, "--jwks", str(keys))
    assert added.exit_code == 0, added.output
    shown = json.loads(added.stdout)
    assert (shown["jwks"], shown["token_endpoint_auth_method"]) == (KEY.jwks(), METHOD)
    assert "client_secret" not in shown
    address = "https://client.example/jwks"
    edited = run("edit", shown["client_id"], "--jwks", address, "--json")
    now = json.loads(edited.stdout)
    assert (now["jwks_uri"], "jwks" in now) == (address, False)
    assert json.loads(run("show", shown["client_id"], "--json").stdout)["jwks_uri"] == address
    back = run(
        "edit", shown["client_id"], "--jwks", str(keys), "--metadata", "token_endpoint_auth_signing_alg=ES256"
    )
    assert back.exit_code == 0, back.output
    keys.write_text(json.dumps({"keys": [KEY.private.as_dict(private=True)]}))
    for words, problem in (
        (["--jwks", str(keys)], "private or symmetric key"),
        (["--jwks", str(tmp_path / "nothing")], "No such file"),
        (["--jwks", str(ini)], "this is no JWK Set"),
        (["--jwks", "http://client.example/jwks"], "https"),
        (["--jwks", address, "--metadata", "jwks_uri=https://x.example/"], "not both"),
        (["--metadata", "jwks=null"], "needs jwks or jwks_uri"),
        (["--metadata", f"jwks_uri={address}"], "exclude each other"),
        (["--metadata", "token_endpoint_auth_signing_alg=HS256"], "must be one of"),
    ):
        refused = run("edit", shown["client_id"], *words)
        assert (refused.exit_code != 0, problem in refused.output) == (True, True), (words, refused.output)
        assert KEY.private.as_dict(private=True)["d"] not in refused.output
    assert "needs jwks" in run(*add, METHOD).output
