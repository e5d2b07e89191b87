"""Identity assertion grants (ID-JAG, MCP's enterprise-managed authorization): what lets in whom, and what comes of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from authserver.engine.issuers import BadIssuer
from authserver.engine.people.joining import remove
from authserver.engine.people.login import disable_user
from authserver.fetching.addresses import Reach
from authserver.fetching.fetcher import Fetcher, Limits
from authserver.testing.origins import Authority, Origin, resolving, sending, serving
from authserver.testing.rules import Answer, Rules, assert_refused, is_active
from authserver.testing.server import ISSUER, RESOURCE, SETTINGS, Server
from authserver.testing.service import REDIRECT_URI
from tests.client_keys import Key
from tests.dpop_proofs import KEY as PROOF_KEY
from tests.dpop_proofs import OTHER, proof
from tests.trusted_issuers import ABSENT, GRANT_TYPE, IDP, Issuer

FILES = "https://files.example/"
NOTES = "https://notes.example/"
PLUGINS = "id_jag dpop token_exchange private_key_jwt openid"
SETTING = {
    "authserver.plugins": f"{PLUGINS} {SETTINGS['authserver.plugins']}",
    "authserver.access_token_format": "opaque",
    "authserver.plugin.resources_listed.resources": (
        f"{RESOURCE} = *\n{FILES} = files.read files.write\n{NOTES} = profile"
    ),
}
PEOPLE = {"usernames": True}


class World:
    """The rules, an identity provider that is trusted, and a client that it knows."""

    def __init__(self, profile: str = "mcp", **members: Any) -> None:
        self.rules = Rules(SETTING)
        self.ann = self.rules.add_user("ann")
        self.client = self.rules.add_client(
            client_id="agent",
            grant_types=(GRANT_TYPE,),
            scopes=("profile", "files.read", "files.write"),
        )
        self.idp = Issuer(
            typ="oauth-id-jag+jwt",
            claims={"client_id": "agent", "resource": FILES, "scope": "files.read files.write"},
        )
        self.idp.trust(self.rules, profile, **{"options": PEOPLE, **members})

    def present(self, text: str | None = None, client: Any = None, **form: Any) -> Answer:
        return self.idp.present(self.rules, client or self.client, text or self.idp.assertion(), **form)

    def options(self, **options: Any) -> None:
        self.idp.edit(self.rules, options=PEOPLE | options)

    def refused(self, answer: Answer, reason: str, error: str = "invalid_grant", status: int = 400) -> None:
        """This error for the client, the reason for operators, and nothing issued."""
        assert_refused(answer, error, status=status)
        assert self.rules.events("token.refused")[-1]["reason"] == reason

    def granted(self) -> dict[str, Any]:
        return self.rules.rows("grants")[-1]


@pytest.fixture
def world() -> World:
    return World()


# ---- What it gives ------------------------------------------------------------------------------------


def test_an_assertion_gives_a_token_for_its_person_resource_and_scopes(world: World) -> None:
    """JAG-01, JAG-05, JAG-08, JAG-13: exactly the resource is the audience, and there is no refresh token."""
    answer = world.present()
    assert answer.json.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert answer.json["scope"] == "files.read files.write"
    grant = world.granted()
    assert (grant["user_id"], grant["client_id"]) == (world.ann.user_id, "agent")
    assert grant["resources"] == (FILES,)
    told = world.rules.introspect(*world.client, answer.json["access_token"]).json
    assert (told["aud"], told["sub"], told["client_id"]) == (FILES, world.ann.user_id, "agent")


def test_metadata_say_that_such_assertions_are_taken_and_of_whom_they_do_not(sqlite_url: str) -> None:
    """JAG-10: the grant profile together with the grant type, and no list of issuers; neither without the plugin."""
    server = Server(sqlite_url, {"authserver.plugins": f"id_jag {SETTINGS['authserver.plugins']}"})
    Issuer(typ="oauth-id-jag+jwt").trust(server, "mcp", options=PEOPLE)
    document = server.http.get("/.well-known/oauth-authorization-server").json
    assert document["authorization_grant_profiles_supported"] == [
        "urn:ietf:params:oauth:grant-profile:id-jag"
    ]
    assert GRANT_TYPE in document["grant_types_supported"]
    assert IDP not in json.dumps(document)
    server.close()
    without = Server(sqlite_url)
    document = without.http.get("/.well-known/oauth-authorization-server").json
    assert "authorization_grant_profiles_supported" not in document
    assert GRANT_TYPE not in document["grant_types_supported"]
    without.close()


# ---- What it must be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typ", ["JWT", "at+jwt", "logout+jwt", "authorization-grant+jwt", "client-authentication+jwt", ABSENT, 7]
)
def test_only_its_own_type_is_one(world: World, typ: object) -> None:
    """JAG-02, RFC 8725, 3.11: an ID token, an access token, a logout token or another assertion of the issuer is none."""
    world.refused(world.present(world.idp.assertion(header={"typ": typ})), "assertion-type")
    assert (
        world.present(world.idp.assertion(header={"typ": "application/OAuth-ID-JAG+jwt"})).status_int == 200
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": f"{ISSUER}/oauth/token"}, "assertion-audience"),
        ({"aud": [ISSUER, "https://other.example"]}, "assertion-audience"),
        ({"aud": []}, "assertion-audience"),
        ({"aud": ABSENT}, "assertion-audience"),
        ({"aud": "https://other.example"}, "assertion-audience"),
        ({"aud": f"{ISSUER}/"}, "assertion-audience"),
        ({"sub": ABSENT}, "assertion-subject-missing"),
        ({"exp": ABSENT}, "assertion-times-malformed"),
        ({"exp": "soon"}, "assertion-times-malformed"),
        ({"iat": ABSENT}, "assertion-claim-malformed"),
        ({"jti": ABSENT}, "assertion-claim-malformed"),
        ({"jti": ""}, "assertion-claim-malformed"),
        ({"jti": "x" * 513}, "assertion-claim-malformed"),
        ({"client_id": ABSENT}, "assertion-claim-malformed"),
        ({"client_id": ["agent"]}, "assertion-claim-malformed"),
        ({"client_id": "another"}, "assertion-client-differs"),
        ({"client_id": "Agent"}, "assertion-client-differs"),
        ({"scope": ""}, "assertion-claim-malformed"),
        ({"scope": ["files.read"]}, "assertion-claim-malformed"),
        ({"scope": "files.read  files.write"}, "assertion-claim-malformed"),
        ({"resource": ""}, "assertion-claim-malformed"),
        ({"resource": []}, "assertion-claim-malformed"),
        ({"resource": {"uri": FILES}}, "assertion-claim-malformed"),
        ({"resource": "https://nowhere.example/"}, "assertion-resource-unknown"),
        ({"resource": [FILES, "https://nowhere.example/"]}, "assertion-resource-unknown"),
        ({"resource": "nowhere"}, "assertion-resource-unknown"),
        ({"resource": ABSENT}, "assertion-resource-missing"),
        ({"tenant": "acme"}, "assertion-tenant"),
        ({"tenant": 7}, "assertion-tenant"),
        ({"cnf": {}}, "assertion-claim-malformed"),
        ({"cnf": "key"}, "assertion-claim-malformed"),
        ({"acr": 7}, "assertion-claim-malformed"),
        ({"amr": "pwd"}, "assertion-claim-malformed"),
        ({"amr": ["x"] * 11}, "assertion-claim-malformed"),
        ({"auth_time": "today"}, "assertion-claim-malformed"),
        ({"auth_time": 9_999_999_999}, "assertion-claim-malformed"),
        ({"authorization_details": [{"type": "payment"}]}, "assertion-details-unknown"),
    ],
)
def test_what_it_must_say_is_there_and_what_it_is(world: World, changes: Any, reason: str) -> None:
    """JAG-01, JAG-03, JAG-04, JAG-05, JAG-06, JAG-07, JAG-13, T168: and nothing is stored or used up."""
    before = {name: world.rules.rows(name) for name in ("grants", "kept", "users")}
    world.refused(world.present(world.idp.assertion(**changes)), reason)
    assert before == {name: world.rules.rows(name) for name in before}


def test_whoever_steals_an_assertion_has_nothing(world: World) -> None:
    """JAG-04, T163: it is for the client that it names, which must authenticate."""
    thief = world.rules.add_client(client_id="thief", grant_types=(GRANT_TYPE,))
    text = world.idp.assertion()
    world.refused(world.present(text, client=thief), "assertion-client-differs")
    wrong = (world.client[0], "as_secret_wrong")
    world.refused(world.present(text, client=wrong), "secret-malformed", "invalid_client", 401)
    public = world.rules.add_client(
        client_id="public", grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none"
    )
    stolen = world.idp.assertion(client_id="public")
    world.refused(world.present(stolen, client=public), "public-client", "unauthorized_client")
    assert world.present(text).status_int == 200, "no refusal has used it up"


def test_an_assertion_is_required(world: World) -> None:
    """JAG-01"""
    assert_refused(world.idp.present(world.rules, world.client, ABSENT), "invalid_request")


# ---- Ceilings -----------------------------------------------------------------------------------------


def test_scopes_are_what_request_assertion_and_policy_have_in_common(world: World) -> None:
    """JAG-07, JAG-14: no scope in the request means those of the assertion."""
    assert world.present(scope="files.read profile").json["scope"] == "files.read"
    narrow = world.idp.assertion(scope="files.read")
    assert world.present(narrow).json["scope"] == "files.read"
    answer = world.present(world.idp.assertion(scope="files.read"), scope="files.write")
    world.refused(answer, "scope-beyond-parent", "invalid_scope")
    answer = world.present(world.idp.assertion(resource=RESOURCE, scope="admin"))
    world.refused(answer, "nothing-left", "invalid_scope")


@pytest.mark.parametrize("scope", ["files.read profile", "nonsense"])
def test_a_scope_that_its_resource_does_not_know_is_refused(world: World, scope: str) -> None:
    """JAG-14: the issuer speaks of something that there is not."""
    world.refused(world.present(world.idp.assertion(scope=scope)), "assertion-scope-unknown")


def test_an_assertion_without_scopes_leaves_them_to_entry_and_policies(world: World) -> None:
    """JAG-14, JAG-16"""
    text = world.idp.assertion(scope=ABSENT)
    assert world.present(text, scope="files.write").json["scope"] == "files.write"
    world.idp.edit(world.rules, scopes=("files.read",))
    text = world.idp.assertion(scope=ABSENT)
    world.refused(world.present(text, scope="files.write"), "issuer-scope-not-allowed", "invalid_scope")


def test_a_resource_of_the_request_repeats_or_narrows(world: World) -> None:
    """JAG-13: audience and resource are judged as a pair; anything else is `invalid_target`."""
    both = {"resource": [FILES, NOTES], "scope": "files.read profile"}
    assert world.present(world.idp.assertion(**both)).status_int == 200
    assert set(world.granted()["resources"]) == {FILES, NOTES}
    assert world.present(world.idp.assertion(**both), resource=FILES, scope="files.read").status_int == 200
    assert world.granted()["resources"] == (FILES,)
    answer = world.present(resource=RESOURCE)
    world.refused(answer, "resource-beyond-parent", "invalid_target")


def test_without_a_resource_it_is_for_that_of_the_entry_and_never_for_any(world: World) -> None:
    """JAG-05: the default of the server is not that of the entry."""
    world.idp.edit(world.rules, default_resource=FILES)
    text = world.idp.assertion(resource=ABSENT)
    assert world.present(text).status_int == 200
    assert world.granted()["resources"] == (FILES,)
    text = world.idp.assertion(resource=ABSENT)
    world.refused(world.present(text, resource=RESOURCE), "resource-beyond-parent", "invalid_target")


def test_a_resource_that_the_entry_does_not_have_is_refused(world: World) -> None:
    """JAG-13, JAG-16: though it is registered here."""
    world.idp.edit(world.rules, resources=(NOTES,))
    world.refused(world.present(), "issuer-resource-not-allowed")


# ---- Once ---------------------------------------------------------------------------------------------


def test_the_profile_of_the_issuer_says_whether_it_is_accepted_again() -> None:
    """JAG-08, JAG-12: `mcp` refuses it, also from another request body; `draft` accepts it until it ends."""
    world = World("mcp")
    text = world.idp.assertion()
    assert world.present(text).status_int == 200
    world.refused(world.present(text), "assertion-replayed")
    again = world.idp.assertion(jti=world.rules.events("token.issued")[-1]["details"]["jti"])
    world.refused(world.present(again), "assertion-replayed")
    facts = world.rules.events("token.refused")[-1]["details"]["facts"]
    assert facts["issuer"] == IDP
    world = World("draft")
    text = world.idp.assertion()
    assert [world.present(text).status_int for _ in range(3)] == [200] * 3
    world.rules.wait(160)
    world.refused(world.present(text), "assertion-expired")


def test_the_same_jti_of_another_issuer_is_another(world: World) -> None:
    """JAG-12: by issuer and `jti` together."""
    other = Issuer("https://other.example", key=Key(), typ=world.idp.typ, claims=world.idp.extra)
    other.trust(world.rules, "mcp", options=PEOPLE)
    assert world.present(world.idp.assertion(jti="one")).status_int == 200
    assert world.present(other.assertion(jti="one")).status_int == 200


@pytest.mark.parametrize("url", ["sqlite_url", "postgresql_url"])
def test_of_simultaneous_requests_one_is_served(url: str, request: pytest.FixtureRequest) -> None:
    """JAG-12, R-07: on real databases; and a person who is new is stored once."""
    server = Server(request.getfixturevalue(url), SETTING)
    client = server.add_client(client_id="agent", grant_types=(GRANT_TYPE,), scopes=("files.read",))
    idp = Issuer(
        typ="oauth-id-jag+jwt", claims={"client_id": "agent", "resource": FILES, "scope": "files.read"}
    )
    idp.trust(server, "mcp", options={"create_users": True})
    text = idp.assertion(sub="00u1")

    def send(text: str) -> int:
        return int(idp.present(server, client, text).status_int)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(send, [text] * 4)) == [200, 400, 400, 400]
        fresh = [idp.assertion(sub="00u2") for _ in range(4)]
        assert list(pool.map(send, fresh)) == [200] * 4
    assert len(server.rows("users")) == 2
    assert len(server.events("user.added")) == 2
    server.close()


# ---- Keys of the client -------------------------------------------------------------------------------


def test_an_assertion_that_is_bound_to_a_key_needs_that_key(world: World) -> None:
    """JAG-09: with another proof or none it is `invalid_grant`, and is not used up."""
    thumbprint = PROOF_KEY.thumbprint()
    text = world.idp.assertion(cnf={"jkt": thumbprint})
    world.refused(world.present(text), "key-differs")

    def proven(key: Any) -> Answer:
        form = {"grant_type": GRANT_TYPE, "assertion": text}
        return world.rules.ask("/oauth/token", *world.client, headers={"dpop": proof(key)}, **form)

    world.refused(proven(OTHER), "key-differs")
    answer = proven(PROOF_KEY)
    assert (answer.status_int, answer.json["token_type"]) == (200, "DPoP")
    told = world.rules.introspect(*world.client, answer.json["access_token"]).json
    assert told["cnf"] == {"jkt": thumbprint}


def test_a_key_that_nothing_here_can_prove_is_refused(world: World) -> None:
    """JAG-09, T168: a confirmation that is not understood is not ignored."""
    for confirmation in ({"x5t#S256": "abc"}, {"jkt": PROOF_KEY.thumbprint(), "kid": "7"}):
        text = world.idp.assertion(cnf=confirmation)
        form = {"grant_type": GRANT_TYPE, "assertion": text}
        answer = world.rules.ask("/oauth/token", *world.client, headers={"dpop": proof(PROOF_KEY)}, **form)
        world.refused(answer, "key-differs")


# ---- People -------------------------------------------------------------------------------------------


def test_nobody_becomes_a_user_unless_the_entry_says_so() -> None:
    """JAG-18, T165: off as shipped; a mail address or name of the assertion leads to nobody (CVE-2026-53516)."""
    world = World(options={"subjects": {"00u9": "ann"}})
    text = world.idp.assertion(sub="00u1", email="ann@example.com", preferred_username="ann", name="ann")
    world.refused(world.present(text), "user-unknown")
    assert len(world.rules.rows("users")) == 1
    assert world.present(world.idp.assertion(sub="00u9")).status_int == 200
    world.refused(world.present(world.idp.assertion(sub="ann")), "user-unknown")


def test_a_user_is_made_on_first_sight_of_issuer_tenant_and_subject() -> None:
    """JAG-06, JAG-18: the same person again is the same user; another tenant or issuer is another person."""
    world = World(options={"create_users": True, "tenants": ["acme", "umbrella"]})
    other = Issuer("https://other.example", key=Key(), typ=world.idp.typ, claims=world.idp.extra)
    other.trust(world.rules, "mcp", options={"create_users": True})
    people = []
    for issuer, tenant in (
        (world.idp, "acme"),
        (world.idp, "umbrella"),
        (other, ABSENT),
        (world.idp, "acme"),
    ):
        text = issuer.assertion(sub="ann", tenant=tenant, email="ann@example.com")
        assert world.present(text).status_int == 200
        people.append(world.granted()["user_id"])
    assert len({*people}) == 3
    assert people[0] == people[3]
    assert world.ann.user_id not in people, "somebody of that user name is somebody else"
    made = world.rules.stores.tables.users[people[0]]
    assert made.password_hash is None
    assert "ann@example.com" not in str(made)
    joined = world.rules.rows("identities")
    assert {(each["issuer"], each["subject"], each["user_id"]) for each in joined} == {
        (IDP, "acme\nann", people[0]),
        (IDP, "umbrella\nann", people[1]),
        ("https://other.example", "ann", people[2]),
    }
    assert len(world.rules.events("user.added")) == 4  # ann, and these three
    assert world.rules.events("identity.joined")[-1]["details"] == {"issuer": "https://other.example"}


def test_a_refusal_makes_no_user() -> None:
    """JAG-18: what is refused leaves nobody behind, nor names somebody whom there is not."""
    world = World(options={"create_users": True})
    answer = world.present(world.idp.assertion(sub="00u1", resource=RESOURCE, scope="admin"))
    assert_refused(answer, "invalid_scope")
    assert len(world.rules.rows("users")) == 1
    assert world.rules.events("token.refused")[-1]["user_id"] is None


def test_whoever_has_only_the_name_is_somebody_else() -> None:
    """T165: an identity that is taken from a person, or a name that was given to another before, lets nobody in."""
    world = World(options={"create_users": True})
    assert world.present(world.idp.assertion(sub="00u1")).status_int == 200
    (joined,) = world.rules.rows("identities")
    with world.rules.begin() as engine:
        made = engine.stores.users.find(joined["user_id"])
        assert made is not None
        assert remove(engine, made, IDP, "00u1")
    world.refused(world.present(world.idp.assertion(sub="00u1")), "user-unknown")
    assert world.rules.rows("identities") == []
    assert len(world.rules.rows("users")) == 2


def test_a_person_whom_another_request_stores_meanwhile_is_that_person(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-07: between the look for the identity and the look for the user name."""
    world = World(options={"create_users": True})
    kind = type(world.rules.stores.identities)
    find, looked = kind.find, []

    def slow(self: Any, issuer: str, subject: str) -> Any:
        found = find(self, issuer, subject)
        if not looked:
            looked.append(subject)
            assert world.present(world.idp.assertion(sub="00u1")).status_int == 200
        return found

    monkeypatch.setattr(kind, "find", slow)
    assert world.present(world.idp.assertion(sub="00u1")).status_int == 200
    assert len({grant["user_id"] for grant in world.rules.rows("grants")}) == 1
    assert len(world.rules.rows("users")) == 2


