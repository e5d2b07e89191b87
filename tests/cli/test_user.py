"""`authserver user`."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from authserver.cli.configuration import Configuration
from authserver.engine.crypto.digests import verify_password
from authserver.engine.errors import PasswordLinkRefused
from authserver.engine.people.password_links import use_link
from authserver.engine.records import Event, EventType
from authserver.settings import Secret
from authserver.testing.records import a_consent, a_grant, a_session, a_user, an_identity
from tests.mail_servers import MailServer, mail_server

PASSWORD = "correct horse battery"


def test_a_user_is_added_with_a_password_from_stdin(run) -> None:
    result = run(
        "user",
        "add",
        "Ada",
        "--password-stdin",
        "--display-name",
        "Ada L.",
        "--json",
        stdin=f"{PASSWORD}\n",
    )
    assert result.exit_code == 0, result.output
    added = json.loads(result.stdout)
    assert added["username"] == "ada" and added["display_name"] == "Ada L."
    assert added["user_id"].startswith("user_")
    assert PASSWORD not in result.output
    assert added in json.loads(run("user", "list", "--json").stdout)


def test_no_output_holds_a_password_hash(run) -> None:
    """R-04."""
    added = run("user", "add", "ada", "--password-stdin", stdin=f"{PASSWORD}\n")
    for result in (added, run("user", "list"), run("user", "list", "--json")):
        assert result.exit_code == 0
        assert "ada" in result.stdout
        assert "argon2" not in result.stdout and "password" not in result.stdout


def test_without_a_terminal_the_password_must_come_from_stdin(run) -> None:
    """Else it would be typed into a shell history, or silently be empty."""
    result = run("user", "add", "ada")
    assert result.exit_code == 2
    assert "--password-stdin" in result.stderr


def test_a_taken_name_a_short_password_and_a_bad_name_are_refused(run) -> None:
    taken = run("user", "add", "DEMO", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert taken.exit_code == 1 and "taken" in taken.stderr
    short = run("user", "add", "ada", "--password-stdin", stdin="short\n")
    assert short.exit_code == 1 and "8 to 1024" in short.stderr
    empty = run("user", "add", "ada", "--password-stdin", stdin="")
    assert empty.exit_code == 1 and "8 to 1024" in empty.stderr
    nul = run("user", "add", "ada", "--password-stdin", stdin="a good\0password\n")
    assert nul.exit_code == 1 and "a password is valid UTF-8 without NUL" in nul.stderr
    bad = run("user", "add", "a b", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert bad.exit_code == 1 and "user name" in bad.stderr
    assert [item["username"] for item in json.loads(run("user", "list", "--json").stdout)] == ["demo"]


@pytest.mark.parametrize("encoding", ["utf-8:surrogateescape", "utf-8:strict"])
def test_a_password_in_another_encoding_is_refused(run, ini: Path, encoding: str) -> None:
    """No form could send it, so the person could never sign in; whatever Python makes of such bytes here."""
    words = ["-c", str(ini), "user", "add", "ada", "--password-stdin"]
    added = subprocess.run(
        [sys.executable, "-c", "from authserver.cli import main; main()", *words],
        input="ein gutes Passwort für Ada\n".encode("latin-1"),
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert added.returncode == 1
    said = added.stderr.decode()
    assert "is not valid UTF-8\n" in said or "a password is valid UTF-8 without NUL" in said
    assert "Traceback" not in said and "Passwort" not in said


def test_a_disabled_user_is_listed_as_such_and_cannot_be_disabled_twice(run) -> None:
    """R-09."""
    assert run("user", "disable", "demo").exit_code == 0
    (demo,) = json.loads(run("user", "list", "--json").stdout)
    assert demo["disabled_at"] is not None
    again = run("user", "disable", "demo")
    assert again.exit_code == 1 and "is disabled already; see `authserver user show`" in again.stderr
    assert run("user", "disable", "nobody").exit_code == 1


def test_people_are_listed_page_by_page(run, ini: Path) -> None:
    """T146: each page ends with the command for the next one."""
    with Configuration(ini).engine() as engine:
        for name in ("ada", "o'brien", "zoe"):
            engine.stores.users.add(a_user(user_id=f"user_{name}", username=name))
    found: list[str] = []
    options = ["--limit", "1", "--json"]
    while True:
        result = run("user", "list", *options)
        assert result.exit_code == 0, result.output
        found += [item["username"] for item in json.loads(result.stdout)]
        if not result.stderr:
            break
        words = shlex.split(result.stderr.strip().splitlines()[-1])
        options = words[words.index("list") + 1 :]
    assert found == ["ada", "demo", "o'brien", "zoe"]
    shown = run("user", "list", "--limit", "3").stdout
    # Ids are random, so that one of them may contain the name.
    assert not re.search(r"\bzoe\b", shown)
    assert shown.endswith(f"authserver -c {ini} user list --limit 3 --after 'o'\"'\"'brien'\n")
    assert run("user", "list", "--after", "zoe").stdout == "There are no more users.\n"
    for limit in ("0", "1001", "x"):
        assert run("user", "list", "--limit", limit).exit_code == 2


@pytest.fixture
def in_use(run, ini: Path) -> Configuration:
    """The user demo with two sessions and a grant, and ada with one of each."""
    run("user", "add", "ada", "--password-stdin", stdin=f"{PASSWORD}\n")
    configuration = Configuration(ini)
    with configuration.engine() as engine:
        now, later = engine.now, engine.now + timedelta(days=1)
        for number, name in enumerate(("demo", "demo", "ada")):
            user = engine.stores.users.find_by_name(name)
            times = {"authenticated_at": now, "last_seen_at": now, "expires_at": later}
            engine.stores.sessions.add(a_session(digest=bytes([number]), user_id=user.user_id, **times))
        for name in ("demo", "ada"):
            user = engine.stores.users.find_by_name(name)
            engine.stores.grants.add(
                a_grant(grant_id=name, user_id=user.user_id, created_at=now, expires_at=later)
            )
            engine.stores.consents.remember(a_consent(user_id=user.user_id))
    return configuration


def left_of(configuration: Configuration, name: str) -> tuple[int, int, bool]:
    """How many sessions and grants a user has, and whether a consent is remembered."""
    with configuration.engine() as engine:
        user_id = engine.stores.users.find_by_name(name).user_id
        sessions = engine.stores.sessions.list(user_id, engine.now, engine.now - timedelta(days=1))
        grants = engine.stores.grants.list(engine.now, user_id=user_id)
        return len(sessions), len(grants), engine.stores.consents.find(user_id, "reports") is not None


def events(configuration: Configuration, kind: EventType) -> list[Event]:
    with configuration.engine() as engine:
        return list(engine.stores.events.since(engine.now - timedelta(days=1), type=kind))


def counts(told: dict[str, object]) -> dict[str, int]:
    """The numbers that are not 0."""
    return {name: number for name, number in told.items() if type(number) is int and number}


def password_matches(configuration: Configuration, name: str, password: str) -> bool:
    with configuration.engine() as engine:
        return verify_password(password, engine.stores.users.find_by_name(name).password_hash)


def test_another_password_ends_all_that_the_old_one_led_to(run, in_use: Configuration) -> None:
    """I-14, T073: sessions, grants and remembered consents of this person alone."""
    result = run("user", "password", "Demo", "--password-stdin", stdin="a new password\n")
    assert result.exit_code == 0, result.output
    assert "Ended: 2 sessions, 1 grant, 1 remembered consent." in result.stdout
    assert "a new password" not in result.output
    assert password_matches(in_use, "demo", "a new password")
    assert left_of(in_use, "demo") == (0, 0, False)
    assert left_of(in_use, "ada") == (1, 1, True)
    (event,) = events(in_use, EventType.PASSWORD_CHANGED)
    assert counts(event.details) == {"sessions": 2, "grants": 1, "consents": 1}


def test_a_person_without_a_password_gets_one(run, in_use: Configuration) -> None:
    """As after a sign-in by other means."""
    with in_use.engine() as engine:
        engine.stores.users.set_password(engine.stores.users.find_by_name("ada").user_id, None)
    assert run("user", "password", "ada", "--password-stdin", stdin="a new password\n").exit_code == 0
    assert password_matches(in_use, "ada", "a new password")


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("demo", "short\n", "8 to 1024"),
        ("demo", "x" * 1025 + "\n", "8 to 1024"),
        ("demo", "", "8 to 1024"),
        ("nobody", "a new password\n", "no such user"),
        ("a b", "a new password\n", "no such user"),
    ],
    ids=["short", "long", "none", "unknown", "no name"],
)
def test_a_password_that_cannot_be_changes_nothing(
    run, in_use: Configuration, name: str, typed: str, said: str
) -> None:
    """I-14: the old one and all that it led to stay."""
    result = run("user", "password", name, "--password-stdin", stdin=typed)
    assert result.exit_code == 1 and said in result.stderr
    assert left_of(in_use, "demo") == (2, 1, True)
    assert events(in_use, EventType.PASSWORD_CHANGED) == []


def test_another_password_must_come_from_stdin_without_a_terminal(run, in_use: Configuration) -> None:
    result = run("user", "password", "demo")
    assert result.exit_code == 2 and "--password-stdin" in result.stderr


def test_a_person_is_signed_out_everywhere(run, in_use: Configuration) -> None:
    """I-14: sessions and grants end, the password stays."""
    result = run("user", "sign-out", "demo", "--json")
    told = json.loads(result.stdout)
    assert (told["username"], counts(told)) == ("demo", {"sessions": 2, "grants": 1, "consents": 1})
    assert left_of(in_use, "demo") == (0, 0, False)
    assert left_of(in_use, "ada") == (1, 1, True)
    (event,) = events(in_use, EventType.SIGNED_OUT_EVERYWHERE)
    assert counts(event.details) == {"sessions": 2, "grants": 1, "consents": 1}
    again = run("user", "sign-out", "demo")
    assert again.exit_code == 0 and again.stdout == "demo is signed out. Nothing ended.\n"
    assert run("user", "sign-out", "nobody").exit_code == 1


def test_a_disabled_person_is_enabled_and_begins_anew(run, in_use: Configuration) -> None:
    """R-09: what a person had before they were disabled does not come back to life."""
    result = run("user", "disable", "demo")
    assert result.stdout == "demo is disabled. Ended: 2 sessions, 1 grant, 1 remembered consent.\n"
    (event,) = events(in_use, EventType.USER_DISABLED)
    assert (event.actor, event.reason) == ("command:user disable", "user-disabled")
    assert counts(event.details) == {"sessions": 2, "grants": 1, "consents": 1}
    result = run("user", "enable", "Demo", "--json")
    told = json.loads(result.stdout)
    assert (told["username"], counts(told)) == ("demo", {})
    assert left_of(in_use, "demo") == (0, 0, False)
    assert left_of(in_use, "ada") == (1, 1, True)
    assert json.loads(run("user", "show", "demo", "--json").stdout)["disabled_at"] is None
    (event,) = events(in_use, EventType.USER_ENABLED)
    assert event.actor == "command:user enable"
    assert event.details["disabled_at"].startswith("20")
    assert counts({name: value for name, value in event.details.items() if name != "disabled_at"}) == {}
    again = run("user", "enable", "demo")
    assert again.exit_code == 1 and "demo is not disabled; see `authserver user show`" in again.stderr
    assert run("user", "enable", "nobody").exit_code == 1
    assert len(events(in_use, EventType.USER_ENABLED)) == 1


def test_a_person_gets_groups_and_attributes(run, ini: Path) -> None:
    added = run(
        "user", "add", "ada", "--password-stdin", "--json",
        "--group", "staff", "--group", "Finance & Tax", "--group", "staff",
        "--attribute", "room=12", "--attribute", "mail=ada@example.com", "--attribute", "room=14",
        stdin=f"{PASSWORD}\n",
    )  # fmt: skip
    told = json.loads(added.stdout)
    assert events(Configuration(ini), EventType.USER_ADDED)[-1].details == {
        "groups": ["Finance & Tax", "staff"],
        "attributes": ["mail", "room"],
        "password": True,
    }
    assert told["groups"] == ["Finance & Tax", "staff"]
    assert told["attributes"] == {"mail": ["ada@example.com"], "room": ["12", "14"]}
    shown = json.loads(run("user", "show", "ADA", "--json").stdout)
    assert shown == told | {"sessions": 0, "grants": 0, "consents": 0, "identities": []}
    shown = run("user", "show", "ada").stdout
    assert "Finance & Tax" in shown and "room = 12" in shown and "room = 14" in shown
    assert "Finance & Tax, staff" in run("user", "list").stdout


def test_what_is_not_named_stays(run, ini: Path) -> None:
    def edited(*options: str) -> dict:
        result = run("user", "edit", "demo", "--json", *options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    edited("--group", "a", "--group", "b", "--attribute", "room=1", "--attribute", "mail=x")
    told = edited("--add-group", "c", "--remove-group", "a", "--attribute", "room=2", "--display-name", "D.")
    assert (told["groups"], told["attributes"]) == (["b", "c"], {"mail": ["x"], "room": ["2"]})
    assert told["display_name"] == "D."
    told = edited("--remove-attribute", "room", "--group", "z")
    assert (told["groups"], told["attributes"]) == (["z"], {"mail": ["x"]})
    assert edited("--display-name", "   ")["display_name"] == ""
    assert edited("--display-name", " D. ")["display_name"] == "D."
    edited("--group", "z")
    changes = events(Configuration(ini), EventType.USER_CHANGED)
    # What changes nothing is no event. Values of attributes are personal, so no event has them.
    assert [dict(event.details) for event in changes] == [
        {"groups_added": ["a", "b"], "groups_removed": ["authserver-admins"], "attributes": ["mail", "room"]},
        {"groups_added": ["c"], "groups_removed": ["a"], "attributes": ["room"], "display_name": True},
        {"groups_added": ["z"], "groups_removed": ["b", "c"], "attributes": ["room"]},
        {"display_name": True},
        {"display_name": True},
    ]
    assert {(event.actor, event.user_id) for event in changes} == {("command:user edit", told["user_id"])}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "nothing to change"),
        (["--group", "a", "--add-group", "b"], "--group names all groups"),
        (["--add-group", "a", "--remove-group", "a"], "a cannot be both given and removed"),
        (["--attribute", "a=1", "--remove-attribute", "a"], "a cannot be both given and removed"),
        (["--remove-group", "nowhere"], "demo is not in nowhere: see `authserver user show`"),
        (["--remove-attribute", "none"], "demo has no attribute none"),
        (["--attribute", "room"], "'room' is not NAME=VALUE"),
        (["--attribute", "=1"], "'=1' is not NAME=VALUE"),
        (["--attribute", "a="], "a: a value of an attribute has 1 to 200"),
        (["--attribute", "-a=1"], "'-a': the name of an attribute"),
        (["--attribute", "a b=1"], "'a b': the name of an attribute"),
        (["--add-group", ""], "the name of a group has 1 to 100"),
        (["--add-group", "a\u202eb"], "the name of a group has 1 to 100"),
        (["--add-group", "g" * 101], "the name of a group has 1 to 100"),
        ([text for number in range(101) for text in ("--group", f"g{number}")], "at most 100 groups"),
        ([text for number in range(21) for text in ("--attribute", f"a{number}=x")], "at most 20 attributes"),
        ([text for number in range(21) for text in ("--attribute", f"a={number}")], "a: an attribute has at most 20"),
        (
            [text for n in range(100) for text in ("--attribute", f"a{n // 20}={n}{'é' * 150}")],
            "at most 16384 bytes",
        ),
    ],
    ids=lambda value: None if isinstance(value, list) else value[:30],
)  # fmt: skip
def test_an_edit_that_cannot_be_made_changes_nothing(run, ini: Path, options: list[str], why: str) -> None:
    before = run("user", "show", "demo", "--json").stdout
    result = run("user", "edit", "demo", *options)
    assert result.exit_code in (1, 2) and why in " ".join(result.stderr.split()), result.output
    assert run("user", "show", "demo", "--json").stdout == before


def test_an_edit_names_a_person_who_is_there(run) -> None:
    for command in (["edit", "nobody", "--add-group", "a"], ["show", "nobody"]):
        result = run("user", *command)
        assert result.exit_code == 1 and "nobody: no such user" in result.stderr


# ---- links to set a password ------------------------------------------------------------------------


def link_in(output: str) -> str:
    """The one link that was printed."""
    (link,) = [word for word in output.split() if "#" in word]
    return link


def use(configuration: Configuration, link: str, new: str) -> None:
    with configuration.engine() as engine:
        use_link(engine, link, new=Secret(new), repeated=Secret(new))


def test_an_operator_makes_a_link_with_which_a_person_sets_the_password(run, in_use: Configuration) -> None:
    """Until it is used, nothing has ended."""
    result = run("user", "reset-password", "Demo")
    assert result.exit_code == 0, result.output
    assert "demo sets a new password, once, until" in result.stdout
    link = link_in(result.stdout)
    assert link.startswith("http://localhost:6543/set-password#user_")
    assert left_of(in_use, "demo") == (2, 1, True)
    use(in_use, link, "a new password")
    assert password_matches(in_use, "demo", "a new password")
    assert left_of(in_use, "demo") == (0, 0, False)
    (event,) = events(in_use, EventType.PASSWORD_LINK_MADE)
    assert event.actor == "command:user reset-password"
    assert event.details == {"seconds": 3600, "first_password": False}


def test_a_newer_link_takes_the_place_of_the_one_before(run, in_use: Configuration) -> None:
    first, second = (
        json.loads(run("user", "reset-password", "demo", "--lifetime", "1d", "--json").stdout)
        for _ in range(2)
    )
    assert first.keys() == {"username", "link", "expires_at"}
    with pytest.raises(PasswordLinkRefused):
        use(in_use, first["link"], "a new password")
    use(in_use, second["link"], "a new password")


def test_somebody_new_is_invited_to_set_the_first_password(run, ini: Path) -> None:
    added = run("user", "add", "ada", "--link")
    assert added.exit_code == 0, added.output
    assert "ada sets the first password" in added.stdout
    use(Configuration(ini), link_in(added.stdout), PASSWORD)
    assert password_matches(Configuration(ini), "ada", PASSWORD)
    as_json = json.loads(run("user", "add", "bob", "--link", "--lifetime", "2d", "--json").stdout)
    assert as_json["username"] == "bob" and as_json["link"].startswith("http://localhost:6543/set-password#")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("reset-password", "nobody"), 1, "no such user"),
        (("reset-password", "demo", "--lifetime", "8d"), 1, "60s to 7d"),
        (("reset-password", "demo", "--lifetime", "59s"), 1, "60s to 7d"),
        (("reset-password", "demo", "--lifetime", "soon"), 2, "not a duration"),
        (("add", "ada", "--link", "--lifetime", "8d"), 1, "60s to 7d"),
        (("add", "ada", "--link", "--password-stdin"), 2, "either --link or --password-stdin"),
        (("add", "ada", "--password-stdin", "--lifetime", "1d"), 2, "give --link, too"),
    ],
)
def test_what_makes_no_link_says_why(run, arguments: tuple[str, ...], status: int, said: str) -> None:
    """And nobody is added then."""
    result = run("user", *arguments)
    assert result.exit_code == status and said in result.stderr
    assert "as_link_" not in result.output
    assert [item["username"] for item in json.loads(run("user", "list", "--json").stdout)] == ["demo"]


def test_a_disabled_person_gets_no_link(run) -> None:
    run("user", "disable", "demo")
    result = run("user", "reset-password", "demo")
    assert result.exit_code == 1 and "enable them first" in result.stderr


@pytest.fixture
def mails(ini: Path) -> Iterator[MailServer]:
    """A mail server that the INI file names."""
    with mail_server() as server:
        lines = {"host": "localhost", "port": server.port, "tls": "none", "sender": "sign-in@server.example"}
        text = ini.read_text().replace("    # smtp_mail\n", "    smtp_mail\n")
        more = "".join(f"authserver.plugin.smtp_mail.{name} = {value}\n" for name, value in lines.items())
        ini.write_text(text.replace("[app:main]\n", f"[app:main]\n{more}", 1))
        yield server


def test_a_link_is_sent_by_mail_and_shown_to_nobody(run, ini: Path, mails: MailServer) -> None:
    run("user", "edit", "demo", "--attribute", "email=demo@people.example")
    result = run("user", "reset-password", "demo", "--mail")
    assert result.exit_code == 0, result.output
    assert "A mail to demo@people.example has the link" in result.stdout and "as_link_" not in result.output
    (message,) = mails.messages()
    assert message["To"] == "demo@people.example"
    use(Configuration(ini), link_in(message.get_content()), "a new password")
    as_json = run("user", "reset-password", "demo", "--mail", "--json")
    assert json.loads(as_json.stdout).keys() == {"username", "sent_to", "expires_at"}


def test_somebody_new_is_invited_by_mail(run, mails: MailServer) -> None:
    added = run("user", "add", "ada", "--link", "--mail", "--attribute", "email=ada@people.example")
    assert added.exit_code == 0, added.output
    (message,) = mails.messages()
    assert message["Subject"].startswith("Set your password for") and "as_link_" not in added.output


def test_a_mail_that_cannot_be_sent_is_said_in_a_sentence(run, ini: Path, mails: MailServer) -> None:
    """The link was made by then; nobody has seen it, and the next one takes its place."""
    without = run("user", "reset-password", "demo", "--mail")
    assert without.exit_code == 1 and "user edit demo --attribute email=ADDRESS" in without.stderr
    nobody = run("user", "add", "ada", "--link", "--mail")
    assert nobody.exit_code == 1 and "has no mail address" in nobody.stderr
    assert run("user", "show", "ada").exit_code == 1
    run("user", "edit", "demo", "--attribute", "email=demo@people.example")
    mails.answer = "550 no"
    refused = run("user", "reset-password", "demo", "--mail")
    assert refused.exit_code == 1
    assert "the mail was not sent: localhost refuses the recipient (550)" in refused.stderr
    (event,) = events(Configuration(ini), EventType.MAIL_FAILED)
    assert event.actor == "command:user reset-password"


def test_without_a_plugin_that_sends_mail_the_command_says_what_to_do(run) -> None:
    result = run("user", "reset-password", "demo", "--mail")
    assert result.exit_code == 1 and "no plugin sends mail" in result.stderr
    alone = run("user", "add", "ada", "--mail", "--password-stdin")
    assert alone.exit_code == 2 and "give --link, too" in alone.stderr


def test_what_a_person_is_elsewhere_is_shown_and_taken_away(run, in_use: Configuration) -> None:
    """UP-03: with the sessions that came through it."""
    through = {"issuer": "https://login.example", "subject": "7"}
    with in_use.engine() as engine:
        user = engine.stores.users.find_by_name("ada")
        for digest, details in ((b"11", {"through": through}), (b"12", {})):
            times = {"last_seen_at": engine.now, "expires_at": engine.now + timedelta(hours=1)}
            engine.stores.sessions.add(
                a_session(digest=digest, user_id=user.user_id, details=details, **times)
            )
        engine.stores.identities.add(an_identity(user_id=user.user_id, subject="7"))
    shown = json.loads(run("user", "show", user.username, "--json").stdout)
    (identity,) = shown["identities"]
    assert (identity["issuer"], identity["subject"]) == ("https://login.example", "7")
    assert "https://login.example 7 (ada@login.example)" in run("user", "show", user.username).stdout
    wrong = run("user", "remove-identity", user.username, "https://login.example", "8")
    assert wrong.exit_code == 1 and "no such identity" in wrong.stderr
    done = run("user", "remove-identity", user.username, "https://login.example", "7")
    assert done.exit_code == 0, done.output
    assert "cannot sign in through https://login.example any more" in done.stdout
    left = json.loads(run("user", "show", user.username, "--json").stdout)
    assert (left["identities"], left["sessions"]) == ([], 2), "two are no others' business"
    with in_use.engine() as engine:
        types = [event.type for event in engine.stores.events.latest()]
    assert {EventType.SESSION_ENDED, EventType.IDENTITY_REMOVED} <= set(types)
