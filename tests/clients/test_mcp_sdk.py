"""The official SDKs of the Model Context Protocol, from the address of a protected MCP server to its tools.

The server is examples/mcp-server. With `-s` the transcript of each walk is printed, as `make clients` does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import anyio
import httpx2
import msgspec
import pytest
import requests
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.auth.utils import (
    build_oauth_authorization_server_metadata_discovery_urls,
    create_oauth_metadata_request,
    handle_auth_metadata_response,
)
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)

from authserver.testing.live import free_port
from authserver.testing.origins import Authority, Origin, sending, serving
from authserver.testing.server import SETTINGS
from tests.client_keys import Key
from tests.clients.conftest import Person, RunningServer
from tests.clients.exchanges import BROWSER, Exchange, steps, transcript
from tests.clients.notes import serving_notes
from tests.clients.programs.conftest import installed, path_of
from tests.trusted_issuers import Issuer

CHECKOUT = Path(__file__).parents[2]
REDIRECT_URI = "http://127.0.0.1:49152/callback"
SCOPES = ("notes.read", "notes.write")
SECONDS = 60
KEY = Key("ES256")
COMPANY = Issuer("https://idp.example", typ="oauth-id-jag+jwt")
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a client introduces itself, and proves who it is.

    Attributes:
        by: `document` (CIMD), `registration` (RFC 7591), or `operator` for a client that was registered beforehand.
        method: of client authentication.
        grant: `client_credentials` for a program that acts for itself, JWT_BEARER for one that its company lets in.
    """

    by: str
    method: str
    grant: str = "authorization_code"

    def __str__(self) -> str:
        by = {
            "document": "by document",
            "registration": "registered by itself",
            "operator": "registered by an operator",
        }
        whose = {"client_credentials": " for itself", JWT_BEARER: " for people of a company"}.get(
            self.grant, ""
        )
        return f"{by[self.by]}{whose}, {self.method}"

    def steps(self) -> list[str]:
        """What happens, in this order."""
        first = ["refused", "resource metadata", "server metadata"]
        if self.grant == "client_credentials":
            return [*first, f"client_credentials {self.method}", "add_note", "list_notes"]
        if self.grant == JWT_BEARER:
            # Which authorization server is meant it has to know: its MCP server could name another.
            return ["refused", "server metadata", f"{JWT_BEARER} {self.method}", "add_note", "list_notes"]
        if self.by == "registration":
            first.append(f"register {self.method}")
        redeemed, refreshed = (f"{grant} {self.method}" for grant in ("authorization_code", "refresh_token"))
        return [*first, "the person allows", redeemed, "add_note", refreshed, "list_notes"]


SECRETS = ("client_secret_basic", "client_secret_post")
# The Python SDK signs for programs that act for themselves alone.
PYTHON = [
    Way(by="document", method="none"),
    *(Way(by=by, method=method) for by in ("registration", "operator") for method in ("none", *SECRETS)),
    *(
        Way(by="operator", method=method, grant="client_credentials")
        for method in (*SECRETS, "private_key_jwt")
    ),
    *(Way(by="operator", method=method, grant=JWT_BEARER) for method in SECRETS),
]
TYPESCRIPT = [
    *(Way(by="document", method=method) for method in ("none", "private_key_jwt")),
    *(
        Way(by=by, method=method)
        for by in ("registration", "operator")
        for method in ("none", *SECRETS, "private_key_jwt")
    ),
    *(
        Way(by="operator", method=method, grant="client_credentials")
        for method in ("client_secret_basic", "private_key_jwt")
    ),
]


