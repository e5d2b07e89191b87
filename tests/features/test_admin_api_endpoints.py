"""Each operation of the admin API: what it does, what it leaves in the events, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from authserver.api import identity_handle
from authserver.engine.count_records import Gauge
from authserver.engine.counting import Counting
from authserver.engine.people.password_links import use_link
from authserver.engine.records import ClientState, EventType
from authserver.event_readers import Reading
from authserver.features.admin_api import ends
from authserver.features.admin_api.collected import ENTRIES, SCOPES
from authserver.features.admin_api.entries import write_id
from authserver.settings import Secret
from authserver.testing.records import a_grant, an_identity
from authserver.testing.server import ISSUER, PASSWORD, REDIRECT_URI, RESOURCE, Server
from tests.features.admin_api_steps import (
    API,
    Administrator,
    administrator,
    assert_problem,
    events,
    settings,
)

FILES = "https://files.example/"


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    server = Server(sqlite_url, settings())
    yield server
    server.close()


@pytest.fixture
def admin(server: Server) -> Administrator:
    return administrator(server)


@pytest.fixture
def granted(server: Server) -> dict[str, Any]:
    """What user `ann` agreed to for a client, as it is stored."""
    server.add_user("ann")
    client, secret = server.add_client(client_name="Notes")
    answer = server.redeem(client, secret, server.code(client, scope="profile")).json
    (row,) = [row for row in server.rows("grants") if row["client_id"] == client.client_id]
    return {**row, "client": client, "secret": secret, **answer}


# ---- Clients ----------------------------------------------------------------------------------------------


def test_a_client_is_added_with_the_defaults_of_the_command(admin: Administrator) -> None:
    made = admin.post(
        "/clients", {"client_name": "Notes", "redirect_uris": [REDIRECT_URI], "scope": "profile"}
    )
    assert made["grant_types"] == ["authorization_code", "refresh_token"]
    assert made["response_types"] == ["code"] and made["application_type"] == "web"
    assert made["state"] == ClientState.NEW and made["registered_by"] == "operator"
    assert made["client_secret"].startswith("as_secret_")
    (secret,) = made["secrets"]
    assert set(secret) == {"secret", "created_at", "last_used_at", "ends_at"}
    service = admin.post("/clients", {"client_name": "Service", "scope": "profile"})
    assert service["grant_types"] == ["client_credentials"]
    bare = admin.post(
        "/clients",
        {
            "client_name": "Phone",
            "client_id": "phone",
            "redirect_uris": ["com.example.phone:/cb"],
            "scope": "profile",
            "token_endpoint_auth_method": "none",
            "first_party": True,
            "client_uri": "https://phone.example/",
        },
    )
    assert "client_secret" not in bare and bare["application_type"] == "native"
    assert (bare["client_id"], bare["first_party"], bare["client_uri"]) == (
        "phone",
        True,
        "https://phone.example/",
    )


def test_the_secret_of_a_new_client_works(admin: Administrator) -> None:
    made = admin.post("/clients", {"client_name": "Service", "scope": "profile"})
    with admin.server.begin() as engine:
        client = engine.find_kept_client(made["client_id"])
    assert client is not None
    answer = admin.server.token(
        client, made["client_secret"], grant_type="client_credentials", scope="profile"
    )
    assert answer.status_int == 200


@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ({}, "#/client_name"),
        ({"client_name": ""}, "#/client_name"),
        ({"client_name": 7}, "#/client_name"),
        ({"client_name": "x" * 101}, "#/client_name"),
        ({"client_name": "x", "redirect_uris": "https://a.example/"}, "#/redirect_uris"),
        (
            {"client_name": "x", "redirect_uris": ["https://*.example/"], "scope": "profile"},
            "#/redirect_uris",
        ),
        ({"client_name": "x", "grant_types": ["password"]}, "#/grant_types"),
        ({"client_name": "x", "scope": "profil"}, "#/scope"),
        ({"client_name": "x", "scope": ["profile"]}, "#/scope"),
        ({"client_name": "x", "token_endpoint_auth_method": "tls"}, "#/token_endpoint_auth_method"),
        ({"client_name": "x", "application_type": "desktop"}, "#/application_type"),
        ({"client_name": "x", "first_party": "yes"}, "#/first_party"),
        ({"client_name": "x", "client_uri": "javascript:alert(1)"}, "#/client_uri"),
        ({"client_name": "x", "dpop_bound_access_tokens": "yes"}, "#/dpop_bound_access_tokens"),
        ({"client_name": "x", "client_secret": "mine"}, "#/client_secret"),
        ({"client_name": "x", "client_id": "user_x"}, "#/client_id"),
        ({"client_name": "x", "client_id": ["x"]}, "#/client_id"),
        ({"client_name": "x", "a/b~c": 1}, "#/a~1b~0c"),
    ],
)
def test_a_member_that_cannot_be_used_is_pointed_to(
    admin: Administrator, sent: dict[str, Any], pointer: str
) -> None:
    """ADM-06, ADM-10."""
    answer = admin.ask("POST", "/clients", sent)
    body = assert_problem(answer, 422, "invalid-members")
    assert pointer in [error["pointer"] for error in body["errors"]]


def test_a_client_id_that_is_taken_is_a_conflict(admin: Administrator) -> None:
    admin.post("/clients", {"client_name": "x", "client_id": "one"})
    answer = admin.ask("POST", "/clients", {"client_name": "y", "client_id": "one"})
    assert_problem(answer, 409, "conflict")


def test_a_client_is_changed_by_a_merge_patch(admin: Administrator) -> None:
    """ADM-10, ADM-11: RFC 7396: what is not sent stays, and null takes away."""
    made = admin.post(
        "/clients",
        {
            "client_name": "Notes",
            "redirect_uris": [REDIRECT_URI],
            "scope": "profile files.read",
            "client_uri": "https://notes.example/",
            "dpop_bound_access_tokens": True,
        },
    )
    path = f"/clients/{made['client_id']}"
    changed = admin.patch(
        path, {"client_name": "Papers", "client_uri": None, "scope": "profile"}, if_match=admin.etag(path)
    )
    assert changed["changed"]["client_name"] == {"from": "Notes", "to": "Papers"}
    assert changed["redirect_uris"] == [REDIRECT_URI] and changed["asks_again"] is True
    shown = admin.get(path)
    assert "client_uri" not in shown and shown["scope"] == "profile"
    assert shown["dpop_bound_access_tokens"] is True
    admin.patch(path, {"dpop_bound_access_tokens": None})
    assert "dpop_bound_access_tokens" not in admin.get(path)
    (event, _) = events(admin.server, "client.changed")
    assert event["actor"] == f"client:{admin.client.client_id}" and event["client_id"] == made["client_id"]
    assert event["details"]["changed"]["client_name"] == {"from": "Notes", "to": "Papers"}


def test_a_list_is_emptied(admin: Administrator) -> None:
    made = admin.post("/clients", {"client_name": "x", "redirect_uris": [REDIRECT_URI], "scope": "profile"})
    path = f"/clients/{made['client_id']}"
    changed = admin.patch(path, {"redirect_uris": [], "grant_types": ["client_credentials"]})
    assert changed["redirect_uris"] == [] and changed["grant_types"] == ["client_credentials"]
    assert_problem(admin.ask("PATCH", path, {"grant_types": None}, If_Match="*"), 422, "invalid-members")


def test_a_change_of_nothing_leaves_no_event(admin: Administrator) -> None:
    made = admin.post("/clients", {"client_name": "x"})
    assert admin.patch(f"/clients/{made['client_id']}", {"client_name": "x"})["changed"] == {}
    assert events(admin.server, "client.changed") == []


def test_a_client_is_disabled_for_good(admin: Administrator) -> None:
    made = admin.post("/clients", {"client_name": "x"})
    path = f"/clients/{made['client_id']}"
    assert admin.post(f"{path}/disable", status=200)["state"] == "gone"
    assert_problem(admin.ask("POST", f"{path}/disable"), 409, "conflict")
    assert_problem(admin.ask("PATCH", path, {"client_name": "y"}, If_Match="*"), 409, "conflict")
    (event,) = events(admin.server, "client.disabled")
    assert event["actor"] == f"client:{admin.client.client_id}"


def test_what_a_disabled_client_may_do_ends_with_it(admin: Administrator, granted: dict[str, Any]) -> None:
    """L-08."""
    ended = admin.post(f"/clients/{granted['client_id']}/disable", status=200)["ended"]
    assert (ended["grants"], ended["consents"], ended["refresh_tokens"]) == (1, 1, 1)
    # It was issued just now, and cannot be revoked.
    assert (ended["jwts"], ended["jwts_until"] is None) == (1, False)
    assert admin.get(f"/grants/{granted['grant_id']}")["revoked_reason"] == "client-disabled"


def test_what_a_disabled_person_had_ends_with_them(admin: Administrator, granted: dict[str, Any]) -> None:
    """L-08."""
    ended = admin.post(f"/users/{granted['user_id']}/disable", status=200)
    assert ended["disabled_at"] is not None
    told = ended["ended"]
    assert (told["sessions"], told["grants"], told["consents"]) == (1, 1, 1)
    assert admin.get("/grants?user=ann")["items"] == []


def test_what_is_too_much_for_one_request_ends_in_the_next_one(
    admin: Administrator, granted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-08: The client is disabled by the first request; only what is left of its grants takes more of them."""
    monkeypatch.setattr(ends, "MAXIMUM_SECONDS", 0)
    path = f"/clients/{granted['client_id']}/disable"
    first = admin.post(path, status=200)
    assert (first["state"], first["ended"]["grants"], first["ended"]["has_more"]) == ("gone", 0, True)
    monkeypatch.setattr(ends, "MAXIMUM_SECONDS", 9)
    second = admin.post(path, status=200)["ended"]
    assert (second["grants"], second["consents"], second["has_more"]) == (1, 1, False)
    assert_problem(admin.ask("POST", path), 409, "conflict")


