"""Renewing access (OAuth 2.1, 4.3): rotation, retry and reuse, seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authserver.engine.clients.authentication import disable_client
from authserver.engine.people.login import disable_user
from authserver.engine.records import Client
from authserver.testing.server import RESOURCE, Server, forged
from authserver.testing.stories import assert_json_error, stored

FILES = "https://files.example/"
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until it is moved."""
    with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
        yield traveller


class Session:
    """A client with a refresh token of user `ann`."""

    def __init__(self, server: Server, auth_method: str = "client_secret_basic", **request: Any) -> None:
        self.server = server
        self.client, self.secret = server.add_client(
            token_endpoint_auth_method=auth_method, scopes=("profile", "files.read", "files.write")
        )
        request = {"scope": "profile files.read", "resource": [RESOURCE, FILES], **request}
        self.code = server.code(self.client, **request)
        self.first = server.redeem(self.client, self.secret, self.code).json
        self.token: str = self.first["refresh_token"]

    def refresh(self, token: str | None = None, **form: str | list[str]) -> Any:
        return self.server.refresh(self.client, self.secret, token or self.token, **form)

    def is_dead(self, *tokens: str) -> bool:
        return [self.refresh(token).json.get("error") for token in tokens] == ["invalid_grant"] * len(tokens)


@pytest.fixture
def session(server: Server) -> Session:
    return Session(server)


def make_session(make_server: Callable[..., Server], **changes: str) -> Session:
    server = make_server({f"authserver.{name}": value for name, value in changes.items()})
    server.add_user()
    return Session(server)


@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post", "none"])
def test_every_use_rotates(server: Server, auth_method: str) -> None:
    """I-04, I-05: a new token each time, public client or not; the old one knows its successor."""
    session = Session(server, auth_method)
    tokens = [session.token]
    for _ in range(3):
        answer = session.refresh(tokens[-1])
        assert answer.status_int == 200
        assert answer.headers["Cache-Control"] == "no-store"
        tokens.append(answer.json["refresh_token"])
    assert len(set(tokens)) == 4
    rows = [row for row in server.rows("tokens") if row["kind"] == "refresh"]
    links = {row["digest"]: row["successor_digest"] for row in rows}
    assert sum(successor is None for successor in links.values()) == 1
    assert {successor for successor in links.values() if successor} < links.keys()


def test_a_client_without_the_grant_type_gets_no_refresh_token(server: Server) -> None:
    """I-01: whether there is one is part of the client's registration."""
    client, secret = server.add_client(grant_types=("authorization_code",))
    assert "refresh_token" not in server.redeem(client, secret, server.code(client)).json
    assert "refresh" not in {row["kind"] for row in server.rows("tokens")}


def test_no_refresh_token_where_the_server_offers_none(make_server: Callable[..., Server]) -> None:
    """I-01: a token that could not be used is not given."""
    client, secret = make_server().add_client()
    server = make_server({"authserver.grant_types": "authorization_code"})
    server.add_user()
    assert "refresh_token" not in server.redeem(client, secret, server.code(client)).json


def test_another_client_cannot_refresh(session: Session) -> None:
    """I-02, T069: it gets the answer of an unknown token, and the family is not touched."""
    server = session.server
    other, secret = server.add_client()
    before = stored(server)
    answer = server.refresh(other, secret, session.token)
    assert_json_error(answer, "invalid_grant")
    unknown = server.refresh(other, secret, forged("as_refresh_"))
    assert_json_error(unknown, "invalid_grant")
    assert answer.json["error_description"] == unknown.json["error_description"]
    assert stored(server) == before
    assert session.refresh().status_int == 200


def test_another_client_cannot_end_the_family(session: Session, clock: time_machine.Traveller) -> None:
    """I-02, T069: a rotated token that somebody else presents is no reuse, and reveals nothing."""
    newest = session.refresh().json["refresh_token"]
    clock.shift(11)
    server = session.server
    other, secret = server.add_client()
    before = stored(server)
    assert_json_error(server.refresh(other, secret, session.token), "invalid_grant")
    assert stored(server) == before
    assert session.refresh(newest).status_int == 200


