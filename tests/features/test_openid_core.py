"""ID tokens (OIDC Core, 2 and 3.1.3): `openid`, `grant_details` and `token_response`, on the rules alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import pytest
import time_machine

from authserver import app
from authserver.api import (
    Client,
    Engine,
    Grant,
    InvalidRequest,
    Issue,
    Parameters,
    Redeem,
    Secret,
    UnauthorizedClient,
    check_request,
    hookimpl,
    new_identifier,
    read_jws,
)
from authserver.engine.errors import InvalidToken
from authserver.engine.keys import signing_keys
from authserver.features.device.protocol import GRANT_TYPE as DEVICE
from authserver.features.openid import OpenID, subjects
from authserver.settings import SettingsError
from authserver.testing.rules import Rules, assert_code, assert_inactive, assert_page_error, assert_refused
from authserver.testing.server import CHALLENGE, ISSUER, RESOURCE, SETTINGS
from tests.features.openid_steps import (
    ON,
    SCOPES,
    a_client_of,
    a_new_server,
    a_server,
    about,
    half_hash,
    id_claims,
    outcome_of,
    tokens,
)
from tests.features.test_device import Devices

LOOSE = {**ON, "authserver.plugin.openid.require_pkce": "false"}
NO_PKCE: dict[str, Any] = {"code_challenge": None, "code_challenge_method": None}


@pytest.fixture
def rules() -> Rules:
    return a_server(ON)


def test_an_id_token_says_who_signed_in_to_whom(rules: Rules) -> None:
    """OIDC-02, OIDC-25, OIDC-26: `aud` is one text, `azp` is left out, and it lives for five minutes."""
    client, secret = a_client_of(rules)
    browser = rules.signed_in(seconds_ago=60, methods=("pwd",))
    answer = tokens(rules, client, secret, browser=browser, nonce="n-0S6_WzA2Mj")
    claims = id_claims(rules, answer["id_token"])
    assert browser.user is not None and browser.session is not None
    times = {name: claims.pop(name) for name in ("iat", "exp")}
    assert times["exp"] - times["iat"] == 300
    assert claims == {
        "iss": ISSUER,
        "sub": browser.user.user_id,
        "aud": client.client_id,
        "nonce": "n-0S6_WzA2Mj",
        "auth_time": int(browser.session.authenticated_at.timestamp()),
        "amr": ["pwd"],
        "acr": "password",
        "at_hash": half_hash(answer["access_token"]),
        "sid": claims["sid"],
        "jti": claims["jti"],
    }
    assert claims["jti"].split(".")[0] == rules.rows("grants")[0]["grant_id"]


def test_a_subject_fits_into_every_database(rules: Rules) -> None:
    """OIDC-07: at most 255 characters of ASCII, and the same at each sign-in."""
    client, secret = a_client_of(rules)
    first, second = (id_claims(rules, tokens(rules, client, secret)["id_token"])["sub"] for _ in range(2))
    assert first == second
    assert re.fullmatch(r"[!-~]{1,255}", first)


@pytest.mark.parametrize("scope", ["profile", "profile email", "OpenID", "openid2"])
def test_without_the_scope_there_is_no_id_token(rules: Rules, scope: str) -> None:
    """OIDC-01, OIDC-23: whatever else the request says, it is plain OAuth."""
    client, secret = a_client_of(rules)
    sent = {"prompt": "select_account", "claims": "{", "id_token_hint": "x", "nonce": "n"}
    if scope in ("OpenID", "openid2"):
        assert outcome_of(rules.authorize(client, rules.signed_in(), scope=scope)) == "invalid_scope"
        return
    assert "id_token" not in tokens(rules, client, secret, scope=scope, **sent)


def test_a_client_of_its_own_gets_no_id_token(rules: Rules) -> None:
    """OIDC-01: there is no person."""
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=("openid", "files.read"))
    answer = rules.token(client, secret, grant_type="client_credentials", scope="openid")
    assert "id_token" not in answer.json


@pytest.mark.parametrize("nonce", ["n", "n" * 2_000, "ä ö\t\"'<&", "%20+"])
def test_a_nonce_comes_back_as_it_was_sent(rules: Rules, nonce: str) -> None:
    """OIDC-22"""
    client, secret = a_client_of(rules)
    claims = id_claims(rules, tokens(rules, client, secret, nonce=nonce)["id_token"])
    assert claims["nonce"] == nonce


def test_a_nonce_that_was_not_sent_does_not_come_back(rules: Rules) -> None:
    """OIDC-22"""
    client, secret = a_client_of(rules)
    assert "nonce" not in id_claims(rules, tokens(rules, client, secret)["id_token"])


def test_a_long_nonce_is_refused(rules: Rules) -> None:
    """OIDC-22: nothing is cut."""
    client, _ = a_client_of(rules)
    answer = rules.authorize(client, rules.signed_in(), scope="openid", nonce="n" * 2_001)
    assert outcome_of(answer) == "invalid_request"


@pytest.mark.parametrize(
    ("algorithm", "made_by"), [(None, hashlib.sha256), ("RS256", hashlib.sha256), ("ES256", hashlib.sha256)]
)
def test_a_token_is_signed_as_its_client_is_registered(
    rules: Rules, algorithm: str | None, made_by: Any
) -> None:
    """OIDC-03, OIDC-27, OIDC-28: with RS256 where nothing is said, by a key of the key set."""
    details = {"id_token_signed_response_alg": algorithm} if algorithm else {}
    client, secret = a_client_of(rules, details=details)
    answer = tokens(rules, client, secret)
    header = header_of(answer["id_token"])
    assert (header["alg"], header["typ"]) == (algorithm or "RS256", "JWT")
    published = {key["kid"]: key["alg"] for key in rules.parts.signer.jwks()["keys"]}
    assert published[header["kid"]] == header["alg"]
    # Access tokens are signed as ever.
    assert header_of(answer["access_token"])["alg"] == "ES256"
    claims = id_claims(rules, answer["id_token"])
    assert claims["at_hash"] == half_hash(answer["access_token"], made_by)


def test_the_hash_of_an_access_token_is_that_of_the_key() -> None:
    """OIDC-28: Ed25519 hashes with SHA-512 (RFC 8032, 5.1)."""
    rules = a_server({**ON, "authserver.plugin.openid.algorithms": "RS256 EdDSA"})
    client, secret = a_client_of(rules, details={"id_token_signed_response_alg": "EdDSA"})
    answer = tokens(rules, client, secret)
    assert header_of(answer["id_token"])["alg"] == "EdDSA"
    claims = id_claims(rules, answer["id_token"])
    assert claims["at_hash"] == half_hash(answer["access_token"], hashlib.sha512)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("algorithms", "ES256", "RS256 must be among them"),
        ("algorithms", "RS256 none", "for which no key can be made"),
        ("id_token_lifetime", "10", "30 to 3600"),
        ("scopes_added", "openid groups", "the standard scopes are"),
        ("pairwise_salt", "short", "at least 32 characters"),
    ],
)
def test_a_setting_that_cannot_be_stops_the_start(key: str, value: str, problem: str) -> None:
    """OIDC-03: RS256 is always offered, `none` never (RFC 8725, 3.2)."""
    ini = {**SETTINGS, **ON, "authserver.database_url": "sqlite:///never-opened.db"}
    with pytest.raises(SettingsError, match=problem):
        app.build({**ini, f"authserver.plugin.openid.{key}": value})


def test_a_key_that_is_revoked_has_a_successor_at_once() -> None:
    """OIDC-27: ID tokens go on, although the server signs access tokens with another algorithm."""
    rules = a_new_server(ON)
    client, secret = a_client_of(rules)
    kid = header_of(tokens(rules, client, secret)["id_token"])["kid"]
    with rules.begin() as engine:
        revoked = signing_keys.revoke(engine, kid, reason="stolen")
    assert revoked.successor is not None and revoked.successor.algorithm == "RS256"
    rules.parts.signer.load()
    assert header_of(tokens(rules, client, secret)["id_token"])["kid"] == revoked.successor.kid


def test_a_rotation_goes_on_while_clients_watch() -> None:
    """R-06, T144: the new key is published before it signs, and what the old one signed is verified still."""
    rules = a_new_server(ON)
    client, secret = a_client_of(rules)
    before = tokens(rules, client, secret)["id_token"]
    with rules.begin() as engine:
        rotation = signing_keys.rotate(engine, algorithm="RS256")
    rules.parts.signer.load()
    assert rotation.new.kid in {key["kid"] for key in rules.parts.signer.jwks()["keys"]}
    assert header_of(tokens(rules, client, secret)["id_token"])["kid"] == header_of(before)["kid"]
    with time_machine.travel(rotation.new.activates_at + timedelta(seconds=1)):
        rules.parts.signer.load()
        after = tokens(rules, client, secret)["id_token"]
        assert header_of(after)["kid"] == rotation.new.kid
        assert id_claims(rules, before)["sub"] == id_claims(rules, after)["sub"]


def test_a_refresh_gives_a_new_id_token_of_the_same_sign_in(rules: Rules) -> None:
    """OIDC-08: `iss`, `sub`, `aud`, `auth_time` and the session stay; the nonce is not repeated."""
    client, secret = a_client_of(rules)
    browser = rules.signed_in(seconds_ago=1_000, methods=("pwd",))
    first = tokens(rules, client, secret, browser=browser, nonce="n")
    answer = rules.refresh(client, secret, first["refresh_token"]).json
    before, after = (id_claims(rules, each["id_token"]) for each in (first, answer))
    same = ("iss", "sub", "aud", "auth_time", "sid", "acr", "amr")
    assert {name: before[name] for name in same} == {name: after[name] for name in same}
    assert "nonce" not in after
    assert after["at_hash"] == half_hash(answer["access_token"])
    narrowed = rules.refresh(client, secret, answer["refresh_token"], scope="openid").json
    assert "id_token" in narrowed


def test_a_refresh_without_the_scope_gives_none(rules: Rules) -> None:
    """OIDC-01"""
    client, secret = a_client_of(rules)
    first = tokens(rules, client, secret, scope="openid profile")
    assert "id_token" not in rules.refresh(client, secret, first["refresh_token"], scope="profile").json


def test_a_session_has_a_name_of_its_own(rules: Rules) -> None:
    """OIDC-30: the same for all clients of a session, another one for the next, and not what the cookie holds."""
    client, secret = a_client_of(rules)
    browser = rules.signed_in()
    names = [
        id_claims(rules, tokens(rules, client, secret, browser=each)["id_token"])["sid"]
        for each in (browser, browser, rules.signed_in())
    ]
    assert names[0] == names[1] != names[2]
    assert browser.session is not None and browser.session_id is not None
    assert names[0] not in browser.session_id and names[0] not in browser.session.digest.hex()


def test_an_id_token_is_no_access_token(rules: Rules) -> None:
    """OIDC-32, N-09"""
    client, secret = a_client_of(rules)
    token = tokens(rules, client, secret)["id_token"]
    assert_inactive(rules.introspect(client, secret, token))
    with pytest.raises(InvalidToken):
        about(rules, token)
    answer = rules.token(client, secret, grant_type="refresh_token", refresh_token=token)
    assert_refused(answer, "invalid_grant")


def test_an_id_token_is_no_client_assertion() -> None:
    """OIDC-32, N-09"""
    rules = a_server({**ON, "authserver.plugins": ON["authserver.plugins"] + "\nprivate_key_jwt"})
    client, secret = a_client_of(rules)
    token = tokens(rules, client, secret)["id_token"]
    key = rules.parts.signer.jwks()["keys"][0]
    other, _ = rules.add_client(
        token_endpoint_auth_method="private_key_jwt", details={"jwks": {"keys": [dict(key)]}}
    )
    answer = rules.token(
        other,
        grant_type="authorization_code",
        code="x",
        client_assertion=token,
        client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    )
    assert_refused(answer, "invalid_client", status=401)


def test_a_request_without_a_redirect_uri_ends_on_a_page(rules: Rules) -> None:
    """OIDC-04: also if the client has only one."""
    client, _ = a_client_of(rules)
    assert_page_error(rules.authorize(client, rules.signed_in(), scope="openid", redirect_uri=None))
    assert outcome_of(rules.authorize(client, rules.signed_in(), redirect_uri=None)) == "consent"


@pytest.mark.parametrize(
    "response_type", ["id_token", "token", "id_token token", "code id_token", "code token", "none"]
)
@pytest.mark.parametrize("mode", [None, "fragment"])
def test_only_codes_are_given(rules: Rules, response_type: str, mode: str | None) -> None:
    """OIDC-24, B-08: the refusal is in the query."""
    client, _ = a_client_of(rules)
    answer = rules.authorize(
        client, rules.signed_in(), scope="openid", response_type=response_type, response_mode=mode
    )
    assert outcome_of(answer) == "unsupported_response_type"
    assert answer.mode == "query"


def test_a_refresh_token_needs_consent_to_offline_access() -> None:
    """OIDC-11: where that scope exists, and the person ticked it; else there is none, and no error."""
    rules = a_server({**ON, "authserver.plugins": ON["authserver.plugins"] + "\noffline_access"})
    for ticked, gives in ((["openid"], False), (["openid", "offline_access"], True)):
        client, secret = a_client_of(rules, scopes=("openid", "offline_access"))
        page = rules.authorize(client, rules.signed_in(), scope="openid offline_access")
        code = assert_code(rules.consent(page, scopes=ticked))
        assert ("refresh_token" in rules.redeem(client, secret, code).json) is gives
    assert "refresh_token" not in tokens(rules, client, secret)


# ---- PKCE -----------------------------------------------------------------------------------------


def test_pkce_is_needed_as_the_plugin_is_shipped(rules: Rules) -> None:
    """D-01: also beside a nonce."""
    client, _ = a_client_of(rules)
    answer = rules.authorize(client, rules.signed_in(), scope="openid", nonce="n", **NO_PKCE)
    assert outcome_of(answer) == "invalid_request"


def test_a_nonce_may_take_its_place() -> None:
    """OAuth 2.1, 7.5.1: for confidential clients, if the operator says so."""
    rules = a_server(LOOSE)
    client, secret = a_client_of(rules)
    answer = tokens(rules, client, secret, nonce="n", **NO_PKCE)
    assert id_claims(rules, answer["id_token"])["nonce"] == "n"


def test_an_operator_says_so_of_a_single_client(rules: Rules) -> None:
    """OAuth 2.1, 7.5.1"""
    client, secret = a_client_of(rules, details={"nonce_replaces_pkce": True})
    assert "id_token" in tokens(rules, client, secret, nonce="n", **NO_PKCE)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nonce": ""},
        {"nonce": "n", "scope": "profile"},
        {"nonce": "n", "code_challenge_method": "S256"},
        {"nonce": "n", "code_challenge": "short", "code_challenge_method": "S256"},
        {"nonce": "n", "code_challenge": "A" * 43},
    ],
)
def test_nothing_else_takes_its_place(changes: dict[str, Any]) -> None:
    """OAuth 2.1, 7.5.1: a nonce of an OpenID request alone, and no half a challenge."""
    rules = a_server(LOOSE)
    client, _ = a_client_of(rules)
    answer = rules.authorize(client, rules.signed_in(), **{"scope": "openid", **NO_PKCE, **changes})
    assert outcome_of(answer) == "invalid_request"


def test_a_public_client_always_needs_it() -> None:
    """OAuth 2.1, 7.5.1"""
    rules = a_server(LOOSE)
    client, _ = a_client_of(rules, token_endpoint_auth_method="none", details={"nonce_replaces_pkce": True})
    answer = rules.authorize(client, rules.signed_in(), scope="openid", nonce="n", **NO_PKCE)
    assert outcome_of(answer) == "invalid_request"


@pytest.mark.parametrize("method", ["client_secret_basic", "none"])
@pytest.mark.parametrize("nonce", [None, "n"])
def test_a_run_of_the_conformance_suite_needs_neither(method: str, nonce: str | None) -> None:
    """OIDC-04: an insecure setting, for requests of OpenID Connect alone; it is announced, and refused in production."""
    setting = "authserver.plugin.openid.pkce_optional"
    rules = a_server({**ON, setting: "true"})
    client, secret = a_client_of(rules, token_endpoint_auth_method=method)
    answer = tokens(rules, client, secret, nonce=nonce, **NO_PKCE)
    assert id_claims(rules, answer["id_token"]).get("nonce") == nonce
    plain = rules.authorize(client, rules.signed_in(), scope="profile", **NO_PKCE)
    assert outcome_of(plain) == "invalid_request"
    # A challenge that was sent counts.
    code = rules.code(client, scope="openid")
    assert_refused(rules.redeem(client, secret, code, code_verifier=""), "invalid_grant")
    assert OpenID(pkce_optional=True).insecure and not OpenID().insecure


def test_a_code_without_a_challenge_takes_no_verifier() -> None:
    """RFC 9700, 4.8.2: whoever took the challenge out of the request is noticed."""
    rules = a_server(LOOSE)
    client, secret = a_client_of(rules)
    code = rules.code(client, scope="openid", nonce="n", **NO_PKCE)
    assert_refused(rules.redeem(client, secret, code), "invalid_grant")
    assert "id_token" in rules.redeem(client, secret, code, code_verifier="").json


def test_a_code_with_a_challenge_needs_its_verifier() -> None:
    """RFC 9700, 4.8.2: the nonce does not take its place then."""
    rules = a_server(LOOSE)
    client, secret = a_client_of(rules)
    code = rules.code(client, scope="openid", nonce="n")
    assert_refused(rules.redeem(client, secret, code, code_verifier=""), "invalid_grant")


# ---- What clients know people by ------------------------------------------------------------------

SALT = "0123456789abcdef0123456789abcdef"
SALTED = {**ON, "authserver.plugin.openid.pairwise_salt": SALT}


def a_pairwise_client(rules: Rules, *uris: str, **details: str) -> Any:
    return a_client_of(rules, redirect_uris=uris, details={"subject_type": "pairwise", **details})


def subject_at(rules: Rules, client: Any, secret: Any) -> str:
    """The id in each place where this client sees one."""
    answer = tokens(rules, client, secret)
    seen = {
        id_claims(rules, answer["id_token"])["sub"],
        rules.claims(answer["access_token"])["sub"],
        about(rules, answer["access_token"])["sub"],
        rules.introspect(client, secret, answer["access_token"]).json["sub"],
    }
    assert len(seen) == 1
    return str(seen.pop())


def test_all_clients_of_a_sector_know_a_person_by_one_id() -> None:
    """OIDC-44, OIDC-45, OIDC-47: in ID token, access token, UserInfo and introspection; another sector by another id."""
    rules = a_server(SALTED)
    (user,) = rules.rows("users")
    one = subject_at(rules, *a_pairwise_client(rules, "https://one.example/cb"))
    same = subject_at(rules, *a_pairwise_client(rules, "https://one.example/other", "https://one.example/cb"))
    other = subject_at(rules, *a_pairwise_client(rules, "https://two.example/cb"))
    joined = subject_at(
        rules,
        *a_pairwise_client(
            rules,
            "https://a.example/cb",
            "https://b.example/cb",
            sector_identifier_uri="https://one.example/sector.json",
        ),
    )
    assert one == same == joined != other
    assert user["user_id"] not in (one, other)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", one)
    assert subject_at(rules, *a_client_of(rules)) == user["user_id"]


def test_a_pairwise_id_cannot_be_guessed_without_the_salt() -> None:
    """OIDC-45: with another salt it is another."""
    found = set()
    for salt in ("0123456789abcdef0123456789abcdef", "f" * 32):
        found.add(subjects.pairwise(Secret(salt), "one.example", "user_ann"))
    assert len(found) == 2


def test_a_client_of_several_hosts_has_no_sector() -> None:
    """OIDC-46: registered by an operator, it is refused when it asks."""
    rules = a_server(SALTED)
    client, _ = a_pairwise_client(rules, "https://a.example/cb", "https://b.example/cb")
    answer = rules.authorize(client, rules.signed_in(), scope="openid")
    assert outcome_of(answer) == UnauthorizedClient.code


def test_pairwise_ids_need_a_salt(rules: Rules) -> None:
    """OIDC-44"""
    answer = rules.register(
        {"redirect_uris": ["https://a.example/cb"], "subject_type": "pairwise", "scope": "profile"}
    )
    assert_refused(answer, "invalid_client_metadata")


# ---- Other ways to tokens ---------------------------------------------------------------------------

ELSEWHERE = "urn:example:elsewhere"


@dataclass(frozen=True)
class Elsewhere:
    """A grant type in which another server vouches for Ann, who signed in there."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def grant_types(self) -> Mapping[str, Redeem]:
        return {ELSEWHERE: self.redeem}

    def redeem(self, engine: Engine, client: Client, parameters: Parameters) -> Issue:
        user = engine.stores.users.find_by_name("ann")
        assert user is not None
        grant = Grant(
            grant_id=new_identifier(),
            client_id=client.client_id,
            user_id=user.user_id,
            scopes=("openid",),
            resources=(RESOURCE,),
            created_at=engine.now,
            expires_at=engine.now + timedelta(hours=1),
            details={"auth_time": 1, "amr": ["pwd"]},
        )
        return Issue(grant=grant, user=user, scopes=("openid",), resources=(RESOURCE,), is_new=True)


