"""Whatever a plugin raises is a failed answer of that plugin, at each hook; the operator's Ctrl-C ends a command."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from authserver.api import (
    Binding,
    ClientMetadata,
    Expanded,
    Identity,
    InvalidRequest,
    OAuthError,
    Parameters,
    SingleUse,
    allow,
    deny,
    hookimpl,
    narrow,
)
from authserver.containment import MAXIMUM_TEXT, Escaped, Interrupted, contained, interruptible, text_of
from authserver.engine.decisions import Verdict
from authserver.engine.records import Event
from authserver.hooks import MAXIMUM_REASON
from authserver.hookspecs import DECIDING
from authserver.limits import MAXIMUM_JSON
from authserver.logs import MAXIMUM_LINE, MAXIMUM_LINES, OneLine
from authserver.plugins.asking import PluginFailed, PluginSet
from authserver.plugins.copying import MAXIMUM_ANSWER
from authserver.plugins.time_limit import TimeLimit
from authserver.testing import hostile
from authserver.testing.questions import a_question
from authserver.testing.records import NOW, a_client, an_event
from authserver.testing.server import Server, query_of, with_plugin
from authserver.testing.stories import assert_json_error, signed_in, stored

LOOP: dict[str, Any] = {}
LOOP["again"] = LOOP
GRANT_TYPE = "urn:example:grant-type:breaks"
CHECKOUT = Path(__file__).parent.parent
every_ending = pytest.mark.parametrize("raised", hostile.RAISED)


def overflow() -> None:
    overflow()


class Unspeakable(Exception):
    """Says nothing, and raises at that."""

    def __str__(self) -> str:
        raise SystemExit


@dataclass(frozen=True)
class Breaks:
    """Does what a test says at one hook, and adds nothing at all others."""

    immediate: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"extra"})
    members: ClassVar[frozenset[str]] = frozenset({"extra"})
    details: ClassVar[frozenset[str]] = frozenset({"extra"})
    grant_members: ClassVar[frozenset[str]] = frozenset({"extra", "subject"})
    implied: ClassVar[frozenset[str]] = frozenset({"extra"})
    person_claim_names: ClassVar[frozenset[str]] = frozenset({"extra"})

    hook: str
    number: int = 0

    def act(self, hook: str) -> Any:
        return DOES[self.number]() if hook == self.hook else None

    @hookimpl
    def client_auth_decision(self) -> Any:
        return self.act("client_auth_decision")

    @hookimpl
    def redirect_uri_decision(self) -> Any:
        return self.act("redirect_uri_decision")

    @hookimpl
    def scope_decision(self) -> Any:
        return self.act("scope_decision")

    @hookimpl
    def resource_decision(self) -> Any:
        return self.act("resource_decision")

    @hookimpl
    def authentication_decision(self) -> Any:
        return self.act("authentication_decision")

    @hookimpl
    def consent_decision(self) -> Any:
        return self.act("consent_decision")

    @hookimpl
    def login_decision(self) -> Any:
        return self.act("login_decision")

    @hookimpl
    def identity_decision(self) -> Any:
        return self.act("identity_decision")

    @hookimpl
    def registration_decision(self) -> Any:
        return self.act("registration_decision")

    @hookimpl
    def introspection_decision(self) -> Any:
        return self.act("introspection_decision")

    @hookimpl
    def origin_decision(self) -> Any:
        return self.act("origin_decision")

    @hookimpl
    def rate_decision(self) -> Any:
        return self.act("rate_decision")

    @hookimpl
    def find_client(self) -> Any:
        return self.act("find_client")

    @hookimpl
    def expand_registration(self) -> Any:
        return self.act("expand_registration")

    @hookimpl
    def expand_authorization_request(self) -> Any:
        return self.act("expand_authorization_request")

    @hookimpl
    def registration_response(self) -> Any:
        return self.act("registration_response")

    @hookimpl
    def code_details(self) -> Any:
        return self.act("code_details")

    @hookimpl
    def grant_details(self) -> Any:
        return self.act("grant_details")

    @hookimpl
    def implied_parameters(self) -> Any:
        return self.act("implied_parameters")

    @hookimpl
    def person_claims(self) -> Any:
        return self.act("person_claims")

    @hookimpl
    def response_modes(self) -> Any:
        return self.act("response_modes")

    @hookimpl
    def token_binding(self) -> Any:
        return self.act("token_binding")

    @hookimpl
    def token_claims(self) -> Any:
        return self.act("token_claims")

    @hookimpl
    def token_response(self) -> Any:
        return self.act("token_response")

    @hookimpl
    def send_mail(self) -> Any:
        return self.act("send_mail")

    @hookimpl
    def observe(self) -> Any:
        return self.act("observe")

    @hookimpl
    def deliver(self) -> Any:
        return self.act("deliver")

    @hookimpl
    def observe_request(self) -> Any:
        return self.act("observe_request")

    @hookimpl
    def scopes(self) -> Any:
        return self.act("scopes")

    @hookimpl
    def server_metadata(self) -> Any:
        return self.act("server_metadata")

    @hookimpl
    def includeme(self) -> Any:
        return self.act("includeme")

    @hookimpl
    def client_proofs(self) -> Any:
        return self.act("client_proofs")

    @hookimpl
    def assertion_profiles(self) -> Any:
        return self.act("assertion_profiles")

    @hookimpl
    def exchangeable_tokens(self) -> Any:
        return self.act("exchangeable_tokens")

    @hookimpl
    def grant_types(self) -> Any:
        self.act("grant_types")
        return {GRANT_TYPE: lambda engine, client, parameters: self.act("redeem")}


@dataclass(frozen=True)
class BreaksInTime(Breaks):
    """The same in a thread of its own."""

    immediate: ClassVar[bool] = False


DOES: list[Callable[[], Any]] = [lambda: None]


def raising(raised: type[BaseException] | BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise raised

    return act


@pytest.fixture(params=[Breaks, BreaksInTime], ids=["immediate", "timed"])
def kind(request: pytest.FixtureRequest) -> type[Breaks]:
    """A plugin in the caller's thread, and one in a thread of its own."""
    return request.param


