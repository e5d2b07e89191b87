"""Which client metadata is accepted at POST /oauth/register, member by member (RFC 7591, 2)."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

REGISTER = "/oauth/register"
WEB = {"redirect_uris": ["https://client.example/cb"]}
LINKS = ("client_uri", "logo_uri", "tos_uri", "policy_uri", "jwks_uri")
DEEP = "[" * 20_000 + "]" * 20_000


def register(server, metadata):
    """Register this: bytes as they are, anything else as JSON."""
    body = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    return server.http.post(server.path(REGISTER), body, content_type="application/json", expect_errors=True)


def stored(server):
    """How much there is of what a registration could leave behind; a refusal leaves its own event only."""
    statement = sa.text(
        "SELECT (SELECT count(*) FROM clients), (SELECT count(*) FROM client_secrets),"
        " (SELECT count(*) FROM client_origins), (SELECT count(*) FROM grants), (SELECT count(*) FROM tokens),"
        " (SELECT count(*) FROM events WHERE type <> 'registration.refused')"
    )
    with server.application.storage.engine.connect() as connection:
        return tuple(connection.execute(statement).one())


def assert_refused(server, metadata, error="invalid_client_metadata"):
    before = stored(server)
    answer = register(server, metadata)
    assert (answer.status_int, answer.json["error"]) == (400, error), answer.text
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert stored(server) == before
    return answer


def assert_registered(server, metadata):
    answer = register(server, metadata)
    assert answer.status_int == 201, answer.text
    return answer.json


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"true",
        b"17",
        b'"text"',
        b"[]",
        b'[{"redirect_uris": ["https://client.example/cb"]}]',
        b"{",
        b"{}{}",
        b'{"redirect_uris": ["https://client.example/cb"],}',
        b"{'redirect_uris': []}",
        b'\xef\xbb\xbf{"redirect_uris": ["https://client.example/cb"]}',
        b'{"client_name": "\xff\xfe", "redirect_uris": ["https://client.example/cb"]}',
        '{"redirect_uris": ["https://client.example/cb"]}'.encode("utf-16"),
        b'{"redirect_uris": ["https://evil.example/"], "redirect_uris": ["https://client.example/cb"]}',
        b'{"x": {"a": 1, "a": 2}, "redirect_uris": ["https://client.example/cb"]}',
        b'{"x": NaN, "redirect_uris": ["https://client.example/cb"]}',
        b'{"x": -Infinity, "redirect_uris": ["https://client.example/cb"]}',
        b'{"x": 1e999, "redirect_uris": ["https://client.example/cb"]}',
        b'{"x": ' + b"9" * 5000 + b', "redirect_uris": ["https://client.example/cb"]}',
        b'{"x": ' + DEEP.encode()[:8000] + b"}",
        DEEP.encode(),
        b'{"a":' * 3000,
        b'{"x": "\\ud800", "redirect_uris": ["https://client.example/cb"]}',
        b'{"client_name": "a\\u0000b", "redirect_uris": ["https://client.example/cb"]}',
    ],
    ids=range(26),
)
def test_what_is_no_strict_json_object_is_refused(shared_server, body):
    """K-06, T062: scalars, arrays, duplicate names, NaN, giant numbers, depth, other encodings: 400, never a 500."""
    assert_refused(shared_server, body)


@pytest.mark.parametrize(
    "redirect_uris",
    [
        None,
        [],
        "https://client.example/cb",
        {"0": "https://client.example/cb"},
        17,
        [None],
        [17],
        [["https://client.example/cb"]],
        [""],
        ["https://client.example/cb", None],
        ["/cb"],
        ["client.example/cb"],
        ["https://client.example/cb#"],
        ["https://client.example/cb#fragment"],
        ["https://user@client.example/cb"],
        ["https://*.client.example/cb"],
        ["https://client.example/*"],
        ["https://client.example/a/../cb"],
        ["http://client.example/cb"],
        ["javascript:alert(1)"],
        ["data:text/html,<script>alert(1)</script>"],
        ["file:///etc/passwd"],
        ["myapp:/cb"],
        ["com.example.app://cb"],
        ["https://client.example/cb?code=x"],
        ["https://client.example/c b"],
        ["https://client.example/cb\n"],
        ["https://xn--\N{SNOWMAN}.example/cb"],
        ["https://cli\N{CYRILLIC SMALL LETTER IE}nt.example/cb"],
        ["https://client.example/" + "a" * 2048],
        ["https://client.example/cb", "http://evil.example/"],
        [f"https://client.example/{number}" for number in range(11)],
        [f"https://client.example/{number}" for number in range(60)],
    ],
    ids=str,
)
def test_a_bad_redirect_uri_is_refused(shared_server, redirect_uris):
    """K-05, T131: one bad URI among good ones suffices, and there are at most 10."""
    assert_refused(shared_server, {"redirect_uris": redirect_uris}, "invalid_redirect_uri")


def test_a_missing_redirect_uri_is_refused(shared_server):
    """K-05: the code grant, be it by default, cannot do without."""
    assert_refused(shared_server, {}, "invalid_redirect_uri")
    assert_refused(shared_server, {"grant_types": ["authorization_code"]}, "invalid_redirect_uri")


def test_ten_redirect_uris_are_accepted(shared_server):
    """T131: the limit is not one less."""
    uris = [f"https://client.example/{number}" for number in range(10)]
    assert assert_registered(shared_server, {"redirect_uris": uris})["redirect_uris"] == uris


@pytest.mark.parametrize(
    "changes",
    [
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "None"},
        {"token_endpoint_auth_method": ""},
        {"grant_types": ["implicit"]},
        {"grant_types": ["password"]},
        {"grant_types": ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"]},
        {"grant_types": ["refresh_token"]},
        {"grant_types": ["refresh_token"], "response_types": []},
        {"grant_types": ["client_credentials"], "response_types": ["code"]},
        {"grant_types": ["client_credentials"], "token_endpoint_auth_method": "none"},
        {"grant_types": ["authorization_code"], "response_types": []},
        {"grant_types": ["authorization_code"], "response_types": ["token"]},
        {"response_types": ["code", "token"]},
        {"response_types": ["code id_token"]},
        {"response_types": ["Code"]},
        {"jwks": {"keys": []}, "jwks_uri": "https://client.example/jwks"},
        {"scope": "no.such.scope"},
        {"scope": "profile  files.read"},
        {"scope": " profile"},
        {"scope": 'pro"file'},
        {"scope": " ".join(f"scope{number}" for number in range(51))},
        {"application_type": "service"},
        {"application_type": "WEB"},
        {"contacts": ["a" * 201]},
        {"contacts": ["line\nbreak"]},
        {"contacts": [f"{number}@client.example" for number in range(51)]},
        {"software_id": "a" * 2001},
    ],
    ids=str,
)
def test_any_other_bad_value_is_refused(shared_server, changes):
    """K-06: unsupported methods and grants, grant and response types that disagree, jwks with jwks_uri."""
    assert_refused(shared_server, {**WEB, **changes})


STRINGS = (
    "client_name",
    "token_endpoint_auth_method",
    "scope",
    "application_type",
    "software_id",
    "software_version",
    "software_statement",
    "client_name#ja",
    "tos_uri#fr",
    *LINKS,
)
ARRAYS = ("grant_types", "response_types", "contacts")


@pytest.mark.parametrize("value", [None, 17, 1.5, True, [], ["text"], {}], ids=str)
@pytest.mark.parametrize("name", STRINGS)
def test_a_string_member_of_another_type_is_refused(shared_server, name, value):
    """K-06, T134: null, numbers, arrays and objects, localised members too."""
    assert_refused(shared_server, {**WEB, name: value})


@pytest.mark.parametrize(
    "value", [None, 17, False, "code", {}, {"0": "code"}, [None], [17], [["code"]]], ids=str
)
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_member_of_another_type_is_refused(shared_server, name, value):
    """K-06, T134: an array of strings and nothing that some language would take for one."""
    assert_refused(shared_server, {**WEB, name: value})


@pytest.mark.parametrize("value", [None, 17, "text", []], ids=str)
def test_jwks_of_another_type_is_refused(shared_server, value):
    """K-06: a JWK Set is an object."""
    assert_refused(shared_server, {**WEB, "jwks": value})


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        "a\tb",
        "a\x1bb",
        "a\x7fb",
        "a\x85b",
        "Bank\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
        "\N{LEFT-TO-RIGHT ISOLATE}Bank\N{POP DIRECTIONAL ISOLATE}",
        "\N{ARABIC LETTER MARK}Bank",
        "Ba\N{ZERO WIDTH SPACE}nk",
        "Ba\N{ZERO WIDTH JOINER}nk",
        "Ba\N{ZERO WIDTH NO-BREAK SPACE}nk",
        "Ba\N{WORD JOINER}nk",
        "Ba\N{SOFT HYPHEN}nk",
        "Ba\N{COMBINING GRAPHEME JOINER}nk",
        "Ba\N{VARIATION SELECTOR-16}nk",
        "\N{HANGUL FILLER}",
        "\N{BRAILLE PATTERN BLANK}",
        "Bank\N{LINE SEPARATOR}",
        "Bank\N{PARAGRAPH SEPARATOR}",
        "Bank\N{TAG LATIN SMALL LETTER A}",
        "\ue000",
        "\ufffe",
        "a" * 101,
    ],
    ids=ascii,
)
@pytest.mark.parametrize("member", ["client_name", "client_name#ja"])
def test_a_name_holds_nothing_unseen(shared_server, member, name):
    """T094, T134: control, bidi, zero-width and filler characters are refused, and more than 100 characters."""
    assert_refused(shared_server, {**WEB, member: name})


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "日本語", "Ünïcödé 🖨", "a" * 100, '"; DROP TABLE', "{{ 7*7 }}"]
)
def test_a_name_that_is_only_odd_is_kept_as_it_is(shared_server, name):
    """T094: escaping is the pages' affair; nothing visible is forbidden."""
    assert assert_registered(shared_server, {**WEB, "client_name": name})["client_name"] == name


