"""Initial access tokens of named registration policies (RFC 7591, 3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from authserver.engine.clients import initial_tokens
from authserver.engine.crypto import digests
from authserver.explaining.remedies import remedy_of
from authserver.testing.rules import Answer, Rules, assert_refused
from authserver.testing.server import SETTINGS
from authserver.testing.service import REDIRECT_URI, self_registration

POLICIES = """
    partners = scopes files.read, grant_types authorization_code, auth_methods none, redirect_hosts *.example
    two = clients 2
    plain = scopes profile files.read
"""
TOKENS = {
    "authserver.plugins": SETTINGS["authserver.plugins"].replace("registration_open", "registration_token"),
    "authserver.plugin.registration_open.scopes": None,
    "authserver.plugin.registration_token.scopes": "profile",
    "authserver.plugin.registration_token.tokens": "of-the-ini-0123456789abcdefABCDEF",
    "authserver.plugin.registration_token.policies": POLICIES,
}
UNUSABLE = "The initial access token cannot be used any more."

Make = Callable[..., tuple[str, str]]


@pytest.fixture
def rules() -> Rules:
    return Rules(TOKENS)


@pytest.fixture
def make(rules: Rules) -> Make:
    """The id of a new token, and the token."""

    def make(policy: str = "plain", uses: int | None = None, **lifetime: int) -> tuple[str, str]:
        with rules.begin() as engine:
            token, text = initial_tokens.make(
                engine,
                policy=policy,
                uses=uses,
                expires_at=engine.now + timedelta(**(lifetime or {"days": 1})),
                note="for a test",
            )
        return token.token_id, text

    return make


def register(rules: Rules, token: str, **metadata: Any) -> Answer:
    return rules.register(self_registration(**metadata), bearer=token)


def used(rules: Rules, token_id: str) -> int:
    return rules.stores.tables.initial_tokens[token_id].used


def assert_unusable(answer: Answer, reason: str) -> None:
    """It is said to be of no use, with what to do about it for operators."""
    assert_refused(answer, "invalid_token", status=401)
    assert answer.refusal is not None
    assert answer.refusal.reason == reason
    assert "authserver initial-token" in remedy_of(reason)


def test_a_token_registers_clients_of_its_policy_which_remember_it(rules: Rules, make: Make) -> None:
    """K-09, K-11: more than the policy says is left out, and the client and its event name token and policy."""
    token_id, token = make("partners")
    answer = register(
        rules,
        token,
        redirect_uris=["https://a.partner.example/cb", REDIRECT_URI, "https://elsewhere.test/cb"],
    )
    assert answer.status_int == 201
    assert answer.json["scope"] == "files.read"
    assert answer.json["grant_types"] == ["authorization_code"]
    assert answer.json["redirect_uris"] == ["https://a.partner.example/cb", REDIRECT_URI]
    client = rules.stores.tables.clients[answer.json["client_id"]]
    assert (client.initial_token, client.registration_policy) == (token_id, "partners")
    assert client.registered_from == "192.0.2.1"
    *_, event = rules.stores.tables.events.values()
    assert event.details == {"registered_by": "self", "initial_token": token_id, "policy": "partners"}
    assert token_id.encode() not in digests.digest(initial_tokens.KIND, token)


def test_nothing_of_the_token_is_kept_but_its_digest(rules: Rules, make: Make) -> None:
    """R-01: 256 random bits with prefix and checksum, in no record and no event."""
    token_id, token = make()
    assert digests.well_formed("as_initial_", token)
    register(rules, token)
    assert token not in repr(rules.stores.tables)
    assert rules.stores.tables.initial_tokens[token_id].digest == digests.digest("initial", token)


def test_who_made_a_token_is_kept(rules: Rules, make: Make) -> None:
    token_id, _ = make(uses=3)
    stored = rules.stores.tables.initial_tokens[token_id]
    assert (stored.made_by, stored.note, stored.uses) == ("server", "for a test", 3)
    *_, event = rules.stores.tables.events.values()
    assert event.type == "initial_token.added"
    assert event.details["policy"] == "plain"


def test_a_token_registers_as_many_clients_as_it_may(rules: Rules, make: Make) -> None:
    token_id, token = make(uses=2)
    assert [register(rules, token).status_int for _ in range(2)] == [201, 201]
    assert_unusable(register(rules, token), "initial-access-token-used-up")
    assert used(rules, token_id) == 2


def test_a_token_without_a_bound_registers_any_number(rules: Rules, make: Make) -> None:
    token_id, token = make(uses=None)
    assert [register(rules, token).status_int for _ in range(5)] == [201] * 5
    assert used(rules, token_id) == 5


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({"redirect_uris": ["https://elsewhere.test/cb"]}, "invalid_client_metadata"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"token_endpoint_auth_method": "client_secret_basic"}, "invalid_client_metadata"),
        ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"client_name": 7}, "invalid_client_metadata"),
    ],
)
def test_a_registration_that_is_refused_spends_no_use(
    rules: Rules, make: Make, metadata: dict[str, Any], error: str
) -> None:
    token_id, token = make("partners", uses=1)
    refused = register(rules, token, **metadata)
    assert refused.status_int == 400
    assert used(rules, token_id) == 0
    assert register(rules, token).status_int == 201
    assert used(rules, token_id) == 1


def test_a_token_ends(rules: Rules, make: Make) -> None:
    token_id, token = make(hours=1)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1, seconds=1)):
        assert_unusable(register(rules, token), "initial-access-token-expired")
    assert used(rules, token_id) == 0


def test_a_revoked_token_registers_nobody_and_its_clients_stay(rules: Rules, make: Make) -> None:
    token_id, token = make()
    client_id = register(rules, token).json["client_id"]
    with rules.begin() as engine:
        assert initial_tokens.revoke(engine, token_id)
        assert not initial_tokens.revoke(engine, token_id)
        assert not initial_tokens.revoke(engine, "initial_unknown")
    assert_unusable(register(rules, token), "initial-access-token-revoked")
    assert rules.stores.tables.clients[client_id].is_enabled
    revoked = [
        event.details
        for event in rules.stores.tables.events.values()
        if event.type == "initial_token.revoked"
    ]
    (token,) = rules.stores.tables.initial_tokens.values()
    assert revoked == [
        {
            "initial_token": token_id,
            "policy": token.policy,
            "uses": token.uses,
            "used": 1,
            "expires_at": token.expires_at.isoformat(),
        }
    ]


def test_a_token_from_before_a_restore_is_of_no_use(rules: Rules, make: Make) -> None:
    """T149: what it registered after the backup is not known, so a single use could be a second one."""
    _, token = make(uses=1)
    with rules.begin() as engine:
        engine.stores.generations.begin(engine.now)
    again = Rules(TOKENS, rules.stores)
    assert_unusable(register(again, token), "initial-access-token-restored")


def test_without_its_policy_a_token_is_of_no_use(rules: Rules, make: Make) -> None:
    """The operator took the line out; when it is there again, the token counts again."""
    token_id, token = make("partners")
    other = Rules(
        TOKENS | {"authserver.plugin.registration_token.policies": "plain = scopes profile"}, rules.stores
    )
    assert_unusable(register(other, token), "registration-policy-unknown")
    assert used(rules, token_id) == 0
    assert register(rules, token).status_int == 201


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "x", lambda t: t.swapcase()])
def test_what_is_no_such_token_is_none(rules: Rules, make: Make, change: Callable[[str], str]) -> None:
    """R-03: also one with another character, or one that was never issued."""
    _, token = make()
    for text in (change(token), digests.new_credential(digests.INITIAL), digests.new_credential("as_code_")):
        answer = register(rules, text)
        assert_refused(answer, "invalid_token", status=401)
        assert answer.refusal is not None
        assert answer.refusal.reason == "initial-access-token-required"


def test_tokens_of_the_ini_count_beside_them(rules: Rules, make: Make) -> None:
    make()
    answer = register(rules, "of-the-ini-0123456789abcdefABCDEF")
    assert answer.json["scope"] == "profile"
    client = rules.stores.tables.clients[answer.json["client_id"]]
    assert (client.initial_token, client.registration_policy) == (None, None)


def test_a_policy_has_as_many_clients_as_it_may(rules: Rules, make: Make) -> None:
    """Those of all its tokens together; one that an operator disables makes room."""
    first_id, first = make("two")
    _, second = make("two")
    _, other = make("plain")
    client_id = register(rules, first).json["client_id"]
    assert register(rules, other).status_int == 201
    assert register(rules, second).status_int == 201
    for token in (first, second):
        answer = register(rules, token)
        assert_refused(answer, "invalid_client_metadata")
        assert answer.refusal is not None
        assert answer.refusal.reason == "registration-policy-full"
    assert used(rules, first_id) == 1
    with rules.begin() as engine:
        assert engine.stores.clients.disable(client_id, engine.now)
    assert register(rules, second).status_int == 201


def test_a_token_lets_nobody_have_privileges(rules: Rules, make: Make) -> None:
    """T132: whatever is sent beside the metadata, the client is no more than the policy says."""
    _, token = make("partners")
    answer = register(
        rules,
        token,
        first_party=True,
        registered_by="operator",
        registration_policy="plain",
        initial_token="another",
        last_used_at="2020-01-01",
        scope="files.read profile admin",
    )
    client = rules.stores.tables.clients[answer.json["client_id"]]
    assert not client.first_party
    assert client.is_self_registered
    assert client.registration_policy == "partners"
    assert client.scopes == ("files.read",)
    assert client.last_used_at is None
    assert client.details == {}
