"""User names and passwords of an LDAP directory: a `login_decision` for authserver."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ldap
from ldap.dn import is_dn
from ldap.filter import escape_filter_chars

from authserver.api import Decision, Identity, Secret, allow, deny, hookimpl

__all__ = ["LdapLogin"]

# A directory that answers a bind like this has looked at the account; anything else is a fault.
_REFUSALS = {
    ldap.INVALID_CREDENTIALS: "password-wrong",
    ldap.INAPPROPRIATE_AUTH: "bind-refused",  # the entry has no password
    ldap.CONSTRAINT_VIOLATION: "bind-refused",  # 389 Directory Server: too many wrong passwords
    ldap.UNWILLING_TO_PERFORM: "bind-refused",  # 389 Directory Server: the account is switched off
}


@dataclass(frozen=True)
class LdapLogin:
    """Find the person in a directory, then bind as them with the password they typed.

    Attributes:
        url: `ldaps://HOST[:PORT]`, or `ldap://` with start_tls or for this very machine.
        base: where people are searched, with all that is below.
        bind_dn, bind_password: the account that searches.
        user_filter: finds exactly one entry for `{username}`.
        username_attribute: the person's name here, whatever the filter was asked with.
        name_attribute: the person's name for the pages.
        group: the DN of a group that people must be in; "" for none.
        group_filter: what that group's entry looks like for a member, by `{dn}` and `{username}`.
        start_tls: whether an `ldap://` connection is secured before anything is said on it.
        ca_file: the certificates to trust, PEM; "" for those of the system.
        timeout: seconds for each step: connecting, each bind, each search.
    """

    url: str
    base: str
    bind_dn: str
    bind_password: Secret = field(repr=False)
    user_filter: str = "(uid={username})"
    username_attribute: str = "uid"
    name_attribute: str = "cn"
    group: str = ""
    group_filter: str = "(|(member={dn})(uniqueMember={dn})(memberUid={username}))"
    start_tls: bool = False
    ca_file: str = ""
    timeout: int = 5

    def __post_init__(self) -> None:
        self._check_url()
        for setting, dn in (("base", self.base), ("bind_dn", self.bind_dn), ("group", self.group or "cn=x")):
            if not dn or not is_dn(dn):
                raise ValueError(f"{setting}: {dn!r} is no distinguished name; write ou=people,dc=example,dc=com")
        if not self.bind_password.value:
            raise ValueError("bind_password: is empty; a directory takes such a bind for an anonymous one")
        for setting, text, needed in (
            ("user_filter", self.user_filter, ("{username}",)),
            ("group_filter", self.group_filter, ("{dn}", "{username}")),
        ):
            if not text.startswith("(") or not text.endswith(")") or text.count("(") != text.count(")"):
                raise ValueError(f"{setting}: {text!r} is no filter; its parentheses do not match")
            if not any(name in text for name in needed):
                raise ValueError(f"{setting}: {text!r} asks for nobody; write {' or '.join(needed)} in it")
        if self.ca_file and not Path(self.ca_file).is_file():
            raise ValueError(f"ca_file: there is no file {self.ca_file}")
        if not 1 <= self.timeout <= 60:
            raise ValueError("timeout: must be 1 to 60 seconds")

    def _check_url(self) -> None:
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"url: {error}") from None
        if parts.scheme not in ("ldap", "ldaps") or not host or self.url.rstrip("/") != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
            raise ValueError(f"url: {self.url!r} is none; write ldaps://directory.example.com")
        if self.start_tls and parts.scheme == "ldaps":
            raise ValueError("start_tls: an ldaps:// connection is secured already; remove the line")
        if not (parts.scheme == "ldaps" or self.start_tls or _is_loopback(host)):
            raise ValueError(
                "url: passwords would travel readable; write ldaps://, or set start_tls = true "
                "(plain ldap:// is for 127.0.0.1, ::1 and localhost)"
            )

    @hookimpl
    def login_decision(self, username: str, password: Secret) -> Decision | None:
        # A bind with a name and no password is "unauthenticated": many directories let it succeed (RFC 4513, 5.1.2).
        if not username or not password.value:
            return None
        try:
            return self._decide(username, password.value)
        except ldap.LDAPError as error:
            # Not a wrong password: the server answers server_error, and its log says where to look.
            error.add_note(f"while asking the directory {self.url}")
            raise

    def _decide(self, username: str, password: str) -> Decision | None:
        with self._connection() as directory:
            directory.simple_bind_s(self.bind_dn, self.bind_password.value)
            try:
                found = self._search(directory, username)
            except ldap.SIZELIMIT_EXCEEDED:
                return deny("user-ambiguous")
            if found is None:
                # A name that is not there costs a bind as well, so that time does not tell the two apart.
                self._bind(f"cn=nobody-{secrets.token_hex(8)},{self.base}", password)
                return None
            dn, attributes = found
            refused = self._bind(dn, password)
            if refused:
                return deny(refused)
            if self.group and not self._is_in_group(directory, dn, username):
                return deny("not-in-group")
        names = attributes.get(self.username_attribute.lower(), [])
        if len(names) != 1:
            return deny("name-ambiguous" if names else "name-missing")
        shown = attributes.get(self.name_attribute.lower(), [""])
        return allow("directory-bind", Identity(username=names[0], display_name=shown[0]))

    def _search(self, directory: Any, username: str) -> tuple[str, dict[str, list[str]]] | None:
        """The person's DN and attributes; None when there is nobody."""
        entries = directory.search_ext_s(
            self.base,
            ldap.SCOPE_SUBTREE,
            _filled(self.user_filter, username=username),
            [self.username_attribute, self.name_attribute],
            timeout=self.timeout,
            sizelimit=1,
        )
        # Without a DN it is a referral to another directory, and no answer.
        for dn, attributes in entries:
            if dn:
                return dn, {
                    name.lower(): [value.decode("utf-8", "replace") for value in values]
                    for name, values in attributes.items()
                }
        return None

    def _is_in_group(self, directory: Any, dn: str, username: str) -> bool:
        entries = directory.search_ext_s(
            self.group,
            ldap.SCOPE_BASE,
            _filled(self.group_filter, dn=dn, username=username),
            ["1.1"],  # no attributes (RFC 4511, 4.5.1.8)
            timeout=self.timeout,
        )
        return any(found for found, _ in entries)

    def _bind(self, dn: str, password: str) -> str:
        """Why the directory refuses this password; "" when it does not."""
        # On a connection of its own, so that the one that searches stays whose it is.
        with self._connection() as directory:
            try:
                directory.simple_bind_s(dn, password)
            except tuple(_REFUSALS) as refusal:
                return _REFUSALS[type(refusal)]
            return ""

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """A fresh connection: people sign in too seldom for a pool to be worth its stale ones."""
        directory = ldap.initialize(self.url)
        try:
            directory.protocol_version = ldap.VERSION3
            # Whoever is referred to would be handed the password.
            directory.set_option(ldap.OPT_REFERRALS, 0)
            directory.set_option(ldap.OPT_NETWORK_TIMEOUT, self.timeout)
            directory.set_option(ldap.OPT_TIMEOUT, self.timeout)
            directory.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
            if self.ca_file:
                directory.set_option(ldap.OPT_X_TLS_CACERTFILE, self.ca_file)
            # What was set of TLS counts from here on.
            directory.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
            if self.start_tls:
                directory.start_tls_s()
            yield directory
        finally:
            directory.unbind_ext_s()


def _filled(template: str, **values: str) -> str:
    """A filter with these values in their places, escaped (RFC 4515, 3)."""
    for name, value in values.items():
        template = template.replace("{" + name + "}", escape_filter_chars(value))
    return template


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
