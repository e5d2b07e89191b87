"""Assertions for other servers (ID-JAG): what a client gets for its ID token, by whose rule, and what ends it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from authserver.engine.context import Issue, OtherToken
from authserver.engine.errors import InvalidGrant
from authserver.engine.metadata import server_metadata
from authserver.engine.parameters import Parameters
from authserver.engine.people import account
from authserver.engine.tokens.issuing import issue
from authserver.features.id_jag_issuer import TOKEN_TYPE, TYPE
from authserver.features.openid import id_tokens
from authserver.features.openid.id_tokens import TOKEN_TYPE as ID_TOKEN
from authserver.features.token_exchange import ACCESS_TOKEN, GRANT_TYPE, REFRESH_TOKEN
from authserver.settings import SettingsError
from authserver.testing.records import a_grant
from authserver.testing.rules import Answer, Rules
from authserver.testing.server import ISSUER, SETTINGS, Server, form_with
from tests.dpop_proofs import KEY, proof
from tests.features.test_token_exchange import refused

OTHER = "https://auth.other.example"
MCP = "https://mcp.other.example/"
FILES = "https://files.other.example/"
RULES = f"""
portal {OTHER} = client_id=agent-17 scope=notes.read scope=notes.write resource={MCP} resource={FILES}
portal https://strict.example = client_id=a scope=x maximum_age=600 level=two-factors
portal https://aged.example = client_id=a scope=x maximum_age=600
portal https://staff.example = client_id=a scope=x group=staff
portal https://own.example = client_id=a scope=x own_ids email tenant=acme
portal https://alias = client_id=a scope=x issuer=https://real.example
portal {ISSUER} = client_id=a scope=x
public {OTHER} = client_id=a scope=x
"""
SETTING = "authserver.plugin.id_jag_issuer."
SALT = "a salt that nobody ever changes, of 32 and more"
ON = {
    "authserver.plugins": f"dpop token_exchange openid id_jag id_jag_issuer {SETTINGS['authserver.plugins']}",
    f"{SETTING}rules": RULES,
    f"{SETTING}salt": SALT,
}


class Company(Rules):
    """The server of a company, where ann signs in to `portal`."""

    def __init__(self, **settings: str) -> None:
        super().__init__({**ON, **settings})
        address = {"email": ("ann@example.com",), "email_verified": ("ann@example.com",)}
        self.ann = self.add_user("ann", None, attributes=address)
        grants = ("authorization_code", "refresh_token", GRANT_TYPE)
        scopes = ("openid", "profile", "files.read")
        self.clients = {
            name: self.add_client(client_id=name, grant_types=grants, scopes=scopes)
            for name in ("portal", "second")
        }

    def got_by(self, name: str = "portal", **form: Any) -> Mapping[str, Any]:
        """What this application got when ann signed in to it."""
        client, secret = self.clients[name]
        return self.redeem(client, secret, self.code(client, **{"scope": "openid profile", **form})).json

    def issue(self, token: str, name: str = "portal", **form: Any) -> Answer:
        client, secret = self.clients[name]
        form = {
            "subject_token": token,
            "subject_token_type": ID_TOKEN,
            "requested_token_type": TOKEN_TYPE,
            "audience": OTHER,
            **form,
        }
        form = {key: value for key, value in form.items() if value is not None}
        return self.token(client, secret, grant_type=GRANT_TYPE, **form)

    def said(self, answer: Answer) -> Mapping[str, Any]:
        assert answer.status_int == 200, answer
        return dict(self.parts.signer.verify(answer.json["access_token"], typ=TYPE))


@pytest.fixture
def company() -> Company:
    return Company()


def test_a_client_gets_an_assertion_for_another_server(company: Company) -> None:
    """JAG-22, JAG-26, JAG-27, JAG-28: as the rule says it, for five minutes, and nothing else."""
    id_token = company.got_by()["id_token"]
    answer = company.issue(id_token, scope="notes.read admin", resource=MCP)
    assert answer.json.keys() == {"access_token", "issued_token_type", "token_type", "expires_in", "scope"}
    assert (answer.json["issued_token_type"], answer.json["token_type"]) == (TOKEN_TYPE, "N_A")
    assert answer.json["scope"] == "notes.read"
    assert answer.json["expires_in"] <= 300
    claims = company.said(answer)
    told = company.parts.signer.verify(id_token, typ="JWT")
    assert claims == {
        "iss": ISSUER,
        "sub": company.ann.user_id,
        "aud": OTHER,
        "client_id": "agent-17",
        "scope": "notes.read",
        "resource": MCP,
        "auth_time": told["auth_time"],
        **{name: told[name] for name in ("acr", "amr") if name in told},
        "iat": claims["iat"],
        "exp": claims["exp"],
        "jti": claims["jti"],
    }
    assert claims["exp"] - claims["iat"] <= 300
    another = company.said(company.issue(id_token))
    assert another["jti"] != claims["jti"]
    assert (another["scope"], another["resource"]) == ("notes.read notes.write", [MCP, FILES])


def test_a_refresh_token_serves_as_well_and_is_not_used_up(company: Company) -> None:
    """JAG-24, TX-12: and gives no access token; one that was used, or is another client's, serves nothing."""
    answer = company.got_by()
    token = answer["refresh_token"]
    for _ in range(2):
        assert company.issue(token, subject_token_type=REFRESH_TOKEN).status_int == 200
    for requested in (None, ACCESS_TOKEN):
        plain = {"subject_token_type": REFRESH_TOKEN, "requested_token_type": requested, "audience": None}
        refused(company.issue(token, **plain), "token-type")
    stranger = company.got_by("second")["refresh_token"]
    refused(company.issue(stranger, subject_token_type=REFRESH_TOKEN), "subject-token-unknown")
    refused(company.issue(answer["access_token"], subject_token_type=REFRESH_TOKEN), "subject-token-unknown")
    client, secret = company.clients["portal"]
    renewed = company.refresh(client, secret, token)
    assert renewed.status_int == 200
    refused(company.issue(token, subject_token_type=REFRESH_TOKEN), "subject-token-ended")


