"""Lists scopes for the consent page: a few in a plain list, many in groups with headings and partly folded."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

# Up to this many scopes are all shown, without headings.
IN_SIGHT = 8

# A part that may be before the name, as in https://api.example.com/notes.read, and the name up to its first separator.
_PREFIX = re.compile(r"(?:.*/)?[^.:/]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownScope:
    """A scope with its sentence; `index` is its position on the page."""

    index: int
    name: str
    sentence: str
    ticked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Scopes that belong together; those in `folded` are out of sight until they are unfolded.

    Attributes:
        heading: the heading; "" for scopes without a group.
        named: whether the operator gave the heading; otherwise it is the beginning of the names.
    """

    heading: str = ""
    named: bool = False
    shown: tuple[ShownScope, ...] = ()
    folded: tuple[ShownScope, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether the fold is open at first: if only some are ticked, its summary could not say which."""
        return len({scope.ticked for scope in self.folded}) == 2


def prefix_of(scope: str) -> str:
    """The first part of a scope's name: `notes` of `notes.read`, `notes:write` and `notes` itself."""
    found = _PREFIX.match(scope)
    return found[0] if found else ""


def is_in_group(scope: str, prefix: str) -> bool:
    """Whether the name is this prefix, or begins with it followed by a separator."""
    rest = scope.removeprefix(prefix)
    return scope.startswith(prefix) and (rest[:1] in ("", ".", ":", "/") or prefix[-1:] in (".", ":", "/"))


def grouped(
    scopes: Iterable[tuple[str, str]],
    *,
    ticked: Collection[str] | None = None,
    headings: Mapping[str, str],
    start: int = 0,
) -> tuple[Group, ...]:
    """The scopes in groups for the page.

    Scopes without a group come first; then the groups, in the order of their first scopes. A group has a heading of the
    operator, or at least two scopes with the same beginning. The first groups that fit are not folded.

    Args:
        scopes: (name, sentence) pairs.
        ticked: the names of the ticked scopes; None for all.
        headings: the headings of groups, by prefix (`settings.scope_groups`).
        start: the index of the first scope, if other lists come before this one.
    """
    shown = [
        ShownScope(index=index, name=name, sentence=sentence, ticked=ticked is None or name in ticked)
        for index, (name, sentence) in enumerate(scopes, start)
    ]
    if len(shown) <= IN_SIGHT:
        return (Group(shown=tuple(shown)),)
    members: dict[str, list[ShownScope]] = {}
    for scope in shown:
        fitting = [prefix for prefix in headings if is_in_group(scope.name, prefix)]
        members.setdefault(max(fitting, key=len, default=prefix_of(scope.name)), []).append(scope)
    alone = [
        scope for prefix, group in members.items() for scope in group if _is_alone(prefix, group, headings)
    ]
    groups = [("", alone)] if alone else []
    groups += [(prefix, group) for prefix, group in members.items() if not _is_alone(prefix, group, headings)]
    room, result = IN_SIGHT, []
    for prefix, group in groups:
        # The first group may be shown in part; later groups are shown whole or not at all.
        fit = len(group) if len(group) <= room else room if room == IN_SIGHT else 0
        room = room - fit if fit == len(group) else 0
        result.append(
            Group(
                heading=headings.get(prefix, prefix),
                named=prefix in headings,
                shown=tuple(group[:fit]),
                folded=tuple(group[fit:]),
            )
        )
    return tuple(result)


def _is_alone(prefix: str, group: list[ShownScope], headings: Mapping[str, str]) -> bool:
    return prefix not in headings and (len(group) < 2 or not prefix)
