"""What files declare is compared, brought about and taken away again (R-17), on memory stores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from authserver.engine import resources
from authserver.engine.clients.editing import ChangedMeanwhile, ClientEdit, edit
from authserver.engine.clients.initial_tokens import revoke
from authserver.engine.clients.secrets import live_secrets, matching, rotate_secret
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.declarations.apply import apply, ends_of, finish
from authserver.engine.declarations.export import export
from authserver.engine.declarations.forms import (
    DeclaredClient,
    DeclaredInitialToken,
    DeclaredIssuer,
    DeclaredLimit,
    DeclaredResource,
    Forms,
    Reference,
)
from authserver.engine.declarations.plan import Declared, Manner, Plan
from authserver.engine.declarations.planning import plan_of
from authserver.engine.errors import TooManyRequests
from authserver.engine.offered import FOLLOW_SECONDS, FollowedSettings
from authserver.engine.questions import Counted
from authserver.engine.rates import claim
from authserver.engine.records import Client
from authserver.engine.setting_records import DeclaredKind
from authserver.features.rate_limits import RateLimits
from authserver.plugins.asking import PluginSet
from authserver.settings import Secret
from authserver.testing.records import a_consent, a_grant, a_resource, a_stored_setting
from authserver.testing.rules import Rules
from authserver.testing.server import SETTINGS
from tests.client_keys import Key

SECRET = "a secret of thirty-two characters"
OTHER = "another one of thirty-two characters"
API = "https://notes.example/"
PRUNE = Manner(prune=True)


def a_form(**changes: Any) -> DeclaredClient:
    values: dict[str, Any] = {
        "client_name": "Billing",
        "redirect_uris": ("https://billing.example/cb",),
        "scopes": ("profile",),
    }
    return DeclaredClient(**values | changes)


def declared(
    clients: Mapping[str, DeclaredClient] | None = None, *, secret: str = SECRET, **kinds: Any
) -> Declared:
    """These forms; every reference to a secret leads to the same text."""
    forms = Forms(clients=clients or {}, **kinds)
    secrets = {
        ("clients", name, "secret"): Secret(secret) for name, form in forms.clients.items() if form.secret
    }
    return Declared(forms=forms, secrets=secrets)


class Applied:
    """A server to which declarations are applied."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.waited: list[float] = []
        plugins = rules.parts.policies
        assert isinstance(plugins, PluginSet)
        self.plugins = {name: plugins.plugin(name) for name in plugins.names}

    @contextmanager
    def begin(self) -> Iterator[Engine]:
        with self.rules.begin() as engine:
            yield engine

    def plan(self, what: Declared, manner: Manner | None = None) -> Plan:
        with self.begin() as engine:
            return plan_of(engine, what, manner or Manner(), plugins=self.plugins)

    def apply(self, what: Declared, manner: Manner | None = None) -> Plan:
        manner = manner or Manner()
        plan = self.plan(what, manner)
        assert not plan.problems, plan.problems
        with self.begin() as engine:
            apply(engine, what, manner, plan, plugins=self.plugins)
        for _ in finish(self.begin, plan, self.waited.append):
            pass
        return plan

    def client(self, client_id: str = "billing") -> Client:
        return self.rules.stores.tables.clients[client_id]

    def problems(self, what: Declared, manner: Manner | None = None) -> list[tuple[tuple[Any, ...], str]]:
        before = self.rules.stores.tables.copy()
        plan = self.plan(what, manner)
        assert self.rules.stores.tables == before
        return [(problem.path, problem.text) for problem in plan.problems]

    def events(self) -> list[str]:
        return [str(event.type) for event in self.rules.stores.tables.events.values()]


def few_plugins(plugins: str, settings: Mapping[str, str | None] | None = None) -> Rules:
    """A server with these plugins alone."""
    others = [key for key in SETTINGS if key.startswith("authserver.plugin.")]
    return Rules({**dict.fromkeys(others), "authserver.plugins": plugins, **(settings or {})})


@pytest.fixture
def server(rules: Rules) -> Applied:
    return Applied(rules)


def steps(plan: Plan) -> list[tuple[str, str, str]]:
    return [(str(step.action), str(step.kind), step.name) for step in plan.steps]


def test_clients_and_resources_are_made_and_twice_changes_nothing(server: Applied) -> None:
    what = declared(
        {"billing": a_form(secret=Reference(env="BILLING"), client_uri="https://billing.example/")},
        resources={API: DeclaredResource(scopes=("profile",), introspecting_clients=("billing",))},
    )
    plan = server.plan(what)
    assert steps(plan) == [("add", "clients", "billing"), ("add", "resources", API)]
    assert server.rules.stores.tables.clients == {}
    server.apply(what)
    client = server.client()
    assert (client.name, client.grant_types) == ("Billing", ("authorization_code", "refresh_token"))
    assert client.details == {"client_uri": "https://billing.example/"}
    with server.begin() as engine:
        assert matching(engine, client, "billing", SECRET)
        found = engine.stores.resources.find(API)
        assert found is not None
        assert found.introspecting_clients == ("billing",)
    before = server.rules.stores.tables.copy()
    assert server.plan(what).is_settled
    server.apply(what)
    assert server.rules.stores.tables == before


