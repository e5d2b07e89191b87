"""The providers through which people may sign in: one entry of settings for each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from authserver.api import MAXIMUM_IDENTIFIER, TRUSTED_ALGORITHMS, Secret, fetched_problem

BASIC, POST = "client_secret_basic", "client_secret_post"
# The name is part of the addresses for the provider.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
# The characters of scopes, claims and values of `acr` in requests.
_WORD = re.compile(r"[!#-\[\]-~]{1,200}")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An OpenID provider: its identifiers, this server's registration there, and the use of its claims.

    Attributes:
        name: its name in addresses: `/login/NAME/callback` is the redirect URI to register there.
        issuer: its issuer identifier, character by character; its metadata are found below it.
        client_id, client_secret: the registration of this server there.
        label: its name on the sign-in page; empty: `name`.
        enabled: whether people may sign in through it.
        ends_access: whether sessions that came through it, and grants given in them, end while it is not enabled.
        adds_people: whether a person without an account here gets one.
        scopes: the scopes to ask for besides `openid`.
        auth_method: how this server authenticates there; empty: the method that the provider prefers.
        algorithms: the accepted algorithms of its ID tokens.
        asks_userinfo: whether UserInfo is asked for claims that the ID token lacks; most providers have them only there.
        username: the claim that becomes the user name of a new account.
        display_name: the claim that becomes the display name of a new account.
        groups_claim: the claim with the groups; empty: groups are managed here.
        groups: a line each, `group there = group here`; others are left out. Without lines all groups keep their names.
        administering_groups: groups with the right to administer this server that may come from there; no others may.
        attributes: a line each, `attribute here = claim`.
        trusts_email: whether an address that it marks as verified counts as verified here, too.
        trusts_methods: whether its methods of authentication (`amr`) count here, too.
        levels: a line each, `level here = acr there`: the `acr` to ask for if an application asks for that level.
        methods: a line each, `acr there = method+method`: the methods here of a sign-in of that level there.
        domains: domains of mail addresses whose people are expected to use it; they decide nothing else.
    """

    name: str
    issuer: str
    client_id: str
    client_secret: Secret = field(repr=False)
    label: str = ""
    enabled: bool = True
    ends_access: bool = True
    adds_people: bool = False
    scopes: tuple[str, ...] = ("profile", "email")
    auth_method: str = ""
    algorithms: tuple[str, ...] = ("RS256", "ES256", "PS256", "EdDSA")
    asks_userinfo: bool = True
    username: str = "preferred_username"
    display_name: str = "name"
    groups_claim: str = ""
    groups: tuple[tuple[str, str], ...] = ()
    administering_groups: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    trusts_email: bool = False
    trusts_methods: bool = False
    levels: tuple[tuple[str, str], ...] = ()
    methods: tuple[tuple[str, str], ...] = ()
    domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"the name of a provider has 1 to 40 small letters, digits and hyphens, and {self.name!r} has not"
            )
        if problem := fetched_problem(self.issuer):
            raise ValueError(f"issuer: {problem[0].lower()}{problem[1:]}")
        if "?" in self.issuer:
            raise ValueError("issuer: it must not have a query; copy it from the provider's documentation")
        if not _WORD.fullmatch(self.client_id) and not 0 < len(self.client_id) <= MAXIMUM_IDENTIFIER:
            raise ValueError("client_id: copy it from the provider; it has visible characters only")
        if self.auth_method not in ("", BASIC, POST):
            raise ValueError(f"auth_method: must be {BASIC} or {POST}, or be left out")
        if not self.algorithms or not set(self.algorithms) <= set(TRUSTED_ALGORITHMS):
            raise ValueError(f"algorithms: must be some of {' '.join(TRUSTED_ALGORITHMS)}")
        for group in self.administering_groups:
            if not self.groups_claim:
                raise ValueError(f"administering_groups: {group} comes from nowhere; set groups_claim")

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.label or self.name

    @property
    def scope(self) -> str:
        """The `scope` of requests to it."""
        return " ".join(dict.fromkeys(("openid", *self.scopes)))

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, without TLS."""
        return self.issuer.startswith("http:")

    @cached_property
    def groups_here(self) -> dict[str, str]:
        """The groups here, by the name that the provider gives them."""
        return dict(self.groups)

    @cached_property
    def acr_of(self) -> dict[str, str]:
        """The `acr` to ask for there, by the level here."""
        return dict(self.levels)

    @cached_property
    def methods_of(self) -> dict[str, tuple[str, ...]]:
        """The methods of a sign-in here, by the `acr` there."""
        return {acr: tuple(methods.split("+")) for acr, methods in self.methods}
