"""Runs several processes of one server on one machine: a parent starts them, replaces them, and ends them.

The parent holds the listening sockets and does not read from them. It starts each process with the same command, and
passes the sockets to it. So no waiting connection is lost when a process dies, and a process that is started later reads
the present INI file, secrets and installed version.

    SIGTERM, SIGINT     end all processes in an orderly way
    SIGHUP              replace all processes, one after the other; each ends when its successor answers
"""

from __future__ import annotations

import hashlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from authserver.web.connection_counts import ConnectionCounts

# The environment variable with what a process inherits from its parent; see `Inherited`.
VARIABLE = "AUTHSERVER_PROCESS"
# The signal to a process whose successor answers: it ends, and other processes keep the sockets open.
REPLACED = signal.SIGUSR1
# Seconds within which a process must answer requests after its start.
START_LIMIT = 120.0
# Seconds of life after which a process that died is started again at once; before that, after 1, 2, 4 … seconds.
STABLE = 30.0
MAXIMUM_PAUSE = 30.0
# Seconds after the time limit of its end, after which a process is killed.
_LATE = 5.0
# Seconds between two checks of the processes.
_LOOK = 0.5
_PSERVE = "import sys; from authserver.web.starting import main; sys.exit(main(sys.argv))"
log = logging.getLogger("authserver")
_is_started_again = False


