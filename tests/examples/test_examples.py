"""The programs in examples/ as their readers start them, and the guide to one of them, done as it is told."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import anyio
import httpx2
import pytest
import requests
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from authserver.cli import main as command_line
from authserver.testing.live import free_port
from authserver.testing.server import CHALLENGE, VERIFIER
from tests.clients.conftest import Person

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "examples"
PAGE = (CHECKOUT / "docs/protect-mcp-server.rst").read_text(encoding="utf-8")
# In place of pip: what it would install is here already.
SOURCES = os.pathsep.join([str(CHECKOUT / "plugins/authserver-resource/src"), str(CHECKOUT)])
BROWSER = "#!/bin/sh\nprintf %s \"$1\" > '{folder}/part' && mv '{folder}/part' '{folder}/address'\n"
SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """A server that runs the shipped development.ini, and where an example is served.

    Attributes:
        issuer: instead of http://localhost:6543.
        origin: instead of http://localhost:8000.
        folder: of development.ini, with `.local` beside it.
    """

    issuer: str
    origin: str
    folder: Path

    def moved(self, text: str) -> str:
        """The text with the addresses of this test."""
        return text.replace("http://localhost:6543", self.issuer).replace(
            "http://localhost:8000", self.origin
        )

    def secret(self, name: str) -> str:
        return (self.folder / ".local" / name).read_text(encoding="utf-8").strip()

    def person(self) -> Person:
        """The demo user at a browser."""
        return Person(self.issuer, "demo", self.secret("demo.password"))

    def token_of_a_person(self, resource: str, scope: str) -> str:
        """A token for a new application, which the demo user allowed on the pages."""
        redirect_uri = "http://127.0.0.1/callback"
        metadata = {"redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none"}
        registered = requests.post(f"{self.issuer}/oauth/register", json=metadata, timeout=10).json()
        asked = {"client_id": registered["client_id"], "redirect_uri": redirect_uri, "resource": resource}
        query = {"response_type": "code", "scope": scope, "code_challenge": CHALLENGE}
        query |= {"code_challenge_method": "S256", **asked}
        returned = self.person().authorize(f"{self.issuer}/oauth/authorize?{urlencode(query)}")
        code = dict(parse_qsl(urlsplit(returned).query))["code"]
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, **asked}
        answer = requests.post(f"{self.issuer}/oauth/token", data=form, timeout=10)
        return str(answer.json()["access_token"])


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("checkout")
    ports = free_port(), free_port()
    issuer, origin = (f"http://localhost:{port}" for port in ports)
    here = Here(issuer=issuer, origin=origin, folder=folder)
    ini = folder / "development.ini"
    text = here.moved((CHECKOUT / "development.ini").read_text(encoding="utf-8"))
    ini.write_text(text.replace("localhost:6543", f"localhost:{ports[0]}"), encoding="utf-8")
    demo = CliRunner().invoke(command_line, ["-c", str(ini), "demo"])
    assert demo.exit_code == 0, demo.output
    with running("-m", "pyramid.scripts.pserve", str(ini), ready=f"{issuer}/health/ready"):
        yield here


@contextmanager
def running(*words: str, ready: str, folder: Path = CHECKOUT, **environment: str) -> Iterator[None]:
    """A Python process that serves; `ready` is an address which it answers as soon as it does."""
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": SOURCES, "PYTHONWARNINGS": "ignore", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    answered = False
    try:
        deadline = time.monotonic() + SECONDS
        while not answered and process.poll() is None and time.monotonic() < deadline:
            try:
                answered = requests.get(ready, timeout=10).status_code < 500
            except requests.ConnectionError:
                time.sleep(0.05)
        if answered:
            yield
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=20)
    assert answered and "Traceback" not in said, said


def curl(here: Here, line: str, token: str = "") -> requests.Response:
    """What this command line of a README or guide asks for."""
    secret = "$(cat ../../.local/demo-service.secret)"
    line = here.moved(line).replace(secret, here.secret("demo-service.secret")).replace("$TOKEN", token)
    program, *words = shlex.split(line)
    assert program == "curl"
    method, headers, form, user, url = None, {}, [], None, ""
    while words:
        match words.pop(0):
            case "-i" | "-s":
                pass
            case "-X":
                method = words.pop(0)
            case "-u":
                user = tuple(words.pop(0).split(":", 1))
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            case "-d":
                form.append(words.pop(0))
            case address:
                url = address
    headers = {"Content-Type": "application/x-www-form-urlencoded", **headers} if form else headers
    method = method or ("POST" if form else "GET")
    return requests.request(method, url, headers=headers, data="&".join(form), auth=user, timeout=10)


# ---- the two APIs -----------------------------------------------------------------------------------


def commands(example: str) -> list[str]:
    """The command lines of its README."""
    text = (EXAMPLES / example / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize("example", ["api", "fastapi"])
def test_the_api_does_what_its_readme_says(here: Here, example: str) -> None:
    """P-01, P-05, P-06: no token, a token of a service, and the notes of a person who allowed it on the pages."""
    install, start, refused, ask, _, read, write = commands(example)
    assert install == "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
    python, program = start.split()
    assert python == ".venv/bin/python"
    resource = f"{here.origin}/"
    metadata = f"{resource}.well-known/oauth-protected-resource"
    with running(program, ready=metadata, folder=EXAMPLES / example, ADDRESS=resource, ISSUER=here.issuer):
        assert requests.get(metadata, timeout=10).json()["authorization_servers"] == [here.issuer]
        answer = curl(here, refused)
        assert answer.status_code == 401
        challenge = answer.headers["WWW-Authenticate"]
        assert 'scope="notes.read"' in challenge and f'resource_metadata="{metadata}"' in challenge
        token = curl(here, ask).json()["access_token"]
        assert curl(here, read, token).json() == []
        answer = curl(here, write, token)
        assert answer.status_code == 403
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        assert 'scope="notes.read notes.write"' in answer.headers["WWW-Authenticate"]

        of_demo = here.token_of_a_person(resource, "notes.read notes.write")
        assert curl(here, write, of_demo).json() == ["Buy milk"]
        assert curl(here, read, of_demo).json() == ["Buy milk"]
        assert curl(here, read, token).json() == []
        elsewhere = here.token_of_a_person(f"{here.origin}/mcp", "notes.read")
        answer = curl(here, read, elsewhere)
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


# ---- the guide --------------------------------------------------------------------------------------


def typed(beginning: str) -> list[str]:
    """The command lines of the guide that begin like this."""
    lines = re.findall(r"^ {3}\$ (.*)", PAGE, re.MULTILINE)
    return [line for line in lines if line.startswith(beginning)]


def shown(language: str) -> list[str]:
    """What the guide shows in this language."""
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?: {{3}}.*\n|\n)+)", PAGE, re.MULTILINE)
    return [textwrap.dedent(text).strip() for text in found]


def test_the_guide_leads_from_401_to_a_tool_call(here: Here, tmp_path: Path) -> None:
    """P-01, A-10, K-01: the same commands, with other ports, and a script for a browser."""
    ((_, folder),) = (line.split() for line in typed("cd "))
    server, client = (line.split()[1:] for line in typed(".venv/bin/python "))
    challenge, note = shown("text")
    (metadata,) = shown("json")
    refuse, describe = typed("curl ")
    browser = tmp_path / "browser"
    browser.write_text(BROWSER.format(folder=tmp_path), encoding="utf-8")
    browser.chmod(0o700)
    environment = {"ADDRESS": f"{here.origin}/mcp", "ISSUER": here.issuer}
    ready = here.moved(describe.split()[-1])
    with running(*server, ready=ready, folder=CHECKOUT / folder, **environment):
        answer = curl(here, refuse)
        status, header = here.moved(challenge).splitlines()
        assert status == f"HTTP/1.1 {answer.status_code} {answer.reason}"
        assert header == f"www-authenticate: {answer.headers['www-authenticate']}"
        assert curl(here, describe).json() == json.loads(here.moved(metadata))

        with subprocess.Popen(
            [sys.executable, *client],
            cwd=CHECKOUT / folder,
            env={**os.environ, "BROWSER": str(browser), "PYTHONWARNINGS": "ignore", **environment},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            address = tmp_path / "address"
            deadline = time.monotonic() + SECONDS
            while not address.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            returned = here.person().authorize(address.read_text(encoding="utf-8"))
            assert requests.get(returned, timeout=10).ok
            said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0
        assert said.partition("\n")[2].strip() == note


# ---- what is installed ------------------------------------------------------------------------------


@pytest.mark.parametrize("example", ["mcp-server", "api", "fastapi"])
def test_its_requirements_bring_what_it_imports(example: str) -> None:
    """Those of requirements.txt, of the extra of authserver-resource that it names, and what these need themselves."""
    text = (EXAMPLES / example / "requirements.txt").read_text(encoding="utf-8")
    source, *others = [
        Requirement(line) for line in re.findall(r"(?m)^[^#\s].*", text.replace("../../plugins/", ""))
    ]
    assert source.name == "authserver-resource"
    project = tomllib.loads((CHECKOUT / "plugins/authserver-resource/pyproject.toml").read_text())["project"]
    (extra,) = source.extras
    direct = [*others, *map(Requirement, project["optional-dependencies"][extra])]
    brought = {"authserver-resource", *(canonicalize_name(one.name) for one in direct)}
    for one in direct:
        assert one.specifier.contains(version(one.name)), one
        brought |= {canonicalize_name(Requirement(needed).name) for needed in requires(one.name) or ()}
    imported = {
        name.partition(".")[0]
        for file in (EXAMPLES / example).glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in imports(node)
    }
    foreign = {canonicalize_name(name) for name in imported - sys.stdlib_module_names}
    assert foreign and foreign <= brought


def imports(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            return [str(node.module)]
    return []


# ---- the MCP server elsewhere -----------------------------------------------------------------------


def test_the_mcp_server_answers_at_the_address_of_a_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK refuses other hosts than this machine, unless it is told the host."""
    monkeypatch.syspath_prepend(CHECKOUT / "plugins/authserver-resource/src")
    address, issuer = "https://mcp.example.com/mcp", "https://auth.example.com"
    monkeypatch.setenv("ADDRESS", address)
    monkeypatch.setenv("ISSUER", issuer)
    example = runpy.run_path(str(EXAMPLES / "mcp-server/server.py"))
    # What the path leads to: the distribution is not installed here.
    from authserver_resource.testing import LocalIssuer

    token = LocalIssuer.of(example["protected"]).token(scope="notes.read notes.write", sub="ann")
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }

    async def ask() -> int:
        inner = example["server"].session_manager
        async with inner.run(), httpx2.AsyncClient(transport=httpx2.ASGITransport(example["app"])) as http:
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
            return (await http.post(address, json=initialize, headers=headers)).status_code

    # In a thread of its own: in this one the loop of a browser may run.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(anyio.run, ask).result(30) == 200
