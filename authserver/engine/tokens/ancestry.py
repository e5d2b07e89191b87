"""What a derived grant hangs on: it is live only while each grant is live that it comes from (T163).

Whoever ends a grant ends all that was derived from it in the same transaction (`ports.Grants.revoke`). Here that is looked
at again whenever a derived grant is used, together with what ends nothing by itself: a client that is disabled while its
grants are ended batch after batch (T164).
"""

from __future__ import annotations

from collections.abc import Sequence

from authserver.engine.context import Engine
from authserver.engine.records import Grant


def why_ended(engine: Engine, grant: Grant) -> str | None:
    """Why this derived grant is not live any more, though it may be so itself; None if it is, or was not derived."""
    if grant.parent_id is None:
        return None
    found = engine.stores.grants.ancestors(grant.grant_id)
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
    # A client that is kept elsewhere is not gone because that place does not answer.
    clients = engine.stores.clients.find_all(
        list(dict.fromkeys(grant.client_id for grant in found)), engine.now
    )
    return None if all(client.is_enabled for client in clients) else "parent-client-disabled"
