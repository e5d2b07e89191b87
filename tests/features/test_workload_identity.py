"""Workload identity: a program presents what its platform signed, and the rule that it meets says what it gets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from authserver.app import announce_issuers
from authserver.engine import issuers
from authserver.engine.issuer_registry import as_value
from authserver.engine.issuers import BadIssuer
from authserver.engine.people import account
from authserver.engine.records import RegisteredBy
from authserver.explaining.explain import explain_event
from authserver.fetching.addresses import Reach
from authserver.fetching.fetcher import Fetcher, Limits
from authserver.testing.origins import Authority, sending, serving
from authserver.testing.rules import Answer, Rules, assert_inactive, assert_refused
from authserver.testing.server import ISSUER, RESOURCE, SETTINGS, Server
from authserver.testing.stories import assert_json_error
from tests.client_keys import ABSENT, Key
from tests.trusted_issuers import GRANT_TYPE, Issuer

PROFILE = "workload_identity"
PLATFORM = "https://kubernetes.example"
FILES = "https://files.example/"
UID = "kubernetes.io/serviceaccount/uid"
POD = {
    "namespace": "reports",
    "pod": {"name": "nightly-x2", "uid": "11111111"},
    "serviceaccount": {"name": "nightly", "uid": "7d3f"},
}
NIGHTLY: Mapping[str, Any] = {
    "name": "nightly",
    "client": "reports",
    "claims": {"kubernetes.io/namespace": "reports", UID: "7d3f"},
    "resources": [RESOURCE],
    "scopes": ["files.read", "profile"],
}


class Platform(Rules):
    """Rules with a platform that is trusted, one rule for one of its workloads, and the client of that rule."""

    def __init__(self, *rules: Mapping[str, Any], more: str = "", **options: Any) -> None:
        settings = {name: options.pop(name) for name in list(options) if name.startswith("authserver.")}
        plugins = f"{SETTINGS['authserver.plugins']} {PROFILE} {more}"
        super().__init__({"authserver.plugins": plugins, **settings})
        self.client, _ = self.add_client(
            client_id="reports", grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none"
        )
        self.platform = Issuer(
            PLATFORM, claims={"sub": "system:serviceaccount:reports:nightly", "kubernetes.io": POD}
        )
        options = {"platform": "kubernetes", "rules": list(rules or [NIGHTLY]), **options}
        self.entry = self.platform.trust(self, PROFILE, options=options)

    def present(self, assertion: object = None, **form: Any) -> Answer:
        """Present an assertion, by default a right one, and nothing that authenticates."""
        text = self.platform.assertion() if assertion is None else assertion
        sent = {"grant_type": GRANT_TYPE, "assertion": text, "resource": RESOURCE, **form}
        form = {name: value for name, value in sent.items() if value is not None}
        return self.post("/oauth/token", urlencode(form, doseq=True))


@pytest.fixture
def platform() -> Platform:
    return Platform()


def refused(answer: Answer, reason: str, code: str = "invalid_grant", status: int = 400) -> None:
    assert_refused(answer, code, status=status)
    assert answer.refusal is not None
    assert answer.refusal.reason == reason


def granted(answer: Answer) -> dict[str, Any]:
    assert answer.status_int == 200, answer
    return answer.json


def test_a_workload_gets_a_token_with_its_assertion_alone(platform: Platform) -> None:
    """WIF-02, WIF-06, WIF-07, WIF-12: as the client of its rule, under a name of its own, and without a refresh token."""
    answer = granted(platform.present())
    assert answer.keys() == {"access_token", "token_type", "expires_in", "scope"}
    claims = platform.claims(answer["access_token"])
    assert (claims["sub"], claims["client_id"], claims["aud"]) == ("workload:nightly", "reports", RESOURCE)
    assert claims["workload"] == {"name": "nightly"}
    assert "act" not in claims
    assert set(answer["scope"].split()) == {"files.read", "profile"}
    api, secret = platform.add_client(client_id="api", grant_types=("client_credentials",))
    seen = platform.introspect(api, secret, answer["access_token"]).json
    assert (seen["active"], seen["client_id"], seen["sub"]) == (True, "reports", "workload:nightly")


# ---- which assertions are accepted -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://other.example"}, "assertion-issuer-not-trusted"),
        ({"iss": ISSUER}, "assertion-issuer-not-trusted"),
        ({"aud": "https://other.example"}, "assertion-audience"),
        ({"aud": f"{ISSUER}/oauth/token"}, "assertion-audience"),
        ({"aud": [ISSUER, "https://other.example"]}, "assertion-audience"),
        ({"aud": ABSENT}, "assertion-audience"),
        ({"exp": 1}, "assertion-expired"),
        ({"exp": ABSENT}, "assertion-times-malformed"),
        ({"sub": ABSENT}, "assertion-subject-missing"),
        ({"kubernetes.io": ABSENT}, "workload-unknown"),
        (
            {"kubernetes.io": {**POD, "serviceaccount": {"name": "nightly", "uid": "made anew"}}},
            "workload-unknown",
        ),
        ({"kubernetes.io": {**POD, "namespace": "others"}}, "workload-unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_its_entry_or_its_rules_do_not_allow_is_refused(
    platform: Platform, changes: Mapping[str, Any], reason: str
) -> None:
    """WIF-01, WIF-02, JAG-11: `invalid_grant`, nothing is issued, and nothing of the assertion is repeated."""
    text = platform.platform.assertion(**changes)
    answer = platform.present(text)
    refused(answer, reason)
    assert platform.rows("grants") == platform.rows("tokens") == []
    assert text not in repr(platform.events())
    assert "nightly" not in repr(answer.json)


def test_an_entry_says_what_its_platform_calls_us() -> None:
    """WIF-01: the token endpoint, for example; and then our issuer is not meant any more."""
    endpoint = f"{ISSUER}/oauth/token"
    platform = Platform(audience=endpoint)
    granted(platform.present(platform.platform.assertion(aud=endpoint)))
    refused(platform.present(), "assertion-audience")


def test_what_holds_for_all_workloads_of_an_entry() -> None:
    """WIF-01, WIF-11: claims that each assertion must have; the event names the one that is missed."""
    platform = Platform(claims={"cluster": "prod"})
    granted(platform.present(platform.platform.assertion(cluster="prod")))
    refused(platform.present(platform.platform.assertion(cluster="test")), "workload-unknown")
    assert platform.events("token.refused")[-1]["details"]["facts"]["rules"] == "nightly misses cluster"


@pytest.mark.parametrize("typ", ["JWT", "jwt", "JOSE", "application/jwt", ABSENT])
def test_a_type_that_says_no_other_use_is_accepted(platform: Platform, typ: object) -> None:
    """WIF-10: platforms say `JWT`, SPIFFE's may say `JOSE`, and some say nothing."""
    granted(platform.present(platform.platform.assertion(header={"typ": typ})))


