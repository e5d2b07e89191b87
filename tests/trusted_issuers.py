"""Issuers of assertions outside this server: `Issuer` has a key, is trusted by an entry, and signs.

idp = Issuer()
idp.trust(rules, profile="jwt_bearer")
answer = idp.present(rules, client, secret, idp.assertion(sub="ann"))
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import Any

from authserver.engine import issuer_registry, issuers
from authserver.engine.ending import Act, Subject, end
from authserver.engine.records import Client
from authserver.engine.setting_records import TrustedIssuer
from authserver.engine.tokens.assertions import TRUSTED_ALGORITHMS
from authserver.testing.service import ISSUER, Answered, Service
from tests.client_keys import ABSENT, Key, without_absent

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
IDP = "https://idp.example"


class Issuer:
    """An issuer.

    Args:
        name: what it calls itself in `iss`.
        key: that it signs with.
        typ: what the header of its assertions says; ABSENT for nothing.
        claims: that its assertions have besides those of every assertion.
    """

    def __init__(
        self, name: str = IDP, *, key: Key | None = None, typ: object = "JWT", claims: Any = None
    ) -> None:
        self.name, self.key, self.typ = name, key or Key(), typ
        self.extra = dict(claims or {})

    def entry(self, profile: str = "jwt_bearer", **members: Any) -> TrustedIssuer:
        """What an operator could say of it, with these members changed."""
        values: dict[str, Any] = {
            "issuer": self.name,
            "profile": profile,
            "algorithms": TRUSTED_ALGORITHMS,
            "jwks": "" if members.get("jwks_uri") else json.dumps(self.key.jwks()),
        }
        return TrustedIssuer(**values | members)

    def trust(self, service: Service[Any], profile: str = "jwt_bearer", **members: Any) -> TrustedIssuer:
        """Let the server trust it."""
        entry = self.entry(profile, **members)
        with service.begin() as engine:
            issuers.add(engine, entry)
        return entry

    def edit(self, service: Service[Any], **members: Any) -> None:
        """Change what the server knows of it."""
        with service.begin() as engine:
            before = issuer_registry.find(engine, self.name)
            assert before is not None
            issuers.change(engine, before, replace(before, **members))

    def disable(self, service: Service[Any], *, at_once: bool = False) -> None:
        """Disable it; with `at_once` the work is interrupted before anything has ended that came of it."""
        work = end(service.begin, Act(subject=Subject.issuer(self.name), for_good=True))
        for _ in work:
            if at_once:
                break
        work.close()

    def enable(self, service: Service[Any]) -> None:
        """Let it in again."""
        with service.begin() as engine:
            before = issuer_registry.find(engine, self.name)
            assert before is not None
            issuers.enable(engine, before)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a right assertion about ann, with these changed; ABSENT leaves one out."""
        now = int(time.time())
        right = {
            "iss": self.name,
            "sub": "ann",
            "aud": ISSUER,
            "exp": now + 120,
            "iat": now,
            "jti": os.urandom(12).hex(),
        }
        return without_absent(right | self.extra | changes)

    def assertion(self, *, header: Any = None, key: Key | None = None, **changes: Any) -> str:
        """A right assertion with these claims changed, signed with its key or another."""
        key = key or self.key
        return key.signed(key.header(**{"typ": self.typ, **(header or {})}), self.claims(**changes))

    @staticmethod
    def present(
        service: Service[Answered], client: tuple[Client, str | None], assertion: object, **form: Any
    ) -> Answered:
        """Present an assertion as this client."""
        sent = without_absent({"grant_type": GRANT_TYPE, "assertion": assertion, **form})
        return service.token(*client, **sent)


__all__ = ["ABSENT", "GRANT_TYPE", "IDP", "ISSUER", "Issuer"]
