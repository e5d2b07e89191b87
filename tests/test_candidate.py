"""A plugin from a file or a module, as `authserver policy try` finds it: each form, and what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from authserver.ini import Resolved
from authserver.plugins import candidate, loading
from authserver.settings import SettingsError

ONE = """
from dataclasses import dataclass

from authserver.api import hookimpl, narrow


@dataclass(frozen=True)
class ReadOnly:
    ending: str = ".write"

    def __post_init__(self):
        if not self.ending.startswith("."):
            raise ValueError("the ending begins with a period")

    @hookimpl
    def scope_decision(self, requested):
        return narrow("read-only", tuple(scope for scope in requested if not scope.endswith(self.ending)))
"""
ANOTHER = ONE.replace("ReadOnly", "Another")
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file with this text, by its name."""

    def written(text: str, name: str = "read_only.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return written


def loaded(target: str, **settings: str) -> tuple[str, bool]:
    """The name of the plugin, and whether it serves the hook."""
    name, kind = candidate.find(target)
    texts = {name: Resolved(text, True) for name, text in settings.items()}
    plugins = loading.one(name, kind, texts, time_limit=10)
    plugins.close()
    return name, plugins.serves("scope_decision")


def test_each_form_finds_the_plugin(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(write(ONE)) == ("read_only", True)
    assert loaded(write(ONE + ANOTHER) + ":Another") == ("another", True)
    package = Path(write(ONE, "authserver_read_only/__init__.py")).parent
    assert loaded(str(package)) == ("read_only", True)
    monkeypatch.syspath_prepend(str(Path(write(ONE, "beside/a_module_to_try.py")).parent))
    assert loaded("a_module_to_try:ReadOnly", ending=".delete") == ("read_only", True)
    assert loaded("scopes_registered") == ("scopes_registered", True)
    assert loaded("authserver.policies.scopes:ScopesRegistered") == ("scopes_registered", True)


def test_modules_beside_the_file_can_be_imported(write: Write) -> None:
    write("ENDING = '.write'", "endings_of_scopes.py")
    assert loaded(write("from endings_of_scopes import ENDING\n" + ONE)) == ("read_only", True)
    package = write("from .inner import ReadOnly", "authserver_two/__init__.py")
    write(ONE, "authserver_two/inner.py")
    assert loaded(f"{Path(package).parent}:ReadOnly") == ("read_only", True)


def test_a_file_with_the_name_of_another_module_takes_nothing_from_it(write: Write) -> None:
    import json

    assert loaded(write(ONE, "json.py")) == ("read_only", True)
    assert loaded(write(ONE, "authserver.py")) == ("read_only", True)
    assert json.dumps([]) == "[]"


@pytest.mark.parametrize(
    ("text", "settings", "sentence"),
    [
        ("", {}, "has no plugin: a class with a method that is marked @hookimpl of authserver.api"),
        (ONE + ANOTHER, {}, "has 2 plugins; name one of them: "),
        ("import nothing_of_this_name", {}, "cannot be imported: ModuleNotFoundError: No module named"),
        ("\ndef (", {}, "cannot be imported: SyntaxError: invalid syntax (read_only.py, line 2)"),
        ("raise SystemExit('no')", {}, "cannot be imported: SystemExit: no (read_only.py, line 1)"),
        (ONE.replace("(frozen=True)", ""), {}, "ReadOnly is not a frozen dataclass"),
        (ONE.replace("    @hookimpl\n", ""), {}, "write @hookimpl of authserver.api above it"),
        (
            ONE.replace("requested)", "scopes)"),
            {},
            "takes `scopes`, an argument that this hook does not have",
        ),
        (ONE.replace(' = ".write"', ""), {}, "authserver.plugin.read_only.ending: missing"),
        (ONE, {"team": "x"}, "authserver.plugin.read_only.team: no such setting"),
        (ONE, {"ending": "w"}, "the ending begins with a period"),
        (
            ONE + "\n    def prepare(self):\n        raise OSError('no such directory')\n",
            {},
            "it failed to prepare: no such directory",
        ),
    ],
)
def test_a_file_that_holds_no_policy_is_refused_in_a_sentence(
    write: Write, text: str, settings: dict[str, str], sentence: str
) -> None:
    file = write(text)
    with pytest.raises(SettingsError) as raised:
        loaded(file, **settings)
    (problem,) = raised.value.problems
    assert sentence in problem


def test_a_file_that_hangs_is_not_waited_for(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "LOADING_SECONDS", 0.3)
    with pytest.raises(SettingsError, match=r"cannot be imported: it takes longer than 0\.3 seconds"):
        loaded(write("import threading; threading.Event().wait()\n" + ONE))


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("nowhere/read_only.py", "nowhere/read_only.py: no such file"),
        ("nowhere/read_only.py:ReadOnly", "nowhere/read_only.py: no such file"),
        ("nothing_here:Policy", "nothing_here:Policy cannot be imported: ModuleNotFoundError"),
        ("json:Policy", "json:Policy: there is no class Policy; there is no plugin in it at all"),
        (
            "authserver.policies.scopes:ScopeRegistered",
            "there is no class ScopeRegistered; did you mean Scopes",
        ),
        (
            "scopes_registred",
            "neither a file, module:Class nor an installed plugin; did you mean scopes_registered",
        ),
        (":", ": cannot be imported: ValueError: Empty module name"),
        ("", "is neither"),
        ("README.md", "README.md: it is not a Python module; its name must end in .py"),
        ("docs", "docs/__init__.py: no such file"),
    ],
)
def test_a_policy_that_is_nowhere_is_named(
    target: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    with pytest.raises(SettingsError) as raised:
        candidate.find(target)
    (problem,) = raised.value.problems
    assert sentence in problem
