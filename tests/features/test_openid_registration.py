"""What clients register for OpenID Connect (OIDC Registration, 2 and 5), on the rules alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from authserver.engine.clients.editing import update
from authserver.engine.errors import InvalidClientMetadata
from authserver.fetching.addresses import Reach
from authserver.fetching.fetcher import Fetcher, Limits
from authserver.testing.origins import Authority, Origin, resolving, sending, serving
from authserver.testing.rules import Rules, assert_refused
from authserver.testing.service import self_registration
from tests.features.openid_steps import ON, a_new_server, a_server, outcome_of

HOST = "sector.example"
OPEN = {
    **ON,
    "authserver.plugin.openid.pairwise_salt": "0123456789abcdef0123456789abcdef",
    "authserver.plugin.registration_open.scopes": "openid profile email",
}
ONE, TWO = "https://one.example/cb", "https://two.example/cb"


@pytest.fixture
def rules() -> Rules:
    return a_server(OPEN)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def sector(authority: Authority) -> Iterator[Origin]:
    """A host with the document of a sector."""
    with serving(authority.context(HOST)) as origin:
        yield origin


def registered(rules: Rules, **members: Any) -> Any:
    return rules.register(self_registration(**{"scope": "openid profile", **members}))


GOOD: dict[str, Any] = {
    "id_token_signed_response_alg": "ES256",
    "userinfo_signed_response_alg": "RS256",
    "subject_type": "pairwise",
    "default_max_age": 3600,
    "require_auth_time": True,
    "default_acr_values": ["two-factors", "password"],
    "initiate_login_uri": "https://client.example/login",
    "post_logout_redirect_uris": [
        "https://client.example/bye",
        "http://127.0.0.1/bye",
        "com.example.app:/bye",
    ],
}


def test_what_is_registered_comes_back(rules: Rules) -> None:
    """OIDC-51: and an operator may set the same."""
    answer = registered(rules, **GOOD)
    assert {name: answer.json[name] for name in GOOD} == GOOD
    client, _ = rules.add_client(scopes=("openid",), details=GOOD)
    assert dict(client.details) == GOOD


def test_what_is_in_effect_is_told(rules: Rules) -> None:
    """OIDC-51: the defaults, too, to whoever speaks OpenID Connect."""
    told = registered(rules).json
    assert (told["id_token_signed_response_alg"], told["subject_type"]) == ("RS256", "public")
    assert "id_token_signed_response_alg" not in registered(rules, scope="profile").json


@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("id_token_signed_response_alg", ["none", "HS256", "EdDSA", 7, ["RS256"], {}]),
        ("userinfo_signed_response_alg", ["none", "HS256", True]),
        ("subject_type", ["other", "PAIRWISE", 1]),
        ("default_max_age", [-1, 1.5, "60", True, 10**10]),
        ("require_auth_time", ["true", 1]),
        ("default_acr_values", ["password", [7], ["a b"], ["é"], [""], ["x"] * 21, [["x"]]]),
        (
            "initiate_login_uri",
            ["http://client.example/login", "https://client.example/#x", "javascript:alert(1)", 7],
        ),
        (
            "post_logout_redirect_uris",
            [
                "https://client.example/bye",
                ["http://client.example/bye"],
                ["https://client.example/bye#x"],
                ["https://*.example/bye"],
                ["javascript:alert(1)"],
                [7],
                [ONE] * 0 + [f"https://client.example/{number}" for number in range(21)],
            ],
        ),
        ("sector_identifier_uri", ["http://sector.example/", "https://sector.example/#x", 7]),
        ("id_token_encrypted_response_alg", ["RSA-OAEP"]),
        ("id_token_encrypted_response_enc", ["A128GCM"]),
        ("userinfo_encrypted_response_alg", ["RSA-OAEP"]),
        ("userinfo_encrypted_response_enc", ["A128GCM"]),
        ("request_object_encryption_alg", ["RSA-OAEP"]),
        ("request_object_encryption_enc", ["A128GCM"]),
    ],
)
def test_what_cannot_be_is_refused(rules: Rules, member: str, values: list[Any]) -> None:
    """OIDC-27, OIDC-51, OIDC-52"""
    for value in values:
        assert_refused(registered(rules, **{member: value}), "invalid_client_metadata")


def test_no_client_lets_itself_off_pkce(rules: Rules) -> None:
    """OAuth 2.1, 7.5.1: that is for operators to say."""
    answer = registered(rules, nonce_replaces_pkce=True, token_endpoint_auth_method="client_secret_basic")
    assert "nonce_replaces_pkce" not in answer.json
    client = rules.stores.tables.clients[answer.json["client_id"]]
    bare = {"code_challenge": None, "code_challenge_method": None}
    came = rules.authorize(client, rules.signed_in(), scope="openid", nonce="n", **bare)
    assert outcome_of(came) == "page, then invalid_request"


def test_hosts_of_several_sectors_need_a_document(rules: Rules) -> None:
    """OIDC-46"""
    answer = registered(rules, subject_type="pairwise", redirect_uris=[ONE, TWO])
    assert_refused(answer, "invalid_client_metadata")
    assert registered(rules, subject_type="public", redirect_uris=[ONE, TWO]).refusal is None
    assert registered(rules, subject_type="pairwise", redirect_uris=[ONE, ONE + "/2"]).refusal is None


@pytest.mark.parametrize(
    "uri",
    ["https://[x/cb", "https://a]b/cb", "https://\u2100.example/cb", "", "/cb", "com.example.app://host/cb"],
)
def test_what_has_no_host_has_no_sector(rules: Rules, uri: str) -> None:
    """OIDC-46: whatever is sent as a redirect URI, the answer says what is wrong with it."""
    refused = registered(rules, subject_type="pairwise", redirect_uris=[uri])
    assert_refused(refused, "invalid_client_metadata")


@pytest.mark.parametrize(
    ("body", "status", "came"),
    [
        (json.dumps([ONE, TWO, "https://three.example/cb"]), 200, None),
        (json.dumps([ONE]), 200, "sector-incomplete"),
        ("[]", 200, "sector-incomplete"),
        (json.dumps({"redirect_uris": [ONE, TWO]}), 200, "sector-refused"),
        (json.dumps([ONE, TWO, 7]), 200, "sector-refused"),
        ("<html>", 200, "sector-refused"),
        (json.dumps([ONE, TWO]), 404, "sector-refused"),
        (json.dumps([ONE, TWO]), 500, "sector-unavailable"),
    ],
)
def test_the_document_of_a_sector_has_all_redirect_uris(
    sector: Origin, authority: Authority, body: str, status: int, came: str | None
) -> None:
    """OIDC-46, R-13: it is fetched, and one that lies is refused; while its host fails, the client may try again later."""
    rules = a_new_server(OPEN)
    fetcher = Fetcher(
        Limits(reach=Reach(refused=(), loopback=True), ca_file=str(authority.ca_file)),
        resolve=resolving({HOST: ["127.0.0.1"]}),
    )
    rules.parts = replace(rules.parts, fetcher=fetcher)
    sector.reply = sending(body.encode(), status)
    answer = registered(
        rules,
        subject_type="pairwise",
        redirect_uris=[ONE, TWO],
        sector_identifier_uri=f"https://{HOST}:{sector.port}/uris.json",
    )
    if came is None:
        assert answer.refusal is None
        return
    if came == "sector-unavailable":
        assert_refused(answer, "temporarily_unavailable", status=503)
    else:
        assert_refused(answer, "invalid_client_metadata")
    assert answer.refusal.reason == came
    assert rules.rows("clients") == []


def test_a_private_address_is_not_fetched(rules: Rules) -> None:
    """R-13"""
    answer = registered(
        rules,
        subject_type="pairwise",
        redirect_uris=[ONE, TWO],
        sector_identifier_uri="https://localhost/uris.json",
    )
    assert answer.refusal is not None


def test_the_ids_of_people_do_not_change_under_a_client(rules: Rules) -> None:
    """OIDC-48: who has grants keeps its type and its sector; who has none may change them."""
    members = self_registration(
        scope="openid profile", redirect_uris=[ONE], token_endpoint_auth_method="client_secret_basic"
    )

    def change(client_id: str, **changes: Any) -> Any:
        with rules.begin() as engine:
            client = engine.stores.clients.find(client_id, engine.now)
            assert client is not None
            return update(engine, client, {**members, **changes}, private_details={})

    fresh = rules.register(members).json["client_id"]
    change(fresh, subject_type="pairwise")
    answer = rules.register({**members, "subject_type": "pairwise"}).json
    used = rules.stores.tables.clients[answer["client_id"]]
    code = rules.code(used, scope="openid")
    rules.redeem(used, answer["client_secret"], code)
    for changes in ({}, {"subject_type": "pairwise", "redirect_uris": [TWO]}):
        with pytest.raises(InvalidClientMetadata):
            change(used.client_id, **changes)
    change(used.client_id, subject_type="pairwise", client_name="Renamed")
