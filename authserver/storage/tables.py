"""The tables. Nothing but `authserver.storage` and the migrations sees them.

`client_id` is a foreign key only if the row belongs to the client's own record: clients of plugins have grants, tokens
and consents, but no row in `clients`. Events refer to nothing, so that they outlive the records that they are about.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, cast

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text, true
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from authserver.engine.count_records import Gauge, Step
from authserver.engine.records import ISSUANCES, REFUSALS, EventType, RegisteredBy, TokenKind
from authserver.engine.setting_records import DeclaredKind
from authserver.settings import AccessTokenFormat
from authserver.storage.columns import (
    EventDecisions,
    EventDetails,
    EventText,
    EventTime,
    EventTypeName,
    Json,
    SpaceSeparated,
    Texts,
    TextsByName,
    UtcDateTime,
    choice,
)


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        bytes: LargeBinary(),
        datetime: UtcDateTime(),
        tuple[str, ...]: SpaceSeparated(),
        dict[str, Any]: Json,
        list[dict[str, Any]]: Json,
        RegisteredBy: choice(RegisteredBy),
        TokenKind: choice(TokenKind),
        EventType: choice(EventType),
        DeclaredKind: choice(DeclaredKind),
        Step: choice(Step),
        Gauge: choice(Gauge),
        AccessTokenFormat: choice(AccessTokenFormat),
    }


class ClientRow(Base):
    """`records.Client`, without its secrets."""

    __tablename__ = "clients"

    client_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    auth_method: Mapped[str]
    redirect_uris: Mapped[tuple[str, ...]]
    grant_types: Mapped[tuple[str, ...]]
    response_types: Mapped[tuple[str, ...]]
    scopes: Mapped[tuple[str, ...]]
    resources: Mapped[tuple[str, ...]]
    application_type: Mapped[str]
    registered_by: Mapped[RegisteredBy]
    first_party: Mapped[bool]
    rotates_refresh_tokens: Mapped[bool] = mapped_column(server_default=true())
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    details: Mapped[dict[str, Any]]
    logo: Mapped[str | None]
    private_details: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    last_used_at: Mapped[datetime | None]
    registered_from: Mapped[str] = mapped_column(server_default="")
    initial_token: Mapped[str | None]
    registration_policy: Mapped[str | None]


class InitialTokenRow(Base):
    """An initial access token (`engine.records.InitialAccessToken`)."""

    __tablename__ = "initial_tokens"

    token_id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(unique=True)
    policy: Mapped[str]
    note: Mapped[str]
    made_by: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    uses: Mapped[int | None]
    used: Mapped[int]
    revoked_at: Mapped[datetime | None]


class DeclarationRow(Base):
    """The mark of a record that files declare (`engine.setting_records.Declaration`)."""

    __tablename__ = "declarations"

    kind: Mapped[DeclaredKind] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str]
    of_set: Mapped[str]
    references: Mapped[dict[str, Any]]
    made_at: Mapped[datetime]


class StoredSettingRow(Base):
    """A scope, limit or trusted issuer that is not in the INI (`engine.setting_records.StoredSetting`)."""

    __tablename__ = "stored_settings"

    kind: Mapped[DeclaredKind] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[dict[str, Any]]
    changed_at: Mapped[datetime]


class ClientLogoRow(Base):
    """The logos of clients, in a separate table, because each request reads its client, and few need the file."""

    __tablename__ = "client_logos"

    client_id: Mapped[str] = mapped_column(
        ForeignKey("clients.client_id", ondelete="CASCADE"), primary_key=True
    )
    digest: Mapped[str]
    media_type: Mapped[str]
    body: Mapped[bytes]


class ClientSecretRow(Base):
    """`records.ClientSecret` of a client: its digest, never its text."""

    __tablename__ = "client_secrets"

    client_id: Mapped[str] = mapped_column(
        ForeignKey("clients.client_id", ondelete="CASCADE"), primary_key=True
    )
    digest: Mapped[bytes] = mapped_column(primary_key=True)
    key_id: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class ClientOriginRow(Base):
    """The web origins of a client's redirect URIs, as `engine.uris.origin` writes them."""

    __tablename__ = "client_origins"

    origin: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(
        ForeignKey("clients.client_id", ondelete="CASCADE"), primary_key=True, index=True
    )


class ResourceRow(Base):
    """A resource that an operator registered (`engine.records.Resource`)."""

    __tablename__ = "resources"

    form: Mapped[str] = mapped_column(primary_key=True)
    uri: Mapped[str]
    name: Mapped[str]
    scopes: Mapped[tuple[str, ...] | None] = mapped_column(SpaceSeparated)
    token_format: Mapped[AccessTokenFormat | None]
    token_lifetime: Mapped[int | None]
    is_default: Mapped[bool]
    introspecting_clients: Mapped[tuple[str, ...]] = mapped_column(Texts)
    created_at: Mapped[datetime]


