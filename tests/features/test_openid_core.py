"""ID tokens and requests of OpenID Connect: `openid`."""

from __future__ import annotations

import pytest

from authserver.testing.rules import Rules
from tests.features.openid_steps import ON, a_client_of, a_user_of, id_claims, tokens


@pytest.fixture
def rules() -> Rules:
    rules = Rules(ON)
    a_user_of(rules)
    return rules


def test_an_id_token_says_who_signed_in_to_whom(rules: Rules) -> None:
    client, secret = a_client_of(rules)
    answer = tokens(rules, client, secret, nonce="n-0S6_WzA2Mj")
    claims = id_claims(rules, answer["id_token"])
    assert claims["aud"] == client.client_id
