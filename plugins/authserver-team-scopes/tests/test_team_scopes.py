"""Who may have what, and when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from authserver.api import Decision, deny, narrow
from authserver.testing.records import a_user
from authserver_team_scopes import TeamScopes
from authserver_team_scopes.roster import Team

OSLO = ZoneInfo("Europe/Oslo")
MONDAY_NOON = datetime(2026, 3, 2, 12, 0, tzinfo=OSLO)
SUNDAY_NOON = datetime(2026, 3, 1, 12, 0, tzinfo=OSLO)


def ask(policy: TeamScopes, username: str, *requested: str) -> Decision | None:
    return policy.scope_decision(user=a_user(username=username), requested=requested)


@time_machine.travel(MONDAY_NOON, tick=False)
def test_a_person_has_the_scopes_of_all_their_teams(policy: TeamScopes) -> None:
    expected = narrow("scopes-of-teams", ("profile", "files.read", "files.write"))
    assert ask(policy, "ann", "files.read", "files.write") == expected


@time_machine.travel(MONDAY_NOON, tick=False)
def test_a_team_of_everybody_holds_whoever_is_in_no_other(policy: TeamScopes) -> None:
    assert ask(policy, "eve", "profile", "files.read") == narrow("scopes-of-teams", ("profile",))


@time_machine.travel(MONDAY_NOON, tick=False)
def test_what_no_team_of_the_person_has_is_denied(policy: TeamScopes) -> None:
    assert ask(policy, "bob", "files.write") == deny("not-for-team")


def test_a_person_in_no_team_is_denied(
    write: Callable[..., Path], make_policy: Callable[..., TeamScopes]
) -> None:
    policy = make_policy(file=str(write('[writers]\nmembers = ["ann"]\nscopes = ["files.write"]\n')))
    assert ask(policy, "bob", "files.write") == ask(policy, "bob") == deny("in-no-team")


@time_machine.travel(SUNDAY_NOON, tick=False)
def test_outside_its_hours_a_team_has_nothing(policy: TeamScopes) -> None:
    assert ask(policy, "ann", "files.write") == deny("outside-hours")
    assert ask(policy, "ann", "files.read", "files.write") == narrow(
        "outside-hours", ("profile", "files.read")
    )
    assert ask(policy, "ann", "files.read") == narrow("scopes-of-teams", ("profile", "files.read"))


@time_machine.travel(SUNDAY_NOON, tick=False)
def test_a_request_that_names_no_scope_is_narrowed_too(policy: TeamScopes) -> None:
    assert ask(policy, "ann") == narrow("outside-hours", ("profile", "files.read"))
    assert ask(policy, "bob") == narrow("scopes-of-teams", ("profile", "files.read"))


@time_machine.travel(SUNDAY_NOON, tick=False)
def test_a_person_all_of_whose_teams_are_closed_is_denied(
    write: Callable[..., Path], make_policy: Callable[..., TeamScopes]
) -> None:
    policy = make_policy(
        file=str(write('[w]\nmembers = ["ann"]\nscopes = ["files.write"]\ndays = "mon-fri"\n'))
    )
    assert ask(policy, "ann") == ask(policy, "ann", "files.write") == deny("outside-hours")


def test_a_client_that_acts_for_itself_is_not_its_business(policy: TeamScopes) -> None:
    assert policy.scope_decision(user=None, requested=("files.write",)) is None


@pytest.mark.parametrize(
    ("days", "hours", "moment", "expected"),
    [
        ("", "08:00-17:00", "2026-03-02 07:59", False),
        ("", "08:00-17:00", "2026-03-02 08:00", True),
        ("", "08:00-17:00", "2026-03-02 16:59", True),
        ("", "08:00-17:00", "2026-03-02 17:00", False),
        ("", "08:00-12:00 13:00-17:00", "2026-03-02 12:30", False),
        ("", "08:00-12:00 13:00-17:00", "2026-03-02 13:30", True),
        ("", "20:00-24:00", "2026-03-02 23:59", True),
        ("", "20:00-24:00", "2026-03-03 00:00", False),
        ("mon-fri", "", "2026-03-06 23:59", True),
        ("mon-fri", "", "2026-03-07 00:00", False),
        ("sat-mon", "", "2026-03-02 12:00", True),
        ("sat-mon", "", "2026-03-03 12:00", False),
        # 2026-03-06 is a Friday: its night ends on Saturday morning.
        ("fri", "22:00-06:00", "2026-03-06 05:00", False),
        ("fri", "22:00-06:00", "2026-03-06 22:00", True),
        ("fri", "22:00-06:00", "2026-03-07 05:59", True),
        ("fri", "22:00-06:00", "2026-03-07 06:00", False),
        ("fri", "22:00-06:00", "2026-03-07 22:00", False),
    ],
)
def test_when_a_team_is_open(
    days: str,
    hours: str,
    moment: str,
    expected: bool,
    write: Callable[..., Path],
    make_policy: Callable[..., TeamScopes],
) -> None:
    limits = f'days = "{days}"\n' * bool(days) + f'hours = "{hours}"\n' * bool(hours)
    policy = make_policy(
        file=str(write(f'[w]\nmembers = ["ann"]\nscopes = ["w"]\n{limits}')), timezone="Europe/Oslo"
    )
    with time_machine.travel(datetime.fromisoformat(moment).replace(tzinfo=OSLO), tick=False):
        answer = narrow("scopes-of-teams", ("w",)) if expected else deny("outside-hours")
        assert ask(policy, "ann", "w") == answer


def test_a_team_may_have_a_time_zone_of_its_own(
    write: Callable[..., Path], make_policy: Callable[..., TeamScopes]
) -> None:
    """Noon in Oslo is six in the morning in New York."""
    text = '[{0}]\nmembers = ["ann"]\nscopes = ["{0}"]\nhours = "11:00-13:00"\n'
    teams = text.format("here") + text.format("there") + 'timezone = "America/New_York"\n'
    policy = make_policy(file=str(write(teams)), timezone="Europe/Oslo")
    with time_machine.travel(MONDAY_NOON, tick=False):
        assert ask(policy, "ann") == narrow("outside-hours", ("here",))


def test_hours_follow_the_clock_on_the_wall_through_summer_time(
    write: Callable[..., Path], make_policy: Callable[..., TeamScopes]
) -> None:
    """On 29 March 2026 Oslo moves its clocks: 08:00 is 07:00 UTC the day before, 06:00 UTC from then on."""
    teams = '[w]\nmembers = ["ann"]\nscopes = ["w"]\nhours = "08:00-17:00"\n'
    policy = make_policy(file=str(write(teams)), timezone="Europe/Oslo")
    utc = ZoneInfo("UTC")
    for day, hour, expected in [(28, 6, False), (28, 7, True), (29, 6, True), (29, 5, False)]:
        with time_machine.travel(datetime(2026, 3, day, hour, tzinfo=utc), tick=False):
            assert (ask(policy, "ann") != deny("outside-hours")) is expected, (day, hour)


minutes = st.integers(0, 24 * 60 - 1)


@given(minutes, minutes, st.datetimes(timezones=st.just(OSLO)))
def test_a_window_and_the_rest_of_the_day_are_never_open_together(
    begin: int, end: int, now: datetime
) -> None:
    def is_open(*window: int) -> bool:
        team = Team(
            name="w",
            members=frozenset(),
            scopes=("w",),
            days=frozenset(),
            windows=((window[0], window[1]),),
            zone=OSLO,
        )
        return team.is_open(now)

    if begin != end:
        assert is_open(begin, end) is not is_open(end, begin)
