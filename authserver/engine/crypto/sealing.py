"""Seals and signs values that are sent out and come back, or that a copy of the database must not reveal.

Each purpose has a key of its own, derived from a key of the ring, so a value that was sealed for one purpose does not
open for another. To rotate, put a new key first in the ring; the older ones still open.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_LENGTH = 32
_MAXIMUM_KEY_ID_LENGTH = 64
# Random 96-bit nonces are good for 2**32 sealings under one key (NIST SP 800-38D, 8.3).
_NONCE_LENGTH = 12


class Unsealable(Exception):
    """The value cannot be opened: it was changed, was not sealed here, is for another purpose, or its key is unknown."""

    def __init__(self) -> None:
        super().__init__("the sealed value cannot be opened")


class KeyRing:
    """Secret keys by id. The first seals and signs; all of them open and verify.

    Args:
        keys: (id, key) pairs, ids of 1 to 64 ASCII characters, keys of 32 bytes. Raises ValueError
            when there is none, one is malformed or an id occurs twice.
    """

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        for key_id, key in keys:
            if not key_id.isascii() or not 1 <= len(key_id) <= _MAXIMUM_KEY_ID_LENGTH:
                raise ValueError("a key id must be 1 to 64 ASCII characters")
            if len(key) != _KEY_LENGTH:
                raise ValueError(f"key {key_id} must be {_KEY_LENGTH} bytes")
        self._keys = dict(keys)
        if not keys or len(self._keys) != len(keys):
            raise ValueError("a key ring needs one key or more, each with an id of its own")
        self._active = keys[0][0]
        self._ciphers: dict[tuple[str, str], AESGCM] = {}
        self._mac_keys: dict[tuple[str, str], bytes] = {}

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of all keys, first the one that seals and signs."""
        return tuple(self._keys)

    def fingerprint(self, key_id: str) -> bytes:
        """A fingerprint that shows whether another ring has the same key under this id; it reveals nothing else."""
        return hmac.digest(self._mac_key(key_id, "fingerprint"), key_id.encode("ascii"), "sha256")

    def seal(self, plaintext: bytes, *, purpose: str, context: str = "") -> bytes:
        """The value, encrypted and authenticated; it opens only with the same purpose and context.

        The context is the place of the value, such as a table and row; it is not stored in the sealed value.
        """
        header = _header(self._active)
        nonce = secrets.token_bytes(_NONCE_LENGTH)
        cipher = self._cipher(self._active, purpose)
        return header + nonce + cipher.encrypt(nonce, plaintext, header + context.encode())

    def open(self, sealed: bytes, *, purpose: str, context: str = "") -> bytes:
        """The value that was sealed. Raises Unsealable."""
        end_of_id = 1 + sealed[0] if sealed else 0
        header, nonce = sealed[:end_of_id], sealed[end_of_id : end_of_id + _NONCE_LENGTH]
        try:
            cipher = self._cipher(header[1:].decode("ascii"), purpose)
            return cipher.decrypt(nonce, sealed[end_of_id + _NONCE_LENGTH :], header + context.encode())
        except (InvalidTag, ValueError):
            raise Unsealable from None

    def mac(self, data: bytes, *, purpose: str) -> bytes:
        """HMAC-SHA256 of the data under the active key."""
        return hmac.digest(self._mac_key(self._active, purpose), data, "sha256")

    def mac_matches(self, data: bytes, mac: bytes, *, purpose: str) -> bool:
        """Whether a key of the ring made this code for this data."""
        matches = [
            hmac.compare_digest(mac, hmac.digest(self._mac_key(key_id, purpose), data, "sha256"))
            for key_id in self._keys
        ]
        return any(matches)

    def keyed_digest(self, text: str, *, purpose: str, key_id: str | None = None) -> tuple[str, bytes]:
        """The id of the key, and the digest of a secret under it, which is useless without the ring.

        Raises Unsealable when `key_id` is not in the ring.
        """
        key_id = self._active if key_id is None else key_id
        data = text.encode("utf-8", "surrogatepass")
        return key_id, hmac.digest(self._mac_key(key_id, purpose), data, "sha256")

    def _cipher(self, key_id: str, purpose: str) -> AESGCM:
        cipher = self._ciphers.get((key_id, purpose))
        if cipher is None:
            cipher = self._ciphers[key_id, purpose] = AESGCM(_derive(self._key(key_id), f"seal {purpose}"))
        return cipher

    def _mac_key(self, key_id: str, purpose: str) -> bytes:
        key = self._mac_keys.get((key_id, purpose))
        if key is None:
            key = self._mac_keys[key_id, purpose] = _derive(self._key(key_id), f"mac {purpose}")
        return key

    def _key(self, key_id: str) -> bytes:
        try:
            return self._keys[key_id]
        except KeyError:
            raise Unsealable from None


def key_id_of(sealed: bytes) -> str:
    """The id of the key that a ring sealed this with. Raises Unsealable when no ring did."""
    try:
        return sealed[1 : 1 + sealed[0]].decode("ascii")
    except (IndexError, UnicodeDecodeError):
        raise Unsealable from None


def seal_under(secret: str, plaintext: bytes) -> bytes:
    """Seal so that it can be opened only with `secret`, a credential that this server made. No other key is used."""
    nonce = secrets.token_bytes(_NONCE_LENGTH)
    return nonce + _cipher_of(secret).encrypt(nonce, plaintext, None)


def open_under(secret: str, sealed: bytes) -> bytes:
    """The value that was sealed under this secret. Raises Unsealable."""
    try:
        return _cipher_of(secret).decrypt(sealed[:_NONCE_LENGTH], sealed[_NONCE_LENGTH:], None)
    except (InvalidTag, ValueError):
        raise Unsealable from None


def to_text(sealed: bytes) -> str:
    """Base64url without padding, for a URL (RFC 4648, 5)."""
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")


def from_text(text: str) -> bytes:
    """The bytes that `to_text` wrote. Raises Unsealable for any other spelling of them."""
    try:
        sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Unsealable from None
    if to_text(sealed) != text:
        raise Unsealable
    return sealed


def _header(key_id: str) -> bytes:
    return bytes([len(key_id)]) + key_id.encode("ascii")


def _cipher_of(secret: str) -> AESGCM:
    return AESGCM(_derive(secret.encode("utf-8", "surrogatepass"), "seal under a credential"))


def _derive(key: bytes, purpose: str) -> bytes:
    """A key for one purpose (RFC 5869). It needs no salt, because its input is uniformly random."""
    info = f"authserver {purpose}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=_KEY_LENGTH, salt=None, info=info).derive(key)
