"""Every operation sends a fixed number of statements, and each of them finds its rows by an index.

Compared are an empty database and one with many rows (`conftest.py`); plans are read on the latter.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from webtest import TestApp

from authserver.testing.plans import statements_of
from authserver.testing.server import Server
from authserver.testing.stories import register, signed_in

Run = Callable[[], object]

FILES = "https://files.example/"
ITSELF = ("client_credentials",)


def tokens_of(server: Server, **form: Any) -> tuple[Any, str, dict[str, Any]]:
    """A client, its secret, and what it got for a code."""
    client, secret = server.add_client()
    return client, secret or "", server.redeem(client, secret, server.code(client, **form), **form).json


# ---- over HTTP: each prepares, and returns what is to be watched -------------------------------------


def client_credentials(server: Server) -> Run:
    client, secret = server.add_client(grant_types=ITSELF)
    return lambda: ok(server.token(client, secret, grant_type="client_credentials"))


def client_credentials_opaque(server: Server) -> Run:
    client, secret = server.add_client(grant_types=ITSELF, scopes=("files.read",))
    form = {"grant_type": "client_credentials", "scope": "files.read", "resource": FILES}
    return lambda: ok(server.token(client, secret, **form))


def wrong_secret(server: Server) -> Run:
    client, _ = server.add_client()
    return lambda: ok(server.token(client, "wrong", grant_type="refresh_token"), 401)


def redemption(server: Server) -> Run:
    client, secret = server.add_client()
    code = server.code(client)
    return lambda: ok(server.redeem(client, secret, code))


def replayed_code(server: Server) -> Run:
    client, secret = server.add_client()
    code = server.code(client)
    server.redeem(client, secret, code)
    return lambda: ok(server.redeem(client, secret, code), 400)


def wrong_verifier(server: Server) -> Run:
    client, secret = server.add_client()
    code = server.code(client)
    return lambda: ok(server.redeem(client, secret, code, code_verifier="w" * 43), 400)


def rotation(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    return lambda: ok(server.refresh(client, secret, first["refresh_token"]))


def retry(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    server.refresh(client, secret, first["refresh_token"])
    return lambda: ok(server.refresh(client, secret, first["refresh_token"]))


def reuse(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    second = server.refresh(client, secret, first["refresh_token"]).json
    server.refresh(client, secret, second["refresh_token"])
    return lambda: ok(server.refresh(client, secret, first["refresh_token"]), 400)


def introspection_of_a_jwt(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    return lambda: active(server.introspect(client, secret, first["access_token"]))


def introspection_of_a_jwt_of_a_client(server: Server) -> Run:
    client, secret = server.add_client(grant_types=ITSELF)
    token = server.token(client, secret, grant_type="client_credentials").json["access_token"]
    return lambda: active(server.introspect(client, secret, token))


def introspection_of_an_opaque_token(server: Server) -> Run:
    client, secret, first = tokens_of(server, resource=FILES, scope="files.read")
    assert first["access_token"].startswith("as_access_")
    return lambda: active(server.introspect(client, secret, first["access_token"]))


def introspection_of_a_refresh_token(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    return lambda: active(server.introspect(client, secret, first["refresh_token"]))


def revocation_by_a_jwt(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    return lambda: ok(server.revoke(client, secret, first["access_token"]))


def revocation_by_a_refresh_token(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    return lambda: ok(server.revoke(client, secret, first["refresh_token"]))


def revocation_by_an_opaque_token(server: Server) -> Run:
    client, secret, first = tokens_of(server, resource=FILES, scope="files.read")
    return lambda: ok(server.revoke(client, secret, first["access_token"]))


def sign_in(server: Server) -> Run:
    browser = server.browser()
    return lambda: ok(server.sign_in(browser), 303)


def sign_out(server: Server) -> Run:
    browser = signed_in(server)
    form = browser.get(server.path("/logout")).form
    return lambda: ok(form.submit())


def front_page(server: Server) -> Run:
    browser = signed_in(server)
    return lambda: ok(browser.get(server.path("/")))


def consent_page(server: Server) -> Run:
    client, _ = server.add_client()
    browser = signed_in(server)
    return lambda: ok(browser.get(server.authorization_url(client)))


def answer_to_it(server: Server) -> Run:
    client, _ = server.add_client()
    page = signed_in(server).get(server.authorization_url(client))
    return lambda: ok(server.consent(page), 303)


def authorization_with_consent_remembered(server: Server) -> Run:
    client, _ = server.add_client()
    browser = signed_in(server)
    server.consent(browser.get(server.authorization_url(client)))
    return lambda: ok(browser.get(server.authorization_url(client)), 303)


def account_pages(server: Server) -> Run:
    """What the user let in, one application among others, and where the user is signed in."""
    browser = user_with_applications(server)

    def look() -> None:
        for name in ("apps", "sessions", "password", "sign-out-everywhere"):
            ok(browser.get(server.path(f"/account/{name}")))

    return look


def disconnection_of_an_application(server: Server) -> Run:
    browser = user_with_applications(server)
    page = browser.get(server.path("/account/apps"))
    form = next(form for form in page.forms.values() if "disconnect" in form.fields)
    return lambda: ok(form.submit("disconnect"), 303)


def sign_out_everywhere(server: Server) -> Run:
    browser = user_with_applications(server)
    form = browser.get(server.path("/account/sign-out-everywhere")).forms[0]
    fields = dict(form.submit_fields())
    return lambda: ok(browser.post(server.path("/account/sign-out-everywhere"), fields))


def user_with_applications(server: Server) -> TestApp:
    """A browser in which a new user is signed in, who let three applications in."""
    user = server.add_user(f"user{os.urandom(9).hex()}")
    browser = signed_in(server, user.username)
    for _ in range(3):
        client, secret = server.add_client()
        ok(server.redeem(client, secret, server.code(client, browser)))
    return browser


def registration(server: Server) -> Run:
    return lambda: register(server)


def request_of_a_web_page(server: Server) -> Run:
    """Whose origin may be one that many clients share, or none has."""
    client, secret = server.add_client(grant_types=ITSELF)

    def ask() -> None:
        for origin in ("http://127.0.0.1:5000", "https://unknown.example"):
            ok(server.token(client, secret, headers={"Origin": origin}, grant_type="client_credentials"))

    return ask


OPERATIONS = [
    client_credentials,
    client_credentials_opaque,
    wrong_secret,
    redemption,
    replayed_code,
    wrong_verifier,
    rotation,
    retry,
    reuse,
    introspection_of_a_jwt,
    introspection_of_a_jwt_of_a_client,
    introspection_of_an_opaque_token,
    introspection_of_a_refresh_token,
    revocation_by_a_jwt,
    revocation_by_a_refresh_token,
    revocation_by_an_opaque_token,
    sign_in,
    sign_out,
    front_page,
    consent_page,
    answer_to_it,
    authorization_with_consent_remembered,
    account_pages,
    disconnection_of_an_application,
    sign_out_everywhere,
    registration,
    request_of_a_web_page,
]


def ok(answer: Any, status: int = 200) -> None:
    assert answer.status_int == status, answer.text


def active(answer: Any) -> None:
    assert answer.json["active"] is True


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_operation_costs_as_many_indexed_statements_however_much_is_stored(servers, operation):
    """T064, T116: neither their number nor what they read grows."""
    watched = []
    for server in (servers.empty, servers.filled):
        run = operation(server)
        with statements_of(server.application.storage.engine) as sent:
            run()
        watched.append(sent)
    servers.assert_indexed(*watched)
