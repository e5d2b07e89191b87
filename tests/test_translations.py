"""Every sentence of the pages is in every language, with what it has to hold; `make messages` brings new ones there."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po

from authserver.engine import errors
from authserver.settings import Settings
from authserver.web.languages import shipped

CHECKOUT = Path(__file__).parents[1]
LOCALE = CHECKOUT / "authserver" / "locale"
# Errors that only programs get, as JSON, in English.
JSON_ALONE = {
    "InvalidClient",
    "InvalidClientMetadata",
    "InvalidGrant",
    "InvalidRedirectUri",
    "InsufficientScope",
    "InvalidToken",
    # Its page says more.
    "PasswordLinkRefused",
    "UnsupportedGrantType",
    "UnsupportedTokenType",
}
# What a translation must hold as often as the English: slots, tags, addresses of the protocol.
_HELD = re.compile(r"%\(\w+\)s|\$\{\w+\}|</?\w[^>]*>")


def catalogue(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, abort_invalid=True)


def sentences(catalog: Catalog) -> dict[str, Message]:
    return {
        message.id if isinstance(message.id, str) else message.id[0]: message
        for message in catalog
        if message.id
    }


def texts(message: Message) -> Iterator[str]:
    """The translations of a sentence that there are: one, or one for each plural form."""
    yield from filter(None, [message.string] if isinstance(message.string, str) else message.string)


TEMPLATE = sentences(catalogue(LOCALE / "authserver.pot"))
TRANSLATED = {path.stem: catalogue(path) for path in sorted(LOCALE.glob("*.po"))}
each_language = pytest.mark.parametrize("language", TRANSLATED)


def test_the_catalogue_template_is_what_pybabel_extracts_now(tmp_path: Path) -> None:
    """Whoever changes a sentence runs `make messages`."""
    shown = subprocess.run(
        ["make", "-n", "messages"], cwd=CHECKOUT, check=True, capture_output=True, text=True
    )
    (command,) = [shlex.split(line) for line in shown.stdout.splitlines() if " extract " in line]
    command[command.index("-o") + 1] = str(tmp_path / "new.pot")
    subprocess.run([sys.executable, "-m", "babel.messages.frontend", *command[1:]], cwd=CHECKOUT, check=True)
    found = sentences(catalogue(tmp_path / "new.pot"))
    assert found.keys() == TEMPLATE.keys()
    assert {
        "Sign in",
        "Something went wrong",
        "Server metadata",
        "state holds characters outside %x20-7E.",
    } <= found.keys()


def test_every_error_that_a_page_may_show_is_extracted() -> None:
    """A new error class is added to ERRORS in the Makefile, or here as one that no person sees."""
    named = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.Refusal) and kind.__module__ == errors.__name__
    } - {"Refusal", "OAuthError", "PageError", "RedirectError"}
    # Of a feature: the browser brings a reference to a request that is not there.
    text = (CHECKOUT / "Makefile").read_text().replace("\\\n", "")
    extracted = re.search(r"^ERRORS := (.*)$", text, re.MULTILINE)
    assert extracted
    assert {*extracted[1].split()} == named - JSON_ALONE | {"InvalidRequestUri"}


def test_the_languages_that_are_offered_are_those_that_come_with_the_server() -> None:
    assert set(Settings.__dataclass_fields__["languages"].default) == {*shipped()} == {"en", *TRANSLATED}


@each_language
def test_no_sentence_is_missing(language: str) -> None:
    found = sentences(TRANSLATED[language])
    assert found.keys() - TEMPLATE.keys() == set(), "run `make messages`"
    missing = [
        english
        for english, message in TEMPLATE.items()
        if english not in found
        or found[english].fuzzy
        or len(list(texts(found[english])))
        < (TRANSLATED[language].num_plurals if message.pluralizable else 1)
    ]
    if missing:
        listed = "\n  ".join(missing)
        pytest.fail(f"not translated in authserver/locale/{language}.po:\n  {listed}", pytrace=False)


@each_language
def test_a_translation_holds_the_slots_and_tags_of_its_sentence(language: str) -> None:
    catalog = TRANSLATED[language]
    wrong = [(message.id, str(problems[0])) for message, problems in catalog.check() if any(texts(message))]
    for english, message in sentences(catalog).items():
        for text in texts(message):
            if Counter(_HELD.findall(text)) != Counter(_HELD.findall(english)):
                wrong.append((english, text))
    assert wrong == []


@each_language
def test_a_translation_ends_as_its_sentence(language: str) -> None:
    """A sentence stays a sentence, and a label a label: they stand among others of their kind."""
    wrong = [
        text
        for english, message in sentences(TRANSLATED[language]).items()
        for text in texts(message)
        if (english.rstrip(".") != english and not text.endswith((".", "。")))
        or (english.endswith("?") and not text.endswith("?"))
        or (english.endswith(":") and not text.endswith(":"))
        or text != text.strip()
    ]
    assert wrong == []


@each_language
def test_each_language_has_its_quotation_marks(language: str) -> None:
    """English ones are a sign of a sentence that was copied; straight ones stand in tags alone."""
    wrong = [
        text
        for message in sentences(TRANSLATED[language]).values()
        for text in texts(message)
        if {"de": "”", "fr": "“", "es": "“", "ja": "“"}[language] in text
        or '"' in re.sub(r"<[^>]*>", "", text)
    ]
    assert wrong == []
