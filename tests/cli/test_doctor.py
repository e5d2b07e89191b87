"""`authserver doctor`: this server, as development.ini is shipped, and what is printed of others."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from paste.deploy import appconfig
from waitress.server import create_server

from authserver.cli import main
from authserver.doctor.recordings import NAMES
from authserver.testing.live import free_port
from authserver.testing.origins import sending, serving
from authserver.testing.server import SETTINGS, Server

CHECKOUT = Path(__file__).parents[2]
HOSTILE = "\x1b]0;title\x07\x1b[2J\u009b31m\u202e\u200d"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


# Redirect URIs that an operator has to allow (docs/real-clients.rst).
NOT_IN_THE_PRESET = ("systemprompt://oauth/callback", "raycast://oauth?package_name=mcp_server_notes")


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


@contextmanager
def serving_ours(database: Path, plugins: Callable[[str], str]) -> Iterator[Server]:
    """This server on a loopback port: development.ini with other plugins."""
    port = free_port()
    settings: dict[str, Any] = dict(
        appconfig(f"config:{CHECKOUT / 'development.ini'}", name="main").local_conf
    )
    # All programs register from one address within an hour, several times.
    limits = "authserver.plugin.rate_limits.limits"
    settings[limits] = settings[limits].replace("registration, source, 20,", "registration, source, 1000,")
    url = f"sqlite:///{database}"
    settings |= {
        "authserver.plugins": plugins(settings["authserver.plugins"]),
        "authserver.issuer": f"http://localhost:{port}",
        "authserver.secret_keys": SETTINGS["authserver.secret_keys"],
        "authserver.database_url": url,
    }
    if "redirect_private_use" in settings["authserver.plugins"]:
        settings["authserver.plugin.redirect_private_use.uris"] = "\n".join(NOT_IN_THE_PRESET)
    server = Server(url, dict.fromkeys(SETTINGS) | settings)
    listening = create_server(
        server.wsgi, host="127.0.0.1", port=port, threads=4, clear_untrusted_proxy_headers=True
    )
    thread = threading.Thread(target=listening.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.close()
        server.close()


@pytest.fixture(scope="module")
def ours(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the plugins that development.ini shows in comments."""
    database = shutil.copy(migrated_sqlite_file, tmp_path_factory.mktemp("doctor") / "authserver.db")
    with serving_ours(database, lambda text: f"{text}\nclient_management\nredirect_private_use") as server:
        yield server


def clients(server: Server) -> int:
    with server.begin() as engine:
        return len(engine.stores.clients.page(engine.now, after="", limit=100))


def test_no_recorded_program_stumbles_over_this_server_and_nothing_is_left_behind(ours: Server) -> None:
    """K-25, K-26, A-18: with --register each program is walked to the token endpoint and removed again (RFC 7592)."""
    done = doctor(ours.issuer, "--register", "--json")
    told = json.loads(done.stdout)
    wrong = [finding for finding in told["findings"] if finding["result"] in ("stumbles", "warning")]
    assert [finding["check"] for finding in wrong] == ["issuer-https"]
    assert (done.exit_code, told["result"]) == (0, "warning")
    assert [program["name"] for program in told["programs"]] == list(NAMES)
    assert {program["introduction"] for program in told["programs"]} == {"registration"}
    assert not any(program["left_behind"] for program in told["programs"])
    assert clients(ours) == 0
    assert done.stderr == ""


def test_plugins_that_are_missing_are_named_as_what_mends_it(
    migrated_sqlite_file: Path, tmp_path: Path
) -> None:
    """development.ini without clients that have no secret, and without the preset."""
    database = Path(shutil.copy(migrated_sqlite_file, tmp_path / "authserver.db"))
    taken_out = re.compile(r"^(public_client|mcp_clients)$", re.M)
    with serving_ours(database, lambda text: taken_out.sub("", text)) as server:
        done = doctor(server.issuer, "--register", "--json")
        told = json.loads(done.stdout)
        printed = doctor(server.issuer, "--register").stdout
    assert (done.exit_code, told["result"]) == (1, "stumbles")
    assert {program["name"] for program in told["programs"] if program["result"] != "stumbles"} == {
        "claude",
        "copilot-studio",
        "mcp-remote",
    }
    stumbles = {
        (finding["program"], finding["check"]): finding
        for finding in told["findings"]
        if finding["result"] == "stumbles"
    }
    assert "public_client" in stumbles["zed", "method-offered"]["remedy"]
    assert stumbles["zed", "method-offered"]["error_id"]
    assert "mcp_clients" in stumbles["rikkahub", "redirect-uris"]["remedy"]
    assert ("chatgpt", "finds-members") in stumbles
    assert "and 10 more" in printed
    assert "These clients stay behind: client_" in printed
    assert "19 of 22 programs stumble." in printed


