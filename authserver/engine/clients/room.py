"""Room for clients that register themselves: those that were never used give way to new ones (T131).

Anybody can register any number of clients where registration is open. What a stranger cannot make is a client that is
used: for that, a person signs in and allows it. So the number of clients that were never used is bounded, for each
network and in all, and the oldest of the same network are the first to go. A program that has just registered may be
in the middle of its first authorization, so its client is spared for a while.
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

# As long as a person may take to sign in and answer, at most (`authserver.request_lifetime`).
SPARED = timedelta(hours=1)
# Where there are too many in all, clients of other networks give way only when they are older than this.
SPARED_BY_OTHERS = timedelta(days=1)
TOO_MANY = "too-many-unused-clients"
# For programs alone, so it is not translated.
_NO_ROOM = "Too many clients were registered and never used. Try again later."
# How many give way to one at most, where the setting was lowered.
_BATCH = 100


def network_here(engine: Engine) -> str:
    """The network that this request comes from; empty if there is none."""
    return network_of(engine.caller.source) or ""


def make_room(engine: Engine, metadata: ClientMetadata) -> list[str]:
    """Delete what gives way to one more client of this network; their ids.

    An equal client of this network that was never used goes in any case, unless it manages its registration: a program
    that registers again whenever it starts would otherwise leave one behind each time. It gets an id of its own
    nevertheless, because several people may share a network, and one of them must not get the client of another.
    Strangers can manage what they register, so where there are too many, that alone keeps no client; it only goes last.

    Raises:
        TooManyRequests: there are too many that were never used, and all of them are spared.
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
    """Delete the next of these until there is room for one more below `most`; their ids. Raises TooManyRequests."""
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
