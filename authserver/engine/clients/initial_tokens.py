"""Initial access tokens: an operator makes them, each for a named registration policy (RFC 7591, 3).

A token gives the right to register; the policy limits the clients, and belongs to a plugin (`registration_decision`).
Anyone who has the token can use it, so each token has an end, and may have a limited number of uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol, cast

from authserver.engine.clients.authentication import read_bearer
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.errors import InvalidToken
from authserver.engine.records import EventType, InitialAccessToken, InitialTokenState
from authserver.ini import did_you_mean

KIND = "initial"

# The longest note of a token in characters, and the highest number of uses if a token has one.
MAXIMUM_NOTE = 200
MAXIMUM_USES = 1_000_000


class RegistrationPolicies(Protocol):
    """A plugin with registration policies that initial access tokens can name."""

    def registration_policies(self) -> Sequence[str]:
        """The names of the policies."""


class BadInitialToken(Exception):
    """An initial access token cannot have these values; the message says why.

    Attributes:
        member: the wrong member of the token; "" if it is no single one.
    """

    def __init__(self, sentence: str, member: str = "") -> None:
        super().__init__(sentence)
        self.member = member


class NoRegistrationPolicies(BadInitialToken):
    """No plugin has registration policies."""


def policies_of(plugins: Iterable[object]) -> Sequence[RegistrationPolicies]:
    """The plugins that have registration policies."""
    return [
        cast(RegistrationPolicies, plugin)
        for plugin in plugins
        if callable(getattr(plugin, "registration_policies", None))
    ]


def check_policy(plugins: Iterable[object], name: str) -> None:
    """Raises BadInitialToken unless one of the plugins has a registration policy of this name."""
    found = policies_of(plugins)
    if not found:
        raise NoRegistrationPolicies(
            "no plugin of authserver.plugins has registration policies; list registration_token there"
        )
    known = [policy for plugin in found for policy in plugin.registration_policies()]
    if not known:
        raise NoRegistrationPolicies(
            "there is no registration policy yet: add a line to authserver.plugin.registration_token.policies, such as "
            f"`{name if name.isascii() else 'partners'} = scopes SCOPE`"
        )
    if name not in known:
        raise BadInitialToken(f"{name}: no such policy; {did_you_mean(name, known, '')}", "policy")


def check_note(note: str) -> None:
    """Raises BadInitialToken for a note that is too long."""
    if len(note) > MAXIMUM_NOTE:
        raise BadInitialToken(f"a note has up to {MAXIMUM_NOTE} characters", "note")


class Plugins(Protocol):
    """The plugins of this server, by name."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the plugins, in the order of the INI."""

    def plugin(self, name: str) -> object:
        """The plugin of this name.

        Raises:
            KeyError: there is none.
        """


def policy_names(plugins: Plugins) -> Sequence[str] | None:
    """The names of the registration policies for tokens; None if no plugin has policies."""
    found = policies_of(map(plugins.plugin, plugins.names))
    return [policy for plugin in found for policy in plugin.registration_policies()] if found else None


def make(
    engine: Engine,
    *,
    policy: str,
    uses: int | None,
    expires_at: datetime,
    note: str,
    text: str | None = None,
) -> tuple[InitialAccessToken, str]:
    """Make an initial access token.

    Args:
        policy: the registration policy of its clients.
        uses: how many clients it may register; None for any number.
        note: its purpose, for operators.
        text: the token itself, if it was made before (`may_be_token`).

    Returns:
        The record, and the token itself, which is not readable again.

    Raises:
        BadInitialToken: a value is not allowed.
    """
    plugins = cast(Plugins, engine.policies)
    check_policy(map(plugins.plugin, plugins.names), policy)
    check_note(note)
    if uses is not None and not 1 <= uses <= MAXIMUM_USES:
        raise BadInitialToken(f"it registers 1 to {MAXIMUM_USES:,} clients, or any number", "uses")
    text = new_text() if text is None else text
    token = InitialAccessToken(
        token_id=digests.new_identifier("initial_"),
        digest=digests.digest(KIND, text),
        policy=policy,
        note=note,
        made_by=engine.journal.actor or engine.caller.actor,
        created_at=engine.now,
        expires_at=expires_at,
        uses=uses,
    )
    engine.stores.initial_tokens.add(token)
    engine.record(EventType.INITIAL_TOKEN_ADDED, details={**named(token), **terms(token)})
    return token, text


