"""The issuing side of identity assertion grants (ID-JAG): issues assertions for other servers, by token exchange.

The people of a company sign in here, and their agents work at other servers. In place of a consent page there, this server
signs what an agent may do at the other server for a person (draft-ietf-oauth-identity-assertion-authz-grant, 4.3; MCP,
enterprise-managed authorization). The client shows its ID token or refresh token of this server, and gets a JWT that the
other server accepts once.

Nothing is issued unless a rule allows it for this client, this other server and the groups of the person. The assertions
for one other server have one grant, which is derived from the grant of the sign-in: people and operators can see it. When
the access of the client ends, the derived grant ends too, and no more assertions are issued.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from authserver.api import (
    Client,
    Described,
    Engine,
    ExchangeableToken,
    Grant,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    Issue,
    OAuthError,
    OtherToken,
    Parameters,
    Presented,
    Secret,
    User,
    canonical_resource,
    hookimpl,
    new_identifier,
    requested_scopes,
    scope_set,
)

TYPE = "oauth-id-jag+jwt"
TOKEN_TYPE = "urn:ietf:params:oauth:token-type:id-jag"
MAXIMUM_LIFETIME = 300
MINIMUM_SALT = 32
SIGN_IN = ("auth_time", "acr", "amr")
# The words of a rule: those that may be there once, those that may be repeated, and those without a value.
_ONCE, _SEVERAL, _FLAGS = (
    ("client_id", "issuer", "tenant", "maximum_age"),
    ("scope", "resource", "group", "level"),
    ("email", "own_ids"),
)


class InsufficientUserAuthentication(OAuthError):
    """The person must sign in here again; the error says how recently, or with which level (RFC 9470, 3)."""

    code = "insufficient_user_authentication"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a client may get for another server.

    Attributes:
        issuer: the issuer identifier of the other server, which is the `aud` of the assertion.
        client_id: the id of the client at the other server.
        scopes, resources: the scopes and resources of the other server that an assertion may have.
        groups: the groups whose members it is for; empty for everybody.
        tenant: the tenant that the assertion names; empty for none.
        maximum_age: how many seconds ago the person may have signed in; 0 for any.
        levels: the accepted levels of the sign-in; empty for any.
        email: whether the assertion has the mail address of the person, if that was verified.
        own_ids: whether the person gets an id that only the other server knows.
    """

    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    resources: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    tenant: str = ""
    maximum_age: int = 0
    levels: tuple[str, ...] = ()
    email: bool = False
    own_ids: bool = False

    @classmethod
    def read(cls, audience: str, text: str) -> Rule:
        """Read a rule from the text of a line of the INI, after its name. Raises ValueError."""
        once: dict[str, str] = {}
        several: dict[str, list[str]] = {name: [] for name in _SEVERAL}
        flags = set()
        for word in text.split():
            name, _, value = word.partition("=")
            if name in _FLAGS and word == name:
                flags.add(name)
            elif name in _SEVERAL and value:
                several[name].append(value)
            elif name in _ONCE and value and name not in once:
                once[name] = value
            else:
                raise ValueError(
                    f"{word}: must be one of {' '.join(f'{each}=' for each in (*_ONCE, *_SEVERAL))} {' '.join(_FLAGS)}"
                )
        if "client_id" not in once or not several["scope"]:
            raise ValueError(
                "it needs client_id=, the id of the client at the other server, and at least one scope="
            )
        for uri in several["resource"]:
            try:
                canonical_resource(uri)
            except InvalidTarget:
                raise ValueError(f"resource={uri}: must be an absolute URI without a fragment") from None
        age = once.get("maximum_age", "0")
        if not age.isdecimal() or len(age) > 9:
            raise ValueError(f"maximum_age={age}: must be a number of seconds")
        return cls(
            issuer=once.get("issuer", audience),
            client_id=once["client_id"],
            scopes=_scopes_of(several["scope"]),
            resources=tuple(dict.fromkeys(several["resource"])),
            groups=tuple(several["group"]),
            tenant=once.get("tenant", ""),
            maximum_age=int(age),
            levels=tuple(several["level"]),
            email="email" in flags,
            own_ids="own_ids" in flags,
        )


