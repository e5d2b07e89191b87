"""When a user agrees to more scopes than before, older grants of the same client get them, too (MCP step-up; I-19).

Each authorization has a grant and a refresh token of its own, with the scopes of that request. A client that continues
to use an older refresh token would lack the scopes to which the user has just agreed. But a client id does not prove
who has a token: all installations of a public client share the id, and installations of an application that has its
secret on each device also share the secret. Therefore a grant is widened only if nobody but the client that redeemed
the new code can use its refresh tokens: because the client has a credential that nobody shares, or because the tokens
are bound to the same key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from authserver.engine import uris
from authserver.engine.context import Binding, Engine
from authserver.engine.records import NOTHING, Client, EventType, FoundToken, Grant

# A detail of a grant: its user agreed to more than before. It is written with the consent, and older grants are widened
# when the code is redeemed, because only then the client is known.
WIDENS = "widens"
# At most this many refresh tokens of one client for one user are looked at, those of the newest grants.
MAXIMUM_WIDENED = 100


def widen_others(engine: Engine, client: Client, grant: Grant, binding: Binding | None) -> None:
    """Give the older grants of this client the scopes of this new grant.

    Args:
        client: the client, which has just redeemed the code of the grant.
        binding: the key that it proved, if any.
    """
    if grant.user_id is None:
        return
    found = engine.stores.tokens.usable_refresh_tokens(
        grant.user_id, client.client_id, engine.now, limit=MAXIMUM_WIDENED
    )
    key = binding.confirmation if binding and binding.binds_refresh else NOTHING
    if not key and not _has_its_credential_alone(client):
        return
    of_others = {older.grant.grant_id for older in found if not _is_of_the_same(older, grant, key)}
    # A grant may have several refresh tokens, and somebody else may have one of them.
    for older in {older.grant.grant_id: older.grant for older in found}.values():
        if older.grant_id not in (grant.grant_id, *of_others):
            _widen(engine, older, grant)


def _has_its_credential_alone(client: Client) -> bool:
    """Whether no other installation of the program has the credential of this client.

    A client that registered itself is the only one that got its credential. The credential of any other client with
    redirect URIs on the device may be on the devices of many people.
    """
    if client.is_public:
        return False
    if client.is_self_registered and not client.is_known_by_address:
        return True
    return all(map(uris.is_remote_https, client.redirect_uris))


def _is_of_the_same(older: FoundToken, grant: Grant, key: Mapping[str, Any]) -> bool:
    """Whether this refresh token is bound to this key, and for the same resources and sign-in as the new grant.

    Nothing was taken from its grant: the access tokens that ended with a scope would be valid again with it (L-08).
    The same resources, because a scope has another meaning at another resource. The same sign-in or an earlier one,
    because tokens must not state another level, other methods or a later time for a scope than those of the sign-in at
    which the user agreed to it (RFC 9470, 6).
    """
    before, now = older.grant.details, grant.details
    return (
        "grant_type" not in before
        and not older.grant.is_narrowed
        and dict(older.token.details.get("cnf", NOTHING)) == dict(key)
        and _forms(older.token.resources) & _forms(older.grant.resources) == _forms(grant.resources)
        and before.get("acr") == now.get("acr")
        and set(before.get("amr", ())) == set(now.get("amr", ()))
        and before.get("auth_time", 0) <= now.get("auth_time", 0)
    )


def _forms(resources: Iterable[str]) -> set[str]:
    """The canonical forms of resources, so that a changed spelling does not count."""
    return set(map(uris.resource_form, resources))


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
