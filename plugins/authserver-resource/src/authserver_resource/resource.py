"""The protected resource: which requests are let in, and what the others are told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from authserver_resource.dpop import Dpop, encoded
from authserver_resource.fetching import Fetch, Fetcher, checked_url
from authserver_resource.issuer import Issuer, KnownIssuer
from authserver_resource.jose import (
    MAXIMUM_TOKEN,
    KeySet,
    Malformed,
    has_foreign_members,
    read_header,
    split,
)
from authserver_resource.keeping import Cache, WouldWait
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
from authserver_resource.strict_json import is_number, json_object

WELL_KNOWN = "/.well-known/oauth-protected-resource"
_SCHEMES = {"bearer": "Bearer", "dpop": "DPoP"}
# The `typ` of an access token (RFC 9068, 2.1), in small letters: no ID token and no other JWT has it.
_TYPES = ("at+jwt", "application/at+jwt")
# Claims that every JWT access token has, beside those that are checked (RFC 9068, 2.2).
_NEEDED = ("sub", "client_id", "jti")
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
# It is no right at this resource, and is asked for by clients that want it (MCP, authorization).
_OFFLINE_ACCESS = "offline_access"
_REMEMBERED_HEADERS = 256
_REMEMBERED_TOKENS = 1024
_REMEMBERED_SECONDS = 3600.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a request needs beside a good token.

    Attributes:
        scopes: all of them.
        acr_values: one of them is how the person must have signed in, the best first (RFC 9470, 3).
        max_age: seconds since the person signed in, or None.
    """

    scopes: tuple[str, ...] = ()
    acr_values: tuple[str, ...] = ()
    max_age: int | None = None

    def __post_init__(self) -> None:
        for text in (*self.scopes, *self.acr_values):
            if not _SCOPE.fullmatch(text):
                raise ValueError(f"{text!r}: is no scope and no acr value: one word without quotation marks")
        if self.max_age is not None and self.max_age < 0:
            raise ValueError("max_age: must be 0 or more seconds")


NOTHING = Requirement()


