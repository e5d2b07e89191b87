"""Tabs, Back, Reload, double clicks and slow lines: what people do goes on to where they wanted to be."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from authserver.engine.records import Client
from authserver.testing.server import PASSWORD, Server
from tests.browser.steps import allow, answer_of, ask, authorize, expire, session_cookie, sign_in

AT_CLIENT = "https://client.example/**"
CONSENT = "Allow access to your account?"


@pytest.fixture
def context(page: Page) -> BrowserContext:
    return page.context


@pytest.fixture
def client(server: Server) -> Client:
    return server.add_client()[0]


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def codes_of(server: Server, client: Client) -> int:
    rows = server.rows("tokens")
    return len([row for row in rows if (row["kind"], row["client_id"]) == ("code", client.client_id)])


def test_each_of_two_tabs_signs_in_and_allows(
    page: Page, context: BrowserContext, server: Server, client: Client
) -> None:
    """B041, B106: the second page was open while the first one signed in; it is sent as it stands."""
    second, _ = server.add_client()
    page.goto(server.issuer + "/login")
    other = context.new_page()
    authorize(page, server, client)
    authorize(other, server, second)
    sign_in(page)
    sign_in(other)
    heading(other, CONSENT)
    # Signing in twice leaves the first page the same person's.
    for tab in (page, other):
        allow(tab)
        tab.wait_for_url(AT_CLIENT)
        assert "code" in answer_of(tab)


def test_three_tabs_at_once_of_a_fresh_browser(page: Page, context: BrowserContext, server: Server) -> None:
    """B105: all three are asked for before any answer is here; no cookie of one takes another's place."""
    clients = [server.add_client()[0] for _ in range(3)]
    urls = [server.issuer + server.authorization_url(client) for client in clients]
    page.goto("https://client.example/")

    def late(route: Route) -> None:
        page.wait_for_timeout(250)
        route.continue_()

    context.route("**/oauth/authorize?**", late)
    page.evaluate("urls => urls.forEach(url => window.open(url, '_blank', 'noopener'))", urls)
    page.wait_for_timeout(1500)
    tabs = [tab for tab in context.pages if tab is not page]
    assert len(tabs) == 3
    for tab in tabs:
        expect(tab.get_by_label("Username")).to_be_visible()
    for tab in tabs:
        sign_in(tab)
        heading(tab, CONSENT)
    for tab in tabs:
        allow(tab)
        tab.wait_for_url(AT_CLIENT)
    assert [codes_of(server, client) for client in clients] == [1, 1, 1]


def test_back_after_signing_in(page: Page, server: Server, client: Client) -> None:
    """B042, B107: the sign-in page of a request is its consent page then; Reload gives it again."""
    ask(page, server, client)
    page.go_back()
    heading(page, CONSENT)
    page.reload()
    heading(page, CONSENT)
    allow(page)
    page.wait_for_url(AT_CLIENT)


def test_back_after_allowing(page: Page, server: Server, client: Client) -> None:
    """E-05.a, E-05.b: within seconds to the client again, with the same code; later to a page, and never a second code."""
    ask(page, server, client)
    page.reload()
    link = page.url
    allow(page)
    page.wait_for_url(AT_CLIENT)
    first = answer_of(page)
    page.goto(link)
    page.wait_for_url(AT_CLIENT)
    assert answer_of(page) == first
    assert codes_of(server, client) == 1


def test_back_after_the_client_has_its_code(page: Page, server: Server, watch) -> None:
    """E-05.a: a page says that it was answered, with a way back, and nothing is revoked."""
    watch.allow("status of 400")
    site = "https://client.example/about"
    client, secret = server.add_client(client_name="Notes", details={"client_uri": site})
    ask(page, server, client)
    page.reload()
    link = page.url
    allow(page)
    page.wait_for_url(AT_CLIENT)
    tokens = server.redeem(client, secret, answer_of(page)["code"]).json
    page.goto(link)
    heading(page, "This request was answered already")
    page.reload()
    heading(page, "This request was answered already")
    page.get_by_role("link", name="Go to the application").click()
    page.wait_for_url(site)
    assert server.refresh(client, secret, tokens["refresh_token"]).status_int == 200


