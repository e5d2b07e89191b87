"""Whatever this server or an issuer has signed, at each door that takes another kind: refused, and nothing comes of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from webtest import TestResponse

from authserver.engine.crypto.digests import new_identifier
from authserver.features.device.protocol import GRANT_TYPE as DEVICE
from authserver.features.jwt_bearer import GRANT_TYPE as JWT_BEARER
from authserver.features.openid.back_channel import EVENT
from authserver.features.token_exchange import ACCESS_TOKEN
from authserver.features.token_exchange import GRANT_TYPE as EXCHANGE
from authserver.testing.server import ISSUER, RESOURCE, SETTINGS, Server
from authserver.testing.stories import assert_json_error, stored
from tests.client_keys import ASSERTION_TYPE, Key

TRUSTED = "https://issuer.example"
KEY = Key("ES256", kid="trusted")
SERVICE = ("client_credentials", "refresh_token", EXCHANGE, JWT_BEARER)


class Doors:
    """A server with every grant type, one token of each kind, and each door that takes one.

    Attributes:
        tokens: by their names; those that are made for a door are unused.
    """

    def __init__(self, database_url: str) -> None:
        features = "openid device_grant token_exchange jwt_bearer private_key_jwt"
        readers = "authserver.plugin.introspect_resource_servers.clients"
        self.server = Server(
            database_url,
            {
                "authserver.plugins": f"{SETTINGS['authserver.plugins']} {features}",
                "authserver.plugin.jwt_bearer.issuers": f"{TRUSTED} = {json.dumps(KEY.jwks())}",
                readers: f"gateway = {RESOURCE}",
            },
        )
        self.server.add_user("ann")
        scopes = ("openid", "profile", "files.read")
        self.agent, self.agent_secret = self.server.add_client(client_id="agent", scopes=scopes)
        self.gateway, self.secret = self.server.add_client(client_id="gateway", grant_types=SERVICE)
        self.device, _ = self.server.add_client(
            client_id="device", grant_types=(DEVICE,), token_endpoint_auth_method="none"
        )
        self.signing = KEY.client(self.server, client_id="signing")
        self.tokens = dict(self._tokens())

    def _tokens(self) -> Iterator[tuple[str, str]]:
        server, browser = self.server, self.server.browser()
        code = server.code(self.agent, browser, scope="openid profile files.read")
        answer = server.redeem(self.agent, self.agent_secret, code).json
        yield "access token", answer["access_token"]
        yield "refresh token", answer["refresh_token"]
        yield "ID token", answer["id_token"]
        yield "code", server.code(self.agent, browser, scope="profile")
        own = server.token(self.gateway, self.secret, grant_type="client_credentials").json
        yield "client's own access token", own["access_token"]
        told = server.ask("/oauth/device_authorization", self.device, scope="profile").json
        yield "device code", told["device_code"]
        yield "user code", told["user_code"]
        signed = server.ask(
            "/oauth/introspect",
            self.gateway,
            self.secret,
            headers={"Accept": "application/token-introspection+jwt"},
            token=answer["access_token"],
        )
        yield "signed introspection answer", signed.text
        ours = {"iss": ISSUER, "sub": server.claims(answer["access_token"])["sub"], "client_id": "gateway"}
        yield "logout token", self._ours(ours, "logout+jwt", aud="gateway", events={EVENT: {}})
        yield "own ID-JAG", self._ours(ours, "oauth-id-jag+jwt", aud=ISSUER)
        yield "assertion", KEY.assertion(TRUSTED, sub="ann")
        yield "client assertion", KEY.assertion(self.signing)
        for typ in ("at+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt"):
            claims = {**KEY.claims(TRUSTED, sub="ann", scope="profile"), "client_id": "gateway"}
            yield f"{typ} of the trusted issuer", KEY.signed(KEY.header(typ=typ), claims)

    def _ours(self, claims: Mapping[str, Any], typ: str, **others: Any) -> str:
        now = int(time.time())
        times = {"iat": now, "exp": now + 60, "jti": new_identifier(), "scope": "profile"}
        signed: str = self.server.application.parts.signer.sign({**claims, **times, **others}, typ=typ)
        return signed

    # ---- the doors: what is presented there, and with what error another kind is refused -----------------

    def subject(self, token: str) -> TestResponse:
        form = {"subject_token": token, "subject_token_type": ACCESS_TOKEN}
        return self.server.token(self.gateway, self.secret, grant_type=EXCHANGE, **form)

    def actor(self, token: str) -> TestResponse:
        form = {"subject_token": self.tokens["access token"], "subject_token_type": ACCESS_TOKEN}
        form |= {"actor_token": token, "actor_token_type": ACCESS_TOKEN}
        return self.server.token(self.gateway, self.secret, grant_type=EXCHANGE, **form)

    def assertion(self, token: str) -> TestResponse:
        return self.server.token(self.gateway, self.secret, grant_type=JWT_BEARER, assertion=token)

    def client_assertion(self, token: str) -> TestResponse:
        form = {"client_assertion": token, "client_assertion_type": ASSERTION_TYPE}
        return self.server.token(self.signing, None, grant_type="client_credentials", **form)

    def refresh(self, token: str) -> TestResponse:
        return self.server.refresh(self.agent, self.agent_secret, token)

    def code(self, token: str) -> TestResponse:
        return self.server.redeem(self.agent, self.agent_secret, token)

    def device_code(self, token: str) -> TestResponse:
        return self.server.token(self.device, None, grant_type=DEVICE, device_code=token)

    def userinfo(self, token: str) -> TestResponse:
        headers = {"Authorization": f"Bearer {token}"}
        return self.server.browser().get("/oauth/userinfo", headers=headers, expect_errors=True)


# What each takes is left out, and so is what a door says about a token that it knows, and that is not for it.
DOORS: Mapping[str, tuple[Callable[[Doors, str], TestResponse], str, int, frozenset[str]]] = {
    "subject_token": (Doors.subject, "invalid_request", 400, frozenset({"access token"})),
    "actor_token": (Doors.actor, "invalid_request", 400, frozenset({"client's own access token"})),
    "assertion": (Doors.assertion, "invalid_grant", 400, frozenset({"assertion"})),
    "client_assertion": (Doors.client_assertion, "invalid_client", 401, frozenset({"client assertion"})),
    "refresh_token": (Doors.refresh, "invalid_grant", 400, frozenset({"refresh token"})),
    "code": (Doors.code, "invalid_grant", 400, frozenset({"code"})),
    "device_code": (Doors.device_code, "invalid_grant", 400, frozenset({"device code"})),
    "bearer": (Doors.userinfo, "invalid_token", 401, frozenset({"access token"})),
}


@contextmanager
def opened(migrated: Path, folder: Path) -> Iterator[Doors]:
    doors = Doors(f"sqlite:///{shutil.copy(migrated, folder / 'authserver.db')}")
    yield doors
    doors.server.close()


@pytest.fixture(scope="module")
def doors(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """Whose tokens nobody uses."""
    with opened(migrated_sqlite_file, tmp_path_factory.mktemp("doors")) as doors:
        yield doors


@pytest.fixture(scope="module")
def used(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """Whose tokens are used, each at its own door."""
    with opened(migrated_sqlite_file, tmp_path_factory.mktemp("used")) as doors:
        yield doors


@pytest.mark.parametrize("door", DOORS)
def test_no_door_takes_another_kind_of_token(doors: Doors, door: str) -> None:
    """T163, TX-02, TX-11, TX-12, JAG-01, JAG-02, JAG-11, JAG-20, DEV-03: in every pairing, with the error of that door."""
    present, error, status, takes = DOORS[door]
    assert takes <= doors.tokens.keys()
    before = stored(doors.server)
    for name in doors.tokens.keys() - takes:
        answer = present(doors, doors.tokens[name])
        assert answer.status_int == status, (name, answer.text)
        assert_json_error(answer, error, status=status)
        assert doors.tokens[name] not in answer.text
        assert stored(doors.server) == before, name


def test_introspection_tells_of_access_tokens_alone(doors: Doors) -> None:
    """L-04, T163: a service that asks about anything else learns nothing of it."""
    active = {
        name
        for name, token in doors.tokens.items()
        if doors.server.introspect(doors.gateway, doors.secret, token).json["active"]
    }
    assert active == {"access token", "client's own access token"}


@pytest.mark.parametrize("door", DOORS)
def test_each_door_takes_its_own_kind(used: Doors, door: str) -> None:
    """T163: what is refused elsewhere is right at its own door; a test of refusals alone could not fail."""
    present, _, _, takes = DOORS[door]
    (name,) = takes
    answer = present(used, used.tokens[name])
    wanted = (400, "authorization_pending") if door == "device_code" else (200, None)
    assert (answer.status_int, answer.json.get("error")) == wanted, answer.text
