"""What this server promises, as `promises.toml` says it, and the tests that prove it, found by the ids they quote."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
# `A-01`, `DPOP-04`, `T140`; `F-02.a` is the first half of a promise that has two.
ID = re.compile(r"(?<![\w-])((?:[A-Z]+-\d{2}|T\d{3})(?:\.[a-z]\b)?)(?![\w-])")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promise:
    """One statement that tests prove. `source` is a document and its sections; "" where no document asks for it."""

    id: str
    source: str
    statement: str


def promises() -> Mapping[str, list[Promise]]:
    """Every promise by its area, in the order of the file; a promise of two halves is two here."""
    areas = tomllib.loads((CHECKOUT / "docs/promises.toml").read_text(encoding="utf-8"))
    return {
        area: [promise for name, (source, *says) in lines.items() for promise in _halves(name, source, says)]
        for area, lines in areas.items()
    }


def _halves(name: str, source: str, statements: list[str]) -> Iterator[Promise]:
    for letter, statement in zip("abcdef", statements, strict=False):
        half = f"{name}.{letter}" if len(statements) > 1 else name
        yield Promise(id=half, source=source, statement=statement)


def proofs() -> Mapping[str, Mapping[str, list[str]]]:
    """For each id the test functions that quote it, by file."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sources("tests", "plugins"):
        if path.name.startswith("test_"):
            text = path.read_text(encoding="utf-8")
            lines = text.splitlines()
            for function in ast.walk(ast.parse(text)):
                if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
                    first = min(part.lineno for part in (function, *function.decorator_list))
                    for name in quoted("\n".join(lines[first - 1 : function.end_lineno])):
                        found[name][str(path.relative_to(CHECKOUT))].append(function.name)
    return found


def quoted(text: str) -> list[str]:
    """The ids in a text, each once."""
    return list(dict.fromkeys(ID.findall(text)))


def sources(*folders: str) -> Iterator[Path]:
    """Every Python file of ours in these folders, and what is read beside them: templates, INI files and pages."""
    for folder in folders:
        for path in sorted((CHECKOUT / folder).rglob("*")):
            parts = path.relative_to(CHECKOUT).parts
            if path.suffix in {".py", ".jinja2", ".ini", ".md"} and not {"build", "__pycache__"} & set(parts):
                yield path
