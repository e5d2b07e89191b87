"""`authserver stats`: how much of what, for people and for machines."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from authserver.cli import stats
from authserver.cli.configuration import Configuration
from authserver.engine.count_records import Gauge, Step
from authserver.engine.counting import Counting
from authserver.engine.ports import StorageUnavailable
from authserver.engine.records import Event, EventType
from authserver.event_readers import Reading
from authserver.storage.statistics import SqlStatistics
from authserver.testing.records import a_client, an_event

NOW = datetime(2026, 11, 30, 10, 42, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture(autouse=True)
def clock():
    with time_machine.travel(NOW, tick=False):
        yield


def issued(at: datetime, grant_type: str = "authorization_code", **changes: Any) -> Event:
    return an_event(at=at, details={"grant_type": grant_type}, **{"client_id": "notes"} | changes)


def refused(at: datetime, **changes: Any) -> Event:
    values = {"type": EventType.TOKEN_REFUSED, "client_id": "notes", "reason": "code-claimed"}
    return an_event(at=at, **values | changes)


def stored(ini: Path, *events: Event, counted: bool = True) -> None:
    application = Configuration(ini).application()
    try:
        with application.storage.begin() as stores:
            for event in events:
                stores.events.add(event)
        reading = Reading(application.storage, Counting())
        while counted and reading.work():
            pass
    finally:
        application.close()


@pytest.fixture
def some(run, ini: Path) -> None:
    """Of three days: two clients, and sign-ins."""
    stored(
        ini,
        *(issued(NOW - 2 * DAY + n * HOUR) for n in range(6)),
        *(issued(NOW - n * HOUR, "refresh_token") for n in range(3)),
        issued(NOW - HOUR, "client_credentials", client_id="service"),
        refused(NOW - HOUR),
        refused(NOW - 2 * HOUR, details={"more": {"count": 1233, "sources": 2}}),
        an_event(at=NOW, type=EventType.SIGNED_IN, client_id=None),
        an_event(at=NOW, type=EventType.SIGN_IN_REFUSED, client_id=None, reason="password-wrong"),
    )


def asked(run, *options: str) -> Any:
    answer = run("stats", *options, "--json")
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


def lines(run, *options: str) -> list[str]:
    answer = run("stats", *options)
    assert answer.exit_code == 0, answer.output
    return [line.rstrip() for line in answer.stdout.splitlines()]


def test_the_overview_has_each_measure_with_a_small_chart(run, some) -> None:
    shown = lines(run, "--since", "2d")
    assert shown[0] == "From 2026-11-28 10:00:00Z until 2026-11-30 11:00:00Z:"
    (issued_line,) = (line for line in shown if line.startswith("issued"))
    assert issued_line.split()[1] == "7"
    assert issued_line.split(maxsplit=2)[2].rstrip() == "██████" + " " * 41 + "█"
    (refused_line,) = (line for line in shown if line.startswith("refused"))
    assert refused_line.split()[1] == "1,235"
    # However few: it is seen beside many.
    assert refused_line.endswith("█▁")
    assert "code-claimed    token.refused    1,235" in shown
    assert "At 2026-11-30 10:42:00Z: active grants 0, sessions 0, clients 2, people 1" in shown
    assert not any("Not counted yet" in line for line in shown)


def test_the_overview_for_machines(run, some) -> None:
    answer = asked(run, "--since", "3d", "--client", "notes")
    assert (answer["since"], answer["until"]) == ("2026-11-27T00:00:00Z", "2026-12-01T00:00:00Z")
    assert answer["step"] == "day"
    assert answer["counts"]["issued"] == 6
    assert answer["counts"]["sign_ins"] == 0
    assert answer["series"]["issued"] == [
        {"at": f"2026-{day}T00:00:00Z", "count": count}
        for day, count in (("11-27", 0), ("11-28", 6), ("11-29", 0), ("11-30", 0))
    ]
    assert answer["reasons"] == [{"event": "token.refused", "reason": "code-claimed", "count": 1235}]
    assert answer["not_counted_yet"] == {"events": 0, "since": None}
    assert "now" not in answer
    everybody = asked(run)
    assert everybody["now"] == {
        "at": "2026-11-30T10:42:00Z",
        "active_grants": 0,
        "sessions": 0,
        "clients": 2,
        "people": 1,
    }
    assert everybody["since"] == "2026-10-31T00:00:00Z"
    assert asked(run, "--since", "365d")["step"] == "month"
    # Of 49 hours.
    assert asked(run, "--since", "2d")["step"] == "hour"


def test_a_row_for_each_client_with_its_name(run, ini: Path, some) -> None:
    with Configuration(ini).engine() as engine:
        engine.stores.clients.add(a_client(client_id="notes", name="My Notes"))
    shown = lines(run, "--by", "client", "--since", "2d")
    assert shown[2].split() == [
        "client",
        "issued",
        "refreshed",
        "refused",
        *["sign-ins"] * 2,
        "refused",
        "all",
    ]
    rows = [line.split("  ") for line in shown[3:6]]
    assert [row[0] for row in rows] == [
        "notes (My Notes)",
        "service",
        "(others, or none)",
    ]
    assert shown[3].endswith("█" * 20)
    answer = asked(run, "--by", "client", "--since", "2d")
    assert [(row["client"], row["counts"]["issued"]) for row in answer["rows"]] == [
        ("notes", 6),
        ("service", 1),
        (None, 0),
    ]
    assert not answer["more"]
    cut = lines(run, "--by", "client", "--since", "2d", "--limit", "1")
    assert cut[-1] == "There are more; show them with a higher --limit."


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (
            ["--by", "grant-type", "--since", "3d"],
            [(None, 1235), ("authorization_code", 6), ("refresh_token", 3), ("client_credentials", 1)],
        ),
        (["--by", "reason", "--since", "3d"], [("code-claimed", 1235), ("password-wrong", 1)]),
        (
            ["--by", "hour", "--since", "2h"],
            [("2026-11-30T08:00:00Z", 1235), ("2026-11-30T09:00:00Z", 3), ("2026-11-30T10:00:00Z", 3)],
        ),
        (
            ["--by", "day", "--since", "1d", "--client", "service"],
            [("2026-11-29T00:00:00Z", 0), ("2026-11-30T00:00:00Z", 1)],
        ),
        (
            ["--by", "month", "--since", "2026-10-20", "--grant-type", "refresh_token"],
            [("2026-10-01T00:00:00Z", 0), ("2026-11-01T00:00:00Z", 3)],
        ),
        (["--by", "day", "--since", "2026-11-28", "--until", "2026-11-29"], [("2026-11-28T00:00:00Z", 6)]),
    ],
)
def test_rows_by_something(run, some, options: list[str], rows: list[tuple[str | None, int]]) -> None:
    answer = asked(run, *options)
    name = options[1].replace("-", "_")
    assert [(row[name], sum(row["counts"].values())) for row in answer["rows"]] == rows
    shown = lines(run, *options)
    assert len(shown) == len(rows) + 3


def test_without_anything_it_says_so(run) -> None:
    """`demo` made a key, a person and two clients."""
    shown = lines(run, "--by", "client")
    assert shown[2] == "Nothing was counted in this time."
    overview = lines(run)
    assert [line.split()[-2:] for line in overview if line.startswith("issued")] == [["0", "-"]]
    assert asked(run, "--by", "reason")["rows"] == []


def test_what_is_not_counted_yet_is_told(run, ini: Path) -> None:
    first = NOW - 9 * HOUR
    stored(ini)
    stored(ini, issued(first), issued(NOW), counted=False)
    assert lines(run, "--by", "hour")[-1] == (
        "Not counted yet: about 2 events, the first of 2026-11-30 01:42:00Z. Servers count them in the background while they "
        "run."
    )
    assert asked(run)["not_counted_yet"] == {"events": 2, "since": "2026-11-30T01:42:00Z"}


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--since", "2026-12-01"], 1, "the beginning of the time is not before its end"),
        (["--since", "60d", "--by", "hour"], 1, "more than 1,200 hours: ask for days"),
        (["--since", "120d", "--until", "119d", "--by", "hour"], 1, "hours are kept for 90 days"),
        (["--since", "9999d"], 1, "longer than 3660 days"),
        (["--by", "client", "--client", "notes"], 1, "leave out one of the two"),
        (["--client", "a\x1b[2Jb"], 1, "no client has such an id"),
        (["--until", "0001-01-02"], 1, "nothing is counted before 1970"),
        (["--since", "9999-12-31", "--until", "9999-12-31T23:59"], 1, "nothing is counted before 1970"),
        (["--rebuild", "--since", "9999-12-31"], 1, "--since is in the future"),
        (["--since", "yesterday"], 2, "neither like 7d"),
        (["--by", "week"], 2, "'week' is not one of"),
        (["--limit", "0"], 2, "0 is not in the range"),
        (["--rebuild", "--by", "day"], 2, "--rebuild takes no other option than --since and --json"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(run, options: list[str], status: int, says: str) -> None:
    answer = run("stats", *options)
    assert answer.exit_code == status
    assert says in answer.stderr
    assert "Traceback" not in answer.output


def test_a_plain_terminal_gets_plain_letters(run, some, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    for options in (["--since", "2d"], ["--by", "client"]):
        shown = "\n".join(lines(run, *options))
        assert shown.isascii()
        assert "#" in shown or "@" in shown


def test_a_narrow_terminal_gets_several_lines(run, some, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut off: charts get shorter, and rows get longer."""
    monkeypatch.setattr(stats, "width", lambda: 60)
    shown = lines(run, "--by", "client", "--since", "2d")
    assert shown[2].split() == ["client", "how", "much", "all"]
    assert [line.split() for line in shown[3:6]] == [
        ["notes", "issued", "6", "█" * 20],
        ["refreshed", "3"],
        ["refused", "1,235"],
    ]
    overview = lines(run, "--since", "2d")
    (line,) = (line for line in overview if line.startswith("issued"))
    # Two hours in each of 25 characters.
    assert line.endswith("███" + " " * 20 + "▄")


