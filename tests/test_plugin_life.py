"""The life of a plugin: made from its settings, prepared once, asked, closed."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

import pytest

from authserver import app
from authserver.api import Credentials, Decision, deny, hookimpl
from authserver.engine.decisions import Verdict
from authserver.ini import Resolved
from authserver.plugins.asking import PluginSet
from authserver.plugins.loading import GROUP, load
from authserver.settings import SettingsError
from authserver.testing import hostile
from authserver.testing.questions import a_question
from authserver.testing.records import a_client
from authserver.testing.server import SETTINGS

CHECKOUT = Path(__file__).parent.parent
# What happened, in order; each test begins with nothing.
HAPPENED: list[str] = []
OVER = threading.Event()


@pytest.fixture(autouse=True)
def nothing_happened() -> Iterator[None]:
    HAPPENED.clear()
    OVER.clear()
    yield
    OVER.set()


@dataclass(eq=False)
class Kept:
    """Keeps something that is opened and closed."""

    immediate: ClassVar[bool] = True

    name: str = "kept"
    refuses: str = ""
    opened: str = field(init=False, repr=False)

    def prepare(self) -> None:
        HAPPENED.append(f"prepare {self.name}")
        if self.refuses:
            raise ValueError(self.refuses)
        self.opened = "on-file"

    @hookimpl
    def redirect_uri_decision(self) -> Decision:
        return deny(self.opened)

    def close(self) -> None:
        HAPPENED.append(f"close {self.name}")


@dataclass(eq=False)
class Other(Kept):
    name: str = "other"


@dataclass(eq=False)
class Third(Kept):
    name: str = "third"


@dataclass(frozen=True)
class Broken:
    """Does what a test says when it is prepared and closed."""

    at_start: type[BaseException] | None = None
    at_end: type[BaseException] | None = None

    def prepare(self) -> None:
        if self.at_start:
            raise self.at_start("it cannot be had")

    def close(self) -> None:
        if self.at_end:
            raise self.at_end("it cannot be closed")


@dataclass(frozen=True)
class Hangs:
    def close(self) -> None:
        OVER.wait(20)


@dataclass(frozen=True)
class Chooses:
    """Serves what its settings name."""

    hooks: tuple[str, ...]

    @property
    def serves(self) -> tuple[str, ...]:
        return self.hooks

    @hookimpl
    def redirect_uri_decision(self) -> Decision:
        return deny("chosen")

    @hookimpl
    def registration_decision(self) -> Decision:
        return deny("chosen")


def named(name: str) -> str:
    return f"{__name__}:{name}"


def loaded(*names: str, **settings: dict[str, str]) -> PluginSet:
    raw = {
        plugin: {key: Resolved(text, True) for key, text in texts.items()}
        for plugin, texts in settings.items()
    }
    return load([named(name) for name in names], raw, production=False)[0]


# ---- Prepared once -------------------------------------------------------------------------------------


def test_a_plugin_is_prepared_once_before_it_is_asked() -> None:
    plugins = loaded("Kept", "Other")
    assert HAPPENED == ["prepare kept", "prepare other"]
    for _ in range(2):
        ruling = plugins.decide(a_question("redirect_uri_decision", redirect_uri="x"))
        assert ruling.reason == "on-file"
    assert HAPPENED == ["prepare kept", "prepare other"]


def test_a_plugin_that_refuses_to_start_is_named_with_its_sentence() -> None:
    """T142: every plugin that refuses is named, and those that were prepared are closed again."""
    with pytest.raises(SettingsError) as raised:
        loaded(
            "Kept",
            "Other",
            "Third",
            other={"refuses": "file: teams.toml cannot be read"},
            third={"refuses": "secret: is too short"},
        )
    assert list(raised.value.problems) == [
        "authserver.plugin.other: file: teams.toml cannot be read",
        "authserver.plugin.third: secret: is too short",
    ]
    assert HAPPENED == ["prepare kept", "prepare other", "prepare third", "close kept"]


@pytest.mark.parametrize("raised", [OSError, *hostile.RAISED])
def test_a_plugin_that_fails_to_prepare_stops_the_start_in_a_sentence(raised: type[BaseException]) -> None:
    """R-14: whatever it raises, `SystemExit` too."""
    plugins = PluginSet([("broken", Broken(at_start=raised))])
    with pytest.raises(SettingsError) as refusal:
        plugins.prepare()
    (problem,) = refusal.value.problems
    assert problem.startswith("authserver.plugin.broken: it failed to prepare: ")


def test_nothing_is_prepared_when_a_setting_is_wrong() -> None:
    """T142: a start that cannot succeed opens nothing."""
    with pytest.raises(SettingsError):
        loaded("Kept", "Other", other={"strict": "true"})
    assert HAPPENED == []


def test_a_start_that_fails_later_closes_what_was_prepared() -> None:
    """The grant type is unknown, and that is found after the plugins were made."""
    ini = {**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"}
    ini["authserver.plugins"] += f"\n{named('Kept')}"
    with pytest.raises(SettingsError, match="no such grant type"):
        app.build({**ini, "authserver.grant_types": "pasword"})
    assert HAPPENED == ["prepare kept", "close kept"]


# ---- Closed at the end ---------------------------------------------------------------------------------


def test_an_application_closes_its_plugins_once_the_last_one_first() -> None:
    ini = {**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"}
    ini["authserver.plugins"] += f"\n{named('Kept')}\n{named('Other')}"
    application = app.build({**ini, "authserver.shadow_plugins": named("Third")})
    HAPPENED.clear()
    application.close()
    application.close()
    assert HAPPENED == ["close third", "close other", "close kept"]


def test_a_command_that_asks_no_shadow_plugin_closes_it_all_the_same() -> None:
    """`explain` and `lint` ask what no request asked."""
    ini = {**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"}
    application = app.build({**ini, "authserver.shadow_plugins": named("Third")})
    with closing(application):
        application.parts.policies.end_shadow()
        assert HAPPENED == ["prepare third", "close third"]
        application.parts.policies.decide(a_question("redirect_uri_decision"))
    assert HAPPENED == ["prepare third", "close third"]


@pytest.mark.parametrize("raised", [OSError, *hostile.RAISED])
def test_a_plugin_that_fails_to_close_harms_nobody(
    raised: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """R-14: it is logged, and the others are closed all the same."""
    plugins = PluginSet([("kept", Kept()), ("broken", Broken(at_end=raised)), ("other", Other())])
    plugins.prepare()
    HAPPENED.clear()
    plugins.close()
    assert HAPPENED == ["close other", "close kept"]
    assert "plugin broken failed to close" in caplog.text


def test_a_plugin_that_hangs_at_the_end_does_not_keep_the_server_from_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugins = PluginSet([("kept", Kept()), ("hangs", Hangs())], time_limit=0.05)
    plugins.prepare()
    begun = time.monotonic()
    plugins.close()
    assert time.monotonic() - begun < 10
    assert HAPPENED == ["prepare kept", "close kept"]
    assert "plugin hangs failed to close" in caplog.text


def test_a_plugin_is_closed_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the end of a process, from Python 3.12 on."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    plugins = PluginSet([("kept", Kept())])
    plugins.prepare()
    monkeypatch.setattr(threading.Thread, "start", start)
    plugins.close()
    assert HAPPENED == ["prepare kept", "close kept"]


ENDS = """
from dataclasses import dataclass
from authserver.api import hookimpl


