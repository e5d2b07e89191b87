"""The one way to a URL that somebody else named.

Many of them, slow, huge or failing, hold no more than a few threads, cost their hosts no more than a few requests, and
show nothing of the operator's network.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_network
from ssl import SSLContext
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from authserver.containment import text_of
from authserver.engine.documents import (
    Document,
    DocumentKind,
    FetchFailed,
    FetchProblem,
    Reply,
)
from authserver.engine.ports import do_nothing
from authserver.engine.timeline import SpanKind, note
from authserver.engine.uris import is_loopback, malformed
from authserver.fetching import freshness
from authserver.fetching.addresses import Address, Reach
from authserver.fetching.addresses import is_loopback as is_loopback_address
from authserver.fetching.connections import (
    Exchange,
    Proxy,
    Resolve,
    ask,
    literal_address,
    open_pool,
    system_resolve,
    target_of,
    too_slow,
    trusting,
)
from authserver.limits import (
    MAXIMUM_DOCUMENT,
    MAXIMUM_DOCUMENTS,
    MAXIMUM_DOCUMENTS_SIZE,
    MAXIMUM_REMEMBERED,
)
from authserver.settings import Settings, SettingsError

T = TypeVar("T")
log = logging.getLogger(__name__)

USER_AGENT = "authserver"
# Characters of the name of a host (RFC 1035, 2.3.4).
MAXIMUM_HOST = 255
# Failures of one host within a minute, after which it is left alone until that minute ends. A host that gave no answer
# will give none to the next request. A bad answer, 5xx too, is one to a path that a stranger chose, and many publish on
# one host: so more of those are needed than the callers' own limits let one source cause (`failed_fetch`).
MAXIMUM_FAILURES = 10
MAXIMUM_BAD_ANSWERS = 120
FAILURE_WINDOW = 60
# Seconds before a URL that failed is tried again: the first time, and at most.
FIRST_PAUSE = 1
MAXIMUM_PAUSE = 60
# What may come of it, beside each problem.
FETCHED, CACHED, LAST_GOOD, SENT = "fetched", "cached", "last-good", "sent"
OUTCOMES = (FETCHED, CACHED, LAST_GOOD, SENT, *(problem.value for problem in FetchProblem))
# Not what somebody else did.
_OURS = (FetchProblem.PACED, FetchProblem.BUSY, FetchProblem.URL_REFUSED)
# What the host did, whatever was asked for.
_OF_THE_HOST = (
    FetchProblem.ADDRESS_REFUSED,
    FetchProblem.NAME_UNKNOWN,
    FetchProblem.UNREACHABLE,
    FetchProblem.PROXY_FAILED,
    FetchProblem.TLS_FAILED,
    FetchProblem.TOO_SLOW,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a fetcher may do.

    Attributes:
        reach: the addresses that it may connect to.
        ports: of https; on loopback, if that may be reached, every port.
        seconds: for one document, everything included.
        at_once: how many requests there are at the same time.
        at_once_per_host: how many of these go to one host.
        waiting: how many may wait for a place, or for what another thread fetches.
        proxy: the egress proxy, if there is one. It is then the one that checks the addresses of names.
        ca_file: the certificates that are trusted; "" for the system's.
    """

    reach: Reach = field(default_factory=Reach)
    ports: tuple[int, ...] = (443,)
    seconds: float = 3.0
    at_once: int = 2
    at_once_per_host: int = 1
    waiting: int = 1
    proxy: Proxy | None = None
    ca_file: str = ""


def fetcher_of(settings: Settings) -> Fetcher:
    """The fetcher of these settings. Raises SettingsError."""
    credentials = "".join(secret.value for secret in settings.fetch_proxy_credentials)
    limits = Limits(
        reach=Reach(
            refused=tuple(map(ip_network, settings.fetch_refused_networks)), loopback=settings.fetch_loopback
        ),
        ports=settings.fetch_ports,
        seconds=settings.fetch_time_limit,
        at_once=settings.fetch_at_once,
        at_once_per_host=settings.fetch_at_once_per_host,
        waiting=settings.fetch_waiting,
        proxy=Proxy(settings.fetch_proxy, credentials) if settings.fetch_proxy else None,
        ca_file=settings.fetch_ca_file,
    )
    try:
        return Fetcher(limits)
    except ValueError as error:
        raise SettingsError([f"authserver.fetch_ca_file: {error}"]) from None


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "")[:MAXIMUM_HOST]
    except ValueError:
        return ""


