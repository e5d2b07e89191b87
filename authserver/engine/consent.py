"""Agreement: what a client may have of a person, whether they are asked, and what is remembered of it.

No rule here knows how the client asked or where its answer goes: any grant type may ask a person.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.decisions import Verdict
from authserver.engine.errors import AccessDenied, InvalidRequest, PageError
from authserver.engine.questions import ConsentQuestion
from authserver.engine.records import Client, Consent, EventType, Grant, Session, User


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What the user would let the client have, or does.

    `scopes` and `resources` are what policies and floor let through (`engine.asking`).
    """

    client: Client
    user: User
    scopes: tuple[str, ...]
    resources: tuple[str, ...]

    def narrowed(self, scopes: Collection[str]) -> Agreement:
        """The part of it that has one of these scopes; never more than it (E-14, E-15)."""
        return replace(self, scopes=tuple(scope for scope in self.scopes if scope in scopes))


def remembered(engine: Engine, agreement: Agreement) -> Consent | None:
    """What this user last agreed to for this client."""
    return engine.stores.consents.find(agreement.user.user_id, agreement.client.client_id)


def consents_already(engine: Engine, agreement: Agreement) -> bool:
    """Whether a policy allows without asking the user.

    Raises:
        AccessDenied: a policy refuses, whatever the user would say.
        ServerError: a policy failed.
    """
    ruling = engine.ask(
        ConsentQuestion(
            client=agreement.client,
            user=agreement.user,
            scopes=agreement.scopes,
            resources=agreement.resources,
            remembered=remembered(engine, agreement),
        )
    )
    if ruling.verdict is Verdict.DENY:
        raise AccessDenied("This is not allowed here.", reason=ruling.reason)
    return ruling.allowed


def silent_approval_is_safe(client: Client, *, reaches_client_alone: bool) -> bool:
    """Whether anything proves that it is this client, so that no page is needed (E-12, T088).

    Args:
        reaches_client_alone: whether nobody else can receive the answer. Any program of the device may listen at a
            loopback address or take a private-use scheme, a client secret or not.
    """
    if client.is_self_registered or not reaches_client_alone:
        return False
    return client.first_party or not client.is_public


def sentences(engine: Engine, agreement: Agreement) -> tuple[tuple[str, str], ...]:
    """The scopes with the sentences by which the user is asked for them."""
    return tuple((scope, engine.scopes[scope]) for scope in agreement.scopes)


def problem_with(agreement: Agreement, *, confirmed: bool) -> str | None:
    """Why the user has not agreed by allowing this: `nothing-ticked` or `not-confirmed`; None when they have.

    Args:
        confirmed: whether the user confirmed a client that registered itself (E-09).
    """
    if not agreement.scopes:
        return "nothing-ticked"
    if agreement.client.is_self_registered and not confirmed:
        return "not-confirmed"
    return None


def hold_session(engine: Engine, session: Session) -> None:
    """Hold the session, so that what ends it ends also what is agreed in it now (I-14, T068).

    It comes before every write, because those who end sessions lock them first: in another order both could
    wait for each other.

    Raises:
        PageError: it ended after it was read for this request.
    """
    if not engine.stores.sessions.hold(session.digest):
        raise PageError(InvalidRequest("You were signed out. Sign in and try again.", reason="session-ended"))


def agree(engine: Engine, agreement: Agreement, session: Session, *, asked: bool) -> Grant:
    """The grant of what was agreed, to be stored with what it leads to.

    Args:
        session: in which the user agreed; the grant says how and when they signed in to it (RFC 9068, 2.2.1).
        asked: whether the user was asked; what they agreed to is remembered then.
    """
    if asked:
        _remember(engine, agreement)
    return Grant(
        grant_id=digests.new_identifier(),
        client_id=agreement.client.client_id,
        user_id=agreement.user.user_id,
        scopes=agreement.scopes,
        resources=agreement.resources,
        created_at=engine.now,
        expires_at=engine.now + timedelta(seconds=engine.settings.grant_lifetime),
        details={
            "auth_time": int(session.authenticated_at.timestamp()),
            "amr": list(session.details.get("amr", ())),
        },
    )


def decline(engine: Engine, agreement: Agreement) -> None:
    """Note that the user declined, in the event table alone: the next request asks again (E-07)."""
    engine.record(EventType.CONSENT_REFUSED, details={"scopes": list(agreement.scopes)})


def _remember(engine: Engine, agreement: Agreement) -> None:
    """Add this to what the user agreed to before.

    It takes the place of that where the redirect URIs of the client, or the resources, are others (E-13, T089).
    """
    client, before = agreement.client, remembered(engine, agreement)
    same = before and (before.redirect_uris, before.resources) == (client.redirect_uris, agreement.resources)
    engine.stores.consents.remember(
        Consent(
            user_id=agreement.user.user_id,
            client_id=client.client_id,
            scopes=tuple(dict.fromkeys((*(before.scopes if before and same else ()), *agreement.scopes))),
            resources=agreement.resources,
            redirect_uris=client.redirect_uris,
            granted_at=engine.now,
        )
    )
    engine.record(EventType.CONSENT_GIVEN, details={"scopes": list(agreement.scopes)})
