"""Requests with a password wait for their turn without a thread, and each source has one in turn."""

from __future__ import annotations

from authserver.web.lane import Lane


def test_each_source_has_a_turn_in_turn() -> None:
    """T103: who sends many waits behind somebody who sends one."""
    lane = Lane[str](2, 100)
    entered = [lane.enter(f"a{number}", "a", number) for number in range(5)]
    assert entered == [True, True, False, False, False]
    assert [lane.enter(name, name[0], 9) for name in ("b0", "c0", "b1")] == [False] * 3
    assert [lane.leave() for _ in range(6)] == ["a2", "b0", "c0", "a3", "b1", "a4"]
    assert [lane.leave(), lane.leave()] == [None, None]
    assert lane.enter("d0", "d", 10)


def test_nobody_waits_who_would_wait_for_too_long() -> None:
    """T104: they are refused at once, and only those of the source that has sent too many."""
    lane = Lane[str](1, 4)
    assert lane.enter("a0", "a", 1.0)
    assert not lane.is_full("a", 5.0)
    lane.enter("a1", "a", 2.0)
    assert (lane.is_full("a", 1.5), lane.is_full("a", 2.5), lane.is_full("b", 2.5)) == (False, True, False)
    lane.enter("a2", "a", 2.0)
    assert lane.is_full("a", 1.5)
    lane.enter("b0", "b", 2.0)
    assert not lane.is_full("c", 1.5)
    lane.enter("b1", "b", 2.0)
    assert lane.is_full("c", 1.5)
    lane.leave()
    assert not lane.is_full("c", 1.5)


def test_nothing_is_kept_of_who_had_a_turn() -> None:
    """T154."""
    lane = Lane[str](1, 100)
    for number in range(50):
        lane.enter("request", f"192.0.2.{number}", 0.0)
    for _ in range(50):
        lane.leave()
    assert not lane._of_source and not lane._waiting and not lane._running
