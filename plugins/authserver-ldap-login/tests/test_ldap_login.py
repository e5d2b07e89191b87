"""Who is signed in, and who is not, by a real directory."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import directory as slapd
import ldap3
import pytest
from ldap3.core.exceptions import (
    LDAPException,
    LDAPInvalidCredentialsResult,
    LDAPNoSuchObjectResult,
    LDAPReferralResult,
    LDAPSocketOpenError,
)

from authserver.api import Decision, Identity, Secret, allow, deny
from authserver_ldap_login import LdapLogin

Make = Callable[..., LdapLogin]
BY_MAIL = "(|(uid={username})(mail={username}))"


def ask(policy: LdapLogin, username: str, password: str) -> Decision | None:
    return policy.login_decision(username=username, password=Secret(password))


def test_the_right_password_signs_in_with_the_name_of_the_directory(policy: LdapLogin) -> None:
    expected = allow("directory-bind", Identity(username="ann", display_name="Ann Lee"))
    assert ask(policy, "ann", "ann's password") == expected
    # A directory does not tell small letters from large ones; the user is one all the same.
    assert ask(policy, "ANN", "ann's password") == expected


def test_names_and_passwords_beyond_ascii_arrive_as_typed(policy: LdapLogin) -> None:
    expected = allow("directory-bind", Identity(username="jørgen", display_name="Jørgen Ås"))
    assert ask(policy, "jørgen", "pässword 中") == expected
    assert ask(policy, "jørgen", "password 中") == deny("password-wrong")


@pytest.mark.parametrize(
    ("name", "password"),
    [("CORP\\ivy", "ivy's password"), ("o'brien@example.com", "jo's password"), ("svc$", "svc's password")],
)
def test_names_are_found_as_the_directory_has_them(name: str, password: str, policy: LdapLogin) -> None:
    """B202: whatever the characters mean in a filter (RFC 4515, 3)."""
    decision = ask(policy, name.lower(), password)
    assert decision is not None and decision.value.username == name


def test_a_wrong_password_is_denied(policy: LdapLogin) -> None:
    assert ask(policy, "ann", "bob's password") == deny("password-wrong")
    assert ask(policy, "ann", "\x00") == deny("password-wrong")


def test_an_empty_password_never_binds(policy: LdapLogin, directory: slapd.Directory) -> None:
    """RFC 4513, 5.1.2: this directory takes a bind with a name and no password for a success."""
    careless = ldap3.Connection(ldap3.Server(directory.url), f"uid=ann,{slapd.PEOPLE}", "any")
    careless.open()
    careless.password = ""
    request = ldap3.operation.bind.bind_operation(3, "SIMPLE", careless.user, "x")
    request["authentication"]["simple"] = b""
    answer = careless.post_send_single_response(careless.send("bindRequest", request))
    assert answer[0]["description"] == "success"
    careless.unbind()
    assert ask(policy, "ann", "") is None
    assert ask(policy, "", "") is None
    assert ask(policy, "", "ann's password") is None


def test_what_is_no_text_is_nobodys_password(policy: LdapLogin) -> None:
    """RFC 4513, 5.1.3: passwords travel as UTF-8."""
    assert ask(policy, "ann", "\ud800") is None


def test_nothing_is_asked_of_the_directory_where_nothing_was_typed(make_policy: Make) -> None:
    nowhere = make_policy(url=f"ldap://127.0.0.1:{slapd.free_ports(1)[0]}")
    assert ask(nowhere, "", "") is None


def test_who_is_not_in_the_directory_is_not_its_business(policy: LdapLogin) -> None:
    assert ask(policy, "zoe", "ann's password") is None


@pytest.mark.parametrize(
    "username", ["*", "a*", "ann)(uid=*", "ann)(|(uid=*", "*)(objectClass=*", "ann\\", "ann\x00", "(", "\\2a"]
)
def test_what_is_typed_cannot_change_the_filter(username: str, policy: LdapLogin) -> None:
    """RFC 4515, 3."""
    assert ask(policy, username, "ann's password") is None


def test_names_with_every_character_that_means_something_are_found_and_bound(make_policy: Make) -> None:
    by_name = make_policy(user_filter="(cn={username})", group=slapd.GROUP)
    expected = allow("directory-bind", Identity(username="bob", display_name="Bo, (the) B*b\\"))
    assert ask(by_name, "Bo, (the) B*b\\", "bob's password") == expected


def test_whatever_the_filter_is_asked_with_the_user_is_one(make_policy: Make) -> None:
    policy = make_policy(user_filter=BY_MAIL)
    assert ask(policy, "ann@example.com", "ann's password") == ask(policy, "ann", "ann's password")


def test_two_entries_for_one_name_are_refused(make_policy: Make) -> None:
    policy = make_policy(user_filter=BY_MAIL)
    assert ask(policy, "twin@example.com", "cid's password") == deny("user-ambiguous")


def test_an_entry_with_two_names_or_none_is_refused(make_policy: Make) -> None:
    assert ask(make_policy(), "eve", "eve's password") == deny("name-ambiguous")
    policy = make_policy(user_filter=BY_MAIL)
    assert ask(policy, "gus@example.com", "gus's password") == deny("name-missing")


def test_an_entry_without_a_password_is_refused(policy: LdapLogin) -> None:
    decision = ask(policy, "fay", "anything")
    assert decision in (deny("bind-refused"), deny("password-wrong"))


def test_a_missing_name_for_the_pages_is_none(make_policy: Make) -> None:
    policy = make_policy(name_attribute="displayName")
    assert ask(policy, "ann", "ann's password") == allow("directory-bind", Identity(username="ann"))


@pytest.mark.parametrize(
    "group_filter", [None, "(member={dn})", "(&(objectClass=groupOfNames)(|(member={dn})(cn={username})))"]
)
def test_a_group_can_be_required(group_filter: str | None, make_policy: Make) -> None:
    policy = make_policy(group=slapd.GROUP, **({"group_filter": group_filter} if group_filter else {}))
    decision = ask(policy, "ann", "ann's password")
    assert decision is not None and decision.reason == "directory-bind"
    assert ask(policy, "cid", "cid's password") == deny("not-in-group")
    # Only who has proven to be cid learns that.
    assert ask(policy, "cid", "wrong") == deny("password-wrong")


# ---- Faults of the directory or of its settings are no wrong passwords ----------------------------


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"bind_password": Secret("wrong")}, LDAPInvalidCredentialsResult),
        ({"base": "ou=nowhere,dc=example,dc=com"}, LDAPNoSuchObjectResult),
        ({"group": "cn=nobody,dc=example,dc=com"}, LDAPNoSuchObjectResult),
        # A directory that sends one elsewhere has not said yes.
        ({"base": "dc=example,dc=org"}, LDAPReferralResult),
        ({"group": "cn=staff,dc=example,dc=org"}, LDAPReferralResult),
    ],
)
def test_a_wrong_setting_that_only_the_directory_knows_raises(
    settings: dict[str, object], fault: type[Exception], make_policy: Make
) -> None:
    """R-14."""
    with pytest.raises(fault) as raised:
        ask(make_policy(**settings), "ann", "ann's password")
    assert any("while asking the directory ldap://127.0.0.1" in note for note in raised.value.__notes__)


def test_a_directory_that_is_away_raises(make_policy: Make) -> None:
    nowhere = make_policy(url=f"ldap://127.0.0.1:{slapd.free_ports(1)[0]}")
    with pytest.raises(LDAPSocketOpenError):
        ask(nowhere, "ann", "ann's password")


@contextmanager
def curt_server(result: int) -> Iterator[tuple[int, list[bytes]]]:
    """A port where every request is answered with this result code; and the requests (RFC 4511, 4.1.9)."""
    requests: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while request := connection.recv(4096):
                requests.append(request)
                # SEQUENCE, its length, the message's id, and the request by its tag; the answer's is the next.
                end = 4 + request[3]
                answer = request[2:end] + bytes([request[end] + 1, 7, 10, 1, result, 4, 0, 4, 0])
                connection.sendall(bytes([0x30, len(answer)]) + answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], requests
        thread.join(timeout=5)


def test_a_directory_that_refers_the_bind_elsewhere_has_not_said_yes(make_policy: Make) -> None:
    """ldap3 raises for most results, and for a referral not."""
    with curt_server(result=10) as (port, _):
        policy = make_policy(url=f"ldap://127.0.0.1:{port}")
        with pytest.raises(LDAPReferralResult):
            ask(policy, "ann", "ann's password")


@pytest.mark.parametrize("result", [1, 10, 52])
def test_where_starttls_is_refused_no_password_is_sent(result: int, make_policy: Make) -> None:
    with curt_server(result) as (port, requests):
        policy = make_policy(url=f"ldap://127.0.0.1:{port}", start_tls=True)
        with pytest.raises(LDAPException):
            ask(policy, "ann", "ann's password")
    assert requests
    assert not any(slapd.SERVICE_PASSWORD.encode() in request for request in requests)


@contextmanager
def silent_server() -> Iterator[int]:
    """A port where connections are accepted, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in kept:
            connection.close()


