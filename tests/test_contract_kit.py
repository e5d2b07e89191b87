"""The contract kit finds faults: each deliberately faulty policy fails the test that names its fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from authserver.testing.contract import policy_contract

CHECKOUT = Path(__file__).parent.parent
POLICIES = '''
from __future__ import annotations

import functools
import os
import random
import secrets
import socket
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest

from authserver.api import Identity, InvalidScope, allow, deny, hookimpl, narrow
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


@dataclass(frozen=True)
class KeepsInItsClass(Sound):
    """The first scopes that a client asks for count for ever, and for every server of the process."""

    first: ClassVar[dict] = {}

    @hookimpl
    def scope_decision(self, client, requested):
        return narrow("sound", self.first.setdefault(client.client_id, requested))


@dataclass(frozen=True)
class KeepsInADefault(Sound):
    @hookimpl
    def scope_decision(self, client):
        self.note(client)

    def note(self, client, seen=[]):  # noqa: B006 - it is the fault that the contract must find
        if client.client_id not in seen:
            seen.append(client.client_id)


@functools.cache
def answer_for(client_id, *scopes):
    return narrow("sound", scopes)


@dataclass(frozen=True)
class CachesByTooLittle(Sound):
    """What is asked for does not count in the key."""

    @functools.lru_cache
    def answer(self, client_id):
        return narrow("sound", self.asked)

    @hookimpl
    def scope_decision(self, client, requested):
        object.__setattr__(self, "asked", requested)
        return self.answer(client.client_id)


@dataclass(frozen=True)
class CachesByEnough(Sound):
    """Nothing is wrong with this one, which logs and measures, and keeps what depends on its arguments alone."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def scope_decision(self, client, requested):
        begun = time.perf_counter()
        secrets.token_bytes(8)
        return answer_for(client.client_id, *requested) if time.perf_counter() >= begun else None


@dataclass(frozen=True)
class AfterHours(Sound):
    """Until some evening, every test of it passes."""

    @hookimpl
    def scope_decision(self):
        return deny("sound") if datetime.now(UTC).year > 3000 else None


@dataclass(frozen=True)
class OnThisMachine(Sound):
    @hookimpl
    def scope_decision(self):
        return deny("sound") if os.environ.get("RELEASE_FREEZE") else None


@dataclass(frozen=True)
class ReadsEachTime(Sound):
    @hookimpl
    def scope_decision(self):
        return deny("sound") if b"freeze" in Path(os.devnull).read_bytes() else None


@dataclass(frozen=True)
class OneInAMillion(Sound):
    @hookimpl
    def scope_decision(self):
        return deny("sound") if secrets.randbelow(10**6) == 7 else None


@dataclass(frozen=True)
class WritesIntoTheQuestion(Sound):
    @hookimpl
    def scope_decision(self, question):
        object.__setattr__(question, "requested", ())


@dataclass(frozen=True)
class HugeClaims(Sound):
    claims: ClassVar[frozenset[str]] = frozenset({"groups"})

    @hookimpl
    def token_claims(self, client):
        return {"groups": ["all staff of the northern department"] * 1000}


@dataclass(frozen=True)
class ClaimsInThemselves(Sound):
    claims: ClassVar[frozenset[str]] = frozenset({"groups"})

    @hookimpl
    def token_claims(self):
        groups = []
        groups.append(groups)
        return {"groups": groups}


@dataclass(frozen=True)
class ClaimsOfNobody(Sound):
    claims: ClassVar[frozenset[str]] = frozenset({"email"})

    @hookimpl
    def token_claims(self, user):
        return {"email": user.username}  # user may be None


@dataclass(frozen=True)
class AsksItself(Sound):
    @hookimpl
    def scope_decision(self, requested):
        return self.scope_decision(requested)


@dataclass(frozen=True)
class ChangesTheProcess(Sound):
    @hookimpl
    def scope_decision(self):
        socket.setdefaulttimeout(1)


@dataclass(frozen=True)
class MendsTheServer(Sound):
    @hookimpl
    def scope_decision(self):
        from authserver.engine import pkce

        pkce.verify = lambda *arguments: True


