"""Which addresses a URL of a stranger may lead to (T122, T124)."""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.fetching.addresses import SPECIAL, Reach, is_this_machine

PUBLIC = ["1.1.1.1", "93.184.215.14", "172.32.0.1", "192.0.3.1", "223.255.255.254",
          "2606:4700:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888", "64:ff9b::101:101"]  # fmt: skip

REFUSED = {
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "169.254.169.254": "link-local",
    "169.254.170.2": "link-local",
    "100.64.0.1": "shared",
    "100.100.100.200": "shared",
    "168.63.129.16": "metadata",
    "192.0.0.192": "protocols",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4",
    "198.19.0.1": "benchmarks",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::ffff:127.0.0.1": "IPv4-mapped",
    "::ffff:1.1.1.1": "IPv4-mapped",
    "::127.0.0.1": "IPv4-compatible",
    "64:ff9b::7f00:1": "NAT64.*loopback",
    "64:ff9b::a9fe:a9fe": "NAT64.*link-local",
    "64:ff9b::a00:1": "NAT64.*private",
    "64:ff9b:1::1": "NAT64",
    "100::1": "discard",
    "2001::1": "protocols",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "protocols",
    "2001:db8::1": "documentation",
    "2002:7f00:1::1": "6to4",
    "2002:101:101::1": "6to4",
    "3fff::1": "documentation",
    "4000::1": "not global unicast",
    "5f00::1": "not global unicast",
    "fc00::1": "private",
    "fd00:ec2::254": "private",
    "fe80::1": "link-local",
    "fe80::1%1": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_public_servers_are_reached(address: str) -> None:
    """T122: also through the translator of a network that has only IPv6 (RFC 6052)."""
    assert Reach().problem(ip_address(address)) is None


@pytest.mark.parametrize("address", REFUSED)
def test_any_other_address_is_refused_and_the_operator_learns_why(address: str) -> None:
    """T122, T124: RFC 6890 and the registries; no form of an address hides what it leads to."""
    problem = Reach().problem(ip_address(address))
    assert problem is not None
    assert re.search(REFUSED[address], problem), problem


@given(st.ip_addresses())
def test_what_the_standard_library_knows_as_special_is_refused(address: object) -> None:
    """T124: a second opinion on the explicit list, and never an address that is not global."""
    parsed = ip_address(str(address))
    if Reach().problem(parsed) is None and parsed not in ip_network("64:ff9b::/96"):
        assert parsed.is_global
        assert not (parsed.is_private or parsed.is_loopback or parsed.is_multicast or parsed.is_reserved)


def test_the_ends_of_each_special_network_are_in_it() -> None:
    """T122: no network of the list has an edge that is open."""
    for network, meaning in SPECIAL:
        for address in (network[0], network[-1]):
            assert Reach().problem(address) is not None, (address, meaning)


def test_development_reaches_loopback_and_nothing_else() -> None:
    """T122, T124: `fetch_loopback` opens 127.0.0.0/8 and ::1; a disguise of them stays closed."""
    reach = Reach(loopback=True)
    assert [reach.problem(ip_address(text)) for text in ("127.0.0.1", "127.9.9.9", "::1")] == [None] * 3
    for address in REFUSED:
        if address not in ("127.0.0.1", "127.255.255.254", "::1"):
            assert reach.problem(ip_address(address)) is not None, address


def test_networks_of_the_operator_are_refused_beside_the_special_ones() -> None:
    """T124: public addresses of one's own, that of a translator of one's own (RFC 6052, 2.2)."""
    reach = Reach(refused=(ip_network("1.1.1.0/24"), ip_network("2606:4700::/32")))
    for address in ("1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"):
        assert "fetch_refused_networks" in (reach.problem(ip_address(address)) or ""), address
    assert reach.problem(ip_address("1.1.2.1")) is None


def test_an_address_of_this_machine_is_known_without_a_packet() -> None:
    """T124: a server with a public address does not fetch from itself."""
    assert is_this_machine(ip_address("127.0.0.1"))
    assert not is_this_machine(ip_address("192.0.2.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return  # a machine without a network has no other address
        assert is_this_machine(ip_address(probe.getsockname()[0]))
