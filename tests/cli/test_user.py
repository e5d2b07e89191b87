"""`authserver user`."""

from __future__ import annotations

import json

PASSWORD = "correct horse battery"


def test_a_user_is_added_with_a_password_from_stdin(run) -> None:
    result = run(
        "user",
        "add",
        "Ada",
        "--password-stdin",
        "--admin",
        "--display-name",
        "Ada L.",
        "--json",
        stdin=f"{PASSWORD}\n",
    )
    assert result.exit_code == 0, result.output
    added = json.loads(result.stdout)
    assert added["username"] == "ada" and added["display_name"] == "Ada L." and added["is_admin"] is True
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
    bad = run("user", "add", "a b", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert bad.exit_code == 1 and "user name" in bad.stderr
    assert [item["username"] for item in json.loads(run("user", "list", "--json").stdout)] == ["demo"]


def test_a_disabled_user_is_listed_as_such_and_cannot_be_disabled_twice(run) -> None:
    """R-09."""
    assert run("user", "disable", "demo").exit_code == 0
    (demo,) = json.loads(run("user", "list", "--json").stdout)
    assert demo["disabled_at"] is not None
    again = run("user", "disable", "demo")
    assert again.exit_code == 1 and "authserver user list" in again.stderr
    assert run("user", "disable", "nobody").exit_code == 1
