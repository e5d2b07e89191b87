"""How often another server is asked, by how many at once, and what serves when it fails."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from authserver.engine.documents import DocumentKind, FetchFailed, FetchProblem, Reply
from authserver.fetching import fetcher as module
from authserver.fetching.fetcher import Fetcher
from authserver.testing.origins import Origin, holding, raw, sending
from authserver.testing.threads import at_once

DAY = 86_400


def word(reply: Reply) -> str:
    """A document that is one word."""
    text = reply.body.decode()
    if not text.isalpha():
        raise ValueError("this is no word")
    return text


WORD = DocumentKind(name="word", read=word, minimum_age=60, default_age=300, maximum_age=3600)
LASTING = replace(WORD, last_good_for=DAY)


@pytest.fixture
def origin(world: Any) -> Origin:
    """A server without TLS, so that it costs less; it says `one`."""
    origin: Origin = world.origin("localhost", tls=False)
    origin.reply = sending(b"one")
    return origin


@pytest.fixture
def url(origin: Origin) -> str:
    return f"http://localhost:{origin.port}/word"


def failing(fetcher: Fetcher, url: str, kind: DocumentKind[Any] = WORD) -> FetchFailed:
    with pytest.raises(FetchFailed) as failed:
        fetcher.fetch(kind, url)
    return failed.value


# ---- The cache --------------------------------------------------------------------------------------

AGES = [
    ({}, 300),
    ({"Cache_Control": "max-age=600"}, 600),
    ({"Cache_Control": "MAX-AGE=600, public"}, 600),
    ({"Cache_Control": 'max-age="600"'}, 600),
    ({"Cache_Control": "max-age=600, s-maxage=900"}, 900),
    ({"Cache_Control": "max-age=600", "Age": "100"}, 500),
    ({"Cache_Control": "max-age=600", "Age": "5000"}, 60),
    ({"Cache_Control": "max-age=600, max-age=700"}, 60),
    ({"Cache_Control": "max-age=99999999999999999999"}, 60),
    ({"Cache_Control": "max-age=soon"}, 60),
    ({"Cache_Control": "max-age=1"}, 60),
    ({"Cache_Control": "max-age=86400"}, 3600),
    ({"Cache_Control": "no-cache"}, 60),
    ({"Cache_Control": 'x="a, no-store", max-age=600'}, 600),
    ({"Expires": "Mon, 01 Jan 2024 00:10:00 GMT", "Date": "Mon, 01 Jan 2024 00:00:00 GMT"}, 600),
    ({"Expires": "0"}, 60),
    ({"Cache_Control": "no-store"}, 0),
    ({"Cache_Control": "private, max-age=600"}, 0),
    ({"Cache_Control": "no-store, max-age=600"}, 0),
    ({"Vary": "*"}, 0),
]


@pytest.mark.parametrize(("headers", "seconds"), AGES)
def test_a_document_is_used_as_long_as_its_server_says_within_bounds(
    headers: dict[str, str], seconds: int, world: Any
) -> None:
    """RFC 9111, 4.2 and 5.2: at least a minute and at most an hour, for this kind; what must not be kept is not."""
    origin = world.origin("localhost", tls=False)

    def answer(handler: Any) -> None:
        body = b"one"
        handler.send_response_only(200)
        for name, text in {"Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), text)
        handler.end_headers()
        handler.wfile.write(body)

    origin.reply = answer
    fetcher, url = world.fetcher(), f"http://localhost:{origin.port}/"
    assert fetcher.fetch(WORD, url).value == "one"
    for passed, asked in ((0, 1), (seconds - 1, 1), (seconds, 2)):
        world.clock.now = 1000.0 + passed
        document = fetcher.fetch(WORD, url)
        assert document.value == "one" and not document.is_last_good
        if seconds:
            assert len(origin.received) == asked and document.age == (passed if asked == 1 else 0)
    assert len(origin.received) == (2 if seconds else 4)


def test_an_ended_document_is_confirmed_and_not_sent_again(world: Any, origin: Origin, url: str) -> None:
    """RFC 9110, 13.1; RFC 9111, 4.3: by both validators, and the new headers count."""
    origin.script = [
        sending(b"one", ETag='"a"', Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT"),
        raw(b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=1000\r\n\r\n"),
        sending(b"two", ETag='"' + "b" * 300 + '"'),
    ]
    fetcher = world.fetcher()
    seen = []
    for passed in (0, 301, 1300, 1302, 1700):
        world.clock.now = 1000.0 + passed
        seen.append(fetcher.fetch(WORD, url).value)
    assert seen == ["one", "one", "one", "two", "one"]
    asked = [item.headers.get("If-None-Match") for item in origin.received]
    # A validator of any length would be kept and sent; a long one is not.
    assert asked == [None, '"a"', '"a"', None]
    assert origin.received[1].headers["If-Modified-Since"] == "Mon, 01 Jan 2024 00:00:00 GMT"


def test_two_kinds_of_one_url_are_two_documents(world: Any, origin: Origin, url: str) -> None:
    length = replace(WORD, name="length", read=lambda reply: len(reply.body))
    fetcher = world.fetcher()
    for _ in range(2):
        assert (fetcher.fetch(WORD, url).value, fetcher.fetch(length, url).value) == ("one", 3)
    assert len(origin.received) == 2


def test_the_cache_has_an_end_in_number_and_in_bytes(
    world: Any, origin: Origin, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T128: what was used last stays."""
    fetcher = world.fetcher()
    monkeypatch.setattr(module, "MAXIMUM_DOCUMENTS", 3)
    monkeypatch.setattr(module, "MAXIMUM_DOCUMENTS_SIZE", 100)
    for number in (1, 2, 3, 1, 4, 1, 2):
        fetcher.fetch(WORD, f"{url}?{number}")
    assert [item.path[-1] for item in origin.received] == ["1", "2", "3", "4", "2"]
    origin.script = [sending(b"a" * 99)]
    fetcher.fetch(WORD, f"{url}?long")
    fetcher.fetch(WORD, f"{url}?1")
    assert len(origin.received) == 7


