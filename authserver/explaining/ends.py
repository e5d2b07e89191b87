"""How much ended, or would end, in words (`engine.ending`)."""

from __future__ import annotations

from authserver.engine.ending import Ended

# What the numbers are called: of one, and of several. JWTs have a sentence of their own.
_WORDS = {
    "sessions": ("session", "sessions"),
    "grants": ("grant", "grants"),
    "narrowed_grants": ("narrowed grant", "narrowed grants"),
    "codes": ("code", "codes"),
    "refresh_tokens": ("refresh token", "refresh tokens"),
    "access_tokens": ("access token", "access tokens"),
    "consents": ("remembered consent", "remembered consents"),
    "narrowed_consents": ("narrowed consent", "narrowed consents"),
    "registrations": ("registration", "registrations"),
}


def parts(ended: Ended) -> list[tuple[int, str]]:
    """Each number that is not zero, with the words for it."""
    return [
        (number, _WORDS[name][number != 1])
        for name, number in ended.counts.items()
        if number and name in _WORDS
    ]


def sentence(ended: Ended, *, dry_run: bool = False) -> str:
    """How much ended, or would end, in one line."""
    told = [f"{number:,} {words}" for number, words in parts(ended)]
    verb = "Would end" if dry_run else "Ended"
    return f"{verb}: {', '.join(told)}." if told else f"Nothing {'would end' if dry_run else 'ended'}."


def jwt_sentence(ended: Ended, *, dry_run: bool = False) -> str:
    """What cannot be called back, and until when; empty if there is nothing."""
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
        f"JWT access tokens cannot be called back: {number} may be valid. An API that does not introspect accepts one until it "
        f"expires, by the present settings {at_the_latest}{now}."
    )
