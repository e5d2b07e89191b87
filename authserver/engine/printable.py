"""Text of others: decides which of its characters are visible, and which hide or rearrange something (T094).

Hidden are control, format and bidi characters, line breaks, private-use and unassigned characters, lone surrogates, and
characters that Unicode displays as nothing, such as fillers. Joiners and selectors count as visible where a script or
an emoji needs them.
"""

from __future__ import annotations

from collections.abc import Callable

import regex

# An alternative consumes one character, with the joiners and selectors that belong to it.
_SEEN = r"""
    # the flag of a region of a country, spelt in tags (UTS 51, 1.4.7)
    \U0001F3F4 [\U000E0061-\U000E007A]{2} [\U000E0030-\U000E0039\U000E0061-\U000E007A]{1,4} \U000E007F
    # an emoji, or several joined, with skin tones and styles (UTS 51, 1.4)
  | EMOJI (?: \p{EMod} | \uFE0F )? (?: \u200D EMOJI (?: \p{EMod} | \uFE0F )? )*+ \uFE0E?
    # a keycap
  | [0-9#*] \uFE0F \u20E3
    # a variant of an ideograph, or of a Mongolian letter
  | \p{Ideographic} [\uFE00-\uFE02\U000E0100-\U000E01EF]
  | MONGOLIAN [\u180B-\u180D\u180F]
  | (?<= MONGOLIAN ) \u180E (?= MONGOLIAN )
    # a joiner after a virama; a non-joiner between letters that would join as well (RFC 5892, A.1 and A.2)
  | (?<= \p{ccc=9} ) [\u200C\u200D]
  | (?<= [\p{jt=L}\p{jt=D}] MARK* ) \u200C (?= MARK* [\p{jt=R}\p{jt=D}] )
    # what is neither hidden nor blank
  | [^\p{C}\p{DI}\p{Zl}\p{Zp}\u2800]
"""
for _name, _characters in {
    "EMOJI": r"[\p{Emoji}&&\p{ExtPict}]",
    "MARK": r"[\p{jt=T}--[\p{C}\p{DI}]]",
    "MONGOLIAN": r"[\p{scx=Mong}&&\p{L}]",
}.items():
    _SEEN = _SEEN.replace(_name, _characters)
_FLAGS = regex.VERBOSE | regex.VERSION1 | regex.DOTALL
_ALL_SEEN = regex.compile(rf"(?:{_SEEN})*+", _FLAGS)
_SEEN_OR_HIDDEN = regex.compile(rf"(?P<seen>{_SEEN})|(?P<hidden>.)", _FLAGS)


def is_printable(text: str) -> bool:
    """Whether all characters of a text are visible."""
    return _ALL_SEEN.fullmatch(text) is not None


def without_hidden(text: str) -> str:
    """A text without its hidden characters."""
    return str(_SEEN_OR_HIDDEN.sub(lambda found: found["seen"] or "", text))


def escaped(character: str) -> str:
    r"""The escape of a character in Python, such as `\x1b` and `\n`."""
    return character.encode("unicode_escape").decode()


def made_visible(text: str, escape: Callable[[str], str] = escaped) -> str:
    """A text with an escape for each hidden character: one line, safe for a terminal."""
    if text.isascii() and text.isprintable():
        # True for most lines of the log; to look at each character takes as long as a signature.
        return text
    return str(_SEEN_OR_HIDDEN.sub(lambda found: found["seen"] or escape(found["hidden"]), text))
