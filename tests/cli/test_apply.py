"""`authserver apply`: what files declare is shown, asked for and brought about, all of it or nothing (R-17)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from authserver.declaring.schema import schema
from tests.cli.conftest import CHECKOUT

SECRET = "a secret of thirty-two characters"
NOTES = "https://notes.example"
FILE = f"""
[clients.billing]
client_name = "Billing"
redirect_uris = ["https://billing.example/cb"]
scopes = ["profile"]
secret = {{ env = "BILLING_SECRET" }}

[resources."{NOTES}"]
name = "Notes"
scopes = ["profile"]
introspecting_clients = ["billing"]
"""
Apply = Callable[..., Result]


@pytest.fixture
def declare(tmp_path: Path) -> Callable[[str], Path]:
    """Write the file that `apply` reads."""

    def declare(text: str) -> Path:
        file = tmp_path / "declared.toml"
        file.write_text(text)
        return file

    return declare


@pytest.fixture
def apply(run, declare, monkeypatch: pytest.MonkeyPatch) -> Apply:
    """Write these declarations and apply them, with the answer of a person or these options."""
    monkeypatch.setenv("BILLING_SECRET", SECRET)

    def apply(text: str, *options: str, answer: str = "", status: int = 0) -> Result:
        result: Result = run("apply", str(declare(text)), *options, stdin=answer)
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        assert SECRET not in result.output
        return result

    return apply


@contextmanager
def database(ini: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection, connection:
        yield connection


def everything(ini: Path) -> list[str]:
    with database(ini) as connection:
        return list(connection.iterdump())


def told(run, *arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_plan_is_shown_and_nothing_is_done_before_somebody_agrees(apply, run, ini: Path) -> None:
    before = everything(ini)
    for options, answer, status in (
        (("--dry-run",), "", 0),
        (("--check",), "", 2),
        ((), "n\n", 1),
        ((), "", 1),
    ):
        result = apply(FILE, *options, answer=answer, status=status)
        shown = result.stdout.split("\n")
        assert "add client billing" in shown[0]
        assert "declared.toml:2:10" in shown[0]
        assert any(line.split() == ["secret", "env:BILLING_SECRET"] for line in shown)
        assert f"add resource {NOTES}/" in result.stdout
        assert everything(ini) == before
    result = apply(FILE, answer="y\n")
    assert "Apply 2 changes?" in result.stderr
    assert "Applied: 2 changes." in result.stdout
    assert told(run, "client", "show", "billing")["client_name"] == "Billing"
    assert told(run, "resource", "show", NOTES)["introspecting_clients"] == ["billing"]


def test_applied_twice_it_changes_nothing(apply, ini: Path) -> None:
    apply(FILE, "--yes")
    before = everything(ini)
    for options in ((), ("--yes",), ("--check",), ("--dry-run",), ("--prune", "--yes")):
        assert apply(FILE, *options).stdout == "Everything is as it is declared.\n"
        assert everything(ini) == before


def test_what_is_done_leaves_events_with_who_and_what_before_and_after(apply, run) -> None:
    apply(FILE, "--yes")
    apply(FILE.replace('"Billing"', '"Bills"').replace('"Notes"', '"Note pad"'), "--yes")
    events = [json.loads(line) for line in run("audit", "search", "--json").stdout.splitlines()]
    mine = [event for event in events if event["actor"] == "command:apply"]
    assert sorted((event["type"], event["client_id"] or "") for event in mine) == [
        ("client.changed", "billing"),
        ("client.registered", "billing"),
        ("client_secret.added", "billing"),
        ("resource.added", ""),
        ("resource.changed", ""),
    ]
    changed = {event["type"]: event["details"]["changed"] for event in mine if "changed" in event["type"]}
    assert changed == {
        "client.changed": {"client_name": {"from": "Billing", "to": "Bills"}},
        "resource.changed": {"name": {"from": "Notes", "to": "Note pad"}},
    }


def test_the_report_for_machines(apply, ini: Path) -> None:
    report = json.loads(apply(FILE, "--check", "--json", status=2).stdout)
    assert (report["settled"], report["applied"], report["in_the_ini"]) == (False, False, [])
    client, resource = report["changes"]
    assert (client["kind"], client["name"], client["action"]) == ("clients", "billing", "add")
    assert client["place"].endswith("declared.toml:2:10")
    assert client["changes"]["secret"] == {"from": None, "to": "env:BILLING_SECRET"}
    assert resource["name"] == f"{NOTES}/"
    report = json.loads(apply(FILE, "--yes", "--json").stdout)
    assert (report["settled"], report["applied"], len(report["changes"])) == (True, True, 2)
    report = json.loads(apply(FILE, "--check", "--json").stdout)
    assert (report["settled"], report["changes"]) == (True, [])
    assert "nobody can be asked" in apply(FILE, "--json", status=1).stderr


def test_what_only_the_ini_can_settle_is_told_and_is_drift(apply) -> None:
    text = FILE + '\n[scopes]\nprofile = "Another sentence"\n'
    for options in (("--yes",), ("--yes",), ("--check",)):
        result = apply(text, *options, status=2)
        assert (
            "scopes.profile: write `profile = Another sentence` among the lines of authserver.scopes"
            in result.stdout
        )
    apply(text, "--dry-run")
    report = json.loads(apply(text, "--check", "--json", status=2).stdout)
    assert [each["name"] for each in report["in_the_ini"]] == ["profile"]


def test_scopes_and_limits_are_brought_about_and_shown(apply, run) -> None:
    text = (
        '[scopes]\ncalendar = "See your calendar"\n[clients.agenda]\nclient_name = "Agenda"\n'
        'redirect_uris = ["https://agenda.example/cb"]\nscopes = ["calendar"]\n'
        '[limits.sign-ins-to-account]\ncounted = "sign_in"\nkey = "account"\ncount = 10\nseconds = 3600\n'
    )
    told = apply(text, "--yes").stdout
    assert "add scope calendar" in told
    assert "change limit sign-ins-to-account" in told
    assert apply(text, "--check").stdout == "Everything is as it is declared.\n"
    (row,) = (
        row
        for row in json.loads(run("limits", "--all", "--json").stdout)["limits"]
        if row["limit"] == "sign-ins-to-account"
    )
    assert (row["count"], row["set_in"]) == (10, "declarations")


def test_a_change_by_hand_is_drift_until_it_is_set_back(apply, run) -> None:
    apply(FILE, "--yes")
    run("client", "edit", "billing", "--name", "Bills")
    result = apply(FILE, "--check", status=2)
    assert "change client billing" in result.stdout
    assert any(line.split() == ["client", "name", "Bills", "Billing"] for line in result.stdout.split("\n"))
    apply(FILE, "--yes")
    apply(FILE, "--check")


def test_what_is_stored_cannot_write_to_the_terminal(apply, ini: Path) -> None:
    """T094."""
    apply(FILE, "--yes")
    with database(ini) as connection:
        connection.execute(
            "UPDATE clients SET name = ? WHERE client_id = 'billing'", ("\x1b]0;A\x07\u202eB",)
        )
    for options in (("--check",), ("--check", "--json")):
        result = apply(FILE, *options, status=2)
        assert "x1b" in result.stdout or "u001b" in result.stdout
        assert not {"\x1b", "\x07", "\u202e"} & {*result.output}


# ---- All or nothing


def test_an_apply_that_fails_half_way_leaves_nothing(apply, run, ini: Path) -> None:
    """A constraint of the database refuses the last of its rows."""
    with database(ini) as connection:
        connection.execute(
            "CREATE TRIGGER no_more BEFORE INSERT ON resources BEGIN SELECT RAISE(ABORT, 'no more resources'); END"
        )
    before = everything(ini)
    result = apply(FILE, "--yes", status=1)
    assert "no more resources" in result.stderr
    assert everything(ini) == before
    with database(ini) as connection:
        connection.execute("DROP TRIGGER no_more")
    apply(FILE, "--yes")
    apply(FILE, "--check")


def test_one_problem_stops_all_of_it_with_its_place(apply, ini: Path) -> None:
    before = everything(ini)
    text = (
        FILE
        + '\n[clients.other]\nclient_name = "Other"\nscopes = ["profil"]\nredirect_uris = ["http://a.example"]\n'
    )
    result = apply(text, "--yes", status=1)
    assert (
        "declared.toml:15:1: clients.other.scopes: profil: not offered here; did you mean profile"
        in result.stderr
    )
    assert not result.stdout
    assert everything(ini) == before


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ("[clients.a]\nclient_nam = 1\n[x]\n", (), "declared.toml:2:1: clients.a.client_nam: no such key; did you mean client_name"),
        ("[clients.a]\nclient_nam = 1\n[x]\n", (), "declared.toml:3:2: x: no such key"),
        ("a = [", (), "declared.toml:1:6: Invalid value"),
        (FILE, ("--set", "a b"), "a name has up to 60 letters"),
        (FILE, ("--overlap", "soon"), "not a duration"),
        (FILE, ("--chek",), "--check"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_a_sentence_and_is_no_drift(apply, text: str, options, problem: str) -> None:
    """Its status is 1: with 2 a pipeline would take it for drift."""
    result = apply(text, *options, status=1)
    assert problem in " ".join(result.stderr.split())


def test_of_very_many_problems_the_first_are_told(apply) -> None:
    for text in ("[clients.c{}]\n", '[clients.c{}]\nclient_name = "C"\nscopes = ["x"]\n'):
        result = apply("".join(map(text.format, range(60))), status=1)
        assert len(result.stderr.splitlines()) == 51
        assert result.stderr.splitlines()[-1].strip() == "and 10 more"


def test_it_says_which_folder_it_wants(run) -> None:
    assert "FOLDER|FILE" in run("apply").stderr
    assert "no such file or folder" in run("apply", "nowhere").stderr


# ---- Secrets


def test_a_secret_whose_reference_has_new_content_is_replaced_with_an_overlap(
    apply, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-05."""
    apply(FILE, "--yes")
    monkeypatch.setenv("BILLING_SECRET", "another one of thirty-two characters")
    result = apply(FILE, "--yes", "--overlap", "1h")
    assert "another" in result.stdout
    assert "thirty-two" not in result.output
    secrets = told(run, "client", "secrets", "billing")
    assert [secret["ends_at"] is None for secret in secrets] == [False, True]
    monkeypatch.setenv("BILLING_SECRET", "a third one of thirty-two characters")
    result = apply(FILE, "--yes", status=1)
    assert "clients.billing.secret: it has two live secrets already" in result.stderr
    apply(FILE, "--yes", "--overlap", "0")
    assert len(told(run, "client", "secrets", "billing")) == 1


