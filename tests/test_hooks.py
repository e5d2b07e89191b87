"""Every hook is documented in one fixed form, served by something shipped, and named by a test."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
import textwrap
import typing
from importlib.metadata import entry_points
from pathlib import Path
from types import NoneType
from typing import Any

import pluggy
import pytest

from authserver import api, hookspecs
from authserver.engine.questions import ScopeQuestion
from authserver.hooks import PROJECT, deciding, is_implemented
from authserver.hookspecs import DECIDING, every_hook
from authserver.plugins.loading import GROUP

TESTS = Path(__file__).parent
HOOKS = {name: hook.function for name, hook in every_hook().items()}
SECTIONS = ("Arguments:", "Answers:", "Silence:", "Example::", "Added in")


def sections_of(name: str) -> dict[str, str]:
    """The parts of a hook's docstring by their headings; "" is what comes first."""
    text = inspect.getdoc(HOOKS[name]) or ""
    parts = re.split(r"^(Arguments:|Answers:|Silence:|Example::|Added in)", text, flags=re.MULTILINE)
    headings = parts[1::2]
    assert len(set(headings)) == len(headings), f"{name}: a section occurs twice"
    return dict(zip(["", *headings], parts[::2], strict=True))


def entries_of(section: str) -> dict[str, str]:
    """`name: text` entries, continued on deeper lines."""
    entries: dict[str, str] = {}
    name = ""
    for line in filter(str.strip, textwrap.dedent(section.lstrip("\n")).splitlines()):
        if not line.startswith(" "):
            name, _, line = line.partition(":")
        entries[name] = f"{entries.get(name, '')} {line.strip()}".strip()
    return entries


def test_the_hooks_are_those_that_are_declared() -> None:
    """T140: a hook without a rule for its answers would never be checked."""
    written = re.findall(r"^def (\w+)\(", inspect.getsource(hookspecs), re.MULTILINE)
    assert sorted(HOOKS) == sorted(written)
    assert all(hasattr(function, f"{PROJECT}_spec") for function in HOOKS.values())


@pytest.mark.parametrize("name", DECIDING)
def test_the_arguments_of_a_deciding_hook_are_the_fields_of_its_question(name: str) -> None:
    """Their types, too; and the answer is a decision with the value of the question."""
    hook = DECIDING[name]
    hints = typing.get_type_hints(hook.function)
    answer = hints.pop("return")
    question = typing.get_type_hints(hook.question)
    assert hints == {item.name: question[item.name] for item in dataclasses.fields(hook.question)}
    assert answer == api.Decision[hook.value] | None


def test_a_hook_that_is_declared_with_another_question_stops_the_import() -> None:
    declare: Any = deciding(ScopeQuestion, silence="refused", remedy="none")

    def scope_decision(client: object) -> None: ...

    def scopes_decision(client, user, grant_type, requested, resources) -> None: ...

    for function in (scope_decision, scopes_decision):
        with pytest.raises(TypeError, match="ScopeQuestion asks scope_decision\\(client, user, grant_type"):
            declare(function)


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_documented_in_the_fixed_form(name: str) -> None:
    """What it decides; arguments; what each answer means; what silence means; an example; since when."""
    sections = sections_of(name)
    first = sections[""].strip().partition("\n")[0]
    assert re.match(r"[A-Z].*\.( |$)", first), f"{name}: the first line is a sentence"
    arguments = [
        heading for heading in SECTIONS if heading != "Arguments:" or HOOKS[name].__code__.co_argcount
    ]
    assert list(sections) == ["", *arguments], f"{name}: the sections, in their order"
    assert re.fullmatch(r"[A-Z]?.*\.", sections["Silence:"].strip(), re.DOTALL)
    assert re.fullmatch(r" \d+\.\d+\.", sections["Added in"].rstrip())
    assert all(len(text) > 0 for text in entries_of(sections["Answers:"]))


@pytest.mark.parametrize("name", HOOKS)
def test_the_documented_arguments_are_the_real_ones(name: str) -> None:
    """In the order of the signature, each with words and a type."""
    signature = inspect.signature(HOOKS[name])
    documented = entries_of(sections_of(name).get("Arguments:", ""))
    assert list(documented) == list(signature.parameters)
    assert all(documented.values())
    assert all(item.annotation is not inspect.Parameter.empty for item in signature.parameters.values())
    assert signature.return_annotation is not inspect.Signature.empty


