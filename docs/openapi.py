"""Writes `openapi.json` beside this file: `.venv/bin/python docs/openapi.py`.

It is the document of a server with all plugins that add to it. A test compares it with the code.
"""

from __future__ import annotations

import base64
import json
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey

from authserver import app
from authserver.web.openapi import document
from authserver.web.request import Registry

PUBLISHED = Path(__file__).parent / "openapi.json"
# What it takes to start; whatever is not here has its default.
INI = {
    "authserver.issuer": "https://as.example.com",
    "authserver.environment": "development",
    "authserver.database_url": "sqlite:///never-opened.db",
    "authserver.secret_keys": "docs:" + base64.b64encode(bytes(range(32))).decode(),
    "authserver.scopes": "profile = See your name",
    "authserver.plugins": (
        "client_secret_basic client_secret_post public_client registration_open introspect_own pushed_requests dpop "
        "jwt_bearer id_jag token_exchange id_jag_issuer device_grant private_key_jwt authorization_expiry rate_limits client_management "
        "software_statements step_up admin_api workload_identity openid upstream"
    ),
}


def text() -> str:
    """The document as it is published."""
    return json.dumps(made(), indent=2) + "\n"


def made() -> dict[str, Any]:
    return document(served())


def served() -> Registry:
    """The registry of such a server. Its database is never opened."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder, "keys.json")
        keys.write_text(json.dumps({"keys": [ECKey.generate_key("P-256").as_dict(private=False)]}))
        issuers = f"https://issuer.example.com = {keys}"
        trusted = {
            f"authserver.plugin.{name}.issuers": issuers for name in ("jwt_bearer", "software_statements")
        }
        provider = {
            f"authserver.plugin.upstream.providers.work.{name}": value
            for name, value in {
                "issuer": "https://work.example.com",
                "client_id": "authserver",
                "client_secret": "secret-of-the-provider",
            }.items()
        }
        ini = {**INI, **trusted, **provider, "authserver.plugin.step_up.levels": "password = pwd"}
        with closing(app.build(ini)) as application:
            registry: Registry = app.make_wsgi_app(application, ini).registry
            return registry


if __name__ == "__main__":
    PUBLISHED.write_text(text(), encoding="utf-8")