def test_secrets_are_added_with_an_overlap_and_ended(admin: Administrator) -> None:
    made = admin.post("/clients", {"client_name": "x"})
    path = f"/clients/{made['client_id']}/secrets"
    second = admin.post(path, {"overlap": 60})
    first, new = second["secrets"]
    assert first["ends_at"] is not None and new["ends_at"] is None
    assert second["client_secret"] != made["client_secret"]
    assert_problem(admin.ask("POST", path, {}), 409, "conflict")
    admin.ask("DELETE", f"{path}/{first['secret']}", status=204)
    assert [secret["secret"] for secret in admin.get(path)["items"]] == [new["secret"]]
    assert_problem(admin.ask("DELETE", f"{path}/{new['secret']}"), 409, "conflict")
    assert_problem(admin.ask("DELETE", f"{path}/{first['secret']}"), 404, "not-found")
    admin.ask("DELETE", f"{path}/{new['secret']}?last=true", status=204)
    assert_problem(admin.ask("POST", path, {"overlap": -1}), 422, "invalid-members")


def test_a_client_without_secrets_has_none_to_list(admin: Administrator) -> None:
    public, _ = admin.server.add_client(token_endpoint_auth_method="none")
    assert_problem(admin.ask("GET", f"/clients/{public.client_id}/secrets"), 409, "conflict")


