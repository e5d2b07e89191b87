"""One request to another server, each time a real one (R-13, R-15)."""

from __future__ import annotations

import base64
import itertools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authserver.engine.documents import DocumentKind, FetchFailed, FetchProblem
from authserver.fetching.addresses import Reach
from authserver.fetching.connections import Proxy, system_resolve
from authserver.fetching.fetcher import Fetcher, Limits
from authserver.limits import (
    MAXIMUM_ADDRESSES,
    MAXIMUM_DOCUMENT,
    MAXIMUM_FETCHED_HEAD,
    MAXIMUM_LOOKUPS,
)
from authserver.testing import forgeries
from authserver.testing.live import free_port
from authserver.testing.origins import holding, proxying, raw, sending, serving

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture
def plain(world: Any, page: Any) -> Any:
    """A fetcher that waits for nothing, a server without TLS, and what to ask it for."""
    ticking = itertools.count(0, 1_000)
    limits = Limits(reach=Reach(loopback=True))
    return Fetcher(limits, clock=lambda: float(next(ticking))), world.origin(tls=False), page


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is inside takes no longer."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


def problem_of(fetcher: Fetcher, kind: DocumentKind[Any], url: str) -> FetchFailed:
    with pytest.raises(FetchFailed) as failed:
        fetcher.fetch(kind, url)
    assert str(failed.value) == "The document could not be fetched."
    return failed.value


def test_a_document_is_fetched_by_name_over_tls(world: Any, page: Any) -> None:
    """R-15: the name is looked up once, and is in SNI, Host and the certificate."""
    origin = world.origin()
    document = world.fetcher().fetch(page, f"https://client.example:{origin.port}/a/b?c=d%20e")
    assert document.value == b"{}" and not document.is_last_good
    (received,) = origin.received
    assert received.path == "/a/b?c=d%20e"
    assert received.headers["Host"] == f"client.example:{origin.port}"
    assert received.headers["Accept-Encoding"] == "identity"
    assert {"Cookie", "Authorization", "Referer"}.isdisjoint(received.headers)
    assert origin.names == ["client.example"] and world.lookups == ["client.example"]


def test_a_path_that_begins_like_a_host_stays_a_path(world: Any, page: Any) -> None:
    origin = world.origin()
    world.fetcher().fetch(page, f"https://client.example:{origin.port}//other.example/a?b=//c")
    # The library of the test's server makes one slash of the two.
    assert [item.path for item in origin.received] == ["/other.example/a?b=//c"]


# ---- Where to (T122, T123, T124) --------------------------------------------------------------------

