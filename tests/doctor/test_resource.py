"""A protected resource: a good one, and one change after the other that breaks it; then its authorization server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from authserver.doctor.examination import Unreachable
from authserver.doctor.findings import Result
from authserver.doctor.reading import challenges
from tests.doctor.conftest import OPEN, Other, Reply, authorize, bad, found, looked_at

DOCUMENT = "* /.well-known/oauth-protected-resource/mcp"
NAMED = 'resource_metadata="{origin}/.well-known/oauth-protected-resource/mcp"'
ROOT = "* /.well-known/oauth-protected-resource"


def challenging(challenge: str = f'Bearer {NAMED}, scope="read"', **headers: str) -> Reply:
    return Reply(401, {}, {"WWW-Authenticate": challenge, **headers} if challenge else headers)


def guard(
    _other: Other, _method: str, _query: Mapping[str, str], _body: bytes, headers: Mapping[str, str]
) -> Reply:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return challenging(f'Bearer error="invalid_token", {NAMED}, scope="read"')
    return challenging()


@pytest.fixture
def api(other: Other) -> Other:
    """The good server has an API beside it."""
    other.answers["GET /mcp"] = guard
    other.answers[DOCUMENT] = Reply(
        body={
            "resource": "{origin}/mcp",
            "authorization_servers": ["{origin}"],
            "scopes_supported": ["read"],
            "bearer_methods_supported": ["header"],
        },
        headers=OPEN,
    )
    return other


def look(api: Other, *programs: str, **options: Any) -> Any:
    return looked_at(api, *programs, resource=f"{api.issuer}/mcp", **options)


def answering(key: str, reply: Any) -> Callable[[Other], None]:
    return lambda api: api.answers.update({key: reply})


def without_token(reply: Reply) -> Callable[[Other], None]:
    """This is what it answers where there is no token."""

    def change(api: Other) -> None:
        def answer(*arguments: Any) -> Reply:
            return guard(*arguments) if "authorization" in arguments[4] else reply

        api.answers["GET /mcp"] = answer

    return change


def with_token(decide: Callable[[str, Mapping[str, str]], Reply | None]) -> Callable[[Other], None]:
    """It answers these tokens so, where that is not None."""

    def change(api: Other) -> None:
        def answer(*arguments: Any) -> Reply:
            token = arguments[4].get("authorization", "").partition(" ")[2]
            return decide(token, arguments[2]) or guard(*arguments)

        api.answers["GET /mcp"] = answer

    return change


def stating(**members: Any) -> Callable[[Other], None]:
    def change(api: Other) -> None:
        reply = api.answers[DOCUMENT]
        assert isinstance(reply, Reply)
        reply.body.update(members)

    return change


def nowhere(api: Other) -> None:
    """It has no document, and its challenge names none."""
    del api.answers[DOCUMENT]
    without_token(challenging('Bearer scope="read"'))(api)


BROKEN: dict[str, tuple[Callable[[Other], None], str, Result, str]] = {
    "no protection": (answering("GET /mcp", Reply(200, {})), "resource-protected", Result.STUMBLES, "not protected"),
    "403": (without_token(Reply(403, {})), "resource-protected", Result.STUMBLES, "403"),
    "a redirect to a sign-in": (without_token(Reply(302, None, {"Location": "/login"})), "resource-protected", Result.STUMBLES, "302"),
    "no challenge": (without_token(challenging("")), "challenge", Result.STUMBLES, "no challenge Bearer"),
    "a challenge of Basic": (without_token(challenging('Basic realm="x"')), "challenge", Result.STUMBLES, "Basic"),
    "a bare challenge": (without_token(challenging("Bearer")), "challenge", Result.WARNING, "no attribute"),
    "an attribute twice": (
        without_token(challenging(f'Bearer {NAMED}, scope="read", scope="write"')), "challenge", Result.STUMBLES, "twice: scope",
    ),
    "an error without a token": (
        without_token(challenging(f'Bearer error="invalid_token", {NAMED}')), "challenge", Result.WARNING, "error=invalid_token",
    ),
    "no scope": (without_token(challenging(f"Bearer {NAMED}")), "challenge-scope", Result.WARNING, "no scope"),
    "no metadata named": (without_token(challenging('Bearer scope="read"')), "challenge-metadata", Result.WARNING, "guess"),
    "a challenge that no page can read": (
        without_token(challenging(**{"Access-Control-Allow-Origin": "*"})), "challenge", Result.WARNING, "browser",
    ),
    "a bad token with another error": (
        with_token(lambda token, query: challenging("Bearer realm=x") if token else None), "bad-token", Result.WARNING, "no error",
    ),
    "a bad token with 500": (with_token(lambda token, query: Reply(500) if token else None), "bad-token", Result.STUMBLES, "500"),
    "a token without signature": (
        with_token(lambda token, query: Reply(200, {}) if token.endswith(".") else None), "forged-token", Result.STUMBLES, "alg none",
    ),
    "a token in the URL": (
        with_token(lambda token, query: challenging('Bearer error="invalid_token"') if "access_token" in query else None),
        "token-in-query", Result.WARNING, "logs",
    ),
    "any token in the URL": (
        with_token(lambda token, query: Reply(200, {}) if "access_token" in query else None), "token-in-query", Result.STUMBLES, "200",
    ),
    "no document": (lambda api: api.answers.pop(DOCUMENT) and None, "resource-document", Result.STUMBLES, "404"),
    "no document anywhere": (
        nowhere,
        "resource-document", Result.STUMBLES, "no metadata of the resource",
    ),
    "a page for a document": (
        answering(DOCUMENT, Reply(200, "<p>", kind="text/html")), "resource-document", Result.STUMBLES, "malformed",
    ),
    "a document of another type": (
        lambda api: setattr(api.answers[DOCUMENT], "kind", "text/plain"), "resource-document", Result.WARNING, "text/plain",
    ),
    "a document that no page can read": (
        lambda api: setattr(api.answers[DOCUMENT], "headers", {}), "cross-origin", Result.WARNING, "resource",
    ),
    "another resource": (stating(resource="{origin}/mcp/"), "resource-equal", Result.STUMBLES, "does not use it"),
    "no resource": (stating(resource=None), "resource-equal", Result.STUMBLES, "''"),
    "no servers": (stating(authorization_servers=[]), "resource-servers", Result.STUMBLES, "no authorization_servers"),
    "servers of another type": (stating(authorization_servers="x"), "resource-servers", Result.STUMBLES, "no authorization_servers"),
    "an http server": (
        stating(authorization_servers=["http://login.example.com"]), "resource-servers", Result.STUMBLES, "https",
    ),
    "offline_access": (stating(scopes_supported=["offline_access"]), "resource-scopes", Result.WARNING, "offline_access"),
    "no scopes": (stating(scopes_supported=None), "resource-scopes", Result.WARNING, "no scopes_supported"),
    "tokens in the body alone": (stating(bearer_methods_supported=["body"]), "resource-scopes", Result.STUMBLES, "header"),
}  # fmt: skip


def test_a_good_resource_leads_to_its_server(api: Other) -> None:
    """RFC 6750, 3; RFC 9728, 3 and 5.1."""
    report = look(api)
    assert bad(report) == set()
    assert report.issuer == api.issuer
    assert found(report, "with-a-token", Result.NOT_RUN)


@pytest.mark.parametrize(("change", "check", "result", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_found(
    api: Other, change: Callable[[Other], None], check: str, result: Result, words: str
) -> None:
    change(api)
    report = look(api)
    assert any(words in finding.what for finding in found(report, check, result)), report.found


def test_a_resource_that_takes_post_alone_is_asked_as_an_mcp_client_asks(api: Other) -> None:
    api.answers["POST /mcp"] = api.answers.pop("GET /mcp")
    api.answers["GET /mcp"] = Reply(405, {})
    assert bad(look(api)) == set()
    assert b'"initialize"' in next(sent.body for sent in api.origin.received if sent.method == "POST")


def test_the_metadata_is_found_at_the_root_too(api: Other) -> None:
    api.answers[ROOT] = api.answers.pop(DOCUMENT)
    api.answers["GET /mcp"] = lambda *arguments: challenging('Bearer scope="read"')
    assert found(look(api), "resource-document", Result.OK)


def test_a_server_that_gives_no_tokens_for_it_is_named(api: Other) -> None:
    """RFC 8707, 2: the audience."""
    assert found(look(api, "zed"), "audience", Result.NOT_RUN)
    assert found(look(api, "zed", register=True), "audience", Result.OK)

    def elsewhere(other: Other, method: str, query: Mapping[str, str], *rest: Any) -> Reply:
        if query.get("resource") == f"{other.issuer}/mcp":
            return Reply(303, None, {"Location": f"{query['redirect_uri']}?error=invalid_target"})
        return authorize(other, method, query, *rest)

    api.answers["GET /authorize"] = elsewhere
    said = found(look(api, "zed", register=True), "audience", Result.STUMBLES)
    assert {finding.program for finding in said} == {"", "zed"}
    assert "resources_listed" in said[0].remedy


def test_a_server_that_the_resource_does_not_name_is_said(api: Other) -> None:
    stating(authorization_servers=["https://login.example.com"])(api)
    report = look(api, issuer=api.issuer)
    assert "does not name" in found(report, "resource-servers", Result.STUMBLES)[0].what


def test_a_program_that_asks_the_api_finds_what_the_api_passes_on(api: Other) -> None:
    """Raycast and Cherry Studio know no protected resource metadata."""
    stating(authorization_servers=["{origin}/tenant"])(api)
    document = api.answers.pop("* /.well-known/oauth-authorization-server")
    assert isinstance(document, Reply)
    document.body["issuer"] = "{origin}/tenant"
    api.answers["* /.well-known/oauth-authorization-server/tenant"] = document
    assert found(look(api, "raycast"), "finds-metadata-at-api", Result.STUMBLES)
    api.answers["* /.well-known/oauth-authorization-server"] = document
    assert found(look(api, "raycast"), "finds-metadata-at-api", Result.OK)


def test_a_resource_that_is_not_there_is_said_to_be_unreachable() -> None:
    with pytest.raises(Unreachable, match="no connection"):
        looked_at(resource="http://127.0.0.1:9/mcp")


@pytest.mark.parametrize(
    ("header", "read"),
    [
        ("Bearer", [("Bearer", [])]),
        ('bearer realm="a, b", scope=read', [("bearer", [("realm", "a, b"), ("scope", "read")])]),
        ('Basic realm="x", Bearer scope="a b"', [("Basic", [("realm", "x")]), ("Bearer", [("scope", "a b")])]),
        (r'Bearer error="a \"b\" \\"', [("Bearer", [("error", r'a "b" \\'.replace(r"\\", "\\"))])]),
        ('DPoP algs="ES256", Bearer', [("DPoP", [("algs", "ES256")]), ("Bearer", [])]),
        ('Bearer scope="never ended', [("Bearer", [])]),
        ("=, =", []),
        ("", []),
    ],
)  # fmt: skip
def test_challenges_are_read(header: str, read: list[Any]) -> None:
    """RFC 9110, 11.6.1."""
    assert challenges(header) == read
