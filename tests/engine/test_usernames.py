"""User names: one form for all ways to write a name, and names of the whole world (RFC 8265; T105, B201, B202)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from authserver.engine.people import usernames
from authserver.engine.people.usernames import (
    MAXIMUM_TYPED_USERNAME,
    MAXIMUM_USERNAME,
    BadUsername,
    check_username,
    normalise_username,
)

# B201: scripts that write vowels as marks, and the marks of Japanese and Yoruba.
MARKED = ("भारत", "कृष्ण", "சுரேஷ்", "সুমন", "นิวัฒน์", "佐々木", "ヤマダー", "ẹ̀kọ́")
# B202: names as mail addresses and directories have them.
PUNCTUATED = ("o'brien@example.com", "CORP\\ann", "m&a@example.com", "svc$", "a/b@example.com")
# The letters of a script that a name could be made of before the rules of RFC 8265 were followed.
LETTERS = "".join(
    character
    for character in map(chr, (*range(0x21, 0x3100), *range(0x4E00, 0x4F00), *range(0xAC00, 0xAD00)))
    if character.isalpha()
    and unicodedata.normalize("NFKC", character.casefold()) == character
    # Exceptions of RFC 8264, 9.6 and 9.9: fillers, repeat marks, letters that Hangul syllables are made of.
    and not regex.fullmatch(
        "[\u0640\u1100-\u11ff\u302e\u302f\u3031-\u3035\u303b\ua960-\ua97f\ud7b0-\ud7ff]", character
    )
)
ALPHABETS = {
    script: regex.findall(rf"\p{{script={script}}}", LETTERS)
    for script in [
        "Latin",
        "Greek",
        "Cyrillic",
        "Armenian",
        "Hebrew",
        "Arabic",
        "Devanagari",
        "Bengali",
        "Tamil",
        "Telugu",
        "Thai",
        "Georgian",
        "Ethiopic",
        "Hangul",
        "Cherokee",
        "Khmer",
        "Mongolian",
        "Hiragana",
        "Katakana",
        "Han",
    ]
}
JAPANESE = [*ALPHABETS["Hiragana"], *ALPHABETS["Katakana"], *ALPHABETS["Han"]]
FORMS = ("NFC", "NFD", "NFKC", "NFKD")


def accepted_before(username: str) -> str | None:
    """The form of a name by the rules of version 0.1.0 and before; None for a name that was refused."""
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username.strip()).casefold())
    if not 1 <= len(name) <= 100 or not re.fullmatch(r"[^\W_](?:[\w.@+-]*[^\W_])?|[^\W_]", name):
        return None
    scripts = {unicodedata.name(letter, "").partition(" ")[0] for letter in name if letter.isalpha()}
    return None if len(scripts) > 1 and not scripts <= {"CJK", "HIRAGANA", "KATAKANA"} else name


def refusal(username: str) -> str:
    """Why a person cannot get this name; "" when a person can."""
    try:
        check_username(normalise_username(username))
    except BadUsername as error:
        return str(error)
    return ""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [*MARKED, *PUNCTUATED])
def test_names_of_the_world_are_accepted_in_any_normalisation_form(name: str, form: str) -> None:
    """B201, B202; RFC 8265, 3.3."""
    assert refusal(name) == ""
    assert normalise_username(unicodedata.normalize(form, name)) == normalise_username(name)


def test_all_printable_ascii_is_accepted_but_the_space() -> None:
    """RFC 8264, 9.11 (ASCII7): also alone, first and last."""
    for character in map(chr, range(0x21, 0x7F)):
        for name in (character, f"{character}ann", f"ann{character}"):
            assert refusal(name) == ""
    assert "spaces" in refusal("ann lee")


@pytest.mark.parametrize(
    "name",
    [
        "می‌نویسم",  # a zero-width non-joiner where letters would join (RFC 5892, A.1)
        "क्‍ष",  # a zero-width joiner after a virama (A.2)
        "col·lecció",  # a middle dot between two l (A.3)
        "צ׳כיה",  # a geresh after a Hebrew letter (A.5)
        "マリア・テレサ",  # a middle dot in Katakana (A.7)
        "שרה-לוי",
        "محمد٣",
        "山田太郎",
        "ﾔﾏﾀﾞ",
        "山田taro@example.com",
        "김철수@example.com",
        "李ㄅㄆ",
        "ᠮᠣᠩᠭᠣᠯ",
        "Nguyễn",
        "straße",
        "ΣΊΣΥΦΟΣ",
    ],
)
def test_what_a_script_needs_is_accepted_in_its_context(name: str) -> None:
    assert refusal(name) == ""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("аnn", "one script"),  # Cyrillic and Latin
        ("annα", "one script"),
        ("pаypal@example.com", "one script"),
        ("αнн", "one script"),  # Greek and Cyrillic
        ("Ꭺnn", "one script"),  # Cherokee and Latin
        ("ann১", "one script"),  # a Bengali digit
        ("カнн", "one script"),
        ("김ヤマ", "one script"),
        ("র২2", "digits of one script"),
        ("a\u200bnn", "U+200B"),
        ("a\u200dnn", "U+200D"),
        ("a\u200cnn", "U+200C"),
        ("ann\u00ad", "U+00AD"),
        ("a\u202enn", "U+202E"),
        ("a\u2066nn", "U+2066"),
        ("ann\ufe0f", "U+FE0F"),
        ("ann\u3164", "U+1160"),  # a filler
        ("a\u034fnn", "U+034F"),
        ("ann\U000e0061", "U+E0061"),
        ("❤", "U+2764"),
        ("ann\ue000", "U+E000"),
        ("ann\u0378", "U+0378"),  # unassigned
        ("a·b", "middle dot"),
        ("\u0301ann", "marks"),
        ("-\u0301ann", "marks"),
        ("a\u0301\u0301nn", "marks"),
        ("a\u0300\u0301\u0302\u0303\u0304nn", "marks"),
        ("1שרה", "right-to-left"),
        ("שרה@example.com", "right-to-left"),
        ("a\nnn", "control"),
        ("a\0nn", "control"),
        ("ann\x1b[2J", "control"),
        ("ann\x9b2J", "control"),
        ("\ud800nn", "control"),
    ],
)
def test_a_name_that_imitates_or_hides_is_refused(name: str, why: str) -> None:
    """T105; UTS 39, 5; RFC 8264, 9; RFC 5893, 2."""
    assert why in refusal(name)


@pytest.mark.parametrize("name", ["", " \t", "a" * (MAXIMUM_USERNAME + 1), "a" * 10_000_000, "\ufdfa" * 20])
def test_a_name_is_neither_empty_nor_long(name: str) -> None:
    with pytest.raises(BadUsername, match="1 to 100"):
        normalise_username(name)


def test_the_longest_name_may_be_typed_in_its_longest_form() -> None:
    """A decomposed name has up to four characters for one."""
    name = "\u1f82" * MAXIMUM_USERNAME
    typed = unicodedata.normalize("NFD", name)
    assert len(typed) == MAXIMUM_TYPED_USERNAME
    with pytest.raises(BadUsername):
        # Folded, each of these letters has an iota of its own.
        normalise_username(typed)
    assert len(normalise_username(unicodedata.normalize("NFD", "ệ" * MAXIMUM_USERNAME))) == MAXIMUM_USERNAME


class Untouchable(str):
    """A text that nobody may work on."""

    def strip(self, *_: object) -> str:
        raise AssertionError("the length comes first")


def test_the_length_is_checked_before_any_work() -> None:
    """A stranger's long name is not normalised before it is refused."""
    with pytest.raises(AssertionError):
        normalise_username(Untouchable("a" * MAXIMUM_TYPED_USERNAME))
    with pytest.raises(BadUsername):
        normalise_username(Untouchable("a" * (MAXIMUM_TYPED_USERNAME + 1)))


