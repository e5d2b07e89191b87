"""The resources that operators register: added, changed, and removed with everything that hangs on them (L-08)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from authserver.engine import uris
from authserver.engine.context import Engine
from authserver.engine.ports import AlreadyExists
from authserver.engine.printable import is_printable
from authserver.engine.records import Consent, EventType, Grant, Resource, Token
from authserver.limits import MAXIMUM_CLIENT_NAME
from authserver.settings import AccessTokenFormat

REASON = "resource-removed"
# At most this many grants or consents are looked at in one transaction, so that none takes long.
BATCH = 1000
# Of the access tokens for a resource, in seconds.
MINIMUM_LIFETIME = 10

# An engine in a transaction of its own.
Begin = Callable[[], AbstractContextManager[Engine]]


class BadResource(Exception):
    """What keeps a resource from being registered so, as a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How much ended, or would end, with a resource.

    Attributes:
        grants: those whose only resource it is; with them all their codes and tokens.
        narrowed_grants: those that keep other resources.
        access_tokens: those for it that are kept because they are opaque.
        consents: those remembered for it alone, so that the person is asked again.
        narrowed_consents: those remembered for other resources, too.
    """

    grants: int = 0
    narrowed_grants: int = 0
    access_tokens: int = 0
    consents: int = 0
    narrowed_consents: int = 0

    def __add__(self, other: Ended) -> Ended:
        return Ended(
            **{item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(Ended)}
        )

    def __bool__(self) -> bool:
        return any(getattr(self, item.name) for item in fields(Ended))


def add(engine: Engine, resource: Resource) -> None:
    """Register a resource. Raises BadResource."""
    _check(engine, resource)
    try:
        engine.stores.resources.add(resource)
    except AlreadyExists:
        known = engine.stores.resources.find(resource.form)
        raise BadResource(
            f"{resource.uri}: it is registered already, as {known.uri}; change it with `authserver resource edit`"
            if known
            else "another resource became the default meanwhile; see `authserver resource list`"
        ) from None
    engine.record(EventType.RESOURCE_ADDED, details=described(resource))


def change(engine: Engine, before: Resource, after: Resource) -> None:
    """Change a registered resource, which `before` is as it was read. Raises BadResource."""
    _check(engine, after)
    if not engine.stores.resources.change(before, after):
        raise BadResource(f"{before.uri}: it was changed or removed meanwhile; nothing was changed here")
    old, new = described(before), described(after)
    changed = sorted(name for name in new if new[name] != old[name])
    engine.record(EventType.RESOURCE_CHANGED, details={**new, "changed": changed})


def remove(engine: Engine, resource: Resource) -> None:
    """Remove it from the database: from now on nothing is issued for it. `end_all` ends what was issued."""
    if engine.stores.resources.remove(resource.form):
        engine.record(EventType.RESOURCE_REMOVED, details={"resource": resource.uri})


def end_all(begin: Begin, form: str, *, dry_run: bool = False) -> Iterator[Ended]:
    """End what was granted for a resource, a batch in each transaction; how much ended in each.

    It can be run again after an interruption.

    Args:
        form: the canonical form of the resource.
        dry_run: only count.
    """
    last = ""
    while True:
        with begin() as engine:
            grants = engine.stores.grants.page(after=last, limit=BATCH)
            ended = _end_grants(engine, grants, form, dry_run=dry_run)
        if not grants:
            break
        last = grants[-1].grant_id
        yield ended
    after = ("", "")
    while True:
        with begin() as engine:
            consents = engine.stores.consents.page(after=after, limit=BATCH)
            ended = _end_consents(engine, consents, form, dry_run=dry_run)
        if not consents:
            return
        after = (consents[-1].user_id, consents[-1].client_id)
        yield ended


def record_end(engine: Engine, resource: str, ended: Ended) -> None:
    """Write the events of what ended with a resource."""
    if ended.grants or ended.narrowed_grants:
        engine.record(
            EventType.GRANTS_REVOKED,
            reason=REASON,
            details={
                "resource": resource,
                "grants": ended.grants,
                "narrowed_grants": ended.narrowed_grants,
                "access_tokens": ended.access_tokens,
            },
        )
    if ended.consents or ended.narrowed_consents:
        engine.record(
            EventType.CONSENT_ENDED,
            reason=REASON,
            details={
                "resource": resource,
                "consents": ended.consents,
                "narrowed_consents": ended.narrowed_consents,
            },
        )


def last_jwt_until(engine: Engine, resource: Resource | None) -> datetime | None:
    """Until when JWTs for it may be valid that were issued under the present settings; None if there can be none.

    A JWT is not kept, so whoever does not introspect it accepts it until it expires.
    """
    settings = engine.settings
    token_format = (resource and resource.token_format) or settings.access_token_format
    lifetime = (resource and resource.token_lifetime) or settings.access_token_lifetime
    forms = [(token_format, lifetime)] + [
        (form.token_format or token_format, form.token_lifetime or lifetime)
        for form in engine.client_forms.values()
    ]
    jwt = [seconds for each, seconds in forms if each is AccessTokenFormat.JWT]
    return engine.now + timedelta(seconds=max(jwt)) if jwt else None


def _check(engine: Engine, resource: Resource) -> None:
    """Raises BadResource for what cannot be registered so."""
    listed = engine.listed_resources.get(resource.form)
    if listed is not None:
        raise BadResource(
            f"{resource.uri}: the INI names it, in {', '.join(listed.settings)}, and what is there counts; change it there"
        )
    if len(resource.name) > MAXIMUM_CLIENT_NAME or not is_printable(resource.name):
        raise BadResource(f"a name has up to {MAXIMUM_CLIENT_NAME} printable characters")
    unknown = [scope for scope in resource.scopes or () if scope not in engine.scopes]
    if unknown:
        raise BadResource(f"{unknown[0]}: no such scope; list it in authserver.scopes first")
    for client_id in resource.introspecting_clients:
        client = engine.find_client(client_id)
        if client is None or not client.is_enabled:
            raise BadResource(f"{client_id}: no such client, or it is disabled; see `authserver client list`")
        if client.is_public:
            raise BadResource(f"{client_id}: a public client may not introspect; it needs a credential")
    default = engine.resources.find(None) if resource.is_default else None
    if default is not None and default.form != resource.form:
        where = (
            "with `--no-default`"
            if default.is_stored
            else "in authserver.plugin.resources_listed.default of the INI"
        )
        raise BadResource(f"{default.uri} is the default already; take that back first, {where}")


def described(resource: Resource) -> dict[str, object]:
    """What an event says of it."""
    return {
        "resource": resource.uri,
        "name": resource.name,
        "scopes": None if resource.scopes is None else list(resource.scopes),
        "token_format": resource.token_format,
        "token_lifetime": resource.token_lifetime,
        "is_default": resource.is_default,
        "introspecting_clients": list(resource.introspecting_clients),
    }


def _end_grants(engine: Engine, page: Sequence[Grant], form: str, *, dry_run: bool) -> Ended:
    affected = [grant for grant in page if _is_live(engine, grant) and _is_for(grant, form)]
    if not affected:
        return Ended()
    kept = engine.stores.tokens.access_tokens([grant.grant_id for grant in affected], engine.now)
    changed = [grant for grant in affected if dry_run or _end_grant(engine, grant, form)]
    narrowed = sum(bool(_others(grant, form)) for grant in changed)
    return Ended(
        grants=len(changed) - narrowed,
        narrowed_grants=narrowed,
        access_tokens=sum(_is_for(token, form) for token in kept),
    )


def _end_grant(engine: Engine, grant: Grant, form: str) -> bool:
    """Take the resource from a grant, or end it if it has no other one; whether that was done."""
    grants, others = engine.stores.grants, _others(grant, form)
    if not others:
        return grants.revoke(grant.grant_id, engine.now, REASON)
    if grants.narrow(grant, others):
        return True
    # Somebody changed it meanwhile: it has fewer resources now, perhaps this one alone.
    again = grants.find(grant.grant_id)
    if again is None or again == grant or again.revoked_at is not None or not _is_for(again, form):
        return False
    return _end_grant(engine, again, form)


def _end_consents(engine: Engine, page: Sequence[Consent], form: str, *, dry_run: bool) -> Ended:
    changed = [
        consent
        for consent in page
        if _is_for(consent, form) and (dry_run or _end_consent(engine, consent, form))
    ]
    narrowed = sum(bool(_others(consent, form)) for consent in changed)
    return Ended(consents=len(changed) - narrowed, narrowed_consents=narrowed)


def _end_consent(engine: Engine, consent: Consent, form: str) -> bool:
    """Take the resource from what somebody agreed to; whether that was done."""
    consents = engine.stores.consents
    if consents.narrow(consent, _others(consent, form)):
        return True
    # It was agreed to anew meanwhile, perhaps just before the resource was removed.
    again = consents.find(consent.user_id, consent.client_id)
    return again is not None and _is_for(again, form) and consents.narrow(again, _others(again, form))


def _is_live(engine: Engine, grant: Grant) -> bool:
    return grant.revoked_at is None and grant.expires_at > engine.now


def _is_for(record: Grant | Token | Consent, form: str) -> bool:
    return any(uris.resource_form(resource) == form for resource in record.resources)


def _others(record: Grant | Token | Consent, form: str) -> tuple[str, ...]:
    return tuple(resource for resource in record.resources if uris.resource_form(resource) != form)
