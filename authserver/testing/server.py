"""A whole server in this process, for tests: real application, real database, real commits.

server = Server("sqlite:////tmp/copy.sqlite")
client, secret = server.add_client(grant_types=("client_credentials",))
answer = server.token(client, secret, grant_type="client_credentials")
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pkg_resources
import sqlalchemy as sa
from webtest import TestApp, TestResponse

import authserver
from authserver import app
from authserver.engine.clients.registration import add_client
from authserver.engine.crypto import digests
from authserver.engine.people.login import add_user
from authserver.engine.records import Client, ClientMetadata, User
from authserver.ini import PLUGIN_PREFIX
from authserver.plugins.loading import name_of

# pytest loads a package that brings fixtures in a way of its own, to rewrite its asserts; pkg_resources, by which
# Pyramid finds templates and the like, must be told that files are where they always are.
pkg_resources.register_loader_type(type(authserver.__loader__), pkg_resources.DefaultProvider)

ISSUER = "https://as.example"
RESOURCE = "https://api.example/"
PASSWORD = "correct horse battery staple"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
REDIRECT_URI = "https://client.example/cb"

SETTINGS: Mapping[str, str] = {
    "authserver.issuer": ISSUER,
    "authserver.environment": "development",
    # A fixed key: what one process of a test seals, another one opens.
    "authserver.secret_keys": "test:"
    + base64.b64encode(hashlib.sha256(b"authserver tests").digest()).decode(),
    "authserver.plugins": """
        client_secret_basic
        client_secret_post
        public_client
        redirect_exact
        redirect_loopback
        scopes_registered
        scopes_default
        resources_listed
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