def test_a_fresh_document_is_fetched_again_at_a_bounded_rate(world: Any, origin: Origin, url: str) -> None:
    """T128: a key id that is not found makes one request a minute, however often it is presented."""
    fetcher = world.fetcher()
    fetcher.fetch(WORD, url)
    for second in range(180):
        world.clock.now = 1000.0 + second
        assert fetcher.fetch(WORD, url, again=True).value == "one"
    assert len(origin.received) == 3
    origin.reply = sending(status=500)
    world.clock.now += 60
    document = fetcher.fetch(WORD, url, again=True)
    assert document.value == "one" and not document.is_last_good


def test_a_document_that_breaks_its_reader_is_a_bad_document(world: Any, origin: Origin, url: str) -> None:
    """RFC 8259, 9: `json` raises no ValueError for what is nested too deeply."""
    kind = replace(WORD, name="nested", read=lambda reply: str(json.loads(reply.body)))
    origin.reply = sending(b"[" * 60_000)
    failed = failing(world.fetcher(), url, kind)
    assert (failed.problem, failed.detail) == (
        FetchProblem.DOCUMENT_REFUSED,
        "its reader failed: RecursionError",
    )


# ---- One request for many who ask -------------------------------------------------------------------


def test_many_who_ask_at_once_cause_one_request(world: Any, origin: Origin, url: str) -> None:
    """T128: single flight; who comes first asks, and the others get the same."""
    gate = threading.Event()
    origin.reply = holding(gate, sending(b"one", Cache_Control="no-store"))
    fetcher = world.fetcher(waiting=4)
    with ThreadPoolExecutor(5) as threads:
        flights = [threads.submit(fetcher.fetch, WORD, url) for _ in range(5)]
        await_(lambda: fetcher._places._waiting == 4)
        gate.set()
        assert {flight.result().value for flight in flights} == {"one"}
    assert len(origin.received) == 1