@pytest.mark.parametrize("answer", ["Allow", "Deny"])
def test_a_double_click(page: Page, server: Server, client: Client, answer: str) -> None:
    """E-05.b: one answer, one code at most, and the browser is at the client."""
    ask(page, server, client)
    page.get_by_role("button", name=answer).dblclick(no_wait_after=True)
    page.wait_for_url(AT_CLIENT)
    assert ("code" in answer_of(page)) == (answer == "Allow")
    assert codes_of(server, client) == (answer == "Allow")
    assert len(server.events("consent.given")) >= (answer == "Allow")


def test_two_sends_at_once(page: Page, server: Server, client: Client) -> None:
    """E-05.b: two clicks of which the browser sends both."""
    ask(page, server, client)
    page.evaluate(
        """() => {
            const allow = document.querySelector("button[value=allow]");
            allow.form.requestSubmit(allow);
            allow.form.requestSubmit(allow);
        }"""
    )
    page.wait_for_url(AT_CLIENT)
    assert "code" in answer_of(page) and codes_of(server, client) == 1


def test_an_answer_that_got_lost(
    page: Page, context: BrowserContext, server: Server, client: Client, watch
) -> None:
    """E-05.b: a slow line took the request and lost the answer; the same again leads to the client."""
    watch.allow("ERR_")
    ask(page, server, client)
    link = f"{server.issuer}/oauth/consent?request=" + page.locator("input[name=request]").first.input_value()

    def lose(route: Route) -> None:
        if route.request.method == "POST" and codes_of(server, client) == 0:
            route.fetch(max_redirects=0)
            route.abort()
        else:
            route.continue_()

    context.route("**/oauth/consent", lose)
    page.get_by_role("button", name="Allow").click(no_wait_after=True)
    page.wait_for_timeout(500)
    assert codes_of(server, client) == 1
    page.goto(link)
    page.wait_for_url(AT_CLIENT)
    assert "code" in answer_of(page) and codes_of(server, client) == 1


def test_a_sign_in_sent_twice(page: Page, server: Server, client: Client) -> None:
    """B041: a slow line, and a second click on the button."""
    authorize(page, server, client)
    page.get_by_label("Username").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").dblclick(no_wait_after=True)
    heading(page, CONSENT)


@pytest.mark.parametrize("at", ["sign-in", "consent"])
def test_a_request_that_expires_while_somebody_types(
    page: Page, server: Server, client: Client, watch, at: str
) -> None:
    """E-02: the page says so, and its link begins the same request again."""
    watch.allow("status of 400")
    authorize(page, server, client)
    if at == "consent":
        sign_in(page)
        heading(page, CONSENT)
    expire(page, server)
    if at == "consent":
        allow(page)
    else:
        sign_in(page)
    heading(page, "This took too long")
    page.get_by_role("link", name="Start again").click()
    if at == "sign-in":
        sign_in(page)
    heading(page, CONSENT)
    allow(page)
    page.wait_for_url(AT_CLIENT)
    assert answer_of(page)["state"] == "xyz"


POST_FROM_ELSEWHERE = """([url, fields]) => {
    const form = document.createElement("form");
    form.method = "post";
    form.action = url;
    for (const [name, value] of Object.entries(fields)) {
        const input = document.createElement("input");
        input.type = "hidden";
        input.name = name;
        input.value = value;
        form.append(input);
    }
    document.body.append(form);
    form.submit();
}"""


