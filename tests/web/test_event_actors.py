"""Each event says who did it, and from where."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from webtest import TestApp

from authserver.engine.clients.authentication import disable_client
from authserver.testing.server import PASSWORD, SETTINGS, Server, form_with
from authserver.testing.stories import Granted, register, signed_in

SOURCE = "192.0.2.1"
STRANGER = "stranger"
# Who acts: the person who is signed in, the client that authenticated, or who has proven nothing yet.
ANN, CLIENT = "user:{ann}", "client:{client}"
Actors = list[tuple[str, str]]


class Story:
    """A server with tokens of ann's, whose events so far are over, and a browser in which she is signed in."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.ann = server.add_user("ann")
        self.granted = Granted(server)
        self.client, self.secret = self.granted.client, self.granted.secret
        self.other, self.other_secret = server.add_client(client_id="other")
        self.browser: TestApp = signed_in(server)
        self._before = {row["event_id"] for row in server.events()}

    def events(self) -> list[dict[str, Any]]:
        return [row for row in self.server.events() if row["event_id"] not in self._before]

    def form(self, path: str, field: str, **values: str) -> None:
        form = form_with(self.browser.get(path), field)
        for name, value in values.items():
            form[name] = value
        form.submit(expect_errors=True)


def sign_in(story: Story) -> None:
    story.server.sign_in(story.server.browser())


def sign_in_wrongly(story: Story) -> None:
    story.server.sign_in(story.server.browser(), "ann", "wrong")


def sign_out(story: Story) -> None:
    form_with(story.browser.get("/logout"), "csrf_token").submit()


def answer(story: Story, button: str) -> None:
    story.server.consent(story.browser.get(story.server.authorization_url(story.other)), button)


def ask_wrongly(browser: Callable[[Story], TestApp], **changes: str) -> Callable[[Story], None]:
    def ask(story: Story) -> None:
        url = story.server.authorization_url(story.client, **changes)
        browser(story).get(url, expect_errors=True)

    return ask


def change_password(story: Story, current: str = PASSWORD) -> None:
    new = "another good password"
    fields = {"current_password": current, "new_password": new, "repeated": new}
    story.form("/account/password", "current_password", **fields)


def change_password_wrongly(story: Story) -> None:
    change_password(story, "wrong")


def disconnect(story: Story) -> None:
    form = form_with(story.browser.get("/account/apps"), "disconnect")
    form.submit("disconnect", value=story.client.client_id)


def register_wrongly(story: Story) -> None:
    story.server.http.post_json("/oauth/register", {"redirect_uris": ["javascript:x"]}, expect_errors=True)


STORIES: dict[str, tuple[Callable[[Story], object], Actors]] = {
    "a token": (lambda s: s.granted.renew(s.granted.refresh), [("token.issued", CLIENT)]),
    "a refused token": (lambda s: s.granted.renew("x"), [("token.refused", CLIENT)]),
    "a token for nobody": (
        lambda s: s.server.refresh(s.client, "x", s.granted.refresh),
        [("token.refused", STRANGER)],
    ),
    "a code that comes back": (
        lambda s: s.server.redeem(s.client, s.secret, s.granted.code),
        [("grant.revoked", CLIENT), ("token.refused", CLIENT)],
    ),
    "a revocation": (lambda s: s.granted.revoke(s.granted.refresh), [("grant.revoked", CLIENT)]),
    "a revocation by nobody": (
        lambda s: s.server.revoke(s.client, "x", s.granted.refresh),
        [("request.refused", STRANGER)],
    ),
    "a refused introspection": (
        lambda s: s.server.introspect(s.other, s.other_secret, s.granted.access),
        [("request.refused", "client:other")],
    ),
    "an introspection by nobody": (
        lambda s: s.server.introspect(s.client, "x", s.granted.access),
        [("request.refused", STRANGER)],
    ),
    "a registration": (lambda s: register(s.server), [("client.registered", STRANGER)]),
    "a refused registration": (register_wrongly, [("registration.refused", STRANGER)]),
    "a method that is not there": (
        lambda s: s.server.http.put("/oauth/token", expect_errors=True),
        [("request.refused", STRANGER)],
    ),
    "a sign-in": (sign_in, [("sign_in.succeeded", ANN)]),
    "a refused sign-in": (sign_in_wrongly, [("sign_in.refused", STRANGER)]),
    "a sign-out": (sign_out, [("sign_out.succeeded", ANN)]),
    "a refused consent": (lambda s: answer(s, "deny"), [("consent.refused", ANN)]),
    "a consent": (lambda s: answer(s, "allow"), [("consent.given", ANN), ("code.issued", ANN)]),
    "a request that is refused to a person": (
        ask_wrongly(lambda s: s.browser, scope="unknown"),
        [("authorization.refused", ANN)],
    ),
    "a request that is refused to nobody": (
        ask_wrongly(lambda s: s.server.browser(), redirect_uri="https://evil.example/"),
        [("authorization.refused", STRANGER)],
    ),
    "a changed password": (change_password, [("password.changed", ANN)]),
    "a refused password": (change_password_wrongly, [("password.refused", ANN)]),
    "a disconnected application": (disconnect, [("grants.revoked", ANN), ("consent.ended", ANN)]),
}