@pytest.mark.parametrize("name", ["", "   ", "\N{IDEOGRAPHIC SPACE}"])
def test_a_blank_name_is_none(shared_server, name):
    """T094, K-04: the client goes by its id then, and the answer shows it."""
    registered = assert_registered(shared_server, {**WEB, "client_name": name})
    assert registered["client_name"] == registered["client_id"]


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        " javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "http://client.example/",
        "//client.example/",
        "/terms",
        "client.example",
        "https:client.example",
        "https://",
        "https://user:password@client.example/",
        "https://client.example\\@evil.example/",
        "https://client.example/\r\nSet-Cookie: a=b",
        "https://client.example/ ",
        'https://client.example/"onmouseover="alert(1)',
        "https://client.example/\N{RIGHT-TO-LEFT OVERRIDE}",
        "https://client.example/" + "a" * 2048,
        "",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("member", LINKS)
def test_a_link_that_is_not_plain_https_is_refused(shared_server, member, link):
    """T095, K-13: javascript:, data:, http:, relative, and whatever two parsers would read differently."""
    assert_refused(shared_server, {**WEB, member: link})


@pytest.mark.parametrize("member", [f"{name}#fr" for name in LINKS[:4]])
def test_a_localised_link_is_held_to_the_same_rule(shared_server, member):
    """T134: a good one is ignored, a bad one refused."""
    registered = assert_registered(shared_server, {**WEB, member: "https://client.example/fr"})
    assert member not in registered
    assert_refused(shared_server, {**WEB, member: "javascript:alert(1)"})


