"""The applications that may act for somebody: what is shown of them, and ending their access."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from webtest import TestApp

from authserver.api import hookimpl
from authserver.engine.clients.authentication import disable_client
from authserver.engine.records import Client
from authserver.testing.server import ISSUER, Server, form_with, with_plugin
from authserver.testing.stories import records, register, signed_in
from tests.web.account_steps import add_grants, is_dead, page_of, post, tokens_of


@pytest.fixture
def browser(server: Server) -> TestApp:
    return signed_in(server)


def test_an_application_is_shown_with_what_it_may_do(server: Server, browser: TestApp) -> None:
    """E-16: name, scopes in words, resources, since when, and when it was last used."""
    client, secret = server.add_client(client_name="Notes")
    start = datetime.now(UTC)
    tokens = tokens_of(server, browser, client, secret, scope="profile files.read")
    with time_machine.travel(start + timedelta(minutes=20)):
        assert server.refresh(client, secret, tokens["refresh_token"]).status_int == 200
    page = page_of(server, browser, "apps")
    section = page.html.find("section")
    text = " ".join(section.get_text(" ").split())
    assert "Notes" in text and "Verified" in text
    assert "See your name" in text and "Read your files" in text and "https://api.example/" in text
    (grant,) = server.rows("grants")
    since, used = (time["datetime"] for time in section.find_all("time"))
    assert since == start.date().isoformat()
    assert used.startswith(str(grant["last_used_at"] or grant["created_at"])[:16].replace(" ", "T"))


def test_a_page_without_applications_says_so(server: Server, browser: TestApp) -> None:
    """E-16."""
    page = page_of(server, browser, "apps")
    assert "No application may act for you now." in page.text
    assert "disconnect" not in page.text


def test_the_name_of_a_stranger_is_quoted_cut_and_marked(server: Server, browser: TestApp) -> None:
    """E-09, E-11, T094, T097: as on the consent page."""
    client = register(server, client_name="Stranger")
    tokens_of(server, browser, client, None)
    with server.application.storage.engine.begin() as connection:
        # Longer than anybody may register now.
        connection.exec_driver_sql("UPDATE clients SET name = ?", ("<b>x</b>" + "n" * 192,))
    page = page_of(server, browser, "apps")
    assert "<b>x</b>" not in page.text
    assert "n" * 100 not in page.text
    heading = page.html.find("section").h2.get_text()
    assert heading.strip().startswith("“<b>x</b>") and "…”" in heading and "Unverified" in heading
    assert "has not checked the name" in page.text


def test_what_was_never_redeemed_is_not_shown(server: Server, browser: TestApp) -> None:
    """E-16: nothing came of it."""
    client, _ = server.add_client()
    server.code(client, browser)
    assert "No application" in page_of(server, browser, "apps").text


def test_nobody_sees_what_others_agreed_to(server: Server, browser: TestApp) -> None:
    """E-16."""
    server.add_user("bob")
    bob = signed_in(server, "bob")
    client, secret = server.add_client(client_name="Notes of Bob")
    tokens_of(server, bob, client, secret)
    assert "Notes of Bob" in page_of(server, bob, "apps").text
    assert "Notes of Bob" not in page_of(server, browser, "apps").text


def test_a_client_that_vanished_or_was_disabled_is_shown(server: Server, browser: TestApp) -> None:
    """E-16, T073: what it was granted can still be seen and ended."""
    vanished, secret = server.add_client(client_id="vanished", client_name="Vanished")
    disabled, other_secret = server.add_client(client_id="disabled", client_name="Switched off")
    tokens_of(server, browser, vanished, secret)
    tokens_of(server, browser, disabled, other_secret)
    with server.application.storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM client_origins WHERE client_id = 'vanished'")
        connection.exec_driver_sql("DELETE FROM client_secrets WHERE client_id = 'vanished'")
        connection.exec_driver_sql("DELETE FROM clients WHERE client_id = 'vanished'")
    with server.application.begin() as engine:
        disable_client(engine, "disabled")
    page = page_of(server, browser, "apps")
    assert "no longer known here" in page.text and "vanished" in page.text
    assert "has switched it off" in page.text
    for client_id in ("vanished", "disabled"):
        assert post(server, browser, "apps", disconnect=client_id).location.endswith("notice=disconnected")
    assert all(grant["revoked_at"] for grant in server.rows("grants"))


def test_a_client_that_a_plugin_knows_is_shown_by_its_name(make_server, tmp_path) -> None:
    """E-16: clients need not be kept here."""
    path = tmp_path / "clients.toml"
    path.write_text('[filed]\nname = "Filed away"\nredirect_uris = ["https://client.example/cb"]\n')
    server = make_server(with_plugin("clients_file", {"file": str(path)}))
    add_grants(server, server.add_user("ann"), "filed")
    browser = signed_in(server)
    assert "Filed away" in page_of(server, browser, "apps").text
    assert post(server, browser, "apps", disconnect="filed").location.endswith("notice=disconnected")


@dataclass(frozen=True)
class NoIdea:
    """A plugin that should know clients, and fails."""

    @hookimpl
    def find_client(self, client_id: str) -> Client | None:
        raise RuntimeError(client_id)


def test_a_plugin_that_fails_keeps_nobody_from_disconnecting(make_server) -> None:
    """E-16: its clients have no name then, but a button."""
    server = make_server(with_plugin(NoIdea, {}))
    add_grants(server, server.add_user("ann"), "elsewhere")
    browser = signed_in(server)
    page = page_of(server, browser, "apps")
    assert "no longer known here" in page.text and "elsewhere" in page.text
    assert form_with(page, "disconnect").submit("disconnect").location.endswith("notice=disconnected")


@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_disconnecting_kills_everything_of_the_client_at_once(make_server, token_format: str) -> None:
    """E-16, R-09, T073, T076: all its grants; the consent is forgotten, and other clients keep theirs."""
    server = make_server({"authserver.access_token_format": token_format})
    server.add_user("ann")
    browser = signed_in(server)
    client, secret = server.add_client(client_name="Notes")
    kept, kept_secret = server.add_client(client_name="Kept")
    all_tokens = [tokens_of(server, browser, client, secret) for _ in range(3)]
    kept_tokens = tokens_of(server, browser, kept, kept_secret)
    page = page_of(server, browser, "apps")
    (form,) = [
        form
        for form in page.forms.values()
        if "disconnect" in form.fields and form.fields["disconnect"][0]._value == client.client_id
    ]
    answer = form.submit("disconnect")
    assert (answer.status_int, answer.location) == (303, f"{ISSUER}/account/apps?notice=disconnected")
    after = answer.follow()
    assert "has ended, and your consent is deleted" in after.text
    assert "Notes" not in after.html.find("main").get_text() and "Kept" in after.text
    assert all(is_dead(server, client, secret, tokens) for tokens in all_tokens)
    assert not is_dead(server, kept, kept_secret, kept_tokens)
    (event,) = server.events("grants.revoked")
    assert (event["client_id"], event["reason"]) == (client.client_id, "disconnected")
    assert '"grants": 3' in event["details"] or '"grants":3' in event["details"]
    # Asked anew, not remembered.
    assert "Allow access to your account?" in browser.get(server.authorization_url(client)).text
    assert browser.get(server.authorization_url(kept)).status_int == 303


def test_one_of_several_grants_is_ended_alone(server: Server, browser: TestApp) -> None:
    """E-16: each stands in the list with a button of its own."""
    client, secret = server.add_client()
    first = tokens_of(server, browser, client, secret)
    second = tokens_of(server, browser, client, secret)
    grant_id = server.claims(first["access_token"])["jti"].partition(".")[0]
    page = page_of(server, browser, "apps")
    assert "You allowed it 2 times" in page.text
    form = next(
        form
        for form in page.forms.values()
        if "revoke" in form.fields and form.fields["revoke"][0]._value == grant_id
    )
    answer = form.submit("revoke")
    assert answer.location == f"{ISSUER}/account/apps?notice=revoked"
    assert is_dead(server, client, secret, first)
    assert not is_dead(server, client, secret, second)
    (event,) = server.events("grant.revoked")
    assert (event["grant_id"], event["client_id"]) == (grant_id, client.client_id)
    assert "revoke" not in page_of(server, browser, "apps").text
    # Sent twice, it is harmless.
    assert form.submit("revoke").location.endswith("notice=nothing-changed")
    assert len(server.events("grant.revoked")) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"revoke": "of ann"},
        {"revoke": "grant_unknown"},
        {"revoke": "é\x01"},
        {"disconnect": "client"},
        {"disconnect": "unknown"},
        {},
    ],
)
def test_nobody_ends_what_others_agreed_to(server: Server, browser: TestApp, fields: dict[str, str]) -> None:
    """E-16: another user's grant, or client, changes nothing and tells nothing."""
    client, secret = server.add_client(client_id="client")
    tokens = tokens_of(server, browser, client, secret)
    (grant,) = server.rows("grants")
    server.add_user("bob")
    bob = signed_in(server, "bob")
    before, events = records(server), server.events()
    form = {key: grant["grant_id"] if value == "of ann" else value for key, value in fields.items()}
    answer = post(server, bob, "apps", **form)
    assert (answer.status_int, answer.location) == (303, f"{ISSUER}/account/apps?notice=nothing-changed")
    assert (records(server), server.events()) == (before, events)
    assert not is_dead(server, client, secret, tokens)


def test_a_long_list_of_grants_is_cut(server: Server, browser: TestApp) -> None:
    """T094: a client that asks again and again does not make the page endless; ending access ends them all."""
    with server.application.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
    add_grants(server, user, *["eager"] * 60)
    page = page_of(server, browser, "apps")
    assert "You allowed it 60 times" in page.text and "and 10 older ones" in page.text
    assert page.text.count('name="revoke"') == 50
    post(server, browser, "apps", disconnect="eager")
    assert "No application" in page_of(server, browser, "apps").text
