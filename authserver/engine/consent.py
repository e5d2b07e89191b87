"""Consent: what a user allows a client, whether the user is asked, and what is remembered.

No rule here depends on the endpoint at which the client asked, or on the way of its answer: any grant type may ask a
user.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

from authserver.engine.context import Engine
from authserver.engine.crypto import digests, strict_json
from authserver.engine.decisions import Verdict
from authserver.engine.errors import AccessDenied, InvalidRequest, PageError
from authserver.engine.questions import ConsentQuestion
from authserver.engine.records import (
    AUTHENTICATES,
    NOTHING,
    SESSION,
    THROUGH,
    Client,
    Consent,
    EventType,
    Grant,
    Session,
    User,
)
from authserver.engine.session_handles import session_handle
from authserver.engine.tokens.widening import WIDENS

_SEEN = "seen-member"
# If one of these members changes, the client could be another program.
_IDENTIFYING = frozenset({"redirect_uris", "token_endpoint_auth_method", "jwks", "jwks_uri"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The access that the user is asked for, or has agreed to.

    `scopes` and `resources` are those that policies and floor allow (`engine.asking`).
    """

    client: Client
    user: User
    scopes: tuple[str, ...]
    resources: tuple[str, ...]

    def narrowed(self, scopes: Collection[str]) -> Agreement:
        """The same with only those of its scopes that are among these (E-14, E-15)."""
        return replace(self, scopes=tuple(scope for scope in self.scopes if scope in scopes))


def remembered(engine: Engine, client: Client, user_id: str) -> Consent | None:
    """The last consent of this user to this client; None without one, or if a change of the client requires another.

    The user agreed to a name and to destinations. A client with another name or one more redirect URI could be
    somebody else, whatever policies say (E-13, T089); one that is known by its address also with other keys.
    """
    found = engine.stores.consents.find(user_id, client.client_id)
    return found if found is not None and _counts(found, client) else None


def _counts(consent: Consent, client: Client) -> bool:
    return consent.is_for(client) and not _IDENTIFYING & set(changed_since(consent, client))


def seen(client: Client) -> Mapping[str, str]:
    """The digest of each member of the description of a client that is known by its address, by the name of the member.

    Empty for all other clients, because an operator vouches for their descriptions.
    """
    if not client.is_known_by_address:
        return NOTHING
    said = {
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "token_endpoint_auth_method": client.auth_method,
        **client.details,
    }
    return {name: _seen(strict_json.dumps(value).decode()) for name, value in said.items()}


# It is needed several times in a request, and is the same in the next one.
@lru_cache(maxsize=1_000)
def _seen(text: str) -> str:
    return digests.digest(_SEEN, text).hex()[:16]


def changed_since(consent: Consent, client: Client) -> tuple[str, ...]:
    """The members of a client's description that are known to have changed since the user last agreed (E-20)."""
    before, now = consent.seen, seen(client)
    if not before:
        return ()
    return tuple(name for name in dict.fromkeys((*before, *now)) if before.get(name) != now.get(name))


def consents_already(engine: Engine, agreement: Agreement) -> bool:
    """Whether a policy allows without asking the user.

    Raises:
        AccessDenied: a policy refuses, even if the user would agree.
        ServerError: a policy failed.
    """
    ruling = engine.ask(
        ConsentQuestion(
            client=agreement.client,
            user=agreement.user,
            scopes=agreement.scopes,
            resources=agreement.resources,
            remembered=remembered(engine, agreement.client, agreement.user.user_id),
        )
    )
    if ruling.verdict is Verdict.DENY:
        raise AccessDenied("This is not allowed here.", reason=ruling.reason)
    return ruling.allowed


def silent_approval_is_safe(client: Client, *, reaches_client_alone: bool) -> bool:
    """Whether the identity of the client is proven, so that no page is needed (E-12, T088).

    A client id that is an address belongs to all installations of a program, so the user is asked each time: another
    site could have begun the request (E-19).

    Args:
        reaches_client_alone: whether only this client can receive the answer. Any program on the device can listen at a
            loopback address or register a private-use scheme, even if the client is confidential.
    """
    if client.is_self_registered or client.is_known_by_address or not reaches_client_alone:
        return False
    return client.first_party or not client.is_public


def stands_for_a_silent_request(engine: Engine, agreement: Agreement, *, reaches_client_alone: bool) -> bool:
    """Whether a client that registered itself may be answered if no page may be shown (OIDC Core, 3.1.2.1; E-12).

    Only if the user confirmed this same client before, for everything in the request: then the client learns nothing
    new. Nobody else can use the answer, because the client must authenticate to redeem the code, and because the
    address is its own. For every other request of such a client the user is asked.

    Args:
        reaches_client_alone: as for `silent_approval_is_safe`.
    """
    client = agreement.client
    if not (reaches_client_alone and _proves_itself_later(client)):
        return False
    found = remembered(engine, client, agreement.user.user_id)
    return (
        found is not None
        and set(agreement.scopes) <= set(found.scopes)
        and set(agreement.resources) <= set(found.resources)
    )


