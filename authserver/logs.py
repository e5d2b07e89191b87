"""Lines of the log: one for each record, whatever text of others is in it."""

from __future__ import annotations

import logging

from authserver.engine.printable import made_visible


class OneLine(logging.Formatter):
    """Writes what is hidden in a record as escapes, and what follows its line, such as a traceback, indented.

    So nothing that others wrote looks like a record of its own, or is an order to a terminal.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        return made_visible(super().formatMessage(record))

    def formatException(self, exc_info: object) -> str:  # noqa: N802
        return _indented(super().formatException(exc_info))  # type: ignore[arg-type]  # as logging calls it

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(f"    {made_visible(line)}" for line in text.split("\n"))