# ---- Each kind of hook --------------------------------------------------------------------------------


@every_ending
@pytest.mark.parametrize("hook", DECIDING)
def test_a_deciding_plugin_has_failed(
    kind: type[Breaks], hook: str, raised: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """R-14: at every hook, and the plugin is named."""
    DOES[0] = raising(raised)
    ruling = PluginSet([("breaks", kind(hook))]).decide(a_question(hook))
    assert (ruling.verdict, ruling.reason, ruling.decided_by) == (Verdict.FAILED, "plugin-raised", "breaks")
    assert f"plugin breaks failed in {hook}" in caplog.text


@every_ending
@pytest.mark.parametrize(
    ("hook", "question"),
    [
        ("find_client", {"client_id": "reports"}),
        ("token_response", {"client": a_client(), "grant": None, "scopes": (), "now": None}),
        ("token_binding", {}),
        ("scopes", {}),
        ("grant_types", {}),
        ("client_proofs", {}),
        ("assertion_profiles", {}),
        ("exchangeable_tokens", {}),
        ("send_mail", {"mail": None}),
        ("server_metadata", {"issuer": "https://as.example"}),
        ("includeme", {"config": None}),
    ],
)
def test_a_contributing_plugin_has_failed(
    kind: type[Breaks], hook: str, question: dict[str, Any], raised: type[BaseException]
) -> None:
    """R-14: also at start, where the message says which plugin it was."""
    DOES[0] = raising(raised)
    with pytest.raises(PluginFailed, match=f"plugin breaks failed in {hook}: "):
        PluginSet([("breaks", kind(hook))]).contribute(hook, **question)


@every_ending
def test_an_observing_plugin_harms_nobody(
    kind: type[Breaks], raised: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """T152, R-14: the next observer hears of the event all the same."""
    heard: list[Event] = []

    @dataclass(frozen=True)
    class Hears:
        immediate: ClassVar[bool] = True

        @hookimpl
        def observe(self, event: Event) -> None:
            heard.append(event)

    DOES[0] = raising(raised)
    PluginSet([("breaks", kind("observe")), ("hears", Hears())]).observe(an_event())
    assert len(heard) == 1
    assert "plugin breaks failed in observe" in caplog.text


@every_ending
def test_a_plugin_that_does_not_deliver_says_so_with_an_exception(
    kind: type[Breaks], raised: type[BaseException]
) -> None:
    """R-14: whatever it raises, the events are kept for it; the thread that reads them goes on."""
    DOES[0] = raising(raised)
    plugins = PluginSet([("breaks", kind("deliver"))])
    with pytest.raises(Exception):  # noqa: B017 - of any kind, but an Exception
        plugins.deliver("breaks", (an_event(),), nullcontext)


def test_a_plugin_that_recurses_without_end_has_failed(kind: type[Breaks]) -> None:
    DOES[0] = overflow
    ruling = PluginSet([("breaks", kind("scope_decision"))]).decide(a_question("scope_decision"))
    assert ruling.failed
    DOES[0] = raising(RecursionError)


def test_what_an_exception_says_is_one_line_that_ends() -> None:
    """T131: it goes to logs and terminals, whatever a plugin put into it."""
    assert text_of(Unspeakable()) == "Unspeakable"
    assert text_of(ValueError("red \x1b[31m\nnext")) == "red  [31m next"
    assert text_of(ValueError("x" * 10**6)) == "x" * MAXIMUM_TEXT + "…"
    DOES[0] = raising(Unspeakable())
    with pytest.raises(PluginFailed, match="plugin breaks failed in scopes: Unspeakable"):
        PluginSet([("breaks", Breaks("scopes"))]).contribute("scopes")


# ---- Reasons ------------------------------------------------------------------------------------------


class Shouts(str):
    """A text that cannot be taken for what it is."""

    __slots__ = ()

    def __len__(self) -> int:
        raise SystemExit


@pytest.mark.parametrize("answer", [allow, deny, lambda reason: narrow(reason, ())])
@pytest.mark.parametrize("reason", [*map(repr, hostile.REASONS), "None", "1"])
def test_a_reason_is_short_and_printable(kind: type[Breaks], answer: Any, reason: str) -> None:
    """R-14, T131: any other is a failed answer."""
    made = eval(reason)
    DOES[0] = lambda: answer(made)
    ruling = PluginSet([("breaks", kind("scope_decision"))]).decide(a_question("scope_decision"))
    assert ruling.failed
    assert ruling.reason in ("bad-reason", "plugin-raised")


def test_a_reason_is_the_text_that_it_is_whatever_its_type_does(kind: type[Breaks]) -> None:
    """R-14, T131: what is kept and printed is a plain text."""
    DOES[0] = lambda: deny(Shouts("shout"))
    ruling = PluginSet([("breaks", kind("scope_decision"))]).decide(a_question("scope_decision"))
    assert (ruling.verdict, ruling.reason, type(ruling.reason)) == (Verdict.DENY, "shout", str)


def test_the_longest_reason_there_may_be_is_one() -> None:
    DOES[0] = lambda: deny("a" * MAXIMUM_REASON)
    plugins = PluginSet([("breaks", Breaks("scope_decision"))])
    assert plugins.decide(a_question("scope_decision")).verdict is Verdict.DENY


def with_class(name: str, value: Any) -> OAuthError:
    """A refusal of a class of the plugin's own."""
    kind = type("Own", (OAuthError,), {"code": "own_code", name: value})
    return kind("No.", reason="no")


@pytest.mark.parametrize(
    "refusal",
    [
        *(InvalidRequest("No.", reason=reason) for reason in hostile.REASONS if reason),
        InvalidRequest("a" * 501),
        InvalidRequest("A line\nand another"),
        InvalidRequest('A "quote"'),
        InvalidRequest(""),
        InvalidRequest(b"bytes"),  # what a careless plugin might say
        with_class("code", 'a "quote"\r\n'),
        with_class("code", None),
        with_class("status", 200),
        with_class("status", "400"),
    ],
)
def test_a_refusal_that_cannot_be_sent_or_kept_is_a_failure(refusal: OAuthError) -> None:
    """R-14, OAuth 2.1, 3.2.4: of a plugin that may refuse; a good one goes to the client as it is."""
    DOES[0] = raising(refusal)
    plugins = PluginSet([("breaks", Breaks("token_binding"))])
    with pytest.raises(PluginFailed):
        plugins.contribute("token_binding")
    DOES[0] = raising(InvalidRequest("Not like this."))
    with pytest.raises(InvalidRequest, match="Not like this"):
        plugins.contribute("token_binding")


# ---- Answers without end ------------------------------------------------------------------------------

MUCH = "a" * 3_000_000
MANY = tuple(f"scope-{number}" for number in range(200_000))
# Nothing in it, many million times.
NOTHING: tuple[Any, ...] = ()
for _ in range(3):
    NOTHING = (NOTHING,) * 200


class Endless(Mapping[str, Any]):
    """A mapping whose reading never ends."""

    def __getitem__(self, name: str) -> Any:
        return name

    def __iter__(self) -> Iterator[str]:
        return map(str, itertools.count())

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("slot", "answer"),
    [
        ("client_auth_decision", deny(MUCH)),
        ("redirect_uri_decision", allow("fine", MUCH)),
        ("scope_decision", allow("fine", MANY)),
        ("scope_decision", narrow("fine", MANY)),
        ("scope_decision", allow("fine", (MUCH,))),
        ("resource_decision", allow("fine", f"https://api.example/{MUCH}")),
        ("consent_decision", allow(MUCH)),
        ("login_decision", allow("fine", Identity(username=MUCH))),
        ("login_decision", allow("fine", Identity(username="ann", methods=MANY))),
        ("registration_decision", allow("fine", ClientMetadata(scopes=MANY))),
        ("registration_decision", allow("fine", ClientMetadata(details={"a": [MUCH]}))),
        ("registration_decision", allow("fine", ClientMetadata(details={"a": NOTHING}))),
        ("registration_decision", allow("fine", ClientMetadata(details=Endless()))),
        ("registration_decision", allow("fine", ClientMetadata(details={"a": 1 << 8_000_000}))),
        ("introspection_decision", allow("fine", [[[MUCH]]])),
        ("origin_decision", deny(MUCH)),
    ],
)
def test_a_policy_that_answers_with_megabytes_has_failed(
    kind: type[Breaks], slot: str, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """R-14: it is named in a log line that ends, and nothing of the answer is kept."""
    DOES[0] = lambda: answer
    ruling = PluginSet([("breaks", kind(slot))]).decide(a_question(slot))
    assert (ruling.verdict, ruling.reason, ruling.value) == (Verdict.FAILED, "answer-too-large", None)
    assert f"plugin breaks answered {slot} wrongly (more than {MAXIMUM_ANSWER} characters" in caplog.text
    assert len(caplog.text) < 1_000
    assert len(str(ruling.as_record())) < 2_000


@pytest.mark.parametrize(
    ("slot", "answer", "why"),
    [
        ("login_decision", Identity(username=None), "Identity: Expected `str`"),
        ("login_decision", Identity(username="ann", methods=(1,)), "Identity: Expected `str`"),
        ("registration_decision", ClientMetadata(scopes=None), "ClientMetadata: Expected `array`"),
    ],
)
def test_a_record_with_a_value_of_another_type_is_no_answer(
    kind: type[Breaks], slot: str, answer: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R-14: the log says which member it was."""
    DOES[0] = lambda: allow("fine", answer)
    ruling = PluginSet([("breaks", kind(slot))]).decide(a_question(slot))
    assert (ruling.verdict, ruling.reason) == (Verdict.FAILED, "wrong-value")
    assert why in caplog.text


A_USE = {"purpose": "proof", "text": "a", "since": NOW, "until": NOW}


@pytest.mark.parametrize(
    ("hook", "added", "why"),
    [
        ("find_client", a_client(name=MUCH), "more than"),
        ("find_client", a_client(scopes=None), "Client: Expected `array`"),
        ("server_metadata", {"documentation": MUCH}, "more than"),
        ("token_claims", {"extra": MUCH}, "more than"),
        ("token_claims", {"extra": "a" * MAXIMUM_JSON}, "longer than 16384 bytes"),
        ("token_claims", Endless(), "more than"),
        ("token_response", {"extra": ["a" * MAXIMUM_JSON]}, "longer than 16384 bytes"),
        ("code_details", {"extra": {"a": "a" * MAXIMUM_JSON}}, "longer than 16384 bytes"),
        ("grant_details", {"extra": {"a": "a" * MAXIMUM_JSON}}, "longer than 16384 bytes"),
        ("implied_parameters", {"other": "a"}, "does not declare other in `implied`"),
        ("person_claims", {"extra": MUCH}, "more than"),
        ("scopes", {MUCH: "See everything"}, "more than"),
        (
            "token_binding",
            Binding(confirmation={"a": MUCH}, binds_refresh=True),
            "more than",
        ),
        (
            "token_binding",
            Binding(
                confirmation={},
                binds_refresh=True,
                uses=(SingleUse(**A_USE, refusal=InvalidRequest("a" * 501)),),
            ),
            "its refusal cannot be sent",
        ),
        (
            "expand_authorization_request",
            Expanded(parameters=Parameters.parse("a=b"), refusal=InvalidRequest("two\nlines")),
            "its refusal cannot be sent",
        ),
    ],
)
def test_a_contribution_that_has_no_end_or_cannot_be_sent_is_a_failure(
    kind: type[Breaks], hook: str, added: Any, why: str
) -> None:
    """R-14: with the plugin named, in a message that ends."""
    DOES[0] = lambda: added
    question = dict.fromkeys(("client", "user", "grant", "scopes", "resources", "now"))
    with pytest.raises(PluginFailed, match=f"plugin breaks failed in {hook}: ") as failed:
        PluginSet([("breaks", kind(hook))]).contribute(hook, **question)
    assert why in str(failed.value)
    assert len(str(failed.value)) < MAXIMUM_TEXT + 100


def test_what_an_exception_says_ends_in_the_log_too() -> None:
    """R-14: a traceback of megabytes would fill the disk of an operator who looks for the cause."""

    def bounce(depth: int) -> None:
        overflow() if depth % 2 else bounce(depth + 1)

    for raises in (raising(ValueError(MUCH)), raising(ValueError("a\n" * 10**6)), lambda: bounce(0)):
        try:
            raises()
        except Exception:
            record = logging.LogRecord("authserver", logging.ERROR, "", 0, "failed", (), sys.exc_info())
        written = OneLine("%(message)s").format(record)
        assert len(written) < MAXIMUM_LINES * (MAXIMUM_LINE + 10)
        assert written.startswith("failed\n    Traceback")
        assert "ValueError: a" in written or "RecursionError" in written


# ---- A whole server -----------------------------------------------------------------------------------


@pytest.fixture(params=[Breaks, BreaksInTime], ids=["immediate", "timed"])
def serve(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[Callable[[str], Server]]:
    servers: list[Server] = []

    def make(hook: str) -> Server:
        DOES[0] = lambda: None
        servers.append(Server(sqlite_url, with_plugin(request.param, {"hook": hook})))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    "hook", ["token_binding", "token_claims", "token_response", "observe", "observe_request"]
)
def test_a_redemption_survives_what_a_plugin_raises(
    serve: Callable[[str], Server], hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R-14: server_error and an unspent code, or an answer as if the observer were not there."""
    server = serve(hook)
    server.add_user("ann")
    client, secret = server.add_client()
    code = server.code(client)
    for raised in hostile.RAISED:
        DOES[0] = raising(raised)
        before = stored(server)
        answer = server.redeem(client, secret, code)
        assert (
            f"plugin breaks{'_in_time' if 'in_time' in caplog.text else ''} failed in {hook}" in caplog.text
        )
        if hook.startswith("observe"):
            assert answer.status_int == 200
            return
        assert_json_error(answer, "server_error", status=500)
        assert stored(server) == before
        caplog.clear()
    DOES[0] = lambda: None
    assert server.redeem(client, secret, code).status_int == 200


@pytest.mark.parametrize("hook", ["token_binding", "token_claims", "token_response", "scope_decision"])
def test_megabytes_issue_nothing(
    serve: Callable[[str], Server], hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R-14: server_error and an unspent code."""
    answers = {
        "token_binding": Binding(confirmation={"a": MUCH}, binds_refresh=True),
        "scope_decision": allow("fine", MANY),
    }
    server = serve(hook)
    server.add_user("ann")
    client, secret = server.add_client()
    code = server.code(client)
    DOES[0] = lambda: answers.get(hook, {"extra": MUCH})
    before = stored(server)
    assert_json_error(server.redeem(client, secret, code), "server_error", status=500)
    assert stored(server) == before
    assert hook in caplog.text and "plugin breaks" in caplog.text
    DOES[0] = lambda: None
    assert server.redeem(client, secret, code).status_int == 200


def test_somebody_who_signs_in_by_too_many_methods_is_not_signed_in(
    serve: Callable[[str], Server], caplog: pytest.LogCaptureFixture
) -> None:
    """R-14: they would be in each token."""
    server = serve("login_decision")
    server.add_user("ann")
    DOES[0] = lambda: allow("fine", Identity(username="ann", methods=MANY[:11]))
    server.sign_in(server.browser())
    DOES[0] = lambda: None
    assert server.rows("sessions") == []
    assert "answered login_decision wrongly (more than 10 methods" in caplog.text


@pytest.mark.parametrize(
    "hook",
    ["expand_authorization_request", "find_client", "code_details", "grant_details", "implied_parameters"],
)
def test_an_authorization_request_survives_what_a_plugin_raises(
    serve: Callable[[str], Server], hook: str
) -> None:
    """R-14: an answer each time."""
    server = serve(hook)
    server.add_user("ann")
    client, _ = server.add_client()
    browser = signed_in(server)
    url = server.authorization_url(client)
    if hook == "find_client":
        url = url.replace(client.client_id, "client_unknown")
    for raised in hostile.RAISED:
        DOES[0] = raising(raised)
        answer = browser.get(url, expect_errors=True)
        if hook in ("code_details", "grant_details", "implied_parameters"):
            assert query_of(answer)["error"] == "server_error"
        else:
            assert answer.status_int == 500
    DOES[0] = lambda: None


@pytest.mark.parametrize(
    ("hook", "added"),
    [
        ("grant_details", {"subject": 7}),
        ("grant_details", {"subject": ""}),
        ("grant_details", {"subject": "a" * 256}),
        ("grant_details", {"subject": "\u00e9"}),
        ("implied_parameters", {"extra": 7}),
    ],
)
def test_what_cannot_be_of_a_request_is_a_failure_of_its_plugin(
    serve: Callable[[str], Server], hook: str, added: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """R-14, OIDC-07: a `sub` is a text of at most 255 characters of ASCII, and a parameter is a text."""
    server = serve(hook)
    server.add_user("ann")
    client, _ = server.add_client()
    browser = signed_in(server)
    DOES[0] = lambda: added
    answer = browser.get(server.authorization_url(client), expect_errors=True)
    assert query_of(answer)["error"] == "server_error"
    assert f"a plugin answered {hook} wrongly" in caplog.text
    DOES[0] = lambda: None


@pytest.mark.parametrize(
    "act", [*map(raising, hostile.RAISED), raising(Unspeakable()), lambda: "no order", lambda: None]
)
def test_a_grant_type_survives_what_its_plugin_raises(
    sqlite_url: str, act: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """R-14: server_error with the plugin named, and nothing issued."""
    server = Server(sqlite_url, with_plugin(Breaks, {"hook": "redeem"}))
    client, secret = server.add_client(grant_types=(GRANT_TYPE,))
    DOES[0] = act
    before = stored(server)
    assert_json_error(server.token(client, secret, grant_type=GRANT_TYPE), "server_error", status=500)
    assert stored(server) == before
    assert server.events("token.refused")[-1]["reason"] == "plugin-raised"
    assert "plugin breaks failed in grant_types" in caplog.text
    server.close()


@pytest.mark.parametrize(
    "added", [{"extra": object()}, {"extra": LOOP}, {"other": 1}], ids=["object", "loop", "other"]
)
@pytest.mark.parametrize("hook", ["token_claims", "token_response"])
def test_what_no_json_can_hold_is_a_failure_of_its_plugin(
    sqlite_url: str, hook: str, added: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(sqlite_url, with_plugin(Breaks, {"hook": hook}))
    client, secret = server.add_client(grant_types=("client_credentials",))
    DOES[0] = lambda: added
    answer = server.token(client, secret, grant_type="client_credentials")
    assert_json_error(answer, "server_error", status=500)
    assert f"plugin breaks failed in {hook}" in caplog.text
    server.close()


# ---- Threads, and the operator ------------------------------------------------------------------------


def test_a_thread_that_cannot_be_started_holds_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """T114: or the server would be out of places after 32 of them."""
    limit = TimeLimit(1, threads=1)

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="new thread"):
                limit.call(int)
    assert limit.call(int) == 0


def test_what_is_contained_says_what_it_was() -> None:
    with pytest.raises(Escaped, match="it raised SystemExit") as caught:
        contained(sys.exit, 3)
    assert isinstance(caught.value.__cause__, SystemExit)
    with pytest.raises(ValueError, match="plain"):
        contained(raising(ValueError("plain")))


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C interrupts, as in a terminal; in the background a shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_operators_interrupt_is_told_apart(interrupts: None) -> None:
    """While a command runs, Ctrl-C is no failure of the plugin that happens to be asked."""
    with interruptible():
        with pytest.raises(Interrupted):
            contained(signal.raise_signal, signal.SIGINT)
        with pytest.raises(Escaped):
            contained(raising(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_ignored_interrupt_stays_ignored(interrupts: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible():
        assert contained(signal.raise_signal, signal.SIGINT) is None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


SLOW = """
import sys, time
from dataclasses import dataclass
from typing import ClassVar
from authserver.api import hookimpl

@dataclass(frozen=True)
class Slow:
    immediate: ClassVar[bool] = {immediate}

    @hookimpl
    def scope_decision(self):
        print("asked", file=sys.stderr, flush=True)
        time.sleep(60)
"""


COMMAND = (sys.executable, "-c", "from authserver.cli import main; main()", "-c")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo server, for commands that change nothing in it."""
    folder = tmp_path_factory.mktemp("demo")
    ini = folder / "development.ini"
    shutil.copy(CHECKOUT / "development.ini", ini)
    subprocess.run([*COMMAND, ini, "demo"], env=ENVIRONMENT, check=True, capture_output=True, timeout=120)
    return folder


@pytest.mark.parametrize("immediate", [True, False], ids=["immediate", "timed"])
def test_ctrl_c_ends_a_command_while_a_plugin_thinks(demo: Path, immediate: bool) -> None:
    """The operator pressed it; nothing goes on."""
    name = f"slow_{immediate}".lower()
    (demo / f"{name}.py").write_text(SLOW.format(immediate=immediate))
    text = (CHECKOUT / "development.ini").read_text()
    text = text.replace(
        "authserver.plugins =", f"authserver.policy_time_limit = 30\nauthserver.plugins =\n    {name}:Slow", 1
    )
    (demo / f"{name}.ini").write_text(text)
    command = [*COMMAND, demo / f"{name}.ini", "explain", "scope", "playground", "--user", "demo"]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        while "asked" not in (line := running.stderr.readline()):
            assert line, "it ended before it was asked"
        time.sleep(0.2)
        begun = time.monotonic()
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=20)[1]
    assert (running.returncode, "Aborted!" in said, "Traceback" in said) == (1, True, False)
    assert time.monotonic() - begun < 15
