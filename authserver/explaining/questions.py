"""The questions that operators ask in advance: each function applies a rule of the engine to existing records.

They are for `explain`, which shows how the answer was found. Commands and pages ask the same questions. Nothing is changed,
and no answer has an effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from authserver.engine import authorization_request, introspect, token, uris
from authserver.engine.asking import allowed_resources, allowed_scopes
from authserver.engine.clients import initial_tokens
from authserver.engine.clients import registration as registration_rules
from authserver.engine.clients.authentication import NOBODY_NAMED
from authserver.engine.clients.client_metadata import read_object
from authserver.engine.consent import Agreement, consents_already, silent_approval_is_safe
from authserver.engine.context import Engine, Journal
from authserver.engine.crypto import digests
from authserver.engine.crypto.jose import read_jws
from authserver.engine.errors import AccessDenied, InvalidClient, InvalidRequest
from authserver.engine.grants import assertion as assertions
from authserver.engine.grants.client_credentials import refuse_public
from authserver.engine.parameters import Parameters, scope_set
from authserver.engine.people.usernames import BadUsername, normalise_username
from authserver.engine.questions import IntrospectedToken
from authserver.engine.records import Client, InitialAccessToken, TokenKind, User
from authserver.engine.tokens.once import is_used

if TYPE_CHECKING:
    from authserver.plugins.asking import PluginSet


class NotFound(Exception):
    """The subject of a question does not exist; the message says which command lists the existing ones."""


def apart(engine: Engine, plugins: PluginSet) -> Engine:
    """An engine for questions outside real requests: nothing is noted or counted, and no shadow plugin is asked."""
    journal = Journal(actor=engine.journal.actor)
    return replace(engine, policies=plugins.for_trying(), journal=journal)


def redirect_uri(engine: Engine, client_id: str, redirect_uri: str) -> str:
    """The URI to which an authorization response would go. Raises a Refusal if that is not allowed."""
    parameters = Parameters.parse(urlencode({"client_id": client_id, "redirect_uri": redirect_uri}))
    return authorization_request.accept_target(engine, parameters)[1]


def scope(
    engine: Engine,
    client_id: str,
    *,
    scopes: Sequence[str] = (),
    resources: Sequence[str] = (),
    username: str | None = None,
    grant_type: str | None = None,
) -> tuple[str, ...]:
    """Which of the scopes a client may have. Raises a Refusal, and NotFound.

    Args:
        username: who would grant them; None for the client itself.
        grant_type: None for `authorization_code` with a person, `client_credentials` without.
    """
    client, person = client_of(engine, client_id), user_of(engine, username)
    kind = grant_type or ("authorization_code" if person else "client_credentials")
    token.allowed_grant_type(engine, client, kind)
    if kind == "client_credentials":
        refuse_public(client)
    allowed = allowed_resources(engine, client, resources)
    return allowed_scopes(engine, client, person, kind, _scopes(scopes), allowed)


def assertion(
    engine: Engine,
    client_id: str | None,
    text: str,
    *,
    scopes: Sequence[str] = (),
    resources: Sequence[str] = (),
    as_issued: bool = False,
) -> Mapping[str, Any]:
    """What an assertion of a trusted issuer would give this client (RFC 7523). It is not stored and not used up.

    Args:
        client_id: None for the client that the assertion itself names.
        as_issued: whether to check it as if it came at the time when it was signed, and for the first time.

    Raises a Refusal.
    """
    if as_issued and (signed := _signed_at(text)) is not None:
        engine = replace(engine, now=signed)
    pairs = [("assertion", text), *(("resource", uri) for uri in resources)]
    pairs += [("scope", " ".join(scopes))] if scopes else []
    parameters = Parameters.of(pairs)
    named = assertions.named_client(engine, parameters) if client_id is None else None
    if client_id is None and named is None:
        raise InvalidClient("The assertion does not name its client.", reason=NOBODY_NAMED)
    client, redeem = named or (client_of(engine, str(client_id)), assertions.redeem)
    token.allowed_grant_type(engine, client, assertions.GRANT_TYPE)
    order = redeem(engine, client, parameters)
    for use in () if as_issued else order.uses:
        if is_used(engine, use):
            raise use.refusal
    return {
        "client_id": client.client_id,
        "user": None if order.user is None else order.user.username,
        "is_new": order.joins is not None,
        "scopes": list(order.scopes),
        "resources": list(order.resources),
        **order.noted,
    }


def resource(engine: Engine, client_id: str, *, resources: Sequence[str] = ()) -> tuple[str, ...]:
    """Which of these resources a client may ask for; the default resource if none is named. Raises a Refusal."""
    return allowed_resources(engine, client_of(engine, client_id), resources)


def registered(engine: Engine, resources: Sequence[str] = ()) -> Mapping[str, Any]:
    """Where these resources are registered, as a member `registered`; the default resource if none is named."""
    found = map(engine.resources.find, resources or (None,))
    return {
        "registered": [
            f"{each.uri}: in {', '.join(each.settings) or 'the database'}" for each in found if each
        ]
    }


def consent(
    engine: Engine,
    client_id: str,
    username: str,
    *,
    scopes: Sequence[str] = (),
    resources: Sequence[str] = (),
    redirect_uri: str | None = None,
) -> str:
    """Whether the person would be asked before the client gets a code, as a sentence. Raises a Refusal, and NotFound.

    Args:
        redirect_uri: where the code would go; None for the client's first.
    """
    client, person = client_of(engine, client_id), user_of(engine, username)
    assert person is not None  # a name was given
    token.allowed_grant_type(engine, client, "authorization_code")
    allowed = allowed_resources(engine, client, resources)
    agreement = Agreement(
        client=client,
        user=person,
        scopes=allowed_scopes(engine, client, person, "authorization_code", _scopes(scopes), allowed),
        resources=allowed,
    )
    if not consents_already(engine, agreement):
        return (
            "the person is asked, because no consent policy allows it without a question: consent_remembered would allow what "
            "they agreed to before, consent_first_party an application of your own"
        )
    answered_at = redirect_uri or (client.redirect_uris or ("",))[0]
    if silent_approval_is_safe(client, reaches_client_alone=uris.is_remote_https(answered_at)):
        return "the person is not asked"
    return (
        "the person is asked anyway, because nothing proves the identity of the client: that needs a client "
        "of the operator, confidential or first-party, with an https redirect URI"
    )


def introspection(
    engine: Engine,
    caller_id: str,
    client_id: str,
    *,
    scopes: Sequence[str] = (),
    resources: Sequence[str] = (),
    username: str | None = None,
    kind: TokenKind = TokenKind.ACCESS,
) -> str:
    """Whether a client may introspect a token, of its own or of another client. Raises a Refusal, and NotFound.

    Args:
        caller_id: the client that would call the introspection endpoint.
        client_id: the client to which the token was issued.
        username: the person whose grant it is; None for the client itself.
    """
    caller = client_of(engine, caller_id)
    introspect.refuse_public(caller)
    owner, person = client_of(engine, client_id), user_of(engine, username)
    engine.journal.client_id = caller_id
    read = IntrospectedToken(
        client_id=owner.client_id,
        subject=person.user_id if person else owner.client_id,
        audience=tuple(uris.canonical_resource(text) for text in resources),
        scopes=_scopes(scopes),
        kind=kind,
    )
    reason = introspect.refusal_of(engine, caller, read)
    if reason is not None:
        raise AccessDenied("For this client the token is not active.", reason=reason)
    return "the client may read the token"


def registration(
    engine: Engine,
    metadata: bytes,
    *,
    source: str,
    authorization: str | None = None,
    token_id: str | None = None,
) -> str:
    """The metadata with which a client that sends this JSON would be registered. Raises a Refusal, and NotFound.

    Args:
        source: the network address that the request would come from.
        authorization: the Authorization header that the client would send, if any.
        token_id: the id of the initial access token that the client would use; then the header is not read.
    """
    client_id = digests.new_identifier("client_")
    caller = replace(engine.caller, source=source, authorization=authorization)
    asking = replace(engine, caller=caller)
    if token_id is None:
        held = initial_tokens.presented(asking)
    else:
        held = initial_tokens.usable(asking, _initial_token(engine, token_id))
    sent = read_object(metadata)
    allowed = registration_rules.allowed_metadata(asking, sent, client_id, token=held).metadata
    return (
        f"scopes: {' '.join(allowed.scopes)}; grant types: {' '.join(allowed.grant_types)}; "
        f"authentication: {allowed.token_endpoint_auth_method}; "
        f"redirect URIs: {' '.join(allowed.redirect_uris) or 'none'}"
    )


def _signed_at(text: str) -> datetime | None:
    """The time at which the assertion was signed, as it says itself."""
    try:
        signed = read_jws(text).claims.get("iat")
        return datetime.fromtimestamp(signed, UTC) if type(signed) is int else None
    except (ValueError, OverflowError, OSError):
        return None


def client_of(engine: Engine, client_id: str) -> Client:
    """The client of this id. Raises InvalidClient if there is none, or it is disabled."""
    client = engine.find_client(client_id)
    if client is None or not client.is_enabled:
        reason = "client-disabled" if client else "client-unknown"
        engine.journal.client_id = client_id if client else None
        raise InvalidClient("There is no such client.", reason=reason)
    engine.journal.client_id = client_id
    return client


def user_of(engine: Engine, username: str | None) -> User | None:
    """The person of this name; None for None. Raises NotFound, and InvalidRequest for a person who cannot sign in."""
    if username is None:
        return None
    try:
        user = engine.stores.users.find_by_name(normalise_username(username))
    except BadUsername:
        user = None
    if user is None:
        raise NotFound(f"there is no user {username}; `authserver user list` shows them")
    if not user.is_enabled:
        raise InvalidRequest("This person cannot sign in.", reason="user-disabled")
    return user


def _initial_token(engine: Engine, token_id: str) -> InitialAccessToken:
    known = engine.stores.initial_tokens.find_by_id(token_id)
    if known is not None:
        return known
    raise NotFound(f"there is no initial access token {token_id}; `authserver initial-token list` shows them")


def _scopes(named: Sequence[str]) -> tuple[str, ...]:
    return scope_set(" ".join(named)) if named else ()
