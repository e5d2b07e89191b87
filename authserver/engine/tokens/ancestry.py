"""What a derived grant hangs on: it is live only while each grant is live that it comes from (T163).

The end of a grant ends all that was derived from it in the same transaction (`ports.Grants.revoke`). Here that is looked
at again whenever a derived grant is used, together with what ends nothing by itself: a client or an issuer that is
disabled while the grants are ended batch after batch (T164).
"""

from __future__ import annotations

from collections.abc import Sequence

from authserver.engine import issuer_registry
from authserver.engine.context import Engine
from authserver.engine.records import Grant

# A chain of derived grants may have this length; a longer one is a fault.
MAXIMUM_DISTANCE = 64
ISSUER_DISABLED = "issuer-disabled"


def ancestors(engine: Engine, grant: Grant) -> tuple[Grant, ...]:
    """The grants that this one was derived from, live or not: its parent first, the last one from none if all are kept."""
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
    """Why this grant is not live any more, though it may be so itself; None if it is.

    It is not if an issuer vouched for its person that is disabled, or if something has ended that it was derived from.

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
    """Why nothing may hang on these grants: one has ended, or its client is disabled; None if nothing is wrong."""
    for grant in found:
        if grant.revoked_at is not None:
            return "parent-grant-revoked"
        if grant.expires_at <= engine.now:
            return "parent-grant-expired"
        if issuer_registry.is_disabled(engine, grant):
            return ISSUER_DISABLED
    # A client that is kept elsewhere is not gone because that place does not answer.
    clients = engine.stores.clients.find_all(
        list(dict.fromkeys(grant.client_id for grant in found)), engine.now
    )
    return None if all(client.is_enabled for client in clients) else "parent-client-disabled"
