"""What clean-up takes and what it leaves, through the real server; and the thread that does it."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
import sqlalchemy as sa
import time_machine

from authserver import app, upkeep
from authserver import ini as ini_reader
from authserver.api import Begin, hookimpl
from authserver.background import KeysAhead
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.floods import Floods
from authserver.engine.records import ClientSecret, RegisteredBy, TokenKind
from authserver.engine.upkeep_records import Disposable
from authserver.settings import Settings
from authserver.storage.database import Database
from authserver.storage.tables import Base
from authserver.testing.origins import sending, serving
from authserver.testing.records import (
    a_client,
    a_consent,
    a_grant,
    a_kept_record,
    a_session,
    a_signing_key,
    a_token,
    a_user,
    an_event,
)
from authserver.testing.server import SETTINGS, Server, with_plugin
from authserver.upkeep import Caretaker
from tests.trusted_issuers import Issuer

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
OPAQUE = {"authserver.access_token_format": "opaque"}


@pytest.fixture
def make_server(database_url: str) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(changes: dict[str, str | None] | None = None) -> Server:
        servers.append(Server(database_url, changes))
        servers[-1].add_user("ann")
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    return make_server()


def clean_up(server: Server) -> int:
    """All that the background would remove in a while."""
    return sum(server.application.caretaker.work() for _ in range(3))


def read(**changes: str) -> Settings:
    ini = {**SETTINGS, "authserver.database_url": "sqlite://"}
    return ini_reader.load({**ini, **{f"authserver.{name}": text for name, text in changes.items()}}).settings


# ---- the rules ----------------------------------------------------------------------------------------


def test_nothing_goes_before_it_was_over_for_more_than_an_hour() -> None:
    """T150: so that a clock an hour ahead takes nothing that is alive."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    settings = read(
        event_lifetime="86400",
        idle_client_lifetime="172800",
        unused_client_lifetime="86400",
        refusal_lifetime="3600",
        issuance_lifetime="7200",
        session_timeout_delay="3900",
    )
    before = upkeep.cutoffs(settings, now)
    assert set(before) == set(Disposable)
    assert all(now - cutoff > HOUR for cutoff in before.values())
    assert before[Disposable.CLIENT_SECRETS] < now - 7 * DAY
    assert before[Disposable.EVENTS] == now - upkeep.GRACE - DAY
    assert before[Disposable.REFUSALS] == now - upkeep.GRACE - HOUR
    assert before[Disposable.ISSUANCES] == now - upkeep.GRACE - 2 * HOUR
    assert before[Disposable.CLIENTS] == now - upkeep.GRACE - 2 * DAY
    assert before[Disposable.UNUSED_CLIENTS] == now - upkeep.GRACE - DAY


def test_a_lifetime_of_0_keeps_for_ever() -> None:
    settings = read(
        event_lifetime="0", idle_client_lifetime="0", unused_client_lifetime="0", refusal_lifetime="0"
    )
    kept = set(Disposable) - set(upkeep.cutoffs(settings, datetime.now(UTC)))
    assert kept == {
        Disposable.EVENTS,
        Disposable.REFUSALS,
        Disposable.ISSUANCES,
        Disposable.CLIENTS,
        Disposable.UNUSED_CLIENTS,
        Disposable.IDLE_SESSIONS,
    }


@pytest.mark.parametrize("days", [1, 13, 80])
def test_a_replayed_code_revokes_after_clean_up_too(server: Server, days: int) -> None:
    """R-10, T116, G-05: the used code is known as long as its grant lives."""
    client, secret = server.add_client()
    code = server.code(client)
    assert server.redeem(client, secret, code).status_int == 200
    with time_machine.travel(datetime.now(UTC) + days * DAY):
        clean_up(server)
        answer = server.redeem(client, secret, code)
    assert (answer.status_int, answer.json["error"]) == (400, "invalid_grant")
    (grant,) = server.rows("grants")
    assert grant["revoked_reason"] == "code-replayed"


@pytest.mark.parametrize("days", [1, 13, 80])
def test_a_reused_refresh_token_revokes_after_clean_up_too(server: Server, days: int) -> None:
    """R-10, T116, I-06: the rotated token is known as long as its family lives, its own end or not."""
    client, secret = server.add_client()
    first = server.redeem(client, secret, server.code(client)).json["refresh_token"]
    second = server.refresh(client, secret, first).json["refresh_token"]
    with time_machine.travel(datetime.now(UTC) + days * DAY):
        clean_up(server)
        answer = server.refresh(client, secret, first)
        assert (answer.status_int, answer.json["error"]) == (400, "invalid_grant")
        (grant,) = server.rows("grants")
        assert grant["revoked_reason"] == "refresh-token-reused"
        assert server.refresh(client, secret, second).json["error"] == "invalid_grant"


