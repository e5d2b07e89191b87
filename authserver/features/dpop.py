"""Tokens that can be used only with the private key of the client: DPoP (RFC 9449).

The client proves the key with a JWT that it signs for this one request. Nonces (section 8) are not used.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from pyramid.config import Configurator

from authserver.api import (
    FLAG,
    FOREIGN_ALGORITHMS,
    MAXIMUM_IDENTIFIER,
    Binding,
    Client,
    Described,
    Engine,
    ForeignKey,
    Grant,
    InvalidRequest,
    InvalidTarget,
    Jws,
    OAuthError,
    Parameter,
    Parameters,
    ReadMember,
    SingleUse,
    Token,
    TokenKind,
    canonical_resource,
    foreign_key,
    hookimpl,
    read_flag,
    read_jws,
)

TYPE = "dpop+jwt"
BOUND = "dpop_bound_access_tokens"
# Header members that are refused (T055, T056).
_REFUSED_HEADERS = frozenset({"b64", "crit", "enc", "jku", "x5c", "x5u", "zip"})
# The last character of 32 bytes in base64url carries four bits.
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
_ESCAPED, _UNRESERVED = re.compile("%([0-9A-Fa-f]{2})"), re.compile("[A-Za-z0-9._~-]")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class InvalidDpopProof(OAuthError):
    """A proof is missing, malformed, for another request, or was used before (RFC 9449, 5)."""

    code = "invalid_dpop_proof"


@dataclass(frozen=True)
class Dpop:
    """Bind tokens to a key that the client proves to have, so that a stolen token cannot be used (RFC 9449).

    Any client may send a proof; a client that is registered with `dpop_bound_access_tokens` must. The refresh
    tokens of public clients are bound to the key as well. The parameter `dpop_jkt` of an authorization request binds
    the code, and so does a proof that comes with a request that the client sends in advance.

    Attributes:
        algorithms: the algorithms that clients may use for their proofs, out of ES256, ES384, EdDSA, Ed25519, PS256 and
            RS256.
        tolerance: how many seconds the time in a proof may be before or after the server's time (60 to 300).
    """

    details: ClassVar[frozenset[str]] = frozenset({"cnf"})
    confirmations: ClassVar[Mapping[str, str]] = {"jkt": "DPoP"}
    immediate: ClassVar[bool] = True
    described: ClassVar[Mapping[str, Described]] = {
        "token_binding": Described(
            headers={"DPoP": Parameter(description="A proof of the key of the client (RFC 9449, 4).")},
            errors=(InvalidDpopProof,),
        ),
        "code_details": Described(
            members={
                "dpop_jkt": Parameter(
                    description="The thumbprint of the key that the code is bound to (RFC 9449, 10).",
                    schema={"type": "string", "pattern": f"^{_THUMBPRINT.pattern}$"},
                )
            }
        ),
        "client_metadata": Described(
            members={
                BOUND: Parameter(description="Whether all tokens are bound (RFC 9449, 5.2).", schema=FLAG)
            },
            answer={BOUND: Parameter(description="Present if all tokens are bound.", schema={"const": True})},
        ),
    }
    reasons: ClassVar[Mapping[str, str]] = {
        "dpop-jkt-malformed": "",
        "dpop-proof-algorithm": "list the algorithm in authserver.plugin.dpop.algorithms, if it can be listed there",
        "dpop-proof-header": "",
        "dpop-proof-identifier": "",
        "dpop-proof-key": "",
        "dpop-proof-malformed": "",
        "dpop-proof-method": "",
        "dpop-proof-token": "",
        "dpop-proof-missing": (
            "the client must send a DPoP proof, because its registration requires one (`authserver client show`) or because "
            "it sent one when it got this refresh token"
        ),
        "dpop-proof-replayed": "",
        "dpop-proof-signature": "",
        "dpop-proof-time": "authserver.plugin.dpop.tolerance says how wrong the clock of a client may be",
        "dpop-proof-other-key": "",
        "dpop-proof-url": "the client must put the URL of the endpoint into its proof, as it is written in the metadata",
        "invalid_dpop_proof": "",
    }

    algorithms: tuple[str, ...] = ("ES256", "EdDSA", "Ed25519", "PS256", "RS256")
    tolerance: int = 60

    def __post_init__(self) -> None:
        unknown = [name for name in self.algorithms if name not in FOREIGN_ALGORITHMS]
        if unknown or not self.algorithms:
            raise ValueError(f"algorithms: must be some of {' '.join(FOREIGN_ALGORITHMS)}")
        if not 60 <= self.tolerance <= 300:
            raise ValueError("tolerance: must be 60 to 300 seconds")

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        """Let programs in browsers send proofs, and read nonces (section 8), which other servers use."""
        config.add_cross_origin_headers(sent=("DPoP",), read=("DPoP-Nonce",))

    @hookimpl
    def server_metadata(self) -> Mapping[str, Any]:
        return {"dpop_signing_alg_values_supported": list(self.algorithms)}

    @hookimpl
    def client_metadata(self) -> Mapping[str, ReadMember]:
        """Read whether the client promises to bind all its tokens (RFC 9449, 5.2)."""
        return {BOUND: read_flag}

    @hookimpl
    def code_details(self, parameters: Parameters) -> Mapping[str, Any] | None:
        """Bind the code to the key of `dpop_jkt` (RFC 9449, 10). Raises InvalidRequest."""
        thumbprint = parameters.get("dpop_jkt")
        if thumbprint is None:
            return None
        if not _THUMBPRINT.fullmatch(thumbprint):
            raise InvalidRequest(
                "dpop_jkt must be the SHA-256 thumbprint of a key.", reason="dpop-jkt-malformed"
            )
        return {"cnf": {"jkt": thumbprint}}

    @hookimpl
    def token_binding(
        self,
        engine: Engine,
        client: Client,
        parameters: Parameters,
        grant: Grant | None,
        spends: Token | None,
    ) -> Binding | None:
        """The key of a valid proof (RFC 9449, 5 and 10.1). Raises InvalidDpopProof."""
        text = engine.caller.headers.get("dpop")
        if text is None:
            if grant is not None and client.details.get(BOUND):
                raise InvalidDpopProof("This client must send a DPoP proof.", reason="dpop-proof-missing")
            if (
                spends is not None
                and spends.kind is TokenKind.REFRESH
                and "jkt" in spends.details.get("cnf", {})
            ):
                raise InvalidDpopProof(
                    "This refresh token is bound to a key: send a DPoP proof.", reason="dpop-proof-missing"
                )
            return None
        jws = _read(text)
        key = self._key(jws)
        if not key.verifies(jws):
            raise _refused("its signature is wrong", reason="dpop-proof-signature")
        use = self._check_claims(engine, jws.claims, key)
        if grant is None and parameters.get("dpop_jkt") not in (None, key.thumbprint):
            raise _refused("its key is not the one of dpop_jkt", reason="dpop-proof-other-key")
        return Binding(
            confirmation={"jkt": key.thumbprint},
            # Refresh tokens of other clients are already bound to the client's credential (section 5).
            binds_refresh=client.is_public,
            uses=(use,),
        )

    def _key(self, jws: Jws) -> ForeignKey:
        """The key in the header, if the algorithm is one of `algorithms`."""
        header = jws.header
        if header.get("typ") != TYPE or _REFUSED_HEADERS & header.keys():
            raise _refused(
                f"its header must have the typ {TYPE}, and no key by reference or extension",
                reason="dpop-proof-header",
            )
        algorithm = header.get("alg")
        if algorithm not in self.algorithms:
            raise _refused(
                "its alg is not one of dpop_signing_alg_values_supported", reason="dpop-proof-algorithm"
            )
        try:
            return foreign_key(header.get("jwk"), algorithm)
        except ValueError:
            raise _refused("its jwk is not a public key that fits alg", reason="dpop-proof-key") from None

    def _check_claims(self, engine: Engine, claims: Mapping[str, Any], key: ForeignKey) -> SingleUse:
        """Check the claims (RFC 9449, 4.3). Whether the proof was used before is checked at the end of the request."""
        if claims.get("htm") != engine.caller.method:
            raise _refused(f"its htm is not {engine.caller.method}", reason="dpop-proof-method")
        scheme, _, token = (engine.caller.authorization or "").partition(" ")
        if scheme.lower() == "dpop" and claims.get("ath") != _hash(token.strip()):
            raise _refused("its ath is not that of the access token", reason="dpop-proof-token")
        if not _same_endpoint(claims.get("htu"), engine.caller.url):
            raise _refused("its htu is not this endpoint", reason="dpop-proof-url")
        issued_at, identifier = claims.get("iat"), claims.get("jti")
        if type(issued_at) is not int or abs(engine.now.timestamp() - issued_at) > self.tolerance:
            raise _refused(
                "its iat is not a whole number, or too far from the server's time", reason="dpop-proof-time"
            )
        if not isinstance(identifier, str) or not 0 < len(identifier) <= MAXIMUM_IDENTIFIER:
            raise _refused("its jti is missing or too long", reason="dpop-proof-identifier")
        # The use is remembered one minute longer than the proof can be used, because the clocks of servers differ.
        time, tolerance = datetime.fromtimestamp(issued_at, UTC), timedelta(seconds=self.tolerance)
        return SingleUse(
            purpose="dpop-proof",
            text=f"{key.thumbprint}\0{identifier}",
            since=time - tolerance,
            until=time + tolerance + timedelta(seconds=60),
            refusal=_refused("it was used before, or may have been", reason="dpop-proof-replayed"),
        )


def _read(text: str) -> Jws:
    # WSGI joins two headers with a comma, which no JWS contains.
    try:
        return read_jws(text)
    except ValueError:
        raise _refused("it is not one compact JWS", reason="dpop-proof-malformed") from None


def _hash(token: str) -> str:
    """The `ath` of an access token (RFC 9449, 4.2)."""
    made = hashlib.sha256(token.encode("ascii", "replace")).digest()
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def _same_endpoint(htu: object, url: str) -> bool:
    """Whether both are the URL of the same endpoint, without query and fragment (RFC 9449, 4.3)."""
    try:
        return isinstance(htu, str) and _normal(htu) == _normal(url)
    except InvalidTarget:
        return False


def _normal(uri: str) -> tuple[str, str, str]:
    """Scheme, authority and path, normalised (RFC 3986, 6.2.2 and 6.2.3)."""
    scheme, _, rest = canonical_resource(uri.partition("#")[0].partition("?")[0]).partition("://")
    authority, _, path = rest.partition("/")
    return scheme, authority.removesuffix(_DEFAULT_PORTS.get(scheme, "")), _normal_path(path)


def _normal_path(path: str) -> str:
    """A path without its first slash: no unreserved character is percent-encoded, and there are no dot segments."""
    segments: list[str] = []
    written = _ESCAPED.sub(_plain_if_unreserved, path).split("/")
    for segment in written:
        if segment == "..":
            segments = segments[:-1]
        elif segment != ".":
            segments.append(segment)
    if written[-1] in (".", ".."):
        segments.append("")
    return "/".join(segments)


def _plain_if_unreserved(escaped: re.Match[str]) -> str:
    character = chr(int(escaped[1], 16))
    return character if _UNRESERVED.fullmatch(character) else escaped[0].upper()


def _refused(why: str, *, reason: str) -> InvalidDpopProof:
    return InvalidDpopProof(f"The DPoP proof is not valid: {why}.", reason=reason)
