"""Ask the plugins, combine what they decide, and keep who said what.

Everything that can be prepared is prepared at start: a question only walks a tuple of functions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pluggy

from authserver import hookspecs
from authserver.containment import contained, text_of
from authserver.engine.context import Binding, Issue
from authserver.engine.crypto import strict_json
from authserver.engine.decisions import Answer, Ruling, Verdict, combine
from authserver.engine.errors import ServerError
from authserver.engine.ports import ContributionFailed, StorageUnavailable
from authserver.engine.questions import facts_of
from authserver.engine.records import Event
from authserver.plugins.kinds import (
    CONTRIBUTING,
    DECLARED,
    HOOKS,
    OBSERVING,
    REFUSING,
    RESERVED,
    SLOTS,
    TIMED,
    is_refusal,
    problem_with,
)
from authserver.plugins.time_limit import TimeLimit, TooSlow
from authserver.settings import (
    SettingsError,
)

log = logging.getLogger(__name__)


class PluginFailed(SettingsError, ContributionFailed):
    """A contributing plugin raised, or added what cannot be added; the message names plugin and hook."""


class CannotBeAdded(Exception):
    """What a contributing plugin gave is no answer to its hook; the message says why."""


@dataclass(frozen=True, slots=True)
class Implementation:
    """One plugin's function for one hook, which of the hook's arguments it takes, and which names it may add."""

    plugin: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]
    declared: frozenset[str] = frozenset()


class Observer(Protocol):
    """Who hears of every ruling (`authserver.plugins.shadow`)."""

    def consider(
        self, ruling: Ruling, said: Sequence[tuple[Answer, Any]], question: Mapping[str, Any]
    ) -> None: ...


class PluginSet:
    """The loaded plugins; implements `engine.ports.Policies`.

    Args:
        plugins: (name, plugin) pairs in the order in which they are asked.
        time_limit: seconds in which a plugin must answer that is not `immediate`.

    Raises:
        SettingsError: a plugin is not a frozen value, jumps the queue, or misspells a hook.
    """

    def __init__(self, plugins: Sequence[tuple[str, object]], *, time_limit: float = 2.0) -> None:
        self.names = tuple(name for name, _ in plugins)
        self.shadow: Observer | None = None
        self._plugins = dict(plugins)
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        problems: list[str] = []
        limit = TimeLimit(time_limit)
        # pluggy calls last-registered-first; registering backwards keeps its order the order of the INI.
        for name, plugin in reversed(plugins):
            try:
                hash(plugin)
                manager.register(plugin, name)
            except TypeError:
                problems.append(
                    f"plugin {name}: not hashable; make it a frozen dataclass with hashable fields"
                )
            except (pluggy.PluginValidationError, ValueError) as error:
                problems.append(f"plugin {name}: {error}")
        try:
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            known = ", ".join(sorted(HOOKS))
            problems.append(f"{error}; known hooks: {known}")
        self._implementations: dict[str, tuple[Implementation, ...]] = {}
        for hook in HOOKS:
            found = []
            for implementation in getattr(manager.hook, hook).get_hookimpls():
                if any(
                    (
                        implementation.hookwrapper,
                        implementation.wrapper,
                        implementation.tryfirst,
                        implementation.trylast,
                    )
                ):
                    problems.append(
                        f"plugin {implementation.plugin_name}: {hook} is marked tryfirst, trylast or wrapper; "
                        "remove the mark, the order of authserver.plugins decides"
                    )
                function = implementation.function
                if hook in TIMED and not getattr(implementation.plugin, "immediate", False):
                    function = partial(limit.call, function)
                declared = frozenset(getattr(implementation.plugin, DECLARED.get(hook, ""), ()))
                if hook == "token_binding" and not isinstance(
                    getattr(implementation.plugin, DECLARED[hook], {}), Mapping
                ):
                    problems.append(
                        f"plugin {implementation.plugin_name}: {DECLARED[hook]} must be a mapping: each member of "
                        "`cnf` with the type of a token that is bound so"
                    )
                found.append(
                    Implementation(
                        implementation.plugin_name, function, tuple(implementation.argnames), declared
                    )
                )
            found.sort(key=lambda item: self.names.index(item.plugin))
            self._implementations[hook] = tuple(found)
        problems += self._collisions()
        if problems:
            raise SettingsError(problems)

    def serves(self, hook: str) -> bool:
        """Whether any plugin implements this hook."""
        return bool(self._implementations[hook])

    def plugin(self, name: str) -> object:
        """The plugin of this name. Raises KeyError."""
        return self._plugins[name]

    def declared(self, attribute: str) -> dict[str, str]:
        """What plugins say in a mapping of this name, in one mapping: of two that say the same name the first counts."""
        found = [getattr(plugin, attribute, None) for plugin in reversed(self._plugins.values())]
        return {name: text for said in found if isinstance(said, Mapping) for name, text in said.items()}

    def decide(self, slot: str, /, **question: Any) -> Ruling:
        """Ask every plugin of a deciding hook and combine the answers (see `engine.ports.Policies`)."""
        said = self.ask_all(slot, question)
        ruling = combine(slot, said, partial(facts_of, slot, question))
        if self.shadow is not None:
            self.shadow.consider(ruling, said, question)
        return ruling

    def ask_all(self, slot: str, question: Mapping[str, Any]) -> list[tuple[Answer, Any]]:
        """What each plugin of a deciding hook says, in order, with the value of its answer."""
        return [_ask(implementation, slot, question) for implementation in self._implementations[slot]]

    def contribute(self, slot: str, /, **question: Any) -> Sequence[tuple[str, Any]]:
        """What each plugin adds at a contributing hook, as (plugin name, value), in order."""
        contributions = []
        for implementation in self._implementations[slot]:
            plugin = implementation.plugin
            try:
                value = contained(_contribution, implementation, slot, question)
            except StorageUnavailable:
                raise
            except Exception as error:
                if slot in REFUSING and is_refusal(error):
                    raise
                raise PluginFailed([f"plugin {plugin} failed in {slot}: {text_of(error)}"]) from error
            if value is not None:
                contributions.append((plugin, value))
        return contributions

    def observe(self, event: Event) -> None:
        """Tell every observing plugin; a failure is logged and harms nobody."""
        for implementation in self._implementations["observe"]:
            try:
                contained(implementation.function, *[event for _ in implementation.argnames])
            except Exception:
                log.exception("plugin %s failed in observe; nothing depends on it", implementation.plugin)

    def _collisions(self) -> list[str]:
        """Names that two plugins declare for the same hook, or that belong to the core."""
        problems = []
        for hook, attribute in DECLARED.items():
            owners = dict.fromkeys(RESERVED[hook], "the core")
            for implementation in self._implementations[hook]:
                for name in sorted(implementation.declared):
                    if name in owners:
                        problems.append(
                            f"plugin {implementation.plugin}: {hook} adds {name}, which {owners[name]} adds already; "
                            f"take it out of `{attribute}`, or one plugin out of authserver.plugins"
                        )
                    owners[name] = f"plugin {implementation.plugin}"
        return problems

    def table(self) -> list[dict[str, Any]]:
        """Who is asked for what, in which order, and what silence means."""
        rows = []
        for hook, implementations in self._implementations.items():
            slot = SLOTS.get(hook)
            rows.append(
                {
                    "hook": hook,
                    "kind": "deciding" if slot else "observing" if hook in OBSERVING else "contributing",
                    "plugins": [item.plugin for item in implementations],
                    "silence": slot.silence
                    if slot
                    else "nobody is told"
                    if hook in OBSERVING
                    else "nothing is added",
                }
            )
        return rows


def _ask(implementation: Implementation, slot: str, question: Mapping[str, Any]) -> tuple[Answer, Any]:
    """What one plugin says, as its answer and the value of it; a plugin that cannot answer has failed."""
    plugin, rules = implementation.plugin, SLOTS[slot]
    begun = time.perf_counter_ns()
    try:
        decision = contained(implementation.function, *_arguments(implementation, question))
        problem = None if decision is None else contained(problem_with, decision, rules)
    except TooSlow as error:
        log.error("plugin %s is too slow in %s (%s): refusing; mend or remove it", plugin, slot, error)
        return Answer(plugin, Verdict.FAILED, "plugin-too-slow", _microseconds(begun)), None
    except Exception:
        log.exception("plugin %s failed in %s: refusing; mend or remove it", plugin, slot)
        return Answer(plugin, Verdict.FAILED, "plugin-raised", _microseconds(begun)), None
    if decision is None:
        return Answer(plugin, Verdict.SILENT, "", _microseconds(begun)), None
    if problem:
        log.error("plugin %s answered %s wrongly (%s): refusing", plugin, slot, problem)
        return Answer(plugin, Verdict.FAILED, problem, _microseconds(begun)), None
    return Answer(plugin, decision.verdict, decision.reason, _microseconds(begun)), decision.value


def _contribution(implementation: Implementation, slot: str, question: Mapping[str, Any]) -> Any:
    """What one plugin adds at a contributing hook. Raises what it raises, and CannotBeAdded."""
    value = implementation.function(*_arguments(implementation, question))
    if value is None:
        return None
    if not isinstance(value, CONTRIBUTING[slot]):
        raise CannotBeAdded(f"{type(value).__name__} cannot be added")
    if isinstance(value, Mapping):
        value = dict(value)
    if slot in DECLARED:
        added = dict(value.confirmation) if isinstance(value, Binding) else value
        if undeclared := set(added) - implementation.declared:
            names = ", ".join(sorted(map(str, undeclared)))
            raise CannotBeAdded(f"it does not declare {names} in `{DECLARED[slot]}`")
        strict_json.dumps(added)
    if slot in _FUNCTIONS:
        return {name: partial(_call, implementation.plugin, slot, added) for name, added in value.items()}
    return value


def _call(plugin: str, slot: str, function: Callable[..., Any], /, *arguments: Any) -> Any:
    """What a function says that a plugin added: a grant type, or the reader of a member of client metadata.

    Raises:
        OAuthError: it refuses.
        ServerError: it failed.
    """
    try:
        said = contained(function, *arguments)
        contained(_FUNCTIONS[slot], said)
    except StorageUnavailable:
        raise
    except Exception as error:
        if is_refusal(error):
            raise
        log.exception("plugin %s failed in %s: refusing; fix or remove it", plugin, slot)
        raise ServerError("The server could not answer this request.", reason="plugin-raised") from None
    return said


def _check_issue(said: object) -> None:
    if not isinstance(said, Issue):
        raise CannotBeAdded(f"{type(said).__name__} is no Issue")


# The hooks at which plugins add functions, and what raises when one of them says what is no answer.
_FUNCTIONS: Mapping[str, Callable[[Any], object]] = {
    "grant_types": _check_issue,
    "client_metadata": strict_json.dumps,
}


def _arguments(implementation: Implementation, question: Mapping[str, Any]) -> list[Any]:
    return [question[name] for name in implementation.argnames]


def _microseconds(begun: int) -> int:
    return (time.perf_counter_ns() - begun) // 1000