def test_a_failure_of_the_one_request_is_that_of_all(world: Any, origin: Origin, url: str) -> None:
    gate = threading.Event()
    origin.reply = holding(gate, sending(status=403))
    fetcher = world.fetcher(waiting=3)
    with ThreadPoolExecutor(4) as threads:
        flights = [threads.submit(failing, fetcher, url) for _ in range(4)]
        await_(lambda: fetcher._places._waiting == 3)
        gate.set()
        assert {flight.result().status for flight in flights} == {403}
    assert len(origin.received) == 1
    # Nothing of it is left behind: the URL only waits.
    assert fetcher._flights == {} and failing(fetcher, url).problem is FetchProblem.PACED


def test_what_ends_the_thread_that_fetches_ends_no_other(world: Any, origin: Origin, url: str) -> None:
    """T128: those who wait for it get a refusal, and the next one fetches anew."""
    gate = threading.Event()
    entered = threading.Event()

    def read(reply: Reply) -> str:
        entered.set()
        gate.wait(10)
        raise KeyboardInterrupt

    broken: DocumentKind[str] = DocumentKind(name="broken", read=read)
    fetcher = world.fetcher()
    ended: list[type[BaseException]] = []

    def attempt() -> None:
        try:
            fetcher.fetch(broken, url)
        except BaseException as error:
            ended.append(type(error))

    leader = threading.Thread(target=attempt)
    leader.start()
    assert entered.wait(10)
    follower = threading.Thread(target=attempt)
    follower.start()
    while not fetcher._places._waiting:
        time.sleep(0.005)
    gate.set()
    leader.join(10)
    follower.join(10)
    assert set(ended) == {KeyboardInterrupt, FetchFailed}
    assert fetcher.fetch(WORD, url).value == "one"
    assert fetcher.outcomes()["fetched"] == 1


def test_who_cannot_wait_for_a_newer_one_gets_the_fresh_one(world: Any, origin: Origin, url: str) -> None:
    """T126, T128: a flood that asks for newer documents fails no request."""
    fetcher = world.fetcher(waiting=0)
    fetcher.fetch(WORD, url)
    gate = threading.Event()
    origin.reply = holding(gate, sending(b"two"))
    world.clock.now += 60
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(fetcher.fetch, WORD, url, again=True)
        await_(lambda: len(origin.received) == 2)
        assert fetcher.fetch(WORD, url, again=True).value == "one"
        gate.set()
        assert first.result().value == "two"


def test_only_so_many_are_under_way_and_wait(world: Any) -> None:
    """T126: a slow host holds its places and a few threads; everybody else is told to come again at once."""
    gate = threading.Event()
    slow, other, third = (world.origin(name) for name in ("slow.example", "other.example", "third.example"))
    for origin in (slow, other, third):
        origin.reply = holding(gate, sending(b"one"))
    fetcher = world.fetcher(at_once=2, at_once_per_host=1, waiting=4)
    outcomes: Counter[str] = Counter()

    def ask(url: str) -> None:
        try:
            outcomes[fetcher.fetch(WORD, url).value] += 1
        except FetchFailed as failed:
            temporary = failed.is_temporary and failed.seconds_to_wait == 1
            outcomes[failed.problem.value if temporary else "for good"] += 1

    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(ask, f"https://slow.example:{slow.port}/0")
        await_(lambda: slow.received)
        waiting = [threads.submit(ask, f"https://slow.example:{slow.port}/{n}") for n in (1, 2)]
        await_(lambda: fetcher._places._waiting == 2)
        second = threads.submit(ask, f"https://other.example:{other.port}/")
        await_(lambda: other.received)
        waiting += [threads.submit(ask, f"https://third.example:{third.port}/{n}") for n in (1, 2)]
        await_(lambda: fetcher._places._waiting == 4)
        begun = time.monotonic()
        for number in range(20):
            ask(f"https://third.example:{third.port}/{10 + number}")
        assert time.monotonic() - begun < 0.5
        assert outcomes == {"busy": 20} and len(slow.received) == 1 and third.received == []
        gate.set()
        for future in (first, second, *waiting):
            future.result(timeout=10)
    assert outcomes == {"busy": 20, "one": 6}


