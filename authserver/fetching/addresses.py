"""Which addresses a URL that a stranger names may lead to: those of public servers.

Decided about the parsed address, never about a text: so no spelling disguises one.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# The special-purpose registries of IANA (RFC 6890) and what else is not a server in the public Internet.
SPECIAL: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), meaning)
    for network, meaning in (
        ("0.0.0.0/8", "unspecified (RFC 1122, 3.2.1.3)"),
        ("10.0.0.0/8", "private (RFC 1918)"),
        ("100.64.0.0/10", "shared by a carrier's customers (RFC 6598)"),
        ("127.0.0.0/8", "loopback (RFC 1122, 3.2.1.3)"),
        # Among them 169.254.169.254, where clouds hand out credentials.
        ("169.254.0.0/16", "link-local (RFC 3927)"),
        # Not special by any RFC: the platform services of Azure.
        ("168.63.129.16/32", "metadata of a cloud"),
        ("172.16.0.0/12", "private (RFC 1918)"),
        ("192.0.0.0/24", "for protocols (RFC 6890)"),
        ("192.0.2.0/24", "documentation (RFC 5737)"),
        ("192.88.99.0/24", "6to4 relay (RFC 7526)"),
        ("192.168.0.0/16", "private (RFC 1918)"),
        ("198.18.0.0/15", "benchmarks (RFC 2544)"),
        ("198.51.100.0/24", "documentation (RFC 5737)"),
        ("203.0.113.0/24", "documentation (RFC 5737)"),
        ("224.0.0.0/4", "multicast (RFC 5771)"),
        ("240.0.0.0/4", "reserved (RFC 1112, 4)"),
        ("::/128", "unspecified (RFC 4291, 2.5.2)"),
        ("::1/128", "loopback (RFC 4291, 2.5.3)"),
        ("::ffff:0:0/96", "IPv4-mapped (RFC 4291, 2.5.5.2)"),
        ("::/96", "IPv4-compatible (RFC 4291, 2.5.5.1)"),
        ("64:ff9b:1::/48", "NAT64 of a network's own (RFC 8215)"),
        ("100::/64", "discard (RFC 6666)"),
        # Among them Teredo (RFC 4380), benchmarks (RFC 5180) and ORCHIDs (RFC 7343).
        ("2001::/23", "for protocols (RFC 2928)"),
        ("2001:db8::/32", "documentation (RFC 3849)"),
        ("2002::/16", "6to4 (RFC 3056)"),
        ("3fff::/20", "documentation (RFC 9637)"),
        ("fc00::/7", "private (RFC 4193)"),
        ("fe80::/10", "link-local (RFC 4291, 2.5.6)"),
        ("fec0::/10", "site-local (RFC 3879)"),
        ("ff00::/8", "multicast (RFC 4291, 2.7)"),
    )
)
# Its last 32 bits are an IPv4 address, which a translator connects to (RFC 6052, 2.1).
_NAT64 = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = IPv6Network("2000::/3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Where a request may go.

    Attributes:
        refused: networks beside the special ones.
        loopback: whether loopback addresses may be reached.
    """

    refused: Sequence[Network] = ()
    loopback: bool = False

    def problem(self, address: Address) -> str | None:
        """Why this address may not be reached, in words for operators; None when it may."""
        if is_loopback(address):
            return None if self.loopback else _special(address)
        if isinstance(address, IPv6Address) and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
            problem = self.problem(inner) if not is_loopback(inner) else _special(inner)
            return problem and f"{inner} behind NAT64 (RFC 6052): {problem}"
        if problem := _special(address):
            return problem
        if any(address in network for network in self.refused if network.version == address.version):
            return "refused by authserver.fetch_refused_networks"
        return "this machine" if is_this_machine(address) else None


def is_loopback(address: Address) -> bool:
    """127.0.0.0/8 or ::1, and not one of these in another disguise."""
    return any(address in network for network in (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")))


def is_this_machine(address: Address) -> bool:
    """Whether the address is one of this machine's own, public or not. Nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Only chooses a source address, and that of a way to oneself is one's own.
            probe.connect((str(address), 9))
            return ip_address(probe.getsockname()[0]) == address
    except OSError:
        return False


def _special(address: Address) -> str | None:
    for network, meaning in SPECIAL:
        if address in network:
            return meaning
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return "not global unicast (RFC 4291, 2.4)"
    # A second opinion: what the standard library knows of the registries.
    return None if address.is_global else "special (RFC 6890)"
