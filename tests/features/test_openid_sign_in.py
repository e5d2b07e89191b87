"""What a request of OpenID Connect says of the sign-in (OIDC Core, 3.1.2.1): `implied_parameters`, `grant_details`."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
import time_machine

from authserver.engine.authorize import AskConsent, AskLogin, Requester, describe_pending
from authserver.engine.pending import Browser, mark_of
from authserver.engine.records import Client
from authserver.features.openid.sign_in import AGAIN, WHICH
from authserver.testing.rules import STRANGER, Rules
from authserver.testing.server import SETTINGS
from tests.features.openid_steps import (
    ON,
    a_client_of,
    a_new_server,
    a_server,
    a_user_of,
    id_claims,
    outcome_of,
    tokens,
)

ALONE = {"authserver.plugins": f"{SETTINGS['authserver.plugins']}\nopenid"}
BOTH_WAYS = pytest.mark.parametrize(
    "settings",
    [
        ON,
        {**ON, "authserver.plugins": ON["authserver.plugins"].replace("openid\nstep_up", "step_up\nopenid")},
        ALONE,
    ],
    ids=["before step_up", "after step_up", "alone"],
)


@pytest.fixture
def rules() -> Rules:
    return a_server(ON)


def came_of(rules: Rules, browser: Browser, client: Client | None = None, **changes: Any) -> str:
    """What comes of a request; of one client that a policy lets pass unasked, unless another is named."""
    client = client or a_client_of(rules, scopes=("openid", "profile"))[0]
    return outcome_of(rules.authorize(client, browser, **{"scope": "openid", **changes}))


def a_known_client(rules: Rules, **changes: Any) -> tuple[Client, str | None]:
    """A client to which Ann has agreed."""
    client, secret = a_client_of(rules, **changes)
    rules.code(client, rules.signed_in(methods=("pwd", "otp")), scope="openid profile")
    return client, secret


@BOTH_WAYS
@pytest.mark.parametrize(
    ("prompt", "nobody", "agreed", "new"),
    [
        (None, "sign in", "code", "consent"),
        ("none", "login_required", "code", "consent_required"),
        ("login", "sign in", "sign in again", "sign in again"),
        ("consent", "sign in", "consent", "consent"),
        ("select_account", "sign in", "sign in again", "sign in again"),
        ("login consent", "sign in", "sign in again", "sign in again"),
        ("none login", "sign in", "invalid_request", "invalid_request"),
        ("consent none", "sign in", "invalid_request", "invalid_request"),
        ("create", "sign in", "invalid_request", "invalid_request"),
        ("NONE", "sign in", "invalid_request", "invalid_request"),
    ],
)
def test_what_a_prompt_leads_to(
    settings: Any, prompt: str | None, nobody: str, agreed: str, new: str
) -> None:
    """OIDC-05, OIDC-06, OIDC-19, OIDC-20, T024: with nobody, with somebody who agreed before, and with somebody who did not."""
    rules = a_server(settings)
    known, _ = a_known_client(rules)
    assert came_of(rules, STRANGER, known, prompt=prompt) == nobody
    assert came_of(rules, rules.signed_in(seconds_ago=1), known, prompt=prompt) == agreed
    assert came_of(rules, rules.signed_in(seconds_ago=1), prompt=prompt) == new


@BOTH_WAYS
@pytest.mark.parametrize(
    ("prompt", "why"), [("login", AGAIN), ("select_account", WHICH), ("select_account login", AGAIN)]
)
def test_a_new_sign_in_is_enough_and_the_page_says_why(settings: Any, prompt: str, why: str) -> None:
    """OIDC-06, OIDC-18: a session alone never is; nobody is asked a second time."""
    rules = a_server(settings)
    client, _ = a_known_client(rules)
    before = rules.signed_in(seconds_ago=1)
    asked = rules.authorize(client, before, scope="openid", prompt=prompt)
    assert isinstance(asked, AskLogin) and asked.again
    if settings is not ON and "step_up" in settings["authserver.plugins"]:
        why = "You signed in some time ago." if "login" in prompt else why
    assert described(rules, asked, before).why.startswith(why)
    assert outcome_of(rules.resume(asked, before)) == "sign in again"
    assert outcome_of(rules.resume(asked, rules.signed_in())) == "code"


@pytest.mark.parametrize("prompt", ["consent", "login consent"])
def test_consent_is_asked_again_and_given_once(rules: Rules, prompt: str) -> None:
    """OIDC-06: also by a client that never asks."""
    client, _ = rules.add_client(first_party=True, scopes=("openid",))
    browser = rules.signed_in(seconds_ago=1)
    page = rules.authorize(client, browser, scope="openid", prompt=prompt)
    if isinstance(page, AskLogin):
        page = rules.resume(page, rules.signed_in())
    assert isinstance(page, AskConsent)
    assert came_of(rules, browser, client) == "code"
    assert outcome_of(rules.consent(page)) == "code"


@BOTH_WAYS
@pytest.mark.parametrize(
    ("max_age", "ago", "came"),
    [
        ("0", 0.5, "sign in again"),
        ("60", 30, "code"),
        ("60", 90, "sign in again"),
        ("9999999999", 10_000, "code"),
        ("-1", 0, "invalid_request"),
        ("1.5", 0, "invalid_request"),
        ("1e3", 0, "invalid_request"),
        ("99999999999", 0, "invalid_request"),
        ("", 90, "code"),
    ],
)
def test_how_old_a_sign_in_may_be(settings: Any, max_age: str, ago: float, came: str) -> None:
    """OIDC-16"""
    rules = a_server(settings)
    client, _ = a_known_client(rules)
    browser = rules.signed_in(seconds_ago=ago)
    assert came_of(rules, browser, client, max_age=max_age) == came
    silent = "login_required" if came == "sign in again" else came
    assert came_of(rules, browser, client, max_age=max_age, prompt="none") == silent


def test_a_sign_in_of_the_future_is_old(rules: Rules) -> None:
    """T150: the clock was set back since."""
    client, _ = a_known_client(rules)
    assert came_of(rules, rules.signed_in(seconds_ago=-120), client, max_age="60") == "sign in again"


@BOTH_WAYS
def test_a_client_has_an_age_of_its_own(settings: Any) -> None:
    """OIDC-17: unless the request says another; and ID tokens always say when somebody signed in."""
    rules = a_server(settings)
    client, secret = a_known_client(rules, details={"default_max_age": 60, "require_auth_time": True})
    old = rules.signed_in(seconds_ago=90)
    assert came_of(rules, old, client) == "sign in again"
    assert came_of(rules, old, client, max_age="120") == "code"
    assert came_of(rules, old, client, scope="profile") == "code"
    assert "auth_time" in id_claims(rules, tokens(rules, client, secret)["id_token"])


@pytest.mark.parametrize(
    "changes",
    [
        {"display": "wap"},
        {"ui_locales": "xx-YY fr"},
        {"claims_locales": "de"},
        {"login_hint": "nobody@example.com"},
        {"acr_values": "unknown other"},
        {"acr_values": "two-factors unknown"},
        {"max_age": ""},
        {"nonce": ""},
        {"registration": "{}"},
    ],
)
def test_what_may_be_ignored_never_makes_an_error(rules: Rules, changes: dict[str, str]) -> None:
    """OIDC-15: levels are a wish; whoever can reach one is asked, and goes on without it."""
    client, _ = a_known_client(rules)
    old = rules.signed_in(seconds_ago=1, methods=("pwd",))
    answer = rules.authorize(client, old, scope="openid", **changes)
    if isinstance(answer, AskLogin):
        assert "two-factors" in changes.get("acr_values", "")
        answer = rules.resume(answer, rules.signed_in(methods=("pwd",)))
    assert outcome_of(answer) == "code"


@pytest.mark.parametrize(
    ("hint", "shown"),
    [("ann", "ann"), ("a" * 201, ""), ("an\u202en", "ann"), ("", "")],
)
def test_the_page_begins_with_the_name_that_the_client_expects(rules: Rules, hint: str, shown: str) -> None:
    """OIDC Core, 3.1.2.1: as a text that anybody may have written."""
    client, _ = a_client_of(rules)
    asked = rules.authorize(client, STRANGER, scope="openid", login_hint=hint)
    assert isinstance(asked, AskLogin)
    assert described(rules, asked, STRANGER).hint == shown


# ---- Levels -----------------------------------------------------------------------------------------


def essential(*levels: str) -> str:
    return json.dumps({"id_token": {"acr": {"essential": True, "values": list(levels)}}})


@pytest.mark.parametrize(
    ("methods", "again", "came"),
    [
        (("pwd", "otp"), (), "code"),
        (("pwd",), ("pwd", "otp"), "code"),
        (("pwd",), ("pwd",), "unmet_authentication_requirements"),
    ],
)
def test_an_essential_level_is_reached_or_refused(
    rules: Rules, methods: tuple[str, ...], again: tuple[str, ...], came: str
) -> None:
    """OIDC-37: by a new sign-in, if need be."""
    client, _ = a_known_client(rules)
    browser = rules.signed_in(seconds_ago=1, methods=methods)
    answer = rules.authorize(client, browser, scope="openid", claims=essential("two-factors"))
    if again:
        answer = rules.resume(answer, rules.signed_in(methods=again))
    assert outcome_of(answer) == came


@pytest.mark.parametrize("levels", [("unknown",), ("unknown", "other")])
@pytest.mark.parametrize("settings", [ON, ALONE], ids=["with levels", "without any"])
def test_a_level_that_nobody_knows_is_refused_if_it_is_essential(
    settings: Any, levels: tuple[str, ...]
) -> None:
    """OIDC-37"""
    rules = a_server(settings)
    client, _ = a_known_client(rules)
    answer = came_of(rules, rules.signed_in(seconds_ago=1), client, claims=essential(*levels))
    assert answer == "unmet_authentication_requirements"


def test_an_essential_level_is_not_reached_in_silence(rules: Rules) -> None:
    """OIDC-05, OIDC-37"""
    client, _ = a_known_client(rules)
    browser = rules.signed_in(seconds_ago=1, methods=("pwd",))
    asked = {"claims": essential("two-factors"), "prompt": "none"}
    assert came_of(rules, browser, client, **asked) == "login_required"


def test_a_client_has_levels_of_its_own(rules: Rules) -> None:
    """OIDC-29, OIDC-51: `default_acr_values`, which a request overrides; ID tokens say what was reached."""
    client, secret = a_known_client(rules, details={"default_acr_values": ["two-factors"]})
    weak = rules.signed_in(seconds_ago=1, methods=("pwd",))
    assert came_of(rules, weak, client) == "sign in again"
    assert came_of(rules, weak, client, acr_values="password") == "code"
    strong = rules.signed_in(methods=("pwd", "otp"))
    claims = id_claims(rules, tokens(rules, client, secret, browser=strong)["id_token"])
    assert (claims["acr"], claims["amr"]) == ("two-factors", ["pwd", "otp"])


def test_plain_requests_are_as_strict_as_before(rules: Rules) -> None:
    """RFC 9470, 5: without the scope `openid` a level is no wish."""
    client, _ = a_known_client(rules)
    old = rules.signed_in(seconds_ago=1, methods=("pwd",))
    answer = came_of(rules, old, client, scope="profile", acr_values="unknown")
    assert answer == "unmet_authentication_requirements"


# ---- Whom it is about -------------------------------------------------------------------------------


def test_a_hint_of_the_person_who_is_signed_in_changes_nothing(rules: Rules) -> None:
    """OIDC-14, OIDC-21: also a hint that has expired."""
    client, secret = a_known_client(rules)
    hint = tokens(rules, client, secret)["id_token"]
    assert came_of(rules, rules.signed_in(), client, id_token_hint=hint) == "code"
    with time_machine.travel(time.time() + 3600):
        assert came_of(rules, rules.signed_in(), client, id_token_hint=hint, prompt="none") == "code"


@pytest.mark.parametrize("prompt", [None, "none", "consent"])
def test_nothing_is_said_of_another_than_the_hint_names(rules: Rules, prompt: str | None) -> None:
    """OIDC-14: the client gets an error instead; and `claims` can name a person, too (OIDC-36)."""
    bob_is_there(rules)
    client, secret = a_known_client(rules)
    answer = tokens(rules, client, secret)
    bob = rules.signed_in("bob")
    assert came_of(rules, bob, client, id_token_hint=answer["id_token"], prompt=prompt) == "login_required"
    ann = id_claims(rules, answer["id_token"])["sub"]
    for part in ("id_token", "userinfo"):
        named = json.dumps({part: {"sub": {"value": ann}}})
        assert came_of(rules, bob, client, claims=named, prompt=prompt) == "login_required"
        assert came_of(rules, rules.signed_in(), client, claims=named) == "code"


def test_whoever_signs_in_for_a_hint_must_be_the_one(rules: Rules) -> None:
    """OIDC-14: nobody was signed in, and then somebody else is."""
    bob_is_there(rules)
    client, secret = a_known_client(rules)
    hint = tokens(rules, client, secret)["id_token"]
    asked = rules.authorize(client, STRANGER, scope="openid", id_token_hint=hint)
    assert outcome_of(rules.resume(asked, rules.signed_in("bob"))) == "login_required"
    assert outcome_of(rules.resume(asked, rules.signed_in("ann"))) == "code"


def bob_is_there(rules: Rules) -> None:
    if "bob" not in {row["username"] for row in rules.rows("users")}:
        a_user_of(rules, "bob")


def forged_hints(rules: Rules, client: Client, token: str) -> dict[str, str]:
    """Texts that are no ID token of this client: of others, of other types, and with other signatures."""
    signer, claims = rules.parts.signer, id_claims(rules, token)
    head, body, signature = token.split(".")
    return {
        "of another client": signer.sign({**claims, "aud": "other"}, typ="JWT", algorithm="RS256"),
        "for two": signer.sign({**claims, "aud": [client.client_id, "other"]}, typ="JWT", algorithm="RS256"),
        "of another issuer": signer.sign({**claims, "iss": "https://other.example"}, typ="JWT"),
        "an access token": signer.sign(claims, typ="at+jwt"),
        "unsigned": f"eyJhbGciOiJub25lIn0.{body}.",
        "cut": f"{head}.{body}.{signature[:-8]}",
        "nothing": "x",
        "long": "x" * 7_000,
    }


def test_a_hint_that_is_none_is_refused(rules: Rules) -> None:
    """OIDC-21, T057, T060, T061: whatever is wrong with it, and `none` is no algorithm."""
    client, secret = a_known_client(rules)
    token = tokens(rules, client, secret)["id_token"]
    for kind, hint in forged_hints(rules, client, token).items():
        assert came_of(rules, rules.signed_in(), client, id_token_hint=hint) == "invalid_request", kind
    assert came_of(rules, STRANGER, client, id_token_hint="x", prompt="none") == "login_required"


# ---- The parameter claims ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        "{",
        "[]",
        "null",
        '"openid"',
        '{"id_token": []}',
        '{"userinfo": "email"}',
        '{"id_token": {"email": true}}',
        '{"id_token": {"acr": {"essential": true, "values": "gold"}}}',
        '{"id_token": {"sub": {"value": 7}}}',
        '{"id_token": {"sub": {"value": "ann"}}, "userinfo": {"sub": {"value": "bob"}}}',
        '{"id_token": {}, "id_token": {}}',
        '{"a":' * 20 + "1" + "}" * 20,
        json.dumps({"userinfo": {f"c{number}": None for number in range(51)}}),
    ],
)
def test_claims_that_cannot_be_read_are_refused(rules: Rules, claims: str) -> None:
    """OIDC-34: size and depth are limited, too."""
    client, _ = a_known_client(rules)
    assert came_of(rules, rules.signed_in(), client, claims=claims) == "invalid_request"


def test_claims_are_in_the_id_token_where_they_are_asked_for(rules: Rules) -> None:
    """OIDC-31, OIDC-35, OIDC-36: only what a granted scope covers; unknown and missing ones are no error."""
    client, secret = a_client_of(rules)
    asked = {
        "id_token": {
            "email": {"essential": True},
            "email_verified": None,
            "nickname": {"essential": True},
            "phone_number": None,
            "ssn": {"essential": True},
            "https://example.com/claim": None,
        },
        "userinfo": {"given_name": None},
        "other": 7,
    }
    answer = tokens(rules, client, secret, scope="openid email profile", claims=json.dumps(asked))
    claims = id_claims(rules, answer["id_token"])
    assert claims["email"] == "ann@example.com" and claims["email_verified"] is True
    assert not {"nickname", "phone_number", "ssn", "given_name", "name"} & claims.keys()
    renewed = rules.refresh(client, secret, answer["refresh_token"]).json
    assert id_claims(rules, renewed["id_token"])["email"] == "ann@example.com"


def test_nothing_of_a_person_is_in_an_id_token_unasked(rules: Rules) -> None:
    """OIDC-31: unless the operator says so for a client that never asks UserInfo."""
    client, secret = a_client_of(rules)
    scope = "openid profile email address phone"
    claims = id_claims(rules, tokens(rules, client, secret, scope=scope)["id_token"])
    assert not {"name", "email", "address", "phone_number", "preferred_username"} & claims.keys()
    rules = a_server(
        {**ON, "authserver.plugin.openid.claims_in_id_token@clients": f"{client.client_id} = true"}
    )
    same, secret = rules.add_client(client_id=client.client_id, scopes=client.scopes)
    claims = id_claims(rules, tokens(rules, same, secret, scope="openid email")["id_token"])
    assert claims["email"] == "ann@example.com" and "name" not in claims


# ---- Clients that registered themselves ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "came"),
    [
        ({"prompt": "none"}, "login_required"),
        ({"prompt": "none", "max_age": "0"}, "login_required"),
        ({"prompt": "none", "max_age": "x"}, "login_required"),
        ({"prompt": "none", "code_challenge": None, "code_challenge_method": None}, "login_required"),
        ({"prompt": "login", "scope": "openid nonsense"}, "sign in"),
    ],
)
@BOTH_WAYS
def test_a_request_for_no_page_sees_none(settings: Any, changes: dict[str, Any], came: str) -> None:
    """OIDC-05, B-16 before B-17: also for a client that registered itself."""
    rules = a_server(settings)
    client = self_registered(rules)
    assert came_of(rules, STRANGER, client, **changes) == came


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "consent_required"),
        ({"max_age": "0"}, "login_required"),
        ({"max_age": "x"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"claims": "["}, "invalid_request"),
        ({"resource": "https://unknown.example/"}, "invalid_target"),
    ],
)
@BOTH_WAYS
def test_no_error_of_such_a_request_shows_one(settings: Any, changes: dict[str, Any], code: str) -> None:
    """OIDC-05: somebody is signed in, whom any other request would show a page first (B-17)."""
    rules = a_server(settings)
    client, browser = self_registered(rules), rules.signed_in(seconds_ago=1)
    assert came_of(rules, browser, client, **{"prompt": "none", **changes}) == code
    if "prompt" not in changes and code not in ("consent_required", "login_required"):
        assert came_of(rules, browser, client, **changes) == f"page, then {code}"


@BOTH_WAYS
def test_what_a_person_agreed_to_stands_for_a_client_that_registered_itself(settings: Any) -> None:
    """OIDC-05, B-16 before B-17, E-12: in silence alone, for no more than was agreed to, and never for a public client."""
    rules = a_new_server(settings)
    client, browser = self_registered(rules), rules.signed_in(seconds_ago=1)
    rules.code(client, browser, scope="openid profile")
    for scope in ("openid", "openid profile"):
        assert came_of(rules, browser, client, prompt="none", scope=scope) == "code"
        assert came_of(rules, browser, client, scope=scope) == "consent"
    assert came_of(rules, browser, client, prompt="none", scope="openid files.read") == "consent_required"
    assert came_of(rules, browser, client, prompt="none", max_age="0") == "login_required"
    rules.change("clients", redirect_uris=("https://elsewhere.example/cb",))
    changed = rules.stores.tables.clients[client.client_id]
    assert came_of(rules, browser, changed, prompt="none") == "consent_required"


def self_registered(rules: Rules) -> Client:
    """A confidential client that registered itself, for the scope `openid`, too."""
    client = rules.self_registered(token_endpoint_auth_method="client_secret_basic")
    scopes = ("openid", *client.scopes)
    rules.change("clients", scopes=scopes)
    return rules.stores.tables.clients[client.client_id]


def described(rules: Rules, asked: AskLogin, browser: Browser) -> Requester:
    """What the sign-in page may say of the request that waits."""
    with rules.begin() as engine:
        marked = replace(browser, marks={asked.handle: mark_of(engine, asked.handle)})
        return describe_pending(engine, asked.sealed_request, marked)
