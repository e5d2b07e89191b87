"""Which client metadata is registered, member by member, and what is left out of it (RFC 7591, 2)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver import app
from authserver.api import Client, ClientMetadata, Decision, ReadMember, allow, deny, hookimpl, read_flag
from authserver.engine import uris
from authserver.engine.clients.registration import add_client, register
from authserver.engine.context import Engine
from authserver.engine.errors import (
    InvalidClientMetadata,
    InvalidRedirectUri,
    InvalidToken,
    OAuthError,
    ServerError,
)
from authserver.engine.records import RegisteredBy
from authserver.limits import MAXIMUM_JSON
from authserver.settings import SettingsError
from authserver.testing.records import NOW
from authserver.testing.rules import over
from authserver.testing.server import SETTINGS, with_plugin
from authserver.testing.stores import MemoryStores

WEB = {"redirect_uris": ["https://client.example/cb"]}
LINKS = ("client_uri", "logo_uri", "tos_uri", "policy_uri", "jwks_uri")
LOOP: dict[str, Any] = {}
LOOP["again"] = LOOP
DEEP = "[" * 20_000 + "]" * 20_000
CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"

Make = Callable[..., Engine]


@pytest.fixture(scope="module")
def make_engine() -> Iterator[Make]:
    """An engine on stores of its own: with a plugin before the others, or with settings of the INI changed."""
    built: dict[str, app.Application] = {}

    def make_engine(
        plugin: str | type | None = None,
        fields: Mapping[str, str] = {},
        *,
        without: tuple[str, ...] = (),
        **settings: str,
    ) -> Engine:
        key = repr((plugin, fields, without, settings))
        if key not in built:
            ini = {**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"}
            ini |= with_plugin(plugin, fields, without=without) if plugin else {}
            ini |= {f"authserver.{name.replace('__', '.')}": value for name, value in settings.items()}
            built[key] = app.build({name: value for name, value in ini.items() if value is not None})
        stores = MemoryStores()
        return Engine.of(over(stores, built[key].parts), stores, NOW)

    yield make_engine
    for application in built.values():
        application.close()


@pytest.fixture
def engine(make_engine: Make) -> Engine:
    return make_engine()


@pytest.fixture
def opened(make_engine: Make) -> Engine:
    """An engine whose operator opened another grant type to everybody."""
    return make_engine(
        plugin__registration_open__grant_types="authorization_code refresh_token client_credentials"
    )


def registered(engine: Engine, metadata: Any) -> dict[str, Any]:
    """What comes back of this: bytes as they are, anything else as JSON; and it is what is kept."""
    body = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    answer = dict(register(engine, body))
    client = engine.stores.clients.find(answer["client_id"], engine.now)
    assert client is not None
    assert client.is_self_registered
    assert answer["scope"] == " ".join(client.scopes) != ""
    assert answer["grant_types"] == list(client.grant_types) != []
    assert answer["response_types"] == list(client.response_types)
    assert answer.get("redirect_uris", []) == list(client.redirect_uris)
    assert answer["application_type"] == client.application_type
    return answer


def assert_refused(engine: Engine, metadata: Any, error: str = "invalid_client_metadata") -> OAuthError:
    """Refused with this code, and nothing is kept."""
    before = stored(engine)
    with pytest.raises(OAuthError) as refused:
        registered(engine, metadata)
    assert (refused.value.status, refused.value.code) == (400, error), refused.value.description
    assert stored(engine) == before
    return refused.value


def stored(engine: Engine) -> tuple[Any, ...]:
    return tuple(engine.stores.clients.list(engine.now)), tuple(engine.journal.events)


# ---- The form --------------------------------------------------------------------------------------


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
def test_what_is_no_strict_json_object_is_refused(engine: Engine, body: Any) -> None:
    """K-06, T062: scalars, arrays, duplicate names, NaN, giant numbers, depth, other encodings: 400, never a 500."""
    assert_refused(engine, body)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"[]", "is not an object"),
        (b'{"client_name": "a", "client_name": "b"}', "holds a name twice"),
        (b'{"client_name": "a\\u0000b"}', "holds a character that is not allowed"),
        (b'{"client_name": "a",}', "is malformed"),
        (b"{" + b" " * MAXIMUM_JSON, "is too large"),
    ],
    ids=range(5),
)
def test_a_body_that_cannot_be_read_is_told_what_is_wrong_with_it(
    engine: Engine, body: bytes, problem: str
) -> None:
    refused = assert_refused(engine, body)
    assert refused.description == f"The body must be a JSON object of at most 16 kB: the JSON {problem}."


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
        ["javascript://client.example/%0aalert(1)"],
        ["https://client.example/cb", "javascript://client.example/%0aalert(1)"],
        ["https://client.example/cb", "file://host/etc/passwd"],
        ["data:text/html,<script>alert(1)</script>"],
        ["file:///etc/passwd"],
        ["myapp:/cb"],
        ["com.example.app:cb"],
        [CURSOR],
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
def test_a_bad_redirect_uri_is_refused(engine: Engine, redirect_uris: Any) -> None:
    """K-05, C-08 to C-10, C-17, T131: a dangerous or malformed one among good ones suffices; there are at most 10."""
    assert_refused(engine, {"redirect_uris": redirect_uris}, "invalid_redirect_uri")


def test_a_missing_redirect_uri_is_refused(engine: Engine) -> None:
    """K-05: the code grant, be it by default, cannot do without."""
    assert_refused(engine, {}, "invalid_redirect_uri")
    assert_refused(engine, {"grant_types": ["authorization_code"]}, "invalid_redirect_uri")


def test_ten_redirect_uris_are_accepted(engine: Engine) -> None:
    """T131: the limit is not one less."""
    uris = [f"https://client.example/{number}" for number in range(10)]
    assert registered(engine, {"redirect_uris": uris})["redirect_uris"] == uris


@pytest.mark.parametrize(
    "changes",
    [
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "None"},
        {"grant_types": ["implicit"]},
        {"grant_types": ["password"]},
        {"grant_types": [JWT_BEARER, DEVICE_CODE]},
        {"grant_types": ["refresh_token"]},
        {"grant_types": ["refresh_token"], "response_types": []},
        {"grant_types": ["client_credentials"], "response_types": ["code"]},
        {"grant_types": ["client_credentials"], "token_endpoint_auth_method": "none"},
        {"grant_types": ["authorization_code"], "response_types": ["token"]},
        {"response_types": ["code id_token"]},
        {"response_types": ["Code"]},
        {"jwks": {"keys": []}, "jwks_uri": "https://client.example/jwks"},
        {"grant_types": ["authorization_code", "a\0b"]},
        {"grant_types": ["authorization_code", "\x1b[2J"]},
        {"grant_types": ["authorization_code", "\u202e"]},
        {"response_types": ["code", "a\0b"]},
        {"scope": "profile  files.read"},
        {"scope": " profile"},
        {"scope": 'pro"file'},
        {"scope": " ".join(f"scope{number}" for number in range(500))},
        {"application_type": "service"},
        {"application_type": "WEB"},
        {"contacts": ["a" * 201]},
        {"contacts": ["line\nbreak"]},
        {"contacts": [f"{number}@client.example" for number in range(51)]},
        {"software_id": "a" * 2001},
    ],
    ids=str,
)
def test_any_other_bad_value_is_refused(engine: Engine, changes: Any) -> None:
    """K-06: unsupported methods and grants, grant and response types that disagree, jwks with jwks_uri."""
    assert_refused(engine, {**WEB, **changes})


STRINGS = (
    "client_name",
    "token_endpoint_auth_method",
    "scope",
    "application_type",
    "software_id",
    "software_version",
    "client_name#ja",
    "tos_uri#fr",
    *LINKS,
)
ARRAYS = ("grant_types", "response_types", "contacts")


@pytest.mark.parametrize("value", [17, 1.5, True, ["text"], [None], [[]], {}], ids=str)
@pytest.mark.parametrize("name", STRINGS)
def test_a_string_member_of_another_type_is_refused(engine: Engine, name: Any, value: Any) -> None:
    """K-06, T134: numbers, arrays and objects, localised members too."""
    assert_refused(engine, {**WEB, name: value})


@pytest.mark.parametrize(
    "value", [17, False, 0, "code", {}, {"0": "code"}, [None], [17], [["code"]], [[]]], ids=str
)
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_member_of_another_type_is_refused(engine: Engine, name: Any, value: Any) -> None:
    """K-06, T134: an array of strings and nothing that some language would take for one."""
    assert_refused(engine, {**WEB, name: value})


@pytest.mark.parametrize("value", [17, "text", ["text"]], ids=str)
def test_jwks_of_another_type_is_refused(engine: Engine, value: Any) -> None:
    """K-06: a JWK Set is an object."""
    assert_refused(engine, {**WEB, "jwks": value})


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
def test_a_name_holds_nothing_unseen(engine: Engine, member: Any, name: Any) -> None:
    """T094, T134: control, bidi, zero-width and filler characters are refused, and more than 100 characters."""
    assert_refused(engine, {**WEB, member: name})


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "日本語", "Ünïcödé 🖨", "a" * 100, '"; DROP TABLE', "{{ 7*7 }}"]
)
def test_a_name_that_is_only_odd_is_kept_as_it_is(engine: Engine, name: Any) -> None:
    """T094: escaping is the pages' affair; nothing visible is forbidden."""
    assert registered(engine, {**WEB, "client_name": name})["client_name"] == name


