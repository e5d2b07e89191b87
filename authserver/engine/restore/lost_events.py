"""Reads the log of events of the time between a backup and its restore, and makes the changes again (T149).

The plugin `log_events` wrote the log: a JSON object in each line, after the prefix of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from authserver.engine import uris
from authserver.engine.clients import secrets
from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.client_metadata import members
from authserver.engine.clients.secrets import SecretsUnchanged
from authserver.engine.context import Engine
from authserver.engine.people.attributes import record_change
from authserver.engine.records import EventFilter, EventType, RegisteredBy
from authserver.engine.resource_registry import described

REASON = "database-restored"
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class RedoOutcome(StrEnum):
    """The result of making the change of an event again."""

    DONE = "done"
    ALREADY = "already so"
    ABSENT = "not in the backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """The members of one line of the log that are needed here."""

    event_id: str
    type: str
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    client_id: str | None = None
    user_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redone:
    """The result for an event: its client or person, and what an operator must do now, if anything."""

    event: LoggedEvent
    subject: str
    outcome: RedoOutcome
    todo: str = ""


_decoder = msgspec.json.Decoder(LoggedEvent)


def read_log(lines: Iterable[bytes]) -> tuple[Sequence[LoggedEvent], Sequence[int]]:
    """The events that `redo` can process, oldest first, and the numbers of the lines that are not events."""
    events, bad = {}, []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = _decoder.decode(line[max(line.find(b"{"), 0) :])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            bad.append(number)
            continue
        if event.type in _REDO:
            events[event.event_id] = event
    return sorted(events.values(), key=lambda event: event.at), bad


def lost(engine: Engine, logged: Sequence[LoggedEvent]) -> Sequence[LoggedEvent]:
    """The events that happened after the backup: they are not in the database, but older ones are."""
    known = engine.stores.events
    oldest = next(iter(known.since(_BEGINNING)), None)
    return [
        event
        for event in logged
        if known.find(event.event_id) is None and (oldest is None or event.at >= oldest.at)
    ]


def redo(engine: Engine, event: LoggedEvent) -> Redone:
    """Make the change of this event again, unless it was made already."""
    engine.journal.client_id, engine.journal.user_id = event.client_id, event.user_id
    return _REDO[event.type](engine, event)


def _disable_client(engine: Engine, event: LoggedEvent) -> Redone:
    client_id = event.client_id or ""
    client = engine.stores.clients.find(client_id, engine.now)
    if client is None:
        return Redone(event=event, subject=client_id, outcome=RedoOutcome.ABSENT)
    disabled = disable_client(engine, client_id)
    return Redone(
        event=event, subject=client_id, outcome=RedoOutcome.DONE if disabled else RedoOutcome.ALREADY
    )


def _disable_user(engine: Engine, event: LoggedEvent) -> Redone:
    user = engine.stores.users.find(event.user_id or "")
    if user is None:
        return Redone(event=event, subject=event.user_id or "", outcome=RedoOutcome.ABSENT)
    enabled = EventFilter(user_id=user.user_id, types=frozenset({EventType.USER_ENABLED}), since=event.at)
    # A person who was enabled since then, for example after the restore, stays enabled when this is run again.
    if engine.stores.events.search(enabled, limit=1) or not engine.stores.users.disable(
        user.user_id, engine.now
    ):
        return Redone(event=event, subject=user.username, outcome=RedoOutcome.ALREADY)
    engine.record(EventType.USER_DISABLED, reason=REASON)
    return Redone(event=event, subject=user.username, outcome=RedoOutcome.DONE)


def _miss_enabled(engine: Engine, event: LoggedEvent) -> Redone:
    """Leave it to an operator: a lost event must not give anybody access."""
    user = engine.stores.users.find(event.user_id or "")
    if user is None:
        return Redone(event=event, subject=event.user_id or "", outcome=RedoOutcome.ABSENT)
    if user.is_enabled:
        return Redone(event=event, subject=user.username, outcome=RedoOutcome.ALREADY)
    todo = f"the person is disabled: `authserver user enable {user.username}`"
    return Redone(event=event, subject=user.username, outcome=RedoOutcome.ABSENT, todo=todo)


def _miss_change(engine: Engine, event: LoggedEvent) -> Redone:
    """An edit of a client; the log does not contain enough to decide whether it may be made again."""
    client_id = event.client_id or ""
    client = engine.stores.clients.find(client_id, engine.now)
    if client is None:
        return Redone(event=event, subject=client_id, outcome=RedoOutcome.ABSENT)
    changed = event.details.get("changed")
    now = members(client)
    lost = [
        name
        for name, change in (changed.items() if isinstance(changed, Mapping) else ())
        if not isinstance(change, Mapping) or now.get(name) != change.get("to")
    ]
    if not lost:
        return Redone(event=event, subject=client_id, outcome=RedoOutcome.ALREADY)
    todo = f"its changes are lost ({', '.join(lost)}): `authserver client edit {client_id}`"
    return Redone(event=event, subject=client_id, outcome=RedoOutcome.ABSENT, todo=todo)


def _change_user(engine: Engine, event: LoggedEvent) -> Redone:
    """Set the groups to those after the change. The log has no values of attributes, so a changed attribute is removed."""
    user = engine.stores.users.find(event.user_id or "")
    if user is None:
        return Redone(event=event, subject=event.user_id or "", outcome=RedoOutcome.ABSENT)
    added, removed, names = (_texts(event, name) for name in ("groups_added", "groups_removed", "attributes"))
    changed = replace(
        user,
        groups=tuple(sorted((set(user.groups) | added) - removed)),
        attributes={name: values for name, values in user.attributes.items() if name not in names},
    )
    again = engine.stores.events.since(event.at, type=EventType.USER_CHANGED)
    if changed == user or any(change.details.get("again") == event.event_id for change in again):
        return Redone(event=event, subject=user.username, outcome=RedoOutcome.ALREADY)
    engine.stores.users.change(changed)
    record_change(engine, user, changed, reason=REASON, again=event.event_id)
    todo = f"{', '.join(sorted(names))}: set again with `authserver user edit {user.username}`"
    return Redone(event=event, subject=user.username, outcome=RedoOutcome.DONE, todo=todo if names else "")


def _texts(event: LoggedEvent, name: str) -> set[str]:
    found = event.details.get(name)
    return {text for text in found if isinstance(text, str)} if isinstance(found, list) else set()


def _end_secret(engine: Engine, event: LoggedEvent) -> Redone:
    client_id = event.client_id or ""
    try:
        secrets.end_secret(engine, client_id, str(event.details.get("secret", "")), last_too=True)
    except SecretsUnchanged:
        return Redone(event=event, subject=client_id, outcome=RedoOutcome.ABSENT)
    return Redone(event=event, subject=client_id, outcome=RedoOutcome.DONE)


def _replace_secret(engine: Engine, event: LoggedEvent) -> Redone:
    """The new secret is lost, and so are the ends of the secrets that it replaced."""
    client_id = event.client_id or ""
    client = engine.stores.clients.find(client_id, engine.now)
    if client is None:
        return Redone(event=event, subject=client_id, outcome=RedoOutcome.ABSENT)
    ended = 0
    if (ends_at := _time(event.details.get("others_end_at"))) is not None:
        for secret in secrets.live_secrets(client, engine.now):
            if secret.created_at < event.at and (secret.expires_at is None or secret.expires_at > ends_at):
                ended += secrets.end_at(engine, client_id, secret, ends_at)
    return Redone(
        event=event,
        subject=client_id,
        outcome=RedoOutcome.DONE if ended else RedoOutcome.ALREADY,
        todo=f"its newer secret is lost: `authserver client rotate-secret {client_id}`",
    )


def _take_password_away(engine: Engine, event: LoggedEvent) -> Redone:
    """Remove the password: that of the backup is old, and may have been replaced because somebody else knew it."""
    user = engine.stores.users.find(event.user_id or "")
    if user is None:
        return Redone(event=event, subject=event.user_id or "", outcome=RedoOutcome.ABSENT)
    changes = engine.stores.events.since(event.at, type=EventType.PASSWORD_CHANGED)
    if user.password_hash is None or any(change.user_id == user.user_id for change in changes):
        return Redone(event=event, subject=user.username, outcome=RedoOutcome.ALREADY)
    engine.stores.users.set_password(user.user_id, None)
    engine.record(EventType.PASSWORD_CHANGED, reason=REASON)
    return Redone(
        event=event,
        subject=user.username,
        outcome=RedoOutcome.DONE,
        todo=f"no password lets this person in now: `authserver user password {user.username}`",
    )


def _miss_client(engine: Engine, event: LoggedEvent) -> Redone:
    client_id = event.client_id or ""
    if engine.stores.clients.find(client_id, engine.now) is not None:
        return Redone(event=event, subject=client_id, outcome=RedoOutcome.ALREADY)
    if event.details.get("registered_by") == RegisteredBy.OPERATOR:
        todo = f"it must be added again, with another secret: `authserver client add --client-id {client_id}`"
    else:
        todo = "it must register again"
    return Redone(event=event, subject=client_id, outcome=RedoOutcome.ABSENT, todo=todo)


def _miss_user(engine: Engine, event: LoggedEvent) -> Redone:
    user_id = event.user_id or ""
    if engine.stores.users.find(user_id) is not None:
        return Redone(event=event, subject=user_id, outcome=RedoOutcome.ALREADY)
    todo = "the person must be added again, and will be a different person to every application"
    return Redone(event=event, subject=user_id, outcome=RedoOutcome.ABSENT, todo=todo)


def _remove_resource(engine: Engine, event: LoggedEvent) -> Redone:
    """Its grants ended with the restore."""
    resource = str(event.details.get("resource", ""))
    removed = engine.stores.resources.remove(uris.resource_form(resource))
    outcome = RedoOutcome.DONE if removed else RedoOutcome.ALREADY
    if removed:
        engine.record(EventType.RESOURCE_REMOVED, reason=REASON, details={"resource": resource})
    return Redone(event=event, subject=resource, outcome=outcome)


def _miss_resource(engine: Engine, event: LoggedEvent) -> Redone:
    """A resource that was added or changed. The log has its members, but an operator may not want them any more."""
    resource = str(event.details.get("resource", ""))
    known = engine.stores.resources.find(uris.resource_form(resource))
    if known is not None and all(
        event.details.get(name) == value for name, value in described(known).items()
    ):
        return Redone(event=event, subject=resource, outcome=RedoOutcome.ALREADY)
    command = "add" if known is None else "edit"
    todo = f"it must be registered again as it was: `authserver resource {command} {resource}`"
    return Redone(event=event, subject=resource, outcome=RedoOutcome.ABSENT, todo=todo)


def _time(value: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return time if time.tzinfo else None


_REDO: Mapping[str, Callable[[Engine, LoggedEvent], Redone]] = {
    EventType.CLIENT_DISABLED: _disable_client,
    EventType.CLIENT_CHANGED: _miss_change,
    EventType.USER_DISABLED: _disable_user,
    EventType.USER_ENABLED: _miss_enabled,
    EventType.USER_CHANGED: _change_user,
    EventType.CLIENT_SECRET_ENDED: _end_secret,
    EventType.CLIENT_SECRET_ADDED: _replace_secret,
    EventType.PASSWORD_CHANGED: _take_password_away,
    EventType.CLIENT_REGISTERED: _miss_client,
    EventType.USER_ADDED: _miss_user,
    EventType.RESOURCE_ADDED: _miss_resource,
    EventType.RESOURCE_CHANGED: _miss_resource,
    EventType.RESOURCE_REMOVED: _remove_resource,
}
