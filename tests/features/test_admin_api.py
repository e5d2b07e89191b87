"""Who may use the admin API, and what everybody else is told (RFC 6750, RFC 9068, RFC 9457, RFC 9728)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.editing import ClientEdit, ListEdit, edit
from authserver.engine.keys import signing_keys
from authserver.engine.people.attributes import change
from authserver.engine.people.login import disable_user
from authserver.features.admin_api.collected import SCOPES
from authserver.settings import SettingsError
from authserver.testing.server import ISSUER, RESOURCE, SETTINGS, Server
from tests.features.admin_api_steps import (
    API,
    Administrator,
    administrator,
    assert_problem,
    settings,
)

READ = "authserver:clients:read"


@pytest.fixture
def make(sqlite_url: str) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def serve(**more: str | None) -> Server:
        servers.append(Server(sqlite_url, settings(**more)))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


@pytest.fixture(params=["jwt", "opaque"])
def admin(request: pytest.FixtureRequest, make: Callable[..., Server]) -> Administrator:
    """With both formats of access tokens."""
    return administrator(make(**{"authserver.access_token_format": request.param}))


@pytest.fixture(scope="module")
def shared(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administrator]:
    """One for tests that change nothing."""
    path = tmp_path_factory.mktemp("admin") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    server = Server(f"sqlite:///{path}", settings())
    yield administrator(server)
    server.close()


def test_an_administrator_reads_and_adds_clients_with_a_token_of_this_server(admin: Administrator) -> None:
    """ADM-01, ADM-11: From the token endpoint to the client that it made, with both formats."""
    made = admin.post("/clients", {"client_name": "Notes", "scope": "profile"})
    assert admin.get(f"/clients/{made['client_id']}")["client_name"] == "Notes"
    assert made["client_id"] in [client["client_id"] for client in admin.get("/clients")["items"]]
    (event,) = [
        row for row in admin.server.events("client.registered") if row["client_id"] == made["client_id"]
    ]
    assert event["actor"] == f"client:{admin.client.client_id}"


def test_it_says_who_asks(shared: Administrator) -> None:
    found = shared.get("")
    assert found["actor"] == f"client:{shared.client.client_id}"
    assert set(found["scopes"]) == set(SCOPES)


def test_without_a_token_the_challenge_names_the_scope_and_the_metadata(shared: Administrator) -> None:
    """P-04, P-09, P-10, P-11: RFC 6750, 3; RFC 9728, 5.1: no error code where there was no token."""
    answer = shared.server.http.get(f"{API}/clients", expect_errors=True)
    assert_problem(answer, 401, "no-token")
    challenge = answer.headers["WWW-Authenticate"]
    metadata = f"{ISSUER}/.well-known/oauth-protected-resource/admin/api"
    assert challenge.startswith(f'Bearer scope="{READ}", resource_metadata="{metadata}"')
    assert "error" not in challenge
    document = shared.server.http.get(metadata).json
    assert document["resource"] == API and document["authorization_servers"] == [ISSUER]
    assert document["scopes_supported"] == list(SCOPES)


def test_a_scope_that_the_token_lacks_is_named(shared: Administrator) -> None:
    """ADM-04, P-06: RFC 6750, 3.1: 403 with the scope that would help."""
    reader = administrator(shared.server, READ)
    answer = reader.ask("POST", "/clients", {"client_name": "Notes"})
    assert_problem(answer, 403, "insufficient-scope")
    challenge = answer.headers["WWW-Authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert f'scope="{READ} authserver:clients:write"' in challenge


def test_a_token_for_another_resource_is_not_accepted(shared: Administrator) -> None:
    """ADM-01, P-08."""
    server = shared.server
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=("profile", READ))
    other = server.token(client, secret, grant_type="client_credentials", resource=RESOURCE).json
    answer = shared.ask("GET", "/clients", token=other["access_token"])
    assert_problem(answer, 401, "invalid-token")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_a_token_that_was_revoked_is_refused_at_once(admin: Administrator) -> None:
    """ADM-01: R-09: a JWT, too, although it has not expired."""
    admin.get("/clients")
    admin.server.revoke(admin.client, admin.secret, admin.token)
    assert_problem(admin.ask("GET", "/clients"), 401, "invalid-token")


def test_a_client_that_was_disabled_is_refused_at_once(admin: Administrator) -> None:
    """ADM-01, R-09."""
    admin.get("/clients")
    with admin.server.begin() as engine:
        disable_client(engine, admin.client.client_id)
    assert_problem(admin.ask("GET", "/clients"), 401, "invalid-token")


def test_a_scope_that_was_taken_from_the_client_counts_no_more(admin: Administrator) -> None:
    with admin.server.begin() as engine:
        edit(
            engine,
            admin.client.client_id,
            ClientEdit(scopes=ListEdit(removed=("authserver:clients:write",))),
        )
    admin.get("/clients")
    assert_problem(admin.ask("POST", "/clients", {"client_name": "x"}), 403, "insufficient-scope")


def test_after_a_key_was_revoked_its_tokens_end_and_those_of_the_next_one_work(
    make: Callable[..., Server],
) -> None:
    """Without the minute for which an API elsewhere keeps the keys."""
    server = make()
    admin = administrator(server)
    admin.get("/clients")
    with server.begin() as engine:
        (key,) = engine.stores.signing_keys.list()
        signing_keys.revoke(engine, key.kid, reason="stolen")
    server.application.parts.signer.load()
    assert_problem(admin.ask("GET", "/clients"), 401, "invalid-token")
    administrator(server).get("/clients")


def person_with(server: Server, *groups: str) -> str:
    """An access token of user `ann` in these groups."""
    server.add_user("ann", groups=groups)
    client, secret = server.add_client(scopes=("profile", *SCOPES))
    code = server.code(client, scope=" ".join(SCOPES), resource=API)
    return str(server.redeem(client, secret, code, resource=API).json["access_token"])


def test_a_person_in_one_of_the_groups_may_administer(make: Callable[..., Server]) -> None:
    """ADM-03, ADM-11."""
    server = make()
    admin = administrator(server)
    token = person_with(server, "operators")
    made = admin.ask("POST", "/clients", {"client_name": "Notes"}, token=token, status=201).json
    with server.begin() as engine:
        ann = engine.stores.users.find_by_name("ann")
        assert ann is not None
    assert admin.ask("GET", "", token=token).json["actor"] == f"user:{ann.user_id}"
    (event,) = [row for row in server.events("client.registered") if row["client_id"] == made["client_id"]]
    assert event["actor"] == f"user:{ann.user_id}"
    # What somebody loses counts at once.
    with server.begin() as engine:
        change(engine, ann, groups=())
    assert_problem(admin.ask("GET", "/clients", token=token), 404, "not-found")
    with server.begin() as engine:
        disable_user(engine, "ann")
    assert_problem(admin.ask("GET", "/clients", token=token), 401, "invalid-token")


def test_anybody_else_gets_no_scope_of_the_api(make: Callable[..., Server]) -> None:
    """ADM-03."""
    server = make()
    server.add_user("ann", groups=("staff",))
    client, _ = server.add_client(scopes=("profile", *SCOPES))
    browser = server.browser()
    server.sign_in(browser)
    answer = browser.get(server.authorization_url(client, scope=READ, resource=API))
    assert "error=invalid_scope" in answer.location
    assert server.events("authorization.refused")[-1]["reason"] == "not-in-admin-groups"


def test_without_groups_no_person_may(make: Callable[..., Server]) -> None:
    server = make(**{"authserver.plugin.admin_api.groups": None})
    server.add_user("ann", groups=("operators",))
    client, _ = server.add_client(scopes=("profile", *SCOPES))
    browser = server.browser()
    server.sign_in(browser)
    answer = browser.get(server.authorization_url(client, scope=READ, resource=API))
    assert "error=invalid_scope" in answer.location


def test_the_api_is_there_only_where_the_ini_names_it(sqlite_url: str) -> None:
    server = Server(sqlite_url, SETTINGS)
    try:
        assert server.http.get(f"{API}/clients", expect_errors=True).status_int == 404
        assert READ not in server.application.parts.offered.scopes()
    finally:
        server.close()


def test_below_an_issuer_with_a_path_it_has_that_path_too(make: Callable[..., Server]) -> None:
    """RFC 9728, 3.1: the well-known part comes between the host and the whole path."""
    server = make(**{"authserver.issuer": f"{ISSUER}/tenant"})
    api = f"{ISSUER}/tenant/admin/api"
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=(READ,))
    answer = server.token(client, secret, grant_type="client_credentials", resource=api, scope=READ)
    bearer = {"Authorization": f"Bearer {answer.json['access_token']}"}
    page = server.http.get(f"{api}/clients?limit=1", headers=bearer)
    assert [each["client_id"] for each in page.json["items"]] == [client.client_id]
    refused = server.http.get(f"{api}/clients", expect_errors=True)
    metadata = f"{ISSUER}/.well-known/oauth-protected-resource/tenant/admin/api"
    assert f'resource_metadata="{metadata}"' in refused.headers["WWW-Authenticate"]
    assert server.http.get(metadata).json["resource"] == api


def test_without_the_verifier_the_start_says_what_to_install(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "authserver_resource", None)
    with pytest.raises(SettingsError, match=r"pip install 'authserver\[admin-api\]'"):
        Server(sqlite_url, settings())


def test_its_resource_is_listed_and_cannot_be_registered_again(make: Callable[..., Server]) -> None:
    server = make(**{"authserver.access_token_lifetime@resources": f"{API} = 60"})
    admin = administrator(server)
    (found,) = [each for each in admin.get("/resources")["items"] if each["resource"] == API]
    assert found["token_lifetime"] == 60 and found["scopes"] == list(SCOPES)
    answer = server.token(
        admin.client, admin.secret, grant_type="client_credentials", resource=API, scope=READ
    )
    assert answer.json["expires_in"] == 60
