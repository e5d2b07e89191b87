"""Django: a decorator for each view, a middleware that answers refusals, and the metadata of the resource.

# settings.py
AUTHSERVER_RESOURCE = ProtectedResource("https://api.example.com/", "https://auth.example.com")
MIDDLEWARE = ["authserver_resource.django.ProtectionMiddleware", ...]
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

from authserver_resource.access import Access, needs
from authserver_resource.refusals import Refusal
from authserver_resource.request import Request, of_asgi, of_wsgi
from authserver_resource.resource import ProtectedResource
from authserver_resource.wsgi import ACCESS, metadata_response, refusal_response

__all__ = ["ProtectionMiddleware", "requires"]

View = TypeVar("View", bound=Callable[..., Any])


def requires(
    *scopes: str, acr_values: Iterable[str] = (), max_age: int | None = None
) -> Callable[[View], View]:
    """A decorator that accepts or refuses requests; the view finds the `Access` in `request.access`.

    A method of a class is decorated with `django.utils.decorators.method_decorator`.

    Args:
        scopes: that the token must have, all of them.
        acr_values: one of them is how the person must have signed in.
        max_age: seconds since the person signed in.
    """
    requirement = needs(*scopes, acr_values=acr_values, max_age=max_age)

    def decorate(view: View) -> View:
        def known(request: HttpRequest) -> bool:
            access: Access | None = request.META.get(ACCESS)
            if access is not None:
                _protected().demand(access, requirement)
                request.access = access
            return access is not None

        if iscoroutinefunction(view):

            @wraps(view)
            async def protected_async_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                if not known(request):
                    request.access = await _protected().check_async(_read(request), requirement)
                return await view(request, *args, **kwargs)

            return cast(View, protected_async_view)

        @wraps(view)
        def protected_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not known(request):
                request.access = _protected().check(_read(request), requirement)
            return view(request, *args, **kwargs)

        return cast(View, protected_view)

    return decorate


@sync_and_async_middleware
def ProtectionMiddleware(  # noqa: N802 - Django's settings name middleware like classes
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]:
    """Answers refusals with their challenge, and serves the metadata of the resource."""
    protected = _protected()

    def metadata(request: HttpRequest) -> HttpResponse | None:
        if request.path != protected.metadata_path:
            return None
        status, headers, body = metadata_response(protected, request.method or "")
        return HttpResponse(body, status=status, headers=dict(headers))

    def finished(request: HttpRequest, response: HttpResponse) -> HttpResponse:
        access: Access | None = getattr(request, "access", None)
        for name, value in access.headers if access else ():
            response[name] = value
        return response

    middleware: Any
    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponse:
            return metadata(request) or finished(request, await get_response(request))

    else:

        def middleware(request: HttpRequest) -> HttpResponse:
            return metadata(request) or finished(request, get_response(request))

    middleware.process_exception = _refused
    return cast(Callable[[HttpRequest], HttpResponse], middleware)


def _refused(request: HttpRequest, refusal: Exception) -> HttpResponse | None:
    if not isinstance(refusal, Refusal):
        return None
    status, headers, body = refusal_response(refusal)
    return HttpResponse(body, status=status, headers=dict(headers))


def _read(request: HttpRequest) -> Request:
    header = _protected().certificate_header
    scope = getattr(request, "scope", None)
    if scope is not None:
        return of_asgi(scope, certificate_header=header)
    return of_wsgi(request.META, certificate_header=header)


def _protected() -> ProtectedResource:
    found = getattr(settings, "AUTHSERVER_RESOURCE", None)
    if not isinstance(found, ProtectedResource):
        raise ImproperlyConfigured("AUTHSERVER_RESOURCE must be a ProtectedResource")
    return found
