"""The server that is measured: PostgreSQL, JWT access tokens, every shipped policy that production has."""

import base64
import hashlib
import os

CHALLENGE = os.environ.get("CHALLENGE", "")
SECRET = "benchsecret0123456789abcdefABCDEF0123456789"
REDIRECT_URI = "https://client.example/cb"
RESOURCE = "https://api.example/"
# Of the key ring.
KEY_ID = "bench"


def ini(port: str) -> dict[str, str]:
    """The settings of one measured server."""
    return {
        "authserver.issuer": f"http://127.0.0.1:{port}",
        "authserver.environment": "development",
        "authserver.database_url": "env:DATABASE_URL",
        "authserver.secret_keys": f"{KEY_ID}:"
        + base64.b64encode(hashlib.sha256(b"benchmark").digest()).decode(),
        "authserver.plugins": """
            client_secret_basic
            client_secret_post
            public_client
            redirect_exact
            redirect_loopback
            scopes_registered
            resources_listed
            consent_remembered
            login_password
            registration_token
            introspect_own
            rate_limits
        """,
        # The kinds and keys of the shipped table; its numbers are below what is measured.
        "authserver.plugin.rate_limits.limits": """
            tokens-of-client = token_request, client, 1000000, minute
            tokens-of-grant = token_request, grant, 1000000, minute
            unknown-tokens = unknown_token, client, 1000000, minute
            wrong-client-credentials = failed_client_authentication, client+source, 1000000, minute
            authorization-requests-from-source = authorization_request, source, 1000000, minute
        """,
        "authserver.plugin.resources_listed.resources": f"{RESOURCE} = *",
        "authserver.plugin.resources_listed.default": RESOURCE,
        "authserver.scopes": "read = Read your data",
    }
