"""Redeeming an authorization code (OAuth 2.1, 4.1.3)."""

from __future__ import annotations

from authserver.testing.server import VERIFIER, Server
from authserver.testing.stories import assert_json_error


def test_a_code_is_redeemed_once(server: Server) -> None:
    """G-02.a, G-05, R-07, T031, T032: the second time it is refused, and what it gave is revoked."""
    client, secret = server.add_client()
    code = server.code(client)
    first = server.redeem(client, secret, code)
    assert first.status_int == 200
    issued = len(server.events("token.issued"))
    assert_json_error(server.redeem(client, secret, code), "invalid_grant")
    assert_json_error(server.refresh(client, secret, first.json["refresh_token"]), "invalid_grant")
    assert len(server.events("token.issued")) == issued
    (grant,) = server.rows("grants")
    assert (grant["revoked_reason"], grant["revoked_at"] is None) == ("code-replayed", False)
    (revoked,) = server.events("grant.revoked")
    assert revoked["grant_id"] == grant["grant_id"]


def test_a_revocation_outlives_the_refusal_that_caused_it(server: Server, sqlite_url: str) -> None:
    """R-08, T032: another process sees it at once."""
    client, secret = server.add_client()
    code = server.code(client)
    token = server.redeem(client, secret, code).json["refresh_token"]
    answer = server.redeem(client, secret, code)
    other = Server(sqlite_url)
    assert_json_error(other.refresh(client, secret, token), "invalid_grant")
    (refused,) = [row for row in other.events("token.refused") if row["reason"] == "code-replayed"]
    assert refused["event_id"] == answer.json["error_id"]
    other.close()


def test_five_wrong_verifiers_burn_the_code(server: Server) -> None:
    """T035.b, R-08: what is counted outlives each refusal."""
    client, secret = server.add_client()
    code = server.code(client)
    for _ in range(5):
        answer = server.redeem(client, secret, code, code_verifier=VERIFIER[::-1])
        assert_json_error(answer, "invalid_grant")
    assert_json_error(server.redeem(client, secret, code), "invalid_grant")
    assert not server.events("grant.revoked")
