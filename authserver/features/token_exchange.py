"""Token exchange (RFC 8693): a service that was called for a person gets a token of its own for the next service.

The new grant is derived from the token that the service presents (`authserver.api.derive`): a token of this server, or a
JWT of a trusted issuer whose entry allows the exchange; other features add types of tokens. It is for the same person,
never has more rights, never lives longer, and ends with the token from which it is derived. `act` in it names the client
that acts, and those that acted before.

Nothing is exchanged until an operator allows it: a client must be registered for the grant type. It may exchange tokens
that it got itself or that are meant for it; the rules here add others. `scope_decision` is asked about every exchange with
the client, the person and the resources, as for every other token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from authserver.api import (
    RESOURCE_PARAMETER,
    SCOPE_PARAMETER,
    TEXT,
    Client,
    Described,
    Engine,
    ExchangeableToken,
    Grant,
    InvalidRequest,
    InvalidTarget,
    Issue,
    Issued,
    NotLive,
    Parameter,
    Parameters,
    Parent,
    Presented,
    Redeem,
    TokenKind,
    UnauthorizedClient,
    acted,
    actors_of,
    canonical_resource,
    derive,
    find_issued,
    hookimpl,
    parent_of_token,
    present_assertion,
    requested_scopes,
)

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
REFRESH_TOKEN = "urn:ietf:params:oauth:token-type:refresh_token"
Make = Callable[[Engine, Client, Parameters, Presented], Issue]
# The reasons why a client may exchange a token, as the event has them.
OWN, AUDIENCE, SOURCE, ISSUER = "own-token", "audience", "source", "issuer"


@dataclass(frozen=True)
class TokenExchange:
    """Let services exchange the tokens that they are called with for tokens to call the next service (RFC 8693).

    A client must be confidential and registered for the grant type. It may exchange tokens that it got itself, and tokens
    for a resource that it may introspect.

    Attributes:
        sources: lines `client = client ...`: a client, and other clients whose tokens it may exchange, too.
        targets: lines `client = URI ...`: a client, and resources for which it may get tokens in addition to those of the
            token that it shows.
        audiences: lines `name = URI`: names that clients may send for a resource in the parameter `audience`.
        named_actors: lines `client = client`: only the second client may exchange tokens that were issued to the first;
            JWTs of the first say so in `may_act`.
        impersonators: clients that may get tokens which do not name them as the actor.
        refreshers: clients that may get refresh tokens.
        maximum_actors: how many clients may act through one another, 1 to 16.
    """

    immediate: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"may_act"})
    members: ClassVar[frozenset[str]] = frozenset({"issued_token_type"})
    grant_members: ClassVar[frozenset[str]] = frozenset({"exchanged_for"})
    described: ClassVar[Mapping[str, Described]] = {
        GRANT_TYPE: Described(
            members={
                "subject_token": Parameter(
                    description="The token to exchange (RFC 8693, 2.1).", schema=TEXT, required=True
                ),
                "subject_token_type": Parameter(
                    description="The type of that token (RFC 8693, 3).", schema=TEXT, required=True
                ),
                "actor_token": Parameter(description="A token of the client that acts.", schema=TEXT),
                "actor_token_type": Parameter(
                    description="The type of that token.", schema={"const": ACCESS_TOKEN}
                ),
                "requested_token_type": Parameter(
                    description="The type of the new token (RFC 8693, 3); an access token unless given.",
                    schema=TEXT,
                ),
                "audience": Parameter(
                    description="The service that the token is for; may be sent several times.",
                    schema={"type": "array", "items": TEXT},
                ),
                "scope": SCOPE_PARAMETER,
                "resource": RESOURCE_PARAMETER,
            }
        ),
        "token_response": Described(
            answer={
                "issued_token_type": Parameter(
                    description="After an exchange, the type of the new token (RFC 8693, 2.2.1)."
                )
            }
        ),
    }
    reasons: ClassVar[Mapping[str, str]] = {
        "actor-not-named": "authserver.plugin.token_exchange.named_actors names the only client that may exchange this token",
        "actor-token-alone": "",
        "actor-token-ended": "",
        "actor-token-of-another-client": "",
        "actor-token-unknown": "",
        "audience-unknown": "authserver.plugin.token_exchange.audiences lists the names that clients may send",
        "requested-token-type": "",
        "subject-token-ended": "",
        "subject-token-of-another-client": (
            "the token was not issued to this client, and is not for a resource that it serves; to allow the exchange, list "
            "both clients in authserver.plugin.token_exchange.sources"
        ),
        "subject-token-of-client": "",
        "subject-token-unknown": "",
        "assertion-of-an-actor": "the issuer must leave out `act`: its actors are not known here",
        "assertion-claim-unusable": "",
        "issuer-not-exchanged": (
            "the entry of the issuer must allow the exchange of its JWTs: `authserver issuer edit ISSUER --option "
            "exchanged=true`, with the profile for JWTs about users"
        ),
        "too-many-actors": "authserver.plugin.token_exchange.maximum_actors says how many clients may act through one another",
        "token-type": "",
        "two-keys": "",
    }

    sources: tuple[tuple[str, str], ...] = ()
    targets: tuple[tuple[str, str], ...] = ()
    audiences: tuple[tuple[str, str], ...] = ()
    named_actors: tuple[tuple[str, str], ...] = ()
    impersonators: tuple[str, ...] = ()
    refreshers: tuple[str, ...] = ()
    maximum_actors: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.maximum_actors <= 16:
            raise ValueError("maximum_actors: must be 1 to 16")
        for setting in ("sources", "targets", "audiences", "named_actors"):
            lines = getattr(self, setting)
            if len(dict(lines)) < len(lines):
                raise ValueError(f"{setting}: two lines begin alike")
            for name, text in lines:
                words = text.split()
                if not words or (setting in ("audiences", "named_actors") and len(words) > 1):
                    raise ValueError(
                        f"{setting}: {name}: name {'only one' if words else 'at least one'} after the `=`"
                    )
        for setting in ("targets", "audiences"):
            for name, text in getattr(self, setting):
                try:
                    _ = [canonical_resource(uri) for uri in text.split()]
                except Exception as error:
                    raise ValueError(f"{setting}: {name}: {error}") from None

    @cached_property
    def _sources(self) -> Mapping[str, frozenset[str]]:
        return {client_id: frozenset(text.split()) for client_id, text in self.sources}

    @cached_property
    def _targets(self) -> Mapping[str, tuple[str, ...]]:
        return {client_id: tuple(text.split()) for client_id, text in self.targets}

    @hookimpl
    def grant_types(self) -> Mapping[str, Redeem]:
        return {GRANT_TYPE: self.redeem}

    @hookimpl
    def exchangeable_tokens(self) -> Mapping[str, ExchangeableToken]:
        return {
            ACCESS_TOKEN: ExchangeableToken(read=_present),
            JWT: ExchangeableToken(read=present_assertion),
        }

    @hookimpl
    def token_claims(self, client: Client) -> Mapping[str, Any] | None:
        """Name the only client that may exchange this token (RFC 8693, 4.4)."""
        actor = dict(self.named_actors).get(client.client_id)
        return {"may_act": {"sub": actor}} if actor else None

    @hookimpl
    def token_response(self, grant: Grant) -> Mapping[str, Any] | None:
        is_exchanged = grant.details.get("grant_type") == GRANT_TYPE
        return (
            {"issued_token_type": grant.details.get("exchanged_for", ACCESS_TOKEN)} if is_exchanged else None
        )

    def redeem(self, engine: Engine, client: Client, parameters: Parameters) -> Issue:
        """Issue an access token that is derived from the subject token, or a token that another plugin makes from it.

        Raises:
            UnauthorizedClient: the client is public.
            InvalidRequest: a parameter is missing or not supported; a token is unknown or has ended; this client may not
                exchange it; or too many clients would act through one another.
            InvalidTarget: a resource or audience is unknown or not allowed.
            InvalidScope: no scope is left.
        """
        if client.is_public:
            raise UnauthorizedClient("A public client cannot use this grant type.", reason="public-client")
        make = _make_of(engine, parameters)
        subject = _read(engine, client, parameters, with_refresh_tokens=make is not None)
        parent = subject.parent
        rule = self._rule(engine, client, subject)
        if make is not None:
            return _made(make(engine, client, parameters, subject), parameters, subject)
        actor_token = self._actor_token(engine, client, parameters)
        is_impersonation = actor_token is None and client.client_id in self.impersonators
        actor = parent.actor if is_impersonation else acted(client.client_id, parent.actor)
        if max(len(actors_of(actor)), len(parent.chain)) > self.maximum_actors:
            raise InvalidRequest("Too many act one through another.", reason="too-many-actors")
        limits = replace(
            parent,
            resources=self._resources(client, parent),
            expires_at=min(
                filter(None, (parent.expires_at, actor_token.expires_at if actor_token else None)),
                default=None,
            ),
        )
        wanted = [*parameters.all("resource"), *map(self._named, parameters.all("audience"))]
        return derive(
            engine,
            client,
            limits,
            grant_type=GRANT_TYPE,
            scopes=requested_scopes(parameters),
            resources=wanted or subject.audience,
            actor=actor,
            refreshable=client.client_id in self.refreshers,
            uses=subject.uses,
            bound=_bound(subject, actor_token),
            bound_refusal=InvalidRequest,
            noted={
                **subject.noted,
                "subject_token": subject.name,
                "subject_client": subject.client_id,
                "rule": rule,
                "actors": list(actors_of(actor)),
                "impersonation": is_impersonation,
                **({"actor_token": actor_token.jti} if actor_token else {}),
            },
        )

    def _resources(self, client: Client, parent: Parent) -> tuple[str, ...] | None:
        """The most resources: those of the subject token, and those that a rule adds, if this server issued the token."""
        if parent.grant is None:
            return parent.resources
        return (*(parent.resources or ()), *self._targets.get(client.client_id, ()))

    def _rule(self, engine: Engine, client: Client, subject: Presented) -> str:
        """The reason why this client may exchange this token. Raises InvalidRequest if it may not (TX-08, TX-15)."""
        only = subject.sole_actor
        if only is None and subject.client_id is not None:
            only = dict(self.named_actors).get(subject.client_id)
        if only is not None and only != client.client_id:
            raise InvalidRequest(_NOT_VALID, reason="actor-not-named")
        if subject.client_id is None:
            return ISSUER
        if subject.client_id == client.client_id:
            return OWN
        served = engine.resources.of(subject.audience)
        if any(client.client_id in resource.introspecting_clients for resource in served):
            return AUDIENCE
        if only == client.client_id or subject.client_id in self._sources.get(client.client_id, ()):
            return SOURCE
        raise InvalidRequest(_NOT_VALID, reason="subject-token-of-another-client")

    def _actor_token(self, engine: Engine, client: Client, parameters: Parameters) -> Issued | None:
        """The actor token, which must be live and issued to this client. Raises InvalidRequest."""
        text = parameters.get("actor_token")
        if text is None:
            return None
        found = _find(engine, text, reason="actor-token-unknown")
        if found.client_id != client.client_id:
            raise InvalidRequest(_NOT_VALID, reason="actor-token-of-another-client")
        if not found.is_active(engine.now):
            raise InvalidRequest(_NOT_VALID, reason="actor-token-ended")
        return found

    def _named(self, audience: str) -> str:
        """The resource for an `audience`, which is its URI or a name in `audiences`. Raises InvalidTarget."""
        known = dict(self.audiences)
        if audience in known:
            return known[audience]
        try:
            canonical_resource(audience)
        except InvalidTarget:
            raise InvalidTarget("There is no such audience.", reason="audience-unknown") from None
        return audience


_NOT_VALID = "The token is not valid for this client."


def _make_of(engine: Engine, parameters: Parameters) -> Make | None:
    """The function that makes the requested token; None for an access token. Raises InvalidRequest."""
    if ("actor_token" in parameters) != ("actor_token_type" in parameters):
        raise InvalidRequest("actor_token and actor_token_type go together.", reason="actor-token-alone")
    if parameters.get("actor_token_type") not in (None, ACCESS_TOKEN):
        raise InvalidRequest("This type of token cannot be exchanged.", reason="token-type")
    wanted = parameters.get("requested_token_type")
    if wanted in (None, ACCESS_TOKEN):
        return None
    known = engine.exchangeable_tokens.get(str(wanted))
    if known is None or known.make is None or "actor_token" in parameters:
        raise InvalidRequest("This type of token is not issued.", reason="requested-token-type")
    return known.make


def _made(order: Issue, parameters: Parameters, subject: Presented) -> Issue:
    """The issue of another plugin, with the details of every exchange."""
    details = {
        **order.grant.details,
        "grant_type": GRANT_TYPE,
        "exchanged_for": parameters.require("requested_token_type"),
    }
    noted = {
        **subject.noted,
        **order.noted,
        "subject_token": subject.name,
        "subject_client": subject.client_id,
    }
    return replace(
        order,
        grant=replace(order.grant, details=details),
        bound=subject.bound,
        bound_refusal=InvalidRequest,
        uses=(*subject.uses, *order.uses),
        noted=noted,
    )


def _find(engine: Engine, text: str, *, reason: str) -> Issued:
    """The access token of this server with this text, live or not. Raises InvalidRequest."""
    found = find_issued(engine, text)
    if found is None or found.kind is not TokenKind.ACCESS:
        raise InvalidRequest(_NOT_VALID, reason=reason)
    return found


def _read(engine: Engine, client: Client, parameters: Parameters, *, with_refresh_tokens: bool) -> Presented:
    """The subject token, which is live at this moment and belongs to a person. Raises InvalidRequest."""
    text, kind = parameters.require("subject_token"), parameters.require("subject_token_type")
    found = engine.exchangeable_tokens.get(kind)
    read = found.read if found else None
    if read is None and with_refresh_tokens and kind == REFRESH_TOKEN:
        read = _present_refresh_token
    if read is None:
        raise InvalidRequest("This type of token cannot be exchanged.", reason="token-type")
    subject: Presented = read(engine, client, text)
    user = subject.parent.user
    if user is None:
        raise InvalidRequest(
            "The subject token is of no person: its client authenticates itself.",
            reason="subject-token-of-client",
        )
    engine.journal.user_id = None if subject.parent.joins else user.user_id
    return subject


def _present(engine: Engine, client: Client, text: str) -> Presented:
    """An access token of this server, for `ExchangeableToken.read`."""
    return _presented(engine, _find(engine, text, reason="subject-token-unknown"))


def _present_refresh_token(engine: Engine, client: Client, text: str) -> Presented:
    """A live refresh token of this client; the exchange does not use it up (TX-12, JAG-24). Raises InvalidRequest."""
    found = find_issued(engine, text)
    if found is None or found.kind is not TokenKind.REFRESH or found.client_id != client.client_id:
        raise InvalidRequest(_NOT_VALID, reason="subject-token-unknown")
    return replace(_presented(engine, found), identifies=True)


def _presented(engine: Engine, issued: Issued) -> Presented:
    engine.journal.user_id = issued.grant.user_id
    try:
        parent = parent_of_token(engine, issued)
    except NotLive as ended:
        raise InvalidRequest(_NOT_VALID, reason=ended.reason) from None
    return Presented(
        parent=parent,
        name=issued.jti,
        client_id=issued.client_id,
        audience=issued.audience,
        bound=issued.confirmation,
    )


def _bound(subject: Presented, actor: Issued | None) -> Mapping[str, Any]:
    """The key that this request must prove, because a token in it is bound to that key (RFC 9449, 7.1).

    The new token is bound to the key that the request proves, or to no key if it proves none.

    Raises:
        InvalidRequest: the two tokens are bound to two keys, because one request cannot prove both.
    """
    keys = [dict(key) for key in (subject.bound, actor.confirmation if actor else {}) if key]
    if len(keys) == 2 and keys[0] != keys[1]:
        raise InvalidRequest("The tokens are bound to two keys.", reason="two-keys")
    return keys[0] if keys else {}
