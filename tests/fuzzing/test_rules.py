"""The rules alone, on memory stores: more messages for the same time, and opaque access tokens.

What must be true is the same: a refusal has a known code, and leaves its event and what it names, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from urllib.parse import quote_plus

import pytest
from hypothesis import given

from authserver.engine.records import Client
from authserver.testing.rules import Rules
from authserver.testing.server import basic
from authserver.web.routes import ROUTES
from tests.fuzzing.conftest import IS_LONG, examples
from tests.fuzzing.messages import messages
from tests.fuzzing.world import CONSEQUENCES, Known, Message, Raw, Value, error_codes

EACH = 6_000 if IS_LONG else 150
ENDPOINTS = ("token", "introspect", "revoke")
CLIENTS = (
    "web",
    "post",
    "native",
    "first",
    "service",
    "api",
    "gone",
    "moved",
    "narrow",
    "scopeless",
    "stranger",
)


class RulesWorld:
    """Rules with clients, people and tokens that have the names of `World`."""

    def __init__(self) -> None:
        self.rules = Rules({"authserver.access_token_format": "opaque"})
        self.known: dict[str, str] = {}
        # How many requests were granted.
        self.answered: Counter[str] = Counter()
        methods = {"post": "client_secret_post", "native": "none", "stranger": "none"}
        for name in CLIENTS:
            machine = {"grant_types": ("client_credentials",)} if name in ("service", "api") else {}
            client, secret = self.rules.add_client(
                client_id=name, token_endpoint_auth_method=methods.get(name, "client_secret_basic"), **machine
            )
            self.known[f"id of {name}"] = name
            if secret is not None:
                self.known |= {f"secret of {name}": secret, f"basic of {name}": basic(name, secret)}
            if not machine:
                self._let_in(name, client, secret)
        with self.rules.begin() as engine:
            engine.stores.clients.disable("gone", engine.now)
        self.before = self.rules.stores.tables.copy()

    def _let_in(self, name: str, client: Client, secret: str | None) -> None:
        if name == CLIENTS[0]:
            self.rules.add_user("ann")
        code = self.rules.code(client, scope="profile files.read")
        answer = self.rules.redeem(client, secret, code).json
        self.known |= {
            f"used code of {name}": code,
            f"code of {name}": self.rules.code(client, scope="profile files.read"),
            f"access token of {name}": answer["access_token"],
            f"refresh token of {name}": answer["refresh_token"],
        }

    def send(self, endpoint: str, message: Message) -> None:
        """Send it, check what comes of it, and put everything back."""
        tables = self.rules.stores.tables
        headers = {name.lower(): self._text(value) for name, value in message.headers}
        authorization = headers.pop("authorization", None)
        pairs = message.form or ()
        body = "&".join(f"{self._part(name)}={self._part(value)}" for name, value in pairs).encode("latin-1")
        events = set(tables.events)
        try:
            answer = self.rules.post(f"/oauth/{endpoint}", body, authorization=authorization, headers=headers)
            new = [event for key, event in tables.events.items() if key not in events]
            if answer.refusal is None:
                self.answered[endpoint] += 1
                return
            assert answer.refusal.status < 500
            assert answer.json["error"] in CODES
            left = {"events", "event_numbers"}.union(
                *({table for table, _ in CONSEQUENCES.get(event.reason, ())} for event in new)
            )
            changed = {
                name for name in tables.__slots__ if getattr(tables, name) != getattr(self.before, name)
            }
            assert changed <= left, (changed, new)
            assert 1 <= len(new) <= 2
        finally:
            tables.put_back(self.before.copy())

    def _text(self, value: Value) -> str:
        match value:
            case Known(name=name):
                # What only the other world has is a text like any other here.
                return self.known.get(name, name)
            case Raw(text=text):
                return text.decode("latin-1")
            case str():
                return value

    def _part(self, value: Value) -> str:
        text = self._text(value)
        return text if isinstance(value, Raw) else quote_plus(text.encode("utf-8", "surrogatepass"))


CODES = frozenset(error_codes())


@pytest.fixture(scope="module")
def rules_world() -> RulesWorld:
    return RulesWorld()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_no_message_breaks_a_rule(rules_world: RulesWorld, endpoint: str) -> None:
    (route,) = (route for route in ROUTES if route.name == endpoint)

    @examples(EACH)
    @given(messages(route))
    def send(message: Message) -> None:
        rules_world.send(endpoint, message)

    send()
    assert rules_world.answered[endpoint] > EACH / 50
