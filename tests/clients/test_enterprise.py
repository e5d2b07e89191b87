"""Two servers, each a process of its own: one is a company's, where its people sign in; the other that of an MCP server.

The first issues identity assertions (ID-JAG) by token exchange, the second accepts them. Both are asked over HTTP, and the
second fetches the keys of the first.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.request import Request, urlopen

import pytest
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider

from authserver.engine.people import account
from authserver.engine.records import Client
from authserver.features.id_jag_issuer import TOKEN_TYPE
from authserver.features.openid.id_tokens import TOKEN_TYPE as ID_TOKEN
from authserver.features.token_exchange import GRANT_TYPE as EXCHANGE
from authserver.testing.live import free_port, live_server
from authserver.testing.server import REDIRECT_URI, SETTINGS, VERIFIER, Server, basic
from tests.clients.conftest import Person
from tests.clients.exchanges import steps, transcript
from tests.clients.notes import serving_notes
from tests.clients.test_mcp_sdk import JWT_BEARER, Memory, PythonSdk, in_a_thread
from tests.trusted_issuers import Issuer

SCOPES = ("notes.read", "notes.write")


def call(server: Server, path: str, form: dict[str, str], client: tuple[str, str]) -> tuple[int, Any]:
    """Status and JSON of a request that a client makes."""
    request = Request(server.issuer + path, urlencode(form).encode(), {"Authorization": basic(*client)})
    try:
        with urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


@dataclass(frozen=True, slots=True)
class Two:
    """Both servers, and what is registered at them.

    Attributes:
        issuing: the company's; `portal` is the agent of its people there.
        accepting: that of the MCP server; `agent` is the same agent there.
        address: of the MCP server, whose scopes are SCOPES.
        client: `portal`.
        portal, agent: client id and secret.
        company: what the second server knows the first by.
    """

    issuing: Server
    accepting: Server
    address: str
    client: Client
    portal: tuple[str, str]
    agent: tuple[str, str]
    company: Issuer

    def signed_in(self, username: str) -> str:
        """The ID token that the agent gets when this person signs in at the company."""
        url = self.issuing.issuer + self.issuing.authorization_url(self.client, scope="openid profile")
        code = dict(parse_qsl(urlsplit(Person(self.issuing.issuer, username).authorize(url)).query))["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT_URI}
        status, answer = call(self.issuing, "/oauth/token", {**form, "code_verifier": VERIFIER}, self.portal)
        assert status == 200, answer
        return str(answer["id_token"])

    def issue(self, id_token: str, **form: str) -> tuple[int, Any]:
        """Ask the company for an assertion for the other server."""
        asked = {
            "grant_type": EXCHANGE,
            "subject_token": id_token,
            "subject_token_type": ID_TOKEN,
            "requested_token_type": TOKEN_TYPE,
            "audience": self.accepting.issuer,
            "resource": self.address,
            **form,
        }
        return call(self.issuing, "/oauth/token", asked, self.portal)

    def assertion(self, id_token: str, **form: str) -> str:
        status, answer = self.issue(id_token, **form)
        assert (status, answer["token_type"]) == (200, "N_A"), answer
        return str(answer["access_token"])

    def present(self, text: str) -> tuple[int, Any]:
        """Present an assertion to the other server."""
        return call(self.accepting, "/oauth/token", {"grant_type": JWT_BEARER, "assertion": text}, self.agent)

    def is_active(self, token: str) -> bool:
        status, told = call(self.accepting, "/oauth/introspect", {"token": token}, self.agent)
        assert status == 200
        return bool(told["active"])


@pytest.fixture(scope="module")
def two(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("enterprise")
    theirs, ours = (
        f"sqlite:///{shutil.copy(migrated_sqlite_file, folder / name)}" for name in ("company.db", "ours.db")
    )
    address = f"http://127.0.0.1:{free_port()}/mcp"
    accepts = {
        "authserver.plugins": f"id_jag {SETTINGS['authserver.plugins']}",
        "authserver.scopes": "notes.read = Read your notes\nnotes.write = Write your notes",
        "authserver.hidden_scopes": "",
        "authserver.plugin.scopes_default.scopes": "",
        "authserver.plugin.introspect_resource_servers.clients": "",
        "authserver.plugin.resources_listed.resources": f"{address} = {' '.join(SCOPES)}",
        "authserver.plugin.resources_listed.default": "",
        "authserver.plugin.registration_open.scopes": "",
        "authserver.fetch_loopback": "true",
    }
    with live_server(ours, accepts) as accepting:
        rule = f"portal {accepting.issuer} = client_id=agent scope=notes.read scope=notes.write resource={address}"
        issues = {
            "authserver.plugins": f"token_exchange openid id_jag_issuer {SETTINGS['authserver.plugins']}",
            "authserver.plugin.id_jag_issuer.rules": rule,
        }
        with live_server(theirs, issues) as issuing:
            for name in ("ann", "ben"):
                issuing.add_user(name)
            grants = ("authorization_code", "refresh_token", EXCHANGE)
            client, first = issuing.add_client(
                client_id="portal", grant_types=grants, scopes=("openid", "profile")
            )
            _, second = accepting.add_client(client_id="agent", grant_types=(JWT_BEARER,), scopes=SCOPES)
            assert first is not None
            assert second is not None
            with urlopen(f"{issuing.issuer}/.well-known/oauth-authorization-server", timeout=20) as answer:
                told = json.load(answer)
            assert told["identity_chaining_requested_token_types_supported"] == [TOKEN_TYPE]
            company = Issuer(issuing.issuer)
            company.trust(
                accepting,
                "mcp",
                jwks_uri=told["jwks_uri"],
                clients=("agent",),
                resources=(address,),
                scopes=SCOPES,
                options={"create_users": True},
            )
            yield Two(issuing, accepting, address, client, ("portal", first), ("agent", second), company)


def test_an_agent_of_a_company_calls_a_tool_of_another_companys_server(two: Two) -> None:
    """JAG-34, JAG-22, JAG-27, EMA, 5: the MCP SDK's own provider, with what this server issues and this server accepts."""
    id_token = two.signed_in("ann")

    async def assertion(audience: str, resource: str) -> str:
        return two.assertion(id_token, audience=audience, resource=resource)

    sdk = PythonSdk(two.address, two.accepting.issuer, Person(two.issuing.issuer))
    provider = IdentityAssertionOAuthProvider(
        two.address,
        Memory(),
        *two.agent,
        two.accepting.issuer,
        assertion,
        token_endpoint_auth_method="client_secret_basic",
    )
    with serving_notes(two.address, two.accepting.issuer):
        assert "from a company" in in_a_thread(lambda: sdk.call(provider, "add_note", text="from a company"))
    servers = {two.address.removesuffix("/mcp"): "mcp-server", two.accepting.issuer: "authserver"}
    sys.stdout.write(transcript("Python SDK: for people of a company", sdk.exchanges, servers) + "\n")
    assert steps(sdk.exchanges) == [
        "refused",
        "server metadata",
        f"{JWT_BEARER} client_secret_basic",
        "add_note",
    ]


