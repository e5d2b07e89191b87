"""User names and passwords of an LDAP directory: a `login_decision` for authserver."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import SplitResult, urlsplit

import ldap3
from ldap3.core.exceptions import (
    LDAPConstraintViolationResult,
    LDAPException,
    LDAPInappropriateAuthenticationResult,
    LDAPInvalidCredentialsResult,
    LDAPInvalidDnError,
    LDAPOperationResult,
    LDAPSizeLimitExceededResult,
    LDAPUnwillingToPerformResult,
)
from ldap3.operation.search import parse_filter
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import parse_dn

from authserver.api import Decision, Identity, Secret, allow, deny, hookimpl

__all__ = ["LdapLogin"]

# With these answers to a bind the directory has checked the account; any other answer is a fault.
_BIND_REFUSED = (
    LDAPInappropriateAuthenticationResult,  # the entry has no password
    LDAPConstraintViolationResult,  # 389 Directory Server: too many wrong passwords
    LDAPUnwillingToPerformResult,  # 389 Directory Server: the account is switched off
)


@dataclass(frozen=True)
class LdapLogin:
    """Find the person in a directory, then bind as them with the password they typed.

    Attributes:
        url: `ldaps://HOST[:PORT]`, or `ldap://` with start_tls or on the same machine.
        base: people are searched in this subtree.
        bind_dn, bind_password: the account that searches.
        user_filter: finds exactly one entry for `{username}`.
        username_attribute: becomes the user name on this server, also if the filter found the person by another attribute.
        name_attribute: the person's name for the pages.
        group: the DN of a group that people must be in; "" for none.
        group_filter: matches that group's entry if the person, `{dn}` or `{username}`, is a member.
        groups_base: the groups of the person are searched in this subtree, by group_filter; "" keeps those that are stored.
        groups_attribute: becomes the name of a group.
        groups: only these count, by name; none: all.
        attributes: the person's attributes to keep for policies; none leaves the stored ones as they are.
        start_tls: whether an `ldap://` connection is secured before anything else is sent.
        ca_file: the certificates to trust, PEM; "" for those of the system.
        timeout: seconds for each step: connecting, each bind, each search.
    """

    reasons: ClassVar[frozenset[str]] = frozenset(
        {
            "directory-bind",
            "password-wrong",
            "bind-refused",
            "not-in-group",
            "user-ambiguous",
            "name-ambiguous",
            "name-missing",
        }
    )

    url: str
    base: str
    bind_dn: str
    bind_password: Secret = field(repr=False)
    user_filter: str = "(uid={username})"
    username_attribute: str = "uid"
    name_attribute: str = "cn"
    group: str = ""
    group_filter: str = "(|(member={dn})(uniqueMember={dn})(memberUid={username}))"
    groups_base: str = ""
    groups_attribute: str = "cn"
    groups: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    start_tls: bool = False
    ca_file: str = ""
    timeout: int = 5

    def __post_init__(self) -> None:
        _check_url(self.url, self.start_tls)
        for setting, dn in (
            ("base", self.base),
            ("bind_dn", self.bind_dn),
            ("group", self.group or "cn=x"),
            ("groups_base", self.groups_base or "cn=x"),
        ):
            if not _is_dn(dn):
                raise ValueError(
                    f"{setting}: {dn!r} is not a distinguished name; write one such as ou=people,dc=example,dc=com"
                )
        if not self.bind_password.value:
            raise ValueError("bind_password: is empty; directories treat such a bind as an anonymous one")
        _check_filter("user_filter", self.user_filter, ("username",))
        _check_filter("group_filter", self.group_filter, ("dn", "username"))
        for setting, attribute in (
            ("username", self.username_attribute),
            ("name", self.name_attribute),
            ("groups", self.groups_attribute),
        ):
            if not attribute.strip():
                raise ValueError(f"{setting}_attribute: is empty; name an attribute such as uid or cn")
        if self.groups and not self.groups_base:
            raise ValueError("groups: nothing is searched; set groups_base to where the groups are")
        if self.ca_file and not Path(self.ca_file).is_file():
            raise ValueError(f"ca_file: there is no file {self.ca_file}")
        if not 1 <= self.timeout <= 60:
            raise ValueError("timeout: must be 1 to 60 seconds")

    @hookimpl
    def login_decision(self, username: str, password: Secret) -> Decision[Identity] | None:
        # A bind with a name and no password is "unauthenticated", and succeeds in many directories (RFC 4513, 5.1.2).
        if not username or not password.value or not _is_text(password.value):
            return None
        try:
            return self._decide(username, password.value)
        except LDAPException as error:
            # This is not a wrong password: the server answers server_error, and its log names the directory.
            error.add_note(f"while asking the directory {self.url}")
            raise

    def _decide(self, username: str, password: str) -> Decision[Identity] | None:
        with self._bound(self.bind_dn, self.bind_password.value) as directory:
            try:
                found = self._find(directory, username)
            except LDAPSizeLimitExceededResult:
                return deny("user-ambiguous")
            if found is None:
                # An unknown name takes a bind as well, so that the time does not show which names exist.
                self._refusal(f"cn=nobody-{secrets.token_hex(8)},{self.base}", password)
                return None
            dn, attributes = found
            if refusal := self._refusal(dn, password):
                return deny(refusal)
            if self.group and not self._is_in_group(directory, dn, username):
                return deny("not-in-group")
            names = attributes.get(self.username_attribute.lower(), [])
            if len(names) != 1:
                return deny("name-ambiguous" if names else "name-missing")
            groups = self._groups(directory, dn, names[0]) if self.groups_base else None
        shown = attributes.get(self.name_attribute.lower()) or [""]
        kept = {name: tuple(attributes.get(name.lower(), ())) for name in self.attributes} or None
        identity = Identity(username=names[0], display_name=shown[0], groups=groups, attributes=kept)
        return allow("directory-bind", identity)

    def _find(self, directory: Any, username: str) -> tuple[str, dict[str, list[str]]] | None:
        """The person's DN and attributes; None if there is no such person."""
        directory.search(
            self.base,
            _filled(self.user_filter, username=username),
            attributes=[*{self.username_attribute, self.name_attribute, *self.attributes}],
            size_limit=1,
            time_limit=self.timeout,
        )
        for entry in _entries(directory):
            return entry["dn"], _texts(entry)
        return None

    def _groups(self, directory: Any, dn: str, username: str) -> tuple[str, ...]:
        """The names of the person's groups, of those that count."""
        directory.search(
            self.groups_base,
            _filled(self.group_filter, dn=dn, username=username),
            attributes=[self.groups_attribute],
            time_limit=self.timeout,
        )
        found = [
            name
            for entry in _entries(directory)
            for name in _texts(entry).get(self.groups_attribute.lower(), [])
        ]
        return tuple(name for name in found if not self.groups or name in self.groups)

    def _is_in_group(self, directory: Any, dn: str, username: str) -> bool:
        directory.search(
            self.group,
            _filled(self.group_filter, dn=dn, username=username),
            search_scope=ldap3.BASE,
            attributes=ldap3.NO_ATTRIBUTES,
            time_limit=self.timeout,
        )
        return bool(_entries(directory))

    def _refusal(self, dn: str, password: str) -> str:
        """Why the directory refuses this password; "" when it does not."""
        # On a new connection, so that the other stays bound to the account that searches.
        try:
            with self._bound(dn, password):
                return ""
        except LDAPInvalidCredentialsResult:
            return "password-wrong"
        except _BIND_REFUSED:
            return "bind-refused"

    @contextmanager
    def _bound(self, dn: str, password: str) -> Iterator[Any]:
        """A new connection. People sign in so rarely that the connections of a pool would often be dead."""
        parts = urlsplit(self.url)
        tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=self.ca_file or None)
        server = ldap3.Server(
            parts.hostname,
            port=parts.port,
            use_ssl=parts.scheme == "ldaps",
            tls=tls,
            get_info=ldap3.NONE,
            connect_timeout=self.timeout,
        )
        connection = ldap3.Connection(
            server,
            user=dn,
            # As bytes: ldap3 would change a text by rules that not every directory uses (SASLprep).
            password=password.encode(),
            receive_timeout=self.timeout,
            raise_exceptions=True,
            read_only=True,
            # A server that the directory refers to would get the password.
            auto_referrals=False,
            auto_escape=False,
            check_names=False,
        )
        try:
            connection.open()
            if self.start_tls:
                connection.start_tls()
                _succeeded(connection)
            connection.bind()
            _succeeded(connection)
            yield connection
        finally:
            if not connection.closed:
                connection.unbind()


