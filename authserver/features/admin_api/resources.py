"""Resources: the APIs that access tokens may be for (RFC 8707)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from authserver.administration import (
    MAXIMUM_ACCESS_TOKEN_LIFETIME,
    MINIMUM_ACCESS_TOKEN_LIFETIME,
    AccessTokenFormat,
    Act,
    Subject,
    add_resource,
    change_resource,
)
from authserver.api import Engine, InvalidTarget, Parameter, Resource, canonical_resource, did_you_mean
from authserver.features.admin_api import problems
from authserver.features.admin_api.ends import ENDED, carry_out
from authserver.features.admin_api.entries import (
    NULL_OR_TIME,
    Answer,
    Call,
    Entry,
    Sent,
    conflict,
    there,
    write_id,
)
from authserver.features.admin_api.paging import etag_of, gathered

READ, WRITE = "authserver:resources:read", "authserver:resources:write"
SCOPES = {
    READ: "See the APIs that this server issues tokens for",
    WRITE: "Register, change and remove APIs that this server issues tokens for",
}
NULL_OR_TEXTS = {"type": ["array", "null"], "items": {"type": "string"}}

CHANGED: Mapping[str, Parameter] = {
    "name": Parameter(
        description="The name that people see beside the URI.", schema={"type": ["string", "null"]}
    ),
    "scopes": Parameter(
        description="The scopes that its tokens may have; null: every scope.", schema=NULL_OR_TEXTS
    ),
    "token_format": Parameter(
        description="The format of its access tokens; null: that of the settings.",
        schema={"enum": [*map(str, AccessTokenFormat), None]},
    ),
    "token_lifetime": Parameter(
        description="The lifetime of its access tokens in seconds; null: that of the settings.",
        schema={
            "type": ["integer", "null"],
            "minimum": MINIMUM_ACCESS_TOKEN_LIFETIME,
            "maximum": MAXIMUM_ACCESS_TOKEN_LIFETIME,
        },
    ),
    "default": Parameter(
        description="Whether it counts when a request names no resource.",
        schema={"type": ["boolean", "null"]},
    ),
    "introspecting_clients": Parameter(
        description="Clients that may introspect its access tokens.", schema=NULL_OR_TEXTS
    ),
}
SHOWN: Mapping[str, Parameter] = {
    "resource": Parameter(description="The URI, which is the audience of its tokens.", required=True),
    **{name: replace(member, required=True) for name, member in CHANGED.items()},
    "source": Parameter(
        description="The settings that name it; empty: it is in the database, and can be changed here.",
        schema={"type": "array", "items": {"type": "string"}},
        required=True,
    ),
    "created_at": Parameter(description="When it was registered.", schema=NULL_OR_TIME, required=True),
}
DRY_RUN = Parameter(
    description="Whether this was only a count, and nothing changed.",
    schema={"type": "boolean"},
    required=True,
)


def shown(resource: Resource) -> dict[str, Any]:
    """A resource as the API shows it; a member with the default is null."""
    return {
        "resource": resource.uri,
        "name": resource.name,
        "scopes": None if resource.scopes is None else list(resource.scopes),
        "token_format": resource.token_format,
        "token_lifetime": resource.token_lifetime,
        "default": resource.is_default,
        "introspecting_clients": list(resource.introspecting_clients),
        "source": list(resource.settings),
        "created_at": resource.created_at,
    }


def form_of(text: str) -> str | None:
    """The canonical form of a resource; None for a text that cannot be a resource."""
    try:
        return canonical_resource(text)
    except InvalidTarget:
        return None


def find(call: Call) -> Resource:
    """The resource of the address, from the INI or the database. Raises NothingThere."""
    form = form_of(call.named("resource"))
    return there(call.engine.resources.find(form) if form else None)


def find_stored(call: Call) -> Resource:
    """The resource of the address, if it is in the database and can be changed. Raises NothingThere, Problem."""
    found = find(call)
    if not found.is_stored:
        raise conflict(
            f"The INI names it, in {', '.join(found.settings)}, and the INI counts; change it there."
        )
    return found


def list_resources(call: Call) -> Answer:
    """All resources: first those of the INI, then by their URI."""
    resources = call.engine.resources
    return gathered(
        call,
        lambda place, limit: resources.page(after=place[0], limit=limit),
        lambda each: (each.form,),
        shown,
    )


def show(call: Call) -> Answer:
    """One resource, from the INI or the database, with its ETag."""
    record = shown(find(call))
    return Answer(body=record, etag=etag_of(record))


def create(call: Call) -> Answer:
    """Add a resource to the database. Raises Problem if its URI is not valid, or registered already."""
    engine, sent = call.engine, Sent(call.sent)
    uri = sent.text("resource", required=True)
    form = form_of(uri)
    if uri and form is None:
        sent.wrong(
            "resource", "It must be an absolute URI without a fragment, such as https://api.example.com/."
        )
    members = _members(engine, sent)
    sent.end()
    assert form is not None  # or it was refused
    resource = Resource(form=form, uri=uri, created_at=engine.now, **members)
    add_resource(engine, resource)
    record = shown(resource)
    return Answer(body=record, etag=etag_of(record), location=f"/resources/{write_id(uri)}")


def change(call: Call) -> Answer:
    """Change a resource of the database; issued tokens do not change. Raises Problem."""
    engine, before = call.engine, find_stored(call)
    call.is_unchanged(etag_of(shown(before)))
    sent = Sent(call.sent)
    members = _members(engine, sent)
    sent.end()
    after = replace(before, **members)
    if after != before:
        change_resource(engine, before, after)
    record = shown(after)
    return Answer(body=record, etag=etag_of(record))


def _members(engine: Engine, sent: Sent) -> dict[str, Any]:
    """The members of a resource that were sent; null means the default."""
    members: dict[str, Any] = {}
    if "name" in sent:
        members["name"] = sent.text("name").strip()
    if "scopes" in sent:
        scopes = sent.texts("scopes")
        for scope in scopes:
            if scope not in engine.scopes:
                sent.wrong("scopes", f"{scope}: no such scope; {did_you_mean(scope, engine.scopes, '')}")
        members["scopes"] = None if sent.is_null("scopes") else scopes
    if "token_format" in sent:
        text = sent.text("token_format") or None
        if text is not None and text not in list(AccessTokenFormat):
            sent.wrong("token_format", f"It must be {' or '.join(AccessTokenFormat)}, or null.")
        else:
            members["token_format"] = AccessTokenFormat(text) if text else None
    if "token_lifetime" in sent:
        members["token_lifetime"] = sent.number(
            "token_lifetime", None, least=MINIMUM_ACCESS_TOKEN_LIFETIME, most=MAXIMUM_ACCESS_TOKEN_LIFETIME
        )
    if "default" in sent:
        members["is_default"] = sent.flag("default", False)
    if "introspecting_clients" in sent:
        members["introspecting_clients"] = sent.texts("introspecting_clients")
    return members


def remove(call: Call) -> Answer:
    """Remove a resource of the database and end its access; with `dry_run` only count what would end."""
    engine, resource = call.engine, find_stored(call)
    call.is_unchanged(etag_of(shown(resource)))
    dry_run = call.flag("dry_run")
    act = Act(subject=Subject.resource(resource.form, resource.uri), for_good=True)
    done = carry_out(engine, act, dry_run=dry_run)
    return Answer(body={"dry_run": dry_run, "ended": done.shown()})


ENTRIES = (
    Entry(
        method="GET",
        path="/resources",
        scope=READ,
        summary="List all resources, of the INI and of the database.",
        act=list_resources,
        answer=SHOWN,
        listed=True,
        paged=True,
    ),
    Entry(
        method="POST",
        path="/resources",
        scope=WRITE,
        summary="Register a resource.",
        act=create,
        body={
            "resource": Parameter(description="The URI, which is the audience of its tokens.", required=True),
            **CHANGED,
        },
        status=201,
        answer=SHOWN,
    ),
    Entry(
        method="GET",
        path="/resources/{resource}",
        scope=READ,
        summary="Show a resource.",
        act=show,
        answer=SHOWN,
        conditional=True,
    ),
    Entry(
        method="PATCH",
        path="/resources/{resource}",
        scope=WRITE,
        summary="Change a resource of the database (RFC 7396). It counts for the tokens that are issued from now on.",
        act=change,
        body=CHANGED,
        answer=SHOWN,
        problems=(problems.CONFLICT,),
        conditional=True,
    ),
    Entry(
        method="DELETE",
        path="/resources/{resource}",
        scope=WRITE,
        summary="Remove a resource of the database. All that was granted for it ends.",
        act=remove,
        query={
            "dry_run": Parameter(
                description="`true` only counts what would end.", schema={"enum": ["true", "false"]}
            )
        },
        answer={"dry_run": DRY_RUN, "ended": ENDED},
        problems=(problems.CONFLICT,),
        conditional=True,
    ),
)
