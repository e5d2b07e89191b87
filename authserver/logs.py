"""Lines of the log: one for each record, also if it contains text from outside, with the id of the request."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from authserver.engine.printable import made_visible
from authserver.engine.timeline import current

# Of a traceback: what a plugin raises may be megabytes long, or come out of a thousand calls.
MAXIMUM_LINES = 200
MAXIMUM_LINE = 1_000
# The attribute of a record with its facts, by name, which are members of a JSON line: `extra={MEMBERS: {...}}`.
MEMBERS = "members"


class OneLine(logging.Formatter):
    """Writes hidden characters as escapes, and indents what follows the line of a record, such as a traceback.

    So no text from outside can look like a separate record or control a terminal. `%(request_id)s` in the format is
    the id of the request during which the line was written; `-` outside of requests.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        """The line with hidden characters as escapes, and the request id for `%(request_id)s`."""
        timeline = current()
        record.request_id = timeline.request_id if timeline else "-"
        return made_visible(super().formatMessage(record))

    def formatException(self, exc_info: object) -> str:  # noqa: N802 - likewise
        """The traceback, each line indented."""
        return _indented(super().formatException(exc_info))  # type: ignore[arg-type]  # as logging calls it

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - likewise
        """The stack, each line indented."""
        return _indented(super().formatStack(stack_info))


class JsonLine(logging.Formatter):
    """Writes each record as a JSON object in one line, in ASCII, for programs that collect logs.

    The members are `time` (ISO 8601, UTC), `level`, `logger` and `message`; `request_id` and `trace_id` during a
    request; `exception`, a traceback in one text, where there is one; and the facts of the record. Hidden characters
    are written as escapes, so that the texts are safe for a terminal, too.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": made_visible(record.getMessage()),
        }
        if timeline := current():
            line |= {"request_id": timeline.request_id, "trace_id": timeline.trace_id}
        if record.exc_info and record.exc_info[0]:
            line["exception"] = "\n".join(_bounded(self.formatException(record.exc_info)))
        if record.stack_info:
            line["stack"] = "\n".join(_bounded(record.stack_info))
        facts = getattr(record, MEMBERS, {})
        return json.dumps(line | {name: facts[name] for name in facts if name not in line}, default=str)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in _bounded(text))


def _bounded(text: str) -> list[str]:
    """The lines of a text, with escapes for what is hidden in them; of a long one the first and the last."""
    lines = text.split("\n")
    if len(lines) > MAXIMUM_LINES:
        half = MAXIMUM_LINES // 2
        lines = [*lines[:half], f"… {len(lines) - 2 * half} more lines …", *lines[-half:]]
    return [made_visible(_shortened(line)) for line in lines]


def _shortened(line: str) -> str:
    return line if len(line) <= MAXIMUM_LINE else f"{line[:MAXIMUM_LINE]}…"
