"""Real programs, as recorded in `authserver/doctor/programs/`: each finds us, registers, gets a code, redeems and refreshes with the shipped INI."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from paste.deploy import appconfig
from webtest import TestResponse

from authserver.cli.keys import new_ring_entry
from authserver.doctor.recordings import NAMES, Authorization, Recording, Scope, load
from authserver.testing.server import SETTINGS, Server, forged, query_of
from authserver.testing.stories import signed_in
from tests.clients.walks import Api, Program, answer_of_a_person

CHECKOUT = Path(__file__).parents[2]
OFFERED_GRANT_TYPES = {"authorization_code", "refresh_token"}


def settings_of(file: str) -> dict[str, str | None]:
    """The settings of a shipped INI file, and none of those that other tests use."""
    section = dict(appconfig(f"config:{CHECKOUT / file}", name="main").local_conf)
    # All programs of the recordings register from one address within a minute.
    limits = "authserver.plugin.rate_limits.limits"
    section[limits] = section[limits].replace("registration, source, 20,", "registration, source, 10000,")
    return dict.fromkeys(SETTINGS) | section | {"authserver.secret_keys": SETTINGS["authserver.secret_keys"]}


@pytest.fixture(scope="module")
def make_server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Make a server of the settings of a shipped INI file, with the user `ann`."""
    servers: list[Server] = []

    def make(settings: Mapping[str, str | None]) -> Server:
        path = tmp_path_factory.mktemp("recorded") / "authserver.db"
        shutil.copyfile(migrated_sqlite_file, path)
        url = f"sqlite:///{path}"
        servers.append(Server(url, {**settings, "authserver.database_url": url}))
        servers[-1].add_user("ann")
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def development(make_server: Any) -> Server:
    """development.ini as it is shipped; all walks share it, as all programs of a laptop do."""
    server: Server = make_server(settings_of("development.ini"))
    return server


def walk(program: Program, way: Authorization) -> None:
    """Everything that a program does, with what any program relies on checked on the way."""
    metadata = program.discover()
    answer = program.register()
    assert answer.status_int == 201, answer.text
    check_registration(program, answer)
    for uri in program.registered["redirect_uris"]:
        check_accepted(program, uri)

    left = answer_of_a_person(program.server, program.authorization_url(way))
    separator = "&" if "?" in way.redirect_uri else "?"
    assert left.location.startswith(way.redirect_uri + separator), left.location
    values = query_of(left)
    assert "error" not in values, values
    assert values["iss"] == metadata["issuer"]
    assert values.get("state", "") == way.state

    answer = program.redeem(way, values["code"])
    assert answer.status_int == 200, answer.text
    check_tokens(program, answer, wanted_scope(program, way))
    first = program.tokens["refresh_token"]
    answer = program.refresh()
    assert answer.status_int == 200, answer.text
    check_tokens(program, answer, wanted_scope(program, way))
    assert program.tokens["refresh_token"] != first


def check_registration(program: Program, answer: TestResponse) -> None:
    """K-01, K-04, K-23, K-28: everything in effect, nothing null, nothing empty, nothing more than asked and offered."""
    registered, asked = answer.json, program.asked
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert None not in registered.values()
    assert registered["redirect_uris"] == asked["redirect_uris"]
    assert set(registered["grant_types"]) == set(asked["grant_types"]) & OFFERED_GRANT_TYPES
    assert registered["response_types"] == ["code"]
    method = asked.get("token_endpoint_auth_method", "client_secret_basic")
    assert registered["token_endpoint_auth_method"] == method
    assert ("client_secret" in registered) == (method != "none")
    opened = set(program.server.ini["authserver.plugin.registration_open.scopes"].split())
    assert set(registered["scope"].split()) == (set(asked.get("scope", "").split()) & opened or opened)


