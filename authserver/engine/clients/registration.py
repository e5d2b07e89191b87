"""Client metadata, with one validation for all, and dynamic registration (RFC 7591)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from authserver.engine import uris
from authserver.engine.clients.authentication import read_bearer
from authserver.engine.clients.secrets import new_secret
from authserver.engine.context import Engine, ReadMember
from authserver.engine.crypto import digests, strict_json
from authserver.engine.errors import InvalidClientMetadata, InvalidRedirectUri, InvalidScope, InvalidToken
from authserver.engine.parameters import scope_set
from authserver.engine.printable import is_printable
from authserver.engine.questions import RedirectUriQuestion, RegistrationQuestion
from authserver.engine.records import Client, ClientMetadata, EventType, RegisteredBy
from authserver.limits import (
    MAXIMUM_CLIENT_NAME,
    MAXIMUM_CONTACT,
    MAXIMUM_ITEMS,
    MAXIMUM_MEMBER,
    MAXIMUM_REDIRECT_URIS,
    MAXIMUM_SCOPE,
)

# The reason of a registration policy if only a valid initial access token is missing.
INITIAL_ACCESS_TOKEN_REQUIRED = "initial-access-token-required"

LINKS = ("client_uri", "logo_uri", "tos_uri", "policy_uri")
TEXTS = ("software_id", "software_version")
# What no plugin may add: these are the core's, or names under which it shows a client.
CORE_MEMBERS = frozenset(
    {
        *LINKS,
        *TEXTS,
        "application_type",
        "client_id",
        "client_id_issued_at",
        "client_name",
        "client_secret",
        "client_secret_expires_at",
        "contacts",
        "created_at",
        "disabled_at",
        "first_party",
        "grant_types",
        "redirect_uris",
        "registered_by",
        "resources",
        "response_types",
        "rotates_refresh_tokens",
        "scope",
        "secrets",
        "software_statement",
        "token_endpoint_auth_method",
    }
)


def register(engine: Engine, body: bytes) -> Mapping[str, Any]:
    """Let a client register itself, if a policy agrees, and say what it got (RFC 7591, 3.2.1).

    Args:
        body: the JSON object as sent. The initial access token, if any, is the authorization of the caller.

    Raises:
        InvalidRedirectUri, InvalidClientMetadata: a member cannot be registered, or a policy refuses.
        InvalidToken: a policy wants an initial access token and this is none.
    """
    client_id = digests.new_identifier("client_")
    allowed = allowed_metadata(engine, body, client_id)
    client, secret = add_client(engine, allowed, client_id=client_id, registered_by=RegisteredBy.SELF)
    return describe(client, secret)


def allowed_metadata(engine: Engine, body: bytes, client_id: str) -> ClientMetadata:
    """What a client may register itself with: its form is checked, policies decide, the floor judges the result.

    Raises as `register` does.
    """
    asked = read_metadata(body, engine.client_metadata)
    bearer = read_bearer(engine.caller.authorization)
    ruling = engine.ask(RegistrationQuestion(metadata=asked, bearer=bearer, source=engine.caller.source))
    if not ruling.allowed:
        if ruling.reason == INITIAL_ACCESS_TOKEN_REQUIRED:
            raise InvalidToken(
                "An initial access token is required.", reason=ruling.reason, sent=bearer is not None
            )
        raise InvalidClientMetadata("This registration is not allowed here.", reason=ruling.reason)
    allowed = _acceptable(engine, _offered(engine, asked, ruling.allowed_value), client_id)
    if engine.settings.strict_registration:
        _refuse_what_was_left_out(asked, allowed)
    check_metadata(engine, allowed, registered_by=RegisteredBy.SELF)
    return allowed


def add_client(
    engine: Engine,
    metadata: ClientMetadata,
    *,
    client_id: str | None = None,
    first_party: bool = False,
    registered_by: RegisteredBy = RegisteredBy.OPERATOR,
    rotates_refresh_tokens: bool = True,
) -> tuple[Client, str | None]:
    """Keep a new client.

    Args:
        client_id: chosen by an operator; otherwise a fresh one.
        rotates_refresh_tokens: False lets a confidential client keep its refresh token.

    Returns:
        The client and its secret, which is not readable again; None for a client without secret.

    Raises:
        InvalidRedirectUri, InvalidClientMetadata: as for `check_metadata`.
        AlreadyExists: the client id is taken.
    """
    check_metadata(engine, metadata, registered_by=registered_by)
    if metadata.token_endpoint_auth_method == "none" and not rotates_refresh_tokens:
        raise InvalidClientMetadata("Refresh tokens rotate unless the client has a credential of its own.")
    if client_id is None:
        client_id = digests.new_identifier("client_")
    elif not _is_client_id(client_id):
        raise InvalidClientMetadata(
            "A client_id has up to 100 visible ASCII characters and begins neither with user_ nor https:."
        )
    secret, stored = None, None
    if metadata.token_endpoint_auth_method.startswith("client_secret_"):
        secret, stored = new_secret(engine.ring, client_id, engine.now)
    client = replace(
        _client(engine, metadata, client_id, registered_by),
        first_party=first_party,
        rotates_refresh_tokens=rotates_refresh_tokens,
        secrets=(stored,) if stored else (),
    )
    engine.stores.clients.add(client)
    engine.journal.client_id = client_id
    engine.record(EventType.CLIENT_REGISTERED, details={"registered_by": registered_by})
    return client, secret


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


def read_metadata(body: bytes, readers: Mapping[str, ReadMember]) -> ClientMetadata:
    """Parse client metadata and check its form; members that nobody here reads are ignored (RFC 7591, 2).

    What is empty or null counts as absent. Whether it is offered here is not checked.

    Args:
        readers: of the members that plugins keep.

    Raises:
        InvalidClientMetadata, InvalidRedirectUri: naming the member.
        ServerError: a plugin failed.
    """
    try:
        sent = strict_json.loads(body)
    except ValueError:
        sent = None
    if not isinstance(sent, dict):
        raise InvalidClientMetadata("The body must be a JSON object of at most 16 kB.")
    given = {name: value for name, value in sent.items() if value not in ("", [], None)}
    grant_types = _texts(given, "grant_types", ("authorization_code",))
    redirect_uris = _texts(given, "redirect_uris", (), error=InvalidRedirectUri)
    if len(redirect_uris) > MAXIMUM_REDIRECT_URIS:
        raise InvalidRedirectUri(f"redirect_uris holds more than {MAXIMUM_REDIRECT_URIS} URIs.")
    for uri in redirect_uris:
        if problem := uris.malformed(uri):
            raise InvalidRedirectUri(f"redirect_uris: {problem}")
    return ClientMetadata(
        client_name=_text(given, "client_name").strip(),
        redirect_uris=redirect_uris,
        token_endpoint_auth_method=_text(given, "token_endpoint_auth_method", "client_secret_basic"),
        grant_types=grant_types,
        response_types=_texts(
            given, "response_types", ("code",) if "authorization_code" in grant_types else ()
        ),
        scopes=_scopes(given),
        application_type=_text(given, "application_type") or uris.fitting_application_type(redirect_uris),
        details=_details(given) | read_members(given, readers),
    )


def read_members(given: Mapping[str, Any], readers: Mapping[str, ReadMember]) -> dict[str, Any]:
    """What plugins keep of these members (hook `client_metadata`).

    Raises:
        InvalidClientMetadata: a plugin refuses the value of a member that it added.
        ServerError: a plugin failed.
    """
    read = {name: reads(name, given[name]) for name, reads in readers.items() if name in given}
    return {name: value for name, value in read.items() if value is not None}


def read_flag(name: str, value: object) -> bool | None:
    """A member that is true or false, for `client_metadata`; what is false is not kept. Raises InvalidClientMetadata."""
    if not isinstance(value, bool):
        raise InvalidClientMetadata(f"{name} must be true or false.")
    return value or None


def check_metadata(engine: Engine, metadata: ClientMetadata, *, registered_by: RegisteredBy) -> None:
    """The floor under every registration, by a client or an operator, after the policies.

    Raises:
        InvalidRedirectUri: a redirect URI is missing, superfluous or not registrable.
        InvalidClientMetadata: any other member.
    """
    if not metadata.grant_types:
        raise InvalidClientMetadata("grant_types: none of them is offered here.", reason="no-grant-type")
    if any(grant_type not in engine.grant_types for grant_type in metadata.grant_types):
        raise InvalidClientMetadata("grant_types holds a grant type that is not offered.")
    if metadata.application_type not in ("web", "native"):
        raise InvalidClientMetadata("application_type must be web or native.")
    redirects = "authorization_code" in metadata.grant_types
    if metadata.response_types != (("code",) if redirects else ()):
        raise InvalidClientMetadata("response_types must be code with authorization_code, and empty without.")
    if "refresh_token" in metadata.grant_types and not redirects:
        raise InvalidClientMetadata("refresh_token needs authorization_code among grant_types.")
    if redirects and not metadata.redirect_uris:
        raise InvalidRedirectUri(
            "redirect_uris is missing, or none of them is accepted here: use https, http to a loopback host, "
            "or a private-use scheme with a period.",
            reason="no-redirect-uri",
        )
    if len(metadata.redirect_uris) > MAXIMUM_REDIRECT_URIS:
        raise InvalidRedirectUri(f"redirect_uris holds more than {MAXIMUM_REDIRECT_URIS} URIs.")
    for uri in metadata.redirect_uris:
        problem = uris.redirect_uri_problem(
            uri,
            application_type=metadata.application_type,
            private_use=engine.private_use_redirect_uris,
        )
        if problem:
            reason = "private-use-not-allowed" if uris.needs_permission(uri) else ""
            raise InvalidRedirectUri(f"redirect_uris: {problem}", reason=reason)
    if metadata.token_endpoint_auth_method not in engine.auth_methods:
        raise InvalidClientMetadata("token_endpoint_auth_method is not offered.")
    if metadata.token_endpoint_auth_method == "none" and "client_credentials" in metadata.grant_types:
        raise InvalidClientMetadata("client_credentials needs a client that authenticates.")
    known = engine.scopes
    if any(scope not in known for scope in metadata.scopes):
        raise InvalidClientMetadata("scope holds a scope that does not exist.")
    # An operator's client that only introspects needs no scope; any other could never get a token.
    if not metadata.scopes and (redirects or registered_by is RegisteredBy.SELF):
        raise InvalidClientMetadata(
            "scope must name at least one scope, or nothing could be granted.", reason="no-scope"
        )
    _check_name(metadata.client_name)
    read_members(metadata.details, engine.client_metadata)
    for name in LINKS:
        if name in metadata.details:
            problem = uris.link_problem(metadata.details[name])
            if problem:
                raise InvalidClientMetadata(f"{name}: {problem}")


def _offered(engine: Engine, asked: ClientMetadata, allowed: ClientMetadata) -> ClientMetadata:
    """What policies allowed, without what this server does not offer at all (RFC 7591, 2)."""
    grant_types = [name for name in allowed.grant_types if name in engine.grant_types]
    response_types = tuple(name for name in allowed.response_types if name == "code")
    if "authorization_code" in asked.grant_types and "authorization_code" not in grant_types:
        # Members that belong to that grant type only are left out with it.
        grant_types = [name for name in grant_types if name != "refresh_token"]
        response_types = ()
    return replace(
        allowed,
        grant_types=tuple(grant_types),
        response_types=response_types,
        scopes=tuple(scope for scope in allowed.scopes if scope in engine.scopes),
    )


def _acceptable(engine: Engine, metadata: ClientMetadata, client_id: str) -> ClientMetadata:
    """The same without the redirect URIs that would not be accepted at the authorization endpoint.

    An application type that contradicts the URIs that are left is replaced by theirs.
    """
    client = _client(engine, metadata, client_id, RegisteredBy.SELF)
    redirect_uris = tuple(
        uri
        for uri in metadata.redirect_uris
        if (uri in engine.private_use_redirect_uris or not uris.needs_permission(uri))
        and engine.ask(RedirectUriQuestion(client=client, redirect_uri=uri)).allowed
    )
    application_type = metadata.application_type
    if application_type == "web":
        application_type = uris.fitting_application_type(redirect_uris)
    return replace(metadata, redirect_uris=redirect_uris, application_type=application_type)


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


def _client(engine: Engine, metadata: ClientMetadata, client_id: str, registered_by: RegisteredBy) -> Client:
    return Client(
        client_id=client_id,
        name=metadata.client_name or client_id,
        auth_method=metadata.token_endpoint_auth_method,
        redirect_uris=metadata.redirect_uris,
        grant_types=metadata.grant_types,
        response_types=metadata.response_types,
        scopes=metadata.scopes,
        application_type=metadata.application_type,
        registered_by=registered_by,
        created_at=engine.now,
        details=metadata.details,
    )


def _check_name(name: str) -> None:
    if len(name) > MAXIMUM_CLIENT_NAME or not is_printable(name):
        raise InvalidClientMetadata(f"client_name must be up to {MAXIMUM_CLIENT_NAME} printable characters.")


def _text(given: Mapping[str, Any], name: str, default: str = "", maximum: int = MAXIMUM_MEMBER) -> str:
    value = given.get(name, default)
    if not isinstance(value, str) or len(value) > maximum or not is_printable(value):
        raise InvalidClientMetadata(f"{name} must be a string of printable characters.")
    return value


def _texts(
    given: Mapping[str, Any],
    name: str,
    default: tuple[str, ...],
    error: type[InvalidClientMetadata | InvalidRedirectUri] = InvalidClientMetadata,
) -> tuple[str, ...]:
    value = given.get(name, list(default))
    if (
        not isinstance(value, list)
        or len(value) > MAXIMUM_ITEMS
        or not all(isinstance(item, str) and is_printable(item) for item in value)
    ):
        raise error(f"{name} must be an array of strings of printable characters.")
    return tuple(dict.fromkeys(value))


def _scopes(given: Mapping[str, Any]) -> tuple[str, ...]:
    text = _text(given, "scope", maximum=MAXIMUM_SCOPE)
    try:
        return scope_set(text) if text else ()
    except InvalidScope:
        raise InvalidClientMetadata("scope is malformed.") from None


def _details(given: Mapping[str, Any]) -> dict[str, Any]:
    """Display metadata, localised members held to the rule of their base member (T134)."""
    if "jwks" in given and "jwks_uri" in given:
        raise InvalidClientMetadata("jwks and jwks_uri exclude each other.")
    if not isinstance(given.get("jwks", {}), dict) or not isinstance(
        given.get("software_statement", ""), str
    ):
        raise InvalidClientMetadata("jwks must be an object, software_statement a string.")
    details: dict[str, Any] = {}
    for name in given:
        base = name.partition("#")[0]
        if base in LINKS or name == "jwks_uri":
            text = _text(given, name)
            problem = uris.link_problem(text)
            if problem:
                raise InvalidClientMetadata(f"{base}: {problem}")
            if name in LINKS:
                details[name] = text
        elif base == "client_name" or base in TEXTS:
            text = _text(given, name)
            _check_name(text if base == "client_name" else "")
            if name in TEXTS:
                details[name] = text
    contacts = _texts(given, "contacts", ())
    if any(len(contact) > MAXIMUM_CONTACT for contact in contacts):
        raise InvalidClientMetadata("contacts must be short printable strings.")
    if contacts:
        details["contacts"] = list(contacts)
    return details


def _is_client_id(text: str) -> bool:
    return (
        1 <= len(text) <= 100
        and all("!" <= character <= "~" for character in text)
        and not text.startswith(("user_", "https:", "http:"))
    )
