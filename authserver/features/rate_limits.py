"""Limits on how often somebody may do something, as a table in the INI file (hook `rate_decision`).

Each row counts one kind of action for each of its keys, in windows of a fixed length that begin with the first action. The
rows that apply to a request count together or not at all. Counts are in the memory of this process, or in a Redis or Valkey
that all processes share.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from limits import parse
from limits.errors import ConfigurationError, StorageError
from limits.storage import RedisStorage

from authserver.api import (
    Counted,
    Decision,
    RateQuestion,
    RateStep,
    Secret,
    Usage,
    Wait,
    deny,
    did_you_mean,
    hookimpl,
    network_of,
)

# The default rows: what is counted, key, count and period. All of them count in memory while the shared store is down.
DEFAULT = (
    ("wrong-client-credentials", "failed_client_authentication, client+source, 30, minute"),
    ("wrong-client-credentials-from-source", "failed_client_authentication, source, 120, minute"),
    ("tokens-of-client", "token_request, client, 6000, minute"),
    ("tokens-of-grant", "token_request, grant, 30, minute"),
    ("refused-grants", "failed_grant, client+source, 60, minute"),
    ("refused-grants-from-source", "failed_grant, source, 300, minute"),
    ("unknown-tokens", "unknown_token, client, 60, minute"),
    ("authorization-requests-from-source", "authorization_request, source, 300, minute"),
    ("requests-in-advance", "request_in_advance, client, 300, minute"),
    ("requests-in-advance-from-source", "request_in_advance, source, 60, minute"),
    ("sign-ins-from-source-to-account", "sign_in, account+source, 10, 10 minutes"),
    ("sign-ins-to-account", "sign_in, account, 100, hour"),
    ("sign-ins-from-source", "sign_in, source, 100, 10 minutes"),
    ("sign-ins-on-known-device", "sign_in, account+device, 20, 10 minutes"),
    ("password-links-from-source", "password_link, source, 60, 10 minutes"),
    ("forgotten-passwords-of-account", "forgotten_password, account, 5, hour"),
    ("forgotten-passwords-from-source", "forgotten_password, source, 30, hour"),
    ("typed-codes-of-account", "typed_code, account, 10, 10 minutes"),
    ("typed-codes-from-source", "typed_code, source, 60, 10 minutes"),
    ("typed-codes", "typed_code, all, 1000, hour"),
    ("registrations-from-source", "registration, source, 100, hour"),
    ("registrations", "registration, all, 1000, hour"),
    ("unknown-origins-from-source", "unknown_origin, source, 60, minute"),
    ("failed-fetches-from-source", "failed_fetch, source, 30, minute"),
    ("refused-registrations-from-source", "failed_registration, source, 300, hour"),
    ("registration-changes-of-client", "registration_change, client, 60, hour"),
)


PARTS: Mapping[str, Callable[[RateQuestion], str | None]] = {
    "all": lambda question: "",
    "client": attrgetter("client_id"),
    "account": lambda question: question.account or None,
    "device": attrgetter("device_id"),
    "grant": attrgetter("grant_id"),
    "source": lambda question: network_of(question.source),
}
# The possible parts of a key for each kind of action; `all` is always possible.
KEYS: Mapping[Counted, tuple[str, ...]] = {
    Counted.FAILED_CLIENT_AUTHENTICATION: ("client", "source"),
    Counted.TOKEN_REQUEST: ("client", "grant", "source"),
    Counted.FAILED_GRANT: ("client", "source"),
    Counted.UNKNOWN_TOKEN: ("client", "source"),
    Counted.AUTHORIZATION_REQUEST: ("source",),
    Counted.REQUEST_IN_ADVANCE: ("client", "source"),
    Counted.SIGN_IN: ("account", "device", "source"),
    Counted.PASSWORD_LINK: ("source",),
    Counted.FORGOTTEN_PASSWORD: ("account", "source"),
    Counted.REGISTRATION: ("source",),
    Counted.FAILED_REGISTRATION: ("source",),
    Counted.REGISTRATION_CHANGE: ("client", "source"),
    Counted.TYPED_CODE: ("account", "source"),
    Counted.UNKNOWN_ORIGIN: ("source",),
    Counted.FAILED_FETCH: ("source",),
}
# What a row does when the shared store is down.
MEMORY, ALLOW, REFUSE = "memory", "allow", "refuse"
STORE_DOWN = "limits-store-down"
SCHEMES = ("memory", "redis", "rediss", "redis+unix")
# In seconds: the time limit of the shared store, and the pause before it is tried again after a failure.
STORE_SECONDS = 0.25
RETRY_SECONDS = 5
MAXIMUM_PERIOD = 31 * 86_400
# How many seconds a clock may be set back without an effect on the counts.
SET_BACK_SECONDS = 60
MAXIMUM_COUNT = 1_000_000
# How many counts are kept in memory; each takes about 400 bytes.
MAXIMUM_KEPT = 200_000
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TOLD = "told"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A limit: `count` times in `seconds`, for each value of its key.

    Attributes:
        name: its name, which is also the reason of its refusals.
        parts: the parts of its key.
        when_down: what it does while the shared store is down: MEMORY, ALLOW or REFUSE.
        readers: for each part its prefix in a key, and the function that reads it from a question.
        spares_known_devices: whether it does not count sign-ins in a browser where the account signed in before, because
            another row counts them.
    """

    name: str
    counted: Counted
    parts: tuple[str, ...]
    count: int
    seconds: int
    when_down: str
    readers: tuple[tuple[str, Callable[[RateQuestion], str | None]], ...]
    spares_known_devices: bool = False

    def key(self, question: RateQuestion) -> str | None:
        """The key of the count for this question: the name of the row and its parts. None if the row does not apply."""
        if self.spares_known_devices and question.device_id is not None:
            return None
        key = self.name
        for begins, read in self.readers:
            value = read(question)
            if value is None:
                return None
            if value:
                key += begins + value
        return key


