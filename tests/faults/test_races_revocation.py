"""What ends a grant, a client or a user, against what goes on with it at the same moment; two processes, both databases.

Each test runs so many rounds; `make faults` runs more. Whoever waits for the answer of what ends it may rely on it:
nothing that anybody got before, meanwhile or later is good any more.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.registration import add_client
from authserver.engine.people.account import disconnect, sign_out_everywhere
from authserver.engine.people.login import disable_user
from authserver.engine.records import ClientMetadata
from authserver.testing.server import REDIRECT_URI, VERIFIER, basic
from authserver.testing.threads import at_once

IS_LONG = os.environ.get("AUTHSERVER_FAULTS") == "long"
# Seconds before whatever ends it: long enough for some requests to be done, and for others to be half done.
HEAD_START = 0.06
ITSELF = {"grant_type": "client_credentials"}
_users = itertools.count(1)


def rounds(short: int, long: int) -> Any:
    """How often a test repeats itself, in its name."""
    count = long if IS_LONG else short
    return pytest.mark.parametrize("rounds", [count], ids=[f"{count}_rounds"])


@dataclass
class Family:
    """A grant of a user to a client, and every token that anybody was given of it."""

    cluster: Any
    client: Any
    secret: str
    grant_id: str = ""
    access: list[str] = field(default_factory=list)
    refresh: list[str] = field(default_factory=list)

    def keep(self, answer: Any) -> bool:
        """Note what an answer of the token endpoint gave; whether it did."""
        assert answer.headers["Cache-Control"] == "no-store"
        if answer.status != 200:
            assert (answer.status, answer.json["error"]) in (
                (400, "invalid_grant"),
                (401, "invalid_client"),
            ), answer.body
            return False
        self.access.append(answer.json["access_token"])
        if "refresh_token" in answer.json:
            self.refresh.append(answer.json["refresh_token"])
        return True

    def assert_dead(self) -> None:
        """No process takes any of its tokens."""
        headers = {"Authorization": basic(self.client.client_id, self.secret)}
        for process in self.cluster.processes:
            for token in {*self.access, *self.refresh}:
                told = process.post("/oauth/introspect", {"token": token}, headers)
                assert (told.status, told.json) == (200, {"active": False})
            for token in dict.fromkeys(self.refresh):
                answer = self.cluster.refresh(process, self.client, self.secret, token)
                assert (answer.status, answer.json["error"]) == (400, "invalid_grant")


def new_family(cluster: Any, client: Any, secret: str, username: str = "ann") -> Family:
    family = Family(cluster, client, secret)
    code = cluster.code(client) if username == "ann" else code_of(cluster, client, username)
    assert family.keep(cluster.redeem(cluster.any_process(), client, secret, code))
    family.grant_id = cluster.server.claims(family.access[0])["jti"].partition(".")[0]
    return family


def code_of(cluster: Any, client: Any, username: str) -> str:
    browser = cluster.server.browser()
    assert cluster.server.sign_in(browser, username).status_int == 303
    return str(cluster.server.code(client, browser))


def new_user(cluster: Any) -> Any:
    return cluster.server.add_user(f"user{next(_users)}")


def race(family: Family, end: Any) -> Counter[int]:
    """Refresh a family at both processes at once, again and again, until `end` has run and both refuse.

    What the refreshes answered. Two that succeed give the same successor (I-09).
    """
    seen: Counter[int] = Counter()

    def refresh(token: str) -> Any:
        cluster = family.cluster
        return at_once(
            2, lambda number: cluster.refresh(cluster.processes[number], family.client, family.secret, token)
        )

    def run(number: int) -> None:
        if number == 0:
            time.sleep(random.uniform(0, HEAD_START))
            end()
            return
        token, limit = family.refresh[0], time.monotonic() + 30
        while time.monotonic() < limit:
            answers = refresh(token)
            seen.update(answer.status for answer in answers)
            # A client that keeps its refresh token gets no other.
            given = {answer.json.get("refresh_token", token) for answer in answers if family.keep(answer)}
            if not given:
                return
            (token,) = given
        raise AssertionError(f"refreshes go on as if nothing had happened: {seen}")

    at_once(2, run)
    return seen


@rounds(6, 50)
@pytest.mark.parametrize("rotates", [True, False], ids=["rotated", "kept"])
@pytest.mark.parametrize("by", ["access", "refresh"])
def test_no_token_of_a_family_survives_its_revocation(cluster, rounds, by, rotates):
    """T068, L-07, R-07: after the revocation's 200 none is active, whatever the refreshes beside it answered."""
    metadata = ClientMetadata(
        client_name="Example",
        redirect_uris=(REDIRECT_URI,),
        grant_types=("authorization_code", "refresh_token"),
        scopes=("profile",),
    )
    with cluster.server.application.begin() as engine:
        client, secret = add_client(engine, metadata, rotates_refresh_tokens=rotates)
    seen: Counter[int] = Counter()
    for _ in range(rounds):
        family = new_family(cluster, client, secret)

        def revoke(family=family):
            headers = {"Authorization": basic(client.client_id, secret)}
            form = {"token": getattr(family, by)[0]}
            answer = cluster.any_process().post("/oauth/revoke", form, headers)
            assert (answer.status, answer.body) == (200, b"{}")

        seen += race(family, revoke)
        family.assert_dead()
        assert cluster.grant(family.grant_id)["revoked_reason"] == "token-revoked"
        assert len(cluster.events_of(family.grant_id, "grant.revoked")) == 1
    assert set(seen) <= {200, 400}, seen
    # The last pair of each round at least.
    assert seen[400] >= 2 * rounds, seen
    sys.stdout.write(f"refreshes beside a revocation: {dict(seen)}\n")


