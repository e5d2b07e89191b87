"""A process works on as many requests at once as it takes to keep processors busy, and never waits for slow ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack

import pytest

from authserver.web import concurrency
from authserver.web.concurrency import WINDOW, Concurrency, Used, now_used
from authserver.web.connection_counts import ConnectionCounts
from authserver.web.connections import Dispatcher


class Machine:
    """Two processors, of which a process uses some, in a time that passes as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int = 4) -> None:
        self.used = Used(100.0, 7.0, 50.0)
        monkeypatch.setattr(concurrency.time, "monotonic", lambda: self.used.clock)
        self.concurrency = Concurrency(most, lambda: self.used, processors=2)

    def passes(self, seconds: float, *, own: float, idle: float) -> int:
        """Let time pass of which the process used a share of one processor, and some of both was idle. The limit after it."""
        clock, process, unused = self.used
        self.used = Used(clock + seconds, process + own * seconds, unused + idle * 2 * seconds)
        self.concurrency.look(self.used.clock)
        return self.concurrency.limit


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_there_are_more_while_it_is_not_busy_and_something_is_idle(machine: Machine) -> None:
    """T114: a database that is far away keeps nobody waiting for a thread."""
    assert [machine.passes(WINDOW, own=0.2, idle=0.5) for _ in range(5)] == [2, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("own", "idle"),
    [
        pytest.param(0.99, 0.4, id="it runs all the time"),
        pytest.param(0.6, 0.01, id="other programs use the rest"),
    ],
)
def test_there_are_fewer_where_more_would_only_wait(machine: Machine, own: float, idle: float) -> None:
    for _ in range(3):
        machine.passes(WINDOW, own=0.2, idle=0.5)
    assert [machine.passes(WINDOW, own=own, idle=idle) for _ in range(4)] == [3, 2, 1, 1]


def test_between_both_the_number_stays(machine: Machine) -> None:
    machine.passes(WINDOW, own=0.2, idle=0.5)
    assert machine.passes(WINDOW, own=0.7, idle=0.05) == 2
    assert machine.passes(WINDOW, own=0.95, idle=0.5) == 2


def test_times_in_which_nothing_waited_say_nothing(machine: Machine) -> None:
    assert machine.passes(WINDOW / 2, own=0.1, idle=0.9) == 1
    assert machine.passes(WINDOW * 5, own=0.1, idle=0.9) == 1
    assert machine.passes(WINDOW, own=0.1, idle=0.9) == 2


def test_what_takes_long_does_not_count(machine: Machine) -> None:
    """T103: a password is checked, or a document fetched, and others go on meanwhile."""
    held = machine.concurrency
    held.begin(7)
    assert held.room == 0
    machine.passes(0.01, own=0.9, idle=0.1)
    assert held.room == 0
    machine.passes(0.011, own=0.9, idle=0.1)
    assert held.room == 1
    held.begin(8)
    held.end(7)
    assert held.room == 0
    held.end(8)
    assert held.room == 1


def test_all_threads_work_when_there_is_more_than_can_be_answered_in_time(machine: Machine) -> None:
    """T111: otherwise the thread that refuses the rest would get half of the time."""
    clock = machine.used.clock
    machine.concurrency.look(clock - 0.09)
    assert machine.concurrency.room == 1
    machine.concurrency.look(clock - 0.11)
    assert machine.concurrency.room == 4
    machine.concurrency.look(clock)
    assert machine.concurrency.room == 1


def test_where_the_system_does_not_tell_there_are_as_many_as_threads() -> None:
    unknown = Concurrency(5, lambda: None)
    unknown.look(0.0)
    assert unknown.limit == unknown.room == 5


def test_what_the_system_tells_goes_up(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    before = now_used()
    assert before is not None
    while time.process_time() < before.process + 0.05:
        pass
    after = now_used()
    assert after is not None and after.process >= before.process + 0.05 and after.clock > before.clock
    assert after.idle >= before.idle > 0
    for text in ("", "cpu\n", "cpu a b c d e\n"):
        monkeypatch.setattr(concurrency, "_PROCESSORS", _Text(text))
        assert now_used() is None


class _Text:
    def __init__(self, text: str) -> None:
        self._text = text

    def read_text(self) -> str:
        return self._text


class Work:
    """A request that notes how many others are worked on at the same time, and lasts until it may end."""

    def __init__(self, at_once: list[int], lasts: threading.Event | float) -> None:
        self._at_once, self._lasts = at_once, lasts
        self.began, self.queued_since = threading.Event(), time.monotonic()
        self.seen = 0

    def service(self) -> None:
        self._at_once.append(1)
        self.seen = len(self._at_once)
        self.began.set()
        if isinstance(self._lasts, threading.Event):
            self._lasts.wait(20)
        else:
            time.sleep(self._lasts)
        self._at_once.pop()

    def cancel(self) -> None:
        pass


def looked_after(dispatcher: Dispatcher, stack: ExitStack) -> None:
    """What the thread that waits for connections does."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            dispatcher.look()

    thread = threading.Thread(target=look)
    thread.start()
    stack.callback(thread.join)
    stack.callback(over.set)
    stack.callback(dispatcher.shutdown)


def works(number: int, at_once: list[int], lasts: threading.Event | float) -> Iterable[Work]:
    return [Work(at_once, lasts) for _ in range(number)]


def test_requests_begin_one_after_the_other_and_behind_slow_ones() -> None:
    """T111, T114: brisk ones wait for each other, and nobody waits for long for one that hangs."""
    with ExitStack() as stack:
        dispatcher = Dispatcher()
        dispatcher.set_thread_count(4)
        # As on a machine on which nothing is idle.
        dispatcher._concurrency = Concurrency(4, lambda: Used(time.monotonic(), 0.0, 0.0))
        looked_after(dispatcher, stack)
        at_once: list[int] = []
        brisk = works(50, at_once, 0.001)
        for work in brisk:
            dispatcher.add_task(work)
        for work in brisk:
            assert work.began.wait(20)
        # The machine may stop one of them for a moment, and then another one begins.
        assert sorted(work.seen for work in brisk)[25] == 1
        hanging = threading.Event()
        stack.callback(hanging.set)
        slow = works(3, at_once, hanging)
        for work in slow:
            dispatcher.add_task(work)
        (last,) = works(1, at_once, 0.0)
        dispatcher.add_task(last)
        assert last.began.wait(5)
        hanging.set()


def test_a_process_knows_of_another_with_fewer_connections() -> None:
    shared = ConnectionCounts.make(3)
    first, second = (ConnectionCounts(shared.descriptor, place) for place in (0, 1))
    # Nobody else is there yet.
    assert not first.is_above_another(5)
    second.tell(2)
    assert [first.is_above_another(number) for number in (1, 2, 3)] == [False, False, True]
    # Its own number is no other's.
    assert not second.is_above_another(9)
    shared.forget(1)
    assert not first.is_above_another(3)
    # The parent has none, and says nothing.
    shared.tell(0)
    assert not first.is_above_another(3)
