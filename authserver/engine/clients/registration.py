"""Registration of clients: by themselves (dynamic registration, RFC 7591) or by an operator."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from authserver.engine import rates, uris
from authserver.engine.clients import initial_tokens, room
from authserver.engine.clients.authentication import read_bearer
from authserver.engine.clients.client_metadata import (
    check_metadata,
    members,
    problem_with_details,
    read_metadata,
    read_object,
    with_metadata,
)
from authserver.engine.clients.logos import read_logo
from authserver.engine.clients.secrets import needs_secret, new_secret
from authserver.engine.context import Engine, Welcome
from authserver.engine.crypto import digests
from authserver.engine.decisions import Ruling, Verdict
from authserver.engine.errors import (
    AccessDenied,
    InvalidClientMetadata,
    InvalidRedirectUri,
    InvalidToken,
    OAuthError,
    ServerError,
)
from authserver.engine.ports import StorageUnavailable
from authserver.engine.questions import Counted, RateQuestion, RedirectUriQuestion, RegistrationQuestion
from authserver.engine.records import (
    ADDRESSES,
    NOTHING,
    REGISTRATION_REASONS,
    Client,
    ClientMetadata,
    EventType,
    InitialAccessToken,
    Logo,
    RegisteredBy,
)
from authserver.settings import Secret

# The reasons of a registration policy if only a valid initial access token is missing: none was sent, or the policy that
# it names does not exist any more.
INITIAL_ACCESS_TOKEN_REQUIRED = "initial-access-token-required"
REGISTRATION_POLICY_UNKNOWN = "registration-policy-unknown"
# How often policies are asked, if other registrations with tokens of the same policy come first.
ATTEMPTS = 5
# A client id never looks like a user's, as both are subjects of tokens; an address would say where its metadata is.
RESERVED_PREFIXES = ("user_", *ADDRESSES)
MAXIMUM_CHOSEN_ID = 100  # the most characters of an id that an operator chooses


def register(engine: Engine, body: bytes) -> Mapping[str, Any]:
    """Let a client register itself, if a policy agrees, and return its registration (RFC 7591, 3.2.1).

    Args:
        body: the JSON object as sent. The initial access token, if any, is the authorization of the caller.

    Raises:
        InvalidRedirectUri, InvalidClientMetadata: a member cannot be registered, or a policy refuses.
        InvalidToken: a policy requires an initial access token, and it is missing or cannot be used any more.
        TooManyRequests: too many clients register themselves, fail to, or were never used.
        StorageUnavailable: other registrations with tokens of the same policy came first at every attempt.
    """
    client_id = digests.new_identifier("client_")
    with _counting_failures(engine):
        agreed = _agree(engine, body, client_id)
    claimed = rates.claim(engine, Counted.REGISTRATION)
    with _counting_failures(engine, claimed):
        return _keep(engine, body, client_id, agreed)


@contextmanager
def _counting_failures(engine: Engine, claimed: RateQuestion | None = None) -> Iterator[None]:
    """Count a refusal as a failure, not as a registration. Raises TooManyRequests instead when there are too many."""
    try:
        yield
    except ServerError:
        raise
    except OAuthError:
        # Nothing is stored yet, so other registrations do not wait while policies are asked.
        engine.stores.undo()
        rates.give_back(engine, claimed)
        rates.claim(engine, Counted.FAILED_REGISTRATION)
        raise


def _keep(engine: Engine, body: bytes, client_id: str, agreed: _Agreed) -> Mapping[str, Any]:
    """Store the client if there is room for it, and return its registration. Raises as `register` does."""
    clients = engine.stores.clients
    for _ in range(ATTEMPTS):
        # From here on other registrations wait, and no plugin is asked.
        clients.hold_registrations()
        if agreed.token is None or clients.count_of_policy(agreed.token.policy) <= agreed.token.clients:
            break
        # There are more clients now, so the policy may decide differently.
        engine.stores.undo()
        agreed = _agree(engine, body, client_id)
    else:
        raise StorageUnavailable("too many clients register with one policy at the same time")
    if agreed.token is None:
        replaced = room.make_room(engine, agreed.allowed.metadata)
    else:
        replaced = []
        initial_tokens.claim(engine, agreed.token)
    client, secret = add_client(
        engine,
        agreed.allowed.metadata,
        client_id=client_id,
        registered_by=RegisteredBy.SELF,
        initial_token=agreed.token,
        replaced=replaced,
        private_details={
            **agreed.welcome.private_details,
            REGISTRATION_REASONS: list(agreed.allowed.reasons),
        },
    )
    return {**describe(client, secret), **agreed.welcome.members}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreed:
    """A registration that policies allowed.

    Attributes:
        token: the initial access token of the caller, if it has one of the database.
        allowed: the metadata that it may register.
        welcome: the additions of plugins.
    """

    token: InitialAccessToken | None
    allowed: Allowed
    welcome: Welcome


def _agree(engine: Engine, body: bytes, client_id: str) -> _Agreed:
    """Ask the policies, and ask plugins for their additions. Raises as `register` does."""
    token = initial_tokens.presented(engine)
    allowed = allowed_metadata(engine, read_object(body), client_id, token=token)
    future = with_metadata(new_client(engine, client_id, RegisteredBy.SELF), allowed.metadata)
    private_details: dict[str, Any] = {}
    members: dict[str, Any] = {}
    for welcome in engine.contributions("registration_response", engine=engine, client=future):
        private_details |= welcome.private_details
        members |= welcome.members
    return _Agreed(
        token=token, allowed=allowed, welcome=Welcome(members=members, private_details=private_details)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The metadata that a client may register, and the reasons of the policies that allow it."""

    metadata: ClientMetadata
    reasons: tuple[str, ...]


