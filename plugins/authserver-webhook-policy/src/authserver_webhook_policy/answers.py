"""Reads the answers of an endpoint strictly, so that a mistake there never becomes a permission here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from types import NoneType, UnionType
from typing import Any

import msgspec

from authserver.api import ClientMetadata, Identity, Wait, canonical_resource

IDENTIFIER = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
MEMBERS = frozenset({"verdict", "reason", "value", "error_code", "wait"})
VERDICTS = ("allow", "narrow", "deny", "none")
MAXIMUM_REASON = 64
MAXIMUM_NAME = 100
MAXIMUM_ITEMS = 1000
MAXIMUM_WAIT = 31 * 86_400

# Not printable, but part of names in some scripts; the server checks where they may be.
_JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"))
_ERROR_CODE = re.compile(r"[a-z][a-z0-9_]{0,49}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")  # RFC 6749, 3.3


class UnusableAnswer(Exception):
    """The endpoint's answer is not valid; the message repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the right form; the meaning of its value depends on the hook."""

    verdict: str
    reason: str
    value: Any
    error_code: str | None
    wait: Wait | None


def read(body: bytes) -> Answer:
    """The answer in a body. Raises UnusableAnswer."""
    try:
        answer = json.loads(body.decode("utf-8"), object_pairs_hook=_members, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise UnusableAnswer("it is not JSON in UTF-8, or has a name twice") from None
    if not isinstance(answer, dict):
        raise UnusableAnswer("it is not a JSON object")
    if not answer.keys() <= MEMBERS:
        raise UnusableAnswer("it has members other than verdict, reason, value, error_code and wait")
    verdict, reason, value = answer.get("verdict"), answer.get("reason"), answer.get("value")
    if verdict not in VERDICTS:
        raise UnusableAnswer("verdict is not one of allow, narrow, deny, none")
    if reason is None and verdict == "none":
        reason = ""
    elif not isinstance(reason, str) or len(reason) > MAXIMUM_REASON or not IDENTIFIER.fullmatch(reason):
        raise UnusableAnswer("reason is not an identifier of small letters, digits and hyphens")
    if verdict in ("deny", "none") and value is not None:
        raise UnusableAnswer(f"{verdict} has no value")
    error_code = answer.get("error_code")
    if error_code is not None:
        if verdict != "deny":
            raise UnusableAnswer(f"{verdict} has no error_code")
        if not isinstance(error_code, str) or not _ERROR_CODE.fullmatch(error_code):
            raise UnusableAnswer("error_code is not a code of small letters, digits and underscores")
    wait = answer.get("wait")
    if wait is not None and verdict != "deny":
        raise UnusableAnswer(f"{verdict} has no wait")
    return Answer(verdict, reason, value, error_code, None if wait is None else _wait(wait))


def reader_of(kind: Any) -> Callable[[Any], Any]:
    """The function that reads the value of a hook, by its type. It raises UnusableAnswer."""
    if kind is NoneType:
        return nothing
    if isinstance(kind, UnionType):
        # An endpoint gives a value of the first of several types, which is the simplest.
        return reader_of(kind.__args__[0])
    if kind == tuple[str, ...]:
        return scopes
    return partial(_of_type, kind)


def nothing(value: Any) -> None:
    """The value of a hook without a value."""
    if value is not None:
        raise UnusableAnswer("this hook has no value")


def scopes(value: Any) -> tuple[str, ...]:
    """A list of scopes, each once."""
    return _texts(value, "value", _SCOPE)


def resource(value: Any, asked: str | None) -> str:
    """The canonical resource; it must be the one that was asked for, in any spelling."""
    if not isinstance(value, str):
        raise UnusableAnswer("value is no resource")
    if value == asked:
        return value
    try:
        canonical = canonical_resource(value)
    except Exception:
        raise UnusableAnswer("value is no resource") from None
    if asked is not None and canonical != canonical_resource(asked):
        raise UnusableAnswer("value is another resource than the one asked for")
    return value


def identity(value: Any) -> Identity:
    """Who is signing in."""
    if not isinstance(value, dict) or not value.keys() <= {"username", "display_name"}:
        raise UnusableAnswer("value is not an object of username and display_name")
    username, display_name = value.get("username"), value.get("display_name", "")
    if not _is_name(username) or not username:
        raise UnusableAnswer("username is not a text of 1 to 100 printable characters")
    if not _is_name(display_name):
        raise UnusableAnswer("display_name is not a text of up to 100 printable characters")
    return Identity(username=username, display_name=display_name)


def metadata(value: Any, asked: ClientMetadata) -> ClientMetadata:
    """The requested metadata without the values that the endpoint leaves out.

    A client that asks for no scopes may be given any.
    """
    confined = {
        "scopes": asked.scopes,
        "grant_types": asked.grant_types,
        "redirect_uris": asked.redirect_uris,
    }
    if not isinstance(value, dict) or not value.keys() <= confined.keys():
        raise UnusableAnswer("value is not an object of scopes, grant_types and redirect_uris")
    changes: dict[str, Any] = {
        name: scopes(given) if name == "scopes" else _texts(given, name) for name, given in value.items()
    }
    for name, given in changes.items():
        if not set(given) <= set(confined[name]) and (name != "scopes" or asked.scopes):
            raise UnusableAnswer(f"{name} has something that was not asked for")
    if "authorization_code" not in changes.get("grant_types", asked.grant_types):
        changes["response_types"] = ()
    return replace(asked, **changes)


def _wait(value: Any) -> Wait:
    if not isinstance(value, dict) or not {"seconds"} <= value.keys() <= {"seconds", "leaves_event"}:
        raise UnusableAnswer("wait is not an object of seconds and leaves_event")
    seconds, leaves_event = value["seconds"], value.get("leaves_event", True)
    if type(seconds) is not int or not 1 <= seconds <= MAXIMUM_WAIT:
        raise UnusableAnswer("seconds is not a whole number from 1 to those of 31 days")
    if type(leaves_event) is not bool:
        raise UnusableAnswer("leaves_event is not true or false")
    return Wait(seconds, leaves_event)


def _of_type(kind: Any, value: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise UnusableAnswer("value has not the type that this hook needs") from None


def _texts(value: Any, name: str, pattern: re.Pattern[str] | None = None) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAXIMUM_ITEMS:
        raise UnusableAnswer(f"{name} is not a list, or is too long")
    for item in value:
        if not isinstance(item, str) or (pattern and not pattern.fullmatch(item)):
            raise UnusableAnswer(f"{name} has something that cannot be in it")
    return tuple(dict.fromkeys(value))


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and len(text) <= MAXIMUM_NAME and text.translate(_JOINERS).isprintable()


def _members(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    listed = list(pairs)
    members = dict(listed)
    if len(members) != len(listed):
        raise ValueError("a name occurs twice")
    return members


def _refuse(_constant: str) -> Any:
    raise ValueError("a number that is not finite")
