"""`authserver policy`: shadow reports and replays."""

from __future__ import annotations

import io
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

from authserver.cli import progress
from authserver.engine.records import Event, EventType
from authserver.storage.database import Database

RESOURCE = "http://localhost:6543/demo-api"
NO_WRITING = '''
from __future__ import annotations

from dataclasses import dataclass
from authserver.api import hookimpl, narrow

@dataclass(frozen=True)
class NoWriting:
    """Let nobody write."""

    @hookimpl
    def scope_decision(self, requested):
        return narrow("no-writing", tuple(scope for scope in requested if not scope.endswith(".write")))
'''


def decision(*requested: str, client_id: str = "demo-service", **more) -> dict:
    """A recorded scope decision that allowed what was requested."""
    return {
        "slot": "scope_decision",
        "facts": {
            "client_id": client_id,
            "user_id": None,
            "grant_type": "client_credentials",
            "requested": list(requested),
            "resources": [RESOURCE],
        },
        "verdict": "allow",
        "reason": "scopes-registered",
        "decided_by": "scopes_registered",
        "outcome": list(requested),
        "answers": [],
        **more,
    }


def sign_in() -> dict:
    """A recorded decision that nobody can ask again."""
    facts = {"user_id": None, "username": None, "source": "192.0.2.1"}
    return decision() | {"slot": "login_decision", "facts": facts, "verdict": "deny", "outcome": None}


def keep(ini: Path, *decisions: dict, ago: timedelta = timedelta(hours=1), **more) -> None:
    """Record events with one decision each, a millisecond apart."""
    database = Database(f"sqlite:///{ini.parent}/.local/authserver.sqlite")
    begin = datetime.now(UTC) - ago
    with database.begin() as stores:
        for number, each in enumerate(decisions):
            event = Event(
                event_id=f"event-{begin.timestamp()}-{number}",
                type=EventType.TOKEN_ISSUED,
                actor="client:demo-service",
                at=begin + timedelta(milliseconds=number),
                client_id=(each.get("facts") or {}).get("client_id"),
                decisions=(each,),
            )
            stores.events.add(event)
    database.close()


def rows(ini: Path) -> dict[str, list]:
    with closing(sqlite3.connect(ini.parent / ".local" / "authserver.sqlite")) as connection, connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


@pytest.fixture
def candidate(ini: Path, tmp_path: Path) -> Path:
    """Another configuration: with a plugin of its own, and a database that nobody may touch."""
    (tmp_path / "replay_policies.py").write_text(NO_WRITING)
    path = tmp_path / "candidate.ini"
    text = ini.read_text().replace(
        "    scopes_default\n", "    scopes_default\n    replay_policies:NoWriting\n"
    )
    path.write_text(text.replace("/.local/authserver.sqlite", "/untouched.sqlite"))
    return path


# ---- replay ------------------------------------------------------------------------------------------


def test_a_replay_tells_what_would_flip_by_client_and_reason(run, ini, candidate) -> None:
    """The exit status is 3 when anything flips; stdout has the JSON and nothing else."""
    keep(
        ini,
        decision("notes.read"),
        decision("notes.read", "notes.write"),
        decision("notes.read", "notes.write"),
        decision("profile", "notes.write", client_id="playground"),
        decision("notes.read", client_id="gone"),
        sign_in(),
    )
    result = run("policy", "replay", "--config", str(candidate), "--json")
    assert result.exit_code == 3, result.output
    told = json.loads(result.stdout)
    assert (told["asked"], told["flipped"]) == (4, 3)
    assert {(entry["hook"], entry["why"]): entry["count"] for entry in told["not_asked"]} == {
        ("scope_decision", "the client does not exist any more"): 1,
        ("login_decision", "it contained a password"): 1,
    }
    most, least = told["flips"]
    assert most["count"] == 2
    assert most["clients"] == [{"client_id": "demo-service", "count": 2}]
    assert (most["was"], most["would_be"]) == ("allow notes.read notes.write", "allow notes.read")
    assert (most["reason"], most["by"]) == ("no-writing", "no_writing")
    assert most["examples"][0]["asked"]["requested"] == ["notes.read", "notes.write"]
    assert least["clients"] == [{"client_id": "playground", "count": 1}]


