"""Ordinary questions to policies: valid by default, with fields changed by keyword."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import MappingProxyType, NoneType
from typing import Any, get_args, get_origin, get_type_hints

from authserver.engine.parameters import Parameters
from authserver.engine.questions import Credentials
from authserver.engine.records import Client, ClientMetadata, TokenKind, User
from authserver.hookspecs import DECIDING
from authserver.settings import Secret
from authserver.testing.records import NOW, a_client, a_session, a_user

_CLIENT, _USER = a_client(), a_user()
# The values of fields by name, in a question or in a value inside it.
_BY_NAME: Mapping[str, Any] = MappingProxyType(
    {
        "audience": ("https://api.example/",),
        "client_id": _CLIENT.client_id,
        "grant_type": "authorization_code",
        "kind": TokenKind.ACCESS,
        "origin": "https://client.example",
        "redirect_uri": _CLIENT.redirect_uris[0],
        "requested": _CLIENT.scopes,
        "resource": "https://api.example/",
        "resources": ("https://api.example/",),
        "scopes": _CLIENT.scopes,
        "session": a_session(),
        "source": "192.0.2.1",
        "subject": _USER.user_id,
        "user": _USER,
        "username": _USER.username,
    }
)
# The values of all other fields, by type.
_BY_TYPE: Mapping[Any, Any] = MappingProxyType(
    {
        Client: _CLIENT,
        ClientMetadata: ClientMetadata(client_name="Reports", redirect_uris=_CLIENT.redirect_uris),
        Credentials: Credentials(
            method=_CLIENT.auth_method, client_id=_CLIENT.client_id, secret_matches=True
        ),
        Mapping: MappingProxyType({}),
        NoneType: None,
        Parameters: Parameters.parse(
            f"response_type=code&client_id={_CLIENT.client_id}&scope={'+'.join(_CLIENT.scopes)}"
        ),
        Secret: Secret("correct horse battery staple"),
        User: _USER,
        bool: True,
        bytes: b"example",
        int: 1,
        str: "example",
        tuple: (),
        type(NOW): NOW,
    }
)


def a_question(hook: str, **changes: Any) -> Any:
    """The question of a deciding hook, with these fields changed.

    a_question("scope_decision", requested=("read",)).client

    Raises:
        KeyError: it is not a deciding hook.
        TypeError: the hook has no argument of that name.
    """
    kind = DECIDING[hook].question
    names = [item.name for item in fields(kind)]
    if unknown := changes.keys() - set(names):
        raise TypeError(f"{hook} has no {', '.join(sorted(unknown))}; it has {', '.join(names)}")
    return _made(kind, changes)


def _made(kind: Any, given: dict[str, Any]) -> Any:
    """A frozen value of this type with ordinary values in its fields."""
    hints = get_type_hints(kind)
    values = {item.name: _value(item.name, hints[item.name]) for item in fields(kind) if _is_required(item)}
    return kind(**values | given)


def _value(name: str, hint: Any) -> Any:
    if name in _BY_NAME:
        return _BY_NAME[name]
    if NoneType in get_args(hint):
        return None
    plain = get_origin(hint) or hint
    if plain in _BY_TYPE:
        return _BY_TYPE[plain]
    if is_dataclass(plain):
        return _made(plain, {})
    # An enumeration.
    return next(iter(plain))


def _is_required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING
