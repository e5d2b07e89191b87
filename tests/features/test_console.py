"""The pages for operators: who sees them, what they show of hostile texts, and that nothing is changed by accident."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from shutil import copyfile
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from pyramid.config import Configurator
from pyramid.response import Response
from webtest import TestApp, TestResponse

from authserver.administration import BadUsername, change, overview
from authserver.api import hookimpl
from authserver.engine.crypto import digests
from authserver.engine.crypto.sealing import to_text
from authserver.engine.records import Event, EventType
from authserver.features.console import PAGES, AdminConsole
from authserver.features.console.access import Role
from authserver.features.console.pages import Page, Visit, view_of
from authserver.settings import SettingsError
from authserver.testing.server import PASSWORD, SETTINGS, Server, form_with, query_of

# A person of each role, and one without any.
PEOPLE = {
    "rita": ("support", Role.READ),
    "oscar": ("operators", Role.OPERATE),
    "ada": ("authserver-admins", Role.ADMINISTER),
    "ann": ("staff", None),
}
HOSTILE = "<script>alert(1)</script>\u202egnp.exe\x1b[31m" + "x" * 10_000
ACCESS = AdminConsole(read=("support",), operate=("operators",)).access


def show(visit: Visit) -> Mapping[str, Any]:
    return {}


def rename(visit: Visit) -> Response:
    """Give a person another name; the name `nobody` is refused after it was stored."""
    user = visit.engine.stores.users.find_by_name(visit.get("username"))
    assert user
    change(visit.engine, user, display_name=visit.get("name"))
    if visit.get("name") == "nobody":
        raise BadUsername("nobody is no name: choose another")
    return visit.see("admin_rename", done="Renamed <b>one</b> person.", username=user.username)


# A page with a form, as other pages have them.
RENAME = Page(
    name="admin_rename",
    path="/admin/rename",
    show=show,
    template="problem.jinja2",
    act=rename,
    act_role=Role.OPERATE,
    keys=("username",),
    entry="Rename",
)
FORMS = [page for page in (*PAGES, RENAME) if page.act]


@dataclass(frozen=True)
class OnePageMore:
    """A page for operators that another plugin adds."""

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        view = view_of(RENAME, (RENAME,), ACCESS)
        config.add_endpoint(RENAME.route, view, otherwise=view)


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("console") / "authserver.db"
    copyfile(migrated_sqlite_file, path)
    plugins = f"{SETTINGS['authserver.plugins']}\nadmin_console\n{__name__}:OnePageMore"
    server = Server(
        f"sqlite:///{path}",
        {
            "authserver.plugins": plugins,
            "authserver.plugin.admin_console.read": "support",
            "authserver.plugin.admin_console.operate": "operators",
        },
    )
    for username, (group, _) in PEOPLE.items():
        server.add_user(username, groups=[group])
    yield server
    server.close()


@pytest.fixture(scope="module")
def browsers(server: Server) -> dict[str, TestApp]:
    """A signed-in browser of each person."""
    return {username: signed_in(server, username) for username in PEOPLE}


@pytest.fixture
def reader(browsers: dict[str, TestApp]) -> TestApp:
    return browsers["rita"]


def signed_in(server: Server, username: str) -> TestApp:
    browser = server.browser()
    server.sign_in(browser, username)
    return browser


def session_id(browser: TestApp) -> str:
    (cookie,) = [value for name, value in browser.cookies.items() if name.endswith("authserver-session")]
    return cookie.partition(".")[0]


def age(server: Server, browser: TestApp, seconds: int) -> None:
    """Let the session of a browser have begun that much earlier."""
    with server.begin() as engine:
        digest = digests.digest("session", session_id(browser))
        found = engine.stores.sessions.find(digest, engine.now, engine.now - timedelta(days=1))
        assert found
        began = found.session.authenticated_at - timedelta(seconds=seconds)
        engine.stores.sessions.end(digest)
        engine.stores.sessions.add(replace(found.session, authenticated_at=began))


def sign_in_query(answer: TestResponse) -> dict[str, str] | None:
    """The query with which an answer sends somebody to sign in; None for any other answer."""
    location = urlsplit(answer.location or "")
    return dict(parse_qsl(location.query)) if location.path == "/login" else None


def token(server: Server, browser: TestApp, page: Page) -> str:
    """The form token of a session for a page."""
    sent = f"{session_id(browser)} {page.name}"
    return to_text(server.application.parts.ring.mac(sent.encode(), purpose="form-token"))


def store(server: Server, **values: Any) -> Event:
    """An event that is stored now, with these members."""
    with server.begin() as engine:
        event = replace(engine.event(EventType.TOKEN_REFUSED, reason="scope-not-registered"), **values)
        engine.stores.events.add(event)
    return event


def words(answer: TestResponse) -> str:
    """What a page says, without its error id."""
    return re.sub(r"[A-Za-z0-9_-]{22}", "", answer.html.main.get_text(" ", strip=True))


# ---- who sees it ------------------------------------------------------------------------------------


def test_without_its_line_there_is_nothing(sqlite_url: str) -> None:
    server = Server(sqlite_url)
    server.add_user("ada", groups=["authserver-admins"])
    browser = signed_in(server, "ada")
    for page in PAGES:
        assert browser.get(page.path, expect_errors=True).status_int == 404
    server.close()


@pytest.mark.parametrize("page", [*PAGES, RENAME], ids=lambda page: page.name)
@pytest.mark.parametrize("username", PEOPLE)
def test_a_page_is_404_for_whoever_may_not_see_it(
    server: Server, browsers: dict[str, TestApp], page: Page, username: str
) -> None:
    """T146: a person without the role cannot tell the page from one that is not there."""
    role = PEOPLE[username][1]
    in_german = {"Accept-Language": "de"}
    answer = browsers[username].get(page.path, headers=in_german, expect_errors=True)
    by_another_method = browsers[username].put(page.path, expect_errors=True)
    if role is None or role < page.role:
        there_is_none = browsers[username].get("/admin/no-such-page", headers=in_german, expect_errors=True)
        assert answer.status_int == there_is_none.status_int == by_another_method.status_int == 404
        assert words(answer) == words(there_is_none)
    elif role >= page.act_role:
        assert by_another_method.status_int == 405
        assert by_another_method.headers["Allow"] == ", ".join(page.route.methods)
    if role is not None and role >= page.role:
        # Without what the page is about it may be that there is no such thing.
        assert answer.status_int in ((200, 400, 404) if page.keys else (200,))


@pytest.mark.parametrize("page", [*PAGES, RENAME], ids=lambda page: page.name)
def test_a_stranger_is_sent_to_sign_in_and_comes_back(server: Server, page: Page) -> None:
    """E-18: to the same page with the same query."""
    answer = server.browser().get(f"{page.path}?search=a%26b", expect_errors=True)
    assert sign_in_query(answer) == {"page": f"{page.name}?search=a%26b"}


def test_an_old_sign_in_is_asked_for_again_on_every_page(server: Server) -> None:
    """With its query, and although the session lives."""
    browser = signed_in(server, "ada")
    age(server, browser, ACCESS.age_for_reading + 61)
    for page in [*PAGES, RENAME]:
        asked = sign_in_query(browser.get(f"{page.path}?search=x", expect_errors=True))
        assert asked == {"page": f"{page.name}?search=x", "again": "yes"}


@pytest.mark.parametrize("page", FORMS, ids=lambda page: page.name)
def test_a_form_needs_role_token_and_a_recent_sign_in(server: Server, page: Page) -> None:
    """T092, T147: in this order; a refused form has done nothing, and after a sign-in it is shown again."""
    people = [(role, signed_in(server, username)) for username, (_, role) in PEOPLE.items()]
    events = server.rows("events")
    for role, browser in people:
        may = role is not None and role >= page.act_role
        forged = browser.post(page.path, {"csrf_token": "forged"}, expect_errors=True)
        assert forged.status_int == (403 if may else 404)
        form = {"csrf_token": token(server, browser, page), **dict.fromkeys(page.keys, "a&b")}
        foreign = browser.post(
            page.path, form, headers={"Origin": "https://evil.example"}, expect_errors=True
        )
        assert foreign.status_int == (403 if may else 404)
        other = {"csrf_token": token(server, browser, replace(page, name="admin_other"))}
        assert browser.post(page.path, other, expect_errors=True).status_int == (403 if may else 404)
        age(server, browser, ACCESS.age_for_changing + 61)
        asked = sign_in_query(browser.post(page.path, form, expect_errors=True))
        kept = "&".join(f"{key}=a%26b" for key in page.keys)
        back = f"{page.name}?{kept}" if kept else page.name
        assert asked == ({"page": back, "again": "yes"} if may else None)
    assert server.browser().post(page.path, {"csrf_token": "x"}, expect_errors=True).status_int == 403
    new = {row["type"] for row in server.rows("events")[len(events) :]}
    assert new <= {EventType.REQUEST_REFUSED, EventType.SIGNED_IN}


def test_a_sign_in_leads_back_to_the_page(server: Server) -> None:
    browser = server.browser()
    asked = browser.get("/admin/audit?client=reports&event=refused").follow()
    form = form_with(asked, "username")
    form["username"], form["password"] = "ada", PASSWORD
    back = form.submit()
    assert urlsplit(back.location).path == "/admin/audit"
    assert query_of(back) == {"client": "reports", "event": "refused"}
    assert back.follow().status_int == 200


def test_signing_in_again_takes_the_password(server: Server) -> None:
    """A session that is too old does not help; a wrong password leads to the same form."""
    browser = signed_in(server, "ada")
    age(server, browser, ACCESS.age_for_reading + 61)
    asked = browser.get("/admin/audit?client=reports").follow()
    assert "You are signed in, but for this request you need to sign in again." in asked.text
    form = form_with(asked, "username")
    form["password"] = "not the password"
    form = form_with(form.submit(expect_errors=True), "username")
    form["password"] = PASSWORD
    back = form.submit()
    assert query_of(back) == {"client": "reports"}
    assert back.follow().status_int == 200


def test_a_role_ends_with_the_group(server: Server) -> None:
    """R-09: at the next request."""
    server.add_user("temporary", groups=["support"])
    browser = signed_in(server, "temporary")
    assert browser.get("/admin").status_int == 200
    with server.begin() as engine:
        user = engine.stores.users.find_by_name("temporary")
        assert user
        change(engine, user, groups=())
    assert browser.get("/admin", expect_errors=True).status_int == 404


def test_a_sign_in_may_be_as_old_as_the_session(sqlite_url: str) -> None:
    """For people whom a proxy signs in: they have no password to type."""
    ages = {f"authserver.plugin.admin_console.age_for_{what}": "0" for what in ("reading", "changing")}
    plugins = f"{SETTINGS['authserver.plugins']}\nadmin_console"
    server = Server(sqlite_url, {"authserver.plugins": plugins, **ages})
    server.add_user("ada", groups=["authserver-admins"])
    browser = signed_in(server, "ada")
    age(server, browser, 80_000)
    assert browser.get("/admin").status_int == 200
    server.close()


@pytest.mark.parametrize("name", ["age_for_reading", "age_for_changing"])
def test_an_age_is_a_number_of_seconds(sqlite_url: str, name: str) -> None:
    settings = {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nadmin_console",
        f"authserver.plugin.admin_console.{name}": "-1",
    }
    with pytest.raises(SettingsError, match=f"{name}: 0 to 31536000 seconds"):
        Server(sqlite_url, settings)


# ---- what a form does -------------------------------------------------------------------------------


def test_what_was_done_is_said_once_and_cannot_be_forged(
    server: Server, browsers: dict[str, TestApp]
) -> None:
    """The sentence travels sealed, for this session alone."""
    browser = browsers["oscar"]
    form = {"csrf_token": token(server, browser, RENAME), "username": "ann", "name": "Ann Lee"}
    answer = browser.post(RENAME.path, form)
    page = answer.follow()
    assert page.html.find(role="status").get_text(strip=True) == "Renamed <b>one</b> person."
    assert query_of(answer)["username"] == "ann"
    assert browsers["ada"].get(answer.location).html.find(role="status") is None
    assert browser.get(f"{RENAME.path}?done=Everything+is+gone").html.find(role="status") is None
    events = [row for row in server.rows("events") if row["type"] == EventType.USER_CHANGED]
    assert events[-1]["actor"].startswith("user:")


def test_a_refused_form_stores_nothing_and_is_shown_again(
    server: Server, browsers: dict[str, TestApp]
) -> None:
    """What was stored before the refusal is undone, its event too."""
    browser = browsers["oscar"]
    before = server.rows("users")
    form = {"csrf_token": token(server, browser, RENAME), "username": "ann", "name": "nobody"}
    answer = browser.post(RENAME.path, form, expect_errors=True)
    assert answer.status_int == 400
    assert answer.html.find(role="alert").get_text(strip=True) == "nobody is no name: choose another"
    assert server.rows("users") == before
    assert server.rows("events")[-1]["type"] == EventType.REQUEST_REFUSED
    twice = browser.post(RENAME.path, [*form.items(), ("name", "again")], expect_errors=True)
    assert twice.html.find(role="alert").get_text(strip=True) == "name occurs more than once"


# ---- the pages --------------------------------------------------------------------------------------


def test_the_overview_says_what_needs_attention(server: Server, reader: TestApp) -> None:
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=("files.read",))
    assert (
        server.token(client, secret, grant_type="client_credentials", scope="files.write").status_int == 400
    )
    with server.begin() as engine:
        old = client.secrets[0]
        soon = replace(old, expires_at=engine.now + timedelta(days=6))
        assert engine.stores.clients.change_secret(client.client_id, old, soon)
    yesterday = store(server, reason="secret-wrong", details={"more": {"count": 41, "sources": 2}})
    page = reader.get("/admin")
    text = words(page)
    assert "1 client has a secret that ends within 30 days." in text
    assert client.client_id[:20] in page.text
    assert re.search(r"secret-wrong 42 0", text), "an event that stands for others counts as all of them"
    link = page.html.find("a", string=re.compile("secret-wrong"))
    assert yesterday.event_id in reader.get(link["href"]).text


def test_numbers_are_counted_up_to_a_limit(
    server: Server, reader: TestApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T146: no whole table is counted for a page."""
    monkeypatch.setattr(overview, "MAXIMUM_COUNTED", 2)
    assert "2+ People" in words(reader.get("/admin")).replace("People 2+", "2+ People")


