"""The JWT bearer grant (RFC 7523, 2.1): a client presents an assertion of a trusted issuer about a person or a program.

An assertion may also be exchanged (RFC 8693), if the entry of its issuer says so.

This module has the rules for all assertions: the entry of the issuer is found by `iss`, and its limits on keys,
algorithms, times, clients, scopes and resources are enforced. The profile, which a plugin adds (`AssertionProfile`),
gives an assertion its meaning. The grant is derived like every other one (`engine.grants.deriving`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from authserver.engine import issuer_registry, uris
from authserver.engine.asking import requested_scopes
from authserver.engine.clients.authentication import authenticates
from authserver.engine.context import AssertionProfile, Engine, Issue, Redeem, SingleUse, Vouched
from authserver.engine.crypto.jose import Jws, read_jws
from authserver.engine.documents import FetchFailed
from authserver.engine.errors import (
    InvalidClient,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    OAuthError,
    TemporarilyUnavailable,
    UnauthorizedClient,
)
from authserver.engine.grants.deriving import NotLive, Presented, derive, of_assertion
from authserver.engine.parameters import Parameters, scope_set
from authserver.engine.records import Client
from authserver.engine.setting_records import TrustedIssuer
from authserver.engine.tokens.ancestry import ISSUER_DISABLED
from authserver.engine.tokens.assertions import BadAssertion, TrustedKeys, single_use, verify_assertion
from authserver.engine.tokens.issuer_keys import keys_of

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_REFUSED = "The assertion is not valid."
# The reasons after which a newer key set may help: it may have the key, or another key with the same name.
_KEY_MAY_BE_NEW = frozenset({"assertion-key-unknown", "assertion-signature"})
# Seconds after which a client may try again if keys cannot be fetched now, unless the failure names another time.
_WAIT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """An assertion of a trusted issuer that is for us and in force.

    Attributes:
        issuer: its entry.
        profile: that of the entry.
        claims: its claims.
    """

    issuer: TrustedIssuer
    profile: AssertionProfile
    claims: Mapping[str, Any]


def redeem(engine: Engine, client: Client, parameters: Parameters) -> Issue:
    """An access token without refresh token, for the subject of the assertion (JAG-01, JAG-08).

    Raises:
        UnauthorizedClient: the client is public, and the issuer does not let it in.
        InvalidRequest: `assertion` is missing.
        InvalidGrant: it is not accepted, was used before, or its subject is not an enabled user.
        InvalidScope, InvalidTarget: the entry, policies or floor refuse the scopes or resources.
        TemporarilyUnavailable: the keys of the issuer cannot be fetched now.
    """
    text = parameters.require("assertion")
    facts: dict[str, str] = {}
    with _telling(facts):
        return _order(engine, client, parameters, verify(engine, client, text, facts), facts)


def named_client(engine: Engine, parameters: Parameters) -> tuple[Client, Redeem] | None:
    """The client that the assertion of this request names, and the function that redeems it; None: clients authenticate.

    Only if the request authenticates no client, and the profile of its issuer names one
    (`AssertionProfile.names_client`). A request without a `client_id` does not learn which issuers are trusted.

    Raises:
        InvalidGrant: the assertion is not accepted.
        InvalidClient: the client is disabled.
        TemporarilyUnavailable: the keys of the issuer cannot be fetched now.
    """
    text, client_id = parameters.get("assertion"), parameters.get("client_id")
    naming = any(profile.names_client for profile in engine.assertion_profiles.values())
    if text is None or not naming or authenticates(engine.caller.authorization, parameters):
        return None
    facts: dict[str, str] = {}
    with _telling(facts):
        try:
            jws = _taken_apart(text)
            issuer, profile = named_issuer(engine, jws)
        except BadAssertion:
            if client_id is not None:
                return None
            raise
        if profile.names_client is None:
            return None
        claims = _claims_of(engine, issuer, profile, jws, facts)
        client = engine.find_kept_client(profile.names_client(issuer, claims, client_id))
        if client is None:
            raise BadAssertion("issuer-client-unknown")
        engine.journal.client_id = client.client_id
        if not client.is_enabled:
            raise InvalidClient("The client is disabled.", reason="client-disabled")
        _check_client(issuer, client)
    verified = Verified(issuer=issuer, profile=profile, claims=claims)

    def redeem_named(engine: Engine, client: Client, parameters: Parameters) -> Issue:
        with _telling(facts):
            return _order(engine, client, parameters, verified, facts)

    return client, redeem_named


def present(engine: Engine, client: Client, text: str) -> Presented:
    """An assertion that a client wants to exchange; the entry of its issuer must say that it may be (RFC 8693, 2.1).

    The entry sets the ceiling, and so do the claims `scope` and `exp`. A JWT may name the only client that may exchange
    it (`may_act`), and the key that this client must prove (`cnf`). A JWT that says who acts (`act`) is refused,
    because this server does not know the actors of another issuer.

    Raises:
        InvalidRequest: it is not accepted.
        TemporarilyUnavailable: the keys of the issuer cannot be fetched now.
    """
    facts: dict[str, str] = {}
    with _telling(facts, InvalidRequest):
        verified = verify(engine, client, text, facts)
        issuer, claims = verified.issuer, verified.claims
        if not verified.profile.exchanges(issuer):
            raise BadAssertion("issuer-not-exchanged")
        if "act" in claims:
            raise BadAssertion("assertion-of-an-actor")
        vouched = verified.profile.accept(engine, client, issuer, claims)
        _check_resources(issuer, vouched)
        ends = datetime.fromtimestamp(claims["exp"], UTC)
        if ends <= engine.now:  # within the skew of its clock: nothing is left
            raise BadAssertion("assertion-expired")
        parent = of_assertion(
            engine,
            vouched.user,
            issuer.issuer,
            of_client=vouched.of_client,
            joins=vouched.joins,
            scopes=_in_common(vouched.scopes, _scopes_of(claims), issuer.scopes),
            resources=issuer.resources if vouched.resources is None else vouched.resources,
            expires_at=min(filter(None, (ends, vouched.expires_at))),
            details=vouched.details,
        )
        return Presented(
            parent=parent,
            name=facts.get("jti", ""),
            client_id=None,
            audience=(issuer.default_resource,) if issuer.default_resource else (),
            bound=vouched.bound or _object(claims, "cnf") or {},
            sole_actor=_sole_actor(claims),
            uses=_uses(issuer, vouched, claims, facts, InvalidRequest),
            noted={**facts, **vouched.noted},
        )


def _sole_actor(claims: Mapping[str, Any]) -> str | None:
    """The client that a JWT names in `may_act`; "" if that is no client here. Raises BadAssertion."""
    named = _object(claims, "may_act")
    if named is None:
        return None
    return str(named["sub"]) if set(named) == {"sub"} else ""


def _scopes_of(claims: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The ceiling for scopes that a JWT sets (RFC 8693, 4.2). Raises BadAssertion."""
    named = claims.get("scope")
    if named is None:
        return None
    try:
        return scope_set(named if isinstance(named, str) else "")
    except InvalidScope:
        raise BadAssertion("assertion-claim-unusable") from None