def test_a_change_by_hand_is_shown_and_set_back(server: Applied) -> None:
    what = declared({"billing": a_form()})
    server.apply(what)
    with server.begin() as engine:
        edit(engine, "billing", ClientEdit(name="Bills"))
    plan = server.plan(what)
    assert steps(plan) == [("change", "clients", "billing")]
    assert plan.steps[0].changes == {"client_name": ("Bills", "Billing")}
    server.apply(what)
    assert server.client().name == "Billing"


def test_what_changes_between_plan_and_apply_stops_it(server: Applied) -> None:
    server.apply(declared({"billing": a_form()}))
    what = declared({"a-new-one": a_form(), "billing": a_form(client_name="Invoices")})
    plan = server.plan(what)
    with server.begin() as engine:
        edit(engine, "billing", ClientEdit(name="Bills"))
    before = server.rules.stores.tables.copy()
    with (
        pytest.raises(ChangedMeanwhile, match="billing was changed by somebody else"),
        server.begin() as engine,
    ):
        apply(engine, what, Manner(), plan, plugins=server.plugins)
    assert server.rules.stores.tables == before


# ---- What cannot be


PROBLEMS: list[tuple[Declared, tuple[Any, ...], str]] = [
    (declared({"a": a_form(scopes=("profil",))}), ("clients", "a", "scopes"), "did you mean profile"),
    (
        declared({"a": a_form(grant_types=("password",))}),
        ("clients", "a", "grant_types"),
        "password: not offered here",
    ),
    (
        declared({"a": a_form(token_endpoint_auth_method="client_secret")}),
        ("clients", "a", "token_endpoint_auth_method"),
        "did you mean client_secret_",
    ),
    (declared({"a": a_form(metadata={"x": 1})}), ("clients", "a", "metadata"), "x: not offered here"),
    (declared({"a": a_form(client_name=" ")}), ("clients", "a", "client_name"), "must not be empty"),
    (declared({"a": a_form(client_name="A\u202eB")}), ("clients", "a"), "client_name must be"),
    (declared({"a": a_form(redirect_uris=("http://a.example/",))}), ("clients", "a"), "redirect_uris"),
    (declared({"a": a_form(redirect_uris=())}), ("clients", "a"), ""),
    (declared({"a": a_form(client_uri="javascript:alert()")}), ("clients", "a"), "client_uri"),
    (declared({"a b": a_form()}), ("clients", "a b"), "client_id has up to"),
    (declared({"user_a": a_form()}), ("clients", "user_a"), "client_id has up to"),
    (declared({"https://a.example/": a_form()}), ("clients", "https://a.example/"), "client pin"),
    (
        declared({"a": a_form(rotates_refresh_tokens=False, token_endpoint_auth_method="none")}),
        ("clients", "a"),
        "Refresh tokens rotate",
    ),
    (
        declared({"a": a_form(secret=Reference(env="A"), token_endpoint_auth_method="none")}),
        ("clients", "a", "secret"),
        "has no secret: take it out",
    ),
    (
        declared({"a": a_form(secret=Reference(env="A"))}, secret="too short"),
        ("clients", "a", "secret"),
        "the text at env:A cannot be a secret",
    ),
    (declared(resources={"api": DeclaredResource()}), ("resources", "api"), "expected an absolute URI"),
    (
        declared(resources={"https://api.example/": DeclaredResource()}),
        ("resources", "https://api.example/"),
        "the INI names it",
    ),
    (declared(resources={API: DeclaredResource(scopes=("x",))}), ("resources", API), "no such scope"),
    (
        declared(resources={API: DeclaredResource(introspecting_clients=("nobody",))}),
        ("resources", API),
        "no such client",
    ),
    (
        declared(
            {"app": a_form(token_endpoint_auth_method="none")},
            resources={API: DeclaredResource(introspecting_clients=("app",))},
        ),
        ("resources", API),
        "a public client may not introspect",
    ),
    (
        declared(resources={API: DeclaredResource(), "https://NOTES.example": DeclaredResource()}),
        ("resources", API),
        "the same resource as https://NOTES.example",
    ),
]


@pytest.mark.parametrize(("what", "path", "text"), PROBLEMS)
def test_what_cannot_be_is_named_where_it_is_said(
    server: Applied, what: Declared, path: tuple[Any, ...], text: str
) -> None:
    found = server.problems(what)
    if text:
        assert [where for where, _ in found] == [path], found
        assert text in found[0][1]
        assert "too short" not in found[0][1]
    plan = server.plan(what)
    assert bool(plan.problems) == bool(text)
    if plan.problems:
        with pytest.raises(ValueError), server.begin() as engine:
            apply(engine, what, Manner(), plan)


def test_all_problems_are_named_at_once(server: Applied) -> None:
    what = declared({"a": a_form(scopes=("x",)), "b": a_form(), "c": a_form(scopes=("y",))})
    assert [path[1] for path, _ in server.problems(what)] == ["a", "c"]


def test_a_client_that_is_disabled_stays_so(server: Applied) -> None:
    """R-09: for good."""
    what = declared({"billing": a_form()})
    server.apply(what)
    server.rules.stores.clients.disable("billing", datetime.now(UTC))
    ((path, text),) = server.problems(what)
    assert path == ("clients", "billing")
    assert "disabled for good" in text


# ---- Secrets