@pytest.mark.parametrize(
    "typ", ["oauth-id-jag+jwt", "at+jwt", "logout+jwt", "client-authentication+jwt", "dpop+jwt", "", "x"]
)
def test_a_type_that_says_another_use_is_refused(platform: Platform, typ: str) -> None:
    """WIF-10, RFC 8725, 3.11: whatever its claims say."""
    refused(platform.present(platform.platform.assertion(header={"typ": typ})), "assertion-type")


def test_an_issuer_has_one_entry(platform: Platform) -> None:
    """WIF-10: so an assertion cannot be one of two profiles."""
    with pytest.raises(BadIssuer, match="trusted already"):
        platform.platform.trust(platform, PROFILE, options={"rules": [NIGHTLY]})


def test_an_assertion_is_used_once_unless_the_entry_says_otherwise() -> None:
    """WIF-05: then it needs a `jti`; what is presented again on purpose needs none."""
    once = Platform(reusable=False)
    text = once.platform.assertion()
    granted(once.present(text))
    refused(once.present(text), "assertion-replayed")
    refused(once.present(once.platform.assertion(jti=ABSENT)), "assertion-jti-missing")
    assert len(once.rows("grants")) == 1
    again = Platform(reusable=True)
    text = again.platform.assertion(jti=ABSENT)
    for _ in range(2):
        granted(again.present(text))


