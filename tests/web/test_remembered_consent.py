"""When a user is not asked again, and when always."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authserver.testing.server import Server
from authserver.testing.stories import assert_code, assert_redirect_error, register, signed_in

HTTPS = "https://client.example/cb"
LOOPBACK = "http://127.0.0.1:8000/cb"
LOCALHOST = "http://localhost:8000/cb"
PRIVATE = "com.example.app:/cb"


@pytest.mark.parametrize(
    ("auth_method", "first_party", "uri", "asked_again"),
    [
        ("client_secret_basic", False, HTTPS, False),
        ("client_secret_basic", True, HTTPS, False),
        ("none", True, HTTPS, False),
        ("none", False, HTTPS, True),
        ("none", True, LOOPBACK, True),
        ("none", True, LOCALHOST, True),
        ("none", True, PRIVATE, True),
        ("none", False, LOOPBACK, True),
        ("none", False, PRIVATE, True),
    ],
)
def test_who_is_asked_again(
    server: Server, auth_method: str, first_party: bool, uri: str, asked_again: bool
) -> None:
    """E-12, T088: silence only where something proves the client; a public local one is asked every time."""
    client, _ = server.add_client(
        token_endpoint_auth_method=auth_method,
        redirect_uris=(uri,),
        application_type="native",
        first_party=first_party,
    )
    browser = signed_in(server)
    url = server.authorization_url(client)
    page = browser.get(url)
    assert page.status_int == (303 if first_party and not asked_again else 200)
    if page.status_int == 200:
        assert_code(server.consent(page), redirect_uri=uri)
    again = browser.get(url)
    if asked_again:
        assert again.status_int == 200
        assert_code(server.consent(again), redirect_uri=uri)
    else:
        assert_code(again, redirect_uri=uri)


def test_a_client_that_registered_itself_is_always_asked(server: Server) -> None:
    """E-12, T088: though it be confidential and its URI https."""
    client = register(server, token_endpoint_auth_method="client_secret_basic")
    browser = signed_in(server)
    for _ in range(2):
        page = browser.get(server.authorization_url(client))
        assert page.status_int == 200
        assert_code(server.consent(page))


def test_a_remembered_consent_needs_the_plugin(make_server) -> None:
    """E-12: without the lines of the INI everybody is asked every time."""
    lines = make_server().ini["authserver.plugins"].split()
    kept = [line for line in lines if not line.startswith("consent_")]
    server = make_server({"authserver.plugins": "\n".join(kept)})
    server.add_user("ann")
    client, _ = server.add_client(first_party=True)
    browser = signed_in(server)
    for _ in range(2):
        assert_code(server.consent(browser.get(server.authorization_url(client))))


def test_consent_is_of_one_user(server: Server) -> None:
    """E-12: what ann agreed to, bob did not."""
    client, _ = server.add_client()
    server.add_user("bob")
    server.consent(signed_in(server).get(server.authorization_url(client)))
    assert signed_in(server, "bob").get(server.authorization_url(client)).status_int == 200


def test_consent_is_for_one_client(server: Server) -> None:
    """E-12: with the same redirect URI, too."""
    client, _ = server.add_client()
    other, _ = server.add_client()
    browser = signed_in(server)
    server.consent(browser.get(server.authorization_url(client)))
    assert browser.get(server.authorization_url(other)).status_int == 200


def test_declining_is_not_remembered_as_consent(server: Server) -> None:
    """E-07, E-12: the next request asks."""
    client, _ = server.add_client()
    browser = signed_in(server)
    url = server.authorization_url(client)
    assert_redirect_error(server.consent(browser.get(url), "deny"), "access_denied")
    assert browser.get(url).status_int == 200


def test_more_scope_asks_again(server: Server) -> None:
    """E-13, T089: and then the sum is remembered."""
    client, _ = server.add_client()
    browser = signed_in(server)
    both = server.authorization_url(client, scope="profile files.read")
    server.consent(browser.get(server.authorization_url(client, scope="profile")))
    assert_code(server.consent(browser.get(both)))
    assert_code(browser.get(both))
    assert_code(browser.get(server.authorization_url(client, scope="files.read")))


def test_what_was_unticked_is_asked_again(server: Server) -> None:
    """E-13, E-14: only what was ticked is remembered."""
    client, _ = server.add_client()
    browser = signed_in(server)
    url = server.authorization_url(client, scope="profile files.read")
    server.consent(browser.get(url), scopes=["profile"])
    assert browser.get(url).status_int == 200
    assert_code(browser.get(server.authorization_url(client, scope="profile")))


def test_another_resource_asks_again(server: Server) -> None:
    """E-13, T089: and forgets what was agreed for the first one."""
    client, _ = server.add_client()
    browser = signed_in(server)
    url = server.authorization_url(client, scope="files.read", resource="https://files.example/")
    server.consent(browser.get(server.authorization_url(client, scope="profile files.read")))
    page = browser.get(url)
    assert "https://files.example/" in page.text
    assert_code(server.consent(page))
    assert_code(browser.get(url))
    assert browser.get(server.authorization_url(client)).status_int == 200


@pytest.mark.parametrize(
    "uris", ["https://client.example/cb https://client.example/new", "https://client.example/new"]
)
def test_changed_redirect_uris_ask_again(server: Server, uris: str) -> None:
    """E-13, T089: the user agreed to a client that answered elsewhere."""
    client, _ = server.add_client()
    browser = signed_in(server)
    server.consent(browser.get(server.authorization_url(client)))
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE clients SET redirect_uris = :uris"), {"uris": uris})
    url = server.authorization_url(client, redirect_uri="https://client.example/new")
    assert browser.get(url).status_int == 200


scopes = st.sets(st.sampled_from(["profile", "files.read", "files.write"]), min_size=1)
resources = st.sets(st.sampled_from(["https://api.example/", "https://files.example/"]), min_size=1)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(st.tuples(scopes, resources), min_size=1, max_size=5))
def test_nothing_is_granted_that_was_never_shown(
    server: Server, asked: list[tuple[set[str], set[str]]]
) -> None:
    """E-13, T089: however requests grow, silence covers only scopes seen together with these resources."""
    client, _ = server.add_client(scopes=("profile", "files.read", "files.write"))
    browser = signed_in(server)
    shown: set[tuple[str, str]] = set()
    for wanted, where in asked:
        url = server.authorization_url(client, scope=" ".join(sorted(wanted)), resource=sorted(where))
        answer = browser.get(url)
        if answer.status_int == 200:
            boxes = answer.html.find_all("input", attrs={"name": "scope"})
            shown |= {(box["value"], resource) for box in boxes for resource in where}
            answer = server.consent(answer)
        elif "error=" in answer.location:
            continue
        assert_code(answer)
        grant = next(
            row
            for row in server.rows("grants")
            if row["grant_id"] == server.events("code.issued")[-1]["grant_id"]
        )
        granted = {
            (scope, resource) for scope in grant["scopes"].split() for resource in grant["resources"].split()
        }
        assert granted <= shown
