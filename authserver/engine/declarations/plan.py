"""The values of planning: what files declare, how to apply it, and what would change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from authserver.engine.declarations.differences import Difference
from authserver.engine.declarations.forms import Forms
from authserver.engine.records import NOTHING, ClientMetadata, InitialAccessToken, Logo
from authserver.engine.setting_records import Declaration, DeclaredKind
from authserver.settings import Secret

DEFAULT_SET = "default"
# Instead of references, what the mark has of a client that was disabled or a resource that was removed, while what was
# granted to it or for it ends.
ENDING: Mapping[str, Any] = {"ending": True}
# A path in the forms, such as ("clients", "billing", "secret").
Path = tuple[str | int, ...]


class Action(StrEnum):
    """What is done with a thing."""

    ADD = "add"
    CHANGE = "change"
    REVOKE = "revoke"
    REMOVE = "remove"
    DISABLE = "disable"
    # The client or resource is disabled or removed already; its grants end.
    END = "end"
    # It was deleted already; only the mark that it was declared is deleted.
    FORGET = "forget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What files declare, with the contents of what they refer to.

    Attributes:
        forms: what they say.
        secrets: the text at each reference to a secret, by its path in the forms.
        files: the content at each reference to a file, likewise.
    """

    forms: Forms
    secrets: Mapping[Path, Secret] = field(default_factory=dict, repr=False)
    files: Mapping[Path, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a declaration is applied.

    Attributes:
        of_set: the name of the set of files; records of another set are not touched.
        prune: whether to take away what the set made before and does not declare any more.
        adopt: whether what is there already, and was not made by declarations, belongs to the set from now on.
        overlap: how long a secret that is replaced is still accepted.
    """

    of_set: str = DEFAULT_SET
    prune: bool = False
    adopt: bool = False
    overlap: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One difference between a declaration and the database.

    Attributes:
        changes: each member that changes, with what it was and what it will be. Of a secret only where it is.
        note: what an operator has to know about it, as a sentence; mostly empty.
        before, after: the records; None where there is none. Of an initial access token that is to be made, `after` is what
            is declared.
        replaced: an initial access token that is revoked with it.
        metadata: that a new client is registered with.
        secret: that the client or the initial access token comes to have.
        logo: that the client comes to have.
        mark: that is kept with it; None if the one before stays, or none is kept.
    """

    kind: DeclaredKind
    name: str
    action: Action
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=lambda: NOTHING)
    note: str = ""
    before: Any = field(default=None, compare=False, repr=False)
    after: Any = field(default=None, compare=False, repr=False)
    replaced: InitialAccessToken | None = field(default=None, compare=False, repr=False)
    metadata: ClientMetadata | None = field(default=None, compare=False, repr=False)
    secret: Secret | None = field(default=None, compare=False, repr=False)
    logo: Logo | None = field(default=None, compare=False, repr=False)
    mark: Declaration | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a declaration cannot be applied, and where in the files the reason is."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All differences between the declarations and the database.

    Attributes:
        steps: what would be done, in this order.
        scopes: that there are when it is done, with their sentences.
        elsewhere: what only the INI can settle.
        problems: why it cannot be done; with one of them nothing is.
        left: what the set made before and does not declare any more, and stays; empty with `prune`.
    """

    steps: tuple[Step, ...]
    scopes: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    elsewhere: tuple[Difference, ...] = ()
    problems: tuple[Problem, ...] = ()
    left: tuple[tuple[DeclaredKind, str], ...] = ()

    @property
    def is_settled(self) -> bool:
        """Whether nothing differs."""
        return not (self.steps or self.elsewhere or self.problems)
