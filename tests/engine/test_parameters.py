"""Reading parameters and scopes: one reading, whoever sends what."""

from __future__ import annotations

import re
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver.engine.errors import InvalidRequest, InvalidScope
from authserver.engine.parameters import Parameters, scope_set
from authserver.limits import MAXIMUM_SCOPE

DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5B\x5D-\x7E]+")
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def test_a_value_is_percent_decoded_once() -> None:
    parameters = Parameters.parse(b"state=a%2Bb+c%2525&redirect_uri=https%3A%2F%2Fapp.example%2Fcb")
    assert parameters.get("state") == "a+b c%25"
    assert parameters.require("redirect_uri") == "https://app.example/cb"


def test_a_value_outside_ascii_may_be_encoded_or_not() -> None:
    assert Parameters.parse("name=Bl%C3%A5b%C3%A6r").get("name") == "Blåbær"
    assert Parameters.parse("name=Blåbær".encode()).get("name") == "Blåbær"


def test_an_empty_value_counts_as_not_sent() -> None:
    """B-03"""
    parameters = Parameters.parse("code_challenge=&state&resource=&resource=https://a.example")
    assert parameters.get("code_challenge") is None
    assert parameters.get("state") is None
    assert "code_challenge" not in parameters
    assert parameters.all("resource") == ("https://a.example",)
    with pytest.raises(InvalidRequest, match=r"^code_challenge is missing$"):
        parameters.require("code_challenge")


def test_only_an_ampersand_separates() -> None:
    """T013"""
    parameters = Parameters.parse("scope=a;client_id=b&client_id=c")
    assert parameters.get("scope") == "a;client_id=b"
    assert parameters.get("client_id") == "c"


@pytest.mark.parametrize(
    "encoded",
    ["client_id=a&client_id=b", "client_id=a&client_id=a", "client_id=a&client_id=", "client_id&client_id"],
)
def test_a_repeated_parameter_cannot_be_read(encoded: str) -> None:
    """T012, B-04: also when the values are equal or one of them is empty."""
    parameters = Parameters.parse(encoded)
    with pytest.raises(InvalidRequest, match=r"^client_id occurs more than once$"):
        parameters.get("client_id")
    with pytest.raises(InvalidRequest, match=r"^client_id occurs more than once$"):
        parameters.refuse_repeated()


def test_only_resource_may_repeat() -> None:
    """T012, B-04, O-01"""
    parameters = Parameters.parse("resource=https://a.example&x=1&resource=https://b.example")
    parameters.refuse_repeated()
    assert parameters.all("resource") == ("https://a.example", "https://b.example")
    assert "resource" in parameters
    with pytest.raises(InvalidRequest):
        parameters.refuse_repeated(allowed=frozenset())


def test_unknown_parameters_may_not_repeat_either() -> None:
    """B-04"""
    with pytest.raises(InvalidRequest, match=r"^a parameter occurs more than once$"):
        Parameters.parse("X%22%0A=1&X%22%0A=2").refuse_repeated()


@pytest.mark.parametrize(
    "encoded",
    [b"a=%FF", b"a=\xff", b"%C3=1", b"a=%ED%A0%80", b"a=\xed\xa0\x80", "a=\ud800", "a=%C0%AF", "a=%C3é"],
)
def test_what_is_not_utf_8_is_refused(encoded: bytes | str) -> None:
    """T015: overlong forms and surrogates included."""
    with pytest.raises(InvalidRequest, match="not valid UTF-8"):
        Parameters.parse(encoded)


@pytest.mark.parametrize("encoded", [b"a=%00", b"a%00b=1", b"a=\0", "state=x%00"])
def test_nul_is_refused(encoded: bytes | str) -> None:
    """T015"""
    with pytest.raises(InvalidRequest, match="NUL"):
        Parameters.parse(encoded)


def test_an_encoded_percent_sign_before_zeros_is_no_nul() -> None:
    assert Parameters.parse("a=%2500").get("a") == "%00"


def test_a_hundred_parameters_are_read_and_no_more() -> None:
    """T137"""
    assert Parameters.parse("&".join(f"a{n}=1" for n in range(100))).get("a99") == "1"
    with pytest.raises(InvalidRequest, match="too many"):
        Parameters.parse("&".join(f"a{n}=1" for n in range(101)))
    with pytest.raises(InvalidRequest, match="too many"):
        Parameters.parse(b"&" * 200_000)


