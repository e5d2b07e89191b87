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

    def __init__(self, at_once: int, pool: ThreadPoolExecutor) -> None:
        self.turnstile = Turnstile(at_once)
        self.go = threading.Event()
        self._lock, self._now, self.most = threading.Lock(), 0, 0
        self._began = threading.Semaphore(0)
        self.done = [pool.submit(self.work) for _ in range(at_once)]
        for _ in range(at_once):
            assert self._began.acquire(timeout=5)

    def work(self) -> str:
        try:
            with self.turnstile.turn():
                with self._lock:
                    self._now += 1
                    self.most = max(self.most, self._now)
                self._began.release()
                assert self.go.wait(10)
                with self._lock:
                    self._now -= 1
                return "worked"
        except TooBusy:
            return "sent away"


def test_so_many_work_as_many_wait_and_the_others_are_sent_away_at_once() -> None:
    """T104: no more hashes at once, whoever asks for them."""
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
        with pytest.raises(KeyError), one.turn():
            raise KeyError
    with one.turn():
        pass
