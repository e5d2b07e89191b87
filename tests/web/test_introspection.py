"""Introspection (RFC 7662): what a token is good for, told to whom it concerns, and to nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import time_machine
from webtest import TestResponse

from authserver.api import Decision, IntrospectedToken, allow, deny, hookimpl
from authserver.engine.clients import disable_client
from authserver.engine.login import disable_user
from authserver.engine.records import Client
from authserver.testing.server import ISSUER, RESOURCE, SETTINGS, Server, basic, forged, with_plugin
from authserver.testing.stories import assert_json_error, stored

MakeServer = Callable[..., Server]
FILES = "https://files.example/"
METADATA = "/.well-known/oauth-authorization-server"
FORM = "application/x-www-form-urlencoded"
OWN = ("client_credentials",)
BOTH_POLICIES = ("introspect_own", "introspect_resource_servers")


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until it is moved."""
    with time_machine.travel(datetime.now(UTC), tick=False) as traveller:
        yield traveller


class Story:
    """A client with tokens of user `ann`, and the resource server `api` that the access token is for."""

    def __init__(self, server: Server, **request: Any) -> None:
        self.server = server
        self.client, self.secret = server.add_client(
            scopes=("profile", "files.read"),
            grant_types=("authorization_code", "refresh_token", "client_credentials"),
        )
        self.api, self.api_secret = server.add_client(client_id="api", grant_types=OWN)
        self.code = server.code(self.client, scope="profile files.read", **request)
        self.answer = server.redeem(self.client, self.secret, self.code).json
        self.access: str = self.answer["access_token"]
        self.refresh: str = self.answer["refresh_token"]

    def own(self, token: str, **form: Any) -> TestResponse:
        """Introspection by the client itself."""
        return self.server.introspect(self.client, self.secret, token, **form)

    def by_api(self, token: str) -> TestResponse:
        """Introspection by the resource server."""
        return self.server.introspect(self.api, self.api_secret, token)


@pytest.fixture(params=["jwt", "opaque"])
def story(request: pytest.FixtureRequest, make_server: MakeServer) -> Story:
    """With both formats of access tokens."""
    server = make_server({"authserver.access_token_format": request.param})
    server.add_user()
    return Story(server)


def assert_inactive(answer: TestResponse) -> None:
    """The one answer about everything that is not good (M-03)."""
    assert answer.status_int == 200
    assert answer.body == b'{"active":false}'
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"


def is_active(answer: TestResponse) -> bool:
    if answer.json["active"]:
        return True
    assert_inactive(answer)
    return False


# ---- What is told ----------------------------------------------------------------------------------


def test_an_active_access_token_is_described(story: Story) -> None:
    """M-05, A-03, M-08: every member that is known, in the form of the claims; nothing personal, never cached."""
    (user,) = story.server.rows("users")
    (grant,) = story.server.rows("grants")
    for answer in (story.own(story.access), story.by_api(story.access)):
        assert answer.headers["Cache-Control"] == "no-store"
        described = answer.json
        jti = described.pop("jti")
        assert jti.startswith(f"{grant['grant_id']}.")
        assert described.pop("exp") == described.pop("iat") + story.answer["expires_in"]
        assert described == {
            "active": True,
            "scope": "profile files.read",
            "client_id": story.client.client_id,
            "sub": user["user_id"],
            "aud": RESOURCE,
            "iss": ISSUER,
            "token_type": "Bearer",
        }
        assert user["username"] not in answer.text


def test_a_jwt_is_described_as_it_describes_itself(server: Server) -> None:
    """M-05, A-03: the members are its claims."""
    story = Story(server)
    claims = server.claims(story.access)
    described = story.own(story.access).json
    assert {name: described[name] for name in described.keys() & claims.keys()} == {
        name: claims[name] for name in ("iss", "sub", "aud", "client_id", "iat", "exp", "jti", "scope")
    }


def test_a_token_for_several_resources_names_them_all(server: Server) -> None:
    """M-05: as the `aud` of the JWT does."""
    story = Story(server, resource=[RESOURCE, FILES])
    assert story.own(story.access).json["aud"] == server.claims(story.access)["aud"] == [RESOURCE, FILES]


@pytest.mark.parametrize(
    ("confirmation", "token_type"), [({"jkt": "thumbprint"}, "DPoP"), ({"x5t#S256": "thumbprint"}, "Bearer")]
)
def test_a_bound_token_shows_its_key(confirmation: dict[str, str], token_type: str, server: Server) -> None:
    """M-09: else an API would take it from whoever has it."""
    story = Story(server)
    bound = server.application.signing_keys.sign(
        {**server.claims(story.access), "cnf": confirmation}, typ="at+jwt"
    )
    described = story.own(bound).json
    assert (described["cnf"], described["token_type"]) == (confirmation, token_type)
    assert "cnf" not in story.own(story.access).json


