from dataclasses import dataclass

from authserver import api
from authserver.api import Grant, InvalidGrant, Issue, hookimpl

GRANT_TYPE = "urn:example:grant-type:badge"


@dataclass(frozen=True)
class Badges:
    """Give tokens for whoever holds a badge to the reader of a terminal."""

    badges: tuple[tuple[str, str], ...] = ()  # a line each: badge = user name

    @hookimpl
    def grant_types(self):
        return {GRANT_TYPE: self.redeem}

    def redeem(self, engine, client, parameters):
        name = dict(self.badges).get(parameters.require("badge"))
        user = engine.stores.users.find_by_name(name) if name else None
        if client.is_public or user is None or not user.is_enabled:
            raise InvalidGrant("The badge is not valid.", reason="badge-refused")
        requested = api.requested_scopes(parameters)
        resources = api.allowed_resources(engine, client, parameters.all("resource"))
        scopes = api.allowed_scopes(engine, client, user, GRANT_TYPE, requested, resources)
        _, lifetime = engine.token_form(client, resources)
        grant = Grant(
            grant_id=api.new_identifier(),
            client_id=client.client_id,
            user_id=user.user_id,
            scopes=scopes,
            resources=resources,
            created_at=engine.now,
            expires_at=engine.now + lifetime,
        )
        return Issue(grant=grant, user=user, scopes=scopes, resources=resources, is_new=True)
