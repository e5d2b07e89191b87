"""What files declare is compared, brought about and taken away again (R-17), on memory stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from authserver.engine.clients.editing import ChangedMeanwhile, ClientEdit, edit
from authserver.engine.clients.secrets import matching
from authserver.engine.context import Engine
from authserver.engine.declarations.apply import apply, finish
from authserver.engine.declarations.forms import (
    DeclaredClient,
    DeclaredResource,
    Forms,
    Reference,
)
from authserver.engine.declarations.plan import Declared, Manner, Plan, plan_of
from authserver.engine.records import Client
from authserver.plugins.asking import PluginSet
from authserver.settings import Secret
from authserver.testing.rules import Rules

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
        for _ in finish(self.begin, plan):
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