@pytest.mark.parametrize("name", ["", "   ", "\N{IDEOGRAPHIC SPACE}"])
def test_a_blank_name_is_none(engine: Engine, name: Any) -> None:
    """T094, K-04: the client goes by its id then, and the answer shows it."""
    answer = registered(engine, {**WEB, "client_name": name})
    assert answer["client_name"] == answer["client_id"]


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
    ],
    ids=ascii,
)
@pytest.mark.parametrize("member", LINKS)
def test_a_link_that_is_not_plain_https_is_refused(engine: Engine, member: Any, link: Any) -> None:
    """T095, K-13: javascript:, data:, http:, relative, and whatever two parsers would read differently."""
    assert_refused(engine, {**WEB, member: link})


@pytest.mark.parametrize("member", [f"{name}#fr" for name in LINKS[:4]])
def test_a_localised_link_is_held_to_the_same_rule(engine: Engine, member: Any) -> None:
    """T134: a good one is ignored, a bad one refused."""
    answer = registered(engine, {**WEB, member: "https://client.example/fr"})
    assert member not in answer
    assert_refused(engine, {**WEB, member: "javascript:alert(1)"})


def test_keys_are_dropped_and_the_answer_shows_it(engine: Engine) -> None:
    """K-04: no method here uses them; what is not in effect is not claimed."""
    answer = registered(engine, {**WEB, "jwks_uri": "https://client.example/jwks"})
    assert "jwks_uri" not in answer
    assert "jwks" not in registered(engine, {**WEB, "jwks": {"keys": []}})


