"""What a person does in a browser, and every page that one can come to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from playwright.sync_api import BrowserContext, Page, expect

from authserver.engine.crypto.digests import new_identifier
from authserver.engine.pending import _opened, seal
from authserver.engine.people.password_links import make_link
from authserver.engine.records import Client
from authserver.testing.records import a_grant
from authserver.testing.server import PASSWORD, Server

_NUMBERS = count(1)
SELF_NAMED = "Claude (claude.ai)"
# More than the consent page shows without folding.
MANY_SCOPES = tuple(
    f"{area}.{verb}"
    for area in ("notes", "calendar", "https://graph.example/very-long-names-of-resources")
    for verb in ("read", "write", "share", "delete", "export")
)


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


def allow(page: Page) -> None:
    """Press Allow on the consent page."""
    page.get_by_role("button", name="Allow").click()


def answer_of(page: Page) -> dict[str, str]:
    """What the client was told: the query of the address the browser is at."""
    return dict(parse_qsl(urlsplit(page.url).query, keep_blank_values=True))


def session_cookie(context: BrowserContext) -> Any:
    """The one cookie of the session."""
    (cookie,) = [cookie for cookie in context.cookies() if cookie["name"].endswith("authserver-session")]
    return cookie


def expire(page: Page, server: Server) -> None:
    """Let the pending request on this page be one that began sixteen minutes ago."""
    with server.application.begin() as engine:
        for field in page.locator("input[name=request]").all():
            pending = _opened(engine, field.input_value())
            assert pending is not None
            long_ago = int((datetime.now(UTC) - timedelta(minutes=16)).timestamp())
            sealed = seal(engine, replace(pending, asked_at=long_ago, expires_at=long_ago + 900))
            field.evaluate("(input, value) => { input.value = value; }", sealed)


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
        client = engine.stores.clients.find(client_id, engine.now)
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


def _consent_many(page: Page, server: Server) -> None:
    scopes = ("profile", "files.read", *MANY_SCOPES)
    client, _ = server.add_client(client_name="Everything", scopes=scopes)
    ask(page, server, client, scope=" ".join(scopes))


def _consent_unverified(page: Page, server: Server) -> None:
    client = self_registered(server, "https://client.example/cb", client_uri="https://claude.example/")
    ask(page, server, client, scope="profile files.read")


def _consent_local(page: Page, server: Server) -> None:
    ask(page, server, self_registered(server, "http://127.0.0.1/cb"), scope="profile files.read")


def _app(server: Server) -> Client:
    return server.add_client(
        client_name="Pocket notes",
        redirect_uris=("com.example.notes:/cb",),
        token_endpoint_auth_method="none",
        application_type="native",
    )[0]


def _consent_app(page: Page, server: Server) -> None:
    ask(page, server, _app(server))


def _consent_failed(page: Page, server: Server) -> None:
    _consent_unverified(page, server)
    for box in page.locator("input[name=scope]").all():
        box.uncheck()
    page.locator("form").last.evaluate("form => { form.noValidate = true; }")
    allow(page)
    expect(page.get_by_role("alert")).to_be_visible()


def _consent_of_another(page: Page, server: Server) -> None:
    _consent(page, server)
    other = page.context.new_page()
    other.goto(server.issuer + "/logout")
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("heading", name="You are signed out")).to_be_visible()
    other.goto(server.issuer + "/login")
    sign_in(other, "bob")
    expect(other.get_by_text("You are signed in as")).to_be_visible()
    other.close()
    allow(page)
    expect(page.get_by_role("alert")).to_be_visible()


def _allow(page: Page, server: Server, client: Client) -> None:
    """Sign in as a person that no other test knows, and allow."""
    authorize(page, server, client)
    sign_in(page, new_user(server))
    allow(page)


def _more(page: Page, server: Server, **metadata: Any) -> None:
    """Allow a part, and come back for more."""
    client, _ = server.add_client(client_name="Notes", **metadata)
    page.route("https://client.example/**", lambda route: route.fulfill(body="Back at the application"))
    _allow(page, server, client)
    expect(page.get_by_text("Back at the application")).to_be_visible()
    authorize(page, server, client, scope="profile files.read")
    expect(page.get_by_role("heading", level=1)).to_have_text("Allow more access to your account?")


def _login_again(page: Page, server: Server) -> None:
    client, _ = server.add_client(client_name="Notes")
    ask(page, server, client)
    authorize(page, server, client, max_age="0")
    expect(page.get_by_text("This application asks for a more recent sign-in.")).to_be_visible()


def _onward(page: Page, server: Server) -> None:
    # A client whose server answers with nothing to show: the browser stays where it is.
    page.route("https://client.example/**", lambda route: route.fulfill(status=204))
    _allow(page, server, server.add_client(client_name="Notes")[0])
    expect(page.get_by_role("heading", level=1)).to_have_text("Going on to the application")


def _onward_app(page: Page, server: Server) -> None:
    _allow(page, server, _app(server))
    expect(page.get_by_role("heading", level=1)).to_have_text("Going on to the application")


def _expired(page: Page, server: Server) -> None:
    _consent(page, server)
    expire(page, server)
    allow(page)
    expect(page.get_by_role("link", name="Start again")).to_be_visible()


def _answered(page: Page, server: Server) -> None:
    client, secret = server.add_client(client_name="Notes", details={"client_uri": "https://notes.example/"})
    authorize(page, server, client)
    link = f"{server.issuer}/oauth/consent?request={page.locator('input[name=request]').input_value()}"
    sign_in(page, new_user(server))
    allow(page)
    page.wait_for_url("https://client.example/**")
    server.redeem(client, secret, answer_of(page)["code"])
    page.goto(link)
    expect(page.get_by_role("heading", level=1)).to_have_text("This request was answered already")


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


def _nobody_to_sign_out(page: Page, server: Server) -> None:
    page.goto(server.issuer + "/logout")
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()


def _signed_out(page: Page, server: Server) -> None:
    _sign_out(page, server)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()


def start_playground(page: Page, server: Server) -> None:
    page.goto(server.issuer + "/playground")
    expect(page.get_by_role("button", name="Send the request")).to_be_enabled()


def come_back_to_playground(page: Page, server: Server, answer: str = "Allow") -> None:
    """Ask from the playground, sign in, and answer."""
    start_playground(page, server)
    page.get_by_role("button", name="Send the request").click()
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


def new_user(server: Server) -> str:
    """The name of a person that no other test knows."""
    name = f"reader{next(_NUMBERS)}"
    server.add_user(name)
    return name


def add_grants(server: Server, username: str, *client_ids: str) -> None:
    """Let the person have agreed to something for each of these clients, whoever they are."""
    now = datetime.now(UTC)
    with server.application.begin() as engine:
        user = engine.stores.users.find_by_name(username)
        assert user is not None
        for client_id in client_ids:
            engine.stores.grants.add(
                a_grant(
                    grant_id=new_identifier("grant_"),
                    client_id=client_id,
                    user_id=user.user_id,
                    scopes=("profile", "files.read"),
                    resources=("https://api.example/", "https://files.example/"),
                    created_at=now - timedelta(days=3),
                    expires_at=now + timedelta(days=1),
                )
            )


def go_to_account(page: Page, server: Server, name: str, username: str) -> None:
    """Ask for a page of the account, sign in, and stand before it."""
    page.goto(f"{server.issuer}/account/{name}")
    sign_in(page, username)
    page.wait_for_url(f"{server.issuer}/account/{name}")


def _account_apps(page: Page, server: Server) -> None:
    username = new_user(server)
    known, _ = server.add_client(client_name="Notes")
    # As long as a name may be, from a script that is written from right to left, and without a space.
    stranger = self_registered(server, "https://client.example/cb", client_name="تطبيق" * 20)
    add_grants(server, username, known.client_id, stranger.client_id, stranger.client_id, "vanished" * 12)
    go_to_account(page, server, "apps", username)
    page.locator("summary").click()
    expect(page.get_by_role("button", name="End only this")).to_have_count(2)


def _account_done(page: Page, server: Server) -> None:
    username = new_user(server)
    add_grants(server, username, server.add_client(client_name="Notes")[0].client_id)
    go_to_account(page, server, "apps", username)
    page.get_by_role("button", name="End access").click()
    expect(page.get_by_role("status")).to_be_focused()


def _account_sessions(page: Page, server: Server) -> None:
    username = new_user(server)
    assert page.context.browser is not None
    other = page.context.browser.new_context(user_agent="x" * 256)
    go_to_account(other.new_page(), server, "sessions", username)
    other.close()
    go_to_account(page, server, "sessions", username)
    expect(page.get_by_role("button", name="End this session")).to_have_count(1)


def _account_password_failed(page: Page, server: Server) -> None:
    go_to_account(page, server, "password", new_user(server))
    change_password(page, "not this one", "another good password")
    expect(page.get_by_role("alert")).to_be_visible()


def change_password(page: Page, current: str, new: str) -> None:
    """Fill the form and send it."""
    page.get_by_label("Current password").fill(current)
    page.get_by_label("New password", exact=True).fill(new)
    page.get_by_label("New password again").fill(new)
    page.get_by_role("button", name="Change password").click()


def _account_without_password(page: Page, server: Server) -> None:
    username = new_user(server)
    go_to_account(page, server, "password", username)
    with server.application.begin() as engine:
        user = engine.stores.users.find_by_name(username)
        assert user is not None
        engine.stores.users.set_password(user.user_id, None)
    page.reload()
    expect(page.get_by_text("keeps no password for you")).to_be_visible()


def _signed_out_everywhere(page: Page, server: Server) -> None:
    go_to_account(page, server, "sign-out-everywhere", new_user(server))
    page.get_by_role("button", name="Sign out everywhere").click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()


def link_of(server: Server, username: str) -> str:
    """A new link with which this person sets a password."""
    with server.application.begin() as engine:
        user = engine.stores.users.find_by_name(username)
        assert user is not None
        return make_link(engine, user).address


def _password_link_pasted(page: Page, server: Server, link: str) -> None:
    page.goto(f"{server.issuer}/set-password")
    page.get_by_label("The link that you got").fill(link)
    page.get_by_role("button", name="Go on").click()


def _goto(page: Page, address: str) -> None:
    page.goto(address)


def _password_link(page: Page, server: Server) -> None:
    page.goto(link_of(server, new_user(server)))
    expect(page.get_by_label("New password again")).to_be_visible()


def _password_link_failed(page: Page, server: Server) -> None:
    _password_link(page, server)
    choose_password(page, "one good password", "another good password")
    expect(page.get_by_role("alert")).to_be_visible()


def _password_link_refused(page: Page, server: Server) -> None:
    _password_link_pasted(page, server, "https://elsewhere.example/#nonsense")
    expect(page.get_by_role("heading", name="This link does not work")).to_be_visible()


def _password_set(page: Page, server: Server) -> None:
    _password_link(page, server)
    choose_password(page, "another good password")
    expect(page.get_by_role("status")).to_be_focused()


def _forgotten(page: Page, server: Server) -> None:
    page.goto(f"{server.issuer}/login")
    page.get_by_role("link", name="Forgot your password?").click()
    expect(page.get_by_role("heading", name="Forgot your password?")).to_be_visible()


def _forgotten_sent(page: Page, server: Server) -> None:
    _forgotten(page, server)
    page.get_by_label("Username").fill("ann")
    page.get_by_role("button", name="Send the link").click()
    expect(page.get_by_role("status")).to_be_focused()


def choose_password(page: Page, new: str, repeated: str | None = None) -> None:
    """Fill the form that a link leads to, and send it."""
    page.get_by_label("New password", exact=True).fill(new)
    page.get_by_label("New password again").fill(new if repeated is None else repeated)
    page.get_by_role("button", name="Set password").click()


DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"


def ask_on_device(page: Page, server: Server) -> None:
    """Come with the code of a device, sign in, and stand before the question whether it may be connected."""
    client, _ = server.add_client(
        client_name="Television", grant_types=(DEVICE_CODE,), token_endpoint_auth_method="none"
    )
    told = server.ask("/oauth/device_authorization", client, scope="profile files.read").json
    page.goto(told["verification_uri_complete"])
    sign_in(page, new_user(server))
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Connect this device to your account?")


def _wrong_device_code(page: Page, server: Server) -> None:
    page.goto(f"{server.issuer}/device")
    sign_in(page, new_user(server))
    page.get_by_label("Code").fill("bbbb bbbb")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("alert")).to_contain_text("There is no device with this code")


# Every page, and how a new browser comes to it.
PAGES: dict[str, Callable[[Page, Server], None]] = {
    "home": _home,
    "home-signed-in": _signed_in_home,
    "login": _login,
    "login-stranger": _login_for_stranger,
    "login-failed": _failed_login,
    "login-again": _login_again,
    "consent": _consent,
    "consent-many": _consent_many,
    "consent-unverified": _consent_unverified,
    "consent-local": _consent_local,
    "consent-app": _consent_app,
    "consent-failed": _consent_failed,
    "consent-of-another": _consent_of_another,
    "consent-more": _more,
    "consent-more-public": lambda page, server: _more(page, server, token_endpoint_auth_method="none"),
    "onward": _onward,
    "onward-app": _onward_app,
    "expired": _expired,
    "answered": _answered,
    "error": _error,
    "not-found": _not_found,
    "leave": _leave,
    "sign-out": _sign_out,
    "signed-out": _signed_out,
    "signed-out-before": _nobody_to_sign_out,
    "account-apps": _account_apps,
    "account-empty": lambda page, server: go_to_account(page, server, "apps", new_user(server)),
    "account-done": _account_done,
    "account-sessions": _account_sessions,
    "account-password": lambda page, server: go_to_account(page, server, "password", new_user(server)),
    "account-password-failed": _account_password_failed,
    "account-without-password": _account_without_password,
    "account-sign-out": lambda page, server: go_to_account(
        page, server, "sign-out-everywhere", new_user(server)
    ),
    "signed-out-everywhere": _signed_out_everywhere,
    "password-link-by-hand": lambda page, server: _goto(page, f"{server.issuer}/set-password"),
    "password-link": _password_link,
    "password-link-failed": _password_link_failed,
    "password-link-refused": _password_link_refused,
    "password-set": _password_set,
    "forgotten": _forgotten,
    "forgotten-sent": _forgotten_sent,
    "device": ask_on_device,
    "device-wrong-code": _wrong_device_code,
    "playground": start_playground,
    "playground-denied": lambda page, server: come_back_to_playground(page, server, "Deny"),
    "playground-finished": finish_playground,
}