def test_clients_are_searched_for_by_name_id_and_state(admin: Administrator) -> None:
    for name in ("Alpha", "Beta", "Gamma"):
        admin.post("/clients", {"client_name": name, "client_id": f"id-{name.lower()}"})
    assert [each["client_name"] for each in admin.get("/clients?search=BET")["items"]] == ["Beta"]
    assert [each["client_name"] for each in admin.get("/clients?search=id-g")["items"]] == ["Gamma"]
    admin.post("/clients/id-beta/disable", status=200)
    assert [each["client_id"] for each in admin.get("/clients?state=gone")["items"]] == ["id-beta"]
    assert len(admin.get("/clients?state=gone&state=new")["items"]) == 3
    assert_problem(admin.ask("GET", "/clients?state=dead"), 400, "invalid-parameter")


def test_a_client_id_that_is_no_plain_text_is_written_in_base64(admin: Administrator) -> None:
    """A slash in a path would be taken apart by whoever decodes it."""
    made = admin.ask("POST", "/clients", {"client_name": "x", "client_id": "a/b?c"}, status=201)
    assert made.headers["Location"] == f"{API}/clients/~YS9iP2M"
    assert admin.get("/clients/~YS9iP2M")["client_id"] == "a/b?c"
    assert_problem(admin.ask("GET", f"/clients/{quote('a/b?c', safe='')}"), 404, "not-found")


# ---- What nobody may give: more than they have ------------------------------------------------------------


def test_nobody_gives_a_client_more_rights_than_their_own_token_has(server: Server) -> None:
    """ADM-05: Or whoever may write clients could do everything."""
    admin, writer = administrator(server), administrator(server, "authserver:clients:write")
    mighty = admin.post("/clients", {"client_name": "Mighty", "scope": "authserver:keys:write"})
    path = f"/clients/{mighty['client_id']}"
    for answer in (
        writer.ask("POST", "/clients", {"client_name": "x", "scope": "authserver:keys:write"}),
        writer.ask("PATCH", path, {"redirect_uris": [REDIRECT_URI]}, If_Match="*"),
        writer.ask("POST", f"{path}/secrets", {}),
    ):
        body = assert_problem(answer, 403, "beyond-own-scopes")
        assert "authserver:keys:write" in body["detail"]
    plain = writer.post("/clients", {"client_name": "x", "scope": "profile authserver:clients:write"})
    answer = writer.ask(
        "PATCH", f"/clients/{plain['client_id']}", {"scope": "authserver:keys:write"}, If_Match="*"
    )
    assert_problem(answer, 403, "beyond-own-scopes")


def test_nobody_makes_an_administrator_without_all_rights(server: Server) -> None:
    """ADM-05."""
    admin, writer = administrator(server), administrator(server, "authserver:users:write")
    body = {"username": "eve", "groups": ["operators"]}
    assert_problem(writer.ask("POST", "/users", body), 403, "beyond-own-scopes")
    eve = writer.post("/users", {"username": "eve", "groups": ["staff"]})
    path = f"/users/{eve['user_id']}"
    answer = writer.ask("PATCH", path, {"groups": ["operators"]}, If_Match="*")
    assert_problem(answer, 403, "beyond-own-scopes")
    assert admin.patch(path, {"groups": ["operators"]})["groups"] == ["operators"]
    answer = writer.ask("PATCH", path, {"groups": []}, If_Match="*")
    assert_problem(answer, 403, "beyond-own-scopes")
    assert writer.patch(path, {"display_name": "Eve"})["display_name"] == "Eve"


# ---- People -----------------------------------------------------------------------------------------------


