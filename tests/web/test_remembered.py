"""Two servers on one PostgreSQL: what one of them remembers of a client, the other one changes; it counts at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from authserver.engine.clients.secrets import rotate_secret
from authserver.engine.ending import Act, Subject, end_at_once
from authserver.engine.records import Client, EventType
from authserver.testing.server import Server
from authserver.testing.stories import assert_json_error

CREDENTIALS = {"grant_type": "client_credentials", "scope": "files.read"}


@pytest.fixture
def servers(make_server: Callable[..., Server], postgresql_url: str) -> tuple[Server, Server, Client, str]:
    """Both, and a client with its secret that the first has answered."""
    ours = make_server(database_url=postgresql_url)
    other = make_server(database_url=postgresql_url)
    client, secret = ours.add_client(client_id="reports", grant_types=("client_credentials",))
    assert secret is not None
    for _ in range(2):
        assert ours.token(client, secret, **CREDENTIALS).status_int == 200
    return ours, other, client, secret


@pytest.mark.postgresql
def test_a_client_that_another_server_disables_is_refused_at_once(
    servers: tuple[Server, Server, Client, str],
) -> None:
    """L-08, T164: and the event of the refusal is there once, although the request was repeated."""
    ours, other, client, secret = servers
    with other.begin() as engine:
        end_at_once(engine, Act(subject=Subject.client(client.client_id), for_good=True))
    assert_json_error(ours.token(client, secret, **CREDENTIALS), "invalid_client", status=401)
    with ours.begin() as engine:
        events = [each.type for each in engine.stores.events.latest()]
    assert events.count(EventType.TOKEN_ISSUED) == 2
    assert events.count(EventType.TOKEN_REFUSED) == 1


@pytest.mark.postgresql
def test_a_secret_that_another_server_makes_is_accepted_at_once(
    servers: tuple[Server, Server, Client, str],
) -> None:
    """R-05: and the old one, which ends with it, is refused at once."""
    ours, other, client, secret = servers
    with other.begin() as engine:
        new = rotate_secret(engine, client.client_id, timedelta())
    assert ours.token(client, new, **CREDENTIALS).status_int == 200
    assert_json_error(ours.token(client, secret, **CREDENTIALS), "invalid_client", status=401)