@dataclass(eq=False)
class Ends:
    file: str

    def prepare(self):
        print("ready", flush=True)

    def close(self):
        with open(self.file, "a") as file:
            file.write("closed")
"""


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_closes_its_plugins(
    ending: signal.Signals, tmp_path: Path, sqlite_url: str
) -> None:
    """By its supervisor or by Ctrl-C."""
    (tmp_path / "ends.py").write_text(ENDS)
    settings = {**SETTINGS, "authserver.database_url": sqlite_url}
    settings["authserver.plugins"] += "\nends:Ends"
    settings["authserver.plugin.ends.file"] = str(tmp_path / "closed.txt")
    program = (
        "import signal, threading\n"
        "from authserver.app import wsgi\n"
        f"wsgi({{}}, **{settings!r})\n"
        "try:\n"
        "    print('serving', flush=True)\n"
        "    threading.Event().wait(60)\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "serving\n"]
        process.send_signal(ending)
        assert process.wait(30) == 0
    assert (tmp_path / "closed.txt").read_text() == "closed"


def test_the_example_keeps_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/writing-plugins.rst shows a plugin that opens and closes something."""
    monkeypatch.syspath_prepend(CHECKOUT / "docs/examples")
    file = tmp_path / "blocked.sqlite"
    settings = {"blocklist": {"file": Resolved(str(file), True)}}
    with pytest.raises(SettingsError, match=r"authserver.plugin.blocklist: file: .* unable to open"):
        load(["blocklist:Blocklist"], settings, production=False)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE blocked (client_id TEXT)")
        connection.execute("INSERT INTO blocked VALUES ('bad')")
    plugins, _ = load(["blocklist:Blocklist"], settings, production=False)
    with closing(plugins):
        verdicts = [
            plugins.decide(
                a_question("client_auth_decision", client=a_client(client_id=name), credentials=a_credential)
            ).verdict
            for name in ("bad", "good")
            for a_credential in [Credentials(method="none", client_id=name)]
        ]
    assert verdicts == [Verdict.DENY, Verdict.SILENT]


