"""The accounts at other servers through which people sign in: lists and removes them."""

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
    "identity": Parameter(description="Its id in addresses of this API.", required=True),
    "issuer": Parameter(description="The issuer identifier of the other server.", required=True),
    "subject": Parameter(description="The permanent id of the person there (`sub`).", required=True),
    "label": Parameter(description="The name of the person there when they were joined.", required=True),
    "joined_at": Parameter(
        description="Since when the person can sign in through it.", schema=TIME, required=True
    ),
}


def shown(identity: JoinedIdentity) -> dict[str, Any]:
    """An identity as the API shows it."""
    return {"identity": identity_handle(identity), **operators.identity(identity)}


def list_identities(call: Call) -> Answer:
    """List the identities of a user at other servers."""
    return Answer(body={"items": [shown(each) for each in _of(call)]})


def remove(call: Call) -> Answer:
    """Remove an identity of a user, and end the sessions and the access that came through that server. Raises Problem."""
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
        summary="List the accounts at other servers through which a person signs in.",
        act=list_identities,
        answer=SHOWN,
        listed=True,
    ),
    Entry(
        method="DELETE",
        path="/users/{user_id}/identities/{identity}",
        scope=WRITE,
        summary="Remove an account at another server from a person. The sessions and the access that came through it end.",
        act=remove,
        status=204,
        problems=(problems.BEYOND_OWN_SCOPES,),
    ),
)
