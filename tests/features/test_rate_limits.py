"""How often somebody may do something: the rules of the table, on the counts of one process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from authserver.engine.decisions import Decision, Wait
from authserver.engine.questions import Counted, RateQuestion, RateStep
from authserver.engine.sources import network_of
from authserver.features import rate_limits
from authserver.features.rate_limits import DEFAULT, KEYS, RateLimits
from authserver.ini import convert
from authserver.testing.contract import policy_contract

TestRateLimits = policy_contract(RateLimits(), deterministic=False)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(datetime(2026, 1, 1, tzinfo=UTC), tick=False) as clock:
        yield clock


def limits(*rows: str, **settings: Any) -> RateLimits:
    """The plugin with these lines of its table, as the INI has them."""
    plugin = RateLimits(limits=convert("\n".join(rows), tuple[tuple[str, str], ...]), **settings)
    plugin.prepare()
    return plugin


def ask(
    plugin: RateLimits, counted: str = "sign_in", step: str = "claim", **facts: Any
) -> Decision[None] | None:
    values = {"source": "192.0.2.1", "endpoint": "login", **facts}
    return plugin.rate_decision(RateQuestion(counted=Counted(counted), step=RateStep(step), **values))


def counted(plugin: RateLimits) -> dict[str, int]:
    """How often, by key."""
    return {key: times for key, times, _ in plugin.counts.memory.every()}


def wait_of(decision: Decision[None] | None) -> Wait:
    assert decision is not None and decision.wait is not None
    return decision.wait


def test_the_shipped_table_has_a_limit_for_everything_that_is_counted() -> None:
    """R-20, J-08: nothing that the engine asks about is unlimited."""
    plugin = RateLimits()
    assert plugin.limits == DEFAULT
    assert all(plugin.rows[counted] for counted in Counted)
    assert set(KEYS) == set(Counted)
    assert all(counted.meaning for counted in Counted)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("x = sign_on, source, 5, minute", "sign_on cannot be counted; did you mean sign_in"),
        ("x = sign_in, sauce, 5, minute", "sauce is not a key of sign_in; did you mean source"),
        ("x = registration, account, 5, minute", "account is not a key of registration; known: all, source"),
        ("x = sign_in, all+source, 5, minute", "all counts everybody together, so it must be the only key"),
        ("x = sign_in, source, 0, minute", "for no limit, remove the line"),
        ("x = sign_in, source, many, minute", "a count is 1 to 1000000"),
        ("x = sign_in, source, -1, minute", "a count is 1 to 1000000"),
        ("x = sign_in, source, 5, moment", "a period is like second, minute, 10 minutes"),
        ("x = sign_in, source, 5, 32 days", "up to 31 days"),
        ("x = sign_in, source, 5, 0 minutes", "a period is like second"),
        (
            "x = sign_in, source, 5, minute, ask",
            "while the shared store is down; known: allow, memory, refuse",
        ),
        ("x = sign_in, source, 5", "expected `what is counted, key, count, period`"),
        ("X Y = sign_in, source, 5, minute", "a name is lower-case words joined by hyphens"),
        ("told = sign_in, source, 5, minute", "a name is lower-case words"),
    ],
)
def test_a_line_that_cannot_be_is_refused_at_start(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^limits: ") as refused:
        limits(line)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"storage": "reddis://localhost"}, "did you mean redis"),
        ({"storage": "localhost:6379"}, "storage: localhost"),
        ({"storage": "redis://:secret@localhost"}, "set the password with the setting password"),
        ({"storage": "redis://localhost?password=secret"}, "set the password with the setting password"),
        ({"storage": "redis://"}, r"redis://HOST:PORT/NUMBER"),
        ({"storage": "redis://localhost:port"}, r"redis://HOST:PORT/NUMBER"),
        ({"prefix": "a b"}, "prefix"),
        ({"prefix": "*"}, "prefix"),
    ],
)
def test_a_store_that_cannot_be_is_refused_at_start(settings: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        RateLimits(**settings)  # each is a text
    assert "secret" not in str(refused.value)


def test_so_many_in_a_window_and_then_again(clock: time_machine.Traveller) -> None:
    """R-20: the wait is until the window of the first one ends, and asking on makes it no longer."""
    plugin = limits("few = sign_in, source, 2, minute")
    assert ask(plugin) is None
    clock.shift(timedelta(seconds=20))
    assert ask(plugin) is None
    refused = ask(plugin)
    assert refused is not None and refused.reason == "few"
    assert wait_of(refused).seconds == 40
    clock.shift(timedelta(seconds=30))
    assert wait_of(ask(plugin)).seconds == 10
    clock.shift(timedelta(seconds=10))
    assert [ask(plugin) is None for _ in range(3)] == [True, True, False]


def test_each_key_has_a_count_of_its_own() -> None:
    plugin = limits("few = sign_in, account+source, 1, minute")
    for facts in ({"account": "ann"}, {"account": "bob"}, {"account": "ann", "source": "192.0.2.2"}):
        assert ask(plugin, **facts) is None
        assert ask(plugin, **facts) is not None
    # A text that cannot be a user name has no such key.
    assert ask(plugin, account="") is None


def test_limits_of_one_question_count_together_or_not_at_all() -> None:
    """R-20: who is refused by one limit spends nothing of another, which others need."""
    plugin = limits(
        "by-source = sign_in, source, 2, minute",
        "by-account = sign_in, account, 5, minute",
        "in-all = sign_in, all, 100, minute",
    )
    assert [ask(plugin, account="ann") is None for _ in range(50)] == [True] * 2 + [False] * 48
    assert counted(plugin)["by-account account=ann"] == 2
    assert counted(plugin)["in-all"] == 2
    assert ask(plugin, account="ann", source="192.0.2.2") is None


def test_what_turned_out_well_is_given_back() -> None:
    plugin = limits("few = sign_in, source, 2, minute", "all = sign_in, all, 2, minute")
    for _ in range(10):
        assert ask(plugin) is None
        assert ask(plugin, step="give_back") is None
    assert [ask(plugin) is None for _ in range(3)] == [True, True, False]


def test_a_look_counts_nothing() -> None:
    """M-08: tokens that are known here are looked at, and the others are counted."""
    plugin = limits("few = unknown_token, client, 1, minute")
    for _ in range(5):
        assert ask(plugin, "unknown_token", "check", client_id="api") is None
    assert ask(plugin, "unknown_token", client_id="api") is None
    assert ask(plugin, "unknown_token", "check", client_id="api") is not None


def test_simultaneous_guesses_are_not_more_than_are_allowed() -> None:
    """T101: each is counted before anything else is done for it."""
    plugin = limits("few = sign_in, account, 10, minute", "many = sign_in, source, 50, minute")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: ask(plugin, account="ann"), range(200)))
    assert answers.count(None) == 10
    assert counted(plugin)["few account=ann"] == 10
    assert counted(plugin)["many source=192.0.2.1"] == 10


@pytest.mark.parametrize(
    ("source", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", None),
    ],
)
def test_a_household_is_one_source(source: str, network: str | None) -> None:
    """T102: an IPv6 address costs nothing; a /64 is what one household has."""
    assert network_of(source) == network


def test_a_flood_leaves_one_event_a_window(clock: time_machine.Traveller) -> None:
    plugin = limits("few = sign_in, account, 1, minute")
    ask(plugin, account="ann")
    for expected in ([True, False, False], [True, False, False]):
        refusals = [ask(plugin, account="ann", source=f"192.0.2.{number}") for number in range(3)]
        assert [wait_of(refused).leaves_event for refused in refusals] == expected
        clock.shift(timedelta(seconds=60))
        ask(plugin, account="ann")


def test_a_known_device_has_limits_of_its_own() -> None:
    """T103: strangers use up what counts for the account, and never what counts for the device of its owner."""
    plugin = limits(
        "account = sign_in, account, 2, minute",
        "source = sign_in, source, 2, minute",
        "device = sign_in, account+device, 3, minute",
    )
    for _ in range(5):
        ask(plugin, account="ann")
    assert ask(plugin, account="ann") is not None
    answers = [ask(plugin, account="ann", device_id="phone") for _ in range(4)]
    assert [answer is None for answer in answers] == [True, True, True, False]
    assert ask(plugin, account="ann", device_id="tablet") is None


def test_without_a_limit_of_its_own_a_known_device_has_those_of_everybody() -> None:
    """T101: a table without such a line, from before there was one perhaps, lets nobody guess without end."""
    plugin = limits("account = sign_in, account, 2, minute")
    answers = [ask(plugin, account="ann", device_id="phone") for _ in range(3)]
    assert [answer is None for answer in answers] == [True, True, False]


def test_the_longest_wait_is_told() -> None:
    plugin = limits("short = sign_in, source, 1, minute", "long = sign_in, account, 1, hour")
    ask(plugin, account="ann")
    refused = ask(plugin, account="ann")
    assert refused is not None and refused.reason == "long"
    assert wait_of(refused).seconds == 3600


def test_made_up_names_leave_nothing_behind() -> None:
    """T154: who is refused by address takes no memory for each name that they invent."""
    plugin = limits("source = sign_in, source, 10, minute", "account = sign_in, account, 5, minute")
    for number in range(1000):
        ask(plugin, account=f"unknown-{number}")
    assert len(plugin.counts.memory) == 11  # ten names and their source


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, clock: time_machine.Traveller) -> None:
    """T154: whatever many addresses do; what has ended is forgotten, and then what ends first."""
    monkeypatch.setattr(rate_limits, "MAXIMUM_KEPT", 3000)
    plugin = limits("short = sign_in, account, 10, 10 seconds", "long = sign_in, source, 200, 1000 seconds")
    for number in range(20_000):
        assert ask(plugin, account=f"name{number}", source=f"192.0.2.{number % 100}") is None
    counts = plugin.counts.memory
    assert len(counts) <= 3000
    long = counted(plugin)
    assert all(long[f"long source=192.0.2.{number}"] == 200 for number in range(100))
    clock.shift(timedelta(seconds=11))
    for number in range(5000):
        ask(plugin, account=f"other{number}", source=f"198.51.100.{number % 100}")
    assert "short account=name19999" not in counted(plugin)
    assert len(counts) <= 3000


def test_a_clock_that_was_set_back_makes_nobody_wait_longer(clock: time_machine.Traveller) -> None:
    """T150."""
    plugin = limits("few = sign_in, source, 1, minute")
    ask(plugin)
    clock.shift(timedelta(seconds=-30))
    assert wait_of(ask(plugin)).seconds == 60
    clock.shift(timedelta(days=-2))
    assert [ask(plugin) is None for _ in range(2)] == [True, False]
    clock.shift(timedelta(seconds=60))
    assert ask(plugin) is None


def test_every_refusal_has_a_remedy() -> None:
    plugin = limits("few = sign_in, source, 1, 90 minutes", "hourly = sign_in, source, 1, hour")
    assert plugin.reasons.keys() == {"few", "hourly", "limits-store-down"}
    assert "more than 1 in 90 minutes" in plugin.reasons["few"]
    assert "`authserver limits lift few`" in plugin.reasons["few"]
    assert "more than 1 in an hour" in plugin.reasons["hourly"]


def table_of(ini_file: str) -> tuple[tuple[str, str], ...]:
    """The table of an INI file that is copied; it must be switched on there."""
    parser = ConfigParser(interpolation=None)
    parser.read(Path(__file__).parents[2] / ini_file)
    section = parser["app:main"]
    assert "rate_limits" in section["authserver.plugins"].split()
    return convert(section["authserver.plugin.rate_limits.limits"], tuple[tuple[str, str], ...])


def test_production_has_the_usual_table() -> None:
    """R-20: who copies the file has limits."""
    assert table_of("production.ini") == DEFAULT


def test_development_has_the_same_rows_with_room_for_a_test_suite() -> None:
    """A developer's tests come from one address, and do in a minute what people do in a day."""
    usual = RateLimits().table()
    wide = RateLimits(limits=table_of("development.ini")).table()
    assert [row["limit"] for row in wide] == [row["limit"] for row in usual]
    for row, narrow in zip(wide, usual, strict=True):
        assert {**row, "count": None} == {**narrow, "count": None}
        assert row["count"] >= 10 * narrow["count"], row["limit"]
