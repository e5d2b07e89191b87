"""What pages say of whom: the application that is vouched for, the operator's own links, and where to ask for help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

import pytest
from pyramid.config import Configurator
from webtest import TestResponse

from authserver.api import Route, hookimpl
from authserver.engine.records import Client
from authserver.testing.server import Server, with_plugin
from authserver.testing.stories import reference_on, register, signed_in

LINKS = {
    "authserver.product_name": "Acme ID & friends",
    "authserver.help_url": "https://help.example/",
    "authserver.privacy_url": "https://acme.example/privacy?a=1&b=2",
    "authserver.terms_url": "mailto:terms@acme.example",
}


def lead_of(server: Server, client: Client) -> str:
    """What the sign-in page says before its form."""
    page = server.browser().get(server.authorization_url(client)).follow()
    return " ".join(
        text.get_text(" ", strip=True) for text in page.html.select("main .card > p:not(.support)")
    )


def test_signing_in_names_the_application_that_is_vouched_for(server: Server) -> None:
    """E-08, T097: with its host, unless it is first-party or on this device; any other by its host first."""
    web, _ = server.add_client(client_name="Notes")
    own, _ = server.add_client(client_name="Our notes", first_party=True)
    local, _ = server.add_client(
        client_name="Pad", redirect_uris=("http://localhost/cb",), application_type="native"
    )
    assert lead_of(server, web) == "to continue to Notes at client.example"
    assert lead_of(server, own) == "to continue to Our notes"
    assert lead_of(server, local) == "to continue to Pad"
    stranger = register(server, client_name="claude.ai")
    assert lead_of(server, stranger).startswith("to continue to client.example Asked for by an application")


def test_links_of_strangers_are_marked(server: Server) -> None:
    """E-09, E-11: and those of an application that is vouched for are not."""
    link = {"client_uri": "https://client.example/about"}
    by_itself, vouched_for = register(server, **link), server.add_client(details=link)[0]
    pages = [signed_in(server).get(server.authorization_url(client)) for client in (by_itself, vouched_for)]
    assert ["gave these links itself" in page.text for page in pages] == [True, False]
    assert all(page.html.select(".outward a[href='https://client.example/about']") for page in pages)


def test_a_person_is_shown_by_name_and_user_name(server: Server) -> None:
    with server.application.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET display_name = 'Ann Lee'")
    for path in (server.authorization_url(server.add_client()[0]), "/", "/logout"):
        assert '<bdi class="strong">Ann Lee (ann)</bdi>' in signed_in(server).get(path).text
    with server.application.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET display_name = ''")
    assert '<bdi class="strong">ann</bdi>' in signed_in(server).get("/").text


def links_of(page: TestResponse, where: str) -> list[str]:
    return [tag["href"] for tag in page.html.select(f"{where} a")]


def test_the_links_of_the_operator_are_below_every_page(make_server: Callable[..., Server]) -> None:
    """Errors included; the sign-in page has the one for help beside the form, too."""
    server = make_server(LINKS)
    expected = ["https://help.example/", "https://acme.example/privacy?a=1&b=2", "mailto:terms@acme.example"]
    for path in ("/", "/login", "/nothing-here", "/oauth/authorize"):
        assert links_of(server.browser().get(path, status="*"), "footer") == expected, path
    assert "https://help.example/" in links_of(server.browser().get("/login"), "main")
    assert not server.browser().get("/nothing-here", status=404).html.select(".support")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("mailto:help@acme.example", "mailto:help@acme.example?subject=Acme ID & friends: {reference}"),
        ("https://help.example/new?ref={reference}", "https://help.example/new?ref={reference}"),
        ("https://help.example/", "https://help.example/"),
    ],
)
def test_a_link_for_help_carries_the_reference(
    make_server: Callable[..., Server], setting: str, expected: str
) -> None:
    """F-12: the id that `explain` looks up, and nothing else of the request."""
    server = make_server({**LINKS, "authserver.support_url": setting})
    answer = server.browser().get("/oauth/authorize?client_id=nobody&state=canary", status=400)
    reference = reference_on(answer)
    (event,) = server.events("authorization.refused")
    assert event["event_id"] == reference
    (link,) = links_of(answer, ".support")
    assert unquote(link) == expected.replace("{reference}", reference)
    assert "%26%20friends" in link or "mailto" not in setting
    assert "canary" not in answer.text


def test_what_is_refused_before_any_rule_is_said_in_words(server: Server) -> None:
    """F-12: with what to do next; the name of the status is for developers."""
    browser = server.browser()
    for answer in (
        browser.delete("/login", status=405),
        browser.post("/login", {"x": "y" * 70_000}, status=413),
        browser.get("/nothing-here", status=404),
    ):
        said = answer.html.select_one("main .lead").text
        assert ("try again" in said or "front page" in said) and "Method" not in said


@dataclass(frozen=True)
class Broken:
    """A page that fails."""

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_endpoint(Route("broken", "/broken", ("GET",), stored=False), lambda request: 1 / 0)


def test_a_page_says_whose_fault_an_error_is(make_server: Callable[..., Server]) -> None:
    """To load the same address again helps where the server failed, and nowhere else."""
    server = make_server(with_plugin(Broken, {}))
    for path, status, title in (
        ("/login?page=a&page=b", 400, "This request cannot go on"),
        ("/broken", 500, "Something went wrong"),
    ):
        page = server.http.get(path, status=status)
        assert page.html.h1.get_text() == title and reference_on(page)
        assert ("It is not your fault." in page.text) == (status == 500)
