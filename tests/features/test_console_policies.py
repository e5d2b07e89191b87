"""The pages for operators about keys, policies, limits and statistics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfile
from urllib.parse import quote

import pytest
from webtest import TestApp, TestResponse

from authserver.administration import rates
from authserver.api import deny, hookimpl
from authserver.cli.keys import new_ring_entry
from authserver.engine.counting import Counting
from authserver.engine.event_seals import Sealer, is_ours
from authserver.engine.questions import Counted
from authserver.engine.rates import claim
from authserver.engine.records import EventType, KeyState
from authserver.engine.statistics import take_sample
from authserver.event_readers import Reading
from authserver.explaining import questions
from authserver.features.console import trying
from authserver.testing.records import an_event
from authserver.testing.server import RESOURCE, SETTINGS, Server, form_with

HOSTILE = "<script>alert(1)</script>\u202egnp.exe\x1b[31m" + "x" * 10_000
PEOPLE = {"rita": "support", "oscar": "operators", "ada": "authserver-admins"}


def started(path: Path, template: Path, **more: str) -> Server:
    copyfile(template, path)
    server = Server(
        f"sqlite:///{path}",
        {
            "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nadmin_console",
            "authserver.plugin.admin_console.read": "support",
            "authserver.plugin.admin_console.operate": "operators",
            **more,
        },
    )
    for username, group in PEOPLE.items():
        server.add_user(username, groups=[group])
    return server


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = started(tmp_path_factory.mktemp("console") / "authserver.db", migrated_sqlite_file)
    yield server
    server.close()


@pytest.fixture(scope="module")
def browsers(server: Server) -> dict[str, TestApp]:
    """A signed-in browser of each person."""
    return {username: signed_in(server, username) for username in PEOPLE}


@pytest.fixture
def reader(browsers: dict[str, TestApp]) -> TestApp:
    return browsers["rita"]


@pytest.fixture
def administrator(browsers: dict[str, TestApp]) -> TestApp:
    return browsers["ada"]


def signed_in(server: Server, username: str) -> TestApp:
    browser = server.browser()
    server.sign_in(browser, username)
    return browser


def words(answer: TestResponse) -> str:
    return " ".join(answer.html.main.get_text(" ", strip=True).split())


def alert(answer: TestResponse) -> str:
    return answer.html.find(role="alert").get_text(" ", strip=True)


def status(answer: TestResponse) -> str:
    return answer.html.find(role="status").get_text(" ", strip=True)


def events(server: Server, type: EventType) -> list[dict]:
    return [
        {**row, "details": json.loads(row["details"] or "{}")}
        for row in server.rows("events")
        if row["type"] == type
    ]


# ---- keys -------------------------------------------------------------------------------------------


def test_a_key_is_rotated_and_revoked(server: Server, administrator: TestApp) -> None:
    """R-06: staged first; a revocation says what it means before it is done, and both are the person's acts."""
    before = words(administrator.get("/admin/keys"))
    assert "signs new tokens" in before
    form = form_with(administrator.get("/admin/keys"), "after")
    page = form.submit().follow()
    assert "is published, and signs from" in status(page)
    (made,) = events(server, EventType.KEY_CREATED)[1:]
    assert made["actor"].startswith("user:") and made["reason"] == "rotated"
    staged = made["details"]["kid"]
    assert staged in page.text and KeyState.STAGED in words(page)
    with server.begin() as engine:
        old, new = sorted(engine.stores.signing_keys.list(), key=lambda key: key.activates_at)
        assert new.kid == staged and old.retires_at == new.activates_at

    again = form_with(administrator.get("/admin/keys"), "after").submit(expect_errors=True)
    assert again.status_int == 400 and "is staged already" in alert(again)

    asked = administrator.get(f"/admin/keys/revoke?kid={old.kid}")
    assert "1 signing key" in words(asked) and f"The staged key {staged} signs at once" in words(asked)
    assert f"{old.ends_at:%Y-%m-%d %H:%M:%S}" in words(asked)
    assert len(server.rows("signing_keys")) == 2 and not events(server, EventType.KEY_REVOKED)
    form = form_with(asked, "reason")
    form["reason"] = "stolen"
    done = form.submit("confirm").follow()
    assert status(done).startswith(f"{old.kid} is out of use, and its private part is erased. {staged} signs")
    (revoked,) = events(server, EventType.KEY_REVOKED)
    assert (revoked["reason"], revoked["details"]["kid"]) == ("stolen", old.kid)
    assert revoked["actor"] == made["actor"]
    gone = administrator.get(f"/admin/keys/revoke?kid={old.kid}", expect_errors=True)
    assert gone.status_int == 400 and "it ended at" in alert(gone)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"algorithm": "RS256x"}, "algorithm: expected"),
        ({"after": "soon"}, "expected a number of seconds"),
        ({"after": "-1"}, "expected a number of seconds"),
        ({"after": "9" * 400}, "expected a number of seconds"),
        ({"after": "1"}, "is published for at least"),
        ({"algorithm": HOSTILE}, "algorithm: expected"),
    ],
)
def test_a_key_that_cannot_be_is_not_made(
    server: Server, administrator: TestApp, sent: dict[str, str], said: str
) -> None:
    before = server.rows("signing_keys")
    form = form_with(administrator.get("/admin/keys"), "after")
    values = {**dict(form.submit_fields()), **sent}
    answer = administrator.post("/admin/keys", values, expect_errors=True)
    assert answer.status_int == 400 and said in alert(answer)
    assert "<script" not in answer.text
    assert server.rows("signing_keys") == before


