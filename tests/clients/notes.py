"""The MCP server of the examples, in a thread."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

CHECKOUT = Path(__file__).parents[2]
SECONDS = 60


@contextmanager
def serving_notes(address: str, issuer: str) -> Iterator[None]:
    """examples/mcp-server at this address, whose callers need a token of this issuer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CHECKOUT / "plugins/authserver-resource/src")
        patch.setenv("ADDRESS", address)
        patch.setenv("ISSUER", issuer)
        found = importlib.util.spec_from_file_location(
            "notes_server", CHECKOUT / "examples/mcp-server/server.py"
        )
        assert found and found.loader
        example = importlib.util.module_from_spec(found)
        found.loader.exec_module(example)
    server = uvicorn.Server(
        uvicorn.Config(example.app, host=example.host, port=example.port, log_level="error", ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + SECONDS
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.started
    yield
    server.should_exit = True
    thread.join(20)