@rounds(3, 20)
@pytest.mark.parametrize("to_one_client", [True, False], ids=["one_application", "everywhere"])
def test_no_token_survives_what_a_user_ends(cluster, rounds, to_one_client):
    """T068, T076, E-16, I-14: on the account pages, against refreshes and against the redemption of a code."""
    client, secret = cluster.server.add_client()
    user = new_user(cluster)
    seen: Counter[str] = Counter()
    for _ in range(rounds):
        family = new_family(cluster, client, secret, user.username)
        late = Family(cluster, client, secret)
        code = code_of(cluster, client, user.username)
        redeemed = []

        def revoke(late=late, code=code, redeemed=redeemed):
            def run(number: int) -> None:
                if number == 0:
                    redeemed.append(late.keep(cluster.redeem(cluster.any_process(), client, secret, code)))
                    return
                time.sleep(random.uniform(0, 0.02))
                with cluster.server.application.begin() as engine:
                    if to_one_client:
                        assert disconnect(engine, user, client.client_id).grants == 2
                    else:
                        assert sign_out_everywhere(engine, user).grants == 2

            at_once(2, run)

        race(family, revoke)
        for each in (family, late):
            each.assert_dead()
        again = cluster.redeem(cluster.any_process(), client, secret, code)
        assert (again.status, again.json["error"]) == (400, "invalid_grant")
        seen.update("redeemed" if won else "refused" for won in redeemed)
    assert sum(seen.values()) == rounds
    sys.stdout.write(f"redemptions beside it: {dict(seen)}\n")


@rounds(3, 20)
def test_no_token_of_a_disabled_user_is_active(cluster, rounds):
    """R-09, M-04: from the next request on, at both processes; those issued meanwhile are dead, too."""
    client, secret = cluster.server.add_client()
    for _ in range(rounds):
        user = new_user(cluster)
        family = new_family(cluster, client, secret, user.username)
        late = code_of(cluster, client, user.username)

        def disable(user=user):
            with cluster.server.application.begin() as engine:
                assert disable_user(engine, user.username)

        race(family, disable)
        family.assert_dead()
        for process in cluster.processes:
            answer = cluster.redeem(process, client, secret, late)
            assert (answer.status, answer.json["error"]) == (400, "invalid_grant")