def test_people_see_a_progress_bar_apart_from_the_result(run, ini, candidate, monkeypatch) -> None:
    """On a terminal; in a log it would leave a line."""
    terminal = io.StringIO()
    monkeypatch.setattr(
        progress, "Console", lambda stderr: Console(file=terminal, force_terminal=stderr, width=80)
    )
    keep(ini, decision("notes.read", "notes.write"), sign_in())
    result = run("policy", "replay", "--config", str(candidate))
    assert result.exit_code == 3
    assert "Asking again" in terminal.getvalue() and "Asking again" not in result.output
    for words in (
        "1 x scope_decision: allow notes.read notes.write -> allow notes.read",
        "no-writing, by no_writing",
        "demo-service",
        "1 questions were asked again, 1 would flip.",
        "Not asked again: 1 x login_decision, each because it contained a password.",
    ):
        assert words in result.stdout


def test_the_same_configuration_flips_nothing(run, ini) -> None:
    keep(ini, decision("notes.read"), decision("notes.read", "notes.write"))
    result = run("policy", "replay", "--config", str(ini))
    assert result.exit_code == 0, result.output
    assert "No decision would flip." in result.stdout


def test_only_what_happened_since_is_asked(run, ini, candidate) -> None:
    keep(ini, decision("notes.write"), ago=timedelta(days=8))
    keep(ini, decision("notes.read"), ago=timedelta(hours=2))
    for since, asked in (("7d", 1), ("9d", 2), ("30m", 0), ("2020-01-01", 2), ("2020-01-01T00:00:00Z", 2)):
        result = run("policy", "replay", "--since", since, "--config", str(candidate), "--json")
        assert json.loads(result.stdout)["asked"] == asked, since


@pytest.mark.parametrize("since", ["7", "d", "-1d", "yesterday", "7 d", "999999w", "٣d", ""])
def test_a_time_that_nobody_understands_is_named(run, candidate, since) -> None:
    result = run("policy", "replay", "--since", since, "--config", str(candidate))
    assert result.exit_code == 2
    assert "ISO 8601" in result.stderr


def test_a_replay_changes_nothing_and_leaves_the_other_database_alone(run, ini, candidate) -> None:
    """All tables are the same afterwards, although the candidate has shadow plugins; its database is not even made."""
    keep(ini, decision("notes.read", "notes.write"), sign_in())
    candidate.write_text(
        candidate.read_text()
        .replace("    replay_policies:NoWriting\n", "")
        .replace("# authserver.shadow_plugins =", "authserver.shadow_plugins = replay_policies:NoWriting")
    )
    before = rows(ini)
    result = run("policy", "replay", "--config", str(candidate))
    assert result.exit_code == 0, result.output
    assert rows(ini) == before
    assert not (candidate.parent / "untouched.sqlite").exists()


def test_a_database_that_is_not_there_is_not_missed(run, ini, candidate) -> None:
    keep(ini, decision("notes.read"))
    url = "postgresql+psycopg://nobody:secret@192.0.2.1/never"
    lines = candidate.read_text().splitlines()
    candidate.write_text(
        "\n".join(f"authserver.database_url = {url}" if "database_url =" in line else line for line in lines)
    )
    begun = time.monotonic()
    assert run("policy", "replay", "--config", str(candidate)).exit_code == 0
    assert time.monotonic() - begun < 5


def test_a_misspelt_plugin_ends_in_a_sentence(run, candidate) -> None:
    candidate.write_text(candidate.read_text().replace("    public_client\n", "    publik_client\n"))
    result = run("policy", "replay", "--config", str(candidate))
    assert result.exit_code == 1
    assert "publik_client: no such plugin" in result.stderr and "public_client" in result.stderr
    assert "Traceback" not in result.output


def test_a_candidate_that_is_not_there_is_named(run, tmp_path) -> None:
    result = run("policy", "replay", "--config", str(tmp_path / "nowhere.ini"))
    assert result.exit_code == 2
    assert "nowhere.ini" in result.stderr


def test_an_edited_copy_of_the_whole_folder_can_be_replayed(run, ini) -> None:
    """Its modules have the names of those that decide at present, and so has one that a plugin imports."""
    keep(ini, decision("notes.read", "notes.write"))
    rule = NO_WRITING.replace("endswith(", "endswith(ENDING or ").replace(
        "from dataclasses", "from ending_beside import ENDING\nfrom dataclasses"
    )
    copy = ini.parent / "copy" / "development.ini"
    copy.parent.mkdir()
    for folder, ending in ((ini.parent, ".nothing"), (copy.parent, "")):
        (folder / "ending_beside.py").write_text(f"ENDING = {ending!r}\n")
        (folder / "copied_beside.py").write_text(rule)
    text = ini.read_text().replace(
        "    scopes_default\n", "    scopes_default\n    copied_beside:NoWriting\n"
    )
    ini.write_text(text)
    copy.write_text(text.replace("%(here)s", str(ini.parent)))
    assert run("policy", "replay", "--config", str(ini)).exit_code == 0
    done = run("policy", "replay", "--config", str(copy))
    assert (done.exit_code, "no-writing" in done.stdout) == (3, True), done.output


