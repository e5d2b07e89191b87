"""Lines of the log."""

from __future__ import annotations

import configparser
import json
import logging
import logging.config
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from authserver.engine.timeline import Timeline, following
from authserver.logs import MAXIMUM_LINE, MAXIMUM_LINES, MEMBERS, JsonLine, OneLine

CHECKOUT = Path(__file__).parents[1]
HOSTILE = "ann\n2026-01-01 00:00:00 INFO authserver: \x1b[2J\u202eall is well\x9b"
DAY = timedelta(days=1)
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


def record_of(message: str = "done", *arguments: object, **more: object) -> logging.LogRecord:
    record = logging.LogRecord("authserver.web", logging.INFO, "", 0, message, arguments, None)
    record.created = 1_800_000_000.25
    vars(record).update(more)
    return record


def test_a_line_has_the_id_of_the_request() -> None:
    """And a hyphen outside of requests: the server writes lines of its own."""
    formatter = OneLine("%(message)s [%(request_id)s]")
    assert formatter.format(record_of()) == "done [-]"
    with following(Timeline(request_id="8f3a")):
        assert formatter.format(record_of()) == "done [8f3a]"
    assert formatter.format(record_of()) == "done [-]"


def test_a_line_of_json_has_these_members() -> None:
    line = json.loads(JsonLine().format(record_of("done in %d ms", 3)))
    assert line == {
        "time": "2027-01-15T08:00:00.250+00:00",
        "level": "INFO",
        "logger": "authserver.web",
        "message": "done in 3 ms",
    }
    with following(Timeline(request_id="8f3a", trace_id="0af7")):
        line = json.loads(JsonLine().format(record_of()))
    assert (line["request_id"], line["trace_id"]) == ("8f3a", "0af7")


def test_facts_of_a_record_are_members_of_its_json() -> None:
    """Under names of their own: none takes the place of what every line has."""
    facts = {"route": "token", "status": 200, "level": "none", "at": DAY}
    line = json.loads(JsonLine().format(record_of(**{MEMBERS: facts})))
    assert (line["route"], line["status"], line["level"], line["at"]) == ("token", 200, "INFO", str(DAY))


@pytest.mark.parametrize("text", [HOSTILE, "\ud800 \u2028 \u0085 \x7f", "Zoë 🙂"])
def test_json_is_one_line_of_ascii_whatever_is_in_it(text: str) -> None:
    """T094: also after a program has read it, no text is an order for a terminal or a second line."""
    try:
        raise ValueError(text)
    except ValueError:
        record = record_of("refused: %s", text, exc_info=sys.exc_info(), **{MEMBERS: {"of": text}})
    written = JsonLine().format(record)
    assert written.isascii()
    assert written.isprintable()
    line = json.loads(written)
    assert line["message"].isprintable()
    assert all(each.isprintable() for each in line["exception"].split("\n"))
    assert "ValueError" in line["exception"]


def test_a_long_traceback_is_cut_in_json_too() -> None:
    def deeper(depth: int) -> None:
        if not depth:
            raise ValueError("x" * 10_000_000)
        try:
            deeper(depth - 1)
        finally:
            pass

    try:
        deeper(400)
    except ValueError:
        record = record_of(exc_info=sys.exc_info())
    lines = json.loads(JsonLine().format(record))["exception"].split("\n")
    assert len(lines) <= MAXIMUM_LINES + 1
    assert max(map(len, lines)) <= MAXIMUM_LINE + 1


@pytest.mark.parametrize("name", ["development.ini", "production.ini"])
def test_one_line_of_the_ini_file_chooses_json(name: str, tmp_path: Path, capfd) -> None:
    """As pserve reads it."""
    text = (CHECKOUT / name).read_text().replace("\nformatter = line\n", "\nformatter = json\n")
    (tmp_path / name).write_text(text)
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    levels = {name: logging.getLogger(name).level for name in ("", "authserver", "alembic")}
    try:
        logging.config.fileConfig(str(tmp_path / name), disable_existing_loggers=False)
        logging.getLogger("authserver").warning("one %s", HOSTILE)
        for handler in root.handlers:
            handler.flush()
    finally:
        root.handlers = before
        for logger, level in levels.items():
            logging.getLogger(logger).setLevel(level)
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["message"].startswith("one ann")


@pytest.mark.parametrize("name", ["development.ini", "production.ini"])
def test_the_servers_that_we_ship_write_such_lines(name: str) -> None:
    ini = configparser.RawConfigParser()
    ini.read(CHECKOUT / name)
    assert ini["formatter_line"]["class"] == "authserver.logs.OneLine"
