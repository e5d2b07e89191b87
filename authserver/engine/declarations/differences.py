"""Compares declarations that only the INI can satisfy with the settings of the server.

These are trusted issuers, scopes that the INI or a plugin names, and limits if no plugin reads them from the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from authserver.engine.context import Engine
from authserver.engine.declarations.forms import DeclaredLimit, Forms
from authserver.engine.rates import adjustable, limiters, table_of
from authserver.ini import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A setting that differs from its declaration, and what to write into the INI.

    Attributes:
        kind, name: the place of the declaration, such as `scopes` and the name of the scope.
        was, declared: the present value, None without one, and the declared value.
        setting: the key in the INI.
        line: the line to write there; empty if `setting` says in words what to do.
    """

    kind: str
    name: str
    was: Any
    declared: Any
    setting: str
    line: str = ""

    @property
    def remedy(self) -> str:
        """What to do, as a sentence without a full stop."""
        return f"write `{self.line}` among the lines of {self.setting}" if self.line else self.setting


def in_the_ini(engine: Engine, forms: Forms, plugins: Mapping[str, object]) -> Sequence[Difference]:
    """Every setting of the INI that differs from its declaration; a setting without a declaration is not compared.

    If any issuer of a plugin is declared, all its issuers must be.
    """
    return [
        *_scopes(engine, forms),
        *_limits(forms, plugins),
        *_issuers(forms, plugins),
    ]


def declared_limits(plugins: Mapping[str, object]) -> Mapping[str, DeclaredLimit]:
    """The limits of the server in the form of declarations, without those that the form cannot express."""
    names = DeclaredLimit.__dataclass_fields__
    found: dict[str, DeclaredLimit] = {}
    try:
        rows = table_of(limiters(plugins.values()))
    except ValueError:
        return found
    for row in rows:
        known = {name: row[name] for name in names if name in row}
        with suppress(TypeError):
            found[str(row["limit"])] = DeclaredLimit(**known)
    return found


def trusted_issuers(plugins: Mapping[str, object]) -> Mapping[str, tuple[str, ...]]:
    """The issuers that plugins trust, by the name of the plugin: those that have a setting `issuers`."""
    found: dict[str, tuple[str, ...]] = {}
    for name, plugin in plugins.items():
        lines = getattr(plugin, "issuers", None)
        if isinstance(lines, tuple) and all(isinstance(line, tuple) and len(line) == 2 for line in lines):
            found[name] = tuple(issuer for issuer, _ in lines)
    return found


def _scopes(engine: Engine, forms: Forms) -> Iterator[Difference]:
    for name, sentence in sorted(forms.scopes.items()):
        was = engine.offered.listed_scopes.get(name)
        if was not in (None, sentence):
            yield Difference(
                kind="scopes",
                name=name,
                was=was,
                declared=sentence,
                setting="authserver.scopes",
                line=f"{name} = {sentence}",
            )


def _limits(forms: Forms, plugins: Mapping[str, object]) -> Iterator[Difference]:
    if not forms.limits or adjustable(plugins.values()):
        return
    known = declared_limits(plugins)
    where = [name for name, plugin in plugins.items() if limiters([plugin])]
    for name, limit in sorted(forms.limits.items()):
        was = known.get(name)
        if was != limit:
            yield Difference(
                kind="limits",
                name=name,
                was=None if was is None else asdict(was),
                declared=asdict(limit),
                setting=f"authserver.plugin.{where[0]}.limits"
                if where
                else "list a plugin that limits in authserver.plugins",
                line=f"{name} = {limit.counted}, {limit.key}, {limit.count}, {limit.seconds} seconds"
                if where
                else "",
            )


def _issuers(forms: Forms, plugins: Mapping[str, object]) -> Iterator[Difference]:
    known = trusted_issuers(plugins)
    for plugin, issuers in sorted(forms.trusted_issuers.items()):
        was = known.get(plugin)
        if was is None:
            hint = did_you_mean(plugin, known, "") if plugin not in plugins else "it has no issuers"
            yield Difference(
                kind="trusted_issuers",
                name=plugin,
                was=None,
                declared=list(issuers),
                setting=f"list {plugin} in authserver.plugins, with its issuers ({hint})",
            )
        elif set(was) != set(issuers):
            missing = [issuer for issuer in issuers if issuer not in was]
            more = [issuer for issuer in was if issuer not in issuers]
            words = [f"add {issuer} with its JWK Set" for issuer in missing] + [
                f"remove {issuer}" for issuer in more
            ]
            yield Difference(
                kind="trusted_issuers",
                name=plugin,
                was=list(was),
                declared=list(issuers),
                setting=f"authserver.plugin.{plugin}.issuers: {', '.join(words)}",
            )
