"""Events: who did what to whom, and why something was refused. The search is that of `authserver audit search`."""

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
        description="Of this type, such as `token.refused`; may be repeated.",
        schema={"type": "array", "items": {"enum": [*map(str, EventType)]}},
    ),
    "refused": Parameter(
        description="`true`: only of the types for refused and failed requests.",
        schema={"enum": ["true", "false"]},
    ),
    "actor": Parameter(description="Done by this actor, such as `client:ID`, `user:ID` or `stranger`."),
    "source": Parameter(description="From this network address."),
    "reason": Parameter(description="For this reason, such as `scope-not-registered`."),
    "error_id": Parameter(
        description="With this id: the error id that an answer or a page showed, or the id of any event."
    ),
    "request_id": Parameter(description="Caused by the request with this id."),
    "since": Parameter(description="From this time on.", schema=TIME),
    "until": Parameter(description="Before this time.", schema=TIME),
}
SHOWN: Mapping[str, Parameter] = {
    "event_id": Parameter(
        description="The id of the event; for a refusal it is the `error_id` of the answer.", required=True
    ),
    "type": Parameter(description="What happened.", schema={"enum": [*map(str, EventType)]}, required=True),
    "at": Parameter(description="When it happened.", schema=TIME, required=True),
    "actor": Parameter(description="Who did it.", required=True),
    "source": Parameter(description="The network address from which it was done.", required=True),
    "request_id": Parameter(description="The id of the request that caused it.", required=True),
    "client_id": Parameter(description="The client that it is about.", schema=NULL_OR_TEXT, required=True),
    "user_id": Parameter(description="The person that it is about.", schema=NULL_OR_TEXT, required=True),
    "grant_id": Parameter(description="The grant that it is about.", schema=NULL_OR_TEXT, required=True),
    "reason": Parameter(description="The reason, mostly of a refusal.", required=True),
    "decisions": Parameter(
        description="The decisions behind it, with the answers of the plugins.",
        schema={"type": "array"},
        required=True,
    ),
    "details": Parameter(description="More facts.", schema={"type": "object"}, required=True),
    "cursor": Parameter(description="Its position in the order of time.", required=True),
}


def list_events(call: Call) -> Answer:
    """Events that fit all parameters, newest first.

    Raises:
        Problem: a parameter cannot be read, or the user does not exist.
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
        summary="List events, newest first. The list has the events that fit all parameters.",
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
