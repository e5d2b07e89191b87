"""When the user is not asked for consent: `consent_decision`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from authserver.api import Client, Consent, Decision, allow, hookimpl


@dataclass(frozen=True)
class ConsentRemembered:
    """Do not ask again if the user agreed before to everything that the request asks for."""

    reasons: ClassVar[frozenset[str]] = frozenset({"consent-remembered"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def consent_decision(
        self, scopes: tuple[str, ...], resources: tuple[str, ...], remembered: Consent | None
    ) -> Decision[None] | None:
        if (
            remembered is not None
            and set(scopes) <= set(remembered.scopes)
            and set(resources) <= set(remembered.resources)
        ):
            return allow("consent-remembered")
        return None


@dataclass(frozen=True)
class ConsentFirstParty:
    """Do not ask for a first-party application."""

    reasons: ClassVar[frozenset[str]] = frozenset({"first-party"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def consent_decision(self, client: Client) -> Decision[None] | None:
        return allow("first-party") if client.first_party else None
