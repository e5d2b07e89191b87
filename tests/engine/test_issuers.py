"""The entries of trusted issuers: each member of one is held, nothing is true of another, and whoever is disabled ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from authserver.api import AssertionProfile, Client, Engine, TrustedIssuer, Vouched, hookimpl
from authserver.background import KeysAhead
from authserver.engine import issuer_registry, issuers
from authserver.engine.ending import Act, Subject, end, plan
from authserver.engine.issuers import BadIssuer
from authserver.engine.ports import StorageUnavailable
from authserver.engine.setting_records import DeclaredKind
from authserver.fetching.addresses import Reach
from authserver.fetching.fetcher import Fetcher, Limits
from authserver.settings import SettingsError
from authserver.testing.origins import Authority, Origin, sending, serving
from authserver.testing.rules import Answer, Rules, assert_refused, is_active
from authserver.testing.server import ISSUER, RESOURCE, SETTINGS, with_plugin
from tests.client_keys import ABSENT, Key
from tests.trusted_issuers import GRANT_TYPE, IDP, Issuer

FILES = "https://files.example/"
LISTED = Key(kid="listed")


class World:
    """The rules with the plainest profile, an issuer that is trusted with it, and a client."""

    def __init__(self, **members: Any) -> None:
        keys = json.dumps(LISTED.jwks())
        self.rules = Rules(
            with_plugin("jwt_bearer", {"issuers": f"https://listed.example = {keys}"})
            | {"authserver.access_token_format": "opaque"}
        )
        self.rules.add_user("ann")
        self.client = self.rules.add_client(grant_types=(GRANT_TYPE,))
        self.idp = Issuer()
        self.idp.trust(self.rules, **members)

    def present(self, text: str | None = None, **form: Any) -> Answer:
        return self.idp.present(self.rules, self.client, text or self.idp.assertion(), **form)

    def refused(self, answer: Answer, reason: str, error: str = "invalid_grant") -> None:
        assert_refused(answer, error)
        event = self.rules.events("token.refused")[-1]
        assert event["reason"] == reason


@pytest.fixture
def world() -> World:
    return World()


# ---- What an entry says -------------------------------------------------------------------------------


def test_an_issuer_of_the_database_vouches_for_people(world: World) -> None:
    """JAG-16, JAG-19: its entry is found by `iss`; the event has issuer, `jti`, a digest of `sub`, client and result."""
    text = world.idp.assertion(jti="a-jti")
    answer = world.present(text)
    assert answer.status_int == 200, answer
    (grant,) = world.rules.rows("grants")
    assert grant["details"]["vouched_by"] == IDP
    event = world.rules.events("token.issued")[-1]
    details = event["details"]
    assert (details["issuer"], details["jti"], event["client_id"]) == (
        IDP,
        "a-jti",
        world.client[0].client_id,
    )
    assert len(details["subject"]) == 32
    assert "ann" not in json.dumps(details)
    assert text not in str(world.rules.stores.tables.events)


def test_a_refusal_says_to_operators_which_assertion_it_was_and_repeats_none(world: World) -> None:
    """JAG-19"""
    text = world.idp.assertion(sub="mallory@example.com", jti="their-jti")
    world.refused(world.present(text), "user-unknown")
    facts = world.rules.events("token.refused")[-1]["details"]["facts"]
    assert facts.keys() == {"issuer", "profile", "jti", "subject"}
    assert (facts["issuer"], facts["jti"]) == (IDP, "their-jti")
    stored = str(world.rules.stores.tables.events)
    assert "mallory" not in stored
    assert text not in stored
    assert text.split(".")[2] not in stored


def test_who_is_not_trusted_is_refused(world: World) -> None:
    """JAG-01, JAG-06"""
    stranger = Issuer("https://stranger.example")
    world.refused(world.present(stranger.assertion()), "assertion-issuer-not-trusted")
    world.refused(world.present(world.idp.assertion(iss=7)), "assertion-issuer-not-trusted")
    world.refused(world.present(world.idp.assertion(iss="x" * 3000)), "assertion-issuer-not-trusted")
    world.refused(world.present(world.idp.assertion(iss=ISSUER)), "assertion-issuer-not-trusted")


def test_each_issuer_signs_with_its_own_keys_alone(world: World) -> None:
    """JAG-16, T058: nobody speaks for another, whatever the names of the keys are."""
    other = Issuer("https://other.example", key=Key())
    other.trust(world.rules)
    assert world.present(other.assertion()).status_int == 200
    world.refused(world.present(world.idp.assertion(iss=other.name)), "assertion-signature")
    world.refused(world.present(other.assertion(iss=IDP)), "assertion-signature")


@pytest.mark.parametrize(
    ("members", "changes", "reason"),
    [
        ({"algorithms": ("RS256",)}, {}, "assertion-algorithm"),
        ({"lifetime": 60}, {"exp": 120}, "assertion-lives-too-long"),
        ({"lifetime": 60, "skew": 0}, {"exp": 62}, "assertion-lives-too-long"),
        ({"skew": 0}, {"exp": -1}, "assertion-expired"),
        ({"skew": 0}, {"iat": 5}, "assertion-not-yet-valid"),
        ({"skew": 120}, {"exp": -130}, "assertion-expired"),
        ({}, {"exp": 400}, "assertion-lives-too-long"),
    ],
)
def test_algorithms_times_and_clocks_are_those_of_the_entry(
    members: dict[str, Any], changes: dict[str, int], reason: str
) -> None:
    """JAG-16: and so the same assertion of an issuer with another entry is accepted."""
    world, now = World(**members), int(time.time())
    text = world.idp.assertion(**{name: now + seconds for name, seconds in changes.items()})
    world.refused(world.present(text), reason)
    world.idp.edit(
        world.rules, algorithms=("ES256",), lifetime=3600, skew=300, clients=(world.client[0].client_id,)
    )
    assert world.present(text).status_int == 200


def test_only_the_clients_of_the_entry_may_present_its_assertions(world: World) -> None:
    """JAG-16"""
    other = world.rules.add_client(grant_types=(GRANT_TYPE,))
    world.idp.edit(world.rules, clients=(other[0].client_id,))
    world.refused(world.present(), "issuer-client-not-allowed")
    assert world.idp.present(world.rules, other, world.idp.assertion()).status_int == 200


def test_scopes_and_resources_of_the_entry_are_a_ceiling(world: World) -> None:
    """JAG-16, JAG-07, T163: whatever client and policies would allow; the default resource is that of the entry."""
    world.idp.edit(world.rules, scopes=("files.read",), resources=(FILES,), default_resource=FILES)
    answer = world.present(scope="files.read profile")
    assert answer.json["scope"] == "files.read"
    (grant,) = world.rules.rows("grants")
    assert (grant["scopes"], grant["resources"]) == (("files.read",), (FILES,))
    world.refused(
        world.present(scope="files.read", resource=RESOURCE), "issuer-resource-not-allowed", "invalid_target"
    )
    world.idp.edit(world.rules, resources=None, default_resource="")
    world.refused(world.present(scope="profile"), "issuer-scope-not-allowed", "invalid_scope")
    world.idp.edit(world.rules, scopes=None, resources=(FILES,))
    world.refused(world.present(scope="profile"), "issuer-resource-not-allowed", "invalid_target")


def test_nothing_is_inherited_from_another_entry(world: World) -> None:
    """JAG-16: what is not said of an issuer has its default, whatever is said of others."""
    world.idp.edit(world.rules, scopes=("files.read",), resources=(FILES,), default_resource=FILES)
    Issuer("https://other.example", key=Key()).trust(world.rules)
    with world.rules.begin() as engine:
        other = issuer_registry.find(engine, "https://other.example")
    assert other is not None
    assert (other.lifetime, other.skew, other.clients, other.resources, other.scopes) == (
        300,
        30,
        None,
        None,
        None,
    )


def test_what_the_ini_says_counts(world: World) -> None:
    """JAG-16: an issuer of the INI is not looked up in the database, and cannot be added to it."""
    listed = Issuer("https://listed.example", key=LISTED)
    assert world.present(listed.assertion()).status_int == 200
    with pytest.raises(BadIssuer, match="the INI names it"):
        listed.trust(world.rules)
    with world.rules.begin() as engine:
        stored = issuer_registry.as_setting(Issuer(listed.name, key=Key()).entry(), engine.now)
        engine.stores.stored_settings.keep(stored)
        assert [each.issuer for each in issuer_registry.all_issuers(engine)] == [listed.name, IDP]
    assert world.present(listed.assertion()).status_int == 200


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"issuer": ""}, "is the `iss` of its assertions"),
        ({"issuer": "https://idp.example/\n"}, "is the `iss` of its assertions"),
        ({"issuer": "x" * 2049}, "is the `iss` of its assertions"),
        ({"issuer": ISSUER}, "nothing that it signed itself"),
        ({"profile": "jwt_baerer"}, "no plugin here has this profile; did you mean jwt_bearer"),
        ({"jwks": "{}", "jwks_uri": "https://idp.example/jwks"}, "its keys, or the https address"),
        ({"jwks": ""}, "its keys, or the https address"),
        ({"jwks": "", "jwks_uri": "http://idp.example/jwks"}, "It must be a complete https URI"),
        ({"jwks": '{"keys": []}'}, "holds no signature key"),
        ({"jwks": "nonsense"}, "its keys cannot be used"),
        ({"algorithms": ()}, "it signs with some of"),
        ({"algorithms": ("HS256",)}, "it signs with some of"),
        ({"lifetime": 9}, "lives 10 to 86400 seconds"),
        ({"lifetime": 86_401}, "lives 10 to 86400 seconds"),
        ({"skew": 301}, "may differ by 0 to 300 seconds"),
        ({"clients": ()}, "without any clients"),
        ({"clients": ("nobody",)}, "nobody: no such client"),
        ({"scopes": ("file.read",)}, "file.read: no such scope; did you mean files.read"),
        ({"resources": ("https://nowhere.example/",)}, "no such resource"),
        ({"resources": ("nowhere",)}, "expected an absolute URI"),
        ({"default_resource": "https://nowhere.example/"}, "no such resource"),
        ({"resources": (FILES,), "default_resource": RESOURCE}, "not among the resources of this issuer"),
        (
            {"options": {"subjcet": "username"}},
            "no such option of the profile jwt_bearer; did you mean subject",
        ),
        ({"options": {"subject": "email"}}, "subject: Invalid enum value"),
        ({"options": {"subject": "listed"}}, "neither works without the other"),
        ({"options": {"subjects": {"a": 1}}}, "subjects"),
        ({"options": {"single_use": "x" * 20_000}}, "JSON of up to 16384 bytes"),
    ],
)
def test_what_cannot_be_meant_is_not_kept(world: World, members: dict[str, Any], told: str) -> None:
    """JAG-16, T058"""
    new = {"issuer": "https://new.example", **members}
    before = world.rules.stores.tables.copy()
    with pytest.raises(BadIssuer, match=told), world.rules.begin() as engine:
        issuers.add(engine, world.idp.entry(**new))
    assert world.rules.stores.tables == before


def test_an_issuer_is_trusted_once(world: World) -> None:
    """JAG-16: a token can never match the entries of two issuers."""
    with pytest.raises(BadIssuer, match="it is trusted already"):
        world.idp.trust(world.rules, scopes=("profile",))


def test_a_change_that_somebody_else_made_meanwhile_is_not_lost(world: World) -> None:
    with world.rules.begin() as engine:
        before = issuer_registry.find(engine, IDP)
    assert before is not None
    world.idp.edit(world.rules, lifetime=60)
    with pytest.raises(BadIssuer, match="changed or removed meanwhile"), world.rules.begin() as engine:
        issuers.change(engine, before, replace(before, lifetime=600))


def test_events_say_what_it_was_and_is_without_keys_and_people(world: World) -> None:
    """R-12: before and after; a table that may name people only by how long it is."""
    world.idp.edit(
        world.rules,
        lifetime=60,
        jwks=json.dumps(Key(kid="next").jwks()),
        options={"subject": "listed", "subjects": {"00u1": "ann"}},
    )
    added, changed = world.rules.events("issuer.added")[0], world.rules.events("issuer.changed")[0]
    assert added["details"]["keys"] == ["one"]
    told = changed["details"]["changed"]
    assert told["lifetime"] == {"from": 300, "to": 60}
    assert told["keys"] == {"from": ["one"], "to": ["next"]}
    assert told["options"]["to"]["subjects"].startswith("1 entry (")
    assert told.keys() == {"lifetime", "keys", "options"}
    assert "ann" not in str(changed["details"])


# ---- Disabled, enabled, removed -----------------------------------------------------------------------


def test_a_disabled_issuer_lets_nobody_in_and_all_that_came_of_it_ends(world: World) -> None:
    """JAG-17, L-08, T164: at once (CVE-2026-1486); and enabling it lets new assertions in, and brings nothing back."""
    token = world.present().json["access_token"]
    other = Issuer("https://other.example", key=Key())
    other.trust(world.rules)
    untouched = world.present(other.assertion()).json["access_token"]
    assert is_active(world.rules.introspect(*world.client, token))
    world.idp.disable(world.rules)
    world.refused(world.present(), "issuer-disabled")
    assert not is_active(world.rules.introspect(*world.client, token))
    assert is_active(world.rules.introspect(*world.client, untouched))
    event = world.rules.events("issuer.disabled")[-1]
    assert event["details"]["issuer"] == IDP
    world.idp.enable(world.rules)
    assert world.present().status_int == 200
    assert not is_active(world.rules.introspect(*world.client, token))
    assert world.rules.events("issuer.enabled")[-1]["details"]["changed"] == {
        "is_enabled": {"from": False, "to": True}
    }


@pytest.mark.parametrize("form", ["opaque", "jwt"])
def test_tokens_of_a_disabled_issuer_are_dead_before_each_of_them_has_ended(form: str) -> None:
    """JAG-17, T164: while the work goes on batch after batch, or was interrupted, their next check says so."""
    world = World()
    world.rules.parts = replace(
        world.rules.parts, settings=replace(world.rules.parts.settings, access_token_format=form)
    )
    token = world.present().json["access_token"]
    assert is_active(world.rules.introspect(*world.client, token))
    world.idp.disable(world.rules, at_once=True)
    (grant,) = world.rules.rows("grants")
    assert grant["revoked_at"] is None, "the work was interrupted"
    assert not is_active(world.rules.introspect(*world.client, token))


def test_what_is_issued_at_the_moment_of_disabling_is_not_issued(world: World) -> None:
    """T164: the entry is looked at again when the grant is stored, in the same transaction."""
    redeem = world.rules.parts.grant_types[GRANT_TYPE]

    def slowly(*arguments: Any) -> Any:
        order = redeem(*arguments)
        world.idp.disable(world.rules)
        return order

    types = {**world.rules.parts.grant_types, GRANT_TYPE: slowly}
    world.rules.parts = replace(world.rules.parts, grant_types=types)
    world.refused(world.present(), "issuer-disabled")
    assert world.rules.rows("grants") == []


def test_disabling_is_counted_first_and_safe_to_repeat(world: World) -> None:
    """L-08"""
    world.present()
    act = Act(subject=Subject.issuer(IDP), for_good=True)
    assert sum((each.grants for each in plan(world.rules.begin, act)), 0) == 1
    assert world.present().status_int == 200, "counting changes nothing"
    assert sum((each.grants for each in end(world.rules.begin, act)), 0) == 2
    assert not any(end(world.rules.begin, act))
    assert len(world.rules.events("issuer.disabled")) == 1


def test_an_issuer_is_removed_only_when_it_is_disabled(world: World) -> None:
    with pytest.raises(BadIssuer, match="enabled meanwhile"), world.rules.begin() as engine:
        issuers.remove(engine, IDP)
    world.idp.disable(world.rules)
    with world.rules.begin() as engine:
        assert issuers.remove(engine, IDP)
        assert not issuers.remove(engine, IDP)
        assert engine.stores.stored_settings.find(DeclaredKind.ISSUER, IDP) is None
    world.refused(world.present(), "assertion-issuer-not-trusted")
    assert world.rules.events("issuer.removed")[-1]["details"]["profile"] == "jwt_bearer"


def test_a_profile_whose_plugin_is_gone_lets_nobody_in(world: World) -> None:
    """T058: an entry without its profile is not read in another way."""
    with world.rules.begin() as engine:
        setting = issuer_registry.as_setting(replace(world.idp.entry(), profile="gone"), engine.now)
        engine.stores.stored_settings.keep(setting)
    world.refused(world.present(), "issuer-profile-unknown")


def test_an_entry_that_was_written_by_hand_fails_nobody_with_a_fault(world: World) -> None:
    with world.rules.begin() as engine:
        setting = issuer_registry.as_setting(replace(world.idp.entry(), jwks="nonsense"), engine.now)
        engine.stores.stored_settings.keep(setting)
    world.refused(world.present(), "issuer-keys-refused")


# ---- Profiles of plugins -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Doors:
    """A profile of its own, which does what a test wants."""

    immediate: ClassVar[bool] = True
    does: ClassVar[list[Any]] = []

    profile: str = "doors"
    trusts: str = ""

    @hookimpl
    def assertion_profiles(self) -> Mapping[str, AssertionProfile]:
        entry = Issuer(self.trusts, key=LISTED).entry(self.profile, setting="an INI")
        listed = {self.trusts: entry} if self.trusts else {}
        profile = AssertionProfile(typ="doors+jwt", accept=self.accept, check=self.check, listed=listed)
        return {self.profile: profile}

    def accept(self, engine: Engine, client: Client, issuer: TrustedIssuer, claims: Any) -> Any:
        return self.does[0](engine, claims)

    def check(self, issuer: TrustedIssuer) -> None:
        return None


@pytest.fixture
def doors() -> tuple[World, Issuer]:
    world = World()
    world.rules = Rules(with_plugin(Doors, {}))
    world.rules.add_user("ann")
    world.client = world.rules.add_client(grant_types=(GRANT_TYPE,))
    issuer = Issuer(typ="doors+jwt")
    issuer.trust(world.rules, "doors")
    return world, issuer


def test_a_profile_is_one_plugin(doors: tuple[World, Issuer]) -> None:
    """It says whom an assertion is about, and what may come of it; the server holds the rest, its type first of all."""
    world, issuer = doors

    def inside(engine: Engine, claims: Any) -> Vouched:
        user = engine.stores.users.find_by_name(claims["sub"])
        return Vouched(user=user, scopes=("profile", "admin"), noted={"door": 7})

    Doors.does[:] = [inside]
    answer = world.present(issuer.assertion())
    assert answer.json["scope"] == "profile"
    assert world.rules.events("token.issued")[-1]["details"]["door"] == 7
    for typ in ("JWT", ABSENT, "at+jwt"):
        world.refused(world.present(issuer.assertion(header={"typ": typ})), "assertion-type")
    world.refused(world.present(issuer.assertion(sub="nobody")), "user-unknown")


def test_a_profile_may_be_about_the_client_itself(doors: tuple[World, Issuer]) -> None:
    """The grant is kept, though it is no person's: else nobody could end what came of an issuer (T164)."""
    world, issuer = doors
    Doors.does[:] = [
        lambda engine, claims: Vouched(user=None, of_client=True, expires_at=engine.now + timedelta(60))
    ]
    token = world.present(issuer.assertion()).json["access_token"]
    assert world.rules.claims(token)["sub"] == world.client[0].client_id
    assert is_active(world.rules.introspect(*world.client, token))
    issuer.disable(world.rules)
    assert not is_active(world.rules.introspect(*world.client, token))


