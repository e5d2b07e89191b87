"""Sign-in through OpenID providers: Entra, Okta, Google, Keycloak and any other (OIDC Core 1.0).

This server is then a client of the provider. The provider's `iss` and `sub` decide which account is meant; a user name or
a mail address never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from pyramid.config import Configurator

from authserver.api import (
    THROUGH,
    AuthenticationStep,
    Begin,
    Decision,
    Identity,
    Session,
    SignIn,
    User,
    allow,
    hookimpl,
)
from authserver.features.upstream.account import AccountPage
from authserver.features.upstream.ending import BackChannel, end_all_through
from authserver.features.upstream.pages import Pages
from authserver.features.upstream.people import identity_of
from authserver.features.upstream.providers import Provider


@dataclass(frozen=True)
class Upstream:
    """Let people sign in through OpenID providers, beside passwords or in place of them.

    Attributes:
        providers: an entry for each, whose settings are `providers.NAME.SETTING`; a table below has them.
    """

    immediate: ClassVar[bool] = True
    reasons: ClassVar[Mapping[str, str]] = {
        "identity-mapped": "",
        "identity-name-taken": (
            "nobody is joined by a name: the person signs in to the account with that name in another way, and adds the "
            "provider there under Ways to sign in"
        ),
        "identity-taken": "",
        "identity-unknown": (
            "set adds_people = true in the entry of the provider; or the person signs in in another way, and adds the provider "
            "in their account"
        ),
        "identity-unusable": (
            "the ID token or UserInfo must have the claims that are named by username, groups_claim and attributes in the "
            "entry of the provider, with usable values: the event says what is wrong"
        ),
        "provider-answer-issuer": "the answer has the name of another provider (RFC 9207), so nobody is signed in",
        "provider-answer-malformed": "the provider must answer as OpenID Connect Core says, with one code and an ID token",
        "provider-attempt-expired": "",
        "provider-attempt-used": "",
        "provider-code-refused": (
            "client_id, client_secret and auth_method in the entry, and the redirect URI, which ends with /callback, must be "
            "those that are registered at the provider"
        ),
        "provider-configuration-refused": (
            "the document at the issuer of the entry and /.well-known/openid-configuration cannot be used: the event says why"
        ),
        "provider-denied": "",
        "provider-error": "the event says which error the provider answered with; its own log says why",
        "provider-issuer-differs": "issuer in the entry must be what the provider calls itself, character by character",
        "provider-keys-refused": "the key set of the provider cannot be used: the event says why",
        "provider-login-required": "",
        "provider-logout-event": "the logout token must have the event of Back-Channel Logout, and no nonce",
        "provider-logout-jti": "the logout token must have a jti of its own",
        "provider-logout-nobody": "the logout token must have sub, sid or both, as texts",
        "provider-logout-replayed": "",
        "provider-nonce": "",
        "provider-off": "set enabled = true in the entry of the provider",
        "provider-sign-in-old": (
            "the provider did not let the person sign in again, or does not say when they did: it must support prompt=login "
            "and max_age, and put auth_time into its ID tokens"
        ),
        "provider-sign-in-time": "auth_time in the ID token must be a number of seconds since 1970, and not in the future",
        "provider-signed-out": "",
        "provider-state-foreign": "",
        "provider-subject": "sub in the ID token must be 1 to 255 visible characters",
        "provider-token-algorithm": "alg of the ID token must be that of its key, and among algorithms in the entry",
        "provider-token-audience": "aud of the ID token must be client_id in the entry, and no other client",
        "provider-token-expired": "the clock of this server or of the provider is wrong",
        "provider-token-header": "the header of the ID token must have alg, kid and typ only",
        "provider-token-issuer-not-trusted": "iss of the ID token must be issuer in the entry, character by character",
        "provider-token-key-unknown": "kid of the ID token must be that of a key that the provider publishes",
        "provider-token-malformed": "the ID token must be a signed JWT of at most 8,192 characters",
        "provider-token-not-yet-valid": "the clock of this server or of the provider is wrong",
        "provider-token-old": (
            "the ID token was made before the person was sent to the provider: somebody may have kept it"
        ),
        "provider-token-signature": (
            "the ID token was not signed with the key that the provider publishes under its kid"
        ),
        "provider-token-subject-missing": "sub of the ID token must be a text",
        "provider-token-times-malformed": "exp and iat of the ID token must be whole numbers of seconds since 1970",
        "provider-token-type": "typ in the header of the ID token must be JWT, or absent",
        "provider-unavailable": "",
        "provider-unreachable": "the event says why the provider could not be asked",
        "provider-userinfo": (
            "the provider must let this server ask UserInfo; or set asks_userinfo = false in the entry"
        ),
        "provider-userinfo-subject": "UserInfo of the provider must be about the person of the ID token",
    }

    providers: tuple[Provider, ...]

    def __post_init__(self) -> None:
        issuers = [provider.issuer for provider in self.providers]
        if len(set(issuers)) < len(issuers):
            raise ValueError("providers: two entries have the same issuer; keep one")

    @property
    def insecure(self) -> tuple[str, ...]:
        return tuple(
            f"providers.{provider.name}.issuer: plain http; give the https address of the provider"
            for provider in self.providers
            if provider.is_local
        )

    @cached_property
    def _providers(self) -> Mapping[str, Provider]:
        return {provider.name: provider for provider in self.providers}

    @hookimpl
    def identity_decision(
        self, provider: str, issuer: str, claims: Mapping[str, Any], user: User | None
    ) -> Decision[Identity] | None:
        """Decide by the entry of the provider."""
        entry = self._providers.get(provider)
        if entry is None or entry.issuer != issuer:
            return None
        return allow("identity-mapped", identity_of(entry, claims, user))

    @hookimpl
    def authentication_decision(
        self, session: Session | None
    ) -> Decision[AuthenticationStep | SignIn] | None:
        """Require a new sign-in if the session came through a provider that is switched off (UP-04)."""
        through = session.details.get(THROUGH) if session else None
        if through is not None and through["issuer"] in self._ended:
            return allow("provider-off", AuthenticationStep.SIGN_IN_AGAIN)
        return None

    @hookimpl
    def look_after(self, begin: Begin) -> None:
        """End sessions and grants that came through providers that are switched off (UP-04)."""
        for issuer in self._ended:
            end_all_through(begin, issuer)

    @cached_property
    def _ended(self) -> frozenset[str]:
        """The issuers of the providers that are switched off and whose sessions and grants are to end."""
        return frozenset(
            provider.issuer for provider in self.providers if provider.ends_access and not provider.enabled
        )

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        pages = Pages(providers=self._providers)
        pages.includeme(config)
        AccountPage(pages=pages).includeme(config)
        BackChannel(providers=self._providers).includeme(config)


__all__ = ["Upstream"]