def test_nothing_of_a_family_is_left_when_it_is_over(server: Server) -> None:
    """R-10, T073: neither the grant nor any code or token of it; its events stay."""
    client, secret = server.add_client()
    token = server.redeem(client, secret, server.code(client)).json["refresh_token"]
    for _ in range(3):
        token = server.refresh(client, secret, token).json["refresh_token"]
    events = len(server.events())
    with time_machine.travel(datetime.now(UTC) + 90 * DAY + 2 * HOUR):
        assert clean_up(server) >= 6
    # The mark of the answered request goes by its own time, with everything else.
    for table in ("tokens", "grants", "kept", "sessions"):
        assert server.rows(table) == []
    assert len(server.events()) == events
    assert server.refresh(client, secret, token).json["error"] == "invalid_grant"


def test_an_opaque_access_token_is_good_until_its_end_and_gone_after(make_server) -> None:
    """R-10."""
    server = make_server(OPAQUE)
    client, secret = server.add_client(grant_types=("client_credentials",))
    token = server.token(client, secret, grant_type="client_credentials").json["access_token"]
    assert clean_up(server) == 0
    assert server.introspect(client, secret, token).json["active"] is True
    with time_machine.travel(datetime.now(UTC) + 3 * HOUR):
        clean_up(server)
        assert server.introspect(client, secret, token).json == {"active": False}
    assert server.rows("tokens") == server.rows("grants") == []


