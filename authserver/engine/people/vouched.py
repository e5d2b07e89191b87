"""People named by assertions of trusted issuers: found by issuer, tenant and subject, never by a mail address (T165).

The identities are those with which people sign in through another server (`people.joining`).
"""

from __future__ import annotations

import hashlib

from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.people.attributes import shortened
from authserver.engine.people.joining import MAXIMUM_SUBJECT
from authserver.engine.records import JoinedIdentity, User

# Between tenant and subject, neither of which has such a character.
_BETWEEN = "\n"


def vouched_user(engine: Engine, issuer: str, tenant: str, subject: str) -> User | None:
    """The person to whom this issuer, tenant and subject are joined; None if there is none yet."""
    name = _name(tenant, subject)
    joined = engine.stores.identities.find(issuer, name) if name else None
    return None if joined is None else engine.stores.users.find(joined.user_id)


def new_vouched_user(
    engine: Engine, issuer: str, tenant: str, subject: str
) -> tuple[User, JoinedIdentity] | None:
    """A new person and the identity that joins them to the issuer; neither is stored yet (`Vouched.joins`).

    None if no person can be made: the subject is too long or not printable, or the user name is taken, for example by
    a person from whom this identity was removed.
    """
    name = _name(tenant, subject)
    if not name:
        return None
    digest = hashlib.sha256(f"{issuer}{_BETWEEN}{name}".encode()).hexdigest()
    username = f"vouched-{digest[:40]}"
    if engine.stores.users.find_by_name(username) is not None:
        return None
    user = User(user_id=digests.new_identifier("user_"), username=username, created_at=engine.now)
    joined = JoinedIdentity(
        issuer=issuer,
        subject=name,
        user_id=user.user_id,
        label=shortened(f"{tenant} {subject}" if tenant else subject),
        joined_at=engine.now,
    )
    return user, joined


def _name(tenant: str, subject: str) -> str:
    """The stored subject of an identity of this tenant; "" if it cannot be stored."""
    name = f"{tenant}{_BETWEEN}{subject}" if tenant else subject
    is_printable = tenant.isprintable() and subject.isprintable()
    return name if is_printable and len(name) <= MAXIMUM_SUBJECT else ""
