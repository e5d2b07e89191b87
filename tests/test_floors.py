"""The floors of the house: one list, which pyproject.toml holds, CONTRIBUTING.md shows, and every module is on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
FLOORS = [
    [[name.strip().removeprefix("authserver.") for name in layer.split("|")] for layer in contract["layers"]]
    for contract in CONTRACTS
    if contract["type"] == "layers"
]
# The drawings of CONTRIBUTING.md: indented blocks of names.
DRAWN = [
    [line.split() for line in block.strip().splitlines()]
    for block in re.findall(
        r"(?:^    [a-z_]+(?:  [a-z_]+)*\n)+", (CHECKOUT / "CONTRIBUTING.md").read_text(), re.M
    )
]


@pytest.mark.parametrize(("checked", "drawn"), list(zip(FLOORS, DRAWN, strict=True)))
def test_contributing_draws_the_floors_that_are_checked(
    checked: list[list[str]], drawn: list[list[str]]
) -> None:
    assert [sorted(floor) for floor in drawn] == [sorted(floor) for floor in checked]


@pytest.mark.parametrize(("folder", "floors"), list(zip(("", "engine"), FLOORS, strict=True)))
def test_every_module_is_on_a_floor(folder: str, floors: list[list[str]]) -> None:
    inside = (CHECKOUT / "authserver" / folder).iterdir()
    modules = {path.stem for path in inside if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert modules - {"__init__"} == {name for floor in floors for name in floor}


def test_the_readme_shows_rooms_that_are_on_a_floor() -> None:
    tree = re.search(r"^authserver/\n((?:  .*\n)+)", (CHECKOUT / "README.md").read_text(), re.M)
    assert tree
    shown = re.findall(r"^  ([a-z_]+)", tree[1], re.M)
    assert len(shown) >= 10
    assert set(shown) <= {name for floor in FLOORS[0] for name in floor}