def _object(claims: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """A claim that is an object with members; None if there is none. Raises BadAssertion."""
    found = claims.get(name)
    if found is not None and not (isinstance(found, dict) and found):
        raise BadAssertion("assertion-claim-unusable")
    return found


def _in_common(*ceilings: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The intersection of those ceilings that are set; None if none is."""
    said = [each for each in ceilings if each is not None]
    return tuple(name for name in said[0] if all(name in each for each in said)) if said else None


@contextmanager
def _telling(facts: Mapping[str, str], refusal: type[OAuthError] = InvalidGrant) -> Iterator[None]:
    """Within this, a BadAssertion becomes the refusal that the client gets, with these facts for operators."""
    try:
        yield
    except (BadAssertion, NotLive) as bad:
        raise _refused(refusal(_REFUSED, reason=bad.reason), facts) from None
    except FetchFailed as failure:
        raise _without_keys(failure, facts, refusal) from None
    except InvalidGrant as refused:
        raise _refused(refusal(_REFUSED, reason=refused.reason), {**facts, **refused.facts}) from None
    except OAuthError as refused:
        raise _refused(refused, facts) from None


def _order(
    engine: Engine, client: Client, parameters: Parameters, verified: Verified, facts: Mapping[str, str]
) -> Issue:
    issuer, requested = verified.issuer, requested_scopes(parameters)
    vouched = verified.profile.accept(engine, client, issuer, verified.claims)
    _check_resources(issuer, vouched)
    parent = of_assertion(
        engine,
        vouched.user,
        issuer.issuer,
        of_client=vouched.of_client,
        joins=vouched.joins,
        scopes=vouched.scopes,
        resources=vouched.resources,
        expires_at=vouched.expires_at,
        details=vouched.details,
    )
    order = derive(
        engine,
        client,
        parent,
        grant_type=GRANT_TYPE,
        scopes=requested,
        resources=_wanted(parameters, issuer, vouched),
        uses=_uses(issuer, vouched, verified.claims, facts),
        bound=vouched.bound,
        noted={**facts, **vouched.noted},
    )
    return _within(order, issuer)


def verify(engine: Engine, client: Client, text: str, facts: dict[str, str]) -> Verified:
    """This assertion, if its issuer is trusted and it may be presented by this client.

    Args:
        facts: facts about the assertion for operators are added to these, as soon as they are known.

    Raises:
        BadAssertion: it is not accepted.
        UnauthorizedClient: the client is public, and the issuer does not let it in.
        FetchFailed: the keys of the issuer cannot be fetched.
    """
    jws = _taken_apart(text)
    issuer, profile = named_issuer(engine, jws)
    facts["issuer"], facts["profile"] = issuer.issuer, issuer.profile
    _check_enabled(issuer)
    _check_client(issuer, client)
    # If the assertion itself names its client, that client need not authenticate.
    if client.is_public and profile.names_client is None and not profile.lets_in(issuer, client):
        raise UnauthorizedClient("A public client cannot use this grant type.", reason="public-client")
    claims = _claims_of(engine, issuer, profile, jws, facts)
    return Verified(issuer=issuer, profile=profile, claims=claims)


def _check_enabled(issuer: TrustedIssuer) -> None:
    if not issuer.is_enabled:
        raise BadAssertion(ISSUER_DISABLED)


def _check_client(issuer: TrustedIssuer, client: Client) -> None:
    """Raises BadAssertion unless this client may present assertions of the issuer."""
    if issuer.clients is not None and client.client_id not in issuer.clients:
        raise BadAssertion("issuer-client-not-allowed")


def _claims_of(
    engine: Engine, issuer: TrustedIssuer, profile: AssertionProfile, jws: Jws, facts: dict[str, str]
) -> Mapping[str, Any]:
    """The claims of an assertion of this issuer, and facts about it. Raises BadAssertion, FetchFailed."""
    facts["issuer"], facts["profile"] = issuer.issuer, issuer.profile
    _check_enabled(issuer)
    claims = _claims(engine, issuer, profile, jws)
    facts |= told_of(engine, claims)
    return claims


def _taken_apart(text: str) -> Jws:
    """An assertion taken apart, once for all that is done with it. Raises BadAssertion."""
    try:
        return read_jws(text)
    except ValueError:
        raise BadAssertion("assertion-malformed") from None


def named_issuer(engine: Engine, jws: Jws) -> tuple[TrustedIssuer, AssertionProfile]:
    """The entry of the issuer that an assertion names, and its profile; nothing of it is verified.

    Raises:
        BadAssertion: it names none that is trusted, or a profile that no plugin has.
    """
    named = jws.claims.get("iss")
    # Our own tokens are never assertions, even if we are among the issuers (JAG-11, T061).
    is_other = isinstance(named, str) and named != engine.settings.issuer
    issuer = issuer_registry.find(engine, str(named)) if is_other else None
    if issuer is None:
        raise BadAssertion("assertion-issuer-not-trusted")
    profile = engine.assertion_profiles.get(issuer.profile)
    if profile is None:
        raise BadAssertion("issuer-profile-unknown")
    return issuer, profile


def told_of(engine: Engine, claims: Mapping[str, Any]) -> dict[str, str]:
    """The facts about a verified assertion with which operators find it at its issuer (JAG-19).

    The subject is there as a keyed digest: it may be a mail address.
    """
    told = {"subject": engine.ring.mac(str(claims["sub"]).encode(), purpose="assertion-subject").hex()[:32]}
    jti = claims.get("jti")
    return {"jti": jti, **told} if isinstance(jti, str) else told


def _claims(engine: Engine, issuer: TrustedIssuer, profile: AssertionProfile, jws: Jws) -> Mapping[str, Any]:
    try:
        return _verified(engine, issuer, profile, jws)
    except BadAssertion as bad:
        if bad.reason not in _KEY_MAY_BE_NEW or not issuer.jwks_uri:
            raise
    # Once, and not more often than the kind allows, because anybody can name an unknown key (J-15).
    return _verified(engine, issuer, profile, jws, again=True)


def _verified(
    engine: Engine, issuer: TrustedIssuer, profile: AssertionProfile, jws: Jws, *, again: bool = False
) -> Mapping[str, Any]:
    def keys(_: str) -> TrustedKeys:
        try:
            return keys_of(engine, issuer, again=again)
        except ValueError:
            raise BadAssertion("issuer-keys-refused") from None

    return verify_assertion(
        engine,
        jws,
        keys,
        typ=profile.typ,
        untyped=profile.untyped,
        lifetime=issuer.lifetime,
        skew=timedelta(seconds=issuer.skew),
        algorithms=issuer.algorithms,
        audience=profile.audience(issuer),
    )


def _uses(
    issuer: TrustedIssuer,
    vouched: Vouched,
    claims: Mapping[str, Any],
    facts: Mapping[str, str],
    refusal: type[OAuthError] = InvalidGrant,
) -> tuple[SingleUse, ...]:
    if not vouched.is_single_use:
        return ()
    replayed = _refused(refusal(_REFUSED, reason="assertion-replayed"), facts)
    skew = timedelta(seconds=issuer.skew)
    return (single_use(claims, lifetime=issuer.lifetime, refusal=replayed, skew=skew),)


def _check_resources(issuer: TrustedIssuer, vouched: Vouched) -> None:
    """Raises BadAssertion if the assertion names a resource that the entry of its issuer does not allow."""
    if vouched.resources is not None and not _are_of(issuer, vouched.resources):
        raise BadAssertion("issuer-resource-not-allowed")


def _wanted(parameters: Parameters, issuer: TrustedIssuer, vouched: Vouched) -> tuple[str, ...]:
    """The resources of the token, if the assertion names none. Raises InvalidTarget."""
    named = tuple(parameters.all("resource"))
    if vouched.needs_resource and not named:
        raise InvalidTarget(
            "The request names no resource: the parameter resource is required.", reason="resource-missing"
        )
    if named or vouched.resources is not None or not issuer.default_resource:
        return named
    return (issuer.default_resource,)


def _within(order: Issue, issuer: TrustedIssuer) -> Issue:
    """The order, reduced to what the entry of the issuer allows. Raises InvalidTarget, InvalidScope."""
    if not _are_of(issuer, order.resources):
        raise InvalidTarget("The requested resource is not allowed.", reason="issuer-resource-not-allowed")
    if issuer.scopes is None:
        return order
    scopes = tuple(scope for scope in order.scopes if scope in issuer.scopes)
    if not scopes:
        raise InvalidScope("The requested scope is not allowed.", reason="issuer-scope-not-allowed")
    if scopes == order.scopes:
        return order
    return replace(order, scopes=scopes, grant=replace(order.grant, scopes=scopes))


def _are_of(issuer: TrustedIssuer, resources: tuple[str, ...]) -> bool:
    if issuer.resources is None:
        return True
    allowed = set(map(uris.resource_form, issuer.resources))
    return allowed.issuperset(map(uris.resource_form, resources))


def _refused(refusal: OAuthError, facts: Mapping[str, str]) -> OAuthError:
    refusal.facts = {**facts, **refusal.facts}
    return refusal


def _without_keys(failure: FetchFailed, facts: Mapping[str, str], refusal: type[OAuthError]) -> OAuthError:
    """The refusal when the keys of an issuer cannot be fetched."""
    refused: OAuthError
    if failure.is_temporary:
        refused = TemporarilyUnavailable(
            "The assertion cannot be verified now. Try again later.",
            reason="issuer-keys-unreachable",
            retry_after=failure.seconds_to_wait or _WAIT,
        )
    else:
        refused = refusal(_REFUSED, reason="issuer-keys-refused")
    refused.facts = {**facts, **{name: str(fact) for name, fact in failure.facts().items()}}
    return refused
