"""Finds the client's address and scheme in the headers of the proxies in front of this server.

This happens once, before anything else reads the request, and the result is put into the environ of WSGI. Then all headers
about forwarding are removed, so that nothing else reads one, and none of them can change a host.
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
# The key in the environ with the name of a header of a trusted proxy that cannot be read, for `web.headers`.
UNREADABLE = "authserver.unreadable_header"
# All headers that say where a request came from; the application sees none of them.
_HEADERS = ("FOR", "PROTO", "HOST", "PORT", "BY")
_SENT = ("FORWARDED", *(f"X_FORWARDED_{name}" for name in _HEADERS))
_NAMES = tuple(f"HTTP_{name}" for name in _SENT)
# An address with or without port; an IPv6 address with a port is in brackets. A zone names a network link of the machine
# that wrote it, so it is ignored here.
_NODE = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})(?:%[0-9A-Za-z._~-]{1,32})?\]|([0-9.]{7,15}))(?::[0-9]{1,5})?"
    r"|([0-9A-Fa-f:.]{2,45})(?:%[0-9A-Za-z._~-]{1,32})?"
)
# A pair of the header Forwarded and its end (RFC 7239, 4); an address with a colon is accepted without quotes, too.
_PAIR = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\",;]+))[ \t]*([;,]|$)"
)
log = logging.getLogger(__name__)


class Unreadable(ValueError):
    """A header of a trusted proxy cannot be read; the message is its name."""


def includeme(config: Configurator) -> None:
    """Add the `Forwarding` of the settings to the registry."""
    config.registry.forwarding = Forwarding.of(config.registry.application.parts.settings)


@lru_cache(maxsize=1024)
def address_of(text: str) -> Address | None:
    """The address in a text of a proxy or of the WSGI server; None if it is not an address.

    An IPv4 address that is embedded in IPv6, as sockets for both report it, is returned as IPv4.
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
        networks: the networks of trusted proxies.
        unix: whether every connection through a Unix socket comes from a trusted proxy.
        hops: how many proxies a request passes at most.
        header: the headers in which they write addresses and schemes.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False
    hops: int = 1
    header: ForwardingHeader = ForwardingHeader.X_FORWARDED
    _told: set[str] = field(default_factory=set, compare=False, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Forwarding:
        """Make it from the settings."""
        return cls(
            networks=tuple(ip_network(text) for text in settings.trusted_proxies if text != UNIX_PEER),
            unix=UNIX_PEER in settings.trusted_proxies,
            hops=settings.trusted_proxy_hops,
            header=settings.forwarding_header,
        )

    def trusts(self, peer: str) -> bool:
        """Whether this is the address of a trusted proxy; for a Unix socket WSGI servers give no address."""
        address = address_of(peer)
        return self.unix if address is None else self._has(address)

    def resolve(self, environ: MutableMapping[str, Any]) -> bool:
        """Put the client's address and scheme into the environ, and remove every header about forwarding.

        `UNREADABLE` is set if a header of a trusted proxy cannot be read: then address and scheme are not known.

        Returns:
            Whether a trusted proxy sent the request.
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
        """The client's address as `resolve` finds it; the address of the peer if it finds none.

        Args:
            headers: the headers by their names in WSGI, but without `HTTP_`.
        """
        environ = {f"HTTP_{name}": headers[name] for name in _SENT if name in headers}
        environ["REMOTE_ADDR"] = peer
        self.resolve(environ)
        return environ["REMOTE_ADDR"]

    def _believed(self, environ: MutableMapping[str, Any], sent: dict[str, str], peer: str) -> Address | None:
        """The client's address from the headers of the trusted proxy; None if they do not have it, or cannot be read."""
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
                "the trusted proxy %s does not send the address of the client in %s, so everybody has the proxy's address: "
                "let it send that header (docs/deploying.rst)",
                peer or UNIX_PEER,
                self.header.name_of_address,
            )
        return client

    def _reported(self, sent: dict[str, str]) -> tuple[Address | None, str]:
        """The client's address and scheme; None and "" if the proxy does not send them. Raises Unreadable."""
        if self.header is ForwardingHeader.FORWARDED:
            return self._reported_by_standard(sent.get("HTTP_FORWARDED"))
        client = None
        if (value := sent.get("HTTP_X_FORWARDED_FOR")) is not None:
            client, _ = self._client(
                [entry.strip(' \t"') for entry in value.rsplit(",", self.hops)], "X-Forwarded-For"
            )
        return client, _scheme(sent.get("HTTP_X_FORWARDED_PROTO"), "X-Forwarded-Proto")

    def _reported_by_standard(self, value: str | None) -> tuple[Address | None, str]:
        """The same from the header of RFC 7239. The scheme comes from the proxy to which the client connected."""
        if value is None:
            return None, ""
        elements = list(_elements(value))
        client, position = self._client([element.get("for", "") for element in elements], "Forwarded")
        return client, _scheme(elements[position].get("proto"), "Forwarded")

    def _client(self, entries: list[str], name: str) -> tuple[Address, int]:
        """The address of the client, and the position of its entry, counted from the last, which is -1.

        The proxy that is connected to us wrote the last entry. If that entry names another trusted proxy, that proxy wrote
        the entry before, and so on for as many hops as there are. Earlier entries may come from the client itself, and are
        not trusted. Raises Unreadable.
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
        """Log a message only once in a process, because strangers can cause it."""
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
    """The elements of the header Forwarded (RFC 7239, 4).

    Raises:
        Unreadable: the header is malformed. A quotation mark from the client could hide the entry of a proxy.
    """
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
