"""Client ID Metadata Documents: a client whose id is the address of a document that describes it.

A program needs no registration, and all its installations are one client
(draft-ietf-oauth-client-id-metadata-document). The publisher of the document says what the client is. Therefore the client
is marked as unverified, and limited like a client that registered itself, unless the operator trusts the host.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from authserver.api import (
    Client,
    Credentials,
    Decision,
    DocumentKind,
    Engine,
    FetchFailed,
    FetchProblem,
    InvalidClient,
    InvalidClientMetadata,
    InvalidGrant,
    InvalidRedirectUri,
    RegisteredBy,
    Reply,
    TemporarilyUnavailable,
    Token,
    TokenKind,
    allow,
    describe_elsewhere,
    digest,
    fetch_named,
    fetched_problem,
    hookimpl,
    is_loopback,
    link_problem,
    read_metadata,
    read_object,
    redirect_uri_problem,
)

SUPPORTED = "client_id_metadata_document_supported"
# The most bytes of a document (section 8.7); and the seconds for which the last good document is used if its server does
# not answer, or answers 404: servers lose documents for a while, and answer 410 if a document is gone (CIMD-18).
MAXIMUM = 5 * 1024
LAST_GOOD_FOR = 86_400
# The name of the digest of the members that a code depends on, in the details of clients and of codes.
STATE = "client_id_document"
_SECRETS = ("client_secret", "client_secret_expires_at")
_CODE_DEPENDS_ON = ("redirect_uris", "token_endpoint_auth_method", "jwks", "jwks_uri")
_UNAVAILABLE = "The document at client_id could not be fetched."


@dataclass(frozen=True, eq=False)
class Described:
    """The content of a document: its members, none of them empty, and a digest of those that a code depends on."""

    members: Mapping[str, Any]
    state: str


def read(reply: Reply) -> Described:
    """The members of a document, if it is a valid description for any server. Raises ValueError, with a sentence."""
    kind = reply.media_type
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ValueError("its Content-Type is not application/json")
    try:
        members = read_object(reply.body)
    except InvalidClientMetadata:
        raise ValueError("it is not a JSON object") from None
    try:
        if members.get("client_id") != reply.url:
            raise ValueError("client_id is not the address of the document")
        for name in _SECRETS:
            if name in members:
                raise ValueError(f"{name} must not be in it, because everybody can read it")
        if str(members.get("token_endpoint_auth_method", "none")).startswith("client_secret"):
            raise ValueError("token_endpoint_auth_method needs a secret, and everybody can read the document")
        metadata = read_metadata(members, {}, leaves_out=True)
        for name in ("client_name", "redirect_uris"):
            if not getattr(metadata, name):
                raise ValueError(f"{name} is missing")
    except (InvalidClientMetadata, InvalidRedirectUri) as error:
        raise ValueError(error.description) from None
    for uri in metadata.redirect_uris:
        # A URI that only an operator can allow is valid in a document, whether or not it is allowed here.
        if problem := redirect_uri_problem(uri, private_use=(uri,)):
            raise ValueError(f"redirect_uris: {problem}")
    depends_on = json.dumps([members.get(name) for name in _CODE_DEPENDS_ON], sort_keys=True)
    # A client without a method has no credential: it cannot have a shared secret, which is the default of RFC 7591.
    return Described(
        members={"token_endpoint_auth_method": "none", **members}, state=digest(STATE, depends_on).hex()
    )


KIND = DocumentKind(
    name="client document",
    read=read,
    maximum=MAXIMUM,
    last_good_for=LAST_GOOD_FOR,
)


@dataclass(eq=False)
class ClientIdDocuments:
    """Accept clients whose id is the https address of a document that describes them.

    The lists name hosts, `*.example.com` for all names below a host, and addresses of single documents. In `allowed` and
    `trusted`, a host does not stand for its addresses with a query, because the answer may be made from the query.

    Attributes:
        scopes: all scopes that such a client may have. A client that asks for none of these gets all of them.
        grant_types: all grant types that such a client may use.
        allowed: hosts and addresses whose documents are accepted; empty for all.
        blocked: hosts and addresses whose documents are not accepted.
        trusted: hosts and addresses for which the operator vouches: their clients count as verified.
    """

    immediate: ClassVar[bool] = True
    details: ClassVar[frozenset[str]] = frozenset({STATE})
    reasons: ClassVar[Mapping[str, str]] = {
        "client-document-changed": "",
        "client-document-refused": (
            "whoever publishes the document must correct it; the facts of the event say what is wrong, and "
            "`authserver client show {client_id}` fetches it again"
        ),
        "client-document-unavailable": (
            "the facts of the event say why; `authserver client show {client_id}` fetches it again"
        ),
        "client-document-unreachable": (
            "its server does not answer now: this server tries again by itself; `authserver client show {client_id}` tries now"
        ),
        "client-address-malformed": "the application must send the exact address of its document",
        "client-host-blocked": (
            "remove the host or the address from authserver.plugin.client_id_documents.blocked"
        ),
        "client-host-not-allowed": (
            "add the host, or the address itself if it has a query, to authserver.plugin.client_id_documents.allowed"
        ),
    }

    scopes: tuple[str, ...]
    grant_types: tuple[str, ...] = ("authorization_code", "refresh_token")
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    _clients: WeakKeyDictionary[Described, Client] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.scopes:
            raise ValueError("scopes: name at least one; otherwise such a client could get nothing")
        for name in ("allowed", "blocked", "trusted"):
            for text in getattr(self, name):
                if not _is_host(text) and address_problem(text) is not None:
                    raise ValueError(
                        f"{name}: {text}: expected a host, as example.com or *.example.com, or the address of a document"
                    )
        self._clients = WeakKeyDictionary()

    @hookimpl
    def server_metadata(self) -> Mapping[str, object]:
        return {SUPPORTED: True, "token_endpoint_auth_methods_supported": ["none"]}

    @hookimpl
    def find_client(self, engine: Engine, client_id: str) -> Client | None:
        """The client that the document at this address describes; `created_at` is when this process first read it.

        Raises:
            InvalidClient: the client is not accepted.
            TemporarilyUnavailable: the client is unknown, because the server of the document does not answer now.
            TooManyRequests: too many documents that this source named could not be fetched.
        """
        if not client_id.startswith(("https:", "http:")):
            return None
        # Only accepted documents are in this cache.
        cached = engine.fetcher.cached(KIND, client_id)
        known = self._clients.get(cached.value) if cached is not None else None
        if known is not None:
            return known
        local = engine.settings.fetch_loopback and is_loopback(client_id)
        if not client_id.startswith("https:") and not local:
            return None
        if problem := address_problem(client_id):
            raise InvalidClient(f"client_id: {problem}", reason="client-address-malformed")
        host = urlsplit(client_id).hostname or ""
        if _is_named(client_id, host, self.blocked):
            raise _refused("This application is not allowed here.", reason="client-host-blocked", host=host)
        if self.allowed and not _is_vouched_for(client_id, host, self.allowed):
            raise _refused(
                "This application is not allowed here.", reason="client-host-not-allowed", host=host
            )
        described = _fetched(engine, client_id, host)
        client = self._clients.get(described)
        if client is None:
            client = self._clients[described] = self._described(engine, client_id, host, described)
        return client

    @hookimpl
    def client_auth_decision(self, client: Client, credentials: Credentials) -> Decision[None] | None:
        if client.is_known_by_address and client.auth_method == credentials.method == "none":
            return allow("client-document")
        return None

    @hookimpl
    def code_details(self, client: Client) -> Mapping[str, Any] | None:
        state = client.private_details.get(STATE)
        return {STATE: state} if state else None

    @hookimpl
    def token_binding(self, client: Client, spends: Token | None) -> None:
        """Bind nothing, but refuse a code that is older than a change of its client's redirect URIs or keys (CIMD-22).

        Raises:
            InvalidGrant: the code is older than such a change.
        """
        if spends is None or spends.kind is not TokenKind.CODE or STATE not in spends.details:
            return
        if spends.details[STATE] != client.private_details.get(STATE):
            raise InvalidGrant("The authorization code is not valid.", reason="client-document-changed")

    def _described(self, engine: Engine, client_id: str, host: str, described: Described) -> Client:
        """The client with the rights that it may have here. Raises InvalidClient."""
        try:
            client = describe_elsewhere(
                engine, client_id, described.members, scopes=self.scopes, grant_types=self.grant_types
            )
        except (InvalidClientMetadata, InvalidRedirectUri) as error:
            raise _refused(
                f"The document at client_id is not accepted: {error.description}",
                reason="client-document-refused",
                host=host,
            ) from None
        trusted = _is_vouched_for(client_id, host, self.trusted)
        return replace(
            client,
            registered_by=RegisteredBy.OPERATOR if trusted else RegisteredBy.SELF,
            private_details={STATE: described.state},
        )


def address_problem(url: str) -> str | None:
    """Why this cannot be the address of a document, as a fixed sentence, or None if it can (section 3)."""
    if problem := fetched_problem(url):
        return problem
    path = urlsplit(url).path
    if not path:
        return "It must have a path."
    if "//" in path:
        return "It must not have an empty part in its path."
    return None


def _fetched(engine: Engine, url: str, host: str) -> Described:
    """The content of the document at this address. Raises the same as `ClientIdDocuments.find_client`."""
    try:
        return fetch_named(engine, KIND, url).value
    except FetchFailed as failed:
        raise _not_fetched(failed, host) from None


def _not_fetched(failed: FetchFailed, host: str) -> InvalidClient | TemporarilyUnavailable:
    """The refusal for the caller; facts about addresses are only in the event (T127)."""
    facts = {name: str(value) for name, value in failed.facts().items()}
    if failed.is_temporary:
        unreachable = TemporarilyUnavailable(
            f"{_UNAVAILABLE} Try again in a moment.", reason="client-document-unreachable"
        )
        unreachable.facts = {"host": host, **facts}
        return unreachable
    if failed.problem is FetchProblem.DOCUMENT_REFUSED:
        # The reason may be shown: only documents of public servers are read, and everybody can read those.
        why = failed.detail.partition(": ")[2]
        return _refused(
            f"The document at client_id is not accepted: {why}",
            reason="client-document-refused",
            host=host,
            **facts,
        )
    return _refused(_UNAVAILABLE, reason="client-document-unavailable", host=host, **facts)


def _refused(description: str, *, reason: str, **facts: str) -> InvalidClient:
    refused = InvalidClient(description, reason=reason)
    refused.facts = facts
    return refused


def _is_host(text: str) -> bool:
    name = text.removeprefix("*.")
    return link_problem(f"https://{name}/") is None and not set(name) & set("/:?") and name == name.lower()


def _is_named(url: str, host: str, names: tuple[str, ...]) -> bool:
    """Whether this address or its host is among these."""
    above = host.split(".")
    hosts = {host, *(f"*.{'.'.join(above[start:])}" for start in range(1, len(above)))}
    return url in names or not hosts.isdisjoint(names)


def _is_vouched_for(url: str, host: str, names: tuple[str, ...]) -> bool:
    """Like `_is_named`, but an address with a query must be listed itself."""
    return url in names if "?" in url else _is_named(url, host, names)
