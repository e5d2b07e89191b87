"""Each refusal leaves one event, whatever is done about it afterwards: by a view, a template, an observer."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from paste.deploy import appconfig
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden
from pyramid.renderers import render_to_response
from pyramid.request import Request
from pyramid.response import Response
from webtest import TestApp, TestResponse

from authserver.api import Event, hookimpl
from authserver.cli.keys import new_ring_entry
from authserver.engine.errors import AccessDenied, InvalidRequest, PageError
from authserver.engine.records import EventType
from authserver.storage.database import StorageBusy
from authserver.testing.server import SETTINGS, Server, forged, form_with
from authserver.web.route import Medium

CHECKOUT = Path(__file__).parents[2]
FORM = "application/x-www-form-urlencoded"
MakeServer = Callable[..., Server]


def with_plugins(*plugins: str | type) -> dict[str, str]:
    """The settings of tests, and these plugins."""
    names = [name if isinstance(name, str) else f"{__name__}:{name.__name__}" for name in plugins]
    return {"authserver.plugins": "\n".join([SETTINGS["authserver.plugins"], *names])}


@pytest.fixture(params=[(), ("log_events",)], ids=["unobserved", "observed"])
def either(request: pytest.FixtureRequest, make_server: MakeServer) -> Server:
    """A server, without and with a plugin that observes."""
    server = make_server(with_plugins(*request.param))
    server.add_user("ann")
    return server


def refusals(server: Server) -> list[tuple[str, str]]:
    """Type and reason of each event about a request that was refused, or failed."""
    return [(row["type"], row["reason"]) for row in server.events() if is_about_an_end(row)]


def is_about_an_end(row: Mapping[str, Any]) -> bool:
    return str(row["type"]).endswith((".refused", ".failed"))


def shown_id(answer: TestResponse) -> str | None:
    """The id that the client, or the person, was told."""
    if answer.content_type == "application/json":
        return answer.json.get("error_id")
    found = answer.html.select_one("code.whole") if answer.content_type == "text/html" else None
    return str(found.text) if found else None


# ---- What was lost once ----------------------------------------------------------------------------


def test_a_wrong_password_counts_whatever_else_the_form_holds(either: Server) -> None:
    """T100, T108: its event does not depend on the page that is shown again."""
    browser = either.browser()
    form = form_with(browser.get("/login"), "username")
    sent = [("csrf_token", form["csrf_token"].value), ("username", "ann"), ("password", "wrong")]
    answer = browser.post("/login", urlencode([*sent, ("page", "a"), ("page", "b")]), expect_errors=True)
    assert answer.status_int >= 400
    ((kind, reason),) = refusals(either)
    assert kind == "sign_in.refused"
    assert reason in ("password-wrong", "parameter-repeated", "invalid_request")


def test_a_forged_form_leaves_its_event(either: Server) -> None:
    """E-03, T108: nobody had asked for the engine while the request's transaction was there."""
    answer = either.http.post("/login", {"csrf_token": "x"}, expect_errors=True)
    assert (answer.status_int, answer.content_type) == (403, "text/html")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert refusals(either) == [("sign_in.refused", "form-token")]


@pytest.mark.parametrize(
    "path", ["/oauth/token", "/oauth/jwks", "/health/live", "/static/style.css", "/login"]
)
def test_a_method_that_a_path_does_not_have_leaves_its_event(path: str, either: Server) -> None:
    """B-01, F-01: also where no transaction belongs to the path."""
    answer = either.http.put(path, expect_errors=True)
    assert answer.status_int == 405
    assert "GET" in answer.headers["Allow"] or answer.headers["Allow"] == "POST"
    assert refusals(either) == [("request.refused", "method-not-allowed")]


# ---- Each refusal at each route --------------------------------------------------------------------


