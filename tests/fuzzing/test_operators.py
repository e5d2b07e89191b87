"""Whatever is sent to the pages and the API for operators, by whomever: what `World` says must be true.

`make fuzz` sends many more. Whoever is no administrator finds no page, and is let in to nothing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import authserver.features.console
from authserver.features.admin_api.collected import ENTRIES, SCOPES
from authserver.features.console import PAGES
from authserver.testing import hostile
from authserver.testing.server import ISSUER
from tests.fuzzing.conftest import IS_LONG, examples
from tests.fuzzing.world import Known, Message, World
from tests.web.account_steps import form_token

PLUGINS = "admin_console admin_api"
SETTINGS = {"authserver.plugin.admin_api.groups": "authserver-admins"}
EACH = 2_000 if IS_LONG else 60
TEMPLATES = Path(authserver.features.console.__file__).parent / "templates"
# The names of all fields and parameters of the pages.
FIELDS = sorted(
    {name for page in PAGES for name in page.keys}
    | {
        name
        for file in TEMPLATES.glob("*.jinja2")
        for name in re.findall(r'name="([a-z_]+)"|field\("[^"]*", "([a-z_]+)"', file.read_text())
        for name in name
        if name
    }
    | {"after", "since", "until"}
)
# Those of these kinds name something that there is.
NAMED = ("id of ", "grant of ann", "person ", "handle of ", "made token ", "key")


@pytest.fixture(scope="module")
def operated(world: World) -> World:
    """With an administrator of the pages, and a client for each scope of the API."""
    server = world.server
    server.add_user("root", groups=["authserver-admins"])
    browser = server.browser()
    server.sign_in(browser, "root")
    world.known["cookies of root"] = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    for page in PAGES:
        if page.act:
            world.known[f"token of root for {page.name}"] = form_token(server, browser, page.name)
    for name, scope in (("everything", " ".join(SCOPES)), ("reading", "authserver:clients:read")):
        client, secret = server.add_client(
            client_id=name, grant_types=("client_credentials",), scopes=tuple(SCOPES)
        )
        resource = f"{ISSUER}/admin/api"
        answer = server.token(client, secret, grant_type="client_credentials", resource=resource, scope=scope)
        world.known[f"access token of {name}"] = answer.json["access_token"]
        world.known[f"id of {name}"] = name
    with server.begin() as engine:
        for user in engine.stores.users.list():
            world.known[f"person {user.username}"] = user.user_id
        for token in engine.stores.initial_tokens.list():
            world.known[f"made token {token.policy}"] = token.token_id
        world.known["key"] = engine.stores.signing_keys.list()[0].kid
    world.keep()
    return world


WORDS = st.sampled_from(
    [
        *hostile.REDIRECT_URIS,
        *hostile.SCOPES,
        *("yes", "link", "mail", "0", "1", "7d", "24h", "-1", "9" * 30, "2026-06-01", "1970-01-01T00:00Z"),
        *("user", "client", "resource", "scope", "issuer", "profile", "files.read", "partners", "ann"),
        *("token.issued", "refused", "none", "client_secret_post", "https://client.example/cb", "é\0"),
    ]
)


def values(world: World) -> st.SearchStrategy[Any]:
    """Something that there is, or what somebody types."""
    names = sorted(name for name in world.known if name.startswith(NAMED))
    return st.sampled_from(names).map(Known) | WORDS | st.text(max_size=20)


@st.composite
def pages(draw: st.DrawFn, world: World) -> Message:
    """A request for one of the pages: what its form has in it, and anything else."""
    page = draw(st.sampled_from(PAGES))
    who = draw(st.sampled_from(("root", "root", "root", "ann", "nobody")))
    names = st.sampled_from(FIELDS) | st.sampled_from(page.keys or FIELDS)
    pairs = draw(st.lists(st.tuples(names, values(world)), max_size=6, unique_by=lambda pair: pair[0]))
    headers = (("Cookie", Known(f"cookies of {who}")),)
    if draw(st.booleans()) or page.act is None:
        return Message(method="GET", path=page.path, query=tuple(pairs), headers=headers)
    if who == "root" and draw(st.integers(0, 9)):
        pairs.append(("csrf_token", Known(f"token of root for {page.name}")))
    return Message(method="POST", path=page.path, form=tuple(pairs), headers=(*headers, ("Origin", ISSUER)))


@examples(EACH)
@given(st.data())
def test_the_pages_for_operators_stand_whatever_is_sent(operated: World, data: st.DataObject) -> None:
    """T146, T132: and there is no page for whoever is no administrator."""
    message = data.draw(pages(operated))
    answer = operated.send(message)
    who = dict(message.headers)["Cookie"]
    if who == Known("cookies of ann"):
        assert answer.status_int == 404
    elif who == Known("cookies of nobody"):
        assert answer.status_int in (303, 400, 403)
        assert answer.status_int != 303 or urlsplit_path(answer.location) == "/login"


def urlsplit_path(location: str | None) -> str:
    return (location or "").removeprefix(ISSUER).partition("?")[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)


def segment(text: str) -> str:
    """A text as a part of a path, as WSGI has it."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1").replace("/", "|") or "x"


@st.composite
def calls(draw: st.DrawFn, world: World) -> Message:
    """A request to the API: of one of its operations, with members that it has and others."""
    entry = draw(st.sampled_from(ENTRIES))
    path = re.sub(r"\{[a-z_]+\}", lambda _: segment(world.text(draw(values(world)))), entry.path)
    token = draw(st.sampled_from(("everything", "everything", "everything", "reading", "web")))
    headers = [("Authorization", Known(f"access token of {token}", "Bearer "))]
    if draw(st.booleans()):
        headers.append(("If-Match", draw(st.sampled_from(("*", '"x"', "x", "")))))
    query = draw(
        st.lists(st.tuples(st.sampled_from([*entry.query, "limit", "after", "x"]), values(world)), max_size=3)
    )
    if entry.body is None:
        return Message(
            method=entry.method, path=f"/admin/api{path}", query=tuple(query), headers=tuple(headers)
        )
    media_type = "application/merge-patch+json" if entry.method == "PATCH" else "application/json"
    members = st.dictionaries(st.sampled_from([*entry.body, "x"]), values(world) | JSON, max_size=5)
    body = json.dumps(draw(members | JSON), default=world.text).encode()
    headers.append(("Content-Type", media_type))
    return Message(
        method=entry.method,
        path=f"/admin/api{path}",
        query=tuple(query),
        body=draw(st.just(body) | st.binary(max_size=20)),
        headers=tuple(headers),
    )


@examples(EACH)
@given(st.data())
def test_the_api_for_operators_stands_whatever_is_sent(operated: World, data: st.DataObject) -> None:
    """T146: what is refused is a problem with its type, and a token of another audience is let in to nothing."""
    message = data.draw(calls(operated))
    answer = operated.send(message)
    token = dict(message.headers)["Authorization"]
    if answer.status_int >= 400:
        assert answer.content_type in ("application/problem+json", "application/json"), answer
    if token == Known("access token of web", "Bearer "):
        assert answer.status_int in (400, 401, 404, 405), answer