@dataclass(frozen=True)
class StartsAThread(Sound):
    @hookimpl
    def scope_decision(self):
        threading.Thread(target=threading.Event().wait, daemon=True).start()


@dataclass(frozen=True)
class AsksTheNetworkAtOnce(Sound):
    immediate: ClassVar[bool] = True

    @hookimpl
    def scope_decision(self):
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=0.01).close()
        except OSError:
            return None


class Odd(BaseException):
    pass


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


@dataclass(frozen=True)
class RaisesAnOddBase(Sound):
    @hookimpl
    def scope_decision(self):
        raise Odd("directory away")


@dataclass(frozen=True)
class RaisesAGroup(Sound):
    @hookimpl
    def scope_decision(self):
        raise BaseExceptionGroup("two went wrong", [KeyboardInterrupt(), ValueError("x")])


@dataclass(frozen=True)
class RaisesTheUnspeakable(Sound):
    @hookimpl
    def scope_decision(self):
        raise Unspeakable


@dataclass(frozen=True)
class RaisesARefusal(Sound):
    @hookimpl
    def scope_decision(self):
        raise InvalidScope("Not now.", reason="sound")


@dataclass(frozen=True)
class NotMarked:
    """Written for a framework that finds methods by their names."""

    reasons: ClassVar[frozenset[str]] = REASONS

    def scope_decision(self, client):
        return deny("sound")

    @hookimpl
    def observe(self, event):
        pass


@dataclass(frozen=True)
class OldAnswer(Sound):
    @hookimpl
    def scope_decision(self, requested):
        return narrow("sound", list(requested))


@dataclass(frozen=True)
class Asynchronous(Sound):
    @hookimpl
    async def scope_decision(self, requested):
        return deny("sound")


@pytest.fixture
def policy() -> Sound:
    return Sound()