def test_a_secret_is_kept_as_a_digest_and_replaced_with_an_overlap(server: Applied) -> None:
    """R-02, R-05."""
    forms = {"billing": a_form(secret=Reference(env="BILLING"))}
    server.apply(declared(forms))
    plan = server.apply(declared(forms, secret=OTHER), Manner(overlap=timedelta(hours=1)))
    assert plan.steps[0].changes == {"secret": ("another", "env:BILLING")}
    client = server.client()
    with server.begin() as engine:
        ends = [secret.expires_at for secret in live_secrets(client, engine.now)]
        old, new = (matching(engine, client, "billing", text) for text in (SECRET, OTHER))
    assert len(ends) == 2
    assert old is not None
    assert old.expires_at is not None
    assert new is not None
    assert new.expires_at is None
    assert server.plan(declared(forms, secret=OTHER)).is_settled
    told = repr(plan) + repr(server.rules.stores.tables)
    assert SECRET not in told
    assert OTHER not in told


def test_two_live_secrets_are_told_before_anything_is_done(server: Applied) -> None:
    forms = {"billing": a_form(secret=Reference(env="BILLING"))}
    server.apply(declared(forms))
    server.apply(declared(forms, secret=OTHER))
    third = declared(forms, secret="a third one of thirty-two characters")
    ((path, text),) = server.problems(third)
    assert path == ("clients", "billing", "secret")
    assert "--overlap 0" in text
    server.apply(third, Manner(overlap=timedelta()))
    with server.begin() as engine:
        assert len(live_secrets(server.client(), engine.now)) == 1


def test_a_declared_secret_that_was_rotated_by_hand_counts_again(server: Applied) -> None:
    forms = {"billing": a_form(secret=Reference(file="secret"))}
    server.apply(declared(forms))
    with server.begin() as engine:
        rotate_secret(engine, "billing", timedelta(hours=1))
    plan = server.apply(declared(forms), Manner(overlap=timedelta(minutes=1)))
    assert plan.steps[0].changes == {"secret": ("the same, which ends soon", "file:secret")}
    with server.begin() as engine:
        found = matching(engine, server.client(), "billing", SECRET)
        assert found is not None
        assert found.expires_at is None
        assert len(live_secrets(server.client(), engine.now)) == 2
    assert server.plan(declared(forms)).is_settled


@pytest.mark.parametrize("overlap", [timedelta(), timedelta(hours=1)])
def test_a_secret_can_come_back_again_and_again(server: Applied, overlap: timedelta) -> None:
    """After it was ended at once, and while it ends."""
    forms = {"billing": a_form(secret=Reference(env="BILLING"))}
    for secret in (SECRET, OTHER) * 3:
        what = declared(forms, secret=secret)
        server.apply(what, Manner(overlap=overlap))
        assert server.plan(what).is_settled
        with server.begin() as engine:
            live = live_secrets(server.client(), engine.now)
            found = matching(engine, server.client(), "billing", secret)
        assert found in live
        assert len(live) == (2 if overlap and len(server.client().secrets) > 1 else 1)


def test_without_a_reference_secrets_are_left_alone(server: Applied) -> None:
    """No secret is made that nobody would see."""
    what = declared({"billing": a_form()})
    plan = server.apply(what)
    assert "rotate-secret billing" in plan.steps[0].note
    assert server.client().secrets == ()
    with server.begin() as engine:
        text = rotate_secret(engine, "billing", timedelta())
    server.apply(declared({"billing": a_form(client_name="Bills")}))
    with server.begin() as engine:
        assert matching(engine, server.client(), "billing", text)


def test_a_client_that_becomes_public_loses_its_secrets_and_grants(server: Applied) -> None:
    server.apply(declared({"billing": a_form(secret=Reference(env="BILLING"))}))
    now = datetime.now(UTC)
    server.rules.stores.grants.add(
        a_grant(client_id="billing", created_at=now, expires_at=now + timedelta(days=1))
    )
    server.apply(declared({"billing": a_form(token_endpoint_auth_method="none")}))
    assert server.client().is_public
    with server.begin() as engine:
        assert live_secrets(server.client(), engine.now) == ()
        assert list(engine.stores.grants.list(engine.now, client_id="billing")) == []
    server.apply(declared({"billing": a_form(secret=Reference(env="BILLING"))}))
    with server.begin() as engine:
        assert matching(engine, server.client(), "billing", SECRET)
        assert len(live_secrets(server.client(), engine.now)) == 1


def test_a_reference_that_moves_is_shown_and_kept(server: Applied) -> None:
    server.apply(declared({"billing": a_form(secret=Reference(env="A"))}))
    moved = declared({"billing": a_form(secret=Reference(file="/run/billing"))})
    plan = server.apply(moved)
    assert plan.steps[0].changes == {"secret_is_at": ("env:A", "file:/run/billing")}
    assert server.plan(moved).is_settled


# ---- Taking away


