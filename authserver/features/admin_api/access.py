"""Checks who may use the API: it verifies access tokens of this server as every other API does (RFC 9068, RFC 7662).

The verifier is that of the distribution `authserver-resource`. It usually asks a server over HTTP for keys and
introspection; here it gets both from the engine of the request. In addition each request looks up the token, so that a
token that has ended, or whose grant, user or client has ended, is refused at once, even if it is a JWT.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from authserver.api import (
    Client,
    Counted,
    Engine,
    InvalidClient,
    Issued,
    Kept,
    Kind,
    Problem,
    TemporarilyUnavailable,
    TokenKind,
    claim_rate,
    describe_issued,
    digest,
    find_issued,
    of_this_generation,
)
from authserver.features.admin_api import problems
from authserver.features.admin_api.entries import PREFIX, Administrator
from authserver_resource import (
    Access,
    Challenge,
    Dpop,
    InsufficientScope,
    InvalidProof,
    InvalidRequest,
    InvalidToken,
    Issuer,
    NonceNeeded,
    NoToken,
    ProtectedResource,
    Refusal,
    Unavailable,
    needs,
)
from authserver_resource.fetching import FetchFailed, Reply
from authserver_resource.request import of_wsgi

# The kind of the small records (`Kept`) of DPoP proofs that were used.
PROOF = "admin-api-proof"
# How much the time in a proof may be before or after the time of this server.
TOLERANCE = timedelta(seconds=60)
_KEYS, _INTROSPECTION = "https://localhost/keys", "https://localhost/introspection"
_ENGINE: ContextVar[Engine] = ContextVar("engine")


class Guard:
    """Admits administrators to the API. It is safe for several threads.

    Args:
        issuer: the issuer identifier of this server.
        url: the URL of the API, which is its resource identifier.
        name: the name of the API, for people.
        scopes: all scopes of the API, with their sentences.
        groups: groups whose members may use the API, with tokens that stand for them.
        operator_groups: groups whose members administer this server, by this API or in another way.
        token_types: the types of the key-bound access tokens that this server issues, such as `DPoP`.
    """

    def __init__(
        self,
        *,
        issuer: str,
        url: str,
        name: str,
        scopes: Mapping[str, str],
        groups: frozenset[str],
        operator_groups: frozenset[str],
        token_types: Iterable[str],
    ) -> None:
        self.groups, self.operator_groups = groups, operator_groups
        self._kids: tuple[str, ...] = ()
        self.protected = ProtectedResource(
            url,
            # Name and secret are placeholders: `_answer` looks at neither.
            Issuer(
                issuer,
                client_id="admin-api",
                client_secret="admin-api",
                active_seconds=0,
                inactive_seconds=0,
                jwks_uri=_KEYS,
                introspection_endpoint=_INTROSPECTION,
            ),
            scopes=list(scopes),
            name=name,
            dpop=Dpop(replays=_Proofs(), tolerance=int(TOLERANCE.total_seconds()))
            if "DPoP" in token_types
            else None,
            development=issuer.startswith("http:"),
            fetch=_answer,
        )

    def admit(self, engine: Engine, environ: Mapping[str, Any], scope: str) -> Administrator:
        """The administrator who sent this request.

        Args:
            environ: the WSGI environment of the request (PEP 3333).
            scope: the needed scope; "" if any scope of the API is enough.

        Raises:
            Problem: 401 if the token is not valid, 404 if it gives no right to the API, 403 if it has not the needed scope.
            TooManyRequests: there were too many bad tokens.
            TemporarilyUnavailable: the client is kept elsewhere, and cannot be found now.
        """
        with _asking(engine):
            try:
                access = self._checked(engine, environ, scope)
                issued = self._live(engine, environ)
                client = self._client(engine, issued)
            except Refusal as refusal:
                if refusal.status == 401:
                    claim_rate(engine, Counted.FAILED_CLIENT_AUTHENTICATION)
                raise _problem(refusal) from None
            administrator = Administrator(
                client=client,
                user=issued.user,
                # Scopes that the client has lost since the token was issued do not count any more.
                scopes=frozenset(
                    each for each in issued.scopes if each.startswith(PREFIX) and each in client.scopes
                ),
            )
            journal = engine.journal
            journal.actor = administrator.actor
            if why := self._no_administrator(administrator):
                journal.client_id, journal.grant_id = client.client_id, issued.grant.grant_id
                journal.user_id = issued.grant.user_id
                raise Problem(
                    problems.NOT_FOUND,
                    "There is nothing at this address.",
                    reason=why,
                )
            if scope and scope not in administrator.scopes:
                journal.client_id = client.client_id
                refused = self.protected.refusal(access, scope, description=f"This needs the scope {scope}.")
                raise _problem(refused)
            return administrator

    def _checked(self, engine: Engine, environ: Mapping[str, Any], scope: str) -> Access:
        """The access that the verifier finds in the token. Raises Refusal."""
        kids = tuple(key["kid"] for key in engine.signer.jwks()["keys"])
        if kids != self._kids:
            # A revoked key stops to count at once, and its successor counts.
            self.protected.use(_answer)
            self._kids = kids
        request = of_wsgi(environ)
        try:
            return self.protected.check(request)
        except NoToken:
            # Check once more with the scope, so that the challenge names it, too.
            return self.protected.check(request, needs(*filter(None, [scope])))

    def _live(self, engine: Engine, environ: Mapping[str, Any]) -> Issued:
        """The stored token of this request. Raises Refusal."""
        issued = find_issued(engine, environ["HTTP_AUTHORIZATION"].strip().partition(" ")[2].strip())
        if issued is None or issued.kind is not TokenKind.ACCESS or not issued.is_active(engine.now):
            raise self._refused("The access token has ended, or was revoked.")
        if issued.audience != (self.protected.identifier,):
            # Otherwise another resource that gets the token could use it here.
            raise self._refused("The access token is for other resources, too.")
        return issued

    def _client(self, engine: Engine, issued: Issued) -> Client:
        """The client of the token. Raises Refusal, TemporarilyUnavailable."""
        try:
            client = engine.find_client(issued.client_id)
        except InvalidClient:
            client = None
        if client is None or not client.is_enabled:
            raise self._refused("The client of the access token is disabled.")
        return client

    def _no_administrator(self, found: Administrator) -> str:
        """Why somebody with a good token may not use the API at all; "" if they may."""
        reason = ""
        if found.client.is_self_registered or found.client.is_known_by_address:
            reason = "client-registered-itself"
        elif found.user is not None and self.groups.isdisjoint(found.user.groups):
            reason = "not-in-admin-groups"
        elif not found.scopes:
            reason = "no-admin-scope"
        return reason

    def _refused(self, description: str) -> InvalidToken:
        """A refusal by this module, with the same challenge as those of the verifier."""
        refused = InvalidToken(description)
        said = {"error": refused.error, "error_description": description}
        refused.challenges = [Challenge("Bearer", {**said, "resource_metadata": self.protected.metadata_url})]
        return refused


class _Proofs:
    """The DPoP proofs that were used, for all processes (`authserver_resource.Replays`)."""

    def claim(self, identifier: str, until: float) -> bool:
        """Whether the proof was not used before. False, too, if that is unknown because the database was restored since."""
        engine = _ENGINE.get()
        first = datetime.fromtimestamp(until, UTC) - 2 * TOLERANCE - timedelta(seconds=1)
        return of_this_generation(engine, first) and engine.stores.kept.add_once(
            Kept(
                kind=PROOF,
                digest=digest(PROOF, identifier),
                created_at=engine.now,
                expires_at=datetime.fromtimestamp(until, UTC),
            )
        )


@contextmanager
def _asking(engine: Engine) -> Iterator[None]:
    """Let this engine answer the questions of the verifier inside the `with` block."""
    token = _ENGINE.set(engine)
    try:
        yield
    finally:
        _ENGINE.reset(token)


def _answer(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
    """The answer that the verifier would get from the server over HTTP (`authserver_resource.fetching.Fetch`)."""
    engine = _ENGINE.get()
    if url == _KEYS:
        return _json(engine.signer.jwks())
    if url != _INTROSPECTION:
        raise FetchFailed("only keys and introspection can be fetched")
    token = parse_qs((body or b"").decode()).get("token", [""])[0]
    issued = find_issued(engine, token)
    if issued is None or issued.kind is not TokenKind.ACCESS or not issued.is_active(engine.now):
        return _json({"active": False})
    return _json(describe_issued(engine, issued))


def _json(value: Mapping[str, Any]) -> Reply:
    return Reply(200, {"content-type": "application/json"}, json.dumps(value).encode())


_KINDS: tuple[tuple[type[Refusal], Kind], ...] = (
    (NoToken, problems.NO_TOKEN),
    (InvalidRequest, problems.INVALID_AUTHORIZATION),
    (InvalidProof, problems.INVALID_PROOF),
    (NonceNeeded, problems.INVALID_PROOF),
    (InsufficientScope, problems.INSUFFICIENT_SCOPE),
    (InvalidToken, problems.INVALID_TOKEN),
)


def _problem(refusal: Refusal) -> Problem | TemporarilyUnavailable:
    """The refusal of the verifier as a problem, with its challenge."""
    if isinstance(refusal, Unavailable):
        return TemporarilyUnavailable(refusal.description, reason="verifier-unavailable")
    kind = next(kind for type, kind in _KINDS if isinstance(refusal, type))
    headers = {name: value for name, value in refusal.headers if name != "Cache-Control"}
    advice = ""
    if kind is problems.NO_TOKEN:
        advice = " Send one in the Authorization header; the document that the challenge names says where to get it."
    return Problem(kind, refusal.description + advice, headers=headers)