@rounds(3, 20)
def test_no_token_of_a_disabled_client_is_active(cluster, rounds):
    """R-09, J-07: its next request is refused at both processes, and a resource server hears that its tokens are dead."""
    api = resource_server(cluster)
    for _ in range(rounds):
        client, secret = cluster.server.add_client()
        family = new_family(cluster, client, secret)

        def disable(client=client):
            with cluster.server.application.begin() as engine:
                assert disable_client(engine, client.client_id)

        seen = race(family, disable)
        # A request that had authenticated the client before finds that its grant has ended.
        assert seen[401] + seen[400] >= 2, seen
        for process in cluster.processes:
            for token in family.access:
                told = process.post("/oauth/introspect", {"token": token}, {"Authorization": api})
                assert (told.status, told.json) == (200, {"active": False})
            for path in ("/oauth/token", "/oauth/introspect", "/oauth/revoke"):
                form = {"grant_type": "refresh_token", "token": family.refresh[0]}
                answer = process.post(path, form, {"Authorization": basic(client.client_id, secret)})
                assert (answer.status, answer.json["error"]) == (401, "invalid_client")


def resource_server(cluster: Any) -> str:
    """The Authorization header of a new client that may introspect everybody's tokens."""
    client, secret = cluster.server.add_client(client_id="api", grant_types=("client_credentials",))
    return basic(client.client_id, secret)


@rounds(3, 20)
@pytest.mark.parametrize("kind", ["access", "refresh", "client"])
def test_once_a_revocation_was_answered_every_introspection_says_inactive(cluster, rounds, kind):
    """T068, T078, M-04, L-07: on both processes; and whoever heard "inactive" never hears "active" again."""
    client, secret = cluster.server.add_client(
        grant_types=("authorization_code", "refresh_token", "client_credentials")
    )
    headers = {"Authorization": basic(client.client_id, secret)}
    active = 0
    for _ in range(rounds):
        if kind == "client":
            token = cluster.token(cluster.any_process(), client, secret, **ITSELF).json["access_token"]
        else:
            token = getattr(new_family(cluster, client, secret), kind)[0]
        over, told = threading.Event(), []

        def run(number, token=token, over=over, told=told):
            if number < 4:
                process = cluster.processes[number % 2]
                while True:
                    last, begun = over.is_set(), time.monotonic()
                    answer = process.post("/oauth/introspect", {"token": token}, headers)
                    assert answer.status == 200
                    told.append((begun, time.monotonic(), answer.json["active"]))
                    if last:
                        return None
            time.sleep(random.uniform(0, HEAD_START))
            try:
                answer = cluster.any_process().post("/oauth/revoke", {"token": token}, headers)
                assert (answer.status, answer.body) == (200, b"{}")
                return time.monotonic()
            finally:
                time.sleep(0.03)
                over.set()

        revoked_at = at_once(5, run)[4]
        known_at = min([revoked_at, *(ended for _, ended, is_active in told if not is_active)])
        later = [is_active for begun, _, is_active in told if begun > known_at]
        assert len(later) >= 4
        assert not any(later)
        active += sum(is_active for _, _, is_active in told)
    sys.stdout.write(f"introspections that came in time: {active}\n")


@rounds(3, 20)
def test_of_16_revocations_one_counts(cluster, rounds):
    """L-03, R-07: all are answered alike, and there is one event."""
    client, secret = cluster.server.add_client(
        grant_types=("authorization_code", "refresh_token", "client_credentials")
    )
    headers = {"Authorization": basic(client.client_id, secret)}
    for _ in range(rounds):
        family = new_family(cluster, client, secret)
        own = cluster.token(cluster.any_process(), client, secret, **ITSELF).json["access_token"]
        for token in (family.refresh[0], own):
            answers = at_once(
                16,
                lambda number, token=token: cluster.processes[number % 2].post(
                    "/oauth/revoke", {"token": token}, headers
                ),
            )
            assert Counter((answer.status, answer.body) for answer in answers) == {(200, b"{}"): 16}
            grant_id = cluster.server.claims(own)["jti"].partition(".")[0]
            revoked = family.grant_id if token == family.refresh[0] else grant_id
            assert len(cluster.events_of(revoked, "grant.revoked")) == 1


