"""Floods of refusals on the wire: few events, each Reference leads somewhere, and nothing that matters is only counted."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from authserver.engine.crypto import digests
from authserver.engine.records import Event
from authserver.explaining.explain import Explanation, explain_event
from authserver.testing.server import REDIRECT_URI, VERIFIER, Server, basic, forged, with_plugin
from authserver.testing.service import self_registration
from authserver.upkeep import Caretaker

MakeServer = Callable[..., Server]
STORED = 10
# As many are stored as servers store unless they are told otherwise; other tests have no such limit.
USUAL = {"authserver.refusals_per_minute": None}
LONG_REGISTRATION = {
    "client_name": "n" * 100,
    "redirect_uris": [f"https://x.example/{number}/{'p' * 1_300}" for number in range(10)],
    "software_id": "s" * 1_500,
}


# Registration by initial access tokens, which strangers do not have.
WITH_TOKENS = with_plugin(
    "registration_token", {"tokens": forged("as_secret_")}, without=("registration_open",)
)


def explained(server: Server, error_id: str) -> tuple[Event, Explanation]:
    """What `authserver explain --error-id` finds."""
    with server.begin() as engine:
        event = engine.stores.events.find(error_id)
        assert event is not None
        return event, explain_event(engine, event, server.application.parts.policies)


def end_minute(server: Server) -> None:
    """Store what is held, as when its minute is over."""
    server.application.floods.store(everything=True)


def test_a_flood_of_wrong_secrets_is_a_few_events(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """T154: each answer has an id that leads to its kind, and each has a line in the log."""
    server = make_server(USUAL)
    client, secret = server.add_client(grant_types=("client_credentials",))
    caplog.set_level(logging.INFO, "authserver.web.refusals")
    wrong = forged("as_secret_")
    answers = [server.token(client, wrong, grant_type="client_credentials") for _ in range(200)]
    ids = [answer.json["error_id"] for answer in answers]
    assert len(server.events("token.refused")) == STORED
    assert len(set(ids)) == STORED + 1
    assert sum("token.refused" in message for message in caplog.messages) == 200
    assert all(any(f"error_id={error_id}" in line for line in caplog.messages) for error_id in ids)
    assert server.token(client, secret, grant_type="client_credentials").status_int == 200
    end_minute(server)
    assert len(server.events("token.refused")) == STORED + 1
    event, told = explained(server, ids[-1])
    assert event.client_id == client.client_id
    assert event.details["more"] == {"count": 189, "until": event.details["more"]["until"], "sources": 1}
    assert told.more["count"] == 189
    assert told.checks[-1].reason == event.reason == "secret-wrong"


def test_a_flood_hides_nothing_of_clients_and_people(make_server: MakeServer) -> None:
    """Refusals of who is authenticated, other kinds, and everything that was not refused, are stored each."""
    server = make_server(USUAL)
    server.add_user("ann")
    client, secret = server.add_client(grant_types=("client_credentials",))
    for _ in range(50):
        server.token(client, forged("as_secret_"), grant_type="client_credentials")
    for _ in range(2 * STORED):
        assert server.token(client, secret, grant_type="password").status_int == 400
    browser = server.browser()
    server.sign_in(browser)
    for _ in range(2 * STORED):
        browser.post(server.path("/account/password"), {"csrf_token": "x"}, expect_errors=True)
    server.http.get("/oauth/authorize?client_id=nobody", expect_errors=True)
    reasons = [(row["actor"].split(":")[0], row["reason"]) for row in server.events()]
    assert reasons.count(("client", "unsupported_grant_type")) == 2 * STORED
    assert reasons.count(("user", "form-token")) == 2 * STORED
    assert reasons.count(("stranger", "client-unknown")) == 1
    assert len(server.events("sign_in.succeeded")) == 1


def test_a_client_that_registered_itself_is_as_bounded_as_a_stranger(make_server: MakeServer) -> None:
    """T154: anybody can make one; each has an event of its own, by which its refusals are explained."""
    server = make_server(USUAL)
    metadata = self_registration(token_endpoint_auth_method="client_secret_basic")
    clients = [server.http.post_json("/oauth/register", metadata).json for _ in range(2)]
    answers = {}
    for made in clients:
        sent = {"Authorization": basic(made["client_id"], made["client_secret"])}
        for _ in range(30):
            body = f"grant_type={'x' * 5_000}"
            answers[made["client_id"]] = server.post("/oauth/token", body, headers=sent)
    assert {answer.status_int for answer in answers.values()} == {400}
    end_minute(server)
    rows = server.events("token.refused")
    assert len(rows) == STORED + 2
    assert max(bytes_of(server, row["event_id"]) for row in rows) <= 1_500
    for client_id, answer in answers.items():
        event, _ = explained(server, answer.json["error_id"])
        assert (event.client_id, event.actor) == (client_id, f"client:{client_id}")


def test_no_use_of_something_stolen_is_only_counted(make_server: MakeServer) -> None:
    """G-05, T108: a code that is used again revokes its grant, and a wrong verifier is counted at its code, in a flood too."""
    server = make_server({"authserver.refusals_per_minute": "1"})
    server.add_user("ann")
    public, _ = server.add_client(token_endpoint_auth_method="none")
    for _ in range(30):
        redeem(server, public, "junk")
        redeem(server, public, forged(digests.CODE))
    code, other = server.code(public), server.code(public)
    assert redeem(server, public, code).status_int == 200
    for _ in range(5):
        assert redeem(server, public, code).status_int == 400
    for _ in range(3):
        assert redeem(server, public, other, code_verifier="w" * 43).status_int == 400
    reasons = [row["reason"] for row in server.events("token.refused")]
    assert reasons.count("code-replayed") == 5
    assert reasons.count("verifier-wrong") >= 1
    (revoked,) = server.events("grant.revoked")
    assert revoked["reason"] == "code-replayed"
    end_minute(server)
    assert (
        sum(row["details"].get("more", {}).get("count", 0) for row in stored_refusals(server))
        == 30 + 30 - 2 - 2
    )


def redeem(server: Server, client: Any, code: str, **changes: str) -> Any:
    form = {"code": code, "redirect_uri": REDIRECT_URI, "code_verifier": VERIFIER, **changes}
    return server.token(client, None, grant_type="authorization_code", **form)


def stored_refusals(server: Server) -> list[dict[str, Any]]:
    rows = [row for row in server.events() if row["type"].endswith(".refused")]
    return [
        {**row, "details": json.loads(row["details"]) if isinstance(row["details"], str) else row["details"]}
        for row in rows
    ]


def test_the_reference_of_a_page_in_a_flood_leads_to_its_kind(make_server: MakeServer) -> None:
    server = make_server(USUAL)
    for _ in range(STORED + 5):
        page = server.http.get("/oauth/authorize?client_id=nobody", expect_errors=True)
    shown = page.html.select_one("code.whole").text
    end_minute(server)
    event, told = explained(server, shown)
    assert (event.reason, told.more["count"]) == ("client-unknown", 4)
    assert told.checks[-1].remedies


def test_who_is_refused_by_a_limit_is_counted_too(make_server: MakeServer) -> None:
    """Of a limit's refusals one is stored by itself, as before, and one with the number of the others."""
    rows = "strangers = authorization_request, source, 2, hour"
    server = make_server({**with_plugin("rate_limits", {"limits": rows}), **USUAL})
    client, _ = server.add_client()
    pages = [server.browser().get(server.authorization_url(client), expect_errors=True) for _ in range(12)]
    assert [page.status_int for page in pages].count(429) == 10
    end_minute(server)
    first, others = stored_refusals(server)
    assert {first["reason"], others["reason"]} == {"strangers"}
    assert sorted(row["details"].get("more", {}).get("count", 0) for row in (first, others)) == [0, 8]
    _, told = explained(server, pages[-1].html.select_one("code.whole").text)
    assert told.more["count"] == 8


