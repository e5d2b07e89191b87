"""A rotation and an emergency, as two running processes and those who rely on them see it."""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from authserver.testing.server import Server, basic

# What the server promises, in seconds, and what a busy machine adds to it.
FOLLOWS, SLACK = 10, 3
# Seconds between two looks at a process.
PAUSE = 0.25


@dataclass(frozen=True)
class Look:
    """One look at one process: what it published just before it signed a token, and what the other said of it."""

    began: float
    ended: float
    process: int
    published: tuple[str, ...]
    signed_by: str
    accepted_by_the_other: bool


class Watch:
    """Looks at both processes all the time, as clients and APIs do, and remembers what it saw."""

    def __init__(self, processes, client, secret):
        self._processes, self._form = processes, {"grant_type": "client_credentials"}
        self._headers = {"Authorization": basic(client.client_id, secret)}
        self._over = threading.Event()
        self.looks: list[Look] = []
        self.failures: list[BaseException] = []
        self.revoked_at = float("inf")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def token(self, process):
        answer = self._processes[process].post("/oauth/token", self._form, self._headers)
        assert answer.status == 200, answer.body
        return answer.json["access_token"]

    def accepts(self, process, token):
        answer = self._processes[process].post("/oauth/introspect", {"token": token}, self._headers)
        assert answer.status == 200, answer.body
        return answer.json["active"]

    def published(self, process):
        answer = self._processes[process].get("/oauth/jwks")
        assert answer.headers["Cache-Control"] == "public, max-age=1"
        return tuple(key["kid"] for key in answer.json["keys"])

    def until(self, is_so, seconds):
        """Wait until something holds of the latest look at each process."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.failures:
                raise self.failures[0]
            latest = {look.process: look for look in list(self.looks)}
            if len(latest) == 2 and all(is_so(look) for look in latest.values()):
                return
            time.sleep(PAUSE)
        raise AssertionError(f"not so after {seconds} s: {self.looks[-4:]}")

    def stop(self):
        self._over.set()
        self._thread.join(timeout=60)
        if self.failures:
            raise self.failures[0]
        before = [look for look in self.looks if look.ended < self.revoked_at]
        assert before and all(look.accepted_by_the_other for look in before)

    def _run(self):
        try:
            for process in itertools.cycle((0, 1)):
                if self._over.wait(PAUSE / 2):
                    return
                began = time.time()
                published = self.published(process)
                token = self.token(process)
                accepted = self.accepts(1 - process, token)
                self.looks.append(Look(began, time.time(), process, published, kid_of(token), accepted))
        except BaseException as error:
            self.failures.append(error)


def kid_of(token):
    header = token.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]


def test_two_processes_live_through_rotations_and_an_emergency(
    serve, command, ini_file, database_url, is_long
):
    """R-06, N-07, T144: both publish before either signs, both switch, nothing good is refused, nothing bad lasts."""
    server = Server(database_url)
    client, secret = server.add_client(grant_types=("client_credentials",))
    server.close()
    settings = {"authserver.jwks_maximum_age": "1"}
    processes, ini = serve(database_url, 2, settings), ini_file(database_url, settings)
    watch = Watch(processes, client, secret)
    try:
        for number in range(8 if is_long else 1):
            if number % 2:
                # One that starts in the middle finds everything in the database.
                watch.stop()
                processes[number % 4 // 2].kill()
                processes[number % 4 // 2].start()
                processes[number % 4 // 2].wait()
                watch = Watch(processes, client, secret)
            old_token = watch.token(0)
            new = rotate(watch, partial(command, ini), kid_of(old_token))
            assert watch.accepts(0, old_token) and watch.accepts(1, old_token)
        revoke(watch, partial(command, ini), new, old_token)
    finally:
        watch.stop()
    assert not any("Traceback" in process.log() for process in processes)


def rotate(watch, command, old):
    """Two operators rotate at once; one key is published by both processes, then signs at both."""
    began = time.time()
    commands = [command("keys", "rotate", "--json") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in commands]
    asked = time.time()
    assert sorted(process.returncode for process in commands) == [0, 1], outputs
    winner = commands[0].returncode
    answer = json.loads(outputs[winner][0])["new"]
    new, activates_at = answer["kid"], datetime.fromisoformat(answer["activates_at"]).timestamp()
    assert f"{new} is staged already, and signs from" in outputs[1 - winner][1]

    watch.until(lambda look: look.signed_by == new, activates_at - time.time() + FOLLOWS + SLACK)

    looks = [look for look in watch.looks if look.began > began]
    published, signed = [], []
    for process in (0, 1):
        seen = [look for look in looks if look.process == process]
        published.append(next(look for look in seen if new in look.published))
        signed.append(next(look for look in seen if look.signed_by == new))
        # It switches once, publishes the old key all along, and the new one from then on.
        assert [kid for kid, _ in itertools.groupby(look.signed_by for look in seen)] == [old, new]
        assert all(old in look.published for look in seen)
        assert all(new in look.published for look in seen if look.began > published[-1].ended)
    # Before anybody signs, everybody publishes, for longer than anybody else may keep the keys.
    assert max(look.ended for look in published) < asked + FOLLOWS + SLACK
    assert min(look.began for look in signed) > max(look.ended for look in published) + 1
    assert all(activates_at <= look.ended < activates_at + FOLLOWS + SLACK for look in signed)
    return new


def revoke(watch, command, kid, old_token):
    """The key that signs is taken out; both processes follow, and tokens of the key before stay good."""
    bad_token = watch.token(1)
    assert kid_of(bad_token) == kid
    watch.revoked_at = time.time()
    process = command("keys", "revoke", kid, "--reason", "stolen", "--json")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    asked = time.monotonic()
    successor = json.loads(output)["signs"]
    watch.until(lambda look: (look.signed_by, kid in look.published) == (successor, False), FOLLOWS + SLACK)
    while watch.accepts(0, bad_token) or watch.accepts(1, bad_token):
        assert time.monotonic() - asked < FOLLOWS + SLACK
        time.sleep(PAUSE)
    assert watch.accepts(0, old_token) and watch.accepts(1, old_token)
    for number in (0, 1):
        token = watch.token(number)
        assert kid_of(token) == successor
        assert watch.accepts(0, token) and watch.accepts(1, token)
