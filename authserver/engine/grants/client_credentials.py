"""A client asks on its own behalf (OAuth 2.1, 4.2)."""

from __future__ import annotations

from authserver.engine.asking import allowed_resources, allowed_scopes, requested_scopes
from authserver.engine.context import Engine, Issue
from authserver.engine.crypto import digests
from authserver.engine.errors import UnauthorizedClient
from authserver.engine.parameters import Parameters
from authserver.engine.records import Client, Grant


def redeem(engine: Engine, client: Client, parameters: Parameters) -> Issue:
    """An access token without refresh token; its subject is the client itself (H-02, H-04).

    Raises:
        UnauthorizedClient: as `refuse_public`.
        InvalidScope, InvalidTarget: as policies and floor say.
    """
    refuse_public(client)
    requested = requested_scopes(parameters)
    resources = allowed_resources(engine, client, parameters.all("resource"))
    scopes = allowed_scopes(engine, client, None, "client_credentials", requested, resources)
    _, lifetime = engine.token_form(client, resources)
    grant = Grant(
        grant_id=digests.new_identifier(),
        client_id=client.client_id,
        user_id=None,
        scopes=scopes,
        resources=resources,
        created_at=engine.now,
        expires_at=engine.now + lifetime,
    )
    return Issue(grant=grant, scopes=scopes, resources=resources, is_new=True)


def refuse_public(client: Client) -> None:
    """Raises UnauthorizedClient for a client without a credential of its own (H-01)."""
    if client.is_public:
        raise UnauthorizedClient("A public client cannot act on its own behalf.", reason="public-client")
