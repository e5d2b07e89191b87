"""Two people, two browsers and several clients in any order: no one gets what belongs to another.

Each step knows what may come of it from a model of what was agreed, issued and ended. `World` checks every answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from webtest import TestApp, TestResponse

from authserver.engine.records import Client
from authserver.testing.server import (
    PASSWORD,
    VERIFIER,
    authorization_query,
    basic,
    form_with,
    query_of,
)
from authserver.testing.stories import sign_in_at
from tests.fuzzing.conftest import IS_LONG, REPORT
from tests.fuzzing.documents import OTHER_URI
from tests.fuzzing.world import INITIAL_TOKEN, ISSUER, REDIRECT_URI, World
from tests.web.account_steps import token_for

SEQUENCES, STEPS = (400, 40) if IS_LONG else (6, 30)
# Whoever presents a used refresh token again is a thief, from the first moment.
SETTINGS = {
    "authserver.refresh_token_retry_window": "0",
    # Of each kind of refusal one is stored, and the others are counted.
    "authserver.refusals_per_minute": "1",
}
PEOPLE = ("ann", "bob")
SCOPES = frozenset({"profile", "files.read"})
# After so many wrong proofs a code works no more.
BURNT = 5


@dataclass(eq=False, slots=True)
class App:
    """A client, as it knows itself."""

    name: str
    client: Client
    secret: str | None
    # What it manages its registration with, if it registered itself: the token that it used last, and a newer one.
    tokens: list[str] = field(default_factory=list)
    # Those that a newer one has taken the place of.
    old_tokens: list[str] = field(default_factory=list)
    called: str = ""
    is_gone: bool = False
    # Which of two documents describes it, if one does. What waits for one of them is void while the other is published.
    described: int = 0

    @property
    def redirect_uri(self) -> str:
        return self.client.redirect_uris[0]


@dataclass(eq=False, slots=True)
class Browser:
    """A browser, and who is signed in to it."""

    http: TestApp
    person: str | None = None
    # Where it was sent with codes.
    sent: set[str] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class Page:
    """A page that asks somebody about a request, in one browser."""

    browser: Browser
    app: App
    scopes: frozenset[str]
    shown: TestResponse
    # Whom it was shown to; None on a page that asks for a sign-in.
    person: str | None
    # The name of the application on it, and what described that.
    called: str
    described: int
    location: str | None = None


@dataclass(eq=False, slots=True)
class Access:
    """What a client may do for a person, and the credentials that came of it."""

    app: App
    person: str
    scopes: frozenset[str]
    code: str
    described: int
    is_live: bool = True
    is_redeemed: bool = False
    failures: int = 0
    access: list[str] = field(default_factory=list)
    refresh: list[str] = field(default_factory=list)


def test_no_sequence_gives_to_one_what_is_anothers(world: World) -> None:
    Steps.world = world
    run_state_machine_as_test(
        Steps,
        settings=settings(
            max_examples=SEQUENCES, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck)
        ),
    )
    REPORT.append(f"{world.counted['refusals']} refusals were counted in {world.counted['events']} events")
    if IS_LONG:
        assert world.counted["refusals"] > world.counted["events"] > 0


class Steps(RuleBasedStateMachine):
    """The steps, and the model. Each begins with the world as it is made."""

    world: World
    apps = Bundle("apps")
    pages = Bundle("pages")
    accesses = Bundle("accesses")
    requests = Bundle("requests")
    browsers = Bundle("browsers")

    @initialize(target=apps)
    def begin(self) -> Any:
        """The clients and people of the world, two new browsers, and what ann and bob agreed to."""
        world = self.world
        self.granted: list[Access] = []
        # Whom each person has agreed to let in, with what.
        self.agreed: dict[tuple[str, str], frozenset[str]] = {
            ("ann", name): SCOPES
            for name in (
                *("web", "post", "native", "bound", "stranger", "gone"),
                *("signer", "fetching", "document", "keyed", "remote", "changed"),
            )
        } | {("bob", "web"): SCOPES}
        self.everywhere: list[Browser] = []
        names = ("web", "post", "native", "stranger", "first", "signer", "document", "keyed")
        known = {name: world.known.get(f"registration token of {name}") for name in names}
        begun = {
            name: App(name, world.clients[name], world.secrets[name], [token] if token else [], called=name)
            for name, token in known.items()
        }
        self.documented = begun["document"]
        return multiple(*begun.values())

    def teardown(self) -> None:
        self.world.end_minute()
        self.world.put_everything_back()
        self._publish(0)

    # ---- browsers and people ----------------------------------------------------------------------------

    @rule(target=browsers)
    def open(self) -> Any:
        if len(self.everywhere) == 2:
            return multiple()
        browser = Browser(self.world.api())
        self.everywhere.append(browser)
        return browser

    @rule(
        browser=browsers,
        person=st.sampled_from(PEOPLE),
        password=st.sampled_from((PASSWORD, PASSWORD, "wrong")),
    )
    def sign_in(self, browser: Browser, person: str, password: str) -> None:
        answer = sign_in_at(browser.http.get("/login"), person, password)
        assert (answer.status_int == 303) == (password == PASSWORD)
        if password == PASSWORD:
            browser.person = person

    @rule(browser=browsers)
    def sign_out(self, browser: Browser) -> None:
        page = browser.http.get("/logout")
        if browser.person:
            form_with(page, "csrf_token").submit()
            browser.person = None

    @rule(browser=browsers)
    def look_at_account(self, browser: Browser) -> None:
        """A person sees the applications that they let in, and none that only another did."""
        page = browser.http.get("/account/apps")
        if browser.person is None:
            assert urlsplit(page.location).path == "/login"
            return
        for access in self.granted:
            # A code alone is no access yet.
            if access.is_live and access.access and access.person == browser.person:
                assert access.app.client.client_id in page.text
        for own in {app for person, app in self.agreed if person != browser.person}:
            client_id = self.world.clients[own].client_id if own in self.world.clients else own
            if not any(app == own for person, app in self.agreed if person == browser.person) and not any(
                access.app.name == own for access in self.granted if access.person == browser.person
            ):
                assert f'value="{client_id}"' not in page.text

    @rule(browser=browsers, app=apps)
    def disconnect(self, browser: Browser, app: App) -> None:
        if self._post(browser, "apps", disconnect=app.client.client_id):
            assert browser.person
            self._end(browser.person, app)

    @rule(browser=browsers)
    def end_other_sessions(self, browser: Browser) -> None:
        if self._post(browser, "sessions", others="yes"):
            for other in self.everywhere:
                if other is not browser and other.person == browser.person:
                    other.person = None

    @rule(browser=browsers)
    def sign_out_everywhere(self, browser: Browser) -> None:
        person = browser.person
        if self._post(browser, "sign-out-everywhere"):
            for other in self.everywhere:
                other.person = None if other.person == person else other.person
            assert person
            self._end(person, None)

    def _post(self, browser: Browser, page: str, **fields: str) -> bool:
        """Send a form of a page of the account; whether somebody is signed in."""
        if browser.person is None:
            answer = browser.http.post(f"/account/{page}", {"csrf_token": "x", **fields}, status=403)
            assert answer.status_int == 403
            return False
        form = {"csrf_token": token_for(self.world.server, browser.http, page), **fields}
        answer = browser.http.post(f"/account/{page}", form, status="*")
        assert answer.status_int in (200, 303), answer.text
        return True

    def _end(self, person: str, app: App | None) -> None:
        """Everything that this person agreed to with this client, or with all, has ended."""
        for access in self.granted:
            if access.person == person and app in (None, access.app):
                access.is_live = False
        for key in [key for key in self.agreed if key[0] == person and (app is None or key[1] == app.name)]:
            del self.agreed[key]

    # ---- authorization ----------------------------------------------------------------------------------

    @rule(target=apps, number=st.integers(0, 9))
    def register(self, number: int) -> App:
        http = self.world.api()
        metadata = {
            "client_name": f"App {number}",
            "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "scope": "profile files.read",
        }
        answer = http.post_json(
            "/oauth/register", metadata, headers={"Authorization": f"Bearer {INITIAL_TOKEN}"}
        )
        with self.world.server.begin() as engine:
            client = engine.stores.clients.find(answer.json["client_id"], engine.now)
        assert client is not None
        tokens = [answer.json["registration_access_token"]]
        return App(client.client_id, client, None, tokens, called=client.name)

    @rule(app=apps, data=st.data())
    def read_registration(self, app: App, data: st.DataObject) -> None:
        """A token that is used is the only one from then on."""
        token = self._token_of(app, data)
        if token is None:
            return
        answer = self._manage("GET", app, token)
        may = token in app.tokens and not app.is_gone
        assert (answer.status_int == 200) == may, answer.text
        if may:
            self._used(app, token)
            assert answer.json["client_name"] == app.called

    @rule(app=apps, data=st.data(), number=st.integers(0, 9), right=st.sampled_from((True, True, False)))
    def change_registration(self, app: App, data: st.DataObject, number: int, right: bool) -> None:
        token = self._token_of(app, data)
        if token is None:
            return
        metadata = {
            "client_id": app.client.client_id,
            "client_name": f"App {number}",
            "redirect_uris": [REDIRECT_URI] if right else [],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "scope": "profile files.read",
        }
        answer = self._manage("PUT", app, token, metadata)
        may = token in app.tokens and not app.is_gone
        assert answer.status_int == (401 if not may else 200 if right else 400), answer.text
        if may and right:
            self._used(app, token)
            app.old_tokens += app.tokens[1:]
            app.tokens = [token, answer.json["registration_access_token"]]
            app.called = f"App {number}"

    @rule()
    def change_document(self) -> None:
        app = self.documented
        app.described = 1 - app.described
        self._publish(app.described)

    def _publish(self, number: int) -> None:
        also = [OTHER_URI] if number else []
        self.world.documents.publish("document", redirect_uris=[REDIRECT_URI, *also])
        self.world.forget_documents()

    @rule(app=apps, data=st.data(), really=st.sampled_from((True, False, False)))
    def end_registration(self, app: App, data: st.DataObject, really: bool) -> None:
        """Everything that people agreed to with it has ended, and it is told so everywhere."""
        token = self._token_of(app, data)
        if token is None or not (really or app.is_gone):
            return
        may = token in app.tokens and not app.is_gone
        assert self._manage("DELETE", app, token).status_int == (204 if may else 401)
        if may:
            app.is_gone = True
            for person in PEOPLE:
                self._end(person, app)

    def _token_of(self, app: App, data: st.DataObject) -> str | None:
        if not app.tokens:
            return None
        return data.draw(st.sampled_from([*app.tokens, *app.tokens, *app.old_tokens]))

    def _used(self, app: App, token: str) -> None:
        app.old_tokens += app.tokens[: app.tokens.index(token)]
        app.tokens = app.tokens[app.tokens.index(token) :]

    def _manage(self, method: str, app: App, token: str, body: object = None) -> TestResponse:
        return self.world.api().request(
            f"{ISSUER}/oauth/register/client?{urlencode({'client_id': app.client.client_id})}",
            method=method,
            body=json.dumps(body).encode() if body else b"",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            expect_errors=True,
        )

    @rule(
        browser=browsers,
        app=apps,
        scopes=st.sampled_from((SCOPES, frozenset({"profile"}))),
        # `login` and `none` lead to other pages than a story has: `test_messages.py` sends them.
        prompt=st.sampled_from((None, None, "consent")),
        target=pages,
    )
    def authorize(self, browser: Browser, app: App, scopes: frozenset[str], prompt: str | None) -> Any:
        query = authorization_query(app.client, scope=" ".join(sorted(scopes)), prompt=prompt)
        return self._go_on(browser, app, scopes, browser.http.get(f"/oauth/authorize?{query}", status="*"))

    @rule(app=apps, target=requests)
    def push(self, app: App) -> Any:
        query = authorization_query(app.client, scope="profile")
        answer = self._client_post("/oauth/par", app, query)
        assert answer.status_int == (401 if app.is_gone else 201), answer.text
        if app.is_gone:
            return multiple()
        return (app, answer.json["request_uri"], app.described)

    @rule(
        browser=browsers, request=requests, app=apps, own=st.sampled_from((True, True, False)), target=pages
    )
    def authorize_pushed(self, browser: Browser, request: tuple[App, str, int], app: App, own: bool) -> Any:
        """A reference works for its own client alone, as it was when it made the request."""
        owner, reference, described = request
        app = owner if own else app
        query = urlencode({"client_id": app.client.client_id, "request_uri": reference})
        answer = browser.http.get(f"/oauth/authorize?{query}", status="*")
        if owner is not app or described != app.described:
            assert answer.status_int == 400
            return multiple()
        return self._go_on(browser, app, frozenset({"profile"}), answer)

    @rule(page=pages, person=st.sampled_from(PEOPLE), target=pages)
    def sign_in_for_it(self, page: Page, person: str) -> Any:
        if page.person is not None:
            return multiple()
        answer = sign_in_at(page.shown, person)
        if answer.status_int != 303 or urlsplit(answer.location).path == "/login":
            return multiple()
        page.browser.person = person
        return self._go_on(page.browser, page.app, page.scopes, answer)

    @rule(
        page=pages,
        given=st.sampled_from(("allow", "allow", "deny")),
        scopes=st.sampled_from((SCOPES, frozenset({"profile"}))),
    )
    def consent(self, page: Page, given: str, scopes: frozenset[str]) -> None:
        """An answer counts once, and only of the person who saw the page."""
        if page.person is None:
            return
        chosen = page.scopes & scopes
        answer = self.world.server.consent(page.shown, given, sorted(chosen))
        leads_on = answer.status_int == 303 and not answer.location.startswith(ISSUER)
        is_current = not page.app.is_gone and (page.called, page.described) == (
            page.app.called,
            page.app.described,
        )
        may = page.browser.person == page.person and page.location is None and is_current
        if leads_on and page.location is None and answer.location in page.browser.sent:
            # A policy has answered the request meanwhile, for who is signed in now: nothing is issued again.
            return
        if page.location is not None:
            # The same answer again leads to the same place, any other nowhere.
            assert not leads_on or answer.location == page.location
        elif leads_on:
            assert may, answer.location
            page.location = answer.location
            if given == "allow":
                self.agreed[page.person, page.app.name] = self._agreed(page.person, page.app) | chosen
                self._issued(page.browser, page.app, chosen, answer)
            else:
                assert query_of(answer)["error"] == "access_denied"
        else:
            assert not may, (answer.status, answer.text)

    def _go_on(self, browser: Browser, app: App, scopes: frozenset[str], answer: TestResponse) -> Any:
        """What an authorization request came to: a page, or a response to the client."""
        while answer.status_int == 303 and answer.location.startswith(f"{ISSUER}/"):
            answer = browser.http.get(answer.location.removeprefix(ISSUER), status="*")
        if answer.status_int == 303:
            values = query_of(answer)
            assert answer.location.startswith(app.redirect_uri)
            if "code" in values:
                assert browser.person is not None
                assert app.name == "first" or scopes <= self._agreed(browser.person, app)
                assert not app.client.is_self_registered
                self._issued(browser, app, scopes, answer)
            return multiple()
        if answer.status_int != 200:
            return multiple()
        asks_sign_in = "username" in {name for form in answer.forms.values() for name in form.fields}
        person = None if asks_sign_in else browser.person
        return Page(browser, app, scopes, answer, person, app.called, app.described)

    def _agreed(self, person: str, app: App) -> frozenset[str]:
        return self.agreed.get((person, app.name), frozenset())

    def _issued(self, browser: Browser, app: App, scopes: frozenset[str], answer: TestResponse) -> None:
        assert browser.person is not None
        code = query_of(answer)["code"]
        browser.sent.add(answer.location)
        self.granted.append(Access(app, browser.person, scopes, code, app.described))

    # ---- tokens -----------------------------------------------------------------------------------------

    @rule(data=st.data(), by=apps, right=st.sampled_from((True, True, True, False)))
    def redeem(self, data: st.DataObject, by: App, right: bool) -> None:
        access = self._any(data, lambda access: True)
        if access is None:
            return
        by = data.draw(st.sampled_from((access.app, access.app, access.app, by)))
        verifier = VERIFIER if right else "x" * 43
        form = {"grant_type": "authorization_code", "code": access.code, "code_verifier": verifier}
        answer = self._client_post("/oauth/token", by, urlencode(form))
        is_owner = by is access.app
        is_current = access.described == access.app.described
        may = is_owner and right and access.is_live and not access.is_redeemed and access.failures < BURNT
        may = may and is_current
        assert (answer.status_int == 200) == may, (answer.text, access)
        if may:
            access.is_redeemed = True
            self._got(access, answer)
        elif is_owner and not right:
            access.failures += 1
        elif is_owner and access.is_redeemed:
            # A second time: whoever has the tokens may be a thief.
            access.is_live = False

    @rule(data=st.data(), by=apps, newest=st.sampled_from((True, True, True, False)))
    def refresh(self, data: st.DataObject, by: App, newest: bool) -> None:
        access = self._any(data, lambda access: bool(access.refresh))
        if access is None:
            return
        by = data.draw(st.sampled_from((access.app, access.app, access.app, by)))
        token = access.refresh[-1 if newest else 0]
        form = {"grant_type": "refresh_token", "refresh_token": token}
        answer = self._client_post("/oauth/token", by, urlencode(form))
        is_owner, is_newest = by is access.app, token == access.refresh[-1]
        may = is_owner and is_newest and access.is_live
        assert (answer.status_int == 200) == may, (answer.text, access)
        if may:
            self._got(access, answer)
        elif is_owner and not is_newest:
            access.is_live = False

    @rule(data=st.data(), by=apps)
    def introspect(self, data: st.DataObject, by: App) -> None:
        """A client learns of its own live tokens, and of no others."""
        access = self._any(data, lambda access: bool(access.access))
        if access is None:
            return
        by = data.draw(st.sampled_from((by, access.app)))
        if by.client.is_public:
            return
        token = data.draw(st.sampled_from([*access.access, *access.refresh[-1:]]))
        answer = self._client_post("/oauth/introspect", by, urlencode({"token": token}))
        assert answer.status_int == 200
        assert answer.json["active"] == (access.is_live and by is access.app)
        if answer.json["active"]:
            assert answer.json["client_id"] == by.client.client_id
            assert {*answer.json["scope"].split()} <= access.scopes

    @rule(data=st.data(), by=apps)
    def revoke(self, data: st.DataObject, by: App) -> None:
        access = self._any(data, lambda access: bool(access.access))
        if access is None:
            return
        by = data.draw(st.sampled_from((access.app, by)))
        token = data.draw(st.sampled_from([*access.access, *access.refresh]))
        answer = self._client_post("/oauth/revoke", by, urlencode({"token": token}))
        assert answer.status_int == (401 if by.is_gone else 200)
        if by is access.app:
            access.is_live = False

    def _any(self, data: st.DataObject, suits: Callable[[Access], bool]) -> Access | None:
        suitable = [access for access in self.granted if suits(access)]
        return data.draw(st.sampled_from(suitable)) if suitable else None

    def _got(self, access: Access, answer: TestResponse) -> None:
        """What an answer gives belongs to this access, and to nothing more."""
        claims = self.world.server.claims(answer.json["access_token"])
        assert claims["client_id"] == access.app.client.client_id
        assert {*answer.json["scope"].split()} <= access.scopes
        assert claims["sub"] == self.world.users[access.person]
        access.access.append(answer.json["access_token"])
        if "refresh_token" in answer.json:
            access.refresh.append(answer.json["refresh_token"])

    def _client_post(self, path: str, app: App, form: str) -> TestResponse:
        headers = {}
        if app.client.auth_method == "client_secret_basic":
            headers["Authorization"] = basic(app.client.client_id, app.secret or "")
        elif "client_id=" not in form:
            form = f"{form}&{urlencode({'client_id': app.client.client_id})}"
        form = "&".join(filter(None, (form, urlencode(self.world.signed(app.name)))))
        if app.client.auth_method == "client_secret_post":
            form = f"{form}&{urlencode({'client_secret': app.secret})}"
        return self.world.api().post(
            path, form, headers=headers, content_type="application/x-www-form-urlencoded", status="*"
        )
