"""The figures at /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from webtest import TestApp

from authserver import app
from authserver.engine.documents import DocumentKind, FetchFailed, FetchProblem
from authserver.engine.records import Disposable, EventType
from authserver.fetching.fetcher import OUTCOMES
from authserver.settings import SettingsError
from authserver.testing.records import a_grant, a_token, an_event
from authserver.testing.server import SETTINGS, Server, with_plugin
from authserver.web.management import for_operators

TOKEN, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
DAY = timedelta(days=1)


@pytest.fixture
def make(sqlite_url: str) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def serve(tokens: str = f"{OTHER} {TOKEN}", **changes: str) -> Server:
        settings = with_plugin("metrics", {"tokens": tokens} if tokens else {})
        servers.append(Server(sqlite_url, {**settings, **changes}))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def read(server: Server) -> dict[tuple[str, ...], float]:
    """Each figure by its name and label."""
    answer = server.http.get(server.path("/metrics"), headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.content_type == "text/plain"
    assert answer.headers["Cache-Control"] == "no-store"
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_what_happened_is_counted_by_type(make) -> None:
    """After the commit: a refusal too."""
    server = make()
    client, secret = server.add_client(grant_types=("client_credentials",))
    for _ in range(2):
        server.token(client, secret, grant_type="client_credentials")
    server.token(client, secret, grant_type="password")
    figures = read(server)
    assert figures["authserver_events_total", "token.issued"] == 2
    assert figures["authserver_events_total", "token.refused"] == 1


def test_refusals_that_were_counted_are_a_figure_of_their_own(make) -> None:
    """Together with the events of the same type, they are all that were refused."""
    server = make(**{"authserver.refusals_per_minute": "2"})
    for _ in range(9):
        server.http.get(server.path("/oauth/authorize?client_id=nobody"), expect_errors=True)
    server.application.floods.store(everything=True)
    figures = read(server)
    assert figures["authserver_refusals_counted_total", "authorization.refused"] == 6
    assert figures["authserver_events_total", "authorization.refused"] == 3


def test_what_came_of_fetches_is_counted(make) -> None:
    """R-16: by outcome alone, and each is there from the start."""
    server = make()
    assert read(server)["authserver_fetches_total", "busy"] == 0
    fetcher = server.application.parts.fetcher
    for url in ("https://127.0.0.1/secret-path", "http://a.example/"):
        with pytest.raises(FetchFailed):
            fetcher.fetch(DocumentKind(name="page", read=lambda reply: reply.body), url)
    figures = {key: count for key, count in read(server).items() if key[0] == "authserver_fetches_total"}
    assert {key[1] for key in figures} == {"fetched", "cached", "last-good", "sent", *FetchProblem}
    assert {key[1]: count for key, count in figures.items() if count} == {
        "address-refused": 1,
        "url-refused": 1,
    }


@pytest.mark.parametrize("issuer", ["https://as.example", "https://as.example/tenant"])
def test_they_are_on_the_port_for_operators_too(make, issuer: str) -> None:
    """By any host and without TLS, with the path of the issuer or without; the token is asked for there as well."""
    server = make(**{"authserver.issuer": issuer})
    operator = TestApp(for_operators(server.wsgi), extra_environ={"HTTP_HOST": "10.0.0.7:16543"})
    for path in {"/metrics", server.path("/metrics")}:
        operator.get(path, status=401)
        answer = operator.get(path, headers={"Authorization": f"Bearer {TOKEN}"}, status=200)
        assert "authserver_events_total" in answer.text
        operator.get(f"{path}/", status=404)


def test_no_label_holds_what_clients_or_people_say(make) -> None:
    """R-16: whatever strangers name, the figures are as many as before."""
    server = make(**{"authserver.plugins": f"{SETTINGS['authserver.plugins']}\nmetrics rate_limits"})
    client, secret = server.add_client(client_id="a-telling-name", grant_types=("client_credentials",))
    kinds = {*map(str, EventType), *map(str, Disposable), *OUTCOMES}
    for number in range(3):
        server.token(client, secret, grant_type="client_credentials", scope=f"scope-{number}")
        server.token(client, f"wrong-{number}", grant_type=f"grant-{number}")
        server.sign_in(server.browser(), f"person-{number}")
        server.http.get(server.path(f"/nowhere-{number}"), status=404)
    server.token(client, secret, grant_type="client_credentials")
    labels = {label for _, *labels in read(server) for label in labels}
    assert {"token.issued", "token.refused", "sign_in.refused"} <= labels <= kinds


def test_the_backlog_and_what_was_done_about_it(make) -> None:
    """R-10: an operator sees clean-up fall behind."""
    server = make()
    with server.application.begin() as engine:
        for number in range(3):
            engine.stores.events.add(an_event(at=engine.now - 400 * DAY))
            engine.stores.grants.add(a_grant(grant_id=str(number), expires_at=engine.now - DAY))
            engine.stores.tokens.add(a_token(grant_id=str(number), digest=bytes([number])))
        begun = engine.now
    # Issued codes and tokens are kept as long as other events.
    kinds = {str(kind) for kind in Disposable} - {"issuances"}
    before = read(server)
    backlog, removed = "authserver_upkeep_backlog_rows", "authserver_upkeep_removed_rows_total"
    assert {name[1] for name in before if name[0] == backlog} == kinds
    assert before[backlog, "events"] == before[backlog, "grants"] == 3
    assert before[removed, "events"] == before["authserver_upkeep_last_run_timestamp_seconds",] == 0
    server.application.caretaker.work()
    after = read(server)
    assert all(after[backlog, kind] == 0 for kind in kinds)
    assert (after[removed, "events"], after[removed, "grants"]) == (3, 6)
    assert after["authserver_upkeep_last_run_timestamp_seconds",] >= begun.timestamp()


@pytest.mark.parametrize(
    "header",
    [None, "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN],
    ids=["none", "no token", "empty", "longer", "shorter", "another scheme", "no scheme"],
)
def test_who_brings_no_token_sees_nothing(make, header: str | None) -> None:
    """T142."""
    server = make()
    headers = {"Authorization": header} if header else {}
    answer = server.http.get("/metrics", headers=headers, expect_errors=True)
    assert answer.status_int == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "authserver_" not in answer.text


@pytest.mark.parametrize("token", [TOKEN, OTHER], ids=["one", "other"])
def test_each_of_the_tokens_is_good(make, token: str) -> None:
    """So that one can be replaced by another."""
    answer = make().http.get("/metrics", headers={"Authorization": f"bearer {token}"})
    assert "authserver_upkeep_backlog_rows" in answer.text


def test_it_stands_below_the_path_of_the_issuer(make) -> None:
    server = make(**{"authserver.issuer": "https://as.example/tenant"})
    assert read(server)
    assert server.http.get("/metrics", expect_errors=True).status_int == 404


def test_without_a_token_it_is_open_and_says_so_at_start(make) -> None:
    """T142: development announces it."""
    server = make(tokens="")
    assert "authserver_upkeep" in server.http.get("/metrics").text
    (line,) = [line for line in server.application.insecure if "metrics" in line]
    assert line.startswith("authserver.plugin.metrics.tokens: ")


def test_production_refuses_it_without_a_token(sqlite_url: str, monkeypatch) -> None:
    """T142: the line says which key; with a token from outside the file it starts."""
    monkeypatch.setenv("KEY", SETTINGS["authserver.secret_keys"])
    monkeypatch.setenv("METRICS_TOKENS", TOKEN)
    ini = {
        **SETTINGS,
        "authserver.environment": "production",
        "authserver.secret_keys": "env:KEY",
        "authserver.database_url": sqlite_url,
        "authserver.plugins": SETTINGS["authserver.plugins"] + "\nmetrics",
    }
    with pytest.raises(SettingsError, match=r"metrics\.tokens: there are none.*refused in production"):
        app.build(ini)
    tokens = "authserver.plugin.metrics.tokens"
    with pytest.raises(SettingsError, match=r"metrics\.tokens: a secret is in the INI"):
        app.build({**ini, tokens: TOKEN})
    app.build({**ini, tokens: "env:METRICS_TOKENS"}).storage.close()


def test_a_short_token_stops_the_start(make) -> None:
    with pytest.raises(SettingsError, match="at least 32"):
        make(tokens="secret")


def test_a_database_that_is_away_hides_nothing_but_the_backlog(make, tmp_path) -> None:
    """T114: what the process itself knows is told."""
    server = make()
    client, secret = server.add_client(grant_types=("client_credentials",))
    server.token(client, secret, grant_type="client_credentials")
    server.close()
    (tmp_path / "authserver.db").rename(tmp_path / "away.db")
    (tmp_path / "authserver.db").mkdir()
    figures = read(server)
    assert figures["authserver_events_total", "token.issued"] == 1
    assert not [name for name in figures if name[0] == "authserver_upkeep_backlog_rows"]
