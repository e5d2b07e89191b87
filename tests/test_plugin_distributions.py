"""Every distribution in plugins/ as others get it: what it holds, and its own tests beside the server's wheel."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[1]
DISTRIBUTIONS = sorted(file.parent for file in (CHECKOUT / "plugins").glob("*/pyproject.toml"))
# Those that the server loads; others stand on their own.
PLUGINS = [
    folder for folder in DISTRIBUTIONS if "authserver.plugins" in (folder / "pyproject.toml").read_text()
]
LEAVE_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "docs", "tests")

each = pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
each_plugin = pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)


def declared(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def modules(folder: Path) -> list[ast.Module]:
    return [ast.parse(file.read_text()) for file in sorted((folder / "src").rglob("*.py"))]


def test_there_are_some() -> None:
    assert PLUGINS
    assert len(PLUGINS) < len(DISTRIBUTIONS)


@each
def test_it_is_complete(folder: Path) -> None:
    """What plugins/README.md says that each has."""
    project = declared(folder)["project"]
    assert project["name"] == folder.name
    assert project["license"] == "MIT"
    assert (folder / "LICENSE").read_text() == (CHECKOUT / "LICENSE").read_text()
    assert project["optional-dependencies"]["test"]
    for file in ("README.md", f"src/{folder.name.replace('-', '_')}/py.typed"):
        assert (folder / file).is_file(), file


@each_plugin
def test_a_plugin_is_complete(folder: Path) -> None:
    """And what a plugin has besides."""
    project = declared(folder)["project"]
    assert any(requirement.startswith("authserver>=") for requirement in project["dependencies"])
    assert project["entry-points"]["authserver.plugins"]
    assert (folder / "tests/test_contract.py").is_file()


@each
def test_it_imports_nothing_of_the_server_but_its_api(folder: Path) -> None:
    imported = set()
    for module in modules(folder):
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, "a relative import"
                imported.add(node.module or "")
    of_the_server = {name for name in imported if re.match(r"authserver(\.|$)", name)}
    assert of_the_server == ({"authserver.api"} if folder in PLUGINS else set())


@each_plugin
def test_its_readme_names_every_setting_and_every_reason(folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    names = []
    for module in modules(folder):
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef) and any("hookimpl" in ast.dump(item) for item in node.body):
                names += fields_of(node)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("allow", "narrow", "deny"):
                names += [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
    assert names
    assert [name for name in names if f"`{name}`" not in readme] == []


def fields_of(plugin: ast.ClassDef) -> list[str]:
    """The settings of a plugin's class, and the reasons that it declares."""
    found = []
    for node in plugin.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if node.target.id == "reasons" and node.value is not None:
                found += [item.value for item in ast.walk(node.value) if isinstance(item, ast.Constant)]
            elif "ClassVar" not in ast.unparse(node.annotation) and not node.target.id.startswith("_"):
                found.append(node.target.id)
    return found


@pytest.mark.slow
def test_installed_together_each_passes_its_own_tests(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """In one empty environment, away from the checkout, with the server's pinned dependencies."""
    wheels = tmp_path / "wheels"
    build(CHECKOUT, wheels, tmp_path / "server")
    for folder in DISTRIBUTIONS:
        build(folder, wheels, tmp_path / "sources" / folder.name)

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Whatever they need has the version that is locked here: no later release can change what is installed.
    constraints = tmp_path / "constraints.txt"
    locked = re.findall(
        r"(?m)^([a-z0-9-]+)(?:\[.*?\])?(==.*?) \\$",
        (CHECKOUT / "requirements" / "development.txt").read_text(),
    )
    constraints.write_text("\n".join(name + rest for name, rest in locked))
    (server,) = wheels.glob("authserver-[0-9]*.whl")
    tested = [f"{folder.name}[test]" for folder in DISTRIBUTIONS]
    run(
        *install,
        "-c",
        constraints,
        "--find-links",
        wheels,
        f"{server}[postgresql,metrics]",
        *tested,
        cwd=tmp_path,
    )
    installed = json.loads(run(python, "-m", "pip", "list", "--format", "json", cwd=tmp_path))
    names = {re.sub(r"[._-]+", "-", package["name"]).lower() for package in installed}
    assert names - {name for name, _ in locked} <= {"authserver", *(folder.name for folder in DISTRIBUTIONS)}
    run(python, "-m", "pip", "check", cwd=tmp_path)

    for folder in DISTRIBUTIONS:
        with subtests.test(distribution=folder.name):
            missing = missing_packages(folder)
            if missing and not os.environ.get("CI"):
                pytest.skip(
                    f"{folder.name} is tested with Debian's {' '.join(missing)}: apt-get install them"
                )
            assert not missing
            # Its tests without its source: what is tested is what was installed.
            place = tmp_path / "tested" / folder.name
            shutil.copytree(folder / "tests", place / "tests", ignore=shutil.ignore_patterns("__pycache__"))
            for file in ("pyproject.toml", "README.md"):
                shutil.copy(folder / file, place)
            report = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=place)
            assert re.search(r"^\d+ passed", report, re.MULTILINE), report
            assert not os.environ.get("CI") or "skipped" not in report.splitlines()[-1], report


def build(source: Path, wheels: Path, copy: Path) -> None:
    """The wheel of a distribution, built from its source distribution, with nothing left in its folder."""
    leave_out = (
        LEAVE_OUT if source == CHECKOUT else shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    )
    shutil.copytree(source, copy, ignore=leave_out)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", wheels, copy, cwd=copy)


def missing_packages(folder: Path) -> list[str]:
    """Debian's packages that a distribution's tests need and that are not here; on other systems nobody knows."""
    needed = declared(folder).get("tool", {}).get("authserver", {}).get("debian-packages", [])
    if shutil.which("dpkg-query") is None:
        return []
    return [
        package
        for package in needed
        if subprocess.run(["dpkg-query", "--show", package], capture_output=True).returncode
    ]


def run(*command: object, cwd: Path) -> str:
    """The standard output of a command that must succeed, in an environment that knows nothing of the checkout."""
    hidden = ("PYTHON", "PYTEST", "COV", "VIRTUAL_ENV", "AUTHSERVER")
    known = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=known)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout
