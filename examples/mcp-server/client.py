"""An MCP client that knows the address of a server and nothing else: `python client.py "a note"`."""

import asyncio
import os
import sys
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from urllib.parse import parse_qsl, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

ADDRESS = os.environ.get("ADDRESS", "http://localhost:8000/mcp")


class Callback(BaseHTTPRequestHandler):
    """The page to which the browser comes back."""

    def do_GET(self):
        self.server.answer = dict(parse_qsl(urlsplit(self.path).query))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"You may close this window.")

    def log_message(self, *_):
        """Write nothing: the address holds the code."""


class Memory(TokenStorage):
    """What the client knows until it ends. A real one keeps it in a file that is its user's alone."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


async def call_tool(name, **arguments):
    """Call a tool of the server; a person signs in and agrees in the browser."""
    listener = HTTPServer(("127.0.0.1", 0), Callback)

    async def open_browser(url):
        print("Opening", url, flush=True)
        # Some browsers in a terminal return when they are closed.
        Thread(target=webbrowser.open, args=[url], daemon=True).start()

    async def receive():
        await asyncio.to_thread(listener.handle_request)
        if "error" in listener.answer:
            sys.exit(f"The authorization server answered {listener.answer['error']}.")
        return AuthorizationCodeResult(**listener.answer)

    metadata = OAuthClientMetadata(
        client_name="Example client",
        redirect_uris=[f"http://127.0.0.1:{listener.server_port}/callback"],
        token_endpoint_auth_method="none",
    )
    authorization = OAuthClientProvider(ADDRESS, metadata, Memory(), open_browser, receive)
    async with (
        httpx2.AsyncClient(auth=authorization) as http,
        Client(streamable_http_client(ADDRESS, http_client=http)) as session,
    ):
        return await session.call_tool(name, arguments)


if __name__ == "__main__":
    result = asyncio.run(call_tool("add_note", text=" ".join(sys.argv[1:]) or "Buy milk"))
    print("Your notes:", *result.structured_content["result"], sep="\n- ")