def check_accepted(program: Program, uri: str) -> None:
    """K-26: what registration accepted, authorization accepts."""
    way = program.recording.authorization[0]
    url = program.authorization_url(msgspec.structs.replace(way, redirect_uri=uri))
    answer = program.server.browser().get(url, expect_errors=True)
    assert answer.status_int == 303, (uri, answer.text)
    assert answer.location.startswith(program.server.issuer + "/"), (uri, answer.location)


def wanted_scope(program: Program, way: Authorization) -> set[str]:
    """B-11, B-12, B-27: of what was asked for, all that the client is registered for; without any, the server's default."""
    url = program.authorization_url(way)
    (asked,) = parse_qs(urlsplit(url).query).get("scope", [""])
    return set(asked.split()) & set(program.registered["scope"].split()) or {"profile"}


def check_tokens(program: Program, answer: TestResponse, scope: set[str]) -> None:
    """F-07 to F-09, O-05: the members that programs read, and a token for the API."""
    tokens = answer.json
    assert answer.headers["Cache-Control"] == "no-store"
    assert tokens["token_type"].lower() == "bearer"
    assert isinstance(tokens["expires_in"], int)
    assert isinstance(tokens["refresh_token"], str)
    claims = program.server.claims(tokens["access_token"])
    assert claims["aud"] == program.api.listed
    assert claims["client_id"] == program.registered["client_id"]
    assert set(tokens.get("scope", claims["scope"]).split()) == set(claims["scope"].split()) == scope


RECORDINGS = {name: load(name) for name in NAMES}
# Their redirect URIs are in no preset: an operator has to allow them.
NOT_IN_THE_PRESET = ("raycast", "systemprompt")


def ways(*names: str, first_only: bool = False) -> list[Any]:
    """The ways of these programs, as parameters of a test."""
    return [
        pytest.param(RECORDINGS[name], way, id=f"{name}: {way.way}")
        for name in names
        for way in RECORDINGS[name].authorization[: 1 if first_only else None]
    ]


SHIPPED = tuple(name for name in NAMES if name not in NOT_IN_THE_PRESET)
APIS = {"named scopes": Api(scopes=("notes.read", "notes.write")), "no scopes": Api()}


@pytest.mark.parametrize("api", APIS.values(), ids=APIS)
@pytest.mark.parametrize(("recording", "way"), ways(*SHIPPED))
def test_a_program_gets_and_refreshes_tokens_with_development_ini(
    development: Server, recording: Recording, way: Authorization, api: Api
) -> None:
    """K-25, K-26: from discovery to a refreshed token."""
    walk(Program(recording=recording, server=development, api=api), way)


@pytest.fixture(scope="module")
def production(make_server: Any) -> Iterator[Server]:
    """production.ini with registration by anybody and the preset, as docs/real-clients.rst says."""
    settings = settings_of("production.ini")
    plugins = settings["authserver.plugins"]
    assert plugins
    assert "# mcp_clients" in (CHECKOUT / "production.ini").read_text()
    settings["authserver.plugins"] = plugins.replace("registration_token", "registration_open\nmcp_clients")
    for key in [key for key in settings if key.startswith("authserver.plugin.registration_token.")]:
        del settings[key]
    settings |= {
        "authserver.issuer": "https://login.example.com",
        "authserver.secret_keys": "env:AUTHSERVER_SECRET_KEYS",
        "authserver.plugin.registration_open.scopes": "profile read",
        "authserver.plugin.resources_listed.resources": f"{PRODUCTION_API} = *",
    }
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AUTHSERVER_SECRET_KEYS", new_ring_entry())
        yield make_server(settings)


PRODUCTION_API = "https://api.example.com/mcp"


@pytest.mark.parametrize(("recording", "way"), ways(*SHIPPED, first_only=True))
def test_a_program_gets_and_refreshes_tokens_with_production_ini(
    production: Server, recording: Recording, way: Authorization
) -> None:
    """K-25, B-12: over https, with some scopes only open to those that register themselves."""
    # RikkaHub refreshes with all that it asked for, which RFC 6749, 6 forbids where it was granted less.
    scopes = ("read",) if recording.program == "RikkaHub" else ("read", "write")
    api = Api(identifier=PRODUCTION_API, scopes=scopes, listed=PRODUCTION_API)
    walk(Program(recording=recording, server=production, api=api), way)