@given(st.text(max_size=120))
def test_a_name_that_was_accepted_before_has_the_same_form(typed: str) -> None:
    """Stored names are found as before."""
    before = accepted_before(typed)
    if before is not None:
        assert normalise_username(typed) == before


def names_of(alphabet: list[str]) -> st.SearchStrategy[str]:
    """A letter, then letters, digits and the punctuation that names had, then a letter."""
    letter = st.sampled_from(alphabet)
    return st.builds(
        lambda first, middle, last: first + "".join(middle) + last,
        letter,
        st.lists(letter | st.sampled_from("0123456789._@+-"), max_size=20),
        letter,
    )


@given(st.one_of(*(names_of(alphabet) for alphabet in [*ALPHABETS.values(), JAPANESE])))
def test_a_name_that_was_accepted_before_is_accepted_still(typed: str) -> None:
    if (before := accepted_before(typed)) is not None:
        assert normalise_username(typed) == before
        assert refusal(typed) == ""


@pytest.mark.parametrize(
    "name",
    [
        "①Ⅳↀ",  # numerals that are no decimal digits: RFC 8264, 9.9 (OtherLetterDigits)
        "\u0640",  # a tatweel, which stretches a word and says nothing (RFC 5892, 2.6)
        "\u1160",  # a filler, which is not seen (OldHangulJamo)
        "1שרה",  # digits before right-to-left letters are shown behind them (RFC 5893, 2)
        "ann৪",  # a Bengali four looks like an eight
    ],
)
def test_what_was_accepted_before_and_is_not_now(name: str) -> None:
    """Nobody gets such a name any more; somebody who has one is found by it."""
    assert accepted_before(name) == normalise_username(name)
    assert refusal(name)


@given(st.text(max_size=20), st.sampled_from(FORMS), st.sampled_from([str.upper, str.lower, str.casefold]))
def test_a_name_has_one_form_however_it_is_typed(name: str, form: str, case: Callable[[str], str]) -> None:
    """T105: an accepted name is found in every normalisation form, and by itself."""
    if refusal(name):
        return
    stored = normalise_username(name)
    assert normalise_username(stored) == stored
    assert normalise_username(unicodedata.normalize(form, name)) == stored
    assert normalise_username(unicodedata.normalize(form, stored)) == stored


def test_every_script_is_known() -> None:
    """A letter, mark or digit of no known script would be refused in any name."""
    unknown = [
        f"U+{ord(character):04X}"
        for character in map(chr, range(0x21, 0x20000))
        if unicodedata.category(character) in ("Ll", "Lo", "Lm", "Mn", "Mc", "Nd")
        and not regex.fullmatch(r"\p{DI}", character)
        and not usernames._one_writing().fullmatch(character)
    ]
    assert unknown == []
