"""Real processes of the server and of its commands, forked from one that has imported everything.

The imports are two thirds of what a start costs, and what these tests are about begins after them
(`tests.preloaded`). Tests of the start itself use `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO

from pyramid.scripts import pserve

from authserver import cli

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.preloaded", __name__])


def serve(ini: Path, port: int, log: Path) -> BaseProcess:
    """A process of `pserve INI http_port=PORT`; what it says is appended to `log`."""
    arguments = ["pserve", str(ini), f"http_port={port}"]
    return _start(arguments, log, log)


class Command:
    """A process of `authserver -c INI …`."""

    def __init__(self, ini: Path, folder: Path, *words: str) -> None:
        number = len(list(folder.glob("command-*.out")))
        self._output, self._errors = (folder / f"command-{number}.{kind}" for kind in ("out", "err"))
        self._output.touch()
        self._process = _start(["authserver", "-c", str(ini), *words], self._output, self._errors)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        """kill -9: no handler runs, nothing is flushed."""
        self._process.kill()
        self._process.join(10)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it printed and what it complained of, when it has ended."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"still running after {timeout} s"
        return self._output.read_text(), self._errors.read_text()


def _start(arguments: list[str], output: Path, errors: Path) -> BaseProcess:
    process = context.Process(target=_run, args=(arguments, output, errors), daemon=True)
    process.start()
    return process


def _run(arguments: list[str], output: Path, errors: Path) -> None:
    for path, stream in ((output, sys.stdout), (errors, sys.stderr)):
        _send(stream, path)
    warnings.simplefilter("ignore")
    sys.argv = arguments
    sys.exit(pserve.main(arguments) if arguments[0] == "pserve" else cli.main())


def _send(stream: IO[str], path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, stream.fileno())
    os.close(file)
