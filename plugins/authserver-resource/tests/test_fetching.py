"""Requests to an authorization server, against real servers on this machine that misbehave."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from authserver.testing import forgeries
from authserver.testing.origins import Authority, Origin, Reply, raw, sending, serving
from authserver_resource import fetching
from authserver_resource.fetching import MAXIMUM_BODY, Fetcher, FetchFailed, read_json

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def answering(reply: Reply) -> Iterator[tuple[Origin, str]]:
    """A server without TLS that answers this, and an address of it."""
    with serving() as origin:
        origin.reply = reply
        yield origin, f"http://127.0.0.1:{origin.port}/keys"


@contextmanager
def failing(*, within: float = 3) -> Iterator[None]:
    """What is inside gets no document, and knows so in time."""
    start = time.monotonic()
    with pytest.raises(FetchFailed):
        yield
    assert time.monotonic() - start < within


def get(url: str) -> dict[str, object]:
    return read_json(Fetcher(development=True)("GET", url, {}))


@pytest.mark.parametrize(
    "reply",
    [
        sending(b"{}"),
        raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\n{\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n"),
        raw(HEAD + b"\r\n{}"),
        sending(b"{}", Content_Encoding="identity", Content_Type="application/jwk-set+json; charset=utf-8"),
        sending(b"{" + b" " * (MAXIMUM_BODY - 2) + b"}"),
    ],
    ids=["length", "chunks", "until the end", "identity", "the longest"],
)
def test_a_document_is_read(reply):
    with answering(reply) as (_, url):
        assert get(url) == {}


def test_header_lines_of_one_name_count_together():
    """RFC 9110, 5.3: not the last one alone."""
    lines = b"Cache-Control: max-age=60\r\nCache-Control: public\r\nContent-Length: 2\r\n"
    with answering(raw(HEAD + lines + b"\r\n{}")) as (_, url):
        assert Fetcher(development=True)("GET", url, {}).headers["cache-control"] == "max-age=60, public"


@pytest.mark.parametrize("what", forgeries.ANSWERS)
def test_another_answer_is_none(what):
    """T126: nothing is decompressed, and size counts while it arrives."""
    with answering(forgeries.ANSWERS[what]) as (_, url), failing():
        get(url)


@pytest.mark.parametrize("status", forgeries.REDIRECTS)
def test_no_redirect_is_followed(status):
    """T125: not even to the same host."""
    with answering(sending(b"", status, Location="/elsewhere")) as (origin, url):
        with failing():
            get(url)
        assert {received.path for received in origin.received} == {"/keys"}


@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/jwt", ""])
def test_what_is_not_json_by_its_type_is_none(kind):
    """T129."""
    answer = sending(b"{}", Content_Type=kind)
    with answering(answer) as (_, url), pytest.raises(FetchFailed, match="Content-Type"):
        get(url)


@pytest.mark.parametrize(
    "reply",
    [
        sending(b" " * (MAXIMUM_BODY + 1)),
        raw(HEAD + b"\r\n" + b" " * (MAXIMUM_BODY + 1)),
        raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * MAXIMUM_BODY),
    ],
    ids=["length", "until the end", "chunks"],
)
def test_a_longer_answer_is_cut_off(reply):
    """T126."""
    with answering(reply) as (_, url), pytest.raises(FetchFailed, match="longer than"):
        get(url)


@pytest.mark.parametrize("what", forgeries.DRIPS)
def test_a_server_that_sends_a_byte_now_and_then_does_not_keep_us(what, monkeypatch):
    """T126: each piece comes in time, and the whole never does."""
    monkeypatch.setattr(fetching, "DEADLINE", 0.4)
    with answering(forgeries.DRIPS[what]) as (_, url), failing():
        get(url)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("reply", [forgeries.DRIPS["body"], forgeries.ANSWERS["trailers without end"]])
def test_time_and_size_count_within_tls_too(authority, reply, monkeypatch):
    """T126."""
    monkeypatch.setattr(fetching, "DEADLINE", 0.8)
    with serving(authority.context("localhost")) as origin:
        fetch, url = Fetcher(ca_file=str(authority.ca_file)), f"https://localhost:{origin.port}/keys"
        assert fetch("GET", url, {}).body == b"{}"
        origin.reply = reply
        with failing():
            fetch("GET", url, {})


def test_a_kept_connection_that_has_died_is_replaced():
    fetch = Fetcher(development=True)
    with answering(raw(HEAD + b"Content-Length: 2\r\n\r\n{}")) as (origin, url):
        for _ in range(2):
            assert fetch("GET", url, {}).status == 200
        assert len({received.peer for received in origin.received}) == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://as.example/",
        "file:///etc/passwd",
        "http://127.0.0.1.evil.example/",
        "https:///x",
        "//x",
        "https://a b/",
    ],
)
def test_only_https_is_asked_or_this_machine_in_development(url):
    with pytest.raises(FetchFailed):
        Fetcher(development=True)("GET", url, {})
    with pytest.raises(FetchFailed, match="development=True"):
        Fetcher()("GET", "http://127.0.0.1:1/", {})


def test_a_certificate_that_nobody_vouches_for_is_refused(authority):
    """Nor one of another name."""
    with serving(authority.context("localhost")) as origin:
        url = f"https://localhost:{origin.port}/"
        assert read_json(Fetcher(ca_file=str(authority.ca_file))("GET", url, {})) == {}
        for asked, ca_file in ((url, ""), (url.replace("localhost", "127.0.0.1"), str(authority.ca_file))):
            with failing():
                Fetcher(ca_file=ca_file)("GET", asked, {})
        assert len(origin.received) == 1