@pytest.mark.parametrize("remembered", [True, False])
def test_a_request_by_post_from_another_site(
    page: Page, context: BrowserContext, server: Server, client: Client, remembered: bool
) -> None:
    """B039, B104: it comes without the session, and leads to the consent page of the person who is signed in."""
    page.goto(server.issuer + "/login")
    sign_in(page)
    expect(page.get_by_text("You are signed in as Ann (ann).")).to_be_visible()
    if remembered:
        authorize(page, server, client)
        allow(page)
        page.wait_for_url(AT_CLIENT)
    before = session_cookie(context)
    page.goto("https://client.example/")
    url, _, query = (server.issuer + server.authorization_url(client)).partition("?")
    fields = page.evaluate("query => Object.fromEntries(new URLSearchParams(query))", query)
    page.evaluate(POST_FROM_ELSEWHERE, [url, fields])
    if not remembered:
        heading(page, CONSENT)
        page.reload()
        expect(page.get_by_text("Signed in as Ann (ann).")).to_be_visible()
        allow(page)
    page.wait_for_url("https://client.example/cb?**")
    assert "code" in answer_of(page)
    assert session_cookie(context) == before


FORGED = {
    "/login": {"username": "bob", "password": PASSWORD, "csrf_token": "x"},
    "/logout": {"csrf_token": "x"},
    "/oauth/consent": {"answer": "allow", "scope": "profile", "csrf_token": "x", "request": "x"},
    "/account/apps": {"csrf_token": "x"},
    "/account/sign-out-everywhere": {"csrf_token": "x"},
    "/no-such-page": {"x": "y"},
}


@pytest.mark.parametrize("path", FORGED)
def test_no_form_of_another_site_replaces_a_session(
    page: Page, context: BrowserContext, server: Server, watch, path: str
) -> None:
    """T092, T098: a refusal, and the person stays who they are."""
    watch.allow("status of 40")
    watch.allow("headers of ")
    page.goto(server.issuer + "/login")
    sign_in(page)
    expect(page.get_by_text("You are signed in as Ann (ann).")).to_be_visible()
    before = session_cookie(context)
    page.goto("https://client.example/")
    with page.expect_response(lambda response: response.url.endswith(path)) as answered:
        page.evaluate(POST_FROM_ELSEWHERE, [server.issuer + path, FORGED[path]])
    assert answered.value.status >= 400
    assert "set-cookie" not in answered.value.headers
    page.wait_for_url(server.issuer + path)
    page.goto(server.issuer + "/")
    expect(page.get_by_text("You are signed in as Ann (ann).")).to_be_visible()
    assert session_cookie(context) == before


def test_no_image_or_frame_of_another_site_replaces_a_session(
    page: Page, context: BrowserContext, server: Server, client: Client, watch
) -> None:
    """T092, T093, T098: the controls; they come without the cookie, too."""
    watch.allow("X-Frame-Options|frame-ancestors|Refused to display|[Ff]raming|ERR_BLOCKED|status of 40")
    watch.allow("third party: |Failed to load resource|headers of |Mixed Content")
    page.goto(server.issuer + "/login")
    sign_in(page)
    expect(page.get_by_text("You are signed in as Ann (ann).")).to_be_visible()
    before = session_cookie(context)
    page.goto("https://client.example/")
    addresses = [
        server.issuer + path
        for path in ("/login", "/logout", "/account/apps", "/", server.authorization_url(client))
    ]
    page.evaluate(
        """addresses => Promise.all(addresses.flatMap(address => ["img", "iframe"].map(name => {
            const element = document.createElement(name);
            const done = new Promise(resolve => { element.onload = element.onerror = resolve; });
            element.src = address;
            document.body.append(element);
            return done;
        })))""",
        addresses,
    )
    page.goto(server.issuer + "/")
    expect(page.get_by_text("You are signed in as Ann (ann).")).to_be_visible()
    assert session_cookie(context) == before


def test_signing_out_in_another_tab(
    page: Page, context: BrowserContext, server: Server, client: Client
) -> None:
    """E-04.b: an answer given afterwards does not count; it leads to a sign-in, and on."""
    ask(page, server, client)
    other = context.new_page()
    other.goto(server.issuer + "/logout")
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("heading", name="You are signed out")).to_be_visible()
    allow(page)
    heading(page, "Sign in")
    sign_in(page)
    heading(page, CONSENT)
    allow(page)
    page.wait_for_url(AT_CLIENT)
    assert codes_of(server, client) == 1