def test_a_software_statement_is_not_read(engine: Engine) -> None:
    """K-07: without the plugin `software_statements` nothing of it takes effect, and nothing of it is answered."""
    answer = registered(engine, {**WEB, "software_statement": "a.b.c" * 1000})
    assert "software_statement" not in answer


# ---- What is left out ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "", []], ids=repr)
@pytest.mark.parametrize("member", [*STRINGS, *ARRAYS, "jwks", "software_statement"])
def test_an_empty_or_null_member_counts_as_absent(engine: Engine, member: str, value: Any) -> None:
    """K-24, B024."""
    answer = registered(engine, {**WEB, member: value})
    plain = registered(engine, WEB)
    for of_its_own in ("client_id", "client_name", "client_secret"):
        assert answer.pop(of_its_own) != plain.pop(of_its_own)
    assert answer == plain
    assert (answer["grant_types"], answer["response_types"]) == (["authorization_code"], ["code"])


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (["authorization_code", "refresh_token", JWT_BEARER], ["authorization_code", "refresh_token"]),
        (["authorization_code", "refresh_token", DEVICE_CODE], ["authorization_code", "refresh_token"]),
        (["authorization_code", "client_credentials"], ["authorization_code"]),
        (["implicit", "authorization_code", "password"], ["authorization_code"]),
        (["a" * 2000, "authorization_code", "<script>"], ["authorization_code"]),
    ],
)
def test_a_grant_type_that_is_not_offered_is_left_out(
    engine: Engine, asked: list[str], given: list[str]
) -> None:
    """K-23, B005, B006: not offered by the server, or not open to whom nobody knows."""
    assert registered(engine, {**WEB, "grant_types": asked})["grant_types"] == given


@pytest.mark.parametrize(
    "asked", [["code", "token"], ["id_token", "code", "code id_token"], ["none", "code"]]
)
def test_a_response_type_that_is_not_offered_is_left_out(engine: Engine, asked: list[str]) -> None:
    """K-23: Only `code` is offered."""
    assert registered(engine, {**WEB, "response_types": asked})["response_types"] == ["code"]


def test_nothing_in_common_is_the_end_of_it(engine: Engine, opened: Engine) -> None:
    """K-23, B005."""
    for grant_types in ([JWT_BEARER], [DEVICE_CODE, "implicit"], ["client_credentials"], ["refresh_token"]):
        assert_refused(engine, {**WEB, "grant_types": grant_types})
    assert_refused(opened, {**WEB, "grant_types": [JWT_BEARER]})
    assert_refused(engine, {**WEB, "response_types": ["token", "id_token"]})


