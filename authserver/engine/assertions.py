"""JWTs that others signed: read strictly, and believed under keys that were known beforehand (RFC 7521, 5.2).

Nothing in an assertion chooses how it is verified: its issuer only selects among trusted key sets, its `kid`
among the keys of that set, and the algorithm is the key's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from authserver.engine import digests, strict_json
from authserver.engine.context import Engine
from authserver.engine.records import Client, Token, TokenKind

LONGEST_ASSERTION = 8192
LARGEST_KEY_SET = 32768
MOST_KEYS = 20
SMALLEST_RSA_KEY = 2048
# How far the clocks of others may be off (R-11, T150).
SKEW = timedelta(seconds=30)

# By key type and curve, which algorithms a key may be for. The first one is meant where it does not say.
_ALGORITHMS: Mapping[tuple[str, str | None], tuple[str, ...]] = {
    ("EC", "P-256"): ("ES256",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("RSA", None): ("RS256", "PS256"),
}
_PUBLIC_MEMBERS = ("kty", "crv", "x", "y", "n", "e")
_SECRET_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# Whatever is not here is refused: `jwk`, `jku`, `x5u`, `x5c`, `crit`, `b64`, `zip`, `enc` and what comes next.
# Thumbprints of certificates are common, and lead nowhere.
_HEADER_MEMBERS = frozenset({"alg", "typ", "kid", "x5t", "x5t#S256"})


class BadAssertion(Exception):
    """This assertion is not believed. `reason` says why, to operators; it repeats nothing of the assertion."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """A public key with the one algorithm that it verifies. `thumbprint` is of RFC 7638."""

    kid: str | None
    algorithm: str
    public: ECKey | RSAKey | OKPKey = field(repr=False)
    thumbprint: str


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The keys of one issuer."""

    keys: tuple[TrustedKey, ...]

    @classmethod
    def read(cls, text: bytes) -> Self:
        """The signature keys of a JWK Set (RFC 7517, 5); those for other uses and algorithms are left out.

        Raises ValueError, with text that repeats nothing of a key, for what is no key set, holds a private or
        symmetric key, a weak or broken one, one `kid` twice, more than 20 keys, or none that can be used.
        """
        jwks = strict_json.loads(text, limit=LARGEST_KEY_SET)
        members = jwks.get("keys") if isinstance(jwks, dict) else None
        if not isinstance(members, list) or not all(isinstance(jwk, dict) for jwk in members):
            raise ValueError("this is no JWK Set (RFC 7517, 5)")
        if len(members) > MOST_KEYS:
            raise ValueError(f"the JWK Set holds more than {MOST_KEYS} keys")
        if any(_SECRET_MEMBERS & jwk.keys() for jwk in members):
            raise ValueError("the JWK Set holds a private or symmetric key; give public keys only")
        keys = tuple(key for key in map(_key, members) if key is not None)
        if len({key.kid for key in keys}) < len(keys):
            raise ValueError("two keys of the JWK Set have the same kid, or none")
        if not keys:
            raise ValueError("the JWK Set holds no signature key for ES256, RS256, PS256 or EdDSA")
        return cls(keys)

    def find(self, kid: str | None) -> TrustedKey | None:
        """The key of this id; without an id the only key there is."""
        if kid is None:
            return self.keys[0] if len(self.keys) == 1 else None
        return next((key for key in self.keys if key.kid == kid), None)


def verify_assertion(
    engine: Engine, text: str, keys_of: Callable[[str], TrustedKeys | None], *, typ: str, lifetime: int
) -> Mapping[str, Any]:
    """The claims of an assertion that a trusted issuer made for us and that is in force (RFC 7523, 3).

    Args:
        keys_of: the keys of an issuer by its name, None for one that is not trusted.
        typ: what its header may say it is; `JWT` or nothing will do too.
        lifetime: the most seconds from now to `exp`, clock skew apart.

    Raises:
        BadAssertion: anything else. `iss` and `sub` are strings of the claims returned; `exp` is an integer.
    """
    header, claims, signed, signature = _read(text)
    if str(header.get("typ", "JWT")).lower().removeprefix("application/") not in ("jwt", typ):
        raise BadAssertion("assertion-type")
    issuer, subject = claims.get("iss"), claims.get("sub")
    # What we signed ourselves is for others, whoever lists us as an issuer (JAG-11, T061).
    keys = keys_of(issuer) if isinstance(issuer, str) and issuer != engine.settings.issuer else None
    if keys is None:
        raise BadAssertion("assertion-issuer-not-trusted")
    kid = header.get("kid")
    key = keys.find(kid) if kid is None or isinstance(kid, str) else None
    if key is None or any(key.thumbprint == jwk["kid"] for jwk in engine.signer.jwks()["keys"]):
        raise BadAssertion("assertion-key-unknown")
    if header["alg"] != key.algorithm:
        raise BadAssertion("assertion-algorithm")
    if not JWSRegistry.algorithms[key.algorithm].verify(signed, signature, key.public):
        raise BadAssertion("assertion-signature")
    if claims.get("aud") not in (engine.settings.issuer, [engine.settings.issuer]):
        raise BadAssertion("assertion-audience")
    if not isinstance(subject, str) or not subject:
        raise BadAssertion("assertion-subject-missing")
    _check_times(engine, claims, timedelta(seconds=lifetime))
    return claims