# What mypy must say, by line: at the engine's end a question and what its ruling gives, at the plugin's its answer.
MISTAKES = {
    "engine.ask(ResourceQuestion(client=client))": 'Missing named argument "resource"',
    "engine.ask(ResourceQuestion(client=client, resource=1))": 'Argument "resource"',
    "number: int = engine.ask(ResourceQuestion(client=client, resource=None)).allowed_value": "Incompatible types",
    "@deciding(ResourceQuestion, silence='refused', remedy='none')": "Argument 1 has incompatible type",
}


@pytest.mark.slow
def test_the_type_checker_holds_both_ends_of_a_question(tmp_path: Path) -> None:
    """A misspelt argument or a wrong value is found before anything runs."""
    ask, short, wrong, declared = MISTAKES
    source = f"""
from authserver.api import Client, Decision, Engine
from authserver.engine.questions import ResourceQuestion
from authserver.hooks import deciding

def rule(engine: Engine, client: Client) -> str:
    {ask}
    {short}
    {wrong}
    return engine.ask(ResourceQuestion(client=client, resource=None)).allowed_value

{declared}
def resource_decision(client: Client, resource: str | None) -> Decision[int] | None: ...
"""
    (tmp_path / "asks.py").write_text(source)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(tmp_path / "asks.py")],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    errors = {
        source.splitlines()[int(number) - 1].strip(): text
        for number, text in re.findall(r"asks\.py:(\d+): error: (.*)", run.stdout)
    }
    assert errors.keys() == MISTAKES.keys(), run.stdout
    assert all(MISTAKES[line] in errors[line] for line in MISTAKES)


@pytest.mark.parametrize("name", DECIDING)
def test_the_documented_answers_are_those_that_are_accepted(name: str) -> None:
    """allow with the value of the question, narrow where it narrows, deny, and None."""
    answers = list(entries_of(sections_of(name)["Answers:"]))
    hook = DECIDING[name]
    kinds = [answer.partition("(")[0] for answer in answers]
    assert kinds == ["allow", *(["narrow"] if hook.narrows else []), "deny", "None"]
    assert answers[0].count(",") == (0 if hook.value is NoneType else 1)
    assert answers[kinds.index("deny")].count(",") == (1 if hook.codes or hook.waits else 0)


@pytest.mark.parametrize("name", HOOKS)
def test_the_example_is_a_plugin_that_registers(name: str) -> None:
    """Whoever copies it gets a working start: it is Python, and takes arguments that the hook has."""
    source = textwrap.dedent(sections_of(name)["Example::"].strip("\n"))
    (function,) = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    assert function.name == name
    assert {item.arg for item in function.args.args} - {"self"} <= set(
        inspect.signature(HOOKS[name]).parameters
    )
    namespace = {"hookimpl": api.hookimpl}
    exec(f"class Example:\n{textwrap.indent(source, '    ')}", namespace)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(namespace["Example"]())
    manager.check_pending()
    assert getattr(manager.hook, name).get_hookimpls()


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_shipped_plugin_implements_the_hook(name: str) -> None:
    """No hook before its first use: something among the entry points serves it."""
    kinds = [point.load() for point in entry_points(group=GROUP) if point.value.startswith("authserver.")]
    served = [kind for kind in kinds if is_implemented(kind, name)]
    assert served, f"nothing shipped implements {name}"


@pytest.mark.parametrize("name", HOOKS)
def test_a_test_names_the_hook(name: str) -> None:
    """Other tests than this one speak of it."""
    texts = [path.read_text() for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    assert any(re.search(rf"\b{name}\b", text) for text in texts)


@pytest.mark.parametrize("name", DECIDING)
def test_what_silence_means_is_said_alike_in_code_and_docstring(name: str) -> None:
    """T140: every deciding hook has a safe default, in its declaration and in its own words."""
    told = sections_of(name)["Silence:"].strip().rstrip(".").replace("`", "").lower()
    assert told.startswith(DECIDING[name].silence.lower())


def test_the_api_is_what_it_lists() -> None:
    """A plugin imports `authserver.api` alone; every name there is one of `__all__`, and none is missing."""
    public = {name for name, value in vars(api).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert set(api.__all__) == public - {"annotations"}
    assert len(api.__all__) == len(set(api.__all__))
