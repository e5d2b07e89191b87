"""Which header is believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from authserver.api import Decision, Identity, Secret, allow, deny
from authserver_header_login import HeaderLogin

NOTHING = Secret("")


def ask(
    policy: HeaderLogin,
    headers: dict[str, str],
    *,
    username: str = "",
    password: Secret = NOTHING,
    source: str = "192.0.2.1",
) -> Decision | None:
    return policy.login_decision(username=username, password=password, headers=headers, source=source)


def test_the_proxys_header_is_believed(policy: HeaderLogin, secret: str) -> None:
    headers = {"x-remote-user": "ann", "x-remote-name": "Ann Lee", "x-proxy-secret": secret}
    expected = Identity(username="ann", display_name="Ann Lee", methods=())
    assert ask(policy, headers) == allow("proxy-vouches", expected)
    assert ask(replace(policy, methods=("mfa",)), headers) == allow(
        "proxy-vouches", replace(expected, methods=("mfa",))
    )


def test_without_the_header_it_is_silent_whatever_else_there_is(policy: HeaderLogin, secret: str) -> None:
    assert ask(policy, {}) is None
    assert ask(policy, {"x-proxy-secret": secret, "x-remote-name": "Ann Lee"}) is None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "proxy-secret-missing"),
        ({"x-proxy-secret": ""}, "proxy-secret-wrong"),
        ({"x-proxy-secret": "a long secret of the proxy, nothing a browser knew"}, "proxy-secret-wrong"),
        ({"x-proxy-secret": "gl\u00fcck"}, "proxy-secret-wrong"),
    ],
)
def test_a_header_without_the_secret_is_refused(
    headers: dict[str, str], reason: str, policy: HeaderLogin
) -> None:
    """Q-10."""
    assert ask(policy, {"x-remote-user": "ann", **headers}) == deny(reason)


def test_a_secret_that_came_twice_is_wrong(policy: HeaderLogin, secret: str) -> None:
    headers = {"x-remote-user": "ann", "x-proxy-secret": f"{secret}, {secret}"}
    assert ask(policy, headers) == deny("proxy-secret-wrong")


@pytest.mark.parametrize("named", ["ann,eve", "ann, ann", "ann,", ","])
def test_a_header_that_came_twice_is_refused(named: str, policy: HeaderLogin, secret: str) -> None:
    assert ask(policy, {"x-remote-user": named, "x-proxy-secret": secret}) == deny("header-twice")


@pytest.mark.parametrize("named", ["", " "])
def test_an_empty_header_is_refused(named: str, policy: HeaderLogin, secret: str) -> None:
    assert ask(policy, {"x-remote-user": named, "x-proxy-secret": secret}) == deny("name-missing")


@pytest.mark.parametrize(
    "named", ["CORP\\ann", "o'brien@example.com", "svc$", "m&a@example.com", "a/b@example.com"]
)
def test_a_name_is_taken_as_the_proxy_has_it(named: str, policy: HeaderLogin, secret: str) -> None:
    """B202: whether it can be a user name, the server knows."""
    decision = ask(policy, {"x-remote-user": named, "x-proxy-secret": secret})
    assert decision == allow("proxy-vouches", Identity(username=named, methods=()))


@pytest.mark.parametrize(
    ("wire", "name"),
    [
        (" Ann ", "Ann"),
        ("ann@example.com", "ann@example.com"),
        ("J\u00f8rgen".encode().decode("latin-1"), "J\u00f8rgen"),
        ("J\u00f8rgen", "J\u00f8rgen"),  # a proxy that sends Latin-1
        ("\u4e2d", "\u4e2d"),  # what no WSGI server hands over
    ],
)
def test_names_are_read_as_utf_8_and_else_as_latin_1(
    wire: str, name: str, policy: HeaderLogin, secret: str
) -> None:
    headers = {"x-remote-user": wire, "x-remote-name": wire, "x-proxy-secret": secret}
    decision = ask(policy, headers)
    assert decision == allow("proxy-vouches", Identity(username=name, display_name=name, methods=()))


def test_who_typed_something_is_for_others_to_recognise(policy: HeaderLogin, secret: str) -> None:
    headers = {"x-remote-user": "ann", "x-proxy-secret": secret}
    assert ask(policy, headers, username="bob", password=Secret("guess")) is None
    # A typed name that is no name arrives as none.
    assert ask(policy, headers, password=Secret("guess")) is None


def test_a_forged_header_is_refused_whoever_types_what(policy: HeaderLogin) -> None:
    forged = {"x-remote-user": "ann"}
    assert ask(policy, forged, username="bob", password=Secret("right")) == deny("proxy-secret-missing")


@pytest.mark.parametrize("source", ["10.0.0.7", "::ffff:10.0.0.7", "10.1.0.255", "fd00::1"])
def test_a_proxy_is_known_by_its_network(source: str) -> None:
    policy = HeaderLogin(networks=("10.0.0.7", "10.1.0.0/24", "fd00::/8"))
    decision = ask(policy, {"x-remote-user": "ann"}, source=source)
    assert decision == allow("proxy-vouches", Identity(username="ann", methods=()))


@pytest.mark.parametrize(
    "source", ["10.0.0.8", "10.1.1.0", "fe80::1", "::ffff:10.0.0.8", "", "unix:/run/as", "10.0.0.7, 1.2.3.4"]
)
def test_an_address_outside_the_networks_is_refused(source: str) -> None:
    policy = HeaderLogin(networks=("10.0.0.7", "10.1.0.0/24", "fd00::/8"))
    assert ask(policy, {"x-remote-user": "ann"}, source=source) == deny("not-from-proxy")


def test_where_both_are_set_both_must_be_right(policy: HeaderLogin, secret: str) -> None:
    both = replace(policy, networks=("10.0.0.7",))
    right = {"x-remote-user": "ann", "x-proxy-secret": secret}
    assert ask(both, right, source="10.0.0.8") == deny("not-from-proxy")
    assert ask(both, {"x-remote-user": "ann"}, source="10.0.0.7") == deny("proxy-secret-missing")
    decision = ask(both, right, source="10.0.0.7")
    assert decision is not None and decision.reason == "proxy-vouches"


LONG = Secret("x" * 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "neither proxy_secret nor networks is set"),
        ({"proxy_secret": Secret("x" * 31)}, "proxy_secret: a secret has at least 32"),
        ({"networks": ("10.0.0.7/24",)}, "networks: 10.0.0.7/24 has host bits set"),
        ({"networks": ("proxy",)}, "networks: 'proxy'"),
        ({"proxy_secret": LONG, "header": "X-Remote-User"}, "header: 'X-Remote-User'"),
        ({"proxy_secret": LONG, "header": "x_remote_user"}, "header: 'x_remote_user'"),
        ({"proxy_secret": LONG, "header": ""}, "header: ''"),
        ({"proxy_secret": LONG, "header": "authorization"}, "header: 'authorization'"),
        ({"proxy_secret": LONG, "name_header": "x-proxy-secret"}, "name_header: 'x-proxy-secret'"),
        ({"proxy_secret": LONG, "name_header": "x-remote-user"}, "name_header: must be another"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        HeaderLogin(**settings)  # one of them is wrong
    assert message in str(refusal.value)


TELLING = HeaderLogin(
    proxy_secret=LONG,
    groups_header="x-remote-groups",
    attribute_headers=(("department", "x-remote-department"), ("room", "x-remote-room")),
)


def told(policy: HeaderLogin, **headers: str) -> Decision | None:
    named = {f"x-remote-{name}": text for name, text in headers.items()}
    return ask(policy, {"x-remote-user": "ann", "x-proxy-secret": LONG.value, **named})


def test_groups_and_attributes_are_what_the_proxy_says() -> None:
    decision = told(TELLING, groups=" staff; finance;", department="Zürich".encode().decode("latin-1"))
    assert decision is not None
    assert decision.value.groups == ("staff", "finance")
    assert decision.value.attributes == {"department": ("Zürich",), "room": ()}


def test_a_header_says_how_the_proxy_made_sure() -> None:
    """It counts in place of the setting, so that a sign-in without it has proven nothing by a second factor."""
    policy = HeaderLogin(proxy_secret=LONG, methods=("pwd",), methods_header="x-remote-methods")
    for headers, methods in (
        ({"methods": "pwd; otp"}, ("pwd", "otp")),
        ({"methods": ""}, ()),
        ({}, ()),
    ):
        decision = told(policy, **headers)
        assert decision is not None and decision.value.methods == methods
    assert told(policy, methods="pwd, otp") == deny("header-twice")


def test_a_missing_header_means_no_group_and_no_setting_says_nothing(
    policy: HeaderLogin, secret: str
) -> None:
    """Some proxies leave out an empty header; who is in no group any more must not stay in the old ones."""
    decision = told(TELLING)
    assert decision is not None
    assert (decision.value.groups, decision.value.attributes) == ((), {"department": (), "room": ()})
    headers = {"x-remote-user": "ann", "x-proxy-secret": secret, "x-remote-groups": "admins"}
    unset = ask(policy, headers)
    assert unset is not None and (unset.value.groups, unset.value.attributes) == (None, None)


@pytest.mark.parametrize("header", ["groups", "department"])
def test_groups_that_came_twice_are_refused(header: str) -> None:
    assert told(TELLING, **{header: "admins, staff"}) == deny("header-twice")
    decision = told(replace(TELLING, separator=","), groups="admins, staff")
    assert decision is not None and decision.value.groups == ("admins", "staff")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups_header": "X-Groups"}, "groups_header: 'X-Groups'"),
        ({"methods_header": "x-remote-user"}, "methods_header: must be another header than `header`"),
        ({"groups_header": "x-remote-user"}, "groups_header: must be another header than `header`"),
        ({"attribute_headers": (("a", "cookie"),)}, "attribute_headers, a: 'cookie'"),
        ({"attribute_headers": (("a", "x"), ("b", "x"))}, "attribute_headers, b: must be another"),
        ({"separator": ""}, "separator: ''"),
        ({"separator": ";;"}, "separator: ';;'"),
        ({"separator": "x"}, "separator: 'x'"),
    ],
)
def test_wrong_headers_of_groups_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        HeaderLogin(proxy_secret=LONG, **settings)  # one of them is wrong
    assert message in str(refusal.value)
