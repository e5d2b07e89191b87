"""The JWT bearer grant (RFC 7523, 2.1): tokens for whom a trusted issuer's signed assertion names."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode
from webtest import TestResponse

from authserver.cli import main
from authserver.engine.people.login import disable_user
from authserver.engine.records import Client
from authserver.settings import SettingsError
from authserver.testing.server import ISSUER, RESOURCE, Server, forged, with_plugin
from authserver.testing.stories import assert_json_error, stored

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TRUSTED = "https://issuer.example"
KEYS: Mapping[str, Any] = {
    "ES256": ECKey.generate_key("P-256"),
    "RS256": RSAKey.generate_key(2048),
    "PS256": RSAKey.generate_key(2048),
    "EdDSA": OKPKey.generate_key("Ed25519"),
}
STRANGER = ECKey.generate_key("P-256")
ABSENT = object()


def jwk(name: str) -> dict[str, Any]:
    return {**KEYS[name].as_dict(private=False), "kid": name, "alg": name, "use": "sig"}


def encoded(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def signed(header: Any, claims: Any, *, algorithm: str = "ES256", key: Any = None) -> str:
    """A compact JWS of whatever is given."""
    text = f"{encoded(header)}.{encoded(claims)}"
    signature = JWSRegistry.algorithms[algorithm].sign(text.encode(), key or KEYS["ES256"])
    return f"{text}.{encoded(signature)}"


def claims_with(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "iss": TRUSTED,
        "sub": "ann",
        "aud": ISSUER,
        "exp": now + 120,
        "iat": now,
        "jti": base64.urlsafe_b64encode(time.time_ns().to_bytes(8, "big")).decode(),
    }
    return {name: value for name, value in (claims | changes).items() if value is not ABSENT}


def header_with(**changes: Any) -> dict[str, Any]:
    header = {"alg": "ES256", "kid": "ES256", "typ": "JWT", **changes}
    return {name: value for name, value in header.items() if value is not ABSENT}


def assertion(**changes: Any) -> str:
    """A correct assertion about ann, with these claims changed."""
    return signed(header_with(), claims_with(**changes))


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("issuer") / "issuer.jwks.json"
    path.write_text(json.dumps({"keys": [jwk(name) for name in KEYS]}))
    return path


class Bearer:
    """A server with the grant type on, and a client that may use it."""

    def __init__(self, database_url: str, key_file: Path, **fields: str) -> None:
        settings = {"issuers": f"{TRUSTED} = {key_file}\nhttps://other.example = {key_file}", **fields}
        self.server = Server(database_url, with_plugin("jwt_bearer", settings))
        self.server.add_user("ann")
        self.client, self.secret = self.server.add_client(grant_types=(GRANT_TYPE,))

    def send(self, text: str | None, client: tuple[Client, str | None] | None = None, **form: Any) -> Any:
        form |= {} if text is None else {"assertion": text}
        return self.server.token(*(client or (self.client, self.secret)), grant_type=GRANT_TYPE, **form)

    def refused(
        self, answer: Callable[[], TestResponse], reason: str, error: str = "invalid_grant", status: int = 400
    ) -> None:
        """This error for the client, the reason for the operator, and nothing issued or stored."""
        before = stored(self.server)
        assert_json_error(answer(), error, status=status)
        assert stored(self.server) == before
        assert self.server.events("token.refused")[-1]["reason"] == reason


@pytest.fixture(scope="module")
def bearer(
    migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory, key_file: Path
) -> Iterator[Bearer]:
    path = tmp_path_factory.mktemp("bearer") / "authserver.db"
    path.write_bytes(migrated_sqlite_file.read_bytes())
    bearer = Bearer(f"sqlite:///{path}", key_file)
    yield bearer
    bearer.server.close()


@pytest.fixture
def make_bearer(sqlite_url: str, key_file: Path) -> Iterator[Callable[..., Bearer]]:
    made: list[Bearer] = []

    def make(**fields: str) -> Bearer:
        made.append(Bearer(sqlite_url, key_file, **fields))
        return made[-1]

    yield make
    for bearer in made:
        bearer.server.close()


# ---- what it gives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("typ", ["JWT", "authorization-grant+jwt", "application/JWT", ABSENT])
def test_a_trusted_assertion_gives_an_access_token_for_its_subject(
    bearer: Bearer, name: str, typ: object
) -> None:
    """JAG-01, JAG-08: with every algorithm; the person is the subject, and there is no refresh token."""
    header = header_with(alg=name, kid=name, typ=typ)
    text = signed(header, claims_with(), algorithm=name, key=KEYS[name])
    answer = bearer.send(text, scope="files.read")
    assert answer.status_int == 200, answer.text
    assert answer.json.keys() == {"access_token", "token_type", "expires_in", "scope"}
    claims = bearer.server.claims(answer.json["access_token"])
    (user,) = bearer.server.rows("users")
    assert claims["sub"] == user["user_id"]
    assert (claims["client_id"], claims["aud"]) == (bearer.client.client_id, RESOURCE)
    assert claims["scope"] == answer.json["scope"] == "files.read"
    event = bearer.server.events("token.issued")[-1]
    assert (event["user_id"], event["client_id"]) == (user["user_id"], bearer.client.client_id)


def test_the_audience_may_be_an_array_of_one_and_times_a_little_off(bearer: Bearer) -> None:
    """R-11, T150: our issuer alone; clocks differ by up to 30 seconds."""
    now = int(time.time())
    for changes in (
        {"aud": [ISSUER]},
        {"exp": now - 20},
        {"exp": now + 300 + 20},
        {"iat": now + 20, "nbf": now + 20},
        {"iat": ABSENT},
    ):
        assert bearer.send(assertion(**changes)).status_int == 200, changes


def test_policies_and_floor_decide_about_scopes_and_resources(bearer: Bearer) -> None:
    """JAG-07, T081: an assertion opens no door that the client could not go through."""
    answer = bearer.send(assertion(scope="admin", resource="https://files.example/"))
    assert answer.json["scope"] == "profile"
    answer = bearer.send(assertion(), scope="files.read", resource="https://files.example/")
    assert bearer.server.claims(answer.json["access_token"])["aud"] == "https://files.example/"
    refused = bearer.refused
    text = assertion()
    refused(lambda: bearer.send(text, scope="files.write"), "scope-not-registered", "invalid_scope")
    refused(lambda: bearer.send(text, scope="a  b"), "invalid_scope", "invalid_scope")
    unknown = "https://unknown.example/"
    refused(lambda: bearer.send(text, resource=unknown), "nobody-answered", "invalid_target")
    assert bearer.send(text).status_int == 200, "no refusal has used it up"


def test_an_opaque_token_belongs_to_a_grant_that_names_person_and_issuer(
    sqlite_url: str, key_file: Path
) -> None:
    """Revoke the grant and the token is dead; who vouched for the person is kept."""
    bearer = Bearer(sqlite_url, key_file)
    bearer.server.close()
    settings = with_plugin("jwt_bearer", {"issuers": f"{TRUSTED} = {key_file}"})
    bearer.server = Server(sqlite_url, {**settings, "authserver.access_token_format": "opaque"})
    token = bearer.send(assertion()).json["access_token"]
    assert token.startswith("as_access_")
    (grant,), (user,) = bearer.server.rows("grants"), bearer.server.rows("users")
    assert grant["user_id"] == user["user_id"]
    assert json.loads(grant["details"]) == {"grant_type": GRANT_TYPE, "vouched_by": TRUSTED}
    bearer.server.close()


# ---- who may use it ---------------------------------------------------------------------------------


def test_the_client_must_be_registered_for_it_and_prove_itself(bearer: Bearer) -> None:
    """JAG-04, H-01: else unauthorized_client or invalid_client."""
    other = bearer.server.add_client()
    bearer.refused(
        lambda: bearer.send(assertion(), other), "grant-type-not-registered", "unauthorized_client"
    )
    public = bearer.server.add_client(grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none")
    bearer.refused(lambda: bearer.send(assertion(), public), "public-client", "unauthorized_client")
    wrong = (bearer.client, forged("as_secret_"))
    bearer.refused(lambda: bearer.send(assertion(), wrong), "secret-wrong", "invalid_client", 401)


def test_the_metadata_lists_it_only_where_it_is_on(bearer: Bearer, sqlite_url: str) -> None:
    """A-09, A-18: it equals what the token endpoint and registration accept."""
    metadata = "/.well-known/oauth-authorization-server"
    assert GRANT_TYPE in bearer.server.http.get(metadata).json["grant_types_supported"]
    without = Server(sqlite_url)
    assert GRANT_TYPE not in without.http.get(metadata).json["grant_types_supported"]
    client, secret = without.add_client()
    answer = without.token(client, secret, grant_type=GRANT_TYPE, assertion=assertion())
    assert_json_error(answer, "unsupported_grant_type")
    body = {"grant_types": [GRANT_TYPE], "scope": "profile"}
    answer = without.http.post_json("/oauth/register", body, expect_errors=True)
    assert_json_error(answer, "invalid_client_metadata")
    without.close()


def test_a_client_can_register_for_it_where_the_operator_lets_it(
    bearer: Bearer, sqlite_url: str, key_file: Path
) -> None:
    """H-05, K-11: by default no client that registers itself can have it."""
    body = {"grant_types": [GRANT_TYPE], "scope": "profile"}
    answer = bearer.server.http.post_json("/oauth/register", body, expect_errors=True)
    assert_json_error(answer, "invalid_client_metadata")
    settings = with_plugin("jwt_bearer", {"issuers": f"{TRUSTED} = {key_file}"})
    server = Server(sqlite_url, {**settings, "authserver.plugin.registration_open.grant_types": GRANT_TYPE})
    server.add_user("ann")
    registered = server.http.post_json("/oauth/register", body, status=201).json
    assert (registered["grant_types"], registered["response_types"]) == ([GRANT_TYPE], [])
    with server.application.begin() as engine:
        client = engine.stores.clients.find(registered["client_id"], engine.now)
    assert client
    answer = server.token(client, registered["client_secret"], grant_type=GRANT_TYPE, assertion=assertion())
    assert answer.status_int == 200
    server.close()


def test_an_operator_switches_it_on_and_registers_a_client(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H-05: by the lines that stand commented in development.ini, and `authserver client add`."""
    monkeypatch.delenv("AUTHSERVER_CONFIG", raising=False)
    text = (Path(__file__).parents[2] / "development.ini").read_text()
    ini = tmp_path / "development.ini"
    (tmp_path / "issuer.jwks.json").write_bytes(key_file.read_bytes())
    add = ["client", "add", "--json", "--name", "Robot", "--scope", "profile", "--grant-type", GRANT_TYPE]
    for line, status in (("", 2), ("jwt_bearer", 0)):
        if line:
            text = text.replace("    # jwt_bearer\n", "    jwt_bearer\n")
            text = text.replace(
                "# authserver.plugin.jwt_bearer.issuers", "authserver.plugin.jwt_bearer.issuers"
            )
        ini.write_text(text)
        assert CliRunner().invoke(main, ["-c", str(ini), "demo"]).exit_code == 0
        added = CliRunner().invoke(main, ["-c", str(ini), *add])
        assert added.exit_code == status, added.output
    assert json.loads(added.stdout)["grant_types"] == [GRANT_TYPE]


