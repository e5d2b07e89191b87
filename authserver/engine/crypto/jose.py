"""Makes signatures, with keys that are prepared once so that each token costs little; and verifies signatures of others."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from authserver.engine.crypto import strict_json
from authserver.limits import MAXIMUM_TOKEN
from authserver.settings import SigningAlgorithm

ALGORITHMS = tuple(algorithm.value for algorithm in SigningAlgorithm)
RSA_SIZE = 2048  # bits of a new key
RSA_SIZES = range(
    2048, 8193
)  # bits; with more, verifying a signature costs more time than a stranger may cause

# Our headers have nothing else, so `jwk`, `jku`, `x5u`, `x5c`, `b64` and `crit` never count.
_HEADER_MEMBERS = frozenset({"alg", "typ", "kid"})
_PUBLIC_MEMBERS = ("kty", "crv", "x", "y", "n", "e")
SECRET_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# The key type and curve of each algorithm. Others may sign with all of them, this server with `ALGORITHMS`.
_KEYS: Mapping[str, tuple[type[ECKey | OKPKey | RSAKey], str | None]] = {
    "ES256": (ECKey, "P-256"),
    "ES384": (ECKey, "P-384"),
    "EdDSA": (OKPKey, "Ed25519"),
    "Ed25519": (OKPKey, "Ed25519"),
    "PS256": (RSAKey, None),
    "RS256": (RSAKey, None),
}
FOREIGN_ALGORITHMS = tuple(_KEYS)
# Two names of one algorithm: that of RFC 8037, 3.1, with the only curve that is known here, and that of RFC 9864, 2.2.
_SYNONYMS = {"EdDSA": "Ed25519"}


def new_signing_key(algorithm: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A new key for ES256, RS256 or EdDSA: its id, the public JWK to publish, the private JWK to seal.

    The id is the key's thumbprint (RFC 7638). Raises ValueError for another algorithm.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"{algorithm} is not a signing algorithm here; known: {' '.join(ALGORITHMS)}")
    kind, curve = _KEYS[algorithm]
    key = kind.generate_key(curve or RSA_SIZE)  # type: ignore[arg-type]  # each kind takes its own
    kid = key.thumbprint()
    public = _published(kid, algorithm, key.as_dict(private=False))
    return kid, public, {**key.as_dict(private=True), **public}


class NotVerified(ValueError):
    """This is not a token that these keys signed. `reason` says why, for operators; it repeats nothing of the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Jws:
    """A compact JWS with a JSON object as payload, taken apart; nothing in it is verified yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A public key of somebody else, for one algorithm. `thumbprint` is that of RFC 7638, one for each key."""

    algorithm: str
    public: ECKey | OKPKey | RSAKey
    thumbprint: str

    def verifies(self, jws: Jws) -> bool:
        """Whether the private part of this key made the signature."""
        return JWSRegistry.algorithms[self.algorithm].verify(jws.signed, jws.signature, self.public)


def read_jws(text: str) -> Jws:
    """Take a compact JWS apart. One JWS has one spelling: base64url that is not canonical is refused (T060).

    Raises ValueError, with text that repeats nothing of it, for anything else and above 8,192 characters.
    """
    if len(text) > MAXIMUM_TOKEN or not text.isascii() or text.count(".") != 2:
        raise ValueError("this is not a compact JWS")
    signed, _, signature = text.encode("ascii").rpartition(b".")
    header_text, _, claims_text = signed.partition(b".")
    header, claims = (strict_json.loads(urlsafe_b64decode(part)) for part in (header_text, claims_text))
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise ValueError("header and payload must be JSON objects")
    return Jws(header, claims, signed, urlsafe_b64decode(signature))


