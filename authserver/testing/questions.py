"""Ordinary questions, valid as they are, changed by keyword: what a policy is asked on a quiet day."""

from __future__ import annotations

from typing import Any

from authserver.engine.clients.authentication import Credentials
from authserver.engine.clients.registration import ClientMetadata
from authserver.engine.introspect import IntrospectedToken
from authserver.engine.records import TokenKind
from authserver.settings import Secret
from authserver.testing.records import a_client, a_user


def a_question(hook: str, **changes: Any) -> dict[str, Any]:
    """Keyword arguments of a deciding hook, all of them.

    a_question("scope_decision", requested=("read",))["client"]

    Raises:
        KeyError: it is no deciding hook.
        TypeError: the hook has no argument of that name.
    """
    client, user = a_client(), a_user()
    questions: dict[str, dict[str, Any]] = {
        "client_auth_decision": {
            "client": client,
            "credentials": Credentials(
                method=client.auth_method, client_id=client.client_id, secret_matches=True
            ),
        },
        "redirect_uri_decision": {"client": client, "redirect_uri": client.redirect_uris[0]},
        "scope_decision": {
            "client": client,
            "user": user,
            "grant_type": "authorization_code",
            "requested": client.scopes,
            "resources": ("https://api.example/",),
        },
        "resource_decision": {"client": client, "resource": "https://api.example/"},
        "consent_decision": {
            "client": client,
            "user": user,
            "scopes": client.scopes,
            "resources": ("https://api.example/",),
            "remembered": None,
        },
        "login_decision": {
            "username": user.username,
            "password": Secret("correct horse battery staple"),
            "user": user,
            "headers": {},
            "source": "192.0.2.1",
        },
        "registration_decision": {
            "metadata": ClientMetadata(client_name="Reports", redirect_uris=client.redirect_uris),
            "bearer": None,
            "source": "192.0.2.1",
        },
        "introspection_decision": {
            "caller": client,
            "token": IntrospectedToken(
                client_id=client.client_id,
                subject=user.user_id,
                audience=("https://api.example/",),
                scopes=client.scopes,
                kind=TokenKind.ACCESS,
            ),
        },
    }
    question = questions[hook]
    if unknown := changes.keys() - question.keys():
        raise TypeError(f"{hook} has no {', '.join(sorted(unknown))}; it has {', '.join(question)}")
    return question | changes
