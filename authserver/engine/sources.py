"""Decides which addresses count as one source of requests."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address


@lru_cache(maxsize=4_096)
def network_of(source: str) -> str | None:
    """The source of an address: an IPv4 address itself, or the /64 of an IPv6 address, which one household has (T102)."""
    if not source:
        return None
    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        # A Unix socket has no address.
        return source
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
