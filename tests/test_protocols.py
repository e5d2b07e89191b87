"""`authserver.protocols` says what `hookspecs` declares, and type checkers find what an author does wrong.

Write it again after a change of the hooks, with `.venv/bin/python tests/test_protocols.py`.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from authserver import api, protocols
from authserver.api import Client, Decision, ScopeDecisionHook, hookimpl, narrow
from authserver.engine.decisions import Verdict
from authserver.hookspecs import every_hook
from authserver.plugins.asking import PluginSet
from authserver.testing.questions import a_question

CHECKOUT = Path(__file__).parent.parent
FILE = CHECKOUT / "authserver/protocols.py"
HOOKS = {name: hook.function for name, hook in every_hook().items()}
HEAD = FILE.read_text(encoding="utf-8").partition("\n\nclass ")[0]


def name_of(hook: str) -> str:
    return "".join(word.capitalize() for word in hook.split("_")) + "Hook"


def written() -> str:
    """The module, with a Protocol for each hook below the head that it has already."""
    text = HEAD + "".join(f"\n\n{_protocol(hook)}" for hook in HOOKS)
    command = [sys.executable, "-m", "ruff", "format", "--no-cache", "--stdin-filename", str(FILE), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def _protocol(hook: str) -> str:
    signature = inspect.signature(HOOKS[hook])
    arguments = [f"{name}: {item.annotation}" for name, item in signature.parameters.items()]
    taken = ", ".join(["self", *(["*", *arguments] if arguments else [])])
    doc = (inspect.getdoc(HOOKS[hook]) or "").partition("\nSilence:")[0].strip()
    body = textwrap.indent(f'"""{doc}\n"""\n...', " " * 8)
    return (
        f"class {name_of(hook)}(Protocol):\n"
        f'    """Of a plugin that serves `{hook}`."""\n\n'
        f"    def {hook}({taken}) -> {signature.return_annotation}:\n{body}\n"
    )


def test_the_protocols_are_those_of_the_hooks() -> None:
    """Names, arguments, types and documentation; so none is out of date."""
    assert FILE.read_text(encoding="utf-8") == written(), "run .venv/bin/python tests/test_protocols.py"


@pytest.mark.parametrize("hook", HOOKS)
def test_authors_can_import_every_protocol_and_every_type_in_it(hook: str) -> None:
    """From `authserver.api`, the only module that a plugin may import of this server."""
    assert name_of(hook) in api.__all__
    function = getattr(getattr(protocols, name_of(hook)), hook)
    ours = {
        kind
        for hint in typing.get_type_hints(function).values()
        for kind in _kinds(hint)
        if kind.__module__.startswith("authserver.")
    }
    assert {kind.__name__ for kind in ours} <= set(api.__all__)


def _kinds(hint: Any) -> set[type]:
    inner = {kind for argument in typing.get_args(hint) for kind in _kinds(argument)}
    origin = typing.get_origin(hint) or hint
    return inner | {origin} if isinstance(origin, type) else inner


def test_a_typed_plugin_is_asked_like_any_other() -> None:
    """Arguments by keyword, and `**others` for those that it does not need."""

    @dataclass(frozen=True)
    class Typed(ScopeDecisionHook):
        @hookimpl
        def scope_decision(
            self, *, client: Client, requested: tuple[str, ...], **others: Any
        ) -> Decision[tuple[str, ...]] | None:
            return narrow(client.client_id.replace("_", "-"), requested)

    asked = a_question("scope_decision")
    (answer,) = PluginSet([("typed", Typed())]).ask_all(asked)
    assert (answer.verdict, answer.value) == (Verdict.NARROW, asked.requested)


def test_a_typed_plugin_without_the_method_serves_nothing() -> None:
    """What it inherits is no implementation."""

    @dataclass(frozen=True)
    class Empty(ScopeDecisionHook): ...

    assert not PluginSet([("empty", Empty())]).serves("scope_decision")


TYPED = """
from dataclasses import dataclass
from typing import Any

from authserver.api import (
    Client, Decision, Event, Grant, ObserveHook, ScopeDecisionHook, TokenClaimsHook, allow, deny, hookimpl, narrow
)


class Right(ScopeDecisionHook, ObserveHook):
    @hookimpl
    def scope_decision(
        self, *, client: Client, requested: tuple[str, ...], **others: Any
    ) -> Decision[tuple[str, ...]] | None:
        if client.first_party:
            return None
        return deny("no") if not requested else narrow("some", requested)

    @hookimpl
    def observe(self, *, event: Event) -> None:
        print(event.reason)


class WrongName(ScopeDecisionHook):
    @hookimpl
    def scope_decision(self, *, clients: Client, **others: Any) -> None: ...  # name


class WrongType(ScopeDecisionHook):
    @hookimpl
    def scope_decision(self, *, requested: list[str], **others: Any) -> None: ...  # type


class WrongAnswer(ScopeDecisionHook):
    @hookimpl
    def scope_decision(self, **others: Any) -> Decision[str]: ...  # answer


class WrongValue(ScopeDecisionHook):
    @hookimpl
    def scope_decision(self, *, requested: tuple[str, ...], **others: Any) -> Decision[tuple[str, ...]]:
        return allow("all", " ".join(requested))  # value


class WrongAttribute(TokenClaimsHook):
    @hookimpl
    def token_claims(self, *, grant: Grant, **others: Any) -> dict[str, Any]:
        return {"tenant": grant.tenant}  # attribute


class WithoutTheRest(ScopeDecisionHook):
    @hookimpl
    def scope_decision(self, *, client: Client) -> None: ...  # rest


class Misspelt(ScopeDecisionHook):
    @hookimpl
    def scopes_decision(self, **others: Any) -> None: ...


Misspelt()  # hook
"""


@pytest.mark.slow
def test_a_type_checker_finds_each_mistake_and_nothing_else(tmp_path: Path) -> None:
    """Wrong names, types, answers, values and attributes, and a method that is missing."""
    (tmp_path / "typed.py").write_text(TYPED)
    files = str(tmp_path / "typed.py"), "docs/examples/typed_read_only.py"
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *files],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    found = {
        TYPED.splitlines()[int(number) - 1].rpartition("# ")[2]
        for number in re.findall(r"typed\.py:(\d+): error: ", run.stdout)
    }
    assert found == {"name", "type", "answer", "value", "attribute", "rest", "hook"}, run.stdout
    assert "typed_read_only.py" not in run.stdout


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
