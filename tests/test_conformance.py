"""Each id that code and tests quote is a promise of docs/promises.toml, and each promise has its tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
sys.path.insert(0, str(CHECKOUT / "docs"))

from conformance import Promise, promises, proofs, quoted, sources  # noqa: E402 - it is beside the pages

AREAS = promises()
PROMISES = {promise.id: promise for area in AREAS.values() for promise in area}
# An id of two halves may be quoted whole in code; a test proves one of them, and says which.
WHOLE = {name.partition(".")[0] for name in PROMISES}
# They look like ids.
LOOK_ALIKES = {"SELECTOR-16", "T201"}
LINE = "E-04.a, DPOP-04: T140. UTF-8, P-256, ML-DSA-44, RFC-9126, ISO-8601, XA-01x; E-05.and"
FOUND = ["E-04.a", "DPOP-04", "T140", "E-05"]


def test_an_id_that_is_quoted_has_a_statement() -> None:
    unknown = {
        (str(path.relative_to(CHECKOUT)), name)
        for path in sources("authserver", "plugins", "tests")
        for name in quoted(path.read_text(encoding="utf-8"))
        if name not in {*PROMISES, *WHOLE, *LOOK_ALIKES}
    }
    assert not unknown, "give it a line in docs/promises.toml, or quote the section of the document instead"


def test_a_promise_has_a_test() -> None:
    proven = proofs()
    assert [name for name in PROMISES if name not in proven] == [], "quote the id in the test that proves it"


@pytest.mark.parametrize("promise", PROMISES.values(), ids=PROMISES)
def test_a_promise_is_one_plain_sentence(promise: Promise) -> None:
    assert promise.statement.endswith(".")
    assert 20 <= len(promise.statement) <= 220
    assert promise.statement.count("`") % 2 == 0


def test_a_half_is_quoted_by_its_own_name() -> None:
    """A test that quotes the whole of a promise with two halves would prove neither."""
    halves = {name.partition(".")[0] for name in PROMISES if "." in name}
    assert len(halves) >= 10
    assert {name: dict(found) for name, found in proofs().items() if name in halves} == {}


def test_ids_are_found_and_what_looks_like_them_is_not() -> None:
    assert quoted(LINE) == FOUND