@pytest.mark.parametrize(("scheme", "start_tls"), [("ldap", False), ("ldap", True), ("ldaps", False)])
def test_a_directory_that_says_nothing_raises_in_time(
    scheme: str, start_tls: bool, make_policy: Make
) -> None:
    with silent_server() as port:
        policy = make_policy(url=f"{scheme}://127.0.0.1:{port}", start_tls=start_tls, timeout=1)
        begun = time.monotonic()
        with pytest.raises(LDAPException):
            ask(policy, "ann", "ann's password")
        assert time.monotonic() - begun < 5


# ---- TLS -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ldaps", "start_tls"])
def test_a_secured_connection_to_the_trusted_directory(
    kind: str, make_policy: Make, directory: slapd.Directory
) -> None:
    changes = {"url": directory.tls_url} if kind == "ldaps" else {"start_tls": True}
    decision = ask(make_policy(ca_file=directory.ca_file, **changes), "ann", "ann's password")
    assert decision is not None and decision.reason == "directory-bind"


@pytest.mark.parametrize("kind", ["ldaps", "start_tls"])
@pytest.mark.parametrize("trust", ["system", "another"])
def test_a_certificate_that_is_not_trusted_raises(
    kind: str, trust: str, make_policy: Make, directory: slapd.Directory, tmp_path: Path
) -> None:
    ca_file = "" if trust == "system" else str(slapd.make_certificate(tmp_path)[0])
    changes = {"url": directory.tls_url} if kind == "ldaps" else {"start_tls": True}
    with pytest.raises(LDAPException):
        ask(make_policy(ca_file=ca_file, **changes), "ann", "ann's password")


