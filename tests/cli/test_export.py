"""`authserver export`: what is there, as `apply` reads it; never a secret (R-17)."""

from __future__ import annotations

import sqlite3
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from authserver.cli import main
from authserver.cli.configuration import Configuration
from authserver.engine.clients.registration import add_client
from authserver.engine.records import ClientMetadata, RegisteredBy

NOTES = "https://notes.example"


@pytest.fixture
def export(run) -> Callable[..., Result]:
    def export(*arguments: str, status: int = 0) -> Result:
        result: Result = run("export", *arguments)
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        return result

    return export


@pytest.fixture
def self_registered(run, ini: Path) -> str:
    """A client that registered itself."""
    with Configuration(ini).engine() as engine:
        metadata = ClientMetadata(
            client_name="Itself",
            redirect_uris=("https://itself.example/cb",),
            token_endpoint_auth_method="none",
            response_types=("code",),
            scopes=("profile",),
        )
        client, _ = add_client(engine, metadata, registered_by=RegisteredBy.SELF)
    return client.client_id


def test_what_is_there_is_written_and_is_no_drift(export, run, tmp_path: Path) -> None:
    run("resource", "add", NOTES, "--name", "Notes", "--scope", "profile", "--token-lifetime", "5m")
    result = export()
    read: dict[str, Any] = tomllib.loads(result.stdout)
    assert read["clients"].keys() >= {"demo-service", "playground"}
    assert read["resources"] == {NOTES: {"name": "Notes", "scopes": ["profile"], "token_lifetime": 300}}
    assert read["scopes"]["profile"] == "See your name"
    assert "sign-ins-to-account" in read["limits"]
    file = tmp_path / "there.toml"
    export(str(file))
    assert file.read_text().strip() == result.stdout.strip()
    checked = run("apply", str(file), "--check")
    assert (checked.exit_code, checked.stdout) == (0, "Everything is as it is declared.\n")
    assert export().stdout == result.stdout


def test_toml_is_in_utf_8_whatever_the_terminal_has(run, ini: Path) -> None:
    assert run("client", "edit", "playground", "--name", "Zoë محمد 😀").exit_code == 0
    exported = CliRunner(charset="iso8859-1").invoke(main, ["-c", str(ini), "export"])
    read = tomllib.loads(exported.stdout_bytes.decode())
    assert read["clients"]["playground"]["client_name"] == "Zoë محمد 😀"


def test_a_folder_gets_a_file_for_each_kind(export, run, tmp_path: Path) -> None:
    run("resource", "add", NOTES)
    folder = tmp_path / "declared"
    result = export(str(folder), "--only", "clients, resources,initial_tokens")
    assert sorted(file.name for file in folder.iterdir()) == ["clients.toml", "resources.toml"]
    assert "clients.toml" in result.stderr
    assert run("apply", str(folder), "--check").exit_code == 0
    assert "--force overwrites it" in export(str(folder), status=1).stderr
    (folder / "clients.toml").write_text("")
    export(str(folder), "--force")
    assert "demo-service" in (folder / "clients.toml").read_text()


def test_no_secret_is_written_only_where_it_is(export, run, ini: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BILLING_SECRET", "a secret of thirty-two characters")
    file = tmp_path / "a.toml"
    file.write_text(
        '[clients.billing]\nclient_name = "Billing"\nscopes = ["profile"]\nsecret = { env = "BILLING_SECRET" }\n'
    )
    assert run("apply", str(file), "--yes").exit_code == 0
    shown = export("--only", "clients").stdout
    read = tomllib.loads(shown)["clients"]
    assert read["billing"]["secret"] == {"env": "BILLING_SECRET"}
    assert "secret" not in read["demo-service"]
    assert (
        '# Its secrets are not readable, and stay as they are. Else: secret = { env = "DEMO_SERVICE_SECRET" }'
        in shown
    )
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection:
        digests = [digest for (digest,) in connection.execute("SELECT digest FROM client_secrets")]
    assert digests
    assert "thirty-two" not in shown
    assert not any(digest.hex() in shown for digest in digests)


def test_clients_that_registered_themselves_are_left_out_unless_they_are_asked_for(
    export, run, self_registered: str, tmp_path: Path
) -> None:
    run("client", "add", "--name", "Gone", "--client-id", "gone", "--scope", "profile")
    run("client", "disable", "gone")
    result = export("--only", "clients")
    assert self_registered not in result.stdout
    assert "Clients left out: 1 disabled, 1 registered by themselves." in result.stderr
    result = export("--only", "clients", "--self-registered", str(tmp_path / "all.toml"))
    text = (tmp_path / "all.toml").read_text()
    assert tomllib.loads(text)["clients"][self_registered]["client_name"] == "Itself"
    assert "gone" not in tomllib.loads(text)["clients"]
    assert run("apply", str(tmp_path / "all.toml"), "--check").exit_code == 0


def test_what_is_stored_cannot_hide_anything(export, run, ini: Path) -> None:
    """T094: names come back as they are."""
    name = '\x1b]0;A\x07"\n[clients.evil]\u202e\\😀'
    with closing(sqlite3.connect(ini.parent / ".local/authserver.sqlite")) as connection, connection:
        connection.execute("UPDATE clients SET name = ? WHERE client_id = 'demo-service'", (name,))
    result = export("--only", "clients")
    assert not {"\x1b", "\x07", "\u202e"} & {*result.output}
    read = tomllib.loads(result.stdout)["clients"]
    assert read["demo-service"]["client_name"] == name
    assert "evil" not in read


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--only", "client"], "client: no such kind; did you mean clients"),
        (["nowhere/within/a.toml"], "No such file or directory"),
        (["nowhere/within"], "No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_told(export, arguments: list[str], problem: str) -> None:
    result = export(*arguments, status=1 if "/" in arguments[0] else 2)
    assert problem in " ".join(result.stderr.split())
