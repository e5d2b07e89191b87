"""All that a stranger can cause to be stored: the table in the documentation names each table of the database."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry
from webtest import TestApp

from authserver.engine.counting import READER
from authserver.storage.tables import Base
from authserver.testing.server import SETTINGS, Server, basic, forged, form_with, with_plugin
from authserver.testing.service import authorization_query, self_registration

UPKEEP = Path(__file__).parents[2] / "docs" / "upkeep.rst"
FORM = "application/x-www-form-urlencoded"
EVERYTHING = """
    pushed_requests
    dpop
    playground
    metrics
    log_events
"""


def counts(server: Server) -> dict[str, int]:
    """How many rows each table has."""
    with server.application.storage.engine.connect() as connection:
        return {
            table.name: int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
            for table in Base.metadata.sorted_tables
        }


def count_events(server: Server) -> None:
    """What the background does in the next seconds."""
    (reading,) = (each for each in server.application.readings if each.reader.name == READER)
    while reading.work():
        pass


def documented() -> set[str]:
    """The tables that the documentation names."""
    text = UPKEEP.read_text()
    section = text[text.index(".. _strangers:") : text.index(".. _floods:")]
    return set(re.findall(r"^   \* - `(\w+)`$", section, re.MULTILINE))


def encoded(part: Any) -> bytes:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def proof(key: Any, url: str) -> str:
    """A correct proof (RFC 9449, 4.2)."""
    head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.as_dict(private=False)}
    body = {"htm": "POST", "htu": url, "iat": int(time.time()), "jti": uuid.uuid4().hex}
    signed = encoded(head) + b"." + encoded(body)
    return (signed + b"." + encoded(JWSRegistry.algorithms["ES256"].sign(signed, key))).decode()


def everything_a_stranger_can_send(server: Server, operators: str) -> None:
    """Right and wrong requests at each endpoint; nobody signs in, and no credential of a client is right."""
    browser = server.browser()
    for path, route in server.wsgi.registry.paths.items():
        for query in ("", "client_id=nobody&request=x&state=y", "a=1&a=2"):
            if "GET" in route.methods:
                browser.get(f"{path}?{query}", expect_errors=True)
            if "POST" in route.methods:
                for kind in (FORM, "application/json"):
                    browser.post(path, query, content_type=kind, expect_errors=True)
                browser.post(
                    path,
                    query,
                    headers={"Authorization": basic(operators, forged("as_secret_"))},
                    content_type=FORM,
                    expect_errors=True,
                )
        browser.put(path, expect_errors=True)
        browser.options(path, headers={"Origin": "https://client.example"}, expect_errors=True)
    for more in ({}, {"token_endpoint_auth_method": "client_secret_basic"}, {"redirect_uris": ["junk"]}):
        made = browser.post_json("/oauth/register", self_registration(**more), expect_errors=True).json
        if "client_id" in made:
            use(server, browser, made["client_id"])
    use(server, browser, operators)
    for name in ("ann", "nobody", "x" * 5_000):
        server.sign_in(browser, name, "wrong")


def use(server: Server, browser: TestApp, client_id: str) -> None:
    """What anybody can do who knows the id of a client."""
    with server.begin() as engine:
        client = engine.find_client(client_id)
    assert client is not None
    query = authorization_query(client)
    browser.get(f"/oauth/authorize?{query}", expect_errors=True)
    browser.get(f"/oauth/authorize?{query}&prompt=none", expect_errors=True)
    url = f"{server.issuer}/oauth/par"
    headers = {"DPoP": proof(ECKey.generate_key("P-256"), url)}
    pushed = browser.post("/oauth/par", query, headers=headers, content_type=FORM, expect_errors=True)
    if client.is_public:
        reference = urlencode({"client_id": client_id, "request_uri": pushed.json["request_uri"]})
        page = browser.get(f"/oauth/authorize?{reference}").follow()
        form_with(page, "username").submit(expect_errors=True)
    for grant in ("authorization_code", "refresh_token", "client_credentials"):
        texts = {
            "code": forged("as_code_"),
            "refresh_token": forged("as_refresh_"),
            "code_verifier": "v" * 43,
        }
        browser.post(
            "/oauth/token", {"client_id": client_id, "grant_type": grant, **texts}, expect_errors=True
        )
    for path in ("/oauth/revoke", "/oauth/introspect"):
        browser.post(path, {"client_id": client_id, "token": forged("as_refresh_")}, expect_errors=True)


def test_the_documentation_names_all_that_a_stranger_can_cause_to_be_stored(
    make_server: Callable[..., Server],
) -> None:
    """T154: with the features that take something of strangers, no other table grows, and each that is named does."""
    settings = with_plugin("metrics", {}) | {
        "authserver.plugins": SETTINGS["authserver.plugins"] + EVERYTHING
    }
    server = make_server(settings)
    server.add_user("ann")
    public, _ = server.add_client(token_endpoint_auth_method="none")
    count_events(server)
    before = counts(server)
    everything_a_stranger_can_send(server, public.client_id)
    server.application.floods.store(everything=True)
    count_events(server)
    after = counts(server)
    assert {name for name, count in after.items() if count != before[name]} == documented()


def test_a_registration_is_as_large_as_the_documentation_says(make_server: Callable[..., Server]) -> None:
    """The longest that is accepted: its rows, all columns together."""
    server = make_server()
    uris = [f"https://client.example/{number}/{'p' * 1_380}" for number in range(10)]
    body = json.dumps(
        self_registration(
            client_name="n" * 100, redirect_uris=uris, client_uri=f"https://client.example/{'u' * 1_500}"
        )
    )
    assert 15_000 < len(body) <= 16_384
    server.http.post("/oauth/register", body, content_type="application/json", status=201)

    def size(table: str) -> int:
        rows = [row for row in server.rows(table) if row.get("registered_by", "self") == "self"]
        return sum(len(str(value).encode()) for row in rows for value in row.values() if value is not None)

    assert 15_000 < size("clients") <= 20_000
    assert size("client_origins") <= 10 * 2_100
    (event,) = server.events("client.registered")
    assert 2_000 < sum(len(str(value)) for value in event.values() if value is not None) <= 4_300
