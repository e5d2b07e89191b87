"""The pages for operators about people, grants and the kill switch: what they show, do, refuse and record."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from shutil import copyfile
from typing import Any
from urllib.parse import urlsplit

import pytest
from webtest import TestApp, TestResponse

from authserver.api import Mail, hookimpl, identity_handle
from authserver.engine import ending
from authserver.engine.crypto.digests import new_identifier
from authserver.engine.people.password_links import open_link
from authserver.engine.records import VOUCHED_BY, Client, Event, EventType, Grant, User
from authserver.features.console import kill_switch
from authserver.testing.records import a_consent, a_grant, a_session, a_token, an_identity
from authserver.testing.server import PASSWORD, RESOURCE, SETTINGS, Server, form_with

GROUPS = {"rita": "support", "oscar": "operators", "otto": "operators", "ada": "authserver-admins"}
HOSTILE = "<script>alert(1)</script>\u202egnp.exe\x1b[31m" + "x" * 5_000
_numbers = count()


MAILS: list[Mail] = []


@dataclass(frozen=True)
class Keeps:
    """A plugin that keeps the mails that it is to send."""

    @hookimpl
    def send_mail(self, mail: Mail) -> bool:
        MAILS.append(mail)
        return True


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("people") / "authserver.db"
    copyfile(migrated_sqlite_file, path)
    server = Server(
        f"sqlite:///{path}",
        {
            "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nadmin_console\n{__name__}:Keeps",
            "authserver.plugin.admin_console.read": "support",
            "authserver.plugin.admin_console.operate": "operators",
        },
    )
    for username, group in GROUPS.items():
        server.add_user(username, groups=[group])
    yield server
    server.close()


@pytest.fixture(scope="module")
def browsers(server: Server) -> dict[str, TestApp]:
    """A signed-in browser of each operator."""
    return {username: signed_in(server, username) for username in GROUPS}


@pytest.fixture
def ada(browsers: dict[str, TestApp]) -> TestApp:
    """An administrator."""
    return browsers["ada"]


@pytest.fixture
def oscar(browsers: dict[str, TestApp]) -> TestApp:
    """Somebody who operates."""
    return browsers["oscar"]


def signed_in(server: Server, username: str) -> TestApp:
    browser = server.browser()
    server.sign_in(browser, username)
    return browser


def somebody(server: Server, **facts: Any) -> User:
    """A person whom no other test knows."""
    return server.add_user(f"reader{next(_numbers)}", **facts)


def a_client(server: Server, **facts: Any) -> Client:
    return server.add_client(client_name="Notes", **facts)[0]


def add_grants(server: Server, number: int, **facts: Any) -> list[Grant]:
    """Live grants, the newest last."""
    now = datetime.now(UTC)
    grants = [
        a_grant(
            **{
                "grant_id": new_identifier("grant_"),
                "client_id": "notes",
                "user_id": None,
                "scopes": ("profile", "files.read"),
                "resources": (RESOURCE,),
                "created_at": now - timedelta(minutes=number - index),
                "expires_at": now + timedelta(days=1),
                **facts,
            }
        )
        for index in range(number)
    ]
    with server.begin() as engine:
        for grant in grants:
            engine.stores.grants.add(grant)
    return grants


def text_of(page: TestResponse) -> str:
    return " ".join(page.html.main.get_text(" ", strip=True).split())


def alert(page: TestResponse) -> str:
    """What a page says is wrong; its status is 400."""
    assert page.status_int == 400
    return str(page.html.find(role="alert").get_text(" ", strip=True))


def send(browser: TestApp, address: str, **values: str) -> TestResponse:
    """Send the form of a page that changes something, with these values."""
    form = form_with(browser.get(address), "csrf_token")
    for name, value in values.items():
        form[name] = value
    return form.submit(expect_errors=True)


def forge(browser: TestApp, page: TestResponse, path: str, **values: str) -> TestResponse:
    """Send other values to a page than its form has, with the token of that form."""
    form = form_with(page, "csrf_token")
    token = form["csrf_token"].value
    return browser.post(path, {"csrf_token": token, **values}, expect_errors=True)


def events_since(server: Server, number: int) -> list[dict[str, Any]]:
    return server.rows("events")[number:]


def stored(server: Server, user: User) -> User:
    with server.begin() as engine:
        found = engine.stores.users.find(user.user_id)
    assert found
    return found


def person(user: User, page: str = "person", **query: str) -> str:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return f"/admin/people/{page}?user_id={user.user_id}{more}"


# ---- people -----------------------------------------------------------------------------------------


def test_people_are_found_by_how_their_name_begins(server: Server, browsers: dict[str, TestApp]) -> None:
    """By case-folded name, by id, and those alone who are disabled; the next page begins after the last name."""
    for number in range(53):
        server.add_user(f"listed{number:02}", password=None)
    reader = browsers["rita"]
    form = form_with(reader.get("/admin/people"), "name")
    form["name"] = "LISTED"
    page = form.submit()
    names = [row.a.get_text() for row in page.html.select("tbody tr")]
    assert names == [f"listed{number:02}" for number in range(50)]
    rest = reader.get(page.html.find("a", rel="next")["href"])
    assert [row.a.get_text() for row in rest.html.select("tbody tr")] == ["listed50", "listed51", "listed52"]
    assert rest.html.find("a", string="First page")
    with server.begin() as engine:
        user = engine.stores.users.find_by_name("listed07")
        assert user
        engine.stores.users.disable(user.user_id, engine.now)
    disabled = reader.get("/admin/people?name=listed&disabled=yes")
    assert [row.a.get_text() for row in disabled.html.select("tbody tr")] == ["listed07"]
    assert [
        row.a.get_text() for row in reader.get(f"/admin/people?name={user.user_id}").html.select("tbody tr")
    ] == ["listed07"]
    assert "There is nobody like this." in text_of(reader.get("/admin/people?name=nobody-at-all"))
    assert "a user name has 1 to" in alert(
        reader.get("/admin/people", {"name": "x" * 2_000}, expect_errors=True)
    )
    assert not reader.get("/admin/people").html.find("a", string="Add a person"), "for administrators alone"


def test_a_person_is_shown_with_all_that_is_theirs(server: Server, browsers: dict[str, TestApp]) -> None:
    user = somebody(
        server, groups=["staff"], attributes={"department": ["sales"], "email": ["r@people.example"]}
    )
    server.sign_in(server.browser(), user.username, "not the password")
    signed_in(server, user.username)
    client = a_client(server)
    add_grants(server, 2, client_id=client.client_id, user_id=user.user_id)
    with server.begin() as engine:
        engine.stores.consents.remember(
            a_consent(user_id=user.user_id, client_id=client.client_id, scopes=("profile", "files.write"))
        )
    page = browsers["rita"].get(person(user))
    text = text_of(page)
    for said in (user.user_id, "staff", "department sales", "Mail address r@people.example", "192.0.2.1"):
        assert said in text
    apps = page.html.find("h2", id="apps").parent.tbody.get_text(" ", strip=True)
    assert re.search(r"Notes .* profile, files\.read Remembered, also for: files\.write", apps)
    assert apps.split()[-2] == "2"
    assert "1 in the last 7 days." in text and "password-wrong" in text
    assert "sign_in.succeeded" in text
    assert page.html.find("a", string="All events")["href"].endswith(f"/admin/audit?user={user.user_id}")
    assert not page.html.main.select("form, .button"), "who may only see has nothing to press"
    assert (
        browsers["rita"].get("/admin/people/person?user_id=user_none", expect_errors=True).status_int == 404
    )


def test_a_new_person_gets_a_link_that_is_shown_once(server: Server, ada: TestApp) -> None:
    number = len(server.rows("events"))
    page = send(
        ada,
        "/admin/people/new",
        username="Link.Lee",
        display_name="Lee",
        groups="staff\r\n\r\n sales ",
        attributes="department=sales\ndepartment=support\nemail=lee@people.example",
        way="link",
        lifetime="1h",
    )
    assert page.status_int == 200 and page.cache_control.no_store
    link = page.html.find("code", class_="whole").get_text()
    with server.begin() as engine:
        user = engine.stores.users.find_by_name("link.lee")
    assert user and user.groups == ("sales", "staff") and user.password_hash is None
    assert user.attributes == {"department": ("sales", "support"), "email": ("lee@people.example",)}
    assert f"/set-password#{user.user_id}." in link
    told = events_since(server, number)
    assert [event["type"] for event in told] == ["user.added", "password_link.made"]
    with server.begin() as engine:
        actor = engine.stores.users.find_by_name("ada")
    assert actor and {event["actor"] for event in told} == {f"user:{actor.user_id}"}
    secret = link.rpartition(".")[2]
    assert secret not in json.dumps(told, default=str)
    assert secret not in ada.get(person(user)).text
    stranger = server.browser()
    typed = form_with(stranger.get("/set-password"), "link")
    typed["link"] = link
    chosen = form_with(typed.submit(), "new_password")
    chosen["new_password"] = chosen["repeated"] = "another good password"
    assert chosen.submit().status_int == 303
    assert stored(server, user).password_hash


def test_a_new_person_gets_a_password_or_none(server: Server, ada: TestApp) -> None:
    values = {"username": "typed.lee", "way": "password", "password": PASSWORD, "repeated": PASSWORD}
    done = send(ada, "/admin/people/new", **values)
    assert "typed.lee was added." in done.follow().text
    assert signed_in(server, "typed.lee").get("/account/apps").status_int == 200
    assert send(ada, "/admin/people/new", username="none.lee", way="none").status_int == 303
    with server.begin() as engine:
        user = engine.stores.users.find_by_name("none.lee")
    assert user and user.password_hash is None


def test_a_new_person_gets_a_link_by_mail(server: Server, ada: TestApp) -> None:
    """Nobody but the person sees it; without an address the person is not added."""
    refused = send(ada, "/admin/people/new", username="mail.lee", way="mail")
    assert "mail.lee has no mail address" in alert(refused)
    MAILS.clear()
    done = send(
        ada, "/admin/people/new", username="mail.lee", way="mail", attributes="email=lee@people.example"
    ).follow()
    mailer, end = server.application.mailer, time.monotonic() + 10
    while not mailer.is_idle and time.monotonic() < end:
        time.sleep(0.01)
    (mail,) = MAILS
    assert "A mail to lee@people.example has the link." in done.html.find(role="status").get_text()
    assert "/set-password#user_" in mail.text and "/set-password#" not in done.text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"username": "rita"}, "There is a person with the name rita already: choose another name"),
        ({"username": ""}, "a user name has 1 to"),
        ({"username": "a b"}, "user name"),
        ({"groups": "x" * 200}, "the name of a group has 1 to"),
        ({"attributes": "department"}, "line 1 of the attributes is not NAME=VALUE"),
        ({"attributes": "=x"}, "line 1 of the attributes is not NAME=VALUE"),
        ({"attributes": "ä=x"}, "the name of an attribute has"),
        ({"way": "password"}, "Type a password"),
        (
            {"way": "password", "password": PASSWORD, "repeated": "another"},
            "The two passwords are not the same",
        ),
        ({"way": "password", "password": "short", "repeated": "short"}, "a password has 8 to 1024 bytes"),
    ],
)
def test_who_cannot_be_added_is_not(server: Server, ada: TestApp, values: dict[str, str], said: str) -> None:
    """The form is shown again with what was typed, but for passwords."""
    before = server.rows("users")
    page = send(ada, "/admin/people/new", **{"username": "refused.lee", "display_name": "Lee", **values})
    assert said in alert(page)
    assert page.html.find("input", attrs={"name": "display_name"})["value"] == "Lee"
    assert PASSWORD not in page.text
    assert server.rows("users") == before


def test_what_no_choice_of_the_form_is_is_refused(server: Server, ada: TestApp) -> None:
    page = ada.get("/admin/people/new")
    for values in ({"way": "magic"}, {"way": "link", "lifetime": "100y"}, {}):
        answer = forge(ada, page, "/admin/people/new", username="forged.lee", **values)
        assert "Choose how" in alert(answer)
    with server.begin() as engine:
        assert engine.stores.users.find_by_name("forged.lee") is None


def test_groups_and_attributes_are_edited_as_they_were_seen(server: Server, ada: TestApp) -> None:
    """With an event that has who changed what; not when somebody else changed them since."""
    user, number = somebody(server, groups=["staff", "sales"]), len(server.rows("events"))
    form = form_with(ada.get(person(user, "edit")), "groups")
    assert form["groups"].value == "sales\nstaff"
    form["groups"], form["attributes"] = "staff\nsupport", "department=support"
    first = form.submit()
    assert f"{user.username} was changed." in first.follow().text
    assert stored(server, user).groups == ("staff", "support")
    (event,) = events_since(server, number)
    assert event["type"] == "user.changed" and event["actor"].startswith("user:")
    details = json.loads(event["details"])
    assert (details["groups_added"], details["groups_removed"]) == (["support"], ["sales"])
    form["groups"] = "staff"
    again = form.submit(expect_errors=True)
    assert "after this form was shown" in alert(again)
    assert stored(server, user).groups == ("staff", "support")
    typed = form_with(again, "groups")
    assert typed["groups"].value == "staff"
    typed.submit().follow()
    assert stored(server, user).groups == ("staff",)


def test_nobody_locks_themselves_out(server: Server, ada: TestApp) -> None:
    """Neither by taking their own role nor by disabling themselves."""
    with server.begin() as engine:
        me = engine.stores.users.find_by_name("ada")
    assert me
    for groups in ("staff", "", "operators"):
        refused = send(ada, person(me, "edit"), groups=groups)
        assert "This would remove your own role." in alert(refused)
    assert stored(server, me).groups == ("authserver-admins",)
    assert send(ada, person(me, "edit"), groups="authserver-admins\nstaff").status_int == 303
    mine = ada.get(person(me))
    assert not mine.html.find("a", string="Disable")
    page = ada.get("/admin/end?kind=user&name=ada&disable=yes", expect_errors=True)
    assert "You cannot disable yourself" in alert(page)
    token = form_with(ada.get("/admin/end?kind=user&name=ada"), "csrf_token")["csrf_token"].value
    values = {"csrf_token": token, "kind": "user", "name": "ada", "disable": "yes"}
    assert "You cannot disable yourself" in alert(ada.post("/admin/end", values, expect_errors=True))
    assert stored(server, me).is_enabled
    assert "This is you: you will be signed out, too." in text_of(ada.get("/admin/end?kind=user&name=ada"))


# ---- who may help whom ------------------------------------------------------------------------------


def test_nobody_takes_the_place_of_a_person_with_a_higher_role(
    server: Server, browsers: dict[str, TestApp]
) -> None:
    """T146: who operates could else sign in as an administrator by a link. Also when the page is not asked first."""
    boss = somebody(server, groups=["authserver-admins"], attributes={"email": ["boss@people.example"]})
    peer = somebody(server, groups=["operators"])
    oscar = browsers["oscar"]
    before = (server.rows("users"), server.rows("kept"), server.rows("sessions"))
    assert "This person has a higher role than you" in text_of(oscar.get(person(boss, "password")))
    of_peer = oscar.get(person(peer, "password"))
    for way in ("link", "mail"):
        refused = forge(oscar, of_peer, "/admin/people/password", user_id=boss.user_id, way=way)
        assert "This person has a higher role than you." in alert(refused)
    page = oscar.get(
        "/admin/end", {"kind": "user", "name": boss.username, "disable": "yes"}, expect_errors=True
    )
    assert "This person has a higher role than you." in alert(page)
    token = oscar.get(f"/admin/end?kind=user&name={peer.username}&disable=yes")
    with server.begin() as engine:
        for each in (boss, peer):
            engine.stores.identities.add(an_identity(subject=each.username, user_id=each.user_id))
    theirs = {"identity": identity_handle(an_identity(subject=boss.username))}
    assert "higher role than you" in text_of(oscar.get(person(boss, "identity", **theirs)))
    asked = oscar.get(oscar.get(person(peer)).html.find("a", string="Remove")["href"])
    removed = forge(oscar, asked, "/admin/people/identity", user_id=boss.user_id, **theirs)
    assert "This person has a higher role than you." in alert(removed)
    with server.begin() as engine:
        assert len(engine.stores.identities.of_user(boss.user_id)) == 1
    disable = forge(oscar, token, "/admin/end", kind="user", name=boss.username, disable="yes")
    assert "This person has a higher role than you." in alert(disable)
    assert (server.rows("users"), server.rows("kept"), server.rows("sessions")) == before
    with server.begin() as engine:
        engine.stores.users.disable(boss.user_id, engine.now)
        engine.stores.users.disable(peer.user_id, engine.now)
    enable = forge(oscar, oscar.get(person(peer, "enable")), "/admin/people/enable", user_id=boss.user_id)
    assert "This person has a higher role than you." in alert(enable)
    assert not stored(server, boss).is_enabled
    for address in (person(peer, "edit"), "/admin/people/new"):
        assert oscar.get(address, expect_errors=True).status_int == 404, "groups are for administrators"
    assert server.rows("events")[-1]["reason"] == "role-too-low"
    assert not oscar.get(person(boss)).html.main.find("a", string=re.compile("Enable|Disable|password"))


def test_who_operates_helps_people_and_peers(server: Server, oscar: TestApp) -> None:
    """A link is shown once; the one before works no more; the password stays until then."""
    for user in (somebody(server), somebody(server, groups=["operators"])):
        links = [
            send(oscar, person(user, "password"), lifetime=lifetime)
            .html.find("code", class_="whole")
            .get_text()
            for lifetime in ("", "7d")
        ]
        assert links[0] != links[1]
        assert stored(server, user).password_hash == user.password_hash
        form = form_with(server.browser().get("/set-password"), "link")
        form["link"] = links[0]
        assert "This link does not work" in form.submit(expect_errors=True).text
    with server.begin() as engine:
        events = list(engine.stores.events.latest())
    made = next(event for event in events if event.type is EventType.PASSWORD_LINK_MADE)
    assert made.details["seconds"] == 7 * 86_400
    assert made.actor.startswith("user:")


def test_reloading_the_page_of_a_link_makes_no_other(server: Server, oscar: TestApp) -> None:
    user = somebody(server)
    form = form_with(oscar.get(person(user, "password")), "csrf_token")
    link = form.submit("way", value="link").html.find("code", class_="whole").get_text()
    again = form.submit("way", value="link", expect_errors=True)
    assert "was sent before" in alert(again)
    assert not again.html.find("code", class_="whole")
    with server.begin() as engine:
        assert open_link(engine, link).user.user_id == user.user_id


def test_only_who_administers_gives_somebody_a_first_password(
    server: Server, oscar: TestApp, ada: TestApp
) -> None:
    """Who has none signs in by other means, which may bring a higher role along the next time (T132)."""
    user = somebody(server, password=None)
    assert "Only an administrator gives a first password" in text_of(oscar.get(person(user, "password")))
    form = form_with(ada.get(person(user, "password")), "csrf_token")
    token = form_with(oscar.get(person(somebody(server), "password")), "csrf_token")
    token["user_id"] = user.user_id
    token.submit("way", value="link", expect_errors=True)
    assert server.rows("events")[-1]["reason"] == "role-too-low"
    assert form.submit("way", value="link").html.find("code", class_="whole")


def test_who_is_disabled_gets_no_link(server: Server, oscar: TestApp) -> None:
    user = somebody(server)
    page = oscar.get(person(user, "password"))
    with server.begin() as engine:
        engine.stores.users.disable(user.user_id, engine.now)
    refused = form_with(page, "csrf_token").submit("way", value="link", expect_errors=True)
    assert "is disabled, so a link would not work" in alert(refused)
    assert "This person is disabled: enable them first." in text_of(oscar.get(person(user, "password")))


# ---- what ends --------------------------------------------------------------------------------------


def test_sessions_end_one_by_one_or_all(server: Server, oscar: TestApp) -> None:
    user = somebody(server)
    theirs = [signed_in(server, user.username) for _ in range(3)]
    page = oscar.get(person(user))
    one = page.html.find("h2", id="sessions").parent.find("a", string="End")["href"]
    asked = oscar.get(one)
    assert "1 session" in text_of(asked)
    done = form_with(asked, "csrf_token").submit()
    assert f"1 session of {user.username} ended." in done.follow().text
    assert oscar.get(one, expect_errors=True).status_int == 404
    alive = [each.get("/account/apps", expect_errors=True).status_int == 200 for each in theirs]
    assert sorted(alive) == [False, True, True]
    assert "2 sessions" in text_of(oscar.get(person(user, "sessions")))
    assert "2 sessions of" in send(oscar, person(user, "sessions")).follow().text
    assert all(each.get("/account/apps", expect_errors=True).status_int == 303 for each in theirs)
    assert server.rows("events")[-1]["type"] == "session.ended"


def test_of_their_own_sessions_an_operator_keeps_this_one(server: Server) -> None:
    user = somebody(server, groups=["operators"])
    here, elsewhere = signed_in(server, user.username), signed_in(server, user.username)
    assert "1 session" in text_of(here.get(person(user, "sessions")))
    send(here, person(user, "sessions"))
    assert here.get("/account/apps").status_int == 200
    assert elsewhere.get("/account/apps", expect_errors=True).status_int == 303


def test_the_access_of_one_application_ends(server: Server, oscar: TestApp) -> None:
    """With the remembered consent; other applications and other people keep theirs."""
    user, client, other = somebody(server), a_client(server), a_client(server)
    add_grants(server, 2, client_id=client.client_id, user_id=user.user_id)
    (kept,) = add_grants(server, 1, client_id=other.client_id, user_id=user.user_id)
    with server.begin() as engine:
        engine.stores.consents.remember(a_consent(user_id=user.user_id, client_id=client.client_id))
    address = person(user, "application", client_id=client.client_id)
    asked = oscar.get(address)
    assert "2 grants" in text_of(asked) and "1 remembered consent" in text_of(asked)
    done = form_with(asked, "csrf_token").submit().follow()
    assert "Ended: 2 grants, 1 remembered consent." in done.text
    with server.begin() as engine:
        live = engine.stores.grants.list(engine.now, user_id=user.user_id)
    assert [grant.grant_id for grant in live] == [kept.grant_id]
    assert "It has no access, and nothing is remembered." in text_of(oscar.get(address))


def test_an_account_elsewhere_is_removed(server: Server, browsers: dict[str, TestApp]) -> None:
    """UP-03: by who operates; with the sessions that came through it and what was agreed to in them, and nothing else."""
    user, oscar = somebody(server, password=None), browsers["oscar"]
    issuer, other = "https://login.example/a?b=c&d", "https://other.example"
    assert "Accounts elsewhere" not in text_of(oscar.get(person(user)))
    with server.begin() as engine:
        for each in (issuer, other):
            engine.stores.identities.add(
                an_identity(issuer=each, subject="s 7", user_id=user.user_id, label="ann@corp.example")
            )
            through = {"issuer": each, "subject": "s 7"}
            engine.stores.sessions.add(
                a_session(
                    digest=each.encode(),
                    user_id=user.user_id,
                    last_seen_at=engine.now,
                    expires_at=engine.now + timedelta(days=1),
                    details={"through": through},
                )
            )
    add_grants(server, 2, user_id=user.user_id, details={"through": issuer})
    add_grants(server, 1, user_id=user.user_id, details={"through": other})
    page = oscar.get(person(user))
    assert "ann@corp.example" in text_of(page)
    assert not browsers["rita"].get(person(user)).html.find("a", string="Remove")
    asked = oscar.get(
        page.html.find(
            "a", string="Remove", href=re.compile(identity_handle(an_identity(issuer=issuer, subject="s 7")))
        )["href"]
    )
    assert "1 session" in text_of(asked) and "2 grants" in text_of(asked)
    assert "There is no other way to sign in" not in text_of(asked)
    number = len(server.rows("events"))
    done = form_with(asked, "csrf_token").submit(name="confirm", value="yes").follow()
    assert f"{user.username} cannot sign in with that account at {issuer} any more." in done.text.replace(
        "&amp;", "&"
    )
    assert [row["type"] for row in events_since(server, number)][:2] == ["identity.removed", "grants.revoked"]
    with server.begin() as engine:
        (left,) = engine.stores.identities.of_user(user.user_id)
        assert left.issuer == other
        assert len(engine.stores.grants.list(engine.now, user_id=user.user_id)) == 1
    # The page that was asked for is of something that is gone; the last one is said to be the last.
    assert oscar.get(asked.request.url, expect_errors=True).status_int == 404
    last = oscar.get(oscar.get(person(user)).html.find("a", string="Remove")["href"])
    assert "There is no other way to sign in" in text_of(last)
    again = forge(
        oscar,
        last,
        "/admin/people/identity",
        user_id=user.user_id,
        issuer=issuer,
        subject="s 7",
        confirm="yes",
    )
    assert "There was no such account any more." in again.follow().text


def test_a_person_is_disabled_and_enabled_again(server: Server, oscar: TestApp) -> None:
    """R-09, L-08: the page says how much ends before it does, and then how much ended."""
    user, number = somebody(server), len(server.rows("events"))
    theirs = signed_in(server, user.username)
    add_grants(server, 3, user_id=user.user_id)
    asked = oscar.get(oscar.get(person(user)).html.find("a", string="Disable")["href"])
    assert "1 session" in text_of(asked) and "3 grants" in text_of(asked)
    done = form_with(asked, "csrf_token").submit()
    assert "Done. The person is disabled." in text_of(done)
    assert "3 grants" in text_of(done)
    assert theirs.get("/account/apps", expect_errors=True).status_int == 303
    event = events_since(server, number)[-1]
    details = json.loads(event["details"])
    assert (event["type"], event["reason"]) == ("user.disabled", "user-disabled")
    assert (details["grants"], details["sessions"]) == (3, 1)
    assert event["actor"].startswith("user:") and event["source"] == "192.0.2.1"
    enabled = send(oscar, person(user, "enable")).follow()
    assert f"{user.username} can sign in again." in enabled.text
    assert stored(server, user).is_enabled
    assert "This person is not disabled." in text_of(oscar.get(person(user, "enable")))


# ---- grants -----------------------------------------------------------------------------------------


def test_grants_are_found_by_client_person_and_state(server: Server, browsers: dict[str, TestApp]) -> None:
    """T146: newest first, 50 a page, and the next begins after them whatever is granted meanwhile."""
    user, client, reader = somebody(server), a_client(server), browsers["rita"]
    grants = add_grants(server, 120, client_id=client.client_id, user_id=user.user_id)
    with server.begin() as engine:
        engine.stores.grants.revoke(grants[0].grant_id, engine.now, "disconnected")
    form = form_with(reader.get("/admin/grants"), "client")
    form["client"], form["user"] = client.client_id, user.username
    page, seen = form.submit(), []
    while True:
        rows = page.html.select("tbody tr")
        assert all("Notes" in row.get_text() and user.username in row.get_text() for row in rows)
        seen += [row.select("td")[1].get_text(strip=True) for row in rows]
        following = page.html.find("a", rel="next")
        if following is None:
            break
        (late,) = add_grants(server, 1, client_id=client.client_id, user_id=user.user_id)
        page = reader.get(following["href"])
        assert late.grant_id not in page.text
    assert seen == [grant.grant_id for grant in reversed(grants[1:])]
    every = reader.get(f"/admin/grants?user={user.user_id}&state=all")
    assert len(every.html.select("tbody tr")) == 50
    theirs = reader.get(f"/admin/grants?user={user.user_id}&client=nobody")
    assert "There is no such grant." in text_of(theirs)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("after=nonsense", "'nonsense' is not a cursor"),
        ("after=20261130T100000.000000Z_", "is not a cursor"),
        ("after=99991330T100000.000000Z_grant", "is not a cursor"),
        ("user=nobody-at-all", "there is no such person"),
        ("user=", ""),
        ("client=a&client=b", "client occurs more than once"),
    ],
)
def test_a_search_for_grants_that_is_none_is_refused(
    browsers: dict[str, TestApp], query: str, said: str
) -> None:
    """T146, T147: a tampered cursor, too."""
    answer = browsers["rita"].get(f"/admin/grants?{query}", expect_errors=True)
    assert answer.status_int == (400 if said else 200)
    assert said in answer.html.get_text()


def test_a_grant_is_shown_without_a_token_and_revoked(server: Server, browsers: dict[str, TestApp]) -> None:
    """What was agreed, each code and token of it with its end, and never a digest (T147)."""
    user = somebody(server)
    client, secret = server.add_client(client_name="Notes")
    browser = signed_in(server, user.username)
    code = server.code(client, browser, scope="profile files.read")
    issued = server.redeem(client, secret, code).json
    (row,) = [row for row in server.rows("grants") if row["client_id"] == client.client_id]
    address = f"/admin/grants/grant?grant_id={row['grant_id']}"
    page = browsers["rita"].get(address)
    text = text_of(page)
    for said in ("Notes", user.username, "profile, files.read", RESOURCE, "the person, here", "Signed in"):
        assert said in text
    kinds = [
        [cell.get_text(strip=True) for cell in row.select("td")[:2]] for row in page.html.select("tbody tr")
    ]
    assert sorted(kinds) == [["code", "used"], ["refresh", "usable"]]
    assert "JWT access tokens are not stored: the newest one works until" in text
    for token in server.rows("tokens"):
        assert token["digest"].hex() not in page.text
    assert not any(each in page.text for each in (code, issued["access_token"], issued["refresh_token"]))
    assert not page.html.find("a", string="Revoke"), "who may only see has nothing to press"
    oscar = browsers["oscar"]
    asked = oscar.get(oscar.get(address).html.find("a", string="Revoke")["href"])
    for said in (
        "1 grant",
        "1 refresh token",
        "1 remembered consent",
        "A JWT access token cannot be revoked",
    ):
        assert said in text_of(asked)
    form = form_with(asked, "csrf_token")
    done = form.submit().follow()
    assert "Ended: 1 grant, 1 remembered consent." in done.text
    assert server.refresh(client, secret, issued["refresh_token"]).json["error"] == "invalid_grant"
    assert "This grant had ended already." in form.submit().follow().text
    assert "revoked" in text_of(browsers["rita"].get(address))
    assert browsers["rita"].get("/admin/grants/grant?grant_id=none", expect_errors=True).status_int == 404


def test_a_grant_of_a_client_for_itself_is_shown(server: Server, browsers: dict[str, TestApp]) -> None:
    (grant,) = add_grants(server, 1, details={"grant_type": "client_credentials"})
    text = text_of(browsers["rita"].get(f"/admin/grants/grant?grant_id={grant.grant_id}"))
    assert "none: the client acts on its own behalf" in text
    assert "client_credentials , without a question on the consent page" in text


# ---- the kill switch --------------------------------------------------------------------------------


def subjects(server: Server) -> dict[str, tuple[str, str]]:
    """Of each kind what the form gets, and what of its grants the page then says."""
    user, client = somebody(server), a_client(server)
    number = next(_numbers)
    resource, issuer = f"https://api{number}.example/", f"https://idp{number}.example"
    add_grants(server, 2, user_id=user.user_id)
    add_grants(server, 2, client_id=client.client_id)
    add_grants(server, 1, resources=(resource,))
    add_grants(server, 1, resources=(resource, RESOURCE))
    add_grants(server, 2, details={VOUCHED_BY: issuer})
    return {
        "user": (user.username, "2 grants"),
        "client": (client.client_id, "2 grants"),
        "resource": (
            resource.upper().replace("HTTPS", "https").replace("API", "api"),
            "1 grant 1 narrowed grant",
        ),
        "issuer": (issuer, "2 grants"),
    }


def test_nobody_takes_the_place_of_somebody_by_a_name_that_is_their_id(
    server: Server, oscar: TestApp, ada: TestApp
) -> None:
    """A directory may let people choose their names, and each application knows the id of a person."""
    user = somebody(server)
    double = server.add_user(user.user_id.lower())
    page = oscar.get("/admin/people/person", {"user_id": user.user_id})
    asked = page.click("Disable")
    assert user.username in text_of(asked)
    form_with(asked, "csrf_token").submit()
    users = {row["user_id"]: row["disabled_at"] for row in server.rows("users")}
    assert users[user.user_id] is not None
    assert users[double.user_id] is None
    found = text_of(ada.get("/admin/audit", {"user": user.user_id}))
    assert "user.disabled" in found


def test_everything_of_a_subject_ends_after_it_was_counted(server: Server, oscar: TestApp) -> None:
    """L-08: the numbers before are the numbers after, and then there is nothing more."""
    for kind, (name, told) in subjects(server).items():
        form = form_with(oscar.get("/admin/end"), "kind")
        form["kind"], form["name"] = kind, name
        before = server.rows("grants")
        asked = form.submit()
        assert told in text_of(asked), kind
        assert server.rows("grants") == before, "counting ends nothing"
        number = len(server.rows("events"))
        done = form_with(asked, "csrf_token").submit()
        assert "Done." in text_of(done) and told in text_of(done), kind
        events = [
            event
            for event in events_since(server, number)
            if "ended" in event["reason"] or "sign" in event["reason"]
        ]
        assert events and all(event["actor"].startswith("user:") for event in events)
        again = oscar.get("/admin/end", {"kind": kind, "name": name}, expect_errors=True)
        assert "Nothing would end." in text_of(again) or "there is no such" in text_of(again)


def test_a_scope_is_taken_from_clients_by_administrators_alone(
    server: Server, browsers: dict[str, TestApp]
) -> None:
    clients = [a_client(server, scopes=("profile", "files.write")) for _ in range(2)]
    add_grants(server, 2, scopes=("files.write",))
    query = {"kind": "scope", "name": "files.write", "from_clients": "yes"}
    oscar, ada = browsers["oscar"], browsers["ada"]
    assert "This needs the role administer." in alert(oscar.get("/admin/end", query, expect_errors=True))
    plain = oscar.get("/admin/end?kind=scope&name=files.write")
    assert "This needs the role administer." in alert(forge(oscar, plain, "/admin/end", **query))
    asked = ada.get("/admin/end", query)
    assert "2 registrations" in text_of(asked)
    assert "Done." in text_of(form_with(asked, "csrf_token").submit())
    with server.begin() as engine:
        for client in clients:
            found = engine.stores.clients.find(client.client_id, engine.now)
            assert found and found.scopes == ("profile",)


def test_much_ends_in_parts_that_go_on(
    server: Server, oscar: TestApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-08: a request ends no more than fits; the page says how much that is so far, and its button goes on."""
    for name, value in (("FIRST_SECONDS", 0), ("SECONDS", 0), ("FEW", 1)):
        monkeypatch.setattr(kill_switch, name, value)
    monkeypatch.setattr(ending, "BATCH", 2)
    client = a_client(server)
    grants = add_grants(server, 7, client_id=client.client_id)
    number = len(server.rows("events"))
    page = oscar.get(f"/admin/end?kind=client&name={client.client_id}")
    counted = []
    while True:
        counted.append(re.findall(r"(\d+) grants", text_of(page)))
        onward = page.html.find("a", string="continue to count")
        if onward is None:
            break
        page = oscar.get(onward["href"])
    assert counted[0] == ["2"] and counted[-1] == ["7"]
    page, parts = form_with(page, "csrf_token").submit(), 1
    assert "This is not done yet" in text_of(page) and "2 grants" in text_of(page)
    while "This is not done yet" in text_of(page):
        page, parts = form_with(page, "ended").submit(), parts + 1
    assert "7 grants" in text_of(page) and parts >= 4
    with server.begin() as engine:
        assert not engine.stores.grants.list(engine.now, client_id=client.client_id)
    told = [
        json.loads(event["details"])["grants"]
        for event in events_since(server, number)
        if event["type"] == "grants.revoked"
    ]
    assert sum(told) == len(grants) == 7