def test_without_register_nobody_registers_and_that_is_said(ours: Server) -> None:
    done = doctor(ours.issuer, "--as", "claude", "--as", "zed")
    assert done.exit_code == 0
    assert "None of 2 programs stumbles, as far as was checked." in done.stdout
    assert "--register tries it" in done.stdout
    assert clients(ours) == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["zed", "Zed", "registration", "ok", "registration", "not", "run"] in lines


def test_verbose_lists_what_is_good_with_its_clause(ours: Server) -> None:
    quiet, verbose = doctor(ours.issuer, "--as", "zed"), doctor(ours.issuer, "--as", "zed", "--verbose")
    assert "exactly as it was asked for" not in quiet.stdout
    assert re.search(r"exactly as it was asked for +RFC 8414, 3\.3", verbose.stdout)


def test_an_issuer_that_is_not_quite_right_is_explained(ours: Server) -> None:
    """RFC 8414, 3.3: what mends it is named."""
    done = doctor(ours.issuer + "/", "--as", "zed")
    assert done.exit_code == 1
    assert f"is not '{ours.issuer}/'" in done.stdout
    assert "set authserver.issuer to exactly the address that clients are given" in done.stdout
    assert "1 thing is wrong for every client." in done.stdout


def test_the_issuer_of_the_ini_file_is_taken_where_none_is_named(run: Any, ini: Path) -> None:
    """It is not running, so the address that was tried is named."""
    address = f"localhost:{free_port()}"
    ini.write_text(ini.read_text().replace("localhost:6543", address))
    done = run("doctor", "--as", "zed")
    assert done.exit_code == 2
    assert f"http://{address}/.well-known/oauth-authorization-server: " in done.stderr


def test_what_a_stranger_answers_is_safe_for_a_terminal() -> None:
    """T094: in tables, in JSON and in the reason why nothing was reached."""
    body = json.dumps({"issuer": HOSTILE, "registration_endpoint": HOSTILE, "jwks_uri": [HOSTILE]}).encode()
    with serving() as origin:
        origin.reply = sending(body)
        for option in ("--verbose", "--json"):
            done = doctor(f"http://127.0.0.1:{origin.port}", "--register", option)
            assert done.exit_code == 1, done.output
            assert not CONTROL.search(done.output)
            assert "title" in done.stdout


def test_an_unreachable_server_is_2(tmp_path: Path) -> None:
    done = doctor("http://127.0.0.1:9", "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["result"] == "unreachable"
    done = doctor("http://127.0.0.1:9")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Nothing could be checked. http://127.0.0.1:9/")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["login.example.com"], "it must be a URL such as https://login.example.com"),
        (["https://login.example.com", "--as", "vscode"], "did you mean vs-code"),
        (["https://login.example.com", "--as", "xxxxxxxx"], "`authserver doctor --list` names all"),
        (["https://login.example.com", "--register", "--client-id", "x"], "exclude each other"),
        (["https://login.example.com", "--resource", "ftp://x"], "--resource"),
        (["https://login.example.com", "--time-limit", "0"], "--time-limit"),
        ([], "no server is named"),
    ],
)
def test_a_wrong_command_line_is_2(arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTHSERVER_CONFIG", raising=False)
    done = doctor(*arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.replace("│", " ").split())


def test_a_ca_file_that_is_none_is_said(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    done = doctor("https://login.example.com", "--ca-file", str(file))
    assert done.exit_code == 2
    assert "--ca-file: cannot be used" in done.stderr


def test_the_programs_are_listed() -> None:
    listed = json.loads(doctor("--list", "--json").stdout)
    assert [program["name"] for program in listed] == list(NAMES)
    assert re.search(r"^claude-code +Claude Code +2\.1", doctor("--list").stdout, re.M)
