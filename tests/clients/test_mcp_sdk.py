"""The Model Context Protocol's own Python SDK as the client of a protected MCP server."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import anyio
import httpx2
import msgspec
import pytest
import requests
from joserfc import jwt
from joserfc.jwk import KeySet
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.utils import (
    build_oauth_authorization_server_metadata_discovery_urls,
    create_oauth_metadata_request,
    handle_auth_metadata_response,
)
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)

from authserver.testing.origins import Authority, sending, serving
from authserver.testing.server import SETTINGS

REDIRECT_URI = "http://127.0.0.1:49152/callback"


def in_a_thread(story: Callable[[], Awaitable[None]]) -> None:
    """Run it with an event loop of its own: Playwright keeps one in the thread of the tests."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(anyio.run, story).result()


class Resource(ThreadingHTTPServer):
    """An MCP server as far as authorization goes: it names its authorization server, and wants its tokens.

    Attributes:
        issuer: the authorization server, once there is one.
        seen: the claims of the tokens that it accepted.
    """

    issuer: str = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ResourceHandler)
        self.origin = f"http://127.0.0.1:{self.server_port}"
        self.identifier = f"{self.origin}/mcp"
        self.metadata_path = "/.well-known/oauth-protected-resource/mcp"
        self.seen: list[dict[str, Any]] = []

    def accepts(self, authorization: str) -> bool:
        """Whether this header holds an access token for this very resource (RFC 9068, 4)."""
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer":
            return False
        keys = KeySet.import_key_set(requests.get(f"{self.issuer}/oauth/jwks", timeout=10).json())
        claims = jwt.decode(token, keys).claims
        if claims["aud"] != self.identifier or claims["iss"] != self.issuer or claims["exp"] < time.time():
            return False
        self.seen.append(claims)
        return True


class ResourceHandler(BaseHTTPRequestHandler):
    server: Resource

    def do_GET(self) -> None:
        resource = self.server
        if self.path == resource.metadata_path:
            self._answer(
                200,
                {
                    "resource": resource.identifier,
                    "authorization_servers": [resource.issuer],
                    "scopes_supported": ["profile", "files.read"],
                },
            )
        elif self.path != "/mcp":
            self._answer(404, {})
        elif resource.accepts(self.headers.get("Authorization", "")):
            self._answer(200, {"tools": []})
        else:
            challenge = f'Bearer resource_metadata="{resource.origin}{resource.metadata_path}"'
            self._answer(401, {}, **{"WWW-Authenticate": challenge})

    def _answer(self, status: int, value: Any, **headers: str) -> None:
        body = msgspec.json.encode(value)
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Write nothing to standard error."""


class Memory:
    """What the SDK keeps between runs."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@pytest.fixture(scope="module")
def resource() -> Iterator[Resource]:
    with Resource() as resource:
        thread = threading.Thread(target=resource.serve_forever, daemon=True)
        thread.start()
        yield resource
        resource.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def settings_of_running_server(resource: Resource, authority: Authority) -> dict[str, str]:
    """The MCP server is the one resource; a token asked for without naming it would be good for nothing."""
    return {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']} client_id_documents",
        "authserver.plugin.client_id_documents.scopes": "profile files.read",
        "authserver.fetch_ca_file": str(authority.ca_file),
        "authserver.fetch_loopback": "true",
        "authserver.plugin.resources_listed.resources": f"{resource.identifier} = profile files.read",
        "authserver.plugin.resources_listed.default": "",
    }