@pytest.mark.parametrize("returned", [None, True, {"user": "ann"}, ValueError("secret"), KeyError("x")])
def test_a_profile_that_fails_issues_nothing(doors: tuple[World, Issuer], returned: Any) -> None:
    """R-14"""
    world, issuer = doors

    def fails(engine: Engine, claims: Any) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    Doors.does[:] = [fails]
    assert_refused(world.present(issuer.assertion()), "server_error", status=500)
    assert world.rules.rows("grants") == []


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"profile": "doors"}, {"profile": "doors"}, "profile of assertions doors"),
        (
            {"profile": "one", "trusts": IDP},
            {"profile": "two", "trusts": IDP},
            "it is listed for one and for two",
        ),
    ],
)
def test_two_plugins_cannot_mean_the_same(first: dict[str, str], second: dict[str, str], told: str) -> None:
    """JAG-16, at start: one profile of a name, and one entry for an issuer."""
    settings = dict(with_plugin(Doors, {}))
    name = next(key for key in (settings["authserver.plugins"] or "").split() if key.endswith(":Doors"))
    settings["authserver.plugins"] = f"{name}\n{__name__}:OtherDoors\n" + str(SETTINGS["authserver.plugins"])
    settings |= {f"authserver.plugin.doors.{field}": text for field, text in first.items()}
    settings |= {f"authserver.plugin.other_doors.{field}": text for field, text in second.items()}
    with pytest.raises(SettingsError, match=told):
        Rules(settings)


