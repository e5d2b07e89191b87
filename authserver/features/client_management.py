"""Lets clients that registered themselves read, change and end their registration (RFC 7592).

Each client gets a token of its own when it registers. The digest of the token is stored with the client: so the token ends
with the client, and works for no other client.

A change gives a new token. The old token works until the new one is used for the first time, so that a client that never
received the answer can ask again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from urllib.parse import urlencode

from pyramid.config import Configurator
from pyramid.response import Response

from authserver.api import (
    CLIENT_INFORMATION,
    CLIENT_METADATA,
    TEXT,
    AccessDenied,
    Bearer,
    ChangedMeanwhile,
    Client,
    Counted,
    Described,
    Engine,
    EventType,
    InvalidClientMetadata,
    InvalidRedirectUri,
    InvalidToken,
    Medium,
    Operation,
    Origins,
    Parameter,
    Request,
    Route,
    TemporarilyUnavailable,
    Welcome,
    as_managed,
    claim_rate,
    describe_registration,
    digest,
    equal,
    hookimpl,
    is_secret_of,
    json_response,
    new_credential,
    read_bearer,
    read_json,
    read_object,
    read_query,
    remove_registration,
    update_registration,
    well_formed,
)

# The endpoint is open to all origins, like registration itself: any program may register, and only the token counts here.
PATH = "/oauth/register/client"
TOKEN = "registration_access_token"
ADDRESS = "registration_client_uri"
# The members that a client is told and must not send (RFC 7592, 2.2).
TOLD = (TOKEN, ADDRESS, "client_id_issued_at", "client_secret_expires_at")
PREFIX = "as_registration_"
KIND = "registration-access"
# The name of the digests among the private details of a client.
OWN = "client_management"
CURRENT, NEXT = "current", "next"
# How often a client is read again, if other requests change it at the same time.
ATTEMPTS = 3

_OWN_MEMBERS = {
    TOKEN: Parameter(description="The token for requests to that address (RFC 7592, 3).", required=True),
    ADDRESS: Parameter(
        description="The address at which the client manages its registration (RFC 7592, 3).",
        schema={"type": "string", "format": "uri"},
        required=True,
    ),
}
_ADDRESSED = {
    "client_id": Parameter(description="The client, as in its address.", schema=TEXT, required=True)
}
_HOLDER = Bearer(
    name=TOKEN, description="The registration access token of this client (RFC 7592, 2).", required=True
)
ROUTE = Route(
    "registration",
    PATH,
    ("GET", "PUT", "DELETE"),
    Medium.JSON,
    Origins.ALL,
    refused=EventType.REGISTRATION_REFUSED,
    operation={
        "GET": Operation(
            summary="Read the registration of a client (RFC 7592, 2.1).",
            query=_ADDRESSED,
            bearer=_HOLDER,
            answer={**CLIENT_INFORMATION, **_OWN_MEMBERS},
            errors=(InvalidToken,),
            limited=True,
        ),
        "PUT": Operation(
            summary="Replace the metadata of a client (RFC 7592, 2.2). A member that is left out gets its default.",
            query=_ADDRESSED,
            bearer=_HOLDER,
            json={
                "client_id": Parameter(description="The client.", schema=TEXT, required=True),
                "client_secret": Parameter(
                    description="Its present secret; it cannot be chosen.",
                    schema={"type": ["string", "null"]},
                ),
                **CLIENT_METADATA,
            },
            answer={**CLIENT_INFORMATION, **_OWN_MEMBERS},
            errors=(AccessDenied, InvalidClientMetadata, InvalidRedirectUri, InvalidToken),
            limited=True,
            open_to=("client_metadata",),
        ),
        "DELETE": Operation(
            summary="End the registration of a client (RFC 7592, 2.3).",
            query=_ADDRESSED,
            bearer=_HOLDER,
            status=204,
            errors=(InvalidToken,),
            limited=True,
        ),
    },
)


@dataclass(frozen=True)
class ClientManagement:
    """Let clients that registered themselves read, change and end their registration (RFC 7592).

    Attributes:
        rotate: whether a client gets a new token whenever it changes its registration.
    """

    registration_members: ClassVar[frozenset[str]] = frozenset({TOKEN, ADDRESS})
    immediate: ClassVar[bool] = True
    described: ClassVar[Mapping[str, Described]] = {"registration_response": Described(answer=_OWN_MEMBERS)}
    reasons: ClassVar[Mapping[str, str]] = {
        "client-changed-meanwhile": "",
        "registration-token-malformed": "",
        "registration-token-missing": "",
        "registration-token-refused": (
            "the client must send the registration access token that it got last; if it has lost it, it must register again"
        ),
    }

    rotate: bool = True

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_endpoint(ROUTE, self.manage)

    @hookimpl
    def registration_response(self, engine: Engine, client: Client) -> Welcome:
        """The token and the address of a new client, together (RFC 7592, 3)."""
        token = new_credential(PREFIX)
        return Welcome(
            members=_address(engine, client, token), private_details={OWN: {CURRENT: _digest(token)}}
        )

    def manage(self, request: Request) -> Response:
        """GET, PUT and DELETE of a registration (RFC 7592, 2)."""
        engine = request.engine
        holder = self._holder(request)
        if request.method in ("GET", "HEAD"):
            return _described(engine, self._used(request, holder), holder.token)
        claim_rate(engine, Counted.REGISTRATION_CHANGE, client_id=holder.client.client_id)
        if request.method == "PUT":
            return self._replace(engine, holder, read_json(request))
        remove_registration(engine, holder.client)
        response = Response(status=204)
        response.headers["Cache-Control"] = "no-store"
        return response

    def _used(self, request: Request, holder: Holder) -> Client:
        """The client after its use of the token was stored. Raises the same as `_holder`, and TemporarilyUnavailable."""
        for _ in range(ATTEMPTS):
            client = holder.promoted()
            if client == holder.client or request.engine.stores.clients.change(holder.client, client):
                return client
            # Another request may have used the same token.
            holder = self._holder(request)
        raise _changing()

    def _replace(self, engine: Engine, holder: Holder, body: bytes) -> Response:
        """Replace the whole metadata of a client, if it could register itself with them (RFC 7592, 2.2)."""
        client, token = holder.promoted(), holder.token
        sent = read_object(body)
        _check_own_members(engine, client, sent)
        if self.rotate:
            token = new_credential(PREFIX)
            client = with_digests(client, {**client.private_details[OWN], NEXT: _digest(token)})
        try:
            edited = update_registration(engine, holder.client, sent, private_details=client.private_details)
        except ChangedMeanwhile:
            raise _changing() from None
        return _described(engine, edited.client, token, edited.secret)

    def _holder(self, request: Request) -> Holder:
        """The client whose token this request has. The refusal does not reveal which client ids exist (RFC 7592, 2.1).

        Raises:
            InvalidToken: the token is missing, or belongs to another client; or the client is unknown or disabled.
            TooManyRequests: this failed too often.
        """
        engine = request.engine
        bearer = read_bearer(engine.caller.authorization)
        refused = InvalidToken(
            "The registration access token is not valid.",
            reason="registration-token-refused",
            sent=bearer is not None,
        )
        try:
            if bearer is None:
                refused.reason = "registration-token-missing"
                raise refused
            if not well_formed(PREFIX, bearer.value):
                refused.reason = "registration-token-malformed"
                raise refused
            client_id = next(iter(read_query(request).all("client_id")), "")
            client = engine.find_kept_client(client_id)
            engine.journal.client_id = client.client_id if client else None
            name = _presented(client, _digest(bearer.value))
            if client is None or name is None or not client.is_enabled:
                raise refused
        except InvalidToken:
            claim_rate(engine, Counted.FAILED_CLIENT_AUTHENTICATION, client_id=engine.journal.client_id)
            raise
        engine.journal.acts(client)
        return Holder(client=client, token=bearer.value, name=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A client that presented its token.

    Attributes:
        client: the client as it is stored.
        token: the token as it was presented.
        name: CURRENT, or NEXT for a token that was not used before.
    """

    client: Client
    token: str = field(repr=False)
    name: str

    def promoted(self) -> Client:
        """The client after this use of the token: from now on, the previous token does not work."""
        client = (
            self.client if self.name == CURRENT else with_digests(self.client, {CURRENT: _digest(self.token)})
        )
        return client if client.is_managed else as_managed(client)


