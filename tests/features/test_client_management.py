"""A client that registered itself reads, changes and ends its registration (RFC 7592)."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from webtest import TestResponse

from authserver.engine.clients import initial_tokens
from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.editing import ClientEdit, ListEdit, edit
from authserver.engine.clients.room import SPARED
from authserver.engine.clients.secrets import rotate_secret
from authserver.engine.crypto.digests import new_credential, well_formed
from authserver.engine.records import Client
from authserver.engine.upkeep_records import Disposable
from authserver.testing.server import ISSUER, REDIRECT_URI, SETTINGS, Server
from authserver.testing.stories import (
    assert_inactive,
    assert_json_error,
    assert_page_error,
    records,
)
from authserver.testing.threads import at_once

TOKEN, ADDRESS = "registration_access_token", "registration_client_uri"
PREFIX = "as_registration_"
INITIAL = "initial-access-token-0123456789abcdefABCDEF"
OFFERED = ("profile", "files.read")
PUBLIC = {
    "client_name": "Notes",
    "redirect_uris": [REDIRECT_URI],
    "grant_types": ["authorization_code", "refresh_token"],
    "token_endpoint_auth_method": "none",
    "scope": "profile",
}
CONFIDENTIAL = {**PUBLIC, "token_endpoint_auth_method": "client_secret_basic"}


def managed(
    plugins: str = "registration_open client_management pushed_requests", **settings: str | None
) -> dict[str, str | None]:
    others = SETTINGS["authserver.plugins"].replace("registration_open", "")
    return {
        "authserver.plugins": f"{others} {plugins}",
        "authserver.plugin.registration_open.scopes": " ".join(OFFERED)
        if "registration_open" in plugins
        else None,
        **settings,
    }


BY_TOKEN = {
    "authserver.plugin.registration_token.tokens": INITIAL,
    "authserver.plugin.registration_token.scopes": " ".join(OFFERED),
}


@dataclass
class Registered:
    """A client that registered itself, as it sees the server: what it was told last."""

    server: Server
    told: Mapping[str, Any]

    @property
    def client_id(self) -> str:
        return str(self.told["client_id"])

    @property
    def token(self) -> str:
        return str(self.told[TOKEN])

    @property
    def secret(self) -> str | None:
        return self.told.get("client_secret")

    @property
    def client(self) -> Client:
        with self.server.application.begin() as engine:
            found = engine.stores.clients.find(self.client_id, engine.now)
        assert found is not None
        return found

    @property
    def metadata(self) -> dict[str, Any]:
        """What it sends to change its registration: all members as it was told them, but those that are not sent."""
        not_sent = (TOKEN, ADDRESS, "client_id_issued_at", "client_secret", "client_secret_expires_at")
        return {name: value for name, value in self.told.items() if name not in not_sent}

    def ask(
        self,
        method: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        token: str | None = "",
        address: str | None = None,
        **headers: str,
    ) -> TestResponse:
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self.token}"
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        if raw is not None:
            headers.setdefault("Content-Type", "application/json")
        return self.server.http.request(
            address or self.told[ADDRESS], method=method, body=raw or b"", headers=headers, expect_errors=True
        )

    def read(self, **more: Any) -> TestResponse:
        return self.ask("GET", **more)

    def update(self, changes: Mapping[str, Any] | None = None, **more: Any) -> TestResponse:
        return self.ask("PUT", {**self.metadata, **(changes or {})}, **more)


def registered(server: Server, metadata: Mapping[str, Any] = PUBLIC, **headers: str) -> Registered:
    answer = server.http.post_json("/oauth/register", dict(metadata), headers=headers)
    assert answer.status_int == 201
    return Registered(server, answer.json)


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for most tests here: each looks at a client of its own."""
    path = shutil.copy(migrated_sqlite_file, tmp_path_factory.mktemp("management") / "authserver.db")
    made = Server(f"sqlite:///{path}", managed())
    made.add_user("ann")
    yield made
    made.close()