@dataclass(frozen=True)
class OtherDoors(Doors):
    """Another plugin of the same."""


# ---- Keys at an address -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


class Published(World):
    """An issuer that publishes its keys at an https address."""

    def __init__(self, origin: Origin, authority: Authority) -> None:
        self.origin = origin
        super().__init__(jwks_uri=f"https://127.0.0.1:{origin.port}/jwks")
        self.now = 0.0
        limits = Limits(reach=Reach(loopback=True), ca_file=str(authority.ca_file))
        self.rules.parts = replace(self.rules.parts, fetcher=Fetcher(limits, clock=lambda: self.now))
        self.publish(self.idp.key)

    def publish(self, *keys: Key) -> None:
        body = json.dumps({"keys": [key.jwk() for key in keys]}).encode()
        self.origin.reply = sending(body, Content_Type="application/jwk-set+json")


@pytest.fixture
def published(authority: Authority) -> Iterator[Published]:
    with serving(authority.context("127.0.0.1")) as origin:
        yield Published(origin, authority)


def test_keys_are_fetched_once_and_a_new_one_is_found(published: Published) -> None:
    """JAG-16, R-13: nothing is fetched for who is not trusted, and not more than once a minute for a key that there is not."""
    stranger = Issuer("https://stranger.example")
    published.refused(published.present(stranger.assertion()), "assertion-issuer-not-trusted")
    assert len(published.origin.received) == 0
    assert [published.present().status_int for _ in range(3)] == [200, 200, 200]
    assert len(published.origin.received) == 1
    new = Key("EdDSA", kid="new")
    published.publish(published.idp.key, new)
    text = published.idp.assertion(key=new)
    published.refused(published.present(text), "assertion-key-unknown")
    published.now += 61
    assert published.present(text).status_int == 200
    for _ in range(5):
        nobodys = published.idp.assertion(key=Key(kid="nobody"))
        published.refused(published.present(nobodys), "assertion-key-unknown")
    assert len(published.origin.received) == 2


