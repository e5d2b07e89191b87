"""`authserver lint`: K-26, the clients that a tightened policy hits."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy.engine import make_url
from webtest import TestApp

from authserver.cli import lint, main, posture
from authserver.cli.configuration import Configuration
from authserver.engine.clients.registration import register
from authserver.engine.records import Client
from authserver.plugins import loading
from authserver.plugins.asking import PluginSet
from authserver.testing.records import a_client
from authserver.testing.server import SETTINGS, Server
from tests.cli.conftest import CHECKOUT

CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"
URIS = (
    "https://client.example/cb",
    "https://Client.example:443/cb?tenant=1",
    "http://127.0.0.1/cb",
    "http://127.0.0.1:5000/cb",
    "http://[::1]/cb",
    "http://localhost",
    "http://localhost:8080/cb",
    "com.example.app:/cb",
    CURSOR,
    "rikkahub://mcp-oauth-callback",
)
# That of the demo client.
PLAYGROUND = "http://localhost:6543/playground"
# What no registration accepts now; the rules of an earlier version may have been others.
OLD_URIS = ("http://client.example/cb", "javascript:alert(1)", "https://client.example/cb#fragment")
# As an application that gets a port from its system asks, in place of the URI that it registered.
WITH_PORT = {
    "http://127.0.0.1/cb": "http://127.0.0.1:61001/cb",
    "http://[::1]/cb": "http://[::1]:61001/cb",
    "http://localhost": "http://localhost:61001",
}
PORTLESS = set(WITH_PORT)
PLUGIN = """
from dataclasses import dataclass
from authserver.api import deny, hookimpl

@dataclass(frozen=True)
class NoQueries:
    @hookimpl
    def redirect_uri_decision(self, redirect_uri):
        return deny("has-a-query") if "?" in redirect_uri else None

@dataclass(frozen=True)
class Broken:
    @hookimpl
    def redirect_uri_decision(self, redirect_uri):
        raise RuntimeError("broken")

@dataclass(frozen=True)
class Shadow:
    @hookimpl
    def redirect_uri_decision(self, redirect_uri):
        return deny("never")
"""
WATCHER = """
from dataclasses import dataclass
from authserver.api import hookimpl

@dataclass(frozen=True)
class Watcher:
    secret: str

    @hookimpl
    def observe(self, event):
        pass
