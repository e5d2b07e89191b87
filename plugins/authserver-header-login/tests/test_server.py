"""The policy on a real server, behind what stands for a proxy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from webtest import TestApp

from authserver.api import normalise_username
from authserver.settings import SettingsError
from authserver.testing.server import PASSWORD, Server


def behind_proxy(server: Server, **headers: str) -> TestApp:
    """A browser whose every request comes with these headers, `_` standing for `-`."""
    browser = server.browser()
    browser.extra_environ |= {f"HTTP_{name.upper()}": text for name, text in headers.items()}
    return browser


def test_a_person_of_the_proxy_gets_a_code_without_a_sign_in_page(
    make_server: Callable[..., Server], secret: str
) -> None:
    server = make_server(proxy_secret=secret, name_header="x-remote-name", methods="mfa")
    client, client_secret = server.add_client()
    browser = behind_proxy(server, x_remote_user="Ann", x_remote_name="Ann Lee", x_proxy_secret=secret)

    answer = browser.get(server.authorization_url(client))
    seen = []
    while answer.status_int == 303 and answer.location.startswith(server.issuer):
        seen.append(answer.location)
        answer = answer.follow()
    assert any("/login" in address for address in seen)
    assert "password" not in answer.text
    code = server.consent(answer)
    assert "code=" in code.location

    (user,) = server.rows("users")
    assert (user["username"], user["display_name"], user["password_hash"]) == ("ann", "Ann Lee", None)
    token = server.redeem(client, client_secret, server.code(client, browser)).json["access_token"]
    assert server.claims(token)["sub"] == user["user_id"]
    assert [event["reason"] for event in server.events("sign_in.succeeded")] == ["proxy-vouches"]
    assert secret not in repr(server.events())


@pytest.mark.parametrize("forged", [{}, {"x_proxy_secret": "guess"}])
def test_a_forged_header_signs_nobody_in_and_is_recorded(
    forged: dict[str, str], make_server: Callable[..., Server], secret: str
) -> None:
    """Q-10: refused with a reason, and the page is shown as to anybody."""
    server = make_server(proxy_secret=secret)
    server.add_user("ann")
    page = behind_proxy(server, x_remote_user="ann", **forged).get(server.path("/login"))
    assert page.status_int == 200 and 'name="password"' in page.text
    assert server.rows("sessions") == []
    reasons = [event["reason"] for event in server.events("sign_in.refused")]
    assert reasons == ["proxy-secret-wrong" if forged else "proxy-secret-missing"]


def test_the_address_counts_where_networks_are_set(make_server: Callable[..., Server]) -> None:
    server = make_server(networks="192.0.2.0/30")
    near, far = (behind_proxy(server, x_remote_user="ann") for _ in range(2))
    far.extra_environ["REMOTE_ADDR"] = "192.0.2.4"
    assert near.get(server.path("/login")).status_int == 303
    assert far.get(server.path("/login")).status_int == 200
    assert [event["reason"] for event in server.events("sign_in.refused")] == ["not-from-proxy"]


@pytest.mark.parametrize("name", ["CORP\\Ann", "o'brien@example.com", "svc$", "佐々木", "นิวัฒน์"])
def test_a_name_is_taken_as_the_proxy_has_it(
    name: str, make_server: Callable[..., Server], secret: str
) -> None:
    """B201, B202."""
    server = make_server(proxy_secret=secret)
    on_the_wire = name.encode().decode("latin-1")
    for _ in range(2):
        browser = behind_proxy(server, x_remote_user=on_the_wire, x_proxy_secret=secret)
        assert browser.get(server.path("/login")).status_int == 303
    (user,) = server.rows("users")
    assert user["username"] == normalise_username(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [("ann lee", "(spaces)"), ("аnn", "one script"), ("a" * 101, "1 to 100"), ("ann\x1b[2J", "control")],
)
def test_the_log_says_why_a_name_is_not_taken(
    name: str, why: str, make_server: Callable[..., Server], secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    """T105: the sign-in page is shown, and the refusal is recorded."""
    server = make_server(proxy_secret=secret)
    on_the_wire = name.encode().decode("latin-1")
    browser = behind_proxy(server, x_remote_user=on_the_wire, x_proxy_secret=secret)
    assert browser.get(server.path("/login")).status_int == 200
    assert [line for line in caplog.messages if "header_login" in line and why in line and "\x1b" not in line]
    assert server.rows("users") == [] and server.rows("sessions") == []
    assert [event["reason"] for event in server.events("sign_in.refused")] == ["wrong-value"]


def test_a_disabled_user_is_not_signed_in(make_server: Callable[..., Server], secret: str) -> None:
    """R-09."""
    server = make_server(proxy_secret=secret)
    user = server.add_user("ann")
    with server.application.begin() as engine:
        engine.stores.users.disable(user.user_id, engine.now)
    page = behind_proxy(server, x_remote_user="ann", x_proxy_secret=secret).get(server.path("/login"))
    assert page.status_int == 200
    assert server.rows("sessions") == []
    assert [event["reason"] for event in server.events("sign_in.refused")] == ["user-disabled"]


def test_others_still_sign_in_with_a_password(make_server: Callable[..., Server], secret: str) -> None:
    server = make_server(proxy_secret=secret)
    server.add_user("bob", PASSWORD)
    assert server.sign_in(server.browser(), "bob").status_int == 303
    assert server.sign_in(server.browser(), "bob", "wrong").status_int == 400


def test_without_any_proof_the_server_does_not_start(make_server: Callable[..., Server]) -> None:
    with pytest.raises(SettingsError) as refusal:
        make_server()
    assert "authserver.plugin.header_login: neither proxy_secret nor networks is set" in str(refusal.value)