URLS = [
    "http://client.example/", "ftp://client.example/", "file:///etc/passwd", "gopher://client.example/",
    "https://client.example:8443/", "https://client.example:22/", "https://user@client.example/",
    "https://client.example/#a", "https://client.example/../a", "https://client.example/a b", "https://",
    "https:///a", "HTTPS://client.example/", "https://client.example\\@evil.example/", "",
    "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/", "https://0/",
    "https://[::ffff:127.0.0.1]/", "https://[fe80::1%25lo]/", "https://[0:0::1]/", "https://127.0.0.1./",
    "https://client.example/" + "a" * 2048, "https://client.example/\r\nX: y",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_another_url_is_refused_before_its_name_is_looked_up(url: str, world: Any, page: Any) -> None:
    """T122, T124: https at port 443, one spelling of an address, nothing that parsers read differently."""
    failed = problem_of(world.fetcher(reach=Reach()), page, url)
    assert failed.problem is FetchProblem.URL_REFUSED and not failed.is_temporary
    assert world.lookups == []


INNER = ["127.0.0.1", "::1", "0.0.0.0", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]


@pytest.mark.parametrize("address", INNER)
@pytest.mark.parametrize("host", ["name", "literal"])
def test_nothing_is_connected_to_an_inner_address(address: str, host: str, world: Any, page: Any) -> None:
    """R-13, T122, T124: the listener on loopback gets no connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        literal = f"[{address}]" if ":" in address else address
        world.names["client.example"] = [address]
        fetcher = world.fetcher(reach=Reach(), ports=(port,))
        with within(1):
            failed = problem_of(
                fetcher, page, f"https://{'client.example' if host == 'name' else literal}:{port}/"
            )
        with pytest.raises(BlockingIOError):
            listener.accept()
    is_spelled_otherwise = host == "literal" and "ffff" in address
    assert failed.problem is (
        FetchProblem.URL_REFUSED if is_spelled_otherwise else FetchProblem.ADDRESS_REFUSED
    )
    assert not failed.is_temporary


def test_one_inner_address_among_public_ones_refuses_all(world: Any, page: Any) -> None:
    """T123: which of them would be connected to is not left to chance."""
    origin = world.origin()
    world.names["client.example"] = ["127.0.0.1", "10.0.0.1"]
    failed = problem_of(world.fetcher(), page, f"https://client.example:{origin.port}/")
    assert failed.problem is FetchProblem.ADDRESS_REFUSED and "10.0.0.1" in failed.detail
    assert origin.received == [] and origin.names == []


def test_a_name_that_leads_elsewhere_when_asked_again_is_asked_once(world: Any, page: Any) -> None:
    """R-15, T123: the address that was checked is the one that is connected to."""
    origin = world.origin()
    answers = [["127.0.0.1"], ["10.0.0.1"], ["10.0.0.1"]]
    asked: list[str] = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers.pop(0)

    fetcher = world.fetcher(rebinding)
    url = f"https://client.example:{origin.port}/"
    assert fetcher.fetch(page, url).value == b"{}"
    assert asked == ["client.example"] and len(origin.received) == 1
    # For the next document the name is looked up and checked anew, and no connection was kept.
    assert problem_of(fetcher, page, url + "other").problem is FetchProblem.ADDRESS_REFUSED
    assert len(origin.received) == 1


def test_development_reaches_this_machine_by_http_and_at_any_port(world: Any, page: Any) -> None:
    """T122: and a name of elsewhere is still held to https and port 443."""
    origin = world.origin("localhost", tls=False)
    fetcher = world.fetcher()
    assert fetcher.fetch(page, f"http://localhost:{origin.port}/").value == b"{}"
    assert fetcher.fetch(page, f"http://127.0.0.1:{origin.port}/").value == b"{}"
    world.names["client.example"] = ["1.1.1.1"]
    for url, problem in (
        ("https://client.example:8443/", FetchProblem.ADDRESS_REFUSED),
        ("http://client.example/", FetchProblem.URL_REFUSED),
    ):
        assert problem_of(fetcher, page, url).problem is problem
    world.names["localhost"] = ["1.1.1.1"]
    assert problem_of(fetcher, page, "http://localhost/").problem is FetchProblem.ADDRESS_REFUSED


def test_an_address_that_does_not_answer_leaves_time_for_the_next(world: Any, page: Any) -> None:
    """T126: all attempts have one deadline."""
    origin = world.origin()
    world.names["client.example"] = ["127.0.0.2", "127.0.0.1"]
    assert world.fetcher().fetch(page, f"https://client.example:{origin.port}/").value == b"{}"
    # The last one that is tried, and the first that is not.
    world.names["client.example"] = [
        *(f"127.0.0.{last}" for last in range(2, MAXIMUM_ADDRESSES + 1)),
        "127.0.0.1",
    ]
    fetcher = world.fetcher()
    assert fetcher.fetch(page, f"https://client.example:{origin.port}/last").value == b"{}"
    world.names["client.example"].insert(0, "127.0.0.99")
    failed = problem_of(fetcher, page, f"https://client.example:{origin.port}/beyond")
    assert failed.problem is FetchProblem.UNREACHABLE
    world.names["gone.example"] = [f"127.0.0.{last}" for last in range(2, 60)]
    with within(1):
        failed = problem_of(world.fetcher(), page, f"https://gone.example:{free_port()}/")
    assert failed.problem is FetchProblem.UNREACHABLE and failed.is_temporary


def test_a_name_that_does_not_exist_looks_like_a_refused_address(world: Any, page: Any) -> None:
    """T127: a stranger cannot find out which names the inner network has."""
    world.names["inner.example"] = ["10.0.0.1"]
    fetcher = world.fetcher()
    unknown = problem_of(fetcher, page, "https://unknown.example/")
    refused = problem_of(fetcher, page, "https://inner.example/")
    assert (str(unknown), unknown.is_temporary) == (str(refused), refused.is_temporary)
    assert unknown.problem is FetchProblem.NAME_UNKNOWN and refused.problem is FetchProblem.ADDRESS_REFUSED


LOOKUPS: dict[str, Any] = {
    "unknown": (socket.gaierror(socket.EAI_NONAME, "unknown"), FetchProblem.NAME_UNKNOWN),
    "not now": (socket.gaierror(socket.EAI_AGAIN, "not now"), FetchProblem.UNREACHABLE),
    "a timeout of its own": (TimeoutError(), FetchProblem.UNREACHABLE),
    "a label that is too long": (UnicodeError(), FetchProblem.UNREACHABLE),
    "no address": ([], FetchProblem.NAME_UNKNOWN),
    "gibberish": (["gibberish"], FetchProblem.UNREACHABLE),
}


@pytest.mark.parametrize("what", LOOKUPS)
def test_whatever_a_lookup_comes_to_is_a_refusal(what: str, world: Any, page: Any) -> None:
    answer, problem = LOOKUPS[what]

    def resolve(host: str, port: int) -> Sequence[str]:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    assert problem_of(world.fetcher(resolve), page, "https://client.example/").problem is problem


def test_the_resolver_of_the_system_is_asked(world: Any, page: Any) -> None:
    """R-15: and each of its answers is checked."""
    origin = world.origin("localhost")
    url = f"https://localhost:{origin.port}/"
    assert world.fetcher(system_resolve).fetch(page, url).value == b"{}"
    failed = problem_of(world.fetcher(system_resolve, reach=Reach(), ports=(origin.port,)), page, url)
    assert failed.problem is FetchProblem.ADDRESS_REFUSED


def test_only_the_facts_for_operators_say_more(world: Any, page: Any, caplog: Any) -> None:
    """T127: the text of the error is the same for every cause; event and log have the cause."""
    world.names["inner.example"] = ["10.0.0.1"]
    with caplog.at_level("INFO", logger="authserver"):
        failed = problem_of(world.fetcher(), page, "https://inner.example/path?secret=canary")
    assert failed.facts() == {
        "problem": "address-refused",
        "detail": "inner.example is 10.0.0.1: private (RFC 1918)",
    }
    assert "address-refused" in caplog.text and "canary" not in caplog.text


def test_a_resolver_that_hangs_ends_in_time_and_holds_only_so_many_threads(world: Any, page: Any) -> None:
    """T126: a lookup cannot be stopped, so there is a number of them."""
    gate = threading.Event()

    def hanging(host: str, port: int) -> Sequence[str]:
        gate.wait(10)
        return ["127.0.0.1"]

    fetcher = world.fetcher(hanging, seconds=0.03)
    try:
        seen = [
            problem_of(fetcher, page, f"https://host{number}.example/").problem
            for number in range(MAXIMUM_LOOKUPS + 4)
        ]
    finally:
        gate.set()
    assert set(seen) == {FetchProblem.TOO_SLOW, FetchProblem.BUSY} and seen[-1] is FetchProblem.BUSY
    deadline = time.monotonic() + 5
    while any(thread.name == "lookup" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_proxies_of_the_environment_are_ignored(
    world: Any, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-15."""
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    origin = world.origin()
    assert world.fetcher().fetch(page, f"https://client.example:{origin.port}/").value == b"{}"


# ---- Who answers ------------------------------------------------------------------------------------


def test_the_certificates_of_tests_are_as_newer_pythons_want_them(world: Any) -> None:
    """RFC 5280, 4.2.1: from Python 3.13 on, a certificate that lacks the names of its keys is refused."""
    origin = world.origin()
    strict = ssl.create_default_context(cafile=world.authority.ca_file)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection(("127.0.0.1", origin.port)) as plain,
        strict.wrap_socket(plain, server_hostname="client.example") as connection,
    ):
        assert connection.version() is not None


