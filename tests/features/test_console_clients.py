"""The pages for clients, initial access tokens, resources and scopes: what they show, change and end."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from webtest import TestApp, TestResponse, Upload

from authserver.administration import rotate_secret
from authserver.api import Engine, hookimpl
from authserver.engine import ending
from authserver.engine.crypto import digests
from authserver.engine.records import Client, EventType, TokenKind
from authserver.features.console import ends
from authserver.testing.records import a_client, a_consent, a_grant, a_token
from authserver.testing.server import SETTINGS, Server, form_with
from tests.features.test_console import HOSTILE, PEOPLE, signed_in

NOW = datetime.now(UTC)
# What an id of a client may be, and what has a meaning in an address, a command or a pattern.
ODD_IDS = ("-rf", "a/b?c%20d&e=f#g", "../..", "%00", "a+b", "<b>id</b>", "'\"`")
AT_ADDRESS = "https://app.example/client.json?a=b&c"


@dataclass(frozen=True)
class Elsewhere:
    """Knows one client by its address."""

    @hookimpl
    def find_client(self, engine: Engine, client_id: str) -> Client | None:
        if client_id != AT_ADDRESS:
            return None
        return a_client(client_id=client_id, auth_method="none", scopes=("profile",), name="<b>From afar</b>")


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("console-clients") / "authserver.db"
    copyfile(migrated_sqlite_file, path)
    server = Server(
        f"sqlite:///{path}",
        {
            "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nprivate_key_jwt\nregistration_token\nadmin_console\n{__name__}:Elsewhere",
            "authserver.plugin.registration_token.policies": "partners = scopes profile",
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
    return {username: signed_in(server, username) for username in PEOPLE}


@pytest.fixture
def reader(browsers: dict[str, TestApp]) -> TestApp:
    return browsers["rita"]


@pytest.fixture
def operator(browsers: dict[str, TestApp]) -> TestApp:
    return browsers["oscar"]


@pytest.fixture
def admin(browsers: dict[str, TestApp]) -> TestApp:
    return browsers["ada"]


def keep(server: Server, client_id: str, **members: Any) -> str:
    """A client that is stored as it is."""
    with server.begin() as engine:
        engine.stores.clients.add(
            a_client(**{"client_id": client_id, "scopes": ("profile",), "created_at": NOW, **members})
        )
    return client_id


def agree(server: Server, client_id: str, username: str | None, count: int = 1) -> list[str]:
    """Grants to a client, of a person or its own, the newest last; each with a refresh token."""
    ids = []
    with server.begin() as engine:
        user = engine.stores.users.find_by_name(username) if username else None
        for number in range(count):
            grant_id = digests.new_identifier("grant_")
            engine.stores.grants.add(
                a_grant(
                    grant_id=grant_id,
                    client_id=client_id,
                    user_id=user.user_id if user else None,
                    created_at=NOW - timedelta(minutes=count - number, days=user is None),
                    expires_at=NOW + timedelta(days=1),
                )
            )
            engine.stores.tokens.add(
                a_token(
                    kind=TokenKind.REFRESH,
                    digest=grant_id.encode(),
                    grant_id=grant_id,
                    client_id=client_id,
                    created_at=NOW,
                    expires_at=NOW + timedelta(days=1),
                )
            )
            ids.append(grant_id)
    return ids


def rows(answer: TestResponse, caption: str) -> list[str]:
    """What the rows of a table say."""
    for table in answer.html.find_all("table"):
        if table.caption.get_text() == caption:
            return [row.get_text(" ", strip=True) for row in table.tbody.find_all("tr")]
    return []


def listed(answer: TestResponse) -> list[str]:
    """The ids of the clients of a list."""
    links = answer.html.find("table").tbody.find_all("a") if answer.html.find("table") else []
    return [link.get_text(strip=True) for link in links]


def status(answer: TestResponse) -> str:
    """What a page says that was done."""
    return " ".join(answer.html.find(role="status").get_text(" ", strip=True).split())


def alert(answer: TestResponse) -> str:
    """What a page says is wrong."""
    return " ".join(answer.html.find(role="alert").get_text(" ", strip=True).split())


def page_of(browser: TestApp, client_id: str, **query: str) -> TestResponse:
    return browser.get("/admin/clients/client", {"client_id": client_id, **query})


# ---- the list ---------------------------------------------------------------------------------------


def test_clients_are_found_by_a_part_of_their_name_or_id_and_by_their_state(
    server: Server, reader: TestApp
) -> None:
    for number in range(3):
        keep(server, f"find-{number}", name=f"Needle {number}")
    keep(server, "find-gone", name="Needle gone", disabled_at=NOW)
    keep(server, "find-self", name="Needle self", registered_by="self", last_used_at=NOW)

    def found(**query: str) -> list[str]:
        return listed(reader.get("/admin/clients", {"search": "needle", **query}))

    assert found() == ["find-0", "find-1", "find-2", "find-gone", "find-self"]
    assert found(search="FIND-1") == ["find-1"]
    assert found(state="disabled") == ["find-gone"]
    assert found(state="enabled", by="operator") == ["find-0", "find-1", "find-2"]
    assert found(by="self") == ["find-self"]
    assert found(state="unused") == ["find-0", "find-1", "find-2"]
    assert found(search="%") == []
    nothing = reader.get("/admin/clients?search=no-such-client")
    assert "No client fits this search." in nothing.text


def test_the_list_goes_on_after_a_client_whatever_happens_meanwhile(server: Server, reader: TestApp) -> None:
    ids = [keep(server, f"page-{number:03}") for number in range(101)]
    first = reader.get("/admin/clients?search=page-")
    assert listed(first) == ids[:50]
    keep(server, "page-000a")
    second = first.click("Next page")
    assert listed(second) == ids[50:100]
    third = second.click("Next page")
    assert listed(third) == ids[100:]
    assert "This is the last page." in third.text
    assert listed(third.click("First page"))[:2] == ["page-000", "page-000a"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (
            {"search": "x" * 201},
            "a search may have up to 200 characters: search for a part of the name or id",
        ),
        ({"state": "asleep"}, "there is no such choice: choose one from the form"),
        ({"by": "magic"}, "there is no such choice: choose one from the form"),
        ([("search", "a"), ("search", "b")], "search occurs more than once"),
    ],
)
def test_a_search_that_is_none_is_a_sentence(reader: TestApp, query: Any, sentence: str) -> None:
    answer = reader.get("/admin/clients", query, expect_errors=True)
    assert (answer.status_int, alert(answer)) == (400, sentence)


@pytest.mark.parametrize("after", ["\u202e", "zzz", "'; DROP TABLE clients; --", "x" * 5000])
def test_a_place_that_was_made_up_leads_nowhere(reader: TestApp, after: str) -> None:
    """T146: it is compared with ids, and is nothing else."""
    assert reader.get("/admin/clients", {"after": after}).status_int == 200


# ---- one client -------------------------------------------------------------------------------------


@pytest.mark.parametrize("client_id", ODD_IDS)
def test_any_id_of_a_client_works_in_addresses(server: Server, admin: TestApp, client_id: str) -> None:
    """From the list to its page, to each page about it, and through a form."""
    keep(server, client_id, auth_method="none", name=client_id)
    page = admin.get("/admin/clients", {"search": client_id}).click(index=0, href="client_id=")
    assert page.html.h1.get_text(strip=True) == client_id
    assert page.html.main.find("code").get_text(strip=True) == client_id
    events = page.click("All its events")
    assert events.html.find("input", attrs={"name": "client"})["value"] == client_id
    last_step = page.click("Disable", href="disable")
    done = form_with(last_step, "client_id").submit("confirm").follow()
    assert status(done).startswith("This client is disabled.")
    assert done.html.main.find("code").get_text(strip=True) == client_id


def test_a_client_that_there_is_not_is_no_page(reader: TestApp) -> None:
    for client_id in ("nobody", "", "x" * 3000, "user_1"):
        answer = reader.get("/admin/clients/client", {"client_id": client_id}, expect_errors=True)
        assert answer.status_int == 404


def test_what_a_client_and_others_wrote_is_text(server: Server, reader: TestApp) -> None:
    """Markup is escaped, what is hidden is made visible, what is long is cut."""
    keep(
        server,
        "hostile",
        name=HOSTILE[:100],
        details={"client_uri": f"https://h.example/{HOSTILE}", "software_id": HOSTILE, "x": [HOSTILE]},
        registered_by="self",
        registered_from=HOSTILE,
        initial_token=HOSTILE,
        registration_policy=HOSTILE,
        redirect_uris=(f"https://h.example/{HOSTILE}",),
        scopes=(HOSTILE[:50],),
        resources=(HOSTILE[:50],),
        private_details={"registration_reasons": [HOSTILE]},
    )
    for answer in (
        page_of(reader, "hostile"),
        reader.get("/admin/clients?search=hostile"),
    ):
        assert "<script>alert" not in answer.text
        assert "\u202e" not in answer.text
        assert "\x1b" not in answer.text
        assert "\\u202e" in answer.text
        assert len(answer.text) < 60_000


def test_the_page_of_a_client_says_who_agreed_page_by_page(server: Server, reader: TestApp) -> None:
    """Newest first, with the people; a place that is no grant of it is refused in a sentence."""
    keep(server, "agreed")
    own = agree(server, "agreed", None)
    ids = agree(server, "agreed", "ann", 15)
    first = page_of(reader, "agreed")
    shown = rows(first, "Live grants, newest first")
    assert len(shown) == 10
    assert [row.split()[0] for row in shown] == ids[:4:-1]
    assert all(" ann " in row for row in shown)
    second = first.click("Next page")
    others = rows(second, "Live grants, newest first")
    assert len(others) == 6
    assert sum("the client itself" in row for row in others) == 1
    elsewhere = agree(server, keep(server, "agreed-elsewhere"), "ann")
    for place in ("nothing", *elsewhere):
        answer = reader.get(
            "/admin/clients/client", {"client_id": "agreed", "grants_after": place}, expect_errors=True
        )
        assert (answer.status_int, "begin with the first page" in alert(answer)) == (400, True)
    assert own


# ---- the end of a client ----------------------------------------------------------------------------


def test_a_client_is_disabled_after_a_last_step_that_counts(server: Server, operator: TestApp) -> None:
    """L-08: grants, tokens and consents are counted, end, and the event is the person's."""
    keep(server, "ending")
    agree(server, "ending", "ann", 3)
    with server.begin() as engine:
        ann = engine.stores.users.find_by_name("ann")
        assert ann
        engine.stores.consents.remember(a_consent(user_id=ann.user_id, client_id="ending"))
    last_step = page_of(operator, "ending").click("Disable")
    ends = [item.get_text(" ", strip=True) for item in last_step.html.find(class_="ends").find_all("li")]
    assert ends == ["3 grants", "3 refresh tokens", "1 remembered consent"]
    page = form_with(last_step, "client_id").submit("confirm").follow()
    assert status(page).startswith(
        "This client is disabled. Ended: 3 grants, 3 refresh tokens, 1 remembered consent."
    )
    assert "It has no live grant." in page.text
    new = [row for row in server.rows("events") if row["client_id"] == "ending"]
    assert [row["type"] for row in new] == [EventType.CLIENT_DISABLED, EventType.GRANTS_REVOKED]
    assert json.loads(new[1]["details"])["grants"] == 3
    assert all(row["actor"].startswith("user:") for row in new)
    assert not page.html.find("a", string="Disable")


