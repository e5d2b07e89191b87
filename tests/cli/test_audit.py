"""`authserver audit`: what happened is found again, told in words and written out."""

from __future__ import annotations

import json
import shlex
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
import time_machine

from authserver.cli.audit import search
from authserver.cli.configuration import Configuration
from authserver.engine import audit
from authserver.engine.records import Event, EventType
from authserver.testing.records import an_event

AT = datetime(2026, 11, 30, 10, 42, 5, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def stored(ini: Path, *events: Event) -> None:
    with Configuration(ini).engine() as engine:
        for event in events:
            engine.stores.events.add(event)


@pytest.fixture
def people(run, ini: Path) -> dict[str, str]:
    """The user id of demo, and events of two clients around 10:42."""
    with Configuration(ini).engine() as engine:
        demo = engine.stores.users.find_by_name("demo")
        assert demo is not None
    refused = {"type": EventType.TOKEN_REFUSED, "client_id": "notes", "actor": "client:notes"}
    stored(
        ini,
        an_event(event_id="-issued", at=AT - MINUTE, client_id="notes", actor="client:notes", grant_id="g1"),
        an_event(event_id="refused", at=AT, reason="scope-not-registered", **refused),
        an_event(
            event_id="consent", at=AT + MINUTE, type=EventType.CONSENT_GIVEN, client_id="notes",
            user_id=demo.user_id, actor=f"user:{demo.user_id}", source="198.51.100.7",
        ),
        an_event(event_id="other", at=AT, client_id="other", actor="client:other", user_id="user_gone"),
        an_event(event_id="again", at=AT + 2 * MINUTE, reason="code-claimed", **refused),
    )  # fmt: skip
    return {"demo": demo.user_id}


@pytest.fixture
def found(run, people: dict[str, str]) -> Callable[..., list[str]]:
    """The ids that a search gives, in its order."""

    def search(*options: str) -> list[str]:
        result = run("audit", "search", *options, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(line)["event_id"] for line in result.stdout.splitlines()]

    return search


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--client", "notes"], ["again", "consent", "refused", "-issued"]),
        (["--client", "notes", "--event", "token.refused"], ["again", "refused"]),
        (["--client", "notes", "--event", "token.issued", "--event", "consent.given"], ["consent", "-issued"]),
        (["--refused", "--until", "2026-11-30T10:44"], ["refused"]),
        (["--refused", "--client", "notes", "--event", "token.refused"], ["again", "refused"]),
        (["--user", "Demo", "--event", "consent.given"], ["consent"]),
        (["--user", "user_gone"], ["other"]),
        (["--grant", "g1"], ["-issued"]),
        (["--actor", "client:other", "--since", "2026-11-30T10:00"], ["other"]),
        (["--source", "198.51.100.7", "--client", "notes"], ["consent"]),
        (["--reason", "code-claimed", "--refused"], ["again"]),
        (["--error-id", "-issued"], ["-issued"]),
        (["--client", "notes", "--since", "2026-11-30T11:42:05.123456+01:00"], ["again", "consent", "refused"]),
        (["--client", "notes", "--until", "2026-11-30T10:42:05.123456"], ["-issued"]),
        (["--client", "nobody"], []),
    ],
    ids=" ".join,
)  # fmt: skip
def test_events_are_found_by_what_they_are_about(
    found: Callable[..., list[str]], options: list[str], ids: list[str]
) -> None:
    """R-12: newest first, and only those that fit all options."""
    assert found(*options) == ids


def test_an_id_is_not_the_name_of_somebody_else(
    run, found: Callable[..., list[str]], people: dict[str, str]
) -> None:
    added = run("user", "add", people["demo"].lower(), "--password-stdin", stdin="a good password\n")
    assert added.exit_code == 0, added.output
    assert "consent" in found("--user", people["demo"])


def test_a_line_of_json_has_all_that_is_kept_of_an_event(run, people: dict[str, str]) -> None:
    result = run("audit", "search", "--error-id", "consent", "--json")
    assert json.loads(result.stdout) == {
        "event_id": "consent",
        "type": "consent.given",
        "at": "2026-11-30T10:43:05.123456Z",
        "actor": f"user:{people['demo']}",
        "request_id": "",
        "source": "198.51.100.7",
        "client_id": "notes",
        "user_id": people["demo"],
        "grant_id": None,
        "reason": "",
        "decisions": [],
        "details": {},
        "cursor": "20261130T104305.123456Z_consent",
    }