def is_of_type(jwk: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a JWK says that it has the key type and the curve of one of `FOREIGN_ALGORITHMS`."""
    kind, curve = _KEYS[algorithm]
    return (jwk.get("kty"), jwk.get("crv")) == (kind.key_type, curve)


def is_same_algorithm(name: object, other: str) -> bool:
    """Whether these are names of one algorithm."""
    return isinstance(name, str) and _SYNONYMS.get(name, name) == _SYNONYMS.get(other, other)


def foreign_key(jwk: object, algorithm: str) -> ForeignKey:
    """A public key from a JWK that a stranger sent (RFC 7517, 4), for one of `FOREIGN_ALGORITHMS`.

    Raises ValueError, with text that repeats nothing of it, for a private or symmetric key (T058), one that does
    not fit the algorithm, a weak or broken one, and one in another spelling than its own.
    """
    kind, _ = _KEYS[algorithm]
    if not isinstance(jwk, dict) or SECRET_MEMBERS & jwk.keys():
        raise ValueError("the key must be a public JWK")
    members = {name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk}
    if not all(isinstance(value, str) for value in members.values()):
        raise ValueError("the members of the key must be strings")
    if not is_of_type(members, algorithm):
        raise ValueError("the key must be of the type and curve of its algorithm")
    modulus = int.from_bytes(urlsafe_b64decode(members.get("n", "").encode()))
    if kind is RSAKey and modulus.bit_length() not in RSA_SIZES:
        raise ValueError("an RSA key must have 2,048 to 8,192 bits")
    try:
        key = kind.import_key(dict(members))
        exact = kind.binding.convert_raw_key_to_dict(key.public_key, False)
    except (JoseError, LookupError, TypeError, ValueError, UnsupportedAlgorithm):
        raise ValueError("the key is broken") from None
    # With leading zeros one key would have many thumbprints.
    if {**exact, "kty": kind.key_type} != members:
        raise ValueError("the key must be in its canonical form")
    return ForeignKey(algorithm, key, key.thumbprint())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """A prepared key: parsed, with the encoded header of each `typ` it has signed so far."""

    kid: str
    algorithm: str
    public: ECKey | RSAKey | OKPKey
    private: ECKey | RSAKey | OKPKey | None = field(repr=False)
    headers: dict[str, bytes] = field(default_factory=dict, repr=False)

    def header(self, typ: str) -> bytes:
        header = self.headers.get(typ)
        if header is None:
            encoded = msgspec.json.encode({"alg": self.algorithm, "typ": typ, "kid": self.kid})
            header = self.headers[typ] = base64.urlsafe_b64encode(encoded).rstrip(b"=") + b"."
        return header


class KeySet:
    """The signing keys in use: `ports.Signer`, and verification of what it signed.

    Args:
        keys: (kid, algorithm, public JWK, private JWK or None, active); all are published and verify.
            Of the active ones of an algorithm the first signs. Raises ValueError when a kid occurs
            twice, an active key has no private part, or a key does not fit its algorithm.
        algorithm: the algorithm of signatures unless a caller asks for another; by default that of the first active
            key.
    """

    def __init__(
        self,
        keys: Sequence[tuple[str, str, Mapping[str, Any], Mapping[str, Any] | None, bool]],
        *,
        algorithm: str | None = None,
    ) -> None:
        self._keys: dict[str, _Key] = {}
        self._active: dict[str, _Key] = {}
        published = []
        for kid, key_algorithm, public, private, active in keys:
            if kid in self._keys:
                raise ValueError(f"signing key {kid} occurs twice")
            if active and private is None:
                raise ValueError(f"signing key {kid} is active but has no private part")
            jwk = _published(kid, key_algorithm, public)
            key = _Key(
                kid=kid,
                algorithm=key_algorithm,
                public=_parse(kid, key_algorithm, jwk),
                private=None if private is None else _parse(kid, key_algorithm, private),
            )
            if key.private is not None and key.private.thumbprint() != key.public.thumbprint():
                raise ValueError(f"the two parts of signing key {kid} do not belong together")
            self._keys[kid] = key
            published.append(jwk)
            if active:
                self._active.setdefault(key_algorithm, key)
        self._jwks = {"keys": published}
        self._algorithm = algorithm or next(iter(self._active), "")

    @property
    def algorithm(self) -> str:
        """The default algorithm of signatures; "" if no key is active."""
        return self._algorithm

    def jwks(self) -> Mapping[str, Any]:
        """The public keys (RFC 7517, 5), always the same object: its bytes may be kept."""
        return self._jwks

    def sign(self, claims: Mapping[str, Any], *, typ: str, algorithm: str | None = None) -> str:
        """A compact JWS of the claims, with `alg`, `typ` and `kid` in its header.

        Raises LookupError when no key is active for the algorithm.
        """
        key = self._active.get(algorithm or self._algorithm)
        if key is None:
            raise LookupError(f"no active signing key for {algorithm or self._algorithm or 'any algorithm'}")
        signed = key.header(typ) + base64.urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=")
        signature = JWSRegistry.algorithms[key.algorithm].sign(signed, key.private)
        return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode("ascii")

    def verify(self, token: str, *, typ: str) -> dict[str, Any]:
        """The claims of a token that we signed, with this `typ`; its times and audience are the caller's.

        One token has one spelling: base64url that is not canonical is refused (RFC 4648, 3.5).
        Raises NotVerified.
        """
        if len(token) > MAXIMUM_TOKEN or not token.isascii() or token.count(".") != 2:
            raise NotVerified("token-malformed")
        signed, _, signature_text = token.encode("ascii").rpartition(b".")
        header_text, _, claims_text = signed.partition(b".")
        try:
            header = strict_json.loads(urlsafe_b64decode(header_text))
            signature = urlsafe_b64decode(signature_text)
            claims_json = urlsafe_b64decode(claims_text)
        except ValueError:
            raise NotVerified("token-malformed") from None
        if not isinstance(header, dict) or header.keys() != _HEADER_MEMBERS:
            raise NotVerified("token-header")
        key = self._keys.get(header["kid"]) if isinstance(header["kid"], str) else None
        if key is None:
            raise NotVerified("token-key-unknown")
        if header["alg"] != key.algorithm:
            raise NotVerified("token-algorithm")
        if header["typ"] != typ:
            raise NotVerified("token-type")
        if not JWSRegistry.algorithms[key.algorithm].verify(signed, signature, key.public):
            raise NotVerified("token-signature")
        try:
            claims = strict_json.loads(claims_json)
        except ValueError:
            raise NotVerified("token-malformed") from None
        if not isinstance(claims, dict):
            raise NotVerified("token-malformed")
        return claims


def _parse(kid: str, algorithm: str, jwk: Mapping[str, Any]) -> ECKey | RSAKey | OKPKey:
    """The key object, checked to be of the algorithm's type and curve. Raises ValueError."""
    try:
        if algorithm not in ALGORITHMS:
            raise ValueError("unknown algorithm")
        key = _KEYS[algorithm][0].import_key(dict(jwk))
        JWSRegistry.algorithms[algorithm].check_key(key)
    except (JoseError, LookupError, TypeError, ValueError) as error:
        # Without the cause: its text may hold parts of the key.
        raise ValueError(
            f"signing key {kid} is not a valid {algorithm} key ({type(error).__name__})"
        ) from None
    return key


def _published(kid: str, algorithm: str, jwk: Mapping[str, Any]) -> dict[str, Any]:
    """The JWK as published: named members only, so a private one cannot slip through (RFC 7517, 4)."""
    members = {name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk}
    return {**members, "kid": kid, "alg": algorithm, "use": "sig"}