def test_events_of_another_version_stop_nothing(run, ini, candidate) -> None:
    keep(ini, decision("notes.read", facts=None), decision("notes.read", slot="retired_decision"))
    result = run("policy", "replay", "--config", str(candidate), "--json")
    assert result.exit_code == 0, result.output
    assert {entry["why"] for entry in json.loads(result.stdout)["not_asked"]} == {
        "another version of the server recorded it",
        "this hook does not exist any more",
    }


@pytest.mark.slow
def test_decisions_of_many_batches_are_asked_again(run, ini, candidate) -> None:
    """Every one of them, whatever is read at a time."""
    keep(ini, *[decision("notes.read", *(["notes.write"] if n % 10 == 0 else [])) for n in range(3_000)])
    told = json.loads(run("policy", "replay", "--config", str(candidate), "--json").stdout)
    assert (told["asked"], told["flipped"]) == (3_000, 300)
    assert len(told["flips"][0]["examples"]) == 3


# ---- try ---------------------------------------------------------------------------------------------

READ_ONLY = """
from dataclasses import dataclass
from typing import ClassVar

from authserver.api import hookimpl, narrow

print("imported")


@dataclass(frozen=True)
class ReadOnly:
    reasons: ClassVar[frozenset[str]] = frozenset({"read-only"})

    ending: str
    clients: tuple[str, ...] = ("demo-service",)

    def __post_init__(self):
        if not self.ending.startswith("."):
            raise ValueError("the ending begins with a period")

    @hookimpl
    def scope_decision(self, client, requested):
        if client.client_id in self.clients:
            return narrow("read-only", tuple(scope for scope in requested if not scope.endswith(self.ending)))
"""


@pytest.fixture
def policy_file(tmp_path: Path) -> Callable[..., str]:
    """A file with this text; the policy in it is never named in an INI."""

    def write(text: str, name: str = "read_only.py") -> str:
        path = tmp_path / "policies" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


def test_a_policy_is_tried_with_recorded_questions_before_it_is_installed(run, ini, policy_file) -> None:
    """What it answers, and where an outcome would differ; the exit status is 3."""
    keep(
        ini,
        decision("notes.read"),
        decision("notes.read", "notes.write"),
        decision("profile", "notes.write", client_id="playground"),
        decision("notes.write", client_id="gone"),
        sign_in(),
    )
    before = rows(ini)
    file = policy_file(READ_ONLY)
    result = run("policy", "try", file, "--setting", "ending=.write", "--json")
    assert result.exit_code == 3, result.output
    told = json.loads(result.stdout)
    assert (told["plugin"], told["asked"], told["differs"], told["failed"]) == ("read_only", 3, 1, 0)
    assert {(row["answer"], row["reason"]): row["count"] for row in told["answers"]} == {
        ("narrow", "read-only"): 2,
        ("silent", ""): 1,
    }
    (difference,) = told["differences"]
    assert (difference["was"], difference["would_be"]) == (
        "allow notes.read notes.write",
        "allow notes.read",
    )
    assert difference["by"] == "read_only"
    assert told["not_asked"] == [
        {"hook": "scope_decision", "why": "the client does not exist any more", "count": 1}
    ]
    assert rows(ini) == before
    assert "imported" in result.stderr

    people = run("policy", "try", file, "--setting", "ending=.write")
    for words in (
        "What read_only answers to 3 recorded questions since 20",
        "1 x scope_decision: allow notes.read notes.write -> allow notes.read",
        "3 questions asked, 1 outcomes would differ, 0 answers failed.",
        "1 of scope_decision were not asked: the client does not exist any more.",
    ):
        assert words in people.stdout


def test_a_policy_that_changes_no_outcome_ends_with_zero(run, ini, policy_file) -> None:
    keep(ini, decision("notes.read"), decision("notes.read", "notes.write"))
    result = run("policy", "try", policy_file(READ_ONLY), "--setting", "ending=.delete")
    assert result.exit_code == 0, result.output
    assert "No outcome would differ." in result.stdout


