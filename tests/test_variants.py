"""Settings of plugins for single clients and resources: `authserver.plugin.NAME.SETTING@clients` and `@resources`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from authserver.api import Client, Decision, Secret, allow, deny, hookimpl
from authserver.cli import main
from authserver.ini import PLUGIN_PREFIX, Resolved
from authserver.plugins.asking import PluginSet
from authserver.plugins.loading import load, name_of
from authserver.plugins.variants import MAXIMUM_VARIANTS
from authserver.settings import SettingsError
from authserver.testing.questions import a_question
from authserver.testing.records import a_client, a_grant
from authserver.testing.rules import Rules, assert_refused

API, FILES = "https://api.example/", "https://files.example/"
PREPARED: list[tuple[str, str]] = []


@dataclass(frozen=True)
class Varies:
    """Answers with its settings."""

    claims: ClassVar[frozenset[str]] = frozenset({"colour"})
    immediate: ClassVar[bool] = True

    word: str
    other: str = "base"
    number: int = 0
    key: Secret | None = field(default=None, repr=False)
    pairs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.word == "wrong":
            raise ValueError("word: is wrong")

    @property
    def insecure(self) -> tuple[str, ...]:
        return ("other: anybody knows it",) if self.other == "public" else ()

    def prepare(self) -> None:
        if self.word == "unready":
            raise ValueError("cannot begin")
        PREPARED.append(("prepare", self.word))

    def close(self) -> None:
        PREPARED.append(("close", self.word))

    @hookimpl
    def scope_decision(self) -> Decision[tuple[str, ...]]:
        if self.word == "fails":
            raise RuntimeError
        return allow("varies", (self.word, self.other, *(text for pair in self.pairs for text in pair)))

    @hookimpl
    def resource_decision(self, resource: str | None) -> Decision[str]:
        return allow(self.word, resource or API)

    @hookimpl
    def introspection_decision(self) -> Decision[None]:
        return allow(self.word)

    @hookimpl
    def registration_decision(self) -> Decision[Any]:
        return deny(self.word)

    @hookimpl
    def token_claims(self) -> Mapping[str, str]:
        return {"colour": self.word}

    @hookimpl
    def server_metadata(self) -> Mapping[str, str]:
        return {"word": self.word}


@dataclass(frozen=True)
class KeepsKeys:
    """A plugin with several secrets."""

    keys: tuple[tuple[str, Secret], ...] = field(default=(), repr=False)

    @hookimpl
    def scope_decision(self) -> None:
        return None


@dataclass(frozen=True)
class Nameless:
    """A plugin whose function has another name than its hook."""

    word: str

    scope_decision = hookimpl(lambda self: allow("nameless", (self.word,)))


@dataclass(frozen=True)
class Metadata:
    """A plugin that is asked at start only."""

    word: str = ""

    @hookimpl
    def server_metadata(self) -> Mapping[str, str]:
        return {"word": self.word}


@dataclass(frozen=True)
class Chooses:
    """A plugin whose hooks depend on a setting."""

    serves: tuple[str, ...] = ("scope_decision",)

    @hookimpl
    def scope_decision(self) -> None:
        return None

    @hookimpl
    def resource_decision(self) -> None:
        return None


def loaded(kind: type = Varies, *, production: bool = False, **settings: str) -> PluginSet:
    """The plugin with these settings; `word_clients` stands for `word@clients`."""
    texts = {
        name.replace("_clients", "@clients").replace("_resources", "@resources"): Resolved(text, inline=True)
        for name, text in settings.items()
    }
    name = name_of(kind.__name__)
    return load([f"{__name__}:{kind.__name__}"], {name: texts}, production=production)[0]


def refusals(kind: type, **settings: str) -> tuple[str, ...]:
    """Why production does not start with these settings."""
    with pytest.raises(SettingsError) as refused:
        loaded(kind, production=True, **settings)
    return tuple(refused.value.problems)


def asked(plugins: PluginSet, client_id: str, *resources: str) -> tuple[str, ...]:
    """What the scope question of this client at these resources is answered with."""
    question = a_question("scope_decision", client=a_client(client_id=client_id), resources=resources)
    value = plugins.decide(question).value
    assert isinstance(value, tuple)
    return value


def test_a_client_and_a_resource_have_values_of_their_own() -> None:
    """The client's counts before the resource's, each setting by itself."""
    plugins = loaded(
        word="all",
        word_clients="notes = client",
        word_resources=f"{API} = api",
        other_resources=f"{API} = at",
    )
    assert asked(plugins, "reports") == ("all", "base")
    assert asked(plugins, "notes") == ("client", "base")
    assert asked(plugins, "notes", API) == ("client", "at")
    assert asked(plugins, "reports", API) == ("api", "at")
    assert asked(plugins, "reports", FILES) == ("all", "base")
    # A client id is compared as it is, a resource by its canonical form.
    assert asked(plugins, "Notes") == ("all", "base")
    assert asked(plugins, "reports", "HTTPS://api.example") == ("api", "at")


def test_of_several_resources_the_first_line_counts() -> None:
    """No client can choose by the order in its request."""
    plugins = loaded(word="all", word_resources=f"{FILES} = files\n{API} = api")
    for resources in ((API, FILES), (FILES, API)):
        assert asked(plugins, "reports", *resources) == ("files", "base")


def test_each_hook_with_a_client_or_resource_is_asked_so() -> None:
    plugins = loaded(word="all", word_clients="notes = client", word_resources=f"{API} = api")
    notes = a_client(client_id="notes")

    def ask(hook: str, **facts: Any) -> str:
        return plugins.decide(a_question(hook, **facts)).reason

    assert ask("resource_decision", client=notes, resource=None) == "client"
    assert ask("resource_decision", client=a_client(), resource=API) == "api"
    assert ask("resource_decision", client=a_client(), resource=None) == "all"
    assert ask("introspection_decision", caller=notes) == "client"
    # A client that does not exist yet has no settings, and at start there is no client.
    assert ask("registration_decision") == "all"
    assert plugins.contribute("server_metadata", issuer="https://as.example") == [("varies", {"word": "all"})]
    facts = {"user": None, "grant": a_grant(), "scopes": (), "resources": (API,)}
    assert plugins.contribute("token_claims", client=notes, **facts) == [("varies", {"colour": "client"})]
    assert plugins.contribute("token_claims", client=a_client(), **facts) == [("varies", {"colour": "api"})]


@pytest.mark.parametrize(
    ("lines", "client_id", "value"),
    [
        ("https://app.example/c?a=b = one", "https://app.example/c?a=b", "one"),
        ("notes=one", "notes", "one"),
        ("notes = a=b", "notes", "a=b"),
        ("notes =", "notes", ""),
        ("\n\n  notes = one\n  mail = two\n", "mail", "two"),
    ],
)
def test_a_line_names_one_client(lines: str, client_id: str, value: str) -> None:
    assert asked(loaded(word="all", word_clients=lines), client_id) == (value, "base")


def test_several_lines_for_one_client_are_one_text() -> None:
    plugins = loaded(word="all", pairs="x = y", pairs_clients="notes = a = b\nmail = e = f\nnotes = c = d")
    assert asked(plugins, "notes") == ("all", "base", "a", "b", "c", "d")
    assert asked(plugins, "mail") == ("all", "base", "e", "f")
    assert asked(plugins, "reports") == ("all", "base", "x", "y")


def test_a_value_may_come_from_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And a secret that stands in the INI is announced for whom it is, and never shown."""
    monkeypatch.setenv("NOTES_KEY", "from the environment")
    (tmp_path / "key").write_text("from a file\n")
    lines = f"notes = env:NOTES_KEY\nmail = file:{tmp_path}/key"
    plugins = loaded(word="all", key_clients=lines, production=True)
    keys = {variant.client: variant.plugin.key.value for variant in plugins.variants("varies")}
    assert keys == {"notes": "from the environment", "mail": "from a file"}
    assert "from" not in str(plugins.table())
    with pytest.raises(SettingsError) as refused:
        loaded(word="all", key_clients=f"{lines}\nrest = plain text", production=True)
    (problem,) = refused.value.problems
    assert problem == (
        "authserver.plugin.varies.key: a secret is in the INI file; give it as env:NAME or file:PATH "
        "(for the client rest) (refused in production)"
    )


