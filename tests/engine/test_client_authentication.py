"""Client authentication at the token endpoint (OAuth 2.1, 2.4)."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import time_machine

from authserver.engine.clients.authentication import authenticates, disable_client
from authserver.engine.clients.secrets import new_secret, stored_secret
from authserver.engine.errors import Refusal
from authserver.engine.parameters import Parameters
from authserver.engine.records import Client
from authserver.engine.token import authenticate
from authserver.testing.rules import (
    Answer,
    Rules,
    assert_refused,
)
from authserver.testing.server import SETTINGS, basic
from authserver.testing.stories import stored

METHODS = ("client_secret_basic", "client_secret_post", "none")


def ask(rules: Rules, authorization: str | None = None, **form: str) -> Answer:
    """Ask for a token of the client's own with exactly these credentials."""
    body = urlencode({"grant_type": "client_credentials", **form})
    return rules.post("/oauth/token", body, authorization=authorization)


def present(rules: Rules, method: str, client_id: str, secret: str) -> Answer:
    """Ask as a client registered for this method would."""
    match method:
        case "client_secret_basic":
            return ask(rules, basic(client_id, secret))
        case "client_secret_post":
            return ask(rules, client_id=client_id, client_secret=secret)
        case "client_assertion":
            return ask(rules, client_id=client_id, client_assertion="a.b.c")
        case _:
            return ask(rules, client_id=client_id)


def encoded(halves: bytes) -> str:
    return "Basic " + base64.b64encode(halves).decode()


@pytest.fixture
def services(rules: Rules) -> dict[str, tuple[Client, str]]:
    """A client of each method, with a live secret each: a public one's was added to its record."""
    services = {}
    for method in METHODS:
        metadata: dict[str, Any] = {"grant_types": ("client_credentials",)} if method != "none" else {}
        client, secret = rules.add_client(token_endpoint_auth_method=method, **metadata)
        if secret is None:
            secret = add_secret(rules, client)
        services[method] = (client, secret)
    return services


def add_secret(rules: Rules, client: Client, text: str | None = None, **changes: Any) -> str:
    """Give a client one more secret."""
    with rules.begin() as engine:
        secret, kept = new_secret(engine.ring, client.client_id, engine.now)
        if text is not None:
            secret, kept = text, stored_secret(engine.ring, client.client_id, text, engine.now)
        engine.stores.clients.add_secret(client.client_id, replace(kept, **changes))
    return secret


@pytest.mark.parametrize("presented", [*METHODS, "client_assertion"])
@pytest.mark.parametrize("registered", METHODS)
def test_only_the_registered_method_counts(
    rules: Rules, services: dict[str, tuple[Client, str]], registered: str, presented: str
) -> None:
    """J-16, J-01, J-05, T044: a good secret sent another way is no proof, and no secret even less."""
    client, secret = services[registered]
    before = stored(rules)
    answer = present(rules, presented, client.client_id, secret)
    if presented != registered:
        assert_refused(answer, "invalid_client", status=401)
        assert stored(rules) == before
    elif registered == "none":
        assert_refused(answer, "unauthorized_client")  # known, but without this grant type (H-01)
    else:
        assert answer.status_int == 200


@pytest.mark.parametrize("registered", METHODS)
def test_two_methods_at_once_are_refused(
    rules: Rules, services: dict[str, tuple[Client, str]], registered: str
) -> None:
    """J-04, T042: even where both are right, and even one that no policy here serves."""
    client, secret = services[registered]
    client_id = client.client_id
    before = stored(rules)
    for authorization, form in (
        (basic(client_id, secret), {"client_secret": secret}),
        (basic(client_id, secret), {"client_id": client_id, "client_secret": secret}),
        (basic(client_id, secret), {"client_assertion": "a.b.c"}),
        (None, {"client_id": client_id, "client_secret": secret, "client_assertion": "a.b.c"}),
        ("Bearer x", {"client_id": client_id, "client_secret": secret}),
    ):
        assert_refused(ask(rules, authorization, **form), "invalid_request")
    assert stored(rules) == before


