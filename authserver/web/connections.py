"""waitress, stricter about HTTP and with bounds on who may hold its connections.

What it adds to waitress:

- a request that two servers could read differently is refused, and its connection is closed (RFC 9112, 11.2);
- a path is what was sent: two slashes are not one, and an encoded slash is none;
- its own refusals are JSON with the headers of all answers, and say nothing of what was sent or of what runs here;
- a whole request must arrive in time, not just a byte now and then; time is measured by a clock that nobody sets;
- an address with too many connections loses the one that has waited longest, and so does the server when it has too many
  in all; if all connections of an address wait for answers, one more gets 503. Trusted proxies have no such limit;
- a warning that requests wait for threads is logged once a minute, not for each request;
- an answer that is the same for everybody is sent by the thread that waits for connections (`web.shared_answers`);
- requests with a password wait for their turn without a thread (`web.lane`);
- no more requests are worked on at once than keep the process busy (`web.concurrency`);
- several processes get the same number of connections (`web.connection_counts`);
- at its end, the server answers each request that was sent before it stops (`Running`).
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from threading import get_ident
from types import MappingProxyType
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError, unquote_bytes_to_wsgi
from waitress.server import TcpWSGIServer, UnixWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import build_http_date

from authserver.engine.sources import network_of
from authserver.web.concurrency import BRISK, Concurrency
from authserver.web.connection_counts import ConnectionCounts
from authserver.web.lane import Lane

# Seconds in which a new connection may still send a request to a server that ends.
_SETTLING = 0.2
# Seconds between two checks of a server that ends.
_ENDING_LOOK = 0.05
# Seconds between two lines in the log that say the same.
TOLD_EVERY = 60.0
# Connections kept free below the limit of waitress, at which it would stop accepting.
_RESERVE = 8
# Seconds for which a new connection is left to a process that has fewer; if that one is busy or hangs, it is taken then.
_LEFT = 0.002
# Seconds between two looks at requests that wait for a thread.
_LOOK = 0.005
# Seconds of a pause when no descriptor can be had.
_PAUSE = 0.02
# Seconds after which a request that waits for a thread is refused, so that its client knows within three; and those after
# which requests that come are refused at once, because they would wait as long.
QUEUE_SECONDS, BEHIND_SECONDS = 2.5, 1.5
_TOO_MANY = "there are more requests than this process can answer, so some get 503"
_ONE_TOO_MANY = "an address asks more at once than connections_per_address allows, so some of that gets 503"
_ERRORS = {
    400: "This is not a request of HTTP/1.0 or HTTP/1.1 that can be read in one way only.",
    413: "The body is too long.",
    431: "The first line and the headers are too long.",
    500: "The server failed to answer this request.",
    501: "This transfer coding is not supported.",
}
# What this server adds, unless the application has it.
_OF_SERVER = frozenset({"date", "server"})
_HEADERS = [
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
]
_POSTPONED = [*_HEADERS, ("Retry-After", "2")]
_POSTPONED_BODY = (
    b'{"error":"temporarily_unavailable",'
    b'"error_description":"The server has more requests than it can answer now. Try again later."}'
)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many connections an address may hold, and for how long.

    Attributes:
        connections_per_address: how many an address may hold, or a /64 network of IPv6; 0 for any number.
        request_time_limit: seconds within which a whole request has arrived.
        trusts: whether an address is a trusted proxy's, which may hold any number.
        with_password: the paths to which passwords are sent.
        client_of: the address of the client, from that of the peer and the headers as WSGI names them.
    """

    connections_per_address: int
    request_time_limit: int
    trusts: Callable[[str], bool]
    with_password: Set[str] = frozenset()
    client_of: Callable[[str, Mapping[str, str]], str] = lambda peer, headers: peer


