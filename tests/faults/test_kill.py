"""kill -9 in the middle of a load of code redemptions: nothing acknowledged is lost, nothing happens twice."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from authserver.engine.crypto import digests
from authserver.engine.records import TokenKind

WORKERS = 3
# Seconds between two codes of a worker: a starting process needs some of the machine, too.
PAUSE = 0.03


@dataclass
class Entry:
    """What a client knows of one code: each answer it saw; None where the connection ended without one."""

    code: str
    answers: list = field(default_factory=list)


def test_no_answer_is_lost_and_no_code_is_spent_twice(cluster, is_long):
    """G-04, R-07, T115: after kills at random moments the tables hold what clients were told, and no halves."""
    kills = 100 if is_long else 3
    client, secret = cluster.server.add_client(first_party=True)
    over, ledger = threading.Event(), []
    workers = [
        threading.Thread(target=redeem_until, args=(over, cluster, client, secret, ledger))
        for _ in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    try:
        for number in range(kills):
            time.sleep(random.uniform(0.2, 0.6))
            victim = cluster.processes[number % 2]
            victim.kill()
            victim.start()
            victim.wait()
    finally:
        over.set()
        for worker in workers:
            worker.join(timeout=60)

    check(cluster, ledger)
    seen = Counter(answer.status if answer else None for entry in ledger for answer in entry.answers)
    assert seen[200] > 10 * kills, seen
    assert seen[None] >= kills, seen
    assert set(seen) <= {200, 400, None}, seen


def redeem_until(over, cluster, client, secret, ledger):
    """Redeem a code after another at either process; half of the lost answers are asked for again elsewhere."""
    browser = cluster.server.browser()
    while not over.is_set():
        time.sleep(PAUSE)
        entry = Entry(cluster.server.code(client, browser))
        ledger.append(entry)
        processes = random.sample(cluster.processes, 2)
        entry.answers.append(ask(cluster, processes[0], client, secret, entry.code))
        if entry.answers == [None] and random.random() < 0.5:
            entry.answers.append(ask(cluster, processes[1], client, secret, entry.code))


def ask(cluster, process, client, secret, code):
    try:
        return cluster.redeem(process, client, secret, code)
    except (OSError, http.client.HTTPException):
        return None


def check(cluster, ledger):
    """The tables against what the clients saw."""
    tokens = {(row["kind"], bytes(row["digest"])): row for row in cluster.server.rows("tokens")}
    refreshes = Counter(row["grant_id"] for (kind, _), row in tokens.items() if kind == "refresh")
    events = Counter(row["grant_id"] for row in cluster.server.events("token.issued"))
    grants = {row["grant_id"]: row for row in cluster.server.rows("grants")}
    for entry in ledger:
        code = tokens["code", digests.digest(TokenKind.CODE, entry.code)]
        grant_id = code["grant_id"]
        spent = code["claimed_at"] is not None
        # All of a redemption, or nothing of it.
        assert (refreshes[grant_id], events[grant_id]) == ((1, 1) if spent else (0, 0))
        succeeded = [answer for answer in entry.answers if answer and answer.status == 200]
        assert len(succeeded) <= 1
        for answer in succeeded:
            assert spent
            refresh_token = answer.json["refresh_token"]
            assert tokens["refresh", digests.digest(TokenKind.REFRESH, refresh_token)]["grant_id"] == grant_id
            assert cluster.server.claims(answer.json["access_token"])["jti"].startswith(grant_id)
        if grants[grant_id]["revoked_at"] is not None:
            # Only somebody who asked twice can have been taken for a replay.
            assert len(entry.answers) == 2
            assert grants[grant_id]["revoked_reason"] == "code-replayed"
        if any(answer and answer.status == 400 for answer in entry.answers):
            assert entry.answers[0] is None
