"""Grants, of users and of clients themselves, and remembered consents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from authserver.administration import GrantFilter, disconnect, operators, revoke_grant, user_id_of
from authserver.api import Consent, Engine, Grant, Parameter
from authserver.features.admin_api import problems
from authserver.features.admin_api.entries import (
    NULL_OR_TIME,
    TIME,
    Answer,
    Call,
    Entry,
    conflict,
    invalid_parameter,
    nothing_there,
    there,
)
from authserver.features.admin_api.paging import etag_of, gathered

READ, WRITE = "authserver:grants:read", "authserver:grants:write"
SCOPES = {
    READ: "See what people agreed to, and what applications may do",
    WRITE: "End what people agreed to, and with it the access of applications",
}
TEXTS = {"type": "array", "items": {"type": "string"}}
NULL_OR_TEXT = {"type": ["string", "null"]}
COUNT = {"type": "integer", "minimum": 0}
WHOSE: Mapping[str, Parameter] = {
    "user": Parameter(description="Only those of this person: the user name or the user id."),
    "client": Parameter(description="Only those for this client."),
}
SHOWN: Mapping[str, Parameter] = {
    "grant_id": Parameter(description="The grant.", required=True),
    "user_id": Parameter(
        description="The person who agreed; null if the client acts on its own behalf.",
        schema=NULL_OR_TEXT,
        required=True,
    ),
    "username": Parameter(description="The user name of this person.", schema=NULL_OR_TEXT, required=True),
    "client_id": Parameter(description="The client that may act.", required=True),
    "scope": Parameter(description="The scopes that it has, separated by spaces.", required=True),
    "resources": Parameter(description="The resources that it may use.", schema=TEXTS, required=True),
    "let_in_by": Parameter(
        description="Who or what made it without asking the person here.", schema=NULL_OR_TEXT, required=True
    ),
    "derived_from": Parameter(
        description="The grant from which it was derived and with which it ends; null if there is none.",
        schema=NULL_OR_TEXT,
        required=True,
    ),
    "created_at": Parameter(description="When it was made.", schema=TIME, required=True),
    "last_used_at": Parameter(
        description="When tokens were last issued for it.", schema=NULL_OR_TIME, required=True
    ),
    "expires_at": Parameter(description="When it ends at the latest.", schema=TIME, required=True),
    "revoked_at": Parameter(description="When it was revoked.", schema=NULL_OR_TIME, required=True),
    "revoked_reason": Parameter(description="Why it was revoked.", schema=NULL_OR_TEXT, required=True),
}
CONSENT: Mapping[str, Parameter] = {
    name: SHOWN[name] for name in ("user_id", "username", "client_id", "scope", "resources")
} | {"granted_at": Parameter(description="When the person last agreed.", schema=TIME, required=True)}
ENDED: Mapping[str, Parameter] = {
    "grants": Parameter(description="How many grants ended.", schema=COUNT, required=True),
    "consents": Parameter(description="How many remembered consents ended.", schema=COUNT, required=True),
}


def shown(grant: Grant, names: Mapping[str, str]) -> dict[str, Any]:
    """A grant as the API shows it."""
    return {
        **operators.grant(grant, names),
        "revoked_at": grant.revoked_at,
        "revoked_reason": grant.revoked_reason,
    }


class _Names:
    """The user names of one page, looked up together."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.known: dict[str, str] = {}

    def of(self, records: Iterable[Grant | Consent]) -> None:
        missing = sorted({each.user_id for each in records if each.user_id} - self.known.keys())
        if missing:
            self.known |= {
                user.user_id: user.username for user in self._engine.stores.users.find_all(missing)
            }


def _whose(call: Call) -> dict[str, str | None]:
    """The person and the client that the request names. Raises Problem."""
    name = call.query.get("user")
    user_id = user_id_of(call.engine, name) if name else None
    if name and user_id is None:
        raise invalid_parameter("user", "there is no such person; send the user name or the user id")
    return {"user_id": user_id, "client_id": call.query.get("client")}