def test_keys_are_dropped_and_the_answer_shows_it(shared_server):
    """K-04: no method here uses them; what is not in effect is not claimed."""
    registered = assert_registered(shared_server, {**WEB, "jwks_uri": "https://client.example/jwks"})
    assert "jwks_uri" not in registered
    assert "jwks" not in assert_registered(shared_server, {**WEB, "jwks": {"keys": []}})


def test_a_software_statement_is_not_read(shared_server):
    """K-07: nothing of it takes effect, and nothing of it is answered."""
    registered = assert_registered(shared_server, {**WEB, "software_statement": "a.b.c" * 1000})
    assert "software_statement" not in registered


@pytest.mark.parametrize(
    ("application_type", "uri", "accepted"),
    [
        ("web", "https://client.example/cb", True),
        ("web", "https://localhost/cb", False),
        ("web", "https://127.0.0.1/cb", False),
        ("web", "https://[::1]/cb", False),
        ("web", "http://localhost/cb", False),
        ("web", "http://127.0.0.1:8080/cb", False),
        ("web", "com.example.app:/cb", False),
        ("native", "https://client.example/cb", True),
        ("native", "http://127.0.0.1/cb", True),
        ("native", "http://[::1]/cb", True),
        ("native", "http://localhost:8080/cb", True),
        ("native", "com.example.app:/cb", True),
        ("native", "http://client.example/cb", False),
        ("native", "myapp:/cb", False),
    ],
)
def test_the_application_type_is_honoured(shared_server, application_type, uri, accepted):
    """K-12: web needs https that leaves the device; native gets loopback, private-use and claimed https."""
    metadata = {"redirect_uris": [uri], "application_type": application_type}
    if accepted:
        assert assert_registered(shared_server, metadata)["application_type"] == application_type
    else:
        assert_refused(shared_server, metadata, "invalid_redirect_uri")


