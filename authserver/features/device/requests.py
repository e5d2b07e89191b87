"""What is kept of a device that asks: one record under its device code, and one under the code that a person types.

Both expire, and hold only digests of the codes. The record of the device says how the request stands; each change of it is
one conditional write, so that of a poll and an answer, or of two answers, one is first (R-07).
"""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from authserver.api import (
    Client,
    Engine,
    Kept,
    Parameters,
    digest,
    new_credential,
    of_this_generation,
    well_formed,
)

KIND = "device-code"
USER_KIND = "device-user-code"
PREFIX = "as_device_"
# RFC 8628, 6.1: no vowels, so that no word arises, and none of two letters or digits that look alike.
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
LENGTH = 8
# What people type instead of a letter that looks like it; none of these is in the alphabet.
_LOOK_ALIKES = str.maketrans({"2": "Z", "5": "S", "6": "G", "8": "B", "U": "V", "Y": "V"})
# So long the record stays, so that a late poll hears that the code has expired, and not that there is none.
_REMEMBERED = timedelta(minutes=15)
# Seconds by which each poll that comes too early makes the interval longer (RFC 8628, 3.5).
SLOWER = 5
# How often a change is tried again that another one was before.
_TRIES = 5


class State(StrEnum):
    """How a request stands; a used one is approved, and its code claimed."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings of the feature (`DeviceGrant`)."""

    lifetime: int
    interval: int
    age_for_approving: int
    self_registered: bool
    refused_groups: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """A device that asked for access.

    Attributes:
        record: as it is kept.
        client_id: whose device it is.
        expires_at: until when it can be answered, and the answer be fetched.
    """

    record: Kept
    client_id: str
    expires_at: datetime

    @classmethod
    def of(cls, record: Kept) -> DeviceRequest:
        """The request that this record keeps."""
        ends = datetime.fromtimestamp(record.details["ends"], UTC)
        return cls(record=record, client_id=record.client_id or "", expires_at=ends)

    @property
    def state(self) -> State:
        """Whether it waits for a person, or how one answered."""
        return State(self.record.details["state"])

    @property
    def scopes(self) -> tuple[str, ...]:
        """Those that policies allowed when the device asked."""
        return tuple(self.record.details["scopes"])

    @property
    def resources(self) -> tuple[str, ...]:
        """The resources that policies allowed when the device asked."""
        return tuple(self.record.details["resources"])

    @property
    def source(self) -> str:
        """The network address that it asked from."""
        return str(self.record.details["source"])

    @property
    def parameters(self) -> Parameters:
        """What it sent, without what proves its client."""
        return Parameters.parse(self.record.details["sent"])

    @property
    def code_details(self) -> Mapping[str, Any]:
        """What is kept with the code, such as the key that it is bound to."""
        found: Mapping[str, Any] = self.record.details["kept"]
        return found

    def is_over(self, engine: Engine) -> bool:
        """Whether nothing can come of it any more: it has expired, or was asked before the database was restored."""
        return self.expires_at <= engine.now or not of_this_generation(engine, self.record.created_at)

    def polled(self, now: datetime) -> tuple[DeviceRequest, bool]:
        """The request after a poll now, and whether that came too early."""
        details = self.record.details
        last, interval = details.get("polled_at"), details["interval"]
        # Of two polls at once the later one may have been written first. A poll further in the future was before the clock
        # was set back, and nobody knows how long ago that was.
        too_early = last is not None and abs(now.timestamp() - last) < interval
        return self._with(
            polled_at=now.timestamp(), interval=interval + SLOWER if too_early else interval
        ), too_early

    @property
    def person_id(self) -> str | None:
        """Who typed its code first; nobody else sees or answers it (T118)."""
        found: str | None = self.record.details.get("person")
        return found

    def seen_by(self, user_id: str) -> DeviceRequest:
        """The request once this user typed its code."""
        return self._with(person=user_id)

    def answered(self, state: State) -> DeviceRequest:
        """The request once it was answered so."""
        return self._with(state=state)

    def _with(self, **details: Any) -> DeviceRequest:
        record = replace(self.record, details={**self.record.details, **details})
        return replace(self, record=record)


