"""`authserver issuer`: whose assertions are accepted, what can come of them, and the end of all that came of them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.client_keys import Key
from tests.trusted_issuers import Issuer

COMMAND = "issuer"
IDP = "https://idp.example"
KEY = Key()
# Nothing listens there.
CLOSED = "https://127.0.0.1:9/jwks"


@pytest.fixture(autouse=True)
def on(ini: Path, tmp_path: Path) -> None:
    """The profile is switched on, and the keys of the issuer are in a file."""
    ini.write_text(ini.read_text("utf-8").replace("    # jwt_bearer\n", "    jwt_bearer\n"), "utf-8")
    (tmp_path / "idp.json").write_text(json.dumps(KEY.jwks()))


@pytest.fixture
def add(told, tmp_path: Path):
    def add(*arguments: str) -> Any:
        return told("add", IDP, "--profile", "jwt_bearer", "--jwks", str(tmp_path / "idp.json"), *arguments)

    return add


def grant(ini: Path) -> None:
    """A grant that came of an assertion."""
    now = datetime.now(UTC).replace(tzinfo=None)
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection, connection:
        (user,) = connection.execute("SELECT user_id FROM users").fetchone()
        connection.execute(
            "INSERT INTO grants (grant_id, client_id, user_id, scopes, resources, created_at, expires_at, details) "
            "VALUES ('g', 'demo-app', ?, 'profile', '', ?, ?, ?)",
            (user, str(now), str(now + timedelta(hours=1)), json.dumps({"vouched_by": IDP})),
        )


def test_an_issuer_is_added_shown_listed_and_changed(add, told) -> None:
    """JAG-16: with everything that an entry has, and defaults of its own."""
    added = add("--lifetime", "2m", "--skew", "10s", "--scope", "profile", "--algorithm", "ES256")
    assert added == told("show", IDP) == told("list")[0]
    assert added == {
        "issuer": IDP,
        "profile": "jwt_bearer",
        "is_enabled": True,
        "jwks_uri": "",
        "algorithms": ["ES256"],
        "lifetime": 120,
        "skew": 10,
        "clients": None,
        "resources": None,
        "scopes": ["profile"],
        "default_resource": "",
        "options": {},
        "keys": ["one"],
        "source": "database",
    }
    changed = told("edit", IDP, "--every-scope", "--client", "demo-service", "--option", "single_use=false")
    assert (changed["scopes"], changed["clients"], changed["options"]) == (
        None,
        ["demo-service"],
        {"single_use": False},
    )
    changed = told("edit", IDP, "--jwks", "https://idp.example/jwks", "--option", "single_use=")
    assert (changed["jwks_uri"], changed["keys"], changed["options"]) == (
        "https://idp.example/jwks",
        None,
        {},
    )
    assert changed["lifetime"] == 120, "what is not named stays"


def test_a_value_may_have_several_scopes_or_resources(add, told, run) -> None:
    resources = ["https://a.example/", "https://b.example/"]
    for uri in resources:
        assert run("resource", "add", uri).exit_code == 0
    added = add("--scope", "profile notes.read", "--resource", " ".join(resources))
    assert (added["scopes"], added["resources"]) == (["profile", "notes.read"], resources)
    assert told("edit", IDP, "--scope", "notes.read profile")["scopes"] == ["notes.read", "profile"]


def test_mistakes_are_told_in_a_sentence(add, refused, tmp_path: Path) -> None:
    add()
    keys = ("--profile", "jwt_bearer", "--jwks", str(tmp_path / "idp.json"))
    for arguments, told in (
        (("add", IDP, *keys), "it is trusted already; change it with `authserver issuer edit`"),
        (("add", "https://new.example", "--profile", "jwt_bearer"), "--jwks: name its keys"),
        (("add", "https://new.example", "--profile", "nobody", *keys[2:]), "no plugin here has this profile"),
        (("add", "https://new.example", *keys[:2], "--jwks", "nowhere.json"), "No such file"),
        (("add", "https://new.example", *keys, "--lifetime", "2d"), "it is 10s to 1 day"),
        (("add", "https://new.example", *keys, "--option", "subject"), "'subject' is not NAME=VALUE"),
        (
            ("add", "https://new.example", *keys, "--option", "subject=a", "--option", "subject=b"),
            "--option subject: given twice",
        ),
        (("add", "https://new.example", *keys, "--option", "subjcet=x"), "did you mean subject"),
        (("edit", IDP), "nothing to change: "),
        (("edit", IDP, "--every-scope", "--scope", "profile"), "--every-scope: not with --scope"),
        (("show", "https://idp.exmaple"), "no such issuer; did you mean https://idp.example"),
        (("enable", IDP), "it is enabled"),
        (("disable", "https://nobody.example", "--yes"), "no such issuer"),
        (("list", "--after", "https://nobody.example"), "it is not in the list"),
    ):
        assert told in refused(*arguments), arguments


def test_disabling_says_how_much_ends_and_ends_it(add, told, run, ini: Path) -> None:
    """L-08, JAG-17"""
    add()
    grant(ini)
    assert told("disable", IDP, "--dry-run")["grants"] == 1
    assert told("show", IDP)["is_enabled"]
    ended = told("disable", IDP, "--yes")
    assert (ended["issuer"], ended["grants"]) == (IDP, 1)
    assert not told("show", IDP)["is_enabled"]
    assert told("disable", IDP, "--yes")["grants"] == 0, "it is safe to run it again"
    assert told("enable", IDP)["is_enabled"]
    result = run("issuer", "remove", IDP, "--yes")
    assert f"{IDP} is removed." in result.stdout
    assert told("list") == []
    events = json.loads(f"[{','.join(run('audit', 'search', '--json').stdout.splitlines())}]")
    types = [event["type"] for event in events if event["type"].startswith("issuer.")]
    assert sorted(types) == [
        "issuer.added",
        "issuer.disabled",
        "issuer.disabled",
        "issuer.enabled",
        "issuer.removed",
    ]
    assert all(event["actor"].startswith("command:issuer ") for event in events if event["type"] in types)


def test_an_issuer_of_the_ini_is_changed_there(told, refused, ini: Path, tmp_path: Path) -> None:
    """JAG-16: the lines of the INI work as they did, and count."""
    keys = tmp_path / "idp.json"
    text = ini.read_text("utf-8").replace(
        "# authserver.plugin.jwt_bearer.issuers = https://issuer.example.com = %(here)s/issuer.jwks.json",
        f"authserver.plugin.jwt_bearer.issuers = {IDP} = {keys}",
    )
    ini.write_text(text, "utf-8")
    (row,) = told("list")
    assert (row["source"], row["profile"], row["keys"]) == ("INI", "jwt_bearer", ["one"])
    for arguments in (("edit", IDP, "--lifetime", "1m"), ("disable", IDP, "--yes"), ("remove", IDP, "--yes")):
        assert "it is in the INI, in authserver.plugin.jwt_bearer.issuers" in refused(*arguments)
    assert "the INI names it" in refused("add", IDP, "--profile", "jwt_bearer", "--jwks", str(keys))


def test_the_test_fetches_the_keys_and_says_what_is_wrong(add, told, run) -> None:
    """JAG-16: each problem at once, and with an exit status for scripts."""
    add("--algorithm", "ES256")
    assert told("test", IDP) == {
        "issuer": IDP,
        "keys": [{"kid": "one", "algorithm": "ES256", "is_accepted": True}],
        "problems": [],
    }
    assert "Its assertions are accepted." in run("issuer", "test", IDP).stdout
    told("edit", IDP, "--algorithm", "RS256")
    assert told("test", IDP, status=1)["problems"] == ["none of its keys is for RS256"]
    told("edit", IDP, "--jwks", CLOSED)
    told("disable", IDP, "--yes")
    problems = told("test", IDP, status=1)["problems"]
    assert problems[0].startswith("it is disabled")
    assert problems[1].startswith(f"{CLOSED}: ")


@pytest.fixture
def explained(run, tmp_path: Path):
    """What `explain assertion` says of this assertion, which it repeats nowhere."""

    def explained(text: str, *arguments: str, client: str = "robot") -> Any:
        (tmp_path / "assertion.jwt").write_text(text)
        command = ("explain", "assertion", client, "--file", str(tmp_path / "assertion.jwt"), *arguments)
        result = run(*command, "--json")
        assert result.exit_code == 0, result.output
        for part in text.split("."):
            assert part not in run(*command).output + result.output or len(part) < 20
        return json.loads(result.stdout)

    return explained


def test_an_assertion_is_explained_and_kept_nowhere(add, run, explained, ini: Path) -> None:
    """JAG-19: by which entry it is judged, what it lacks, and what would change it; nothing is used up."""
    add()
    grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    result = run(
        "client",
        "add",
        "--client-id",
        "robot",
        "--name",
        "Robot",
        "--scope",
        "profile",
        "--grant-type",
        grant_type,
    )
    assert result.exit_code == 0, result.output
    idp = Issuer(IDP, key=KEY, claims={"sub": "demo", "aud": "http://localhost:6543"})
    text = idp.assertion()
    for _ in range(2):
        told = explained(text)
        assert told["verdict"] == "allowed"
        assert (told["user"], told["outcome"]) == ("demo", ["profile"])
        assert (told["issuer"], told["profile"]) == (IDP, "jwt_bearer")
    for changes, reason in (
        ({"aud": "https://other.example"}, "assertion-audience"),
        ({"sub": "nobody"}, "user-unknown"),
        ({"iss": "https://idp.exmaple"}, "assertion-issuer-not-trusted"),
        ({"iat": 1_600_000_000, "exp": 1_600_000_100}, "assertion-expired"),
    ):
        told = explained(idp.assertion(**changes))
        assert (told["verdict"], told["reason"]) == ("refused", reason)
        assert told["checks"][-1]["remedies"], reason
    assert told["checks"][-1]["facts"]["issuer"] == IDP
    old = idp.assertion(iat=1_600_000_000, exp=1_600_000_100)
    assert explained(old, "--as-issued")["verdict"] == "allowed"
    assert explained("nonsense")["reason"] == "assertion-malformed"
    assert explained(text, client="demo-service")["reason"] == "grant-type-not-registered"
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM grants WHERE client_id = 'robot'").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM kept WHERE client_id = 'robot'").fetchone() == (0,)


def test_files_declare_issuers(run, told, tmp_path: Path, ini: Path) -> None:
    """R-17, JAG-16: added, found settled, exported as it was declared, and taken away with all that came of it."""
    folder = tmp_path / "declared"
    folder.mkdir()
    file = folder / "issuers.toml"
    file.write_text(
        f"""
