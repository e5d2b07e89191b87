"""Token exchange (RFC 8693): a service gets a token for the next service, for the same person and never with more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from authserver.api import Binding, Engine, hookimpl
from authserver.engine.people import account
from authserver.engine.people.account import ConnectedApp
from authserver.engine.people.login import disable_user
from authserver.engine.records import Client
from authserver.features.token_exchange import ACCESS_TOKEN, GRANT_TYPE
from authserver.settings import SettingsError
from authserver.testing.plans import transcript_of
from authserver.testing.records import a_client, a_grant
from authserver.testing.rules import Answer, Rules, assert_inactive, assert_refused
from authserver.testing.server import RESOURCE, SETTINGS, VERIFIER, Server, form_with, with_plugin
from authserver.web.account import Chains
from tests.dpop_proofs import KEY, OTHER, proof

NEXT = "https://next.example/"
REFRESH_TOKEN = "urn:ietf:params:oauth:token-type:refresh_token"
RULES = {
    "targets": f"gateway = {NEXT}\nnext = {NEXT}\nother = {NEXT}",
    "audiences": f"next-service = {NEXT}",
}


class Services(Rules):
    """An agent with a token of ann for an API, and services that call each other for her.

    `gateway` serves the API that the token is for; `next` serves the one after it; `other` serves neither.
    """

    def __init__(self, fields: Mapping[str, str] | None = None, **settings: str | None) -> None:
        plugged = with_plugin("token_exchange", {**RULES, **(fields or {})})
        resources = "authserver.plugin.resources_listed.resources"
        readers = "authserver.plugin.introspect_resource_servers.clients"
        super().__init__(
            {
                **plugged,
                resources: f"{SETTINGS[resources]}\n{NEXT} = profile files.read",
                readers: f"gateway = {RESOURCE}\nnext = {NEXT}",
                **settings,
            }
        )
        self.ann = self.add_user("ann", None)
        self.agent, self.agent_secret = self.add_client(client_id="agent")
        self.clients: dict[str, tuple[Client, str | None]] = {
            name: self.add_client(client_id=name, grant_types=(GRANT_TYPE, "refresh_token"))
            for name in ("gateway", "next", "other")
        }

    def subject(self, **changes: Any) -> str:
        """An access token of the agent for ann."""
        changes = {"scope": "profile files.read", **changes}
        answer = self.redeem(self.agent, self.agent_secret, self.code(self.agent, **changes))
        return str(answer.json["access_token"])

    def exchange(self, name: str, token: str, **form: Any) -> Answer:
        client, secret = self.clients[name]
        form = {
            "subject_token": token,
            "subject_token_type": ACCESS_TOKEN,
            "resource": NEXT,
            **form,
        }
        form = {key: value for key, value in form.items() if value is not None}
        return self.token(client, secret, grant_type=GRANT_TYPE, **form)

    def exchanged(self, name: str, token: str, **form: Any) -> str:
        answer = self.exchange(name, token, **form)
        assert answer.status_int == 200, answer
        return str(answer.json["access_token"])

    def sees(self, name: str, token: str) -> Answer:
        return self.introspect(*self.clients[name], token)


@pytest.fixture
def services() -> Services:
    return Services()


def refused(answer: Answer, reason: str, code: str = "invalid_request") -> None:
    assert_refused(answer, code)
    assert answer.refusal is not None
    assert answer.refusal.reason == reason


# ---- what an exchange gives --------------------------------------------------------------------------


def test_a_service_gets_a_token_for_the_next_one(services: Services) -> None:
    """TX-04, TX-06, TX-13, TX-20: for the same person, with the service as the actor, and without refresh token."""
    answer = services.exchange("gateway", services.subject())
    assert answer.json.keys() == {"access_token", "issued_token_type", "token_type", "expires_in", "scope"}
    assert answer.json["issued_token_type"] == ACCESS_TOKEN
    claims = services.claims(answer.json["access_token"])
    assert (claims["sub"], claims["client_id"], claims["aud"]) == (services.ann.user_id, "gateway", NEXT)
    assert claims["act"] == {"sub": "gateway"}


def test_actors_nest_and_introspection_shows_them(services: Services) -> None:
    """TX-06, TX-13: the outermost is the present one, and each API that introspects sees the chain."""
    first = services.exchanged("gateway", services.subject())
    second = services.exchanged("next", first)
    chain = {"sub": "next", "act": {"sub": "gateway"}}
    assert services.claims(second)["act"] == chain
    assert services.sees("next", second).json["act"] == chain


def test_opaque_tokens_are_exchanged_too_and_have_the_chain(services: Services) -> None:
    """TX-07: looked up instead of verified."""
    opaque = Services(**{"authserver.access_token_format": "opaque"})
    first = opaque.exchanged("gateway", opaque.subject())
    second = opaque.exchanged("next", first)
    assert opaque.sees("next", second).json["act"] == {"sub": "next", "act": {"sub": "gateway"}}


def test_how_the_person_signed_in_is_carried_along(services: Services) -> None:
    """T163: an API behind the first one can judge it, too."""
    subject = services.subject()
    claims = services.claims(services.exchanged("gateway", subject))
    assert claims["auth_time"] == services.claims(subject)["auth_time"]


# ---- what is needed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"actor_token": "x"}, "actor-token-alone"),
        ({"actor_token_type": ACCESS_TOKEN}, "actor-token-alone"),
        ({"subject_token_type": REFRESH_TOKEN}, "token-type"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "token-type"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "token-type"),
        ({"actor_token": "x", "actor_token_type": REFRESH_TOKEN}, "token-type"),
        ({"actor_token": "x", "actor_token_type": ACCESS_TOKEN}, "actor-token-unknown"),
        ({"requested_token_type": REFRESH_TOKEN}, "requested-token-type"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:id-jag"}, "requested-token-type"),
        ({"subject_token": "nonsense"}, "subject-token-unknown"),
        ({"subject_token": "e30.e30.e30"}, "subject-token-unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_a_request_that_is_not_one_is_refused(services: Services, form: Any, reason: str) -> None:
    """TX-01, TX-02, TX-11, TX-12, TX-19."""
    refused(services.exchange("gateway", services.subject(), **form), reason)


def test_no_other_kind_of_token_passes_for_an_access_token(services: Services) -> None:
    """TX-12, T163: a refresh token under another name, an assertion, or a signed introspection answer."""
    answer = services.redeem(services.agent, services.agent_secret, services.code(services.agent))
    refused(services.exchange("gateway", answer.json["refresh_token"]), "subject-token-unknown")
    now = services.now.timestamp()
    claims = {"iss": "https://as.example", "sub": services.ann.user_id, "aud": RESOURCE, "exp": int(now) + 60}
    for typ in ("JWT", "oauth-id-jag+jwt", "logout+jwt", "token-introspection+jwt"):
        signed = services.parts.signer.sign({**claims, "iat": int(now), "client_id": "agent"}, typ=typ)
        refused(services.exchange("gateway", signed), "subject-token-unknown")


def test_a_client_must_be_confidential_and_registered_for_it(services: Services) -> None:
    """TX-05, TX-21: off for each client until an operator registers it so."""
    services.change("clients", grant_types=("authorization_code",))
    assert_refused(services.exchange("gateway", services.subject()), "unauthorized_client")
    public, _ = services.add_client(grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none")
    services.clients["public"] = (public, None)
    refused(services.exchange("public", services.subject()), "public-client", "unauthorized_client")


# ---- bound to the client -----------------------------------------------------------------------------


def test_only_who_got_a_token_or_whom_it_is_for_exchanges_it(services: Services) -> None:
    """TX-08, T163: a client that holds a token which is not meant for it gets nothing by it (CVE-2026-56668)."""
    refused(services.exchange("other", services.subject()), "subject-token-of-another-client")
    own = services.exchanged("gateway", services.subject())
    assert services.exchange("gateway", own).status_int == 200
    named = Services({"sources": "other = agent"})
    assert named.exchange("other", named.subject()).status_int == 200


def test_another_client_id_in_the_body_of_an_exchange_is_refused(services: Services) -> None:
    """J-06, TX-08, T163: whoever authenticates as one client is not taken for another (CVE-2026-55672)."""
    subject = services.subject()
    for other in ("agent", "next", "nobody"):
        assert_refused(services.exchange("gateway", subject, client_id=other), "invalid_request")
    assert services.exchange("gateway", subject, client_id="gateway").status_int == 200


def test_a_token_may_name_who_alone_exchanges_it() -> None:
    """TX-15: with `may_act` only that client, also if the token is for another."""
    services = Services({"named_actors": "agent = other"})
    subject = services.subject()
    assert services.claims(subject)["may_act"] == {"sub": "other"}
    refused(services.exchange("gateway", subject), "actor-not-named")
    assert services.claims(services.exchanged("other", subject))["act"] == {"sub": "other"}


def test_an_actor_token_is_the_clients_own_and_limits_the_result(services: Services) -> None:
    """TX-01, TX-09: who acts shows a live token of its own, and the result ends with that, too."""
    actor = services.exchanged("gateway", services.subject())
    form = {"actor_token": actor, "actor_token_type": ACCESS_TOKEN}
    services.wait(600)
    later = services.exchanged("gateway", services.subject(), **form)
    assert services.claims(later)["exp"] <= services.claims(actor)["exp"]
    refused(services.exchange("next", later, **form), "actor-token-of-another-client")
    services.revoke(services.agent, services.agent_secret, actor)
    services.change("grants", revoked_at=None)
    with services.begin() as engine:
        first = next(grant for grant in services.rows("grants") if grant["client_id"] == "gateway")
        engine.stores.grants.revoke(first["grant_id"], engine.now, "test")
    refused(services.exchange("gateway", services.subject(), **form), "actor-token-ended")


def test_impersonation_is_a_permission_of_its_own() -> None:
    """TX-14: without it the client is named; with it not, and the event says so; who acted before stays."""
    services = Services({"impersonators": "gateway next"})
    token = services.exchanged("gateway", services.subject())
    assert "act" not in services.claims(token)
    assert services.events("token.issued")[-1]["details"]["impersonation"] is True
    delegating = Services({"impersonators": "next"})
    first = delegating.exchanged("gateway", delegating.subject())
    assert delegating.claims(delegating.exchanged("next", first))["act"] == {"sub": "gateway"}


def test_chains_end_somewhere(services: Services) -> None:
    """TX-13: so many act one through another and no more, also if none of them is named."""
    for fields in ({}, {"impersonators": "gateway next"}):
        services = Services(fields)
        token = services.subject()
        for name in ("gateway", "next", "next", "next"):
            token = services.exchanged(name, token)
        refused(services.exchange("next", token), "too-many-actors")


# ---- never wider, never longer -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "scope"),
    [
        ({}, "profile files.read"),
        ({"scope": "files.read"}, "files.read"),
        ({"scope": "files.read admin"}, "files.read"),
    ],
)
def test_scope_is_what_all_have_in_common(services: Services, form: Mapping[str, str], scope: str) -> None:
    """TX-05, TX-22: of subject, client and target; what is not asked for is all of that, and the answer states it."""
    assert services.exchange("gateway", services.subject(), **form).json["scope"] == scope


def test_a_scope_that_subject_or_client_has_not_is_not_given(services: Services) -> None:
    """TX-05, TX-22."""
    subject = services.subject(scope="profile")
    assert services.exchange("gateway", subject).json["scope"] == "profile"
    refused(services.exchange("gateway", subject, scope="files.read"), "scope-beyond-parent", "invalid_scope")
    client, _ = services.clients["gateway"]
    services.change("clients", scopes=("files.read",))
    assert client.scopes != ("files.read",)
    assert_refused(services.exchange("gateway", subject), "invalid_scope")


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"resource": "https://files.example/"}, "resource-beyond-parent"),
        ({"resource": "https://unknown.example/"}, "invalid_target"),
        ({"resource": [NEXT, "https://files.example/"]}, "resource-beyond-parent"),
        ({"audience": "nobody"}, "audience-unknown"),
        ({"audience": ["next-service", "nobody"]}, "audience-unknown"),
        ({"resource": "not a uri"}, "invalid_target"),
    ],
)
def test_a_target_must_be_that_of_the_token_or_of_a_rule(services: Services, form: Any, reason: str) -> None:
    """TX-03, TX-05, TX-18: one that is not allowed refuses the whole request."""
    answer = services.exchange("gateway", services.subject(), **form)
    assert_refused(answer, "invalid_target")
    assert answer.refusal is not None
    assert answer.refusal.reason in (reason, "nobody-answered", "resource-not-listed")


def test_audience_and_resource_name_the_target_together(services: Services) -> None:
    """TX-18: both may repeat, and a name of the operator means its resource."""
    token = services.exchanged("gateway", services.subject(), audience=["next-service", RESOURCE])
    assert services.claims(token)["aud"] == [NEXT, RESOURCE]
    token = services.exchanged("gateway", services.subject(), resource=None, audience="next-service")
    assert services.claims(token)["aud"] == NEXT
    token = services.exchanged("gateway", services.subject(), resource=None)
    assert services.claims(token)["aud"] == RESOURCE


def test_no_exchange_makes_anything_live_longer(services: Services) -> None:
    """TX-09, T163: exchanged again and again, the result ends when the first token does (CVE-2026-96460)."""
    token = services.subject()
    first_end = end = services.claims(token)["exp"]
    for name in ("gateway", "next", "next"):
        services.wait(120)
        token = services.exchanged(name, token)
        end = services.claims(token)["exp"]
        assert end <= first_end
    assert end == first_end
    services.wait(first_end - services.now.timestamp() + 1)
    refused(services.exchange("next", token), "subject-token-ended")
    assert_inactive(services.sees("next", token))


def test_a_refresh_token_comes_only_by_a_rule_and_ends_with_the_subject() -> None:
    """TX-09, TX-20: and its grant lives no longer than what it came from."""
    services = Services({"refreshers": "gateway"})
    subject = services.subject()
    answer = services.exchange("gateway", subject)
    client, secret = services.clients["gateway"]
    services.wait(60)
    renewed = services.refresh(client, secret, answer.json["refresh_token"])
    assert renewed.status_int == 200
    end = services.claims(subject)["exp"]
    assert services.claims(renewed.json["access_token"])["exp"] <= end
    services.wait(end - services.now.timestamp() + 1)
    assert_refused(services.refresh(client, secret, renewed.json["refresh_token"]), "invalid_grant")


# ---- alive at this moment ----------------------------------------------------------------------------


def _end_grant(services: Services) -> None:
    with services.begin() as engine:
        first = next(grant for grant in services.rows("grants") if grant["client_id"] == "agent")
        account.revoke_grant(engine, first["grant_id"])


def _disconnect(services: Services) -> None:
    with services.begin() as engine:
        account.disconnect(engine, services.ann, "agent")


def _disable_client(services: Services) -> None:
    with services.begin() as engine:
        engine.stores.clients.disable("agent", engine.now)


def _disable_person(services: Services) -> None:
    with services.begin() as engine:
        disable_user(engine, "ann")


def _revoke_token(services: Services) -> None:
    services.revoke(services.agent, services.agent_secret, services.subject_token)


def _restore(services: Services) -> None:
    with services.begin() as engine:
        engine.stores.grants.revoke_next(engine.now, "restored", limit=100)


ENDS = [_end_grant, _disconnect, _disable_client, _disable_person, _revoke_token, _restore]


@pytest.mark.parametrize("end", ENDS, ids=[end.__name__[1:] for end in ENDS])
@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_whatever_ends_the_first_ends_all_that_came_of_it(end: Any, token_format: str) -> None:
    """TX-07, TX-10, T163, T164: at the next check, whoever has it; and nothing more is exchanged."""
    services = Services({"refreshers": "next"}, **{"authserver.access_token_format": token_format})
    subject = services.subject_token = services.subject()
    first = services.exchanged("gateway", subject)
    answer = services.exchange("next", first)
    second = answer.json["access_token"]
    assert services.sees("next", second).json["active"] is True
    end(services)
    for token in (first, second):
        assert_inactive(services.sees("next", token))
    assert_refused(services.exchange("gateway", subject), "invalid_request")
    assert_refused(services.exchange("next", first), "invalid_request")
    assert_refused(services.exchange("next", second), "invalid_request")
    client, secret = services.clients["next"]
    assert_refused(services.refresh(client, secret, answer.json["refresh_token"]), "invalid_grant")


def test_a_refresh_of_the_first_makes_nothing_longer_and_its_reuse_ends_all(services: Services) -> None:
    """TX-09, TX-10, T163: what came of a token has the end of that token, and falls with its grant."""
    code = services.code(services.agent, scope="profile")
    answer = services.redeem(services.agent, services.agent_secret, code).json
    first = services.exchanged("gateway", answer["access_token"])
    services.wait(300)
    refresh_token = answer["refresh_token"]
    assert services.refresh(services.agent, services.agent_secret, refresh_token).status_int == 200
    again = services.exchanged("gateway", answer["access_token"])
    ends = [services.claims(token)["exp"] for token in (answer["access_token"], first, again)]
    assert len(set(ends)) == 1
    services.wait(300)
    assert_refused(services.refresh(services.agent, services.agent_secret, refresh_token), "invalid_grant")
    refused(services.exchange("gateway", answer["access_token"]), "subject-token-ended")
    assert_inactive(services.sees("next", first))


def test_what_came_of_it_ends_and_the_first_stays(services: Services) -> None:
    """TX-10: ending the access of one service ends it and those after it, not those before."""
    subject = services.subject()
    first = services.exchanged("gateway", subject)
    second = services.exchanged("next", first)
    with services.begin() as engine:
        derived = next(grant for grant in services.rows("grants") if grant["client_id"] == "gateway")
        account.revoke_grant(engine, derived["grant_id"], of=services.ann)
    assert services.events("grant.revoked")[-1]["details"]["derived"] == 1
    assert_inactive(services.sees("next", first))
    assert_inactive(services.sees("next", second))
    assert services.sees("gateway", subject).json["active"] is True


def test_a_token_of_no_person_is_not_exchanged(services: Services) -> None:
    """TX-07: a client's own token is of that client, and nobody else becomes its subject."""
    client, secret = services.add_client(client_id="robot", grant_types=("client_credentials",))
    own = services.token(client, secret, grant_type="client_credentials").json["access_token"]
    refused(services.exchange("gateway", own), "subject-token-of-client")


