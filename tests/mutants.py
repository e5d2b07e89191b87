"""`make mutants`: mutmut, with the tests collected once and not again for each mutant.

mutmut by itself starts pytest for each mutant, which reads the names of a thousand tests for some seconds before the
first of them fails. Here the process that each mutant is forked from has collected all tests: a mutant runs those that
reach the changed function, the quickest first, and ends with the first that fails. Most take some milliseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import mutmut.__main__ as mutmut
import pytest
from _pytest.config import _prepareconfig  # as xdist makes a session of its own
from _pytest.runner import runtestprotocol
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.utils.file_utils import change_cwd
from mutmut.workers import isolation


class CollectedTests(PytestRunner):
    """Runs the tests of one session of pytest that stays open.

    Attributes:
        tests: those that were collected, by node id; none before `warm_up`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tests: dict[str, pytest.Item] = {}

    def warm_up(self) -> None:
        """Collect all tests. Each mutant is forked after this."""
        with change_cwd("mutants"):
            # mutmut gives each mutant another stdout, which pytest would take for a file that nobody closed.
            arguments = ["--rootdir=.", "--quiet", "--capture=no"]
            config = _prepareconfig(
                [*arguments, *self._pytest_add_cli_args, *self._pytest_add_cli_args_test_selection]
            )
            config._do_configure()
            session = pytest.Session.from_config(config)
            config.hook.pytest_sessionstart(session=session)
            config.hook.pytest_collection(session=session)
            self.tests = {item.nodeid: item for item in session.items}

    def run_tests(self, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        """Run these tests until one fails; without names all of them, as for the check that they pass without a mutant.

        Returns:
            1 if one failed, else 0.
        """
        if not self.tests:
            self.warm_up()
        durations = state().duration_by_test
        names = sorted(tests or self.tests, key=lambda name: durations.get(name, 0))
        items = [self.tests[name] for name in names]
        with change_cwd("mutants"):
            for item, after in zip(items, [*items[1:], None], strict=True):
                if any(report.failed for report in runtestprotocol(item, log=False, nextitem=after)):
                    return 1
        return 0


isolation.PytestRunner = CollectedTests  # where mutmut makes its runner

if __name__ == "__main__":
    sys.exit(mutmut.cli())