@pytest.mark.parametrize("subject", ["x" * 256, "a\nb", "a\u200bb"])
def test_a_subject_that_cannot_be_kept_is_nobody(subject: str) -> None:
    """JAG-18, T165: `acme` and `00u1` together can never be another tenant's."""
    world = World(options={"create_users": True})
    world.refused(world.present(world.idp.assertion(sub=subject)), "user-unknown")


def test_tenants_are_those_of_the_entry(world: World) -> None:
    """JAG-06: another tenant of the same issuer is another company."""
    world.options(tenants=["acme"], subjects={"acme 00u1": "ann"}, usernames=False)
    assert world.present(world.idp.assertion(sub="00u1", tenant="acme")).status_int == 200
    assert world.rules.events("token.issued")[-1]["details"]["tenant"] == "acme"
    for tenant in ("umbrella", ABSENT, "", "ACME", ["acme"]):
        text = world.idp.assertion(sub="00u1", tenant=tenant)
        world.refused(world.present(text), "assertion-tenant")


# ---- Whoever is disabled ------------------------------------------------------------------------------


def test_a_disabled_user_client_or_issuer_ends_what_was_issued_and_gets_nothing(world: World) -> None:
    """JAG-17, R-09, T164: a client 401, the others 400; and each token says so at its next check (CVE-2026-1609)."""

    def token() -> str:
        return str(world.present().json["access_token"])

    api = world.rules.add_client(client_id="files-api")
    of_user, of_client, of_issuer = token(), token(), token()
    with world.rules.begin() as engine:
        assert disable_user(engine, "ann")
    world.refused(world.present(), "user-disabled")
    assert not is_active(world.rules.introspect(*api, of_user))
    world = World()
    api = world.rules.add_client(client_id="files-api")
    of_issuer = token()
    assert is_active(world.rules.introspect(*api, of_issuer))
    world.idp.disable(world.rules)
    world.refused(world.present(), "issuer-disabled")
    assert not is_active(world.rules.introspect(*api, of_issuer))
    world.idp.enable(world.rules)
    of_client = token()
    assert is_active(world.rules.introspect(*api, of_client))
    with world.rules.begin() as engine:
        assert engine.stores.clients.disable("agent", engine.now)
    world.refused(world.present(), "client-disabled", "invalid_client", 401)
    assert not is_active(world.rules.introspect(*api, of_client))