@pytest.mark.parametrize(
    ("uri", "application_type"),
    [
        ("https://client.example/cb", "web"),
        ("http://127.0.0.1/cb", "native"),
        ("com.example.app:/cb", "native"),
    ],
)
def test_the_application_type_that_is_left_out_follows_from_the_uris(shared_server, uri, application_type):
    """K-03, K-12: and the answer states it."""
    registered = assert_registered(shared_server, {"redirect_uris": [uri]})
    assert registered["application_type"] == application_type


# ---- Any JSON at all ------------------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(), st.integers(min_value=10**400, max_value=10**401), st.floats())
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "https://client.example/cb",
            "http://127.0.0.1/cb",
            "com.example.app:/cb",
            "javascript:alert(1)",
            "authorization_code",
            "refresh_token",
            "client_credentials",
            "code",
            "none",
            "client_secret_post",
            "profile",
            "admin",
            "web",
            "native",
        ]
    ),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(TEXTS, max_size=12), st.dictionaries(TEXTS, inner, max_size=4)
    ),
    max_leaves=12,
)
MEMBERS = (
    *STRINGS,
    *ARRAYS,
    "redirect_uris",
    "jwks",
    "client_id",
    "client_secret",
    "first_party",
    "x",
    "__proto__",
)
METADATA = st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=5).flatmap(
    lambda members: st.sampled_from([members, {**WEB, **members}])
)


def assert_answered(server, body):
    """Registered, or refused with one of the two codes and nothing kept."""
    before = stored(server)
    answer = register(server, body)
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    if answer.status_int == 201:
        assert "client_id" in answer.json
        assert "admin" not in answer.json.get("scope", "").split()
    else:
        assert answer.status_int == 400
        assert answer.json["error"] in ("invalid_client_metadata", "invalid_redirect_uri")
        assert stored(server) == before
    assert "Traceback" not in answer.text


@given(METADATA)
def test_any_metadata_is_registered_or_refused(shared_server, metadata):
    """K-05, K-06, T062, T134: whatever the members hold, 201 or 400 with the right code, never a 500."""
    assert_answered(shared_server, json.dumps(metadata).encode())


@given(st.lists(st.tuples(st.sampled_from(MEMBERS), VALUES), max_size=6))
def test_repeated_members_are_refused(shared_server, pairs):
    """T062: two readers would see different values."""
    body = "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}"
    if len({name for name, _ in pairs}) < len(pairs):
        assert_refused(shared_server, body.encode())
    else:
        assert_answered(shared_server, body.encode())


@given(
    st.one_of(
        VALUES.map(json.dumps).map(str.encode), st.binary(max_size=200), st.text(max_size=200).map(str.encode)
    )
)
def test_any_body_is_registered_or_refused(shared_server, body):
    """K-06, T062: any JSON value, and any bytes that are none."""
    assert_answered(shared_server, body)


@given(depth=st.integers(1, 8000), opening=st.sampled_from(["[", '{"a":', '[{"a":']), closed=st.booleans())
def test_no_depth_exhausts_the_reader(shared_server, depth, opening, closed):
    """T062: RecursionError is for others."""
    closing = "".join({"[": "]", "{": "}"}.get(character, "") for character in reversed(opening))
    body = '{"redirect_uris": ["https://client.example/cb"], "x": ' + opening * depth
    assert_answered(shared_server, (body + ("1" + closing * depth + "}" if closed else "")).encode())
