"""The figures of the console's first page: what needs attention, and how many clients, users and grants there are.

Every number is bounded, so that the page costs the same on a large server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from authserver.engine.context import Engine
from authserver.engine.keys.signing_keys import signing_key
from authserver.engine.records import REFUSALS, Client, EventFilter, KeyState, SigningKey

# Numbers are counted up to this one.
MAXIMUM_COUNTED = 10_000
# Refusals are counted among this many of the newest events of refusals.
MAXIMUM_EVENTS_READ = 1_000
# How long before its end a secret is shown, and how many clients at most.
ENDING = timedelta(days=30)
MAXIMUM_ENDING = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The number of records of each kind; MAXIMUM_COUNTED + 1 means more than MAXIMUM_COUNTED."""

    clients: int
    users: int
    grants: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Refusals by their reason, since midnight and on the day before, both in UTC.

    An event with which others were counted counts for all of them (`engine.floods`).

    Attributes:
        since: the beginning of the counted time: the midnight before yesterday, or the time of the oldest event that
            was read.
        is_whole: whether all events of both days were read.
    """

    today: Mapping[str, int]
    yesterday: Mapping[str, int]
    since: datetime
    is_whole: bool

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of both days, the most frequent of today first."""
        known = {*self.today, *self.yesterday}
        return tuple(
            sorted(known, key=lambda name: (-self.today.get(name, 0), -self.yesterday.get(name, 0), name))
        )


def size(engine: Engine) -> Size:
    """How many clients, people and live grants there are."""
    stores, limit = engine.stores, MAXIMUM_COUNTED + 1
    return Size(
        clients=stores.clients.count(limit=limit),
        users=stores.users.count(limit=limit),
        grants=stores.grants.count_live(engine.now, limit=limit),
    )


def ending_secrets(engine: Engine) -> Sequence[Client]:
    """The clients of which a secret ends soon, the first to end first."""
    return engine.stores.clients.with_ending_secret(engine.now, engine.now + ENDING, limit=MAXIMUM_ENDING)


def refusals(engine: Engine) -> Refused:
    """The refusals of today and yesterday."""
    midnight = engine.now.replace(hour=0, minute=0, second=0, microsecond=0)
    since = midnight - timedelta(days=1)
    found = engine.stores.events.search(EventFilter(types=REFUSALS, since=since), limit=MAXIMUM_EVENTS_READ)
    days: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for event in found:
        days[event.at < midnight][event.reason] += 1 + others(event.details)
    is_whole = len(found) < MAXIMUM_EVENTS_READ
    return Refused(
        today=days[0],
        yesterday=days[1],
        since=since if is_whole else found[-1].at,
        is_whole=is_whole,
    )


def keys(engine: Engine) -> tuple[SigningKey | None, Sequence[SigningKey]]:
    """The key that signs, and those that are published and do not sign yet."""
    found = engine.stores.signing_keys.list()
    staged = [key for key in found if key.state(engine.now) is KeyState.STAGED]
    return signing_key(found, engine.settings.signing_algorithm, engine.now), staged


def others(details: Mapping[str, object]) -> int:
    """The number of other events that were counted with this one."""
    more = details.get("more")
    count = more.get("count", 0) if isinstance(more, Mapping) else 0
    return count if isinstance(count, int) else 0
