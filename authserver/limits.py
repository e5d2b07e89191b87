"""The bounds of what strangers send: one list, which the documentation shows.

What is longer is refused before any work is done with it. A bound that deployers may want to move is a setting
(`maximum_request`). A request may name all that is configured: `settings.scope_problems` checks it at start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, slots=True)
class Bound:
    """What a number counts, and why there is an end to it."""

    counts: str
    reason: str


# ---- A request --------------------------------------------------------------------------------------

MAXIMUM_HEAD: Annotated[
    int,
    Bound(
        "bytes of the first line and all headers",
        "waitress refuses as many and more (`max_request_header_size`); what travels in our own addresses fits",
    ),
] = 16_384
MAXIMUM_BODY: Annotated[
    int,
    Bound(
        "bytes of a body", "no request needs as many; waitress refuses them unread (`max_request_body_size`)"
    ),
] = 65_536
MAXIMUM_PARAMETERS: Annotated[
    int,
    Bound(
        "parameters", "each costs work; the forms of our own pages may have one more for each scope there is"
    ),
] = 100
MAXIMUM_PARAMETER: Annotated[
    int,
    Bound(
        "characters of the name or value of a parameter",
        "what goes into an address fits; an authorization request has a length as a whole instead",
    ),
] = 8_192

MAXIMUM_REQUEST_ID: Annotated[
    int,
    Bound(
        "characters of a request id that a trusted proxy sends",
        "every line of the log and every event has it; what is longer is cut, and nothing is refused",
    ),
] = 64

# ---- What a client asks for -------------------------------------------------------------------------

MAXIMUM_SCOPE: Annotated[
    int,
    Bound(
        "characters of `scope`",
        "an access token that names them all fits into a header; all scopes there are fit into it, or the server "
        "does not start",
    ),
] = 4_096
MAXIMUM_SCOPE_NAME: Annotated[
    int, Bound("characters of the name of a scope", "it is shown on pages; checked at start")
] = 100
MAXIMUM_RESOURCES: Annotated[int, Bound("times `resource` in a request", "a policy decides about each")] = 10
MAXIMUM_URI: Annotated[int, Bound("characters of a URI", "some servers take no longer address")] = 2_048
MAXIMUM_CLIENT_ID: Annotated[int, Bound("characters of a `client_id`", "a longer one is not looked up")] = (
    2_048
)
MAXIMUM_ORIGIN: Annotated[
    int, Bound("characters of `Origin`", "a host name has at most 253; a longer one is not looked up")
] = 300

MAXIMUM_ORIGINS: Annotated[
    int, Bound("origins of clients that are remembered", "memory is bounded; the rest is looked up")
] = 1_000

# ---- What a client registers ------------------------------------------------------------------------

MAXIMUM_REDIRECT_URIS: Annotated[
    int, Bound("redirect URIs of a client", "each is compared at each request")
] = 10
MAXIMUM_CLIENT_NAME: Annotated[
    int, Bound("characters of `client_name`", "people read it on the consent page")
] = 100
MAXIMUM_MEMBER: Annotated[
    int, Bound("characters of any other text in a registration, `scope` excepted", "it is stored")
] = 2_000
MAXIMUM_ITEMS: Annotated[int, Bound("items of an array in a registration", "each is checked")] = 50
MAXIMUM_CONTACT: Annotated[int, Bound("characters of one of the `contacts`", "it is an address")] = 200
MAXIMUM_LOGO: Annotated[int, Bound("bytes of a client's logo", "it is stored, and sent to everybody")] = (
    65_536
)
MAXIMUM_LOGO_SIDE: Annotated[
    int, Bound("pixels of a side of a client's logo", "browsers unpack it into memory")
] = 1_024

# ---- JSON and what is signed ------------------------------------------------------------------------

MAXIMUM_JSON: Annotated[int, Bound("bytes of a JSON text", "it is stored")] = 16_384
MAXIMUM_DEPTH: Annotated[int, Bound("levels of nesting in a JSON text", "a reader recurses into them")] = 16
MAXIMUM_INTEGER: Annotated[int, Bound("the greatest number in a JSON text", "a database column holds it")] = (
    2**63 - 1
)
MAXIMUM_TOKEN: Annotated[
    int, Bound("characters of a JWT: an access token, an assertion, a proof", "it goes into a header")
] = MAXIMUM_PARAMETER
MAXIMUM_KEY_SET: Annotated[int, Bound("bytes of a JWK Set", "each key of it is read")] = 32_768
MAXIMUM_KEYS: Annotated[int, Bound("keys of a JWK Set", "each is read, and looked at for each signature")] = (
    20
)
MAXIMUM_KEY_ID: Annotated[int, Bound("characters of a `kid`", "keys are looked up by it")] = 128
MAXIMUM_IDENTIFIER: Annotated[
    int, Bound("characters of a `jti`", "it is remembered until it has expired")
] = 512

# ---- What is fetched from other servers ---------------------------------------------------------------

MAXIMUM_FETCHED_HEAD: Annotated[
    int, Bound("bytes of the first line and all headers of another server's answer", "it is held in memory")
] = 16_384
MAXIMUM_DOCUMENT: Annotated[
    int,
    Bound(
        "bytes of a document of another server, unless its feature says otherwise",
        "it is held in memory, and parsed; a compressed one is refused",
    ),
] = 65_536
MAXIMUM_DOCUMENTS: Annotated[int, Bound("documents of other servers that are kept", "memory is bounded")] = (
    1_000
)
MAXIMUM_DOCUMENTS_SIZE: Annotated[int, Bound("bytes of all that are kept", "memory is bounded")] = 8_388_608
MAXIMUM_VALIDATOR: Annotated[
    int,
    Bound("characters of an `ETag` or `Last-Modified` that are kept", "a longer one is not sent again"),
] = 256
MAXIMUM_LOOKUPS: Annotated[
    int,
    Bound(
        "host names that are looked up at once", "a lookup that hangs cannot be stopped, and keeps a thread"
    ),
] = 16
MAXIMUM_REMEMBERED: Annotated[
    int, Bound("URLs and as many hosts whose failures are remembered", "memory is bounded")
] = 10_000
MAXIMUM_ADDRESSES: Annotated[
    int,
    Bound("addresses of a host that are tried", "all attempts have one deadline; every address is checked"),
] = 4

# ---- People and their programs ----------------------------------------------------------------------

MAXIMUM_USERNAME: Annotated[int, Bound("characters of a user name", "it is shown on pages")] = 100
MAXIMUM_TYPED_USERNAME: Annotated[
    int, Bound("characters of a user name as typed", "a decomposed one has up to four for each")
] = 4 * MAXIMUM_USERNAME
MAXIMUM_DISPLAY_NAME: Annotated[
    int, Bound("characters of a display name that are kept", "it is shown on pages; the rest is cut")
] = 100
MAXIMUM_GROUPS: Annotated[
    int, Bound("groups of a person", "every recorded question about the person contains them")
] = 100
MAXIMUM_GROUP: Annotated[int, Bound("characters of the name of a group", "it is stored")] = 100
MAXIMUM_ATTRIBUTES: Annotated[
    int, Bound("attributes of a person", "every recorded question about the person contains them")
] = 20
MAXIMUM_ATTRIBUTE_NAME: Annotated[int, Bound("characters of the name of an attribute", "it is stored")] = 100
MAXIMUM_ATTRIBUTE_VALUES: Annotated[int, Bound("values of an attribute", "each is stored")] = 20
MAXIMUM_ATTRIBUTE_VALUE: Annotated[int, Bound("characters of a value of an attribute", "it is stored")] = 200
MAXIMUM_PASSWORD: Annotated[int, Bound("bytes of a password, in UTF-8", "it is hashed slowly")] = 1_024
MAXIMUM_CLIENT_SECRET: Annotated[int, Bound("characters of a client secret", "it is hashed")] = 256
MAXIMUM_USER_AGENT: Annotated[
    int,
    Bound("characters of `User-Agent` that are kept", "it is shown in the list of sessions; the rest is cut"),
] = 256
MAXIMUM_LANGUAGES: Annotated[
    int, Bound("characters of `Accept-Language` or `ui_locales`", "a longer one is not read")
] = 1_000
MAXIMUM_MARKS: Annotated[
    int,
    Bound(
        "authorization requests that are pending in one browser",
        "each has a cookie, which all requests to us carry; the oldest is forgotten",
    ),
] = 20
MAXIMUM_PEOPLE: Annotated[
    int,
    Bound("people whom one browser is known for", "the cookie has a proof for each; the oldest is forgotten"),
] = 5
MAXIMUM_METHODS: Annotated[int, Bound("methods of a sign-in (`amr`)", "each token may name them")] = 10
MAXIMUM_METHOD: Annotated[int, Bound("characters of the name of such a method", "it is stored")] = 100
MAXIMUM_LEVEL: Annotated[
    int, Bound("characters of the name of the level of a sign-in (`acr`)", "each token may name it")
] = 100
MAXIMUM_WHY: Annotated[
    int,
    Bound("characters of a policy's sentence why somebody must sign in again", "it travels in an address"),
] = 100

# ---- Events -----------------------------------------------------------------------------------------

MAXIMUM_STRANGER_REFUSAL_EVENT: Annotated[
    int,
    Bound(
        "bytes that the event of a refusal of a stranger, or of a client that registered itself, has beside its columns",
        "anybody can cause it; the rest is cut, and the event says so",
    ),
] = 1_200
MAXIMUM_STRANGER_EVENT: Annotated[
    int,
    Bound(
        "bytes of any other event that a stranger causes, such as a registration",
        "it comes with a record that is larger; the rest is cut, and the event says so",
    ),
] = 4_000
MAXIMUM_KNOWN_REFUSAL_EVENT: Annotated[
    int,
    Bound(
        "bytes of the event of a refusal of any other client or person that was authenticated",
        "it is known whom to ask; the rest is cut, and the event says so",
    ),
] = 4_000
MAXIMUM_DIFFERENCE_EVENT: Annotated[
    int,
    Bound(
        "bytes of the event of a decision that shadow plugins would have made otherwise",
        "anybody can cause it; the rest is cut, and the event says so",
    ),
] = 2_000


def sealed_length(request_length: int) -> int:
    """The greatest length that an authorization request of this length has when it is sealed, in an address."""
    # Beside the request, an id, two times, a key or a refusal, the id of the sealing key, nonce and tag; base64url adds
    # a third.
    return (request_length + 600) * 4 // 3
