"""What a newcomer reads in an afternoon stays that small: CONTRIBUTING.md says how much it is and names the files."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from authserver.testing.server import Server

CHECKOUT = Path(__file__).parent.parent
PACKAGE = CHECKOUT / "authserver"
SECTION = re.search(r"^## What to read\n(.*?)^## ", (CHECKOUT / "CONTRIBUTING.md").read_text(), re.M | re.S)
assert SECTION
WORDS = " ".join(SECTION[1].split())
RULES = re.findall(r"^- `(\S+\.py)`", SECTION[1], re.MULTILINE)
# A tenth more than CONTRIBUTING.md says.
ROOM = 1.1
TOO_MUCH = """\
It has grown: {lines} lines are more than a tenth above the {stated} that CONTRIBUTING.md states.
A capability belongs in a module of features/ that hooks reach, not in the rules. If it is the rules that grew, look \
first for what can be said in less, or what is no longer needed; then state the new figure."""


def stated(pattern: str) -> int:
    """The figure that stands in the section, such as "1,200 lines"."""
    found = re.search(pattern, WORDS)
    assert found, f"CONTRIBUTING.md does not say {pattern!r}"
    return int(found[1].replace(",", ""))


def assert_is_about(lines: int, figure: int) -> None:
    assert lines <= figure * ROOM, TOO_MUCH.format(lines=lines, stated=figure)
    assert lines * ROOM >= figure, f"It has become smaller: {lines} lines. Say so in CONTRIBUTING.md."


def test_the_rules_are_as_long_as_contributing_says() -> None:
    assert len(RULES) >= 10
    missing = [name for name in RULES if not (PACKAGE / name).is_file()]
    assert not missing, "CONTRIBUTING.md names files that are not there"
    lines = sum(len((PACKAGE / name).read_text().splitlines()) for name in RULES)
    assert_is_about(lines, stated(r"the rules are ([\d,]+) lines"))


def test_a_token_request_goes_through_as_many_lines_as_contributing_says(sqlite_url: str) -> None:
    """Of the three grant types the longest: all functions of ours that are called, through the real application."""
    server = Server(sqlite_url)
    client, secret = server.add_client(
        grant_types=("authorization_code", "refresh_token", "client_credentials")
    )
    server.add_user("ann")
    code = server.code(client)
    answer: dict[str, Any] = {}

    def redeem() -> None:
        answer.update(server.redeem(client, secret, code).json)

    requests: list[Callable[[], Any]] = [
        lambda: server.token(client, secret, grant_type="client_credentials"),
        redeem,
        lambda: server.refresh(client, secret, answer["refresh_token"]),
    ]
    sizes = []
    for request in requests:
        with functions_of_ours() as seen:
            request()
        assert PACKAGE / "engine/token.py" in {path for path, _ in seen}
        sizes.append(len(seen))
    server.close()
    assert_is_about(max(sizes), stated(r"one token request is ([\d,]+) lines"))


@contextmanager
def functions_of_ours() -> Iterator[set[tuple[Path, int]]]:
    """(file, line) of every line of every function of the package that is called meanwhile, by any new thread too."""
    called: set[CodeType] = set()
    lines: set[tuple[Path, int]] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield lines
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    for code in called:
        path = Path(code.co_filename)
        if path.is_relative_to(PACKAGE) and not path.is_relative_to(PACKAGE / "testing"):
            numbers = [line for _, _, line in code.co_lines() if line]
            lines |= {(path, number) for number in range(code.co_firstlineno, max(numbers) + 1)}
