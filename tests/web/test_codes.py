"""What an authorization code is bound to, and what makes it worthless before it is redeemed."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
import time_machine

from authserver.engine.people.login import disable_user
from authserver.settings import SettingsError
from authserver.testing.server import CHALLENGE, REDIRECT_URI, RESOURCE, Server, query_of
from authserver.testing.stories import assert_json_error, records, signed_in


def test_a_code_lives_for_a_minute(server: Server) -> None:
    """B-22: 60 seconds by default."""
    client, secret = server.add_client()
    code = server.code(client)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=61)):
        assert_json_error(server.redeem(client, secret, code), "invalid_grant")
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=50)):
        assert server.redeem(client, secret, code).status_int == 200


def test_no_setting_makes_a_code_live_longer(make_server) -> None:
    """B-22: a longer lifetime stops the start, and the key is named."""
    with pytest.raises(SettingsError, match="code_lifetime"):
        make_server({"authserver.code_lifetime": "601"})


def test_a_code_is_bound_to_client_user_scope_and_resource(server: Server) -> None:
    """B-23: what comes out is what was agreed with this user for this client."""
    client, secret = server.add_client()
    bob = server.add_user("bob")
    code = server.code(
        client, signed_in(server, "bob"), scope="files.read", resource="https://files.example/"
    )
    answer = server.redeem(client, secret, code, scope="profile files.write")
    claims = server.claims(answer.json["access_token"])
    assert claims["sub"] == bob.user_id
    assert claims["client_id"] == client.client_id
    assert claims["scope"] == answer.json["scope"] == "files.read"
    assert claims["aud"] == "https://files.example/"


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"redirect_uri": "https://client.example/other"}, "invalid_grant"),
        ({"redirect_uri": f"{REDIRECT_URI}/"}, "invalid_grant"),
        ({"code_verifier": "x" * 43}, "invalid_grant"),
        ({"resource": "https://files.example/"}, "invalid_target"),
    ],
)
def test_a_code_is_bound_to_uri_challenge_and_resource(server: Server, form: dict, error: str) -> None:
    """B-23, T002: compared again at redemption; a resource that was not granted is invalid_target."""
    client, secret = server.add_client(redirect_uris=(REDIRECT_URI, "https://client.example/other"))
    code = server.code(client, redirect_uri=REDIRECT_URI)
    assert_json_error(server.redeem(client, secret, code, **form), error)
    assert [row["kind"] for row in server.rows("tokens") if row["kind"] != "code"] == []
    assert server.redeem(client, secret, code, redirect_uri=REDIRECT_URI).status_int == 200


def test_a_code_is_worthless_to_another_client(server: Server) -> None:
    """B-23: and the try does not hurt the client that it belongs to."""
    client, secret = server.add_client()
    thief, thief_secret = server.add_client()
    code = server.code(client)
    assert_json_error(server.redeem(thief, thief_secret, code), "invalid_grant")
    assert server.redeem(client, secret, code).status_int == 200


def test_the_challenge_is_not_in_the_response(server: Server) -> None:
    """B-24: neither in a parameter nor inside the code, however it is decoded."""
    client, _ = server.add_client()
    answer = server.consent(signed_in(server).get(server.authorization_url(client)))
    code = query_of(answer)["code"]
    raw = base64.urlsafe_b64decode(CHALLENGE + "=")
    decoded = base64.urlsafe_b64decode(code.removeprefix("as_code_")[:43] + "=")
    assert CHALLENGE not in answer.location
    assert raw not in decoded
    assert CHALLENGE.encode() not in decoded
    assert raw.hex() not in answer.location


def test_only_a_digest_of_the_code_is_stored(server: Server) -> None:
    """R-01: a database read gives no code."""
    client, _ = server.add_client()
    code = server.code(client)
    assert code not in repr(records(server)) + repr(server.events())
    assert code.encode().hex() not in repr(records(server))


def test_a_user_disabled_meanwhile_gets_no_token(server: Server) -> None:
    """T041, R-09: invalid_grant."""
    client, secret = server.add_client()
    code = server.code(client)
    with server.application.begin() as engine:
        assert disable_user(engine, "ann")
    before = records(server)
    assert_json_error(server.redeem(client, secret, code), "invalid_grant")
    assert records(server) == before


def test_a_client_disabled_meanwhile_gets_no_token(server: Server) -> None:
    """T041, R-09: it can no longer authenticate."""
    client, secret = server.add_client()
    code = server.code(client)
    with server.application.begin() as engine:
        engine.stores.clients.disable(client.client_id, engine.now)
    before = records(server)
    assert_json_error(server.redeem(client, secret, code), "invalid_client", status=401)
    assert records(server) == before


def test_a_uri_removed_meanwhile_gets_no_token(server: Server) -> None:
    """T041: the redirect URI is judged again by the same policies."""
    client, secret = server.add_client()
    code = server.code(client)
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE clients SET redirect_uris = 'https://client.example/new'"))
    before = records(server)
    assert_json_error(server.redeem(client, secret, code), "invalid_grant")
    assert records(server) == before


def test_a_grant_revoked_meanwhile_gives_no_token(server: Server) -> None:
    """T041: consent withdrawn."""
    client, secret = server.add_client()
    code = server.code(client)
    with server.application.begin() as engine:
        (grant,) = server.rows("grants")
        assert engine.stores.grants.revoke(grant["grant_id"], engine.now, "withdrawn")
    before = records(server)
    assert_json_error(server.redeem(client, secret, code), "invalid_grant")
    assert records(server) == before


def test_a_scope_withdrawn_meanwhile_is_not_granted(server: Server) -> None:
    """T041, E-15: of what the client is no longer registered for."""
    client, secret = server.add_client()
    code = server.code(client, scope="profile files.read")
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE clients SET scopes = 'profile'"))
    assert server.redeem(client, secret, code).json["scope"] == "profile"


def test_the_grant_says_what_was_agreed(server: Server) -> None:
    """B-23: stored with the user, the client, the scopes and the resources; the code with URI and challenge."""
    client, _ = server.add_client()
    server.code(client)
    (grant,) = server.rows("grants")
    (user,) = server.rows("users")
    (code,) = [row for row in server.rows("tokens") if row["kind"] == "code"]
    assert (grant["user_id"], grant["client_id"]) == (user["user_id"], client.client_id)
    assert (grant["scopes"], grant["resources"]) == ("profile", RESOURCE)
    assert json.loads(code["details"]) == {"redirect_uri": REDIRECT_URI, "code_challenge": CHALLENGE}