def keep(
    engine: Engine,
    client: Client,
    rules: Rules,
    *,
    sent: Parameters,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    kept: Mapping[str, Any],
) -> tuple[str, str]:
    """Keep a new request; its device code, and its user code as people are shown it."""
    device_code, ends = new_credential(PREFIX), engine.now + timedelta(seconds=rules.lifetime)
    name = digest(KIND, device_code)
    user_code = _new_user_code(engine, client, name, ends)
    engine.stores.kept.add_once(
        Kept(
            kind=KIND,
            digest=name,
            client_id=client.client_id,
            created_at=engine.now,
            expires_at=ends + _REMEMBERED,
            details={
                "state": State.PENDING,
                "ends": ends.timestamp(),
                "interval": rules.interval,
                "sent": sent.encoded(),
                "scopes": list(scopes),
                "resources": list(resources),
                "source": engine.caller.source,
                "kept": dict(kept),
            },
        )
    )
    return device_code, shown(user_code)


def find_by_device_code(engine: Engine, device_code: str) -> DeviceRequest | None:
    """The request of this device code; None for a text that is none, or that is not kept any more."""
    if not well_formed(PREFIX, device_code):
        return None
    record = engine.stores.kept.find(KIND, digest(KIND, device_code))
    return DeviceRequest.of(record) if record else None


def find_by_user_code(engine: Engine, typed: str) -> DeviceRequest | None:
    """The request whose code a person typed, however they wrote it."""
    user_code = read_user_code(typed)
    if user_code is None:
        return None
    found = engine.stores.kept.find(USER_KIND, digest(USER_KIND, user_code))
    record = engine.stores.kept.find(KIND, bytes.fromhex(found.details["request"])) if found else None
    return DeviceRequest.of(record) if record else None


def show_to(engine: Engine, request: DeviceRequest, user_id: str) -> DeviceRequest | None:
    """The request as it is shown to this person, if nobody else typed its code before; else None."""
    return _changed(
        engine,
        request,
        lambda found: found if found.person_id else found.seen_by(user_id),
        unless=lambda found: found.person_id not in (None, user_id),
    )


def answer_once(engine: Engine, request: DeviceRequest, state: State) -> bool:
    """Let a pending request stand so from now on; False when it was answered before."""
    answered = _changed(
        engine,
        request,
        lambda found: found.answered(state),
        unless=lambda found: found.state is not State.PENDING,
    )
    return answered is not None


def _changed(
    engine: Engine,
    request: DeviceRequest,
    change: Callable[[DeviceRequest], DeviceRequest],
    *,
    unless: Callable[[DeviceRequest], bool],
) -> DeviceRequest | None:
    """The request after this change, also if a poll changes it at the same time; None if it cannot be changed so."""
    found: DeviceRequest | None = request
    for _ in range(_TRIES):
        if found is None or unless(found):
            return None
        changed = change(found)
        if changed is found or engine.stores.kept.change(found.record, changed.record):
            return changed
        record = engine.stores.kept.find(KIND, request.record.digest)
        found = DeviceRequest.of(record) if record else None
    return None


def read_user_code(typed: str) -> str | None:
    """The code that somebody meant: in any case, with any spaces and hyphens, and with what looks like a letter of it.

    None if it cannot be one.
    """
    letters = [each for each in unicodedata.normalize("NFKC", typed[:100]).upper() if each.isalnum()]
    code = "".join(letters).translate(_LOOK_ALIKES)
    return code if len(code) == LENGTH and set(code) <= set(ALPHABET) else None


def shown(user_code: str) -> str:
    """A code as people are shown it: in two halves."""
    return f"{user_code[: LENGTH // 2]}-{user_code[LENGTH // 2 :]}"


def _new_user_code(engine: Engine, client: Client, name: bytes, ends: datetime) -> str:
    while True:
        user_code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        record = Kept(
            kind=USER_KIND,
            digest=digest(USER_KIND, user_code),
            client_id=client.client_id,
            created_at=engine.now,
            expires_at=ends,
            details={"request": name.hex()},
        )
        if engine.stores.kept.add_once(record):
            return user_code
