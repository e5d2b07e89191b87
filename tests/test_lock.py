"""The lock files: what is installed is all that anything asks for, and nothing is resolved when it is installed.

The requirements of every pinned package are read from what is installed here, without a network.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[1]
LOCKS = ("run.txt", "development.txt")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("linux", "darwin")
# What markers are evaluated with on this very Python and system.
HERE = {name: str(value) for name, value in default_environment().items()}


def lock_text(lock: str) -> str:
    return (CHECKOUT / "requirements" / lock).read_text()


def pinned(lock: str) -> list[Requirement]:
    """The lines of a lock file; a package may have one for each of several Pythons."""
    return [Requirement(line) for line in re.findall(r"(?m)^([a-z0-9].*?==.*?) \\$", lock_text(lock))]


def environments() -> Iterator[dict[str, str]]:
    """What markers are evaluated with, for each Python and system that the lock is for."""
    for python in PYTHONS:
        for platform in PLATFORMS:
            yield {
                **HERE,
                "python_version": python,
                # The patch release of Debian 12's Python; no marker here tells later ones apart.
                "python_full_version": f"{python}.2",
                "implementation_version": f"{python}.2",
                "sys_platform": platform,
                "platform_system": platform.capitalize(),
            }


def applies(requirement: Requirement, environment: Mapping[str, str], extras: Iterable[str] = ()) -> bool:
    """Whether a requirement counts in an environment, for a package that was asked for with these extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras))


def unmet(
    lines: Iterable[Requirement], roots: Iterable[Requirement], environment: Mapping[str, str]
) -> list[str]:
    """What the pinned packages and the roots ask for in this environment, and the lock does not hold."""
    chosen = {canonicalize_name(line.name): line for line in lines if applies(line, environment)}
    wanted = [("the project", root) for root in roots if applies(root, environment)]
    for name, line in chosen.items():
        # A package of another Python or system is not installed here; a run of the tests there reads it.
        if applies(line, HERE):
            asked = [Requirement(text) for text in metadata.requires(name) or ()]
            wanted += [(name, needed) for needed in asked if applies(needed, environment, line.extras)]
    missing = []
    for who, needed in wanted:
        line = chosen.get(canonicalize_name(needed.name))
        if line is None:
            missing.append(f"{who} needs {needed}, and no line names it")
        elif not needed.extras <= line.extras:
            missing.append(f"{who} needs {needed}, and the line has not all of its extras: {line}")
        elif not needed.specifier.contains(_version(line), prereleases=True):
            missing.append(f"{who} needs {needed}, and the line is {line}")
    return missing


def _version(line: Requirement) -> str:
    (exactly,) = line.specifier
    assert exactly.operator == "=="
    return exactly.version


def asked_by_the_project(lock: str) -> list[Requirement]:
    """What setup.cfg asks for, with the extras that are locked; for development also its list of tools."""
    parser = configparser.RawConfigParser()
    parser.read(CHECKOUT / "setup.cfg")
    extras = parser["options.extras_require"]
    texts = [parser["options"]["install_requires"], extras["postgresql"], extras["metrics"]]
    if lock == "development.txt":
        texts += [extras["testing"], (CHECKOUT / "requirements" / "development.in").read_text()]
    lines = [line.partition("#")[0].strip() for text in texts for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-r ")]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_of_every_pinned_package_is_met_by_the_lock(lock: str) -> None:
    """T172: On each Python and system, extras and markers included: an installation cannot rot (B207)."""
    lines, roots = pinned(lock), asked_by_the_project(lock)
    assert len(lines) > 30 and len(roots) > 15
    assert {
        problem for environment in environments() for problem in unmet(lines, roots, environment)
    } == set()


def test_a_missing_extra_line_or_version_is_found() -> None:
    """The check above sees what once broke: `coverage` was pinned, and `coverage[toml]` was asked for (B207)."""
    lines = pinned("development.txt")
    (here, *_) = environments()
    bare = [Requirement("coverage==7.17.3") if line.name == "coverage" else line for line in lines]
    assert any("pytest-cov needs coverage[toml]" in problem for problem in unmet(bare, (), here))
    none = [line for line in lines if line.name != "webob"]
    assert any("no line names it" in problem for problem in unmet(none, (), here))
    old = [Requirement("anyio==1.0") if line.name == "anyio" else line for line in lines]
    assert any("the line is anyio==1.0" in problem for problem in unmet(old, (), here))


def test_what_is_installed_here_is_what_is_pinned() -> None:
    """The requirements above were read from the pinned versions; if this fails, run `make test` again."""
    for line in pinned("development.txt"):
        if applies(line, HERE):
            assert metadata.version(line.name) == _version(line), line.name


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pinned_package_has_hashes_and_no_place_to_come_from(lock: str) -> None:
    """What is installed is what was checked, from whichever index the installer uses."""
    for block in re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n?", "", lock_text(lock)).strip()):
        assert re.fullmatch(
            r"[a-z0-9-]+(\[[a-z0-9, -]+\])?==\S+( ; [^\\@]+)?( \\\n +--hash=sha256:[0-9a-f]{64})+\n?", block
        ), block[:80]


def test_both_lock_files_agree() -> None:
    """The tests run with exactly what the server runs with."""
    development = {(line.name, _version(line)) for line in pinned("development.txt")}
    assert {(line.name, _version(line)) for line in pinned("run.txt")} <= development


def test_make_installs_the_lock_without_resolving() -> None:
    """T172: Neither pip nor a build backend chooses a version: the lock is all, as wheels, and is checked afterwards."""
    makefile = (CHECKOUT / "Makefile").read_text()
    assert re.search(r"(?m)^INSTALL := .* --no-deps$", makefile)
    assert re.search(
        r"(?m)^INSTALL_LOCKED := \$\(INSTALL\) --require-hashes --only-binary :all: -r$", makefile
    )
    installs = re.findall(r"(?m)^\t.*pip install.*|^\t.*\$\(INSTALL.*", makefile)
    by_name = [line for line in installs if "$(INSTALL_LOCKED)" in line or "$(INSTALL_CHECKOUT)" in line]
    # The other two are for `make sbom`, into an environment of its own.
    others = [line for line in installs if line not in by_name]
    assert (len(by_name), len(others)) == (4, 2)
    assert all("build/sbom/bin/python" in line and "--no-deps" in line for line in others)
    assert makefile.count("-m pip check") == 2
