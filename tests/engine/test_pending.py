"""The rules of a pending request: whose it is, which form belongs to it, and what an answer given again gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from authserver import app
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.parameters import Parameters
from authserver.engine.pending import (
    ANSWERED_AGAIN,
    Browser,
    ForeignRequest,
    Pending,
    RequestAnswered,
    RequestExpired,
    answer_once,
    earlier_answer,
    form_handle,
    form_token,
    mark_of,
    seal,
    unseal,
)
from authserver.engine.records import TokenKind
from authserver.testing.records import NOW, a_client, a_grant, a_session, a_token, a_user
from authserver.testing.rules import over
from authserver.testing.server import SETTINGS
from authserver.testing.stores import MemoryStores

ASKED = int(NOW.timestamp())
PENDING = Pending(
    handle="h" * 22,
    request_id="r",
    asked_at=ASKED,
    expires_at=ASKED + 900,
    parameters=Parameters.parse("a=1&b=2"),
)
HERE = "https://client.example/cb?code=x"

Make = Callable[..., Engine]


@pytest.fixture
def make(memory_stores: MemoryStores) -> Make:
    """An engine at some time, over stores in memory."""
    built = app.build({**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"})
    parts = over(memory_stores, built.parts)

    def make(now: datetime = NOW) -> Engine:
        return Engine.of(parts, memory_stores, now)

    return make


@pytest.fixture
def browser(make: Make) -> Browser:
    marks = {PENDING.handle: mark_of(make(), PENDING.handle)}
    return Browser(session_id="session", user=a_user(), marks=marks)


@pytest.mark.parametrize("marks", [{}, {"h" * 22: ""}, {"h" * 22: "é"}, {"i" * 22: "mine"}])
def test_a_request_opens_in_the_marked_browser_alone(make: Make, browser: Browser, marks: dict) -> None:
    """T091: whoever has the address but not the cookie has nothing, not even when it has expired."""
    sealed = seal(make(), PENDING)
    assert unseal(make(), sealed, browser) == PENDING
    mine = browser.marks[PENDING.handle]
    other = replace(
        browser, marks={name: mine if value == "mine" else value for name, value in marks.items()}
    )
    for now in (NOW, NOW + timedelta(days=1)):
        with pytest.raises(ForeignRequest):
            unseal(make(now), sealed, other)


@pytest.mark.parametrize("as_sent", [True, False])
def test_an_expired_request_gives_back_what_was_sent(make: Make, browser: Browser, as_sent: bool) -> None:
    """E-02: so that it can be sent again, unless it was pushed."""
    sealed = seal(make(), replace(PENDING, as_sent=as_sent))
    with pytest.raises(RequestExpired) as expired:
        unseal(make(NOW + timedelta(seconds=900)), sealed, browser)
    assert expired.value.parameters == (PENDING.parameters if as_sent else None)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sign_in_again": True, "asked_at": NOW.timestamp()},
        {"sign_in_again": True, "why": "Éà", "user_id": "user_ada", "restarted_at": NOW.timestamp() + 0.25},
    ],
)
def test_a_request_comes_back_as_it_was_sealed(make: Make, browser: Browser, changes: dict) -> None:
    """E-02: its time to the microsecond."""
    pending = replace(PENDING, **changes)
    assert unseal(make(), seal(make(), pending), browser) == pending


@pytest.mark.parametrize(
    ("microseconds", "before"),
    # An hour ahead: the clock was set back since (T150).
    [(-1, False), (0, True), (1, True), (59_000_000, True), (3_600_000_000, False)],
)
def test_a_sign_in_of_the_same_second_may_be_older_than_a_request(microseconds: int, before: bool) -> None:
    """A session that was there counts for nothing where somebody must sign in for this very request."""
    pending = replace(PENDING, asked_at=NOW.timestamp())
    session = a_session(authenticated_at=NOW + timedelta(microseconds=microseconds))
    assert pending.began_before(session, NOW) is before
    assert not pending.began_before(None, NOW)


def test_a_form_token_is_of_one_request_and_one_user(make: Make, browser: Browser) -> None:
    """T161, E-03, E-04.a."""
    engine, ada = make(), a_user()
    token = form_token(engine, PENDING.handle, ada)
    assert form_handle(engine, browser, token, ada) == PENDING.handle
    assert form_handle(engine, browser, token, a_user(user_id="user_bob")) is None
    assert form_handle(engine, browser, token) is None
    assert form_handle(engine, replace(browser, marks={}), token, ada) is None
    for forged in ("", ".", "é", token[:-1], f"{'i' * 22}.{token.partition('.')[2]}"):
        assert form_handle(engine, browser, forged, ada) is None


def answer(make: Make, browser: Browser, **changes: Any) -> bool:
    values = {"given": "allow read", "location": HERE, **changes}
    return answer_once(make(), PENDING, a_client(), browser, **values)


@pytest.mark.parametrize(
    ("seconds", "given", "changes", "again"),
    [
        (0, "allow read", {}, True),
        (10, "allow read", {}, True),
        (10, None, {}, True),
        (10.001, "allow read", {}, False),
        (-10.001, "allow read", {}, False),
        (0, "allow", {}, False),
        (0, "deny", {}, False),
        (0, "allow read", {"session_id": "another"}, False),
        (0, "allow read", {"user": None}, False),
        (0, None, {"session_id": None, "user": None}, False),
    ],
)
def test_the_same_answer_of_the_same_session_leads_to_the_same_place(
    make: Make, browser: Browser, seconds: float, given: str | None, changes: dict, again: bool
) -> None:
    """E-05.b, T150: within the window, and either way from it when the clock was set back."""
    assert timedelta(seconds=10) == ANSWERED_AGAIN
    assert earlier_answer(make(), PENDING, a_client(), browser) is None
    assert answer(make, browser)
    assert not answer(make, browser, location="https://client.example/cb?code=y")
    later, other = make(NOW + timedelta(seconds=seconds)), replace(browser, **changes)
    if again:
        assert earlier_answer(later, PENDING, a_client(), other, given) == HERE
    else:
        with pytest.raises(RequestAnswered):
            earlier_answer(later, PENDING, a_client(), other, given)


def test_a_used_code_is_not_given_again(make: Make, browser: Browser, memory_stores: MemoryStores) -> None:
    """E-05.a: its second use would end the grant."""

    code = a_token(digest=digests.digest(TokenKind.CODE, "x"))
    memory_stores.grants.add(a_grant())
    memory_stores.tokens.add(code)
    assert answer(make, browser, code="x")
    assert earlier_answer(make(), PENDING, a_client(), browser) == HERE
    assert memory_stores.tokens.claim(code, NOW)
    with pytest.raises(RequestAnswered):
        earlier_answer(make(), PENDING, a_client(), browser)
