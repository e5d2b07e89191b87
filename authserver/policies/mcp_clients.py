"""What programs that speak the Model Context Protocol need of a server: `private_use_redirect_uris`."""

from __future__ import annotations

from dataclasses import dataclass

from authserver.api import hookimpl

# Each is sent unchanged by every copy of the program. Others put the name of a server into theirs (Raycast:
# raycast://oauth?package_name=NAME), which is for `redirect_private_use`; most use https or a loopback address.
REDIRECT_URIS = (
    # Cursor (its documentation of MCP; modelcontextprotocol/python-sdk#895).
    "cursor://anysphere.cursor-mcp/oauth/callback",
    # Cherry Studio for Android and iOS (CherryHQ/cherry-studio-app, MobileOAuthProvider).
    "cherry-studio://oauth/callback",
    # RikkaHub for Android (rikkahub/rikkahub, McpOAuthCallbackActivity).
    "rikkahub://mcp-oauth-callback",
)


@dataclass(frozen=True)
class McpClients:
    """Let the MCP programs register whose redirect URI has a private-use scheme without a period."""

    @hookimpl
    def private_use_redirect_uris(self) -> tuple[str, ...]:
        return REDIRECT_URIS