# ---- what comes of it --------------------------------------------------------------------------------


@pytest.mark.parametrize(("rest", "lifetime"), [(60, 60), (3600, 900)])
def test_a_token_lives_no_longer_than_the_assertion_and_a_quarter_of_an_hour(
    rest: int, lifetime: int
) -> None:
    """WIF-06: also where the tokens of the server live longer."""
    platform = Platform(**{"authserver.access_token_lifetime": "3600"})
    platform.platform.edit(platform, lifetime=3600)
    answer = granted(platform.present(platform.platform.assertion(exp=int(time.time()) + rest)))
    assert lifetime - 3 <= answer["expires_in"] <= lifetime


def test_nothing_comes_of_an_assertion_that_is_over_by_our_clock(platform: Platform) -> None:
    """WIF-06: though its issuer's clock may be slow, there is no rest for a token to live."""
    refused(
        platform.present(platform.platform.assertion(exp=int(time.time()) - 5)), "workload-assertion-ended"
    )


def test_no_person_and_no_client_has_the_name_of_a_workload(platform: Platform) -> None:
    """WIF-07, H-04: whatever they are called, their `sub` is another."""
    ann = platform.add_user("workload:nightly", None)
    robot, secret = platform.add_client(client_id="nightly", grant_types=("client_credentials",))
    own = granted(platform.token(robot, secret, grant_type="client_credentials"))["access_token"]
    sub = platform.claims(granted(platform.present())["access_token"])["sub"]
    assert sub not in {ann.user_id, platform.claims(own)["sub"], ann.username.partition(":")[2]}
    assert ":" not in ann.user_id


def test_a_request_names_its_resource_and_the_rule_allows_it(platform: Platform) -> None:
    """WIF-13: one that is missing, unknown, or another's is `invalid_target`."""
    refused(platform.present(resource=None), "resource-missing", "invalid_target")
    refused(platform.present(resource=FILES), "resource-beyond-parent", "invalid_target")
    refused(platform.present(resource=[RESOURCE, FILES]), "resource-beyond-parent", "invalid_target")
    assert_refused(platform.present(resource="https://unknown.example/"), "invalid_target")


def test_a_rule_is_the_most_that_a_workload_gets(platform: Platform) -> None:
    """WIF-02: it may ask for less, and gets no more."""
    assert granted(platform.present(scope="files.read"))["scope"] == "files.read"
    assert granted(platform.present(scope="files.read admin"))["scope"] == "files.read"
    refused(platform.present(scope="admin"), "scope-beyond-parent", "invalid_scope")


def test_only_claims_that_the_rule_lists_are_in_the_token() -> None:
    """WIF-13."""
    platform = Platform({**NIGHTLY, "copied": ["kubernetes.io/namespace", "absent"]})
    claims = platform.claims(
        granted(platform.present(platform.platform.assertion(email="a@b.example")))["access_token"]
    )
    assert claims["workload"] == {"name": "nightly", "claims": {"kubernetes.io/namespace": "reports"}}
    assert "email" not in claims
    assert "7d3f" not in repr(claims)


def test_the_event_says_which_rule_was_met(platform: Platform) -> None:
    """WIF-11, WIF-12, JAG-19: with the issuer, the client and the ids of the assertion; never the assertion or its subject."""
    text = platform.platform.assertion(jti="the-jti")
    granted(platform.present(text))
    event = platform.events("token.issued")[-1]
    assert (event["client_id"], event["user_id"]) == ("reports", None)
    details = event["details"]
    assert (details["issuer"], details["workload"], details["jti"]) == (PLATFORM, "nightly", "the-jti")
    assert details["grant_type"] == GRANT_TYPE
    assert not any(each in repr(platform.events()) for each in (text, "system:serviceaccount"))


# ---- whose request it is -----------------------------------------------------------------------------