# ---- what is refused --------------------------------------------------------------------------------


def test_an_assertion_is_required_once(bearer: Bearer) -> None:
    """JAG-01: invalid_request."""
    bearer.refused(lambda: bearer.send(None), "invalid_request", "invalid_request")
    bearer.refused(lambda: bearer.send(""), "invalid_request", "invalid_request")
    twice: Any = [assertion(), assertion()]
    bearer.refused(lambda: bearer.send(twice), "invalid_request", "invalid_request")


LONG_AGO, FAR = -31, 331


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://stranger.example"}, "assertion-issuer-not-trusted"),
        ({"iss": f"{TRUSTED}/"}, "assertion-issuer-not-trusted"),
        ({"iss": ABSENT}, "assertion-issuer-not-trusted"),
        ({"iss": [TRUSTED]}, "assertion-issuer-not-trusted"),
        ({"iss": {"a": 1}}, "assertion-issuer-not-trusted"),
        ({"iss": None}, "assertion-issuer-not-trusted"),
        ({"iss": ISSUER}, "assertion-issuer-not-trusted"),
        ({"aud": ABSENT}, "assertion-audience"),
        ({"aud": f"{ISSUER}/oauth/token"}, "assertion-audience"),
        ({"aud": f"{ISSUER}/"}, "assertion-audience"),
        ({"aud": [ISSUER, "https://other.example"]}, "assertion-audience"),
        ({"aud": [ISSUER, ISSUER]}, "assertion-audience"),
        ({"aud": [[ISSUER]]}, "assertion-audience"),
        ({"aud": []}, "assertion-audience"),
        ({"aud": 7}, "assertion-audience"),
        ({"aud": {ISSUER: ISSUER}}, "assertion-audience"),
        ({"sub": ABSENT}, "assertion-subject-missing"),
        ({"sub": ""}, "assertion-subject-missing"),
        ({"sub": 7}, "assertion-subject-missing"),
        ({"sub": ["ann"]}, "assertion-subject-missing"),
        ({"sub": "nobody"}, "user-unknown"),
        ({"sub": "ANN"}, "user-unknown"),
        ({"sub": "ann "}, "user-unknown"),
        ({"sub": "' OR 1=1"}, "user-unknown"),
        ({"exp": ABSENT}, "assertion-times-malformed"),
        ({"jti": ABSENT}, "assertion-jti-missing"),
        ({"jti": ""}, "assertion-jti-missing"),
        ({"jti": 7}, "assertion-jti-missing"),
    ],
)
def test_wrong_claims_are_refused(bearer: Bearer, changes: dict[str, Any], reason: str) -> None:
    """JAG-01, JAG-03, T049, T050, T053: invalid_grant."""
    bearer.refused(lambda: bearer.send(assertion(**changes)), reason)