@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_a_token_of_a_client_for_itself_is_described(token_format: str, make_server: MakeServer) -> None:
    """M-05, T080: its subject is the client."""
    server = make_server({"authserver.access_token_format": token_format})
    client, secret = server.add_client(grant_types=OWN)
    answer = server.token(client, secret, grant_type="client_credentials", scope="profile").json
    described = server.introspect(client, secret, answer["access_token"]).json
    assert (described["active"], described["sub"], described["client_id"]) == (True, *[client.client_id] * 2)


def test_a_refresh_token_is_described_to_its_own_client(story: Story) -> None:
    """M-07: to nobody else; and it is no Bearer token."""
    described = story.own(story.refresh).json
    assert (described["active"], described["scope"]) == (True, "profile files.read")
    assert "token_type" not in described
    assert_inactive(story.by_api(story.refresh))


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "id_token", "garbage", ""])
def test_a_hint_is_only_a_hint(hint: str, story: Story) -> None:
    """M-02, T077: wrong or unknown, it hides nothing."""
    for token in (story.access, story.refresh):
        assert is_active(story.own(token, token_type_hint=hint))


def test_introspection_changes_nothing(story: Story) -> None:
    """A look leaves no event: there may be one for each request to an API."""
    before, events = stored(story.server), story.server.events()
    assert is_active(story.own(story.access))
    assert_inactive(story.own("garbage"))
    assert (stored(story.server), story.server.events()) == (before, events)


# ---- What is not active ----------------------------------------------------------------------------


def disable_user_ann(story: Story) -> None:
    with story.server.application.begin() as engine:
        disable_user(engine, "ann")


def disable_the_client(story: Story) -> None:
    with story.server.application.begin() as engine:
        disable_client(engine, story.client.client_id)


def revoke_the_grant(story: Story) -> None:
    with story.server.application.begin() as engine:
        engine.stores.grants.revoke(story.server.rows("grants")[0]["grant_id"], engine.now, "operator")


def replay_the_code(story: Story) -> None:
    assert story.server.redeem(story.client, story.secret, story.code).status_int == 400


@pytest.mark.parametrize(
    "happening", [disable_user_ann, disable_the_client, revoke_the_grant, replay_the_code]
)
def test_a_token_dies_with_what_it_stands_on(happening: Callable[[Story], None], story: Story) -> None:
    """M-04, M-03, T073, T078: at once, for JWTs as for opaque tokens."""
    assert is_active(story.by_api(story.access))
    happening(story)
    assert_inactive(story.by_api(story.access))


def test_refresh_tokens_die_with_the_grant(story: Story) -> None:
    """M-04, T073: a disabled user's refresh token is inactive to its own client."""
    assert is_active(story.own(story.refresh))
    disable_user_ann(story)
    assert_inactive(story.own(story.refresh))
    assert_inactive(story.own(story.access))


def test_an_expired_token_is_inactive(make_server: MakeServer, clock: time_machine.Traveller) -> None:
    """M-03, M-04: from the second in which it ends; the refresh token lives on."""
    for token_format in ("jwt", "opaque"):
        server = make_server({"authserver.access_token_format": token_format})
        server.rows("users") or server.add_user()
        client, secret = server.add_client()
        answer = server.redeem(client, secret, server.code(client)).json
        exp = server.introspect(client, secret, answer["access_token"]).json["exp"]
        clock.move_to(datetime.fromtimestamp(exp, UTC) - timedelta(milliseconds=1))
        assert is_active(server.introspect(client, secret, answer["access_token"]))
        clock.move_to(datetime.fromtimestamp(exp, UTC) + timedelta(seconds=1))
        assert_inactive(server.introspect(client, secret, answer["access_token"]))
        assert is_active(server.introspect(client, secret, answer["refresh_token"]))
        clock.shift(timedelta(days=14))
        assert_inactive(server.introspect(client, secret, answer["refresh_token"]))


def test_a_used_refresh_token_is_inactive(story: Story) -> None:
    """M-03, I-04: its successor is active."""
    successor = story.server.refresh(story.client, story.secret, story.refresh).json["refresh_token"]
    assert_inactive(story.own(story.refresh))
    assert is_active(story.own(successor))


