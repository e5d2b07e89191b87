"""The issuers whose assertions this server accepts: what the INI or the store says of each.

What the INI says counts. An issuer of the store is looked up whenever one of its assertions is presented, and whenever
something is used that came of one: whoever disables it is obeyed by the next request (T164).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from authserver.engine.context import Engine
from authserver.engine.records import VOUCHED_BY, DeclaredKind, Grant, StoredSetting, TrustedIssuer
from authserver.ini import did_you_mean
from authserver.limits import MAXIMUM_URI

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Options = TypeVar("Options", bound=DataclassInstance)
else:
    Options = TypeVar("Options")

# The members of an entry that its row keeps among the values; the row itself has the name.
_KEPT = tuple(item.name for item in fields(TrustedIssuer) if item.name not in ("issuer", "setting"))
_TEXTS = ("algorithms", "clients", "resources", "scopes")


def find(engine: Engine, issuer: str) -> TrustedIssuer | None:
    """What is known of this issuer, enabled or not; None: nothing. A text that can be none is not looked up."""
    listed = engine.listed_issuers.get(issuer)
    if listed is not None:
        return listed
    stored = (
        engine.stores.stored_settings.find(DeclaredKind.ISSUER, issuer) if may_be_issuer(issuer) else None
    )
    return None if stored is None else from_setting(stored)


def hold(engine: Engine, issuer: str) -> TrustedIssuer | None:
    """The same, kept as it is until the transaction has ended."""
    listed = engine.listed_issuers.get(issuer)
    if listed is not None:
        return listed
    stored = (
        engine.stores.stored_settings.hold(DeclaredKind.ISSUER, issuer) if may_be_issuer(issuer) else None
    )
    return None if stored is None else from_setting(stored)


def all_issuers(engine: Engine) -> Sequence[TrustedIssuer]:
    """Each issuer, those of the INI first; one that is in both only as the INI has it."""
    stored = [
        from_setting(each)
        for each in engine.stores.stored_settings.list()
        if each.kind is DeclaredKind.ISSUER and each.name not in engine.listed_issuers
    ]
    return (*engine.listed_issuers.values(), *stored)


def is_disabled(engine: Engine, grant: Grant) -> bool:
    """Whether somebody vouched for the person of this grant whose word does not count any more (JAG-17).

    A plugin may name somebody of whom nothing is known here: that is not disabled.
    """
    issuer = grant.details.get(VOUCHED_BY)
    if not isinstance(issuer, str):
        return False
    found = find(engine, issuer)
    return found is not None and not found.is_enabled


def may_be_issuer(text: str) -> bool:
    """Whether it is worth a look-up."""
    return 0 < len(text) <= MAXIMUM_URI and text.isprintable()


def options_of(issuer: TrustedIssuer, form: type[Options]) -> Options:
    """What an entry says to its profile, as this dataclass, whose fields are the options with their defaults.

    Raises:
        ValueError: an option is unknown, missing or of another type, as a sentence.
    """
    known = [item.name for item in fields(form)]
    for name in issuer.options:
        if name not in known:
            raise ValueError(
                f"{name}: no such option of the profile {issuer.profile}; {did_you_mean(name, known, '')}"
            )
    try:
        return msgspec.convert(dict(issuer.options), form)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$.")
        raise ValueError(f"{place.rstrip('`')}: {text}" if place else text) from None


def from_setting(setting: StoredSetting) -> TrustedIssuer:
    """An issuer as the store has it."""
    members: dict[str, Any] = {name: setting.value[name] for name in _KEPT if name in setting.value}
    for name in _TEXTS:
        if members.get(name) is not None:
            members[name] = tuple(members[name])
    return TrustedIssuer(issuer=setting.name, **members)


def as_setting(issuer: TrustedIssuer, now: datetime) -> StoredSetting:
    """An issuer as the store keeps it."""
    return StoredSetting(kind=DeclaredKind.ISSUER, name=issuer.issuer, value=as_value(issuer), changed_at=now)


def as_value(issuer: TrustedIssuer) -> Mapping[str, Any]:
    """The members of an entry as JSON, without its name."""
    return {name: _plain(getattr(issuer, name)) for name in _KEPT}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
