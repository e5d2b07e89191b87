"""Introspection (RFC 7662): what a token is good for, told to whom it concerns, and to nobody else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
import time_machine

from authserver.api import hookimpl
from authserver.engine.clients.authentication import disable_client
from authserver.engine.people.login import disable_user
from authserver.testing import forgeries
from authserver.testing.rules import (
    Rules,
    assert_inactive,
    assert_refused,
    is_active,
)
from authserver.testing.server import ISSUER, RESOURCE, SETTINGS
from authserver.testing.stories import Granted, stored

FILES = "https://files.example/"


OWN = ("client_credentials",)


def test_an_active_access_token_is_described(granted: Granted) -> None:
    """M-05, A-03, M-08: every member that is known, in the form of the claims; nothing personal."""
    (user,) = granted.server.rows("users")
    (grant,) = granted.server.rows("grants")
    for answer in (granted.introspect(granted.access), granted.introspect_as_api(granted.access)):
        described = dict(answer.json)
        jti = described.pop("jti")
        # As many characters as in a JWT, where they are random.
        assert re.fullmatch(rf"{re.escape(grant['grant_id'])}\.[\w-]{{22}}", jti)
        assert described.pop("exp") == described.pop("iat") + granted.answer["expires_in"]
        assert described == {
            "active": True,
            "scope": "profile files.read",
            "client_id": granted.client.client_id,
            "sub": user["user_id"],
            "aud": RESOURCE,
            "iss": ISSUER,
            "token_type": "Bearer",
            "auth_time": grant["details"]["auth_time"],
        }
        assert user["username"] not in str(answer.json)


def test_a_jwt_is_described_as_it_describes_itself(rules: Rules) -> None:
    """M-05, M-09.a, M-09.b, A-03, N-04: the members are its claims."""
    granted = Granted(rules)
    claims = rules.claims(granted.access)
    described = granted.introspect(granted.access).json
    names = ("iss", "sub", "aud", "client_id", "iat", "exp", "jti", "scope", "auth_time")
    assert {name: described[name] for name in described.keys() & claims.keys()} == {
        name: claims[name] for name in names
    }


def test_a_token_for_several_resources_names_them_all(rules: Rules) -> None:
    """M-05: as the `aud` of the JWT does."""
    granted = Granted(rules, resource=[RESOURCE, FILES])
    assert (
        granted.introspect(granted.access).json["aud"]
        == rules.claims(granted.access)["aud"]
        == [RESOURCE, FILES]
    )


@dataclass(frozen=True)
class ProvesCertificates:
    """Knows the keys of certificates (RFC 8705, 3.1), and sees none."""

    confirmations: ClassVar[Mapping[str, str]] = {"x5t#S256": "Bearer"}

    @hookimpl
    def token_binding(self) -> None:
        return None


@pytest.mark.parametrize(
    ("confirmation", "token_type"),
    [({"jkt": "thumbprint"}, "DPoP"), ({"x5t#S256": "thumbprint"}, "Bearer"), ({"unknown": "x"}, None)],
)
def test_a_bound_token_shows_its_key(confirmation: dict[str, str], token_type: str | None) -> None:
    """M-09.a: else an API would take it from whoever has it. The type is that of the plugin that proves such keys."""
    plugins = f"{SETTINGS['authserver.plugins']} dpop {__name__}:ProvesCertificates"
    rules = Rules({"authserver.plugins": plugins})
    rules.add_user("ann")
    granted = Granted(rules)
    bound = rules.parts.signer.sign({**rules.claims(granted.access), "cnf": confirmation}, typ="at+jwt")
    described = granted.introspect(bound).json
    assert (described["cnf"], described.get("token_type")) == (confirmation, token_type)
    assert "cnf" not in granted.introspect(granted.access).json


def test_how_the_person_signed_in_is_told(granted: Granted) -> None:
    """M-09.b, N-08 (RFC 9470, 6.2): `acr` and `auth_time` of the grant, where it has them; a refresh is no sign-in."""
    before = granted.introspect(granted.access).json
    assert type(before["auth_time"]) is int
    assert "acr" not in before
    facts = granted.grant()["details"] | {"acr": "phr", "auth_time": before["iat"] - 7200}
    granted.server.change("grants", details=facts)
    renewed = granted.renew(granted.refresh).json
    for token in (granted.access, renewed["access_token"], renewed["refresh_token"]):
        described = granted.introspect(token).json
        assert (described["acr"], described["auth_time"]) == ("phr", before["iat"] - 7200)
    assert granted.introspect_as_api(renewed["access_token"]).json["acr"] == "phr"


def test_a_jwt_of_a_person_without_a_stored_grant_is_inactive(rules: Rules) -> None:
    """R-09, M-04: each grant of a person is kept, so nobody could end this one; a client's own need not be."""
    granted = Granted(rules)
    claims = {**rules.claims(granted.access), "jti": "unknown.1"}
    token = rules.parts.signer.sign(claims, typ="at+jwt")
    before = stored(rules)
    assert_inactive(granted.introspect(token))
    assert granted.revoke(token).status_int == 200
    assert stored(rules) == before
    own = {**claims, "sub": granted.client.client_id}
    token = rules.parts.signer.sign(own, typ="at+jwt")
    assert is_active(granted.introspect(token))
    assert granted.revoke(token).status_int == 200
    assert_inactive(granted.introspect(token))


