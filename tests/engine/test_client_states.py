"""How much clients are used, and which of them give way to new ones (T131)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
import time_machine

from authserver.api import hookimpl
from authserver.engine.clients.room import SPARED, SPARED_BY_OTHERS
from authserver.engine.errors import PageError
from authserver.engine.ports import StorageUnavailable
from authserver.engine.records import Client, ClientSecret, ClientState
from authserver.explaining.remedies import remedy_of
from authserver.testing.records import NOW, a_client
from authserver.testing.rules import STRANGER, Answer, Rules
from authserver.testing.server import with_plugin
from authserver.testing.service import REDIRECT_URI, self_registration

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
OTHER = "198.51.100.7"


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(datetime(2026, 3, 1, tzinfo=UTC), tick=False) as clock:
        yield clock


def limited(per_source: int = 3, in_all: int = 0) -> Rules:
    """Rules without limits of rates, and with these bounds."""
    rules = Rules(
        {
            "authserver.unused_clients_per_source": str(per_source),
            "authserver.unused_clients": str(in_all),
        }
    )
    rules.add_user("ann")
    return rules


def ids(rules: Rules) -> set[str]:
    return set(rules.stores.tables.clients)


def register(rules: Rules, number: int = 0, *, source: str = "192.0.2.1", **metadata: Any) -> Answer:
    return rules.register(
        self_registration(**{"client_name": f"Program {number}", **metadata}), source=source
    )


def registered(rules: Rules, number: int = 0, **others: Any) -> str:
    answer = register(rules, number, **others)
    assert answer.status_int == 201, answer
    return str(answer.json["client_id"])


def use(rules: Rules, client_id: str) -> None:
    """A person lets it in."""
    rules.code(rules.stores.tables.clients[client_id])


@dataclass(frozen=True)
class Another:
    """Another request, which deletes a client while a person agrees to it."""

    deletes_in: ClassVar[Rules | None] = None

    @hookimpl
    def code_details(self, client: Client) -> None:
        if self.deletes_in is not None:
            del self.deletes_in.stores.tables.clients[client.client_id]


def test_nothing_is_agreed_to_with_a_client_that_has_just_been_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T131: no consent and no grant is left that belongs to nobody; tried again, the client is unknown."""
    rules = Rules(with_plugin(Another, {}))
    rules.add_user("ann")
    client = rules.stores.tables.clients[registered(rules)]
    page = rules.authorize(client, rules.signed_in())
    monkeypatch.setattr(Another, "deletes_in", rules)
    with pytest.raises(StorageUnavailable):
        rules.consent(page)
    monkeypatch.setattr(Another, "deletes_in", None)
    assert not rules.rows("consents")
    assert not rules.rows("grants")
    del rules.stores.tables.clients[client.client_id]
    assert isinstance(rules.consent(page), PageError)


# ---- states -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "disabled", "state"),
    [
        (None, None, ClientState.NEW),
        (NOW, None, ClientState.USED),
        (NOW - 29 * DAY, None, ClientState.USED),
        (NOW - 30 * DAY, None, ClientState.IDLE),
        (NOW, NOW, ClientState.GONE),
        (None, NOW, ClientState.GONE),
        # The clock was set back.
        (NOW + DAY, None, ClientState.USED),
    ],
)
def test_the_state_follows_from_when_it_was_used(
    used: datetime | None, disabled: datetime | None, state: ClientState
) -> None:
    assert a_client(last_used_at=used, disabled_at=disabled).state(NOW) is state


def test_a_client_that_only_introspects_is_used_too() -> None:
    """It gets no token of its own; but that alone keeps no client that registered itself from giving way."""
    secret = ClientSecret(digest=b"d", key_id="k", created_at=NOW - 90 * DAY, last_used_at=NOW - DAY)
    older = replace(secret, last_used_at=NOW - 31 * DAY)
    assert a_client(secrets=(secret,)).state(NOW) is ClientState.USED
    assert a_client(secrets=(older, secret)).last_use == NOW - DAY
    assert a_client(secrets=(older,)).state(NOW) is ClientState.IDLE
    assert a_client(secrets=(older,), last_used_at=NOW).state(NOW) is ClientState.USED
    rules = limited(per_source=1)
    answer = register(rules, token_endpoint_auth_method="client_secret_basic").json
    client = rules.stores.tables.clients[answer["client_id"]]
    assert rules.introspect(client, answer["client_secret"], "x").status_int == 200
    assert rules.stores.tables.clients[client.client_id].state(datetime.now(UTC)) is ClientState.USED
    with time_machine.travel(datetime.now(UTC) + SPARED):
        registered(rules, 1)
    assert client.client_id not in ids(rules)


