"""Tokens of a real authserver, over real HTTP; and the MCP SDK from its first 401 to a tool call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import anyio
import httpx2
import pytest
import uvicorn
from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider
from fastmcp.server.dependencies import get_access_token as fastmcp_access_token
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.settings import AuthSettings
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata
from starlette.testclient import TestClient
from steps import later, let_in, refused, request

from authserver.storage import migrate
from authserver.testing.live import free_port, live_server
from authserver.testing.server import SETTINGS, Server
from authserver_resource import Dpop, InvalidToken, Issuer, ProtectedResource, Requirement, Unavailable, needs
from authserver_resource.fastmcp import FastMcpTokenVerifier
from authserver_resource.mcp import McpProtection, ProtectedTokenVerifier, answer_outages
from authserver_resource.testing import DpopKey, LocalIssuer

JWTS, OPAQUE = "https://jwts.example/", "https://opaque.example/"
REDIRECT_URI = "http://127.0.0.1:49152/callback"
SCOPES = ("profile", "files.read", "files.write")


@pytest.fixture(scope="module")
def mcp_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, mcp_port: int) -> Iterator[Server]:
    url = f"sqlite:///{tmp_path_factory.mktemp('server') / 'authserver.sqlite'}"
    migrate.upgrade(url)
    mcp = f"http://127.0.0.1:{mcp_port}/mcp"
    settings = {
        "authserver.plugins": SETTINGS["authserver.plugins"] + "\ndpop",
        "authserver.plugin.resources_listed.resources": f"{JWTS} = *\n{OPAQUE} = *\n{mcp} = profile files.read",
        "authserver.plugin.resources_listed.default": "",
        "authserver.opaque_resources": OPAQUE,
        "authserver.plugin.introspect_resource_servers.clients": f"api = {JWTS} {OPAQUE}",
    }
    with live_server(url, settings) as server:
        server.add_user()
        yield server


@pytest.fixture(scope="module")
def api_secret(server: Server) -> str:
    _, secret = server.add_client(client_id="api", grant_types=("client_credentials",))
    assert secret
    return secret


@pytest.fixture
def protect(server: Server, api_secret: str):
    def protected(identifier: str, **settings: Any) -> ProtectedResource:
        issuer = Issuer(server.issuer, client_id="api", client_secret=api_secret, **settings)
        return ProtectedResource(identifier, issuer, scopes=SCOPES, dpop=Dpop(), development=True)

    return protected


def tokens(server: Server, resource: str, key: DpopKey | None = None) -> tuple[Any, str | None, str]:
    """A new client, its secret, and a token of it for a resource, bound to a key if there is one."""
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    headers = {}
    if key is not None:
        # A proof for the token endpoint has no token to name yet.
        headers["DPoP"] = key.proof("POST", f"{server.issuer}/oauth/token", "", ath=None)
    form = {"grant_type": "client_credentials", "scope": "files.read profile", "resource": resource}
    answer = server.ask("/oauth/token", client, secret, headers=headers, **form)
    assert answer.status_int == 200, answer.text
    return client, secret, answer.json["access_token"]


@pytest.mark.parametrize("resource", [JWTS, OPAQUE])
def test_a_token_of_the_server_is_let_in_where_it_belongs(server, protect, resource):
    """P-05, P-08: found by the server's own metadata, and refused everywhere else."""
    client, _, token = tokens(server, resource)
    assert (token.count(".") == 2) == (resource == JWTS)
    access = let_in(protect(resource), token, needs("files.read"))
    assert (access.issuer, access.client_id) == (server.issuer, client.client_id)
    assert access.subject == client.client_id
    assert access.held == {"files.read", "profile"}
    assert refused(protect(resource), f"Bearer {token}", needed=needs("files.write")).status == 403
    other = OPAQUE if resource == JWTS else JWTS
    assert isinstance(refused(protect(other), f"Bearer {token}"), InvalidToken)


@pytest.mark.parametrize("resource", [JWTS, OPAQUE])
def test_a_revoked_token_is_refused(server, protect, resource):
    """P-05."""
    client, secret, token = tokens(server, resource)
    protected = protect(resource, introspect_jwts=True)
    let_in(protected, token)
    assert server.revoke(client, secret, token).status_int == 200
    with later(31):
        assert isinstance(refused(protected, f"Bearer {token}"), InvalidToken)