def test_who_gets_no_place_in_time_is_told(world: Any) -> None:
    """T126: waiting is part of the deadline."""
    gate = threading.Event()
    origin = world.origin("localhost", tls=False)
    origin.reply = holding(gate)
    slow, fast = world.fetcher(seconds=2), world.fetcher(seconds=0.1)
    fast._places = slow._places
    url = f"http://localhost:{origin.port}/"
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(failing, slow, url)
        await_(lambda: origin.received)
        assert failing(fast, url + "b").problem is FetchProblem.BUSY
        gate.set()
        assert held.result().problem is FetchProblem.DOCUMENT_REFUSED


def test_threads_that_ask_for_many_documents_get_them_all(world: Any, origin: Origin, url: str) -> None:
    fetcher = world.fetcher(at_once=8, at_once_per_host=8, waiting=16, seconds=20)
    seen = at_once(16, lambda number: [fetcher.fetch(WORD, f"{url}?{n}").value for n in range(8)])
    assert seen == [["one"] * 8] * 16
    assert len(origin.received) == 8


# ---- The last good one ------------------------------------------------------------------------------

PASSING: dict[str, Any] = {
    "404": sending(status=404), "408": sending(status=408), "429": sending(status=429),
    "500": sending(status=500), "503": sending(status=503), "599": sending(status=599),
    "broken": raw(b""),
}  # fmt: skip
FINAL: dict[str, Any] = {
    "401": sending(status=401), "403": sending(status=403), "400": sending(status=400),
    "bad document": sending(b"1 2"), "no http": raw(b"gibberish\r\n\r\n"), "201": sending(b"one", 201),
    "redirect": sending(status=302, Location="/"), "too large": sending(b"a" * 70_000),
    "encoded": sending(b"one", Content_Encoding="gzip"),
}  # fmt: skip


@pytest.mark.parametrize("what", PASSING)
def test_the_last_good_document_serves_a_day_after_a_failure_that_says_nothing(
    what: str, world: Any, origin: Origin, url: str
) -> None:
    """draft-ietf-oauth-client-id-metadata-document, 5.2: counted from its own end; each failure only lets the next attempt wait."""
    fetcher = world.fetcher()
    fetcher.fetch(LASTING, url)
    origin.reply = PASSING[what]
    for passed in (301, 400, 300 + DAY - 1):
        world.clock.now = 1000.0 + passed
        document = fetcher.fetch(LASTING, url)
        assert (document.value, document.is_last_good, document.age) == ("one", True, passed)
    world.clock.now = 1000.0 + 300 + DAY
    assert failing(fetcher, url, LASTING).says_nothing
    origin.reply = sending(b"two")
    world.clock.now += 61
    document = fetcher.fetch(LASTING, url)
    assert (document.value, document.is_last_good) == ("two", False)


@pytest.mark.parametrize(
    "headers", [{"Cache_Control": "no-store"}, {"Cache_Control": "private"}, {"Vary": "*"}]
)
def test_what_must_not_be_kept_serves_after_such_a_failure_only(
    headers: dict[str, str], world: Any, origin: Origin, url: str
) -> None:
    """draft-ietf-oauth-client-id-metadata-document, 5.2: fetched anew each time, without a validator, and 410 ends it."""
    fetcher = world.fetcher()
    origin.reply = sending(b"one", ETag='"a"', **headers)
    for _ in range(3):
        assert not fetcher.fetch(LASTING, url).is_last_good
    assert fetcher.cached(LASTING, url) is None
    assert [item.headers.get("If-None-Match") for item in origin.received] == [None] * 3
    origin.reply = sending(status=503)
    for passed in (0, 100, DAY - 1):
        world.clock.now = 1000.0 + passed
        document = fetcher.fetch(LASTING, url)
        assert (document.value, document.is_last_good, document.age) == ("one", True, passed)
    origin.reply = sending(status=410)
    fetcher._pace.succeeded(url)
    assert failing(fetcher, url, LASTING).status == 410
    fetcher._pace.succeeded(url)
    origin.reply = sending(status=503)
    assert failing(fetcher, url, LASTING).status == 503


