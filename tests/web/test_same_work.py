"""What must not be told apart by time costs the same: the same statements, and the same work of cryptography.

Counted, not measured; `make timing` measures. What is counted is every call of a function of `engine.crypto`, and of what
these call that is written in C.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlencode

import pytest
from webtest import TestResponse

import authserver.engine.crypto
from authserver.engine.crypto import digests
from authserver.engine.people.login import disable_user
from authserver.testing.plans import transcript_of
from authserver.testing.server import Server, basic, forged, form_with, with_plugin
from tests.client_keys import ABSENT, ASSERTION_TYPE, Key

CRYPTO = str(Path(authserver.engine.crypto.__file__).parent)
# One hash with the parameters of today, and what is around it where there is none to compare it with.
ARGON2 = ("verify_password verify_phc_encoded", "hash_password derive_phc_encoded")
AROUND = frozenset(
    {
        "_as_bytes",
        "_as_bytes isinstance",
        "_as_bytes encode",
        "hash_password",
        "hash_password len",
        "verify_password fullmatch",
    }
)
MASKING = ("may_hold_credential", "masked")
Work = tuple[list[str], Counter[str]]


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """The calls of this thread."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        # What is recorded of a question is looked through for credentials, which is no cryptography.
        if not frame.f_code.co_filename.startswith(CRYPTO) or frame.f_code.co_name in MASKING:
            return
        if event == "call":
            calls[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            calls[f"{frame.f_code.co_qualname} {argument.__name__}"] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def work_of(server: Server, send: Callable[[], TestResponse], status: int) -> Work:
    """What a request costs that is answered with this status."""
    with transcript_of(server.application) as seen, counted() as calls:
        answer = send()
    assert answer.status_int == status, answer.text
    assert calls, "the request needs cryptography"
    return seen, calls


def with_checksum(text: str) -> str:
    return text + digests.checksum(text)


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_wrong_secret_costs_as_much_whoever_it_is_for(server: Server, path: str, method: str) -> None:
    """T047, T048, J-07: of a client that there is or is not, disabled or not; right but for the last character or not at all."""
    _client, secret = server.add_client(client_id="known", token_endpoint_auth_method=method)
    server.add_client(client_id="gone", token_endpoint_auth_method=method)
    with server.begin() as engine:
        engine.stores.clients.disable("gone", engine.now)
    assert secret is not None
    nearly = secret[:-7] + ("A" if secret[-7] != "A" else "B")
    wrong = {
        "known": forged("as_secret_"),
        "unknown": forged("as_secret_"),
        "gone": forged("as_secret_"),
    }
    cases = [*wrong.items(), ("known", with_checksum(nearly)), ("k" * 5, forged("as_secret_"))]
    works = []
    for client_id, text in cases:

        def send(client_id: str = client_id, text: str = text) -> TestResponse:
            if method == "client_secret_basic":
                return server.post(path, "token=x", authorization=basic(client_id, text))
            return server.post(path, f"token=x&client_id={client_id}&client_secret={text}")

        works.append(work_of(server, send, 401))
    assert works == [works[0]] * len(works)
    assert works[0][0] == ["SELECT clients", "INSERT events"]
    assert works[0][1]["equal compare_digest"] == 1


@pytest.mark.parametrize("named", [True, False], ids=["key named", "key not named"])
def test_a_wrong_assertion_costs_as_much_whoever_it_is_for(
    make_server: Callable[..., Server], named: bool
) -> None:
    """T047, J-07: of a client that there is or is not, disabled or not, for somebody who has none of its keys."""
    server, key, another = make_server(with_plugin("private_key_jwt", {})), Key(), Key()
    for client_id in ("known", "gone"):
        key.client(server, client_id=client_id, details={"jwks": key.jwks(kid=ABSENT)})
    with server.begin() as engine:
        engine.stores.clients.disable("gone", engine.now)

    def send(client_id: str) -> TestResponse:
        header = another.header() if named else another.header(kid=ABSENT)
        text = another.signed(header, another.claims(client_id))
        form = {"client_assertion": text, "client_assertion_type": ASSERTION_TYPE}
        return server.post("/oauth/token", urlencode({"grant_type": "client_credentials", **form}))

    send("known"), send("unknown")  # Keys are read once.
    works = [work_of(server, partial(send, client_id), 401) for client_id in ("known", "unknown", "gone")]
    assert works == [works[0]] * 3
    assert works[0][1]["ForeignKey.verifies"] == (0 if named else 1)


def test_a_wrong_password_costs_as_much_whoever_it_is_for(server: Server) -> None:
    """T100: of somebody who is known or not, has a password or not, is disabled or not; one hash, as hard as any."""
    server.add_user("carl", password=None)
    server.add_user("dora")
    with server.begin() as engine:
        assert disable_user(engine, "dora")
    sign_in(server, "ann")()  # Keys are derived once.
    works = {name: work_of(server, sign_in(server, name), 400) for name in ("ann", "nobody", "carl", "dora")}
    hashed = {name: [calls.pop(how, 0) for how in ARGON2] for name, (_, calls) in works.items()}
    assert hashed == {"ann": [1, 0], "nobody": [0, 1], "carl": [0, 1], "dora": [1, 0]}
    without = {
        name: (seen, {call: times for call, times in calls.items() if call not in AROUND})
        for name, (seen, calls) in works.items()
    }
    assert without == dict.fromkeys(works, without["ann"])


def test_a_held_sign_in_costs_as_much_whoever_it_is_for(make_server: Callable[..., Server]) -> None:
    """T100: no password is checked, of nobody."""
    limits = {"limits": "sign-ins = sign_in, account, 1, hour"}
    server = make_server(with_plugin("rate_limits", limits))
    server.add_user("ann")
    works = {}
    for name in ("ann", "nobody"):
        work_of(server, sign_in(server, name), 400)
        work_of(server, sign_in(server, name), 429)  # the first leaves an event
        works[name] = work_of(server, sign_in(server, name), 429)
    assert works["ann"] == works["nobody"]
    assert "verify_password" not in works["ann"][1]


def sign_in(server: Server, username: str) -> Callable[[], TestResponse]:
    """Send the form of a new browser with a wrong password."""
    form = form_with(server.browser().get(server.path("/login")), "username")
    form["username"], form["password"] = username, "wrong horse"
    return lambda: form.submit(expect_errors=True)
