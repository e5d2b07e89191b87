"""Random credentials, and what is stored instead of them.

Credentials that we make have 256 random bits, so one SHA-256 of them is all a database needs;
Argon2id is for passwords, which people choose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from authserver.limits import MAXIMUM_PASSWORD

CODE = "as_code_"
ACCESS = "as_access_"
REFRESH = "as_refresh_"
SECRET = "as_secret_"
SESSION = "as_session_"
INITIAL = "as_initial_"
LINK = "as_link_"
PREFIXES = (CODE, ACCESS, REFRESH, SECRET, SESSION, INITIAL, LINK)

PASSWORD_MEMORY = 19456  # KiB; with two passes and one lane, OWASP's recommendation for Argon2id
PASSWORD_PASSES = 2
PASSWORD_LANES = 1

_CHECKSUM_LENGTH = 6
_RANDOM_AND_CHECKSUM = re.compile(r"[A-Za-z0-9_-]{49}")
# A text of `new_credential`, even a part of one; a whole one with the prefix of a plugin; or a JWS.
_CREDENTIAL = re.compile(
    rf"({'|'.join(PREFIXES)})[A-Za-z0-9_-]+|(as_[a-z]+_)[A-Za-z0-9_-]{{43,}}"
    r"|(eyJ)[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"
)
_PASSWORD_HASH = re.compile(
    r"\$argon2id\$v=19\$m=[0-9]{1,7},t=[0-9]{1,2},p=[0-9]{1,2}\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}"
)


def new_credential(prefix: str) -> str:
    """A new secret: the prefix, 43 characters of 256 random bits, and 6 of checksum.

    Prefix and checksum let a scanner recognise a leaked one with certainty, offline.
    """
    text = prefix + secrets.token_urlsafe(32)
    return text + checksum(text)


def well_formed(prefix: str, text: str) -> bool:
    """Whether `new_credential(prefix)` may have made this; any other text need not be looked up."""
    return (
        text.startswith(prefix)
        and _RANDOM_AND_CHECKSUM.fullmatch(text, len(prefix)) is not None
        and checksum(text[:-_CHECKSUM_LENGTH]) == text[-_CHECKSUM_LENGTH:]
    )


def may_hold_credential(text: str) -> bool:
    """Whether `masked` could find one. This is fast, because each request needs it."""
    return "as_" in text or "eyJ" in text


def masked(text: str) -> str:
    """The text, in which everything that may be a credential of this server is replaced by dots.

    For records of a request, because a client may have put a credential into the wrong parameter.
    """
    if not may_hold_credential(text):
        return text
    return _CREDENTIAL.sub(lambda found: f"{found[1] or found[2] or found[3]}...", text)


def new_identifier(prefix: str = "") -> str:
    """A new public identifier: the prefix and 22 characters of 128 random bits."""
    return prefix + secrets.token_urlsafe(16)


def digest(kind: str, text: str) -> bytes:
    """The digest of a credential, to be stored. The kind is part of it, so no kind is accepted as another."""
    return hashlib.sha256(f"{kind}\0{text}".encode("utf-8", "surrogatepass")).digest()


def equal(a: bytes | str, b: bytes | str) -> bool:
    """Compare in constant time; never raises, with any text."""
    return hmac.compare_digest(_as_bytes(a), _as_bytes(b))


def hash_password(password: str) -> str:
    """The Argon2id hash to store, with its parameters and salt (a PHC string).

    Raises ValueError above `MAXIMUM_PASSWORD`.
    """
    key_material = _as_bytes(password)
    if len(key_material) > MAXIMUM_PASSWORD:
        raise ValueError(f"the password is longer than {MAXIMUM_PASSWORD} bytes")
    return Argon2id(
        salt=secrets.token_bytes(16),
        length=32,
        iterations=PASSWORD_PASSES,
        lanes=PASSWORD_LANES,
        memory_cost=PASSWORD_MEMORY,
    ).derive_phc_encoded(key_material)


def verify_password(password: str, password_hash: str | None) -> bool:
    """Whether this is the password of that hash.

    Without a usable hash (unknown user, no password set) the same work is done, so that the time does not
    reveal which users exist. A longer password than `MAXIMUM_PASSWORD` is refused before any work.
    """
    key_material = _as_bytes(password)
    if len(key_material) > MAXIMUM_PASSWORD:
        return False
    if password_hash is None or not _PASSWORD_HASH.fullmatch(password_hash):
        hash_password(password)
        return False
    try:
        Argon2id.verify_phc_encoded(key_material, password_hash)
    except (InvalidKey, ValueError):
        return False
    return True


def checksum(text: str) -> str:
    """Six characters that are computed from the rest of a credential: a typing error is seen without a look-up."""
    made = hashlib.sha256(text.encode("ascii")).digest()
    return base64.urlsafe_b64encode(made)[:_CHECKSUM_LENGTH].decode("ascii")


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
