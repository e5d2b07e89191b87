"""Initial access tokens (RFC 7591, 3): the list, a new one, and revocation."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response

from authserver.administration import (
    MAXIMUM_USES,
    BadSearch,
    InitialTokenState,
    make_initial_token,
    policy_names,
    revoke_initial_token,
)
from authserver.api import InitialAccessToken
from authserver.features.console.access import Role
from authserver.features.console.pages import BadInput, Page, Visit

PAGE = 50
# Words and colour of a state.
BADGES: Mapping[InitialTokenState, tuple[str, str]] = {
    InitialTokenState.LIVE: ("can be used", "good"),
    InitialTokenState.USED_UP: ("used up", "quiet"),
    InitialTokenState.EXPIRED: ("expired", "quiet"),
    InitialTokenState.REVOKED: ("revoked", "danger"),
}
# The choices for how long a token can be used: days, and words for the form.
LIFETIMES: Mapping[str, tuple[int, str]] = {
    "1d": (1, "One day"),
    "7d": (7, "Seven days"),
    "30d": (30, "30 days"),
    "90d": (90, "90 days"),
    "365d": (365, "One year"),
}
USUAL = "30d"


def show(visit: Visit) -> Mapping[str, Any]:
    """The initial access tokens, newest first."""
    stored, after = visit.engine.stores.initial_tokens, visit.get("after")
    last = stored.find_by_id(after) if after else None
    if after and last is None:
        raise BadSearch(
            "the token after which this page begins is not stored any more: begin with the first page"
        )
    tokens = stored.page(after=(last.created_at, last.token_id) if last else None, limit=PAGE + 1)
    shown = tokens[:PAGE]
    return {
        "tokens": [(token, *BADGES[token.state(visit.engine.now)]) for token in shown],
        "next": visit.address(visit.page.name, after=shown[-1].token_id) if len(tokens) > PAGE else "",
        "first": visit.address(visit.page.name) if after else "",
        "policies": policy_names(visit.application.parts.policies),
    }


def show_add(visit: Visit) -> Mapping[str, Any]:
    """The form for a new token."""
    policies = policy_names(visit.application.parts.policies)
    return {
        "policies": policies,
        "choices": [(name, name) for name in policies or ()],
        "lifetimes": [(value, words) for value, (_, words) in LIFETIMES.items()],
        "values": {
            "policy": visit.get("policy"),
            "uses": visit.get("uses") or ("" if visit.problem else "1"),
            "expires": visit.get("expires") or USUAL,
            "note": visit.get("note"),
        },
        "unlimited": visit.get("unlimited"),
        "wrong": {visit.wrong: visit.problem},
        "once": visit.new_once(),
    }


def add(visit: Visit) -> Mapping[str, Any]:
    """Make a token, which is shown once."""
    visit.once()
    if visit.get("expires") not in LIFETIMES:
        raise BadInput("There is no such choice: choose one from the form.", "expires")
    days, _ = LIFETIMES[visit.get("expires")]
    token, text = make_initial_token(
        visit.engine,
        policy=visit.get("policy"),
        uses=None if visit.get("unlimited") else _uses(visit.get("uses")),
        expires_at=visit.engine.now + timedelta(days=days),
        note=visit.get("note"),
    )
    return {"token": token, "text": text}


def show_revoke(visit: Visit) -> Mapping[str, Any]:
    """The last step before a token is revoked."""
    return {"token": _token(visit)}


def revoke(visit: Visit) -> Response:
    """Revoke a token, so that no client can register with it."""
    token = _token(visit)
    if not revoke_initial_token(visit.engine, token.token_id):
        raise BadInput("This token is revoked already.")
    return visit.see(
        "admin_initial_tokens", done=f"{token.token_id} is revoked. The clients that it registered stay."
    )


def _token(visit: Visit) -> InitialAccessToken:
    """The token that a page is about. Raises HTTPNotFound."""
    token = visit.engine.stores.initial_tokens.find_by_id(visit.get("initial_token"))
    if token is None:
        raise HTTPNotFound()
    return token


def _uses(text: str) -> int:
    """The number of uses that was typed. Raises BadInput."""
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and 1 <= int(text) <= MAXIMUM_USES):
        raise BadInput(
            f"Write a whole number from 1 to {MAXIMUM_USES:,}, or tick the box for any number.", "uses"
        )
    return int(text)


PAGES = (
    Page(
        name="admin_initial_tokens",
        path="/admin/initial-tokens",
        show=show,
        template="initial_tokens.jinja2",
        below="admin_clients",
    ),
    Page(
        name="admin_initial_token_add",
        path="/admin/initial-tokens/add",
        show=show_add,
        act=add,
        role=Role.ADMINISTER,
        act_role=Role.ADMINISTER,
        template="initial_token_form.jinja2",
        result="initial_token_shown.jinja2",
        below="admin_clients",
    ),
    Page(
        name="admin_initial_token_revoke",
        path="/admin/initial-tokens/revoke",
        show=show_revoke,
        act=revoke,
        role=Role.OPERATE,
        template="initial_token_revoke.jinja2",
        keys=("initial_token",),
        below="admin_clients",
    ),
)