def test_a_policy_that_fails_is_told_once_with_its_message(run, ini, policy_file) -> None:
    """Neither a traceback nor a line for each question; the exit status is 4."""
    keep(ini, *[decision("notes.read") for _ in range(5)])
    text = READ_ONLY.replace("if client.client_id in self.clients:", "if client.team == 'operations':")
    result = run("policy", "try", policy_file(text), "--setting", "ending=.write")
    assert result.exit_code == 4, result.output
    assert (
        "5 x scope_decision fails, which refuses: it raised AttributeError: 'Client' object has no attribute"
        in (result.stdout)
    )
    line = text[: text.index("client.team")].count("\n") + 1
    assert f"(read_only.py, line {line})" in result.stdout and "Traceback" not in result.output
    assert "5 questions asked, 0 outcomes would differ, 5 answers failed." in result.stdout
    told = json.loads(run("policy", "try", policy_file(text), "--setting", "ending=.write", "--json").stdout)
    (fault,) = told["faults"]
    assert (fault["count"], len(fault["examples"]), told["failed"]) == (5, 3, 5)


def test_the_newest_questions_are_asked(run, ini, policy_file) -> None:
    keep(ini, *[decision("notes.write") for _ in range(3)], ago=timedelta(hours=3))
    keep(ini, *[decision("notes.read") for _ in range(3)], ago=timedelta(hours=2))
    for last, differs in ((3, 0), (4, 1), (100, 3)):
        options = ["--setting", "ending=.write", "--last", str(last), "--json"]
        told = json.loads(run("policy", "try", policy_file(READ_ONLY), *options).stdout)
        assert (told["asked"], told["differs"]) == (min(last, 6), differs)


def test_a_hundred_questions_are_asked_unless_another_number_is_given(run, ini, policy_file) -> None:
    keep(ini, *[decision("notes.read") for _ in range(120)])
    told = json.loads(run("policy", "try", policy_file(READ_ONLY), "--setting", "ending=.x", "--json").stdout)
    assert told["asked"] == 100
    for last in ("0", "-1", "10001", "many"):
        assert run("policy", "try", policy_file(READ_ONLY), "--last", last).exit_code == 2


def test_outcomes_are_compared_with_those_of_the_present_policies(run, ini, policy_file) -> None:
    """What was decided otherwise before somebody changed the INI is not the doing of the policy that is tried."""
    keep(ini, decision("notes.read", "notes.write", verdict="deny", outcome=None))
    result = run("policy", "try", policy_file(READ_ONLY), "--setting", "ending=.delete")
    assert result.exit_code == 0
    assert "1 were decided otherwise at the time than the present policies decide" in result.stdout


def test_a_new_version_of_a_listed_policy_replaces_the_old_one(run, ini, policy_file, candidate) -> None:
    """With the settings that the INI has for it, unless others are given."""
    folder = Path(policy_file(READ_ONLY)).parent
    candidate.parent.joinpath("listed.py").write_text(READ_ONLY)
    text = ini.read_text().replace("    scopes_default\n", "    scopes_default\n    listed:ReadOnly\n")
    ini.write_text(text + "\n", "utf-8")
    ini.write_text(
        text.replace("[app:main]\n", "[app:main]\nauthserver.plugin.read_only.ending = .write\n", 1)
    )
    keep(ini, decision("notes.read", "notes.write", outcome=["notes.read"]))
    same = run("policy", "try", str(folder / "read_only.py"))
    assert same.exit_code == 0, same.output
    wider = run("policy", "try", str(folder / "read_only.py"), "--setting", "ending=.none", "--json")
    assert wider.exit_code == 3, wider.output
    (difference,) = json.loads(wider.stdout)["differences"]
    assert (difference["was"], difference["would_be"]) == (
        "allow notes.read",
        "allow notes.read notes.write",
    )


@pytest.mark.parametrize(
    "form", ["read_only.py:ReadOnly", "read_only", "module", "authserver.policies.scopes:ScopesRegistered"]
)
def test_a_policy_may_be_named_in_several_forms(run, ini, policy_file, monkeypatch, form) -> None:
    """A file with its class, a folder with a package, a module that can be imported, and one of the server's own."""
    keep(ini, decision("notes.read"))
    settings = ["--setting", "ending=.write"]
    if form == "read_only":
        target = str(Path(policy_file(READ_ONLY, "read_only/__init__.py")).parent)
    elif form == "module":
        monkeypatch.syspath_prepend(str(Path(policy_file(READ_ONLY, "tried_module.py")).parent))
        target = "tried_module:ReadOnly"
    elif form.startswith("authserver."):
        target, settings = form, []
    else:
        target = policy_file(READ_ONLY) + ":ReadOnly"
    result = run("policy", "try", target, *settings)
    assert result.exit_code == 0, result.output


