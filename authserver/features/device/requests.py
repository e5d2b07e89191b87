"""The stored requests of devices: one record under the device code, and one under the code that a person types.

Both expire, and have only digests of the codes. The record under the device code has the state of the request. Each change
of it is one conditional write, so that of two answers at the same time, or of a poll and an answer, one is first (R-07).
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
# RFC 8628, 6.1: no vowels, so that a code is not a word, and no letters that look like another letter or a digit.
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
LENGTH = 8
# The characters that people may type in place of a letter that looks similar; none of them is in the alphabet.
_LOOK_ALIKES = str.maketrans({"2": "Z", "5": "S", "6": "G", "8": "B", "U": "V", "Y": "V"})
# How long the record stays after its end, so that a late poll is told that the code has expired, not that it is unknown.
_REMEMBERED = timedelta(minutes=15)
# Seconds by which each poll that comes too early makes the interval longer (RFC 8628, 3.5).
SLOWER = 5
# How often a change is tried if other changes come first.
_TRIES = 5


class State(StrEnum):
    """The state of a request; a request whose tokens were issued stays approved, and its code is claimed."""

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
        record: the stored record.
        client_id: the client that runs on the device.
        expires_at: until when a person can answer, and the device can fetch the answer.
    """

    record: Kept
    client_id: str
    expires_at: datetime

    @classmethod
    def of(cls, record: Kept) -> DeviceRequest:
        """The request in this record."""
        ends = datetime.fromtimestamp(record.details["ends"], UTC)
        return cls(record=record, client_id=record.client_id or "", expires_at=ends)

    @property
    def state(self) -> State:
        """Whether it waits for an answer, or which answer a person gave."""
        return State(self.record.details["state"])

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that policies allowed when the device asked."""
        return tuple(self.record.details["scopes"])

    @property
    def resources(self) -> tuple[str, ...]:
        """The resources that policies allowed when the device asked."""
        return tuple(self.record.details["resources"])

    @property
    def source(self) -> str:
        """The network address from which the device asked."""
        return str(self.record.details["source"])

    @property
    def parameters(self) -> Parameters:
        """The parameters that the device sent, without credentials."""
        return Parameters.parse(self.record.details["sent"])

    @property
    def code_details(self) -> Mapping[str, Any]:
        """The details that are kept with the code, such as the key to which it is bound."""
        found: Mapping[str, Any] = self.record.details["kept"]
        return found

    def is_over(self, engine: Engine) -> bool:
        """Whether it cannot be used any more: it has expired, or is from before the database was restored."""
        return self.expires_at <= engine.now or not of_this_generation(engine, self.record.created_at)

    def polled(self, now: datetime) -> tuple[DeviceRequest, bool]:
        """The request after a poll at this time, and whether the poll came too early."""
        details = self.record.details
        last, interval = details.get("polled_at"), details["interval"]
        # Of two simultaneous polls the later one may have been written first. A poll further in the future was made before
        # the clock was set back, so its age is not known.
        too_early = last is not None and abs(now.timestamp() - last) < interval
        return self._with(
            polled_at=now.timestamp(), interval=interval + SLOWER if too_early else interval
        ), too_early

    @property
    def person_id(self) -> str | None:
        """The person who typed its code first; nobody else can see or answer it (T118)."""
        found: str | None = self.record.details.get("person")
        return found

    def seen_by(self, user_id: str) -> DeviceRequest:
        """The request after this user typed its code."""
        return self._with(person=user_id)

    def answered(self, state: State) -> DeviceRequest:
        """The request after this answer."""
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
    """Store a new request. Returns its device code, and its user code in the form that people see."""
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
    """The request with this device code; None if the text is not a device code, or the request is not stored any more."""
    if not well_formed(PREFIX, device_code):
        return None
    record = engine.stores.kept.find(KIND, digest(KIND, device_code))
    return DeviceRequest.of(record) if record else None


def find_by_user_code(engine: Engine, typed: str) -> DeviceRequest | None:
    """The request whose code a person typed, in any spelling."""
    user_code = read_user_code(typed)
    if user_code is None:
        return None
    found = engine.stores.kept.find(USER_KIND, digest(USER_KIND, user_code))
    record = engine.stores.kept.find(KIND, bytes.fromhex(found.details["request"])) if found else None
    return DeviceRequest.of(record) if record else None


def show_to(engine: Engine, request: DeviceRequest, user_id: str) -> DeviceRequest | None:
    """The request, which from now on only this person can see; None if somebody else typed its code before."""
    return _changed(
        engine,
        request,
        lambda found: found if found.person_id else found.seen_by(user_id),
        unless=lambda found: found.person_id not in (None, user_id),
    )


def answer_once(engine: Engine, request: DeviceRequest, state: State) -> bool:
    """Store the answer to a pending request. Returns False if it was answered before."""
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
    """The request after this change, even if a poll changes it at the same time; None if the change is not possible."""
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
    """The code that a person typed: upper or lower case, with spaces and hyphens, or with similar characters.

    None if the text cannot be a code.
    """
    letters = [each for each in unicodedata.normalize("NFKC", typed[:100]).upper() if each.isalnum()]
    code = "".join(letters).translate(_LOOK_ALIKES)
    return code if len(code) == LENGTH and set(code) <= set(ALPHABET) else None


def shown(user_code: str) -> str:
    """A code in the form that people see: two halves with a hyphen."""
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