@pytest.fixture(scope="module")
def allowing(make_server: Any) -> Server:
    """development.ini with the redirect URIs of two applications allowed, as docs/real-clients.rst says."""
    settings = settings_of("development.ini")
    plugins = settings["authserver.plugins"]
    assert plugins
    settings["authserver.plugins"] = f"{plugins}\nredirect_private_use"
    allowed = [way.redirect_uri for name in NOT_IN_THE_PRESET for way in RECORDINGS[name].authorization]
    settings["authserver.plugin.redirect_private_use.uris"] = "\n".join(allowed)
    server: Server = make_server(settings)
    return server


@pytest.mark.parametrize(("recording", "way"), ways(*NOT_IN_THE_PRESET))
def test_an_application_whose_redirect_uri_an_operator_allowed_gets_and_refreshes_tokens(
    allowing: Server, recording: Recording, way: Authorization
) -> None:
    """C-16: a scheme without a period, and a query with it."""
    walk(Program(recording=recording, server=allowing, api=Api(scopes=("notes.read",))), way)


# ---- the recordings themselves ----------------------------------------------------------------------


def test_a_recording_with_an_unknown_member_is_refused() -> None:
    """A misspelt member would be a request that nobody sends."""
    recorded = msgspec.to_builtins(RECORDINGS["vs-code"])
    recorded["registration"]["header"] = {}
    with pytest.raises(msgspec.ValidationError, match="unknown field `header`"):
        msgspec.convert(recorded, Recording)


def test_a_recording_without_a_dated_source_is_refused() -> None:
    recorded = msgspec.to_builtins(RECORDINGS["vs-code"])
    recorded["sources"]["token"] = "somebody said so"
    with pytest.raises(msgspec.ValidationError, match="token: a source names"):
        msgspec.convert(recorded, Recording)


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_code_verifier_is_well_formed(name: str) -> None:
    """RFC 7636, 4.1."""
    assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", RECORDINGS[name].code_verifier)


# ---- the quirks, one by one -------------------------------------------------------------------------

OFFLINE = [name for name in NAMES if "offline_access" in repr(RECORDINGS[name].authorization)]


def registered_as(server: Server, name: str, api: Api | None = None) -> Program:
    """A recorded program that has found this server and registered."""
    program = Program(recording=RECORDINGS[name], server=server, api=api or Api())
    program.discover()
    answer = program.register()
    assert answer.status_int == 201, answer.text
    return program


def test_no_program_is_promised_that_it_need_not_register(development: Server) -> None:
    """Those with a metadata document ask for a registration only while nothing says that they need none."""
    metadata = development.http.get("/.well-known/oauth-authorization-server").json
    assert "client_id_metadata_document_supported" not in metadata
    assert sum(recording.metadata_document is not None for recording in RECORDINGS.values()) >= 5


def test_claude_gets_the_whole_open_scope_for_one_that_does_not_exist(development: Server) -> None:
    """K-28, B-27: `claudeai` is nobody's scope here; never an empty one, neither stored nor answered."""
    program = registered_as(development, "claude")
    assert program.asked["scope"] == "claudeai"
    assert program.registered["scope"] == "profile notes.read notes.write"
    (way,) = program.recording.authorization
    alone = msgspec.structs.replace(way, scope=Scope(otherwise="claudeai"))
    person = signed_in(development)
    page = person.get(program.authorization_url(alone))
    assert "?error=invalid_scope&amp;" in page.text, (
        "nothing is left to ask for; a page says so before the way back"
    )
    beside = msgspec.structs.replace(way, scope=Scope(otherwise="claudeai notes.read"))
    assert "code" in query_of(answer_of_a_person(development, program.authorization_url(beside)))