def test_a_person_is_added_changed_disabled_and_enabled_again(admin: Administrator) -> None:
    made = admin.ask(
        "POST",
        "/users",
        {"username": "Zoë", "display_name": "Zoë", "groups": ["b", "a"], "attributes": {"team": ["x"]}},
        status=201,
    )
    path = f"/users/{made.json['user_id']}"
    assert made.headers["Location"] == API + path
    assert made.json["groups"] == ["a", "b"]
    changed = admin.patch(
        path,
        {"groups": ["c"], "attributes": {"team": None, "floor": ["2", "3"]}},
        if_match=admin.etag(path),
    )
    assert changed["attributes"] == {"floor": ["2", "3"]} and changed["display_name"] == "Zoë"
    assert admin.patch(path, {"display_name": None, "attributes": None})["attributes"] == {}
    assert admin.post(f"{path}/disable", status=200)["disabled_at"] is not None
    assert_problem(admin.ask("POST", f"{path}/disable"), 409, "conflict")
    assert admin.post(f"{path}/enable", status=200)["disabled_at"] is None
    assert_problem(admin.ask("POST", f"{path}/enable"), 409, "conflict")
    actors = {row["actor"] for row in admin.server.rows("events") if row["user_id"] == made.json["user_id"]}
    assert actors == {f"client:{admin.client.client_id}"}
    assert [event["type"] for event in admin.server.rows("events") if event["user_id"]][:3] == [
        "user.added",
        "user.changed",
        "user.changed",
    ]


def test_a_person_without_a_password_cannot_sign_in_with_one(admin: Administrator) -> None:
    admin.post("/users", {"username": "bob"})
    admin.server.sign_in(admin.server.browser(), "bob", PASSWORD)
    assert [row["reason"] for row in admin.server.events("sign_in.refused")] != []


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        ({}, 422, "invalid-members"),
        ({"username": "a b\u202e"}, 422, "invalid-members"),
        ({"username": "ann"}, 409, "conflict"),
        ({"username": "bob", "groups": ["x"] * 3 + [" "]}, 422, "invalid-members"),
        ({"username": "bob", "groups": "operators"}, 422, "invalid-members"),
        ({"username": "bob", "attributes": {"": ["x"]}}, 422, "invalid-members"),
        ({"username": "bob", "attributes": {"a": "x"}}, 422, "invalid-members"),
        ({"username": "bob", "password": "secret"}, 422, "invalid-members"),
    ],
)
def test_a_person_who_cannot_be_added(
    admin: Administrator, sent: dict[str, Any], status: int, slug: str
) -> None:
    admin.server.add_user("ann")
    assert_problem(admin.ask("POST", "/users", sent), status, slug)


def test_a_person_is_signed_out_everywhere(admin: Administrator, granted: dict[str, Any]) -> None:
    ended = admin.post(f"/users/{granted['user_id']}/sign-out", status=200)
    assert (ended["ended"]["sessions"], ended["ended"]["grants"]) == (1, 1)
    assert (ended["ended"]["refresh_tokens"], ended["ended"]["has_more"]) == (1, False)
    answer = admin.server.refresh(granted["client"], granted["secret"], granted["refresh_token"])
    assert answer.json["error"] == "invalid_grant"


def test_what_a_person_is_elsewhere_is_listed_and_taken_away(
    admin: Administrator, granted: dict[str, Any]
) -> None:
    """UP-03: by its handle, which no other person's has; what came through that server ends, and nothing else."""
    server, user_id = admin.server, granted["user_id"]
    issuer = "https://login.example"
    joined = an_identity(issuer=issuer, subject="s/7 ~", user_id=user_id)
    others = an_identity(issuer=issuer, subject="8", user_id=server.add_user("bob").user_id)
    path = f"/users/{user_id}/identities"
    assert admin.get(path)["items"] == []
    with server.begin() as engine:
        for each in (joined, others):
            engine.stores.identities.add(each)
        engine.stores.grants.add(
            a_grant(
                user_id=user_id,
                client_id=granted["client_id"],
                details={"through": issuer},
                created_at=engine.now,
                expires_at=engine.now + timedelta(days=1),
            )
        )
    (item,) = admin.get(path)["items"]
    assert (item["issuer"], item["subject"], item["label"]) == (issuer, "s/7 ~", joined.label)
    assert_problem(admin.ask("DELETE", f"{path}/{identity_handle(others)}"), 404, "not-found")
    admin.ask("DELETE", f"{path}/{item['identity']}", status=204)
    assert_problem(admin.ask("DELETE", f"{path}/{item['identity']}"), 404, "not-found")
    assert admin.get(path)["items"] == []
    assert len(admin.get(f"/users/{others.user_id}/identities")["items"]) == 1
    assert [grant["grant_id"] for grant in admin.get("/grants?user=ann")["items"]] == [granted["grant_id"]]
    (event,) = events(server, "identity.removed")
    assert event["actor"] == f"client:{admin.client.client_id}"


def test_people_are_listed_by_name_and_searched_for(admin: Administrator) -> None:
    for name in ("cy", "ann", "bob"):
        admin.server.add_user(name)
    assert [user["username"] for user in admin.get("/users")["items"]] == ["ann", "bob", "cy"]
    assert [user["username"] for user in admin.get("/users?search=BO")["items"]] == ["bob"]
    assert [user["username"] for user in admin.get("/users?prefix=Bo")["items"]] == ["bob"]
    assert_problem(admin.ask("GET", "/users?prefix=%00"), 400, "invalid-parameter")


# ---- Links to set a password ------------------------------------------------------------------------------