def test_a_client_id_that_is_sent_must_be_that_of_the_rule(platform: Platform) -> None:
    """WIF-12: and may be missing."""
    granted(platform.present(client_id="reports"))
    other, _ = platform.add_client(
        client_id="other", grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none"
    )
    refused(platform.present(client_id=other.client_id), "workload-unknown")
    refused(platform.present(client_id="nobody"), "workload-unknown")
    event = platform.events("token.refused")[-1]
    assert event["details"]["facts"]["rules"] == "nightly misses client_id"


def test_a_client_that_authenticates_must_be_that_of_the_rule(platform: Platform) -> None:
    """WIF-12: what it sends to prove who it is must be right, and its assertion must name it."""
    other, secret = platform.add_client(client_id="other", grant_types=(GRANT_TYPE,))
    form = {"grant_type": GRANT_TYPE, "resource": RESOURCE}
    refused(
        platform.token(other, secret, assertion=platform.platform.assertion(), **form), "workload-unknown"
    )
    answer = platform.token(other, "wrong", assertion=platform.platform.assertion(), **form)
    assert_refused(answer, "invalid_client", status=401)
    confidential = Platform({**NIGHTLY, "client": "batch"})
    batch, secret = confidential.add_client(client_id="batch", grant_types=(GRANT_TYPE,))
    for presented in ({}, {"client_id": "batch"}):
        granted(confidential.present(**presented))
    text = confidential.platform.assertion()
    granted(confidential.token(batch, secret, assertion=text, **form))


