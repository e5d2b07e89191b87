"""The JWT bearer grant: a client presents an assertion that a trusted issuer signed about a person (RFC 7523, 2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from authserver.api import (
    RESOURCE_PARAMETER,
    SCOPE_PARAMETER,
    TEXT,
    BadAssertion,
    Client,
    Described,
    Engine,
    InvalidGrant,
    Issue,
    NotLive,
    Parameter,
    Parameters,
    Redeem,
    SingleUse,
    TrustedKeys,
    UnauthorizedClient,
    User,
    derive,
    hookimpl,
    parent_of_assertion,
    requested_scopes,
    single_use,
    verify_assertion,
)

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# The explicit type that draft-ietf-oauth-rfc7523bis gives these assertions.
TYPE = "authorization-grant+jwt"
_REFUSED = "The assertion is not valid."


class Subject(StrEnum):
    """How the `sub` of an assertion is mapped to a user: it is the user name, or a list maps it to one."""

    USERNAME = "username"
    LISTED = "listed"


@dataclass(eq=False)
class JwtBearer:
    """Issue tokens for the person that a trusted issuer's assertion names (RFC 7523).

    The client must authenticate and be registered for the grant type. It gets no refresh token: it presents
    another assertion instead. The keys of the issuers are read at start.

    Attributes:
        issuers: a line each, `issuer = path of its JWK Set`, or the JWK Set itself, in one line.
        subject: whether `sub` is a user name of this server or is looked up in `subjects`.
        subjects: a line each, `issuer sub = user name`; other subjects are then refused.
        assertion_lifetime: how many seconds in the future `exp` may be.
        single_use: whether an assertion must have a `jti` and is accepted only once.
    """

    immediate: ClassVar[bool] = True
    described: ClassVar[Mapping[str, Described]] = {
        GRANT_TYPE: Described(
            members={
                "assertion": Parameter(
                    description="The signed assertion (RFC 7523, 2.1).", schema=TEXT, required=True
                ),
                "scope": SCOPE_PARAMETER,
                "resource": RESOURCE_PARAMETER,
            }
        )
    }
    reasons: ClassVar[Mapping[str, str]] = {"assertion-replayed": ""}

    issuers: tuple[tuple[str, str], ...]
    subject: Subject = Subject.USERNAME
    subjects: tuple[tuple[str, str], ...] = ()
    assertion_lifetime: int = 300
    single_use: bool = True
    _keys: Mapping[str, TrustedKeys] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 10 <= self.assertion_lifetime <= 86400:
            raise ValueError("assertion_lifetime: must be 10 to 86400 seconds")
        if (self.subject is Subject.LISTED) != bool(self.subjects):
            raise ValueError(
                "subjects: set it together with `subject = listed`; neither works without the other"
            )
        for line, _ in self.subjects:
            if line.partition(" ")[0] not in dict(self.issuers):
                raise ValueError(f"subjects: {line}: must begin with one of the issuers")

    def prepare(self) -> None:
        """Read the keys of the issuers. Raises ValueError."""
        try:
            self._keys = {issuer: TrustedKeys.of(source) for issuer, source in self.issuers}
        except ValueError as error:
            raise ValueError(f"issuers: {error}") from None

    @hookimpl
    def grant_types(self) -> Mapping[str, Redeem]:
        return {GRANT_TYPE: self.redeem}

    def redeem(self, engine: Engine, client: Client, parameters: Parameters) -> Issue:
        """An access token without refresh token for the person that the assertion names (JAG-01, JAG-08).

        Raises:
            UnauthorizedClient: the client is public.
            InvalidRequest: `assertion` is missing.
            InvalidGrant: it is not accepted, was used before, or its subject is not an enabled user.
            InvalidScope, InvalidTarget: policies or floor refuse the scopes or resources.
        """
        if client.is_public:
            raise UnauthorizedClient("A public client cannot use this grant type.", reason="public-client")
        text = parameters.require("assertion")
        requested = requested_scopes(parameters)
        try:
            claims = verify_assertion(
                engine, text, self._keys.get, typ=TYPE, lifetime=self.assertion_lifetime
            )
            uses = (self._use(claims),) if self.single_use else ()
            parent = parent_of_assertion(engine, self._user(engine, claims), claims["iss"])
        except (BadAssertion, NotLive) as bad:
            raise InvalidGrant(_REFUSED, reason=bad.reason) from None
        return derive(
            engine,
            client,
            parent,
            grant_type=GRANT_TYPE,
            scopes=requested,
            resources=parameters.all("resource"),
            uses=uses,
        )

    def _use(self, claims: Mapping[str, Any]) -> SingleUse:
        replayed = InvalidGrant(_REFUSED, reason="assertion-replayed")
        return single_use(claims, lifetime=self.assertion_lifetime, refusal=replayed)

    def _user(self, engine: Engine, claims: Mapping[str, Any]) -> User | None:
        name: str | None = claims["sub"]
        if self.subject is Subject.LISTED:
            name = dict(self.subjects).get(f"{claims['iss']} {claims['sub']}")
        return engine.stores.users.find_by_name(name) if name else None