def allowed_metadata(
    engine: Engine,
    sent: Mapping[str, Any],
    client_id: str,
    *,
    token: InitialAccessToken | None = None,
    client: Client | None = None,
) -> Allowed:
    """The metadata that a client may register: its form is checked, policies decide, the floor checks the result.

    Args:
        sent: the members of its metadata (`read_object`).
        client_id: its present or future id.
        client: the registered client, if it changes its registration; the authorization of the caller is then no
            initial access token.
        token: the initial access token of the caller, if it has one of the database.

    Raises as `register` does; and AccessDenied: this client may not change its registration.
    """
    for added in engine.contributions("expand_registration", engine=engine, sent=sent, client=client):
        sent = {**sent, **added}
    asked = read_metadata(sent, engine.client_metadata)
    bearer = None if client else read_bearer(engine.caller.authorization)
    ruling = engine.ask(
        RegistrationQuestion(
            metadata=asked, bearer=bearer, token=token, source=engine.caller.source, client=client
        )
    )
    if not ruling.allowed:
        raise _not_allowed(ruling, bearer, client)
    if problem := problem_with_details(ruling.allowed_value):
        raise engine.wrong_value(ruling, problem)
    base = client or new_client(engine, client_id, RegisteredBy.SELF)
    metadata = _acceptable(engine, _offered(engine, asked, ruling.allowed_value), base)
    if engine.settings.strict_registration:
        _refuse_what_was_left_out(asked, metadata)
    check_metadata(engine, metadata, registered_by=RegisteredBy.SELF)
    reasons = tuple(answer.reason for answer in ruling.answers if answer.verdict is Verdict.ALLOW)
    return Allowed(metadata=metadata, reasons=reasons)


def _not_allowed(ruling: Ruling[ClientMetadata], bearer: Secret | None, client: Client | None) -> OAuthError:
    """The refusal when no policy allows what a client asks to be registered with, or one refuses it."""
    needs_token = ruling.reason in (INITIAL_ACCESS_TOKEN_REQUIRED, REGISTRATION_POLICY_UNKNOWN)
    if client and (ruling.verdict is Verdict.SILENT or needs_token):
        # No policy would register it now (RFC 7592, 2.1).
        return AccessDenied("This client may not change its registration.", reason=ruling.reason)
    if ruling.reason == REGISTRATION_POLICY_UNKNOWN:
        return InvalidToken("The initial access token cannot be used any more.", reason=ruling.reason)
    if ruling.reason == INITIAL_ACCESS_TOKEN_REQUIRED:
        return InvalidToken(
            "An initial access token is required.", reason=ruling.reason, sent=bearer is not None
        )
    return InvalidClientMetadata("This registration is not allowed here.", reason=ruling.reason)