def test_a_place_to_go_on_from_is_for_one_act_and_one_session(
    server: Server, browsers: dict[str, TestApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T146, T147: a tampered one is refused, and nothing ends."""
    for name, value in (("FIRST_SECONDS", 0), ("SECONDS", 0), ("FEW", 1)):
        monkeypatch.setattr(kill_switch, name, value)
    monkeypatch.setattr(ending, "BATCH", 2)
    client, other = a_client(server), a_client(server)
    for each in (client, other):
        add_grants(server, 5, client_id=each.client_id)
    oscar, otto = browsers["oscar"], browsers["otto"]
    asked = oscar.get(f"/admin/end?kind=client&name={client.client_id}")
    done = form_with(asked, "csrf_token").submit()
    place = form_with(done, "ended")["ended"].value
    before = server.rows("grants")
    forged = place[:-4] + ("AAAA" if place[-4:] != "AAAA" else "BBBB")
    for browser, values in (
        (oscar, {"name": client.client_id, "ended": forged}),
        (oscar, {"name": client.client_id, "ended": "nonsense!"}),
        (oscar, {"name": other.client_id, "ended": place}),
        (oscar, {"name": client.client_id, "ended": place, "disable": "yes"}),
        (otto, {"name": client.client_id, "ended": place}),
    ):
        page = browser.get(f"/admin/end?kind=client&name={client.client_id}")
        assert "begin again" in alert(forge(browser, page, "/admin/end", kind="client", **values))
    counted = oscar.get(
        "/admin/end", {"kind": "client", "name": client.client_id, "counted": place}, expect_errors=True
    )
    assert "begin again" in alert(counted)
    assert server.rows("grants") == before


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("kind=user&name=nobody-at-all", "nobody-at-all: there is no such person"),
        ("kind=client&name=nobody-at-all", "there is no such client"),
        ("kind=resource&name=not+a+uri", "resource"),
        ("kind=resource&name=https://nowhere.example/", "there is no such resource"),
        ("kind=scope&name=nothing", "there is no such scope"),
        ("kind=planet&name=earth", "choose a kind"),
        ("name=earth", "choose a kind"),
        ("kind=scope&name=profile&disable=yes", "a scope cannot be disabled"),
        ("kind=client&name=x&from_clients=yes", "clients are registered for scopes"),
        ("kind=user&name=a&name=b", "name occurs more than once"),
    ],
)
def test_what_cannot_end_is_said(server: Server, ada: TestApp, query: str, said: str) -> None:
    answer = ada.get(f"/admin/end?{query}", expect_errors=True)
    assert said in alert(answer)
    token = form_with(ada.get("/admin/people/new"), "csrf_token")
    assert token


# ---- hostile texts ----------------------------------------------------------------------------------


def test_hostile_texts_are_shown_harmless(server: Server, ada: TestApp) -> None:
    """T094, T147: in every field of a person, a grant, a token and a session that is shown."""
    user = somebody(server)
    hostile = "<script>alert(1)</script>\u202egnp.exe\x1b[31m"
    browser = server.browser()
    browser.extra_environ["HTTP_USER_AGENT"] = "<script>" + "x" * 500
    server.sign_in(browser, user.username)
    with server.begin() as engine:
        engine.stores.users.change(
            replace(
                user,
                display_name=HOSTILE,
                groups=(hostile, "x" * 64),
                attributes={hostile: (HOSTILE,), "email": (hostile,)},
            )
        )
        engine.stores.consents.remember(a_consent(user_id=user.user_id, client_id=hostile, scopes=(HOSTILE,)))
        elsewhere = an_identity(subject=hostile, user_id=user.user_id, label=HOSTILE)
        engine.stores.identities.add(elsewhere)
        event = Event(
            event_id=new_identifier(),
            type=EventType.SIGN_IN_REFUSED,
            at=engine.now,
            actor="stranger",
            user_id=user.user_id,
            reason=HOSTILE,
        )
        engine.stores.events.add(event)
    (grant,) = add_grants(
        server,
        1,
        client_id=hostile,
        user_id=user.user_id,
        scopes=(HOSTILE, "y" * 300),
        resources=(HOSTILE,),
        details={VOUCHED_BY: HOSTILE, "amr": [HOSTILE], "auth_time": hostile},
        revoked_reason=HOSTILE,
    )
    with server.begin() as engine:
        engine.stores.tokens.add(
            a_token(grant_id=grant.grant_id, digest=b"hostile", scopes=(HOSTILE,), created_at=engine.now)
        )
    for address in (
        "/admin/people?name=reader",
        person(user),
        person(user, "password"),
        person(user, "sessions"),
        person(user, "identity", identity=identity_handle(elsewhere)),
        person(user, "enable"),
        f"/admin/grants?user={user.user_id}&state=all",
        f"/admin/grants/grant?grant_id={grant.grant_id}",
        f"/admin/grants/revoke?grant_id={grant.grant_id}",
        f"/admin/end?kind=user&name={user.username}",
    ):
        page = ada.get(address)
        assert not {"\u202e", "\x1b"} & set(page.text), address
        assert "<script" not in page.text, address
        assert "x" * 1_001 not in page.html.get_text(), address
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy
    assert "\\u202e" in ada.get(person(user)).text
    for name, path in (
        ("name", "/admin/people"),
        ("after", "/admin/people"),
        ("client", "/admin/grants"),
        ("after", "/admin/grants"),
        ("user_id", "/admin/people/person"),
        ("grant_id", "/admin/grants/grant"),
        ("name", "/admin/end"),
        ("counted", "/admin/end"),
        ("kind", "/admin/end"),
    ):
        answer = ada.get(path, {name: hostile}, expect_errors=True)
        assert answer.status_int in (200, 400, 404), path
        assert "<script>alert" not in answer.text


def test_pages_without_what_they_are_about_are_not_found(ada: TestApp) -> None:
    for path in ("person", "edit", "password", "sessions", "application", "enable"):
        assert ada.get(f"/admin/people/{path}", expect_errors=True).status_int == 404
    for path in ("grant", "revoke"):
        assert ada.get(f"/admin/grants/{path}", expect_errors=True).status_int == 404
    assert urlsplit(ada.get("/admin/end").request.url).path == "/admin/end"
