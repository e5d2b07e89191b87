"""JWTs that other issuers signed: read strictly, and verified with keys that were known before (RFC 7521, 5.2).

Nothing in an assertion chooses how it is verified: its issuer only selects among trusted key sets, its `kid`
among the keys of that set, and the algorithm is the key's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from authserver.engine.context import Engine, SingleUse
from authserver.engine.crypto import strict_json
from authserver.engine.crypto.jose import (
    SECRET_MEMBERS,
    ForeignKey,
    Jws,
    foreign_key,
    is_of_type,
    is_same_algorithm,
    read_jws,
)
from authserver.engine.errors import OAuthError
from authserver.limits import MAXIMUM_IDENTIFIER, MAXIMUM_KEY_ID, MAXIMUM_KEY_SET, MAXIMUM_KEYS

# By how much the clocks of other issuers may differ from ours (R-11, T150).
SKEW = timedelta(seconds=30)

# The algorithms with which others may sign. A key that names none is for the first one that fits it.
TRUSTED_ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA", "Ed25519")
# Every other member is refused: `jwk`, `jku`, `x5u`, `x5c`, `crit`, `b64`, `zip`, `enc`, and future ones. Thumbprints
# of certificates are common, and refer to no address.
_HEADER_MEMBERS = frozenset({"alg", "typ", "kid", "x5t", "x5t#S256"})


class BadAssertion(Exception):
    """This assertion is not accepted. `reason` says why, to operators; it repeats nothing of the assertion."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The keys of one issuer."""

    keys: tuple[tuple[str | None, ForeignKey], ...]

    @classmethod
    def read(cls, text: bytes, *, algorithm: str | None = None) -> Self:
        """The signature keys of a JWK Set (RFC 7517, 5); those for other uses and algorithms are left out.

        Args:
            algorithm: the algorithm of keys that fit it and do not name one.

        Raises ValueError, with text that repeats nothing of a key, for what is no key set, holds a private or
        symmetric key, a weak or broken one, one `kid` twice, more than 20 keys, or none that can be used.
        """
        jwks = strict_json.loads(text, limit=MAXIMUM_KEY_SET)
        members = jwks.get("keys") if isinstance(jwks, dict) else None
        if not isinstance(members, list) or not all(isinstance(jwk, dict) for jwk in members):
            raise ValueError("this is not a JWK Set (RFC 7517, 5)")
        if len(members) > MAXIMUM_KEYS:
            raise ValueError(f"the JWK Set holds more than {MAXIMUM_KEYS} keys")
        if any(SECRET_MEMBERS & jwk.keys() for jwk in members):
            raise ValueError("the JWK Set holds a private or symmetric key; give public keys only")
        keys = tuple(
            (_kid(jwk), _key(number, jwk, used))
            for number, jwk in enumerate(members, start=1)
            if (used := _algorithm(jwk, algorithm))
        )
        if len({kid for kid, _ in keys}) < len(keys):
            raise ValueError("two keys of the JWK Set have the same kid, or none")
        if not keys:
            raise ValueError(
                f"the JWK Set holds no signature key for {', '.join(TRUSTED_ALGORITHMS[:-1])} or {TRUSTED_ALGORITHMS[-1]}"
            )
        return cls(keys)

    @classmethod
    def of(cls, source: str) -> Self:
        """The keys of a JWK Set that is given itself, or as the path of its file. Raises ValueError, naming the file."""
        if source.startswith("{"):
            return cls.read(source.encode())
        try:
            return cls.read(Path(source).read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read the keys in {source}: {error}") from None

    def find(self, kid: object) -> ForeignKey | None:
        """The key of this id; without an id the only key there is."""
        if kid is None:
            return self.keys[0][1] if len(self.keys) == 1 else None
        return next((key for known, key in self.keys if known == kid), None)


def verify_assertion(
    engine: Engine,
    text: str | Jws,
    keys_of: Callable[[str], TrustedKeys | None],
    *,
    typ: str,
    untyped: bool = True,
    lifetime: int,
    skew: timedelta = SKEW,
    algorithms: Collection[str] = TRUSTED_ALGORITHMS,
    audience: str = "",
    audiences: Collection[str] = (),
) -> Mapping[str, Any]:
    """The claims of an assertion that a trusted issuer made for us and that is in force (RFC 7523, 3).

    Args:
        text: the assertion, which may have been taken apart already.
        keys_of: the keys of an issuer by its name, None for one that is not trusted.
        typ: the accepted `typ` of its header.
        untyped: whether `JWT` or no `typ` is accepted, too.
        lifetime: the most seconds from now to `exp`, clock skew apart.
        skew: the seconds by which its clock may differ from ours.
        algorithms: the accepted algorithms.
        audience: our name in it; empty: our issuer.
        audiences: other names of ours, of which one may be its only audience.

    Raises:
        BadAssertion: anything else. `iss` and `sub` are strings of the claims returned; `exp` is an integer.
    """
    claims = _verified(engine, text, keys_of, typ=typ, untyped=untyped, algorithms=algorithms)
    subject = claims.get("sub")
    ours = (audience or engine.settings.issuer, *audiences)
    if not any(claims.get("aud") in (name, [name]) for name in ours):
        raise BadAssertion("assertion-audience")
    if not isinstance(subject, str) or not subject:
        raise BadAssertion("assertion-subject-missing")
    times = _times(claims)
    if "exp" not in times:
        raise BadAssertion("assertion-times-malformed")
    _check_times(engine, times, skew)
    if times["exp"] > (engine.now + timedelta(seconds=lifetime) + skew).timestamp():
        raise BadAssertion("assertion-lives-too-long")
    return claims


def verify_statement(
    engine: Engine,
    text: str,
    keys_of: Callable[[str], TrustedKeys | None],
    *,
    algorithms: Collection[str],
    maximum_age: int,
    was_accepted: bool = False,
) -> Mapping[str, Any]:
    """The claims of a statement about a program that a trusted issuer made and that is in force (RFC 7591, 2.3).

    It need have neither subject nor audience nor end; if it has an audience, we are in it.

    Args:
        keys_of: the keys of an issuer by its name, None for one that is not trusted.
        algorithms: the accepted algorithms.
        maximum_age: the most seconds since its `iat`; 0: it may be of any age.
        was_accepted: whether it was in force when it was presented for the first time, and may have ended since.

    Raises:
        BadAssertion: anything else.
    """
    claims = _verified(engine, text, keys_of, typ="jwt", algorithms=algorithms)
    audience = claims.get("aud", engine.settings.issuer)
    if engine.settings.issuer not in (audience if isinstance(audience, list) else [audience]):
        raise BadAssertion("assertion-audience")
    times = _times(claims)
    if was_accepted:
        return claims
    if maximum_age and "iat" not in times:
        raise BadAssertion("assertion-times-malformed")
    _check_times(engine, times)
    if maximum_age and times["iat"] <= (engine.now - timedelta(seconds=maximum_age) - SKEW).timestamp():
        raise BadAssertion("assertion-expired")
    return claims


def verify_for_us(
    engine: Engine,
    text: str,
    keys_of: Callable[[str], TrustedKeys | None],
    *,
    typ: str,
    audience: str,
    algorithms: Collection[str],
) -> Mapping[str, Any]:
    """The claims of a token that a trusted issuer made for us and nobody else, and that is in force (OIDC Core, 3.1.3.7).

    Args:
        keys_of: the keys of an issuer by its name, None for one that is not trusted.
        typ: the accepted `typ` of its header; `JWT` or no `typ` is accepted, too.
        audience: our name at that issuer.
        algorithms: the accepted algorithms.

    Raises:
        BadAssertion: anything else. `iss` is a string of the claims returned, `exp` and `iat` are integers, and `sub`, if
            there is one, is a text that is not empty.
    """
    claims = _verified(engine, text, keys_of, typ=typ, algorithms=algorithms)
    # It is for us alone, so it must not have a second audience.
    if claims.get("aud") not in (audience, [audience]) or claims.get("azp", audience) != audience:
        raise BadAssertion("assertion-audience")
    times = _times(claims)
    if not {"exp", "iat"} <= times.keys():
        raise BadAssertion("assertion-times-malformed")
    _check_times(engine, times)
    subject = claims.get("sub", " ")
    if not isinstance(subject, str) or not subject:
        raise BadAssertion("assertion-subject-missing")
    return claims


def _verified(
    engine: Engine,
    text: str | Jws,
    keys_of: Callable[[str], TrustedKeys | None],
    *,
    typ: str,
    untyped: bool = True,
    algorithms: Collection[str] = TRUSTED_ALGORITHMS,
) -> Mapping[str, Any]:
    """The claims of a JWT that a trusted issuer signed. Raises BadAssertion; `iss` is a string of the claims."""
    try:
        jws = text if isinstance(text, Jws) else read_jws(text)
    except ValueError:
        raise BadAssertion("assertion-malformed") from None
    header, claims = jws.header, jws.claims
    if "alg" not in header or not header.keys() <= _HEADER_MEMBERS:
        raise BadAssertion("assertion-header")
    named = str(header.get("typ", "JWT")).lower().removeprefix("application/")
    if named != typ and not (untyped and named == "jwt"):
        raise BadAssertion("assertion-type")
    issuer = claims.get("iss")
    # Our own tokens are never assertions, even if we are listed as an issuer (JAG-11, T061).
    keys = keys_of(issuer) if isinstance(issuer, str) and issuer != engine.settings.issuer else None
    if keys is None:
        raise BadAssertion("assertion-issuer-not-trusted")
    key = keys.find(header.get("kid"))
    if key is None or any(key.thumbprint == jwk["kid"] for jwk in engine.signer.jwks()["keys"]):
        raise BadAssertion("assertion-key-unknown")
    if not is_same_algorithm(header["alg"], key.algorithm) or header["alg"] not in algorithms:
        raise BadAssertion("assertion-algorithm")
    if not key.verifies(jws):
        raise BadAssertion("assertion-signature")
    return claims


def single_use(
    claims: Mapping[str, Any],
    *,
    lifetime: int,
    refusal: OAuthError,
    purpose: str = "assertion",
    skew: timedelta = SKEW,
) -> SingleUse:
    """The mark that a verified assertion is used: by its `jti`, which its issuer gives only once (T051).

    Args:
        lifetime, skew: the same as for `verify_assertion`.
        refusal: the exception that is raised if it was presented before, or may have been before the database was restored.
        purpose: the purpose for which it is presented; the same `jti` for two purposes is two things.

    Raises:
        BadAssertion: it has no `jti`.
    """
    jti = claims.get("jti")
    if not isinstance(jti, str) or not jti:
        raise BadAssertion("assertion-jti-missing")
    if len(jti) > MAXIMUM_IDENTIFIER:
        raise BadAssertion("assertion-malformed")
    # One minute longer than it could be presented (T052).
    until = datetime.fromtimestamp(claims["exp"], UTC) + skew + timedelta(seconds=60)
    # Before that time `_check_times` would have refused it.
    begun = max(claims["exp"] - lifetime, claims.get("nbf", 0), claims.get("iat", 0))
    since = datetime.fromtimestamp(begun, UTC) - skew
    return SingleUse(
        purpose=purpose, text=f"{claims['iss']}\0{jti}", since=since, until=until, refusal=refusal
    )


def _times(claims: Mapping[str, Any]) -> dict[str, int]:
    """The times in these claims: whole seconds since 1970, and nothing that only looks like them (T053)."""
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if any(type(time) is not int or time < 0 for time in times.values()):
        raise BadAssertion("assertion-times-malformed")
    return times


def _check_times(engine: Engine, times: Mapping[str, int], skew: timedelta = SKEW) -> None:
    """Refuse an assertion that has expired, or is not valid yet."""
    now, allowed = engine.now.timestamp(), skew.total_seconds()
    if "exp" in times and times["exp"] <= now - allowed:
        raise BadAssertion("assertion-expired")
    if max(times.get("nbf", 0), times.get("iat", 0)) > now + allowed:
        raise BadAssertion("assertion-not-yet-valid")


def _algorithm(jwk: Mapping[str, Any], meant: str | None) -> str | None:
    """The algorithm that the key verifies; None if it is not for signatures, or its algorithm is not known here.

    Args:
        meant: the algorithm if the key names none, and this one fits.
    """
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    known = (meant, *TRUSTED_ALGORITHMS) if meant else TRUSTED_ALGORITHMS
    fitting = [algorithm for algorithm in known if is_of_type(jwk, algorithm)]
    return next((algorithm for algorithm in fitting if jwk.get("alg", algorithm) == algorithm), None)


def _key(number: int, jwk: Mapping[str, Any], algorithm: str) -> ForeignKey:
    try:
        return foreign_key(jwk, algorithm)
    except ValueError as error:
        raise ValueError(f"key {number} of the JWK Set is not a key for {algorithm}: {error}") from None


def _kid(jwk: Mapping[str, Any]) -> str | None:
    kid = jwk.get("kid")
    if kid is None or (isinstance(kid, str) and 1 <= len(kid) <= MAXIMUM_KEY_ID and kid.isprintable()):
        return kid
    raise ValueError(
        f"a key of the JWK Set has a kid that is not a text of up to {MAXIMUM_KEY_ID} printable characters"
    )
