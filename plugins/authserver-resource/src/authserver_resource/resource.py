"""The protected resource: which requests are accepted, and the challenges of the others."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from authserver_resource.access import NOTHING, WORD, Access, Requirement
from authserver_resource.dpop import Dpop, encoded
from authserver_resource.fetching import Fetch, Fetcher, checked_url
from authserver_resource.issuer import Issuer, KnownIssuer
from authserver_resource.jose import (
    MAXIMUM_TOKEN,
)
from authserver_resource.keeping import WouldWait
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
from authserver_resource.strict_json import is_number
from authserver_resource.tokens import TokenVerifier

WELL_KNOWN = "/.well-known/oauth-protected-resource"
_SCHEMES = {"bearer": "Bearer", "dpop": "DPoP"}
# It is no right at this resource; clients that need it ask for it by themselves (MCP, authorization).
_OFFLINE_ACCESS = "offline_access"
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MutualTls:
    """How tokens that are bound to a certificate of the client are taken (RFC 8705, 3).

    Attributes:
        header: the header in which the proxy that ends TLS puts the client's certificate, such as `Client-Cert`
            (RFC 9440). The proxy must remove it from requests of clients. "" if the server itself has the certificate.
    """

    header: str = ""


class ProtectedResource:
    """An API, an MCP server, or another resource that access tokens are for. Many threads can use it at once.

    Args:
        identifier: the URL of the resource, which tokens have in `aud` (RFC 8707, RFC 9728).
        issuers: the authorization servers whose tokens are accepted: an `Issuer`, its identifier, or several.
        scopes: the scopes of this resource, for clients (`scopes_supported`).
        implied_scopes: for a broad scope the narrower ones that it includes.
        name: its name for people (`resource_name`).
        documentation: the URL of its documentation (`resource_documentation`).
        dpop: how bound tokens are taken; None refuses them.
        mutual_tls: how tokens that are bound to a certificate are taken; None refuses them.
        other_audiences: audiences that tokens may have instead of the identifier, for example after a renaming.
        leeway: seconds by which our clock may differ from the issuer's.
        send_authorization_details: whether `refusal` may tell clients the `authorization_details` that would help.
        development: whether http to this machine is allowed.
        ca_file: path of the certificates to trust instead of the system's, when an issuer is asked.
        fetch: a function that sends the requests to the issuers: for tests, and if the issuer is in this process.

    Raises:
        ValueError: an argument is wrong; the text says which.
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
        self._implied_scopes = implied_scopes
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
        """Send requests to the issuers by this function from now on, and forget their earlier answers."""
        issuers = [KnownIssuer(settings, fetch, development=self._development) for settings in self._settings]
        self._tokens = TokenVerifier(issuers, self._audiences, self._implied_scopes, self._leeway)

    @property
    def issuers(self) -> Sequence[Issuer]:
        """The authorization servers whose tokens are accepted."""
        return tuple(self._settings)

    def check(self, request: Request, requirement: Requirement = NOTHING) -> Access:
        """Check the token of a request. It waits for the network if the answer is not known yet.

        Raises:
            Refusal: the request is refused; with the status, the headers and the body of the response.
        """
        return self._check(request, requirement, wait=True)

    async def check_async(self, request: Request, requirement: Requirement = NOTHING) -> Access:
        """As `check`, for asyncio: requests to the network are made in a thread.

        Raises:
            Refusal: the request is refused.
        """
        try:
            return self._check(request, requirement, wait=False)
        except WouldWait:
            return await asyncio.to_thread(self.check, request, requirement)

    def demand(self, access: Access, requirement: Requirement) -> None:
        """Check a further requirement of a request with a checked token.

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
        """The exception to raise when a rule of the API itself refuses a request.

        Args:
            scopes: the scopes with which the request would be accepted.
            description: a text for the developer of the client; printable ASCII without quotation marks.
            authorization_details: those that would help (RFC 9396); sent if `send_authorization_details` is true.
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
            access = self._tokens.access(token, wait=wait)
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
        # Two headers that a server has joined have a comma. All other characters of a token is seen when it is read.
        if not token or " " in token or "," in token:
            raise InvalidRequest("The Authorization header does not hold one access token.", scheme=scheme)
        if len(token) > MAXIMUM_TOKEN:
            raise InvalidToken("The access token is too long.", scheme=scheme)
        if scheme == "Bearer" and request.dpop and self._dpop is not None:
            # A proof is checked or refused, never ignored.
            raise InvalidRequest("A DPoP proof comes with the scheme DPoP.", scheme=scheme)
        return scheme, token

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
        # An unknown kind of binding cannot be checked, and must not be ignored (RFC 7800, 3.1).
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
            # One step-up for both: the new sign-in asks for the scopes, too.
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


def _union(held: Collection[str], needed: Collection[str]) -> str:
    """The scopes to ask for next: those that are there too, so that none is lost.

    In one order, so that a client sees when it gets the same challenge again (MCP, step-up).
    """
    every = {scope for scope in held if WORD.fullmatch(scope)} | set(needed)
    return " ".join(sorted(every - {_OFFLINE_ACCESS}))
