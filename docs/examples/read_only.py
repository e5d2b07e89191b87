from dataclasses import dataclass

from authserver.api import hookimpl, narrow


@dataclass(frozen=True)
class ReadOnly:
    """Whatever these clients ask for, their tokens can only read."""

    clients: tuple[str, ...] = ()

    @hookimpl
    def scope_decision(self, client):
        if client.client_id in self.clients:
            return narrow("read-only", tuple(scope for scope in client.scopes if scope.endswith(".read")))
        return None