def test_a_confidential_client_authenticates(session: Session) -> None:
    """I-03, T069, T071: without or with a wrong secret nothing changes."""
    server, client = session.server, session.client
    before = stored(server)
    for wrong in (forged("as_secret_"), "wrong"):
        assert_json_error(server.refresh(client, wrong, session.token), "invalid_client", status=401)
    form = {"grant_type": "refresh_token", "client_id": client.client_id, "refresh_token": session.token}
    answer = server.http.post("/oauth/token", form, expect_errors=True)
    assert_json_error(answer, "invalid_client", status=401)
    assert stored(server) == before
    assert session.refresh().status_int == 200


def test_reuse_ends_the_family(session: Session, clock: time_machine.Traveller) -> None:
    """I-06, I-07, R-08, T064: the old token, its live successor and the grant are dead, and stay so."""
    server = session.server
    newest = session.refresh().json["refresh_token"]
    clock.shift(11)
    before = len(server.events("token.issued"))
    assert_json_error(session.refresh(), "invalid_grant")
    assert session.is_dead(newest, session.token)
    assert_json_error(server.redeem(session.client, session.secret, session.code), "invalid_grant")
    assert len(server.events("token.issued")) == before
    (grant,) = server.rows("grants")
    assert grant["revoked_reason"] == "refresh-token-reused"
    (event,) = server.events("grant.revoked")
    assert event["grant_id"] == grant["grant_id"]


@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_reuse_ends_the_access_tokens_too(
    make_server: Callable[..., Server], clock: time_machine.Traveller, token_format: str
) -> None:
    """I-06, T064, M-04: all that the family ever got, as far as somebody asks."""
    session = make_session(make_server, access_token_format=token_format)
    server, client, secret = session.server, session.client, session.secret
    second = session.refresh().json
    tokens = [session.first["access_token"], second["access_token"], second["refresh_token"]]
    assert all(server.introspect(client, secret, token).json["active"] for token in tokens)
    clock.shift(11)
    assert_json_error(session.refresh(), "invalid_grant")
    assert [server.introspect(client, secret, token).json for token in tokens] == [{"active": False}] * 3


def test_reuse_is_reuse_whatever_else_is_asked(session: Session, clock: time_machine.Traveller) -> None:
    """I-06: a scope or resource that was never granted does not hide it."""
    newest = session.refresh().json["refresh_token"]
    clock.shift(11)
    assert_json_error(
        session.refresh(scope="files.write", resource="https://other.example/"), "invalid_grant"
    )
    assert session.is_dead(newest)


def test_a_lost_answer_can_be_asked_for_again(session: Session, clock: time_machine.Traveller) -> None:
    """I-08, I-09, T063, T065: inside the window the predecessor gets the same successor, not another."""
    first = session.refresh().json
    clock.shift(10)
    again = session.refresh().json
    assert again["refresh_token"] == first["refresh_token"]
    assert again["scope"] == first["scope"]
    rows = [row for row in session.server.rows("tokens") if row["kind"] == "refresh"]
    assert len(rows) == 2
    assert session.refresh(first["refresh_token"]).status_int == 200
    retried = [event for event in session.server.events("token.issued") if '"retry":true' in event["details"]]
    assert len(retried) == 1


def test_a_used_successor_ends_the_window(session: Session) -> None:
    """I-08, T066: a grandparent is reuse at any time, also a moment later."""
    second = session.refresh().json["refresh_token"]
    third = session.refresh(second).json["refresh_token"]
    assert_json_error(session.refresh(session.token), "invalid_grant")
    assert session.is_dead(second, third)


def test_without_a_window_every_second_use_is_reuse(make_server: Callable[..., Server]) -> None:
    """I-08, T065: 0 switches the window off."""
    session = make_session(make_server, refresh_token_retry_window="0")
    newest = session.refresh().json["refresh_token"]
    assert_json_error(session.refresh(), "invalid_grant")
    assert session.is_dead(newest)


def test_revocation_beats_the_window(session: Session) -> None:
    """T067, I-12.a: a retry revives nothing that was deliberately revoked."""
    newest = session.refresh().json["refresh_token"]
    server = session.server
    with server.application.begin() as engine:
        engine.stores.grants.revoke(server.rows("grants")[0]["grant_id"], engine.now, "operator")
    before = stored(server)
    assert session.is_dead(session.token, newest)
    assert stored(server) == before
    assert server.rows("grants")[0]["revoked_reason"] == "operator"