# ---- Which hooks this value serves ---------------------------------------------------------------------


def test_settings_may_say_which_hooks_a_plugin_serves() -> None:
    """Nobody is asked at the others, so that leaving registration out leaves registration closed."""
    plugins = loaded("Chooses", chooses={"hooks": "redirect_uri_decision"})
    assert plugins.serves("redirect_uri_decision")
    assert not plugins.serves("registration_decision")
    rows = {row["hook"]: row["plugins"] for row in plugins.table()}
    assert (rows["redirect_uri_decision"], rows["registration_decision"]) == (["chooses"], [])


@pytest.mark.parametrize("hook", ["scope_decision", "scope_desicion", "prepare"])
def test_a_plugin_cannot_serve_a_hook_that_it_does_not_implement(hook: str) -> None:
    """T142: the start stops, and names the plugin and the hook."""
    with pytest.raises(SettingsError) as raised:
        loaded("Chooses", chooses={"hooks": f"redirect_uri_decision {hook}"})
    assert list(raised.value.problems) == [
        f"plugin chooses: `serves` names {hook}, which it does not implement"
    ]


# ---- Types that tell the truth -------------------------------------------------------------------------

SOURCES = sorted(
    path
    for folder in ("authserver/policies", "authserver/features", "authserver/cli/plugin_template", "plugins")
    for path in (CHECKOUT / folder).rglob("*")
    if path.suffix in (".py", ".txt") and "tests" not in path.parts and ".egg-info" not in str(path)
)
SHIPPED = {point.name: point.load() for point in entry_points(group=GROUP)}


def test_the_sources_are_found() -> None:
    assert len(SOURCES) > 30
    assert len(SHIPPED) > 20


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_plugin_writes_around_its_own_type(path: Path) -> None:
    """A frozen value does not change: what is worked out is a cached property, what changes is in another type."""
    assert "object.__setattr__" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_frozen_plugin_holds_its_settings_and_nothing_else(name: str) -> None:
    """So no cache or counter hides in it."""
    kind: Any = SHIPPED[name]
    if kind.__dataclass_params__.frozen:
        assert [item.name for item in dataclasses.fields(kind) if not item.init] == []
