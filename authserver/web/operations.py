"""The operations of the core for the OpenAPI document: the requests, answers and errors of each endpoint."""

from __future__ import annotations

from collections.abc import Mapping

from authserver.engine import pkce
from authserver.engine.clients import client_metadata
from authserver.engine.errors import (
    InvalidClientMetadata,
    InvalidGrant,
    InvalidRedirectUri,
    InvalidScope,
    InvalidTarget,
    InvalidToken,
    RequestNotSupported,
    UnauthorizedClient,
    UnsupportedGrantType,
    UnsupportedResponseType,
    UnsupportedTokenType,
)
from authserver.engine.grants import assertion
from authserver.engine.introspect import SIGNED
from authserver.limits import (
    MAXIMUM_CLIENT_NAME,
    MAXIMUM_CONTACT,
    MAXIMUM_ITEMS,
    MAXIMUM_MEMBER,
    MAXIMUM_PARAMETER,
    MAXIMUM_REDIRECT_URIS,
    MAXIMUM_RESOURCES,
    MAXIMUM_SCOPE,
    MAXIMUM_URI,
)
from authserver.web.operation import TEXT, TEXTS, Bearer, Members, Operation, Parameter, Schema

_URI: Schema = {"type": "string", "format": "uri", "maxLength": MAXIMUM_URI}
_CREDENTIAL: Schema = {"type": "string", "minLength": 1, "maxLength": MAXIMUM_PARAMETER}
# Scope tokens with single spaces between them (RFC 6749, 3.3).
_SCOPE: Schema = {
    "type": "string",
    "pattern": r"^([!#-\[\]-~]+( [!#-\[\]-~]+)*)?$",
    "maxLength": MAXIMUM_SCOPE,
}
_INSTANT: Schema = {"type": "integer", "description": "Seconds since 1970 (UTC)."}

SCOPE_PARAMETER = Parameter(
    description="The scopes, with single spaces between them (RFC 6749, 3.3).", schema=_SCOPE
)
RESOURCE_PARAMETER = Parameter(
    description="The resource that the token is for; may be repeated (RFC 8707, 2).",
    schema={"type": "array", "items": _URI, "maxItems": MAXIMUM_RESOURCES},
)
REDIRECT_URI = Parameter(description="The URI to which the response goes (OAuth 2.1, 4.1.1).", schema=_URI)
TOKEN_TO_LOOK_AT = Parameter(description="The token.", schema=_CREDENTIAL, required=True)
HINT = Parameter(description="The kind of the token; the server does not need this hint, and ignores it.")

# The parameters of an authorization request, for endpoints that take one as a form.
AUTHORIZATION_REQUEST: Members = {
    "response_type": Parameter(
        description="The response type (OAuth 2.1, 4.1.1).", schema={"const": "code"}, required=True
    ),
    "redirect_uri": REDIRECT_URI,
    "scope": SCOPE_PARAMETER,
    "state": Parameter(
        description="A text that comes back to the client unchanged (OAuth 2.1, 4.1.1).",
        schema={"type": "string", "pattern": "^[ -~]*$"},
    ),
    "code_challenge": Parameter(
        description="The SHA-256 of the verifier, in base64url (RFC 7636, 4.2).",
        schema={"type": "string", "pattern": f"^{pkce.CHALLENGE.pattern}$"},
        required=True,
    ),
    "code_challenge_method": Parameter(
        description="The method of the challenge (RFC 7636, 4.3).",
        schema={"enum": list(pkce.METHODS)},
        required=True,
    ),
    "response_mode": Parameter(description="How the response is sent.", schema={"const": "query"}),
    "resource": RESOURCE_PARAMETER,
}

# The errors of such a request, beside those of every endpoint.
AUTHORIZATION_ERRORS = (
    InvalidScope,
    InvalidTarget,
    RequestNotSupported,
    UnauthorizedClient,
    UnsupportedResponseType,
)