@pytest.mark.parametrize(
    ("changes", "typ"),
    [
        ({"iss": "https://another.example"}, "at+jwt"),
        ({"exp": 1}, "at+jwt"),
        ({"nbf": 32503680000}, "at+jwt"),
        ({"sub": "user_nobody", "jti": "unknown.1"}, "at+jwt"),
        ({}, "JWT"),
        ({}, "authorization-grant+jwt"),
    ],
)
def test_a_jwt_of_ours_that_is_no_token_now_is_inactive(
    changes: dict[str, Any], typ: str, server: Server
) -> None:
    """M-04, T079: issuer, `exp`, `nbf`, subject and `typ` all count, however well it is signed."""
    story = Story(server)
    keys, claims = server.application.signing_keys, server.claims(story.access)
    assert is_active(story.own(keys.sign(claims, typ="at+jwt")))
    assert_inactive(story.own(keys.sign({**claims, **changes}, typ=typ)))


def test_what_was_never_issued_is_inactive(story: Story) -> None:
    """M-03, T078, I-15: garbage, forgeries, credentials of other kinds; all alike, and none leaves a trace."""
    header, claims, signature = "eyJhbGciOiJub25lIn0", "e30", ""
    before, events = stored(story.server), story.server.events()
    unknown = [
        "garbage",
        ".",
        "a.b.c",
        f"{header}.{claims}.{signature}",
        story.access[:-4] + "AAAA",
        story.refresh[:-1] + ("A" if story.refresh[-1] != "A" else "B"),
        forged("as_access_"),
        forged("as_refresh_"),
        story.code,
        story.secret,
        "\u00e9",
        "A" * 8000,
    ]
    for text in unknown:
        assert_inactive(story.own(text or ""))
    assert (stored(story.server), story.server.events()) == (before, events)


# ---- Who is told -----------------------------------------------------------------------------------


def test_another_client_is_told_nothing(story: Story) -> None:
    """M-03, T078: a foreign token is as good as none; the operator finds the refusal and its decisions."""
    other, secret = story.server.add_client()
    for token in (story.access, story.refresh):
        assert_inactive(story.server.introspect(other, secret, token))
    refused = story.server.events("request.refused")
    assert [(row["client_id"], row["reason"]) for row in refused] == [
        (other.client_id, "nobody-answered")
    ] * 2
    assert all("introspection_decision" in str(row["decisions"]) for row in refused)
    assert not any(story.access in str(row) or story.refresh in str(row) for row in refused)


def test_a_resource_server_is_told_of_tokens_for_it_alone(server: Server) -> None:
    """M-06, T078: the audience of the token decides."""
    story = Story(server)
    files, secret = server.add_client(client_id="files-api", grant_types=OWN)
    assert is_active(story.by_api(story.access))
    assert_inactive(server.introspect(files, secret, story.access))
    code = server.code(story.client, resource=[RESOURCE, FILES])
    token = server.redeem(story.client, story.secret, code).json["access_token"]
    assert is_active(server.introspect(files, secret, token))
    assert is_active(story.by_api(token))


def test_a_public_client_cannot_introspect(story: Story) -> None:
    """M-07, M-01: not even its own token; 401 with a challenge, and an event."""
    public, _ = story.server.add_client(token_endpoint_auth_method="none")
    token = story.server.redeem(public, None, story.server.code(public)).json["access_token"]
    before = stored(story.server)
    assert_json_error(story.server.introspect(public, None, token), "invalid_client", status=401)
    assert stored(story.server) == before
    (refused,) = story.server.events("request.refused")
    assert (refused["reason"], refused["client_id"]) == ("public-caller", public.client_id)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Basic",
        "Bearer {token}",
        "bearer {token}",
        "DPoP {token}",
        basic("{client}", "wrong"),
        "Basic x, Basic y",
    ],
)
def test_whoever_proves_nothing_is_refused(authorization: str | None, story: Story) -> None:
    """M-01, P-04, T078: 401 `invalid_client` with a challenge; a token is no credential here."""
    headers = {}
    if authorization is not None:
        named = authorization.replace(basic("{client}", "wrong"), basic(story.client.client_id, "wrong"))
        headers["Authorization"] = named.replace("{token}", story.access)
    before = stored(story.server)
    answer = story.server.http.post(
        "/oauth/introspect", {"token": story.access}, headers=headers, expect_errors=True
    )
    assert_json_error(answer, "invalid_client", status=401)
    assert answer.headers["WWW-Authenticate"].partition(" ")[0] in ("Basic", "Bearer", "DPoP")
    assert stored(story.server) == before
    assert len(story.server.events("request.refused")) == 1