def test_only_what_was_applied_is_taken_away(server: Applied) -> None:
    """What people made, what registered itself and what another set made stays."""
    server.rules.add_client(client_id="by-hand")
    itself = server.rules.self_registered()
    server.apply(declared({"theirs": a_form()}), Manner(of_set="theirs"))
    server.apply(declared({"billing": a_form(), "by-hand": a_form(), "kept": a_form()}))
    less = declared({"kept": a_form()})
    plan = server.plan(less)
    assert (plan.steps, plan.left) == ((), ((DeclaredKind.CLIENT, "billing"),))
    assert plan.is_settled
    plan = server.apply(less, PRUNE)
    assert steps(plan) == [("disable", "clients", "billing")]
    assert not server.client().is_enabled
    for client_id in ("by-hand", "kept", "theirs", itself.client_id):
        assert server.client(client_id).is_enabled
    assert server.plan(less, PRUNE).is_settled


def test_what_is_there_belongs_to_the_files_when_it_is_adopted(server: Applied) -> None:
    server.rules.add_client(client_id="by-hand", scopes=("profile",))
    itself = server.rules.self_registered(scope="profile")
    what = declared({"by-hand": a_form(), itself.client_id: a_form(client_name="Theirs")})
    server.apply(what)
    adopt = Manner(adopt=True)
    plan = server.apply(what, adopt)
    assert [(step.name, dict(step.changes)) for step in plan.steps] == [
        ("by-hand", {"declared": (None, "in the set default")})
    ]
    assert server.plan(what, adopt).is_settled
    assert steps(server.apply(declared(), PRUNE)) == [("disable", "clients", "by-hand")]
    assert server.client(itself.client_id).is_edited
    assert server.client(itself.client_id).is_enabled


def test_one_thing_belongs_to_one_set(server: Applied) -> None:
    server.apply(declared({"billing": a_form()}), Manner(of_set="finance"))
    ((path, text),) = server.problems(declared({"billing": a_form()}))
    assert path == ("clients", "billing")
    assert "belongs to the set finance" in text


def test_how_much_ends_with_a_client_is_told_first(server: Applied) -> None:
    """L-08."""
    server.apply(declared({"billing": a_form()}))
    now = datetime.now(UTC)
    for grant_id in ("one", "two"):
        server.rules.stores.grants.add(
            a_grant(
                grant_id=grant_id, client_id="billing", created_at=now, expires_at=now + timedelta(days=1)
            )
        )
    plan = server.plan(declared(), PRUNE)
    (ends,) = ends_of(server.begin, plan)
    assert ends is not None
    assert (ends.grants, ends.jwts) == (2, 0)
    assert ends.jwts_until is not None
    lifetime = timedelta(seconds=server.rules.parts.settings.access_token_lifetime)
    assert abs(ends.jwts_until - now - lifetime) < timedelta(minutes=1)


def resource_with_a_grant(server: Applied) -> Plan:
    """The plan that takes a resource away for which there is a grant and a consent."""
    server.apply(declared(resources={API: DeclaredResource(name="Notes")}))
    now = datetime.now(UTC)
    server.rules.stores.grants.add(
        a_grant(resources=(API,), created_at=now, expires_at=now + timedelta(days=1))
    )
    server.rules.stores.consents.remember(a_consent(resources=(API, "urn:other")))
    return server.plan(declared(), PRUNE)


def test_a_resource_goes_with_what_was_granted_for_it(server: Applied) -> None:
    """L-08."""
    plan = resource_with_a_grant(server)
    assert steps(plan) == [("remove", "resources", API)]
    (ends,) = ends_of(server.begin, plan)
    assert ends is not None
    assert (ends.grants, ends.narrowed_consents) == (1, 1)
    server.apply(declared(), PRUNE)
    tables = server.rules.stores.tables
    assert tables.resources == {}
    assert all(grant.revoked_at for grant in tables.grants.values())
    assert [consent.resources for consent in tables.consents.values()] == [("urn:other",)]
    assert {"resource.removed", "grants.revoked"} <= {*server.events()}
    assert server.plan(declared(), PRUNE).is_settled


def test_an_interrupted_end_is_brought_to_its_end_by_the_next_one(server: Applied) -> None:
    plan = resource_with_a_grant(server)
    with server.begin() as engine:
        apply(engine, declared(), PRUNE, plan)
    ((path, text),) = server.problems(declared(resources={API: DeclaredResource()}))
    assert path == ("resources", API)
    assert "have not ended yet" in text
    again = server.plan(declared(), PRUNE)
    assert steps(again) == [("end", "resources", API)]
    server.apply(declared(), PRUNE)
    assert all(grant.revoked_at for grant in server.rules.stores.tables.grants.values())
    assert server.plan(declared(), PRUNE).is_settled


def test_an_interrupted_end_of_a_client_is_brought_to_its_end_by_the_next_one(server: Applied) -> None:
    """L-08: the client is disabled at once; what it was granted ends afterwards."""
    server.apply(declared({"billing": a_form()}))
    now = datetime.now(UTC)
    server.rules.stores.grants.add(
        a_grant(client_id="billing", created_at=now, expires_at=now + timedelta(days=1))
    )
    server.rules.stores.consents.remember(a_consent(client_id="billing"))
    plan = server.plan(declared(), PRUNE)
    with server.begin() as engine:
        apply(engine, declared(), PRUNE, plan)
    assert not server.client("billing").is_enabled
    assert steps(server.plan(declared(), PRUNE)) == [("end", "clients", "billing")]
    server.apply(declared(), PRUNE)
    tables = server.rules.stores.tables
    assert [grant.revoked_reason for grant in tables.grants.values()] == ["client-disabled"]
    assert not tables.consents
    assert server.events().count("client.disabled") == 1
    assert server.plan(declared(), PRUNE).is_settled