def test_a_company_lets_an_agent_in_and_out_again(two: Two) -> None:
    """JAG-16, JAG-17, JAG-18, JAG-33, JAG-34, R-13: keys are fetched from the other process; an end on either side counts."""
    ann = two.signed_in("ann")
    text = two.assertion(ann, scope="notes.read")
    status, first = two.present(text)
    assert (status, first["scope"]) == (200, "notes.read"), first
    assert "refresh_token" not in first
    assert two.is_active(first["access_token"])
    assert two.present(text)[1]["error"] == "invalid_grant", "an assertion is accepted once"
    assert two.present(two.assertion(ann))[0] == 200
    assert len(two.accepting.rows("users")) == 1, "the same person"

    # What the company signed for itself, and what somebody else signed, lets nobody in.
    assert two.present(ann)[1]["error"] == "invalid_grant"
    assert two.present(two.company.assertion(aud=two.accepting.issuer))[1]["error"] == "invalid_grant"
    # Nor does the company issue for whom no rule names.
    assert two.issue(ann, audience="https://nobody.example")[1]["error"] == "invalid_target"

    # An operator disables the company in a process of its own: the next request already is refused.
    two.company.disable(two.accepting)
    assert two.present(two.assertion(ann))[1]["error"] == "invalid_grant"
    assert not two.is_active(first["access_token"])
    assert two.accepting.events("token.refused")[-1]["reason"] == "issuer-disabled"
    two.company.enable(two.accepting)
    status, second = two.present(two.assertion(two.signed_in("ben")))
    assert status == 200
    assert two.is_active(second["access_token"])
    assert not two.is_active(first["access_token"])

    # Ann ends the access of the agent at the company: it gets no further assertion for her.
    with two.issuing.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
        assert user is not None
        account.disconnect(engine, user, "portal")
    assert two.issue(ann)[1]["error"] == "invalid_request"
