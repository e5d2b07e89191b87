"""The stores of one transaction: the ports of `engine.ports`, each method one prepared statement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from authserver.storage.accounts import SqlSessions, SqlUsers
from authserver.storage.agreements import SqlConsents, SqlGrants, SqlTokens
from authserver.storage.clients import SqlClients
from authserver.storage.declarations import SqlDeclarations
from authserver.storage.identities import SqlIdentities
from authserver.storage.initial_tokens import SqlInitialTokens
from authserver.storage.kept import SqlKeptRecords
from authserver.storage.ledger import (
    SqlEventPositions,
    SqlEvents,
    SqlEventSeals,
    SqlGenerations,
    SqlRingKeys,
    SqlSigningKeys,
)
from authserver.storage.resources import SqlResources
from authserver.storage.statistics import SqlStatistics
from authserver.storage.stored_settings import SqlStoredSettings
from authserver.storage.upkeep import SqlUpkeep
from authserver.storage.work import Work


# Made for every transaction, so it is not frozen, which would make it four times as slow to make.
@dataclass(slots=True, kw_only=True)
class SqlStores:
    """All stores of one transaction (`engine.ports.Stores`)."""

    clients: SqlClients
    initial_tokens: SqlInitialTokens
    declarations: SqlDeclarations
    stored_settings: SqlStoredSettings
    resources: SqlResources
    users: SqlUsers
    identities: SqlIdentities
    grants: SqlGrants
    tokens: SqlTokens
    kept: SqlKeptRecords
    consents: SqlConsents
    events: SqlEvents
    event_positions: SqlEventPositions
    statistics: SqlStatistics
    event_seals: SqlEventSeals
    sessions: SqlSessions
    signing_keys: SqlSigningKeys
    ring_keys: SqlRingKeys
    generations: SqlGenerations
    upkeep: SqlUpkeep
    undo: Callable[[], None]
    rest: Callable[[], None]


def stores_of(work: Work) -> SqlStores:
    """The stores that take part in this work."""
    return SqlStores(
        clients=SqlClients(work),
        initial_tokens=SqlInitialTokens(work),
        declarations=SqlDeclarations(work),
        stored_settings=SqlStoredSettings(work),
        resources=SqlResources(work),
        users=SqlUsers(work),
        identities=SqlIdentities(work),
        grants=SqlGrants(work),
        tokens=SqlTokens(work),
        kept=SqlKeptRecords(work),
        consents=SqlConsents(work),
        events=SqlEvents(work),
        event_positions=SqlEventPositions(work),
        statistics=SqlStatistics(work),
        event_seals=SqlEventSeals(work),
        sessions=SqlSessions(work),
        signing_keys=SqlSigningKeys(work),
        ring_keys=SqlRingKeys(work),
        generations=SqlGenerations(work),
        upkeep=SqlUpkeep(work),
        undo=work.undo,
        rest=work.rest,
    )
