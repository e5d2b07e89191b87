"""Which access tokens are valid, whoever sends them: JWTs (RFC 9068), and opaque ones by introspection (RFC 7662)."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from authserver_resource.access import Access
from authserver_resource.issuer import KnownIssuer
from authserver_resource.jose import KeySet, Malformed, has_foreign_members, read_header, split
from authserver_resource.keeping import Cache
from authserver_resource.refusals import InvalidToken, Unavailable
from authserver_resource.strict_json import is_number, json_object

# The `typ` of an access token (RFC 9068, 2.1), in small letters: no ID token and no other JWT has it.
_TYPES = ("at+jwt", "application/at+jwt")
# Claims that every JWT access token has, beside those that are checked (RFC 9068, 2.2).
_NEEDED = ("sub", "client_id", "jti")
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_REMEMBERED_HEADERS = 256
_REMEMBERED_TOKENS = 1024
_REMEMBERED_SECONDS = 3600.0


class TokenVerifier:
    """Reads access tokens. Many threads can use it at once.

    Args:
        issuers: the accepted issuers, by their identifiers.
        audiences: a valid token has one of them.
        implied_scopes: for a broad scope the narrower ones that it includes.
        leeway: seconds by which our clock may differ from the issuer's.
    """

    def __init__(
        self,
        issuers: Iterable[KnownIssuer],
        audiences: Collection[str],
        implied_scopes: Mapping[str, Iterable[str]],
        leeway: float,
    ) -> None:
        self._issuers = {issuer.settings.issuer: issuer for issuer in issuers}
        self._audiences = audiences
        self._expanded = lru_cache(4096)(_expansion(implied_scopes))
        self._leeway = leeway
        # Headers of tokens that were verified: each issuer has one for each of its keys.
        self._headers: dict[bytes, tuple[str, str | None]] = {}
        # Tokens with a checked signature, by their digests, as long as their issuer has the same keys.
        self._checked: Cache[tuple[KeySet, Access]] = Cache(_REMEMBERED_TOKENS)

    def access(self, token: str, *, wait: bool) -> Access:
        """The access that a token gives.

        Raises:
            InvalidToken: it is not valid.
            Unavailable: the issuer cannot be asked at the moment.
            WouldWait: the issuer must be asked, and `wait` is false.
        """
        if token.count(".") == 2:
            return self._signed(token, wait=wait)
        return self._introspected(token, wait=wait)

    def _signed(self, token: str, *, wait: bool) -> Access:
        """A JWT access token (RFC 9068, 4)."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._checked.get(digest)
        if known is not None:
            keys, access = known
            issuer = self._issuers[access.issuer]
            if issuer.keys(wait=wait) is keys:
                self._check_times(access.claims)
                return access
        keys, access = self._read(token, wait=wait)
        issuer = self._issuers[access.issuer]
        if not issuer.settings.introspect_jwts:
            self._checked.put(digest, (keys, access), _REMEMBERED_SECONDS)
        elif issuer.introspect(token, wait=wait) is None:
            raise InvalidToken("The access token is revoked.")
        return access

    def _read(self, token: str, *, wait: bool) -> tuple[KeySet, Access]:
        try:
            jws = split(token)
            algorithm, kid = self._headers.get(jws.header) or _read_token_header(jws.header)
            claims = json_object(jws.payload)
        except Malformed as problem:
            raise InvalidToken(f"The access token is not valid: {problem}.") from None
        except ValueError:
            raise InvalidToken("The access token is not valid: its claims are not a JSON object.") from None
        issuer = self._issuer_of(claims)
        if algorithm not in issuer.settings.algorithms:
            raise InvalidToken("The access token is signed with an algorithm that is not accepted.")
        keys, key = issuer.keys_with(kid, algorithm, wait=wait)
        if key is None:
            raise InvalidToken("The access token is signed with a key that its issuer does not have.")
        if not key.verifies(jws):
            raise InvalidToken("The signature of the access token is wrong.")
        if len(self._headers) < _REMEMBERED_HEADERS:
            self._headers[jws.header] = (algorithm, kid)
        self._check_times(claims)
        for name in _NEEDED:
            value = claims.get(name)
            if not value or not isinstance(value, str):
                raise InvalidToken(f"The access token has no {name}.")
        return keys, self._access(issuer, claims)

    def _issuer_of(self, claims: Mapping[str, Any]) -> KnownIssuer:
        name = claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise InvalidToken("The access token is of another issuer.")
        return issuer

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = time.time()
        expires, issued, begins = claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)
        if not (is_number(expires) and is_number(issued) and is_number(begins)):
            raise InvalidToken("The times of the access token are missing or no numbers.")
        if now >= expires + self._leeway:
            raise InvalidToken("The access token has expired.")
        if max(issued, begins) > now + self._leeway:
            raise InvalidToken("The access token is not valid yet.")

    def _introspected(self, token: str, *, wait: bool) -> Access:
        """A token that only its issuer can read (RFC 7662)."""
        if not _TOKEN.fullmatch(token):
            raise InvalidToken("The access token has characters that no access token has.")
        down: Unavailable | None = None
        for issuer in self._issuers.values():
            if not issuer.settings.client_id:
                continue
            try:
                answer = issuer.introspect(token, wait=wait)
            except Unavailable as problem:
                # It may be a token of another issuer.
                down = problem
                continue
            if answer is not None:
                return self._described_by(issuer, answer)
        if down is not None:
            raise down
        raise InvalidToken("The access token is unknown, expired or revoked.")

    def _described_by(self, issuer: KnownIssuer, answer: Mapping[str, Any]) -> Access:
        if answer.get("iss", issuer.settings.issuer) != issuer.settings.issuer:
            raise InvalidToken("The access token is of another issuer.")
        now = time.time()
        ends, begins = answer.get("exp", now + 1), answer.get("nbf", now)
        # The issuer has checked both by its own clock, so no leeway is needed at the end.
        if not is_number(ends) or not is_number(begins) or now >= ends or begins > now + self._leeway:
            raise InvalidToken("The access token has expired, or is not valid yet.")
        token_type = answer.get("token_type")
        if isinstance(token_type, str) and token_type.lower() == "dpop" and not answer.get("cnf"):
            raise InvalidToken("The access token is bound to a key that its issuer does not name.")
        return self._access(issuer, answer)

    def _access(self, issuer: KnownIssuer, claims: Mapping[str, Any]) -> Access:
        audience = claims.get("aud")
        if isinstance(audience, list):
            meant = any([isinstance(name, str) and name in self._audiences for name in audience])
        else:
            meant = isinstance(audience, str) and audience in self._audiences
        if not meant:
            raise InvalidToken("The access token is for another resource.")
        scope = claims.get("scope", "")
        if not isinstance(scope, str):
            raise InvalidToken("The scope of the access token is no text.")
        held, scopes = self._expanded(scope)
        subject, client_id = claims.get("sub", ""), claims.get("client_id", "")
        return Access(
            issuer=issuer.settings.issuer,
            subject=subject if isinstance(subject, str) else "",
            client_id=client_id if isinstance(client_id, str) else "",
            scopes=scopes,
            held=held,
            expires_at=claims.get("exp"),
            # It is remembered and returned again.
            claims=MappingProxyType(claims),
        )


