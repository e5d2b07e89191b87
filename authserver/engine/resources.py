"""Adds and changes the resources that operators register. `ending` removes one, and ends its grants."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from authserver.engine.context import Engine
from authserver.engine.ports import AlreadyExists
from authserver.engine.printable import is_printable
from authserver.engine.records import NOTHING, Client, EventType, Resource
from authserver.engine.resource_registry import described
from authserver.limits import MAXIMUM_CLIENT_NAME
from authserver.settings import MAXIMUM_ACCESS_TOKEN_LIFETIME

# Seconds; the greatest lifetime is the same as that of all access tokens.
MINIMUM_LIFETIME = 10


class BadResource(Exception):
    """A resource cannot be registered with these values; the message says why.

    Attributes:
        member: the wrong member of `Resource`; "" if it is no single one.
    """

    def __init__(self, sentence: str, member: str = "") -> None:
        super().__init__(sentence)
        self.member = member


def add(engine: Engine, resource: Resource) -> None:
    """Register a resource. Raises BadResource."""
    check(engine, resource)
    try:
        engine.stores.resources.add(resource)
    except AlreadyExists:
        known = engine.stores.resources.find(resource.form)
        raise BadResource(
            f"{resource.uri}: it is registered already, as {known.uri}; change it with `authserver resource edit`"
            if known
            else "another resource became the default meanwhile; see `authserver resource list`"
        ) from None
    engine.resources.look_again()
    engine.record(EventType.RESOURCE_ADDED, details=described(resource))


def change(engine: Engine, before: Resource, after: Resource) -> None:
    """Change a registered resource; `before` is the resource as it was read. Raises BadResource."""
    check(engine, after)
    if not engine.stores.resources.change(before, after):
        raise BadResource(f"{before.uri}: it was changed or removed meanwhile; nothing was changed here")
    engine.resources.look_again()
    changed = {name: {"from": was, "to": now} for name, (was, now) in differences(before, after).items()}
    engine.record(EventType.RESOURCE_CHANGED, details={**described(after), "changed": changed})


def check(
    engine: Engine,
    resource: Resource,
    *,
    clients: Mapping[str, Client | None] = NOTHING,
    freed: Collection[str] = (),
) -> None:
    """Raises BadResource for values that are not allowed.

    Args:
        clients: by id, clients that will be added or changed before the resource is registered.
        freed: the canonical forms of resources that will lose the default before.
    """
    listed = engine.listed_resources.get(resource.form)
    if listed is not None:
        raise BadResource(
            f"{resource.uri}: the INI names it, in {', '.join(listed.settings)}, and what is there counts; change it there",
            "uri",
        )
    if len(resource.name) > MAXIMUM_CLIENT_NAME or not is_printable(resource.name):
        raise BadResource(f"a name has up to {MAXIMUM_CLIENT_NAME} printable characters", "name")
    lifetime = resource.token_lifetime
    if lifetime is not None and not MINIMUM_LIFETIME <= lifetime <= MAXIMUM_ACCESS_TOKEN_LIFETIME:
        raise BadResource(
            f"an access token is valid for {MINIMUM_LIFETIME} to {MAXIMUM_ACCESS_TOKEN_LIFETIME} seconds",
            "token_lifetime",
        )
    unknown = [scope for scope in resource.scopes or () if scope not in engine.scopes]
    if unknown:
        raise BadResource(f"{unknown[0]}: no such scope; list it in authserver.scopes first", "scopes")
    for client_id in resource.introspecting_clients:
        client = clients[client_id] if client_id in clients else engine.find_client(client_id)
        if client is None or not client.is_enabled:
            raise BadResource(
                f"{client_id}: no such client, or it is disabled; see `authserver client list`",
                "introspecting_clients",
            )
        if client.is_public:
            raise BadResource(
                f"{client_id}: a public client may not introspect; it needs a credential",
                "introspecting_clients",
            )
    default = engine.resources.find(None) if resource.is_default else None
    if default is not None and default.form not in (resource.form, *freed):
        where = (
            "with `--no-default`"
            if default.is_stored
            else "in authserver.plugin.resources_listed.default of the INI"
        )
        raise BadResource(
            f"{default.uri} is the default already; take that back first, {where}", "is_default"
        )


def differences(before: Resource, after: Resource) -> Mapping[str, tuple[object, object]]:
    """Each changed member, by its name in `described`: the old and the new value."""
    was, now = described(before), described(after)
    return {name: (was[name], now[name]) for name in now if was[name] != now[name]}
