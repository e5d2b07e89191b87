"""Where links to set a password are kept, and their end. `password_links` makes and uses them."""

from __future__ import annotations

from dataclasses import replace

from authserver.engine.context import Engine
from authserver.engine.crypto import digests

LINK_KIND = "password-link"


def place_of_link(user_id: str, *, asked_for: bool) -> bytes:
    """The key under which the one password link of this kind of a user is kept."""
    return digests.digest(LINK_KIND, f"{user_id} asked for" if asked_for else user_id)


def end_links(engine: Engine, user_id: str, *, dry_run: bool = False) -> int:
    """End the links with which this person could set a password; how many there were.

    Call this before the row of the user is written: the use of a link locks them in the same order.
    """
    return sum(
        _end(engine, place_of_link(user_id, asked_for=asked_for), dry_run=dry_run)
        for asked_for in (False, True)
    )


def _end(engine: Engine, place: bytes, *, dry_run: bool) -> bool:
    kept = engine.stores.kept
    # Repeated if a link was made or used at the same moment.
    while (link := kept.find(LINK_KIND, place)) and link.claimed_at is None and link.expires_at > engine.now:
        if dry_run or kept.change(link, replace(link, expires_at=engine.now)):
            return True
    return False
