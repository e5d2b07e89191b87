"""`authserver plugin new`: what it writes works as it is, for every hook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from authserver.cli import main
from authserver.cli.plugin import HOOKS, MAXIMUM_NAME
from authserver.hookspecs import DECIDING, every_hook

CHECKOUT = Path(__file__).parents[2]


def new(folder: Path, name: str, *options: str) -> Result:
    return CliRunner().invoke(main, ["plugin", "new", name, "--directory", str(folder), *options])


def name_for(hook: str) -> str:
    """As long as a name may be: lines may not break in another place for it."""
    return f"{hook.replace('_', '-')}-".ljust(MAXIMUM_NAME, "x")


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new plugin for every hook."""
    folder = tmp_path_factory.mktemp("plugins")
    for hook in HOOKS:
        result = new(folder, name_for(hook), "--hook", hook)
        assert result.exit_code == 0, result.output
    return folder


def environment(*source: Path) -> Mapping[str, str]:
    path = os.pathsep.join(map(str, (*source, CHECKOUT)))
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "PYTEST_ADDOPTS": ""}


def installed(project: Path) -> Path:
    """The project's own folder to be put on the path, with what an installer would write beside its module."""
    described = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    (group,) = described["entry-points"]
    metadata = project / "src" / f"{described['name'].replace('-', '_')}-0.1.0.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: 0.1.0\n")
    points = "".join(f"{name} = {value}\n" for name, value in described["entry-points"][group].items())
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{points}")
    return project / "src"


@pytest.fixture(scope="module")
def results(plugins: Path) -> Mapping[str, Mapping[str, str | None]]:
    """For each test file its tests: None for one that passed, else what pytest said."""
    projects = sorted(plugins.glob("authserver-*"))
    # What the templates decide is plain; a few questions for each promise will do.
    (plugins / "conftest.py").write_text(
        "from hypothesis import settings\n\n"
        'settings.register_profile("few", max_examples=4)\n'
        'settings.load_profile("few")\n'
    )
    report = plugins / "results.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", f"--junit-xml={report}"]
    run = subprocess.run(
        [
            *command,
            "--rootdir=.",
            "-p",
            "no:cacheprovider",
            *(str(project / "tests") for project in projects),
        ],
        cwd=plugins,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(*map(installed, projects)),
    )
    assert report.is_file(), run.stdout + run.stderr
    found: dict[str, dict[str, str | None]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        problem = case.find("failure") if case.find("failure") is not None else case.find("error")
        (file,) = (part for part in case.get("classname", "").split(".") if part.startswith("test_"))
        found.setdefault(file, {})[case.get("name", "")] = None if problem is None else problem.text or "?"
    return found


@pytest.mark.parametrize("hook", HOOKS)
def test_a_new_plugin_passes_its_own_tests_at_once(
    results: Mapping[str, Mapping[str, str | None]], hook: str
) -> None:
    tests = results[f"test_{name_for(hook)}".replace("-", "_")]
    assert {name: said for name, said in tests.items() if said} == {}
    if hook in DECIDING:
        assert {f"test_it_answers_every_question[{hook}]", f"test_it_never_widens[{hook}]"} <= set(tests)
    assert "test_the_server_takes_it" in tests
    assert len([name for name in tests if not name.startswith(("test_it_", "test_the_server"))]) >= 1


def test_there_is_a_start_for_every_hook() -> None:
    assert set(HOOKS) == set(every_hook())


@pytest.mark.parametrize("name", ["quiet-hours", None])
def test_what_is_written_is_formatted_and_free_of_complaints(
    plugins: Path, tmp_path: Path, name: str | None
) -> None:
    """By ruff's own rules and by those of this project, for short and long names."""
    if name:
        for hook in HOOKS:
            assert new(tmp_path, f"a-{hook.replace('_', '-')}", "--hook", hook).exit_code == 0
    folder = tmp_path if name else plugins
    for command in (
        ["format", "--check"],
        ["check"],
        ["check", "--select", "B,C4,I,N,PIE,PT,RET,RUF,SIM,UP"],
    ):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", str(folder)],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout


@pytest.mark.slow
def test_the_type_checker_has_no_complaint(plugins: Path) -> None:
    """In its strict mode: every method has the form of its hook's Protocol."""
    modules = [*plugins.glob("authserver-*/src/*/__init__.py")]
    assert len(modules) == len(HOOKS)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *map(str, modules)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert all("Hook):" in module.read_text() for module in modules)


def test_the_distribution_builds_and_installs(plugins: Path, tmp_path: Path) -> None:
    """With its entry point and its type marker."""
    project = plugins / f"authserver-{name_for('scope_decision')}"
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options, str(project)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert run.returncode == 0, run.stderr
    (module,) = tmp_path.glob("authserver_scope_*/__init__.py")
    assert (module.parent / "py.typed").is_file()
    (points,) = tmp_path.glob("*.dist-info/entry_points.txt")
    assert f"{module.parent.name}:ScopeDecision" in points.read_text()


def test_the_readme_has_the_lines_of_the_ini(plugins: Path) -> None:
    """The list of plugins, and a setting for each field that the test sets."""
    project = plugins / f"authserver-{name_for('scope_decision')}"
    name = name_for("scope_decision").replace("-", "_")
    text = (project / "README.md").read_text()
    assert re.search(rf"authserver.plugins =\n    \.\.\.\n    {name}\n", text)
    assert f"authserver.plugin.{name}.clients = reports\n" in text
    assert f"authserver.plugin.{name}.scopes = files.read\n" in text


def test_it_needs_no_ini_file_and_says_what_comes_next(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["plugin", "new", "quiet-hours", "--directory", str(tmp_path)])
    assert result.exit_code == 0
    assert (tmp_path / "authserver-quiet-hours/src/authserver_quiet_hours/__init__.py").is_file()
    for line in ("pip install -e '.[test]'", "python -m pytest", "its name is quiet_hours"):
        assert line in result.output


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "authserver-quiet-hours").mkdir()
    (tmp_path / "authserver-quiet-hours/mine").write_text("work of weeks")
    result = new(tmp_path, "quiet-hours")
    assert result.exit_code == 1
    assert "is there already" in result.output
    assert [file.name for file in (tmp_path / "authserver-quiet-hours").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "cannot be the name of a plugin"),
        ("Quiet", "small letters"),
        ("quiet hours", "small letters"),
        ("../quiet", "small letters"),
        ("quiet_hours", "small letters"),
        ("quiet-", "small letters"),
        ("7nights", "beginning with a letter"),
        ("é", "small letters"),
        ("x" * (MAXIMUM_NAME + 1), f"at most {MAXIMUM_NAME}"),
        ("quiet\n", "small letters"),
        ("scopes-registered", "installed already"),
        ("none", "would be called None"),
        ("client", "use two words: client-policy"),
        ("class-var", "means something else"),
        ("decision", "means something else"),
    ],
)
def test_a_name_that_would_not_work_is_refused(tmp_path: Path, name: str, words: str) -> None:
    result = new(tmp_path, name)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_hook_is_answered_with_those_there_are(tmp_path: Path) -> None:
    result = new(tmp_path, "quiet-hours", "--hook", "scopes_decision")
    assert result.exit_code == 2
    assert "'scope_decision'" in result.output
