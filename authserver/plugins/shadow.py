"""Tries policies: shadow plugins are asked beside the live ones, and their answers never count.

One thread asks the questions from a queue, so no request waits; a full queue drops questions, and a plugin
that hangs stops that thread only.

Where the outcome would have been different, a `policy.differed` event is stored, at most one a second after the first.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from datetime import UTC, datetime
from typing import Any

from authserver.engine.context import SERVER
from authserver.engine.crypto import digests
from authserver.engine.decisions import Ruling, combine
from authserver.engine.evidence import bounded
from authserver.engine.ports import Storage
from authserver.engine.records import Event, EventType
from authserver.hookspecs import DECIDING
from authserver.plugins.asking import PluginSet

QUEUE = 1000
# Anybody can cause differences, and each is stored. Therefore at most this many are stored at once, and then this many a
# second.
RECORDS_AT_ONCE = 20.0
RECORDS_A_SECOND = 1.0
log = logging.getLogger(__name__)


class Shadow:
    """Asks the shadow plugins what they would have answered.

    Args:
        plugins: the shadow plugins.
        storage: stores the differences.
    """

    def __init__(self, plugins: PluginSet, storage: Storage) -> None:
        self.plugins = plugins
        plugins.consequence = "it is a shadow plugin, so no answer is affected"
        self._storage = storage
        self._questions: queue.Queue[Ruling[Any]] = queue.Queue(QUEUE)
        self._dropped = 0
        self._allowance = RECORDS_AT_ONCE
        self._allowed_at = time.monotonic()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = False

    def consider(self, ruling: Ruling[Any]) -> None:
        """Put a question into the queue; returns at once."""
        if not self.plugins.serves(ruling.hook):
            return
        try:
            self._questions.put_nowait(ruling)
        except queue.Full:
            self._dropped += 1
        if self._thread is None:
            self._start()

    def close(self) -> None:
        """Close the shadow plugins, and make no more comparisons."""
        self._closed = True
        self.plugins.close()

    def wait(self, seconds: float) -> bool:
        """Wait until every question was asked, for so many seconds. Returns whether all were asked. For tests."""
        deadline = time.monotonic() + seconds
        while self._questions.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self._questions.unfinished_tasks

    def _start(self) -> None:
        # In the process that serves, not in one that forks it: threads do not survive a fork.
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            ruling = self._questions.get()
            try:
                self._compare(ruling)
            except Exception:
                log.exception("a shadow question failed; no answer is affected")
            finally:
                self._questions.task_done()

    def _compare(self, ruling: Ruling[Any]) -> None:
        candidate = combine(ruling.question, [*ruling.answers, *self.plugins.ask_all(ruling.question)])
        # The answer of a closed plugin is not the one that it would have given before.
        if self._closed or DECIDING[ruling.hook].same_outcome(ruling.effect, candidate.effect):
            return
        if not self._may_record():
            self._dropped += 1
            return
        dropped, self._dropped = self._dropped, 0
        facts = ruling.question.facts()
        event = Event(
            event_id=digests.new_identifier(),
            type=EventType.POLICY_DIFFERED,
            at=datetime.now(UTC),
            actor=SERVER.actor,
            client_id=facts.get("client_id"),
            user_id=facts.get("user_id"),
            reason=candidate.reason,
            decisions=(ruling.as_record(), candidate.as_record()),
            details={"slot": ruling.hook, "dropped": dropped},
        )
        with self._storage.begin() as stores:
            stores.events.add(bounded(event))

    def _may_record(self) -> bool:
        """Whether one more difference may be stored: a token bucket, which is filled at the allowed rate."""
        now = time.monotonic()
        gained = (now - self._allowed_at) * RECORDS_A_SECOND
        self._allowance = min(RECORDS_AT_ONCE, self._allowance + gained)
        self._allowed_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True
