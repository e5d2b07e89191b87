"""What all commands have in common: which server, and how they say that something is wrong."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from authserver.cli import main


def test_every_command_can_be_asked_for_help() -> None:
    """Nothing is read or loaded for that: no INI file is named here."""
    for path in (
        [],
        ["db", "upgrade"],
        ["db", "current"],
        ["user", "add"],
        ["user", "list"],
        ["user", "disable"],
        ["client", "add"],
        ["client", "list"],
        ["client", "show"],
        ["client", "disable"],
        ["keys", "list"],
        ["keys", "secret"],
        ["lint"],
        ["plugins"],
        ["demo"],
    ):
        result = CliRunner().invoke(main, [*path, "--help"])
        assert result.exit_code == 0, path
        assert result.stdout.startswith("Usage:")


@pytest.mark.parametrize("path", [[], ["client"], ["explain"], ["keys"], ["limits"]])
def test_help_says_of_each_command_the_whole_first_sentence(path: list[str]) -> None:
    listed = CliRunner().invoke(main, [*path, "--help"], terminal_width=80).stdout.partition("Commands:\n")[2]
    assert listed and "..." not in listed
    assert all(len(line) <= 80 for line in listed.splitlines())


def test_the_environment_names_the_ini_file(run, ini, monkeypatch) -> None:
    monkeypatch.setenv("AUTHSERVER_CONFIG", str(ini))
    result = CliRunner().invoke(main, ["db", "current"])
    assert result.exit_code == 0, result.output


def test_without_an_ini_file_a_command_says_how_to_name_one(monkeypatch) -> None:
    monkeypatch.delenv("AUTHSERVER_CONFIG", raising=False)
    result = CliRunner().invoke(main, ["user", "list"])
    assert result.exit_code == 2
    assert "-c FILE" in result.stderr and "AUTHSERVER_CONFIG" in result.stderr


def test_a_missing_ini_file_is_named(bare, tmp_path) -> None:
    result = bare("user", "list", config=tmp_path / "elsewhere.ini")
    assert result.exit_code == 1
    assert f"{tmp_path / 'elsewhere.ini'}: no such file" in result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no section\n", ", line 1: is in no section; begin the file with [app:main]"),
        ("[app:other]\nuse = egg:authserver\n", "main"),
        ("[app:main]\nuse = egg:authserver\nkey = %(nowhere)s\n", "nowhere"),
    ],
)
def test_an_ini_file_that_cannot_be_read_is_one_sentence(bare, tmp_path, text, expected) -> None:
    path = tmp_path / "broken.ini"
    path.write_text(text)
    result = bare("user", "list", config=path)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {path}") and expected in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    ["lint FILE", "-c FILE lint", "-c FILE plugins", "-c FILE db current", "-c FILE doctor"],
)
def test_commands_that_check_a_file_name_the_line_that_cannot_be_read(tmp_path, command: str) -> None:
    """What pserve says with a traceback, these say in one line; `serve` has tests of its own."""
    path = tmp_path / "broken.ini"
    path.write_text("[app:main]\nuse = egg:authserver\nnot-to-be-shown\n")
    result = CliRunner().invoke(main, shlex.split(command.replace("FILE", str(path))))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {path}, line 3: is no `name = value`; write it so, ")
    assert result.stderr.count("\n") == 1
    assert "not-to-be-shown" not in result.output


def test_a_misspelt_setting_is_named_with_the_known_one(run, ini) -> None:
    """T142: a typing mistake must not leave a default in force unseen."""
    ini.write_text(ini.read_text().replace("authserver.issuer =", "authserver.isuer ="))
    result = run("plugins")
    assert result.exit_code == 1
    assert "authserver.isuer: no such setting; did you mean authserver.issuer" in result.stderr
    assert result.stdout == ""


def test_a_misspelt_plugin_is_named_with_the_known_one(run, ini) -> None:
    """T142."""
    ini.write_text(ini.read_text().replace("    redirect_exact\n", "    redirect_exactly\n"))
    result = run("plugins")
    assert result.exit_code == 1
    assert "redirect_exactly: no such plugin; did you mean redirect_exact" in result.stderr


def test_a_database_that_cannot_be_opened_is_one_sentence(run, ini) -> None:
    ini.write_text(ini.read_text().replace(".local/authserver.sqlite", "nowhere/authserver.sqlite"))
    for command in (["db", "upgrade"], ["user", "list"]):
        result = run(*command)
        assert result.exit_code == 1, result.output
        assert "unable to open database file" in result.stderr and "authserver.database_url" in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_driver_that_is_not_installed_is_named(bare, ini, monkeypatch) -> None:
    """`pip install authserver` alone brings none for PostgreSQL."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    url = "postgresql+psycopg://authserver@db.example.com/authserver"
    ini.write_text(re.sub(r"sqlite:///\S+", url, ini.read_text()))
    (ini.parent / ".local").mkdir()
    (ini.parent / ".local/secret_keys").write_text(bare("keys", "secret").stdout)
    for command in (("db", "upgrade"), ("user", "list")):
        result = bare(*command)
        assert result.exit_code == 1
        assert "authserver.database_url: the driver of postgresql cannot be imported" in result.stderr
        assert "pip install 'authserver[postgresql]'" in result.stderr


