"""Add and change clients with one form, by the rules of registration."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response

from authserver.administration import (
    Act,
    AlreadyExists,
    ClientEdit,
    ClientUnchanged,
    ListEdit,
    Subject,
    add_client,
    edit,
    fitting_metadata,
    members,
    read_members,
    value_of,
)
from authserver.api import Client, InvalidClientMetadata
from authserver.features.console import ends
from authserver.features.console.access import Role
from authserver.features.console.clients import KEYS, LINKS, kept_client
from authserver.features.console.pages import Page, Visit
from authserver.limits import MAXIMUM_LOGO, MAXIMUM_LOGO_SIDE
from authserver.web.client_logos import logo_url

# In the form, the names of members that plugins keep begin with this.
MEMBER = "member-"
_TEXTS = ("client_name", "token_endpoint_auth_method", "application_type", *LINKS)
# The words of a message that name a field.
_WORD = re.compile(r"[a-z_]+")


def show_add(visit: Visit) -> Mapping[str, Any]:
    """The empty form."""
    grants = [name for name in ("authorization_code", "refresh_token") if name in visit.engine.grant_types]
    empty = {
        "token_endpoint_auth_method": "client_secret_basic",
        "grant_types": grants,
        "rotates_refresh_tokens": "yes",
    }
    return {**_form(visit, empty, None), "once": visit.new_once()}


def add(visit: Visit) -> Mapping[str, Any] | Response:
    """Add a client; its secret is shown once."""
    visit.once()
    redirect_uris, grant_types = _lines(visit.get("redirect_uris")), visit.all("grant_types")
    method = visit.get("token_endpoint_auth_method")
    metadata = fitting_metadata(
        name=visit.get("client_name") or _missing("client_name", "type the name that people see"),
        redirect_uris=redirect_uris,
        auth_method=method,
        grant_types=grant_types or _missing("grant_types", "select the grant types that it may use"),
        scopes=visit.all("scope"),
        application_type=visit.get("application_type") or None,
        details=_details(visit),
    )
    try:
        client, secret = add_client(
            visit.engine,
            metadata,
            client_id=visit.get("client_id") or None,
            first_party=bool(visit.get("first_party")),
            rotates_refresh_tokens=bool(visit.get("rotates_refresh_tokens")),
        )
    except AlreadyExists:
        raise InvalidClientMetadata(
            "client_id: there is a client with this id, or there was one until recently; choose another."
        ) from None
    if secret is None:
        return visit.see("admin_client", done="The client is added.", client_id=client.client_id)
    return {"client": client, "secret": secret, "heading": "The client is added", "secrets": ()}


def show_edit(visit: Visit) -> Mapping[str, Any]:
    """The form with the present values of the client."""
    client = kept_client(visit)
    details = {name: _text(client.details.get(name)) for name in (*LINKS, *visit.engine.client_metadata)}
    now = {
        **{(name if name in LINKS else f"{MEMBER}{name}"): text for name, text in details.items()},
        "client_name": client.name,
        "redirect_uris": "\n".join(client.redirect_uris),
        "grant_types": client.grant_types,
        "scope": client.scopes,
        "token_endpoint_auth_method": client.auth_method,
        "application_type": client.application_type,
        "first_party": "yes" if client.first_party else "",
        "rotates_refresh_tokens": "yes" if client.rotates_refresh_tokens or client.is_public else "",
    }
    # If somebody changes the client before the form is sent, the form is refused (`version`).
    return {**_form(visit, now, client), "version": version(client)}


def change(visit: Visit) -> Mapping[str, Any] | Response:
    """Change a client; a secret that it needs from now on is shown once."""
    client = kept_client(visit)
    if visit.get("version") != version(client):
        raise ClientUnchanged(
            "Somebody else changed this client after this form was shown, so nothing was changed. Look at the client, "
            "and send this form again if it is still right."
        )
    method = visit.get("token_endpoint_auth_method")
    if method == "none" and not client.is_public and not visit.get("ends"):
        raise InvalidClientMetadata(
            "token_endpoint_auth_method: without a credential, all secrets and grants of this client end: tick the box "
            "below to confirm it."
        )
    wanted = ClientEdit(
        name=visit.get("client_name"),
        redirect_uris=_list_edit(client.redirect_uris, _lines(visit.get("redirect_uris"))),
        grant_types=_list_edit(client.grant_types, visit.all("grant_types")),
        scopes=_list_edit(client.scopes, visit.all("scope")),
        auth_method=method or None,
        application_type=visit.get("application_type") or None,
        first_party=None if client.is_self_registered else bool(visit.get("first_party")),
        rotates_refresh_tokens=bool(visit.get("rotates_refresh_tokens")),
        details=_details(visit),
    )
    edited = edit(visit.engine, client.client_id, wanted)
    done = [
        f"Changed: {', '.join(edited.changed)}."
        if edited.changed
        else "Nothing was changed: it has these values already."
    ]
    if edited.asks_again:
        done.append("People who agreed before are asked again.")
    if edited.revoked:
        done.append(f"Grants that ended: {edited.revoked:,}.")
    if edited.secret is None:
        return visit.see("admin_client", done=" ".join(done), client_id=client.client_id)
    return {
        "client": edited.client,
        "secret": edited.secret,
        "heading": "The client is changed",
        "secrets": (),
        "done": " ".join(done),
    }


def show_logo(visit: Visit) -> Mapping[str, Any]:
    """The present logo of a client, and a form for another one."""
    client = _with_logo(visit)
    return {
        "client": client,
        "logo": logo_url(visit.request, client),
        "wrong": visit.problem,
        "kilobytes": MAXIMUM_LOGO // 1024,
        "side": MAXIMUM_LOGO_SIDE,
    }


def change_logo(visit: Visit) -> Response:
    """Replace or remove the logo of a client."""
    client = _with_logo(visit)
    content = b"" if visit.get("remove") else visit.file("logo")
    if not content and not visit.get("remove"):
        raise InvalidClientMetadata("logo: choose an SVG or PNG file.")
    edit(visit.engine, client.client_id, ClientEdit(logo=content))
    done = "The logo is removed." if visit.get("remove") else "The client has this logo."
    return visit.see("admin_client", done=done, client_id=client.client_id)


def _with_logo(visit: Visit) -> Client:
    """The client that a page is about, if it may have a logo here. Raises HTTPNotFound."""
    client = kept_client(visit)
    if client.is_self_registered:
        raise HTTPNotFound()
    return client


def version(client: Client) -> str:
    """A digest that changes whenever the client does, so that a form that is out of date is noticed."""
    said = json.dumps(members(client), sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _form(visit: Visit, now: Mapping[str, Any], client: Client | None) -> Mapping[str, Any]:
    """The values for the template of the form: the typed ones if the form was refused, otherwise the present ones."""
    engine, is_refused = visit.engine, bool(visit.problem)
    plugins = tuple(name for name in engine.client_metadata if name not in KEYS)
    keys = tuple(name for name in KEYS if name in engine.client_metadata)
    typed = (*_TEXTS, "client_id", "redirect_uris", "first_party", "rotates_refresh_tokens")
    names = (*typed, *(f"{MEMBER}{name}" for name in (*plugins, *keys)))
    values = {name: visit.get(name) if is_refused else now.get(name, "") for name in names}
    ticked = {
        name: visit.all(name) if is_refused else tuple(now.get(name, ())) for name in ("grant_types", "scope")
    }
    method = now["token_endpoint_auth_method"]
    fields = {*_TEXTS, "client_id", "redirect_uris", "grant_types", "scope", *plugins, *keys}
    wrong = next((word for word in _WORD.findall(visit.problem) if word in fields), "")
    asks_to_end = (
        client is not None and not client.is_public and values["token_endpoint_auth_method"] == "none"
    )
    return {
        "client": client,
        "values": values,
        "wrong": {wrong: visit.problem} if wrong else {},
        "methods": [(name, name) for name in dict.fromkeys((*engine.auth_methods, method))],
        "types": [("", "As its redirect URIs say"), ("web", "Web"), ("native", "Native")]
        if client is None
        else [("web", "Web"), ("native", "Native")],
        "grant_types": [
            (
                name,
                "" if name in engine.grant_types else "not offered any more",
                name in ticked["grant_types"],
            )
            for name in dict.fromkeys((*engine.grant_types, *ticked["grant_types"]))
        ],
        "scopes": [
            (name, engine.scopes.get(name, "not offered any more"), name in ticked["scope"])
            for name in dict.fromkeys((*engine.scopes, *ticked["scope"]))
        ],
        "links": LINKS,
        "has_links": any(values[name] for name in LINKS),
        "plugins": plugins,
        "keys": keys,
        "MEMBER": MEMBER,
        "ending": ends.count(visit, Act(subject=Subject.client(client.client_id)))
        if asks_to_end and client
        else None,
    }


def _details(visit: Visit) -> dict[str, Any]:
    """The typed links and members of plugins; None for one that is removed. Raises InvalidClientMetadata."""
    known = visit.engine.client_metadata
    typed = {name: value_of(text) for name in known if (text := visit.get(f"{MEMBER}{name}"))}
    if all(name in typed for name in KEYS):
        raise InvalidClientMetadata("jwks and jwks_uri exclude each other: clear one of them.")
    kept = read_members({name: value for name, value in typed.items() if value is not None}, known)
    return {**{name: kept.get(name) for name in known}, **{name: visit.get(name) or None for name in LINKS}}


def _text(value: object) -> str:
    """A member as a text for the form."""
    if value is None:
        return ""
    if isinstance(value, str) and value_of(value) == value:
        return value
    return json.dumps(value, indent=2 if isinstance(value, dict) else None)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def _list_edit(before: Iterable[str], wanted: tuple[str, ...]) -> ListEdit:
    """The edit that changes a list into the wanted one, which may be empty."""
    before = tuple(before)
    return ListEdit(
        added=tuple(value for value in wanted if value not in before),
        removed=tuple(value for value in before if value not in wanted),
    )


def _missing(name: str, remedy: str) -> Any:
    raise InvalidClientMetadata(f"{name} is missing: {remedy}.")


PAGES = (
    Page(
        name="admin_client_add",
        path="/admin/clients/add",
        show=show_add,
        act=add,
        role=Role.ADMINISTER,
        act_role=Role.ADMINISTER,
        template="client_form.jinja2",
        result="client_secret_shown.jinja2",
        below="admin_clients",
    ),
    Page(
        name="admin_client_edit",
        path="/admin/clients/edit",
        show=show_edit,
        act=change,
        role=Role.ADMINISTER,
        act_role=Role.ADMINISTER,
        template="client_form.jinja2",
        result="client_secret_shown.jinja2",
        keys=("client_id",),
        below="admin_clients",
    ),
    Page(
        name="admin_client_logo",
        path="/admin/clients/logo",
        show=show_logo,
        act=change_logo,
        role=Role.ADMINISTER,
        act_role=Role.ADMINISTER,
        template="client_logo.jinja2",
        keys=("client_id",),
        below="admin_clients",
        files=True,
    ),
)
