"""Lines of the log: one for each record, also if it contains text from outside."""

from __future__ import annotations

import logging

from authserver.engine.printable import made_visible

# Of a traceback: what a plugin raises may be megabytes long, or come out of a thousand calls.
MAXIMUM_LINES = 200
MAXIMUM_LINE = 1_000


class OneLine(logging.Formatter):
    """Writes hidden characters as escapes, and indents what follows the line of a record, such as a traceback.

    So no text from outside can look like a separate record or control a terminal.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        return made_visible(super().formatMessage(record))

    def formatException(self, exc_info: object) -> str:  # noqa: N802
        return _indented(super().formatException(exc_info))  # type: ignore[arg-type]  # as logging calls it

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    lines = text.split("\n")
    if len(lines) > MAXIMUM_LINES:
        half = MAXIMUM_LINES // 2
        lines = [*lines[:half], f"… {len(lines) - 2 * half} more lines …", *lines[-half:]]
    return "\n".join(f"    {made_visible(_shortened(line))}" for line in lines)


def _shortened(line: str) -> str:
    return line if len(line) <= MAXIMUM_LINE else f"{line[:MAXIMUM_LINE]}…"
