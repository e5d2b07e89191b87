"""The contract kit finds faults: each deliberately faulty policy fails the test that names its fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
POLICIES = '''
from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest

from authserver.api import Identity, allow, deny, hookimpl, narrow
from authserver.testing.contract import policy_contract

REASONS: frozenset[str] = frozenset({"sound"})


@dataclass(frozen=True)
class Sound:
    """Nothing is wrong with this one."""

    reasons: ClassVar[frozenset[str]] = REASONS

    @hookimpl
    def scope_decision(self, client, requested):
        return narrow("sound", tuple(scope for scope in requested if scope in client.scopes))

    @hookimpl
    def server_metadata(self):
        return {"service_documentation": "https://docs.example/"}


@dataclass(frozen=True)
class Raises(Sound):
    @hookimpl
    def scope_decision(self, user):
        return allow("sound", (user.username,)) if user.groups else None  # user may be None


@dataclass(frozen=True)
class Exits(Sound):
    @hookimpl
    def scope_decision(self, user):
        if user is None:
            sys.exit("no user")


@dataclass(frozen=True)
class Interrupts(Sound):
    @hookimpl
    def scope_decision(self):
        raise KeyboardInterrupt


@dataclass(frozen=True)
class LongReason(Sound):
    reasons: ClassVar[frozenset[str]] = frozenset({"a" * 101})

    @hookimpl
    def scope_decision(self):
        return deny("a" * 101)


@dataclass(frozen=True)
class AnswersTrue(Sound):
    @hookimpl
    def scope_decision(self, requested):
        return True


@dataclass(frozen=True)
class WrongValue(Sound):
    @hookimpl
    def scope_decision(self, requested):
        return allow("sound", " ".join(requested))


@dataclass(frozen=True)
class NarrowsWhereNothingNarrows(Sound):
    @hookimpl
    def consent_decision(self, scopes):
        return narrow("sound", scopes[:1])


@dataclass(frozen=True)
class WidensScopes(Sound):
    @hookimpl
    def scope_decision(self, requested):
        return allow("sound", (*requested, "profile"))


@dataclass(frozen=True)
class AllowsAnyPrefix(Sound):
    @hookimpl
    def redirect_uri_decision(self, client, redirect_uri):
        if any(redirect_uri.startswith(registered) for registered in client.redirect_uris):
            return allow("sound")


@dataclass(frozen=True)
class UndeclaredReason(Sound):
    @hookimpl
    def scope_decision(self, requested):
        return deny("strange") if "admin" in requested else None


@dataclass(frozen=True)
class IllWrittenReason(Sound):
    reasons: ClassVar[frozenset[str]] = frozenset({"Not allowed!"})

    @hookimpl
    def scope_decision(self):
        return deny("Not allowed!")


@dataclass(frozen=True)
class Unhashable(Sound):
    clients: list[str] = field(default_factory=list)


@dataclass
class Thawed:
    reasons: ClassVar[frozenset[str]] = REASONS

    @hookimpl
    def scope_decision(self):
        return None


class NoDataclass:
    reasons = REASONS

    @hookimpl
    def scope_decision(self):
        return None


@dataclass(frozen=True)
class TryFirst(Sound):
    @hookimpl(tryfirst=True)
    def scope_decision(self):
        return deny("sound")


@dataclass(frozen=True)
class RandomAnswer(Sound):
    @hookimpl
    def scope_decision(self):
        return random.choice([deny("sound"), None])


@dataclass(frozen=True)
class MutableMemory(Sound):
    _seen: list = field(default_factory=list, init=False, repr=False, compare=False)

    @hookimpl
    def scope_decision(self, requested):
        if requested in self._seen:
            return deny("sound")
        self._seen.append(requested)


@dataclass(frozen=True)
class Counts(Sound):
    asked: int = 0

    @hookimpl
    def scope_decision(self):
        object.__setattr__(self, "asked", self.asked + 1)


@dataclass(frozen=True)
class WritesIntoTheClient(Sound):
    @hookimpl
    def scope_decision(self, client, requested):
        object.__setattr__(client, "scopes", (*client.scopes, "admin"))
        return narrow("sound", requested)


@dataclass(frozen=True)
class WritesIntoThePassword(Sound):
    @hookimpl
    def login_decision(self, password):
        password._value = password.value[:72]  # as some hashes do
        return None


@dataclass(frozen=True)
class Megabytes(Sound):
    @hookimpl
    def scope_decision(self, requested):
        return narrow("sound", requested * 100_000)


@dataclass(frozen=True)
class NobodyInParticular(Sound):
    @hookimpl
    def login_decision(self, user):
        return allow("sound", Identity(username=None)) if user else None


@dataclass(frozen=True)
class ServesMore(Sound):
    serves: ClassVar[tuple[str, ...]] = ("scope_decision", "server_metadata", "consent_decision")


@dataclass(eq=False)
class Keeps:
    """Nothing is wrong with this one, which counts what it is asked and says so in its type."""

    reasons: ClassVar[frozenset[str]] = REASONS

    asked: int = field(init=False, repr=False)

    def prepare(self):
        self.asked = 0

    @hookimpl
    def scope_decision(self):
        self.asked += 1

    def close(self):
        del self.asked


@dataclass(frozen=True)
class Slow(Sound):
    @hookimpl
    def scope_decision(self):
        time.sleep(0.15)


@dataclass(frozen=True)
class NoReasons(Sound):
    reasons: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class MisspeltHook(Sound):
    @hookimpl
    def scopes_decision(self):
        return deny("sound")


@dataclass(frozen=True)
class MisspeltArgument(Sound):
    @hookimpl
    def scope_decision(self, clients):
        return deny("sound")


@dataclass(frozen=True)
class NoHook:
    reasons: ClassVar[frozenset[str]] = REASONS


@dataclass(frozen=True)
class UnprovenClient(Sound):
    @hookimpl
    def client_auth_decision(self, client, credentials):
        return allow("sound") if credentials.client_id == client.client_id else None


@dataclass(frozen=True)
class TrustsWhoSendsNothing(Sound):
    @hookimpl
    def client_auth_decision(self, credentials):
        return allow("sound") if credentials.method == "none" else None


@dataclass(frozen=True)
class SignsInWhoeverIsNamed(Sound):
    @hookimpl
    def login_decision(self, user):
        return allow("sound", Identity(username=user.username)) if user else None


@dataclass(frozen=True)
class WidensRegistration(Sound):
    @hookimpl
    def registration_decision(self, metadata):
        return allow("sound", replace(metadata, grant_types=("client_credentials",)))


@dataclass(frozen=True)
class AnotherResource(Sound):
    @hookimpl
    def resource_decision(self):
        return allow("sound", "https://api.example/")


@dataclass(frozen=True)
class MetadataThatIsNoJson(Sound):
    @hookimpl
    def server_metadata(self):
        return {"policies": {self}}


@pytest.fixture
def policy() -> Sound:
    return Sound()


TestByFixture = policy_contract(Sound, examples=30)
TestKept = policy_contract(Keeps(), examples=30)
for kind in (NoDataclass, Thawed, NoHook, *Sound.__subclasses__()):
    globals()[f"Test{kind.__name__}"] = policy_contract(kind())
'''

FOUND_BY = {
    "Raises": "test_it_answers_every_question[scope_decision]",
    "Exits": "test_it_answers_every_question[scope_decision]",
    "Interrupts": "test_it_answers_every_question[scope_decision]",
    "LongReason": "test_it_answers_every_question[scope_decision]",
    "AnswersTrue": "test_it_answers_every_question[scope_decision]",
    "WrongValue": "test_it_answers_every_question[scope_decision]",
    "NarrowsWhereNothingNarrows": "test_it_answers_every_question[consent_decision]",
    "UndeclaredReason": "test_it_answers_every_question[scope_decision]",
    "IllWrittenReason": "test_it_answers_every_question[scope_decision]",
    "WidensScopes": "test_it_never_widens[scope_decision]",
    "WidensRegistration": "test_it_never_widens[registration_decision]",
    "AnotherResource": "test_it_never_widens[resource_decision]",
    "UnprovenClient": "test_it_never_widens[client_auth_decision]",
    "TrustsWhoSendsNothing": "test_it_never_widens[client_auth_decision]",
    "SignsInWhoeverIsNamed": "test_it_never_widens[login_decision]",
    "AllowsAnyPrefix": "test_it_allows_no_hostile_redirect_uri",
    "RandomAnswer": "test_it_answers_the_same_each_time[scope_decision]",
    "MutableMemory": "test_it_answers_the_same_each_time[scope_decision]",
    "Counts": "test_it_answers_the_same_each_time[scope_decision]",
    "WritesIntoTheClient": "test_it_changes_nothing_that_it_is_asked_with[scope_decision]",
    "WritesIntoThePassword": "test_it_changes_nothing_that_it_is_asked_with[login_decision]",
    "Megabytes": "test_it_answers_every_question[scope_decision]",
    "NobodyInParticular": "test_it_answers_every_question[login_decision]",
    "ServesMore": "test_the_server_takes_it",
    "Slow": "test_it_answers_quickly[scope_decision]",
    "NoReasons": "test_it_declares_its_reasons",
    "Unhashable": "test_it_is_a_frozen_hashable_value",
    "Thawed": "test_it_is_a_frozen_hashable_value",
    "NoDataclass": "test_it_is_a_frozen_hashable_value",
    "TryFirst": "test_the_server_takes_it",
    "MisspeltHook": "test_the_server_takes_it",
    "MisspeltArgument": "test_the_server_takes_it",
    "NoHook": "test_the_server_takes_it",
    "MetadataThatIsNoJson": "test_its_metadata_is_json_and_the_same_each_time",
}
# What somebody reads who made the fault: a hint of what to do.
TOLD = {
    "Thawed": "make it @dataclass(frozen=True)",
    "AnswersTrue": "scope_decision answered True",
    "Exits": "it raised SystemExit",
    "Interrupts": "it raised KeyboardInterrupt",
    "LongReason": "bad-reason",
    "UndeclaredReason": "'strange' is not among its `reasons`",
    "WidensScopes": "it allows ['profile'], which nobody asked for",
    "TryFirst": "remove the mark",
    "WritesIntoTheClient": "it changes client; the server gives it copies",
    "WritesIntoThePassword": "it changes password",
    "Megabytes": "more than 65536 characters",
    "NobodyInParticular": "Identity: Expected `str`, got `null`",
    "ServesMore": "`serves` names consent_decision, which it does not implement",
    "MisspeltHook": "known hooks:",
    "Slow": "0.1 s is quick",
    "NoReasons": "declare `reasons: ClassVar[frozenset[str]]`",
}

Results = dict[tuple[str, str], str | None]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """For each policy and test of it: None when it passed, else what pytest said."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "test_faulty.py").write_text(POLICIES)
    (folder / "pytest.ini").write_text("[pytest]\n")
    wanted = [f"Test{policy}::{test}" for policy, test in FOUND_BY.items()]
    tests = [f"test_faulty.py::{test}" for test in (*wanted, "TestByFixture", "TestKept")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--junit-xml=results.xml",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    run = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTEST_ADDOPTS": ""},
    )
    assert run.returncode == 1, run.stdout + run.stderr
    found: Results = {}
    for case in ElementTree.parse(folder / "results.xml").iter("testcase"):
        policy = case.get("classname", "").rpartition(".Test")[2]
        failure = case.find("failure")
        found[policy, case.get("name", "")] = None if failure is None else failure.text or ""
    return found


@pytest.mark.parametrize(("policy", "test"), FOUND_BY.items())
def test_a_fault_is_found_by_the_test_that_names_it(results: Results, policy: str, test: str) -> None:
    """T139, T140, E-15, R-14."""
    said = results[policy, test]
    assert said is not None, f"{policy} passes {test}"
    assert TOLD.get(policy, "") in said


@pytest.mark.parametrize(("name", "count"), [("ByFixture", 9), ("Kept", 8)])
def test_a_sound_policy_passes_everything(results: Results, name: str, count: int) -> None:
    """Given by a fixture, as one that needs a file is; and one that keeps something between its start and its end."""
    sound = {test: said for (policy, test), said in results.items() if policy == name}
    assert len(sound) == count
    assert all(said is None for said in sound.values()), sound


def test_every_faulty_policy_is_listed() -> None:
    """One that nobody looks for would prove nothing."""
    assert {*re.findall(r"^class (\w+)", POLICIES, re.MULTILINE)} == {*FOUND_BY, "Sound", "Keeps"}
