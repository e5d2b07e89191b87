"""OpenID Connect (Core 1.0, Discovery 1.0, Dynamic Client Registration 1.0): applications sign people in.

A request with the scope `openid` gets an ID token with its access token, and its client may ask the UserInfo endpoint for
claims about the person. Only the code flow is offered. An application can sign the person out, and is told when a session
ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from pyramid.config import Configurator
from pyramid.response import Response

from authserver.api import (
    METADATA_DOCUMENT,
    AuthenticationRefused,
    AuthenticationStep,
    Begin,
    Client,
    Decision,
    Described,
    Engine,
    Event,
    ExchangeableToken,
    Expanded,
    Grant,
    InvalidRequest,
    Issued,
    Parameter,
    Parameters,
    ReadMember,
    Request,
    Respond,
    Secret,
    Session,
    SignIn,
    Token,
    TokenKind,
    UnauthorizedClient,
    User,
    hookimpl,
    metadata_document,
)
from authserver.api import translatable as _
from authserver.features.openid import (
    account,
    back_channel,
    form_post,
    id_tokens,
    logout,
    registration,
    sign_in,
    subjects,
    userinfo,
)
from authserver.features.openid.claims import COVERED, NAMES, OPENID, of_person, read_asked
from authserver.features.openid.sign_in import LOGIN_REQUIRED, PROMPTS, UNMET

DISCOVERY = "openid-configuration"
MAXIMUM_NONCE = 2_000
MINIMUM_SALT = 32


SENTENCES: Mapping[str, str] = {
    OPENID: _("Sign you in, and recognise you when you come back"),
    "profile": _("See your name and what your profile says"),
    "email": _("See your e-mail address"),
    "address": _("See your postal address"),
    "phone": _("See your phone number"),
}


@dataclass(frozen=True)
class OpenID:
    """Sign people in to applications (OpenID Connect).

    Attributes:
        scopes_added: the standard scopes that come with the plugin. Remove those that `authserver.scopes` has.
        attributes: a line each, `claim = attribute`, for claims that come from an attribute of another name; parts of an
            address are `address.locality` and the like.
        algorithms: the algorithms of ID tokens and signed answers; RS256 is among them (OIDC Core, 15.1).
        id_token_lifetime: seconds for which an ID token is valid, 30 to 3600.
        claims_in_id_token: whether ID tokens have all claims of UserInfo, for clients that never call UserInfo.
        require_pkce: whether confidential clients need PKCE even if they send a `nonce` (OAuth 2.1, 7.5.1); public ones
            always do. `nonce_replaces_pkce` in the metadata of a client is an exception for that client.
        pkce_optional: whether clients may send neither PKCE nor a `nonce`, as OpenID Connect allows. INSECURE: a stolen
            code can then be redeemed. For a run of the conformance suite, most of whose requests have neither.
        pairwise_salt: the secret for ids of people that differ between sectors; at least 32 characters, and never
            changed. Without it people have the same id for all clients.
    """

    immediate: ClassVar[bool] = True
    details: ClassVar[frozenset[str]] = frozenset({"nonce", "by_nonce", "by_nothing"})
    grant_members: ClassVar[frozenset[str]] = frozenset({"claims_in_id_token", "subject"})
    members: ClassVar[frozenset[str]] = frozenset({"id_token"})
    implied: ClassVar[frozenset[str]] = frozenset({"acr_values", "max_age"})
    replaces_pkce: ClassVar[Mapping[str, str]] = {
        "by_nonce": "the client compares the nonce in the ID token with the one that it sent"
    }
    silences: ClassVar[Mapping[str, str]] = {"prompt": "a request with `none` shows no page"}
    waives_pkce: ClassVar[Mapping[str, str]] = {"by_nothing": "an operator tries the server, and says so"}
    proven_at_registration: ClassVar[Mapping[str, str]] = {
        registration.WITHOUT_PKCE: "an operator says so",
        subjects.SECTOR: "the document that it names",
    }
    described: ClassVar[Mapping[str, Described]] = {
        "client_metadata": Described(members=registration.MEMBERS, answer=registration.MEMBERS),
        "code_details": Described(
            members={
                "nonce": Parameter(
                    description="Comes back in the ID token (OIDC Core, 2).",
                    schema={"type": "string", "maxLength": MAXIMUM_NONCE},
                ),
                "claims": Parameter(
                    description="What is asked for, claim by claim, as JSON (OIDC Core, 5.5).",
                    schema={"type": "string"},
                ),
                "id_token_hint": Parameter(
                    description="An ID token of the person who must be signed in (OIDC Core, 3.1.2.1).",
                    schema={"type": "string"},
                ),
            }
        ),
    }
    reasons: ClassVar[Mapping[str, str]] = {
        "account-differs": "",
        "claim-of-tokens": "a plugin must not add claims about the token itself: fix its person_claims, or remove it",
        "claims-malformed": "",
        "encryption-not-offered": "",
        "exchanged-id-token-refused": "",
        "hint-refused": "",
        "essential-level-not-reached": (
            "authserver.plugin.step_up.levels says which methods give a level, and a plugin of authserver.plugins must sign "
            "people in by them"
        ),
        "openid-max-age-malformed": "",
        "openid-nobody-signed-in": "",
        "logout-malformed": "",
        "logout-redirect-refused": (
            "add the address to post_logout_redirect_uris in the metadata of the client, as it is sent, character by character "
            "(`authserver client edit {client_id}`)"
        ),
        "nonce-too-long": "",
        "openid-prompt-malformed": "",
        "sector-changed": "",
        "sector-incomplete": "",
        "sector-missing": "",
        "sector-refused": "",
        "sector-unavailable": "",
        "sector-unknown": (
            "the redirect URIs of the client have several hosts: set sector_identifier_uri in its metadata, or make its "
            "subject_type public (`authserver client edit {client_id}`)"
        ),
        "openid-sign-in-again": "",
        "openid-sign-in-first": "",
        "openid-sign-in-suffices": "",
        "openid-sign-in-too-old": "",
        "userinfo-scheme": "",
        "userinfo-scope": "",
        "userinfo-token": "",
        "userinfo-two-tokens": "",
    }

    scopes_added: tuple[str, ...] = (OPENID, "email", "address", "phone")
    attributes: tuple[tuple[str, str], ...] = ()
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    id_token_lifetime: int = 300
    claims_in_id_token: bool = False
    require_pkce: bool = True
    pkce_optional: bool = False
    pairwise_salt: Secret | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if id_tokens.DEFAULT_ALGORITHM not in self.algorithms:
            raise ValueError(
                "algorithms: RS256 must be among them, because clients that name no algorithm expect it"
            )
        if not 30 <= self.id_token_lifetime <= 3600:
            raise ValueError("id_token_lifetime must be 30 to 3600 seconds")
        if unknown := [scope for scope in self.scopes_added if scope not in SENTENCES]:
            raise ValueError(f"scopes_added: {unknown[0]}: the standard scopes are {' '.join(SENTENCES)}")
        if self.pairwise_salt is not None and len(self.pairwise_salt.value) < MINIMUM_SALT:
            raise ValueError(f"pairwise_salt must have at least {MINIMUM_SALT} characters")

    @property
    def insecure(self) -> tuple[str, ...]:
        problem = (
            "pkce_optional: a stolen code can be redeemed; use it only for a run of the conformance suite"
        )
        return (problem,) if self.pkce_optional else ()

    @property
    def signing_algorithms(self) -> Mapping[str, str]:
        """The algorithms for which the server needs keys."""
        return dict.fromkeys(self.algorithms, "authserver.plugin.openid.algorithms")

    @cached_property
    def _attributes(self) -> Mapping[str, str]:
        return dict(self.attributes)

    @property
    def _types(self) -> tuple[str, ...]:
        return (subjects.PUBLIC,) if self.pairwise_salt is None else (subjects.PUBLIC, subjects.PAIRWISE)

    @hookimpl
    def scopes(self) -> Mapping[str, str]:
        return {scope: SENTENCES[scope] for scope in self.scopes_added}

    @hookimpl
    def server_metadata(self) -> Mapping[str, Any]:
        algorithms = list(self.algorithms)
        return {
            "subject_types_supported": list(self._types),
            "id_token_signing_alg_values_supported": algorithms,
            "userinfo_signing_alg_values_supported": algorithms,
            "claims_supported": ["sub", *NAMES, "auth_time", "acr", "amr"],
            "claim_types_supported": ["normal"],
            "claims_parameter_supported": True,
            # These members are stated because their defaults differ, and because people read the document (OIDC
            # Discovery, 3).
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
            "prompt_values_supported": list(PROMPTS),
            "display_values_supported": ["page"],
            "backchannel_logout_supported": True,
            "backchannel_logout_session_supported": True,
        }

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_endpoint(userinfo.ROUTE, self.answer_userinfo)
        config.add_endpoint(form_post.SCRIPT, form_post.script)
        config.add_endpoint(account.ROUTE, self.show_shared)
        logout.includeme(config)
        config.add_account_tab(account.ROUTE.name, account.TAB)
        config.add_well_known(DISCOVERY, metadata_document, appended=True, operation=METADATA_DOCUMENT)

    @hookimpl
    def response_modes(self) -> Mapping[str, Respond]:
        return {form_post.MODE: form_post.respond}

    @hookimpl
    def client_metadata(self) -> Mapping[str, ReadMember]:
        return registration.readers(self.algorithms, self._types)

    @hookimpl
    def expand_registration(
        self, engine: Engine, sent: Mapping[str, Any], client: Client | None
    ) -> Mapping[str, Any] | None:
        return registration.complete(engine, sent, client) or None

    @hookimpl
    def expand_authorization_request(self, parameters: Parameters) -> Expanded | None:
        """Expand nothing; refuse a request without a redirect URI on a page (OIDC Core, 3.1.2.1)."""
        scopes = " ".join(parameters.all("scope")).split(" ")
        if OPENID in scopes and not parameters.all("redirect_uri"):
            raise InvalidRequest("redirect_uri is missing.", reason="redirect-uri-missing")
        return None

    @hookimpl
    def implied_parameters(self, client: Client, parameters: Parameters) -> Mapping[str, str] | None:
        return sign_in.implied(client, parameters) if _is_asked_for(parameters) else None

    @hookimpl
    def authentication_decision(
        self, session: Session | None, is_fresh: bool, parameters: Parameters
    ) -> Decision[AuthenticationStep | SignIn] | None:
        return sign_in.decide(session, is_fresh, parameters) if _is_asked_for(parameters) else None

    @hookimpl
    def code_details(self, client: Client, parameters: Parameters) -> Mapping[str, Any] | None:
        if not _is_asked_for(parameters):
            return None
        # Only for authentication requests, including those that were sent in advance; a device has no redirect URI.
        if "response_type" in parameters:
            parameters.require("redirect_uri")
            sign_in.check(parameters)
        kept: dict[str, Any] = {"by_nothing": True} if self.pkce_optional else {}
        nonce = parameters.get("nonce")
        if nonce is None:
            return kept or None
        if len(nonce) > MAXIMUM_NONCE:
            raise InvalidRequest(f"nonce has more than {MAXIMUM_NONCE} characters.", reason="nonce-too-long")
        relaxed = not self.require_pkce or client.details.get(registration.WITHOUT_PKCE)
        if relaxed and not client.is_public:
            kept["by_nonce"] = True
        return {**kept, "nonce": nonce}

    @hookimpl
    def grant_details(
        self, engine: Engine, client: Client, user: User, acr: str | None, parameters: Parameters
    ) -> Mapping[str, Any] | None:
        subject = self._subject(client, user)
        kept: dict[str, Any] = {"subject": subject} if subject != user.user_id else {}
        if not _is_asked_for(parameters):
            return kept or None
        asked = read_asked(parameters.get("claims"))
        hint = parameters.get("id_token_hint")
        wanted = {
            asked.subject,
            None if hint is None else id_tokens.read_hint(engine, client.client_id, hint)["sub"],
        }
        if wanted - {None, subject}:
            raise AuthenticationRefused(
                "Another person is signed in.", reason="account-differs", code=LOGIN_REQUIRED
            )
        if asked.levels and acr not in asked.levels:
            raise AuthenticationRefused(
                "The sign-in does not reach this level.", reason="essential-level-not-reached", code=UNMET
            )
        known = {*NAMES, *engine.policies.names_at("person_claims")}
        if names := [name for name in asked.id_token if name in known]:
            kept["claims_in_id_token"] = names
        return kept or None

    @hookimpl
    def token_response(
        self,
        engine: Engine,
        client: Client,
        user: User | None,
        grant: Grant,
        scopes: tuple[str, ...],
        spends: Token | None,
        access_token: str,
    ) -> Mapping[str, Any] | None:
        """An ID token, if the person agreed in a session here; for other grants an issuer vouches for the person."""
        if user is None or OPENID not in scopes or "session" not in grant.details:
            return None
        is_of_code = spends is not None and spends.kind is TokenKind.CODE
        return {
            "id_token": id_tokens.make(
                engine,
                client,
                grant,
                access_token=access_token,
                lifetime=self.id_token_lifetime,
                nonce=spends.details.get("nonce") if spends is not None and is_of_code else None,
                person=self._in_id_token(engine, client, user, grant, scopes),
            )
        }

    @hookimpl
    def exchangeable_tokens(self) -> Mapping[str, ExchangeableToken]:
        return {id_tokens.TOKEN_TYPE: ExchangeableToken(read=id_tokens.present)}

    @hookimpl
    def deliver(self, events: Sequence[Event], begin: Begin) -> None:
        back_channel.deliver(begin, events)

    def answer_userinfo(self, request: Request) -> Response:
        """GET and POST /oauth/userinfo."""
        return userinfo.answer(request, self.about)

    def show_shared(self, request: Request) -> Response:
        """GET /account/shared."""
        return account.show(request, self._attributes)

    def about(self, engine: Engine, client: Client, issued: Issued) -> Mapping[str, Any]:
        """The claims about the person that an access token gives its client."""
        assert issued.user is not None  # the endpoint refuses other tokens
        return of_person(engine, client, issued.user, issued.scopes, self._attributes)

    def _in_id_token(
        self, engine: Engine, client: Client, user: User, grant: Grant, scopes: tuple[str, ...]
    ) -> Mapping[str, Any]:
        """The claims about the person in the ID token: those that the request names for it, or all claims of UserInfo."""
        names = grant.details.get("claims_in_id_token", ())
        if not names and not self.claims_in_id_token:
            return {}
        known = of_person(engine, client, user, scopes, self._attributes)
        return {name: value for name, value in known.items() if self.claims_in_id_token or name in names}

    def _subject(self, client: Client, user: User) -> str:
        """The subject identifier of the user for this client. Raises UnauthorizedClient if it has no sector."""
        if not subjects.is_pairwise(client):
            return user.user_id
        sector = subjects.sector_of_client(client)
        if sector is None or self.pairwise_salt is None:
            raise UnauthorizedClient(
                "This client cannot get pairwise ids of people.", reason="sector-unknown"
            )
        return subjects.pairwise(self.pairwise_salt, sector, user.user_id)


def _is_asked_for(parameters: Parameters) -> bool:
    """Whether this is a request of OpenID Connect; this plugin does nothing for other requests (OIDC Core, 3.1.2.1)."""
    return OPENID in (parameters.get("scope") or "").split(" ")


__all__ = ["COVERED", "OpenID"]