def test_what_came_back_while_its_grants_ended_stays(server: Applied) -> None:
    plan = resource_with_a_grant(server)
    with server.begin() as engine:
        apply(engine, declared(), PRUNE, plan)
        resources.add(engine, a_resource(form=API, uri=API, scopes=None))
    for _ in finish(server.begin, plan):
        pass
    assert [resource.uri for resource in server.rules.stores.tables.resources.values()] == [API]
    assert all(grant.revoked_at for grant in server.rules.stores.tables.grants.values())


def test_the_default_moves_from_one_resource_to_another() -> None:
    server = Applied(Rules({"authserver.plugin.resources_listed.default": None}))
    other = "https://a.example/"
    for first, second in ((API, other), (other, API)):
        what = declared(resources={first: DeclaredResource(default=True), second: DeclaredResource()})
        server.apply(what)
        default = server.rules.stores.resources.default()
        assert default is not None
        assert default.form == first
        assert server.plan(what).is_settled
    server.apply(declared(resources={other: DeclaredResource(default=True)}), PRUNE)
    default = server.rules.stores.resources.default()
    assert default is not None
    assert default.form == other


def test_a_client_goes_and_its_resource_no_longer_names_it(server: Applied) -> None:
    both = declared(
        {"api": a_form(), "billing": a_form()},
        resources={API: DeclaredResource(introspecting_clients=("api",))},
    )
    server.apply(both)
    still = declared({"billing": a_form()}, resources=dict(both.forms.resources))
    assert [path for path, _ in server.problems(still, PRUNE)] == [("resources", API)]
    plan = server.apply(declared({"billing": a_form()}, resources={API: DeclaredResource()}), PRUNE)
    assert [action for action, _, _ in steps(plan)] == ["change", "disable"]


# ---- Initial access tokens


@pytest.fixture
def registering() -> Applied:
    """A server with two registration policies."""
    return Applied(
        few_plugins(
            "client_secret_basic public_client registration_token",
            {"authserver.plugin.registration_token.policies": "partners = clients 3\nothers = clients 1"},
        )
    )


END = datetime(2099, 1, 1, tzinfo=UTC)
FIRST, SECOND = (digests.new_credential(digests.INITIAL) for _ in range(2))


def a_token(text: str = FIRST, **changes: Any) -> Declared:
    values: dict[str, Any] = {"policy": "partners", "token": Reference(env="PARTNERS"), "expires_at": END}
    return Declared(
        forms=Forms(initial_tokens={"partners": DeclaredInitialToken(**values | changes)}),
        secrets={("initial_tokens", "partners", "token"): Secret(text)},
    )


def test_an_initial_access_token_is_made_changed_replaced_and_revoked(registering: Applied) -> None:
    def kept() -> list[tuple[str, int | None, bool]]:
        tokens = registering.rules.stores.initial_tokens.list()
        return sorted((token.policy, token.uses, token.revoked_at is None) for token in tokens)

    assert steps(registering.apply(a_token(uses=2))) == [("add", "initial_tokens", "partners")]
    assert registering.plan(a_token(uses=2)).is_settled
    (made,) = registering.rules.stores.initial_tokens.list()
    assert made.digest == digests.digest("initial", FIRST)
    plan = registering.apply(a_token(uses=5, policy="others"))
    assert plan.steps[0].changes == {"policy": ("partners", "others"), "uses": (2, 5)}
    assert kept() == [("others", 5, True)]
    plan = registering.apply(a_token(SECOND))
    assert plan.steps[0].changes["token"] == ("another", "env:PARTNERS")
    assert kept() == [("others", 5, False), ("partners", None, True)]
    assert registering.plan(a_token(SECOND)).is_settled
    assert steps(registering.apply(declared(), PRUNE)) == [("revoke", "initial_tokens", "partners")]
    assert [live for _, _, live in kept()] == [False, False]
    assert registering.plan(declared(), PRUNE).is_settled
    ((path, text),) = registering.problems(a_token(SECOND))
    assert path == ("initial_tokens", "partners", "token")
    assert "was revoked" in text
    told = registering.events()
    assert told.count("initial_token.changed") == 1
    assert FIRST not in repr(registering.rules.stores.tables)


def test_a_token_that_was_revoked_by_hand_is_forgotten(registering: Applied) -> None:
    registering.apply(a_token())
    with registering.begin() as engine:
        revoke(engine, engine.stores.initial_tokens.list()[0].token_id)
    assert steps(registering.apply(declared(), PRUNE)) == [("forget", "initial_tokens", "partners")]
    assert registering.plan(declared(), PRUNE).is_settled


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (a_token("as_initial_made-up"), "there is no initial access token at env:PARTNERS"),
        (a_token(policy="partner"), "did you mean partners"),
        (a_token(note="x" * 201), "up to 200 characters"),
        (a_token(expires_at=datetime(2020, 1, 1, tzinfo=UTC)), "has ended already"),
    ],
)
def test_what_no_initial_access_token_can_be_is_named(
    registering: Applied, what: Declared, text: str
) -> None:
    ((path, told),) = registering.problems(what)
    assert path[:2] == ("initial_tokens", "partners")
    assert text in told


