"""Limits: shows the limits and their counts, and resets counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from pyramid.response import Response

from authserver.administration import rates
from authserver.api import Usage, network_of
from authserver.features.console.access import Role
from authserver.features.console.pages import BadInput, Page, Visit

# How many counts are shown at most, the fullest first.
MAXIMUM_SHOWN = 200


def show(visit: Visit) -> Mapping[str, Any]:
    """The limits, with counts of half the limit or more; for a search, all counts that match it."""
    found = _limiters(visit)
    wanted = visit.get("who")
    rows, used, unknown = _rows(found), [], ""
    try:
        used = list(rates.usage_of(found, everything=bool(wanted or visit.get("all"))))
    except ValueError as error:
        unknown = str(error)
    if wanted:
        used = [usage for usage in used if _fits(usage, wanted)]
    return {
        "rows": rows,
        "columns": list(dict.fromkeys(name for row in rows for name in row)),
        "has_limiters": bool(found),
        "is_shared": all(limiter.is_shared for limiter in found),
        "used": used[:MAXIMUM_SHOWN],
        "more": len(used[MAXIMUM_SHOWN:]),
        "unknown": unknown,
        "who": wanted,
        "all": bool(visit.get("all")),
    }


def show_lifting(visit: Visit) -> Mapping[str, Any]:
    """How many counts would be reset. Raises BadInput if there is no such limit."""
    found, limit, who = _limiters(visit), visit.get("limit"), visit.get("who")
    row = next((row for row in _rows(found) if row["limit"] == limit), None)
    if row is None:
        raise BadInput("There is no such limit. Choose one in the list of limits.")
    try:
        used = [
            usage
            for usage in rates.usage_of(found, everything=True)
            if usage.limit == limit and who in ("", usage.who)
        ]
    except ValueError as error:
        raise BadInput(str(error)) from None
    return {
        "limit": limit,
        "who": who,
        "row": row,
        "used": used,
        "full": sum(usage.used >= usage.allowed for usage in used),
        "is_shared": all(limiter.is_shared for limiter in found),
    }


def lift(visit: Visit) -> Response:
    """Reset the counts of a limit for one key, or for all. Raises BadInput."""
    limit, who = visit.get("limit"), visit.get("who")
    if visit.get("confirm") != "yes":
        raise BadInput("Nothing was lifted: confirm it with the button.")
    try:
        lifted = rates.lift(visit.engine, _limiters(visit), limit, who or None)
    except ValueError as error:
        raise BadInput(str(error)) from None
    if not lifted:
        raise BadInput("Nothing was lifted: this limit has no counts now.")
    whom = who or ("everybody" if lifted > 1 else "the one who used it")
    return visit.see("admin_limits", done=f"{limit} is lifted for {whom}.")


def _limiters(visit: Visit) -> Sequence[Any]:
    policies = visit.application.parts.policies
    return rates.limiters(map(policies.plugin, policies.names))


def _rows(found: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
    """The rows of the limits. Raises BadInput if a plugin fails."""
    try:
        return rates.table_of(found)
    except ValueError as error:
        raise BadInput(str(error)) from None


def _fits(usage: Usage, wanted: str) -> bool:
    """Whether a count is for this client, person or network address; an address is counted with its network."""
    texts = {wanted.lower()}
    with suppress(ValueError):
        texts.add(str(network_of(str(ip_address(wanted)))).lower())
    return any(text in f"{usage.limit} {usage.who}".lower() for text in texts)


PAGES = (
    Page(name="admin_limits", path="/admin/limits", show=show, template="limits.jinja2", entry="Limits"),
    Page(
        name="admin_limit_lift",
        path="/admin/limits/lift",
        show=show_lifting,
        template="limit_lift.jinja2",
        role=Role.OPERATE,
        act=lift,
        act_role=Role.OPERATE,
        keys=("limit", "who"),
        below="admin_limits",
    ),
)