def test_a_revoked_token_is_remembered_as_long_as_it_would_have_lived(server: Server) -> None:
    """T116: clean-up brings back nothing that was revoked, JWTs neither."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    token = server.token(client, secret, grant_type="client_credentials").json["access_token"]
    server.revoke(client, secret, token)
    for seconds in (0, 600, 890):
        with time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds)):
            clean_up(server)
            assert server.introspect(client, secret, token).json == {"active": False}
            assert len(server.rows("grants")) == 1


def test_a_client_that_registered_itself_goes_when_nobody_uses_it(server: Server) -> None:
    """K-09: it is told that it is unknown, by which clients know that they have to register again."""
    client_id = register(server)
    with time_machine.travel(datetime.now(UTC) + 29 * DAY):
        assert clean_up(server) == 0
    with time_machine.travel(datetime.now(UTC) + 31 * DAY):
        assert clean_up(server) == 1
        form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": client_id}
        answer = server.http.post("/oauth/token", form, expect_errors=True)
        assert (answer.status_int, answer.json["error"]) == (401, "invalid_client")
        assert register(server) != client_id


def test_a_client_that_registered_itself_stays_as_long_as_it_has_a_grant(server: Server) -> None:
    """K-09: and goes once the last one is over."""
    client_id = register(server)
    with server.application.begin() as engine:
        client = engine.stores.clients.find(client_id, engine.now)
    with time_machine.travel(datetime.now(UTC) + 60 * DAY):
        assert server.redeem(client, None, server.code(client)).status_int == 200
    with time_machine.travel(datetime.now(UTC) + 140 * DAY):
        clean_up(server)
        assert len(server.rows("clients")) == 1
        assert len(server.rows("consents")) == 1
    with time_machine.travel(datetime.now(UTC) + 151 * DAY):
        clean_up(server)
    assert server.rows("clients") == server.rows("consents") == server.rows("client_origins") == []


def test_the_private_part_of_a_signing_key_goes_when_it_has_ended(server: Server) -> None:
    """R-10: nobody could use it for anything but forging tokens of the past; the record stays."""
    now = datetime.now(UTC)
    with server.application.begin() as engine:
        for kid, ended in (("long-ended", now - 2 * HOUR), ("just-ended", now - HOUR)):
            key = a_signing_key(kid=kid, created_at=now - 9 * DAY, retires_at=ended - DAY, ends_at=ended)
            assert engine.stores.signing_keys.add(key)
    clean_up(server)
    sealed = {row["kid"]: row["sealed_private_jwk"] is not None for row in server.rows("signing_keys")}
    assert sealed.pop("long-ended") is False
    assert len(sealed) >= 2 and all(sealed.values())


def register(server: Server) -> str:
    metadata = {
        "client_name": "Notes",
        "redirect_uris": ["https://notes.example/cb"],
        "token_endpoint_auth_method": "none",
    }
    return str(server.http.post_json("/oauth/register", metadata).json["client_id"])


# ---- the clock ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["an hour ahead", "an hour back"])
def test_a_step_of_the_clock_takes_nothing_that_is_alive(server: Server, step: timedelta) -> None:
    """T150, T116: everything that would have ended within the hour is there when the clock is right again."""
    now = datetime.now(UTC)
    soon = now + timedelta(seconds=30)
    secret = ClientSecret(digest=b"d", key_id="k", created_at=now, expires_at=soon)
    with server.application.begin() as engine:
        stores = engine.stores
        stores.users.add(a_user())
        stores.clients.add(a_client(secrets=(secret,)))
        stores.clients.add(a_client(client_id="own", registered_by=RegisteredBy.SELF, created_at=now))
        stores.consents.remember(a_consent(client_id="own"))
        stores.grants.add(a_grant(expires_at=soon))
        stores.grants.add(a_grant(grant_id="revoked", expires_at=soon, revoked_at=now))
        for kind in TokenKind:
            stores.tokens.add(a_token(kind=kind, expires_at=soon, claimed_at=now))
        stores.kept.add_once(a_kept_record(expires_at=soon, claimed_at=now))
        stores.sessions.add(a_session(expires_at=soon))
        stores.events.add(an_event(at=now))
    before = contents(server)
    with time_machine.travel(now + step):
        clean_up(server)
    assert contents(server) == before
    with server.application.begin() as engine:
        assert not engine.stores.kept.add_once(a_kept_record()), "what was used is still known as used"


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["an hour ahead", "an hour back"])
def test_a_step_of_the_clock_does_not_stop_the_work(server: Server, step: timedelta) -> None:
    """T150: a lease from another time is no lease, and waiting knows no clock that can be set."""
    with time_machine.travel(datetime.now(UTC) - step), server.application.begin() as engine:
        engine.stores.upkeep.take_lease(
            upkeep.LEASE, "killed", engine.now, engine.now + timedelta(seconds=60)
        )
    add_events(server, 3)
    assert clean_up(server) == 3


def contents(server: Server) -> dict[str, list[object]]:
    with server.application.storage.engine.connect() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sa.select(table))))
            for table in Base.metadata.sorted_tables
            if table.name not in {"leases", "gauge_samples"}
        }


def add_events(server: Server, count: int) -> None:
    """Events from so long ago that they are over."""
    with server.application.begin() as engine:
        for number in range(count):
            engine.stores.events.add(an_event(at=engine.now - 400 * DAY + timedelta(seconds=number)))


# ---- one at a time, and not for long ------------------------------------------------------------------


def test_a_turn_is_bounded_and_the_next_one_goes_on(server: Server, monkeypatch) -> None:
    """T116: and it says in the log, and by its figures, what it did."""
    monkeypatch.setattr(upkeep, "BATCH", 10)
    # Each kind has a batch in turn; of events there are four more. Idle sessions are left alone as shipped.
    monkeypatch.setattr(upkeep, "BATCHES", len(Disposable) - 1 + 3)
    add_events(server, 100)
    caretaker = server.application.caretaker
    assert caretaker.backlog()[Disposable.EVENTS] == 100
    assert [caretaker.work() for _ in range(3)] == [50, 50, 0]
    assert caretaker.removed == {Disposable.EVENTS: 100}
    assert caretaker.backlog()[Disposable.EVENTS] == 0
    assert datetime.now(UTC) - caretaker.last_run < timedelta(seconds=10)


def test_the_work_is_one_holders_and_free_when_it_is_done(server: Server, caplog) -> None:
    """T116."""
    add_events(server, 1)
    with server.application.begin() as engine:
        engine.stores.upkeep.take_lease(upkeep.LEASE, "other", engine.now, engine.now + timedelta(seconds=60))
    assert server.application.caretaker.work() == 0
    assert server.application.caretaker.last_run is None
    with server.application.begin() as engine:
        engine.stores.upkeep.end_lease(upkeep.LEASE, "other")
    with caplog.at_level(logging.INFO, "authserver.upkeep"):
        assert server.application.caretaker.work() == 1
        assert server.application.caretaker.work() == 0
    assert [record.getMessage() for record in caplog.records] == ["cleaned up: 1 events"]
    assert server.rows("leases") == []


def test_the_lease_is_prolonged_while_the_work_takes_longer(make_server, monkeypatch) -> None:
    """T116: nobody else begins meanwhile."""
    monkeypatch.setattr(upkeep, "SHORTEST_LEASE", 1)
    monkeypatch.setattr(upkeep, "BATCH", 1)
    monkeypatch.setattr(upkeep, "PAUSE", 0.05)
    server = make_server({"authserver.cleanup_interval": "1"})
    add_events(server, 60)
    application = server.application
    other = Caretaker(
        application.storage, application.parts.ring, application.parts.settings, application.floods
    )
    with ThreadPoolExecutor(1) as threads:
        works = threads.submit(server.application.caretaker.work)
        begun, others = time.monotonic(), []
        until(lambda: server.rows("leases"))
        while time.monotonic() - begun < 2.5:
            others.append(other.work())
            time.sleep(0.1)
        assert works.result(timeout=30) == 60
    assert not any(others)


def test_stopping_does_not_wait_for_the_rest_of_the_work(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(upkeep, "PAUSE", 60.0)
    add_events(server, 5)
    caretaker = server.application.caretaker
    with ThreadPoolExecutor(1) as threads:
        works = threads.submit(caretaker.work)
        until(lambda: caretaker.backlog()[Disposable.EVENTS] == 0)
        caretaker.stop()
        assert works.result(timeout=5) == 5
    assert server.rows("leases") == []


WATERED: list[str] = []


@dataclass(frozen=True)
class Gardener:
    """Looks after something, and fails then."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def look_after(self, begin: Begin) -> None:
        with begin() as engine:
            WATERED.append(engine.settings.issuer)
        raise RuntimeError("no water is left")


