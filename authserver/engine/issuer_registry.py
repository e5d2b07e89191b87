"""The issuers whose assertions this server accepts: their entries in the INI and in the store.

The INI takes precedence. An issuer of the store is looked up whenever one of its assertions is presented, and whenever a
grant or token that came from one is used: disabling it takes effect with the next request (T164).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from authserver.engine.context import Engine
from authserver.engine.records import VOUCHED_BY, Grant
from authserver.engine.setting_records import DeclaredKind, StoredSetting, TrustedIssuer
from authserver.ini import did_you_mean
from authserver.limits import MAXIMUM_URI

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Options = TypeVar("Options", bound=DataclassInstance)
else:
    Options = TypeVar("Options")

# The members of an entry that are in the value of its row; the row itself has the name.
_KEPT = tuple(item.name for item in fields(TrustedIssuer) if item.name not in ("issuer", "setting"))
_TEXTS = ("algorithms", "clients", "resources", "scopes")


def find(engine: Engine, issuer: str) -> TrustedIssuer | None:
    """The entry of this issuer, enabled or not, or None. A text that cannot be an issuer is not looked up."""
    listed = engine.listed_issuers.get(issuer)
    if listed is not None:
        return listed
    stored = (
        engine.stores.stored_settings.find(DeclaredKind.ISSUER, issuer) if may_be_issuer(issuer) else None
    )
    return None if stored is None else from_setting(stored)


def hold(engine: Engine, issuer: str) -> TrustedIssuer | None:
    """As `find`, and locked until the transaction has ended."""
    listed = engine.listed_issuers.get(issuer)
    if listed is not None:
        return listed
    stored = (
        engine.stores.stored_settings.hold(DeclaredKind.ISSUER, issuer) if may_be_issuer(issuer) else None
    )
    return None if stored is None else from_setting(stored)


def all_issuers(engine: Engine) -> Sequence[TrustedIssuer]:
    """All issuers, those of the INI first; an issuer in both has the entry of the INI."""
    stored = [
        from_setting(each)
        for each in engine.stores.stored_settings.list()
        if each.kind is DeclaredKind.ISSUER and each.name not in engine.listed_issuers
    ]
    return (*engine.listed_issuers.values(), *stored)


def is_disabled(engine: Engine, grant: Grant) -> bool:
    """Whether the issuer that vouched for the person of this grant is disabled (JAG-17).

    A plugin may name an issuer without an entry: it is not disabled.
    """
    issuer = grant.details.get(VOUCHED_BY)
    if not isinstance(issuer, str):
        return False
    found = find(engine, issuer)
    return found is not None and not found.is_enabled


def may_be_issuer(text: str) -> bool:
    """Whether a text can be an issuer, so that a look-up makes sense."""
    return 0 < len(text) <= MAXIMUM_URI and text.isprintable()


def options_of(issuer: TrustedIssuer, form: type[Options]) -> Options:
    """The options of an entry for its profile, as this dataclass, whose fields are the options with their defaults.

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
    """The issuer of a row of the store."""
    members: dict[str, Any] = {name: setting.value[name] for name in _KEPT if name in setting.value}
    for name in _TEXTS:
        if members.get(name) is not None:
            members[name] = tuple(members[name])
    return TrustedIssuer(issuer=setting.name, **members)


def as_setting(issuer: TrustedIssuer, now: datetime) -> StoredSetting:
    """The row of an issuer for the store."""
    return StoredSetting(kind=DeclaredKind.ISSUER, name=issuer.issuer, value=as_value(issuer), changed_at=now)


def as_value(issuer: TrustedIssuer) -> Mapping[str, Any]:
    """The members of an entry as JSON, without its name."""
    return {name: _plain(getattr(issuer, name)) for name in _KEPT}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