def test_stored_text_never_reaches_a_terminal_as_it_is(run, ini: Path) -> None:
    """An id from a document, a reason of a plugin: whatever is stored is shown with escapes."""
    evil = "\x1b[2Jevil\u202e"
    stored(ini, refused(NOW, client_id=evil, reason=evil), issued(NOW, evil))
    for options in ([], ["--by", "client"], ["--by", "reason"], ["--by", "grant-type"]):
        for more in ([], ["--json"]):
            answer = run("stats", *options, *more)
            assert answer.exit_code == 0
            assert "evil" in answer.stdout or not options
            assert not {"\x1b", "\u202e"} & set(answer.stdout)


# ---- counting anew ---------------------------------------------------------------------------------------


def spoil(ini: Path) -> None:
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as database, database:
        database.execute("UPDATE event_counts SET count = count + 5")


def test_counted_anew_counts_are_right_again(run, ini: Path, some) -> None:
    right = asked(run, "--since", "9d")
    months = asked(run, "--by", "month")
    spoil(ini)
    assert asked(run, "--since", "9d") != right
    answer = run("stats", "--rebuild")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines()[0].endswith(" events again, from 2026-11-28 on.")
    assert "stay the same" in answer.stdout
    assert asked(run, "--since", "9d") == right
    assert asked(run, "--by", "month") == months


