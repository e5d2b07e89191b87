"""The clock is set an hour forward or back, or two processes disagree: what ended stays ended, what works goes on.

Between steps the clock stands still, so that a test says exactly when things happen.
"""

from __future__ import annotations

import ast
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
import time_machine

from authserver import upkeep
from authserver.engine.clients import secrets
from authserver.engine.errors import InvalidGrant
from authserver.engine.keys import signing_keys
from authserver.engine.records import KeyState
from authserver.engine.tokens.assertions import SKEW, single_use
from authserver.engine.tokens.once import claim
from authserver.features.upstream import tokens
from authserver.storage.columns import UtcDateTime
from authserver.storage.tables import Base
from authserver.testing.records import NOW, a_client, a_signing_key
from authserver.testing.server import Server, form_with, query_of
from authserver.testing.stories import is_signed_in, signed_in

PACKAGE = Path(upkeep.__file__).parent
HOUR = timedelta(hours=1)
APART = timedelta(seconds=30)
STEPS = [HOUR, -HOUR]

both_ways = pytest.mark.parametrize("step", STEPS, ids=["forward", "back"])


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(datetime.now(UTC).replace(microsecond=0), tick=False) as traveller:
        yield traveller


@pytest.fixture
def server(sqlite_url: str, clock: time_machine.Traveller) -> Iterator[Server]:
    settings = {
        "authserver.opaque_resources": "https://files.example/",
        "authserver.access_token_lifetime": "3600",
    }
    server = Server(sqlite_url, settings)
    server.add_user("ann")
    yield server
    server.close()


def refused(answer) -> bool:
    assert answer.status_int in (200, 400), answer.text
    return answer.status_int == 400 and answer.json["error"] == "invalid_grant"


@both_ways
def test_a_used_code_stays_used(server, clock, step):
    """T150, T032: and whoever brings it again is a replay, whatever the clock says."""
    client, secret = server.add_client()
    code = server.code(client)
    assert server.redeem(client, secret, code).status_int == 200
    clock.shift(step)
    assert refused(server.redeem(client, secret, code))
    assert server.rows("grants")[0]["revoked_reason"] == ("code-replayed")


def test_an_expired_code_has_its_60_seconds_by_the_clock_on_the_wall(server, clock):
    """T150, T037: a clock that was an hour ahead for a while takes nothing from anybody, and gives nothing."""
    client, secret = server.add_client()
    code = server.code(client)
    clock.shift(HOUR)
    assert refused(server.redeem(client, secret, code))
    clock.shift(-HOUR + timedelta(seconds=60))
    assert refused(server.redeem(client, secret, code))
    clock.shift(timedelta(seconds=-1))
    assert server.redeem(client, secret, code).status_int == 200


@both_ways
@pytest.mark.parametrize(
    "resource", ["https://api.example/", "https://files.example/"], ids=["jwt", "opaque"]
)
def test_a_revoked_token_stays_revoked(server, clock, step, resource):
    """T150, T074: the access token of either kind and the refresh token, at every endpoint."""
    client, secret = server.add_client()
    code = server.code(client, scope="files.read", resource=resource)
    tokens = server.redeem(client, secret, code).json
    assert server.revoke(client, secret, tokens["refresh_token"]).status_int == 200
    clock.shift(step)
    for name in ("access_token", "refresh_token"):
        assert server.introspect(client, secret, tokens[name]).json == {"active": False}
    assert refused(server.refresh(client, secret, tokens["refresh_token"]))


@both_ways
@pytest.mark.parametrize(
    "resource", ["https://api.example/", "https://files.example/"], ids=["jwt", "opaque"]
)
def test_what_lives_longer_than_the_step_goes_on(server, clock, step, resource):
    """T150: nobody is signed out because a clock is put right."""
    client, secret = server.add_client()
    browser = signed_in(server)
    code = server.code(client, browser, scope="files.read", resource=resource)
    tokens = server.redeem(client, secret, code).json
    clock.shift(step * 0.5)
    assert is_signed_in(server, browser)
    assert server.introspect(client, secret, tokens["access_token"]).json["active"] is True
    assert server.refresh(client, secret, tokens["refresh_token"]).status_int == 200