def test_a_key_that_is_withdrawn_stops_working_within_the_hour(published: Published) -> None:
    """JAG-16, R-13"""
    assert published.present().status_int == 200
    new = Key("EdDSA", kid="new")
    published.publish(new)
    published.now += 3601
    published.refused(published.present(), "assertion-key-unknown")
    assert published.present(published.idp.assertion(key=new)).status_int == 200


def test_an_outage_is_bridged_for_a_day_and_then_said_to_be_one(published: Published) -> None:
    """R-13, F-14: 503 with `Retry-After`; what cannot be a key set is refused, and nothing is issued."""
    assert published.present().status_int == 200
    published.origin.reply = sending(status=503, Retry_After="7")
    published.now += 3600
    assert published.present().status_int == 200
    published.now += 86_400
    answer = published.present()
    assert_refused(answer, "temporarily_unavailable", status=503)
    assert answer.refusal is not None
    assert answer.refusal.retry_after > 0
    assert published.rules.events("token.refused")[-1]["reason"] == "issuer-keys-unreachable"
    published.origin.reply = sending(b"nonsense")
    published.now += 86_400
    published.refused(published.present(), "issuer-keys-refused")


class Watched(Published):
    """The same, whose keys a server process fetches before they are needed."""

    def __init__(self, origin: Origin, authority: Authority) -> None:
        super().__init__(origin, authority)
        self.keys_ahead = KeysAhead(self.rules.begin)

    def publish(self, *keys: Key) -> None:
        """For a day, if that were up to it."""
        body = json.dumps({"keys": [key.jwk() for key in keys]}).encode()
        self.origin.reply = sending(body, Cache_Control="max-age=86400")

    def pass_minutes(self, minutes: int) -> None:
        """Let the process look each minute, as its thread does."""
        for _ in range(minutes):
            self.now += 60
            self.keys_ahead.work()


