"""The logo of a client: on the consent page, and by its own address."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from authserver.engine.clients.editing import ClientEdit, edit
from authserver.testing.logos import PNG_LOGO, SVG_LOGO
from authserver.testing.server import Server
from authserver.testing.stories import signed_in


def with_logo(server: Server, body: bytes):
    client, _ = server.add_client()
    with server.application.begin() as engine:
        return edit(engine, client.client_id, ClientEdit(logo=body)).client


@pytest.mark.parametrize(("body", "media_type"), [(SVG_LOGO, "image/svg+xml"), (PNG_LOGO, "image/png")])
def test_the_consent_page_shows_the_logo_that_an_operator_gave(
    server: Server, body: bytes, media_type: str
) -> None:
    """T134: served from here, and opened by itself it can run and load nothing."""
    client = with_logo(server, body)
    page = signed_in(server).get(server.authorization_url(client))
    (image,) = page.html.find("section", attrs={"aria-labelledby": "client-heading"}).find_all("img")
    assert image["alt"] == ""
    assert image["src"].startswith("https://as.example/static/client-logo?")
    assert "img-src 'self'" in page.headers["Content-Security-Policy"]
    answer = server.http.get(image["src"].removeprefix("https://as.example"))
    assert (answer.body, answer.content_type) == (body, media_type)
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "sandbox", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert not any(directive.startswith(("script-src", "img-src")) for directive in policy)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert "Set-Cookie" not in answer.headers


def test_a_logo_has_one_address_and_nobody_elses(server: Server) -> None:
    """Without the digest nobody learns which clients there are."""
    client = with_logo(server, SVG_LOGO)
    other, _ = server.add_client()
    assert client.logo
    for query in (
        {},
        {"client_id": client.client_id},
        {"client_id": client.client_id, "digest": "0" * 32},
        {"client_id": other.client_id, "digest": client.logo},
        {"digest": client.logo},
    ):
        server.http.get(f"/static/client-logo?{urlencode(query)}", status=404)
    unreadable = {"client_id": client.client_id, "digest": f"{client.logo}\0"}
    server.http.get(f"/static/client-logo?{urlencode(unreadable)}", status=400)
    with server.application.begin() as engine:
        edit(engine, client.client_id, ClientEdit(logo=b""))
    own = {"client_id": client.client_id, "digest": client.logo}
    server.http.get(f"/static/client-logo?{urlencode(own)}", status=404)


def test_a_client_without_a_logo_shows_none(server: Server) -> None:
    """Its own `logo_uri` is never loaded (T134)."""
    client, _ = server.add_client(details={"logo_uri": "https://client.example/logo.png"})
    page = signed_in(server).get(server.authorization_url(client))
    assert page.html.find_all("img") == []
