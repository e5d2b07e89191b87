"""A user agreed to more than before: the older grants of that same client get it, too (MCP step-up; I-19).

Each authorization has a grant and a refresh token of its own, with what was asked for then. A client that keeps an older
refresh token instead would be without what the user has just agreed to. But a client id is no proof of who holds a token:
all installations of a public client share it, and those of an application that has its secret on each device share that,
too. So a grant is widened only if its refresh tokens are of no use to anybody but the client that redeemed the new code: to
a client with a credential of its own, or with the same key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from authserver.engine import uris
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
    if not key and not _has_its_credential_alone(client):
        return
    of_others = {older.grant.grant_id for older in found if not _is_of_the_same(older, grant, key)}
    # A grant may have several refresh tokens, of which one may be in other hands.
    for older in {older.grant.grant_id: older.grant for older in found}.values():
        if older.grant_id not in (grant.grant_id, *of_others):
            _widen(engine, older, grant)


def _has_its_credential_alone(client: Client) -> bool:
    """Whether no other installation of the program has the credential of this client.

    One that registered itself got it alone. Any other with redirect URIs on the device may be in the hands of many people.
    """
    if client.is_public:
        return False
    if client.is_self_registered and not client.is_known_by_address:
        return True
    return all(map(uris.is_remote_https, client.redirect_uris))


def _is_of_the_same(older: FoundToken, grant: Grant, key: Mapping[str, Any]) -> bool:
    """Whether this refresh token is bound to this key, and good for the same as the new grant.

    Nothing was taken from its grant: the tokens that ended with a scope would be valid again with it (L-08).
    The same resources: a scope means something else at another one. The same sign-in, or an earlier one: what was agreed to
    must not come with the name of another level, other methods or a later time than those of the sign-in at which it was
    agreed to (RFC 9470, 6).
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
    """Resources however an operator spells them, or spelt them then."""
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
