"""Room for clients that register themselves: clients that were never used are deleted for new ones (T131).

If registration is open, anybody can register any number of clients. But a stranger cannot make a client that is used:
for that, a person must sign in and allow it. So the number of clients that were never used is limited, for each network
and in all, and the oldest of the same network are deleted first. A program that has just registered may be in the middle
of its first authorization, so its client is kept for a while.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from itertools import chain
from operator import attrgetter

from authserver.engine.clients.client_metadata import with_metadata
from authserver.engine.context import Engine
from authserver.engine.errors import TooManyRequests
from authserver.engine.records import Client, ClientMetadata
from authserver.engine.sources import network_of

# The longest time that a person may take to sign in and answer (`authserver.request_lifetime`).
SPARED = timedelta(hours=1)
# If there are too many in all, clients of other networks are deleted only when they are older than this.
SPARED_BY_OTHERS = timedelta(days=1)
TOO_MANY = "too-many-unused-clients"
# For programs alone, so it is not translated.
_NO_ROOM = "Too many clients were registered and never used. Try again later."
# How many are deleted for one new client at most, for example after the setting was lowered.
_BATCH = 100


def network_here(engine: Engine) -> str:
    """The network of the source of this request; "" if there is none."""
    return network_of(engine.caller.source) or ""


def make_room(engine: Engine, metadata: ClientMetadata) -> list[str]:
    """Delete unused clients to make room for one more of this network. Returns their ids.

    An equal client of this network that was never used is deleted in any case, unless it manages its registration: else
    a program that registers at each start would leave a client behind each time. The new client gets an id of its own,
    because several people may share a network, and one of them must not get the client of another. Strangers can manage
    their registrations, too; therefore such a client is only deleted later than others.

    Raises:
        TooManyRequests: there are too many that were never used, and none of them may be deleted yet.
    """
    clients, settings, here = engine.stores.clients, engine.settings, network_here(engine)
    old = sorted(
        clients.never_used(engine.now - SPARED, network=here, limit=_BATCH), key=attrgetter("is_managed")
    )
    gone = [
        client.client_id
        for client in old
        if not client.is_managed
        and with_metadata(client, metadata) == client
        and clients.remove_never_used(client.client_id)
    ]
    next_ones = (client for client in old if client.client_id not in gone)
    if settings.unused_clients_per_source:
        gone += _down_to(engine, settings.unused_clients_per_source, next_ones, network=here)
    if settings.unused_clients and _count(engine, settings.unused_clients) >= settings.unused_clients:
        others = clients.never_used(engine.now - SPARED_BY_OTHERS, limit=_BATCH)
        gone += _down_to(engine, settings.unused_clients, chain(next_ones, others))
    return gone


def _down_to(engine: Engine, most: int, old: Iterator[Client], *, network: str | None = None) -> list[str]:
    """Delete clients in this order until one more fits below `most`. Returns their ids. Raises TooManyRequests."""
    gone: list[str] = []
    count = _count(engine, most, network=network)
    while count >= most and (client := next(old, None)):
        if engine.stores.clients.remove_never_used(client.client_id):
            gone.append(client.client_id)
            count -= 1
    if count >= most and not gone:
        raise _refusal(engine, in_all=network is None)
    return gone


def _count(engine: Engine, most: int, *, network: str | None = None) -> int:
    return engine.stores.clients.count_never_used(network=network, limit=most + _BATCH)


def _refusal(engine: Engine, *, in_all: bool) -> TooManyRequests:
    """The refusal while no client may be deleted, with the seconds until one may."""
    spared_for: dict[str | None, timedelta] = {network_here(engine): SPARED}
    if in_all:
        spared_for[None] = SPARED_BY_OTHERS
    waits = [
        client.created_at + spared - engine.now
        for network, spared in spared_for.items()
        for client in engine.stores.clients.never_used(engine.now, network=network, limit=1)
    ]
    return TooManyRequests(
        _NO_ROOM,
        reason=TOO_MANY,
        retry_after=max(1, math.ceil(min(waits, default=SPARED).total_seconds())),
        # One event a minute stands for all of them (`engine.floods`).
        leaves_event=False,
    )
