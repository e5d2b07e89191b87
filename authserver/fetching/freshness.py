"""How long an answer may be used, by the rules of HTTP for a cache that many share (RFC 9111)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from authserver.engine.documents import DocumentKind
from authserver.limits import MAXIMUM_VALIDATOR

# A directive with or without value; a value may be a quoted string, in which commas part nothing.
_DIRECTIVE = re.compile(r'\s*([^\s=,"]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*))?\s*(?:,|$)')


def lifetime(headers: Mapping[str, str], kind: DocumentKind[object]) -> float | None:
    """Seconds for which an answer with these headers may be used; None if it must not be kept.

    Within the bounds of its kind. What forbids to keep it counts without bounds; what cannot be read counts as 0
    (RFC 9111, 4.2.1).
    """
    directives = _directives(headers.get("cache-control", ""))
    if "no-store" in directives or "private" in directives or headers.get("vary", "").strip() == "*":
        return None
    seconds = _said(directives, headers)
    if seconds is None:
        return kind.default_age
    seconds -= _seconds(headers.get("age", "0")) or 0
    return min(max(seconds, kind.minimum_age), kind.maximum_age)


def validators(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers of a request that asks whether an answer with these headers is still current (RFC 9110, 13.1)."""
    found = {
        "If-None-Match": headers.get("etag", ""),
        "If-Modified-Since": headers.get("last-modified", ""),
    }
    return {
        name: text
        for name, text in found.items()
        if text and len(text) <= MAXIMUM_VALIDATOR and text.isascii() and text.isprintable()
    }


def retry_after(headers: Mapping[str, str]) -> int:
    """Seconds that the server asks to wait (RFC 9110, 10.2.3); 0 if it names no number of seconds."""
    return _seconds(headers.get("retry-after", "")) or 0


def _said(directives: Mapping[str, str], headers: Mapping[str, str]) -> float | None:
    """What the server says, in the order in which it counts; None for nothing."""
    if "no-cache" in directives:
        return 0
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return _seconds(directives[name]) or 0
    if "expires" in headers:
        try:
            ends = parsedate_to_datetime(headers["expires"])
            return (ends - parsedate_to_datetime(headers["date"])).total_seconds()
        except (KeyError, TypeError, ValueError, OverflowError):
            return 0
    return None


def _directives(text: str) -> Mapping[str, str]:
    """By lower-case name, values without quotes. Of two with one name the stricter counts: an unreadable one."""
    found: dict[str, str] = {}
    for name, value in _DIRECTIVE.findall(text):
        name, value = name.lower(), value.strip('"')
        found[name] = "" if found.get(name, value) != value else value
    return found


def _seconds(text: str) -> int | None:
    text = text.strip()
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text) else None
