"""Clients that are kept elsewhere: `find_client`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from authserver.api import RESERVED_PREFIXES, Client, fitting_application_type, hookimpl, redirect_uri_problem

MEMBERS = frozenset({"name", "redirect_uris", "scopes", "resources", "first_party", "application_type"})


@dataclass(eq=False)
class ClientsFile:
    """Public clients in a configuration file: TOML with a table `[client_id]` for each.

        [notes-app]
        name = "Notes"
        redirect_uris = ["https://notes.example.com/callback"]
        scopes = ["profile"]

    They use the authorization code grant and refresh tokens. The file is read at start.
    """

    immediate: ClassVar[bool] = True

    file: str
    _clients: Mapping[str, Client] = field(init=False, repr=False)

    def prepare(self) -> None:
        """Read the file. Raises ValueError."""
        self._clients = _read(Path(self.file))

    @hookimpl
    def find_client(self, client_id: str) -> Client | None:
        return self._clients.get(client_id)


def _read(path: Path) -> dict[str, Client]:
    """Read the clients of the file. Raises ValueError that names the file, the client and the member."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        changed_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"file: cannot read {path}: {error}") from None
    return {
        client_id: _client(f"{path}: [{client_id}]", client_id, table, changed_at)
        for client_id, table in tables.items()
    }


def _client(where: str, client_id: str, table: Any, created_at: datetime) -> Client:
    if not isinstance(table, dict) or set(table) - MEMBERS:
        raise ValueError(f"file: {where}: a client is a table with these keys: {', '.join(sorted(MEMBERS))}")
    if client_id.startswith(RESERVED_PREFIXES):
        raise ValueError(f"file: {where}: a client id must not begin with user_ or http")
    redirect_uris = _texts(where, table, "redirect_uris")
    if not redirect_uris:
        raise ValueError(f"file: {where}: redirect_uris is missing")
    application_type = table.get("application_type") or fitting_application_type(redirect_uris)
    for uri in redirect_uris:
        if problem := redirect_uri_problem(uri, application_type=application_type):
            raise ValueError(f"file: {where}: redirect_uris: {problem}")
    return Client(
        client_id=client_id,
        name=str(table.get("name", client_id)),
        auth_method="none",
        redirect_uris=redirect_uris,
        grant_types=("authorization_code", "refresh_token"),
        scopes=_texts(where, table, "scopes"),
        resources=_texts(where, table, "resources"),
        application_type=application_type,
        first_party=table.get("first_party", False) is True,
        created_at=created_at,
    )


def _texts(where: str, table: dict[str, Any], name: str) -> tuple[str, ...]:
    value = table.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"file: {where}: {name} must be a list of strings")
    return tuple(value)