@pytest.mark.parametrize("resource", [JWTS, OPAQUE])
def test_a_bound_token_of_the_server_needs_its_key(server, protect, resource):
    """DPOP-02, DPOP-07, DPOP-08."""
    key = DpopKey()
    _, _, token = tokens(server, resource, key)
    protected = protect(resource)
    url = f"{resource}v1/files"

    def proof(by: DpopKey) -> tuple[str, ...]:
        return (by.proof("GET", url, token),)

    assert protected.check(request(f"DPoP {token}", dpop=proof(key))).scheme == "DPoP"
    assert refused(protected, f"DPoP {token}", dpop=proof(DpopKey())).error == "invalid_dpop_proof"
    assert isinstance(refused(protected, f"Bearer {token}"), InvalidToken)


def test_another_client_secret_is_our_fault_and_503(server, api_secret):
    """RFC 9110, 15.6.4."""
    _, _, token = tokens(server, OPAQUE)
    issuer = Issuer(server.issuer, client_id="api", client_secret="wrong")
    protected = ProtectedResource(OPAQUE, issuer, development=True)
    assert isinstance(refused(protected, f"Bearer {token}"), Unavailable)


def mcp_server(**settings: Any) -> MCPServer:
    server = MCPServer("files", **settings)

    @server.tool()
    def whoami() -> str:
        """Who is calling."""
        token = get_access_token()
        assert token is not None
        return f"{token.subject} by {token.client_id} with {' '.join(token.scopes)}{token.token and ' and a token'}"

    return server


@contextmanager
def serving(application: Any, port: int) -> Iterator[None]:
    """An ASGI application on this port."""
    config = uvicorn.Config(application, port=port, log_level="error", lifespan="on", ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not running.started and time.monotonic() < deadline:
            time.sleep(0.02)
        assert running.started
        yield
    finally:
        running.should_exit = True
        thread.join(20)


class Memory:
    """What the SDK keeps of a client."""

    tokens = None
    client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


def agreed(server: Server, url: str) -> dict[str, str]:
    """What the redirect URI is sent when user `ann` signs in and agrees."""
    browser = server.browser()
    path = url.removeprefix(server.issuer)
    answer = browser.get(path)
    if urlsplit(answer.location or "").path == "/login":
        server.sign_in(browser)
        answer = browser.get(path)
    if answer.status_int == 200:
        answer = server.consent(answer)
    return dict(parse_qsl(urlsplit(answer.location).query))


async def call_tool(url: str, **client: Any) -> str:
    async with (
        httpx2.AsyncClient(**client) as http,
        Client(streamable_http_client(url, http_client=http)) as session,
    ):
        result = await session.call_tool("whoami", {})
        return result.content[0].text


@pytest.mark.parametrize("inside", [False, True], ids=["McpProtection", "ProtectedTokenVerifier"])
def test_the_mcp_sdk_goes_from_401_to_a_tool_call(server, mcp_port, inside):
    """P-01, P-04, P-09, P-10: a client that knows the address of the MCP server and nothing else."""
    url = f"http://127.0.0.1:{mcp_port}/mcp"
    protected = ProtectedResource(url, server.issuer, scopes=["files.read"], development=True)
    if inside:
        auth = AuthSettings(
            issuer_url=server.issuer,
            resource_server_url=url,
            required_scopes=["files.read"],
            validate_token_resource=True,
        )
        application = mcp_server(
            token_verifier=ProtectedTokenVerifier(protected), auth=auth
        ).streamable_http_app()
    else:
        application = McpProtection(mcp_server().streamable_http_app(), protected, needs("files.read"))
    memory, answers = Memory(), []

    async def send_to_browser(address: str) -> None:
        answers.append(await anyio.to_thread.run_sync(agreed, server, address))

    async def receive() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**answers[-1])

    metadata = OAuthClientMetadata(client_name="MCP client", redirect_uris=[REDIRECT_URI])
    with serving(application, mcp_port):
        said = anyio.run(
            lambda: call_tool(
                url, auth=OAuthClientProvider(url, metadata, memory, send_to_browser, receive), timeout=30
            )
        )
    assert len(answers) == 1
    # Outside, no tool learns the token.
    assert said.endswith("with files.read and a token" if inside else "with files.read")
    assert memory.client.client_id in said


@pytest.fixture
def mcp_resource() -> ProtectedResource:
    return ProtectedResource("http://127.0.0.1:1/mcp", "https://as.example", dpop=Dpop(), development=True)