def test_who_waits_for_what_must_not_be_kept_gets_the_new_one(world: Any, origin: Origin, url: str) -> None:
    """CIMD-20: the one before may be a day old."""
    fetcher = world.fetcher(waiting=1)
    origin.reply = sending(b"one", Cache_Control="no-store")
    fetcher.fetch(LASTING, url)
    gate = threading.Event()
    origin.reply = holding(gate, sending(b"two", Cache_Control="no-store"))
    with ThreadPoolExecutor(2) as threads:
        flights = [threads.submit(fetcher.fetch, LASTING, url) for _ in range(2)]
        await_(lambda: fetcher._places._waiting == 1)
        gate.set()
        assert [flight.result().value for flight in flights] == ["two", "two"]


@pytest.mark.parametrize("what", FINAL)
def test_after_an_answer_that_says_something_else_the_last_good_one_does_not_serve(
    what: str, world: Any, origin: Origin, url: str
) -> None:
    """draft-ietf-oauth-client-id-metadata-document, 5.2: it is not pushed out either: its server may confirm it."""
    fetcher = world.fetcher()
    origin.reply = sending(b"one", ETag='"a"')
    fetcher.fetch(LASTING, url)
    origin.reply = FINAL[what]
    world.clock.now += 301
    failed = failing(fetcher, url, LASTING)
    assert not failed.says_nothing and not failed.is_temporary
    # While it waits, and when its server then says nothing, the refusal still counts.
    assert failing(fetcher, url, LASTING).problem is FetchProblem.PACED
    world.clock.now += 61
    origin.reply = sending(status=503)
    assert failing(fetcher, url, LASTING).status == 503
    world.clock.now += 61
    origin.reply = raw(b"HTTP/1.1 304 Not Modified\r\n\r\n")
    assert fetcher.fetch(LASTING, url).value == "one"
    assert origin.received[-1].headers["If-None-Match"] == '"a"'


def test_410_ends_it_at_once(world: Any, origin: Origin, url: str) -> None:
    """RFC 9110, 15.5.11: nothing of it is left, not even its validator."""
    fetcher = world.fetcher()
    origin.reply = sending(b"one", ETag='"a"')
    fetcher.fetch(LASTING, url)
    origin.reply = sending(status=410)
    world.clock.now += 301
    assert failing(fetcher, url, LASTING).status == 410
    world.clock.now += 61
    origin.reply = sending(status=503)
    assert failing(fetcher, url, LASTING).status == 503
    assert "If-None-Match" not in origin.received[-1].headers


@pytest.mark.parametrize("status", [404, 410])
def test_a_kind_says_which_statuses_end_it(world: Any, origin: Origin, url: str, status: int) -> None:
    """T130: with 404 among them, nothing that its server says later brings the last good one back."""
    fetcher, kind = world.fetcher(), replace(LASTING, gone=frozenset({404, 410}))
    fetcher.fetch(kind, url)
    origin.reply = sending(status=status)
    world.clock.now += 301
    assert failing(fetcher, url, kind).status == status
    origin.reply = sending(status=503)
    world.clock.now += 61
    assert failing(fetcher, url, kind).status == 503


@pytest.mark.parametrize(("status", "is_temporary"), [(503, True), (404, False), (403, False), (410, False)])
def test_while_an_attempt_waits_the_last_failure_counts(
    world: Any, origin: Origin, url: str, status: int, is_temporary: bool
) -> None:
    """F-14, T130: what is gone does not seem to be away for a moment because nobody asks again so soon."""
    fetcher = world.fetcher()
    origin.reply = sending(status=status)
    assert failing(fetcher, url).is_temporary is is_temporary
    waiting = failing(fetcher, url)
    assert (waiting.problem, waiting.is_temporary) == (FetchProblem.PACED, is_temporary)