@pytest.mark.parametrize("ends", ["request", "turn", "stop"])
def test_what_was_counted_is_stored_when_nothing_more_is_refused(
    ends: str, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next request of any kind, at the next turn of the clean-up, or at the end of the process."""
    server = make_server({"authserver.cleanup_interval": "1", **USUAL})
    for _ in range(STORED + 5):
        server.http.get("/oauth/authorize?client_id=nobody", expect_errors=True)
    assert len(server.events("authorization.refused")) == STORED
    application = server.application
    if ends != "stop":
        later = time.monotonic() + 61
        monkeypatch.setattr(application.floods, "_clock", lambda: later)
    if ends == "request":
        assert server.http.get("/static/style.css").status_int == 200
    elif ends == "turn":
        caretaker = Caretaker(
            application.storage, application.parts.ring, application.parts.settings, application.floods
        )
        caretaker.start()
        deadline = time.monotonic() + 20
        while len(server.events("authorization.refused")) == STORED and time.monotonic() < deadline:
            time.sleep(0.1)
        caretaker.stop()
    else:
        application.close()
    rows = stored_refusals(server)
    assert len(rows) == STORED + 1
    assert sorted(row["details"].get("more", {}).get("count", 0) for row in rows)[-1] == 4


def test_a_registration_that_was_cut_is_explained_as_cut(make_server: MakeServer) -> None:
    """What is shown is a part, said to be one, and no command is made of it."""
    server = make_server(WITH_TOKENS)
    answer = server.http.post_json("/oauth/register", LONG_REGISTRATION, expect_errors=True)
    event, told = explained(server, answer.json["error_id"])
    (check,) = told.checks
    assert check.cut["facts.metadata.redirect_uris"].startswith("10 items")
    assert check.facts["metadata"]["client_name"]
    assert event.details["description"] == answer.json["error_description"]
    long = f"https://other.example/{'p' * 1_500}"
    client, _ = server.add_client()
    page = server.http.get(server.authorization_url(client, redirect_uri=long), expect_errors=True)
    _, told = explained(server, page.html.select_one("code.whole").text)
    (check,) = told.checks
    assert check.cut == {"facts.redirect_uri": f"{len(long)} characters"}
    assert check.remedies
    assert not any("ppp" in remedy for remedy in check.remedies)


# ---- Bytes -----------------------------------------------------------------------------------------


def maximal(server: Server) -> dict[str, tuple[str, str, dict[str, str]]]:
    """The longest requests of a stranger that reach the rules, by the path: body, query and headers."""
    client, _ = server.add_client()
    long = "z" * 2_000
    form = "&".join(
        [
            *(f"{name}={long}" for name in ("client_id", "client_secret", "code", "refresh_token", "token")),
            "grant_type=x",
        ]
    )
    scopes = "+".join(f"scope-{number}-{'s' * 80}" for number in range(40))
    query = f"client_id={client.client_id}&response_type=code&redirect_uri=https://x.example/{long}&scope={scopes}&state={long}"
    json_text = {"Content-Type": "application/json"}
    return {
        "/oauth/register": (json.dumps(LONG_REGISTRATION), "", json_text),
        "/oauth/authorize": (query, query, {}),
        "/login": (f"csrf_token={long}&username={long}&password={long}", "", {}),
        "*": (form, f"request={long}", {}),
    }


def test_no_refusal_of_a_stranger_is_large(make_server: MakeServer) -> None:
    """T154: at every endpoint, with the longest that it reads; the whole row."""
    server = make_server(WITH_TOKENS)
    longest = maximal(server)
    headers = {
        "User-Agent": "u" * 2_000,
        "Accept-Language": "a" * 900,
        "Authorization": "Basic " + "x" * 4_000,
    }
    for path, route in server.wsgi.registry.paths.items():
        body, query, more = longest.get(path, longest["*"])
        for sent in ({}, headers):
            if "POST" in route.methods:
                kind = more.get("Content-Type", "application/x-www-form-urlencoded")
                server.http.post(path, body, headers=sent, content_type=kind, expect_errors=True)
            server.http.request(f"{path}?{query}", method="GET", headers=sent, expect_errors=True)
            server.http.request(path, method="DELETE", headers=sent, expect_errors=True)
    end_minute(server)
    rows = stored_refusals(server)
    assert {row["type"] for row in rows} >= {
        "registration.refused",
        "token.refused",
        "authorization.refused",
        "sign_in.refused",
    }
    sizes = {row["event_id"]: bytes_of(server, row["event_id"]) for row in rows}
    assert max(sizes.values()) <= 1_500, max(rows, key=lambda row: sizes[row["event_id"]])


def bytes_of(server: Server, event_id: str) -> int:
    """The bytes of all columns of an event."""
    with server.application.storage.engine.connect() as connection:
        row = connection.execute(sa.text("SELECT * FROM events WHERE event_id = :id"), {"id": event_id}).one()
    return sum(
        len(str(value if not isinstance(value, list | dict) else json.dumps(value)).encode())
        for value in row
        if value is not None
    )