def test_openid_scopes_come_down_to_the_one_that_exists(development: Server) -> None:
    """K-28: mcp-remote and Windsurf ask for `openid email profile`."""
    program = registered_as(development, "mcp-remote-0.1.31")
    assert program.asked["scope"] == "openid email profile"
    assert program.registered["scope"] == "profile"


def test_cursor_keeps_its_three_redirect_uris(development: Server) -> None:
    """C-16, C-18: one of them private-use without a period."""
    program = registered_as(development, "cursor")
    assert program.registered["redirect_uris"] == [
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://www.cursor.com/agents/mcp/oauth/callback",
        "http://localhost:8787/callback",
    ]
    assert program.registered["application_type"] == "native"


def test_an_application_type_that_contradicts_the_redirect_uris_gives_way(development: Server) -> None:
    """K-29: `web` beside a private-use redirect URI."""
    program = registered_as(development, "cursor-web")
    assert program.asked["application_type"] == "web"
    assert program.registered["application_type"] == "native"


@pytest.mark.parametrize("name", ["opencode", "gemini-cli", "inspector-in-the-browser", "mcp-remote-0.1.31"])
def test_loopback_redirect_uris_alone_make_a_native_application(development: Server, name: str) -> None:
    """K-29: of a program that says nothing of its type."""
    program = registered_as(development, name)
    assert "application_type" not in program.asked
    assert program.registered["application_type"] == "native"


@pytest.mark.parametrize("name", ["chatgpt", "claude", "copilot-studio"])
def test_https_redirect_uris_alone_make_a_web_application(development: Server, name: str) -> None:
    """K-12."""
    assert registered_as(development, name).registered["application_type"] == "web"


def test_a_grant_type_that_is_not_offered_is_left_out(development: Server) -> None:
    """K-23: VS Code with the device grant."""
    program = registered_as(development, "vs-code-september-2025")
    assert "urn:ietf:params:oauth:grant-type:device_code" in program.asked["grant_types"]
    assert program.registered["grant_types"] == ["authorization_code", "refresh_token"]


def test_vs_code_cuts_its_grant_types_to_ours(development: Server) -> None:
    """A-09, K-23: it asks for the device grant where the metadata has it; the registration leaves that out."""
    program = registered_as(development, "vs-code")
    granted = ["authorization_code", "refresh_token"]
    assert program.asked["grant_types"] == [*granted, "urn:ietf:params:oauth:grant-type:device_code"]
    assert program.registered["grant_types"] == granted


def test_an_empty_scope_is_no_scope(development: Server) -> None:
    """K-24, B-03: the Inspector and Gemini CLI register with one, VS Code asks with one."""
    assert registered_as(development, "inspector").asked["scope"] == ""
    program = registered_as(development, "vs-code")
    way = program.recording.authorization[1]
    assert "&scope=&" in program.authorization_url(way)
    assert "code" in query_of(answer_of_a_person(development, program.authorization_url(way)))


def test_copilot_studio_asks_for_the_scope_of_our_answer_and_gets_the_default_audience(
    development: Server,
) -> None:
    """K-04, K-28, O-08: an answer without a scope would be a request without one; it never names a resource."""
    program = registered_as(development, "copilot-studio")
    assert "scope" not in program.asked
    assert program.registered["scope"] == "profile notes.read notes.write"
    assert program.registered["token_endpoint_auth_method"] == "client_secret_basic"
    (way,) = program.recording.authorization
    asked = parse_qs(urlsplit(program.authorization_url(way)).query)
    assert asked["scope"] == ["profile notes.read notes.write"]
    assert "resource" not in asked


def test_the_answer_names_the_method_that_was_asked_for(development: Server) -> None:
    """K-01: ChatGPT refuses another; Claude sends client_secret_post whatever is advertised."""
    assert registered_as(development, "chatgpt").registered["token_endpoint_auth_method"] == "none"
    assert (
        registered_as(development, "claude").registered["token_endpoint_auth_method"] == "client_secret_post"
    )


