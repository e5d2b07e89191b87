"""Client secrets through the whole server: two at a time, an end to the second, and when each was last used."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine

from authserver.api import Client, hookimpl
from authserver.engine.clients.secrets import (
    NOTED_EVERY,
    SecretsUnchanged,
    end_secret,
    handle,
    rotate_secret,
    stored_secret,
)
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.keys.ring import reseal
from authserver.testing.server import SETTINGS, Server, forged, with_plugin
from authserver.testing.stories import assert_json_error, records, stored
from authserver.testing.threads import at_once

INSTANT = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
METHODS = ("client_secret_basic", "client_secret_post")


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until it is moved."""
    with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
        yield traveller


@dataclass
class Service:
    """A client that asks for tokens of its own, with its secret."""

    server: Server
    client: Client
    secret: str

    def ask(self, secret: str | None = None, server: Server | None = None) -> Any:
        server = server or self.server
        return server.token(self.client, secret or self.secret, grant_type="client_credentials")

    def rotate(self, overlap: timedelta = HOUR) -> str:
        with self.server.application.begin() as engine:
            return rotate_secret(engine, self.client.client_id, overlap)

    def rows(self) -> list[dict[str, Any]]:
        """Its secrets as stored, oldest first; times as texts."""
        rows = [
            row for row in self.server.rows("client_secrets") if row["client_id"] == self.client.client_id
        ]
        return sorted(rows, key=lambda row: str(row["created_at"]))

    def last_used(self) -> list[bool]:
        """Of each secret, whether its use was ever noted."""
        return [row["last_used_at"] is not None for row in self.rows()]


def a_service(server: Server, method: str = "client_secret_basic") -> Service:
    client, secret = server.add_client(grant_types=("client_credentials",), token_endpoint_auth_method=method)
    assert secret is not None
    return Service(server, client, secret)


@pytest.fixture
def service(server: Server) -> Service:
    return a_service(server)


@pytest.mark.parametrize("method", METHODS)
def test_both_secrets_count_until_the_older_one_ends(
    make_server: Callable[..., Server], database_url: str, method: str, clock: time_machine.Traveller
) -> None:
    """R-05, R-02: in each process, without a restart, and not a moment longer."""
    processes = [make_server(database_url=database_url) for _ in range(2)]
    service = a_service(processes[0], method)
    for process in processes:
        assert service.ask(server=process).status_int == 200
    clock.shift(timedelta(minutes=1))
    newer = service.rotate(HOUR)
    for wait, counts in ((timedelta(), True), (HOUR - INSTANT, True), (INSTANT, False), (HOUR, False)):
        clock.shift(wait)
        for process in processes:
            assert service.ask(newer, process).status_int == 200
            answer = service.ask(server=process)
            if counts:
                assert answer.status_int == 200
            else:
                assert_json_error(answer, "invalid_client", status=401)


def test_with_no_overlap_the_older_one_is_refused_at_once(service: Service) -> None:
    """R-05: for a secret that leaked."""
    newer = service.rotate(timedelta())
    before = stored(service.server)
    assert_json_error(service.ask(), "invalid_client", status=401)
    assert stored(service.server) == before
    assert service.ask(newer).status_int == 200


def test_a_secret_that_was_ended_is_refused_at_once(service: Service) -> None:
    """R-05: one of two, by its name."""
    newer = service.rotate()
    with service.server.application.begin() as engine:
        client = engine.stores.clients.find(service.client.client_id, engine.now)
        assert client is not None
        end_secret(engine, client.client_id, handle(client.secrets[-1]))
    assert_json_error(service.ask(newer), "invalid_client", status=401)
    assert service.ask().status_int == 200


def test_a_new_secret_is_stored_as_a_keyed_digest(service: Service) -> None:
    """R-02: nowhere in the database, in no event and under the first key of the ring."""
    newer = service.rotate()
    old, new = service.rows()
    assert (len(new["digest"]), new["key_id"], new["expires_at"]) == (32, "test", None)
    assert old["expires_at"] is not None
    everything = repr([service.server.rows(table) for table in ("client_secrets", "clients", "events")])
    for secret in (service.secret, newer):
        assert secret not in everything
        assert secret.removeprefix("as_secret_")[:20] not in everything


def test_the_secret_of_another_client_is_wrong(service: Service) -> None:
    """R-02: a digest belongs to one client, also where both have two."""
    other = a_service(service.server)
    others = (other.secret, other.rotate())
    service.rotate()
    for secret in others:
        assert_json_error(service.ask(secret), "invalid_client", status=401)


@pytest.mark.parametrize("method", ["none", "private_key_jwt"])
def test_a_client_without_secrets_gets_none(server: Server, method: str) -> None:
    """R-05: a secret that no policy would ask for is not made."""
    client, _ = server.add_client(token_endpoint_auth_method="none")
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE clients SET auth_method = :method"), {"method": method})
    for overlap in (HOUR, timedelta()):
        with (
            pytest.raises(SecretsUnchanged, match=f"registered for {method}"),
            server.application.begin() as engine,
        ):
            rotate_secret(engine, client.client_id, overlap)
    assert server.rows("client_secrets") == []


