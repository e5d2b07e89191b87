"""Sign-in through node-oidc-provider: another server's discovery, pages, ID tokens and UserInfo."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, OpenerDirector, build_opener

import pytest
from bs4 import BeautifulSoup

from authserver.testing.live import free_port
from authserver.testing.server import Server
from tests.clients.programs.conftest import wait_for
from tests.features.upstream_steps import CALLBACK, path_of, query_of, to_the_provider, with_provider

SECRET = "a secret of this server there: long enough"


@pytest.fixture
def provider(npm: Path, node: str, tmp_path: Path) -> Iterator[str]:
    """Where it is."""
    issuer, log = f"http://localhost:{free_port()}", tmp_path / "provider.log"
    with log.open("wb") as output:
        command = [
            node,
            str(npm / "oidc-login.js"),
            issuer.rpartition(":")[2],
            "authserver",
            SECRET,
            CALLBACK,
        ]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(f"{issuer}/.well-known/openid-configuration", process, log)
        yield issuer
    finally:
        process.terminate()
        process.wait(timeout=10)


class UntilHome(HTTPRedirectHandler):
    """Follows redirects of the provider, and stops before the one that leads back."""

    back = ""

    def redirect_request(self, request, answer, code, message, headers, url):
        if url.startswith(CALLBACK):
            self.back = url
            return None
        return super().redirect_request(request, answer, code, message, headers, url)


class Visitor:
    """A person at the provider, in a browser of their own."""

    def __init__(self) -> None:
        self.redirects = UntilHome()
        self.opener: OpenerDirector = build_opener(HTTPCookieProcessor(CookieJar()), self.redirects)

    def go(self, address: str, name: str = "ann") -> str:
        """Sign in as this person and agree; the address that leads back."""
        self.redirects.back = ""
        form: bytes | None = None
        for _ in range(6):
            try:
                with self.opener.open(address, form, timeout=10) as answer:
                    page, here = BeautifulSoup(answer.read(), "html.parser"), answer.geturl()
            except OSError:
                assert self.redirects.back, "it led nowhere"
                return self.redirects.back
            shown = page.find("form")
            assert shown is not None, page
            fields = {
                field["name"]: field.get("value", "")
                for field in shown.find_all("input")
                if "name" in field.attrs
            }
            fields |= {key: text for key, text in (("login", name), ("password", "any")) if key in fields}
            address, form = urljoin(here, str(shown["action"])), urlencode(fields).encode()
        raise AssertionError("it never ended")


def test_people_sign_in_through_node_oidc_provider(provider: str, sqlite_url: str) -> None:
    """UP-01, UP-02, UP-03, UP-05, UP-08: by discovery alone; again in silence, and again with a new sign-in there."""
    server = Server(sqlite_url, with_provider(provider, "authserver", SECRET, attributes="email = email"))
    browser, visitor = server.browser(), Visitor()
    back = visitor.go(to_the_provider(browser))
    assert query_of(back)["iss"] == provider, "it says who it is (RFC 9207)"
    assert browser.get(path_of(back)).location == "https://as.example/"
    (user,) = server.rows("users")
    assert (user["username"], user["display_name"]) == ("ann", "Person ann")
    assert json.loads(user["attributes"]) == {"email": ["ann@example.com"]}
    (identity,) = server.rows("identities")
    assert (identity["issuer"], identity["subject"]) == (provider, "ann")

    other = server.browser()
    assert other.get(path_of(visitor.go(to_the_provider(other)))).status_int == 303
    assert len(server.rows("users")) == 1

    address = to_the_provider(browser, page="account_apps", again="yes")
    assert query_of(address)["prompt"] == "login"
    again = browser.get(path_of(visitor.go(address)))
    assert again.location == "https://as.example/account/apps"

    used = browser.get(path_of(back), expect_errors=True)
    assert used.status_int == 400
    server.close()


def test_node_oidc_provider_refuses_a_wrong_secret(provider: str, sqlite_url: str) -> None:
    """UP-12: the page says that the provider cannot be trusted, the event which setting to look at."""
    server = Server(sqlite_url, with_provider(provider, "authserver", "another"))
    browser = server.browser()
    answer = browser.get(path_of(Visitor().go(to_the_provider(browser))), expect_errors=True)
    assert answer.status_int == 400
    assert server.rows("events")[-1]["reason"] == "provider-code-refused"
    server.close()