# ---- How the person signed in -------------------------------------------------------------------------


def test_how_and_when_the_person_signed_in_is_carried_into_the_token(world: World) -> None:
    """JAG-21: `acr`, `amr` and `auth_time` of the assertion."""
    at = int(time.time()) - 100
    text = world.idp.assertion(acr="urn:mfa", amr=["pwd", "otp"], auth_time=at)
    token = world.present(text).json["access_token"]
    details = world.granted()["details"]
    assert (details["acr"], details["amr"], details["auth_time"]) == ("urn:mfa", ["pwd", "otp"], at)
    told = world.rules.introspect(*world.client, token).json
    assert (told["acr"], told["auth_time"]) == ("urn:mfa", at)


@pytest.mark.parametrize("code", ["insufficient_user_authentication", "invalid_grant"])
def test_a_sign_in_that_is_too_weak_or_too_old_is_refused(world: World, code: str) -> None:
    """JAG-21: with the error that the entry says."""
    world.options(levels=["urn:mfa"], maximum_age=600, weak_sign_in=code)
    now = int(time.time())
    right = {"acr": "urn:mfa", "auth_time": now - 60}
    for changes, reason in (
        ({"acr": "urn:pwd"}, "issuer-sign-in-too-weak"),
        ({"acr": ABSENT}, "issuer-sign-in-too-weak"),
        ({"auth_time": now - 700}, "issuer-sign-in-too-old"),
        ({"auth_time": ABSENT}, "issuer-sign-in-too-old"),
    ):
        world.refused(world.present(world.idp.assertion(**right | changes)), reason, code)
    assert world.present(world.idp.assertion(**right)).status_int == 200


