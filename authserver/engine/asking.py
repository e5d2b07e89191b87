"""Which scopes and resources a request may have: one filter for every grant type (T081).

The policies answer first; then the floor removes what was not requested, registered or known.
"""

from __future__ import annotations

from collections.abc import Sequence

from authserver.engine import uris
from authserver.engine.context import Engine
from authserver.engine.decisions import Ruling, Verdict
from authserver.engine.errors import InvalidGrant, InvalidScope, InvalidTarget
from authserver.engine.parameters import Parameters, scope_set
from authserver.engine.questions import ResourceQuestion, ScopeQuestion
from authserver.engine.records import Client, FoundToken, User
from authserver.limits import MAXIMUM_RESOURCES

# If this scope exists, it decides whether a client gets refresh tokens.
OFFLINE_ACCESS = "offline_access"


def requested_scopes(parameters: Parameters) -> tuple[str, ...]:
    """The scopes that a request names, in order; empty when it names none. Raises InvalidScope."""
    text = parameters.get("scope")
    return scope_set(text) if text else ()


def allowed_scopes(
    engine: Engine,
    client: Client,
    user: User | None,
    grant_type: str,
    requested: tuple[str, ...],
    resources: tuple[str, ...],
) -> tuple[str, ...]:
    """The scopes that policies and floor allow, in the order of the request.

    Raises:
        InvalidScope: a policy refuses, nobody allows, or nothing is left.
    """
    ruling = engine.ask(
        ScopeQuestion(
            client=client,
            user=user,
            grant_type=grant_type,
            requested=requested,
            resources=resources,
            registered=engine.resources.of(resources),
        )
    )
    if not requested and ruling.verdict is Verdict.SILENT:
        raise InvalidScope(
            "The request names no scope: the parameter scope is required.", reason=ruling.reason
        )
    if not ruling.allowed:
        raise InvalidScope("The requested scope is not allowed.", reason=ruling.reason)
    ceiling = requested or client.scopes
    known = engine.scopes
    scopes = tuple(
        scope
        for scope in dict.fromkeys(ruling.allowed_value)
        if scope in ceiling and scope in client.scopes and scope in known
    )
    if not scopes:
        raise InvalidScope("No scope is left that this client may have.", reason="nothing-left")
    return scopes


def allowed_resources(engine: Engine, client: Client, requested: Sequence[str]) -> tuple[str, ...]:
    """The canonical resources of a request; the default one when it names none (RFC 8707, 2).

    Raises:
        InvalidTarget: malformed, unknown, not for this client, or no default.
        ServerError: a policy failed, or its value is not a resource.
    """
    if len(requested) > MAXIMUM_RESOURCES:
        raise InvalidTarget("Too many resources.", reason="too-many-resources")
    allowed = []
    canonical: list[str | None] = [uris.canonical_resource(text) for text in requested]
    for resource in canonical or [None]:
        ruling = _ask_about(engine, client, resource)
        if not ruling.allowed:
            raise _refused_target(resource, reason=ruling.reason)
        allowed.append(_registered(client, resource, ruling.allowed_value))
    return tuple(dict.fromkeys(allowed))


def _ask_about(engine: Engine, client: Client, resource: str | None) -> Ruling[str]:
    """The ruling on whether the client may ask for this resource; an allowed value names the same resource."""
    ruling = engine.ask(
        ResourceQuestion(client=client, resource=resource, registered=engine.resources.find(resource))
    )
    if ruling.allowed:
        value = ruling.allowed_value
        if value != resource and not _is_resource(value):
            raise engine.wrong_value(ruling)
        if resource is not None and not _is_same_resource(value, resource):
            raise engine.wrong_value(ruling)
    return ruling


def _registered(client: Client, resource: str | None, value: str) -> str:
    """The resource as it is registered now, if the client may ask for it, even if its spelling has changed."""
    if client.resources and uris.resource_form(value) not in map(uris.resource_form, client.resources):
        raise _refused_target(resource, reason="resource-not-registered")
    return value


def _refused_target(resource: str | None, *, reason: str) -> InvalidTarget:
    """The refusal; a client that named no resource is told that it must name one."""
    if resource is None:
        return InvalidTarget(
            "The request names no resource: the parameter resource is required.", reason=reason
        )
    return InvalidTarget("The requested resource is not allowed.", reason=reason)


def _is_same_resource(value: str, requested: str) -> bool:
    """A policy may return the operator's spelling of the resource, but not another resource (E-15)."""
    try:
        return uris.canonical_resource(value) == requested
    except InvalidTarget:
        return False


def still_registered(client: Client, granted: tuple[str, ...]) -> tuple[str, ...]:
    """The granted scopes for which the client is still registered; others were removed from it since then (T041).

    Raises:
        InvalidScope: none is left.
    """
    left = tuple(scope for scope in granted if scope in client.scopes)
    if not left:
        raise InvalidScope("No scope is left that this client may have.", reason="nothing-left")
    return left


def may_refresh(engine: Engine, client: Client, granted: tuple[str, ...]) -> bool:
    """Whether a refresh token is issued with what was granted (I-01)."""
    if "refresh_token" not in client.grant_types or "refresh_token" not in engine.grant_types:
        return False
    return OFFLINE_ACCESS not in engine.scopes or OFFLINE_ACCESS in granted


def narrower_resources(requested: Sequence[str], granted: tuple[str, ...]) -> tuple[str, ...]:
    """The granted resources that a token request names; all of them when it names none (RFC 8707, 2.2).

    Raises:
        InvalidTarget: one was not granted.
    """
    if not requested:
        return granted
    by_form = {uris.canonical_resource(resource): resource for resource in granted}
    named = [by_form.get(uris.canonical_resource(text)) for text in requested]
    if None in named:
        raise InvalidTarget("The requested resource was not granted.", reason="resource-not-granted")
    return tuple(dict.fromkeys(resource for resource in named if resource is not None))


def remaining_resources(
    engine: Engine, client: Client, found: FoundToken, narrowed: tuple[str, ...], *, named: bool
) -> tuple[str, ...]:
    """The granted resources that may still be used, as they are registered now (I-16, I-17, T041).

    A resource does not count any more when its grant has lost it, or when no policy knows it.

    Args:
        found: the code or refresh token.
        narrowed: those of its resources that the request is for (`narrower_resources`).
        named: whether the request names them; otherwise those that do not count any more are left out.

    Raises:
        InvalidGrant: none of the granted ones exists any more; the user must authorize again.
        InvalidTarget: one that is named does not count any more, or a policy refuses one now.
    """
    of_grant = set(map(uris.resource_form, found.grant.resources))
    remaining: dict[str, str] = {}
    for resource in found.token.resources:
        form = uris.resource_form(resource)
        if form not in of_grant:
            continue
        if not _is_resource(resource):  # of a plugin's own grant type
            remaining[resource] = resource
            continue
        ruling = _ask_about(engine, client, form)
        if ruling.verdict is Verdict.SILENT:
            continue
        if resource not in narrowed:
            remaining[resource] = resource
        elif ruling.allowed:
            remaining[resource] = _registered(client, form, ruling.allowed_value)
        else:
            raise _refused_target(form, reason=ruling.reason)
    if found.token.resources and not remaining:
        raise InvalidGrant("The resource of the grant does not exist any more.", reason="resource-gone")
    if named and any(resource not in remaining for resource in narrowed):
        raise InvalidTarget("The requested resource was not granted.", reason="resource-gone")
    return tuple(remaining[resource] for resource in narrowed if resource in remaining)


def _is_resource(text: str) -> bool:
    try:
        uris.canonical_resource(text)
    except InvalidTarget:
        return False
    return True
