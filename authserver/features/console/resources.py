"""Resources and scopes: shows where each comes from, and adds, changes and removes resources."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response

from authserver.administration import (
    AccessTokenFormat,
    Act,
    BadResource,
    BadSearch,
    Subject,
    add_resource,
    change_resource,
    length_of,
)
from authserver.api import InvalidTarget, Resource, canonical_resource
from authserver.features.console import ends
from authserver.features.console.access import Role
from authserver.features.console.pages import Page, Visit

PAGE = 50
# Without this plugin the resources of the database have no effect.
POLICY = "resources_registered"


# ---- resources --------------------------------------------------------------------------------------


def show(visit: Visit) -> Mapping[str, Any]:
    """The resources, those of the INI first."""
    after = visit.get("after")
    if after and visit.engine.resources.find(after) is None:
        raise BadSearch(
            "the resource after which this page begins does not exist any more: begin with the first page"
        )
    found = visit.engine.resources.page(after=after, limit=PAGE + 1)
    shown, settings = found[:PAGE], visit.engine.settings
    return {
        "resources": shown,
        "usual": (settings.access_token_format, settings.access_token_lifetime),
        "is_asked": POLICY in visit.application.parts.policies.names,
        "policy": POLICY,
        "next": visit.address(visit.page.name, after=shown[-1].form) if len(found) > PAGE else "",
        "first": visit.address(visit.page.name) if after else "",
    }


def show_add(visit: Visit) -> Mapping[str, Any]:
    """The empty form."""
    return _form(visit, None, {"every_scope": "yes"}, ())


def add(visit: Visit) -> Response:
    """Register a resource."""
    uri = visit.get("uri")
    try:
        form = canonical_resource(uri)
    except InvalidTarget:
        raise BadResource(
            "Write an absolute URI without a fragment, such as https://api.example.com/", "uri"
        ) from None
    new = Resource(form=form, uri=uri, created_at=visit.engine.now, **_members(visit))
    add_resource(visit.engine, new)
    return visit.see("admin_resources", done=f"{uri} is registered.")


def show_edit(visit: Visit) -> Mapping[str, Any]:
    """The form with the present values of the resource."""
    found = _stored(visit)
    now = {
        "uri": found.uri,
        "name": found.name,
        "every_scope": "yes" if found.scopes is None else "",
        "token_format": found.token_format or "",
        "token_lifetime": f"{found.token_lifetime}s" if found.token_lifetime else "",
        "is_default": "yes" if found.is_default else "",
        "introspecting_clients": "\n".join(found.introspecting_clients),
    }
    return {**_form(visit, found, now, found.scopes or ()), "version": _version(found)}


def change(visit: Visit) -> Response:
    """Change a resource; the change counts for tokens that are issued from now on."""
    before = _stored(visit)
    if visit.get("version") != _version(before):
        raise BadResource(
            "Somebody else changed this resource after this form was shown, so nothing was changed. Look at the resource, "
            "and send this form again if it is still right."
        )
    uri = visit.get("uri")
    try:
        is_same = canonical_resource(uri) == before.form
    except InvalidTarget:
        is_same = False
    if not is_same:
        raise BadResource("This is the URI of another resource: add that one, and remove this one", "uri")
    change_resource(visit.engine, before, replace(before, uri=uri, **_members(visit)))
    return visit.see("admin_resources", done=f"{uri} is changed. It counts for the tokens from now on.")


def _form(
    visit: Visit, known: Resource | None, now: Mapping[str, str], scopes: tuple[str, ...]
) -> Mapping[str, Any]:
    """The values for the template of the form: the typed ones if the form was refused, otherwise the present ones."""
    names = (
        "uri",
        "name",
        "every_scope",
        "token_format",
        "token_lifetime",
        "is_default",
        "introspecting_clients",
    )
    ticked = visit.all("scope") if visit.problem else scopes
    return {
        "known": known,
        "values": {name: visit.get(name) if visit.problem else now.get(name, "") for name in names},
        "wrong": {visit.wrong: visit.problem} if visit.wrong else {},
        "formats": [("", "As of all others"), *((str(each), str(each)) for each in AccessTokenFormat)],
        "scopes": [
            (name, visit.engine.scopes.get(name, "not offered any more"), name in ticked)
            for name in dict.fromkeys((*visit.engine.scopes, *ticked))
        ],
    }


def _members(visit: Visit) -> dict[str, Any]:
    """The members of the resource in the form, without its URI. Raises BadResource."""
    scopes, every_scope = visit.all("scope"), bool(visit.get("every_scope"))
    if every_scope and scopes:
        raise BadResource("Tick either every scope, or single scopes", "scopes")
    if not every_scope and not scopes:
        raise BadResource("Tick the scopes that its tokens may have, or every scope", "scopes")
    token_format = visit.get("token_format")
    if token_format not in ("", *map(str, AccessTokenFormat)):
        raise BadResource("There is no such format", "token_format")
    lifetime = None
    if text := visit.get("token_lifetime"):
        length = length_of(text)
        if length is None:
            raise BadResource("Write a duration, such as 90s, 15m or 1h", "token_lifetime")
        lifetime = int(length.total_seconds())
    return {
        "name": visit.get("name"),
        "scopes": None if every_scope else scopes,
        "token_format": AccessTokenFormat(token_format) if token_format else None,
        "token_lifetime": lifetime,
        "is_default": bool(visit.get("is_default")),
        "introspecting_clients": tuple(dict.fromkeys(visit.get("introspecting_clients").split())),
    }


def _stored(visit: Visit) -> Resource:
    """The resource that a page is about, if it is in the database and not in the INI. Raises HTTPNotFound."""
    try:
        found = visit.engine.resources.find(canonical_resource(visit.get("resource")))
    except InvalidTarget:
        found = None
    if found is None or not found.is_stored:
        raise HTTPNotFound()
    return found


def _version(resource: Resource) -> str:
    """A digest of a resource, which tells whether it changed after its form was shown."""
    said = json.dumps([getattr(resource, name) for name in Resource.__slots__], default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


# ---- a resource is removed ---------------------------------------------------------------------------


def show_remove(visit: Visit) -> Mapping[str, Any]:
    """The last step before a resource is removed: how much ends."""
    found = _stored(visit)
    command = f"authserver resource remove --dry-run -- {shlex.quote(found.uri)}"
    return {"resource": found, **ends.told(ends.count(visit, _removal(found)), command=command)}


def remove(visit: Visit) -> Response:
    """Remove a resource, and end what was granted for it."""
    found = _stored(visit)
    amount = ends.carry_out(visit, _removal(found))
    done = f"{found.uri} is removed. {amount.sentences}"
    if not amount.is_whole:
        # Each request would begin with the first grant again; the command has no time limit.
        done += f" There may be more: authserver resource remove -- {shlex.quote(found.uri)} ends all of it."
    return visit.see("admin_resources", done=done)


def _removal(found: Resource) -> Act:
    return Act(subject=Subject.resource(found.form, found.uri), for_good=True)


# ---- scopes -----------------------------------------------------------------------------------------


def show_scopes(visit: Visit) -> Mapping[str, Any]:
    """The scopes with their sentences, and where each one is declared."""
    plugins, settings = visit.application.parts.policies, visit.engine.settings
    adding = [name for name in plugins.names if callable(getattr(plugins.plugin(name), "scopes", None))]
    scopes = [
        (
            name,
            sentence,
            "authserver.scopes"
            if name in settings.scope_sentences
            else f"plugin {' or '.join(adding)}"
            if name in visit.engine.offered.listed_scopes
            else "authserver apply",
            name in settings.hidden_scopes,
        )
        for name, sentence in visit.engine.scopes.items()
    ]
    return {"scopes": scopes}


PAGES = (
    Page(
        name="admin_resources",
        path="/admin/resources",
        show=show,
        template="resources.jinja2",
        entry="Resources",
    ),
    Page(
        name="admin_resource_add",
        path="/admin/resources/add",
        show=show_add,
        act=add,
        role=Role.ADMINISTER,
        act_role=Role.ADMINISTER,
        template="resource_form.jinja2",
        below="admin_resources",
    ),
    Page(
        name="admin_resource_edit",
        path="/admin/resources/edit",
        show=show_edit,
        act=change,
        role=Role.ADMINISTER,
        act_role=Role.ADMINISTER,
        template="resource_form.jinja2",
        keys=("resource",),
        below="admin_resources",
    ),
    Page(
        name="admin_resource_remove",
        path="/admin/resources/remove",
        show=show_remove,
        act=remove,
        role=Role.ADMINISTER,
        act_role=Role.ADMINISTER,
        template="resource_remove.jinja2",
        keys=("resource",),
        below="admin_resources",
    ),
    Page(
        name="admin_scopes", path="/admin/scopes", show=show_scopes, template="scopes.jinja2", entry="Scopes"
    ),
)
