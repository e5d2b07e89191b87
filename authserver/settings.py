"""Every setting there is: its type, its bounds, its default, and what no environment can accept.

Fields say their own meaning, so that the documentation and the error messages read the same source.
`authserver.ini` reads them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated
from urllib.parse import quote_plus, urlsplit

from msgspec import Meta

from authserver.limits import MAXIMUM_SCOPE, MAXIMUM_SCOPE_NAME, MAXIMUM_URI


class SettingsError(Exception):
    """The settings cannot be used; the message lists every problem, a line each, with its key."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Secret:
    """A value that no repr, log or error message shows.

    No dataclass: msgspec would read one from an object with members, not from text.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    @property
    def value(self) -> str:
        """The value itself, for what has to use it."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "(secret)"


class Environment(StrEnum):
    """Whether insecure settings are announced (development) or refused (production)."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class SigningAlgorithm(StrEnum):
    """Algorithms that sign access tokens."""

    ES256 = "ES256"
    RS256 = "RS256"
    EDDSA = "EdDSA"


class AccessTokenFormat(StrEnum):
    """JWT (RFC 9068), or opaque: only this server can read it."""

    JWT = "jwt"
    OPAQUE = "opaque"


class ForwardingHeader(StrEnum):
    """Where proxies write whose request they pass on: X-Forwarded-For and -Proto, or Forwarded (RFC 7239)."""

    X_FORWARDED = "x-forwarded"
    FORWARDED = "forwarded"

    @property
    def name_of_address(self) -> str:
        """The header that has the client's address."""
        return "X-Forwarded-For" if self is ForwardingHeader.X_FORWARDED else "Forwarded"


