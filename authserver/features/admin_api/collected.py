"""All that the API can do, and the scopes for it. A new capability is one more module here."""

from collections.abc import Mapping

from authserver.features.admin_api import (
    agreements,
    clients,
    ends,
    identities,
    index,
    initial_tokens,
    keys,
    password_links,
    people,
    resources,
    statistics,
    trail,
)
from authserver.features.admin_api.entries import Entry

_MODULES = (
    index,
    clients,
    people,
    identities,
    password_links,
    agreements,
    ends,
    resources,
    initial_tokens,
    keys,
    trail,
    statistics,
)
ENTRIES: tuple[Entry, ...] = tuple(entry for module in _MODULES for entry in module.ENTRIES)
# With the sentences of the consent page.
SCOPES: Mapping[str, str] = {name: text for module in _MODULES for name, text in module.SCOPES.items()}
