"""Proof Key for Code Exchange: S256 for every client, and nothing else (RFC 7636; OAuth 2.1, 4.1.1)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from authserver.engine.errors import InvalidRequest

METHODS = ("S256",)

CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


def check_challenge(challenge: str | None, method: str | None) -> None:
    """Raise InvalidRequest unless this is an S256 challenge whose method was sent explicitly.

    A challenge without a method means `plain` (OAuth 2.1, 4.1.1), which is never accepted.
    """
    if challenge is None:
        raise InvalidRequest("code_challenge is missing", reason="pkce-missing")
    if method is None:
        raise InvalidRequest("code_challenge_method is missing; it must be S256", reason="pkce-method")
    if method not in METHODS:
        raise InvalidRequest("code_challenge_method is not supported; it must be S256", reason="pkce-method")
    if not CHALLENGE.fullmatch(challenge):
        raise InvalidRequest("code_challenge must be 43 base64url characters", reason="pkce-challenge")


def verify(challenge: str, verifier: str) -> bool:
    """Whether the verifier is the one the challenge was made from (RFC 7636, 4.6); False if malformed."""
    if not VERIFIER.fullmatch(verifier):
        return False
    made = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=")
    return hmac.compare_digest(made, challenge.encode("utf-8", "surrogatepass"))


def verifier_problem(verifier: str) -> str | None:
    """Why this cannot be a code verifier (RFC 7636, 4.1), or None."""
    if VERIFIER.fullmatch(verifier):
        return None
    return "code_verifier must be 43 to 128 unreserved characters"
