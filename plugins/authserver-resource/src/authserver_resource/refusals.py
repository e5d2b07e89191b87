"""Refusals of requests, and their challenges for the client (OAuth 2.1, 5.3; RFC 6750, 3)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

# The characters of an attribute of a challenge: no quotation mark and no backslash (OAuth 2.1, 5.3.1).
_FORBIDDEN = re.compile(r"[^\x20\x21\x23-\x5B\x5D-\x7E]")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a `WWW-Authenticate` header: a scheme and its attributes, each once (RFC 9110, 11.6.1)."""

    scheme: str
    attributes: Mapping[str, str | int]

    def __str__(self) -> str:
        pairs = (
            # A number is no quoted string: max_age is seconds (RFC 9470, 3).
            f"{name}={value}" if isinstance(value, int) else f'{name}="{_FORBIDDEN.sub("?", value)}"'
            for name, value in self.attributes.items()
        )
        return f"{self.scheme} {', '.join(pairs)}"


class Refusal(Exception):
    """A refused request.

    Attributes:
        status: the status of the HTTP response.
        error: the error code, or "" where no code may be sent (OAuth 2.1, 5.3.2).
        description: for the developer of the client; it repeats nothing that the client sent.
        scheme: the scheme that the request used, `Bearer` or `DPoP`, or "" if it is not known.
        attributes: more attributes of the challenge.
        members: more members of the JSON body.
        retry_after: seconds after which the client may try again, or None.
        challenges: the challenges of `WWW-Authenticate`.
        nonce: the value of `DPoP-Nonce` (RFC 9449, 9), or "".
    """

    status: ClassVar[int] = 401
    error: ClassVar[str] = "invalid_token"

    def __init__(
        self,
        description: str,
        *,
        scheme: str = "",
        attributes: Mapping[str, str | int] | None = None,
        members: Mapping[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(description)
        self.description = description
        self.scheme = scheme
        self.attributes = dict(attributes or {})
        self.members = dict(members or {})
        self.retry_after = retry_after
        self.challenges: Sequence[Challenge] = ()
        self.nonce = ""

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of the response, without those of its body. Each name occurs once."""
        headers = [("Cache-Control", "no-store")]
        if self.challenges:
            headers.append(("WWW-Authenticate", ", ".join(map(str, self.challenges))))
        if self.nonce:
            headers.append(("DPoP-Nonce", self.nonce))
        if self.retry_after is not None:
            headers.append(("Retry-After", str(self.retry_after)))
        return headers

    @property
    def body(self) -> bytes:
        """The JSON body: the content of the challenge, for programs that cannot read headers."""
        said = {"error": self.error, "error_description": self.description} if self.error else {}
        return json.dumps({**said, **self.members}).encode()


class NoToken(Refusal):
    """The request has no access token: no error code is sent (OAuth 2.1, 5.3.2)."""

    error = ""


class InvalidRequest(Refusal):
    """The request is malformed, or carries its token in more than one way (OAuth 2.1, 5.3.2)."""

    status = 400
    error = "invalid_request"


class InvalidToken(Refusal):
    """The token is expired, revoked, malformed, or not for this resource (OAuth 2.1, 5.3.2)."""


class InvalidProof(Refusal):
    """The DPoP proof is missing or not valid (RFC 9449, 7.1)."""

    error = "invalid_dpop_proof"


class NonceNeeded(Refusal):
    """The DPoP proof needs the nonce that comes with this response (RFC 9449, 9)."""

    error = "use_dpop_nonce"


class InsufficientScope(Refusal):
    """The token does not allow this request (OAuth 2.1, 5.3.2)."""

    status = 403
    error = "insufficient_scope"


class InsufficientAuthentication(Refusal):
    """The person did not sign in recently or strongly enough (RFC 9470, 3)."""

    error = "insufficient_user_authentication"


class Unavailable(Refusal):
    """The authorization server cannot be asked at the moment, so it is not known whether the token is valid."""

    status = 503
    error = "temporarily_unavailable"