def test_what_goes_with_a_grant_type_is_left_out_with_it(make_engine: Make) -> None:
    """K-23: response type and refresh token of the authorization code grant."""
    engine = make_engine(plugin__registration_open__grant_types="client_credentials refresh_token")
    asked = {"grant_types": ["authorization_code", "refresh_token", "client_credentials"], **WEB}
    answer = registered(engine, {**asked, "response_types": ["code"]})
    assert (answer["grant_types"], answer["response_types"]) == (["client_credentials"], [])
    assert registered(engine, asked)["response_types"] == []
    assert_refused(engine, {**asked, "grant_types": ["authorization_code", "refresh_token"]})


def test_types_that_disagree_are_still_refused(opened: Engine) -> None:
    """K-06: nothing was left out of them."""
    assert_refused(opened, {"grant_types": ["client_credentials"], "response_types": ["code"]})
    assert_refused(opened, {"grant_types": ["client_credentials", "refresh_token"]})
    assert_refused(opened, {"grant_types": ["client_credentials"], "token_endpoint_auth_method": "none"})
    answer = registered(opened, {"grant_types": ["client_credentials"]})
    assert (answer["response_types"], answer["scope"]) == ([], "profile files.read")


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("profile", "profile"),
        ("openid profile email", "profile"),
        ("files.write files.read", "files.read"),
        ("claudeai", "profile files.read"),
        ("admin", "profile files.read"),
        ("", "profile files.read"),
        (None, "profile files.read"),
    ],
)
def test_a_scope_that_cannot_be_had_is_left_out(engine: Engine, asked: str | None, given: str) -> None:
    """K-28: it does not exist, or is not open; with none left, all that is open, as if nothing had been asked for."""
    assert registered(engine, {**WEB, "scope": asked})["scope"] == given


@pytest.mark.parametrize("asked", [None, "profile", "admin"])
def test_nobody_registers_where_no_scope_is_open(make_engine: Make, asked: str | None) -> None:
    """K-28: also where the policy opens scopes that do not exist."""
    for scopes in ("", "no.such.scope"):
        closed = make_engine(plugin__registration_open__scopes=scopes)
        assert_refused(closed, {**WEB, "scope": asked})


