"""Refresh tokens that stay: for clients with a credential of their own, where an operator says so (FAPI 2.0, 5.3.2.1)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine

from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.registration import add_client
from authserver.engine.errors import InvalidClientMetadata
from authserver.engine.people.login import disable_user
from authserver.engine.records import ClientMetadata
from authserver.testing.server import REDIRECT_URI, Server, forged
from authserver.testing.stories import assert_json_error, register, stored

DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until it is moved."""
    with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
        yield traveller


class Keeping:
    """A client that keeps its refresh token, with one of user `ann`."""

    def __init__(self, server: Server, auth_method: str = "client_secret_basic") -> None:
        self.server = server
        metadata = ClientMetadata(
            client_name="Bank",
            redirect_uris=(REDIRECT_URI,),
            token_endpoint_auth_method=auth_method,
            grant_types=("authorization_code", "refresh_token"),
            scopes=("profile", "files.read"),
        )
        with server.application.begin() as engine:
            self.client, self.secret = add_client(engine, metadata, rotates_refresh_tokens=False)
        code = server.code(self.client, scope="profile files.read")
        self.first = server.redeem(self.client, self.secret, code).json
        self.token: str = self.first["refresh_token"]

    def refresh(self, token: str | None = None, **form: Any) -> Any:
        return self.server.refresh(self.client, self.secret, token or self.token, **form)

    def row(self) -> dict[str, Any]:
        (row,) = [row for row in self.server.rows("tokens") if row["kind"] == "refresh"]
        return row


@pytest.fixture
def keeping(server: Server) -> Keeping:
    return Keeping(server)


def set_rotation(server: Server, rotates: bool) -> None:
    with server.application.storage.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE clients SET rotates_refresh_tokens = :rotates"), {"rotates": rotates}
        )


@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post"])
def test_the_same_token_is_used_again_and_again(server: Server, auth_method: str) -> None:
    """I-04, FAPI-05: no successor, and the answer does not repeat what the client has (OAuth 2.1, 4.3.3)."""
    keeping = Keeping(server, auth_method)
    before = keeping.row()
    access = {keeping.first["access_token"]}
    for _ in range(4):
        answer = keeping.refresh()
        assert answer.status_int == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert "refresh_token" not in answer.json
        assert answer.json["scope"] == "profile files.read"
        access.add(answer.json["access_token"])
    assert len(access) == 5
    after = keeping.row()
    assert after["claimed_at"] is None
    assert after["successor_digest"] is None
    assert {name: value for name, value in after.items() if name != "expires_at"} == {
        name: value for name, value in before.items() if name != "expires_at"
    }
    assert server.introspect(keeping.client, keeping.secret, keeping.token).json["active"] is True


def test_each_use_starts_the_idle_time_anew(
    make_server: Callable[..., Server], clock: time_machine.Traveller
) -> None:
    """I-13.a, T072: to the moment; unused for so long, it is dead."""
    server = make_server({"authserver.refresh_token_idle_lifetime": str(10 * 86400)})
    server.add_user()
    keeping = Keeping(server)
    for _ in range(3):
        clock.shift(10 * DAY - INSTANT)
        assert keeping.refresh().status_int == 200
    clock.shift(10 * DAY)
    before = stored(server)
    assert_json_error(keeping.refresh(), "invalid_grant")
    assert stored(server) == before


def test_no_use_moves_the_end_of_the_grant(
    make_server: Callable[..., Server], clock: time_machine.Traveller
) -> None:
    """I-13.b, T072: neither the token nor its access tokens outlive it."""
    server = make_server(
        {
            "authserver.refresh_token_idle_lifetime": str(10 * 86400),
            "authserver.grant_lifetime": str(15 * 86400),
        }
    )
    server.add_user()
    keeping = Keeping(server)
    end = server.rows("grants")[0]["expires_at"]
    clock.shift(8 * DAY)
    assert keeping.refresh().status_int == 200
    assert keeping.row()["expires_at"] == end
    clock.shift(7 * DAY - timedelta(seconds=30))
    assert keeping.refresh().json["expires_in"] == 30
    assert (keeping.row()["expires_at"], server.rows("grants")[0]["expires_at"]) == (end, end)
    clock.shift(timedelta(seconds=30))
    assert_json_error(keeping.refresh(), "invalid_grant")


def test_a_public_client_rotates_whatever_its_record_says(server: Server) -> None:
    """I-04: nothing else protects its refresh token; a copy still shows, and ends the family."""
    client, _ = server.add_client(token_endpoint_auth_method="none")
    set_rotation(server, False)
    first = server.redeem(client, None, server.code(client)).json["refresh_token"]
    second = server.refresh(client, None, first).json["refresh_token"]
    assert second != first
    third = server.refresh(client, None, second).json["refresh_token"]
    assert_json_error(server.refresh(client, None, first), "invalid_grant")
    assert_json_error(server.refresh(client, None, third), "invalid_grant")


def test_a_client_that_became_public_rotates(keeping: Keeping) -> None:
    """I-04: what counts is what it is now."""
    with keeping.server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE clients SET auth_method = 'none'"))
    with keeping.server.application.begin() as engine:
        client = engine.stores.clients.find(keeping.client.client_id, engine.now)
    assert client is not None
    answer = keeping.server.refresh(client, None, keeping.token).json
    assert answer["refresh_token"] != keeping.token


