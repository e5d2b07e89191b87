"""Roles of the console, and how recent a sign-in each of them needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from authserver.api import Session, User

# How many seconds the clocks of our processes may differ. A sign-in that is further in the future was made before the clock
# was set back, so its age is not known.
_APART = 60


class Role(IntEnum):
    """What an operator may do; each role may do what those before it may.

    READ sees everything. OPERATE ends access and helps people and clients. ADMINISTER changes clients, resources and keys.
    """

    READ = 1
    OPERATE = 2
    ADMINISTER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which groups may use the pages.

    Attributes:
        groups: the groups whose members have a role; nobody else has it.
        age_for_reading: for how many seconds after a sign-in somebody may read; 0: as long as the session lasts.
        age_for_changing: the same for changes.
    """

    groups: Mapping[Role, frozenset[str]]
    age_for_reading: int
    age_for_changing: int

    def role_of(self, user: User) -> Role | None:
        """The highest role of this person; None if they may see no page."""
        return max((role for role, groups in self.groups.items() if groups & {*user.groups}), default=None)

    def is_recent(self, session: Session, now: datetime, *, changes: bool) -> bool:
        """Whether the sign-in of this session is recent enough."""
        limit = self.age_for_changing if changes else self.age_for_reading
        return not limit or -_APART <= (now - session.authenticated_at).total_seconds() <= limit