def test_a_workload_that_meets_two_rules_says_which(platform: Platform) -> None:
    """WIF-12: it is never guessed."""
    two = Platform(NIGHTLY, {**NIGHTLY, "name": "deploy", "client": "deploy"})
    two.add_client(client_id="deploy", grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none")
    refused(two.present(), "workload-ambiguous")
    answer = granted(two.present(client_id="deploy"))
    assert two.claims(answer["access_token"])["sub"] == "workload:deploy"


def test_the_client_of_a_rule_must_be_there_and_registered_for_the_grant_type() -> None:
    """WIF-02, WIF-12, R-09: unknown, disabled, or not registered for it: nothing is issued."""
    platform = Platform({**NIGHTLY, "client": "later"})
    refused(platform.present(), "issuer-client-unknown")
    platform.add_client(client_id="later", grant_types=("client_credentials",))
    assert_refused(platform.present(), "unauthorized_client")
    other = Platform()
    with other.begin() as engine:
        engine.stores.clients.disable("reports", engine.now)
    refused(other.present(), "client-disabled", "invalid_client", status=401)


def test_no_client_that_registered_itself_acts_as_a_workload(platform: Platform) -> None:
    """WIF-09: neither does it get the grant type, nor does a rule let it in."""
    refused_grant = platform.register(
        {"redirect_uris": ["https://client.example/cb"], "grant_types": [GRANT_TYPE], "client_name": "x"}
    )
    if refused_grant.refusal is None:
        assert GRANT_TYPE not in refused_grant.json["grant_types"]
    platform.change("clients", registered_by=RegisteredBy.SELF)
    refused(platform.present(), "workload-client-not-of-operator")


def test_a_request_without_client_is_not_told_which_issuers_are_trusted(platform: Platform) -> None:
    """WIF-09: one that is not trusted and one whose assertion is wrong are refused alike."""
    stranger = Issuer("https://stranger.example")
    answers = [
        platform.present(text)
        for text in (stranger.assertion(), platform.platform.assertion(aud="x"), "x.y.z")
    ]
    assert (
        len(
            {
                (answer.status_int, answer.json["error"], answer.json["error_description"])
                for answer in answers
            }
        )
        == 1
    )


def test_another_profile_still_needs_its_client_to_authenticate() -> None:
    """JAG-04, WIF-12: beside this one."""
    platform = Platform(more="jwt_bearer")
    platform.add_user("ann")
    idp = Issuer()
    idp.trust(platform, "jwt_bearer")
    assert_refused(platform.present(idp.assertion()), "invalid_client", status=401)
    assert_refused(platform.present(idp.assertion(), client_id="reports"), "unauthorized_client")


# ---- it ends -----------------------------------------------------------------------------------------


def test_what_an_issuer_vouched_for_ends_when_it_is_disabled(platform: Platform) -> None:
    """T164, JAG-17: the token too, at its next check."""
    api, secret = platform.add_client(client_id="api", grant_types=("client_credentials",))
    token = granted(platform.present())["access_token"]
    platform.platform.disable(platform, at_once=True)
    assert_inactive(platform.introspect(api, secret, token))
    refused(platform.present(), "issuer-disabled")
    platform.platform.enable(platform)
    granted(platform.present())


def test_a_grant_of_a_workload_can_be_ended(platform: Platform) -> None:
    """T163: as every other."""
    api, secret = platform.add_client(client_id="api", grant_types=("client_credentials",))
    token = granted(platform.present())["access_token"]
    (grant,) = platform.rows("grants")
    with platform.begin() as engine:
        account.revoke_grant(engine, grant["grant_id"])
    assert_inactive(platform.introspect(api, secret, token))


# ---- its keys ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize(
    ("lost", "error", "status"), [(503, "temporarily_unavailable", 503), (404, "invalid_grant", 400)]
)
def test_keys_are_kept_for_a_set_time_while_they_cannot_be_fetched(
    authority: Authority, lost: int, error: str, status: int
) -> None:
    """WIF-08: an hour, and a day more while the platform does not answer; a key that it withdraws is refused in an hour."""
    platform, now = Platform(), 0.0
    with serving(authority.context("127.0.0.1")) as origin:
        platform.platform.edit(platform, jwks="", jwks_uri=f"https://127.0.0.1:{origin.port}/openid/v1/jwks")
        limits = Limits(reach=Reach(loopback=True), ca_file=str(authority.ca_file))
        platform.parts = replace(platform.parts, fetcher=Fetcher(limits, clock=lambda: now))
        old, new = platform.platform.key, Key("RS256", kid="new")

        def publish(*keys: Key) -> None:
            origin.reply = sending(json.dumps({"keys": [key.jwk() for key in keys]}).encode())

        publish(old)
        for _ in range(3):
            granted(platform.present())
        assert len(origin.received) == 1
        origin.reply = sending(status=lost)
        now += 3601 + 80_000
        granted(platform.present())
        publish(old, new)
        now += 3601
        granted(platform.present())
        granted(platform.present(platform.platform.assertion(key=new)))
        publish(new)
        now += 3601
        refused(platform.present(), "assertion-key-unknown")
        granted(platform.present(platform.platform.assertion(key=new)))
        origin.reply = sending(status=lost)
        now += 3601 + 86_400
        assert_refused(platform.present(platform.platform.assertion(key=new)), error, status=status)


# ---- what operators are told -------------------------------------------------------------------------


@pytest.fixture
def logged(sqlite_url: str) -> Iterator[Server]:
    server = Server(sqlite_url, {"authserver.plugins": f"{SETTINGS['authserver.plugins']} {PROFILE}"})
    yield server
    server.close()