def test_a_link_sets_the_password_of_a_person(admin: Administrator) -> None:
    server = admin.server
    made = admin.post("/users", {"username": "bob"})
    path = f"/users/{made['user_id']}/password-link"
    link = admin.post(path, {"lifetime": 600})
    assert link["link"].startswith(f"{ISSUER}/set-password#{made['user_id']}.")
    assert (link["username"], "sent_to" in link) == ("bob", False)
    with server.begin() as engine:
        use_link(engine, link["link"], new=Secret(PASSWORD), repeated=Secret(PASSWORD))
    server.sign_in(server.browser(), "bob", PASSWORD)
    assert len(server.events("sign_in.succeeded")) == 1
    (event,) = events(server, "password_link.made")
    assert (event["actor"], event["user_id"]) == (f"client:{admin.client.client_id}", made["user_id"])
    assert link["link"].rpartition(".")[2] not in str(server.rows("events"))


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        ({"lifetime": 59}, 422, "invalid-members"),
        ({"lifetime": 604_801}, 422, "invalid-members"),
        ({"lifetime": "1h"}, 422, "invalid-members"),
        ({"by_mail": "yes"}, 422, "invalid-members"),
        # No plugin sends mail.
        ({"by_mail": True}, 409, "conflict"),
    ],
)
def test_a_link_that_cannot_be_made(
    admin: Administrator, sent: dict[str, Any], status: int, slug: str
) -> None:
    path = f"/users/{admin.post('/users', {'username': 'bob'})['user_id']}/password-link"
    assert_problem(admin.ask("POST", path, sent), status, slug)
    assert admin.server.rows("kept") == []


def test_nobody_gets_at_the_account_of_an_operator_without_all_rights(sqlite_url: str) -> None:
    """ADM-05: Of this API or of the pages for operators: neither by a link, nor by the address that links are sent to."""
    server = Server(
        sqlite_url,
        settings(
            **{
                "authserver.plugins": f"{settings()['authserver.plugins']} admin_console",
                "authserver.plugin.admin_console.read": "support",
            }
        ),
    )
    try:
        admin = administrator(server)
        lesser = administrator(server, "authserver:password-links:write authserver:users:write")
        for group in ("operators", "authserver-admins", "support"):
            answer = lesser.ask("POST", "/users", {"username": "eve", "groups": [group]})
            assert_problem(answer, 403, "beyond-own-scopes")
            path = f"/users/{admin.post('/users', {'username': group, 'groups': [group]})['user_id']}"
            for refused in (
                lesser.ask("POST", f"{path}/password-link", {}),
                lesser.ask("PATCH", path, {"attributes": {"email": ["eve@evil.example"]}}, If_Match="*"),
                lesser.ask("PATCH", path, {"groups": []}, If_Match="*"),
                lesser.ask("DELETE", f"{path}/identities/x"),
            ):
                assert_problem(refused, 403, "beyond-own-scopes")
            lesser.post(f"{path}/disable", status=200)
            assert_problem(lesser.ask("POST", f"{path}/enable"), 403, "beyond-own-scopes")
            admin.post(f"{path}/enable", status=200)
            assert admin.post(f"{path}/password-link", {})["username"] == group
        bob = lesser.post("/users", {"username": "bob", "groups": ["staff"]})
        assert lesser.post(f"/users/{bob['user_id']}/password-link", {})["username"] == "bob"
        # Somebody who signs in by other means, such as a directory, may come with other groups the next time.
        with server.begin() as engine:
            engine.journal.user_id = bob["user_id"]
            engine.record(EventType.SIGNED_IN)
        first = lesser.ask("POST", f"/users/{bob['user_id']}/password-link", {})
        assert_problem(first, 403, "beyond-own-scopes")
        assert admin.post(f"/users/{bob['user_id']}/password-link", {})["username"] == "bob"
    finally:
        server.close()


# ---- The kill switch --------------------------------------------------------------------------------------


def test_everything_of_anything_is_counted_and_ends(admin: Administrator, granted: dict[str, Any]) -> None:
    """L-08: Of each kind; counting ends nothing, and nobody is disabled."""
    named = {"user": "ann", "client": granted["client_id"], "scope": "profile", "resource": RESOURCE}
    for kind, name in named.items():
        told = admin.get(f"/ends/{kind}/{write_id(name)}")
        assert (told["kind"], told["name"], told["ended"]["grants"]) == (kind, name, 1), kind
    assert admin.get(f"/ends/user/{granted['user_id']}")["name"] == "ann"
    assert admin.get("/ends/scope/profile?registrations=true")["ended"]["registrations"] == 2
    assert admin.get(f"/ends/issuer/{write_id('https://idp.example')}")["ended"]["grants"] == 0
    assert admin.get(f"/grants/{granted['grant_id']}")["revoked_at"] is None
    ended = admin.post("/ends/user/ann", {}, status=200)["ended"]
    assert (ended["sessions"], ended["grants"], ended["consents"]) == (1, 1, 1)
    assert admin.get(f"/users/{granted['user_id']}")["disabled_at"] is None
    assert admin.post("/ends/user/ann", {}, status=200)["ended"]["grants"] == 0
    (event,) = events(admin.server, "sign_out.everywhere")[:1]
    assert event["actor"] == f"client:{admin.client.client_id}"