def _read_token_header(text: bytes) -> tuple[str, str | None]:
    """The algorithm and the key id of an access token's header (RFC 9068, 2.1). Raises Malformed."""
    header = read_header(text)
    algorithm, typ, kid = header.get("alg"), header.get("typ"), header.get("kid")
    if not isinstance(typ, str) or typ.lower() not in _TYPES:
        raise Malformed("its type is not at+jwt")
    if has_foreign_members(header):
        raise Malformed("its header brings a key, or has members that are not accepted")
    if not isinstance(algorithm, str) or not (kid is None or (isinstance(kid, str) and 0 < len(kid) <= 256)):
        raise Malformed("its header has no algorithm, or a malformed kid")
    return algorithm, kid


def _expansion(
    implied: Mapping[str, Iterable[str]],
) -> Callable[[str], tuple[frozenset[str], frozenset[str]]]:
    """A function from the `scope` of a token to its scopes, and to the scopes that these allow."""
    directly = {broad: frozenset(narrow) for broad, narrow in implied.items()}
    if any([isinstance(narrow, str) for narrow in implied.values()]):
        raise ValueError("implied_scopes: each value must be a list of scopes")

    def expanded(scope: str) -> tuple[frozenset[str], frozenset[str]]:
        held = frozenset(scope.split())
        allowed: set[str] = set()
        left = set(held)
        while left:
            one = left.pop()
            allowed.add(one)
            left |= directly.get(one, frozenset()) - allowed
        return held, frozenset(allowed)

    return expanded
