"""F1: kill -9 one of two server processes under load, at random moments and at named points of a transaction."""

from __future__ import annotations

import random
import time

import pytest

from tests.faults.invariants import assert_hold
from tests.faults.points import POINTS, Trap

# Seconds within which a new process serves.
RECOVERY = 5


def test_a_killed_process_takes_nothing_with_it(faulty, is_long):
    """G-04, R-07, T115: what clients were told is in the tables and in the events, and there are no halves."""
    with faulty.load() as load:
        for number in range(100 if is_long else 3):
            time.sleep(random.uniform(0.2, 0.6))
            faulty.replace(faulty.processes[number % 2])
        for process in faulty.processes:
            assert process.get("/health/ready").status == 200
    seen = assert_hold(faulty.server, load.ledger)
    assert seen["answers with tokens"] > 10, seen


@pytest.mark.parametrize("point", POINTS)
def test_a_process_that_is_killed_at_a_named_point_leaves_no_half(faulty, point, is_long):
    """T115: just before each statement that counts, and between the commit and the answer."""
    trap = Trap(faulty.folder)
    with faulty.load() as load:
        for _ in range(20 if is_long else 1):
            victim = faulty.process_of(trap.wait(point))
            faulty.replace(victim)
    assert_hold(faulty.server, load.ledger)
    assert load.ledger.statuses()[0] >= 1