@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_a_token_of_a_client_for_itself_is_described(
    token_format: str, make_rules: Callable[..., Rules]
) -> None:
    """M-05, M-04, T080: its subject is the client; nobody signed in. It dies with the client."""
    rules = make_rules({"authserver.access_token_format": token_format})
    client, secret = rules.add_client(grant_types=OWN)
    answer = rules.token(client, secret, grant_type="client_credentials", scope="profile").json
    described = rules.introspect(client, secret, answer["access_token"]).json
    assert (described["active"], described["sub"], described["client_id"]) == (True, *[client.client_id] * 2)
    assert not {"auth_time", "acr", "username"} & described.keys()
    api, api_secret = rules.add_client(client_id="api", grant_types=OWN)
    assert is_active(rules.introspect(api, api_secret, answer["access_token"]))
    with rules.begin() as engine:
        disable_client(engine, client.client_id)
    assert_inactive(rules.introspect(api, api_secret, answer["access_token"]))


def test_a_refresh_token_is_described_to_its_own_client(granted: Granted) -> None:
    """M-07.b: to nobody else; and it is no Bearer token."""
    described = granted.introspect(granted.refresh).json
    assert (described["active"], described["scope"]) == (True, "profile files.read")
    assert "token_type" not in described
    assert_inactive(granted.introspect_as_api(granted.refresh))


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "id_token", "garbage", ""])
def test_a_hint_is_only_a_hint(hint: str, granted: Granted) -> None:
    """M-02.b, T077: wrong or unknown, it hides nothing."""
    for token in (granted.access, granted.refresh):
        assert is_active(granted.introspect(token, token_type_hint=hint))


def test_introspection_changes_nothing(granted: Granted) -> None:
    """A look leaves no event: there may be one for each request to an API."""
    before, events = stored(granted.server), granted.server.events()
    assert is_active(granted.introspect(granted.access))
    assert_inactive(granted.introspect("garbage"))
    assert (stored(granted.server), granted.server.events()) == (before, events)


def disable_user_ann(granted: Granted) -> None:
    with granted.server.begin() as engine:
        disable_user(engine, "ann")


def disable_the_client(granted: Granted) -> None:
    with granted.server.begin() as engine:
        disable_client(engine, granted.client.client_id)


def revoke_the_grant(granted: Granted) -> None:
    with granted.server.begin() as engine:
        engine.stores.grants.revoke(granted.server.rows("grants")[0]["grant_id"], engine.now, "operator")


def replay_the_code(granted: Granted) -> None:
    assert granted.server.redeem(granted.client, granted.secret, granted.code).status_int == 400


@pytest.mark.parametrize(
    ("happening", "code", "status"),
    [
        (disable_user_ann, "invalid_grant", 400),
        (disable_the_client, "invalid_client", 401),
        (revoke_the_grant, "invalid_grant", 400),
        (replay_the_code, "invalid_grant", 400),
    ],
)
def test_every_token_dies_with_what_it_stands_on(
    happening: Callable[[Granted], None], code: str, status: int, granted: Granted
) -> None:
    """M-03, M-04, R-09, T073, T076, T078: at once, JWTs as opaque tokens; nothing can be renewed either."""
    newer = granted.renew(granted.refresh).json
    tokens = (granted.access, newer["access_token"])
    assert all(is_active(granted.introspect_as_api(token)) for token in tokens)
    happening(granted)
    for token in tokens:
        assert_inactive(granted.introspect_as_api(token))
    assert_refused(granted.renew(newer["refresh_token"]), code, status=status)
    for token in (*tokens, newer["refresh_token"]):
        if status == 401:
            assert_refused(granted.introspect(token), code, status=status)
        else:
            assert_inactive(granted.introspect(token))


def test_an_expired_token_is_inactive(granted: Granted, clock: time_machine.Traveller) -> None:
    """M-03, M-04: from the second in which it ends; the refresh token lives on."""
    exp = granted.introspect(granted.access).json["exp"]
    clock.move_to(datetime.fromtimestamp(exp, UTC) - timedelta(milliseconds=1))
    assert is_active(granted.introspect(granted.access))
    clock.move_to(datetime.fromtimestamp(exp, UTC) + timedelta(seconds=1))
    assert_inactive(granted.introspect(granted.access))
    assert_inactive(granted.introspect_as_api(granted.access))
    assert is_active(granted.introspect(granted.refresh))
    clock.shift(timedelta(days=14))
    assert_inactive(granted.introspect(granted.refresh))