@pytest.mark.parametrize(
    ("form", "reason", "error"),
    [
        ({"audience": None}, "audience-not-one", "invalid_request"),
        ({"audience": [OTHER, OTHER]}, "audience-not-one", "invalid_request"),
        ({"audience": [OTHER, "https://own.example"]}, "audience-not-one", "invalid_request"),
        ({"audience": "https://nobody.example"}, "audience-without-rule", "invalid_target"),
        ({"audience": ISSUER}, "audience-is-ours", "invalid_target"),
        ({"audience": "https://staff.example"}, "user-not-in-group", "invalid_target"),
        ({"resource": "https://files.example/"}, "resource-without-rule", "invalid_target"),
        ({"resource": [MCP, "https://files.example/"]}, "resource-without-rule", "invalid_target"),
        ({"scope": "admin"}, "scope-without-rule", "invalid_scope"),
        ({"authorization_details": "[]"}, "details-not-issued", "invalid_request"),
        ({"actor_token": "x", "actor_token_type": ACCESS_TOKEN}, "requested-token-type", "invalid_request"),
        ({"subject_token_type": TOKEN_TYPE}, "token-type", "invalid_request"),
        ({"subject_token": "e30.e30.e30"}, "exchanged-id-token-refused", "invalid_request"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_what_no_rule_allows_is_refused(company: Company, form: Any, reason: str, error: str) -> None:
    """JAG-22, JAG-23, JAG-25, JAG-26, JAG-32, T168: nothing is issued, and nothing is accepted and forgotten."""
    answer = company.issue(company.got_by()["id_token"], **form)
    refused(answer, reason, error)
    assert len(company.rows("grants")) == 1


def test_only_the_client_of_the_rule_gets_one_and_only_for_what_identifies_somebody_to_it(
    company: Company,
) -> None:
    """JAG-22, JAG-23, JAG-25, TX-21, T163: not another client, not a public one, and not for an access token."""
    answer = company.got_by()
    refused(company.issue(answer["access_token"], subject_token_type=ACCESS_TOKEN), "identity-missing")
    refused(company.issue(answer["id_token"], "second"), "exchanged-id-token-refused")
    own = company.got_by("second")["id_token"]
    refused(company.issue(own, "second"), "audience-without-rule", "invalid_target")
    public, _ = company.add_client(
        client_id="public", grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none"
    )
    company.clients["public"] = (public, None)
    refused(company.issue(answer["id_token"], "public"), "public-client", "unauthorized_client")
    issued = company.issue(answer["id_token"]).json["access_token"]
    for kind in (ID_TOKEN, ACCESS_TOKEN):
        assert company.issue(issued, subject_token_type=kind).json["error"] == "invalid_request"


def test_an_old_or_weak_sign_in_is_not_enough(company: Company) -> None:
    """JAG-29, RFC 9470, 3: the answer says what would be."""
    answer = company.issue(company.got_by()["id_token"], audience="https://strict.example")
    refused(answer, "signed-in-too-weakly", "insufficient_user_authentication")
    assert answer.json["acr_values"] == "two-factors"
    token = company.got_by()["refresh_token"]
    aged = {"subject_token_type": REFRESH_TOKEN, "audience": "https://aged.example"}
    assert company.issue(token, **aged).status_int == 200
    company.wait(700)
    answer = company.issue(token, **aged)
    refused(answer, "signed-in-too-long-ago", "insufficient_user_authentication")
    assert answer.json["max_age"] == 600


def test_a_person_has_one_id_for_each_server(company: Company) -> None:
    """JAG-28, JAG-30: always the same; one that no other server knows if the rule says so, and so with the mail address."""
    token = company.got_by()["id_token"]
    plain = company.said(company.issue(token))
    first, second = (
        company.said(company.issue(token, audience="https://own.example", resource=None)) for _ in range(2)
    )
    assert plain["sub"] == company.ann.user_id
    assert first["sub"] == second["sub"] != plain["sub"]
    assert (first["email"], first["tenant"]) == ("ann@example.com", "acme")
    assert not {"email", "tenant"} & plain.keys()
    assert "resource" not in first
    assert company.said(company.issue(token, audience="https://alias"))["aud"] == "https://real.example"


@pytest.mark.parametrize("verified", [(), ("ann@other.example",)])
def test_an_address_that_nobody_verified_is_not_told(company: Company, verified: tuple[str, ...]) -> None:
    """JAG-28: the other server may know people by it."""
    attributes = {"email": ("ann@example.com",), "email_verified": verified}
    with company.begin() as engine:
        assert engine.stores.users.change(replace(company.ann, attributes=attributes))
    token = company.got_by()["id_token"]
    said = company.said(company.issue(token, audience="https://own.example", resource=None))
    assert "email" not in said


def test_it_is_bound_to_the_key_that_the_client_proves(company: Company) -> None:
    """JAG-28, TX-16"""
    client, secret = company.clients["portal"]
    form = {
        "grant_type": GRANT_TYPE,
        "subject_token": company.got_by()["id_token"],
        "subject_token_type": ID_TOKEN,
        "requested_token_type": TOKEN_TYPE,
        "audience": OTHER,
    }
    answer = company.ask("/oauth/token", client, secret, headers={"dpop": proof(KEY)}, **form)
    assert company.said(answer)["cnf"] == {"jkt": KEY.thumbprint()}
    assert answer.json["token_type"] == "N_A"


def test_it_ends_with_the_id_token_and_its_grant_with_the_access_of_the_client(company: Company) -> None:
    """JAG-27, JAG-33, TX-09, TX-10, T163: no further one is issued after that, by no token of that sign-in."""
    answer = company.got_by()
    company.wait(290)
    assert company.issue(answer["id_token"]).json["expires_in"] <= 10
    with company.begin() as engine:
        account.disconnect(engine, company.ann, "portal")
    refused(company.issue(answer["id_token"]), "parent-grant-revoked")
    refused(company.issue(answer["refresh_token"], subject_token_type=REFRESH_TOKEN), "subject-token-ended")
    assert all(grant["revoked_at"] is not None for grant in company.rows("grants"))


@pytest.mark.parametrize(("times", "reason"), [(0, "parent-grant-revoked"), (1, "grant-ended")])
def test_an_end_while_it_is_issued_leaves_none(company: Company, times: int, reason: str) -> None:
    """JAG-33, T163: the first one, and a further one, whose grant is there already."""
    client, _ = company.clients["portal"]
    token = company.got_by()["id_token"]
    for _ in range(times):
        assert company.issue(token).status_int == 200
    with company.begin() as engine:
        make = engine.exchangeable_tokens[TOKEN_TYPE].make
        assert make is not None
        subject = id_tokens.present(engine, client, token)
        order = make(engine, client, Parameters.of([("audience", OTHER)]), subject)
        assert order.is_new is (times == 0)
        engine.stores.grants.revoke(subject.parent.chain[0].grant_id, engine.now, "test")
        with pytest.raises(InvalidGrant) as refusal:
            issue(engine, client, order)
        assert refusal.value.reason == reason


def test_one_grant_for_each_server_tells_what_was_issued(company: Company) -> None:
    """JAG-33, TX-23, R-04: however often; the event has audience, both clients and both tokens by their ids, and no token."""
    token = company.got_by()["id_token"]
    answers = [company.issue(token, audience=each) for each in (OTHER, OTHER, "https://own.example")]
    first, *others = company.rows("grants")
    assert [grant["resources"] for grant in others] == [(OTHER,), ("https://own.example",)]
    assert {grant["parent_id"] for grant in others} == {first["grant_id"]}
    event = company.events("token.issued")[-1]
    details = event["details"]
    assert (event["client_id"], event["user_id"]) == ("portal", company.ann.user_id)
    assert (details["audience"], details["audience_client"]) == ("https://own.example", "a")
    assert details["subject_token"] == company.parts.signer.verify(token, typ="JWT")["jti"]
    assert company.said(answers[-1])["jti"].startswith(event["grant_id"])
    assert not any(answer.json["access_token"] in repr(company.events()) for answer in answers)


def test_we_accept_nothing_that_we_issued(company: Company) -> None:
    """JAG-11, JAG-20, T061: not as an assertion, an access token or a subject token."""
    issued = company.issue(company.got_by()["id_token"]).json["access_token"]
    client, secret = company.add_client(grant_types=("urn:ietf:params:oauth:grant-type:jwt-bearer",))
    jwt_bearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    answer = company.token(client, secret, grant_type=jwt_bearer, assertion=issued)
    refused(answer, "assertion-issuer-not-trusted", "invalid_grant")
    assert company.introspect(*company.clients["portal"], issued).json == {"active": False}


def test_metadata_say_that_it_is_offered_and_not_for_whom(company: Company) -> None:
    """JAG-31"""
    told = server_metadata(company.parts, {})
    assert told["identity_chaining_requested_token_types_supported"] == [TOKEN_TYPE]
    assert OTHER not in repr(told)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("portal = client_id=a scope=x", "a client and an audience"),
        ("portal https://o.example = scope=x", "it needs client_id="),
        ("portal https://o.example = client_id=a", "it needs client_id="),
        ("portal https://o.example = client_id=a client_id=b scope=x", "client_id=b: must be one of"),
        ("portal https://o.example = client_id=a scope=x mail", "mail: must be one of"),
        (
            "portal https://o.example = client_id=a scope=x resource=mcp",
            "resource=mcp: must be an absolute URI",
        ),
        ("portal https://o.example = client_id=a scope=x maximum_age=-1", "maximum_age=-1"),
        ('portal https://o.example = client_id=a scope="x"', "scope=:"),
    ],
)
def test_a_rule_that_is_none_stops_the_start(rules: str, told: str) -> None:
    """JAG-25: a rule that says nothing clear allows nothing."""
    with pytest.raises(SettingsError, match=told):
        Company(**{f"{SETTING}rules": rules})


@pytest.mark.parametrize(
    "settings",
    [{f"{SETTING}salt": "short"}, {f"{SETTING}lifetime": "301"}, {f"{SETTING}lifetime": "29"}],
    ids=str,
)
def test_settings_that_cannot_be_used_stop_the_start(settings: Mapping[str, str]) -> None:
    """JAG-27, JAG-30"""
    with pytest.raises(SettingsError):
        Company(**settings)


def test_people_and_operators_see_it_and_end_it_in_one_step(sqlite_url: str) -> None:
    """JAG-33, E-16: on the account page and in the console, for which server; then nothing more is issued."""
    server = Server(sqlite_url, {**ON, "authserver.plugins": f"{ON['authserver.plugins']} admin_console"})
    server.add_user("ann", groups=("authserver-admins",))
    client, secret = server.add_client(
        client_id="portal",
        client_name="Portal",
        grant_types=("authorization_code", "refresh_token", GRANT_TYPE),
        scopes=("openid", "profile"),
    )
    browser = server.browser()
    token = server.redeem(client, secret, server.code(client, browser, scope="openid profile")).json[
        "id_token"
    ]
    form = {
        "grant_type": GRANT_TYPE,
        "subject_token": token,
        "subject_token_type": ID_TOKEN,
        "requested_token_type": TOKEN_TYPE,
        "audience": OTHER,
    }
    assert server.token(client, secret, **form).json["token_type"] == "N_A"
    page = browser.get("/account/apps")
    assert OTHER.removeprefix("https://") in page
    (issued,) = (row for row in server.rows("grants") if row["parent_id"])
    assert OTHER.removeprefix("https://") in browser.get(f"/admin/grants/grant?grant_id={issued['grant_id']}")
    csrf = form_with(page, "csrf_token")["csrf_token"].value
    browser.post("/account/apps", {"csrf_token": csrf, "disconnect": "portal"}, status=303)
    assert server.token(client, secret, **form).json["error"] == "invalid_request"
    server.close()


@pytest.mark.postgresql
def test_two_assertions_of_one_grant_at_the_same_time_end_in_no_deadlock(postgresql_url: str) -> None:
    """T111: both hold the grant, and note that it was used; the second waits for the first."""
    with closing(Server(postgresql_url, {**ON})) as server:
        client, _ = server.add_client(client_id="portal")
        ann = server.add_user("ann")
        begun = datetime.now(UTC) - timedelta(hours=1)
        grant = a_grant(
            client_id=client.client_id,
            user_id=ann.user_id,
            created_at=begun,
            expires_at=begun + timedelta(days=1),
        )
        with server.begin() as engine:
            engine.stores.grants.add(grant)
        order = Issue(
            grant=grant,
            user=ann,
            scopes=grant.scopes,
            resources=grant.resources,
            is_new=False,
            derived_from=(grant,),
            other=OtherToken(typ=TYPE, claims={}, lifetime=60),
        )
        both_have_issued = threading.Barrier(2)

        def issue_one(_: int) -> None:
            with server.begin() as engine:
                issue(engine, client, order)
                # The second cannot get here before the first has committed.
                with suppress(threading.BrokenBarrierError):
                    both_have_issued.wait(0.5)

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(issue_one, range(2)))
        with server.begin() as engine:
            found = engine.stores.grants.find(grant.grant_id)
            assert found is not None
            assert found.last_used_at is not None