def test_a_client_is_found_changed_and_ended_on_either_database(database_url: str) -> None:
    """What ends in transactions of its own does not wait for that of the request."""
    server = Server(database_url, {"authserver.plugins": f"{SETTINGS['authserver.plugins']}\nadmin_console"})
    server.add_user("ada", groups=["authserver-admins"])
    browser = signed_in(server, "ada")
    answer = filled(browser, client_id="either").submit()
    assert once(answer)
    agree(server, "either", "ada", 2)
    page = browser.get("/admin/clients?search=eith&state=unused&by=operator").click(href="client_id=either")
    form = form_with(page.click("Make a new secret"), "overlap")
    assert once(form.submit())
    form = form_with(page.click("Edit"), "client_name")
    form["client_name"] = "Either"
    last_step = form.submit().follow().click("Disable")
    done = form_with(last_step, "client_id").submit("confirm").follow()
    assert "Ended: 2 grants, 2 refresh tokens." in status(done)
    server.close()


def test_what_is_much_ends_in_parts(
    server: Server, operator: TestApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as one request may take; the client is disabled with the first part, and the page goes on."""
    keep(server, "popular")
    agree(server, "popular", "ann", 5)
    monkeypatch.setattr(ending, "BATCH", 2)
    monkeypatch.setattr(ends, "FEW", 2)
    monkeypatch.setattr(ends, "COUNTING", 0)
    monkeypatch.setattr(ends, "ENDING", 0)
    last_step = page_of(operator, "popular").click("Disable")
    assert "there may be more" in last_step.text
    assert "authserver client disable --dry-run -- popular" in last_step.text
    page = form_with(last_step, "client_id").submit("confirm").follow()
    assert "There may be more: continue until nothing is left." in status(page)
    assert not stored(server, "popular").is_enabled
    for _ in range(9):
        page = form_with(page, "client_id").submit("confirm").follow()
        if "There may be more" not in status(page):
            break
    assert page.request.path == "/admin/clients/client"
    assert "It has no live grant." in page.text


def test_a_client_that_is_known_by_its_address_is_shown_kept_and_ended(
    server: Server, admin: TestApp, operator: TestApp
) -> None:
    """It is not kept here until an administrator does that; before, all that was granted to it can end."""
    agree(server, AT_ADDRESS, "ann", 2)
    page = page_of(operator, AT_ADDRESS)
    assert "This client is not stored here" in page.text
    assert not page.html.find("button", string="Store it as it is now")
    last_step = page.click("End everything")
    assert "The document at its address does not change" in last_step.text
    page = form_with(last_step, "client_id").submit("confirm").follow()
    assert status(page).startswith("Ended: 2 grants, 2 refresh tokens.")
    page = form_with(page_of(admin, AT_ADDRESS), "client_id").submit().follow()
    assert status(page) == "It is stored here now, as its document describes it."
    assert stored(server, AT_ADDRESS).registered_by == "operator"
    assert page.html.find("a", string="Edit")
    elsewhere = admin.get("/admin/clients/client?client_id=https://nobody.example/c", expect_errors=True)
    assert elsewhere.status_int == 404


def test_who_only_reads_is_shown_no_button(server: Server, reader: TestApp) -> None:
    keep(server, "readable")
    page = page_of(reader, "readable")
    assert {link.get_text(strip=True) for link in page.html.main.find_all(class_="button")} == {
        "All its events",
        "Its refusals",
    }


# ---- clients are added and changed ------------------------------------------------------------------


def filled(admin: TestApp, **values: Any) -> Any:
    """The form for a new client with these values."""
    form = form_with(admin.get("/admin/clients/add"), "client_name")
    form["client_name"] = "Reports"
    form["redirect_uris"] = "https://reports.example/cb"
    fill(form, {"scope": ["profile"], **values})
    return form


def fill(form: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        fields = form.fields[name]
        if isinstance(value, list):
            for field in fields:
                field.checked = field._value in value
        else:
            fields[0].value = value


def stored(server: Server, client_id: str) -> Client:
    with server.begin() as engine:
        client = engine.stores.clients.find(client_id, engine.now)
    assert client is not None
    return client


def once(answer: TestResponse) -> str:
    """The secret that a page shows once."""
    secret: str = answer.html.find(class_="once").find("code").get_text(strip=True)
    return secret


def test_a_client_is_added_and_its_secret_shown_once(server: Server, admin: TestApp) -> None:
    """It works; sending the form again, as a reload does, makes no other client, and no page shows it again."""
    form = filled(
        admin,
        client_id="added",
        client_uri="https://reports.example/",
        grant_types=["authorization_code", "client_credentials"],
        first_party=True,
    )
    answer = form.submit()
    secret = once(answer)
    client = stored(server, "added")
    assert (client.name, client.scopes, client.first_party) == ("Reports", ("profile",), True)
    assert client.grant_types == ("authorization_code", "client_credentials")
    assert client.redirect_uris == ("https://reports.example/cb",)
    assert dict(client.details) == {"client_uri": "https://reports.example/"}
    token = server.token(client, secret, grant_type="client_credentials")
    assert token.status_int == 200
    again = form.submit(expect_errors=True)
    assert again.status_int == 400
    assert "This form was sent before" in alert(again)
    assert secret not in again.text
    assert secret not in page_of(admin, "added").text
    events = [row for row in server.rows("events") if row["client_id"] == "added"]
    assert (events[0]["type"], events[0]["actor"][:5]) == (EventType.CLIENT_REGISTERED, "user:")


def test_a_public_client_is_added_without_a_secret(server: Server, admin: TestApp) -> None:
    form = filled(admin, token_endpoint_auth_method="none", redirect_uris="com.example.app:/cb")
    page = form.submit().follow()
    assert status(page) == "The client is added."
    assert "It does not: it is a public client" in page.text
    client = stored(server, page.html.main.find("code").get_text(strip=True))
    assert (client.is_public, client.application_type, client.secrets) == (True, "native", ())


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        (
            {"client_name": ""},
            "client_name",
            "client_name is missing: type the name that people see.",
        ),
        ({"client_name": "a\u202eb"}, "client_name", "client_name must be up to 100 printable characters."),
        ({"redirect_uris": "http://a.example/"}, "redirect_uris", "redirect_uris: "),
        ({"redirect_uris": ""}, "redirect_uris", "redirect_uris is missing"),
        (
            {"grant_types": []},
            "grant_types",
            "grant_types is missing: select the grant types that it may use.",
        ),
        ({"grant_types": ["refresh_token"]}, "grant_types", "needs authorization_code or another grant"),
        ({"scope": []}, "scope", "scope must name at least one scope"),
        ({"client_id": "user_x"}, "client_id", "A client_id has up to 100 visible ASCII characters"),
        ({"client_id": "<script>alert(1)</script> "}, "", ""),
        ({"client_id": "taken"}, "client_id", "client_id: there is a client with this id"),
        ({"client_uri": "javascript:alert(1)"}, "client_uri", "client_uri: "),
        ({"member-jwks": "{}"}, "jwks", "jwks: "),
        ({"member-jwks": "not json"}, "jwks", "jwks: "),
        ({"member-jwks": "[" * 9000}, "jwks", "jwks: "),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "jwks", "jwks"),
        (
            {"member-jwks": '{"keys": [1]}', "member-jwks_uri": "https://a.example/"},
            "jwks",
            "jwks and jwks_uri exclude each other: clear one of them.",
        ),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_what_was_typed_stays(
    server: Server, admin: TestApp, values: dict[str, Any], field: str, sentence: str
) -> None:
    if values.get("client_id") == "taken":
        keep(server, "taken")
    form = filled(admin, **values)
    count = len(server.rows("clients"))
    answer = form.submit(expect_errors=True)
    if not field:  # an odd id, and allowed
        assert answer.status_int == 200
        return
    assert answer.status_int == 400
    assert sentence in alert(answer)
    assert len(server.rows("clients")) == count
    again = form_with(answer, "client_name")
    assert again["redirect_uris"].value.strip() == form["redirect_uris"].value.strip()
    assert again["client_name"].value == form["client_name"].value
    (wrong,) = answer.html.find_all(class_="wrong")
    assert sentence in wrong.get_text(strip=True)
    assert wrong["id"].endswith(field)


def test_a_method_or_scope_that_there_is_not_is_refused(server: Server, admin: TestApp) -> None:
    """Whoever sends a form without our page."""
    for name, value in (
        ("token_endpoint_auth_method", "magic"),
        ("scope", "magic"),
        ("grant_types", "magic"),
    ):
        form = filled(admin)
        fields = [pair for pair in form.submit_fields() if pair[0] != name]
        answer = admin.post("/admin/clients/add", [*fields, (name, value)], expect_errors=True)
        assert answer.status_int == 400
        assert name.split("_")[-1] in alert(answer)


def test_a_client_is_changed_with_what_it_was_before(server: Server, admin: TestApp) -> None:
    """Every member; lists may become empty; what is not touched stays."""
    keep(
        server,
        "changing",
        name="Before",
        redirect_uris=("https://a.example/", "https://b.example/"),
        details={"policy_uri": "https://a.example/policy", "software_id": "kept"},
    )
    form = form_with(page_of(admin, "changing").click("Edit"), "client_name")
    assert form["redirect_uris"].value.split() == ["https://a.example/", "https://b.example/"]
    fill(
        form,
        {
            "client_name": "After",
            "redirect_uris": "https://b.example/\r\nhttps://c.example/",
            "grant_types": ["authorization_code"],
            "scope": ["files.read"],
            "policy_uri": "",
            "tos_uri": "https://a.example/tos",
            "rotates_refresh_tokens": False,
        },
    )
    page = form.submit().follow()
    assert "People who agreed before are asked again." in status(page)
    client = stored(server, "changing")
    assert (client.name, client.scopes) == ("After", ("files.read",))
    assert client.redirect_uris == ("https://b.example/", "https://c.example/")
    assert dict(client.details) == {"software_id": "kept", "tos_uri": "https://a.example/tos"}
    assert not client.rotates_refresh_tokens
    (event,) = [row for row in server.rows("events") if row["type"] == EventType.CLIENT_CHANGED]
    changed = json.loads(event["details"])["changed"]
    assert changed["client_name"] == {"from": "Before", "to": "After"}
    assert event["actor"].startswith("user:")
    nothing = form_with(page_of(admin, "changing").click("Edit"), "client_name").submit().follow()
    assert status(nothing) == "Nothing was changed: it has these values already."


def test_a_form_that_somebody_else_overtook_changes_nothing(server: Server, admin: TestApp) -> None:
    """And is shown again with what was typed; sent again, it counts."""
    keep(server, "overtaken", name="Before")
    form = form_with(page_of(admin, "overtaken").click("Edit"), "client_name")
    other = form_with(page_of(admin, "overtaken").click("Edit"), "client_name")
    other["client_name"] = "Theirs"
    other.submit()
    form["client_name"] = "Mine"
    answer = form.submit(expect_errors=True)
    assert "Somebody else changed this client after this form was shown" in alert(answer)
    assert stored(server, "overtaken").name == "Theirs"
    again = form_with(answer, "client_name")
    assert again["client_name"].value == "Mine"
    again.submit()
    assert stored(server, "overtaken").name == "Mine"


def test_a_client_that_becomes_public_is_asked_about_first(server: Server, admin: TestApp) -> None:
    """Its secrets and grants end with its credential, so how many is said first; back again it gets a new secret."""
    client, _ = server.add_client(client_id="becoming", scopes=("profile",))
    agree(server, client.client_id, "ann", 2)
    form = form_with(page_of(admin, "becoming").click("Edit"), "client_name")
    form["token_endpoint_auth_method"] = "none"
    asked = form.submit(expect_errors=True)
    assert asked.status_int == 400
    assert "Its grants now: 2." in asked.text
    form = form_with(asked, "client_name")
    assert form["token_endpoint_auth_method"].value == "none"
    form["ends"] = True
    page = form.submit().follow()
    assert "Grants that ended: 2." in status(page)
    assert stored(server, "becoming").secrets == ()
    form = form_with(page.click("Edit"), "client_name")
    form["token_endpoint_auth_method"] = "client_secret_basic"
    answer = form.submit()
    assert len(once(answer)) > 40
    assert len(stored(server, "becoming").secrets) == 1


def test_what_cannot_be_changed_is_a_sentence(server: Server, admin: TestApp) -> None:
    keep(server, "over-already", disabled_at=NOW)
    assert not page_of(admin, "over-already").html.find("a", string="Edit")
    form = form_with(admin.get("/admin/clients/edit?client_id=over-already"), "client_name")
    form["client_name"] = "Other"
    assert alert(form.submit(expect_errors=True)) == "over-already is disabled for good"
    assert admin.get("/admin/clients/edit?client_id=nobody", expect_errors=True).status_int == 404


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><rect width="1" height="1"/></svg>'


def test_a_logo_is_sent_as_a_file_and_taken_away(server: Server, admin: TestApp) -> None:
    keep(server, "pictured")
    page = page_of(admin, "pictured").click("Logo")
    form = form_with(page, "client_id")
    form["logo"] = Upload("logo.svg", SVG, "image/svg+xml")
    page = form.submit().follow()
    picture = admin.get(page.html.find("img", alt="Its logo")["src"])
    assert (picture.content_type, picture.body) == ("image/svg+xml", SVG)
    png = a_png()
    form["logo"] = Upload('a"b\r\n.png', png, "image/png")
    page = form.submit().follow()
    assert admin.get(page.html.find("img", alt="Its logo")["src"]).body == png
    form = form_with(page.click("Logo"), "client_id")
    page = form.submit("remove").follow()
    assert status(page) == "The logo is removed."
    assert stored(server, "pictured").logo is None


def a_png() -> bytes:
    """A picture of one pixel, with line ends and what looks like the end of a form in a comment."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"tEXt", b"Comment\0\r\n\r\n--boundary--\r\n\n"),
            chunk(b"IDAT", zlib.compress(b"\0\0")),
            chunk(b"IEND", b""),
        )
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "logo: choose an SVG or PNG file."),
        (b"GIF89a", "logo: it must be an SVG or PNG file."),
        (SVG.replace(b"rect", b"script"), "logo: the SVG file must not have the element script."),
    ],
)
def test_a_file_that_is_no_logo_is_refused(
    server: Server, admin: TestApp, content: bytes, sentence: str
) -> None:
    if not any(row["client_id"] == "no-logo" for row in server.rows("clients")):
        keep(server, "no-logo")
    form = form_with(page_of(admin, "no-logo").click("Logo"), "client_id")
    form["logo"] = Upload("logo.svg", content, "image/svg+xml")
    answer = form.submit(expect_errors=True)
    assert (answer.status_int, alert(answer)) == (400, sentence)
    assert stored(server, "no-logo").logo is None