# ---- One kind of token in place of another ------------------------------------------------------------


def test_an_assertion_is_of_no_use_anywhere_else(world: World) -> None:
    """JAG-20, RFC 8725, 3.12: as a subject token, as the assertion of a client, and as an access token."""
    text = world.idp.assertion()
    exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
    service = world.rules.add_client(client_id="service", grant_types=(exchange,))
    for kind in ("access_token", "id_token", "id-jag", "jwt"):
        answer = world.rules.token(
            *service,
            grant_type=exchange,
            subject_token=text,
            subject_token_type=f"urn:ietf:params:oauth:token-type:{kind}",
        )
        assert_refused(answer, "invalid_request")
    key = Key()
    client = key.client(world.rules, client_id="signs")
    disguised = key.signed(
        key.header(typ="oauth-id-jag+jwt"), key.claims("signs") | {"client_id": "signs", "resource": FILES}
    )
    answer = key.ask(world.rules, client, text=disguised, grant_type="client_credentials")
    world.refused(answer, "client-assertion-type", "invalid_client", 401)
    assert not is_active(world.rules.introspect(*world.client, text))
    assert world.rules.rows("grants") == []


def test_as_a_bearer_token_it_is_refused(sqlite_url: str) -> None:
    """JAG-20: at the endpoint that takes access tokens."""
    server = Server(sqlite_url, SETTING)
    text = Issuer(typ="oauth-id-jag+jwt").assertion(scope="openid", client_id="agent")
    answer = server.http.get(
        "/oauth/userinfo", headers={"Authorization": f"Bearer {text}"}, expect_errors=True
    )
    assert answer.status_int == 401
    server.close()


