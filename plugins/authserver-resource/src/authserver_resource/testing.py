"""Tests of protected APIs without a server: an issuer in this process that mints tokens and proofs.

issuer = LocalIssuer.of(protected)
client.get("/files", headers={"Authorization": f"Bearer {issuer.token(scope='files.read')}"})
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from authserver_resource.dpop import encoded
from authserver_resource.fetching import FetchFailed, Reply
from authserver_resource.resource import ProtectedResource

__all__ = ["DpopKey", "LocalIssuer", "signed"]

_NEW_KEYS: Mapping[str, Any] = {
    "ES256": lambda: ECKey.generate_key("P-256"),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
    "RS256": lambda: RSAKey.generate_key(2048),
    "PS256": lambda: RSAKey.generate_key(2048),
}


def signed(header: Mapping[str, Any], claims: Mapping[str, Any] | bytes, key: Any) -> str:
    """A compact JWS with exactly this header and these claims; `none` gets an empty signature."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    text = f"{encoded(json.dumps(header).encode())}.{encoded(payload)}"
    signature = b""
    if header["alg"].lower() != "none":
        signature = JWSRegistry.algorithms[header["alg"]].sign(text.encode(), key)
    return f"{text}.{encoded(signature)}"


class LocalIssuer:
    """An authorization server in this process: its metadata, its key set, its introspection, and its tokens.

    Args:
        issuer: its identifier.
        audience: the audience of its tokens, unless a token names another.
        algorithm: the algorithm of its signatures: ES256, EdDSA, RS256 or PS256.

    Attributes:
        key: the present signing key.
        keys: the published key set.
        down: whether it does not answer.
        requests: the URLs of the requests.
    """

    def __init__(self, issuer: str, audience: str, *, algorithm: str = "ES256") -> None:
        self.issuer = issuer
        self.audience = audience
        self.algorithm = algorithm
        self.down = False
        self.requests: list[str] = []
        self.keys: list[dict[str, Any]] = []
        self._opaque: dict[str, dict[str, Any]] = {}
        self._revoked: set[str] = set()
        self.rotate()

    @classmethod
    def of(cls, protected: ProtectedResource, *, algorithm: str = "ES256") -> LocalIssuer:
        """Replace the first issuer of a resource by one in this process."""
        issuer = cls(protected.issuers[0].issuer, protected.identifier, algorithm=algorithm)
        protected.use(issuer.fetch)
        return issuer

    def rotate(self, *, keep: bool = True) -> None:
        """Sign with a new key, and publish it beside the others, or instead of them."""
        self.key = _NEW_KEYS[self.algorithm]()
        public = {**self.key.as_dict(private=False), "kid": self.kid, "alg": self.algorithm, "use": "sig"}
        self.keys = [*(self.keys if keep else ()), public]

    @property
    def kid(self) -> str:
        """The id of its key."""
        return str(self.key.thumbprint())

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of an access token (RFC 9068, 2.2), with these changed; None removes one."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": "ann",
            "client_id": "example-client",
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + 300,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """A JWT access token (RFC 9068), with these claims and members of the header changed; None removes one."""
        whole = {"alg": self.algorithm, "typ": "at+jwt", "kid": self.kid, **(header or {})}
        return signed(
            {name: value for name, value in whole.items() if value is not None},
            self.claims(**changes),
            self.key,
        )

    def opaque_token(self, **changes: Any) -> str:
        """An access token that only introspection can read, with these members of the answer changed."""
        token = "opaque-" + uuid.uuid4().hex
        self._opaque[token] = {"active": True, **self.claims(**changes)}
        return token

    def revoke(self, token: str) -> None:
        """Answer that a token is not active."""
        self._revoked.add(token)

    def fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Its answer to a request, for `ProtectedResource(fetch=...)`. Raises FetchFailed."""
        self.requests.append(url)
        if self.down:
            raise FetchFailed("the local issuer is down")
        path = urlsplit(url).path
        if path.startswith("/.well-known/oauth-authorization-server"):
            return _reply(
                {
                    "issuer": self.issuer,
                    "jwks_uri": f"{self.issuer}/jwks",
                    "introspection_endpoint": f"{self.issuer}/introspect",
                }
            )
        if path.endswith("/jwks"):
            return _reply({"keys": self.keys})
        if path.endswith("/introspect") and method == "POST":
            (token,) = parse_qs((body or b"").decode())["token"]
            return _reply(self._introspected(token))
        return Reply(404, {}, b"")

    def _introspected(self, token: str) -> dict[str, Any]:
        if token in self._revoked:
            return {"active": False}
        if token.count(".") == 2:
            payload = token.split(".")[1]
            return {
                "active": True,
                **json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))),
            }
        return self._opaque.get(token, {"active": False})


class DpopKey:
    """A key of a client, which makes proofs (RFC 9449, 4.2).

    key = DpopKey()
    token = issuer.token(cnf=key.confirmation)
    headers = {"Authorization": f"DPoP {token}", "DPoP": key.proof("GET", "https://api.example/files", token)}
    """

    def __init__(self, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        self.key = _NEW_KEYS[algorithm]()

    @property
    def confirmation(self) -> dict[str, str]:
        """The `cnf` of a token that is bound to it."""
        return {"jkt": self.key.thumbprint()}

    def proof(
        self, method: str, url: str, token: str, *, header: Mapping[str, Any] | None = None, **changes: Any
    ) -> str:
        """A proof for one request, with these claims and members of the header changed; None removes one."""
        claims = {
            "jti": uuid.uuid4().hex,
            "htm": method,
            "htu": url,
            "iat": int(time.time()),
            "ath": encoded(hashlib.sha256(token.encode()).digest()),
            **changes,
        }
        whole = {
            "alg": self.algorithm,
            "typ": "dpop+jwt",
            "jwk": self.key.as_dict(private=False),
            **(header or {}),
        }
        return signed(
            {name: value for name, value in whole.items() if value is not None},
            {name: value for name, value in claims.items() if value is not None},
            self.key,
        )


def _reply(value: Mapping[str, Any]) -> Reply:
    return Reply(200, {"content-type": "application/json"}, json.dumps(value).encode())