# ---- bound to keys -----------------------------------------------------------------------------------


@pytest.fixture
def bound() -> Services:
    """Services of which some prove keys; the gateway may exchange what the agent got."""
    plugged = with_plugin("token_exchange", {})["authserver.plugins"]
    return Services(**{"authserver.plugins": f"dpop\n{plugged}"})


def with_proof(services: Services, name: str, token: str, key: Any | None, **form: Any) -> Answer:
    client, secret = services.clients[name]
    form = {"subject_token": token, "subject_token_type": ACCESS_TOKEN, "resource": NEXT, **form}
    headers = {} if key is None else {"dpop": proof(key)}
    return services.ask("/oauth/token", client, secret, headers=headers, grant_type=GRANT_TYPE, **form)


def subject_of_key(services: Services, key: Any) -> str:
    """An access token of the agent for ann that is bound to this key."""
    redeemed = services.ask(
        "/oauth/token",
        services.agent,
        services.agent_secret,
        headers={"dpop": proof(key)},
        grant_type="authorization_code",
        code=services.code(services.agent, scope="profile"),
        code_verifier=VERIFIER,
    )
    return str(redeemed.json["access_token"])


def test_a_bound_token_needs_its_key_and_is_never_copied(bound: Services) -> None:
    """TX-16, TX-17: only who proves the key exchanges it; what comes of it has the key that was proven, or none."""
    subject = subject_of_key(bound, KEY)
    for key in (None, OTHER):
        refused(with_proof(bound, "gateway", subject, key), "key-differs")
    answer = with_proof(bound, "gateway", subject, KEY)
    assert answer.json["token_type"] == "DPoP"
    assert bound.claims(answer.json["access_token"])["cnf"] == bound.claims(subject)["cnf"]


