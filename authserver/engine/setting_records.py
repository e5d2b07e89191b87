"""Settings in the store, beside those of the INI, and the marks of declarations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from authserver.engine.records import NOTHING


class DeclaredKind(StrEnum):
    """The kinds of records that can be declared in files (`engine.declarations`)."""

    CLIENT = "clients"
    RESOURCE = "resources"
    INITIAL_TOKEN = "initial_tokens"
    SCOPE = "scopes"
    LIMIT = "limits"
    ISSUER = "issuers"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSetting:
    """A scope, a limit or a trusted issuer that is in the store, beside those of the INI.

    `value` is JSON: of a scope its `sentence` for the consent page, of a limit the columns of its row (`engine.rates`), of
    an issuer the members of its `TrustedIssuer`.
    """

    kind: DeclaredKind
    name: str
    value: Mapping[str, Any]
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """An issuer whose assertions this server accepts (RFC 7523, 3), with its limits; no other entry adds to them.

    Attributes:
        issuer: its `iss`; there is one entry for each.
        profile: the meaning of its assertions (hook `assertion_profiles`).
        is_enabled: whether its assertions are accepted, and the grants that came from earlier ones are valid.
        jwks_uri: the address of its keys; empty: they are `jwks`.
        jwks: its JWK Set (RFC 7517, 5), as text; empty: it is fetched.
        algorithms: the algorithms that may sign its assertions.
        lifetime: seconds from now to the latest `exp` that is accepted.
        skew: seconds by which its clock may differ from ours.
        clients: the clients that may present its assertions; None: each that is registered for the grant type.
        resources: the resources that tokens may be for; None: each that policies allow.
        scopes: the scopes that tokens have at most; None: whatever policies allow.
        default_resource: the resource of a token when neither the assertion nor the request names one; empty: that of
            the server.
        options: further settings of its profile, as JSON.
        setting: the setting of the INI that names it; empty: it is in the store.
    """

    issuer: str
    profile: str
    is_enabled: bool = True
    jwks_uri: str = ""
    jwks: str = field(default="", repr=False)
    algorithms: tuple[str, ...]
    lifetime: int = 300
    skew: int = 30
    clients: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    scopes: tuple[str, ...] | None = None
    default_resource: str = ""
    options: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    setting: str = ""

    @property
    def is_stored(self) -> bool:
        """Whether it is in the store, and not in the INI."""
        return not self.setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A mark of a record that files declare, and that may be removed once they do not.

    `name` is its name in the files. `target` identifies the record: a client id, the canonical form of a resource, the id
    of an initial access token, the name of a scope or limit, an issuer. `of_set` is the name of the set of files.
    `references` are, by member, the places of its secrets and files as the declaration names them; they hold no secret.
    """

    kind: DeclaredKind
    name: str
    target: str
    of_set: str
    references: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    made_at: datetime