def test_certificates_of_others_are_refused_before_anything_is_sent(
    world: Any, page: Any, tmp_path: Any
) -> None:
    """R-15: of another authority, for another name, expired, and none at all."""
    wrong = world.origin("other.example")
    world.names["client.example"] = ["127.0.0.1"]
    old = world.stack.enter_context(
        serving(world.authority.context("old.example", valid_for=timedelta(minutes=-1)))
    )
    world.names["old.example"] = ["127.0.0.1"]
    plain = world.origin("plain.example", tls=False)
    fetcher = world.fetcher()
    for url in (
        f"https://client.example:{wrong.port}/",
        f"https://127.0.0.1:{wrong.port}/",
        f"https://old.example:{old.port}/",
        f"https://plain.example:{plain.port}/",
    ):
        assert problem_of(fetcher, page, url).problem is FetchProblem.TLS_FAILED, url
    unknown = world.fetcher(ca_file="")
    failed = problem_of(unknown, page, f"https://other.example:{wrong.port}/")
    assert failed.problem is FetchProblem.TLS_FAILED
    assert [*wrong.received, *old.received, *plain.received] == []


# ---- What is answered (T125, T126) ------------------------------------------------------------------


@pytest.mark.parametrize("status", forgeries.REDIRECTS)
def test_no_redirect_is_followed(status: int, world: Any, page: Any) -> None:
    """R-13, T125: not even to the same host."""
    origin = world.origin()
    origin.reply = sending(b"", status, Location=f"https://client.example:{origin.port}/b")
    failed = problem_of(world.fetcher(), page, f"https://client.example:{origin.port}/a")
    assert (failed.problem, failed.status) == (FetchProblem.REDIRECTED, status)
    assert [item.path for item in origin.received] == ["/a"]