@pytest.mark.parametrize("method", [None, "none", "client_secret_post", "client_secret_basic"])
def test_the_mcp_sdk_discovers_registers_authorizes_and_refreshes(running_server, resource, ann, method):
    """A-05, A-10, A-14, A-15, K-01, K-12, B-01, F-07, G-01, ISS: a stranger client needs nothing but the MCP address."""
    resource.issuer = running_server.issuer
    memory = Memory()
    redirected: list[str] = []

    async def send_to_browser(url: str) -> None:
        redirected.append(await anyio.to_thread.run_sync(ann.authorize, url))

    async def receive() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**dict(parse_qsl(urlsplit(redirected[-1]).query)))

    def provider() -> OAuthClientProvider:
        return OAuthClientProvider(
            resource.identifier,
            OAuthClientMetadata(
                client_name="MCP client",
                redirect_uris=[REDIRECT_URI],
                token_endpoint_auth_method=method,
            ),
            memory,
            send_to_browser,
            receive,
        )

    async def story() -> None:
        authentication = provider()
        async with httpx2.AsyncClient(auth=authentication) as http:
            assert (await http.get(resource.identifier)).status_code == 200
            first = memory.tokens
            authentication.context.token_expiry_time = time.time() - 1
            assert (await http.get(resource.identifier)).status_code == 200
        assert first is not None
        assert memory.tokens is not None
        assert memory.tokens.refresh_token != first.refresh_token
        # A later run finds its registration and tokens again, and asks nobody.
        async with httpx2.AsyncClient(auth=provider()) as http:
            assert (await http.get(resource.identifier)).status_code == 200

    resource.seen.clear()
    in_a_thread(story)
    assert len(redirected) == 1
    assert memory.client is not None
    assert memory.client.token_endpoint_auth_method == (method or "client_secret_basic")
    assert [claims["client_id"] for claims in resource.seen] == [memory.client.client_id] * 3
    assert resource.seen[0]["scope"] == "profile files.read"


def test_the_mcp_sdk_names_its_document_and_does_not_register(running_server, resource, authority, ann):
    """CIMD-01, CIMD-15: with both in the metadata its client id is the address of its document."""
    resource.issuer = running_server.issuer
    memory = Memory()
    redirected: list[str] = []

    async def send_to_browser(url: str) -> None:
        redirected.append(await anyio.to_thread.run_sync(ann.authorize, url))

    async def receive() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**dict(parse_qsl(urlsplit(redirected[-1]).query)))

    async def story(address: str) -> None:
        authentication = OAuthClientProvider(
            resource.identifier,
            OAuthClientMetadata(client_name="MCP client", redirect_uris=[REDIRECT_URI]),
            memory,
            send_to_browser,
            receive,
            client_metadata_url=address,
        )
        async with httpx2.AsyncClient(auth=authentication) as http:
            assert (await http.get(resource.identifier)).status_code == 200
            authentication.context.token_expiry_time = time.time() - 1
            assert (await http.get(resource.identifier)).status_code == 200

    resource.seen.clear()
    registered = len(running_server.records.rows("clients"))
    with serving(authority.context("localhost")) as origin:
        address = f"https://localhost:{origin.port}/client.json"
        document = {
            "client_id": address,
            "client_name": "MCP client",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
        }
        origin.reply = sending(msgspec.json.encode(document))
        in_a_thread(lambda: story(address))
    assert [claims["client_id"] for claims in resource.seen] == [address] * 2
    assert len(running_server.records.rows("clients")) == registered


def test_the_mcp_sdk_goes_on_where_there_is_no_openid_configuration(running_server):
    """A-06, B069: for an issuer with a path it asks there, too; only the document of RFC 8414 ends the search."""

    async def story() -> None:
        found = []
        async with httpx2.AsyncClient() as http:
            for url in reversed(
                build_oauth_authorization_server_metadata_discovery_urls(running_server.issuer, "")
            ):
                answer = await http.send(create_oauth_metadata_request(url))
                found.append(await handle_auth_metadata_response(answer))
        assert [goes_on for goes_on, _ in found] == [True, True]
        assert [str(document.issuer) for _, document in found if document] == [running_server.issuer]

    in_a_thread(story)


def test_the_mcp_sdk_is_refused_what_the_user_declined(running_server, resource, ann):
    """E-07: no token comes of it, and the client is told so."""
    resource.issuer = running_server.issuer
    memory = Memory()
    answers: list[dict[str, str]] = []

    async def send_to_browser(url: str) -> None:
        answer = await anyio.to_thread.run_sync(lambda: ann.authorize(url, answer="deny"))
        answers.append(dict(parse_qsl(urlsplit(answer).query)))

    async def receive() -> AuthorizationCodeResult:
        raise PermissionError(answers[-1]["error"])

    async def story() -> None:
        authentication = OAuthClientProvider(
            resource.identifier,
            OAuthClientMetadata(redirect_uris=[REDIRECT_URI]),
            memory,
            send_to_browser,
            receive,
        )
        async with httpx2.AsyncClient(auth=authentication) as http:
            await http.get(resource.identifier)

    with pytest.raises(PermissionError, match="access_denied"):
        in_a_thread(story)
    assert memory.tokens is None