@dataclass(frozen=True, slots=True)
class Ready:
    """A whole answer that is there already; also a WSGI application, for servers that know no other."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    def __call__(self, _environ: object, start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response(self.status, self.headers)
        return [self.body]


class Parser(HTTPRequestParser):
    """Reads one request; refuses what RFC 9112 lets a server refuse because others may read it otherwise.

    Attributes:
        arrived: when it was complete, by the monotonic clock.
        is_last: whether nothing had come behind it by then.
        ready: its answer, if that is there already.
    """

    arrived = 0.0
    is_last = False
    ready: Ready | None = None

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if self.completed:
            self.arrived, self.is_last = time.monotonic(), consumed == len(data)
        if self.error:
            # Or waitress would ask for the body of a request that it has refused.
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Raises ParsingError."""
        if b"\r\n " in header_plus or b"\r\n\t" in header_plus:
            raise ParsingError("A header is folded")  # 5.2
        if b"\0" in header_plus:
            raise ParsingError("There is a NUL")  # RFC 9110, 5.5
        super().parse_header(header_plus)
        if self.version not in ("1.0", "1.1"):
            raise ParsingError("It is another version of HTTP")
        if (self.chunked and "CONTENT_LENGTH" in self.headers) or "TRANSFER_ENCODING" in self.headers:
            raise ParsingError("There are two lengths, or a coding that HTTP/1.0 has not")  # 6.1
        host = self.headers.get("HOST")
        if (host is None and self.version == "1.1") or (host is not None and "," in host):
            raise ParsingError("There is no host, or more than one")  # 3.2
        if self.proxy_netloc and self.proxy_netloc.lower() != (host or "").lower():
            raise ParsingError("The target names another host")  # 3.2.2
        target, _, _ = self.request_uri.partition("?")
        if "%2f" in target.lower():
            # An encoded slash separates nothing (RFC 3986, 2.2), so it stays as it is.
            raw = self.path_of(target).replace("%2f", "%252f").replace("%2F", "%252F")
            self.path = unquote_bytes_to_wsgi(raw.encode("latin-1"))

    def path_of(self, target: str) -> str:
        """The path of a request's target without its query, as it was sent."""
        whole, _, _ = target.partition("#")
        return (
            whole.removeprefix(f"{self.proxy_scheme}://{self.proxy_netloc}") if self.proxy_netloc else whole
        )


@lru_cache(maxsize=2)
def _date(seconds: int) -> str:
    """The header of the same name, for all answers of a second."""
    written: str = build_http_date(seconds)
    return written


class Task(WSGITask):
    """Answers one request."""

    wrote_header: bool

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        # waitress has the whole body, in memory or in a file. WebOb need not copy it to read it again.
        environ["webob.is_body_seekable"] = True
        if self.request.path.startswith("//"):
            # waitress makes one slash of several.
            environ["PATH_INFO"] = self.request.path
        return environ

    def execute(self) -> None:
        """Answer it, or refuse it at once if it has waited for a thread for so long that its client may be gone.

        The liveness endpoint is always answered.
        """
        if self.request.ready:
            self._send(self.request.ready)
        elif time.monotonic() - self.request.arrived > QUEUE_SECONDS and not asks_whether_alive(self.request):
            self.channel.server.tell(_TOO_MANY)
            self._send(Ready("503 Service Unavailable", _POSTPONED, _POSTPONED_BODY))
        else:
            super().execute()

    def _send(self, ready: Ready) -> None:
        """Send a whole answer that no application begins."""
        self.status, self.content_length, self.complete = ready.status, len(ready.body), True
        self.response_headers += ready.headers
        self.write(b"" if self.request.command == "HEAD" else ready.body)

    def write(self, data: bytes) -> None:
        """Send some of the answer; a whole one together with its head, by one call of the system."""
        if self.wrote_header or not self.complete or not self.has_body or len(data) != self.content_length:
            super().write(data)
            return
        self.channel.write_soon(self.build_response_header() + data)
        self.wrote_header, self.content_bytes_written = True, len(data)

    def build_response_header(self) -> bytes:
        """The status and the headers; at the end of the process the connection is closed after it.

        waitress looks at the headers several times, to spell and to sort them. It does so only where it has to decide
        about the connection or about how the content ends.
        """
        server = self.channel.server
        if server.is_ending:
            # So that the client sends its next request to another process (RFC 9112, 9.6).
            self.request.headers["CONNECTION"] = "close"
        names = {name.lower() for name, _ in self.response_headers}
        is_usual = self.version == "1.1" and self.has_body and "content-length" in names
        if not is_usual or self.close_on_finish or names & _OF_SERVER or "CONNECTION" in self.request.headers:
            header: bytes = super().build_response_header()
            return header
        lines = [f"{name}: {value}" for name, value in self.response_headers]
        if server.adj.ident:
            lines.append(f"Server: {server.adj.ident}")
        return "\r\n".join(
            [f"HTTP/1.1 {self.status}", *lines, f"Date: {_date(int(self.start_time))}", "\r\n"]
        ).encode("latin-1")


