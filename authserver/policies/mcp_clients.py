"""Redirect URIs of programs that use the Model Context Protocol: `private_use_redirect_uris`."""

from __future__ import annotations

from dataclasses import dataclass

from authserver.api import hookimpl

# Every copy of such a program sends the same URI. Some programs put the name of a server into the URI (Raycast:
# raycast://oauth?package_name=NAME): list their URIs in `redirect_private_use`. Most programs use https or a loopback
# address, and need neither.
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
    """Let known MCP programs register although their redirect URI has a private-use scheme without a period."""

    @hookimpl
    def private_use_redirect_uris(self) -> tuple[str, ...]:
        return REDIRECT_URIS