def test_people_see_a_table_with_names(run, ini: Path, people: dict[str, str]) -> None:
    shown = run("audit", "search", "--client", "notes").stdout
    table, _, hint = shown.partition("\n\n")
    assert hint == f"One of them whole: authserver -c {ini} audit show ERROR_ID\n"
    heading, _again, consent, refused, _issued = (line.split() for line in table.splitlines())
    assert heading == ["time", "event", "actor", "client", "user", "reason", "error", "id"]
    assert consent == ["2026-11-30", "10:43:05Z", "consent.given", "user", "notes", "demo", "-", "consent"]
    assert refused[2:] == ["token.refused", "client", "notes", "-", "scope-not-registered", "refused"]
    assert run("audit", "search", "--client", "nobody").stdout == "There is no such event.\n"


def test_a_narrow_terminal_gets_several_lines_for_an_event(
    run, people: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No word is broken, and an id can be copied."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")  # which has 80 columns, and no colours
    table, _, _ = run("audit", "search", "--client", "notes").stdout.partition("\n\n")
    lines = [" ".join(line.split()) for line in table.splitlines()]
    assert lines[:2] == ["time event", "error id reason who"]
    assert lines[2:4] == ["2026-11-30 10:44:05Z token.refused by client", "again code-claimed client notes"]
    assert lines[4:7] == ["2026-11-30 10:43:05Z consent.given by user", "consent client notes", "user demo"]
    assert max(map(len, table.splitlines())) <= 80


def test_pages_follow_each_other_by_the_command_that_each_ends_with(run, ini: Path, people) -> None:
    """T146: also where events are stored meanwhile, and have the same time."""
    stored(ini, *(an_event(event_id=f"e{n:02}", at=AT, client_id="a b'c") for n in range(7)))
    ids: list[str] = []
    options = ["--client", "a b'c", "--since", "2026-11-30", "--limit", "3", "--json"]
    while True:
        result = run("audit", "search", *options)
        assert result.exit_code == 0, result.output
        ids += [json.loads(line)["event_id"] for line in result.stdout.splitlines()]
        if not result.stderr:
            break
        stored(ini, an_event(event_id=f"new{len(ids)}", at=AT + MINUTE, client_id="a b'c"))
        words = shlex.split(result.stderr.strip().splitlines()[-1])
        options = words[words.index("search") + 1 :]
        assert options[-2] == "--after"
    assert ids == [f"e{n:02}" for n in reversed(range(7))]
    # The last page is full, and says that nothing follows.
    assert "There are more" not in run("audit", "search", "--error-id", "refused", "--limit", "1").output
    assert "There are more" in run("audit", "search", "--client", "notes", "--limit", "1").stdout


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--event", "token.isued"], "'token.isued' is no event type; did you mean token.issued"),
        (["--event", "token"], "did you mean token.issued or token.refused?"),
        (["--event", "key.gone"], "did you mean key.created or key.revoked or key.resealed?"),
        (["--event", "xyz"], "there are authorization.refused, client.changed"),
        (["--since", "yesterday"], "neither like 7d, 12h or 30m nor a time in ISO 8601, such as 2026-11-30T10:42"),
        (["--until", "2026-13-01"], "a time in ISO 8601"),
        (["--since", "1d", "--until", "2d"], "the beginning of the time is not before its end"),
        (["--source", "192.0.2"], "is not a network address such as 192.0.2.7"),
        (["--source", "192.0.2.7"], "to search by source alone"),
        (["--actor", "stranger", "--request-id", "x"], "to search by request_id and actor alone"),
        (["--user", "nobody"], "nobody: no such user"),
        (["--user", "a b"], "a b: no such user"),
        (["--limit", "0"], "0 is not in the range 1<=x<=100"),
        (["--limit", "101"], "101 is not in the range 1<=x<=100"),
        (["--after", "x"], "'x' is not a cursor"),
        (["--after", "20261130T104305.123456Z_"], "is not a cursor"),
        (["--after", "20261330T104305.123456Z_a"], "is not a cursor"),
        (["--after", "20261130T104305.123456Z_a\0"], "is not a cursor"),
        (["--client", "a\0b"], "client_id: no event contains such characters"),
        (["--client", "a\udcffb"], "is not valid UTF-8"),
        (["--refused", "--event", "token.issued"], "token.issued is no type of refusals"),
    ],
    ids=str,
)  # fmt: skip
def test_a_search_that_cannot_be_is_refused_with_what_to_write(run, options: list[str], why: str) -> None:
    result = run("audit", "search", *options)
    assert result.exit_code in (1, 2), result.output
    assert why in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_one_event_is_told_as_explain_tells_it(run, people: dict[str, str]) -> None:
    for event_id in ("refused", "-issued"):
        for options in ([], ["--json"]):
            shown = run("audit", "show", event_id, *options)
            assert shown.exit_code == 0, shown.output
            assert shown.stdout == run("explain", "--error-id", event_id, *options).stdout
    told = run("audit", "show", "refused").stdout
    assert "1. core: refused: scope-not-registered" in told and "what would change it" in told
    gone = run("audit", "show", "gone")
    assert gone.exit_code == 1 and "no event has the id gone" in gone.stderr


