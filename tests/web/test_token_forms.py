"""What introspection and revocation ask alike: a form with one token, from a client that proves itself."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from authserver.testing.server import Server, basic
from authserver.testing.stories import Granted, assert_json_error, is_active, records

pytestmark = pytest.mark.parametrize("path", ["/oauth/introspect", "/oauth/revoke"])
FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("", FORM),
        ("token=", FORM),
        ("token_type_hint=refresh_token", FORM),
        ("token=a&token=b", FORM),
        ("token=a&token_type_hint=x&token_type_hint=y", FORM),
        ("token=%00", FORM),
        ("token=%ff", FORM),
        ("token=a", "text/plain"),
        ("token=a", f"{FORM}; charset=utf-16"),
        ('{"token": "a"}', "application/json"),
    ],
)
def test_a_malformed_request_is_refused(
    path: str, body: str, content_type: str, shared_server: Server
) -> None:
    """L-06.a, M-02.a, T082, T083, T084: `invalid_request`, not kept by caches, and an event."""
    client, secret = shared_server.add_client()
    before = len(shared_server.events("request.refused"))
    answer = shared_server.http.post(
        path,
        body,
        headers={"Authorization": basic(client.client_id, secret or "")},
        content_type=content_type,
        expect_errors=True,
    )
    assert_json_error(answer, "invalid_request")
    assert len(shared_server.events("request.refused")) == before + 1


@pytest.mark.parametrize("authorization", [None, "Bearer {access}"])
def test_whoever_proves_nothing_is_refused(path: str, authorization: str | None, granted: Granted) -> None:
    """L-01, M-01, P-04, T078, T086: 401 `invalid_client` with a challenge; a token is no credential here."""
    headers = {"Authorization": authorization.format(access=granted.access)} if authorization else {}
    before = records(granted.server)
    answer = granted.server.http.post(path, {"token": granted.access}, headers=headers, expect_errors=True)
    assert_json_error(answer, "invalid_client", status=401)
    assert answer.headers["WWW-Authenticate"].partition(" ")[0] == ("Bearer" if authorization else "Basic")
    assert records(granted.server) == before
    assert len(granted.server.events("request.refused")) == 1


def test_a_token_in_the_query_is_not_read(path: str, granted: Granted) -> None:
    """L-01, M-02.a, P-02, T084: nor is a token looked for in any request but a POST."""
    headers = {"Authorization": basic(granted.client.client_id, granted.secret or "")}
    path += "?" + urlencode({"token": granted.access})
    http = granted.server.http
    assert_json_error(http.post(path, {}, headers=headers, expect_errors=True), "invalid_request")
    for method in (http.get, http.head, http.put, http.delete):
        answer = method(path, headers=headers, expect_errors=True)
        assert (answer.status_int, answer.headers["Allow"]) == (405, "POST")
    assert is_active(granted.introspect(granted.access))
