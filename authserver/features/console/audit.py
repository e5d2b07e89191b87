"""The search in the events, and the page of one event with every check behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pyramid.httpexceptions import HTTPNotFound

from authserver.administration import (
    REFUSALS,
    BadMoment,
    BadSearch,
    EventFilter,
    EventType,
    find,
    moment_of,
    search,
    source_of,
    types_of,
)
from authserver.api import Event
from authserver.explaining.explain import explain_event
from authserver.features.console.checks import outcome_of, told_check
from authserver.features.console.finding import names_of, user_id_of
from authserver.features.console.pages import Page, Visit

PAGE = 50
# The value of `event` for all refusals together.
REFUSED = "refused"
# The time before and after an event in which other events count as happening at the same time.
_AROUND = timedelta(minutes=5)
# The parameters of a search, in the order of the form.
_FIELDS = ("client", "user", "event", "since", "until", "reason", "actor", "source", "grant", "error_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An event of the list, with the names of its client and person; an actor that is one of them is not repeated."""

    event: Event
    actor: str
    client_name: str
    username: str


def show(visit: Visit) -> Mapping[str, Any]:
    """The search: a form, and a page of the events that fit, newest first."""
    sent = {name: visit.get(name) for name in _FIELDS}
    rows: list[Row] = []
    url = after = ""
    problem, status = "", 200
    try:
        wanted = _filter(visit, sent)
        page = search(visit.engine.stores.events, wanted, after=visit.get("after") or None, limit=PAGE)
    except (BadSearch, BadMoment) as bad:
        problem, status = str(bad), 400
    else:
        rows = _rows(visit, page.events)
        after = page.next or ""
        url = visit.address(visit.page.name, **sent, after=after) if after else ""
    return {
        "sent": sent,
        "is_wide": any(sent[name] for name in ("reason", "actor", "source", "grant", "until", "error_id")),
        "rows": rows,
        "next": url,
        "first": visit.address(visit.page.name, **sent) if visit.get("after") else "",
        "problem": problem,
        "status": status,
        "types": sorted(EventType),
        "REFUSED": REFUSED,
    }


def show_event(visit: Visit) -> Mapping[str, Any]:
    """One event: who, what and when, every check in order, and what would change it."""
    event = find(visit.engine.stores.events, visit.get("event_id"))
    if event is None:
        raise HTTPNotFound()
    told = explain_event(visit.engine, event, visit.application.parts.policies)
    (row,) = _rows(visit, [event])
    return {
        "event": event,
        "row": row,
        "told": told,
        "checks": [told_check(check) for check in told.checks],
        "outcome": outcome_of(told),
        "around": visit.address(
            "admin_audit", since=_iso(event.at - _AROUND), until=_iso(event.at + _AROUND)
        ),
        "same": visit.address(
            "admin_audit",
            client=event.client_id,
            reason=event.reason,
            event=event.type,
        )
        if event.reason
        else "",
    }


def _filter(visit: Visit, sent: Mapping[str, str]) -> EventFilter:
    """The filter for what was sent. Raises BadSearch and BadMoment."""
    kind, now = sent["event"], visit.engine.now
    types = REFUSALS if kind == REFUSED else types_of([kind] if kind else [])
    return EventFilter(
        event_id=sent["error_id"] or None,
        types=types,
        client_id=sent["client"] or None,
        user_id=user_id_of(visit, sent["user"]) if sent["user"] else None,
        grant_id=sent["grant"] or None,
        actor=sent["actor"] or None,
        source=source_of(sent["source"]) if sent["source"] else None,
        reason=sent["reason"] or None,
        since=moment_of(sent["since"], now) if sent["since"] else None,
        until=moment_of(sent["until"], now) if sent["until"] else None,
    )


def _rows(visit: Visit, events: Iterable[Event]) -> list[Row]:
    events = list(events)
    clients, people = names_of(
        visit, (event.client_id for event in events), (event.user_id for event in events)
    )
    return [
        Row(
            event=event,
            actor={f"client:{event.client_id}": "the client", f"user:{event.user_id}": "the person"}.get(
                event.actor, event.actor
            ),
            client_name=clients.get(event.client_id or "", ""),
            username=people.get(event.user_id or "", event.user_id or ""),
        )
        for event in events
    ]


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


PAGES = (
    Page(name="admin_audit", path="/admin/audit", show=show, template="audit.jinja2", entry="Audit"),
    Page(
        name="admin_event",
        path="/admin/audit/event",
        show=show_event,
        template="event.jinja2",
        keys=("event_id",),
        below="admin_audit",
    ),
)