@dataclass(frozen=True)
class Keeps:
    """Keeps members of its own, and fails as a test wants."""

    wrong: ClassVar[Mapping[str, Any]] = {
        "an object": object(),
        "no number": math.nan,
        "a tuple": ("a",),
        "a number as a name": {1: "a"},
        "NUL": "\0",
        "half a character": "\ud800",
        "more than can be kept": "a" * MAXIMUM_JSON,
        "a giant": 2**64,
        "without end": LOOP,
    }

    @hookimpl
    def client_metadata(self) -> Mapping[str, ReadMember]:
        return {
            "beta": read_flag,
            "team": self.team,
            "fails": self.fail,
            "wrong": self.keep_wrongly,
        }

    def team(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidClientMetadata(f"{name} must be a string.", reason="team-malformed")
        return value.lower()

    def keep_wrongly(self, name: str, value: Any) -> Any:
        return self.wrong[value] if isinstance(value, str) and value in self.wrong else value

    def fail(self, name: str, value: Any) -> None:
        raise RuntimeError("lost")


def test_a_member_of_a_plugin_is_kept_and_answered(engine: Engine, make_engine: Make) -> None:
    """client_metadata, K-04: as the plugin reads it; without the plugin it is ignored as any other."""
    asked = {**WEB, "team": "Blue", "beta": True}
    keeping = make_engine(Keeps)
    answer = registered(keeping, asked)
    assert (answer["team"], answer["beta"]) == ("blue", True)
    client = keeping.stores.clients.find(answer["client_id"], keeping.now)
    assert client and client.details == {"team": "blue", "beta": True}
    assert not {"team", "beta"} & registered(engine, asked).keys()
    assert not {"team", "beta"} & registered(keeping, {**WEB, "team": "", "beta": False}).keys()


@pytest.mark.parametrize(("member", "value"), [("team", 7), ("team", ["a"]), ("beta", "true"), ("beta", 1)])
def test_a_plugin_refuses_what_is_in_its_member(make_engine: Make, member: str, value: Any) -> None:
    """client_metadata, K-06: as invalid_client_metadata that names the member."""
    assert member in assert_refused(make_engine(Keeps), {**WEB, member: value}).description


@pytest.mark.parametrize(("member", "value"), [("fails", "x"), *(("wrong", name) for name in Keeps.wrong)])
def test_a_plugin_that_fails_at_its_member_registers_nobody(
    make_engine: Make, member: str, value: str
) -> None:
    """client_metadata, R-14: it raises, or keeps what is no JSON, or would be something else when it is read."""
    engine = make_engine(Keeps)
    before = stored(engine)
    with pytest.raises(ServerError):
        registered(engine, {**WEB, member: value})
    assert stored(engine) == before


@dataclass(frozen=True)
class Pollutes:
    """A registration policy that puts something of its own into a member of another plugin."""

    reasons: ClassVar[frozenset[str]] = frozenset({"cut"})

    @hookimpl
    def registration_decision(self, metadata: ClientMetadata) -> Decision:
        return allow("cut", replace(metadata, details={"beta": "perhaps"}))

    @hookimpl
    def client_metadata(self) -> Mapping[str, ReadMember]:
        return {"beta": read_flag}


def test_what_a_policy_makes_of_a_member_is_checked_again(make_engine: Make) -> None:
    """client_metadata, T140: the floor is under what policies allow."""
    assert_refused(make_engine(Pollutes), WEB)


@dataclass(frozen=True)
class Annotates:
    """A registration policy that keeps something beside what was sent."""

    name: str

    @hookimpl
    def registration_decision(self, metadata: ClientMetadata) -> Decision:
        value = object() if self.name == "odd" else "other"
        return allow("annotated", replace(metadata, details={**metadata.details, self.name: value}))


@pytest.mark.parametrize("name", ["client_id", "client_secret", "scope", "odd"])
def test_what_a_policy_keeps_takes_no_place_of_the_core(make_engine: Make, name: str) -> None:
    """K-06, T140: the client would be told another id or secret than it has."""
    engine = make_engine(Annotates, {"name": name})
    before = stored(engine)
    with pytest.raises(ServerError):
        registered(engine, {**WEB, "scope": "profile"})
    assert stored(engine) == before
    assert (
        registered(make_engine(Annotates, {"name": "team"}), {**WEB, "scope": "profile"})["team"] == "other"
    )


@dataclass(frozen=True)
class Takes:
    """Wants a member that is there already."""

    member: str

    @hookimpl
    def client_metadata(self) -> Mapping[str, ReadMember]:
        return {self.member: read_flag}


@pytest.mark.parametrize("member", ["scope", "client_uri", "client_id", "registered_by"])
def test_a_member_of_the_core_cannot_be_taken(make_engine: Make, member: str) -> None:
    """client_metadata: the start stops, naming the plugin and the member."""
    with pytest.raises(SettingsError, match=f"plugin takes: .* {member}, which the core adds already"):
        make_engine(Takes, {"member": member})


def test_two_plugins_cannot_keep_one_member(make_engine: Make) -> None:
    """client_metadata: the start stops, naming both."""
    with pytest.raises(SettingsError, match=r"the member dpop_bound_access_tokens, which plugin dpop adds"):
        plugins = f"dpop {Takes.__module__}:Takes {SETTINGS['authserver.plugins']}"
        make_engine(plugins=plugins, plugin__takes__member="dpop_bound_access_tokens")


# ---- Redirect URIs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "redirect_uris",
    [
        ["https://ide.example/redirect", "http://127.0.0.1:33418"],
        ["http://localhost"],
        ["https://pos_integration.shop.example/cb"],
        ["https://App.Example.com/cb"],
        ["https://server.example:443/oidc/redirect_uri"],
        ["https://localhost:5001/signin-oidc"],
        ["com.example.app://host/path"],
        ["com.example.app:/callback", "com.example.app://callback"],
    ],
    ids=str,
)
def test_a_redirect_uri_is_kept_as_it_was_written(engine: Engine, redirect_uris: list[str]) -> None:
    """B009, B027, C-01, C-02, C-11."""
    answer = registered(engine, {"redirect_uris": redirect_uris, "token_endpoint_auth_method": "none"})
    assert answer["redirect_uris"] == redirect_uris


CURSOR_SENDS = {
    "client_name": "Cursor",
    "redirect_uris": [
        CURSOR,
        "https://www.cursor.com/agents/mcp/oauth/callback",
        "http://localhost:8787/callback",
    ],
    "token_endpoint_auth_method": "none",
    "application_type": "web",
}