def test_no_public_client_can_be_added_without_rotation(server: Server) -> None:
    """I-04: an operator is told; nothing is stored."""
    before = stored(server)
    metadata = ClientMetadata(
        redirect_uris=(REDIRECT_URI,), token_endpoint_auth_method="none", scopes=("profile",)
    )
    with (
        pytest.raises(InvalidClientMetadata, match="rotate"),
        server.application.begin() as engine,
    ):
        add_client(engine, metadata, rotates_refresh_tokens=False)
    assert stored(server) == before


@pytest.mark.parametrize("auth_method", ["none", "client_secret_basic"])
def test_no_client_registers_itself_without_rotation(server: Server, auth_method: str) -> None:
    """I-04: it is the operator's choice alone."""
    client = register(
        server,
        token_endpoint_auth_method=auth_method,
        rotates_refresh_tokens=False,
        refresh_token_rotation=False,
        details={"rotates_refresh_tokens": False},
    )
    assert client.rotates_refresh_tokens
    assert "rotates_refresh_tokens" not in client.details


def test_what_was_rotated_before_stays_rotated(server: Server, clock: time_machine.Traveller) -> None:
    """I-06, T064: switching rotation off makes no copied predecessor good again."""
    client, secret = server.add_client()
    first = server.redeem(client, secret, server.code(client)).json["refresh_token"]
    second = server.refresh(client, secret, first).json["refresh_token"]
    set_rotation(server, False)
    # Inside the window its client may still have lost the answer (I-08).
    assert server.refresh(client, secret, first).json["refresh_token"] == second
    kept = server.refresh(client, secret, second)
    assert kept.status_int == 200
    assert "refresh_token" not in kept.json
    clock.shift(11)
    assert_json_error(server.refresh(client, secret, first), "invalid_grant")
    assert_json_error(server.refresh(client, secret, second), "invalid_grant")
    assert server.rows("grants")[0]["revoked_reason"] == "refresh-token-reused"


def test_a_kept_token_rotates_once_rotation_is_on(keeping: Keeping) -> None:
    """I-05: the next use is a rotation like any other."""
    assert keeping.refresh().status_int == 200
    set_rotation(keeping.server, True)
    successor = keeping.refresh().json["refresh_token"]
    assert successor != keeping.token
    assert keeping.refresh(successor).status_int == 200


REFUSED = [
    ({"scope": "files.write"}, "invalid_scope"),
    ({"resource": "https://other.example/"}, "invalid_target"),
    ({"refresh_token": forged("as_refresh_")}, "invalid_grant"),
]


def test_a_refused_request_changes_nothing(keeping: Keeping, clock: time_machine.Traveller) -> None:
    """T071, I-10.a, I-16: not even the idle end moves."""
    server = keeping.server
    keeping.refresh()
    clock.shift(100)
    before = stored(server)
    for form, error in REFUSED:
        form = {"grant_type": "refresh_token", "refresh_token": keeping.token, **form}
        assert_json_error(server.token(keeping.client, keeping.secret, **form), error)
    assert_json_error(
        server.refresh(keeping.client, forged("as_secret_"), keeping.token), "invalid_client", status=401
    )
    other, secret = server.add_client()
    before = stored(server)
    assert_json_error(server.refresh(other, secret, keeping.token), "invalid_grant")
    assert stored(server) == before


def test_a_narrower_request_narrows_one_access_token(keeping: Keeping) -> None:
    """I-10.b, I-11, T070."""
    assert keeping.refresh(scope="profile").json["scope"] == "profile"
    assert keeping.refresh().json["scope"] == "profile files.read"


@pytest.mark.parametrize("ending", ["revoked", "user", "client"])
def test_it_dies_with_what_it_stands_for(keeping: Keeping, ending: str) -> None:
    """I-12.a, T073, T068: on the next request."""
    server = keeping.server
    if ending == "revoked":
        assert server.revoke(keeping.client, keeping.secret, keeping.token).status_int == 200
    else:
        with server.application.begin() as engine:
            assert (
                disable_user(engine, "ann")
                if ending == "user"
                else disable_client(engine, keeping.client.client_id)
            )
    before = stored(server)
    if ending == "client":
        assert_json_error(keeping.refresh(), "invalid_client", status=401)
    else:
        assert_json_error(keeping.refresh(), "invalid_grant")
    assert stored(server) == before


def test_what_happened_is_in_the_events(keeping: Keeping) -> None:
    """R-12: a token was issued, and no refresh token with it."""
    keeping.refresh()
    details = json.loads(keeping.server.events("token.issued")[-1]["details"])
    assert (details["refresh_token"], details["retry"]) == (False, False)


def test_16_uses_at_once_are_all_answered_and_a_revocation_among_them_wins(
    make_server: Callable[..., Server], database_url: str
) -> None:
    """I-09, T063, T068: one family, no failure; after the revocation's answer nothing of it is good."""
    server = make_server(database_url=database_url)
    server.add_user()
    keeping = Keeping(server)
    assert keeping.refresh().status_int == 200
    barrier = Barrier(17)

    def use(number: int) -> Any:
        barrier.wait(timeout=30)
        if number == 16:
            return server.revoke(keeping.client, keeping.secret, keeping.token)
        return keeping.refresh()

    with ThreadPoolExecutor(17) as threads:
        *answers, revoked = threads.map(use, range(17))
    assert revoked.status_int == 200
    assert {answer.status_int for answer in answers} <= {200, 400}
    assert {answer.json["error"] for answer in answers if answer.status_int == 400} <= {"invalid_grant"}
    keeping.row()
    for answer in answers:
        if answer.status_int == 200:
            told = server.introspect(keeping.client, keeping.secret, answer.json["access_token"])
            assert told.json == {"active": False}
    assert_json_error(keeping.refresh(), "invalid_grant")
