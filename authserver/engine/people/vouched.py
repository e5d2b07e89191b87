"""The people whom trusted issuers name: found by issuer, tenant and subject together, never by a mail address (T165).

Such a person has a user name that is made of these three, and an attribute that says so. Whoever has the name and not the
attribute is somebody else.
"""

from __future__ import annotations

import hashlib
import json

from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.people.attributes import checked_attributes
from authserver.engine.records import User
from authserver.limits import MAXIMUM_ATTRIBUTE_VALUE

# The attributes of such a person: what ties them to the issuer, and what operators read.
TIE, ISSUER, TENANT, SUBJECT = "vouched-for", "vouched-by", "tenant", "subject"


def find_vouched(engine: Engine, issuer: str, tenant: str, subject: str) -> User | None:
    """The person whom this issuer calls so, if they were here before; None also if the name is somebody else's."""
    tie = _tie(issuer, tenant, subject)
    user = engine.stores.users.find_by_name(_username(tie))
    return user if user is not None and user.attributes.get(TIE) == (tie,) else None


def new_vouched(engine: Engine, issuer: str, tenant: str, subject: str) -> User | None:
    """The same who was not here before, not stored yet; None if somebody else has the name."""
    tie = _tie(issuer, tenant, subject)
    if engine.stores.users.find_by_name(_username(tie)) is not None:
        return None
    told = {ISSUER: issuer, TENANT: tenant, SUBJECT: subject}
    readable = {
        name: (value,)
        for name, value in told.items()
        if 0 < len(value) <= MAXIMUM_ATTRIBUTE_VALUE and value.isprintable() and value == value.strip()
    }
    return User(
        user_id=digests.new_identifier("user_"),
        username=_username(tie),
        attributes=checked_attributes({TIE: (tie,), **readable}),
        created_at=engine.now,
    )


def _tie(issuer: str, tenant: str, subject: str) -> str:
    # As JSON, so that no two of these are one text.
    return hashlib.sha256(json.dumps([issuer, tenant, subject]).encode()).hexdigest()


def _username(tie: str) -> str:
    return f"vouched-{tie[:40]}"
