"""The client's address and scheme, as the proxies in front of this server report them.

It is worked out once, before anything else looks at the request, and written where WSGI has it. After that no header
about forwarding is left: nothing else reads one, and none of them can change a host.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from pyramid.config import Configurator

from authserver.settings import UNIX_PEER, ForwardingHeader, Settings

Address = IPv4Address | IPv6Address
# Where `web.headers` finds the name of a header that a trusted proxy sent and that cannot be read.
UNREADABLE = "authserver.unreadable_header"
# All headers that say where a request came from; the application sees none of them.
_HEADERS = ("FOR", "PROTO", "HOST", "PORT", "BY")
_SENT = ("FORWARDED", *(f"X_FORWARDED_{name}" for name in _HEADERS))
_NAMES = tuple(f"HTTP_{name}" for name in _SENT)
# An address with or without port; one of IPv6 is in brackets when it has a port. A zone says on which link of the
# machine that wrote it, so it means nothing here.
_NODE = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})(?:%[0-9A-Za-z._~-]{1,32})?\]|([0-9.]{7,15}))(?::[0-9]{1,5})?"
    r"|([0-9A-Fa-f:.]{2,45})(?:%[0-9A-Za-z._~-]{1,32})?"
)
# A pair of the header Forwarded and what ends it (RFC 7239, 4); an address with a colon is taken without quotes, too.
_PAIR = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\",;]+))[ \t]*([;,]|$)"
)
log = logging.getLogger(__name__)


class Unreadable(ValueError):
    """A header of a trusted proxy cannot be read; the message is its name."""


def includeme(config: Configurator) -> None:
    """Read from the settings which proxies are trusted."""
    config.registry.forwarding = Forwarding.of(config.registry.application.parts.settings)


@lru_cache(maxsize=1024)
def address_of(text: str) -> Address | None:
    """The address that a text of a proxy or of the WSGI server names; None if it names none.

    One of IPv4 that is embedded in IPv6 is that of IPv4, as sockets for both kinds report it.
    """
    match = _NODE.fullmatch(text)
    if match is None:
        return None
    try:
        address = ip_address(next(filter(None, match.groups())))
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Which proxies are trusted, and for how many hops.

    Attributes:
        networks: where trusted proxies are.
        unix: whether one is behind every connection through a Unix socket.
        hops: how many proxies there are at most one behind another.
        header: where they write addresses and schemes.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False
    hops: int = 1
    header: ForwardingHeader = ForwardingHeader.X_FORWARDED
    _told: set[str] = field(default_factory=set, compare=False, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Forwarding:
        """What the settings say."""
        return cls(
            networks=tuple(ip_network(text) for text in settings.trusted_proxies if text != UNIX_PEER),
            unix=UNIX_PEER in settings.trusted_proxies,
            hops=settings.trusted_proxy_hops,
            header=settings.forwarding_header,
        )

    def trusts(self, peer: str) -> bool:
        """Whether a trusted proxy has this address, of which WSGI servers have none for a Unix socket."""
        address = address_of(peer)
        return self.unix if address is None else self._has(address)

    def resolve(self, environ: MutableMapping[str, Any]) -> bool:
        """Put the client's address and scheme into the environ, and take out every header about forwarding.

        `UNREADABLE` is set if a trusted proxy sent what cannot be read: then neither is known.

        Returns:
            whether a trusted proxy sent the request.
        """
        peer = environ.get("REMOTE_ADDR") or ""
        sent = {name: environ.pop(name) for name in _NAMES if name in environ}
        client = None
        is_trusted = self.trusts(peer)
        if is_trusted:
            client = self._believed(environ, sent, peer)
        elif sent:
            self._tell_once(
                "untrusted",
                "ignored %s of %s, which is no trusted proxy; if it is yours: authserver.trusted_proxies = %s",
                self.header.name_of_address,
                peer or UNIX_PEER,
                address_of(peer) or UNIX_PEER,
            )
        if address := client or address_of(peer):
            environ["REMOTE_ADDR"] = environ["REMOTE_HOST"] = str(address)
        return is_trusted

    def client_of(self, peer: str, headers: Mapping[str, str]) -> str:
        """The client's address as `resolve` finds it; the peer's where it finds none.

        Args:
            headers: without `HTTP_`, otherwise as WSGI names them.
        """
        environ = {f"HTTP_{name}": headers[name] for name in _SENT if name in headers}
        environ["REMOTE_ADDR"] = peer
        self.resolve(environ)
        return environ["REMOTE_ADDR"]

    def _believed(self, environ: MutableMapping[str, Any], sent: dict[str, str], peer: str) -> Address | None:
        """The client's address by what the trusted proxy sent; None if it does not say, or if it cannot be read."""
        try:
            client, scheme = self._reported(sent)
        except Unreadable as error:
            environ[UNREADABLE] = str(error)
            return None
        if scheme:
            environ["wsgi.url_scheme"] = scheme
        if client is not None:
            environ.pop("REMOTE_PORT", None)
        elif "/health/" not in environ.get("PATH_INFO", ""):
            self._tell_once(
                "silent",
                "the trusted proxy %s does not say in %s whose request it passes on, so everybody has its address: let "
                "it send that header (docs/deploying.rst)",
                peer or UNIX_PEER,
                self.header.name_of_address,
            )
        return client

    def _reported(self, sent: dict[str, str]) -> tuple[Address | None, str]:
        """The client's address and scheme, None and "" if the proxy does not say. Raises Unreadable."""
        if self.header is ForwardingHeader.FORWARDED:
            return self._reported_by_standard(sent.get("HTTP_FORWARDED"))
        client = None
        if (value := sent.get("HTTP_X_FORWARDED_FOR")) is not None:
            client, _ = self._client(
                [entry.strip(' \t"') for entry in value.rsplit(",", self.hops)], "X-Forwarded-For"
            )
        return client, _scheme(sent.get("HTTP_X_FORWARDED_PROTO"), "X-Forwarded-Proto")

    def _reported_by_standard(self, value: str | None) -> tuple[Address | None, str]:
        """The same from the header of RFC 7239. The scheme is what that proxy says to which the client connected."""
        if value is None:
            return None, ""
        elements = list(_elements(value))
        client, position = self._client([element.get("for", "") for element in elements], "Forwarded")
        return client, _scheme(elements[position].get("proto"), "Forwarded")

    def _client(self, entries: list[str], name: str) -> tuple[Address, int]:
        """The address of the client, and which entry has it, counted from the last, which is -1.

        The last entry is the word of the proxy that is connected to us. If it names another trusted proxy, the one
        before is that proxy's word, and so on, for as many proxies as there are. What comes before is the client's own
        word. Raises Unreadable.
        """
        believed = entries[-self.hops :]
        for number, entry in enumerate(reversed(believed), start=1):
            address = address_of(entry)
            if address is None:
                break
            if number == len(believed) or not self._has(address):
                return address, -number
        raise Unreadable(name)

    def _has(self, address: Address) -> bool:
        return any(address in network for network in self.networks)

    def _tell_once(self, what: str, message: str, *values: object) -> None:
        """Log it once in a process, because strangers can cause it."""
        if what not in self._told:
            self._told.add(what)
            log.warning(message, *values)


def _scheme(value: str | None, name: str) -> str:
    if value is None:
        return ""
    scheme = value.lower()
    if scheme not in ("http", "https"):
        raise Unreadable(name)
    return scheme


def _elements(value: str) -> Iterator[dict[str, str]]:
    """The elements of the header Forwarded (RFC 7239, 4). Raises Unreadable: a client's quote may hide a proxy's word."""
    element: dict[str, str] = {}
    position = 0
    while match := _PAIR.match(value, position):
        name, quoted, plain, end = match.groups()
        if name.lower() in element:
            break
        element[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        position = match.end()
        if end != ";":
            yield element
            element = {}
        if end == "":
            return
    raise Unreadable("Forwarded")
