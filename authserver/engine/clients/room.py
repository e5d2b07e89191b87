"""Room for clients that register themselves: those that were never used give way to new ones (T131).

Anybody can register any number of clients where registration is open. What a stranger cannot make is a client that is
used: for that, a person signs in and allows it. So the number of clients that were never used is bounded, for each
network and in all, and the oldest of the same network are the first to go. A program that has just registered may be
in the middle of its first authorization, so its client is spared for a while.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta

from authserver.engine.context import Engine
from authserver.engine.errors import TooManyRequests
from authserver.engine.records import Client, ClientMetadata
from authserver.engine.sources import network_of

# As long as a person may take to sign in and answer, at most (`authserver.request_lifetime`).
SPARED = timedelta(hours=1)
# Where there are too many in all, clients of other networks give way only when they are older than this.
SPARED_BY_OTHERS = timedelta(days=1)
TOO_MANY = "too-many-unused-clients"
# How many give way to one at most, where the setting was lowered.
_BATCH = 100


def network(engine: Engine) -> str:
    """The network that this request comes from; empty if there is none."""
    return network_of(engine.caller.source) or ""


def make_room(engine: Engine, metadata: ClientMetadata) -> list[str]:
    """Delete what gives way to one more client of this network; their ids.

    An equal client of this network that was never used goes in any case: a program that registers anew whenever it
    starts would else leave one behind each time. It gets an id of its own nevertheless, because several people may
    share a network, and one of them must not get the client of another.

    Raises:
        TooManyRequests: there are too many that were never used, and all of them are spared.
    """
    clients, settings, here = engine.stores.clients, engine.settings, network(engine)
    old = clients.never_used(engine.now - SPARED, network=here, limit=_BATCH)
    gone = [
        client.client_id
        for client in old
        if _is_equal(client, metadata) and clients.remove_never_used(client.client_id)
    ]
    old = [client for client in old if client.client_id not in gone]
    gone += _down_to(engine, settings.unused_clients_per_source, old, network=here)
    old = [client for client in old if client.client_id not in gone]
    if settings.unused_clients and _count(engine, settings.unused_clients) >= settings.unused_clients:
        others = clients.never_used(engine.now - SPARED_BY_OTHERS, limit=_BATCH)
        gone += _down_to(engine, settings.unused_clients, [*old, *others])
    return gone


def _down_to(engine: Engine, most: int, old: Iterable[Client], *, network: str | None = None) -> list[str]:
    """Delete the first of these until there is room for one more below `most`, if that is not 0. Raises TooManyRequests."""
    gone: list[str] = []
    if not most:
        return gone
    count = _count(engine, most, network=network)
    for client in old:
        if count < most:
            break
        if engine.stores.clients.remove_never_used(client.client_id):
            gone.append(client.client_id)
            count -= 1
    if count >= most and not gone:
        raise _refusal(engine, network)
    return gone


def _count(engine: Engine, most: int, *, network: str | None = None) -> int:
    return engine.stores.clients.count_never_used(engine.now, network=network, limit=most + _BATCH)


def _refusal(engine: Engine, network: str | None) -> TooManyRequests:
    """Until when the oldest is spared says when to come again."""
    spared = SPARED if network is not None else SPARED_BY_OTHERS
    oldest = engine.stores.clients.never_used(engine.now, network=network, limit=1)
    wait = min((client.created_at + spared - engine.now for client in oldest), default=spared)
    return TooManyRequests(
        "Too many clients were registered from here and never used. Try again later.",
        reason=TOO_MANY,
        retry_after=max(1, math.ceil(wait.total_seconds())),
        leaves_event=True,
    )


def _is_equal(client: Client, metadata: ClientMetadata) -> bool:
    """Whether it was registered with just this; a client without a name is called by its id."""
    name = metadata.client_name or client.client_id
    return ClientMetadata(
        client_name=client.name,
        redirect_uris=client.redirect_uris,
        token_endpoint_auth_method=client.auth_method,
        grant_types=client.grant_types,
        response_types=client.response_types,
        scopes=client.scopes,
        application_type=client.application_type,
        details=dict(client.details),
    ) == ClientMetadata(
        client_name=name,
        redirect_uris=metadata.redirect_uris,
        token_endpoint_auth_method=metadata.token_endpoint_auth_method,
        grant_types=metadata.grant_types,
        response_types=metadata.response_types,
        scopes=metadata.scopes,
        application_type=metadata.application_type,
        details=dict(metadata.details),
    )
