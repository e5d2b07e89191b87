"""The playground: a real client in a page, from its first step to its last."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Page, expect

from authserver.testing.server import Server
from tests.browser.steps import come_back_to_playground, press_in_playground, sign_in, start_playground


def reached(page: Page) -> list[str]:
    """The steps that are done."""
    return [str(step.get_attribute("data-step")) for step in page.locator('.step[data-reached="yes"]').all()]


def test_the_whole_story_is_shown(page: Page, server: Server, watch) -> None:
    """From a browser that was never here: ask, answer, exchange, refresh, replay, and start over."""
    watch.allow("status of 400")  # the replay, and the refresh after it, are refused on purpose
    start_playground(page, server)
    assert reached(page) == ["discover", "prepare"]
    expect(page.get_by_role("button", name="Exchange the code")).to_be_disabled()
    expect(page.get_by_role("button", name="Start over")).to_be_hidden()
    page.get_by_text("Show the response: the metadata document").click()
    metadata = json.loads(page.locator("[data-slot=discover-response]").inner_text())
    assert metadata["issuer"] == server.issuer

    verifier = page.locator("[data-slot=verifier]").inner_text()
    challenge = page.locator("[data-slot=challenge]").inner_text()
    page.get_by_role("button", name="Send the request").click()
    sign_in(page)
    expect(page.get_by_text("Playground", exact=True)).to_be_visible()
    page.get_by_role("button", name="Allow").click()
    expect(page).to_have_url(server.issuer + "/playground")  # the code stays in no history
    expect(page.locator("[data-check][data-result=pass]")).to_have_count(3)
    assert page.locator("[data-slot=verifier]").inner_text() == verifier
    assert challenge in page.locator("[data-slot=ask-request]").inner_text()

    answer = press_in_playground(page, "Exchange the code", "exchange-response")
    assert answer.startswith("200 OK")
    first = json.loads(answer[answer.index("{") :])
    assert first["scope"] == "profile files.read" and first["refresh_token"]
    claims = json.loads(page.locator("[data-slot=jwt-claims]").inner_text())
    assert claims == server.claims(first["access_token"])
    assert json.loads(page.locator("[data-slot=jwt-header]").inner_text())["typ"] == "at+jwt"
    expect(page.get_by_role("button", name="Exchange the code")).to_be_disabled()

    answer = press_in_playground(page, "Refresh", "refresh-response")
    second = json.loads(answer[answer.index("{") :])
    assert second["refresh_token"] != first["refresh_token"]
    assert first["refresh_token"] in page.locator("[data-slot=refresh-request]").inner_text()
    assert json.loads(page.locator("[data-slot=jwt-claims]").inner_text())["jti"] != claims["jti"]

    answer = press_in_playground(page, "Send the code again", "replay-response")
    assert answer.startswith("400 Bad Request") and '"invalid_grant"' in answer
    answer = press_in_playground(page, "Refresh", "refresh-response")
    assert answer.startswith("400 Bad Request") and '"invalid_grant"' in answer

    page.reload()
    expect(page.locator("[data-slot=replay-response]")).to_contain_text("invalid_grant")
    assert reached(page) == [
        "discover",
        "prepare",
        "ask",
        "answer",
        "exchange",
        "inspect",
        "refresh",
        "replay",
    ]
    page.get_by_role("button", name="Start over").click()
    expect(page.locator("[data-slot=verifier]")).not_to_have_text(verifier)
    expect(page.get_by_role("button", name="Send the request")).to_be_enabled()
    assert reached(page) == ["discover", "prepare"]


def test_a_denied_consent_ends_the_story(page: Page, server: Server) -> None:
    """E-07: the error is shown, nothing can be exchanged, and it begins anew at once."""
    come_back_to_playground(page, server, "Deny")
    expect(page.locator("[data-slot=answer-response]")).to_contain_text("error=access_denied")
    expect(page.locator("[data-check=allowed]")).to_have_attribute("data-result", "fail")
    expect(page.get_by_role("button", name="Exchange the code")).to_be_disabled()
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_role("button", name="Send the request")).to_be_enabled()


def test_an_answer_that_nobody_asked_for_stops_the_client(page: Page, server: Server) -> None:
    """H-01, T005: a code from elsewhere fails the state check, and is neither used nor kept in the address."""
    page.goto(server.issuer + f"/playground?code=stolen&state=other&iss={server.issuer}")
    expect(page.locator("[data-check=state]")).to_have_attribute("data-result", "fail")
    expect(page).to_have_url(server.issuer + "/playground")
    expect(page.get_by_role("button", name="Exchange the code")).to_be_disabled()


def test_an_answer_of_another_issuer_stops_the_client(page: Page, server: Server) -> None:
    """ISS, RFC 9207: a mix-up is noticed even when the state is right."""
    start_playground(page, server)
    state = page.locator("[data-slot=state]").inner_text()
    page.evaluate(
        "() => { const key = 'authserver.playground'; const story = JSON.parse(sessionStorage[key]);"
        " sessionStorage[key] = JSON.stringify({ ...story, asked: true }); }"
    )
    page.goto(server.issuer + f"/playground?code=x&state={state}&iss=https%3A%2F%2Fother.example")
    expect(page.locator("[data-check=state]")).to_have_attribute("data-result", "pass")
    expect(page.locator("[data-check=issuer]")).to_have_attribute("data-result", "fail")
    expect(page.get_by_role("button", name="Exchange the code")).to_be_disabled()


def test_what_is_typed_is_asked_for(page: Page, server: Server) -> None:
    """The request is shown as it will be sent, and survives the way there and back."""
    start_playground(page, server)
    page.get_by_label("Scope: what to ask for").fill("profile")
    page.get_by_label("Resource: where it should work").fill("https://api.example/")
    expect(page.locator("[data-slot=ask-request]")).to_contain_text("resource=https%3A%2F%2Fapi.example%2F")
    page.get_by_role("button", name="Send the request").click()
    sign_in(page)
    expect(page.get_by_label("See your name")).to_be_checked()
    expect(page.get_by_label("Read your files")).to_have_count(0)
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_label("Scope: what to ask for")).to_have_value("profile")
    answer = press_in_playground(page, "Exchange the code", "exchange-response")
    assert re.search('"scope": "profile"', answer)


def test_a_server_that_is_away_is_reported(page: Page, server: Server, watch) -> None:
    """A newcomer who stopped the server reads so, not an empty page."""
    watch.allow("ERR_FAILED|Failed to load resource")
    page.route("**/.well-known/**", lambda route: route.abort())
    page.goto(server.issuer + "/playground")
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("Is the server running?")


def test_without_a_script_it_says_what_is_missing(open_page, server: Server) -> None:
    """The one page that needs JavaScript says why."""
    page = open_page(java_script_enabled=False)
    page.goto(server.issuer + "/playground")
    expect(page.locator("noscript p")).to_be_visible()
    assert "This page needs JavaScript" in page.locator("noscript p").inner_text()