def test_a_scope_is_taken_from_clients_too(admin: Administrator) -> None:
    made = admin.post("/clients", {"client_name": "x", "scope": "profile"})
    ended = admin.post("/ends/scope/profile", {"registrations": True}, status=200)["ended"]
    assert ended["registrations"] == 2
    assert admin.get(f"/clients/{made['client_id']}").get("scope", "") == ""


@pytest.mark.parametrize(
    "path", ["/user/nobody", "/client/nobody", "/scope/nothing", "/resource/none", "/planet/mars"]
)
def test_nothing_ends_of_what_there_is_not(admin: Administrator, path: str) -> None:
    assert_problem(admin.ask("GET", f"/ends{path}"), 404, "not-found")
    assert_problem(admin.ask("POST", f"/ends{path}", {}), 404, "not-found")


def test_what_takes_too_long_to_look_through_is_left_to_the_command(
    admin: Administrator, granted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "MAXIMUM_RECORDS", 0)
    body = assert_problem(admin.ask("POST", "/ends/scope/profile", {}), 409, "conflict")
    assert "authserver end" in body["detail"]
    assert admin.get(f"/grants/{granted['grant_id']}")["revoked_at"] is None


# ---- Statistics -------------------------------------------------------------------------------------------


def test_what_happened_is_counted(admin: Administrator, granted: dict[str, Any]) -> None:
    admin.ask("GET", "/events", token="bad", status=401)
    waiting = admin.get("/statistics")["not_counted_yet"]
    assert waiting["events"] > 0 and waiting["since"] is not None
    reading = Reading(admin.server.application.storage, Counting())
    while reading.work():
        pass
    told = admin.get("/statistics?by=client&grant_type=authorization_code")
    assert told["counts"]["issued"] == 1 and told["not_counted_yet"]["events"] == 0
    assert [row["key"] for row in told["rows"] if row["counts"]["issued"]] == [granted["client_id"]]
    days = admin.get("/statistics/series?measure=codes&step=day")
    assert days["step"] == "day" and sum(point["count"] for point in days["points"]) == 1
    assert len(days["points"]) in (30, 31)
    (reason,) = admin.get("/statistics/reasons")["items"]
    assert (reason["event"], reason["count"]) == ("request.refused", 1)
    assert admin.get("/statistics/figures").keys() == {"at", *map(str, Gauge)}
    assert admin.get("/statistics/series?gauge=people&step=hour")["step"] == "hour"


@pytest.mark.parametrize(
    "query",
    [
        "?by=week",
        "?limit=0",
        "?limit=1001",
        "?since=yesterday",
        "?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
        "?since=1000-01-01T00:00:00Z",
        "?by=client&client=x",
        "/series",
        "/series?measure=issued&gauge=people",
        "/series?measure=anything",
        "/series?measure=issued&step=week",
        "/series?gauge=people&client=x",
        "/reasons?limit=x",
    ],
)
def test_statistics_that_cannot_be_are_refused(admin: Administrator, query: str) -> None:
    assert_problem(admin.ask("GET", f"/statistics{query}"), 400, "invalid-parameter")


# ---- Grants and consents ----------------------------------------------------------------------------------


def test_grants_are_listed_by_person_and_client(admin: Administrator, granted: dict[str, Any]) -> None:
    for query in (
        "",
        "?user=ann",
        f"?user={granted['user_id']}",
        f"?client={granted['client_id']}",
        f"?user=ann&client={granted['client_id']}",
    ):
        ids = [grant["grant_id"] for grant in admin.get(f"/grants{query}")["items"]]
        assert granted["grant_id"] in ids
    assert admin.get("/grants?client=nobody")["items"] == []
    assert_problem(admin.ask("GET", "/grants?user=nobody"), 400, "invalid-parameter")
    shown = admin.get(f"/grants/{granted['grant_id']}")
    assert (shown["username"], shown["scope"], shown["revoked_at"]) == ("ann", "profile", None)


def test_a_grant_is_revoked(admin: Administrator, granted: dict[str, Any]) -> None:
    path = f"/grants/{granted['grant_id']}"
    answer = admin.ask("DELETE", path, If_Match='"another"')
    assert_problem(answer, 412, "precondition-failed")
    ended = admin.ask("DELETE", path, If_Match=admin.etag(path), status=200).json
    assert ended == {"grants": 1, "consents": 1}
    assert_problem(admin.ask("DELETE", path), 409, "conflict")
    assert admin.get(path)["revoked_at"] is not None
    assert admin.get("/grants?user=ann")["items"] == []
    (event,) = events(admin.server, "grant.revoked")
    assert event["actor"] == f"client:{admin.client.client_id}"


def test_what_a_person_agreed_to_for_a_client_ends(admin: Administrator, granted: dict[str, Any]) -> None:
    (consent,) = admin.get("/consents?user=ann")["items"]
    assert (consent["client_id"], consent["scope"]) == (granted["client_id"], "profile")
    assert admin.get(f"/consents?client={granted['client_id']}")["items"] == [consent]
    path = f"/consents/{consent['user_id']}/{consent['client_id']}"
    ended = admin.ask("DELETE", path, status=200).json
    assert ended == {"grants": 1, "consents": 1}
    assert_problem(admin.ask("DELETE", path), 404, "not-found")
    assert admin.get("/consents")["items"] == []


