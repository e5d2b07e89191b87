"""Resource indicators (RFC 8707), at the authorization and the token endpoint."""

from __future__ import annotations

from webtest import TestResponse

from authserver.testing.server import RESOURCE, Server
from authserver.testing.stories import FILES, assert_json_error, stored


def audience(server: Server, answer: TestResponse) -> list[str]:
    value = server.claims(answer.json["access_token"])["aud"]
    return value if isinstance(value, list) else [value]


def test_the_token_request_narrows_and_never_widens(server: Server) -> None:
    """O-04, O-05, O-06, I-16, T036, T070: by code and by refresh, one token for one resource each."""
    client, secret = server.add_client(scopes=("profile", "files.read", "files.write"))
    code = server.code(client, scope="profile files.read", resource=[RESOURCE, FILES])
    before = stored(server)
    answer = server.redeem(client, secret, code, resource="https://other.example/")
    assert_json_error(answer, "invalid_target")
    assert stored(server) == before
    answer = server.redeem(client, secret, code, resource=RESOURCE)
    assert audience(server, answer) == [RESOURCE]
    # The refresh token stands for all that was agreed, not for that one request.
    answer = server.refresh(client, secret, answer.json["refresh_token"], resource="https://Files.example")
    assert audience(server, answer) == [FILES]
    answer = server.refresh(client, secret, answer.json["refresh_token"])
    assert audience(server, answer) == [RESOURCE, FILES]