def test_a_revocation_needs_its_button_and_a_key(server: Server, administrator: TestApp) -> None:
    """T147: a tampered form ends nothing."""
    with server.begin() as engine:
        kid = next(key.kid for key in engine.stores.signing_keys.list() if key.state(engine.now) != "removed")
    form = form_with(administrator.get(f"/admin/keys/revoke?kid={kid}"), "reason")
    values = dict(form.submit_fields())
    before = server.rows("signing_keys")
    for tampered, said in (
        ({}, "confirm it with the button"),
        ({"confirm": "yes", "reason": HOSTILE}, "up to 100 characters"),
        ({"confirm": "yes", "kid": HOSTILE}, "no such key"),
        ({"confirm": "yes", "kid": ""}, "no such key"),
    ):
        answer = administrator.post("/admin/keys/revoke", {**values, **tampered}, expect_errors=True)
        assert answer.status_int == 400 and said in answer.html.main.get_text(" ", strip=True), tampered
        assert "<script" not in answer.text
    assert server.rows("signing_keys") == before


def test_the_ring_says_what_needs_its_older_keys(migrated_sqlite_file: Path, tmp_path: Path) -> None:
    """T148: what is sealed under an older key, and that it may leave when nothing is."""
    server = started(tmp_path / "authserver.db", migrated_sqlite_file)
    sealing = Reading(
        server.application.storage, Sealer(server.application.parts.ring, lambda: datetime.now(UTC))
    )
    assert sealing.work()
    server.close()
    keys = new_ring_entry() + "\n" + SETTINGS["authserver.secret_keys"]
    later = Server(f"sqlite:///{tmp_path / 'authserver.db'}", {**server.ini, "authserver.secret_keys": keys})
    browser = signed_in(later, "rita")
    page = words(browser.get("/admin/keys"))
    assert (
        "Older keys of the ring are still needed. 1 signing key and the proof of the events can be sealed"
        in page
    )
    assert "authserver db reencrypt" in page and "Seal again" not in page

    administrator = signed_in(later, "ada")
    asked = administrator.get("/admin/keys")
    (form,) = [form for form in asked.forms.values() if form.action.endswith("/reseal")]
    done = form.submit().follow()
    assert status(done) == "Every signing key is sealed under the first key of the ring."
    (event,) = events(later, EventType.KEY_RESEALED)
    assert event["actor"].startswith("user:") and len(event["details"]["kids"]) == 1
    with later.begin() as engine:
        seal = engine.stores.event_seals.last()
        assert seal and seal.key_id == engine.ring.key_ids[0] and is_ours(engine.ring, seal)
    form.submit().follow()
    assert len(events(later, EventType.KEY_RESEALED)) == 1, "there is nothing left to do"
    page = words(browser.get("/admin/keys"))
    assert "Everything that is sealed is sealed under the first key" in page and "may be removed" in page
    for secret in keys.split():
        assert secret.partition(":")[2] not in browser.get("/admin/keys").text
    later.close()


