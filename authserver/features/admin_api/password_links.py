"""Links with which users set a password. A link gives access to the account, so it has a scope of its own."""

from __future__ import annotations

from datetime import timedelta

from authserver.administration import (
    MAXIMUM_LIFETIME,
    MINIMUM_LIFETIME,
    NoLink,
    NoMail,
    SentLink,
    make_link,
    send_link,
    signs_in_elsewhere,
)
from authserver.api import Parameter
from authserver.features.admin_api import problems
from authserver.features.admin_api.entries import TIME, Answer, Call, Entry, Sent, conflict, sentence
from authserver.features.admin_api.people import find, refuse_operators

WRITE = "authserver:password-links:write"
SCOPES = {WRITE: "Make links that set another password for any person"}
SHORTEST, LONGEST = (int(each.total_seconds()) for each in (MINIMUM_LIFETIME, MAXIMUM_LIFETIME))


def make(call: Call) -> Answer:
    """Make a link with which a user sets a password. The answer has it, or it is sent by mail.

    Raises:
        Problem: the administrator may not act on this user, or there is no mail address to send it to.
    """
    user, sent = find(call), Sent(call.sent)
    seconds = sent.number("lifetime", None, least=SHORTEST, most=LONGEST)
    by_mail = sent.flag("by_mail", False)
    sent.end()
    # With a new password the administrator could act as this user.
    refuse_operators(call, user.groups)
    if signs_in_elsewhere(call.engine, user):
        # The directory may give the user other groups at the next sign-in, and the password would still be valid.
        call.administrator.refuse_beyond(call.engine.scopes)
    lifetime = None if seconds is None else timedelta(seconds=seconds)
    try:
        link = (send_link if by_mail else make_link)(call.engine, user, lifetime)
    except (NoLink, NoMail) as error:
        raise conflict(sentence(str(error))) from error
    told = {"sent_to": link.sent_to} if isinstance(link, SentLink) else {"link": link.address}
    return Answer(
        body={"user_id": user.user_id, "username": user.username, **told, "expires_at": link.expires_at}
    )


ENTRIES = (
    Entry(
        method="POST",
        path="/users/{user_id}/password-link",
        scope=WRITE,
        summary="Make a link with which a person sets a password once. An earlier link does not work any more.",
        act=make,
        body={
            "lifetime": Parameter(
                description="Seconds for which it works; the value of the settings unless given.",
                schema={"type": ["integer", "null"], "minimum": SHORTEST, "maximum": LONGEST},
            ),
            "by_mail": Parameter(
                description="Send it to the mail address of the person; then it is not in the answer.",
                schema={"type": ["boolean", "null"]},
            ),
        },
        status=201,
        answer={
            "user_id": Parameter(description="The person whose password it sets.", required=True),
            "username": Parameter(description="The user name of this person.", required=True),
            "link": Parameter(description="The address of the link; it is not shown again."),
            "sent_to": Parameter(description="The mail address to which it was sent, with `by_mail`."),
            "expires_at": Parameter(description="Until when it works.", schema=TIME, required=True),
        },
        problems=(problems.CONFLICT, problems.BEYOND_OWN_SCOPES),
    ),
)
