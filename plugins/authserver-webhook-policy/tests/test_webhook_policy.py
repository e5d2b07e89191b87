"""What the endpoint's answers come to, hook by hook."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from listener import SECRET, Listener, answering, sending

from authserver.api import (
    DECIDING,
    AuthenticationStep,
    ClientMetadata,
    Credentials,
    Decision,
    Identity,
    Secret,
    Wait,
    allow,
    deny,
    narrow,
)
from authserver.plugins.asking import PluginSet
from authserver.testing.questions import a_question
from authserver.testing.records import a_client, a_consent, a_user
from authserver_webhook_policy import HOOKS, EndpointFailed, UnusableAnswer, WebhookPolicy
from authserver_webhook_policy.answers import read

METADATA = ClientMetadata(
    client_name="Example",
    redirect_uris=("https://a.example/cb", "https://b.example/cb"),
    grant_types=("authorization_code", "refresh_token"),
    scopes=("read", "write"),
    details={"contacts": ["ann@example.com"]},
)
PASSWORD = "canary correct horse"
BEARER = "canary-initial-access-token"
# Questions about something in particular; others are ordinary ones.
ASKED: Mapping[str, Mapping[str, Any]] = {
    "client_auth_decision": {
        "client": a_client(),
        "credentials": Credentials(
            method="client_secret_basic",
            client_id="reports",
            secret_matches=True,
            headers={"x-canary": "canary"},
        ),
    },
    "redirect_uri_decision": {
        "client": a_client(),
        "redirect_uri": "https://reports.example/callback",
    },
    "scope_decision": {
        "client": a_client(),
        "user": a_user(),
        "grant_type": "authorization_code",
        "requested": ("read", "write"),
        "resources": ("https://api.example/",),
    },
    "resource_decision": {"client": a_client(), "resource": "https://api.example/"},
    "consent_decision": {
        "client": a_client(),
        "user": a_user(),
        "scopes": ("read",),
        "resources": (),
        "remembered": a_consent(),
    },
    "login_decision": {
        "username": "ada",
        "password": Secret(PASSWORD),
        "user": a_user(),
        "source": "192.0.2.1",
    },
    "identity_decision": {
        "provider": "staff",
        "issuer": "https://login.example",
        "claims": {"sub": "canary-subject", "email": "canary@example.com"},
        "user": a_user(),
    },
    "registration_decision": {
        "metadata": METADATA,
        "bearer": Secret(BEARER),
        "source": "192.0.2.1",
        "token": None,
        "client": None,
    },
}
# A value that fits the hook, where it has one, and what the policy makes of it.
VALUES: Mapping[str, tuple[Any, Any]] = {
    "scope_decision": (["read"], ("read",)),
    "resource_decision": ("https://api.example/", "https://api.example/"),
    "authentication_decision": ("sign_in_again", AuthenticationStep.SIGN_IN_AGAIN),
    "login_decision": (
        {"username": "ada", "display_name": "Ada"},
        Identity(username="ada", display_name="Ada"),
    ),
    "identity_decision": (
        {"username": "ada", "display_name": "Ada"},
        Identity(username="ada", display_name="Ada", methods=()),
    ),
    "registration_decision": ({"scopes": ["read"]}, replace(METADATA, scopes=("read",))),
}
TOKEN_FACTS = {
    "client_id": "reports",
    "subject": "user_ada",
    "audience": ["https://api.example/"],
    "scopes": ["read", "write"],
    "kind": "access",
}
README = Path(__file__).parents[1] / "README.md"
every_hook = pytest.mark.parametrize("hook", HOOKS)


def ask(policy: WebhookPolicy, hook: str, **changes: Any) -> Decision[Any] | None:
    question = a_question(hook, **{**ASKED.get(hook, {}), **changes})
    function = getattr(policy, hook)
    decision: Decision[Any] | None = function(
        **{name: getattr(question, name) for name in inspect.signature(function).parameters}
    )
    return decision


def test_every_deciding_hook_can_be_answered_elsewhere(policy: WebhookPolicy) -> None:
    """Also those that come to authserver after this plugin was written."""
    plugins = PluginSet([("webhook_policy", policy)])
    assert all(plugins.serves(hook) for hook in DECIDING)


# Verdicts


@every_hook
def test_an_allow_is_an_allow_with_its_value(
    hook: str, endpoint: Listener, make_policy: Callable[..., WebhookPolicy]
) -> None:
    policy = make_policy(send_password=True)
    sent, value = VALUES.get(hook, (None, None))
    endpoint.answers(verdict="allow", reason="because", **({} if sent is None else {"value": sent}))
    assert ask(policy, hook) == allow("webhook-allowed", value)


@pytest.mark.parametrize(
    "name",
    [
        "o'brien@example.com",
        "CORP\\ann",
        "svc$",
        "\u4f50\u3005\u6728",
        "\u0645\u06cc\u200c\u0646\u0648\u06cc\u0633",
    ],
    ids=ascii,
)
def test_a_name_is_taken_as_the_endpoint_has_it(
    name: str, endpoint: Listener, make_policy: Callable[..., WebhookPolicy]
) -> None:
    """B201, B202: whether it can be a user name, the server knows."""
    endpoint.answers(verdict="allow", reason="because", value={"username": name})
    decision = ask(make_policy(send_password=True), "login_decision")
    assert decision == allow("webhook-allowed", Identity(username=name))


@every_hook
def test_a_deny_is_a_deny(hook: str, endpoint: Listener, policy: WebhookPolicy) -> None:
    endpoint.answers(verdict="deny", reason="because", value=None)
    assert ask(policy, hook) == deny("webhook-denied")


@every_hook
def test_a_deny_has_an_error_code_where_the_hook_takes_one(
    hook: str, endpoint: Listener, policy: WebhookPolicy
) -> None:
    """OAuth 2.1, 4.1.2.1."""
    endpoint.answers(verdict="deny", reason="because", error_code="login_required")
    if hook == "authentication_decision":
        assert ask(policy, hook) == deny("webhook-denied", "login_required")
    else:
        with pytest.raises(UnusableAnswer, match="has no error_code"):
            ask(policy, hook)


@every_hook
def test_a_deny_has_a_wait_where_the_hook_takes_one(
    hook: str, endpoint: Listener, policy: WebhookPolicy
) -> None:
    """RFC 6585, 4."""
    for wait, expected in (
        ({"seconds": 60, "leaves_event": False}, Wait(60, False)),
        ({"seconds": 1}, Wait(1, True)),
        (None, None),
    ):
        endpoint.answers(verdict="deny", reason="because", wait=wait)
        if wait is None or hook == "rate_decision":
            assert ask(policy, hook) == deny("webhook-denied", wait=expected)
        else:
            with pytest.raises(UnusableAnswer, match="has no wait"):
                ask(policy, hook)


@every_hook
def test_none_is_silence(hook: str, endpoint: Listener, policy: WebhookPolicy) -> None:
    for answer in ({"verdict": "none"}, {"verdict": "none", "reason": "not-mine", "value": None}):
        endpoint.answers(**answer)
        assert ask(policy, hook) is None
    assert len(endpoint.received) == 2


@every_hook
def test_scopes_are_narrowed_and_nothing_else(hook: str, endpoint: Listener, policy: WebhookPolicy) -> None:
    endpoint.answers(verdict="narrow", reason="because", value=["read", "other", "read"])
    if hook == "scope_decision":
        assert ask(policy, hook) == narrow("webhook-narrowed", ("read", "other"))
    else:
        with pytest.raises(UnusableAnswer, match="cannot be narrowed"):
            ask(policy, hook)


@pytest.mark.parametrize(
    ("said", "recorded"),
    [("known", "known"), ("blocked-by-risk", "blocked-by-risk"), ("unheard-of", "webhook-denied")],
)
def test_reasons_that_are_known_are_recorded(
    said: str, recorded: str, endpoint: Listener, policy: WebhookPolicy
) -> None:
    endpoint.answers(verdict="deny", reason=said)
    assert ask(policy, "consent_decision") == deny(recorded)
    assert recorded in policy.reasons


# Questions


@pytest.mark.parametrize(
    ("hook", "facts"),
    [
        (
            "client_auth_decision",
            {
                "client_id": "reports",
                "method": "client_secret_basic",
                "secret_matches": True,
                "is_proven": False,
                "assertion": False,
            },
        ),
        (
            "redirect_uri_decision",
            {"client_id": "reports", "redirect_uri": "https://reports.example/callback"},
        ),
        (
            "scope_decision",
            {
                "client_id": "reports",
                "user_id": "user_ada",
                "groups": [],
                "attributes": {},
                "grant_type": "authorization_code",
                "requested": ["read", "write"],
                "resources": ["https://api.example/"],
            },
        ),
        ("resource_decision", {"client_id": "reports", "resource": "https://api.example/"}),
        (
            "consent_decision",
            {
                "client_id": "reports",
                "user_id": "user_ada",
                "groups": [],
                "attributes": {},
                "scopes": ["read"],
                "resources": [],
                "remembered": True,
            },
        ),
        (
            "login_decision",
            {"user_id": "user_ada", "username": "ada", "source": "192.0.2.1"},
        ),
        (
            "identity_decision",
            {
                "provider": "staff",
                "issuer": "https://login.example",
                "claims": ["email", "sub"],
                "user_id": "user_ada",
                "groups": [],
                "attributes": {},
            },
        ),
        (
            "registration_decision",
            {
                "metadata": {
                    "client_name": "Example",
                    "redirect_uris": ["https://a.example/cb", "https://b.example/cb"],
                    "token_endpoint_auth_method": "client_secret_basic",
                    "grant_types": ["authorization_code", "refresh_token"],
                    "response_types": ["code"],
                    "scopes": ["read", "write"],
                    "application_type": "web",
                    "details": {"contacts": ["ann@example.com"]},
                },
                "bearer": True,
                "token": None,
                "source": "192.0.2.1",
                "client_id": None,
            },
        ),
        (
            "rate_decision",
            {
                "counted": "failed_client_authentication",
                "step": "claim",
                "endpoint": "example",
                "source": "192.0.2.1",
                "client_id": None,
                "account": None,
                "device_id": None,
                "grant_id": None,
            },
        ),
        ("introspection_decision", {"client_id": "reports", "token": TOKEN_FACTS}),
        ("origin_decision", {"origin": "https://client.example", "endpoint": "example", "registered": True}),
    ],
)
def test_a_question_is_the_hook_and_its_facts(
    hook: str, facts: dict[str, Any], endpoint: Listener, policy: WebhookPolicy
) -> None:
    """T140: no secret is among them."""
    ask(policy, hook)
    (received,) = endpoint.received
    assert json.loads(received.body) == {"hook": hook, "facts": facts}
    assert b"canary" not in received.body
    (row,) = [line for line in README.read_text().splitlines() if line.startswith(f"| `{hook}` | ")]
    assert [name for name in facts if f"`{name}`" not in row] == []


def test_a_password_is_sent_only_where_the_operator_says_so(
    endpoint: Listener, make_policy: Callable[..., WebhookPolicy]
) -> None:
    ask(make_policy(), "login_decision")
    ask(make_policy(send_password=True), "login_decision")
    silent, told = endpoint.questions
    assert "typed" not in silent
    assert told["typed"] == {"username": "ada", "password": PASSWORD}


def test_passwords_that_leave_are_announced_at_start(
    make_policy: Callable[..., WebhookPolicy], caplog: pytest.LogCaptureFixture
) -> None:
    make_policy()
    assert caplog.records == []
    make_policy(send_password=True)
    assert "the passwords that people type are sent to http://localhost:" in caplog.text


@pytest.mark.parametrize("typed", [("", ""), ("ada", ""), ("", PASSWORD)])
def test_nobody_is_asked_about_an_empty_form(
    typed: tuple[str, str], endpoint: Listener, make_policy: Callable[..., WebhookPolicy]
) -> None:
    """Before the page is shown the question is asked with nothing typed: an allow would sign anybody in."""
    endpoint.answers(verdict="allow", reason="known", value={"username": "ada"})
    policy = make_policy(send_password=True)
    assert ask(policy, "login_decision", username=typed[0], password=Secret(typed[1])) is None
    assert endpoint.received == []


# Who vouches


def test_who_has_not_seen_the_password_cannot_sign_anybody_in(
    endpoint: Listener, policy: WebhookPolicy
) -> None:
    endpoint.answers(verdict="allow", reason="known", value={"username": "ada"})
    assert ask(policy, "login_decision") is None
    endpoint.answers(verdict="deny", reason="known")
    assert ask(policy, "login_decision") == deny("known")


def test_who_does_not_see_whom_another_server_means_makes_nobody(
    endpoint: Listener, policy: WebhookPolicy
) -> None:
    """The facts have the names of the claims only, so an allow would give any stranger that name."""
    endpoint.answers(verdict="allow", reason="known", value={"username": "ada"})
    assert ask(policy, "identity_decision", user=None) is None
    endpoint.answers(verdict="deny", reason="known")
    assert ask(policy, "identity_decision", user=None) == deny("known")


@pytest.mark.parametrize(
    ("client", "credentials"),
    [
        ({"auth_method": "private_key_jwt"}, {"method": "client_assertion", "assertion": "a.b.c"}),
        ({"auth_method": "tls_client_auth"}, {"method": "none"}),
        ({}, {"method": "none"}),
    ],
)
def test_a_client_that_the_server_has_not_proven_is_not_let_in(
    client: dict[str, Any],
    credentials: dict[str, Any],
    endpoint: Listener,
    policy: WebhookPolicy,
) -> None:
    """No assertion and no certificate leaves the server, so the endpoint cannot have checked one."""
    question = {
        "client": a_client(**client),
        "credentials": Credentials(client_id="reports", **credentials),
    }
    endpoint.answers(verdict="allow", reason="known")
    assert ask(policy, "client_auth_decision", **question) is None
    endpoint.answers(verdict="deny", reason="known")
    assert ask(policy, "client_auth_decision", **question) == deny("known")


def test_a_public_client_may_be_let_in(endpoint: Listener, policy: WebhookPolicy) -> None:
    endpoint.answers(verdict="allow", reason="known")
    question = {
        "client": a_client(auth_method="none"),
        "credentials": Credentials(method="none", client_id="reports"),
    }
    assert ask(policy, "client_auth_decision", **question) == allow("known")


def test_guessed_secrets_do_not_reach_the_endpoint(endpoint: Listener, policy: WebhookPolicy) -> None:
    wrong = Credentials(method="client_secret_post", client_id="reports", secret_matches=False)
    assert ask(policy, "client_auth_decision", credentials=wrong) is None
    assert endpoint.received == []


# Values


def test_scopes_that_nobody_asked_for_are_cut(endpoint: Listener, policy: WebhookPolicy) -> None:
    """E-15."""
    endpoint.answers(verdict="allow", reason="known", value=["admin", "write", "read"])
    assert ask(policy, "scope_decision") == allow("known", ("write", "read"))
    assert ask(policy, "scope_decision", requested=("read",)) == allow("known", ("read",))
    unnamed = ask(policy, "scope_decision", requested=(), client=a_client(scopes=("write",)))
    assert unnamed == allow("known", ("write",))


def test_the_default_resource_is_the_endpoint_s_to_name(endpoint: Listener, policy: WebhookPolicy) -> None:
    endpoint.answers(verdict="allow", reason="known", value="https://api.example/")
    assert ask(policy, "resource_decision", resource=None) == allow("known", "https://api.example/")


def test_registration_is_confined_to_what_was_asked_for(endpoint: Listener, policy: WebhookPolicy) -> None:
    endpoint.answers(
        verdict="allow",
        reason="known",
        value={
            "scopes": [],
            "redirect_uris": ["https://b.example/cb"],
            "grant_types": ["authorization_code"],
        },
    )
    assert ask(policy, "registration_decision") == allow(
        "known",
        replace(
            METADATA, scopes=(), redirect_uris=("https://b.example/cb",), grant_types=("authorization_code",)
        ),
    )
    endpoint.answers(verdict="allow", reason="known", value={})
    assert ask(policy, "registration_decision") == allow("known", METADATA)


def test_without_the_code_grant_there_is_no_response_type(endpoint: Listener, policy: WebhookPolicy) -> None:
    metadata = replace(METADATA, grant_types=("authorization_code", "client_credentials"))
    endpoint.answers(verdict="allow", reason="known", value={"grant_types": ["client_credentials"]})
    decision = ask(policy, "registration_decision", metadata=metadata)
    assert decision is not None
    assert decision.value.response_types == ()


def test_a_client_that_asks_for_no_scopes_may_be_given_some(
    endpoint: Listener, policy: WebhookPolicy
) -> None:
    endpoint.answers(verdict="allow", reason="known", value={"scopes": ["read"]})
    decision = ask(policy, "registration_decision", metadata=replace(METADATA, scopes=()))
    assert decision is not None
    assert decision.value.scopes == ("read",)


WRONG_VALUES: Mapping[str, tuple[Any, ...]] = {
    "client_auth_decision": ("", {}, True, "reports"),
    "redirect_uri_decision": ("https://evil.example/cb", [], 0),
    "consent_decision": (["read"], False),
    "scope_decision": (
        None,
        "read",
        {"read": 1},
        ["read", 1],
        [["read"]],
        ["a b"],
        ["é"],
        [""],
        ["s"] * 1001,
    ),
    "resource_decision": (
        None,
        "",
        1,
        ["https://api.example/"],
        "https://evil.example/",
        "https://api.example/?x",
        "https://api.example/#f",
        "api",
        "https://[",
    ),
    "authentication_decision": (None, "", "sign_out", "SIGN_IN_AGAIN", True, ["go_on"], {}),
    "login_decision": (
        None,
        "ada",
        [],
        {},
        {"username": ""},
        {"username": 1},
        {"username": None},
        {"username": "a" * 101},
        {"username": "a\x00"},
        {"username": "a\ud800"},
        {"username": "ada", "display_name": None},
        {"username": "ada", "display_name": "a\nb"},
        {"username": "ada", "display_name": "a" * 101},
        {"username": "ada", "methods": ["hwk"]},
        {"username": "ada", "admin": True},
    ),
    "registration_decision": (
        None,
        [],
        "all",
        {"scopes": None},
        {"scopes": "read"},
        {"scopes": ["admin"]},
        {"scopes": [1]},
        {"grant_types": ["client_credentials"]},
        {"redirect_uris": ["https://evil.example/cb"]},
        {"redirect_uris": [["https://a.example/cb"]]},
        {"client_name": "Bank"},
        {"first_party": True},
        {"token_endpoint_auth_method": "none"},
    ),
}


@pytest.mark.parametrize(
    ("hook", "value"), [(hook, value) for hook, values in WRONG_VALUES.items() for value in values]
)
def test_an_allow_with_a_wrong_value_is_no_answer(
    hook: str, value: Any, endpoint: Listener, make_policy: Callable[..., WebhookPolicy]
) -> None:
    """E-15, R-14: neither a type nor a permission that the hook does not have."""
    policy = make_policy(send_password=True, cache_seconds=60)
    endpoint.answers(verdict="allow", reason="known", value=value)
    for _ in range(2):  # nor is it remembered
        with pytest.raises(UnusableAnswer):
            ask(policy, hook)
    assert len(endpoint.received) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"true",
        b'"allow"',
        b"[]",
        b'["allow"]',
        b"{",
        b"{}",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"[" * 60_000,
        b'{"verdict": "allow"}',
        b'{"verdict": "allow", "reason": ""}',
        b'{"verdict": "allow", "reason": 1}',
        b'{"verdict": "allow", "reason": null}',
        b'{"verdict": "allow", "reason": ["ok"]}',
        b'{"verdict": "allow", "reason": "Because I say so"}',
        b'{"verdict": "allow", "reason": "ok\\n"}',
        b'{"verdict": "allow", "reason": "' + b"a" * 65 + b'"}',
        b'{"verdict": "ALLOW", "reason": "ok"}',
        b'{"verdict": "silent", "reason": "ok"}',
        b'{"verdict": true, "reason": "ok"}',
        b'{"verdict": ["allow"], "reason": "ok"}',
        b'{"verdict": null, "reason": "ok"}',
        b'{"reason": "ok"}',
        b'{"verdict": "deny"}',
        b'{"verdict": "deny", "reason": "ok", "value": []}',
        b'{"verdict": "deny", "reason": "ok", "error_code": ""}',
        b'{"verdict": "deny", "reason": "ok", "error_code": 1}',
        b'{"verdict": "deny", "reason": "ok", "error_code": "Login"}',
        b'{"verdict": "deny", "reason": "ok", "error_code": "a b"}',
        b'{"verdict": "deny", "reason": "ok", "error_code": "login_required\\n"}',
        b'{"verdict": "deny", "reason": "ok", "error_code": "' + b"a" * 51 + b'"}',
        b'{"verdict": "allow", "reason": "ok", "error_code": "login_required"}',
        b'{"verdict": "none", "error_code": "login_required"}',
        b'{"verdict": "allow", "reason": "ok", "wait": {"seconds": 1}}',
        b'{"verdict": "deny", "reason": "ok", "wait": 60}',
        b'{"verdict": "deny", "reason": "ok", "wait": {}}',
        b'{"verdict": "deny", "reason": "ok", "wait": {"seconds": 0}}',
        b'{"verdict": "deny", "reason": "ok", "wait": {"seconds": 2678401}}',
        b'{"verdict": "deny", "reason": "ok", "wait": {"seconds": 1.5}}',
        b'{"verdict": "deny", "reason": "ok", "wait": {"seconds": true}}',
        b'{"verdict": "deny", "reason": "ok", "wait": {"seconds": 1, "leaves_event": 0}}',
        b'{"verdict": "deny", "reason": "ok", "wait": {"seconds": 1, "minutes": 1}}',
        b'{"verdict": "none", "value": ["read"]}',
        b'{"verdict": "none", "reason": 1}',
        b'{"verdict": "deny", "verdict": "allow", "reason": "ok"}',
        b'{"verdict": "allow", "reason": "ok", "until": 1}',
        b'{"verdict": "allow", "reason": "ok", "value": NaN}',
        b'{"verdict": "allow", "reason": "ok", "value": ' + b"9" * 5000 + b"}",
        b'{"verdict": "allow", "reason": "ok"} {"verdict": "deny", "reason": "ok"}',
    ],
    ids=lambda body: repr(body[:60]),
)
def test_what_is_not_of_the_form_is_no_answer(body: bytes, endpoint: Listener, policy: WebhookPolicy) -> None:
    """R-14."""
    with pytest.raises(UnusableAnswer):
        read(body)
    endpoint.reply = sending(200, body)
    with pytest.raises(UnusableAnswer):
        ask(policy, "consent_decision")


# Remembering


def test_the_very_same_question_is_asked_once(
    endpoint: Listener, make_policy: Callable[..., WebhookPolicy]
) -> None:
    policy = make_policy(cache_seconds=60)
    endpoint.answers(verdict="allow", reason="ok", value=["read", "write"])
    first = ask(policy, "scope_decision")
    endpoint.answers(verdict="deny", reason="ok")
    assert ask(policy, "scope_decision") == first
    assert len(endpoint.received) == 1
    for change in ({"requested": ("write", "read")}, {"user": None}, {"client": a_client(client_id="c2")}):
        assert ask(policy, "scope_decision", **change) == deny("webhook-denied")
    assert len(endpoint.received) == 4


def test_a_remembered_answer_is_fitted_to_the_client_of_now(
    endpoint: Listener, make_policy: Callable[..., WebhookPolicy]
) -> None:
    """What the client is registered for is no fact of the question; a remembered answer must not bring it back."""
    policy = make_policy(cache_seconds=60)
    endpoint.answers(verdict="allow", reason="ok", value=["read", "write"])
    for scopes in (("read", "write"), ("read",)):
        decision = ask(policy, "scope_decision", requested=(), client=a_client(scopes=scopes))
        assert decision == allow("webhook-allowed", scopes)
    assert len(endpoint.received) == 1


@every_hook
def test_only_allow_and_narrow_are_remembered_and_never_a_sign_in_or_a_count(
    hook: str, endpoint: Listener, make_policy: Callable[..., WebhookPolicy]
) -> None:
    """R-20: an endpoint that counts hears of each request."""
    policy = make_policy(cache_seconds=60, send_password=True)
    for verdict, value in (("none", None), ("deny", None), ("allow", VALUES.get(hook, (None,))[0])):
        endpoint.received.clear()
        endpoint.answers(verdict=verdict, reason="ok", value=value)
        for _ in range(3):
            ask(policy, hook)
        kept = verdict == "allow" and hook not in ("identity_decision", "login_decision", "rate_decision")
        assert len(endpoint.received) == (1 if kept else 3)


def test_a_remembered_answer_ends(endpoint: Listener, make_policy: Callable[..., WebhookPolicy]) -> None:
    policy = make_policy(cache_seconds=1)
    endpoint.answers(verdict="allow", reason="ok")
    ask(policy, "consent_decision")
    ask(policy, "consent_decision")
    assert len(endpoint.received) == 1
    time.sleep(1.05)
    ask(policy, "consent_decision")
    assert len(endpoint.received) == 2


def test_no_more_are_remembered_than_set(
    endpoint: Listener, make_policy: Callable[..., WebhookPolicy]
) -> None:
    policy = make_policy(cache_seconds=60, cache_size=2)
    endpoint.answers(verdict="allow", reason="ok")
    for uri in ("https://a/", "https://b/", "https://c/", "https://c/", "https://b/", "https://a/"):
        ask(policy, "redirect_uri_decision", redirect_uri=uri)
    uris = [question["facts"]["redirect_uri"] for question in endpoint.questions]
    assert uris == ["https://a/", "https://b/", "https://c/", "https://a/"]


def test_without_the_setting_every_question_is_asked(endpoint: Listener, policy: WebhookPolicy) -> None:
    endpoint.answers(verdict="allow", reason="ok")
    for _ in range(3):
        ask(policy, "consent_decision")
    assert len(endpoint.received) == 3


def test_trouble_is_not_remembered(endpoint: Listener, make_policy: Callable[..., WebhookPolicy]) -> None:
    policy = make_policy(cache_seconds=60, retries=0)
    endpoint.script = [sending(500), sending(503)]
    endpoint.reply = answering(verdict="allow", reason="ok")
    for _ in range(2):
        with pytest.raises(EndpointFailed):
            ask(policy, "consent_decision")
    assert ask(policy, "consent_decision") == allow("webhook-allowed")


# Settings


@every_hook
def test_a_hook_that_is_not_named_is_not_served(
    hook: str, endpoint: Listener, make_policy: Callable[..., WebhookPolicy]
) -> None:
    """So that leaving registration out leaves registration closed."""
    endpoint.answers(verdict="allow", reason="ok")
    policy = make_policy(hooks=tuple(other for other in HOOKS if other != hook))
    plugins = PluginSet([("webhook_policy", policy)])
    assert not plugins.decide(a_question(hook)).answers
    assert endpoint.received == []
    assert [name for name in HOOKS if not plugins.serves(name)] == [hook]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hooks": ()}, "hooks: is empty; name some of client_auth_decision"),
        ({"hooks": ("scopes_decision",)}, "hooks: scopes_decision: no such hook; known: "),
        ({"hooks": ("server_metadata",)}, "hooks: server_metadata: no such hook"),
        ({"url": ""}, "url: must be such as https://"),
        ({"url": "policy.example.com/decide"}, "url: must be such as https://"),
        ({"url": "ftp://policy.example.com/"}, "url: must be such as https://"),
        ({"url": "https:///decide"}, "url: must be such as https://"),
        ({"url": "https://policy.example.com:99999/"}, "url: must be such as https://"),
        ({"url": "https://[::1/"}, "url: must be such as https://"),
        ({"url": "https://ann:secret@policy.example.com/"}, "url: must be such as https://"),
        ({"url": "https://policy.example.com/#a"}, "url: must be such as https://"),
        ({"url": "https://policy.example.com/a b"}, "url: must have visible ASCII"),
        ({"url": "https://p\u00f6licy.example.com/"}, "url: must have visible ASCII"),
        ({"url": "http://policy.example.com/"}, "url: must be https; http is for localhost"),
        ({"url": "http://127.0.0.1.evil.example/"}, "url: must be https"),
        ({"url": "http://10.0.0.7/"}, "url: must be https"),
        ({"secret": Secret("guess")}, "secret: must be base64 of 24 to 64 random bytes"),
        ({"timeout": 0}, "timeout: must be 0.01 to 30"),
        ({"timeout": float("nan")}, "timeout: must be 0.01 to 30"),
        ({"retries": -1}, "retries: must be 0 to 5"),
        ({"retries": 6}, "retries: must be 0 to 5"),
        ({"cache_seconds": -1}, "cache_seconds: must be 0 to 3600"),
        ({"cache_size": 0}, "cache_size: must be 1 to 100000"),
        ({"known_reasons": ("Not one",)}, "known_reasons: 'Not one': must be small letters"),
        ({"ca_file": "-----BEGIN\nCERTIFICATE"}, "ca_file: this is the text of a file"),
        ({"ca_file": "/etc/ssl/ca.pem"}, "ca_file: is for https; remove it"),
        (
            {"hooks": ("scope_decision",), "send_password": True},
            "send_password: only login_decision has a password",
        ),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(
    settings: dict[str, Any], message: str, make_policy: Callable[..., WebhookPolicy]
) -> None:
    with pytest.raises(ValueError) as refusal:
        make_policy(**settings)
    assert message in str(refusal.value)


def test_a_ca_file_that_is_none_is_refused(tmp_path: Path, make_policy: Callable[..., WebhookPolicy]) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(ValueError, match="ca_file: cannot be used"):
            make_policy(url="https://policy.example.com/", ca_file=str(tmp_path / name))


def test_no_repr_shows_the_secret(policy: WebhookPolicy) -> None:
    assert SECRET not in repr(policy)
    assert SECRET.removeprefix("whsec_") not in repr(policy)
