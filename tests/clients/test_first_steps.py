"""The steps to a server in production, done as README and documentation tell them: on PostgreSQL, to a token."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from joserfc import jwt
from joserfc.jwk import KeySet
from requests.adapters import HTTPAdapter

from authserver.testing.live import free_port
from tests.clients.conftest import Person

CHECKOUT = Path(__file__).parents[2]
ISSUER = "https://login.example.com"
PASSWORD = "correct horse battery"
# A login shell has a terminal, which `user add` asks for the password.
WITH_TERMINAL = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execvp('bash', ['bash', '-eu', *sys.argv[1:]])"
)
EDITOR = """#!{python}
import sys
from pathlib import Path

environment = Path(sys.argv[1])
text = environment.read_text()
for name, value in {filled!r}.items():
    assert text.count(f"{{name}}=''") == 1
    text = text.replace(f"{{name}}=''", f"{{name}}='{{value}}'")
environment.write_text(text)
ini = environment.parent / "production.ini"
ini.write_text(ini.read_text().replace("http_port = 6543", "http_port = {port}"))
"""


class Proxy(HTTPAdapter):
    """What the reverse proxy does: terminates TLS for the issuer and passes every request on to a port here."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        passed = request.copy()
        assert passed.url is not None and passed.url.startswith(f"{ISSUER}/")
        passed.url = passed.url.replace(ISSUER, f"http://127.0.0.1:{self.port}", 1)
        passed.headers.update(
            {"Host": "login.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
        )
        return super().send(passed, *arguments, **options)


def commands_of_readme() -> str:
    """The commands of the README from `init --production` on; what is installed is what runs this test."""
    blocks = re.findall(r"```sh\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "init --production" in block]
    install, *rest = block.splitlines()
    assert install == ".venv/bin/pip install 'authserver[postgresql]'"
    return "\n".join(rest)


def page() -> str:
    return (CHECKOUT / "docs/first-steps.rst").read_text()


def test_readme_and_documentation_tell_the_same_steps() -> None:
    """Else one of them would be untried."""
    section = page().partition("A server for production\n")[2]
    shown = re.findall(r"^ {3}\$ ((?:.*\\\n)*.*)", section, re.MULTILINE)
    assert shown[0] == ".venv/bin/pip install 'authserver[postgresql]'"
    told = [" ".join(line.split()) for line in re.split(r"(?<!\\)\n", commands_of_readme())]
    assert [" ".join(line.split()) for line in shown[1:]] == told
    deploying = (CHECKOUT / "docs/deploying.rst").read_text().replace("/srv/authserver/bin/", ".venv/bin/")
    for line in shown[1:]:
        assert f"   $ {line}\n" in deploying


@pytest.fixture
def production(tmp_path: Path, empty_postgresql_url: str) -> Iterator[tuple[Person, str]]:
    """Ada at her browser, and what the commands of the README printed; the last of them serves.

    Only the folder, the port and the database are others.
    """
    port = free_port()
    filled = {
        "AUTHSERVER_ISSUER": ISSUER,
        "AUTHSERVER_DATABASE_URL": empty_postgresql_url,
        "AUTHSERVER_RESOURCES": "https://api.example.com/ = *",
    }
    editor = tmp_path / "editor"
    editor.write_text(EDITOR.format(python=sys.executable, filled=filled, port=port))
    editor.chmod(0o755)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    script = tmp_path / "script"
    script.write_text(commands_of_readme().replace("/etc/authserver", str(tmp_path / "etc/authserver")))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTHSERVER_")}
    log = tmp_path / "log"
    ours, theirs = pty.openpty()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", WITH_TERMINAL, str(script)],
            cwd=tmp_path,
            env={**environment, "EDITOR": str(editor)},
            stdin=theirs,
            stdout=output,
            stderr=output,
        )
    os.close(theirs)
    try:
        answer_prompts(ours, log)
        person = Person(ISSUER, "ada", PASSWORD)
        person.http.mount(ISSUER, Proxy(port))
        wait_until_ready(person.http, process, log)
        yield person, log.read_text()
    finally:
        # The shell and what it started.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)
        os.close(ours)


def answer_prompts(terminal: int, log: Path) -> None:
    """Type the password twice, each time when it is asked for."""
    for prompt in (b"Password: ", b"Repeat for confirmation: "):
        asked = b""
        while prompt not in asked:
            try:
                asked += os.read(terminal, 1000)
            except OSError:  # nobody has the terminal open any more
                raise AssertionError(log.read_text()) from None
        os.write(terminal, f"{PASSWORD}\n".encode())


def wait_until_ready(http: requests.Session, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if http.get(f"{ISSUER}/health/ready", timeout=10).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.mark.postgresql
def test_the_steps_lead_to_a_token_for_an_ordinary_client(production: tuple[Person, str]) -> None:
    """O-08, O-05, T142: Authlib, as the documentation shows it, names no resource and gets a token for the API."""
    ada, printed = production
    (example,) = re.findall(r"\.\. code-block:: python\n\n((?: {3}.*\n|\n)+)", page())
    ask, comment, redeem = textwrap.dedent(example).partition("# Send the person to `url`")
    assert comment and "resource" not in example
    names: dict[str, Any] = {
        "client_id": re.findall(r"(?m)^client id +(\S+)", printed)[0],
        "client_secret": re.findall(r"(?m)^client secret +(\S+)", printed)[0],
    }
    exec(ask, names)
    names["client"].mount(ISSUER, ada.http.get_adapter(ISSUER))
    names["returned"] = ada.authorize(names["url"])
    assert names["returned"].startswith("https://notes.example.com/callback?code=")
    exec(comment + redeem, names)

    keys = KeySet.import_key_set(ada.http.get(f"{ISSUER}/oauth/jwks", timeout=10).json())
    claims = jwt.decode(names["token"]["access_token"], keys).claims
    assert (claims["iss"], claims["aud"], claims["scope"]) == (ISSUER, "https://api.example.com/", "profile")
