"""Each refusal of an authorization or token request keeps its reason in an event, for operators (R-12, T151)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from authserver.engine.records import Client, TokenKind
from authserver.testing.rules import Rules
from authserver.testing.server import CHALLENGE, REDIRECT_URI, SETTINGS, VERIFIER, basic, forged
from tests.engine.test_authorization_code import disable_ann, remove_redirect_uri, revoke_grant

OTHER_VERIFIER = VERIFIER[::-1]
FILES = "https://files.example/"


def reasons(rules: Rules, kind: str) -> list[str | None]:
    return [event["reason"] for event in rules.events(kind)]


def changed(**changes: object) -> dict[str, object]:
    return changes


AUTHORIZATION: dict[str, tuple[str, dict[str, object]]] = {
    "no challenge": ("pkce-missing", changed(code_challenge=None, code_challenge_method=None)),
    "no challenge, but a method": ("pkce-missing", changed(code_challenge=None)),
    "no method": ("pkce-method", changed(code_challenge_method=None)),
    "another method": ("pkce-method", changed(code_challenge_method="plain")),
    "a short challenge": ("pkce-challenge", changed(code_challenge=CHALLENGE[:-1])),
    "a state that is not ASCII": ("state-malformed", changed(state="é")),
    "no response type": ("response-type-missing", changed(response_type=None)),
    "an unknown response mode": ("response-mode", changed(response_mode="smoke")),
    "an unknown scope": ("scope-not-registered", changed(scope="nonsense")),
    "more resources than allowed": (
        "too-many-resources",
        changed(resource=[f"https://api.example/{number}" for number in range(40)]),
    ),
    "no redirect URI, and two registered": ("redirect-uri-missing", changed(redirect_uri=None)),
}


@pytest.mark.parametrize(("reason", "changes"), AUTHORIZATION.values(), ids=AUTHORIZATION)
def test_an_authorization_request_is_refused_with_its_reason(
    rules: Rules, reason: str, changes: dict[str, Any]
) -> None:
    """R-12, D-02 to D-07: PKCE and the form of the request."""
    client, _ = rules.add_client(redirect_uris=(REDIRECT_URI, "https://client.example/other"))
    rules.authorize(client, rules.signed_in(), **changes)
    assert reasons(rules, "authorization.refused") == [reason]


Present = Callable[[Rules, Client, str, str], object]
CODE: dict[str, tuple[str, Present]] = {
    "no verifier": (
        "verifier-missing",
        lambda rules, client, secret, code: rules.token(
            client, secret, grant_type="authorization_code", code=code
        ),
    ),
    "a malformed verifier": (
        "verifier-malformed",
        lambda rules, client, secret, code: rules.redeem(client, secret, code, code_verifier="short"),
    ),
    "another verifier": (
        "verifier-wrong",
        lambda rules, client, secret, code: rules.redeem(client, secret, code, code_verifier=OTHER_VERIFIER),
    ),
    "another redirect URI": (
        "redirect-uri-differs",
        lambda rules, client, secret, code: rules.redeem(client, secret, code, redirect_uri="https://e.ex/"),
    ),
    "another resource": (
        "resource-not-granted",
        lambda rules, client, secret, code: rules.redeem(client, secret, code, resource=FILES),
    ),
    "a malformed code": (
        "code-malformed",
        lambda rules, client, secret, code: rules.redeem(client, secret, code[:-1]),
    ),
    "an unknown code": (
        "code-unknown",
        lambda rules, client, secret, code: rules.redeem(client, secret, forged("as_code_")),
    ),
    "the code of another client": (
        "code-of-another-client",
        lambda rules, client, secret, code: rules.redeem(*rules.add_client(), code),
    ),
}


@pytest.mark.parametrize(("reason", "present"), CODE.values(), ids=CODE)
def test_a_code_is_refused_with_its_reason(rules: Rules, reason: str, present: Present) -> None:
    """G-01, G-07, G-08, D-08, D-09, D-11: the client gets one description, the event has the reason."""
    client, secret = rules.add_client()
    assert secret
    present(rules, client, secret, rules.code(client))
    assert reasons(rules, "token.refused") == [reason]


@pytest.mark.parametrize(
    ("reason", "happening"),
    [
        ("grant-revoked", disable_ann),
        ("grant-revoked", revoke_grant),
        ("redirect-uri-withdrawn", remove_redirect_uri),
    ],
)
def test_a_code_is_refused_with_the_reason_of_a_change(
    rules: Rules, reason: str, happening: Callable[[Rules, Client], None]
) -> None:
    """T041."""
    client, secret = rules.add_client()
    code = rules.code(client)
    happening(rules, client)
    rules.redeem(client, secret, code)
    assert reasons(rules, "token.refused") == [reason]


def test_a_replayed_code_and_a_burnt_one_have_different_reasons(rules: Rules) -> None:
    """G-05, T035.b: only the replay revokes."""
    client, secret = rules.add_client()
    replayed, burnt = rules.code(client), rules.code(client)
    for _ in range(2):
        rules.redeem(client, secret, replayed)
    for _ in range(5):
        rules.redeem(client, secret, burnt, code_verifier=OTHER_VERIFIER)
    rules.redeem(client, secret, burnt)
    assert reasons(rules, "token.refused") == ["code-replayed", *["verifier-wrong"] * 5, "code-burnt"]
    assert reasons(rules, "grant.revoked") == ["code-replayed"]


def test_a_code_without_a_challenge_is_wrong_with_every_verifier(rules: Rules) -> None:
    """D-12: such a row was made by hand."""
    client, secret = rules.add_client()
    code = rules.code(client)
    (row,) = (row for row in rules.rows("tokens") if row["kind"] == TokenKind.CODE)
    details = {name: fact for name, fact in row["details"].items() if name != "code_challenge"}
    rules.change("tokens", details=details)
    rules.redeem(client, secret, code)
    assert reasons(rules, "token.refused") == ["verifier-wrong"]


REFRESH: dict[str, tuple[str, Present]] = {
    "malformed": (
        "refresh-token-malformed",
        lambda rules, client, secret, token: rules.refresh(client, secret, token[:-1]),
    ),
    "unknown": (
        "refresh-token-unknown",
        lambda rules, client, secret, token: rules.refresh(client, secret, forged("as_refresh_")),
    ),
    "of another client": (
        "refresh-token-of-another-client",
        lambda rules, client, secret, token: rules.refresh(*rules.add_client(), token),
    ),
    "with a further scope": (
        "scope-not-granted",
        lambda rules, client, secret, token: rules.refresh(client, secret, token, scope="files.read"),
    ),
}


@pytest.mark.parametrize(("reason", "present"), REFRESH.values(), ids=REFRESH)
def test_a_refresh_token_is_refused_with_its_reason(rules: Rules, reason: str, present: Present) -> None:
    """R-12: the client gets one description, the event has the reason."""
    client, secret = rules.add_client()
    assert secret
    token = rules.redeem(client, secret, rules.code(client, scope="profile")).json["refresh_token"]
    present(rules, client, secret, token)
    assert reasons(rules, "token.refused") == [reason]


AUTHENTICATION: dict[str, tuple[str, Callable[[Client, str], tuple[str | None, str]]]] = {
    "no client": ("client-id-missing", lambda client, secret: (None, "")),
    "an unknown client": ("client-unknown", lambda client, secret: (basic("nobody", secret), "")),
    "a wrong secret": (
        "secret-wrong",
        lambda client, secret: (basic(client.client_id, forged("as_secret_")), ""),
    ),
    "a secret that can be none": (
        "secret-malformed",
        lambda client, secret: (basic(client.client_id, "as_secret_x"), ""),
    ),
    "no secret": ("credential-missing", lambda client, secret: (None, f"&client_id={client.client_id}")),
    "another method": (
        "method-not-registered",
        lambda client, secret: (None, f"&client_id={client.client_id}&client_secret={secret}"),
    ),
    "two methods": (
        "two-methods",
        lambda client, secret: (basic(client.client_id, secret), f"&client_secret={secret}"),
    ),
    "another client_id": (
        "client-id-differs",
        lambda client, secret: (basic(client.client_id, secret), "&client_id=other"),
    ),
    "an unknown scheme": ("authorization-scheme", lambda client, secret: (f"Bearer {secret}", "")),
    "no base64": ("authorization-malformed", lambda client, secret: ("Basic *", "")),
    "a malformed assertion": ("client-assertion-malformed", lambda client, secret: (None, "&client_assertion=x")),
}  # fmt: skip


@pytest.mark.parametrize(("reason", "credentials"), AUTHENTICATION.values(), ids=AUTHENTICATION)
def test_a_client_is_refused_with_its_reason(
    rules: Rules, reason: str, credentials: Callable[[Client, str], tuple[str | None, str]]
) -> None:
    """J-03 to J-07, T042, T043: an unknown client and a wrong secret differ for operators alone."""
    client, secret = rules.add_client(grant_types=("client_credentials",))
    assert secret
    authorization, form = credentials(client, secret)
    rules.post("/oauth/token", f"grant_type=client_credentials{form}", authorization=authorization)
    assert reasons(rules, "token.refused") == [reason]


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        ("grant-type-missing", "scope=profile"),
        ("grant-type-not-registered", "grant_type=authorization_code&code=x&code_verifier=x"),
        ("scope-not-registered", "grant_type=client_credentials&scope=nonsense"),
    ],
)
def test_a_token_request_is_refused_with_its_reason(rules: Rules, reason: str, body: str) -> None:
    """R-12, F-04, F-06."""
    client, secret = rules.add_client(grant_types=("client_credentials",))
    rules.post("/oauth/token", body, authorization=basic(client.client_id, secret or ""))
    assert reasons(rules, "token.refused") == [reason]


def test_a_client_without_a_policy_for_its_method_is_refused_with_a_reason(rules: Rules) -> None:
    """J-05: nobody answered."""
    client, secret = rules.add_client(grant_types=("client_credentials",))
    plugins = SETTINGS["authserver.plugins"].replace("client_secret_basic", "")
    closed = Rules({"authserver.plugins": plugins}, rules.stores)
    closed.token(client, secret, grant_type="client_credentials")
    (reason,) = reasons(closed, "token.refused")
    assert reason == "nobody-answered"