def test_nobody_asks_for_offline_access_that_is_not_advertised(development: Server) -> None:
    """A-16: most programs add it, with prompt=consent, as soon as the metadata lists it."""
    asking = [
        name for name, recording in RECORDINGS.items() if "offline_access" in repr(recording.authorization)
    ]
    assert len(asking) >= 4
    for name in asking:
        program = registered_as(development, name)
        for way in program.recording.authorization:
            assert "offline_access" not in program.authorization_url(way)


@pytest.mark.parametrize(("recording", "way"), ways(*OFFLINE, first_only=True))
def test_programs_that_ask_for_offline_access_get_refresh_tokens_where_it_is_wanted(
    offline_server: Server, recording: Recording, way: Authorization
) -> None:
    """A-16: with the plugin offline_access, and the scope open to those that register themselves."""
    program = Program(
        recording=recording, server=offline_server, api=Api(scopes=("notes.read", "notes.write"))
    )
    program.discover()
    assert program.register().status_int == 201
    url = program.authorization_url(way)
    assert parse_qs(urlsplit(url).query)["prompt"] == ["consent"]
    assert program.redeem(way, query_of(answer_of_a_person(offline_server, url))["code"]).status_int == 200
    assert "offline_access" in program.tokens["scope"].split()
    assert program.refresh().status_int == 200


@pytest.fixture(scope="module")
def offline_server(make_server: Any) -> Server:
    """development.ini with the plugin offline_access switched on."""
    settings = settings_of("development.ini")
    plugins = settings["authserver.plugins"]
    assert plugins
    settings["authserver.plugins"] = f"{plugins}\noffline_access"
    settings["authserver.plugin.registration_open.scopes"] = "profile notes.read notes.write offline_access"
    server: Server = make_server(settings)
    return server


BARE = ("https://notes.example", "https://notes.example/")


@pytest.fixture(scope="module", params=BARE)
def bare_host_server(make_server: Any, request: pytest.FixtureRequest) -> Server:
    """development.ini with an API at a bare host, written with or without the slash."""
    settings = settings_of("development.ini")
    settings["authserver.plugin.resources_listed.resources"] = f"{request.param} = *"
    settings["authserver.plugin.resources_listed.default"] = request.param
    server: Server = make_server(settings)
    return server


@pytest.mark.parametrize("said", BARE)
@pytest.mark.parametrize("name", ["claude-code", "codex", "vs-code", "zed"])
def test_a_bare_host_is_one_resource_with_and_without_its_slash(
    bare_host_server: Server, name: str, said: str
) -> None:
    """O-10: programs add a slash, or do not, whatever the API or our INI says; tokens are for the form of the INI."""
    listed = bare_host_server.ini["authserver.plugin.resources_listed.default"]
    recording = RECORDINGS[name]
    api = Api(identifier=said, scopes=("notes.read",), listed=listed)
    walk(Program(recording=recording, server=bare_host_server, api=api), recording.authorization[0])


@pytest.fixture(scope="module")
def tenant(make_server: Any) -> Server:
    """development.ini with an issuer that has a path."""
    server: Server = make_server(
        {**settings_of("development.ini"), "authserver.issuer": "http://localhost:6543/tenant"}
    )
    return server


@pytest.mark.parametrize("name", NAMES)
def test_every_program_finds_an_issuer_with_a_path(tenant: Server, name: str) -> None:
    """A-05: by the addresses that it asks, in its order."""
    program = Program(recording=RECORDINGS[name], server=tenant, api=Api())
    assert program.discover()["issuer"] == "http://localhost:6543/tenant"