[issuers."{IDP}"]
profile = "jwt_bearer"
jwks = {{ file = "../idp.json" }}
scopes = ["profile"]

[issuers."{IDP}".options]
subject = "listed"
subjects = {{ "00u1" = "demo" }}
"""
    )
    result = run("apply", str(folder), "--yes")
    assert result.exit_code == 0, result.output
    assert f"add issuer {IDP}" in result.stdout
    assert told("show", IDP)["options"]["subject"] == "listed"
    assert "Everything is as it is declared" in run("apply", str(folder), "--check").stdout
    exported = run("export", "--only", "issuers").stdout
    assert 'subjects = { 00u1 = "demo" }' in exported
    assert 'jwks = { file = "../idp.json" }' in exported
    told("disable", IDP, "--yes")
    assert run("apply", str(folder), "--check").exit_code == 0, "who disabled it by hand knows why"
    told("enable", IDP)
    grant(ini)
    file.write_text("")
    result = run("apply", str(folder), "--prune", "--yes")
    assert f"remove issuer {IDP}" in result.stdout
    assert told("list") == []
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection:
        assert connection.execute(
            "SELECT revoked_at IS NULL FROM grants WHERE grant_id = 'g'"
        ).fetchone() == (0,)
    assert "Everything is as it is declared" in run("apply", str(folder), "--prune", "--check").stdout