def test_a_used_refresh_token_is_inactive(granted: Granted) -> None:
    """M-03, I-04: its successor is active."""
    successor = granted.server.refresh(granted.client, granted.secret, granted.refresh).json["refresh_token"]
    assert_inactive(granted.introspect(granted.refresh))
    assert is_active(granted.introspect(successor))


@pytest.mark.parametrize(
    ("changes", "typ"),
    [
        ({"iss": "https://another.example"}, "at+jwt"),
        ({"exp": 1}, "at+jwt"),
        ({"nbf": 32503680000}, "at+jwt"),
        ({"sub": "user_nobody", "jti": "unknown.1"}, "at+jwt"),
        ({"sub": 7, "jti": "unknown.1"}, "at+jwt"),
        ({}, "JWT"),
        ({}, "at+JWT"),
        ({}, "application/at+jwt"),
        ({}, "authorization-grant+jwt"),
        ({}, "client-authentication+jwt"),
        ({}, "logout+jwt"),
        ({}, "token-introspection+jwt"),
    ],
)
def test_a_jwt_of_ours_that_is_no_token_now_is_inactive(
    changes: dict[str, Any], typ: str, rules: Rules
) -> None:
    """M-04, N-09, T079: issuer, `exp`, `nbf`, subject and `typ` all count, however well it is signed."""
    granted = Granted(rules)
    keys, claims = rules.parts.signer, rules.claims(granted.access)
    assert is_active(granted.introspect(keys.sign(claims, typ="at+jwt")))
    assert_inactive(granted.introspect(keys.sign({**claims, **changes}, typ=typ)))


def test_what_no_verifier_may_accept_is_inactive(rules: Rules) -> None:
    """M-04, N-09, T053, T054, T055, T056, T057, T060, T061, T079: the corpus that `authserver-resource` is tested with, under our own key."""
    granted = Granted(rules)
    claims = rules.claims(granted.access)
    key = rules.parts.signer._current()._active["ES256"]
    header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
    assert is_active(granted.introspect(forgeries.signed(header, claims, key.private)))
    for name, token in forgeries.jwts(
        header,
        claims,
        key.private,
        required=("iss", "aud", "sub", "client_id", "jti"),
        times=("exp", "iat"),
        types=("JWT", "application/jwt", "dpop+jwt", "client-authentication+jwt", None),
    ).items():
        answer = granted.introspect(token)
        if name in ("NUL in it", "huge", "a long header"):  # no parameter may be so
            assert_refused(answer, "invalid_request")
        else:
            assert (answer.status_int, answer.json) == (200, {"active": False}), name


def test_what_was_never_issued_is_inactive(granted: Granted) -> None:
    """M-03, T078, I-15: garbage, forgeries, credentials of other kinds; all alike, and none leaves a trace."""
    before, events = stored(granted.server), granted.server.events()
    for text in granted.never_issued():
        assert_inactive(granted.introspect(text))
    assert (stored(granted.server), granted.server.events()) == (before, events)


def test_another_client_is_told_nothing(granted: Granted) -> None:
    """M-03, T078: a foreign token is as good as none; the operator finds the refusal and its decisions."""
    other, secret = granted.server.add_client()
    for token in (granted.access, granted.refresh):
        assert_inactive(granted.server.introspect(other, secret, token))
    refused = granted.server.events("request.refused")
    assert [(row["client_id"], row["reason"]) for row in refused] == [
        (other.client_id, "nobody-answered")
    ] * 2
    assert all("introspection_decision" in str(row["decisions"]) for row in refused)
    assert not any(granted.access in str(row) or granted.refresh in str(row) for row in refused)


def test_a_resource_server_is_told_of_tokens_for_it_alone(rules: Rules) -> None:
    """M-06, T078: the audience of the token decides."""
    granted = Granted(rules)
    files, secret = rules.add_client(client_id="files-api", grant_types=OWN)
    assert is_active(granted.introspect_as_api(granted.access))
    assert_inactive(rules.introspect(files, secret, granted.access))
    code = rules.code(granted.client, resource=[RESOURCE, FILES])
    token = rules.redeem(granted.client, granted.secret, code).json["access_token"]
    assert is_active(rules.introspect(files, secret, token))
    assert is_active(granted.introspect_as_api(token))


def test_a_public_client_cannot_introspect(granted: Granted) -> None:
    """M-07.a, M-01: not even its own token; 401 with a challenge, and an event."""
    public, _ = granted.server.add_client(token_endpoint_auth_method="none")
    token = granted.server.redeem(public, None, granted.server.code(public)).json["access_token"]
    before = stored(granted.server)
    assert_refused(granted.server.introspect(public, None, token), "invalid_client", status=401)
    assert stored(granted.server) == before
    (refused,) = granted.server.events("request.refused")
    assert (refused["reason"], refused["client_id"]) == ("public-caller", public.client_id)
