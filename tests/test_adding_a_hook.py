"""A deciding hook is added by one declaration and its first policy; everything else knows it from then on."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from authserver.engine.context import Engine
from authserver.engine.errors import AccessDenied
from authserver.engine.records import EventType
from authserver.explaining.explain import explain, explain_event
from authserver.explaining.replay import Result, replay
from authserver.hookspecs import DECIDING
from authserver.plugins.asking import PluginSet
from authserver.plugins.shadow import Shadow
from authserver.testing.contract import policy_contract
from authserver.testing.questions import a_question
from authserver.testing.records import NOW, a_client
from authserver.testing.server import Server, with_plugin

CHECKOUT = Path(__file__).parent.parent
HOOK = "vault_decision"
DECLARATION = '''
from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Self

from authserver.api import Client, Decision, Question, allow, deny, hookimpl
from authserver.engine.questions import Facts, Known
from authserver.hooks import deciding


class Floor(StrEnum):
    CELLAR = "cellar"
    ATTIC = "attic"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultQuestion(Question[tuple[str, ...]]):
    """Which drawers of the vault a client may open."""

    hook: ClassVar[str] = "vault_decision"

    client: Client
    floor: Floor
    drawers: tuple[str, ...]

    def facts(self) -> Facts:
        return {"client_id": self.client.client_id, "floor": self.floor, "drawers": list(self.drawers)}

    @classmethod
    def again(cls, facts: Facts, known: Known) -> Self:
        return cls(client=known.client(facts), floor=Floor(facts["floor"]), drawers=tuple(facts["drawers"]))

    def excess(self, value: tuple[str, ...]) -> str | None:
        return None if set(value) <= set(self.drawers) else "it opens what stays closed"


@deciding(
    VaultQuestion,
    narrows=True,
    codes=True,
    silence="the vault stays closed",
    remedy="list vault_keys in authserver.plugins",
)
def vault_decision(client: Client, floor: Floor, drawers: tuple[str, ...]) -> Decision[tuple[str, ...]] | None:
    """Which drawers of the vault a client may open.

    Arguments:
        client: the client that asks.
        floor: where the vault is.
        drawers: those it wants to open.

    Answers:
        allow(reason, drawers): these.
        narrow(reason, drawers): no more than these.
        deny(reason, error_code): none.
        None: not mine.

    Silence: the vault stays closed.

    Example::

        @hookimpl
        def vault_decision(self, drawers):
            return allow("key-fits", drawers)

    Added in 0.1.
    """


@dataclass(frozen=True)
class VaultKeys:
    """Open these drawers."""

    reasons: ClassVar[frozenset[str]] = frozenset({"key-fits"})
    immediate: ClassVar[bool] = True

    drawers: tuple[str, ...] = ()

    @hookimpl
    def vault_decision(self, drawers: tuple[str, ...]) -> Decision[tuple[str, ...]] | None:
        fitting = tuple(drawer for drawer in drawers if drawer in self.drawers)
        return allow("key-fits", fitting) if fitting else None


@dataclass(frozen=True)
class OpensAll(VaultKeys):
    """Opens more than anybody asked for."""

    @hookimpl
    def vault_decision(self) -> Decision[tuple[str, ...]] | None:
        return allow("key-fits", ("gold", "silver", "letters"))


@dataclass(frozen=True)
class Guard:
    """Sends everybody away."""

    reasons: ClassVar[frozenset[str]] = frozenset({"guarded"})
    immediate: ClassVar[bool] = True

    error_code: str

    @hookimpl
    def vault_decision(self) -> Decision[tuple[str, ...]] | None:
        return deny("guarded", self.error_code)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vault")
    (folder / "vault.py").write_text(DECLARATION)
    return folder


@pytest.fixture(scope="module")
def vault(folder: Path) -> Iterator[ModuleType]:
    """The module, with its hook declared."""
    sys.path.insert(0, str(folder))
    yield importlib.import_module("vault")
    sys.path.remove(str(folder))
    del sys.modules["vault"], DECIDING[HOOK]


@pytest.fixture
def server(vault: ModuleType, sqlite_url: str) -> Iterator[Server]:
    """A server with the policy in its INI."""
    server = Server(sqlite_url, with_plugin("vault:VaultKeys", {"drawers": "gold silver"}))
    yield server
    server.close()


@pytest.fixture
def engine(server: Server) -> Iterator[Engine]:
    with server.application.begin() as engine:
        engine.stores.clients.add(a_client())
        yield engine


def opened(engine: Engine, vault: Any, *drawers: str) -> tuple[str, ...]:
    """A rule of an engine that asks the new question."""
    question = vault.VaultQuestion(client=a_client(), floor=vault.Floor.CELLAR, drawers=drawers)
    ruling = engine.ask(question)
    if not ruling.allowed:
        raise AccessDenied("The vault stays closed.", reason=ruling.reason)
    value: tuple[str, ...] = ruling.allowed_value
    return value


def test_the_engine_asks_it_and_the_policy_decides(engine: Engine, vault: ModuleType) -> None:
    assert opened(engine, vault, "gold", "letters") == ("gold",)
    (ruling,) = engine.journal.decisions
    assert (ruling.hook, ruling.reason, ruling.decided_by) == (HOOK, "key-fits", "vault_keys")


@pytest.mark.parametrize(
    "answer", ["allow('key-fits', 'gold')", "allow('key-fits', (1,))", "allow('key-fits')", "True"]
)
def test_an_answer_of_another_type_is_a_refusal(vault: Any, answer: str) -> None:
    """T140: what an allow must carry is the type parameter of the question."""
    namespace: dict[str, Any] = {}
    exec(
        "from authserver.api import allow, hookimpl\n"
        "class Wrong:\n"
        "    @hookimpl\n"
        f"    def vault_decision(self): return {answer}\n",
        namespace,
    )
    assert PluginSet([("wrong", namespace["Wrong"]())]).decide(a_question(HOOK)).failed


def test_explain_shows_facts_silence_and_remedy(server: Server, engine: Engine, vault: ModuleType) -> None:
    told = explain(engine, server.application.parts.policies, lambda: opened(engine, vault, "letters"))
    assert told.verdict == "refused"
    (check,) = told.checks
    assert check.facts == {"client_id": "reports", "floor": "cellar", "drawers": ["letters"]}
    assert check.note == "the vault stays closed"
    assert check.remedies == ("list vault_keys in authserver.plugins",)


def test_what_is_recorded_is_explained_and_asked_again(server: Server, engine: Engine, vault: Any) -> None:
    """Under another configuration it flips."""
    opened(engine, vault, "gold", "silver")
    event = engine.event(EventType.TOKEN_ISSUED)
    event = replace(event, decisions=json.loads(json.dumps(event.decisions)))
    assert explain_event(engine, event, server.application.parts.policies).checks[0].outcome == [
        "gold",
        "silver",
    ]
    for policy, result in (
        (vault.VaultKeys(("gold", "silver")), Result.SAME),
        (vault.VaultKeys(), Result.FLIPPED),
    ):
        other = replace(engine, policies=PluginSet([("vault_keys", policy)]))
        assert [(item.hook, item.result) for item in replay([event], other)] == [(HOOK, result)]


def test_the_error_code_of_a_refusal_is_recorded_explained_and_compared(
    server: Server, engine: Engine, vault: Any
) -> None:
    """What the client gets is part of the outcome: another code is a flip."""
    question = vault.VaultQuestion(client=a_client(), floor=vault.Floor.CELLAR, drawers=("gold",))
    guarded = replace(engine, policies=PluginSet([("guard", vault.Guard("come_back_later"))]))
    assert guarded.ask(question).error_code == "come_back_later"
    event = guarded.event(EventType.TOKEN_ISSUED)
    event = replace(event, decisions=json.loads(json.dumps(event.decisions)))
    check = explain_event(engine, event, server.application.parts.policies).checks[0]
    assert (check.verdict, check.outcome) == ("deny", "come_back_later")
    for code, result in (("come_back_later", Result.SAME), ("go_away", Result.FLIPPED)):
        other = replace(engine, policies=PluginSet([("guard", vault.Guard(code))]))
        assert [item.result for item in replay([event], other)] == [result]


def test_a_shadow_plugin_is_asked_it(server: Server, vault: Any) -> None:
    live = PluginSet([("vault_keys", vault.VaultKeys(("gold",)))])
    live.shadow = shadow = Shadow(PluginSet([("opens_all", vault.OpensAll())]), server.application.storage)
    question = vault.VaultQuestion(client=a_client(), floor=vault.Floor.ATTIC, drawers=("letters",))
    assert not live.decide(question).allowed
    assert shadow.wait(10)
    with server.application.begin() as engine:
        (event,) = engine.stores.events.since(NOW, type=EventType.POLICY_DIFFERED)
    assert event.client_id == "reports"
    assert [decision["verdict"] for decision in event.decisions] == ["silent", "allow"]


def test_the_contract_kit_asks_it(vault: Any) -> None:
    """With questions made from its fields; and it finds a policy that allows too much."""
    sound, unsound = vault.VaultKeys(("gold", "example")), vault.OpensAll()
    tests: Any = policy_contract(sound)()
    tests.test_it_answers_every_question(sound, HOOK)
    tests.test_it_answers_the_same_each_time(sound, HOOK)
    tests.test_it_never_widens(sound, HOOK)
    with pytest.raises(AssertionError, match="it opens what stays closed"):
        policy_contract(unsound)().test_it_never_widens(unsound, HOOK)


def test_the_table_of_plugins_has_a_row_for_it(server: Server) -> None:
    """`authserver plugins`."""
    (row,) = [row for row in server.application.parts.policies.table() if row["hook"] == HOOK]
    assert (row["kind"], row["plugins"], row["silence"]) == (
        "deciding",
        ["vault_keys"],
        "the vault stays closed",
    )


def test_the_documentation_has_a_section_for_it(vault: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CHECKOUT / "docs")
    reference = importlib.import_module("reference")
    page = "\n".join(reference.hooks_page())
    assert re.search(r"^vault_decision\n-+$", page, re.MULTILINE)
    assert "drawers: tuple[str, ...]" in page
    assert "**If no plugin answers:** the vault stays closed." in page


def test_the_webhook_policy_serves_it(vault: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CHECKOUT / "plugins" / "authserver-webhook-policy" / "src")
    webhook = importlib.import_module("authserver_webhook_policy")
    try:
        assert HOOK in webhook.HOOKS
        policy = webhook.WebhookPolicy(
            hooks=(HOOK,), url="http://localhost:1/", secret=webhook.Secret("whsec_" + "A" * 32)
        )
        assert PluginSet([("webhook_policy", policy)]).serves(HOOK)
    finally:
        for name in [name for name in sys.modules if name.startswith("authserver_webhook_policy")]:
            del sys.modules[name]


def test_a_new_plugin_can_be_started_for_it(folder: Path, tmp_path: Path) -> None:
    """`authserver plugin new --hook vault_decision`: what it writes passes its tests, and ruff has no complaint."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (folder, CHECKOUT))),
        "PYTHONWARNINGS": "ignore",
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    arguments = ["plugin", "new", "vault-hours", "--hook", HOOK]
    run("-c", f"import vault; from authserver.cli import main; main({arguments})")
    project = tmp_path / "authserver-vault-hours"
    module = (project / "src" / "authserver_vault_hours" / "__init__.py").read_text()
    assert "It may take any of these arguments: client, floor, drawers." in module
    assert "authserver.plugin.vault_hours.closed = true\n" in (project / "README.md").read_text()
    run("-m", "ruff", "format", "--check", "--no-cache", str(project))
    run("-m", "ruff", "check", "--no-cache", str(project))
    environment["PYTHONPATH"] += os.pathsep + str(project / "src")
    # What an installer would write beside the module.
    metadata = project / "src" / "authserver_vault_hours-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: authserver-vault-hours\nVersion: 0.1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        "[authserver.plugins]\nvault_hours = authserver_vault_hours:VaultHours\n"
    )
    tests = [str(project / "tests"), "-p", "vault", "-p", "no:cacheprovider"]
    passed = run("-m", "pytest", "-q", "--import-mode=importlib", "--rootdir", str(project), *tests)
    assert " passed" in passed