def last_used(rules: Rules, client_id: str) -> datetime | None:
    return rules.stores.tables.clients[client_id].last_used_at


def test_a_code_and_tokens_are_uses_and_are_noted_once_a_day(clock: time_machine.Traveller) -> None:
    rules = limited()
    first = datetime.now(UTC)
    client, secret = rules.add_client()
    assert last_used(rules, client.client_id) is None
    code = rules.code(client)
    assert last_used(rules, client.client_id) == first
    clock.shift(MINUTE / 2)
    refresh = rules.redeem(client, secret, code).json["refresh_token"]
    assert last_used(rules, client.client_id) == first
    clock.shift(DAY)
    assert rules.refresh(client, secret, refresh).status_int == 200
    assert last_used(rules, client.client_id) == first + MINUTE / 2 + DAY


def test_a_token_of_its_own_is_a_use_and_a_refusal_is_none(clock: time_machine.Traveller) -> None:
    rules = limited()
    client, secret = rules.add_client(grant_types=("client_credentials",))
    rules.token(client, secret, grant_type="client_credentials", scope="unknown")
    rules.token(client, "wrong", grant_type="client_credentials")
    assert last_used(rules, client.client_id) is None
    assert rules.token(client, secret, grant_type="client_credentials").status_int == 200
    assert last_used(rules, client.client_id) == datetime.now(UTC)


def test_an_authorization_request_alone_is_no_use() -> None:
    """T131: or strangers could make clients that nobody gives up."""
    rules = limited()
    client = rules.self_registered()
    rules.authorize(client, STRANGER)
    rules.authorize(client, rules.signed_in())
    assert last_used(rules, client.client_id) is None


# ---- the same registration again -----------------------------------------------------------------------


def test_an_equal_registration_replaces_the_earlier_one_when_that_was_not_used(
    clock: time_machine.Traveller,
) -> None:
    """K-27, T131: a program that registers anew at each start leaves one client, and gets an id of its own each time."""
    rules = limited(per_source=50)
    seen = []
    for _ in range(5):
        seen.append(registered(rules))
        clock.shift(SPARED)
    assert len(set(seen)) == 5
    assert ids(rules) == {seen[-1]}
    events = [event for event in rules.stores.tables.events.values() if event.type == "client.registered"]
    replaced = [event.details.get("replaced") for event in events]
    assert replaced == [None, *([client_id] for client_id in seen[:-1])]


@pytest.mark.parametrize("named", [{}, {"client_name": ""}], ids=["named", "nameless"])
def test_an_equal_registration_spares_a_program_that_has_just_registered(
    clock: time_machine.Traveller, named: dict[str, str]
) -> None:
    """Behind one address are many people: nobody loses a client in the middle of a first authorization."""
    rules = limited(per_source=50)
    first = registered(rules, **named)
    clock.shift(SPARED - MINUTE)
    second = registered(rules, **named)
    assert ids(rules) == {first, second}
    clock.shift(MINUTE)
    third = registered(rules, **named)
    assert ids(rules) == {second, third}


@pytest.mark.parametrize(
    "other",
    [
        {"client_name": "Another"},
        {"redirect_uris": [REDIRECT_URI + "/2"]},
        {"scope": "profile"},
        {"grant_types": ["authorization_code"]},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"client_uri": "https://client.example/"},
        {"source": OTHER},
        {"source": "192.0.2.2"},
    ],
)
def test_another_registration_replaces_none(clock: time_machine.Traveller, other: dict[str, Any]) -> None:
    rules = limited(per_source=50)
    first = registered(rules)
    clock.shift(DAY)
    second = registered(rules, **other)
    assert ids(rules) == {first, second}


def test_an_equal_registration_replaces_no_client_that_was_used(clock: time_machine.Traveller) -> None:
    rules = limited(per_source=50)
    first = registered(rules)
    use(rules, first)
    clock.shift(90 * DAY)
    second = registered(rules)
    assert ids(rules) == {first, second}


# ---- how many there may be ---------------------------------------------------------------------------


