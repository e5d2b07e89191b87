"""Assertions with which a trusted issuer names only a person (RFC 7523, 2.1): the simplest profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from authserver.api import (
    TRUSTED_ALGORITHMS,
    AssertionProfile,
    Client,
    Engine,
    TrustedIssuer,
    TrustedKeys,
    User,
    Vouched,
    hookimpl,
    issuer_options,
)

PROFILE = "jwt_bearer"
# The explicit type that draft-ietf-oauth-rfc7523bis gives these assertions.
TYPE = "authorization-grant+jwt"


class Subject(StrEnum):
    """How the `sub` of an assertion is mapped to a user: it is the user name, or a list maps it to one."""

    USERNAME = "username"
    LISTED = "listed"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of an entry with this profile.

    Attributes:
        subject: whether `sub` is a user name of this server or is looked up in `subjects`.
        subjects: the user name of each `sub`; others are then refused.
        single_use: whether an assertion must have a `jti` and is accepted only once.
        exchanged: whether clients may exchange its assertions, too (RFC 8693).
    """

    subject: Subject = Subject.USERNAME
    subjects: Mapping[str, str] = field(default_factory=dict)
    single_use: bool = True
    exchanged: bool = False


@dataclass(eq=False)
class JwtBearer:
    """Issue tokens for the person that a trusted issuer's assertion names (RFC 7523).

    The client must authenticate and be registered for the grant type. It gets no refresh token: it presents
    another assertion instead. Issuers are in the database (`authserver issuer add`), or in the INI; the keys of issuers in
    the INI are read at start.

    Attributes:
        issuers: lines `issuer = path of its JWK Set`, or with the JWK Set itself, in one line.
        subject: whether `sub` is a user name of this server or is looked up in `subjects`.
        subjects: lines `issuer sub = user name`; other subjects are then refused.
        assertion_lifetime: how many seconds in the future `exp` may be.
        single_use: whether an assertion must have a `jti` and is accepted only once.
        exchanged: whether clients may exchange these assertions, too (RFC 8693), if a plugin offers that.
    """

    immediate: ClassVar[bool] = True

    issuers: tuple[tuple[str, str], ...] = ()
    subject: Subject = Subject.USERNAME
    subjects: tuple[tuple[str, str], ...] = ()
    assertion_lifetime: int = 300
    single_use: bool = True
    exchanged: bool = False
    _listed: Mapping[str, TrustedIssuer] = field(init=False, repr=False)

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
        """Read the keys of the issuers of the INI. Raises ValueError."""
        try:
            self._listed = {issuer: self._entry(issuer, source) for issuer, source in self.issuers}
        except ValueError as error:
            raise ValueError(f"issuers: {error}") from None

    @hookimpl
    def assertion_profiles(self) -> Mapping[str, AssertionProfile]:
        profile = AssertionProfile(
            typ=TYPE,
            untyped=True,
            accept=accept,
            check=check,
            warnings=warnings,
            exchanges=lambda issuer: issuer_options(issuer, Options).exchanged,
            listed=self._listed,
        )
        return {PROFILE: profile}

    def _entry(self, issuer: str, source: str) -> TrustedIssuer:
        """An issuer of the INI, as an entry of its own. Raises ValueError."""
        TrustedKeys.of(source)
        subjects = {
            line.partition(" ")[2]: username
            for line, username in self.subjects
            if line.partition(" ")[0] == issuer
        }
        return TrustedIssuer(
            issuer=issuer,
            profile=PROFILE,
            jwks=source if source.startswith("{") else Path(source).read_text("utf-8"),
            algorithms=TRUSTED_ALGORITHMS,
            lifetime=self.assertion_lifetime,
            options={
                "subject": self.subject,
                "subjects": subjects,
                "single_use": self.single_use,
                "exchanged": self.exchanged,
            },
            setting=f"authserver.plugin.{PROFILE}.issuers",
        )


def accept(engine: Engine, client: Client, issuer: TrustedIssuer, claims: Mapping[str, Any]) -> Vouched:
    """The person whom this assertion names."""
    options = issuer_options(issuer, Options)
    return Vouched(user=_user(engine, options, claims["sub"]), is_single_use=options.single_use)


def check(issuer: TrustedIssuer) -> None:
    """Raises ValueError for an entry that this profile cannot work with."""
    options = issuer_options(issuer, Options)
    if (options.subject is Subject.LISTED) != bool(options.subjects):
        raise ValueError("subjects: set it together with subject=listed; neither works without the other")


def warnings(issuer: TrustedIssuer) -> Sequence[str]:
    """What operators should know about an entry; each is a sentence."""
    try:
        options = issuer_options(issuer, Options)
    except ValueError as error:
        return [f"none of its assertions is accepted: {error}"]
    found = []
    if options.subject is Subject.USERNAME:
        found.append("subject: it can name every user of this server; list those that it knows in subjects")
    if not options.single_use:
        found.append("single_use: whoever gets hold of an assertion can present it again until it ends")
    return found


def _user(engine: Engine, options: Options, subject: str) -> User | None:
    listed = options.subject is Subject.LISTED
    name = options.subjects.get(subject) if listed else subject
    return engine.stores.users.find_by_name(name) if name else None
