"""The file: what is in it, what is wrong with it, and what happens when it changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from authserver.api import deny, narrow
from authserver.testing.records import a_user
from authserver_team_scopes import TeamScopes

Write = Callable[..., Path]
Make = Callable[..., TeamScopes]

ONE = '[w]\nmembers = ["ann"]\nscopes = ["w"]\n'


def test_csv_says_the_same_as_toml(write: Write, make_policy: Make) -> None:
    toml = """
        [everybody]
        members = ["*"]
        scopes = ["profile"]
        [night]
        members = ["ann", "bob"]
        scopes = ["files.read", "files.write"]
        days = "fri sat"
        hours = "22:00-06:00"
        timezone = "America/New_York"
    """
    table = (
        "team,scopes,members,days,hours,timezone\r\n"
        "everybody,profile,*,,,\r\n"
        "\r\n"
        'night,files.read files.write,"ann bob",fri sat,22:00-06:00,America/New_York\r\n'
    )
    one = make_policy(file=str(write(toml)))._watched.current()
    other = make_policy(file=str(write(table, "teams.csv")))._watched.current()
    assert one.teams == other.teams
    assert [team.name for team in one.teams] == ["everybody", "night"]


@pytest.mark.parametrize(
    ("text", "place", "remedy"),
    [
        ("", "teams.toml", "it has no team"),
        ("[w\n", "line 1", "Expected"),
        ("[w]\n[w]\n", "line 2", "twice"),
        ("members = []\n", "members", "begin with a line [NAME-OF-THE-TEAM]"),
        (ONE + "colour = 1\n", "[w]: colour", "known: members, scopes, days, hours, timezone"),
        ('[w]\nscopes = ["w"]\n', "[w]: members", "must be a list of names"),
        ('[w]\nmembers = "ann"\nscopes = ["w"]\n', "[w]: members", "must be a list of names"),
        ('[w]\nmembers = [1]\nscopes = ["w"]\n', "[w]: members", "must be a list of names"),
        ('[w]\nmembers = ["ann"]\n', "[w]: scopes", "must be a list of names"),
        ('[w]\nmembers = ["ann"]\nscopes = []\n', "[w]: scopes", "name at least one"),
        ('[w]\nmembers = ["ann"]\nscopes = ["a b"]\n', "[w]: scopes: 'a b'", "write each by itself"),
        (ONE + "days = 1\n", "[w]: days", "must be a text in quotes"),
        (ONE + 'days = ""\n', "[w]: days", "leave the line out"),
        (ONE + 'days = "monday"\n', "[w]: days: 'monday'", "write mon-fri"),
        (ONE + 'hours = "8-17"\n', "[w]: hours: '8-17'", "write 08:00-17:30"),
        (ONE + 'hours = "08:00-25:00"\n', "[w]: hours: '08:00-25:00'", "write 08:00-17:30"),
        (ONE + 'hours = "08:00-08:00"\n', "[w]: hours", "leave the line out"),
        (ONE + 'timezone = "Mars"\n', "[w]: timezone: 'Mars'", "write one such as Europe/Oslo"),
    ],
)
def test_a_wrong_toml_file_is_refused_with_the_place_and_what_to_write(
    text: str, place: str, remedy: str, write: Write, make_policy: Make
) -> None:
    path = write(text)
    with pytest.raises(ValueError) as refusal:
        make_policy(file=str(path))
    message = str(refusal.value)
    assert message.startswith(str(path)) and place in message and remedy in message, message


@pytest.mark.parametrize(
    ("text", "place", "remedy"),
    [
        ("", "line 1", "must name the columns"),
        ("team,members\nw,ann\n", "line 1", "must name the columns"),
        ("team,members,scopes,team\nw,ann,w,w\n", "line 1", "each once"),
        ("team,members,scopes,colour\nw,ann,w,\n", "line 1", "must name the columns"),
        ("team,members,scopes\nw,ann\n", "line 2", "has 2 cells"),
        ("team,members,scopes\nw,ann,w\n\n,ann,w\n", "line 4: team", "give the team a name"),
        ("team,members,scopes\nw,ann,\n", "line 2: scopes", "name at least one"),
        ("team,members,scopes\nw,ann,w\nw,bob,w\n", "line 3", "join the two"),
        ("team,members,scopes,days\nw,ann,w,soon\n", "line 2: days: 'soon'", "write mon-fri"),
        ('team,members,scopes\nw,"ann,w\n', "teams.csv", "end of data"),
    ],
)
def test_a_wrong_csv_file_is_refused_with_the_line_and_what_to_write(
    text: str, place: str, remedy: str, write: Write, make_policy: Make
) -> None:
    path = write(text, "teams.csv")
    with pytest.raises(ValueError) as refusal:
        make_policy(file=str(path))
    message = str(refusal.value)
    assert message.startswith(str(path)) and place in message and remedy in message, message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"file": "nowhere.toml"}, "nowhere.toml: cannot be read"),
        ({"file": "teams.json"}, "teams.json: must be a .toml or a .csv file"),
        ({"file": "[w]\nmembers = []"}, "file: this is the text of a file; give its path"),
        ({"timezone": "Oslo"}, "timezone: 'Oslo' is not a time zone"),
        ({"timezone": ""}, "timezone: '' is not a time zone"),
        ({"timezone": "../../etc/passwd"}, "timezone: '../../etc/passwd' is not a time zone"),
        ({"check_seconds": -1}, "check_seconds: must be 0 or more"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(
    settings: dict[str, object], message: str, write: Write, make_policy: Make
) -> None:
    with pytest.raises(ValueError) as refusal:
        make_policy(**{"file": str(write()), **settings})
    assert message in str(refusal.value)


def test_a_changed_file_is_read_again(policy: TeamScopes, write: Write) -> None:
    ask = partial(policy.scope_decision, user=a_user(username="bob"), requested=("files.write",))
    assert ask() == deny("not-for-team")
    write('[writers]\nmembers = ["bob"]\nscopes = ["files.write"]\n')
    assert ask() == narrow("scopes-of-teams", ("files.write",))


@pytest.mark.parametrize("broken", ["[writers\n", None])
def test_a_file_that_breaks_or_goes_away_leaves_the_old_teams_and_is_logged_once(
    broken: str | None, policy: TeamScopes, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    ask = partial(policy.scope_decision, user=a_user(username="bob"), requested=("files.read",))
    before = ask()
    Path(policy.file).unlink() if broken is None else write(broken)
    with caplog.at_level(logging.ERROR):
        assert ask() == ask() == before
    (record,) = caplog.records
    assert policy.file in record.getMessage() and "stay in force" in record.getMessage()

    write('[writers]\nmembers = ["bob"]\nscopes = ["files.write"]\n')
    assert ask() == deny("not-for-team")


def test_a_file_is_not_looked_at_more_often_than_set(write: Write, make_policy: Make) -> None:
    policy = make_policy(file=str(write()), check_seconds=3600)
    Path(policy.file).unlink()
    assert policy.scope_decision(user=a_user(username="bob"), requested=("files.read",)) == narrow(
        "scopes-of-teams", ("profile", "files.read")
    )
