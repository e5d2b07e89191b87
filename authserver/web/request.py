"""The request as every view gets it: Pyramid's, with typed access to the parts of this server."""

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
    """Let Pyramid make requests of the class below."""
    config.set_request_factory(Request)


def complete(config: Configurator) -> None:
    """Make the one class of all requests, once everything is there that `add_request_method` adds.

    Pyramid would make a class for every request, which costs more than all else that is done for a small one.
    """
    registry = config.registry
    added = registry.queryUtility(IRequestExtensions)
    members = {**added.methods, **added.descriptors}
    factory = registry.getUtility(IRequestFactory)
    registry.registerUtility(type(factory.__name__, (factory,), members), IRequestFactory)
    registry.unregisterUtility(added, IRequestExtensions)


class Served(Protocol):
    """What the web needs of the application (`authserver.app.Application`)."""

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
        """Ask the database whether it answers. Raises StorageUnavailable."""

    def engine(self, request: Request) -> Engine:
        """What the rules get, in the transaction that the request has."""

    def answer_forgotten(self, username: str, caller: Caller) -> None:
        """Send the user of this name a link to set a password, later and unseen by the caller (T100)."""

    def begin(
        self, *, caller: Caller | None = None, journal: Journal | None = None, optimistic: bool = False
    ) -> AbstractContextManager[Engine]:
        """What the rules get, in a transaction of its own: committed at the end, rolled back on an exception.

        Args:
            optimistic: as in `engine.ports.Storage`.
        """


class Registry(Protocol):
    """Pyramid's registry, with what the server keeps there from start to end.

    Attributes:
        routes: the route table, by name.
        paths: the same by path, without endpoints that are switched off.
        patterns: those of them that have placeholders, by what fits their paths.
        folders: routes for everything below a path.
        switched_off: routes that answer 404, by path.
        metadata: of the server.
        metadata_body: the same as it is sent.
        home_links: label and address of what features add to the front page.
        page_paths: the addresses that every page may link to (`web.pages.Paths`).
        account_tabs: route and label of what features add to people's accounts.
        sign_in_ways: what features add to the sign-in page (`web.pages.SignInWay`), by the parameters of a request.
        static_files: media type, content and digest, by the name of the route.
        cross_origin: what programs in browsers may do from other origins.
        languages: the languages that pages are in.
        forwarding: which proxies are trusted.
        request_ids: what ids are taken over from them.
        refusal_of: why a request is not for this server (`web.headers.refusal_of`).
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

    Its body always stays in memory, although WebOb writes long ones to a file: a password must not be on the disk.

    Attributes:
        engine: what the rules get, in the transaction of this request.
        route: what it is for; None for an unknown path, and for pages that are not in the route table.
        caller: where it comes from, and how.
        journal: the facts that become known while it is processed.
        browser: the session and the pending requests of its cookies.
        error_id: the id of its error, if there is one; the same for each attempt of a retry.
        language: that its page is in; asked for after the engine has read `ui_locales`.
        content_security_policy: what its page needs beyond `web.headers.PAGE_POLICY`.
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
