"""What is written is so: the documentation names everything there is, and what it tells people to type exists."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
import subprocess
import sys
import typing
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path

import click
import msgspec
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner

from authserver import hookspecs, limits
from authserver.api import hookimpl
from authserver.cli import main as command_line
from authserver.engine import errors
from authserver.engine.records import EventType
from authserver.hooks import is_implemented
from authserver.ini import Resolved, entry_kind
from authserver.settings import Settings, SettingsError
from authserver.storage import database
from authserver.testing.server import SETTINGS, Server
from authserver.web.metadata import METADATA
from authserver.web.routes import ROUTES, well_known_paths

CHECKOUT = Path(__file__).parent.parent
README = CHECKOUT / "README.md"
PAGES = sorted(CHECKOUT.glob("docs/*.rst"))
HOOKS = tuple(hookspecs.every_hook())
# Some promises with a test of each. They are here because a test proves what it quotes.
SHOWN = [
    ("A-01", "the document is one json object for everybody"),
    ("G-02.b", "code and verifier are required"),
]


@dataclasses.dataclass(frozen=True)
class Posting:
    """It sends mail."""

    @hookimpl
    def send_mail(self) -> bool:
        return True


PLUGINS = {point.name: point.load() for point in entry_points(group="authserver.plugins")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The words of each page as `make docs` builds it; a warning fails."""
    folder = tmp_path_factory.mktemp("documentation")
    options = ["--fail-on-warning", "--quiet", "--builder", "html"]
    run = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(CHECKOUT / "docs"), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return {page.stem: words_of(folder / f"{page.stem}.html") for page in PAGES}


def words_of(page: Path) -> str:
    article = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").article
    assert article
    for link in article.select(".headerlink"):
        link.decompose()
    return plain(article.get_text())


def plain(text: str) -> str:
    """Words without what marks them as code, quotation marks and line ends."""
    return " ".join(re.sub(r"[\"'“”‘’`…]|\.\.\.|::", "", text).split())


# ---- everything there is, is there ------------------------------------------------------------------


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_setting_is_documented(built: Mapping[str, str], field: dataclasses.Field) -> None:
    """T142: with its default, its bounds and its meaning."""
    annotation = typing.get_type_hints(Settings, include_extras=True)[field.name]
    (meta,) = (item for item in annotation.__metadata__ if isinstance(item, msgspec.Meta))
    assert meta.description
    page = built["settings"]
    entry = page[page.rindex(plain(f"authserver.{field.name} Type:")) :]
    entry = entry[: entry.index(plain(meta.description)) + len(plain(meta.description))]
    assert entry.count(" Type: ") == 1, "the meaning stands at this setting"
    if field.default is dataclasses.MISSING:
        assert "Default: none: it is required" in entry
    elif field.default not in ((), ""):
        shown = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
        # As it is written in an INI file.
        shown = shown.lower() if isinstance(field.default, bool) else shown
        assert f"Default: {plain(shown)}" in entry
    if meta.ge is not None:
        assert f"{meta.ge} to {meta.le}" in entry


def settings_of(plugin: type) -> Iterator[str]:
    """The settings of a plugin, also those of its entries, whose name is `NAME`."""
    hints = typing.get_type_hints(plugin, include_extras=True)
    for field in dataclasses.fields(plugin):
        if entry := entry_kind(hints[field.name]):
            names = (each.name for each in dataclasses.fields(entry))
            yield from (f"{field.name}.NAME.{name}" for name in names if name != "name")
        elif field.init:
            yield field.name


@pytest.mark.parametrize("name", PLUGINS)
def test_every_shipped_plugin_is_documented_with_its_settings(built: Mapping[str, str], name: str) -> None:
    page = built["plugins"]
    first_sentence = (inspect.getdoc(PLUGINS[name]) or "").partition("\n")[0]
    assert f"{plain(name)} {plain(first_sentence)}" in page
    for setting in settings_of(PLUGINS[name]):
        found = re.search(rf"{re.escape(plain(f'authserver.plugin.{name}.{setting}'))} Type: .*", page)
        assert found, setting
        # After type and default there are words about what it is for.
        assert re.match(r"\S+ Type: [^:]* Default: \S.{20}", found[0]), setting