def in_a_thread(story: Callable[[], Awaitable[Any]]) -> Any:
    """Run it with an event loop of its own: Playwright keeps one in the thread of the tests."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(anyio.run, story).result()


class Memory:
    """What the Python SDK keeps between runs."""

    def __init__(self, client: OAuthClientInformationFull | None = None) -> None:
        self.tokens: OAuthToken | None = None
        self.client = client

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


# ---- the servers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address() -> str:
    """Of the MCP server."""
    return f"http://127.0.0.1:{free_port()}/mcp"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def settings_of_running_server(address: str, authority: Authority) -> dict[str, str]:
    """The MCP server is the one resource; a token asked for without naming it would be good for nothing."""
    return {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']} client_id_documents private_key_jwt id_jag",
        "authserver.scopes": "notes.read = Read your notes\nnotes.write = Write your notes",
        "authserver.hidden_scopes": "",
        "authserver.plugin.scopes_default.scopes": "",
        "authserver.plugin.registration_open.scopes": " ".join(SCOPES),
        "authserver.plugin.client_id_documents.scopes": " ".join(SCOPES),
        "authserver.plugin.introspect_resource_servers.clients": "",
        "authserver.fetch_ca_file": str(authority.ca_file),
        "authserver.fetch_loopback": "true",
        "authserver.plugin.resources_listed.resources": f"{address} = {' '.join(SCOPES)}",
        "authserver.plugin.resources_listed.default": "",
    }


@pytest.fixture(scope="module")
def mcp_server(running_server: RunningServer, address: str) -> Iterator[None]:
    """examples/mcp-server, in a thread."""
    with serving_notes(address, running_server.issuer):
        yield


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of clients, served over TLS at addresses that the authorization server can fetch."""

    origin: Origin
    published: dict[str, dict[str, Any]] = field(default_factory=dict)

    def publish(self, way: Way) -> str:
        """The address of a document for this way, which is the client's id."""
        path = f"/{way.method}.json"
        address = f"https://localhost:{self.origin.port}{path}"
        self.published[path] = {
            "client_id": address,
            "client_name": "MCP client",
            "redirect_uris": ["http://127.0.0.1/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": way.method,
            **({"jwks": KEY.jwks()} if way.method == "private_key_jwt" else {}),
        }
        return address

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        sending(msgspec.json.encode(self.published[handler.path]))(handler)


@pytest.fixture(scope="module")
def documents(authority: Authority) -> Iterator[Documents]:
    with serving(authority.context("localhost")) as origin:
        documents = Documents(origin)
        origin.reply = documents.reply
        yield documents


@pytest.fixture(scope="module")
def company(running_server: RunningServer, address: str) -> None:
    """A company whose people use the MCP server: what it calls ann is the name of the user here."""
    COMPANY.trust(running_server.records, "mcp", resources=(address,), options={"subjects": {"ann": "ann"}})


def registered_by_operator(running_server: RunningServer, way: Way) -> dict[str, str]:
    """A client that this way needs, as `authserver client add` adds it; what it is told."""
    interactive = way.grant == "authorization_code"
    keys = {"details": {"jwks": KEY.jwks()}} if way.method == "private_key_jwt" else {}
    client, secret = running_server.records.add_client(
        client_name="MCP client",
        redirect_uris=("http://127.0.0.1/callback",),
        grant_types=("authorization_code", "refresh_token") if interactive else (way.grant,),
        token_endpoint_auth_method=way.method,
        application_type="native",
        scopes=SCOPES,
        **keys,
    )
    return {"client_id": client.client_id, **({"client_secret": secret} if secret else {})}


@pytest.fixture
def check_walk(running_server: RunningServer, address: str) -> Callable[[str, Way, list[Exchange]], None]:
    """Print the transcript of a walk, and check that its steps were those of its way."""
    servers = {address.removesuffix("/mcp"): "mcp-server", running_server.issuer: "authserver"}

    def check(sdk: str, way: Way, exchanges: list[Exchange]) -> None:
        sys.stdout.write(transcript(f"{sdk} SDK: {way}", exchanges, servers) + "\n")
        assert steps(exchanges) == way.steps()
        refusal = next(exchange for exchange in exchanges if exchange.step == "refused")
        assert 'scope="notes.read notes.write"' in refusal.challenge

    return check


# ---- the Python SDK ---------------------------------------------------------------------------------


class PythonSdk:
    """A client on the Python SDK, and the person who uses it.

    Attributes:
        exchanges: what it sent.
        unticked: scopes that the person does not give.
    """

    def __init__(self, address: str, issuer: str, person: Person, answer: str = "allow") -> None:
        self.address, self.issuer = address, issuer
        self.person, self.answer = person, answer
        self.unticked: tuple[str, ...] = ()
        self.exchanges: list[Exchange] = []
        self._returned = ""

    def provider(self, way: Way, memory: Memory, document: str | None = None) -> OAuthClientProvider:
        """Of a client for people."""
        metadata = OAuthClientMetadata(
            client_name="MCP client", redirect_uris=[REDIRECT_URI], token_endpoint_auth_method=way.method
        )
        return OAuthClientProvider(
            self.address, metadata, memory, self._send_to_browser, self._receive, client_metadata_url=document
        )

    def own_provider(self, way: Way, memory: Memory, client: dict[str, str]) -> OAuthClientProvider:
        """Of a program that acts for itself."""
        common: dict[str, Any] = {
            "server_url": self.address,
            "storage": memory,
            "client_id": client["client_id"],
            "issuer": self.issuer,
        }
        if way.method != "private_key_jwt":
            secret = client["client_secret"]
            return ClientCredentialsOAuthProvider(
                client_secret=secret, token_endpoint_auth_method=way.method, **common
            )
        signing = SignedJWTParameters(
            issuer=client["client_id"],
            subject=client["client_id"],
            signing_key=KEY.private.as_pem(private=True).decode(),
            signing_algorithm=KEY.algorithm,
        )
        return PrivateKeyJWTOAuthProvider(assertion_provider=signing.create_assertion_provider(), **common)

    def company_provider(self, way: Way, memory: Memory, client: dict[str, str]) -> Any:
        """Of an agent that its company lets in, for the people who are signed in there."""

        async def assertion(audience: str, resource: str) -> str:
            return COMPANY.assertion(
                aud=audience, resource=resource, client_id=client["client_id"], scope=" ".join(SCOPES)
            )

        return IdentityAssertionOAuthProvider(
            self.address,
            memory,
            client["client_id"],
            client["client_secret"],
            self.issuer,
            assertion,
            token_endpoint_auth_method=way.method,
        )

    async def call(self, provider: Any, tool: str, **arguments: str) -> list[str]:
        """What the tool answers."""
        hooks = {"response": [self._record]}
        async with (
            httpx2.AsyncClient(auth=provider, event_hooks=hooks, timeout=SECONDS) as http,
            Client(streamable_http_client(self.address, http_client=http)) as session,
        ):
            result = await session.call_tool(tool, arguments)
            notes: list[str] = result.structured_content["result"]
            return notes

    async def _send_to_browser(self, url: str) -> None:
        self.exchanges.append(Exchange(method=BROWSER, url=url))
        self._returned = await anyio.to_thread.run_sync(
            lambda: self.person.authorize(url, self.answer, unticked=self.unticked)
        )

    async def _receive(self) -> AuthorizationCodeResult:
        answer = dict(parse_qsl(urlsplit(self._returned).query))
        if "error" in answer:
            raise PermissionError(answer["error"])
        return AuthorizationCodeResult(**answer)

    async def _record(self, response: httpx2.Response) -> None:
        request = response.request
        self.exchanges.append(
            Exchange(
                method=request.method,
                url=str(request.url),
                authorization=request.headers.get("Authorization", ""),
                body=request.content.decode() if request.method == "POST" else "",
                status=response.status_code,
                challenge=response.headers.get("WWW-Authenticate", ""),
            )
        )


@pytest.mark.parametrize("way", PYTHON, ids=str)
def test_the_python_sdk_goes_from_401_to_a_tool_call_and_refreshes(
    running_server, mcp_server, address, documents, company, check_walk, ann, way
):
    """A-05, A-10, A-14, A-15, K-01, K-12, B-01, CIMD-01, CIMD-15, F-07, G-01, ISS: it knows nothing but the address.

    JAG-01, JAG-03, JAG-04, JAG-13: an agent that its company lets in knows its authorization server, too (EMA, 5).
    """
    client = registered_by_operator(running_server, way) if way.by == "operator" else {}
    document = documents.publish(way) if way.by == "document" else None
    sdk, memory = PythonSdk(address, running_server.issuer, ann), Memory()
    if client and way.grant == "authorization_code":
        memory.client = OAuthClientInformationFull(
            redirect_uris=[REDIRECT_URI],
            token_endpoint_auth_method=way.method,
            issuer=running_server.issuer,
            **client,
        )

    def provider() -> Any:
        if way.grant == "client_credentials":
            return sdk.own_provider(way, memory, client)
        if way.grant == JWT_BEARER:
            return sdk.company_provider(way, memory, client)
        return sdk.provider(way, memory, document)

    async def story() -> None:
        authorization = provider()
        note = f"python {way}"
        assert note in await sdk.call(authorization, "add_note", text=note)
        first = memory.tokens
        if way.grant == JWT_BEARER:
            authorization._expiry = time.time() - 1
        else:
            authorization.context.token_expiry_time = time.time() - 1
        notes = await sdk.call(authorization, "list_notes")
        assert note in notes
        # A program that acts for itself has notes of its own.
        assert way.grant != "client_credentials" or notes == [note]
        assert first is not None and memory.tokens is not None
        assert first.scope == "notes.read notes.write"
        assert memory.tokens.access_token != first.access_token
        check_walk("Python", way, sdk.exchanges)
        # A later run finds its registration and tokens again, and asks nobody.
        sdk.exchanges.clear()
        assert note in await sdk.call(provider(), "list_notes")
        assert steps(sdk.exchanges) == ["list_notes"]

    in_a_thread(story)
    if way.by != "operator":
        assert memory.client is not None
        assert memory.client.token_endpoint_auth_method == way.method
        assert document in (None, memory.client.client_id)


def test_the_python_sdk_goes_on_where_there_is_no_openid_configuration(running_server):
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


def test_the_python_sdk_is_refused_what_the_user_declined(running_server, mcp_server, address, ann):
    """E-07: no token comes of it, and the client is told so."""
    sdk, memory = PythonSdk(address, running_server.issuer, ann, answer="deny"), Memory()
    provider = sdk.provider(Way(by="registration", method="none"), memory)
    with pytest.raises(ExceptionGroup) as failed:
        in_a_thread(lambda: sdk.call(provider, "list_notes"))
    assert failed.group_contains(PermissionError, match="access_denied")
    assert memory.tokens is None


def test_the_python_sdk_asks_again_for_the_scope_that_the_person_left_out(
    running_server, mcp_server, address, ann
):
    """P-06, P-14: the challenge of the 403 names what is held and what is needed; the next token has both."""
    sdk, memory = PythonSdk(address, running_server.issuer, ann), Memory()
    provider = sdk.provider(Way(by="registration", method="none"), memory)
    sdk.unticked = ("notes.write",)
    with pytest.raises(ExceptionGroup):
        in_a_thread(lambda: sdk.call(provider, "list_notes"))
    assert memory.tokens is not None
    assert memory.tokens.scope == "notes.read"
    sdk.unticked = ()
    sdk.exchanges.clear()
    in_a_thread(lambda: sdk.call(provider, "list_notes"))
    assert memory.tokens.scope == "notes.read notes.write"
    asked = ["a scope lacks", "the person allows", "authorization_code none", "list_notes"]
    assert steps(sdk.exchanges) == asked


# ---- the TypeScript SDK -----------------------------------------------------------------------------


class TypeScriptSdk:
    """A Node.js process that walks as it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def walk(self, person: Person, *, unticked: Collection[str] = (), **asked: Any) -> dict[str, Any]:
        """What came of a walk; the person is sent where the program says, and does not give the unticked scopes."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        while line := self._process.stdout.readline():
            said: dict[str, Any] = json.loads(line)
            if "open" not in said:
                exchanges = [Exchange(**exchange) for exchange in said["exchanges"]]
                return {**said, "exchanges": exchanges}
            requests.get(person.authorize(said["open"], unticked=unticked), timeout=10)
        raise AssertionError("the program ended")


@pytest.fixture(scope="module")
def typescript() -> Iterator[TypeScriptSdk]:
    if shutil.which("npm") is None and "CI" not in os.environ:
        pytest.skip("npm is not installed; on Debian: apt-get install npm")
    folder = installed("typescript", [path_of("npm"), "ci", "--prefer-offline", "--loglevel=error"])
    with subprocess.Popen(
        [path_of("node"), str(folder / "walks.js")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield TypeScriptSdk(process)
        assert process.stdin
        process.stdin.close()


@pytest.mark.parametrize("way", TYPESCRIPT, ids=str)
def test_the_typescript_sdk_goes_from_401_to_a_tool_call_and_refreshes(
    running_server, mcp_server, address, documents, typescript, check_walk, ann, way
):
    """A-05, A-10, A-14, K-01, K-12, B-01, CIMD-01, CIMD-15, F-07, G-01, J-09: it knows nothing but the address."""
    client = registered_by_operator(running_server, way) if way.by == "operator" else None
    keys = {}
    if way.method == "private_key_jwt":
        keys = {"key": {**KEY.private.as_dict(private=True), "alg": KEY.algorithm, "kid": KEY.kid}}
    note = f"typescript {way}"
    result = typescript.walk(
        ann,
        address=address,
        grant=way.grant,
        method=way.method,
        note=note,
        **({"document": documents.publish(way)} if way.by == "document" else {}),
        **({"jwks": KEY.jwks()} if keys and way.by == "registration" else {}),
        **(
            {"client": {**client, "issuer": running_server.issuer, "token_endpoint_auth_method": way.method}}
            if client
            else {}
        ),
        **keys,
    )
    assert "error" not in result, result["error"]
    assert note in result["added"]
    assert note in result["listed"]
    assert way.grant == "authorization_code" or result["listed"] == [note]
    check_walk("TypeScript", way, result["exchanges"])


def test_the_typescript_sdk_refreshes_once_for_the_scope_that_the_person_left_out(
    mcp_server, address, typescript, ann
):
    """P-06: it asks nobody, and gives up at the second equal challenge."""
    result = typescript.walk(
        ann,
        unticked=["notes.write"],
        address=address,
        grant="authorization_code",
        method="none",
        note="never",
    )
    assert "Server returned 403 after trying upscoping" in result["error"]
    after = [exchange.step for exchange in result["exchanges"]]
    assert after[after.index("a scope lacks") :] == ["a scope lacks", "refresh_token none", "a scope lacks"]


def test_the_documentation_lists_what_is_walked() -> None:
    """docs/real-clients.rst, with the versions of the lock files."""
    page = (CHECKOUT / "docs/real-clients.rst").read_text(encoding="utf-8")
    table = page.partition(".. _mcp-sdks:")[2]
    head, *rows = re.findall(r"   \* - (.*)\n     - (.*)\n     - (.*)", table)
    wanted = json.loads(
        (CHECKOUT / "tests/clients/programs/typescript/package.json").read_text(encoding="utf-8")
    )
    typescript = wanted["dependencies"]["@modelcontextprotocol/sdk"]
    assert head[1:] == (f"Python SDK {version('mcp')}", f"TypeScript SDK {typescript}")
    ways = [
        *((by, "authorization_code") for by in ("document", "registration", "operator")),
        ("operator", "client_credentials"),
        ("operator", JWT_BEARER),
    ]
    for (by, grant), (_, *told) in zip(ways, rows, strict=True):
        for walked, methods in zip((PYTHON, TYPESCRIPT), told, strict=True):
            assert re.findall(r"`(\w+)`", methods) == [
                way.method for way in walked if (way.by, way.grant) == (by, grant)
            ]