def test_a_logo_that_is_too_large_is_refused_unread(server: Server, admin: TestApp) -> None:
    keep(server, "large-logo")
    form = form_with(page_of(admin, "large-logo").click("Logo"), "client_id")
    form["logo"] = Upload("logo.svg", SVG + b" " * 70_000, "image/svg+xml")
    assert form.submit(expect_errors=True).status_int == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x--",
        b"nothing",
        b"--x\r\n\r\n\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="client_id"\r\n\r\n\xff\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="client_id"\r\n\r\na',
        b'--x\r\nContent-Disposition: form-data; name="client_id"\r\n\r\na\0b\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="<b>"\r\n\r\na\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\na\r\n' * 200 + b"--x--\r\n",
    ],
)
def test_a_body_that_no_browser_sends_is_refused(admin: TestApp, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = admin.post("/admin/clients/logo", body, headers=headers, expect_errors=True)
    assert answer.status_int in (400, 403, 415)


def test_only_the_form_with_a_file_is_read_as_one_with_files(admin: TestApp) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = admin.post("/admin/clients/add", b"--x--\r\n", headers=headers, expect_errors=True)
    assert answer.status_int == 400
    self_registered = admin.get("/admin/clients/logo?client_id=hostile", expect_errors=True)
    assert self_registered.status_int == 404


# ---- secrets ----------------------------------------------------------------------------------------


def test_a_secret_is_replaced_with_an_overlap_and_ended(
    server: Server, admin: TestApp, operator: TestApp
) -> None:
    client, first = server.add_client(
        client_id="rotating", grant_types=("client_credentials",), scopes=("profile",)
    )

    def works(secret: str) -> bool:
        return server.token(client, secret, grant_type="client_credentials").status_int == 200

    form = form_with(page_of(admin, "rotating").click("Make a new secret"), "overlap")
    answer = form.submit()
    second = once(answer)
    assert "is accepted until" in answer.text
    assert works(first) and works(second)
    assert "This form was sent before" in alert(form.submit(expect_errors=True))
    assert len(stored(server, "rotating").secrets) == 2
    third = form_with(page_of(admin, "rotating").click("Make a new secret"), "overlap").submit(
        expect_errors=True
    )
    assert alert(third).startswith("It has two live secrets already: end one of them first")
    page = page_of(operator, "rotating")
    assert len(rows(page, "Live secrets, oldest first")) == 2
    last_step = page.click("^End ", index=0)
    assert "1 other secret is left." in last_step.text
    page = form_with(last_step, "secret").submit("confirm").follow()
    assert "has ended" in status(page)
    assert not works(first) and works(second)
    gone = form_with(last_step, "secret").submit("confirm", expect_errors=True)
    assert alert(gone) == "This secret has ended already."
    last_step = page.click("^End ", index=0)
    assert "It is the last one" in last_step.text
    form_with(last_step, "secret").submit("confirm").follow()
    assert not works(second)
    assert "It has no live secret" in page_of(operator, "rotating").text
    new = {row["type"] for row in server.rows("events") if row["client_id"] == "rotating"}
    assert {EventType.CLIENT_SECRET_ADDED, EventType.CLIENT_SECRET_ENDED} <= new


def test_a_last_step_about_one_of_two_secrets_does_not_end_the_last(
    server: Server, operator: TestApp
) -> None:
    """The other one ended meanwhile: the page that said that one is left does not count any more."""
    client, _ = server.add_client(client_id="two-steps", scopes=("profile",))
    with server.begin() as engine:
        rotate_secret(engine, client.client_id, timedelta(hours=1))
    page = page_of(operator, "two-steps")
    one, other = page.click("^End ", index=0), page.click("^End ", index=1)
    form_with(one, "secret").submit("confirm")
    answer = form_with(other, "secret").submit("confirm", expect_errors=True)
    assert "is the last live secret of two-steps" in alert(answer)
    assert len(stored(server, "two-steps").secrets) == 1


def test_a_new_secret_may_end_the_others_at_once(server: Server, admin: TestApp) -> None:
    client, first = server.add_client(
        client_id="lost", grant_types=("client_credentials",), scopes=("profile",)
    )
    form = form_with(admin.get("/admin/clients/secret?client_id=lost"), "overlap")
    form["overlap"] = "0"
    secret = once(form.submit())
    refused = server.token(client, first, grant_type="client_credentials")
    assert refused.status_int == 401
    assert server.token(client, secret, grant_type="client_credentials").status_int == 200
    forced = form_with(admin.get("/admin/clients/secret?client_id=lost"), "overlap")
    forced["overlap"].force_value("99y")
    assert alert(forced.submit(expect_errors=True)) == "There is no such choice: choose one from the form."


def test_a_client_without_secrets_has_no_pages_for_them(server: Server, admin: TestApp) -> None:
    keep(server, "keyed", auth_method="private_key_jwt", details={"jwks": {"keys": [{"kid": "<b>key</b>"}]}})
    page = page_of(admin, "keyed")
    assert "&lt;b&gt;key" in page.text
    assert "Make a new secret" not in page.text
    for address in ("secret?client_id=keyed", "secret/end?client_id=keyed&secret=x"):
        assert admin.get(f"/admin/clients/{address}", expect_errors=True).status_int == 404


# ---- initial access tokens --------------------------------------------------------------------------


def test_an_initial_access_token_is_made_used_and_revoked(
    server: Server, admin: TestApp, operator: TestApp
) -> None:
    form = form_with(admin.get("/admin/initial-tokens").click("Make a token"), "policy")
    form["uses"], form["note"] = "2", HOSTILE[:150]
    answer = form.submit()
    text = once(answer)
    assert "This form was sent before" in alert(form.submit(expect_errors=True))
    body = {
        "client_name": "Partner",
        "redirect_uris": ["https://partner.example/cb"],
        "token_endpoint_auth_method": "none",
        "scope": "profile",
    }
    headers = {"Authorization": f"Bearer {text}"}
    client_id = server.http.post_json(server.path("/oauth/register"), body, headers=headers).json["client_id"]
    page = operator.get("/admin/initial-tokens")
    (row,) = rows(page, "Tokens that were made here, newest first")
    assert "can be used partners 1 of 2" in row
    assert text not in page.text
    assert "\u202e" not in page.text
    assert "<script>alert" not in page.text
    last_step = page.click("^Revoke")
    told = last_step.html.find("form", class_="confirmation").get_text(" ", strip=True)
    assert "1 client has registered with it, and stays." in told, told
    page = form_with(last_step, "initial_token").submit("confirm").follow()
    assert "is revoked. The clients that it registered stay." in status(page)
    assert "revoked" in rows(page, "Tokens that were made here, newest first")[0]
    refused = server.http.post_json(server.path("/oauth/register"), body, headers=headers, expect_errors=True)
    assert refused.status_int == 401
    again = form_with(last_step, "initial_token").submit("confirm", expect_errors=True)
    assert alert(again) == "This token is revoked already."
    shown = page_of(admin, client_id)
    assert "policy" in shown.html.find(string="Registered with").parent.find_next("dd").get_text()
    events = [row for row in server.rows("events") if row["type"] == EventType.INITIAL_TOKEN_ADDED]
    assert all(row["actor"].startswith("user:") for row in events)


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"policy": "nobodys"}, "policy", "nobodys: no such policy"),
        ({"uses": "0"}, "uses", "Write a whole number from 1 to 1,000,000"),
        ({"uses": "1000001"}, "uses", "Write a whole number"),
        ({"uses": "\u0663"}, "uses", "Write a whole number"),
        ({"uses": ""}, "uses", "Write a whole number"),
        ({"expires": "99y"}, "expires", "There is no such choice"),
        ({"note": "x" * 201}, "note", "a note has up to 200 characters"),
    ],
)
def test_a_token_that_cannot_be_made_is_said_at_its_field(
    server: Server, admin: TestApp, values: dict[str, str], field: str, sentence: str
) -> None:
    form = form_with(admin.get("/admin/initial-tokens/add"), "policy")
    for name, value in values.items():
        form[name].force_value(value)
    count = len(server.rows("initial_tokens"))
    answer = form.submit(expect_errors=True)
    assert answer.status_int == 400
    assert sentence in alert(answer)
    assert sentence in answer.html.find(id=f"wrong-{field}").get_text()
    assert len(server.rows("initial_tokens")) == count