def test_a_requester_binds_what_it_gets_to_its_own_key(bound: Services) -> None:
    """TX-16: a token of no key may be exchanged for one of the requester's."""
    answer = with_proof(bound, "gateway", bound.subject(), OTHER)
    thumbprint = bound.claims(answer.json["access_token"])["cnf"]["jkt"]
    assert thumbprint == OTHER.thumbprint()
    assert "cnf" not in bound.claims(bound.exchanged("gateway", bound.subject()))


def test_tokens_that_are_bound_to_two_keys_are_not_exchanged_together(bound: Services) -> None:
    """TX-17: one request proves one key, so whoever proves that of the one token might have stolen the other."""
    subject = subject_of_key(bound, KEY)
    same, another = (
        {
            "actor_token": with_proof(bound, "gateway", bound.subject(scope="profile"), key).json[
                "access_token"
            ],
            "actor_token_type": ACCESS_TOKEN,
        }
        for key in (KEY, OTHER)
    )
    grants = len(bound.rows("grants"))
    for key in (None, KEY, OTHER):
        refused(with_proof(bound, "gateway", subject, key, **another), "two-keys")
    assert len(bound.rows("grants")) == grants
    refused(with_proof(bound, "gateway", subject, OTHER, **same), "key-differs")
    assert with_proof(bound, "gateway", subject, KEY, **same).status_int == 200


