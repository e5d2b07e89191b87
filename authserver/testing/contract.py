"""The contract of a policy, as tests: one line in a test file of yours.

    from authserver.testing.contract import policy_contract

    TestQuietHours = policy_contract(QuietHours(timezone="Europe/Oslo"))

The class it makes has a test for every promise and every deciding hook of the policy: it answers every
question (and never raises), the same each time, quickly, with an answer of the right type and a reason that
it declares in `reasons`; it never allows more than was asked for; it is a frozen, hashable value.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from authserver.engine import uris
from authserver.engine.decisions import Decision, Verdict
from authserver.hookspecs import PROJECT
from authserver.plugins import SLOTS, PluginSet
from authserver.settings import SettingsError
from authserver.testing import hostile
from authserver.testing.strategies import REDIRECT_URIS, question

# Seconds. What takes longer belongs in a plugin that the server times (`immediate = False`).
QUICK = 0.1
NAME = "the_policy"
Ask = Callable[[str, dict[str, Any]], Decision | None]


def policy_contract(
    policy: object, *, examples: int = 100, quick: float = QUICK, deterministic: bool = True
) -> type:
    """A test class that holds this policy to its contract.

    Args:
        policy: the policy as it would be configured.
        examples: how many questions are made up for each promise.
        quick: seconds within which it answers; raise it for a policy that asks somebody outside.
        deterministic: False for a policy whose answer depends on more than the question, a clock say.
    """
    slots = [slot for slot in SLOTS if _implements(policy, slot)]
    settings = hypothesis_settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    every_slot = pytest.mark.parametrize("slot", slots)

    class PolicyContract:
        """What every policy promises (`authserver.testing.contract`)."""

        def test_it_is_a_frozen_hashable_value(self) -> None:
            """So that no request can change it."""
            assert dataclasses.is_dataclass(policy), "make it a dataclass"
            assert type(policy).__dataclass_params__.frozen, "make it @dataclass(frozen=True)"  # type: ignore[attr-defined]
            assert hash(policy) == hash(policy), "make its fields hashable: tuple, not list or dict"

        def test_the_server_takes_it(self) -> None:
            """It serves a deciding hook, misspells none, and does not jump the queue."""
            try:
                plugins = PluginSet([(NAME, policy)])
            except SettingsError as error:
                pytest.fail(str(error))
            assert any(plugins.serves(slot) for slot in SLOTS), "it implements no deciding hook"

        def test_it_declares_its_reasons(self) -> None:
            """`reasons` lists the short identifiers that operators, counters and translations know it by."""
            assert _reasons(policy), "declare `reasons: ClassVar[frozenset[str]]`"

        @every_slot
        def test_it_answers_every_question(self, slot: str) -> None:
            """Total: an allow, a narrow, a deny or None, of the right type, with a declared reason."""

            @settings
            @given(question(slot))
            def holds(asked: dict[str, Any]) -> None:
                decision = _ask(policy, slot, asked)
                if decision is not None:
                    assert decision.reason in _reasons(policy), (
                        f"{decision.reason!r} is not among its `reasons`"
                    )

            holds()

        @every_slot
        def test_it_answers_the_same_each_time(self, slot: str) -> None:
            """Deterministic, and not changed by being asked."""
            if not deterministic:
                return

            @settings
            @given(question(slot), question(slot))
            def holds(asked: dict[str, Any], other: dict[str, Any]) -> None:
                first = _ask(policy, slot, asked)
                _ask(policy, slot, other)
                assert _ask(policy, slot, asked) == first

            holds()

        @every_slot
        def test_it_answers_quickly(self, slot: str) -> None:
            """The quickest of three is what it needs; the others may have met a busy machine."""

            @settings
            @given(question(slot))
            def holds(asked: dict[str, Any]) -> None:
                for _ in range(3):
                    begun = time.perf_counter()
                    _ask(policy, slot, asked)
                    if (took := time.perf_counter() - begun) <= quick:
                        return
                pytest.fail(f"it took {took:.3f} s; {quick} s is quick")

            holds()

        @every_slot
        def test_it_never_widens(self, slot: str) -> None:
            """Whatever it allows was asked for; the server would cut it, but a policy should not try."""

            @settings
            @given(question(slot))
            def holds(asked: dict[str, Any]) -> None:
                decision = _ask(policy, slot, asked)
                if decision is not None and decision.verdict is Verdict.ALLOW:
                    problem = _WIDENING[slot](asked, decision.value) if slot in _WIDENING else None
                    assert problem is None, problem

            holds()

        @pytest.mark.parametrize("uri", hostile.REDIRECT_URIS if "redirect_uri_decision" in slots else ())
        def test_it_allows_no_hostile_redirect_uri(self, uri: str) -> None:
            """For clients whose own redirect URIs look very much like it."""

            @settings
            @given(question("redirect_uri_decision"))
            def holds(asked: dict[str, Any]) -> None:
                client = dataclasses.replace(asked["client"], redirect_uris=REDIRECT_URIS)
                decision = _ask(policy, "redirect_uri_decision", {"client": client, "redirect_uri": uri})
                assert decision is None or decision.verdict is not Verdict.ALLOW, f"it allows {uri!r}"

            hypothesis_settings(settings, max_examples=5)(holds)()

    PolicyContract.__name__ = PolicyContract.__qualname__ = f"Test{type(policy).__name__}"
    return PolicyContract


def _implements(policy: object, slot: str) -> bool:
    return hasattr(getattr(policy, slot, None), f"{PROJECT}_impl")


def _reasons(policy: object) -> frozenset[str]:
    return frozenset(getattr(policy, "reasons", ()))


def _ask(policy: object, slot: str, asked: dict[str, Any]) -> Decision | None:
    """Ask the policy as the server would: with the arguments it takes, and nothing but a proper answer will do."""
    function = getattr(policy, slot)
    taken = inspect.signature(function).parameters
    decision = function(**{name: asked[name] for name in taken})
    if decision is None:
        return None
    assert isinstance(decision, Decision), f"{slot} answered {decision!r}: use allow, narrow, deny or None"
    ruling = PluginSet([(NAME, _Answers(slot, decision))]).decide(slot, **asked)
    assert not ruling.failed, f"{slot} answered {decision!r}: {ruling.reason}"
    return decision


def _Answers(slot: str, decision: Decision) -> object:  # noqa: N802 - stands where a class would
    """A plugin that gives just this answer, so that the server's own checks judge it."""
    from authserver.hookspecs import hookimpl

    def answer(self: object) -> Decision:
        return decision

    kind = type("Answers", (), {slot: hookimpl(answer), "immediate": True})
    return dataclasses.dataclass(frozen=True)(kind)()