@pytest.fixture
def watched(authority: Authority) -> Iterator[tuple[Watched, ExitStack]]:
    """With what stops its server."""
    with ExitStack() as stack:
        yield Watched(stack.enter_context(serving(authority.context("127.0.0.1"))), authority), stack


def test_no_request_waits_for_keys(watched: tuple[Watched, ExitStack]) -> None:
    """WIF-08, JAG-16, R-13: they are fetched before the first assertion, and again before they end, once an hour."""
    world, _ = watched
    world.keys_ahead.work()
    assert len(world.origin.received) == 1
    world.pass_minutes(120)
    assert len(world.origin.received) == 3
    assert world.present().status_int == 200
    assert len(world.origin.received) == 3


def test_keys_serve_for_a_day_after_their_server_went_away(watched: tuple[Watched, ExitStack]) -> None:
    """WIF-08: nothing listens there any more, and nobody waits for that; a day after the hour they end."""
    world, stack = watched
    world.keys_ahead.work()
    stack.close()
    world.pass_minutes(24 * 60)
    assert world.present().status_int == 200
    world.pass_minutes(61)
    assert_refused(world.present(), "temporarily_unavailable", status=503)
    assert world.rules.events("token.refused")[-1]["reason"] == "issuer-keys-unreachable"


def test_a_key_that_is_withdrawn_ends_in_time_whether_or_not_its_server_answers(
    watched: tuple[Watched, ExitStack],
) -> None:
    """WIF-08: within the hour, though its assertions keep coming; a key that was lost while nobody answers, within a day."""
    world, stack = watched
    world.keys_ahead.work()
    new = Key("EdDSA", kid="new")
    world.publish(new)
    world.pass_minutes(60)
    world.refused(world.present(), "assertion-key-unknown")
    text = world.idp.assertion(key=new)
    assert world.present(text).status_int == 200
    stack.close()
    world.pass_minutes(25 * 60 + 1)
    assert_refused(world.present(world.idp.assertion(key=new)), "temporarily_unavailable", status=503)


def test_keys_of_a_disabled_issuer_are_not_fetched_and_a_failure_stops_nothing(
    watched: tuple[Watched, ExitStack], caplog: pytest.LogCaptureFixture
) -> None:
    """WIF-08, T164: of several issuers each has its turn; a database that is away is told once."""
    world, _ = watched
    world.idp.disable(world.rules)
    other = Issuer("https://other.example")
    other.trust(world.rules, jwks_uri="https://127.0.0.1:1/jwks")
    world.keys_ahead.work()
    assert len(world.origin.received) == 0
    world.idp.enable(world.rules)
    world.keys_ahead.work()
    assert len(world.origin.received) == 1
    away = KeysAhead(lambda: _away())
    for _ in range(3):
        away.work()
    assert caplog.text.count("cannot look for the keys of issuers") == 1


def _away() -> AbstractContextManager[Engine]:
    raise StorageUnavailable("it is away")
