"""The applications that may act for somebody: what is shown of them, and ending their access."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from webtest import TestApp, TestResponse

from authserver.api import hookimpl
from authserver.engine.clients.editing import ClientEdit, edit
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


def test_what_was_never_redeemed_gives_no_access(server: Server, browser: TestApp) -> None:
    """E-16: nothing came of it, but what was agreed to is remembered."""
    client, _ = server.add_client(client_name="Notes")
    server.code(client, browser)
    page = page_of(server, browser, "apps")
    assert "No application may act for you now." in page.text
    assert "Notes" in section_below(page, "Applications that you allowed before")


def section_below(page: TestResponse, heading: str) -> str:
    """The text of what follows this heading of the second level."""
    (found,) = [h2 for h2 in page.html.find_all("h2") if h2.get_text() == heading]
    return " ".join(part.get_text(" ") for part in found.find_next_siblings())


def test_a_consent_that_outlives_its_grant_is_shown_and_ended(server: Server, browser: TestApp) -> None:
    """E-12, E-16: it says that the application may get access again without a question; ended, there is one."""
    client, secret = server.add_client(client_name="Notes")
    tokens = tokens_of(server, browser, client, secret, scope="profile")
    assert server.revoke(client, secret, tokens["refresh_token"]).status_int == 200
    page = page_of(server, browser, "apps")
    text = section_below(page, "Applications that you allowed before")
    assert "No application may act for you now." in page.text
    assert "Notes" in text and "See your name" in text and "https://api.example/" in text
    assert "may get access again without asking you" in text
    form = form_with(page, "disconnect")
    answer = form.submit("disconnect")
    assert (answer.status_int, answer.location) == (303, f"{ISSUER}/account/apps?notice=consent-ended")
    after = answer.follow()
    assert "Your consent is deleted." in after.text and "Notes" not in after.html.find("main").get_text()
    (event,) = server.events("consent.ended")
    assert (event["client_id"], event["actor"]) == (client.client_id, f"user:{event['user_id']}")
    asked = browser.get(server.authorization_url(client, scope="profile"))
    assert "Allow access to your account?" in asked.text
    # The form of a page that was open meanwhile: nothing is left, and nothing is recorded.
    assert form.submit("disconnect").location.endswith("notice=nothing-changed")
    assert len(server.events("consent.ended")) == 1


def test_a_live_application_shows_what_else_it_may_get_without_asking(
    server: Server, browser: TestApp
) -> None:
    """E-12: the consent keeps what was agreed to before, though the grant of today has less."""
    client, secret = server.add_client()
    first = tokens_of(server, browser, client, secret, scope="profile files.read")
    tokens_of(server, browser, client, secret, scope="profile")
    heading = "What it may get without asking you"
    assert heading not in page_of(server, browser, "apps").text
    assert server.revoke(client, secret, first["refresh_token"]).status_int == 200
    page = page_of(server, browser, "apps")
    (found,) = [h3 for h3 in page.html.find_all("h3") if heading in h3.get_text()]
    more = found.find_next_sibling("ul").get_text()
    assert "Read your files" in more and "See your name" not in more
    assert page.text.count('name="disconnect"') == 1


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("stranger", "You are asked before it gets access again."),
        ("public", "You are asked before it gets access again."),
        ("disabled", "It cannot get access again."),
        ("vanished", "It cannot get access again."),
        # The person agreed to another name, so consent_decision sees no consent.
        ("renamed", "You are asked before it gets access again."),
    ],
)
def test_what_a_remembered_consent_means_is_said(
    server: Server, browser: TestApp, kind: str, words: str
) -> None:
    """E-12, E-16, T088: of clients that are always asked for, and of those that can get nothing."""
    if kind == "stranger":
        client = register(server, token_endpoint_auth_method="client_secret_basic")
    else:
        method = "none" if kind == "public" else "client_secret_basic"
        client, _ = server.add_client(client_id=kind, token_endpoint_auth_method=method)
    server.code(client, browser)
    with server.application.begin() as engine:
        if kind == "disabled":
            engine.stores.clients.disable("disabled", engine.now)
        if kind == "renamed":
            edit(engine, "renamed", ClientEdit(name="Another"))
    if kind == "vanished":
        vanish(server, "vanished")
    page = page_of(server, browser, "apps")
    text = section_below(page, "Applications that you allowed before")
    assert words in text and "without asking you" not in text
    assert "consent is deleted" in form_with(page, "disconnect").submit("disconnect").follow().text
    assert server.rows("consents") == []


def test_the_last_grant_that_is_ended_alone_takes_the_consent_along(server: Server, browser: TestApp) -> None:
    """E-16: with the form of a page that is older than the end of the other grant."""
    client, secret = server.add_client()
    tokens = [tokens_of(server, browser, client, secret) for _ in range(2)]
    forms = [form for form in page_of(server, browser, "apps").forms.values() if "revoke" in form.fields]
    answers = [form.submit("revoke").location.rpartition("=")[2] for form in forms]
    assert answers == ["revoked", "disconnected"]
    assert all(is_dead(server, client, secret, one) for one in tokens)
    assert "Delete consent" not in page_of(server, browser, "apps").text
    assert [event["grant_id"] for event in server.events("grant.revoked")] == [
        form.fields["revoke"][0]._value for form in forms
    ]
    assert len(server.events("consent.ended")) == 1


def test_nobody_sees_what_others_agreed_to(server: Server, browser: TestApp) -> None:
    """E-16."""
    server.add_user("bob")
    bob = signed_in(server, "bob")
    client, secret = server.add_client(client_name="Notes of Bob")
    tokens_of(server, bob, client, secret)
    assert "Notes of Bob" in page_of(server, bob, "apps").text
    assert "Notes of Bob" not in page_of(server, browser, "apps").text


def vanish(server: Server, client_id: str) -> None:
    with server.application.storage.engine.begin() as connection:
        for table in ("client_origins", "client_secrets", "clients"):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE client_id = ?", (client_id,))


def test_a_client_that_vanished_or_was_disabled_is_shown(server: Server, browser: TestApp) -> None:
    """E-16, T073: what it was granted can still be seen and ended."""
    vanished, secret = server.add_client(client_id="vanished", client_name="Vanished")
    disabled, other_secret = server.add_client(client_id="disabled", client_name="Switched off")
    tokens_of(server, browser, vanished, secret)
    tokens_of(server, browser, disabled, other_secret)
    vanish(server, "vanished")
    with server.application.begin() as engine:
        engine.stores.clients.disable("disabled", engine.now)
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
    assert "It was allowed 2 times" in page.text
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
    assert "It was allowed 60 times" in page.text and "and 10 older ones" in page.text
    assert page.text.count('name="revoke"') == 50
    post(server, browser, "apps", disconnect="eager")
    assert "No application" in page_of(server, browser, "apps").text
