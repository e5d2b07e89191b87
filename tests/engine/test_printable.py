"""What is seen of a text, and what hides in it (T094, E-11, B020)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authserver.engine.printable import is_printable, made_visible, without_hidden

SEEN = [
    "Notes \u2764\ufe0f",
    "Dev \U0001f469\u200d\U0001f4bb",
    "\u0645\u06cc\u200c\u0646\u0648\u06cc\u0633\u0645",  # Persian, with a non-joiner
    "\u0915\u094d\u200d\u0937",  # Devanagari, with a joiner
    "\u0dc1\u0dca\u200d\u0dbb\u0dd3",  # Sinhala
    "\u0cb0\u0ccd\u200c\u0ca8",  # Kannada, with a non-joiner after the virama
    "\u182a\u1820\u1822\u1822\u1828\u180e\u1820",  # Mongolian, with a vowel separator
    "\u1820\u180b",  # a variant of a Mongolian letter
    "\u845b\U000e0100\u57ce",  # a place in Japan, with its variant of the ideograph
    "\u2764\ufe0e",  # as text
    "\U0001f9d1\U0001f3fd\u200d\U0001f680",  # a skin tone
    "\U0001f9d1\U0001f3ff\u200d\u2764\ufe0f\u200d\U0001f48b\u200d\U0001f9d1\U0001f3fd",
    "\U0001f3f3\ufe0f\u200d\U0001f308",  # the rainbow flag
    "\U0001f1f3\U0001f1f4",  # a flag of two regional indicators
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland
    "1\ufe0f\u20e3 #\ufe0f\u20e3",  # keycaps
    "\u00a9\ufe0f \u2122",
    "Ünïcode, 日本語, ภาษาไทย, עברית",
    "<b>&amp;</b>",
    "",
]
HIDDEN = [
    "\u200d",
    "\ufe0f",
    "a\u200db",
    "a\u200cb",
    "a\ufe0fb",
    "1\ufe0f",
    "1\u200d2",
    "a\u200bb",
    "\U0001f469\u200d",  # a joiner at the end
    "\u200d\U0001f469",
    "\U0001f469\u200da",
    "\U0001f469\u200d\u200d\U0001f4bb",
    "\u2764\ufe0f\ufe0f",
    "\u0646\u200c",  # nothing to join with
    "\u0646\u200b\u200c\u0646",
    "\u0915\u200d\u0937",  # no virama
    "\u180e",
    "\u180b\u180c",
    "\u57ce\U000e0100\U000e0101",
    "x\U000e0061\U000e0062",  # tags of nothing
    "\U0001f3f4\U000e0067\U000e0062",  # a flag without an end
    "\U0001f3f4" + "\U000e0061" * 7 + "\U000e007f",
    "a\u202eb",
    "a\u2066b\u2069",
    "a\u061cb",
    "a\nb",
    "a\rb",
    "a\u2028b",
    "a\u0085b",
    "a\x00b",
    "a\x1b[2Jb",
    "a\x9b2Jb",
    "a\x7fb",
    "\u3164",
    "\uffa0",
    "\u115f",
    "\u2800",
    "\u00ad",
    "\u034f",
    "\ufeff",
    "\ue000",
    "\u0378",
    "\ud800",
]
texts = st.text(max_size=20) | st.lists(
    st.sampled_from([*SEEN, *HIDDEN, *"".join(SEEN + HIDDEN)]), max_size=8
).map("".join)


@pytest.mark.parametrize("text", SEEN)
def test_joiners_and_selectors_are_seen_in_their_context(text: str) -> None:
    """B020; RFC 5892, A.1 and A.2; UTS 51, 1.4."""
    assert is_printable(text)
    assert made_visible(text) == without_hidden(text) == text


@pytest.mark.parametrize("text", HIDDEN)
def test_what_hides_is_found(text: str) -> None:
    """T094."""
    assert not is_printable(text)
    assert without_hidden(text) != text


@given(texts)
@example("\u0646\u200b\u200c\u0646")
def test_nothing_hides_in_what_was_made_visible_or_cleaned(text: str) -> None:
    for seen in (made_visible(text), without_hidden(text)):
        assert is_printable(seen)
        seen.encode()
    assert is_printable(text) == (made_visible(text) == text) == (without_hidden(text) == text)


def test_what_hides_is_shown_by_its_escape() -> None:
    shown = made_visible("a\x1b]0;title\x07\nb\u202e\x9b\ud800\U000e0061")
    assert shown == r"a\x1b]0;title\x07\nb\u202e\x9b\ud800\U000e0061"