def test_whoever_only_reads_has_no_button_for_keys(reader: TestApp, browsers: dict[str, TestApp]) -> None:
    for browser in (reader, browsers["oscar"]):
        page = browser.get("/admin/keys")
        assert "Make a new key" not in page.text and "Revoke" not in words(page)
        assert browser.get("/admin/keys/revoke?kid=x", expect_errors=True).status_int == 404


# ---- policies ---------------------------------------------------------------------------------------


def test_policies_are_listed_as_the_command_lists_them(server: Server, reader: TestApp) -> None:
    page = reader.get("/admin/policies")
    rows = {
        row.code.get_text(): [cell.get_text(" ", strip=True) for cell in row.find_all("td")][1:]
        for row in page.html.select("tbody tr")
    }
    for row in server.application.parts.policies.table():
        assert rows[row["hook"]][0].replace(" ,", ",") == (", ".join(row["plugins"]) or "nobody"), row["hook"]
        if row["kind"] == "deciding":
            assert rows[row["hook"]][1] == row["silence"]
    assert rows["authserver.plugin.admin_console.read"] == ["support", "INI file"]


def tried(browser: TestApp, question: str, **fields: str) -> TestResponse:
    """What the form of a question answers."""
    form = browser.get(f"/admin/policies/try?question={question}").forms[0]
    for name, value in fields.items():
        form[name] = value
    return form.submit(expect_errors=True)


@pytest.fixture(scope="module")
def client_id(server: Server) -> str:
    server.add_client(
        client_id="reports",
        client_name="Reports",
        grant_types=("client_credentials", "authorization_code"),
        redirect_uris=("https://reports.example/back",),
        scopes=("files.read",),
    )
    return "reports"


@pytest.mark.parametrize(
    ("question", "fields", "verdict", "said"),
    [
        ("scope", {"scopes": "files.read"}, "allowed", "Outcome files.read"),
        (
            "scope",
            {"scopes": "files.write"},
            "refused",
            "authserver client edit reports --add-scope files.write",
        ),
        ("scope", {"scopes": "files.read", "grant_type": "refresh_token"}, "refused", "core refused"),
        ("redirect-uri", {"redirect_uri": "https://reports.example/back"}, "allowed", "/back"),
        (
            "redirect-uri",
            {"redirect_uri": "https://evil.example/"},
            "refused",
            "register the URI for the client",
        ),
        ("resource", {}, "allowed", RESOURCE),
        ("resource", {"resources": "https://other.example/"}, "refused", "resource_decision"),
        ("consent", {"user": "ada", "scopes": "files.read"}, "allowed", "the person is asked"),
        ("introspection", {"token_client": "reports"}, "allowed", "the client may read the token"),
        (
            "introspection",
            {"token_client": "other", "kind": "refresh"},
            "refused",
            "introspection_decision",
        ),
    ],
)
def test_a_decision_is_tried(
    server: Server,
    reader: TestApp,
    client_id: str,
    question: str,
    fields: dict[str, str],
    verdict: str,
    said: str,
) -> None:
    """As `authserver explain` tells it: each check, who decided, and what would change it. Nothing is stored."""
    if fields.get("token_client") == "other" and not any(
        row["client_id"] == "other" for row in server.rows("clients")
    ):
        server.add_client(client_id="other", grant_types=("client_credentials",), scopes=("files.read",))
    stored = [server.rows(table) for table in ("events", "clients", "tokens", "grants")]
    page = tried(reader, question, client=client_id, **fields)
    assert page.status_int == 200
    text = words(page)
    assert f"The answer {verdict}" in text and said in text, text
    assert f"authserver explain {question} reports" in text
    assert [server.rows(table) for table in ("events", "clients", "tokens", "grants")] == stored