def test_names_that_can_be_taken_over_are_warned_of_at_start(
    logged: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """WIF-03, WIF-05: with what may be presented again; not of an issuer that is disabled."""
    rules = [{**NIGHTLY, "claims": {"sub": "system:serviceaccount:reports:nightly"}}]
    platform = Issuer(PLATFORM)
    platform.trust(logged, PROFILE, options={"platform": "kubernetes", "rules": rules})
    announce_issuers(logged.application)
    assert (
        f"trusted issuer {PLATFORM}: rule nightly: sub can come to name somebody else; add {UID}"
        in caplog.text
    )
    assert f"trusted issuer {PLATFORM}: reusable" in caplog.text
    caplog.clear()
    platform.disable(logged)
    announce_issuers(logged.application)
    assert not caplog.text


def test_the_metadata_name_the_grant_type_and_no_issuer(logged: Server) -> None:
    """WIF-09."""
    Issuer(PLATFORM).trust(logged, PROFILE, options={"rules": [NIGHTLY]})
    metadata = logged.browser().get("/.well-known/oauth-authorization-server")
    assert GRANT_TYPE in metadata.json["grant_types_supported"]
    assert PLATFORM not in metadata.text
    assert PROFILE not in metadata.text


def test_a_workload_gets_a_token_over_http(logged: Server) -> None:
    """WIF-12: a form with three members, and nothing else."""
    logged.add_client(client_id="reports", grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none")
    platform = Issuer(PLATFORM, claims={"kubernetes.io": POD})
    platform.trust(logged, PROFILE, options={"rules": [NIGHTLY]})
    form = {"grant_type": GRANT_TYPE, "assertion": platform.assertion(), "resource": RESOURCE}
    answer = logged.post("/oauth/token", urlencode(form))
    assert answer.status_int == 200, answer.text
    assert logged.claims(answer.json["access_token"])["sub"] == "workload:nightly"
    (grant,) = logged.rows("grants")
    assert (grant["user_id"], grant["client_id"]) == (None, "reports")
    again = logged.post("/oauth/token", urlencode(form))
    assert_json_error(again, "invalid_grant")
    assert len(logged.rows("grants")) == 1


@pytest.mark.parametrize(
    "members",
    [
        {"clients": ("other",)},
        {"resources": (FILES,)},
        {"scopes": ("admin",)},
        {"default_resource": RESOURCE},
        {"options": {}},
        {"options": {"rules": [NIGHTLY], "platfrom": "gitlab"}},
    ],
    ids=lambda members: ",".join(members),
)
def test_an_entry_that_lets_its_rules_in_nowhere_is_refused(
    platform: Platform, members: Mapping[str, Any]
) -> None:
    """WIF-01, WIF-02: when it is added or changed, and nothing is changed then."""
    platform.add_client(client_id="other")
    with pytest.raises(BadIssuer):
        platform.platform.edit(platform, **members)
    granted(platform.present())


def test_rules_that_an_earlier_version_took_let_nobody_in(platform: Platform) -> None:
    """R-14: whatever stands in the database, an assertion is refused and never a fault."""
    platform.change("stored_settings", value={**as_value(platform.entry), "options": {"rules": "all"}})
    refused(platform.present(), "workload-rules-refused")
    with platform.begin() as engine:
        ((_, sentence),) = issuers.warnings(engine)
    assert "none of its assertions is accepted: rules: must be a list" in sentence


def test_refusals_count_for_the_source_and_the_issuer() -> None:
    """WIF-12, R-20: who guesses is stopped, and neither another source nor another platform with them."""
    limits = "refused = failed_grant, client+source, 3, 10 minutes"
    platform = Platform(more="rate_limits", **{"authserver.plugin.rate_limits.limits": limits})
    other = Issuer("https://other.example", claims={"kubernetes.io": POD})
    other.trust(platform, PROFILE, options={"rules": [NIGHTLY]})
    for _ in range(3):
        refused(platform.present(platform.platform.assertion(aud="x")), "assertion-audience")
    answer = platform.present(platform.platform.assertion(aud="x"))
    assert answer.status_int == 429
    refused(platform.present(other.assertion(aud="x")), "assertion-audience")
    # What is right is not held up by what others guess.
    granted(platform.present())


def test_an_operator_is_told_which_claims_each_rule_missed() -> None:
    """WIF-11: from the event of a refusal, with what to do."""
    other = {**NIGHTLY, "name": "other", "claims": {UID: "0000"}}
    platform = Platform(NIGHTLY, other)
    text = platform.platform.assertion(**{"kubernetes.io": {**POD, "namespace": "others"}})
    refused(platform.present(text), "workload-unknown")
    event = list(platform.stores.tables.events.values())[-1]
    with platform.begin() as engine:
        (check,) = explain_event(engine, event, platform.parts.policies).checks
    assert check.facts["rules"] == f"nightly misses kubernetes.io/namespace; other misses {UID}"
    assert "which claims each rule missed" in check.remedies[0]
