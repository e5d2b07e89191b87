"""Reads answers of strangers without trust: a value of the wrong type counts as absent, and quotations are short."""

from __future__ import annotations

import base64
import html
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

Json = Mapping[str, Any]

MAXIMUM_QUOTED = 160
# Characters of a page that are read.
MAXIMUM_PAGE = 65_536
# RFC 9110, 5.6.2 and 5.6.4.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ATTRIBUTE = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")')
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|$)")
_BETWEEN = re.compile(r"[ \t]*,?[ \t,]*")
# The words of OAuth with which a page names a refusal.
_OF_OAUTH = re.compile(r"\b(?:invalid_\w+|unauthorized_client|redirect_uri|client_id|code_challenge)\b")
_TAG_NAME = re.compile(r"/?[a-z][a-z0-9]*", re.IGNORECASE)
# The content of these elements is not for people.
_ENDS = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style")}


def text_of(document: Json, name: str) -> str:
    """A member that is a text; "" when it is anything else."""
    value = document.get(name)
    return value if isinstance(value, str) else ""


def texts_of(document: Json, name: str) -> tuple[str, ...]:
    """A member that is a list of texts; () when it is anything else."""
    value = document.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return ()
    return tuple(value)


def has(document: Json, name: str) -> bool:
    """Whether a member has a value; null, empty and false count as none."""
    return bool(document.get(name))


def quoted(text: str) -> str:
    """A text of a stranger in one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= MAXIMUM_QUOTED else line[: MAXIMUM_QUOTED - 1] + "…"


def counted(number: int, thing: str) -> str:
    """A number of things."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def page_text(body: bytes) -> str:
    """The text of an error page: its heading, else its title, and the words of OAuth on it."""
    pieces = list(_pieces(body[:MAXIMUM_PAGE].decode("utf-8", "replace")))
    title = next(filter(None, (_inside(name, pieces) for name in ("h1", "title"))), "")
    texts = [_plain(text) for _, text in pieces]
    told = [text for text in texts if text != title and _OF_OAUTH.search(text)]
    if title or told:
        return quoted(": ".join(dict.fromkeys([title, *told[:2]])))
    return quoted(" ".join(texts))


def _pieces(page: str) -> Iterator[tuple[str, str]]:
    """The texts between the tags, each with the name of the tag before it; the page is read once."""
    at, tag = 0, ""
    while (opened := page.find("<", at)) >= 0:
        yield tag, page[at:opened]
        closed = page.find(">", opened)
        if closed < 0:
            at = opened
            break
        at, name = closed + 1, _TAG_NAME.match(page, opened + 1, closed)
        tag = name[0].lower() if name else ""
        if tag in _ENDS:
            end = _ENDS[tag].search(page, at)
            if end is None:
                return
            at = end.start()
    yield tag, page[at:]


def _inside(name: str, pieces: Iterable[tuple[str, str]]) -> str:
    """The text in the first tag of this name."""
    later = itertools.dropwhile(lambda piece: piece[0] != name, pieces)
    inside = itertools.takewhile(lambda piece: piece[0] != f"/{name}", later)
    return _plain(" ".join(text for _, text in inside))


def _plain(text: str) -> str:
    return " ".join(html.unescape(text).split())


def parts_of(url: str) -> SplitResult:
    """The parts of a URL; all of them are empty for a text that is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, as written."""
    parts = parts_of(url)
    return f"{parts.scheme}://{parts.netloc}"


def query_of(url: str) -> dict[str, str]:
    """The parameters of a URL; if one occurs twice, its last value."""
    return dict(parse_qsl(parts_of(url).query, keep_blank_values=True))


def challenges(header: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The challenges of a WWW-Authenticate header: each scheme with its attributes in order (RFC 9110, 11.6.1).

    Reading stops at the first text that breaks the grammar; the attributes before it are returned.
    """
    found: list[tuple[str, list[tuple[str, str]]]] = []
    at = 0
    while at < len(header):
        if between := _BETWEEN.match(header, at):
            at = between.end()
        if found and (attribute := _ATTRIBUTE.match(header, at)):
            text = attribute[2] if attribute[2] is not None else re.sub(r"\\(.)", r"\1", attribute[3])
            found[-1][1].append((attribute[1].lower(), text))
            at = attribute.end()
        elif scheme := _SCHEME.match(header, at):
            found.append((scheme[1], []))
            at = scheme.end()
        else:
            break
    return found


def encoded(value: bytes) -> str:
    """Base64 for URLs, without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
