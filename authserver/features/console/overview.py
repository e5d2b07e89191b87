"""The first page: what needs attention, how much is stored, and what was refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from authserver.administration import overview
from authserver.features.console.pages import Page, Visit

MAXIMUM_REASONS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that needs attention: how urgent it is, a sentence with more lines, and a link to the place for it."""

    kind: str
    sentence: str
    lines: tuple[str, ...] = ()
    label: str = ""
    url: str = ""


def show(visit: Visit) -> Mapping[str, Any]:
    """The first page: notices, the size of the server, refusals, and secrets that end soon."""
    refused = overview.refusals(visit.engine)
    key, staged = overview.keys(visit.engine)
    ending = overview.ending_secrets(visit.engine)
    backlog = visit.application.caretaker.backlog()
    return {
        "notices": list(_notices(visit, backlog, len(ending))),
        "size": overview.size(visit.engine),
        "most_counted": overview.MAXIMUM_COUNTED,
        "refused": refused,
        "reasons": refused.reasons[:MAXIMUM_REASONS],
        "most_refused": max([*refused.today.values(), *refused.yesterday.values()], default=0),
        "ending": ending,
        "key": key,
        "age": _age((visit.engine.now - key.activates_at).days) if key else "",
        "staged": staged,
        "backlog": backlog,
        "last_run": visit.application.caretaker.last_run,
    }


def _age(days: int) -> str:
    return "today" if days < 1 else "1 day ago" if days == 1 else f"{days:,} days ago"


def _notices(visit: Visit, backlog: Mapping[str, int], ending: int) -> Iterator[Notice]:
    if ending:
        which = "1 client has" if ending == 1 else f"{ending} clients have"
        if ending == overview.MAXIMUM_ENDING:
            which = f"{ending} clients or more have"
        yield Notice(
            kind="caution",
            sentence=f"{which} a secret that ends within {overview.ENDING.days} days.",
            label="See which",
            url="#ending",
        )
    behind = [kind for kind, count in backlog.items() if count >= overview.MAXIMUM_COUNTED]
    if behind:
        yield Notice(
            kind="caution",
            sentence=f"Clean-up is behind: {overview.MAXIMUM_COUNTED:,} expired rows or more wait ({', '.join(behind)}).",
            label="See the backlog",
            url="#upkeep",
        )
    if insecure := visit.application.insecure:
        yield Notice(
            kind="caution",
            sentence="Set for development only, and refused in production:",
            lines=tuple(insecure),
        )


PAGES = (Page(name="admin_overview", path="/admin", show=show, template="overview.jinja2", entry="Overview"),)