class UserRow(Base):
    """`records.User`."""

    __tablename__ = "users"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    display_name: Mapped[str]
    password_hash: Mapped[str | None]
    groups: Mapped[tuple[str, ...]] = mapped_column(Texts)
    attributes: Mapped[Mapping[str, tuple[str, ...]]] = mapped_column(TextsByName)
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class IdentityRow(Base):
    """The identity of a person at another server (`engine.records.JoinedIdentity`)."""

    __tablename__ = "identities"

    issuer: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"), index=True)
    label: Mapped[str]
    joined_at: Mapped[datetime]


class GrantRow(Base):
    """`records.Grant`."""

    __tablename__ = "grants"

    grant_id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str]
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.user_id"))
    scopes: Mapped[tuple[str, ...]]
    resources: Mapped[tuple[str, ...]]
    created_at: Mapped[datetime] = mapped_column(index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    revoked_reason: Mapped[str | None]
    details: Mapped[dict[str, Any]]
    # Without a foreign key: both are deleted when they have expired, and a grant never ends after its parent.
    parent_id: Mapped[str | None]


class TokenRow(Base):
    """`records.Token`: its digest, never its text."""

    __tablename__ = "tokens"

    kind: Mapped[TokenKind] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)
    grant_id: Mapped[str] = mapped_column(ForeignKey("grants.grant_id", ondelete="CASCADE"), index=True)
    client_id: Mapped[str]
    scopes: Mapped[tuple[str, ...]]
    resources: Mapped[tuple[str, ...]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    claimed_at: Mapped[datetime | None]
    successor_digest: Mapped[bytes | None]
    sealed_successor: Mapped[bytes | None]
    failures: Mapped[int]
    details: Mapped[dict[str, Any]]


class KeptRow(Base):
    """Small records of any kind. A grant has few of them, so the foreign key may delete them with it."""

    __tablename__ = "kept"

    kind: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)
    client_id: Mapped[str | None]
    grant_id: Mapped[str | None] = mapped_column(ForeignKey("grants.grant_id", ondelete="CASCADE"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    claimed_at: Mapped[datetime | None]
    details: Mapped[dict[str, Any]]


class ConsentRow(Base):
    """`records.Consent`: the last one of a user to a client."""

    __tablename__ = "consents"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True)
    client_id: Mapped[str] = mapped_column(primary_key=True)
    # It is not known for older consents to clients of plugins.
    client_name: Mapped[str] = mapped_column(server_default="")
    scopes: Mapped[tuple[str, ...]]
    resources: Mapped[tuple[str, ...]]
    redirect_uris: Mapped[tuple[str, ...]]
    granted_at: Mapped[datetime]
    seen: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


class EventRow(Base):
    """`records.Event`."""

    __tablename__ = "events"
    # SQLite would use the highest number again once its event is deleted.
    __table_args__ = ({"sqlite_autoincrement": True},)

    # In the order in which they were stored.
    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    event_id: Mapped[str] = mapped_column(EventText, unique=True)
    type: Mapped[str] = mapped_column(EventTypeName)
    at: Mapped[datetime] = mapped_column(EventTime)
    # For older events these are not known.
    actor: Mapped[str] = mapped_column(EventText, server_default="unknown")
    source: Mapped[str] = mapped_column(EventText, server_default="")
    request_id: Mapped[str] = mapped_column(EventText, server_default="")
    client_id: Mapped[str | None] = mapped_column(EventText)
    user_id: Mapped[str | None] = mapped_column(EventText)
    grant_id: Mapped[str | None] = mapped_column(EventText)
    reason: Mapped[str] = mapped_column(EventText)
    decisions: Mapped[list[dict[str, Any]]] = mapped_column(EventDecisions)
    details: Mapped[dict[str, Any]] = mapped_column(EventDetails)


class EventPositionRow(Base):
    """The position of a reader of the events: the number of the last one that it read, and how many it never accepted."""

    __tablename__ = "event_positions"

    reader: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    set_aside: Mapped[int] = mapped_column(server_default="0")


class EventCountRow(Base):
    """The count of an event type in an hour, day or month (`engine.count_records.Count`); client "" is for all together."""

    __tablename__ = "event_counts"

    step: Mapped[Step] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    type: Mapped[EventType] = mapped_column(primary_key=True)
    grant_type: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class GaugeSampleRow(Base):
    """The sample of a total in an hour, day or month (`engine.count_records.Gauge`)."""

    __tablename__ = "gauge_samples"

    gauge: Mapped[Gauge] = mapped_column(primary_key=True)
    step: Mapped[Step] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True, index=True)
    value: Mapped[int] = mapped_column(BigInteger)


