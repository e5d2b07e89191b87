"""Signed tokens and public keys, read strictly: the key determines the algorithm, never the token (RFC 8725)."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from authserver_resource.strict_json import json_object

# Characters of an access token, and of a proof.
MAXIMUM_TOKEN = 16_384
MAXIMUM_KEYS = 100
RSA_SIZES = range(2048, 8193)  # bits; a check with a longer key would cost more than a stranger may cause

# The key type and curve of each algorithm. None is symmetric, so a public key can never be taken for a secret.
_KEYS: Mapping[str, tuple[type[ECKey | OKPKey | RSAKey], str | None]] = {
    "ES256": (ECKey, "P-256"),
    "ES384": (ECKey, "P-384"),
    "ES512": (ECKey, "P-521"),
    "EdDSA": (OKPKey, "Ed25519"),
    "Ed25519": (OKPKey, "Ed25519"),
    "PS256": (RSAKey, None),
    "PS384": (RSAKey, None),
    "PS512": (RSAKey, None),
    "RS256": (RSAKey, None),
    "RS384": (RSAKey, None),
    "RS512": (RSAKey, None),
}
ALGORITHMS = tuple(_KEYS)
_DIGESTS = {"256": SHA256(), "384": SHA384(), "512": SHA512()}
_PUBLIC_MEMBERS = ("kty", "crv", "x", "y", "n", "e")
_SECRET_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# From base64url to base64; the two characters of base64 that base64url lacks become invalid ones.
_STANDARD = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
# The last characters of a value whose unused bits are zero, by the length of the padding.
_LAST = {1: b"AEIMQUYcgkosw048", 2: b"AQgw"}
# A header that brings a key, says where to get one, or changes what is signed (RFC 8725, 3.9 and 3.10; RFC 7797).
_REFUSED = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})


class Malformed(ValueError):
    """A malformed input. The text repeats nothing of it."""


class Jws(NamedTuple):
    """A compact JWS, taken apart; nothing in it is verified yet."""

    header: bytes
    payload: bytes
    signed: bytes
    signature: bytes


def split(token: str) -> Jws:
    """Take a compact JWS apart. Raises Malformed."""
    try:
        signed, _, signature = token.encode("ascii").rpartition(b".")
        header, _, payload = signed.partition(b".")
        return Jws(header, decoded(payload), signed, decoded(signature))
    except ValueError:
        raise Malformed("it is not a compact JWS") from None


def decoded(text: bytes) -> bytes:
    """base64url without padding (RFC 7515, 2). One value has one spelling: others are refused. Raises ValueError."""
    padding = -len(text) % 4
    if padding and (padding == 3 or text[-1] not in _LAST[padding]):
        raise ValueError("not canonical base64url")
    return binascii.a2b_base64(text.translate(_STANDARD) + b"=="[:padding], strict_mode=True)


def read_header(text: bytes) -> dict[str, Any]:
    """The header of a JWS. Raises Malformed."""
    if len(text) > 4096:
        raise Malformed("its header is too long")
    try:
        return json_object(decoded(text))
    except ValueError:
        raise Malformed("its header is not a JSON object") from None


def has_foreign_members(header: Mapping[str, Any], *, allowed: frozenset[str] = frozenset()) -> bool:
    """Whether the header has a key of its own, or a critical extension, which are not supported."""
    return not _REFUSED.isdisjoint(header.keys() - allowed)


class Key:
    """A public key for one algorithm, prepared so that a check costs nothing but the signature.

    Args:
        algorithm: one of `ALGORITHMS`.
        key: a key for it.
    """

    def __init__(self, algorithm: str, key: ECKey | OKPKey | RSAKey) -> None:
        self._key = key
        self._verify = _verification(algorithm, key)

    def verifies(self, jws: Jws) -> bool:
        """Whether the private part of this key made the signature."""
        try:
            self._verify(jws.signature, jws.signed)
        except InvalidSignature:
            return False
        return True

    def thumbprint(self) -> str:
        """The thumbprint of the key (RFC 7638)."""
        return self._key.thumbprint()


def _verification(algorithm: str, key: ECKey | OKPKey | RSAKey) -> Callable[[bytes, bytes], None]:
    """A function of signature and signed bytes that raises InvalidSignature (RFC 7518, 3; RFC 8037, 3.1)."""
    public: Any = key.public_key
    if isinstance(key, OKPKey):
        verify: Callable[[bytes, bytes], None] = public.verify
        return verify
    digest = _DIGESTS[algorithm[2:]]
    if isinstance(key, RSAKey):
        padding = PKCS1v15() if algorithm.startswith("RS") else PSS(MGF1(digest), digest.digest_size)
        return lambda signature, signed: public.verify(signature, signed, padding, digest)
    size, method = (public.key_size + 7) // 8, ECDSA(digest)

    def verify_pair(signature: bytes, signed: bytes) -> None:
        if len(signature) != 2 * size:
            raise InvalidSignature
        r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
        public.verify(encode_dss_signature(r, s), signed, method)

    return verify_pair


def public_key(jwk: object, algorithm: str) -> Key:
    """A public key for one algorithm, from a JWK (RFC 7517, 4).

    Raises Malformed for a private or symmetric key, one that does not fit the algorithm, and a weak or broken one.
    """
    kind, curve = _KEYS[algorithm]
    if not isinstance(jwk, dict) or _SECRET_MEMBERS & jwk.keys():
        raise Malformed("the key is not a public JWK")
    members = {name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk}
    if (members.get("kty"), members.get("crv")) != (kind.key_type, curve):
        raise Malformed("the key is not of the type of its algorithm")
    try:
        if kind is RSAKey:
            size = int.from_bytes(decoded(members["n"].encode("ascii"))).bit_length()
            if size not in RSA_SIZES:
                raise Malformed("an RSA key must have 2,048 to 8,192 bits")
        key = kind.import_key(dict(members))
        exact = kind.binding.convert_raw_key_to_dict(key.public_key, False)
    except Malformed:
        raise
    except (JoseError, LookupError, TypeError, ValueError, AttributeError, UnsupportedAlgorithm):
        raise Malformed("the key is broken") from None
    # Leading zeros would give one key many thumbprints.
    if {**exact, "kty": kind.key_type} != members:
        raise Malformed("the key is not in its canonical form")
    return Key(algorithm, key)


class KeySet:
    """The keys of an issuer that can be used here; others of its set are left out.

    Args:
        jwks: a JWK set (RFC 7517, 5).
        algorithms: the accepted algorithms.
    """

    def __init__(self, jwks: Mapping[str, Any], algorithms: Sequence[str]) -> None:
        self._keys: dict[tuple[str, str], Key | None] = {}
        self._nameless: dict[str, list[Key]] = {}
        listed = jwks.get("keys")
        if not isinstance(listed, list) or len(listed) > MAXIMUM_KEYS:
            raise Malformed(f"the key set is not a list of at most {MAXIMUM_KEYS} keys")
        for jwk in listed:
            if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
                continue
            for algorithm in algorithms:
                if jwk.get("alg", algorithm) != algorithm:
                    continue
                try:
                    key = public_key(jwk, algorithm)
                except Malformed:
                    continue
                self._nameless.setdefault(algorithm, []).append(key)
                if isinstance(kid := jwk.get("kid"), str):
                    # Two keys with one id: it is not clear which one is meant.
                    self._keys[kid, algorithm] = None if (kid, algorithm) in self._keys else key
        if not self._nameless:
            raise Malformed("no key of the set can be used with the algorithms that are allowed")

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key of this id for this algorithm; for a token without an id, the only one there is."""
        if kid is not None:
            return self._keys.get((kid, algorithm))
        keys = self._nameless.get(algorithm, ())
        return keys[0] if len(keys) == 1 else None
