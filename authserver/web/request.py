"""The request that every view gets: that of Pyramid, with typed access to the parts of this server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pyramid.request
from pyramid.config import Configurator
from pyramid.interfaces import IRequestExtensions, IRequestFactory

from authserver.engine.context import Caller, Engine, Journal, Parts
from authserver.engine.floods import Floods
from authserver.engine.parameters import Parameters
from authserver.engine.pending import Browser
from authserver.engine.ports import Storage
from authserver.limits import MAXIMUM_BODY
from authserver.web.forwarding import Forwarding
from authserver.web.languages import Languages, PageLanguage
from authserver.web.processes import Ending
from authserver.web.request_ids import RequestIds
from authserver.web.route import CrossOrigin, Route


def includeme(config: Configurator) -> None:
    """Let Pyramid make requests of the class `Request`."""
    config.set_request_factory(Request)


def complete(config: Configurator) -> None:
    """Make one class for all requests, after every call of `add_request_method`.

    Pyramid would make a class for every request, which costs more than all other work for a small request.
    """
    registry = config.registry
    added = registry.queryUtility(IRequestExtensions)
    members = {**added.methods, **added.descriptors}
    factory = registry.getUtility(IRequestFactory)
    registry.registerUtility(type(factory.__name__, (factory,), members), IRequestFactory)
    registry.unregisterUtility(added, IRequestExtensions)


class Served(Protocol):
    """The parts of the application that the web uses (`authserver.app.Application`)."""

    @property
    def parts(self) -> Parts:
        """Settings, plugins and keys."""

    @property
    def storage(self) -> Storage:
        """Begins transactions outside that of a request."""

    @property
    def floods(self) -> Floods:
        """Counts refusals that are too many to be stored one by one."""

    @property
    def ending(self) -> Ending:
        """Whether the process is about to end."""

    def probe_database(self) -> None:
        """Check that the database answers. Raises StorageUnavailable."""

    def engine(self, request: Request) -> Engine:
        """The engine, in the transaction of the request."""

    def answer_forgotten(self, username: str, caller: Caller) -> None:
        """Send the user of this name a link to set a password, later, so that the caller learns nothing (T100)."""

    def begin(
        self, *, caller: Caller | None = None, journal: Journal | None = None, optimistic: bool = False
    ) -> AbstractContextManager[Engine]:
        """An engine in a transaction of its own, which is committed at the end, or rolled back on an exception.

        Args:
            optimistic: as in `engine.ports.Storage`.
        """


class Registry(Protocol):
    """The registry of Pyramid, with the objects that the server keeps there from start to end.

    Attributes:
        routes: the route table, by name.
        paths: the routes by path, without endpoints that are switched off.
        patterns: the routes with placeholders, by a pattern for their paths.
        folders: routes for everything below a path.
        switched_off: routes that answer 404, by path.
        metadata: the server metadata.
        metadata_body: the server metadata as bytes.
        home_links: label and address of the links that features add to the front page.
        page_paths: the addresses that every page may link to (`web.pages.Paths`).
        account_tabs: route and label of the pages that features add to people's accounts.
        sign_in_ways: functions that return the ways to sign in of features, for the parameters of a request.
        static_files: media type, content and digest of static files, by the name of the route.
        cross_origin: the headers for programs of other origins.
        languages: the languages of the pages.
        forwarding: the trusted proxies.
        request_ids: which ids are taken from the headers of these proxies.
        refusal_of: a function that says why a request is not for this server (`web.headers.refusal_of`).
    """

    application: Served
    routes: dict[str, Route]
    paths: dict[str, Route]
    patterns: dict[re.Pattern[str], Route]
    folders: dict[str, Route]
    switched_off: dict[str, Route]
    metadata: Mapping[str, Any]
    metadata_body: bytes
    home_links: list[tuple[str, str]]
    page_paths: Any
    account_tabs: list[tuple[str, str]]
    sign_in_ways: list[Callable[[Parameters], Sequence[Any]]]
    static_files: Mapping[str, tuple[str, bytes, str]]
    cross_origin: CrossOrigin
    languages: Languages
    forwarding: Forwarding
    request_ids: RequestIds
    refusal_of: Callable[[Mapping[str, Any]], str]


class Request(pyramid.request.Request):
    """A request.

    Its body always stays in memory, because a password must not be written to the disk; WebOb would write long bodies to a
    file.

    Attributes:
        engine: the engine, in the transaction of this request.
        route: its route; None for an unknown path, and for pages that are not in the route table.
        caller: the facts about its sender and its HTTP.
        journal: the facts that become known while it is processed.
        browser: the session and the pending requests of its cookies.
        error_id: the id of its error, if there is one; the same for each attempt of a retry.
        language: the language of its page; read it only after the engine has read `ui_locales`.
        content_security_policy: the directives of its page that differ from `web.headers.PAGE_POLICY`.
    """

    request_body_tempfile_limit = MAXIMUM_BODY

    registry: Registry
    engine: Engine
    route: Route | None
    caller: Caller
    journal: Journal
    browser: Browser
    error_id: str
    language: PageLanguage
    content_security_policy: dict[str, list[str] | None]

    @property
    def application(self) -> Served:
        """The server that answers."""
        return self.registry.application
