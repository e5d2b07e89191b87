"""Declarations that are applied at the same moment, on both databases (R-17)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest

from authserver.engine.clients.editing import ChangedMeanwhile, ClientEdit, edit
from authserver.engine.declarations.apply import apply
from authserver.engine.declarations.forms import DeclaredClient, DeclaredResource, Forms, Reference
from authserver.engine.declarations.plan import Declared, Manner
from authserver.engine.declarations.planning import plan_of
from authserver.engine.ports import StorageUnavailable
from authserver.settings import Secret
from authserver.testing.server import Server
from authserver.testing.threads import at_once

MANY = 4
SECRET = ("clients", "billing", "secret")


@pytest.fixture
def server(database_url: str) -> Iterator[Server]:
    server = Server(database_url)
    yield server
    server.close()


def billing(name: str = "Billing", secret: str = "a secret of thirty-two characters") -> Declared:
    client = DeclaredClient(client_name=name, scopes=("profile",), secret=Reference(env="BILLING"))
    resource = DeclaredResource(introspecting_clients=("billing",))
    return Declared(
        forms=Forms(clients={"billing": client}, resources={"https://notes.example/": resource}),
        secrets={SECRET: Secret(secret)},
    )


def apply_at_once(server: Server, what: Declared, manner: Manner | None = None) -> Counter[str]:
    """How it ended for each of those who were shown the same plan."""
    manner = manner or Manner()
    with server.application.begin() as engine:
        plan = plan_of(engine, what, manner)
    assert not plan.problems

    def run(number: int) -> str:
        try:
            with server.application.begin() as engine:
                apply(engine, what, manner, plan)
        except (ChangedMeanwhile, StorageUnavailable) as error:
            return type(error).__name__
        return "applied"

    return Counter(at_once(MANY, run))


def test_of_those_who_apply_at_once_one_does(server: Server) -> None:
    for what in (billing(), billing("Bills")):
        ends = apply_at_once(server, what)
        assert ends["applied"] == 1, ends
        with server.application.begin() as engine:
            assert plan_of(engine, what, Manner()).is_settled


@pytest.mark.parametrize("overlap", [timedelta(), timedelta(hours=1)])
def test_a_secret_is_replaced_once_whoever_does_it(server: Server, overlap: timedelta) -> None:
    for text in ("a secret", "another", "a secret", "another"):
        what = billing(secret=f"{text} of thirty-two characters")
        ends = apply_at_once(server, what, Manner(overlap=overlap))
        assert ends["applied"] >= 1, ends
        with server.application.begin() as engine:
            assert plan_of(engine, what, Manner()).is_settled
            client = engine.stores.clients.find("billing", engine.now)
            assert client is not None
            assert [secret.expires_at for secret in client.secrets].count(None) == 1
            assert len(client.secrets) <= (2 if overlap else 1)


def test_what_is_pruned_at_once_is_gone(server: Server) -> None:
    with server.application.begin() as engine:
        apply(engine, billing(), Manner(), plan_of(engine, billing(), Manner()))
    ends = apply_at_once(server, Declared(forms=Forms()), Manner(prune=True))
    assert ends["applied"] >= 1
    (client,) = server.rows("clients")
    assert client["disabled_at"] is not None
    assert server.rows("resources") == []


def test_who_edits_while_it_is_applied_is_not_overwritten_unseen(server: Server) -> None:
    what = billing()
    with server.application.begin() as engine:
        apply(engine, what, Manner(), plan_of(engine, what, Manner()))
    changed = billing("Bills", "another one of thirty-two characters")
    with server.application.begin() as engine:
        plan = plan_of(engine, changed, Manner(overlap=timedelta(hours=1)))

    def run(number: int) -> str:
        try:
            with server.application.begin() as engine:
                if number % 2:
                    edit(engine, "billing", ClientEdit(name=f"By hand {number}"))
                else:
                    apply(engine, changed, Manner(overlap=timedelta(hours=1)), plan)
        except (ChangedMeanwhile, StorageUnavailable):
            return "refused"
        return "edited" if number % 2 else "applied"

    ends = Counter(at_once(MANY, run))
    assert ends["applied"] <= 1
    (client,) = server.rows("clients")
    events = [event["details"] for event in server.events("client.changed")]
    details = [json.loads(each) if isinstance(each, str) else each for each in events]
    names = [each["changed"]["client_name"] for each in details]
    # Each began with what another had left.
    assert {each["from"] for each in names} | {client["name"]} == {"Billing"} | {each["to"] for each in names}
    assert len(server.rows("client_secrets")) == 1 + ends["applied"]
