"""The README: what it tells people to write works as it stands, in each framework."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest
from django.conf import settings as django_settings
from django.core.wsgi import get_wsgi_application
from starlette.testclient import TestClient
from webtest import TestApp

from authserver_resource.testing import LocalIssuer

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python\n# ([\w.]+(?: settings)?).*?\n(.*?)```", README, re.DOTALL))


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> LocalIssuer:
    """That of `protected.py`."""
    module = ModuleType("protected")
    exec(BLOCKS["protected.py"], module.__dict__)
    monkeypatch.setitem(sys.modules, "protected", module)
    return LocalIssuer.of(module.protected)


def written(name: str) -> dict[str, Any]:
    """The names of a file with this text."""
    # The name of a module that there is: Pyramid looks it up.
    module: dict[str, Any] = {"__name__": "protected"}
    exec(BLOCKS[name], module)
    return module


def by_wsgi(application: Any, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
    answer = TestApp(application).get("/files", headers=headers, expect_errors=True)
    return answer.status_int, dict(answer.headers), answer.text


def by_asgi(application: Any, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
    async def sent() -> tuple[int, dict[str, str], str]:
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            answer = await client.get("/files", headers=headers)
            return (
                answer.status_code,
                {"WWW-Authenticate": answer.headers.get("www-authenticate", "")},
                answer.text,
            )

    return asyncio.run(sent())


def django_application(monkeypatch: pytest.MonkeyPatch) -> Any:
    if not django_settings.configured:
        django_settings.configure(ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)
    urls = ModuleType("urls")
    urls.__dict__.update(written("django"))
    values = {name: value for name, value in written("django settings").items() if name.isupper()}
    for name, value in {**values, "ROOT_URLCONF": urls}.items():
        monkeypatch.setattr(django_settings, name, value, raising=False)
    return get_wsgi_application()


@pytest.mark.parametrize("name", ["fastapi", "flask", "django", "pyramid", "asgi", "wsgi"])
def test_each_api_says_what_it_needs_and_then_lets_in(issuer, monkeypatch, name):
    """P-01, P-04, P-09."""
    application = django_application(monkeypatch) if name == "django" else written(name)["app"]
    ask = by_asgi if name in ("fastapi", "asgi") else by_wsgi
    status, headers, _ = ask(application, {})
    assert status == 401
    said = re.search(r"www-authenticate: (.*)", README)
    assert headers["WWW-Authenticate"] == said[1]
    status, _, text = ask(application, {"Authorization": f"Bearer {issuer.token(scope='files.write')}"})
    assert (status, "a file of ann" in text) == (200, True)


@pytest.mark.parametrize("name", ["mcp", "fastmcp"])
def test_each_mcp_server_says_what_it_needs_and_then_lets_in(issuer, name):
    """P-01, P-04, P-09: to a tool call."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "a", "version": "1"},
    }
    accept = {"Accept": "application/json, text/event-stream"}
    with TestClient(written(name)["app"], base_url="http://localhost:8000") as client:
        assert client.post("/mcp", json=call).status_code == 401
        headers = {**accept, "Authorization": f"Bearer {issuer.token(scope='files.read')}"}
        answer = client.post("/mcp", json={**call, "params": params}, headers=headers)
        assert answer.status_code == 200, answer.text
        session = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}
        tool = {"method": "tools/call", "params": {"name": "files", "arguments": {}}}
        answer = client.post("/mcp", json={**call, **tool, "id": 2}, headers={**headers, **session})
        (data,) = re.findall(r"data: (\{.*)", answer.text)
        assert json.loads(data)["result"]["content"][0]["text"].strip('[]"') == "a file of ann"


def test_every_block_is_tried():
    tried = {
        "protected.py",
        "fastapi",
        "flask",
        "django settings",
        "django",
        "pyramid",
        "asgi",
        "wsgi",
        "mcp",
        "fastmcp",
    }
    assert tried == BLOCKS.keys()
