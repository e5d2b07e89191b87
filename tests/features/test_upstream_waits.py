"""While a provider takes its time, everybody else goes on: no connection of the database waits with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler

import pytest
from webtest import TestApp, TestResponse

from authserver import app
from authserver.engine.people.login import disable_user
from authserver.storage.database import Database
from authserver.testing.server import Server, form_with
from authserver.testing.threads import until
from tests.features.upstream_steps import Liar, a_liar, query_of, reasons, to_the_provider, with_provider

CONFIGURATION = "/.well-known/openid-configuration"


@contextmanager
def held(liar: Liar, path: str) -> Iterator[threading.Event]:
    """The provider answers at this path as ever, but not before the end of the block.

    Yields:
        set when somebody waits.
    """
    asked, may_go_on = threading.Event(), threading.Event()

    def wait(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        may_go_on.wait(timeout=20)
        liar.answers.pop(path, None)
        liar._reply(handler)

    liar.answers[path] = wait
    try:
        yield asked
    finally:
        may_go_on.set()


@pytest.fixture
def liar() -> Iterator[Liar]:
    with a_liar() as liar:
        liar.configuration["userinfo_endpoint"] = f"{liar.issuer}/userinfo"
        yield liar


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def server(request: pytest.FixtureRequest, liar: Liar, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One whose processes have a single connection each."""
    monkeypatch.setattr(app, "Database", partial(Database, pool_size=1))
    settings: dict[str, str | None] = {
        **with_provider(liar.issuer, "authserver", "secret"),
        "authserver.fetch_time_limit": "20",
    }
    server = Server(request.getfixturevalue(f"{request.param}_url"), settings)
    yield server
    server.close()


def in_use(server: Server) -> int:
    return server.application.storage.connections()["in_use"]


@pytest.mark.parametrize("path", [CONFIGURATION, "/token", "/keys", "/userinfo"])
def test_others_go_on_while_the_provider_takes_its_time(server: Server, liar: Liar, path: str) -> None:
    """UP-01, UP-08, T114: on the way there and at the callback, with one connection for all."""
    server.add_user("bob")
    client, secret = server.add_client(grant_types=("client_credentials",))
    others = server.browser()

    def sign_in() -> TestResponse:
        browser = server.browser()
        return _come_back(server, liar, query_of(to_the_provider(browser)), browser)

    with ThreadPoolExecutor(1) as threads:
        with held(liar, path) as asked:
            coming = threads.submit(sign_in)
            assert asked.wait(timeout=20)
            assert until(lambda: in_use(server) == 0, 5)
            assert server.sign_in(others, "bob").status_int == 303
            assert server.token(client, secret, grant_type="client_credentials").status_int == 200
        assert coming.result(timeout=20).status_int == 303
    assert [row["username"] for row in server.rows("users")] == ["bob", "ann"]
    assert len(server.rows("identities")) == 1
    assert in_use(server) == 0


def test_an_answer_that_comes_twice_at_once_signs_in_once(server: Server, liar: Liar) -> None:
    """UP-01: both are read while the attempt is not used yet; the claim after the provider's answer decides."""
    browser = server.browser()
    sent = query_of(to_the_provider(browser))
    liar.nonce = sent["nonce"]
    with ThreadPoolExecutor(2) as threads:
        with held(liar, "/userinfo") as asked:
            first = threads.submit(_callback, browser, sent)
            assert asked.wait(timeout=20)
            second = threads.submit(_callback, browser, sent)
            # It waits for its turn to ask the same host.
            assert until(lambda: server.application.parts.fetcher._places._waiting == 1, 5)
        statuses = sorted([first.result(timeout=20).status_int, second.result(timeout=20).status_int])
    assert statuses == [303, 400]
    assert reasons(server) == ["provider-attempt-used"]
    assert len(server.rows("users")) == len(server.rows("sessions")) == 1


def test_who_was_disabled_meanwhile_is_not_signed_in(server: Server, liar: Liar) -> None:
    """UP-03, R-09: who somebody is, is read after the provider has answered."""
    browser = server.browser()
    assert _come_back(server, liar, query_of(to_the_provider(browser)), browser).status_int == 303

    def disable() -> None:
        with server.begin() as engine:
            disable_user(engine, "ann")

    browser = server.browser()
    answer = _come_back(server, liar, query_of(to_the_provider(browser)), browser, disable)
    assert answer.status_int == 400
    assert reasons(server) == ["user-disabled"]
    assert server.rows("sessions") == []


def test_who_was_signed_out_meanwhile_joins_nothing(server: Server, liar: Liar) -> None:
    """UP-03: the session in which somebody asked for it must be there when it is done."""
    server.add_user("bob")
    browser, elsewhere = server.browser(), server.browser()
    server.sign_in(browser, "bob")
    server.sign_in(elsewhere, "bob")

    def sign_out_everywhere() -> None:
        with server.begin() as engine:
            engine.stores.sessions.end_all(server.rows("users")[0]["user_id"])

    away = form_with(browser.get("/account/identities"), "add").submit("add")
    answer = _come_back(server, liar, query_of(away.location), browser, sign_out_everywhere)
    assert answer.status_int == 400
    assert reasons(server) == ["provider-signed-out"]
    assert server.rows("identities") == []


def _come_back(
    server: Server,
    liar: Liar,
    sent: Mapping[str, str],
    browser: TestApp,
    meanwhile: Callable[[], None] | None = None,
) -> TestResponse:
    """To the callback, and do something while the provider is asked."""
    liar.nonce = sent["nonce"]
    if meanwhile is None:
        return _callback(browser, sent)
    with ThreadPoolExecutor(1) as threads:
        with held(liar, "/token") as asked:
            coming = threads.submit(_callback, browser, sent)
            assert asked.wait(timeout=20)
            meanwhile()
        return coming.result(timeout=20)


def _callback(browser: TestApp, sent: Mapping[str, str]) -> TestResponse:
    return browser.get(
        "/login/staff/callback", {"code": "a-code", "state": sent["state"]}, expect_errors=True
    )
