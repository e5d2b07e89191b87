"""What a client knows a person by (OIDC Core, 8): the id of the user, or one that is made for the client's sector.

A pairwise id is a keyed digest of sector and user. Its key is a setting of its own, so that no rotation of other keys
changes what clients know people by.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable

from authserver.api import Client, ClientMetadata, Secret, display_host, origin_of

TYPE = "subject_type"
SECTOR = "sector_identifier_uri"
PUBLIC, PAIRWISE = "public", "pairwise"


def is_pairwise(client: Client) -> bool:
    """Whether the client is registered to know people by ids of its sector alone."""
    return client.details.get(TYPE) == PAIRWISE


def sector_of(redirect_uris: Iterable[str], address: str | None) -> str | None:
    """The sector: the host of its address, or the one host of the redirect URIs; None where that is not one.

    The scheme of an application is no host, and anybody may have sent what is no URI at all.
    """
    hosts = {
        display_host(uri) if origin_of(uri) else None for uri in ([address] if address else redirect_uris)
    }
    return hosts.pop() if len(hosts) == 1 else None


def sector_of_client(client: Client | ClientMetadata) -> str | None:
    """The sector of a client, as it is registered."""
    return sector_of(client.redirect_uris, client.details.get(SECTOR))


def pairwise(salt: Secret, sector: str, user_id: str) -> str:
    """The id by which all clients of this sector know the user; 43 characters of base64url."""
    made = hmac.new(salt.value.encode(), f"{sector}\0{user_id}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()