def test_who_signed_in_elsewhere_gets_no_id_token_and_keeps_the_id_of_the_sector() -> None:
    """OIDC-01, OIDC-47: another issuer's word about a sign-in is not ours; whatever the grant type, the sector counts."""
    rules = a_server({**SALTED, "authserver.plugins": f"{ON['authserver.plugins']}\n{__name__}:Elsewhere"})
    details = {"subject_type": "pairwise"}
    grants = ("authorization_code", ELSEWHERE)
    client, secret = a_client_of(rules, grant_types=grants, details=details)
    here = rules.claims(tokens(rules, client, secret)["access_token"])
    answer = rules.token(client, secret, grant_type=ELSEWHERE).json
    assert "id_token" not in answer
    assert rules.claims(answer["access_token"])["sub"] == here["sub"]
    assert about(rules, answer["access_token"])["sub"] == here["sub"]


def test_a_device_signs_its_person_in() -> None:
    """OIDC-02, OIDC-47: who agreed in a session here gets an ID token, without a nonce."""
    plugins = f"{ON['authserver.plugins']}\ndevice_grant"
    devices = Devices(**{**SALTED, "authserver.plugins": plugins})
    details = {"subject_type": "pairwise", "sector_identifier_uri": "https://one.example/sector.json"}
    grant_types = (DEVICE, "refresh_token")
    device, _ = devices.add_client(
        grant_types=grant_types, token_endpoint_auth_method="none", scopes=SCOPES, details=details
    )
    told = devices.begins(device, scope="openid email")
    assert devices.allow(told["user_code"]) is None
    answer = devices.poll(told, device).json
    claims = id_claims(devices, answer["id_token"])
    (user,) = devices.rows("users")
    assert claims["sub"] == subjects.pairwise(Secret(SALT), "one.example", user["user_id"])
    assert claims["sub"] == devices.claims(answer["access_token"])["sub"]
    assert "nonce" not in claims
    renewed = devices.refresh(device, None, answer["refresh_token"]).json
    assert id_claims(devices, renewed["id_token"])["sub"] == claims["sub"]


def test_a_pushed_request_needs_a_redirect_uri(rules: Rules) -> None:
    """OIDC-04, OIDC-16: it is refused where it is pushed, and so is what is malformed."""
    client, _ = a_client_of(rules)
    query = {"client_id": client.client_id, "scope": "openid", "response_type": "code"}
    sent = Parameters.of({**query, "code_challenge": CHALLENGE, "code_challenge_method": "S256"}.items())
    with rules.begin() as engine, pytest.raises(InvalidRequest, match="redirect_uri is missing"):
        check_request(engine, sent)
    sent = sent.with_defaults({"redirect_uri": client.redirect_uris[0], "max_age": "soon"})
    with rules.begin() as engine, pytest.raises(InvalidRequest, match="max_age has a value"):
        check_request(engine, sent)


def header_of(token: str) -> Any:
    return read_jws(token).header
