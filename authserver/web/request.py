"""The request as every view gets it: Pyramid's, with typed ways to the parts of this server."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import pyramid.request
from pyramid.config import Configurator

from authserver.engine.context import Caller, Engine, Journal, Parts
from authserver.engine.pending import Browser
from authserver.engine.ports import Storage
from authserver.limits import MAXIMUM_BODY
from authserver.web.route import CrossOrigin, Route


def includeme(config: Configurator) -> None:
    config.set_request_factory(Request)


class Served(Protocol):
    """What web needs of the application that it is the web of (`authserver.app.Application`)."""

    @property
    def parts(self) -> Parts: ...

    @property
    def storage(self) -> Storage: ...

    def check_database(self) -> None: ...

    def engine(self, request: Request) -> Engine: ...

    def begin(
        self, *, caller: Caller | None = None, journal: Journal | None = None
    ) -> AbstractContextManager[Engine]: ...


class Registry(Protocol):
    """Pyramid's registry, with what is kept there for the whole life of the server.

    Attributes:
        routes: the route table, by name.
        paths: the same by path, without what is switched off.
        folders: routes for everything below a path.
        unstored_paths: where requests have no transaction.
        metadata_body: the server metadata, as it is sent.
        home_links: label and address of what features add to the front page.
        static_files: media type, content and digest, by the name of the route.
        cross_origin: headers that other origins may send and read.
        locales: the languages that there are translations for.
    """

    application: Served
    routes: dict[str, Route]
    paths: dict[str, Route]
    folders: dict[str, Route]
    unstored_paths: set[str]
    metadata_body: bytes
    home_links: list[tuple[str, str]]
    static_files: Mapping[str, tuple[str, bytes, str]]
    cross_origin: CrossOrigin
    locales: tuple[str, ...]


class Request(pyramid.request.Request):  # type: ignore[misc]  # Pyramid publishes no types
    """A request.

    Its body stays in memory, as WebOb does with shorter ones only: a password must not be written to a file.

    Attributes:
        engine: the rules' view of it, in its transaction.
        caller: who sends it, and how.
        journal: what becomes known of it.
        browser: which session and pending requests its cookies show.
        error_id: the id of whatever ends it; the same however often it is repeated.
        content_security_policy: what its page needs beyond `web.headers.PAGE_POLICY`.
    """

    request_body_tempfile_limit = MAXIMUM_BODY

    registry: Registry
    engine: Engine
    caller: Caller
    journal: Journal
    browser: Browser
    error_id: str
    content_security_policy: dict[str, list[str] | None]

    @property
    def application(self) -> Served:
        return self.registry.application