def test_the_name_of_an_installed_plugin_will_do(run, ini) -> None:
    keep(ini, decision("notes.read"))
    assert run("policy", "try", "scopes_registered").exit_code == 0


def test_a_file_with_the_name_of_a_module_of_python_harms_nothing(run, ini, policy_file) -> None:
    keep(ini, decision("notes.read"))
    result = run("policy", "try", policy_file(READ_ONLY, "json.py"), "--setting", "ending=.write")
    assert result.exit_code == 0, result.output
    assert json.dumps([]) == "[]"


def test_a_setting_may_come_from_the_environment(run, ini, policy_file, monkeypatch) -> None:
    keep(ini, decision("notes.write"))
    monkeypatch.setenv("ENDING", ".write")
    assert run("policy", "try", policy_file(READ_ONLY), "--setting", "ending=env:ENDING").exit_code == 3


@pytest.mark.parametrize(
    ("serving", "sentence"),
    [
        (
            "server_metadata(self)",
            "read_only decides nothing, so there are no questions to ask it; it serves server_",
        ),
        ("consent_decision(self, client)", "no question of consent_decision is recorded in the last"),
        (
            "login_decision(self, user)",
            "no recorded question of login_decision can be asked again: it contained a pas",
        ),
        ("scope_decision(self, scopes)", "plugin read_only: scope_decision takes `scopes`, an argument that"),
    ],
)
def test_what_cannot_be_tried_ends_in_one_sentence(run, ini, policy_file, serving, sentence) -> None:
    keep(ini, decision("notes.read"), sign_in())
    text = READ_ONLY.replace("scope_decision(self, client, requested)", serving)
    result = run("policy", "try", policy_file(text), "--setting", "ending=.write")
    assert result.exit_code == 1, result.output
    assert sentence in result.stderr and result.stdout == ""


def test_a_setting_that_is_missing_is_asked_for_on_the_command_line(run, policy_file) -> None:
    result = run("policy", "try", policy_file(READ_ONLY))
    assert result.exit_code == 1
    assert "--setting ending: missing; give it as NAME=VALUE" in result.stderr


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["ending"], "'ending' is not NAME=VALUE"),
        (["=x"], "'=x' is not NAME=VALUE"),
        (["ending=env:NOWHERE"], "the environment variable NOWHERE is not set"),
        (["ending=.a", "ending=.b"], "a name occurs twice"),
    ],
)
def test_a_setting_that_cannot_be_read_is_a_usage_error(run, policy_file, settings, sentence) -> None:
    words = [word for setting in settings for word in ("--setting", setting)]
    result = run("policy", "try", policy_file(READ_ONLY), *words)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_an_empty_database_has_no_questions(run, ini, policy_file) -> None:
    with closing(sqlite3.connect(ini.parent / ".local" / "authserver.sqlite")) as connection, connection:
        connection.execute("DELETE FROM events")
    result = run("policy", "try", policy_file(READ_ONLY), "--setting", "ending=.write")
    assert result.exit_code == 1
    assert "nothing is recorded yet; send the server some requests first" in result.stderr


# ---- shadow report -----------------------------------------------------------------------------------


def keep_difference(ini: Path, was: dict, would_be: dict) -> None:
    """Record what was decided, and what it would have been."""
    keep(ini, was)
    with closing(sqlite3.connect(ini.parent / ".local" / "authserver.sqlite")) as connection, connection:
        connection.execute(
            "UPDATE events SET type = ?, decisions = ? WHERE event_id LIKE 'event-%'",
            (EventType.POLICY_DIFFERED, json.dumps([was, would_be])),
        )


def differ(ini: Path, number: int, reason: str, *, dropped: int = 0) -> None:
    database = Database(f"sqlite:///{ini.parent}/.local/authserver.sqlite")
    was = decision("notes.read", "notes.write")
    would_be = was | {"verdict": "deny", "reason": reason, "decided_by": "tried", "outcome": None}
    with database.begin() as stores:
        for count in range(number):
            event = Event(
                event_id=f"{reason}-{count}",
                type=EventType.POLICY_DIFFERED,
                at=datetime.now(UTC),
                actor="server",
                client_id="demo-service",
                reason=reason,
                decisions=(was, would_be),
                details={"slot": "scope_decision", "dropped": dropped},
            )
            stores.events.add(event)
    database.close()