class Fetcher:
    """Implements `engine.ports.Fetcher`. Safe for many threads.

    Args:
        resolve: looks host names up.
        clock: seconds that never go back, for the ages of documents and for pauses.

    Raises:
        ValueError: the CA file cannot be used.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        resolve: Resolve = system_resolve,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._resolve = resolve
        self._clock = clock
        self._lock = threading.Lock()
        self._cache = _Cache()
        self._flights: dict[_Key, Future[Document[Any]]] = {}
        self._places = _Places(limits)
        self._pace = _Pace(clock)
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        # Reading the system's certificates takes a while, and many servers never fetch.
        self._context: SSLContext | None = trusting(limits.ca_file) if limits.ca_file else None

    def fetch(
        self,
        kind: DocumentKind[T],
        url: str,
        *,
        again: bool = False,
        ahead: int = 0,
        before: Callable[[], None] = do_nothing,
    ) -> Document[T]:
        """See `engine.ports.Fetcher`."""
        with self._counting(kind.name, url) as outcome:
            document = self._found(kind, url, again, ahead, before)
            outcome.append(LAST_GOOD if document.is_last_good else CACHED if document.age else FETCHED)
            return document

    def cached(self, kind: DocumentKind[T], url: str) -> Document[T] | None:
        """See `engine.ports.Fetcher`."""
        with self._lock:
            kept = self._cache.find((kind, url))
            now = self._clock()
            if kept is None or not kept.serves(now):
                return None
            self._outcomes[CACHED] += 1
            return kept.document(now)

    def outcomes(self) -> Mapping[str, int]:
        """How often each thing came of a request for a document, since the start: for figures (R-16)."""
        with self._lock:
            return dict(self._outcomes)

    @contextmanager
    def _counting(self, name: str, url: str) -> Iterator[list[str]]:
        """Count what is appended, or the problem that is raised, and note it for the request that this is for."""
        outcome: list[str] = []
        began = time.perf_counter_ns()
        try:
            yield outcome
        except FetchFailed as error:
            outcome.append(error.problem.value)
            raise
        finally:
            with self._lock:
                for each in outcome:
                    self._outcomes[each] += 1
            note(SpanKind.FETCH, name, began, {"host": _host_of(url), "outcome": "".join(outcome)})

    def _found(
        self, kind: DocumentKind[T], url: str, again: bool, ahead: int, before: Callable[[], None]
    ) -> Document[T]:
        """The document, from the cache or elsewhere. Raises FetchFailed."""
        deadline = time.monotonic() + self._limits.seconds
        destination = self._destination(url)
        key = (kind, url)
        with self._lock:
            kept = self._cache.find(key)
            now = self._clock()
            if kept is not None and kept.serves(now, again=again, ahead=ahead):
                return kept.document(now)
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
            elif kept is not None and kept.is_last_good(now) and not kept.serves_failures_only:
                # It is being fetched: nobody needs to wait for that.
                return kept.document(now)
        if not leads:
            try:
                before()
                return self._follow(flight, deadline)
            except FetchFailed as error:
                return self._instead(key, kept, error)
        try:
            before()
            document = self._fetch(key, destination, kept, deadline)
        except BaseException as error:
            given_up = FetchFailed(FetchProblem.UNREACHABLE, "the one request of many was given up")
            # What ends this thread, such as Ctrl-C, is not for those who wait.
            flight.set_exception(error if isinstance(error, FetchFailed) else given_up)
            raise
        else:
            flight.set_result(document)
            return document
        finally:
            with self._lock:
                del self._flights[key]

    def post(
        self,
        url: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        maximum: int = MAXIMUM_DOCUMENT,
        before: Callable[[], None] = do_nothing,
    ) -> Reply:
        """See `engine.ports.Fetcher`."""
        deadline = time.monotonic() + self._limits.seconds
        with self._counting("sent", url) as outcome:
            destination = self._destination(url)
            before()
            try:
                reply = self._ask("POST", destination, headers, deadline, body=body, maximum=maximum)
            except FetchFailed as error:
                self._note(destination, error)
                raise
            outcome.append(SENT)
            return reply

    def _follow(self, flight: Future[Document[Any]], deadline: float) -> Document[Any]:
        """What another thread fetches at this moment. Raises FetchFailed."""
        with self._places.waiting():
            try:
                return flight.result(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise too_slow() from None

    def _fetch(
        self, key: _Key, destination: _Destination, kept: _Kept[Any] | None, deadline: float
    ) -> Document[Any]:
        """Fetch it, or fall back to the last good one. Raises FetchFailed."""
        kind = key[0]
        try:
            headers = {"Accept": kind.accept, **(kept.validators if kept is not None else {})}
            reply = self._ask("GET", destination, headers, deadline, maximum=kind.maximum)
            document = self._read(key, reply, kept)
        except FetchFailed as error:
            self._note(destination, error)
            return self._instead(key, kept, error)
        self._pace.succeeded(destination.url)
        return document

    def _ask(
        self,
        method: str,
        destination: _Destination,
        headers: Mapping[str, str],
        deadline: float,
        *,
        body: bytes | None = None,
        maximum: int,
    ) -> Reply:
        """One request, when it is its turn. Raises FetchFailed."""
        self._pace.check(destination.url, destination.host)
        exchange = Exchange(deadline, partial(self._check, destination), self._resolve)
        with self._places.of(destination.host, deadline):
            proxy = self._limits.proxy
            if proxy is not None and (address := literal_address(destination.host)) is not None:
                self._check(destination, address)
            pool = open_pool(
                destination.scheme,
                destination.host,
                destination.port,
                context=self._trusted() if destination.scheme == "https" else None,
                proxy=proxy,
            )
            try:
                return ask(
                    pool,
                    exchange,
                    method,
                    destination.target,
                    {**headers, "User-Agent": USER_AGENT, "Connection": "close"},
                    body,
                    maximum=maximum,
                )
            finally:
                pool.close()

    def _read(self, key: _Key, reply: Reply, kept: _Kept[Any] | None) -> Document[Any]:
        """Keep what was answered, as long as its server and its kind allow. Raises FetchFailed."""
        kind = key[0]
        if reply.status == 304 and kept is not None and kept.validators:
            value, size = kept.value, kept.size
            headers: Mapping[str, str] = {**kept.headers, **reply.headers}
        elif reply.status == 200:
            headers = reply.headers
            try:
                value, size = kind.read(replace(reply, url=key[1])), len(reply.body)
            except ValueError as error:
                raise FetchFailed(
                    FetchProblem.DOCUMENT_REFUSED, f"this is no good {kind.name}: {text_of(error)}"
                ) from None
            except Exception as error:
                # Whatever a stranger's document makes of its reader, the caller gets a refusal.
                log.exception("the reader of a %s failed", kind.name)
                raise FetchFailed(
                    FetchProblem.DOCUMENT_REFUSED, f"its reader failed: {type(error).__name__}"
                ) from None
        else:
            wait = freshness.retry_after(reply.headers) if reply.status in (429, 503) else 0
            raise FetchFailed(
                FetchProblem.STATUS_REFUSED,
                f"status {reply.status}",
                status=reply.status,
                seconds_to_wait=min(wait, MAXIMUM_PAUSE),
            )
        now = self._clock()
        seconds = freshness.lifetime(headers, kind)
        with self._lock:
            if seconds is None and not kind.last_good_for:
                self._cache.drop(key)
            else:
                self._cache.keep(
                    key,
                    _Kept(
                        value=value,
                        size=size,
                        headers={name: headers[name] for name in _KEPT_HEADERS if name in headers},
                        # A document that must not be kept is fetched each time; it is used again only after failures.
                        validators=freshness.validators(headers) if seconds is not None else {},
                        confirmed_at=now,
                        fresh_until=now + (seconds or 0),
                        last_good_until=now + (seconds or 0) + kind.last_good_for,
                        refetch_from=now + (kind.refetch_pause if seconds is not None else 0),
                        serves_failures_only=seconds is None,
                    ),
                )
        return Document(value=value, age=0.0)

    def _instead(self, key: _Key, kept: _Kept[Any] | None, error: FetchFailed) -> Document[Any]:
        """The last good document, if it may serve after this failure. Raises the failure otherwise."""
        with self._lock:
            if error.status in key[0].gone:
                self._cache.drop(key)
                raise error
            if kept is None:
                raise error
            now = self._clock()
            if not error.says_nothing:
                # Its server has said something else; until it says something good, that counts.
                kept.is_suspended = True
            elif kept.serves(now) or kept.is_last_good(now):
                return kept.document(now)
        raise error

    def _note(self, destination: _Destination, error: FetchFailed) -> None:
        """Log a failure, and let the next attempt wait."""
        if error.problem in _OURS:
            return
        # The URL may hold a secret, and is long; the caller's event can name it.
        log.info("%s: %s: %s", destination.host, error.problem.value, error.detail)
        self._pace.failed(destination.url, destination.host, error)

    def _destination(self, url: str) -> _Destination:
        """Raises FetchFailed for a URL that is not fetched, whatever its host is."""
        if problem := malformed(url):
            raise FetchFailed(FetchProblem.URL_REFUSED, problem)
        parts = urlsplit(url)
        local = self._limits.reach.loopback and is_loopback(url)
        if parts.scheme != "https" and not (local and parts.scheme == "http"):
            raise FetchFailed(FetchProblem.URL_REFUSED, "It must use https.")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        usual = parts.scheme == "https" and port in self._limits.ports
        if not usual and not self._limits.reach.loopback:
            raise FetchFailed(FetchProblem.URL_REFUSED, f"Port {port} is not among authserver.fetch_ports.")
        host = parts.netloc.rpartition(":")[0] if parts.port is not None else parts.netloc
        return _Destination(
            url=url,
            scheme=parts.scheme,
            host=host.lower(),
            port=port,
            target=target_of(parts.path, parts.query),
            only_loopback=not usual,
        )

    def _check(self, destination: _Destination, address: Address) -> None:
        """Raises FetchFailed unless this address of the destination may be reached."""
        problem = self._limits.reach.problem(address)
        if problem is None and destination.only_loopback and not is_loopback_address(address):
            problem = "not loopback, so http and other ports are refused"
        if problem is not None:
            raise FetchFailed(FetchProblem.ADDRESS_REFUSED, f"{destination.host} is {address}: {problem}")

    def _trusted(self) -> SSLContext:
        if self._context is None:
            self._context = trusting()
        return self._context


# What `freshness` reads, for an answer 304 that does not repeat it.
_KEPT_HEADERS = ("cache-control", "expires", "date", "vary", "etag", "last-modified")
_Key = tuple[DocumentKind[Any], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Destination:
    """A URL that may be tried. `only_loopback`: because of its scheme or port, nothing else is reached."""

    url: str
    scheme: str
    host: str
    port: int
    target: str
    only_loopback: bool


@dataclass(slots=True, kw_only=True)
class _Kept(Generic[T]):
    """A document in the cache.

    `serves_failures_only`: its server says that it must not be kept. `is_suspended`: its server has answered otherwise
    since.
    """

    value: T
    size: int
    headers: Mapping[str, str]
    validators: Mapping[str, str]
    confirmed_at: float
    fresh_until: float
    last_good_until: float
    refetch_from: float
    serves_failures_only: bool
    is_suspended: bool = False

    def serves(self, now: float, *, again: bool = False, ahead: int = 0) -> bool:
        if again and now >= self.refetch_from:
            return False
        return now + ahead < self.fresh_until and not self.is_suspended

    def is_last_good(self, now: float) -> bool:
        return self.fresh_until <= now < self.last_good_until and not self.is_suspended

    def document(self, now: float) -> Document[T]:
        return Document(value=self.value, age=now - self.confirmed_at, is_last_good=now >= self.fresh_until)


class _Cache:
    """The documents that were used last. Its user holds a lock."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, _Kept[Any]] = OrderedDict()
        self._size = 0

    def find(self, key: _Key) -> _Kept[Any] | None:
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def keep(self, key: _Key, kept: _Kept[Any]) -> None:
        self.drop(key)
        self._kept[key] = kept
        self._size += kept.size
        while len(self._kept) > MAXIMUM_DOCUMENTS or self._size > MAXIMUM_DOCUMENTS_SIZE:
            self.drop(next(iter(self._kept)))

    def drop(self, key: _Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= kept.size


class _Places:
    """How many threads fetch at once, and how many may wait: the others stay free."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken: dict[str, int] = {}
        self._waiting = 0
        self._changed = threading.Condition()

    @contextmanager
    def of(self, host: str, deadline: float) -> Iterator[None]:
        """A place for a request to this host. Raises FetchFailed if there is none before the deadline."""
        with self._changed:
            if not self._is_free(host):
                with self.waiting():
                    while not self._is_free(host):
                        if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                            raise FetchFailed(
                                FetchProblem.BUSY, "no place became free in time", seconds_to_wait=1
                            )
            self._taken[host] = self._taken.get(host, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._taken[host] -= 1
                if not self._taken[host]:
                    del self._taken[host]
                self._changed.notify_all()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait within this. Raises FetchFailed if as many as may wait already do."""
        with self._changed:
            if self._waiting >= self._limits.waiting:
                raise FetchFailed(FetchProblem.BUSY, "too many wait for others", seconds_to_wait=1)
            self._waiting += 1
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1

    def _is_free(self, host: str) -> bool:
        return (
            sum(self._taken.values()) < self._limits.at_once
            and self._taken.get(host, 0) < self._limits.at_once_per_host
        )


@dataclass(slots=True)
class _Failures:
    """`is_permanent`: whether the last one was."""

    count: int = 0
    until: float = 0.0
    is_permanent: bool = False


class _Pace:
    """Lets what failed wait: a URL longer each time, and a host after several failures within a minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._urls: OrderedDict[str, _Failures] = OrderedDict()
        # Those of a host that gave no answer, and of one that gave bad ones.
        self._silent: OrderedDict[str, _Failures] = OrderedDict()
        self._bad: OrderedDict[str, _Failures] = OrderedDict()

    def check(self, url: str, host: str) -> None:
        """Raises FetchFailed while one of them must wait."""
        with self._lock:
            now = self._clock()
            failures = self._urls.get(url)
            seconds = failures.until - now if failures else 0.0
            for of_hosts, maximum in ((self._silent, MAXIMUM_FAILURES), (self._bad, MAXIMUM_BAD_ANSWERS)):
                of_host = of_hosts.get(host)
                if of_host is not None and of_host.count >= maximum:
                    seconds = max(seconds, of_host.until - now)
        if seconds > 0:
            raise FetchFailed(
                FetchProblem.PACED,
                "it failed before and waits",
                seconds_to_wait=math.ceil(seconds),
                was_permanent=failures is not None and failures.is_permanent,
            )

    def failed(self, url: str, host: str, error: FetchFailed) -> None:
        """Count a failure; the server may ask for a longer pause."""
        with self._lock:
            now = self._clock()
            of_url = _remembered(self._urls, url)
            pause = min(MAXIMUM_PAUSE, FIRST_PAUSE * 2 ** min(of_url.count, 10))
            of_url.count += 1
            of_url.until = now + max(pause, error.seconds_to_wait)
            of_url.is_permanent = not error.is_temporary
            of_host = _remembered(self._silent if error.problem in _OF_THE_HOST else self._bad, host)
            if now >= of_host.until:
                of_host.count, of_host.until = 0, now + FAILURE_WINDOW
            of_host.count += 1

    def succeeded(self, url: str) -> None:
        """Forget the failures of a URL; those of its host count on, so that no success pays for them."""
        with self._lock:
            self._urls.pop(url, None)


def _remembered(failures: OrderedDict[str, _Failures], name: str) -> _Failures:
    found = failures.setdefault(name, _Failures())
    failures.move_to_end(name)
    if len(failures) > MAXIMUM_REMEMBERED:
        failures.popitem(last=False)
    return found