# ---- last use ---------------------------------------------------------------------------------------


def test_the_last_use_of_each_secret_is_noted(service: Service, clock: time_machine.Traveller) -> None:
    """R-05: to five minutes, for each of the two."""
    clock.shift(1)
    newer = service.rotate()
    assert service.last_used() == [False, False]
    service.ask()
    assert service.last_used() == [True, False]
    service.ask(newer)
    assert service.last_used() == [True, True]
    first = service.rows()
    clock.shift(NOTED_EVERY - INSTANT)
    service.ask()
    assert service.rows() == first
    clock.shift(INSTANT)
    service.ask()
    again = service.rows()
    assert again[0]["last_used_at"] > first[0]["last_used_at"]
    assert again[1] == first[1]


def test_every_endpoint_that_authenticates_notes_the_use(server: Server) -> None:
    for ask in (server.introspect, server.revoke):
        service = a_service(server)
        assert ask(service.client, service.secret, "x").status_int == 200
        assert service.last_used() == [True]


def test_a_refused_request_notes_nothing(service: Service) -> None:
    """T071, R-14: neither a wrong secret, nor a right one with a request that is refused."""
    server = service.server
    before = records(server)
    assert_json_error(service.ask(forged("as_secret_")), "invalid_client", status=401)
    for form, code in (
        ({"grant_type": "client_credentials", "scope": "admin"}, "invalid_scope"),
        ({"grant_type": "authorization_code"}, "unauthorized_client"),
        ({}, "invalid_request"),
    ):
        assert_json_error(server.token(service.client, service.secret, **form), code)
    assert records(server) == before
    assert service.last_used() == [False]


def test_who_still_uses_the_older_secret_is_in_the_log(
    service: Service, clock: time_machine.Traveller, caplog: pytest.LogCaptureFixture
) -> None:
    """R-05, R-02: once in five minutes: which client, when it ends, and never the secret."""
    caplog.set_level("WARNING", "authserver.engine.clients.secrets")
    assert service.ask().status_int == 200
    clock.shift(1)
    newer = service.rotate()
    clock.shift(NOTED_EVERY)
    for _ in range(3):
        assert service.ask().status_int == 200
        assert service.ask(newer).status_int == 200
    (said,) = [record.getMessage() for record in caplog.records if "secret" in record.getMessage()]
    assert service.client.client_id in said
    assert (datetime.now(UTC) + HOUR - NOTED_EVERY).isoformat(timespec="seconds") in said
    for secret in (service.secret, newer):
        assert secret not in caplog.text
        assert secret.removeprefix("as_secret_")[:12] not in caplog.text


# ---- keys of the ring -------------------------------------------------------------------------------

OLD = SETTINGS["authserver.secret_keys"]
NEW = "new:" + base64.b64encode(b"n" * 32).decode()


def test_a_secret_in_use_moves_to_the_first_key_of_the_ring(
    make_server: Callable[..., Server], database_url: str, clock: time_machine.Traveller
) -> None:
    """R-02, T040: so that the older key can leave; the rest of it stays as it was."""
    service = a_service(make_server(database_url=database_url))
    clock.shift(1)
    newer = service.rotate()
    assert service.ask().status_int == 200
    both = make_server({"authserver.secret_keys": f"{NEW}\n{OLD}"}, database_url=database_url)
    before = service.rows()
    # Not before its use is noted again: two processes whose rings differ must not take turns.
    assert service.ask(server=both).status_int == 200
    assert service.rows() == before
    clock.shift(NOTED_EVERY)
    assert service.ask(server=both).status_int == 200
    moved, other = service.rows()
    assert (moved["key_id"], other["key_id"]) == ("new", "test")
    assert moved["digest"] != before[0]["digest"]
    assert (moved["created_at"], moved["expires_at"]) == (before[0]["created_at"], before[0]["expires_at"])
    assert other == before[1]
    assert service.ask(newer, both).status_int == 200
    storage, keys = both.application.storage, both.application.parts.ring
    with both.application.begin() as engine:
        kids = [key.kid for key in engine.stores.signing_keys.list()]
    assert not any(reseal(storage, keys, kids))
    alone = make_server({"authserver.secret_keys": NEW}, database_url=database_url)
    for secret in (service.secret, newer):
        assert service.ask(secret, alone).status_int == 200


# ---- many at once -----------------------------------------------------------------------------------