def test_an_initial_access_token_for_any_number_of_clients(server: Server, admin: TestApp) -> None:
    form = form_with(admin.get("/admin/initial-tokens/add"), "policy")
    form["unlimited"], form["expires"] = True, "365d"
    assert "any number" in form.submit().text
    for address in ("?after=nothing", "/revoke?initial_token=nothing"):
        answer = admin.get(f"/admin/initial-tokens{address}", expect_errors=True)
        assert answer.status_int == (400 if "after" in address else 404)


# ---- resources and scopes ---------------------------------------------------------------------------


def resource_form(admin: TestApp, **values: Any) -> Any:
    form = form_with(admin.get("/admin/resources/add"), "uri")
    fill(form, {"uri": "https://notes.example/", **values})
    return form


def test_a_resource_is_registered_changed_and_removed(server: Server, admin: TestApp) -> None:
    """L-08: removing it says how much ends, and ends it."""
    keep(server, "notes-api")
    page = (
        resource_form(
            admin, name="Notes", every_scope=False, scope=["files.read"], introspecting_clients="notes-api"
        )
        .submit()
        .follow()
    )
    assert status(page) == "https://notes.example/ is registered."
    (row,) = [row for row in rows(page, "Resources, those of the INI first") if "notes.example" in row]
    assert row.startswith("Notes https://notes.example/")
    assert "the database" in row
    form = form_with(page.click("Edit"), "uri")
    assert form["introspecting_clients"].value.split() == ["notes-api"]
    fill(form, {"uri": "https://NOTES.example/", "token_lifetime": "5m", "token_format": "opaque"})
    page = form.submit().follow()
    assert "https://NOTES.example/ is changed." in status(page)
    events = [row for row in server.rows("events") if row["type"] == EventType.RESOURCE_CHANGED]
    changed = json.loads(events[0]["details"])["changed"]
    assert changed["token_lifetime"] == {"from": None, "to": 300}
    with server.begin() as engine:
        engine.stores.grants.add(
            a_grant(
                grant_id="grant_notes",
                client_id="notes-api",
                user_id=None,
                resources=("https://notes.example/",),
                created_at=NOW,
                expires_at=NOW + timedelta(days=1),
            )
        )
    last_step = page.click("^Remove$")
    assert "1 grant" in last_step.html.find(class_="ends").get_text(" ", strip=True)
    page = form_with(last_step, "resource").submit("confirm").follow()
    assert status(page).startswith("https://NOTES.example/ is removed. Ended: 1 grant")
    assert "otes.example" not in page.html.find("table").get_text()
    gone = form_with(last_step, "resource").submit("confirm", expect_errors=True)
    assert gone.status_int == 404
    events = [row for row in server.rows("events") if row["type"] == EventType.RESOURCE_REMOVED]
    assert all(row["actor"].startswith("user:") for row in events)


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"uri": "nothing"}, "uri", "Write an absolute URI"),
        ({"uri": "https://files.example/"}, "uri", "the INI names it"),
        ({"name": "\u202e"}, "name", "printable characters"),
        ({"every_scope": False}, "scope", "Tick the scopes"),
        ({"scope": ["profile"]}, "scope", "Tick either every scope"),
        ({"token_lifetime": "soon"}, "token_lifetime", "Write a duration"),
        ({"token_lifetime": "1s"}, "token_lifetime", "an access token is valid for 10 to"),
        ({"token_lifetime": "999999d"}, "token_lifetime", "an access token is valid for 10 to"),
        ({"introspecting_clients": "nobody"}, "introspecting_clients", "nobody: no such client"),
        ({"is_default": True}, "is_default", "is the default already"),
    ],
)
def test_what_is_wrong_with_a_resource_is_said_at_its_field(
    server: Server, admin: TestApp, values: dict[str, Any], field: str, sentence: str
) -> None:
    answer = resource_form(admin, **values).submit(expect_errors=True)
    assert answer.status_int == 400
    assert sentence in alert(answer)
    (wrong,) = answer.html.find_all(class_="wrong")
    assert sentence in wrong.get_text()
    assert wrong.get("id", "wrong-is_default") == f"wrong-{field}"
    assert server.rows("resources") == []


