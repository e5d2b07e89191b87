"""The one place that issues codes and tokens: claim, mint, store digests, write the event; one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from authserver.engine import digests
from authserver.engine.context import Binding, Engine, Issue
from authserver.engine.errors import InvalidGrant
from authserver.engine.records import NOTHING, Client, EventType, Grant, Token, TokenKind
from authserver.engine.sealing import seal_under
from authserver.settings import AccessTokenFormat

# What no plugin may add: these are the core's, or features' of the protocol that the core knows.
CORE_CLAIMS = frozenset(
    {"iss", "sub", "aud", "client_id", "iat", "nbf", "exp", "jti", "scope", "auth_time", "acr", "amr", "cnf"}
)
CORE_MEMBERS = frozenset(
    {
        "access_token",
        "token_type",
        "expires_in",
        "scope",
        "refresh_token",
        "error",
        "error_description",
        "error_id",
    }
)

# How and when the person signed in: of the grant, and the same in each of its tokens (RFC 9068, 2.2.1).
SIGN_IN_CLAIMS = ("auth_time", "acr", "amr")

CODE_DETAILS = frozenset({"redirect_uri", "code_challenge"})

# People are shown when an application last came for tokens; to the minute is near enough, and writes less.
TOUCHED_EVERY = timedelta(minutes=1)


class AlreadyClaimed(Exception):
    """Another request claimed the same code or refresh token first, or its grant was revoked; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What the token endpoint answers with (OAuth 2.1, 3.2.3). `expires_in` is in seconds."""

    access_token: str = field(repr=False)
    token_type: str = "Bearer"
    expires_in: int
    scopes: tuple[str, ...]
    refresh_token: str | None = field(default=None, repr=False)
    added: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    def as_json(self) -> dict[str, Any]:
        answer = {
            "access_token": self.access_token,
            "token_type": self.token_type,
            "expires_in": self.expires_in,
            "scope": " ".join(self.scopes),
            **self.added,
        }
        if self.refresh_token is not None:
            answer["refresh_token"] = self.refresh_token
        return answer


def issue(engine: Engine, client: Client, order: Issue, binding: Binding | None = None) -> Tokens:
    """Issue what a grant type said may be issued.

    Args:
        binding: the key that the client proved, if any.

    Raises:
        InvalidGrant: what was presented is bound to a key that this request does not prove; it stays usable.
        AlreadyClaimed: the credential that this spends is spent.
    """
    journal = engine.journal
    journal.client_id, journal.grant_id = client.client_id, order.grant.grant_id
    journal.user_id = order.grant.user_id
    if order.bound and (binding is None or binding.confirmation != order.bound):
        raise InvalidGrant("What was presented is bound to another key.", reason="key-differs")
    refresh_token = _spend(engine, client, order, binding)
    _touch(engine, order)
    access_token, expires_at = _access_token(engine, client, order, binding)
    engine.record(
        EventType.TOKEN_ISSUED,
        details={
            "scopes": list(order.scopes),
            "resources": list(order.resources),
            "refresh_token": refresh_token is not None,
            "retry": order.refresh_token is not None,
            **_confirmed(binding),
        },
    )
    return Tokens(
        access_token=access_token,
        token_type=binding.token_type if binding else "Bearer",
        expires_in=int((expires_at - engine.now).total_seconds()),
        scopes=order.scopes,
        refresh_token=refresh_token,
        added=engine.gather(
            "token_response", client=client, grant=order.grant, scopes=order.scopes, now=engine.now
        ),
    )


def new_code() -> str:
    """The text of a code that `issue_code` is going to store."""
    return digests.new_credential(digests.CODE)


def issue_code(
    engine: Engine,
    grant: Grant,
    code: str,
    *,
    redirect_uri: str,
    code_challenge: str,
    details: Mapping[str, Any] = NOTHING,
) -> None:
    """Store a new grant and a code for it; the code goes to the client, its digest stays (B-22, B-23).

    Args:
        details: what plugins keep with the code.
    """
    engine.stores.grants.add(grant)
    engine.stores.tokens.add(
        Token(
            kind=TokenKind.CODE,
            digest=digests.digest(TokenKind.CODE, code),
            grant_id=grant.grant_id,
            client_id=grant.client_id,
            scopes=grant.scopes,
            resources=grant.resources,
            created_at=engine.now,
            expires_at=engine.now + timedelta(seconds=engine.settings.code_lifetime),
            details={**details, "redirect_uri": redirect_uri, "code_challenge": code_challenge},
        )
    )
    engine.journal.grant_id = grant.grant_id
    engine.record(
        EventType.CODE_ISSUED, details={"scopes": list(grant.scopes), "resources": list(grant.resources)}
    )


def _confirmed(binding: Binding | None) -> dict[str, Any]:
    """The key as a token, or what is kept of it, names it (RFC 7800, 3.1)."""
    return {"cnf": dict(binding.confirmation)} if binding else {}


def _spend(engine: Engine, client: Client, order: Issue, binding: Binding | None) -> str | None:
    """Claim what is spent; mint and store the refresh token that comes with the access token, if any."""
    spends, tokens = order.spends, engine.stores.tokens
    if order.keeps is not None:
        # Its client has it, so it is not sent again: a credential less on the way (OAuth 2.1, 4.3.3).
        if not tokens.extend(order.keeps, _idle_end(engine, order.grant)):
            raise AlreadyClaimed
        return None
    if not order.refreshable or order.refresh_token is not None:
        if spends and not tokens.claim(spends, engine.now):
            raise AlreadyClaimed
        return order.refresh_token
    token = digests.new_credential(digests.REFRESH)
    digest = digests.digest(TokenKind.REFRESH, token)
    if spends and order.presented:
        # Only whoever presents the spent token again can read its successor: no key of ours opens it.
        sealed = seal_under(order.presented, token.encode())
        claimed = tokens.claim(spends, engine.now, successor_digest=digest, sealed_successor=sealed)
    else:
        claimed = spends is None or tokens.claim(spends, engine.now)
    if not claimed:
        raise AlreadyClaimed
    tokens.add(
        Token(
            kind=TokenKind.REFRESH,
            digest=digest,
            grant_id=order.grant.grant_id,
            client_id=client.client_id,
            # A successor keeps what its predecessor had, however narrow this request was (I-11).
            scopes=spends.scopes if spends else order.scopes,
            resources=spends.resources if spends else order.resources,
            created_at=engine.now,
            expires_at=_idle_end(engine, order.grant),
            details=_confirmed(binding) if binding and binding.binds_refresh else NOTHING,
        )
    )
    return token


def _idle_end(engine: Engine, grant: Grant) -> datetime:
    """When a refresh token that nobody uses from now on dies; never after its grant (I-13)."""
    idle = timedelta(seconds=engine.settings.refresh_token_idle_lifetime)
    return min(engine.now + idle, grant.expires_at)


def _touch(engine: Engine, order: Issue) -> None:
    """Note that the client came for tokens of this grant, unless that was noted a moment ago."""
    grant = order.grant
    if not order.is_new and engine.now - (grant.last_used_at or grant.created_at) >= TOUCHED_EVERY:
        engine.stores.grants.touch(grant.grant_id, engine.now)


def _access_token(
    engine: Engine, client: Client, order: Issue, binding: Binding | None
) -> tuple[str, datetime]:
    """A JWT (RFC 9068) or an opaque token, as the resources ask, and when it ends."""
    settings, grant = engine.settings, order.grant
    expires_at = min(engine.now + timedelta(seconds=settings.access_token_lifetime), grant.expires_at)
    opaque = settings.access_token_format is AccessTokenFormat.OPAQUE or any(
        resource in settings.opaque_resources for resource in order.resources
    )
    if not opaque:
        claims = _claims(engine, client, order, binding, expires_at)
        return engine.signer.sign(claims, typ="at+jwt"), expires_at
    token = digests.new_credential(digests.ACCESS)
    if order.is_new:
        engine.stores.grants.add(grant)
    engine.stores.tokens.add(
        Token(
            kind=TokenKind.ACCESS,
            digest=digests.digest(TokenKind.ACCESS, token),
            grant_id=grant.grant_id,
            client_id=client.client_id,
            scopes=order.scopes,
            resources=order.resources,
            created_at=engine.now,
            expires_at=expires_at,
            details=_confirmed(binding),
        )
    )
    return token, expires_at


def _claims(
    engine: Engine, client: Client, order: Issue, binding: Binding | None, expires_at: datetime
) -> Mapping[str, Any]:
    """RFC 9068, 2.2. The `jti` begins with the grant id, so a token leads to what was agreed."""
    grant = order.grant
    claims: dict[str, Any] = {
        "iss": engine.settings.issuer,
        "sub": grant.subject,
        "aud": order.resources[0] if len(order.resources) == 1 else list(order.resources),
        "client_id": client.client_id,
        "iat": int(engine.now.timestamp()),
        "exp": int(expires_at.timestamp()),
        "jti": f"{grant.grant_id}.{digests.new_identifier()}",
        "scope": " ".join(order.scopes),
        **_confirmed(binding),
        **engine.gather(
            "token_claims",
            client=client,
            user=order.user,
            grant=grant,
            scopes=order.scopes,
            resources=order.resources,
        ),
    }
    for name in SIGN_IN_CLAIMS:
        if name in grant.details:
            claims[name] = grant.details[name]
    return claims