def list_grants(call: Call) -> Answer:
    """The live grants for which tokens were issued, newest first; of one user or of all, for one client or for all."""
    engine, names = call.engine, _Names(call.engine)
    wanted = GrantFilter(**_whose(call), live_at=engine.now, redeemed=True)

    def read(after: tuple[str, ...], limit: int) -> Sequence[Grant]:
        place = (datetime.fromisoformat(after[0]), after[1]) if any(after) else None
        page = engine.stores.grants.search(wanted, after=place, limit=limit)
        names.of(page)
        return page

    return gathered(
        call,
        read,
        lambda grant: (grant.created_at.isoformat(), grant.grant_id),
        lambda grant: shown(grant, names.known),
        start=("", ""),
    )


def _found(call: Call) -> dict[str, Any]:
    """The grant of the address, live or not. Raises NothingThere."""
    grant = there(call.engine.stores.grants.find(call.named("grant_id")))
    names = _Names(call.engine)
    names.of([grant])
    return shown(grant, names.known)


def show(call: Call) -> Answer:
    """One grant, live or not, with its ETag."""
    record = _found(call)
    return Answer(body=record, etag=etag_of(record, without=["last_used_at"]))


def revoke(call: Call) -> Answer:
    """Revoke a grant, and with it every code and token of it.

    Raises:
        Problem: it changed after the caller read it (If-Match), or is revoked already.
    """
    record = _found(call)
    call.is_unchanged(etag_of(record, without=["last_used_at"]))
    ended = revoke_grant(call.engine, record["grant_id"])
    if not ended.grants:
        raise conflict("It is revoked already.")
    return Answer(body={"grants": ended.grants, "consents": ended.consents})


def list_consents(call: Call) -> Answer:
    """The remembered consents by user and client; of one user or of all, for one client or for all."""
    engine, whose, names = call.engine, _whose(call), _Names(call.engine)

    def read(after: tuple[str, ...], limit: int) -> Sequence[Consent]:
        page = engine.stores.consents.page(after=(after[0], after[1]), limit=limit, **whose)
        names.of(page)
        return page

    return gathered(
        call,
        read,
        lambda consent: (consent.user_id, consent.client_id),
        lambda consent: operators.consent(consent, names.known),
        start=("", ""),
    )


def end_consent(call: Call) -> Answer:
    """End all that one user agreed to for one client: the consent and every grant.

    Raises:
        Problem: there is nothing to end.
    """
    user = there(call.engine.stores.users.find(call.named("user_id")))
    ended = disconnect(call.engine, user, call.named("client_id"))
    if not (ended.grants or ended.consents):
        raise nothing_there("The person agreed to nothing for this client that has not ended.")
    return Answer(body={"grants": ended.grants, "consents": ended.consents})


ENTRIES = (
    Entry(
        method="GET",
        path="/grants",
        scope=READ,
        summary="List the live grants, newest first.",
        act=list_grants,
        query=WHOSE,
        answer=SHOWN,
        listed=True,
        paged=True,
    ),
    Entry(
        method="GET",
        path="/grants/{grant_id}",
        scope=READ,
        summary="Show a grant, live or not.",
        act=show,
        answer=SHOWN,
        conditional=True,
    ),
    Entry(
        method="DELETE",
        path="/grants/{grant_id}",
        scope=WRITE,
        summary="Revoke a grant. Its codes and tokens do not work from the next request on.",
        act=revoke,
        answer=ENDED,
        problems=(problems.CONFLICT,),
        conditional=True,
    ),
    Entry(
        method="GET",
        path="/consents",
        scope=READ,
        summary="List the remembered consents by user and client.",
        act=list_consents,
        query=WHOSE,
        answer=CONSENT,
        listed=True,
        paged=True,
    ),
    Entry(
        method="DELETE",
        path="/consents/{user_id}/{client_id}",
        scope=WRITE,
        summary="End all that a person agreed to for a client. The grants and the remembered consent end.",
        act=end_consent,
        answer=ENDED,
    ),
)