@pytest.mark.parametrize("name", ["claude-code", "opencode"])
def test_two_processes_that_share_their_tokens_refresh_at_once(development: Server, name: str) -> None:
    """I-18: the second gets the same successor again (anthropics/claude-code#91641, anomalyco/opencode#34074)."""
    first = registered_as(development, name)
    way = first.recording.authorization[0]
    code = query_of(answer_of_a_person(development, first.authorization_url(way)))["code"]
    assert first.redeem(way, code).status_int == 200
    second = dataclasses.replace(first)
    assert [first.refresh().status_int, second.refresh().status_int] == [200, 200]
    assert first.tokens["refresh_token"] == second.tokens["refresh_token"]


@pytest.mark.parametrize("name", ["claude", "claude-code", "codex", "copilot-studio", "vs-code"])
def test_a_program_whose_registration_is_gone_is_told_to_register_again(
    development: Server, name: str
) -> None:
    """2.1, 3.2.4: `invalid_client` with 401, however it authenticates; on anything else they try for ever."""
    program = registered_as(development, name)
    program.registered["client_id"] = "client_that_was_removed"
    program.tokens["refresh_token"] = forged("as_refresh_")
    answer = program.refresh()
    assert (answer.status_int, answer.json["error"]) == (401, "invalid_client")


def test_a_refresh_for_more_than_the_person_granted_is_refused(development: Server) -> None:
    """RFC 6749, 6: RikkaHub repeats the scope it asked for, whatever was ticked; it then asks the person again."""
    program = registered_as(development, "rikkahub", Api(scopes=("notes.read", "notes.write")))
    (way,) = program.recording.authorization
    url = program.authorization_url(way)
    code = query_of(answer_of_a_person(development, url, ticked=["notes.read"]))["code"]
    assert program.redeem(way, code).status_int == 200
    answer = program.refresh()
    assert (answer.status_int, answer.json["error"]) == (400, "invalid_scope")


def test_the_documentation_has_a_row_for_each_recording() -> None:
    """With the version and the day of the recording, so that neither is told of what is not there."""
    page = (CHECKOUT / "docs/real-clients.rst").read_text()
    rows = re.findall(r"   \* - (.+)\n     - (.+); (.+)\n", page)
    assert sorted(rows) == sorted(
        (recording.program, recording.version, recording.recorded.isoformat())
        for recording in RECORDINGS.values()
    )


@pytest.mark.parametrize(
    "program",
    [
        *("VS Code", "Cursor", "Claude", "Claude Code", "ChatGPT", "Codex"),
        *("Copilot Studio", "Copilot CLI", "mcp-remote", "MCP Inspector"),
    ],
)
def test_the_programs_that_people_use_every_day_are_recorded(program: str) -> None:
    """K-25."""
    assert program in {recording.program for recording in RECORDINGS.values()}


