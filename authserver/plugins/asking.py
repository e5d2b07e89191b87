"""Asks the plugins, combines their decisions, and records which plugin answered what.

Everything possible is prepared at start, so that a question only calls a tuple of functions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from types import MappingProxyType, MethodType
from typing import Any, Protocol, cast

import pluggy

from authserver.containment import contained, described, text_of
from authserver.engine.context import (
    AssertionProfile,
    Begin,
    Binding,
    ClientProof,
    ExchangeableToken,
    Issue,
    SingleUse,
    Vouched,
    Welcome,
)
from authserver.engine.crypto import strict_json
from authserver.engine.decisions import Answer, Ruling, T, Verdict, combine, labelled
from authserver.engine.errors import OAuthError, ServerError
from authserver.engine.grants.deriving import Presented
from authserver.engine.ports import ContributionFailed, StorageUnavailable
from authserver.engine.questions import Question, RateQuestion
from authserver.engine.records import Event
from authserver.engine.timeline import Timeline
from authserver.hooks import PROJECT, Contributing, Deciding, Hook, is_refusal, refusals_in
from authserver.hookspecs import CONTRIBUTING, DECIDING, every_hook
from authserver.ini import PLUGIN_PREFIX
from authserver.limits import MAXIMUM_JSON
from authserver.plugins import fitting
from authserver.plugins.copying import Unusable, is_third_party, with_copies
from authserver.plugins.time_limit import LOADING_SECONDS, NoThread, TimeLimit, TooSlow
from authserver.plugins.trace import traced
from authserver.plugins.variants import Variants, kinds_of
from authserver.settings import POLICY_TIME_LIMIT, SettingsError

log = logging.getLogger(__name__)

_WRONG_ANSWER = "plugin %s answered %s wrongly (%s): %s"

NO_VARIANTS: Mapping[str, Variants] = MappingProxyType({})


class PluginFailed(SettingsError, ContributionFailed):
    """A contributing plugin raised an error, or returned a wrong value; the message names plugin and hook."""


class CannotBeAdded(Exception):
    """A contributing plugin returned something that is not an answer to its hook; the message says why."""


@dataclass(frozen=True, slots=True)
class Implementation:
    """One plugin's function for one hook.

    Attributes:
        plugin: the name of the plugin.
        function: calls the plugin, with a time limit and copies of the values where they are needed.
        argnames: which of the hook's arguments it takes, in order.
        arguments: reads these arguments from a question.
        declared: the names that the plugin may add.
        third_party: whether the plugin does not come with the server.
        variant: for which client or resource its settings are, in words; "" for all.
        variants: chooses a variant by client and resource; None if the plugin has none.
        others: the implementations of the variants, by client and resource.
    """

    plugin: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]
    arguments: Callable[[Question[Any]], Sequence[Any]]
    declared: frozenset[str] = frozenset()
    third_party: bool = False
    variant: str = ""
    variants: Variants | None = None
    others: Mapping[tuple[str | None, str | None], Implementation] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name of the plugin with its variant; see `labelled`."""
        return labelled(self.plugin, self.variant)

    def at(self, question: Callable[[str], Any]) -> Implementation:
        """The implementation that is asked: this one, or that of a variant (see `Variants.at`)."""
        return self if self.variants is None else self.others.get(self.variants.at(question), self)


class Observer(Protocol):
    """Gets every ruling (`authserver.plugins.shadow`)."""

    def consider(self, ruling: Ruling[Any]) -> None:
        """Take a ruling. It must not raise an error and must not wait."""

    def close(self) -> None:
        """Finish with the rulings that it has taken; it gets no more."""