def test_a_narrower_request_narrows_one_access_token(session: Session) -> None:
    """I-10.b, I-11, T070: the refresh token keeps what it had, so the next request may have it all again."""
    narrow = session.refresh(scope="files.read").json
    assert narrow["scope"] == "files.read"
    assert session.server.claims(narrow["access_token"])["scope"] == "files.read"
    wide = session.refresh(narrow["refresh_token"]).json
    assert wide["scope"] == "profile files.read"
    rows = [row for row in session.server.rows("tokens") if row["kind"] == "refresh"]
    assert {row["scopes"] for row in rows} == {"profile files.read"}
    assert {row["resources"] for row in rows} == {f"{RESOURCE} {FILES}"}


REFUSED = [
    ({"scope": "files.write"}, "invalid_scope"),
    ({"scope": "profile files.write"}, "invalid_scope"),
    ({"scope": "admin"}, "invalid_scope"),
    ({"scope": "nonsense"}, "invalid_scope"),
    ({"scope": "pro\\file"}, "invalid_scope"),
    ({"scope": "profile", "resource": FILES}, "invalid_scope"),
    ({"resource": "https://other.example/"}, "invalid_target"),
    ({"resource": [FILES, "https://other.example/"]}, "invalid_target"),
    ({"resource": "files"}, "invalid_target"),
    ({"resource": FILES + "#x"}, "invalid_target"),
    ({"scope": ["profile", "profile"]}, "invalid_request"),
    ({"refresh_token": ""}, "invalid_request"),
    ({"refresh_token": "x"}, "invalid_grant"),
    ({"refresh_token": forged("as_refresh_")}, "invalid_grant"),
    ({"refresh_token": "é"}, "invalid_grant"),
]


def test_a_refused_request_changes_nothing(session: Session) -> None:
    """I-10.a, I-16, T070, T071: more than granted, or malformed: refused, with every row as it was."""
    before = stored(session.server)
    for form, error in REFUSED:
        form = {"grant_type": "refresh_token", "refresh_token": session.token, **form}
        answer = session.server.token(session.client, session.secret, **form)
        assert_json_error(answer, error)
        assert stored(session.server) == before, form
    assert session.refresh().status_int == 200


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # one family for all examples: each begins where the last one left it
@given(
    scopes=st.lists(st.sampled_from(["profile", "files.read", "files.write", "admin"]), max_size=3),
    resources=st.lists(st.sampled_from([RESOURCE, FILES, "https://other.example/"]), max_size=3),
)
def test_nothing_is_widened(session: Session, scopes: list[str], resources: list[str]) -> None:
    """T070: whatever is asked for, what comes is within the grant and within the request."""
    answer = session.refresh(scope=" ".join(scopes), resource=resources)
    if answer.status_int == 200:
        session.token = answer.json["refresh_token"]
        claims = session.server.claims(answer.json["access_token"])
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        assert set(audience) == set(resources or [RESOURCE, FILES])
        assert set(claims["scope"].split()) <= set(scopes or ["profile", "files.read"])
        assert set(audience) <= {RESOURCE, FILES}
        assert set(claims["scope"].split()) <= {"profile", "files.read"}
    else:
        assert answer.json["error"] in ("invalid_scope", "invalid_target")


def disable_ann(server: Server, client: Client) -> None:
    with server.application.begin() as engine:
        assert disable_user(engine, "ann")


def end_grant(server: Server, client: Client) -> None:
    with server.application.begin() as engine:
        engine.stores.grants.revoke(server.rows("grants")[0]["grant_id"], engine.now, "operator")


@pytest.mark.parametrize("happening", [disable_ann, end_grant])
def test_a_refresh_token_dies_with_what_it_stands_for(
    session: Session, happening: Callable[[Server, Client], None]
) -> None:
    """I-12.a, R-09, T073: a disabled user, a revoked grant: `invalid_grant` on the next request."""
    newest = session.refresh().json["refresh_token"]
    happening(session.server, session.client)
    before = stored(session.server)
    assert session.is_dead(newest, session.token)
    assert stored(session.server) == before


def test_a_disabled_client_cannot_refresh(session: Session) -> None:
    """I-12.b, R-09, T073: 401 on the next request."""
    with session.server.application.begin() as engine:
        assert disable_client(engine, session.client.client_id)
    before = stored(session.server)
    assert_json_error(session.refresh(), "invalid_client", status=401)
    assert stored(session.server) == before


