"""All entries of the API, and their scopes. For new operations, add one more module here."""

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
# The scopes with their sentences on the consent page.
SCOPES: Mapping[str, str] = {name: text for module in _MODULES for name, text in module.SCOPES.items()}
