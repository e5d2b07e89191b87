"""The sign-in that a request asks for or that its scopes need (RFC 9470): `step_up`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine

from authserver.api import Parameters
from authserver.engine.authorize import AskConsent, AskLogin, Redirect
from authserver.engine.errors import RedirectError
from authserver.engine.pending import Browser
from authserver.engine.records import Client
from authserver.features.step_up import TOO_OLD, TOO_WEAK, StepUp
from authserver.testing.questions import a_question
from authserver.testing.rules import STRANGER, Rules, assert_redirect_error
from authserver.testing.server import SETTINGS, Server, form_with
from authserver.testing.stories import assert_code as assert_code_at
from authserver.testing.stories import sign_in_at, signed_in

LEVELS = """
    password = pwd
    two-factors = pwd+otp hwk, 3600
    key = hwk
"""
ON = {
    "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nstep_up",
    "authserver.plugin.step_up.levels": LEVELS,
    "authserver.plugin.step_up.scopes": "files.write = two-factors",
}
# Another plugin order must not matter; `essential` is what differs.
VOLUNTARY = {**ON, "authserver.plugin.step_up.essential": "false"}
UNMET = "unmet_authentication_requirements"

Make = Callable[..., Rules]


@pytest.fixture
def rules(make_rules: Make) -> Rules:
    rules = make_rules(ON)
    rules.add_user("ann")
    return rules


@pytest.fixture
def make_rules() -> Make:
    return Rules


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        yield clock


def a_client_of(rules: Rules, **changes: Any) -> tuple[Client, str | None]:
    return rules.add_client(**{"scopes": ("profile", "files.read", "files.write"), **changes})


def asked(rules: Rules, browser: Browser, **changes: Any) -> Any:
    return rules.authorize(a_client_of(rules)[0], browser, **changes)


def tokens_of(rules: Rules, browser: Browser, **changes: Any) -> dict[str, Any]:
    """The claims of an access token, and of the one after a refresh, which says the same of the sign-in."""
    client, secret = a_client_of(rules)
    page = rules.authorize(client, browser, **changes)
    outcome = rules.consent(page) if isinstance(page, AskConsent) else page
    assert isinstance(outcome, Redirect), outcome
    code = parse_qs(urlsplit(outcome.location).query)["code"][0]
    answer = rules.redeem(client, secret, code).json
    claims = rules.claims(answer["access_token"])
    renewed = rules.claims(rules.refresh(client, secret, answer["refresh_token"]).json["access_token"])
    said = {name: claims.get(name) for name in ("acr", "amr", "auth_time")}
    assert said == {name: renewed.get(name) for name in said}
    return claims


# ---- how long ago ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "seconds_ago", "again"),
    [
        ({}, 100_000, False),
        ({"max_age": "300"}, 200, False),
        ({"max_age": "300"}, 301, True),
        ({"max_age": "0"}, 0, True),
        ({"max_age": "00"}, 0, True),
        ({"max_age": "9999999999"}, 100_000, False),
        ({"max_age": ""}, 100_000, False),
        # The clock was set back: how old it is nobody knows (T150).
        ({"max_age": "300"}, -3600, True),
        ({}, -3600, False),
        ({"prompt": "login"}, 0, True),
        # OpenID Connect has more values, which mean nothing to a plain OAuth request.
        ({"prompt": "consent"}, 0, False),
        ({"prompt": "select_account other"}, 0, False),
    ],
    ids=str,
)
def test_a_session_that_is_too_old_signs_in_again(
    rules: Rules, sent: dict[str, str], seconds_ago: int, again: bool
) -> None:
    """STEP-01 (OIDC Core, 3.1.2.1): `max_age=0` and `prompt=login` want a new sign-in each time."""
    browser = rules.signed_in(methods=("pwd",), seconds_ago=seconds_ago)
    answer = asked(rules, browser, **sent)
    assert type(answer) is (AskLogin if again else AskConsent)
    if again:
        assert answer.again


def test_one_new_sign_in_is_enough(rules: Rules) -> None:
    """STEP-01: also for `max_age=0`; and the session that was there leads back to the sign-in page."""
    client, _ = a_client_of(rules)
    old = rules.signed_in(methods=("pwd",), seconds_ago=10)
    ask = rules.authorize(client, old, max_age="0")
    assert isinstance(rules.resume(ask, old), AskLogin)
    assert isinstance(rules.resume(ask, rules.signed_in(methods=("pwd",))), AskConsent)


def test_the_second_sign_in_is_by_the_same_person(rules: Rules, clock: time_machine.Traveller) -> None:
    """STEP-07: for another one the request begins anew, so that Bob signs in for it himself."""
    rules.add_user("bob")
    client, _ = a_client_of(rules)
    ask = rules.authorize(client, rules.signed_in("ann", methods=("pwd",), seconds_ago=1), max_age="0")
    bob = rules.signed_in("bob", methods=("pwd",))
    clock.shift(1)
    anew = rules.resume(ask, bob)
    assert isinstance(anew, AskLogin) and anew.again
    # The old address leads to the same.
    assert isinstance(rules.resume(ask, bob), AskLogin)
    clock.shift(1)
    page = rules.resume(anew, rules.signed_in("bob", methods=("pwd",)))
    assert isinstance(page, AskConsent)
    assert page.agreement.user.username == "bob"
    # Ann comes back to it: for her it begins anew again.
    clock.shift(1)
    assert isinstance(rules.resume(anew, rules.signed_in("ann", methods=("pwd",), seconds_ago=1)), AskLogin)


def test_a_person_who_suffices_goes_on_for_another(rules: Rules, clock: time_machine.Traveller) -> None:
    """STEP-07: it begins anew, and a sign-in a second ago is recent enough for what it asks."""
    rules.add_user("bob")
    client, _ = a_client_of(rules)
    ask = rules.authorize(client, rules.signed_in("ann", methods=("pwd",), seconds_ago=400), max_age="300")
    bob = rules.signed_in("bob", methods=("pwd",))
    clock.shift(1)
    page = rules.resume(ask, bob)
    assert isinstance(page, AskConsent)
    assert isinstance(rules.consent(page), Redirect)
    (grant,) = rules.rows("grants")
    assert grant["user_id"] == bob.user.user_id if bob.user else False


# ---- how ---------------------------------------------------------------------------------------------

# The methods, how long ago, what is asked for, and what comes of it: a level, AskLogin or an error code.
ACR: dict[str, tuple[tuple[str, ...], int, str | None, Any]] = {
    "nothing asked": (("pwd",), 0, None, "password"),
    "nothing asked, the strongest is said": (("hwk", "pwd"), 0, None, "key"),
    "nothing asked or reached": (("mystery",), 0, None, None),
    "reached": (("pwd",), 0, "password", "password"),
    "one of two": (("pwd",), 0, "key password", "password"),
    "the first of two in the order of the request": (("hwk",), 0, "two-factors key", "two-factors"),
    "the same in the other order": (("hwk",), 0, "key two-factors", "key"),
    "a stronger sign-in reaches a weaker level": (("hwk",), 0, "password", "password"),
    "one method of two": (("otp",), -1, "two-factors", AskLogin),
    "both methods and another": (("pwd", "otp", "geo"), 0, "two-factors", "two-factors"),
    "unknown among known": (("pwd",), 0, "gold password", "password"),
    "unknown": (("pwd",), 0, "gold", UNMET),
    "not reached": (("pwd",), 10, "two-factors", AskLogin),
    "not reached by any of two": (("pwd",), 10, "two-factors key", AskLogin),
    "too long ago for the level": (("pwd", "otp"), 4000, "two-factors", AskLogin),
    "too long ago, so a weaker one is said": (("pwd", "otp"), 4000, None, "password"),
    "long ago, by what reaches another level": (("hwk",), 4000, "two-factors", "two-factors"),
    "spaces": (("pwd",), 0, "  password  ", "password"),
}


@pytest.mark.parametrize(("methods", "seconds_ago", "acr_values", "outcome"), ACR.values(), ids=ACR)
def test_only_a_level_that_was_reached_is_in_the_tokens(
    rules: Rules, methods: tuple[str, ...], seconds_ago: int, acr_values: str | None, outcome: Any
) -> None:
    """STEP-02, STEP-04, STEP-06, N-08: and stays there when they are refreshed."""
    browser = rules.signed_in(methods=methods, seconds_ago=max(seconds_ago, 1))
    if outcome is AskLogin:
        answer = asked(rules, browser, acr_values=acr_values)
        assert isinstance(answer, AskLogin) and answer.again
    elif outcome == UNMET:
        assert_redirect_error(asked(rules, browser, acr_values=acr_values), UNMET)
    else:
        assert tokens_of(rules, browser, acr_values=acr_values).get("acr") == outcome


@pytest.mark.parametrize(
    ("methods", "outcome"), [(("pwd",), UNMET), (("pwd", "otp"), AskConsent), (("hwk",), AskConsent)]
)
def test_a_new_sign_in_reaches_the_level_or_nothing_does(
    rules: Rules, methods: tuple[str, ...], outcome: Any
) -> None:
    """STEP-02: the person is asked once; the client learns that it was in vain, and needs not ask again."""
    client, _ = a_client_of(rules)
    ask = rules.authorize(client, rules.signed_in(methods=("pwd",), seconds_ago=9), acr_values="two-factors")
    answer = rules.resume(ask, rules.signed_in(methods=methods))
    if outcome is AskConsent:
        assert isinstance(answer, AskConsent)
    else:
        assert_redirect_error(answer, UNMET)
        assert rules.rows("grants") == []


@pytest.mark.parametrize(("acr_values", "asks"), [("two-factors", True), ("gold", False)])
def test_where_levels_are_voluntary_the_token_says_what_was_reached(
    make_rules: Make, acr_values: str, asks: bool
) -> None:
    """OIDC Core, 3.1.2.1: a level is tried for, and an unknown one is no error."""
    rules = make_rules(VOLUNTARY)
    rules.add_user("ann")
    client, secret = a_client_of(rules)
    old = rules.signed_in(methods=("pwd",), seconds_ago=9)
    answer: Any = rules.authorize(client, old, acr_values=acr_values)
    if asks:
        assert isinstance(answer, AskLogin)
        answer = rules.resume(answer, rules.signed_in(methods=("pwd",)))
    redirect = rules.consent(answer)
    assert isinstance(redirect, Redirect)
    code = parse_qs(urlsplit(redirect.location).query)["code"][0]
    claims = rules.claims(rules.redeem(client, secret, code).json["access_token"])
    assert claims["acr"] == "password"


def test_the_level_is_introspected(make_rules: Make) -> None:
    """STEP-06, RFC 9470, 6.2."""
    rules = make_rules({**ON, "authserver.access_token_format": "opaque"})
    rules.add_user("ann")
    client, secret = a_client_of(rules)
    code = rules.code(client, rules.signed_in(methods=("hwk",)))
    token = rules.redeem(client, secret, code).json["access_token"]
    assert rules.introspect(client, secret, token).json["acr"] == "key"


# ---- scopes that need a level ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("methods", "sent", "outcome"),
    [
        (("pwd",), {"scope": "profile files.read"}, AskConsent),
        (("pwd",), {"scope": "profile files.write"}, AskLogin),
        (("pwd", "otp"), {"scope": "files.write"}, "two-factors"),
        # The weaker level is asked for; the scope needs the stronger one, and that is said.
        (("pwd", "otp"), {"scope": "files.write", "acr_values": "password"}, "two-factors"),
        (("hwk",), {"scope": "files.write", "acr_values": "password key"}, "key"),
        (("pwd", "otp"), {"scope": "files.write", "acr_values": "key"}, AskLogin),
    ],
    ids=str,
)
def test_a_scope_needs_its_level(
    rules: Rules, methods: tuple[str, ...], sent: dict[str, str], outcome: Any
) -> None:
    """STEP-09: whatever the request asks for."""
    browser = rules.signed_in(methods=methods, seconds_ago=5)
    if isinstance(outcome, str):
        assert tokens_of(rules, browser, **sent)["acr"] == outcome
    else:
        assert type(asked(rules, browser, **sent)) is outcome


@pytest.mark.parametrize("settings", [ON, VOLUNTARY], ids=["essential", "voluntary"])
def test_a_scope_is_refused_where_its_level_cannot_be_reached(
    make_rules: Make, settings: dict[str, str]
) -> None:
    """STEP-09: that is the operator's word, so it is never voluntary."""
    rules = make_rules(settings)
    rules.add_user("ann")
    client, _ = a_client_of(rules)
    ask = rules.authorize(client, rules.signed_in(methods=("pwd",), seconds_ago=9), scope="files.write")
    assert_redirect_error(rules.resume(ask, rules.signed_in(methods=("pwd",))), UNMET)


