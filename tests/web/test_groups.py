"""Groups that a sign-in brings along, over HTTP and on both databases (the rules: tests/engine/test_groups.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from authserver.api import Decision, Identity, Secret, User, allow, hookimpl, narrow
from authserver.engine.context import Caller
from authserver.engine.people.login import sign_in
from authserver.testing.server import Server, with_plugin
from authserver.testing.threads import at_once


@dataclass(frozen=True)
class Directory:
    """The password is the group; files.read is for the group finance."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def login_decision(self, username: str, password: Secret) -> Decision[Identity] | None:
        if not password.value:
            return None
        room = (password.value[::-1],)
        return allow(
            "known", Identity(username=username, groups=(password.value,), attributes={"room": room})
        )

    @hookimpl
    def scope_decision(
        self, user: User | None, requested: tuple[str, ...]
    ) -> Decision[tuple[str, ...]] | None:
        if user is None or "finance" in user.groups:
            return None
        return narrow("not-in-finance", tuple(scope for scope in requested if scope != "files.read"))


@pytest.fixture
def server(database_url: str):
    server = Server(database_url, with_plugin(Directory, {}, without=("login_password",)))
    yield server
    server.close()


def test_a_token_follows_the_groups_of_the_latest_sign_in(server: Server) -> None:
    client, secret = server.add_client()
    browser = server.browser()
    assert server.sign_in(browser, "eve", "finance").status_int == 303
    tokens = server.redeem(client, secret, server.code(client, browser, scope="profile files.read")).json
    assert tokens["scope"] == "profile files.read"
    assert server.sign_in(server.browser(), "eve", "sales").status_int == 303
    tokens = server.refresh(client, secret, tokens["refresh_token"]).json
    assert tokens["scope"] == "profile"
    (event,) = server.events("user.changed")
    assert "ecnanif" not in str(event)


def test_many_sign_ins_of_one_person_do_not_lock_each_other_out(server: Server) -> None:
    """Each stores other groups; every one succeeds, and what is left is of one of them."""
    caller = Caller(endpoint="login")

    def sign(number: int) -> User:
        with server.application.begin(caller=caller) as engine:
            return sign_in(engine, "eve", Secret(f"group{number}")).user

    sign(99)
    users = at_once(8, sign)
    with server.application.begin() as engine:
        (stored,) = engine.stores.users.list()
    assert stored in users
    assert len(server.rows("sessions")) == 9
