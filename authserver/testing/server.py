"""A whole server in this process, for tests: real application, real database, real commits.

server = Server("sqlite:////tmp/copy.sqlite")
client, secret = server.add_client(grant_types=("client_credentials",))
answer = server.token(client, secret, grant_type="client_credentials")
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pkg_resources
import sqlalchemy as sa
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from pyramid.router import Router
from pyramid_jinja2 import IJinja2Environment
from webtest import TestApp, TestResponse

import authserver
from authserver import app
from authserver.engine.context import Engine
from authserver.engine.records import Client
from authserver.ini import PLUGIN_PREFIX
from authserver.plugins.loading import name_of
from authserver.testing.service import (
    CHALLENGE,
    ISSUER,
    PASSWORD,
    REDIRECT_URI,
    RESOURCE,
    VERIFIER,
    Service,
    authorization_query,
    basic,
    forged,
)

__all__ = [
    "CHALLENGE",
    "ISSUER",
    "PASSWORD",
    "REDIRECT_URI",
    "RESOURCE",
    "SETTINGS",
    "VERIFIER",
    "Server",
    "basic",
    "forged",
    "form_with",
    "query_of",
    "with_plugin",
]

# pytest loads a package that has fixtures with its own loader, to rewrite its asserts; pkg_resources, with which
# Pyramid finds templates and other files, does not support that loader unless it is registered.
pkg_resources.register_loader_type(type(authserver.__loader__), pkg_resources.DefaultProvider)

SETTINGS: Mapping[str, str] = {
    "authserver.issuer": ISSUER,
    "authserver.environment": "development",
    # A fixed key: what one process of a test seals, another one opens.
    "authserver.secret_keys": "test:"
    + base64.b64encode(hashlib.sha256(b"authserver tests").digest()).decode(),
    # Each refusal is stored as an event of its own, however many a test causes.
    "authserver.refusals_per_minute": "100000",
    "authserver.plugins": """
        client_secret_basic
        client_secret_post
        public_client
        redirect_exact
        redirect_loopback
        origins_registered
        scopes_registered
        scopes_default
        resources_listed
        resources_registered
        consent_remembered
        consent_first_party
        login_password
        registration_open
        introspect_own
        introspect_resource_servers
    """,
    "authserver.plugin.redirect_loopback.hosts": "127.0.0.1 [::1] localhost",
    "authserver.plugin.resources_listed.resources": f"{RESOURCE} = *\nhttps://files.example/ = files.read files.write",
    "authserver.plugin.resources_listed.default": RESOURCE,
    "authserver.plugin.scopes_default.scopes": "profile",
    "authserver.plugin.registration_open.scopes": "profile files.read",
    "authserver.plugin.introspect_resource_servers.clients": f"api = {RESOURCE}\nfiles-api = https://files.example/",
    "authserver.scopes": """
        profile = See your name
        files.read = Read your files
        files.write = Change your files
        admin = Everything
    """,
    "authserver.hidden_scopes": "admin",
}


class CompiledTemplates(BytecodeCache):
    """The compiled templates, kept for all servers of this process."""

    def __init__(self) -> None:
        self._code: dict[str, Any] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get(f"{bucket.key} {bucket.checksum}")

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[f"{bucket.key} {bucket.checksum}"] = bucket.code


_compiled_templates = CompiledTemplates()


class Pages:
    """Routes, views and templates of closed servers, for servers with the same settings: making them takes most of a start.

    They refer to their server only by `registry.application`. Pages of plugins may refer to their plugin: an equal frozen
    value can replace it, but the pages of a plugin with a state of its own are for its own server alone.
    """

    MOST = 16

    def __init__(self) -> None:
        self._left: list[Router] = []

    def of(self, application: app.Application, ini: Mapping[str, str]) -> Router:
        """The pages of this application. Raises what `app.make_wsgi_app` does."""
        key = self._key(application, ini)
        for router in reversed(self._left):
            if key is not None and router.registry.made_for == key:
                self._left.remove(router)
                router.registry.application = application
                return router
        router = app.make_wsgi_app(application, ini)
        router.registry.getUtility(IJinja2Environment, name=".jinja2").bytecode_cache = _compiled_templates
        router.registry.made_for = key
        return router

    def leave(self, router: Router, application: app.Application) -> None:
        """Take back the pages of this application, which is closed. A second call does nothing."""
        if (
            router.registry.made_for is not None
            and router.registry.application is application
            and router not in self._left
        ):
            self._left = [*self._left[1 - self.MOST :], router]

    @staticmethod
    def _key(application: app.Application, ini: Mapping[str, str]) -> object:
        """The settings and plugins of the pages; None when the pages are for this server alone."""
        if any("env:" in value or "file:" in value for value in ini.values()):
            return None
        policies = application.parts.policies
        plugins = tuple(policies.plugin(name) for name in policies.names)
        known = plugins if policies.serves("includeme") else tuple(map(type, plugins))
        return known, {key: value for key, value in ini.items() if key != "authserver.database_url"}


_pages = Pages()


class Server(Service[TestResponse]):
    """A running application on a migrated database.

    Args:
        database_url: of a migrated database of its own.
        settings: INI keys that differ from `SETTINGS`; None removes a key.
    """

    def __init__(self, database_url: str, settings: Mapping[str, str | None] | None = None) -> None:
        ini = {**SETTINGS, "authserver.database_url": database_url, **(settings or {})}
        self.ini = {key: value for key, value in ini.items() if value is not None}
        self.application = app.build(self.ini)
        app.announce(self.application)
        try:
            self.application.prepare()
            self.wsgi = _pages.of(self.application, self.ini)
        except BaseException:
            self.application.close()
            raise
        self.issuer = self.application.parts.settings.issuer
        self.http = self.browser()

    def browser(self) -> TestApp:
        """A new browser, or API client: its own cookies, the issuer's host and scheme."""
        issuer = urlsplit(self.issuer)
        return TestApp(
            self.wsgi,
            extra_environ={
                "HTTP_HOST": issuer.netloc,
                "wsgi.url_scheme": issuer.scheme,
                "REMOTE_ADDR": "192.0.2.1",
            },
        )

    def path(self, path: str) -> str:
        """A path below the issuer."""
        return self.application.parts.settings.issuer_path + path

    def begin(self) -> AbstractContextManager[Engine]:
        return self.application.begin()

    def deliver(self) -> None:
        """Let the readers of events take all new events, as in the background. Raises the exception of a plugin."""
        for reading in self.application.readings:
            while reading.work():
                pass

    def close(self) -> None:
        """Close its database connections, and leave its pages to the next server with the same settings."""
        self.application.close()
        _pages.leave(self.wsgi, self.application)

    def authorization_url(self, client: Client, **changes: str | list[str] | None) -> str:
        """The address of a correct authorization request, with these parameters changed; None removes one."""
        return self.path("/oauth/authorize?") + authorization_query(client, **changes)

    def sign_in(self, browser: TestApp, username: str = "ann", password: str = PASSWORD) -> TestResponse:
        """Sign in at /login, without a pending request."""
        form = form_with(browser.get(self.path("/login")), "username")
        form["username"], form["password"] = username, password
        return form.submit(expect_errors=True)

    def consent(
        self, page: TestResponse, answer: str = "allow", scopes: list[str] | None = None
    ) -> TestResponse:
        """Answer a consent page, with all scopes ticked or only these."""
        form = form_with(page, "scope")
        for box in form.fields["scope"]:
            box.checked = scopes is None or box._value in scopes
        if "confirm_unverified" in form.fields:
            form["confirm_unverified"].checked = True
        return form.submit("answer", value=answer, expect_errors=True)

    def code(self, client: Client, browser: TestApp | None = None, **changes: str | list[str] | None) -> str:
        """A fresh authorization code, obtained as by a person; user `ann` signs in if nobody is signed in."""
        browser = browser or self.browser()
        answer = browser.get(self.authorization_url(client, **changes))
        if urlsplit(answer.location or "").path == self.path("/login"):
            self.sign_in(browser)
            answer = browser.get(self.authorization_url(client, **changes))
        if answer.status_int == 200:
            answer = self.consent(answer)
        return query_of(answer)["code"]

    def post(
        self,
        path: str,
        body: str | bytes,
        *,
        authorization: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> TestResponse:
        sent = {**({"Authorization": authorization} if authorization else {}), **(headers or {})}
        return self.http.post(
            self.path(path),
            body,
            headers=sent,
            content_type="application/x-www-form-urlencoded",
            expect_errors=True,
        )

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table as they are stored; rows with a number in the order of their numbers."""
        with self.application.storage.engine.connect() as connection:
            rows = connection.execute(sa.text(f"SELECT * FROM {table}")).mappings().all()  # noqa: S608 - a test names the table
        # PostgreSQL puts new rows where old ones made room.
        return sorted(map(dict, rows), key=lambda row: row.get("number", 0))

    def claims(self, token: str) -> dict[str, Any]:
        """The claims of a JWT access token, verified with this server's keys."""
        return dict(self.application.parts.signer.verify(token, typ="at+jwt"))


def with_plugin(
    plugin: str | type, fields: Mapping[str, str], *, without: tuple[str, ...] = ()
) -> dict[str, str | None]:
    """INI keys that add a plugin before the others of `SETTINGS`, with its settings.

    Args:
        plugin: an entry point's name, `module:Class`, or the class.
        fields: its settings, as texts.
        without: plugins of `SETTINGS` to leave out, with their settings.
    """
    named = plugin if isinstance(plugin, str) else f"{plugin.__module__}:{plugin.__qualname__}"
    others = [line for line in SETTINGS["authserver.plugins"].split() if line not in without]
    left_out = tuple(f"{PLUGIN_PREFIX}{name}." for name in without)
    return {
        **{key: None for key in SETTINGS if left_out and key.startswith(left_out)},
        "authserver.plugins": "\n".join([named, *others]),
        **{f"{PLUGIN_PREFIX}{name_of(named)}.{field}": text for field, text in fields.items()},
    }


def form_with(page: TestResponse, field: str) -> Any:
    """The form of a page that has this field."""
    return next(form for form in page.forms.values() if field in form.fields)


def query_of(answer: TestResponse) -> dict[str, str]:
    """The query parameters of the address that an answer redirects to."""
    return dict(parse_qsl(urlsplit(answer.location).query, keep_blank_values=True))
