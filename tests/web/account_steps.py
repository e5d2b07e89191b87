"""What the tests of the account pages share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from webtest import TestApp, TestResponse

from authserver.engine.crypto.sealing import to_text
from authserver.engine.records import Client, User
from authserver.testing.records import a_grant
from authserver.testing.server import PASSWORD, Server, form_with
from authserver.web.session import FORM_PURPOSE

COOKIE = "__Host-authserver-session"
PAGES = ("apps", "sessions", "password", "sign-out-everywhere")
NEW_PASSWORD = "a battery of correct horses"


def page_of(server: Server, browser: TestApp, name: str) -> TestResponse:
    return browser.get(server.path(f"/account/{name}"))


def form_token(server: Server, browser: TestApp, route_name: str) -> str:
    """The token that a form of this session carries to this route, also when no page has such a form just now."""
    session_id = browser.cookies[COOKIE].partition(".")[0]
    keys = server.application.parts.ring
    return to_text(keys.mac(f"{session_id} {route_name}".encode(), purpose=FORM_PURPOSE))


def token_for(server: Server, browser: TestApp, name: str) -> str:
    """The form token of this page of the account."""
    is_last = name == "sign-out-everywhere"
    return form_token(server, browser, "account_sign_out" if is_last else f"account_{name}")


def post(server: Server, browser: TestApp, name: str, **fields: str) -> TestResponse:
    """Send a form of this page as a script would that knows the token."""
    form = {"csrf_token": token_for(server, browser, name), **fields}
    return browser.post(server.path(f"/account/{name}"), form, status="*")


def tokens_of(server: Server, browser: TestApp, client: Client, secret: str | None, **changes) -> dict:
    """What the client gets when the user of this browser lets it in."""
    return dict(server.redeem(client, secret, server.code(client, browser, **changes)).json)


def add_grants(server: Server, user: User, *client_ids: str) -> None:
    """Let the user have agreed to something for each of these clients."""
    now = datetime.now(UTC)
    with server.application.begin() as engine:
        for number, client_id in enumerate(client_ids):
            engine.stores.grants.add(
                a_grant(
                    grant_id=f"grant_{number}",
                    client_id=client_id,
                    user_id=user.user_id,
                    created_at=now,
                    expires_at=now + timedelta(days=1),
                )
            )


def is_dead(server: Server, client: Client, secret: str, tokens: dict) -> bool:
    """Whether no endpoint takes these tokens any more; the same answer from all."""
    inactive = {
        server.introspect(client, secret, tokens[kind]).text == '{"active":false}'
        for kind in ("access_token", "refresh_token")
    }
    refreshed = server.refresh(client, secret, tokens["refresh_token"])
    refused = (refreshed.status_int, refreshed.json.get("error")) == (400, "invalid_grant")
    assert inactive == {refused}
    return refused


def change_password(
    server: Server,
    browser: TestApp,
    current: str = PASSWORD,
    new: str = NEW_PASSWORD,
    repeated: str | None = None,
) -> TestResponse:
    form = form_with(page_of(server, browser, "password"), "new_password")
    form["current_password"], form["new_password"] = current, new
    form["repeated"] = new if repeated is None else repeated
    return form.submit(expect_errors=True)