@pytest.mark.parametrize("deleted", ["client", "user"])
def test_a_refresh_token_of_nobody_is_dead(session: Session, deleted: str) -> None:
    """I-12.a, T073: without its client or its user it is no token, here and at introspection."""
    server = session.server
    api, api_secret = server.add_client(client_id="api", grant_types=("client_credentials",))
    token = session.first["access_token"]
    assert server.introspect(api, api_secret, token).json["active"] is True
    with server.application.storage.engine.connect() as connection:
        if deleted == "user":
            with pytest.raises(sa.exc.IntegrityError):  # while there are grants the database keeps the user
                connection.execute(sa.text("DELETE FROM users"))
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.execute(sa.text("DELETE FROM users"))
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        else:
            connection.execute(sa.text("DELETE FROM clients WHERE client_id <> 'api'"))
    before = stored(server)
    if deleted == "user":
        assert_json_error(session.refresh(), "invalid_grant")
        assert_json_error(server.redeem(session.client, session.secret, session.code), "invalid_grant")
    else:
        assert_json_error(session.refresh(), "invalid_client", status=401)
        assert {row["client_id"] for row in server.rows("client_secrets")} == {"api"}
    assert server.introspect(api, api_secret, token).json == {"active": False}
    assert stored(server)[1] == before[1]


def test_a_client_that_lost_the_grant_type_cannot_refresh(session: Session) -> None:
    """I-01, F-06: the registration counts at every use."""
    with session.server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE clients SET grant_types = 'authorization_code'"))
    before = stored(session.server)
    assert_json_error(session.refresh(), "unauthorized_client")
    assert stored(session.server) == before


def test_a_scope_the_client_lost_is_not_renewed(session: Session) -> None:
    """I-10.a, T081: the shared scope filter is asked at every use; what is left can be asked for."""
    with session.server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE clients SET scopes = 'profile'"))
    before = stored(session.server)
    assert_json_error(session.refresh(), "invalid_scope")
    assert stored(session.server) == before
    assert session.refresh(scope="profile").json["scope"] == "profile"


def test_an_unused_refresh_token_dies(
    make_server: Callable[..., Server], clock: time_machine.Traveller
) -> None:
    """I-13.a, T072: to the second; each rotation starts the time anew."""
    session = make_session(make_server, refresh_token_idle_lifetime=str(10 * 86400))
    clock.shift(10 * DAY - INSTANT)
    answer = session.refresh()
    assert answer.status_int == 200
    clock.shift(10 * DAY)
    before = stored(session.server)
    assert_json_error(session.refresh(answer.json["refresh_token"]), "invalid_grant")
    assert stored(session.server) == before


def test_no_rotation_moves_the_end_of_a_grant(
    make_server: Callable[..., Server], clock: time_machine.Traveller
) -> None:
    """I-13.b, T072: access tokens are clipped to what is left, and at the end there is `invalid_grant`."""
    session = make_session(
        make_server, refresh_token_idle_lifetime=str(10 * 86400), grant_lifetime=str(30 * 86400)
    )
    end = session.server.rows("grants")[0]["expires_at"]
    token = session.token
    for days in (9, 9, 9):
        clock.shift(days * DAY)
        token = session.refresh(token).json["refresh_token"]
    clock.shift(3 * DAY - timedelta(seconds=100))
    answer = session.refresh(token).json
    assert answer["expires_in"] == 100
    claims = session.server.claims(answer["access_token"])
    assert claims["exp"] - claims["iat"] == 100
    assert {row["expires_at"] for row in session.server.rows("tokens") if row["kind"] == "refresh"} >= {end}
    clock.shift(timedelta(seconds=99.5))
    answer = session.refresh(answer["refresh_token"])
    assert (answer.status_int, answer.json["expires_in"]) == (200, 0)
    clock.shift(timedelta(seconds=0.5))
    assert_json_error(session.refresh(answer.json["refresh_token"]), "invalid_grant")
    assert session.server.rows("grants")[0]["expires_at"] == end


def test_when_the_user_signed_in_does_not_change(session: Session, clock: time_machine.Traveller) -> None:
    """N-08: a refresh is no sign-in."""
    first = session.server.claims(session.first["access_token"])
    clock.shift(3600)
    second = session.server.claims(session.refresh().json["access_token"])
    for name in ("auth_time", "amr", "sub"):
        assert second[name] == first[name]
    assert second["iat"] >= first["iat"] + 3600
    assert second["jti"] != first["jti"]
