"""Lists are read a page at a time; each page ends with the command for the next one."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authserver.cli.configuration import Configuration
from authserver.testing.records import a_client, a_resource, a_user, an_initial_token

LISTS: dict[str, list[str]] = {
    "client list": [],
    "client list --search no": ["notes_1", "notes_2"],
    "client list --state new --search no": ["notes_1", "notes_2"],
    "initial-token list": ["initial_3", "initial_2", "initial_1"],
    "keys list": [],
    "resource list": [],
    "user list": ["ann", "anna", "bob", "demo"],
    "user list --prefix AN": ["ann", "anna"],
}
IDENTIFIERS = ("client_id", "initial_token", "kid", "resource", "username")


@pytest.fixture
def filled(run, ini: Path):
    for algorithm in ("ES256", "EdDSA"):
        run("keys", "rotate", "--algorithm", algorithm)
    with Configuration(ini).engine() as engine:
        stores, now = engine.stores, engine.now
        for number in range(1, 3):
            stores.clients.add(a_client(client_id=f"notes_{number}", created_at=now))
            stores.resources.add(a_resource(form=f"urn:{number}", uri=f"urn:{number}", scopes=None))
        for name in ("bob", "anna", "ann"):
            stores.users.add(a_user(user_id=f"user_{name}", username=name))
        for number in range(1, 4):
            token = an_initial_token(token_id=f"initial_{number}", digest=bytes([number]))
            stores.initial_tokens.add(replace(token, created_at=now.replace(year=now.year - 9 + number)))
    return run


def identifiers(rows: list[dict[str, Any]]) -> list[str]:
    return [next(row[name] for name in IDENTIFIERS if name in row) for row in rows]


@pytest.mark.parametrize("words", LISTS)
def test_pages_follow_one_another(filled, words: str) -> None:
    command = words.split()
    whole = json.loads(filled(*command, "--json").stdout)
    assert len(whole) >= 2
    assert LISTS[words] in ([], identifiers(whole))
    found: list[dict[str, Any]] = []
    options = [*command, "--limit", "1", "--json"]
    while options:
        result = filled(*options)
        assert result.exit_code == 0, result.output
        found += json.loads(result.stdout)
        told = shlex.split(result.stderr.strip().splitlines()[-1]) if result.stderr else []
        options = told[3:]
    assert found == whole
    shown = filled(*command, "--limit", "1").stdout
    assert "There are more. The next page:\n" in shown
    assert identifiers(whole)[1] not in shown
    for limit in ("0", "1001", "x"):
        assert filled(*command, "--limit", limit).exit_code == 2


@pytest.mark.parametrize("command", ["initial-token list", "keys list", "resource list"])
def test_a_page_after_what_is_gone_is_refused(filled, command: str) -> None:
    result = filled(*command.split(), "--after", "urn:gone")
    assert result.exit_code == 2 and "it is not in the list; leave it out to begin again" in result.stderr


def test_a_search_without_a_find_says_so(filled) -> None:
    assert (
        "No client has nothing in its id or name." in filled("client", "list", "--search", "nothing").stdout
    )
    assert filled("user", "list", "--prefix", "zoe").stdout == "There are no more users.\n"
    assert filled("user", "list", "--prefix", "a\x00").exit_code in (0, 1)
