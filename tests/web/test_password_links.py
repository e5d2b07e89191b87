"""Setting a password with a link: the page, what it says, and what it never does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from time_machine import Traveller
from webtest import TestApp, TestResponse

from authserver.engine.errors import PasswordLinkRefused
from authserver.engine.people.attributes import change
from authserver.engine.people.login import add_user
from authserver.engine.people.password_links import make_link, use_link
from authserver.settings import Secret
from authserver.testing.server import ISSUER, PASSWORD, Server, form_with, with_plugin
from authserver.testing.stories import assert_page_error, is_signed_in, records, says, sign_in_at, signed_in
from tests.web.account_steps import NEW_PASSWORD, add_grants

PAGE = "/set-password"


def made(server: Server, lifetime: timedelta | None = None) -> str:
    """The address of a new link for ann."""
    with server.application.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
        assert user is not None
        return make_link(engine, user, lifetime).address


def opened(server: Server, browser: TestApp, link: str) -> TestResponse:
    """The page after the link was pasted."""
    form = form_with(browser.get(server.path(PAGE)), "link")
    form["link"] = link
    return form.submit(expect_errors=True)


def chosen(page: TestResponse, new: str = NEW_PASSWORD, repeated: str | None = None) -> TestResponse:
    form = form_with(page, "new_password")
    form["new_password"], form["repeated"] = new, new if repeated is None else repeated
    return form.submit(expect_errors=True)


def test_somebody_who_forgot_sets_a_password_and_signs_in_with_it(server: Server) -> None:
    """I-14: whoever knew the old one has nothing any more; nobody is signed in by the link."""
    with server.application.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
    assert user is not None
    add_grants(server, user, "reports")
    thief = signed_in(server)
    browser = server.browser()
    page = opened(server, browser, made(server))
    assert "ann" in form_with(page, "new_password").text
    answer = chosen(page)
    assert (answer.status_int, answer.location) == (303, f"{ISSUER}/login?notice=password-set")
    assert not is_signed_in(server, thief) and not is_signed_in(server, browser)
    assert all(grant["revoked_at"] for grant in server.rows("grants"))
    login = answer.follow()
    assert "Your password is set. Sign in with it." in login.text
    assert sign_in_at(login).status_int == 400
    assert sign_in_at(login, password=NEW_PASSWORD).status_int == 303
    assert is_signed_in(server, browser)
    kinds = [event["type"] for event in server.events()]
    assert {"password_link.made", "password_link.used", "password.changed"} <= set(kinds)


def test_the_page_is_the_same_for_every_link_and_changes_nothing(server: Server) -> None:
    """A mail scanner opens it first, with the secret in the query even: nothing is used up."""
    link = made(server)
    before = records(server)
    for path in (PAGE, f"{PAGE}?link={link.partition('#')[2]}"):
        page = server.browser().get(server.path(path))
        assert not says(page, "ann") and "as_link_" not in page.text
    assert opened(server, server.browser(), link).status_int == 200
    assert records(server) == before
    assert chosen(opened(server, server.browser(), link)).status_int == 303


def test_the_secret_is_in_no_address_that_a_server_or_another_site_sees(server: Server) -> None:
    """T099: browsers send no fragment; nothing is passed on, framed or kept."""
    link = made(server)
    address, _, fragment = link.partition("#")
    assert address == f"{ISSUER}{PAGE}" and "as_link_" in fragment
    page = opened(server, server.browser(), link)
    assert "as_link_" not in page.request.path_qs
    assert "as_link_" not in chosen(page).location
    for answer in (server.browser().get(server.path(PAGE)), page):
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Frame-Options"] == "DENY"
    assert "script-src" not in page.headers["Content-Security-Policy"]
    assert not any("as_link_" in str(event) for event in server.events())


@pytest.mark.parametrize("kind", ["used", "expired", "never made", "nonsense", "empty"])
def test_every_link_that_does_not_work_gets_one_page(server: Server, clock: Traveller, kind: str) -> None:
    """T100: it does not tell whether there is such a person, or was such a link."""
    link = made(server, timedelta(seconds=60))
    if kind == "used":
        chosen(opened(server, server.browser(), link))
    if kind == "expired":
        clock.shift(61)
    shown = {
        "never made": link.replace("user_", "user_X"),
        "nonsense": "<script>é",
        "empty": "  ",
    }.get(kind, link)
    answer = opened(server, server.browser(), shown)
    assert answer.status_int == 400
    assert "This link does not work" in answer.text and "ask for a new link" in answer.text
    assert ">ann<" not in answer.text and "<script>é" not in answer.text
    (refused,) = server.events("password.refused")
    assert refused["event_id"] in answer.text and refused["reason"].startswith("link-")


@pytest.mark.parametrize(
    ("new", "repeated", "problem", "field"),
    [
        ("short", None, "Choose a password of 8 characters or more", "new_password"),
        (NEW_PASSWORD, "another one", "This is not the same as the new password.", "repeated"),
        (PASSWORD, None, "Choose another password than the current one.", "new_password"),
    ],
)
def test_a_password_that_cannot_be_used_is_asked_for_again(
    server: Server, new: str, repeated: str | None, problem: str, field: str
) -> None:
    """The link still works from the page that says so."""
    refused = chosen(opened(server, server.browser(), made(server)), new, repeated)
    assert refused.status_int == 400 and problem in refused.text
    assert f'id="{field}-problem"' in refused.text
    assert new not in refused.text
    assert chosen(refused).status_int == 303


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}])
def test_a_forged_form_is_refused(server: Server, headers: dict[str, str]) -> None:
    """E-03, T092: without the token of a page in this browser, or from another site with it."""
    link = made(server)
    browser = server.browser()
    form = {"link": link, "set": "yes", "new_password": NEW_PASSWORD, "repeated": NEW_PASSWORD}
    if headers:
        form["csrf_token"] = form_with(browser.get(server.path(PAGE)), "link")["csrf_token"].value
    before = records(server)
    assert_page_error(browser.post(server.path(PAGE), form, headers=headers, status="*"), status=403)
    assert records(server) == before


def test_a_field_that_is_sent_twice_is_refused(server: Server) -> None:
    browser = server.browser()
    token = form_with(browser.get(server.path(PAGE)), "link")["csrf_token"].value
    answer = browser.post(server.path(PAGE), f"csrf_token={token}&link=a&link=b", status="*")
    assert_page_error(answer, status=400)


def test_somebody_new_sets_the_first_password(server: Server) -> None:
    with server.application.begin() as engine:
        link = make_link(engine, add_user(engine, "bob", None)).address
    page = opened(server, server.browser(), link)
    assert "Set your password" in page.text and "All your sessions will end" not in page.text
    assert sign_in_at(chosen(page).follow(), "bob", NEW_PASSWORD).status_int == 303


def test_links_that_do_not_work_are_limited(make_server) -> None:
    """T101, T104: those that do are given back."""
    limits = {"limits": "\nlinks = password_link, source, 2, minute"}
    server = make_server(with_plugin("rate_limits", limits))
    server.add_user()
    link = made(server)
    for _ in range(4):
        assert opened(server, server.browser(), link).status_int == 200
    for _ in range(2):
        assert opened(server, server.browser(), "nonsense").status_int == 400
    answer = opened(server, server.browser(), link)
    assert answer.status_int == 429 and answer.headers["Retry-After"]


def test_a_link_that_is_used_while_somebody_is_promoted_sets_no_password(
    make_server: Callable[..., Server], postgresql_url: str
) -> None:
    """Both wait for the row of the person; the one who comes second sees what the first has done."""
    server = make_server(database_url=postgresql_url)
    user = server.add_user("ann")
    with server.begin() as engine:
        link = make_link(engine, user)
    found: list[str] = []

    def use() -> None:
        try:
            with server.begin() as engine:
                use_link(engine, link.address, new=Secret(NEW_PASSWORD), repeated=Secret(NEW_PASSWORD))
            found.append("used")
        except PasswordLinkRefused as refused:
            found.append(refused.reason)

    using = threading.Thread(target=use)
    with server.begin() as engine:
        change(engine, user, groups=["authserver-admins"])
        using.start()
        using.join(1.5)
        assert using.is_alive()
    using.join(10)
    assert found == ["link-groups-changed"]