def test_header_lines_of_one_name_count_together(world: Any) -> None:
    """RFC 9110, 5.3: not the last one alone, so that a `no-store` is seen wherever it stands."""
    origin = world.origin()
    lines = b"Cache-Control: no-store\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n"
    origin.reply = raw(HEAD + lines + b"\r\n{}")
    seen: list[str] = []
    page = DocumentKind(
        name="page",
        read=lambda reply: seen.append(reply.headers["cache-control"]),
        minimum_age=0,
    )
    fetcher = world.fetcher()
    for _ in range(2):
        fetcher.fetch(page, f"https://client.example:{origin.port}/")
    assert seen == ["no-store, max-age=60"] * 2


SOUND = (
    HEAD + b"Cache-Control: max-age=60\r\nVary: Accept\r\nContent-Length: 2\r\n\r\n{}",
    HEAD + b'Transfer-Encoding: chunked\r\nETag: "x"\r\nAge: 1\r\n\r\n2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n',
    b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Expires: Thu, 01 Jan 1970 00:00:00 GMT\r\nDate: x\r\n\r\n{}",
    b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n",
)
PIECES = [
    b"",
    b"\r\n",
    b"\n",
    b"\0",
    b"\xff",
    b":",
    b" ",
    b"-",
    b",",
    b"9" * 30,
    b"0x",
    b"\r\n\r\n",
    b"chunked",
    b"HTTP/1.1 ",
]
# What comes of each answer of the corpus, and of those that are longer than this server reads.
PROBLEMS = {
    **dict.fromkeys(["500", "404", "201", "304 unasked", "300", "103"], FetchProblem.STATUS_REFUSED),
    **dict.fromkeys(
        [
            "no http",
            "a chunk of less than nothing",
            "a chunk of no number",
            "two ends",
            "two lengths",
            "a length of less than nothing",
            "gzip of the transfer",
            "an extension of a chunk without end",
            "cut short",
        ],
        FetchProblem.NOT_HTTP,
    ),
    "nothing": FetchProblem.UNREACHABLE,
    **dict.fromkeys(["gzip bomb", "gzip twice", "brotli"], FetchProblem.ENCODED),
}
ANSWERS = {
    **forgeries.ANSWERS,
    "too long": sending(b" " * 65_537),
    "too long in chunks": raw(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"4000\r\n%b\r\n" % (b" " * 0x4000) * 5
    ),
    "tiny chunks": raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 40_000),
    "chunk extensions": raw(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"1;" + b"x" * 60_000 + b"\r\n \r\n") * 5
    ),
    "giant headers": raw(HEAD + b"X: %b\r\n" % (b"y" * 1000) * 17 + b"\r\n{}"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_what_is_no_proper_answer_is_refused_at_once(what: str, world: Any, page: Any) -> None:
    """R-15, T126: size counts while it arrives, headers too, and nothing is decompressed."""
    origin = world.origin()
    origin.reply = ANSWERS[what]
    with within(1.5):
        failed = problem_of(world.fetcher(), page, f"https://client.example:{origin.port}/")
    assert failed.problem is PROBLEMS.get(what, FetchProblem.TOO_LARGE), failed.detail
    assert len(origin.received) == 1


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_answered_there_is_a_document_or_a_refusal(plain: Any, data: st.DataObject) -> None:
    """R-15, T126: nothing that a server sends reaches the caller as another error."""
    fetcher, origin, page = plain
    answer = bytearray(data.draw(st.sampled_from(SOUND)))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(answer)))
        answer[place : place + data.draw(st.integers(0, 6))] = data.draw(st.sampled_from(PIECES))
    origin.reply = raw(bytes(answer))
    with suppress(FetchFailed):
        fetcher.fetch(page, f"http://127.0.0.1:{origin.port}/{uuid4()}")


