"""The subject identifiers of people (OIDC Core, 8): the id of the user, or an id for the client's sector.

A pairwise id is a keyed digest of sector and user. Its key is a setting of its own, so that a rotation of other keys
does not change the ids.
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
    """Whether the client is registered for the subject type `pairwise`."""
    return client.details.get(TYPE) == PAIRWISE


def sector_of(redirect_uris: Iterable[str], address: str | None) -> str | None:
    """The sector: the host of its address, or the common host of the redirect URIs; None without one.

    A private-use scheme has no host, and a stranger may have sent a text that is no URI.
    """
    hosts = {
        display_host(uri) if origin_of(uri) else None for uri in ([address] if address else redirect_uris)
    }
    return hosts.pop() if len(hosts) == 1 else None


def sector_of_client(client: Client | ClientMetadata) -> str | None:
    """The sector of a registered client."""
    return sector_of(client.redirect_uris, client.details.get(SECTOR))


def pairwise(salt: Secret, sector: str, user_id: str) -> str:
    """The id of the user for all clients of this sector; 43 characters of base64url."""
    made = hmac.new(salt.value.encode(), f"{sector}\0{user_id}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()
