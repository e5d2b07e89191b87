"""The signing keys and the key ring: shows their ages and next dates, rotates keys, and revokes one in an emergency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pyramid.response import Response

from authserver.administration import (
    ALGORITHMS,
    KeyState,
    Measure,
    overview,
    recode_here,
    ring,
    signing_keys,
    totals,
)
from authserver.features.console.access import Role
from authserver.features.console.ages import distance, length
from authserver.features.console.pages import BadInput, Page, Visit

# How many ended keys are shown, the latest first.
MAXIMUM_REMOVED = 20
MAXIMUM_REASON = 100
_KINDS = {
    KeyState.STAGED: "caution",
    KeyState.ACTIVE: "good",
    KeyState.RETIRING: "quiet",
    KeyState.REMOVED: "quiet",
}
_MEANINGS = {
    KeyState.STAGED: "published, does not sign yet",
    KeyState.ACTIVE: "may sign",
    KeyState.RETIRING: "verifies what it signed",
    KeyState.REMOVED: "ended",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Date:
    """A date of a key, and how far it is from now."""

    label: str
    at: datetime
    distance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A signing key as the list shows it; `next` is what happens to it next."""

    kid: str
    algorithm: str
    state: KeyState
    kind: str
    meaning: str
    signs: bool
    dates: tuple[Date, ...]
    next: Date | None
    sealed_by: str


def show(visit: Visit) -> Mapping[str, Any]:
    """The signing keys and the key ring: the present state of each, and what happens to it next."""
    engine = visit.engine
    found, now = engine.stores.signing_keys.list(), engine.now
    signs = signing_keys.signing_key(found, engine.settings.signing_algorithm, now)
    rows = [_row(key, now, signs) for key in reversed(found)]
    standings = ring.standings(engine)
    return {
        "rows": [row for row in rows if row.state is not KeyState.REMOVED],
        "removed": [row for row in rows if row.state is KeyState.REMOVED][:MAXIMUM_REMOVED],
        "signs": signs,
        "age": distance(signs.activates_at, now) if signs else "",
        "algorithm": engine.settings.signing_algorithm,
        "algorithms": [(name, name) for name in ALGORITHMS],
        "least": int(signing_keys.publication_time(engine.settings).total_seconds()),
        "publication": length(signing_keys.publication_time(engine.settings)),
        "afterwards": length(signing_keys.VERIFIES_AFTERWARDS),
        "standings": standings,
        "first_used": {each.key_id: distance(each.first_used_at, now) for each in standings},
        "is_sealed_by_first": not any(map(_is_needed, standings)),
        "needed": {each.key_id for each in standings if _is_needed(each)},
        "resealable": len(ring.outdated(engine.stores, engine.ring)),
        "recodable": any(each.proves_events and not each.seals for each in standings),
    }


def rotate(visit: Visit) -> Response:
    """Publish a new key, which signs as soon as all APIs can have fetched it."""
    algorithm, after = visit.get("algorithm"), visit.get("after")
    if algorithm and algorithm not in ALGORITHMS:
        raise BadInput(f"algorithm: expected {' or '.join(ALGORITHMS)}")
    if after and not (after.isascii() and after.isdigit() and len(after) <= 9):
        raise BadInput("Signs after: expected a number of seconds")
    ring.check(visit.engine)
    rotation = signing_keys.rotate(
        visit.engine,
        algorithm=algorithm or None,
        after=timedelta(seconds=int(after)) if after else None,
    )
    new, old, now = rotation.new, rotation.old, visit.engine.now
    said = (
        f"The new key {new.kid} signs from now on."
        if new.activates_at <= now
        else f"The new key {new.kid} is published, and signs from {_told(new.activates_at)} on."
    )
    if old is not None:
        said += f" {old.kid}, which it replaces, verifies until {_told(old.ends_at)}."
    return visit.see("admin_keys", done=said)


def reseal(visit: Visit) -> Response:
    """Seal the private parts of the signing keys again, under the first key of the ring. Raises BadInput."""
    ring.check(visit.engine)
    if problems := ring.reseal_all(visit.engine):
        raise BadInput("; ".join(problems))
    recode_here(visit.engine.stores, visit.engine.ring)
    return visit.see("admin_keys", done="Every signing key is sealed under the first key of the ring.")


