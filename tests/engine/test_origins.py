"""Which web origins may read answers, and how many strange ones are looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import time_machine

from authserver.engine.origins import KnownOrigins, may_read
from authserver.features.rate_limits import MemoryCounts
from authserver.limits import MAXIMUM_ORIGINS
from authserver.testing.records import NOW, a_client
from authserver.testing.rules import Rules
from authserver.testing.server import with_plugin

OURS = "https://reports.example"
EXTENSION = "chrome-extension://abcdefghijklmnopabcdefghijklmnop"
LIMIT = 3


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
        yield traveller


class Asked:
    """An engine that counts which origins it looks up."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.known = KnownOrigins()
        self.looked_up: list[str] = []

    def may_read(self, origin: str, source: str = "192.0.2.1") -> bool:
        with self.rules.begin() as engine:
            clients, looked_up = engine.stores.clients, self.looked_up

            class Counting:
                def knows_origin(self, origin: str) -> bool:
                    looked_up.append(origin)
                    return clients.knows_origin(origin)

            engine = replace(
                engine,
                stores=SimpleNamespace(clients=Counting()),  # all that is used
                caller=replace(engine.caller, source=source, endpoint="token"),
            )
            return may_read(engine, origin, self.known)


@pytest.fixture
def make_asked(make_rules: Callable[..., Rules]) -> Callable[..., Asked]:
    def make(limit: int = LIMIT) -> Asked:
        settings = with_plugin(
            "rate_limits", {"limits": f"strange = unknown_origin, source, {limit}, minute"}
        )
        settings["authserver.plugins"] += "\norigins_listed"
        settings["authserver.plugin.origins_listed.origins"] = f"https://docs.example {EXTENSION}"
        rules = make_rules(settings)
        # Rules with the same settings share their plugins.
        rules.parts.policies.plugin("rate_limits").counts.memory = MemoryCounts()
        with rules.begin() as engine:
            engine.stores.clients.add(a_client(redirect_uris=(f"{OURS}/cb", "http://127.0.0.1/cb")))
        return Asked(rules)

    return make


def test_registered_and_listed_origins_may_read(make_asked: Callable[..., Asked]) -> None:
    """T085: and no others, `null` included; what cannot be a client's origin is not looked up."""
    asked = make_asked()
    for origin in (OURS, "http://127.0.0.1:5173", "https://docs.example", EXTENSION):
        assert asked.may_read(origin), origin
    for origin in ("null", "*", "", "file://", "https://evil.example", "chrome-extension://other"):
        assert not asked.may_read(origin), origin
    assert asked.looked_up == [OURS, "http://127.0.0.1:5173", "https://docs.example", "https://evil.example"]


def test_nobody_at_the_hook_is_a_refusal(make_rules: Callable[..., Rules]) -> None:
    """R-14: of registered origins, too."""
    asked = Asked(make_rules(with_plugin("rate_limits", {}, without=("origins_registered",))))
    with asked.rules.begin() as engine:
        engine.stores.clients.add(a_client())
    assert not asked.may_read(OURS)


def test_a_source_looks_up_so_many_strange_origins(
    make_asked: Callable[..., Asked], clock: time_machine.Traveller
) -> None:
    """T085, R-20: its flood is answered without the database, others are not affected, and a minute later it may again."""
    asked = make_asked()
    for number in range(50):
        assert not asked.may_read(f"https://{number}.example")
    assert len(asked.looked_up) == LIMIT
    assert asked.may_read(OURS, source="198.51.100.7")
    assert not asked.may_read("http://127.0.0.1:5173")
    clock.shift(61)
    assert asked.may_read("http://127.0.0.1:5173")


def test_a_flood_does_not_stop_the_pages_of_its_neighbours(
    make_asked: Callable[..., Asked], clock: time_machine.Traveller
) -> None:
    """R-20: an origin that was known within the hour, and whatever is listed."""
    asked = make_asked(1)
    assert asked.may_read(OURS, source="198.51.100.7")
    assert not asked.may_read("https://evil.example")
    del asked.looked_up[:]
    for origin in (OURS, "https://docs.example", EXTENSION):
        assert asked.may_read(origin), origin
    assert asked.looked_up == []
    clock.shift(3_601)
    assert not asked.may_read("https://evil.example")
    assert not asked.may_read(OURS)


def test_only_refused_origins_count(make_asked: Callable[..., Asked]) -> None:
    """R-20: many people behind one address may use the pages of an operator."""
    asked = make_asked(1)
    for _ in range(5):
        assert asked.may_read("https://docs.example")
        assert asked.may_read(OURS)
    assert len(asked.looked_up) == 10


def test_what_is_remembered_is_bounded() -> None:
    """T085: the one that was used last is kept; one that is unknown now is forgotten."""
    known = KnownOrigins()
    for number in range(MAXIMUM_ORIGINS + 10):
        known.note("https://first.example", NOW, known=True)
        known.note(f"https://{number}.example", NOW, known=True)
    assert known.lately("https://first.example", NOW)
    assert not known.lately("https://0.example", NOW)
    assert len(known._known) == MAXIMUM_ORIGINS
    known.note("https://first.example", NOW + timedelta(seconds=1), known=False)
    assert not known.lately("https://first.example", NOW)
