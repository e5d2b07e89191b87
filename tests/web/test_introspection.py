"""Introspection (RFC 7662): what a token is good for, told to whom it concerns, and to nobody else."""

from __future__ import annotations

from authserver.testing.stories import Granted, assert_inactive, is_active, stored


def test_an_active_access_token_is_described(granted: Granted) -> None:
    """M-05, A-03, M-08: in JSON, nothing personal, never cached; the cases are in tests/engine."""
    (user,) = granted.server.rows("users")
    for answer in (granted.introspect(granted.access), granted.introspect_as_api(granted.access)):
        assert answer.content_type == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert (answer.json["active"], answer.json["sub"]) == (True, user["user_id"])
        assert user["username"] not in answer.text
    assert_inactive(granted.introspect_as_api(granted.refresh))


def test_what_was_never_issued_is_inactive(granted: Granted) -> None:
    """M-03, T078, I-15: garbage, forgeries, credentials of other kinds; all alike, and none leaves a trace."""
    before, events = stored(granted.server), granted.server.events()
    for text in granted.never_issued():
        assert_inactive(granted.introspect(text))
    assert (stored(granted.server), granted.server.events()) == (before, events)


def test_another_client_is_told_nothing(granted: Granted) -> None:
    """M-03, T078: a foreign token is as good as none; the operator finds the refusal and its decisions."""
    other, secret = granted.server.add_client()
    for token in (granted.access, granted.refresh):
        assert_inactive(granted.server.introspect(other, secret, token))
    refused = granted.server.events("request.refused")
    assert [(row["client_id"], row["reason"]) for row in refused] == [
        (other.client_id, "nobody-answered")
    ] * 2
    assert all("introspection_decision" in str(row["decisions"]) for row in refused)
    assert not any(granted.access in str(row) or granted.refresh in str(row) for row in refused)


def test_no_page_may_read_the_answer(granted: Granted) -> None:
    """Q-01, T085: introspection is between servers."""
    answer = granted.server.ask(
        "/oauth/introspect",
        granted.client,
        granted.secret,
        headers={"Origin": "https://client.example"},
        token=granted.access,
    )
    assert is_active(answer)
    assert not any(name.lower().startswith("access-control-") for name in answer.headers)
