"""A plugin for tests alone: the process stops at a named point of a transaction, so that it can be killed there."""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import sqlalchemy as sa
import time_machine
from sqlalchemy.engine import Engine

from authserver.api import hookimpl

# Each is just before this statement.
STATEMENTS = {
    "before-claim": re.compile(r"UPDATE tokens SET claimed_at"),
    "before-token": re.compile(r"INSERT INTO tokens"),
    "before-event": re.compile(r"INSERT INTO events"),
    "before-commit": re.compile(r"COMMIT"),
}
AFTER_COMMIT = "before-answer"
POINTS = (*STATEMENTS, AFTER_COMMIT)
# Seconds for which a process stands there at most.
STANDS = 20


@dataclass(frozen=True)
class FaultPoints:
    """Stops the process at a point while there is a file of its name in the folder. It stops once for each file.

    What goes to PostgreSQL in one round trip is looked at, one after the other, before any of it is sent.
    """

    folder: str
    immediate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for engine_event, listener in (
            ("before_cursor_execute", self._sending),
            ("commit", self._committing),
        ):
            sa.event.listen(Engine, engine_event, listener)

    @hookimpl
    def observe(self) -> None:
        self._reach(AFTER_COMMIT)

    def _sending(self, _connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        self._look(text)

    def _committing(self, connection: sa.Connection) -> None:
        driver = connection.connection.driver_connection
        # Nothing is sent where nothing was begun.
        if isinstance(driver, psycopg.Connection):
            is_open = driver.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
        else:
            is_open = driver.in_transaction
        if is_open:
            self._look("COMMIT")

    def _look(self, text: str) -> None:
        for point, pattern in STATEMENTS.items():
            if pattern.match(text):
                self._reach(point)

    def _reach(self, point: str) -> None:
        try:
            # Of several threads and processes, one stops.
            os.rename(Path(self.folder, point), Path(self.folder, f"{point}.reached"))
        except OSError:
            return
        Path(self.folder, f"{point}.process").write_text(str(os.getpid()))
        Path(self.folder, f"{point}.process").rename(Path(self.folder, f"{point}.stopped"))
        time.sleep(STANDS)


@dataclass(frozen=True)
class SteppedClock:
    """Sets the clock of the process as many seconds ahead as the file says, and says in `FILE.seen` that it has."""

    file: str

    def __post_init__(self) -> None:
        threading.Thread(target=self._follow, daemon=True).start()

    @hookimpl
    def observe(self) -> None:
        """A plugin serves a hook."""

    def _follow(self) -> None:
        ahead, travel = 0.0, None
        while True:
            time.sleep(0.05)
            try:
                wanted = float(Path(self.file).read_text())
            except (OSError, ValueError):
                continue
            if wanted == ahead:
                continue
            if travel is not None:
                travel.stop()
            ahead = wanted
            travel = time_machine.travel(datetime.now(UTC) + timedelta(seconds=ahead), tick=True)
            travel.start()
            Path(f"{self.file}.seen").write_text(str(ahead))


class Trap:
    """The other side: set a point, and wait until a process stands there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def wait(self, point: str, seconds: float = 10) -> int:
        """The id of the process that stopped at this point. Raises AssertionError if none did."""
        stopped = self._folder / f"{point}.stopped"
        stopped.unlink(missing_ok=True)
        (self._folder / point).touch()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if stopped.exists():
                return int(stopped.read_text())
            time.sleep(0.01)
        raise AssertionError(f"nobody came to {point} within {seconds} s")
