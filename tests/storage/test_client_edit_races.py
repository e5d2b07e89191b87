"""Operators who edit one client at the same moment, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.editing import ChangedMeanwhile, ClientEdit, ClientUnchanged, ListEdit, edit
from authserver.engine.records import Client
from authserver.testing.server import Server
from authserver.testing.service import REDIRECT_URI
from authserver.testing.threads import at_once

EDITORS = 9


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    server = Server(database_url)
    yield server
    server.close()


def stored(server: Server, client: Client) -> Client:
    with server.application.begin() as engine:
        found = engine.stores.clients.find(client.client_id, engine.now)
    assert found is not None
    return found


def test_no_edit_is_lost_without_a_word(server: Server) -> None:
    """T144: each one is either in the client and in the events, or was refused and is in neither."""
    client, _ = server.add_client()

    def add_uri(number: int) -> str | None:
        uri = f"https://client.example/{number}"
        try:
            with server.application.begin() as engine:
                edited = edit(engine, client.client_id, ClientEdit(redirect_uris=ListEdit(added=(uri,))))
        except ChangedMeanwhile:
            return None
        assert uri in edited.client.redirect_uris
        return uri

    written = {uri for uri in at_once(EDITORS, add_uri) if uri}
    assert written
    assert set(stored(server, client).redirect_uris) == {REDIRECT_URI, *written}
    assert len(server.events("client.changed")) == len(written)


def test_of_those_who_make_a_client_confidential_one_gets_the_secret(server: Server) -> None:
    """R-05: whoever got one can use it, and nobody else thinks to have one."""
    client, _ = server.add_client(token_endpoint_auth_method="none")

    def give_secret(_: int) -> str | None:
        try:
            with server.application.begin() as engine:
                return edit(engine, client.client_id, ClientEdit(auth_method="client_secret_basic")).secret
        except ChangedMeanwhile:
            return None

    (secret,) = [text for text in at_once(4, give_secret) if text]
    now = stored(server, client)
    assert len(now.secrets) == 1
    answer = server.token(now, secret, grant_type="refresh_token", refresh_token="x")
    assert answer.json["error"] == "invalid_grant"


def test_an_edit_does_not_bring_back_a_client_that_is_disabled_meanwhile(server: Server) -> None:
    """R-09."""
    for attempt in range(3):
        client, _ = server.add_client()

        def act(number: int, client: Client = client) -> bool:
            try:
                with server.application.begin() as engine:
                    if number == 0:
                        return disable_client(engine, client.client_id)
                    edit(engine, client.client_id, ClientEdit(name=f"Name {number}"))
            except ClientUnchanged:
                return False
            return True

        assert at_once(3, act)[0], attempt
        assert not stored(server, client).is_enabled