def test_a_shadow_report_counts_and_gives_examples(run, ini) -> None:
    differ(ini, 5, "at-night", dropped=2)
    differ(ini, 1, "too-many")
    told = json.loads(run("policy", "shadow-report", "--json").stdout)
    assert told["not_recorded"] == 10
    often, once = told["differences"]
    assert (often["count"], often["reason"], often["by"]) == (5, "at-night", "tried")
    assert (often["was"], often["would_be"]) == ("allow notes.read notes.write", "deny")
    assert [example["event_id"] for example in often["examples"]] == [
        "at-night-2",
        "at-night-3",
        "at-night-4",
    ]
    assert once["count"] == 1
    result = run("policy", "shadow-report")
    assert result.exit_code == 0
    for words in (
        "5 x scope_decision: allow notes.read notes.write -> deny",
        "at-night, by tried",
        "requested: notes.read, notes.write",
        "6 questions would have had another outcome",
        "10 more questions were not compared or recorded",
    ):
        assert words in result.stdout
    explained = json.loads(run("explain", "--error-id", "too-many-0", "--json").stdout)
    assert [(check["verdict"], check["note"]) for check in explained["checks"]] == [
        ("allow", "what counted"),
        ("deny", "what it would have been with authserver.shadow_plugins"),
    ]
    assert [(check["remedies"], check["settings"]) for check in explained["checks"]] == [([], {})] * 2


@pytest.mark.parametrize(
    ("hook", "was", "would_be", "line"),
    [
        (
            "scope_decision",
            ("allow", ["a"]),
            ("allow", []),
            "allow a -> allow nothing (refused, since no scope is left)",
        ),
        (
            "scope_decision",
            ("allow", ["a"]),
            ("failed", None),
            "allow a -> failed (refused; the log says why)",
        ),
        (
            "consent_decision",
            ("silent", None),
            ("allow", None),
            "silent (the user is asked) -> allow (the user is not asked, if the client is proven)",
        ),
        (
            "redirect_uri_decision",
            ("allow", None),
            ("silent", None),
            "allow -> silent (refused with an error page)",
        ),
        ("gone_decision", ("allow", None), ("silent", None), "allow -> silent"),
    ],
)
def test_a_report_says_what_a_decision_leads_to(
    run, ini, hook: str, was: tuple[str, Any], would_be: tuple[str, Any], line: str
) -> None:
    """What a policy answers is not always what the user or the client sees."""
    decisions = tuple(
        decision("a") | {"slot": hook, "verdict": verdict, "outcome": outcome}
        for verdict, outcome in (was, would_be)
    )
    keep_difference(ini, *decisions)
    assert f"1 x {hook}: {line}\n" in run("policy", "shadow-report").stdout


def test_questions_about_no_client_have_no_table_of_clients(run, ini) -> None:
    """Of a registration, its metadata are shown as facts of their own."""
    facts = {"metadata": {"client_name": "x", "scopes": ["a", "b"]}, "bearer": False}
    asked = decision("a") | {"slot": "registration_decision", "facts": facts}
    keep_difference(ini, asked, asked | {"verdict": "deny"})
    out = run("policy", "shadow-report").stdout
    assert "client name: x" in out and "scopes: a, b" in out and "bearer: no" in out
    assert "count" not in out


def test_a_shadow_report_without_differences_says_so(run, ini) -> None:
    result = run("policy", "shadow-report")
    assert result.exit_code == 0
    assert "authserver.shadow_plugins" in result.stdout


def test_a_shadow_report_changes_nothing(run, ini) -> None:
    differ(ini, 2, "at-night")
    before = rows(ini)
    assert run("policy", "shadow-report").exit_code == 0
    assert rows(ini) == before


def test_replay_needs_no_shadow_records(run, ini, candidate, tmp_path) -> None:
    """What shadow plugins said beside a request is no request of its own."""
    differ(ini, 3, "at-night")
    result = run("policy", "replay", "--config", str(candidate), "--json")
    assert json.loads(result.stdout)["asked"] == 0


@pytest.mark.parametrize("columns", [80, 200])
def test_reports_fit_the_terminal(run, ini, monkeypatch, columns) -> None:
    differ(ini, 5, "at-night")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = click.unstyle(run("policy", "shadow-report").stdout)
    assert "demo-service" in out
    assert max(map(len, out.splitlines())) <= columns
