"""Where an authorization request takes a browser: back to the client, or to a page for a person."""

from __future__ import annotations

import html
import re
from urllib.parse import urljoin

from authserver.doctor.reading import origin_of, page_text, parts_of, query_of
from authserver.doctor.wire import Answer, Wire

MAXIMUM_REDIRECTS = 3
# A cookie at the beginning of a Set-Cookie header; several of them come as one, joined by commas (RFC 6265, 4.1.1).
_COOKIE = re.compile(r"(?:^|,\s*)([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([\x21\x23-\x2B\x2D-\x3A\x3C-\x5B\x5D-\x7E]*)")


def sent_back(answer: Answer, redirect_uri: str) -> dict[str, str] | None:
    """The parameters that the client gets at this redirect URI by a redirect, or by a page that goes there; else None."""
    if answer.location:
        return query_of(answer.location) if _is_below(answer.location, redirect_uri) else None
    text = html.unescape(answer.body.decode("utf-8", "replace"))
    for found in re.finditer(re.escape(redirect_uri) + r"[?&][^\s\"'<>]*", text):
        parameters = query_of(found[0])
        if "error" in parameters or "code" in parameters:
            return parameters
    return None


def _is_below(location: str, redirect_uri: str) -> bool:
    return location == redirect_uri or location.startswith((f"{redirect_uri}?", f"{redirect_uri}&"))


def looks_like(answer: Answer, accepted: Answer) -> bool:
    """Whether two answers show a person the same kind of page."""
    if answer.status != accepted.status:
        return False
    if not accepted.location:
        return page_text(answer.body) == page_text(accepted.body)
    first, second = (parts_of(joined(each.url, each.location)) for each in (answer, accepted))
    return first.netloc == second.netloc and first.path.split("/")[:2] == second.path.split("/")[:2]


def followed(wire: Wire, answer: Answer) -> Answer | None:
    """The page to which an answer redirects, with the cookies that were set on the way; None if it is at another host.

    After three redirects the last one is returned.

    Raises:
        Unanswered: one of the redirects is not answered.
    """
    origin, cookies = origin_of(answer.url), dict[str, str]()
    for _ in range(MAXIMUM_REDIRECTS):
        if not answer.location:
            break
        address = joined(answer.url, answer.location)
        if origin_of(address) != origin:
            return None
        cookies |= dict(_COOKIE.findall(answer.headers.get("set-cookie", "")))
        headers = {"Accept": "text/html"}
        if cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        answer = wire.ask("GET", address, headers, page=True)
    return answer


def joined(base: str, location: str) -> str:
    """The absolute URL of a redirect (RFC 9110, 10.2.2); a text that is no URL is returned as it is."""
    try:
        return urljoin(base, location)
    except ValueError:
        return location


def cannot_be_framed(page: Answer) -> bool:
    """RFC 9700, 4.16."""
    policy = page.headers.get("content-security-policy", "").lower()
    return "frame-ancestors" in policy or "x-frame-options" in page.headers


def without_query(url: str) -> str:
    """The URL without its query, which may hold a code or another secret."""
    return url.partition("?")[0]
