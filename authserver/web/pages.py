"""The parts that all pages share: name and colours of the product, addresses, and redirects."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from pyramid.config import Configurator
from pyramid.events import BeforeRender
from pyramid.httpexceptions import HTTPNotFound
from pyramid.i18n import Localizer, TranslationStringFactory
from pyramid.interfaces import ITranslationDirectories
from pyramid.renderers import render_to_response
from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine.letters import is_mail_on
from authserver.engine.parameters import Parameters
from authserver.engine.printable import made_visible
from authserver.settings import REFERENCE, Settings
from authserver.web.languages import DOMAIN, Languages, PageLanguage, underscored
from authserver.web.request import Registry, Request, Served
from authserver.web.revalidation import or_not_modified

STATIC_MAXIMUM_AGE = 86_400
_ = TranslationStringFactory("authserver")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The addresses that every page may link to; `forgotten_password` is empty if no plugin sends mail."""

    home: str
    login: str
    logout: str
    forgotten_password: str
    account: str
    sign_out_everywhere: str
    style: str
    theme: str
    favicon: str
    show_password: str
    open_link: str


def includeme(config: Configurator) -> None:
    """Set up templates, languages, static files and the directives for pages."""
    application: Served = config.registry.application
    config.add_settings(
        {
            "jinja2.directories": "authserver.web:templates",
            "jinja2.i18n.domain": DOMAIN,
            "jinja2.undefined": "strict",
            "jinja2.trim_blocks": True,
            "jinja2.lstrip_blocks": True,
            "jinja2.filters": {"visible": visible},
        }
    )
    config.include("pyramid_jinja2")
    config.registry.languages = Languages(application.parts.settings)
    config.add_request_method(page_language, "language", reify=True)
    config.add_request_method(localizer, reify=True)
    config.set_locale_negotiator(lambda request: underscored(request.language.tag))
    config.add_subscriber(add_page_values, BeforeRender)
    config.registry.home_links = []
    config.registry.account_tabs = []
    config.registry.sign_in_ways = []
    config.registry.static_files = _static_files(application.parts.settings)
    config.registry.page_paths = _paths(config.registry)
    config.add_directive("add_home_link", add_home_link)
    config.add_directive("add_account_tab", add_account_tab)
    config.add_directive("add_sign_in_way", add_sign_in_way)


def visible(value: object, maximum: int = 200) -> str:
    """Filter for templates: a value that others wrote, in one line. It is cut, and invisible characters are escaped.

    Templates escape markup themselves. A list has commas between its values, and an empty value becomes a dash.
    """
    match value:
        case None | "" | () | []:
            return "–"
        case bool():
            return "yes" if value else "no"
        case list() | tuple() | set() | frozenset():
            text = ", ".join(map(str, value))
        case _:
            text = str(value)
    return made_visible(text if len(text) <= maximum else f"{text[: maximum - 1]}…")


def add_home_link(config: Configurator, label: str, url: str) -> None:
    """Directive for features: add a link to the front page."""
    config.registry.home_links.append((label, url))


def render_page(request: Request, template: str, values: Mapping[str, Any]) -> Response:
    """The page that a template makes from these values, and from those that all pages have.

    Args:
        template: the name of a template in `web/templates`, or `package:path` for a template of a feature.
    """
    # With the whole name, because a shorter one would be searched for in another folder first, for each page.
    whole = template if ":" in template else f"authserver.web:templates/{template}"
    response: Response = render_to_response(whole, values, request)
    return response


def add_account_tab(config: Configurator, route_name: str, label: str) -> None:
    """Directive for features: add a page to people's accounts, after those of the core; its route must be `personal`."""
    config.registry.account_tabs.append((route_name, label))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInWay:
    """A way to sign in other than a password here, for the sign-in page.

    Attributes:
        label: the name on its button, such as the name of a company.
        path: the path of a page on this server; the purpose of the sign-in is added as its query, for `read_purpose`.
        is_expected: whether the person will probably use it, so that it comes first.
    """

    label: str
    path: str
    is_expected: bool = False


def add_sign_in_way(config: Configurator, ways: Callable[[Parameters], Sequence[SignInWay]]) -> None:
    """Directive for features: add a function that returns ways to sign in, for the parameters of an authorization request.

    Without a request it gets empty parameters.
    """
    config.registry.sign_in_ways.append(ways)


def own_url(request: Request, name: str, /, **query: str) -> str:
    """The absolute URL of a route, made from the issuer and never from the Host header (A-04)."""
    return _url(request.registry, name, **query)


def _url(registry: Registry, name: str, /, **query: str) -> str:
    url = registry.application.parts.settings.issuer_origin + registry.routes[name].path
    return f"{url}?{urlencode(query)}" if query else url


def see_other(location: str) -> Response:
    """A redirect to an accepted address; always 303 (B-18)."""
    response = Response(status=303)
    response.location = location
    return response


def see_own(request: Request, route_name: str, /, **query: str) -> Response:
    """A redirect to a page of this server."""
    return see_other(own_url(request, route_name, **query))