@dataclass(frozen=True)
class Certificates:
    """Binds tokens to the certificate that a proxy saw, by its thumbprint (RFC 8705, 3)."""

    immediate: ClassVar[bool] = True
    confirmations: ClassVar[Mapping[str, str]] = {"x5t#S256": "Bearer"}

    @hookimpl
    def token_binding(self, engine: Engine) -> Binding | None:
        thumbprint = engine.caller.headers.get("certificate")
        return Binding(confirmation={"x5t#S256": thumbprint}, binds_refresh=False) if thumbprint else None


@pytest.fixture
def certified() -> Services:
    """Services behind a proxy that asks for certificates, some of which prove keys of another kind, too."""
    plugged = with_plugin("token_exchange", {})["authserver.plugins"]
    return Services(**{"authserver.plugins": f"{__name__}:{Certificates.__qualname__}\ndpop\n{plugged}"})


@pytest.mark.parametrize(
    "headers",
    [dict, lambda: {"certificate": "another"}, lambda: {"dpop": proof(KEY)}],
    ids=["none", "another", "of another kind"],
)
def test_a_token_of_a_certificate_needs_that_certificate(
    certified: Services, headers: Callable[[], Mapping[str, str]]
) -> None:
    """TX-17, RFC 8705, 3: none, another, or a key of another kind gets `invalid_request`, and nothing is issued."""
    client, secret = certified.clients["gateway"]

    def exchange(headers: Mapping[str, str], token: str) -> Answer:
        form = {"subject_token": token, "subject_token_type": ACCESS_TOKEN, "resource": NEXT}
        return certified.ask("/oauth/token", client, secret, headers=headers, grant_type=GRANT_TYPE, **form)

    redeemed = certified.ask(
        "/oauth/token",
        certified.agent,
        certified.agent_secret,
        headers={"certificate": "thumbprint"},
        grant_type="authorization_code",
        code=certified.code(certified.agent, scope="profile"),
        code_verifier=VERIFIER,
    )
    subject = redeemed.json["access_token"]
    refused(exchange(headers(), subject), "key-differs")
    assert len(certified.rows("grants")) == 1
    answer = exchange({"certificate": "thumbprint"}, subject)
    assert certified.claims(answer.json["access_token"])["cnf"] == {"x5t#S256": "thumbprint"}
    # An actor token that is bound needs its key in the same way.
    actor = {"actor_token": answer.json["access_token"], "actor_token_type": ACCESS_TOKEN}
    unbound = certified.subject(scope="profile")
    form = {"subject_token": unbound, "subject_token_type": ACCESS_TOKEN, "resource": NEXT, **actor}
    refused(
        certified.ask("/oauth/token", client, secret, headers=headers(), grant_type=GRANT_TYPE, **form),
        "key-differs",
    )