def test_a_resource_that_somebody_else_overtook_is_not_changed(server: Server, admin: TestApp) -> None:
    page = resource_form(admin, uri="urn:race").submit().follow()
    one, other = (form_with(page.click("Edit"), "uri") for _ in range(2))
    other["name"] = "Theirs"
    other.submit()
    one["name"] = "Mine"
    assert "Somebody else changed this resource" in alert(one.submit(expect_errors=True))
    assert [row["name"] for row in server.rows("resources")] == ["Theirs"]
    elsewhere = form_with(page.click("Edit"), "uri")
    elsewhere["uri"] = "urn:other"
    assert "This is the URI of another resource" in alert(elsewhere.submit(expect_errors=True))
    form_with(page.click("^Remove$"), "resource").submit("confirm")


def test_a_resource_of_the_ini_is_only_shown(server: Server, admin: TestApp) -> None:
    """With the setting that names it."""
    page = admin.get("/admin/resources")
    (row,) = [row for row in rows(page, "Resources, those of the INI first") if "files.example" in row]
    assert "authserver.plugin.resources_listed.resources" in row
    assert "Edit" not in row
    for address in ("edit", "remove"):
        for odd in ("https://files.example/", "", "nothing", "https://nobody.example/"):
            answer = admin.get(f"/admin/resources/{address}", {"resource": odd}, expect_errors=True)
            assert answer.status_int == 404
    assert "begin with the first page" in alert(admin.get("/admin/resources?after=x", expect_errors=True))


def test_scopes_are_shown_with_their_sentence_and_where_they_come_from(reader: TestApp) -> None:
    shown = rows(reader.get("/admin/scopes"), "Scopes")
    assert "profile See your name authserver.scopes" in shown
    assert "admin not in the metadata Everything authserver.scopes" in shown
