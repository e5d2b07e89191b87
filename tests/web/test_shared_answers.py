"""Documents that are the same for everybody: the answer that is kept is the one that would be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from pyramid.events import NewRequest
from pyramid.response import Response
from webob import Request

from authserver.api import hookimpl
from authserver.engine import offered
from authserver.engine.keys import signing_keys
from authserver.engine.setting_records import DeclaredKind, StoredSetting
from authserver.testing.server import Server, with_plugin
from authserver.web import metadata
from authserver.web.request_ids import HEADER

MakeServer = Callable[..., Server]
METADATA = "/.well-known/oauth-authorization-server"
JWKS = "/oauth/jwks"
DOCUMENTS = (METADATA, JWKS)


def asked(server: Server, path: str, **environ: str) -> Response:
    sound = {"HTTP_HOST": "as.example", "wsgi.url_scheme": "https", "REMOTE_ADDR": "192.0.2.1"}
    return Request.blank(path, environ={**sound, **environ}).get_response(server.wsgi)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The documents that views made, as they made them."""
    found: list[bytes] = []
    make = metadata.shared_answer

    def counted(body: bytes, **more: Any) -> Response:
        found.append(body)
        return make(body, **more)

    monkeypatch.setattr(metadata, "shared_answer", counted)
    return found


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_document_is_made_once_and_sent_to_everybody(path: str, server: Server, made: list[bytes]) -> None:
    """With the same status, headers and content, under an id of its own."""
    answers = [asked(server, path, HTTP_ORIGIN=origin) for origin in ("https://one.example", "null", "x")]
    assert len(made) == 1
    assert {answer.body for answer in answers} == set(made)
    assert len({answer.headers[HEADER] for answer in answers}) == 3
    kept = [[pair for pair in answer.headerlist if pair[0] != HEADER] for answer in answers]
    assert kept[0] == kept[1] == kept[2]
    assert ("Access-Control-Allow-Origin", "*") in kept[2]
    assert {answer.status for answer in answers} == {"200 OK"}


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_request_that_needs_another_answer_gets_it(path: str, server: Server) -> None:
    """T138: a document that is kept opens no other host and no plain http."""
    whole = asked(server, path)
    assert asked(server, path, HTTP_HOST="evil.example").status_int == 400
    assert asked(server, path, **{"wsgi.url_scheme": "http"}).status_int == 400
    assert asked(server, path, REQUEST_METHOD="POST").status_int == 405
    assert asked(server, path, REQUEST_METHOD="OPTIONS", HTTP_ORIGIN="https://one.example").status_int == 204
    known = asked(server, path, HTTP_IF_NONE_MATCH=whole.headers["ETag"])
    assert (known.status_int, known.body) == (304, b"")
    head = asked(server, path, REQUEST_METHOD="HEAD")
    assert (head.body, head.headers["Content-Length"]) == (b"", str(len(whole.body)))
    assert asked(server, path + "/").status_int == 404
    assert asked(server, path).body == whole.body


def test_what_another_request_gets_is_not_kept(server: Server) -> None:
    assert asked(server, METADATA, HTTP_IF_NONE_MATCH='"other"').status_int == 200
    assert asked(server, METADATA, HTTP_HOST="evil.example").status_int == 400
    assert asked(server, METADATA, REQUEST_METHOD="HEAD").body == b""
    assert asked(server, METADATA).json["issuer"] == "https://as.example"


def test_a_scope_of_the_store_is_in_the_next_answer(server: Server, made: list[bytes]) -> None:
    """R-17: also in a process that did not change it, as soon as that has read it."""
    before = [asked(server, METADATA).json for _ in range(2)][1]["scopes_supported"]
    setting = StoredSetting(
        kind=DeclaredKind.SCOPE,
        name="calendar",
        value={"sentence": "See your calendar"},
        changed_at=datetime.now(UTC),
    )
    with server.application.begin() as engine:
        offered.keep(engine, None, setting)
    server.application.parts.offered.read()
    after = [asked(server, METADATA).json["scopes_supported"] for _ in range(3)]
    assert after == [[*before, "calendar"]] * 3
    assert len(made) == 2


def test_a_document_that_is_kept_still_has_the_store_read_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-17: every few seconds, although nothing else asks for the scopes."""
    asked(server, METADATA)
    reads = []
    followed = server.application.parts.offered
    monkeypatch.setattr(offered, "FOLLOW_SECONDS", -1.0)
    read = followed.read
    monkeypatch.setattr(type(followed), "read", lambda self: (reads.append(1), read())[1])
    asked(server, METADATA)
    assert reads


def test_a_new_key_is_in_the_next_answer(server: Server, made: list[bytes]) -> None:
    """A key is published as soon as this process knows it."""
    before = [asked(server, JWKS).json for _ in range(2)][1]["keys"]
    with server.application.begin() as engine:
        signing_keys.rotate(engine)
    server.application.parts.signer.load()
    after = [asked(server, JWKS).json["keys"] for _ in range(2)]
    assert after[0] == after[1]
    assert len(after[0]) == len(before) + 1
    assert len(made) == 2


@dataclass(frozen=True)
class Listens:
    """Wants to hear of every request."""

    heard: ClassVar[list[str]] = []
    serves: tuple[str, ...] = field(default=("includeme",))

    @hookimpl
    def includeme(self, config: Any) -> None:
        config.add_subscriber(lambda event: self.heard.append(event.request.path), NewRequest)


def test_a_plugin_that_listens_hears_of_every_request(make_server: MakeServer) -> None:
    """An answer that Pyramid does not see would be one that the plugin does not see."""
    server = make_server(with_plugin(Listens, {}))
    Listens.heard.clear()
    for _ in range(3):
        asked(server, METADATA)
    assert Listens.heard == [METADATA] * 3
