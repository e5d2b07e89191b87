"""The texts of letters, in the language of the person (`engine.letters`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyramid.i18n import TranslationString, TranslationStringFactory

from authserver.engine.letters import Letter, LetterKind, Mail
from authserver.settings import Settings
from authserver.web.languages import Languages

_ = TranslationStringFactory("authserver")

SUBJECTS = {
    LetterKind.FIRST_PASSWORD: _("Set your password for ${product}"),
    LetterKind.NEW_PASSWORD: _("Set a new password for ${product}"),
    LetterKind.PASSWORD_CHANGED: _("Your password for ${product} has changed"),
}
GREETING = _("Hello ${name},")
WITH_LINK = _("Open this link to set your password for ${product}:")
ABOUT_LINK = _(
    "It works once, until ${time}. Whoever has it can set your password: send it to nobody. Your username is ${username}."
)
UNASKED = _("If you did not ask for it, do nothing: your password stays as it is.")
CHANGED = _(
    "Your password for ${product} was changed on ${time}. All your sessions have ended, and so has the access of all "
    "applications that you had allowed."
)
NOT_YOU = _("If it was not you, somebody else can sign in as you. Set another password at once:")
TELL = _("And tell the people who run ${product}.")


def mail_of(letter: Letter, settings: Settings, languages: Languages, *, ask_at: str) -> Mail:
    """The mail with the text of a letter.

    Args:
        ask_at: the address of the page where people ask for a link.
    """
    language = languages.choose("", letter.languages)
    localizer = languages.localizer(language.tag, ())
    user = letter.user
    about_time = letter.until if letter.link and letter.until else letter.written_at
    values = {
        "product": settings.product_name,
        "name": user.display_name or user.username,
        "username": user.username,
        "time": language.minute(about_time),
    }

    def say(sentence: str) -> str:
        text: str = localizer.translate(TranslationString(sentence, domain="authserver", mapping=values))
        return text

    return Mail(
        recipient=letter.recipient,
        subject=say(SUBJECTS[letter.kind]),
        text="\n\n".join(map(str, (say(GREETING), *_paragraphs(letter, say, ask_at)))) + "\n",
        language=language.tag,
    )


def _paragraphs(letter: Letter, say: Callable[[str], str], ask_at: str) -> Iterable[str]:
    if letter.kind is LetterKind.PASSWORD_CHANGED:
        return (say(CHANGED), say(NOT_YOU), ask_at, say(TELL))
    unasked = (say(UNASKED),) if letter.kind is LetterKind.NEW_PASSWORD else ()
    return (say(WITH_LINK), letter.link, say(ABOUT_LINK), *unasked)
