"""`authserver limits` where the counts are in the memory of the server: a real listener for operators is asked."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from click.testing import CliRunner, Result
from webtest import TestApp

from authserver.cli import limits as command
from authserver.cli import main
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.errors import TooManyRequests
from authserver.engine.questions import Counted
from authserver.engine.rates import Usage, claim, lift_of, limiters, usage_of
from authserver.testing.server import Server, with_plugin
from authserver.web import limits, management

LINES = "few = sign_in, account, 4, hour\nmany = sign_in, all, 100, hour"
PERSON = "Ann-é"


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    server = Server(sqlite_url, with_plugin("rate_limits", {"limits": LINES}))
    yield server
    server.close()


@pytest.fixture
def listening(server: Server) -> str:
    """The address at which it answers operators."""
    bound = socket.create_server(("127.0.0.1", 0))
    management.start(server.wsgi, [bound])
    host, port = bound.getsockname()
    return f"{host}:{port}"


@pytest.fixture
def run(server: Server, tmp_path: Path) -> Callable[..., Result]:
    """The command, with an INI file that names this address for operators."""

    def run(*arguments: str, listen: str = "", secret_keys: str = "") -> Result:
        own = {**server.ini} | ({"authserver.secret_keys": secret_keys} if secret_keys else {})
        lines = [f"{key} = " + text.strip().replace("\n", "\n    ") for key, text in own.items()]
        named = f"management_listen = {listen}\n" if listen else ""
        path = tmp_path / "server.ini"
        path.write_text(
            "[app:main]\nuse = egg:authserver\n" + "\n".join(lines)
            + f"\n[server:main]\nuse = egg:authserver\nlisten = 127.0.0.1:0\n{named}"
        )  # fmt: skip
        return CliRunner().invoke(main, ["-c", str(path), "limits", *arguments])

    return run


def sign_ins(server: Server, account: str, number: int) -> list[bool]:
    """Which of them were let through; all are counted in this process."""

    def is_let_through() -> bool:
        try:
            with server.begin() as engine:
                claim(engine, Counted.SIGN_IN, account=account)
        except TooManyRequests:
            return False
        return True

    return [is_let_through() for _ in range(number)]


def test_it_shows_what_a_process_has_counted_and_lifts_it(
    server: Server, listening: str, run: Callable[..., Result]
) -> None:
    assert "No limit is used by half or more by anybody now." in run(listen=listening).output
    assert sign_ins(server, PERSON, 5) == [True] * 4 + [False]
    sign_ins(server, "bob", 1)
    shown = run(listen=listening).output
    assert f"account={PERSON}" in shown and "account=bob" not in shown
    (ann, bob, everybody) = json.loads(run("--all", "--json", listen=listening).output)["used"]
    assert (ann["limit"], ann["who"], ann["used"], ann["allowed"]) == ("few", f"account={PERSON}", 4, 4)
    assert 3500 < ann["seconds"] <= 3600
    assert (bob["who"], bob["used"]) == ("account=bob", 1)
    assert (everybody["limit"], everybody["who"], everybody["used"]) == ("many", "", 5)
    done = run("lift", "few", f"account={PERSON}", "--server", listening)
    assert (done.exit_code, done.output) == (0, f"few is lifted for account={PERSON}.\n")
    assert sign_ins(server, PERSON, 1) == [True]
    assert json.loads(run("lift", "few", "--json", listen=listening).output) == {"limit": "few", "lifted": 2}
    acts = [
        (row["actor"], json.loads(row["details"]))
        for row in server.rows("events")
        if row["type"] == "limit.lifted"
    ]
    assert acts == [
        ("command:limits lift", {"limit": "few", "who": f"account={PERSON}", "lifted": 1}),
        ("command:limits lift", {"limit": "few", "who": "everybody", "lifted": 2}),
    ]
    for arguments, problem in (
        (("lift", "fw"), "fw: no such limit; did you mean few"),
        (("lift", "few", "account=carl"), "nobody called account=carl has used anything of few"),
    ):
        failed = run(*arguments, listen=listening)
        assert failed.exit_code == 1
        assert problem in failed.output
    sign_ins(server, "carl", 4)
    done = run("lift", "few", listen=listening)
    assert done.output == "few is lifted for the one who used it.\n"
    assert sign_ins(server, "carl", 1) == [True]


def test_all_processes_of_one_ini_are_asked(server: Server, run: Callable[..., Result]) -> None:
    """Each counts by itself, at the address for operators of its own: the highest count is shown, and all are lifted."""
    another = Server(server.ini["authserver.database_url"], with_plugin("rate_limits", {"limits": LINES}))
    first, second = neighbours()
    management.start(server.wsgi, [first])
    management.start(another.wsgi, [second])
    sign_ins(server, "bob", 2)
    sign_ins(another, "bob", 3)
    sign_ins(another, "ann", 4)
    listen = f"127.0.0.1:{first.getsockname()[1]}\nprocesses = 2"
    used = json.loads(run("--all", "--json", listen=listen).output)["used"]
    assert [(item["limit"], item["who"], item["used"]) for item in used] == [
        ("few", "account=ann", 4),
        ("few", "account=bob", 3),
        ("many", "", 7),
    ]
    assert run("lift", "few", "account=bob", listen=listen).exit_code == 0
    assert sign_ins(server, "bob", 5) == sign_ins(another, "bob", 5) == [True] * 4 + [False]
    another.close()


def neighbours() -> tuple[socket.socket, socket.socket]:
    """Two listening sockets, the second with the next port."""
    while True:
        first = socket.create_server(("127.0.0.1", 0))
        try:
            return first, socket.create_server(("127.0.0.1", first.getsockname()[1] + 1))
        except (OSError, OverflowError):
            first.close()


def test_the_fullest_come_first_and_not_without_end(
    server: Server, listening: str, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T154: strangers can make up any number of names."""
    monkeypatch.setattr(limits, "MAXIMUM_SHOWN", 2)
    for number, name in enumerate(("dan", "eve", "fay"), start=1):
        sign_ins(server, name, number)
    shown = run("--all", listen=listening).output
    assert shown.index("account=fay") < shown.index("account=eve")
    assert "account=dan" not in shown
    assert "These are the fullest; there are 2 more." in shown


