"""Applies a plan: as a whole in one transaction, and by the rules of the single commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC

from authserver.engine import ending, issuers, offered, resources
from authserver.engine.clients import editing, initial_tokens
from authserver.engine.clients.editing import ChangedMeanwhile
from authserver.engine.clients.registration import add_client
from authserver.engine.clients.secrets import SecretsUnchanged, rotate_secret
from authserver.engine.context import Begin, Engine
from authserver.engine.declarations.forms import DeclaredInitialToken
from authserver.engine.declarations.plan import ENDING, Action, Declared, Manner, Plan, Step
from authserver.engine.declarations.planning import plan_of
from authserver.engine.ending import Act, Ended, Subject, SubjectKind
from authserver.engine.issuers import BadIssuer
from authserver.engine.keys.ring import check_known
from authserver.engine.ports import AlreadyExists
from authserver.engine.records import NOTHING
from authserver.engine.resources import BadResource
from authserver.engine.setting_records import Declaration, DeclaredKind

# Seconds after which every request has ended that began before its process knew of a removed scope.
_REQUEST_SECONDS = 2.0


def apply(
    engine: Engine,
    declared: Declared,
    manner: Manner,
    shown: Plan,
    *,
    plugins: Mapping[str, object] = NOTHING,
) -> None:
    """Apply the declarations in the transaction of this engine; `finish` does the work that needs several transactions.

    Args:
        shown: the plan that the operator agreed to.

    Raises:
        ChangedMeanwhile: the plan has changed since then, or a record changes while it is written. Then the transaction
            must not be committed.
        ValueError: the plan has problems.
    """
    if shown.problems:
        raise ValueError("a plan with problems cannot be applied")
    check_known(engine)
    plan = plan_of(engine, declared, manner, plugins=plugins)
    if plan.problems or plan.steps != shown.steps:
        raise _changed(_different(plan, shown))
    engine = replace(engine, scopes=plan.scopes)
    for step in plan.steps:
        try:
            _act(engine, declared, manner, step)
        except (AlreadyExists, BadIssuer, BadResource, ChangedMeanwhile, SecretsUnchanged) as error:
            raise _changed(step.name) from error
        finally:
            # The next step has another subject.
            engine.journal.client_id = None


def finish(begin: Begin, plan: Plan, wait: Callable[[float], None] = time.sleep) -> Generator[Ended]:
    """End the grants of clients, resources and scopes that an applied plan disabled or removed (L-08).

    A batch in each transaction; yields what ended in each. It can be run again after an interruption: until it is done,
    each plan that prunes has it as a step.

    Args:
        wait: waits for some seconds; called if a scope was removed, because other processes may still grant it until
            then.
    """
    if any(step.kind is DeclaredKind.SCOPE for step in filter(_ends, plan.steps)):
        wait(offered.FOLLOW_SECONDS + _REQUEST_SECONDS)
    for step in filter(_ends, plan.steps):
        subject = _subject(step)
        # Without `for_good`: if it was created again meanwhile it remains, and the earlier grants end nevertheless.
        yield from ending.end(begin, _end_of(subject, ending.reason_for_good(subject.kind)))
        with begin() as engine:
            if step.kind is DeclaredKind.ISSUER:
                with suppress(BadIssuer):
                    issuers.remove(engine, step.name)
            engine.stores.declarations.forget(step.kind, step.name)


def ends_of(begin: Begin, plan: Plan) -> Sequence[Ended | None]:
    """What each step would end; None for a step that ends nothing. Nothing is written."""
    return [
        sum(ending.plan(begin, _end_of(_subject(step))), Ended()) if _ends(step) else None
        for step in plan.steps
    ]


def _end_of(subject: Subject, reason: str = "") -> Act:
    """The act that ends the grants; for a removed scope, also its registration at clients."""
    return Act(subject=subject, because=reason, registrations=subject.kind is SubjectKind.SCOPE)


def _ends(step: Step) -> bool:
    return step.action in (Action.DISABLE, Action.REMOVE, Action.END)


def _subject(step: Step) -> Subject:
    if step.kind is DeclaredKind.CLIENT:
        return Subject.client(step.name)
    if step.kind is DeclaredKind.SCOPE:
        return Subject.scope(step.name)
    if step.kind is DeclaredKind.ISSUER:
        return Subject.issuer(step.name)
    return Subject.resource(step.name, step.before.uri if step.before else step.name)


def _act(engine: Engine, declared: Declared, manner: Manner, step: Step) -> None:
    """Carry out this step, and store or delete its mark."""
    stores, mark = engine.stores, step.mark
    match step.kind, step.action:
        case DeclaredKind.CLIENT, Action.ADD | Action.CHANGE:
            _put_client(engine, declared, manner, step)
        case DeclaredKind.RESOURCE, Action.ADD:
            resources.add(engine, step.after)
        case DeclaredKind.RESOURCE, Action.CHANGE:
            if resources.differences(step.before, step.after):
                resources.change(engine, step.before, step.after)
        case DeclaredKind.INITIAL_TOKEN, Action.ADD | Action.CHANGE:
            mark = _put_token(engine, step)
        case DeclaredKind.INITIAL_TOKEN, Action.REVOKE:
            if not initial_tokens.revoke(engine, step.before.token_id):
                raise ChangedMeanwhile
        case DeclaredKind.SCOPE | DeclaredKind.LIMIT, Action.ADD | Action.CHANGE:
            offered.keep(engine, step.before, step.after)
        case DeclaredKind.ISSUER, Action.ADD:
            issuers.add(engine, step.after)
        case DeclaredKind.ISSUER, Action.CHANGE:
            if issuers.differences(step.before, step.after):
                issuers.change(engine, step.before, step.after)
        case DeclaredKind.ISSUER, Action.REMOVE:
            # It may be disabled already, by hand.
            ending.take_away(engine, _subject(step))
            assert mark is not None  # or it would stay
            stores.declarations.keep(replace(mark, references=ENDING))
        case DeclaredKind.LIMIT, Action.REVOKE:
            if not offered.remove(engine, step.before):
                raise ChangedMeanwhile
        case DeclaredKind.CLIENT | DeclaredKind.RESOURCE | DeclaredKind.SCOPE, Action.DISABLE | Action.REMOVE:
            is_gone = (
                offered.remove(engine, step.before)
                if step.kind is DeclaredKind.SCOPE
                else ending.take_away(engine, _subject(step))
            )
            if not is_gone:
                raise ChangedMeanwhile
            assert mark is not None  # or it would stay
            stores.declarations.keep(replace(mark, references=ENDING))
    match step.action:
        case Action.ADD | Action.CHANGE:
            if mark is not None:
                stores.declarations.keep(mark)
        case Action.REVOKE | Action.FORGET:
            stores.declarations.forget(step.kind, step.name)


def _put_client(engine: Engine, declared: Declared, manner: Manner, step: Step) -> None:
    if step.before is None:
        assert step.metadata is not None
        add_client(
            engine,
            step.metadata,
            client_id=step.name,
            first_party=step.after.first_party,
            rotates_refresh_tokens=step.after.rotates_refresh_tokens,
            logo=declared.files.get((step.kind, step.name, "logo"), b""),
            makes_secret=False,
        )
    elif editing.differences(step.before, step.after):
        editing.keep(engine, step.before, editing.as_edited(step.after), logo=step.logo, makes_secret=False)
    if step.secret is not None:
        rotate_secret(engine, step.name, manner.overlap, text=step.secret.value)


def _put_token(engine: Engine, step: Step) -> Declaration | None:
    """Make or change an initial access token, and revoke the previous one. Returns its mark, which names it."""
    if step.replaced is not None and not initial_tokens.revoke(engine, step.replaced.token_id):
        raise ChangedMeanwhile
    if step.secret is None:
        if initial_tokens.differences(step.before, step.after) and not initial_tokens.change(
            engine, step.before, step.after
        ):
            raise ChangedMeanwhile
        return step.mark
    form: DeclaredInitialToken = step.after
    made, _ = initial_tokens.make(
        engine,
        policy=form.policy,
        uses=form.uses,
        expires_at=form.expires_at.astimezone(UTC),
        note=form.note,
        text=step.secret.value,
    )
    return replace(step.mark, target=made.token_id) if step.mark else None


def _different(plan: Plan, shown: Plan) -> str:
    """The name of the first step that differs from the plan that was shown."""
    if plan.problems:
        return str(plan.problems[0].path[-1])
    return next(
        step.name for step in (*plan.steps, *shown.steps) if step not in plan.steps or step not in shown.steps
    )


def _changed(name: str) -> ChangedMeanwhile:
    return ChangedMeanwhile(
        f"{name} was changed by somebody else since the plan was made; nothing was changed here"
    )
