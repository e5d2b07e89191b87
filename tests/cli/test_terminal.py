"""What is stored reaches a terminal as text, whatever wrote it: T094 on the command line."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from authserver.cli.configuration import Configuration
from authserver.engine.records import Event, EventType
from authserver.testing.records import a_grant, a_session, an_event

# A window title, a cleared screen, a C1 sequence, the other direction, a hidden joiner, and a line of its own.
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u200d\r\nada  administrator"
# In columns that hold several words.
WORD = "https://client.example/\x1b]0;title\x07\x1b[2J\u009b31m\u202e\u200d"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile(run, ini: Path) -> Configuration:
    """A server whose rows another program, or an older one, filled."""
    configuration = Configuration(ini)
    with configuration.engine() as engine:
        stores, now = engine.stores, engine.now
        demo = stores.users.find_by_name("demo")
        stores.sessions.add(a_session(user_id=demo.user_id, details={"amr": ["pwd"], "user_agent": HOSTILE}))
        stores.grants.add(
            a_grant(
                grant_id="grant_1",
                user_id=demo.user_id,
                client_id="playground",
                created_at=now,
                expires_at=now + timedelta(days=1),
            )
        )
        stores.events.add(
            Event(
                event_id="event_1",
                type=EventType.POLICY_DIFFERED,
                at=now,
                actor="server",
                client_id="playground",
                user_id=None,
                grant_id=None,
                reason=HOSTILE,
                details={},
                decisions=(
                    {
                        "slot": "scope_decision",
                        "verdict": "deny",
                        "reason": HOSTILE,
                        "decided_by": HOSTILE,
                        "outcome": None,
                        "facts": {HOSTILE: HOSTILE},
                        "answers": [
                            {"plugin": HOSTILE, "verdict": "deny", "reason": HOSTILE, "microseconds": 1}
                        ],
                    },
                    {
                        "slot": "scope_decision",
                        "verdict": "allow",
                        "reason": HOSTILE,
                        "decided_by": HOSTILE,
                        "outcome": [HOSTILE],
                        "facts": {},
                        "answers": [],
                    },
                ),
            )
        )
        for number in (2, 3):
            stores.events.add(
                an_event(
                    event_id=f"event_{number}",
                    type=EventType.TOKEN_REFUSED,
                    at=now - timedelta(hours=number),
                    actor=HOSTILE,
                    source=HOSTILE,
                    client_id=HOSTILE,
                    user_id=demo.user_id,
                    grant_id=HOSTILE,
                    reason=HOSTILE,
                    details={"error": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}, "facts": {HOSTILE: HOSTILE}},
                )
            )
    application = configuration.application()
    with application.storage.engine.begin() as connection:
        for change in (
            "users SET username = :text, display_name = :text",
            "clients SET name = :text, redirect_uris = :word, scopes = :word, details = :details WHERE client_id = 'playground'",
            "grants SET scopes = :word, resources = :word",
        ):
            values = {"text": HOSTILE, "word": WORD, "details": json.dumps({"software_id": HOSTILE})}
            connection.execute(
                sa.text(f"UPDATE {change}"),
                {name: value for name, value in values.items() if f":{name}" in change},
            )
    application.close()
    return configuration


@pytest.mark.parametrize(
    "command",
    [
        ("user", "list"),
        ("client", "list"),
        ("client", "show", "playground"),
        ("grant", "list"),
        ("explain", "--error-id", "event_1"),
        ("policy", "shadow-report"),
        ("policy", "shadow-report", "--since", "1d"),
        ("audit", "search"),
        ("audit", "search", "--client", HOSTILE, "--limit", "1"),
        ("audit", "show", "event_1"),
        ("audit", "show", "event_2"),
    ],
    ids=" ".join,
)
def test_what_is_stored_is_text_on_a_terminal(run, hostile: Configuration, command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert not CONTROL.search(result.output)
    # A table folds what is wide.
    assert r"\x1b]0;title" in re.sub(r"\s+", "", result.output)
    assert not re.search(r"(?m)^ada ", result.output)


def test_what_is_stored_is_text_on_a_narrow_terminal(
    run, hostile: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    result = run("audit", "search", "--client", HOSTILE)
    assert result.exit_code == 0 and "who" in result.output
    assert not CONTROL.search(result.output)
    assert r"\x1b]0;title" in re.sub(r"\s+", "", result.output)
    assert not re.search(r"(?m)^ *ada ", result.output)


@pytest.mark.parametrize(
    "command",
    [
        ("user", "list"),
        ("client", "list"),
        ("client", "show", "playground"),
        ("grant", "list"),
        ("policy", "shadow-report"),
    ],
    ids=" ".join,
)
def test_json_has_its_own_escapes(run, hostile: Configuration, command: tuple[str, ...]) -> None:
    """A program reads what is stored; a person who looks at it is safe."""
    result = run(*command, "--json")
    assert result.exit_code == 0, result.output
    assert not CONTROL.search(result.output)
    texts = json_texts(json.loads(result.stdout))
    assert HOSTILE in texts or WORD in texts


@pytest.mark.parametrize(
    "command",
    [("audit", "search", "--json"), ("audit", "export"), ("audit", "export", "--output", "events.jsonl")],
    ids=" ".join,
)
def test_json_lines_have_their_own_escapes(
    run, hostile: Configuration, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T094, T147: one event is one line, whatever is in it, also in a file that a person looks at."""
    monkeypatch.chdir(tmp_path)
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert not CONTROL.search(result.output)
    file = tmp_path / "events.jsonl"
    text = file.read_text() if file.exists() else result.stdout
    assert not CONTROL.search(text)
    events = [json.loads(line) for line in text.splitlines()]
    (event,) = (event for event in events if event["event_id"] == "event_2")
    assert [event[name] for name in ("actor", "source", "client_id", "grant_id", "reason")] == [HOSTILE] * 5
    assert event["details"][HOSTILE] == {HOSTILE: [HOSTILE]}


def json_texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for member in (*value, *value.values()) for text in json_texts(member)]
    return [text for member in value for text in json_texts(member)] if isinstance(value, list) else []


@pytest.mark.parametrize(
    "command",
    [
        ("user", "disable", HOSTILE),
        ("user", "add", HOSTILE, "--password-stdin"),
        ("client", "show", HOSTILE),
        ("client", "disable", HOSTILE),
        ("client", "add", "--name", "A", "--redirect-uri", HOSTILE),
        ("client", "add", "--name", "A", "--scope", HOSTILE),
        ("client", "end-secret", HOSTILE, HOSTILE),
        ("grant", "revoke", HOSTILE),
        ("keys", "revoke", HOSTILE),
        ("explain", "--error-id", HOSTILE),
        ("audit", "show", HOSTILE),
        ("audit", "search", "--user", HOSTILE),
        ("audit", "search", "--event", HOSTILE),
        ("audit", "search", "--source", HOSTILE),
        ("audit", "search", "--since", HOSTILE),
        ("audit", "search", "--after", HOSTILE),
        ("audit", "export", "--after", HOSTILE),
        ("user", "enable", HOSTILE),
        ("plugin", "new", HOSTILE),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_an_error_is_text_on_a_terminal(run, command: tuple[str, ...]) -> None:
    result = run(*command, stdin="a good password\n")
    assert result.exit_code != 0
    assert not CONTROL.search(result.output)
