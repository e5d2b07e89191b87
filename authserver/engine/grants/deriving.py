"""One rule for all grants that come from something else: bind to the client, check that it is live, never widen or extend.

The *parent* of such a grant is a token that this server issued, an assertion that a trusted issuer signed, or a grant
that a person approved. Most faults of other servers with such grants broke this rule in one place (T163 to T168).
Therefore it is implemented once, here, and each grant type says only what its parent is.

- Bind: the grant belongs to the client that authenticated, and only a client that the parent names gets it.
- Live: user, client, issuer and every grant from which the parent was derived are live, and remain so until the grant
  is stored.
- Never widen: scopes and resources of the parent are a ceiling; below it the present policies are asked.
- Never extend: it ends no later than the parent.

A grant that is derived from another depends on it (`Grant.parent_id`): the end of one ends both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from authserver.engine import uris
from authserver.engine.asking import (
    allowed_resources,
    allowed_scopes,
    may_refresh,
    narrower_resources,
    remaining_resources,
    still_registered,
)
from authserver.engine.context import Engine, Issue, SingleUse
from authserver.engine.crypto import digests
from authserver.engine.errors import InvalidGrant, InvalidScope, InvalidTarget, OAuthError
from authserver.engine.records import (
    AUTHENTICATES,
    NOTHING,
    VOUCHED_BY,
    Client,
    FoundToken,
    Grant,
    JoinedIdentity,
    User,
)
from authserver.engine.tokens import ancestry
from authserver.engine.tokens.issued import Issued
from authserver.engine.tokens.issuing import ACTOR, SIGN_IN_CLAIMS

# How a grant says who acts for its subject: `sub` is a client, and `act` the client that acted before it (RFC 8693, 4.1).
Actor = Mapping[str, Any]


class NotLive(Exception):
    """Nothing can be derived from this parent: it has ended, or something from which it was derived has.

    Attributes:
        reason: for operators.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The source of a derived grant; it was live when this value was made.

    Attributes:
        user: the person whose access it is; None for the access of a client itself.
        scopes, resources: the ceiling; None: whatever policies allow the client.
        expires_at: the latest end of a derived grant; None: no limit, because the parent only says who somebody is.
        grant: the grant of a token of this server; None for an assertion.
        ancestors: the grants from which that grant was derived, its parent first.
        actor: who acts for the subject, the present actor outermost; None: the subject or its client itself.
        details: of the new grant: how and when the person signed in, and who vouched for them.
        joins: the identity that joins the user to an issuer, if neither is stored yet.
    """

    user: User | None
    scopes: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    grant: Grant | None = None
    ancestors: tuple[Grant, ...] = ()
    actor: Actor | None = None
    details: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    joins: JoinedIdentity | None = None

    @property
    def chain(self) -> tuple[Grant, ...]:
        """All grants on which a derived grant depends, the nearest first."""
        return (self.grant, *self.ancestors) if self.grant else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """A token that a client presents to get another one for it (RFC 8693, 2.1).

    Attributes:
        parent: the access that it gives.
        name: the name of the token in events; it reveals nothing about its text.
        client_id: the client that got it; None if others issued it.
        audience: the resources that it is for.
        bound: the key that a client must prove to use it, as a `cnf`; empty: none.
        identifies: whether it says who somebody is to the client that got it, and cannot be used elsewhere.
        sole_actor: the only client that may exchange it (RFC 8693, 4.4); None: it does not say.
        uses: things of single use that the exchange uses up.
        noted: further details of the event; nothing secret.
    """

    parent: Parent
    name: str
    client_id: str | None
    audience: tuple[str, ...] = ()
    bound: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    identifies: bool = False
    sole_actor: str | None = None
    uses: tuple[SingleUse, ...] = ()
    noted: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


def of_token(engine: Engine, issued: Issued) -> Parent:
    """The parent, if a token of this server is presented.

    Raises:
        NotLive: the token, its grant, one of the ancestors of that, its user or one of their clients has ended.
    """
    if not issued.is_active(engine.now):
        raise NotLive("subject-token-ended")
    # The ancestors of its grant were checked with it (`Issued.has_ended_ancestor`).
    problem = ancestry.problem_with(engine, [issued.grant])
    if problem:
        raise NotLive(problem)
    return _within_grant(
        issued.grant,
        issued.ancestors,
        user=issued.user,
        scopes=issued.scopes,
        resources=issued.audience,
        expires_at=issued.expires_at,
    )


def of_grant(engine: Engine, grant: Grant, user: User | None, *, expires_at: datetime) -> Parent:
    """The parent, if something else of a grant is presented, such as an ID token: everything that the grant allows.

    Args:
        user: of the grant.
        expires_at: the end of what is presented.

    Raises:
        NotLive: it has ended, or the grant, one of its ancestors, its user or one of their clients has.
    """
    if expires_at <= engine.now:
        raise NotLive("subject-token-ended")
    ancestors = ancestry.ancestors(engine, grant)
    problem = ancestry.why_ended(engine, grant, ancestors) or ancestry.problem_with(engine, [grant])
    if problem:
        raise NotLive(problem)
    if user is None or not user.is_enabled:
        raise NotLive("user-disabled")
    return _within_grant(
        grant, ancestors, user=user, scopes=grant.scopes, resources=grant.resources, expires_at=expires_at
    )


def _within_grant(
    grant: Grant,
    ancestors: tuple[Grant, ...],
    *,
    user: User | None,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    expires_at: datetime,
) -> Parent:
    return Parent(
        user=user,
        scopes=scopes,
        resources=resources,
        expires_at=min(expires_at, *(each.expires_at for each in (grant, *ancestors))),
        grant=grant,
        ancestors=ancestors,
        actor=grant.details.get(ACTOR),
        details={
            name: grant.details[name] for name in (*SIGN_IN_CLAIMS, VOUCHED_BY) if name in grant.details
        },
    )


def of_assertion(
    engine: Engine,
    user: User | None,
    issuer: str,
    *,
    of_client: bool = False,
    joins: JoinedIdentity | None = None,
    scopes: tuple[str, ...] | None = None,
    resources: tuple[str, ...] | None = None,
    expires_at: datetime | None = None,
    details: Mapping[str, Any] = NOTHING,
) -> Parent:
    """The parent, if an assertion of a trusted issuer is presented, whose signature and claims were verified.

    Args:
        user: the person whom it names; None if that person is unknown here.
        issuer: who signed it. `authserver end issuer` ends the grants that were derived from it.
        of_client: whether it says who the client is, and names no person.
        joins: the identity that joins the user to the issuer, if neither is stored yet.
        scopes, resources, expires_at: the limits that the assertion itself sets.
        details: facts about the sign-in, as claims.

    Raises:
        NotLive: the user is unknown or disabled.
    """
    if user is None and not of_client:
        raise NotLive("user-unknown")
    if user is not None and not joins:
        engine.journal.user_id = user.user_id
    if user is not None and not user.is_enabled:
        raise NotLive("user-disabled")
    return Parent(
        user=user,
        joins=joins,
        scopes=scopes,
        resources=resources,
        expires_at=expires_at,
        details={**details, VOUCHED_BY: issuer},
    )


def derive(
    engine: Engine,
    client: Client,
    parent: Parent,
    *,
    grant_type: str,
    scopes: tuple[str, ...] = (),
    resources: Sequence[str] = (),
    actor: Actor | None = None,
    refreshable: bool = False,
    uses: tuple[SingleUse, ...] = (),
    bound: Mapping[str, Any] = NOTHING,
    bound_refusal: type[OAuthError] = InvalidGrant,
    noted: Mapping[str, Any] = NOTHING,
) -> Issue:
    """A new grant for this client, within what its parent allows.

    Args:
        scopes, resources: those that the client asks for; empty: all of the parent.
        actor: who acts for the subject with the new grant; None: nobody.
        refreshable: whether the client may get a refresh token, if it is registered for them.
        uses: things of single use that this uses up.
        bound: the key that the client must prove, as a `cnf`; `bound_refusal` is raised if it does not.
        noted: further details of the event.

    Raises:
        InvalidTarget: a resource that the parent does not have, or that policies refuse.
        InvalidScope: nothing is left of the scopes.
    """
    named = resources or parent.resources or ()
    allowed = allowed_resources(engine, client, named)
    if parent.resources is not None:
        _check_ceiling(allowed, parent.resources)
    scopes_left = _scopes(engine, client, parent, grant_type, scopes, allowed)
    refreshes = refreshable and may_refresh(engine, client, scopes_left)
    grant = Grant(
        grant_id=digests.new_identifier(),
        client_id=client.client_id,
        user_id=parent.user.user_id if parent.user else None,
        scopes=scopes_left,
        resources=allowed,
        created_at=engine.now,
        expires_at=_end(engine, client, parent, allowed, refreshes=refreshes),
        details={
            **parent.details,
            **({ACTOR: dict(actor)} if actor else {}),
            **({AUTHENTICATES: True} if client.may_lose_its_key else {}),
            "grant_type": grant_type,
        },
        parent_id=parent.grant.grant_id if parent.grant else None,
    )
    return Issue(
        grant=grant,
        user=parent.user,
        scopes=scopes_left,
        resources=allowed,
        refreshable=refreshes,
        is_new=True,
        uses=uses,
        bound=bound,
        bound_refusal=bound_refusal,
        derived_from=parent.chain,
        joins=parent.joins,
        noted=noted,
    )


def check_approved(engine: Engine, found: FoundToken, *, refused: str) -> None:
    """Check that a grant that a person approved, and its code, are live (T041).

    Args:
        refused: the description for the client if they are not.

    Raises:
        InvalidGrant: code or grant have ended, or its user.
    """
    token, grant, user = found.token, found.grant, found.user
    if token.expires_at <= engine.now:
        raise InvalidGrant(refused, reason="code-expired")
    if grant.revoked_at is not None:
        raise InvalidGrant(refused, reason="grant-revoked")
    if user is None or not user.is_enabled:
        raise InvalidGrant(refused, reason="user-disabled")


def redeem_approved(
    engine: Engine, client: Client, found: FoundToken, resources: Sequence[str], *, grant_type: str
) -> Issue:
    """The order for a code, whose grant a person approved: no more than that grant, and than the present policies allow.

    The caller has checked that the code is this client's, was not used, and is live (`check_approved`).

    Args:
        resources: those that the token request names, if any.

    Raises:
        InvalidGrant: no resource of the grant exists any more.
        InvalidScope, InvalidTarget: nothing is left, or a resource that was not granted.
    """
    token, grant = found.token, found.grant
    narrowed = narrower_resources(resources, token.resources)
    remaining = remaining_resources(engine, client, found, narrowed, named=bool(resources))
    left = tuple(scope for scope in token.scopes if scope in grant.scopes)
    granted = still_registered(client, left)
    return Issue(
        grant=grant,
        user=found.user,
        scopes=allowed_scopes(engine, client, found.user, grant_type, granted, remaining),
        resources=remaining,
        refreshable=may_refresh(engine, client, left),
        spends=token,
        bound=token.details.get("cnf", NOTHING),
    )


def acted(actor: str, before: Actor | None) -> Actor:
    """The chain of actors with this one outermost (RFC 8693, 4.1)."""
    return {"sub": actor, ACTOR: dict(before)} if before else {"sub": actor}


def actors_of(actor: Actor | None) -> tuple[str, ...]:
    """Who acts and who acted before, the present one first."""
    found: list[str] = []
    while actor:
        found.append(str(actor.get("sub", "")))
        actor = actor.get(ACTOR)
    return tuple(found)


def _check_ceiling(allowed: Sequence[str], ceiling: Sequence[str]) -> None:
    forms = set(map(uris.resource_form, ceiling))
    if any(uris.resource_form(resource) not in forms for resource in allowed):
        raise InvalidTarget("The requested resource was not granted.", reason="resource-beyond-parent")


def _scopes(
    engine: Engine,
    client: Client,
    parent: Parent,
    grant_type: str,
    requested: tuple[str, ...],
    resources: tuple[str, ...],
) -> tuple[str, ...]:
    """The scopes that request, parent and client have in common, and that policies allow."""
    if parent.scopes is None:
        return allowed_scopes(engine, client, parent.user, grant_type, requested, resources)
    common = [scope for scope in requested or parent.scopes if scope in parent.scopes]
    if not common:
        raise InvalidScope("The requested scope was not granted.", reason="scope-beyond-parent")
    granted = still_registered(client, tuple(common))
    return allowed_scopes(engine, client, parent.user, grant_type, granted, resources)


def _end(
    engine: Engine, client: Client, parent: Parent, resources: tuple[str, ...], *, refreshes: bool
) -> datetime:
    _, lifetime = engine.token_form(client, resources)
    if refreshes:
        lifetime = timedelta(seconds=engine.settings.grant_lifetime)
    end = engine.now + lifetime
    return end if parent.expires_at is None else min(end, parent.expires_at)
