"""The ancestors of a derived grant: it is live only while all grants are live from which it was derived (T163).

The end of a grant ends all grants that were derived from it, in the same transaction (`ports.Grants.revoke`). This
module checks that again whenever a derived grant is used. It also checks client and issuer: when one of these is
disabled, its grants are ended batch after batch, so some may not have ended yet (T164).
"""

from __future__ import annotations

from collections.abc import Sequence

from authserver.engine import issuer_registry
from authserver.engine.context import Engine
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
    # A client of a plugin still exists if its plugin cannot find it now.
    clients = engine.stores.clients.find_all(
        list(dict.fromkeys(grant.client_id for grant in found)), engine.now
    )
    return None if all(client.is_enabled for client in clients) else "parent-client-disabled"
