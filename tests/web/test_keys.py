"""Signing keys through the whole server, on both databases: what is published, accepted and refused."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
import time_machine

from authserver.engine.keys import signing_keys
from authserver.engine.keys.signing_keys import CannotChange
from authserver.settings import SettingsError
from authserver.testing.server import SETTINGS

SECOND = timedelta(seconds=1)


@pytest.fixture
def make(make_server, database_url):
    """Make a server on one database: the next process of the same installation."""

    def make(**settings):
        changes = {f"authserver.{name}": value for name, value in settings.items()}
        return make_server(changes, database_url=database_url)

    return make


@pytest.fixture
def server(make):
    server = make()
    server.add_user("ann")
    return server


def change(server, rule, *arguments, **options):
    """Change the keys as the command line does, and let this process read them."""
    with server.application.begin() as engine:
        changed = rule(engine, *arguments, **options)
    server.application.parts.signer.load()
    return changed


def kid_of(token):
    header = token.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]


def issued(server, client, secret):
    return server.token(client, secret, grant_type="client_credentials").json["access_token"]


def published(server):
    return [key["kid"] for key in server.http.get("/oauth/jwks").json["keys"]]


def add_service(server, client_id):
    return server.add_client(client_id=client_id, grant_types=("client_credentials",))


@pytest.mark.parametrize("seconds", [1, 3600])
def test_the_keys_may_be_kept_for_as_long_as_the_setting_says(make, seconds):
    """A-19, T144: and a new key is published for longer than that before it signs."""
    server = make(jwks_maximum_age=str(seconds))
    answer = server.http.get("/oauth/jwks")
    assert answer.headers["Cache-Control"] == f"public, max-age={seconds}"
    new = change(server, signing_keys.rotate).new
    assert new.activates_at - new.created_at > timedelta(seconds=seconds + 10)
    # The metadata has an age of its own.
    metadata = server.http.get("/.well-known/oauth-authorization-server")
    assert metadata.headers["Cache-Control"] == "public, max-age=300"


def test_a_token_is_good_until_its_key_ends(server):
    """R-06, N-07, T144: through the whole life of a key, by the clock alone."""
    api, api_secret = server.add_client(client_id="api", grant_types=("client_credentials",))
    client, secret = add_service(server, "reports")
    old = issued(server, client, secret)
    rotation = change(server, signing_keys.rotate)
    assert published(server) == [kid_of(old), rotation.new.kid]
    assert kid_of(issued(server, client, secret)) == kid_of(old)
    with time_machine.travel(rotation.new.activates_at + SECOND, tick=False):
        server.application.parts.signer.load()
        last = rotation.old
        assert published(server) == [kid_of(old), rotation.new.kid]
        new = issued(server, client, secret)
        assert kid_of(new) == rotation.new.kid
        for token in (old, new):
            assert server.introspect(api, api_secret, token).json["active"] is True
    with time_machine.travel(last.ends_at, tick=False):
        server.application.parts.signer.load()
        assert published(server) == [rotation.new.kid]
        assert server.introspect(api, api_secret, old).json == {"active": False}


def test_a_token_of_a_revoked_key_counts_nowhere(server):
    """R-06, T144: introspection, also by its own client, and revocation, which would tell a live one apart."""
    api, api_secret = server.add_client(client_id="api", grant_types=("client_credentials",))
    client, secret = add_service(server, "reports")
    token = issued(server, client, secret)
    assert server.introspect(api, api_secret, token).json["active"] is True

    change(server, signing_keys.revoke, kid_of(token), reason="stolen")

    assert kid_of(token) not in published(server)
    for caller in ((api, api_secret), (client, secret)):
        answer = server.introspect(*caller, token)
        assert (answer.status_int, answer.json) == (200, {"active": False})
    before = server.rows("grants")
    assert server.revoke(client, secret, token).status_int == 200
    assert server.rows("grants") == before
    # The client asks again, and is served by the new key at once.
    fresh = issued(server, client, secret)
    assert kid_of(fresh) == published(server)[0]
    assert server.introspect(api, api_secret, fresh).json["active"] is True


def test_refresh_tokens_and_codes_survive_the_loss_of_a_key(server):
    """T144: they are no JWTs, so people need not sign in again."""
    client, secret = server.add_client()
    tokens = server.redeem(client, secret, server.code(client)).json
    code = server.code(client)
    change(server, signing_keys.revoke, kid_of(tokens["access_token"]), reason="stolen")
    refreshed = server.refresh(client, secret, tokens["refresh_token"])
    assert refreshed.status_int == 200
    assert kid_of(refreshed.json["access_token"]) == published(server)[0]
    assert server.redeem(client, secret, code).status_int == 200


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
def test_a_new_algorithm_waits_until_its_key_can_be_known(make, algorithm):
    """N-06, N-07, T144: the setting is changed, the server restarted, and nobody meets an unknown key."""
    before = make()
    client, secret = add_service(before, "reports")
    old = issued(before, client, secret)
    after = make(signing_algorithm=algorithm)
    assert published(after) == published(make(signing_algorithm=algorithm))
    assert [key["alg"] for key in after.http.get("/oauth/jwks").json["keys"]] == ["ES256", algorithm]
    assert kid_of(issued(after, client, secret)) == kid_of(old)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=316), tick=False):
        after.application.parts.signer.load()
        new = issued(after, client, secret)
        assert kid_of(new) == published(after)[1]
        for token in (old, new):
            assert after.claims(token)["client_id"] == "reports"


def test_8_rotations_at_once_are_one(server):
    """T113, T144: the others are told who is staged until when, and leave nothing."""
    barrier = Barrier(8)

    def rotate(_):
        barrier.wait(timeout=30)
        try:
            with server.application.begin() as engine:
                return signing_keys.rotate(engine).new.kid
        except CannotChange as error:
            return error

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(rotate, range(8)))

    (kid,) = [answer for answer in answers if isinstance(answer, str)]
    refusals = [answer for answer in answers if isinstance(answer, CannotChange)]
    assert len(refusals) == 7
    assert all(f"{kid} is staged already, and signs from" in str(refusal) for refusal in refusals)
    assert len(server.rows("signing_keys")) == 2
    assert len(server.events("key.created")) == 2


def test_a_rotation_that_waited_for_another_is_told_of_it(server):
    """T113, T144: it saw the keys before the other committed."""

    def rotate():
        with server.application.begin() as engine:
            signing_keys.rotate(engine)

    with ThreadPoolExecutor(1) as threads:
        with server.application.begin() as engine:
            new = signing_keys.rotate(engine).new
            second = threads.submit(rotate)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
        with pytest.raises(CannotChange, match=f"{new.kid} is staged already"):
            second.result(timeout=30)
    assert len(server.rows("signing_keys")) == 2


def test_8_first_starts_at_once_note_one_ring_and_make_one_key(make, database_url):
    """T113, T148: and all of them serve."""
    ring = f"{SETTINGS['authserver.secret_keys']} second:{base64.b64encode(bytes(range(32))).decode()}"
    barrier = Barrier(8)

    def start(_):
        barrier.wait(timeout=30)
        return make(secret_keys=ring)

    with ThreadPoolExecutor(8) as threads:
        servers = list(threads.map(start, range(8)))

    assert len({tuple(published(server)) for server in servers}) == 1
    assert len(servers[0].rows("signing_keys")) == len(servers[0].events("key.created")) == 1
    assert sorted(row["key_id"] for row in servers[0].rows("ring_keys")) == ["second", "test"]


def test_a_server_does_not_start_with_another_key_of_the_same_name(make):
    """T148: on a database where anything was ever sealed; it names the key and what needs it."""
    server = make()
    add_service(server, "reports")
    before = server.rows("ring_keys"), server.rows("signing_keys"), server.rows("events")
    with pytest.raises(SettingsError) as refused:
        make(secret_keys=f"test:{base64.b64encode(bytes(range(32))).decode()}")
    (problem,) = refused.value.problems
    assert problem.startswith("authserver.secret_keys: test is not the key that has had this id here since")
    assert "needed by 1 signing key and 1 client secret" in problem
    assert before == (server.rows("ring_keys"), server.rows("signing_keys"), server.rows("events"))


def test_a_server_does_not_start_without_a_key_that_is_needed(make):
    """T148: half a rotation of the ring is noticed at once, not when the first client is refused."""
    server = make()
    add_service(server, "reports")
    with pytest.raises(SettingsError) as refused:
        make(secret_keys=f"new:{base64.b64encode(bytes(range(32))).decode()}")
    (problem,) = refused.value.problems
    assert problem.startswith(
        "authserver.secret_keys: key test is missing, and is needed by 1 signing key and"
    )


def test_a_copy_of_the_database_holds_no_private_key(server):
    """R-04, T040: not in any column of any table, for any algorithm."""
    private = []
    for algorithm in ("ES256", "RS256", "EdDSA"):
        new = change(server, signing_keys.rotate, algorithm=algorithm).new
        with server.application.begin() as engine:
            private.append(signing_keys.open_private(engine.ring, new)["d"])
    everything = repr([server.rows(table) for table in ("signing_keys", "ring_keys", "events")])
    assert len(private) == 3
    assert not any(part in everything for part in private)
