"""Identity assertion grants: the identity provider of a company gives access to agents of its people, without a page.

The identity provider signs an assertion (ID-JAG) for one client of this server, about one person, for some of our resources
and scopes (draft-ietf-oauth-identity-assertion-authz-grant; MCP, enterprise-managed authorization). The agent of that
person presents it and gets an access token. The assertion and the entry of its issuer are upper limits; policies decide
within them.

There are two profiles, with one difference: `mcp` accepts an assertion once, `draft` until it expires.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from authserver.api import (
    MAXIMUM_IDENTIFIER,
    MAXIMUM_LEVEL,
    MAXIMUM_METHOD,
    MAXIMUM_METHODS,
    MAXIMUM_RESOURCES,
    AssertionProfile,
    Client,
    Described,
    Engine,
    InvalidGrant,
    InvalidScope,
    InvalidTarget,
    JoinedIdentity,
    OAuthError,
    TrustedIssuer,
    User,
    Vouched,
    canonical_resource,
    hookimpl,
    issuer_options,
    new_vouched_user,
    scope_set,
    vouched_user,
)

TYPE = "oauth-id-jag+jwt"
GRANT_PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag"
# The profile that accepts an assertion once, and the one that accepts it until it expires.
ONCE, REPEATED = "mcp", "draft"
_REFUSED = "The assertion is not valid."


class InsufficientUserAuthentication(OAuthError):
    """The person signed in too long ago, or too weakly, at the issuer (RFC 9470, 3)."""

    code = "insufficient_user_authentication"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of an entry with these profiles.

    Attributes:
        tenants: the accepted tenants of the issuer (`tenant`); empty: assertions that name a tenant are refused.
        subjects: by `sub`, or `tenant sub`, the name of an existing user of this server.
        usernames: whether any other `sub` is the name of a user. Then the issuer can name every user.
        create_users: whether an unknown person becomes a user with their first assertion.
        public_clients: whether a client whose id is its address and that does not authenticate may present assertions.
        levels: the accepted levels of sign-in (`acr`); empty: any.
        maximum_age: seconds since the person signed in (`auth_time`); 0: any.
        weak_sign_in: the error for the client if the sign-in of its person is too old or too weak.
    """

    tenants: tuple[str, ...] = ()
    subjects: Mapping[str, str] = field(default_factory=dict)
    usernames: bool = False
    create_users: bool = False
    public_clients: bool = False
    levels: tuple[str, ...] = ()
    maximum_age: int = 0
    weak_sign_in: Literal["insufficient_user_authentication", "invalid_grant"] = (
        "insufficient_user_authentication"
    )


@dataclass(frozen=True)
class IdJag:
    """Accept identity assertion grants of trusted issuers, with the profiles `mcp` and `draft`."""

    immediate: ClassVar[bool] = True
    described: ClassVar[Mapping[str, Described]] = {
        "assertion_profiles": Described(errors=(InsufficientUserAuthentication,))
    }
    reasons: ClassVar[Mapping[str, str]] = {
        "assertion-client-differs": (
            "client_id of the assertion must be {client_id}: the issuer must know which client of this server its own is"
        ),
        "assertion-claim-malformed": "a claim of the assertion has not the form that the draft gives it",
        "assertion-details-unknown": "the assertion has authorization_details, which this server cannot enforce",
        "assertion-resource-missing": (
            "the assertion must name a resource; or give the entry one with "
            "`authserver issuer edit ISSUER --default-resource URI`"
        ),
        "assertion-resource-unknown": (
            "register the resource with `authserver resource add URI`, or let the issuer name a registered one"
        ),
        "assertion-scope-unknown": (
            "the assertion has a scope that its resource does not know: add it to the resource, or let the issuer leave it out"
        ),
        "assertion-tenant": (
            "name the tenant of the assertion: `authserver issuer edit ISSUER --option 'tenants=[\"TENANT\"]'`"
        ),
        InsufficientUserAuthentication.code: "",
        "issuer-sign-in-too-old": (
            "the person must sign in at the issuer again; `maximum_age` of its entry says how old a sign-in may be"
        ),
        "issuer-sign-in-too-weak": "the person must sign in at the issuer with one of the `levels` of its entry",
    }

    @hookimpl
    def assertion_profiles(self) -> Mapping[str, AssertionProfile]:
        return {
            name: AssertionProfile(
                typ=TYPE,
                accept=partial(accept, once=name == ONCE),
                check=check,
                lets_in=lets_in,
                warnings=warnings,
            )
            for name in (ONCE, REPEATED)
        }

    @hookimpl
    def server_metadata(self) -> Mapping[str, Any]:
        return {"authorization_grant_profiles_supported": [GRANT_PROFILE]}