@pytest.fixture
def serve(sqlite_url: str) -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def make(*arguments: Any, **settings: Any) -> Server:
        made.append(Server(sqlite_url, managed(*arguments, **settings)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def assert_refused(answer: TestResponse, *, sent: bool = True) -> None:
    """401 with a challenge, the same for every cause."""
    assert_json_error(answer, "invalid_token", status=401)
    assert answer.json["error_description"] == "The registration access token is not valid."
    challenge = f'Bearer realm="{ISSUER}"'
    assert answer.headers["WWW-Authenticate"] == challenge + (', error="invalid_token"' if sent else "")
    assert answer.headers["Cache-Control"] == "no-store"


# ---- What a client gets -----------------------------------------------------------------------------


def test_a_registration_comes_with_token_and_address(server: Server) -> None:
    """K-14, T133: both together; the token has 256 random bits, and only its digest is stored."""
    client = registered(server)
    assert client.told[ADDRESS] == f"{ISSUER}/oauth/register/client?client_id={client.client_id}"
    assert well_formed(PREFIX, client.token)
    assert client.token not in json.dumps(server.rows("clients"), default=str)
    assert client.token not in json.dumps(server.events(), default=str)


def test_without_the_plugin_there_is_neither(serve: Callable[..., Server]) -> None:
    """K-14: both or none; the address does not exist."""
    client = registered(serve("registration_open"))
    assert {TOKEN, ADDRESS} & client.told.keys() == set()
    answer = client.ask("GET", token=new_credential(PREFIX), address=f"{ISSUER}/oauth/register/client")
    assert answer.status_int == 404, answer.text


def test_the_address_is_below_the_path_of_the_issuer(serve: Callable[..., Server]) -> None:
    server = serve(**{"authserver.issuer": f"{ISSUER}/tenant"})
    told = server.http.post_json("/tenant/oauth/register", PUBLIC).json
    assert told[ADDRESS].startswith(f"{ISSUER}/tenant/oauth/register/client?client_id=")
    assert Registered(server, told).read().json["client_id"] == told["client_id"]


# ---- Reading ----------------------------------------------------------------------------------------


def test_a_client_reads_its_registration(server: Server) -> None:
    """K-15: 200 with all metadata in effect, never stored, without the secret, which nobody can read again."""
    client = registered(server, CONFIDENTIAL)
    answer = client.read()
    assert answer.status_int == 200
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    told = dict(client.told)
    del told["client_secret"], told["client_secret_expires_at"]
    assert answer.json == told
    assert client.ask("HEAD").status_int == 200


@pytest.mark.parametrize(
    "token",
    ["x" * 65, new_credential(PREFIX), new_credential("as_access_"), "as_registration_", "ä".encode().hex()],
    ids=["none of ours", "unknown", "another kind", "empty", "not ascii"],
)
def test_a_wrong_token_is_refused(server: Server, token: str) -> None:
    """K-15: 401 with a challenge."""
    assert_refused(registered(server).read(token=token))


def test_a_missing_token_is_refused_also_when_it_is_elsewhere(server: Server) -> None:
    """K-15: a token in the address or the body does not count; the challenge then names no error (RFC 6750, 3.1)."""
    client = registered(server)
    assert_refused(client.read(token=None), sent=False)
    for name in ("access_token", TOKEN):
        address = f"{client.told[ADDRESS]}&{name}={client.token}"
        assert_refused(client.read(token=None, address=address), sent=False)
    assert_refused(client.ask("PUT", {**client.metadata, TOKEN: client.token}, token=None), sent=False)
    assert_refused(client.read(token=None, Authorization=f"Basic {client.token}"), sent=False)


def test_a_token_works_for_its_own_client_only(server: Server) -> None:
    """K-15, T133: and the answers do not tell which client ids exist (RFC 7592, 2.1)."""
    client, other = registered(server), registered(server)
    operators, _ = server.add_client()
    here = f"{ISSUER}/oauth/register/client"
    for address in (
        str(other.told[ADDRESS]),
        f"{here}?client_id={operators.client_id}",
        f"{here}?client_id=client_AAAAAAAAAAAAAAAAAAAAAA",
        f"{here}?client_id={'a' * 5000}",
        f"{here}?client_id=",
        here,
    ):
        for method in ("GET", "DELETE"):
            assert_refused(client.ask(method, address=address))
        assert_refused(client.ask("PUT", other.metadata, address=address))
    assert other.read().status_int == 200


def test_after_a_client_was_deleted_its_token_is_refused(server: Server) -> None:
    """K-16: by clean-up or by an operator; the token ended with it."""
    gone, disabled = registered(server), registered(server)
    with server.application.begin() as engine:
        assert disable_client(engine, disabled.client_id)
        engine.stores.upkeep.remove(Disposable.CLIENTS, engine.now + timedelta(days=1), limit=1000)
    assert_refused(gone.read())
    assert_refused(gone.update())
    assert_refused(gone.ask("DELETE"))
    assert_refused(disabled.read())


# ---- Changing ---------------------------------------------------------------------------------------


def test_a_change_replaces_the_whole_registration(server: Server) -> None:
    """K-17: what is left out has its default again."""
    client = registered(
        server,
        {
            **CONFIDENTIAL,
            "client_uri": "https://client.example/",
            "software_id": "notes",
            "contacts": ["a@b.example"],
        },
    )
    uri = "https://client.example/other"
    answer = client.ask("PUT", {"client_id": client.client_id, "redirect_uris": [uri]})
    assert answer.status_int == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert {name: value for name, value in answer.json.items() if name != TOKEN} == {
        "client_id": client.client_id,
        "client_id_issued_at": client.told["client_id_issued_at"],
        "client_name": client.client_id,
        "redirect_uris": [uri],
        "token_endpoint_auth_method": "client_secret_basic",
        "grant_types": ["authorization_code"],
        "response_types": ["code"],
        "scope": " ".join(OFFERED),
        "application_type": "web",
        ADDRESS: client.told[ADDRESS],
    }
    assert Registered(server, answer.json).read().json == answer.json
    assert client.client.redirect_uris == (uri,)
    (event,) = [event for event in server.events("client.changed") if event["client_id"] == client.client_id]
    assert event["actor"] == f"client:{client.client_id}"
    assert json.loads(event["details"])["changed"]["redirect_uris"] == {"from": [REDIRECT_URI], "to": [uri]}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_id": None}, "invalid_client_metadata"),
        ({"client_id": "client_AAAAAAAAAAAAAAAAAAAAAA"}, "invalid_client_metadata"),
        ({"client_id": 7}, "invalid_client_metadata"),
        ({"client_secret": "as_secret_wrong"}, "invalid_client_metadata"),
        ({"client_secret": {"a": 1}}, "invalid_client_metadata"),
        ({TOKEN: "mine"}, "invalid_client_metadata"),
        ({ADDRESS: "https://evil.example/"}, "invalid_client_metadata"),
        ({"client_secret_expires_at": 0}, "invalid_client_metadata"),
        ({"client_id_issued_at": 1}, "invalid_client_metadata"),
        ({"redirect_uris": ["http://client.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://client.example/cb#fragment"]}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://client.example/cb"}, "invalid_redirect_uri"),
        ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "tls_client_auth"}, "invalid_client_metadata"),
        ({"client_name": "\u202eevil"}, "invalid_client_metadata"),
        ({"logo_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
    ],
)
def test_what_cannot_be_registered_cannot_be_changed_to(
    server: Server, changes: Mapping[str, Any], error: str
) -> None:
    """K-18, K-19, K-20: as strictly as at registration; nothing is written, and the token works as before."""
    client = registered(server, CONFIDENTIAL)
    before = records(server)
    assert_json_error(client.update(changes), error)
    assert records(server) == before
    assert client.read().status_int == 200


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'"client_id"', b'{"client_id": "a", "client_id": "b"}', b"\xff", b"[" * 99]
)
def test_a_change_that_is_no_object_is_refused(server: Server, body: bytes) -> None:
    """K-20, T062"""
    client = registered(server)
    assert_json_error(
        client.ask("PUT", body, **{"Content-Type": "application/json"}), "invalid_client_metadata"
    )
    assert_json_error(client.ask("PUT", body, **{"Content-Type": "text/plain"}), "invalid_request")


