"""Proofs that the client holds the key to which its token is bound (RFC 9449)."""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
import threading
import time
from base64 import urlsafe_b64encode
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import quote, unquote_to_bytes, urlsplit

from authserver_resource.jose import (
    ALGORITHMS,
    MAXIMUM_TOKEN,
    Key,
    Malformed,
    has_foreign_members,
    public_key,
    read_header,
    split,
)
from authserver_resource.refusals import InvalidProof, NonceNeeded, Unavailable
from authserver_resource.strict_json import is_number, json_object

MAXIMUM_IDENTIFIER = 256  # characters of a `jti`
_PORTS = {"https": ":443", "http": ":80"}
_JKT = re.compile(r"[A-Za-z0-9_-]{43}")


class Replays(Protocol):
    """Remembers proofs, so that each is accepted once. Several processes of one API share one, or use nonces."""

    def claim(self, identifier: str, until: float) -> bool:
        """Whether this identifier is new; it is remembered until this time (Unix seconds).

        Raises Unavailable when that is not known.
        """


class MemoryReplays:
    """Remembers the proofs of this process.

    Args:
        size: the largest number of proofs; while so many are remembered, further ones are refused with 503.
    """

    def __init__(self, size: int = 100_000) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._known: set[str] = set()
        # The times of proofs differ by some minutes at most, so they expire nearly in the order of their arrival.
        self._order: deque[tuple[float, str]] = deque()

    def claim(self, identifier: str, until: float) -> bool:
        now = time.time()
        with self._lock:
            while self._order and self._order[0][0] < now:
                self._known.discard(self._order.popleft()[1])
            if identifier in self._known:
                return False
            if len(self._known) >= self._size:
                raise Unavailable("Too many DPoP proofs are in use.", retry_after=5)
            self._known.add(identifier)
            self._order.append((until, identifier))
            return True


