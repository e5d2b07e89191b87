"""The policy on a real server that asks a real directory."""

from __future__ import annotations

import logging
from collections.abc import Callable

import directory as slapd
import pytest

from authserver.testing.server import PASSWORD, Server


def test_a_person_of_the_directory_gets_a_token(make_server: Callable[..., Server]) -> None:
    server = make_server()
    client, secret = server.add_client()
    browser = server.browser()
    assert server.sign_in(browser, "Ann", "ann's password").status_int == 303
    answer = server.redeem(client, secret, server.code(client, browser))
    (user,) = server.rows("users")
    assert (user["username"], user["display_name"], user["password_hash"]) == ("ann", "Ann Lee", None)
    assert server.claims(answer.json["access_token"])["sub"] == user["user_id"]
    assert [event["reason"] for event in server.events("sign_in.succeeded")] == ["directory-bind"]


@pytest.mark.parametrize(("username", "password"), [("ann", "wrong"), ("ann", ""), ("zoe", "ann's password")])
def test_nobody_else_is_signed_in(username: str, password: str, make_server: Callable[..., Server]) -> None:
    server = make_server()
    answer = server.sign_in(server.browser(), username, password)
    assert answer.status_int == 400
    assert "You are not signed in" in answer.text
    assert server.rows("sessions") == []


def test_people_of_this_server_sign_in_beside_those_of_the_directory(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    server.add_user("zoe", PASSWORD)
    assert server.sign_in(server.browser(), "zoe", PASSWORD).status_int == 303
    assert server.sign_in(server.browser(), "ann", "ann's password").status_int == 303


def test_a_directory_that_is_away_does_not_look_like_a_wrong_password(
    make_server: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    """R-14: an error page, and a log that names plugin and directory and holds no password."""
    url = f"ldap://127.0.0.1:{slapd.free_ports(1)[0]}"
    server = make_server(url=url)
    with caplog.at_level(logging.ERROR):
        answer = server.sign_in(server.browser(), "ann", "ann's password")
    assert answer.status_int == 500
    assert "server_error" in answer.text and "You are not signed in" not in answer.text
    assert server.rows("sessions") == []
    assert "ldap_login" in caplog.text and f"while asking the directory {url}" in caplog.text
    assert "ann's password" not in caplog.text and slapd.SERVICE_PASSWORD not in caplog.text


def test_a_sign_in_keeps_the_groups_of_the_directory(make_server: Callable[..., Server]) -> None:
    server = make_server(groups_base=slapd.GROUPS, groups="finance", attributes="mail")
    assert server.sign_in(server.browser(), "ann", "ann's password").status_int == 303
    with server.application.begin() as engine:
        (user,) = engine.stores.users.list()
    assert user.groups == ("finance",)
    assert user.attributes == {"mail": ("ann@example.com", "lee@example.com")}