def test_one_token_has_one_name(registering: Applied) -> None:
    form = a_token().forms.initial_tokens["partners"]
    what = Declared(
        forms=Forms(initial_tokens={"a": form, "b": form}),
        secrets={("initial_tokens", name, "token"): Secret(FIRST) for name in ("a", "b")},
    )
    ((path, text),) = registering.problems(what)
    assert path == ("initial_tokens", "b", "token")
    assert "the same token as that of a" in text


# ---- What only the INI can settle


def test_what_the_ini_sets_is_compared_with_what_to_write() -> None:
    server = Applied(few_plugins("client_secret_basic rate_limits"))
    same = DeclaredLimit(counted="sign_in", key="account", count=100, seconds=3600)
    settled = Forms(scopes={"profile": "See your name"}, limits={"sign-ins-to-account": same})
    assert server.plan(Declared(forms=settled)).is_settled
    what = Declared(
        forms=Forms(scopes={"profile": "Another"}, trusted_issuers={"jwt_bearer": ("https://idp.example",)})
    )
    plan = server.apply(what)
    assert plan.steps == ()
    assert not plan.is_settled
    assert [(each.kind, each.name, each.remedy) for each in plan.elsewhere] == [
        ("scopes", "profile", "write `profile = Another` among the lines of authserver.scopes"),
        (
            "trusted_issuers",
            "jwt_bearer",
            "list jwt_bearer in authserver.plugins, with its issuers (there are none)",
        ),
    ]
    written = few_plugins(
        "client_secret_basic rate_limits",
        {"authserver.scopes": plan.elsewhere[0].line, "authserver.hidden_scopes": None},
    )
    assert [each.kind for each in Applied(written).plan(what).elsewhere] == ["trusted_issuers"]
    unlimited = Applied(few_plugins("client_secret_basic")).plan(Declared(forms=settled))
    assert [(each.name, each.remedy) for each in unlimited.elsewhere] == [
        ("sign-ins-to-account", "list a plugin that limits in authserver.plugins")
    ]


# ---- Scopes and limits


CALENDAR = Forms(scopes={"calendar": "See your calendar"})


def test_a_scope_is_made_for_what_needs_it_and_ends_with_all_that_has_it(server: Applied) -> None:
    rules = server.rules
    what = declared(
        {"billing": a_form(scopes=("profile", "calendar"))},
        scopes=CALENDAR.scopes,
        resources={API: DeclaredResource(scopes=("calendar",))},
    )
    assert steps(server.apply(what)) == [
        ("add", "scopes", "calendar"),
        ("add", "clients", "billing"),
        ("add", "resources", API),
    ]
    assert server.plan(what).is_settled
    with server.begin() as engine:
        assert engine.scopes["calendar"] == "See your calendar"
        exported = export(engine, kinds=["scopes"]).forms
    assert exported.scopes == {**rules.parts.settings.scope_sentences, "calendar": "See your calendar"}
    rules.add_client(client_id="by-hand", scopes=("profile", "calendar"))
    with server.begin() as engine:
        for grant_id, scopes in (("both", ("profile", "calendar")), ("other", ("calendar",))):
            engine.stores.grants.add(
                a_grant(
                    grant_id=grant_id,
                    client_id="by-hand",
                    scopes=scopes,
                    created_at=engine.now,
                    expires_at=engine.now + timedelta(days=1),
                )
            )
    again = declared({"billing": a_form()}, scopes={"calendar": "See when you are free"})
    plan = server.apply(again)
    assert plan.steps[0].changes == {"sentence": ("See your calendar", "See when you are free")}
    assert [name for _, name in plan.left] == [API]
    plan = server.plan(declared({"billing": a_form()}), PRUNE)
    ended = ends_of(server.begin, plan)[-1]
    assert ended is not None
    assert (ended.grants, ended.narrowed_grants, ended.registrations) == (1, 1, 1)
    server.apply(declared({"billing": a_form()}), PRUNE)
    assert rules.stores.tables.clients["by-hand"].scopes == ("profile",)
    assert rules.stores.tables.stored_settings == {}
    assert rules.stores.tables.grants["other"].revoked_reason == "scope-removed"
    rules.parts.offered.read()
    with server.begin() as engine:
        assert "calendar" not in engine.scopes
    # Other processes might have granted it meanwhile.
    assert server.waited == [FOLLOW_SECONDS + 2]
    told = server.events()
    assert [told.count(f"scope.{what}") for what in ("added", "changed", "removed")] == [1, 1, 1]
    (changed,) = (e for e in rules.stores.tables.events.values() if e.type == "scope.changed")
    assert changed.details["changed"] == {
        "sentence": {"from": "See your calendar", "to": "See when you are free"}
    }
    assert server.plan(declared({"billing": a_form()}), PRUNE).is_settled


def test_what_needs_a_scope_that_goes_is_named(server: Applied) -> None:
    form = a_form(scopes=("calendar",))
    server.apply(declared({"billing": form}, scopes=CALENDAR.scopes))
    assert server.problems(declared({"billing": form}), PRUNE)[0][0] == ("clients", "billing", "scopes")
    assert server.plan(declared({"billing": form})).steps == ()


A_LIMIT = DeclaredLimit(counted="sign_in", key="account", count=10, seconds=3600)


