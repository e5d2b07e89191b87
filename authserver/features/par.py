"""Pushed authorization requests (RFC 9126): a client sends its request here, and the browser brings a reference to it.

The reference is the request itself, sealed for its client together with the id under which it is answered
once. So nothing is stored for a request that nobody answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from pyramid.config import Configurator
from pyramid.response import Response

from authserver.api import (
    Engine,
    Expanded,
    InvalidRequest,
    InvalidRequestUri,
    Parameters,
    Request,
    Unsealable,
    authenticate,
    check_request,
    claim,
    from_text,
    hookimpl,
    json_response,
    new_identifier,
    of_this_generation,
    proven_key,
    read_form,
    to_text,
)

PATH = "/oauth/par"
PURPOSE = "pushed-request"
REFERENCE = "urn:ietf:params:oauth:request_uri:"
# What proves who pushes is no part of the request, and goes into no address.
CREDENTIALS = ("client_secret", "client_assertion", "client_assertion_type")


class RequestTooLong(InvalidRequest):
    """The request is longer than one that a browser may bring (RFC 9126, 2.3)."""

    status: ClassVar[int] = 413


@dataclass(frozen=True)
class PushedRequests:
    """Let clients send authorization requests directly, at `/oauth/par` (RFC 9126).

    Attributes:
        lifetime: seconds in which the browser must bring the reference, 5 to 600.
        require: whether a request that was not pushed is refused.
    """

    immediate: ClassVar[bool] = True

    lifetime: int = 90
    require: bool = False

    def __post_init__(self) -> None:
        if not 5 <= self.lifetime <= 600:
            raise ValueError("lifetime must be 5 to 600 seconds")

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_json_endpoint("pushed_requests", PATH, self.push, origins="clients")

    @hookimpl
    def server_metadata(self, issuer: str) -> Mapping[str, Any]:
        members = {"pushed_authorization_request_endpoint": issuer + PATH}
        return members | {"require_pushed_authorization_requests": True} if self.require else members

    @hookimpl
    def expand_authorization_request(self, engine: Engine, parameters: Parameters) -> Expanded | None:
        reference = parameters.get("request_uri")
        # Another one leads to a request object elsewhere, which is refused as any that nobody reads (RFC 9101, 7).
        if reference is not None and reference.lower().startswith(REFERENCE):
            return self._open(engine, reference, parameters.require("client_id"))
        if self.require:
            refusal = InvalidRequest("The request must be pushed first.", reason="request-not-pushed")
            return Expanded(parameters=parameters, refusal=refusal)
        return None

    def push(self, request: Request) -> Response:
        """POST /oauth/par: check the request as if the browser had brought it, and answer a reference to it."""
        engine = request.engine
        form = read_form(request)
        form.refuse_repeated()
        client = authenticate(engine, form)
        if "request_uri" in form:
            raise InvalidRequest("request_uri cannot be pushed.", reason="request-uri-pushed")
        pushed = form.without(*CREDENTIALS)
        binding = proven_key(engine, client, pushed)
        bound = binding.confirmation if binding else {}
        check_request(engine, pushed, bound)
        if len(pushed.encoded()) > engine.settings.maximum_request:
            raise RequestTooLong("The request is too long.", reason="request-too-long")
        for use in binding.uses if binding else ():
            claim(engine, client, use)
        reference = self._seal(engine, pushed, bound)
        return json_response({"request_uri": reference, "expires_in": self.lifetime}, status=201)

    def _seal(self, engine: Engine, pushed: Parameters, bound: Mapping[str, Any]) -> str:
        # In whole milliseconds, so that a reference to the same request is always of the same length.
        pushed_at = int(engine.now.timestamp() * 1000)
        content = json.dumps([new_identifier(), pushed_at, pushed.encoded(), dict(bound)]).encode()
        context = pushed.require("client_id")
        return REFERENCE + to_text(engine.ring.seal(content, purpose=PURPOSE, context=context))

    def _open(self, engine: Engine, reference: str, client_id: str) -> Expanded:
        """The request that this client pushed; of everything else that came with the reference nothing counts."""
        try:
            sealed = from_text(reference.removeprefix(REFERENCE))
            content = engine.ring.open(sealed, purpose=PURPOSE, context=client_id)
        except Unsealable:
            raise InvalidRequestUri(
                "There is no such pushed request of this application.", reason="request-uri-unknown"
            ) from None
        request_id, milliseconds, encoded, bound = json.loads(content)
        pushed_at = datetime.fromtimestamp(milliseconds / 1000, UTC)
        expires_at = pushed_at + timedelta(seconds=self.lifetime)
        # Whether one from before a restore was answered, nobody knows any more (T149).
        if expires_at <= engine.now or not of_this_generation(engine, pushed_at):
            raise InvalidRequestUri("The pushed request has expired.", reason="request-uri-expired")
        return Expanded(
            parameters=Parameters.parse(encoded),
            request_id=request_id,
            sendable_until=expires_at,
            bound=bound,
        )