class Server:
    """A running application on a migrated database.

    Args:
        database_url: of a migrated database of its own.
        settings: INI keys that differ from `SETTINGS`; None removes a key.
    """

    __test__ = False

    def __init__(self, database_url: str, settings: Mapping[str, str | None] | None = None) -> None:
        ini = {**SETTINGS, "authserver.database_url": database_url, **(settings or {})}
        self.ini = {key: value for key, value in ini.items() if value is not None}
        self.wsgi = app.start(self.ini)
        self.application: app.Application = self.wsgi.registry.application
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

    def close(self) -> None:
        """Give its database connections back."""
        self.application.close()

    def add_client(
        self, *, client_id: str | None = None, first_party: bool = False, **metadata: Any
    ) -> tuple[Client, str | None]:
        """A client registered by an operator; a confidential web client of the code grant unless said otherwise."""
        values: dict[str, Any] = {
            "client_name": "Example",
            "redirect_uris": (REDIRECT_URI,),
            "grant_types": ("authorization_code", "refresh_token"),
            "scopes": ("profile", "files.read"),
            **metadata,
        }
        if "authorization_code" not in values["grant_types"]:
            values |= {"redirect_uris": (), "response_types": ()}
        with self.application.begin() as engine:
            return add_client(engine, ClientMetadata(**values), client_id=client_id, first_party=first_party)

    def add_user(
        self, username: str = "ann", password: str | None = PASSWORD, *, is_admin: bool = False
    ) -> User:
        """A person with a password."""
        with self.application.begin() as engine:
            return add_user(engine, username, password, display_name=username.title(), is_admin=is_admin)

    def authorization_url(self, client: Client, **changes: str | list[str] | None) -> str:
        """The address of a correct authorization request, with these parameters changed; None removes one."""
        parameters: dict[str, Any] = {
            "response_type": "code",
            "client_id": client.client_id,
            "redirect_uri": client.redirect_uris[0] if client.redirect_uris else REDIRECT_URI,
            "scope": "profile",
            "state": "xyz",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **changes,
        }
        pairs = {name: value for name, value in parameters.items() if value is not None}
        return self.path("/oauth/authorize?") + urlencode(pairs, doseq=True)

    def sign_in(self, browser: TestApp, username: str = "ann", password: str = PASSWORD) -> TestResponse:
        """Sign in at the front door, without a pending request."""
        form = form_with(browser.get(self.path("/login")), "username")
        form["username"], form["password"] = username, password
        return form.submit(expect_errors=True)

    def consent(
        self, page: TestResponse, answer: str = "allow", scopes: list[str] | None = None
    ) -> TestResponse:
        """Answer a consent page, with all scopes ticked or just these."""
        form = form_with(page, "scope")
        for box in form.fields["scope"]:
            box.checked = scopes is None or box._value in scopes
        if "confirm_unverified" in form.fields:
            form["confirm_unverified"].checked = True
        return form.submit("answer", value=answer, expect_errors=True)

    def code(self, client: Client, browser: TestApp | None = None, **changes: str | list[str] | None) -> str:
        """A fresh authorization code, obtained as a person would; user `ann` signs in if nobody is."""
        browser = browser or self.browser()
        answer = browser.get(self.authorization_url(client, **changes))
        if urlsplit(answer.location or "").path == self.path("/login"):
            self.sign_in(browser)
            answer = browser.get(self.authorization_url(client, **changes))
        if answer.status_int == 200:
            answer = self.consent(answer)
        return query_of(answer)["code"]

    def token(
        self, client: Client, secret: str | None = None, *, origin: str | None = None, **form: Any
    ) -> TestResponse:
        """A token request, authenticated as the client is registered to; any status comes back."""
        return self.ask("/oauth/token", client, secret, origin=origin, **form)

    def ask(
        self, path: str, client: Client, secret: str | None = None, *, origin: str | None = None, **form: Any
    ) -> TestResponse:
        """A form for an endpoint that clients call, authenticated as this client is registered to."""
        headers = {"Origin": origin} if origin else {}
        if client.auth_method == "client_secret_basic":
            headers["Authorization"] = basic(client.client_id, secret or "")
        else:
            form = {"client_id": client.client_id, **form}
            if secret is not None:
                form["client_secret"] = secret
        body = urlencode(form, doseq=True)
        return self.http.post(
            self.path(path),
            body,
            headers=headers,
            content_type="application/x-www-form-urlencoded",
            expect_errors=True,
        )

    def redeem(self, client: Client, secret: str | None, code: str, **form: Any) -> TestResponse:
        """Redeem a code with the verifier of `CHALLENGE`."""
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, **form}
        return self.token(client, secret, **form)

    def refresh(self, client: Client, secret: str | None, token: str, **form: Any) -> TestResponse:
        """Present a refresh token."""
        return self.token(client, secret, grant_type="refresh_token", refresh_token=token, **form)

    def introspect(self, client: Client, secret: str | None, token: str, **form: Any) -> TestResponse:
        """Ask what a token is good for."""
        return self.ask("/oauth/introspect", client, secret, token=token, **form)

    def revoke(self, client: Client, secret: str | None, token: str, **form: Any) -> TestResponse:
        """Revoke a token."""
        return self.ask("/oauth/revoke", client, secret, token=token, **form)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Everything a table holds, as it is stored."""
        with self.application.storage.engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {table}")).mappings()]  # noqa: S608 - a test names the table

    def events(self, type: str | None = None) -> list[dict[str, Any]]:
        """The events so far, or those of one type."""
        return [row for row in self.rows("events") if type in (None, row["type"])]

    def claims(self, token: str) -> dict[str, Any]:
        """The claims of a JWT access token, verified with this server's keys."""
        return dict(self.application.parts.signer.verify(token, typ="at+jwt"))


def with_plugin(
    plugin: str | type, fields: Mapping[str, str], *, without: tuple[str, ...] = ()
) -> dict[str, str | None]:
    """INI keys that add a plugin before the others of `SETTINGS` and set it.

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


def basic(client_id: str, secret: str) -> str:
    """The Authorization header of HTTP Basic, halves form-encoded (OAuth 2.1, 2.4.1)."""
    halves = ":".join(urlencode({"": half})[1:] for half in (client_id, secret))
    return "Basic " + base64.b64encode(halves.encode()).decode()


def forged(prefix: str) -> str:
    """A well-formed credential that nobody was given; the same each time, so that tests have the same names."""
    text = prefix + "A" * 43
    return text + digests.checksum(text)