def test_a_look_into_the_cache_makes_no_request(world: Any, origin: Origin, url: str) -> None:
    fetcher = world.fetcher()
    assert fetcher.cached(LASTING, url) is None
    fetcher.fetch(LASTING, url)
    world.clock.now += 10
    found = fetcher.cached(LASTING, url)
    assert found is not None
    assert (found.value, found.age) == ("one", 10)
    assert fetcher.outcomes()["cached"] == 1
    world.clock.now += 301
    assert fetcher.cached(LASTING, url) is None
    assert len(origin.received) == 1


def test_after_a_refused_address_it_does_not_serve(world: Any, origin: Origin, url: str) -> None:
    """T123: a name that has moved inside."""
    fetcher = world.fetcher()
    fetcher.fetch(LASTING, url)
    world.names["localhost"] = ["10.0.0.1"]
    world.clock.now += 301
    assert failing(fetcher, url, LASTING).problem is FetchProblem.ADDRESS_REFUSED


def test_a_kind_without_that_rule_has_no_last_good_one(world: Any, origin: Origin, url: str) -> None:
    fetcher = world.fetcher()
    fetcher.fetch(WORD, url)
    origin.reply = sending(status=503)
    world.clock.now += 301
    assert failing(fetcher, url).status == 503


def test_while_it_is_fetched_the_last_good_one_serves_without_waiting(
    world: Any, origin: Origin, url: str
) -> None:
    """T126: the end of a document that many use holds up one of them."""
    fetcher = world.fetcher()
    fetcher.fetch(LASTING, url)
    gate = threading.Event()
    origin.reply = holding(gate, sending(b"two"))
    world.clock.now += 301
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(fetcher.fetch, LASTING, url)
        await_(lambda: len(origin.received) == 2)
        assert [fetcher.fetch(LASTING, url).value for _ in range(20)] == ["one"] * 20
        gate.set()
        assert first.result().value == "two"
    assert fetcher.fetch(LASTING, url).value == "two" and len(origin.received) == 2


# ---- What failed waits ------------------------------------------------------------------------------


def test_a_url_that_failed_waits_longer_each_time(world: Any, origin: Origin, url: str) -> None:
    """T128: no error is cached; 1, 2, 4 … 60 seconds, and one success ends it."""
    origin.reply = sending(status=404)
    fetcher = world.fetcher()
    asked = []
    for second in range(200):
        world.clock.now = 1000.0 + second
        failed = failing(fetcher, url)
        if failed.problem is FetchProblem.PACED:
            assert 1 <= failed.seconds_to_wait <= 60
        else:
            asked.append(second)
    assert asked == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    origin.reply = sending(b"one", Cache_Control="no-store")
    world.clock.now += 61
    assert fetcher.fetch(WORD, url).value == fetcher.fetch(WORD, url).value == "one"


def test_failures_of_a_host_count_and_successes_pay_for_none(world: Any, origin: Origin, url: str) -> None:
    """T128, CIMD-20: ten a minute without an answer, whatever URLs they are of; then it is left alone till its minute ends."""
    fetcher = world.fetcher()
    for number in range(10):
        origin.script = [sending(b"one", Cache_Control="no-store"), raw(b"")]
        assert fetcher.fetch(WORD, f"{url}?good").value == "one"
        assert failing(fetcher, f"{url}?{number}").problem is FetchProblem.UNREACHABLE
    failed = failing(fetcher, f"{url}?good")
    assert (failed.problem, failed.seconds_to_wait) == (FetchProblem.PACED, 60)
    assert len(origin.received) == 20
    world.names["other.example"] = ["10.0.0.1"]
    assert failing(fetcher, "https://other.example/").problem is FetchProblem.ADDRESS_REFUSED
    world.clock.now += 61
    assert fetcher.fetch(WORD, f"{url}?good").value == "one"
    with pytest.raises(FetchFailed):
        fetcher.post("https://other.example/", b"", headers={})


