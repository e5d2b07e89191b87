"""PKCE at both endpoints: S256, always, and nothing else."""

from __future__ import annotations

from authserver.testing.server import ISSUER, VERIFIER, Server
from authserver.testing.stories import assert_json_error, assert_redirect_error, signed_in


def test_metadata_names_s256_alone(server: Server) -> None:
    """D-01, D-06: plain is never in metadata."""
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["issuer"] == ISSUER


def test_both_endpoints_demand_it(server: Server) -> None:
    """D-02, D-08, D-09, D-11: the cases are in tests/engine; this is how their answers look on the wire."""
    client, secret = server.add_client()
    answer = signed_in(server).get(server.authorization_url(client, code_challenge_method="plain"))
    assert_redirect_error(answer, "invalid_request")
    code = server.code(client)
    assert_json_error(server.redeem(client, secret, code, code_verifier="x" * 43), "invalid_grant")
    assert_json_error(server.redeem(client, secret, code, code_verifier=VERIFIER + "="), "invalid_request")
    assert server.redeem(client, secret, code).status_int == 200
