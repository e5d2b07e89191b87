"""The figures at /metrics."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from webtest import TestApp

from authserver import app
from authserver.api import Decision, deny, hookimpl
from authserver.engine.documents import DocumentKind, FetchFailed, FetchProblem
from authserver.engine.errors import OAuthError, TooBusy
from authserver.engine.keys import signing_keys
from authserver.engine.records import EventType, KeyState
from authserver.engine.upkeep_records import Disposable
from authserver.explaining.remedies import REMEDIES, WITHOUT_REMEDY
from authserver.features import metrics
from authserver.fetching.fetcher import OUTCOMES
from authserver.settings import SettingsError
from authserver.testing.records import a_grant, a_token, an_event
from authserver.testing.server import SETTINGS, Server, with_plugin
from authserver.web.management import for_operators

TOKEN, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
DAY = timedelta(days=1)
DOCUMENTATION = Path(__file__).parents[2] / "docs/monitoring.rst"


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
    """T169, R-16: whatever strangers name, each label has a name that the server knows."""
    plugins = f"{SETTINGS['authserver.plugins']}\nmetrics rate_limits {__name__}:TellsTales"
    server = make(**{"authserver.plugins": plugins})
    client, secret = server.add_client(client_id="a-telling-name", grant_types=("client_credentials",))
    for number in range(3):
        server.token(client, secret, grant_type="client_credentials", scope=f"scope-{number}")
        server.token(client, f"wrong-{number}", grant_type=f"grant-{number}")
        server.sign_in(server.browser(), f"person-{number}")
        server.http.get(server.path(f"/nowhere-{number}"), status=404)
        server.http.get(server.path("/.well-known/") + f"nothing-{number}", status=404)
        server.http.request("/oauth/token", method="PATCH", expect_errors=True)
        server.http.get("/", headers={"Host": f"host-{number}"}, status=400)
    server.token(client, secret, grant_type="client_credentials")
    endpoints = {*server.wsgi.registry.routes, metrics.OTHER}
    declared = {
        "type": {*map(str, EventType)},
        "kind": {*map(str, Disposable)},
        "outcome": {*OUTCOMES},
        "reader": {reading.reader.name for reading in server.application.readings},
        "endpoint": endpoints,
        "status": {"2xx", "3xx", "4xx", "5xx"},
        "error": {error.code for error in every_error()} | {metrics.OTHER, metrics.NONE},
        "reason": {*REMEDIES, *WITHOUT_REMEDY, *declared_reasons(server), metrics.OTHER},
        "operation": {*metrics.OPERATIONS, metrics.OTHER},
        "state": {"running", "waiting", "in_use", "idle", "staged", "active", "retiring"},
        "algorithm": {"ES256"},
    }
    text = server.http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    for sample in samples:
        for label, value in sample.labels.items():
            if label not in ("le", "version", "python"):
                assert value in declared[label], sample
    found = {value for sample in samples for value in sample.labels.values()}
    assert {
        "token",
        "login",
        "token.issued",
        "token.refused",
        "sign_in.refused",
        "secret-malformed",
        metrics.OTHER,
    } <= found
    assert "tale-1" not in text


@dataclass(frozen=True)
class TellsTales:
    """A policy with a reason of its own for each scope, which it does not declare."""

    @hookimpl
    def scope_decision(self, requested: tuple[str, ...]) -> Decision[tuple[str, ...]] | None:
        return deny(f"tale-{requested[0][-1]}") if requested and "scope" in requested[0] else None


def every_error(kind: type[OAuthError] = OAuthError) -> list[type[OAuthError]]:
    """Each kind of error that has a code."""
    found = [other for each in kind.__subclasses__() for other in every_error(each)]
    return [kind, *found] if hasattr(kind, "code") else found


def declared_reasons(server: Server) -> set[str]:
    policies = server.application.parts.policies
    return {reason for name in policies.names for reason in getattr(policies.plugin(name), "reasons", ())}


def test_requests_are_counted_and_timed_by_endpoint_and_class_of_status(make) -> None:
    server = make()
    client, secret = server.add_client(grant_types=("client_credentials",))
    for _ in range(3):
        server.token(client, secret, grant_type="client_credentials")
    server.token(client, "wrong", grant_type="client_credentials")
    server.http.get(server.path("/"))
    figures = read(server)
    count, total = (f"authserver_request_duration_seconds_{what}" for what in ("count", "sum"))
    assert figures[count, "token", "2xx"] == 3
    assert figures[count, "token", "4xx"] == 1
    assert figures[count, "home", "2xx"] == 1
    assert 0 < figures[total, "token", "2xx"] < 30
    # This request is counted when it is answered.
    assert (count, "metrics", "2xx") not in figures
    assert read(server)[count, "metrics", "2xx"] == 1


def test_refusals_are_counted_by_endpoint_error_and_reason(make) -> None:
    """All of them: those that are stored, those that are counted for others, those at pages, and faults."""
    server = make(**{"authserver.refusals_per_minute": "1"})
    client, _ = server.add_client(grant_types=("client_credentials",))
    for _ in range(4):
        server.token(client, "wrong", grant_type="client_credentials")
    server.http.get(server.path("/oauth/authorize?client_id=nobody"), status=400)
    server.sign_in(server.browser(), "nobody")
    server.http.get(server.path("/nowhere"), status=404)
    figures = {key[1:]: value for key, value in read(server).items() if key[0] == "authserver_refusals_total"}
    assert figures == {
        ("token", "invalid_client", "secret-malformed"): 4,
        ("authorize", "invalid_request", "client-unknown"): 1,
        ("login", "none", "nobody-answered"): 1,
    }


def test_a_limit_that_is_declared_later_has_its_name(make) -> None:
    plugins = with_plugin("metrics", {})["authserver.plugins"] + "\nrate_limits"
    server = make(**{"authserver.plugins": plugins})
    client, _ = server.add_client(grant_types=("client_credentials",))
    row = {"counted": "failed_client_authentication", "key": "client", "count": 1, "seconds": 60}
    server.application.parts.policies.plugin("rate_limits").adjust({"guesses": row})
    for _ in range(2):
        server.token(client, "a" * 43, grant_type="client_credentials")
    figures = {key[1:]: value for key, value in read(server).items() if key[0] == "authserver_refusals_total"}
    assert figures["token", "temporarily_unavailable", "guesses"] == 1


def test_statements_and_connections_of_requests_are_timed(make) -> None:
    """A commit, too: it is where a slow disk is seen."""
    server = make()
    client, secret = server.add_client(grant_types=("client_credentials",))
    before = read(server)
    server.token(client, secret, grant_type="client_credentials")
    after = read(server)
    name = "authserver_database_statement_duration_seconds_count"
    grown = {key[1]: after[key] - before[key] for key in after if key[0] == name}
    assert grown["SELECT"] >= 1
    assert grown["INSERT"] >= 1
    assert (grown["BEGIN"], grown["COMMIT"] >= 1) == (1, True)
    assert grown["other"] == 0
    assert after["authserver_database_connection_wait_seconds_count",] >= 1
    assert after["authserver_database_connections", "in_use"] >= 0
    assert after["authserver_database_connections_limit",] == 16


def test_the_password_checks_are_timed_and_their_queue_is_shown(make) -> None:
    server = make()
    server.add_user("ann")
    server.sign_in(server.browser())
    figures = read(server)
    assert figures["authserver_password_check_duration_seconds_count",] == 1
    assert figures["authserver_password_checks", "running"] == 0
    turnstile = server.application.parts.password_checks
    with turnstile.turn("a"), pytest.raises(TooBusy), turnstile.turn("a"):
        pass
    with turnstile.turn("a"):
        assert read(server)["authserver_password_checks", "running"] == 1
    assert read(server)["authserver_password_checks_turned_away_total",] == 1


def test_the_ages_of_the_signing_keys(make) -> None:
    """A key that signs has an age, and what comes next for each has a time."""
    server = make()
    age, step = "authserver_signing_key_age_seconds", "authserver_signing_key_next_step_seconds"
    figures = read(server)
    assert 0 <= figures[age, "ES256"] < 600
    assert not [key for key in figures if key[0] == step]
    with server.application.begin() as engine:
        signing_keys.rotate(engine)
    server.application.parts.signer.load()
    figures = read(server)
    assert 0 < figures[step, "ES256", "staged"] <= figures[step, "ES256", "active"] + 1 < 3_600
    (old,) = [key for key in server.application.parts.signer.living() if key.retires_at]
    after = old.retires_at + timedelta(seconds=1)
    assert old.state(after) is KeyState.RETIRING


def test_the_documentation_has_every_figure_with_its_labels(make) -> None:
    """And no other."""
    plugins = f"{SETTINGS['authserver.plugins']}\nmetrics rate_limits opentelemetry"
    server = make(**{"authserver.plugins": plugins})
    client, _ = server.add_client(grant_types=("client_credentials",))
    server.token(client, "wrong", grant_type="client_credentials")
    with server.application.begin() as engine:
        signing_keys.rotate(engine)
    server.application.parts.signer.load()
    server.application.floods.counted[EventType.TOKEN_REFUSED] += 1
    read(server)
    text = server.http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    shown = {
        f"{family.name}{'_total' if family.type == 'counter' else ''}": {
            label for sample in family.samples for label in sample.labels
        }
        - {"le"}
        for family in text_string_to_metric_families(text)
        if not family.name.endswith("_created")
    }
    table = DOCUMENTATION.read_text().partition("* - Figure\n")[2].partition("\n\n")[0]
    rows = [row.partition("\n     - ")[0] for row in table.split("   * - ")]
    documented = {
        name: set(re.findall(r"\w+", labels))
        for row in rows
        for name, labels in re.findall(r"`((?:authserver|process)_\w+)(?:\{([^}]*)\})?`", row)
    }
    assert documented == shown


def test_what_runs_is_told(make) -> None:
    figures = read(make())
    assert figures["authserver_build", platform.python_version(), version("authserver")] == 1
    assert figures["process_resident_memory_bytes",] > 1e6


def test_the_backlog_and_what_was_done_about_it(make) -> None:
    """R-10: an operator sees clean-up fall behind."""
    server = make()
    with server.application.begin() as engine:
        for number in range(3):
            engine.stores.events.add(an_event(at=engine.now - 400 * DAY))
            engine.stores.grants.add(a_grant(grant_id=str(number), expires_at=engine.now - DAY))
            engine.stores.tokens.add(a_token(grant_id=str(number), digest=bytes([number])))
        begun = engine.now
    # Issued codes and tokens are kept as long as other events, and sessions until they expire.
    kinds = {str(kind) for kind in Disposable} - {"issuances", "idle_sessions"}
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
    assert before["authserver_upkeep_last_finished_timestamp_seconds",] == 0
    assert after["authserver_upkeep_last_finished_timestamp_seconds",] >= begun.timestamp()


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
