"""What introspection and revocation ask alike: a form with one token, from a client that proves itself."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from authserver.engine.clients.authentication import disable_client
from authserver.testing.rules import (
    assert_refused,
    is_active,
)
from authserver.testing.server import basic
from authserver.testing.stories import Granted, records

pytestmark = pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/revoke"])


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Basic",
        "Bearer",
        "Bearer {access}",
        "bearer {access}",
        "BearerX {access}",
        "Bearer {access}, Bearer {access}",
        "DPoP {access}",
        "Bearer {refresh}",
        basic("nobody", "secret"),
        basic("{client}", "wrong"),
        basic("{client}", ""),
        "Basic x, Basic y",
    ],
)
def test_whoever_proves_nothing_is_refused(path: str, authorization: str | None, granted: Granted) -> None:
    """L-01, M-01, P-04, T074, T078, T086: 401 `invalid_client` with a challenge; a token is no credential here."""
    client_id = granted.client.client_id
    if authorization is not None:
        for secret in ("wrong", ""):
            if authorization == basic("{client}", secret):
                authorization = basic(client_id, secret)
        authorization = authorization.format(access=granted.access, refresh=granted.refresh)
    before = records(granted.server)
    answer = granted.server.post(path, urlencode({"token": granted.access}), authorization=authorization)
    assert_refused(answer, "invalid_client", status=401)
    assert records(granted.server) == before
    assert len(granted.server.events("request.refused")) == 1
    assert is_active(granted.introspect(granted.access))


def test_an_identifier_alone_is_no_proof_of_a_confidential_client(path: str, granted: Granted) -> None:
    """L-01, M-01: 401."""
    form = {"token": granted.access, "client_id": granted.client.client_id}
    answer = granted.server.post(path, urlencode(form))
    assert_refused(answer, "invalid_client", status=401)
    assert is_active(granted.introspect(granted.access))


def test_a_disabled_client_is_refused(path: str, granted: Granted) -> None:
    """L-01, M-01, R-09: from the next request on."""
    with granted.server.begin() as engine:
        disable_client(engine, granted.client.client_id)
    answer = granted.server.ask(path, granted.client, granted.secret, token=granted.access)
    assert_refused(answer, "invalid_client", status=401)
