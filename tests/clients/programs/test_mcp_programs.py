"""Programs of the Model Context Protocol, which find everything out from the address of an MCP server.

They open a browser by themselves: `$BROWSER` is a script that hands the address on to the person of the test.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from authserver.testing.live import free_port
from tests.clients.programs.steps import allow

SECONDS = 60
BROWSER = '#!/bin/sh\nprintf %s "$1" > {folder}/part && mv {folder}/part {folder}/address\n'
Claims = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The home folder of programs that keep their tokens there.

    Attributes:
        environment: what they are started with.
    """

    folder: Path
    environment: Mapping[str, str]

    def opened(self, program: Future[Any]) -> str:
        """The address that the program opens in a browser."""
        address = self.folder / "address"
        deadline = time.monotonic() + SECONDS
        while not address.exists():
            assert not program.done(), f"it ended, and opened no address: {program.result()}"
            assert time.monotonic() < deadline, "it opened no address"
            time.sleep(0.1)
        return address.read_text(encoding="utf-8")

    def forget_opened(self) -> None:
        (self.folder / "address").unlink()

    def has_opened(self) -> bool:
        return (self.folder / "address").exists()

    def spoil_access_token(self) -> None:
        """Change the stored access token, which the MCP server then refuses as it refuses one that expired."""
        changed = 0
        for file in self.folder.rglob("*.json"):
            text = file.read_text(encoding="utf-8")
            spoilt = re.sub(r'(access_token\\*": *\\*"[^"\\]{20})[^"\\]*', r"\1", text)
            if spoilt != text:
                file.write_text(spoilt, encoding="utf-8")
                changed += 1
        assert changed == 1


@pytest.fixture
def home(tmp_path: Path) -> Home:
    browser = tmp_path / "browser"
    browser.write_text(BROWSER.format(folder=tmp_path), encoding="utf-8")
    browser.chmod(0o700)
    return Home(
        folder=tmp_path,
        environment={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "BROWSER": str(browser)},
    )


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """Programs run beside the browser, and Playwright keeps the event loop of the tests' own thread."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


@pytest.fixture
def start_mcp_remote(npm, node, resources, home, thread) -> Callable[..., Future[Claims]]:
    """Start mcp-remote as desktop programs do, and call a tool through it; what the tool returns."""
    port = str(free_port())

    def start(package: str = "mcp-remote", *options: str) -> Future[Claims]:
        program = str(npm / "node_modules" / package / "dist/proxy.js")
        parameters = StdioServerParameters(
            command=node, args=[program, resources.mcp, port, *options], env=dict(home.environment)
        )

        async def call() -> Claims:
            with (home.folder / "mcp-remote.log").open("a") as log:
                async with Client(stdio_client(parameters, errlog=log), mode="legacy") as client:
                    return dict((await client.call_tool("read_notes", {})).structured_content)

        return thread.submit(anyio.run, call)

    return start


@pytest.fixture
def start_inspector(npm, node, resources, home, thread) -> Callable[..., Future[Claims]]:
    """Start the Inspector's command line, and call a tool with it; what the tool returns."""
    callback = f"http://127.0.0.1:{free_port()}/oauth/callback"

    def start() -> Future[Claims]:
        program = str(npm / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js")
        words = [
            "--cli",
            resources.mcp,
            "--transport",
            "http",
            "--callback-url",
            callback,
            "--format",
            "json",
        ]
        words += ["--method", "tools/call", "--tool-name", "read_notes"]
        settings = {"MCP_AUTO_OPEN_ENABLED": "true", "MCP_INSPECTOR_SECRET_STORE": "file"}

        def call() -> Claims:
            done = subprocess.run(
                [node, program, *words],
                env={**home.environment, **settings},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=2 * SECONDS,
            )
            assert done.returncode == 0, done.stderr
            return dict(json.loads(done.stdout)["result"]["structuredContent"])

        return thread.submit(call)

    return start


@pytest.fixture
def start_mcp_remote_of_2025(start_mcp_remote) -> Callable[..., Future[Claims]]:
    """An mcp-remote that knows no scopes of an MCP server; its own are `openid email profile` (K-25)."""
    metadata = json.dumps({"scope": "openid email profile notes.read"})
    return partial(start_mcp_remote, "mcp-remote-of-2025", "--static-oauth-client-metadata", metadata)


@pytest.mark.parametrize("program", ["mcp_remote", "mcp_remote_of_2025", "inspector"])
def test_it_registers_authorizes_calls_a_tool_starts_again_and_refreshes(
    request, page, server, resources, home, program
):
    """A-10, A-14, K-01, B-01, F-07, G-01, I-01: a second start finds the tokens, a third one refreshes them."""
    start = request.getfixturevalue(f"start_{program}")
    running = start()
    allow(page, home.opened(running), server.password)
    first = running.result(SECONDS)
    assert first["aud"] == resources.mcp
    home.forget_opened()

    again = start().result(SECONDS)
    assert again["jti"] == first["jti"]

    home.spoil_access_token()
    refreshed = start().result(SECONDS)
    assert refreshed["jti"] != first["jti"]
    assert refreshed["client_id"] == first["client_id"]
    assert not home.has_opened()
