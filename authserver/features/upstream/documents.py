"""The documents of a provider: its metadata and its keys (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authserver.api import (
    DocumentKind,
    Engine,
    FetchFailed,
    Reply,
    TrustedKeys,
    fetched_problem,
    read_json_object,
)
from authserver.features.upstream.providers import BASIC, POST, Provider

WELL_KNOWN = "/.well-known/openid-configuration"
# The members that must be addresses; UserInfo may be absent (OpenID Connect Discovery, 3).
_ADDRESSES = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_USERINFO = "userinfo_endpoint"


class NotUsable(Exception):
    """The documents of a provider cannot be fetched, or are those of another. The message is for operators.

    Attributes:
        reason: the reason, as declared by the plugin.
        is_temporary: whether another attempt may help.
    """

    def __init__(self, reason: str, detail: str, *, is_temporary: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.is_temporary = is_temporary


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The metadata of a provider that is used here.

    Attributes:
        issuer: its issuer identifier.
        userinfo: the URL of its UserInfo endpoint; "" if there is none.
        names_itself: whether its authorization responses have `iss` (RFC 9207, 3).
        auth_methods: the methods of client authentication.
    """

    issuer: str
    authorization: str
    token: str
    keys: str
    userinfo: str
    names_itself: bool
    auth_methods: tuple[str, ...]

    def auth_method(self, provider: Provider) -> str:
        """The method with which this server authenticates there: that of the settings, or else the preferred one."""
        if provider.auth_method:
            return provider.auth_method
        return BASIC if BASIC in self.auth_methods or POST not in self.auth_methods else POST


def _read_endpoints(reply: Reply) -> Endpoints:
    """The metadata in this document. Raises ValueError."""
    found: Mapping[str, Any] = read_json_object(reply.body)
    for name in (*_ADDRESSES, *((_USERINFO,) if _USERINFO in found else ())):
        address = found.get(name)
        if not isinstance(address, str):
            raise ValueError(f"{name} is missing")
        if problem := fetched_problem(address):
            raise ValueError(f"{name}: {problem}")
    # The default (OpenID Connect Discovery, 3).
    methods = found.get("token_endpoint_auth_methods_supported", [BASIC])
    if not isinstance(found.get("issuer"), str) or not isinstance(methods, list):
        raise ValueError("issuer or token_endpoint_auth_methods_supported is missing or malformed")
    return Endpoints(
        issuer=found["issuer"],
        authorization=found["authorization_endpoint"],
        token=found["token_endpoint"],
        keys=found["jwks_uri"],
        userinfo=found.get(_USERINFO, ""),
        names_itself=found.get("authorization_response_iss_parameter_supported") is True,
        auth_methods=tuple(each for each in methods if isinstance(each, str)),
    )


def _read_keys(reply: Reply) -> TrustedKeys:
    return TrustedKeys.read(reply.body)


# People can sign in while the documents of a provider cannot be fetched; a withdrawn key is refused after an hour at most.
CONFIGURATION = DocumentKind(
    name="provider configuration", read=_read_endpoints, maximum_age=3600, last_good_for=86_400
)
KEY_SET = DocumentKind(
    name="provider keys",
    read=_read_keys,
    accept="application/jwk-set+json, application/json",
    maximum=32_768,
    maximum_age=3600,
    last_good_for=3600,
)


def endpoints_of(engine: Engine, provider: Provider) -> Endpoints:
    """The metadata of the provider, if its issuer is that of the settings. Raises NotUsable."""
    try:
        found = engine.fetcher.fetch(CONFIGURATION, provider.issuer.rstrip("/") + WELL_KNOWN).value
    except FetchFailed as failed:
        raise _not_usable("provider-unreachable", "provider-configuration-refused", failed) from None
    # Compared character by character (OpenID Connect Discovery, 4.3); otherwise another server could take its place.
    if found.issuer != provider.issuer:
        raise NotUsable(
            "provider-issuer-differs",
            f"it calls itself {found.issuer[:200]!r}, and the settings call it {provider.issuer!r}",
        )
    # The settings may allow plain http to this machine; a document may not.
    addresses = (found.authorization, found.token, found.keys, found.userinfo)
    if not provider.is_local and any(address.startswith("http:") for address in addresses):
        raise NotUsable("provider-configuration-refused", "it names an address without TLS")
    return found


def keys_of(engine: Engine, endpoints: Endpoints, *, again: bool) -> TrustedKeys:
    """The signing keys of the provider.

    Args:
        again: whether to fetch a newer set, because it lacked a key.

    Raises:
        NotUsable: the keys cannot be fetched.
    """
    try:
        return engine.fetcher.fetch(KEY_SET, endpoints.keys, again=again).value
    except FetchFailed as failed:
        raise _not_usable("provider-unreachable", "provider-keys-refused", failed) from None


def _not_usable(away: str, refused: str, failed: FetchFailed) -> NotUsable:
    detail = " ".join(f"{name}={fact}" for name, fact in failed.facts().items())
    if failed.is_temporary:
        return NotUsable(away, detail, is_temporary=True)
    return NotUsable(refused, detail)
