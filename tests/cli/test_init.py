"""`authserver init`: from nothing to a server that starts, and nothing that is there is lost."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import plaster
import pytest
from click.testing import CliRunner, Result

from authserver import app
from authserver.cli import main
from authserver.cli.configuration import Configuration

CHECKOUT = Path(__file__).parents[2]
FORMS = {"development.ini": (), "production.ini": ("--production",)}
# What an operator fills in.
FILLED = {
    "AUTHSERVER_ISSUER": "https://login.example.com",
    "AUTHSERVER_DATABASE_URL": "postgresql+psycopg://authserver:p$&ss w%rd@db.example.com/authserver",
    "AUTHSERVER_RESOURCES": "https://api.example.com/ = *",
}
Authserver = Callable[..., Result]


@pytest.fixture
def authserver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Authserver:
    """The command line, in an empty folder and with nothing in the environment."""
    for name in [name for name in os.environ if name.startswith("AUTHSERVER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def next_commands(result: Result) -> list[list[str]]:
    """The words of each command that `init` tells to type next, its program without a folder."""
    lines = [shlex.split(line, comments=True) for line in result.stdout.partition("Next:")[2].splitlines()]
    return [[Path(words[0]).name, *words[1:]] for words in lines if words]


def sourced(environment: Path) -> dict[str, str]:
    """The variables that a shell gets from a file of variables, as `init` says to read it."""
    script = f"set -a; . {shlex.quote(str(environment.resolve()))}; set +a; env -0"
    done = subprocess.run(
        ["sh", "-euc", script], capture_output=True, text=True, check=True, env={"PATH": "/bin"}
    )
    return dict(item.split("=", 1) for item in done.stdout.split("\0") if item.startswith("AUTHSERVER_"))


def fill(environment: Path) -> None:
    text = environment.read_text()
    for name, value in FILLED.items():
        assert text.count(f"{name}=''") == 1
        text = text.replace(f"{name}=''", f"{name}='{value}'")
    environment.write_text(text)


@pytest.mark.parametrize("folder", [".", "deep/er", "sérvèr 日本; it's $HOME", "-x", "a:b"])
def test_the_next_commands_work_as_they_are_printed(authserver: Authserver, folder: str) -> None:
    """T142: from nothing to a prepared server, in whatever folder a shell can name."""
    first = authserver("init", "--", folder)
    assert first.exit_code == 0, first.output
    ini = Path(folder, "development.ini")
    assert ini.read_text() == (CHECKOUT / "development.ini").read_text()
    demo, pserve, plugins = next_commands(first)
    assert [demo[0], pserve[0], plugins[0]] == ["authserver", "pserve", "authserver"]
    assert Path(pserve[1]).samefile(ini)
    assert plaster.get_settings(pserve[1], "app:main")["use"] == "egg:authserver", "as pserve reads it"
    for _, *words in (demo, plugins):
        done = authserver(*words)
        assert done.exit_code == 0, done.output
    local = ini.parent / ".local"
    assert mode(local) == 0o700
    assert {mode(path) for path in local.iterdir()} == {0o600}


@pytest.mark.parametrize("folder", ["server", "my sérvèr 日本", "it's $HOME"])
def test_production_starts_with_what_it_wrote_and_three_values(
    authserver: Authserver, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """T142: the shell gives the server what is in `environment`, every character of it; nothing is insecure."""
    first = authserver("init", "--production", folder)
    assert first.exit_code == 0, first.output
    ini, environment = Path(folder, "production.ini"), Path(folder, "environment")
    assert ini.read_text() == (CHECKOUT / "production.ini").read_text()
    assert f"Fill in {', '.join(FILLED)} in {environment}" in first.stdout.replace("\n", " ")
    assert [words[0] for words in next_commands(first)] == ["set", "authserver", "pserve"]
    fill(environment)
    variables = sourced(environment)
    assert FILLED.items() <= variables.items()
    assert Path(variables["AUTHSERVER_CONFIG"]) == ini.resolve()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    application = app.build(Configuration(ini).ini())
    assert application.parts.settings.is_production and application.insecure == ()
    application.close()
    assert "Fill in" not in authserver("init", "--production", folder).stdout


def test_environment_names_each_variable_of_production_and_no_other(
    authserver: Authserver, tmp_path: Path
) -> None:
    authserver("init", "--production", ".")
    named = re.findall(r"(?m)^(\w+)=", (tmp_path / "environment").read_text())
    referred = re.findall(r"(?m)^[a-z_.]+ = env:(\w+)$", (CHECKOUT / "production.ini").read_text())
    assert sorted(named) == sorted(["AUTHSERVER_CONFIG", *referred])


@pytest.mark.parametrize("umask", [0, 0o022, 0o077], ids=oct)
def test_secrets_are_for_their_owner_alone_and_never_printed(
    authserver: Authserver, tmp_path: Path, umask: int
) -> None:
    """T142: whatever the umask; the service may run as a user of its own, who reads the INI file."""
    before = os.umask(umask)
    try:
        results = [authserver("init", *words, "new") for words in (*FORMS.values(), ("--production",))]
    finally:
        os.umask(before)
    assert [result.exit_code for result in results] == [0, 0, 0]
    new = tmp_path / "new"
    assert mode(new / ".local") == 0o700
    assert mode(new / ".local/secret_keys") == mode(new / "environment") == 0o600
    assert not mode(new) & 0o022, "nobody else may change the server"
    assert not mode(new / "production.ini") & 0o022
    variables = sourced(new / "environment")
    secrets = [
        variables["AUTHSERVER_SECRET_KEYS"],
        variables["AUTHSERVER_REGISTRATION_TOKENS"],
        (new / ".local/secret_keys").read_text().strip(),
    ]
    assert len(set(secrets)) == 3
    for result in results:
        assert not any(secret in result.output for secret in secrets)


@pytest.mark.parametrize(("name", "words"), FORMS.items())
def test_a_second_run_changes_nothing(
    authserver: Authserver, tmp_path: Path, name: str, words: tuple[str]
) -> None:
    """T142: no secret is ever made anew."""
    first = authserver("init", *words, ".")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(before) == 2
    second = authserver("init", *words, ".")
    assert second.exit_code == 0
    assert f"{name} is there, as this version writes it\n" in second.stdout
    assert next_commands(second) == next_commands(first)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("name", "words"), FORMS.items())
@pytest.mark.parametrize("kept", [0, 1, 5000])
def test_an_interrupted_run_is_completed(
    authserver: Authserver, tmp_path: Path, name: str, words: tuple[str], kept: int
) -> None:
    """T142: the beginning of an INI file, and files for secrets with nothing in them."""
    text = (CHECKOUT / name).read_text()
    (tmp_path / name).write_text(text[:kept])
    (tmp_path / ".local").mkdir(mode=0o755)
    for path in (tmp_path / ".local/secret_keys", tmp_path / "environment"):
        path.write_text("\n")
    done = authserver("init", *words, ".")
    assert done.exit_code == 0, done.output
    assert (tmp_path / name).read_text() == text
    secret = tmp_path / ("environment" if words else ".local/secret_keys")
    assert len(secret.read_text().strip()) > 40
    assert mode(secret) == 0o600


def test_an_ini_file_that_differs_is_kept_and_the_differences_are_shown(
    authserver: Authserver, tmp_path: Path
) -> None:
    """T142: and of what may be secret, only that it differs."""
    authserver("init", "--production", ".")
    ini = tmp_path / "production.ini"
    text = ini.read_text()
    for old, new in (
        ("# authserver.code_lifetime = 60", "authserver.code_lifetime = 30"),
        ("= env:AUTHSERVER_DATABASE_URL", "= postgresql://authserver:geheim1@db/authserver"),
        ("= env:AUTHSERVER_SECRET_KEYS", "=\n    a:geheim2\n    b:geheim3"),
        (
            "# authserver.plugin.metrics.tokens = env:AUTHSERVER_METRICS_TOKENS",
            "acme.ldap_password = geheim4",
        ),
        ("env:AUTHSERVER_REGISTRATION_TOKENS", "file:/run/tokens"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    ini.write_text(text)
    (tmp_path / "environment").unlink()
    refused = authserver("init", "--production", ".")
    assert refused.exit_code == 1
    told = refused.stderr
    assert "production.ini is there and differs from that of authserver" in told
    for line in (
        "-authserver.code_lifetime = 30",
        "+# authserver.code_lifetime = 60",
        "-authserver.database_url = …",
        "+authserver.database_url = env:AUTHSERVER_DATABASE_URL",
        "-    …",
        "-acme.ldap_password = …",
        "-authserver.plugin.registration_token.tokens = file:/run/tokens",
    ):
        assert f"\n{line}\n" in told, line
    assert "geheim" not in told
    assert ini.read_text() == text
    assert not (tmp_path / "environment").exists()


def test_variables_without_a_value_are_named(authserver: Authserver, tmp_path: Path) -> None:
    """An operator's own file: nothing is added to it, and it is taken from others."""
    authserver("init", "--production", ".")
    environment = tmp_path / "environment"
    written = b'export AUTHSERVER_ISSUER=https://login.example.com\nAUTHSERVER_SECRET_KEYS=" "\n# \xff\n'
    environment.write_bytes(written)
    environment.chmod(0o644)
    again = authserver("init", "--production", ".")
    assert again.exit_code == 0
    (line,) = re.findall(r"^Fill in (.*) in environment$", again.stdout, re.MULTILINE)
    assert line.split(", ") == [
        "AUTHSERVER_DATABASE_URL",
        "AUTHSERVER_SECRET_KEYS",
        "AUTHSERVER_RESOURCES",
        "AUTHSERVER_REGISTRATION_TOKENS",
    ]
    assert environment.read_bytes() == written and mode(environment) == 0o600