def test_the_secret_may_be_sent_if_it_is_the_present_one(server: Server) -> None:
    """K-18: any of the live ones, not one that ended."""
    client = registered(server, CONFIDENTIAL)
    answer = client.update({"client_secret": client.secret})
    assert answer.status_int == 200
    assert "client_secret" not in answer.json
    with server.application.begin() as engine:
        fresh = rotate_secret(engine, client.client_id, timedelta(0))
    again = Registered(server, answer.json)
    assert_json_error(again.update({"client_secret": client.secret}), "invalid_client_metadata")
    assert again.update({"client_secret": fresh}).status_int == 200


def test_a_public_client_has_no_secret_to_send(server: Server) -> None:
    """K-18"""
    client = registered(server)
    assert_json_error(
        client.update({"client_secret": new_credential("as_secret_")}), "invalid_client_metadata"
    )


def test_a_client_gains_nothing_that_registration_would_not_give(server: Server) -> None:
    """K-20, T132: scopes and grant types beyond the policy, and what only operators give, are left out."""
    client = registered(server)
    wanted = {
        "scope": "profile files.read files.write admin",
        "grant_types": ["authorization_code", "refresh_token", "client_credentials"],
        "first_party": True,
        "resources": ["https://api.example.com/"],
        "registered_by": "operator",
        "private_details": {"edited": False},
        "rotates_refresh_tokens": False,
    }
    answer = client.update(wanted)
    assert answer.status_int == 200
    assert answer.json["scope"] == " ".join(OFFERED)
    assert answer.json["grant_types"] == ["authorization_code", "refresh_token"]
    kept = client.client
    assert (kept.first_party, kept.resources, kept.is_self_registered) == (False, (), True)
    assert kept.rotates_refresh_tokens
    assert not kept.is_edited


