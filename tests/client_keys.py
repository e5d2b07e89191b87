"""Clients that sign with a key of their own: `Key` registers a client with it, signs assertions, and asks as that client.

key = Key("RS256")
client = key.client(rules)
answer = key.ask(rules, client, "/oauth/token", grant_type="client_credentials")
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from authserver.engine.records import Client
from authserver.testing.service import ISSUER, Answered, Service

METHOD = "private_key_jwt"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# In place of a member: it is left out.
ABSENT = object()
_NEW: Mapping[str, Any] = {
    "ES256": lambda: ECKey.generate_key("P-256"),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
    "Ed25519": lambda: OKPKey.generate_key("Ed25519"),
    "RS256": lambda: RSAKey.generate_key(2048),
    "PS256": lambda: RSAKey.generate_key(2048),
}
ALGORITHMS = tuple(_NEW)


def encoded(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def without_absent(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ABSENT}


class Key:
    """A key of a client.

    Args:
        algorithm: that it signs with.
        kid: its name in key sets.
    """

    def __init__(self, algorithm: str = "ES256", kid: str = "one") -> None:
        self.algorithm, self.kid = algorithm, kid
        self.private = _NEW[algorithm]()

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public key, as its owner publishes it."""
        public = self.private.as_dict(private=False)
        return without_absent({**public, "kid": self.kid, "alg": self.algorithm, "use": "sig", **changes})

    def jwks(self, *others: Key, **changes: Any) -> dict[str, Any]:
        return {"keys": [self.jwk(**changes), *(other.jwk() for other in others)]}

    def client(self, service: Service[Any], **metadata: Any) -> Client:
        """A client of the operator's with this key; by default one that acts on its own behalf."""
        details = metadata.pop("details", None) or {"jwks": self.jwks()}
        values = {"grant_types": ("client_credentials",), **metadata}
        client, secret = service.add_client(token_endpoint_auth_method=METHOD, details=details, **values)
        assert secret is None
        return client

    def signed(self, header: Any, claims: Any, *, algorithm: str | None = None) -> str:
        """A compact JWS of whatever is given."""
        text = f"{encoded(header)}.{encoded(claims)}"
        signature = JWSRegistry.algorithms[algorithm or self.algorithm].sign(text.encode(), self.private)
        return f"{text}.{encoded(signature)}"

    def header(self, **changes: Any) -> dict[str, Any]:
        return without_absent({"alg": self.algorithm, "kid": self.kid, "typ": "JWT", **changes})

    def claims(self, client_id: str, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        right = {"iss": client_id, "sub": client_id, "aud": ISSUER, "exp": now + 60, "iat": now}
        return without_absent({**right, "jti": os.urandom(12).hex(), **changes})

    def assertion(self, client: Client | str, **changes: Any) -> str:
        """A right assertion of this client, with these claims changed."""
        client_id = client if isinstance(client, str) else client.client_id
        return self.signed(self.header(), self.claims(client_id, **changes))

    def ask(
        self,
        service: Service[Answered],
        client: Client,
        path: str = "/oauth/token",
        *,
        text: str | None = None,
        **form: Any,
    ) -> Answered:
        """Ask as this client, with a fresh assertion or this text.

        Args:
            form: parameters; those that authenticate can be changed, too, and ABSENT leaves one out.
        """
        sent = {
            "client_id": client.client_id,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self.assertion(client) if text is None else text,
            **form,
        }
        return service.post(path, urlencode(without_absent(sent), doseq=True))