def add_client(
    engine: Engine,
    metadata: ClientMetadata,
    *,
    client_id: str | None = None,
    first_party: bool = False,
    registered_by: RegisteredBy = RegisteredBy.OPERATOR,
    rotates_refresh_tokens: bool = True,
    logo: bytes = b"",
    makes_secret: bool = True,
    initial_token: InitialAccessToken | None = None,
    replaced: Sequence[str] = (),
    private_details: Mapping[str, Any] = NOTHING,
) -> tuple[Client, str | None]:
    """Store a new client.

    Args:
        client_id: an id chosen by an operator; otherwise it gets a fresh one.
        rotates_refresh_tokens: False lets a confidential client keep its refresh token.
        logo: the content of an SVG or PNG file; empty for none.
        makes_secret: whether a client that needs a secret gets one here; else it has none before `secrets.add_secret`.
        initial_token: the initial access token with which it registered itself, or None.
        replaced: the ids of clients that were deleted for it.

    Returns:
        The client and its secret, which is not readable again; None if it got none.

    Raises:
        InvalidRedirectUri, InvalidClientMetadata: as for `check_new_client`.
        AlreadyExists: the client id is taken.
    """
    if client_id is None:
        client_id = digests.new_identifier("client_")
    read = check_new_client(
        engine,
        metadata,
        client_id=client_id,
        registered_by=registered_by,
        rotates_refresh_tokens=rotates_refresh_tokens,
        logo=logo,
    )
    secret, stored = None, None
    if makes_secret and needs_secret(metadata.token_endpoint_auth_method):
        secret, stored = new_secret(engine.ring, client_id, engine.now)
    client = replace(
        with_metadata(new_client(engine, client_id, registered_by), metadata),
        first_party=first_party,
        rotates_refresh_tokens=rotates_refresh_tokens,
        secrets=(stored,) if stored else (),
        logo=read.digest if read else None,
        registered_from=room.network_here(engine) if registered_by is RegisteredBy.SELF else "",
        initial_token=initial_token.token_id if initial_token else None,
        registration_policy=initial_token.policy if initial_token else None,
        private_details=private_details,
    )
    engine.stores.clients.add(client)
    if read:
        engine.stores.clients.keep_logo(client_id, read)
    engine.journal.client_id = client_id
    details: dict[str, Any] = {"registered_by": registered_by}
    if registered_by is RegisteredBy.OPERATOR:
        # If it registered itself, the question to the policies has its metadata.
        details["client"] = members(client)
    if initial_token:
        details |= initial_tokens.named(initial_token)
    if replaced:
        details["replaced"] = list(replaced)
    engine.record(EventType.CLIENT_REGISTERED, details=details)
    return client, secret


def fitting_metadata(
    *,
    name: str,
    redirect_uris: tuple[str, ...],
    grant_types: tuple[str, ...],
    scopes: tuple[str, ...],
    auth_method: str,
    application_type: str | None,
    details: Mapping[str, Any],
) -> ClientMetadata:
    """The metadata of a client that an operator registers; missing members follow from the redirect URIs.

    Args:
        grant_types: empty for the grant types of people if there is a redirect URI, else for the client's own.
        application_type: None for the type that follows from the redirect URIs.
        details: a member that is None is left out.

    Raises:
        InvalidClientMetadata: there is no name.
    """
    if not name.strip():
        raise InvalidClientMetadata("client_name must not be empty.")
    if not grant_types:
        grant_types = ("authorization_code", "refresh_token") if redirect_uris else ("client_credentials",)
    return ClientMetadata(
        client_name=name.strip(),
        redirect_uris=redirect_uris,
        token_endpoint_auth_method=auth_method,
        grant_types=grant_types,
        response_types=("code",) if "authorization_code" in grant_types else (),
        scopes=scopes,
        application_type=application_type or uris.fitting_application_type(redirect_uris),
        details={member: value for member, value in details.items() if value is not None},
    )


def check_new_client(
    engine: Engine,
    metadata: ClientMetadata,
    *,
    client_id: str,
    registered_by: RegisteredBy = RegisteredBy.OPERATOR,
    rotates_refresh_tokens: bool = True,
    logo: bytes = b"",
) -> Logo | None:
    """Check a new client by all rules except that its id is free. Returns its logo, or None.

    Raises:
        InvalidRedirectUri, InvalidClientMetadata: as for `check_metadata` and `read_logo`, and for an impossible id.
    """
    check_metadata(engine, metadata, registered_by=registered_by)
    check_rotation(metadata.token_endpoint_auth_method, rotates_refresh_tokens)
    if not _is_client_id(client_id):
        raise InvalidClientMetadata(
            f"A client_id has up to {MAXIMUM_CHOSEN_ID} visible ASCII characters and begins neither with user_ nor "
            "https:."
        )
    return read_logo(logo) if logo else None


def check_rotation(auth_method: str, rotates_refresh_tokens: bool) -> None:
    """Only rotation protects the refresh tokens of a public client (OAuth 2.1, 4.3.1). Raises InvalidClientMetadata."""
    if auth_method == "none" and not rotates_refresh_tokens:
        raise InvalidClientMetadata("Refresh tokens rotate unless the client has a credential of its own.")


