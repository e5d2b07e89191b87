"""Says in a sentence how much ended, or would end (`engine.ending`)."""

from __future__ import annotations

from authserver.engine.ending import Ended


def sentence(ended: Ended, *, dry_run: bool = False) -> str:
    """How much ended, or would end, in one line."""
    told = [f"{number:,} {words}" for number, words in ended.told]
    verb = "Would end" if dry_run else "Ended"
    return f"{verb}: {', '.join(told)}." if told else f"Nothing {'would end' if dry_run else 'ended'}."


def jwt_sentence(ended: Ended, *, dry_run: bool = False) -> str:
    """How many JWT access tokens cannot be revoked, and until when they are valid; empty if there are none."""
    if ended.jwts_until is None:
        return ""
    at_the_latest = f"at {ended.jwts_until:%Y-%m-%d %H:%M:%SZ} at the latest"
    if not ended.jwts:
        return (
            "No JWT access token is known to be valid; one that was issued at this moment expires, by the present settings, "
            f"{at_the_latest}."
        )
    number = f"{'at least ' if ended.has_more_jwts else ''}{ended.jwts:,}"
    now = ", if this is done now" if dry_run else ""
    return (
        f"JWT access tokens cannot be revoked: {number} may be valid. An API that does not introspect accepts one until it "
        f"expires, by the present settings {at_the_latest}{now}."
    )
