"""One attempt of a browser to sign in through a provider: the browser goes there and comes back; nothing is stored.

The whole attempt is in the `state`, sealed, so that only this server can read it. It is valid only in the browser in which
it began, which has a cookie for it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

from authserver.api import (
    Browser,
    Engine,
    Kept,
    Unsealable,
    digest,
    from_text,
    is_marked,
    new_identifier,
    of_this_generation,
    to_text,
)

PURPOSE = "provider-attempt"
KIND = "provider-attempt"
# How long a person may take at the provider, for example to find a telephone or to set a new password.
LIFETIME = timedelta(minutes=15)
# How much the clocks of our processes may differ (T150).
_APART = timedelta(seconds=60)


class Foreign(Exception):
    """This `state` was not made for this browser, or not by this server, or for another provider."""


class Over(Exception):
    """The attempt has ended: it is too old, or has signed somebody in.

    Attributes:
        attempt: the attempt.
        was_used: whether it has signed somebody in.
    """

    def __init__(self, attempt: Attempt, *, was_used: bool) -> None:
        super().__init__()
        self.attempt = attempt
        self.was_used = was_used


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt, as it is known when the browser comes back.

    Attributes:
        attempt_id: the id by which it is used once.
        provider: the name of the entry.
        handle: the name of the cookie of its browser.
        nonce: the `nonce` of the ID token.
        verifier: the code verifier, which proves at the token endpoint that this is the same attempt (PKCE).
        began_at: when it began.
        maximum_age: how many seconds before this the sign-in there may have been; None for any, 0 for a new one.
        levels: the `acr` values that were asked for there.
        joins: the id of the person to whom the identity is to be joined; "" to sign somebody in.
        sealed_request, return_page, again: the purpose of the sign-in.
    """

    attempt_id: str = field(default_factory=new_identifier)
    provider: str
    handle: str
    nonce: str = field(default_factory=new_identifier, repr=False)
    verifier: str = field(default_factory=lambda: new_identifier() + new_identifier(), repr=False)
    began_at: float
    maximum_age: int | None = None
    levels: tuple[str, ...] = ()
    joins: str = ""
    sealed_request: str = field(default="", repr=False)
    return_page: str = ""
    again: bool = False

    @property
    def challenge(self) -> str:
        """The code challenge (RFC 7636, 4.2)."""
        made = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(made).rstrip(b"=").decode()

    @property
    def began(self) -> datetime:
        """The time at which the person was sent to the provider."""
        return datetime.fromtimestamp(self.began_at, UTC)


def seal(engine: Engine, attempt: Attempt) -> str:
    """The attempt as a `state`. The pending request in it is sealed already."""
    members = asdict(attempt)
    sealed = members.pop("sealed_request")
    request = from_text(sealed) if sealed else b""
    head = json.dumps(members, separators=(",", ":")).encode()
    return to_text(engine.ring.seal(b"%d:%s%s" % (len(head), head, request), purpose=PURPOSE))


def unseal(engine: Engine, state: str, browser: Browser, provider: str) -> Attempt:
    """The attempt of this `state`.

    Raises:
        Foreign: it was not made for this browser and this provider.
        Over: the attempt began too long ago, or has signed somebody in.
    """
    try:
        plaintext = engine.ring.open(from_text(state), purpose=PURPOSE)
    except Unsealable:
        raise Foreign from None
    size, _, rest = plaintext.partition(b":")
    members = json.loads(rest[: int(size)])
    request = rest[int(size) :]
    members["levels"] = tuple(members["levels"])
    attempt = Attempt(**members, sealed_request=to_text(request) if request else "")
    if attempt.provider != provider or not is_marked(engine, browser, attempt.handle):
        raise Foreign
    if engine.stores.kept.find(KIND, digest(KIND, attempt.attempt_id)) is not None:
        raise Over(attempt, was_used=True)
    if not -_APART <= engine.now - attempt.began <= LIFETIME or not of_this_generation(engine, attempt.began):
        raise Over(attempt, was_used=False)
    return attempt


def use(engine: Engine, attempt: Attempt) -> bool:
    """Use the attempt up in the transaction of this request; False if another request did so first."""
    return engine.stores.kept.add_once(
        Kept(
            kind=KIND,
            digest=digest(KIND, attempt.attempt_id),
            created_at=engine.now,
            expires_at=attempt.began + LIFETIME,
            claimed_at=engine.now,
        )
    )
