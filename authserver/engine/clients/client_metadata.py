"""Client metadata (RFC 7591, 2): how it is read, and the floor under every registration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from authserver.engine import uris
from authserver.engine.context import Engine, ReadMember
from authserver.engine.crypto import strict_json
from authserver.engine.errors import InvalidClientMetadata, InvalidRedirectUri, InvalidScope
from authserver.engine.parameters import scope_set
from authserver.engine.printable import is_printable
from authserver.engine.records import Client, ClientMetadata, RegisteredBy
from authserver.limits import (
    MAXIMUM_CLIENT_NAME,
    MAXIMUM_CONTACT,
    MAXIMUM_ITEMS,
    MAXIMUM_JSON,
    MAXIMUM_MEMBER,
    MAXIMUM_REDIRECT_URIS,
    MAXIMUM_SCOPE,
)

LINKS = ("client_uri", "logo_uri", "tos_uri", "policy_uri")
TEXTS = ("software_id", "software_version")
# The core's members that are stored in the details of a client.
_DETAILS = frozenset({*LINKS, *TEXTS, "contacts"})
# The members that no plugin may add, because the core has them, or shows a client with these names.
CORE_MEMBERS = frozenset(
    {
        *_DETAILS,
        "application_type",
        "client_id",
        "client_id_issued_at",
        "client_name",
        "client_secret",
        "client_secret_expires_at",
        "created_at",
        "disabled_at",
        "first_party",
        "grant_types",
        "logo",
        "redirect_uris",
        "registered_by",
        "resources",
        "response_types",
        "rotates_refresh_tokens",
        "scope",
        "secrets",
        "token_endpoint_auth_method",
    }
)


def read_object(body: bytes) -> dict[str, Any]:
    """The members of a registration as sent, without empty ones and null. Raises InvalidClientMetadata."""
    try:
        sent = strict_json.object_of(body)
    except ValueError as error:
        # Its text is fixed, and repeats nothing of the body.
        raise InvalidClientMetadata(
            f"The body must be a JSON object of at most {MAXIMUM_JSON // 1024} kB: {error}."
        ) from None
    return {name: value for name, value in sent.items() if value not in ("", [], None)}


def read_metadata(
    given: Mapping[str, Any], readers: Mapping[str, ReadMember], *, leaves_out: bool = False
) -> ClientMetadata:
    """Read client metadata and check its form; unknown members are ignored (RFC 7591, 2).

    It is not checked whether this server offers the values.

    Args:
        given: the members that were sent, none of them empty.
        readers: the functions that read the members of plugins.
        leaves_out: whether a malformed member that is only displayed, such as `logo_uri`, is left out. It is when the
            client cannot get an error, or has not written the metadata for this server alone.

    Raises:
        InvalidClientMetadata, InvalidRedirectUri: naming the member.
        ServerError: a plugin failed.
    """
    grant_types = _texts(given, "grant_types", ("authorization_code",))
    redirect_uris = _texts(given, "redirect_uris", (), error=InvalidRedirectUri)
    _check_how_many(redirect_uris)
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
        details=_details(given, leaves_out=leaves_out) | read_members(given, readers),
    )


def members(client: Client) -> dict[str, Any]:
    """The metadata of a client, by the names of RFC 7591, 2, and our own; without secrets."""
    return {
        "client_name": client.name,
        "token_endpoint_auth_method": client.auth_method,
        "grant_types": list(client.grant_types),
        "response_types": list(client.response_types),
        "redirect_uris": list(client.redirect_uris),
        "scope": " ".join(client.scopes),
        "resources": list(client.resources),
        "application_type": client.application_type,
        "first_party": client.first_party,
        "rotates_refresh_tokens": client.rotates_refresh_tokens or client.is_public,
        "logo": client.logo,
        **client.details,
    }


def read_members(given: Mapping[str, Any], readers: Mapping[str, ReadMember]) -> dict[str, Any]:
    """The members that plugins keep (hook `client_metadata`).

    Raises:
        InvalidClientMetadata: a plugin refuses the value of a member that it added.
        ServerError: a plugin failed.
    """
    read = {name: reads(name, given[name]) for name, reads in readers.items() if name in given}
    return {name: value for name, value in read.items() if value is not None}


def value_of(text: str) -> Any:
    """The value of a typed member: the JSON value of the text, or else the text itself."""
    try:
        return strict_json.loads(text.encode())
    except ValueError:
        return text


# Neither of them gives a first refresh token.
_WITHOUT_A_PERSON = {"refresh_token", "client_credentials"}


def read_flag(name: str, value: object) -> bool | None:
    """A member that is true or false, for `client_metadata`; false is not kept. Raises InvalidClientMetadata."""
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
    if "refresh_token" in metadata.grant_types and set(metadata.grant_types) <= _WITHOUT_A_PERSON:
        raise InvalidClientMetadata(
            "grant_types: refresh_token needs authorization_code or another grant of a person."
        )
    _check_redirect_uris(engine, metadata)
    if metadata.token_endpoint_auth_method not in engine.auth_methods:
        raise InvalidClientMetadata("token_endpoint_auth_method is not offered.")
    if (proof := engine.client_proofs.get(metadata.token_endpoint_auth_method)) is not None:
        proof.check(metadata)
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
    if str(metadata.details.get("jwks_uri", "")).startswith("http:") and not engine.settings.fetch_loopback:
        raise InvalidClientMetadata("jwks_uri: It must be a complete https URI with a valid host.")


def problem_with_details(metadata: ClientMetadata) -> str | None:
    """The reason why the details from a policy cannot be stored and shown beside the core's members; None if they can."""
    if taken := metadata.details.keys() & CORE_MEMBERS - _DETAILS:
        return f"details have {', '.join(sorted(taken))}, which the core says"
    return (
        None if strict_json.comes_back(dict(metadata.details)) else "details are no JSON that can be stored"
    )