def test_the_token_verifier_takes_bearer_tokens_that_are_bound_to_nothing(mcp_resource):
    issuer = LocalIssuer.of(mcp_resource)
    verifier = ProtectedTokenVerifier(mcp_resource, needs("files.read"))

    def verified(token: str):
        return anyio.run(verifier.verify_token, token)

    good = issuer.token(scope="files.read", extra=1)
    access = verified(good)
    assert (access.token, access.client_id, access.subject) == (good, "example-client", "ann")
    assert (access.scopes, access.resource) == (["files.read"], mcp_resource.identifier)
    assert access.claims["iss"] == "https://as.example"
    bound = issuer.token(scope="files.read", cnf=DpopKey().confirmation)
    for token in (
        "bad",
        "",
        "a b",
        bound,
        issuer.token(scope="other"),
        issuer.token(aud="https://x.example/"),
    ):
        assert verified(token) is None
    issuer.down = True
    issuer.rotate()
    with pytest.raises(Unavailable):
        verified(issuer.token())


def test_an_mcp_server_says_what_lacks_and_when_nobody_can_be_asked(mcp_resource):
    """P-06: and 503, as RFC 9110, 15.6.4 says."""
    issuer = LocalIssuer.of(mcp_resource)
    application = McpProtection(mcp_server().streamable_http_app(), mcp_resource, Requirement(scopes=("a",)))

    async def post(token: str) -> httpx2.Response:
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as http:
            return await http.post("/mcp", headers={"Authorization": f"Bearer {token}"})

    answer = anyio.run(post, issuer.token(scope="b"))
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert 'scope="a b"' in answer.headers["WWW-Authenticate"]
    issuer.down = True
    issuer.rotate()
    assert anyio.run(post, issuer.token()).status_code == 503


def inside_the_sdk(protected: ProtectedResource) -> Any:
    auth = AuthSettings(
        issuer_url="https://as.example", resource_server_url=protected.identifier, required_scopes=[]
    )
    return answer_outages(
        mcp_server(token_verifier=ProtectedTokenVerifier(protected), auth=auth).streamable_http_app()
    )


def inside_fastmcp(protected: ProtectedResource) -> Any:
    return FastMCP("files", auth=FastMcpTokenVerifier(protected)).http_app()


def around_fastmcp(protected: ProtectedResource) -> Any:
    provider = RemoteAuthProvider(
        FastMcpTokenVerifier(protected), ["https://as.example"], base_url=protected.origin
    )
    return answer_outages(FastMCP("files", auth=provider).http_app())


@pytest.mark.parametrize("made", [inside_the_sdk, inside_fastmcp, around_fastmcp])
@pytest.mark.parametrize("opaque", [False, True], ids=["jwt", "opaque"])
def test_an_outage_is_503_in_a_token_verifier_too(made, opaque):
    """P-05: neither 500 nor 401, after which a client registers anew; and 401 again as soon as somebody knows."""
    known = Issuer("https://as.example", client_id="api", client_secret="secret")
    protected = ProtectedResource("http://127.0.0.1:1/mcp", known, development=True)
    issuer = LocalIssuer.of(protected)
    issuer.down = True
    token = issuer.opaque_token() if opaque else issuer.token()
    with TestClient(made(protected), base_url=protected.origin) as client:
        answer = client.post("/mcp", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["Retry-After"]) <= 10
        assert answer.json()["error"] == "temporarily_unavailable"
        assert "WWW-Authenticate" not in answer.headers
        issuer.down = False
        with later(11):
            assert client.post("/mcp", headers={"Authorization": "Bearer bad"}).status_code == 401


def test_without_its_answer_an_outage_is_no_500_either(mcp_resource):
    """P-05: Starlette's own answer to what could not be authenticated."""
    issuer = LocalIssuer.of(mcp_resource)
    issuer.down = True
    auth = AuthSettings(issuer_url="https://as.example", resource_server_url=mcp_resource.identifier)
    app = mcp_server(token_verifier=ProtectedTokenVerifier(mcp_resource), auth=auth).streamable_http_app()
    with TestClient(app, base_url="http://127.0.0.1:1") as client:
        answer = client.post("/mcp", headers={"Authorization": f"Bearer {issuer.token()}"})
    assert (answer.status_code, answer.text) == (400, "The authorization server cannot be reached.")
    with pytest.raises(ValueError, match="no token verifier"):
        answer_outages(mcp_server().streamable_http_app())