# The parameters of a token request by its grant type, without `grant_type` and those that authenticate the client.
GRANT_FORMS: Mapping[str, Members] = {
    "authorization_code": {
        "code": Parameter(description="The authorization code.", schema=_CREDENTIAL, required=True),
        "code_verifier": Parameter(
            description="The verifier from which the challenge was made (RFC 7636, 4.5).",
            schema={"type": "string", "pattern": f"^{pkce.VERIFIER.pattern}$"},
            required=True,
        ),
        "redirect_uri": Parameter(
            description="The redirect URI of the authorization request, if it is sent at all.", schema=_URI
        ),
        "resource": RESOURCE_PARAMETER,
    },
    "refresh_token": {
        "refresh_token": Parameter(
            description="The newest refresh token.", schema=_CREDENTIAL, required=True
        ),
        "scope": Parameter(description="Some or all of the granted scopes.", schema=_SCOPE),
        "resource": RESOURCE_PARAMETER,
    },
    "client_credentials": {"scope": SCOPE_PARAMETER, "resource": RESOURCE_PARAMETER},
    assertion.GRANT_TYPE: {
        "assertion": Parameter(
            description="The assertion of a trusted issuer (RFC 7523, 2.1).", schema=TEXT, required=True
        ),
        "scope": SCOPE_PARAMETER,
        "resource": RESOURCE_PARAMETER,
    },
}

TOKEN = Operation(
    summary="Get tokens (OAuth 2.1, 3.2).",
    form={},
    authenticates=True,
    answer={
        "access_token": Parameter(description="The access token.", required=True),
        "token_type": Parameter(description="How the token is used (OAuth 2.1, 1.4).", required=True),
        "expires_in": Parameter(
            description="Seconds for which it is valid.",
            schema={"type": "integer", "minimum": 1},
            required=True,
        ),
        "scope": Parameter(description="The scopes of the token.", schema={"type": "string"}, required=True),
        "refresh_token": Parameter(description="The refresh token, if the client may refresh."),
    },
    errors=(
        InvalidGrant,
        InvalidScope,
        InvalidTarget,
        UnauthorizedClient,
        UnsupportedGrantType,
    ),
    limited=True,
    open_to=("token_binding", "assertion_profiles", "exchangeable_tokens"),
)

INTROSPECT = Operation(
    summary="Introspect a token (RFC 7662), with an answer as JSON or as a signed JWT (RFC 9701).",
    form={"token": TOKEN_TO_LOOK_AT, "token_type_hint": HINT},
    authenticates=True,
    answer={
        "active": Parameter(
            description="Whether the token can be used. If not, there is no other member.",
            schema={"type": "boolean"},
            required=True,
        ),
        "scope": Parameter(description="Its scopes.", schema={"type": "string"}),
        "client_id": Parameter(description="The client to which it was issued."),
        "sub": Parameter(description="The person, or the client itself."),
        "aud": Parameter(description="The resources that it is for.", schema={"type": ["string", "array"]}),
        "iss": Parameter(description="The issuer identifier of this server.", schema=_URI),
        "exp": Parameter(description="When it expires.", schema=_INSTANT),
        "iat": Parameter(description="When it was issued.", schema=_INSTANT),
        "jti": Parameter(description="Its identifier."),
        "token_type": Parameter(description="How an access token is used; absent for other tokens."),
        "cnf": Parameter(description="The key that it is bound to (RFC 7800, 3).", schema={"type": "object"}),
        "acr": Parameter(description="How the person signed in (RFC 9470, 6.2)."),
        "auth_time": Parameter(description="When the person signed in (RFC 9470, 6.2).", schema=_INSTANT),
    },
    media_type=f"application/{SIGNED}",
    limited=True,
)

REVOKE = Operation(
    summary="Revoke a token and all tokens of the same grant (RFC 7009).",
    form={"token": TOKEN_TO_LOOK_AT, "token_type_hint": HINT},
    authenticates=True,
    errors=(UnsupportedTokenType,),
    limited=True,
)

