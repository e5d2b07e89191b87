"""Requests that issue at the moment at which their user, client or resource ends, on both databases (L-08)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from authserver.engine import ending
from authserver.engine.context import Engine, Issue
from authserver.engine.crypto.digests import new_identifier
from authserver.engine.ending import Act, Ended, Subject
from authserver.engine.errors import OAuthError
from authserver.engine.ports import StorageUnavailable
from authserver.engine.records import Grant, GrantFilter
from authserver.engine.tokens.issuing import issue
from authserver.testing.records import a_grant, a_resource
from authserver.testing.server import RESOURCE, Server
from authserver.testing.threads import at_once

NOTES = "https://notes.example/"
KINDS = ("user", "client", "resource")
ISSUERS = 6


@pytest.fixture
def servers(database_url: str) -> Iterator[tuple[Server, Server]]:
    settings = {"authserver.access_token_format": "opaque"}
    first, second = (Server(database_url, settings) for _ in range(2))
    first.add_user("ann")
    first.add_client(client_id="notes")
    with first.begin() as engine:
        engine.stores.resources.add(a_resource(form=NOTES, uri=NOTES, scopes=None))
    yield first, second
    first.close()
    second.close()


def act_about(engine: Engine, kind: str) -> Act:
    ann = engine.stores.users.find_by_name("ann")
    assert ann is not None
    subject = {
        "user": Subject.user(ann),
        "client": Subject.client("notes"),
        "resource": Subject.resource(NOTES, NOTES),
    }[kind]
    return Act(subject=subject, for_good=True)


def issued(engine: Engine) -> None:
    """A new grant with tokens, as a grant type makes it that no session is behind. Raises OAuthError."""
    ann = engine.stores.users.find_by_name("ann")
    client = engine.stores.clients.find("notes", engine.now)
    assert ann is not None and client is not None
    resources = (RESOURCE,) if engine.resources.find(NOTES) is None else (NOTES,)
    grant = replace(
        a_grant(grant_id=new_identifier(), client_id="notes", user_id=ann.user_id, resources=resources),
        created_at=engine.now,
        expires_at=engine.now + timedelta(hours=1),
    )
    order: dict[str, Any] = {"scopes": ("read",), "resources": resources, "is_new": True, "refreshable": True}
    issue(engine, client, Issue(grant=grant, user=ann, **order))


def derived(engine: Engine, parents: tuple[Grant, ...]) -> Grant:
    """A new grant that hangs on these, the nearest first. Raises OAuthError."""
    ann, client = engine.stores.users.find_by_name("ann"), engine.stores.clients.find("notes", engine.now)
    assert ann is not None and client is not None
    nearest = parents[0]
    grant = replace(nearest, grant_id=new_identifier(), parent_id=nearest.grant_id)
    order: dict[str, Any] = {"scopes": ("read",), "resources": nearest.resources, "is_new": True}
    issue(engine, client, Issue(grant=grant, user=ann, derived_from=parents, **order))
    return grant


def live(server: Server) -> int:
    with server.begin() as engine:
        return len(engine.stores.grants.search(GrantFilter(live_at=engine.now), limit=1000))


@pytest.mark.parametrize("kind", KINDS)
def test_the_act_waits_for_a_request_that_issues_and_ends_what_it_issued(
    servers: tuple[Server, Server], kind: str
) -> None:
    with servers[0].begin() as engine:
        act = act_about(engine, kind)

    def end() -> Ended:
        return sum(ending.end(servers[1].begin, act), Ended())

    with ThreadPoolExecutor(1) as threads:
        with servers[0].begin() as engine:
            issued(engine)
            ends = threads.submit(end)
            # It cannot be done before the request is.
            assert not threading.Event().wait(0.2) and not ends.done()
        done = ends.result(timeout=30)
    assert (done.grants, done.refresh_tokens, done.access_tokens) == (1, 1, 1)
    assert live(servers[0]) == 0


def test_whoever_ends_a_grant_waits_for_what_is_derived_from_it_and_ends_that(
    servers: tuple[Server, Server],
) -> None:
    """TX-10, T163: a grandchild that is not committed yet hangs on its grandparent: it ends with that."""
    first, second = servers
    with first.begin() as engine:
        issued(engine)
        (root,) = engine.stores.grants.search(GrantFilter(live_at=engine.now), limit=9)
        child = derived(engine, (root,))

    def end() -> bool:
        with second.begin() as engine:
            return engine.stores.grants.revoke(root.grant_id, engine.now, "ended")

    with ThreadPoolExecutor(1) as threads:
        with first.begin() as engine:
            derived(engine, (child, root))
            ends = threads.submit(end)
            assert not threading.Event().wait(0.2) and not ends.done()
        assert ends.result(timeout=30)
    assert live(first) == 0
    with first.begin() as engine, pytest.raises(OAuthError):
        derived(engine, (child, root))


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_requests_each_comes_before_the_act_or_is_refused(
    servers: tuple[Server, Server], kind: str
) -> None:
    with servers[0].begin() as engine:
        act = act_about(engine, kind)
    over, begun = threading.Event(), threading.Event()
    ended: list[Ended] = []

    def work(number: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        if number == ISSUERS:
            begun.wait(30)
            ended.extend(ending.end(servers[1].begin, act))
            over.set()
            return seen
        while not over.is_set():
            try:
                with servers[number % 2].begin() as engine:
                    if engine.resources.find(NOTES) is None:
                        break
                    issued(engine)
                seen["issued"] += 1
                begun.set()
            except OAuthError:
                seen["refused"] += 1
            except StorageUnavailable:
                seen["busy"] += 1
        return seen

    seen = sum(at_once(ISSUERS + 1, work), Counter())
    total = sum(ended, Ended())
    assert total.grants == total.refresh_tokens == seen["issued"] >= 1
    assert live(servers[0]) == 0
