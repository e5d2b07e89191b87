"""User names: the form in which they are stored and looked up, and the names that a person may get (RFC 8265).

These are two rules. `normalise_username` accepts every name, so that a stored name is found even if a later version of
the rules no longer allows it. `check_username` is applied once, when a name is stored.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import precis_i18n
import regex

from authserver.limits import MAXIMUM_TYPED_USERNAME, MAXIMUM_USERNAME

# ISO 15924 codes of the scripts in Unicode, but Zyyy (common), Zinh (inherited) and Zzzz (unknown).
_SCRIPTS = """
    Adlm Aghb Ahom Arab Armi Armn Avst Bali Bamu Bass Batk Beng Berf Bhks Bopo Brah Brai Bugi Buhd Cakm
    Cans Cari Cham Cher Chrs Copt Cpmn Cprt Cyrl Deva Diak Dogr Dsrt Dupl Egyp Elba Elym Ethi Gara Geor
    Glag Gong Gonm Goth Gran Grek Gujr Gukh Guru Hang Hani Hano Hatr Hebr Hira Hluw Hmng Hmnp Hung Ital
    Java Jurc Kali Kana Kawi Khar Khmr Khoj Kits Knda Krai Kthi Lana Laoo Latn Lepc Limb Lina Linb Lisu
    Lyci Lydi Mahj Maka Mand Mani Marc Medf Mend Merc Mero Mlym Modi Mong Mroo Mtei Mult Mymr Nagm Nand
    Narb Nbat Newa Nkoo Nshu Ogam Olck Onao Orkh Orya Osge Osma Ougr Palm Pauc Pcun Perm Phag Phli Phlp
    Phnx Plrd Prti Rjng Rohg Runr Samr Sarb Saur Seal Sgnw Shaw Shrd Sidd Sidt Sind Sinh Sogd Sogo Sora
    Soyo Sund Sunu Sylo Syrc Tagb Takr Tale Talu Taml Tang Tavt Tayo Telu Tfng Tglg Thaa Thai Tibt Tirh
    Tnsa Todr Tols Toto Tutg Ugar Vaii Vith Wara Wcho Xpeo Xsux Yezi Yiii Zanb
"""
# Scripts that are written together (UTS 39, 5.2, "highly restrictive"): Japanese, Chinese and Korean, with Latin.
_MIXTURES = ("Latn Hani Hira Kana", "Latn Hani Bopo", "Latn Hani Hang")
# In a decomposed name: a mark on no letter, the same mark twice, more marks than a language needs (UTS 39, 5.4).
_ODD_MARKS = regex.compile(r"(?<![\p{L}\p{M}\p{Nd}\u200c\u200d])\p{M}|(\p{Mn})\1|\p{Mn}{5}")
_NO_TEXT = regex.compile(r"[\p{Cc}\p{Cs}]")
_PROFILE = precis_i18n.get_profile("UsernameCaseMapped:CaseFold")

_LENGTH = f"a user name has 1 to {MAXIMUM_USERNAME} characters"


@cache
def _one_writing() -> regex.Pattern[str]:
    """A text in one script, or in scripts that are written together; compiled when the first name is vetted.

    A character that several scripts share counts for each of them (Script_Extensions; UTS 39, 5.1).
    """
    return regex.compile(
        "|".join(
            "[" + "".join(rf"\p{{scx={script}}}" for script in ("Zyyy", "Zinh", *writing.split())) + "]*+"
            for writing in (*_SCRIPTS.split(), *_MIXTURES)
        )
    )


class BadUsername(ValueError):
    """The name cannot be a user name; the message says why."""


def normalise_username(username: str) -> str:
    """The form in which a name is stored, looked up and compared: NFKC and case-folded (T105).

    RFC 8265 maps less: width, lower case, NFC. Here `ﬁ` and `fi`, or `ß` and `ss`, are one name as well.

    Raises:
        BadUsername: the name is empty, too long, or has characters that no storage keeps.
    """
    # The length is checked first: a stranger's text may be long, and normalising it costs time.
    if len(username) > MAXIMUM_TYPED_USERNAME:
        raise BadUsername(_LENGTH)
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username.strip()).casefold())
    if not 1 <= len(name) <= MAXIMUM_USERNAME:
        raise BadUsername(_LENGTH)
    if _NO_TEXT.search(name):
        raise BadUsername("a user name has no control characters")
    return name


def check_username(name: str) -> None:
    """Check that a person may get a name, given in its normalised form.

    Allowed are printable ASCII but the space, the letters, marks and digits of all scripts, and joiners and middle
    dots in their context; right-to-left letters follow the Bidi Rule (RFC 8264, 4.2; RFC 8265, 3.3). A name in
    mixed scripts imitates another name (UTS 39, 5).

    Raises:
        BadUsername: the name breaks a rule.
    """
    try:
        _PROFILE.enforce(name)
    except UnicodeEncodeError as error:
        raise BadUsername(_broken_rule(name, error)) from None
    if _ODD_MARKS.search(unicodedata.normalize("NFD", name)):
        raise BadUsername("a user name has its marks on letters, and few on each")
    if not _one_writing().fullmatch(name):
        raise BadUsername("a user name is written in one script")
    if len({ord(digit) - unicodedata.decimal(digit) for digit in name if digit.isdecimal()}) > 1:
        raise BadUsername("a user name has the digits of one script")


def _broken_rule(name: str, error: UnicodeEncodeError) -> str:
    # The reason is such as DISALLOWED/spaces, and names the rule of the RFC.
    rule = error.reason.rpartition("/")[2].replace("_", " ")
    if rule == "bidi rule":
        return (
            "a user name with right-to-left letters or digits begins with such a letter, ends with one or with a "
            "digit, and has no left-to-right letters"
        )
    return f"a user name has letters, digits and punctuation, but not U+{ord(name[error.start]):04X} here ({rule})"
