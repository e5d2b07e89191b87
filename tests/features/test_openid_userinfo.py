"""What an application may know of a person (OIDC Core, 5): UserInfo and `person_claims`, on the rules alone."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from joserfc.jwk import ECKey

from authserver.api import ServerError, User, hookimpl
from authserver.engine.errors import InsufficientScope, InvalidRequest, InvalidToken, OAuthError
from authserver.engine.people.attributes import change
from authserver.engine.people.login import disable_user
from authserver.features.openid.claims import COVERED
from authserver.testing.rules import Rules
from authserver.testing.server import ISSUER, RESOURCE
from tests.features.openid_steps import (
    ATTRIBUTES,
    ON,
    USERINFO,
    a_client_of,
    a_new_server,
    a_server,
    about,
    id_claims,
    tokens,
)
from tests.features.test_dpop import proof

PERSON: dict[str, dict[str, Any]] = {
    "profile": {"name": "Ann", "preferred_username": "ann", "given_name": "Ann"},
    "email": {"email": "ann@example.com", "email_verified": True},
    "address": {"address": {"locality": "Berlin", "country": "DE"}},
    "phone": {"phone_number": "+49 30 1234", "phone_number_verified": False},
}
BOUND = {**ON, "authserver.plugins": ON["authserver.plugins"] + "\ndpop"}


@dataclass(frozen=True)
class Says:
    """Says more of people than is kept of them."""

    person_claim_names: ClassVar[frozenset[str]] = frozenset({"roles", "email", "nonce"})
    immediate: ClassVar[bool] = True

    nonsense: bool = False

    @hookimpl
    def person_claims(self, user: User, scopes: tuple[str, ...]) -> Mapping[str, Any] | None:
        if self.nonsense:
            return {"nonce": "mine"}
        return {"roles": ["editor"], "email": f"{user.username}@hr.example"} if "email" in scopes else None


@pytest.fixture
def rules() -> Rules:
    return a_server(ON)


def access(rules: Rules, scope: str = "openid", **changes: Any) -> str:
    client, secret = a_client_of(rules)
    token: str = tokens(rules, client, secret, scope=scope, **changes)["access_token"]
    return token


@pytest.mark.parametrize("scopes", [(), *((scope,) for scope in COVERED), tuple(COVERED)])
def test_claims_follow_the_scopes(rules: Rules, scopes: tuple[str, ...]) -> None:
    """OIDC-10, OIDC-41: what is not known is left out; flags are true or false, and an address is an object."""
    said = about(rules, access(rules, " ".join(("openid", *scopes))))
    (sub,) = [row["user_id"] for row in rules.rows("users") if row["username"] == "ann"]
    expected: dict[str, Any] = {"sub": sub}
    for scope in scopes:
        expected |= PERSON[scope]
    assert said == expected


def test_it_says_the_subject_of_the_id_token(rules: Rules) -> None:
    """OIDC-38"""
    client, secret = a_client_of(rules)
    answer = tokens(rules, client, secret)
    assert about(rules, answer["access_token"])["sub"] == id_claims(rules, answer["id_token"])["sub"]


def test_a_token_may_be_in_the_header_or_in_a_form(rules: Rules) -> None:
    """OIDC-09, RFC 6750, 2: in one of them."""
    token = access(rules)
    assert (
        about(rules, token) == about(rules, None, access_token=token) == about(rules, token, scheme="bearer")
    )
    with pytest.raises(InvalidRequest):
        about(rules, token, access_token=token)


@pytest.mark.parametrize("token", [None, "", "x", "as_access_x", "a.b.c"])
def test_what_is_no_token_is_refused(rules: Rules, token: str | None) -> None:
    """OIDC-09, P-05"""
    with pytest.raises(InvalidToken) as refused:
        about(rules, token)
    assert refused.value.sent == bool(token)


def test_a_token_without_the_scope_is_refused(rules: Rules) -> None:
    """OIDC-09, OIDC-23"""
    with pytest.raises(InsufficientScope) as refused:
        about(rules, access(rules, "profile email"))
    assert (refused.value.status, refused.value.scope) == (403, "openid")


def test_tokens_of_others_are_refused(rules: Rules) -> None:
    """OIDC-38, P-08: of a client on its own behalf, of another resource; a refresh token is no access token."""
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=("openid",))
    own = rules.token(client, secret, grant_type="client_credentials", scope="openid").json["access_token"]
    person, secret = a_client_of(rules)
    elsewhere = tokens(rules, person, secret, scope="openid files.read", resource="https://files.example/")
    for token in (own, elsewhere["access_token"], elsewhere["refresh_token"]):
        with pytest.raises(InvalidToken):
            about(rules, token)


def test_the_audience_may_be_named() -> None:
    """OIDC-38: the endpoint itself is a resource where an operator lists it."""
    resources = f"{RESOURCE} = *\n{USERINFO} = openid email"
    rules = a_server({**ON, "authserver.plugin.resources_listed.resources": resources})
    assert about(rules, access(rules, "openid email", resource=USERINFO))["email"] == "ann@example.com"


def test_a_disabled_person_is_nobody_at_once() -> None:
    """OIDC-43, R-09"""
    rules = a_new_server(ON)
    token = access(rules)
    with rules.begin() as engine:
        disable_user(engine, "ann")
    with pytest.raises(InvalidToken):
        about(rules, token)


def test_a_disabled_client_learns_nothing(rules: Rules) -> None:
    """OIDC-43, R-09"""
    client, secret = a_client_of(rules)
    token = tokens(rules, client, secret)["access_token"]
    with rules.begin() as engine:
        engine.stores.clients.disable(client.client_id, engine.now)
    with pytest.raises(InvalidToken):
        about(rules, token)


def test_an_address_that_changes_is_not_verified_any_more() -> None:
    """OIDC-41: the flag names what was verified."""
    rules = a_new_server(ON)
    token = access(rules, "openid email")
    for attributes, verified in (
        ({**ATTRIBUTES, "email": ("new@example.com",)}, False),
        ({**ATTRIBUTES, "email_verified": ("true",)}, False),
        ({"email": ("ann@example.com",)}, False),
        (ATTRIBUTES, True),
    ):
        with rules.begin() as engine:
            user = engine.stores.users.find_by_name("ann")
            assert user is not None
            change(engine, user, attributes=attributes)
        assert about(rules, token)["email_verified"] is verified
    with rules.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
        assert user is not None
        change(engine, user, attributes={"email_verified": ("ann@example.com",)})
    assert "email_verified" not in about(rules, token)


def test_attributes_may_have_other_names() -> None:
    """OIDC-42: as a directory calls them."""
    settings = {**ON, "authserver.plugin.openid.attributes": "family_name = ssn\naddress.region = given_name"}
    said = about(a_server(settings), access(a_server(settings), "openid profile address"))
    assert said["family_name"] == "078-05-1120"
    assert said["address"]["region"] == "Ann"


def test_a_plugin_says_more(rules: Rules) -> None:
    """OIDC-42, `person_claims`: in place of what is kept; where the scope covers it."""
    settings = {**ON, "authserver.plugins": f"{ON['authserver.plugins']}\n{__name__}:Says"}
    rules = a_server(settings)
    said = about(rules, access(rules, "openid email"))
    assert (said["email"], said["roles"]) == ("ann@hr.example", ["editor"])
    assert "roles" not in about(rules, access(rules, "openid profile"))


def test_a_plugin_cannot_say_what_tokens_say() -> None:
    """OIDC-42"""
    settings = {
        **ON,
        "authserver.plugins": f"{ON['authserver.plugins']}\n{__name__}:Says",
        "authserver.plugin.says.nonsense": "true",
    }
    rules = a_server(settings)
    token = access(rules)
    with pytest.raises(ServerError) as refused:
        about(rules, token)
    assert (refused.value.reason, refused.value.facts) == ("claim-of-tokens", {"claim": "nonce"})


def test_groups_are_told_where_their_scope_was_granted() -> None:
    """OIDC-42, `claims_groups`"""
    rules = a_new_server({**ON, "authserver.plugins": ON["authserver.plugins"] + "\nclaims_groups"})
    with rules.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
        assert user is not None
        change(engine, user, groups=("staff", "admins"))
    client, secret = a_client_of(rules, scopes=("openid", "groups"))
    told = [
        about(rules, tokens(rules, client, secret, scope=scope)["access_token"])
        for scope in ("openid groups", "openid")
    ]
    assert told[0]["groups"] == ["admins", "staff"]
    assert "groups" not in told[1]


def test_what_plugins_say_is_in_an_id_token_as_other_claims_are() -> None:
    """OIDC-31, OIDC-35: where it is asked for by name, or where the operator wants all of it there."""
    groups = {**ON, "authserver.plugins": ON["authserver.plugins"] + "\nclaims_groups"}
    asked = json.dumps({"id_token": {"groups": {"essential": True}, "roles": None}})
    for settings, sent in (
        (groups, {"claims": asked}),
        ({**groups, "authserver.plugin.openid.claims_in_id_token": "true"}, {}),
    ):
        rules = a_new_server(settings)
        with rules.begin() as engine:
            user = engine.stores.users.find_by_name("ann")
            assert user is not None
            change(engine, user, groups=("staff",))
        client, secret = a_client_of(rules, scopes=("openid", "groups"))
        for scope, told in (("openid groups", ["staff"]), ("openid", None)):
            answer = tokens(rules, client, secret, scope=scope, **sent)
            assert id_claims(rules, answer["id_token"]).get("groups") == told


def ath(token: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


def test_a_bound_token_needs_its_key() -> None:
    """OIDC-39, RFC 9449, 7: with the scheme DPoP, a proof for this token, and once."""
    rules = a_server(BOUND)
    client, secret = a_client_of(rules)
    code = rules.code(client, scope="openid")
    key = ECKey.generate_key("P-256")
    sent = {"dpop": proof(key)}
    token = rules.redeem(client, secret, code, headers=sent).json["access_token"]
    good = {"htm": "GET", "htu": USERINFO, "ath": ath(token)}
    once = {"dpop": proof(key, **good)}
    assert about(rules, token, scheme="DPoP", headers=once)["sub"]
    refused: list[tuple[str, dict[str, str]]] = [
        ("DPoP", once),
        ("DPoP", {}),
        ("Bearer", {}),
        ("Bearer", {"dpop": proof(key, **good)}),
        ("DPoP", {"dpop": proof(key, **{**good, "ath": ath("other")})}),
        ("DPoP", {"dpop": proof(key, **{**good, "ath": None})}),
        ("DPoP", {"dpop": proof(key, **{**good, "htm": "POST"})}),
        ("DPoP", {"dpop": proof(key, **{**good, "htu": f"{ISSUER}/oauth/token"})}),
        ("DPoP", {"dpop": proof(ECKey.generate_key("P-256"), **good)}),
    ]
    for scheme, headers in refused:
        with pytest.raises(OAuthError):
            about(rules, token, scheme=scheme, headers=headers)
    with pytest.raises(InvalidToken):
        about(rules, None, access_token=token)


def test_a_token_that_is_not_bound_takes_no_other_scheme() -> None:
    """OIDC-39"""
    rules = a_server(BOUND)
    with pytest.raises(InvalidToken):
        about(rules, access(rules), scheme="DPoP")


def test_the_kinds_of_claims_are_those_of_the_specification() -> None:
    """OIDC Core, 5.4: each claim is covered by one scope."""
    names = [name for names in COVERED.values() for name in names]
    assert len(set(names)) == len(names)
