"""`client show` and `client pin`: clients that are known by their address."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from authserver.testing.origins import Origin, sending, serving

Run = Callable[..., Result]


@pytest.fixture
def origin(ini: Path) -> Iterator[Origin]:
    """A development server that fetches from this machine, and a document there."""
    text = ini.read_text()
    text = text.replace("# client_id_documents", "client_id_documents")
    text = text.replace(
        "# authserver.plugin.client_id_documents", "authserver.plugin.client_id_documents"
    ).replace("# authserver.fetch_loopback", "authserver.fetch_loopback")
    ini.write_text(text.replace("authserver.fetch_loopback = false", "authserver.fetch_loopback = true"))
    with serving() as origin:
        publish(origin)
        yield origin


def address(origin: Origin) -> str:
    return f"http://127.0.0.1:{origin.port}/client.json"


def publish(origin: Origin, **changes: Any) -> None:
    members = {
        "client_id": address(origin),
        "client_name": "Notes",
        "redirect_uris": ["https://notes.example/cb"],
        "token_endpoint_auth_method": "none",
        **changes,
    }
    origin.reply = sending(json.dumps(members).encode())


def test_an_address_is_fetched_and_shown(run: Run, origin: Origin) -> None:
    """CIMD-07: a development server may reach itself."""
    shown = json.loads(run("client", "show", address(origin), "--json").stdout)
    assert (shown["client_name"], shown["registered_by"]) == ("Notes", "self")
    assert json.loads(run("client", "list", "--json").stdout) == [
        client
        for client in json.loads(run("client", "list", "--json").stdout)
        if client["client_id"] != address(origin)
    ]


def test_the_operator_is_told_why_a_document_is_not_accepted(run: Run, origin: Origin) -> None:
    """CIMD-19: more than the client is told."""
    publish(origin, client_secret="x")
    result = run("client", "show", address(origin))
    assert result.exit_code == 1
    assert "client_secret must not be in it" in result.stderr
    assert "client-document-refused" in result.stderr
    origin.reply = sending(b"", 404)
    result = run("client", "show", address(origin))
    assert "status: 404" in result.stderr


def test_a_pinned_client_stays_as_it_was_until_it_is_pinned_again(run: Run, origin: Origin) -> None:
    """CIMD-21, CIMD-23: what is at its address counts when the operator says so."""
    pinned = run("client", "pin", address(origin), "--json")
    assert pinned.exit_code == 0, pinned.output
    assert json.loads(pinned.stdout)["registered_by"] == "operator"
    publish(origin, client_name="Other", redirect_uris=["https://evil.example/cb"])
    assert json.loads(run("client", "show", address(origin), "--json").stdout)["client_name"] == "Notes"
    again = json.loads(run("client", "pin", address(origin), "--json").stdout)
    assert again["changed"]["client_name"] == {"from": "Notes", "to": "Other"}
    assert again["asks_again"] is True
    assert "Nothing was changed" in run("client", "pin", address(origin)).stdout
    assert run("client", "disable", address(origin)).exit_code == 0
    assert "disabled for good" in run("client", "pin", address(origin)).stderr


def test_only_an_address_can_be_pinned(run: Run) -> None:
    result = run("client", "pin", "demo-service")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "demo-service: only a client that is known by its address can be pinned" in result.stderr
