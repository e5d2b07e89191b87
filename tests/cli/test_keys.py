"""`authserver keys`."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

from paste.deploy import loadapp

from authserver.settings import key_ring, load


def test_a_fresh_ring_entry_is_accepted_and_never_the_same(bare) -> None:
    first, second = bare("keys", "secret"), bare("keys", "secret")
    assert first.exit_code == 0 and first.stdout != second.stdout
    ini = {
        "authserver.issuer": "https://login.example.com",
        "authserver.database_url": "sqlite:///",
        "authserver.secret_keys": f"{first.stdout} {second.stdout}",
        "authserver.environment": "development",
    }
    loaded = load(ini)
    assert [len(key) for _, key in key_ring(loaded.settings)] == [32, 32]
    assert not any("not random" in line for line in loaded.insecure)


def test_a_ring_entry_tells_the_day_it_was_made(bare) -> None:
    key_id, _, encoded = bare("keys", "secret").stdout.strip().partition(":")
    assert abs((datetime.now(UTC) - datetime.strptime(key_id[:8], "%Y%m%d").replace(tzinfo=UTC)).days) <= 1
    assert len(base64.b64decode(encoded, validate=True)) == 32


def test_signing_keys_are_listed_without_their_private_parts(run, ini) -> None:
    """R-01, R-06: the server makes one when it first starts."""
    assert json.loads(run("keys", "list", "--json").stdout) == []
    loadapp(f"config:{ini}").registry.application.storage.close()
    (key,) = json.loads(run("keys", "list", "--json").stdout)
    assert key["algorithm"] == "ES256" and key["state"] == "active"
    assert key["public_jwk"]["kty"] == "EC" and "d" not in key["public_jwk"]
    assert key["kid"] in run("keys", "list").stdout
