"""Credentials that show what they are: scanners find leaked ones, and what is none is refused without a query."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from authserver.engine.clients import initial_tokens
from authserver.engine.crypto import digests
from authserver.engine.people.password_links import make_link
from authserver.engine.records import Client
from authserver.features import client_management
from authserver.features.device import requests as device_requests
from authserver.testing.plans import transcript_of
from authserver.testing.server import SETTINGS, Server, basic, forged, query_of, with_plugin
from authserver.testing.stories import assert_json_error, is_signed_in, signed_in

CHECKOUT = Path(__file__).parents[2]
SECURITY = (CHECKOUT / "docs/security.rst").read_text("utf-8")
OWN_EVENT = ["INSERT events"]


@pytest.fixture(scope="module")
def server(shared_server: Server) -> Server:
    return shared_server


@pytest.fixture(scope="module")
def known(server: Server) -> tuple[Client, str]:
    """A client whose secret was used a moment ago, so that no use is noted."""
    client, secret = server.add_client()
    assert secret is not None
    assert server.introspect(client, secret, "x").status_int == 200
    return client, secret


def garbage(prefix: str) -> list[str]:
    """What no credential of this kind can be."""
    good = forged(prefix)
    others = [forged(other) for other in digests.PREFIXES if other != prefix]
    return [
        "x",
        "'; DROP TABLE tokens; --",
        prefix,
        good[:-1],
        good + "A",
        good + " ",
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        good.replace("AA", "AB", 1),
        good.upper(),
        good[:-1] + "é",
        prefix + "A" * 8_000,
        good.removeprefix(prefix),
        *others,
    ]


@pytest.mark.parametrize("wrong", garbage(digests.CODE), ids=lambda text: text[:24])
def test_what_is_no_code_is_not_looked_up(server: Server, known: tuple[Client, str], wrong: str) -> None:
    """T038, R-03."""
    with transcript_of(server.application) as seen:
        assert_json_error(server.redeem(*known, wrong), "invalid_grant")
    assert seen == ["SELECT clients", *OWN_EVENT]


@pytest.mark.parametrize("wrong", garbage(digests.REFRESH), ids=lambda text: text[:24])
def test_what_is_no_refresh_token_is_not_looked_up(
    server: Server, known: tuple[Client, str], wrong: str
) -> None:
    """T038, I-15."""
    with transcript_of(server.application) as seen:
        assert_json_error(server.refresh(*known, wrong), "invalid_grant")
    assert seen == ["SELECT clients", *OWN_EVENT]


TOKENS = sorted(
    {*garbage(digests.ACCESS), *garbage(digests.REFRESH)} - {forged(digests.ACCESS), forged(digests.REFRESH)}
)
JWTS = ["a.b.c", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJFUzI1NiJ9." + "A" * 8_000 + ".AAAA"]


@pytest.mark.parametrize("wrong", [*TOKENS, *JWTS], ids=lambda text: text[:24])
def test_what_is_no_token_is_not_looked_up(server: Server, known: tuple[Client, str], wrong: str) -> None:
    """T077, T078, L-03, M-03: neither to introspect it nor to revoke it."""
    with transcript_of(server.application) as seen:
        assert server.introspect(*known, wrong).json == {"active": False}
    assert seen == ["SELECT clients"]
    with transcript_of(server.application) as seen:
        answer = server.revoke(*known, wrong)
    if any(digests.well_formed(prefix, wrong) for prefix in digests.PREFIXES):
        assert_json_error(answer, "unsupported_token_type")
        assert seen == ["SELECT clients", *OWN_EVENT]
    else:
        assert answer.status_int == 200
        assert seen == ["SELECT clients"]


# A longer text without a prefix of ours may have come with a client from another server.
SECRETS = [text for text in garbage(digests.SECRET) if len(text) < 22 or text.startswith("as_")]


@pytest.mark.parametrize("wrong", ["", *SECRETS, "x" * 257], ids=lambda text: text[:24])
@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
def test_what_is_no_client_secret_is_not_looked_up(
    server: Server, known: tuple[Client, str], path: str, wrong: str
) -> None:
    """T047, R-02: not even who it was said to be of."""
    client, _ = known
    form = {"grant_type": "client_credentials", "token": "x"}
    with transcript_of(server.application) as seen:
        headers = {"Authorization": basic(client.client_id, wrong)}
        answer = server.http.post(path, form, headers=headers, expect_errors=True)
    assert_json_error(answer, "invalid_client", status=401)
    assert seen == OWN_EVENT
    if wrong:
        with transcript_of(server.application) as seen:
            form |= {"client_id": client.client_id, "client_secret": wrong}
            assert_json_error(server.http.post(path, form, expect_errors=True), "invalid_client", status=401)
        assert seen == OWN_EVENT


@pytest.mark.parametrize("wrong", garbage(digests.SESSION)[:7], ids=lambda text: text[:24])
def test_what_is_no_session_is_not_looked_up(server: Server, wrong: str) -> None:
    """T098: nor is one without the code that proves that we made it."""
    for cookie in (wrong, f"{wrong}.", f"{wrong}.{'A' * 43}", f"{forged(digests.SESSION)}.{'A' * 43}"):
        with transcript_of(server.application) as seen:
            assert not is_signed_in(server, server.browser(), cookie=f"__Host-authserver-session={cookie}")
        assert seen == []


@pytest.mark.parametrize(
    "wrong", ["urn:ietf:params:oauth:request_uri:" + text for text in ("", "A" * 49, "A" * 400)]
)
def test_what_is_no_pushed_request_is_not_looked_up(make_server: Callable[..., Server], wrong: str) -> None:
    """PAR-05: its reference has a checksum, so it shows without a query whether it is one."""
    server = make_server({"authserver.plugins": SETTINGS["authserver.plugins"] + "pushed_requests"})
    client, _ = server.add_client()
    with transcript_of(server.application) as seen:
        answer = server.http.get(
            "/oauth/authorize", {"client_id": client.client_id, "request_uri": wrong}, expect_errors=True
        )
    assert answer.status_int == 400
    assert seen == OWN_EVENT


# ---- what is written about it -----------------------------------------------------------------------


def documented() -> dict[str, re.Pattern[str]]:
    """The regular expressions of docs/security.rst, by their prefix."""
    found = re.findall(r"``(as_[a-z]+_\[.*)``", SECURITY)
    return {text[: text.index("[")]: re.compile(text) for text in found}


def prefixes_in(*sources: Path) -> set[str]:
    """Each prefix of a credential that is written in these modules."""
    return {
        node.value
        for source in sources
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch("as_[a-z]+_", node.value)
    }


def scanned() -> Callable[[str], bool]:
    """The check of docs/security.rst, as a scanner would run it."""
    (block,) = re.findall(r"\.\. code-block:: python\n\n((?: {3}.*\n|\n)+)", SECURITY)
    scope: dict[str, Any] = {}
    exec("\n".join(line[3:] for line in block.splitlines()), scope)
    function: Callable[[str], bool] = scope["is_ours"]
    return function


def test_every_prefix_of_the_code_is_documented() -> None:
    """R-03: also those of plugins, and nothing else is."""
    assert prefixes_in(Path(digests.__file__)) == set(digests.PREFIXES)
    assert prefixes_in(*CHECKOUT.glob("authserver/**/*.py")) == documented().keys()


def test_a_scanner_finds_every_credential_of_a_flow(make_server: Callable[..., Server]) -> None:
    """R-03: with the expressions of the documentation, in whatever surrounds it, and with certainty."""
    policy = {"scopes": "profile", "policies": "partners = scopes profile"}
    initial_access = with_plugin("registration_token", policy, without=("registration_open",))
    server = make_server({"authserver.access_token_format": "opaque", **initial_access})
    user = server.add_user()
    client, secret = server.add_client()
    browser = signed_in(server)
    code = query_of(server.consent(browser.get(server.authorization_url(client))))["code"]
    issued = server.redeem(client, secret, code).json
    with server.application.begin() as engine:
        end = engine.now + timedelta(days=1)
        _, initial = initial_tokens.make(engine, policy="partners", uses=1, expires_at=end, note="")
        link = make_link(engine, user).address.rpartition(".")[2]
    credentials = {
        digests.CODE: code,
        digests.ACCESS: issued["access_token"],
        digests.REFRESH: issued["refresh_token"],
        digests.SECRET: secret or "",
        digests.SESSION: browser.cookies["__Host-authserver-session"].strip('"').partition(".")[0],
        digests.INITIAL: initial,
        digests.LINK: link,
        client_management.PREFIX: digests.new_credential(client_management.PREFIX),
        device_requests.PREFIX: digests.new_credential(device_requests.PREFIX),
    }
    expressions, is_ours = documented(), scanned()
    assert expressions.keys() == credentials.keys()
    for prefix, text in credentials.items():
        for leaked in (f"key = '{text}'", f"?x={text}&y=1", f'{{"t":"{text}"}}', f"{text}.mac", f"{text}\n"):
            (found,) = [match[0] for each in expressions.values() for match in each.finditer(leaked)]
            assert found == text
        assert is_ours(text)
        assert not is_ours(text[:-1] + ("A" if text[-1] != "A" else "B"))
        assert not is_ours(prefix + "A" * 49)
        assert not expressions[prefix].search(text[:-1])
