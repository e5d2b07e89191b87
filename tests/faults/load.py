"""A load client: people who sign in and agree, and the application that redeems, refreshes, asks, revokes and replays."""

from __future__ import annotations

import http.client
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from authserver.engine.records import Client
from authserver.testing.server import PASSWORD, REDIRECT_URI, VERIFIER, basic
from authserver.testing.service import ISSUER, authorization_query
from tests.faults.ledger import LOST, Ledger, Step

HOST = urlsplit(ISSUER).netloc
CALLBACK = urlsplit(REDIRECT_URI).netloc
FORM = "application/x-www-form-urlencoded"
INPUT = re.compile(r'<input type="hidden" name="(csrf_token|request|scope)" value="([^"]*)">')
BOX = re.compile(r'<input type="checkbox" id="scope-[^"]*" name="scope" value="([^"]*)"')
# How often a story goes one of these ways.
REPLAYED, REVOKED, WRONG_PROOF, SIGNED_OUT = 0.05, 0.15, 0.05, 0.05
# Seconds after which a client gives up.
PATIENCE = 30


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def location(self) -> str:
        return self.headers.get("Location", "")


@dataclass(frozen=True)
class Application:
    """A client of the server."""

    client: Client
    secret: str
    resource: str | None = None


def send(
    port: int, method: str, path: str, body: str | None, headers: Mapping[str, str], patience: float
) -> Answer:
    """Ask a process on its own connection. Raises OSError when no whole answer came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        connection.request(method, path, body, {"Host": HOST, "Connection": "close", **headers})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    except http.client.HTTPException as error:
        raise OSError(f"no whole answer: {error!r}") from error
    finally:
        connection.close()


class Over(Exception):
    """The load is over; the story ends here."""


@dataclass
class Visitor(threading.Thread):
    """One person with a browser, and the application that acts for this person; one story after the other until stopped.

    A question whose answer was lost, or refused for a while, is asked again at the other process, as a client does.
    `often` multiplies how often something unusual happens; `pace` is called before each request, and may wait.
    """

    ports: Sequence[Any]
    application: Application
    ledger: Ledger
    over: threading.Event
    username: str = "ann"
    pause: float = 0.02
    patience: float = PATIENCE
    often: float = 1.0
    pace: Callable[[], None] = lambda: None
    cookies: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.failure: BaseException | None = None

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self.tell(self.ledger.new_story())
                time.sleep(self.pause)
        except Over:
            pass
        except BaseException as error:
            self.failure = error
            raise

    def tell(self, story: int) -> None:
        """One story, as far as it comes."""
        self._ask("itself", story, "/oauth/token", {"grant_type": "client_credentials", "scope": "profile"})
        code = self._authorize(story)
        if code is None:
            return
        if self._happens(WRONG_PROOF):
            self._redeem(story, code, "A" * 43)
        tokens = self._again(lambda: self._redeem(story, code, VERIFIER))
        if tokens is None or tokens.status != 200:
            return
        if self._happens(REPLAYED):
            self._again(lambda: self._redeem(story, code, VERIFIER, "replayed-code"))
            return
        self._introspect(story, tokens.answer["access_token"])
        used = []
        for _ in range(random.randint(1, 3)):
            used.append(tokens.answer["refresh_token"])
            tokens = self._again(lambda: self._refresh(story, used[-1]))
            if tokens is None or tokens.status != 200:
                return
        if len(used) > 1 and self._happens(REPLAYED):
            self._again(lambda: self._refresh(story, used[0], "replayed-token"))
            return
        self._introspect(story, tokens.answer["access_token"])
        if self._happens(REVOKED):
            token = tokens.answer["refresh_token"]
            self._again(lambda: self._ask("revoke", story, "/oauth/revoke", {"token": token}))

    def _happens(self, share: float) -> bool:
        return random.random() < share * self.often

    def _again(self, ask: Any, times: int = 40) -> Step | None:
        """Ask until the outcome is known; None when it never was."""
        for _ in range(times):
            step: Step = ask()
            if step.is_known:
                return step
            time.sleep(0.1)
        return None

    def _redeem(self, story: int, code: str, verifier: str, name: str = "redeem") -> Step:
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
        name = name if verifier == VERIFIER else "wrong-proof"
        return self._ask(name, story, "/oauth/token", form, code=code)

    def _refresh(self, story: int, token: str, name: str = "refresh") -> Step:
        form = {"grant_type": "refresh_token", "refresh_token": token}
        return self._ask(name, story, "/oauth/token", form, token=token)

    def _introspect(self, story: int, token: str) -> Step:
        return self._ask("introspect", story, "/oauth/introspect", {"token": token}, token=token)

    def _ask(self, name: str, story: int, path: str, form: Mapping[str, str], **sent: str) -> Step:
        of = self.application
        headers = {"Authorization": basic(of.client.client_id, of.secret), "Content-Type": FORM}
        sent = sent or dict(form)
        return self._step(name, story, sent, lambda: self._send("POST", path, urlencode(form), headers))

    def _step(self, name: str, story: int, sent: Mapping[str, Any], ask: Callable[[], Answer]) -> Step:
        if self.over.is_set():
            raise Over
        self.pace()
        return self.ledger.step(name, story, sent, ask)

    def _send(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> Answer:
        return send(random.choice(self.ports).port, method, path, body, headers, self.patience)

    # ---- the browser ----

    def _authorize(self, story: int) -> str | None:
        """A code for the application, by way of sign-in and consent where the server wants them."""
        of = self.application
        changes = {"resource": of.resource, "scope": "files.read"} if of.resource else {}
        query = authorization_query(of.client, **changes)
        if random.random() < 0.3:
            pushed = self._ask("push", story, "/oauth/par", {k: v[0] for k, v in parse_qs(query).items()})
            if pushed.status != 201:
                return None
            uri = pushed.answer["request_uri"]
            query = urlencode({"client_id": of.client.client_id, "request_uri": uri})
        answer = self._browse("authorize", story, f"/oauth/authorize?{query}")
        for _ in range(4):
            if answer is None or answer.status not in (200, 303):
                return None
            address = urlsplit(answer.location)
            if address.netloc == CALLBACK:
                members = parse_qs(address.query)
                if "code" not in members:
                    return None
                if self._happens(SIGNED_OUT):
                    self._sign_out(story)
                return members["code"][0]
            if answer.status == 303:
                answer = self._browse("page", story, f"{address.path}?{address.query}")
                continue
            page = answer.body.decode()
            form = {name: unescape(value) for name, value in INPUT.findall(page)}
            if 'name="username"' in page:
                form |= {"username": self.username, "password": PASSWORD}
                answer = self._browse("sign-in", story, "/login", form)
            else:
                form |= {"answer": "allow"}
                scopes = [unescape(value) for value in BOX.findall(page)]
                answer = self._browse("consent", story, "/oauth/consent", {**form, "scope": scopes})
        return None

    def _sign_out(self, story: int) -> None:
        page = self._browse("page", story, "/")
        if page is None or page.status != 200:
            return
        form = dict(INPUT.findall(page.body.decode()))
        cookie = self._cookie()
        answer = self._browse("sign-out", story, "/logout", form, cookie=cookie)
        if answer is not None and answer.status < 500:
            self.cookies.clear()

    def _browse(
        self, name: str, story: int, path: str, form: Mapping[str, Any] | None = None, **sent: str
    ) -> Answer | None:
        headers = {"Cookie": self._cookie(), "Accept": "text/html"}
        if form is not None:
            headers |= {"Content-Type": FORM, "Origin": ISSUER}
        answers: list[Answer] = []

        def ask() -> Answer:
            body = None if form is None else urlencode(form, doseq=True)
            answers.append(self._send("GET" if form is None else "POST", path, body, headers))
            return answers[0]

        self._step(name, story, sent, ask)
        if not answers:
            return None
        for line in answers[0].headers.get_all("Set-Cookie", []):
            name, _, value = line.partition(";")[0].partition("=")
            if value and "Max-Age=0" not in line:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return answers[0]

    def _cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())


class Load:
    """Several visitors at once; `with` keeps them going."""

    def __init__(
        self, ports: Sequence[Any], applications: Sequence[Application], ledger: Ledger, **how: Any
    ) -> None:
        self.ledger, self._over = ledger, threading.Event()
        self.visitors = [Visitor(ports, one, ledger, self._over, **how) for one in applications]

    def __enter__(self) -> Load:
        for visitor in self.visitors:
            visitor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for visitor in self.visitors:
            visitor.join(timeout=60)
        assert not any(visitor.is_alive() for visitor in self.visitors), "a visitor waits for an answer"
        for visitor in self.visitors:
            if visitor.failure is not None:
                raise visitor.failure
        self.ledger.close()

    def successes(self, since: float) -> int:
        """How many requests that were sent from this moment of the monotonic clock on were answered, and not by 5xx."""
        return sum(step.is_known and step.began >= since for step in self.ledger.steps())

    def wait_for(self, count: int, since: float, seconds: float) -> None:
        """Until so many requests that were sent from this moment on are answered. Raises AssertionError if they are not."""
        end = time.monotonic() + seconds
        while self.successes(since) < count:
            assert time.monotonic() < end, f"{self.successes(since)} answers within {seconds} s, not {count}"
            time.sleep(0.02)

    def first_success(self, since: float, seconds: float) -> float:
        """Seconds from that moment until a token was issued for a request sent since. Raises AssertionError for none."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for step in self.ledger.steps("redeem", "refresh", "itself"):
                if step.began >= since and step.status == 200:
                    return step.ended - since
            time.sleep(0.02)
        raise AssertionError(f"no token within {seconds} s")


__all__ = ["LOST", "Answer", "Application", "Load", "Visitor", "send"]
