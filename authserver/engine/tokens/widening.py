"""A user agreed to more than before: the older grants of that same client get it, too (MCP step-up; I-19).

Each authorization has a grant and a refresh token of its own, with what was asked for then. A client that keeps an older
refresh token instead would be without what the user has just agreed to. But a client id is no proof of who holds a token:
all installations of a public client share it. So a grant is widened only if its refresh token is of no use to anybody but
the client that redeemed the new code: to a client with a credential of its own, or with the same key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authserver.engine.context import Binding, Engine
from authserver.engine.records import NOTHING, Client, EventType, FoundToken, Grant

# Among the details of a grant: that its user agreed to more than before. It is noted with the consent, and acted on when
# the code is redeemed, because only then it is known who the client is.
WIDENS = "widens"
# More grants of one client for one user are not looked at; the newest are those that are in use.
MAXIMUM_WIDENED = 100


def widen_others(engine: Engine, client: Client, grant: Grant, binding: Binding | None) -> None:
    """Let the older grants of this client have the scopes of this new grant.

    Args:
        client: it has just redeemed the code of the grant.
        binding: the key that it proved, if any.
    """
    if grant.user_id is None:
        return
    found = engine.stores.tokens.usable_refresh_tokens(
        grant.user_id, client.client_id, engine.now, limit=MAXIMUM_WIDENED
    )
    key = binding.confirmation if binding and binding.binds_refresh else NOTHING
    for older in found:
        if older.grant.grant_id != grant.grant_id and _is_of_the_same(client, older, grant, key):
            _widen(engine, older.grant, grant)


def _is_of_the_same(client: Client, older: FoundToken, grant: Grant, key: Mapping[str, Any]) -> bool:
    """Whether only the client that has the new grant can use this refresh token, and for the same.

    The same resources: a scope means something else at another one. The same level of sign-in: what was agreed to after a
    better sign-in must not come with the name of a lesser one (RFC 9470, 6).
    """
    details = older.grant.details
    if dict(older.token.details.get("cnf", NOTHING)) != dict(key) or (client.is_public and not key):
        return False
    return (
        set(older.token.resources) == set(grant.resources)
        and details.get("acr") == grant.details.get("acr")
        and "grant_type" not in details
    )


def _widen(engine: Engine, older: Grant, grant: Grant) -> None:
    now_has: Grant | None = older
    while now_has is not None and now_has.revoked_at is None:
        added = tuple(scope for scope in grant.scopes if scope not in now_has.scopes)
        if not added:
            return
        if engine.stores.grants.widen(now_has, (*now_has.scopes, *added)):
            _record(engine, older.grant_id, added, grant)
            return
        # Another request widened or ended it meanwhile.
        now_has = engine.stores.grants.find(older.grant_id)


def _record(engine: Engine, grant_id: str, added: tuple[str, ...], grant: Grant) -> None:
    engine.journal.grant_id = grant_id
    engine.record(EventType.GRANT_WIDENED, details={"scopes": list(added), "by": grant.grant_id})
    engine.journal.grant_id = grant.grant_id