def _check_redirect_uris(engine: Engine, metadata: ClientMetadata) -> None:
    if "authorization_code" in metadata.grant_types and not metadata.redirect_uris:
        raise InvalidRedirectUri(
            "redirect_uris is missing, or none of them is accepted here: use https, http to a loopback host, "
            "or a private-use scheme with a period.",
            reason="no-redirect-uri",
        )
    _check_how_many(metadata.redirect_uris)
    for uri in metadata.redirect_uris:
        problem = uris.redirect_uri_problem(
            uri,
            application_type=metadata.application_type,
            private_use=engine.private_use_redirect_uris,
        )
        if problem:
            reason = "private-use-not-allowed" if uris.needs_permission(uri) else ""
            raise InvalidRedirectUri(f"redirect_uris: {problem}", reason=reason)


def _check_how_many(redirect_uris: tuple[str, ...]) -> None:
    if len(redirect_uris) > MAXIMUM_REDIRECT_URIS:
        raise InvalidRedirectUri(f"redirect_uris holds more than {MAXIMUM_REDIRECT_URIS} URIs.")


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


def _details(given: Mapping[str, Any], *, leaves_out: bool) -> dict[str, Any]:
    """Display metadata, localised members held to the rule of their base member (T134)."""
    if "jwks" in given and "jwks_uri" in given:
        raise InvalidClientMetadata("jwks and jwks_uri exclude each other.")
    if not isinstance(given.get("jwks", {}), dict):
        raise InvalidClientMetadata("jwks must be an object.")
    if "jwks_uri" in given and (problem := uris.fetched_problem(_text(given, "jwks_uri"))):
        raise InvalidClientMetadata(f"jwks_uri: {problem}")
    _check_name(_text(given, "client_name"))
    details: dict[str, Any] = {}
    for name in given:
        try:
            value = _shown(given, name)
        except InvalidClientMetadata:
            if not leaves_out:
                raise
            continue
        if value is not None and name in _DETAILS:
            details[name] = value
    return details


def _shown(given: Mapping[str, Any], name: str) -> str | list[str] | None:
    """The value of a displayed member; None for any other member. Raises InvalidClientMetadata."""
    base = name.partition("#")[0]
    if base in LINKS:
        text = _text(given, name)
        if problem := uris.link_problem(text):
            raise InvalidClientMetadata(f"{base}: {problem}")
        return text
    if base in TEXTS or base == "client_name":
        text = _text(given, name)
        _check_name(text if base == "client_name" else "")
        return text
    if name == "contacts":
        contacts = _texts(given, name, ())
        if any(len(contact) > MAXIMUM_CONTACT for contact in contacts):
            raise InvalidClientMetadata("contacts must be short printable strings.")
        return list(contacts) or None
    return None


def with_metadata(client: Client, metadata: ClientMetadata) -> Client:
    """The client with this metadata instead of its own; members that only an operator sets stay."""
    return replace(
        client,
        name=metadata.client_name or client.client_id,
        auth_method=metadata.token_endpoint_auth_method,
        redirect_uris=metadata.redirect_uris,
        grant_types=metadata.grant_types,
        response_types=metadata.response_types,
        scopes=metadata.scopes,
        application_type=metadata.application_type,
        details=metadata.details,
    )
