"""What a person does in a browser, and every page that one can come to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from playwright.sync_api import Page, expect

from authserver.engine.records import Client
from authserver.testing.server import PASSWORD, Server

SELF_NAMED = "Claude (claude.ai)"


def authorize(page: Page, server: Server, client: Client, **changes: str | list[str] | None) -> None:
    """Come from a client with a correct authorization request, with these parameters changed."""
    page.goto(server.issuer + server.authorization_url(client, **changes))


def sign_in(page: Page, username: str = "ann", password: str = PASSWORD) -> None:
    """Fill the sign-in form and send it."""
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def ask(page: Page, server: Server, client: Client, **changes: str | list[str] | None) -> None:
    """Come from a client, sign in, and stand before the consent page."""
    authorize(page, server, client, **changes)
    sign_in(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Allow access to your account?")


def answer_of(page: Page) -> dict[str, str]:
    """What the client was told: the query of the address the browser is at."""
    return dict(parse_qsl(urlsplit(page.url).query, keep_blank_values=True))


def self_registered(server: Server, redirect_uri: str, **metadata: Any) -> Client:
    """A public client that registered itself."""
    body = {
        "client_name": SELF_NAMED,
        "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "scope": "profile files.read",
        **metadata,
    }
    client_id = server.http.post_json(server.path("/oauth/register"), body).json["client_id"]
    with server.application.begin() as engine:
        client = engine.stores.clients.find(client_id)
    assert client is not None
    return client


def _signed_in_home(page: Page, server: Server) -> None:
    page.goto(server.issuer + "/login")
    sign_in(page)
    expect(page.get_by_text("You are signed in as")).to_be_visible()


def _failed_login(page: Page, server: Server) -> None:
    page.goto(server.issuer + "/login")
    sign_in(page, password="not this one")
    expect(page.get_by_role("alert")).to_be_visible()


def _login(page: Page, server: Server) -> None:
    authorize(page, server, server.add_client(client_name="Notes")[0])


def _login_for_stranger(page: Page, server: Server) -> None:
    authorize(page, server, self_registered(server, "https://client.example/cb"))


def _consent(page: Page, server: Server) -> None:
    links = {"client_uri": "https://notes.example/", "policy_uri": "https://notes.example/privacy"}
    client, _ = server.add_client(client_name="Notes", details=links)
    ask(page, server, client, scope="profile files.read")


def _consent_unverified(page: Page, server: Server) -> None:
    client = self_registered(server, "https://client.example/cb", client_uri="https://claude.example/")
    ask(page, server, client, scope="profile files.read")


def _consent_local(page: Page, server: Server) -> None:
    ask(page, server, self_registered(server, "http://127.0.0.1/cb"), scope="profile files.read")


def _consent_app(page: Page, server: Server) -> None:
    client, _ = server.add_client(
        client_name="Pocket notes",
        redirect_uris=("com.example.notes:/cb",),
        token_endpoint_auth_method="none",
        application_type="native",
    )
    ask(page, server, client)


def _consent_failed(page: Page, server: Server) -> None:
    _consent_unverified(page, server)
    for box in page.locator("input[name=scope]").all():
        box.uncheck()
    page.locator("form").last.evaluate("form => { form.noValidate = true; }")
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("alert")).to_be_visible()


def _error(page: Page, server: Server) -> None:
    page.goto(server.issuer + "/oauth/authorize?client_id=nobody&response_type=code")


def _not_found(page: Page, server: Server) -> None:
    page.goto(server.issuer + "/no-such-page")


def _leave(page: Page, server: Server) -> None:
    authorize(page, server, self_registered(server, "https://client.example/cb"), scope="nonsense")
    sign_in(page)
    expect(page.get_by_role("link", name="Go on")).to_be_visible()


def _home(page: Page, server: Server) -> None:
    page.goto(server.issuer + "/")


def _sign_out(page: Page, server: Server) -> None:
    _signed_in_home(page, server)
    page.goto(server.issuer + "/logout")


def _signed_out(page: Page, server: Server) -> None:
    _sign_out(page, server)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()


def start_playground(page: Page, server: Server) -> None:
    page.goto(server.issuer + "/playground")
    expect(page.get_by_role("button", name="Go and ask")).to_be_enabled()


def come_back_to_playground(page: Page, server: Server, answer: str = "Allow") -> None:
    """Ask from the playground, sign in, and answer."""
    start_playground(page, server)
    page.get_by_role("button", name="Go and ask").click()
    sign_in(page)
    page.get_by_role("button", name=answer).click()
    expect(page).to_have_url(re.compile("/playground$"))
    expect(page.locator("[data-step=answer]")).to_have_attribute("data-reached", "yes")


def press_in_playground(page: Page, name: str, slot: str) -> str:
    """Press a button and wait for the response it shows, whose text comes back."""
    shown = page.locator(f"[data-slot={slot}]")
    before = shown.text_content() or ""
    page.get_by_role("button", name=name, exact=True).click()
    expect(shown).to_be_visible()
    expect(shown).not_to_have_text(before)
    return shown.text_content() or ""


def finish_playground(page: Page, server: Server) -> None:
    """Everything the playground has, to its end."""
    come_back_to_playground(page, server)
    press_in_playground(page, "Exchange the code", "exchange-response")
    press_in_playground(page, "Refresh", "refresh-response")
    press_in_playground(page, "Send the code again", "replay-response")


# Every page, and how a new browser comes to it.
PAGES: dict[str, Callable[[Page, Server], None]] = {
    "home": _home,
    "home-signed-in": _signed_in_home,
    "login": _login,
    "login-stranger": _login_for_stranger,
    "login-failed": _failed_login,
    "consent": _consent,
    "consent-unverified": _consent_unverified,
    "consent-local": _consent_local,
    "consent-app": _consent_app,
    "consent-failed": _consent_failed,
    "error": _error,
    "not-found": _not_found,
    "leave": _leave,
    "sign-out": _sign_out,
    "signed-out": _signed_out,
    "playground": start_playground,
    "playground-denied": lambda page, server: come_back_to_playground(page, server, "Deny"),
    "playground-finished": finish_playground,
}