class PluginSet:
    """The loaded plugins; implements `engine.ports.Policies`.

    Args:
        plugins: (name, plugin) pairs in the order in which they are asked.
        variants: the variants with settings for single clients and resources, by the name of the plugin.
        time_limit: seconds in which a plugin that is not `immediate` must answer.
        fetching: additional seconds for plugins that take the `engine`, with which they can fetch a document.
        trace: whether each call is written to the log (`plugins.trace`).

    Raises:
        SettingsError: a plugin is not hashable, does not fit its hooks (`plugins.fitting`), asks to be called out of order
            at one of them, or names one in `serves` that it does not implement.
    """

    def __init__(
        self,
        plugins: Sequence[tuple[str, object]],
        *,
        variants: Mapping[str, Variants] = NO_VARIANTS,
        time_limit: float = POLICY_TIME_LIMIT,
        fetching: float = 0.0,
        trace: bool = False,
    ) -> None:
        self.names = tuple(name for name, _ in plugins)
        self.shadow: Observer | None = None
        # The consequence of a failed decision, for the log.
        self.consequence = "refusing; fix or remove it"
        self._plugins = dict(plugins)
        self._variants = {name: variants.get(name, Variants()) for name in self._plugins}
        self._prepared: list[tuple[str, object]] = []
        self._limit = TimeLimit(time_limit)
        self._fetching_limit = TimeLimit(time_limit + fetching)
        self._hooks = every_hook()
        self._trace = trace
        if misfits := [
            f"plugin {name}: {problem}"
            for name, plugin in plugins
            for problem in fitting.misfits(plugin, self._hooks)
        ]:
            raise SettingsError(misfits)
        manager, problems = _registered(plugins, self._hooks)
        self._implementations: dict[str, tuple[Implementation, ...]] = {}
        for name in self._hooks:
            serving = [
                item
                for item in getattr(manager.hook, name).get_hookimpls()
                if name in getattr(item.plugin, "serves", self._hooks)
            ]
            problems += _out_of_order(name, serving)
            found = [self._implementation(name, item) for item in serving]
            self._implementations[name] = tuple(sorted(found, key=lambda item: self.names.index(item.plugin)))
        problems += self._vary_too_much()
        problems += self._not_mappings()
        problems += self._not_implemented()
        problems += self._collisions()
        if problems:
            raise SettingsError(problems)

    def _implementation(self, name: str, found: pluggy.HookImpl) -> Implementation:
        """How one plugin is asked at this hook."""
        implementation = self._asked(name, found, found.plugin, found.function)
        variants = self._variants[found.plugin_name]
        if not variants or not kinds_of(self._hooks[name]):
            return implementation
        others = {
            (variant.client, variant.resource): self._asked(
                name,
                found,
                variant.plugin,
                _of(variant.plugin, found),
                variant=variant.label,
            )
            for variant in variants
        }
        return replace(implementation, variants=variants, others=others)

    def _asked(
        self,
        name: str,
        found: pluggy.HookImpl,
        plugin: object,
        function: Callable[..., Any],
        *,
        variant: str = "",
    ) -> Implementation:
        hook = self._hooks[name]
        function, names = fitting.callable_as_asked(function, fitting.arguments_of(hook))
        third_party = is_third_party(plugin)
        if third_party:
            function = partial(with_copies, function)
        if hook.timed and not getattr(plugin, "immediate", False):
            limit = self._fetching_limit if "engine" in names else self._limit
            function = partial(limit.call, function)
        if self._trace:
            function = partial(traced, labelled(found.plugin_name, variant), name, function)
        declared: frozenset[str] = frozenset()
        if isinstance(hook, Contributing):
            declared = frozenset(getattr(plugin, hook.declared, ()))
        return Implementation(
            found.plugin_name, function, names, _fields(names), declared, third_party, variant
        )

    def prepare(self, seconds: float = LOADING_SECONDS) -> None:
        """Call `prepare` of each plugin that has it, to open its files, connections and counters.

        Args:
            seconds: how long each may take.

        Raises:
            SettingsError: some plugins refuse; the message has the name and the sentence of each. Those that were prepared
                are closed.
        """
        problems = []
        limit = TimeLimit(seconds)
        hang: set[str] = set()
        for name, label, plugin in self._each():
            if name in hang:
                # Otherwise the start could wait the full time for each of a thousand variants.
                continue
            try:
                if (prepare := getattr(plugin, "prepare", None)) is not None:
                    limit.call(prepare)
            except TooSlow:
                problems.append(
                    f"{PLUGIN_PREFIX}{label}: its `prepare` takes longer than {seconds:g} seconds"
                )
                hang.add(name)
            except ValueError as error:
                problems.append(f"{PLUGIN_PREFIX}{label}: {text_of(error)}")
            except Exception as error:
                problems.append(f"{PLUGIN_PREFIX}{label}: it failed to prepare: {text_of(error)}")
            else:
                self._prepared.append((label, plugin))
        if problems:
            self.close()
            raise SettingsError(problems)

    def check_services(self, seconds: float = LOADING_SECONDS) -> None:
        """Call `check_services` of each plugin that has it, which checks that the services it asks do answer.

        Args:
            seconds: how long each may take.

        Raises:
            SettingsError: some services do not answer; the message has the name and the sentence of each plugin.
        """
        problems = []
        for label, plugin in self._prepared:
            if (check := getattr(plugin, "check_services", None)) is None:
                continue
            try:
                TimeLimit(seconds).call(check)
            except TooSlow:
                problems.append(
                    f"{PLUGIN_PREFIX}{label}: its `check_services` takes longer than {seconds:g} seconds"
                )
            except Exception as error:
                problems.append(f"{PLUGIN_PREFIX}{label}: {text_of(error)}")
        if problems:
            raise SettingsError(problems)

    def close(self) -> None:
        """Call `close` of each plugin that was prepared and has it; the last one first.

        A failure is logged, and so is a plugin that takes longer than the time limit: the others are closed
        anyway.
        """
        self.end_shadow()
        while self._prepared:
            name, plugin = self._prepared.pop()
            try:
                # Most have nothing to close, and each call takes a thread.
                if close := getattr(plugin, "close", None):
                    self._close(close)
            except Exception:
                log.exception("plugin %s failed to close; nothing depends on it", name)

    def end_shadow(self) -> None:
        """Close the shadow plugins and ask them no more. Commands do so, because their questions are not real requests."""
        shadow, self.shadow = self.shadow, None
        if shadow is not None:
            shadow.close()

    def for_trying(self) -> PluginSet:
        """The same plugins for questions outside real requests: no shadow plugin is asked, and nothing is counted."""
        same = copy(self)
        same.shadow = None
        same._implementations = {**self._implementations, RateQuestion.hook: ()}
        return same

    def _close(self, close: Callable[[], None]) -> None:
        try:
            self._limit.call(close)
        except NoThread:
            # Since Python 3.12 no thread can be started at the end of the process, when servers are closed.
            contained(close)

    def _each(self) -> Iterator[tuple[str, str, object]]:
        """Name, label and plugin, for every plugin and after it for each of its variants."""
        for name, plugin in self._plugins.items():
            yield name, name, plugin
            for variant in self._variants[name]:
                yield name, labelled(name, variant.label), variant.plugin

    def serves(self, hook: str) -> bool:
        """Whether any plugin implements this hook."""
        return bool(self._implementations[hook])

    def waits(self, hook: str) -> bool:
        """Whether any plugin that implements this hook may wait for something: it is not `immediate`."""
        return not all(
            getattr(self._plugins[item.plugin], "immediate", False) for item in self._implementations[hook]
        )

    def plugin(self, name: str) -> object:
        """The plugin of this name. Raises KeyError."""
        return self._plugins[name]

    def variants(self, name: str) -> Variants:
        """The variants of this plugin. Raises KeyError."""
        return self._variants[name]

    def declared(self, attribute: str, /) -> dict[str, Any]:
        """The mappings that plugins have in this attribute, joined; if two have the same key, the first counts."""
        return {name: found[0] for name, found in self.all_declared(attribute).items()}

    def all_declared(self, attribute: str, /) -> dict[str, list[Any]]:
        """The mappings that plugins have in this attribute, joined: all values of each key, in the order of the plugins."""
        found: dict[str, list[Any]] = {}
        for plugin in self._plugins.values():
            said = getattr(plugin, attribute, None)
            for name, value in said.items() if isinstance(said, Mapping) else ():
                found.setdefault(name, []).append(value)
        return found

    def names_at(self, hook: str, /) -> frozenset[str]:
        """The names that plugins declare for what they add at this hook."""
        return frozenset().union(*(item.declared for item in self._implementations[hook]))

    def figures(self) -> Mapping[str, tuple[str, float]]:
        """The figures of the plugins: meaning and value of each, by the name of the plugin joined with its own name.

        They come from the method `figures` of a plugin. If it fails, that is logged, and the plugin has no figures.
        """
        found = {}
        for name, plugin in self._plugins.items():
            if (figures := getattr(plugin, "figures", None)) is None:
                continue
            try:
                found.update({f"{name}_{own}": figure for own, figure in contained(figures).items()})
            except Exception:
                log.exception("plugin %s failed to tell its figures", name)
        return found

    def decide(self, question: Question[T], /) -> Ruling[T]:
        """Ask every plugin of a deciding hook and combine the answers (see `engine.ports.Policies`)."""
        ruling = combine(question, self.ask_all(question))
        # Read only once, because another thread may set it to None.
        if (shadow := self.shadow) is not None:
            shadow.consider(ruling)
        return ruling

    def ask_all(self, question: Question[Any]) -> list[Answer]:
        """The answer of each plugin at a deciding hook, in order."""
        hook = DECIDING[question.hook]
        return [
            _ask(implementation, hook, question, self.consequence)
            for implementation in self._implementations[hook.name]
        ]

    def contribute(self, hook: str, /, **question: Any) -> Sequence[tuple[str, Any]]:
        """The values that plugins add at a contributing hook, as (plugin name, value), in order."""
        declaration = CONTRIBUTING[hook]
        contributions = []
        for each in self._implementations[hook]:
            implementation = each.at(question.get)
            try:
                value = contained(_contribution, implementation, declaration, question)
            except StorageUnavailable:
                raise
            except Exception as error:
                if declaration.refusing and is_refusal(error):
                    raise
                said = text_of(error) if isinstance(error, CannotBeAdded | Unusable) else described(error)
                raise PluginFailed([f"plugin {implementation.label} failed in {hook}: {said}"]) from error
            if value is not None:
                contributions.append((implementation.plugin, value))
        return contributions

    def observe(self, event: Event) -> None:
        """Call every observing plugin; a failure is logged and changes no answer."""
        self._notify("observe", event)

    def observe_request(self, timeline: Timeline) -> None:
        """Call every plugin that observes requests; a failure is logged and changes no answer."""
        self._notify("observe_request", timeline)

    def _notify(self, hook: str, about: object) -> None:
        for implementation in self._implementations[hook]:
            try:
                contained(implementation.function, *[about for _ in implementation.argnames])
            except Exception:
                log.exception(
                    "plugin %s failed in %s; the answer is not affected", implementation.plugin, hook
                )

    def look_after(self, begin: Begin) -> None:
        """Call `look_after` of every plugin that has it; a failure is logged, and it is called again the next time."""
        self._notify("look_after", begin)

    @property
    def delivering(self) -> tuple[str, ...]:
        """The names of the plugins that deliver events."""
        return tuple(implementation.plugin for implementation in self._implementations["deliver"])

    def deliver(self, plugin: str, events: Sequence[Event], begin: Begin) -> None:
        """Give events to a plugin that delivers them. Raises the errors of the plugin."""
        given = {"events": events, "begin": begin}
        for implementation in self._implementations["deliver"]:
            if implementation.plugin == plugin:
                contained(implementation.function, *[given[name] for name in implementation.argnames])

    def _vary_too_much(self) -> list[str]:
        """Settings for single clients and resources that no question uses, or that change what start has fixed."""
        problems = []
        for name, variants in self._variants.items():
            if not variants:
                continue
            served = [
                kinds_of(hook)
                for hook in self._hooks.values()
                if name in [item.plugin for item in self._implementations.get(hook.name, ())]
            ]
            problems += [
                f"{PLUGIN_PREFIX}{name}.{setting}@{kind}: this plugin is never asked about {kind}; remove the setting"
                for setting, kind in dict.fromkeys(
                    item for each in variants for item in each.settings.items()
                )
                if not any(kind in kinds for kinds in served)
            ]
            for variant in variants:
                problems += [
                    f"{PLUGIN_PREFIX}{name}: `{attribute}` differs for the {variant.label}; it must be the same for all"
                    for attribute in ("serves", "confirmations", "immediate")
                    if getattr(variant.plugin, attribute, None)
                    != getattr(self._plugins[name], attribute, None)
                ]
        return problems

    def _not_mappings(self) -> list[str]:
        """Declarations of plugins that are only names, but must be mappings with a value for each name."""
        return [
            f"plugin {item.plugin}: {hook.declared} must be a mapping: each member of `cnf` with the type of a token "
            "that is bound in this way"
            for hook in CONTRIBUTING.values()
            for item in self._implementations[hook.name]
            if hook.value is Binding
            and item.declared
            and not isinstance(getattr(self._plugins[item.plugin], hook.declared), Mapping)
        ]

    def _not_implemented(self) -> list[str]:
        """Hooks that are in `serves` of a plugin although it does not implement them."""
        return [
            f"plugin {name}: `serves` names {hook}, which it does not implement"
            for name, plugin in self._plugins.items()
            for hook in getattr(plugin, "serves", ())
            if name not in [item.plugin for item in self._implementations.get(hook, ())]
        ]

    def _collisions(self) -> list[str]:
        """Names that two plugins declare for the same hook, or that belong to the core."""
        problems = []
        for hook in CONTRIBUTING.values():
            owners = dict.fromkeys(hook.reserved, "the core")
            for implementation in self._implementations[hook.name]:
                others = [other.declared for other in implementation.others.values()]
                for name in sorted(implementation.declared.union(*others)):
                    if name in owners:
                        problems.append(
                            f"plugin {implementation.plugin}: {hook.name} adds {name}, which {owners[name]} adds already; "
                            f"remove it from `{hook.declared}`, or remove one plugin from authserver.plugins"
                        )
                    owners[name] = f"plugin {implementation.plugin}"
        return problems

    def table(self) -> list[dict[str, Any]]:
        """Which plugins each hook asks, in which order, and what silence means."""
        return [
            {
                "hook": name,
                "kind": hook.kind,
                "plugins": [item.plugin for item in self._implementations[name]],
                "silence": hook.silence,
                "variants": [
                    {
                        "plugin": item.plugin,
                        "client": variant.client,
                        "resource": variant.resource,
                        "settings": variant.shown(item.plugin),
                    }
                    for item in self._implementations[name]
                    for variant in item.variants or ()
                ],
            }
            for name, hook in self._hooks.items()
        ]