def show_revocation(visit: Visit) -> Mapping[str, Any]:
    """The last step before a key is revoked: what the revocation would mean. Raises CannotChange."""
    engine, now = visit.engine, visit.engine.now
    found = signing_keys.prospect(engine, visit.get("kid"))
    keys = engine.stores.signing_keys.list()
    signs = signing_keys.signing_key(keys, engine.settings.signing_algorithm, now)
    has_signed = found.was is not KeyState.STAGED
    return {
        "row": _row(found.key, now, signs),
        "found": found,
        "has_signed": has_signed,
        "issued": _issued(visit),
        "lifetime": length(signing_keys.MAXIMUM_TOKEN_LIFETIME),
        "grants": overview.size(engine).grants,
        "most": overview.MAXIMUM_COUNTED,
        "until": signing_keys.verifies_until(found.key, now),
        "seconds": signing_keys.REFRESH_SECONDS,
        "maximum_age": engine.settings.jwks_maximum_age,
        "reason": visit.get("reason") or signing_keys.REVOKED_BY_OPERATOR,
    }


def revoke(visit: Visit) -> Response:
    """Revoke a key at once. Raises CannotChange."""
    reason = visit.get("reason") or signing_keys.REVOKED_BY_OPERATOR
    if len(reason) > MAXIMUM_REASON or not reason.isprintable():
        raise BadInput(f"reason: up to {MAXIMUM_REASON} characters, none of them hidden")
    _confirmed(visit)
    # Only known keys of the ring are checked. So an operator who lost a key of the ring can still revoke the signing keys
    # that it sealed.
    ring.check_known(visit.engine)
    done = signing_keys.revoke(visit.engine, visit.get("kid"), reason=reason)
    said = [f"{done.revoked.kid} is out of use, and its private part is erased."]
    if done.successor is not None:
        said.append(f"{done.successor.kid} signs from now on.")
    elif done.restored is not None:
        said.append(f"{done.restored.kid}, which it should replace, continues to sign.")
    if done.was is not KeyState.STAGED:
        said.append(
            f"Within {signing_keys.REFRESH_SECONDS} seconds no server accepts its signatures any more."
        )
    return visit.see("admin_keys", done=" ".join(said))


def _issued(visit: Visit) -> int:
    """The largest possible number of access tokens that have not expired."""
    now = visit.engine.now
    counts = totals(visit.engine, now - signing_keys.MAXIMUM_TOKEN_LIFETIME, now).counts
    return counts[Measure.ISSUED] + counts[Measure.REFRESHED]


def _is_needed(key: ring.Standing) -> bool:
    """Whether stored data still depends on a key that no longer seals."""
    return not key.seals and (key.proves_events or key.needed_by != ring.Dependents())


def _confirmed(visit: Visit) -> None:
    """Raises BadInput unless the button of the confirmation was pressed."""
    if visit.get("confirm") != "yes":
        raise BadInput("Nothing was done: confirm it with the button.")


def _row(key: Any, now: datetime, signs: Any) -> Row:
    state = key.state(now)
    dates = [
        Date(label=label, at=at, distance=distance(at, now)) for label, at in _dates(key) if at is not None
    ]
    return Row(
        kid=key.kid,
        algorithm=key.algorithm,
        state=state,
        kind=_KINDS[state],
        meaning=_MEANINGS[state],
        signs=signs is not None and signs.kid == key.kid,
        dates=tuple(dates),
        next=None if state is KeyState.REMOVED else next((date for date in dates if date.at > now), None),
        sealed_by=ring.sealed_by(key),
    )


def _dates(key: Any) -> Iterator[tuple[str, datetime | None]]:
    yield "Published", key.created_at
    yield "Signs from", key.activates_at
    yield "Signs until", key.retires_at
    yield "Verifies until", key.ends_at


def _told(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "it is replaced"


PAGES = (
    Page(
        name="admin_keys",
        path="/admin/keys",
        show=show,
        template="keys.jinja2",
        act=rotate,
        act_role=Role.ADMINISTER,
        entry="Keys",
    ),
    Page(
        name="admin_keys_reseal",
        path="/admin/keys/reseal",
        show=show,
        template="keys.jinja2",
        act=reseal,
        act_role=Role.ADMINISTER,
        below="admin_keys",
    ),
    Page(
        name="admin_key_revoke",
        path="/admin/keys/revoke",
        show=show_revocation,
        template="key_revoke.jinja2",
        role=Role.ADMINISTER,
        act=revoke,
        act_role=Role.ADMINISTER,
        keys=("kid",),
        below="admin_keys",
    ),
)
