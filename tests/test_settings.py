"""INI text into values: what is unknown, missing, out of bounds, contradictory or insecure stops the start by name."""

from __future__ import annotations

import base64
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from authserver import app
from authserver.ini import Resolved, convert, load, read_fields, referred_file, referred_files, value_at
from authserver.limits import MAXIMUM_SCOPE
from authserver.plugins.variants import settings_of
from authserver.settings import Environment, Secret, Settings, SettingsError, key_ring

KEY = base64.b64encode(bytes((7 * n + 3) % 256 for n in range(32))).decode()
OTHER_KEY = base64.b64encode(bytes((11 * n + 5) % 256 for n in range(32))).decode()
SMALLEST = {
    "authserver.issuer": "https://as.example",
    "authserver.environment": "development",
    "authserver.database_url": "sqlite:////tmp/as.sqlite",
    "authserver.secret_keys": f"k1:{KEY}",
}
BOUNDS = {
    "jwks_maximum_age": (1, 86400),
    "code_lifetime": (10, 60),
    "access_token_lifetime": (10, 86400),
    "refresh_token_idle_lifetime": (60, 31536000),
    "grant_lifetime": (60, 315360000),
    "refresh_token_retry_window": (0, 120),
    "request_lifetime": (60, 3600),
    "maximum_request": (4096, 32768),
    "session_idle_lifetime": (60, 2592000),
    "password_link_lifetime": (60, 604800),
    "invitation_lifetime": (60, 604800),
    "session_lifetime": (60, 31536000),
    "session_timeout_delay": (0, 86400),
    "password_checks": (1, 64),
    "trusted_proxy_hops": (1, 10),
    "fetch_at_once": (1, 64),
    "fetch_at_once_per_host": (1, 64),
    "fetch_waiting": (0, 256),
    "cleanup_interval": (0, 86400),
    "event_lifetime": (0, 315360000),
    "refusal_lifetime": (0, 315360000),
    "hourly_statistics_lifetime": (0, 315360000),
    "statistics_lifetime": (0, 630720000),
    "issuance_lifetime": (0, 315360000),
    "refusals_per_minute": (1, 100000),
    "idle_client_lifetime": (0, 315360000),
    "unused_client_lifetime": (0, 315360000),
    "unused_clients_per_source": (0, 1000000),
    "unused_clients": (0, 1000000),
}


def ini(**changes: str | None) -> dict[str, str]:
    """The smallest INI section, with these settings changed; None removes one."""
    values = {**SMALLEST, **{f"authserver.{name}": value for name, value in changes.items()}}
    return {key: value for key, value in values.items() if value is not None}


