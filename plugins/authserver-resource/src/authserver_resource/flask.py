"""Flask: a decorator for each view, and the metadata of the resource."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar, cast

from flask import Flask, Response, after_this_request, current_app, g, request

from authserver_resource.access import Access, needs
from authserver_resource.refusals import Refusal
from authserver_resource.request import of_wsgi
from authserver_resource.resource import ProtectedResource
from authserver_resource.wsgi import ACCESS, metadata_response, refusal_response

__all__ = ["FlaskProtection"]

View = TypeVar("View", bound=Callable[..., Any])


class FlaskProtection:
    """Protects the views that ask for it, and serves the metadata of the resource.

    protection = FlaskProtection(app, protected)

    @app.get("/files")
    @protection.requires("files.read")
    def files(): ...  # flask.g.access is the `Access`

    Args:
        app: the application of Flask.
        protected: the resource.
    """

    def __init__(self, app: Flask, protected: ProtectedResource) -> None:
        self._protected = protected
        app.register_error_handler(Refusal, _refused)
        app.add_url_rule(
            protected.metadata_path,
            "authserver_resource_metadata",
            self._metadata,
            methods=["GET", "OPTIONS"],
            provide_automatic_options=False,
        )

    def requires(
        self, *scopes: str, acr_values: Iterable[str] = (), max_age: int | None = None
    ) -> Callable[[View], View]:
        """A decorator, below that of the route, which lets requests in or refuses them.

        Args:
            scopes: that the token must have, all of them.
            acr_values: one of them is how the person must have signed in.
            max_age: seconds since the person signed in.
        """
        requirement = needs(*scopes, acr_values=acr_values, max_age=max_age)

        def decorate(view: View) -> View:
            @wraps(view)
            def protected_view(*args: Any, **kwargs: Any) -> Any:
                known: Access | None = request.environ.get(ACCESS)
                if known is not None:
                    self._protected.demand(known, requirement)
                    g.access = known
                else:
                    g.access = self._protected.check(
                        of_wsgi(request.environ, certificate_header=self._protected.certificate_header),
                        requirement,
                    )
                    after_this_request(_adding(g.access))
                # Flask runs an `async` view by `ensure_sync`.
                return current_app.ensure_sync(view)(*args, **kwargs)

            return cast(View, protected_view)

        return decorate

    def _metadata(self) -> Response:
        status, headers, body = metadata_response(self._protected, request.method)
        return Response(body, status, headers)


def _adding(access: Access) -> Callable[[Response], Response]:
    def add(response: Response) -> Response:
        response.headers.update(access.headers)
        return response

    return add


def _refused(refusal: Refusal) -> Response:
    status, headers, body = refusal_response(refusal)
    return Response(body, status, headers)