def test_the_retry_window_does_not_open_again(server, clock):
    """T150, I-08, T066: an hour back, a rotated refresh token is a copy, not a retry."""
    client, secret = server.add_client()
    first = server.redeem(client, secret, server.code(client)).json["refresh_token"]
    second = server.refresh(client, secret, first).json["refresh_token"]
    clock.shift(-HOUR)
    assert refused(server.refresh(client, secret, first))
    assert server.rows("grants")[0]["revoked_reason"] == "refresh-token-reused"
    assert refused(server.refresh(client, secret, second))


@both_ways
def test_a_session_that_was_ended_stays_ended(server, clock, step):
    """T150, E-17: its cookie is of no use at any time."""
    browser = signed_in(server)
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    form_with(browser.get("/"), "csrf_token").submit()
    clock.shift(step)
    assert not is_signed_in(server, server.browser(), cookie=cookie)


def test_a_request_that_was_answered_is_not_answered_again(server, clock):
    """T150, E-05.a: also when the clean-up ran while the clock was an hour ahead."""
    client, _ = server.add_client(token_endpoint_auth_method="none")
    browser = signed_in(server)
    page = browser.get(server.authorization_url(client))
    code = query_of(server.consent(page))["code"]
    assert query_of(server.consent(page))["code"] == code, "the same for seconds, until the code arrives"
    assert server.redeem(client, None, code).status_int == 200
    again = server.consent(page)
    assert (again.status_int, "answered already" in again.text) == (400, True)
    clock.shift(HOUR)
    clean_up(server)
    assert "expired" in server.consent(page).text
    clock.shift(-HOUR)
    assert "answered already" in server.consent(page).text
    clock.shift(-HOUR)
    assert "answered already" in server.consent(page).text


def test_a_used_assertion_is_not_used_again(server, clock):
    """T150, T051, R-11: its mark outlives a clean-up by a clock that is an hour ahead."""
    now = int(time.time())
    claims = {"iss": "https://issuer.example", "jti": "one", "iat": now, "exp": now + 300}

    def used() -> bool:
        try:
            with server.application.begin() as engine:
                refusal = InvalidGrant("It was used.")
                claim(engine, a_client(), single_use(claims, lifetime=300, refusal=refusal))
        except InvalidGrant:
            return False
        return True

    assert [used(), used()] == [True, False]
    clock.shift(HOUR)
    clean_up(server)
    clock.shift(-HOUR)
    assert not used()


def clean_up(server) -> None:
    storage, parts = server.application.storage, server.application.parts
    before = upkeep.cutoffs(parts.settings, datetime.now(UTC))
    assert list(upkeep.remove_all(storage, parts.ring, before, lambda seconds: None))


def test_a_clean_up_an_hour_ahead_takes_nothing_that_is_alive(server, clock):
    """T150: an hour later by mistake, everything is still there when the clock is right again."""
    client, secret = server.add_client()
    browser = signed_in(server)
    tokens = server.redeem(client, secret, server.code(client, browser)).json
    code = server.code(client, browser)
    clock.shift(HOUR)
    clean_up(server)
    clock.shift(-HOUR)
    assert is_signed_in(server, browser)
    assert server.redeem(client, secret, code).status_int == 200
    assert server.introspect(client, secret, tokens["access_token"]).json["active"] is True


@both_ways
def test_a_client_secret_that_was_ended_stays_ended(server, clock, step):
    """T150, R-05: an operator ends one that leaked; a clock does not bring it back."""
    client, leaked = server.add_client(grant_types=("client_credentials",))
    clock.shift(HOUR * 2)
    with server.application.begin() as engine:
        other = secrets.rotate_secret(engine, client.client_id, timedelta())
    clock.shift(step)
    answers = [server.token(client, text, grant_type="client_credentials") for text in (leaked, other)]
    assert [answer.status_int for answer in answers] == [401, 200]


def test_a_client_secret_ends_by_the_clock_on_the_wall(server, clock):
    """T150, R-05: the end of an overlap is a time, to the moment."""
    client, first = server.add_client(grant_types=("client_credentials",))
    with server.application.begin() as engine:
        secrets.rotate_secret(engine, client.client_id, HOUR)
    statuses = []
    for shift in (HOUR - timedelta(seconds=1), timedelta(seconds=1), -HOUR):
        clock.shift(shift)
        statuses.append(server.token(client, first, grant_type="client_credentials").status_int)
    assert statuses == [200, 401, 200]