def with_digests(client: Client, digests: Mapping[str, str]) -> Client:
    """The client with these digests of its tokens."""
    return replace(client, private_details={**client.private_details, OWN: dict(digests)})


def _presented(client: Client | None, presented: str) -> str | None:
    """CURRENT or NEXT, whichever token this is; None if it is neither. Compares both, even for an unknown client."""
    digests = client.private_details.get(OWN, {}) if client else {}
    same = [name for name in (CURRENT, NEXT) if equal(digests.get(name, ""), presented)]
    return same[0] if same else None


def _digest(token: str) -> str:
    return digest(KIND, token).hex()


def _changing() -> TemporarilyUnavailable:
    return TemporarilyUnavailable(
        "The registration was changed by somebody else. Try again.", reason="client-changed-meanwhile"
    )


def _check_own_members(engine: Engine, client: Client, sent: Mapping[str, Any]) -> None:
    """Check the members that a client must send, or must not send (RFC 7592, 2.2). Raises InvalidClientMetadata."""
    if sent.get("client_id") != client.client_id:
        raise InvalidClientMetadata("client_id must be that of the registration.")
    for name in TOLD:
        if name in sent:
            raise InvalidClientMetadata(f"{name} must not be sent: the server sets it.")
    if "client_secret" in sent and not is_secret_of(engine, client, sent["client_secret"]):
        raise InvalidClientMetadata("client_secret must be the present one; a client cannot choose it.")


def _address(engine: Engine, client: Client, token: str) -> dict[str, str]:
    query = urlencode({"client_id": client.client_id})
    return {TOKEN: token, ADDRESS: f"{engine.settings.issuer.rstrip('/')}{ROUTE.path}?{query}"}


def _described(engine: Engine, client: Client, token: str, secret: str | None = None) -> Response:
    """The client information response (RFC 7592, 3). It has a secret only if that is new, because others are not known."""
    return json_response(describe_registration(client, secret) | _address(engine, client, token))
