"""The pages for clients, initial access tokens, resources and scopes: what they show, change and end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from webtest import TestApp, TestResponse

from authserver.engine.crypto import digests
from authserver.engine.records import EventType, TokenKind
from authserver.testing.records import a_client, a_consent, a_grant, a_token
from authserver.testing.server import SETTINGS, Server, form_with
from tests.features.test_console import HOSTILE, PEOPLE, signed_in

NOW = datetime.now(UTC)
# What an id of a client may be, and what has a meaning in an address, a command or a pattern.
ODD_IDS = ("-rf", "a/b?c%20d&e=f#g", "../..", "%00", "a+b", "<b>id</b>", "'\"`")
AT_ADDRESS = "https://app.example/client.json?a=b&c"


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("console-clients") / "authserver.db"
    copyfile(migrated_sqlite_file, path)
    server = Server(
        f"sqlite:///{path}",
        {
            "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nadmin_console",
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
        ({"search": "x" * 201}, "no name or id has more than 200 characters: search for a part of it"),
        ({"state": "asleep"}, "there is no such choice: take one of the form"),
        ({"by": "magic"}, "there is no such choice: take one of the form"),
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
    assert "There is no live grant to it." in page.text
    new = [row for row in server.rows("events") if row["client_id"] == "ending"]
    assert [row["type"] for row in new] == [EventType.CLIENT_DISABLED, EventType.GRANTS_REVOKED]
    assert json.loads(new[1]["details"])["grants"] == 3
    assert all(row["actor"].startswith("user:") for row in new)
    assert not page.html.find("a", string="Disable")


def test_who_only_reads_is_shown_no_button(server: Server, reader: TestApp) -> None:
    keep(server, "readable")
    page = page_of(reader, "readable")
    assert {link.get_text(strip=True) for link in page.html.main.find_all(class_="button")} == {
        "All its events",
        "What it was refused",
    }
