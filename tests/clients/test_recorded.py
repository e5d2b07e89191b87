"""Real programs, as recorded in `recorded/`: each finds us, registers, gets a code, redeems and refreshes with the shipped INI."""

from __future__ import annotations

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

from authserver.testing.server import SETTINGS, Server, query_of
from tests.clients.programs import Api, Program, answer_of_a_person
from tests.clients.recordings import NAMES, Authorization, Recording, load

CHECKOUT = Path(__file__).parents[2]
OFFERED_GRANT_TYPES = {"authorization_code", "refresh_token"}


def settings_of(file: str) -> dict[str, str | None]:
    """The settings of a shipped INI file, and none of those that other tests use."""
    section = dict(appconfig(f"config:{CHECKOUT / file}", name="main").local_conf)
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
    assert left.location.startswith(way.redirect_uri + "?"), left.location
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
    opened = set(program.metadata["scopes_supported"])
    assert set(registered["scope"].split()) == (set(asked.get("scope", "").split()) & opened or opened)


def check_accepted(program: Program, uri: str) -> None:
    """K-26: what registration accepted, authorization accepts."""
    way = program.recording.authorization[0]
    url = program.authorization_url(msgspec.structs.replace(way, redirect_uri=uri))
    answer = program.server.browser().get(url, expect_errors=True)
    assert answer.status_int == 303, (uri, answer.text)
    assert answer.location.startswith(program.server.issuer + "/login"), (uri, answer.location)


def wanted_scope(program: Program, way: Authorization) -> set[str]:
    """B-09, B-27: of what was asked for, all that the client is registered for; without any, the server's default."""
    url = program.authorization_url(way)
    (asked,) = parse_qs(urlsplit(url).query).get("scope", [""])
    return set(asked.split()) & set(program.registered["scope"].split()) or {"profile"}


def check_tokens(program: Program, answer: TestResponse, scope: set[str]) -> None:
    """J-01, O-05: the members that programs read, and a token for the API."""
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
WAYS = [
    pytest.param(recording, way, id=f"{name}: {way.way}")
    for name, recording in RECORDINGS.items()
    for way in recording.authorization
    if name != "mobile-application"
]
APIS = {"named scopes": Api(scopes=("notes.read", "notes.write")), "no scopes": Api()}


@pytest.mark.parametrize("api", APIS.values(), ids=APIS)
@pytest.mark.parametrize(("recording", "way"), WAYS)
def test_a_program_gets_and_refreshes_tokens_with_development_ini(
    development: Server, recording: Recording, way: Authorization, api: Api
) -> None:
    """K-25, K-26: from discovery to a refreshed token."""
    walk(Program(recording=recording, server=development, api=api), way)


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
def test_a_recorded_verifier_is_one(name: str) -> None:
    """RFC 7636, 4.1."""
    assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", RECORDINGS[name].code_verifier)