REPEATED = "&".join(
    f"{name}=x&{name}=x"
    for name in [
        "client_id",
        "redirect_uri",
        "state",
        "request",
        "page",
        "username",
        "password",
        "csrf_token",
        "token",
        "grant_type",
    ]
)
TEXTS = {
    "nothing": "",
    "junk": "a=1",
    "repeated": REPEATED,
    "bad-utf8": "client_id=%ff&username=%ff&request=%ff&notice=%ff",
    "bad-percent": "client_id=%&username=%zz&request=%",
    "nul": "client_id=a%00b&username=a%00b&request=%00",
    "raw-bytes": "client_id=\xff&request=\xff",
    "too-many": "&".join(f"p{number}=x" for number in range(101)),
    "too-long": "request=" + "a" * 20_000,
    "too-large": "a=" + "b" * 70_000,
}


def requests_of(browser: TestApp, path: str, methods: tuple[str, ...]) -> Iterator[TestResponse]:
    """What may come to a path: wrong methods; queries, bodies and media types of every bad kind."""
    page = browser.get(path, expect_errors=True)
    yield page
    for method in (browser.put, browser.delete, browser.post, browser.options):
        yield method(path, expect_errors=True)
    if "GET" in methods:
        for text in TEXTS.values():
            if len(text) < 16_384:
                yield browser.get(path + "?" + text.replace("\xff", "%c3%28"), expect_errors=True)
    if "POST" in methods:
        yield browser.post(path, "", headers={"Authorization": "Basic \xff"}, expect_errors=True)
        yield post(browser, path, "{}", "application/json")
        for kind in ("application/json", "text/plain", ""):
            yield post(browser, path, TEXTS["junk"], kind)
            yield post(browser, path, TEXTS["too-large"], kind)
        own = own_form_token(page)
        for text in TEXTS.values():
            yield post(browser, path, text, FORM)
            if own:
                yield post(browser, path, f"{text}&csrf_token={own}", FORM)


def post(browser: TestApp, path: str, text: str, kind: str) -> TestResponse:
    body = text.encode("latin-1")
    return browser.post(path, body, content_type=kind or None, expect_errors=True)


def own_form_token(page: TestResponse) -> str:
    """The token of the first form on this page, if there is one."""
    forms = page.forms.values() if page.content_type == "text/html" else ()
    return next((str(form["csrf_token"].value) for form in forms if "csrf_token" in form.fields), "")


@pytest.fixture
def shipped(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str | None]:
    """The settings of a shipped INI, on another database."""
    shutil.copy(CHECKOUT / f"{request.param}.ini", tmp_path)
    monkeypatch.setenv("AUTHSERVER_ISSUER", "https://as.example")
    monkeypatch.setenv("AUTHSERVER_DATABASE_URL", "sqlite://")
    monkeypatch.setenv("AUTHSERVER_SECRET_KEYS", new_ring_entry())
    monkeypatch.setenv("AUTHSERVER_REGISTRATION_TOKENS", forged("as_secret_"))
    monkeypatch.setenv("AUTHSERVER_RESOURCES", "https://api.example/ = *")
    ini = appconfig(f"config:{tmp_path / request.param}.ini", name="main").local_conf
    if request.param == "development":
        ini["authserver.secret_keys"] = SETTINGS["authserver.secret_keys"]
    del ini["authserver.database_url"]
    # None is counted instead of being stored: `test_floods` is about that.
    name = "authserver.refusals_per_minute"
    return {**dict.fromkeys(SETTINGS), **ini, name: SETTINGS[name]}


def last_row(server: Server) -> int:
    with server.application.storage.engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT max(rowid) FROM events")).scalar_one())


def ends_after(server: Server, row: int) -> list[sa.RowMapping]:
    """The events about requests that were refused, or failed, since then."""
    query = "SELECT event_id, type, reason FROM events WHERE rowid > :row"
    with server.application.storage.engine.connect() as connection:
        return [
            found
            for found in connection.execute(sa.text(query), {"row": row}).mappings()
            if is_about_an_end(found)
        ]


