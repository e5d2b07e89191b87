"""Workload identity: a program presents the assertion of its platform, and needs no secret here (RFC 7523, 2.1).

The entry of an issuer has rules (`authserver.features.workload_identity.rules`). Each rule names one workload by exact
claims, the client that it acts as, and its resources and scopes. So a request needs neither client authentication nor
`client_id`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, ClassVar

from authserver.api import (
    AssertionProfile,
    Client,
    Engine,
    Grant,
    InvalidGrant,
    RegisteredBy,
    TrustedIssuer,
    Vouched,
    hookimpl,
)
from authserver.features.workload_identity import rules
from authserver.features.workload_identity.rules import Rule, Rules

PROFILE = "workload_identity"
# The allowed `typ` of a JWT-SVID (SPIFFE JWT-SVID, 2.2); most have `JWT`, or none.
TYPE = "jose"
# The beginning of `sub` in tokens of workloads. No user id, and no client id that this server makes, has a colon.
PREFIX = "workload:"
MAXIMUM_LIFETIME = timedelta(minutes=15)
_REFUSED = "The assertion is not valid."


@dataclass(frozen=True)
class WorkloadIdentity:
    """Let programs present the identity of their platform, such as Kubernetes or GitHub Actions (RFC 7523).

    The issuers are in the database (`authserver issuer add`) or in the INI (authserver.trusted_issuers), with a rule for
    each workload. Its tokens are valid for 15 minutes at most, and not longer than the assertion.
    """

    immediate: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"workload"})
    reasons: ClassVar[Mapping[str, str]] = {
        "workload-unknown": (
            "the assertion meets no rule of the issuer: the event says which claims each rule missed; "
            "`authserver issuer show ISSUER` shows the rules"
        ),
        "workload-ambiguous": "the workload meets several rules: let it send the client_id of the one that it means",
        "workload-client-not-of-operator": "the client of the rule must be one that an operator added: `authserver client add`",
        "workload-rules-refused": "`authserver issuer test ISSUER` says what is wrong with its rules",
        "workload-assertion-ended": "",
    }

    @hookimpl
    def assertion_profiles(self) -> Mapping[str, AssertionProfile]:
        return {
            PROFILE: AssertionProfile(
                typ=TYPE,
                untyped=True,
                accept=accept,
                check=check,
                names_client=names_client,
                audience=lambda issuer: _kept(issuer).audience,
                warnings=warnings,
            )
        }

    @hookimpl
    def token_claims(self, grant: Grant) -> Mapping[str, Any] | None:
        """The workload, with the claims of its assertion that its rule lists."""
        found = grant.details.get("workload")
        return {"workload": found} if found else None


def names_client(issuer: TrustedIssuer, claims: Mapping[str, Any], client_id: str | None) -> str:
    """The client of the one rule that this assertion meets. Raises InvalidGrant."""
    return _met(issuer, claims, client_id).client


def accept(engine: Engine, client: Client, issuer: TrustedIssuer, claims: Mapping[str, Any]) -> Vouched:
    """The workload of this assertion, and its resources and scopes. Raises InvalidGrant."""
    rule = _met(issuer, claims, client.client_id)
    if client.registered_by is not RegisteredBy.OPERATOR:
        raise InvalidGrant(_REFUSED, reason="workload-client-not-of-operator")
    ends = datetime.fromtimestamp(claims["exp"], UTC)
    if ends <= engine.now:  # it has expired, but within the skew of the clocks
        raise InvalidGrant(_REFUSED, reason="workload-assertion-ended")
    copied = rule.copies(claims)
    return Vouched(
        user=None,
        of_client=True,
        scopes=rule.scopes,
        resources=rule.resources,
        expires_at=min(ends, engine.now + MAXIMUM_LIFETIME),
        needs_resource=True,
        details={
            "subject": PREFIX + rule.name,
            "workload": {"name": rule.name, **({"claims": dict(copied)} if copied else {})},
        },
        is_single_use=not _kept(issuer).reusable,
        noted={"workload": rule.name},
    )


def check(issuer: TrustedIssuer) -> None:
    """Raises ValueError for rules that are ambiguous, or exceed their entry."""
    found = rules.read(issuer.options)
    if issuer.default_resource:
        raise ValueError("default_resource: a workload names the resource itself")
    for rule in found.rules:
        for member, named in (
            ("clients", (rule.client,)),
            ("resources", rule.resources),
            ("scopes", rule.scopes),
        ):
            allowed = getattr(issuer, member)
            beyond = [each for each in named if allowed is not None and each not in allowed]
            if beyond:
                raise ValueError(f"rules: {rule.name}: {beyond[0]}: is not among the {member} of the entry")


def warnings(issuer: TrustedIssuer) -> Sequence[str]:
    """Warnings for operators about the rules of an entry, one sentence each."""
    try:
        return _read(json.dumps(dict(issuer.options))).warnings()
    except ValueError as error:
        return [f"none of its assertions is accepted: {error}"]


def _kept(issuer: TrustedIssuer) -> Rules:
    """The rules of a stored entry. Raises InvalidGrant for rules that only an earlier version accepted."""
    try:
        return _read(json.dumps(dict(issuer.options)))
    except ValueError:
        raise InvalidGrant(_REFUSED, reason="workload-rules-refused") from None


@lru_cache(maxsize=1000)
def _read(options: str) -> Rules:
    """The rules of an entry, cached because an entry is seldom changed. Raises ValueError."""
    return rules.read(json.loads(options))


def _met(issuer: TrustedIssuer, claims: Mapping[str, Any], client_id: str | None) -> Rule:
    """The one rule that these claims meet. Raises InvalidGrant, with the missing claims of each rule for operators."""
    found = _kept(issuer)
    met = found.met(claims, client_id)
    if len(met) == 1:
        return met[0]
    refused = InvalidGrant(_REFUSED, reason="workload-ambiguous" if met else "workload-unknown")
    refused.facts = {"rules": "; ".join(_said(found, met or found.rules, claims, client_id))}
    raise refused


def _said(
    found: Rules, about: Sequence[Rule], claims: Mapping[str, Any], client_id: str | None
) -> Sequence[str]:
    """A sentence about each of these rules: the claims that it misses."""
    entry = rules.missed(found.claims, claims)
    said = []
    for rule in about:
        missed = [*entry, *rule.missed(claims)]
        missed += ["client_id"] if client_id not in (None, rule.client) else []
        said.append(f"{rule.name} misses {', '.join(missed)}" if missed else f"{rule.name} is met")
    return said
