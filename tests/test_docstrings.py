"""Every public name has a docstring, or one where it is declared; and what silences a check says why."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).parent.parent
PACKAGE = CHECKOUT / "authserver"
Definition = ast.ClassDef | ast.FunctionDef
# Made of the docstrings of hookspecs.
GENERATED = "protocols.py"
# A test of these contracts has a sentence as its name.
CONTRACTS = re.compile(r"authserver/testing/\w+_contract\.py")
# What any plugin may have beside its hooks; docs/writing-plugins.rst says what they are.
OF_A_PLUGIN = {"includeme", "insecure"}
PORT = re.compile(r"`(?:[\w.]+\.)?(\w+)`")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != GENERATED:
            yield path.relative_to(PACKAGE.parent).as_posix(), ast.parse(path.read_text())


MODULES = dict(modules())
# By name, for the ports that classes say they are; some modules have a class of the same name.
DOCUMENTED = {
    (cls.name, each.name)
    for tree in MODULES.values()
    for cls in ast.walk(tree)
    if isinstance(cls, ast.ClassDef)
    for each in cls.body
    if isinstance(each, Definition) and ast.get_docstring(each) is not None
}


def public(
    node: ast.Module | ast.ClassDef, path: str = ""
) -> Iterator[tuple[str, Definition, ast.ClassDef | None]]:
    """Dotted name, definition and class of each public function, class and method."""
    inside = node if isinstance(node, ast.ClassDef) else None
    for each in node.body:
        if (
            isinstance(each, Definition)
            and not each.name.startswith("_")
            and "overload" not in decorators(each)
        ):
            yield f"{path}{each.name}", each, inside
            if isinstance(each, ast.ClassDef):
                yield from public(each, f"{path}{each.name}.")


def decorators(definition: Definition) -> set[str]:
    return {ast.unparse(each).partition("(")[0] for each in definition.decorator_list}


def is_declared_elsewhere(method: Definition, inside: ast.ClassDef, bases: Sequence[type]) -> bool:
    """Whether a hook, a base class, or a port that the docstring of the class names, says what the method means."""
    if "hookimpl" in decorators(method) or method.name in OF_A_PLUGIN:
        return True
    ports = PORT.findall(ast.get_docstring(inside) or "")
    return any(method.name in vars(base) for base in bases) or any(
        (port, method.name) in DOCUMENTED for port in ports
    )


def undocumented(tree: ast.Module, module: object) -> list[str]:
    missing = []
    for name, node, inside in public(tree):
        bases = attrgetter(name.rpartition(".")[0])(module).__mro__[1:] if inside else ()
        if ast.get_docstring(node) is None and not (inside and is_declared_elsewhere(node, inside, bases)):
            missing.append(name)
    return missing


@pytest.mark.parametrize("path", [path for path in MODULES if not CONTRACTS.fullmatch(path)])
def test_every_public_name_says_what_it_means(path: str) -> None:
    module = importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    assert undocumented(MODULES[path], module) == []


def test_what_is_missing_is_found() -> None:
    """The names above are found by reading the code; a reader that finds nothing would prove nothing."""
    code = (
        "class Known:\n"
        '    """`engine.ports.Consents` in a test."""\n'
        "    def find(self): ...\n"
        "    def lose(self): ...\n"
        "    def _own(self): ...\n"
        "class Unknown: ...\n"
        "def act(): ...\n"
    )
    module = ModuleType("example")
    exec(code, vars(module))
    assert undocumented(ast.parse(code), module) == ["Known.lose", "Unknown", "act"]


SILENCED = re.compile(r"# (?:noqa(?:: [A-Z]+\d+)?|type: ignore\[[\w,-]+\])(?P<why>.*)")


def test_what_silences_a_check_says_why() -> None:
    """`# noqa: S311 - no secret`; the type checker reads the package alone, so elsewhere nothing needs to be silenced."""
    wordless = [
        f"{path.relative_to(CHECKOUT)}:{number}"
        for path in CHECKOUT.glob("[!.]*/**/*.py")
        if path.relative_to(CHECKOUT).parts[0] in ("authserver", "tests", "plugins", "benchmarks", "docs")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for found in SILENCED.finditer(line)
        if not re.search(r"\w{3}", found["why"])
    ]
    assert wordless == []