"""
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u200d\r\nada  [bold]administrator"
WORD = "https://client.example/\x1b]0;title\x07\x1b[2J\u009b31m\u202e\u200d"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def change(ini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Change lines of the INI file, each of which is there once; the plugins above can be named in it."""
    (tmp_path / "lint_policies.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))

    def change(*changes: tuple[str, str]) -> None:
        text = ini.read_text()
        for before, after in changes:
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        ini.write_text(text)

    return change


@pytest.fixture
def linted(run) -> Callable[[], dict[str, Any]]:
    """What `lint --json` prints; nothing else is printed, and the exit status fits."""

    def linted() -> dict[str, Any]:
        result = run("lint", "--json")
        told: dict[str, Any] = json.loads(result.stdout)
        assert result.stderr == ""
        assert result.exit_code == (1 if told["findings"] else 0)
        # What is said without the database is below.
        del told["posture"], told["plugins"]
        return told

    return linted


def without(plugin: str) -> tuple[str, str]:
    return f"\n    {plugin}\n", "\n"


def before_others(plugin: str) -> tuple[str, str]:
    return "authserver.plugins =\n", f"authserver.plugins =\n    {plugin}\n"


def without_loopback_hosts() -> tuple[str, str]:
    return "authserver.plugin.redirect_loopback.hosts = 127.0.0.1 [::1] localhost\n", ""


def self_registered(ini: Path, *redirect_uris: str) -> str:
    """The id of a client that registered itself with these redirect URIs, while that is allowed."""
    body = {
        "client_name": "Program",
        "redirect_uris": redirect_uris,
        "token_endpoint_auth_method": "none",
        "scope": "profile",
    }
    with Configuration(ini).engine() as engine:
        answer = register(engine, json.dumps(body).encode())
    assert answer["redirect_uris"] == list(redirect_uris)
    return str(answer["client_id"])


def kept(ini: Path, **changes: Any) -> Client:
    """A client that is in the database whatever the rules are now."""
    client = a_client(**{"grant_types": ("authorization_code",), "scopes": ("profile",)} | changes)
    with Configuration(ini).engine() as engine:
        engine.stores.clients.add(client)
    return client


def hits(told: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    return {(row["client_id"], row["member"], row["value"]) for row in told["findings"]}


@contextmanager
def browser_of(ini: Path) -> Iterator[TestApp]:
    """A browser at the server that the INI file now describes."""
    keys = Configuration(ini).ini()
    server = Server(keys["authserver.database_url"], {**dict.fromkeys(SETTINGS), **keys})
    try:
        yield server.http
    finally:
        server.close()


def is_refused(browser: TestApp, client_id: str, redirect_uri: str) -> bool:
    """Whether the authorization endpoint answers with a page of an error instead of going on to the sign-in."""
    answer = browser.get(
        "/oauth/authorize", {"client_id": client_id, "redirect_uri": redirect_uri}, status="*"
    )
    assert answer.status_int in (303, 400, 500), answer
    return bool(answer.status_int != 303)


# ---- what lint lists is what the authorization endpoint refuses ------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], set()),
        ([without("redirect_loopback"), without_loopback_hosts()], PORTLESS),
        ([without("mcp_clients")], {CURSOR, "rikkahub://mcp-oauth-callback"}),
        (
            [without("mcp_clients"), without("redirect_loopback"), without_loopback_hosts()],
            {*PORTLESS, CURSOR, "rikkahub://mcp-oauth-callback"},
        ),
        (
            [("hosts = 127.0.0.1 [::1] localhost", "hosts = 127.0.0.1")],
            {"http://[::1]/cb", "http://localhost"},
        ),
        ([without("redirect_exact")], {uri for uri in URIS if not uri.startswith("http://")}),
        ([before_others("lint_policies:NoQueries")], {"https://Client.example:443/cb?tenant=1"}),
        ([before_others("lint_policies:Broken")], {*URIS, PLAYGROUND}),
    ],
    ids=["open", "loopback", "mcp", "both", "hosts", "exact", "plugin", "broken"],
)
def test_exactly_the_redirect_uris_that_the_authorization_endpoint_refuses_are_listed(
    run, ini, change, linted, changes, expected
) -> None:
    """K-26: each URI alone, all of them at one client, and those that an earlier version let in."""
    clients = {self_registered(ini, uri): {uri} for uri in URIS}
    clients[self_registered(ini, *URIS)] = set(URIS)
    clients["playground"] = {PLAYGROUND}
    clients[kept(ini, client_id="old", redirect_uris=OLD_URIS).client_id] = set(OLD_URIS)
    change(*changes)

    listed = hits(linted())

    assert listed == {
        (client_id, "redirect_uris", uri)
        for client_id, registered in clients.items()
        for uri in registered & {*expected, *OLD_URIS}
    }
    with browser_of(ini) as browser:
        for client_id, registered in clients.items():
            for uri in registered:
                asked = [uri, *([WITH_PORT[uri]] if uri in WITH_PORT else [])]
                refused = any(is_refused(browser, client_id, each) for each in asked)
                assert refused == ((client_id, "redirect_uris", uri) in listed), uri


def test_a_finding_says_what_to_do(ini, change, linted) -> None:
    kept(
        ini, client_id="a", redirect_uris=(CURSOR, "http://127.0.0.1/cb", "https://a.example/?q", OLD_URIS[0])
    )
    change(without("redirect_loopback"), without_loopback_hosts(), without("mcp_clients"))
    change(before_others("lint_policies:NoQueries"))
    told = [(row["value"], row["reason"], row["remedy"]) for row in linted()["findings"]]
    for (value, reason, remedy), expected in zip(
        told,
        [
            (CURSOR, "private-use-not-allowed", "list mcp_clients in authserver.plugins"),
            ("http://127.0.0.1/cb", "nobody-answered", "list redirect_loopback in authserver.plugins"),
            ("https://a.example/?q", "has-a-query", "`authserver explain redirect-uri"),
            (OLD_URIS[0], "redirect-uri-malformed", "no setting"),
        ],
        strict=True,
    ):
        assert (value, reason) == expected[:2]
        assert expected[2] in remedy