def test_a_scope_that_needs_a_level_is_never_a_default(make_rules: Make) -> None:
    """STEP-09: a request that names no scope says nothing by which the level could be demanded."""
    rules = make_rules({**ON, "authserver.plugin.scopes_default.scopes": "profile files.write"})
    rules.add_user("ann")
    page = asked(rules, rules.signed_in(methods=("pwd",)), scope=None)
    assert isinstance(page, AskConsent)
    assert [name for name, _ in page.scopes] == ["profile"]


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"grant_type": "authorization_code"}, None),
        ({"grant_type": "refresh_token"}, None),
        ({"grant_type": "client_credentials", "user": None}, None),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}, ("profile",)),
        ({"grant_type": "authorization_code", "requested": ()}, ("profile", "files.read")),
    ],
    ids=str,
)
def test_who_is_vouched_for_elsewhere_gets_no_such_scope(
    changes: dict[str, Any], left: tuple[str, ...] | None
) -> None:
    """STEP-09: how that person signed in is not known here; a client that acts for itself signs nobody in."""
    policy = StepUp(levels=(("password", "pwd"),), scopes=(("files.write", "password"),))
    question = a_question("scope_decision", **{"requested": ("profile", "files.write"), **changes})
    client = replace(question.client, scopes=("profile", "files.read", "files.write"))
    answer = policy.scope_decision(client, question.user, question.grant_type, question.requested)
    assert (answer.value if answer else None) == left