# A row with the key that it has for one question.
Applied = tuple[Row, str]


class Full(NamedTuple):
    """A row that refuses, the seconds until it allows again, and whether this is its first refusal in this window."""

    row: Row
    seconds: int
    is_first: bool


@dataclass(eq=False)
class RateLimits:
    """Limit how often clients, people and strangers may do something.

    Attributes:
        limits: lines `name = what is counted, key, count, period`. At the end there may be what the limit does while the
            shared store is down: `memory` (the default), `allow` or `refuse`.
        storage: where the counts are: `memory://` of each process, or `redis://HOST:PORT/NUMBER` (`rediss` for TLS) of a
            Redis or Valkey that all processes share (needs `pip install authserver[redis]`).
        password: the password of that store, if it needs one.
        prefix: the beginning of its keys in the store; each server that uses the same store needs another one.
    """

    # It needs no time limit, because that of the shared store is shorter.
    immediate: ClassVar[bool] = True

    limits: tuple[tuple[str, str], ...] = DEFAULT
    storage: str = "memory://"
    password: Secret | None = field(default=None, repr=False)
    prefix: str = "authserver"
    rows: Mapping[Counted, tuple[Row, ...]] = field(init=False, repr=False)
    adjusted: frozenset[str] = field(default=frozenset(), init=False, repr=False)
    counts: Counts = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.rows = self._rows(self.limits)
        _check_storage(self.storage)
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", self.prefix):
            raise ValueError("prefix: expected 1 to 50 letters, digits, hyphens and underscores")
        if self.password and self.storage.startswith("memory:"):
            raise ValueError("password: the memory of a process needs none; set storage, or remove the line")

    @staticmethod
    def _rows(limits: Iterable[tuple[str, str]]) -> Mapping[Counted, tuple[Row, ...]]:
        """The rows of these lines, by what they count. Raises ValueError."""
        rows = [_row(name, text) for name, text in limits]
        if any("device" in row.parts for row in rows):
            # A known device has its own counts, so that strangers cannot use up the limit of its user (T103).
            rows = [
                replace(
                    row, spares_known_devices=row.counted is Counted.SIGN_IN and "device" not in row.parts
                )
                for row in rows
            ]
        return {counted: tuple(row for row in rows if row.counted is counted) for counted in Counted}

    def check_row(self, name: str, row: Mapping[str, Any]) -> None:
        """Raise ValueError for a row that is not valid."""
        _row(name, _line(row))

    def adjust(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Add these rows; a row replaces the line with the same name."""
        self.rows = self._rows((dict(self.limits) | {name: _line(row) for name, row in rows.items()}).items())
        self.adjusted = frozenset(rows)

    @property
    def reasons(self) -> Mapping[str, str]:
        """The remedy for each refusal."""
        return {
            STORE_DOWN: "authserver.plugin.rate_limits.storage names a store that cannot be used: start it, or see the log"
        } | {
            row.name: (
                f"wait until the window is over, or lift it now: `authserver limits lift {row.name}`; to allow more than "
                f"{row.count} in {_in_words(row.seconds)}, {self._where(row)}"
            )
            for row in self._all_rows()
        }

    def _where(self, row: Row) -> str:
        if row.name in self.adjusted:
            return "change its declaration, and run `authserver apply`"
        return "change this line of authserver.plugin.rate_limits.limits"

    def prepare(self) -> None:
        """Begin to count. Raises ValueError if the driver of the shared store is not installed."""
        shared = None
        if not self.storage.startswith("memory:"):
            options: dict[str, Any] = {"password": self.password.value} if self.password else {}
            try:
                shared = SharedStorage(
                    self.storage,
                    wrap_exceptions=True,
                    key_prefix=self.prefix,
                    socket_timeout=STORE_SECONDS,
                    socket_connect_timeout=STORE_SECONDS,
                    **options,
                )
            except ConfigurationError:
                raise ValueError(
                    "storage: its driver is not installed: pip install 'authserver[redis]'"
                ) from None
        self.counts = Counts(shared)

    def check_services(self) -> None:
        """Raise ValueError if the shared store does not answer. While a server runs, each limit does what its line says."""
        shared = self.counts.shared
        if shared is not None and not shared.check():
            raise ValueError(
                "storage: the shared store does not answer; start it, correct the address, or count in memory: memory://"
            )

    def close(self) -> None:
        """Close the connections to the shared store."""
        self.counts.close()

    @hookimpl
    def rate_decision(self, question: RateQuestion) -> Decision[None] | None:
        applied = [
            (row, key) for row in self.rows[question.counted] if (key := row.key(question)) is not None
        ]
        if not applied:
            return None
        store, is_down = self.counts.store()
        if not is_down:
            try:
                return _decided(store, applied, question.step)
            except StorageError as error:
                self.counts.went_down(error)
        if question.step is not RateStep.GIVE_BACK and any(row.when_down == REFUSE for row, _ in applied):
            return deny(STORE_DOWN, wait=Wait(RETRY_SECONDS, self.counts.is_first_refusal()))
        in_memory = [(row, key) for row, key in applied if row.when_down == MEMORY]
        return _decided(self.counts.memory, in_memory, question.step) if in_memory else None

    def figures(self) -> Mapping[str, tuple[str, float]]:
        """The figures for collectors, each with its meaning."""
        return {
            "store_down": (
                "1 while the shared store of the limits cannot be used.",
                float(self.counts.is_down),
            ),
            "kept": ("Counts in the memory of this process.", float(len(self.counts.memory))),
        }

    def table(self) -> Sequence[Mapping[str, Any]]:
        """The rows, for operators."""
        return [
            {
                "limit": row.name,
                "counted": row.counted.value,
                "key": "+".join(row.parts),
                "count": row.count,
                "seconds": row.seconds,
                "store_down": row.when_down,
                "set_in": "declarations" if row.name in self.adjusted else "INI",
            }
            for row in self._all_rows()
        ]

    @property
    def is_shared(self) -> bool:
        """Whether all processes share the counts."""
        return not self.storage.startswith("memory:")

    def usage(self) -> Sequence[Usage]:
        """The counts in the shared store, or those of this process.

        Raises:
            ValueError: the shared store cannot be used.
        """
        rows = {row.name: row for row in self._all_rows()}
        found = []
        with self._counted() as store:
            for key, used, seconds in store.every():
                name, _, who = key.partition(" ")
                if (row := rows.get(name)) is not None:
                    found.append(Usage(limit=name, who=who, used=used, allowed=row.count, seconds=seconds))
        return found

    def lift(self, limit: str, who: str | None) -> int:
        """Reset the counts of a limit for one key, or for all with None. Returns how many counts were reset.

        Raises:
            ValueError: there is no such limit, or the shared store cannot be used.
        """
        names = [row.name for row in self._all_rows()]
        if limit not in names:
            raise ValueError(f"{limit}: no such limit; {did_you_mean(limit, names, '')}")
        lifted = [item for item in self.usage() if item.limit == limit and who in (None, item.who)]
        with self._counted() as store:
            for item in lifted:
                store.forget(f"{item.limit} {item.who}".rstrip())
        return len(lifted)

    @contextmanager
    def _counted(self) -> Iterator[Store]:
        """The store that has the counts. Raises ValueError if the shared store cannot be used."""
        try:
            yield self.counts.memory if self.counts.shared is None else self.counts.shared
        except StorageError as error:
            raise ValueError(f"the store of the limits cannot be used: {error}") from None

    def _all_rows(self) -> Iterator[Row]:
        for rows in self.rows.values():
            yield from rows


def _decided(store: Store, applied: Sequence[Applied], step: RateStep) -> Decision[None] | None:
    """Do the step of the question for all rows that apply to it. Raises StorageError."""
    if step is RateStep.GIVE_BACK:
        store.give_back(applied)
        return None
    full = store.take(applied, counts=step is RateStep.CLAIM)
    return None if full is None else deny(full.row.name, wait=Wait(full.seconds, full.is_first))


@dataclass(slots=True)
class _Count:
    """The count of a window that began at this time, and whether a request was refused in it."""

    times: int
    begins_at: float
    has_refused: bool = False

    def left(self, seconds: int, now: float) -> float:
        """Seconds until its window ends; 0 or less if it has ended.

        A window that begins in the future is from before the clock was set back, and does not count any more.
        """
        return self.begins_at + seconds - now if self.begins_at - SET_BACK_SECONDS <= now else 0.0


class MemoryCounts:
    """Counts in the memory of this process.

    The memory store of the package `limits` scans all counts a hundred times a second, so a stranger with many names could
    slow the server down. This store keeps windows of one length in the order of their ends, and looks at the first only.
    """

    def __init__(self) -> None:
        # The counts by the length of the window in seconds, then by key.
        self._counts: defaultdict[int, OrderedDict[str, _Count]] = defaultdict(OrderedDict)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(map(len, self._counts.values()))

    def every(self) -> Sequence[tuple[str, int, int]]:
        """The key and number of each count, and the seconds until its window ends."""
        now = time.time()
        with self._lock:
            return [
                (key, held.times, math.ceil(left))
                for seconds, counts in self._counts.items()
                for key, held in counts.items()
                if (left := held.left(seconds, now)) > 0
            ]

    def forget(self, key: str) -> None:
        """Reset this count."""
        with self._lock:
            for counts in self._counts.values():
                counts.pop(key, None)

    def take(self, applied: Sequence[Applied], *, counts: bool) -> Full | None:
        """Count for all rows, or for none if a row is full; then return the row that is full for the longest time.

        Args:
            counts: whether to count, or only to check.
        """
        now = time.time()
        found: list[tuple[Row, str, _Count | None]] = []
        full: tuple[Row, _Count] | None = None
        full_for = 0.0
        with self._lock:
            for row, key in applied:
                count = self._counts[row.seconds].get(key)
                left = 0.0 if count is None else count.left(row.seconds, now)
                found.append((row, key, count if left > 0 else None))
                if left > full_for and count is not None and count.times >= row.count:
                    full, full_for = (row, count), left
            if full is not None:
                row, count = full
                # The first refusal of each window is kept as an event.
                is_first, count.has_refused = not count.has_refused, True
                # Never longer than the window, even if a clock was set back.
                return Full(row, min(math.ceil(full_for), row.seconds), is_first)
            if counts:
                for row, key, count in found:
                    if count is None:
                        self._begin(row, key, now)
                    else:
                        count.times += 1
        return None

    def give_back(self, applied: Sequence[Applied]) -> None:
        """Subtract one from each of these counts."""
        with self._lock:
            for row, key in applied:
                counts = self._counts[row.seconds]
                if (held := counts.get(key)) is not None:
                    held.times -= 1
                    if held.times <= 0:
                        del counts[key]

    def _begin(self, row: Row, key: str, now: float) -> None:
        """Begin a window. Forget up to two that have ended; if there are too many, also the one that ends first."""
        counts = self._counts[row.seconds]
        counts[key] = _Count(1, now)
        counts.move_to_end(key)
        for _ in range(2):
            if next(iter(counts.values())).left(row.seconds, now) <= 0:
                counts.popitem(last=False)
        if len(self) > MAXIMUM_KEPT:
            first = min(
                (next(iter(counts.values())).begins_at + seconds, seconds)
                for seconds, counts in self._counts.items()
                if counts
            )
            self._counts[first[1]].popitem(last=False)


# One question is one script, which the store runs as a whole: other processes see all of it or nothing, nothing is half
# done if this process ends, and there is only one wait for a distant store. `KEYS` are the keys of the rows; `ARGV` has
# whether to count, and for each row its count and its seconds.
_TAKE = """
local full, full_for = 0, 0
for i, key in ipairs(KEYS) do
    if tonumber(redis.call('GET', key) or 0) >= tonumber(ARGV[2 * i]) then
        local left = redis.call('PTTL', key)
        if left > full_for then full, full_for = i, left end
    end
end
if full > 0 then return {full, full_for} end
if ARGV[1] == '1' then
    for i, key in ipairs(KEYS) do
        if redis.call('INCR', key) == 1 then redis.call('EXPIRE', key, ARGV[2 * i + 1]) end
    end
end
return {0, 0}
"""
_GIVE_BACK = """
for _, key in ipairs(KEYS) do
    if tonumber(redis.call('GET', key) or 0) > 0 and redis.call('DECR', key) == 0 then redis.call('DEL', key) end
end
"""


class SharedStorage(RedisStorage):
    """Counts in a Redis or Valkey, which can be listed. Its methods raise StorageError."""

    def initialize_storage(self, _uri: str) -> None:
        """Connect as the package `limits` does, and register the scripts."""
        super().initialize_storage(_uri)
        self._take = self.storage.register_script(_TAKE)
        self._give_back = self.storage.register_script(_GIVE_BACK)

    def take(self, applied: Sequence[Applied], *, counts: bool) -> Full | None:
        """As `MemoryCounts.take`."""
        arguments = [number for row, _ in applied for number in (row.count, row.seconds)]
        number, milliseconds = self._run(self._take, applied, int(counts), *arguments)
        if not number:
            return None
        (row, key), seconds = applied[number - 1], math.ceil(milliseconds / 1000)
        return Full(row, seconds, self.incr(f"{_TOLD} {key}", seconds) == 1)

    def give_back(self, applied: Sequence[Applied]) -> None:
        """As `MemoryCounts.give_back`."""
        self._run(self._give_back, applied)

    def _run(self, script: Callable[..., Any], applied: Sequence[Applied], *arguments: int) -> Any:
        try:
            return script([self.prefixed_key(key) for _, key in applied], arguments)
        except self.base_exceptions as error:
            raise StorageError(error) from error

    def every(self) -> Iterator[tuple[str, int, int]]:
        """As `MemoryCounts.every`."""
        prefix = self.prefixed_key("")
        try:
            for found in self.storage.scan_iter(match=f"{prefix}*", count=1_000):
                key = (found.decode() if isinstance(found, bytes) else found).removeprefix(prefix)
                if not key.startswith(f"{_TOLD} ") and (used := self.get(key)) > 0:
                    yield key, used, max(1, math.ceil(self.get_expiry(key) - time.time()))
        except self.base_exceptions as error:
            raise StorageError(error) from error

    def forget(self, key: str) -> None:
        """As `MemoryCounts.forget`."""
        self.clear(key)
        self.clear(f"{_TOLD} {key}")


Store = MemoryCounts | SharedStorage


class Counts:
    """The counts: in the shared store if there is one, and in memory while the shared store is down.

    Attributes:
        shared: the shared store; None if counts are in memory.
        is_down: whether it could not be used when it was last tried.
    """

    def __init__(self, shared: SharedStorage | None) -> None:
        self.shared = shared
        self.memory = MemoryCounts()
        self.is_down = False
        self._try_at = 0.0
        self._tell_at = 0.0
        self._lock = threading.Lock()

    def store(self) -> tuple[Store, bool]:
        """The store to use now, and whether the shared one is down; then one request in a few seconds tries it again."""
        if self.shared is None:
            return self.memory, False
        if self.is_down:
            with self._lock:
                if time.monotonic() < self._try_at:
                    return self.memory, True
                self._try_at = time.monotonic() + RETRY_SECONDS
            try:
                self.shared.get("there")
            except StorageError:
                return self.memory, True
            self.is_down = False
            log.warning("the shared store of the limits can be used again")
        return self.shared, False

    def went_down(self, error: Exception) -> None:
        """Note that the shared store failed; only the first failure is logged."""
        with self._lock:
            self._try_at = time.monotonic() + RETRY_SECONDS
            told, self.is_down = self.is_down, True
        if not told:
            log.warning(
                "the shared store of the limits cannot be used (%s): until then each limit does what its line says, "
                "by default it counts in the memory of each process",
                type(error.__cause__ or error).__name__,
            )

    def is_first_refusal(self) -> bool:
        """Whether this is the first refusal within a minute because the shared store is down."""
        with self._lock:
            now = time.monotonic()
            is_first, self._tell_at = now >= self._tell_at, max(self._tell_at, now + 60)
            return is_first

    def close(self) -> None:
        """Close the connections to the shared store, if there is one."""
        if self.shared is not None:
            self.shared.storage.close()


def _row(name: str, text: str) -> Row:
    """Read a line of the table. Raises ValueError."""
    where = f"limits: {name}: "
    if not _NAME.fullmatch(name) or len(name) > 60 or name in (STORE_DOWN, _TOLD):
        raise ValueError(f"{where}a name is lower-case words joined by hyphens, up to 60 characters")
    columns = [column.strip() for column in text.split(",")]
    if not 4 <= len(columns) <= 5:
        raise ValueError(
            f"{where}expected `what is counted, key, count, period`, such as `sign_in, account+source, 10, 10 minutes`"
        )
    what, key, count, period, when_down = (*columns, MEMORY)[:5]
    if what not in [*Counted]:
        raise ValueError(f"{where}{what} cannot be counted; {did_you_mean(what, [*Counted], '')}")
    counted = Counted(what)
    parts = tuple(dict.fromkeys(part.strip() for part in key.split("+")))
    possible = (*KEYS[counted], "all")
    for part in parts:
        if part not in possible:
            raise ValueError(f"{where}{part} is not a key of {what}; {did_you_mean(part, possible, '')}")
    if "all" in parts and len(parts) > 1:
        raise ValueError(f"{where}all counts everybody together, so it must be the only key")
    if when_down not in (MEMORY, ALLOW, REFUSE):
        hint = did_you_mean(when_down, (MEMORY, ALLOW, REFUSE), "")
        raise ValueError(f"{where}{when_down}: what it does while the shared store is down; {hint}")
    if not re.fullmatch(r"[0-9]{1,7}", count) or not 1 <= int(count) <= MAXIMUM_COUNT:
        raise ValueError(f"{where}{count}: a count is 1 to {MAXIMUM_COUNT}; for no limit, remove the line")
    return Row(
        name=name,
        counted=counted,
        parts=parts,
        count=int(count),
        seconds=_seconds(where, period),
        when_down=when_down,
        readers=tuple((f" {part}=", PARTS[part]) for part in parts),
    )


def _line(row: Mapping[str, Any]) -> str:
    """A row in the form of a line of the INI."""
    store_down = row.get("store_down", MEMORY)
    return f"{row['counted']}, {row['key']}, {row['count']}, {row['seconds']} seconds, {store_down}"


def _seconds(where: str, period: str) -> int:
    """The length of a period such as `10 minutes`, in seconds. Raises ValueError."""
    problem = f"{where}{period}: a period is like second, minute, 10 minutes, hour or day, up to 31 days"
    if not re.fullmatch(r"([1-9][0-9]{0,6} )?(second|minute|hour|day)s?", period):
        raise ValueError(problem)
    seconds = parse(f"1 per {period}").get_expiry()
    if not 1 <= seconds <= MAXIMUM_PERIOD:
        raise ValueError(problem)
    return int(seconds)


def _check_storage(storage: str) -> None:
    """Raise ValueError if this is not the address of a store."""
    try:
        url = urlsplit(storage)
        has_password, _ = url.password is not None, url.port
    except ValueError:
        raise ValueError("storage: expected memory:// or redis://HOST:PORT/NUMBER") from None
    if url.scheme not in SCHEMES:
        raise ValueError(
            f"storage: {url.scheme or 'it has no scheme'}; {did_you_mean(url.scheme, SCHEMES, '')}"
        )
    if has_password or "password=" in url.query:
        raise ValueError("storage: it has a password in it; set the password with the setting password")
    if url.scheme != "memory" and not (url.hostname or url.path):
        raise ValueError("storage: expected redis://HOST:PORT/NUMBER")


def _in_words(seconds: int) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds % length == 0:
            return (
                f"{seconds // length} {unit}s"
                if seconds > length
                else f"a {unit}".replace("a hour", "an hour")
            )
    return f"{seconds} seconds"
