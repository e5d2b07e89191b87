"""Commands are even: what one kind of them has, each of that kind has, by the same name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from authserver.cli import COMMANDS, main
from authserver.engine.records import EventType
from tests.cli.tree import commands

TREE = dict(commands())
LISTS = [words for words in TREE if words.split()[-1] in ("list", "search", "consents")]
# Whose name says that something ends, and these.
ENDING = re.compile(r"^end |\b(disable|end-secret|remove|restored|revoke|sign-out)$")
ENDS = [words for words in TREE if ENDING.search(words)] + ["user password"]
# What they print is no answer: files, what files declare, a text to be pasted, an audit trail in JSON Lines, or the log of
# a server.
WITHOUT_JSON = {
    "audit export",
    "db upgrade",
    "demo",
    "export",
    "init",
    "keys secret",
    "openapi",
    "plugin new",
    "serve",
}


def options_of(words: str) -> set[str]:
    return {option for param in TREE[words].params for option in param.opts if option.startswith("-")}


def complete(line: str, shell: str = "bash") -> list[str]:
    """What the shell offers for the last word of a line."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    if shell == "fish":
        words["COMP_CWORD"] = line.rpartition(" ")[2]
    env = {"_AUTHSERVER_COMPLETE": f"{shell}_complete", **words}
    result = CliRunner().invoke(main, [], prog_name="authserver", env=env)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    if shell == "zsh":
        return lines[1::3]
    return [re.split(r"[,\t]", text)[1] for text in lines]


@pytest.mark.parametrize("words", LISTS)
def test_each_list_has_pages(words: str) -> None:
    assert {"--json", "--limit", "--after"} <= options_of(words)


@pytest.mark.parametrize("words", ENDS)
def test_whatever_ends_something_asks_first(words: str) -> None:
    assert {"--json", "--yes"} <= options_of(words)


def test_what_ends_a_whole_subject_can_be_tried_before() -> None:
    whole = [words for words in ENDS if words.startswith("end ")]
    assert len(whole) == 5
    for words in [*whole, "user disable", "user sign-out", "client disable", "resource remove"]:
        assert "--dry-run" in options_of(words)


def test_each_command_answers_in_json() -> None:
    assert {words for words in TREE if "--json" not in options_of(words)} == WITHOUT_JSON


def test_help_speaks_in_one_voice() -> None:
    """A sentence for each command and option, which begins with a capital letter and ends with a full stop."""
    for words, command in TREE.items():
        assert command.help is not None, words
        first = command.help.split("\n\n")[0].strip()
        assert re.match(r"[A-Z].*[.?:]$", first, re.DOTALL), (words, first)
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, (words, param.opts)
                assert re.match(r"[A-Z0-9`].*[.)]$", param.help), (words, param.help)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_names(shell: str) -> None:
    """Of commands, options and choices, without an INI file."""
    assert complete("authserver e", shell) == ["end", "explain", "export"]
    assert complete("authserver end ", shell) == ["client", "issuer", "resource", "scope", "user"]
    assert complete("authserver client list --state ", shell) == ["new", "used", "idle", "gone"]
    assert "--dry-run" in complete("authserver user disable --d", shell)
    types = complete("authserver audit search --event client.", shell)
    assert types == [type for type in EventType if type.startswith("client.")]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    env = {"_AUTHSERVER_COMPLETE": f"{shell}_source"}
    result = CliRunner().invoke(main, [], prog_name="authserver", env=env)
    assert result.exit_code == 0 and f"_AUTHSERVER_COMPLETE={shell}_complete" in result.stdout


def test_the_installed_program_completes_without_a_server(tmp_path: Path) -> None:
    """Somebody waits at each key: neither the INI file nor Pyramid is loaded, and no group but the one that is named."""
    program = shutil.which("authserver", path=str(Path(sys.executable).parent))
    assert program is not None
    for line, offered in (("authserver ", COMMANDS), ("authserver end u", ("user",))):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", program],
            env={
                **os.environ,
                "AUTHSERVER_CONFIG": str(tmp_path / "none.ini"),
                "_AUTHSERVER_COMPLETE": "bash_complete",
                "COMP_WORDS": line,
                "COMP_CWORD": str(line.count(" ")),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.split() == [f"plain,{name}" for name in offered]
        loaded = {text.rpartition("|")[2].strip() for text in done.stderr.splitlines()}
        assert loaded.isdisjoint({"pyramid", "alembic", "authserver.app", "authserver.plugins.loading"})
        groups = {name for name in loaded if name.startswith("authserver.cli.")}
        assert "authserver.cli.doctor" not in groups
