"""The languages of pages: which are offered, how one is chosen, and how it writes dates.

The sentences of a language are in `authserver/locale/LANGUAGE.po`, and in a folder of the deployer
(`authserver.translations`), whose sentences take precedence. The PO files are read directly; no compiled files are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time, get_datetime_format
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from pyramid.i18n import Localizer, Translations, TranslationString, TranslationStringFactory, make_localizer
from webob.acceptparse import AcceptLanguageValidHeader

from authserver.ini import did_you_mean
from authserver.limits import MAXIMUM_LANGUAGES
from authserver.settings import Settings, SettingsError

DOMAIN = "authserver"
# The language of the sentences in the code; it needs no file.
SOURCE = "en"
_SHIPPED = Path(__file__).parents[1] / "locale"
_ = TranslationStringFactory(DOMAIN)
_RANGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")
# A line of a PO file. Babel does not report all lines that it cannot read.
_LINE = re.compile(r'\s*(#.*|((msgid|msgid_plural|msgctxt|msgstr(\[\d\])?)\s*)?"([^"\\]|\\.)*"\s*)?')
# A slot into which a template puts a value; sentences without a slot may have percent signs.
_SLOT = re.compile(r"%\((\w+)\)s")
# Descriptions that the engine makes around the name of a parameter.
_WITH_NAME = (
    (re.compile(r"(\S+) is missing"), _("${name} is missing")),
    (re.compile(r"(\S+) occurs more than once"), _("${name} occurs more than once")),
)


class PageLanguage:
    """The language that a page is in.

    Attributes:
        tag: the language of the sentences, one of `authserver.languages`.
        direction: the direction of its writing, `ltr` or `rtl`.
    """

    def __init__(self, tag: str, asked: str = "") -> None:
        """`asked` is the wish of the person; if it names a region, dates are written as in that region."""
        self.tag = tag
        own = _locale(tag) or Locale(SOURCE)
        # The direction of the sentences: a person who asks for `pa-Arab` gets those of `pa`, in another script.
        self.direction: str = own.text_direction
        self._locale = _locale(asked or tag) or own

    def day(self, time: datetime) -> str:
        """The day of a time in UTC: `29. November 2026`."""
        return format_date(time.astimezone(UTC), "long", locale=self._locale)

    def minute(self, time: datetime) -> str:
        """A time to the minute in UTC, such as `29.11.2026, 14:03 UTC`."""
        time = time.astimezone(UTC)
        joined = str(get_datetime_format("medium", locale=self._locale)).replace("'", "")
        clock = format_time(time, "short", tzinfo=UTC, locale=self._locale)
        return f"{joined.replace('{0}', clock).replace('{1}', format_date(time, 'medium', locale=self._locale))} UTC"


class Languages:
    """The languages of one server.

    Attributes:
        offered: the tags of `authserver.languages`; the first is for people who want none of them.
    """

    def __init__(self, settings: Settings) -> None:
        self.offered = settings.languages
        self._folder = settings.translations
        self._localizers: dict[str, Localizer] = {}

    def choose(self, ui_locales: str, accept_language: str) -> PageLanguage:
        """The first wanted language that is offered (RFC 4647, 3.4).

        Args:
            ui_locales: the parameter of the authorization request (OIDC Core, 3.1.2.1), which counts first.
            accept_language: the header of the browser (RFC 9110, 12.5.4).
        """
        ui_locales, accept_language = (
            text if len(text) <= MAXIMUM_LANGUAGES else "" for text in (ui_locales, accept_language)
        )
        return _chosen(self.offered, ui_locales, accept_language)

    def localizer(self, tag: str, folders: Iterable[str]) -> Localizer:
        """The localizer for this language, with our sentences and those of plugins in these folders."""
        if tag not in self._localizers:
            localizer = make_localizer(underscored(tag), folders)
            for path in _files(tag, self._folder):
                sentences: Any = Translations(BytesIO(_compiled(path, tag)), DOMAIN)
                # For an empty text gettext would return the head of the file.
                sentences._catalog[""] = ""
                localizer.translations.add(sentences)
            self._localizers[tag] = localizer
        return self._localizers[tag]


def check(settings: Settings) -> None:
    """Raise SettingsError for a language that does not exist, and for a file of translations that cannot be used."""
    problems = []
    own: set[str] = set()
    if settings.translations and not Path(settings.translations).is_dir():
        problems.append(f"authserver.translations: there is no folder {settings.translations}")
    elif settings.translations:
        for path in sorted(Path(settings.translations).glob("*.po")):
            own.add(path.stem)
            problem = _file_problem(path)
            if not problem and path.stem not in settings.languages:
                problem = "the language is not among authserver.languages; add it there, or remove the file"
            if problem:
                problems.append(f"authserver.translations: {path}: {problem}")
    known = {*shipped(), *own}
    for tag in settings.languages:
        if tag not in known:
            near = lookup([tag], known)
            hint = f"did you mean {near[0]}" if near else did_you_mean(tag, known, "")
            problems.append(f"authserver.languages: {tag}: no such language; {hint}")
    if len(set(settings.languages)) < len(settings.languages):
        problems.append("authserver.languages: a language occurs twice")
    if problems:
        raise SettingsError(problems)


@cache
def shipped() -> tuple[str, ...]:
    """The languages that come with the server."""
    return (SOURCE, *sorted(path.stem for path in _SHIPPED.glob("*.po")))


def lookup(wanted: Iterable[str], offered: Iterable[str]) -> tuple[str, str] | None:
    """The first wanted language range for which a language is offered (RFC 4647, 3.4).

    Returns:
        The offered tag and the wanted range, which is for dates: for example `de` and `de-AT` for the wish `de-AT`.
    """
    tags = {tag.lower(): tag for tag in offered}
    for asked in wanted:
        if not _RANGE.fullmatch(asked):
            continue
        for shorter in _shorter(asked.lower()):
            if shorter in tags:
                return tags[shorter], asked
    return None


def translatable(sentence: str) -> str:
    """Mark a sentence for the catalogues, under the name `_`; the page that shows it translates it."""
    return sentence


def in_words(description: str) -> TranslationString:
    """The description of a refusal as a sentence that pages can translate."""
    for pattern, sentence in _WITH_NAME:
        if found := pattern.fullmatch(description):
            return TranslationString(sentence, domain=DOMAIN, mapping={"name": found[1]})
    return _(description)


@lru_cache(maxsize=256)
def _chosen(offered: tuple[str, ...], ui_locales: str, accept_language: str) -> PageLanguage:
    """Like `choose`, but cached, because browsers send few different headers."""
    for wanted in (ui_locales.split(), _by_quality(accept_language)):
        if found := lookup(wanted, offered):
            return PageLanguage(*found)
    return PageLanguage(offered[0])


def _by_quality(header: str) -> list[str]:
    """The language ranges of the header, the most wanted first, without unwanted ones; empty for a malformed header."""
    try:
        ranges = AcceptLanguageValidHeader(header).parsed
    except ValueError:
        return []
    unwanted = {tag.lower() for tag, quality in ranges if not quality}
    by_quality = sorted((item for item in ranges if item[1]), key=lambda item: -item[1])
    return [tag for tag, _quality in by_quality if not unwanted.intersection(_shorter(tag.lower()))]


def _shorter(tag: str) -> Iterator[str]:
    """The tag, and then the tag without its last subtags, one after the other; no result ends with a single letter."""
    subtags = tag.split("-")
    while subtags:
        yield "-".join(subtags)
        subtags.pop()
        if subtags and len(subtags[-1]) == 1:
            subtags.pop()


@lru_cache(maxsize=256)
def _locale(tag: str) -> Locale | None:
    """The formats of dates for this tag, or for its longest known prefix."""
    for shorter in _shorter(tag):
        try:
            return Locale.parse(shorter, sep="-")
        except (ValueError, UnknownLocaleError):
            continue
    return None


def _file_problem(path: Path) -> str | None:
    """Why this file of a deployer's own translations cannot be used."""
    if _locale(path.stem) is None or not _RANGE.fullmatch(path.stem):
        return "its name must be that of a language, such as it.po or pt-BR.po"
    try:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if not _LINE.fullmatch(line):
                return f"line {number}: expected msgid or msgstr and a text in quotation marks, or a # and a comment"
        catalog = _read(path, path.stem)
    except (PoFileError, OSError, ValueError, LookupError) as error:
        return f"cannot be read: {error}"
    for message, errors in catalog.check():
        return f"line {message.lineno}: {errors[0]}"
    for message in catalog:
        if not _fits(message):
            return f"line {message.lineno}: write each slot as in msgid, such as %(name)s, and a percent sign as %%"
    return None


