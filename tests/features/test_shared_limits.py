"""Limits that several processes share, in a real Redis or Valkey; and what happens while that is down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families

from authserver.cli import main
from authserver.engine.decisions import Decision
from authserver.engine.questions import Counted, RateQuestion, RateStep
from authserver.features import rate_limits
from authserver.features.rate_limits import RateLimits
from authserver.ini import convert
from authserver.settings import Secret, SettingsError
from authserver.testing.server import Server, with_plugin

STORE = shutil.which("valkey-server") or shutil.which("redis-server")
PASSWORD = "the password of the shared store"
START_SECONDS = 20.0
# What the scripts call; each is counted, too.
SCRIPT_COMMANDS = ("evalsha", "get", "incr", "expire", "decr", "config|resetstat")
LINE = "few = sign_in, account, 10, hour"


@dataclass
class Store:
    """A Redis or Valkey on a socket in a folder, with nothing on disk."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis+unix://{self.folder}/socket"

    def start(self) -> None:
        assert STORE is not None
        options = [
            "--port",
            "0",
            "--unixsocket",
            f"{self.folder}/socket",
            "--save",
            "",
            "--requirepass",
            PASSWORD,
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([STORE, *options], cwd=self.folder, stdout=log, stderr=log)
        client = redis.Redis(unix_socket_path=f"{self.folder}/socket", password=PASSWORD)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with suppress(redis.RedisError):
                client.ping()
                client.close()
                return
            time.sleep(0.02)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(START_SECONDS)
            self.process = None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store of this test alone."""
    if STORE is None and not os.environ.get("CI"):
        pytest.skip("no store is installed; on Debian: apt-get install redis-server")
    store = Store(tmp_path)
    store.start()
    yield store
    store.stop()


@pytest.fixture
def process(store: Store) -> Iterator[Callable[..., RateLimits]]:
    """The plugin as one process of several has it."""
    made: list[RateLimits] = []

    def make(*lines: str, **settings: Any) -> RateLimits:
        table = convert("\n".join(lines or (LINE,)), tuple[tuple[str, str], ...])
        values = {"storage": store.url, "password": Secret(PASSWORD), **settings}
        made.append(RateLimits(limits=table, **values))
        made[-1].prepare()
        return made[-1]

    yield make
    for plugin in made:
        plugin.close()


def ask(
    plugin: RateLimits, counted: str = "sign_in", step: str = "claim", **facts: Any
) -> Decision[None] | None:
    values = {"source": "192.0.2.1", "endpoint": "login", "account": "ann", **facts}
    return plugin.rate_decision(RateQuestion(counted=Counted(counted), step=RateStep(step), **values))


def test_all_processes_count_together(process: Callable[..., RateLimits]) -> None:
    """T101, T102: of a hundred simultaneous guesses at two processes no more are answered than at one."""
    plugins = [process(), process()]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: ask(plugins[number % 2]), range(100)))
    assert answers.count(None) == 10
    refused = [ask(plugin) for plugin in plugins]
    assert all(answer is not None and answer.wait is not None for answer in refused)
    assert not any(answer.wait.leaves_event for answer in refused)  # see the line before
    # A restart of a process changes nothing.
    assert ask(process()) is not None
    assert ask(process(prefix="another-server")) is None


def test_several_limits_and_what_is_given_back_are_shared(process: Callable[..., RateLimits]) -> None:
    """R-20."""
    lines = ("source = sign_in, source, 2, minute", "account = sign_in, account, 5, minute")
    one, other = process(*lines), process(*lines)
    for _ in range(10):
        assert ask(one) is None
        ask(other, step="give_back")
    assert [ask(plugin) is None for plugin in (one, other, one, other)] == [True, True, False, False]
    used = {usage.limit: (usage.used, usage.who) for usage in one.usage() or ()}
    assert used == {"source": (2, "source=192.0.2.1"), "account": (2, "account=ann")}
    assert all(0 < usage.seconds <= 60 for usage in one.usage() or ())


def test_a_question_is_one_command_for_the_store(store: Store, process: Callable[..., RateLimits]) -> None:
    """R-20, T101: however many limits apply, so nothing is left half counted, and a store far away is waited for once."""
    plugin = process(*(f"{name} = sign_in, {name}, 5, minute" for name in ("account", "source", "all")))
    for step in ("claim", "claim", "give_back"):
        ask(plugin, step=step)  # the store gets each script with its first use
    with redis.Redis(unix_socket_path=f"{store.folder}/socket", password=PASSWORD) as client:
        client.config_resetstat()
        ask(plugin)
        ask(plugin, step="check")
        ask(plugin, step="give_back")
        stats = client.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 3
    assert not stats.keys() - {f"cmdstat_{name}" for name in SCRIPT_COMMANDS}
    assert {usage.used for usage in plugin.usage() or ()} == {1}


def test_while_the_store_is_down_each_line_does_what_it_says(
    store: Store, process: Callable[..., RateLimits], caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """T102: by default it is counted in memory; the log hears of it once, and a figure shows it."""
    monkeypatch.setattr(rate_limits, "RETRY_SECONDS", 0.2)
    plugin = process(
        "in-memory = sign_in, account, 1, minute",
        "not-limited = registration, source, 1, minute, allow",
        "closed = token_request, client, 1, minute, refuse",
    )
    assert ask(plugin) is None
    assert ask(plugin) is not None
    assert plugin.figures()["store_down"][1] == 0
    store.stop()
    assert [ask(plugin) is None for _ in range(3)] == [True, False, False]
    assert [ask(plugin, "registration") for _ in range(3)] == [None, None, None]
    refused = [ask(plugin, "token_request", client_id="notes") for _ in range(3)]
    assert [answer.reason for answer in refused if answer] == ["limits-store-down"] * 3
    assert [answer.wait.leaves_event for answer in refused if answer and answer.wait] == [True, False, False]
    assert ask(plugin, "token_request", "give_back", client_id="notes") is None
    assert plugin.figures()["store_down"][1] == 1
    warnings = [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]
    assert len(warnings) == 1
    assert PASSWORD not in caplog.text
    store.start()
    time.sleep(0.3)
    assert ask(plugin) is None
    assert ask(plugin, "token_request", client_id="notes") is None
    assert plugin.figures()["store_down"][1] == 0
    assert "can be used again" in caplog.text


def test_a_store_that_hangs_holds_nobody_up(store: Store, process: Callable[..., RateLimits]) -> None:
    """One request waits for a moment; those after it do not try."""
    plugin = process()
    assert ask(plugin) is None
    assert store.process is not None
    store.process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    for _ in range(5):
        assert ask(plugin) is None
    assert time.monotonic() - begun < 2
    assert plugin.counts.is_down


def test_a_server_starts_while_the_store_is_down(store: Store, sqlite_url: str) -> None:
    store.stop()
    settings = {"storage": store.url, "password": PASSWORD, "limits": LINE}
    server = Server(sqlite_url, with_plugin("rate_limits", settings))
    server.add_user()
    assert server.sign_in(server.browser()).status_int == 303
    server.close()


def test_a_server_without_the_driver_says_what_to_install(sqlite_url: str, monkeypatch: Any) -> None:
    """R-14: it does not start with limits that every process counts for itself."""
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(SettingsError) as refused:
        Server(sqlite_url, with_plugin("rate_limits", {"storage": "redis://127.0.0.1:1", "limits": LINE}))
    assert "pip install 'authserver[redis]'" in str(refused.value)


def test_the_figures_of_the_server_show_a_store_that_is_down(store: Store, sqlite_url: str) -> None:
    settings = {
        **with_plugin("rate_limits", {"storage": store.url, "password": PASSWORD, "limits": LINE}),
        "authserver.plugin.metrics.tokens": "0123456789abcdef" * 2,
    }
    settings["authserver.plugins"] = f"{settings['authserver.plugins']} metrics"
    server = Server(sqlite_url, settings)
    server.add_user()

    def figure() -> float:
        headers = {"Authorization": f"Bearer {'0123456789abcdef' * 2}"}
        text = server.http.get("/metrics", headers=headers).text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        return families["authserver_rate_limits_store_down"].samples[0].value

    assert figure() == 0
    store.stop()
    server.sign_in(server.browser(), password="wrong")
    assert figure() == 1
    server.close()


# ---- authserver limits -------------------------------------------------------------------------------


@pytest.fixture
def ini(tmp_path: Path, sqlite_url: str) -> Path:
    """An INI file whose processes count in memory."""
    server = Server(sqlite_url, with_plugin("rate_limits", {"limits": LINE}))
    server.close()
    path = tmp_path / "server.ini"
    lines = [f"{key} = " + text.strip().replace("\n", "\n    ") for key, text in server.ini.items()]
    path.write_text("[app:main]\nuse = egg:authserver\n" + "\n".join(lines) + "\n")
    return path


def run(ini: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["-c", str(ini), "limits", *arguments])


def test_the_command_shows_who_used_what_and_lifts_it(
    store: Store, ini: Path, process: Callable[..., RateLimits]
) -> None:
    with ini.open("a") as file:
        file.write(f"authserver.plugin.rate_limits.storage = {store.url}\n")
        file.write(f"authserver.plugin.rate_limits.password = {PASSWORD}\n")
    plugin = process()
    assert "No limit is used by half or more by anybody now." in run(ini).output
    ask(plugin, account="bob")
    while ask(plugin) is None:
        pass
    shown = run(ini).output
    assert "account=ann" in shown
    assert "account=bob" not in shown
    (ann, bob) = json.loads(run(ini, "--all", "--json").output)["used"]
    assert (ann["limit"], ann["who"], ann["used"], ann["allowed"]) == ("few", "account=ann", 10, 10)
    assert (bob["who"], bob["used"]) == ("account=bob", 1)
    assert 3500 < ann["seconds"] <= 3600
    assert PASSWORD not in shown
    done = run(ini, "lift", "few", "account=ann")
    assert done.output == "few is lifted for account=ann.\n"
    assert ask(plugin) is None
    # The next flood leaves an event again.
    while (refused := ask(plugin)) is None:
        pass
    assert refused.wait is not None and refused.wait.leaves_event
    assert json.loads(run(ini, "lift", "few", "--json").output) == {"limit": "few", "lifted": 2}
    for arguments, problem in (
        (("lift", "fw"), "fw: no such limit; did you mean few"),
        (("lift", "few", "account=carl"), "nobody called account=carl has used anything of few"),
    ):
        failed = run(ini, *arguments)
        assert failed.exit_code == 1
        assert problem in failed.output
    store.stop()
    assert "the store of the limits cannot be used" in run(ini).output
    assert run(ini, "lift", "few").exit_code == 1
