"""The content of a file of declarations: one form for each kind of record.

Each field has its meaning, so that the JSON Schema for editors, the documentation and the error messages have the same
source. `authserver.declaring` reads them from TOML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta

from authserver.engine.records import NOTHING
from authserver.engine.setting_records import TrustedIssuer
from authserver.engine.tokens.assertions import TRUSTED_ALGORITHMS
from authserver.settings import MAXIMUM_ACCESS_TOKEN_LIFETIME, AccessTokenFormat

# The least lifetime of the access tokens of a resource in seconds, if it differs from that of others.
MINIMUM_LIFETIME = 10
MAXIMUM_USES = 1_000_000
Texts = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Where a secret is, or a file: never the secret itself."""

    env: Annotated[str | None, Meta(description="The environment variable that holds it.")] = None
    file: Annotated[
        str | None,
        Meta(
            description="The file that holds it; a relative path begins at the folder of the file that names it."
        ),
    ] = None

    def __str__(self) -> str:
        return f"env:{self.env}" if self.env is not None else f"file:{self.file}"

    @property
    def is_whole(self) -> bool:
        """Whether it names one place."""
        return bool(self.env) != bool(self.file)

    def as_written(self) -> dict[str, str]:
        """The member that is set."""
        members = {"env": self.env, "file": self.file}
        return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredClient:
    """An application that may ask for tokens, by its client id. Members that are left out have their defaults."""

    client_name: Annotated[str, Meta(description="The name that the consent page shows.")]
    redirect_uris: Annotated[
        Texts, Meta(description="Where its answers may go, compared character by character.")
    ] = ()
    grant_types: Annotated[
        Texts | None,
        Meta(
            description=(
                "The grant types that it may use. Without it: authorization_code and refresh_token with a redirect URI, "
                "client_credentials without."
            )
        ),
    ] = None
    scopes: Annotated[Texts, Meta(description="The scopes that it may have.")] = ()
    token_endpoint_auth_method: Annotated[
        str,
        Meta(
            description="How it proves who it is; `none` for applications that cannot keep a secret.",
        ),
    ] = "client_secret_basic"
    secret: Annotated[
        Reference | None,
        Meta(
            description=(
                "Where its secret is. When the content changes, the secret is replaced, and the one before is accepted for "
                "the time of `--overlap`. Without it, its secrets are left as they are: `authserver client rotate-secret` "
                "makes one."
            )
        ),
    ] = None
    application_type: Annotated[
        Literal["web", "native"] | None,
        Meta(
            description="Without it: native when a redirect URI is not https, or leads to the same device; else web."
        ),
    ] = None
    client_uri: Annotated[str, Meta(description="Its web site, for a link on the consent page; https.")] = ""
    policy_uri: Annotated[str, Meta(description="Its privacy policy, likewise.")] = ""
    tos_uri: Annotated[str, Meta(description="Its terms of service, likewise.")] = ""
    logo_uri: Annotated[
        str, Meta(description="The address of its logo, as clients that register themselves give it; https.")
    ] = ""
    logo: Annotated[
        Reference | None,
        Meta(
            description="The file of its logo, an SVG or PNG, for the consent page. Without it, its logo is left as it is."
        ),
    ] = None
    contacts: Annotated[Texts, Meta(description="Whom to ask about it, such as mail addresses.")] = ()
    software_id: Annotated[str, Meta(description="What identifies its program in all installations.")] = ""
    software_version: Annotated[str, Meta(description="The version of its program.")] = ""
    first_party: Annotated[
        bool, Meta(description="Whether it is our own: `consent_first_party` allows it without asking.")
    ] = False
    rotates_refresh_tokens: Annotated[
        bool, Meta(description="Whether each use of its refresh token gives a new one.")
    ] = True
    metadata: Annotated[
        dict[str, Any],
        Meta(description="Members that plugins keep, with their values."),
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredResource:
    """An API that tokens may be for (RFC 8707), by its URI, which is the audience of its tokens as it is written."""

    name: Annotated[str, Meta(description="What people are shown, beside the URI.")] = ""
    scopes: Annotated[
        Texts | None, Meta(description="The scopes that make sense there. Without it: every scope.")
    ] = None
    token_format: Annotated[
        AccessTokenFormat | None,
        Meta(description="The format of its access tokens. Without it: as of all others."),
    ] = None
    token_lifetime: Annotated[
        Annotated[int, Meta(ge=MINIMUM_LIFETIME, le=MAXIMUM_ACCESS_TOKEN_LIFETIME)] | None,
        Meta(description="Seconds for which its access tokens are valid. Without it: as long as all others."),
    ] = None
    default: Annotated[bool, Meta(description="Whether it counts when a request names no resource.")] = False
    introspecting_clients: Annotated[
        Texts,
        Meta(
            description="The clients that may introspect its access tokens, such as that of the API itself."
        ),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredInitialToken:
    """An initial access token with which clients may register themselves (RFC 7591, 3), by a name of your own."""

    policy: Annotated[
        str, Meta(description="The registration policy that says what the clients may be; see the INI file.")
    ]
    token: Annotated[
        Reference,
        Meta(
            description=(
                "Where the token is; `authserver initial-token generate` makes one. When the content changes, the token "
                "before is revoked."
            )
        ),
    ]
    expires_at: Annotated[
        datetime, Meta(tz=True, description="When it ends: a date and time with an offset.")
    ]
    uses: Annotated[
        Annotated[int, Meta(ge=1, le=MAXIMUM_USES)] | None,
        Meta(description="How many clients it may register. Without it: any number, until it expires."),
    ] = None
    note: Annotated[str, Meta(description="What it is for; only operators see it.")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredLimit:
    """How often something may be done, by the name of the row of `authserver limits`.

    It counts in place of the row of this name in the INI.
    """

    counted: Annotated[str, Meta(description="What is counted.")]
    key: Annotated[str, Meta(description="Whom it counts, such as `client+source`.")]
    count: Annotated[int, Meta(ge=1, description="How often it may be done.")]
    seconds: Annotated[int, Meta(ge=1, description="In how many seconds.")]
    store_down: Annotated[
        Literal["memory", "allow", "refuse"],
        Meta(description="What it does while the shared store of the counts cannot be used."),
    ] = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredIssuer:
    """An issuer whose assertions are accepted (RFC 7523), by what it calls itself in `iss`.

    One that is disabled stays so: `authserver issuer enable` lets it in again.
    """

    profile: Annotated[
        str, Meta(description="What its assertions mean: the name of a profile that a plugin has.")
    ]
    jwks_uri: Annotated[
        str, Meta(description="The https address where it publishes its keys; excludes `jwks`.")
    ] = ""
    jwks: Annotated[
        Reference | None, Meta(description="The file of its keys, a JWK Set; excludes `jwks_uri`.")
    ] = None
    algorithms: Annotated[Texts, Meta(description="What it may sign with.")] = TRUSTED_ALGORITHMS
    lifetime: Annotated[
        int, Meta(ge=10, le=86_400, description="Seconds from now to the latest end of an assertion.")
    ] = 300
    skew: Annotated[
        int, Meta(ge=0, le=300, description="Seconds by which its clock may differ from ours.")
    ] = 30
    clients: Annotated[
        Texts | None,
        Meta(
            description=(
                "The clients that may present its assertions. Without it: all that are registered for the grant type."
            )
        ),
    ] = None
    resources: Annotated[
        Texts | None,
        Meta(description="For which resources tokens may be. Without it: each that policies allow."),
    ] = None
    scopes: Annotated[
        Texts | None,
        Meta(description="The most that tokens have. Without it: whatever policies allow."),
    ] = None
    default_resource: Annotated[
        str, Meta(description="For which a token is when neither the assertion nor the request names one.")
    ] = ""
    options: Annotated[
        dict[str, Any], Meta(description="What its profile has to know besides, by the name of the option.")
    ] = field(default_factory=dict)

    def as_entry(self, issuer: str, jwks: str) -> TrustedIssuer:
        """The entry of the issuer of this name, with the content of the file of its keys."""
        return TrustedIssuer(
            issuer=issuer,
            profile=self.profile,
            jwks_uri=self.jwks_uri,
            jwks=jwks,
            algorithms=tuple(dict.fromkeys(self.algorithms)),
            lifetime=self.lifetime,
            skew=self.skew,
            clients=_each(self.clients),
            resources=_each(self.resources),
            scopes=_each(self.scopes),
            default_resource=self.default_resource,
            options=self.options,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """What a file may declare. All of it is brought about, except `trusted_issuers`, which are compared with the INI."""

    clients: Annotated[Mapping[str, DeclaredClient], Meta(description="Applications, by client id.")] = field(
        default_factory=lambda: NOTHING
    )
    resources: Annotated[
        Mapping[str, DeclaredResource], Meta(description="APIs that tokens may be for, by URI.")
    ] = field(default_factory=lambda: NOTHING)
    initial_tokens: Annotated[
        Mapping[str, DeclaredInitialToken],
        Meta(description="Initial access tokens, by a name of your own."),
    ] = field(default_factory=lambda: NOTHING)
    scopes: Annotated[
        Mapping[str, str],
        Meta(
            description=(
                "Scopes with their sentences for the consent page. One that `authserver.scopes` or a plugin names is only "
                "compared: what is there counts."
            )
        ),
    ] = field(default_factory=lambda: NOTHING)
    limits: Annotated[
        Mapping[str, DeclaredLimit],
        Meta(
            description=(
                "Limits by name, of the plugin that limits; each counts in place of the row of its name in the INI."
            )
        ),
    ] = field(default_factory=lambda: NOTHING)
    issuers: Annotated[
        Mapping[str, DeclaredIssuer],
        Meta(description="Issuers whose assertions are accepted, by what they call themselves."),
    ] = field(default_factory=lambda: NOTHING)
    trusted_issuers: Annotated[
        Mapping[str, Texts],
        Meta(
            description=(
                "The issuers that the INI names for a plugin, by the name of the plugin. Only compared: its setting `issuers` "
                "sets them."
            )
        ),
    ] = field(default_factory=lambda: NOTHING)


def _each(names: Texts | None) -> Texts | None:
    """Each of these once."""
    return None if names is None else tuple(dict.fromkeys(names))