def check(issuer: TrustedIssuer) -> None:
    """Raises ValueError for an entry that these profiles cannot work with."""
    options = issuer_options(issuer, Options)
    if options.maximum_age < 0:
        raise ValueError("maximum_age: must be a number of seconds, or 0")
    if not (options.subjects or options.usernames or options.create_users):
        raise ValueError("it would accept nobody: give it subjects, usernames=true or create_users=true")


def warnings(issuer: TrustedIssuer) -> Sequence[str]:
    """What operators should know about an entry; each is a sentence."""
    try:
        options = issuer_options(issuer, Options)
    except ValueError as error:
        return [f"none of its assertions is accepted: {error}"]
    found = []
    if options.usernames:
        found.append("usernames: it can name every user of this server; list those that it knows in subjects")
    if options.public_clients:
        found.append(
            "public_clients: whoever gets hold of an assertion for such a client can present it first"
        )
    return found


def lets_in(issuer: TrustedIssuer, client: Client) -> bool:
    """Whether a client that does not authenticate may present assertions of this issuer (JAG-04)."""
    return client.is_known_by_address and issuer_options(issuer, Options).public_clients


def accept(
    engine: Engine, client: Client, issuer: TrustedIssuer, claims: Mapping[str, Any], *, once: bool
) -> Vouched:
    """Read an assertion: its person, resources and scopes.

    Raises:
        InvalidGrant: it is not for this client, lacks something, or names something that does not exist.
        InsufficientUserAuthentication: the person did not sign in at the issuer as its entry demands.
    """
    options = issuer_options(issuer, Options)
    _check_claims(claims)
    # The id of the authenticated client at this server: the stolen assertion of another client is refused (JAG-04).
    if claims["client_id"] != client.client_id:
        raise _refused(reason="assertion-client-differs")
    tenant = _tenant(options, claims)
    details = _sign_in(engine, options, claims)
    resources = _resources(engine, issuer, claims)
    user, joins = _user(engine, issuer.issuer, options, tenant, claims["sub"])
    return Vouched(
        user=user,
        joins=joins,
        scopes=_scopes(engine, claims, resources),
        resources=resources,
        details=details,
        bound=_bound(claims),
        is_single_use=once,
        noted={"tenant": tenant} if tenant else {},
    )


def _check_claims(claims: Mapping[str, Any]) -> None:
    """Check the required claims (JAG-05); `iss`, `sub`, `aud` and `exp` were checked before. Raises InvalidGrant."""
    for name in ("client_id", "jti"):
        if not isinstance(claims.get(name), str) or not 0 < len(claims[name]) <= 4 * MAXIMUM_IDENTIFIER:
            raise _refused(reason="assertion-claim-malformed")
    if len(claims["jti"]) > MAXIMUM_IDENTIFIER or "iat" not in claims:
        raise _refused(reason="assertion-claim-malformed")
    # A limit that cannot be enforced must not be ignored (JAG-07, T168).
    if claims.get("authorization_details"):
        raise _refused(reason="assertion-details-unknown")


def _tenant(options: Options, claims: Mapping[str, Any]) -> str:
    """The tenant of the person at the issuer; "" without one. Raises InvalidGrant (JAG-06)."""
    tenant = claims.get("tenant", "")
    if not isinstance(tenant, str) or ((tenant or options.tenants) and tenant not in options.tenants):
        raise _refused(reason="assertion-tenant")
    return tenant


