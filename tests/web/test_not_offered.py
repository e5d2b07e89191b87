"""What this server does not offer: neither named nor found, refused in so many words, or without effect as the RFCs say."""

from __future__ import annotations

import base64
import hmac
import json
import time

import pytest

from authserver.testing.server import ISSUER, REDIRECT_URI, Server, form_with
from authserver.testing.stories import assert_code, records, signed_in

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def document(server: Server) -> dict[str, object]:
    found: dict[str, object] = server.http.get("/.well-known/oauth-authorization-server").json
    return found


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def assertion_of(client_id: str, key: bytes) -> str:
    """A JWT as `client_secret_jwt` has it (OpenID Connect Core, 9), with nothing wrong but its method."""
    now = int(time.time())
    claims = {"iss": client_id, "sub": client_id, "aud": ISSUER, "jti": "once", "iat": now, "exp": now + 60}
    head = _encoded(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    signed = f"{head}.{_encoded(json.dumps(claims).encode())}"
    return f"{signed}.{_encoded(hmac.digest(key, signed.encode(), 'sha256'))}"


# ---- client_secret_jwt -----------------------------------------------------------------------------


def test_no_secret_is_ever_the_key_of_a_signature(server: Server) -> None:
    """T059: not the secret, not what is stored of it, and not an empty one; the method is neither named nor registered."""
    named = {name: value for name, value in document(server).items() if "auth_methods" in name}
    assert len(named) == 3
    assert "client_secret_jwt" not in str(named)
    client, secret = server.add_client(grant_types=("client_credentials",))
    (stored,) = server.rows("client_secrets")
    keys = [secret.encode(), b"", *(str(value).encode() for value in stored.values())]
    keys += [value for value in stored.values() if isinstance(value, bytes)]
    for key in keys:
        answer = server.http.post(
            "/oauth/token",
            {
                "grant_type": "client_credentials",
                "client_id": client.client_id,
                "client_assertion_type": JWT_BEARER,
                "client_assertion": assertion_of(client.client_id, key),
            },
            status=401,
        )
        assert answer.json["error"] == "invalid_client"
    metadata = {"redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "client_secret_jwt"}
    refused = server.http.post_json("/oauth/register", metadata, status=400)
    assert refused.json["error"] == "invalid_client_metadata"


# ---- The device grant ------------------------------------------------------------------------------


def test_there_is_no_device_grant(server: Server) -> None:
    """T117 to T121: neither its grant type, nor an address that gives out codes, nor a page on which to type one.

    T117, T118, T119, T120, T121: whoever polls, and however often, gets the one answer, and nobody is asked anything.
    """
    found = document(server)
    assert "device_authorization_endpoint" not in found
    assert DEVICE_CODE not in str(found)
    client, secret = server.add_client()
    for _ in range(3):
        answer = server.token(client, secret, grant_type=DEVICE_CODE, device_code="x")
        assert (answer.status_int, answer.json["error"]) == (400, "unsupported_grant_type")
    browser = signed_in(server)
    before = records(server)
    for path in ("/oauth/device_authorization", "/oauth/device/code", "/oauth/device", "/device"):
        browser.get(f"{path}?user_code=WDJB-MJHT", status=404)
        browser.post(path, {"client_id": client.client_id, "user_code": "WDJB-MJHT"}, status=404)
    assert records(server) == before


def test_no_client_registers_for_the_device_grant(server: Server) -> None:
    """T119: not even beside another grant type, which is what it gets then."""
    metadata = {"redirect_uris": [REDIRECT_URI], "grant_types": [DEVICE_CODE]}
    refused = server.http.post_json("/oauth/register", metadata, status=400)
    assert refused.json["error"] == "invalid_client_metadata"
    metadata["grant_types"] = ["authorization_code", DEVICE_CODE]
    given = server.http.post_json("/oauth/register", metadata, status=201)
    assert given.json["grant_types"] == ["authorization_code"]


# ---- prompt and max_age ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked", [{"prompt": "none"}, {"prompt": "login"}, {"max_age": "0"}, {"max_age": "x"}], ids=str
)
def test_prompt_and_max_age_mean_nothing_without_a_policy_for_them(
    server: Server, asked: dict[str, str]
) -> None:
    """T024, B-02: they are OpenID Connect's, which is not offered here; each answer is as without them.

    So `prompt=none` gives no code silently: whoever must sign in sees the page for it, and whoever must agree the other.
    """
    found = document(server)
    assert not {
        "prompt_values_supported",
        "acr_values_supported",
        "id_token_signing_alg_values_supported",
    } & set(found)
    client, _ = server.add_client()
    stranger = server.browser().get(server.authorization_url(client, **asked))
    assert stranger.location.startswith(f"{ISSUER}/login?")
    browser = signed_in(server)
    page = browser.get(server.authorization_url(client, **asked), status=200)
    assert form_with(page, "scope")
    assert_code(server.consent(page))
    # What was agreed to is remembered, and remembered it stays.
    assert_code(browser.get(server.authorization_url(client, **asked)))