# ---- Resources --------------------------------------------------------------------------------------------


def test_a_resource_is_registered_changed_and_removed(admin: Administrator) -> None:
    made = admin.ask(
        "POST",
        "/resources",
        {"resource": "https://new.example/api", "name": "New", "scopes": ["profile"], "token_lifetime": 60},
        status=201,
    )
    path = made.headers["Location"].removeprefix(API)
    assert admin.get(path)["token_lifetime"] == 60
    changed = admin.patch(
        path, {"token_lifetime": None, "scopes": None, "token_format": "opaque"}, if_match=admin.etag(path)
    )
    assert (changed["token_lifetime"], changed["scopes"], changed["token_format"]) == (None, None, "opaque")
    assert "https://new.example/api" in [each["resource"] for each in admin.get("/resources")["items"]]
    counted = admin.ask("DELETE", f"{path}?dry_run=true", status=200).json
    assert counted["dry_run"] is True and counted["ended"]["grants"] == 0
    admin.get(path)
    assert admin.ask("DELETE", path, If_Match=admin.etag(path), status=200).json["dry_run"] is False
    assert_problem(admin.ask("GET", path), 404, "not-found")
    assert [row["type"] for row in admin.server.rows("events") if row["type"].startswith("resource.")] == [
        "resource.added",
        "resource.changed",
        "resource.removed",
    ]


def test_what_was_granted_for_a_resource_ends_with_it(admin: Administrator) -> None:
    server, new = admin.server, "https://new.example/api"
    made = admin.ask("POST", "/resources", {"resource": new}, status=201)
    server.add_user("ann")
    client, secret = server.add_client()
    answer = server.redeem(client, secret, server.code(client, scope="profile", resource=new)).json
    path = made.headers["Location"].removeprefix(API)
    assert admin.ask("DELETE", f"{path}?dry_run=true", status=200).json["ended"]["grants"] == 1
    ended = admin.ask("DELETE", path, status=200).json["ended"]
    assert (ended["grants"], ended["consents"]) == (1, 1)
    assert server.refresh(client, secret, answer["refresh_token"]).json["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        ({}, 422, "invalid-members"),
        ({"resource": "no uri"}, 422, "invalid-members"),
        ({"resource": "https://a.example/#x"}, 422, "invalid-members"),
        ({"resource": RESOURCE}, 422, "invalid-members"),
        ({"resource": f"{ISSUER}/admin/api"}, 422, "invalid-members"),
        ({"resource": "https://a.example/", "scopes": ["none"]}, 422, "invalid-members"),
        ({"resource": "https://a.example/", "token_lifetime": 1}, 422, "invalid-members"),
        ({"resource": "https://a.example/", "token_lifetime": True}, 422, "invalid-members"),
        ({"resource": "https://a.example/", "token_format": "xml"}, 422, "invalid-members"),
        ({"resource": "https://a.example/", "default": True}, 422, "invalid-members"),
        ({"resource": "https://a.example/", "introspecting_clients": ["none"]}, 422, "invalid-members"),
    ],
)
def test_a_resource_that_cannot_be_registered(
    admin: Administrator, sent: dict[str, Any], status: int, slug: str
) -> None:
    assert_problem(admin.ask("POST", "/resources", sent), status, slug)


def test_a_resource_of_the_ini_is_changed_there(admin: Administrator) -> None:
    path = next(
        f"/resources/{write_id(each['resource'])}"
        for each in admin.get("/resources")["items"]
        if each["resource"] == FILES
    )
    body = assert_problem(admin.ask("PATCH", path, {"name": "x"}, If_Match="*"), 409, "conflict")
    assert "authserver.plugin.resources_listed.resources" in body["detail"]
    assert_problem(admin.ask("DELETE", path), 409, "conflict")


# ---- Initial access tokens --------------------------------------------------------------------------------


def test_an_initial_access_token_is_made_listed_and_revoked(admin: Administrator) -> None:
    made = admin.post(
        "/initial-tokens", {"policy": "partners", "uses": 2, "expires_in": 3600, "note": "for x"}
    )
    assert made["token"].startswith("as_initial_") and made["uses"] == 2
    assert made["made_by"] == f"client:{admin.client.client_id}"
    (listed,) = admin.get("/initial-tokens")["items"]
    assert "token" not in listed and listed["state"] == "live"
    path = f"/initial-tokens/{made['initial_token']}"
    admin.ask("DELETE", path, status=204)
    assert_problem(admin.ask("DELETE", path), 409, "conflict")
    assert_problem(admin.ask("DELETE", "/initial-tokens/initial_none"), 404, "not-found")
    assert admin.get("/initial-tokens")["items"][0]["state"] == "revoked"
    assert admin.post("/initial-tokens", {"policy": "partners", "uses": None})["uses"] is None


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"policy": "parners"},
        {"policy": "partners", "uses": 0},
        {"policy": "partners", "expires_in": 0},
        {"policy": "partners", "note": "x" * 201},
    ],
)
def test_an_initial_access_token_that_cannot_be_made(admin: Administrator, sent: dict[str, Any]) -> None:
    assert_problem(admin.ask("POST", "/initial-tokens", sent), 422, "invalid-members")