def test_why_was_this_client_refused_is_answered_within_two_clicks(server: Server, reader: TestApp) -> None:
    """From the client's id to every check, the reason, and the command that would change it."""
    client, secret = server.add_client(
        client_name="Reports", grant_types=("client_credentials",), scopes=("files.read",)
    )
    refused = server.token(client, secret, grant_type="client_credentials", scope="files.write")
    form = form_with(reader.get("/admin"), "error_id")
    form["client"] = client.client_id
    found = form.submit()  # the first click
    rows = found.html.tbody.find_all("tr")
    assert len(rows) == 1 and "token.refused" in rows[0].text and "Reports" in rows[0].text
    told = found.click(href=re.escape(rows[0].a["href"]).replace("&", "&(amp;)?"))  # the second
    text = told.html.main.get_text(" ", strip=True)
    assert refused.json["error_id"] in text
    assert "scope-not-registered" in text
    assert f"authserver client edit {client.client_id} --add-scope files.write" in text
    assert re.search(r"scope_decision deny", text)

    by_id = form_with(reader.get("/admin"), "error_id")
    by_id["error_id"] = refused.json["error_id"]
    assert len(by_id.submit().html.tbody.find_all("tr")) == 1


def test_events_are_shown_page_by_page(server: Server, reader: TestApp) -> None:
    """T146: a page has 50 events, and the next begins after them, whatever is stored meanwhile."""
    ids = {store(server, client_id="many").event_id for _ in range(120)}
    page, seen = reader.get("/admin/audit?client=many"), []
    while True:
        seen += [
            dict(parse_qsl(urlsplit(link["href"]).query))["event_id"]
            for link in page.html.select("tbody a[href*=event_id]")
        ]
        following = page.html.find("a", rel="next")
        if following is None:
            break
        late = store(server, client_id="many").event_id
        page = reader.get(following["href"])
        assert late not in page.text
    assert len(seen) == 120 and set(seen) == ids
    assert page.html.find("a", string="First page")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("after=nonsense", "'nonsense' is not a cursor"),
        ("after=20261130T100000.000000Z_%00", "%00"),
        ("event=token.refuzed", "did you mean token.refused"),
        ("since=yesterday", "'yesterday' is neither like 7d, 12h or 30m nor a time in ISO 8601"),
        ("since=999999w", "is neither like 7d"),
        ("since=1d&until=2d", "the beginning of the time is not before its end"),
        ("source=nowhere", "'nowhere' is not a network address"),
        ("user=nobody-at-all", "there is no such person"),
        ("actor=stranger", "give the time since when"),
        ("client=a&client=b", "client occurs more than once"),
    ],
)
def test_what_cannot_be_searched_for_is_refused_with_a_sentence(
    reader: TestApp, query: str, said: str
) -> None:
    """T146, T147: a tampered cursor too."""
    answer = reader.get(f"/admin/audit?{query}", expect_errors=True)
    assert answer.status_int == 400
    assert said in answer.html.get_text() or said == "%00"