@pytest.mark.parametrize(
    ("forms", "path", "text"),
    [
        (Forms(scopes={"a b": "A"}), ("scopes", "a b"), "is not a scope name"),
        (Forms(scopes={"a": " "}), ("scopes", "a"), "1 to 500 printable characters"),
        (Forms(scopes={"a": "A\x1b[2J"}), ("scopes", "a"), "printable"),
        (Forms(scopes={f"{n:0>100}": "A" for n in range(50)}), ("scopes",), "characters"),
        (Forms(limits={"A": A_LIMIT}), ("limits", "A"), "A"),
        (Forms(limits={"a": replace(A_LIMIT, counted="sign_ins")}), ("limits", "a"), "did you mean sign_in"),
        (Forms(limits={"a": replace(A_LIMIT, key="grant")}), ("limits", "a"), "is not a key of sign_in"),
        (Forms(limits={"a": replace(A_LIMIT, count=10**7)}), ("limits", "a"), "a count is 1 to"),
        (Forms(limits={"a": replace(A_LIMIT, seconds=10**7)}), ("limits", "a"), "up to 31 days"),
    ],
)
def test_scopes_and_limits_that_cannot_be_are_named(forms: Forms, path: tuple[str, ...], text: str) -> None:
    server = Applied(few_plugins("client_secret_basic rate_limits"))
    ((told_path, told),) = server.problems(Declared(forms=forms))
    assert told_path == path
    assert text in told


def test_a_limit_counts_in_place_of_that_of_the_ini_until_it_goes() -> None:
    server = Applied(few_plugins("client_secret_basic rate_limits"))
    plugin: Any = server.plugins["rate_limits"]

    def rows() -> dict[str, tuple[int, str]]:
        server.rules.parts.offered.read()
        return {row["limit"]: (row["count"], row["set_in"]) for row in plugin.table()}

    usual = rows()
    name, own = "sign-ins-to-account", "registrations-of-a-day"
    limits = {
        name: A_LIMIT,
        own: DeclaredLimit(counted="registration", key="all", count=5, seconds=86_400, store_down="refuse"),
    }
    what = Declared(forms=Forms(limits=limits))
    plan = server.apply(what)
    assert steps(plan) == [("add", "limits", own), ("change", "limits", name)]
    assert plan.steps[1].changes == {"count": (100, 10)}
    assert rows() == {**usual, name: (10, "declarations"), own: (5, "declarations")}
    assert "authserver apply" in plugin.reasons[name]
    assert server.plan(what).is_settled
    events = {e.type: e.details for e in server.rules.stores.tables.events.values()}
    assert events["limit.changed"] == {"limit": name, "changed": {"count": {"from": 100, "to": 10}}}
    assert events["limit.added"]["changed"]["count"] == {"from": None, "to": 5}
    with server.begin() as engine:
        exported = export(engine, kinds=["limits"], plugins=server.plugins).forms
    assert {name: exported.limits[name] for name in limits} == limits
    with server.begin() as engine, pytest.raises(TooManyRequests):
        for _ in range(A_LIMIT.count + 1):
            claim(engine, Counted.SIGN_IN, account="ann")
    assert steps(server.apply(Declared(forms=Forms()), PRUNE)) == [
        ("revoke", "limits", own),
        ("revoke", "limits", name),
    ]
    assert rows() == usual
    assert server.events().count("limit.removed") == 2


def test_a_limit_as_the_ini_has_it_is_kept_only_if_it_is_adopted() -> None:
    server = Applied(few_plugins("client_secret_basic rate_limits"))
    what = Declared(forms=Forms(limits={"sign-ins-to-account": replace(A_LIMIT, count=100)}))
    assert server.plan(what).is_settled
    plan = server.apply(what, Manner(adopt=True))
    assert plan.steps[0].changes == {"declared": (None, "in the set default")}
    assert server.plan(what, Manner(adopt=True)).is_settled
    assert len(server.rules.stores.tables.stored_settings) == 1


