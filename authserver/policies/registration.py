"""Who may register a client: `registration_decision` (RFC 7591)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar
from urllib.parse import urlsplit

from authserver.api import (
    INITIAL_ACCESS_TOKEN_REQUIRED,
    REGISTRATION_POLICY_UNKNOWN,
    Client,
    ClientMetadata,
    Decision,
    InitialAccessToken,
    Secret,
    allow,
    deny,
    did_you_mean,
    equal,
    hookimpl,
)

PRESENTED = "initial-access-token"
# The parts that a line of a policy may have, each with one or more values.
_PARTS = ("scopes", "grant_types", "auth_methods", "redirect_hosts", "clients")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationPolicy:
    """What the holders of some initial access tokens may register.

    Attributes:
        scopes, grant_types: the most that a client may have.
        auth_methods: the authentication methods from which a client may choose; empty for any.
        redirect_hosts: the hosts of its redirect URIs; empty for any. `*.example.com` is each host below that domain, and a
            name with a colon at the end is a private-use scheme.
        clients: how many enabled clients there may be; None for any number.
    """

    scopes: tuple[str, ...]
    grant_types: tuple[str, ...]
    auth_methods: tuple[str, ...] = ()
    redirect_hosts: tuple[str, ...] = ()
    clients: int | None = None

    def decide(self, metadata: ClientMetadata, others: int | None) -> Decision[ClientMetadata]:
        """Decide about a client: a new one if the policy has `others` enabled clients, or None for a registered one."""
        if others is not None and self.clients is not None and others >= self.clients:
            return deny("registration-policy-full")
        if self.auth_methods and metadata.token_endpoint_auth_method not in self.auth_methods:
            return deny("auth-method-not-open")
        if self.redirect_hosts and metadata.redirect_uris:
            uris = tuple(uri for uri in metadata.redirect_uris if self._leads_to_them(uri))
            if not uris:
                return deny("redirect-host-not-open")
            metadata = replace(metadata, redirect_uris=uris)
        return _confined(PRESENTED, metadata, self.scopes, self.grant_types)

    def _leads_to_them(self, uri: str) -> bool:
        try:
            parts = urlsplit(uri)
            host = parts.hostname
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):
            return f"{parts.scheme}:" in self.redirect_hosts
        if not host:
            return False
        above = (f"*.{name}" for name in _domains_above(host))
        return host in self.redirect_hosts or any(name in self.redirect_hosts for name in above)


def _domains_above(host: str) -> Sequence[str]:
    """`b.c` and `c` of `a.b.c`."""
    labels = host.split(".")
    return [".".join(labels[start:]) for start in range(1, len(labels))]


@dataclass(frozen=True)
class RegistrationToken:
    """Let clients with an initial access token of the operator register, limited like `RegistrationOpen`.

    A client that registered with a token may change its registration within the same limits, without the token.

    Attributes:
        tokens: initial access tokens, each with at least 32 random characters; `authserver initial-token add` makes others,
            which expire, and which belong to one of the policies.
        scopes: all scopes that such a client may have, unless its policy says otherwise.
        grant_types: all grant types that such a client may use, unless its policy says otherwise.
        policies: lines `name = part value value, part value`; the parts are `scopes`, `grant_types`, `auth_methods`,
            `redirect_hosts`, and `clients` for the number of clients that there may be.
    """

    reasons: ClassVar[frozenset[str]] = frozenset(
        {
            PRESENTED,
            INITIAL_ACCESS_TOKEN_REQUIRED,
            REGISTRATION_POLICY_UNKNOWN,
            "registration-policy-full",
            "auth-method-not-open",
            "redirect-host-not-open",
            "grant-type-not-open",
            "scope-not-open",
        }
    )
    immediate: ClassVar[bool] = True

    tokens: tuple[Secret, ...] = field(default=(), repr=False)
    scopes: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = ("authorization_code", "refresh_token")
    policies: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if any(len(token.value) < 32 for token in self.tokens):
            raise ValueError("tokens: a token must have at least 32 random characters")
        assert self._policies is not None  # this reads all policies

    def registration_policies(self) -> Sequence[str]:
        """The names of the policies, for `authserver initial-token`."""
        return list(self._policies)

    @hookimpl
    def registration_decision(
        self,
        metadata: ClientMetadata,
        bearer: Secret | None,
        token: InitialAccessToken | None,
        client: Client | None = None,
    ) -> Decision[ClientMetadata] | None:
        if token is not None:
            return self._by_policy(token.policy, metadata, token.clients)
        if client is not None and client.registration_policy is not None:
            return self._by_policy(client.registration_policy, metadata, None)
        if bearer is not None and any([equal(known.value, bearer.value) for known in self.tokens]):
            return _confined(PRESENTED, metadata, self.scopes, self.grant_types)
        if client is not None and PRESENTED in client.registration_reasons:
            return _confined(PRESENTED, metadata, self.scopes, self.grant_types)
        return deny(INITIAL_ACCESS_TOKEN_REQUIRED)

    def _by_policy(self, name: str, metadata: ClientMetadata, others: int | None) -> Decision[ClientMetadata]:
        policy = self._policies.get(name)
        return policy.decide(metadata, others) if policy else deny(REGISTRATION_POLICY_UNKNOWN)

    @cached_property
    def _policies(self) -> Mapping[str, RegistrationPolicy]:
        """The policies by name. Raises ValueError."""
        return {name: self._policy(name, text) for name, text in self.policies}

    def _policy(self, name: str, text: str) -> RegistrationPolicy:
        parts: dict[str, tuple[str, ...]] = {}
        for item in text.split(","):
            part, *values = item.split() or [""]
            if part not in _PARTS:
                raise ValueError(
                    f"policies: {name}: {part or 'nothing'}: no such part; {did_you_mean(part, _PARTS, '')}"
                )
            if part in parts:
                raise ValueError(f"policies: {name}: {part} is there twice; name all its values after one")
            if not values:
                raise ValueError(f"policies: {name}: {part} has no value; expected `{part} value value`")
            parts[part] = tuple(values)
        clients = parts.pop("clients", None)
        if clients is not None and not (
            len(clients) == 1 and clients[0].isascii() and clients[0].isdecimal()
        ):
            raise ValueError(f"policies: {name}: clients: expected one number")
        return RegistrationPolicy(
            scopes=parts.get("scopes", self.scopes),
            grant_types=parts.get("grant_types", self.grant_types),
            auth_methods=parts.get("auth_methods", ()),
            redirect_hosts=tuple(host.lower().strip("[]") for host in parts.get("redirect_hosts", ())),
            clients=int(clients[0]) if clients else None,
        )


@dataclass(frozen=True)
class RegistrationOpen:
    """Let every client register, limited to these scopes and grant types.

    Other scopes and grant types that a client asks for are left out. A client that asks for none of these scopes gets
    all of them, and one that asks for none of these grant types is refused.
    """

    reasons: ClassVar[frozenset[str]] = frozenset(
        {"open-registration", "grant-type-not-open", "scope-not-open"}
    )
    immediate: ClassVar[bool] = True

    scopes: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = ("authorization_code", "refresh_token")

    @hookimpl
    def registration_decision(self, metadata: ClientMetadata) -> Decision[ClientMetadata] | None:
        return _confined("open-registration", metadata, self.scopes, self.grant_types)


def _confined(
    reason: str, metadata: ClientMetadata, most_scopes: tuple[str, ...], grant_types: tuple[str, ...]
) -> Decision[ClientMetadata]:
    """The metadata within these limits; a client that could do nothing with the rest is refused."""
    given = tuple(grant_type for grant_type in metadata.grant_types if grant_type in grant_types)
    if not given:
        return deny("grant-type-not-open")
    if not most_scopes:
        return deny("scope-not-open")
    scopes = tuple(scope for scope in metadata.scopes if scope in most_scopes) or most_scopes
    return allow(reason, replace(metadata, scopes=scopes, grant_types=given))
