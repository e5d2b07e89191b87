"""The contract of a policy, as tests: one line in your test file.

    from authserver.testing.contract import policy_contract

    TestQuietHours = policy_contract(QuietHours(timezone="Europe/Oslo"))

The class it makes has a test for every promise and every deciding hook of the policy: it answers every
question (and never raises), the same each time, quickly, with an answer of the right type and a reason that
it declares in `reasons`; it never allows more than was asked for, and changes neither the question nor the
process; it decides by the question alone, and waits for nothing if it is `immediate`; its answers to contributing
hooks are valid; it is a frozen, hashable value.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis.strategies import SearchStrategy

from authserver.containment import contained, interruptible, text_of
from authserver.engine.decisions import Decision, Verdict
from authserver.engine.errors import OAuthError
from authserver.engine.questions import Question
from authserver.hooks import is_implemented
from authserver.hookspecs import CONTRIBUTING, DECIDING, every_hook
from authserver.plugins.asking import PluginSet, fault_of
from authserver.plugins.copying import Unusable, copied, with_copies
from authserver.plugins.fitting import arguments_of, callable_as_asked
from authserver.settings import SettingsError
from authserver.testing import hostile
from authserver.testing.questions import a_question
from authserver.testing.records import a_client
from authserver.testing.strategies import REDIRECT_URIS, contribution, question
from authserver.testing.watching import READABLE, Kind, caches_of, state_of_the_process, watched

# The limit in seconds. A slower policy needs the time limit of the server (`immediate = False`).
QUICK = 0.1
# On a busy machine every policy is sometimes slow.
ATTEMPTS = 5
NAME = "the_policy"
# Questions of each hook at which a policy is watched.
FEW = 10
# The contributing hooks that need no web application, and no engine unless the plugin takes it.
ADDING = (
    "find_client",
    "scopes",
    "private_use_redirect_uris",
    "grant_types",
    "client_metadata",
    "expand_registration",
    "code_details",
    "implied_parameters",
    "grant_details",
    "person_claims",
    "token_claims",
    "token_response",
)


def policy_contract(
    policy: object,
    *,
    examples: int | None = None,
    quick: float = QUICK,
    deterministic: bool = True,
    reads: Collection[str] = (),
    questions: Mapping[str, SearchStrategy[Question[Any]]] | None = None,
) -> type:
    """A test class that holds a policy to its contract.

    Args:
        policy: the configured policy; or its class, and then a fixture named `policy` gives the value, for a policy
            that needs a file or a server.
        examples: how many questions are generated for each promise; by default as many as hypothesis' profile says.
        quick: seconds within which it answers; raise it for a policy that asks another service.
        deterministic: False for a policy that may answer the same question in two ways within a moment.
        reads: the sources that it reads on purpose besides the question: `clock`, `chance`, `environment`, `file`.
        questions: by hook, a strategy of questions to ask instead of `strategies.question(hook)`,
            if the policy allows hardly any of those.

    Raises:
        KeyError: `reads` has an unknown name.
    """
    unread = set(READABLE.values()) - {READABLE[name] for name in reads}
    kind = policy if isinstance(policy, type) else type(policy)
    hooks = [hook for hook in DECIDING if is_implemented(kind, hook)]
    asking = {hook: question(hook) for hook in hooks} | dict(questions or {})
    settings = hypothesis_settings(
        max_examples=examples or hypothesis_settings().max_examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate, Phase.shrink],
    )
    # If an answer is slow or not always the same, report the first such question; to search for a smaller one is slow.
    unhurried = hypothesis_settings(settings, phases=[Phase.generate])
    # A side effect of a policy happens at every question, so few questions are enough.
    few = hypothesis_settings(unhurried, max_examples=min(settings.max_examples, FEW))
    each_hook = pytest.mark.parametrize("hook", hooks)
    adding = [
        hook
        for hook in CONTRIBUTING
        if hook in ADDING
        and is_implemented(kind, hook)
        and "engine" not in inspect.signature(getattr(kind, hook)).parameters
    ]

    untouched: dict[str, object] = {}

    class PolicyContract:
        """The promises of every policy (`authserver.testing.contract`)."""

        if not isinstance(policy, type):

            @pytest.fixture(name="policy")
            def given_policy(self) -> object:
                return policy

        @pytest.fixture(autouse=True)
        def prepared(self, policy: Any) -> Iterator[None]:
            """Prepare and close the policy for each test, as the server does at start and at the end."""
            getattr(policy, "prepare", _nothing)()
            # Read before the first question, which may change the process when the later ones do not.
            if not untouched:
                untouched.update(state_of_the_process(policy))
            yield
            getattr(policy, "close", _nothing)()

        def test_it_is_a_frozen_hashable_value(self, policy: Any) -> None:
            """A frozen value cannot be changed by a request; a policy with a state of its own is compared by identity."""
            parameters: Any = getattr(type(policy), "__dataclass_params__", None)
            assert parameters is not None, "make it a dataclass"
            assert parameters.frozen or not parameters.eq, (
                "make it @dataclass(frozen=True); or @dataclass(eq=False), if it keeps something that changes"
            )
            assert hash(policy) == hash(policy), "make its fields hashable: tuple, not list or dict"

        def test_the_server_takes_it(self, policy: Any) -> None:
            """It serves a hook, misspells no name of a hook, and marks no method to be called out of order."""
            try:
                plugins = PluginSet([(NAME, policy)])
            except SettingsError as error:
                pytest.fail(str(error))
            assert any(map(plugins.serves, every_hook())), "it implements no hook"

        if hooks:

            def test_it_declares_its_reasons(self, policy: Any) -> None:
                """`reasons` lists the short identifiers that operators, counters and translations use."""
                assert _reasons(policy), "declare `reasons: ClassVar[frozenset[str]]`"

            @each_hook
            def test_it_answers_every_question(self, policy: Any, hook: str) -> None:
                """Every answer is an allow, a narrow, a deny or None, of the right type, with a declared reason."""

                @settings
                @given(asking[hook])
                def holds(asked: Question[Any]) -> None:
                    try:
                        decision = _ask(policy, asked)
                    except Unusable as error:
                        pytest.fail(f"{hook} gave an answer that cannot be used: {error}")
                    except Exception as error:
                        raise AssertionError(f"{hook} did not answer: {fault_of(error)}") from error
                    if decision is not None:
                        problem = DECIDING[hook].problem_with(decision)
                        assert problem is None, (
                            f"{hook} answered {decision!r}, which is not an answer to it ({problem}): "
                            + DECIDING[hook].advice(decision)
                        )
                        assert decision.reason in _reasons(policy), (
                            f"{decision.reason!r} is not among its `reasons`"
                        )

                holds()

            @each_hook
            def test_it_answers_quickly(self, policy: Any, hook: str) -> None:
                """The quickest of several attempts counts; the machine may have been busy during the others."""

                @unhurried
                @given(asking[hook])
                def holds(asked: Question[Any]) -> None:
                    took: list[float] = []
                    while not took or min(took) > quick:
                        begun = time.perf_counter()
                        _said(policy, asked)
                        took.append(time.perf_counter() - begun)
                        if len(took) == ATTEMPTS:
                            break
                    assert min(took) <= quick, f"it took {min(took):.3f} s; {quick} s is quick"

                holds()

            @each_hook
            def test_it_never_widens(self, policy: Any, hook: str) -> None:
                """It allows only values that were asked for. The server removes others, but it should not allow them."""

                @settings
                @given(asking[hook])
                def holds(asked: Question[Any]) -> None:
                    if _allows(decision := _said(policy, asked), hook):
                        problem = asked.excess(decision.value)
                        assert problem is None, problem

                holds()

            @each_hook
            def test_it_changes_nothing_that_it_is_asked_with(self, policy: Any, hook: str) -> None:
                """The server gives copies to a policy, so a policy that changes them is wrong."""

                @settings
                @given(asking[hook])
                def holds(asked: Question[Any]) -> None:
                    handed = replace(
                        asked, **{item.name: copied(getattr(asked, item.name)) for item in fields(asked)}
                    )
                    whole: list[object] = []
                    with suppress(Exception):
                        _ask(policy, handed, through=partial(_directly, whole))
                    changed = [
                        item.name
                        for item in fields(asked)
                        if getattr(handed, item.name) != getattr(asked, item.name)
                    ]
                    if whole and whole[0] != asked:
                        changed.append("question")
                    assert not changed, (
                        f"it changes {', '.join(changed)}; the server gives it copies, so this has no effect: "
                        "return a decision instead"
                    )

                holds()

            @each_hook
            def test_it_changes_nothing_of_the_process(self, policy: Any, hook: str) -> None:
                """All plugins and the server share the process; a policy keeps its state in its own fields."""
                _refuse(policy, asking[hook], few, Kind.THREAD)
                after = state_of_the_process(policy)
                changed = [name for name, value in untouched.items() if after.get(name, value) != value]
                if changed:
                    pytest.fail(
                        f"a question has changed {', '.join(changed)}, which other code uses too; a policy that keeps "
                        "something makes it in prepare(), in a field of its own, and is a @dataclass(eq=False)"
                    )

        if hooks and getattr(kind, "immediate", False):

            @each_hook
            def test_it_waits_for_nothing(self, policy: Any, hook: str) -> None:
                """The server sets no time limit for a policy that is `immediate`."""
                _refuse(policy, asking[hook], few, Kind.SERVICE)

        if hooks and deterministic:

            @each_hook
            def test_it_decides_by_the_question_alone(self, policy: Any, hook: str) -> None:
                """A policy that reads a clock or the environment answers differently tomorrow, or on another machine."""
                _refuse(policy, asking[hook], few, *unread)

            @each_hook
            def test_it_answers_the_same_each_time(self, policy: Any, hook: str) -> None:
                """It is deterministic, and a question does not change it."""

                @unhurried
                @given(asking[hook], asking[hook])
                def holds(asked: Question[Any], other: Question[Any]) -> None:
                    first = _said(policy, asked)
                    _said(policy, other)
                    again = _said(policy, asked)
                    assert again == first, (
                        f"it answered the same question in two ways: {first!r}, then {again!r}; what it keeps from one "
                        "question, a clock or chance decides the next"
                    )
                    if caches := caches_of(policy):
                        for clear in caches.values():
                            clear()
                        assert _said(policy, asked) == again, (
                            f"a cache keeps the answer to another question ({', '.join(caches)}); what is cached must "
                            "depend on the arguments of the function alone"
                        )

                before = hash(policy), repr(policy)
                holds()
                assert (hash(policy), repr(policy)) == before, "a question has changed it"

        if "redirect_uri_decision" in hooks:

            def test_it_allows_no_hostile_redirect_uri(self, policy: Any) -> None:
                """The clients have registered redirect URIs that look similar."""
                allowed = set()
                for method in ("none", "client_secret_basic"):
                    for application_type in ("web", "native"):
                        client = a_client(
                            redirect_uris=REDIRECT_URIS, auth_method=method, application_type=application_type
                        )
                        for uri in hostile.REDIRECT_URIS:
                            asked = a_question("redirect_uri_decision", client=client, redirect_uri=uri)
                            if _allows(_said(policy, asked), asked.hook):
                                allowed.add(uri)
                assert not allowed, f"it allows {sorted(allowed)}"

        if adding:

            @pytest.mark.parametrize("hook", adding)
            def test_what_it_adds_can_be_added(self, policy: Any, hook: str) -> None:
                """Its additions have the right type, declared names and limited size; it raises only documented errors."""
                plugins = PluginSet([(NAME, policy)])

                @settings
                @given(contribution(hook))
                def holds(arguments: Mapping[str, Any]) -> None:
                    try:
                        with interruptible():
                            plugins.contribute(hook, **arguments)
                    except SettingsError as error:
                        pytest.fail(str(error))
                    except OAuthError:
                        assert CONTRIBUTING[hook].refusing

                holds()

        if is_implemented(kind, "server_metadata"):

            def test_its_metadata_is_json_and_the_same_each_time(self, policy: Any) -> None:
                """Clients read it (RFC 8414, 3.2)."""
                plugins = PluginSet([(NAME, policy)])
                issuer = "https://as.example"
                members = [value for _, value in plugins.contribute("server_metadata", issuer=issuer)]
                json.dumps([dict(value) for value in members], allow_nan=False)
                again = [value for _, value in plugins.contribute("server_metadata", issuer=issuer)]
                assert members == again

    PolicyContract.__name__ = PolicyContract.__qualname__ = f"Test{kind.__name__}"
    return PolicyContract


def _reasons(policy: object) -> frozenset[str]:
    return frozenset(getattr(policy, "reasons", ()))


def _nothing() -> None:
    """For a policy without `prepare` or `close`."""


def _ask(policy: object, asked: Question[Any], *, through: Callable[..., Any] = with_copies) -> Any:
    """The policy's answer when it is asked as by the server; None if the hook is not in its `serves`."""
    if asked.hook not in getattr(policy, "serves", (asked.hook,)):
        return None
    function, names = callable_as_asked(getattr(policy, asked.hook), arguments_of(DECIDING[asked.hook]))
    arguments = [getattr(asked, name) for name in names]
    # A policy that would end the process fails the test; Ctrl-C still ends the tests.
    with interruptible():
        return contained(through, function, *arguments)


def _directly(whole: list[object], function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it without copies; `whole` is the whole question, which it gets if it takes the argument `question`."""
    whole += [argument for argument in arguments if isinstance(argument, Question)]
    return function(*arguments)


def _refuse(policy: object, asking: SearchStrategy[Any], few: Callable[[Any], Any], *kinds: Kind) -> None:
    """Fail the test if the policy has a side effect of these kinds when it is asked a few questions."""
    found: dict[str, None] = {}

    @few
    @given(asking)
    def watch(asked: Question[Any]) -> None:
        with watched(policy) as deeds:
            _said(policy, asked)
        found.update((str(deed), None) for deed in deeds if deed.kind in kinds)

    watch()
    if found:
        pytest.fail("\n".join(found))


def _said(policy: object, asked: Question[Any]) -> Any:
    """Like `_ask`, but an exception becomes an answer, so that one fault does not fail every test."""
    try:
        return _ask(policy, asked)
    except Exception as error:
        return text_of(error)


def _allows(decision: object, hook: str) -> bool:
    return (
        isinstance(decision, Decision)
        and decision.verdict is Verdict.ALLOW
        and DECIDING[hook].problem_with(decision) is None
    )
