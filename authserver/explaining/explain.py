"""Why a question is decided as it is: every check in order, who answered what, and what would change it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from authserver.engine.context import Engine
from authserver.engine.decisions import Verdict, outcome_of
from authserver.engine.errors import Refusal
from authserver.engine.records import Event
from authserver.explaining.remedies import remedy_of
from authserver.hookspecs import DECIDING
from authserver.ini import PLUGIN_PREFIX
from authserver.plugins.asking import PluginSet
from authserver.plugins.variants import shown

CORE = "core"
_OBJECTIONS = frozenset({Verdict.DENY, Verdict.NARROW, Verdict.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginAnswer:
    """What one plugin answered. `settings` are its present settings; `variant` says whom they are for, if not for all."""

    by: str
    verdict: str
    reason: str
    microseconds: int
    variant: str
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: what was asked, what came out, who decided, and what would change it.

    Attributes:
        hook: the hook, or `core` for a rule that no plugin can change.
        outcome: the scopes or the resource that were let through, if it was about such.
    """

    hook: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    answers: tuple[PluginAnswer, ...] = ()
    verdict: str
    by: str
    reason: str
    outcome: Any = None
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The checks that led to an outcome. `description` is the text that the client got."""

    verdict: str
    reason: str
    description: str
    outcome: Any
    checks: tuple[Check, ...]


def explain(engine: Engine, plugins: PluginSet, rule: Callable[[], Any]) -> Explanation:
    """Run a rule of the engine and explain what happened in it.

    Args:
        rule: raises a Refusal, or returns what it allows.
    """
    refusal: Refusal | None = None
    value: Any = None
    try:
        value = rule()
    except Refusal as error:
        refusal = error
    checks = tuple(_check(ruling.as_record(), plugins) for ruling in engine.journal.decisions)
    if refusal is not None:
        checks += _core_checks(refusal.reason, checks, plugins)
    elif (
        checks and checks[-1].hook == "scope_decision" and outcome_of(value) not in (None, checks[-1].outcome)
    ):
        checks += (_core_check("core-floor", Verdict.NARROW, plugins, outcome=outcome_of(value)),)
    return Explanation(
        verdict="refused" if refusal else "allowed",
        reason=refusal.reason if refusal else (checks[-1].reason if checks else ""),
        description=refusal.description if refusal else "",
        outcome=outcome_of(value),
        checks=checks,
    )


def explain_event(event: Event, plugins: PluginSet) -> Explanation:
    """Explain an event by what was recorded with it; settings and remedies are the present ones."""
    checks = tuple(_check(decision, plugins) for decision in event.decisions)
    if event.type.value.endswith((".refused", ".failed")):
        checks += _core_checks(event.reason, checks, plugins)
    return Explanation(
        verdict=event.type,
        reason=event.reason,
        description=event.details.get("description", ""),
        outcome={name: value for name, value in event.details.items() if name != "description"},
        checks=checks,
    )


def settings_of(name: str, plugins: PluginSet, variant: str = "") -> dict[str, str]:
    """The current settings of a loaded plugin or its variant, secrets hidden; empty if it is not loaded."""
    if name not in plugins.names:
        return {}
    plugin: Any = plugins.plugin(name)
    present = next((each for each in plugins.variants(name) if each.label == variant), None)
    own = {
        f"{PLUGIN_PREFIX}{name}.{item.name}": shown(getattr(plugin, item.name))
        for item in fields(plugin)
        if item.init and (present is None or item.name not in present.settings)
    }
    return own if present is None else present.shown(name) | own


def _check(decision: Mapping[str, Any], plugins: PluginSet) -> Check:
    answers = tuple(
        PluginAnswer(
            by=answer["plugin"],
            verdict=answer["verdict"],
            reason=answer["reason"],
            microseconds=answer["microseconds"],
            variant=answer.get("variant", ""),
            settings=settings_of(answer["plugin"], plugins, answer.get("variant", "")),
        )
        for answer in decision["answers"]
    )
    return Check(
        hook=decision["slot"],
        facts=decision.get("facts") or {},
        answers=answers,
        verdict=decision["verdict"],
        by=decision["decided_by"] or "nobody",
        reason=decision["reason"],
        outcome=decision.get("outcome"),
        remedies=_remedies(decision["slot"], decision["verdict"], answers, plugins),
    )


def _remedies(
    hook: str, verdict: str, answers: tuple[PluginAnswer, ...], plugins: PluginSet
) -> tuple[str, ...]:
    """What would change it: the remedies of the plugin that refused, of the silent ones, or of the one that allowed."""
    if verdict == Verdict.SILENT:
        declared = DECIDING.get(hook)
        telling, remedies = answers, ["nobody answered (refused)"]
        if declared:
            remedies = [f"nobody answered ({declared.silence})", declared.remedy]
    else:
        telling = tuple(one for one in answers if one.verdict in _OBJECTIONS) or tuple(
            one for one in answers if one.verdict == Verdict.ALLOW
        )
        own = plugins.declared("reasons")
        remedies = [remedy_of(one.reason, own) for one in telling]
        if not any(remedies) and telling:
            remedies = [f"take {', '.join(one.by for one in telling)} out of authserver.plugins"]
    remedies += [f"{key} = {value}".rstrip() for one in telling for key, value in one.settings.items()]
    return tuple(dict.fromkeys(filter(None, remedies)))


def _core_checks(reason: str, checks: tuple[Check, ...], plugins: PluginSet) -> tuple[Check, ...]:
    """Adds the core check that refused, unless a policy did."""
    told = checks and checks[-1].verdict != Verdict.ALLOW and checks[-1].reason == reason
    return () if told else (_core_check(reason, "refused", plugins),)


def _core_check(reason: str, verdict: str, plugins: PluginSet, *, outcome: Any = None) -> Check:
    remedy = remedy_of(reason, plugins.declared("reasons"))
    return Check(
        hook=CORE,
        verdict=verdict,
        by=CORE,
        reason=reason,
        outcome=outcome,
        remedies=(remedy,) if remedy else (),
    )