# ---- the record --------------------------------------------------------------------------------------


def test_the_event_tells_who_acted_for_whom_by_which_rule(services: Services) -> None:
    """TX-23, R-04: both tokens by their ids and never the tokens, both clients, person, chain, target and rule."""
    subject = services.subject()
    first = services.exchanged("gateway", subject)
    second = services.exchanged("next", first)
    event = services.events("token.issued")[-1]
    assert (event["client_id"], event["user_id"]) == ("next", services.ann.user_id)
    details = event["details"]
    assert details["subject_token"] == services.claims(first)["jti"]
    assert services.claims(second)["jti"].startswith(event["grant_id"])
    assert (details["subject_client"], details["rule"]) == ("gateway", "audience")
    assert (details["actors"], details["resources"]) == (["next", "gateway"], [NEXT])
    assert details["impersonation"] is False
    assert not any(token in repr(services.events()) for token in (subject, first, second))


def test_policies_judge_an_exchange_by_requester_subject_and_audience(services: Services) -> None:
    """TX-24: `scope_decision` is asked as about any token, so what is tried out and explained covers it."""
    services.exchanged("gateway", services.subject())
    asked = [
        decision["facts"]
        for decision in services.events("token.issued")[-1]["decisions"]
        if decision["slot"] == "scope_decision"
    ]
    (question,) = asked
    assert (question["client_id"], question["user_id"]) == ("gateway", services.ann.user_id)
    assert (question["grant_type"], question["resources"]) == (GRANT_TYPE, [NEXT])


