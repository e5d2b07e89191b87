"""The secrets of a client: makes a new one, which is shown once, and ends one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response

from authserver.administration import (
    SecretsUnchanged,
    TwoLiveSecrets,
    end_secret,
    needs_secret,
    rotate_secret,
)
from authserver.api import Client
from authserver.features.console.access import Role
from authserver.features.console.clients import kept_client, shown_secrets
from authserver.features.console.pages import BadInput, Page, Visit

# The choices for how long the present secrets are still accepted: seconds, and words for the form.
OVERLAPS: Mapping[str, tuple[int, str]] = {
    "1h": (3_600, "for one hour"),
    "24h": (86_400, "for 24 hours"),
    "7d": (604_800, "for seven days"),
    "30d": (2_592_000, "for 30 days"),
    "0": (0, "not any more: they end at once"),
}
USUAL = "24h"


def show_new(visit: Visit) -> Mapping[str, Any]:
    """The live secrets, and how long they are accepted beside a new one."""
    client = _client(visit)
    return {
        "client": client,
        "secrets": shown_secrets(visit, client),
        "overlaps": [(value, words) for value, (_, words) in OVERLAPS.items()],
        "overlap": visit.get("overlap") or USUAL,
        "once": visit.new_once(),
    }


def make(visit: Visit) -> Mapping[str, Any]:
    """Give a client a new secret, which is shown once."""
    client = _client(visit)
    visit.once()
    if visit.get("overlap") not in OVERLAPS:
        raise BadInput("There is no such choice: choose one from the form.", "overlap")
    seconds, _ = OVERLAPS[visit.get("overlap")]
    try:
        secret = rotate_secret(visit.engine, client.client_id, timedelta(seconds=seconds))
    except TwoLiveSecrets:
        raise SecretsUnchanged(
            "It has two live secrets already: end one of them first, or let both end at once."
        ) from None
    return {
        "client": client,
        "secret": secret,
        "heading": "A new secret",
        "secrets": shown_secrets(visit, kept_client(visit)),
    }


def show_end(visit: Visit) -> Mapping[str, Any]:
    """The last step before a secret ends: when it was last used, and how many secrets are left."""
    client, named = _client(visit), visit.get("secret")
    secrets = shown_secrets(visit, client)
    found = next((each for each in secrets if each.handle == named), None)
    if found is None:
        raise HTTPNotFound()
    return {"client": client, "secret": found, "left": len(secrets) - 1}


def end(visit: Visit) -> Response:
    """End a secret from the next request on; the last one only if the form says so."""
    client, named = _client(visit), visit.get("secret")
    if named not in {each.handle for each in shown_secrets(visit, client)}:
        raise SecretsUnchanged("This secret has ended already.")
    end_secret(visit.engine, client.client_id, named, last_too=visit.get("last") == "yes")
    return visit.see("admin_client", done=f"The secret {named} has ended.", client_id=client.client_id)


def _client(visit: Visit) -> Client:
    """The client that a page is about, if it has secrets. Raises HTTPNotFound."""
    client = kept_client(visit)
    if not needs_secret(client.auth_method):
        raise HTTPNotFound()
    return client


PAGES = (
    Page(
        name="admin_client_secret",
        path="/admin/clients/secret",
        show=show_new,
        act=make,
        role=Role.ADMINISTER,
        act_role=Role.ADMINISTER,
        template="client_secret.jinja2",
        result="client_secret_shown.jinja2",
        keys=("client_id",),
        below="admin_clients",
    ),
    Page(
        name="admin_client_secret_end",
        path="/admin/clients/secret/end",
        show=show_end,
        act=end,
        role=Role.OPERATE,
        template="client_secret_end.jinja2",
        keys=("client_id", "secret"),
        below="admin_clients",
    ),
)
