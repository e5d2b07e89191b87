"""The scopes and limits of the store, beside those of the INI: read again by every process, and changed.

A scope of the INI or of a plugin takes precedence, so that the store cannot change its sentence on a page. A limit of the
store replaces the limit of the same name in the INI, because a plugin has default limits that are in no INI file, and an
operator may want to change them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from authserver.containment import described
from authserver.engine.context import Engine
from authserver.engine.ports import Storage, StorageUnavailable, Stores
from authserver.engine.printable import is_printable
from authserver.engine.rates import Adjustable
from authserver.engine.records import EventType
from authserver.engine.setting_records import DeclaredKind, StoredSetting
from authserver.settings import scope_problems

# Seconds after which a process reads them again.
FOLLOW_SECONDS = 5.0
MAXIMUM_SENTENCE = 500
log = logging.getLogger(__name__)


class BadSetting(Exception):
    """A scope or limit cannot have these values; the message says why."""


class FollowedSettings:
    """Implements `engine.ports.Offered` over the storage: read at start, and again every few seconds.

    Args:
        listed: the scopes of the INI and of plugins.
        adjustable: the plugins whose limits the store may adjust.
        clock: seconds that nobody sets (T150).
    """

    def __init__(
        self,
        storage: Storage,
        listed: Mapping[str, str],
        adjustable: Sequence[Adjustable],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self.listed_scopes = listed
        self._adjustable = adjustable
        self._clock = clock
        self._lock = threading.Lock()
        self._scopes = listed
        self._taken: Sequence[StoredSetting] = ()
        self._read_at: float | None = None

    def over(self, storage: Storage) -> FollowedSettings:
        """The same over another storage."""
        return FollowedSettings(storage, self.listed_scopes, self._adjustable, self._clock)

    def scopes(self) -> Mapping[str, str]:
        """Cached; one thread reads them again every few seconds while the others use those that were read before."""
        if (known := self.known_scopes()) is not None:
            return known
        if self._read_at is None:
            self.read()
        else:
            self.follow()
        return self._scopes

    def follow(self) -> None:
        """Read them again, unless another thread does; if that fails, go on with those that were read before."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self.read()
        except StorageUnavailable as error:
            log.warning("scopes and limits of the store are not read again, while it is away: %s", error)
            self._read_at = self._clock()
        except Exception:
            log.exception("cannot read the scopes and limits of the store; using those that were read before")
            self._read_at = self._clock()
        finally:
            self._lock.release()

    def known_scopes(self) -> Mapping[str, str] | None:
        """The same without the database; None if it is time to read them again, and no other thread does."""
        read_at = self._read_at
        if read_at is None or (self._clock() - read_at > FOLLOW_SECONDS and not self._lock.locked()):
            return None
        return self._scopes

    def read(self) -> None:
        """Read them now. Raises StorageUnavailable."""
        with self._storage.begin() as stores:
            self.take_over(stores)

    def take_over(self, stores: Stores) -> None:
        """Use the scopes and limits of these stores from now on; a row that cannot be used is left out and logged."""
        found = stores.stored_settings.list()
        if found != self._taken or self._read_at is None:
            stored = {each.name: each.value["sentence"] for each in found if each.kind is DeclaredKind.SCOPE}
            self._scopes = MappingProxyType({**self.listed_scopes, **stored, **self.listed_scopes})
            rows = {each.name: each.value for each in found if each.kind is DeclaredKind.LIMIT}
            for plugin in self._adjustable[:1]:
                plugin.adjust(self._usable(plugin, rows))
            self._taken = found
        self._read_at = self._clock()

    @staticmethod
    def _usable(plugin: Adjustable, rows: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """The limits that the plugin accepts; another version of it may have accepted others."""
        usable = {}
        for name, row in rows.items():
            try:
                plugin.check_row(name, row)
            except Exception as error:
                log.error("the limit %s of the store is left out: %s", name, described(error))
            else:
                usable[name] = row
        return usable


def check_scope(engine: Engine, name: str, sentence: str) -> None:
    """Raises BadSetting for a scope that is not allowed."""
    if problems := scope_problems([name], engine.settings.maximum_request):
        raise BadSetting(problems[0])
    if not sentence.strip() or len(sentence) > MAXIMUM_SENTENCE or not is_printable(sentence):
        raise BadSetting(
            f"its sentence for the consent page has 1 to {MAXIMUM_SENTENCE} printable characters"
        )


def check_limit(adjustable: Sequence[Adjustable], name: str, row: Mapping[str, Any]) -> None:
    """Raises BadSetting for a limit that is not allowed."""
    try:
        adjustable[0].check_row(name, row)
    except ValueError as error:
        raise BadSetting(str(error)) from None


def keep(engine: Engine, was: Mapping[str, Any] | None, setting: StoredSetting) -> None:
    """Store a scope or limit, and record it; `was` is its value before, in the INI or the store."""
    engine.stores.stored_settings.keep(setting)
    engine.record(
        _TYPES[setting.kind, "changed" if was else "added"],
        details={
            _NOUNS[setting.kind]: setting.name,
            "changed": {
                name: {"from": (was or {}).get(name), "to": value}
                for name, value in setting.value.items()
                if (was or {}).get(name) != value
            },
        },
    )


def remove(engine: Engine, setting: StoredSetting) -> bool:
    """Delete a scope or limit from the store, and record its value; False if it was deleted before."""
    if not engine.stores.stored_settings.remove(setting.kind, setting.name):
        return False
    engine.record(
        _TYPES[setting.kind, "removed"], details={_NOUNS[setting.kind]: setting.name, **setting.value}
    )
    return True


_NOUNS = {DeclaredKind.SCOPE: "scope", DeclaredKind.LIMIT: "limit"}
_TYPES = {
    (kind, what): EventType(f"{noun}.{what}")
    for kind, noun in _NOUNS.items()
    for what in ("added", "changed", "removed")
}
