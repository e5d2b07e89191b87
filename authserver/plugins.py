"""Find, order, check and ask plugins; combine what they decide; keep who said what.

Only what the INI names is loaded, and its order is the order in which plugins are asked. Everything
that can be prepared is prepared at start: a question only walks a tuple of functions.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

import pluggy

from authserver import hookspecs
from authserver.engine.authorize import Expanded
from authserver.engine.context import Binding
from authserver.engine.decisions import Answer, Decision, Ruling, Verdict, combine
from authserver.engine.errors import OAuthError
from authserver.engine.issuing import CODE_DETAILS, CORE_CLAIMS, CORE_MEMBERS
from authserver.engine.login import Identity
from authserver.engine.ports import ContributionFailed
from authserver.engine.questions import facts_of
from authserver.engine.records import Client, Event
from authserver.engine.register import ClientMetadata
from authserver.settings import (
    PLUGIN_PREFIX,
    Resolved,
    Secret,
    SettingsError,
    did_you_mean,
    read_fields,
)
from authserver.time_limit import TimeLimit, TooSlow

GROUP = "authserver.plugins"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Slot:
    """How the answers to a deciding hook are read.

    Attributes:
        value: the type an allow must carry; None when it carries nothing.
        narrows: whether narrow(reason, tuple) is an answer here.
        silence: what it means when nobody answers, in words.
        silence_refuses: whether that is the same as being refused.
    """

    value: type | None
    silence: str
    narrows: bool = False
    silence_refuses: bool = True


SLOTS: Mapping[str, Slot] = {
    "client_auth_decision": Slot(None, "refused with invalid_client"),
    "redirect_uri_decision": Slot(None, "refused with an error page"),
    "scope_decision": Slot(tuple, "refused with invalid_scope", narrows=True),
    "resource_decision": Slot(str, "refused with invalid_target"),
    "consent_decision": Slot(None, "the user is asked", silence_refuses=False),
    "login_decision": Slot(Identity, "refused"),
    "registration_decision": Slot(ClientMetadata, "registration is closed"),
    "introspection_decision": Slot(None, "refused as inactive"),
}
# The contributing hooks, and what kind of value each joins.
CONTRIBUTING: Mapping[str, type] = {
    "expand_authorization_request": Expanded,
    "find_client": Client,
    "scopes": Mapping,
    "private_use_redirect_uris": tuple,
    "grant_types": Mapping,
    "server_metadata": Mapping,
    "code_details": Mapping,
    "token_binding": Binding,
    "token_claims": Mapping,
    "token_response": Mapping,
    "includeme": object,
}
# The observing hooks: told, never asked.
OBSERVING = ("observe",)
HOOKS = (*SLOTS, *CONTRIBUTING, *OBSERVING)
# Hooks that are asked in every request: a plugin that asks somebody outside is timed.
TIMED = frozenset(
    {
        *SLOTS,
        "code_details",
        "expand_authorization_request",
        "find_client",
        "token_claims",
        "token_response",
        "observe",
    }
)
# Contributing hooks at which an OAuth error is a refusal, and no fault of the plugin.
REFUSING = frozenset({"expand_authorization_request", "code_details", "token_binding"})
# Where a plugin declares the names it adds, by hook.
DECLARED = {"code_details": "details", "token_claims": "claims", "token_response": "members"}
RESERVED = {"code_details": CODE_DETAILS, "token_claims": CORE_CLAIMS, "token_response": CORE_MEMBERS}

_REASON = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def same_outcome(slot: str, one: tuple[Verdict, Any], other: tuple[Verdict, Any]) -> bool:
    """Whether two rulings of a deciding hook, each as (verdict, value), let the same through; reasons apart."""
    return _effect(slot, *one) == _effect(slot, *other)


def _effect(slot: str, verdict: Verdict, value: Any) -> tuple[Verdict, Any]:
    if verdict is Verdict.ALLOW:
        return verdict, value
    asks = verdict is Verdict.SILENT and not SLOTS[slot].silence_refuses
    return Verdict.SILENT if asks else Verdict.DENY, None


class PluginFailed(SettingsError, ContributionFailed):
    """A contributing plugin raised, or added what cannot be added; the message names plugin and hook."""


@dataclass(frozen=True, slots=True)
class Implementation:
    """One plugin's function for one hook, which of the hook's arguments it takes, and which names it may add."""

    plugin: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]
    declared: frozenset[str] = frozenset()


class Observer(Protocol):
    """Who hears of every ruling (`authserver.shadow`)."""

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
            value: Any
            try:
                value = implementation.function(*[question[name] for name in implementation.argnames])
            except Exception as error:
                if slot in REFUSING and isinstance(error, OAuthError):
                    raise
                raise PluginFailed([f"plugin {plugin} failed in {slot}: {error}"]) from error
            if value is None:
                continue
            if not isinstance(value, CONTRIBUTING[slot]):
                raise PluginFailed(
                    [f"plugin {plugin} failed in {slot}: {type(value).__name__} cannot be added"]
                )
            undeclared: set[Any] = set()
            if slot in DECLARED and isinstance(value, Mapping):
                undeclared = set(value) - implementation.declared
            if undeclared:
                names = ", ".join(sorted(map(str, undeclared)))
                raise PluginFailed(
                    [f"plugin {plugin} failed in {slot}: it does not declare {names} in `{DECLARED[slot]}`"]
                )
            contributions.append((plugin, value))
        return contributions

    def observe(self, event: Event) -> None:
        """Tell every observing plugin; a failure is logged and harms nobody."""
        for implementation in self._implementations["observe"]:
            try:
                implementation.function(*[event for _ in implementation.argnames])
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


def load(
    specifications: Sequence[str],
    settings: Mapping[str, Mapping[str, Resolved]],
    *,
    production: bool,
    time_limit: float = 2.0,
    others: Collection[str] = (),
) -> tuple[PluginSet, list[str]]:
    """Find every plugin of the INI and make it from its settings.

    Args:
        specifications: entry point names or `module:Class`, in order.
        settings: raw texts by plugin name and field.
        production: whether insecure plugins and settings are refused.
        time_limit: seconds a plugin has for a decision.
        others: specifications of plugins that have settings too but are loaded elsewhere.

    Returns:
        The plugins, and what development should announce about them.

    Raises:
        SettingsError: naming every unknown plugin, setting and other problem.
    """
    available = {point.name: point for point in entry_points(group=GROUP)}
    plugins: list[tuple[str, object]] = []
    problems: list[str] = []
    insecure: list[str] = []
    named: dict[str, str] = {}
    for specification in specifications:
        try:
            name, kind = _find(specification, available)
        except SettingsError as error:
            problems += error.problems
            continue
        if name in named:
            problems.append(
                f"authserver.plugins: {specification} and {named[name]} are both called {name}; keep one"
            )
            continue
        named[name] = specification
        prefix = f"{PLUGIN_PREFIX}{name}."
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and _is_frozen(kind)):
            problems.append(
                f"authserver.plugins: {specification} is not a frozen dataclass; a plugin is a frozen value"
            )
            continue
        values, found = read_fields(kind, settings.get(name, {}), prefix)
        problems += found
        insecure += [
            f"{prefix}{field}: a secret stands in the INI file; give it as env:NAME or file:PATH"
            for field, raw in settings.get(name, {}).items()
            if raw.inline and _holds_secret(values.get(field))
        ]
        if getattr(kind, "development_only", False):
            insecure.append(f"authserver.plugins: {name} is for development; remove the line")
        if not found:
            try:
                plugin = kind(**values)
                plugins.append((name, plugin))
                insecure += [f"{prefix}{line}" for line in getattr(plugin, "insecure", ())]
            except (TypeError, ValueError) as error:
                problems.append(f"{prefix.removesuffix('.')}: {error}")
    elsewhere = {name_of(specification) for specification in others}
    problems += [
        f"authserver.shadow_plugins: {name} is listed in authserver.plugins too; leave it in one of them"
        for name in named.keys() & elsewhere
    ]
    for name in settings:
        if name not in named and name not in elsewhere:
            problems.append(
                f"{PLUGIN_PREFIX}{name}: no such plugin is listed in authserver.plugins; "
                + did_you_mean(name, named, PLUGIN_PREFIX)
            )
    if production:
        problems += [f"{line} (refused in production)" for line in insecure]
    if problems:
        raise SettingsError(problems)
    return PluginSet(plugins, time_limit=time_limit), insecure


def _ask(implementation: Implementation, slot: str, question: Mapping[str, Any]) -> tuple[Answer, Any]:
    """What one plugin says, as its answer and the value of it; a plugin that cannot answer has failed."""
    plugin, rules = implementation.plugin, SLOTS[slot]
    begun = time.perf_counter_ns()
    try:
        decision = implementation.function(*[question[name] for name in implementation.argnames])
    except TooSlow as error:
        log.error("plugin %s is too slow in %s (%s): refusing; mend or remove it", plugin, slot, error)
        return Answer(plugin, Verdict.FAILED, "plugin-too-slow", _microseconds(begun)), None
    except Exception:
        log.exception("plugin %s failed in %s: refusing; mend or remove it", plugin, slot)
        return Answer(plugin, Verdict.FAILED, "plugin-raised", _microseconds(begun)), None
    if decision is None:
        return Answer(plugin, Verdict.SILENT, "", _microseconds(begun)), None
    if problem := problem_with(decision, rules):
        log.error("plugin %s answered %s wrongly (%s): refusing", plugin, slot, problem)
        return Answer(plugin, Verdict.FAILED, problem, _microseconds(begun)), None
    return Answer(plugin, decision.verdict, decision.reason, _microseconds(begun)), decision.value


def _microseconds(begun: int) -> int:
    return (time.perf_counter_ns() - begun) // 1000


def _find(specification: str, available: Mapping[str, Any]) -> tuple[str, Any]:
    """The name of a plugin and its class."""
    module_name, colon, class_name = specification.partition(":")
    try:
        if colon:
            kind: Any = importlib.import_module(module_name)
            for part in class_name.split("."):
                kind = getattr(kind, part)
            return name_of(specification), kind
        if specification in available:
            return specification, available[specification].load()
    except Exception as error:
        raise SettingsError(
            [f"authserver.plugins: {specification} cannot be imported: {type(error).__name__}: {error}"]
        ) from error
    hint = did_you_mean(specification, available, "")
    raise SettingsError([f"authserver.plugins: {specification}: no such plugin; {hint}"])


def name_of(specification: str) -> str:
    """The entry point's name, or `module:QuietHours` as `quiet_hours`."""
    class_name = specification.rpartition(":")[2]
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()


def _is_frozen(kind: type) -> bool:
    return bool(cast(Any, kind).__dataclass_params__.frozen)


def _holds_secret(value: object) -> bool:
    return isinstance(value, Secret) or (
        isinstance(value, tuple) and any(isinstance(item, Secret) for item in value)
    )


def problem_with(decision: object, rules: Slot) -> str | None:
    """Why this is no answer to this hook; None when it is one."""
    if type(decision) is not Decision:
        return "wrong-type"
    # Made by hand, a decision may hold the text "deny", which is no verdict and must not pass for an allow.
    if not any(decision.verdict is verdict for verdict in (Verdict.ALLOW, Verdict.NARROW, Verdict.DENY)):
        return "wrong-verdict"
    if not _REASON.fullmatch(str(decision.reason)):
        return "bad-reason"
    if (
        decision.verdict is Verdict.ALLOW
        and rules.value is not None
        and not _is_value(decision.value, rules.value)
    ):
        return "wrong-value"
    if decision.verdict is Verdict.NARROW and not (rules.narrows and _is_value(decision.value, tuple)):
        return "wrong-value"
    return None


def _is_value(value: object, kind: type) -> bool:
    if kind is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    return isinstance(value, kind)