def use_once(engine: Engine, client: Client, claims: Mapping[str, Any]) -> None:
    """Claim the `jti` of a verified assertion among those of its issuer, in the transaction that issues (T051).

    Args:
        client: who presents it.

    Raises:
        BadAssertion: it has none, or was presented before.
    """
    jti = claims.get("jti")
    if not isinstance(jti, str) or not jti:
        raise BadAssertion("assertion-jti-missing")
    used = Token(
        kind=TokenKind.REQUEST,
        digest=digests.digest("assertion", f"{claims['iss']}\0{jti}"),
        grant_id=None,
        client_id=client.client_id,
        created_at=engine.now,
        # Longer than anybody could present it (T052).
        expires_at=datetime.fromtimestamp(claims["exp"], UTC) + SKEW + timedelta(seconds=60),
    )
    if not engine.stores.tokens.add_once(used):
        raise BadAssertion("assertion-replayed")


def _read(text: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """Header, claims, what is signed and its signature, of a compact JWS in its one spelling (T060)."""
    if len(text) > LONGEST_ASSERTION or not text.isascii() or text.count(".") != 2:
        raise BadAssertion("assertion-malformed")
    signed, _, signature_text = text.encode("ascii").rpartition(b".")
    header_text, _, claims_text = signed.partition(b".")
    try:
        header = strict_json.loads(urlsafe_b64decode(header_text))
        claims = strict_json.loads(urlsafe_b64decode(claims_text))
        signature = urlsafe_b64decode(signature_text)
    except ValueError:
        raise BadAssertion("assertion-malformed") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise BadAssertion("assertion-malformed")
    if "alg" not in header or not header.keys() <= _HEADER_MEMBERS:
        raise BadAssertion("assertion-header")
    return header, claims, signed, signature


def _check_times(engine: Engine, claims: Mapping[str, Any], lifetime: timedelta) -> None:
    """Times are whole seconds since 1970, and nothing that only looks like them (T053)."""
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if "exp" not in times or any(type(time) is not int or time < 0 for time in times.values()):
        raise BadAssertion("assertion-times-malformed")
    now, skew = engine.now.timestamp(), SKEW.total_seconds()
    if times["exp"] <= now - skew:
        raise BadAssertion("assertion-expired")
    if times["exp"] > now + lifetime.total_seconds() + skew:
        raise BadAssertion("assertion-lives-too-long")
    if max(times.get("nbf", 0), times.get("iat", 0)) > now + skew:
        raise BadAssertion("assertion-not-yet-valid")


def _key(jwk: Mapping[str, Any]) -> TrustedKey | None:
    """The key, None when it is not for signatures or not of an algorithm here. Raises ValueError."""
    kid, curve = jwk.get("kid"), jwk.get("crv")
    algorithms = _ALGORITHMS.get((str(jwk.get("kty")), None if curve is None else str(curve)))
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    if algorithms is None or (algorithm := jwk.get("alg", algorithms[0])) not in algorithms:
        return None
    if kid is not None and not (isinstance(kid, str) and 1 <= len(kid) <= 128 and kid.isprintable()):
        raise ValueError("a key of the JWK Set has a kid that is no text of up to 128 printable characters")
    kinds: Mapping[str, Any] = {"EC": ECKey, "OKP": OKPKey, "RSA": RSAKey}
    try:
        public = kinds[jwk["kty"]].import_key(
            {name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk}
        )
        if isinstance(public, RSAKey) and public.public_key.key_size < SMALLEST_RSA_KEY:
            raise ValueError("too small")
        return TrustedKey(kid=kid, algorithm=algorithm, public=public, thumbprint=public.thumbprint())
    except (JoseError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"a key of the JWK Set is not a valid {algorithm} key, or an RSA key of fewer than 2048 bits "
            f"({type(error).__name__})"
        ) from None