def test_a_private_use_uri_is_left_out_unless_an_operator_allows_it(
    engine: Engine, make_engine: Make
) -> None:
    """C-16, C-18, K-04: beside others; by itself it is refused, and the message says what to do."""
    assert registered(engine, CURSOR_SENDS)["redirect_uris"] == CURSOR_SENDS["redirect_uris"][1:]
    refused = assert_refused(engine, {"redirect_uris": [CURSOR, "myapp:/cb"]}, "invalid_redirect_uri")
    assert "none of them is accepted" in refused.description
    allowing = make_engine("mcp_clients")
    assert registered(allowing, CURSOR_SENDS)["redirect_uris"] == CURSOR_SENDS["redirect_uris"]
    assert registered(allowing, {"redirect_uris": [CURSOR]})["redirect_uris"] == [CURSOR]
    for other in ("cursor://evil.example/cb", f"{CURSOR}/", f"{CURSOR}?x=1", "myapp:/cb"):
        assert_refused(allowing, {"redirect_uris": [other]}, "invalid_redirect_uri")
        answer = registered(allowing, {"redirect_uris": [other, CURSOR]})
        assert answer["redirect_uris"] == [CURSOR]


def test_an_operator_allows_uris_of_his_own(make_engine: Make) -> None:
    """C-16."""
    uri = "raycast://oauth?package_name=mcp_server_notes"
    own = make_engine("redirect_private_use", {"uris": f"acme://signed-in {uri}"})
    assert registered(own, {"redirect_uris": [uri]})["redirect_uris"] == [uri]
    assert_refused(own, {"redirect_uris": [CURSOR]}, "invalid_redirect_uri")


@pytest.mark.parametrize(
    ("sent", "redirect_uris", "given"),
    [
        ("web", ["https://client.example/cb"], "web"),
        ("web", ["https://localhost/cb"], "native"),
        ("web", ["https://127.0.0.1/cb"], "native"),
        ("web", ["http://127.0.0.1:8080/cb"], "native"),
        ("web", ["http://localhost"], "native"),
        ("web", ["com.example.app:/cb"], "native"),
        ("web", ["https://client.example/cb", "http://localhost/cb"], "native"),
        ("web", ["https://client.example/cb", "myapp:/cb"], "web"),
        ("native", ["https://client.example/cb"], "native"),
        ("native", ["http://[::1]/cb"], "native"),
        ("native", ["com.example.app:/cb"], "native"),
        (None, ["https://client.example/cb"], "web"),
        (None, ["https://LOCALHOST/cb"], "native"),
        (None, ["http://127.0.0.1/cb"], "native"),
        (None, ["com.example.app://h/cb"], "native"),
    ],
)
def test_the_application_type_follows_from_the_uris(
    engine: Engine, sent: str | None, redirect_uris: list[str], given: str
) -> None:
    """K-12, K-29, B204: where it is missing, or contradicts those that are registered; and the answer states it."""
    answer = registered(engine, {"redirect_uris": redirect_uris, "application_type": sent})
    assert answer["application_type"] == given


@pytest.mark.parametrize("uri", ["http://client.example/cb", "http://localhost.evil.example/cb"])
@pytest.mark.parametrize("application_type", ["web", "native", None])
def test_no_application_type_makes_a_dangerous_uri_acceptable(
    engine: Engine, application_type: str | None, uri: str
) -> None:
    """C-07, C-08, K-12."""
    metadata = {"redirect_uris": [uri], "application_type": application_type}
    assert_refused(engine, metadata, "invalid_redirect_uri")


# ---- Three steps: form, policies, floor ------------------------------------------------------------


