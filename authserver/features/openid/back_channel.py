"""Applications are told when a session ends (OpenID Connect Back-Channel Logout 1.0), and lose what hangs on it.

What is to be sent is in the event of the end, which is stored in the transaction that ends the session. It is read after
that, and again until each application has taken its logout token or refused it for good, or is given up: so a restart loses
none, and an application that was told is not told again.
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
# Why a grant ended, as it keeps it, and the event.
SESSION_ENDED = "session-ended"
# How long it is kept that an application was told: longer than any event waits.
KEPT = timedelta(days=7)
# How long after the end of a session an application is asked again that does not answer: after that, others need not wait.
PATIENCE = timedelta(minutes=15)
PAGE = 500
MAXIMUM_ANSWER = 4_096
# Of the refusals, those after which trying again helps.
PASSING = (408, 425, 429)
log = logging.getLogger(__name__)


class NotTold(Exception):
    """An application was not reached; the message says which, and nothing of a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What one application is told of one session.

    Attributes:
        mark: stored when that is done.
        problem: why nobody knows now where the application is told; "" if that is known.
    """

    client_id: str
    mark: Kept
    uri: str = ""
    token: str = ""
    problem: str = ""


def deliver(begin: Begin, events: Sequence[Event]) -> None:
    """Tell the applications of the sessions that these events ended.

    Raises:
        NotTold: some could not be reached, and their sessions ended less than PATIENCE ago; all others are told.
    """
    ends = [
        (event, event.user_id, event.details[ENDED_SESSIONS])
        for event in events
        if event.user_id is not None and event.details.get(ENDED_SESSIONS)
    ]
    # First for all: nobody who does not answer holds it up.
    for _, user_id, ended in ends:
        with begin() as engine:
            end_access(engine, user_id, ended)
    # Who does not answer is asked once for all events of this round.
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
                log.warning("%s is given up, and not told that a session ended: %s", notice.client_id, why)
            with begin() as keeping:
                keeping.stores.kept.add_once(notice.mark)
    if waiting:
        raise NotTold("; ".join(f"{client_id}: {why}" for client_id, why in waiting.items()))


def _tell(engine: Engine, notice: Notice) -> str:
    """Send the logout token, outside of any transaction; why that must be done again, "" if it is done."""
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
        # It has answered, though in a way that nobody reads: with a redirect, or with a long page.
        status = failed.status
    if status >= 500 or status in PASSING:
        return f"it answered {status}"
    if not 200 <= status < 300:
        log.warning("the logout token for %s was refused: it answered %d", notice.client_id, status)
    return ""


def end_access(engine: Engine, user_id: str, ended: Collection[str]) -> int:
    """End what applications got by signing somebody in in these sessions; how many grants that were.

    With the scope `offline_access` they keep it, and so do those that only asked for access (Back-Channel Logout, 2.7), and
    other devices, for which the person answered in the browser. A code that nobody has redeemed yet is worth nothing any
    more: of what it would give, nobody would be told that it has ended.
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
    """Whether an application signed somebody in by this grant in one of these sessions."""
    return grant.details.get("session") in sessions and OPENID in grant.scopes


def _notices(engine: Engine, user_id: str, ended: Collection[str]) -> Iterator[Notice]:
    """What is still to be sent: once to each application that got a token in one of these sessions."""
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
        # Not with the grant: this ends with the session, and is deleted soon.
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
    """The client, if it is to be told. Raises OAuthError if that cannot be known now."""
    try:
        client = engine.find_client(client_id)
    except InvalidClient:
        return None
    return client if client is not None and client.is_enabled and URI in client.details else None


def _grants(engine: Engine, user_id: str, *, redeemed: bool) -> Iterator[Grant]:
    """All grants of the user, also those that ended; if `redeemed`, without those whose code nobody has redeemed yet."""
    place = None
    while found := engine.stores.grants.search(
        GrantFilter(user_id=user_id, redeemed=redeemed), after=place, limit=PAGE
    ):
        yield from found
        place = (found[-1].created_at, found[-1].grant_id)