@pytest.mark.parametrize(
    ("name", "offset", "reason"),
    [
        ("exp", LONG_AGO, "assertion-expired"),
        ("exp", -86400, "assertion-expired"),
        ("exp", FAR, "assertion-lives-too-long"),
        ("exp", 10**9, "assertion-lives-too-long"),
        ("nbf", 40, "assertion-not-yet-valid"),
        ("iat", 40, "assertion-not-yet-valid"),
    ],
)
def test_an_assertion_out_of_its_time_is_refused(bearer: Bearer, name: str, offset: int, reason: str) -> None:
    """JAG-01, T052: expired, not yet valid, or valid for too long."""
    bearer.refused(lambda: bearer.send(assertion(**{name: int(time.time()) + offset})), reason)


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "9" * 5000,
        "-1",
        "true",
        "null",
        "[]",
        "{}",
        '"soon"',
        "now.0",
    ],
)
def test_a_time_is_a_finite_whole_number(bearer: Bearer, name: str, value: str) -> None:
    """T053: nothing else, and never a fault."""
    now = int(time.time())
    times = {"exp": str(now + 60), "nbf": str(now), "iat": str(now)}
    times[name] = value.replace("now", times[name])
    members = ",".join(f'"{item}":{text}' for item, text in times.items())
    body = f'{{"iss":"{TRUSTED}","sub":"ann","aud":"{ISSUER}","jti":"x",{members}}}'
    malformed = value in ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000)
    reason = "assertion-malformed" if malformed else "assertion-times-malformed"
    bearer.refused(lambda: bearer.send(signed(header_with(), body.encode())), reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"alg": ABSENT}, "assertion-header"),
        *(({"alg": name}, "assertion-algorithm") for name in ("none", "None", "NONE", "nOnE", "", None, 7)),
        *(({"alg": name}, "assertion-algorithm") for name in ("HS256", "ES384", "RS256", ["ES256"])),
        *(
            ({name: value}, "assertion-header")
            for name, value in {
                "jwk": STRANGER.as_dict(private=False),
                "jku": "https://stranger.example/jwks",
                "x5u": "https://stranger.example/x5u",
                "x5c": ["MIIB"],
                "crit": ["exp"],
                "b64": False,
                "zip": "DEF",
                "enc": "A256GCM",
                "cty": "JWT",
                "nonce": "x",
            }.items()
        ),
        *(
            ({"typ": typ}, "assertion-type")
            for typ in ("at+jwt", "logout+jwt", "secevent+jwt", "client-authentication+jwt", "", None, 7)
        ),
        *(
            ({"kid": kid}, "assertion-key-unknown")
            for kid in (ABSENT, "", "unknown", "../../etc/passwd", "' OR 1=1", 7, ["ES256"], "k" * 1000)
        ),
    ],
)
def test_nothing_in_the_header_chooses_how_it_is_verified(
    bearer: Bearer, changes: dict[str, Any], reason: str
) -> None:
    """T054, T055, T056, T061: algorithm and key are ours to choose; a header that says more is refused."""
    bearer.refused(lambda: bearer.send(signed(header_with(**changes), claims_with())), reason)