@pytest.mark.parametrize("kind", ["ldaps", "start_tls"])
def test_a_certificate_for_another_host_raises(
    kind: str, make_policy: Make, directory: slapd.Directory
) -> None:
    url = directory.tls_url if kind == "ldaps" else directory.url
    policy = make_policy(
        url=url.replace("127.0.0.1", "localhost"), start_tls=kind == "start_tls", ca_file=directory.ca_file
    )
    with pytest.raises(LDAPException):
        ask(policy, "ann", "ann's password")


# ---- Settings --------------------------------------------------------------------------------------


SETTINGS = LdapLogin(
    url="ldaps://directory.example.com",
    base="dc=example,dc=com",
    bind_dn="cn=authserver,dc=example,dc=com",
    bind_password=Secret("password"),
)


@pytest.mark.parametrize(
    "url",
    ["ldap://localhost", "ldap://127.0.0.1:389", "ldap://[::1]:389/", "ldaps://directory.example.com:636"],
)
def test_addresses_that_can_be_used(url: str) -> None:
    assert replace(SETTINGS, url=url).url == url


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"url": "ldap://directory.example.com"},
            "url: passwords would be sent without encryption; write ldaps://",
        ),
        ({"url": "ldap://localhost.example.com"}, "url: passwords would be sent without encryption"),
        ({"url": "https://directory.example.com"}, "url: 'https://directory.example.com' cannot be used"),
        ({"url": "directory.example.com"}, "url: 'directory.example.com' cannot be used"),
        ({"url": "ldaps://directory/dc=example??sub"}, "cannot be used; write ldaps://directory.example.com"),
        ({"url": "ldaps://cn=x:y@directory"}, "cannot be used; write ldaps://directory.example.com"),
        ({"url": "ldaps://one ldap://two"}, "url: "),
        ({"url": "ldaps://directory:port"}, "url: "),
        ({"start_tls": True}, "start_tls: an ldaps:// connection is already secure"),
        ({"base": ""}, "base: '' is not a distinguished name"),
        ({"bind_dn": "authserver"}, "bind_dn: 'authserver' is not a distinguished name"),
        ({"group": "staff"}, "group: 'staff' is not a distinguished name"),
        ({"bind_password": Secret("")}, "bind_password: is empty"),
        ({"user_filter": "uid={username}"}, "user_filter: 'uid={username}' is not a filter"),
        ({"user_filter": "((uid={username})"}, "user_filter: '((uid={username})' is not a filter"),
        ({"user_filter": "(uid=%s)"}, "user_filter: '(uid=%s)' does not use the user name"),
        ({"group_filter": "(cn=staff)"}, "group_filter: '(cn=staff)' does not use the user name"),
        ({"ca_file": "/nowhere.pem"}, "ca_file: there is no file /nowhere.pem"),
        ({"timeout": 0}, "timeout: must be 1 to 60"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        replace(SETTINGS, **settings)  # one of them is wrong
    assert message in str(refusal.value)


def identity(policy: LdapLogin, username: str, password: str) -> Identity:
    decision = ask(policy, username, password)
    assert decision is not None and decision.reason == "directory-bind"
    assert isinstance(decision.value, Identity)
    return decision.value


def test_groups_and_attributes_are_read_where_the_settings_say_so(make_policy: Make) -> None:
    policy = make_policy(groups_base=slapd.GROUPS, attributes=("mail", "SN", "roomNumber"))
    ann = identity(policy, "ann", "ann's password")
    assert set(ann.groups or ()) == {"finance", "R&D (Bergen)"}
    assert ann.attributes == {
        "mail": ("ann@example.com", "lee@example.com"),
        "SN": ("Lee",),
        "roomNumber": (),
    }
    assert identity(policy, "cid", "cid's password").groups == ("R&D (Bergen)",)
    # In no group any more is something else than not asked.
    assert identity(policy, "bob", "bob's password").groups == ()
    unset = identity(make_policy(), "ann", "ann's password")
    assert (unset.groups, unset.attributes) == (None, None)


def test_only_the_groups_that_are_named_count(make_policy: Make) -> None:
    policy = make_policy(groups_base=slapd.GROUPS, groups=("finance", "board"))
    assert identity(policy, "ann", "ann's password").groups == ("finance",)
    by_member = make_policy(groups_base=slapd.GROUPS, group_filter="(&(cn=fin*)(member={dn}))")
    assert identity(by_member, "ann", "ann's password").groups == ("finance",)


def test_groups_that_cannot_be_searched_are_a_fault(make_policy: Make) -> None:
    """R-14: nobody is signed in as a person without groups because a setting is wrong."""
    with pytest.raises(LDAPNoSuchObjectResult):
        ask(make_policy(groups_base=f"ou=away,{slapd.SUFFIX}"), "ann", "ann's password")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups_base": "groups"}, "groups_base: 'groups' is not a distinguished name"),
        ({"groups": ("finance",)}, "groups: nothing is searched; set groups_base"),
        ({"groups_attribute": " "}, "groups_attribute: is empty"),
    ],
)
def test_wrong_settings_of_groups_are_refused(
    make_policy: Make, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError) as refusal:
        make_policy(**settings)
    assert message in str(refusal.value)