class RefusingTask(ErrorTask):
    """Answers what waitress itself refuses, or what the application failed to answer, and closes the connection."""

    def execute(self) -> None:
        """Send the refusal as JSON, in words that quote nothing of the request."""
        error = self.request.error
        code = "server_error" if error.code == 500 else "invalid_request"
        body = f'{{"error":"{code}","error_description":"{_ERRORS[error.code]}"}}'.encode()
        log.info("refused before it was read: %d %s", error.code, error.reason)
        self.status = f"{error.code} {error.reason}"
        self.response_headers += _HEADERS
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(b"" if getattr(self.request, "command", "") == "HEAD" else body)


class Channel(HTTPChannel):
    """One connection."""

    task_class = Task
    error_task_class = RefusingTask
    parser_class = Parser
    requests: list[Parser]
    close_when_flushed: bool
    _reading: Parser | None = None
    _began = _active = 0.0

    def __init__(
        self, server: Any, connection: socket.socket, address: Any, *more: Any, **named: Any
    ) -> None:
        self.is_one_too_many: bool = server.accepts_one_too_many
        self.network = network_of(address[0])
        super().__init__(server, connection, address, *more, **named)

    def add_channel(self, channels: Any = None) -> None:
        super().add_channel(channels)
        self.server.of_network[self.network].add(self)

    def del_channel(self, channels: Any = None) -> None:
        super().del_channel(channels)
        of_network = self.server.of_network
        of_network[self.network].discard(self)
        if not of_network[self.network]:
            del of_network[self.network]

    @property
    def last_activity(self) -> float:
        """When something came or went here, in seconds of the monotonic clock.

        waitress sets it to the time on the wall, which may be set an hour ahead while a request is on its way.
        """
        return self._active

    @last_activity.setter
    def last_activity(self, wall: float) -> None:
        self._active = time.monotonic()

    def received(self, data: bytes) -> bool:
        done: bool = super().received(data)
        if self.request is not self._reading:
            self._reading, self._began = self.request, time.monotonic()
        # Another thread may remove the first one meanwhile.
        if any(request.ready for request in self.requests[:1]):
            self.service()
        return done

    def refuse(self) -> None:
        """Refuse the request that has arrived, at once and in this thread; and close a connection that is one too many."""
        if self.close_when_flushed:
            return
        self.server.tell(_ONE_TOO_MANY if self.is_one_too_many else _TOO_MANY)
        request = self.requests[0]
        # What was sent behind it, before this answer could be read, is not looked at.
        self.close_when_flushed = (
            self.is_one_too_many
            or len(self.requests) > 1
            or request.version != "1.1"
            or request.headers.get("CONNECTION", "").lower() == "close"
        )
        with suppress(ClientDisconnected):
            # In one piece: there may be thousands a second.
            self.write_soon(_postponed(request.command == "HEAD", self.close_when_flushed))
        request.close()
        self.requests = []

    @property
    def queued_since(self) -> float | None:
        """Since when the request that has arrived waits for a thread; None if there is none any more."""
        requests = self.requests
        return requests[0].arrived if requests else None

    @property
    def waits_since(self) -> float | None:
        """Since when the server has been waiting for a request: for the rest of it, or for the next; None if it is not.

        In seconds of the monotonic clock.
        """
        if self.requests or self.will_close:
            return None
        return self._began if self.request is not None else self.last_activity

    @property
    def has_unread(self) -> bool:
        """Whether something has arrived that the server has not read yet."""
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    @property
    def is_unused(self) -> bool:
        """Whether no request is on its way here, and no answer is on its way back."""
        return (
            not self.requests
            and self.request is None
            and not self.total_outbufs_len
            and time.monotonic() - self.last_activity >= _SETTLING
        )