def test_no_log_at_any_level_has_the_path(world: Any, page: Any, caplog: pytest.LogCaptureFixture) -> None:
    """R-04: a URL may hold a secret; nor has it what the egress proxy is given."""
    caplog.set_level(logging.DEBUG)
    origin = world.origin()
    fetcher = world.fetcher()
    fetcher.fetch(page, f"https://client.example:{origin.port}/canary?canary")
    origin.reply = sending(status=500)
    problem_of(fetcher, page, f"https://client.example:{origin.port}/canary/other")
    with proxying({}, refusal=b"HTTP/1.1 407 No\r\n\r\n") as tunnels:
        proxy = Proxy(f"http://127.0.0.1:{tunnels.port}", "canary:canary")
        fetcher = world.fetcher(reach=Reach(), proxy=proxy)
        failed = problem_of(fetcher, page, "https://client.example/")
        assert "Proxy-Authorization" in tunnels.asked[0] or "proxy-authorization" in tunnels.asked[0]
    assert failed.problem is FetchProblem.PROXY_FAILED
    told = f"{caplog.text} {failed.detail} {proxy!r}"
    assert "client.example" in told
    assert "canary" not in told and base64.b64encode(b"canary:canary").decode() not in told


def test_a_lookup_without_a_thread_is_busy(world: Any, page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """T126: when the system gives no more threads, and from Python 3.12 on when it ends."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    failed = problem_of(world.fetcher(), page, "https://client.example/")
    assert failed.problem is FetchProblem.BUSY and failed.is_temporary


def test_the_longest_body_and_headers_are_still_read(world: Any, page: Any) -> None:
    origin = world.origin()
    origin.script = [
        sending(b" " * MAXIMUM_DOCUMENT, X_Long="y" * (MAXIMUM_FETCHED_HEAD - 300)),
        raw(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"40\r\n%b\r\n" % (b" " * 64) * 1024 + b"0\r\n\r\n"
        ),
        sending(b"{}", Content_Encoding="identity"),
    ]
    fetcher = world.fetcher()
    lengths = [
        len(fetcher.fetch(page, f"https://client.example:{origin.port}/{number}").value)
        for number in range(3)
    ]
    assert lengths == [MAXIMUM_DOCUMENT, MAXIMUM_DOCUMENT, 2]


@pytest.mark.parametrize("what", forgeries.DRIPS)
def test_a_slow_drip_has_the_time_of_one_document_and_no_more(what: str, world: Any, page: Any) -> None:
    """R-15, T126: each piece comes in time, and the whole never does."""
    origin = world.origin()
    origin.reply = forgeries.DRIPS[what]
    with within(1.2):
        failed = problem_of(world.fetcher(seconds=0.3), page, f"https://client.example:{origin.port}/")
    assert failed.problem is FetchProblem.TOO_SLOW and failed.is_temporary


def test_a_handshake_that_never_comes_and_a_full_backlog_end_in_time(world: Any, page: Any) -> None:
    """T126: the deadline begins before the connection."""
    world.names["client.example"] = ["127.0.0.1"]
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        url = f"https://client.example:{listener.getsockname()[1]}/"
        with within(1.2):
            assert problem_of(world.fetcher(seconds=0.2), page, url).problem is FetchProblem.TOO_SLOW
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.02)
        with within(1.2):
            failed = problem_of(world.fetcher(seconds=0.2), page, url)
        for filler in fillers:
            filler.close()
    assert failed.problem is FetchProblem.TOO_SLOW


def test_something_is_posted_and_its_answer_returned(world: Any) -> None:
    """R-13: a notice to another server goes the same way as a document from it."""
    origin = world.origin()
    origin.script = [sending(b"", 400), sending(b"ok", 202), sending(b"", 302, Location="/b")]
    fetcher, url = world.fetcher(), f"https://client.example:{origin.port}/notify"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert fetcher.post(url, b"a=b", headers=headers).status == 400
    answer = fetcher.post(url, b"a=b", headers=headers)
    assert (answer.status, answer.body) == (202, b"ok")
    with pytest.raises(FetchFailed) as failed:
        fetcher.post(url, b"a=b", headers=headers)
    assert failed.value.problem is FetchProblem.REDIRECTED
    assert {(item.method, item.body) for item in origin.received} == {("POST", b"a=b")}
    world.names["client.example"] = ["10.0.0.1"]
    with pytest.raises(FetchFailed):
        fetcher.post(url + "2", b"a=b", headers=headers)
    assert len(origin.received) == 3


# ---- The egress proxy -------------------------------------------------------------------------------


def test_an_egress_proxy_opens_the_tunnel_and_the_name_is_checked_at_its_end(world: Any, page: Any) -> None:
    """R-13, R-15: the proxy looks the name up; certificate and SNI are those of the name."""
    origin = world.origin()
    with proxying({"client.example": origin.port, "other.example": origin.port}) as tunnels:
        proxy = Proxy(f"http://127.0.0.1:{tunnels.port}", "user:canary")
        fetcher = world.fetcher(reach=Reach(), proxy=proxy)
        assert fetcher.fetch(page, "https://client.example/a").value == b"{}"
        failed = problem_of(fetcher, page, "https://other.example/")
    assert failed.problem is FetchProblem.TLS_FAILED
    assert world.lookups == [] and origin.names == ["client.example", "other.example"]
    assert tunnels.asked[0].startswith("CONNECT client.example:443 HTTP/1.")
    assert "proxy-authorization: basic dxnlcjpjyw5hcnk=" in tunnels.asked[0].lower()
    (received,) = origin.received
    assert received.headers["Host"] == "client.example" and received.path == "/a"
    assert not any("proxy" in name.lower() for name in received.headers)
    assert "canary" not in repr(proxy)


def test_an_inner_address_in_a_url_does_not_reach_the_proxy(world: Any, page: Any) -> None:
    """T122: what can be checked here is checked here."""
    with proxying({}) as tunnels:
        fetcher = world.fetcher(reach=Reach(), proxy=Proxy(f"http://127.0.0.1:{tunnels.port}"))
        for url in ("https://169.254.169.254/", "https://[::1]/", "https://10.0.0.1/"):
            assert problem_of(fetcher, page, url).problem is FetchProblem.ADDRESS_REFUSED
    assert tunnels.asked == []


REFUSALS = {
    "refuses": b"HTTP/1.1 403 Forbidden\r\n\r\n",
    "wants credentials": b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
    "has giant headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_proxy_that_opens_no_tunnel_is_named_as_the_cause(what: str, world: Any, page: Any) -> None:
    with proxying({}, refusal=REFUSALS[what]) as tunnels, within(1.5):
        fetcher = world.fetcher(reach=Reach(), proxy=Proxy(f"http://127.0.0.1:{tunnels.port}"))
        failed = problem_of(fetcher, page, "https://client.example/")
    wanted = FetchProblem.TOO_LARGE if "giant" in what else FetchProblem.PROXY_FAILED
    assert failed.problem is wanted, failed.detail


def test_a_proxy_that_is_away_is_named_as_the_cause(world: Any, page: Any) -> None:
    fetcher = world.fetcher(reach=Reach(), proxy=Proxy(f"http://127.0.0.1:{free_port()}"))
    failed = problem_of(fetcher, page, "https://client.example/")
    assert failed.problem is FetchProblem.PROXY_FAILED and failed.is_temporary


def test_an_exchange_that_is_held_ends_with_its_thread(world: Any, page: Any) -> None:
    """T126: a failure leaves no thread behind."""
    gate = threading.Event()
    origin = world.origin()
    origin.reply = holding(gate)
    fetcher = world.fetcher(seconds=0.1)
    before = threading.active_count()
    for number in range(3):
        problem_of(fetcher, page, f"https://client.example:{origin.port}/{number}")
    gate.set()
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
