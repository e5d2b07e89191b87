"""Revocation (RFC 7009): a client ends what it was granted, and only that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
from webtest import TestResponse

from authserver.engine.clients import disable_client
from authserver.engine.ports import StorageUnavailable
from authserver.testing.server import Server, basic, forged
from authserver.testing.stories import assert_json_error, records, stored

MakeServer = Callable[..., Server]
ORIGIN = "https://client.example"
FORM = "application/x-www-form-urlencoded"
FORMATS = ("jwt", "opaque")


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until it is moved."""
    with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
        yield traveller


class Story:
    """A client with tokens of user `ann`."""

    def __init__(self, server: Server, auth_method: str = "client_secret_basic") -> None:
        self.server = server
        self.client, self.secret = server.add_client(token_endpoint_auth_method=auth_method)
        self.code = server.code(self.client)
        answer = server.redeem(self.client, self.secret, self.code).json
        self.access: str = answer["access_token"]
        self.refresh: str = answer["refresh_token"]
        (self.grant_id,) = [
            row["grant_id"] for row in server.rows("grants") if row["client_id"] == self.client.client_id
        ]

    def revoke(self, token: str, **form: Any) -> TestResponse:
        return self.server.revoke(self.client, self.secret, token, **form)

    def grant(self) -> dict[str, Any]:
        (row,) = [row for row in self.server.rows("grants") if row["grant_id"] == self.grant_id]
        return row

    def is_live(self) -> bool:
        """Whether a refresh is answered; asked of a server whose tokens are still good, it rotates."""
        return self.server.refresh(self.client, self.secret, self.refresh).status_int == 200

    def is_active(self, token: str) -> bool:
        """By introspection, which public clients cannot use."""
        return bool(self.server.introspect(self.client, self.secret, token).json["active"])


@pytest.fixture(params=FORMATS)
def story(request: pytest.FixtureRequest, make_server: MakeServer) -> Story:
    """With both formats of access tokens."""
    server = make_server({"authserver.access_token_format": request.param})
    server.add_user()
    return Story(server)


def assert_done(answer: TestResponse) -> None:
    """The one answer to every revocation that is no error (L-02, L-03)."""
    assert answer.status_int == 200
    assert answer.body == b"{}"
    assert answer.headers["Cache-Control"] == "no-store"


# ---- What is revoked -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_any_token_of_a_grant_ends_all_of_it(kind: str, story: Story) -> None:
    """L-01, L-02, L-07, T074, T076: access and refresh tokens alike, at once; rows stay, an event tells."""
    assert story.is_active(story.access)
    assert story.is_active(story.refresh)
    tokens = story.server.rows("tokens")
    assert_done(story.revoke(getattr(story, kind)))
    assert not story.is_active(story.access)
    assert not story.is_active(story.refresh)
    assert story.server.rows("tokens") == tokens
    assert_json_error(story.server.refresh(story.client, story.secret, story.refresh), "invalid_grant")
    assert story.grant()["revoked_reason"] == "token-revoked"
    (event,) = story.server.events("grant.revoked")
    assert (event["client_id"], event["grant_id"]) == (story.client.client_id, story.grant_id)
    assert (event["reason"], event["user_id"]) == ("token-revoked", story.server.rows("users")[0]["user_id"])
    assert story.access not in str(event)
    assert story.refresh not in str(event)


@pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post", "none"])
@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_every_client_revokes_as_it_authenticates(auth_method: str, kind: str, server: Server) -> None:
    """L-01, T074: a public client by its `client_id`, and its revocation counts as much."""
    story = Story(server, auth_method)
    assert_done(story.revoke(getattr(story, kind)))
    assert not story.is_live()


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "id_token", "garbage", ""])
@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_a_wrong_hint_hides_nothing(kind: str, hint: str, server: Server) -> None:
    """L-05, T077."""
    story = Story(server)
    assert_done(story.revoke(getattr(story, kind), token_type_hint=hint))
    assert not story.is_live()


def test_a_used_refresh_token_ends_the_grant_too(story: Story) -> None:
    """L-07: the client may have lost the one that came after it."""
    successor = story.server.refresh(story.client, story.secret, story.refresh).json["refresh_token"]
    assert_done(story.revoke(story.refresh))
    assert not story.is_active(successor)
    # Not even inside of the window for retries (T067).
    assert_json_error(story.server.refresh(story.client, story.secret, story.refresh), "invalid_grant")


@pytest.mark.parametrize("token_format", FORMATS)
def test_a_client_revokes_a_token_of_its_own(token_format: str, make_server: MakeServer) -> None:
    """L-02, T076: without a person; a JWT that nothing was kept of is remembered as revoked, its siblings live."""
    server = make_server({"authserver.access_token_format": token_format})
    client, secret = server.add_client(grant_types=("client_credentials",))
    tokens = [
        server.token(client, secret, grant_type="client_credentials", scope="profile").json["access_token"]
        for _ in range(2)
    ]
    for _ in range(2):
        assert_done(server.revoke(client, secret, tokens[0]))
    active = [server.introspect(client, secret, token).json["active"] for token in tokens]
    assert active == [False, True]
    (event,) = server.events("grant.revoked")
    assert (event["client_id"], event["user_id"], event["reason"]) == (
        client.client_id,
        None,
        "token-revoked",
    )
    revoked = [row for row in server.rows("grants") if row["revoked_at"]]
    assert [row["grant_id"] for row in revoked] == [event["grant_id"]]


