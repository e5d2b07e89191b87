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
# In the mark of a disabled client or a removed resource, this is in place of references while its grants are being
# ended.
ENDING: Mapping[str, Any] = {"ending": True}
# A path in the forms, such as ("clients", "billing", "secret").
Path = tuple[str | int, ...]


class Action(StrEnum):
    """What a step does with a record."""

    ADD = "add"
    CHANGE = "change"
    REVOKE = "revoke"
    REMOVE = "remove"
    DISABLE = "disable"
    # The client or resource is disabled or removed already; its grants are ended.
    END = "end"
    # It was deleted already; only the mark that it was declared is deleted.
    FORGET = "forget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The declarations of the files, with the contents of their references.

    Attributes:
        forms: the declarations.
        secrets: the text at each reference to a secret, by its path in the forms.
        files: the content at each reference to a file, likewise.
    """

    forms: Forms
    secrets: Mapping[Path, Secret] = field(default_factory=dict, repr=False)
    files: Mapping[Path, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """The way in which declarations are applied.

    Attributes:
        of_set: the name of the set of files; records of another set are not touched.
        prune: whether to remove records that the set made before and does not declare any more.
        adopt: whether existing records that no declaration made belong to the set from now on.
        overlap: how long a replaced secret is still accepted.
    """

    of_set: str = DEFAULT_SET
    prune: bool = False
    adopt: bool = False
    overlap: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One difference between a declaration and the database.

    Attributes:
        changes: each changed member, with its old and new value; for a secret only the place where it is.
        note: a sentence for the operator; mostly empty.
        before, after: the records; None if there is none. For a new initial access token, `after` is its declaration.
        replaced: an initial access token that is revoked with it.
        metadata: the metadata of a new client.
        secret: the new secret of the client or initial access token.
        logo: the new logo of the client.
        mark: the new mark; None if the present one remains, or there is none.
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
    """Why a declaration cannot be applied, and the place of the problem in the files."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All differences between the declarations and the database.

    Attributes:
        steps: the steps, in this order.
        scopes: all scopes after it, with their sentences.
        elsewhere: differences that can only be removed in the INI.
        problems: the reasons why it cannot be applied; with any of them, nothing is applied.
        left: records that the set made before and does not declare any more, and that remain; empty with `prune`.
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