def test_a_signature_that_is_not_the_issuers_is_refused(bearer: Bearer) -> None:
    """JAG-01, T054: another's key, none, an HMAC under a public key, another algorithm of the same key."""
    header, claims = header_with(), claims_with()
    text = assertion()
    head, body, signature = text.split(".")
    hmac_key = next(iter(KEYS["ES256"].as_dict(private=False).values()))
    forgeries = [
        signed(header, claims, key=STRANGER),
        f"{head}.{body}.",
        f"{head}.{encoded(claims_with(sub='root'))}.{signature}",
        f"{head}.{body}.{encoded(bytes(64))}",
        f"{head}.{body}.{encoded(b'x')}",
        f"{head}.{body}.{encoded(hmac_key.encode())}",
        signed(header_with(alg="RS256", kid="RS256"), claims, algorithm="PS256", key=KEYS["RS256"]),
        signed(header_with(alg="EdDSA", kid="EdDSA"), claims),
    ]
    for forgery in forgeries:
        bearer.refused(lambda forgery=forgery: bearer.send(forgery), "assertion-signature")
    confused = signed(header_with(alg="PS256", kid="RS256"), claims, algorithm="PS256", key=KEYS["RS256"])
    bearer.refused(lambda: bearer.send(confused), "assertion-algorithm")


