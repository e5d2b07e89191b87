"""What a load client did and saw: each request is written down before it is sent, and each answer when it has come."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What means that the request was not answered: whether it had an effect is not known.
LOST = 0


@dataclass
class Step:
    """One request.

    Attributes:
        name: what it was, such as `redeem`.
        story: which family of tokens it belongs to.
        sent: what the outcome is looked up by afterwards, such as the code.
        began, ended: seconds of the monotonic clock.
        status: of the answer; LOST if none came, None as long as none has come.
        answer: its members, if it was JSON.
        headers: of the answer, in lower case.
    """

    number: int
    name: str
    story: int
    sent: Mapping[str, Any]
    began: float
    ended: float = 0.0
    status: int | None = None
    answer: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """Whether the outcome is known: after a 5xx or a lost answer it may be either."""
        return self.status is not None and LOST < self.status < 500

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Ledger:
    """All steps of all load clients, in memory and in a file that survives them."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", buffering=1)
        self._numbers, self._stories = itertools.count(1), itertools.count(1)
        self._lock = threading.Lock()
        self._steps: list[Step] = []

    def new_story(self) -> int:
        return next(self._stories)

    def step(self, name: str, story: int, sent: Mapping[str, Any], ask: Callable[[], Any]) -> Step:
        """Write down what is going to be sent, send it, and write down the answer. `ask` raises OSError for none."""
        step = Step(next(self._numbers), name, story, sent, time.monotonic())
        self._write({"intent": step.number, "name": name, "story": story, **sent})
        with self._lock:
            self._steps.append(step)
        try:
            answer = ask()
            status, body, headers = answer.status, answer.body, answer.headers
        except OSError as error:
            status, body, headers = LOST, str(error).encode(), {}
        step.ended = time.monotonic()
        step.headers = {name.lower(): value for name, value in headers.items()}
        if "json" in step.headers.get("content-type", "") and body:
            step.answer = json.loads(body)
        step.status = status
        self._write({"result": step.number, "status": status, "answer": step.answer})
        return step

    def steps(self, *names: str) -> Iterator[Step]:
        """Those of these names, or all of them, in the order in which they were sent."""
        with self._lock:
            steps = list(self._steps)
        return (step for step in steps if not names or step.name in names)

    def statuses(self) -> Counter[int | None]:
        return Counter(step.status for step in self.steps())

    def close(self) -> None:
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
