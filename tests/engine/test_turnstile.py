"""Few do at once what takes much work."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from authserver.engine import turnstile
from authserver.engine.errors import TooBusy
from authserver.engine.turnstile import Turnstile


class Busy:
    """A turnstile with threads that are in it until they are let go."""

    def __init__(
        self, at_once: int, pool: ThreadPoolExecutor, who: str = "", began: int | None = None
    ) -> None:
        self.turnstile = Turnstile(at_once)
        self.go = threading.Event()
        self._lock, self._now, self.most = threading.Lock(), 0, 0
        self.began = threading.Semaphore(0)
        self.done = [pool.submit(self.work, who) for _ in range(at_once)]
        for _ in range(at_once if began is None else began):
            assert self.began.acquire(timeout=5)

    def work(self, who: str = "") -> str:
        try:
            with self.turnstile.turn(who or str(threading.get_ident())):
                with self._lock:
                    self._now += 1
                    self.most = max(self.most, self._now)
                self.began.release()
                assert self.go.wait(10)
                with self._lock:
                    self._now -= 1
                return "worked"
        except TooBusy:
            return "sent away"


def test_so_many_work_as_many_wait_and_the_others_are_sent_away_at_once() -> None:
    """T155, T104: no more hashes at once, whoever asks for them."""
    with ThreadPoolExecutor(20) as pool:
        busy = Busy(3, pool)
        later = [pool.submit(busy.work) for _ in range(10)]
        while sum(each.done() for each in later) < 7:
            pass
        busy.go.set()
        answers = [each.result(5) for each in (*busy.done, *later)]
    assert (answers.count("worked"), answers.count("sent away")) == (6, 7)
    assert busy.most == 3


def test_who_waits_for_too_long_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """T104: and the place is free for the next one."""
    monkeypatch.setattr(turnstile, "WAIT_SECONDS", 0.05)
    with ThreadPoolExecutor(4) as pool:
        busy = Busy(1, pool)
        assert [busy.work() for _ in range(3)] == ["sent away"] * 3
        busy.go.set()
        assert busy.done[0].result(5) == "worked"
        assert busy.work() == "worked"


def test_a_turn_ends_with_a_failure() -> None:
    one = Turnstile(1)
    for _ in range(5):
        with pytest.raises(KeyError), one.turn("ann"):
            raise KeyError
    with one.turn("ann"):
        pass


def test_one_address_never_has_every_turn_or_every_place() -> None:
    """T103, T104: who floods from one address is sent away, while somebody else need not even wait."""
    with ThreadPoolExecutor(20) as pool:
        busy = Busy(2, pool, "flood", began=1)
        flood = [pool.submit(busy.work, "flood") for _ in range(10)]
        while sum(each.done() for each in flood) < 9:
            pass
        honest = pool.submit(busy.work, "honest")
        assert busy.began.acquire(timeout=5)
        assert pool.submit(busy.work, "honest").result(5) == "sent away"
        busy.go.set()
        assert honest.result(5) == "worked"
        answers = [each.result(5) for each in (*busy.done, *flood)]
    assert answers.count("worked") == 3


def test_nothing_is_kept_of_who_had_a_turn() -> None:
    """T154."""
    turnstile = Turnstile(2)
    for number in range(100):
        with turnstile.turn(f"192.0.2.{number}"):
            pass
    assert not turnstile._places and not turnstile._turns
