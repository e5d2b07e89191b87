from dataclasses import dataclass
from typing import ClassVar

from authserver.api import Client, Decision, User, hookimpl, narrow


@dataclass(frozen=True)
class GroupScopes:
    """Give certain scopes only to people of certain groups.

    Attributes:
        scopes: a line each, `scope = group group …`; a scope that is not listed is for everybody.
    """

    immediate: ClassVar[bool] = True
    reasons: ClassVar[dict[str, str]] = {
        "not-in-group": "put the person into the group: `authserver user edit NAME --add-group GROUP`"
    }

    scopes: tuple[tuple[str, str], ...] = ()

    @hookimpl
    def scope_decision(
        self, client: Client, user: User | None, grant_type: str, requested: tuple[str, ...]
    ) -> Decision[tuple[str, ...]] | None:
        if user is None and grant_type == "authorization_code":
            return None  # nobody has signed in yet; the question comes again
        groups = user.groups if user else ()
        asked = requested or client.scopes
        withheld = {scope for scope, named in self.scopes if not set(named.split()) & set(groups)}
        if withheld.isdisjoint(asked):
            return None
        return narrow("not-in-group", tuple(scope for scope in asked if scope not in withheld))