@rounds(3, 20)
def test_of_16_uses_of_a_stolen_token_each_is_refused_and_one_revokes(cluster, rounds):
    """I-06, T064, T066, R-08: what the errors leave behind is there before any of them is answered."""
    client, secret = cluster.server.add_client()
    for _ in range(rounds):
        family = new_family(cluster, client, secret)
        for _ in range(2):
            process = cluster.any_process()
            assert family.keep(cluster.refresh(process, client, secret, family.refresh[-1]))
        stolen = family.refresh[0]
        known = {"token": family.access[-1]}, {"Authorization": basic(client.client_id, secret)}

        def use(number, stolen=stolen, known=known):
            answer = cluster.refresh(cluster.processes[number % 2], client, secret, stolen)
            told = cluster.processes[(number + 1) % 2].post("/oauth/introspect", *known)
            return answer.status, answer.json["error"], told.json["active"]

        assert Counter(at_once(16, use)) == {(400, "invalid_grant", False): 16}
        family.assert_dead()
        assert cluster.grant(family.grant_id)["revoked_reason"] == "refresh-token-reused"
        assert len(cluster.events_of(family.grant_id, "grant.revoked")) == 1


@rounds(5, 30)
def test_retries_beside_the_use_of_the_successor_leave_one_live_token_or_none(cluster, rounds):
    """I-08, I-09, T063, T066: a retry is answered with the successor, or it came too late and is reuse."""
    client, secret = cluster.server.add_client()
    seen: Counter[str] = Counter()
    for _ in range(rounds):
        family = new_family(cluster, client, secret)
        assert family.keep(cluster.refresh(cluster.any_process(), client, secret, family.refresh[0]))
        first, second = family.refresh

        def use(number, first=first, second=second):
            presented = second if number == 0 else first
            return cluster.refresh(cluster.processes[number % 2], client, secret, presented)

        used, *retried = at_once(5, use)
        answers = [answer.json["refresh_token"] for answer in retried if family.keep(answer)]
        assert set(answers) <= {second}
        live = [row for row in cluster.tokens_of(family.grant_id, "refresh") if row["claimed_at"] is None]
        revoked = cluster.grant(family.grant_id)["revoked_reason"]
        family.keep(used)
        if revoked is None:
            assert used.status == 200
            assert len(live) == 1
            assert len(answers) == 4
        else:
            assert revoked == "refresh-token-reused"
            family.assert_dead()
        seen[str(revoked)] += 1
    sys.stdout.write(f"retries beside the use of their successor: {dict(seen)}\n")


@rounds(3, 20)
def test_wrong_and_right_verifiers_at_once_issue_at_most_once(cluster, rounds):
    """G-04, G-06, T031, T035.b: counted failures and the claim are writes on one row."""
    client, secret = cluster.server.add_client()
    for _ in range(rounds):
        code = cluster.code(client)

        def present(number, code=code):
            verifier = VERIFIER if number == 0 else "w" * 43
            form = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
            return cluster.token(cluster.processes[number % 2], client, secret, **form)

        answers = at_once(9, present)
        assert {answer.status for answer in answers[1:]} == {400}
        assert answers[0].status in (200, 400)
        family = Family(cluster, client, secret)
        issued = family.keep(answers[0])
        again = cluster.redeem(cluster.any_process(), client, secret, code)
        assert (again.status, again.json["error"]) == (400, "invalid_grant")
        if issued:
            # An unproven presentation ends nothing; the last one was proven, and a replay.
            family.assert_dead()
