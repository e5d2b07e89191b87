"""What people are at other servers, through which they sign in: listed, and taken from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authserver.administration import operators
from authserver.api import JoinedIdentity, Parameter, identity_handle, remove_identity
from authserver.features.admin_api import problems
from authserver.features.admin_api.entries import TIME, Answer, Call, Entry, there
from authserver.features.admin_api.people import READ, WRITE, find, refuse_operators

SCOPES: Mapping[str, str] = {}
SHOWN: Mapping[str, Parameter] = {
    "identity": Parameter(description="What names it in addresses here.", required=True),
    "issuer": Parameter(description="The other server.", required=True),
    "subject": Parameter(description="What it calls the person, for good.", required=True),
    "label": Parameter(description="What it called the person when they were joined.", required=True),
    "joined_at": Parameter(description="Since when the person signs in by it.", schema=TIME, required=True),
}


def shown(identity: JoinedIdentity) -> dict[str, Any]:
    """An identity as the API answers it."""
    return {"identity": identity_handle(identity), **operators.identity(identity)}


def list_identities(call: Call) -> Answer:
    """What a user is at other servers."""
    return Answer(body={"items": [shown(each) for each in _of(call)]})


def remove(call: Call) -> Answer:
    """Take one from a user, with the sessions and the access that came through that server. Raises Problem."""
    user, named = find(call), call.named("identity")
    # An operator who cannot sign in any more has lost their rights.
    refuse_operators(call, user.groups)
    meant = there(next((each for each in _of(call) if identity_handle(each) == named), None))
    remove_identity(call.engine, user, meant.issuer, meant.subject)
    return Answer()


def _of(call: Call) -> list[JoinedIdentity]:
    return list(call.engine.stores.identities.of_user(find(call).user_id))


ENTRIES = (
    Entry(
        method="GET",
        path="/users/{user_id}/identities",
        scope=READ,
        summary="List what a person is at other servers, through which they sign in.",
        act=list_identities,
        answer=SHOWN,
        listed=True,
    ),
    Entry(
        method="DELETE",
        path="/users/{user_id}/identities/{identity}",
        scope=WRITE,
        summary="Take from a person what they are at another server. The sessions and the access that came through it end.",
        act=remove,
        status=204,
        problems=(problems.BEYOND_OWN_SCOPES,),
    ),
)