def test_an_assertion_has_one_spelling(bearer: Bearer) -> None:
    """T060, T056: padding, white space, another alphabet, loose bits and other forms of JWS are refused."""
    text = assertion()
    head, body, signature = text.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    loose = signature[:-1] + last[last.index(signature[-1]) + 1]
    spellings = [
        f"{head}.{body}.{signature}==",
        f"{head}=.{body}.{signature}",
        f" {text}",
        f"{text}\n",
        f"{head}.\n{body}.{signature}",
        f"{head}.{body}.{loose}",
        f"{text}.",
        f"{text}.{signature}.{signature}",
        f"{head}.{body}",
        f"{head}..{signature}",
        f"{head}.{encoded([claims_with()])}.{signature}",
        json.dumps({"protected": head, "payload": body, "signature": signature}),
        text.replace(".", "\N{FULLWIDTH FULL STOP}"),
    ]
    for spelling in spellings:
        bearer.refused(lambda spelling=spelling: bearer.send(spelling), "assertion-malformed")
    assert bearer.send(text).status_int == 200


def test_json_that_two_readers_could_read_differently_is_refused(bearer: Bearer) -> None:
    """T062: a name twice, deep nesting, lone surrogates, NUL, no UTF-8."""
    claims = json.dumps(claims_with())
    for body in (
        claims[:-1] + ',"sub":"root"}',
        claims[:-1] + ',"x":' + "[" * 2000 + "]" * 2000 + "}",
        claims[:-1] + ',"x":"\\ud800"}',
        claims[:-1] + ',"x":"\\u0000"}',
    ):
        text = signed(header_with(), body.encode())
        bearer.refused(lambda text=text: bearer.send(text), "assertion-malformed")
    text = signed(header_with(), claims.encode("utf-16"))
    bearer.refused(lambda: bearer.send(text), "assertion-malformed")


