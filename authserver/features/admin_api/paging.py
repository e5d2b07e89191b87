"""Lists in pages, each with the cursor of the next one; and ETags."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from authserver.api import Parameter, Problem, Unsealable, from_text, to_text
from authserver.features.admin_api import problems
from authserver.features.admin_api.entries import Answer, Call

LIMIT = Parameter(
    description="How many items a page has at most; 50 unless given.",
    schema={"type": "integer", "minimum": 1, "maximum": 100},
)
AFTER = Parameter(description="The cursor: `next` in the answer of the previous page.")
DEFAULT_LIMIT, MAXIMUM_LIMIT = 50, 100
# The purpose of the MAC of a cursor.
CURSOR = "admin-api-cursor"


def limit_of(call: Call) -> int:
    """How many items a page has at most. Raises Problem."""
    text = call.query.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MAXIMUM_LIMIT and len(text) <= 3):
        raise Problem(
            problems.INVALID_PARAMETER, f"limit: expected a whole number from 1 to {MAXIMUM_LIMIT}."
        )
    return int(text)


def place_of(call: Call, *, names: int = 1) -> tuple[str, ...] | None:
    """The place after which a page begins; None for the first. Raises Problem for a cursor that is not of this list.

    Args:
        names: how many texts a place has here.
    """
    text = call.query.get("after")
    if text is None:
        return None
    try:
        raw = from_text(text)
        mac, said = raw[:32], raw[32:]
        if call.engine.ring.mac_matches(_in_list(call, said), mac, purpose=CURSOR):
            place = tuple(json.loads(said))
            if len(place) == names:
                return place
    except (Unsealable, ValueError):
        pass
    raise Problem(
        problems.INVALID_CURSOR,
        "after: take the cursor of the previous page, with the same other parameters; or begin again without it.",
    )


Item = TypeVar("Item")
# A search reads at most this many records for one page; the next page continues there.
LOOKED_AT, BATCH = 1_000, 100


def gathered(
    call: Call,
    read: Callable[[tuple[str, ...], int], Sequence[Item]],
    place: Callable[[Item], tuple[str, ...]],
    shown: Callable[[Item], Mapping[str, Any]],
    *,
    fits: Callable[[Item], bool] | None = None,
    start: tuple[str, ...] = ("",),
) -> Answer:
    """A page of a list. Each record has a place in the order of the list, which is a tuple of texts.

    Args:
        read: takes a place and a number, and returns at most so many records after that place.
        place: returns the place of a record.
        shown: returns a record as it is answered.
        fits: says whether a record belongs to the list; None for all.
        start: the place before the first record.

    Raises:
        Problem: the limit or the cursor cannot be used.
    """
    limit, after = limit_of(call), place_of(call, names=len(start)) or start
    found: list[Item] = []
    size, looked_at = (limit + 1 if fits is None else BATCH), 0
    while looked_at < LOOKED_AT:
        batch = read(after, size)
        for item in batch:
            if len(found) == limit:
                return page_of(call, map(shown, found), after)
            after = place(item)
            if fits is None or fits(item):
                found.append(item)
        if len(batch) < size:
            return page_of(call, map(shown, found), None)
        looked_at += len(batch)
    return page_of(call, map(shown, found), after)


def page_of(call: Call, items: Iterable[Mapping[str, Any]], next_place: tuple[str, ...] | None) -> Answer:
    """A page: its items, and the cursor of the next one if there is one."""
    after = ""
    if next_place is not None:
        said = json.dumps(next_place).encode()
        after = to_text(call.engine.ring.mac(_in_list(call, said), purpose=CURSOR) + said)
    return Answer(body={"items": list(items), "next": after or None}, after=after)


def _in_list(call: Call, said: bytes) -> bytes:
    """A place with the path and the search parameters, so that its MAC is valid only for this list."""
    others = sorted(pair for pair in call.query.pairs() if pair[0] not in ("after", "limit"))
    return json.dumps([call.path, others]).encode() + b"\0" + said


def etag_of(record: Mapping[str, Any], *, without: Iterable[str] = ()) -> str:
    """The ETag of an object, which changes when the object changes.

    Args:
        without: members that do not count because they change by use, such as `last_used_at`.
    """
    left = {name: value for name, value in record.items() if name not in without}
    made = hashlib.sha256(msgspec.json.encode(left, order="sorted")).digest()
    return base64.urlsafe_b64encode(made[:18]).decode()
