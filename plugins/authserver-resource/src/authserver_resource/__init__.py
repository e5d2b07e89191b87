"""Protect an API with OAuth access tokens: RFC 9068 JWTs, opaque tokens, DPoP, exact challenges, metadata.

protected = ProtectedResource("https://api.example.com/", "https://auth.example.com", scopes=["files.read"])
access = protected.check(request, needs("files.read"))
"""

from authserver_resource.access import Access, Requirement, needs
from authserver_resource.dpop import Dpop, MemoryReplays, Nonces, Replays
from authserver_resource.issuer import Issuer
from authserver_resource.refusals import (
    Challenge,
    InsufficientAuthentication,
    InsufficientScope,
    InvalidProof,
    InvalidRequest,
    InvalidToken,
    NonceNeeded,
    NoToken,
    Refusal,
    Unavailable,
)
from authserver_resource.request import Request
from authserver_resource.resource import MutualTls, ProtectedResource

__all__ = [
    "Access",
    "Challenge",
    "Dpop",
    "InsufficientAuthentication",
    "InsufficientScope",
    "InvalidProof",
    "InvalidRequest",
    "InvalidToken",
    "Issuer",
    "MemoryReplays",
    "MutualTls",
    "NoToken",
    "NonceNeeded",
    "Nonces",
    "ProtectedResource",
    "Refusal",
    "Replays",
    "Request",
    "Requirement",
    "Unavailable",
    "needs",
]