# ---- the thread ---------------------------------------------------------------------------------------


def test_the_server_cleans_up_and_commands_do_not(sqlite_url: str) -> None:
    """The thread is of who serves, and ends at once."""
    ini = {**SETTINGS, "authserver.database_url": sqlite_url, "authserver.cleanup_interval": "3600"}
    application = app.build(ini)
    app.start(ini).registry.application.storage.close()
    assert not running()
    served = app.wsgi({}, **ini).registry.application
    assert running()
    begun = time.monotonic()
    served.caretaker.stop()
    assert time.monotonic() - begun < 0.5
    assert not running()
    for each in (application, served):
        each.storage.close()


def test_an_interval_of_0_switches_it_off(sqlite_url: str) -> None:
    ini = {**SETTINGS, "authserver.database_url": sqlite_url, "authserver.cleanup_interval": "0"}
    served = app.wsgi({}, **ini).registry.application
    assert not running()
    served.caretaker.stop()
    served.storage.close()


@pytest.mark.parametrize("interval", ["0", "3600"])
def test_plugins_look_after_what_is_theirs_when_the_server_starts(
    sqlite_url: str, caplog: pytest.LogCaptureFixture, interval: str
) -> None:
    """Hook `look_after`, also without clean-up: in one process at a time, and a failure stops nothing."""
    plugin = with_plugin(Gardener, {})
    ini = {
        **SETTINGS,
        **plugin,
        "authserver.database_url": sqlite_url,
        "authserver.cleanup_interval": interval,
    }
    served = app.wsgi({}, **ini).registry.application
    until(lambda: WATERED)
    assert WATERED.pop() == served.parts.settings.issuer
    until(lambda: any("failed in look_after" in message for message in caplog.messages))
    served.caretaker.stop()
    until(lambda: not running())
    with served.storage.begin() as stores:
        assert stores.upkeep.take_lease(
            upkeep.LEASE, "another", datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=1)
        ), "others may begin"
    served.storage.close()


def test_a_server_fetches_the_keys_of_issuers_before_they_are_needed(sqlite_url: str) -> None:
    """WIF-08: from its start on, in a thread of its own, and only where a plugin accepts what issuers sign."""
    plugins = {"authserver.plugins": f"jwt_bearer {SETTINGS['authserver.plugins']}"}
    ini = {**SETTINGS, "authserver.database_url": sqlite_url, "authserver.fetch_loopback": "true"}
    without = app.wsgi({}, **ini).registry.application
    assert not any(isinstance(each, KeysAhead) for each in without.background)
    without.close()
    issuer, server = Issuer(), Server(sqlite_url, {**plugins, "authserver.fetch_loopback": "true"})
    with serving() as origin:
        origin.reply = sending(json.dumps(issuer.key.jwks()).encode())
        issuer.trust(server, jwks_uri=f"http://127.0.0.1:{origin.port}/jwks")
        served = app.wsgi({}, **{**ini, **plugins}).registry.application
        until(lambda: origin.received)
        served.close()
        assert not any(thread.name == "keys of issuers" for thread in threading.enumerate())
    server.close()


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "upkeep"]


def test_a_database_that_is_away_is_told_once_and_tried_again(
    migrated_sqlite_file: Path, tmp_path: Path, caplog
) -> None:
    """T114: the thread outlives it, and goes on when the database is back."""
    path = tmp_path / "later" / "authserver.db"
    database = Database(f"sqlite:///{path}")
    floods = Floods(database, 10, lambda event: None)
    caretaker = Caretaker(database, KeyRing([("k", bytes(32))]), read(cleanup_interval="1"), floods)
    assert caretaker.backlog() == {}
    caretaker.start()
    try:
        until(lambda: caplog.messages)
        time.sleep(2.5)
        (message,) = caplog.messages
        assert message.startswith("cannot clean up (")
        path.parent.mkdir()
        shutil.copy(migrated_sqlite_file, path)
        with database.begin() as stores:
            stores.events.add(an_event(at=datetime.now(UTC) - 400 * DAY))
        until(lambda: caretaker.removed.total())
        assert caretaker.removed == {Disposable.EVENTS: 1}
    finally:
        caretaker.stop()
        database.close()


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
