"""An MCP server that keeps notes: whoever signs in has their own."""

import os
from collections import defaultdict
from urllib.parse import urlsplit

import uvicorn
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token

from authserver_resource import ProtectedResource, needs
from authserver_resource.mcp import McpProtection

# What people type into their MCP client, and the authorization server that lets them in.
ADDRESS = os.environ.get("ADDRESS", "http://localhost:8000/mcp")
ISSUER = os.environ.get("ISSUER", "http://localhost:6543")

host, port = urlsplit(ADDRESS).hostname, urlsplit(ADDRESS).port
server = MCPServer("notes")
notes: dict[str, list[str]] = defaultdict(list)


@server.tool()
def add_note(text: str) -> list[str]:
    """Keep a note; the answer is all notes of the person."""
    own_notes().append(text)
    return own_notes()


@server.tool()
def list_notes() -> list[str]:
    """The notes of the person."""
    return own_notes()


def own_notes() -> list[str]:
    """The notes of whoever the access token of this request is for."""
    return notes[get_access_token().subject]


protected = ProtectedResource(
    ADDRESS,
    ISSUER,
    scopes=["notes.read", "notes.write"],
    name="The notes",
    development=True,  # allows http on this machine; leave it out everywhere else
)
app = McpProtection(server.streamable_http_app(host=host), protected, needs("notes.read", "notes.write"))

if __name__ == "__main__":
    uvicorn.run(app, host=host, port=port)
