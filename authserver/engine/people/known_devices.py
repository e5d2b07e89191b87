"""Recognises the browsers in which a user signed in before: guesses from other places do not lock the user out there.

The cookie of a browser holds an id and a MAC for each of the last people who signed in there. It proves only that;
its browser must sign in like any other.
"""

from __future__ import annotations

import re

from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.crypto.sealing import Unsealable, from_text, to_text
from authserver.engine.records import User
from authserver.limits import MAXIMUM_PEOPLE

PURPOSE = "known-device"
_COOKIE = re.compile(rf"[A-Za-z0-9_-]{{22}}(\.[A-Za-z0-9_-]{{1,100}}){{1,{MAXIMUM_PEOPLE}}}")


def device_id_of(engine: Engine, cookie: str, user: User | None) -> str | None:
    """The id of the browser if this user signed in there before; else None."""
    if not _COOKIE.fullmatch(cookie):
        return None
    device_id, *proofs = cookie.split(".")
    # An unknown name costs the same work (T100).
    known = [_proves(engine, device_id, user.user_id if user else "", proof) for proof in proofs]
    return device_id if user is not None and any(known) else None


def cookie_with(engine: Engine, cookie: str, user: User) -> str:
    """The cookie of this browser after this user signed in there; `cookie` is the one it had before, or ""."""
    device_id, proofs = digests.new_identifier(), list[str]()
    if _COOKIE.fullmatch(cookie):
        device_id, *proofs = cookie.split(".")
    others = [proof for proof in proofs if not _proves(engine, device_id, user.user_id, proof)]
    mac = to_text(engine.ring.mac(_named(device_id, user.user_id), purpose=PURPOSE))
    return ".".join([device_id, mac, *others[: MAXIMUM_PEOPLE - 1]])


def _proves(engine: Engine, device_id: str, user_id: str, proof: str) -> bool:
    try:
        mac = from_text(proof)
    except Unsealable:
        return False
    return engine.ring.mac_matches(_named(device_id, user_id), mac, purpose=PURPOSE)


def _named(device_id: str, user_id: str) -> bytes:
    return f"{device_id} {user_id}".encode()
