"""Sign in the user that a trusted reverse proxy has authenticated: a `login_decision` for authserver."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import ClassVar

from authserver.api import Decision, Identity, Secret, allow, deny, equal, hookimpl

__all__ = ["HeaderLogin"]

SECRET_HEADER = "x-proxy-secret"

_HEADER = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# Headers that a browser sends, or that authenticate something else.
_NOT_FOR_NAMES = ("authorization", "cookie", "host", "user-agent", SECRET_HEADER)


@dataclass(frozen=True)
class HeaderLogin:
    """Trust a header with the name of the signed-in user, if it comes from the proxy.

    Attributes:
        header: the header with the user name.
        name_header: the header with the person's name for the pages; "" for none.
        proxy_secret: the value that the proxy sends as `X-Proxy-Secret`.
        networks: the networks from which the proxy sends.
        methods: how the proxy authenticated the user, as `amr` values (RFC 8176).
        methods_header: the header with the methods of this sign-in, which replace `methods`; "" for none.
        groups_header: the header with the user's groups; "" for none, then the stored ones stay.
        attribute_headers: a line each, `attribute = header`; without any, the stored attributes stay.
        separator: one character, between groups, between methods and between the values of an attribute.

    If both proxy_secret and networks are set, a request must match both.
    """

    # It asks no other service, so it needs no time limit.
    immediate: ClassVar[bool] = True
    reasons: ClassVar[frozenset[str]] = frozenset(
        {
            "proxy-vouches",
            "proxy-secret-missing",
            "proxy-secret-wrong",
            "not-from-proxy",
            "header-twice",
            "name-missing",
        }
    )

    header: str = "x-remote-user"
    name_header: str = ""
    proxy_secret: Secret | None = field(default=None, repr=False)
    networks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    methods_header: str = ""
    groups_header: str = ""
    attribute_headers: tuple[tuple[str, str], ...] = ()
    separator: str = ";"

    def __post_init__(self) -> None:
        if self.proxy_secret is None and not self.networks:
            raise ValueError(
                "neither proxy_secret nor networks is set, so anybody could send the header; set proxy_secret"
            )
        if self.proxy_secret is not None and len(self.proxy_secret.value) < 32:
            raise ValueError("proxy_secret: a secret has at least 32 random characters")
        seen: dict[str, str] = {}
        for setting, header in self._headers():
            if not _HEADER.fullmatch(header) or header in _NOT_FOR_NAMES:
                raise ValueError(
                    f"{setting}: {header!r} cannot be used; write a name such as x-remote-user, in small letters"
                )
            if header in seen:
                raise ValueError(f"{setting}: must be another header than `{seen[header]}`")
            seen[header] = setting
        if len(self.separator) != 1 or self.separator.isalnum():
            raise ValueError(f"separator: {self.separator!r} cannot be used; write one character such as ;")
        try:
            _ = self._networks
        except ValueError as error:
            raise ValueError(f"networks: {error}; write addresses such as 10.0.0.7 or 10.0.0.0/24") from None

    def _headers(self) -> Iterator[tuple[str, str]]:
        """Each header that is read, with the name of its setting."""
        yield "header", self.header
        for setting in ("name_header", "methods_header", "groups_header"):
            if header := getattr(self, setting):
                yield setting, header
        for attribute, header in self.attribute_headers:
            yield f"attribute_headers, {attribute}", header

    @cached_property
    def _networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(map(ip_network, self.networks))

    @hookimpl
    def login_decision(
        self, username: str, password: Secret, headers: Mapping[str, str], source: str
    ) -> Decision[Identity] | None:
        named = headers.get(self.header)
        if named is None:
            return None
        if self.proxy_secret is not None:
            presented = headers.get(SECRET_HEADER)
            if presented is None:
                return deny("proxy-secret-missing")
            if not equal(self.proxy_secret.value, presented):
                return deny("proxy-secret-wrong")
        if self.networks and not self._is_near(source):
            return deny("not-from-proxy")
        if username or password.value:
            # A user name was typed: another policy decides about it.
            return None
        if "," in named:
            # WSGI joins a header that was sent twice: one value is from the proxy, the other may be from an attacker.
            return deny("header-twice")
        name = _text(named).strip()
        if not name:
            return deny("name-missing")
        told = [header for setting, header in self._headers() if setting not in ("header", "name_header")]
        if self.separator != "," and any("," in headers.get(header, "") for header in told):
            return deny("header-twice")
        identity = Identity(
            username=name,
            display_name=_text(headers.get(self.name_header, "")).strip(),
            methods=self._values(headers, self.methods_header) if self.methods_header else self.methods,
            groups=self._values(headers, self.groups_header) if self.groups_header else None,
            attributes=(
                {name: self._values(headers, header) for name, header in self.attribute_headers}
                if self.attribute_headers
                else None
            ),
        )
        return allow("proxy-vouches", identity)

    def _values(self, headers: Mapping[str, str], header: str) -> tuple[str, ...]:
        """The values in a header; none if it is missing, because some proxies leave out an empty one."""
        values = map(str.strip, _text(headers.get(header, "")).split(self.separator))
        return tuple(filter(None, values))

    def _is_near(self, source: str) -> bool:
        """Whether an address is in one of the networks; a text that is not an address is in none."""
        try:
            address: IPv4Address | IPv6Address = ip_address(source)
        except ValueError:
            return False
        # An IPv4 address in the form that a socket for IPv4 and IPv6 has.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)


def _text(header: str) -> str:
    """A header's text: WSGI decodes bytes as Latin-1, and most proxies send UTF-8 (PEP 3333)."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header