def test_what_this_server_signed_is_no_assertion(world: World) -> None:
    """JAG-11, JAG-20: an access token of ours, and an assertion that somebody had us sign, with our keys trusted or not."""
    sign = world.rules.parts.signer.sign
    own = sign(world.idp.claims(iss=ISSUER), typ="oauth-id-jag+jwt")
    world.refused(world.present(own), "assertion-issuer-not-trusted")
    ours = Issuer("https://copied.example", typ=world.idp.typ, claims=world.idp.extra)
    ours.trust(world.rules, "mcp", options=PEOPLE, jwks=json.dumps(dict(world.rules.parts.signer.jwks())))
    disguised = sign(ours.claims(), typ="oauth-id-jag+jwt")
    world.refused(world.present(disguised), "assertion-key-unknown")


def test_another_issuers_or_expired_or_early_assertion_is_refused(world: World) -> None:
    """JAG-01, JAG-16: each pairing of issuers and keys, and of times."""
    other = Issuer("https://other.example", key=Key(), typ=world.idp.typ, claims=world.idp.extra)
    other.trust(world.rules, "mcp", options=PEOPLE, clients=("agent",), resources=(NOTES,))
    world.refused(world.present(world.idp.assertion(key=other.key)), "assertion-signature")
    world.refused(world.present(other.assertion(key=world.idp.key)), "assertion-signature")
    world.refused(world.present(other.assertion()), "issuer-resource-not-allowed")
    now = int(time.time())
    for changes, reason in (
        ({"exp": now - 31}, "assertion-expired"),
        ({"iat": now + 60}, "assertion-not-yet-valid"),
        ({"nbf": now + 60}, "assertion-not-yet-valid"),
        ({"exp": now + 400}, "assertion-lives-too-long"),
    ):
        world.refused(world.present(world.idp.assertion(**changes)), reason)