def test_tables_that_are_not_there_lead_to_db_upgrade(run, ini) -> None:
    ini.write_text(ini.read_text().replace(".local/authserver.sqlite", ".local/other.sqlite"))
    result = run("user", "list")
    assert result.exit_code == 1
    assert "authserver db upgrade" in result.stderr


@pytest.mark.parametrize(
    "words", [("client", "show"), ("grant", "list", "--client"), ("end", "scope")], ids=" ".join
)
def test_bytes_that_are_no_text_are_refused(run, words: tuple[str, ...]) -> None:
    """As a terminal sends them whose encoding is another: the database could not even be asked."""
    result = run(*words, "caf\udce9")
    assert result.exit_code == 2
    assert "caf\\udce9: is not valid UTF-8" in result.stderr


def test_a_file_may_have_a_name_that_is_no_text(run, ini: Path, bare) -> None:
    renamed = ini.rename(ini.with_name("caf\udce9.ini"))
    result = bare("user", "list", config=renamed)
    assert result.exit_code == 0, result.output


def test_a_name_that_the_terminal_cannot_show_is_escaped(run, ini: Path) -> None:
    """Where the encoding of stdout is not UTF-8."""
    assert run("user", "edit", "demo", "--display-name", "Zoë محمد 😀").exit_code == 0
    show = ["-c", str(ini), "user", "show", "demo"]
    shown = CliRunner(charset="iso8859-1").invoke(main, show)
    assert "Zoë \\u0645\\u062d\\u0645\\u062f \\U0001f600" in shown.stdout
    for charset in ("iso8859-1", "ascii", "utf-8"):
        shown = CliRunner(charset=charset).invoke(main, [*show, "--json"])
        assert json.loads(shown.stdout)["display_name"] == "Zoë محمد 😀"


def test_the_installed_command_prints_nothing_but_its_answer(ini: Path) -> None:
    """The console script itself, in a process of its own: no warning of a library reaches the terminal."""
    script = Path(sys.executable).with_name("authserver")
    if not script.exists():
        script = Path(sys.executable)  # not installed: the module says the same
        command = [str(script), "-c", "from authserver.cli import main; main()"]
    else:
        command = [str(script)]
    demo = subprocess.run([*command, "-c", str(ini), "demo"], capture_output=True, text=True, check=True)
    assert demo.stderr == ""
    users = subprocess.run(
        [*command, "-c", str(ini), "user", "list"], capture_output=True, text=True, check=True
    )
    assert users.stderr == ""
    assert users.stdout.splitlines()[1].startswith("demo ")


def test_the_events_of_a_command_name_it(run, ini) -> None:
    """R-12: an operator's command did it, from no network address."""
    assert run("user", "add", "cecil", "--password-stdin", stdin="a good password\n").exit_code == 0
    assert run("user", "disable", "cecil").exit_code == 0
    with closing(sqlite3.connect(ini.parent / ".local" / "authserver.sqlite")) as connection:
        found = connection.execute("SELECT type, actor, source FROM events").fetchall()
    assert ("user.added", "command:demo", "") in found
    assert ("user.added", "command:user add", "") in found
    assert ("user.disabled", "command:user disable", "") in found
