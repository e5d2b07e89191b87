"""Changes of a client's registration: checked by the rules of registration, stored at once.

An operator changes some members (`edit`), or the client itself replaces all of them (`update`, RFC 7592, 2.2), if policies
would let it register them now. A client that an operator has changed cannot change itself any more, so that it does not
undo the operator's change.

The effect on earlier consents, grants and tokens:

- A consent counts while the client has the name and no other redirect URIs than the person agreed to
  (`records.Consent.is_for`); an open consent page is shown again. So a client does not get more without a question.
- Codes, refresh tokens and pending requests are checked against the client at each use, so a removed value is missing
  from the next request on. Issued access tokens do not change.
- The grants to a client that becomes public are revoked: its tokens were protected by a credential that it no
  longer has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from authserver.engine import uris
from authserver.engine.clients.client_metadata import check_metadata, members, with_metadata
from authserver.engine.clients.logos import read_logo
from authserver.engine.clients.registration import allowed_metadata, check_rotation
from authserver.engine.clients.secrets import add_secret, end_all_secrets, needs_secret
from authserver.engine.context import Engine
from authserver.engine.ending import Act, Subject, end_at_once
from authserver.engine.errors import AccessDenied, InvalidClientMetadata
from authserver.engine.records import (
    EDITED,
    MADE_PUBLIC,
    MANAGED,
    NOTHING,
    Client,
    ClientMetadata,
    EventType,
    Logo,
    RegisteredBy,
    is_address,
)

REMOVED = "client-removed-itself"


class ClientUnchanged(Exception):
    """The client was not changed; the message says why."""


class ChangedMeanwhile(ClientUnchanged):
    """Another change was stored since the client was read, so this one may rest on old values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListEdit:
    """A change of a list: a whole new list, or values to add and to remove."""

    replaced_by: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def of(self, member: str, before: tuple[str, ...]) -> tuple[str, ...]:
        """The changed list, without repetitions.

        Args:
            member: the name of the list in messages.

        Raises:
            ClientUnchanged: it contradicts itself, or removes a value that is not in the list.
        """
        if self.replaced_by and (self.added or self.removed):
            raise ClientUnchanged(f"{member}: either give a whole new list, or add and remove")
        if both := set(self.added) & set(self.removed):
            raise ClientUnchanged(f"{member}: {min(both)} cannot be both added and removed")
        for value in self.removed:
            if value not in before:
                there = ", ".join(before) or "nothing"
                raise ClientUnchanged(f"{member}: {value} is not in the list, which has {there}")
        kept = self.replaced_by or tuple(value for value in before if value not in self.removed)
        return tuple(dict.fromkeys((*kept, *self.added)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientEdit:
    """A change of a client; a member that is None does not change.

    Attributes:
        details: members that plugins keep, and links, with their new values; None removes one.
        logo: the content of an SVG or PNG file; empty removes the logo.
    """

    name: str | None = None
    redirect_uris: ListEdit = ListEdit()
    grant_types: ListEdit = ListEdit()
    scopes: ListEdit = ListEdit()
    auth_method: str | None = None
    application_type: str | None = None
    first_party: bool | None = None
    rotates_refresh_tokens: bool | None = None
    details: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    logo: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """The result of an edit.

    Attributes:
        client: the client after the edit.
        changed: each changed member, by its name in `members`: the old and the new value.
        secret: a new secret, which is not readable again; None unless the client needs one for its new method.
        asks_again: whether people who agreed before are asked again.
        revoked: how many grants were revoked.
    """

    client: Client
    changed: Mapping[str, tuple[Any, Any]]
    secret: str | None = field(default=None, repr=False)
    asks_again: bool = False
    revoked: int = 0


def edit(engine: Engine, client_id: str, wanted: ClientEdit, *, before: Client | None = None) -> Edited:
    """Change a client, if the result could be registered.

    Args:
        before: the client as it was read and shown; None for its present state.

    Raises:
        ClientUnchanged: it is unknown, disabled or kept elsewhere, or the edit contradicts itself.
        ChangedMeanwhile: somebody else changed it at the same time, or since it was read.
        InvalidRedirectUri, InvalidClientMetadata: as for `registration.add_client`.
    """
    now = _editable(engine, client_id)
    before = before or now
    logo = read_logo(wanted.logo) if wanted.logo else None
    after = _edited(before, wanted, logo)
    check(engine, after)
    if not differences(before, after):
        return Edited(client=before, changed=NOTHING)
    return keep(engine, before, as_edited(after), logo=logo)


def pin(engine: Engine, client_id: str) -> Edited:
    """Store a client whose id is its address, as its document describes it now; from then on the stored client counts.

    A client that is pinned already gets the new description.

    Raises:
        ClientUnchanged: its id is not an address, no plugin knows it, or it is disabled.
        ChangedMeanwhile: somebody else changed it at the same time.
        InvalidRedirectUri, InvalidClientMetadata: as for `registration.add_client`.
        InvalidClient, TemporarilyUnavailable: as for `Engine.find_client_elsewhere`.
    """
    if not is_address(client_id):
        raise ClientUnchanged(f"{client_id}: only a client that is known by its address can be pinned")
    found = engine.find_client_elsewhere(client_id)
    if found is None:
        raise ClientUnchanged(f"{client_id}: no plugin knows such a client")
    before = engine.stores.clients.find(client_id, engine.now)
    if before is None:
        # An operator vouches for it; the private details of its plugin belong to the client that was not stored.
        client = replace(
            found, registered_by=RegisteredBy.OPERATOR, private_details=NOTHING, last_used_at=None
        )
        check(engine, client)
        engine.stores.clients.add(client)
        engine.journal.client_id = client_id
        details = {"registered_by": client.registered_by, "client": members(client)}
        engine.record(EventType.CLIENT_REGISTERED, details=details)
        return Edited(client=client, changed=NOTHING)
    if not before.is_enabled:
        raise ClientUnchanged(f"{client_id} is disabled for good")
    after = replace(
        before,
        name=found.name,
        auth_method=found.auth_method,
        redirect_uris=found.redirect_uris,
        grant_types=found.grant_types,
        response_types=found.response_types,
        scopes=found.scopes,
        application_type=found.application_type,
        details=found.details,
    )
    check(engine, after)
    return (
        keep(engine, before, after) if differences(before, after) else Edited(client=before, changed=NOTHING)
    )


def update(
    engine: Engine, client: Client, sent: Mapping[str, Any], *, private_details: Mapping[str, Any]
) -> Edited:
    """Let a client replace its metadata as a whole, as if it registered now; missing members get defaults (RFC 7592, 2.2).

    Args:
        client: the client that asks; it is enabled and authenticated.
        sent: the members of its metadata (`client_metadata.read_object`).
        private_details: the details to store from now on.

    Raises:
        AccessDenied: an operator has changed it, or no policy would let it register now.
        ChangedMeanwhile: somebody else changed it at the same time.
        InvalidRedirectUri, InvalidClientMetadata: as for `registration.register`.
    """
    if client.is_edited or not client.is_self_registered:
        raise AccessDenied(
            "The operator of this server has set this registration: ask there to change it.",
            reason="client-edited",
        )
    allowed = allowed_metadata(engine, sent, client.client_id, client=client)
    after = replace(with_metadata(client, allowed.metadata), private_details=private_details)
    check(engine, after)
    return keep(engine, client, after)


def remove(engine: Engine, client: Client) -> None:
    """Let a client end its registration: it is refused from now on, and its tokens are not valid any more (RFC 7592, 2.3).

    It is disabled for good; clean-up deletes it when it has no grants any more. A client that was never used is deleted at
    once, and gives its place to others (`clients.room`). A second call does nothing.
    """
    if not client.is_enabled:
        return
    # Grants before secrets, in the order in which a token request locks them.
    end_at_once(engine, Act(subject=Subject.client(client.client_id), for_good=True, because=REMOVED))
    if not engine.stores.clients.remove_never_used(client.client_id):
        end_all_secrets(engine, client.client_id)


def as_edited(client: Client) -> Client:
    """The client as an operator changed it: if it registered itself, it cannot change itself any more."""
    if not client.is_self_registered:
        return client
    return replace(client, private_details={**client.private_details, EDITED: True})


def as_managed(client: Client) -> Client:
    """The stored client after it has read or changed its own registration."""
    return replace(client, private_details={**client.private_details, MANAGED: True})


def keep(
    engine: Engine, before: Client, after: Client, *, logo: Logo | None = None, makes_secret: bool = True
) -> Edited:
    """Store a changed and checked client, and end the grants and secrets that it may not have any more.

    Args:
        before: the client as it was read.
        logo: the logo after the change; used only if `after` names another one than `before`.
        makes_secret: whether a client that needs a secret after the change gets one here.

    Raises:
        ChangedMeanwhile: somebody else changed it since it was read.
    """
    client_id = after.client_id
    if not engine.stores.clients.change(before, after):
        raise ChangedMeanwhile(f"{client_id} was changed by somebody else at the same time")
    changed = differences(before, after)
    if not changed:
        return Edited(client=after, changed=NOTHING)
    if after.logo != before.logo:
        engine.stores.clients.keep_logo(client_id, logo)
    engine.journal.client_id = client_id
    engine.record(
        EventType.CLIENT_CHANGED,
        details={"changed": {name: {"from": was, "to": now} for name, (was, now) in changed.items()}},
    )
    # Grants before secrets, in the order in which a token request locks them.
    revoked = (
        _revoke_grants(engine, client_id, MADE_PUBLIC) if after.is_public and not before.is_public else 0
    )
    return Edited(
        client=after,
        changed=changed,
        secret=_change_secrets(engine, before, after, makes_secret=makes_secret),
        asks_again=after.name != before.name or not set(after.redirect_uris) <= set(before.redirect_uris),
        revoked=revoked,
    )


def _editable(engine: Engine, client_id: str) -> Client:
    client = engine.stores.clients.find(client_id, engine.now)
    if client is None:
        if engine.find_client(client_id) is not None:
            raise ClientUnchanged(f"{client_id} belongs to a plugin: change it there")
        raise ClientUnchanged(f"{client_id}: no such client")
    if not client.is_enabled:
        raise ClientUnchanged(f"{client_id} is disabled for good")
    return client


def _edited(before: Client, wanted: ClientEdit, logo: Logo | None) -> Client:
    """The client after the edit, not checked yet. Raises ClientUnchanged."""
    grant_types = wanted.grant_types.of("grant_types", before.grant_types)
    redirect_uris = wanted.redirect_uris.of("redirect_uris", before.redirect_uris)
    auth_method = _either(wanted.auth_method, before.auth_method)
    details = {**before.details, **wanted.details}
    return replace(
        before,
        name=_either(wanted.name, before.name).strip(),
        auth_method=auth_method,
        redirect_uris=redirect_uris,
        grant_types=grant_types,
        response_types=("code",) if "authorization_code" in grant_types else (),
        scopes=wanted.scopes.of("scope", before.scopes),
        application_type=wanted.application_type or _application_type(before, redirect_uris),
        first_party=_either(wanted.first_party, before.first_party),
        # The refresh tokens of a public client always rotate, whatever its earlier registration says.
        rotates_refresh_tokens=_either(
            wanted.rotates_refresh_tokens, before.rotates_refresh_tokens or auth_method == "none"
        ),
        details={name: value for name, value in details.items() if value is not None},
        logo=before.logo if wanted.logo is None else logo.digest if logo else None,
    )


def _either(wanted: Any, before: Any) -> Any:
    return before if wanted is None else wanted


def _application_type(before: Client, redirect_uris: tuple[str, ...]) -> str:
    """The present application type, unless it contradicts the redirect URIs: then the type that follows from them."""
    if before.application_type == "web":
        return uris.fitting_application_type(redirect_uris)
    return before.application_type


def check(engine: Engine, client: Client) -> None:
    """Check a changed client: the rules of registration, and those for the members that only an operator sets.

    Raises:
        InvalidRedirectUri, InvalidClientMetadata: as `edit` does.
    """
    if not client.name:
        raise InvalidClientMetadata("client_name must not be empty.")
    _refuse_withdrawn("grant_types", client.grant_types, engine.grant_types)
    _refuse_withdrawn("scope", client.scopes, engine.scopes)
    check_metadata(
        engine,
        ClientMetadata(
            client_name=client.name,
            redirect_uris=client.redirect_uris,
            token_endpoint_auth_method=client.auth_method,
            grant_types=client.grant_types,
            response_types=client.response_types,
            scopes=client.scopes,
            application_type=client.application_type,
            details=client.details,
        ),
        registered_by=client.registered_by,
    )
    check_rotation(client.auth_method, client.rotates_refresh_tokens)
    if client.is_self_registered and (client.first_party or client.logo):
        raise InvalidClientMetadata(
            "first_party and logo are for clients of the operator; this one registered itself."
        )


def _refuse_withdrawn(member: str, values: Sequence[str], offered: Mapping[str, Any]) -> None:
    """An operator may have taken a value out of the INI since the client was registered; the message names it."""
    if withdrawn := [value for value in values if value not in offered]:
        raise InvalidClientMetadata(f"{member}: {', '.join(withdrawn)}: not offered here; remove it.")


def differences(before: Client, after: Client) -> Mapping[str, tuple[Any, Any]]:
    """Each changed member, by its name in `members`: the old and the new value."""
    was, now = members(before), members(after)
    names = dict.fromkeys((*was, *now))
    return {name: (was.get(name), now.get(name)) for name in names if was.get(name) != now.get(name)}


def _revoke_grants(engine: Engine, client_id: str, reason: str) -> int:
    revoked = engine.stores.grants.revoke_of_client(client_id, engine.now, reason)
    if revoked:
        engine.record(EventType.GRANTS_REVOKED, reason=reason, details={"grants": revoked})
    return revoked


def _change_secrets(engine: Engine, before: Client, after: Client, *, makes_secret: bool) -> str | None:
    """A new secret, if the client needs one now and needed none before; if it needs none any more, its secrets end.

    They end in both cases, because one may have been added just when the client stopped needing one.
    """
    if needs_secret(before.auth_method) == needs_secret(after.auth_method):
        return None
    end_all_secrets(engine, after.client_id)
    return add_secret(engine, after.client_id) if makes_secret and needs_secret(after.auth_method) else None