def test_what_is_kept_of_a_jwt_says_what_the_jwt_said(server: Server) -> None:
    """T076: a tombstone with the same facts, which may be swept out once the token has expired."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    token = server.token(client, secret, grant_type="client_credentials", scope="profile").json[
        "access_token"
    ]
    claims = server.claims(token)
    assert server.rows("grants") == []
    assert_done(server.revoke(client, secret, token))
    with server.application.begin() as engine:
        grant = engine.stores.grants.find(claims["jti"].partition(".")[0])
    assert grant is not None
    assert (grant.client_id, grant.user_id) == (client.client_id, None)
    assert (grant.scopes, grant.resources) == (("profile",), (claims["aud"],))
    assert (grant.created_at.timestamp(), grant.expires_at.timestamp()) == (claims["iat"], claims["exp"])


# ---- What changes nothing --------------------------------------------------------------------------


def test_a_second_revocation_is_answered_alike(story: Story) -> None:
    """L-03: and told of once."""
    for token in (story.refresh, story.access, story.refresh):
        assert_done(story.revoke(token))
    assert len(story.server.events("grant.revoked")) == 1


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        "a.b.c",
        "eyJhbGciOiJub25lIn0.e30.",
        forged("as_access_"),
        forged("as_refresh_"),
        forged("as_refresh_")[:-1],
        "\u00e9",
        "A" * 8000,
    ],
)
def test_what_was_never_issued_is_answered_alike(token: str, shared_server: Server) -> None:
    """L-03: nothing is stored, and no event tells of it."""
    client, secret = shared_server.add_client()
    before, events = stored(shared_server), shared_server.events()
    assert_done(shared_server.revoke(client, secret, token))
    assert (stored(shared_server), shared_server.events()) == (before, events)


@pytest.mark.parametrize("token_format", FORMATS)
def test_an_expired_access_token_ends_nothing(
    token_format: str, make_server: MakeServer, clock: time_machine.Traveller
) -> None:
    """L-03: whoever finds one in an old log cannot end the grant with it."""
    server = make_server({"authserver.access_token_format": token_format})
    server.add_user()
    story = Story(server)
    clock.shift(timedelta(seconds=901))
    before = records(server)
    assert_done(story.revoke(story.access))
    assert records(server) == before
    assert story.is_live()


@pytest.mark.parametrize("kind", ["access", "refresh"])
@pytest.mark.parametrize("auth_method", ["client_secret_basic", "none"])
def test_another_client_revokes_nothing(auth_method: str, kind: str, story: Story) -> None:
    """L-04, T074: a neutral 200, so that it learns nothing; the token stays active, and an event tells of it."""
    server = story.server
    other, secret = server.add_client(token_endpoint_auth_method=auth_method)
    before = records(server)
    assert_done(server.revoke(other, secret, getattr(story, kind)))
    assert records(server) == before
    assert story.is_active(story.access)
    assert story.is_active(story.refresh)
    (refused,) = server.events("request.refused")
    assert (refused["client_id"], refused["grant_id"]) == (other.client_id, story.grant_id)
    assert refused["reason"] == "token-of-another-client"
    assert not server.events("grant.revoked")


def test_a_jwt_that_others_signed_ends_nothing(story: Story, make_server: MakeServer) -> None:
    """L-03, T079: nor one of ours that is no access token."""
    keys = story.server.application.signing_keys
    claims = {
        "iss": "https://as.example",
        "sub": story.client.client_id,
        "client_id": story.client.client_id,
        "aud": "https://api.example/",
        "scope": "profile",
        "iat": 1,
        "exp": 32503680000,
        "jti": f"{story.grant_id}.1",
    }
    for changes, typ in (
        ({"iss": "https://another.example"}, "at+jwt"),
        ({}, "JWT"),
        ({"iss": ""}, "at+jwt"),
    ):
        assert_done(story.revoke(keys.sign({**claims, **changes}, typ=typ)))
    assert story.grant()["revoked_at"] is None
    assert_done(story.revoke(keys.sign(claims, typ="at+jwt")))
    assert story.grant()["revoked_at"] is not None


# ---- What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("", FORM),
        ("token=", FORM),
        ("token_type_hint=refresh_token", FORM),
        ("token=a&token=b", FORM),
        ('{"token": "a"}', "application/json"),
        ("token=%00", FORM),
    ],
)
def test_a_malformed_request_is_refused(body: str, content_type: str, shared_server: Server) -> None:
    """L-06, T082, T083: `invalid_request`, and an event."""
    client, secret = shared_server.add_client()
    before = len(shared_server.events("request.refused"))
    answer = shared_server.http.post(
        "/oauth/revoke",
        body,
        headers={"Authorization": basic(client.client_id, secret or "")},
        content_type=content_type,
        expect_errors=True,
    )
    assert_json_error(answer, "invalid_request")
    assert len(shared_server.events("request.refused")) == before + 1


def test_other_credentials_cannot_be_revoked(story: Story) -> None:
    """L-06: `unsupported_token_type` for a code, a client secret or a session; they stay as they are."""
    before = records(story.server)
    for text in (story.code, story.secret, forged("as_code_"), forged("as_session_")):
        assert_json_error(story.revoke(text or ""), "unsupported_token_type")
    assert records(story.server) == before
    assert len(story.server.events("request.refused")) == 4


@pytest.mark.parametrize("case", ["no client", "unknown client", "wrong secret", "no secret", "bearer"])
def test_whoever_proves_nothing_revokes_nothing(case: str, story: Story) -> None:
    """L-01, T074: 401 `invalid_client` with a challenge, and an event; a token is no credential."""
    client_id = story.client.client_id
    form, headers = {"token": story.refresh}, {}
    if case == "unknown client":
        form["client_id"] = "nobody"
    elif case == "wrong secret":
        headers["Authorization"] = basic(client_id, "wrong")
    elif case == "no secret":
        form["client_id"] = client_id
    elif case == "bearer":
        headers["Authorization"] = f"Bearer {story.access}"
    before = records(story.server)
    answer = story.server.http.post("/oauth/revoke", form, headers=headers, expect_errors=True)
    assert_json_error(answer, "invalid_client", status=401)
    assert records(story.server) == before
    assert len(story.server.events("request.refused")) == 1
    assert story.is_live()


def test_a_disabled_client_revokes_nothing(story: Story) -> None:
    """L-01, R-09: its tokens are dead anyway."""
    with story.server.application.begin() as engine:
        disable_client(engine, story.client.client_id)
    assert_json_error(story.revoke(story.refresh), "invalid_client", status=401)


def test_only_a_post_revokes(story: Story) -> None:
    """L-01: a token in a query is not read."""
    path = f"/oauth/revoke?token={story.refresh}"
    headers = {"Authorization": basic(story.client.client_id, story.secret or "")}
    answer = story.server.http.get(path, headers=headers, expect_errors=True)
    assert (answer.status_int, answer.headers["Allow"]) == (405, "POST")
    assert_json_error(
        story.server.http.post(path, {}, headers=headers, expect_errors=True), "invalid_request"
    )
    assert story.grant()["revoked_at"] is None


# ---- Other origins ---------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [ORIGIN, "https://evil.example", "null"])
def test_pages_of_clients_may_revoke(origin: str, server: Server) -> None:
    """Q-01, Q-04, T085: as at the token endpoint; errors too, never with credentials."""
    story = Story(server, "none")
    answers = [
        server.ask("/oauth/revoke", story.client, None, origin=origin, token=story.refresh),
        server.ask("/oauth/revoke", story.client, None, origin=origin),
        server.http.options("/oauth/revoke", headers={"Origin": origin}),
    ]
    assert [answer.status_int for answer in answers] == [200, 400, 204]
    for answer in answers:
        assert answer.headers.get("Access-Control-Allow-Origin") == (origin if origin == ORIGIN else None)
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Origin" in answer.headers["Vary"]


# ---- Faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", ["UPDATE grants", "INSERT INTO events"])
def test_a_revocation_that_was_not_kept_is_no_success(
    writes: str, make_server: MakeServer, database_url: str
) -> None:
    """T075, R-08: 503 with Retry-After, the grant as live as before; the same request then succeeds."""
    server = make_server(database_url=database_url)
    server.add_user()
    story = Story(server)
    engine = server.application.storage.engine

    def fail(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith(writes):
            raise StorageUnavailable("injected")

    sa.event.listen(engine, "before_cursor_execute", fail)
    try:
        answer = story.revoke(story.refresh)
    finally:
        sa.event.remove(engine, "before_cursor_execute", fail)
    assert_json_error(answer, "temporarily_unavailable", status=503)
    assert int(answer.headers["Retry-After"]) > 0
    assert story.grant()["revoked_at"] is None
    assert not server.events("grant.revoked")
    assert story.is_active(story.access)
    assert_done(story.revoke(story.refresh))
    assert not story.is_active(story.access)


def test_a_look_up_that_fails_is_no_success(server: Server) -> None:
    """T075: at introspection and revocation alike, nothing is claimed of a token that could not be found."""
    story = Story(server)
    engine = server.application.storage.engine

    def fail(connection, cursor, statement, parameters, context, executemany):
        if "FROM grants" in statement or "FROM tokens" in statement:
            raise StorageUnavailable("injected")

    sa.event.listen(engine, "before_cursor_execute", fail)
    try:
        for token in (story.access, story.refresh):
            for ask in (server.introspect, server.revoke):
                answer = ask(story.client, story.secret, token)
                assert_json_error(answer, "temporarily_unavailable", status=503)
    finally:
        sa.event.remove(engine, "before_cursor_execute", fail)
    assert story.is_active(story.access)
