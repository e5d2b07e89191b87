"""Clients: the list with its search, the page of one client, and the page that disables it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response

from authserver.administration import (
    Act,
    BadSearch,
    ClientSecret,
    ClientState,
    EventFilter,
    GrantFilter,
    Subject,
    handle,
    is_address,
    live_secrets,
    needs_secret,
    pin,
    search,
)
from authserver.api import Client, Grant, RegisteredBy
from authserver.features.console import ends
from authserver.features.console.access import Role
from authserver.features.console.pages import Page, Visit
from authserver.web.client_logos import logo_url

PAGE = 50
# How many grants and events the page of a client shows, newest first.
GRANTS = 10
EVENTS = 10
MAXIMUM_TEXT = 200

# The choices of the search: the words of the form, and the arguments for the store.
STATES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "": ("In any state", {}),
    "enabled": ("Enabled", {"enabled": True}),
    "disabled": ("Disabled", {"enabled": False}),
    "unused": ("Enabled, never used", {"enabled": True, "never_used": True}),
}
ORIGINS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "": ("Registered by anybody", {}),
    "operator": ("Registered by an operator", {"registered_by": RegisteredBy.OPERATOR}),
    "self": ("Registered by itself", {"registered_by": RegisteredBy.SELF}),
}
# Words and colour of a state.
BADGES: Mapping[ClientState, tuple[str, str]] = {
    ClientState.NEW: ("never used", "caution"),
    ClientState.USED: ("in use", "good"),
    ClientState.IDLE: ("idle", "quiet"),
    ClientState.GONE: ("disabled", "danger"),
}
LINKS = {"client_uri": "Web site", "policy_uri": "Privacy policy", "tos_uri": "Terms of service"}
KEYS = ("jwks", "jwks_uri")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSecret:
    """A live secret of a client: its handle, its times, and its age in days. The text of the secret cannot be read."""

    secret: ClientSecret
    handle: str
    days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """A grant to the client, with the name of the person; "" for a grant of the client itself."""

    grant: Grant
    username: str


def show(visit: Visit) -> Mapping[str, Any]:
    """The clients that match the search, by id."""
    sent = {name: visit.get(name) for name in ("search", "state", "by")}
    after = visit.get("after")
    found: Sequence[Client] = ()
    problem, status = "", 200
    try:
        found = visit.engine.stores.clients.search(
            visit.engine.now, **_wanted(sent), after=after, limit=PAGE + 1
        )
    except BadSearch as bad:
        problem, status = str(bad), 400
    shown = found[:PAGE]
    return {
        "sent": sent,
        "clients": shown,
        "badges": badges(visit, shown),
        "states": [(value, words) for value, (words, _) in STATES.items()],
        "origins": [(value, words) for value, (words, _) in ORIGINS.items()],
        "next": visit.address(visit.page.name, **sent, after=shown[-1].client_id)
        if len(found) > PAGE
        else "",
        "first": visit.address(visit.page.name, **sent) if after else "",
        "is_search": any(sent.values()),
        "problem": problem,
        "status": status,
    }


def badges(visit: Visit, clients: Sequence[Client]) -> dict[str, tuple[str, str]]:
    """Words and colour of the state of each client, by its id."""
    return {client.client_id: BADGES[client.state(visit.engine.now)] for client in clients}


def client_of(visit: Visit) -> tuple[Client, bool]:
    """The client that a page is about, and whether it is stored here. Raises HTTPNotFound.

    For a client whose id is its address, it raises the same as `Engine.find_client_elsewhere`.
    """
    client_id = visit.get("client_id")
    if (kept := visit.engine.find_kept_client(client_id)) is not None:
        return kept, True
    found = visit.engine.find_client_elsewhere(client_id)
    if found is None:
        raise HTTPNotFound()
    return found, False


def kept_client(visit: Visit) -> Client:
    """The client that a page is about, if it is stored here. Raises HTTPNotFound."""
    client = visit.engine.find_kept_client(visit.get("client_id"))
    if client is None:
        raise HTTPNotFound()
    return client


def show_client(visit: Visit) -> Mapping[str, Any]:
    """One client: its metadata, its rights, its grants and events, its secrets and keys."""
    client, is_kept = client_of(visit)
    engine = visit.engine
    grants, next_grants = _grants(visit, client)
    events = search(engine.stores.events, EventFilter(client_id=client.client_id), limit=EVENTS)
    own = ("jwks", "jwks_uri", *LINKS)
    return {
        "client": client,
        "is_kept": is_kept,
        "badge": BADGES[client.state(engine.now)] if is_kept else ("known by its address", "quiet"),
        "logo": logo_url(visit.request, client),
        "links": [(LINKS[name], client.details[name]) for name in LINKS if name in client.details],
        "more": [(name, value) for name, value in client.details.items() if name not in own],
        "scopes": [(scope, engine.scopes.get(scope)) for scope in client.scopes],
        "resources": [
            (uri, known.name if (known := engine.resources.find(uri)) else "") for uri in client.resources
        ],
        "secrets": shown_secrets(visit, client),
        "has_secrets": is_kept and needs_secret(client.auth_method),
        "keys": json.dumps(client.details["jwks"], indent=2, sort_keys=True)
        if "jwks" in client.details
        else "",
        "keys_address": client.details.get("jwks_uri", ""),
        "grants": grants,
        "next_grants": next_grants,
        "first_grants": visit.address(visit.page.name, client_id=client.client_id)
        if visit.get("grants_after")
        else "",
        "events": events.events,
    }


def shown_secrets(visit: Visit, client: Client) -> list[ShownSecret]:
    """The live secrets of a client, oldest first."""
    now = visit.engine.now
    return [
        ShownSecret(secret=secret, handle=handle(secret), days=(now - secret.created_at).days)
        for secret in live_secrets(client, now)
    ]


def act_on_client(visit: Visit) -> Response:
    """Store a client whose id is its address, as its document describes it now (`client pin`)."""
    client_id = visit.get("client_id")
    if not is_address(client_id):
        raise HTTPNotFound()
    is_new = visit.engine.find_kept_client(client_id) is None
    changed = pin(visit.engine, client_id).changed
    done = (
        "It is stored here now, as its document describes it."
        if is_new
        else "It is stored as its document describes it already."
    )
    if changed:
        done = f"Taken over from its address: {', '.join(changed)}."
    return visit.see("admin_client", done=done, client_id=client_id)


def show_end(visit: Visit) -> Mapping[str, Any]:
    """The last step before a client is disabled: how much ends."""
    client, is_kept = client_of(visit)
    amount = ends.count(visit, _act(client, is_kept))
    command = "client disable" if is_kept else "end client"
    return {
        "client": client,
        "is_kept": is_kept,
        **ends.told(amount, command=f"authserver {command} --dry-run -- {shlex.quote(client.client_id)}"),
    }


def disable(visit: Visit) -> Response:
    """Disable a client for good, and end all its access. If it is not stored here, only its access ends."""
    client, is_kept = client_of(visit)
    amount = ends.carry_out(visit, _act(client, is_kept))
    name = "This client is disabled." if is_kept else ""
    if not amount.is_whole:
        done = f"{name} {amount.sentences} There may be more: continue until nothing is left.".strip()
        return visit.see(visit.page.name, done=done, client_id=client.client_id)
    return visit.see("admin_client", done=f"{name} {amount.sentences}".strip(), client_id=client.client_id)


def _act(client: Client, is_kept: bool) -> Act:
    return Act(subject=Subject.client(client.client_id), for_good=is_kept)


def _wanted(sent: Mapping[str, str]) -> Mapping[str, Any]:
    """The arguments for the search in the store. Raises BadSearch."""
    if len(sent["search"]) > MAXIMUM_TEXT:
        raise BadSearch(
            f"a search may have up to {MAXIMUM_TEXT} characters: search for a part of the name or id"
        )
    if sent["state"] not in STATES or sent["by"] not in ORIGINS:
        raise BadSearch("there is no such choice: choose one from the form")
    return {"text": sent["search"], **STATES[sent["state"]][1], **ORIGINS[sent["by"]][1]}


def _grants(visit: Visit, client: Client) -> tuple[list[Agreed], str]:
    """A page of the live grants to the client, newest first, and the address of the next one. Raises BadSearch."""
    stores, place = visit.engine.stores, None
    if last_id := visit.get("grants_after"):
        last = stores.grants.find(last_id)
        if last is None or last.client_id != client.client_id:
            raise BadSearch(
                "the grant after which this page begins is not stored any more: begin with the first page"
            )
        place = last.created_at, last.grant_id
    wanted = GrantFilter(client_id=client.client_id, live_at=visit.engine.now, redeemed=True)
    found = stores.grants.search(wanted, after=place, limit=GRANTS + 1)
    shown = found[:GRANTS]
    user_ids = sorted({grant.user_id for grant in shown if grant.user_id})
    names = {user.user_id: user.username for user in stores.users.find_all(user_ids)} if user_ids else {}
    agreed = [Agreed(grant=grant, username=names.get(grant.user_id or "", "")) for grant in shown]
    url = (
        visit.address(visit.page.name, client_id=client.client_id, grants_after=shown[-1].grant_id)
        if len(found) > GRANTS
        else ""
    )
    return agreed, url


PAGES = (
    Page(name="admin_clients", path="/admin/clients", show=show, template="clients.jinja2", entry="Clients"),
    Page(
        name="admin_client",
        path="/admin/clients/client",
        show=show_client,
        act=act_on_client,
        act_role=Role.ADMINISTER,
        template="client.jinja2",
        keys=("client_id",),
        below="admin_clients",
    ),
    Page(
        name="admin_client_disable",
        path="/admin/clients/disable",
        show=show_end,
        act=disable,
        role=Role.OPERATE,
        template="client_disable.jinja2",
        keys=("client_id",),
        below="admin_clients",
    ),
)
