"""Claims about a person for applications: the standard claims (OIDC Core, 5.1), and the scope that covers each (5.4).

A claim is an attribute of the person, of the same name unless the operator sets another; the claims of names come from
the user. A verification is an attribute, too, with the verified value: `email_verified` is true as long as that attribute
is the present `email`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from authserver.api import Client, Engine, InvalidRequest, ServerError, User, read_json_object

OPENID = "openid"
# OIDC Core, 5.4. `updated_at` is left out, because only the events have the time of a change.
COVERED: Mapping[str, tuple[str, ...]] = {
    "profile": (
        "name",
        "family_name",
        "given_name",
        "middle_name",
        "nickname",
        "preferred_username",
        "profile",
        "picture",
        "website",
        "gender",
        "birthdate",
        "zoneinfo",
        "locale",
    ),
    "email": ("email", "email_verified"),
    "address": ("address",),
    "phone": ("phone_number", "phone_number_verified"),
}
NAMES = tuple(name for names in COVERED.values() for name in names)
# OIDC Core, 5.1.1.
ADDRESS = ("formatted", "street_address", "locality", "region", "postal_code", "country")
# The verified claim, by the claim that states the verification.
VERIFIED = {"email_verified": "email", "phone_number_verified": "phone_number"}
# Claims that no plugin may add about a person, because they are about the token.
OF_TOKENS = frozenset(
    {"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "nonce", "at_hash", "auth_time", "acr", "amr", "azp"}
    | {"sid", "cnf", "act", "client_id", "scope", "events"}
)
# The most claims in each of the two parts of the parameter `claims`.
MAXIMUM_ASKED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The content of the parameter `claims` (OIDC Core, 5.5).

    Attributes:
        id_token: the names of claims to put into the ID token, known here or not. UserInfo has all claims of the scopes
            anyway, and neither has a claim that no scope covers.
        subject: the id of the person who must be signed in, or None.
        levels: the accepted levels of sign-in, the best first; empty for any.
    """

    id_token: tuple[str, ...] = ()
    subject: str | None = None
    levels: tuple[str, ...] = ()


def read_asked(text: str | None) -> Asked:
    """The parameter `claims`. Raises InvalidRequest."""
    if text is None:
        return Asked()
    try:
        said = read_json_object(text.encode())
    except ValueError as problem:
        raise InvalidRequest(f"claims: {problem}.", reason="claims-malformed") from None
    parts = {part: _part(said.get(part), part) for part in ("userinfo", "id_token")}
    of_token = parts["id_token"]
    subjects = [value for part in parts.values() for value in _values(part.get("sub"))]
    if len(set(subjects)) > 1:
        raise InvalidRequest("claims: sub names two people.", reason="claims-malformed")
    acr = of_token.get("acr")
    return Asked(
        id_token=tuple(of_token),
        subject=next(iter(subjects), None),
        levels=_values(acr) if isinstance(acr, dict) and acr.get("essential") is True else (),
    )


def _part(said: object, name: str) -> Mapping[str, Any]:
    if said is None:
        return {}
    if not isinstance(said, dict) or len(said) > MAXIMUM_ASKED:
        raise InvalidRequest(
            f"claims: {name} must be an object of at most {MAXIMUM_ASKED} claims.", reason="claims-malformed"
        )
    for claim in said.values():
        if claim is not None and not isinstance(claim, dict):
            raise InvalidRequest(
                f"claims: each claim of {name} must be null or an object.", reason="claims-malformed"
            )
    return said


def _values(claim: object) -> tuple[str, ...]:
    """The texts in `value` or `values` of a requested claim. Raises InvalidRequest if they are no texts."""
    if not isinstance(claim, dict):
        return ()
    values = [claim["value"]] if "value" in claim else claim.get("values", [])
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise InvalidRequest(
            "claims: value must be a text, and values a list of texts.", reason="claims-malformed"
        )
    return tuple(dict.fromkeys(values))


def covered(scopes: Collection[str]) -> tuple[str, ...]:
    """The claims that these scopes cover."""
    return tuple(name for scope, names in COVERED.items() if scope in scopes for name in names)


def of_person(
    engine: Engine, client: Client, user: User, scopes: tuple[str, ...], attributes: Mapping[str, str]
) -> dict[str, Any]:
    """All claims about the person that the scopes cover, with those of plugins (hook `person_claims`).

    Unknown claims are left out.

    Raises:
        ServerError: a plugin failed, or added a claim that belongs to tokens.
    """
    found = {name: value for name in covered(scopes) if (value := _value(user, name, attributes)) is not None}
    added = engine.gather("person_claims", client=client, user=user, scopes=scopes)
    if taken := OF_TOKENS & added.keys():
        refused = ServerError("The server could not answer this request.", reason="claim-of-tokens")
        refused.facts = {"claim": min(taken)}
        raise refused
    return {**found, **added}


def _value(user: User, name: str, attributes: Mapping[str, str]) -> Any:
    if name == "name":
        return user.display_name or None
    if name == "preferred_username":
        return user.username
    if name == "address":
        parts = {part: _text(user, f"address.{part}", attributes) for part in ADDRESS}
        return {part: text for part, text in parts.items() if text} or None
    if name in VERIFIED:
        verified = _text(user, VERIFIED[name], attributes)
        return None if verified is None else verified in user.attributes.get(attributes.get(name, name), ())
    return _text(user, name, attributes)


def _text(user: User, name: str, attributes: Mapping[str, str]) -> str | None:
    return next(iter(user.attributes.get(attributes.get(name, name), ())), None)
