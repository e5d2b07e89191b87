"""Finds the record of a presented token: its grant, and whether it is valid now.

`engine.tokens.issuing` makes tokens; this reads them again, for introspection and revocation. The kind of a
token follows from its text, so no hint is needed, and garbage costs no look-up (T077).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from authserver.engine import uris
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.crypto.jose import NotVerified, read_jws
from authserver.engine.records import NOTHING, Grant, TokenKind, User
from authserver.engine.tokens.ancestry import ancestors, why_ended
from authserver.engine.tokens.issuing import GRANT_CLAIMS

_OPAQUE = {TokenKind.ACCESS: digests.ACCESS, TokenKind.REFRESH: digests.REFRESH}


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """An access or refresh token that this server issued.

    Attributes:
        jti: an identifier of the token that reveals nothing about its text; it begins with the id of the grant.
        grant: the grant to which it belongs; `is_stored` is False if that is not stored, because it is a client's own
            grant to which only this JWT belongs.
        user: who agreed; None when the client acts on its own behalf.
        confirmation: the `cnf` that names the key it is bound to (RFC 7800, 3.1); empty when it is not.
        is_used: whether it is a refresh token that has a successor.
        ancestors: the grants that its grant was derived from, its parent first (`tokens.ancestry`).
        has_ended_ancestor: whether one of them has ended.
    """

    kind: TokenKind
    jti: str
    client_id: str
    scopes: tuple[str, ...]
    audience: tuple[str, ...]
    issued_at: datetime
    expires_at: datetime
    grant: Grant
    user: User | None
    confirmation: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    is_stored: bool = True
    is_used: bool = False
    ancestors: tuple[Grant, ...] = ()
    has_ended_ancestor: bool = False

    def is_active(self, now: datetime) -> bool:
        """Whether it is valid now, if its client is enabled: unused, not expired or revoked, its user not disabled.

        A token for a resource, or with a scope, that its grant has lost is not valid (L-08).
        """
        return (
            not self.is_used
            and not self.has_ended_ancestor
            and now < min(self.expires_at, self.grant.expires_at)
            and self.grant.revoked_at is None
            and self._is_within_grant()
            and (self.grant.user_id is None or (self.user is not None and self.user.is_enabled))
        )

    def _is_within_grant(self) -> bool:
        scopes = self.grant.scopes
        # A refresh token remains valid for the rest of its scopes and resources.
        if not (any if self.kind is TokenKind.REFRESH else all)(scope in scopes for scope in self.scopes):
            return False
        granted = self.grant.resources
        if all(resource in granted for resource in self.audience):
            return True
        # The operator may have changed its spelling since then.
        forms = set(map(uris.resource_form, granted))
        if self.kind is TokenKind.REFRESH:
            return not forms.isdisjoint(map(uris.resource_form, self.audience))
        return forms.issuperset(map(uris.resource_form, self.audience))


_TEXTS = ("iss", "sub", "client_id", "jti", "scope")
_LAST_SECOND = 253_402_300_799  # of the year 9999


def find_issued(engine: Engine, text: str) -> Issued | None:
    """The token that was issued with this text, even if it has expired or was revoked; None for any other text."""
    for kind, prefix in _OPAQUE.items():
        if digests.well_formed(prefix, text):
            return _opaque(engine, kind, text)
    try:
        claims = engine.signer.verify(text, typ="at+jwt")
    except NotVerified:
        return None
    # Tokens of another issuer with the same keys are not ours; before `nbf` a token does not count yet.
    now = engine.now.timestamp()
    if not _is_complete(claims) or claims["iss"] != engine.settings.issuer or claims.get("nbf", now) > now:
        return None
    return _jwt(engine, claims)


def foresee_issued(engine: Engine, text: str) -> None:
    """Announce that the record of this token will be read, before anything of the token is verified."""
    for kind, prefix in _OPAQUE.items():
        if digests.well_formed(prefix, text):
            engine.stores.tokens.foresee(kind, digests.digest(kind, text))
            return
    with suppress(ValueError):
        name = read_jws(text).claims.get("jti")
        if isinstance(name, str):
            engine.stores.grants.foresee_with_user(name.partition(".")[0])


def _is_complete(claims: Mapping[str, Any]) -> bool:
    """Whether these are the claims of an access token (RFC 9068, 2.2), whatever else our keys have signed (T079)."""
    audience = claims.get("aud")
    texts = [claims.get(name) for name in _TEXTS] + (audience if isinstance(audience, list) else [audience])
    times = [claims.get(name) for name in ("iat", "exp")] + ([claims["nbf"]] if "nbf" in claims else [])
    return (
        audience != []
        and all([isinstance(text, str) and text for text in texts])
        and all([type(time) is int and 0 <= time <= _LAST_SECOND for time in times])
    )


def _opaque(engine: Engine, kind: TokenKind, text: str) -> Issued | None:
    found = engine.stores.tokens.find(kind, digests.digest(kind, text))
    if found is None:
        return None
    token, parents = found.token, ancestors(engine, found.grant)
    name = base64.urlsafe_b64encode(token.digest[:16]).rstrip(b"=").decode()
    return Issued(
        kind=kind,
        jti=f"{found.grant.grant_id}.{name}",
        client_id=token.client_id,
        scopes=found.refreshable_scopes if kind is TokenKind.REFRESH else token.scopes,
        audience=token.resources,
        issued_at=token.created_at,
        expires_at=token.expires_at,
        grant=found.grant,
        user=found.user,
        confirmation=token.details.get("cnf", NOTHING),
        is_used=token.claimed_at is not None,
        ancestors=parents,
        has_ended_ancestor=why_ended(engine, found.grant, parents) is not None,
    )


def _jwt(engine: Engine, claims: Mapping[str, Any]) -> Issued | None:
    client_id, audience = claims["client_id"], claims["aud"]
    resources = (audience,) if isinstance(audience, str) else tuple(audience)
    scopes = tuple(claims["scope"].split(" "))
    issued_at = datetime.fromtimestamp(claims["iat"], UTC)
    expires_at = datetime.fromtimestamp(claims["exp"], UTC)
    found = engine.stores.grants.find_with_user(claims["jti"].partition(".")[0])
    if found is not None:
        grant, user = found.grant, found.user
    elif claims["sub"] != client_id:
        # Each grant of a person is stored until its tokens have expired (`issuing`): this one has ended, or was lost in
        # a restore.
        return None
    else:
        user = None
        grant = Grant(
            grant_id=claims["jti"].partition(".")[0],
            client_id=client_id,
            user_id=None,
            scopes=scopes,
            resources=resources,
            created_at=issued_at,
            expires_at=expires_at,
            details={name: claims[name] for name in GRANT_CLAIMS if name in claims},
        )
    parents = ancestors(engine, grant)
    return Issued(
        kind=TokenKind.ACCESS,
        jti=claims["jti"],
        client_id=client_id,
        scopes=scopes,
        audience=resources,
        issued_at=issued_at,
        expires_at=expires_at,
        grant=grant,
        user=user,
        confirmation=claims.get("cnf", NOTHING),
        is_stored=found is not None,
        ancestors=parents,
        has_ended_ancestor=why_ended(engine, grant, parents) is not None,
    )
