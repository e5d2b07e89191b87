"""Requests of OpenID Connect on the rules alone, for its tests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from authserver.api import Parameters, User
from authserver.engine.authorize import AskConsent, AskLogin, Redirect
from authserver.engine.context import Caller, Engine
from authserver.engine.errors import RedirectError
from authserver.engine.records import Client, SigningKey
from authserver.features.openid import OpenID
from authserver.features.openid.userinfo import look_up
from authserver.testing.rules import Rules
from authserver.testing.server import ISSUER, SETTINGS
from authserver.testing.stores import MemoryStores

USERINFO = f"{ISSUER}/oauth/userinfo"
SCOPES = ("openid", "profile", "email", "address", "phone", "files.read")
ON = {
    "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nopenid\nstep_up",
    "authserver.plugin.step_up.levels": "password = pwd\ntwo-factors = pwd+otp",
    "authserver.plugin.step_up.wished_with": "openid",
}
ATTRIBUTES = {
    "given_name": ("Ann",),
    "email": ("ann@example.com",),
    "email_verified": ("ann@example.com",),
    "phone_number": ("+49 30 1234",),
    "address.locality": ("Berlin",),
    "address.country": ("DE",),
    "ssn": ("078-05-1120",),
}


_KEYS: dict[str, SigningKey] = {}
_SERVERS: dict[tuple[tuple[str, str], ...], Rules] = {}


def a_server(settings: Mapping[str, str]) -> Rules:
    """Rules with these settings and Ann, which tests share: each has clients of its own. To read a key costs more."""
    key = tuple(sorted(settings.items()))
    if key not in _SERVERS:
        _SERVERS[key] = a_new_server(settings)
    return _SERVERS[key]


def a_new_server(settings: Mapping[str, str]) -> Rules:
    """The same for one test alone. They share their signing keys: to make one for RSA takes longer than a test."""
    stores = MemoryStores()
    stores.tables.signing_keys.update(_KEYS)
    rules = Rules(settings, stores)
    _KEYS.update(stores.tables.signing_keys)
    a_user_of(rules)
    return rules


def a_client_of(rules: Rules, **changes: Any) -> tuple[Client, str | None]:
    return rules.add_client(**{"scopes": SCOPES, **changes})


def a_user_of(rules: Rules, username: str = "ann", **attributes: Any) -> User:
    return rules.add_user(username, None, attributes=attributes or ATTRIBUTES)


def tokens(rules: Rules, client: Client, secret: str | None, **changes: Any) -> Mapping[str, Any]:
    """The token response to a request with the scope `openid`, after consent."""
    form = {"code_verifier": ""} if "code_challenge" in changes else {}
    code = rules.code(client, changes.pop("browser", None), **{"scope": "openid", **changes})
    answer = rules.redeem(client, secret, code, **form)
    assert answer.refusal is None, answer
    return answer.json


def id_claims(rules: Rules, token: str) -> dict[str, Any]:
    """The claims of an ID token, verified with the keys of the server."""
    return dict(rules.parts.signer.verify(token, typ="JWT"))


def half_hash(text: str, made_by: Any = hashlib.sha256) -> str:
    made = made_by(text.encode()).digest()
    return base64.urlsafe_b64encode(made[: len(made) // 2]).rstrip(b"=").decode()


def about(
    rules: Rules,
    token: str | None,
    *,
    scheme: str = "Bearer",
    headers: Mapping[str, str] | None = None,
    **form: str,
) -> dict[str, Any]:
    """What UserInfo says to this access token. Raises what it refuses with."""
    plugin = rules.parts.policies.plugin("openid")
    assert isinstance(plugin, OpenID)
    authorization = f"{scheme} {token}" if token is not None else None
    caller = Caller(
        endpoint="userinfo",
        authorization=authorization,
        headers=headers or {},
        url=USERINFO,
        method="POST" if form else "GET",
    )
    with rules.stores.begin() as stores:
        engine = Engine.of(rules.parts, stores, datetime.now(UTC), caller=caller)
        _, claims = look_up(engine, Parameters.of(form.items()), plugin.about, in_form=bool(form))
    return dict(claims)


def outcome_of(answer: Any) -> str:
    """What came of an authorization request: a page, a code, or the error code for the client."""
    match answer:
        case AskLogin(again=again):
            return "sign in again" if again else "sign in"
        case AskConsent():
            return "consent"
        case Redirect(location=location):
            return "code" if "code" in dict(parse_qsl(urlsplit(location).query)) else "answered"
        case RedirectError(code=code, ask_first=ask_first):
            return f"page, then {code}" if ask_first else str(code)
    return repr(answer)
