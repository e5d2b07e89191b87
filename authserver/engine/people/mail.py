"""Writes letters to people who have a mail address, if a plugin sends mail."""

from __future__ import annotations

from datetime import datetime

from authserver.engine.context import Engine
from authserver.engine.letters import Letter, LetterKind, NoMail, address_of, is_mail_on
from authserver.engine.records import User


def write(
    engine: Engine, user: User, kind: LetterKind, *, link: str = "", until: datetime | None = None
) -> str:
    """Write a letter, which is sent after the commit.

    Returns:
        its mail address; "" if the person has none or no plugin sends mail: then no letter is written.
    """
    address = address_of(engine.settings, user) if is_mail_on(engine.policies) else ""
    if address:
        engine.journal.letters.append(
            Letter(
                kind=kind,
                user=user,
                recipient=address,
                written_at=engine.now,
                link=link,
                until=until,
                languages=_languages(engine, user),
            )
        )
    return address


def check_address(engine: Engine, user: User) -> None:
    """Raises NoMail unless mail can be sent to this person."""
    if not is_mail_on(engine.policies):
        raise NoMail(
            "no plugin sends mail: list one that does in authserver.plugins, as the INI file describes"
        )
    if not address_of(engine.settings, user):
        name = engine.settings.mail_attribute
        raise NoMail(
            f"{user.username} has no mail address: `authserver user edit {user.username} --attribute {name}=ADDRESS`"
        )


def _languages(engine: Engine, user: User) -> str:
    """The languages that the user's browser asks for; none if an operator acts, who may speak another language."""
    is_own = engine.caller.actor == "stranger" and engine.journal.actor in (None, f"user:{user.user_id}")
    return engine.caller.headers.get("accept-language", "") if is_own else ""
