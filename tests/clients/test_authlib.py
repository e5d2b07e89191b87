"""Authlib, a client and a resource server that know nothing of us."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6750 import InsufficientScopeError, InvalidTokenError
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc7662 import IntrospectTokenValidator
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc import jwt
from joserfc.jwk import KeySet

from authserver.testing.server import ISSUER, RESOURCE, SETTINGS, VERIFIER, Server, with_plugin
from tests.client_keys import ABSENT, Key
from tests.trusted_issuers import GRANT_TYPE as JWT_BEARER
from tests.trusted_issuers import Issuer

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
PLATFORM = Issuer("https://platform.example", key=Key("RS256"), claims={"sub": "repo:octo-org/app"})
LOOPBACK = "http://127.0.0.1:49152/callback"


@pytest.fixture(scope="module")
def settings_of_running_server() -> Mapping[str, str]:
    """With keys in place of secrets, too; Authlib signs assertions for an hour. And with grants of other kinds."""
    settings = with_plugin("private_key_jwt", {"lifetime": "3600"})
    plugins = f"device_grant\ntoken_exchange\nworkload_identity\n{settings['authserver.plugins']}"
    readers = "authserver.plugin.introspect_resource_servers.clients"
    return {
        **settings,
        "authserver.plugins": plugins,
        readers: f"{SETTINGS[readers]}\ngateway = {RESOURCE}",
    }


class Validator(JWTBearerTokenValidator):
    """A resource server's reading of an access token (RFC 9068, 4), with the keys that the server publishes."""

    def get_jwks(self) -> Any:
        return KeySet.import_key_set(requests.get(f"{self.issuer}/oauth/jwks", timeout=10).json())