def test_an_assertion_has_at_most_8_kilobytes_and_is_repeated_nowhere(
    bearer: Bearer, caplog: pytest.LogCaptureFixture
) -> None:
    """T057: and what was sent does not come back in answer, log or event."""
    room = 8192 - len(assertion(padding=""))
    assert bearer.send(assertion(padding="p" * (room * 3 // 4 - 8))).status_int == 200
    too_long = assertion(padding="canary" * 1200)
    assert len(too_long) > 8192
    bearer.refused(lambda: bearer.send(too_long), "invalid_request", "invalid_request")
    for text in ("canary" * 1000, assertion(sub="canary"), signed(header_with(kid="canary"), claims_with())):
        answer = bearer.send(text)
        assert "canary" not in answer.text
    assert "canary" not in caplog.text + repr(bearer.server.rows("events"))


def test_a_disabled_person_gets_nothing(make_bearer: Callable[..., Bearer]) -> None:
    """JAG-01, R-09: from the next request on."""
    bearer = make_bearer()
    assert bearer.send(assertion()).status_int == 200
    with bearer.server.application.begin() as engine:
        disable_user(engine, "ann")
    bearer.refused(lambda: bearer.send(assertion()), "user-disabled")


# ---- once -------------------------------------------------------------------------------------------


def test_an_assertion_is_accepted_once_whoever_presents_it(bearer: Bearer) -> None:
    """JAG-08, T051, T052: known by issuer and `jti`, and kept until nobody could present it any more."""
    text = assertion(jti="once")
    assert bearer.send(text).status_int == 200
    bearer.refused(lambda: bearer.send(text), "assertion-replayed")
    bearer.refused(
        lambda: bearer.send(assertion(jti="once", exp=int(time.time()) + 60)), "assertion-replayed"
    )
    other = bearer.server.add_client(grant_types=(GRANT_TYPE,))
    bearer.refused(lambda: bearer.send(text, other), "assertion-replayed")
    assert bearer.send(assertion(jti="once", iss="https://other.example")).status_int == 200
    kept = [row["expires_at"] for row in bearer.server.rows("kept")]
    last = max(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in kept)
    assert last >= time.time() + 120 + 30 + 60 - 10


def test_of_many_presentations_at_once_one_is_accepted(database_url: str, key_file: Path) -> None:
    """T051: on both databases."""
    bearer = Bearer(database_url, key_file)
    text = assertion()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: bearer.send(text), range(8)))
    assert sorted(answer.status_int for answer in answers) == [200] + [400] * 7
    assert {answer.json.get("error") for answer in answers} == {None, "invalid_grant"}
    assert len(bearer.server.events("token.issued")) == 1
    bearer.server.close()


def test_where_single_use_is_off_it_is_good_until_it_ends(make_bearer: Callable[..., Bearer]) -> None:
    """JAG-08: and needs no `jti`."""
    bearer = make_bearer(single_use="false")
    text = assertion(jti=ABSENT)
    assert [bearer.send(text).status_int for _ in range(3)] == [200, 200, 200]
    assert not bearer.server.rows("tokens")


# ---- whose word counts for whom ---------------------------------------------------------------------


def test_listed_subjects_are_all_there_are(make_bearer: Callable[..., Bearer]) -> None:
    """JAG-06, T165: mapped by issuer and subject together; a user name alone opens nothing."""
    robot = "system:serviceaccount:ci:deploy"
    bearer = make_bearer(subject="listed", subjects=f"{TRUSTED} {robot} = ann")
    assert bearer.send(assertion(sub=robot)).status_int == 200
    bearer.refused(lambda: bearer.send(assertion()), "user-unknown")
    elsewhere = assertion(sub=robot, iss="https://other.example")
    bearer.refused(lambda: bearer.send(elsewhere), "user-unknown")


def test_whatever_else_an_issuer_calls_a_person_opens_nothing(bearer: Bearer) -> None:
    """T165: an e-mail address or a name in an assertion is anybody's to choose at the issuer; only its subject counts."""
    names = dict.fromkeys(("email", "preferred_username", "name", "nickname", "username", "upn"), "ann")
    somebody = assertion(sub="somebody", email_verified=True, **names)
    bearer.refused(lambda: bearer.send(somebody), "user-unknown")


def test_what_we_signed_ourselves_is_no_assertion(sqlite_url: str, tmp_path: Path) -> None:
    """T061, JAG-11: our tokens and keys are refused even where somebody lists them as trusted."""
    first = Server(sqlite_url)
    ours = tmp_path / "ours.json"
    ours.write_text(json.dumps(dict(first.application.parts.signer.jwks())))
    first.close()
    bearer = Bearer(sqlite_url, ours, issuers=f"{ISSUER} = {ours}\n{TRUSTED} = {ours}")
    service = bearer.server.add_client(grant_types=("client_credentials",))
    token = bearer.server.token(*service, grant_type="client_credentials").json["access_token"]
    bearer.refused(lambda: bearer.send(token), "assertion-issuer-not-trusted")
    sign = bearer.server.application.parts.signer.sign
    own = sign(claims_with(iss=ISSUER), typ="JWT")
    bearer.refused(lambda: bearer.send(own), "assertion-issuer-not-trusted")
    disguised = sign(claims_with(), typ="JWT")
    bearer.refused(lambda: bearer.send(disguised), "assertion-key-unknown")
    bearer.server.close()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (
            {"issuers": f"{TRUSTED} = /nowhere/keys.json"},
            "issuers: cannot read the keys in /nowhere/keys.json",
        ),
        ({"issuers": "nonsense"}, "jwt_bearer.issuers: expected `name = text`"),
        ({"assertion_lifetime": "9"}, "assertion_lifetime: must be 10 to 86400 seconds"),
        ({"assertion_lifetime": "86401"}, "assertion_lifetime: must be 10 to 86400 seconds"),
        ({"subject": "email"}, "jwt_bearer.subject: Invalid enum value 'email'"),
        ({"subject": "listed"}, "subjects: set it together with `subject = listed`"),
        ({"subjects": f"{TRUSTED} a = ann"}, "subjects: set it together with `subject = listed`"),
        (
            {"subject": "listed", "subjects": "https://stranger.example a = ann"},
            "subjects: https://stranger.example a: must begin with one of the issuers",
        ),
    ],
)
def test_settings_that_cannot_be_meant_stop_the_start(
    make_bearer: Callable[..., Bearer], fields: dict[str, str], named: str
) -> None:
    """T058, T142: the key is named."""
    with pytest.raises(SettingsError) as stopped:
        make_bearer(**fields)
    assert named in str(stopped.value)