VARIES = f"{PLUGIN_PREFIX}varies."


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"wrod@clients": "notes = x"}, f"{VARIES}wrod@clients: no such setting; did you mean {VARIES}word"),
        ({"word@client": "notes = x"}, f"{VARIES}word@client: expected word@clients or word@resources"),
        ({"word@": "notes = x"}, f"{VARIES}word@: expected word@clients or word@resources"),
        ({"word@clients": "notes"}, f"{VARIES}word@clients: expected `client_id = value` on each line, but line 1 has another form"),
        ({"word@clients": "= x"}, f"{VARIES}word@clients: expected `client_id = value` on each line, but line 1 has another form"),
        ({"word@resources": "a b"}, f"{VARIES}word@resources: expected `URI = value` on each line, but line 1 has another form"),
        ({"word@clients": " "}, f"{VARIES}word@clients: names none of the clients; add a line for each, or remove"),
        ({"word@clients": "nötes = x"}, f"{VARIES}word@clients: nötes: a client_id has up to 2048 visible ASCII"),
        ({"word@clients": f"{'n' * 2_049} = x"}, "a client_id has up to 2048 visible ASCII characters"),
        ({"word@resources": "api = x"}, f"{VARIES}word@resources: api: "),
        ({"word@clients": "notes = env:NOT_SET"}, "notes: the environment variable NOT_SET is not set"),
        ({"number@clients": "notes = many"}, f"{VARIES}number: Expected `int`, got `str` (for the client notes)"),
        ({"word@clients": "notes = wrong"}, f"{PLUGIN_PREFIX}varies: word: is wrong (for the client notes)"),
        ({"word@clients": "notes = unready"}, f"{PLUGIN_PREFIX}varies (client notes): cannot begin"),
        (
            {"word@resources": f"{API} = wrong"},
            f"{PLUGIN_PREFIX}varies: word: is wrong (for the resource {API})",
        ),
        (
            {"word@clients": "\n".join(f"c{number} = x" for number in range(MAXIMUM_VARIANTS + 1))},
            f"make {MAXIMUM_VARIANTS + 1} variants; there may be {MAXIMUM_VARIANTS}",
        ),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_a_faulty_line_stops_the_start(settings: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as refused:
        loaded(word="all", **settings)
    (found,) = refused.value.problems
    assert problem in found


def test_what_is_insecure_for_one_client_is_refused_in_production() -> None:
    with pytest.raises(SettingsError) as refused:
        loaded(word="all", other="public", other_clients="notes = public\nmail = secret", production=True)
    assert list(refused.value.problems) == [f"{VARIES}other: anybody knows it (refused in production)"]
    with pytest.raises(SettingsError) as refused:
        loaded(word="all", other_clients="notes = public\nmail = secret", production=True)
    assert list(refused.value.problems) == [
        f"{VARIES}other: anybody knows it (for the client notes) (refused in production)"
    ]


def test_a_secret_beside_a_name_is_refused_in_production_too() -> None:
    """T142. What a line says is not repeated, even where it is none."""
    keys = "\n".join(f"notes = {name} = canary-of-a-secret" for name in ("one", "two"))
    (line,) = refusals(KeepsKeys, keys_clients=keys)
    assert line.startswith("authserver.plugin.keeps_keys.keys: a secret is in the INI file")
    for said in (line, *refusals(KeepsKeys, keys_clients="notes canary-of-a-secret")):
        assert "canary" not in said


def test_a_hook_may_be_implemented_by_a_function_of_any_name() -> None:
    plugins = loaded(Nameless, word="all", word_clients="notes = client")
    assert asked(plugins, "reports") == ("all",)
    assert asked(plugins, "notes") == ("client",)


def test_a_setting_that_nothing_would_use_stops_the_start() -> None:
    with pytest.raises(SettingsError) as refused:
        loaded(Metadata, word_clients="notes = x")
    assert list(refused.value.problems) == [
        "authserver.plugin.metadata.word@clients: this plugin is never asked about clients; remove the setting"
    ]


def test_which_hooks_it_serves_is_the_same_for_all() -> None:
    with pytest.raises(SettingsError) as refused:
        loaded(Chooses, serves_clients="notes = resource_decision")
    assert list(refused.value.problems) == [
        "authserver.plugin.chooses: `serves` differs for the client notes; it must be the same for all"
    ]


def test_a_variant_is_prepared_and_closed_like_every_plugin() -> None:
    PREPARED.clear()
    plugins = loaded(word="all", word_clients="notes = client")
    assert PREPARED == [("prepare", "all"), ("prepare", "client")]
    plugins.close()
    assert PREPARED[2:] == [("close", "client"), ("close", "all")]


def test_what_is_recorded_and_logged_names_the_variant(caplog: pytest.LogCaptureFixture) -> None:
    plugins = loaded(word="all", word_clients="notes = fails\nmail = fine")
    records = [
        plugins.decide(a_question("scope_decision", client=a_client(client_id=name))).as_record()
        for name in ("reports", "mail", "notes")
    ]
    (by_all,), (by_mail,), (by_notes,) = (record["answers"] for record in records)
    assert "variant" not in by_all
    assert (by_mail["plugin"], by_mail["variant"]) == ("varies", "client mail")
    assert [record["decided_by"] for record in records] == [
        "varies",
        "varies (client mail)",
        "varies (client notes)",
    ]
    assert (by_notes["verdict"], by_notes["variant"]) == ("failed", "client notes")
    assert "plugin varies (client notes) failed in scope_decision" in caplog.text


# ---- Shipped plugins, through the token endpoint --------------------------------------------------


def service(rules: Rules, client_id: str, **metadata: Any) -> tuple[Client, str | None]:
    return rules.add_client(client_id=client_id, grant_types=("client_credentials",), **metadata)


def token(rules: Rules, client: tuple[Client, str | None], **form: str) -> Any:
    return rules.token(*client, grant_type="client_credentials", **form)


def test_default_scopes_for_one_client_and_one_resource() -> None:
    rules = Rules(
        {
            "authserver.plugin.scopes_default.scopes@clients": "notes = files.read",
            "authserver.plugin.scopes_default.scopes@resources": f"{FILES} = files.read files.write",
        }
    )
    every = ("profile", "files.read", "files.write")
    notes, other = service(rules, "notes", scopes=every), service(rules, "other", scopes=every)
    assert token(rules, other).json["scope"] == "profile"
    assert token(rules, other, resource=FILES).json["scope"] == "files.read files.write"
    assert token(rules, notes).json["scope"] == "files.read"
    assert token(rules, notes, resource=FILES).json["scope"] == "files.read"
    (issued, *_) = rules.events("token.issued")
    assert not any("variant" in answer for made in issued["decisions"] for answer in made["answers"])
    latest = rules.events("token.issued")[-1]["decisions"][-1]["answers"]
    assert [a["variant"] for a in latest if a["plugin"] == "scopes_default"] == [
        f"client notes, resource {FILES}"
    ]


def test_a_default_resource_for_one_client() -> None:
    rules = Rules({"authserver.plugin.resources_listed.default@clients": f"notes = {FILES}\nstrict ="})
    clients = {name: service(rules, name, scopes=("files.read",)) for name in ("notes", "other", "strict")}
    audiences = {
        name: rules.claims(token(rules, clients[name], scope="files.read").json["access_token"])["aud"]
        for name in ("notes", "other")
    }
    assert audiences["notes"] == FILES != audiences["other"]
    assert_refused(token(rules, clients["strict"], scope="files.read"), "invalid_target")


# ---- What operators are shown ---------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.delenv("AUTHSERVER_CONFIG", raising=False)
    ini = tmp_path / "development.ini"
    text = (Path(__file__).parents[1] / "development.ini").read_text()
    ini.write_text(
        text.replace(
            "[app:main]",
            "[app:main]\n"
            "authserver.plugin.scopes_default.scopes@clients =\n"
            "    demo-service = notes.read\n"
            "    playgruond = profile\n"
            "authserver.plugin.resources_listed.default@clients =\n"
            "    demo-service =\n",
            1,
        )
    )

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["-c", str(ini), *arguments])

    assert run("demo").exit_code == 0
    return run


