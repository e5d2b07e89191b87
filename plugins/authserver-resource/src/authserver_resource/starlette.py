"""Starlette and FastAPI: a dependency for each route, and the metadata of the resource."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response

from authserver_resource.access import Access, needs
from authserver_resource.refusals import Refusal
from authserver_resource.request import of_asgi
from authserver_resource.resource import ProtectedResource
from authserver_resource.wsgi import ACCESS, metadata_response, refusal_response

__all__ = ["StarletteProtection"]


class StarletteProtection:
    """Protects the routes that ask for it, and serves the metadata of the resource.

    protection = StarletteProtection(app, protected)

    @app.get("/files")
    def files(access: Annotated[Access, Depends(protection.requires("files.read"))]) -> ...

    Args:
        app: the application of Starlette or FastAPI.
        protected: the resource.
    """

    def __init__(self, app: Starlette, protected: ProtectedResource) -> None:
        self._protected = protected
        app.add_exception_handler(Refusal, self._refused)
        app.add_route(
            protected.metadata_path, self._metadata, methods=["GET", "OPTIONS"], include_in_schema=False
        )

    def requires(
        self, *scopes: str, acr_values: Iterable[str] = (), max_age: int | None = None
    ) -> Callable[[StarletteRequest, Response], Awaitable[Access]]:
        """A dependency that lets a request in and gives its `Access`, or refuses it.

        Args:
            scopes: that the token must have, all of them.
            acr_values: one of them is how the person must have signed in.
            max_age: seconds since the person signed in.
        """
        requirement = needs(*scopes, acr_values=acr_values, max_age=max_age)

        async def access(request: StarletteRequest, response: Response) -> Access:
            known: Access | None = request.scope.get(ACCESS)
            if known is not None:
                self._protected.demand(known, requirement)
                return known
            found = await self._protected.check_async(
                of_asgi(request.scope, certificate_header=self._protected.certificate_header), requirement
            )
            response.headers.update(dict(found.headers))
            return found

        return access

    async def _refused(self, request: Any, refusal: Exception) -> Response:
        assert isinstance(refusal, Refusal)
        status, headers, body = refusal_response(refusal)
        return Response(body, status, dict(headers))

    async def _metadata(self, request: StarletteRequest) -> Response:
        status, headers, body = metadata_response(self._protected, request.method)
        return Response(body, status, dict(headers))
