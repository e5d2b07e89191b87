"""Why a question is decided as it is: every check in order, who said what, and what would change it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from authserver.engine.context import Engine
from authserver.engine.decisions import Verdict, outcome_of
from authserver.engine.errors import Refusal
from authserver.engine.records import Event
from authserver.plugins import SLOTS, PluginSet
from authserver.settings import PLUGIN_PREFIX, Secret

# What to do about a refusal by the core itself, by its reason.
REMEDIES: Mapping[str, str] = {
    "client-unknown": "register the client: `authserver client add`",
    "client-disabled": "the client was disabled; register another: `authserver client add`",
    "user-disabled": "the user was disabled; add another: `authserver user add`",
    "method-not-registered": "the client must use the method it is registered for: `authserver client show`",
    "redirect-uri-malformed": "no setting: such a URI is never acceptable",
    "redirect-uri-missing": "the request must name one of the client's redirect URIs",
    "grant-type-not-registered": "register the client for this grant type: `authserver client add --grant-type`",
    "nothing-left": "register the client for the scope, and list the scope in authserver.scopes",
    "resource-not-registered": "register the client for the resource",
    "silent-approval": "no setting: only a confidential client, or a first-party one behind https, may skip the page",
    "refresh-token-reused": "authserver.refresh_token_retry_window is how late a retry may come",
    "refresh-token-idle": "authserver.refresh_token_idle_lifetime is how long a refresh token may rest",
    "grant-expired": "authserver.grant_lifetime is how long a grant lasts",
    "code-expired": "authserver.code_lifetime is how long a code lives",
    "request-expired": "authserver.request_lifetime is how long a person may take",
    "plugin-too-slow": "authserver.policy_time_limit is how long a plugin may think",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One check: what was asked of whom, what came out, and what would change it."""

    check: str
    by: str
    verdict: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The steps to an outcome, and the facts that the policies were given, by check."""

    verdict: str
    reason: str
    outcome: Any
    steps: tuple[Step, ...]
    facts: Mapping[str, Any]


def explain(engine: Engine, plugins: PluginSet, rule: Callable[[], Any]) -> Explanation:
    """Run a rule of the engine and tell what happened in it.

    Args:
        rule: raises a Refusal, or returns what it allows.
    """
    refusal: Refusal | None = None
    value: Any = None
    try:
        value = rule()
    except Refusal as error:
        refusal = error
    steps, facts = steps_of([ruling.as_record() for ruling in engine.journal.decisions], plugins)
    told = {step.reason for step in steps}
    if refusal is not None and refusal.reason not in told:
        steps += (_core_step(refusal.reason),)
    return Explanation(
        verdict="refused" if refusal else "allowed",
        reason=refusal.reason if refusal else (steps[-1].reason if steps else ""),
        outcome=refusal.description if refusal else outcome_of(value),
        steps=steps,
        facts=facts,
    )


def explain_event(event: Event, plugins: PluginSet) -> Explanation:
    """Tell what led to an event, from what was recorded then; remedies are by the settings of now."""
    steps, facts = steps_of(event.decisions, plugins)
    if event.reason and event.reason not in {step.reason for step in steps}:
        steps += (_core_step(event.reason),)
    return Explanation(
        verdict=event.type, reason=event.reason, outcome=dict(event.details) or None, steps=steps, facts=facts
    )


def steps_of(
    decisions: Sequence[Mapping[str, Any]], plugins: PluginSet
) -> tuple[tuple[Step, ...], dict[str, Any]]:
    """The steps of recorded decisions, in order, and the facts of each slot."""
    steps: list[Step] = []
    facts: dict[str, Any] = {}
    for decision in decisions:
        slot = decision["slot"]
        facts[slot] = decision.get("facts")
        steps += [
            Step(
                check=slot,
                by=answer["plugin"],
                verdict=answer["verdict"],
                reason=answer["reason"],
                remedy=_remedy(answer, plugins),
            )
            for answer in decision["answers"]
        ]
        steps.append(
            Step(
                check=slot,
                by="all together",
                verdict=decision["verdict"],
                reason=decision["reason"],
                remedy=_silence(slot) if decision["verdict"] == Verdict.SILENT else "",
            )
        )
    return tuple(steps), facts


def settings_of(name: str, plugins: PluginSet) -> dict[str, str]:
    """The settings of a loaded plugin as they stand, secrets hidden; empty when it is not loaded."""
    if name not in plugins.names:
        return {}
    plugin: Any = plugins.plugin(name)
    return {
        f"{PLUGIN_PREFIX}{name}.{item.name}": _shown(getattr(plugin, item.name))
        for item in fields(plugin)
        if item.init
    }


def _shown(value: Any) -> str:
    if isinstance(value, Secret):
        return "(secret)"
    if isinstance(value, tuple):
        return " ".join(
            "=".join(map(str, item)) if isinstance(item, tuple) else _shown(item) for item in value
        )
    return str(value)


def _remedy(answer: Mapping[str, Any], plugins: PluginSet) -> str:
    if answer["verdict"] not in (Verdict.DENY, Verdict.NARROW, Verdict.FAILED):
        return ""
    if answer["reason"] in REMEDIES:
        return REMEDIES[answer["reason"]]
    keys = ", ".join(settings_of(answer["plugin"], plugins))
    return (f"change {keys}, or " if keys else "") + f"take {answer['plugin']} out of authserver.plugins"


def _silence(slot: str) -> str:
    meaning = SLOTS[slot].silence if slot in SLOTS else "refused"
    return f"nobody answered ({meaning}): list a plugin in authserver.plugins that does"


def _core_step(reason: str) -> Step:
    return Step(check="core", by="core", verdict="refused", reason=reason, remedy=REMEDIES.get(reason, ""))