def new_text() -> str:
    """The text of a fresh token."""
    return digests.new_credential(digests.INITIAL)


def may_be_token(text: str) -> bool:
    """Whether this text can be an initial access token: it has prefix and checksum, as those made here have."""
    return digests.well_formed(digests.INITIAL, text)


def find(engine: Engine, text: str) -> InitialAccessToken | None:
    """The token of this text, whatever its state."""
    return engine.stores.initial_tokens.find(digests.digest(KIND, text))


def change(engine: Engine, before: InitialAccessToken, after: InitialAccessToken) -> bool:
    """Change policy, note, uses or end of a token as it was read; False when they were changed meanwhile."""
    if not engine.stores.initial_tokens.change(before, after):
        return False
    changed = {name: {"from": was, "to": now} for name, (was, now) in differences(before, after).items()}
    engine.record(EventType.INITIAL_TOKEN_CHANGED, details={**named(after), "changed": changed})
    return True


def terms(token: InitialAccessToken) -> dict[str, Any]:
    """The terms of a token, by their names in events."""
    return {"uses": token.uses, "expires_at": token.expires_at.isoformat(), "note": token.note}


def differences(before: InitialAccessToken, after: InitialAccessToken) -> Mapping[str, tuple[Any, Any]]:
    """Each changed term, and the policy if it changed: the old and the new value."""
    was, now = ({"policy": token.policy, **terms(token)} for token in (before, after))
    return {name: (was[name], now[name]) for name in now if was[name] != now[name]}


def revoke(engine: Engine, token_id: str) -> bool:
    """Revoke an initial access token; False when it is unknown or was revoked before. Its clients stay."""
    if not engine.stores.initial_tokens.revoke(token_id, engine.now):
        return False
    token = engine.stores.initial_tokens.find_by_id(token_id)
    assert token is not None  # it was just changed
    details = {"uses": token.uses, "used": token.used, "expires_at": token.expires_at.isoformat()}
    engine.record(EventType.INITIAL_TOKEN_REVOKED, details={**named(token), **details})
    return True


def presented(engine: Engine) -> InitialAccessToken | None:
    """The initial access token that the caller of this request presents; None if it is not one of the database.

    Raises:
        InvalidToken: it cannot be used any more.
    """
    bearer = read_bearer(engine.caller.authorization)
    if bearer is None or not digests.well_formed(digests.INITIAL, bearer.value):
        return None
    token = engine.stores.initial_tokens.find(digests.digest(KIND, bearer.value))
    return usable(engine, token) if token else None


def usable(engine: Engine, token: InitialAccessToken) -> InitialAccessToken:
    """The token with the number of clients that were registered with its policy.

    Raises:
        InvalidToken: it cannot be used any more.
    """
    state = token.state(engine.now)
    if state is not InitialTokenState.LIVE:
        raise _unusable(state)
    if engine.restored_at is not None and token.created_at < engine.restored_at:
        # It is unknown which clients it registered after the backup (T149).
        raise _unusable("restored")
    return replace(token, clients=engine.stores.clients.count_of_policy(token.policy))


def claim(engine: Engine, token: InitialAccessToken) -> None:
    """Count one use, in the transaction of the registration.

    Raises:
        InvalidToken: another registration had its last use, or it was revoked meanwhile.
    """
    if not engine.stores.initial_tokens.claim(token.token_id, engine.now):
        raise _unusable(InitialTokenState.USED_UP)


def named(token: InitialAccessToken) -> dict[str, str]:
    """The members of an event that name a token."""
    return {"initial_token": token.token_id, "policy": token.policy}


def _unusable(why: str) -> InvalidToken:
    return InvalidToken(
        "The initial access token cannot be used any more.", reason=f"initial-access-token-{why}"
    )
