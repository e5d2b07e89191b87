"""The server that is fuzzed, and how long: `make fuzz` sets AUTHSERVER_FUZZ=long."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzzing.world import World

# What the tests have found out, which `make fuzz` shows.
REPORT: list[str] = []
IS_LONG = os.environ.get("AUTHSERVER_FUZZ") == "long"


def examples(number: int) -> settings:
    """So many examples. One that fails is printed with what sends it again; nothing of it is kept."""
    return settings(
        max_examples=number,
        database=None,
        print_blob=True,
        deadline=None,
        # A server is slower than what hypothesis expects, and one for all examples is the point.
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
            HealthCheck.function_scoped_fixture,
        ],
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in REPORT:
        terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest, migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A server with what can be attacked; with the SETTINGS and PLUGINS of the test file, if it has any."""
    folder = tmp_path_factory.mktemp("world")
    path = Path(shutil.copy(migrated_sqlite_file, folder / "authserver.db"))
    module = request.module
    world = World(path, folder, getattr(module, "SETTINGS", None), getattr(module, "PLUGINS", ""))
    yield world
    world.close()
