"""Questions to policies, made up by hypothesis: for every deciding hook, ordinary ones and strange ones.

They are made from the fields of a question: by the name of a field, else by its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from types import MappingProxyType, NoneType
from typing import Any, get_args, get_type_hints

from hypothesis import strategies as st

from authserver.engine.clients.authentication import PRESENTATION
from authserver.engine.questions import Credentials, IntrospectedToken, Question
from authserver.engine.records import Client, ClientMetadata, Consent, RegisteredBy, TokenKind, User
from authserver.hookspecs import DECIDING
from authserver.settings import Secret
from authserver.testing import hostile
from authserver.testing.records import a_client, a_user

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCOPES = ("profile", "files.read", "files.write", "admin", "offline_access")
RESOURCES = ("https://api.example/", "https://files.example/", "https://api.example/v2?tenant=1")
REDIRECT_URIS = (
    "https://client.example/cb",
    "https://client.example/cb?tenant=1",
    "http://127.0.0.1/cb",
    "http://[::1]:8080/cb",
    "http://localhost/cb",
    "com.example.app:/cb",
)
GRANT_TYPES = ("authorization_code", "refresh_token", "client_credentials")

_names = st.text(st.characters(categories=("L", "N", "Zs")), max_size=40)
_scope_names = st.one_of(st.sampled_from(SCOPES), st.sampled_from(hostile.SCOPES))
_subsets = st.lists(st.sampled_from(SCOPES), unique=True, max_size=5).map(tuple)
_requested = st.lists(_scope_names, unique=True, max_size=6).map(tuple)
_resources = st.lists(st.sampled_from(RESOURCES), unique=True, max_size=2).map(tuple)


@st.composite
def clients(draw: st.DrawFn) -> Client:
    """A registered client of any kind."""
    return Client(
        client_id=draw(st.sampled_from(("client_1", "reports", "c" * 100, "weird:id+%41"))),
        name=draw(_names),
        auth_method=draw(st.sampled_from((*PRESENTATION, "tls_client_auth"))),
        redirect_uris=draw(st.lists(st.sampled_from(REDIRECT_URIS), unique=True, max_size=3).map(tuple)),
        grant_types=draw(st.lists(st.sampled_from(GRANT_TYPES), unique=True).map(tuple)),
        scopes=draw(_subsets),
        resources=draw(_resources),
        application_type=draw(st.sampled_from(("web", "native"))),
        registered_by=draw(st.sampled_from(RegisteredBy)),
        first_party=draw(st.booleans()),
        created_at=NOW,
    )


@st.composite
def users(draw: st.DrawFn) -> User:
    """A person, with a password or without."""
    return User(
        user_id=draw(st.sampled_from(("user_1", "user_2"))),
        username=draw(st.sampled_from(("ann", "björn", "o'hara@example.com"))),
        display_name=draw(_names),
        is_admin=draw(st.booleans()),
        created_at=NOW,
    )


@st.composite
def _credentials(draw: st.DrawFn, client: Client) -> Credentials:
    # The server refuses a client that uses another method than its own before it asks.
    method = PRESENTATION.get(client.auth_method, "none")
    return Credentials(
        method=method,
        client_id=client.client_id,
        secret_matches=method.startswith("client_secret_") and draw(st.booleans()),
        assertion="a.b.c" if method == "client_assertion" else None,
        # Half of them none: who shows nothing must not get in.
        headers=draw(st.just(MappingProxyType({})) | headers()),
    )


def headers() -> st.SearchStrategy[Mapping[str, str]]:
    """Headers by lower-case name, hostile ones among them."""
    names = st.sampled_from(("x-remote-user", "x-forwarded-for", "x-proxy-secret", "user-agent", "x-real-ip"))
    values = st.one_of(st.sampled_from(hostile.HEADER_VALUES), st.just("ann"))
    return st.dictionaries(names, values, max_size=4).map(MappingProxyType)


@st.composite
def metadata(draw: st.DrawFn) -> ClientMetadata:
    """Client metadata whose form is right; what is asked for there is whatever a stranger likes."""
    asked_for = (*REDIRECT_URIS, "http://evil.example/cb", "myapp://cb", "javascript://evil.example/x")
    words = st.one_of(_names, st.sampled_from(hostile.CLIENT_NAMES))
    return ClientMetadata(
        client_name=draw(words),
        redirect_uris=draw(st.lists(st.sampled_from(asked_for), unique=True, max_size=3).map(tuple)),
        token_endpoint_auth_method=draw(
            st.sampled_from(("none", "client_secret_basic", "client_secret_post", "private_key_jwt"))
        ),
        grant_types=draw(
            st.lists(st.sampled_from((*GRANT_TYPES, "implicit")), min_size=1, unique=True).map(tuple)
        ),
        response_types=draw(st.lists(st.sampled_from(("code", "token")), min_size=1, unique=True).map(tuple)),
        scopes=draw(
            st.lists(st.sampled_from((*SCOPES, "openid", "no.such.scope")), unique=True, max_size=5).map(
                tuple
            )
        ),
        application_type=draw(st.sampled_from(("web", "native"))),
        details=draw(
            st.dictionaries(st.sampled_from(("software_id", "software_version")), words, max_size=2).map(
                MappingProxyType
            )
        ),
    )


@st.composite
def _consents(draw: st.DrawFn, user: User, client: Client) -> Consent:
    return Consent(
        user_id=user.user_id,
        client_id=client.client_id,
        scopes=draw(_subsets),
        resources=draw(_resources),
        redirect_uris=draw(st.one_of(st.just(client.redirect_uris), st.just(("https://old.example/cb",)))),
        granted_at=NOW,
    )


@st.composite
def _introspected_tokens(draw: st.DrawFn, caller: Client) -> IntrospectedToken:
    return IntrospectedToken(
        client_id=draw(st.sampled_from((caller.client_id, "another"))),
        subject=draw(st.sampled_from((caller.client_id, "user_1"))),
        audience=draw(st.lists(st.sampled_from(RESOURCES), unique=True, min_size=1).map(tuple)),
        scopes=draw(_subsets),
        kind=draw(st.sampled_from((TokenKind.ACCESS, TokenKind.REFRESH))),
    )


def _redirect_uris(client: Client) -> st.SearchStrategy[str]:
    own = st.sampled_from(client.redirect_uris or REDIRECT_URIS)
    return own | st.sampled_from(REDIRECT_URIS) | st.sampled_from(hostile.REDIRECT_URIS)


def _usernames(user: User | None) -> st.SearchStrategy[str]:
    return st.just(user.username) if user else st.sampled_from(("", "nobody", *hostile.USERNAMES))


@st.composite
def _questions(draw: st.DrawFn, kind: type[Question[Any]]) -> Any:
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    client, user = a_client(), None
    # The client and the user first: other values may be theirs.
    for name in sorted((item.name for item in fields(kind)), key=lambda name: not _is_record(hints[name])):
        value = values[name] = draw(_of_name(name, hints[name], client, user))
        if isinstance(value, Client):
            client = value
        elif isinstance(value, User):
            user = value
    return kind(**values)


def _is_record(hint: Any) -> bool:
    return not {Client, User}.isdisjoint((hint, *get_args(hint)))


def _of_name(name: str, hint: Any, client: Client, user: User | None) -> st.SearchStrategy[Any]:
    """The values of a field: those that the name stands for, else those of the type."""
    match name:
        case "bearer":
            return st.none() | st.sampled_from(("malformed", "t" * 43, "é")).map(Secret)
        case "grant_type":
            return st.sampled_from(GRANT_TYPES)
        case "headers":
            return headers()
        case "redirect_uri":
            return _redirect_uris(client)
        case "requested":
            return _requested
        case "resource":
            return st.none() | st.sampled_from(RESOURCES) | st.sampled_from(hostile.RESOURCES)
        case "resources":
            return _resources
        case "scopes":
            return _subsets
        case "source":
            return st.sampled_from(("192.0.2.1", "2001:db8::1", "", "garbage"))
        case "username":
            return _usernames(user)
    return _of_type(hint, client, user)


def _of_type(hint: Any, client: Client, user: User | None) -> st.SearchStrategy[Any]:
    if NoneType in get_args(hint):
        return st.one_of(*(_of_type(option, client, user) for option in get_args(hint)))
    if hint is Client:
        return clients()
    if hint is ClientMetadata:
        return metadata()
    if hint is Consent:
        return _consents(user or a_user(), client)
    if hint is Credentials:
        return _credentials(client)
    if hint is IntrospectedToken:
        return _introspected_tokens(client)
    if hint is Secret:
        passwords = ("", "correct horse", "x" * 1024, "pässword", *hostile.PASSWORDS)
        return st.sampled_from(passwords).map(Secret)
    if hint is User:
        return users()
    return st.from_type(hint)


def question(hook: str) -> st.SearchStrategy[Any]:
    """Questions of this deciding hook. Raises KeyError for any other."""
    return _questions(DECIDING[hook].question)