def test_a_disabled_caller_is_refused(story: Story) -> None:
    """M-01, R-09."""
    with story.server.application.begin() as engine:
        disable_client(engine, "api")
    assert_json_error(story.by_api(story.access), "invalid_client", status=401)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("", FORM),
        ("token=", FORM),
        ("token=a&token=b", FORM),
        ("token=a&token_type_hint=x&token_type_hint=y", FORM),
        ('{"token": "a"}', "application/json"),
        ("token=%ff", FORM),
    ],
)
def test_a_malformed_request_is_refused(body: str, content_type: str, shared_server: Server) -> None:
    """M-02, T082, T083: `invalid_request`, not stored by caches, and an event."""
    client, secret = shared_server.add_client()
    before = len(shared_server.events("request.refused"))
    answer = shared_server.http.post(
        "/oauth/introspect",
        body,
        headers={"Authorization": basic(client.client_id, secret or "")},
        content_type=content_type,
        expect_errors=True,
    )
    assert_json_error(answer, "invalid_request")
    assert len(shared_server.events("request.refused")) == before + 1


def test_a_token_in_the_query_is_not_read(story: Story) -> None:
    """P-02, M-02: nor is anything answered to a GET."""
    headers = {"Authorization": basic(story.client.client_id, story.secret or "")}
    path = "/oauth/introspect?" + urlencode({"token": story.access})
    assert_json_error(
        story.server.http.post(path, {}, headers=headers, expect_errors=True), "invalid_request"
    )
    answer = story.server.http.get(path, headers=headers, expect_errors=True)
    assert (answer.status_int, answer.headers["Allow"]) == (405, "POST")


def test_no_page_may_read_the_answer(story: Story) -> None:
    """Q-01, T085: introspection is between servers."""
    answer = story.server.ask(
        "/oauth/introspect", story.client, story.secret, origin="https://client.example", token=story.access
    )
    assert is_active(answer)
    assert not any(name.lower().startswith("access-control-") for name in answer.headers)


# ---- Policies --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Everybody:
    """Lets every caller know everything."""

    @hookimpl
    def introspection_decision(self, caller: Client, token: IntrospectedToken) -> Decision:
        return allow("everybody")


@dataclass(frozen=True)
class NoFiles:
    """Keeps tokens that can read files to itself."""

    @hookimpl
    def introspection_decision(self, token: IntrospectedToken) -> Decision | None:
        return deny("no-files") if "files.read" in token.scopes else None


def test_no_policy_shows_a_refresh_token_to_others(make_server: MakeServer) -> None:
    """M-07, T078: the floor stands below every policy."""
    server = make_server(with_plugin(Everybody, {}))
    server.add_user()
    story = Story(server)
    other, secret = server.add_client()
    assert is_active(server.introspect(other, secret, story.access))
    assert_inactive(server.introspect(other, secret, story.refresh))
    assert server.events("request.refused")[-1]["reason"] == "refresh-token-of-another-client"


def test_any_refusal_refuses(make_server: MakeServer) -> None:
    """R-14: whatever introspect_own says."""
    server = make_server(with_plugin(NoFiles, {}))
    server.add_user()
    story = Story(server)
    assert_inactive(story.own(story.access))
    assert server.events("request.refused")[-1]["reason"] == "no-files"


@pytest.mark.parametrize("left_out", BOTH_POLICIES)
def test_each_policy_answers_for_its_own_callers(left_out: str, make_server: MakeServer) -> None:
    """M-06, A-18: a line of the INI that goes takes its callers along."""
    listed = [name for name in SETTINGS["authserver.plugins"].split() if name != left_out]
    settings: dict[str, str | None] = {"authserver.plugins": " ".join(listed)}
    if left_out == "introspect_resource_servers":
        settings["authserver.plugin.introspect_resource_servers.clients"] = None
    server = make_server(settings)
    server.add_user()
    story = Story(server)
    assert is_active(story.own(story.access)) == (left_out != "introspect_own")
    assert is_active(story.by_api(story.access)) == (left_out != "introspect_resource_servers")


def test_without_any_policy_there_is_no_introspection(make_server: MakeServer) -> None:
    """A-13, A-18: gone from the address and from the metadata; revocation stays."""
    listed = [name for name in SETTINGS["authserver.plugins"].split() if name not in BOTH_POLICIES]
    server = make_server(
        {
            "authserver.plugins": " ".join(listed),
            "authserver.plugin.introspect_resource_servers.clients": None,
        }
    )
    server.add_user()
    story = Story(server)
    assert story.own(story.access).status_int == 404
    members = server.http.get(METADATA).json
    assert not any(name.startswith("introspection_") for name in members)
    assert "revocation_endpoint" in members