def test_a_policy_that_became_stricter_counts(server: Server, serve: Callable[..., Server]) -> None:
    """K-20: a change is judged by what registration gives now."""
    client = registered(serve(), {**PUBLIC, "scope": "profile files.read"})
    stricter = serve(**{"authserver.plugin.registration_open.scopes": "profile"})
    assert Registered(stricter, client.told).update().json["scope"] == "profile"


def test_strict_registration_refuses_what_would_be_left_out(serve: Callable[..., Server]) -> None:
    """K-20"""
    client = registered(serve(**{"authserver.strict_registration": "true"}))
    assert_json_error(client.update({"scope": "profile admin"}), "invalid_client_metadata")


def test_a_client_that_registered_with_a_token_changes_itself_within_that_policy(
    serve: Callable[..., Server],
) -> None:
    """K-20: the initial access token is not at hand; the client is neither locked out nor comes to more."""
    server = serve("registration_token client_management", **BY_TOKEN)
    client = registered(server, Authorization=f"Bearer {INITIAL}")
    answer = client.update({"scope": "profile files.read files.write", "client_name": "Other"})
    assert answer.status_int == 200
    assert answer.json["scope"] == " ".join(OFFERED)


def test_a_client_that_could_not_register_now_may_not_change_itself(serve: Callable[..., Server]) -> None:
    """K-16: 403 (RFC 7592, 2.1); it may still read and end its registration."""
    client = registered(serve())
    for policies, settings in (("registration_token client_management", BY_TOKEN), ("client_management", {})):
        now = Registered(serve(policies, **settings), client.told)
        assert_json_error(now.update(), "access_denied", status=403)
        assert now.read().status_int == 200
    assert now.ask("DELETE").status_int == 204


def by_policy(serve: Callable[..., Server], policy: str) -> Server:
    settings = {**BY_TOKEN, "authserver.plugin.registration_token.policies": policy}
    return serve("registration_token client_management", **settings)


def registered_by_policy(server: Server) -> Registered:
    with server.application.begin() as engine:
        end = engine.now + timedelta(hours=1)
        _, token = initial_tokens.make(engine, policy="partners", uses=None, expires_at=end, note="")
    return registered(server, Authorization=f"Bearer {token}")


def test_a_policy_judges_a_change_as_it_judged_the_registration(serve: Callable[..., Server]) -> None:
    """K-20: its hosts count, a policy that is full keeps no client from changing, and one that is gone keeps each."""
    first = "partners = redirect_hosts client.example, clients 1"
    client = registered_by_policy(by_policy(serve, first))
    elsewhere = {"redirect_uris": ["https://evil.example/cb"]}
    assert_json_error(client.update(elsewhere), "invalid_client_metadata")
    for policy in (first, "partners = redirect_hosts client.example, clients 0"):
        now = Registered(by_policy(serve, policy), client.told)
        client = Registered(now.server, now.update({"client_name": "Other"}).json)
        assert client.told["client_name"] == "Other"
    now = Registered(by_policy(serve, "others = clients 1"), client.told)
    assert_json_error(now.update(), "access_denied", status=403)