def test_variables_without_a_value_are_named_beside_the_differences(
    authserver: Authserver, tmp_path: Path
) -> None:
    """An operator changes the INI file before, or while, filling in the variables."""
    authserver("init", "--production", ".")
    ini = tmp_path / "production.ini"
    ini.write_text(ini.read_text().replace("    read = Read your data", "    notes = Read your notes"))
    again = authserver("init", "--production", ".")
    assert again.exit_code == 1 and "-    notes = Read your notes" in again.stderr
    assert (
        "Fill in AUTHSERVER_ISSUER, AUTHSERVER_DATABASE_URL, AUTHSERVER_RESOURCES in environment"
        in again.stdout
    )


@pytest.mark.parametrize("words", FORMS.values(), ids=" ".join)
@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("file", "file is a file; name a folder for the server"),
        ("file/below", "Not a directory; name a folder in which you may write"),
        ("open", "every user of this machine can write there"),
        ("100%", "with '%' in its name; choose another folder"),
        ("100%/below", "with '%' in its name"),
        ("a#b", "with '#' in its name"),
        ("a?b", "with '?' in its name"),
        ("a\nb", "in its name; choose another folder"),
        ("/sys/authserver", "name a folder in which you may write"),
    ],
)
def test_a_folder_that_will_not_do_is_named_with_the_reason(
    authserver: Authserver, tmp_path: Path, words: tuple[str], folder: str, told: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    before = sorted(tmp_path.rglob("*"))
    refused = authserver("init", *words, folder)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: ") and told in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_in_the_place_of_a_secret_is_named(authserver: Authserver, tmp_path: Path) -> None:
    (tmp_path / ".local").touch()
    refused = authserver("init", ".")
    assert refused.exit_code == 1
    assert f"{tmp_path}/.local is a file; the secrets need a folder there: move it away" in refused.stderr
    (tmp_path / "environment").mkdir()
    refused = authserver("init", "--production", ".")
    assert refused.exit_code == 1
    assert "Error: environment: Is a directory" in refused.stderr


def test_an_ini_file_that_is_no_text_is_kept(authserver: Authserver, tmp_path: Path) -> None:
    (tmp_path / "development.ini").write_bytes(b"\xff")
    refused = authserver("init", ".")
    assert refused.exit_code == 1 and "development.ini is there and is not UTF-8" in refused.stderr
    assert (tmp_path / "development.ini").read_bytes() == b"\xff"


def test_programs_are_called_as_the_shell_finds_them(
    authserver: Authserver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name on the PATH; else from here, as in .venv/bin, or by the whole path."""
    programs = Path(sys.executable).parent

    def called() -> set[str]:
        lines = authserver("init", str(tmp_path / "server")).stdout.partition("Next:")[2].splitlines()
        return {shlex.split(line)[0] for line in lines if line}

    monkeypatch.setenv("PATH", str(programs))
    assert called() == {"authserver", "pserve"}
    monkeypatch.setenv("PATH", "/nowhere")
    assert called() == {f"{programs}/authserver", f"{programs}/pserve"}
    monkeypatch.chdir(programs.parent)
    assert called() == {"bin/authserver", "bin/pserve"}
