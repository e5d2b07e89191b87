"""Shows where the shadow plugins would have decided differently, and how they would decide recorded questions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

from authserver.administration import EventFilter, EventType, moment_of
from authserver.explaining.differences import Differences, meaning
from authserver.explaining.replay import Result, replay_beside
from authserver.features.console.pages import Page, Visit

# How many events are read at most, newest first; and how many recorded questions are asked again at most.
MAXIMUM_EVENTS = 1_000
MAXIMUM_ASKED = 200
# Seconds after which no further question is asked: plugins may be slow.
MAXIMUM_SECONDS = 2.0
# How many clients of a kind of difference are named.
MAXIMUM_CLIENTS = 10
_SINCE = "7d"


def show(visit: Visit) -> Mapping[str, Any]:
    """The differences by what would change, the most frequent first. Raises BadMoment."""
    engine = visit.engine
    since = visit.get("since") or _SINCE
    wanted = EventFilter(types=frozenset({EventType.POLICY_DIFFERED}), since=moment_of(since, engine.now))
    found = engine.stores.events.search(wanted, limit=MAXIMUM_EVENTS)
    differences, dropped = Differences(), 0
    # The oldest first, so that the examples are the newest.
    for event in reversed(found):
        was, would_be = event.decisions
        example = {"event_id": event.event_id, "at": event.at, "asked": was.get("facts") or {}}
        differences.add(was["slot"], event.client_id, was, would_be, example)
        dropped += event.details.get("dropped", 0)
    shadow = visit.application.parts.policies.shadow
    return {
        "since": since,
        "rows": [_row(row) for row in differences.rows()],
        "count": differences.count,
        "dropped": dropped,
        "oldest": found[-1].at if len(found) == MAXIMUM_EVENTS else None,
        "plugins": shadow.plugins.names if shadow else (),
        "most_asked": MAXIMUM_ASKED,
        "replayed": _replayed(visit) if shadow and visit.get("replay") else None,
    }


def _replayed(visit: Visit) -> Mapping[str, Any]:
    """How the newest recorded questions would be decided with the shadow plugins beside the present ones."""
    engine, policies = visit.engine, visit.application.parts.policies
    events = islice(engine.stores.events.latest(), MAXIMUM_EVENTS)
    differences, not_asked = Differences(), Counter[tuple[str, str]]()
    asked = 0
    until = time.monotonic() + MAXIMUM_SECONDS
    for item in replay_beside(events, engine, policies, policies.shadow.plugins):
        if item.result is Result.NOT_ASKED:
            not_asked[item.hook, item.would_be["reason"]] += 1
            continue
        asked += 1
        if item.result is Result.FLIPPED:
            example = {"event_id": item.event_id, "at": item.at, "asked": item.facts}
            differences.add(item.hook, item.client_id, item.was, item.would_be, example)
        if asked == MAXIMUM_ASKED or time.monotonic() > until:
            break
    return {
        "rows": [_row(row) for row in differences.rows()],
        "asked": asked,
        "count": differences.count,
        "not_asked": [(hook, why, count) for (hook, why), count in not_asked.most_common()],
    }


def _row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    clients = [each for each in row["clients"] if each["client_id"] != "-"]
    return {
        **row,
        "was": meaning(row["hook"], row["was"]),
        "would_be": meaning(row["hook"], row["would_be"]),
        "clients": clients[:MAXIMUM_CLIENTS],
        "more_clients": len(clients[MAXIMUM_CLIENTS:]),
        "examples": list(reversed(row["examples"])),
    }


PAGES = (
    Page(
        name="admin_policy_shadow",
        path="/admin/policies/shadow",
        show=show,
        template="policy_shadow.jinja2",
        below="admin_policies",
    ),
)