def test_a_client_that_ended_its_registration_makes_room_in_its_policy(serve: Callable[..., Server]) -> None:
    """K-21: used or not."""
    server = by_policy(serve, "partners = clients 1")
    server.add_user("ann")
    used = registered_by_policy(server)
    server.code(used.client)
    assert used.ask("DELETE").status_int == 204
    unused = registered_by_policy(server)
    assert unused.ask("DELETE").status_int == 204
    registered_by_policy(server)


def test_what_an_operator_changed_a_client_does_not_undo(server: Server) -> None:
    """K-16, K-20: 403 for a change; it reads how it is now, with the token that it has."""
    client = registered(server, {**PUBLIC, "scope": "profile files.read"})
    with server.application.begin() as engine:
        edit(engine, client.client_id, ClientEdit(scopes=ListEdit(removed=("files.read",))))
    answer = client.update()
    assert_json_error(answer, "access_denied", status=403)
    assert "operator" in answer.json["error_description"]
    assert client.read().json["scope"] == "profile"
    assert client.ask("DELETE").status_int == 204


def test_a_change_of_the_authentication_method_changes_the_secrets(server: Server) -> None:
    """K-17: a client that needs a secret now gets one; one that needs none any more has none, and no grants."""
    client = registered(server)
    answer = client.update({"token_endpoint_auth_method": "client_secret_post"})
    assert answer.json["client_secret_expires_at"] == 0
    confidential = Registered(server, answer.json)
    code = server.code(confidential.client)
    assert (
        server.token(confidential.client, confidential.secret, grant_type="client_credentials").status_int
        == 400
    )
    tokens = server.redeem(confidential.client, confidential.secret, code).json
    answer = confidential.update({"token_endpoint_auth_method": "none"})
    assert "client_secret" not in answer.json
    public = Registered(server, answer.json)
    assert_json_error(server.refresh(public.client, None, tokens["refresh_token"]), "invalid_grant")
    assert server.token(public.client, confidential.secret, grant_type="refresh_token").status_int == 401


def test_what_is_taken_away_counts_from_the_next_request_on(server: Server) -> None:
    """K-17, T041: a code for a redirect URI that was removed is refused, and a removed scope is not renewed."""
    client = registered(server, {**PUBLIC, "scope": " ".join(OFFERED)})
    tokens = server.redeem(client.client, None, server.code(client.client, scope=" ".join(OFFERED))).json
    code = server.code(client.client, scope="profile")
    answer = client.update({"redirect_uris": ["https://client.example/other"], "scope": "profile"})
    assert answer.status_int == 200
    assert_json_error(server.redeem(client.client, None, code), "invalid_grant")
    assert server.refresh(client.client, None, tokens["refresh_token"]).json["scope"] == "profile"


# ---- The token changes ------------------------------------------------------------------------------


def test_a_change_gives_a_new_token_and_the_old_one_ends_when_it_is_used(server: Server) -> None:
    """K-22, T133: so a client that never received the answer is not locked out."""
    client = registered(server)
    lost = Registered(server, client.update().json)
    assert lost.token != client.token
    # The answer was lost: the client tries again with the only token that it has.
    found = Registered(server, client.update().json)
    assert_refused(lost.read())
    assert client.read().json[TOKEN] == client.token
    assert found.read().json[TOKEN] == found.token
    assert_refused(client.read())
    assert_refused(client.update())
    newest = Registered(server, found.update().json)
    assert newest.ask("DELETE").status_int == 204
    assert_refused(found.read())


def test_a_refused_change_leaves_both_tokens(server: Server) -> None:
    """K-22: the new one counts as used only with what it did."""
    client = registered(server)
    after = Registered(server, client.update().json)
    assert_json_error(after.update({"redirect_uris": []}), "invalid_redirect_uri")
    assert client.read().status_int == 200
    assert after.read().status_int == 200


def test_a_new_token_that_changes_the_registration_again(server: Server) -> None:
    """K-22: the new one is then the old one."""
    client = registered(server)
    second = Registered(server, client.update().json)
    third = Registered(server, second.update().json)
    assert_refused(client.read())
    assert second.read().status_int == 200
    assert third.read().status_int == 200
    assert_refused(second.read())


def test_requests_with_a_new_token_at_the_same_time_are_all_answered(database_url: str) -> None:
    """K-22: one of them ends the token before it, and the others find that done."""
    server = Server(database_url, managed())
    try:
        client = Registered(server, registered(server).update().json)
        assert Counter(at_once(6, lambda _: client.read().status_int)) == {200: 6}
    finally:
        server.close()


