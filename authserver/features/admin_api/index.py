"""The root of the API: who asks, and with which scopes."""

from __future__ import annotations

from authserver.api import Parameter
from authserver.features.admin_api.entries import Answer, Call, Entry

TEXTS = {"type": "array", "items": {"type": "string"}}
SCOPES: dict[str, str] = {}


def show(call: Call) -> Answer:
    """Who asks, through which client and with which scopes of the API."""
    administrator = call.administrator
    return Answer(
        body={
            "actor": administrator.actor,
            "client_id": administrator.client.client_id,
            "scopes": sorted(administrator.scopes),
            "issuer": call.engine.settings.issuer,
            "url": call.url,
        }
    )


ENTRIES = (
    Entry(
        method="GET",
        path="",
        scope="",
        summary="Say who asks, and with which scopes of the API.",
        act=show,
        answer={
            "actor": Parameter(
                description="As events name who asks: `client:` or `user:` and the id.", required=True
            ),
            "client_id": Parameter(description="Whose access token it is.", required=True),
            "scopes": Parameter(description="Those that count now.", schema=TEXTS, required=True),
            "issuer": Parameter(description="This server.", required=True),
            "url": Parameter(description="Of the API.", required=True),
        },
    ),
)
