"""What a question to a policy looks like on paper: to be recorded, explained, sent elsewhere and asked again.

`facts` are plain JSON values without secrets. `ask_again` makes the question from facts and from what the
stores hold now; questions that were asked with a secret cannot be asked again. Headers may carry secrets:
they are not written down, and a question that is asked again has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import Any

from authserver.engine.clients.authentication import Credentials
from authserver.engine.clients.registration import ClientMetadata
from authserver.engine.introspect import IntrospectedToken
from authserver.engine.ports import Stores
from authserver.engine.records import Client, Consent, TokenKind, User

Facts = dict[str, Any]
Asked = Mapping[str, Any]


class CannotAskAgain(Exception):
    """Why a recorded question cannot be asked again: a client or user is gone, or a secret went with it."""


class Known:
    """What questions are about, as it is now. Every record is read once.

    Each method raises CannotAskAgain when its record is gone.

    Args:
        find_client: `Engine.find_client`, which knows the clients of plugins too.
        stores: where users and consents are kept.
    """

    def __init__(self, find_client: Callable[[str], Client | None], stores: Stores) -> None:
        self._client = cache(find_client)
        self._user = cache(stores.users.find)
        self._consent = cache(stores.consents.find)

    def client(self, facts: Facts) -> Client:
        client = self._client(facts["client_id"])
        if client is None:
            raise CannotAskAgain("the client is gone")
        return client

    def user(self, facts: Facts) -> User | None:
        """None when nobody was there when it was asked."""
        if facts["user_id"] is None:
            return None
        user = self._user(facts["user_id"])
        if user is None:
            raise CannotAskAgain("the user is gone")
        return user

    def consent(self, facts: Facts) -> Consent | None:
        """None when nothing was remembered when it was asked."""
        if not facts["remembered"]:
            return None
        consent = self._consent(facts["user_id"], facts["client_id"])
        if consent is None:
            raise CannotAskAgain("the remembered consent is gone")
        return consent


@dataclass(frozen=True, slots=True)
class Question:
    """One slot's question: how it is written down, and how it is made again."""

    facts: Callable[[Asked], Facts]
    ask_again: Callable[[Known, Facts], Asked]


def facts_of(slot: str, asked: Asked) -> Facts:
    """The facts of a question that was asked."""
    return QUESTIONS[slot].facts(asked)


def _user_id(user: User | None) -> str | None:
    return user.user_id if user else None


def _redirect_uri(asked: Asked) -> Facts:
    return {"client_id": asked["client"].client_id, "redirect_uri": asked["redirect_uri"]}


def _redirect_uri_again(known: Known, facts: Facts) -> Asked:
    return {"client": known.client(facts), "redirect_uri": facts["redirect_uri"]}


def _scope(asked: Asked) -> Facts:
    return {
        "client_id": asked["client"].client_id,
        "user_id": _user_id(asked["user"]),
        "grant_type": asked["grant_type"],
        "requested": list(asked["requested"]),
        "resources": list(asked["resources"]),
    }


def _scope_again(known: Known, facts: Facts) -> Asked:
    return {
        "client": known.client(facts),
        "user": known.user(facts),
        "grant_type": facts["grant_type"],
        "requested": tuple(facts["requested"]),
        "resources": tuple(facts["resources"]),
    }


def _resource(asked: Asked) -> Facts:
    return {"client_id": asked["client"].client_id, "resource": asked["resource"]}


def _resource_again(known: Known, facts: Facts) -> Asked:
    return {"client": known.client(facts), "resource": facts["resource"]}


def _consent(asked: Asked) -> Facts:
    remembered: Consent | None = asked["remembered"]
    return {
        "client_id": asked["client"].client_id,
        "user_id": _user_id(asked["user"]),
        "scopes": list(asked["scopes"]),
        "resources": list(asked["resources"]),
        "remembered": remembered is not None,
    }


def _consent_again(known: Known, facts: Facts) -> Asked:
    return {
        "client": known.client(facts),
        "user": known.user(facts),
        "scopes": tuple(facts["scopes"]),
        "resources": tuple(facts["resources"]),
        "remembered": known.consent(facts),
    }


def _client_auth(asked: Asked) -> Facts:
    credentials: Credentials = asked["credentials"]
    return {
        "client_id": credentials.client_id,
        "method": credentials.method,
        "secret_matches": credentials.secret_matches,
        "assertion": credentials.assertion is not None,
    }


def _client_auth_again(known: Known, facts: Facts) -> Asked:
    if facts["assertion"]:
        raise CannotAskAgain("it was asked with a client assertion")
    credentials = Credentials(
        method=facts["method"], client_id=facts["client_id"], secret_matches=facts["secret_matches"]
    )
    return {"client": known.client(facts), "credentials": credentials}


def _login(asked: Asked) -> Facts:
    # What was typed as a name may be a password in the wrong field: only a known name is written down.
    user: User | None = asked["user"]
    return {"user_id": _user_id(user), "username": user.username if user else None, "source": asked["source"]}


def _login_again(known: Known, facts: Facts) -> Asked:
    raise CannotAskAgain("it was asked with a password")


def _registration(asked: Asked) -> Facts:
    metadata: ClientMetadata = asked["metadata"]
    return {
        "metadata": {item.name: _plain(getattr(metadata, item.name)) for item in fields(metadata)},
        "bearer": asked["bearer"] is not None,
        "source": asked["source"],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _registration_again(known: Known, facts: Facts) -> Asked:
    if facts["bearer"]:
        raise CannotAskAgain("it was asked with an initial access token")
    members: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in facts["metadata"].items()
    }
    return {"metadata": ClientMetadata(**members), "bearer": None, "source": facts["source"]}


def _introspection(asked: Asked) -> Facts:
    token: IntrospectedToken = asked["token"]
    return {
        "client_id": asked["caller"].client_id,
        "token": {item.name: _plain(getattr(token, item.name)) for item in fields(token)},
    }


def _introspection_again(known: Known, facts: Facts) -> Asked:
    token = facts["token"]
    return {
        "caller": known.client(facts),
        "token": IntrospectedToken(
            client_id=token["client_id"],
            subject=token["subject"],
            audience=tuple(token["audience"]),
            scopes=tuple(token["scopes"]),
            kind=TokenKind(token["kind"]),
        ),
    }


QUESTIONS: Mapping[str, Question] = MappingProxyType(
    {
        "client_auth_decision": Question(_client_auth, _client_auth_again),
        "redirect_uri_decision": Question(_redirect_uri, _redirect_uri_again),
        "scope_decision": Question(_scope, _scope_again),
        "resource_decision": Question(_resource, _resource_again),
        "consent_decision": Question(_consent, _consent_again),
        "login_decision": Question(_login, _login_again),
        "registration_decision": Question(_registration, _registration_again),
        "introspection_decision": Question(_introspection, _introspection_again),
    }
)
