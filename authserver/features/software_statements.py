"""Software statements: metadata of a program, signed by a trusted issuer, with which clients register (RFC 7591, 2.3).

The metadata in a statement replace those that the client sends beside it. The policies and the rules of registration are
the same for both: a statement gives a client nothing that it could not register without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from authserver.api import (
    TRUSTED_ALGORITHMS,
    BadAssertion,
    Client,
    Described,
    Engine,
    InvalidClientMetadata,
    Parameter,
    ReadMember,
    TrustedKeys,
    hookimpl,
    read_jws,
    verify_statement,
)

MEMBER = "software_statement"
# The claims about the statement itself, which are not metadata of the program (RFC 7519, 4.1).
ABOUT_ITSELF = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti", MEMBER})
# A statement has at least one of them. Other JWTs of the same issuer, such as ID tokens and assertions about people, have
# none, although they can have `scope` or `client_id` (RFC 8725, 3.12).
NAMES_PROGRAM = frozenset({"software_id", "client_name", "client_uri", "redirect_uris", "jwks", "jwks_uri"})
NOT_APPROVED = frozenset({"assertion-issuer-not-trusted", "assertion-key-unknown"})


class InvalidSoftwareStatement(InvalidClientMetadata):
    """A software statement is malformed, not signed by its issuer, or not in force (RFC 7591, 3.2.2)."""

    code = "invalid_software_statement"


class UnapprovedSoftwareStatement(InvalidClientMetadata):
    """The issuer or the key of a software statement is not trusted here (RFC 7591, 3.2.2)."""

    code = "unapproved_software_statement"


@dataclass(eq=False)
class SoftwareStatements:
    """Accept software statements of trusted issuers with registrations (RFC 7591, 2.3).

    The keys of the issuers are read at start. A statement is stored as it was sent, and shown with the client.

    Attributes:
        issuers: lines `issuer = path of its JWK Set`, or with the JWK Set itself, in one line.
        algorithms: the accepted signature algorithms, out of ES256, RS256, PS256, EdDSA and Ed25519.
        maximum_age: for how many seconds after its `iat` a statement may be used; 0: until its `exp`, if it has one.
        required: whether a client can register itself only with a statement.
    """

    immediate: ClassVar[bool] = True
    proven_at_registration: ClassVar[Mapping[str, str]] = {MEMBER: "the signature of its issuer"}
    described: ClassVar[Mapping[str, Described]] = {
        "client_metadata": Described(
            members={
                MEMBER: Parameter(
                    description="Metadata of the program, signed by a trusted issuer (RFC 7591, 2.3).",
                    schema={"type": ["string", "null", "array"], "maxItems": 0},
                )
            },
            answer={MEMBER: Parameter(description="The statement as it was sent.")},
            errors=(InvalidSoftwareStatement, UnapprovedSoftwareStatement),
        )
    }
    reasons: ClassVar[Mapping[str, str]] = {
        "software-statement-missing": (
            "authserver.plugin.software_statements.required lets no client register without a statement of one of its "
            "issuers"
        ),
        "invalid_software_statement": "",
        "software-statement-without-program": "",
        "software-statement-malformed": "",
        "unapproved_software_statement": (
            "authserver.plugin.software_statements.issuers lists the trusted issuers of statements and their keys"
        ),
    }

    issuers: tuple[tuple[str, str], ...]
    algorithms: tuple[str, ...] = TRUSTED_ALGORITHMS
    maximum_age: int = 0
    required: bool = False
    _keys: Mapping[str, TrustedKeys] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.issuers:
            raise ValueError("issuers: name at least one, `issuer = path of its JWK Set`")
        if not self.algorithms or not set(self.algorithms) <= set(TRUSTED_ALGORITHMS):
            raise ValueError(f"algorithms: must be some of {' '.join(TRUSTED_ALGORITHMS)}")
        if not 0 <= self.maximum_age <= 10 * 365 * 86400:
            raise ValueError("maximum_age: must be 0 to 315360000 seconds")

    def prepare(self) -> None:
        """Read the keys of the issuers. Raises ValueError."""
        try:
            self._keys = {issuer: TrustedKeys.of(source) for issuer, source in self.issuers}
        except ValueError as error:
            raise ValueError(f"issuers: {error}") from None

    @hookimpl
    def client_metadata(self) -> Mapping[str, ReadMember]:
        return {MEMBER: _read}

    @hookimpl
    def expand_registration(
        self, engine: Engine, sent: Mapping[str, Any], client: Client | None
    ) -> Mapping[str, Any] | None:
        """The metadata in the statement. A statement with which the client registered before may have expired since.

        Raises:
            InvalidSoftwareStatement, UnapprovedSoftwareStatement: the statement is not accepted (RFC 7591, 3.2.2).
            InvalidClientMetadata: a statement is required and missing.
        """
        if MEMBER not in sent:
            if self.required:
                raise InvalidClientMetadata(
                    f"{MEMBER} is required here.", reason="software-statement-missing"
                )
            return None
        try:
            claims = verify_statement(
                engine,
                _read(MEMBER, sent[MEMBER]),
                self._keys.get,
                algorithms=self.algorithms,
                maximum_age=self.maximum_age,
                was_accepted=client is not None and client.details.get(MEMBER) == sent[MEMBER],
            )
        except BadAssertion as bad:
            if bad.reason in NOT_APPROVED:
                raise UnapprovedSoftwareStatement(
                    f"{MEMBER} is of an issuer that is not trusted here.", reason=bad.reason
                ) from None
            raise InvalidSoftwareStatement(f"{MEMBER} is not valid.", reason=bad.reason) from None
        said = {
            name: value
            for name, value in claims.items()
            if name not in ABOUT_ITSELF and value not in ("", [], None)
        }
        if not NAMES_PROGRAM & said.keys():
            raise InvalidSoftwareStatement(
                f"{MEMBER} names no program.", reason="software-statement-without-program"
            )
        return said


def _read(name: str, value: object) -> str:
    """The statement as it was sent: one JWS of limited length. Raises InvalidSoftwareStatement."""
    try:
        if not isinstance(value, str):
            raise ValueError
        read_jws(value)
    except ValueError:
        raise InvalidSoftwareStatement(
            f"{name} is not one compact JWS.", reason="software-statement-malformed"
        ) from None
    return value
