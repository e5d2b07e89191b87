"""WSGI middleware: requests reach the application only with a valid access token (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from authserver_resource.access import NOTHING, Access, Requirement
from authserver_resource.refusals import Refusal
from authserver_resource.request import of_wsgi
from authserver_resource.resource import ProtectedResource

# The key of the environment at which the application finds the `Access`.
ACCESS = "authserver_resource.access"
StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
# From a method and a path to the requirement, or None for a public address.
Rule = Callable[[str, str], Requirement | None]


class WsgiProtection:
    """Protect a WSGI application, and serve the metadata of the resource.

    The application gets the `Access` as `environ["authserver_resource.access"]`. It does not get the token, so it can
    neither log it nor send it on (OAuth 2.1, 7.1.4). It may raise a `Refusal`, as `ProtectedResource.demand` does.

    Args:
        application: the application to protect.
        protected: the resource.
        requires: the requirement of every request, or a rule for each method and path.
    """

    def __init__(
        self, application: Application, protected: ProtectedResource, requires: Requirement | Rule = NOTHING
    ) -> None:
        self._application = application
        self._protected = protected
        self._rule = rule_of(requires)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        protected = self._protected
        method = environ["REQUEST_METHOD"]
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if path == protected.metadata_path:
            return _answered(start_response, *metadata_response(protected, method))
        try:
            requirement = self._rule(method, path.encode("latin-1").decode("utf-8", "replace"))
            if requirement is None:
                return self._application(environ, start_response)
            access = protected.check(
                of_wsgi(environ, certificate_header=protected.certificate_header), requirement
            )
            inside = {name: value for name, value in environ.items() if name not in _SECRET}
            return self._application(
                {**inside, ACCESS: access},
                _adding(start_response, access) if access.headers else start_response,
            )
        except Refusal as refusal:
            return _answered(start_response, *refusal_response(refusal))


_SECRET = ("HTTP_AUTHORIZATION", "HTTP_DPOP")


def rule_of(requires: Requirement | Rule) -> Rule:
    """A rule; one requirement becomes a rule for all requests."""
    if isinstance(requires, Requirement):
        return lambda method, path: requires
    return requires


def metadata_response(protected: ProtectedResource, method: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of an answer at the address of the metadata (RFC 9728, 3.2)."""
    # Programs in browsers read it, too; it is public, and cookies do not matter.
    anywhere = [("Access-Control-Allow-Origin", "*")]
    if method == "OPTIONS":
        allowed = [("Access-Control-Allow-Methods", "GET"), ("Access-Control-Allow-Headers", "*")]
        return 200, [*anywhere, *allowed], b""
    if method not in ("GET", "HEAD"):
        return 405, [*anywhere, ("Allow", "GET, HEAD, OPTIONS")], b""
    headers = [*anywhere, ("Cache-Control", "max-age=300"), ("Content-Type", "application/json")]
    return 200, headers, protected.metadata_body


def refusal_response(refusal: Refusal) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body of a refusal."""
    return refusal.status, [*refusal.headers, ("Content-Type", "application/json")], refusal.body


def _answered(
    start_response: StartResponse, status: int, headers: list[tuple[str, str]], body: bytes
) -> Iterable[bytes]:
    length = ("Content-Length", str(len(body)))
    start_response(f"{status} {HTTPStatus(status).phrase}", [*headers, length])
    return [body]


def _adding(start_response: StartResponse, access: Access) -> StartResponse:
    def start(status: str, headers: list[tuple[str, str]], *others: Any) -> Any:
        return start_response(status, added(headers, access), *others)

    return start


def added(headers: Iterable[tuple[str, str]], access: Access) -> list[tuple[str, str]]:
    """The headers of a response; those of the access replace headers of the same name."""
    names = {name.lower() for name, _ in access.headers}
    return [*(pair for pair in headers if pair[0].lower() not in names), *access.headers]