def describe_elsewhere(
    engine: Engine,
    client_id: str,
    members: Mapping[str, Any],
    *,
    scopes: Collection[str],
    grant_types: Collection[str],
) -> Client:
    """A client that is kept elsewhere, within the limits of this server; it is not stored (hook `find_client`).

    The description is for every server alike, so members that are unknown, not offered or beyond the limits are left out,
    and so are malformed members that are only displayed, such as a logo. The floor is that of registrations.

    Args:
        members: the members of its metadata, none of them empty.
        scopes: the scopes that it may have at most; it gets all of them if its metadata has none of them.
        grant_types: the grant types that it may use at most.

    Raises:
        InvalidRedirectUri, InvalidClientMetadata: as for `check_metadata` and `read_metadata`.
        ServerError: a plugin failed.
    """
    # Members that count as proven at a registration must not look as if they were proven here.
    unproven = engine.policies.all_declared("proven_at_registration")
    readers = {name: reads for name, reads in engine.client_metadata.items() if name not in unproven}
    asked = read_metadata(members, readers, leaves_out=True)
    confined = replace(
        asked,
        scopes=tuple(scope for scope in asked.scopes if scope in scopes) or tuple(scopes),
        grant_types=tuple(name for name in asked.grant_types if name in grant_types),
    )
    offered = _offered(engine, asked, confined)
    metadata = _with_redirect_uris(offered, [uri for uri in offered.redirect_uris if _may_have(engine, uri)])
    check_metadata(engine, metadata, registered_by=RegisteredBy.SELF)
    return with_metadata(new_client(engine, client_id, RegisteredBy.SELF), metadata)


def describe(client: Client, secret: str | None) -> dict[str, Any]:
    """The client information response: everything in effect, nothing null (RFC 7591, 3.2.1)."""
    answer: dict[str, Any] = {
        "client_id": client.client_id,
        "client_id_issued_at": int(client.created_at.timestamp()),
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "token_endpoint_auth_method": client.auth_method,
        "grant_types": list(client.grant_types),
        "response_types": list(client.response_types),
        "scope": " ".join(client.scopes),
        "application_type": client.application_type,
        **client.details,
    }
    if secret is not None:
        answer |= {"client_secret": secret, "client_secret_expires_at": 0}
    # Left out, response_types would mean its default, `code` (RFC 7591, 2); so it is stated even when empty.
    return {
        name: value
        for name, value in answer.items()
        if name == "response_types" or value not in ("", [], None)
    }


def _offered(engine: Engine, asked: ClientMetadata, allowed: ClientMetadata) -> ClientMetadata:
    """The metadata that policies allowed, without values that this server does not offer (RFC 7591, 2)."""
    grant_types = [name for name in allowed.grant_types if name in engine.grant_types]
    response_types = tuple(name for name in allowed.response_types if name == "code")
    if "authorization_code" in asked.grant_types and "authorization_code" not in grant_types:
        # Members that belong only to that grant type are left out with it.
        grant_types = [name for name in grant_types if name != "refresh_token"]
        response_types = ()
    return replace(
        allowed,
        grant_types=tuple(grant_types),
        response_types=response_types,
        scopes=tuple(scope for scope in allowed.scopes if scope in engine.scopes),
    )


def _acceptable(engine: Engine, metadata: ClientMetadata, client: Client) -> ClientMetadata:
    """The same without the redirect URIs that would not be accepted at the authorization endpoint.

    Args:
        client: the client with this metadata.
    """
    client = with_metadata(client, metadata)
    return _with_redirect_uris(
        metadata,
        [
            uri
            for uri in metadata.redirect_uris
            if _may_have(engine, uri)
            and engine.ask(RedirectUriQuestion(client=client, redirect_uri=uri)).allowed
        ],
    )


def _may_have(engine: Engine, uri: str) -> bool:
    """Whether a redirect URI needs no permission of an operator, or has one."""
    return uri in engine.private_use_redirect_uris or not uris.needs_permission(uri)


def _with_redirect_uris(metadata: ClientMetadata, redirect_uris: Sequence[str]) -> ClientMetadata:
    """The same with these redirect URIs, and an application type that does not contradict them."""
    application_type = metadata.application_type
    if application_type == "web":
        application_type = uris.fitting_application_type(redirect_uris)
    return replace(metadata, redirect_uris=tuple(redirect_uris), application_type=application_type)


def _refuse_what_was_left_out(asked: ClientMetadata, allowed: ClientMetadata) -> None:
    """Raises InvalidRedirectUri, InvalidClientMetadata."""
    left_out = [
        name
        for name in ("grant_types", "response_types", "scopes", "redirect_uris")
        if not set(getattr(asked, name)) <= set(getattr(allowed, name))
    ]
    if left_out:
        error = InvalidRedirectUri if left_out == ["redirect_uris"] else InvalidClientMetadata
        names = ", ".join(left_out).replace("scopes", "scope")
        raise error(f"{names}: not everything in it is offered here.", reason="not-everything-offered")


def new_client(engine: Engine, client_id: str, registered_by: RegisteredBy) -> Client:
    """A client without metadata yet."""
    return Client(
        client_id=client_id,
        name=client_id,
        auth_method="none",
        registered_by=registered_by,
        created_at=engine.now,
    )


def _is_client_id(text: str) -> bool:
    return (
        1 <= len(text) <= MAXIMUM_CHOSEN_ID
        and all("!" <= character <= "~" for character in text)
        and not text.startswith(RESERVED_PREFIXES)
    )