# ---- everything else that is registered ------------------------------------------------------------------


def test_scopes_grant_types_and_methods_that_are_gone(run, ini, change, linted) -> None:
    """K-26: clients of the operator and of the demo, too."""
    for name, *options in (
        ("Poster", "--auth-method", "client_secret_post", "--scope", "profile"),
        ("Writer", "--redirect-uri", "https://writer.example/cb", "--scope", "notes.write"),
        ("Reader", "--redirect-uri", "https://reader.example/cb", "--scope", "notes.read"),
    ):
        added = run("client", "add", "--name", name, "--client-id", name.lower(), *options)
        assert added.exit_code == 0, added.output
    assert linted() == {"checked": 5, "findings": [], "settings": [], "resources": [], "issuers": []}
    change(
        ("\n    notes.write = Write and delete your notes\n", "\n"),
        ("scopes = profile notes.read notes.write", "scopes = profile notes.read"),
        (
            "# authserver.grant_types = authorization_code refresh_token client_credentials",
            "authserver.grant_types = authorization_code",
        ),
        (
            "grant_types = authorization_code refresh_token\n\n# Clients that",
            "grant_types = authorization_code\n\n# Clients that",
        ),
        without("client_secret_post"),
    )
    told = linted()
    assert told["checked"] == 5
    assert hits(told) == {
        ("poster", "grant_types", "client_credentials"),
        ("poster", "token_endpoint_auth_method", "client_secret_post"),
        ("writer", "grant_types", "refresh_token"),
        ("writer", "scope", "notes.write"),
        ("reader", "grant_types", "refresh_token"),
        ("demo-service", "grant_types", "client_credentials"),
        ("demo-service", "scope", "notes.write"),
        ("playground", "grant_types", "refresh_token"),
        ("playground", "scope", "notes.write"),
    }
    remedies = {row["member"]: (row["reason"], row["remedy"]) for row in told["findings"]}
    assert remedies["grant_types"][0] == "unsupported_grant_type"
    assert "authserver.grant_types" in remedies["grant_types"][1]
    assert remedies["scope"][0] == "nothing-left"
    assert "authserver.scopes" in remedies["scope"][1]
    assert "authserver.plugins" in remedies["token_endpoint_auth_method"][1]


# ---- for people ------------------------------------------------------------------------------------------


def test_nothing_hit_is_one_sentence(run) -> None:
    result = run("lint")
    assert result.exit_code == 0
    assert result.stdout.endswith(
        "\nNone of 2 clients would be refused anything that it is registered for.\n"
    )


def test_people_get_a_line_for_each_finding_and_each_remedy_once(run, ini, change) -> None:
    for client_id in ("one", "two"):
        kept(ini, client_id=client_id, name="Editor", redirect_uris=(CURSOR,))
    change(without("mcp_clients"))
    result = run("lint")
    assert result.exit_code == 1
    lines = [line.split() for line in result.stdout.splitlines()]
    for client_id in ("one", "two"):
        assert [client_id, "Editor", "redirect_uris", CURSOR, "private-use-not-allowed"] in lines
    assert result.stdout.count("list mcp_clients in authserver.plugins") == 1
    assert lines[-1][:4] == ["2", "of", "4", "clients"]


def test_what_is_stored_is_text_on_a_terminal(run, ini) -> None:
    """T094: a client may have any name."""
    kept(ini, client_id="hostile", name=HOSTILE, redirect_uris=(WORD,), scopes=(WORD,), auth_method=WORD)
    for options in ([], ["--json"]):
        result = run("lint", *options)
        assert result.exit_code == 1, result.output
        assert not CONTROL.search(result.output)
        assert not re.search(r"(?m)^ada ", result.output)
    # `--json` gives what is stored, and a table shows markup as it is written.
    found = json.loads(result.stdout)["findings"]
    assert {row["client_name"] for row in found} == {HOSTILE}
    assert [row["value"] for row in found] == [WORD, WORD, WORD]
    assert "[bold]administrator" in re.sub(r"\s+", "", run("lint").stdout)