# The grammar of the name of a scope (RFC 6749, 3.3).
SCOPE_NAME = r"[\x21\x23-\x5B\x5D-\x7E]+"
# The hosts of the machine itself, as a URI names them (RFC 8252, 7.3).
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "[::1]", "localhost"})
# In `trusted_proxies`: every peer that connects through a Unix socket.
UNIX_PEER = "unix"
# What the reference of an error takes the place of in `support_url`.
REFERENCE = "{reference}"
# What pages may link to: nothing that a browser reads otherwise than it is written here.
_LINK = (
    r"https://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?([/?#][!#-;=?-Z_a-z~]*)?"
    r"|mailto:[A-Za-z0-9._+-]+@[A-Za-z0-9][A-Za-z0-9.-]*"
)
# An egress proxy: a host, or an address in brackets, and its port.
_PROXY = r"http://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}/?"
# Characters of an authorization request beside its scopes and redirect URI: client, challenge, resource, a state.
_ROOM_FOR_THE_REST = 1024
# Seconds. A retiring signing key verifies for at least so long, whatever the lifetime is set to meanwhile.
MAXIMUM_ACCESS_TOKEN_LIFETIME = 86400
# Seconds: a week.
MAXIMUM_LINK_LIFETIME = 604800
POLICY_TIME_LIMIT = 2.0
Text = tuple[str, ...]
Pairs = tuple[tuple[str, str], ...]
Seconds = int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of the server, without its plugins' own."""

    issuer: Annotated[
        str,
        Meta(
            description=(
                "The issuer identifier: an https URL (http only for a loopback host), without query, "
                "fragment or trailing slash. Every URL we send is built from it, never from the Host header."
            )
        ),
    ]
    database_url: Annotated[
        Secret,
        Meta(
            description=(
                "SQLAlchemy URL of the database: `sqlite:///path` or "
                "`postgresql+psycopg://user:password@host/name`."
            )
        ),
    ]
    secret_keys: Annotated[
        tuple[Secret, ...],
        Meta(
            min_length=1,
            description=(
                "The key ring, `id:base64` of 32 random bytes each. The first one seals and signs; the "
                "others still open what they sealed. Make one with `authserver keys secret`."
            ),
        ),
    ]
    environment: Annotated[
        Environment,
        Meta(
            description="`development` announces insecure settings, `production` refuses to start with them."
        ),
    ] = Environment.PRODUCTION
    plugins: Annotated[
        Text,
        Meta(
            description=(
                "The plugins to load, in the order in which they are asked: entry points of the group "
                "`authserver.plugins`, or `module:Class`."
            )
        ),
    ] = ()
    shadow_plugins: Annotated[
        Text,
        Meta(
            description=(
                "Plugins to try out: asked beside the live ones, while their answers never count; "
                "`authserver policy shadow-report` shows where they differ."
            ),
        ),
    ] = ()
    policy_time_limit: Annotated[
        float,
        Meta(
            ge=0.05,
            le=30,
            description=(
                "Seconds a plugin has for one decision; one that takes longer has refused. A plugin that can fetch a "
                "document has `fetch_time_limit` besides. Plugins that ask no other service are not timed."
            ),
        ),
    ] = POLICY_TIME_LIMIT
    trace_plugins: Annotated[
        bool,
        Meta(
            description=(
                "Whether each call of a plugin is written to the log: hook, plugin, what it answered, in "
                "names and without values, and how long it took."
            )
        ),
    ] = False
    maximum_request: Annotated[
        int,
        Meta(
            ge=4096,
            le=32768,
            description=(
                "Characters of an authorization request in an address, `state` and `scope` included. Sealed "
                "it is a third longer and travels in addresses of our own, so servers and proxies in front "
                "must take 1.4 times as much and their headers."
            ),
        ),
    ] = 10000
    grant_types: Annotated[Text, Meta(description="The grant types of the token endpoint.")] = (
        "authorization_code",
        "refresh_token",
        "client_credentials",
    )
    scopes: Annotated[
        Pairs, Meta(description="Every scope there is, a line each: `name = sentence for the consent page`.")
    ] = ()
    hidden_scopes: Annotated[Text, Meta(description="Scopes that the metadata does not list.")] = ()
    scope_groups: Annotated[
        Pairs,
        Meta(
            description=(
                "Headings of the consent page when it lists more than eight scopes, a line each: `prefix = heading`. "
                "`notes` stands over `notes.read` and `notes:write`; where no prefix fits, the first part of the "
                "name is the heading."
            )
        ),
    ] = ()
    resource_names: Annotated[
        Pairs,
        Meta(
            description=(
                "What the pages call resources, a line each: `URI = name`. The URI stays visible beside its name."
            )
        ),
    ] = ()
    signing_algorithm: Annotated[
        SigningAlgorithm, Meta(description="Algorithm of new access tokens: ES256, RS256 or EdDSA.")
    ] = SigningAlgorithm.ES256
    jwks_maximum_age: Annotated[
        Seconds,
        Meta(
            ge=1,
            le=86400,
            description=(
                "Seconds for which others may keep the public signing keys. A new key is published for "
                "longer than that before it signs."
            ),
        ),
    ] = 300
    access_token_format: Annotated[AccessTokenFormat, Meta(description="`jwt` (RFC 9068) or `opaque`.")] = (
        AccessTokenFormat.JWT
    )
    opaque_resources: Annotated[
        Text, Meta(description="Resources whose access tokens are opaque although the format is `jwt`.")
    ] = ()
    code_lifetime: Annotated[
        Seconds, Meta(ge=10, le=60, description="Seconds in which an authorization code must be redeemed.")
    ] = 60
    access_token_lifetime: Annotated[
        Seconds,
        Meta(
            ge=10, le=MAXIMUM_ACCESS_TOKEN_LIFETIME, description="Seconds for which an access token is valid."
        ),
    ] = 900
    refresh_token_idle_lifetime: Annotated[
        Seconds, Meta(ge=60, le=31536000, description="Seconds after which an unused refresh token expires.")
    ] = 1209600
    grant_lifetime: Annotated[
        Seconds,
        Meta(
            ge=60,
            le=315360000,
            description="Seconds after which a grant ends, however often its tokens were refreshed.",
        ),
    ] = 7776000
    refresh_token_retry_window: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=120,
            description=(
                "Seconds in which a client that lost an answer may present the refresh token it just used "
                "and gets the same successor again; 0 switches this off."
            ),
        ),
    ] = 10
    request_lifetime: Annotated[
        Seconds,
        Meta(
            ge=60, le=3600, description="Seconds a person has for signing in and answering the consent page."
        ),
    ] = 900
    session_idle_lifetime: Annotated[
        Seconds, Meta(ge=60, le=2592000, description="Seconds after which an unused browser session ends.")
    ] = 43200
    session_lifetime: Annotated[
        Seconds,
        Meta(ge=60, le=31536000, description="Seconds after which a browser session ends in any case."),
    ] = 604800
    session_timeout_delay: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=86400,
            description=(
                "Seconds after which a session that ended by itself, unused or after its time, is recorded as ended, so that the "
                "applications that it signed somebody in to are told. 0: nobody is told. Servers whose clocks differ by more "
                "than this end sessions that are in use: 3900 bears a clock that is an hour ahead."
            ),
        ),
    ] = 0
    password_link_lifetime: Annotated[
        Seconds,
        Meta(
            ge=60,
            le=MAXIMUM_LINK_LIFETIME,
            description="Seconds in which a link to set a new password must be used.",
        ),
    ] = 3600
    invitation_lifetime: Annotated[
        Seconds,
        Meta(
            ge=60,
            le=MAXIMUM_LINK_LIFETIME,
            description="Seconds in which somebody new must use the link to set a first password.",
        ),
    ] = 259200
    mail_attribute: Annotated[
        str,
        Meta(
            min_length=1,
            description=(
                "The attribute of a person that holds the address to which mail is sent, if a plugin sends mail."
            ),
        ),
    ] = "email"
    password_checks: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description=(
                "How many passwords each process checks at the same time. The others of a burst wait without a thread, "
                "those of each network in turn; after 2.5 seconds they are asked to come again. With another server "
                "than `egg:authserver` as many again wait for up to a second, with a thread: keep twice this below "
                "its threads, so that sign-ins never hold them all."
            ),
        ),
    ] = 2
    trusted_proxies: Annotated[
        Text,
        Meta(
            description=(
                "Addresses and networks of the proxies in front of this server, such as `127.0.0.1 10.1.0.0/16`, and "
                "`unix` for one that connects through a Unix socket. Only they are asked for the address and the scheme "
                "of a client; empty: nobody is."
            )
        ),
    ] = ()
    admin_networks: Annotated[
        Text,
        Meta(
            description=(
                "Addresses and networks from which the pages and the API for operators can be reached, such as "
                "`10.1.0.0/16 2001:db8:7::/48`; everybody else gets 404 there. Empty: from everywhere."
            )
        ),
    ] = ()
    trusted_proxy_hops: Annotated[
        int,
        Meta(
            ge=1,
            le=10,
            description=(
                "How many trusted proxies a request passes at most, one after the other. Addresses in the header that "
                "are further from its end are the client's own word, and are ignored."
            ),
        ),
    ] = 1
    forwarding_header: Annotated[
        ForwardingHeader,
        Meta(
            description=(
                "Where the trusted proxies write the address and the scheme of a client: `x-forwarded` is "
                "X-Forwarded-For and X-Forwarded-Proto, `forwarded` is Forwarded (RFC 7239). The other is ignored."
            )
        ),
    ] = ForwardingHeader.X_FORWARDED
    request_id_header: Annotated[
        str,
        Meta(
            # Not one that carries a credential: the id is in every line of the log.
            pattern=r"^(?!(?i:authorization|proxy-authorization|cookie)$)([A-Za-z0-9]+(-[A-Za-z0-9]+)*)?$",
            max_length=60,
            description=(
                "The header in which the trusted proxies send the id of a request, such as `X-Request-ID`; empty: every "
                "request gets a new one. A proxy must set it itself, and never pass on that of a client."
            ),
        ),
    ] = ""
    continue_traces: Annotated[
        bool,
        Meta(
            description=(
                "Whether a request is part of the trace that its header `traceparent` names (W3C Trace Context), if a "
                "trusted proxy sent it. Otherwise each request begins a trace."
            )
        ),
    ] = False
    fetch_time_limit: Annotated[
        float,
        Meta(
            ge=0.1,
            le=30,
            description=(
                "Seconds for fetching one document from another server: looking up its name, connecting, and the "
                "whole answer."
            ),
        ),
    ] = 3.0
    fetch_at_once: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description=(
                "How many documents each process fetches at the same time. Each holds a thread of the server."
            ),
        ),
    ] = 2
    fetch_at_once_per_host: Annotated[
        int,
        Meta(ge=1, le=64, description="How many of these fetches may go to one host at the same time."),
    ] = 1
    fetch_waiting: Annotated[
        int,
        Meta(
            ge=0,
            le=256,
            description=(
                "How many requests may wait until a document is fetched; others are refused at once. With "
                "`fetch_at_once` it should be less than the threads of the server, so that some are always free."
            ),
        ),
    ] = 1
    fetch_ports: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=65535)], ...],
        Meta(description="The ports from which documents are fetched."),
    ] = (443,)
    fetch_refused_networks: Annotated[
        Text,
        Meta(
            description=(
                "Networks, such as `192.0.2.0/24`, from which nothing is fetched, beside private and special ones and "
                "the addresses of this machine. Name your own public networks here."
            )
        ),
    ] = ()
    fetch_ca_file: Annotated[
        str,
        Meta(
            description=(
                "Path of the certificates (PEM) that are trusted when documents are fetched; empty for the system's."
            )
        ),
    ] = ""
    trusted_issuers: Annotated[
        str,
        Meta(
            description=(
                "Path of a TOML file, or of a folder of them, with issuers whose assertions are accepted, as `authserver apply` "
                "reads them; empty for none. It is read at start. These are not in the database."
            )
        ),
    ] = ""
    fetch_proxy: Annotated[
        str,
        Meta(
            description=(
                "The egress proxy, `http://host:port`, through which documents are fetched (CONNECT); empty for none. "
                "It looks up the names and must refuse private addresses. Proxies of the environment are never used."
            )
        ),
    ] = ""
    fetch_proxy_credentials: Annotated[
        tuple[Secret, ...],
        Meta(
            max_length=1,
            description="`user:password` for the egress proxy (Basic); empty if it asks for none.",
        ),
    ] = ()
    fetch_loopback: Annotated[
        bool,
        Meta(
            description=(
                "Whether documents are also fetched from loopback addresses, by http too and at any port. For "
                "development; production refuses it."
            )
        ),
    ] = False
    cleanup_interval: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=86400,
            description=(
                "Seconds between two clean-ups, which delete expired rows; one server process at a time does "
                "it. 0 switches this off: then run `authserver db purge` regularly."
            ),
        ),
    ] = 30
    event_lifetime: Annotated[
        Seconds,
        Meta(ge=0, le=315360000, description="Seconds for which events are kept; 0 keeps them for ever."),
    ] = 31536000
    refusal_lifetime: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=315360000,
            description=(
                "Seconds for which events of refusals are kept, which strangers can cause; 0 keeps them as long as "
                "other events."
            ),
        ),
    ] = 1209600
    issuance_lifetime: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=315360000,
            description=(
                "Seconds for which events of issued codes and tokens are kept, which are most events; 0 keeps them as long "
                "as other events."
            ),
        ),
    ] = 0
    hourly_statistics_lifetime: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=315360000,
            description=(
                "Seconds for which it is kept how much happened in each hour; 0 keeps it for ever. Longer ago there are "
                "days and months."
            ),
        ),
    ] = 7776000
    statistics_lifetime: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=630720000,
            description="Seconds for which it is kept how much happened on each day; 0 keeps it for ever.",
        ),
    ] = 157680000
    refusals_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            le=100000,
            description=(
                "How many refusals of strangers, and of clients that registered themselves, each process stores of each "
                "kind in a minute, and ten times as many of all kinds together. Those that follow are counted in one "
                "event of their kind."
            ),
        ),
    ] = 10
    idle_client_lifetime: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=315360000,
            description=(
                "Seconds after which a client that registered itself is deleted, unless it has a grant or "
                "used its secret since; 0 keeps them for ever."
            ),
        ),
    ] = 7776000
    unused_client_lifetime: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=315360000,
            description=(
                "Seconds after which a client that registered itself is deleted if it never got a code or token; 0 keeps "
                "it as long as others."
            ),
        ),
    ] = 2592000
    unused_clients_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1000000,
            description=(
                "How many clients may be registered from one network (an IPv4 address, a /64 of IPv6) without an initial "
                "access token and never used; the oldest give way to new ones once they are an hour old. 0 sets no limit."
            ),
        ),
    ] = 50
    unused_clients: Annotated[
        int,
        Meta(
            ge=0,
            le=1000000,
            description=(
                "How many there may be of them in all; those of the same network give way first, others once they are a day "
                "old. 0 sets no limit."
            ),
        ),
    ] = 10000
    strict_registration: Annotated[
        bool,
        Meta(
            description=(
                "Whether a client that registers itself is refused when it asks for anything that it cannot "
                "have. Otherwise that is left out, and the answer shows what the client got (RFC 7591, "
                "3.2.1)."
            )
        ),
    ] = False
    product_name: Annotated[
        str, Meta(min_length=1, max_length=60, description="The name that the pages show.")
    ] = "authserver"
    languages: Annotated[
        Text,
        Meta(
            min_length=1,
            description=(
                "The languages of the pages, as tags such as `de` or `pt-BR`. A person gets the first that the "
                "application (`ui_locales`) or else the browser (`Accept-Language`) asks for, and without any "
                "of these the first in this list."
            ),
        ),
    ] = ("en", "de", "es", "fr", "ja")
    translations: Annotated[
        str,
        Meta(
            description=(
                "Folder of translations of your own, `LANGUAGE.po` each: of the sentences of your scopes, of other "
                "languages, or of any sentence that you want to say in another way; empty for none."
            )
        ),
    ] = ""
    logo: Annotated[
        str, Meta(description="Path of an SVG or PNG file shown on the pages; empty for none.")
    ] = ""
    accent_color: Annotated[
        str,
        Meta(
            pattern=r"^#[0-9a-fA-F]{6}$",
            description=(
                "Colour of buttons and marks, `#rrggbb`; the text on it is made black or white, whichever "
                "reads better."
            ),
        ),
    ] = "#2f5fd0"
    help_url: Annotated[
        str,
        Meta(
            description=(
                "Where people find help, below every page and on the sign-in page: an https URL or "
                "`mailto:name@host`; empty for none."
            )
        ),
    ] = ""
    support_url: Annotated[
        str,
        Meta(
            description=(
                "Where people ask for help after an error: an https URL, in which `{reference}` becomes the "
                "reference of the error, or `mailto:name@host`, which gets it as the subject; empty for none."
            )
        ),
    ] = ""
    privacy_url: Annotated[
        str,
        Meta(
            description="Your privacy policy, below every page: an https URL or `mailto:name@host`; empty for none."
        ),
    ] = ""
    terms_url: Annotated[
        str,
        Meta(
            description="Your terms of service, below every page: an https URL or `mailto:name@host`; empty for none."
        ),
    ] = ""

    @property
    def is_production(self) -> bool:
        """Whether insecure settings are refused instead of announced."""
        return self.environment is Environment.PRODUCTION

    @property
    def issuer_path(self) -> str:
        """The path of the issuer, without a trailing slash; "" for most."""
        return urlsplit(self.issuer).path

    @property
    def issuer_origin(self) -> str:
        """Scheme, host and port of the issuer, without a path."""
        parts = urlsplit(self.issuer)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def scope_sentences(self) -> Mapping[str, str]:
        """The sentence of the consent page for each scope that the INI lists."""
        return MappingProxyType(dict(self.scopes))