@cache
def _postponed(is_head: bool, is_last: bool) -> bytes:
    """A whole answer 503."""
    headers = [*_POSTPONED, ("Content-Length", str(len(_POSTPONED_BODY)))]
    if is_last:
        headers.append(("Connection", "close"))
    lines = ["HTTP/1.1 503 Service Unavailable", *(f"{name}: {text}" for name, text in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if is_head else _POSTPONED_BODY)


class Listener:
    """What the servers for both kinds of sockets have in common; to be mixed into one of waitress'.

    Attributes:
        at_once, counts: see `listen`.
        leaves_until: until when no connection is accepted, so that another process can do that, by the monotonic clock.
        thread: the one that waits for connections, as soon as there is one.
    """

    channel_class = Channel
    active_channels: dict[int, Channel]
    accepting: bool
    adj: Adjustments
    bounds: Bounds
    task_dispatcher: Dispatcher
    _map: dict[int, Any]
    accepts_one_too_many = is_ending = False
    at_once: Callable[[dict[str, Any]], Ready | None] | None = None
    counts: ConnectionCounts | None = None
    leaves_until = 0.0
    thread: int | None = None
    _told: Mapping[str, float] = MappingProxyType({})
    _cleans_at = 0.0

    @cached_property
    def of_network(self) -> defaultdict[str | None, set[Channel]]:
        """The connections of each network that has some."""
        return defaultdict(set)

    def readable(self) -> bool:
        """Whether connections are accepted; waitress asks each time before it waits for something to happen."""
        now = time.monotonic()
        if now >= self._cleans_at:
            self._cleans_at = now + self.adj.cleanup_interval
            self.maintenance(now)
        if self.counts and not self.is_ending:
            self.counts.tell(len(self._map))
            if now < self.leaves_until:
                return False
        if self.accepting and len(self._map) >= self.adj.connection_limit:
            self.tell("all connections of connection_limit are taken, so others wait until they are accepted")
            return False
        return bool(self.accepting)

    def maintenance(self, now: float) -> None:
        """Close what waits for too long.

        Args:
            now: seconds of the monotonic clock.
        """
        super().maintenance(now)  # type: ignore[misc]  # of the class that this is mixed into
        for channel in self.active_channels.values():
            since = channel.waits_since
            if (
                channel.request is not None
                and since is not None
                and since < now - self.bounds.request_time_limit
            ):
                channel.will_close = True

    def add_task(self, channel: Channel) -> None:
        """Have a thread answer the request that has arrived here, unless it is answered or better refused at once."""
        request = channel.requests[0]
        if self._finds_answer(channel, request):
            # The channel sends the answer as soon as it may.
            return
        source = self._source_of(channel, request)
        is_refused = (
            channel.is_one_too_many
            or self.task_dispatcher.is_behind
            or (source is not None and self.task_dispatcher.is_behind_with_passwords(source))
        )
        if is_refused and not request.error and not asks_whether_alive(request):
            channel.refuse()
        elif source is not None:
            self.task_dispatcher.add_with_password(channel, source)
        else:
            super().add_task(channel)  # type: ignore[misc]  # likewise

    def _finds_answer(self, channel: Channel, request: Parser) -> bool:
        """Whether this thread, which waits for connections, knows the answer, and need wait for nothing to send it.

        Requests in a row are left to other threads, so that nobody keeps this one busy.
        """
        came_alone = request is channel.request and request.is_last
        is_free = not (channel.total_outbufs_len or channel.close_when_flushed or channel.is_one_too_many)
        if self.at_once and came_alone and is_free and not request.error and request.command == "GET":
            request.ready = self.at_once(Task(channel, request).get_environment())
        return request.ready is not None

    def pull_trigger(self) -> None:
        """Wake the thread that waits for connections, unless it is this one."""
        if get_ident() != self.thread:
            super().pull_trigger()  # type: ignore[misc]  # of the class that this is mixed into

    def _source_of(self, channel: Channel, request: Parser) -> str | None:
        """The network from which a password is sent, "" if it has none; None for other requests."""
        if request.error or request.command != "POST" or request.path not in self.bounds.with_password:
            return None
        return network_of(self.bounds.client_of(channel.addr[0], request.headers)) or ""

    def handle_accept(self) -> None:
        """Accept a connection, unless another process has fewer and was not given the time to do so."""
        now, counts = time.monotonic(), self.counts
        was_left = self.leaves_until <= now < self.leaves_until + _LEFT
        if counts and not (was_left or self.is_ending) and counts.is_above_another(len(self._map)):
            self.leaves_until = now + _LEFT
        else:
            self.leaves_until = 0.0
            super().handle_accept()  # type: ignore[misc]  # of the class that this is mixed into

    def accept(self) -> Any:
        """A new connection, for which another one may be closed; None if there is none."""
        self.accepts_one_too_many = False
        try:
            accepted = super().accept()  # type: ignore[misc]  # likewise
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._make_room(error)
            return None
        if accepted is None:
            return None
        if len(self._map) >= self.adj.connection_limit - _RESERVE:
            close_longest_waiting(
                channel
                for channel in self.active_channels.values()
                if not self.bounds.trusts(channel.addr[0])
            )
        connection, address = accepted
        peer = self.fix_addr(address)[0]  # type: ignore[attr-defined]  # likewise
        if self.bounds.connections_per_address and not self.bounds.trusts(peer):
            of_peer = [
                channel for channel in self.of_network.get(network_of(peer), ()) if not channel.will_close
            ]
            if not self._has_room(channel for channel in of_peer if not channel.is_one_too_many):
                # On each of them an answer is awaited: as many again get one at once.
                self.accepts_one_too_many = True
                if not self._has_room(channel for channel in of_peer if channel.is_one_too_many):
                    connection.close()
                    return None
        return accepted

    def _has_room(self, channels: Iterable[Channel]) -> bool:
        """Whether an address that holds these may have one more; one that waits for a request is given up for it."""
        channels = list(channels)
        return len(channels) < self.bounds.connections_per_address or close_longest_waiting(channels, 0.0)

    def tell(self, problem: str) -> None:
        """Log it, unless the same was logged less than a minute ago."""
        now = time.monotonic()
        if now - self._told.get(problem, -TOLD_EVERY) >= TOLD_EVERY:
            self._told = {**self._told, problem: now}
            log.warning("%s", problem)

    def _make_room(self, error: OSError) -> None:
        """No file descriptor is left: close a connection that waits, and log that at most once a minute."""
        self.tell(
            f"{error.strerror}: connections that wait are closed for new ones; let this process open more files (LimitNOFILE)"
        )
        if not close_longest_waiting(self.active_channels.values(), 0.0):
            # The new connection is accepted at the next attempt, at once.
            time.sleep(_PAUSE)


class TcpListener(Listener, TcpWSGIServer):
    """On a TCP port."""


class UnixListener(Listener, UnixWSGIServer):
    """On a Unix socket, whose peers have no address and count as one."""


class WithPassword:
    """A request with a password, in the queue for threads."""

    def __init__(self, channel: Channel, dispatcher: Dispatcher) -> None:
        self._channel, self._dispatcher = channel, dispatcher
        # That it has waited for others before is no sign that threads are missing.
        self.queued_since = time.monotonic()

    def service(self) -> None:
        """Answer it, and let the next one have its turn."""
        try:
            self._channel.service()
        finally:
            self._dispatcher.end_with_password()

    def cancel(self) -> None:
        """The process ends."""
        self._channel.cancel()


class Dispatcher(ThreadedTaskDispatcher):
    """Gives requests to threads.

    Args:
        longest: how many may wait for one; then others are refused at once, while there are connections left for that.
        passwords: how many requests with a password have a thread at once.
        clock: seconds since whenever.
    """

    def __init__(
        self, longest: int = 1_000, passwords: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._longest, self._clock = longest, clock
        self._lane = Lane[Channel](passwords, longest)
        self._concurrency = Concurrency(1)
        self._looks_at = 0.0
        self._waited = self._most = 0
        self._since = 0.0

    def set_thread_count(self, count: int) -> None:
        """Start or end threads until there are so many."""
        self._concurrency = Concurrency(count)
        super().set_thread_count(count)

    def handler_thread(self, thread_no: int) -> None:
        """What each thread does: answer one request after the other, until the thread is to end."""
        while (task := self._next(thread_no)) is not None:
            try:
                task.service()
            except BaseException:
                self.logger.exception("Exception when servicing %r", task)

    def _next(self, thread: int) -> Any:
        """The next request for this thread, as soon as there is one and it may begin; None if the thread is to end."""
        with self.lock:
            self._concurrency.end(thread)
            while not (self.stop_count or (self.queue and self._concurrency.room)):
                self.active_count -= 1
                self.queue_cv.wait()
                self.active_count += 1
            if self.stop_count:
                self.active_count -= 1
                self.stop_count -= 1
                self.threads.discard(thread)
                self.thread_exit_cv.notify()
                return None
            self._concurrency.begin(thread)
            return self.queue.popleft()

    def look(self) -> bool:
        """Let a waiting request begin if others take long. Returns whether requests wait, so that it is called again."""
        if not self.queue:
            return False
        if (now := time.monotonic()) < self._looks_at:
            return True
        self._looks_at = now + _LOOK
        with self.lock:
            if self.queue:
                self._concurrency.look(self.queue[0].queued_since)
                self._wake()
        return True

    def _wake(self) -> None:
        """Wake a thread for each request of the queue that may begin."""
        if self.queue and (room := self._concurrency.room):
            self.queue_cv.notify(room)

    @property
    def is_behind(self) -> bool:
        """Whether so many requests wait, or one for so long, that no others should wait behind them."""
        with self.lock:
            if len(self.queue) >= self._longest:
                return True
            first: float | None = self.queue[0].queued_since if self.queue else None
        return first is not None and time.monotonic() - first > BEHIND_SECONDS

    def is_behind_with_passwords(self, source: str) -> bool:
        """The same of requests with a password from one source, which wait for each other."""
        with self.lock:
            return self._lane.is_full(source, time.monotonic() - BEHIND_SECONDS)

    def add_with_password(self, channel: Channel, source: str) -> None:
        """Queue a request with a password, unless it has to wait for others: then without a thread."""
        with self.lock:
            if self._lane.enter(channel, source, channel.requests[0].arrived):
                self._queue(WithPassword(channel, self))

    def end_with_password(self) -> None:
        """One of them was answered: the next one is queued."""
        with self.lock:
            if (channel := self._lane.leave()) is not None:
                self._queue(WithPassword(channel, self))

    def _queue(self, task: WithPassword) -> None:
        self.queue.append(task)
        self._wake()

    def add_task(self, task: Any) -> None:
        """Queue a request; count it if no thread is free."""
        with self.lock:
            self.queue.append(task)
            self._wake()
            waiting = len(self.queue) - (len(self.threads) - self.stop_count - self.active_count)
            if waiting > 0:
                self._note(waiting)

    def _note(self, waiting: int) -> None:
        """Count a request that has to wait, and log the number at most once a minute."""
        now = self._clock()
        if not self._waited:
            self._since = now
        self._waited, self._most = self._waited + 1, max(self._most, waiting)
        if now - self._since >= TOLD_EVERY:
            log.warning(
                "%d requests of the last %d s waited for a thread, up to %d at once; raise threads if processors are idle, or "
                "run more processes",
                self._waited,
                now - self._since,
                self._most,
            )
            self._waited = self._most = 0


def listen(
    application: Callable[..., Any],
    adjustments: Adjustments,
    sockets: Iterable[socket.socket],
    bounds: Bounds,
    passwords: int = 1,
    at_once: Callable[[dict[str, Any]], Ready | None] | None = None,
    counts: ConnectionCounts | None = None,
) -> Running:
    """A server that accepts connections; its `run` answers them until its `end`.

    Args:
        adjustments: the settings of waitress.
        sockets: that have their addresses.
        passwords: how many requests with a password have a thread at once.
        at_once: the answer to a request of this environ of WSGI, if it is there without waiting for anything. It is asked
            in the thread that waits for connections; None leaves the request to `application` in another one.
        counts: where other processes say how many connections they have, if there are others.

    Raises:
        OSError: an address was taken meanwhile.
    """
    channels: dict[int, Any] = {}
    dispatcher = Dispatcher(max(1, adjustments.connection_limit // 4), passwords)
    common: dict[str, Any] = {"map": channels, "dispatcher": dispatcher, "adj": adjustments}
    listeners: list[Any] = [
        (UnixListener if item.family == socket.AF_UNIX else TcpListener)(
            application,
            _sock=item,
            bind_socket=False,
            sockinfo=(item.family, item.type, item.proto, item.getsockname()),
            **common,
        )
        for item in sockets
    ]
    for listener in listeners:
        listener.bounds, listener.at_once, listener.counts = bounds, at_once, counts
    dispatcher.set_thread_count(adjustments.threads)
    return Running(channels, adjustments, dispatcher, listeners)


class Running:
    """A server that runs, and that ends without losing a request.

    From the moment it is told to end, each answer asks to close its connection. Then it accepts no more connections,
    requests that are running or arriving are answered, unused connections are closed, and `run` returns.
    """

    def __init__(
        self,
        channels: dict[int, Any],
        adjustments: Adjustments,
        dispatcher: Dispatcher,
        listeners: Sequence[Any],
    ) -> None:
        self._channels, self._adjustments, self._dispatcher = channels, adjustments, dispatcher
        self._listeners = listeners
        self._ending: _Ending | None = None

    def run(self) -> None:
        """Answer requests until the end."""
        for listener in self._listeners:
            listener.thread = get_ident()
        try:
            while not self._has_ended():
                wasyncore.loop(
                    timeout=self._patience(),
                    use_poll=self._adjustments.asyncore_use_poll,
                    map=self._channels,
                    count=1,
                )
        except (SystemExit, KeyboardInterrupt):
            pass
        # The time limit of threads that still work on a request is over.
        self._dispatcher.shutdown(timeout=_SETTLING)
        wasyncore.close_all(self._channels)

    def _patience(self) -> float:
        """For how many seconds to wait, if nothing happens."""
        if self._dispatcher.look():
            return BRISK
        now = time.monotonic()
        if any(now < listener.leaves_until for listener in self._listeners):
            return _LEFT
        return _ENDING_LOOK if self._ending else float(self._adjustments.asyncore_loop_timeout)

    def end(self, *, accept: float, keep: float, limit: float) -> None:
        """Begin to end; a signal handler may call this. The first call counts.

        Args:
            accept: seconds in which new connections are still accepted.
            keep: seconds in which unused connections are left alone; they are closed after that.
            limit: seconds in which the requests that are there after that must end.
        """
        if self._ending is None:
            now = time.monotonic()
            self._ending = _Ending(now + accept, now + max(accept, keep), now + max(accept, keep) + limit)
            for listener in self._listeners:
                listener.is_ending = True
            self._listeners[0].trigger.pull_trigger()

    def _has_ended(self) -> bool:
        now = time.monotonic()
        if self._ending is None or now < self._ending.accepts_until:
            return False
        for listener in self._listeners:
            if listener.accepting:
                # Connections that the system has accepted for us would otherwise lose their requests.
                self._accept_all(listener)
                listener.accepting = False
                wasyncore.dispatcher.close(listener)
        if now >= self._ending.keeps_until:
            # A request that has arrived by now is answered.
            wasyncore.loop(
                timeout=0, use_poll=self._adjustments.asyncore_use_poll, map=self._channels, count=1
            )
            for channel in self._connections():
                if channel.is_unused:
                    channel.will_close = True
        left = self._connections()
        if left and now >= self._ending.ends_at:
            log.warning("%d requests are left without an answer: their time is over", len(left))
            return True
        return not left

    def _accept_all(self, listener: Any) -> None:
        before = -1
        while before < (now := len(self._channels)):
            before = now
            listener.handle_accept()

    def _connections(self) -> list[Channel]:
        return [channel for listener in self._listeners for channel in listener.active_channels.values()]


@dataclass(frozen=True, slots=True)
class _Ending:
    """When each step of the shutdown begins, by the monotonic clock."""

    accepts_until: float
    keeps_until: float
    ends_at: float


def close_longest_waiting(channels: Iterable[Channel], settling: float = _SETTLING) -> bool:
    """Close the connection on which the server has been waiting for longest; False if it waits on none of them.

    Args:
        settling: seconds that whoever has just connected is left to send a request.
    """
    settled = time.monotonic() - settling
    waiting = [
        (since, channel)
        for channel in channels
        if (since := channel.waits_since) is not None and since < settled
    ]
    for _, channel in sorted(waiting, key=lambda pair: pair[0]):
        if not channel.has_unread:
            channel.will_close = True
            return True
    return False


def asks_whether_alive(request: Parser) -> bool:
    """Whether it is answered always."""
    return bool(request.path.endswith("/health/live"))
