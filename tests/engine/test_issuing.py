"""Issuing: what a grant type may order, whatever it is and whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from authserver import app
from authserver.engine.context import Engine, Issue, SingleUse
from authserver.engine.errors import InvalidGrant, OAuthError, ServerError
from authserver.engine.records import Client, TokenKind
from authserver.engine.tokens.issuing import AlreadyClaimed, issue
from authserver.testing.records import NOW, a_client, a_grant, a_token, a_user
from authserver.testing.rules import over
from authserver.testing.server import SETTINGS
from authserver.testing.stores import MemoryStores

OPAQUE = {"authserver.access_token_format": "opaque", "authserver.database_url": "sqlite:///never-opened.db"}
ANN = a_user()
CLIENT = a_client()
GRANT = a_grant(
    user_id=ANN.user_id, client_id=CLIENT.client_id, created_at=NOW, expires_at=NOW + timedelta(days=1)
)

Order = Callable[..., Issue]


@pytest.fixture
def engine(memory_stores: MemoryStores) -> Engine:
    memory_stores.users.add(ANN)
    parts = app.build({**SETTINGS, **OPAQUE}).parts
    parts = over(memory_stores, parts)
    return Engine.of(parts, memory_stores, NOW)


def order(**changes: Any) -> Issue:
    """What a grant type says of a new grant of ann, with changes."""
    values = {"grant": GRANT, "user": ANN, "scopes": ("profile",), "resources": (), "is_new": True}
    return Issue(**{**values, **changes})


def refused(engine: Engine, what: Issue, client: Client = CLIENT) -> OAuthError:
    """The refusal of an order; nothing is kept of it."""
    before = engine.stores.events.count(NOW)
    with pytest.raises(OAuthError) as caught, engine.stores.begin():
        issue(engine, client, what)
    assert engine.stores.events.count(NOW) == before
    return caught.value


def test_a_new_grant_of_a_person_is_kept_with_its_tokens(engine: Engine) -> None:
    """R-09: also where a refresh token goes with it, which belongs to the grant."""
    tokens = issue(engine, CLIENT, order(refreshable=True))
    assert tokens.refresh_token
    assert engine.stores.grants.list(NOW, user_id=ANN.user_id) == [GRANT]


FAULTY: dict[str, tuple[Issue, str]] = {
    "a grant that is said to be kept and is not": (order(is_new=False), "grant-not-kept"),
    "no user": (order(user=None), "grant-without-its-user"),
    "another user": (order(user=a_user(user_id="user_eve", username="eve")), "grant-without-its-user"),
    "a token of another grant": (
        order(is_new=False, spends=a_token(grant_id="grant_other")),
        "grant-of-another-token",
    ),
    "a kept token of another grant": (
        order(is_new=False, keeps=a_token(grant_id="grant_other", kind=TokenKind.REFRESH)),
        "grant-of-another-token",
    ),
}


@pytest.mark.parametrize(("what", "reason"), FAULTY.values(), ids=FAULTY)
def test_an_order_that_leaves_nothing_to_revoke_is_a_fault(
    engine: Engine, what: Issue, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R-09, R-14: server_error, and the log says which grant type."""
    grant = replace(what.grant, details={"grant_type": "urn:example:own"})
    refusal = refused(engine, replace(what, grant=grant))
    assert (type(refusal), refusal.reason) == (ServerError, reason)
    assert refusal.description == "The server could not answer this request."
    assert caplog.messages == [
        f"the grant type urn:example:own ordered what cannot be issued ({reason}): refusing; fix or remove it"
    ]
    assert engine.stores.grants.list(NOW) == []


def test_a_grant_that_is_there_already_is_not_new(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.stores.grants.add(GRANT)
    assert refused(engine, order()).reason == "grant-kept-already"
    assert "the grant type of the core ordered" in caplog.text


def test_a_grant_that_has_ended_gives_nothing(engine: Engine) -> None:
    """R-09: to a grant type that begins with a grant, such as an exchange of tokens."""
    engine.stores.grants.add(GRANT)
    issue(engine, CLIENT, order(is_new=False))
    engine.stores.grants.revoke(GRANT.grant_id, NOW, "over")
    tokens = len(engine.stores.tables.tokens)
    with pytest.raises(InvalidGrant) as caught:
        issue(engine, CLIENT, order(is_new=False))
    assert caught.value.reason == "grant-ended"
    assert len(engine.stores.tables.tokens) == tokens


def test_a_disabled_person_gets_nothing(engine: Engine) -> None:
    """R-09: whatever the grant type looked at."""
    refusal = refused(engine, order(user=replace(ANN, disabled_at=NOW)))
    assert (type(refusal), refusal.reason) == (InvalidGrant, "user-disabled")
    assert refusal.description == "The user may not sign in."


def test_a_person_who_is_disabled_meanwhile_gets_nothing(engine: Engine) -> None:
    """R-09, L-08: the grant type has read the user before."""
    engine.stores.users.disable(ANN.user_id, NOW)
    refusal = refused(engine, order())
    assert (type(refusal), refusal.reason) == (InvalidGrant, "user-disabled")
    assert refusal.description == "The user may not sign in."


def test_what_counts_once_counts_once(engine: Engine) -> None:
    """T051: the second order is refused with the refusal that came with the use, and keeps no grant."""
    use = SingleUse(
        purpose="ticket",
        text="one",
        since=NOW,
        until=NOW + timedelta(minutes=5),
        refusal=InvalidGrant("It was used before.", reason="ticket-used"),
    )
    issue(engine, CLIENT, order(uses=(use,)))
    second = replace(GRANT, grant_id="grant_2")
    assert refused(engine, order(grant=second, uses=(use,))).reason == "ticket-used"
    assert engine.stores.grants.find("grant_2") is None
    # For another purpose it is another thing.
    issue(engine, CLIENT, order(grant=second, uses=(replace(use, purpose="badge"),)))


def test_what_was_written_can_be_undone_before_all_is_asked_again(engine: Engine) -> None:
    """G-04: of an order whose credential is spent already nothing stays, and the transaction goes on."""
    stores = engine.stores
    stores.grants.add(GRANT)
    code = a_token(kind=TokenKind.CODE, grant_id=GRANT.grant_id, claimed_at=NOW)
    stores.tokens.add(code)
    use = SingleUse(
        purpose="p", text="t", since=NOW, until=NOW + timedelta(minutes=1), refusal=InvalidGrant("Used.")
    )
    with stores.begin():
        with pytest.raises(AlreadyClaimed):
            issue(engine, CLIENT, order(is_new=False, spends=code, uses=(use,)))
        stores.undo()
        assert len(stores.tables.tokens) == 1
        assert not stores.tables.kept
        issue(engine, CLIENT, order(is_new=False, uses=(use,)))
    assert len(stores.tables.tokens) == 2
    assert len(stores.tables.kept) == 1