def test_without_issuers_nobody_is_trusted_by_accident(sqlite_url: str, key_file: Path) -> None:
    """T142: neither the INI nor the database has one until somebody says so."""
    bearer = Bearer(sqlite_url, key_file, issuers="")
    bearer.refused(lambda: bearer.send(assertion()), "assertion-issuer-not-trusted")
    bearer.server.close()


# ---- whatever is sent -------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PARTS = st.one_of(
    st.text(max_size=30),
    st.binary(max_size=60).map(encoded),
    JSON.map(encoded),
    st.dictionaries(st.sampled_from([*header_with(), "crit", "jwk"]), JSON, max_size=4).map(
        lambda changes: encoded({**header_with(), **changes})
    ),
)
# Changed claims under a true signature reach every check after it.
CHANGED = st.dictionaries(
    st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "jti"]), JSON, min_size=1, max_size=3
).map(lambda changes: signed(header_with(), claims_with(**changes)))
GARBAGE = st.one_of(st.text(max_size=200), st.lists(PARTS, max_size=6).map(".".join), CHANGED)


@given(text=GARBAGE)
@example(text="..")
@example(text="eyJhbGciOiJub25lIn0..")
@example(text="\0")
@example(text="\ud800".encode("utf-8", "surrogatepass").decode("latin-1"))
@example(text="9" * 9000)
def test_no_assertion_causes_a_fault(bearer: Bearer, text: str) -> None:
    """T053, T054, T060, T062: garbage of any kind is a refusal and stores nothing."""
    before = stored(bearer.server)
    answer = bearer.send(text)
    if answer.status_int == 200:
        # A signed one with changes that do no harm, such as another `jti`.
        claims = json.loads(urlsafe_b64decode(text.split(".")[1].encode()))
        assert (claims["iss"], claims["sub"]) == (TRUSTED, "ann")
        assert claims["aud"] in (ISSUER, [ISSUER])
    else:
        assert_json_error(
            answer, "invalid_grant" if answer.json["error"] == "invalid_grant" else "invalid_request"
        )
        assert stored(bearer.server) == before