class EventSealRow(Base):
    """A link of the chain that proves events unchanged (`engine.seal_records.EventSeal`)."""

    __tablename__ = "event_seals"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    first: Mapped[int] = mapped_column(BigInteger)
    last: Mapped[int] = mapped_column(BigInteger)
    sealed_at: Mapped[datetime] = mapped_column(index=True)
    form: Mapped[int] = mapped_column(Integer)
    types: Mapped[tuple[str, ...]] = mapped_column(Texts)
    entries: Mapped[bytes]
    previous: Mapped[bytes]
    hash: Mapped[bytes] = mapped_column(unique=True)
    key_id: Mapped[str]
    mac: Mapped[bytes]


class EventDeletionRow(Base):
    """The place up to which events were deleted because they had expired (`engine.seal_records.DeletionMark`)."""

    __tablename__ = "event_deletions"

    kind: Mapped[str] = mapped_column(primary_key=True)
    until: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str]
    mac: Mapped[bytes]


class SessionRow(Base):
    """`records.Session`: the digest of its id, never the id."""

    __tablename__ = "sessions"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"), index=True)
    authenticated_at: Mapped[datetime]
    last_seen_at: Mapped[datetime] = mapped_column(index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    details: Mapped[dict[str, Any]]


class SigningKeyRow(Base):
    """`records.SigningKey`: the private part is sealed, and deleted once the key has ended."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(primary_key=True)
    algorithm: Mapped[str]
    public_jwk: Mapped[dict[str, Any]]
    sealed_private_jwk: Mapped[bytes | None]
    created_at: Mapped[datetime]
    activates_at: Mapped[datetime]
    retires_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]


class RingKeyRow(Base):
    """A key of the key ring that was used here (`engine.records.RingKey`)."""

    __tablename__ = "ring_keys"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    first_used_at: Mapped[datetime]


class LeaseRow(Base):
    """Work that one process at a time does: which process has it, and until when."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    expires_at: Mapped[datetime]


class GenerationRow(Base):
    """When the database was restored from a backup: nothing that was issued before that is valid."""

    __tablename__ = "generations"

    began_at: Mapped[datetime] = mapped_column(primary_key=True)


class MigrationRow(Base):
    """A migration that was run, from 0028 on; a version that does not know it sees here whether it can work with it."""

    __tablename__ = "migrations"

    revision: Mapped[str] = mapped_column(primary_key=True)
    down_revision: Mapped[str | None]
    kind: Mapped[str]
    applied_at: Mapped[datetime]


def _table(row: type[Base]) -> Table:
    return cast(Table, row.__table__)


clients = _table(ClientRow)
initial_tokens = _table(InitialTokenRow)
declarations = _table(DeclarationRow)
stored_settings = _table(StoredSettingRow)
client_logos = _table(ClientLogoRow)
client_secrets = _table(ClientSecretRow)
client_origins = _table(ClientOriginRow)
resources = _table(ResourceRow)
users = _table(UserRow)
identities = _table(IdentityRow)
grants = _table(GrantRow)
tokens = _table(TokenRow)
kept = _table(KeptRow)
consents = _table(ConsentRow)
events = _table(EventRow)
event_positions = _table(EventPositionRow)
event_counts = _table(EventCountRow)
gauge_samples = _table(GaugeSampleRow)
event_seals = _table(EventSealRow)
event_deletions = _table(EventDeletionRow)
sessions = _table(SessionRow)
signing_keys = _table(SigningKeyRow)
ring_keys = _table(RingKeyRow)
leases = _table(LeaseRow)
generations = _table(GenerationRow)
migrations = _table(MigrationRow)

# At most one resource is the default, even when operators work at the same time.
DEFAULT_RESOURCE = resources.c.is_default
Index(
    "uq_resources_default",
    resources.c.is_default,
    unique=True,
    sqlite_where=DEFAULT_RESOURCE,
    postgresql_where=DEFAULT_RESOURCE,
)
# Few people are disabled, and all of them can be listed.
_DISABLED = users.c.disabled_at.is_not(None)
Index("ix_users_disabled_username", users.c.username, sqlite_where=_DISABLED, postgresql_where=_DISABLED)
# They are listed newest first.
Index(None, initial_tokens.c.created_at, initial_tokens.c.token_id)
# By user and client together: one application may act for everybody, so each index that a planner may choose must be
# fast.
Index(None, grants.c.user_id, grants.c.client_id)
# They are listed newest first, those of a client, which may have very many, or all. A person has few.
Index(None, grants.c.client_id, grants.c.created_at)
# Few grants are derived from others.
Index(
    "ix_grants_parent_id",
    grants.c.parent_id,
    sqlite_where=grants.c.parent_id.is_not(None),
    postgresql_where=grants.c.parent_id.is_not(None),
)
Index(None, consents.c.client_id, consents.c.user_id)
# Only access tokens are deleted by their own end; codes and refresh tokens remain as long as their grant, as evidence
# of reuse. This is not written as `kind = 'access'`: tokens are looked up by `kind = ?`, and SQLite would compare the
# two, and therefore compile each such statement again for another value.
DISPOSABLE = tokens.c.kind.not_in(sorted(kind for kind in TokenKind if kind is not TokenKind.ACCESS))
Index(
    "ix_tokens_access_expires_at",
    tokens.c.expires_at,
    sqlite_where=DISPOSABLE,
    postgresql_where=DISPOSABLE,
)
# All events of a time; those of one network address are found in the index, without reading the others.
Index(None, events.c.at, events.c.source)
# Refusals are deleted long before other events.
REFUSED = events.c.type.in_(sorted(REFUSALS))
Index("ix_events_refusals_at", events.c.at, sqlite_where=REFUSED, postgresql_where=REFUSED)
ISSUED = events.c.type.in_(sorted(ISSUANCES))
Index("ix_events_issuances_at", events.c.at, sqlite_where=ISSUED, postgresql_where=ISSUED)
# Events are searched by these columns, newest first. There are no more such indexes, because each of them makes writing
# an event slower. The types of issuances are left out: their newest events are found without an index, and writing one
# is faster.
RARE = events.c.type.not_in(sorted(ISSUANCES))
Index("ix_events_type_at", events.c.type, events.c.at, sqlite_where=RARE, postgresql_where=RARE)
Index(None, events.c.client_id, events.c.at)
# Most events are about issued codes and tokens, and have no reason.
REASONED = events.c.reason != ""
Index("ix_events_reason_at", events.c.reason, events.c.at, sqlite_where=REASONED, postgresql_where=REASONED)
for _column in (events.c.user_id, events.c.grant_id):
    _known = _column.is_not(None)
    Index(
        f"ix_events_{_column.name}_at",
        _column,
        events.c.at,
        sqlite_where=_known,
        postgresql_where=_known,
    )
# All clients of a time, with the columns that are added up; and the index for deletion by age, hours long before the
# others.
Index(
    "ix_event_counts_step_at",
    *(event_counts.c[name] for name in ("step", "at", "client_id", "type", "grant_type", "count")),
)
LONG = event_counts.c.step.in_([Step.DAY, Step.MONTH])
Index("ix_event_counts_long_at", event_counts.c.at, sqlite_where=LONG, postgresql_where=LONG)
# Most kept records belong to no grant.
Index(
    "ix_kept_grant_id",
    kept.c.grant_id,
    sqlite_where=kept.c.grant_id.is_not(None),
    postgresql_where=kept.c.grant_id.is_not(None),
)
# Few secrets ever end, and few clients registered themselves and stayed.
Index(
    "ix_client_secrets_expires_at",
    client_secrets.c.expires_at,
    sqlite_where=client_secrets.c.expires_at.is_not(None),
    postgresql_where=client_secrets.c.expires_at.is_not(None),
)
Index(
    "ix_clients_self_registered_created_at",
    clients.c.created_at,
    sqlite_where=clients.c.registered_by == RegisteredBy.SELF,
    postgresql_where=clients.c.registered_by == RegisteredBy.SELF,
)
# The order in which unused clients are deleted, for one network and for all.
NEVER_USED = (clients.c.registered_by == RegisteredBy.SELF) & clients.c.last_used_at.is_(None)
Index(
    "ix_clients_never_used_registered_from",
    clients.c.registered_from,
    clients.c.created_at,
    sqlite_where=NEVER_USED,
    postgresql_where=NEVER_USED,
)
Index(
    "ix_clients_never_used_created_at",
    clients.c.created_at,
    sqlite_where=NEVER_USED,
    postgresql_where=NEVER_USED,
)
Index(
    "ix_clients_registration_policy",
    clients.c.registration_policy,
    sqlite_where=clients.c.registration_policy.is_not(None),
    postgresql_where=clients.c.registration_policy.is_not(None),
)
# At most one key per algorithm without a successor, even when processes start or rotate at the same time
# (T113).
Index(
    "uq_signing_keys_unreplaced_algorithm",
    signing_keys.c.algorithm,
    unique=True,
    sqlite_where=signing_keys.c.retires_at.is_(None),
    postgresql_where=signing_keys.c.retires_at.is_(None),
)
