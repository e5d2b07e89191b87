"""Grants: the list, one grant with its codes and tokens, and its revocation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response

from authserver.administration import (
    AccessTokenFormat,
    BadSearch,
    EventFilter,
    EventType,
    GrantFilter,
    ancestors,
    cursor_at,
    grant_plan,
    let_in_by,
    place_of,
    revoke_grant,
)
from authserver.api import ON_ANOTHER_DEVICE, Grant, Token, actors_of
from authserver.features.console.access import Role
from authserver.features.console.finding import names_of, user_id_of
from authserver.features.console.pages import Page, Visit
from authserver.features.console.people import listed

PAGE = 50
# How many tokens and events of a grant are shown.
MAXIMUM_TOKENS = 50
MAXIMUM_EVENTS = 10
# How many derived grants of a grant are shown.
MAXIMUM_DERIVED = 50
_FIELDS = ("client", "user", "state")
# The value of `state` for all grants, live or not.
ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A grant of the list, with the names of client and person."""

    grant: Grant
    state: str
    client_name: str
    username: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownToken:
    """A code or token of a grant, with a word for whether it can be used."""

    token: Token
    state: str


def show_grants(visit: Visit) -> Mapping[str, Any]:
    """A page of the grants that fit the search, newest first."""
    sent = {name: visit.get(name) for name in _FIELDS}
    rows: list[Row] = []
    after, problem = visit.get("after"), ""
    url = ""
    try:
        wanted = GrantFilter(
            client_id=sent["client"] or None,
            user_id=user_id_of(visit, sent["user"]) if sent["user"] else None,
            live_at=None if sent["state"] == ALL else visit.engine.now,
            redeemed=sent["state"] != ALL,
        )
        place = place_of(after) if after else None
    except BadSearch as bad:
        problem = str(bad)
    else:
        # One grant more than is shown tells whether there is another page.
        found = visit.engine.stores.grants.search(wanted, after=place, limit=PAGE + 1)
        rows = _rows(visit, found[:PAGE])
        if len(found) > PAGE:
            last = found[PAGE - 1]
            url = visit.address("admin_grants", **sent, after=cursor_at(last.created_at, last.grant_id))
    return {
        "sent": sent,
        "states": [("", "Live"), (ALL, "Live or not")],
        "rows": rows,
        "next": url,
        "first": visit.address("admin_grants", **sent) if after else "",
        "problem": problem,
        "status": 400 if problem else 200,
    }


def show_grant(visit: Visit) -> Mapping[str, Any]:
    """One grant: what was agreed, when, by whom and for which client, and all its codes and tokens."""
    grant, stores = _this(visit), visit.engine.stores
    (row,) = _rows(visit, [grant])
    return {
        "grant": grant,
        "row": row,
        "is_live": _is_live(visit, grant),
        "let_in_by": let_in_by(grant),
        "is_device": ON_ANOTHER_DEVICE in grant.details,
        "ancestors": _rows(visit, ancestors(visit.engine, grant)),
        "derived": _rows(visit, stores.grants.derived([grant.grant_id], visit.engine.now)[:MAXIMUM_DERIVED]),
        "most_derived": MAXIMUM_DERIVED,
        "actors": actors_of(grant.details.get("act")),
        "signed_in_at": _signed_in(grant),
        "methods": grant.details.get("amr", ()),
        "tokens": [
            ShownToken(token=token, state=_state_of_token(visit, grant, token))
            for token in stores.tokens.newest(grant.grant_id, limit=MAXIMUM_TOKENS)
        ],
        "most_tokens": MAXIMUM_TOKENS,
        "jwt_until": _jwt_until(visit, grant),
        "events": stores.events.search(EventFilter(grant_id=grant.grant_id), limit=MAXIMUM_EVENTS),
    }


def show_revoke(visit: Visit) -> Mapping[str, Any]:
    """The last step before a grant is revoked: what ends with it."""
    grant = _this(visit)
    (row,) = _rows(visit, [grant])
    return {
        "grant": grant,
        "row": row,
        "ends": grant_plan(visit.engine, grant).told,
        "jwt_until": _jwt_until(visit, grant),
    }


def revoke(visit: Visit) -> Response:
    """Revoke the grant of the page and go to its page, which says what ended."""
    grant = _this(visit)
    told = revoke_grant(visit.engine, grant.grant_id).told
    done = f"Ended: {listed(told)}." if told else "This grant had ended already."
    return visit.see("admin_grant", done=done, grant_id=grant.grant_id)


def _this(visit: Visit) -> Grant:
    """The grant that a page is about. Raises HTTPNotFound."""
    grant = visit.engine.stores.grants.find(visit.get("grant_id"))
    if grant is None:
        raise HTTPNotFound()
    return grant


def _rows(visit: Visit, grants: Sequence[Grant]) -> list[Row]:
    clients, people = names_of(
        visit, (grant.client_id for grant in grants), (grant.user_id for grant in grants)
    )
    return [
        Row(
            grant=grant,
            state=_state(visit, grant),
            client_name=clients.get(grant.client_id, ""),
            username=people.get(grant.user_id or "", grant.user_id or ""),
        )
        for grant in grants
    ]


def _is_live(visit: Visit, grant: Grant) -> bool:
    return grant.revoked_at is None and grant.expires_at > visit.engine.now


def _state(visit: Visit, grant: Grant) -> str:
    if grant.revoked_at is not None:
        return "revoked"
    return "live" if _is_live(visit, grant) else "expired"


def _state_of_token(visit: Visit, grant: Grant, token: Token) -> str:
    if token.claimed_at is not None:
        return "used"
    if token.expires_at <= visit.engine.now:
        return "expired"
    return "usable" if _is_live(visit, grant) else "ended with the grant"


def _signed_in(grant: Grant) -> datetime | None:
    """When the user who agreed signed in; None if that was not stored."""
    at = grant.details.get("auth_time")
    return datetime.fromtimestamp(at, UTC) if isinstance(at, int) else None


def _jwt_until(visit: Visit, grant: Grant) -> datetime | None:
    """Until when the newest JWT of a grant may be valid, by the present settings; None if no JWT is valid."""
    wanted = EventFilter(grant_id=grant.grant_id, types=frozenset({EventType.TOKEN_ISSUED}))
    for event in visit.engine.stores.events.search(wanted, limit=1):
        resources = event.details.get("resources", ())
        token_format, lifetime = visit.engine.token_form_of(grant.client_id, resources)
        until = event.at + lifetime
        if token_format is AccessTokenFormat.JWT and until > visit.engine.now:
            return until
    return None


PAGES = (
    Page(
        name="admin_grants", path="/admin/grants", show=show_grants, template="grants.jinja2", entry="Grants"
    ),
    Page(
        name="admin_grant",
        path="/admin/grants/grant",
        show=show_grant,
        template="grant.jinja2",
        keys=("grant_id",),
        below="admin_grants",
    ),
    Page(
        name="admin_grant_revoke",
        path="/admin/grants/revoke",
        show=show_revoke,
        template="grant_revoke.jinja2",
        role=Role.OPERATE,
        act=revoke,
        keys=("grant_id",),
        below="admin_grants",
    ),
)
