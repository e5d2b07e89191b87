"""What a request keeps and what a refused one drops, seen by another connection, on both databases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response

from authserver.api import Medium, Route, hookimpl
from authserver.engine.errors import InvalidRequest
from authserver.engine.records import ClientSecret
from authserver.engine.upkeep_records import Disposable
from authserver.storage.tables import Base
from authserver.testing.records import (
    NOW,
    a_client,
    a_consent,
    a_grant,
    a_kept_record,
    a_ring_key,
    a_session,
    a_signing_key,
    a_token,
    a_user,
    an_event,
)
from authserver.testing.server import SETTINGS, forged, form_with, query_of

LATER = NOW + timedelta(seconds=5)
MUCH_LATER = NOW + timedelta(days=2)
OTHER_KEY = {"kid": "other", "algorithm": "EdDSA"}
A_KEY = a_signing_key(algorithm="RS256")
A_SECRET = ClientSecret(digest=b"secret", key_id="k", created_at=NOW)
# In an order in which each of them still has something to change.
WRITES = {
    "clients.add": lambda stores: stores.clients.add(a_client(client_id="new")),
    "clients.disable": lambda stores: stores.clients.disable("reports", LATER),
    "clients.add_secret": lambda stores: stores.clients.add_secret(
        "reports", ClientSecret(digest=b"d", key_id="k", created_at=NOW)
    ),
    "clients.change_secret": lambda stores: stores.clients.change_secret(
        "reports", A_SECRET, replace(A_SECRET, last_used_at=LATER)
    ),
    "clients.note_secret": lambda stores: stores.clients.note_secret(
        "reports", replace(A_SECRET, last_used_at=LATER), A_SECRET
    ),
    "users.add": lambda stores: stores.users.add(a_user(user_id="user_new", username="new")),
    "users.disable": lambda stores: stores.users.disable("user_ada", LATER),
    "users.set_password": lambda stores: stores.users.set_password("user_ada", "another"),
    "grants.add": lambda stores: stores.grants.add(a_grant(grant_id="new")),
    "tokens.add": lambda stores: stores.tokens.add(a_token(digest=b"new")),
    "tokens.note_failure": lambda stores: stores.tokens.note_failure(a_token(), LATER, limit=3),
    "tokens.extend": lambda stores: stores.tokens.extend(a_token(), LATER),
    "tokens.claim": lambda stores: stores.tokens.claim(a_token(), LATER),
    # After the claim, which it would prevent.
    "grants.revoke": lambda stores: stores.grants.revoke("grant_1", LATER, "replayed"),
    "grants.touch": lambda stores: stores.grants.touch("grant_1", LATER),
    "grants.revoke_of_user": lambda stores: stores.grants.revoke_of_user("user_ada", LATER, "left"),
    "grants.revoke_next": lambda stores: stores.grants.revoke_next(LATER, "restored", limit=10),
    "kept.add_once": lambda stores: stores.kept.add_once(a_kept_record(digest=b"new")),
    "kept.change": lambda stores: stores.kept.change(
        a_kept_record(), replace(a_kept_record(), client_id="reports")
    ),
    "kept.claim": lambda stores: stores.kept.claim(a_kept_record(client_id="reports"), LATER),
    "consents.remember": lambda stores: stores.consents.remember(a_consent()),
    "consents.forget": lambda stores: stores.consents.forget("user_ada", "reports"),
    "consents.forget_client": lambda stores: stores.consents.forget_client("weather"),
    "consents.forget_some": lambda stores: stores.consents.forget_some(10),
    "events.add": lambda stores: stores.events.add(an_event()),
    "sessions.add": lambda stores: stores.sessions.add(a_session(digest=b"new")),
    "sessions.touch": lambda stores: stores.sessions.touch(a_session().digest, LATER),
    "sessions.end": lambda stores: stores.sessions.end(a_session().digest),
    "sessions.end_all": lambda stores: stores.sessions.end_all("user_ada"),
    "sessions.end_some": lambda stores: stores.sessions.end_some(10),
    "keys.add": lambda stores: stores.signing_keys.add(a_signing_key(**OTHER_KEY)),
    "keys.change": lambda stores: stores.signing_keys.change(A_KEY, replace(A_KEY, retires_at=LATER)),
    "ring_keys.add": lambda stores: stores.ring_keys.add(a_ring_key()),
    "generations.begin": lambda stores: stores.generations.begin(LATER),
    "upkeep.remove": lambda stores: stores.upkeep.remove(Disposable.GRANTS, MUCH_LATER, limit=10),
    "upkeep.take_lease": lambda stores: stores.upkeep.take_lease("work", "me", LATER, MUCH_LATER),
    "upkeep.end_lease": lambda stores: stores.upkeep.end_lease("work", "me"),
}


@dataclass(frozen=True)
class OneWrite:
    """A page that does one write and then answers, raises a redirect, or refuses; and the same for programs."""

    @hookimpl
    def includeme(self, config):
        config.add_route("one_write", "/one-write/{write}/{ending}")
        config.add_view(lambda request: self.answer(request, **request.matchdict), route_name="one_write")
        config.add_endpoint(Route("one_write.json", "/one-write.json", ("GET",), Medium.JSON), self.endpoint)

    def endpoint(self, request):
        assert (request.matched_route.name, request.matchdict) == ("one_write.json", {})
        assert "tm" not in request.__dict__
        return self.answer(request, *request.environ["QUERY_STRING"].split("/"))

    def answer(self, request, write, ending):
        WRITES[write](request.engine.stores)
        match ending:
            case "returned-error":
                return Response("no", status=400)
            case "raised-redirect":
                raise HTTPFound("/")
            case "refusal":
                raise InvalidRequest("no")
        return Response("done")


@pytest.fixture
def server(make_server, database_url):
    server = make_server(database_url=database_url)
    server.add_user("ann")
    return server


@pytest.fixture
def filled(make_server, database_url):
    """A server with the page of `OneWrite`, and rows for it to change."""
    plugins = f"{SETTINGS['authserver.plugins']}\n        {__name__}:OneWrite"
    server = make_server({"authserver.plugins": plugins}, database_url=database_url)
    with server.application.begin() as engine:
        engine.stores.clients.add(a_client(secrets=(A_SECRET,)))
        engine.stores.users.add(a_user())
        engine.stores.signing_keys.add(A_KEY)
        engine.stores.grants.add(a_grant())
        engine.stores.grants.add(a_grant(grant_id="grant_2", user_id="user_ada"))
        engine.stores.tokens.add(a_token())
        engine.stores.kept.add_once(a_kept_record())
        engine.stores.sessions.add(a_session())
        engine.stores.users.add(a_user(user_id="user_bob", username="bob"))
        engine.stores.sessions.add(a_session(digest=b"of bob", user_id="user_bob"))
        engine.stores.consents.remember(a_consent(client_id="notes"))
        engine.stores.consents.remember(a_consent(client_id="weather"))
        engine.stores.upkeep.take_lease("work", "me", NOW, LATER)
    return server


def contents(server):
    """Every row of every table, seen through a connection of its own."""
    with server.application.storage.engine.connect() as connection:
        return {
            table.name: {repr(row) for row in connection.execute(sa.text(f"SELECT * FROM {table.name}"))}
            for table in Base.metadata.sorted_tables
        }


def changed(before, after):
    """How many rows of which tables came (or changed), and how many went."""
    return {
        name: (len(after[name] - before[name]), len(before[name] - after[name]))
        for name in after
        if after[name] != before[name]
    }


@pytest.mark.parametrize("ending", ["answer", "returned-error"])
def test_the_only_write_of_a_request_is_kept(filled, ending):
    """T107: zope.sqlalchemy sees no write by Core; what a view wrote before it returned is committed."""
    for write in WRITES:
        before = contents(filled)
        answer = filled.http.get(f"/one-write/{write}/{ending}", expect_errors=True)
        assert answer.status_int == (200 if ending == "answer" else 400), write
        assert changed(before, contents(filled)), write


@pytest.mark.parametrize("ending", ["raised-redirect", "refusal"])
def test_the_write_of_a_request_that_raises_is_gone(filled, ending):
    """T108: what is raised rolls back, redirects too; nothing half-done is left, but a refusal's own event."""
    kept = {"events": (1, 0)} if ending == "refusal" else {}
    for write in WRITES:
        before = contents(filled)
        answer = filled.http.get(f"/one-write/{write}/{ending}", expect_errors=True)
        assert answer.status_int in (302, 400), write
        assert changed(before, contents(filled)) == kept, write