def test_an_entry_lets_somebody_in_and_knows_its_options(world: World) -> None:
    """JAG-16, T058"""
    for options, told in (
        ({}, "it would accept nobody"),
        ({"create_user": True}, "did you mean create_users"),
        ({"usernames": "yes"}, "usernames"),
        (PEOPLE | {"maximum_age": -1}, "maximum_age"),
        (PEOPLE | {"weak_sign_in": "access_denied"}, "weak_sign_in"),
    ):
        with pytest.raises(BadIssuer, match=told):
            world.idp.edit(world.rules, options=options)


# ---- Clients that are known by their address ----------------------------------------------------------


HOST = "agent.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Documents(World):
    """A client whose id is the address of a document, which was never here before."""

    def __init__(self, origin: Origin, authority: Authority, **document: Any) -> None:
        super().__init__()
        self.rules = Rules(
            SETTING
            | {
                "authserver.plugins": f"client_id_documents {SETTING['authserver.plugins']}",
                "authserver.plugin.client_id_documents.scopes": "files.read",
                "authserver.plugin.client_id_documents.grant_types": GRANT_TYPE,
            }
        )
        limits = Limits(reach=Reach(loopback=True), ca_file=str(authority.ca_file))
        fetcher = Fetcher(limits, resolve=resolving({HOST: ["127.0.0.1"]}))
        self.rules.parts = replace(self.rules.parts, fetcher=fetcher)
        self.rules.add_user("ann")
        self.address = f"https://{HOST}:{origin.port}/client.json"
        self.idp.extra |= {"client_id": self.address, "scope": "files.read"}
        self.idp.trust(self.rules, "mcp", options=PEOPLE)
        members = {
            "client_id": self.address,
            "client_name": "Agent",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": [GRANT_TYPE],
            "token_endpoint_auth_method": "none",
            **document,
        }
        origin.reply = sending(json.dumps(members).encode())

    def ask(self, **form: Any) -> Answer:
        sent = {"grant_type": GRANT_TYPE, "assertion": self.idp.assertion(), "client_id": self.address}
        return self.rules.post("/oauth/token", urlencode(sent | form))