def key_ring(settings: Settings) -> list[tuple[str, bytes]]:
    """The key ring as (id, 32 bytes) pairs, first the one that seals. Raises SettingsError."""
    ring = []
    for entry in settings.secret_keys:
        key_id, colon, encoded = entry.value.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        if not colon or not re.fullmatch(r"[A-Za-z0-9._-]{1,32}", key_id) or len(key) != 32:
            raise SettingsError(
                [
                    "authserver.secret_keys: an entry is not `id:base64`; make one with `authserver keys secret`"
                ]
            )
        ring.append((key_id, key))
    if len({key_id for key_id, _ in ring}) < len(ring):
        raise SettingsError(["authserver.secret_keys: two entries have the same id"])
    return ring


def contradictions(settings: Settings) -> list[str]:
    """What no environment can accept."""
    problems = []
    if problem := _issuer_problem(settings.issuer):
        problems.append(f"authserver.issuer: {problem}")
    names = [name for name, _ in settings.scopes]
    problems += [
        f"authserver.scopes: {problem}" for problem in scope_problems(names, settings.maximum_request)
    ]
    problems += [
        f"authserver.hidden_scopes: {name}: not among authserver.scopes"
        for name in settings.hidden_scopes
        if name not in names
    ]
    if settings.logo and not re.search(r"\.(svg|png)$", settings.logo):
        problems.append("authserver.logo: must be the path of an .svg or .png file")
    elif settings.logo and not Path(settings.logo).is_file():
        problems.append(f"authserver.logo: there is no file {settings.logo}")
    links = {
        "help_url": settings.help_url,
        # As in a reference, there are characters in this that no host has.
        "support_url": settings.support_url.replace(REFERENCE, "_reference_"),
        "privacy_url": settings.privacy_url,
        "terms_url": settings.terms_url,
    }
    problems += [
        f"authserver.{name}: must be an https URL, such as https://example.com/page, or mailto:name@host"
        for name, link in links.items()
        if link and not re.fullmatch(_LINK, link)
    ]
    problems += _network_problems(settings)
    problems += _fetch_problems(settings)
    try:
        key_ring(settings)
    except SettingsError as error:
        problems += error.problems
    return problems