def _sign_in(engine: Engine, options: Options, claims: Mapping[str, Any]) -> Mapping[str, Any]:
    """How and when the person signed in at the issuer, for our tokens (JAG-21)."""
    acr, amr, at = claims.get("acr"), claims.get("amr"), claims.get("auth_time")
    malformed = (
        (acr is not None and not _is_text(acr, MAXIMUM_LEVEL)),
        (amr is not None and not _are_texts(amr, MAXIMUM_METHODS, MAXIMUM_METHOD)),
        (at is not None and (type(at) is not int or not 0 <= at <= engine.now.timestamp() + 300)),
    )
    if any(malformed):
        raise _refused(reason="assertion-claim-malformed")
    if options.levels and acr not in options.levels:
        raise _too_weak(options, reason="issuer-sign-in-too-weak")
    if options.maximum_age and (at is None or at < engine.now.timestamp() - options.maximum_age):
        raise _too_weak(options, reason="issuer-sign-in-too-old")
    return {name: claims[name] for name in ("acr", "amr", "auth_time") if claims.get(name) is not None}


def _resources(engine: Engine, issuer: TrustedIssuer, claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The resources of the assertion, else the default of its entry; never all resources (JAG-05, JAG-13)."""
    named = claims.get("resource")
    if named is None:
        if not issuer.default_resource:
            raise _refused(reason="assertion-resource-missing")
        return (issuer.default_resource,)
    listed = named if isinstance(named, list) else [named]
    if not listed or not _are_texts(listed, MAXIMUM_RESOURCES, 2048):
        raise _refused(reason="assertion-claim-malformed")
    for uri in listed:
        try:
            canonical_resource(uri)
        except InvalidTarget:
            raise _refused(reason="assertion-resource-unknown") from None
        if engine.resources.find(uri) is None:
            raise _refused(reason="assertion-resource-unknown")
    return tuple(dict.fromkeys(listed))


def _scopes(engine: Engine, claims: Mapping[str, Any], resources: tuple[str, ...]) -> tuple[str, ...] | None:
    """The scopes that a token has at most; None: the assertion names none. Raises InvalidGrant (JAG-14)."""
    named = claims.get("scope")
    if named is None:
        return None
    try:
        scopes = scope_set(named if isinstance(named, str) else "")
    except InvalidScope:
        raise _refused(reason="assertion-claim-malformed") from None
    known = engine.resources.of(resources)
    for scope in scopes:
        fits = any(resource.scopes is None or scope in resource.scopes for resource in known)
        if scope not in engine.scopes or not fits:
            raise _refused(reason="assertion-scope-unknown")
    return scopes


def _bound(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    """The key that the client must prove (JAG-09). Raises InvalidGrant for a `cnf` that names none."""
    confirmation = claims.get("cnf")
    if confirmation is None:
        return {}
    if not isinstance(confirmation, dict) or not confirmation:
        raise _refused(reason="assertion-claim-malformed")
    return confirmation


def _user(
    engine: Engine, issuer: str, options: Options, tenant: str, subject: str
) -> tuple[User | None, JoinedIdentity | None]:
    """The user, and the identity that joins a new user to the issuer; mail addresses are not used (JAG-06, JAG-18)."""
    name = options.subjects.get(f"{tenant} {subject}" if tenant else subject)
    if name is None and options.usernames:
        name = subject
    if name is not None:
        return engine.stores.users.find_by_name(name), None
    known = vouched_user(engine, issuer, tenant, subject)
    if known is not None or not options.create_users:
        return known, None
    new = new_vouched_user(engine, issuer, tenant, subject)
    # If the user name is taken, another request may have stored this person after the search above.
    return new or (vouched_user(engine, issuer, tenant, subject), None)


def _too_weak(options: Options, *, reason: str) -> OAuthError:
    if options.weak_sign_in == InvalidGrant.code:
        return _refused(reason=reason)
    return InsufficientUserAuthentication("The person must sign in at the issuer again.", reason=reason)


def _refused(*, reason: str) -> InvalidGrant:
    return InvalidGrant(_REFUSED, reason=reason)


def _is_text(value: object, maximum: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= maximum


def _are_texts(values: object, number: int, maximum: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= number
        and all(_is_text(value, maximum) for value in values)
    )
