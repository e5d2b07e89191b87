"""The root of the API: says who the caller is, and which scopes the token has."""

from __future__ import annotations

from authserver.api import Parameter
from authserver.features.admin_api.entries import Answer, Call, Entry

TEXTS = {"type": "array", "items": {"type": "string"}}
SCOPES: dict[str, str] = {}


def show(call: Call) -> Answer:
    """Say who the caller is, through which client and with which scopes of the API."""
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
        summary="Say who the caller is, and which scopes of the API the token has.",
        act=show,
        answer={
            "actor": Parameter(
                description="The caller as events name it: `client:` or `user:` and the id.", required=True
            ),
            "client_id": Parameter(description="The client of the access token.", required=True),
            "scopes": Parameter(description="The scopes that count now.", schema=TEXTS, required=True),
            "issuer": Parameter(description="The issuer identifier of this server.", required=True),
            "url": Parameter(description="The URL of the API.", required=True),
        },
    ),
)