def test_signing_out_twice(page: Page, context: BrowserContext, server: Server, watch) -> None:
    """T106: the second tab's form is out of date; what that page advises says that it is done."""
    watch.allow("status of 403")
    page.goto(server.issuer + "/login")
    sign_in(page)
    expect(page.get_by_text("You are signed in as Ann (ann).")).to_be_visible()
    page.goto(server.issuer + "/logout")
    other = context.new_page()
    other.goto(server.issuer + "/logout")
    for tab in (page, other):
        tab.get_by_role("button", name="Sign out").click()
    expect(other.get_by_text("Go back, reload and try again.")).to_be_visible()
    other.go_back()
    other.reload()
    expect(other.get_by_role("heading", name="You are signed out")).to_be_visible()


def test_another_user_in_another_tab(
    page: Page, context: BrowserContext, server: Server, client: Client, watch
) -> None:
    """E-04.a, E-04.b: the page was shown to ann; it is shown again, to bob, who decides for himself."""
    watch.allow("status of 403")
    ask(page, server, client)
    other = context.new_page()
    other.goto(server.issuer + "/login")
    sign_in(other, "bob")
    expect(other.get_by_text("You are signed in as Bob (bob).")).to_be_visible()
    allow(page)
    expect(page.get_by_role("alert")).to_be_focused()
    expect(page.get_by_text("Signed in as Bob (bob).")).to_be_visible()
    assert codes_of(server, client) == 0
    allow(page)
    page.wait_for_url(AT_CLIENT)
    with server.application.begin() as engine:
        bob = engine.stores.users.find_by_name("bob")
    (grant,) = [row for row in server.rows("grants") if row["client_id"] == client.client_id]
    assert bob is not None and grant["user_id"] == bob.user_id


def test_back_after_another_account_was_chosen(page: Page, server: Server, client: Client) -> None:
    """E-04.b: `Use another account` signs out first, so that Back and Reload lead to the sign-in page."""
    ask(page, server, client)
    page.get_by_role("button", name="Use another account").click()
    heading(page, "Sign in")
    page.go_back()
    heading(page, "Sign in")
    page.reload()
    sign_in(page, "bob")
    expect(page.get_by_text("Signed in as Bob (bob).")).to_be_visible()


def test_reload_on_every_page_of_a_request(page: Page, server: Server, client: Client) -> None:
    """B107: the sign-in page, the consent page, the page at the client."""
    authorize(page, server, client)
    page.reload()
    heading(page, "Sign in")
    sign_in(page)
    heading(page, CONSENT)
    page.reload()
    heading(page, CONSENT)
    allow(page)
    page.wait_for_url(AT_CLIENT)
    page.reload()
    assert "code" in answer_of(page)


def test_a_browser_keeps_a_bounded_number_of_requests(
    page: Page, context: BrowserContext, server: Server, client: Client, watch
) -> None:
    """B105: of fifty, the latest twenty can go on; the oldest says that it cannot, and starting again works."""
    watch.allow("status of 403")
    authorize(page, server, client)
    oldest = page.url
    for _ in range(25):
        context.request.get(server.issuer + server.authorization_url(client))
    marks = [cookie for cookie in context.cookies() if "authserver-request-" in cookie["name"]]
    assert len(marks) == 20
    page.goto(oldest)
    expect(page.get_by_text("cannot be continued in this browser")).to_be_visible()
    expect(page.get_by_text("allow cookies for this site")).to_be_visible()
    ask(page, server, client)
    allow(page)
    page.wait_for_url(AT_CLIENT)


def test_all_of_this_needs_no_script(open_page: Callable[..., Page], server: Server, client: Client) -> None:
    """B048: the way on to the client is a page that goes on by itself, without JavaScript."""
    page = open_page(java_script_enabled=False)
    authorize(page, server, client)
    sign_in(page)
    allow(page)
    page.wait_for_url(AT_CLIENT)
    assert re.fullmatch("as_code_.*", answer_of(page)["code"])