def page_language(request: Request) -> PageLanguage:
    """The language for which the authorization request asks, once it was read; otherwise that of the browser."""
    header = request.environ.get("HTTP_ACCEPT_LANGUAGE", "")
    return request.registry.languages.choose(request.journal.ui_locales, header)


def localizer(request: Request) -> Localizer:
    """The localizer of this request. That of Pyramid reads only compiled files, which plugins may have."""
    registry: Any = request.registry
    folders = registry.queryUtility(ITranslationDirectories, default=())
    return request.registry.languages.localizer(request.language.tag, folders)


def add_page_values(event: BeforeRender) -> None:
    """Add the values that every template gets."""
    request = event["request"]
    if request is None:
        return
    settings = request.application.parts.settings
    event.setdefault("product_name", settings.product_name)
    event.setdefault("logo", own_url(request, "logo") if settings.logo else None)
    # Error pages set `signed_in` themselves, because they must not depend on the database.
    if "signed_in" not in (event.rendering_val or ()):
        event["signed_in"] = request.browser.user
    event.setdefault("language", request.language)
    request.response.content_language = request.language.tag
    request.response.vary = tuple(dict.fromkeys((*(request.response.vary or ()), "Accept-Language")))
    event.setdefault("paths", request.registry.page_paths)
    event.setdefault("help_url", settings.help_url)
    event.setdefault("support_link", partial(support_link, settings))
    event.setdefault(
        "footer",
        [
            (label, url)
            for label, url in (
                (_("Help"), settings.help_url),
                (_("Privacy"), settings.privacy_url),
                (_("Terms"), settings.terms_url),
            )
            if url
        ],
    )


def support_link(settings: Settings, error_id: str) -> str:
    """The address for help with an error, with the reference and nothing else of the request; "" if there is none."""
    url = settings.support_url
    if url.startswith("mailto:"):
        return f"{url}?subject={quote(f'{settings.product_name}: {error_id}', safe='')}"
    return url.replace(REFERENCE, quote(error_id, safe=""))


@view_config(route_name="style", request_method="GET")
@view_config(route_name="theme", request_method="GET")
@view_config(route_name="favicon", request_method="GET")
@view_config(route_name="show_password", request_method="GET")
@view_config(route_name="open_link", request_method="GET")
@view_config(route_name="logo", request_method="GET")
def static_file(request: Request) -> Response:
    """GET: a style sheet, script or image of the pages, with an ETag."""
    found = request.registry.static_files.get(request.matched_route.name)
    if found is None:
        raise HTTPNotFound()
    content_type, body, etag = found
    response = Response(
        body=body, content_type=content_type, charset="utf-8" if "text" in content_type else None
    )
    response.headers["Cache-Control"] = f"public, max-age={STATIC_MAXIMUM_AGE}"
    return or_not_modified(request, response, etag)


def _static_files(settings: Settings) -> Mapping[str, tuple[str, bytes, str]]:
    static = files("authserver.web") / "static"
    accent = settings.accent_color
    theme = f":root {{ --accent: {accent}; --on-accent: {_readable_on(accent)}; }}\n"
    bodies = {
        "style": ("text/css", (static / "style.css").read_bytes()),
        "theme": ("text/css", theme.encode()),
        "favicon": ("image/svg+xml", (static / "favicon.svg").read_bytes()),
        "show_password": ("text/javascript", (static / "show-password.js").read_bytes()),
        "open_link": ("text/javascript", (static / "open-link.js").read_bytes()),
    }
    if settings.logo:
        kind = "image/svg+xml" if settings.logo.endswith(".svg") else "image/png"
        bodies["logo"] = (kind, Path(settings.logo).read_bytes())
    return {
        name: (kind, body, hashlib.sha256(body).hexdigest()[:16]) for name, (kind, body) in bodies.items()
    }


def _paths(registry: Registry) -> Paths:
    static = registry.static_files
    return Paths(
        home=_url(registry, "home"),
        login=_url(registry, "login"),
        logout=_url(registry, "logout"),
        forgotten_password=_url(registry, "forgotten_password")
        if is_mail_on(registry.application.parts.policies)
        else "",
        account=_url(registry, "account_apps"),
        sign_out_everywhere=_url(registry, "account_sign_out"),
        # The digest of the content in the address makes browsers fetch a changed file at once.
        style=_url(registry, "style", v=static["style"][2]),
        theme=_url(registry, "theme", v=static["theme"][2]),
        favicon=_url(registry, "favicon", v=static["favicon"][2]),
        show_password=_url(registry, "show_password", v=static["show_password"][2]),
        open_link=_url(registry, "open_link", v=static["open_link"][2]),
    )


def _readable_on(color: str) -> str:
    """Black or white, whichever contrasts more (WCAG 2.2, 1.4.3)."""

    def linear(channel: int) -> float:
        share = channel / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(color[start : start + 2], 16)) for start in (1, 3, 5))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"