def scope_problems(names: Iterable[str], maximum_request: int) -> list[str]:
    """Why these cannot be all the scopes there are: each request may name each of them, and all at once."""
    names = tuple(names)
    problems = [
        f"{name!r} is not a scope name of up to {MAXIMUM_SCOPE_NAME} characters (RFC 6749, 3.3)"
        for name in names
        if not re.fullmatch(SCOPE_NAME, name) or len(name) > MAXIMUM_SCOPE_NAME
    ]
    text = " ".join(names)
    room = maximum_request - MAXIMUM_URI - _ROOM_FOR_THE_REST
    if len(text) > MAXIMUM_SCOPE:
        problems.append(
            f"all {len(names)} scopes in one request are {len(text)} characters, and a token can name "
            f"{MAXIMUM_SCOPE}; shorten their names or have fewer"
        )
    elif len(quote_plus(text)) > room:
        problems.append(
            f"all {len(names)} scopes in one request are {len(quote_plus(text))} characters in an address, and "
            f"authserver.maximum_request leaves room for {room}; raise it, shorten their names or have fewer"
        )
    return problems


def wide_networks(networks: Iterable[str]) -> list[str]:
    """Those that are a considerable part of all public addresses; what names no network is left out."""
    wide = []
    for text in networks:
        with suppress(ValueError):
            network = ip_network(text)
            if network.prefixlen < (8 if network.version == 4 else 16) and not network.is_private:
                wide.append(text)
    return wide