# Each takes thousands of requests; who observes has nothing to do with which INI it is.
@pytest.mark.parametrize(
    ("shipped", "observed"), [("development", True), ("production", False)], indirect=["shipped"]
)
def test_each_refusal_at_each_route_leaves_exactly_one_event(
    shipped: dict[str, str | None],
    observed: bool,
    make_server: MakeServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """T108, F-12: under the id that the answer has; what is granted, and what is not there, leaves none."""
    plugins = [name for name in str(shipped["authserver.plugins"]).split() if name != "log_events"]
    plugins += ["log_events"] if observed else []
    server = make_server({**shipped, "authserver.plugins": "\n".join(plugins)})
    server.add_user("ann")
    caplog.set_level(logging.INFO, "authserver.events")
    for path, route in server.wsgi.registry.paths.items():
        reasons = set()
        before = last_row(server)
        for browser in (
            (server.browser(), signed_in(server)) if route.medium is Medium.PAGE else (server.browser(),)
        ):
            assert ends_after(server, before) == []
            for answer in requests_of(browser, path, route.methods):
                asked = (
                    answer.request.method,
                    path,
                    answer.request.content_type,
                    answer.request.query_string,
                )
                new, before = ends_after(server, before), last_row(server)
                logged = [
                    record.getMessage() for record in caplog.records if record.name == "authserver.events"
                ]
                caplog.clear()
                refused = answer.status_int >= 400 and answer.status_int != 404
                assert answer.status_int < 500, asked
                assert len(new) == refused, asked
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                if answer.status_int >= 400:
                    assert answer.headers["Cache-Control"] == "no-store"
                if refused:
                    (event,) = new
                    reasons.add(event["reason"])
                    assert event["event_id"] == shown_id(answer), asked
                    assert sum(str(event["event_id"]) in line for line in logged) == observed, asked
                if answer.status_int == 405:
                    assert answer.headers["Allow"] == ", ".join(route.methods)
                if answer.status_int == 401:
                    assert answer.headers["WWW-Authenticate"]
        # Each route has refused something, and one that reads forms for several reasons.
        assert "method-not-allowed" in reasons
        assert len(reasons) >= (2 if "POST" in route.methods else 1), path


def signed_in(server: Server) -> TestApp:
    browser = server.browser()
    server.sign_in(browser)
    return browser


# ---- Whatever a view does about it -----------------------------------------------------------------


class Broken(PageError):
    """A refusal whose page fails, each time in the way that the query says."""


class LosesItsConnection:
    """What a page reads from, while its connection breaks."""

    def abort(self, transaction: object) -> None:
        raise StorageBusy("the connection is gone")

    def sortKey(self) -> str:  # noqa: N802 - as the interface calls it
        return "loses-its-connection"


class Again(AccessDenied):
    """A refusal that is shown as an ordinary page, with a value from the request."""

    def __init__(self, typed: str) -> None:
        super().__init__("No.", reason="shown-again")
        self.typed = typed


def refuse_and_break(request: Request) -> Response:
    raise Broken(AccessDenied("No.", reason="its-page-breaks"))


def broken_page(error: Broken, request: Request) -> Response:
    match request.environ["QUERY_STRING"]:
        case "busy":
            raise StorageBusy("chosen as a victim")
        case "refused":
            raise InvalidRequest("Again.", reason="while-rendering")
        case "http":
            raise HTTPForbidden()
        case "abort":
            request.tm.get().join(LosesItsConnection())
            return Response("fine")
        case "no-answer":
            return None
    answer: Response = render_to_response("no-such-template.jinja2", {}, request)
    return answer


def refuse_and_show(request: Request) -> Response:
    request.engine.record(EventType.CONSENT_GIVEN)
    raise Again(typed="what was typed")


def show_again(error: Again, request: Request) -> Response:
    request.engine.record(EventType.CONSENT_GIVEN)
    clients = request.engine.stores.clients.find("nobody", request.engine.now)
    return Response(
        f"{error.typed}, {clients}, {request.error_id}", content_type="text/plain", charset="utf-8"
    )


@dataclass(frozen=True)
class Pages:
    """Pages that refuse."""

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        config.add_route("broken", "/broken")
        config.add_view(refuse_and_break, route_name="broken")
        config.add_exception_view(broken_page, context=Broken)
        config.add_route("again", "/again")
        config.add_view(refuse_and_show, route_name="again")
        config.add_exception_view(show_again, context=Again)


@pytest.mark.parametrize("how", ["", "busy", "refused", "http", "abort", "no-answer"])
@pytest.mark.parametrize("others", [(), ("log_events",)], ids=["unobserved", "observed"])
def test_a_refusal_whose_page_fails_is_recorded_once(
    how: str, others: tuple[str, ...], make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """T111, T112: it is not repeated, although what failed asks for that; the client has the id, the log the fault."""
    server = make_server(with_plugins(Pages, *others))
    answer = server.http.get(f"/broken?{how}", expect_errors=True)
    assert (answer.status_int, answer.content_type) == (500, "text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    (event,) = server.events("request.refused")
    assert (event["reason"], event["event_id"]) == ("its-page-breaks", shown_id(answer))
    assert len(refusals(server)) == 1
    (fault,) = [record for record in caplog.records if record.exc_info and shown_id(answer) in record.message]
    assert fault.levelname == "ERROR"


@pytest.mark.parametrize("others", [(), ("log_events",)], ids=["unobserved", "observed"])
def test_a_refusal_that_is_shown_as_a_page_leaves_its_event_and_nothing_else(
    others: tuple[str, ...], make_server: MakeServer
) -> None:
    """House rule 10: raised with its values, recorded, then rendered with an engine that reads and keeps nothing."""
    server = make_server(with_plugins(Pages, *others))
    answer = server.http.get("/again")
    (event,) = server.events("request.refused")
    assert answer.text == f"what was typed, None, {event['event_id']}"
    assert event["reason"] == "shown-again"
    assert server.events("consent.given") == []


# ---- Observers -------------------------------------------------------------------------------------

HEARD: list[str] = []


@dataclass(frozen=True)
class Hears:
    """The last to observe."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def observe(self, event: Event) -> None:
        HEARD.append(event.event_id)


@dataclass(frozen=True)
class Raises:
    immediate: ClassVar[bool] = True

    @hookimpl
    def observe(self, event: Event) -> None:
        raise RuntimeError("canary")


@dataclass(frozen=True)
class Exits:
    immediate: ClassVar[bool] = True

    @hookimpl
    def observe(self, event: Event) -> None:
        raise SystemExit("canary")


@dataclass(frozen=True)
class ExitsElsewhere:
    @hookimpl
    def observe(self, event: Event) -> None:
        raise SystemExit("canary")


@dataclass(frozen=True)
class Sleeps:
    @hookimpl
    def observe(self, event: Event) -> None:
        time.sleep(1)


@pytest.mark.parametrize("plugin", [Raises, Exits, ExitsElsewhere, Sleeps])
def test_an_observer_changes_no_answer(plugin: type, make_server: MakeServer) -> None:
    """T112: neither of what was granted nor of what was refused; and the next observer hears of it."""
    server = make_server(with_plugins(plugin, Hears) | {"authserver.policy_time_limit": "0.1"})
    client, secret = server.add_client(grant_types=("client_credentials",))
    HEARD.clear()
    granted = server.token(client, secret, grant_type="client_credentials")
    refused = server.token(client, "wrong", grant_type="client_credentials")
    page = server.http.post("/login", {"csrf_token": "x"}, expect_errors=True)
    assert (granted.status_int, refused.status_int, page.status_int) == (200, 401, 403)
    assert [row["event_id"] for row in server.events()][-3:] == HEARD
    assert HEARD[1:] == [refused.json["error_id"], shown_id(page)]
