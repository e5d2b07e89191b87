"""Refuse clients that are listed in a SQLite file, which others write while the server runs."""

import sqlite3
from dataclasses import dataclass, field
from typing import ClassVar

from authserver.api import Client, Credentials, Decision, deny, hookimpl


@dataclass(eq=False)
class Blocklist:
    """Refuse the clients in the table `blocked`.

    Attributes:
        file: path of the SQLite file.
    """

    reasons: ClassVar[frozenset[str]] = frozenset({"client-blocked"})

    file: str
    _table: sqlite3.Connection = field(init=False, repr=False)

    def prepare(self) -> None:
        try:
            # A connection locks itself, so all threads may share it.
            self._table = sqlite3.connect(f"file:{self.file}?mode=ro", uri=True, check_same_thread=False)
            self._table.execute("SELECT client_id FROM blocked LIMIT 1")
        except sqlite3.Error as error:
            raise ValueError(f"file: {self.file}: {error}") from None

    @hookimpl
    def client_auth_decision(self, client: Client, credentials: Credentials) -> Decision | None:
        found = self._table.execute("SELECT 1 FROM blocked WHERE client_id = ?", (client.client_id,))
        return deny("client-blocked") if found.fetchone() else None

    def close(self) -> None:
        self._table.close()
