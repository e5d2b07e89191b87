"""development.ini and production.ini: complete, true, and as strict as they say."""

from __future__ import annotations

import configparser
import dataclasses
import re
import shutil
import typing
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from paste.deploy import appconfig
from paste.deploy.loadwsgi import SERVER, loadcontext

from authserver import app
from authserver.cli.keys import new_ring_entry
from authserver.ini import convert, entry_kind
from authserver.limits import MAXIMUM_BODY, MAXIMUM_HEAD
from authserver.settings import Settings, SettingsError

CHECKOUT = Path(__file__).parents[1]
FILES = ("development.ini", "production.ini")
PLUGINS = sorted(entry_points(group="authserver.plugins"))

_KEY = re.compile(r"(# )?(authserver\.[a-z_.]+) =(.*)")


def keys(file: str) -> dict[str, tuple[bool, str]]:
    """Each key of a file, whether it is commented out, and what stands on its line."""
    matches = map(_KEY.fullmatch, (CHECKOUT / file).read_text().splitlines())
    return {match[2]: (bool(match[1]), match[3].strip()) for match in matches if match}


def settable(plugin: EntryPoint) -> Iterator[str]:
    """What of a plugin the INI can set; of entries, those of the example."""
    kind = plugin.load()
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if entry := entry_kind(hints[field.name]):
            names = (each.name for each in dataclasses.fields(entry))
            yield from (f"{field.name}.staff.{name}" for name in names if name != "name")
        # Others it works out itself.
        elif field.init:
            yield field.name


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A production.ini whose environment is as its first lines say."""
    monkeypatch.setenv("AUTHSERVER_ISSUER", "https://login.example.com")
    monkeypatch.setenv(
        "AUTHSERVER_DATABASE_URL", "postgresql+psycopg://authserver:secret@db.example.com/authserver"
    )
    monkeypatch.setenv("AUTHSERVER_SECRET_KEYS", new_ring_entry())
    monkeypatch.setenv("AUTHSERVER_REGISTRATION_TOKENS", "0123456789abcdef" * 4)
    monkeypatch.setenv("AUTHSERVER_RESOURCES", "https://api.example.com/ = *")
    return Path(shutil.copy(CHECKOUT / "production.ini", tmp_path))


def section(path: Path) -> Mapping[str, str]:
    own: Mapping[str, str] = appconfig(f"config:{path}", name="main").local_conf
    return own


@pytest.mark.parametrize("file", FILES)
def test_every_setting_is_in_the_file(file: str) -> None:
    """T142: nothing is hidden from who copies it."""
    found = keys(file)
    for field in dataclasses.fields(Settings):
        assert f"authserver.{field.name}" in found, field.name


@pytest.mark.parametrize("file", FILES)
def test_a_commented_setting_shows_its_true_default(file: str) -> None:
    hints = typing.get_type_hints(Settings, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    shown = [
        (name, text)
        for key, (commented, text) in keys(file).items()
        if commented and (name := key.removeprefix("authserver.")) in fields
    ]
    assert len(shown) >= 10
    for name, text in shown:
        assert convert(text, hints[name]) == fields[name].default, name


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_every_shipped_plugin_is_listed_with_all_its_settings(file: str, plugin) -> None:
    lines = [line.strip().removeprefix("# ") for line in (CHECKOUT / file).read_text().splitlines()]
    place = lines.index(plugin.name)
    assert lines[place - 1].endswith(".") and " " in lines[place - 1], "a comment says what it does"
    found = keys(file)
    for setting in settable(plugin):
        assert f"authserver.plugin.{plugin.name}.{setting}" in found, setting


@pytest.mark.parametrize("file", FILES)
def test_the_file_names_nothing_that_is_not_there(file: str) -> None:
    known = {f"authserver.{field.name}" for field in dataclasses.fields(Settings)}
    for plugin in PLUGINS:
        known |= {f"authserver.plugin.{plugin.name}.{setting}" for setting in settable(plugin)}
    assert set(keys(file)) <= known


def test_production_starts_as_its_first_lines_say(production: Path) -> None:
    """T142: and announces nothing as insecure."""
    application = app.build(section(production))
    assert application.parts.settings.is_production
    assert application.insecure == ()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("    # playground\n", "    playground\n"), "playground"),
        (("env:AUTHSERVER_ISSUER", "http://localhost:6543"), "authserver.issuer"),
        (("env:AUTHSERVER_SECRET_KEYS", new_ring_entry()), "authserver.secret_keys"),
        (
            (
                "env:AUTHSERVER_DATABASE_URL",
                "postgresql+psycopg://authserver:secret@db.example.com/authserver",
            ),
            "authserver.database_url",
        ),
        (("env:AUTHSERVER_REGISTRATION_TOKENS", "0123456789abcdef" * 4), "registration_token.tokens"),
        (("127.0.0.1 ::1", "0.0.0.0/0"), "authserver.trusted_proxies: 0.0.0.0/0"),
        (("[app:main]\n", "[app:main]\npyramid.debug_all = true\n"), "pyramid.debug_all"),
        (("[app:main]\n", "[app:main]\npyramid.includes = pyramid_debugtoolbar\n"), "pyramid.includes"),
    ],
)
def test_production_refuses_what_development_announces(
    production: Path, change: tuple[str, str], named: str
) -> None:
    """T142: the start stops, and the line says which key."""
    text = production.read_text()
    assert text.count(change[0]) >= 1
    production.write_text(text.replace(*change))
    with pytest.raises(SettingsError) as refused:
        app.build(section(production))
    (problem,) = [line for line in refused.value.problems if "(refused in production)" in line]
    assert named in problem


def test_a_sample_key_is_refused_in_production(production: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T142."""
    monkeypatch.setenv("AUTHSERVER_SECRET_KEYS", "sample:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    with pytest.raises(SettingsError, match=r"authserver\.secret_keys: not random"):
        app.build(section(production))


@pytest.mark.parametrize("file", FILES)
def test_the_server_section_bounds_what_a_stranger_can_send(file: str) -> None:
    """T136, T142: bodies, headers and idle connections are bounded, and no traceback is shown."""
    server = settings_of_server(CHECKOUT / file)
    assert int(server["max_request_body_size"]) == MAXIMUM_BODY + 1
    assert int(server["max_request_header_size"]) == MAXIMUM_HEAD
    assert int(server["channel_timeout"]) == int(server["request_time_limit"]) == 20
    assert int(server["connections_per_address"]) * 10 < int(server["connection_limit"]) == 800
    assert server["expose_tracebacks"] == "false"


def test_production_believes_forwarding_headers_of_its_own_proxy_only(production: Path) -> None:
    """Q-10, T138."""
    assert app.build(section(production)).parts.settings.trusted_proxies == ("127.0.0.1", "::1")


def test_the_command_line_names_other_ports() -> None:
    """PasteDeploy lets `[DEFAULT]` win over the command line everywhere but in lines that begin with `get`."""
    context = loadcontext(
        SERVER,
        f"config:{CHECKOUT / 'production.ini'}",
        global_conf={"http_port": "6544", "management_address": "127.0.0.1:16544"},
    )
    assert context.local_conf["port"] == "6544"
    assert context.local_conf["management_listen"] == "127.0.0.1:16544"


def settings_of_server(path: Path) -> Mapping[str, str]:
    parser = configparser.RawConfigParser()
    parser.read(path)
    return parser["server:main"]
