"""Pyramid: a security policy, a view predicate, an option of views, and the metadata of the resource.

config.include("authserver_resource.pyramid")
config.protect(protected)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden
from pyramid.request import Request as PyramidRequest
from pyramid.response import Response
from pyramid.security import Allowed, Denied

from authserver_resource.access import Access, Requirement, needs
from authserver_resource.refusals import NoToken, Refusal
from authserver_resource.request import Request, of_wsgi
from authserver_resource.resource import ProtectedResource
from authserver_resource.wsgi import ACCESS, metadata_response, refusal_response

__all__ = ["HasScope", "ResourcePolicy", "includeme"]

_FOUND = "authserver_resource.pyramid"
View = Callable[[Any, PyramidRequest], Any]


class ResourcePolicy:
    """The security policy: a permission is a scope, the identity is the `Access` of the token.

    Args:
        protected: the resource.
    """

    def __init__(self, protected: ProtectedResource) -> None:
        self.protected = protected

    def access(self, request: PyramidRequest) -> Access:
        """The access of the request, checked once for each request. Raises Refusal."""
        known: Access | Refusal | None = request.environ.get(ACCESS) or request.environ.get(_FOUND)
        if known is None:
            try:
                known = self.protected.check(self._read(request))
                request.add_response_callback(_adding(known))
            except Refusal as refusal:
                known = refusal
            # A DPoP proof counts once, also when several views ask.
            request.environ[_FOUND] = known
        if isinstance(known, Refusal):
            raise known
        return known

    def require(self, request: PyramidRequest, requirement: Requirement) -> Access:
        """Check this requirement of the request. Raises Refusal."""
        try:
            access = self.access(request)
        except NoToken:
            # Check again with the requirement: then the challenge names the scopes, too.
            return self.protected.check(self._read(request), requirement)
        self.protected.demand(access, requirement)
        return access

    def identity(self, request: PyramidRequest) -> Access | None:
        """The `Access`, or None. Raises Unavailable when the issuer cannot be asked."""
        try:
            return self.access(request)
        except Refusal as refusal:
            if refusal.status >= 500:
                raise
            return None

    def authenticated_userid(self, request: PyramidRequest) -> str | None:
        """The subject of the token."""
        access = self.identity(request)
        return access.subject if access else None

    def permits(self, request: PyramidRequest, context: object, permission: str) -> Allowed | Denied:
        """Whether the token has the scope with the name of the permission."""
        try:
            self.require(request, needs(permission))
        except Refusal as refusal:
            denied = Denied("%s", refusal.description)
            denied.refusal = refusal
            return denied
        return Allowed("the token has the scope %s", permission)

    def _read(self, request: PyramidRequest) -> Request:
        return of_wsgi(request.environ, certificate_header=self.protected.certificate_header)

    def remember(self, request: PyramidRequest, userid: str, **kw: Any) -> list[tuple[str, str]]:
        """Add no header: every request has its own token."""
        return []

    def forget(self, request: PyramidRequest, **kw: Any) -> list[tuple[str, str]]:
        """Add no header: every request has its own token."""
        return []


class HasScope:
    """The view predicate `has_scope`: this view is for requests with the scope, another one for the rest."""

    def __init__(self, scope: str, info: Any) -> None:
        self._scope = scope

    def text(self) -> str:
        """The name of the predicate in messages of Pyramid."""
        return f"has_scope = {self._scope}"

    phash = text

    def __call__(self, context: object, request: PyramidRequest) -> bool:
        access = request.identity
        return isinstance(access, Access) and self._scope in access


def includeme(config: Configurator) -> None:
    """Add the directive `protect(protected)`, the predicate `has_scope`, and the option `requires` of views.

    `requires` is a scope, several, or a `Requirement`; the view is reached with them only.
    """
    config.add_directive("protect", _protect)
    config.add_view_predicate("has_scope", HasScope)
    config.add_view_deriver(_requiring, name="authserver_resource")


def _protect(config: Configurator, protected: ProtectedResource) -> None:
    policy = ResourcePolicy(protected)
    config.set_security_policy(policy)
    config.registry.authserver_resource = policy
    config.add_exception_view(_refused, context=Refusal)
    config.add_forbidden_view(_forbidden)

    def metadata(request: PyramidRequest) -> Response:
        return _response(*metadata_response(protected, request.method))

    config.add_route("authserver_resource_metadata", protected.metadata_path)
    config.add_view(metadata, route_name="authserver_resource_metadata", require_csrf=False)


def _requiring(view: View, info: Any) -> View:
    wanted: Requirement | str | Iterable[str] | None = info.options.get("requires")
    if wanted is None:
        return view
    if isinstance(wanted, str):
        wanted = (wanted,)
    requirement = wanted if isinstance(wanted, Requirement) else needs(*wanted)

    def protected_view(context: Any, request: PyramidRequest) -> Any:
        request.registry.authserver_resource.require(request, requirement)
        return view(context, request)

    return protected_view


_requiring.options = ("requires",)  # type: ignore[attr-defined]  # what Pyramid reads


def _refused(refusal: Refusal, request: PyramidRequest) -> Response:
    return _response(*refusal_response(refusal))


def _forbidden(forbidden: HTTPForbidden, request: PyramidRequest) -> Response:
    refusal = getattr(forbidden.result, "refusal", None)
    return forbidden if refusal is None else _refused(refusal, request)


def _response(status: int, headers: list[tuple[str, str]], body: bytes) -> Response:
    return Response(body=body, status=status, headerlist=headers)


def _adding(access: Access) -> Callable[[PyramidRequest, Response], None]:
    def add(request: PyramidRequest, response: Response) -> None:
        response.headers.update(access.headers)

    return add