def _network_problems(settings: Settings) -> list[str]:
    """What is no address and no network."""
    proxies = [text for text in settings.trusted_proxies if text != UNIX_PEER]
    return [
        *(
            f"authserver.trusted_proxies: {text} is no address, no network such as 10.1.0.0/16, and not "
            f"`{UNIX_PEER}`; name what your proxies connect from"
            for text in proxies
            if not _is_network(text)
        ),
        *(
            f"authserver.admin_networks: {text} is no address and no network such as 10.1.0.0/16; name what operators connect from"
            for text in settings.admin_networks
            if not _is_network(text)
        ),
    ]


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _fetch_problems(settings: Settings) -> list[str]:
    """What cannot be meant in the settings about fetching."""
    problems = []
    for text in settings.fetch_refused_networks:
        try:
            ip_network(text)
        except ValueError as error:
            problems.append(f"authserver.fetch_refused_networks: {error}")
    if settings.fetch_ca_file and not Path(settings.fetch_ca_file).is_file():
        problems.append(f"authserver.fetch_ca_file: there is no file {settings.fetch_ca_file}")
    if settings.fetch_proxy and not re.fullmatch(_PROXY, settings.fetch_proxy):
        problems.append(
            "authserver.fetch_proxy: must be such as http://proxy.example.com:3128; what the proxy asks for is "
            "authserver.fetch_proxy_credentials"
        )
    if settings.fetch_proxy and settings.fetch_loopback:
        problems.append(
            "authserver.fetch_proxy: would look for loopback in itself; set fetch_loopback to false"
        )
    for credentials in settings.fetch_proxy_credentials:
        if not settings.fetch_proxy:
            problems.append("authserver.fetch_proxy_credentials: there is no authserver.fetch_proxy")
        if not re.fullmatch(r"[!-9;-~]+:[!-~]+", credentials.value):
            problems.append(
                "authserver.fetch_proxy_credentials: must be user:password, in visible ASCII characters"
            )
    return problems


def _issuer_problem(issuer: str) -> str | None:
    """Why this is not an issuer identifier (RFC 8414, 2); None when it is one."""
    try:
        parts = urlsplit(issuer)
        is_url = bool(parts.hostname) and parts.port != 0 and not parts.netloc.endswith(":")
    except ValueError:
        is_url = False
    if not is_url or not re.fullmatch(r"https?://[\x21-\x7e]+", issuer) or re.search(r"[?#@]", issuer):
        return "must be a URL such as https://login.example.com, without query or fragment"
    if issuer.endswith("/"):
        return "must not end with a slash"
    # Routes are made of the path: nothing in it may mean anything to a router, a proxy or a browser.
    segments = parts.path.split("/")[1:]
    if any(not re.fullmatch(r"[A-Za-z0-9._~-]+", item) or item in (".", "..") for item in segments):
        return "its path may hold letters, digits and . _ ~ - between single slashes"
    host = re.sub(r":[0-9]+$", "", parts.netloc.lower())
    if parts.scheme == "http" and host not in LOOPBACK_HOSTS:
        return "must be https; http is for localhost, 127.0.0.1 and [::1] only"
    return None