def _fits(message: Message) -> bool:
    """Whether the slots of a sentence can be filled in its translations."""
    ids, strings = _texts(message.id), _texts(message.string)
    slots = {name: "" for text in ids for name in _SLOT.findall(text)}
    try:
        return all(text % slots is not None for text in strings if slots)
    except (ValueError, KeyError, TypeError):
        return False


def _texts(text: str | Iterable[str] | None) -> tuple[str, ...]:
    """A text, or its singular and plurals."""
    return (text,) if isinstance(text, str) else tuple(text or ())


def _files(tag: str, folder: str) -> list[Path]:
    """The files with the sentences of this language: first that of the server, then that of the deployer."""
    folders = [_SHIPPED, *([Path(folder)] if folder else [])]
    return [path for path in (each / f"{tag}.po" for each in folders) if path.is_file()]


def _read(file: Path, tag: str) -> Catalog:
    with file.open("rb") as opened:
        return read_po(opened, locale=underscored(tag), abort_invalid=True)


@cache
def _compiled(file: Path, tag: str) -> bytes:
    """The sentences of a file in the form that `gettext` reads."""
    compiled = BytesIO()
    write_mo(compiled, _read(file, tag))
    return compiled.getvalue()


def underscored(tag: str) -> str:
    """The name that Pyramid and Babel have for the language of this tag."""
    return tag.replace("-", "_")