TestByFixture = policy_contract(Sound, examples=30)
TestKept = policy_contract(Keeps(), examples=30)
TestAfterHoursOnPurpose = policy_contract(AfterHours(), examples=30, reads=("clock",))
TestCached = policy_contract(CachesByEnough(), examples=30)
for kind in (NoDataclass, Thawed, NoHook, NotMarked, *Sound.__subclasses__()):
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
    "KeepsInItsClass": "test_it_changes_nothing_of_the_process[scope_decision]",
    "KeepsInADefault": "test_it_changes_nothing_of_the_process[scope_decision]",
    "CachesByTooLittle": "test_it_answers_the_same_each_time[scope_decision]",
    "AfterHours": "test_it_decides_by_the_question_alone[scope_decision]",
    "OnThisMachine": "test_it_decides_by_the_question_alone[scope_decision]",
    "ReadsEachTime": "test_it_decides_by_the_question_alone[scope_decision]",
    "OneInAMillion": "test_it_decides_by_the_question_alone[scope_decision]",
    "WritesIntoTheQuestion": "test_it_changes_nothing_that_it_is_asked_with[scope_decision]",
    "HugeClaims": "test_what_it_adds_can_be_added[token_claims]",
    "ClaimsInThemselves": "test_what_it_adds_can_be_added[token_claims]",
    "ClaimsOfNobody": "test_what_it_adds_can_be_added[token_claims]",
    "AsksItself": "test_it_answers_every_question[scope_decision]",
    "ChangesTheProcess": "test_it_changes_nothing_of_the_process[scope_decision]",
    "MendsTheServer": "test_it_changes_nothing_of_the_process[scope_decision]",
    "StartsAThread": "test_it_changes_nothing_of_the_process[scope_decision]",
    "AsksTheNetworkAtOnce": "test_it_waits_for_nothing[scope_decision]",
    "RaisesAnOddBase": "test_it_answers_every_question[scope_decision]",
    "RaisesAGroup": "test_it_answers_every_question[scope_decision]",
    "RaisesTheUnspeakable": "test_it_answers_every_question[scope_decision]",
    "RaisesARefusal": "test_it_answers_every_question[scope_decision]",
    "NotMarked": "test_the_server_takes_it",
    "OldAnswer": "test_it_answers_every_question[scope_decision]",
    "Asynchronous": "test_the_server_takes_it",
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
    "MisspeltHook": "there is no hook scopes_decision; did you mean scope_decision",
    "MisspeltArgument": "scope_decision takes `clients`, an argument that this hook does not have; did you mean client",
    "Raises": "'NoneType' object has no attribute 'groups' (test_faulty.py, line ",
    "WrongValue": "the value of its allow() is a str; it must be tuple[str, ...]",
    "NarrowsWhereNothingNarrows": "this hook does not take narrow(); return allow(), deny() or None",
    "IllWrittenReason": "small letters, digits and hyphens",
    "RandomAnswer": "it answered the same question in two ways",
    "KeepsInItsClass": "has changed KeepsInItsClass.first, which other code uses too; a policy that keeps",
    "KeepsInADefault": "has changed the default of KeepsInADefault.note",
    "CachesByTooLittle": "a cache keeps the answer to another question (CachesByTooLittle.answer",
    "AfterHours": "it reads the clock (datetime.now) (test_faulty.py, line ",
    "OnThisMachine": "it reads the environment variable RELEASE_FREEZE (test_faulty.py, line ",
    "ReadsEachTime": "it opens the file null (test_faulty.py, line ",
    "OneInAMillion": "it draws a random number (test_faulty.py, line ",
    "WritesIntoTheQuestion": "it changes requested, question; the server gives it copies",
    "HugeClaims": "it is longer than 16384 bytes of JSON",
    "ClaimsInThemselves": "nested too deeply, or it contains itself",
    "ClaimsOfNobody": "has no attribute 'username' (test_faulty.py, line ",
    "AsksItself": "it raised RecursionError: maximum recursion depth exceeded",
    "ChangesTheProcess": "has changed the default timeout of sockets",
    "MendsTheServer": "has changed authserver.engine.pkce.verify",
    "StartsAThread": "it starts a thread (test_faulty.py, line ",
    "AsksTheNetworkAtOnce": "but `immediate` is true, so the server sets no time limit; remove `immediate`",
    "RaisesAnOddBase": "it raised Odd: directory away (test_faulty.py, line ",
    "RaisesAGroup": "[KeyboardInterrupt, ValueError] (test_faulty.py, line ",
    "RaisesTheUnspeakable": "it raised Unspeakable (test_faulty.py, line ",
    "RaisesARefusal": "a policy refuses by returning deny(reason)",
    "NotMarked": "write @hookimpl of authserver.api above it",
    "OldAnswer": "the value of its narrow() is a list; it must be tuple[str, ...]",
    "Asynchronous": "scope_decision is `async`, and the server does not await it; write `def`",
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
    tests = [
        f"test_faulty.py::{test}"
        for test in (*wanted, "TestByFixture", "TestKept", "TestCached", "TestAfterHoursOnPurpose")
    ]
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


@pytest.mark.parametrize(
    ("name", "count"), [("ByFixture", 11), ("Kept", 10), ("Cached", 12), ("AfterHoursOnPurpose", 11)]
)
def test_a_sound_policy_passes_everything(results: Results, name: str, count: int) -> None:
    """Given by a fixture, as one that needs a file is; and one that keeps something between its start and its end."""
    sound = {test: said for (policy, test), said in results.items() if policy == name}
    assert len(sound) == count
    assert all(said is None for said in sound.values()), sound


def test_what_a_policy_reads_on_purpose_has_a_name() -> None:
    with pytest.raises(KeyError, match="clocks"):
        policy_contract(object, reads=("clocks",))


def test_every_faulty_policy_is_listed() -> None:
    """One that nobody looks for would prove nothing."""
    assert {*re.findall(r"^class (\w+)", POLICIES, re.MULTILINE)} == {
        *FOUND_BY,
        "Sound",
        "Keeps",
        "CachesByEnough",
        "Odd",
        "Unspeakable",
    }
