"""`authserver doctor` on real servers: node-oidc-provider, and a real MCP server with this server behind it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from authserver.cli import main
from authserver.testing.live import free_port
from tests.clients.programs.conftest import wait_for


def examined(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["doctor", *arguments, "--json"])
    assert done.exit_code in (0, 1), done.output
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def stumbles(report: dict[str, Any]) -> dict[str, set[str]]:
    """The checks that each program stumbles over."""
    found: dict[str, set[str]] = {}
    for finding in report["findings"]:
        if finding["result"] == "stumbles":
            found.setdefault(finding["program"] or "", set()).add(finding["check"])
    return found


@pytest.fixture(scope="module")
def provider(npm: Path, node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """node-oidc-provider, which lets clients register and manage themselves. Where it is."""
    issuer = f"http://localhost:{free_port()}"
    log = tmp_path_factory.mktemp("provider") / "log"
    with log.open("wb") as output:
        command = [node, str(npm / "oidc-provider.js"), issuer.rpartition(":")[2]]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(f"{issuer}/.well-known/openid-configuration", process, log)
        yield issuer
    finally:
        process.terminate()
        process.wait(timeout=10)


def test_what_programs_stumble_over_at_node_oidc_provider_is_found(provider: str) -> None:
    """Its rules: no private-use redirect URIs for web applications, no unknown scopes, PKCE for public clients alone."""
    report = examined(provider, "--register")
    assert report["result"] == "stumbles"
    found = stumbles(report)
    assert "redirect-uris" in found["cursor"] & found["rikkahub"]
    assert "registers" in found["claude"] & found["raycast"]
    assert found["copilot-studio"] == {"pkce-required"}
    assert found["inspector-in-the-browser"] == {"reads-answers"}
    assert not {"vs-code", "claude-code", "chatgpt", "zed", "inspector"} & set(found)
    assert not any(program["left_behind"] for program in report["programs"])


def test_a_real_mcp_server_leads_to_this_server_and_gets_tokens_for_itself(
    server: Any, resources: Any
) -> None:
    """Of the official Python SDK, with development.ini behind it (RFC 9728)."""
    report = examined("--resource", resources.mcp, "--as", "zed", "--register")
    assert (report["issuer"], report["resource"]) == (server.issuer, resources.mcp)
    assert stumbles(report) == {}
    good = {finding["check"] for finding in report["findings"] if finding["result"] == "ok"}
    assert {"resource-equal", "forged-token", "audience", "pkce-required", "authenticates"} <= good
