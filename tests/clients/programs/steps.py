"""What a person does at the pages of the server, and what a program is asked for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, expect


def sign_in(page: Page, password: str) -> None:
    """Fill the sign-in form as the user `demo`, and send it."""
    page.get_by_label("Username").fill("demo")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def allow(page: Page, address: str, password: str) -> None:
    """Follow an authorization address, sign in and allow."""
    page.goto(address)
    sign_in(page, password)
    expect(page.get_by_role("heading", level=1)).to_have_text("Allow access to your account?")
    # Who consents to a client that registered itself confirms that first.
    for box in page.get_by_label("I started this and I know where it leads.").all():
        box.check()
    page.get_by_role("button", name="Allow").click()


class Program:
    """A process that prints the address for the browser in one line, and in the next what came of it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def address(self) -> str:
        return self._line().strip()

    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self._line())
        assert self._process.wait(timeout=30) == 0
        return result

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return line
        assert self._process.stderr is not None
        raise AssertionError(f"the program ended:\n{self._process.stderr.read()}")


@contextmanager
def started(command: Sequence[str]) -> Iterator[Program]:
    """Start such a program; it is ended with the block."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield Program(process)
        finally:
            process.kill()