def test_an_endpoint_for_programs_keeps_and_drops_the_same(filled):
    """T107, T108: its transaction is not that of pyramid_tm."""
    for write, ending, expected in (
        ("grants.touch", "raised-redirect", {}),
        ("grants.touch", "refusal", {"events": (1, 0)}),
        ("grants.touch", "answer", {"grants": (1, 1)}),
        ("users.disable", "returned-error", {"users": (1, 1)}),
    ):
        before = contents(filled)
        filled.http.get(f"/one-write.json?{write}/{ending}", expect_errors=True)
        assert changed(before, contents(filled)) == expected, ending


def test_a_replayed_code_revokes_although_the_request_is_refused(server):
    """T032, T108, R-08, G-05: the grant, its event and the refusal's own event are there afterwards."""
    client, secret = server.add_client()
    code = server.code(client)
    tokens = server.redeem(client, secret, code).json
    before = contents(server)

    replay = server.redeem(client, secret, code)

    assert (replay.status_int, replay.json["error"]) == (400, "invalid_grant")
    assert changed(before, contents(server)) == {"grants": (1, 1), "events": (2, 0)}
    (grant,) = server.rows("grants")
    assert (grant["revoked_reason"], grant["revoked_at"] is None) == ("code-replayed", False)
    (revoked,) = server.events("grant.revoked")
    assert (revoked["grant_id"], revoked["client_id"]) == (grant["grant_id"], client.client_id)
    (refused,) = server.events("token.refused")
    assert (refused["reason"], refused["event_id"]) == ("code-replayed", replay.json["error_id"])
    assert server.refresh(client, secret, tokens["refresh_token"]).json["error"] == "invalid_grant"