def test_16_first_uses_at_once_are_all_answered(
    make_server: Callable[..., Server], database_url: str
) -> None:
    """R-05, T110: also while the ring is changed, so that they change the digest under each other."""
    rings = (f"{OLD}\n{NEW}", f"{NEW}\n{OLD}")
    processes = [make_server({"authserver.secret_keys": ring}, database_url=database_url) for ring in rings]
    service = a_service(processes[0])
    for _ in range(3):
        with processes[0].application.storage.engine.begin() as connection:
            connection.execute(sa.text("UPDATE client_secrets SET last_used_at = NULL"))

        def ask(number: int) -> int:
            return int(service.ask(server=processes[number % 2]).status_int)

        assert at_once(16, ask) == [200] * 16
        assert service.last_used() == [True]
    assert len(processes[0].events("token.issued")) == 48
    assert processes[1].events("request.failed") == []


def test_replacing_a_secret_while_it_is_used(make_server: Callable[..., Server], database_url: str) -> None:
    """R-05: no note of a use undoes the end; of two operators one comes second, and is told."""
    server = make_server(database_url=database_url)
    service = a_service(server)

    def rotate() -> str | None:
        try:
            return service.rotate()
        except SecretsUnchanged:
            return None

    uses: list[Callable[[], Any]] = [lambda: service.ask().status_int] * 8
    *answers, first, second = at_once(10, lambda number: [*uses, rotate, rotate][number]())
    assert answers == [200] * 8
    assert [first, second].count(None) == 1
    old, new = service.rows()
    assert old["expires_at"] is not None
    assert new["expires_at"] is None
    for secret in (service.secret, first or second):
        assert service.ask(secret).status_int == 200
    assert service.last_used() == [True, True]


def test_a_secret_ends_although_it_is_in_use_at_that_moment(
    make_server: Callable[..., Server], database_url: str
) -> None:
    """R-05, R-12: whoever is quicker, it has ended once, and its end is told once."""
    server = make_server(database_url=database_url)
    service = a_service(server)
    uses: list[Callable[[], Any]] = [lambda: service.ask().status_int] * 8
    *answers, newer = at_once(9, lambda number: [*uses, lambda: service.rotate(timedelta())][number]())
    assert set(answers) <= {200, 401}
    assert_json_error(service.ask(), "invalid_client", status=401)
    assert service.ask(newer).status_int == 200
    assert len(server.events("client_secret.ended")) == 1


# ---- clients that are kept elsewhere ----------------------------------------------------------------


MADE_ELSEWHERE = "made-elsewhere-with-128-bits"
MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Elsewhere:
    """A client of a plugin, with a secret that the plugin keeps, or public."""

    auth_method: str = "none"

    @hookimpl
    def find_client(self, client_id: str) -> Client | None:
        if client_id != "elsewhere":
            return None
        ring = KeyRing([("test", base64.b64decode(OLD.removeprefix("test:")))])
        secret = stored_secret(ring, client_id, MADE_ELSEWHERE, MADE_AT)
        return Client(
            client_id="elsewhere",
            name="Elsewhere",
            auth_method=self.auth_method,
            grant_types=("authorization_code", "refresh_token"),
            redirect_uris=("https://elsewhere.example/cb",),
            scopes=("profile",),
            created_at=MADE_AT,
            rotates_refresh_tokens=False,
            secrets=() if self.auth_method == "none" else (secret,),
        )


@pytest.mark.parametrize("auth_method", ["none", "client_secret_post"])
def test_of_a_client_that_a_plugin_brings_nothing_is_noted(
    make_server: Callable[..., Server], auth_method: str
) -> None:
    """R-05: its record is not ours. A public one rotates its refresh tokens, whatever that record says (I-04)."""
    server = make_server(with_plugin(Elsewhere, {"auth_method": auth_method}))
    server.add_user()
    client = Elsewhere(auth_method).find_client("elsewhere")
    assert client is not None
    secret = MADE_ELSEWHERE if client.secrets else None
    code = server.code(client)
    statements: list[str] = []
    sa.event.listen(
        server.application.storage.engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, *rest: statements.append(statement),
    )
    issued = server.redeem(client, secret, code).json
    renewed = server.refresh(client, secret, issued["refresh_token"])
    assert renewed.status_int == 200
    assert ("refresh_token" in renewed.json) == client.is_public
    assert not [statement for statement in statements if "UPDATE client_secrets" in statement]
    assert server.rows("client_secrets") == server.rows("clients") == []
    with pytest.raises(SecretsUnchanged, match="belongs to a plugin"), server.application.begin() as engine:
        rotate_secret(engine, "elsewhere", HOUR)


def test_what_happened_to_secrets_is_in_the_events(service: Service) -> None:
    """R-12: which, by the name that operators know; never the secret."""
    newer = service.rotate()
    newest = service.rotate(timedelta())
    added = service.server.events("client_secret.added")
    ended = service.server.events("client_secret.ended")
    assert (len(added), len(ended)) == (2, 2)
    for event in (*added, *ended):
        assert event["client_id"] == service.client.client_id
        assert re.search(r'"secret": ?"[0-9a-f]{8}"', event["details"])
    for secret in (service.secret, newer, newest):
        assert secret not in repr(service.server.events())
