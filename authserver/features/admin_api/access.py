"""Who may use the API: access tokens of this server itself, verified as every API verifies them (RFC 9068, RFC 7662).

The verifier is that of the distribution `authserver-resource`. What it would ask the server for over HTTP, keys and
introspection, it gets here from the engine of the request. Besides, the token is looked up at each request: so one whose
grant was revoked, whose user or client is disabled, or that has ended is refused at once, also if it is a JWT.
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

# The proofs that were used, among the small records.
PROOF = "admin-api-proof"
# By how much the time in a proof may differ from ours, either way.
TOLERANCE = timedelta(seconds=60)
_KEYS, _INTROSPECTION = "https://localhost/keys", "https://localhost/introspection"
_ENGINE: ContextVar[Engine] = ContextVar("engine")


class Guard:
    """Lets administrators in. Many threads can use it at once.

    Args:
        issuer: of this server.
        url: of the API, which is its resource identifier.
        name: of the API, for people.
        scopes: all that it has.
        groups: whose members may use it, with tokens in their name.
        operator_groups: whose members administer this server, by this API or otherwise.
        token_types: of access tokens that are bound to something of the client, as this server issues them.
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
        """Who asks, if they may.

        Args:
            environ: of the request (PEP 3333).
            scope: that is needed; "" for any of the API.

        Raises:
            Problem: they may not: 401 without a good token, 404 without any right to the API, 403 with another right.
            TooManyRequests: there were too many bad tokens.
            TemporarilyUnavailable: the client is kept elsewhere, and cannot be asked for now.
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
                # What was taken from the client since does not count any more.
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
        """What the verifier says. Raises Refusal."""
        kids = tuple(key["kid"] for key in engine.signer.jwks()["keys"])
        if kids != self._kids:
            # A key that was revoked counts no more at once, and one that took its place does.
            self.protected.use(_answer)
            self._kids = kids
        request = of_wsgi(environ)
        try:
            return self.protected.check(request)
        except NoToken:
            # Once more: the challenge names the scope, too.
            return self.protected.check(request, needs(*filter(None, [scope])))

    def _live(self, engine: Engine, environ: Mapping[str, Any]) -> Issued:
        """What is stored of the token behind this request. Raises Refusal."""
        issued = find_issued(engine, environ["HTTP_AUTHORIZATION"].strip().partition(" ")[2].strip())
        if issued is None or issued.kind is not TokenKind.ACCESS or not issued.is_active(engine.now):
            raise self._refused("The access token has ended, or was revoked.")
        if issued.audience != (self.protected.identifier,):
            # Another resource that has it could use it here.
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
        """A refusal of our own, with the challenge of those that the verifier makes."""
        refused = InvalidToken(description)
        said = {"error": refused.error, "error_description": description}
        refused.challenges = [Challenge("Bearer", {**said, "resource_metadata": self.protected.metadata_url})]
        return refused


class _Proofs:
    """The proofs that were used, for all processes (`authserver_resource.Replays`)."""

    def claim(self, identifier: str, until: float) -> bool:
        """Whether it was not used before; False, too, if that cannot be known, because the database was restored since."""
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
    """The engine that answers what the verifier asks meanwhile."""
    token = _ENGINE.set(engine)
    try:
        yield
    finally:
        _ENGINE.reset(token)


def _answer(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
    """What the server would answer the verifier over HTTP (`authserver_resource.fetching.Fetch`)."""
    engine = _ENGINE.get()
    if url == _KEYS:
        return _json(engine.signer.jwks())
    if url != _INTROSPECTION:
        raise FetchFailed("nothing else is asked for")
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
    """The same as a problem, with its challenge."""
    if isinstance(refusal, Unavailable):
        return TemporarilyUnavailable(refusal.description, reason="verifier-unavailable")
    kind = next(kind for type, kind in _KINDS if isinstance(refusal, type))
    headers = {name: value for name, value in refusal.headers if name != "Cache-Control"}
    advice = ""
    if kind is problems.NO_TOKEN:
        advice = " Send one in the Authorization header; the document that the challenge names says where to get it."
    return Problem(kind, refusal.description + advice, headers=headers)