def needs(*scopes: str, acr_values: Iterable[str] = (), max_age: int | None = None) -> Requirement:
    """What a request needs: `needs("files.write", max_age=300)`."""
    return Requirement(scopes=scopes, acr_values=tuple(acr_values), max_age=max_age)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who was let in, and with what. The token itself is not in it, so it cannot be passed on (OAuth 2.1, 7.1.4).

    Attributes:
        issuer: of the token.
        subject: the person, or the client itself; unique at the issuer only.
        client_id: the program that sent the request.
        scopes: that the token holds, and those that they imply.
        held: the scopes of the token alone.
        expires_at: of the token, in Unix seconds, or None if the issuer did not say.
        claims: of the JWT, or members of the introspection answer.
        scheme: `Bearer` or `DPoP`.
        headers: to add to the response.
    """

    issuer: str
    subject: str
    client_id: str
    scopes: frozenset[str]
    held: frozenset[str]
    expires_at: float | None
    claims: Mapping[str, Any] = field(repr=False)
    scheme: str = "Bearer"
    headers: tuple[tuple[str, str], ...] = ()

    def __contains__(self, scope: str) -> bool:
        """Whether the token allows a scope."""
        return scope in self.scopes


@dataclass(frozen=True, kw_only=True)
class MutualTls:
    """How tokens that are bound to a certificate of the client are taken (RFC 8705, 3).

    Attributes:
        header: in which the proxy that ends TLS puts the client's certificate, such as `Client-Cert` (RFC 9440). The
            proxy must remove it from what clients send. "" if the server itself knows the certificate.
    """

    header: str = ""


class ProtectedResource:
    """An API, an MCP server, or another resource that access tokens are for. Many threads can use it at once.

    Args:
        identifier: the URL that clients name it by, and that tokens have in `aud` (RFC 8707, RFC 9728).
        issuers: the authorization servers whose tokens are good: an `Issuer`, its identifier, or several.
        scopes: that make sense here, for clients to read (`scopes_supported`).
        implied_scopes: for a broad scope the narrower ones that it includes.
        name: for people (`resource_name`).
        documentation: a URL (`resource_documentation`).
        dpop: how bound tokens are taken; None refuses them.
        mutual_tls: how tokens that are bound to a certificate are taken; None refuses them.
        other_audiences: that tokens may have instead of the identifier, as for an API that was renamed.
        leeway: seconds by which our clock may differ from the issuer's.
        send_authorization_details: whether `refusal` may tell clients the `authorization_details` that would help.
        development: whether http to this machine is allowed.
        ca_file: path of the certificates to trust instead of the system's, when an issuer is asked.
        fetch: asks the issuers instead, for tests.

    Raises:
        ValueError: something of this cannot be; the text says what.
    """

    def __init__(
        self,
        identifier: str,
        issuers: Issuer | str | Sequence[Issuer | str],
        *,
        scopes: Collection[str] = (),
        implied_scopes: Mapping[str, Iterable[str]] = MappingProxyType({}),
        name: str = "",
        documentation: str = "",
        dpop: Dpop | None = None,
        mutual_tls: MutualTls | None = None,
        other_audiences: Collection[str] = (),
        leeway: float = 30,
        send_authorization_details: bool = False,
        development: bool = False,
        ca_file: str = "",
        fetch: Fetch | None = None,
    ) -> None:
        self.identifier = checked_url(identifier, development=development)
        parts = urlsplit(identifier)
        if parts.query:
            raise ValueError(f"{identifier!r}: a resource identifier has no query here")
        if not 0 <= leeway <= 300:
            raise ValueError("leeway: must be 0 to 300 seconds")
        if isinstance(scopes, str) or isinstance(other_audiences, str):
            raise ValueError("scopes and other_audiences: must be lists of texts")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.requires_dpop = dpop is not None and dpop.required
        self.certificate_header = mutual_tls.header if mutual_tls else ""
        self._dpop = dpop
        self._mutual_tls = mutual_tls
        self._leeway = leeway
        self._sends_details = send_authorization_details
        # A host with and without a slash is one resource, and clients write either.
        self._audiences = frozenset({identifier, *other_audiences}) | (
            {self.origin, f"{self.origin}/"} if parts.path in ("", "/") else frozenset()
        )
        self._scopes = tuple(scope for scope in scopes if scope != _OFFLINE_ACCESS)
        self._expanded = lru_cache(4096)(_expansion(implied_scopes))
        Requirement(scopes=self._scopes)
        listed = [issuers] if isinstance(issuers, (Issuer, str)) else list(issuers)
        self._settings = [Issuer(issuer) if isinstance(issuer, str) else issuer for issuer in listed]
        if not self._settings or len({issuer.issuer for issuer in self._settings}) != len(self._settings):
            raise ValueError("issuers: name one at least, and each once")
        self._development = development
        self.use(fetch or Fetcher(development=development, ca_file=ca_file))
        self.metadata_path = WELL_KNOWN + ("" if parts.path == "/" else parts.path)
        self.metadata_url = self.origin + self.metadata_path
        self.metadata: Mapping[str, Any] = MappingProxyType(self._described(name, documentation))
        self.metadata_body = json.dumps(dict(self.metadata)).encode()

    def use(self, fetch: Fetch) -> None:
        """Ask the issuers by this function from now on, and forget what they said before."""
        self._issuers = {
            settings.issuer: KnownIssuer(settings, fetch, development=self._development)
            for settings in self._settings
        }
        # Headers of tokens that were verified: each issuer has one for each of its keys.
        self._headers: dict[bytes, tuple[str, str | None]] = {}
        # Tokens whose signature was checked with keys that are still those of their issuer, by their digests.
        self._checked: Cache[tuple[KeySet, Access]] = Cache(_REMEMBERED_TOKENS)

    @property
    def issuers(self) -> Sequence[Issuer]:
        """The authorization servers whose tokens are good."""
        return tuple(self._settings)

    def check(self, request: Request, requirement: Requirement = NOTHING) -> Access:
        """Let a request in. It waits for the network if something is not known yet.

        Raises:
            Refusal: it is not let in; with the status, the headers and the body of the response.
        """
        return self._check(request, requirement, wait=True)

    async def check_async(self, request: Request, requirement: Requirement = NOTHING) -> Access:
        """As `check`, for asyncio: what must wait for the network does so in a thread.

        Raises:
            Refusal: it is not let in.
        """
        try:
            return self._check(request, requirement, wait=False)
        except WouldWait:
            return await asyncio.to_thread(self.check, request, requirement)

    def demand(self, access: Access, requirement: Requirement) -> None:
        """Check what a request needs, for one that was let in already.

        Raises:
            InsufficientScope: it needs other scopes.
            InsufficientAuthentication: the person must sign in again, or better.
        """
        try:
            self._demand(access, requirement)
        except Refusal as refusal:
            self._complete(refusal, access.scheme, requirement)
            raise

    def refusal(
        self,
        access: Access,
        *scopes: str,
        description: str = "The access token does not allow this.",
        authorization_details: Sequence[Mapping[str, Any]] = (),
    ) -> InsufficientScope:
        """What to raise when a rule of the API's own does not let a request in.

        Args:
            scopes: that would help.
            description: for the developer of the client; printable ASCII without quotation marks.
            authorization_details: that would help (RFC 9396), sent if `send_authorization_details` says so.
        """
        members = {}
        if self._sends_details and authorization_details:
            members["authorization_details"] = [dict(detail) for detail in authorization_details]
        refused = InsufficientScope(
            description, attributes={"scope": _union(access.held, scopes)}, members=members
        )
        self._complete(refused, access.scheme, NOTHING)
        return refused

    def _check(self, request: Request, requirement: Requirement, *, wait: bool) -> Access:
        scheme = ""
        try:
            scheme, token = self._credentials(request)
            access = self._verified(token, wait=wait)
            access = self._bound(access, scheme, token, request)
            if requirement is not NOTHING:
                self._demand(access, requirement)
        except Refusal as refusal:
            self._complete(refusal, scheme, requirement)
            log.info("refused with %s: %s", refusal.status, refusal.description)
            raise
        return access

    def _credentials(self, request: Request) -> tuple[str, str]:
        """The scheme and the token of the one `Authorization` header (OAuth 2.1, 5.1.1; RFC 9449, 7.1)."""
        if len(request.authorization) > 1:
            raise InvalidRequest("There is more than one Authorization header.")
        name, _, token = (request.authorization[0] if request.authorization else "").strip().partition(" ")
        scheme = _SCHEMES.get(name.lower())
        if scheme is None or (scheme == "DPoP" and self._dpop is None):
            raise NoToken("The request has no access token.")
        token = token.strip(" ")
        # Two headers that a server has joined hold a comma. What else a token may hold is seen when it is read.
        if not token or " " in token or "," in token:
            raise InvalidRequest("The Authorization header does not hold one access token.", scheme=scheme)
        if len(token) > MAXIMUM_TOKEN:
            raise InvalidToken("The access token is too long.", scheme=scheme)
        if scheme == "Bearer" and request.dpop and self._dpop is not None:
            # A proof is checked or refused, never ignored.
            raise InvalidRequest("A DPoP proof comes with the scheme DPoP.", scheme=scheme)
        return scheme, token

    def _verified(self, token: str, *, wait: bool) -> Access:
        """The access that a token gives, whoever sends it."""
        return (
            self._signed(token, wait=wait) if token.count(".") == 2 else self._introspected(token, wait=wait)
        )

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
                # Another issuer may know it.
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
            # It is remembered, and handed out again.
            claims=MappingProxyType(claims),
        )

    def _bound(self, access: Access, scheme: str, token: str, request: Request) -> Access:
        """Check that the sender of a bound token is the one to whom it is bound (RFC 9449, 7; RFC 8705, 3)."""
        confirmation = access.claims.get("cnf")
        if confirmation is None:
            if scheme == "DPoP":
                raise InvalidToken("The access token is not bound to a key; its scheme is Bearer.")
            if self.requires_dpop:
                raise InvalidToken("Access tokens must be bound to a key of the client here.", scheme="DPoP")
            return access
        if not isinstance(confirmation, dict) or not confirmation:
            raise InvalidToken("The cnf of the access token cannot be read.")
        # A binding that nobody here understands cannot be checked, and must not be ignored (RFC 7800, 3.1).
        if not confirmation.keys() <= {"jkt", "x5t#S256"}:
            raise InvalidToken("The access token is bound in a way that is not known here.")
        if "x5t#S256" in confirmation:
            self._check_certificate(confirmation["x5t#S256"], request)
        if "jkt" not in confirmation:
            if scheme == "DPoP" or self.requires_dpop:
                raise InvalidToken("The access token is not bound to a key of DPoP.", scheme="DPoP")
            return access
        if self._dpop is None:
            raise InvalidToken("Access tokens that are bound to a key are not accepted here.")
        if scheme != "DPoP":
            raise InvalidToken(
                "The access token is bound to a key; its scheme is DPoP, with a proof.", scheme="DPoP"
            )
        # Two headers that a server has joined hold a comma, which no JWT does.
        if len(request.dpop) != 1:
            raise InvalidProof("There is not exactly one DPoP proof.")
        nonce = self._dpop.check(
            request.dpop[0],
            token=token,
            thumbprint=confirmation["jkt"],
            method=request.method,
            url=self.origin + request.path,
        )
        return replace(
            access,
            scheme=scheme,
            headers=(("DPoP-Nonce", nonce), ("Cache-Control", "no-store")) if nonce else (),
        )

    def _check_certificate(self, thumbprint: object, request: Request) -> None:
        if self._mutual_tls is None:
            raise InvalidToken("Access tokens that are bound to a certificate are not accepted here.")
        if request.certificate is None:
            raise InvalidToken(
                "The access token is bound to a certificate, and the connection has no certificate of the client."
            )
        if encoded(hashlib.sha256(request.certificate).digest()) != thumbprint:
            raise InvalidToken(
                "The access token is bound to another certificate than that of the connection."
            )

    def _demand(self, access: Access, requirement: Requirement) -> None:
        missing = [scope for scope in requirement.scopes if scope not in access.scopes]
        scope: dict[str, str | int] = {"scope": _union(access.held, requirement.scopes)} if missing else {}
        wanted: dict[str, str | int] = {}
        if requirement.acr_values and access.claims.get("acr") not in requirement.acr_values:
            wanted["acr_values"] = " ".join(requirement.acr_values)
        if requirement.max_age is not None:
            signed_in = access.claims.get("auth_time")
            if not is_number(signed_in) or time.time() - signed_in > requirement.max_age + self._leeway:
                wanted["max_age"] = requirement.max_age
        if wanted:
            # One step-up for both: the new sign-in asks for the scopes too.
            raise InsufficientAuthentication(
                "A more recent or stronger sign-in is needed.", attributes={**wanted, **scope}
            )
        if missing:
            raise InsufficientScope("The access token lacks a scope.", attributes=scope)

    def _complete(self, refusal: Refusal, scheme: str, requirement: Requirement) -> None:
        """Add the challenges, one for each scheme that the client may use; the one that it used comes first."""
        if isinstance(refusal, Unavailable):
            return
        schemes = [] if self.requires_dpop else ["Bearer"]
        if self._dpop is not None:
            schemes.append("DPoP")
        used = (
            "DPoP"
            if isinstance(refusal, (InvalidProof, NonceNeeded))
            else (refusal.scheme or scheme or schemes[0])
        )
        said: dict[str, str | int] = {}
        if refusal.error:
            said = {"error": refusal.error, "error_description": refusal.description}
        elif requirement.scopes:
            said = {"scope": " ".join(requirement.scopes)}
        challenges = [self._challenge(used, {**said, **refusal.attributes})]
        if refusal.status == 401 and not isinstance(refusal, InsufficientAuthentication):
            again = {} if refusal.error else said
            challenges += [self._challenge(other, again) for other in schemes if other != used]
        refusal.challenges = challenges
        if self._dpop is not None and self._dpop.nonces is not None and refusal.status == 401:
            refusal.nonce = self._dpop.nonces.current()

    def _challenge(self, scheme: str, attributes: Mapping[str, str | int]) -> Challenge:
        algorithms = (
            {"algs": " ".join(self._dpop.algorithms)} if scheme == "DPoP" and self._dpop is not None else {}
        )
        return Challenge(scheme, {**attributes, **algorithms, "resource_metadata": self.metadata_url})

    def _described(self, name: str, documentation: str) -> dict[str, Any]:
        """The metadata (RFC 9728, 2)."""
        metadata: dict[str, Any] = {
            "resource": self.identifier,
            "authorization_servers": [issuer.issuer for issuer in self._settings],
            "bearer_methods_supported": ["header"],
        }
        if self._scopes:
            metadata["scopes_supported"] = list(self._scopes)
        if name:
            metadata["resource_name"] = name
        if documentation:
            metadata["resource_documentation"] = checked_url(documentation, development=self._development)
        if self._mutual_tls is not None:
            metadata["tls_client_certificate_bound_access_tokens"] = True
        if self._dpop is not None:
            metadata["dpop_signing_alg_values_supported"] = list(self._dpop.algorithms)
            metadata["dpop_bound_access_tokens_required"] = self._dpop.required
        return metadata


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


def _union(held: Collection[str], needed: Collection[str]) -> str:
    """The scopes to ask for next: those that are there too, so that none is lost.

    In one order, so that a client sees when it gets the same challenge again (MCP, step-up).
    """
    every = {scope for scope in held if _SCOPE.fullmatch(scope)} | set(needed)
    return " ".join(sorted(every - {_OFFLINE_ACCESS}))


def _expansion(
    implied: Mapping[str, Iterable[str]],
) -> Callable[[str], tuple[frozenset[str], frozenset[str]]]:
    """From the `scope` of a token to the scopes that it holds, and to those that it allows."""
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