@pytest.mark.parametrize("offset", [timedelta(0), HOUR, -HOUR, timedelta(days=-3650)])
def test_a_signing_key_that_was_given_up_stays_given_up(offset):
    """T150, R-06: whatever time it is."""
    key = a_signing_key(sealed_private_jwk=None, retires_at=NOW, ends_at=NOW)
    assert key.state(NOW + offset) is KeyState.REMOVED


@both_ways
def test_a_token_of_a_revoked_key_stays_invalid(server, clock, sqlite_url, step):
    """T150, R-06: also for a process that starts after the step."""
    client, secret = server.add_client()
    clock.shift(HOUR * 2)
    token = server.redeem(client, secret, server.code(client)).json["access_token"]
    (kid,) = [key["kid"] for key in server.http.get("/oauth/jwks").json["keys"]]
    with server.application.begin() as engine:
        signing_keys.revoke(engine, kid, reason="stolen")
    clock.shift(step)
    started_later = Server(sqlite_url)
    try:
        assert started_later.introspect(client, secret, token).json == {"active": False}
        published = [key["kid"] for key in started_later.http.get("/oauth/jwks").json["keys"]]
        assert published and kid not in published
        fresh = started_later.redeem(client, secret, started_later.code(client))
        assert started_later.claims(fresh.json["access_token"])["iss"] == started_later.issuer
    finally:
        started_later.close()


