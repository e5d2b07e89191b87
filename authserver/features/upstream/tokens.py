"""Redeems codes at the token endpoint of a provider, and verifies ID tokens.

The access token is used only for UserInfo, and is not stored; no refresh token is asked for.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote_plus, urlencode

from authserver.api import (
    BadAssertion,
    Engine,
    FetchFailed,
    Reply,
    TrustedKeys,
    VouchedIdentity,
    equal,
    read_json_object,
    verify_for_us,
)
from authserver.features.upstream.attempts import Attempt
from authserver.features.upstream.documents import Endpoints, NotUsable, keys_of
from authserver.features.upstream.providers import BASIC, Provider

MAXIMUM_ANSWER = 65_536
MAXIMUM_SUBJECT = 255
# How much the clocks of providers may differ from ours (R-11, T150).
SKEW = timedelta(seconds=30)
# Reasons for which the key set is fetched again: it may have a new key, or another key under the same `kid`.
_KEY_MAY_BE_NEW = frozenset({"assertion-key-unknown", "assertion-signature"})


class Refused(Exception):
    """The answer of the provider is not accepted; `reason` says why, for operators, and repeats nothing of the answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """The answer of the token endpoint."""

    id_token: str = field(repr=False)
    access_token: str = field(default="", repr=False)


def redeem(
    engine: Engine, provider: Provider, endpoints: Endpoints, attempt: Attempt, code: str, redirect_uri: str
) -> VouchedIdentity:
    """Redeem the code of the browser: the identity of the person (OIDC Core, 3.1.3).

    Raises:
        Refused: the provider refuses the code, or its answer is not accepted.
        NotUsable: it cannot be asked now.
    """
    answer = _exchange(engine, provider, endpoints, attempt, code, redirect_uri)
    claims = verified(engine, provider, endpoints, answer.id_token, typ="jwt")
    subject = claims.get("sub", "")
    if not isinstance(claims.get("nonce"), str) or not equal(claims["nonce"], attempt.nonce):
        raise Refused("provider-nonce")
    # The ID token must be made for this attempt: an older one may be stolen.
    if claims["iat"] < (attempt.began - SKEW).timestamp():
        raise Refused("provider-token-old")
    if not subject or len(subject) > MAXIMUM_SUBJECT or not subject.isprintable():
        raise Refused("provider-subject")
    if provider.asks_userinfo and endpoints.userinfo:
        claims = {**_userinfo(endpoints, engine, answer.access_token, subject), **claims}
    label = next(
        (claims[name] for name in ("email", "preferred_username", "name") if _is_text(claims.get(name))), ""
    )
    session = claims.get("sid")
    return VouchedIdentity(
        provider=provider.name,
        issuer=provider.issuer,
        subject=subject,
        label=label,
        session=session if isinstance(session, str) and len(session) <= MAXIMUM_SUBJECT else "",
        claims=claims,
        authenticated_at=_authenticated_at(engine, attempt, claims),
    )


def verified(
    engine: Engine, provider: Provider, endpoints: Endpoints, text: str, *, typ: str
) -> Mapping[str, Any]:
    """The claims of a token that the provider made for this server, valid now (OIDC Core, 3.1.3.7).

    Raises:
        Refused: it is not such a token.
        NotUsable: the keys of the provider cannot be fetched.
    """
    try:
        return _verified(engine, provider, endpoints, text, typ=typ)
    except BadAssertion as bad:
        if bad.reason not in _KEY_MAY_BE_NEW:
            raise _refused(bad) from None
    try:
        # Fetch the keys again once, as often as the kind of document allows: the provider may sign with a new key.
        return _verified(engine, provider, endpoints, text, typ=typ, again=True)
    except BadAssertion as bad:
        raise _refused(bad) from None


def _verified(
    engine: Engine, provider: Provider, endpoints: Endpoints, text: str, *, typ: str, again: bool = False
) -> Mapping[str, Any]:
    def keys(issuer: str) -> TrustedKeys | None:
        return keys_of(engine, endpoints, again=again) if issuer == provider.issuer else None

    return verify_for_us(
        engine, text, keys, typ=typ, audience=provider.client_id, algorithms=provider.algorithms
    )


def _refused(bad: BadAssertion) -> Refused:
    return Refused(bad.reason.replace("assertion", "provider-token", 1))


def _exchange(
    engine: Engine, provider: Provider, endpoints: Endpoints, attempt: Attempt, code: str, redirect_uri: str
) -> _Answer:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": attempt.verifier,
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    if endpoints.auth_method(provider) == BASIC:
        # Client id and secret are form-encoded first (RFC 6749, 2.3.1).
        pair = f"{quote_plus(provider.client_id)}:{quote_plus(provider.client_secret.value)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    else:
        form |= {"client_id": provider.client_id, "client_secret": provider.client_secret.value}
    answer = _object(_post(engine, endpoints.token, urlencode(form), headers), "provider-code-refused")
    id_token, access_token = answer.get("id_token"), answer.get("access_token", "")
    if not isinstance(id_token, str) or not isinstance(access_token, str):
        raise Refused("provider-answer-malformed")
    return _Answer(id_token=id_token, access_token=access_token)


def _userinfo(endpoints: Endpoints, engine: Engine, access_token: str, subject: str) -> Mapping[str, Any]:
    """The claims of UserInfo about the same person (OIDC Core, 5.3.2)."""
    if not access_token or not access_token.isprintable():
        raise Refused("provider-userinfo")
    headers = {
        "Authorization": f"Bearer {access_token}",
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    claims = _object(_post(engine, endpoints.userinfo, "", headers), "provider-userinfo")
    # Otherwise the claims could be about another person (OIDC Core, 5.3.2).
    if claims.get("sub") != subject:
        raise Refused("provider-userinfo-subject")
    return claims


def _post(engine: Engine, url: str, body: str, headers: Mapping[str, str]) -> Reply:
    try:
        return engine.fetcher.post(url, body.encode(), headers=headers, maximum=MAXIMUM_ANSWER)
    except FetchFailed as failed:
        detail = " ".join(f"{name}={fact}" for name, fact in failed.facts().items())
        raise NotUsable("provider-unreachable", detail, is_temporary=failed.is_temporary) from None


def _object(reply: Reply, refused: str) -> Mapping[str, Any]:
    if reply.status >= 500 or reply.status == 429:
        raise NotUsable("provider-unreachable", f"it answered {reply.status}", is_temporary=True)
    if reply.status != 200:
        raise Refused(refused)
    try:
        return read_json_object(reply.body)
    except ValueError:
        raise Refused("provider-answer-malformed") from None


def _authenticated_at(engine: Engine, attempt: Attempt, claims: Mapping[str, Any]) -> datetime | None:
    """When the person signed in there, according to the provider; None for just now.

    If a recent sign-in was asked for, the provider must state its time, and it must be recent, because a provider may
    ignore that parameter (OIDC Core, 3.1.2.1; RFC 9470, 4). Raises Refused.
    """
    said = claims.get("auth_time")
    if said is not None and (type(said) is not int or not 0 <= said <= (engine.now + SKEW).timestamp()):
        raise Refused("provider-sign-in-time")
    if attempt.maximum_age is None:
        return None if said is None else min(datetime.fromtimestamp(said, UTC), engine.now)
    if said is None or said < (attempt.began - timedelta(seconds=attempt.maximum_age) - SKEW).timestamp():
        raise Refused("provider-sign-in-old")
    # Just now, if a new sign-in was asked for: seconds are too coarse to compare with the time of the request.
    return None if attempt.maximum_age == 0 else min(datetime.fromtimestamp(said, UTC), engine.now)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
