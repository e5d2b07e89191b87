"""Pushed authorization requests (RFC 9126): a client sends its request here, and the browser brings a reference to it.

The request is sealed, and stored under the digest of its reference, as long as the reference or a page that it led to can
be used. It is not in an address, so it may be longer than other requests.

Anybody can push requests in the name of a public client, or register a client. Requests of such clients are counted as
requests in advance (hook `rate_decision`), and are not longer than what fits into an address, so that strangers cannot fill
the disk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

from pyramid.config import Configurator
from pyramid.response import Response

from authserver.api import (
    AUTHORIZATION_ERRORS,
    AUTHORIZATION_REQUEST,
    FLAG,
    MAXIMUM_BODY,
    MAXIMUM_PARAMETER,
    SELF_REGISTERED,
    TEXT,
    Client,
    Counted,
    Described,
    Engine,
    Expanded,
    InvalidRequest,
    Kept,
    Medium,
    OAuthError,
    Operation,
    Origins,
    Parameter,
    Parameters,
    ReadMember,
    Request,
    Route,
    Unsealable,
    check_request,
    claim,
    claim_rate,
    digest,
    from_text,
    hookimpl,
    json_response,
    new_credential,
    of_this_generation,
    proven_client,
    proven_key,
    read_flag,
    read_form,
    to_text,
    well_formed,
)

KIND = "pushed-request"
ROUTE = Route(
    "pushed_requests",
    "/oauth/par",
    ("POST",),
    Medium.JSON,
    Origins.CLIENTS,
    metadata="pushed_authorization_request_endpoint",
    operation=Operation(
        summary="Send an authorization request in advance (RFC 9126, 2).",
        form={
            "client_id": Parameter(
                description="The client; required even if it authenticates in the header.",
                schema=TEXT,
                required=True,
            ),
            **AUTHORIZATION_REQUEST,
        },
        authenticates=True,
        status=201,
        answer={
            "request_uri": Parameter(
                description="The reference for the authorization request of the browser.", required=True
            ),
            "expires_in": Parameter(
                description="For how many seconds the reference is valid.",
                schema={"type": "integer", "minimum": 1},
                required=True,
            ),
        },
        errors=AUTHORIZATION_ERRORS,
        limited=True,
        open_to=("token_binding", "code_details"),
    ),
)
# A member of the metadata of the server (RFC 9126, 5) and of a client (6).
REQUIRED = "require_pushed_authorization_requests"
REFERENCE = "urn:ietf:params:oauth:request_uri:"
# The credentials of the client, which are not part of the authorization request and must not appear in an address.
CREDENTIALS = ("client_secret", "client_assertion", "client_assertion_type")


class InvalidRequestUri(OAuthError):
    """There is no request for this `request_uri`: it is unknown, expired or of another client (RFC 9101, 7)."""

    code = "invalid_request_uri"


class RequestTooLong(InvalidRequest):
    """The request is longer than this client may push (RFC 9126, 2.3)."""

    status: ClassVar[int] = 413


@dataclass(frozen=True)
class PushedRequests:
    """Let clients send authorization requests directly, at `/oauth/par` (RFC 9126).

    Attributes:
        lifetime: for how many seconds the browser can bring the reference, 5 to 600.
        require: whether requests of all clients are refused if they were not pushed.
    """

    immediate: ClassVar[bool] = True
    described: ClassVar[Mapping[str, Described]] = {
        "client_metadata": Described(
            members={
                REQUIRED: Parameter(
                    description="Whether each request must be pushed (RFC 9126, 6).", schema=FLAG
                )
            },
            answer={
                REQUIRED: Parameter(
                    description="Present if each request must be pushed.", schema={"const": True}
                )
            },
        )
    }
    reasons: ClassVar[Mapping[str, str]] = {
        "invalid_request_uri": "",
        "request-pushed-before-change": "",
        "request-not-pushed": (
            "authserver.plugin.pushed_requests.require refuses requests that were not pushed; for a single client, "
            f"{REQUIRED} in its metadata does: `authserver client show`"
        ),
        "request-uri-expired": "authserver.plugin.pushed_requests.lifetime says how long a pushed request can be used",
        "request-uri-pushed": "",
        "request-uri-unknown": "",
        "state-too-long": "",
    }

    lifetime: int = 90
    require: bool = False

    def __post_init__(self) -> None:
        if not 5 <= self.lifetime <= 600:
            raise ValueError("lifetime must be 5 to 600 seconds")

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_endpoint(ROUTE, self.push)

    @hookimpl
    def server_metadata(self) -> Mapping[str, Any]:
        return {REQUIRED: True} if self.require else {}

    @hookimpl
    def expand_authorization_request(self, engine: Engine, parameters: Parameters) -> Expanded | None:
        # Any other `request_uri` is the address of a request object (RFC 9101, 7), which this server refuses.
        if any(sent.lower().startswith(REFERENCE) for sent in parameters.all("request_uri")):
            reference = parameters.require("request_uri")
            parameters.require("client_id")
            return self._find(engine, reference, parameters.only("client_id", "request_uri"))
        if self.require or _must_push(engine, parameters.get("client_id")):
            refusal = InvalidRequest("The request must be pushed first.", reason="request-not-pushed")
            return Expanded(parameters=parameters, refusal=refusal)
        return None

    @hookimpl
    def client_metadata(self) -> Mapping[str, ReadMember]:
        """Read whether the client must push every request (RFC 9126, 6)."""
        return {REQUIRED: read_flag}

    def push(self, request: Request) -> Response:
        """POST /oauth/par: check the request as if the browser had brought it, and return a reference to it."""
        engine = request.engine
        form = read_form(request, parse=partial(Parameters.parse, maximum=MAXIMUM_BODY))
        form.refuse_repeated()
        proven = proven_client(engine, form)
        client = proven.client
        if "request_uri" in form:
            raise InvalidRequest("request_uri cannot be pushed.", reason="request-uri-pushed")
        pushed = form.without(*CREDENTIALS)
        binding = proven_key(engine, client, pushed)
        bound = binding.confirmation if binding else {}
        check_request(engine, pushed, bound)
        # The state is sent back to the client in an address.
        if len(pushed.get("state") or "") > MAXIMUM_PARAMETER:
            raise InvalidRequest("state is too long.", reason="state-too-long")
        is_unproven = client.is_public or client.is_self_registered
        if len(pushed.encoded()) > (engine.settings.maximum_request if is_unproven else MAXIMUM_BODY):
            raise RequestTooLong("The request is too long.", reason="request-too-long")
        if is_unproven:
            # Clients that registered themselves count together; otherwise more clients could send more requests.
            who = SELF_REGISTERED if client.is_self_registered else client.client_id
            claim_rate(engine, Counted.REQUEST_IN_ADVANCE, client_id=who)
        for use in (*proven.uses, *(binding.uses if binding else ())):
            claim(engine, client, use)
        reference = self._keep(engine, client, pushed, bound)
        return json_response({"request_uri": reference, "expires_in": self.lifetime}, status=201)

    def _keep(self, engine: Engine, client: Client, pushed: Parameters, bound: Mapping[str, Any]) -> str:
        reference = new_credential(REFERENCE)
        name = digest(KIND, reference)
        # The request is needed as long as a page that the reference led to. If its key is removed from the ring, it cannot
        # be opened any more: like all pending requests, it is too short-lived to be sealed again under a new key.
        lifetime = timedelta(seconds=self.lifetime + engine.settings.request_lifetime)
        sealed = engine.ring.seal(
            pushed.encoded().encode(), purpose=KIND, context=_context(client.client_id, name)
        )
        record = Kept(
            kind=KIND,
            digest=name,
            client_id=client.client_id,
            created_at=engine.now,
            expires_at=engine.now + lifetime,
            details={"sealed": to_text(sealed), "bound": dict(bound), "client": _state(client)},
        )
        engine.stores.kept.add_once(record)
        return reference

    def _find(self, engine: Engine, reference: str, sent: Parameters) -> Expanded:
        """The request that this client pushed; the other parameters of this request are ignored.

        Raises:
            InvalidRequestUri: there is no such request, it has expired, or the client has changed since.
            InvalidClient, TemporarilyUnavailable, TooManyRequests: as `Engine.find_client` raises them.
        """
        unknown = InvalidRequestUri(
            "There is no such pushed request of this application.", reason="request-uri-unknown"
        )
        if not well_formed(REFERENCE, reference):
            raise unknown
        record = engine.stores.kept.find(KIND, digest(KIND, reference))
        if record is None or record.client_id != sent.require("client_id"):
            raise unknown
        sendable_until = record.created_at + timedelta(seconds=self.lifetime)
        # After a restore it cannot be known whether an older request was already answered (T149).
        if sendable_until <= engine.now or not of_this_generation(engine, record.created_at):
            raise InvalidRequestUri("The pushed request has expired.", reason="request-uri-expired")
        client = engine.find_client(record.client_id)
        if client is None or record.details.get("client") != _state(client):
            raise InvalidRequestUri(
                "The application has changed since it pushed this request.",
                reason="request-pushed-before-change",
            )
        try:
            sealed = from_text(record.details["sealed"])
            context = _context(record.client_id, record.digest)
            encoded = engine.ring.open(sealed, purpose=KIND, context=context)
        except Unsealable:
            raise unknown from None
        return Expanded(
            parameters=Parameters.parse(encoded, maximum=MAXIMUM_BODY),
            request_id=record.digest.hex(),
            sendable_until=sendable_until,
            reference=sent,
            bound=record.details["bound"],
        )


def _context(client_id: str, name: bytes) -> str:
    """The context of a seal, which binds the sealed request to its row."""
    return f"{name.hex()} {client_id}"


def _state(client: Client) -> str:
    """A digest of the client's authentication method, redirect URIs and details.

    A pushed request is valid as long as the digest stays the same: so a request that was pushed with a withdrawn key is
    refused.
    """
    said = [client.auth_method, client.redirect_uris, dict(client.details)]
    return digest(KIND, json.dumps(said, sort_keys=True, default=str)).hex()


def _must_push(engine: Engine, client_id: str | None) -> bool:
    """Whether this client is registered with the duty to push every request."""
    client = engine.find_client(client_id) if client_id else None
    return client is not None and bool(client.details.get(REQUIRED))