# ---- the hostile side -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "redirect_uri"),
    [
        ("vs-code", "http://127.0.0.1:59656"),
        ("vs-code", "http://127.0.0.1:59656/other"),
        ("vs-code", "http://localhost:33418/"),
        ("vs-code", "http://127.0.0.1.evil.example:33418/"),
        ("vs-code", "https://vscode.dev/redirect/../evil"),
        ("vs-code", "https://vscode.dev:444/redirect"),
        ("vs-code-july-2025", "http://localhost:40123/"),
        ("vs-code-july-2025", "http://localhost:40123/evil"),
        ("claude-code", "http://127.0.0.1:3118/callback"),
        ("claude-code", "https://localhost:3118/callback"),
        ("claude-code", "http://localhost:51734/callback?next=evil"),
        ("copilot-cli", "http://127.0.0.1:49321/callback"),
        ("codex", "http://127.0.0.1:37819/callback/other"),
        ("cursor", "cursor://anysphere.cursor-mcp/oauth/callback/evil"),
        ("cursor", "cursor://evil.example/oauth/callback"),
        ("cursor", "CURSOR://anysphere.cursor-mcp/oauth/callback"),
        ("cursor", "cursor://anysphere.cursor-mcp:1/oauth/callback"),
        ("cursor", "https://www.cursor.com/agents/mcp/oauth/callback?code=1"),
        ("chatgpt", "https://chatgpt.com/connector/oauth/another"),
        ("claude", "https://claude.ai/api/mcp/auth_callback/"),
    ],
)
def test_no_other_redirect_uri_is_accepted(development: Server, name: str, redirect_uri: str) -> None:
    """C-02, C-04: only the port of a loopback address may differ; nothing leads to what was not registered."""
    program = registered_as(development, name)
    way = msgspec.structs.replace(program.recording.authorization[0], redirect_uri=redirect_uri)
    answer = development.browser().get(program.authorization_url(way), expect_errors=True)
    assert answer.status_int == 400
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "cursor://anysphere.cursor-mcp/oauth/callback/evil",
        "cursor://evil.example/oauth/callback",
        "cursors://anysphere.cursor-mcp/oauth/callback",
        "systemprompt://oauth/callback",
        "javascript://anysphere.cursor-mcp/%0aalert(1)",
    ],
)
def test_a_private_use_redirect_uri_that_was_not_allowed_is_not_registered(
    development: Server, redirect_uri: str
) -> None:
    """C-16: alone it is refused; beside others it is left out, and the answer shows that."""
    program = Program(recording=RECORDINGS["cursor"], server=development, api=Api())
    program.discover()
    body = {**program.recording.registration.body, "redirect_uris": [redirect_uri]}
    program.recording = _with_body(program.recording, body)
    answer = program.register()
    assert answer.status_int == 400
    assert answer.json["error"] == "invalid_redirect_uri"


def test_a_private_use_redirect_uri_that_was_not_allowed_is_left_out_beside_others(
    development: Server,
) -> None:
    """C-18, K-04: the answer shows what is left, and authorization goes there alone."""
    program = Program(recording=RECORDINGS["cursor"], server=development, api=Api())
    program.discover()
    loopback = "http://localhost:8787/callback"
    body = {
        **program.recording.registration.body,
        "redirect_uris": ["cursor://evil.example/oauth/callback", loopback],
    }
    program.recording = _with_body(program.recording, body)
    assert program.register().json["redirect_uris"] == [loopback]
    way = msgspec.structs.replace(
        program.recording.authorization[0], redirect_uri="cursor://evil.example/oauth/callback"
    )
    assert development.browser().get(program.authorization_url(way), expect_errors=True).status_int == 400


def test_a_person_is_asked_each_time_where_another_application_could_answer(development: Server) -> None:
    """C-16: the page names the scheme of Cursor's private-use redirect URI, and no consent to it is remembered."""
    program = registered_as(development, "cursor", Api(scopes=("notes.read",)))
    url = program.authorization_url(program.recording.authorization[0])
    person = signed_in(development)
    for _ in range(2):
        page = person.get(url)
        assert page.status_int == 200
        assert '<bdi dir="ltr">cursor</bdi>' in page.text
        assert "code" in query_of(development.consent(page))


def _with_body(recording: Recording, body: Mapping[str, Any]) -> Recording:
    registration = msgspec.structs.replace(recording.registration, body=body)
    return msgspec.structs.replace(recording, registration=registration)


def test_a_program_gets_no_more_than_is_open_to_registrations(make_server: Any) -> None:
    """K-11, K-28: asking for every scope there is gives the open ones, in the registration and afterwards."""
    settings = settings_of("development.ini")
    settings["authserver.plugin.registration_open.scopes"] = "profile notes.read"
    server = make_server(settings)
    program = registered_as(server, "codex")
    assert program.asked["scope"] == "notes.read notes.write profile"
    assert set(program.registered["scope"].split()) == {"profile", "notes.read"}
    (way,) = program.recording.authorization
    code = query_of(answer_of_a_person(server, program.authorization_url(way)))["code"]
    assert program.redeem(way, code).status_int == 200
    assert set(program.tokens["scope"].split()) == {"profile", "notes.read"}
