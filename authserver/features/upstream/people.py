"""Makes a user name, groups and attributes from the claims of a provider, according to its entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from authserver.api import Identity, User
from authserver.features.upstream.providers import Provider

# The attribute with the verified mail address, beside the one with the address itself.
EMAIL, VERIFIED_EMAIL = "email", "email_verified"


def identity_of(provider: Provider, claims: Mapping[str, Any], user: User | None) -> Identity:
    """The identity that the entry makes from the claims.

    Args:
        user: the person with this identity; None for a person without an account here.
    """
    return Identity(
        username=user.username if user else _text(claims, provider.username),
        display_name=_text(claims, provider.display_name),
        methods=_methods(provider, claims),
        groups=_groups(provider, claims),
        attributes=_attributes(provider, claims, user),
    )


def _groups(provider: Provider, claims: Mapping[str, Any]) -> tuple[str, ...] | None:
    if not provider.groups_claim:
        return None
    found = _texts(claims.get(provider.groups_claim))
    if not provider.groups:
        return found
    return tuple(provider.groups_here[group] for group in found if group in provider.groups_here)


def _attributes(
    provider: Provider, claims: Mapping[str, Any], user: User | None
) -> Mapping[str, tuple[str, ...]] | None:
    """All attributes of the person: those of the entry with the values of the claims, the others as they are stored."""
    if not provider.attributes:
        return None
    found = {name: _texts(claims.get(claim)) for name, claim in provider.attributes}
    if EMAIL in found:
        is_proven = provider.trusts_email and claims.get("email_verified") is True
        is_of_claim = dict(provider.attributes)[EMAIL] == "email"
        found[VERIFIED_EMAIL] = found[EMAIL] if is_proven and is_of_claim else ()
    kept = user.attributes if user else {}
    return {name: values for name, values in {**kept, **found}.items() if values}


def _methods(provider: Provider, claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The methods of authentication: that of this provider, and its own ones if they are trusted (RFC 8176)."""
    acr = claims.get("acr")
    # A level counts whether it was asked for or not: the provider's statement is equally true in both cases.
    by_level = provider.methods_of.get(acr, ()) if isinstance(acr, str) else ()
    said = _texts(claims.get("amr")) if provider.trusts_methods else ()
    return tuple(dict.fromkeys((provider.name, *by_level, *said)))


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    """The texts in a claim that is a text or a list; other values are left out."""
    values: Iterable[object] = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(each for each in values if isinstance(each, str) and each))