def commands(
    words: str = "authserver", command: click.Command = command_line
) -> Iterator[tuple[str, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands(f"{words} {name}", child)


@pytest.mark.parametrize(
    ("words", "command"), list(commands()), ids=lambda item: item if isinstance(item, str) else ""
)
def test_every_command_is_documented(built: Mapping[str, str], words: str, command: click.Command) -> None:
    """With each of its options and arguments, and what each is for."""
    # What is before the first heading tells of the program itself; then each heading is followed by the usage.
    head, *parts = re.split(r"(authserver(?: [a-z-]+)+) \1", built["commands"])
    entries = {"authserver": head, **dict(zip(parts[::2], parts[1::2], strict=True))}
    if words != "authserver" and isinstance(command, click.Group) and not command.invoke_without_command:
        assert not command.params, "a group's options would be documented nowhere"
        return
    assert plain(command.help or "") in entries[words] or words == "authserver"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in entries[words].split()
            assert plain(parameter.help or "") in entries[words]
        else:
            assert parameter.make_metavar(click.Context(command)) in entries[words]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(built: Mapping[str, str], hook: str) -> None:
    """With its arguments, what each answer means, what silence means and who answers as shipped."""
    page = built["hooks"]
    function = getattr(hookspecs, hook)
    entry = page[page.index(f"{plain(hook)} def {plain(hook)}(") :]
    parts = [
        plain(part).rstrip(":")
        for line in (inspect.getdoc(function) or "").splitlines()
        for part in line.split(": ", 1)
        if part.strip(": ")
    ]
    words = [part for part in parts if part not in ("Arguments", "Answers", "Silence", "Example")]
    assert len(words) >= 3
    end = 0
    for part in words:
        assert part in entry, part
        end = max(end, entry.index(part))
    listed = re.search(r"that serve it: ([^.]*)\.", entry[end:])
    assert listed
    serving = [plain(name) for name, kind in PLUGINS.items() if is_implemented(kind, hook)]
    assert sorted(listed[1].split(", ")) == sorted(serving or ["none"])


@pytest.mark.parametrize(("id", "test"), SHOWN)
def test_a_promise_is_shown_with_the_tests_that_prove_it(
    built: Mapping[str, str], id: str, test: str
) -> None:
    """test_conformance.py compares the list of promises with what code and tests quote."""
    page = built["conformance"]
    entry = page[page.index(f" {id} ") :]
    assert 0 < entry.index(test) < 1500


def test_every_endpoint_is_documented(sqlite_url: str) -> None:
    """Every path of the core and of each shipped plugin, in the table, and no other; also those for an issuer with a path."""
    page = (CHECKOUT / "docs/endpoints.rst").read_text()
    adding = [name for name, kind in PLUGINS.items() if is_implemented(kind, "includeme")]
    assert len(adding) >= 10
    others = [name for name in SETTINGS["authserver.plugins"].split() if name not in adding]
    # What some need to start, and a plugin that switches on the page for a forgotten password.
    needed = {
        "authserver.plugins": " ".join([*others, *adding, f"{Posting.__module__}:{Posting.__qualname__}"]),
        "authserver.plugin.upstream.providers.work.issuer": "https://work.example",
        "authserver.plugin.upstream.providers.work.client_id": "authserver",
        "authserver.plugin.upstream.providers.work.client_secret": "secret-of-the-provider",
        "authserver.plugin.metrics.tokens": "token-of-the-collector-of-figures",
    }
    with closing(Server(sqlite_url, needed)) as server:
        served = set(server.wsgi.registry.paths)
    assert {route.path for route in ROUTES} < served
    table = page[: page.index("\n\n\n")]
    named = set(re.findall("`(/[^`]*)`", table))
    folders = set(re.findall("^   \\* - `(/[^`]*)` and below$", table, re.MULTILINE))
    assert folders == {"/admin", "/admin/api"}
    missing = {path for path in served - named if not any(path.startswith(f"{each}/") for each in folders)}
    assert missing == set()
    assert named <= served | folders
    inserted, _ = well_known_paths(METADATA, "/auth")
    assert f"https://example.com{inserted}" in page


def test_every_limit_is_documented(built: Mapping[str, str]) -> None:
    """With its number, what it counts and why."""
    hints = typing.get_type_hints(limits, include_extras=True)
    numbers = {name for name, value in vars(limits).items() if isinstance(value, int)}
    assert numbers == set(hints)
    assert len(numbers) >= 20
    for name, hint in hints.items():
        assert name.startswith("MAXIMUM_")
        bound = typing.get_args(hint)[1]
        row = f"{getattr(limits, name):,} {plain(bound.counts)} {plain(bound.reason)}"
        assert row in built["endpoints"], name


def test_every_event_is_documented() -> None:
    page = (CHECKOUT / "docs/concepts.rst").read_text()
    (table,) = re.findall(r"^Events\n-+\n(.*?)^\S[^\n]*\n-{4,}$", page, re.MULTILINE | re.DOTALL)
    named = re.findall(r"^   \* - `(.+)`$", table, re.MULTILINE)
    assert sorted(named) == sorted(EventType)


def test_how_long_a_request_waits_for_the_database_is_documented(built: Mapping[str, str]) -> None:
    """T114: with the numbers that count."""
    options = dict(re.findall(r"-c (\w+)=(\d+)s", database.POSTGRESQL_OPTIONS))
    for what, seconds in (
        ("for a free connection", database.POOL_TIMEOUT),
        ("for another writer, on SQLite", database.SQLITE_BUSY_TIMEOUT),
        ("for a lock of a row, on PostgreSQL", options["lock_timeout"]),
        ("for a statement, on PostgreSQL", options["statement_timeout"]),
        ("PostgreSQL ends it after", options["idle_in_transaction_session_timeout"]),
    ):
        assert f"{what} {int(seconds)} seconds" in built["concepts"]


def test_an_upper_bound_has_one_word_and_what_strangers_send_one_list() -> None:
    """MAXIMUM_…; a number of that list stands nowhere else under the same name."""
    names = [
        (path.name, name)
        for path in sorted((CHECKOUT / "authserver").rglob("*.py"))
        for name in re.findall(r"^_?([A-Z][A-Z_]*) *(?::[^=]+)?= ", path.read_text(), re.MULTILINE)
    ]
    assert len(names) >= 100
    others = re.compile(r"(LONGEST|MOST|LARGEST|DEEPEST|HIGHEST|MAX)(_|$)")
    assert [item for item in names if others.match(item[1])] == []
    own = [name for _, name in names if hasattr(limits, name)]
    assert sorted(own) == sorted(set(own))


def shipped(error: type[errors.OAuthError]) -> Iterator[type[errors.OAuthError]]:
    """The kinds of this error, those of the features included."""
    for kind in error.__subclasses__():
        if kind.__module__.startswith("authserver."):
            yield kind
        yield from shipped(kind)


def test_every_error_is_documented_with_its_status() -> None:
    page = (CHECKOUT / "docs/endpoints.rst").read_text()
    known = list(shipped(errors.OAuthError))
    assert len(known) >= 16
    for kind in known:
        # Some are only ever redirected, and so have no status of their own there.
        if kind in (
            errors.AccessDenied,
            errors.AuthenticationRefused,
            errors.RequestUriNotSupported,
            errors.UnsupportedResponseType,
        ):
            assert f"`{kind.code}`" in page
        else:
            assert f"* - {kind.status}\n     - `{kind.code}`" in page, kind.code


# ---- what people type -------------------------------------------------------------------------------


def typed() -> Iterator[tuple[str, str]]:
    """(file name, command line) of everything that README and documentation tell people to type."""
    blocks = [(README.name, text) for text in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)]
    for page in PAGES:
        for block in re.findall(r"\.\. code-block:: console\n\n((?: {3}.*\n|\n)+)", page.read_text()):
            joined = block.replace("\\\n", " ")
            blocks.append((page.name, "\n".join(re.findall(r"^ {3,}\$ (.*)", joined, re.MULTILINE))))
    for name, text in blocks:
        for line in text.replace("\\\n", " ").splitlines():
            yield from ((name, part) for part in re.split(r" \| |; ", line) if part.strip())
            yield from ((name, inner) for inner in re.findall(r"\$\((.*?)\)", line))


TYPED = list(dict.fromkeys(typed()))
# Programs that are not ours, and not about ours.
OTHERS = {
    "docker",
    "kubectl",
    "openssl",
    "pg_dump",
    "createdb",
    "pg_restore",
    "sqlite3",
    "journalctl",
    "umask",
}


@pytest.mark.parametrize(("file", "line"), TYPED, ids=[line[:60] for _, line in TYPED])
def test_what_people_are_told_to_type_exists(file: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z]+=\S*", words[0]):
        words = words[1:]
    program, *arguments = words
    match program.removeprefix(".venv/bin/").removeprefix("/srv/authserver/bin/"):
        case "make":
            targets = re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
            assert set(arguments) <= set(targets)
        case "authserver":
            accepts(arguments)
        case "pserve":
            assert (CHECKOUT / Path(arguments[0]).name).is_file()
        case "curl" if "http://localhost:8000" in line:
            assert file == "protect-mcp-server.rst"  # tests/examples asks there
        case "cd":
            assert (CHECKOUT / arguments[0]).is_dir()
        case "curl":
            (url,) = [word for word in arguments if word.startswith("http://localhost:6543")]
            path = url.removeprefix("http://localhost:6543")
            assert path in {*(route.path for route in ROUTES), *well_known_paths(METADATA, "")}
        case "export":
            name, _, _ = arguments[0].partition("=")
            assert name == "AUTHSERVER_CONFIG" or f"env:{name}" in (CHECKOUT / "production.ini").read_text()
        case "set":
            assert arguments in (["-a"], ["+a"])
        case "." | "${EDITOR:-vi}":
            assert Path(arguments[0]).name == "environment"
        case "cat":
            assert f'"{Path(arguments[0]).name}"' in (CHECKOUT / "authserver/cli/demo.py").read_text()
        case "pip":
            assert arguments[0] == "install"
        case "python3":
            assert arguments[:2] == ["-m", "venv"]
        case "python":
            assert (
                arguments[:2] == ["-m", "pytest"]
                or (CHECKOUT / "examples/mcp-server" / arguments[0]).is_file()
            )
        case other:
            assert other in OTHERS, f"{file}: nothing checks {other}"


def accepts(words: list[str]) -> None:
    """Fails unless the command line takes these words, required options and all."""
    command: click.Command = command_line
    context = None
    name = "authserver"
    while isinstance(command, click.Group):
        context = command.make_context(name, words, parent=context)
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            return
        name, found, words = command.resolve_command(context, rest)
        assert found is not None
        command = found
    command.make_context(name, words, parent=context)


def test_the_check_of_command_lines_refuses_what_there_is_not() -> None:
    """Else the tests above would prove nothing."""
    for wrong in (["users", "list"], ["client", "add"], ["client", "list", "--yaml"], ["plugins", "extra"]):
        with pytest.raises(click.UsageError):
            accepts(wrong)


def test_files_that_the_readme_names_exist() -> None:
    text = README.read_text()
    linked = re.findall(r"\]\((?!https?:)([^)]+)\)", text)
    quoted = re.findall(r"`((?:docs|requirements)/[\w./-]+\.\w+|[A-Z]+(?:\.md)?)`", text)
    tree = re.search(r"```\n(development\.ini.*?)```", text, re.DOTALL)
    assert tree
    inside = [re.match(r"( *)(\S+)", line) for line in tree[1].splitlines()]
    listed = [f"authserver/{found[2]}" if found[1] else found[2] for found in inside if found]
    assert len(linked) >= 1
    assert len(quoted) >= 4
    assert len(listed) >= 15
    for name in (*linked, *quoted, *listed):
        assert name in ("INI", "MIT", "PAR", "JAR") or (CHECKOUT / name).exists(), name


# ---- what is shown ----------------------------------------------------------------------------------


def block(language: str, holding: str) -> str:
    (found,) = [
        text
        for text in re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
        if holding in text
    ]
    return found


def test_the_plugin_of_the_readme_is_the_one_of_the_documentation() -> None:
    assert block("python", "class ReadOnly") == (CHECKOUT / "docs/examples/read_only.py").read_text()


def test_the_plugin_of_the_readme_does_what_the_readme_says(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokens can only read, whatever is asked for; other clients are as before."""
    (tmp_path / "read_only.py").write_text(block("python", "class ReadOnly"))
    monkeypatch.syspath_prepend(tmp_path)
    lines = block("ini", "read_only:ReadOnly")
    assert "    read_only:ReadOnly\n" in lines
    key, _, value = lines.splitlines()[-1].partition(" = ")
    server = Server(
        sqlite_url,
        {
            "authserver.plugins": "read_only:ReadOnly\n" + SETTINGS["authserver.plugins"],
            key: value,
            "authserver.scopes": "notes.read = Read\nnotes.write = Write",
            "authserver.hidden_scopes": None,
            "authserver.plugin.scopes_default.scopes": None,
            "authserver.plugin.registration_open.scopes": None,
        },
    )
    scopes = ("notes.read", "notes.write")
    granted = {}
    for client_id in ("demo-service", "another"):
        client, secret = server.add_client(
            client_id=client_id, grant_types=("client_credentials",), scopes=scopes
        )
        answer = server.token(client, secret, grant_type="client_credentials", scope=" ".join(scopes))
        granted[client_id] = answer.json["scope"]
    server.close()
    assert granted == {"demo-service": "notes.read", "another": "notes.read notes.write"}


def test_the_example_of_a_plugin_test_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/writing-plugins.rst shows how to test a plugin."""
    monkeypatch.syspath_prepend(CHECKOUT / "docs/examples")
    page = (CHECKOUT / "docs/writing-plugins.rst").read_text()
    (example,) = re.findall(r"\.\. code-block:: python\n\n((?: {3}.*\n|\n)+)", page)
    scope: dict[str, typing.Any] = {}
    exec(inspect.cleandoc(example), scope)
    (test,) = [value for name, value in scope.items() if name.startswith("test_")]
    test()


def test_who_decides_what_is_as_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`authserver plugins` over development.ini."""
    text = (CHECKOUT / "development.ini").read_text()
    (tmp_path / "development.ini").write_text(text)
    (tmp_path / ".local").mkdir()
    secret = CliRunner().invoke(command_line, ["keys", "secret"])
    (tmp_path / ".local/secret_keys").write_text(secret.output)
    result = CliRunner().invoke(command_line, ["-c", str(tmp_path / "development.ini"), "plugins"])
    assert result.exit_code == 0, result.output
    shown = [line.rstrip() for line in block("text", "client_auth_decision").splitlines()]
    assert shown == [line.rstrip() for line in result.output.partition("\n\n")[0].splitlines()]


def test_a_misspelt_plugin_is_answered_as_the_readme_shows() -> None:
    from authserver.plugins.loading import load

    shown = block("text", "client_secret_basik").strip()
    settings: Mapping[str, Mapping[str, Resolved]] = {}
    with pytest.raises(SettingsError, match=re.escape(shown)):
        load(["client_secret_basik"], settings, production=False)


def test_the_documentation_speaks_of_no_setting_that_is_not_there() -> None:
    """A key in an INI example is a setting, of the server or of a plugin."""
    known = {f"authserver.{field.name}" for field in dataclasses.fields(Settings)}
    for name, kind in PLUGINS.items():
        known |= {f"authserver.plugin.{name}.{setting}" for setting in settings_of(kind)}
    known |= {"authserver.plugin.read_only.clients", "authserver.plugin.release_freeze.exempt"}
    known |= {"authserver.plugin.group_scopes.scopes"}
    named = {
        # The name of an entry is the reader's.
        (path.name, re.sub(r"(?<=\.providers\.)\w+", "NAME", key))
        for path in (README, *PAGES)
        for key in re.findall(
            r"^ *(authserver\.[\w.]+)(?:@clients|@resources)? =", path.read_text(), re.MULTILINE
        )
    }
    assert len(named) >= 4
    assert [item for item in sorted(named) if item[1] not in known] == []