@pytest.mark.parametrize("name", STORIES)
def test_each_event_of_a_request_has_its_actor_and_source(make_server: Any, name: str) -> None:
    """R-12: who did it is whoever had proven to be somebody by then; a stranger is nobody whom the request names."""
    story = Story(make_server())
    act, expected = STORIES[name]
    act(story)
    ids = {"ann": story.ann.user_id, "client": story.client.client_id}
    found = story.events()
    assert {(row["type"], row["actor"]) for row in found} == {
        (type, actor.format_map(ids)) for type, actor in expected
    }
    assert {row["source"] for row in found} == {SOURCE}


def test_a_public_client_acts_once_it_shows_what_was_issued_to_it(make_server: Any) -> None:
    """R-12: anybody can name it, and is still a stranger then."""
    server = make_server()
    server.add_user("ann")
    client, _ = server.add_client(client_id="public", token_endpoint_auth_method="none")
    code = server.code(client)
    assert server.redeem(client, None, f"{code}x").status_int == 400
    assert server.redeem(client, None, code).status_int == 200
    assert server.redeem(client, None, code).status_int == 400
    assert server.revoke(client, None, "x").status_int == 200
    tokens = server.redeem(client, None, server.code(client)).json
    assert server.revoke(client, None, tokens["refresh_token"]).status_int == 200
    found = [
        (row["type"], row["actor"]) for row in server.events() if row["type"].startswith(("token", "grant"))
    ]
    assert found == [
        ("token.refused", STRANGER),
        ("token.issued", "client:public"),
        # Who brings a code again may have stolen it.
        ("grant.revoked", STRANGER),
        ("token.refused", STRANGER),
        ("token.issued", "client:public"),
        ("grant.revoked", "client:public"),
    ]


def test_what_the_server_does_by_itself_has_no_source(server: Server) -> None:
    """R-12: the first signing key is made at start."""
    (created,) = server.events("key.created")
    assert (created["actor"], created["source"]) == ("server", "")


def test_observers_are_told_actor_and_source(make_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    """R-12, observe: the log of events has them, too."""
    caplog.set_level(logging.INFO, "authserver.events")
    server = make_server({"authserver.plugins": f"{SETTINGS['authserver.plugins']} log_events"})
    server.add_client(client_id="one")
    server.ask("/oauth/token", server.add_client(client_id="two")[0], "x", grant_type="client_credentials")
    logged = [json.loads(line.getMessage()) for line in caplog.records if line.name == "authserver.events"]
    assert [line["actor"] for line in logged] == ["server", "server", "server", "stranger"]
    assert [line.get("source") for line in logged] == [None, None, None, SOURCE]


def test_what_a_refused_request_undid_is_told_by_the_same_actor(server: Server) -> None:
    """R-12, T108: the event that outlives the transaction of its request is not the server's."""
    client, secret = server.add_client()
    with server.application.begin() as engine:
        disable_client(engine, client.client_id)
    server.ask("/oauth/token", client, secret, grant_type="client_credentials")
    (refused,) = server.events("token.refused")
    assert (refused["actor"], refused["source"]) == (STRANGER, SOURCE)


def test_events_of_before_have_an_unknown_actor(server: Server) -> None:
    """R-12: what was written by an earlier version, which kept none."""
    columns = "event_id, type, at, reason, decisions, details"
    values = "'old', 'token.issued', '2026-01-01 00:00:00.000000', '', '[]', '{}'"
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.text(f"INSERT INTO events ({columns}) VALUES ({values})"))
    with server.application.begin() as engine:
        event = engine.stores.events.find("old")
    assert event is not None
    assert (event.actor, event.source) == ("unknown", "")
