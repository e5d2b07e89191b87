"""Records for tests: valid by default, with fields changed by keyword."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from authserver.engine.count_records import Count, Step
from authserver.engine.records import (
    Client,
    Consent,
    Event,
    EventType,
    Grant,
    InitialAccessToken,
    JoinedIdentity,
    Kept,
    Resource,
    RingKey,
    Session,
    SigningKey,
    Token,
    TokenKind,
    User,
)
from authserver.engine.seal_records import EventSeal
from authserver.engine.setting_records import Declaration, DeclaredKind, StoredSetting

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def a_client(**changes: Any) -> Client:
    """A confidential client of an operator, without a secret yet."""
    values: dict[str, Any] = {
        "client_id": "reports",
        "name": "Reports",
        "auth_method": "client_secret_basic",
        "redirect_uris": ("https://reports.example/callback",),
        "grant_types": ("authorization_code", "refresh_token"),
        "scopes": ("read", "write"),
        "created_at": NOW,
    }
    return Client(**values | changes)


def a_user(**changes: Any) -> User:
    """A person who cannot sign in by password."""
    values: dict[str, Any] = {
        "user_id": "user_ada",
        "username": "ada",
        "display_name": "Ada Lovelace",
        "created_at": NOW,
    }
    return User(**values | changes)


def a_grant(**changes: Any) -> Grant:
    """A grant to a client on its own behalf, for a day; with `user_id` it is a user's grant."""
    values: dict[str, Any] = {
        "grant_id": "grant_1",
        "client_id": "reports",
        "user_id": None,
        "scopes": ("read",),
        "resources": ("https://api.example",),
        "created_at": NOW,
        "expires_at": NOW + timedelta(days=1),
    }
    return Grant(**values | changes)


def a_token(**changes: Any) -> Token:
    """A code of `grant_1`, valid for a minute."""
    values: dict[str, Any] = {
        "kind": TokenKind.CODE,
        "digest": b"digest of a code",
        "grant_id": "grant_1",
        "client_id": "reports",
        "scopes": ("read",),
        "resources": ("https://api.example",),
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=1),
    }
    return Token(**values | changes)


def a_kept_record(**changes: Any) -> Kept:
    """A small record that belongs to no feature, valid for a minute."""
    values: dict[str, Any] = {
        "kind": "example",
        "digest": b"digest of a name",
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=1),
    }
    return Kept(**values | changes)


def an_initial_token(**changes: Any) -> InitialAccessToken:
    """An initial access token of a policy, for one use within a day."""
    values: dict[str, Any] = {
        "token_id": "initial_1",
        "digest": b"digest of an initial access token",
        "policy": "partners",
        "made_by": "command:initial-token add",
        "created_at": NOW,
        "expires_at": NOW + timedelta(days=1),
        "uses": 1,
    }
    return InitialAccessToken(**values | changes)


def a_declaration(**changes: Any) -> Declaration:
    """The mark of the client reports, whose secret is in the environment."""
    values: dict[str, Any] = {
        "kind": DeclaredKind.CLIENT,
        "name": "reports",
        "target": "reports",
        "of_set": "default",
        "references": {"secret": {"env": "REPORTS_SECRET"}},
        "made_at": NOW,
    }
    return Declaration(**values | changes)


def a_stored_setting(**changes: Any) -> StoredSetting:
    """The scope calendar, which is not in the INI."""
    values: dict[str, Any] = {
        "kind": DeclaredKind.SCOPE,
        "name": "calendar",
        "value": {"sentence": "See your calendar"},
        "changed_at": NOW,
    }
    return StoredSetting(**values | changes)


def a_resource(**changes: Any) -> Resource:
    """A resource in the database, with two scopes."""
    values: dict[str, Any] = {
        "form": "https://api.example/",
        "uri": "https://api.example",
        "name": "The API",
        "scopes": ("read", "write"),
        "created_at": NOW,
    }
    return Resource(**values | changes)


def a_consent(**changes: Any) -> Consent:
    """Ada's consent for the client reports."""
    values: dict[str, Any] = {
        "user_id": "user_ada",
        "client_id": "reports",
        "client_name": "Reports",
        "scopes": ("read",),
        "resources": (),
        "redirect_uris": ("https://reports.example/callback",),
        "granted_at": NOW,
    }
    return Consent(**values | changes)


def a_count(**changes: Any) -> Count:
    """How many tokens were issued in an hour, for all clients together."""
    values: dict[str, Any] = {
        "step": Step.HOUR,
        "at": NOW.replace(minute=0, second=0, microsecond=0),
        "type": EventType.TOKEN_ISSUED,
        "count": 1,
    }
    return Count(**values | changes)


def an_identity(**changes: Any) -> JoinedIdentity:
    """Ada's identity at another server."""
    values: dict[str, Any] = {
        "issuer": "https://login.example",
        "subject": "248289761001",
        "user_id": "user_ada",
        "label": "ada@login.example",
        "joined_at": NOW,
    }
    return JoinedIdentity(**values | changes)


def a_session(**changes: Any) -> Session:
    """A session of Ada, who has just signed in."""
    values: dict[str, Any] = {
        "digest": b"digest of a session id",
        "user_id": "user_ada",
        "authenticated_at": NOW,
        "last_seen_at": NOW,
        "expires_at": NOW + timedelta(hours=8),
    }
    return Session(**values | changes)


def a_signing_key(**changes: Any) -> SigningKey:
    """An active key whose sealed part is not a real key."""
    values: dict[str, Any] = {
        "kid": "key-1",
        "algorithm": "ES256",
        "public_jwk": {"kty": "EC", "crv": "P-256"},
        "sealed_private_jwk": b"sealed",
        "created_at": NOW,
        "activates_at": NOW,
    }
    return SigningKey(**values | changes)


def a_ring_key(**changes: Any) -> RingKey:
    """A key of the key ring, seen for the first time."""
    values: dict[str, Any] = {"key_id": "2025", "fingerprint": b"fingerprint", "first_used_at": NOW}
    return RingKey(**values | changes)


def an_event_seal(**changes: Any) -> EventSeal:
    """The first seal, of no real event."""
    values: dict[str, Any] = {
        "number": 1,
        "first": 1,
        "last": 500,
        "sealed_at": NOW,
        "form": 1,
        "types": ("token.issued", "written by hand"),
        "entries": b"\0\xff",
        "previous": bytes(32),
        "hash": bytes(32),
        "key_id": "2026",
        "mac": bytes(32),
    }
    return EventSeal(**values | changes)


def an_event(**changes: Any) -> Event:
    """An event of an issuance, with a new id."""
    values: dict[str, Any] = {
        "event_id": os.urandom(9).hex(),
        "type": EventType.TOKEN_ISSUED,
        "at": NOW,
        "actor": "client:reports",
        "source": "192.0.2.1",
        "client_id": "reports",
    }
    return Event(**values | changes)
