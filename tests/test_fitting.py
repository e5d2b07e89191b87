"""Plugins that do not fit their hooks stop the start, with a sentence that mends them; wrong answers say so in the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import pluggy
import pytest

from authserver.api import Decision, Identity, InvalidScope, allow, deny, hookimpl, narrow
from authserver.engine.decisions import Verdict
from authserver.ini import Resolved
from authserver.plugins.asking import PluginFailed, PluginSet
from authserver.plugins.loading import load
from authserver.settings import SettingsError
from authserver.testing.questions import a_question
from authserver.testing.records import a_client, a_user

of_another = pluggy.HookimplMarker("another")


def plugin_with(**members: Any) -> object:
    """A plugin whose class has these methods and declarations."""
    return dataclass(frozen=True)(type("Plugin", (), {"__module__": __name__, **members}))()


def problems_of(plugin: object) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        PluginSet([("quiet", plugin)])
    return list(raised.value.problems)


def unmarked(self: object, client: object) -> None: ...


@of_another
def marked_for_another(self: object, client: object) -> None: ...


@hookimpl
async def asynchronous(self: object, client: object) -> None: ...


@hookimpl
def generator(self: object, client: object) -> Any:
    yield deny("no")


@hookimpl
def by_position(self: object, *arguments: object) -> None: ...


@hookimpl
def of_an_older_version(self: object, client: object, scope: object) -> None: ...


@hookimpl
def of_no_arguments(self: object, client: object) -> None: ...


@hookimpl(optionalhook=True)
def optional(self: object) -> None: ...


@hookimpl(specname="scope_decision")
def under_another_name(self: object) -> None: ...


class Unreadable:
    def __get__(self, plugin: object, kind: type) -> object:
        raise KeyError("team")


@pytest.mark.parametrize(
    ("members", "mended"),
    [
        ({"scope_decision": unmarked}, "scope_decision has the name of a hook and is not marked"),
        ({"scope_decision": marked_for_another}, "write @hookimpl of authserver.api above it"),
        ({"scope_decision": staticmethod(unmarked)}, "is not marked"),
        ({"scope_decision": asynchronous}, "scope_decision is `async`"),
        ({"scope_decision": generator}, "write `return`"),
        ({"scope_decision": by_position}, "takes *arguments, which gets nothing"),
        ({"scope_decision": of_an_older_version}, "takes `scope`, an argument that this hook does not have"),
        (
            {"scopes": of_no_arguments},
            "takes `client`, an argument that this hook does not have; it has none",
        ),
        ({"scopes_decision": of_no_arguments}, "there is no hook scopes_decision; did you mean"),
        ({"scope_policy": optional}, "remove `optionalhook`"),
        ({"scope_policy": under_another_name}, "name the method scope_decision"),
        ({"serves": "scope_decision"}, "`serves` is one text, whose letters would be taken for names"),
        ({"reasons": "no"}, "write ('no',)"),
        ({"claims": "tenant"}, "`claims` is one text"),
        ({"claims": 7}, "`claims` is a int; make it a tuple or a set of names"),
        ({"reasons": Unreadable()}, "`reasons` cannot be read: KeyError: 'team' (test_fitting.py, line "),
    ],
)
def test_a_plugin_that_does_not_fit_is_refused_with_what_mends_it(
    members: dict[str, Any], mended: str
) -> None:
    """T140: each of these was ignored, or failed in every request."""
    (problem,) = problems_of(plugin_with(**members))
    assert problem.startswith("plugin quiet: ") and mended in problem


def test_every_misfit_of_every_plugin_is_named() -> None:
    plugins = [(name, plugin_with(scope_decision=unmarked, observe=asynchronous)) for name in ("one", "two")]
    with pytest.raises(SettingsError) as raised:
        PluginSet(plugins)
    assert [problem.partition(":")[0] for problem in raised.value.problems] == [
        "plugin one",
        "plugin one",
        "plugin two",
        "plugin two",
    ]


def test_what_has_the_name_of_a_hook_and_is_no_method_is_no_misfit() -> None:
    """A setting may be called `scopes`."""
    assert PluginSet([("quiet", plugin_with(scopes=("read",), client_metadata=3))]).serves("scopes") is False


def keyword_only(self: object, *, requested: Any, client: Any) -> Decision[Any]:
    return narrow("asked", (client.client_id, *requested))


def position_only(self: object, requested: Any, client: Any, /) -> Decision[Any]:
    return narrow("asked", (client.client_id, *requested))


def with_the_rest(self: object, requested: Any, **others: Any) -> Decision[Any]:
    assert set(others) == {"client", "user", "grant_type", "resources", "registered"}
    return narrow("asked", (others["client"].client_id, *requested))


def with_defaults(self: object, client: Any = None, clock: Any = "own", requested: Any = ()) -> Decision[Any]:
    assert clock == "own"
    return narrow("asked", (client.client_id, *requested))


def with_the_question(self: object, question: Any) -> Decision[Any]:
    return narrow("asked", (question.client.client_id, *question.requested))


@pytest.mark.parametrize(
    "method", [keyword_only, position_only, with_the_rest, with_defaults, with_the_question]
)
def test_arguments_are_given_by_their_names_in_whatever_form_they_are_taken(method: Any) -> None:
    """A default counts only for what the hook does not have; `**others` gets what is not named."""
    plugin = plugin_with(scope_decision=hookimpl(method))
    asked = a_question("scope_decision", requested=("read",))
    for immediate in (True, False):
        policies = PluginSet(
            [("quiet", plugin_with(scope_decision=hookimpl(method), immediate=immediate))], time_limit=10
        )
        (answer,) = policies.ask_all(asked)
        assert (answer.verdict, answer.value) == (Verdict.NARROW, (asked.client.client_id, "read"))
    assert plugin is not None


class Odd(BaseException): ...


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Endless(dict[str, Any]):
    def items(self) -> Any:
        while True:
            yield str(len(self)), "more"


def nested() -> Any:
    value: Any = ()
    for _ in range(5000):
        value = (value,)
    return value


def raising(error: BaseException) -> Any:
    def answer() -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    ("hook", "answer", "reason", "mended"),
    [
        (
            "scope_decision",
            lambda: True,
            "wrong-type",
            "it returned a bool; return allow(reason, value), narrow(reason, value), deny(reason) or None",
        ),
        ("consent_decision", lambda: "yes", "wrong-type", "return allow(reason), deny(reason) or None"),
        ("scope_decision", lambda: Decision("allow", "yes"), "wrong-verdict", "use allow(), narrow() and"),
        ("scope_decision", lambda: deny("Not now!"), "bad-reason", "write one like 'not-on-shift'"),
        (
            "scope_decision",
            lambda: narrow("no", ["read"]),
            "wrong-value",
            "the value of its narrow() is a list; it must be tuple[str, ...]",
        ),
        ("scope_decision", lambda: allow("yes", ("read", 7)), "wrong-value", "is a tuple with int in it"),
        ("login_decision", lambda: allow("yes", "ann"), "wrong-value", "is a str; it must be Identity"),
        ("consent_decision", lambda: narrow("no", ()), "wrong-value", "does not take narrow()"),
        ("scope_decision", lambda: deny("no", "access_denied"), "wrong-value", "only a deny() has an error"),
        ("authentication_decision", lambda: deny("no", "No!"), "wrong-value", "like 'login_required'"),
        ("scope_decision", lambda: Decision(Verdict.DENY, "no", ()), "wrong-value", "a deny() has no value"),
        ("scope_decision", lambda: narrow("no", nested()), "answer-too-large", "nested too deeply"),
        ("scope_decision", raising(Odd("away")), "plugin-raised", "it raised Odd: away (test_fitting.py"),
        ("scope_decision", raising(Unspeakable()), "plugin-raised", "it raised Unspeakable (test_fitting.py"),
        (
            "scope_decision",
            raising(BaseExceptionGroup("two", [KeyboardInterrupt(), ValueError("x")])),
            "plugin-raised",
            "[KeyboardInterrupt, ValueError] (test_fitting.py",
        ),
        (
            "scope_decision",
            raising(InvalidScope("Not now.", reason="no")),
            "plugin-raised",
            "a policy refuses by returning deny(reason)",
        ),
    ],
)
def test_a_wrong_answer_refuses_and_the_log_says_what_mends_it(
    caplog: pytest.LogCaptureFixture, hook: str, answer: Any, reason: str, mended: str
) -> None:
    """R-14. The fault comes with the answer, too, and is not recorded."""

    def method(self: object) -> Any:
        return answer()

    policies = PluginSet([("quiet", plugin_with(**{hook: hookimpl(method)}))], time_limit=10)
    with caplog.at_level(logging.ERROR):
        ruling = policies.decide(a_question(hook))
    assert (ruling.verdict, ruling.reason) == (Verdict.FAILED, reason)
    assert mended in caplog.messages[0] and "plugin quiet" in caplog.messages[0]
    assert mended in ruling.answers[0].fault
    assert "fault" not in str(ruling.as_record())


def test_the_log_has_no_value_of_a_wrong_answer(caplog: pytest.LogCaptureFixture) -> None:
    """An answer may hold what a person typed."""

    def login(self: object, password: Any) -> Any:
        return allow("yes", password.value)

    PluginSet([("quiet", plugin_with(login_decision=hookimpl(login)))]).decide(a_question("login_decision"))
    assert "correct horse" not in caplog.text and "Identity" in caplog.text


def test_what_is_added_and_contains_itself_is_refused_in_a_sentence() -> None:
    def claims(self: object) -> Any:
        found: dict[str, Any] = {}
        found["tenant"] = found
        return found

    policies = PluginSet([("quiet", plugin_with(claims=("tenant",), token_claims=hookimpl(claims)))])
    with pytest.raises(PluginFailed, match="token_claims: nested too deeply, or it contains itself"):
        policies.contribute(
            "token_claims", client=a_client(), user=a_user(), grant=None, scopes=(), resources=()
        )


def test_a_mapping_without_end_is_refused() -> None:
    policies = PluginSet(
        [("quiet", plugin_with(claims=("tenant",), token_claims=hookimpl(lambda self: Endless())))]
    )
    with pytest.raises(PluginFailed, match="more than 65536 characters and items"):
        policies.contribute(
            "token_claims", client=a_client(), user=a_user(), grant=None, scopes=(), resources=()
        )


@dataclass(frozen=True)
class LooksUpItsTeam:
    reasons: ClassVar[frozenset[str]] = frozenset({"no"})
    team: str = "nobody"

    def __post_init__(self) -> None:
        {"operations": 1}[self.team]


@dataclass(frozen=True)
class EndsTheProcess:
    team: str = "nobody"

    def __post_init__(self) -> None:
        raise SystemExit("no team")


@pytest.mark.parametrize(
    ("kind", "mended"),
    [
        (LooksUpItsTeam, "it cannot be made: KeyError: 'nobody' (test_fitting.py, line "),
        (EndsTheProcess, "it cannot be made: SystemExit: no team (test_fitting.py, line "),
    ],
)
def test_a_plugin_that_cannot_be_made_stops_the_start_in_a_sentence(kind: type, mended: str) -> None:
    """Whatever its `__post_init__` raises."""
    with pytest.raises(SettingsError) as raised:
        load(
            [f"{__name__}:{kind.__name__}"],
            {"looks_up_its_team": {"team": Resolved("nobody", True)}} if kind is LooksUpItsTeam else {},
            production=False,
        )
    assert mended in raised.value.problems[0]


def test_an_identity_is_an_answer() -> None:
    """The check of answers does not refuse right ones."""

    def login(self: object) -> Any:
        return allow("yes", Identity(username="ann"))

    policies = PluginSet([("quiet", plugin_with(login_decision=hookimpl(login)))])
    assert policies.decide(a_question("login_decision")).verdict is Verdict.ALLOW
