"""Commands while a plugin cannot be loaded: those that need no decision go on, the others say why they cannot."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest
from click.testing import Result

from authserver.cli import configuration, main
from authserver.engine import issuer_registry
from authserver.engine.setting_records import TrustedIssuer
from authserver.storage.database import Database
from authserver.testing.records import NOW, a_resource, an_event, an_identity, an_initial_token

CHECKOUT = Path(__file__).parents[2]
Run = Callable[..., Result]
# What the table of docs/commands.rst calls each kind of command.
KINDS = {
    "decide": "decide:",
    "observe": "are told what was done",
    "explain": "add their own remedies",
    "unused": "are not loaded at all",
}
OBSERVING = """
from dataclasses import dataclass

from authserver.api import hookimpl


@dataclass(frozen=True)
class TellsAFile:
    path: str

    @hookimpl
    def observe(self, event):
        with open(self.path, "a") as file:
            print(event.type, file=file)
"""


def documented() -> dict[str, list[str]]:
    """The commands of each kind."""
    page = (CHECKOUT / "docs/commands.rst").read_text()
    rows = re.findall(r"(?ms)^   \* - (.*?)\n     - (.*?)\n(?=   \*|\n)", page)
    # A name may stand on two lines; behind a semicolon is what else is known of a command of another row.
    cells = {
        kind: next(words for title, words in rows if title.startswith(begin)) for kind, begin in KINDS.items()
    }
    return {
        kind: re.findall(r"`(.*?)`", " ".join(words.partition(";")[0].split()))
        for kind, words in cells.items()
    }


def listed(ini: Path, plugin: str, *settings: str) -> None:
    text = ini.read_text().replace("authserver.plugins =\n", f"authserver.plugins =\n    {plugin}\n", 1)
    ini.write_text(text.replace("# ---- What may be issued", "\n".join(settings) + "\n# ---- ", 1))


@pytest.fixture
def broken(run: Run, ini: Path) -> Run:
    """A server whose plugin fails at import and whose settings lack a file."""
    (ini.parent / "broken_beside.py").write_text("1 / 0\n")
    listed(ini, "broken_beside:Some", "authserver.plugin.some.key = file:%(here)s/gone")
    (ini.parent / "gone").write_text("key")
    return run


PROBLEM = "authserver.plugins: broken_beside:Some cannot be imported: ZeroDivisionError: division by zero ("


def test_every_command_is_in_the_table() -> None:
    def below(words: str, command: click.Command) -> Iterator[str]:
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield words
        if not isinstance(command, click.Group):
            return
        for name in command.list_commands(click.Context(command)):
            child = command.get_command(click.Context(command), name)
            assert child is not None
            yield from below(f"{words} {name}".strip(), child)

    commands = {command for command in below("", main) if not command.startswith("explain ")}
    named = [
        command for kind in documented().values() for command in kind if not command.startswith("explain")
    ]
    assert sorted(named) == sorted(commands - {"explain"})


def test_commands_that_need_no_plugin_load_none(broken: Run, ini: Path) -> None:
    """They do not even mention those that fail, nor a file that only their settings name."""
    (ini.parent / "gone").unlink()
    arguments = {
        "user show": ["demo"],
        "client show": ["demo-service"],
        "client secrets": ["demo-service"],
        "audit export": ["--output", str(ini.parent / "events.jsonl")],
        "init": [str(ini.parent / "another")],
        "doctor": ["--list"],
        "db copy": ["--to", f"sqlite:///{ini.parent}/copy.sqlite", "--json"],
        "plugin new": ["quiet-hours", "--directory", str(ini.parent)],
    }
    for command in documented()["unused"]:
        done = broken(*command.split(), *arguments.get(command, []))
        assert (done.exit_code, done.stderr) == (0, ""), (command, done.output)


def test_a_heading_for_the_scopes_of_a_plugin_stops_no_command_without_it(run: Run, ini: Path) -> None:
    listed(ini, "offline_access", "authserver.scope_groups = offline_access = While you are away")
    assert run("plugins").exit_code == 0
    listed(ini, "gone:Some")
    assert run("client", "list").exit_code == 0
    assert run("user", "disable", "demo").exit_code == 0


def test_commands_that_tell_plugins_go_on_without_them_and_say_so(broken: Run, ini: Path) -> None:
    def kids() -> list[str]:
        return [key["kid"] for key in json.loads(broken("keys", "list", "--json").stdout)]

    def secrets() -> list[str]:
        shown = broken("client", "secrets", "demo-service", "--json").stdout
        return [secret["secret"] for secret in json.loads(shown)]

    broken("keys", "rotate")
    with Database(f"sqlite:///{ini.parent}/.local/authserver.sqlite").begin() as stores:
        initial_token = an_initial_token().token_id
        stores.initial_tokens.add(an_initial_token())
        stores.resources.add(a_resource())
        demo = stores.users.find_by_name("demo")
        assert demo is not None
        stores.identities.add(an_identity(user_id=demo.user_id))
        for issuer in ("https://one.example", "https://other.example"):
            trusted = TrustedIssuer(
                issuer=issuer, profile="jwt_bearer", jwks='{"keys": []}', algorithms=("ES256",)
            )
            stores.stored_settings.keep(issuer_registry.as_setting(trusted, NOW))
    arguments: dict[str, Callable[[], list[str]]] = {
        "user add": lambda: ["ann", "--password-stdin"],
        "user edit": lambda: ["ann", "--add-group", "staff"],
        "user disable": lambda: ["ann"],
        "user enable": lambda: ["ann"],
        "user password": lambda: ["demo", "--password-stdin"],
        "user remove-identity": lambda: ["demo", an_identity().issuer, an_identity().subject],
        "user reset-password": lambda: ["demo"],
        "user sign-out": lambda: ["demo"],
        "client disable": lambda: ["playground"],
        "client rotate-secret": lambda: ["demo-service"],
        "client end-secret": lambda: ["demo-service", secrets()[0]],
        "end user": lambda: ["demo"],
        "end client": lambda: ["playground"],
        "end resource": lambda: [a_resource().uri],
        "end scope": lambda: ["profile"],
        "end issuer": lambda: ["https://idp.example"],
        "grant revoke": lambda: ["--user", "demo"],
        "initial-token revoke": lambda: [initial_token],
        "issuer disable": lambda: ["https://one.example", "--yes"],
        "issuer remove": lambda: ["https://other.example", "--yes"],
        "resource remove": lambda: [a_resource().uri, "--yes"],
        "keys rotate": lambda: ["--algorithm", "EdDSA"],
        "keys revoke": lambda: [kids()[0]],
        "db restored": lambda: ["--yes"],
    }
    assert set(arguments) == set(documented()["observe"])
    for command, words in arguments.items():
        done = broken(*command.split(), *words(), stdin="a long enough password\n")
        assert done.exit_code == 0, (command, done.output)
        first, second = done.stderr.splitlines()[:2]
        assert first == "The plugins cannot be loaded, so they are not notified of this:", command
        assert second.strip().startswith(PROBLEM), command
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection:
        (disabled,) = connection.execute(
            "SELECT count(*) FROM events WHERE type = 'user.disabled'"
        ).fetchone()
    assert disabled == 1


def test_what_happened_is_explained_without_the_remedies_of_plugins(broken: Run, ini: Path) -> None:
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection:
        (event_id,) = connection.execute("SELECT event_id FROM events LIMIT 1").fetchone()
    assert documented()["explain"] == ["explain --error-id", "audit show"]
    for command in documented()["explain"]:
        done = broken(*command.split(), event_id)
        assert done.exit_code == 0, done.output
        assert done.stderr.startswith("The plugins cannot be loaded, so their remedies are not shown:\n")


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("scope-not-registered", "the client is registered for every requested scope by now"),
        ("of-its-own", "its own remedies are not known, because no plugin is loaded"),
    ],
)
def test_no_plugin_is_said_to_be_listed_no_more(run: Run, ini: Path, reason: str, remedy: str) -> None:
    """Only it cannot be loaded."""
    answer = {"plugin": "scopes_registered", "verdict": "deny", "reason": reason, "microseconds": 1}
    facts = {"client_id": "demo-service", "requested": ["profile"]}
    decision = {
        "slot": "scope_decision",
        "verdict": "deny",
        "decided_by": "scopes_registered",
        "reason": reason,
    }
    database = Database(f"sqlite:///{ini.parent}/.local/authserver.sqlite")
    with closing(database), database.begin() as stores:
        stores.events.add(
            an_event(
                event_id="e1", reason=reason, decisions=({**decision, "facts": facts, "answers": [answer]},)
            )
        )
    listed(ini, "gone:Some")
    (check,) = json.loads(run("explain", "--error-id", "e1", "--json").stdout)["checks"]
    assert check["remedies"][0].startswith(f"scopes_registered: {remedy}")


def test_a_shadow_plugin_that_cannot_be_loaded_keeps_no_observer_from_being_told(run: Run, ini: Path) -> None:
    (ini.parent / "tells_beside.py").write_text(OBSERVING)
    told = ini.parent / "told"
    listed(ini, "tells_beside:TellsAFile", f"authserver.plugin.tells_afile.path = {told}")
    ini.write_text(
        ini.read_text().replace("[app:main]", "[app:main]\nauthserver.shadow_plugins = gone:Some", 1)
    )
    done = run("user", "disable", "demo")
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    assert told.read_text() == "user.disabled\n"
    assert "authserver.shadow_plugins: gone:Some: there is no module" in run("plugins").stderr


def test_commands_that_need_decisions_say_why_they_cannot(broken: Run, ini: Path) -> None:
    """One cause is one sentence: neither the settings of that plugin nor the names of all others are told."""
    (ini.parent / "declared.toml").touch()
    arguments = {
        "apply": [str(ini.parent / "declared.toml")],
        "client add": ["--name", "Notes"],
        "client edit": ["demo-service", "--name", "Notes"],
        "client pin": ["https://notes.example/client.json"],
        "initial-token add": ["--policy", "partners"],
        "issuer add": ["https://idp.example", "--profile", "jwt_bearer", "--jwks", "https://idp.example/"],
        "issuer edit": ["https://idp.example", "--lifetime", "2m"],
        "issuer enable": ["https://idp.example"],
        "issuer show": ["https://idp.example"],
        "issuer test": ["https://idp.example"],
        "policy replay": ["--config", str(ini)],
        "policy try": ["scopes_default"],
        "limits lift": ["sign-ins-from-source"],
        "resource add": ["https://notes.example/"],
        "resource edit": ["https://notes.example/", "--name", "Notes"],
        "resource show": ["https://notes.example/"],
        "explain": ["resource", "demo-service"],
    }
    for command in documented()["decide"]:
        if command == "serve":
            continue  # below
        done = broken(*command.split(), *arguments.get(command, []))
        assert done.exit_code == 1, command
        assert done.stderr.startswith(f"Error: {PROBLEM}"), done.stderr
        assert done.stderr.endswith("broken_beside.py, line 1)\n"), done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_server_says_why_it_cannot_start(broken: Run, ini: Path) -> None:
    """In a process of its own, which sets up the log."""
    program = Path(sys.executable).with_name("authserver")
    done = subprocess.run(
        [program, "-c", str(ini), "serve"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"authserver cannot start:\n  {PROBLEM}"), done.stderr
    assert len(done.stderr.splitlines()) == 2, done.stderr


def test_a_plugin_that_hangs_does_not_keep_a_key_from_being_revoked(
    run: Run, ini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ini.parent / "hangs_beside.py").write_text("import threading\nthreading.Event().wait()\n")
    listed(ini, "hangs_beside:Some")
    monkeypatch.setattr(configuration, "PATIENCE", 0.2)
    run("keys", "rotate")
    kid = json.loads(run("keys", "list", "--json").stdout)[0]["kid"]
    done = run("keys", "revoke", kid)
    assert done.exit_code == 0, done.output
    assert "hangs_beside takes longer than 0.2 seconds" in done.stderr
    assert f"{kid} (ES256) is out of use" in done.stdout


def test_what_is_wrong_without_plugins_too_stops_a_command(broken: Run, ini: Path) -> None:
    """And the plugins are not blamed for it."""
    ini.write_text(ini.read_text().replace("authserver.issuer =", "authserver.isuer ="))
    done = broken("keys", "rotate")
    assert done.exit_code == 1
    assert "authserver.isuer: no such setting; did you mean authserver.issuer" in done.stderr
    assert "plugins cannot be loaded" not in done.stderr


def test_a_plugin_that_can_be_loaded_is_told_what_a_command_did(run: Run, ini: Path) -> None:
    """It is found beside the INI file, wherever the command is started."""
    (ini.parent / "tells_beside.py").write_text(OBSERVING)
    told = ini.parent / "told"
    listed(ini, "tells_beside:TellsAFile", f"authserver.plugin.tells_afile.path = {told}")
    done = run("user", "disable", "demo")
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    assert told.read_text() == "user.disabled\n"