@dataclass(frozen=True)
class Nonces:
    """Nonces without storage: a keyed value of the time (RFC 9449, 8 and 9).

    Attributes:
        key: at least 32 random bytes, the same in all processes of this API.
        seconds: how long a nonce is given out; it is accepted for twice as long.
    """

    key: bytes = field(repr=False)
    seconds: int = 120

    def __post_init__(self) -> None:
        if len(self.key) < 32:
            raise ValueError("key: must have at least 32 bytes")
        if not 60 <= self.seconds <= 300:
            raise ValueError("seconds: must be 60 to 300")

    def current(self) -> str:
        """The nonce to give out now."""
        return self._of(int(time.time() // self.seconds))

    def accepts(self, nonce: object) -> bool:
        """Whether this is the current or the previous nonce."""
        slot = int(time.time() // self.seconds)
        return isinstance(nonce, str) and any(
            [hmac.compare_digest(self._of(number).encode(), nonce.encode()) for number in (slot, slot - 1)]
        )

    def _of(self, slot: int) -> str:
        digest = hmac.digest(self.key, b"authserver-resource dpop nonce" + struct.pack(">q", slot), "sha256")
        return encoded(digest[:18])


@dataclass(frozen=True, kw_only=True)
class Dpop:
    """How tokens that are bound to a key are checked.

    Attributes:
        required: whether every token must be bound.
        algorithms: the algorithms that may sign proofs.
        tolerance: by how many seconds the time of a proof may differ from ours, before or after.
        replays: remembers the used proofs; by default in this process.
        nonces: the nonces that proofs must have, or None if they need none.
    """

    required: bool = False
    algorithms: tuple[str, ...] = ("ES256", "EdDSA", "PS256", "RS256")
    tolerance: int = 60
    replays: Replays = field(default_factory=MemoryReplays)
    nonces: Nonces | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.algorithms if name not in ALGORITHMS]
        if unknown or not self.algorithms:
            raise ValueError(f"algorithms: must be some of {' '.join(ALGORITHMS)}")
        if not 1 <= self.tolerance <= 300:
            raise ValueError("tolerance: must be 1 to 300 seconds")

    def check(self, proof: str, *, token: str, thumbprint: object, method: str, url: str) -> str:
        """Check a proof in every part (RFC 9449, 4.3 and 7.1), and use it up.

        Args:
            proof: the text of the one `DPoP` header.
            token: the access token that came with it.
            thumbprint: the thumbprint of the key that the token is bound to, its `jkt`.
            method: the method of the request.
            url: the URL of the request, without query.

        Returns:
            The nonce to send with the response, or "" if the client has the current one.

        Raises:
            InvalidProof: it is not valid.
            NonceNeeded: it lacks a nonce, or has an old one.
            Unavailable: it is not known whether it was used before.
        """
        claims, own_thumbprint = self._verified(proof)
        if not isinstance(thumbprint, str) or not _JKT.fullmatch(thumbprint) or own_thumbprint != thumbprint:
            raise InvalidProof("The DPoP proof is signed with another key than the token is bound to.")
        if claims.get("ath") != encoded(hashlib.sha256(token.encode()).digest()):
            raise InvalidProof("The DPoP proof is not for this access token: its ath is wrong.")
        if claims.get("htm") != method:
            raise InvalidProof("The DPoP proof is not for this method: its htm is wrong.")
        if not _is_same(claims.get("htu"), url):
            raise InvalidProof("The DPoP proof is not for this URL: its htu is wrong.")
        issued_at, identifier = claims.get("iat"), claims.get("jti")
        if not is_number(issued_at) or not abs(time.time() - issued_at) <= self.tolerance:
            raise InvalidProof("The iat of the DPoP proof is missing, or too far from the time here.")
        if not isinstance(identifier, str) or not 0 < len(identifier) <= MAXIMUM_IDENTIFIER:
            raise InvalidProof("The jti of the DPoP proof is missing or too long.")
        nonce = self._check_nonce(claims)
        # The digest has one length, whatever the client chose.
        used = encoded(
            hashlib.sha256(f"{thumbprint}\0{identifier}".encode("utf-8", "surrogatepass")).digest()
        )
        if not self.replays.claim(used, issued_at + self.tolerance + 1):
            raise InvalidProof("The DPoP proof was used before.")
        return nonce

    def _verified(self, proof: str) -> tuple[dict[str, Any], str]:
        if len(proof) > MAXIMUM_TOKEN:
            raise InvalidProof("The DPoP proof is too long.")
        try:
            jws = split(proof)
            key, thumbprint = _proving_key(jws.header, tuple(self.algorithms))
            claims = json_object(jws.payload)
        except ValueError:
            raise InvalidProof("The DPoP proof is not one signed JWT.") from None
        if not key.verifies(jws):
            raise InvalidProof("The signature of the DPoP proof is wrong.")
        return claims, thumbprint

    def _check_nonce(self, claims: dict[str, Any]) -> str:
        if self.nonces is None:
            return ""
        if not self.nonces.accepts(claims.get("nonce")):
            raise NonceNeeded("The DPoP proof needs the nonce of this response.")
        current = self.nonces.current()
        return "" if claims["nonce"] == current else current


@lru_cache(
    maxsize=1024
)  # a client has one header for each of its keys, and reading it costs as much as a signature
def _proving_key(text: bytes, algorithms: tuple[str, ...]) -> tuple[Key, str]:
    """The key in the header of a proof (RFC 9449, 4.2), and its thumbprint. Raises Malformed and InvalidProof."""
    header = read_header(text)
    algorithm = header.get("alg")
    if header.get("typ") != "dpop+jwt" or has_foreign_members(header, allowed=frozenset({"jwk"})):
        raise InvalidProof("The header of the DPoP proof is not one of a proof.")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise InvalidProof("The DPoP proof is signed with an algorithm that is not accepted.")
    try:
        key = public_key(header.get("jwk"), algorithm)
    except Malformed:
        raise InvalidProof("The jwk of the DPoP proof is not a public key for its alg.") from None
    return key, key.thumbprint()


def encoded(value: bytes) -> str:
    """base64url without padding (RFC 7515, 2)."""
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def _is_same(htu: object, url: str) -> bool:
    """Whether both are one URL, without query and fragment (RFC 9449, 4.3)."""
    if not isinstance(htu, str) or len(htu) > 4096:
        return False
    try:
        return _normal(htu) == _normal(url)
    except ValueError:
        return False


def _normal(url: str) -> tuple[str, str, str]:
    """Scheme, authority and path, normalised (RFC 3986, 6.2.2 and 6.2.3)."""
    parts = urlsplit(url)
    scheme, authority = parts.scheme.lower(), parts.netloc.lower()
    # Servers decode the path before an application sees it, so both sides are compared decoded.
    path = quote(unquote_to_bytes(parts.path), safe="/")
    if "/." in path:
        path = _without_dots(path)
    return scheme, authority.removesuffix(_PORTS.get(scheme, ":")), path or "/"


def _without_dots(path: str) -> str:
    """RFC 3986, 5.2.4."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if len(kept) > 1:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/".join(kept)
