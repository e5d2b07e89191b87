"""Proofs of a key that clients send with their requests (RFC 9449), for rules and over HTTP."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any

from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from authserver.testing.service import ISSUER

KEY, OTHER = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")


def encoded(part: Any) -> bytes:
    """A part of a JWS: bytes as they are, anything else as JSON."""
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def proof(
    key: Any = KEY, algorithm: str = "ES256", *, header: dict[str, Any] | None = None, **claims: Any
) -> str:
    """A correct proof for the token endpoint, with these members of header and claims changed; None removes one."""
    head = {"typ": "dpop+jwt", "alg": algorithm, "jwk": key.as_dict(private=False), **(header or {})}
    body = {
        "htm": "POST",
        "htu": f"{ISSUER}/oauth/token",
        "iat": int(time.time()),
        "jti": uuid.uuid4().hex,
        **claims,
    }
    signed = encoded(without_none(head)) + b"." + encoded(without_none(body))
    signature = JWSRegistry.algorithms[algorithm].sign(signed, key)
    return (signed + b"." + encoded(signature)).decode()
