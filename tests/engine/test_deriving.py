"""What a grant is derived from: bound to the client, live, never wider, never longer (T163 to T168)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.api import hookimpl
from authserver.engine.context import Engine, Issue, SingleUse
from authserver.engine.errors import InvalidGrant, InvalidScope, InvalidTarget, ServerError
from authserver.engine.grants.deriving import (
    NotLive,
    Parent,
    acted,
    actors_of,
    derive,
    of_assertion,
    of_token,
)
from authserver.engine.records import Grant
from authserver.engine.tokens.issued import find_issued
from authserver.engine.tokens.issuing import TokenResponse, issue
from authserver.settings import SettingsError
from authserver.testing.records import a_grant, an_identity
from authserver.testing.rules import Rules
from authserver.testing.server import RESOURCE, with_plugin

FILES = "https://files.example/"
SCOPES = ("profile", "files.read", "files.write")
RESOURCES = (RESOURCE, FILES)


class Chain(Rules):
    """Rules with ann and some clients, and grants that are derived one from another."""

    def __init__(self) -> None:
        super().__init__({"authserver.access_token_format": "opaque"})
        self.ann = self.add_user("ann", None)
        self.clients = [self.add_client(client_id=f"c{number}", scopes=SCOPES)[0] for number in range(4)]

    def first(self, scopes: Sequence[str] = SCOPES, resources: Sequence[str] = RESOURCES) -> str:
        """An access token that an assertion about ann gave."""
        client = self.clients[0]

        def begin(engine: Engine) -> TokenResponse:
            parent = of_assertion(engine, self.ann, "https://issuer.example")
            order = derive(
                engine, client, parent, grant_type="test", scopes=tuple(scopes), resources=tuple(resources)
            )
            return issue(engine, client, order)

        return token_of(self.at("token", begin))

    def derived(self, token: str, number: int, **wanted: Any) -> Any:
        """What this client gets of a token, or why it gets nothing."""
        client = self.clients[number]

        def step(engine: Engine) -> TokenResponse:
            issued = find_issued(engine, token)
            assert issued is not None
            parent = of_token(engine, issued)
            actor = acted(client.client_id, parent.actor)
            return issue(
                engine, client, derive(engine, client, parent, grant_type="test", actor=actor, **wanted)
            )

        try:
            return self.at("token", step)
        except NotLive as ended:
            return ended

    def grant_of(self, token: str) -> Grant:
        with self.begin() as engine:
            issued = find_issued(engine, token)
            assert issued is not None
            return issued.grant

    def is_active(self, token: str) -> bool:
        with self.begin() as engine:
            issued = find_issued(engine, token)
            return issued is not None and issued.is_active(engine.now)


def token_of(result: Any) -> str:
    assert isinstance(result, TokenResponse), result
    return result.access_token


@dataclass(frozen=True)
class Step:
    """One derivation of a random chain."""

    client: int
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    seconds: int


STEPS = st.lists(
    st.builds(
        Step,
        client=st.integers(0, 3),
        scopes=st.lists(st.sampled_from(SCOPES), unique=True).map(tuple),
        resources=st.lists(st.sampled_from(RESOURCES), unique=True).map(tuple),
        seconds=st.integers(0, 4000),
    ),
    min_size=1,
    max_size=5,
)


@given(STEPS, st.integers(0, 5), st.integers(0, 4))
def test_the_four_verbs_hold_on_every_chain(steps: list[Step], ended: int, how: int) -> None:
    """T163: bound to its client, live or refused, never wider and never longer; and it ends with each before it."""
    chain = Chain()
    tokens = [chain.first()]
    for step in steps:
        chain.wait(step.seconds)
        before = chain.grant_of(tokens[-1])
        was_active = chain.is_active(tokens[-1])
        result = chain.derived(tokens[-1], step.client, scopes=step.scopes, resources=step.resources)
        if not isinstance(result, TokenResponse):
            # Whatever was refused was over, or has nothing in common with what was asked for.
            assert isinstance(result, NotLive | InvalidScope | InvalidTarget), result
            assert was_active is not isinstance(result, NotLive)
            break
        assert was_active
        tokens.append(result.access_token)
        grant = chain.grant_of(result.access_token)
        assert grant.client_id == chain.clients[step.client].client_id
        assert grant.user_id == before.user_id
        assert set(grant.scopes) <= set(before.scopes)
        assert set(grant.resources) <= set(before.resources)
        assert grant.expires_at <= before.expires_at
        assert grant.parent_id == before.grant_id
        assert actors_of(grant.details["act"])[1:] == actors_of(before.details.get("act"))
    at = min(ended, len(tokens) - 1)
    active = [chain.is_active(token) for token in tokens]
    grant = chain.grant_of(tokens[at])
    with chain.begin() as engine:
        END_BY[how](chain, engine, grant)
    still = [chain.is_active(token) for token in tokens]
    if how < 2:
        # All that was derived from it has ended with it, and nothing before it.
        assert still == active[:at] + [False] * (len(tokens) - at)
    else:
        assert not any(still[at:])


def _revoke(chain: Chain, engine: Engine, grant: Grant) -> None:
    engine.stores.grants.revoke(grant.grant_id, engine.now, "test")


def _revoke_some(chain: Chain, engine: Engine, grant: Grant) -> None:
    engine.stores.grants.revoke_some([grant.grant_id], engine.now, "test")


def _disconnect(chain: Chain, engine: Engine, grant: Grant) -> None:
    engine.stores.grants.revoke_of_user(chain.ann.user_id, engine.now, "test", client_id=grant.client_id)


def _disable_client(chain: Chain, engine: Engine, grant: Grant) -> None:
    # Its own tokens are refused because it is disabled (`introspect`); what hangs on them, by the chain.
    engine.stores.clients.disable(grant.client_id, engine.now)
    engine.stores.grants.revoke_of_client(grant.client_id, engine.now, "test")


def _disable_person(chain: Chain, engine: Engine, grant: Grant) -> None:
    engine.stores.users.disable(chain.ann.user_id, engine.now)


END_BY = (_revoke, _revoke_some, _disconnect, _disable_client, _disable_person)


# ---- what ends nothing by itself ---------------------------------------------------------------------


def test_a_disabled_client_ends_what_hangs_on_it_before_its_grants_are_ended() -> None:
    """T164: its grants are ended batch after batch; meanwhile nothing that was derived from them counts."""
    chain = Chain()
    first = chain.first()
    second = token_of(chain.derived(first, 1))
    with chain.begin() as engine:
        engine.stores.clients.disable("c0", engine.now)
    assert not chain.is_active(second)
    assert isinstance(chain.derived(second, 2), NotLive)


def test_a_parent_that_is_not_kept_any_more_is_no_parent() -> None:
    """T163: what hangs on nothing that is known is refused."""
    chain = Chain()
    second = token_of(chain.derived(chain.first(), 1))
    parent_id = chain.grant_of(second).parent_id
    assert parent_id is not None
    del chain.stores.tables.grants[parent_id]
    assert not chain.is_active(second)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda order: replace(order, grant=replace(order.grant, parent_id=None)),
            "grant-without-its-parent",
        ),
        (lambda order: replace(order, derived_from=()), "grant-without-its-parent"),
        (
            lambda order: replace(
                order, grant=replace(order.grant, expires_at=order.grant.expires_at + timedelta(days=9))
            ),
            "grant-longer-than-its-parent",
        ),
    ],
    ids=["no-parent", "hangs-on-nothing", "longer"],
)
def test_an_order_that_breaks_the_rule_issues_nothing(change: Any, reason: str) -> None:
    """T163: a faulty plugin that makes its own order cannot extend or unhook a derived grant."""
    chain = Chain()
    token = chain.first()
    client = chain.clients[1]

    def step(engine: Engine) -> TokenResponse:
        issued = find_issued(engine, token)
        assert issued is not None
        order = derive(engine, client, of_token(engine, issued), grant_type="test")
        return issue(engine, client, change(order))

    refused = chain.at("token", step)
    assert isinstance(refused, ServerError)
    assert refused.reason == reason
    assert len(chain.rows("grants")) == 1


def test_a_parent_that_ends_while_its_child_is_issued_leaves_no_child() -> None:
    """T163: the parents are held until the child is stored."""
    chain = Chain()
    token = chain.first()
    client = chain.clients[1]

    def step(engine: Engine) -> TokenResponse:
        issued = find_issued(engine, token)
        assert issued is not None
        order = derive(engine, client, of_token(engine, issued), grant_type="test")
        engine.stores.grants.revoke(issued.grant.grant_id, engine.now, "meanwhile")
        return issue(engine, client, order)

    refused = chain.at("token", step)
    assert isinstance(refused, InvalidGrant)
    assert (refused.description, refused.reason) == (
        "The access behind this request has ended.",
        "parent-grant-revoked",
    )


@pytest.mark.parametrize("user", ["nobody", "disabled"])
def test_an_assertion_about_nobody_is_no_parent(user: str) -> None:
    """T163: neither an unknown person nor a disabled one."""
    chain = Chain()
    person = None if user == "nobody" else replace(chain.ann, disabled_at=chain.now)
    with (
        chain.begin() as engine,
        pytest.raises(NotLive, match=f"user-{'unknown' if person is None else user}"),
    ):
        of_assertion(engine, person, "https://issuer.example")


def test_an_assertion_may_limit_what_comes_of_it() -> None:
    """T163: its scopes, resources and end are a ceiling."""
    chain = Chain()
    client = chain.clients[0]

    def step(engine: Engine) -> Issue:
        parent = of_assertion(
            engine,
            chain.ann,
            "https://issuer.example",
            scopes=("files.read",),
            resources=(FILES,),
            expires_at=engine.now + timedelta(seconds=60),
        )
        return derive(engine, client, parent, grant_type="test")

    order = chain.at("token", step)
    assert isinstance(order, Issue)
    assert (order.scopes, order.resources) == (("files.read",), (FILES,))
    assert order.grant.expires_at - order.grant.created_at == timedelta(seconds=60)
    assert order.grant.details["vouched_by"] == "https://issuer.example"


@dataclass(frozen=True)
class KeepsWithGrants:
    """Wants to keep something with each grant under a name of the core."""

    name: str

    @property
    def grant_members(self) -> frozenset[str]:
        return frozenset({self.name})

    @hookimpl
    def grant_details(self) -> Any:
        return {self.name: {"sub": "somebody"}}


@pytest.mark.parametrize("name", ["act", "auth_time", "vouched_by", "grant_type", "on_another_device"])
def test_no_plugin_says_who_acts_or_how_a_grant_came_about(name: str) -> None:
    """T163: tokens and pages say what the core wrote: the start stops, naming the plugin."""
    with pytest.raises(SettingsError, match=f"grant_details adds {name}, which the core adds already"):
        Rules(with_plugin(KeepsWithGrants, {"name": name}))


@pytest.mark.parametrize("method", ["private_key_jwt", "none"])
def test_a_derived_grant_notes_that_only_its_clients_key_protects_it(method: str) -> None:
    """T163, CIMD-22: as an agreed one does; a client that is known by its address may give up its key any day."""
    chain = Chain()
    client = replace(chain.clients[1], client_id="https://agent.example/client.json", auth_method=method)

    def step(engine: Engine) -> Issue:
        issued = find_issued(engine, token)
        assert issued is not None
        return derive(engine, client, of_token(engine, issued), grant_type="test")

    token = chain.first()
    order = chain.at("token", step)
    assert isinstance(order, Issue)
    assert order.grant.details.get("authenticates") is (None if method == "none" else True)


# ---- what an order says, member by member ------------------------------------------------------------


def order_of(chain: Chain, parent: Parent, *, number: int = 1, **wanted: Any) -> Issue:
    def step(engine: Engine) -> Issue:
        return derive(engine, chain.clients[number], parent, grant_type="urn:example:test", **wanted)

    order = chain.at("token", step)
    assert isinstance(order, Issue), order
    return order


def test_an_order_says_what_the_parent_and_the_caller_say() -> None:
    """T163: whose the new grant is, what it hangs on, what it spends, and what the client must prove."""
    chain = Chain()
    parents = tuple(a_grant(grant_id=name, client_id="c0", created_at=chain.now) for name in ("near", "far"))
    parent = Parent(
        user=chain.ann,
        scopes=SCOPES,
        resources=RESOURCES,
        grant=parents[0],
        ancestors=parents[1:],
        details={"amr": ("pwd",), "vouched_by": "https://issuer.example"},
        joins=an_identity(user_id=chain.ann.user_id),
    )
    once = SingleUse(
        purpose="test", text="one", since=chain.now, until=chain.now, refusal=InvalidGrant("No.")
    )
    order = order_of(
        chain,
        parent,
        scopes=("files.read",),
        resources=(FILES,),
        actor={"sub": "c1"},
        uses=(once,),
        bound={"jkt": "key"},
        bound_refusal=InvalidTarget,
        noted={"rule": "own"},
    )
    grant = order.grant
    assert (grant.client_id, grant.user_id, grant.parent_id) == ("c1", chain.ann.user_id, "near")
    assert (grant.scopes, grant.resources) == (order.scopes, order.resources) == (("files.read",), (FILES,))
    assert grant.details == {
        "amr": ("pwd",),
        "vouched_by": "https://issuer.example",
        "act": {"sub": "c1"},
        "grant_type": "urn:example:test",
    }
    assert (order.user, order.joins, order.is_new, order.refreshable) == (
        chain.ann,
        parent.joins,
        True,
        False,
    )
    assert (order.uses, order.bound, order.bound_refusal) == ((once,), {"jkt": "key"}, InvalidTarget)
    assert (order.derived_from, order.noted) == (parents, {"rule": "own"})
    assert order.spends is None
    assert order.keeps is None


def test_an_order_without_a_parent_of_this_server_hangs_on_nothing() -> None:
    """T163: an assertion says who somebody is; policies and the settings say the rest."""
    chain = Chain()
    order = order_of(chain, Parent(user=None))
    assert (order.grant.user_id, order.grant.parent_id, order.derived_from) == (None, None, ())
    assert order.grant.details == {"grant_type": "urn:example:test"}
    assert (order.bound_refusal, order.bound, order.uses, order.noted) == (InvalidGrant, {}, (), {})
    lifetime = order.grant.expires_at - order.grant.created_at
    assert lifetime == timedelta(seconds=chain.parts.settings.access_token_lifetime)


@pytest.mark.parametrize("registered", [True, False])
def test_a_derived_grant_lasts_longer_only_for_a_client_that_may_refresh(registered: bool) -> None:
    """T163: as long as its access token, or as a grant; never longer than its parent."""
    chain = Chain()
    types = ("authorization_code", "refresh_token") if registered else ("authorization_code",)
    chain.clients[1] = chain.add_client(client_id="service", scopes=SCOPES, grant_types=types)[0]
    order = order_of(chain, Parent(user=chain.ann), refreshable=True)
    settings = chain.parts.settings
    seconds = settings.grant_lifetime if registered else settings.access_token_lifetime
    assert order.refreshable is registered
    assert order.grant.expires_at - order.grant.created_at == timedelta(seconds=seconds)
    ending = Parent(user=chain.ann, expires_at=chain.now + timedelta(seconds=5))
    assert order_of(chain, ending, refreshable=True).grant.expires_at == ending.expires_at


def test_what_is_left_of_a_token_is_its_parent() -> None:
    """T163: the scopes and audience of the token itself, its actor, and how its person signed in."""
    chain = Chain()
    details = {
        "auth_time": 7,
        "acr": "gold",
        "amr": ("pwd",),
        "vouched_by": "issuer",
        "grant_type": "x",
        "own": 1,
    }
    first = chain.first(scopes=("files.read", "files.write"), resources=(FILES,))
    second = token_of(chain.derived(first, 1, scopes=("files.read",)))
    grant = chain.grant_of(second)
    chain.stores.tables.grants[grant.grant_id] = replace(grant, details={**grant.details, **details})
    with chain.begin() as engine:
        issued = find_issued(engine, second)
        assert issued is not None
        parent = of_token(engine, issued)
    assert (parent.user, parent.scopes, parent.resources) == (chain.ann, ("files.read",), (FILES,))
    assert parent.actor == {"sub": "c1"}
    assert parent.details == {"auth_time": 7, "acr": "gold", "amr": ("pwd",), "vouched_by": "issuer"}
    assert [each.grant_id for each in parent.chain] == [grant.grant_id, grant.parent_id]
    assert parent.joins is None
    chain.wait(chain.parts.settings.access_token_lifetime)
    ended = chain.derived(second, 2)
    assert isinstance(ended, NotLive)
    assert ended.reason == "subject-token-ended"


def test_a_scope_that_the_parent_does_not_have_is_refused_in_words() -> None:
    """T163"""
    chain = Chain()
    refused = chain.derived(chain.first(scopes=("profile",)), 1, scopes=("files.write",))
    assert isinstance(refused, InvalidScope)
    assert (refused.description, refused.reason) == (
        "The requested scope was not granted.",
        "scope-beyond-parent",
    )


def test_policies_know_the_grant_type_by_which_something_is_derived() -> None:
    """T163: with a ceiling as without one."""
    for parent in (Parent(user=None), Parent(user=None, scopes=SCOPES)):
        chain = Chain()

        def step(engine: Engine, chain: Chain = chain, parent: Parent = parent) -> TokenResponse:
            order = derive(engine, chain.clients[1], parent, grant_type="urn:example:test")
            return issue(engine, chain.clients[1], order)

        token_of(chain.at("token", step))
        asked = [each for each in chain.events()[-1]["decisions"] if each["slot"] == "scope_decision"]
        assert [each["facts"]["grant_type"] for each in asked] == ["urn:example:test"]
