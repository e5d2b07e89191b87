"""Client ID Metadata Documents: clients whose id is the address of a document (CIMD-01 to CIMD-24, T128 to T130)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from authserver.engine.records import Client
from authserver.fetching.addresses import Reach
from authserver.fetching.fetcher import Fetcher, Limits
from authserver.testing.origins import Authority, Origin, resolving, sending, serving
from authserver.testing.rules import Answer, Rules
from authserver.testing.server import SETTINGS
from authserver.testing.service import REDIRECT_URI, VERIFIER

HOST = "app.example"
PLUGIN = "authserver.plugin.client_id_documents."


def with_documents(**fields: str) -> dict[str, str | None]:
    return {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']} client_id_documents",
        f"{PLUGIN}scopes": "profile files.read",
        **{PLUGIN + name: value for name, value in fields.items()},
    }


@dataclass
class World:
    """The rules, and a host on which anybody can publish."""

    rules: Rules
    origin: Origin
    clock: list[float]

    def url(self, path: str = "/client.json", host: str = HOST) -> str:
        return f"https://{host}:{self.origin.port}{path}"

    def document(self, **changes: Any) -> dict[str, Any]:
        """A correct document with these members changed; None removes one."""
        members = {
            "client_id": self.url(),
            "client_name": "Notes",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
            **changes,
        }
        return {name: value for name, value in members.items() if value is not None}

    def publish(self, status: int = 200, headers: Mapping[str, str] | None = None, **changes: Any) -> None:
        """What is at every address of the host from now on."""
        body = json.dumps(self.document(**changes)).encode()
        self.origin.reply = sending(body, status, **(headers or {}))

    def client(self, client_id: str | None = None, **changes: Any) -> Client:
        """How a test names the client, whatever its document says."""
        return Client(
            client_id=client_id or self.url(),
            name="Notes",
            auth_method="none",
            redirect_uris=(REDIRECT_URI,),
            created_at=self._now(),
            **changes,
        )

    def asked(self, **changes: Any) -> Any:
        """The outcome of an authorization request of `ann`."""
        return self.rules.authorize(self.client(), self.rules.signed_in(), **changes)

    def tokens(self) -> Mapping[str, Any]:
        """From the authorization request to tokens."""
        answer = self.redeem(self.rules.code(self.client()))
        assert answer.refusal is None, answer
        return answer.json

    def redeem(self, code: str) -> Answer:
        return self.rules.token(
            self.client(),
            grant_type="authorization_code",
            code=code,
            redirect_uri=REDIRECT_URI,
            code_verifier=VERIFIER,
        )

    def refresh(self, token: str) -> Answer:
        return self.rules.token(self.client(), grant_type="refresh_token", refresh_token=token)

    def pass_time(self, seconds: float) -> None:
        """For the fetcher: documents age, and pauses end."""
        self.clock[0] += seconds

    def _now(self) -> Any:
        with self.rules.begin() as engine:
            return engine.now


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def listener(authority: Authority) -> Iterator[Origin]:
    with serving(authority.context(HOST, "other.example", "sub.app.example")) as origin:
        yield origin


@pytest.fixture
def make(listener: Origin, authority: Authority) -> Callable[..., World]:
    listener.received.clear()
    listener.script.clear()

    def make(**fields: str) -> World:
        rules, clock = Rules(with_documents(**fields)), [1000.0]
        fetcher = Fetcher(
            Limits(reach=Reach(refused=(), loopback=True), ca_file=str(authority.ca_file)),
            resolve=resolving({name: ["127.0.0.1"] for name in (HOST, "other.example", "sub.app.example")}),
            clock=lambda: clock[0],
        )
        rules.parts = replace(rules.parts, fetcher=fetcher)
        rules.add_user("ann")
        world = World(rules, listener, clock)
        world.publish()
        return world

    return make


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()


def test_a_client_that_nobody_knew_gets_tokens(world: World) -> None:
    """CIMD-04, CIMD-06: from its first authorization request to tokens and back, by its document alone."""
    tokens = world.tokens()
    assert world.rules.claims(tokens["access_token"])["client_id"] == world.url()
    assert world.refresh(tokens["refresh_token"]).json["access_token"]
    assert [received.path for received in world.origin.received] == ["/client.json"]
