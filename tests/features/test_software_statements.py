"""Software statements: what a trusted issuer says about a program that registers itself (RFC 7591, 2.3)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import time_machine
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from authserver.settings import SettingsError
from authserver.testing.rules import Answer, Rules
from authserver.testing.server import ISSUER, SETTINGS, Server
from authserver.testing.stories import assert_json_error, records

TRUSTED, OTHER = "https://vendor.example", "https://another.example"
KEY = ECKey.generate_key("P-256", {"kid": "vendor"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "alg": "RS256"})
STRANGER = ECKey.generate_key("P-256", {"kid": "vendor"})
KEYS = json.dumps({"keys": [key.as_dict(private=False) for key in (KEY, RSA)]})
URI = "https://client.example/cb"
SENT = {
    "redirect_uris": ["https://elsewhere.example/cb"],
    "client_name": "Whatever",
    "contacts": ["a@b.example"],
}
SAID = {"software_id": "notes", "client_name": "Notes", "redirect_uris": [URI]}
ABSENT = object()


def statement(
    key: Any = KEY, header: Mapping[str, Any] | None = None, algorithm: str = "ES256", **changes: Any
) -> str:
    """A correct statement with these claims changed."""
    claims = {"iss": TRUSTED, "iat": int(time.time()), **SAID, **changes}
    claims = {name: value for name, value in claims.items() if value is not ABSENT}
    protected = {"alg": algorithm, "kid": key.kid, **(header or {})}
    registry = jws.JWSRegistry(algorithms=["ES256", "RS256", "HS256"], strict_check_header=False)
    return jws.serialize_compact(protected, json.dumps(claims), key, registry=registry)


def with_statements(**fields: str) -> dict[str, str | None]:
    plugin = "authserver.plugin.software_statements."
    return {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']} software_statements",
        f"{plugin}issuers": f"{TRUSTED} = {KEYS}",
        **{plugin + name: value for name, value in fields.items()},
    }


@pytest.fixture(scope="module")
def rules() -> Rules:
    return Rules(with_statements())


def register(rules: Rules, text: object, **more: Any) -> Answer:
    return rules.register({**SENT, "software_statement": text, **more})


def assert_refused(
    rules: Rules, text: object, reason: str, error: str = "invalid_software_statement", **more: Any
) -> None:
    before = records(rules)
    answer = register(rules, text, **more)
    assert answer.refusal is not None, answer
    assert (answer.status_int, answer.json["error"], answer.refusal.reason) == (400, error, reason)
    assert records(rules) == before


# ---- What it says counts ----------------------------------------------------------------------------


def test_what_a_statement_says_takes_precedence(rules: Rules) -> None:
    """K-07: over what is sent beside it; the statement is returned as it was sent, kept and shown."""
    text = statement()
    answer = register(rules, text, software_version="2.0")
    assert answer.status_int == 201
    assert {name: answer.json[name] for name in SAID} == SAID
    assert (answer.json["contacts"], answer.json["software_version"]) == (["a@b.example"], "2.0")
    assert answer.json["software_statement"] == text
    client = rules.stores.tables.clients[answer.json["client_id"]]
    assert client.details["software_statement"] == text
    assert {"iss", "iat"} & (answer.json.keys() | client.details.keys()) == set()


def test_a_statement_gives_nothing_that_registration_would_not(rules: Rules) -> None:
    """K-20, T132: policies and floor judge what it says as if the client had sent it."""
    answer = register(
        rules,
        statement(
            scope="profile admin",
            client_id="chosen",
            client_secret="known",
            first_party=True,
            registered_by="operator",
            software_statement="another",
        ),
    )
    assert answer.json["client_id"].startswith("client_")
    assert answer.json["client_secret"] != "known"
    assert answer.json["software_statement"] != "another"
    assert not rules.stores.tables.clients[answer.json["client_id"]].first_party
    assert "admin" not in answer.json["scope"]
    assert_refused(
        rules,
        statement(redirect_uris=["http://evil.example/"]),
        "invalid_redirect_uri",
        "invalid_redirect_uri",
    )
    assert_refused(rules, statement(client_name=7), "invalid_client_metadata", "invalid_client_metadata")


def test_empty_claims_count_as_absent(rules: Rules) -> None:
    """K-24"""
    answer = register(rules, statement(client_name="", contacts=[], scope=None))
    assert answer.json["client_name"] == "Whatever"


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"scope": "files.read"}, id="an assertion about a person"),
        pytest.param({"scope": "files.read", "client_id": "batch"}, id="an access token without a type"),
        pytest.param(
            {"nonce": "n", "auth_time": 1, "email": "ann@example.com", "name": "Ann"}, id="an ID token"
        ),
        pytest.param({"logo_uri": "https://a.example/logo.png", "client_name": ""}, id="no name"),
    ],
)
def test_another_jwt_of_its_issuer_is_no_statement(rules: Rules, claims: Mapping[str, Any]) -> None:
    """T061, RFC 8725, 3.12: where a statement is required, it would open the registration, too."""
    about_ann = {"sub": "ann", "aud": ISSUER, "exp": int(time.time()) + 60, "jti": "a"}
    text = statement(**dict.fromkeys(SAID, ABSENT) | about_ann | claims)
    assert_refused(rules, text, "software-statement-without-program")
    assert_refused(Rules(with_statements(required="true")), text, "software-statement-without-program")


@pytest.mark.parametrize("value", ["", None, []])
def test_a_registration_without_statement_is_as_ever(rules: Rules, value: Any) -> None:
    answer = register(rules, value)
    assert answer.status_int == 201
    assert "software_statement" not in answer.json


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ISSUER},
        {"aud": [OTHER, ISSUER]},
        {"exp": int(time.time()) + 10**9},
        {"iat": ABSENT},
        {"sub": "notes", "jti": "1", "nbf": int(time.time()) - 5},
        {"key": RSA, "algorithm": "RS256"},
        {"header": {"typ": "JWT"}},
    ],
    ids=["for us", "for us, too", "with an end", "without a time", "with a subject", "RS256", "typed"],
)
def test_a_statement_in_force_is_accepted(rules: Rules, changes: Any) -> None:
    """K-07: neither subject nor audience nor end are needed; if there is one, it is checked."""
    assert register(rules, statement(**changes)).status_int == 201


# ---- What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lambda: "a.b.c", "software-statement-malformed"),
        (lambda: "a", "software-statement-malformed"),
        (lambda: "a" * 9000, "software-statement-malformed"),
        (lambda: "ä.ö.ü", "software-statement-malformed"),
        (lambda: "\u0000", "invalid_client_metadata"),
        (lambda: 7, "software-statement-malformed"),
        (lambda: True, "software-statement-malformed"),
        (lambda: {"a": "b"}, "software-statement-malformed"),
        (lambda: ["a.b.c"], "software-statement-malformed"),
        (lambda: statement()[:-4] + "AAAA", "assertion-signature"),
        (lambda: statement() + ".", "software-statement-malformed"),
        (lambda: statement(more="x" * 9000), "software-statement-malformed"),
        (lambda: statement(STRANGER), "assertion-signature"),
        (
            lambda: statement(OctKey.import_key("vendor" * 8, {"kid": "vendor"}), algorithm="HS256"),
            "assertion-algorithm",
        ),
        (lambda: statement(header={"jku": "https://evil.example/"}), "assertion-header"),
        (lambda: statement(header={"jwk": STRANGER.as_dict(private=False)}), "assertion-header"),
        (lambda: statement(header={"typ": "at+jwt"}), "assertion-type"),
        (lambda: statement(exp=int(time.time()) - 60), "assertion-expired"),
        (lambda: statement(exp=True), "assertion-times-malformed"),
        (lambda: statement(exp="soon"), "assertion-times-malformed"),
        (lambda: statement(iat=int(time.time()) + 600), "assertion-not-yet-valid"),
        (lambda: statement(nbf=int(time.time()) + 600), "assertion-not-yet-valid"),
        (lambda: statement(aud=OTHER), "assertion-audience"),
        (lambda: statement(aud={"a": ISSUER}), "assertion-audience"),
        (
            lambda: statement(**dict.fromkeys(SAID, ABSENT), sub="ann"),
            "software-statement-without-program",
        ),
    ],
)
def test_a_bad_statement_is_refused(rules: Rules, text: Callable[[], Any], reason: str) -> None:
    """K-07, T057: `invalid_software_statement`, whatever it is; never a failure of the server."""
    error = "invalid_client_metadata" if reason == "invalid_client_metadata" else "invalid_software_statement"
    assert_refused(rules, text(), reason, error)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lambda: statement(iss=OTHER), "assertion-issuer-not-trusted"),
        (lambda: statement(iss=ISSUER), "assertion-issuer-not-trusted"),
        (lambda: statement(iss=ABSENT), "assertion-issuer-not-trusted"),
        (lambda: statement(iss=[TRUSTED]), "assertion-issuer-not-trusted"),
        (lambda: statement(header={"kid": "unknown"}), "assertion-key-unknown"),
    ],
)
def test_a_statement_of_nobody_trusted_is_not_approved(
    rules: Rules, text: Callable[[], Any], reason: str
) -> None:
    """K-07: `unapproved_software_statement`."""
    assert_refused(rules, text(), reason, "unapproved_software_statement")


# ---- Settings ---------------------------------------------------------------------------------------


def test_a_statement_may_be_required() -> None:
    """K-07: then nobody registers without one."""
    rules = Rules(with_statements(required="true"))
    assert_refused(rules, None, "software-statement-missing", "invalid_client_metadata")
    assert register(rules, statement()).status_int == 201


def test_a_statement_may_be_too_old() -> None:
    """K-07: by its `iat`, which it then needs."""
    rules = Rules(with_statements(maximum_age="600"))
    assert register(rules, statement()).status_int == 201
    assert_refused(rules, statement(iat=int(time.time()) - 700), "assertion-expired")
    assert_refused(rules, statement(iat=ABSENT), "assertion-times-malformed")


def test_the_algorithms_are_a_setting() -> None:
    rules = Rules(with_statements(algorithms="RS256"))
    assert register(rules, statement(RSA, algorithm="RS256")).status_int == 201
    assert_refused(rules, statement(), "assertion-algorithm")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"issuers": ""}, "issuers"),
        (
            {"issuers": f"{TRUSTED} = /nowhere/keys.json"},
            "issuers: cannot read the keys in /nowhere/keys.json",
        ),
        ({"issuers": f'{TRUSTED} = {{"keys": []}}'}, "issuers: the JWK Set holds no signature key"),
        ({"issuers": f"{TRUSTED} = {{"}, "issuers: the JSON is malformed"),
        ({"algorithms": "HS256"}, "algorithms: must be some of ES256 RS256 PS256 EdDSA"),
        ({"algorithms": "none"}, "algorithms"),
        ({"maximum_age": "-1"}, "maximum_age"),
    ],
)
def test_wrong_settings_stop_the_start(fields: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        Rules(with_statements(**fields))


# ---- Through the whole server -----------------------------------------------------------------------


@pytest.fixture
def server(sqlite_url: str, tmp_path: Path) -> Iterator[Server]:
    path = tmp_path / "vendor.jwks.json"
    path.write_text(KEYS)
    settings = with_statements(issuers=f"{TRUSTED} = {path}")
    settings["authserver.plugins"] = f"{settings['authserver.plugins']} client_management"
    made = Server(sqlite_url, settings)
    yield made
    made.close()


def test_a_registered_client_shows_its_statement_and_changes_with_another(server: Server) -> None:
    """K-07, K-17, K-20: a change is judged by the statement that comes with it."""
    text = statement()
    answer = server.http.post_json("/oauth/register", {**SENT, "software_statement": text})
    told = answer.json
    assert told["software_statement"] == text
    headers = {"Authorization": f"Bearer {told['registration_access_token']}"}
    address = told["registration_client_uri"]
    read = server.http.request(address, headers=headers)
    assert read.json["software_statement"] == text
    change = {**SENT, "client_id": told["client_id"], "software_statement": statement(client_name="Notes 2")}
    changed = server.http.request(
        address,
        method="PUT",
        body=json.dumps(change).encode(),
        headers=headers,
        content_type="application/json",
    )
    assert (changed.json["client_name"], changed.json["redirect_uris"]) == ("Notes 2", [URI])
    change["software_statement"] = statement(exp=int(time.time()) - 60)
    refused = server.http.request(
        address,
        method="PUT",
        body=json.dumps(change).encode(),
        headers=headers,
        content_type="application/json",
        expect_errors=True,
    )
    assert_json_error(refused, "invalid_software_statement")
    assert server.events("registration.refused")[-1]["reason"] == "assertion-expired"


def test_a_client_may_change_after_its_statement_has_ended(server: Server) -> None:
    """K-17, K-20: the statement that it is registered with was in force then; nobody else can use it any more."""
    text = statement(exp=int(time.time()) + 60)
    told = server.http.post_json("/oauth/register", {**SENT, "software_statement": text}).json

    def change(token: str, sent: str, **changes: Any) -> Any:
        body = {**SENT, "client_id": told["client_id"], "software_statement": sent, **changes}
        return server.http.request(
            told["registration_client_uri"],
            method="PUT",
            body=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}"},
            content_type="application/json",
            expect_errors=True,
        )

    with time_machine.travel(time.time() + 3600):
        changed = change(told["registration_access_token"], text, contacts=["new@client.example"])
        assert changed.status_int == 200, changed.text
        assert (changed.json["contacts"], changed.json["client_name"]) == (["new@client.example"], "Notes")
        token = changed.json["registration_access_token"]
        ended = statement(exp=int(time.time()) - 60)
        assert_json_error(change(token, ended), "invalid_software_statement")
        # What it says still takes precedence.
        stolen = change(token, text, redirect_uris=["https://evil.example/cb"], client_name="Other")
        assert (stolen.json["redirect_uris"], stolen.json["client_name"]) == ([URI], "Notes")
        again = server.http.post_json(
            "/oauth/register", {**SENT, "software_statement": text}, expect_errors=True
        )
        assert_json_error(again, "invalid_software_statement")
