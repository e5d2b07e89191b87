"""Finding, checking and asking plugins, and the rule that combines what they say."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver.api import AuthenticationStep, Decision, Secret, allow, deny, hookimpl, narrow
from authserver.engine.decisions import Ruling, Verdict
from authserver.engine.ports import ContributionFailed
from authserver.ini import Resolved
from authserver.plugins.asking import PluginFailed, PluginSet
from authserver.plugins.loading import load
from authserver.plugins.time_limit import TimeLimit
from authserver.settings import SettingsError
from authserver.testing.questions import a_question

SCOPES = ("profile", "files.read", "files.write")
NO_KEY = Secret("none")


@dataclass(frozen=True)
class Says:
    """Answers every scope question the same; an exception is raised."""

    answer: Any
    number: int = 0

    @hookimpl
    def scope_decision(self) -> Any:
        if isinstance(self.answer, Exception):
            raise type(self.answer)(*self.answer.args)
        return self.answer


def ask(answers: Sequence[Any]) -> Ruling[Any]:
    """What plugins called p0, p1, … with these answers come to."""
    plugins = PluginSet([(f"p{number}", Says(answer, number)) for number, answer in enumerate(answers)])
    return plugins.decide(a_question("scope_decision", requested=SCOPES))


# ---- The combining rule ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "verdict", "reason", "decided_by", "value"),
    [
        ([], Verdict.SILENT, "nobody-answered", "", None),
        ([None, None], Verdict.SILENT, "nobody-answered", "", None),
        ([None, allow("yes", SCOPES)], Verdict.ALLOW, "yes", "p1", SCOPES),
        ([allow("one", ("profile",)), allow("two", SCOPES)], Verdict.ALLOW, "one", "p0", ("profile",)),
        ([deny("no"), allow("yes", SCOPES)], Verdict.DENY, "no", "p0", None),
        ([allow("yes", SCOPES), None, deny("no")], Verdict.DENY, "no", "p2", None),
        ([deny("first"), deny("second")], Verdict.DENY, "first", "p0", None),
        ([narrow("less", ("profile",))], Verdict.SILENT, "nobody-answered", "", None),
        ([narrow("less", ("profile",)), allow("yes", SCOPES)], Verdict.ALLOW, "less", "p0", ("profile",)),
        ([allow("yes", SCOPES), narrow("less", ("profile",))], Verdict.ALLOW, "less", "p1", ("profile",)),
        (
            [narrow("a", SCOPES[:2]), allow("yes", SCOPES), narrow("b", SCOPES[1:])],
            Verdict.ALLOW,
            "a",
            "p0",
            ("files.read",),
        ),
        ([allow("yes", ("profile",)), narrow("wide", SCOPES)], Verdict.ALLOW, "wide", "p1", ("profile",)),
        ([narrow("nothing", ()), deny("no"), allow("yes", SCOPES)], Verdict.DENY, "no", "p1", None),
    ],
)
def test_how_answers_combine(
    answers: list[Any], verdict: Verdict, reason: str, decided_by: str, value: Any
) -> None:
    """E-15, T140: any deny refuses, narrowings intersect, the first allow gives the value, silence refuses."""
    ruling = ask(answers)
    assert (ruling.verdict, ruling.reason, ruling.decided_by, ruling.value) == (
        verdict,
        reason,
        decided_by,
        value,
    )
    assert ruling.allowed == (verdict is Verdict.ALLOW)


subsets = st.lists(st.sampled_from(SCOPES), unique=True).map(tuple)
good_answers = (
    st.none()
    | st.just(deny("no"))
    | subsets.map(lambda scopes: allow("yes", scopes))
    | subsets.map(lambda scopes: narrow("less", scopes))
)
bad_answers = st.sampled_from(
    [
        RuntimeError("broken"),
        True,
        "allow",
        SCOPES,
        Verdict.ALLOW,
        allow("yes", "profile"),
        allow("yes"),
        allow("yes", (1,)),
        narrow("less", "profile"),
        deny("no", "access_denied"),
        allow("Not A Reason", SCOPES),
        allow("", SCOPES),
        Decision("deny", "handmade"),  # what a careless plugin might make by hand
        Decision("allow", "handmade", SCOPES),  # likewise
        Decision(Verdict.DENY, "handmade", SCOPES),
        Decision(Verdict.ALLOW, "handmade", SCOPES, error_code="access_denied"),
        Decision(Verdict.SILENT, "handmade", SCOPES),
        Decision(Verdict.FAILED, "handmade", SCOPES),
    ]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(good_answers, max_size=6))
def test_the_combining_rule_holds_for_all_answers(answers: list[Decision | None]) -> None:
    """E-15, T140: the rule, said once more over any list of answers."""
    given_ones = [answer for answer in answers if answer is not None]
    allows = [answer.value for answer in given_ones if answer.verdict is Verdict.ALLOW]
    narrowings = [answer.value for answer in given_ones if answer.verdict is Verdict.NARROW]
    ruling = ask(answers)
    if any(answer.verdict is Verdict.DENY for answer in given_ones):
        assert (ruling.verdict, ruling.value) == (Verdict.DENY, None)
    elif not allows:
        assert (ruling.verdict, ruling.value) == (Verdict.SILENT, None)
    else:
        expected = tuple(s for s in allows[0] if all(s in narrowing for narrowing in narrowings))
        assert (ruling.verdict, ruling.value) == (Verdict.ALLOW, expected)
    assert [answer.plugin for answer in ruling.answers] == [f"p{n}" for n in range(len(answers))]


@settings(deadline=None, max_examples=60)
@given(st.lists(good_answers, max_size=5).flatmap(lambda a: st.tuples(st.just(a), st.permutations(a))))
def test_order_never_turns_a_refusal_into_a_grant(pair: tuple[list[Any], list[Any]]) -> None:
    """T140: any deny wins whatever its place."""
    answers, shuffled = pair
    assert ask(answers).verdict is ask(shuffled).verdict


@settings(deadline=None, max_examples=60)
@given(st.lists(good_answers, max_size=4), bad_answers, st.integers(0, 4))
def test_a_faulty_answer_fails_the_whole_question(answers: list[Any], fault: Any, place: int) -> None:
    """R-14, T140: only an explicit allow object with the right value allows; a fault anywhere refuses."""
    answers.insert(place, fault)
    ruling = ask(answers)
    assert (ruling.verdict, ruling.value, ruling.allowed) == (Verdict.FAILED, None, False)
    assert ruling.decided_by == f"p{answers.index(fault)}"


@pytest.mark.parametrize("fault", [RuntimeError("broken"), True, allow("yes", object())])
def test_a_fault_is_logged_with_the_name_of_the_plugin(fault: Any, caplog: pytest.LogCaptureFixture) -> None:
    """R-14: an operator reads which plugin failed where."""
    ask([allow("yes", SCOPES), fault])
    assert "plugin p1" in caplog.text
    assert "scope_decision" in caplog.text


def test_every_answer_is_recorded_once() -> None:
    """R-04: hook, facts, outcome, and of each plugin verdict and reason."""
    plugins = PluginSet(
        [
            (f"p{n}", Says(answer, n))
            for n, answer in enumerate([None, narrow("less", ("profile",)), allow("yes", SCOPES)])
        ]
    )
    record = plugins.decide(a_question("scope_decision", requested=SCOPES, resources=())).as_record()
    assert record["facts"] == {
        "client_id": "reports",
        "user_id": "user_ada",
        "groups": [],
        "attributes": {},
        "grant_type": "authorization_code",
        "requested": list(SCOPES),
        "resources": [],
    }
    assert (record["verdict"], record["outcome"], record["decided_by"]) == ("allow", ["profile"], "p1")
    assert [(a["plugin"], a["verdict"], a["reason"]) for a in record["answers"]] == [
        ("p0", "silent", ""),
        ("p1", "narrow", "less"),
        ("p2", "allow", "yes"),
    ]
    assert all(answer["microseconds"] >= 0 for answer in record["answers"])


def test_a_narrowing_is_no_answer_where_there_is_nothing_to_narrow() -> None:
    """T140: `narrow` at a hook without a list of values is a fault, not an allow."""

    @dataclass(frozen=True)
    class Narrows:
        @hookimpl
        def redirect_uri_decision(self) -> Decision:
            return narrow("less", ("https://client.example/cb",))

    ruling = PluginSet([("narrows", Narrows())]).decide(a_question("redirect_uri_decision"))
    assert ruling.failed


@dataclass(frozen=True)
class TakesTheQuestion:
    """Takes the whole question beside one of its fields, and changes it."""

    @hookimpl
    def scope_decision(self, question: Any, requested: tuple[str, ...]) -> Decision[tuple[str, ...]]:
        assert question.requested == requested
        reason = question.hook.replace("_", "-")
        object.__setattr__(question, "requested", ("admin",))
        return allow(reason, requested)


@dataclass(frozen=True)
class AllowsWhatWasRequested:
    @hookimpl
    def scope_decision(self, requested: tuple[str, ...]) -> Decision[tuple[str, ...]]:
        return narrow("as-requested", requested)


def test_a_plugin_may_take_the_whole_question_and_changes_it_for_nobody_else() -> None:
    """T140: neither what the next plugin is asked, nor what is recorded."""
    plugins = PluginSet([("first", TakesTheQuestion()), ("second", AllowsWhatWasRequested())])
    ruling = plugins.decide(a_question("scope_decision", requested=SCOPES))
    assert ruling.answers[0].reason == "scope-decision"
    assert ruling.allowed_value == SCOPES
    assert ruling.as_record()["facts"]["requested"] == list(SCOPES)


def test_a_ruling_that_allows_nothing_has_no_value() -> None:
    with pytest.raises(ValueError, match="scope_decision was not allowed"):
        ask([deny("no")]).allowed_value  # noqa: B018  # reading it is the test


def test_the_code_of_the_first_deny_goes_to_the_client() -> None:
    """E-15: any deny refuses, whatever is allowed before it; the reason and the code are of the same plugin."""

    @dataclass(frozen=True)
    class Says:
        decision: Decision[AuthenticationStep]

        @hookimpl
        def authentication_decision(self) -> Decision[AuthenticationStep]:
            return self.decision

    said = (
        allow("fine", AuthenticationStep.GO_ON),
        deny("first", "login_required"),
        deny("second", "consent_required"),
    )
    plugins = PluginSet([(f"p{number}", Says(decision)) for number, decision in enumerate(said)])
    ruling = plugins.decide(a_question("authentication_decision"))
    assert (ruling.verdict, ruling.reason, ruling.decided_by) == (Verdict.DENY, "first", "p1")
    assert ruling.error_code == "login_required"


# ---- What a plugin must be -------------------------------------------------------------------------


@dataclass
class Thawed:
    """Not frozen."""


class Plain:
    """No dataclass."""


@dataclass(frozen=True)
class HoldsAList:
    items: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class JumpsTheQueue:
    @hookimpl(tryfirst=True)
    def scope_decision(self) -> None: ...


@dataclass(frozen=True)
class StepsBack:
    @hookimpl(trylast=True)
    def scope_decision(self) -> None: ...


@dataclass(frozen=True)
class Wraps:
    @hookimpl(wrapper=True)
    def scope_decision(self) -> Any:
        return (yield)


@dataclass(frozen=True)
class WrapsTheOldWay:
    @hookimpl(hookwrapper=True)
    def scope_decision(self) -> Any:
        yield


@dataclass(frozen=True)
class MisspeltHook:
    @hookimpl
    def scope_desicion(self) -> None: ...


@dataclass(frozen=True)
class UnknownArgument:
    @hookimpl
    def scope_decision(self, klient: object) -> None: ...


@dataclass(frozen=True)
class QuietHours:
    """A plugin with settings of every kind."""

    timezone: str
    hours: tuple[str, ...] = ()
    strict: bool = False
    grace: int = 0
    key: Secret = NO_KEY

    def __post_init__(self) -> None:
        if self.grace > 60:
            raise ValueError("grace: at most 60")

    @hookimpl
    def scope_decision(self) -> Decision:
        return deny("quiet-hours")


def problems_of(*specifications: str, production: bool = False, **texts: dict[str, str]) -> list[str]:
    """Why these plugins cannot be loaded."""
    with pytest.raises(SettingsError) as raised:
        load_with(*specifications, production=production, **texts)
    return list(raised.value.problems)


def load_with(
    *specifications: str, production: bool = False, inline: bool = True, **texts: dict[str, str]
) -> tuple[PluginSet, list[str]]:
    raw = {
        name: {key: Resolved(text, inline) for key, text in values.items()} for name, values in texts.items()
    }
    return load(specifications, raw, production=production)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Thawed", ["not a frozen dataclass"]),
        ("Plain", ["not a frozen dataclass"]),
        ("HoldsAList", ["holds_alist", "not hashable"]),
        (
            "JumpsTheQueue",
            ["jumps_the_queue", "scope_decision", "tryfirst", "the order of authserver.plugins"],
        ),
        ("StepsBack", ["steps_back", "trylast"]),
        ("Wraps", ["wraps", "wrapper"]),
        ("WrapsTheOldWay", ["wraps_the_old_way", "wrapper"]),
        ("MisspeltHook", ["misspelt_hook", "no hook scope_desicion; did you mean scope_decision"]),
        ("UnknownArgument", ["unknown_argument", "klient", "did you mean client"]),
        ("JumpsTheQeue", [f"{__name__}:JumpsTheQeue: ", f"did you mean {__name__}:JumpsTheQueue"]),
    ],
)
def test_a_plugin_that_is_none_stops_the_start(kind: str, words: list[str]) -> None:
    """T140, T142: what a plugin must be is checked at start, and the plugin is named."""
    problems = problems_of(f"{__name__}:{kind}")
    assert all(word in " ".join(problems) for word in words), problems


def test_a_misspelt_plugin_is_named_with_its_nearest_names() -> None:
    """T142: a misspelt plugin stops the start, with the key, the name and what was meant."""
    (problem,) = problems_of("redirect_exct")
    assert problem.startswith("authserver.plugins: redirect_exct: no such plugin; did you mean ")
    assert "redirect_exact" in problem


def test_an_unknown_plugin_is_not_answered_with_all_names() -> None:
    """T142: nothing is near, so the nearest are named and the number of all."""
    (problem,) = problems_of("zzz")
    assert re.search(r"no such plugin; the nearest of \d\d known: \w+, \w+, \w+$", problem)


def test_a_module_that_does_not_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T142: an import error is a problem of one line, and the other problems are named as well."""
    (tmp_path / "broken_policies.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    problems = problems_of("broken_policies:Some", "redirect_exct")
    assert problems[0].startswith(
        "authserver.plugins: broken_policies:Some cannot be imported: it needs the module nothing_of_that_name"
    )
    assert len(problems) == 2


@pytest.mark.parametrize(
    "specifications",
    [
        ("redirect_exact", "redirect_exact"),
        ("redirect_exact", "authserver.policies.redirect_uris:RedirectExact"),
    ],
)
def test_a_plugin_is_listed_once(specifications: tuple[str, str]) -> None:
    """T142: two lines of one name would leave open whose settings count."""
    (problem,) = problems_of(*specifications)
    assert "both called redirect_exact" in problem


def test_an_unknown_setting_names_the_key_and_the_known_ones() -> None:
    """T142: `host` for `hosts`."""
    (problem,) = problems_of("redirect_loopback", redirect_loopback={"host": "localhost"})
    assert problem.startswith("authserver.plugin.redirect_loopback.host: no such setting;")
    assert "authserver.plugin.redirect_loopback.hosts" in problem


def test_a_setting_of_a_plugin_without_settings_is_refused() -> None:
    """T142: nothing in the INI is silently ignored."""
    (problem,) = problems_of("redirect_exact", redirect_exact={"strict": "true"})
    assert problem.startswith("authserver.plugin.redirect_exact.strict: no such setting")


def test_settings_of_a_plugin_that_is_not_listed_are_refused() -> None:
    """T142: the line of a plugin went, its settings stayed."""
    (problem,) = problems_of("redirect_exact", redirect_loopback={"hosts": "localhost"})
    assert problem == (
        "authserver.plugin.redirect_loopback: no such plugin is listed in authserver.plugins; "
        "list redirect_loopback there, or remove its settings"
    )


def test_a_plugin_without_its_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the driver of PostgreSQL and that of Redis do."""
    monkeypatch.delitem(sys.modules, "authserver.features.metrics", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    (problem,) = problems_of("metrics")
    assert problem.startswith(
        "authserver.plugins: metrics cannot be imported: it needs the module prometheus_client, which is not installed"
    )
    assert problem.endswith("; install it: pip install 'authserver[metrics]'")


def test_settings_of_a_plugin_whose_name_is_misspelt_name_the_nearest_that_is_listed() -> None:
    (problem,) = problems_of("redirect_loopback", redirect_lopback={"hosts": "localhost"})
    assert problem.startswith(
        "authserver.plugin.redirect_lopback: no such plugin is listed in authserver.plugins; "
    )
    assert problem.endswith("did you mean authserver.plugin.redirect_loopback")


@pytest.mark.parametrize(
    ("texts", "key"),
    [
        ({}, "authserver.plugin.quiet_hours.timezone: missing"),
        ({"timezone": "x", "grace": "soon"}, "authserver.plugin.quiet_hours.grace: "),
        ({"timezone": "x", "strict": "maybe"}, "authserver.plugin.quiet_hours.strict: "),
        ({"timezone": "x", "key": ""}, "authserver.plugin.quiet_hours.key: "),
        ({"timezone": "x", "grace": "61"}, "authserver.plugin.quiet_hours: grace: at most 60"),
    ],
)
def test_a_bad_setting_of_a_plugin_names_its_key(texts: dict[str, str], key: str) -> None:
    """T142: missing, of the wrong type, or refused by the plugin itself."""
    (problem,) = problems_of(f"{__name__}:QuietHours", quiet_hours=texts)
    assert problem.startswith(key)


def test_the_fields_of_a_plugin_are_its_settings() -> None:
    """Texts of the INI become the types of the fields; `module:Class` is called by its class."""
    plugins, insecure = load_with(
        f"{__name__}:QuietHours",
        quiet_hours={"timezone": "Europe/Oslo", "hours": "22 23", "strict": "true", "grace": "5"},
    )
    assert plugins.plugin("quiet_hours") == QuietHours("Europe/Oslo", ("22", "23"), True, 5)
    assert insecure == []


def test_an_inline_secret_of_a_plugin_is_announced_and_in_production_refused() -> None:
    """T142, R-04: a secret stands outside of the INI; the value itself is never repeated."""
    texts = {"timezone": "x", "key": "canary-of-a-secret"}
    _, insecure = load_with(f"{__name__}:QuietHours", quiet_hours=texts)
    (refused,) = problems_of(f"{__name__}:QuietHours", production=True, quiet_hours=texts)
    for line in (*insecure, refused):
        assert line.startswith("authserver.plugin.quiet_hours.key: a secret is in the INI file")
        assert "canary" not in line
    assert load_with(f"{__name__}:QuietHours", production=True, inline=False, quiet_hours=texts)[1] == []


def test_the_playground_is_announced_and_in_production_refused() -> None:
    """T142: a development page never runs in production."""
    assert load_with("playground")[1] == [
        "authserver.plugins: playground is for development; remove the line"
    ]
    (refused,) = problems_of("playground", production=True)
    assert refused.endswith("remove the line (refused in production)")


# ---- Only what is listed, in the order listed ------------------------------------------------------


def test_only_what_is_listed_is_loaded() -> None:
    """T140: installing a package never changes a policy."""
    plugins, _ = load_with()
    assert all(row["plugins"] == [] for row in plugins.table())
    assert plugins.decide(a_question("redirect_uri_decision")).verdict is Verdict.SILENT


def test_plugins_are_asked_in_the_order_of_the_list() -> None:
    """T140: whoever stands first is asked first, in every order."""
    for names in (["redirect_exact", "redirect_loopback"], ["redirect_loopback", "redirect_exact"]):
        plugins, _ = load_with(*names)
        (row,) = [row for row in plugins.table() if row["hook"] == "redirect_uri_decision"]
        assert row["plugins"] == names


def test_the_table_says_what_silence_means() -> None:
    """E-15: for sign-in and consent silence asks, without a limit nobody is held up, everywhere else it refuses."""
    silence = {row["hook"]: row["silence"] for row in PluginSet([]).table() if row["kind"] == "deciding"}
    assert silence.pop("consent_decision") == "the user is asked"
    assert silence.pop("authentication_decision") == "a user who is not signed in must sign in"
    assert silence.pop("rate_decision") == "there is no limit"
    assert all("refused" in text or "closed" in text for text in silence.values())


@pytest.mark.parametrize("added", [["a", "list"], "text", RuntimeError("broken")])
def test_a_contribution_of_the_wrong_kind_names_its_plugin(added: Any) -> None:
    """R-14: a contributing plugin that fails stops the start by name."""

    @dataclass(frozen=True)
    class Contributes:
        @hookimpl
        def server_metadata(self) -> Any:
            if isinstance(added, Exception):
                raise added
            return added

    with pytest.raises(PluginFailed, match="plugin contributes failed in server_metadata"):
        PluginSet([("contributes", Contributes())]).contribute("server_metadata")


def test_loading_writes_nothing_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """R-04: settings are read without a word, whatever the level."""
    caplog.set_level(logging.DEBUG)
    load_with(f"{__name__}:QuietHours", quiet_hours={"timezone": "x", "key": "canary"})
    assert "canary" not in caplog.text


# ---- The time limit -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hangs:
    """Answers when a test is over."""

    @hookimpl
    def redirect_uri_decision(self) -> Decision:
        OVER.wait(20)
        return allow("too-late")


OVER = threading.Event()


def test_a_plugin_that_hangs_has_refused() -> None:
    """R-14, T140: in time, and so do all others once every thread is held."""
    plugins = PluginSet([("hangs", Hangs())], time_limit=0.05)
    OVER.clear()
    try:
        begun = time.monotonic()
        rulings = [plugins.decide(a_question("redirect_uri_decision")) for _ in range(34)]
        assert time.monotonic() - begun < 10
        assert all(ruling.failed and ruling.reason == "plugin-too-slow" for ruling in rulings)
    finally:
        OVER.set()


def test_an_immediate_plugin_is_asked_in_the_callers_thread() -> None:
    """It costs no thread: asking must be nearly free."""

    @dataclass(frozen=True)
    class Here:
        immediate: ClassVar[bool] = True

        @hookimpl
        def redirect_uri_decision(self) -> Decision:
            return allow(f"thread-{threading.get_ident()}")

    ruling = PluginSet([("here", Here())]).decide(a_question("redirect_uri_decision"))
    assert ruling.reason == f"thread-{threading.get_ident()}"


def test_a_plugin_that_hangs_does_not_keep_the_process_from_ending() -> None:
    """R-14: a server that is told to stop, stops."""
    program = """
import threading
from authserver.plugins.time_limit import TimeLimit, TooSlow
try:
    TimeLimit(0.05).call(threading.Event().wait)
except TooSlow:
    print("refused")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert ended.stdout == "refused\n"


def test_a_thread_makes_one_call_after_the_other_and_ends_when_none_comes() -> None:
    limit = TimeLimit(5, idle=0.05)
    first, second = limit.call(threading.current_thread), limit.call(threading.current_thread)
    assert first is second
    first.join(5)
    assert not first.is_alive()
    assert limit.call(threading.current_thread) is not first


def test_a_call_sees_what_its_caller_follows() -> None:
    """The context is that of this call, not of the first one of its thread (`engine.timeline`)."""
    limit, variable = TimeLimit(5), ContextVar("variable", default="")
    for value in ("first", "second"):
        variable.set(value)
        assert limit.call(variable.get) == value


def test_a_process_that_is_forked_off_has_threads_of_its_own() -> None:
    program = """
import os
from authserver.plugins.time_limit import TimeLimit
limit = TimeLimit(5)
limit.call(int)
if not os.fork():
    print(limit.call(int, "7"), flush=True)
    os._exit(0)
os.wait()
"""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert ended.stdout == "7\n"


@dataclass(frozen=True)
class Waits:
    """Takes so long for its answer."""

    seconds: float = 0.3

    @hookimpl
    def expand_authorization_request(self, engine: Any, parameters: Any) -> None:
        time.sleep(self.seconds)


@dataclass(frozen=True)
class WaitsWithoutEngine(Waits):
    @hookimpl
    def expand_authorization_request(self, parameters: Any) -> None:
        time.sleep(self.seconds)


def test_a_plugin_that_can_fetch_has_the_time_of_a_fetch_besides() -> None:
    """T126, T140: it is not cut off while it waits for a document; one that cannot fetch is."""

    def ask(plugin: Waits, fetching: float) -> object:
        plugins = PluginSet([("waits", plugin)], time_limit=0.05, fetching=fetching)
        return plugins.contribute("expand_authorization_request", engine=None, parameters=None)

    assert ask(Waits(), 10) == []
    for plugin, fetching in ((Waits(), 0.0), (WaitsWithoutEngine(), 10.0)):
        with pytest.raises(ContributionFailed, match="no answer within"):
            ask(plugin, fetching)