def test_a_registration_is_tried(server: Server, reader: TestApp) -> None:
    """By the same rules as at the endpoint, and no client comes of it."""
    metadata = json.dumps({"redirect_uris": ["https://new.example/back"], "scope": "files.read"})
    before = server.rows("clients")
    text = words(tried(reader, "registration", metadata=metadata))
    assert "The answer allowed" in text and "redirect URIs: https://new.example/back" in text, text
    assert "authserver explain registration -" in text
    text = words(tried(reader, "registration", metadata="{"))
    assert "The answer refused" in text and "invalid_client_metadata" in text, text
    assert server.rows("clients") == before


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("question=sign_in", "question: expected scope"),
        (f"question={quote(HOSTILE)}", "question: expected scope"),
        ("question=scope&ask=yes", "Client id: type something"),
        ("question=scope&ask=yes&client=reports&user=nobody", "there is no user nobody"),
        (f"question=scope&ask=yes&client=reports&user={quote(HOSTILE)}", "there is no user"),
        ("question=introspection&ask=yes&client=a&token_client=b&kind=id", "Kind of token: choose one of"),
        ("question=registration&ask=yes&metadata={}&source=nowhere", "not a network address"),
        ("question=registration&ask=yes&metadata={}&initial_token=x", "there is no initial access token x"),
        ("question=scope&question=consent", "question occurs more than once"),
    ],
)
def test_what_cannot_be_tried_is_refused_with_a_sentence(
    reader: TestApp, client_id: str, query: str, said: str
) -> None:
    answer = reader.get(f"/admin/policies/try?{query}", expect_errors=True)
    assert answer.status_int == 400
    assert said in answer.html.main.get_text(" ", strip=True)
    assert "<script" not in answer.text


@pytest.mark.parametrize("question", trying.QUESTIONS, ids=lambda question: question.name)
def test_hostile_texts_in_a_question_are_harmless(reader: TestApp, question: trying.Question) -> None:
    """T094, T147: an answer or a sentence, never a failure."""
    fields = {
        field.name: HOSTILE[:500] if field.options is None else field.options[-1][0]
        for field in question.fields
    }
    answer = tried(reader, question.name, **fields)
    assert answer.status_int in (200, 400)
    assert "<script" not in answer.text and "\x1b" not in words(answer)


@dataclass(frozen=True)
class NoWriting:
    """Let nobody write: a policy that is tried out."""

    @hookimpl
    def scope_decision(self, requested: tuple[str, ...]) -> object:
        return deny("no-writing") if "files.write" in requested else None


def test_shadow_differences_are_shown_with_their_events(migrated_sqlite_file: Path, tmp_path: Path) -> None:
    """And recorded questions are put to the shadow plugins again."""
    server = started(
        tmp_path / "authserver.db",
        migrated_sqlite_file,
        **{"authserver.shadow_plugins": f"{__name__}:NoWriting"},
    )
    client, secret = server.add_client(
        grant_types=("client_credentials",), scopes=("files.read", "files.write")
    )
    browser = signed_in(server, "rita")
    assert "No shadow plugin would have decided differently" in words(browser.get("/admin/policies/shadow"))
    for scope in ("files.read", "files.write", "files.write"):
        assert server.token(client, secret, grant_type="client_credentials", scope=scope).status_int == 200
    shadow = server.application.parts.policies.shadow
    assert shadow is not None and shadow.wait(10)
    tried(browser, "scope", client=client.client_id, scopes="files.write")
    assert shadow.wait(10)

    page = browser.get("/admin/policies/shadow")
    assert len(events(server, EventType.POLICY_DIFFERED)) == 2, "a question that is tried is not recorded"
    row = page.html.select("tbody tr")[0].get_text(" ", strip=True)
    assert "scope_decision" in row and "no-writing" in row and client.client_id[:20] in row and " 2 " in row
    assert "policy.differed" in browser.get(page.html.select("tbody a")[-1]["href"]).text

    again = browser.get(page.html.find("a", string="Ask them again")["href"])
    assert re.search(r"\d+ of the newest recorded questions were asked again, 2 would flip", words(again))
    assert len(events(server, EventType.POLICY_DIFFERED)) == 2
    bad = browser.get("/admin/policies/shadow?since=yesterday", expect_errors=True)
    assert bad.status_int == 400 and "'yesterday' is neither like 7d" in bad.text.replace("&#39;", "'")
    server.close()


# ---- limits -----------------------------------------------------------------------------------------


