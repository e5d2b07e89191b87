"""What may be used once, by any process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from authserver.engine.context import SingleUse
from authserver.engine.errors import InvalidGrant
from authserver.engine.tokens.once import claim, earlier_use, first_use, is_used
from authserver.testing.records import NOW, a_client
from authserver.testing.rules import Rules

USED = InvalidGrant("It was used.")
USE = SingleUse(
    purpose="assertion",
    text="one",
    since=NOW - timedelta(hours=1),
    until=NOW + timedelta(minutes=6),
    refusal=USED,
)


@pytest.fixture
def within(rules: Rules) -> Callable[..., Any]:
    """Call a rule with an engine in a transaction of its own."""

    def call(rule: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with rules.begin() as engine:
            return rule(engine, *arguments, **named)

    return call


def test_the_second_use_is_refused(within: Callable[..., Any]) -> None:
    """T051: with the refusal of whoever asks, and for another client, too."""
    assert not within(is_used, USE)
    within(claim, a_client(), USE)
    assert within(is_used, USE)
    with pytest.raises(InvalidGrant) as caught:
        within(claim, a_client(client_id="another"), USE)
    assert caught.value is USED


@pytest.mark.parametrize("other", [{"purpose": "proof"}, {"text": "two"}])
def test_another_text_or_purpose_is_another_thing(within: Callable[..., Any], other: dict[str, str]) -> None:
    within(claim, a_client(), USE)
    assert not within(is_used, replace(USE, **other))
    within(claim, a_client(), replace(USE, **other))


def test_a_use_is_kept_until_it_could_not_be_repeated_anyway(within: Callable[..., Any]) -> None:
    """T052: with who used it, and what is to be known later; its text is not kept."""
    within(claim, a_client(), USE)
    kept = within(earlier_use, USE.purpose, USE.text)
    assert (kept.kind, kept.client_id, kept.expires_at) == ("used", a_client().client_id, USE.until)
    assert kept.claimed_at == kept.created_at
    assert USE.text.encode() not in kept.digest
    assert not kept.details
    assert within(
        first_use, a_client(), "proof", "two", since=USE.since, until=USE.until, details={"by": "a proof"}
    )
    assert within(earlier_use, "proof", "two").details == {"by": "a proof"}
    assert within(earlier_use, "proof", "three") is None
