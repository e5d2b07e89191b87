"""Messages to people by mail: a letter has the facts, a mail has the text (hook `send_mail`).

A rule writes a letter into the journal of its request. It is sent only after the transaction is committed: no mail is
about something that did not happen, and no request waits for a mail server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from authserver.engine.ports import Policies
from authserver.engine.records import User
from authserver.settings import Settings

HOOK = "send_mail"
# Addresses that every mail server accepts: a dot-atom of ASCII, and a domain of letters, digits and hyphens (RFC 5321,
# 4.1.2). No character in them can end a line or begin another address.
_ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
# The most characters of an address, and of its local part (RFC 5321, 4.5.3.1).
MAXIMUM_ADDRESS = 254
MAXIMUM_LOCAL_PART = 64


class NoMail(ValueError):
    """No mail can be sent to this person; the message says why and what to do."""


class MailFailed(Exception):
    """A mail was not sent; the message is a sentence for operators, without anything of the mail.

    `is_final`: the mail server refuses it for good, so another attempt would not help.
    """

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class LetterKind(StrEnum):
    """The kinds of letters."""

    FIRST_PASSWORD = "first-password"
    NEW_PASSWORD = "new-password"
    PASSWORD_CHANGED = "password-changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message to one person.

    Attributes:
        recipient: the address of the person.
        link: the address of the page that the person is to open; a secret. Empty for none.
        until: when the link ends.
        languages: the languages that the browser asked for (RFC 9110, 12.5.4), if known; else the first of the server.
    """

    kind: LetterKind
    user: User
    recipient: str = field(repr=False)
    written_at: datetime
    link: str = field(default="", repr=False)
    until: datetime | None = None
    languages: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail to one person, in plain text.

    Attributes:
        recipient: the address; it has been checked (`mail_address_problem`).
        subject: one line.
        text: lines that end with a line feed; it may hold a secret, so write it to no log.
        language: of subject and text, as a tag such as `de`.
    """

    recipient: str
    subject: str
    text: str = field(repr=False)
    language: str


def is_mail_on(policies: Policies) -> bool:
    """Whether any plugin sends mail."""
    return policies.serves(HOOK)


def mail_address_problem(text: str) -> str | None:
    """Why mail cannot be sent to this address; None if it can."""
    if (
        len(text) > MAXIMUM_ADDRESS
        or len(text.rpartition("@")[0]) > MAXIMUM_LOCAL_PART
        or not _ADDRESS.fullmatch(text)
    ):
        return "expected a mail address, such as ann@example.com"
    return None


def address_of(settings: Settings, user: User) -> str:
    """The mail address of a person: the first value of the attribute that the settings name; "" without a usable one."""
    address = next(iter(user.attributes.get(settings.mail_attribute, ())), "")
    return address if address and mail_address_problem(address) is None else ""