@dataclass(slots=True)
class Ending:
    """Whether this process was told to end, so that no new requests should be sent to it.

    Attributes:
        has_begun: whether it was told to end.
    """

    has_begun: bool = False


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a process inherits from its parent.

    Attributes:
        number: the number of the process, from 1.
        is_first: whether no process of this server has answered yet.
        sockets: the sockets on which it accepts requests.
        management: the sockets of its management listener.
        counts: how many connections each process has.
    """

    number: int
    is_first: bool
    sockets: tuple[socket.socket, ...]
    management: tuple[socket.socket, ...]
    counts: ConnectionCounts
    _ready: int
    _parent: int

    @classmethod
    def take(cls) -> Inherited | None:
        """Read it from the environment; None in a process that was not started by a `Parent`."""
        given = os.environ.pop(VARIABLE, None)
        if given is None:
            return None
        number, is_first, ready, parent, counts, sockets, management = (
            tuple(int(item) for item in part.split(",") if item) for part in given.split(";")
        )
        for descriptor in (*ready, *parent, *counts, *sockets, *management):
            os.set_inheritable(descriptor, False)
        global _is_started_again
        _is_started_again = not is_first[0]
        return cls(
            number[0],
            bool(is_first[0]),
            tuple(socket.socket(fileno=item) for item in sockets),
            tuple(socket.socket(fileno=item) for item in management),
            ConnectionCounts(counts[0], number[0] - 1),
            ready[0],
            parent[0],
        )

    def tell_ready(self) -> None:
        """Tell the parent that this process answers requests; from now on it ends when the parent does."""
        # Without a parent, `_follow` ends this process.
        with suppress(BrokenPipeError):
            os.write(self._ready, b"1")
        os.close(self._ready)
        threading.Thread(target=self._follow, name="parent", daemon=True).start()

    def _follow(self) -> None:
        # The parent never writes: this returns when the parent has ended, even by kill -9.
        os.read(self._parent, 1)
        # SIGINT ends it without the delay, because another server may be waiting for the addresses.
        os.kill(os.getpid(), signal.SIGINT)


def is_started_again() -> bool:
    """Whether this process replaces another one, or other processes of this server answer already."""
    return _is_started_again


@dataclass(slots=True, eq=False)
class _Process:
    """A process that was started.

    Attributes:
        ready: the pipe on which it says that it answers requests.
        is_ready: whether it said so.
        is_outdated: whether a reload was requested since it was started, so that it has to be replaced.
        ends_by: when it must have ended, by the monotonic clock; None while it may live.
    """

    number: int
    popen: subprocess.Popen[bytes]
    ready: int
    started: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    is_outdated: bool = False
    ends_by: float | None = None


class Parent:
    """Keeps processes running.

    Args:
        command: the command that starts each process.
        sockets: the sockets on which all processes accept requests.
        management: for each process the sockets of its management listener.
        count: the number of processes.
        stop_delay: the setting in `[server:main]`.
        stop_time_limit: the setting in `[server:main]`.
        files: files that change when secrets are rotated; after a change all processes are replaced.
        files_interval: seconds between two checks of these files; 0 for no checks.
    """

    def __init__(
        self,
        command: Sequence[str],
        sockets: Sequence[socket.socket],
        management: Sequence[Sequence[socket.socket]],
        *,
        count: int,
        stop_delay: float,
        stop_time_limit: float,
        files: Sequence[Path] = (),
        files_interval: float = 0,
    ) -> None:
        self._command, self._sockets, self._management, self._count = command, sockets, management, count
        self._patience = stop_delay + stop_time_limit + _LATE
        self._files, self._files_interval = files, files_interval
        self._looked, self._seen = time.monotonic(), _texts(files)
        self._current: dict[int, _Process] = {}
        self._leaving: list[_Process] = []
        self._starting: _Process | None = None
        self._waiting: dict[int, float] = {}
        self._pauses: dict[int, float] = {}
        self._to_replace: list[int] = []
        self._has_answered = self._must_reload = False
        self._ending: int | None = None
        self._status = 0
        self._selector = selectors.DefaultSelector()
        # Nothing is ever written to it: a process that reads from it notices the end of the parent.
        self._life, self._alive = os.pipe()
        self._counts = ConnectionCounts.make(count)

    def run(self) -> int:
        """Start the processes and supervise them until the end. Returns the exit status."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        os.set_blocking(reading, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._selector.register(reading, selectors.EVENT_READ)
        for number, handler in (
            (signal.SIGTERM, self._end),
            (signal.SIGINT, self._end),
            (signal.SIGHUP, self._want_reload),
            (signal.SIGCHLD, lambda *_: None),
            (REPLACED, signal.SIG_IGN),
        ):
            signal.signal(number, handler)
        self._waiting = dict.fromkeys(range(1, self._count + 1), 0.0)
        while True:
            events = self._selector.select(_LOOK)
            if self._must_reload:
                self._reload()
            for key, _ in events:
                if key.data is None:
                    with suppress(BlockingIOError):
                        os.read(reading, 4096)
                else:
                    self._hear(key.data)
            self._reap()
            if self._ending is None:
                self._look_at_files()
                self._start_next()
            if self._ending is not None:
                self._end_all(self._ending)
                if not self._living():
                    return self._status
            self._kill_late()

    # ---- Signals: they only set flags -----------------------------------------------------------------

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = number

    def _want_reload(self, number: int, frame: FrameType | None) -> None:
        self._must_reload = True

    # ---- Between two checks ------------------------------------------------------------------------

    def _reload(self) -> None:
        self._must_reload = False
        self._to_replace = list(range(1, self._count + 1))
        if self._starting is not None:
            self._starting.is_outdated = True

    def _look_at_files(self) -> None:
        now = time.monotonic()
        if not self._files_interval or now - self._looked < self._files_interval:
            return
        self._looked = now
        if (texts := _texts(self._files)) != self._seen:
            changed = [str(path) for path in self._files if texts.get(path) != self._seen.get(path)]
            self._seen = texts
            log.info("all processes are replaced: %s changed", ", ".join(changed))
            self._must_reload = True

    def _living(self) -> list[_Process]:
        starting = [self._starting] if self._starting else []
        return [*self._current.values(), *self._leaving, *starting]

    def _start_next(self) -> None:
        """Start the next process that is due. Only one starts at a time: the next waits until it answers."""
        if self._starting is not None:
            return
        now = time.monotonic()
        if due := [number for number, at in self._waiting.items() if at <= now]:
            del self._waiting[due[0]]
            self._start(due[0])
        elif self._to_replace:
            number = self._to_replace[0]
            if number in self._waiting:  # it has ended, and is started again anyway
                self._to_replace.pop(0)
            else:
                self._start(number)

    def _start(self, number: int) -> None:
        hearing, ready = os.pipe()
        management = self._management[number - 1] if self._management else ()
        descriptors = [[item.fileno() for item in group] for group in (self._sockets, management)]
        shared = self._counts.descriptor
        parts = [[number], [int(not self._has_answered)], [ready], [self._life], [shared], *descriptors]
        try:
            popen = subprocess.Popen(  # noqa: S603 - the command by which this process was started
                self._command,
                pass_fds=[ready, self._life, shared, *descriptors[0], *descriptors[1]],
                env={**os.environ, VARIABLE: ";".join(",".join(map(str, part)) for part in parts)},
                # Ctrl-C in a terminal must reach only the parent, which ends the processes.
                start_new_session=True,
            )
        except OSError as error:
            # For example while the installation is being replaced, or if the system allows no more processes.
            os.close(hearing)
            self._note_failed_start(number, f"cannot be started: {error}")
            return
        finally:
            os.close(ready)
        self._starting = _Process(number, popen, hearing)
        self._selector.register(hearing, selectors.EVENT_READ, self._starting)

    def _hear(self, process: _Process) -> None:
        """Read from the pipe of a process: it answers requests, or the pipe is closed because the process has ended."""
        said = os.read(process.ready, 1)
        self._selector.unregister(process.ready)
        os.close(process.ready)
        if not said or process is not self._starting:
            return
        process.is_ready = self._has_answered = True
        log.info("process %d answers (pid %d)", process.number, process.popen.pid)
        self._starting = None
        if (old := self._current.get(process.number)) is not None:
            self._leave(old, REPLACED)
            self._leaving.append(old)
        self._current[process.number] = process
        if self._to_replace[:1] == [process.number] and not process.is_outdated:
            self._to_replace.pop(0)
            if not self._to_replace:
                log.info("reloaded: all processes were replaced")

    def _reap(self) -> None:
        """Forget processes that have ended, and note which must be started again."""
        for process in self._living():
            if (status := process.popen.poll()) is None:
                continue
            number, pid = process.number, process.popen.pid
            if process is self._starting:
                self._starting = None
                if self._ending is None:
                    self._note_failed_start(
                        number, f"ended with status {status} before it answered", process.is_outdated
                    )
            elif process in self._leaving:
                self._leaving.remove(process)
            else:
                del self._current[number]
                self._counts.forget(number - 1)
                if self._ending is None:
                    lived = time.monotonic() - process.started
                    self._start_again_later(number, f"(pid {pid}) ended with status {status}", lived)

    def _note_failed_start(self, number: int, why: str, is_outdated: bool = False) -> None:
        if number in self._current:
            what_now = (
                "the reload is tried again, because it was requested again"
                if is_outdated
                else "the processes that ran before continue"
            )
            log.error("reload given up: the new process %d %s; %s", number, why, what_now)
            if not is_outdated:
                self._to_replace = []
        elif self._has_answered:
            self._start_again_later(number, why)
        else:
            # Another attempt would fail, because the INI file or the database has the same error.
            log.error("process %d %s", number, why)
            self._status, self._ending = 1, signal.SIGTERM

    def _start_again_later(self, number: int, why: str, lived: float = 0.0) -> None:
        if lived >= STABLE:
            self._pauses.pop(number, None)
        pause = self._pauses.get(number, 0.0)
        self._pauses[number] = min(max(1.0, pause * 2), MAXIMUM_PAUSE)
        self._waiting[number] = time.monotonic() + pause
        log.error("process %d %s; it is started again%s", number, why, f" in {pause:.0f} s" if pause else "")

    def _leave(self, process: _Process, number: int) -> None:
        if process.ends_by is None:
            process.ends_by = time.monotonic() + self._patience
            process.popen.send_signal(number)

    def _end_all(self, number: int) -> None:
        for process in self._living():
            # A process that does not answer yet does not handle SIGINT.
            self._leave(process, number if process.is_ready else signal.SIGTERM)

    def _kill_late(self) -> None:
        now = time.monotonic()
        if self._starting and self._starting.ends_by is None and now - self._starting.started > START_LIMIT:
            log.error("process %d does not answer after %d s", self._starting.number, START_LIMIT)
            self._starting.ends_by = now
        for process in self._living():
            if process.ends_by is not None and now > process.ends_by:
                log.error("process %d (pid %d) does not end; it is killed", process.number, process.popen.pid)
                process.ends_by = now + _LATE
                process.popen.kill()


def _texts(files: Sequence[Path]) -> dict[Path, bytes]:
    """A digest of each file that can be read."""
    texts = {}
    for path in files:
        with suppress(OSError):
            texts[path] = hashlib.sha256(path.read_bytes()).digest()
    return texts


def command(arguments: Sequence[str], warnings: Sequence[str]) -> list[str]:
    """The command that starts a process: `pserve` with the arguments of this process."""
    return [sys.executable, "-P", *(f"-W{item}" for item in warnings), "-c", _PSERVE, *arguments[1:]]


def is_pserve(global_config: Mapping[str, str]) -> bool:
    """Whether `pserve` started this process, and does not itself start others (`--reload`)."""
    import hupper

    return global_config.get("__script__") == "pserve" and not hupper.is_active()


def on_signals(end: Callable[[int], None]) -> None:
    """Call `end` with the number of the first signal that asks this process to end. A second Ctrl-C ends it at once."""

    def handler(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        end(number)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT, REPLACED):
            signal.signal(number, handler)