def test_days_without_all_their_events_are_left_alone(run, ini: Path) -> None:
    """Refusals are kept for 14 days, other events for a year."""
    old = NOW - 40 * DAY
    stored(ini, issued(old), refused(old), issued(NOW), refused(NOW))
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as database, database:
        database.execute("DELETE FROM events WHERE type = 'token.refused' AND at < '2026-11-10'")
    before = asked(run, "--since", "60d", "--by", "day")
    answer = json.loads(run("stats", "--rebuild", "--json").stdout)
    assert answer["since"] == "2026-10-21T00:00:00Z"
    assert answer["refusals_since"] == "2026-11-18T00:00:00Z"
    assert asked(run, "--since", "60d", "--by", "day") == before
    assert "and of refusals before 2026-11-18, stay" in run("stats", "--rebuild").stdout
    later = json.loads(run("stats", "--rebuild", "--since", "3d", "--json").stdout)
    assert later["since"] == "2026-11-27T00:00:00Z"


def test_where_no_day_is_whole_nothing_is_counted_anew(run, ini: Path) -> None:
    stored(ini, issued(NOW))
    ini.write_text(
        ini.read_text().replace("# authserver.event_lifetime = 31536000", "authserver.event_lifetime = 60")
    )
    answer = run("stats", "--rebuild")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == "Nothing was counted again: events are not kept long enough for a whole day.\n"
    told = json.loads(run("stats", "--rebuild", "--json").stdout)
    assert told == {"events": 0, "days": 0, "since": None, "refusals_since": None}
    assert asked(run, "--since", "1d")["counts"]["issued"] == 1


def test_what_cannot_be_counted_in_time_is_shown_as_it_was_noted(
    run, ini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_slow(*_: object) -> None:
        raise StorageUnavailable("canceling statement due to statement timeout")

    with Configuration(ini).engine() as engine:
        engine.stores.statistics.note_sample(Step.HOUR, NOW.replace(minute=0), dict.fromkeys(Gauge, 7))
    monkeypatch.setattr(SqlStatistics, "current", too_slow)
    assert "At 2026-11-30 10:00:00Z: active grants 7, sessions 7, clients 7, people 7" in lines(run)


def test_a_database_of_another_version_is_left_alone(bare, ini: Path) -> None:
    answer = bare("stats", "--rebuild")
    assert answer.exit_code == 1
    assert "Traceback" not in answer.output
    assert not os.path.exists(ini.parent / ".local/authserver.sqlite") or answer.stderr
