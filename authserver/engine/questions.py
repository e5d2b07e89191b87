"""The questions that the engine asks the policies, as values; `hookspecs` declares the hook of each.

The fields of a question are the arguments that a plugin may take. Its facts are what is recorded of it: plain JSON
values without secrets. The question can be asked again, with its facts and the current records of the stores, unless
it contained a secret. Headers may contain secrets: they are not recorded, and a question that is asked again has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Self, TypeVar

from authserver.engine import uris
from authserver.engine.errors import InvalidTarget
from authserver.engine.parameters import Parameters
from authserver.engine.records import (
    Client,
    ClientMetadata,
    Consent,
    InitialAccessToken,
    Resource,
    Session,
    TokenKind,
    User,
)
from authserver.settings import Secret

Facts = Mapping[str, Any]
T_co = TypeVar("T_co", covariant=True)


class CannotAskAgain(Exception):
    """Why a recorded question cannot be asked again: a client or user was deleted, or it contained a secret."""


class Known:
    """The current records that recorded questions are about. Each record is read once.

    A user gets the groups and attributes that were recorded, because these change more often than anything else.

    Each method raises CannotAskAgain when its record does not exist any more.

    Args:
        client: finds a client by its id, also the clients of plugins.
        user: finds a user by its id.
        consent: finds what a user last agreed to for a client, by the ids of both.
        resource: finds a resource by its URI, or the default one with None; None if it is unknown.
    """

    def __init__(
        self,
        client: Callable[[str], Client | None],
        user: Callable[[str], User | None],
        consent: Callable[[str, str], Consent | None],
        resource: Callable[[str | None], Resource | None],
    ) -> None:
        self._client = cache(client)
        self._user = cache(user)
        self._consent = cache(consent)
        self._resource = cache(resource)

    def client(self, facts: Facts) -> Client:
        """The client of the question, as it is now. Raises CannotAskAgain if it does not exist any more."""
        client = self._client(facts["client_id"])
        if client is None:
            raise CannotAskAgain("the client does not exist any more")
        return client

    def user(self, facts: Facts) -> User:
        """The user of the question, as they are now, but with the recorded groups and attributes, if there are any.

        Raises:
            CannotAskAgain: the user does not exist any more.
        """
        user = self._user(facts["user_id"])
        if user is None:
            raise CannotAskAgain("the user does not exist any more")
        if "groups" not in facts:
            return user
        attributes = {name: tuple(values) for name, values in dict(facts["attributes"]).items()}
        return replace(user, groups=tuple(facts["groups"]), attributes=MappingProxyType(attributes))

    def consent(self, facts: Facts) -> Consent | None:
        """The consent that is remembered now; None if none was remembered when the question was asked."""
        if not facts["remembered"]:
            return None
        consent = self._consent(facts["user_id"], facts["client_id"])
        if consent is None:
            raise CannotAskAgain("the remembered consent does not exist any more")
        return consent

    def resource(self, resource: str | None) -> Resource | None:
        """The resource, or the default one with None; None if it is unknown."""
        return self._resource(resource)

    def resources(self, resources: Iterable[str]) -> tuple[Resource, ...]:
        """Those of these resources that are known."""
        found = map(self._resource, resources)
        return tuple(resource for resource in found if resource is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Generic[T_co]):
    """What one deciding hook is asked. The type parameter is the type of the value of an allow.

    Attributes:
        hook: the name of the hook.
    """

    hook: ClassVar[str]

    @property
    def question(self) -> Self:
        """The question itself, for a plugin that takes it as one argument."""
        return self

    def facts(self) -> Facts:
        """The facts to record: plain JSON values without secrets."""
        raise NotImplementedError

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        """The question with these recorded facts.

        Raises:
            CannotAskAgain: a record does not exist any more, or the question contained a secret.
            KeyError, TypeError, ValueError: the facts are not those of such a question.
        """
        raise NotImplementedError

    def excess(self, value: Any) -> str | None:
        """What this value allows beyond the request, in words; None if nothing.

        The engine removes or refuses it anyway; this is for the author of a policy (`testing.contract`).
        """
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The credentials of a client, for `client_auth_decision`.

    Attributes:
        method: `client_secret_basic`, `client_secret_post`, `client_assertion` or `none`.
        client_id: the client id of the request.
        secret_matches: whether it sent a valid secret of this client.
        is_proven: whether the method has a proof that the server checks (hook `client_proofs`), and the proof was
            right.
        assertion: the client assertion as sent, if any.
        assertion_type: the `client_assertion_type` of the request.
        headers: the request's headers by lower-case name, without those that carry credentials.
    """

    method: str
    client_id: str
    secret_matches: bool = False
    is_proven: bool = False
    assertion: str | None = field(default=None, repr=False)
    assertion_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuthQuestion(Question[None]):
    """Whether a request comes from this client."""

    hook: ClassVar[str] = "client_auth_decision"

    client: Client
    credentials: Credentials

    def facts(self) -> Facts:
        return {
            "client_id": self.credentials.client_id,
            "method": self.credentials.method,
            "secret_matches": self.credentials.secret_matches,
            "is_proven": self.credentials.is_proven,
            "assertion": self.credentials.assertion is not None,
        }

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        if facts["assertion"]:
            raise CannotAskAgain("it contained a client assertion")
        credentials = Credentials(
            method=facts["method"],
            client_id=facts["client_id"],
            secret_matches=facts["secret_matches"],
            # Events of earlier versions have none.
            is_proven=facts.get("is_proven", False),
        )
        return cls(client=known.client(facts), credentials=credentials)

    def excess(self, value: None) -> str | None:
        if self.credentials.method.startswith("client_secret_"):
            return (
                None if self.credentials.secret_matches else "it allows a client whose secret does not match"
            )
        if self.client.auth_method == "none" or self.credentials.assertion or self.credentials.headers:
            return None
        return "it allows a client that has proven nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectUriQuestion(Question[None]):
    """Whether an authorization response may go to this URI."""

    hook: ClassVar[str] = "redirect_uri_decision"

    client: Client
    redirect_uri: str

    def facts(self) -> Facts:
        return {"client_id": self.client.client_id, "redirect_uri": self.redirect_uri}

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        return cls(client=known.client(facts), redirect_uri=facts["redirect_uri"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeQuestion(Question[tuple[str, ...]]):
    """Which scopes may be granted."""

    hook: ClassVar[str] = "scope_decision"

    client: Client
    user: User | None
    grant_type: str
    requested: tuple[str, ...]
    resources: tuple[str, ...]
    registered: tuple[Resource, ...] = ()

    def facts(self) -> Facts:
        return {
            "client_id": self.client.client_id,
            **_person(self.user),
            "grant_type": self.grant_type,
            "requested": list(self.requested),
            "resources": list(self.resources),
        }

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        return cls(
            client=known.client(facts),
            user=None if facts["user_id"] is None else known.user(facts),
            grant_type=facts["grant_type"],
            requested=tuple(facts["requested"]),
            resources=tuple(facts["resources"]),
            registered=known.resources(facts["resources"]),
        )

    def excess(self, value: tuple[str, ...]) -> str | None:
        ceiling = self.requested or self.client.scopes
        extra = [scope for scope in value if scope not in ceiling]
        return f"it allows {extra}, which nobody asked for" if extra else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceQuestion(Question[str]):
    """Whether a token for this resource may be asked for, and its canonical name."""

    hook: ClassVar[str] = "resource_decision"

    client: Client
    resource: str | None
    registered: Resource | None = None

    def facts(self) -> Facts:
        return {"client_id": self.client.client_id, "resource": self.resource}

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        return cls(
            client=known.client(facts),
            resource=facts["resource"],
            registered=known.resource(facts["resource"]),
        )

    def excess(self, value: str) -> str | None:
        try:
            canonical = uris.canonical_resource(value)
        except InvalidTarget:
            return f"it allows {value!r}, which is not a resource"
        if self.resource in (None, canonical):
            return None
        return f"it allows {value!r} instead of {self.resource!r}"


class AuthenticationStep(StrEnum):
    """What the user must do next (hook `authentication_decision`).

    GO_ON has the same effect as silence: a user who is signed in goes on, and any other must sign in first.
    SIGN_IN_AGAIN requires a sign-in since the request began.
    """

    GO_ON = "go_on"
    SIGN_IN_AGAIN = "sign_in_again"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """The answer of a policy about the sign-in of a request, if a step alone is not enough.

    Attributes:
        step: what the user must do next.
        why: for SIGN_IN_AGAIN, a sentence for the sign-in page; it is translated if the catalogues have it.
        acr: for GO_ON, the level that the sign-in reached (RFC 9470); it is kept with what the user agrees to, and is
            in each of its tokens.
        silent: whether the user may see no page; where a page would ask them, the client gets `consent_required`. A
            person who is not signed in sees the sign-in page nevertheless; to prevent that, deny with `login_required`.
        asks: whether the user is asked for consent even if a policy would allow without asking.
    """

    step: AuthenticationStep = AuthenticationStep.GO_ON
    why: str = ""
    acr: str | None = None
    silent: bool = False
    asks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationQuestion(Question[AuthenticationStep | SignIn]):
    """Which sign-in an authorization request requires."""

    hook: ClassVar[str] = "authentication_decision"

    client: Client
    user: User | None
    session: Session | None = field(repr=False)
    is_fresh: bool
    parameters: Parameters = field(repr=False)

    def facts(self) -> Facts:
        # Anybody may send any parameters, also tokens and names; therefore none is recorded.
        return {
            "client_id": self.client.client_id,
            "user_id": self.user.user_id if self.user else None,
            "authenticated_at": self.session.authenticated_at.isoformat() if self.session else None,
            "is_fresh": self.is_fresh,
        }

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        raise CannotAskAgain("it contained the parameters of a request")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentQuestion(Question[None]):
    """Whether to go on without asking the user."""

    hook: ClassVar[str] = "consent_decision"

    client: Client
    user: User
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    remembered: Consent | None

    def facts(self) -> Facts:
        return {
            "client_id": self.client.client_id,
            **_person(self.user),
            "scopes": list(self.scopes),
            "resources": list(self.resources),
            "remembered": self.remembered is not None,
        }

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        client, consent = known.client(facts), known.consent(facts)
        return cls(
            client=client,
            user=known.user(facts),
            scopes=tuple(facts["scopes"]),
            resources=tuple(facts["resources"]),
            remembered=consent if consent is not None and consent.is_for(client) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The person that a login policy signs in.

    Attributes:
        username: the user name of the person on this server.
        display_name: for the pages; may be empty.
        methods: how the person was authenticated, as `amr` values (RFC 8176), such as `pwd`.
        groups: those that the person is in now. They replace the stored ones; None leaves those as they are.
        attributes: the values of each attribute, by name. They replace all stored ones; None leaves those as they are.
    """

    username: str
    display_name: str = ""
    methods: tuple[str, ...] = ("pwd",)
    groups: tuple[str, ...] | None = field(default=None, repr=False)
    attributes: Mapping[str, tuple[str, ...]] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginQuestion(Question[Identity]):
    """Who is signing in."""

    hook: ClassVar[str] = "login_decision"

    username: str = field(repr=False)
    password: Secret
    user: User | None
    headers: Mapping[str, str] = field(repr=False)
    source: str

    def facts(self) -> Facts:
        # What was typed as a name may be a password in the wrong field: only a known name is recorded.
        user = self.user
        return {
            "user_id": user.user_id if user else None,
            "username": user.username if user else None,
            "source": self.source,
        }

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        raise CannotAskAgain("it contained a password")

    def excess(self, value: Identity) -> str | None:
        if not value.username:
            return "it signs in a person without a user name"
        if not self.password.value and not self.headers:
            return "it signs in a person who has proven nothing"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityQuestion(Question[Identity]):
    """Which person here is the one for whom another server vouches."""

    hook: ClassVar[str] = "identity_decision"

    provider: str
    issuer: str
    claims: Mapping[str, Any] = field(repr=False)
    user: User | None

    def facts(self) -> Facts:
        # The claims of the other server are personal data, and may be anything: only their names are recorded.
        return {
            "provider": self.provider,
            "issuer": self.issuer,
            "claims": sorted(self.claims),
            **_person(self.user),
        }

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        raise CannotAskAgain("the claims of the other server are not recorded")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationQuestion(Question[ClientMetadata]):
    """Whether a client may register itself, or change its registration, and with which metadata."""

    hook: ClassVar[str] = "registration_decision"

    metadata: ClientMetadata
    bearer: Secret | None
    token: InitialAccessToken | None = None
    source: str
    client: Client | None = None

    def facts(self) -> Facts:
        token = {"token_id": self.token.token_id, "policy": self.token.policy} if self.token else None
        return {
            "metadata": _members(self.metadata),
            "bearer": self.bearer is not None,
            "token": token,
            "source": self.source,
            "client_id": self.client.client_id if self.client else None,
        }

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        if facts["bearer"] or facts.get("token"):
            raise CannotAskAgain("it contained an initial access token")
        return cls(
            metadata=ClientMetadata(**_values(facts["metadata"])),
            bearer=None,
            source=facts["source"],
            client=known.client(facts) if facts.get("client_id") else None,
        )

    def excess(self, value: ClientMetadata) -> str | None:
        metadata = self.metadata
        # If none of the scopes that were asked for is allowed, a policy may give others.
        some = set(value.scopes) & set(metadata.scopes)
        extra = [scope for scope in value.scopes if some and scope not in metadata.scopes]
        extra += [grant for grant in value.grant_types if grant not in metadata.grant_types]
        extra += [uri for uri in value.redirect_uris if uri not in metadata.redirect_uris]
        if extra:
            return f"it registers {extra}, which nobody asked for"
        if value.token_endpoint_auth_method == "none" != metadata.token_endpoint_auth_method:
            return "it registers a client without the authentication that it asked for"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class IntrospectedToken:
    """The facts about a token for `introspection_decision`, without its text.

    Attributes:
        client_id: the client that it was issued to.
        subject: the `sub`: a user, or the client itself.
        audience: the resources it is for.
        scopes: what it allows there.
        kind: ACCESS or REFRESH.
    """

    client_id: str
    subject: str
    audience: tuple[str, ...]
    scopes: tuple[str, ...]
    kind: TokenKind


@dataclass(frozen=True, slots=True, kw_only=True)
class IntrospectionQuestion(Question[None]):
    """Whether a client may read what a token allows."""

    hook: ClassVar[str] = "introspection_decision"

    caller: Client
    token: IntrospectedToken
    registered: tuple[Resource, ...] = ()

    def facts(self) -> Facts:
        return {"client_id": self.caller.client_id, "token": _members(self.token)}

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        token = _values(facts["token"])
        token["kind"] = TokenKind(token["kind"])
        return cls(
            caller=known.client(facts),
            token=IntrospectedToken(**token),
            registered=known.resources(token["audience"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginQuestion(Question[None]):
    """Whether programs of this web origin may read the answers of an endpoint."""

    hook: ClassVar[str] = "origin_decision"

    origin: str
    endpoint: str
    registered: bool

    def facts(self) -> Facts:
        return {"origin": self.origin, "endpoint": self.endpoint, "registered": self.registered}

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        return cls(origin=facts["origin"], endpoint=facts["endpoint"], registered=facts["registered"])


class Counted(StrEnum):
    """The acts about which the engine asks `rate_decision`.

    An act that only honest callers can do is counted when it has succeeded, and its failures are counted apart: so
    nobody uses up the allowance of somebody else. A sign-in is counted before its password is checked, because the
    check costs work, and the password may be a guess.
    """

    FAILED_CLIENT_AUTHENTICATION = "failed_client_authentication"
    TOKEN_REQUEST = "token_request"
    FAILED_GRANT = "failed_grant"
    UNKNOWN_TOKEN = "unknown_token"
    AUTHORIZATION_REQUEST = "authorization_request"
    SIGN_IN = "sign_in"
    PASSWORD_LINK = "password_link"
    FORGOTTEN_PASSWORD = "forgotten_password"
    REGISTRATION = "registration"
    FAILED_REGISTRATION = "failed_registration"
    REGISTRATION_CHANGE = "registration_change"
    REQUEST_IN_ADVANCE = "request_in_advance"
    TYPED_CODE = "typed_code"
    UNKNOWN_ORIGIN = "unknown_origin"
    FAILED_FETCH = "failed_fetch"

    @property
    def meaning(self) -> str:
        """In words, for operators."""
        return _MEANINGS[self]


_MEANINGS: Mapping[Counted, str] = MappingProxyType(
    {
        Counted.FAILED_CLIENT_AUTHENTICATION: "a client authentication that failed, at any endpoint",
        Counted.TOKEN_REQUEST: "a token request that gets tokens",
        Counted.FAILED_GRANT: "a code, refresh token or other grant that was refused at the token endpoint",
        Counted.UNKNOWN_TOKEN: "a question about a token that this server never issued, at introspection",
        Counted.AUTHORIZATION_REQUEST: "an authorization request of a browser in which nobody is signed in",
        Counted.SIGN_IN: "a password that was typed, on the sign-in page or to change it; a right one is given back",
        Counted.PASSWORD_LINK: "a link to set a password that somebody opens or uses; one that works is given back",
        Counted.FORGOTTEN_PASSWORD: "somebody who asks for a mail with a link, because a password was forgotten",
        Counted.REGISTRATION: "a client that registers itself",
        Counted.FAILED_REGISTRATION: "a client's own registration that was refused",
        Counted.REGISTRATION_CHANGE: "an attempt of a client to change or end its own registration",
        Counted.REQUEST_IN_ADVANCE: (
            "an authorization request that a client sends in advance, if anybody can send it in the name of that client"
        ),
        Counted.TYPED_CODE: "a code that a signed-in person types in from another screen; a right one is given back",
        Counted.UNKNOWN_ORIGIN: "a request from a web origin that may not read the answer; after that, none is looked up",
        Counted.FAILED_FETCH: "a document of another server that a request names, and that could not be fetched or read",
    }
)


class RateStep(StrEnum):
    """What to do with a limit.

    CLAIM counts once more, if no limit forbids it. CHECK only says whether one forbids it. GIVE_BACK takes back what
    was claimed by the same question; its answer does not matter.
    """

    CLAIM = "claim"
    CHECK = "check"
    GIVE_BACK = "give_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateQuestion(Question[None]):
    """Whether a caller does something too often."""

    hook: ClassVar[str] = "rate_decision"

    counted: Counted
    step: RateStep
    endpoint: str
    source: str
    client_id: str | None = None
    account: str = ""
    device_id: str | None = None
    grant_id: str | None = None

    def facts(self) -> Facts:
        return {
            "counted": self.counted,
            "step": self.step,
            "endpoint": self.endpoint,
            "source": self.source,
            "client_id": self.client_id,
            "account": self.account or None,
            "device_id": self.device_id,
            "grant_id": self.grant_id,
        }

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        raise CannotAskAgain("the answer depends on what had been counted by then")


def _person(user: User | None) -> dict[str, Any]:
    """The recorded facts about a user, by which a policy may decide."""
    if user is None:
        return {"user_id": None}
    attributes = {name: list(values) for name, values in user.attributes.items()}
    return {"user_id": user.user_id, "groups": list(user.groups), "attributes": attributes}


def _members(value: ClientMetadata | IntrospectedToken) -> dict[str, Any]:
    """The fields of a value as plain JSON values."""
    return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _values(members: Mapping[str, Any]) -> dict[str, Any]:
    """The values before `_plain`: each list becomes a tuple again."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in members.items()}