def test_without_a_registration_policy_there_is_nothing_to_name(sqlite_url: str) -> None:
    server = Server(sqlite_url, settings(**{"authserver.plugin.registration_token.policies": None}))
    try:
        answer = administrator(server).ask("POST", "/initial-tokens", {"policy": "partners"})
        assert_problem(answer, 409, "conflict")
    finally:
        server.close()


# ---- Keys -------------------------------------------------------------------------------------------------


def test_keys_are_rotated_and_revoked(admin: Administrator) -> None:
    (key,) = admin.get("/keys")["items"]
    assert key["signs"] is True and "d" not in key["public_jwk"]
    made = admin.ask("POST", "/keys", {}, status=201)
    assert made.json["new"]["state"] == "staged" and made.json["old"]["kid"] == key["kid"]
    path = made.headers["Location"].removeprefix(API)
    assert admin.get(path)["kid"] == made.json["new"]["kid"]
    assert_problem(admin.ask("POST", "/keys", {}), 409, "conflict")
    assert_problem(admin.ask("POST", "/keys", {"after": 1}), 409, "conflict")
    assert_problem(admin.ask("POST", "/keys", {"algorithm": "HS256"}), 422, "invalid-members")
    revoked = admin.post(f"{path}/revoke", {"reason": "lost"}, status=200)
    assert revoked["was"] == "staged" and revoked["signs"] == key["kid"]
    assert_problem(admin.ask("POST", f"{path}/revoke", {}), 409, "conflict")
    assert_problem(admin.ask("POST", "/keys/none/revoke", {}), 404, "not-found")
    assert len(admin.get("/keys")["items"]) == 1 and len(admin.get("/keys?all=true")["items"]) == 2
    (event,) = events(admin.server, "key.revoked")
    assert event["reason"] == "lost" and event["actor"] == f"client:{admin.client.client_id}"


# ---- Events -----------------------------------------------------------------------------------------------


def test_events_are_searched_as_by_the_command(admin: Administrator, granted: dict[str, Any]) -> None:
    refused = assert_problem(admin.ask("POST", "/users", {"username": ""}), 422, "invalid-members")
    (event,) = admin.get(f"/events?error_id={refused['error_id']}")["items"]
    assert event["type"] == "request.refused" and event["reason"] == "invalid-members"
    assert event["actor"] == f"client:{admin.client.client_id}"
    assert admin.get(f"/events/{refused['error_id']}") == event
    for query in (
        "user=ann",
        f"user={granted['user_id']}",
        f"client={granted['client_id']}",
        f"grant={granted['grant_id']}",
        "event=token.issued",
        "event=token.issued&event=code.issued",
        f"since=2020-01-01T00:00:00Z&actor=client:{admin.client.client_id}",
        "source=192.0.2.1&since=2020-01-01",
        "refused=true",
        "reason=invalid-members&event=request.refused",
    ):
        assert admin.get(f"/events?{query}")["items"], query
    assert admin.get("/events?until=2020-01-01")["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        "event=token.isued",
        "user=nobody",
        "source=here",
        "since=yesterday",
        "since=2026-01-02&until=2026-01-01",
        "since=0001-01-01T00:00:00%2B23:59",
        "refused=yes",
        "refused=true&event=token.issued",
        "actor=stranger",
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=%D9%A3",
        "after=nonsense",
        "client=a&client=b",
        "client=%FF",
        "what=ever",
    ],
)
def test_a_search_that_cannot_be_is_refused(admin: Administrator, query: str) -> None:
    answer = admin.ask("GET", f"/events?{query}")
    assert answer.status_int == 400, answer.text
    assert answer.json["type"].endswith(("invalid-parameter", "invalid-cursor"))


# ---- All --------------------------------------------------------------------------------------------------


def test_every_entry_says_a_scope_of_the_api_and_every_scope_is_for_something() -> None:
    assert {entry.scope for entry in ENTRIES} - {""} == set(SCOPES)
    # To read is never enough to change something.
    assert [e.path for e in ENTRIES if e.method != "GET" and not e.scope.endswith(":write")] == []
    assert [e.path for e in ENTRIES if e.method == "GET" and e.scope and not e.scope.endswith(":read")] == []


@pytest.mark.parametrize("path", sorted({entry.path for entry in ENTRIES if "{" in entry.path}))
def test_what_is_not_there_is_not_found(admin: Administrator, path: str) -> None:
    for name in ("nothing", "~", "~YQ", "~AA", "~!!", "%00", "user_none", "~bm90aGluZw"):
        real = re.sub(r"\{[a-z_]+\}", name, path)
        for entry in ENTRIES:
            if entry.path == path:
                body = {} if entry.body is not None else None
                answer = admin.ask(entry.method, real, body, If_Match="*")
                assert_problem(answer, 404, "not-found")
