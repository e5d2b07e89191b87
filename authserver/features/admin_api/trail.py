"""Events: who did what to whom, and why something was refused; searched as `authserver audit search` does."""

from __future__ import annotations

from collections.abc import Mapping

from authserver.administration import (
    EventFilter,
    operators,
    refused_types,
    search,
    source_of,
    types_of,
    user_id_of,
)
from authserver.api import EventType, Parameter
from authserver.features.admin_api.entries import (
    TIME,
    Answer,
    Call,
    Entry,
    invalid_parameter,
    moment,
    there,
)
from authserver.features.admin_api.paging import limit_of, page_of, place_of

READ = "authserver:events:read"
SCOPES = {READ: "See who did what on this server, from which network address"}
NULL_OR_TEXT = {"type": ["string", "null"]}
QUERY: Mapping[str, Parameter] = {
    "client": Parameter(description="About this client."),
    "user": Parameter(description="About this person: the user name or the user id."),
    "grant": Parameter(description="About this grant."),
    "event": Parameter(
        description="Of this type, such as `token.refused`; several times.",
        schema={"type": "array", "items": {"enum": [*map(str, EventType)]}},
    ),
    "refused": Parameter(
        description="`true`: of the types that say that a request was refused or failed.",
        schema={"enum": ["true", "false"]},
    ),
    "actor": Parameter(description="Done by this actor, such as `client:ID`, `user:ID` or `stranger`."),
    "source": Parameter(description="From this network address."),
    "reason": Parameter(description="For this reason, such as `scope-not-registered`."),
    "error_id": Parameter(description="The id that an error answer or page showed, or of any event."),
    "request_id": Parameter(description="Of the request with this id."),
    "since": Parameter(description="From this time on.", schema=TIME),
    "until": Parameter(description="Before this time.", schema=TIME),
}
SHOWN: Mapping[str, Parameter] = {
    "event_id": Parameter(description="Of a refusal, the `error_id` of its answer.", required=True),
    "type": Parameter(description="What happened.", schema={"enum": [*map(str, EventType)]}, required=True),
    "at": Parameter(description="When.", schema=TIME, required=True),
    "actor": Parameter(description="Who did it.", required=True),
    "source": Parameter(description="From which network address.", required=True),
    "request_id": Parameter(description="Of the request that caused it.", required=True),
    "client_id": Parameter(description="About which client.", schema=NULL_OR_TEXT, required=True),
    "user_id": Parameter(description="About which person.", schema=NULL_OR_TEXT, required=True),
    "grant_id": Parameter(description="About which grant.", schema=NULL_OR_TEXT, required=True),
    "reason": Parameter(description="Why.", required=True),
    "decisions": Parameter(description="Who decided what.", schema={"type": "array"}, required=True),
    "details": Parameter(description="More facts.", schema={"type": "object"}, required=True),
    "cursor": Parameter(description="Its place in time.", required=True),
}


def list_events(call: Call) -> Answer:
    """Events that fit all parameters, newest first.

    Raises:
        Problem: a parameter that cannot be read, or a user that does not exist.
    """
    engine, query = call.engine, call.query
    types, name, source = types_of(query.all("event")), query.get("user"), query.get("source")
    user_id = user_id_of(engine, name) if name else None
    if name and user_id is None:
        raise invalid_parameter(
            "user",
            "there is no such person; sign-ins under a name that nobody has are found with event=sign_in.refused",
        )
    wanted = EventFilter(
        event_id=query.get("error_id"),
        request_id=query.get("request_id"),
        types=refused_types(types) if call.flag("refused") else types,
        client_id=query.get("client"),
        user_id=user_id,
        grant_id=query.get("grant"),
        actor=query.get("actor"),
        source=source_of(source) if source else None,
        reason=query.get("reason"),
        since=moment(query.get("since"), "since"),
        until=moment(query.get("until"), "until"),
    )
    (after,) = place_of(call) or (None,)
    page = search(engine.stores.events, wanted, after=after, limit=limit_of(call))
    return page_of(call, map(operators.event, page.events), (page.next,) if page.next else None)


def show(call: Call) -> Answer:
    """One event, with the decisions that led to it."""
    return Answer(body=operators.event(there(call.engine.stores.events.find(call.named("event_id")))))


ENTRIES = (
    Entry(
        method="GET",
        path="/events",
        scope=READ,
        summary="List events, newest first. Those that fit all parameters.",
        act=list_events,
        query=QUERY,
        answer=SHOWN,
        listed=True,
        paged=True,
    ),
    Entry(
        method="GET",
        path="/events/{event_id}",
        scope=READ,
        summary="Show an event, with every decision behind it.",
        act=show,
        answer=SHOWN,
    ),
)
