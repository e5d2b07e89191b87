"""Scopes by team: a `scope_decision` for authserver."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from authserver.api import Decision, User, deny, hookimpl, narrow
from authserver_team_scopes.roster import Roster, Watched, zone_named

__all__ = ["TeamScopes"]


@dataclass(eq=False)
class TeamScopes:
    """Let people have only the scopes of their teams, and only at the hours of the teams.

    It narrows and denies, and never allows: other plugins decide which client may have which scopes.

    Attributes:
        file: path of the teams, `.toml` or `.csv` (see the README for both forms).
        timezone: of hours and days, for teams that name no time zone.
        check_seconds: how many seconds pass, at least, between two checks whether the file has changed.
    """

    # It asks no other service, so it needs no time limit.
    immediate: ClassVar[bool] = True
    reasons: ClassVar[frozenset[str]] = frozenset(
        {"scopes-of-teams", "outside-hours", "not-for-team", "in-no-team"}
    )

    file: str
    timezone: str = "UTC"
    check_seconds: int = 5
    _watched: Watched = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if "\n" in self.file:
            raise ValueError("file: this is the text of a file; give its path, without `file:` before it")
        if self.check_seconds < 0:
            raise ValueError("check_seconds: must be 0 or more")

    def prepare(self) -> None:
        """Read the file, so that a broken one stops the start. Raises ValueError."""
        try:
            zone = zone_named(self.timezone)
        except ValueError as error:
            raise ValueError(f"timezone: {error}") from None
        self._watched = Watched(Path(self.file), zone, self.check_seconds)

    @hookimpl
    def scope_decision(
        self, user: User | None, requested: tuple[str, ...]
    ) -> Decision[tuple[str, ...]] | None:
        if user is None:
            return None
        roster: Roster = self._watched.current()
        teams = roster.teams_of(user.username)
        if not teams:
            return deny("in-no-team")
        ever = {scope for team in teams for scope in team.scopes}
        now = datetime.now(UTC)
        open_now = tuple(dict.fromkeys(scope for team in teams if team.is_open(now) for scope in team.scopes))
        closed = ever.difference(open_now)
        if requested and not ever.intersection(requested):
            return deny("not-for-team")
        if not open_now or (requested and not set(open_now).intersection(requested)):
            return deny("outside-hours")
        if closed.intersection(requested or closed):
            return narrow("outside-hours", open_now)
        return narrow("scopes-of-teams", open_now)