def _wider_scopes(asked: dict[str, Any], value: tuple[str, ...]) -> str | None:
    ceiling = asked["requested"] or asked["client"].scopes
    extra = [scope for scope in value if scope not in ceiling]
    return f"it allows {extra}, which nobody asked for" if extra else None


def _other_resource(asked: dict[str, Any], value: str) -> str | None:
    if asked["resource"] is None:
        return None
    same = uris.canonical_resource(value) == uris.canonical_resource(asked["resource"])
    return None if same else f"it allows {value!r} instead of {asked['resource']!r}"


def _unproven_client(asked: dict[str, Any], value: object) -> str | None:
    credentials = asked["credentials"]
    if credentials.method.startswith("client_secret_") and not credentials.secret_matches:
        return "it allows a client whose secret does not match"
    return None


def _wider_registration(asked: dict[str, Any], value: Any) -> str | None:
    metadata = asked["metadata"]
    extra = [scope for scope in value.scopes if metadata.scopes and scope not in metadata.scopes]
    extra += [grant for grant in value.grant_types if grant not in metadata.grant_types]
    extra += [uri for uri in value.redirect_uris if uri not in metadata.redirect_uris]
    return f"it registers {extra}, which nobody asked for" if extra else None


def _somebody_else(asked: dict[str, Any], value: Any) -> str | None:
    if not value.username:
        return "it signs in nobody in particular"
    return None


_WIDENING: dict[str, Callable[[dict[str, Any], Any], str | None]] = {
    "scope_decision": _wider_scopes,
    "resource_decision": _other_resource,
    "client_auth_decision": _unproven_client,
    "registration_decision": _wider_registration,
    "login_decision": _somebody_else,
}