def _succeeded(connection: Any) -> None:
    """Raise for every result except success: for some, such as a referral, ldap3 itself does not raise."""
    result = connection.result
    if result["description"] != "success":
        raise LDAPOperationResult(
            result=result["result"],
            description=result["description"],
            dn=result["dn"],
            message=result["message"],
            response_type=result["type"],
        )


def _entries(connection: Any) -> list[Any]:
    """The entries that a search found, without referrals to other directories."""
    _succeeded(connection)
    return [entry for entry in connection.response if entry["type"] == "searchResEntry"]


def _texts(entry: Any) -> dict[str, list[str]]:
    """The values of an entry's attributes, by name in small letters."""
    return {
        name.lower(): [value.decode("utf-8", "replace") for value in values]
        for name, values in entry["raw_attributes"].items()
    }


def _filled(template: str, **values: str) -> str:
    """A filter with these values in their places, escaped (RFC 4515, 3)."""
    for name, value in values.items():
        template = template.replace("{" + name + "}", escape_filter_chars(value))
    return template


def _check_url(url: str, start_tls: bool) -> None:
    try:
        parts: SplitResult | None = urlsplit(url)
        host, port = (parts.hostname, parts.port) if parts else (None, None)
    except ValueError:
        parts = host = port = None
    # It may have only these parts: no path, account or list of addresses.
    written = f"[{host}]" if host and ":" in host else host
    plain = f"{parts.scheme}://{written}" + (f":{port}" if port else "") if parts else ""
    if parts is None or parts.scheme not in ("ldap", "ldaps") or not host or url.rstrip("/").lower() != plain:
        raise ValueError(
            f"url: {url!r} cannot be used; write ldaps://directory.example.com, with :PORT if needed"
        )
    if start_tls and parts.scheme == "ldaps":
        raise ValueError("start_tls: an ldaps:// connection is already secure; remove the line")
    if not (parts.scheme == "ldaps" or start_tls or _is_loopback(host)):
        raise ValueError(
            "url: passwords would be sent without encryption; write ldaps://, or set start_tls = true "
            "(plain ldap:// is for 127.0.0.1, ::1 and localhost)"
        )


def _check_filter(setting: str, template: str, names: tuple[str, ...]) -> None:
    if not any("{" + name + "}" in template for name in names):
        needed = " or ".join("{" + name + "}" for name in names)
        raise ValueError(f"{setting}: {template!r} does not use the user name; write {needed} in it")
    try:
        parse_filter(_filled(template, **dict.fromkeys(names, "x")), None, False, True, None, False)
    except LDAPException as error:
        raise ValueError(f"{setting}: {template!r} is not a filter: {error}") from None


def _is_text(password: str) -> bool:
    """Whether it can be encoded in UTF-8, in which passwords are sent (RFC 4513, 5.1.3)."""
    try:
        return bool(password.encode())
    except UnicodeEncodeError:
        return False


def _is_dn(text: str) -> bool:
    try:
        return bool(text.strip() and parse_dn(text))
    except LDAPInvalidDnError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