def test_a_replay_after_the_first_one_revokes_nothing_more(server):
    """T032, R-08: the revocation is told once, each refusal for itself."""
    client, secret = server.add_client()
    code = server.code(client)
    assert server.redeem(client, secret, code).status_int == 200
    for _ in range(3):
        assert server.redeem(client, secret, code).json["error"] == "invalid_grant"
    assert len(server.events("grant.revoked")) == 1
    assert len(server.events("token.refused")) == 3


def test_a_wrong_verifier_is_counted_although_the_request_is_refused(server):
    """R-08, T108, T035.b: the counter survives, and at its limit the code is dead even for its owner."""
    client, secret = server.add_client()
    code = server.code(client)
    for failures in range(1, 6):
        before = contents(server)
        answer = server.redeem(client, secret, code, code_verifier="w" * 43)
        assert (answer.status_int, answer.json["error"]) == (400, "invalid_grant")
        assert changed(before, contents(server)) == {"tokens": (1, 1), "events": (1, 0)}
        (stored,) = (row for row in server.rows("tokens") if row["kind"] == "code")
        assert (stored["failures"], stored["claimed_at"] is not None) == (failures, failures == 5)
    answer = server.redeem(client, secret, code)
    assert (answer.status_int, answer.json["error"]) == (400, "invalid_grant")
    assert {row["kind"] for row in server.rows("tokens")} == {"code"}


def test_reuse_of_a_refresh_token_revokes_although_the_request_is_refused(make_server, database_url):
    """R-08, T108, I-06."""
    server = make_server({"authserver.refresh_token_retry_window": "0"}, database_url=database_url)
    server.add_user("ann")
    client, secret = server.add_client()
    first = server.redeem(client, secret, server.code(client)).json["refresh_token"]
    second = server.refresh(client, secret, first).json["refresh_token"]
    before = contents(server)

    answer = server.refresh(client, secret, first)

    assert (answer.status_int, answer.json["error"]) == (400, "invalid_grant")
    assert changed(before, contents(server)) == {"grants": (1, 1), "events": (2, 0)}
    assert server.events("token.refused")[-1]["reason"] == "refresh-token-reused"
    assert server.refresh(client, secret, second).json["error"] == "invalid_grant"


