"""How requests are signed, for the side that sends and the side that receives: Standard Webhooks, version 1.

It needs the standard library only, so that an endpoint without authserver may copy this file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping

PREFIX = "whsec_"
# Seconds by which the two clocks may differ; an older request may be a replay.
TOLERANCE = 300


class BadSignature(Exception):
    """The request does not come from the holder of the secret, or is not new; the message says which."""


def key_of(secret: str) -> bytes:
    """The key in a secret: base64 of 24 to 64 random bytes, with or without `whsec_` before it.

    Raises:
        ValueError: it is not one; the message says what to write instead.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError(
            'must be base64 of 24 to 64 random bytes; make one with: echo "whsec_$(openssl rand -base64 32)"'
        )
    return key


def sign(key: bytes, message_id: str, body: bytes, now: float) -> dict[str, str]:
    """The headers that prove where a body comes from, and when it was sent."""
    timestamp = str(int(now))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + _signature(key, message_id, timestamp, body),
    }


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float | None = None,
    tolerance: float = TOLERANCE,
) -> str:
    """Check a request before its body is read.

    Args:
        secret: the secret with which the server signs.
        headers: the headers of the request, by name in any case.
        body: the bytes as they were received.
        now: seconds since 1970; by default the current time.
        tolerance: seconds by which the request's time may differ from it.

    Returns:
        The id of the message. It is never sent twice: an endpoint that remembers the ids of the last `tolerance`
        seconds notices a replayed request.

    Raises:
        BadSignature: with a sentence for the log; answer the caller only with 401.
        ValueError: the secret is not valid.
    """
    key = key_of(secret)
    lower = {name.lower(): text for name, text in headers.items()}
    try:
        message_id = lower["webhook-id"]
        timestamp = lower["webhook-timestamp"]
        signatures = lower["webhook-signature"].split(" ")
    except KeyError as missing:
        raise BadSignature(f"the header {missing} is missing") from None
    expected = _signature(key, message_id, timestamp, body).encode()
    # There are several signatures while a secret is changed. Compare all of them, also after a match.
    matches = [
        hmac.compare_digest(expected, text.removeprefix("v1,").encode())
        for text in signatures
        if text.startswith("v1,")
    ]
    if not any(matches):
        raise BadSignature("no signature matches")
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise BadSignature("webhook-timestamp is not a time")
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance:
        raise BadSignature("too old, or from the future")
    return message_id


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
