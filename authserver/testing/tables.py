"""The records of the stores in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from threading import RLock

from authserver.engine.count_records import Gauge, Step
from authserver.engine.records import (
    Client,
    Consent,
    Event,
    EventType,
    Grant,
    InitialAccessToken,
    JoinedIdentity,
    Kept,
    Logo,
    Resource,
    RingKey,
    Session,
    SigningKey,
    Token,
    TokenKind,
    User,
)
from authserver.engine.seal_records import DeletionMark, EventSeal
from authserver.engine.setting_records import Declaration, DeclaredKind, StoredSetting


@dataclass(slots=True)
class Tables:
    """The stored records. A test may read them: `stores.tables.events`."""

    clients: dict[str, Client] = field(default_factory=dict)
    initial_tokens: dict[str, InitialAccessToken] = field(default_factory=dict)
    declarations: dict[tuple[DeclaredKind, str], Declaration] = field(default_factory=dict)
    stored_settings: dict[tuple[DeclaredKind, str], StoredSetting] = field(default_factory=dict)
    logos: dict[str, Logo] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    identities: dict[tuple[str, str], JoinedIdentity] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    tokens: dict[tuple[TokenKind, bytes], Token] = field(default_factory=dict)
    kept: dict[tuple[str, bytes], Kept] = field(default_factory=dict)
    consents: dict[tuple[str, str], Consent] = field(default_factory=dict)
    events: dict[str, Event] = field(default_factory=dict)
    event_numbers: dict[str, int] = field(default_factory=dict)
    event_positions: dict[str, int] = field(default_factory=dict)
    set_aside: dict[str, int] = field(default_factory=dict)
    counts: dict[tuple[Step, str, datetime, EventType, str, str], int] = field(default_factory=dict)
    samples: dict[tuple[Gauge, Step, datetime], int] = field(default_factory=dict)
    event_seals: dict[int, EventSeal] = field(default_factory=dict)
    event_deletions: dict[tuple[str, str], DeletionMark] = field(default_factory=dict)
    sessions: dict[bytes, Session] = field(default_factory=dict)
    signing_keys: dict[str, SigningKey] = field(default_factory=dict)
    ring_keys: dict[str, RingKey] = field(default_factory=dict)
    generations: dict[datetime, datetime] = field(default_factory=dict)
    leases: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def copy(self) -> Tables:
        """The same records in new mappings."""
        return Tables(**{name: dict(getattr(self, name)) for name in self.__slots__})

    def put_back(self, before: Tables) -> None:
        """Go back to the state of `before`."""
        for name in self.__slots__:
            setattr(self, name, getattr(before, name))


@dataclass(frozen=True, slots=True)
class InMemory:
    """The base of all stores in memory."""

    tables: Tables
    lock: RLock
