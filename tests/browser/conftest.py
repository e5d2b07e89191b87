"""A real Chromium before a real server process, with real clients that it is sent to.

Whatever the browser complains of fails the test: a violation of the Content-Security-Policy, an error in the
console or of a script, a request to anybody else, a page of ours without its protecting headers.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.sync_api import Browser, Page, Request, Response, expect, sync_playwright

from authserver.engine.clients.registration import add_client
from authserver.engine.records import ClientMetadata
from authserver.testing.live import live_server, with_playground
from authserver.testing.server import RESOURCE, SETTINGS, Server
from tests.browser.steps import MANY_SCOPES

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MILLISECONDS = 10_000
# What an operator may add to the pages.
SITE = {
    "authserver.scopes": SETTINGS["authserver.scopes"]
    + "\n".join(f"        {name} = Do what {name} says" for name in MANY_SCOPES),
    "authserver.scope_groups": "calendar = Calendars, also those that others have shared with you",
    "authserver.resource_names": f"{RESOURCE} = The API of everything",
    "authserver.help_url": "https://help.example/",
    "authserver.privacy_url": "https://site.example/privacy",
    "authserver.terms_url": "https://site.example/terms",
    "authserver.support_url": "mailto:help@site.example",
    "authserver.plugin.origins_listed.origins": "https://listed.example",
}
# A client may send the browser on, and again, at last to an app.
ONWARD = {"/open": "/opened", "/opened": "example-app://done"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = f"{Path(__file__).parent}{os.sep}"
    for item in items:
        if str(item.path).startswith(folder):
            item.add_marker(pytest.mark.browser)


@dataclass
class ClientSite:
    """A client's own web server: what the browser brings there is kept."""

    address: str
    port: int
    visits: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    forms: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Watch:
    """Everything the browser complained of in one test."""

    issuer: str
    allowed: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def allow(self, pattern: str) -> None:
        """Complaints that match this are what the test is about."""
        self.allowed.append(pattern)

    def left(self) -> list[str]:
        """The complaints that nothing allows."""
        return [text for text in self.complaints if not any(re.search(each, text) for each in self.allowed)]

    def add_request(self, request: Request) -> None:
        """Q-06, T026: a page of ours loads nothing from anywhere else."""
        ours = request.url.startswith((self.issuer + "/", "data:"))
        if not ours and request.resource_type != "document":
            self.complaints.append(f"third party: {request.resource_type} {request.url}")

    def add_response(self, response: Response) -> None:
        """E-06, Q-05, Q-06, T026, T093: each document of ours says that nobody may frame, keep or pass it on."""
        if response.request.resource_type != "document" or not response.url.startswith(self.issuer + "/"):
            return
        if urlsplit(response.url).path.startswith(("/.well-known/", "/oauth/jwks")):
            return
        headers = response.headers
        policy = headers.get("content-security-policy", "")
        if not (
            "default-src 'none'" in policy
            and "frame-ancestors 'none'" in policy
            and "unsafe" not in policy
            and headers.get("x-frame-options") == "DENY"
            and headers.get("referrer-policy") == "no-referrer"
            and "no-store" in headers.get("cache-control", "")
        ):
            self.complaints.append(f"headers of {response.url}: {headers}")


@pytest.fixture(scope="session")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server process, with the playground and the users `ann` and `bob`."""
    path = tmp_path_factory.mktemp("live") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    settings = with_playground(SITE)
    settings["authserver.plugins"] = (
        f"{settings['authserver.plugins']}\norigins_listed\nstep_up\nsmtp_mail\ndevice_grant"
    )
    # Nobody in these tests has a mail address.
    settings["authserver.plugin.smtp_mail.host"] = "localhost"
    settings["authserver.plugin.smtp_mail.sender"] = "sign-in@site.example"
    settings["authserver.plugin.step_up.levels"] = "password = pwd"
    with live_server(f"sqlite:///{path}", settings) as server:
        server.add_user("ann")
        server.add_user("bob")
        metadata = ClientMetadata(
            client_name="Playground",
            redirect_uris=(f"{server.issuer}/playground",),
            token_endpoint_auth_method="none",
            grant_types=("authorization_code", "refresh_token"),
            scopes=("profile", "files.read"),
            application_type="native",
        )
        with server.application.begin() as engine:
            add_client(engine, metadata, client_id="playground")
        yield server


@pytest.fixture(scope="session")
def local_site() -> Iterator[ClientSite]:
    """A program on this computer, waiting for its answer on a loopback port."""
    yield from _serve("http://127.0.0.1:{port}")


@pytest.fixture(scope="session")
def web_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientSite]:
    """A web application elsewhere: https://client.example, and every other https host ending in .example."""
    yield from _serve("https://client.example", _certificate(tmp_path_factory.mktemp("certificate")))


@pytest.fixture(scope="session")
def chromium(web_site: ClientSite) -> Iterator[Browser]:
    """Debian's Chromium, which can reach this computer alone; preferably without the windows that nobody sees."""
    path = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if path is None:
        if "CI" in os.environ:
            pytest.fail(
                "the browser tests need Chromium: apt-get install chromium-headless-shell", pytrace=False
            )
        pytest.skip("needs Chromium: apt-get install chromium-headless-shell")
    hosts = f"MAP *.example 127.0.0.1:{web_site.port}, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
    expect.set_options(timeout=MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*ARGUMENTS, f"--host-resolver-rules={hosts}"]
        )
        yield browser
        browser.close()


@pytest.fixture
def watch(server: Server) -> Watch:
    """What the browser complains of; the test fails on everything it does not allow."""
    return Watch(issuer=server.issuer)


@pytest.fixture
def open_page(chromium: Browser, watch: Watch) -> Iterator[Callable[..., Page]]:
    """Open a page in a browser of its own, watched: `open_page(java_script_enabled=False)`."""
    contexts = []

    def open_page(**options: Any) -> Page:
        context = chromium.new_context(ignore_https_errors=True, **options)
        context.set_default_timeout(MILLISECONDS)
        contexts.append(context)
        context.on("console", lambda message: _add_message(watch, message))
        context.on("weberror", lambda error: watch.complaints.append(f"script: {error.error}"))
        context.on("request", watch.add_request)
        context.on("response", watch.add_response)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()
    assert watch.left() == []


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """A page in a browser that has never been here."""
    return open_page()


def _add_message(watch: Watch, message: Any) -> None:
    if message.type in ("error", "warning"):
        watch.complaints.append(f"{message.type}: {message.text}")


def _serve(address: str, certificate: Path | None = None) -> Iterator[ClientSite]:
    visits: list[tuple[str, dict[str, str]]] = []
    forms: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            visits.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            onward = ONWARD.get(self.path.partition("?")[0])
            if onward is not None:
                self.send_response(302)
                self.send_header("Location", onward)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = b'<!doctype html><html lang="en"><title>Client</title><link rel="icon" href="data:,"><h1>Client</h1>'
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            """A form: its path and its body."""
            forms.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    class Site(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Chromium opens connections ahead of need, and drops them."""

    httpd = Site(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # The handshake belongs to the connection's own thread: Chromium opens some that it never uses.
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
    Thread(target=httpd.serve_forever, daemon=True).start()
    port = httpd.server_address[1]
    yield ClientSite(address=address.format(port=port), port=port, visits=visits, forms=forms)
    httpd.shutdown()
    httpd.server_close()


def _certificate(folder: Path) -> Path:
    """A certificate that the browser is told to put up with, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
