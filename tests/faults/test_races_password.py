"""A new password, or the end of all sessions, against sign-ins and consents that began before it."""

from __future__ import annotations

import itertools
import os
import random
import re
import sys
import time
from collections import Counter
from http.cookies import SimpleCookie
from typing import Any

import pytest

from authserver.engine.people.account import set_password, sign_out_everywhere
from authserver.testing.server import PASSWORD, form_with
from authserver.testing.threads import at_once

IS_LONG = os.environ.get("AUTHSERVER_FAULTS") == "long"
ROUNDS = 20 if IS_LONG else 4
_users = itertools.count(1)
FIELD = re.compile(r'name="csrf_token" value="([^"]+)"|value="([^"]+)" name="csrf_token"')


def sign_in(process: Any, username: str) -> int:
    """The status of a sign-in with the old password, as a browser does it."""
    page = process.get("/login")
    token = next(filter(None, FIELD.search(page.body.decode()).groups()))
    cookie = "; ".join(
        f"{name}={morsel.value}" for name, morsel in SimpleCookie(page.headers["Set-Cookie"]).items()
    )
    fields = {"csrf_token": token, "username": username, "password": PASSWORD}
    return int(process.post("/login", fields, {"Cookie": cookie}).status)


def new_user(cluster: Any) -> Any:
    return cluster.server.add_user(f"user{next(_users)}")


def end_by(name: str, cluster: Any, user: Any) -> None:
    """What ends all sessions and grants of a user."""
    with cluster.server.application.begin() as engine:
        if name == "password":
            set_password(engine, user, "another password than before")
        else:
            sign_out_everywhere(engine, user)


@pytest.mark.parametrize("rounds", [ROUNDS], ids=[f"{ROUNDS}_rounds"])
def test_no_session_of_the_old_password_outlives_a_new_one(cluster, rounds):
    """I-14, T073, T098: not even one that began while the password changed."""
    seen: Counter[int] = Counter()
    for _ in range(rounds):
        user = new_user(cluster)

        def run(number, user=user):
            if number < 6:
                return sign_in(cluster.processes[number % 2], user.username)
            time.sleep(random.uniform(0, 0.2))
            end_by("password", cluster, user)
            return None

        seen.update(status for status in at_once(7, run) if status)
        left = [row for row in cluster.server.rows("sessions") if row["user_id"] == user.user_id]
        assert left == [], seen
    assert set(seen) <= {303, 400}


@pytest.mark.parametrize("rounds", [ROUNDS], ids=[f"{ROUNDS}_rounds"])
@pytest.mark.parametrize("by", ["password", "everywhere"])
def test_nothing_agreed_in_a_session_outlives_its_end(cluster, rounds, by):
    """I-14, T068, T073: answers to consent pages, and requests that need none, beside the end of all sessions."""
    server = cluster.server
    apps = [server.add_client(first_party=number >= 4)[0] for number in range(6)]
    seen: Counter[str] = Counter()
    for _ in range(rounds):
        user = new_user(cluster)
        browser = server.browser()
        assert server.sign_in(browser, user.username).status_int == 303
        addresses = [server.authorization_url(app) for app in apps]
        forms = [form_with(browser.get(address), "scope") for address in addresses[:4]]
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}

        def run(number, user=user, addresses=addresses, forms=forms, cookie=cookie):
            process = cluster.processes[number % 2]
            if number < 4:
                fields = forms[number].submit_fields("answer", submit_value="allow")
                return process.post("/oauth/consent", fields, cookie)
            if number < 6:
                return process.get(addresses[number], cookie)
            time.sleep(random.uniform(0, 0.08))
            end_by(by, cluster, user)
            return None

        *answers, _ = at_once(7, run)
        assert {answer.status for answer in answers} <= {303, 400}
        for answer in answers:
            code = "code=" in (answer.headers["Location"] or "")
            seen["code" if code else f"{answer.status}"] += 1
        grants = [row for row in server.rows("grants") if row["user_id"] == user.user_id]
        assert [row for row in grants if row["revoked_at"] is None] == [], seen
        assert [row for row in server.rows("consents") if row["user_id"] == user.user_id] == [], seen
    sys.stdout.write(f"authorizations beside the end of their session: {dict(seen)}\n")
