"""The groups and attributes of people: which can be stored, and how they change.

Policies decide by them, also when a token is refreshed and nobody is signed in. Therefore they are stored with the person.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from authserver.engine.context import Engine
from authserver.engine.crypto import strict_json
from authserver.engine.printable import without_hidden
from authserver.engine.questions import Identity
from authserver.engine.records import EventType, User
from authserver.limits import (
    MAXIMUM_ATTRIBUTE_NAME,
    MAXIMUM_ATTRIBUTE_VALUE,
    MAXIMUM_ATTRIBUTE_VALUES,
    MAXIMUM_ATTRIBUTES,
    MAXIMUM_DISPLAY_NAME,
    MAXIMUM_GROUP,
    MAXIMUM_GROUPS,
    MAXIMUM_JSON,
)

# As directories name attributes (RFC 4512, 2.5); without `=`, which ends a name on the command line.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:;-]*")


class BadAttributes(ValueError):
    """Groups or attributes cannot be stored; the message says why, and contains no value of an attribute."""


class ChangedMeanwhile(Exception):
    """Somebody else changed the person since it was read."""


def checked_groups(groups: Iterable[str]) -> tuple[str, ...]:
    """The groups as they are stored: each once, in alphabetical order. Raises BadAttributes."""
    found = tuple(sorted(set(groups)))
    if len(found) > MAXIMUM_GROUPS:
        raise BadAttributes(f"a person is in at most {MAXIMUM_GROUPS} groups")
    if not all(_is_text(group, MAXIMUM_GROUP) for group in found):
        raise BadAttributes(
            f"the name of a group has 1 to {MAXIMUM_GROUP} visible characters, without spaces around it"
        )
    return found


def checked_attributes(attributes: Mapping[str, Iterable[str]]) -> Mapping[str, tuple[str, ...]]:
    """The attributes as they are stored: those that have a value, by name, each value once. Raises BadAttributes."""
    found = {name: tuple(dict.fromkeys(values)) for name, values in sorted(attributes.items())}
    found = {name: values for name, values in found.items() if values}
    if len(found) > MAXIMUM_ATTRIBUTES:
        raise BadAttributes(f"a person has at most {MAXIMUM_ATTRIBUTES} attributes")
    for name, values in found.items():
        if len(name) > MAXIMUM_ATTRIBUTE_NAME or not _NAME.fullmatch(name):
            raise BadAttributes(
                f"{name[:MAXIMUM_ATTRIBUTE_NAME]!r}: the name of an attribute has 1 to {MAXIMUM_ATTRIBUTE_NAME} letters, "
                "digits and `-._:;` of ASCII, and begins with a letter or digit"
            )
        if len(values) > MAXIMUM_ATTRIBUTE_VALUES:
            raise BadAttributes(f"{name}: an attribute has at most {MAXIMUM_ATTRIBUTE_VALUES} values")
        if not all(_is_text(value, MAXIMUM_ATTRIBUTE_VALUE) for value in values):
            raise BadAttributes(
                f"{name}: a value of an attribute has 1 to {MAXIMUM_ATTRIBUTE_VALUE} visible characters, without "
                "spaces around it"
            )
    if len(strict_json.dumps(found)) > MAXIMUM_JSON:
        raise BadAttributes(f"the attributes of a person have at most {MAXIMUM_JSON} bytes of JSON")
    return MappingProxyType(found)


def shortened(text: str, maximum: int = MAXIMUM_DISPLAY_NAME) -> str:
    """The stored form of a text that comes from a browser or directory: printable characters, cut at a limit.

    There are no spaces around it.
    """
    return without_hidden(text[: 4 * maximum]).strip()[:maximum].rstrip()


def as_identified(user: User, identity: Identity) -> User:
    """The user with the groups and attributes that a sign-in plugin gives. Raises BadAttributes."""
    groups, attributes = identity.groups, identity.attributes
    return replace(
        user,
        groups=user.groups if groups is None else checked_groups(groups),
        attributes=user.attributes if attributes is None else checked_attributes(attributes),
    )


def change(
    engine: Engine,
    user: User,
    *,
    display_name: str | None = None,
    groups: Iterable[str] | None = None,
    attributes: Mapping[str, Iterable[str]] | None = None,
) -> User:
    """Replace the given fields of a user; policies see them from the next question on.

    Raises:
        BadAttributes: they cannot be stored.
        ChangedMeanwhile: the person was changed after being read.
    """
    changed = replace(
        user,
        display_name=user.display_name if display_name is None else shortened(display_name),
        groups=user.groups if groups is None else checked_groups(groups),
        attributes=user.attributes if attributes is None else checked_attributes(attributes),
    )
    if changed != user:
        if not engine.stores.users.change(changed, instead_of=user):
            raise ChangedMeanwhile(f"{user.username} was changed by somebody else meanwhile; try again")
        engine.journal.user_id = user.user_id
        record_change(engine, user, changed)
    return changed


def record_change(engine: Engine, before: User, after: User, *, reason: str = "", **details: Any) -> None:
    """Write the event of a change: the groups, and the names of attributes without their values, which may be private."""
    names = before.attributes.keys() | after.attributes.keys()
    changes = {
        "groups_added": sorted(set(after.groups) - set(before.groups)),
        "groups_removed": sorted(set(before.groups) - set(after.groups)),
        "attributes": sorted(
            name for name in names if before.attributes.get(name) != after.attributes.get(name)
        ),
        "display_name": before.display_name != after.display_name,
    }
    found = {name: value for name, value in changes.items() if value}
    engine.record(EventType.USER_CHANGED, reason=reason, details={**found, **details})


def _is_text(text: str, maximum: int) -> bool:
    return 1 <= len(text) <= maximum and text == text.strip() and text == without_hidden(text)