def exported(run, *options: str) -> list[dict[str, Any]]:
    result = run("audit", "export", *options)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_an_export_has_every_event_of_its_time_once(run, ini: Path, people, monkeypatch) -> None:
    """R-12: oldest first, in batches, and what is exported next begins where this one ended."""
    monkeypatch.setattr(audit, "BATCH", 3)
    stored(ini, *(an_event(event_id=f"e{n:02}", at=AT, client_id="many") for n in range(7)))
    everything = exported(run, "--since", "2026-11-30T10:40", "--until", "2026-11-30T10:45")
    ids = [event["event_id"] for event in everything]
    assert ids == ["-issued", *(f"e{n:02}" for n in range(7)), "other", "refused", "consent", "again"]
    assert everything[-1] == json.loads(run("audit", "search", "--error-id", "again", "--json").stdout)
    first = exported(run, "--since", "2026-11-30T10:40", "--until", AT.isoformat())
    rest = exported(run, "--after", first[-1]["cursor"], "--until", "2026-11-30T10:45")
    assert first + rest == everything


def test_an_export_leaves_out_what_may_still_be_joined(run, ini: Path) -> None:
    """An event is stored after its time; what follows the cursor of an export must not miss it."""
    now = datetime.now(UTC)
    stored(ini, an_event(event_id="settled", at=now - 6 * MINUTE), an_event(event_id="new", at=now - MINUTE))
    ids = [event["event_id"] for event in exported(run)]
    assert "settled" in ids and "new" not in ids
    assert "new" in [event["event_id"] for event in exported(run, "--until", "0s")]


def test_an_exported_file_is_private_and_never_replaces_another(run, people, tmp_path: Path) -> None:
    """R-04: events have addresses of people."""
    file = tmp_path / "events.jsonl"
    options = (
        "audit",
        "export",
        "--until",
        "2026-11-30T10:45",
        "--since",
        "2026-11-30T10:40",
        "--output",
        str(file),
    )
    result = run(*options)
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = file.read_text().splitlines()
    assert [json.loads(line)["event_id"] for line in lines] == [
        "-issued",
        "other",
        "refused",
        "consent",
        "again",
    ]
    cursor = json.loads(lines[-1])["cursor"]
    assert result.stdout.splitlines() == [
        f"{file} has 5 events until 2026-11-30 10:45:00Z.",
        f"The next export begins with --after {cursor}",
    ]
    again = run(*options)
    assert again.exit_code == 1 and "File exists" in again.stderr
    assert file.read_text().splitlines() == lines
    bad = run("audit", "export", "--after", "x", "--output", str(tmp_path / "none"))
    assert bad.exit_code == 1 and not (tmp_path / "none").exists()


def test_no_secret_is_in_what_is_found(run) -> None:
    """R-04, T145: not in a table, nor in the words of one event, nor in what is written out."""
    added = json.loads(run("client", "add", "--name", "A", "--client-id", "a", "--scope", "profile",
        "--grant-type", "client_credentials", "--json").stdout)  # fmt: skip
    rotated = json.loads(run("client", "rotate-secret", "a", "--json").stdout)
    secrets = {added["client_secret"], rotated["client_secret"], "correct horse battery", "another good one"}
    for command, password in (("add", "correct horse battery"), ("password", "another good one")):
        done = run("user", command, "ada", "--password-stdin", stdin=f"{password}\n")
        assert done.exit_code == 0, done.output
    events = exported(run, "--until", "0s")
    assert {"client.registered", "client_secret.added", "user.added", "password.changed"} <= {
        event["type"] for event in events
    }
    told = [run("audit", "show", event["event_id"], "--json").stdout for event in events[-3:]]
    shown = "\n".join([json.dumps(events), run("audit", "search").stdout, *told])
    assert [secret for secret in secrets if secret in shown] == []
    assert "argon2" not in shown