_MEMBER: Schema = {"type": ["string", "null"], "maxLength": MAXIMUM_MEMBER}
_LIST: Schema = {"type": ["array", "null"], "items": {"type": "string"}, "maxItems": MAXIMUM_ITEMS}
# The metadata that a client may send (RFC 7591, 2). Empty values and null count as absent.
METADATA: Members = {
    "client_name": Parameter(
        description="The name that people see; printable, without white space around it.",
        schema={"type": ["string", "null"], "maxLength": MAXIMUM_MEMBER},
    ),
    "redirect_uris": Parameter(
        description="Required for the grant type `authorization_code`.",
        schema={"type": ["array", "null"], "items": {"type": "string"}, "maxItems": MAXIMUM_REDIRECT_URIS},
    ),
    "token_endpoint_auth_method": Parameter(
        description="How the client authenticates; `client_secret_basic` if it is absent.", schema=_MEMBER
    ),
    "grant_types": Parameter(
        description="The grant types that it will use; `authorization_code` if it is absent.", schema=_LIST
    ),
    "response_types": Parameter(
        description="The response types that it will use: `code`, or none.", schema=_LIST
    ),
    "scope": Parameter(
        description="The scopes that it will ask for.",
        schema={"type": ["string", "null"], "maxLength": MAXIMUM_SCOPE},
    ),
    "application_type": Parameter(
        description="`web` or `native`; if it is absent, it follows from the redirect URIs.",
        schema={"enum": ["web", "native", "", None]},
    ),
    "contacts": Parameter(
        description="People to ask about the client.",
        schema={
            "type": ["array", "null"],
            "items": {"type": "string", "maxLength": MAXIMUM_CONTACT},
            "maxItems": MAXIMUM_ITEMS,
        },
    ),
    **{
        name: Parameter(
            description="An https address; `#` and a language may follow the name.", schema=_MEMBER
        )
        for name in client_metadata.LINKS
    },
    **{
        name: Parameter(
            description="A text that the developers choose.",
            schema={"type": ["string", "null"], "maxLength": MAXIMUM_CLIENT_NAME},
        )
        for name in client_metadata.TEXTS
    },
    "jwks": Parameter(
        description="It is not stored.", schema={"type": ["object", "null", "array", "string"]}
    ),
    "jwks_uri": Parameter(description="It is not stored; excludes `jwks`.", schema=_MEMBER),
}

# The client information response (RFC 7591, 3.2.1).
INFORMATION: Members = {
    "client_id": Parameter(description="Its identifier.", required=True),
    "client_id_issued_at": Parameter(description="When it was registered.", schema=_INSTANT, required=True),
    "client_secret": Parameter(description="Its secret, which is shown once; not for public clients."),
    "client_secret_expires_at": Parameter(description="0: the secret does not expire.", schema={"const": 0}),
    "client_name": Parameter(description="Its name.", required=True),
    "redirect_uris": Parameter(description="Its redirect URIs.", schema=TEXTS),
    "token_endpoint_auth_method": Parameter(description="How it authenticates.", required=True),
    "grant_types": Parameter(description="The grant types that it may use.", schema=TEXTS, required=True),
    "response_types": Parameter(
        description="The response types that it may use.", schema=TEXTS, required=True
    ),
    "scope": Parameter(description="The scopes that it may ask for."),
    "application_type": Parameter(
        description="Its application type.", schema={"enum": ["web", "native"]}, required=True
    ),
    "contacts": Parameter(description="The value as registered.", schema=TEXTS),
    **{
        name: Parameter(description="The value as registered.")
        for name in (*client_metadata.LINKS, *client_metadata.TEXTS)
    },
}

REGISTER = Operation(
    summary="Register a client (RFC 7591, 3).",
    json=METADATA,
    status=201,
    bearer=Bearer(
        name="initial_access_token",
        description="An initial access token, where the operator requires one (RFC 7591, 3).",
    ),
    answer=INFORMATION,
    errors=(InvalidClientMetadata, InvalidRedirectUri, InvalidToken),
    limited=True,
    open_to=("client_metadata", "registration_response"),
)

JWKS = Operation(
    summary="The public keys of access tokens (RFC 7517, 5).",
    answer={
        "keys": Parameter(
            description="One object for each key.",
            schema={
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["kty", "kid", "alg", "use"],
                    "properties": {name: dict(TEXT) for name in ("kty", "kid", "alg", "use")},
                },
            },
            required=True,
        )
    },
    cached=True,
)

# Its members are those that this server publishes.
METADATA_DOCUMENT = Operation(summary="The metadata of the server (RFC 8414, 2).", cached=True)

_OK: Members = {"status": Parameter(description="The state.", schema={"const": "ok"}, required=True)}
LIVE = Operation(summary="Whether the process answers.", answer=_OK)
READY = Operation(
    summary="Whether the database can be used.",
    answer=_OK,
    failure={"status": Parameter(description="The state.", schema={"const": "unavailable"}, required=True)},
)
