"""Ends the sessions here that came through a session at a provider, or through a provider that is switched off.

With a logout token a provider says that a person has signed out there (OpenID Connect Back-Channel Logout 1.0, 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pyramid.config import Configurator
from pyramid.response import Response

from authserver.api import (
    TEXT,
    Begin,
    Counted,
    Engine,
    InvalidRequest,
    Kept,
    Medium,
    NothingThere,
    Operation,
    Parameter,
    Request,
    Route,
    TemporarilyUnavailable,
    claim_rate,
    digest,
    end_through,
    give_back_rate,
    json_response,
    read_form,
)
from authserver.features.upstream.documents import NotUsable, endpoints_of
from authserver.features.upstream.providers import Provider
from authserver.features.upstream.tokens import MAXIMUM_SUBJECT, SKEW, Refused, verified

LOGOUT = Route(
    "provider_logout",
    "/login/{provider}/logout",
    ("POST",),
    Medium.JSON,
    operation=Operation(
        summary="A provider says that somebody has signed out there (OpenID Connect Back-Channel Logout, 2.5).",
        form={
            "logout_token": Parameter(
                description="The logout token of the provider.", required=True, schema=TEXT
            )
        },
        answer={},
        errors=(InvalidRequest,),
        limited=True,
    ),
)
TYPE = "logout+jwt"
EVENT = "http://schemas.openid.net/event/backchannel-logout"
KIND = "provider-logout"
# The reasons for which sessions ended, as events keep them.
SIGNED_OUT_THERE, OFF = "signed-out-at-provider", "provider-off"
# How many identities of a provider are read in one transaction.
PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class BackChannel:
    """The endpoint that providers call."""

    providers: Mapping[str, Provider]

    def includeme(self, config: Configurator) -> None:
        config.add_endpoint(LOGOUT, self.answer)

    def answer(self, request: Request) -> Response:
        """POST /login/{provider}/logout."""
        provider = self.providers.get(request.matchdict["provider"])
        if provider is None:
            raise NothingThere
        engine = request.engine
        text = read_form(request).require("logout_token")
        # Anybody can send a token, and each may cause a fetch of the keys.
        claimed = claim_rate(engine, Counted.FAILED_FETCH)
        claims = _read(engine, provider, text)
        give_back_rate(engine, claimed)
        end_sessions(engine, provider, claims)
        return json_response({})


def _read(engine: Engine, provider: Provider, text: str) -> Mapping[str, Any]:
    """The claims of a logout token (Back-Channel Logout, 2.6). Raises InvalidRequest, TemporarilyUnavailable."""
    try:
        claims = verified(engine, provider, endpoints_of(engine, provider), text, typ=TYPE)
    except Refused as refused:
        raise _invalid(refused.reason) from None
    except NotUsable as problem:
        raise TemporarilyUnavailable(
            "The keys of the provider cannot be fetched now.", reason=problem.reason
        ) from None
    events, jti, subject, session = (claims.get(name) for name in ("events", "jti", "sub", "sid"))
    # An ID token, or another JWT about a person, is not a logout token (Back-Channel Logout, 2.6).
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict) or "nonce" in claims:
        raise _invalid("provider-logout-event")
    named = [each for each in (subject, session) if each is not None]
    if not named or not all(isinstance(each, str) and 0 < len(each) <= MAXIMUM_SUBJECT for each in named):
        raise _invalid("provider-logout-nobody")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAXIMUM_SUBJECT:
        raise _invalid("provider-logout-jti")
    used = Kept(
        kind=KIND,
        digest=digest(KIND, f"{provider.issuer} {jti}"),
        created_at=engine.now,
        expires_at=datetime.fromtimestamp(claims["exp"], UTC) + SKEW + timedelta(minutes=1),
    )
    if not engine.stores.kept.add_once(used):
        raise _invalid("provider-logout-replayed")
    return claims


def end_sessions(engine: Engine, provider: Provider, claims: Mapping[str, Any]) -> None:
    """End the sessions here that a logout token names: by the person, by the session there, or by both."""
    session, subject = claims.get("sid"), claims.get("sub")
    if subject is None:
        known = engine.stores.kept.find(KIND, _key_of(provider, str(session)))
        subject = known.details["subject"] if known else None
    joined = None if subject is None else engine.stores.identities.find(provider.issuer, subject)
    if joined is not None:
        # The grants that applications got in these sessions end with them, as after any sign-out.
        end_through(engine, joined.user_id, provider.issuer, SIGNED_OUT_THERE, access=False, session=session)


def remember_session(engine: Engine, provider: Provider, subject: str, session: str) -> None:
    """Store the person of a session there, because a logout token may name only the session."""
    until = engine.now + timedelta(seconds=engine.settings.session_lifetime)
    engine.stores.kept.add_once(
        Kept(
            kind=KIND,
            digest=_key_of(provider, session),
            created_at=engine.now,
            expires_at=until,
            details={"subject": subject},
        )
    )


def end_all_through(begin: Begin, issuer: str) -> None:
    """End all sessions that came through this provider, and the grants that people gave in them."""
    after = ""
    while True:
        with begin() as engine:
            found = engine.stores.identities.page(issuer, after=after, limit=PAGE)
            for identity in found:
                end_through(engine, identity.user_id, issuer, OFF)
        if len(found) < PAGE:
            return
        after = found[-1].subject


def _key_of(provider: Provider, session: str) -> bytes:
    return digest(KIND, f"{provider.issuer} session {session}")


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest("The logout token is not accepted.", reason=reason)
