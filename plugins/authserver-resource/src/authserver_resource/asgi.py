"""ASGI middleware: requests reach the application only with a valid access token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from authserver_resource.access import NOTHING, Access, Requirement
from authserver_resource.refusals import Refusal
from authserver_resource.request import of_asgi
from authserver_resource.resource import ProtectedResource
from authserver_resource.wsgi import ACCESS, Rule, added, metadata_response, refusal_response, rule_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_SECRET = (b"authorization", b"dpop")


class AsgiProtection:
    """Protect an ASGI application, and serve the metadata of the resource.

    The application gets the `Access` as `scope["authserver_resource.access"]`. It does not get the token, so it can
    neither log it nor send it on (OAuth 2.1, 7.1.4). It may raise a `Refusal`, as `ProtectedResource.demand` does.

    Args:
        application: the application to protect.
        protected: the resource.
        requires: the requirement of every request, or a rule for each method and path. A WebSocket counts as GET.
    """

    def __init__(
        self, application: Application, protected: ProtectedResource, requires: Requirement | Rule = NOTHING
    ) -> None:
        self._application = application
        self._protected = protected
        self._rule = rule_of(requires)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        protected = self._protected
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        method = scope.get("method", "GET")
        if scope["type"] == "http" and scope["path"] == protected.metadata_path:
            await _answer(send, *metadata_response(protected, method))
            return
        sending = _Sending(send)
        try:
            requirement = self._rule(method, scope["path"])
            if requirement is None:
                await self._application(scope, receive, sending)
            else:
                access = await protected.check_async(
                    of_asgi(scope, certificate_header=protected.certificate_header), requirement
                )
                await self._application(
                    self.inside(scope, access),
                    receive,
                    _adding(sending, access) if access.headers else sending,
                )
        except Refusal as refusal:
            if sending.started:
                raise
            await _refuse(scope, receive, send, refusal)
            return
        except BaseException:
            await sending.finish()
            raise
        await sending.finish()

    def inside(self, scope: Scope, access: Access) -> Scope:
        """The scope that the application gets."""
        headers = [pair for pair in scope["headers"] if pair[0] not in _SECRET]
        return {**scope, "headers": headers, ACCESS: access}


class _Sending:
    """Sends for the application. A 500 is delayed: a framework sends it first, and then raises the refusal.

    Attributes:
        started: whether something of a response has been sent.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Message] = []
        self.started = False

    async def __call__(self, message: Message) -> None:
        begins = not self.started and message["type"] == "http.response.start" and message["status"] == 500
        # A start and one body: nothing longer is kept in memory.
        if begins or len(self._held) == 1:
            self._held.append(message)
            return
        await self.finish()
        self.started = True
        await self._send(message)

    async def finish(self) -> None:
        """Send the delayed messages."""
        held, self._held = self._held, []
        for message in held:
            self.started = True
            await self._send(message)


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    if scope["type"] == "http":
        await _answer(send, *refusal_response(refusal))
        return
    await receive()  # the opening of the WebSocket
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await _answer(send, *refusal_response(refusal), prefix="websocket.http")
    else:
        # The server answers 403; the challenge cannot be sent.
        await send({"type": "websocket.close", "code": 1008})


async def _answer(
    send: Send, status: int, headers: list[tuple[str, str]], body: bytes, *, prefix: str = "http"
) -> None:
    length = ("Content-Length", str(len(body)))
    await send(
        {
            "type": f"{prefix}.response.start",
            "status": status,
            "headers": _encoded([*headers, length]),
        }
    )
    await send({"type": f"{prefix}.response.body", "body": body})


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _adding(send: Send, access: Access) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message.get("headers", ())
            ]
            message = {**message, "headers": _encoded(added(there, access))}
        await send(message)

    return sending