# ---- without a page ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [{"max_age": "5"}, {"max_age": "0"}, {"acr_values": "two-factors"}, {"scope": "files.write"}],
    ids=str,
)
@pytest.mark.parametrize("settings", [ON, VOLUNTARY], ids=["essential", "voluntary"])
def test_without_a_page_what_is_not_reached_is_refused(
    make_rules: Make, settings: dict[str, str], sent: dict[str, str]
) -> None:
    """STEP-08, OIDC Core, 3.1.2.6."""
    rules = make_rules(settings)
    rules.add_user("ann")
    browser = rules.signed_in(methods=("pwd",), seconds_ago=9)
    assert_redirect_error(asked(rules, browser, prompt="none", **sent), "login_required")


def test_without_a_page_nobody_signs_in_or_agrees(rules: Rules) -> None:
    """OIDC Core, 3.1.2.6: then what was agreed to before is given, and nothing else."""
    client, _ = a_client_of(rules)
    assert_redirect_error(rules.authorize(client, STRANGER, prompt="none"), "login_required")
    browser = rules.signed_in(methods=("pwd",), seconds_ago=9)
    refused = rules.authorize(client, browser, prompt="none")
    assert_redirect_error(refused, "consent_required")
    rules.code(client, browser)
    assert isinstance(rules.authorize(client, browser, prompt="none"), Redirect)
    more = rules.authorize(client, browser, prompt="none", scope="profile files.read")
    assert_redirect_error(more, "consent_required")