def test_the_oldest_of_the_same_network_gives_way(clock: time_machine.Traveller) -> None:
    """T131: never one of others, never one that was used, never one of an operator."""
    rules = limited(per_source=3)
    kept, _ = rules.add_client()
    elsewhere = registered(rules, source=OTHER)
    used = registered(rules, 9)
    use(rules, used)
    mine = []
    for number in range(6):
        mine.append(registered(rules, number))
        clock.shift(SPARED)
    assert ids(rules) == {kept.client_id, elsewhere, used, *mine[-3:]}


def test_a_network_of_ipv6_is_one_source(clock: time_machine.Traveller) -> None:
    """T102, T131: one household has a whole /64."""
    rules = limited(per_source=2)
    mine = []
    for number in range(4):
        mine.append(registered(rules, number, source=f"2001:db8::{number}"))
        clock.shift(SPARED)
    assert ids(rules) == set(mine[-2:])
    other = registered(rules, source="2001:db8:0:1::1")
    assert ids(rules) == {*mine[-2:], other}


def test_while_all_are_spared_a_new_one_is_asked_to_come_again(clock: time_machine.Traveller) -> None:
    """T131: so that no flood takes the client of a neighbour who is just signing in."""
    rules = limited(per_source=3)
    mine = []
    for number in range(3):
        mine.append(registered(rules, number))
        clock.shift(MINUTE)
    refused = register(rules, 4).refusal
    assert refused is not None
    assert (refused.status, refused.reason) == (429, "too-many-unused-clients")
    assert getattr(refused, "retry_after", None) == (SPARED - 3 * MINUTE).total_seconds()
    assert "authserver.unused_clients_per_source" in remedy_of(refused.reason)
    assert ids(rules) == set(mine)
    assert register(rules, 4, source=OTHER).status_int == 201
    clock.shift(SPARED - 3 * MINUTE)
    assert register(rules, 4).status_int == 201
    assert mine[0] not in ids(rules)


def test_a_flood_leaves_no_more_than_the_bound(clock: time_machine.Traveller) -> None:
    """T131: a day of registrations from one address, all of them different, with no limit of rates."""
    rules = limited(per_source=5)
    answers = []
    for number in range(300):
        answers.append(register(rules, number).status_int)
        clock.shift(5 * MINUTE)
        assert len(ids(rules)) <= 5
    assert set(answers) == {201, 429}
    assert answers.count(201) > 100


def test_in_all_those_of_the_same_network_give_way_first_and_others_after_a_day(
    clock: time_machine.Traveller,
) -> None:
    """T131: strangers from many networks can neither fill the database nor close registration for more than a day."""
    rules = limited(per_source=0, in_all=4)
    others = [registered(rules, number, source=f"198.51.100.{number}") for number in range(3)]
    mine = registered(rules)
    clock.shift(SPARED)
    second = registered(rules, 1)
    assert ids(rules) == {*others, second}
    refused = register(rules, 2).refusal
    assert refused is not None
    assert (refused.status, refused.reason) == (429, "too-many-unused-clients")
    clock.shift(SPARED_BY_OTHERS - SPARED)
    third = registered(rules, 2, source="203.0.113.9")
    assert ids(rules) == {*others[1:], second, third}
    assert mine not in ids(rules)


def test_a_lower_bound_is_reached_by_the_next_registration(clock: time_machine.Traveller) -> None:
    rules = limited(per_source=0)
    for number in range(10):
        registered(rules, number)
    clock.shift(SPARED)
    lower = Rules(
        {"authserver.unused_clients_per_source": "4", "authserver.unused_clients": "0"}, rules.stores
    )
    registered(lower, 10)
    assert len(ids(lower)) == 4


def test_0_sets_no_bound(clock: time_machine.Traveller) -> None:
    rules = limited(per_source=0, in_all=0)
    for number in range(60):
        registered(rules, number)
    assert len(ids(rules)) == 60


def test_localised_members_and_null_make_no_other_registration(clock: time_machine.Traveller) -> None:
    """T134: what is not kept does not tell two registrations apart either."""
    rules = limited(per_source=50)
    registered(rules)
    clock.shift(SPARED)
    body = {
        **self_registration(client_name="Program 0"),
        "client_name#ja": "x",
        "tos_uri#fr": "https://a.example/",
        "x": None,
    }
    assert rules.register(json.loads(json.dumps(body))).status_int == 201
    assert len(ids(rules)) == 1