# ---- all clients are read, and nothing is written ----------------------------------------------------------


def test_clients_are_read_in_pages(ini, change, linted, monkeypatch) -> None:
    monkeypatch.setattr(lint, "PAGE", 2)
    ids = {kept(ini, client_id=f"client-{number}", redirect_uris=(CURSOR,)).client_id for number in range(5)}
    change(without("mcp_clients"))
    told = linted()
    assert told["checked"] == 7
    assert {row["client_id"] for row in told["findings"]} == ids


def test_disabled_clients_are_left_out(run, ini, change, linted) -> None:
    kept(ini, client_id="gone", redirect_uris=(CURSOR,))
    assert run("client", "disable", "gone").exit_code == 0
    change(without("mcp_clients"))
    assert linted() == {"checked": 2, "findings": [], "settings": [], "resources": [], "issuers": []}


def test_nothing_is_written_even_with_shadow_plugins(run, ini, change, linted) -> None:
    kept(ini, client_id="hit", redirect_uris=(CURSOR, "https://client.example/cb"))
    change(
        without("mcp_clients"),
        ("# authserver.shadow_plugins =", "authserver.shadow_plugins = lint_policies:Shadow"),
    )
    before = contents(ini)
    assert hits(linted()) == {("hit", "redirect_uris", CURSOR)}
    assert contents(ini) == before


def contents(ini: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(ini.parent / ".local" / "authserver.sqlite")) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


# ---- without the database --------------------------------------------------------------------------------