# ---- bad input ---------------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "negative": ({"max_age": "-1"}, "max-age-malformed"),
    "a word": ({"max_age": "soon"}, "max-age-malformed"),
    "a fraction": ({"max_age": "1.5"}, "max-age-malformed"),
    "a sign": ({"max_age": "+5"}, "max-age-malformed"),
    "a space": ({"max_age": " 5"}, "max-age-malformed"),
    "other digits": ({"max_age": "٣"}, "max-age-malformed"),
    "huge": ({"max_age": "9" * 11}, "max-age-malformed"),
    "more digits than Python converts": ({"max_age": "9" * 5000}, "max-age-malformed"),
    "a line end": ({"max_age": "5\n"}, "max-age-malformed"),
    "a long level": ({"acr_values": "a" * 101}, "acr-values-malformed"),
    "many levels": ({"acr_values": " ".join(f"l{n}" for n in range(21))}, "acr-values-malformed"),
    "a quotation mark": ({"acr_values": 'gold"'}, "acr-values-malformed"),
    "another alphabet": ({"acr_values": "золото"}, "acr-values-malformed"),
    "a tabulator": ({"acr_values": "gold\tpassword"}, "acr-values-malformed"),
    "without and with a page": ({"prompt": "none login"}, "prompt-malformed"),
    "without a page, and unknown": ({"prompt": "other none"}, "prompt-malformed"),
    "twice max_age": ({"max_age": ["5", "6"]}, "invalid_request"),
    "twice acr_values": ({"acr_values": ["password", "password"]}, "invalid_request"),
    "twice prompt": ({"prompt": ["login", "login"]}, "invalid_request"),
}