@pytest.mark.parametrize("back", [HOUR, timedelta(days=400)], ids=["hour", "year"])
def test_a_server_that_was_installed_in_the_future_signs(server, clock, sqlite_url, back):
    """T150: the clock is put right after the first start; nobody waits until the first key is active by its times."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    clock.shift(-back)
    started_later = Server(sqlite_url)
    try:
        answer = started_later.token(client, secret, grant_type="client_credentials")
        assert answer.status_int == 200, answer.text
        assert started_later.claims(answer.json["access_token"])["iat"] == int(time.time())
    finally:
        started_later.close()


@pytest.mark.parametrize("ahead", ["first", "second"])
def test_two_processes_30_seconds_apart_serve_one_story(database_url, clock, ahead):
    """T150: whichever of them is ahead, what one gives out the other one takes."""
    first, second = Server(database_url), Server(database_url)
    here = datetime.now(UTC)

    def at(server: Server) -> Server:
        clock.move_to(here + (APART if server is {"first": first, "second": second}[ahead] else timedelta()))
        return server

    try:
        at(first).add_user("ann")
        client, secret = first.add_client()
        browser, other = first.browser(), second.browser()
        first.sign_in(browser)
        other.cookiejar = browser.cookiejar
        assert is_signed_in(at(second), other)
        page = at(first).browser().get(first.authorization_url(client))
        assert page.status_int == 303
        code = at(first).code(client, browser)
        tokens = at(second).redeem(client, secret, code).json
        assert at(first).introspect(client, secret, tokens["access_token"]).json["active"] is True
        rotated = at(first).refresh(client, secret, tokens["refresh_token"]).json["refresh_token"]
        if ahead == "first":
            # For the process behind, that was in the future: a retry, not a copy.
            again = at(second).refresh(client, secret, tokens["refresh_token"])
            assert again.json["refresh_token"] == rotated
        assert at(second).refresh(client, secret, rotated).status_int == 200
    finally:
        first.close()
        second.close()


def test_a_process_an_hour_ahead_ends_nothing_for_the_others(database_url, clock):
    """T150: what it thinks is expired it refuses, and that is all: no row changes."""
    right, wrong = Server(database_url), Server(database_url)
    here = datetime.now(UTC)
    try:
        right.add_user("ann")
        client, secret = right.add_client()
        browser = signed_in(right)
        code = right.code(client, browser)
        clock.move_to(here + HOUR)
        assert refused(wrong.redeem(client, secret, code))
        clock.move_to(here)
        assert right.redeem(client, secret, code).status_int == 200
    finally:
        right.close()
        wrong.close()


def test_the_allowance_for_the_clocks_of_others_is_30_seconds():
    """R-11: at least 10 and at most 60; for what others signed, and for the clock of the database."""
    assert timedelta(seconds=10) <= SKEW <= timedelta(seconds=60)
    # A feature sees the API alone, so it has a name of its own for the same.
    assert tokens.SKEW == SKEW
    # MAXIMUM_SKEW is something else: what operators may say of one issuer.
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\bSKEW\b", path.read_text())
    }
    assert users == {
        "engine/tokens/assertions.py",
        "cli/installation.py",
        "features/upstream/ending.py",
        "features/upstream/tokens.py",
    }


def test_every_time_in_the_database_is_an_instant(database):
    """R-11, T150: aware in Python, UTC in SQLite, with a time zone in PostgreSQL; no column is left out."""
    columns = [
        column
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if column.name.endswith("_at") or column.name == "at" or isinstance(column.type, sa.DateTime)
    ]
    assert len(columns) > 20
    assert [str(column) for column in columns if not isinstance(column.type, UtcDateTime)] == []
    if database.engine.dialect.name == "postgresql":
        question = "SELECT DISTINCT data_type FROM information_schema.columns WHERE data_type LIKE 'timestamp%' AND table_schema = 'public'"
        with database.engine.connect() as connection:
            found = connection.execute(sa.text(question)).scalars().all()
            zone = connection.execute(sa.text("SHOW timezone")).scalar_one()
        assert (found, zone) == (["timestamp with time zone"], "UTC")


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns", "Asia/Kolkata"])
def test_the_time_zone_of_the_machine_does_not_matter(database_url, zone):
    """R-11, T150: the same database, served by machines that think it is another day."""
    client = secret = code = None
    utc = Server(database_url)
    try:
        utc.add_user("ann")
        client, secret = utc.add_client()
        code = utc.code(client)
        with machine_in(zone):
            elsewhere = Server(database_url)
            try:
                tokens = elsewhere.redeem(client, secret, code).json
                assert abs(elsewhere.claims(tokens["access_token"])["iat"] - time.time()) < 30
                other = elsewhere.code(client)
            finally:
                elsewhere.close()
        assert utc.introspect(client, secret, tokens["access_token"]).json["active"] is True
        assert utc.redeem(client, secret, other).status_int == 200
    finally:
        utc.close()


class machine_in:  # noqa: N801 - reads as what it does
    """Live in this time zone."""

    def __init__(self, zone: str) -> None:
        self._zone, self._before = zone, os.environ.get("TZ")

    def __enter__(self) -> None:
        self._set(self._zone)

    def __exit__(self, *_error: object) -> None:
        self._set(self._before)

    def _set(self, zone: str | None) -> None:
        os.environ.pop("TZ", None)
        if zone is not None:
            os.environ["TZ"] = zone
        time.tzset()


# Who reads the clock on the wall: where requests, commands and background work begin, and who makes an engine's `now`.
READ_THE_CLOCK = {
    "app.py",
    "plugins/shadow.py",
    "upkeep.py",
    "event_readers.py",
    "engine/keys/following.py",
    # The library that counts there does it by the same clock; nothing but a rate depends on it.
    "features/rate_limits.py",
    # When a refusal came that is counted with others, before there is a request's own time.
    "web/refusals.py",
    # waitress notes by the clock when a connection was last heard of, and what is compared with that must, too.
    "web/connections.py",
    # How old a sign-in is: a policy is asked without a time.
    "features/step_up.py",
    "features/openid/sign_in.py",
    # A question between two of our processes expires; it belongs to no request of a client.
    "web/limits.py",
    # It works in the background, where no request has a time: for how long a stranger's counts are kept.
    "engine/counting.py",
    # How old a signing key is when its figures are read.
    "features/metrics.py",
    # When a request to an endpoint was signed.
    "features/webhook_events.py",
    # By how much the clock of another server differs.
    "doctor/wire.py",
}


def test_rules_have_one_clock_and_waiting_has_another():
    """House rule 7, T150: no rule reads the clock on the wall, no wait depends on it, and no time is without a zone."""
    readers, naive = set(), []
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(("cli/", "testing/")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called = ast.unparse(node.func)
            if called in ("datetime.now", "time.time", "time.time_ns"):
                readers.add(name)
            if called in ("datetime.utcnow", "datetime.utcfromtimestamp", "time.localtime"):
                naive.append(f"{name}: {called}")
            if called in ("datetime.now", "datetime.fromtimestamp") and ast.unparse(node).count("UTC") == 0:
                naive.append(f"{name}: {ast.unparse(node)}")
    assert naive == []
    assert readers <= READ_THE_CLOCK
