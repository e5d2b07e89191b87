"""The members of records for operators, with the same names in commands, pages and interfaces.

They contain nothing secret: no digest, no sealed value, no password.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from authserver.engine.audit import as_json, cursor_of
from authserver.engine.clients.client_metadata import members
from authserver.engine.clients.secrets import handle
from authserver.engine.context import Engine
from authserver.engine.crypto.sealing import key_id_of
from authserver.engine.people.account import let_in_by
from authserver.engine.records import (
    Client,
    ClientSecret,
    Consent,
    Event,
    Grant,
    InitialAccessToken,
    JoinedIdentity,
    Resource,
    SigningKey,
    User,
)


def client(client: Client, now: datetime) -> dict[str, Any]:
    """The members of a client: those of RFC 7591 by their names there, and our own."""
    return {
        "client_id": client.client_id,
        **members(client),
        "registered_by": str(client.registered_by),
        "registered_from": client.registered_from or None,
        "initial_token": client.initial_token,
        "registration_policy": client.registration_policy,
        "state": str(client.state(now)),
        "created_at": client.created_at,
        "last_used_at": client.last_use,
        "disabled_at": client.disabled_at,
    }


def secrets(secrets: Iterable[ClientSecret]) -> list[dict[str, Any]]:
    """The client secrets: when each was made, about when it was last used, and when it ends."""
    return [
        {
            "secret": handle(secret),
            "created_at": secret.created_at,
            "last_used_at": secret.last_used_at,
            "ends_at": secret.expires_at,
        }
        for secret in secrets
    ]


def user(user: User) -> dict[str, Any]:
    """The members of a person."""
    return {
        "user_id": user.user_id,
        "username": user.username,
        "display_name": user.display_name,
        "groups": list(user.groups),
        "attributes": {name: list(values) for name, values in user.attributes.items()},
        "created_at": user.created_at,
        "disabled_at": user.disabled_at,
    }


def identity(identity: JoinedIdentity) -> dict[str, Any]:
    """The members of a person's identity at another server."""
    return {
        "issuer": identity.issuer,
        "subject": identity.subject,
        "label": identity.label,
        "joined_at": identity.joined_at,
    }


def grant(grant: Grant, names: Mapping[str, str]) -> dict[str, Any]:
    """The members of a grant.

    Args:
        names: the known user names, by user id.
    """
    return {
        "grant_id": grant.grant_id,
        "user_id": grant.user_id,
        "username": names.get(grant.user_id or ""),
        "client_id": grant.client_id,
        "scope": " ".join(grant.scopes),
        "resources": list(grant.resources),
        "let_in_by": let_in_by(grant),
        "derived_from": grant.parent_id,
        "created_at": grant.created_at,
        "last_used_at": grant.last_used_at,
        "expires_at": grant.expires_at,
    }


def consent(consent: Consent, names: Mapping[str, str]) -> dict[str, Any]:
    """The members of a remembered consent; `names` as for `grant`."""
    return {
        "user_id": consent.user_id,
        "username": names.get(consent.user_id),
        "client_id": consent.client_id,
        "scope": " ".join(consent.scopes),
        "resources": list(consent.resources),
        "granted_at": consent.granted_at,
    }


def initial_token(token: InitialAccessToken, now: datetime) -> dict[str, Any]:
    """The members of an initial access token."""
    return {
        "initial_token": token.token_id,
        "policy": token.policy,
        "state": str(token.state(now)),
        "used": token.used,
        "uses": token.uses,
        "expires_at": token.expires_at,
        "created_at": token.created_at,
        "revoked_at": token.revoked_at,
        "made_by": token.made_by,
        "note": token.note,
    }


def signing_key(key: SigningKey, now: datetime, signs: SigningKey | None) -> dict[str, Any]:
    """The members of a signing key; `sealed_by` is the key of the ring that opens its private part.

    Args:
        signs: the present signing key.
    """
    return {
        "kid": key.kid,
        "algorithm": key.algorithm,
        "state": str(key.state(now)),
        "signs": signs is not None and signs.kid == key.kid,
        "created_at": key.created_at,
        "activates_at": key.activates_at,
        "retires_at": key.retires_at,
        "ends_at": key.ends_at,
        "sealed_by": key_id_of(key.sealed_private_jwk) if key.sealed_private_jwk else None,
        "public_jwk": dict(key.public_jwk),
    }


def resource(engine: Engine, resource: Resource) -> dict[str, Any]:
    """The members of a resource; format and lifetime are those of its tokens."""
    settings = engine.settings
    return {
        "resource": resource.uri,
        "name": resource.name,
        "scopes": "every scope" if resource.scopes is None else list(resource.scopes),
        "token_format": resource.token_format or settings.access_token_format,
        "token_lifetime": resource.token_lifetime or settings.access_token_lifetime,
        "default": resource.is_default,
        "introspecting_clients": list(resource.introspecting_clients),
        "source": list(resource.settings) or "database",
        "created_at": resource.created_at,
    }


def event(event: Event) -> dict[str, Any]:
    """All members of an event, and the cursor of its place."""
    return {**as_json(event), "cursor": cursor_of(event)}
