from dataclasses import dataclass
from typing import Any, ClassVar

from authserver.api import Client, Decision, ScopeDecisionHook, hookimpl, narrow


@dataclass(frozen=True)
class ReadOnly(ScopeDecisionHook):
    """Whatever these clients ask for, their tokens can only read."""

    reasons: ClassVar[frozenset[str]] = frozenset({"read-only"})

    clients: tuple[str, ...] = ()

    @hookimpl
    def scope_decision(self, *, client: Client, **others: Any) -> Decision[tuple[str, ...]] | None:
        if client.client_id in self.clients:
            return narrow("read-only", tuple(scope for scope in client.scopes if scope.endswith(".read")))
        return None