@pytest.fixture
def origin(authority: Authority) -> Iterator[Origin]:
    with serving(authority.context(HOST)) as origin:
        yield origin


def test_a_client_of_a_document_that_does_not_authenticate_is_let_in_by_the_entry_alone(
    origin: Origin, authority: Authority
) -> None:
    """JAG-04, JAG-15: off as it is shipped; then also one that was never here before."""
    world = Documents(origin, authority)
    world.refused(world.ask(), "public-client", "unauthorized_client")
    world.options(public_clients=True)
    answer = world.ask()
    assert answer.status_int == 200, answer
    assert world.granted()["client_id"] == world.address
    assert answer.json["scope"] == "files.read"
    another = world.idp.assertion(client_id=f"{world.address}x")
    world.refused(world.ask(assertion=another), "assertion-client-differs")


def test_a_client_of_a_document_with_keys_authenticates_as_its_document_says(
    origin: Origin, authority: Authority
) -> None:
    """JAG-15: by `private_key_jwt`, when it comes for the first time; without its key it gets nothing."""
    key = Key()
    world = Documents(origin, authority, token_endpoint_auth_method="private_key_jwt", jwks=key.jwks())
    proof = {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": key.assertion(world.address),
    }
    assert world.ask(**proof).status_int == 200
    assert world.granted()["client_id"] == world.address
    forged = {**proof, "client_assertion": Key().assertion(world.address)}
    world.refused(world.ask(**forged), "client-assertion-signature", "invalid_client", 401)
    world.options(public_clients=True)
    assert_refused(world.ask(), "invalid_client", status=401)


def test_an_entry_that_names_clients_lets_no_other_document_in(origin: Origin, authority: Authority) -> None:
    """JAG-15, JAG-16: their addresses are named like other clients."""
    world = Documents(origin, authority)
    world.options(public_clients=True)
    world.idp.edit(world.rules, clients=("https://other.example/client.json",))
    world.refused(world.ask(), "issuer-client-not-allowed")
    world.idp.edit(world.rules, clients=(world.address,))
    assert world.ask().status_int == 200