def protected_sdk() -> Any:
    return mcp_server().streamable_http_app()


def protected_fastmcp() -> Any:
    return FastMCP("files").http_app()


@pytest.mark.parametrize("made", [protected_sdk, protected_fastmcp])
def test_an_mcp_server_challenges_as_every_api(made):
    """P-01, P-02, P-03, P-04, P-05, P-06, P-07, P-09, P-10, P-11, P-12, P-14, STEP-03: to the byte, in front of both SDKs."""
    protected = ProtectedResource(
        "http://127.0.0.1:1/mcp",
        "https://as.example",
        scopes=["files.read", "offline_access"],
        implied_scopes={"files.write": ["files.read"]},
        development=True,
    )
    issuer, needed = LocalIssuer.of(protected), needs("files.read", max_age=300)
    found = f'resource_metadata="{protected.metadata_url}"'
    now = int(time.time())
    with TestClient(McpProtection(made(), protected, needed), base_url=protected.origin) as client:

        def asked(authorization: str | None, path: str = "/mcp") -> tuple[int, str]:
            headers = {} if authorization is None else {"Authorization": authorization}
            answer = client.post(path, headers=headers)
            return answer.status_code, answer.headers.get("WWW-Authenticate", "")

        def bearer(**claims: Any) -> str:
            return f"bearer {issuer.token(**claims)}"

        good = {"scope": "files.write", "auth_time": now}
        no_token = (401, f'Bearer scope="files.read", {found}')
        assert asked(None) == asked("Basic YTpi") == no_token
        assert asked(None, f"/mcp?access_token={issuer.token(**good)}") == no_token
        for authorization, status, error in (
            ("Bearer bad", 401, "invalid_token"),
            (bearer(**good, aud="https://other.example/"), 401, "invalid_token"),
            (bearer(**good, exp=1), 401, "invalid_token"),
            ("Bearer a, Bearer b", 400, "invalid_request"),
        ):
            answered, challenge = asked(authorization)
            assert (answered, challenge.split('"')[1]) == (status, error)
            assert challenge.endswith(found)
        step_up = (
            'Bearer error="insufficient_user_authentication", '
            'error_description="A more recent or stronger sign-in is needed.", '
            f'max_age=300, scope="files.read mail", {found}'
        )
        # Twice the same, so that a client sees that it goes in a circle.
        for claims in ({}, {"auth_time": now - 3600}):
            assert asked(bearer(scope="mail", **claims)) == (401, step_up)
        lacks = 'Bearer error="insufficient_scope", error_description="The access token lacks a scope.", '
        assert asked(bearer(scope="mail", auth_time=now)) == (403, f'{lacks}scope="files.read mail", {found}')
        # Let in: it is the SDK that finds no MCP in this request.
        status, challenge = asked(bearer(**good))
        assert (status not in (401, 403, 500, 503), challenge) == (True, "")
        assert client.get(protected.metadata_path).json() == {
            "resource": protected.identifier,
            "authorization_servers": ["https://as.example"],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["files.read"],
        }


@pytest.mark.parametrize("inside", [False, True], ids=["McpProtection", "FastMcpTokenVerifier"])
def test_fastmcp_is_protected_from_outside_and_from_inside(mcp_port, inside):
    """P-01, P-05, P-06, P-12: a tool is called with a good token and with no other."""
    url = f"http://127.0.0.1:{mcp_port}/mcp"
    protected = ProtectedResource(
        url, "https://as.example", implied_scopes={"files.write": ["files.read"]}, development=True
    )
    issuer, needed = LocalIssuer.of(protected), needs("files.read")
    server = FastMCP("files", auth=FastMcpTokenVerifier(protected, needed) if inside else None)

    @server.tool
    def whoami() -> str:
        token = fastmcp_access_token()
        assert token is not None
        return f"{token.subject} by {token.client_id}"

    application = server.http_app() if inside else McpProtection(server.http_app(), protected, needed)
    with serving(application, mcp_port), httpx2.Client() as http:
        headers = {"Authorization": f"Bearer {issuer.token(scope='files.write')}"}
        assert anyio.run(lambda: call_tool(url, headers=headers, timeout=30)) == "ann by example-client"
        for token, status in (
            ("bad", 401),
            (issuer.token(aud="https://x.example"), 401),
            (issuer.token(), 403),
        ):
            assert http.post(url, headers={"Authorization": f"Bearer {token}"}).status_code == status