def test_a_logo_is_a_file_beside(apply, run, tmp_path: Path) -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
    (tmp_path / "logo.svg").write_text(svg)
    text = FILE.replace("secret =", 'logo = { file = "logo.svg" }\nsecret =')
    apply(text, "--yes")
    assert told(run, "client", "show", "billing")["logo"]
    apply(text, "--check")
    # Without the line it is left as it is.
    assert "logo is at" in apply(FILE, "--yes").stdout
    assert told(run, "client", "show", "billing")["logo"]
    (tmp_path / "logo.svg").write_text("no picture")
    assert "logo" in apply(text, "--check", status=1).stderr


def test_a_token_for_registration_is_made_elsewhere(
    apply, run, ini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ini.read_text().replace("    registration_open\n", "    registration_token\n")
    text = text.replace("authserver.plugin.registration_open.", "# authserver.plugin.registration_open.")
    ini.write_text(
        text.replace(
            "# ---- What may be issued",
            "authserver.plugin.registration_token.policies = partners = scopes profile\n# ---- ",
            1,
        )
    )
    token = run("initial-token", "generate").stdout.strip()
    monkeypatch.setenv("PARTNERS_TOKEN", token)
    declared = """
    [initial_tokens."of the partners"]
    policy = "partners"
    token = { env = "PARTNERS_TOKEN" }
    expires_at = 2099-01-01T00:00:00+01:00
    uses = 3
    """
    result = apply(declared, "--yes")
    assert token not in result.output
    (row,) = told(run, "initial-token", "list")
    assert (row["policy"], row["uses"], row["expires_at"]) == ("partners", 3, "2098-12-31T23:00:00Z")
    assert row["made_by"] == "command:apply"
    apply(declared, "--check")
    assert "is_at" not in apply("", "--prune", "--yes").stdout
    (row,) = told(run, "initial-token", "list")
    assert row["state"] == "revoked"


# ---- Taking away


def test_what_is_not_declared_any_more_goes_with_prune_alone(apply, run, ini: Path) -> None:
    """L-08: how much ends is shown first; what people made stays."""
    run("client", "add", "--name", "By hand", "--client-id", "by-hand", "--scope", "profile")
    apply(FILE, "--yes")
    with database(ini) as connection:
        for grant_id in ("one", "two"):
            connection.execute(
                "INSERT INTO grants (grant_id, client_id, user_id, scopes, resources, created_at, expires_at, details) "
                "SELECT ?, 'billing', user_id, 'profile', ?, '2026-01-01', '2099-01-01', '{}' FROM users",
                (grant_id, NOTES),
            )
    result = apply("", "--check")
    assert f"not declared any more: {NOTES}/, billing. --prune removes it." in result.stdout
    before = everything(ini)
    result = apply("", "--prune", "--check", status=2)
    assert f"remove resource {NOTES}/" in result.stdout
    assert "disable client billing" in result.stdout
    assert result.stdout.count("Would end: 2 grants.") == 2
    assert "No JWT access token is known to be valid" in result.stdout
    assert everything(ini) == before
    report = json.loads(apply("", "--prune", "--yes", "--json").stdout)
    assert [(step["action"], step["ends"]["grants"]) for step in report["changes"]] == [
        ("remove", 2),
        ("disable", 2),
    ]
    rows = {row["client_id"]: row["state"] for row in told(run, "client", "list")}
    assert (rows["billing"], rows["by-hand"]) == ("gone", "new")
    assert NOTES not in [row["resource"] for row in told(run, "resource", "list")]
    with database(ini) as connection:
        assert connection.execute("SELECT count(*) FROM grants WHERE revoked_at IS NULL").fetchone() == (0,)
    apply("", "--prune", "--check")


def test_two_sets_of_files_leave_each_other_alone(apply, run) -> None:
    apply(FILE, "--yes", "--set", "finance")
    other = '[clients.other]\nclient_name = "Other"\nscopes = ["profile"]\n'
    apply(other, "--yes", "--prune", "--set", "support")
    assert told(run, "client", "show", "billing")["disabled_at"] is None
    result = apply(FILE + other, "--check", "--set", "finance", status=1)
    assert "clients.other: it belongs to the set support" in result.stderr
    apply("", "--yes", "--prune", "--set", "support")
    assert told(run, "client", "show", "other")["disabled_at"] is not None
    assert told(run, "client", "show", "billing")["disabled_at"] is None


def test_what_is_there_can_be_taken_over(apply, run) -> None:
    run("client", "add", "--name", "Other", "--client-id", "other", "--scope", "profile")
    text = '[clients.other]\nclient_name = "Other"\nscopes = ["profile"]\n'
    apply(text, "--check")
    assert "in the set default" in apply(text, "--yes", "--adopt").stdout
    assert "disable client other" in apply("", "--prune", "--check", status=2).stdout


# ---- The schema


def test_the_schema_is_printed_without_a_server(bare) -> None:
    result = bare("apply", "--schema")
    assert (
        json.loads(result.stdout)
        == schema()
        == json.loads((CHECKOUT / "docs/declarations.schema.json").read_text())
    )


@pytest.mark.parametrize(
    ("document", "is_valid"),
    [
        ({"clients": {"a": {"client_name": "A", "secret": {"env": "A"}}}}, True),
        ({"clients": {"a": {"client_name": "A", "secret": {"env": "A", "file": "b"}}}}, False),
        ({"clients": {"a": {"client_name": "A", "secret": "text"}}}, False),
        ({"clients": {"a": {"client_nam": "A"}}}, False),
        ({"client": {}}, False),
        ({"resources": {"urn:a": {"token_lifetime": 9}}}, False),
        ({"resources": {"urn:a": {"token_lifetime": 10, "token_format": "jwt"}}}, True),
        ({"scopes": {"a": "A"}, "trusted_issuers": {"x": ["https://a.example"]}}, True),
    ],
)
def test_the_schema_refuses_what_the_command_refuses(document, is_valid: bool) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert jsonschema.Draft202012Validator(schema()).is_valid(document) is is_valid


@pytest.mark.parametrize("place", ["env", "file"])
def test_a_hostile_file_writes_no_line_of_its_own(apply: Apply, place: str) -> None:
    """T159: whoever applies the files of others reads what the command says, and not what they say."""
    name = r"x\nApplied: 9 changes.\n\u001b[2J\u202e"
    text = f'[clients.a]\nclient_name = "A"\nredirect_uris = ["https://a.example/cb"]\nsecret = {{ {place} = "{name}" }}'
    said = apply(text, "--yes", status=1).output
    assert "Applied: 9 changes." in said
    assert not [line for line in said.splitlines() if line.startswith("Applied")]
    assert "\x1b" not in said and "\u202e" not in said