def test_another_client_id_in_the_body_is_refused(
    rules: Rules, services: dict[str, tuple[Client, str]]
) -> None:
    """J-06, T043: neither the first nor the second wins (CVE-2026-118669); the same one may be repeated there."""
    client, secret = services["client_secret_basic"]
    before = stored(rules)
    for other in (services["none"][0].client_id, "nobody", client.client_id.upper()):
        answer = ask(rules, basic(client.client_id, secret), client_id=other)
        assert_refused(answer, "invalid_request")
    assert stored(rules) == before
    answer = ask(rules, basic(client.client_id, secret), client_id=client.client_id)
    assert answer.status_int == 200


def test_both_halves_of_basic_are_form_decoded(rules: Rules) -> None:
    """J-02: ids and secrets may hold any character, once encoded."""
    client, _ = rules.add_client(client_id="a:b+c%20d&e", grant_types=("client_credentials",))
    secret = add_secret(rules, client, "s:e+c%r=t &é€" + "x" * 20)
    assert ask(rules, basic(client.client_id, secret)).status_int == 200
    assert ask(rules, basic(client.client_id, secret).replace("Basic", "bAsIc  ")).status_int == 200
    raw = f"{client.client_id}:{secret}".encode()
    assert_refused(ask(rules, encoded(raw)), "invalid_client", status=401)


def test_a_plain_id_and_secret_need_no_encoding(
    rules: Rules, services: dict[str, tuple[Client, str]]
) -> None:
    """J-02: what form-encoding leaves alone is the same either way."""
    client, secret = services["client_secret_basic"]
    assert ask(rules, encoded(f"{client.client_id}:{secret}".encode())).status_int == 200


@pytest.mark.parametrize(
    "spoil",
    [
        lambda right: "",
        lambda right: "Basic",
        lambda right: "Basic ",
        lambda right: right.removeprefix("Basic "),
        lambda right: right.replace("Basic ", "Basic"),
        lambda right: right.replace("Basic ", "Basic\t"),
        lambda right: right[:20] + "*" + right[20:],
        lambda right: right[:20] + "." + right[20:],
        lambda right: right[:20] + " " + right[20:],
        lambda right: right + "=",
        lambda right: right + "==",
        lambda right: right.rstrip("="),
        lambda right: right + ", " + right,
        lambda right: f"{right}, Bearer x",
        lambda right: right + "\xff",
        lambda right: encoded(b"no-colon"),
        lambda right: encoded(b":"),
        lambda right: encoded(b":secret"),
        lambda right: encoded(b"id%zz:secret"),
        lambda right: encoded(b"id:secret%"),
        lambda right: encoded(b"id:%ff"),
        lambda right: encoded(b"id:\xff"),
        lambda right: encoded(b"%00:secret"),
        lambda right: encoded(b"id:\0"),
        lambda right: encoded(b"id:%ed%a0%80"),
        lambda right: "Basic " + "A" * 10_000,
    ],
)
def test_a_malformed_basic_header_is_refused(rules: Rules, spoil: Any) -> None:
    """J-03, T045: strict base64, a colon, well-formed escapes, UTF-8; nothing is skipped or mended."""
    # An id of such a length that the right header ends with padding.
    client, secret = rules.add_client(client_id="service-12", grant_types=("client_credentials",))
    right = basic(client.client_id, secret or "")
    assert right.endswith("=")
    before = stored(rules)
    answer = ask(rules, spoil(right))
    assert_refused(answer, "invalid_client", status=401)
    assert stored(rules) == before


def test_base64_has_one_spelling(rules: Rules) -> None:
    """T045: bits that carry nothing are zero (RFC 4648, 3.5)."""
    client, secret = rules.add_client(client_id="service-12", grant_types=("client_credentials",))
    right = basic(client.client_id, secret or "")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stem = right.rstrip("=")
    other = stem[:-1] + alphabet[alphabet.index(stem[-1]) + 1] + right[len(stem) :]
    assert base64.b64decode(other[6:]) == base64.b64decode(right[6:])
    assert_refused(ask(rules, other), "invalid_client", status=401)
    assert ask(rules, right).status_int == 200


