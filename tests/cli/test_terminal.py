"""What is stored reaches a terminal as text, whatever wrote it: T094 on the command line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from authserver.cli.configuration import Configuration
from authserver.engine import issuer_registry
from authserver.engine.people.login import add_user
from authserver.engine.records import Event, EventType
from authserver.engine.setting_records import TrustedIssuer
from authserver.testing.records import (
    a_client,
    a_consent,
    a_grant,
    a_resource,
    a_session,
    an_event,
    an_identity,
    an_initial_token,
)
from tests.cli.tree import commands
from tests.client_keys import Key, encoded
from tests.trusted_issuers import GRANT_TYPE

# A window title, a cleared screen, a C1 sequence, the other direction, a hidden joiner, and a line of its own.
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u200d\r\nada  administrator"
# In columns that hold several words.
WORD = "https://client.example/\x1b]0;title\x07\x1b[2J\u009b31m\u202e\u200d"
ISSUER = "https://issuer.example"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile(run, ini: Path) -> Configuration:
    """A server whose rows another program, or an older one, filled."""
    ini.write_text(ini.read_text("utf-8").replace("    # jwt_bearer\n", "    jwt_bearer\n"), "utf-8")
    configuration = Configuration(ini)
    with configuration.engine() as engine:
        stores, now = engine.stores, engine.now
        demo = stores.users.find_by_name("demo")
        eve = add_user(engine, "eve", "a good password")
        for number, user_id in enumerate((demo.user_id, eve.user_id)):
            stores.consents.remember(a_consent(user_id=user_id, client_id="playground"))
            grant = a_grant(grant_id=f"grant_{2 + number}", user_id=user_id, client_id="playground")
            stores.grants.add(replace(grant, created_at=now, expires_at=now + timedelta(days=1)))
        stores.resources.add(a_resource(form="urn:shown", uri="urn:shown", scopes=None))
        stores.initial_tokens.add(an_initial_token())
        stores.clients.add(a_client(client_id="robot", grant_types=(GRANT_TYPE,)))
        stores.identities.add(an_identity(user_id=eve.user_id, label=HOSTILE))
        for issuer in (ISSUER, HOSTILE):
            trusted = TrustedIssuer(
                issuer=issuer,
                profile=HOSTILE,
                is_enabled=False,
                jwks=json.dumps(Key().jwks()),
                algorithms=("ES256",),
                clients=(HOSTILE,),
                resources=(HOSTILE,),
                scopes=(HOSTILE,),
                default_resource=HOSTILE,
                options={HOSTILE: HOSTILE},
            )
            stores.stored_settings.keep(issuer_registry.as_setting(trusted, now))
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
            "users SET username = :text WHERE username = 'demo'",
            "users SET display_name = :text",
            "resources SET name = :text",
            "initial_tokens SET note = :text, made_by = :text",
            "consents SET scopes = :word, resources = :word",
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


# The arguments of each command whose output may have what is stored; those that change something come last.
SHOWING: dict[str, list[str]] = {
    "audit search": [],
    "audit readers": [],
    "audit show": ["event_2"],
    "audit verify": [],
    "client list": [],
    "client secrets": ["demo-service"],
    "client show": ["playground"],
    "db current": [],
    "db purge": ["--dry-run"],
    "explain": ["--error-id", "event_1"],
    "explain assertion": ["robot", "--file", "-"],
    "explain client-auth": ["playground"],
    "explain consent": ["playground", "eve"],
    "explain origin": ["https://client.example"],
    "explain redirect-uri": ["playground", "https://client.example/callback"],
    "explain introspection": ["demo-service", "playground"],
    "explain resource": ["playground"],
    "explain scope": ["playground"],
    "explain sign-in": ["playground"],
    "grant consents": [],
    "grant list": [],
    "initial-token list": [],
    "issuer list": [],
    "issuer show": [ISSUER],
    "issuer test": [ISSUER],
    "keys list": [],
    "limits": [],
    "lint": [],
    "plugins": [],
    "policy shadow-report": [],
    "resource list": [],
    "resource show": ["urn:shown"],
    "user list": [],
    "user show": ["eve"],
    "end scope": ["profile", "--dry-run"],
    "issuer remove": [ISSUER, "--dry-run"],
    "resource remove": ["urn:shown", "--dry-run"],
    "end resource": ["urn:shown"],
    "end issuer": [ISSUER],
    "issuer edit": [
        *(ISSUER, "--profile", "jwt_bearer", "--default-resource", "urn:shown"),
        *("--every-client", "--every-resource", "--every-scope", "--option", f"{HOSTILE}="),
    ],
    "issuer enable": [ISSUER],
    "issuer disable": [ISSUER],
    "grant revoke": ["grant_2"],
    "user remove-identity": ["eve", an_identity().issuer, an_identity().subject],
    "user edit": ["eve", "--display-name", "Ada"],
    "end client": ["playground"],
    "client edit": ["demo-service", "--name", "Service"],
    "client rotate-secret": ["demo-service", "--overlap", "0"],
    "client disable": ["playground"],
    "initial-token revoke": ["initial_1"],
    "end user": ["eve"],
    "user sign-out": ["eve"],
    "user password": ["eve", "--password-stdin"],
    "user disable": ["eve"],
    "user enable": ["eve"],
    "stats": [],
}
# These have tests of their own, and print what was typed or made: there is nothing stored in it.
MAKING = {
    "apply",
    "audit verify",
    "client add",
    "client end-secret",
    "client pin",
    "db copy",
    "db reencrypt",
    "db restored",
    "doctor",
    "explain registration",
    "initial-token add",
    "initial-token generate",
    "issuer add",
    "keys revoke",
    "keys rotate",
    "limits lift",
    "policy replay",
    "policy try",
    "resource add",
    "resource edit",
    "user add",
    "user reset-password",
}
# These do nothing, and say so, when they come again.
ONCE = {"client disable", "issuer enable", "user disable", "user enable", "user remove-identity"}
# What is on stdin in place of a password.
TYPED = {"explain assertion": f"{encoded({'alg': 'ES256'})}.{encoded({'iss': ISSUER, 'sub': HOSTILE})}.AAAA"}
# The hostile text is in the output of these.
HOSTILE_IN = {
    "audit search",
    "audit show",
    "client list",
    "client show",
    "explain",
    "grant consents",
    "grant list",
    "initial-token list",
    "issuer list",
    "issuer show",
    "policy shadow-report",
    "resource list",
    "resource show",
    "user list",
    "user show",
}


def test_every_command_that_answers_in_json_is_tried_here() -> None:
    """A new one must join the lists above."""
    named = {
        command for command, found in commands() if any(option.name == "as_json" for option in found.params)
    }
    assert named == SHOWING.keys() | MAKING


def test_what_is_stored_is_text_on_a_terminal(run, hostile: Configuration) -> None:
    """T159: in tables and sentences, in JSON, and in what goes to stderr; and with --json there is nothing but JSON."""
    for command, arguments in SHOWING.items():
        for options in (["--json"], []):
            if not options and command in ONCE:
                continue  # it is done already
            result = run(
                *command.split(), *arguments, *options, stdin=TYPED.get(command, "a good password\n")
            )
            # What finds something says so with its status.
            told = {
                "lint": 1,
                "issuer test": 1,
                "grant revoke": 1,
                "initial-token revoke": 1,
                "audit verify": 2,
            }
            assert result.exit_code in (0, told.get(command, 0)), (command, result.output)
            assert not CONTROL.search(result.output), (command, options)
            if options and result.stdout:
                found = [json.loads(text) for text in documents(command, result.stdout)]
                texts = json_texts(found)
                assert command not in HOSTILE_IN or HOSTILE in texts or WORD in texts, command
            elif command in HOSTILE_IN:
                # A table folds what is wide.
                assert r"\x1b]0;title" in re.sub(r"\s+", "", result.output), command
                assert not re.search(r"(?m)^ada ", result.output)


def documents(command: str, text: str) -> list[str]:
    """The JSON documents: events come one in a line."""
    return text.splitlines() if command == "audit search" else [text]


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