class _Manager(pluggy.PluginManager):
    """Reads only attributes with the name of a hook; `fitting` has refused marks on all others."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        return super().parse_hookimpl_opts(plugin, name) if name in vars(self.hook) else None


def _registered(
    plugins: Sequence[tuple[str, object]], hooks: Mapping[str, Hook]
) -> tuple[pluggy.PluginManager, list[str]]:
    """The plugins, registered at these hooks, and a problem for each one that cannot be registered."""
    manager = _Manager(PROJECT)
    manager.add_hookspecs(type("Hooks", (), {name: hook.function for name, hook in hooks.items()}))
    for name in DECIDING:
        # A plugin that answers several hooks in the same way takes the whole question as one argument.
        getattr(manager.hook, name).spec.argnames += ("question",)
    problems = []
    # pluggy calls the plugin first that was registered last; registered in reverse, they are called as in the INI.
    for name, plugin in reversed(plugins):
        try:
            hash(plugin)
            manager.register(plugin, name)
        except TypeError:
            problems.append(f"plugin {name}: not hashable; make it a frozen dataclass with hashable fields")
        except (pluggy.PluginValidationError, ValueError) as error:
            problems.append(f"plugin {name}: {error}")
    return manager, problems


def _of(plugin: object, found: pluggy.HookImpl) -> Callable[..., Any]:
    """The same function of another plugin of this kind, whatever its name is."""
    function = found.function
    if isinstance(function, MethodType) and function.__self__ is found.plugin:
        return MethodType(function.__func__, plugin)
    return function  # a static or class method


def _out_of_order(hook: str, found: Sequence[pluggy.HookImpl]) -> list[str]:
    """A problem for each plugin that asks to be called before, after or around the others."""
    return [
        f"plugin {item.plugin_name}: {hook} is marked tryfirst, trylast or wrapper; remove the mark, the order of "
        "authserver.plugins decides"
        for item in found
        if item.hookwrapper or item.wrapper or item.tryfirst or item.trylast
    ]


def _ask(implementation: Implementation, hook: Deciding, question: Question[Any], consequence: str) -> Answer:
    """The answer of one plugin. A plugin that raises an error, is too slow or returns a wrong answer has failed.

    Args:
        consequence: the consequence of a failure, for the log.
    """
    if implementation.variants is not None:
        implementation = implementation.at(lambda name: getattr(question, name, None))
    begun = time.perf_counter_ns()
    try:
        decision = contained(implementation.function, *implementation.arguments(question))
        problem = None if decision is None else contained(hook.problem_with, decision)
    except TooSlow as error:
        fault = f"{error}; ask other services with a shorter timeout, or raise authserver.policy_time_limit"
        log.error("plugin %s is too slow in %s (%s): %s", implementation.label, hook.name, fault, consequence)
        return _failed(implementation, "plugin-too-slow", begun, fault)
    except Unusable as error:
        log.error(_WRONG_ANSWER, implementation.label, hook.name, error, consequence)
        return _failed(implementation, error.reason, begun, f"its answer cannot be used: {error}")
    except Exception as error:
        fault = fault_of(error)
        log.exception("plugin %s failed in %s (%s): %s", implementation.label, hook.name, fault, consequence)
        return _failed(implementation, "plugin-raised", begun, fault)
    if problem:
        fault = hook.advice(decision)
        log.error(_WRONG_ANSWER, implementation.label, hook.name, problem, f"{consequence}; {fault}")
        return _failed(implementation, problem, begun, fault)
    name, variant, took = implementation.plugin, implementation.variant, _microseconds(begun)
    if decision is None:
        return Answer(name, Verdict.SILENT, "", took, variant=variant)
    return Answer(
        name,
        decision.verdict,
        decision.reason,
        took,
        decision.value,
        decision.error_code,
        variant,
        decision.wait,
    )


def _failed(implementation: Implementation, reason: str, begun: int, fault: str) -> Answer:
    return Answer(
        implementation.plugin,
        Verdict.FAILED,
        reason,
        _microseconds(begun),
        variant=implementation.variant,
        fault=fault,
    )


def fault_of(error: Exception) -> str:
    """The error that a plugin raised at a deciding hook, with the line of the plugin, and what it should do instead."""
    said = f"it raised {described(error)}"
    if isinstance(error, OAuthError):
        return f"{said}; a policy refuses by returning deny(reason)"
    return said


def _contribution(implementation: Implementation, hook: Contributing, question: Mapping[str, Any]) -> Any:
    """The value that one plugin adds at a contributing hook. Raises the errors of the plugin, and CannotBeAdded."""
    value = implementation.function(*[question[name] for name in implementation.argnames])
    if value is None:
        return None
    if not isinstance(value, hook.value):
        raise CannotBeAdded(f"{type(value).__name__} cannot be added")
    if not all(map(is_refusal, refusals_in(value))):
        raise CannotBeAdded("its refusal cannot be sent or stored")
    if isinstance(value, Mapping):
        value = dict(value)
    if hook.declared:
        added = _named(value)
        if undeclared := set(added) - implementation.declared:
            names = ", ".join(sorted(map(str, undeclared)))
            raise CannotBeAdded(f"it does not declare {names} in `{hook.declared}`")
        if len(strict_json.dumps(added)) > MAXIMUM_JSON:
            raise CannotBeAdded(f"it is longer than {MAXIMUM_JSON} bytes of JSON")
    if isinstance(value, Welcome) and not strict_json.comes_back(dict(value.private_details)):
        raise CannotBeAdded("its private details are not JSON that can be stored")
    if hook.name in _FUNCTIONS:
        return {name: _contained(implementation, hook.name, added) for name, added in value.items()}
    return value


def _contained(implementation: Implementation, hook: str, added: Any) -> Any:
    """The value that a plugin added under one name, with its functions wrapped in `_call`, which contains failures."""
    if hook == "client_proofs":
        if not isinstance(added, ClientProof):
            raise CannotBeAdded(f"{type(added).__name__} is not a ClientProof")
        return ClientProof(
            prove=partial(_call, implementation, hook, added.prove),
            check=partial(_call, implementation, f"{hook}.check", added.check),
            stand_in=added.stand_in,
        )
    if hook == "assertion_profiles":
        return _profile(implementation, added)
    if hook == "exchangeable_tokens":
        if not isinstance(added, ExchangeableToken):
            raise CannotBeAdded(f"{type(added).__name__} is not an ExchangeableToken")
        made = f"{hook}.make"
        return ExchangeableToken(
            read=None if added.read is None else partial(_call, implementation, hook, added.read),
            make=None if added.make is None else partial(_call, implementation, made, added.make),
        )
    return partial(_call, implementation, hook, added)


def _profile(implementation: Implementation, added: Any) -> AssertionProfile:
    """A profile of assertions with its functions called by `_call`; not its `check`, which only commands call."""
    if not isinstance(added, AssertionProfile):
        raise CannotBeAdded(f"{type(added).__name__} is not an AssertionProfile")
    hook = "assertion_profiles"
    return replace(
        added,
        accept=partial(_call, implementation, hook, added.accept),
        lets_in=partial(_call, implementation, f"{hook}.lets_in", added.lets_in),
    )


def _named(value: Any) -> Mapping[str, Any]:
    """The members that must be declared, in a value that a plugin adds."""
    match value:
        case Binding():
            return dict(value.confirmation)
        case Welcome():
            return dict(value.members)
    return cast(Mapping[str, Any], value)


def _call(implementation: Implementation, hook: str, function: Callable[..., Any], /, *arguments: Any) -> Any:
    """Call a function that a plugin added: a grant type, a proof, or the reader of a member of client metadata.

    Raises:
        OAuthError: it refuses.
        ServerError: it failed.
    """
    ask = partial(with_copies, function) if implementation.third_party else function
    try:
        answer = contained(ask, *arguments)
        contained(_FUNCTIONS[hook], answer)
    except StorageUnavailable:
        raise
    except Exception as error:
        if is_refusal(error):
            raise
        log.exception("plugin %s failed in %s: refusing; fix or remove it", implementation.plugin, hook)
        raise ServerError("The server could not answer this request.", reason="plugin-raised") from None
    return answer


def _check_issue(answer: object) -> None:
    if not isinstance(answer, Issue):
        raise CannotBeAdded(f"{type(answer).__name__} is not an Issue")
    if not all(map(is_refusal, refusals_in(answer))):
        raise CannotBeAdded("its refusal cannot be sent or stored")


def _check_kept(answer: object) -> None:
    if not strict_json.comes_back(answer):
        raise CannotBeAdded(f"{type(answer).__name__} is not a JSON value that can be stored")


def _check_uses(answer: object) -> None:
    if not isinstance(answer, tuple) or not all(isinstance(use, SingleUse) for use in answer):
        raise CannotBeAdded(f"{type(answer).__name__} is not a tuple of SingleUse")
    if not all(is_refusal(use.refusal) for use in answer):
        raise CannotBeAdded("its refusal cannot be sent or stored")


def _check_vouched(answer: object) -> None:
    if not isinstance(answer, Vouched):
        raise CannotBeAdded(f"{type(answer).__name__} is not a Vouched")


def _check_presented(answer: object) -> None:
    if not isinstance(answer, Presented):
        raise CannotBeAdded(f"{type(answer).__name__} is not a Presented")
    if not all(is_refusal(use.refusal) for use in answer.uses):
        raise CannotBeAdded("its refusal cannot be sent or stored")


def _check_flag(answer: object) -> None:
    if type(answer) is not bool:
        raise CannotBeAdded(f"{type(answer).__name__} is neither true nor false")


def _check_nothing(answer: object) -> None:
    if answer is not None:
        raise CannotBeAdded(
            f"{type(answer).__name__}: a check returns nothing; it refuses by raising an error"
        )


# The hooks at which plugins add functions; each with a check that raises if such a function returns a wrong answer.
_FUNCTIONS: Mapping[str, Callable[[Any], object]] = {
    "assertion_profiles": _check_vouched,
    "assertion_profiles.lets_in": _check_flag,
    "exchangeable_tokens": _check_presented,
    "exchangeable_tokens.make": _check_issue,
    "grant_types": _check_issue,
    "client_metadata": _check_kept,
    "client_proofs": _check_uses,
    "client_proofs.check": _check_nothing,
}


def _fields(names: Sequence[str]) -> Callable[[Question[Any]], Sequence[Any]]:
    """A function that reads these fields of a question."""
    if not names:
        return lambda question: ()
    read = attrgetter(*names)
    # With one name an attrgetter does not return a tuple.
    return read if len(names) > 1 else lambda question: (read(question),)


def _microseconds(begun: int) -> int:
    return (time.perf_counter_ns() - begun) // 1000
