"""Each grant of a person is kept, whatever grant type it came by: so it is shown, revoked and ended as every other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from authserver import upkeep
from authserver.engine.operators import grant as described
from authserver.engine.people.account import revoke_grant, set_password, sign_out_everywhere
from authserver.engine.people.login import disable_user
from authserver.engine.upkeep_records import Disposable
from authserver.testing.server import Server, form_with, with_plugin
from authserver.testing.stories import assert_inactive, assert_json_error, is_active, signed_in

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
BADGE = "urn:example:grant-type:badge"
OWN = "client_credentials"


class Badged:
    """A server with a plugin's own grant type, and a client with a token of ann that came by it."""

    def __init__(self, database_url: str, token_format: str = "jwt") -> None:
        settings = with_plugin("badges:Badges", {"badges": "b-17 = ann\nb-18 = bob"})
        self.server = Server(database_url, {**settings, "authserver.access_token_format": token_format})
        self.user = self.server.add_user("ann")
        self.client, self.secret = self.server.add_client(grant_types=(BADGE, OWN))
        self.token = self.ask("b-17")
        assert is_active(self.introspect())

    def ask(self, badge: str) -> str:
        answer = self.server.token(self.client, self.secret, grant_type=BADGE, badge=badge)
        assert answer.status_int == 200, answer.text
        return str(answer.json["access_token"])

    def introspect(self, token: str | None = None) -> Any:
        return self.server.introspect(self.client, self.secret, token or self.token)


@pytest.fixture(params=["jwt", "opaque"])
def badged(
    request: pytest.FixtureRequest, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Badged]:
    monkeypatch.syspath_prepend(EXAMPLES)
    badged = Badged(sqlite_url, request.param)
    yield badged
    badged.server.close()


def disconnect_at_the_account_page(badged: Badged) -> None:
    browser = signed_in(badged.server)
    page = form_with(browser.get("/account/apps"), "disconnect").submit("disconnect").follow()
    assert "has ended" in page.text


def in_the_engine(rule: Callable[..., Any]) -> Callable[[Badged], None]:
    def run(badged: Badged) -> None:
        with badged.server.application.begin() as engine:
            rule(engine, badged)

    return run


ENDINGS: dict[str, Callable[[Badged], None]] = {
    "signing out everywhere (I-14)": in_the_engine(lambda engine, it: sign_out_everywhere(engine, it.user)),
    "another password (I-14)": in_the_engine(
        lambda engine, it: set_password(engine, it.user, "another one, long")
    ),
    "a disabled user (R-09)": in_the_engine(lambda engine, it: disable_user(engine, "ann")),
    "revoking the grant (E-16)": in_the_engine(
        lambda engine, it: revoke_grant(engine, it.server.rows("grants")[0]["grant_id"])
    ),
    "the account page (E-16)": disconnect_at_the_account_page,
    "its client (L-07)": lambda it: it.server.revoke(it.client, it.secret, it.token),
}


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_whatever_ends_grants_ends_those_of_a_plugins_grant_type(
    badged: Badged, end: Callable[[Badged], None]
) -> None:
    """T157, R-09, E-16, I-14: introspection says so at once."""
    end(badged)
    assert_inactive(badged.introspect())


def test_the_account_page_and_the_list_say_what_made_it(badged: Badged) -> None:
    """E-16: the person was not asked here, and sees who or what let the application in."""
    page = signed_in(badged.server).get("/account/apps")
    assert BADGE in page.text
    assert "You were not asked about this here" in page.text
    with badged.server.application.begin() as engine:
        (grant,) = engine.stores.grants.list(engine.now, user_id=badged.user.user_id)
    assert described(grant, {})["let_in_by"] == BADGE


def test_two_of_them_end_apart(badged: Badged) -> None:
    """E-16: the other one goes on."""
    other = badged.ask("b-17")
    browser = signed_in(badged.server)
    page = browser.get("/account/apps")
    assert "It was allowed 2 times" in page.text
    with badged.server.application.begin() as engine:
        assert revoke_grant(engine, json_of(badged, other), of=badged.user)
    assert is_active(badged.introspect())
    assert_inactive(badged.introspect(other))


def json_of(badged: Badged, token: str) -> str:
    """The id of the grant that a token belongs to."""
    return str(badged.introspect(token).json["jti"]).partition(".")[0]


def test_the_clean_up_removes_them_when_they_have_ended(badged: Badged) -> None:
    """T116: the grant goes by its own time, and its tokens along."""
    later = datetime.now(UTC) + timedelta(days=400)
    with time_machine.travel(later), badged.server.application.begin() as engine:
        for kind in (Disposable.TOKENS, Disposable.GRANTS):
            engine.stores.upkeep.remove(kind, upkeep.cutoffs(engine.settings, later)[kind], limit=100)
    assert badged.server.rows("grants") == badged.server.rows("tokens") == []


def test_a_token_of_nobody_keeps_no_grant(badged: Badged) -> None:
    """Design, speed: a JWT of a client for itself says it all."""
    before = len(badged.server.rows("grants"))
    answer = badged.server.token(badged.client, badged.secret, grant_type=OWN)
    assert answer.status_int == 200
    is_jwt = answer.json["access_token"].startswith("eyJ")
    assert len(badged.server.rows("grants")) == before + (not is_jwt)


def test_a_disabled_person_gets_none(badged: Badged) -> None:
    """R-09: at every grant type."""
    badged.server.add_user("bob")
    with badged.server.application.begin() as engine:
        disable_user(engine, "bob")
    answer = badged.server.token(badged.client, badged.secret, grant_type=BADGE, badge="b-18")
    assert_json_error(answer, "invalid_grant")
    assert json.loads(badged.server.events("token.refused")[-1]["decisions"]) is not None