def test_it_says_why_a_process_cannot_be_asked(
    server: Server, listening: str, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what to do about it; what is allowed is shown all the same."""
    with socket.socket() as taken, socket.create_server(("127.0.0.1", 0)) as silent:
        taken.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "other:" + base64.b64encode(bytes(32)).decode()
        for keys, listen, problem in (
            (
                "",
                "",
                "management_listen of [server:main], at which this command asks for them, is not set; set it, for example",
            ),
            (
                "",
                closed,
                f"no process runs at {closed}; start it, or name another one with --server HOST:PORT",
            ),
            ("", "nowhere", "nowhere is no address of a process of the server; expected HOST:PORT"),
            (other, listening, f"at {listening} another server answers, or this one with other secret keys"),
        ):
            shown = run(listen=listen, secret_keys=keys)
            assert shown.exit_code == 0, shown.output
            assert "few    sign_in  account" in shown.output
            assert problem in " ".join(shown.output.split())
            as_json = run("--json", listen=listen, secret_keys=keys)
            assert json.loads(as_json.stdout)["used"] is None
            assert problem in as_json.stderr
            failed = run("lift", "few", listen=listen, secret_keys=keys)
            assert failed.exit_code == 1
            assert f"nothing was lifted: {command.IN_MEMORY}" in failed.output and problem in failed.output
        monkeypatch.setattr(command, "SECONDS", 0.2)
        assert "does not answer (timed out)" in run(listen="{}:{}".format(*silent.getsockname())).output


def test_only_who_has_the_secret_keys_can_ask(server: Server) -> None:
    """A page in a browser of this machine, another user of it and whatever fetches addresses get nothing."""
    operators = TestApp(management.for_operators(server.wsgi))
    asked = operators.get("/limits", status=405)
    assert (asked.headers["Allow"], asked.json["error"]) == ("POST", "invalid_request")
    operators.options("/limits", headers={"Origin": "https://evil.example"}, status=405)
    ring, stranger = server.application.parts.ring, KeyRing([("k1", bytes(32))])
    used = {"all": True}

    def send(body: bytes, **headers: str) -> bytes:
        answer = operators.post(server.path("/limits"), body, headers=headers, status=200)
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers
        return bytes(answer.body)

    def question(ring: KeyRing) -> bytes:
        sent: list[bytes] = []
        with pytest.raises(limits.NotAnswered):
            limits.ask(ring, lambda body: sent.append(body) or b"", **used)
        return sent[0]

    assert limits.ask(ring, send, **used) == {"used": [], "more": 0}
    right = question(ring)
    for wrong in (b"", b"{}", b'{"all": true}', question(stranger), right[:-1], right + b"x", send(right)):
        refused = operators.post("/limits", wrong, headers={"Origin": "null"}, status=403)
        assert refused.json["error_description"].startswith("Ask with `authserver limits`")
        assert "Access-Control-Allow-Origin" not in refused.headers
    # An answer to another question is none to this one.
    with pytest.raises(limits.NotAnswered):
        limits.ask(ring, lambda body: send(right), **used)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=2)):
        assert "too old" in operators.post("/limits", right, status=403).json["error_description"]


def test_a_question_that_was_overheard_lifts_nothing_once_more(server: Server) -> None:
    """Else whoever hears one could go on guessing as long as it is taken."""
    operators = TestApp(management.for_operators(server.wsgi))
    sent: list[bytes] = []

    def send(body: bytes) -> bytes:
        sent.append(body)
        return bytes(operators.post("/limits", body, status=200).body)

    sign_ins(server, PERSON, 5)
    ring = server.application.parts.ring
    assert limits.ask(ring, send, limit="few", who=f"account={PERSON}") == {"lifted": 1}
    assert sign_ins(server, PERSON, 5) == [True] * 4 + [False]
    refused = operators.post("/limits", sent[0], status=403)
    assert refused.json["error_description"] == "The question was answered already."
    assert sign_ins(server, PERSON, 1) == [False]
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=2)):
        assert limits.ask(ring, send, limit="few", who=f"account={PERSON}") == {"lifted": 1}


def test_the_public_listener_has_no_such_endpoint(server: Server) -> None:
    assert server.browser().post(server.path("/limits"), b"", status=404)


@dataclass(frozen=True)
class Broken:
    """A plugin that lists its limits and cannot show what is used of them."""

    is_shared: bool = True

    def table(self) -> Sequence[Mapping[str, Any]]:
        return [{"limit": "tries"}]

    def usage(self) -> Sequence[Usage]:
        raise SystemExit("no store")

    def lift(self, limit: str, who: str | None) -> int:
        raise KeyError(limit)


def test_a_plugin_that_fails_is_a_sentence() -> None:
    found = limiters([Broken(), object()])
    with pytest.raises(ValueError, match="a plugin cannot show or lift its limits: SystemExit: no store"):
        usage_of(found, everything=True)
    with pytest.raises(ValueError, match="a plugin cannot show or lift its limits: KeyError: 'tries'"):
        lift_of(found, "tries", None)