def test_other_processes_follow_within_seconds_and_leave_out_what_no_plugin_takes(
    server: Applied, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    stores, limits = server.rules.stores, RateLimits()
    followed = FollowedSettings(stores, {"profile": "Yours"}, [limits], lambda: clock[0])
    assert followed.scopes() == {"profile": "Yours"}
    for kind, name, value in (
        (DeclaredKind.SCOPE, "calendar", {"sentence": "See it"}),
        (DeclaredKind.SCOPE, "profile", {"sentence": "Theirs"}),
        (DeclaredKind.LIMIT, "mine", asdict(A_LIMIT)),
        (DeclaredKind.LIMIT, "theirs", asdict(A_LIMIT) | {"counted": "sneezes"}),
    ):
        stores.stored_settings.keep(a_stored_setting(kind=kind, name=name, value=value))
    assert followed.scopes() == {"profile": "Yours"}
    clock[0] = FOLLOW_SECONDS + 1
    assert followed.known_scopes() is None
    assert followed.scopes() == {"profile": "Yours", "calendar": "See it"}
    assert [row["limit"] for row in limits.table() if row["set_in"] == "declarations"] == ["mine"]
    assert "the limit theirs of the store is left out" in caplog.text
    clock[0] += FOLLOW_SECONDS - 1
    followed.follow()
    clock[0] += FOLLOW_SECONDS - 1
    assert followed.known_scopes() is not None, "a background reading leaves nothing to the next request"


def test_a_client_that_a_plugin_keeps_is_changed_there(tmp_path: Path) -> None:
    file = tmp_path / "clients.toml"
    file.write_text(
        '[theirs]\nname = "Theirs"\nredirect_uris = ["https://theirs.example/cb"]\nscopes = ["profile"]\n'
    )
    plugins = "client_secret_basic public_client clients_file"
    server = Applied(few_plugins(plugins, {"authserver.plugin.clients_file.file": str(file)}))
    assert server.problems(declared({"theirs": a_form()})) == [
        (("clients", "theirs"), "this client belongs to a plugin: change it there")
    ]


# ---- Issuers of assertions


IDP = "https://idp.example"


def an_issuer(**changes: Any) -> DeclaredIssuer:
    values: dict[str, Any] = {"profile": "jwt_bearer", "jwks": Reference(file="idp.json")}
    return DeclaredIssuer(**values | changes)


def with_issuer(form: DeclaredIssuer, *, key: Key, **kinds: Any) -> Declared:
    """These forms, with an issuer whose keys are in a file."""
    files = {("issuers", IDP, "jwks"): json.dumps(key.jwks()).encode()} if form.jwks else {}
    return replace(declared(**kinds, issuers={IDP: form}), files=files)


@pytest.fixture
def trusting() -> Applied:
    return Applied(few_plugins("client_secret_basic jwt_bearer resources_registered"))


def test_an_issuer_is_declared_with_the_clients_and_resources_that_it_names(trusting: Applied) -> None:
    """R-17, JAG-16: all in one transaction; its keys by file, so another content is a change."""
    key = Key()
    kinds: dict[str, Any] = {
        "clients": {"billing": a_form()},
        "resources": {API: DeclaredResource()},
    }
    form = an_issuer(clients=("billing",), resources=(API,), default_resource=API, scopes=("profile",))
    what = with_issuer(form, key=key, **kinds)
    assert steps(trusting.apply(what)) == [
        ("add", "clients", "billing"),
        ("add", "resources", API),
        ("add", "issuers", IDP),
    ]
    assert trusting.plan(what).is_settled
    plan = trusting.apply(with_issuer(form, key=Key(kid="next"), **kinds))
    assert plan.steps[0].changes == {"keys": (["one"], ["next"])}
    same_name = with_issuer(form, key=Key(kid="next"), **kinds)
    assert trusting.plan(same_name).steps[0].changes == {"keys": (["next"], ["next"])}
    with trusting.begin() as engine:
        exported = export(engine, kinds=["issuers"])
    assert exported.forms.issuers == {IDP: form}
    assert [event for event in trusting.events() if event.startswith("issuer.")] == [
        "issuer.added",
        "issuer.changed",
    ]


def test_an_issuer_that_goes_is_disabled_with_all_that_came_of_it(trusting: Applied) -> None:
    """R-17, L-08: and is removed in the end, also after an interruption."""
    what = with_issuer(an_issuer(), key=Key())
    trusting.apply(what)
    with trusting.begin() as engine:
        engine.stores.grants.add(
            a_grant(
                details={"vouched_by": IDP}, created_at=engine.now, expires_at=engine.now + timedelta(days=1)
            )
        )
    none = declared()
    assert trusting.plan(none).left == (("issuers", IDP),)
    plan = trusting.plan(none, PRUNE)
    ended = ends_of(trusting.begin, plan)[0]
    assert ended is not None
    assert ended.grants == 1
    with trusting.begin() as engine:
        apply(engine, none, PRUNE, plan, plugins=trusting.plugins)
    assert steps(trusting.plan(none, PRUNE)) == [("end", "issuers", IDP)], "it was interrupted"
    ((path, text),) = trusting.problems(what)
    assert path == ("issuers", IDP)
    assert "have not ended yet" in text
    trusting.apply(none, PRUNE)
    assert trusting.rules.stores.tables.stored_settings == {}
    assert trusting.plan(none, PRUNE).is_settled


@pytest.mark.parametrize(
    ("changes", "member", "text"),
    [
        ({"profile": "jwt"}, "profile", "no plugin here has this profile"),
        ({"jwks_uri": "https://idp.example/jwks"}, "jwks", "its keys, or the https address"),
        ({"jwks": None}, "jwks", "its keys, or the https address"),
        ({"jwks": None, "jwks_uri": "http://idp.example/"}, "jwks_uri", "must be a complete https URI"),
        ({"algorithms": ("none",)}, "algorithms", "it signs with some of"),
        ({"clients": ("nobody",)}, "clients", "no such client"),
        ({"resources": (API,)}, "resources", "no such resource"),
        ({"scopes": ("nothing",)}, "scopes", "no such scope"),
        ({"options": {"subject": "listed"}}, "options", "neither works without the other"),
    ],
)
def test_an_issuer_that_cannot_be_is_named_with_its_member(
    trusting: Applied, changes: dict[str, Any], member: str, text: str
) -> None:
    """R-17, T058"""
    ((path, told),) = trusting.problems(with_issuer(an_issuer(**changes), key=Key()))
    assert path == ("issuers", IDP, member)
    assert text in told