def test_a_name_or_value_has_at_most_8192_characters() -> None:
    """T137: counted after decoding."""
    assert Parameters.parse("state=" + "%61" * 8192).get("state") == "a" * 8192
    for encoded in ("state=" + "a" * 8193, "a" * 8193 + "=1"):
        with pytest.raises(InvalidRequest, match="too long"):
            Parameters.parse(encoded)


UNREADABLE = (b"%FF", b"\xff", b"%00", b"a" * 8193)


@pytest.mark.parametrize("value", UNREADABLE, ids=["encoded", "raw", "NUL", "long"])
def test_an_unreadable_value_spoils_its_own_parameter_alone(value: bytes) -> None:
    """B-25.b: what needs the others can be decided; nothing takes the parameter for one that was not sent."""
    parameters = Parameters.parse_readable(b"client_id=c&state=" + value + b"&scope=read")
    assert (parameters.get("client_id"), parameters.get("scope")) == ("c", "read")
    assert "state" in parameters
    for reading in (lambda: parameters.get("state"), parameters.refuse_unreadable):
        with pytest.raises(InvalidRequest, match=r"UTF-8|NUL|too long"):
            reading()
    assert Parameters.parse(parameters.encoded()).get("state") is None
    assert parameters.only("client_id").get("state") is None
    with pytest.raises(InvalidRequest):
        parameters.only("client_id", "state").get("state")
    parameters.without("state").refuse_unreadable()
    with pytest.raises(InvalidRequest):
        Parameters.parse(b"client_id=c&state=" + value)


@pytest.mark.parametrize("value", UNREADABLE, ids=["encoded", "raw", "NUL", "long"])
def test_an_unreadable_value_beside_a_readable_one_is_a_repeat(value: bytes) -> None:
    """T012, B-04: the readable one does not count alone."""
    for encoded in (b"state=a&state=" + value, b"state=" + value + b"&state=a"):
        parameters = Parameters.parse_readable(encoded)
        for kept in (parameters, parameters.only("state"), parameters.without("scope")):
            with pytest.raises(InvalidRequest, match="more than once"):
                kept.get("state")


@pytest.mark.parametrize("name", UNREADABLE, ids=["encoded", "raw", "NUL", "long"])
def test_an_unreadable_name_spoils_everything(name: bytes) -> None:
    """T015: nobody can say what was meant."""
    with pytest.raises(InvalidRequest):
        Parameters.parse_readable(b"client_id=c&" + name + b"=1")


def test_parameters_cannot_be_changed_and_show_nothing() -> None:
    """R-04"""
    parameters = Parameters.parse("client_secret=hush")
    with pytest.raises(AttributeError):
        parameters._pairs = ()  # that it is refused is the point
    assert "hush" not in repr(parameters)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=20))
def test_what_was_encoded_is_read_again(pairs: list[tuple[str, str]]) -> None:
    """T012: `encoded` loses neither order nor repeats, so a resumed request is the request."""
    parameters = Parameters.parse(urlencode(pairs))
    assert Parameters.parse(parameters.encoded()) == parameters
    for name, value in pairs:
        if value:
            assert value in parameters.all(name)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100) | st.text(max_size=100) | st.text("ab=&;%0C3fé+", max_size=100))
def test_anything_is_read_or_refused_in_clean_words(encoded: bytes | str) -> None:
    """T015, B-20: no other exception, and no description repeats what was sent."""
    read = _read(encoded)
    if isinstance(read, InvalidRequest):
        assert DESCRIPTION.fullmatch(read.description)
    else:
        assert Parameters.parse(read.encoded()) == read


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_a_repeated_name_is_repeated_back_only_if_it_is_plain(name: str) -> None:
    """B-20"""
    encoded = f"{quote_plus(name)}=1"
    parameters = Parameters.parse(f"{encoded}&{encoded}")
    with pytest.raises(InvalidRequest) as refused:
        parameters.get(name)
    assert DESCRIPTION.fullmatch(refused.value.description)
    assert re.match(r"[a-z_]{1,40} occurs|a parameter occurs", refused.value.description)


def test_a_scope_is_a_case_sensitive_set_in_the_order_sent() -> None:
    """B-12"""
    assert scope_set("write read Read read") == ("write", "read", "Read")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        " read",
        "read ",
        "read  write",
        "read\twrite",
        "read\n",
        'a"b',
        "a\\b",
        "rød",
        "a\x7f",
        "a\0",
        "a\ud800",
    ],
)
def test_a_scope_outside_the_grammar_is_refused(text: str) -> None:
    """T016, B-10: RFC 6749, 3.3"""
    with pytest.raises(InvalidScope):
        scope_set(text)


