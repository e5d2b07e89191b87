"""A time limit for plugins: a caller waits for a limited time.

Python cannot stop a thread, so a function that hangs keeps its thread. The number of threads is limited; when all of them
hang, the next call is refused at once. The threads are daemons: unlike the threads of `concurrent.futures`, they do not
keep the process from ending when a plugin hangs. A thread whose function has answered takes the next call, because to
start a thread for each call costs more than most decisions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from authserver.containment import contained

# How long loading waits for the import of a plugin, for its construction and for its `prepare`: enough for large
# libraries on a slow disk.
LOADING_SECONDS = 30.0
# How long a thread waits for its next call before it ends.
IDLE_SECONDS = 10.0


class TooSlow(Exception):
    """The function did not answer in time, or all threads are held by functions that do not answer."""


class NoThread(RuntimeError):
    """No thread can be started: there are too many, or the interpreter is ending."""


class TimeLimit:
    """Calls functions in threads of its own.

    Args:
        seconds: how long a caller waits.
        threads: how many calls may be under way at once.
        idle: seconds that a thread waits for its next call before it ends.
    """

    def __init__(self, seconds: float, *, threads: int = 32, idle: float = IDLE_SECONDS) -> None:
        self._seconds = seconds
        self._idle_seconds = idle
        self._free = threading.BoundedSemaphore(threads)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the function, contained, and return or raise what it does.

        Raises:
            TooSlow: it did not answer in time.
            NoThread: it was not called.
        """
        if not self._free.acquire(blocking=False):
            raise TooSlow("every thread is held by a call that does not answer")
        future: Future[Any] = Future()
        # The context is copied, so that the function works for the same request (`engine.timeline`).
        call = partial(copy_context().run, contained, function, *arguments)
        try:
            self._worker().calls.put((call, future))
        except BaseException as error:
            self._free.release()
            if isinstance(error, RuntimeError):
                raise NoThread(str(error)) from error
            raise
        try:
            return future.result(self._seconds)
        except TimeoutError:
            if future.done():  # the function itself raised it
                raise
            raise TooSlow(f"no answer within {self._seconds} s") from None

    def _worker(self) -> _Worker:
        """A worker that is idle, or a new one."""
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                # After a fork, the threads of the parent process do not exist in this one.
                if worker.is_alive():
                    return worker
        worker = _Worker(self._idle_seconds, self._rest, self._retire)
        worker.start()
        return worker

    def _rest(self, worker: _Worker) -> None:
        """Make a worker free for the next call."""
        with self._lock:
            self._idle.append(worker)
        self._free.release()

    def _retire(self, worker: _Worker) -> bool:
        """Whether a worker may end: no call is on its way to it."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            return True


class _Worker(threading.Thread):
    """Makes one call after the other."""

    def __init__(
        self, idle: float, rest: Callable[[_Worker], None], retire: Callable[[_Worker], bool]
    ) -> None:
        super().__init__(name="policy", daemon=True)
        self.calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._idle_seconds = idle
        self._rest = rest
        self._retire = retire

    def run(self) -> None:
        while True:
            try:
                call, future = self.calls.get(timeout=self._idle_seconds)
            except Empty:
                if self._retire(self):
                    return
                continue
            self._answer(call, future)
            # Otherwise the objects of a request would be kept until the next one.
            del call, future

    def _answer(self, call: Callable[[], Any], future: Future[Any]) -> None:
        try:
            answer = call()
        except BaseException as error:
            self._rest(self)
            future.set_exception(error)
        else:
            # This comes before the caller continues, because the caller may make the next call at once.
            self._rest(self)
            future.set_result(answer)
