"""The INI file for a small machine in the documentation: it starts, and holds what the page says of it."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest
from paste.deploy import appconfig
from pyramid.router import Router
from webtest import TestApp

from authserver import app
from authserver.cli.keys import new_ring_entry
from authserver.features.rate_limits import RateLimits
from authserver.limits import MAXIMUM_BODY, MAXIMUM_HEAD
from authserver.web.serving import Section

DOCS = Path(__file__).parents[1] / "docs"
INI = DOCS / "examples" / "shared-machine.ini"


@pytest.fixture
def router(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    """The server of that file."""
    monkeypatch.setenv("AUTHSERVER_ISSUER", "https://login.example.com")
    monkeypatch.setenv("AUTHSERVER_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("AUTHSERVER_SECRET_KEYS", new_ring_entry())
    monkeypatch.setenv("AUTHSERVER_RESOURCES", "https://api.example.com/ = *")
    router = app.start(appconfig(f"config:{INI}", name="main").local_conf)
    yield router
    router.registry.application.close()


@pytest.fixture
def serving() -> Section:
    """Its section about the server, as `pserve` reads it."""
    found = configparser.ConfigParser()
    found.read(INI)
    return Section.read({name: text for name, text in found["server:main"].items() if name != "use"})


def test_it_starts_without_anything_insecure(router: Router) -> None:
    """T142."""
    application = router.registry.application
    assert application.parts.settings.is_production
    assert application.insecure == ()


def test_the_server_believes_its_proxy_and_has_a_listener_for_operators(
    router: Router, serving: Section
) -> None:
    """T136, T138: the address of a client is not that of the proxy, or all strangers would be one."""
    assert router.registry.application.parts.settings.trusted_proxies == ("127.0.0.1", "::1")
    assert [address for *_, address in serving.management] == [("127.0.0.1", 16543)]


def test_threads_are_left_for_everything_else(router: Router, serving: Section) -> None:
    """T136: with all passwords and documents under way and waiting, as the page says."""
    settings = router.registry.application.parts.settings
    held = settings.password_checks + settings.fetch_at_once + settings.fetch_waiting
    given = serving.adjustments
    assert (held, given.threads) == (3, 8)
    assert given.connection_limit == 100
    # waitress refuses from this size on.
    assert given.max_request_body_size == MAXIMUM_BODY + 1
    assert given.max_request_header_size == MAXIMUM_HEAD


def test_no_limit_of_the_usual_table_is_wider_or_missing(router: Router) -> None:
    """R-20, T131: and what strangers store has an end for all of them together."""
    rows = {
        row["limit"]: row for row in router.registry.application.parts.policies.plugin("rate_limits").table()
    }
    for usual in RateLimits().table():
        row = rows[usual["limit"]]
        assert row["count"] / row["seconds"] <= usual["count"] / usual["seconds"], usual["limit"]
    assert {row["counted"] for row in rows.values() if row["key"] == "all"} >= {
        "registration",
        "failed_registration",
        "unknown_origin",
    }


def test_anybody_registers_a_few_clients_with_little(router: Router) -> None:
    """T131, K-11: the sixth from an address has to wait, and another address does not."""

    def register(source: str, **members: object) -> object:
        environ = {"HTTP_HOST": "login.example.com", "wsgi.url_scheme": "https", "REMOTE_ADDR": source}
        body = {"redirect_uris": ["https://a.example/cb"], **members}
        return TestApp(router, extra_environ=environ).post_json("/oauth/register", body, expect_errors=True)

    answers = [register("192.0.2.1") for _ in range(6)]
    assert [answer.status_int for answer in answers] == [*[201] * 5, 429]
    assert register("192.0.2.2", scope="read write").json["scope"] == "read"


def test_the_page_shows_it() -> None:
    page = (DOCS / "shared-machine.rst").read_text()
    assert "literalinclude:: examples/shared-machine.ini" in page
    assert INI.read_text().count("[loggers]") == 1