@pytest.fixture
def limited(migrated_sqlite_file: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that limits sign-ins to three of each account."""
    server = started(
        tmp_path / "authserver.db",
        migrated_sqlite_file,
        **{
            "authserver.plugins": f"{SETTINGS['authserver.plugins']}\nadmin_console\nrate_limits",
            "authserver.plugin.rate_limits.limits": "sign-ins = sign_in, account, 3, hour\n"
            "requests = authorization_request, source, 1000, minute",
        },
    )
    yield server
    server.close()


def attempt(server: Server, username: str) -> int:
    """The status of the page after a sign-in with a wrong password."""
    form = form_with(server.browser().get("/login?page=account"), "username")
    form["username"], form["password"] = username, "wrong"
    return form.submit(expect_errors=True).status_int


def test_a_limit_is_seen_and_lifted(limited: Server) -> None:
    """Who has used it up is seen by everybody who may read, and lifted by whoever operates; others stay counted."""
    browsers = {username: signed_in(limited, username) for username in PEOPLE}
    for username in ("bob", "carl"):
        limited.add_user(username)
    for username in ("bob", "bob", "bob", "carl", "carl"):
        assert attempt(limited, username) != 429
    assert attempt(limited, "bob") == 429
    page = browsers["rita"].get("/admin/limits")
    used = [row.get_text(" ", strip=True) for row in page.html.find("table").select("tbody tr")]
    assert len(used) == 2 and "bob" in used[0] and "used up" in used[0] and "3 of 3" in used[0]
    assert "in the memory of each server process" in words(page)
    assert "1,000" in words(page) and "Lift" not in words(page)
    found = browsers["rita"].get("/admin/limits?who=CARL").html.find("table").select("tbody tr")
    assert len(found) == 1 and "carl" in found[0].text
    by_source = words(browsers["rita"].get("/admin/limits?who=198.51.100.7"))
    assert "Nothing is counted for this now." in by_source

    link = browsers["oscar"].get("/admin/limits").html.find("a", attrs={"aria-label": re.compile("bob")})
    asked = browsers["oscar"].get(link["href"])
    assert "1 count begins again" in words(asked) and "1 of them is used up" in words(asked)
    assert attempt(limited, "bob") == 429
    done = form_with(asked, "csrf_token").submit("confirm").follow()
    assert "bob" in status(done)
    assert attempt(limited, "bob") != 429
    (event,) = events(limited, EventType.LIMIT_LIFTED)
    assert event["actor"].startswith("user:") and "bob" in event["details"]["who"]
    assert (event["details"]["limit"], event["details"]["lifted"]) == ("sign-ins", 1)

    everybody = browsers["oscar"].get("/admin/limits/lift?limit=sign-ins")
    assert re.search(r"[2-9] counts begin again", words(everybody))
    form_with(everybody, "csrf_token").submit("confirm").follow()
    assert events(limited, EventType.LIMIT_LIFTED)[-1]["details"]["who"] == "everybody"
    assert browsers["rita"].get("/admin/limits/lift?limit=sign-ins", expect_errors=True).status_int == 404


def test_what_cannot_be_lifted_is_refused_with_a_sentence(limited: Server) -> None:
    """T147: tampered parameters, and hostile names in what is counted."""
    browser = signed_in(limited, "oscar")
    limited.add_user("bob")
    attempt(limited, "bob")
    attempt(limited, HOSTILE[:60])
    page = browser.get("/admin/limits?all=yes")
    assert "<script" not in page.text and "\u202e" not in page.text
    for query in ("", "?limit=none", f"?limit={quote(HOSTILE)}", "?limit=sign-ins&limit=requests"):
        answer = browser.get(f"/admin/limits/lift{query}", expect_errors=True)
        assert answer.status_int == 400 and "<script" not in answer.text
    form = form_with(browser.get("/admin/limits/lift?limit=sign-ins"), "csrf_token")
    values = dict(form.submit_fields())
    for tampered, said in (
        ({}, "confirm it with the button"),
        ({"confirm": "yes", "limit": "none"}, "no such limit"),
        ({"confirm": "yes", "who": HOSTILE}, "this limit has no counts now"),
    ):
        answer = browser.post("/admin/limits/lift", {**values, **tampered}, expect_errors=True)
        assert answer.status_int == 400 and said in words(answer), words(answer)
    assert not events(limited, EventType.LIMIT_LIFTED)


def test_what_is_tried_is_not_counted(limited: Server) -> None:
    """Whoever tries a decision uses up nothing, and the server goes on counting."""
    policies = limited.application.parts.policies
    with limited.begin() as engine:
        trying_engine = questions.apart(engine, policies)
        for _ in range(5):
            assert claim(trying_engine, Counted.SIGN_IN, account="dora") is None
        assert not rates.usage_of(rates.limiters(map(policies.plugin, policies.names)), everything=True)
        assert claim(engine, Counted.SIGN_IN, account="dora") is not None


def test_without_limits_the_page_says_so(reader: TestApp) -> None:
    assert "No plugin of authserver.plugins limits" in words(reader.get("/admin/limits"))


# ---- statistics -------------------------------------------------------------------------------------


def test_statistics_show_charts_with_their_tables(migrated_sqlite_file: Path, tmp_path: Path) -> None:
    """Issued, refused by reason, sign-ins, by client and grant type; each chart has its figures beside it."""
    server = started(tmp_path / "authserver.db", migrated_sqlite_file)
    client, secret = server.add_client(
        client_id="reports",
        client_name="Reports <b>",
        grant_types=("client_credentials",),
        scopes=("files.read",),
    )
    for scope in ("files.read", "files.read", "files.read", "files.write"):
        server.token(client, secret, grant_type="client_credentials", scope=scope)
    browser = signed_in(server, "rita")
    page = browser.get("/admin/statistics")
    assert "Nothing was counted in this time." in words(page)
    assert re.search(r"About \d+ events are not counted yet, the first of ", words(page))
    reading = Reading(server.application.storage, Counting())
    while reading.work():
        pass
    with server.begin() as engine:
        engine.stores.events.add(an_event(type=EventType.MAIL_FAILED, at=engine.now))
    assert "One event is not counted yet, of " in words(browser.get("/admin/statistics"))
    with server.begin() as engine:
        take_sample(engine.stores, engine.settings, engine.now)

    page = browser.get("/admin/statistics?since=1d")
    text = words(page)
    assert "hour by hour" in text
    assert {tile.dt.get_text(): tile.dd.get_text() for tile in page.html.select(".tiles > div")} == {
        "Access tokens issued": "3",
        "Access tokens refreshed": "0",
        "Requests refused": "1",
        "Sign-ins": "1",
        "Sign-ins refused": "0",
        "Clients registered": "1",
        "Active grants now": page.html.select(".tiles > div")[-1].dd.get_text(),
    }
    charts = page.html.find_all("figure")
    assert len(charts) == 7
    for chart in charts:
        columns = len(chart.svg.find_all("rect")) if chart.svg else 0
        figures = [int(cell.get_text()) for cell in chart.select("td.figure")]
        assert columns == sum(figure > 0 for figure in figures), chart.figcaption
    issued = [int(cell.get_text()) for cell in charts[0].select("td.figure")]
    assert sum(issued) == 3 and len(issued) in (24, 25)
    (row,) = [row for row in page.html.select("tbody tr") if "Only this" in row.get_text()]
    assert "Reports <b>" in row.get_text() and "<b>" not in page.text
    assert "client_credentials 3 1" in text
    assert re.search(r"scope-not-registered token.refused 1", text)
    reason = page.html.find("a", string=re.compile("scope-not-registered"))
    assert len(browser.get(reason["href"]).html.tbody.find_all("tr")) == 1
    only = words(browser.get(row.find("a", string="Only this")["href"]))
    assert "Requests refused 1" in only and "Sign-ins 0" in only
    assert "day by day" in words(browser.get("/admin/statistics?since=30d"))
    assert "month by month" in words(browser.get("/admin/statistics?since=365d"))
    server.close()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("since=yesterday", "is neither like 7d"),
        ("since=1d&until=2d", "the beginning of the time is not before its end"),
        ("since=2000-01-01", "longer than"),
        ("since=30d&by=hour", "at most 400 columns"),
        ("by=minute", "by: expected hour, day, month"),
        ("client=a%0Ax", "no client has such an id"),
        (f"by={quote(HOSTILE)}", "by: expected"),
        ("client=a&client=b", "client occurs more than once"),
    ],
)
def test_statistics_that_cannot_be_are_refused_with_a_sentence(
    reader: TestApp, query: str, said: str
) -> None:
    answer = reader.get(f"/admin/statistics?{query}", expect_errors=True)
    assert answer.status_int == 400
    assert said in answer.html.main.get_text(" ", strip=True)
    assert "<script" not in answer.text


def test_statistics_of_hostile_names_are_harmless(reader: TestApp) -> None:
    for query in (f"client={quote(HOSTILE[:30])}", f"grant_type={quote(HOSTILE)}"):
        answer = reader.get(f"/admin/statistics?{query}", expect_errors=True)
        assert answer.status_int in (200, 400) and "<script" not in answer.text
