from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from authserver import api
from authserver.api import InvalidToken, Medium, OAuthError, Origins, Route, TokenKind, hookimpl

ALLOWED = "who_am_i_allowed"


class NotAllowed(OAuthError):
    """The client of the token is not registered for this."""

    code = "access_denied"
    status = 403


@dataclass(frozen=True)
class WhoAmI:
    """Tell who granted an access token, for clients that are registered for it."""

    reasons: ClassVar[Mapping[str, str]] = {
        "who-am-i-token": "",
        "who-am-i-not-allowed": (
            f"register the client for it: `authserver client edit {{client_id}} --metadata {ALLOWED}=true`"
        ),
    }

    @hookimpl
    def client_metadata(self):
        return {ALLOWED: api.read_flag}

    @hookimpl
    def includeme(self, config):
        route = Route(
            "who_am_i", "/who-am-i", ("GET",), Medium.JSON, Origins.CLIENTS, metadata="who_am_i_endpoint"
        )
        config.add_endpoint(route, self.answer)

    def answer(self, request):
        engine = request.engine
        bearer = api.read_bearer(engine.caller.authorization)
        issued = api.find_issued(engine, bearer.value) if bearer else None
        # A token that is bound to a key is no bearer token.
        if (
            issued is None
            or issued.kind is not TokenKind.ACCESS
            or issued.confirmation
            or not issued.is_active(engine.now)
        ):
            raise InvalidToken("The token is not valid.", reason="who-am-i-token", sent=bearer is not None)
        # The event of a refusal says whom it is about.
        engine.journal.client_id = issued.client_id
        client = engine.find_client(issued.client_id)
        if client is None or not client.is_enabled or not client.details.get(ALLOWED):
            raise NotAllowed("This client may not ask.", reason="who-am-i-not-allowed")
        return api.json_response({"sub": issued.grant.subject, "scope": " ".join(issued.scopes)})
