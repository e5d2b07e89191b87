"""Lines of the log."""

from __future__ import annotations

import configparser
import logging
import sys
from pathlib import Path

import pytest

from authserver.logs import OneLine

CHECKOUT = Path(__file__).parents[1]
HOSTILE = "ann\n2026-01-01 00:00:00 INFO authserver: \x1b[2J\u202eall is well\x9b"
LINE = "%(levelname)s %(name)s: %(message)s"


def test_a_record_is_one_line_whatever_is_in_it() -> None:
    """T094: nothing that others wrote begins a line, or reaches a terminal as an order."""
    record = logging.LogRecord("authserver", logging.ERROR, "", 0, "refused: %s", (HOSTILE,), None)
    assert OneLine(LINE).format(record) == (
        r"ERROR authserver: refused: ann\n2026-01-01 00:00:00 INFO authserver: \x1b[2J\u202eall is well\x9b"
    )


def test_a_traceback_follows_its_line_indented() -> None:
    """T094: the message of an exception may hold what others wrote."""
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record = logging.LogRecord("authserver", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    first, *rest = OneLine(LINE).format(record).split("\n")
    assert first == "ERROR authserver: failed"
    assert any("ValueError: ann" in line for line in rest)
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("name", ["development.ini", "production.ini"])
def test_the_servers_that_we_ship_write_such_lines(name: str) -> None:
    ini = configparser.RawConfigParser()
    ini.read(CHECKOUT / name)
    assert ini["formatter_line"]["class"] == "authserver.logs.OneLine"
