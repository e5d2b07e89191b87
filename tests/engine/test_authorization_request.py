"""How an authorization request travels on: whole, or with what its refusal needs."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from authserver.engine.authorization_request import Expanded, carried
from authserver.engine.errors import InvalidRequest
from authserver.engine.parameters import Parameters

SENT = {"client_id": "web", "redirect_uri": "https://app.example/cb", "state": "xyz", "scope": "profile"}
OF_A_REFUSAL = ("client_id", "redirect_uri", "state")


def expanded(sent: bytes, refusal: InvalidRequest | None = None) -> Expanded:
    return Expanded(parameters=Parameters.parse_readable(sent), request_id="pushed", refusal=refusal)


def encoded(**sent: str) -> bytes:
    return urlencode(sent).encode()


def test_a_request_that_can_be_carried_is_carried_whole() -> None:
    whole = expanded(encoded(**SENT))
    assert carried(whole, len(encoded(**SENT))) is whole


def test_of_a_request_that_is_too_long_its_refusal_is_carried() -> None:
    """T137: by one character; the client gets the refusal with its state."""
    short = carried(expanded(encoded(**SENT)), len(encoded(**SENT)) - 1)
    assert dict(short.parameters.pairs()) == {name: SENT[name] for name in OF_A_REFUSAL}
    assert short.request_id == "pushed"
    assert short.refusal
    assert (short.refusal.description, short.refusal.reason) == (
        "The request is too long.",
        "request-too-long",
    )


def test_of_a_request_that_cannot_be_read_its_refusal_is_carried() -> None:
    """B-25.b"""
    short = carried(expanded(encoded(**SENT) + b"&resource=%FF"), 4000)
    assert dict(short.parameters.pairs()) == {name: SENT[name] for name in OF_A_REFUSAL}
    assert short.refusal
    assert "UTF-8" in short.refusal.description


@pytest.mark.parametrize(
    "state",
    [b"&state=%FF", b"&state=a&state=b", b"&state=" + "é".encode(), b"&state=" + b"s" * 4000],
    ids=["unreadable", "repeated", "beyond ASCII", "long"],
)
def test_a_state_that_cannot_come_back_is_left_out(state: bytes) -> None:
    """B-25.b: nor is it taken for another one."""
    sent = {name: SENT[name] for name in ("client_id", "redirect_uri")}
    short = carried(expanded(encoded(**sent) + state + b"&scope=%FF"), 4000)
    assert dict(short.parameters.pairs()) == sent
    assert "state" not in short.parameters


def test_an_earlier_refusal_comes_first() -> None:
    refusal = InvalidRequest("The plugin refuses.")
    assert carried(expanded(encoded(**SENT), refusal), 10).refusal is refusal
