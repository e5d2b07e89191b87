"""Sends events to syslog (RFC 5424), over TLS (RFC 5425), TCP (RFC 6587, 3.4.1), UDP (RFC 5426) or a local socket."""

from __future__ import annotations

import json
import select
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from authserver.api import LOOPBACK_HOSTS, Event, event_as_json, hookimpl

# The length in bytes that every receiver should accept (RFC 5425, 4.3.1).
MAXIMUM_MESSAGE = 8_192
# The numbers of the facilities (RFC 5424, 6.2.1).
FACILITIES = {"auth": 4, "daemon": 3, "authpriv": 10, "audit": 13, **{f"local{n}": 16 + n for n in range(8)}}
_WARNING, _INFORMATIONAL = 4, 6
_PORTS = {"udp": 514, "tcp": 601, "tls": 6514}


@dataclass(eq=False)
class SyslogEvents:
    """Write each event as one message with a line of JSON to a syslog server.

    Syslog confirms nothing. Over TCP and TLS an event that cannot be sent is sent again; an event is lost if the receiver
    loses it, or has not read it when the connection breaks. Over UDP every event may be lost.

    Attributes:
        address: `tls://host:6514`, `tcp://host:601`, `udp://host:514` or `unix:/dev/log`. A production server accepts only
            TLS to another machine.
        facility: the facility of the messages: auth, authpriv, audit, daemon or local0 to local7.
        app_name: the name of this server in the messages.
        timeout: seconds for one connection or message.
        ca_file: the path of the certificates to trust instead of those of the system.
    """

    address: str
    facility: str = "audit"
    app_name: str = "authserver"
    timeout: float = 5.0
    ca_file: str = ""
    _socket: socket.socket | None = field(init=False, repr=False, default=None)
    _context: ssl.SSLContext | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.facility not in FACILITIES:
            raise ValueError(f"facility: must be one of {', '.join(FACILITIES)}")
        if not 1 <= len(self.app_name) <= 48 or not all("!" <= each <= "~" for each in self.app_name):
            raise ValueError("app_name: must be 1 to 48 visible ASCII characters without spaces")
        if not 0.1 <= self.timeout <= 60:
            raise ValueError("timeout: must be 0.1 to 60")
        try:
            parts = urlsplit(self.address)
            self._scheme, self._host, self._path = parts.scheme, parts.hostname or "", parts.path
            self._port = parts.port or _PORTS.get(self._scheme, 0)
        except ValueError:
            self._scheme = ""
        is_remote = self._scheme in _PORTS and self._host and not self._path.strip("/")
        if not is_remote and not (self._scheme == "unix" and self._path.startswith("/")):
            raise ValueError(
                "address: must be such as tls://logs.example.com:6514, tcp://[::1]:601, udp://127.0.0.1:514 or unix:/dev/log"
            )
        if self.ca_file and self._scheme != "tls":
            raise ValueError("ca_file: is for tls; remove it")

    @property
    def insecure(self) -> tuple[str, ...]:
        """The setting that a production server refuses: events that leave the machine unencrypted."""
        local = self._scheme == "unix" or {self._host, f"[{self._host}]"} & LOOPBACK_HOSTS
        if self._scheme == "tls" or local:
            return ()
        return (
            "address: events leave this machine unencrypted; use tls://, or a syslog server on this machine",
        )

    def prepare(self) -> None:
        """Read the certificates; nothing is sent yet. Raises ValueError."""
        self._hostname = socket.gethostname()[:255] or "-"
        if self._scheme == "tls":
            try:
                self._context = ssl.create_default_context(cafile=self.ca_file or None)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(f"ca_file: cannot be used: {error}") from None

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @hookimpl
    def deliver(self, events: Sequence[Event]) -> None:
        """Send the events. Raises OSError."""
        try:
            for event in events:
                self._send(self._message(event))
            if self._is_stream and self._was_closed():
                # It is unknown how much the receiver has read.
                raise ConnectionResetError("the syslog server closed the connection")
        except OSError:
            self.close()
            raise

    @property
    def _is_stream(self) -> bool:
        return self._scheme in ("tcp", "tls")

    def _message(self, event: Event) -> bytes:
        """The message of an event (RFC 5424, 6). A message that would be too long has no decisions and details."""
        severity = _WARNING if event.type.is_refusal else _INFORMATIONAL
        described = event_as_json(event)
        head = (
            f"<{FACILITIES[self.facility] * 8 + severity}>1 {described['at']} {self._hostname} {self.app_name} - "
            f"{event.type.value} - "
        )
        message = head + json.dumps({name: value for name, value in described.items() if value})
        if len(message) > MAXIMUM_MESSAGE:
            for name in ("decisions", "details"):
                del described[name]
            message = head + json.dumps(
                {name: value for name, value in described.items() if value} | {"cut": True}
            )
        return message.encode("ascii")

    def _send(self, message: bytes) -> None:
        if self._socket is None or (self._is_stream and self._was_closed()):
            self.close()
            self._socket = self._connect()
        if self._is_stream:
            # RFC 6587, 3.4.1: the length comes first, so that one event can never look like two.
            self._socket.sendall(b"%d %b" % (len(message), message))
        else:
            self._socket.send(message)

    def _was_closed(self) -> bool:
        """Whether the receiver has closed the connection. It sends nothing otherwise."""
        if self._socket is None:
            return True
        readable, _, _ = select.select([self._socket], [], [], 0)
        if not readable:
            return False
        self._socket.settimeout(0)
        try:
            return self._socket.recv(1024) == b""
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            self._socket.settimeout(self.timeout)

    def _connect(self) -> socket.socket:
        if self._scheme == "unix":
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            connection.settimeout(self.timeout)
            connection.connect(self._path)
            return connection
        address = self._host, self._port
        if self._scheme == "udp":
            family, kind, protocol, _, where = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
            connection = socket.socket(family, kind, protocol)
            connection.connect(where)
            return connection
        connection = socket.create_connection(address, self.timeout)
        if self._context is None:
            return connection
        try:
            return self._context.wrap_socket(connection, server_hostname=self._host)
        except BaseException:
            connection.close()
            raise
