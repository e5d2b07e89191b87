"""Applications are told of sessions that timed out, where an operator wants that (OUT-10), on both databases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
import time_machine
from joserfc import jws
from webtest import TestApp

from authserver import upkeep
from authserver.engine import ending
from authserver.engine.people import account
from authserver.engine.people.login import disable_user
from authserver.testing.origins import Origin, sending, serving
from authserver.testing.server import Server
from authserver.testing.threads import at_once
from tests.features.openid_steps import ON, SCOPES
from tests.web.account_steps import COOKIE

IDLE, DELAY = 600, 3900
SETTINGS = {
    **ON,
    "authserver.fetch_loopback": "true",
    "authserver.session_idle_lifetime": str(IDLE),
    "authserver.session_timeout_delay": str(DELAY),
}


@pytest.fixture
def origin() -> Iterator[Origin]:
    with serving() as origin:
        origin.reply = sending(b"")
        yield origin


@pytest.fixture
def make_server(database_url: str) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(**changes: str) -> Server:
        servers.append(
            Server(database_url, {**SETTINGS, **{f"authserver.{k}": v for k, v in changes.items()}})
        )
        servers[-1].add_user("ann")
        servers[-1].deliver()
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@contextmanager
def later(seconds: float) -> Iterator[None]:
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds)):
        yield


def client_of(server: Server, origin: Origin) -> tuple[Any, Any]:
    uri = f"http://127.0.0.1:{origin.port}/bye"
    return server.add_client(scopes=SCOPES, details={"backchannel_logout_uri": uri})


def sign_in(server: Server, client: Any, secret: Any, browser: TestApp | None = None) -> dict[str, Any]:
    """What the application gets; `sid` is what the ID token calls the session."""
    code = server.code(client, browser or server.browser(), scope="openid")
    answer = dict(server.redeem(client, secret, code).json)
    return {**answer, "sid": said(answer["id_token"])["sid"]}


def said(token: str) -> dict[str, Any]:
    return dict(json.loads(jws.extract_compact(token.encode()).payload))


def told(server: Server, origin: Origin) -> list[str]:
    """The sessions of whose end the application was told, in order."""
    server.deliver()
    return [said(parse_qs(each.body.decode())["logout_token"][0])["sid"] for each in origin.received]


def timed_out(server: Server) -> list[list[str]]:
    """The sessions of each event that says that some timed out."""
    found = [event for event in server.events("session.ended") if event["reason"] == "timed-out"]
    # SQLite gives JSON as text.
    details = [event["details"] for event in found]
    return [(json.loads(each) if isinstance(each, str) else each)["ended_sessions"] for each in details]


@pytest.mark.parametrize(
    ("idle", "lifetime"), [(IDLE, 604800), (86400, IDLE)], ids=["nobody used it", "its time was over"]
)
def test_a_session_that_timed_out_is_told_once(
    make_server: Callable[..., Server], origin: Origin, idle: int, lifetime: int
) -> None:
    """OUT-10, OUT-11, OUT-15: by the clean-up, which deletes it; its access ends, and nobody hears of it again."""
    server = make_server(session_lifetime=str(lifetime), session_idle_lifetime=str(idle))
    client, secret = client_of(server, origin)
    got = sign_in(server, client, secret)
    with later(IDLE + DELAY - 60):
        server.application.caretaker.work()
        assert told(server, origin) == [] and len(server.rows("sessions")) == 1
    with later(IDLE + DELAY + 60):
        for _ in range(2):
            server.application.caretaker.work()
            assert told(server, origin) == [got["sid"]]
        assert server.rows("sessions") == []
        assert timed_out(server) == [[got["sid"]]]
        assert server.refresh(client, secret, got["refresh_token"]).json["error"] == "invalid_grant"


def test_as_shipped_nobody_is_told(make_server: Callable[..., Server], origin: Origin) -> None:
    """OUT-10: the setting is off; the access stays as well."""
    server = make_server(session_timeout_delay="0", session_lifetime="700")
    client, secret = client_of(server, origin)
    got = sign_in(server, client, secret)
    with later(700 + 2 * DELAY):
        server.application.caretaker.work()
        assert server.rows("sessions") == []
        assert told(server, origin) == [] and timed_out(server) == []
        assert server.refresh(client, secret, got["refresh_token"]).status_int == 200


def test_many_go_in_batches(
    make_server: Callable[..., Server], origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OUT-10, T116: each transaction is short, and has the events of what it deletes; who is there stays."""
    monkeypatch.setattr(upkeep, "BATCH", 2)
    server = make_server()
    client, secret = client_of(server, origin)
    sids = [sign_in(server, client, secret)["sid"] for _ in range(5)]
    with later(IDLE + DELAY + 60):
        here = sign_in(server, client, secret)["sid"]
        server.application.caretaker.work()
        assert [len(each) for each in timed_out(server)] == [2, 2, 1]
        assert sorted(told(server, origin)) == sorted(sids)
        assert len(server.rows("sessions")) == 1 and here not in sids


