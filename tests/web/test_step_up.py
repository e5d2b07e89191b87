"""A client asks for more than it has: what the person sees, and what the tokens then allow."""

from __future__ import annotations

from typing import Any

import pytest
from webtest import TestApp, TestResponse

from authserver.engine.records import Client
from authserver.testing.server import Server, form_with
from authserver.testing.stories import assert_code, assert_redirect_error, signed_in

SCOPES = ("profile", "files.read", "files.write")


def ask(server: Server, browser: TestApp, client: Client, scope: str) -> TestResponse:
    return browser.get(server.authorization_url(client, scope=scope), status=200)


def ticks_of(page: TestResponse) -> dict[str, bool]:
    """What is asked for, and what goes along: whether each scope has a tick box."""
    return {
        field["value"]: field["type"] == "checkbox" for field in page.html.select("form#consent [name=scope]")
    }


def text_of(page: TestResponse, selector: str) -> str:
    return " ".join(page.html.select_one(selector).text.split())


@pytest.mark.parametrize("database", ["sqlite_url", "postgresql_url"])
def test_more_is_asked_for_agreed_to_and_refreshed(
    make_server: Any, request: pytest.FixtureRequest, database: str
) -> None:
    """E-13, I-19: from the first grant to the refresh of that grant, which then has all of it."""
    server: Server = make_server(database_url=request.getfixturevalue(database))
    server.add_user("ann")
    client, secret = server.add_client(scopes=SCOPES)
    browser = signed_in(server)
    first = ask(server, browser, client, "profile files.read")
    assert "Allow access to your account?" in first
    tokens = server.redeem(client, secret, assert_code(server.consent(first))).json

    more = ask(server, browser, client, "profile files.read files.write")
    assert "Allow more access to your account?" in more
    assert text_of(more, "#scopes legend") == "What is new"
    assert text_of(more, "#held h2") == "What you allowed before"
    assert ticks_of(more) == {"files.write": True, "profile": False, "files.read": False}

    # Denied, nothing is lost.
    assert_redirect_error(server.consent(more, "deny"), "access_denied")
    tokens = server.refresh(client, secret, tokens["refresh_token"]).json
    assert tokens["scope"] == "profile files.read"

    # With nothing new ticked, nothing is shared; then all of it is.
    more = ask(server, browser, client, "profile files.read files.write")
    form = form_with(more, "scope")
    unticked = browser.post(
        form.action,
        [(name, value) for name, value in form.submit_fields() if value != "files.write"]
        + [("answer", "allow")],
        status=400,
    )
    assert "Tick at least one thing to allow" in unticked
    assert ticks_of(unticked) == ticks_of(more)
    new = server.redeem(client, secret, assert_code(server.consent(more))).json
    assert new["scope"] == "profile files.read files.write"

    # Whichever refresh token the client keeps.
    for kept in (tokens, new):
        renewed = server.refresh(client, secret, kept["refresh_token"]).json
        assert renewed["scope"] == "profile files.read files.write"
        assert server.claims(renewed["access_token"])["scope"] == "profile files.read files.write"
    assert len(server.events("grant.widened")) == 1
    assert_code(browser.get(server.authorization_url(client, scope=" ".join(SCOPES))))


def test_a_scope_that_is_added_to_what_goes_along_is_not_given(server: Server) -> None:
    """T090, E-15: what the page lists is what was asked for, whatever is sent with the answer."""
    client, secret = server.add_client(scopes=SCOPES)
    browser = signed_in(server)
    server.consent(ask(server, browser, client, "profile"))
    form = form_with(ask(server, browser, client, "profile files.read"), "scope")
    sent = [*form.submit_fields(), ("scope", "files.write"), ("scope", "admin"), ("answer", "allow")]
    code = assert_code(browser.post(form.action, sent))
    assert server.redeem(client, secret, code).json["scope"] == "profile files.read"


def test_a_public_client_is_asked_about_all_of_it(server: Server) -> None:
    """E-12, T088: anybody may be it, so what was allowed before has a tick of its own, and can lose it."""
    client, _ = server.add_client(scopes=SCOPES, token_endpoint_auth_method="none")
    browser = signed_in(server)
    server.consent(ask(server, browser, client, "profile files.read"))
    more = ask(server, browser, client, "profile files.read files.write")
    assert ticks_of(more) == {"files.write": True, "profile": True, "files.read": True}
    assert text_of(more, "#held legend") == "What you allowed before"
    ids = [field["id"] for field in more.html.select("form#consent [name=scope]")]
    assert len(set(ids)) == 3
    code = assert_code(server.consent(more, scopes=("files.write",)))
    assert server.redeem(client, None, code).json["scope"] == "files.write"


def test_many_that_were_allowed_before_are_folded_as_many_new_ones_are(make_server: Any) -> None:
    """Eight of each are in sight; every tick and every heading has an id of its own."""
    names = [f"{area}.{verb}" for area in ("notes", "mail") for verb in "abcdefghijkl"]
    sentences = "\n".join(f"{name} = Use {name}" for name in names)
    server: Server = make_server(
        {"authserver.scopes": sentences, "authserver.plugin.scopes_default.scopes": None}
        | {"authserver.plugin.registration_open.scopes": "notes.a", "authserver.hidden_scopes": None}
    )
    server.add_user("ann")
    client, _ = server.add_client(scopes=tuple(names), token_endpoint_auth_method="none")
    browser = signed_in(server)
    server.consent(ask(server, browser, client, " ".join(names[::2])))
    more = ask(server, browser, client, " ".join(names))
    assert len(more.html.select("#scopes details input")) == len(more.html.select("#held details input")) == 6
    held = [field["value"] for field in more.html.select("#held [name=scope]")]
    assert sorted(held) == sorted(names[::2])
    ids = [element["id"] for element in more.html.select("[id]")]
    assert len(ids) == len(set(ids))
    assert all(
        more.html.find(id=element["aria-labelledby"]) for element in more.html.select("[aria-labelledby]")
    )