TOKEN_REFUSALS = {
    "secret": ({"grant_type": "client_credentials"}, forged("as_secret_"), 401, "invalid_client"),
    "grant-type": ({"grant_type": "password"}, None, 400, "unsupported_grant_type"),
    "code": ({"grant_type": "authorization_code", "code": "x", "code_verifier": "v" * 43}, None, 400, "invalid_grant"),
    "scope": ({"grant_type": "client_credentials", "scope": "admin"}, None, 400, "invalid_scope"),
    "parameter": ({"grant_type": ["a", "b"]}, None, 400, "invalid_request"),
}  # fmt: skip


@pytest.mark.parametrize("refusal", TOKEN_REFUSALS)
def test_a_refused_token_request_leaves_its_event_alone(server, refusal):
    """T108: one row of one table, under the id that the client was told."""
    form, wrong, status, error = TOKEN_REFUSALS[refusal]
    client, secret = server.add_client(grant_types=("client_credentials", "authorization_code"))
    before = contents(server)
    answer = server.token(client, wrong or secret, **form)
    assert (answer.status_int, answer.json["error"]) == (status, error)
    assert changed(before, contents(server)) == {"events": (1, 0)}
    (event,) = server.events("token.refused")
    assert event["event_id"] == answer.json["error_id"]
    assert event["reason"]


def test_a_refused_authorization_request_leaves_its_event_alone(server):
    """T108: as a page, and as a redirect."""
    client, _ = server.add_client()
    browser = server.browser()
    server.sign_in(browser)
    before = contents(server)
    page = browser.get(
        server.authorization_url(client, redirect_uri="https://evil.example/"), expect_errors=True
    )
    assert (page.status_int, page.location) == (400, None)
    assert changed(before, contents(server)) == {"events": (1, 0)}
    redirect = browser.get(server.authorization_url(client, code_challenge=None))
    assert (redirect.status_int, query_of(redirect)["error"]) == (303, "invalid_request")
    assert changed(before, contents(server)) == {"events": (2, 0)}
    assert len(server.events("authorization.refused")) == 2


def test_a_second_answer_to_a_request_leaves_its_event_alone(server):
    """E-05.a, T108: the consent and the grant that it would have meant are rolled back."""
    client, secret = server.add_client()
    browser = server.browser()
    server.sign_in(browser)
    page = browser.get(server.authorization_url(client))
    # A code that arrived is not sent once more.
    assert server.redeem(client, secret, query_of(server.consent(page))["code"]).status_int == 200
    before = contents(server)
    again = server.consent(page)
    assert (again.status_int, again.location) == (400, None)
    assert changed(before, contents(server)) == {"events": (1, 0)}
    assert [row["reason"] for row in server.events("authorization.refused")] == ["request-answered"]


def test_a_refused_sign_in_leaves_its_event_alone(server):
    """T108: the failure is on record, and nobody is signed in."""
    before = contents(server)
    assert server.sign_in(server.browser(), password="wrong").status_int == 400
    assert changed(before, contents(server)) == {"events": (1, 0)}
    assert len(server.events("sign_in.refused")) == 1


def test_a_refused_registration_leaves_its_event_alone(server):
    """T108."""
    before = contents(server)
    answer = server.http.post_json(
        "/oauth/register", {"redirect_uris": ["http://evil.example/"]}, expect_errors=True
    )
    assert (answer.status_int, answer.json["error"]) == (400, "invalid_redirect_uri")
    assert changed(before, contents(server)) == {"events": (1, 0)}
    (event,) = server.events("registration.refused")
    assert event["event_id"] == answer.json["error_id"]


def test_a_refused_consent_is_kept_although_the_client_is_told_an_error(server):
    """E-07, T108: the redirect is returned, so that the answer counts and cannot be changed afterwards."""
    client, _ = server.add_client()
    browser = server.browser()
    server.sign_in(browser)
    page = browser.get(server.authorization_url(client))
    before = contents(server)
    declined = form_with(page, "scope").submit("answer", value="deny")
    assert query_of(declined)["error"] == "access_denied"
    assert changed(before, contents(server)) == {"events": (1, 0), "kept": (1, 0)}
    assert len(server.events("consent.refused")) == 1
    assert server.consent(page).status_int == 400
