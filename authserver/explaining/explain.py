"""Explains a decision: all checks in order, what each plugin answered, and what would change the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from authserver.engine.context import Engine
from authserver.engine.decisions import Verdict, outcome_of
from authserver.engine.errors import Refusal
from authserver.engine.evidence import CUT, cut_facts, left_out
from authserver.engine.records import NOTHING, Event, EventType
from authserver.explaining.readable import readable
from authserver.explaining.remedies import EDIT, filled, template_of, words_of
from authserver.hookspecs import DECIDING
from authserver.ini import PLUGIN_PREFIX
from authserver.plugins.asking import PluginSet
from authserver.plugins.variants import settings_of

CORE = "core"
_BESIDE = ("what counted", "what it would have been with authserver.shadow_plugins")
_NO_REMEDY = (
    "it declares no remedy for this reason; change its settings, or take it out of authserver.plugins"
)
_NOT_LISTED = "it is not in authserver.plugins any more"
_NOT_LOADED = "its own remedies are not known, because no plugin is loaded"
_NOT_KEPT = (
    "but the database has no client of this id: if a plugin finds it elsewhere (find_client), change it there; if it was "
    "registering itself, its request must ask for what the plugins accept"
)
_LIST_FIRST = "first list {} in authserver.scopes, or the plugin that adds it in authserver.plugins: no such scope is offered yet"
_REGISTERED_NOW = "the client is registered for every requested scope by now: send the request again"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginAnswer:
    """The answer of one plugin. `settings` are its present settings; `variant` says for whom, if they are not for all."""

    by: str
    verdict: str
    reason: str
    microseconds: int
    variant: str
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: what was asked, the verdict, who decided; and what would change it, if it refused.

    Attributes:
        hook: the hook, or `core` for a rule that no plugin can change.
        note: what the verdict means if that is not obvious: that no plugin answered, or that it did not count.
        outcome: the scopes or the resource that were allowed, if the check was about scopes or a resource.
        remedies: what would change it; none unless it refused, in whole or in part.
        settings: the present settings of the plugins that refused; where silence refuses, of all that answered nothing.
        cut: what was shortened because the event was too long: its path, and the original length (`engine.evidence`).
    """

    hook: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    cut: Mapping[str, str] = field(default_factory=dict)
    answers: tuple[PluginAnswer, ...] = ()
    verdict: str
    by: str
    reason: str
    note: str = ""
    outcome: Any = None
    remedies: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The checks that led to an outcome.

    Attributes:
        description: the text that the client got.
        left_out: how many checks are not shown because the event was too long, by hook.
        more: if the event stands for several of its kind: their `count`, the time of the last (`until`), and the number of
            `sources` from which they came.
    """

    verdict: str
    reason: str
    description: str
    outcome: Any
    checks: tuple[Check, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def explain(engine: Engine, plugins: PluginSet, rule: Callable[[], Any]) -> Explanation:
    """Run a rule of the engine, and explain its decisions.

    Args:
        rule: raises a Refusal, or returns what it allows.
    """
    refusal: Refusal | None = None
    value: Any = None
    try:
        value = rule()
    except Refusal as error:
        refusal = error
    teller = _Teller(engine, plugins, {"client_id": engine.journal.client_id})
    checks = teller.checks(ruling.as_record() for ruling in engine.journal.decisions)
    outcome = outcome_of(value)
    if refusal is not None:
        checks += teller.core_checks(refusal.reason, refusal.facts, checks)
    elif checks and checks[-1].hook == "scope_decision" and outcome not in (None, checks[-1].outcome):
        checks += (teller.core_check("core-floor", Verdict.NARROW, {}, checks, outcome=outcome),)
    decided = checks[-1].reason if checks and checks[-1].verdict != Verdict.SILENT else ""
    return Explanation(
        verdict="refused" if refusal else "allowed",
        reason=refusal.reason if refusal else decided,
        description=refusal.description if refusal else "",
        outcome=outcome,
        checks=checks,
    )


def explain_event(engine: Engine, event: Event, plugins: PluginSet) -> Explanation:
    """Explain an event from its recorded decisions; settings, clients and remedies are the present ones."""
    event = readable(event)
    teller = _Teller(engine, plugins, {"client_id": event.client_id})
    checks = teller.checks(event.decisions)
    if event.type is EventType.POLICY_DIFFERED:
        # The second check is the decision with the shadow plugins, which did not count: nothing was refused.
        checks = tuple(
            replace(check, note="; ".join(filter(None, (note, check.note))), remedies=(), settings={})
            for check, note in zip(checks, _BESIDE, strict=False)
        )
    if event.type.value.endswith((".refused", ".failed")):
        cut = {
            path: length for path, length in event.details.get(CUT, {}).items() if path.startswith("facts")
        }
        checks += teller.core_checks(event.reason, event.details.get("facts", {}), checks, cut)
    return Explanation(
        verdict=event.type,
        reason=event.reason,
        description=event.details.get("description", ""),
        outcome={
            name: value
            for name, value in event.details.items()
            if name not in ("description", "facts", "slot", CUT, "more")
        },
        checks=checks,
        left_out=left_out(event),
        more=event.details.get("more", {}),
    )


def _settings_of(name: str, plugins: PluginSet, variant: str = "") -> dict[str, str]:
    """The current settings of a loaded plugin or its variant, secrets hidden; empty if it is not loaded."""
    if name not in plugins.names:
        return {}
    plugin: Any = plugins.plugin(name)
    present = next((each for each in plugins.variants(name) if each.label == variant), None)
    own = {
        f"{PLUGIN_PREFIX}{name}.{setting}": value
        for setting, value in settings_of(plugin).items()
        if present is None or setting not in present.settings
    }
    return own if present is None else present.shown(name) | own


@dataclass(frozen=True, slots=True)
class _Teller:
    """Makes the checks of one explanation.

    Attributes:
        about: facts that hold for all of them, such as the `client_id` of the event.
    """

    engine: Engine
    plugins: PluginSet
    about: Mapping[str, Any]

    def checks(self, decisions: Iterable[Mapping[str, Any]]) -> tuple[Check, ...]:
        return tuple(map(self._check, decisions))

    def core_checks(
        self,
        reason: str,
        facts: Mapping[str, Any],
        checks: tuple[Check, ...],
        cut: Mapping[str, str] = NOTHING,
    ) -> tuple[Check, ...]:
        """The core check that refused; none if a policy refused."""
        told = checks and checks[-1].verdict != Verdict.ALLOW and checks[-1].reason == reason
        return () if told else (self.core_check(reason, "refused", facts, checks, cut=cut),)

    def core_check(
        self,
        reason: str,
        verdict: str,
        facts: Mapping[str, Any],
        checks: tuple[Check, ...],
        *,
        outcome: Any = None,
        cut: Mapping[str, str] = NOTHING,
    ) -> Check:
        asked = {name: value for check in checks for name, value in _whole(check.facts, check.cut).items()}
        return Check(
            hook=CORE,
            facts=dict(facts),
            cut=dict(cut),
            verdict=verdict,
            by=CORE,
            reason=reason,
            outcome=outcome,
            remedies=self._remedies_of(reason, {**asked, **_whole(facts, cut)}),
        )

    def _check(self, decision: Mapping[str, Any]) -> Check:
        hook, verdict, facts = decision["slot"], decision["verdict"], decision.get("facts") or {}
        declared = DECIDING.get(hook)
        cut = decision.get(CUT, {})
        whole = _whole(facts, cut)
        answers = tuple(
            PluginAnswer(
                by=answer["plugin"],
                verdict=answer["verdict"],
                reason=answer["reason"],
                microseconds=answer["microseconds"],
                variant=answer.get("variant", ""),
                settings=_settings_of(answer["plugin"], self.plugins, answer.get("variant", "")),
            )
            for answer in decision["answers"]
        )
        silent = verdict == Verdict.SILENT
        if silent and declared and declared.silence_refuses:
            refusing, remedies = answers, self._filled(declared.remedy, whole)
        else:
            refusing = _refusing(verdict, answers, facts, decision.get("outcome"))
            remedies = self._remedies_against(refusing, whole)
        return Check(
            hook=hook,
            facts=facts,
            cut=cut,
            answers=answers,
            verdict=verdict,
            by=decision["decided_by"] or "nobody",
            reason=decision["reason"],
            note=declared.silence if silent and declared else "",
            outcome=decision.get("outcome"),
            remedies=remedies,
            settings={key: value for answer in refusing for key, value in answer.settings.items()},
        )

    def _remedies_against(
        self, refusing: Sequence[PluginAnswer], facts: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """What would change the answers of these plugins; each remedy begins with the name of the plugin."""
        remedies: list[str] = []
        for answer in refusing:
            own = self._remedies_of(answer.reason, facts)
            if not self.plugins.names:
                own = own or (_NOT_LOADED,)
            elif answer.by not in self.plugins.names:
                own = (_NOT_LISTED,)
            remedies += [f"{answer.by}: {remedy}" for remedy in own or (_NO_REMEDY,)]
        return tuple(dict.fromkeys(remedies))

    def _remedies_of(self, reason: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
        template = template_of(reason, self.plugins.declared("reasons"))
        return self._filled(template, facts) if template else ()

    def _filled(self, template: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
        """The remedy with the facts filled in, after whatever must be done first."""
        facts = {**self.about, **{name: value for name, value in facts.items() if value is not None}}
        what, changes_client, _ = template.partition(f": `{EDIT}")
        if not changes_client:
            return (filled(template, words_of(facts)),)
        client = self.engine.stores.clients.find(str(facts.get("client_id")), self.engine.now)
        if client is None:
            return (f"{filled(what, words_of(facts))}; {_NOT_KEPT}",)
        if "{add_scopes}" not in template:
            return (filled(template, words_of(facts)),)
        if "requested" not in facts:
            # It was cut: naming some of the scopes would promise too much.
            return (filled(template, words_of(facts)),)
        missing = [scope for scope in facts.get("requested", ()) if scope not in client.scopes]
        if not missing:
            return (_REGISTERED_NOW,)
        unknown = [scope for scope in missing if scope not in self.engine.scopes]
        remedy = filled(template, words_of(facts, missing_scopes=missing))
        return (_LIST_FIRST.format(" ".join(unknown)), remedy) if unknown else (remedy,)


def _whole(facts: Mapping[str, Any], cut: Mapping[str, str]) -> Mapping[str, Any]:
    """The facts that a remedy may name, which are those that were not cut: a command with a part of a value would change
    something else.
    """
    parts = cut_facts(cut)
    return {name: value for name, value in facts.items() if name not in parts}


def _refusing(
    verdict: str, answers: tuple[PluginAnswer, ...], facts: Mapping[str, Any], outcome: Any
) -> tuple[PluginAnswer, ...]:
    """The answers that refused; if the verdict is ALLOW, those that removed something that was requested."""
    if verdict != Verdict.ALLOW:
        return tuple(answer for answer in answers if answer.verdict in (Verdict.DENY, Verdict.FAILED))
    if not isinstance(outcome, list) or (outcome and set(facts.get("requested", ())) <= set(outcome)):
        return ()
    return tuple(answer for answer in answers if answer.verdict == Verdict.NARROW)
