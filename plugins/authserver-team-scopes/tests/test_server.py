"""The policy on a real server, from the INI to the token."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import time_machine

from authserver.settings import SettingsError
from authserver.testing.server import Server, query_of

SCOPES = ("profile", "files.read", "files.write")
MONDAY = datetime(2026, 3, 2, 12, 0, tzinfo=ZoneInfo("Europe/Oslo"))
SUNDAY = datetime(2026, 3, 1, 12, 0, tzinfo=ZoneInfo("Europe/Oslo"))


def granted(server: Server) -> list[str]:
    """The scopes that `ann` gives a client that asks for all there are."""
    client, secret = server.add_client(scopes=SCOPES)
    code = server.code(client, scope=" ".join(SCOPES))
    answer = server.redeem(client, secret, code)
    assert answer.status_int == 200, answer.text
    return sorted(answer.json["scope"].split())


def test_a_token_has_the_scopes_of_the_teams_at_that_time(
    make_server: Callable[..., Server], write: Callable[..., Path]
) -> None:
    server = make_server(file=str(write()), timezone="Europe/Oslo")
    with time_machine.travel(SUNDAY):
        assert granted(server) == ["files.read", "profile"]
    with time_machine.travel(MONDAY):
        assert granted(server) == ["files.read", "files.write", "profile"]


def test_a_refusal_names_the_policy_and_its_reason_in_the_event(
    make_server: Callable[..., Server], write: Callable[..., Path]
) -> None:
    server = make_server(file=str(write()), timezone="Europe/Oslo")
    client, _ = server.add_client(scopes=SCOPES)
    browser = server.browser()
    with time_machine.travel(SUNDAY):
        server.sign_in(browser)
        answer = browser.get(server.authorization_url(client, scope="files.write"), expect_errors=True)
    assert query_of(answer)["error"] == "invalid_scope"
    assert any("outside-hours" in str(event) and "team_scopes" in str(event) for event in server.events())


def test_a_client_that_acts_for_itself_is_served_as_before(
    make_server: Callable[..., Server], write: Callable[..., Path]
) -> None:
    server = make_server(file=str(write()))
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=("files.write",))
    answer = server.token(client, secret, grant_type="client_credentials", scope="files.write")
    assert answer.json["scope"] == "files.write"


def test_a_wrong_file_stops_the_start_with_the_plugin_named(
    make_server: Callable[..., Server], write: Callable[..., Path]
) -> None:
    with pytest.raises(SettingsError) as refusal:
        make_server(file=str(write("[writers]\n")))
    assert "authserver.plugin.team_scopes" in str(refusal.value)
    assert "teams.toml: [writers]: scopes" in str(refusal.value)