def problems_of(section: Mapping[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        load(section)
    return list(raised.value.problems)


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A section that production accepts."""
    monkeypatch.setenv("TEST_KEYS", f"k1:{KEY}")
    monkeypatch.setenv("TEST_DATABASE", "postgresql+psycopg://as:canary@db/as")
    return ini(environment="production", secret_keys="env:TEST_KEYS", database_url="env:TEST_DATABASE")


# ---- Keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("authserver.isuer", ["did you mean authserver.issuer"]),
        ("authserver.code_life_time", ["authserver.code_lifetime"]),
        ("authserver.zzz", ["the nearest of ", " known: authserver."]),
        ("issuer", ["settings begin with `authserver.`"]),
        ("sqlalchemy.url", ["settings begin with `authserver.`"]),
        ("authserver.plugin.hosts", ["expected authserver.plugin.NAME.SETTING"]),
        ("pyramid.debug_al", ["did you mean pyramid.debug_all"]),
        ("pyramid.tweens", ["no such setting"]),
    ],
)
def test_an_unknown_key_is_named_with_the_known_ones(key: str, words: list[str]) -> None:
    """T142: an unknown or misspelt key stops the start."""
    (problem,) = problems_of({**SMALLEST, key: "x"})
    assert problem.startswith(f"{key}: ")
    assert all(word in problem for word in words), problem


@pytest.mark.parametrize("name", ["issuer", "database_url", "secret_keys"])
def test_a_missing_key_is_named(name: str) -> None:
    """T142: what has no default must be given."""
    assert problems_of(ini(**{name: None})) == [f"authserver.{name}: missing; add it to the INI file"]


def test_all_problems_are_told_at_once() -> None:
    """T142: nobody starts the server five times to hear five problems."""
    problems = problems_of({**ini(issuer=None, code_lifetime="soon"), "authserver.zzz": "", "other": ""})
    assert len(problems) == 4


def test_production_is_the_default_environment() -> None:
    """T142: a forgotten line is not an insecure server."""
    assert Settings.__dataclass_fields__["environment"].default is Environment.PRODUCTION


# ---- Scopes fit into a request ------------------------------------------------------------------------


def scopes(*names: str) -> str:
    return "\n".join(f"{name} = Words" for name in names)


def test_as_many_scopes_as_fit_are_accepted() -> None:
    """B206: their number does not count."""
    names = [f"s{number:03}" for number in range((MAXIMUM_SCOPE + 1) // 5)]
    assert len(names) == 819
    load(ini(scopes=scopes(*names)))
    (problem,) = problems_of(ini(scopes=scopes(*names, "one.too.many")))
    assert problem.startswith("authserver.scopes: all 820 scopes in one request are 4107 characters")


def test_ten_thousand_scopes_stop_the_start() -> None:
    """B206: nothing is advertised that a request may not name."""
    (problem,) = problems_of(ini(scopes=scopes(*(f"notes.{number}" for number in range(10_000)))))
    assert problem.startswith("authserver.scopes: all 10000 scopes in one request are")
    assert problem.endswith("and a token can name 4096; shorten their names or have fewer")


def test_scopes_fit_into_the_address_that_is_allowed() -> None:
    """B206: what is escaped counts as it is sent, and the message names the other setting."""
    names = scopes(*(f"https://api.example/{number:02}" for number in range(60)))
    load(ini(scopes=names))
    (problem,) = problems_of(ini(scopes=names, maximum_request="4096"))
    assert "1859 characters in an address, and authserver.maximum_request leaves room for 1024" in problem


# ---- Types and bounds ------------------------------------------------------------------------------


def test_every_whole_number_has_bounds() -> None:
    """T142: each number setting stands in the table of bounds that the tests below walk."""
    hints = typing.get_type_hints(Settings)
    assert {name for name, kind in hints.items() if kind is int} == set(BOUNDS)


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
def test_a_number_stays_within_its_bounds(name: str, bounds: tuple[int, int]) -> None:
    """T142, B-22: both ends are accepted, one beyond is refused and the key named."""
    smallest, largest = bounds
    for value in bounds:
        assert getattr(load(ini(**{name: str(value)})).settings, name) == value
    for bad in (str(smallest - 1), str(largest + 1), "", "ten", "1.5", "0x10", "60 s"):
        (problem,) = problems_of(ini(**{name: bad}))
        assert problem.startswith(f"authserver.{name}: "), problem


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("environment", "prod"),
        ("environment", ""),
        ("signing_algorithm", "HS256"),
        ("signing_algorithm", "none"),
        ("access_token_format", "JWT"),
        ("accent_color", "red"),
        ("accent_color", "#12345"),
        ("accent_color", "#1234567"),
        ("accent_color", "#123456;background:url(x)"),
        ("product_name", ""),
        ("product_name", "n" * 61),
        ("secret_keys", ""),
        ("database_url", ""),
        ("scopes", "profile"),
        ("scopes", "profile ="),
        ("scopes", "= See your name"),
        ("scopes", "profile = One\nprofile = Two"),
        ("scopes", 'pro"file = One'),
        ("scopes", "a\\b = One"),
        ("scopes", f"{'n' * 101} = One"),
        ("hidden_scopes", "admin"),
        ("trusted_proxies", "*"),
        ("trusted_proxies", "proxy.example"),
        ("trusted_proxies", "127.0.0.1,10.0.0.1"),
        ("trusted_proxies", "10.0.0.1/8"),
        ("admin_networks", "office.example"),
        ("admin_networks", "10.0.0.1/8"),
        ("admin_networks", "unix"),
        ("forwarding_header", "x-real-ip"),
        ("request_id_header", "X-Request-ID: "),
        ("request_id_header", "Cookie"),
        ("request_id_header", "Authorization"),
        ("continue_traces", "always"),
        ("logo", "logo.gif"),
        ("logo", "/nowhere/logo.svg"),
        ("scope_groups", "notes"),
        ("resource_names", "https://api.example/ ="),
        ("help_url", "help.example"),
        ("help_url", "http://help.example/"),
        ("help_url", "https://good.example@evil.example/"),
        ("help_url", 'https://help.example/"onclick=x'),
        ("help_url", "https://help.example/{reference}"),
        ("support_url", "https://{reference}.example/"),
        ("support_url", "https://help.example/{id}"),
        ("support_url", "mailto:help@example.com?bcc=x@example.com"),
        ("privacy_url", "javascript:alert(1)"),
        ("terms_url", "mailto:terms"),
    ],
)
def test_a_value_of_the_wrong_kind_names_its_key(name: str, bad: str) -> None:
    """T142: a value that cannot be used stops the start."""
    problems = problems_of(ini(**{name: bad}))
    assert all(problem.startswith(f"authserver.{name}: ") for problem in problems), problems


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("help_url", "https://help.example"),
        ("privacy_url", "https://example.com:8443/privacy?lang=de&a=1#top"),
        ("terms_url", "mailto:first.last+terms@example.com"),
        ("support_url", "https://help.example/new?reference={reference}"),
        ("support_url", ""),
    ],
)
def test_a_link_is_https_or_mail(name: str, link: str) -> None:
    """E-11: what pages link to is as strict as the links of clients."""
    assert getattr(load(ini(**{name: link})).settings, name) == link


def test_lists_and_lines_become_tuples() -> None:
    """Lists are separated by any white space; scopes stand on a line each."""
    settings = load(
        ini(plugins="\n one\n two three\n", scopes="\n profile = See it\n read = Read = more\n")
    ).settings
    assert settings.plugins == ("one", "two", "three")
    assert settings.scopes == (("profile", "See it"), ("read", "Read = more"))
    assert settings.scope_sentences["profile"] == "See it"


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("TRUE", True)])
def test_a_switch_is_true_or_false(text: str, value: bool) -> None:
    assert convert(text, bool) is value


@pytest.mark.parametrize("text", ["yes", "on", "2", ""])
def test_a_switch_is_nothing_else(text: str) -> None:
    """T142: no guessing whether `off` or `no` switched something off."""
    with pytest.raises(ValueError):
        convert(text, bool)


@hypothesis_settings(deadline=None, max_examples=150)
@given(st.sampled_from([item.name for item in fields(Settings)]), st.text(max_size=40))
@example("secret_keys", ":\x80")
def test_no_text_breaks_the_reader(name: str, text: str) -> None:
    """T142: any text is a value or a named problem, never another exception."""
    if text.strip().startswith(("env:", "file:")):
        return
    problems: tuple[str, ...] = ()
    try:
        load(ini(**{name: text}))
    except SettingsError as error:
        problems = error.problems
    assert all(problem.startswith("authserver.") for problem in problems)


# ---- env: and file: --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("issuer", "https://as.example"),
        ("environment", "development"),
        ("plugins", "redirect_exact"),
        ("scopes", "profile = See it"),
        ("code_lifetime", "30"),
        ("secret_keys", f"k2:{OTHER_KEY}"),
        ("database_url", "sqlite:///other.sqlite"),
        ("accent_color", "#000000"),
    ],
)
def test_any_value_may_come_from_the_environment_or_a_file(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T142: `env:` and `file:` mean the same as the text itself, for every kind of setting."""
    (tmp_path / "value").write_text(f"{value}\n")
    monkeypatch.setenv("TEST_VALUE", value)
    inline = load(ini(**{name: value})).settings
    assert load(ini(**{name: "env:TEST_VALUE"})).settings == inline
    assert load(ini(**{name: f"file:{tmp_path}/value"})).settings == inline


def test_a_variable_may_name_a_file_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers and systemd hand over secrets. Both at once would leave open which one counts."""
    (tmp_path / "value").write_text("30\n")
    monkeypatch.setenv("TEST_VALUE_FILE", f"{tmp_path}/value")
    assert load(ini(code_lifetime="env:TEST_VALUE")).settings.code_lifetime == 30
    assert referred_file("env:TEST_VALUE") == tmp_path / "value"
    monkeypatch.setenv("TEST_VALUE", "40")
    with pytest.raises(SettingsError, match="TEST_VALUE and TEST_VALUE_FILE are both set; unset one of them"):
        load(ini(code_lifetime="env:TEST_VALUE"))
    monkeypatch.delenv("TEST_VALUE")
    monkeypatch.setenv("TEST_VALUE_FILE", f"{tmp_path}/none")
    with pytest.raises(SettingsError, match=r"authserver\.code_lifetime: cannot read .*/none"):
        load(ini(code_lifetime="env:TEST_VALUE"))


def test_the_files_that_an_ini_refers_to_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are what is looked at for rotated secrets."""
    monkeypatch.setenv("TEST_VALUE_FILE", "/run/secrets/value")
    path = tmp_path / "some.ini"
    path.write_text(
        "[app:main]\na = file:%(here)s/keys\nb = env:TEST_VALUE\nc = env:OTHER\n[server:main]\nd = file:/x\n"
    )
    expected = [Path("/run/secrets/value"), Path("/x"), tmp_path / "keys"]
    assert referred_files({"__file__": str(path)}) == sorted(expected)


def test_settings_of_plugins_may_come_from_outside_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """T142: and whether they stood in the INI is kept, for secrets."""
    monkeypatch.setenv("TEST_HOSTS", "localhost")
    section = {
        **SMALLEST,
        "authserver.plugin.a.hosts": "env:TEST_HOSTS",
        "authserver.plugin.a.more": "inline",
    }
    values = load(section).plugin_settings["a"]
    assert (values["hosts"].text, values["hosts"].inline) == ("localhost", False)
    assert (values["more"].text, values["more"].inline) == ("inline", True)


def test_an_unset_variable_is_named_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """T142: never an empty value in its place."""
    monkeypatch.delenv("TEST_UNSET", raising=False)
    assert problems_of(ini(secret_keys="env:TEST_UNSET"))[0] == (
        "authserver.secret_keys: the environment variable TEST_UNSET is not set"
    )


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_unreadable_file_is_named_with_its_key(content: bytes | None, tmp_path: Path) -> None:
    """T142: missing, or no text."""
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    problem = problems_of(ini(secret_keys=f"file:{tmp_path}/keys"))[0]
    assert problem.startswith(f"authserver.secret_keys: cannot read {tmp_path}/keys")


# ---- The issuer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "issuer",
    [
        "https://as.example",
        "https://as.example:8443",
        "https://as.example/tenant",
        "https://as.example/a/b-c_d.e~f",
        "http://localhost:6543",
        "http://127.0.0.1:6543/tenant",
        "http://[::1]:6543",
    ],
)
def test_an_issuer_is_an_https_url_or_a_loopback_one(issuer: str) -> None:
    """A-02: kept as it stands, not a byte changed (A-03)."""
    assert load(ini(issuer=issuer)).settings.issuer == issuer


@pytest.mark.parametrize(
    "issuer",
    [
        "",
        "as.example",
        "//as.example",
        "ftp://as.example",
        "https://",
        "https:///tenant",
        "https://as.example/",
        "https://as.example/tenant/",
        "https://as.example?",
        "https://as.example?a=b",
        "https://as.example#",
        "https://as.example/#fragment",
        "https://ann@as.example",
        "https://ann:secret@as.example",
        "https://as example",
        "https://ås.example",
        "https://as.example:port",
        "https://as.example:99999",
        "https://[as.example",
        "https://[::1",
        "https://as.example/a//b",
        "https://as.example/../b",
        "https://as.example/./b",
        "https://as.example/{tenant}",
        "https://as.example/*rest",
        "https://as.example/a%2Fb",
        "http://as.example",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://192.0.2.1",
        "HTTP://as.example",
    ],
)
def test_an_issuer_that_is_none_stops_the_start(issuer: str) -> None:
    """A-02, T142: no query, fragment, credentials, trailing slash or route pattern; http for loopback only."""
    problems = problems_of(ini(issuer=issuer))
    assert any(problem.startswith("authserver.issuer: ") for problem in problems)


# ---- The key ring ----------------------------------------------------------------------------------


def test_the_key_ring_keeps_its_order() -> None:
    settings = load(ini(secret_keys=f"new:{KEY}\n old:{OTHER_KEY}")).settings
    assert [key_id for key_id, _ in key_ring(settings)] == ["new", "old"]
    assert all(len(key) == 32 for _, key in key_ring(settings))


@pytest.mark.parametrize(
    "entry",
    [
        KEY,
        f":{KEY}",
        "k1:",
        "k1:changeme",
        "k1:" + base64.b64encode(b"x" * 31).decode(),
        "k1:" + base64.b64encode(b"x" * 33).decode(),
        f"{'k' * 33}:{KEY}",
        f"k1:{KEY} k1:{OTHER_KEY}",
    ],
)
def test_a_malformed_key_ring_stops_the_start_unshown(entry: str) -> None:
    """T142, R-04: the message says how a key is made, and never what stood there."""
    (problem,) = [p for p in problems_of(ini(secret_keys=entry)) if "an entry" in p or "same id" in p]
    assert problem.startswith("authserver.secret_keys: ")
    assert KEY not in problem


# ---- Insecure values -------------------------------------------------------------------------------

INSECURE = [
    ("authserver.issuer", "http://localhost:6543", "plain http"),
    ("authserver.secret_keys", f"k1:{KEY}", "is in the INI file"),
    ("authserver.secret_keys", "k1:" + base64.b64encode(bytes(32)).decode(), "not random"),
    (
        "authserver.secret_keys",
        "k1:" + base64.b64encode(b"change me before going live 1234").decode(),
        "not random",
    ),
    ("authserver.database_url", "postgresql+psycopg://as:canary@db/as", "a password is in the INI file"),
    ("authserver.database_url", "postgresql+psycopg://db/as?user=as&password=canary", "a password is"),
    *(
        (f"pyramid.{name}", value, "debugging is on")
        for name in (
            "debug_all",
            "debug_notfound",
            "debug_authorization",
            "debug_routematch",
            "debug_templates",
        )
        for value in ("true", "1", "on", "t", "Y", "Yes")
    ),
    *(
        ("authserver.trusted_proxies", f"127.0.0.1 {network}", f"{network} is much of the internet")
        for network in ("0.0.0.0/0", "128.0.0.0/1", "::/0", "2000::/3")
    ),
    ("pyramid.reload_templates", "true", "debugging is on"),
    ("pyramid.reload_all", "true", "debugging is on"),
    ("pyramid.includes", "pyramid_debugtoolbar", "debug toolbar"),
]


@pytest.mark.parametrize(("key", "value", "words"), INSECURE)
def test_an_insecure_value_is_announced_in_development(key: str, value: str, words: str) -> None:
    """T142: development starts and says it, without repeating a secret."""
    lines = [line for line in load({**SMALLEST, key: value}).insecure if line.startswith(f"{key}: ")]
    assert any(words in line for line in lines)
    assert "canary" not in " ".join(lines)


@pytest.mark.parametrize(("key", "value", "words"), INSECURE)
def test_an_insecure_value_is_refused_in_production(
    key: str, value: str, words: str, production: dict[str, str]
) -> None:
    """T142: the same line, and no start."""
    problems = [line for line in problems_of({**production, key: value}) if line.startswith(f"{key}: ")]
    assert any(words in line and line.endswith("(refused in production)") for line in problems)
    assert "canary" not in " ".join(problems)


def test_a_made_up_key_from_outside_the_file_is_refused_too(
    production: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T142: a placeholder stays one in an environment variable."""
    monkeypatch.setenv("TEST_KEYS", "k1:" + base64.b64encode(b"a" * 32).decode())
    assert any("not random" in problem for problem in problems_of(production))


def test_production_accepts_secrets_from_outside(production: dict[str, str]) -> None:
    """T142: what is left when everything is right is nothing to announce."""
    loaded = load(production)
    assert loaded.settings.is_production
    assert loaded.insecure == ()


def test_debug_settings_that_are_off_are_no_problem(production: dict[str, str]) -> None:
    assert load({**production, "pyramid.debug_all": "false", "pyramid.reload_templates": "0"}).insecure == ()


# ---- Secrets stay unseen ---------------------------------------------------------------------------


def test_no_repr_shows_a_secret() -> None:
    """R-04, T145: settings may be logged whole."""
    loaded = load(
        {
            **ini(database_url="postgresql+psycopg://as:canary-1@db/as"),
            "authserver.plugin.registration_token.tokens": "canary-2",
        }
    )
    text = repr(loaded) + str(loaded.settings) + f"{Secret('canary-3')} {Secret('canary-4')!r}"
    assert "canary" not in text
    assert KEY not in text


@pytest.mark.parametrize(
    "url",
    [
        "canary",
        "postgresql+psycopg://as:canary@db:port/as",
        "nosuch://as:canary@db/as",
        "sqlite://",
        "postgresql+nosuch://as:canary@db/as",
    ],
)
def test_a_database_url_that_is_none_is_named_unshown(url: str) -> None:
    """T142, T145: the key is named; the password in it is not repeated."""
    with pytest.raises(SettingsError) as raised:
        app.build(ini(database_url=url))
    assert str(raised.value).startswith("authserver.database_url: ")
    assert "canary" not in str(raised.value)


def test_an_unknown_grant_type_is_named_with_the_known_ones() -> None:
    """T142: known only once everything is put together."""
    with pytest.raises(
        SettingsError, match=r"authserver.grant_types: passwort: no such grant type; known: "
    ) as raised:
        app.build(ini(grant_types="authorization_code passwort"))
    assert "client_credentials" in str(raised.value)


# ---- entries ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """An entry of settings."""

    name: str
    size: int
    label: Secret | None = None

    def __post_init__(self) -> None:
        if self.size > 9:
            raise ValueError("size: a shelf has at most 9")


@dataclass(frozen=True)
class Library:
    """What has entries."""

    shelves: tuple[Shelf, ...]
    owner: str = ""


def library(**texts: str) -> tuple[dict[str, object], list[str]]:
    written = {name.replace("__", "."): Resolved(text, inline=True) for name, text in texts.items()}
    return read_fields(Library, written, "authserver.plugin.library.")


def test_entries_are_read_in_their_order() -> None:
    values, problems = library(shelves__b__size="2", shelves__a__size="1", owner="ann", shelves__b__label="x")
    assert problems == []
    assert values == {
        "owner": "ann",
        "shelves": (Shelf(name="b", size=2, label=Secret("x")), Shelf(name="a", size=1)),
    }
    assert value_at(values, "shelves.b.label") == Secret("x")
    assert value_at(values, "owner") == "ann"
    assert value_at(values, "shelves.c.label") is value_at(values, "nothing") is None
    assert settings_of(Library(**values)) == {
        "shelves.b.size": "2",
        "shelves.b.label": "(secret)",
        "shelves.a.size": "1",
        "shelves.a.label": "None",
        "owner": "ann",
    }


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ({}, "shelves: missing"),
        ({"shelves": "a b"}, "shelves: "),
        ({"shelves__a": "1"}, "shelves.a: no such setting"),
        ({"shelves__a__label": "x"}, "shelves.a.size: missing"),
        ({"shelves__a__size": "x"}, "shelves.a.size: "),
        ({"shelves__a__size": "10"}, "shelves.a.size: a shelf has at most 9"),
        ({"shelves__a__sise": "1"}, "shelves.a.sise: no such setting; did you mean"),
        ({"shelves__a__size": "1", "shelves__a__name": "b"}, "shelves.a.name: no such setting"),
    ],
)
def test_a_problem_of_an_entry_names_its_key(texts: dict[str, str], problem: str) -> None:
    _, problems = library(**texts)
    assert any(line.startswith(f"authserver.plugin.library.{problem}") for line in problems), problems
