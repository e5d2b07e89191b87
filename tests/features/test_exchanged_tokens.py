"""What else is exchanged (RFC 8693, 3) than access tokens: ID tokens of this server, and JWTs of issuers whose entry says so."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from authserver.engine.people import account
from authserver.engine.people.login import disable_user
from authserver.features.openid.id_tokens import TOKEN_TYPE as ID_TOKEN
from authserver.features.token_exchange import ACCESS_TOKEN, GRANT_TYPE, JWT
from authserver.testing.rules import Answer, assert_inactive
from authserver.testing.server import ISSUER, RESOURCE, SETTINGS
from tests.client_keys import ABSENT
from tests.dpop_proofs import KEY, OTHER, proof
from tests.features.test_token_exchange import NEXT, Services, refused
from tests.trusted_issuers import Issuer

EXCHANGED = {"subject": "listed", "subjects": {"00u1": "ann"}, "exchanged": True}


class Exchanging(Services):
    """The same with OpenID Connect and a company, and an application `portal` which ann signs in to, that exchanges, too."""

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        plugins = (
            f"dpop token_exchange openid jwt_bearer id_jag workload_identity {SETTINGS['authserver.plugins']}"
        )
        super().__init__(fields, **{"authserver.plugins": plugins})
        grants = ("authorization_code", "refresh_token", GRANT_TYPE)
        for name in ("portal", "second"):
            self.clients[name] = self.add_client(
                client_id=name, grant_types=grants, scopes=("openid", "profile", "files.read")
            )
        self.company = Issuer()

    def trusts(self, profile: str = "jwt_bearer", **members: Any) -> None:
        self.company.trust(self, profile, **{"options": EXCHANGED, **members})

    def got_by(self, name: str = "portal", **form: Any) -> Mapping[str, Any]:
        """What this application got when ann signed in to it."""
        client, secret = self.clients[name]
        code = self.code(client, **{"scope": "openid profile files.read", **form})
        return self.redeem(client, secret, code).json

    def shown(self, name: str, token: str, kind: str, **form: Any) -> Answer:
        return self.exchange(name, token, **{"subject_token_type": kind, "resource": None, **form})


@pytest.fixture
def services() -> Exchanging:
    return Exchanging()


# ---- ID tokens -----------------------------------------------------------------------------------------


def test_an_application_exchanges_the_id_token_that_it_got(services: Exchanging) -> None:
    """TX-11, TX-09, TX-22: for what its grant allows, until the ID token ends, with the application as the actor."""
    id_token = services.got_by()["id_token"]
    answer = services.shown("portal", id_token, ID_TOKEN, scope="files.read")
    assert answer.json["issued_token_type"] == ACCESS_TOKEN
    claims = services.claims(answer.json["access_token"])
    told = services.parts.signer.verify(id_token, typ="JWT")
    assert (claims["sub"], claims["aud"], claims["scope"]) == (services.ann.user_id, RESOURCE, "files.read")
    assert claims["act"] == {"sub": "portal"}
    assert claims["exp"] <= told["exp"]
    assert claims["auth_time"] == told["auth_time"]
    assert services.events("token.issued")[-1]["details"]["subject_token"] == told["jti"]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"scope": "admin"}, "invalid_scope"),
        ({"resource": "https://files.example/"}, "invalid_target"),
        ({"subject_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"subject_token_type": JWT}, "invalid_request"),
    ],
    ids=str,
)
def test_an_id_token_gives_no_more_than_its_grant(services: Exchanging, form: Any, error: str) -> None:
    """TX-05, TX-11, T163."""
    answer = services.shown("portal", services.got_by()["id_token"], ID_TOKEN, **form)
    assert answer.json["error"] == error


def test_only_the_application_exchanges_an_id_token_that_it_is_for(services: Exchanging) -> None:
    """TX-08, TX-11, T163: also not a service that may exchange the access tokens of that application."""
    id_token = services.got_by()["id_token"]
    for name in ("gateway", "second"):
        refused(services.shown(name, id_token, ID_TOKEN), "exchanged-id-token-refused")
    named = Exchanging({"sources": "gateway = portal"})
    refused(named.shown("gateway", named.got_by()["id_token"], ID_TOKEN), "exchanged-id-token-refused")


def test_nothing_else_that_this_server_signs_for_an_application_is_an_id_token(services: Exchanging) -> None:
    """TX-11, T163: an access token, a refresh token, the signed answer of UserInfo, and an ID token without its grant."""
    answer, now = services.got_by(), int(time.time())
    claims = {"iss": ISSUER, "sub": services.ann.user_id, "aud": "portal"}
    grant_id = str(services.parts.signer.verify(answer["id_token"], typ="JWT")["jti"])
    for made in (
        claims,
        {**claims, "jti": grant_id},
        {**claims, "exp": now + 60, "iat": now},
        {**claims, "exp": now + 60, "iat": now, "jti": "nobody.x"},
        {**claims, "exp": now + 60, "iat": now, "jti": 1},
    ):
        token = services.parts.signer.sign(made, typ="JWT")
        refused(services.shown("portal", token, ID_TOKEN), "exchanged-id-token-refused")
    for name in ("access_token", "refresh_token"):
        refused(services.shown("portal", answer[name], ID_TOKEN), "exchanged-id-token-refused")


def _end_grant(services: Exchanging) -> None:
    with services.begin() as engine:
        account.disconnect(engine, services.ann, "portal")


def _disable_client(services: Exchanging) -> None:
    with services.begin() as engine:
        engine.stores.clients.disable("portal", engine.now)


def _disable_person(services: Exchanging) -> None:
    with services.begin() as engine:
        disable_user(engine, "ann")


@pytest.mark.parametrize("end", [_end_grant, _disable_client, _disable_person], ids=lambda end: end.__name__)
def test_what_ends_the_grant_ends_the_id_token_and_what_came_of_it(services: Exchanging, end: Any) -> None:
    """TX-07, TX-10, T163, T164: a signature alone says nothing of that."""
    id_token = services.got_by()["id_token"]
    derived = services.shown("portal", id_token, ID_TOKEN).json["access_token"]
    assert services.introspect(*services.clients["gateway"], derived).json["active"] is True
    end(services)
    assert_inactive(services.introspect(*services.clients["gateway"], derived))
    assert services.shown("portal", id_token, ID_TOKEN).json["error"] in ("invalid_request", "invalid_client")


def test_an_id_token_ends(services: Exchanging) -> None:
    """TX-07, TX-09: it lives for five minutes, and so does what comes of it."""
    id_token = services.got_by()["id_token"]
    services.wait(299)
    assert services.shown("portal", id_token, ID_TOKEN).json["expires_in"] <= 1
    services.wait(2)
    refused(services.shown("portal", id_token, ID_TOKEN), "subject-token-ended")


# ---- JWTs of others ------------------------------------------------------------------------------------


def test_a_jwt_of_a_trusted_issuer_is_exchanged_if_its_entry_says_so(services: Exchanging) -> None:
    """TX-11, TX-09: for whom the entry maps it to, never longer than the JWT, and once."""
    services.trusts(resources=(RESOURCE, NEXT), scopes=("files.read",), default_resource=RESOURCE)
    token = services.company.assertion(sub="00u1")
    answer = services.shown("gateway", token, JWT, scope="profile files.read")
    claims = services.claims(answer.json["access_token"])
    assert (claims["sub"], claims["aud"], claims["scope"]) == (services.ann.user_id, RESOURCE, "files.read")
    assert claims["act"] == {"sub": "gateway"}
    assert claims["exp"] <= time.time() + 120
    assert "refresh_token" not in answer.json
    details = services.events("token.issued")[-1]["details"]
    assert (details["issuer"], details["rule"], details["subject_client"]) == (
        services.company.name,
        "issuer",
        None,
    )
    assert token not in repr(services.events())
    refused(services.shown("gateway", token, JWT), "assertion-replayed")
    # Used up here, it is used up at the other door, too.
    client, secret = services.add_client(grant_types=("urn:ietf:params:oauth:grant-type:jwt-bearer",))
    presented = services.company.present(services, (client, secret), token, scope="files.read")
    assert presented.json["error"] == "invalid_grant"


def test_an_entry_does_not_say_so_by_itself(services: Exchanging) -> None:
    """TX-11, JAG-20, WIF-10, T163: nor for identity assertions and workloads, whatever the type of their token."""
    services.trusts(options={**EXCHANGED, "exchanged": False})
    refused(services.shown("gateway", services.company.assertion(sub="00u1"), JWT), "issuer-not-exchanged")
    others = (
        (Issuer("https://mcp.example", typ="oauth-id-jag+jwt"), "mcp", {"usernames": True}),
        (
            Issuer("https://platform.example", claims={"repository_id": "74"}),
            "workload_identity",
            {
                "rules": [
                    {
                        "name": "job",
                        "client": "gateway",
                        "claims": {"repository_id": "74"},
                        "resources": [RESOURCE],
                        "scopes": ["files.read"],
                    }
                ]
            },
        ),
    )
    for issuer, profile, options in others:
        issuer.trust(services, profile, options=options)
        right = issuer.assertion(client_id="gateway", resource=RESOURCE)
        refused(services.shown("gateway", right, JWT), "issuer-not-exchanged")
        refused(services.shown("gateway", issuer.assertion(header={"typ": "at+jwt"}), JWT), "assertion-type")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://nobody.example"}, "assertion-issuer-not-trusted"),
        ({"iss": ISSUER}, "assertion-issuer-not-trusted"),
        ({"aud": "https://other.example"}, "assertion-audience"),
        ({"exp": 1}, "assertion-expired"),
        ({"exp": ABSENT}, "assertion-times-malformed"),
        ({"exp": 4_000_000_000}, "assertion-lives-too-long"),
        ({"sub": ABSENT}, "assertion-subject-missing"),
        ({"sub": "00u2"}, "user-unknown"),
        ({"jti": ABSENT}, "assertion-jti-missing"),
        ({"act": {"sub": "somebody"}}, "assertion-of-an-actor"),
        ({"scope": 1}, "assertion-claim-unusable"),
        ({"cnf": "x"}, "assertion-claim-unusable"),
        ({"may_act": []}, "assertion-claim-unusable"),
        ({"may_act": {"sub": "next"}}, "actor-not-named"),
        ({"may_act": {"sub": "gateway", "iss": "https://other.example"}}, "actor-not-named"),
        ({"may_act": {"email": "gateway"}}, "actor-not-named"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_a_jwt_that_is_not_right_is_refused(services: Exchanging, changes: Any, reason: str) -> None:
    """TX-02, TX-11, TX-15, T163: with `invalid_request`, not with the error of the grant for assertions."""
    services.trusts()
    token = services.company.assertion(**{"sub": "00u1", **changes})
    refused(services.shown("gateway", token, JWT), reason)
    assert services.rows("grants") == []


def test_a_jwt_is_a_ceiling(services: Exchanging) -> None:
    """TX-05, TX-22: its scopes and those of its entry; `targets` of a client add nothing to what others signed."""
    services.trusts(resources=(RESOURCE,))
    token = services.company.assertion(sub="00u1", scope="profile", may_act={"sub": "gateway"})
    assert services.shown("gateway", token, JWT).json["scope"] == "profile"
    token = services.company.assertion(sub="00u1", scope="profile")
    refused(services.shown("gateway", token, JWT, scope="files.read"), "scope-beyond-parent", "invalid_scope")
    refused(services.shown("gateway", token, JWT, resource=NEXT), "resource-beyond-parent", "invalid_target")
    services.company.edit(services, clients=("next",))
    refused(services.shown("gateway", token, JWT), "issuer-client-not-allowed")


def test_a_jwt_of_a_key_needs_that_key(services: Exchanging) -> None:
    """TX-16: `cnf` in a JWT of another issuer is as binding as in ours."""
    services.trusts()
    client, secret = services.clients["gateway"]
    token = services.company.assertion(sub="00u1", cnf={"jkt": KEY.thumbprint()})
    form = {"grant_type": GRANT_TYPE, "subject_token": token, "subject_token_type": JWT}
    for headers in ({}, {"dpop": proof(OTHER)}):
        refused(services.ask("/oauth/token", client, secret, headers=headers, **form), "key-differs")
    answer = services.ask("/oauth/token", client, secret, headers={"dpop": proof(KEY)}, **form)
    assert answer.json["token_type"] == "DPoP"


def test_a_disabled_issuer_ends_what_was_exchanged(services: Exchanging) -> None:
    """TX-10, T164, JAG-17: at the next check, also while its grants are still being ended."""
    services.trusts()
    derived = services.shown("gateway", services.company.assertion(sub="00u1"), JWT).json["access_token"]
    assert services.introspect(*services.clients["gateway"], derived).json["active"] is True
    services.company.disable(services, at_once=True)
    assert_inactive(services.introspect(*services.clients["gateway"], derived))
    refused(services.shown("gateway", services.company.assertion(sub="00u1"), JWT), "issuer-disabled")
