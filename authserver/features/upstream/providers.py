"""The providers that people may sign in through: one entry of settings for each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from authserver.api import MAXIMUM_IDENTIFIER, TRUSTED_ALGORITHMS, Secret, fetched_problem

BASIC, POST = "client_secret_basic", "client_secret_post"
# It is in the addresses of the provider.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
# As scopes, claims and values of `acr` are written in requests.
_WORD = re.compile(r"[!#-\[\]-~]{1,200}")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An OpenID provider: who it is, what this server is there, and what becomes of what it says of people.

    Attributes:
        name: in its addresses: `/login/NAME/callback` is what to register there.
        issuer: what it calls itself, character by character; its documents are found below it.
        client_id, client_secret: what this server is there.
        label: what the sign-in page calls it; empty: the name.
        enabled: whether people may sign in through it.
        ends_access: whether what came through it ends while it is not enabled: sessions, and what was agreed to in them.
        adds_people: whether somebody who was never here gets an account.
        scopes: what it is asked for besides `openid`.
        auth_method: how this server proves who it is there; empty: as the provider says.
        algorithms: what its ID tokens may be signed with.
        asks_userinfo: whether it is asked for claims that its ID token has not; most tell them there only.
        username: the claim that becomes the user name of somebody who gets an account.
        display_name: the claim that becomes the display name then.
        groups_claim: the claim that has the groups; empty: groups are looked after here.
        groups: a line each, `group there = group here`; others are left out. Without lines all are taken as they are.
        administering_groups: groups here whose members administer this server that may come from there; no other does.
        attributes: a line each, `attribute here = claim`.
        trusts_email: whether an address that it calls verified counts as verified here, too.
        trusts_methods: whether what it says of how people signed in there (`amr`) counts here, too.
        levels: a line each, `level here = acr there`: what it is asked for where an application asks for that level.
        methods: a line each, `acr there = method+method`: what a sign-in of that level there counts as here.
        domains: domains of mail addresses whose people are expected to use it; nothing else follows from that.
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
        """What people read."""
        return self.label or self.name

    @property
    def scope(self) -> str:
        """What it is asked for."""
        return " ".join(dict.fromkeys(("openid", *self.scopes)))

    @property
    def is_local(self) -> bool:
        """Whether it is on this very machine, without TLS."""
        return self.issuer.startswith("http:")

    @cached_property
    def groups_here(self) -> dict[str, str]:
        """The groups here, by the name that the provider gives them."""
        return dict(self.groups)

    @cached_property
    def acr_of(self) -> dict[str, str]:
        """What is asked for there, by the level here."""
        return dict(self.levels)

    @cached_property
    def methods_of(self) -> dict[str, tuple[str, ...]]:
        """What counts here as the methods of a sign-in, by the `acr` there."""
        return {acr: tuple(methods.split("+")) for acr, methods in self.methods}