def test_plugins_explain_and_lint_show_whom_a_setting_is_for(run: Callable[..., Any]) -> None:
    table = " ".join(run("plugins").stdout.split())
    assert "Settings for single clients and resources" in table
    key = "authserver.plugin.scopes_default.scopes@clients"
    assert f"{key} demo-service = notes.read" in table
    rows = {row["hook"]: row["variants"] for row in json.loads(run("plugins", "--json").stdout)}
    assert {
        "plugin": "scopes_default",
        "client": "demo-service",
        "resource": None,
        "settings": {key: "demo-service = notes.read"},
    } in rows["scope_decision"]
    assert rows["login_decision"] == []
    told = run("explain", "scope", "demo-service", "--resource", "http://localhost:6543/demo-api").stdout
    assert "scopes_default (client demo-service)" in told
    refused = run("explain", "resource", "demo-service").stdout
    _, _, present = refused.partition("the present setting\n")
    assert "authserver.plugin.resources_listed.default@clients = demo-service =" in present
    linted = run("lint")
    assert linted.exit_code == 1
    assert "Settings for clients that do not exist" in linted.stdout
    listed = json.loads(run("lint", "--json").stdout)["settings"]
    assert listed == [{"setting": key, "client_id": "playgruond", "remedy": "did you mean playground"}]