def test_what_is_not_recorded_is_not_deleted(
    make_server: Callable[..., Server], origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OUT-11: what is to be told is stored in the transaction that ends the session, or neither is."""
    server = make_server()
    client, secret = client_of(server, origin)
    sid = sign_in(server, client, secret)["sid"]

    def fail() -> str:
        raise RuntimeError("the process dies here")

    with later(IDLE + DELAY + 60):
        with monkeypatch.context() as patch:
            patch.setattr(ending, "new_identifier", fail)
            with pytest.raises(RuntimeError, match="dies here"):
                server.application.caretaker.work()
        assert len(server.rows("sessions")) == 1 and timed_out(server) == []
        server.application.caretaker.work()
        assert told(server, origin) == [sid]


def test_several_processes_tell_once(make_server: Callable[..., Server], origin: Origin) -> None:
    """OUT-10: a server and commands that clean up at the same moment."""
    server = make_server()
    client, secret = client_of(server, origin)
    sids = [sign_in(server, client, secret)["sid"] for _ in range(3)]
    application = server.application
    with later(IDLE + DELAY + 60):
        before = upkeep.cutoffs(application.parts.settings, datetime.now(UTC))

        def purge(_: int) -> None:
            list(upkeep.remove_all(application.storage, application.parts.ring, before, lambda _: None))

        at_once(4, purge)
        assert sorted(sid for each in timed_out(server) for sid in each) == sorted(sids)
        assert sorted(told(server, origin)) == sorted(sids)


@pytest.mark.parametrize("act", ["signs in again", "signs out everywhere", "ends all others", "is disabled"])
def test_what_ends_before_the_clean_up_is_told_then(
    make_server: Callable[..., Server], origin: Origin, act: str
) -> None:
    """OUT-10: a session that timed out and is still kept, when its browser or its person ends it; once."""
    server = make_server()
    client, secret = client_of(server, origin)
    browser = server.browser()
    sid = sign_in(server, client, secret, browser)["sid"]
    with later(IDLE + 60):
        if act == "signs in again":
            again = sign_in(server, client, secret, browser)["sid"]
            assert again != sid
        elif act == "is disabled":
            with server.begin() as engine:
                assert disable_user(engine, "ann")
        else:
            server.sign_in(elsewhere := server.browser())
            with server.begin() as engine:
                user, *_ = engine.stores.users.list()
                if act == "ends all others":
                    assert account.end_other_sessions(
                        engine, user, elsewhere.cookies[COOKIE].partition(".")[0]
                    )
                else:
                    account.sign_out_everywhere(engine, user)
        assert told(server, origin) == [sid]
    with later(IDLE + DELAY + 60):
        server.application.caretaker.work()
        assert told(server, origin).count(sid) == 1


def test_a_server_an_hour_ahead_ends_nothing_that_is_used(
    make_server: Callable[..., Server], origin: Origin
) -> None:
    """OUT-10, T150: with the delay that bears it."""
    server = make_server()
    client, secret = client_of(server, origin)
    sign_in(server, client, secret)
    with later(3600):
        server.application.caretaker.work()
    assert len(server.rows("sessions")) == 1 and told(server, origin) == []
