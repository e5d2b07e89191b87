"""Each call of a plugin as a line in the log, at every kind of hook."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from authserver.api import (
    Binding,
    ClientMetadata,
    Expanded,
    Identity,
    InvalidRequest,
    Parameters,
    Welcome,
    allow,
    deny,
    hookimpl,
    narrow,
)
from authserver.engine.decisions import Decision
from authserver.plugins.asking import PluginFailed, PluginSet
from authserver.plugins.trace import MAXIMUM_WORDS, traced, words_of
from authserver.settings import SettingsError
from authserver.testing.questions import a_question
from authserver.testing.records import a_client, an_event
from authserver.testing.server import Server, with_plugin

LOGGER = "authserver.plugins.trace"
CANARY = "canary-of-a-secret"


@dataclass(frozen=True)
class Adds:
    """Answers at each kind of hook."""

    claims: ClassVar[frozenset[str]] = frozenset({"tenant", "roles"})

    @hookimpl
    def scope_decision(self, requested: tuple[str, ...]) -> Decision:
        return narrow("less", requested[:1])

    @hookimpl
    def login_decision(self) -> Decision:
        return allow("fine", Identity(username=CANARY))

    @hookimpl
    def token_claims(self) -> dict[str, Any]:
        return {"tenant": CANARY, "roles": [CANARY]}

    @hookimpl
    def server_metadata(self) -> None:
        raise ValueError(CANARY)

    @hookimpl
    def observe(self) -> None: ...


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines of the trace so far, without their times."""
    caplog.set_level(logging.INFO, LOGGER)

    def read() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.name == LOGGER]
        assert all(re.fullmatch(r".* \(\d+\.\d{3} ms\)", line) for line in found)
        return [line.rpartition(" (")[0] for line in found]

    return read


def test_each_kind_of_hook_is_traced_in_names_without_values(lines: Callable[[], list[str]]) -> None:
    """R-04: hook, plugin, answer and time; no secret, and nothing about a person."""
    plugins = PluginSet([("adds", Adds())], trace=True)
    for slot in ("scope_decision", "login_decision"):
        plugins.decide(a_question(slot))
    plugins.contribute("token_claims")
    with pytest.raises(PluginFailed):
        plugins.contribute("server_metadata")
    plugins.observe(an_event())
    assert lines() == [
        "scope_decision, adds: narrow less read",
        "login_decision, adds: allow fine",
        "token_claims, adds: tenant roles",
        "server_metadata, adds: raised ValueError",
        "observe, adds: nothing",
    ]


def test_an_exception_with_an_odd_name_is_one_printable_line(lines: Callable[[], list[str]]) -> None:
    """T094, R-04."""

    def fail() -> None:
        raise type("red \x1b[31m\nnext", (Exception,), {})

    with pytest.raises(Exception, match=r"^$"):
        traced("adds", "token_claims", fail)
    assert lines() == [r"token_claims, adds: raised red \x1b[31m\nnext"]


def test_nothing_is_traced_and_nothing_is_in_the_way_while_it_is_off(lines: Callable[[], list[str]]) -> None:
    off, on = PluginSet([("adds", Adds())]), PluginSet([("adds", Adds())], trace=True)
    off.decide(a_question("scope_decision"))
    assert lines() == []
    depth = [str(plugins._implementations["scope_decision"][0].function) for plugins in (off, on)]
    assert "traced" not in depth[0] and "traced" in depth[1]


@pytest.mark.parametrize(
    ("hook", "answer", "words"),
    [
        ("client_auth_decision", deny("no"), "deny no"),
        ("resource_decision", allow("fine", "https://api.example/"), "allow fine https://api.example/"),
        ("registration_decision", allow("fine", ClientMetadata(scopes=("a", "b"))), "allow fine a b"),
        ("client_auth_decision", None, "nothing"),
        ("client_auth_decision", True, "a bool"),
        ("login_decision", allow("fine", CANARY), "a wrong answer (wrong-value)"),
        ("scope_decision", deny("red \x1b[31m"), "a wrong answer (bad-reason)"),
        ("find_client", a_client(), "the client reports"),
        (
            "token_binding",
            Binding(confirmation={"jkt": CANARY}, binds_refresh=True),
            "bound by jkt",
        ),
        ("registration_response", Welcome(members={"greeting": CANARY}), "greeting"),
        (
            "expand_authorization_request",
            Expanded(parameters=Parameters.parse(f"a={CANARY}")),
            "another request",
        ),
        (
            "expand_authorization_request",
            Expanded(parameters=Parameters.parse(""), refusal=InvalidRequest(CANARY, reason="late")),
            "refused: late",
        ),
        ("private_use_redirect_uris", ("cursor://callback",), "cursor://callback"),
        ("scopes", {}, "nothing"),
        ("code_details", {"red \x1b[31m\nnext \u202e": CANARY}, r"red \x1b[31m\nnext \u202e"),
        ("code_details", {"a" * 10**6: 1}, "a" * MAXIMUM_WORDS + "…"),
    ],
)
def test_an_answer_is_one_printable_line_of_names(hook: str, answer: Any, words: str) -> None:
    """T094, R-04."""
    assert words_of(hook, answer) == words


class Unspeakable(dict[str, Any]):
    def __iter__(self) -> Iterator[str]:
        raise SystemExit


def test_an_answer_that_cannot_be_written_down_harms_nobody() -> None:
    """R-14."""
    assert words_of("code_details", Unspeakable()) == "a Unspeakable that cannot be written down"


def test_a_setting_switches_it_on(sqlite_url: str, lines: Callable[[], list[str]]) -> None:
    """Also for the shipped plugins, and in production."""
    server = Server(sqlite_url, {**with_plugin("log_events", {}), "authserver.trace_plugins": "true"})
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=("profile",))
    server.token(client, secret, grant_type="client_credentials", scope="profile")
    server.close()
    assert "client_auth_decision, client_secret_basic: allow secret-matches" in lines()
    assert "scope_decision, scopes_registered: allow scopes-registered profile" in lines()
    assert "observe, log_events: nothing" in lines()


def test_a_setting_that_is_no_truth_stops_the_start(sqlite_url: str) -> None:
    """T142."""
    with pytest.raises(SettingsError, match=r"authserver\.trace_plugins"):
        Server(sqlite_url, {"authserver.trace_plugins": "perhaps"})