def test_bad_answers_to_strangers_hold_up_no_other_document_of_a_host(
    world: Any, origin: Origin, url: str
) -> None:
    """T128, CIMD-20: many publish on one host, and whoever names bad addresses there must not shut the others out.

    Nor is the host asked without end: two bad answers a second, then it is left alone till its minute ends.
    """
    fetcher = world.fetcher()
    bad = [
        sending(status=404),
        sending(status=403),
        sending(status=500),
        sending(status=503, Retry_After="60"),
        sending(b"1 2"),
        sending(status=302, Location="/"),
        sending(b"a" * 70_000),
        raw(b"gibberish\r\n\r\n"),
    ]
    for number in range(119):
        origin.script = [bad[number % len(bad)]]
        failing(fetcher, f"{url}?{number}")
        assert failing(fetcher, f"{url}?{number}").problem is FetchProblem.PACED
    assert len(origin.received) == 119
    assert fetcher.fetch(WORD, f"{url}?good").value == "one"
    origin.script = [sending(status=404)]
    assert failing(fetcher, f"{url}?120").status == 404
    assert failing(fetcher, f"{url}?new").problem is FetchProblem.PACED
    world.clock.now += 61
    assert fetcher.fetch(WORD, f"{url}?new").value == "one"


def test_successes_have_no_limit(world: Any, origin: Origin, url: str) -> None:
    """RFC 9111, 5.2.2.5: a document that must not be kept is fetched each time."""
    origin.reply = sending(b"one", Cache_Control="no-store")
    fetcher = world.fetcher()
    for _ in range(30):
        fetcher.fetch(WORD, url)
    assert len(origin.received) == 30


def test_a_server_may_ask_for_a_longer_pause_up_to_a_bound(world: Any, origin: Origin, url: str) -> None:
    """RFC 9110, 10.2.3."""
    fetcher = world.fetcher()
    for text, seconds in (("30", 30), ("999999", 60), ("Wed, 21 Oct 2026 07:28:00 GMT", 1), ("-5", 1)):
        address = f"{url}?{seconds}{len(text)}"
        origin.script = [sending(status=429, Retry_After=text)]
        assert failing(fetcher, address).status == 429
        world.clock.now += seconds - 0.5
        assert failing(fetcher, address).problem is FetchProblem.PACED
        world.clock.now += 1
        assert fetcher.fetch(WORD, address).value == "one"


def test_what_is_remembered_of_failures_has_an_end(
    world: Any, origin: Origin, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T128."""
    monkeypatch.setattr(module, "MAXIMUM_REMEMBERED", 3)
    fetcher = world.fetcher()
    world.names = {f"host{number}.example": ["10.0.0.1"] for number in range(9)}
    for host in world.names:
        failing(fetcher, f"https://{host}/")
    assert len(fetcher._pace._urls) == len(fetcher._pace._silent) == 3


def test_a_url_that_is_refused_is_not_remembered(world: Any) -> None:
    fetcher = world.fetcher()
    for _ in range(3):
        assert failing(fetcher, "https://client.example/#").problem is FetchProblem.URL_REFUSED
    assert not fetcher._pace._urls and not fetcher._pace._silent and not fetcher._pace._bad


def await_(ready: Callable[[], object]) -> None:
    """Wait until this is true (10 s at most)."""
    deadline = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_who_waits_is_told_before_and_nobody_else(world: Any, origin: Origin, url: str) -> None:
    """T114: a request that finds a document in the cache keeps its connection to the database."""
    fetcher, told = world.fetcher(), []

    def before() -> None:
        told.append(len(origin.received))

    fetcher.fetch(WORD, url, before=before)
    fetcher.fetch(WORD, url, before=before)
    assert told == [0]
    fetcher.post(url, b"", headers={}, before=before)
    assert told == [0, 1]
    with pytest.raises(FetchFailed):
        fetcher.post("ftp://localhost/", b"", headers={}, before=before)
    assert told == [0, 1]