def test_a_secret_can_be_replaced_without_a_gap(rules: Rules) -> None:
    """R-02, J-07: both count until the old one expires, to the second; each is stored as a digest."""
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        client, first = rules.add_client(grant_types=("client_credentials",))
        second = add_secret(rules, client, expires_at=datetime.now(UTC) + timedelta(seconds=60))
        clock.shift(timedelta(seconds=60) - timedelta(microseconds=1))
        for secret in (first, second):
            assert ask(rules, basic(client.client_id, secret or "")).status_int == 200
        clock.shift(timedelta(microseconds=1))
        assert_refused(ask(rules, basic(client.client_id, second)), "invalid_client", status=401)
        assert ask(rules, basic(client.client_id, first or "")).status_int == 200


def test_a_secret_whose_key_left_the_ring_is_wrong(rules: Rules) -> None:
    """J-07, T047: it cannot be compared any more, which is no failure of the server."""
    client, right = rules.add_client(grant_types=("client_credentials",))
    lost = add_secret(rules, client, key_id="gone")
    assert_refused(ask(rules, basic(client.client_id, lost)), "invalid_client", status=401)
    assert ask(rules, basic(client.client_id, right or "")).status_int == 200


def test_a_client_disabled_a_moment_ago_is_refused(rules: Rules) -> None:
    """R-09: from the next request on."""
    client, secret = rules.add_client(grant_types=("client_credentials",))
    assert ask(rules, basic(client.client_id, secret or "")).status_int == 200
    with rules.begin() as engine:
        assert disable_client(engine, client.client_id)
    assert_refused(ask(rules, basic(client.client_id, secret or "")), "invalid_client", status=401)


@pytest.fixture
def only_post(rules: Rules) -> Rules:
    """The same without a policy for Basic."""
    plugins = SETTINGS["authserver.plugins"].replace("client_secret_basic", "")
    return Rules({"authserver.plugins": plugins}, rules.stores)


def test_a_method_without_a_policy_is_refused(rules: Rules, only_post: Rules) -> None:
    """J-05: nobody answered means refused; two methods stay `invalid_request` (T042)."""
    client, secret = rules.add_client(grant_types=("client_credentials",))
    assert ask(rules, basic(client.client_id, secret or "")).status_int == 200
    assert_refused(ask(only_post, basic(client.client_id, secret or "")), "invalid_client", status=401)
    answer = ask(only_post, basic(client.client_id, secret or ""), client_secret=secret or "")
    assert_refused(answer, "invalid_request")


@pytest.mark.parametrize(
    ("authorization", "form", "expected"),
    [
        (None, "", False),
        (None, "client_id=a", False),
        (None, "client_secret=", False),
        (None, "client_secret=x", True),
        (None, "client_assertion=x", True),
        ("Basic x", "", True),
        ("", "client_secret=x&client_assertion=x", True),
    ],
)
def test_a_request_with_any_credential_authenticates(
    authorization: str | None, form: str, expected: bool
) -> None:
    """J-04: right or wrong credentials."""
    assert authenticates(authorization, Parameters.parse(form)) is expected


def test_an_endpoint_of_a_plugin_authenticates_as_the_token_endpoint_does(rules: Rules) -> None:
    """J-05, J-07: `authserver.api.authenticate`."""
    client, secret = rules.add_client(grant_types=("client_credentials",))

    def found_by(authorization: str) -> Client | Refusal:
        return rules.at(
            "device", lambda engine: authenticate(engine, Parameters.of(())), authorization=authorization
        )

    found = found_by(basic(client.client_id, secret or ""))
    assert isinstance(found, Client)
    assert found.client_id == client.client_id
    refused = found_by(basic(client.client_id, "wrong"))
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.status) == ("invalid_client", 401)
