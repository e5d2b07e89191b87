"""The account page with the claims about the person that applications may get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyramid.response import Response

from authserver.administration import ConnectedApp, connected_apps
from authserver.api import Client, Request, Route, User, account_page, see_login
from authserver.api import translatable as _
from authserver.features.openid.claims import VERIFIED, of_person

ROUTE = Route(
    "account_shared",
    "/account/shared",
    ("GET",),
    personal=True,
    purpose=_("to look after your account"),
)
TAB = _("What is shared")
TEMPLATE = "authserver.features.openid:templates/shared.jinja2"
# The labels of claims; a claim without a label is shown by its name.
LABELS: Mapping[str, str] = {
    "name": _("Name"),
    "family_name": _("Family name"),
    "given_name": _("Given name"),
    "middle_name": _("Middle name"),
    "nickname": _("Nickname"),
    "preferred_username": _("User name"),
    "profile": _("Profile page"),
    "picture": _("Picture"),
    "website": _("Website"),
    "gender": _("Gender"),
    "birthdate": _("Date of birth"),
    "zoneinfo": _("Time zone"),
    "locale": _("Language"),
    "email": _("E-mail address"),
    "address": _("Postal address"),
    "phone_number": _("Phone number"),
    "groups": _("Groups"),
}


def show(request: Request, attributes: Mapping[str, str]) -> Response:
    """GET /account/shared.

    Args:
        attributes: by claim, the attribute that it comes from, if that has another name.
    """
    user = request.browser.user
    if user is None:
        return see_login(request, page=ROUTE.name)
    apps = [_app(request, user, app, attributes) for app in connected_apps(request.engine, user)]
    return account_page(request, TEMPLATE, apps=[app for app in apps if app["facts"]])


def _app(request: Request, user: User, app: ConnectedApp, attributes: Mapping[str, str]) -> dict[str, Any]:
    client: Client | None = app.client
    scopes = tuple(dict.fromkeys((*app.scopes, *app.remembered_scopes)))
    facts = {} if client is None else of_person(request.engine, client, user, scopes, attributes)
    return {"name": client.name[:100] if client else app.client_id, "facts": _facts(facts)}


def _facts(claims: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Claims for people: a label, the value as a text, and whether it was verified, if that is stated."""
    verified = {of: claims.get(name) for name, of in VERIFIED.items()}
    return [
        {"label": LABELS.get(name, name), "value": _text(value), "verified": verified.get(name)}
        for name, value in claims.items()
        if name not in VERIFIED
    ]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(map(str, value.values()))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
