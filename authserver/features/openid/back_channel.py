"""Tells applications that a session has ended (OpenID Connect Back-Channel Logout 1.0), and ends their access from it.

The event of the end names the sessions; it is stored in the transaction that ends them. It is read afterwards, and again
until each application has accepted its logout token, refused it for good, or is given up. Therefore a restart loses no
message, and an application that accepted one gets it only once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode

from authserver.api import (
    ENDED_SESSIONS,
    OFFLINE_ACCESS,
    ON_ANOTHER_DEVICE,
    Begin,
    Client,
    Engine,
    Event,
    EventType,
    FetchFailed,
    Grant,
    GrantFilter,
    InvalidClient,
    Kept,
    OAuthError,
    digest,
    new_identifier,
)
from authserver.features.openid import id_tokens
from authserver.features.openid.claims import OPENID

# In the metadata of a client (Back-Channel Logout, 2.2).
URI = "backchannel_logout_uri"
SESSION_REQUIRED = "backchannel_logout_session_required"
TYPE = "logout+jwt"
EVENT = "http://schemas.openid.net/event/backchannel-logout"
# Seconds for which a logout token is valid (Back-Channel Logout, 2.4).
LIFETIME = 120
KIND = "logout-token"
# The reason for which a grant ended, as the grant and the event keep it.
SESSION_ENDED = "session-ended"
# How long the mark that an application was told is stored: longer than any event waits.
KEPT = timedelta(days=7)
# The time after the end of a session during which the message is sent again to an application that does not answer.
PATIENCE = timedelta(minutes=15)
PAGE = 500
MAXIMUM_ANSWER = 4_096
# The statuses of refusals after which another attempt may help.
PASSING = (408, 425, 429)
log = logging.getLogger(__name__)


class NotTold(Exception):
    """An application was not reached; the message says which, and nothing of a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The message to one application about one session.

    Attributes:
        mark: the record that is stored once the message was accepted.
        problem: why the address of the application is not known now; "" if it is known.
    """

    client_id: str
    mark: Kept
    uri: str = ""
    token: str = ""
    problem: str = ""


def deliver(begin: Begin, events: Sequence[Event]) -> None:
    """Tell the applications about the sessions that these events ended.

    Raises:
        NotTold: some could not be reached, and their sessions ended less than PATIENCE ago; all others were told.
    """
    ends = [
        (event, event.user_id, event.details[ENDED_SESSIONS])
        for event in events
        if event.user_id is not None and event.details.get(ENDED_SESSIONS)
    ]
    # First for all sessions, so that an application that does not answer does not delay it.
    for _, user_id, ended in ends:
        with begin() as engine:
            end_access(engine, user_id, ended)
    # An application that does not answer is asked only once for all events of this round.
    silent: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for event, user_id, ended in ends:
        with begin() as engine:
            notices = list(_notices(engine, user_id, ended))
            is_late = engine.now - event.at > PATIENCE
        for notice in notices:
            why = notice.problem or silent.get(notice.client_id) or _tell(engine, notice)
            if why:
                silent[notice.client_id] = why
                if not is_late:
                    waiting[notice.client_id] = why
                    continue
                log.warning("no further attempt to tell %s that a session ended: %s", notice.client_id, why)
            with begin() as keeping:
                keeping.stores.kept.add_once(notice.mark)
    if waiting:
        raise NotTold("; ".join(f"{client_id}: {why}" for client_id, why in waiting.items()))


def _tell(engine: Engine, notice: Notice) -> str:
    """Send the logout token, outside of any transaction. Returns why it must be sent again, or ""."""
    try:
        status = engine.fetcher.post(
            notice.uri,
            urlencode({"logout_token": notice.token}).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            maximum=MAXIMUM_ANSWER,
        ).status
    except FetchFailed as failed:
        if failed.status is None:
            return f"{failed.problem}: {failed.detail}"
        # It has answered, with a redirect or a long page, which is not read.
        status = failed.status
    if status >= 500 or status in PASSING:
        return f"it answered {status}"
    if not 200 <= status < 300:
        log.warning("the logout token for %s was refused: it answered %d", notice.client_id, status)
    return ""


def end_access(engine: Engine, user_id: str, ended: Collection[str]) -> int:
    """End the grants of applications that signed the person in with these sessions. Returns their number.

    Grants with the scope `offline_access` stay, and so do grants without a sign-in (Back-Channel Logout, 2.7) and those of
    other devices, for which the person answered in the browser. A code that is not redeemed yet ends, too, because the
    application could not be told later that the session has ended.
    """
    live = [
        grant.grant_id
        for grant in _grants(engine, user_id, redeemed=False)
        if _is_of(grant, ended)
        and grant.revoked_at is None
        and OFFLINE_ACCESS not in grant.scopes
        and ON_ANOTHER_DEVICE not in grant.details
    ]
    number = engine.stores.grants.revoke_some(live, engine.now, SESSION_ENDED) if live else 0
    if number:
        engine.journal.user_id = user_id
        engine.record(EventType.GRANTS_REVOKED, reason=SESSION_ENDED, details={"grants": number})
    return number


def _is_of(grant: Grant, sessions: Collection[str]) -> bool:
    """Whether an application signed the person in by this grant in one of these sessions."""
    return grant.details.get("session") in sessions and OPENID in grant.scopes


def _notices(engine: Engine, user_id: str, ended: Collection[str]) -> Iterator[Notice]:
    """The messages that are still to be sent: one to each application that got a token in one of these sessions."""
    clients: dict[str, Client | None] = {}
    problems: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for grant in _grants(engine, user_id, redeemed=True):
        client_id, session = grant.client_id, grant.details.get("session", "")
        if not _is_of(grant, ended) or (client_id, session) in seen:
            continue
        seen.add((client_id, session))
        if client_id not in clients:
            try:
                clients[client_id] = _find(engine, client_id)
            except OAuthError as error:
                clients[client_id], problems[client_id] = None, error.description
        client = clients[client_id]
        key = digest(KIND, f"{client_id} {session}")
        if (client is None and client_id not in problems) or engine.stores.kept.find(KIND, key) is not None:
            continue
        # The mark does not belong to the grant, because that ends with the session and is deleted soon.
        mark = Kept(kind=KIND, digest=key, created_at=engine.now, expires_at=engine.now + KEPT)
        if client is None:
            yield Notice(client_id=client_id, mark=mark, problem=problems[client_id])
        else:
            token = make(engine, client, grant, session)
            yield Notice(client_id=client_id, mark=mark, uri=client.details[URI], token=token)


def make(engine: Engine, client: Client, grant: Grant, session: str) -> str:
    """The logout token that tells this client of the end of a session (Back-Channel Logout, 2.4)."""
    now = int(engine.now.timestamp())
    claims: Mapping[str, object] = {
        "iss": engine.settings.issuer,
        "sub": grant.subject,
        "aud": client.client_id,
        "iat": now,
        "exp": now + LIFETIME,
        "jti": new_identifier(),
        "events": {EVENT: {}},
        "sid": session,
    }
    return engine.signer.sign(claims, typ=TYPE, algorithm=id_tokens.algorithm_of(client))


def _find(engine: Engine, client_id: str) -> Client | None:
    """The client, if it gets logout tokens, else None. Raises OAuthError if that cannot be known now."""
    try:
        client = engine.find_client(client_id)
    except InvalidClient:
        return None
    return client if client is not None and client.is_enabled and URI in client.details else None


def _grants(engine: Engine, user_id: str, *, redeemed: bool) -> Iterator[Grant]:
    """All grants of the user, also ended ones; if `redeemed`, without those whose code is not redeemed yet."""
    place = None
    while found := engine.stores.grants.search(
        GrantFilter(user_id=user_id, redeemed=redeemed), after=place, limit=PAGE
    ):
        yield from found
        place = (found[-1].created_at, found[-1].grant_id)
