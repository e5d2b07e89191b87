"""Sign-in through an OpenID provider, against this product as the provider, in a process of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from authserver.testing.server import Server, with_plugin
from tests.features.upstream_steps import (
    CALLBACK,
    Sales,
    a_provider,
    query_of,
    to_the_provider,
    walk,
    with_provider,
)


@pytest.fixture(scope="module")
def provider(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("provider") / "provider.db"
    shutil.copy(migrated_sqlite_file, path)
    with a_provider(f"sqlite:///{path}") as provider:
        yield provider


@pytest.fixture(scope="module")
def registered(provider: Server) -> tuple[str, str]:
    """What this server is there."""
    client, secret = provider.add_client(
        redirect_uris=(CALLBACK,), scopes=("openid", "profile", "email"), first_party=True
    )
    assert secret is not None
    return client.client_id, secret


@pytest.fixture
def server(sqlite_url: str, provider: Server, registered: tuple[str, str]) -> Iterator[Server]:
    server = Server(sqlite_url, with_provider(provider.issuer, *registered))
    yield server
    server.close()


def test_somebody_new_signs_in(server: Server, provider: Server) -> None:
    """UP-01, UP-08, UP-11: from the button to a session, by discovery alone."""
    browser = server.browser()
    sent = query_of(to_the_provider(browser))
    assert sent["response_type"] == "code"
    assert sent["code_challenge_method"] == "S256"
    assert {"state", "nonce", "code_challenge"} <= sent.keys()
    answer = walk(server, provider, browser)
    assert (answer.status_int, answer.location) == (303, "https://as.example/"), [
        (e["reason"], e["details"]) for e in server.rows("events")
    ]
    account = browser.get("/account/sessions")
    assert "Ann" in account.text
    (user,) = server.rows("users")
    assert (user["username"], user["password_hash"]) == ("ann", None)
    (identity,) = server.rows("identities")
    assert identity["user_id"] == user["user_id"]
    assert identity["issuer"] == provider.issuer
    assert [row["type"] for row in server.rows("events")][-3:] == [
        "user.added",
        "identity.joined",
        "sign_in.succeeded",
    ]


@pytest.mark.parametrize("refuses", [False, True])
def test_a_plugin_says_who_it_is(
    sqlite_url: str, provider: Server, registered: tuple[str, str], refuses: bool
) -> None:
    """UP-09: hook `identity_decision`, before the entry; a group that administers is not given by it."""
    plugin = with_plugin(Sales, {"refuses": str(refuses).lower()})
    settings = with_provider(provider.issuer, *registered)
    listed = f"{plugin['authserver.plugins']}\nadmin_console\nupstream"
    server = Server(sqlite_url, {**settings, **plugin, "authserver.plugins": listed})
    answer = walk(server, provider)
    users = server.rows("users")
    assert answer.status_int == (400 if refuses else 303)
    assert [(user["username"], user["groups"]) for user in users] == (
        [] if refuses else [("staff-ann", '["sales"]')]
    )
    assert server.rows("events")[-1]["reason"] == ("not-of-sales" if refuses else "of-sales")
    server.close()
