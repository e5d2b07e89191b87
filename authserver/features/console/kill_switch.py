"""The kill switch: counts and then ends everything of a person, client, resource, scope or issuer (L-08).

A large act is done in parts, each as long as one request may take. After each part the page says how much is done, and its
button continues. Each part stays done, even if nobody continues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from typing import Any

from authserver.administration import (
    Act,
    BadSearch,
    Ended,
    Part,
    Stage,
    Subject,
    SubjectKind,
    canonical_resource,
    end_part,
    plan_part,
)
from authserver.api import InvalidTarget, OAuthError, Unsealable, from_text, to_text
from authserver.features.console.access import Role
from authserver.features.console.ends import FEW
from authserver.features.console.finding import user_named
from authserver.features.console.pages import BadInput, Page, Visit

# How many seconds a part may take in a request; a batch that has begun is finished. The first count is short, so that the
# page is as quick as every other; an operator who wants the whole count continues.
FIRST_SECONDS = 0.15
SECONDS = 5.0
_PURPOSE = "kill-switch"
_KEYS = ("kind", "name", "disable", "from_clients")
_KINDS = {
    SubjectKind.USER: "Person",
    SubjectKind.CLIENT: "Client",
    SubjectKind.RESOURCE: "Resource",
    SubjectKind.SCOPE: "Scope",
    SubjectKind.ISSUER: "Issuer of assertions",
}


def show(visit: Visit) -> Mapping[str, Any]:
    """The form; and if a subject is named, how much would end."""
    values: dict[str, Any] = {
        "sent": {name: visit.get(name) for name in _KEYS},
        "kinds": [(str(kind), words) for kind, words in _KINDS.items()],
        "act": None,
        "problem": visit.problem,
    }
    if not visit.get("name"):
        return values
    try:
        act = _act(visit)
        before = _read(visit, act, "counted")
        part = plan_part(
            lambda: nullcontext(visit.engine),
            act,
            before.next or Stage(),
            seconds=SECONDS if before.next else FIRST_SECONDS,
            batches=FEW,
        )
        part = replace(part, ended=before.ended + part.ended)
        if not part.next and not part.ended and not _is_known(visit, act):
            raise BadSearch(f"{act.subject.name}: there is no such {act.subject.kind}")
    except (BadSearch, InvalidTarget) as bad:
        return {**values, "problem": str(bad), "status": 400}
    counted = _seal(visit, act, part, "counted") if part.next else ""
    return {
        **values,
        **_told(visit, act, part),
        "go_on": visit.address("admin_end", **_keys(visit), counted=counted) if counted else "",
    }


def end(visit: Visit) -> Mapping[str, Any]:
    """End everything of the subject, or a part of it, and show how much ended."""
    act = _act(visit)
    before = _read(visit, act, "ended")
    part = end_part(visit.begin, act, before.next or Stage(), seconds=SECONDS)
    part = replace(part, ended=before.ended + part.ended)
    return {
        **_told(visit, act, part),
        "ended": _seal(visit, act, part, "ended") if part.next else "",
    }


def _told(visit: Visit, act: Act, part: Part) -> Mapping[str, Any]:
    subject = act.subject
    return {
        "act": act,
        "kind": _KINDS[subject.kind],
        "keys": _keys(visit),
        "ends": part.ended.told,
        "found": part.ended,
        "is_self": subject.kind is SubjectKind.USER and subject.identifier == visit.person.user_id,
    }


def _keys(visit: Visit) -> dict[str, str]:
    return {name: value for name in _KEYS if (value := visit.get(name))}


def _act(visit: Visit) -> Act:
    """The act that the form asks for. Raises BadSearch, InvalidTarget and RoleTooLow."""
    subject = _subject(visit)
    for_good = bool(visit.get("disable"))
    if for_good and subject.kind not in (SubjectKind.USER, SubjectKind.CLIENT):
        raise BadSearch(f"a {subject.kind} cannot be disabled: only a person or a client can")
    registrations = bool(visit.get("from_clients"))
    if registrations and subject.kind is not SubjectKind.SCOPE:
        raise BadSearch(f"clients are registered for scopes: a {subject.kind} cannot be taken from them")
    if registrations:
        visit.check_may("administer")
    if for_good and subject.kind is SubjectKind.USER:
        user = visit.engine.stores.users.find(subject.identifier)
        if user is not None and user.user_id == visit.person.user_id:
            raise BadSearch("You cannot disable yourself: ask another administrator to do it")
        if user is not None:
            visit.check_acts_on(user)
    return Act(subject=subject, for_good=for_good, registrations=registrations)


def _subject(visit: Visit) -> Subject:
    """The subject that the page is about. Raises BadSearch and InvalidTarget."""
    name = visit.get("name")
    if not name:
        raise BadSearch("type the name of the subject whose access should end")
    match visit.get("kind"):
        case SubjectKind.USER:
            user = user_named(visit, name)
            if user is None:
                raise BadSearch(f"{name}: there is no such person")
            return Subject.user(user)
        case SubjectKind.CLIENT:
            return Subject.client(name)
        case SubjectKind.RESOURCE:
            form = canonical_resource(name)
            known = visit.engine.resources.find(form)
            return Subject.resource(form, known.uri if known else name)
        case SubjectKind.SCOPE:
            return Subject.scope(name)
        case SubjectKind.ISSUER:
            return Subject.issuer(name)
        case _:
            raise BadSearch("choose a kind: a person, a client, a resource, a scope or an issuer")


def _is_known(visit: Visit, act: Act) -> bool:
    """Whether the subject exists, even if it has nothing that would end."""
    engine, name = visit.engine, act.subject.identifier
    match act.subject.kind:
        case SubjectKind.CLIENT:
            return engine.find_kept_client(name) is not None
        case SubjectKind.RESOURCE:
            return engine.resources.find(name) is not None
        case SubjectKind.SCOPE:
            return name in engine.scopes
        case _:
            return True


def _seal(visit: Visit, act: Act, part: Part, what: str) -> str:
    """The progress, sealed: only this session can continue this act with it."""
    assert part.next is not None
    until = part.ended.jwts_until
    told = {
        "step": part.next.step,
        "after": part.next.after,
        "counts": part.ended.counts,
        "has_more_jwts": part.ended.has_more_jwts,
        "jwts_until": until.isoformat() if until else None,
    }
    sealed = visit.engine.ring.seal(
        json.dumps(told).encode(), purpose=_PURPOSE, context=_context(visit, act, what)
    )
    return to_text(sealed)


def _read(visit: Visit, act: Act, what: str) -> Part:
    """The progress that `_seal` put into the parameter of this name; no progress without it. Raises BadInput."""
    text = visit.get(what)
    if not text:
        return Part()
    try:
        opened = visit.engine.ring.open(from_text(text), purpose=_PURPOSE, context=_context(visit, act, what))
    except (OAuthError, Unsealable):
        raise BadInput("This cannot be continued: begin again.") from None
    told = json.loads(opened)
    after, until = told["after"], told["jwts_until"]
    return Part(
        ended=Ended(
            **told["counts"],
            has_more_jwts=told["has_more_jwts"],
            jwts_until=datetime.fromisoformat(until) if until else None,
        ),
        next=Stage(step=told["step"], after=tuple(after) if isinstance(after, list) else after),
    )


def _context(visit: Visit, act: Act, what: str) -> str:
    subject = act.subject
    about = [what, visit.request.browser.session_id, subject.kind, subject.identifier]
    return json.dumps([*about, act.for_good, act.registrations])


PAGES = (
    Page(
        name="admin_end",
        path="/admin/end",
        show=show,
        template="end.jinja2",
        role=Role.OPERATE,
        act=end,
        keys=_KEYS,
        entry="Kill switch",
        result="ended.jinja2",
    ),
)
