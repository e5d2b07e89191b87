"""F1: kill -9 one of two server processes under load, at random moments and at named points of a transaction."""

from __future__ import annotations

import random
import time

import pytest

from tests.faults.invariants import assert_hold
from tests.faults.points import POINTS, Trap

# Seconds within which a new process serves, not counting those in which other programs had all processors.
RECOVERY = 5


def test_a_killed_process_takes_nothing_with_it(faulty, is_long, report):
    """G-04, R-07, T115: what clients were told is in the tables and in the events, and there are no halves."""
    with faulty.load() as load:
        recoveries = []
        for number in range(150 if is_long else 3):
            time.sleep(random.uniform(0.2, 0.6))
            recoveries.append(faulty.replace(faulty.processes[number % 2]))
        for process in faulty.processes:
            assert process.get("/health/ready").status == 200
    seen = assert_hold(faulty.server, load.ledger)
    assert seen["answers with tokens"] > 10, seen
    assert max(recovery.own for recovery in recoveries) < RECOVERY
    report("F1 killed at random", seen, load, max(recoveries), times=len(recoveries))


@pytest.mark.parametrize("point", POINTS)
def test_a_process_that_is_killed_at_a_named_point_leaves_no_half(faulty, point, is_long, report):
    """T115: just before each statement that counts, and between the commit and the answer."""
    trap = Trap(faulty.folder)
    with faulty.load() as load:
        recoveries = []
        for _ in range(20 if is_long else 1):
            victim = faulty.process_of(trap.wait(point))
            recoveries.append(faulty.replace(victim))
    seen = assert_hold(faulty.server, load.ledger)
    assert max(recovery.own for recovery in recoveries) < RECOVERY
    report(f"F1 killed {point}", seen, load, max(recoveries), times=len(recoveries))
    assert load.ledger.statuses()[0] >= 1