@pytest.mark.parametrize(
    "fields",
    [
        {"maximum_actors": "0"},
        {"maximum_actors": "17"},
        {"targets": "gateway = not-a-uri"},
        {"audiences": f"a = {NEXT} {RESOURCE}"},
        {"named_actors": "a = b c"},
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_stop_the_start(fields: Mapping[str, str]) -> None:
    """TX-05: a rule that says nothing allows nothing."""
    with pytest.raises(SettingsError):
        Services(fields)


def test_an_exchange_reads_its_chain_once(sqlite_url: str) -> None:
    """TX-10: it locks all grants that it was derived from, in one statement, and writes a grant and an event."""
    plugged = with_plugin("token_exchange", {})
    readers = {"authserver.plugin.introspect_resource_servers.clients": f"gateway = {RESOURCE}"}
    server = Server(sqlite_url, {**plugged, **readers})
    server.add_user("ann")
    agent, agent_secret = server.add_client(client_id="agent")
    gateway, secret = server.add_client(client_id="gateway", grant_types=(GRANT_TYPE,))
    token = server.redeem(agent, agent_secret, server.code(agent)).json["access_token"]
    form = {"grant_type": GRANT_TYPE, "subject_token_type": ACCESS_TOKEN}
    first = server.token(gateway, secret, subject_token=token, **form).json["access_token"]
    with transcript_of(server.application) as seen:
        assert server.token(gateway, secret, subject_token=first, **form).status_int == 200
    reads = ["SELECT clients", "SELECT grants", "SELECT grants", "SELECT clients", "SELECT clients"]
    holds = ["SELECT grants", "SELECT clients", "SELECT users"]
    assert seen == [*reads, "BEGIN", *holds, "INSERT grants", "INSERT events", "COMMIT"]
    server.close()


# ---- what people and operators see -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients", "through"),
    [
        (["agent", "gateway"], [["Agent"]]),
        (["agent", "gateway", "next"], [["Agent", "Gateway"]]),
        (["gateway", "gateway"], []),
        (["agent", "gateway", "gateway"], [["Agent"]]),
        ([None, "gateway"], [[]]),
        ([None, "gateway", "next"], [["Gateway"]]),
    ],
    ids=str,
)
def test_a_person_is_told_which_other_applications_access_came_through(
    clients: list[str | None], through: list[list[str]]
) -> None:
    """TX-10, E-16: not the application itself, which may derive from its own access; and not one that they have not."""
    grants = [
        a_grant(grant_id=f"grant_{n}", client_id=name, parent_id=f"grant_{n - 1}" if n else None)
        for n, name in enumerate(clients)
    ]
    known = [grant for grant in grants if grant.client_id is not None]
    names = dict.fromkeys(grant.client_id for grant in known)
    apps = [
        ConnectedApp(
            client_id=name,
            client=a_client(client_id=name, name=name.capitalize()),
            grants=tuple(grant for grant in known if grant.client_id == name),
            consent=None,
        )
        for name in names
    ]
    assert Chains(apps).through(grants[-1]) == through


def test_a_person_sees_and_ends_access_with_its_chain(sqlite_url: str) -> None:
    """TX-10, E-16: through whom it came; and ending the first application ends what came through it."""
    plugged = with_plugin("token_exchange", {"targets": f"gateway = {RESOURCE}"})
    plugged["authserver.plugins"] = f"{plugged['authserver.plugins']}\nadmin_console"
    server = Server(
        sqlite_url,
        {**plugged, "authserver.plugin.introspect_resource_servers.clients": f"gateway = {RESOURCE}"},
    )
    server.add_user("ann", groups=("authserver-admins",))
    agent, agent_secret = server.add_client(client_name="Notes agent", client_id="agent")
    gateway, secret = server.add_client(client_name="Gateway", client_id="gateway", grant_types=(GRANT_TYPE,))
    browser = server.browser()
    subject = server.redeem(agent, agent_secret, server.code(agent, browser)).json["access_token"]
    answer = server.token(
        gateway, secret, grant_type=GRANT_TYPE, subject_token=subject, subject_token_type=ACCESS_TOKEN
    )
    assert answer.json["issued_token_type"] == ACCESS_TOKEN
    derived = answer.json["access_token"]
    page = browser.get("/account/apps")
    assert "Through" in page
    assert "“<bdi>Notes agent</bdi>”" in page
    assert "because another application called it" in page
    assert "it can get access again when that application calls it" in page
    first, second = sorted(server.rows("grants"), key=lambda row: row["parent_id"] is not None)
    shown = browser.get(f"/admin/grants/grant?grant_id={second['grant_id']}")
    assert "Derived from" in shown
    assert first["grant_id"] in shown
    listed = browser.get(f"/admin/grants/grant?grant_id={first['grant_id']}")
    assert "What was derived from it" in listed
    assert second["grant_id"] in listed
    assert "<strong>2</strong> grants" in browser.get(f"/admin/grants/revoke?grant_id={first['grant_id']}")
    form = form_with(page, "csrf_token")
    browser.post("/account/apps", {"csrf_token": form["csrf_token"].value, "disconnect": "agent"}, status=303)
    assert server.introspect(gateway, secret, derived).json == {"active": False}
    assert "may act for you now" in browser.get("/account/apps")
    assert '"grants":2' in str(server.events("grants.revoked")[-1]["details"])
    server.close()