def test_a_token_may_stay(serve: Callable[..., Server]) -> None:
    """K-22: rotation is a setting."""
    client = registered(serve(**{"authserver.plugin.client_management.rotate": "false"}))
    assert client.update().json[TOKEN] == client.token
    assert client.read().status_int == 200


def test_the_token_is_in_no_log_and_no_record(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """T133, T145, R-04: in its whole life, on each database."""
    caplog.set_level("DEBUG")
    server = Server(database_url, managed())
    try:
        first = registered(server)
        second = Registered(server, first.update({"client_name": "Other"}).json)
        assert second.read().json["client_name"] == "Other"
        assert_refused(first.read())
        assert_json_error(second.update({"redirect_uris": []}), "invalid_redirect_uri")
        assert second.ask("DELETE").status_int == 204
        assert_refused(second.read())
        everything = json.dumps([records(server), server.events()], default=str) + caplog.text
    finally:
        server.close()
    for each in (first, second):
        assert each.client_id in everything
        assert each.token[:40] not in everything


def test_too_many_attempts_are_refused_for_a_while(serve: Callable[..., Server]) -> None:
    """J-08: wrong tokens by client and source, and changes by client; the right token still reads."""
    server = serve(
        "registration_open client_management rate_limits",
        **{
            "authserver.plugin.rate_limits.limits": (
                "wrong = failed_client_authentication, client+source, 2, minute\n"
                "changes = registration_change, client, 2, minute"
            )
        },
    )
    client, other = registered(server), registered(server)
    answers = [client.read(token=new_credential(PREFIX)).status_int for _ in range(4)]
    assert answers == [401, 401, 429, 429]
    assert client.read().status_int == 200
    answers = [client.update({"redirect_uris": []}).status_int for _ in range(4)]
    assert answers == [400, 400, 429, 429]
    refused = client.ask("DELETE")
    assert (refused.status_int, "Retry-After" in refused.headers) == (429, True)
    assert other.update().status_int == 200
    refused = client.read(token=new_credential(PREFIX), Origin="https://inspector.example")
    assert (refused.status_int, refused.headers["Access-Control-Allow-Origin"]) == (429, "*")
    assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"]


def test_the_event_of_a_change_is_bounded(server: Server) -> None:
    """T131: any stranger can register, and change what it registered again and again."""
    client = registered(server)
    links = {f"{name}_uri": f"https://client.example/{'a' * 900}" for name in ("client", "tos", "policy")}
    uris = [f"https://client.example/{number}/{'a' * 900}" for number in range(10)]
    answer = client.update({**links, "redirect_uris": uris})
    assert answer.status_int == 200
    (event,) = [event for event in server.events("client.changed") if event["client_id"] == client.client_id]
    assert len(event["details"]) + len(event["decisions"]) <= 4_100
    assert json.loads(event["details"])["cut"]


# ---- Clients that were never used -------------------------------------------------------------------


def test_a_program_that_manages_its_registration_keeps_it_when_an_equal_one_comes(
    serve: Callable[..., Server],
) -> None:
    """K-27: somebody else in the same network has the same program; but nobody holds room that way."""
    server = serve(**{"authserver.unused_clients_per_source": "3"})
    with time_machine.travel(datetime(2026, 6, 1, tzinfo=UTC), tick=False) as clock:
        read, changed, neither = (registered(server) for _ in range(3))
        assert read.read().status_int == 200
        changed = Registered(server, changed.update().json)
        clock.shift(SPARED)
        registered(server)
        assert_refused(neither.read())
        assert read.read().status_int == 200
        assert changed.read().status_int == 200
        for _ in range(2):
            registered(server, {**PUBLIC, "client_name": "Another"})
        assert_refused(read.read())
        assert_refused(changed.read())


def test_a_client_that_was_never_used_leaves_nothing_when_it_ends_its_registration(
    serve: Callable[..., Server],
) -> None:
    """K-21: it makes room for others at once."""
    server = serve(**{"authserver.unused_clients_per_source": "2"})
    for _ in range(4):
        client = registered(server, CONFIDENTIAL)
        assert client.ask("DELETE").status_int == 204
        assert_refused(client.read())
    assert server.rows("clients") == []
    assert server.rows("client_secrets") == []
    ended = [event for event in server.events("client.disabled") if event["client_id"] == client.client_id]
    assert [event["reason"] for event in ended] == ["client-removed-itself"]


# ---- The end ----------------------------------------------------------------------------------------


def test_after_a_client_ended_its_registration_nothing_of_it_works(server: Server) -> None:
    """K-21, T133: tokens, codes, consents, secret and the token itself stop at once; programs register again."""
    client = registered(server, CONFIDENTIAL)
    known, secret = client.client, client.secret
    reader, reader_secret = server.add_client()
    code = server.code(known)
    tokens = server.redeem(known, secret, server.code(known)).json
    with server.application.begin() as engine:
        assert engine.stores.consents.list(client_id=client.client_id)
    answer = client.ask("DELETE")
    assert (answer.status_int, answer.body) == (204, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    assert_json_error(server.redeem(known, secret, code), "invalid_client", status=401)
    assert_json_error(server.refresh(known, secret, tokens["refresh_token"]), "invalid_client", status=401)
    assert_json_error(server.introspect(known, secret, tokens["access_token"]), "invalid_client", status=401)
    assert_inactive(server.introspect(reader, reader_secret, tokens["access_token"]))
    assert_refused(client.read())
    assert_refused(client.ask("DELETE"))
    with server.application.begin() as engine:
        assert not engine.stores.consents.list(client_id=client.client_id)
        assert not engine.stores.grants.list(engine.now, client_id=client.client_id)
        gone = engine.stores.clients.find(client.client_id, engine.now)
        assert gone is not None
        assert not gone.is_enabled
        assert gone.secrets == ()
    ended = [event for event in server.events() if event["reason"] == "client-removed-itself"]
    mine = [event["type"] for event in ended if event["client_id"] == client.client_id]
    assert mine == ["client.disabled", "grants.revoked"]
    actors = {event["actor"] for event in ended if event["client_id"] == client.client_id}
    assert actors == {f"client:{client.client_id}"}


@pytest.mark.parametrize("metadata", [PUBLIC, CONFIDENTIAL], ids=["public", "confidential"])
@pytest.mark.parametrize("end", ["disabled", "deleted"])
def test_programs_whose_client_is_gone_are_told_to_register_again(
    server: Server, metadata: Mapping[str, Any], end: str
) -> None:
    """J-07, K-16, K-21: `invalid_client` with 401 wherever clients authenticate; people are told on a page."""
    registration = registered(server, metadata)
    client, secret = registration.client, registration.secret
    with server.application.begin() as engine:
        if end == "disabled":
            assert disable_client(engine, client.client_id)
        else:
            engine.stores.upkeep.remove(Disposable.CLIENTS, engine.now + timedelta(days=1), limit=1000)
    pushed = parse_qs(urlsplit(server.authorization_url(client)).query)
    for answer in (
        server.redeem(client, secret, new_credential("as_code_")),
        server.refresh(client, secret, new_credential("as_refresh_")),
        server.revoke(client, secret, new_credential("as_refresh_")),
        server.introspect(client, secret, new_credential("as_access_")),
        server.ask("/oauth/par", client, secret, **{name: value[0] for name, value in pushed.items()}),
    ):
        assert_json_error(answer, "invalid_client", status=401)
    page = server.browser().get(server.authorization_url(client), expect_errors=True)
    assert_page_error(page, supplied=REDIRECT_URI)
    assert "remove the connection to this server in the application, and add it again" in page.text


@pytest.mark.parametrize("method", ["POST", "PATCH", "TRACE"])
def test_another_method_is_not_allowed(server: Server, method: str) -> None:
    """K-21: 405 with those that are."""
    answer = registered(server).ask(method)
    assert answer.status_int == 405
    assert set(re.split(", ?", answer.headers["Allow"])) == {"GET", "PUT", "DELETE"}


def test_programs_in_browsers_may_manage_their_clients(server: Server) -> None:
    """Q-01 to Q-04: as they may register; without cookies, errors too."""
    client = registered(server)
    origin = "https://inspector.example"
    preflight = client.ask("OPTIONS", token=None, Origin=origin)
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, PUT, DELETE"
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    for answer in (client.read(Origin=origin), client.read(token="wrong", Origin=origin)):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
    assert client.ask("DELETE", Origin=origin).headers["Access-Control-Allow-Origin"] == "*"