def test_what_stops_half_way_leaves_whole_lines_and_says_how_to_go_on(
    run, ini: Path, people, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing where nothing could be written."""
    monkeypatch.setattr(audit, "BATCH", 2)
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(events)") if row[1] != "details"]
        connection.execute("ALTER TABLE events RENAME TO kept_events")
        # The database fails at this row, as it does where the file is damaged.
        failing = "CASE WHEN event_id = 'again' THEN json('{') ELSE details END AS details"
        connection.execute(f"CREATE VIEW events AS SELECT {', '.join(columns)}, {failing} FROM kept_events")
    file = tmp_path / "events.jsonl"
    options = (
        "audit",
        "export",
        "--until",
        "2026-11-30T10:45",
        "--since",
        "2026-11-30T10:40",
        "--output",
        str(file),
    )
    failed = run(*options)
    assert failed.exit_code == 1
    assert f"{file} is not complete: export what is missing with --after" in failed.stderr
    written = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["event_id"] for event in written] == ["-issued", "other"]
    file.unlink()
    assert run(*options, "--after", written[-1]["cursor"]).exit_code == 1
    assert not file.exists()


def test_a_shell_completes_event_types() -> None:
    (option,) = (option for option in search.params if option.name == "names")
    completed = option.shell_complete(click.Context(search), "client_secret.")
    assert [item.value for item in completed] == ["client_secret.added", "client_secret.ended"]


def test_the_readers_of_the_events_say_how_far_they_are(run, ini: Path) -> None:
    assert (
        run("audit", "readers").stdout == "No reader has begun yet: readers begin when the server starts.\n"
    )
    application = Configuration(ini).application()
    with application.begin() as engine:
        stores = engine.stores
        first = an_event(event_id="first of two")
        stores.events.add(first)
        stores.event_positions.begin("behind", stores.events.last_number())
        stores.event_positions.begin("done", stores.events.last_number() + 2)
    with application.begin() as engine:
        engine.stores.events.add(an_event(event_id="second of two"))
    application.close()
    rows = json.loads(run("audit", "readers", "--json").stdout)
    assert [(row["reader"], row["waiting"]) for row in rows] == [("behind", 2), ("done", 0)]
    assert rows[0]["since"] == first.at.isoformat().replace("+00:00", "Z")
    assert rows[1]["since"] is None
    assert "behind" in run("audit", "readers").stdout


# ---- what was changed ---------------------------------------------------------------------------------


def sealed(ini: Path) -> None:
    """Seal all events, as a running server does."""
    application = Configuration(ini).application()
    with closing(application):
        application.prepare_keys()
        (reading,) = (each for each in application.readings if each.reader.name == "seals")
        while reading.work():
            pass


def by_hand(ini: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(ini.parent / ".local" / "authserver.sqlite")) as connection:
        connection.execute(statement, values)
        connection.commit()


def test_what_nobody_changed_is_said_to_be_whole(run, ini: Path, people: dict[str, str]) -> None:
    """T147: with the head, which shows later that the end is still there."""
    sealed(ini)
    late = datetime.now(UTC)
    stored(ini, an_event(event_id="late", at=late))
    result = run("audit", "verify")
    assert result.exit_code == 0, result.output
    whole, unsealed, head, note = result.stdout.splitlines()
    assert whole.startswith("Nothing was changed: ")
    assert whole.endswith("are as sealed.")
    assert unsealed == f"The last event since {late:%Y-%m-%d %H:%M:%SZ} is not sealed yet."
    assert note.startswith("Note it on another machine")
    again = run("audit", "verify", "--json", "--head", head.rpartition(" ")[2])
    assert again.exit_code == 0, again.output
    found = json.loads(again.stdout)
    assert (found["whole"], found["finding"], found["unsealed"], found["status"]) == (True, None, 1, 0)
    assert found["head"] == head.rpartition(" ")[2]


def test_the_first_event_that_was_changed_is_named(run, ini: Path, people: dict[str, str]) -> None:
    sealed(ini)
    by_hand(ini, "UPDATE events SET reason = ? WHERE event_id IN ('refused', 'again')", "\x1b[2Jnothing")
    result = run("audit", "verify")
    assert result.exit_code == 1
    problem, place, advice = result.stdout.splitlines()[:3]
    assert "was changed after it had been sealed as token.refused of 2026-11-30 10:42:05Z." in problem
    assert place == f"It is there as refused: authserver -c {ini} audit show refused"
    assert advice.startswith("Compare with an earlier backup or export")
    found = json.loads(run("audit", "verify", "--json").stdout)
    assert (found["whole"], found["status"], found["finding"]["event_id"]) == (False, 1, "refused")


def test_an_end_that_was_cut_off_is_named(run, ini: Path, people: dict[str, str]) -> None:
    sealed(ini)
    head = json.loads(run("audit", "verify", "--json").stdout)["head"]
    by_hand(ini, "DELETE FROM event_seals")
    by_hand(ini, "DELETE FROM event_positions")
    by_hand(ini, "DELETE FROM events WHERE event_id = 'again'")
    result = run("audit", "verify", "--head", head)
    assert result.exit_code == 1
    assert result.stdout.startswith("Broken: seal 1 is missing: the end of the chain was cut off")


@pytest.mark.parametrize("head", ["nonsense", "1-00"])
def test_what_is_no_head_is_refused_with_a_sentence(run, head: str) -> None:
    result = run("audit", "verify", "--head", head)
    assert result.exit_code == 2
    assert "it is a number, a hyphen and 64 hexadecimal digits" in result.stderr


def test_what_cannot_be_known_is_neither_whole_nor_broken(
    run, ini: Path, people: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("audit", "verify").exit_code == 0
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=6)):
        nothing = run("audit", "verify")
    assert nothing.exit_code == 2
    assert nothing.stdout.startswith(
        "This cannot be determined: seal 1 is not there yet: no event is sealed."
    )
    sealed(ini)
    ring = ini.parent / ".local" / "secret_keys"
    ring.write_text(f"{run('keys', 'secret').stdout.strip()}\n")
    lost = run("audit", "verify")
    assert lost.exit_code == 2, lost.output
    assert "which is not in the key ring" in lost.stdout
    with closing(sqlite3.connect(ini.parent / ".local" / "authserver.sqlite")) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr("authserver.storage.database.SQLITE_BUSY_TIMEOUT", 0.1)
        away = run("audit", "verify")
    assert (away.exit_code, away.stdout) == (2, "")
    assert away.stderr.startswith("Error: the database did not answer (")


BY_HAND = [
    ("type", "token.melted", "token.melted"),
    ("type", "", ""),
    ("decisions", "nonsense {", "nonsense {"),
    ("decisions", "[5]", "[5]"),
    ("decisions", '[{"slot": "scope_decision"}]', "scope_decision"),
    ("decisions", '[{"slot": 7, "verdict": [], "answers": 5}, {}]', "verdict"),
    ("details", "nonsense {", "nonsense {"),
    ("details", "[1]", "[1]"),
    ("details", '{"cut": 5, "more": "x", "facts": {"requested": 7}}', "requested"),
    ("details", '{"more": {"count": 1, "sources": 1, "until": "x"}}', "sources"),
    ("at", "yesterday", "0001-01-01"),
    ("actor", b"\xff", ""),
    ("reason", b"\xff", ""),
    ("client_id", 7, "7"),
]


def test_what_was_written_by_hand_is_shown_and_stops_nothing(run, ini: Path, people: dict[str, str]) -> None:
    """Or by a newer version: an answer for each, and no traceback."""
    ids = [f"hand{number}" for number, _ in enumerate(BY_HAND)]
    for kind in ("token.refused", "policy.differed"):
        stored(ini, *(an_event(event_id=f"{kind}.{each}", at=AT, type=EventType(kind)) for each in ids))
        for event_id, (column, value, _) in zip(ids, BY_HAND, strict=True):
            by_hand(ini, f"UPDATE events SET {column} = ? WHERE event_id = ?", value, f"{kind}.{event_id}")
    sealed(ini)

    def said(*command: str) -> str:
        result = run(*command)
        assert (result.exit_code, result.exception) == (0, None), (command, result.output)
        return result.stdout

    for event_id, (column, _, shown) in zip(ids, BY_HAND, strict=True):
        told = said("audit", "show", f"token.refused.{event_id}", "--json")
        assert shown in told or column in ("actor", "details")
        assert said("audit", "show", f"token.refused.{event_id}")
    listed = said("audit", "search", "--json", "--limit", "100")
    assert listed.count("hand") >= len(ids)
    assert said("audit", "search")
    assert said("audit", "search", "--error-id", "token.refused.hand0", "--json").count("token.melted") == 1
    assert said("audit", "export", "--until", "0s").count("hand") >= len(ids)
    assert "Nothing was changed" in said("audit", "verify")
    assert said("policy", "shadow-report")
    assert said("policy", "replay", "--config", str(ini), "--since", "300d")
