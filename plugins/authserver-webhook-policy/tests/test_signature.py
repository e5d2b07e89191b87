"""What a receiver can rely on."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from listener import SECRET, Listener

from authserver.testing.questions import a_question
from authserver_webhook_policy import WebhookPolicy
from authserver_webhook_policy.signature import BadSignature, key_of, sign, verify

NOW = 1614265330
BODY = b'{"test": 2432232314}'
OTHER = "whsec_b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI="


def signed(body: bytes = BODY, now: float = NOW) -> dict[str, str]:
    return sign(key_of(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", body, now)


def test_it_is_the_signature_of_standard_webhooks() -> None:
    """The published example: whoever has a library for that specification needs nothing of ours."""
    assert signed()["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_request_of_ours_verifies_and_says_its_id() -> None:
    assert verify(SECRET, signed(), BODY, now=NOW + 1) == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    shouting = {name.upper(): text for name, text in signed().items()}
    assert verify(SECRET.removeprefix("whsec_"), shouting, BODY, now=NOW)


@pytest.mark.parametrize("late", [-300, 0, 300])
def test_within_the_window_it_is_new(late: int) -> None:
    assert verify(SECRET, signed(), BODY, now=NOW + late)


@pytest.mark.parametrize("late", [-301, 301, 86400])
def test_outside_the_window_it_is_a_repetition(late: int) -> None:
    with pytest.raises(BadSignature, match="too old, or from the future"):
        verify(SECRET, signed(), BODY, now=NOW + late)


def test_without_a_time_the_clock_decides() -> None:
    with pytest.raises(BadSignature, match="too old"):
        verify(SECRET, signed(), BODY)
    assert verify(SECRET, signed(now=time.time()), BODY)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("webhook-id", "msg_other"),
        ("webhook-timestamp", str(NOW + 1)),
        ("webhook-signature", "v1,"),
        ("webhook-signature", ""),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OF="),
        ("webhook-signature", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ("webhook-signature", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ("webhook-signature", "v1,\u00e9"),
    ],
)
def test_whatever_is_changed_is_noticed(name: str, text: str) -> None:
    with pytest.raises(BadSignature, match="no signature matches"):
        verify(SECRET, {**signed(), name: text}, BODY, now=NOW)


def test_a_changed_body_and_another_secret_are_noticed() -> None:
    with pytest.raises(BadSignature):
        verify(SECRET, signed(), BODY + b" ", now=NOW)
    with pytest.raises(BadSignature):
        verify(OTHER, signed(), BODY, now=NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = signed()
    del headers[name]
    with pytest.raises(BadSignature, match=name):
        verify(SECRET, headers, BODY, now=NOW)


@pytest.mark.parametrize("timestamp", ["", "now", "-1", "1614265330.5", "\u0661", "9" * 400])
def test_a_signed_time_that_is_none_is_refused(timestamp: str) -> None:
    """Whoever holds the secret may make mistakes too."""
    from authserver_webhook_policy import signature

    text = "v1," + signature._signature(key_of(SECRET), "msg_1", timestamp, BODY)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": timestamp, "webhook-signature": text}
    with pytest.raises(BadSignature, match="is not a time"):
        verify(SECRET, headers, BODY, now=NOW)


def test_while_a_secret_changes_either_signature_will_do() -> None:
    """A proxy that signs with both."""
    mine, other = signed(), sign(key_of(OTHER), "msg_p5jXN8AQM9LWM0D4loKWxJek", BODY, NOW)
    both = {**mine, "webhook-signature": f"{other['webhook-signature']} {mine['webhook-signature']}"}
    assert verify(SECRET, both, BODY, now=NOW) and verify(OTHER, both, BODY, now=NOW)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "not base64!", "whsec_" + "QUFB" * 22, "\u00e9"]
)
def test_a_secret_that_is_none_says_how_to_make_one(secret: str) -> None:
    with pytest.raises(ValueError, match="openssl rand -base64 32"):
        key_of(secret)


def test_every_request_verifies_and_none_has_the_id_of_another(
    endpoint: Listener, make_policy: Callable[..., WebhookPolicy]
) -> None:
    """So a receiver may refuse what it has seen before: retries are requests of their own."""
    from listener import sending

    endpoint.script = [sending(503)]
    policy = make_policy(retries=1)
    for _ in range(2):
        policy.redirect_uri_decision(question=a_question("redirect_uri_decision"))
    assert len(endpoint.received) == 3
    assert len({verify(SECRET, item.headers, item.body) for item in endpoint.received}) == 3