ELSEWHERE = ("ISSUER", "DATABASE_URL", "SECRET_KEYS", "RESOURCES", "REGISTRATION_TOKENS")


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What `lint production.ini --offline --json` says after these changes of its text, and its exit status."""
    for name in ELSEWHERE:
        monkeypatch.delenv(f"AUTHSERVER_{name}", raising=False)
    text = (CHECKOUT / "production.ini").read_text()

    def judged(*changes: tuple[str, str], options: tuple[str, ...] = ()) -> dict[str, Any]:
        changed = text
        for before, after in changes:
            assert changed.count(before) == 1, before
            changed = changed.replace(before, after)
        ini = tmp_path / "production.ini"
        ini.write_text(changed)
        result = CliRunner().invoke(main, ["lint", str(ini), "--offline", "--json", *options])
        assert result.stderr == ""
        return {**json.loads(result.stdout), "status": result.exit_code}

    return judged


def told(judged: dict[str, Any], severity: str) -> set[tuple[str, str]]:
    return {
        (remark["key"].removeprefix("authserver."), remark["problem"])
        for remark in judged["posture"]
        if remark["severity"] == severity
    }


def test_production_ini_is_as_it_should_be_where_no_secrets_are(production) -> None:
    """As in CI: nothing is wrong, what is elsewhere is named, and no database is made."""
    judged = production(options=("--strict",))
    assert (judged["status"], told(judged, "error"), told(judged, "warning")) == (0, set(), set())
    unknown = {key for key, _ in told(judged, "not judged")}
    assert {"issuer", "database_url", "secret_keys"} <= unknown
    assert all(power["is_ours"] and power["hooks"] for power in judged["plugins"])
    assert not list(Path().glob("stand-in.db"))


ENVIRONMENT = "authserver.environment = production\n"
INLINE = "20260101-abcd:" + "A" * 43 + "="


@pytest.mark.parametrize(
    ("change", "severity", "key", "problem"),
    [
        (("env:AUTHSERVER_ISSUER", "https://login.example.com"), "error", "issuer", "login.example.com is a placeholder"),
        (("env:AUTHSERVER_ISSUER", "https://192.0.2.1"), "warning", "issuer", "an IP address cannot move to another machine"),
        (("env:AUTHSERVER_ISSUER", "http://login.acme.com"), "error", "issuer", "plain http"),
        (("env:AUTHSERVER_SECRET_KEYS", INLINE), "error", "secret_keys", "is in the INI file"),
        (
            ("env:AUTHSERVER_DATABASE_URL", "postgresql+psycopg://authserver@db.acme.com/authserver"),
            "warning",
            "database_url",
            "the connection to db.acme.com may be unencrypted",
        ),
        (("    # registration_open\n", "    registration_open\n"), "warning", "plugins", "anybody can register"),
        (("    log_events\n", ""), "advice", "plugins", "events are only in the database"),
    ],
)  # fmt: skip
def test_each_finding_names_the_key_to_change(production, change, severity, key, problem) -> None:
    judged = production(change)
    assert any(found == key and text.startswith(problem) for found, text in told(judged, severity)), judged
    assert judged["status"] == (1 if told(judged, "error") else 0)
    assert production(change, options=("--strict",))["status"] == (0 if severity == "advice" else 1)


def test_what_no_plugin_does_is_said() -> None:
    with closing(PluginSet([])) as nothing:
        problems = [remark.problem for remark in posture._of_plugins(nothing.serves, set())]
    assert len(problems) == 4 and "no plugin limits" in problems[0]
    names = ["rate_limits", "resources_registered", "dpop", "log_events"]
    plugins, _ = loading.load(names, {}, production=True)
    with closing(plugins):
        assert not list(posture._of_plugins(plugins.serves, set(names)))


def test_a_plugin_whose_secret_is_elsewhere_does_what_it_is_listed_for(production, tmp_path) -> None:
    """Such as the limits of a container, which are counted where its environment says."""
    (tmp_path / "acme.py").write_text(WATCHER)
    storage = "# authserver.plugin.rate_limits.storage = memory://"
    judged = production(
        (storage, "authserver.plugin.rate_limits.storage = env:NOT_HERE"), options=("--strict",)
    )
    assert (judged["status"], told(judged, "warning")) == (0, set())
    # The same of a plugin of others, which is listed with what it may do.
    judged = production(
        ("    log_events\n", "    acme:Watcher\n"),
        (ENVIRONMENT, f"{ENVIRONMENT}authserver.plugin.watcher.secret = env:NOT_HERE\n"),
        options=("--strict",),
    )
    assert judged["status"] == 0
    assert not [
        problem for _, problem in told(judged, "advice") if "events are only in the database" in problem
    ]
    (power,) = [power for power in judged["plugins"] if not power["is_ours"]]
    assert power == {"plugin": "watcher", "hooks": ["observe"], "comes_from": "acme", "is_ours": False}
    judged = production(
        ("    log_events\n", "    log_events\n    acme:Nobody\n"),
        (ENVIRONMENT, f"{ENVIRONMENT}authserver.plugin.nobody.secret = env:NOT_HERE\n"),
    )
    assert [key for key, problem in told(judged, "error") if "acme:Nobody" in problem] == ["plugins"]


@pytest.mark.parametrize(
    ("rest", "warns"),
    [
        ("authserver:a[b@db.acme.com/authserver", True),
        ("authserver:a[b@db.acme.com/authserver?sslmode=verify-full", False),
        ("authserver@/authserver?host=db.acme.com", True),
        ("authserver@/authserver?host=/var/run/postgresql", False),
        ("authserver@127.0.0.1/authserver", False),
    ],
)
def test_whether_the_way_to_the_database_is_encrypted(rest: str, warns: bool) -> None:
    """RFC 9700, 2.6; a password may have any character."""
    assert [*map(bool, posture._of_database(make_url(f"postgresql+psycopg://{rest}")))] == [True] * warns


def test_a_lifetime_that_is_too_long_has_its_clause(production) -> None:
    """RFC 9700, 2.2.1."""
    judged = production(
        ("authserver.environment = production\n", "authserver.environment = production\nauthserver.access_token_lifetime = 86400\n")
    )  # fmt: skip
    (remark,) = [one for one in judged["posture"] if one["severity"] == "warning"]
    assert (remark["key"], "RFC 9700" in remark["clause"]) == ("authserver.access_token_lifetime", True)


def test_what_needs_the_database_is_said_not_to_be_judged(production, tmp_path) -> None:
    production()
    result = CliRunner().invoke(main, ["lint", str(tmp_path / "production.ini")])
    assert (result.exit_code, "--offline" in result.stderr) == (1, True)
    assert "not set here: authserver.issuer, authserver.database_url" in result.stderr
