"""The ancestors of a derived grant: it is live only while all grants are live from which it was derived (T163).

The end of a grant ends all grants that were derived from it, in the same transaction (`ports.Grants.revoke`). This
module checks that again whenever a derived grant is used. It also checks client and issuer: when one of these is
disabled, its grants are ended batch after batch, so some may not have ended yet (T164).
"""

from __future__ import annotations

from collections.abc import Sequence

from authserver.engine import issuer_registry
from authserver.engine.context import Engine
from authserver.engine.errors import InvalidClient, TemporarilyUnavailable, TooManyRequests
from authserver.engine.records import Grant

# The maximum length of a chain of derived grants; a longer one is a fault.
MAXIMUM_DISTANCE = 64
ISSUER_DISABLED = "issuer-disabled"


def ancestors(engine: Engine, grant: Grant) -> tuple[Grant, ...]:
    """The grants from which this one was derived, live or not, its parent first; complete if all are still stored."""
    found: list[Grant] = []
    parent_id = grant.parent_id
    while parent_id is not None and len(found) < MAXIMUM_DISTANCE:
        parent = engine.stores.grants.find(parent_id)
        if parent is None:
            break
        found.append(parent)
        parent_id = parent.parent_id
    return tuple(found)


def why_ended(engine: Engine, grant: Grant, found: Sequence[Grant] | None = None) -> str | None:
    """Why this grant is not live, although its own record may be; None if it is live.

    It is not live if the issuer that vouched for its person is disabled, or if a grant from which it was derived has
    ended.

    Args:
        found: its `ancestors`, if they were read already.
    """
    if issuer_registry.is_disabled(engine, grant):
        return ISSUER_DISABLED
    if grant.parent_id is None:
        return None
    found = ancestors(engine, grant) if found is None else found
    if not found or found[-1].parent_id is not None:
        return "parent-grant-unknown"
    return problem_with(engine, found)


def problem_with(engine: Engine, found: Sequence[Grant]) -> str | None:
    """Why nothing may be derived from these grants: one has ended, or its client is disabled; None if nothing is wrong."""
    for grant in found:
        if grant.revoked_at is not None:
            return "parent-grant-revoked"
        if grant.expires_at <= engine.now:
            return "parent-grant-expired"
        if issuer_registry.is_disabled(engine, grant):
            return ISSUER_DISABLED
    client_ids = list(dict.fromkeys(grant.client_id for grant in found))
    stored = {client.client_id: client for client in engine.stores.clients.find_all(client_ids, engine.now)}
    is_enabled = all(
        stored[each].is_enabled if each in stored else is_client_enabled(engine, each) for each in client_ids
    )
    return None if is_enabled else "parent-client-disabled"


def is_client_enabled(engine: Engine, client_id: str) -> bool:
    """Whether this client may still use its grants (M-04, R-09).

    One that is kept elsewhere may, while its plugin cannot say what became of it.

    Raises:
        ServerError: a plugin failed.
    """
    try:
        client = engine.find_client(client_id)
    except InvalidClient:
        return False
    except (TemporarilyUnavailable, TooManyRequests):
        return True
    return client is not None and client.is_enabled
