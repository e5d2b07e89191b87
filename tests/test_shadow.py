"""Shadow plugins: asked beside the live ones, never counted, bounded in cost, harmless in failure."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from authserver.api import AuthenticationStep, Decision, allow, deny, hookimpl, narrow
from authserver.engine.records import Event, EventType
from authserver.plugins.asking import PluginSet
from authserver.plugins.shadow import QUEUE, RECORDS_A_SECOND, RECORDS_AT_ONCE, Shadow
from authserver.storage.database import Database
from authserver.testing import hostile
from authserver.testing.questions import a_question
from authserver.testing.records import an_event

SCOPES = ("profile", "files.read")


@dataclass(frozen=True)
class Allows:
    """The live policy."""

    @hookimpl
    def scope_decision(self, requested: tuple[str, ...]) -> Decision:
        return allow("all", requested)


@dataclass(frozen=True)
class Tries:
    """A shadow policy that does what a test says."""

    act: Callable[[], Any]

    @hookimpl
    def scope_decision(self) -> Any:
        return self.act()


@pytest.fixture
def live_beside(database: Database) -> Callable[[Callable[[], Any]], PluginSet]:
    """A live policy beside which a shadow policy acts."""

    def make(act: Callable[[], Any]) -> PluginSet:
        live = PluginSet([("allows", Allows())])
        live.shadow = Shadow(PluginSet([("tries", Tries(act))], time_limit=30), database)
        return live

    return make


def ask(live: PluginSet) -> Any:
    return live.decide(a_question("scope_decision", requested=SCOPES))


def shadow_of(live: PluginSet) -> Shadow:
    assert isinstance(live.shadow, Shadow)
    return live.shadow


def differences(database: Database) -> list[Event]:
    with database.begin() as stores:
        return list(stores.events.since(datetime(2020, 1, 1, tzinfo=UTC), type=EventType.POLICY_DIFFERED))


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (lambda: deny("not-at-night"), ("deny", "not-at-night", None)),
        (lambda: narrow("less", ("profile",)), ("allow", "less", ["profile"])),
        (lambda: 1 / 0, ("failed", "plugin-raised", None)),
        (sys.exit, ("failed", "plugin-raised", None)),
    ],
)
def test_a_difference_is_kept_and_counts_for_nothing(
    database: Database, live_beside: Any, act: Callable[[], Any], outcome: Any
) -> None:
    live = live_beside(act)
    ruling = ask(live)
    assert (ruling.allowed, ruling.value) == (True, SCOPES)
    assert shadow_of(live).wait(10)
    (event,) = differences(database)
    was, would_be = event.decisions
    assert (was["verdict"], was["outcome"]) == ("allow", list(SCOPES))
    assert (would_be["verdict"], would_be["reason"], would_be["outcome"]) == outcome
    assert (event.client_id, event.user_id) == ("reports", "user_ada")


@pytest.mark.parametrize(
    "act", [lambda: None, lambda: allow("me-too", ()), lambda: narrow("as-much", SCOPES)]
)
def test_agreement_leaves_no_record(database: Database, live_beside: Any, act: Callable[[], Any]) -> None:
    live = live_beside(act)
    ask(live)
    assert shadow_of(live).wait(10)
    assert not differences(database)


@dataclass(frozen=True)
class RefusesSignIn:
    """Refuses what stands behind an authorization request, with this error code."""

    immediate: ClassVar[bool] = True

    error_code: str | None

    @hookimpl
    def authentication_decision(self) -> Decision[AuthenticationStep]:
        return deny("not-now", self.error_code)


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        (RefusesSignIn("login_required"), RefusesSignIn("consent_required"), False),
        (None, RefusesSignIn("login_required"), True),
    ],
)
def test_error_codes_are_compared(
    database: Database, one: RefusesSignIn | None, other: RefusesSignIn, differs: bool
) -> None:
    """The first deny gives the code, and the live plugins come first."""
    live = PluginSet([("live", one)] if one else [])
    live.shadow = Shadow(PluginSet([("tries", other)]), database)
    live.decide(a_question("authentication_decision"))
    assert shadow_of(live).wait(10)
    assert [event.decisions[1]["outcome"] for event in differences(database)] == (
        [other.error_code] if differs else []
    )


@pytest.mark.parametrize("raised", hostile.RAISED)
def test_nothing_that_a_shadow_plugin_raises_ends_the_comparing(
    database: Database, live_beside: Any, raised: type[BaseException]
) -> None:
    """R-14: the next question is compared, too."""

    def act() -> Any:
        raise raised

    live = live_beside(act)
    for _ in range(2):
        assert ask(live).allowed
        assert shadow_of(live).wait(10)
    assert len(differences(database)) == 2


def test_a_hanging_shadow_plugin_delays_nobody(live_beside: Any) -> None:
    over = threading.Event()
    live = live_beside(lambda: over.wait(20))
    try:
        begun = time.monotonic()
        for _ in range(QUEUE + 50):
            assert ask(live).allowed
        assert time.monotonic() - begun < 10
    finally:
        over.set()
        # Nobody may still be writing when the next test begins.
        assert shadow_of(live).wait(60)


def test_what_a_closed_shadow_plugin_answers_is_no_difference(database: Database, live_beside: Any) -> None:
    """At the end of a server: questions still wait, and what they need is closed already."""
    asked, closed = threading.Event(), threading.Event()

    def fail() -> None:
        asked.set()
        closed.wait(10)
        raise OSError("the connection is closed")

    live = live_beside(fail)
    for _ in range(3):
        ask(live)
    shadow = shadow_of(live)
    assert asked.wait(10)
    live.close()
    closed.set()
    assert shadow.wait(10)
    assert not differences(database)


def test_records_are_bounded(database: Database, live_beside: Any) -> None:
    live = live_beside(lambda: deny("always"))
    begun = time.monotonic()
    for _ in range(200):
        ask(live)
    assert shadow_of(live).wait(20)
    most = RECORDS_AT_ONCE + RECORDS_A_SECOND * (time.monotonic() - begun)
    assert RECORDS_AT_ONCE <= len(differences(database)) <= most


def test_events_are_read_in_order_and_in_batches(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading that reports and replays stand on, with batches of two."""
    monkeypatch.setattr("authserver.storage.ledger.BATCH", 2)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with database.begin() as stores:
        for number in (3, 1, 2, 5, 4):
            stores.events.add(an_event(event_id=f"e{number}", at=at))
        stores.events.add(an_event(event_id="e0", type=EventType.TOKEN_REFUSED, at=at.replace(year=2027)))
    with database.begin() as stores:
        assert [event.event_id for event in stores.events.since(at)] == ["e1", "e2", "e3", "e4", "e5", "e0"]
        assert [event.event_id for event in stores.events.latest()] == ["e0", "e5", "e4", "e3", "e2", "e1"]
        assert stores.events.count(at, type=EventType.TOKEN_ISSUED) == 5
        assert [e.event_id for e in stores.events.since(at, type=EventType.TOKEN_REFUSED)] == ["e0"]
        found = stores.events.find("e3")
        assert found is not None
        assert found.at == at
        assert stores.events.find("e9") is None
