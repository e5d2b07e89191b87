"""How the admin API is spoken: tokens, idempotency keys, ETags, pages, media types, and what is refused."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
import sqlalchemy as sa
import time_machine
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from authserver.api import identity_handle
from authserver.engine.records import RegisteredBy
from authserver.features.admin_api.collected import ENTRIES, SCOPES
from authserver.features.admin_api.entries import Entry, NothingThere, read_id, write_id
from authserver.features.admin_api.paging import LOOKED_AT
from authserver.testing import forgeries, hostile
from authserver.testing.records import a_user, an_identity
from authserver.testing.server import RESOURCE, SETTINGS, Server
from authserver.testing.stories import records
from authserver.testing.threads import at_once
from tests.features.admin_api_steps import (
    API,
    EVERY,
    SEEN,
    Administrator,
    administrator,
    assert_problem,
    document_of,
    events,
    settings,
)

Make = Callable[..., Server]
READ = "authserver:clients:read"


@pytest.fixture
def make(sqlite_url: str) -> Iterator[Make]:
    servers: list[Server] = []

    def serve(url: str = "", **more: str | None) -> Server:
        servers.append(Server(url or sqlite_url, settings(**more)))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def admin(make: Make) -> Administrator:
    return administrator(make())


@pytest.fixture(scope="module")
def shared(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administrator]:
    """For tests that see refusals: nothing they do leaves anything behind."""
    path = tmp_path_factory.mktemp("admin") / "authserver.db"
    path.write_bytes(migrated_sqlite_file.read_bytes())
    server = Server(f"sqlite:///{path}", settings())
    server.add_user("ann")
    yield administrator(server)
    server.close()


def real(entry: Entry) -> str:
    """An address of this entry."""
    return re.sub(r"\{[a-z_]+\}", "some-id", entry.path)


def body_of(entry: Entry) -> dict[str, Any] | None:
    return None if entry.body is None else {}


# ---- Tokens -----------------------------------------------------------------------------------------------


def test_what_no_verifier_may_accept_is_refused(shared: Administrator) -> None:
    """ADM-01, P-05: N-09, T053, T054, T055, T056, T057, T060, T061, T079: the corpus that `authserver-resource` is tested with, under our own key."""
    server = shared.server
    claims = server.claims(shared.token)
    key: Any = server.application.parts.signer._current()._active["ES256"]
    header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
    good = forgeries.signed(header, claims, key.private)
    assert shared.ask("GET", "/clients", token=good).status_int == 200
    before = records(server)
    forged = forgeries.jwts(
        header,
        claims,
        key.private,
        required=("iss", "aud", "sub", "client_id", "jti"),
        times=("exp", "iat"),
        types=("JWT", "application/jwt", "dpop+jwt", "client-authentication+jwt", None),
    )
    for name, token in forged.items():
        if name in ("not ASCII", "a line end in it", "NUL in it"):
            continue  # no client can send such a header
        answer = shared.ask("GET", "/clients", token=token)
        assert answer.status_int in (400, 401), name
        assert answer.headers["WWW-Authenticate"].startswith("Bearer "), name
    assert records(server) == before


@pytest.mark.parametrize("kind", ["refresh", "code", "client_secret", "session", "initial", "random"])
def test_no_other_credential_is_an_access_token(make: Make, kind: str) -> None:
    """I-15: neither of the same server, nor of the same client."""
    server = make()
    admin = administrator(server)
    server.add_user("ann", groups=("operators",))
    client, secret = server.add_client(scopes=("profile", *SCOPES))
    code = server.code(client, scope=READ, resource=API)
    credential = {
        "code": code,
        "client_secret": admin.secret,
        "session": "as_session_" + "x" * 43,
        "random": uuid.uuid4().hex,
    }.get(kind)
    if kind == "refresh":
        credential = server.redeem(client, secret, code, resource=API).json["refresh_token"]
    if kind == "initial":
        credential = admin.post("/initial-tokens", {"policy": "partners"})["token"]
    assert_problem(admin.ask("GET", "/clients", token=credential), 401, "invalid-token")


@pytest.mark.parametrize(
    "authorization",
    ["Basic eDp5", "Token x", "Bearer", "bearer", "Bearer  ", "DPoP", "Bearer a b", "Bearer a,b", "x" * 5000],
)
def test_another_authorization_is_refused_with_a_challenge(shared: Administrator, authorization: str) -> None:
    answer = shared.ask("GET", "/clients", Authorization=authorization)
    assert answer.status_int in (400, 401)
    assert "resource_metadata=" in answer.headers["WWW-Authenticate"]


def test_a_token_in_the_address_is_not_read(shared: Administrator) -> None:
    """P-02: OAuth 2.1, 5.1."""
    answer = shared.ask("GET", f"/clients?access_token={shared.token}", Authorization="")
    assert_problem(answer, 401, "no-token")


def test_too_many_bad_tokens_from_one_network_are_slowed_down(make: Make) -> None:
    server = make(
        **{
            "authserver.plugins": SETTINGS["authserver.plugins"] + " admin_api rate_limits",
            "authserver.plugin.registration_token.policies": None,
            "authserver.plugin.rate_limits.limits": "bad-tokens = failed_client_authentication, source, 3, minute",
        }
    )
    admin = administrator(server)
    seen = Counter(admin.ask("GET", "/clients", token="x").status_int for _ in range(5))
    assert seen == {401: 3, 429: 2}
    answer = admin.ask("GET", "/clients", token="x")
    assert answer.content_type == "application/problem+json" and int(answer.headers["Retry-After"]) > 0
    admin.get("/clients")


# Each scope, each operation: only its own scope lets anybody in.


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(scopes=st.sets(st.sampled_from(sorted(SCOPES)), min_size=1), entry=st.sampled_from(ENTRIES))
def test_a_scope_is_good_for_its_own_operations_alone(
    shared: Administrator, scopes: set[str], entry: Entry
) -> None:
    """ADM-04."""
    token = token_with(shared, " ".join(sorted(scopes)))
    answer = shared.ask(
        entry.method, real(entry), {"no": "member"} if entry.body is not None else None, token=token
    )
    if entry.scope and entry.scope not in scopes:
        assert_problem(answer, 403, "insufficient-scope")
        wanted = re.search(r'scope="([^"]*)"', answer.headers["WWW-Authenticate"])
        assert wanted and set(wanted[1].split()) == {*scopes, entry.scope}
    else:
        assert answer.status_int in (200, 400, 404, 422, 428), answer.text


# By client, too: another part of these tests, later in the same process, has another server.
_tokens: dict[tuple[str, str], str] = {}


def token_with(admin: Administrator, scope: str) -> str:
    """A token of the same client with these scopes alone."""
    kept = (admin.client.client_id, scope)
    if kept not in _tokens:
        answer = admin.server.token(
            admin.client, admin.secret, grant_type="client_credentials", resource=API, scope=scope
        )
        _tokens[kept] = answer.json["access_token"]
    return _tokens[kept]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.method} {entry.path}")
def test_every_operation_refuses_whoever_may_not(shared: Administrator, entry: Entry) -> None:
    """ADM-04, ADM-06: 401 without a good token, 403 without the scope; and 404 for a token without any right here."""
    body = body_of(entry)
    assert_problem(shared.ask(entry.method, real(entry), body, Authorization=""), 401, "no-token")
    assert_problem(shared.ask(entry.method, real(entry), body, token="x"), 401, "invalid-token")
    if entry.scope:
        other = "authserver:events:read" if entry.scope != "authserver:events:read" else READ
        answer = shared.ask(entry.method, real(entry), body, token=token_with(shared, other))
        assert_problem(answer, 403, "insufficient-scope")


def test_a_token_without_any_scope_of_the_api_finds_nothing(make: Make) -> None:
    """ADM-04: RFC 6750, 3.1 says 403; but whoever is no administrator is not told what there is."""
    server = make()
    admin = administrator(server)
    key: Any = server.application.parts.signer._current()._active["ES256"]
    header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
    claims = {**server.claims(admin.token), "scope": "profile"}
    token = forgeries.signed(header, claims, key.private)
    for entry in ENTRIES:
        answer = admin.ask(entry.method, real(entry), body_of(entry), token=token)
        assert_problem(answer, 404, "not-found")
    assert server.events("request.refused")[-1]["reason"] == "no-admin-scope"


def test_a_token_for_two_resources_is_not_accepted(make: Make) -> None:
    """ADM-01: The other one could use it here."""
    server = make()
    admin = administrator(server)
    refused = server.token(
        admin.client, admin.secret, grant_type="client_credentials", resource=[API, RESOURCE], scope=READ
    )
    assert refused.json["error"] == "invalid_scope"
    key: Any = server.application.parts.signer._current()._active["ES256"]
    header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
    claims = {**server.claims(admin.token), "aud": [API, RESOURCE]}
    answer = admin.ask("GET", "/clients", token=forgeries.signed(header, claims, key.private))
    assert_problem(answer, 401, "invalid-token")


def test_scopes_of_the_api_are_for_the_api_alone(make: Make) -> None:
    server = make()
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=("profile", READ))
    answer = server.token(
        client, secret, grant_type="client_credentials", resource=RESOURCE, scope=f"profile {READ}"
    )
    assert answer.json["scope"] == "profile"
    answer = server.token(client, secret, grant_type="client_credentials", resource=RESOURCE, scope=READ)
    assert answer.json["error"] == "invalid_scope"
    answer = server.token(
        client, secret, grant_type="client_credentials", resource=API, scope=f"profile {READ}"
    )
    assert answer.json["scope"] == READ


# ---- Clients that registered themselves -------------------------------------------------------------------


def test_a_client_that_registered_itself_never_gets_a_scope_of_the_api(make: Make) -> None:
    """ADM-02: K-20: whatever the settings let it register, and whatever stands in its record."""
    server = make(
        **{
            "authserver.plugins": SETTINGS["authserver.plugins"] + " admin_api",
            "authserver.plugin.registration_token.policies": None,
            "authserver.plugin.registration_open.scopes": EVERY + " profile",
        }
    )
    server.add_user("ann", groups=("operators",))
    answer = server.http.post_json(
        "/oauth/register",
        {
            "redirect_uris": ["https://client.example/cb"],
            "scope": f"profile {READ}",
            "token_endpoint_auth_method": "none",
        },
    ).json
    with server.begin() as engine:
        client = engine.find_kept_client(answer["client_id"])
    assert client is not None and client.registered_by is RegisteredBy.SELF and READ in client.scopes
    browser = server.browser()
    server.sign_in(browser)
    for resource, scope in ((API, READ), (RESOURCE, READ), ([API, RESOURCE], f"profile {READ}")):
        page = browser.get(
            server.authorization_url(client, scope=scope, resource=resource), expect_errors=True
        )
        assert READ not in page.text or "error=" in (page.location or "") + page.text
        assert 'id="consent"' not in page.text
        assert "invalid_" in page.text + (page.location or "")
    # With another scope it gets that alone.
    code = server.code(client, scope=f"profile {READ}", resource=RESOURCE)
    assert server.redeem(client, None, code).json["scope"] == "profile"


def test_nor_does_one_with_a_token_that_was_signed_for_it(make: Make) -> None:
    """ADM-02: The endpoint looks at the client, too: a plugin that grants more than this one allows opens nothing."""
    server = make()
    admin = administrator(server)
    with server.begin() as engine:
        client = engine.find_kept_client(admin.client.client_id)
        assert client is not None
        assert engine.stores.clients.change(client, replace(client, registered_by=RegisteredBy.SELF))
    assert_problem(admin.ask("GET", "/clients"), 404, "not-found")
    assert server.events("request.refused")[-1]["reason"] == "client-registered-itself"


# ---- Tokens that are bound to a key -----------------------------------------------------------------------

KEY = ECKey.generate_key("P-256")


def proof(method: str, url: str, token: str | None = None, key: Any = KEY, **changes: Any) -> str:
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.as_dict(private=False)}
    claims = {"htm": method, "htu": url, "iat": int(time.time()), "jti": uuid.uuid4().hex, **changes}
    if token is not None:
        digest = hashlib.sha256(token.encode()).digest()
        claims["ath"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return forgeries.signed(header, claims, key)


@pytest.fixture(params=["jwt", "opaque"])
def bound(request: pytest.FixtureRequest, make: Make) -> Administrator:
    """An administrator whose token is bound to a key."""
    server = make(**{"authserver.access_token_format": request.param})
    admin = administrator(server)
    sent = proof("POST", f"{server.issuer}/oauth/token")
    answer = server.ask(
        "/oauth/token",
        admin.client,
        admin.secret,
        headers={"DPoP": sent},
        grant_type="client_credentials",
        resource=API,
        scope=EVERY,
    ).json
    assert answer["token_type"] == "DPoP"
    return Administrator(server, admin.client, admin.secret, answer["access_token"])


def test_a_bound_token_needs_a_proof_of_its_key_for_each_request(bound: Administrator) -> None:
    """RFC 9449, 7.1; P-01: of this method, this address and this token, and each proof once."""

    def ask(sent: str | None, scheme: str = "DPoP", path: str = "/clients") -> Any:
        headers = {"Authorization": f"{scheme} {bound.token}"} | ({"DPoP": sent} if sent else {})
        return bound.ask("GET", path, **headers)

    good = proof("GET", f"{API}/clients", bound.token)
    assert ask(good).status_int == 200
    assert_problem(ask(good), 401, "invalid-proof")
    assert_problem(ask(None), 401, "invalid-proof")
    assert_problem(ask(None, "Bearer"), 401, "invalid-token")
    for wrong in (
        proof("POST", f"{API}/clients", bound.token),
        proof("GET", f"{API}/users", bound.token),
        proof("GET", f"{API}/clients"),
        proof("GET", f"{API}/clients", bound.token, ECKey.generate_key("P-256")),
        proof("GET", f"{API}/clients", bound.token, iat=1),
        "x",
    ):
        answer = ask(wrong)
        assert_problem(answer, 401, "invalid-proof")
        assert answer.headers["WWW-Authenticate"].startswith("DPoP ")
    assert ask(proof("GET", f"{API}/clients", bound.token), path="/clients?limit=1").status_int == 200


def test_a_proof_from_before_a_restored_backup_is_not_taken(bound: Administrator) -> None:
    """T149: it may have been used, and the backup does not know."""
    sent = proof("GET", f"{API}/clients", bound.token)
    with bound.server.begin() as engine:
        engine.stores.generations.begin(engine.now)
    bound.server.application.parts.generation.read()
    answer = bound.ask("GET", "/clients", Authorization=f"DPoP {bound.token}", DPoP=sent)
    assert_problem(answer, 401, "invalid-proof")


def test_of_many_who_send_one_proof_at_once_one_is_let_in(make: Make, database_url: str) -> None:
    server = make(database_url)
    admin = administrator(server)
    answer = server.ask(
        "/oauth/token",
        admin.client,
        admin.secret,
        headers={"DPoP": proof("POST", f"{server.issuer}/oauth/token")},
        grant_type="client_credentials",
        resource=API,
        scope=READ,
    ).json
    token = answer["access_token"]
    sent = proof("GET", f"{API}/clients", token)
    statuses = at_once(
        4,
        lambda _: admin.ask("GET", "/clients", Authorization=f"DPoP {token}", DPoP=sent).status_int,
    )
    assert Counter(statuses) == {200: 1, 401: 3}


def test_without_the_plugin_no_bound_token_is_taken(make: Make) -> None:
    plugins = settings()["authserver.plugins"] or ""
    server = make(**{"authserver.plugins": plugins.replace(" dpop", "")})
    admin = administrator(server)
    answer = admin.ask("GET", "/clients", Authorization="")
    assert "DPoP" not in answer.headers["WWW-Authenticate"]


# ---- Idempotency keys -------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_answer(admin: Administrator) -> None:
    """ADM-07: The secret too, which is stored nowhere readable."""
    body = {"client_name": "Notes"}
    first = admin.ask("POST", "/clients", body, status=201, Idempotency_Key="one")
    again = admin.ask("POST", "/clients", body, status=201, Idempotency_Key="one")
    assert again.json == first.json and again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert len(events(admin.server, "client.registered")) == 2  # the administrator itself, and this one
    (kept,) = admin.server.rows("kept")
    secret = first.json["client_secret"]
    assert secret not in json.dumps(kept, default=str) and "client_id" not in kept["details"]
    other = admin.ask("POST", "/clients", body, status=201, Idempotency_Key="two")
    assert other.json["client_id"] != first.json["client_id"]


def test_another_request_with_the_same_key_is_refused(admin: Administrator) -> None:
    admin.ask("POST", "/clients", {"client_name": "a"}, status=201, Idempotency_Key="one")
    for path, body in (
        ("/clients", {"client_name": "b"}),
        ("/users", {"username": "a"}),
        ("/keys", {}),
    ):
        answer = admin.ask("POST", path, body, Idempotency_Key="one")
        assert_problem(answer, 422, "idempotency-key-reused")
    # The order of the members is nothing.
    body = {"client_name": "c", "scope": "profile"}
    first = admin.ask("POST", "/clients", body, status=201, Idempotency_Key="two").json
    turned = dict(reversed(body.items()))
    assert admin.ask("POST", "/clients", turned, status=201, Idempotency_Key="two").json == first


def test_keys_of_two_administrators_are_two(make: Make) -> None:
    server = make()
    one, other = administrator(server), administrator(server)
    first = one.ask("POST", "/clients", {"client_name": "a"}, status=201, Idempotency_Key="k").json
    second = other.ask("POST", "/clients", {"client_name": "a"}, status=201, Idempotency_Key="k").json
    assert first["client_id"] != second["client_id"]


def test_a_request_that_was_refused_may_be_sent_again(admin: Administrator) -> None:
    answer = admin.ask("POST", "/clients", {"client_name": ""}, Idempotency_Key="one")
    assert_problem(answer, 422, "invalid-members")
    admin.ask("POST", "/clients", {"client_name": "a"}, status=201, Idempotency_Key="one")


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
def test_a_key_that_cannot_be_one(shared: Administrator, key: str) -> None:
    answer = shared.ask("POST", "/clients", {"client_name": "a"}, Idempotency_Key=key)
    assert_problem(answer, 400, "invalid-idempotency-key")


def test_an_answer_that_cannot_be_opened_any_more_is_said_to_be_lost(make: Make, sqlite_url: str) -> None:
    """The key of the ring that sealed it has left."""
    server = make()
    admin = administrator(server)
    admin.ask("POST", "/users", {"username": "a"}, status=201, Idempotency_Key="one")
    lose_answers(server)
    answer = admin.ask("POST", "/users", {"username": "a"}, Idempotency_Key="one")
    assert_problem(answer, 409, "idempotency-answer-lost")


def test_after_a_day_a_key_is_free_again(admin: Administrator) -> None:
    """Whether clean-up has come by or not."""
    first = admin.ask("POST", "/users", {"username": "a"}, status=201, Idempotency_Key="one").json
    with time_machine.travel(time.time() + 3600 * 25, tick=True):
        later = Administrator(admin.server, admin.client, admin.secret, token_of(admin, EVERY))
        made = later.ask("POST", "/users", {"username": "b"}, status=201, Idempotency_Key="one")
        assert made.json["user_id"] != first["user_id"] and "Idempotency-Replayed" not in made.headers
        again = later.ask("POST", "/users", {"username": "b"}, status=201, Idempotency_Key="one")
        assert again.json == made.json and again.headers["Idempotency-Replayed"] == "true"
    assert len(admin.server.rows("kept")) == 1


def test_of_many_who_send_one_key_at_once_one_acts_and_all_get_its_answer(
    make: Make, database_url: str
) -> None:
    """ADM-07: On both databases."""
    server = make(database_url)
    admin = administrator(server)
    body = {"client_name": "Notes"}

    def send(_: int) -> tuple[int, str]:
        answer = admin.ask("POST", "/clients", body, Idempotency_Key="race")
        return answer.status_int, answer.json.get("client_secret", answer.json.get("detail"))

    answers = Counter(at_once(6, send))
    assert {status for status, _ in answers} == {201}
    assert len(answers) == 1
    assert len(events(server, "client.registered")) == 2


# ---- ETags ------------------------------------------------------------------------------------------------


def test_a_change_needs_the_etag_of_what_was_read(admin: Administrator) -> None:
    """ADM-08."""
    made = admin.ask("POST", "/clients", {"client_name": "a"}, status=201)
    path = f"/clients/{made.json['client_id']}"
    first = made.headers["ETag"]
    assert admin.etag(path) == first
    assert_problem(admin.ask("PATCH", path, {"client_name": "b"}), 428, "precondition-required")
    changed = admin.ask("PATCH", path, {"client_name": "b"}, If_Match=first, status=200)
    assert changed.headers["ETag"] == admin.etag(path) != first
    for stale in (first, "nonsense", f"W/{changed.headers['ETag']}", '""', f'{first}, "x"'):
        answer = admin.ask("PATCH", path, {"client_name": "c"}, If_Match=stale)
        assert_problem(answer, 412, "precondition-failed")
    assert admin.get(path)["client_name"] == "b"
    several = f'"x", {changed.headers["ETag"]}'
    admin.ask("PATCH", path, {"client_name": "c"}, If_Match=several, status=200)
    admin.ask("PATCH", path, {"client_name": "d"}, If_Match="*", status=200)


def test_whoever_has_it_already_is_told_so(admin: Administrator) -> None:
    """RFC 9110, 13.1.2."""
    user = admin.post("/users", {"username": "ann"})
    path = f"/users/{user['user_id']}"
    etag = admin.etag(path)
    answer = admin.ask("GET", path, If_None_Match=etag, status=304)
    assert answer.headers["ETag"] == etag and "Content-Type" not in answer.headers
    admin.patch(path, {"display_name": "Ann"})
    assert admin.ask("GET", path, If_None_Match=etag, status=200).headers["ETag"] != etag


def test_use_alone_does_not_change_the_etag_of_a_client(admin: Administrator) -> None:
    path = f"/clients/{admin.client.client_id}"
    before = admin.etag(path)
    with time_machine.travel(time.time() + 86_400 * 3, tick=True):
        later = administrator(admin.server)
        admin.server.token(
            admin.client, admin.secret, grant_type="client_credentials", scope=READ, resource=API
        )
        assert later.etag(path) == before


def test_of_two_changes_at_once_one_is_told_that_it_came_late(make: Make, database_url: str) -> None:
    """ADM-08."""
    server = make(database_url)
    admin = administrator(server)
    path = f"/clients/{admin.post('/clients', {'client_name': 'a'})['client_id']}"
    etag = admin.etag(path)
    statuses = at_once(
        4,
        lambda number: admin.ask("PATCH", path, {"client_name": f"name {number}"}, If_Match=etag).status_int,
    )
    assert Counter(statuses) == {200: 1, 412: 3}
    assert len(events(server, "client.changed")) == 1


# ---- Pages ------------------------------------------------------------------------------------------------


def test_a_list_is_read_page_by_page(admin: Administrator) -> None:
    """ADM-09: RFC 8288: by the link of each page, to the last."""
    names = [f"user{number:02}" for number in range(7)]
    for name in names:
        admin.server.add_user(name)
    found: list[str] = []
    address: str | None = "/users?limit=3&search=user"
    sizes = []
    while address:
        answer = admin.ask("GET", address, status=200)
        sizes.append(len(answer.json["items"]))
        found += [user["username"] for user in answer.json["items"]]
        link = re.fullmatch(r'<(.*)>; rel="next"', answer.headers.get("Link", ""))
        assert bool(link) is (answer.json["next"] is not None)
        address = link[1] if link else None
    assert found == names and sizes == [3, 3, 1]


@pytest.mark.parametrize("path", sorted(entry.path for entry in ENTRIES if entry.paged))
def test_a_page_has_at_most_a_hundred_and_a_cursor_is_of_one_list(shared: Administrator, path: str) -> None:
    """ADM-09: T146."""
    for limit in ("0", "101", "-1", "1e1", "", "x"):
        answer = shared.ask("GET", f"{path}?limit={limit}")
        if limit:
            assert_problem(answer, 400, "invalid-parameter")
    users = shared.ask("GET", "/clients?limit=1", status=200).json
    cursor = users["next"]
    if cursor is None:
        shared.server.add_client()
        cursor = shared.get("/clients?limit=1")["next"]
    changed = ("B" if cursor[0] == "A" else "A") + cursor[1:]
    for other in (changed, cursor[:-1], cursor + "A", "AAAA", "%C3%A9", "x" * 5000):
        assert_problem(shared.ask("GET", f"{path}?after={other}"), 400, "invalid-cursor")
    if path != "/clients":
        assert_problem(shared.ask("GET", f"{path}?after={cursor}"), 400, "invalid-cursor")
    else:
        assert shared.ask("GET", f"{path}?after={cursor}").status_int == 200
        assert_problem(shared.ask("GET", f"{path}?after={cursor}&search=x"), 400, "invalid-cursor")


def test_events_are_read_page_by_page_and_each_once(admin: Administrator) -> None:
    for number in range(5):
        admin.post("/users", {"username": f"user{number}"})
    seen: list[str] = []
    address: str | None = "/events?event=user.added&limit=2"
    while address:
        answer = admin.ask("GET", address, status=200)
        seen += [event["event_id"] for event in answer.json["items"]]
        link = re.fullmatch(r'<(.*)>; rel="next"', answer.headers.get("Link", ""))
        address = link[1] if link else None
    assert len(seen) == len(set(seen)) == 5


def test_a_search_through_many_ends_each_page_after_a_while(admin: Administrator) -> None:
    """A page may have nothing, and there is more."""
    with admin.server.begin() as engine:
        for number in range(LOOKED_AT + 5):
            engine.stores.users.add(a_user(user_id=f"user_{number}", username=f"name{number:05}"))
        engine.stores.users.add(a_user(user_id="user_z", username="zoe"))
    first = admin.get("/users?search=zoe")
    assert first["items"] == [] and first["next"]
    second = admin.get(f"/users?search=zoe&after={first['next']}")
    assert [user["username"] for user in second["items"]] == ["zoe"] and second["next"] is None


@given(text=st.text(min_size=1, max_size=50).filter(str.isprintable))
def test_every_id_has_one_address(text: str) -> None:
    segment = write_id(text)
    assert re.fullmatch(r"~?[A-Za-z0-9._-]+", segment)
    assert read_id(segment) == text


@given(segment=st.text(max_size=30))
def test_any_other_address_is_of_nothing(segment: str) -> None:
    with contextlib.suppress(NothingThere):
        assert write_id(read_id(segment)) == segment


# ---- What is sent -----------------------------------------------------------------------------------------

WITH_BODY = [entry for entry in ENTRIES if entry.body is not None]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.method} {entry.path}")
def test_what_is_sent_in_the_wrong_way_is_refused(shared: Administrator, entry: Entry) -> None:
    path = real(entry)
    answer = shared.ask(entry.method, f"{path}?what=ever", body_of(entry))
    assert_problem(answer, 400, "invalid-parameter")
    if entry.body is None:
        if entry.method != "GET":
            answer = shared.ask(entry.method, path, {"a": 1})
            assert_problem(answer, 400, "malformed-body")
        return
    wanted = "application/merge-patch+json" if entry.method == "PATCH" else "application/json"
    for media_type in ("", "text/plain", "application/x-www-form-urlencoded", "application/json-patch+json"):
        answer = shared.ask(entry.method, path, raw=b"{}", Content_Type=media_type)
        body = assert_problem(answer, 415, "unsupported-media-type")
        assert wanted in body["detail"]
        assert answer.headers["Accept-Patch" if entry.method == "PATCH" else "Accept"] == wanted
    answer = shared.ask(entry.method, path, raw=b"{}", Content_Encoding="gzip")
    assert_problem(answer, 415, "unsupported-media-type")
    answer = shared.ask(entry.method, path, raw=b" " * 70_000)
    assert answer.status_int == 413
    answer = shared.ask(entry.method, path, {"no_such_member": 1, "x/~": 2}, If_Match="*")
    body = assert_problem(answer, 422, "invalid-members")
    assert {"#/no_such_member", "#/x~1~0"} <= {error["pointer"] for error in body["errors"]}


@pytest.mark.parametrize("path", sorted({entry.path for entry in ENTRIES}))
def test_a_method_that_is_not_there_is_refused(shared: Administrator, path: str) -> None:
    there = {entry.method for entry in ENTRIES if entry.path == path}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - there:
        answer = shared.ask(method, re.sub(r"\{[a-z_]+\}", "some-id", path))
        assert_problem(answer, 405, "method-not-allowed")
        assert set(answer.headers["Allow"].split(", ")) == there


@pytest.mark.parametrize(
    "path", ["/client", "/clients/", "/clients/a/b", "/CLIENTS", "//clients", "/clients/%0A"]
)
def test_another_address_is_of_nothing(shared: Administrator, path: str) -> None:
    answer = shared.ask("GET", path)
    assert_problem(answer, 404, "not-found")


def test_hostile_json_is_never_a_failure(shared: Administrator) -> None:
    """Bodies that broke real servers, at each operation with a body; nothing is stored."""
    before = records(shared.server)
    bodies = {**forgeries.JSON, **forgeries.NO_OBJECTS, **{str(n): b for n, b in enumerate(hostile.METADATA)}}
    for number, entry in enumerate(WITH_BODY):
        # All are read in the same way, so one operation gets each of them, and the others some.
        for name, body in list(bodies.items())[number and 30 :]:
            answer = shared.ask(entry.method, real(entry), raw=body, If_Match="*")
            assert answer.status_int in (400, 404, 409, 413, 422), f"{entry.path}: {name}: {answer.text}"
            assert answer.content_type == "application/problem+json"
    assert records(shared.server) == before


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        [*hostile.CLIENT_NAMES, *hostile.SCOPES, *hostile.REDIRECT_URIS[:40], *hostile.USERNAMES]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_values_of_known_members_get_an_answer(shared: Administrator, data: st.DataObject) -> None:
    """Never a 500; each answer is one that the document describes (`admin_api_steps.ask`)."""
    entry = data.draw(st.sampled_from(WITH_BODY))
    members = data.draw(st.dictionaries(st.sampled_from([*(entry.body or {"reason": None}), "jwks"]), VALUES))
    path = entry.path.replace("{client_id}", shared.client.client_id).replace("{user_id}", "user_none")
    if entry.path in ("/keys", "/clients/{client_id}") or (entry.method, entry.path) == (
        "POST",
        "/clients/{client_id}/secrets",
    ):
        path = re.sub(r"\{[a-z_]+\}", "some-id", entry.path)
        members.setdefault("algorithm" if entry.path == "/keys" else "overlap", "wrong")
    path = re.sub(r"\{[a-z_]+\}", "some-id", path)
    answer = shared.ask(entry.method, path, members, If_Match="*")
    assert answer.status_int < 500, answer.text


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_parameters_of_an_address_get_an_answer(shared: Administrator, data: st.DataObject) -> None:
    entry = data.draw(st.sampled_from([entry for entry in ENTRIES if entry.method == "GET"]))
    names = st.sampled_from([*entry.query, "limit", "after", "x"])
    values = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
        ["true", "1", "ann", "2026-01-01", "token.issued", "new", "0001-01-01T00:00+14:00"]
    )
    query = urlencode(data.draw(st.lists(st.tuples(names, values), max_size=4)))
    assert shared.ask("GET", f"{real(entry)}?{query}").status_int < 500


# ---- The document -----------------------------------------------------------------------------------------


def test_the_document_has_every_operation_with_its_scope(shared: Administrator) -> None:
    """ADM-12."""
    made = document_of(shared.server)
    for entry in ENTRIES:
        operation = made["paths"][f"/admin/api{entry.path}"][entry.method.lower()]
        assert operation["security"] == [{"admin_api_token": [entry.scope] if entry.scope else []}]
        assert {item["name"] for item in operation.get("parameters", []) if item["in"] == "path"} == set(
            re.findall(r"\{([a-z_]+)\}", entry.path)
        )
    paths = {path.removeprefix("/admin/api") for path in made["paths"] if path.startswith("/admin/api")}
    assert paths == {entry.path for entry in ENTRIES}
    names = [op["operationId"] for path in made["paths"].values() for op in path.values()]
    assert len(names) == len(set(names))


def test_the_document_is_valid(shared: Administrator) -> None:
    schemathesis.openapi.from_dict(document_of(shared.server)).validate()


def test_each_status_that_is_described_occurs(make: Make, sqlite_url: str) -> None:
    """ADM-12: But for what comes of load, and of failures: 429, 500 and 503."""
    server = make()
    admin = administrator(server)
    limited = token_of(admin, READ)
    events_only = token_of(admin, "authserver:events:read")
    SEEN.clear()
    for entry in ENTRIES:
        path, body = real(entry), body_of(entry)
        admin.ask(entry.method, path, body, Authorization="")
        admin.ask(entry.method, path, body, Authorization="Bearer a b")
        admin.ask(entry.method, path, body, token=limited)
        admin.ask(entry.method, path, body, token=events_only)
        admin.ask(entry.method, f"{path}?what=ever", body, If_Match="*")
        key: Any = server.application.parts.signer._current()._active["ES256"]
        header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
        claims = {**server.claims(admin.token), "scope": "profile"}
        admin.ask(entry.method, path, body, token=forgeries.signed(header, claims, key.private))
        if entry.body is not None:
            admin.ask(entry.method, path, raw=b"{", If_Match="*")
            admin.ask(entry.method, path, raw=b"{}", Content_Type="text/plain", If_Match="*")
            admin.ask(entry.method, path, raw=b" " * 70_000, If_Match="*")
            admin.ask(entry.method, path, {"what": "ever"}, If_Match="*")
        if entry.method == "POST":
            admin.ask(entry.method, path, body, Idempotency_Key="a b")
        if entry.method == "PATCH":
            admin.ask(entry.method, path, body)
    _succeed(admin)
    made = document_of(server)
    described = {
        (entry.method, entry.path, int(status))
        for entry in ENTRIES
        for status in made["paths"][f"/admin/api{entry.path}"][entry.method.lower()]["responses"]
    }
    # A person who is changed by two at once, neither of whom names an ETag.
    of_a_race = {("PATCH", "/users/{user_id}", 409)}
    missing = described - SEEN - of_a_race
    assert sorted(each for each in missing if each[2] not in (429, 500, 503)) == []


def token_of(admin: Administrator, scope: str) -> str:
    answer = admin.server.token(
        admin.client, admin.secret, grant_type="client_credentials", resource=API, scope=scope
    )
    return str(answer.json["access_token"])


def _succeed(admin: Administrator) -> None:
    """Each operation once with success, with a stale ETag, with a reused key, and as it conflicts."""
    server = admin.server
    admin.post("/users", {"username": "other"}, Idempotency_Key="used")
    for entry in ENTRIES:
        if entry.method == "POST":
            # As another request than that of the key.
            admin.ask("POST", real(entry), body_of(entry), Idempotency_Key="used")
    client = f"/clients/{admin.post('/clients', {'client_name': 'a', 'client_id': 'one'})['client_id']}"
    admin.post("/clients", {"client_name": "a", "client_id": "one"}, status=409)
    user = f"/users/{admin.post('/users', {'username': 'bob'})['user_id']}"
    admin.post("/users", {"username": "bob"}, status=409)
    made = admin.ask("POST", "/resources", {"resource": "https://new.example/"}, status=201)
    resource = made.headers["Location"].removeprefix(API)
    files = f"/resources/{write_id('https://files.example/')}"
    server.add_user("ann")
    app, secret = server.add_client()
    server.redeem(app, secret, server.code(app, scope="profile"))
    (grant,) = [row for row in server.rows("grants") if row["user_id"]]
    grant_path = f"/grants/{grant['grant_id']}"
    token = f"/initial-tokens/{admin.post('/initial-tokens', {'policy': 'partners'})['initial_token']}"
    key = admin.ask("POST", "/keys", {}, status=201).headers["Location"].removeprefix(API)
    admin.post("/keys", {}, status=409)
    (event, *_) = admin.get("/events?event=user.added")["items"]
    for path in (client, user, resource, grant_path):
        admin.ask("GET", path, If_None_Match=admin.etag(path), status=304)
    admin.get(""), admin.get("/clients"), admin.get("/users"), admin.get("/grants"), admin.get("/consents")
    admin.get("/resources"), admin.get("/initial-tokens"), admin.get("/keys"), admin.get(key)
    admin.get(f"/events/{event['event_id']}")
    for path in (client, user, resource):
        admin.patch(path, {}, status=412, if_match='"stale"')
        admin.patch(path, {})
    admin.patch(files, {}, status=409)
    admin.ask("DELETE", grant_path, If_Match='"stale"', status=412)
    admin.ask("DELETE", grant_path, status=200), admin.ask("DELETE", grant_path, status=409)
    server.redeem(app, secret, server.code(app, scope="profile"))
    admin.ask("DELETE", f"/consents/{grant['user_id']}/{app.client_id}", status=200)
    admin.ask("DELETE", resource, If_Match='"stale"', status=412)
    admin.ask("DELETE", resource, status=200), admin.ask("DELETE", files, status=409)
    admin.ask("DELETE", token, status=204), admin.ask("DELETE", token, status=409)
    admin.post(f"{key}/revoke", {}, status=200), admin.post(f"{key}/revoke", {}, status=409)
    admin.post(f"{user}/sign-out", status=200)
    admin.post(f"{user}/password-link", {})
    with server.begin() as engine:
        elsewhere = an_identity(user_id=user.removeprefix("/users/"))
        engine.stores.identities.add(elsewhere)
    admin.get(f"{user}/identities")
    admin.ask("DELETE", f"{user}/identities/{identity_handle(elsewhere)}", status=204)
    admin.get(f"/ends{user.replace('users', 'user')}"), admin.post("/ends/scope/profile", {}, status=200)
    admin.get("/ends/client/one?registrations=true", 409)
    admin.post("/ends/client/one", {"registrations": True}, status=409)
    for path in ("", "/series?measure=issued", "/reasons", "/figures"):
        admin.get(f"/statistics{path}")
    admin.post(f"{user}/disable", status=200), admin.post(f"{user}/disable", status=409)
    admin.post(f"{user}/password-link", {}, status=409)
    admin.post(f"{user}/enable", status=200), admin.post(f"{user}/enable", status=409)
    admin.post(f"{client}/secrets", {}), admin.post(f"{client}/secrets", {}, status=409)
    (first, second) = admin.get(f"{client}/secrets")["items"]
    admin.ask("DELETE", f"{client}/secrets/{first['secret']}", status=204)
    admin.ask("DELETE", f"{client}/secrets/{second['secret']}", status=409)
    public, _ = server.add_client(token_endpoint_auth_method="none")
    admin.get(f"/clients/{public.client_id}/secrets", 409)
    admin.post(f"{client}/disable", status=200), admin.post(f"{client}/disable", status=409)
    admin.patch(client, {"client_name": "b"}, status=409)
    lost = (
        (f"{user}/sign-out", None),
        ("/resources", {"resource": "https://other.example/"}),
        ("/initial-tokens", {"policy": "partners"}),
    )
    for path, body in lost:
        assert admin.ask("POST", path, body, Idempotency_Key=f"lost-{path}").status_int in (200, 201)
    lose_answers(server)
    for path, body in lost:
        admin.ask("POST", path, body, status=409, Idempotency_Key=f"lost-{path}")


def lose_answers(server: Server) -> None:
    """Leave no answer that can be opened, as where the key of the ring that sealed them has left."""
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE kept SET details = json_set(details, '$.answer', 'AAAA')"))
