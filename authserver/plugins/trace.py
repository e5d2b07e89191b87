"""Writes each call of a plugin to the log, to show which plugin answered what (`authserver.trace_plugins`).

A line has only names: which scopes were allowed and which claims were added, but not the values of the claims. Therefore
it contains no secret and no personal data.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from authserver.containment import contained
from authserver.engine.authorization_request import Expanded
from authserver.engine.context import Binding, Welcome
from authserver.engine.decisions import Decision, outcome_of
from authserver.engine.printable import made_visible
from authserver.engine.records import Client
from authserver.hookspecs import DECIDING

MAXIMUM_WORDS = 300
log = logging.getLogger(__name__)


def traced(plugin: str, hook: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function, write a line about it, and return its answer or raise its error."""
    begun = time.perf_counter_ns()
    try:
        answer = function(*arguments)
    except BaseException as error:
        _write(plugin, hook, begun, _shown(f"raised {type(error).__name__}"))
        raise
    _write(plugin, hook, begun, words_of(hook, answer))
    return answer


def words_of(hook: str, answer: object) -> str:
    """An answer to a hook in names: one printable line of limited length, whatever the answer is."""
    try:
        words = str(contained(_words, hook, answer))
    except Exception:
        words = f"a {type(answer).__name__} that cannot be written down"
    return _shown(words)


def _words(hook: str, answer: object) -> str:
    match answer:
        case None:
            return "nothing"
        case Decision() if problem := DECIDING[hook].problem_with(answer):
            return f"a wrong answer ({problem})"
        case Decision():
            outcome = outcome_of(answer.value)
            names = outcome if isinstance(outcome, list) else [outcome] if outcome else []
            return f"{answer.verdict} {answer.reason}" + "".join(f" {name}" for name in names)
        case Mapping():
            return " ".join(map(str, answer)) or "nothing"
        case tuple():
            return " ".join(map(str, answer)) or "nothing"
        case Client():
            return f"the client {answer.client_id}"
        case Binding():
            return f"bound by {' '.join(answer.confirmation)}"
        case Welcome():
            return " ".join(answer.members) or "nothing"
        case Expanded():
            return "another request" if answer.refusal is None else f"refused: {answer.refusal.reason}"
    return f"a {type(answer).__name__}"


def _shown(words: str) -> str:
    shown = made_visible(words[:MAXIMUM_WORDS])
    return shown if len(words) <= MAXIMUM_WORDS else f"{shown}…"


def _write(plugin: str, hook: str, begun: int, words: str) -> None:
    milliseconds = (time.perf_counter_ns() - begun) / 1e6
    log.info("%s, %s: %s (%.3f ms)", hook, plugin, words, milliseconds)