def _proves_itself_later(client: Client) -> bool:
    """Whether no other program can use a code that this client gets, whoever registered it."""
    return not client.is_public and not client.is_known_by_address


def may_pass_in_silence(engine: Engine, client: Client) -> bool:
    """Whether a remembered consent may give this client access again without a page, at an address of its own.

    For a client that registered itself, only if a plugin makes requests silent (`silences`).
    """
    return silent_approval_is_safe(client, reaches_client_alone=True) or (
        _proves_itself_later(client) and bool(engine.policies.all_declared("silences"))
    )


def sentences(engine: Engine, agreement: Agreement) -> tuple[tuple[str, str], ...]:
    """The scopes with the sentences that the consent page shows for them."""
    return tuple((scope, engine.scopes[scope]) for scope in agreement.scopes)


def earlier_consent(found: Consent | None, agreement: Agreement) -> Consent | None:
    """The earlier consent of the user for the same resources; a request for other scopes is then one for more (P-14).

    Args:
        found: the stored consent of this user to this client, if there is one, even if it does not count any more.
    """
    if found is None or not _counts(found, agreement.client):
        return None
    return found if set(agreement.resources) == set(found.resources) else None


def problem_with(agreement: Agreement, *, confirmed: bool, unasked: Collection[str] = ()) -> str | None:
    """Why this answer is no agreement although the user allowed: `nothing-ticked` or `not-confirmed`; else None.

    Args:
        confirmed: whether the user confirmed that they know a client that registered itself (E-09).
        unasked: scopes that the page listed without asking for them; they do not count as ticked.
    """
    if set(agreement.scopes) <= set(unasked):
        return "nothing-ticked"
    if agreement.client.is_self_registered and not confirmed:
        return "not-confirmed"
    return None


def hold_session(engine: Engine, session: Session) -> None:
    """Lock the session, so that a request that ends it also revokes what is agreed in it now (I-14, T068).

    Call it before any write, because a request that ends sessions locks them first: with another order there could be
    a deadlock.

    Raises:
        PageError: it ended after it was read for this request.
    """
    if not engine.stores.sessions.hold(session.digest):
        signed_out = InvalidRequest("You were signed out. Sign in and try again.", reason="session-ended")
        raise PageError(signed_out, advises=True)


def agree(
    engine: Engine,
    agreement: Agreement,
    session: Session,
    *,
    asked: bool,
    acr: str | None = None,
    kept: Mapping[str, Any] = NOTHING,
) -> Grant:
    """A grant for what the user agreed to; the caller stores it together with its code or tokens.

    Args:
        session: the session in which the user agreed; the grant has how and when they signed in (RFC 9068, 2.2.1).
        asked: whether the user was asked; if so, what they agreed to is remembered. A grant of more than they agreed to
            before says so: it `widens` other grants of the same client (`tokens.widening`).
        acr: the level that the sign-in reached, if a policy says (RFC 9470).
        kept: the details that plugins add to the grant (hook `grant_details`).
    """
    client, widens = agreement.client, asked and _remember(engine, agreement)
    return Grant(
        grant_id=digests.new_identifier(),
        client_id=client.client_id,
        user_id=agreement.user.user_id,
        scopes=agreement.scopes,
        resources=agreement.resources,
        created_at=engine.now,
        expires_at=engine.now + timedelta(seconds=engine.settings.grant_lifetime),
        details={
            **kept,
            SESSION: session_handle(session),
            "auth_time": int(session.authenticated_at.timestamp()),
            "amr": list(session.details.get("amr", ())),
            **({"acr": acr} if acr else {}),
            **({THROUGH: session.details[THROUGH]["issuer"]} if THROUGH in session.details else {}),
            **({WIDENS: True} if widens else {}),
            **({AUTHENTICATES: True} if client.may_lose_its_key else {}),
        },
    )


def decline(engine: Engine, agreement: Agreement) -> None:
    """Write only an event that the user declined: the next request asks again (E-07)."""
    engine.record(EventType.CONSENT_REFUSED, details={"scopes": list(agreement.scopes)})


def _remember(engine: Engine, agreement: Agreement) -> bool:
    """Add this to the remembered consent, and return whether it is more than that was.

    If the remembered consent does not count any more, or the resources have changed, it is replaced (E-13, T089).
    """
    client, user_id = agreement.client, agreement.user.user_id
    before = earlier_consent(engine.stores.consents.find(user_id, client.client_id), agreement)
    held = before.scopes if before else ()
    engine.stores.consents.remember(
        Consent(
            user_id=user_id,
            client_id=client.client_id,
            client_name=client.name,
            scopes=tuple(dict.fromkeys((*held, *agreement.scopes))),
            resources=agreement.resources,
            redirect_uris=client.redirect_uris,
            granted_at=engine.now,
            seen=seen(client),
        )
    )
    engine.record(EventType.CONSENT_GIVEN, details={"scopes": list(agreement.scopes)})
    return before is not None and not set(agreement.scopes) <= set(held)