@pytest.mark.parametrize(("sent", "reason"), BAD.values(), ids=BAD)
def test_a_malformed_parameter_is_told_to_the_client(rules: Rules, sent: dict[str, Any], reason: str) -> None:
    """B-16 (OIDC Core, 3.1.2.1): by a redirect, for somebody who is signed in; anybody else signs in first."""
    client, _ = a_client_of(rules)
    assert isinstance(rules.authorize(client, STRANGER, **sent), AskLogin)
    answer = rules.authorize(client, rules.signed_in(methods=("pwd",), seconds_ago=1), **sent)
    assert_redirect_error(answer, "invalid_request")
    assert isinstance(answer, RedirectError)
    assert answer.reason == reason


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"levels": ()}, "levels: name at least one"),
        ({"levels": (("a b", "pwd"),)}, "levels: a b: a name has"),
        ({"levels": (('a"', "pwd"),)}, "a name has"),
        ({"levels": (("a" * 101, "pwd"),)}, "a name has"),
        ({"levels": (("a", ""),)}, "levels: a: name the methods"),
        ({"levels": (("a", "pwd+"),)}, "levels: a: name the methods"),
        ({"levels": (("a", "pwd, soon"),)}, "levels: a: after the comma"),
        ({"levels": (("a", "pwd,"),)}, "levels: a: after the comma"),
        ({"levels": (("a", "pwd, 0"),)}, "levels: a: after the comma"),
        ({"levels": (("a", "pwd"), ("a", "otp"))}, "levels: two lines"),
        ({"levels": (("gold", "pwd"),), "scopes": (("x", "golt"),)}, "levels has no golt; did you mean gold"),
    ],
    ids=str,
)
def test_a_table_that_cannot_be_meant_stops_the_start(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        StepUp(**fields)


def test_the_policy_alone_says_what_it_reads() -> None:
    """A question without a session is about nobody: silence, so that they sign in."""
    policy = StepUp(levels=(("password", "pwd"),))
    for text in ("", "max_age=5", "acr_values=gold", "prompt=login"):
        assert policy.authentication_decision(None, False, Parameters.parse(text)) is None


# ---- through the pages -------------------------------------------------------------------------------


def test_a_client_steps_up_and_the_page_says_why(sqlite_url: str) -> None:
    """STEP-01, STEP-05, STEP-07: the name of who is signed in is typed already, and their password is not."""
    server = Server(sqlite_url, ON)
    server.add_user("ann")
    client, secret = server.add_client(scopes=("profile", "files.write"))
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    assert metadata["acr_values_supported"] == ["password", "two-factors", "key"]
    browser = signed_in(server)
    for sent, why in (({"max_age": "0"}, TOO_OLD), ({"acr_values": "two-factors"}, TOO_WEAK)):
        page = browser.get(server.authorization_url(client, **sent)).follow()
        assert why in page
        form = form_with(page, "username")
        assert (form["username"].value, form["password"].value) == ("ann", "")
        wrong = sign_in_at(page, password="wrong password")
        assert why in wrong
        after = sign_in_at(wrong).follow()
        if "max_age" in sent:
            answer = server.redeem(client, secret, assert_code_at(server.consent(after)))
            assert server.claims(answer.json["access_token"])["acr"] == "password"
        else:
            assert parse_qs(urlsplit(after.location).query)["error"] == [UNMET]
    server.close()


def test_time_is_what_makes_a_session_too_old(rules: Rules, clock: time_machine.Traveller) -> None:
    """STEP-01: the same request goes on now, and asks in six minutes."""
    client, _ = a_client_of(rules)
    browser = rules.signed_in(methods=("pwd",))
    clock.shift(1)
    assert isinstance(rules.authorize(client, browser, max_age="300"), AskConsent)
    clock.shift(timedelta(minutes=6))
    assert isinstance(rules.authorize(client, browser, max_age="300"), AskLogin)