@dataclass(frozen=True)
class IdJagIssuer:
    """Issue assertions for other servers to clients, by token exchange (ID-JAG).

    A client must be confidential and registered for the grant type of token exchange, whose plugin is needed, too.

    Attributes:
        rules: lines `client audience = client_id=… scope=… …`: what a client may get for the server with that name.
        lifetime: seconds for which an assertion is valid, 30 to 300.
        salt: a secret from which the ids of people for `own_ids` are made; at least 32 characters. Never change it, because
            the ids would change, too.
    """

    immediate: ClassVar[bool] = True
    described: ClassVar[Mapping[str, Described]] = {
        "exchangeable_tokens": Described(errors=(InsufficientUserAuthentication,))
    }
    reasons: ClassVar[Mapping[str, str]] = {
        "audience-not-one": "",
        "audience-without-rule": "authserver.plugin.id_jag_issuer.rules says which client gets assertions for which server",
        "audience-is-ours": "an assertion must be for another server: remove the line from authserver.plugin.id_jag_issuer.rules",
        "identity-missing": "the client must show its ID token or its refresh token",
        "user-not-in-group": "`group=` in authserver.plugin.id_jag_issuer.rules names the groups whose members get assertions",
        "details-not-issued": "",
        "resource-without-rule": "`resource=` in authserver.plugin.id_jag_issuer.rules lists the allowed resources",
        "scope-without-rule": "`scope=` in authserver.plugin.id_jag_issuer.rules lists the allowed scopes",
        "signed-in-too-long-ago": "",
        "signed-in-too-weakly": "",
    }

    rules: tuple[tuple[str, str], ...] = ()
    lifetime: int = MAXIMUM_LIFETIME
    salt: Secret | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 30 <= self.lifetime <= MAXIMUM_LIFETIME:
            raise ValueError(f"lifetime: must be 30 to {MAXIMUM_LIFETIME} seconds")
        if self.salt is not None and len(self.salt.value) < MINIMUM_SALT:
            raise ValueError(f"salt: must have at least {MINIMUM_SALT} characters")
        if any(rule.own_ids for rule in self._rules.values()) and self.salt is None:
            raise ValueError("salt: is needed for own_ids in a rule")

    @cached_property
    def _rules(self) -> Mapping[tuple[str, str], Rule]:
        """The rules by client and audience. Raises ValueError."""
        found = {}
        for name, text in self.rules:
            words = name.split()
            if len(words) != 2:
                raise ValueError(f"rules: {name}: must begin with a client and an audience")
            try:
                found[words[0], words[1]] = Rule.read(words[1], text)
            except ValueError as error:
                raise ValueError(f"rules: {name}: {error}") from None
        return found

    @hookimpl
    def exchangeable_tokens(self) -> Mapping[str, ExchangeableToken]:
        return {TOKEN_TYPE: ExchangeableToken(make=self.make)}

    @hookimpl
    def server_metadata(self) -> Mapping[str, Any]:
        return {"identity_chaining_requested_token_types_supported": [TOKEN_TYPE]}

    def make(self, engine: Engine, client: Client, parameters: Parameters, subject: Presented) -> Issue:
        """Issue an assertion for the server that the client names.

        Raises:
            InvalidRequest: there is not exactly one audience, or the token does not say who signed in to this client.
            InvalidTarget: no rule allows this client the audience, the person or a resource.
            InvalidScope: the rule has none of the scopes.
            InsufficientUserAuthentication: the person must sign in again.
        """
        rule = self._rule_of(engine, client, parameters)
        parent, user = subject.parent, subject.parent.user
        if not subject.identifies or parent.grant is None or parent.actor or user is None:
            raise InvalidRequest(
                "Show an ID token or a refresh token of this client.", reason="identity-missing"
            )
        if rule.groups and not set(rule.groups) & set(user.groups):
            raise InvalidTarget(_NO_RULE, reason="user-not-in-group")
        _check_sign_in(engine, rule, parent.details)
        resources = _resources(rule, parameters)
        asked = requested_scopes(parameters)
        scopes = tuple(scope for scope in asked or rule.scopes if scope in rule.scopes)
        if not scopes:
            raise InvalidScope("The requested scope is not allowed.", reason="scope-without-rule")
        grant, is_new = self._grant(engine, client, rule, parent.grant, parent.details)
        ends = parent.expires_at or grant.expires_at
        left = int((ends - engine.now).total_seconds())
        return Issue(
            grant=grant,
            user=user,
            scopes=scopes,
            resources=(rule.issuer,),
            is_new=is_new,
            derived_from=parent.chain,
            other=OtherToken(
                typ=TYPE,
                claims=self._claims(rule, user, parent.details, resources, scopes),
                lifetime=min(self.lifetime, left),
            ),
            noted={
                "audience": rule.issuer,
                "audience_client": rule.client_id,
                "audience_resources": list(resources),
            },
        )

    def _rule_of(self, engine: Engine, client: Client, parameters: Parameters) -> Rule:
        """The rule for what the client asks for (JAG-22, JAG-25, JAG-32). Raises InvalidRequest, InvalidTarget."""
        audiences = parameters.all("audience")
        if len(audiences) != 1:
            raise InvalidRequest("Name one audience.", reason="audience-not-one")
        if parameters.get("authorization_details") is not None:
            raise InvalidRequest("authorization_details are not supported.", reason="details-not-issued")
        rule = self._rules.get((client.client_id, audiences[0]))
        if rule is None:
            raise InvalidTarget(_NO_RULE, reason="audience-without-rule")
        if rule.issuer == engine.settings.issuer:
            raise InvalidTarget(_NO_RULE, reason="audience-is-ours")
        return rule

    def _grant(
        self, engine: Engine, client: Client, rule: Rule, parent: Grant, details: Mapping[str, Any]
    ) -> tuple[Grant, bool]:
        """The grant for the other server, which is derived from the grant of the sign-in; and whether it is new."""
        for grant in engine.stores.grants.derived([parent.grant_id], engine.now):
            is_same = grant.parent_id == parent.grant_id and grant.client_id == client.client_id
            if (
                is_same
                and grant.details.get("exchanged_for") == TOKEN_TYPE
                and grant.resources == (rule.issuer,)
            ):
                # The rule may have changed since the grant was made.
                return replace(grant, scopes=rule.scopes), False
        new = Grant(
            grant_id=new_identifier(),
            client_id=client.client_id,
            user_id=parent.user_id,
            scopes=rule.scopes,
            resources=(rule.issuer,),
            created_at=engine.now,
            expires_at=parent.expires_at,
            details=details,
            parent_id=parent.grant_id,
        )
        return new, True

    def _claims(
        self,
        rule: Rule,
        user: User,
        details: Mapping[str, Any],
        resources: tuple[str, ...],
        scopes: tuple[str, ...],
    ) -> Mapping[str, Any]:
        """The claims of the assertion, without those about its issuer and its times (JAG-28, JAG-30)."""
        claims: dict[str, Any] = {
            "sub": self._subject(rule, user),
            "aud": rule.issuer,
            "client_id": rule.client_id,
            "scope": " ".join(scopes),
            **{name: details[name] for name in SIGN_IN if details.get(name) not in (None, [])},
        }
        if resources:
            claims["resource"] = resources[0] if len(resources) == 1 else list(resources)
        if rule.tenant:
            claims["tenant"] = rule.tenant
        if rule.email and (address := _proven_address(user)):
            claims["email"] = address
        return claims

    def _subject(self, rule: Rule, user: User) -> str:
        if not rule.own_ids or self.salt is None:
            return user.user_id
        text = f"{rule.issuer}\0{user.user_id}".encode()
        made = hmac.new(self.salt.value.encode(), text, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


_NO_RULE = "The requested audience is not allowed."


def _proven_address(user: User) -> str:
    """The mail address of a person; "" if it was not verified, because the other server may identify people by it."""
    address = next(iter(user.attributes.get("email", ())), "")
    return address if address in user.attributes.get("email_verified", ()) else ""


def _check_sign_in(engine: Engine, rule: Rule, details: Mapping[str, Any]) -> None:
    """Check that the person signed in as the rule demands (JAG-29). Raises InsufficientUserAuthentication."""
    at = details.get("auth_time")
    if rule.maximum_age and (at is None or at < engine.now.timestamp() - rule.maximum_age):
        raise _too_weak(reason="signed-in-too-long-ago", max_age=rule.maximum_age)
    if rule.levels and details.get("acr") not in rule.levels:
        raise _too_weak(reason="signed-in-too-weakly", acr_values=" ".join(rule.levels))


def _too_weak(*, reason: str, **members: str | int) -> InsufficientUserAuthentication:
    refused = InsufficientUserAuthentication("The person must sign in again.", reason=reason)
    refused.members = members
    return refused


def _resources(rule: Rule, parameters: Parameters) -> tuple[str, ...]:
    """The resources of the other server: the requested ones, or all resources of the rule. Raises InvalidTarget."""
    asked = tuple(dict.fromkeys(parameters.all("resource")))
    if any(uri not in rule.resources for uri in asked):
        raise InvalidTarget("The requested resource is not allowed.", reason="resource-without-rule")
    return asked or rule.resources


def _scopes_of(names: list[str]) -> tuple[str, ...]:
    try:
        return scope_set(" ".join(names))
    except InvalidScope as error:
        raise ValueError(f"scope=: {error.description}") from None
