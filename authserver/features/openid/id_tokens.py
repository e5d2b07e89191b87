"""ID tokens (OIDC Core, 2): made for a code or a refresh token, and read again as a hint, or to exchange one (RFC 8693)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from authserver.api import (
    Client,
    Engine,
    Grant,
    InvalidRequest,
    NotLive,
    Presented,
    new_identifier,
    parent_of_grant,
)

# A token of this type is not an access token (`at+jwt`), and is accepted nowhere else.
TYPE = "JWT"
# Its token type for clients that exchange one (RFC 8693, 3).
TOKEN_TYPE = "urn:ietf:params:oauth:token-type:id_token"
ALGORITHM = "id_token_signed_response_alg"
# OIDC Registration, 2.
DEFAULT_ALGORITHM = "RS256"
_HASHES = {"EdDSA": hashlib.sha512, "ES384": hashlib.sha384}


def algorithm_of(client: Client) -> str:
    """The algorithm of the client's ID tokens."""
    algorithm: str = client.details.get(ALGORITHM, DEFAULT_ALGORITHM)
    return algorithm


def make(
    engine: Engine,
    client: Client,
    grant: Grant,
    *,
    access_token: str,
    lifetime: int,
    nonce: str | None,
    person: Mapping[str, Any],
) -> str:
    """The ID token of one token response.

    Args:
        access_token: the access token of the same response, to which `at_hash` binds the ID token.
        lifetime: seconds for which it is valid.
        nonce: the `nonce` of the authorization request; None if it had none, and after a refresh (OIDC Core, 12.2).
        person: claims about the person.
    """
    now, algorithm = int(engine.now.timestamp()), algorithm_of(client)
    claims: dict[str, Any] = {
        **person,
        "iss": engine.settings.issuer,
        "sub": grant.subject,
        "aud": client.client_id,
        "exp": now + lifetime,
        "iat": now,
        # It begins with the grant id, like that of an access token, so that the token leads to its grant.
        "jti": f"{grant.grant_id}.{new_identifier()}",
        "at_hash": _half_hash(access_token, algorithm),
    }
    for name in ("auth_time", "acr", "amr"):
        if grant.details.get(name) not in (None, []):
            claims[name] = grant.details[name]
    if "session" in grant.details:
        claims["sid"] = grant.details["session"]
    if nonce is not None:
        claims["nonce"] = nonce
    return engine.signer.sign(claims, typ=TYPE, algorithm=algorithm)


def read_hint(engine: Engine, client_id: str | None, text: str) -> Mapping[str, Any]:
    """The claims of an ID token that this server issued to this client before, even if it has expired.

    Args:
        client_id: the client; None for any client.

    Raises:
        InvalidRequest: it is not such an ID token.
    """
    try:
        claims = engine.signer.verify(text, typ=TYPE)
    except ValueError:
        claims = {}
    audience = claims.get("aud")
    if claims.get("iss") != engine.settings.issuer or audience is None or client_id not in (None, audience):
        raise InvalidRequest("id_token_hint is no ID token of this application.", reason="hint-refused")
    return claims


def present(engine: Engine, client: Client, text: str) -> Presented:
    """An ID token that the client got here, presented for an exchange: it names who agreed to a grant (RFC 8693, 2.1).

    Raises:
        InvalidRequest: it is no ID token, belongs to another client, or has ended, or its grant has.
    """
    try:
        claims = read_hint(engine, client.client_id, text)
    except InvalidRequest:
        claims = {}
    name = claims.get("jti")
    # Other texts that this server signs for a client have no `exp`.
    found = (
        engine.stores.grants.find_with_user(name.partition(".")[0])
        if isinstance(name, str) and type(claims.get("exp")) is int
        else None
    )
    if found is None or found.grant.client_id != client.client_id:
        raise InvalidRequest("The token is not valid for this client.", reason="exchanged-id-token-refused")
    engine.journal.user_id = found.grant.user_id
    try:
        parent = parent_of_grant(
            engine, found.grant, found.user, expires_at=datetime.fromtimestamp(claims["exp"], UTC)
        )
    except NotLive as ended:
        raise InvalidRequest("The token is not valid for this client.", reason=ended.reason) from None
    return Presented(
        parent=parent,
        name=str(name),
        client_id=client.client_id,
        audience=found.grant.resources,
        identifies=True,
    )


def _half_hash(text: str, algorithm: str) -> str:
    """The left half of the hash, with the hash function of the algorithm (OIDC Core, 3.1.3.6)."""
    made = _HASHES.get(algorithm, hashlib.sha256)(text.encode("ascii")).digest()
    return base64.urlsafe_b64encode(made[: len(made) // 2]).rstrip(b"=").decode()