@dataclass(frozen=True)
class Cutting:
    """Drops what the floor would refuse."""

    reasons: ClassVar[frozenset[str]] = frozenset({"cut"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def registration_decision(self, metadata: ClientMetadata) -> Decision | None:
        good = tuple(uri for uri in metadata.redirect_uris if uri.startswith("https:"))
        return allow("cut", replace(metadata, redirect_uris=good, scopes=("profile",)))


@dataclass(frozen=True)
class Widening:
    """Gives everybody what nobody may have."""

    reasons: ClassVar[frozenset[str]] = frozenset({"widened"})
    immediate: ClassVar[bool] = True

    add: str

    @hookimpl
    def registration_decision(self, metadata: ClientMetadata) -> Decision | None:
        uris = (*metadata.redirect_uris, self.add)
        types = (*metadata.grant_types, "implicit")
        return allow(
            "widened",
            replace(metadata, redirect_uris=uris, grant_types=types, scopes=("profile", "no.such.scope")),
        )

    @hookimpl
    def redirect_uri_decision(self) -> Decision | None:
        return allow("widened")


@dataclass(frozen=True)
class HouseHosts:
    """Accepts the redirect URIs of one domain only."""

    reasons: ClassVar[frozenset[str]] = frozenset({"not-of-the-house"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def redirect_uri_decision(self, client: Client, redirect_uri: str) -> Decision | None:
        assert redirect_uri in client.redirect_uris
        assert client.is_self_registered
        return None if redirect_uri.startswith("https://house.example/") else deny("not-of-the-house")


def test_a_policy_can_drop_what_the_floor_would_refuse(engine: Engine, make_engine: Make) -> None:
    """K-30: no check of the floor runs on what was sent."""
    sent = {
        "redirect_uris": ["http://evil.example/cb", "javascript://client.example/x", *WEB["redirect_uris"]]
    }
    assert_refused(engine, sent, "invalid_redirect_uri")
    cutting = make_engine(Cutting, without=("registration_open",))
    assert registered(cutting, sent)["redirect_uris"] == WEB["redirect_uris"]
    assert_refused(cutting, {"redirect_uris": ["http://evil.example/cb"]}, "invalid_redirect_uri")


@pytest.mark.parametrize(
    "uri",
    [
        "http://evil.example/cb",
        "javascript:alert(1)",
        "javascript://client.example/%0aalert(1)",
        "https://client.example/cb#",
        "https://client.example@evil.example/cb",
        "https://client.example/cb?code=x",
        "data:text/html,x",
        "",
    ],
)
def test_nothing_that_a_policy_returns_escapes_the_floor(make_engine: Make, uri: str) -> None:
    """K-30, E-15: dangerous and malformed URIs are refused, although both policies allow them."""
    widening = make_engine(Widening, {"add": uri}, without=("registration_open",))
    assert_refused(widening, WEB, "invalid_redirect_uri")


def test_what_a_policy_adds_is_left_out_where_nobody_can_have_it(make_engine: Make) -> None:
    """K-30, E-15: a private-use URI that no operator allowed, grant types and scopes that do not exist."""
    widening = make_engine(Widening, {"add": "myapp://cb"}, without=("registration_open",))
    answer = registered(widening, WEB)
    assert answer["redirect_uris"] == WEB["redirect_uris"]
    assert (answer["grant_types"], answer["scope"]) == (["authorization_code"], "profile")


def test_a_uri_that_would_not_be_accepted_later_is_not_registered(make_engine: Make) -> None:
    """K-26: the redirect URI policies are asked the question of the authorization endpoint, URI by URI."""
    engine = make_engine(HouseHosts)
    good = "https://house.example/cb"
    answer = registered(engine, {"redirect_uris": ["https://other.example/cb", good, "http://localhost"]})
    assert answer["redirect_uris"] == [good]
    asked = [ruling for ruling in engine.journal.decisions if ruling.hook == "redirect_uri_decision"]
    assert [(ruling.question.facts()["redirect_uri"], ruling.reason) for ruling in asked] == [
        ("https://other.example/cb", "not-of-the-house"),
        (good, "registered-exactly"),
        ("http://localhost", "not-of-the-house"),
    ]
    assert {ruling.question.facts()["client_id"] for ruling in asked} == {answer["client_id"]}
    assert_refused(engine, {"redirect_uris": ["https://other.example/cb"]}, "invalid_redirect_uri")
    closed = make_engine("redirect_loopback", without=("redirect_exact", "redirect_loopback"))
    assert_refused(closed, WEB, "invalid_redirect_uri")


def test_strangers_without_a_token_do_not_work_the_redirect_uri_policies(make_engine: Make) -> None:
    """K-08, T131: who may not register is refused before anybody else is asked."""
    fields = {"tokens": "t" * 43, "scopes": "profile"}
    engine = make_engine("registration_token", fields, without=("registration_open",))
    with pytest.raises(InvalidToken):
        registered(engine, CURSOR_SENDS)
    assert [ruling.hook for ruling in engine.journal.decisions] == ["registration_decision"]


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({"grant_types": ["authorization_code", JWT_BEARER]}, "invalid_client_metadata"),
        ({"response_types": ["code", "token"]}, "invalid_client_metadata"),
        ({"scope": "profile openid"}, "invalid_client_metadata"),
        ({"scope": "admin"}, "invalid_client_metadata"),
        ({"redirect_uris": ["https://client.example/cb", CURSOR]}, "invalid_redirect_uri"),
        ({"redirect_uris": [CURSOR]}, "invalid_redirect_uri"),
    ],
)
def test_an_operator_may_want_all_or_nothing(make_engine: Make, metadata: Any, error: str) -> None:
    """C-18, K-23: then a registration that asks for what cannot be had is refused, and the member is named."""
    strict = make_engine(strict_registration="true")
    refused = assert_refused(strict, {**WEB, **metadata}, error)
    assert next(iter(metadata)) in refused.description
    everything = {**WEB, "scope": "profile", "grant_types": ["authorization_code", "refresh_token"]}
    assert registered(strict, everything)["scope"] == "profile"
    assert registered(strict, WEB)["scope"] == "profile files.read"


# ---- What an operator adds -------------------------------------------------------------------------


def test_a_client_of_an_operator_stands_on_the_same_floor(engine: Engine, make_engine: Make) -> None:
    """C-08 to C-11, C-16, K-12, B204: nothing of it is left out; what cannot be is refused."""
    metadata = ClientMetadata(redirect_uris=("https://client.example/cb",), scopes=("profile",))
    for changes, error in [
        ({"redirect_uris": (*metadata.redirect_uris, "http://evil.example/cb")}, InvalidRedirectUri),
        ({"redirect_uris": (*metadata.redirect_uris, CURSOR)}, InvalidRedirectUri),
        ({"redirect_uris": ("https://localhost/cb",)}, InvalidRedirectUri),
        ({"grant_types": ("authorization_code", JWT_BEARER)}, InvalidClientMetadata),
        ({"grant_types": ()}, InvalidClientMetadata),
        ({"scopes": ("profile", "no.such.scope")}, InvalidClientMetadata),
        ({"scopes": ()}, InvalidClientMetadata),
    ]:
        with pytest.raises(error):
            add_client(engine, replace(metadata, **changes))
    assert engine.stores.clients.list(engine.now) == []
    cursor = replace(metadata, redirect_uris=(CURSOR,), application_type="native")
    assert add_client(make_engine("mcp_clients"), cursor)[0].redirect_uris == (CURSOR,)


def test_a_client_that_only_introspects_needs_no_scope(engine: Engine) -> None:
    """K-28: an operator's word is enough; without redirects nobody is sent into a dead end."""
    metadata = ClientMetadata(grant_types=("client_credentials",), response_types=())
    assert add_client(engine, metadata)[0].scopes == ()
    with pytest.raises(InvalidClientMetadata):
        add_client(engine, metadata, registered_by=RegisteredBy.SELF)


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
            "javascript://client.example/x",
            "http://evil.example/cb",
            "http://localhost",
            "myapp://cb",
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


def assert_answered(engine: Engine, body: bytes) -> None:
    """Registered, or refused with one of the two codes and nothing kept."""
    before = stored(engine)
    try:
        answer = registered(engine, body)
    except (InvalidClientMetadata, InvalidRedirectUri):
        assert stored(engine) == before
    else:
        assert set(answer["scope"].split()) <= {"profile", "files.read"}
        assert set(answer["grant_types"]) <= {"authorization_code", "refresh_token"}
        allowed = engine.private_use_redirect_uris
        assert not any(uris.redirect_uri_problem(uri, private_use=allowed) for uri in answer["redirect_uris"])


@given(METADATA)
def test_any_metadata_is_registered_or_refused(make_engine: Make, metadata: Any) -> None:
    """K-05, K-06, T062, T134: whatever the members hold; and what is registered is never empty."""
    assert_answered(make_engine(), json.dumps(metadata).encode())


@given(st.lists(st.tuples(st.sampled_from(MEMBERS), VALUES), max_size=6))
def test_repeated_members_are_refused(make_engine: Make, pairs: Any) -> None:
    """T062: two readers would see different values."""
    body = "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}"
    if len({name for name, _ in pairs}) < len(pairs):
        assert_refused(make_engine(), body.encode())
    else:
        assert_answered(make_engine(), body.encode())


@given(
    st.one_of(
        VALUES.map(json.dumps).map(str.encode), st.binary(max_size=200), st.text(max_size=200).map(str.encode)
    )
)
def test_any_body_is_registered_or_refused(make_engine: Make, body: bytes) -> None:
    """K-06, T062: any JSON value, and any bytes that are none."""
    assert_answered(make_engine(), body)


@given(depth=st.integers(1, 8000), opening=st.sampled_from(["[", '{"a":', '[{"a":']), closed=st.booleans())
def test_no_depth_exhausts_the_reader(make_engine: Make, depth: int, opening: str, closed: bool) -> None:
    """T062: RecursionError is for others."""
    closing = "".join({"[": "]", "{": "}"}.get(character, "") for character in reversed(opening))
    body = '{"redirect_uris": ["https://client.example/cb"], "x": ' + opening * depth
    assert_answered(make_engine(), (body + ("1" + closing * depth + "}" if closed else "")).encode())
