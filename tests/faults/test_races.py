"""What many do at the same moment to two processes, on both databases."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from urllib.parse import parse_qsl, urlsplit

import pytest

from authserver.testing.server import form_with
from authserver.testing.threads import at_once

TURNS = 25 if os.environ.get("AUTHSERVER_FAULTS") == "long" else 2
RESOURCE_TOKEN = {"grant_type": "client_credentials", "scope": "profile"}


def grant_of(cluster, access_token):
    """The id of the grant that a JWT access token belongs to: its jti begins with it."""
    return cluster.server.claims(access_token)["jti"].partition(".")[0]


@pytest.mark.parametrize("turn", range(TURNS))
def test_of_32_redemptions_of_one_code_one_succeeds(cluster, turn):
    """G-04, R-07, T031: a conditional write decides between two processes; T032: the replays revoke the grant."""
    client, secret = cluster.server.add_client()
    code = cluster.code(client)

    answers = at_once(32, lambda number: cluster.redeem(cluster.processes[number % 2], client, secret, code))

    assert Counter(answer.status for answer in answers) == {200: 1, 400: 31}
    assert {answer.json["error"] for answer in answers if answer.status == 400} == {"invalid_grant"}
    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}
    (won,) = [answer.json for answer in answers if answer.status == 200]
    grant_id = grant_of(cluster, won["access_token"])
    assert cluster.grant(grant_id)["revoked_reason"] == "code-replayed"
    assert len(cluster.tokens_of(grant_id, "refresh")) == 1
    assert len(cluster.events_of(grant_id, "token.issued")) == 1
    assert len(cluster.events_of(grant_id, "grant.revoked")) == 1
    assert len(cluster.events_of(grant_id, "token.refused")) == 31
    for process in cluster.processes:
        late = cluster.refresh(process, client, secret, won["refresh_token"])
        assert (late.status, late.json["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize("turn", range(TURNS))
def test_16_refreshes_of_one_token_get_one_successor(cluster, turn):
    """I-09, R-07, T063: racers get what a late retry gets, and the family does not fork."""
    client, secret = cluster.server.add_client()
    first = cluster.redeem(cluster.any_process(), client, secret, cluster.code(client)).json
    grant_id = grant_of(cluster, first["access_token"])

    answers = at_once(
        16,
        lambda number: cluster.refresh(cluster.processes[number % 2], client, secret, first["refresh_token"]),
    )

    assert Counter(answer.status for answer in answers) == {200: 16}
    successors = {answer.json["refresh_token"] for answer in answers}
    assert len(successors) == 1
    assert successors != {first["refresh_token"]}
    assert len(cluster.tokens_of(grant_id, "refresh")) == 2
    issued = [details_of(event) for event in cluster.events_of(grant_id, "token.issued")]
    assert Counter(details["retry"] for details in issued) == {False: 2, True: 15}
    assert cluster.grant(grant_id)["revoked_at"] is None
    assert cluster.refresh(cluster.any_process(), client, secret, successors.pop()).status == 200


@pytest.mark.parametrize("others", ["allow", "deny"])
def test_16_answers_to_one_consent_page_are_one_answer(cluster, others):
    """E-05.a, E-05.b: the same answer leads to the same place, with one code; the other answer sees a page that leads nowhere."""
    client, _ = cluster.server.add_client()
    browser = cluster.server.browser()
    cluster.server.sign_in(browser)
    form = form_with(browser.get(cluster.server.authorization_url(client)), "scope")
    forms = [form.submit_fields("answer", submit_value=value) for value in ("allow", others)]
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    before = cluster.server.rows("grants")

    answers = at_once(
        16,
        lambda number: cluster.processes[number // 2 % 2].post(
            "/oauth/consent", forms[number % 2], {"Cookie": cookie}
        ),
    )

    won = [answer for answer in answers if answer.status == 303]
    lost = [answer for answer in answers if answer.status == 400]
    assert (len(won), len(lost)) == ((16, 0) if others == "allow" else (8, 8))
    (location,) = {answer.headers["Location"] for answer in won}
    for answer in lost:
        assert answer.headers["Content-Type"].startswith("text/html")
        assert answer.headers["Location"] is None
        assert client.redirect_uris[0].encode() not in answer.body
    is_allowed = "code" in dict(parse_qsl(urlsplit(location).query))
    assert is_allowed or others == "deny"
    grants = [row for row in cluster.server.rows("grants") if row not in before]
    assert [len(cluster.tokens_of(grant["grant_id"], "code")) for grant in grants] == [1] * is_allowed
    events = [row for row in cluster.server.events() if row["client_id"] == client.client_id]
    refused = [row["reason"] for row in events if row["type"] == "authorization.refused"]
    assert refused == ["request-answered"] * len(lost)
    assert [row["type"] for row in events].count("consent.given") == is_allowed


def test_wrong_verifiers_at_once_are_all_counted_and_burn_the_code(cluster):
    """T035.b, T108: each failure is counted although its request is refused, by whichever process."""
    client, secret = cluster.server.add_client()
    code = cluster.code(client)
    wrong = {"grant_type": "authorization_code", "code": code, "code_verifier": "w" * 43}

    def guess(number):
        return cluster.token(cluster.processes[number % 2], client, secret, **wrong)

    assert {answer.json["error"] for answer in at_once(5, guess)} == {"invalid_grant"}
    late = cluster.redeem(cluster.any_process(), client, secret, code)
    assert (late.status, late.json["error"]) == (400, "invalid_grant")
    issued = [row for row in cluster.server.events("token.issued") if row["client_id"] == client.client_id]
    assert issued == []


def test_writers_of_two_processes_wait_for_each_other(cluster):
    """T110: 8 clients write without a pause, and nobody is told that the database is locked."""
    clients = [cluster.server.add_client(grant_types=("client_credentials",)) for _ in range(8)]
    turns = 25

    def write(number):
        client, secret = clients[number]
        process = cluster.processes[number % 2]
        return [cluster.token(process, client, secret, **RESOURCE_TOKEN) for _ in range(turns)]

    answers = [answer for batch in at_once(8, write) for answer in batch]

    assert Counter(answer.status for answer in answers) == {200: 8 * turns}
    for client, _ in clients:
        issued = [
            row for row in cluster.server.events("token.issued") if row["client_id"] == client.client_id
        ]
        assert len(issued) == turns
    assert "locked" not in "".join(process.log() for process in cluster.processes)


def test_readers_that_become_writers_wait_too(cluster):
    """T110: 8 redemptions of different codes read first and write then; each of them succeeds."""
    client, secret = cluster.server.add_client()
    codes = [cluster.code(client) for _ in range(24)]

    answers = at_once(24, lambda number: cluster.redeem(cluster.any_process(), client, secret, codes[number]))

    assert Counter(answer.status for answer in answers) == {200: 24}


def test_a_token_of_one_process_names_a_key_that_the_other_publishes(cluster):
    """N-07: before its first use, too: the key is published from the start."""
    published = [process.get("/oauth/jwks").json["keys"] for process in cluster.processes]
    assert published[0] == published[1]
    client, secret = cluster.server.add_client(grant_types=("client_credentials",))
    for process in cluster.processes:
        token = cluster.token(process, client, secret, **RESOURCE_TOKEN).json["access_token"]
        assert header_of(token)["kid"] in {key["kid"] for key in published[0]}
        assert cluster.server.claims(token)["client_id"] == client.client_id


def header_of(token):
    """The header of a JWT."""
    part = token.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def details_of(event):
    """The details of an event row: PostgreSQL reads JSON, SQLite hands out its text."""
    details = event["details"]
    return json.loads(details) if isinstance(details, str) else details