def test_an_event_that_is_not_there_is_not_found(reader: TestApp) -> None:
    for query in ("", "?event_id=none", "?event_id=%F0%9F%98%80"):
        assert reader.get(f"/admin/audit/event{query}", expect_errors=True).status_int in (400, 404)


def test_settings_are_shown_with_where_they_come_from_and_without_secrets(
    server: Server, reader: TestApp
) -> None:
    page = reader.get("/admin/settings")
    rows = {
        cells[0].code.get_text(): [cell.get_text(" ", strip=True) for cell in cells]
        for cells in (row.find_all("td") for row in page.html.select("tbody tr"))
    }
    assert rows["authserver.issuer"][1:] == [server.issuer, "INI file"]
    assert rows["authserver.code_lifetime"][1:] == ["60", "default"]
    assert rows["authserver.secret_keys"][1:] == ["(secret)", "INI file"]
    assert rows["authserver.plugin.admin_console.read"][1:] == ["support", "INI file"]
    for secret in (SETTINGS["authserver.secret_keys"], server.ini["authserver.database_url"]):
        assert secret.partition(":")[2] not in page.text
    fewer = reader.get("/admin/settings?search=plugin.admin_console").html.select("tbody tr")
    assert len(fewer) == 5


def test_hostile_texts_are_shown_harmless(server: Server, reader: TestApp) -> None:
    """T094, T147: markup, bidi controls, terminal escapes and 10 kB, in every field that is shown."""
    client, _secret = server.add_client(grant_types=("client_credentials",), scopes=("files.read",))
    with server.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
        assert user
        soon = replace(client.secrets[0], expires_at=engine.now + timedelta(days=2))
        engine.stores.clients.change_secret(client.client_id, client.secrets[0], soon)
        decision = {
            "slot": "scope_decision",
            "verdict": "deny",
            "reason": HOSTILE,
            "decided_by": HOSTILE,
            "facts": {"requested": [HOSTILE], HOSTILE: HOSTILE},
            "outcome": HOSTILE,
            "answers": [{"plugin": HOSTILE, "verdict": "deny", "reason": HOSTILE, "microseconds": 1}],
        }
    event = store(
        server,
        client_id=client.client_id,
        user_id=HOSTILE,
        grant_id=HOSTILE,
        actor=f"command:{HOSTILE}",
        source=HOSTILE,
        reason=HOSTILE,
        decisions=(decision,),
        details={"description": HOSTILE, "endpoint": HOSTILE},
    )
    for path in (
        "/admin",
        f"/admin/audit?client={client.client_id}",
        f"/admin/audit/event?event_id={event.event_id}",
    ):
        page = reader.get(path)
        assert not {"\u202e", "\x1b"} & set(page.text), path
        assert "<script" not in page.text, path
        assert "x" * 1_001 not in page.html.get_text(), path
        assert "\\u202e" in page.text, path
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy
        assert not page.html.find_all(style=True)
    for name in ("search", "client", "user", "reason", "since", "after"):
        answer = reader.get("/admin/audit", {name: HOSTILE[:200]}, expect_errors=True)
        assert answer.status_int in (200, 400)
        assert "<script" not in answer.text


def test_pages_are_in_english_and_say_so(server: Server, browsers: dict[str, TestApp]) -> None:
    page = browsers["rita"].get("/admin", headers={"Accept-Language": "de"})
    assert page.html.html["lang"] == "en"
    assert "Skip to the content" in page.text