def discover(issuer: str) -> dict[str, Any]:
    metadata: dict[str, Any] = requests.get(get_well_known_url(issuer, external=True), timeout=10).json()
    assert metadata["issuer"] == issuer
    return metadata


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
def test_authlib_gets_and_refreshes_tokens_for_a_person(running_server, ann, method):
    """B-01, F-07, G-01, K-01, PKCE: from registration to a refreshed token, whatever the client authenticates with."""
    metadata = discover(running_server.issuer)
    registered = requests.post(
        metadata["registration_endpoint"],
        json={
            "client_name": "Authlib",
            "redirect_uris": ["http://127.0.0.1/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": method,
        },
        timeout=10,
    ).json()
    client = OAuth2Session(
        registered["client_id"],
        registered.get("client_secret"),
        token_endpoint_auth_method=method,
        scope="profile files.read",
        redirect_uri=LOOPBACK,
        code_challenge_method="S256",
    )
    url, state = client.create_authorization_url(metadata["authorization_endpoint"], code_verifier=VERIFIER)
    answer = ann.authorize(url)
    assert answer.startswith(LOOPBACK + "?")
    assert parse_qs(urlsplit(answer).query)["iss"] == [running_server.issuer]
    tokens = client.fetch_token(
        metadata["token_endpoint"], authorization_response=answer, state=state, code_verifier=VERIFIER
    )
    validator = Validator(running_server.issuer, RESOURCE)
    claims = validator.authenticate_token(tokens["access_token"])
    validator.validate_token(claims, ["profile files.read"], None)
    assert claims["client_id"] == registered["client_id"]
    assert claims["exp"] - time.time() <= tokens["expires_in"]

    refreshed = client.refresh_token(metadata["token_endpoint"])
    assert refreshed["refresh_token"] != tokens["refresh_token"]
    assert validator.authenticate_token(refreshed["access_token"])["sub"] == claims["sub"]
    grants = [
        grant
        for grant in running_server.records.rows("grants")
        if grant["client_id"] == registered["client_id"]
    ]
    assert len(grants) == 1


@pytest.mark.parametrize("name", ["RS256", "PS256", "ES256"])
def test_authlib_authenticates_with_a_key(running_server, ann, name):
    """J-09 to J-17, K-01: from registration by the program itself to refresh, introspection and revocation."""
    metadata = discover(running_server.issuer)
    assert "private_key_jwt" in metadata["token_endpoint_auth_methods_supported"]
    assert name in metadata["token_endpoint_auth_signing_alg_values_supported"]
    key = Key(name)
    registered = requests.post(
        metadata["registration_endpoint"],
        json={
            "client_name": "Authlib",
            "redirect_uris": ["http://127.0.0.1/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": name,
            # It does not name its key in the header.
            "jwks": key.jwks(kid=ABSENT),
        },
        timeout=10,
    ).json()
    assert "client_secret" not in registered
    client = OAuth2Session(
        registered["client_id"],
        key.private,
        token_endpoint_auth_method="private_key_jwt",
        revocation_endpoint_auth_method="private_key_jwt",
        scope="profile files.read",
        redirect_uri=LOOPBACK,
        code_challenge_method="S256",
    )
    # What it calls the token endpoint is the audience.
    client.register_client_auth_method(PrivateKeyJWT(running_server.issuer, alg=name))
    url, state = client.create_authorization_url(metadata["authorization_endpoint"], code_verifier=VERIFIER)
    tokens = client.fetch_token(
        metadata["token_endpoint"],
        authorization_response=ann.authorize(url),
        state=state,
        code_verifier=VERIFIER,
    )
    assert client.refresh_token(metadata["token_endpoint"])["refresh_token"] != tokens["refresh_token"]
    answer = client.introspect_token(metadata["introspection_endpoint"], tokens["access_token"])
    assert answer.json()["client_id"] == registered["client_id"]
    assert client.revoke_token(metadata["revocation_endpoint"], tokens["access_token"]).status_code == 200
    client.register_client_auth_method(PrivateKeyJWT(metadata["token_endpoint"], alg=name))
    with pytest.raises(OAuthError, match="invalid_client"):
        client.refresh_token(metadata["token_endpoint"])


def test_authlib_gets_a_token_for_itself(running_server):
    """H-01: the client credentials grant, without a refresh token."""
    client, secret = running_server.records.add_client(
        grant_types=("client_credentials",), scopes=("files.read",)
    )
    session = OAuth2Session(client.client_id, secret, scope="files.read")
    tokens = session.fetch_token(
        discover(running_server.issuer)["token_endpoint"], grant_type="client_credentials"
    )
    claims = Validator(running_server.issuer, RESOURCE).authenticate_token(tokens["access_token"])
    assert claims["sub"] == claims["client_id"] == client.client_id
    assert "refresh_token" not in tokens


def test_a_client_is_told_that_the_user_declined(running_server, ann):
    """E-07: a refusal arrives as an OAuth error, with the state."""
    client, secret = running_server.records.add_client(redirect_uris=("https://client.example/cb",))
    session = OAuth2Session(
        client.client_id, secret, redirect_uri="https://client.example/cb", scope="profile"
    )
    session.code_challenge_method = "S256"
    metadata = discover(running_server.issuer)
    url, state = session.create_authorization_url(metadata["authorization_endpoint"], code_verifier=VERIFIER)
    answer = ann.authorize(url, answer="deny")
    told = dict(parse_qsl(urlsplit(answer).query))
    assert (told["error"], told["state"], told["iss"]) == ("access_denied", state, running_server.issuer)
    assert not [
        grant for grant in running_server.records.rows("grants") if grant["client_id"] == client.client_id
    ]


def test_authlib_accepts_the_metadata(sqlite_url):
    """A-01 to A-17: an independent reading of RFC 8414 finds nothing wrong with the document."""
    server = Server(sqlite_url)
    found = AuthorizationServerMetadata(server.http.get("/.well-known/oauth-authorization-server").json)
    found.validate()
    assert found["issuer"] == ISSUER
    server.close()


class RemoteValidator(IntrospectTokenValidator):
    """A resource server that asks about every token (RFC 7662), under its own credentials."""

    def __init__(self, endpoint: str, session: OAuth2Session) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.session = session

    def introspect_token(self, token_string: str) -> Any:
        return self.session.introspect_token(self.endpoint, token_string).json()


def test_authlib_asks_about_a_token_and_revokes_it(running_server, ann):
    """L-01, L-07, M-01, M-05, M-10: from outside, as JSON and signed; a revoked token is turned away."""
    records, metadata = running_server.records, discover(running_server.issuer)
    client, secret = records.add_client(redirect_uris=("https://client.example/cb",))
    application = OAuth2Session(
        client.client_id,
        secret,
        redirect_uri="https://client.example/cb",
        scope="profile files.read",
        code_challenge_method="S256",
    )
    url, state = application.create_authorization_url(
        metadata["authorization_endpoint"], code_verifier=VERIFIER
    )
    tokens = application.fetch_token(
        metadata["token_endpoint"],
        authorization_response=ann.authorize(url),
        state=state,
        code_verifier=VERIFIER,
    )
    api, api_secret = records.add_client(client_id="api", grant_types=("client_credentials",))
    resource_server = OAuth2Session(api.client_id, api_secret)
    validator = RemoteValidator(metadata["introspection_endpoint"], resource_server)

    described = validator.authenticate_token(tokens["access_token"])
    validator.validate_token(described, ["files.read"], None)
    assert (described["client_id"], described["aud"]) == (client.client_id, RESOURCE)
    with pytest.raises(InsufficientScopeError):
        validator.validate_token(described, ["admin"], None)

    answer = resource_server.introspect_token(
        metadata["introspection_endpoint"],
        tokens["access_token"],
        headers={"Accept": "application/token-introspection+jwt"},
    )
    assert answer.headers["Content-Type"] == "application/token-introspection+jwt"
    signed = jwt.decode(
        answer.text,
        KeySet.import_key_set(requests.get(metadata["jwks_uri"], timeout=10).json()),
        algorithms=metadata["introspection_signing_alg_values_supported"],
    )
    assert signed.header["typ"] == "token-introspection+jwt"
    assert (signed.claims["iss"], signed.claims["aud"]) == (running_server.issuer, "api")
    assert signed.claims["token_introspection"] == described
    # And nobody takes the answer for a token.
    itself = Validator(running_server.issuer, "api")
    with pytest.raises(InvalidTokenError):
        itself.validate_token(itself.authenticate_token(answer.text), [], None)

    revoked = application.revoke_token(metadata["revocation_endpoint"], tokens["refresh_token"])
    assert revoked.status_code == 200
    with pytest.raises(InvalidTokenError):
        validator.validate_token(validator.authenticate_token(tokens["access_token"]), [], None)
    with pytest.raises(OAuthError, match="invalid_grant"):
        application.refresh_token(metadata["token_endpoint"], tokens["refresh_token"])


def test_authlib_connects_a_device_and_its_api_calls_the_next_one(running_server, ann):
    """DEV-01, DEV-02, TX-04, TX-13: the device polls with Authlib, and the API that it calls exchanges its token."""
    metadata = discover(running_server.issuer)
    records = running_server.records
    device, _ = records.add_client(
        grant_types=(DEVICE_CODE_GRANT_TYPE, "refresh_token"), token_endpoint_auth_method="none"
    )
    gateway, secret = records.add_client(client_id="gateway", grant_types=(TOKEN_EXCHANGE,))
    session = OAuth2Session(device.client_id, token_endpoint_auth_method="none")
    told = requests.post(
        metadata["device_authorization_endpoint"],
        data={"client_id": device.client_id, "scope": "profile files.read"},
        timeout=10,
    ).json()
    poll = {"grant_type": DEVICE_CODE_GRANT_TYPE, "device_code": told["device_code"]}
    with pytest.raises(OAuthError) as pending:
        session.fetch_token(metadata["token_endpoint"], **poll)
    assert pending.value.error == "authorization_pending"
    assert "Your device is connected" in ann.connect(told["verification_uri_complete"])
    tokens = session.fetch_token(metadata["token_endpoint"], **poll)
    assert session.refresh_token(metadata["token_endpoint"])["refresh_token"] != tokens["refresh_token"]

    api = OAuth2Session(gateway.client_id, secret)
    exchanged = api.fetch_token(
        metadata["token_endpoint"],
        grant_type=TOKEN_EXCHANGE,
        subject_token=tokens["access_token"],
        subject_token_type=ACCESS_TOKEN,
        scope="profile",
    )
    assert exchanged["issued_token_type"] == ACCESS_TOKEN
    validator = Validator(running_server.issuer, RESOURCE)
    claims = validator.authenticate_token(exchanged["access_token"])
    validator.validate_token(claims, ["profile"], None)
    assert claims["act"] == {"sub": "gateway"}
    assert claims["sub"] == validator.authenticate_token(tokens["access_token"])["sub"]


def test_authlib_gets_a_token_for_a_workload_that_has_no_secret(running_server):
    """WIF-02, WIF-06, WIF-07, WIF-12: the assertion of its platform says who it is; the second time it says nothing."""
    records = running_server.records
    client, _ = records.add_client(grant_types=(JWT_BEARER,), token_endpoint_auth_method="none")
    claims = {"name": "deploy", "client": client.client_id, "claims": {"repository_id": "74"}}
    rules = [{**claims, "resources": [RESOURCE], "scopes": ["files.read"]}]
    PLATFORM.trust(records, "workload_identity", options={"platform": "github-actions", "rules": rules})
    endpoint = discover(running_server.issuer)["token_endpoint"]
    form = {"grant_type": JWT_BEARER, "resource": RESOURCE}
    form["assertion"] = PLATFORM.assertion(aud=running_server.issuer, repository_id="74")
    session = OAuth2Session(client.client_id, token_endpoint_auth_method="none")
    tokens = session.fetch_token(endpoint, **form)
    assert "refresh_token" not in tokens
    found = Validator(running_server.issuer, RESOURCE).authenticate_token(tokens["access_token"])
    assert (found["sub"], found["client_id"]) == ("workload:deploy", client.client_id)
    with pytest.raises(OAuthError, match="invalid_grant"):
        session.fetch_token(endpoint, **form)
    # Nothing else than the three members is needed.
    form["assertion"] = PLATFORM.assertion(aud=running_server.issuer, repository_id="74")
    assert requests.post(endpoint, data=form, timeout=10).status_code == 200
    form["assertion"] = PLATFORM.assertion(aud=running_server.issuer, repository_id="75")
    assert requests.post(endpoint, data=form, timeout=10).json()["error"] == "invalid_grant"