def test_a_scope_is_as_long_as_all_that_a_server_may_have() -> None:
    """B206, T016: how many there are does not count."""
    assert len(scope_set("a " * (MAXIMUM_SCOPE // 2 - 1) + "b")) == 2
    assert len(scope_set(" ".join(f"s{n}" for n in range(700)))) == 700
    assert scope_set("a" * MAXIMUM_SCOPE) == ("a" * MAXIMUM_SCOPE,)
    with pytest.raises(InvalidScope, match="too long"):
        scope_set("a" * (MAXIMUM_SCOPE + 1))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30) | st.text('ab "\\~!', max_size=30))
def test_an_accepted_scope_holds_nothing_that_could_break_a_header(text: str) -> None:
    """T016, B-20"""
    tokens = _scopes(text)
    if isinstance(tokens, InvalidScope):
        assert DESCRIPTION.fullmatch(tokens.description)
    else:
        assert all(re.fullmatch(r"[\x21\x23-\x5B\x5D-\x7E]+", token) for token in tokens)
        assert set(tokens) == set(text.split(" "))


def _read(encoded: bytes | str) -> Parameters | InvalidRequest:
    try:
        parameters = Parameters.parse(encoded)
        parameters.refuse_repeated()
    except InvalidRequest as refusal:
        return refusal
    return parameters


def _scopes(text: str) -> tuple[str, ...] | InvalidScope:
    try:
        return scope_set(text)
    except InvalidScope as refusal:
        return refusal


SENT = Parameters.parse("scope=a&resource=b&resource=c&state=&client_id=d")


@pytest.mark.parametrize(
    ("kept", "pairs"),
    [
        (SENT.without("scope", "state"), [("resource", "b"), ("resource", "c"), ("client_id", "d")]),
        (SENT.only("resource", "client_id"), [("resource", "b"), ("resource", "c"), ("client_id", "d")]),
        (SENT.without("nothing"), list(SENT.pairs())),
        (SENT.only("nothing"), []),
    ],
)
def test_a_part_of_the_parameters_is_as_it_was_sent(kept: Parameters, pairs: list[tuple[str, str]]) -> None:
    """B-04: in the same order; what repeats, repeats still, and what is left out is as if it had not been sent."""
    assert list(kept.pairs()) == pairs
    assert kept == Parameters.of(pairs)
    assert kept.names() == {name for name, _ in pairs}
    assert ("resource" in kept) == ("resource" in dict(pairs))
    if "resource" in kept:
        with pytest.raises(InvalidRequest, match="resource"):
            kept.get("resource")
    assert kept.get("client_id") == dict(pairs).get("client_id")


def test_the_names_are_those_that_were_sent_without_a_value_and_unreadable_too() -> None:
    assert SENT.names() == {"scope", "resource", "state", "client_id"}
    assert Parameters.parse_readable(b"state=%FF&scope=a").names() == {"state", "scope"}


@pytest.mark.parametrize(
    ("sent", "pairs"),
    [
        ("scope=a", [("scope", "a"), ("resource", "r")]),
        ("scope=&state=s", [("state", "s"), ("scope", "d"), ("resource", "r")]),
        ("scope=a&resource=b", [("scope", "a"), ("resource", "b")]),
        ("", [("scope", "d"), ("resource", "r")]),
    ],
)
def test_a_default_stands_for_what_was_not_sent_or_is_empty(sent: str, pairs: list[tuple[str, str]]) -> None:
    parameters = Parameters.parse(sent).with_defaults({"scope": "d", "resource": "r"})
    assert list(parameters.pairs()) == pairs
    assert parameters == Parameters.of(pairs)


def test_defaults_take_nothing_from_what_repeats_or_cannot_be_read() -> None:
    """B-04, B-25.b"""
    repeated = Parameters.parse("scope=a&scope=b&state=s").with_defaults({"resource": "r"})
    unreadable = Parameters.parse_readable(b"scope=%FF&state=s").with_defaults({"resource": "r"})
    for parameters in (repeated, unreadable):
        assert (parameters.get("state"), parameters.get("resource")) == ("s", "r")
        with pytest.raises(InvalidRequest):
            parameters.get("scope")
