"""Whatever this server or an issuer has signed, at each door that takes another kind: refused, and nothing comes of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from webtest import TestResponse

from authserver.engine.crypto.digests import new_identifier
from authserver.features.device.protocol import GRANT_TYPE as DEVICE
from authserver.features.id_jag_issuer import TOKEN_TYPE as ID_JAG
from authserver.features.openid.back_channel import EVENT
from authserver.features.openid.id_tokens import TOKEN_TYPE as ID_TOKEN
from authserver.features.token_exchange import ACCESS_TOKEN, JWT, REFRESH_TOKEN
from authserver.features.token_exchange import GRANT_TYPE as EXCHANGE
from authserver.testing.server import ISSUER, RESOURCE, SETTINGS, Server
from authserver.testing.stories import assert_json_error, stored
from tests.client_keys import ASSERTION_TYPE, Key
from tests.dpop_proofs import proof
from tests.trusted_issuers import Issuer
from tests.web.account_steps import COOKIE

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TRUSTED = "https://issuer.example"
KEY = Key("ES256", kid="trusted")
COMPANY = Issuer("https://idp.example", typ="oauth-id-jag+jwt")
PLATFORM = Issuer("https://platform.example", claims={"sub": "job", "repository_id": "74"})
INITIAL = "initial-access-token-0123456789abcdefABCDEF"
# The server for which this one signs assertions.
OTHER = "https://other.example"
SERVICE = ("client_credentials", "refresh_token", EXCHANGE, JWT_BEARER)


class Doors:
    """A server with every grant type, one token of each kind, and each door that takes one.

    Attributes:
        tokens: by their names; those that are made for a door are unused.
    """

    def __init__(self, database_url: str) -> None:
        features = (
            "openid device_grant token_exchange jwt_bearer id_jag workload_identity private_key_jwt id_jag_issuer dpop "
            "software_statements client_management registration_token"
        )
        readers = "authserver.plugin.introspect_resource_servers.clients"
        self.server = Server(
            database_url,
            {
                "authserver.plugins": f"{SETTINGS['authserver.plugins']} {features}",
                "authserver.plugin.jwt_bearer.issuers": f"{TRUSTED} = {json.dumps(KEY.jwks())}",
                "authserver.plugin.jwt_bearer.exchanged": "true",
                readers: f"gateway = {RESOURCE}",
                "authserver.plugin.software_statements.issuers": f"{TRUSTED} = {json.dumps(KEY.jwks())}",
                "authserver.plugin.registration_token.tokens": INITIAL,
                "authserver.plugin.registration_token.scopes": "profile",
                "authserver.plugin.id_jag_issuer.rules": f"agent {OTHER} = client_id=a scope=profile",
            },
        )
        self.server.add_user("ann")
        scopes = ("openid", "profile", "files.read")
        grants = ("authorization_code", "refresh_token", EXCHANGE)
        self.agent, self.agent_secret = self.server.add_client(
            client_id="agent", scopes=scopes, grant_types=grants
        )
        self.gateway, self.secret = self.server.add_client(client_id="gateway", grant_types=SERVICE)
        self.device, _ = self.server.add_client(
            client_id="device", grant_types=(DEVICE,), token_endpoint_auth_method="none"
        )
        self.signing = KEY.client(self.server, client_id="signing")
        COMPANY.trust(self.server, "mcp", options={"usernames": True})
        rule = {"name": "job", "client": "gateway", "claims": {"repository_id": "74"}}
        rules = [{**rule, "resources": [RESOURCE], "scopes": ["files.read"]}]
        PLATFORM.trust(self.server, "workload_identity", options={"rules": rules})
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
        exchanged = self.subject(answer["access_token"]).json
        yield "exchanged access token", exchanged["access_token"]
        yield "issued ID-JAG", self.other(answer["refresh_token"]).json["access_token"]
        yield "access token of a workload", self.workload(PLATFORM.assertion()).json["access_token"]
        registered = self.registered(INITIAL).json
        self.own = registered["client_id"]
        yield "registration token", registered["registration_access_token"]
        yield "initial access token", INITIAL
        yield "client secret", self.secret or ""
        yield "session", browser.cookies[COOKIE]
        yield "DPoP proof", proof()
        yield "software statement", self._statement(client_name="Program")
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
        yield "another assertion", KEY.assertion(TRUSTED, sub="ann")
        yield "ID-JAG", COMPANY.assertion(client_id="gateway", resource=RESOURCE, scope="files.read")
        yield "assertion of a workload", PLATFORM.assertion()
        for issuer in (COMPANY, PLATFORM):
            for typ in ("at+jwt", "logout+jwt", "oauth-id-jag+jwt" if issuer is PLATFORM else "JWT"):
                yield f"{typ} of {issuer.name}", issuer.assertion(header={"typ": typ}, client_id="gateway")
        yield "client assertion", KEY.assertion(self.signing)
        for typ in ("at+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt"):
            claims = {**KEY.claims(TRUSTED, sub="ann", scope="profile"), "client_id": "gateway"}
            yield f"{typ} of the trusted issuer", KEY.signed(KEY.header(typ=typ), claims)

    def _statement(self, **claims: Any) -> str:
        return KEY.signed(KEY.header(), {"iss": TRUSTED, **claims})

    def _ours(self, claims: Mapping[str, Any], typ: str, **others: Any) -> str:
        now = int(time.time())
        times = {"iat": now, "exp": now + 60, "jti": new_identifier(), "scope": "profile"}
        signed: str = self.server.application.parts.signer.sign({**claims, **times, **others}, typ=typ)
        return signed

    # ---- the doors -----------------------------------------------------------------------------------

    def subject(self, token: str) -> TestResponse:
        form = {"subject_token": token, "subject_token_type": ACCESS_TOKEN}
        return self.server.token(self.gateway, self.secret, grant_type=EXCHANGE, **form)

    def id_token(self, token: str) -> TestResponse:
        """By the client that ID tokens are for."""
        form = {"subject_token": token, "subject_token_type": ID_TOKEN}
        return self.server.token(self.agent, self.agent_secret, grant_type=EXCHANGE, **form)

    def jwt(self, token: str) -> TestResponse:
        form = {"subject_token": token, "subject_token_type": JWT, "scope": "files.read"}
        return self.server.token(self.gateway, self.secret, grant_type=EXCHANGE, **form)

    def actor(self, token: str) -> TestResponse:
        form = {"subject_token": self.tokens["access token"], "subject_token_type": ACCESS_TOKEN}
        form |= {"actor_token": token, "actor_token_type": ACCESS_TOKEN}
        return self.server.token(self.gateway, self.secret, grant_type=EXCHANGE, **form)

    def assertion(self, token: str) -> TestResponse:
        form = {"grant_type": JWT_BEARER, "assertion": token, "resource": RESOURCE}
        return self.server.token(self.gateway, self.secret, **form)

    def workload(self, token: str) -> TestResponse:
        """The same without client."""
        form = {"grant_type": JWT_BEARER, "assertion": token, "resource": RESOURCE}
        return self.server.post("/oauth/token", urlencode(form))

    def client_assertion(self, token: str) -> TestResponse:
        form = {"client_assertion": token, "client_assertion_type": ASSERTION_TYPE}
        return self.server.token(self.signing, None, grant_type="client_credentials", **form)

    def refresh(self, token: str) -> TestResponse:
        return self.server.refresh(self.agent, self.agent_secret, token)

    def code(self, token: str) -> TestResponse:
        return self.server.redeem(self.agent, self.agent_secret, token)

    def device_code(self, token: str) -> TestResponse:
        return self.server.token(self.device, None, grant_type=DEVICE, device_code=token)

    def other(self, token: str) -> TestResponse:
        """A refresh token to show who is signed in, to another server."""
        form = {"subject_token": token, "subject_token_type": REFRESH_TOKEN, "audience": OTHER}
        form["requested_token_type"] = ID_JAG
        return self.server.token(self.agent, self.agent_secret, grant_type=EXCHANGE, **form)

    def client_secret(self, token: str) -> TestResponse:
        return self.server.token(self.gateway, token, grant_type="client_credentials")

    def dpop(self, token: str) -> TestResponse:
        """The right proof comes with each test."""
        token = proof() if token == self.tokens.get("DPoP proof") else token
        form = {"grant_type": "client_credentials"}
        return self.server.ask("/oauth/token", self.gateway, self.secret, headers={"DPoP": token}, **form)

    def registered(self, token: str, **members: Any) -> TestResponse:
        metadata = {
            "redirect_uris": ["https://app.example/cb"],
            "token_endpoint_auth_method": "none",
            **members,
        }
        headers = {"Authorization": f"Bearer {token}"}
        return self.server.browser().post_json(
            "/oauth/register", metadata, headers=headers, expect_errors=True
        )

    def statement(self, token: str) -> TestResponse:
        return self.registered(INITIAL, software_statement=token)

    def registration(self, token: str) -> TestResponse:
        """A client reads its registration."""
        headers = {"Authorization": f"Bearer {token}"}
        path = f"/oauth/register/client?{urlencode({'client_id': self.own})}"
        return self.server.browser().get(path, headers=headers, expect_errors=True)

    def userinfo(self, token: str) -> TestResponse:
        headers = {"Authorization": f"Bearer {token}"}
        return self.server.browser().get("/oauth/userinfo", headers=headers, expect_errors=True)


BAD_REQUEST, BAD_GRANT = ("invalid_request", 400), ("invalid_grant", 400)
BAD_STATEMENT = (("invalid_software_statement", 400), ("unapproved_software_statement", 400))
BAD_CLIENT, BAD_TOKEN = ("invalid_client", 401), ("invalid_token", 401)


@dataclass(frozen=True)
class Door:
    """Where a token is presented.

    Attributes:
        present: sends it there.
        refused: the errors, with their status, for what is not of its kind.
        takes: what it takes, the first of which is used there.
    """

    present: Callable[[Doors, str], TestResponse]
    refused: tuple[tuple[str, int], ...]
    takes: tuple[str, ...]


DOORS: Mapping[str, Door] = {
    "subject_token": Door(Doors.subject, (BAD_REQUEST,), ("access token", "exchanged access token")),
    "subject_token, an ID token": Door(Doors.id_token, (BAD_REQUEST,), ("ID token",)),
    "subject_token, a JWT": Door(Doors.jwt, (BAD_REQUEST,), ("another assertion", "assertion")),
    "subject_token, a refresh token": Door(Doors.other, (BAD_REQUEST,), ("refresh token",)),
    "actor_token": Door(
        Doors.actor,
        (BAD_REQUEST,),
        ("client's own access token", "exchanged access token", "access token of a workload"),
    ),
    "assertion": Door(
        Doors.assertion, (BAD_GRANT,), ("assertion", "another assertion", "ID-JAG", "assertion of a workload")
    ),
    # Other issuers than platforms are only for clients that authenticate.
    "assertion without client": Door(Doors.workload, (BAD_GRANT, BAD_CLIENT), ("assertion of a workload",)),
    "client_assertion": Door(Doors.client_assertion, (BAD_CLIENT,), ("client assertion",)),
    "client_secret": Door(Doors.client_secret, (BAD_CLIENT,), ("client secret",)),
    "DPoP": Door(Doors.dpop, (("invalid_dpop_proof", 400),), ("DPoP proof",)),
    "software_statement": Door(Doors.statement, BAD_STATEMENT, ("software statement",)),
    "bearer of a new client": Door(Doors.registered, (BAD_TOKEN,), ("initial access token",)),
    "bearer of a client": Door(Doors.registration, (BAD_TOKEN,), ("registration token",)),
    "refresh_token": Door(Doors.refresh, (BAD_GRANT,), ("refresh token",)),
    "code": Door(Doors.code, (BAD_GRANT,), ("code",)),
    "device_code": Door(Doors.device_code, (BAD_GRANT,), ("device code",)),
    # An exchanged one lacks the scope, and is told so.
    "bearer": Door(Doors.userinfo, (BAD_TOKEN,), ("access token", "exchanged access token")),
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


@pytest.mark.parametrize("name", DOORS)
def test_no_door_takes_another_kind_of_token(doors: Doors, name: str) -> None:
    """T163, TX-02, TX-11, TX-12, JAG-01, JAG-02, JAG-11, JAG-20, WIF-10, DEV-03: in every pairing, with the error of that door."""
    door = DOORS[name]
    assert set(door.takes) <= doors.tokens.keys()
    before = stored(doors.server)
    for kind in doors.tokens.keys() - set(door.takes):
        answer = door.present(doors, doors.tokens[kind])
        assert (answer.json["error"], answer.status_int) in door.refused, (kind, answer.text)
        assert_json_error(answer, answer.json["error"], status=answer.status_int)
        assert doors.tokens[kind] not in answer.text
        assert stored(doors.server) == before, kind


def test_introspection_tells_of_access_tokens_alone(doors: Doors) -> None:
    """L-04, T163: a service that asks about anything else learns nothing of it."""
    active = {
        name
        for name, token in doors.tokens.items()
        if doors.server.introspect(doors.gateway, doors.secret, token).json["active"]
    }
    assert active == {
        f"{words}access token{more}"
        for words, more in (("", ""), ("client's own ", ""), ("exchanged ", ""), ("", " of a workload"))
    }


@pytest.mark.parametrize("name", DOORS)
def test_each_door_takes_its_own_kind(used: Doors, name: str) -> None:
    """T163: what is refused elsewhere is right at its own door; a test of refusals alone could not fail."""
    door = DOORS[name]
    answer = door.present(used, used.tokens[door.takes[0]])
    wanted = (400, "authorization_pending") if name == "device_code" else (200, None)
    if name in ("software_statement", "bearer of a new client"):
        wanted = (201, None)
    assert (answer.status_int, answer.json.get("error")) == wanted, answer.text
