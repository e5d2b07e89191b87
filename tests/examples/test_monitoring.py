"""Alert rules and dashboard of `examples/monitoring`, with what a server really shows: while it is well, and in trouble.

Prometheus' own `promtool` evaluates them. Its series are those of two scrapes of a server; what was counted between them
goes on in each of the following minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from authserver.engine.errors import TooBusy
from authserver.engine.keys import signing_keys
from authserver.storage import migrate
from authserver.testing.live import free_port
from authserver.testing.records import an_event
from authserver.testing.server import SETTINGS, Server

FOLDER = Path(__file__).parents[2] / "examples/monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
TOKEN = "0123456789abcdef" * 2
PROMTOOL = shutil.which("promtool")
# What Prometheus adds to each series of a target.
TARGET = {"job": "authserver", "instance": "127.0.0.1:16543"}
MINUTES = 60
# Rows that an alert calls a backlog.
BACKLOG = 10_000


@dataclass
class Watched:
    """A server and what its figures were at two times.

    Attributes:
        is_up: whether Prometheus reaches it.
    """

    is_up: bool
    first: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[str, float]] = field(default_factory=dict)
    then: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[str, float]] = field(default_factory=dict)
    at: float = 0.0

    def series(self) -> list[dict[str, str]]:
        """For promtool: each series by name and labels, and its values minute after minute."""
        found = [{"series": f"up{{{_labels(TARGET)}}}", "values": f"{int(self.is_up)}+0x{MINUTES}"}]
        for (name, labels), (kind, value) in self.then.items():
            before = self.first.get((name, labels), (kind, 0.0))[1]
            begin, step = value, value - before if kind in ("counter", "histogram") else 0.0
            earlier = f"{before:.6f}+0x9 " if kind == "gauge" and value < before else ""
            if name.endswith("_timestamp_seconds"):
                # The time of promtool begins at zero. What happens all the time happens all the time.
                begin, step = value - self.at, 60.0 if self.is_up else 0.0
            found.append(
                {
                    "series": f"{name}{{{_labels({**dict(labels), **TARGET})}}}",
                    "values": f"{earlier}{begin:.6f}{step:+.6f}x{MINUTES}",
                }
            )
        return found

    @property
    def labels(self) -> Mapping[str, set[str]]:
        """The labels of each metric, by its name."""
        found: dict[str, set[str]] = {"up": set(TARGET)}
        for name, labels in self.then:
            found.setdefault(name, set(TARGET)).update(dict(labels))
        return found


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())


def scrape(server: Server) -> dict[tuple[str, tuple[tuple[str, str], ...]], tuple[str, float]]:
    """Each figure with its kind, by its name and labels."""
    text = server.http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text

    def key(sample: Sample) -> tuple[str, tuple[tuple[str, str], ...]]:
        return sample.name, tuple(sorted(sample.labels.items()))

    return {
        key(sample): (family.type, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")

        def make(**changes: str) -> Server:
            url = f"sqlite:///{tmp_path_factory.mktemp('watched')}/authserver.sqlite"
            migrate.upgrade(url)
            plugins = f"{SETTINGS['authserver.plugins']}\nmetrics rate_limits opentelemetry"
            settings = {"authserver.plugins": plugins, "authserver.plugin.metrics.tokens": TOKEN}
            server = Server(url, {**settings, **changes})
            stack.callback(server.close)
            server.add_user("ann")
            return server

        yield make


@pytest.fixture(scope="module")
def well(serve: Callable[..., Server]) -> Watched:
    """A server that does its work, with a few refusals among it."""
    found = Watched(is_up=True)
    server = serve()
    for turn in (found.first, found.then):
        client, secret = server.add_client(grant_types=("client_credentials",))
        for _ in range(10):
            server.token(client, secret, grant_type="client_credentials")
        server.token(client, "wrong", grant_type="client_credentials")
        server.application.caretaker.work()
        seal(server)
        turn.update(scrape(server))
    found.at = time.time()
    return found


@pytest.fixture(scope="module")
def in_trouble(serve: Callable[..., Server]) -> Watched:
    """A server to which everything happens that the alerts are about."""
    port = free_port()
    server = serve(
        **{
            "authserver.plugin.rate_limits.storage": f"redis://127.0.0.1:{port}/0",
            "authserver.plugin.opentelemetry.endpoint": f"http://127.0.0.1:{port}",
            "authserver.refusals_per_minute": "2",
        }
    )
    seal(server)
    found = Watched(is_up=False, first=scrape(server))
    client, secret = server.add_client(grant_types=("client_credentials",))
    use_again(server)
    for _ in range(20):
        server.token(client, "wrong", grant_type="client_credentials")
    lose_a_table(server, lambda: server.token(client, secret, grant_type="client_credentials"))
    wait_for_a_lock(server, lambda: server.token(client, secret, grant_type="client_credentials"))
    turn_somebody_away(server)
    age_the_key(server)
    leave_a_backlog(server)
    with server.application.storage.begin() as stores:
        stores.event_positions.count_set_aside("statistics", 1)
        stores.event_seals.remove_until(1_000)
    server.application.parts.policies.plugin("opentelemetry").provider.force_flush()
    with ExitStack() as held:
        # The last one is for the figures of the backlog.
        for _ in range(15):
            held.enter_context(server.application.storage.engine.connect())
        found.then.update(scrape(server))
    found.at = time.time()
    return found


def seal(server: Server) -> None:
    for reading in server.application.readings:
        while reading.work():
            pass


def use_again(server: Server) -> None:
    """A code, and a refresh token that is older than its last."""
    client, secret = server.add_client()
    code = server.code(client)
    server.redeem(client, secret, code)
    server.redeem(client, secret, code)
    first = server.redeem(client, secret, server.code(client)).json["refresh_token"]
    second = server.refresh(client, secret, first).json["refresh_token"]
    server.refresh(client, secret, second)
    server.refresh(client, secret, first)


def lose_a_table(server: Server, request: Callable[[], object]) -> None:
    with server.application.storage.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE clients RENAME TO clients_lost")
        for _ in range(5):
            request()
        connection.exec_driver_sql("ALTER TABLE clients_lost RENAME TO clients")


def wait_for_a_lock(server: Server, request: Callable[[], object]) -> None:
    """Many requests at once that wait until somebody else has written."""
    with server.application.storage.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=request) for _ in range(12)]
        for thread in threads:
            thread.start()
        time.sleep(1.2)
        connection.exec_driver_sql("COMMIT")
    for thread in threads:
        thread.join()


def turn_somebody_away(server: Server) -> None:
    turnstile = server.application.parts.password_checks
    with turnstile.turn("one network"), pytest.raises(TooBusy), turnstile.turn("one network"):
        pass


def age_the_key(server: Server) -> None:
    """Its successor is staged, so both have a next step."""
    with server.application.begin() as engine:
        long_ago = engine.now - timedelta(days=200)
        key = signing_keys.rotate(engine).old
        assert key is not None
        assert engine.stores.signing_keys.change(key, replace(key, activates_at=long_ago))
    server.application.parts.signer.load()


def leave_a_backlog(server: Server) -> None:
    """As many old events as an alert asks for, made of one."""
    with server.application.begin() as engine:
        engine.stores.events.add(an_event(event_id="old", at=engine.now - timedelta(days=400)))
    with server.application.storage.engine.connect() as connection:
        columns = [
            column["name"]
            for column in sa.inspect(connection).get_columns("events")
            if column["name"] not in ("event_id", "number")
        ]
        names = ", ".join(columns)
        connection.exec_driver_sql(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {BACKLOG}) "
            f"INSERT INTO events (event_id, {names}) SELECT 'old ' || i, {names} FROM n, events WHERE event_id = 'old'"
        )


# ---- names ------------------------------------------------------------------------------------------------


def alerts() -> dict[str, str]:
    """The expression of each alert, by its name."""
    text = (FOLDER / "alerts.yml").read_text()
    found = re.findall(r"- alert: (\w+)\n +expr: (?:>-\n)?(.*?)\n +(?:for|labels):", text, re.DOTALL)
    assert len(found) == text.count("- alert:")
    return {name: " ".join(expression.split()) for name, expression in found}


def panels() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard with the title of its panel."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
            assert "$" not in expression
            yield panel["title"], expression


def unknown_names(expression: str, known: Mapping[str, set[str]]) -> list[str]:
    """Metrics and labels in a query that no figure has."""
    wrong = []
    for name, matchers in re.findall(r"\b([a-z]+_[a-z_]+|up)\b(?:\{([^}]*)\})?", expression):
        if name in ("histogram_quantile", "max_over_time"):
            continue
        if name not in known:
            wrong.append(name)
            continue
        wrong += [
            f"{name}: {label}"
            for label in re.findall(r"(\w+) *(?:=~|!=|=)", matchers)
            if label not in known[name]
        ]
    return wrong


def test_every_query_names_what_there_is(in_trouble: Watched) -> None:
    expressions = [*alerts().values(), *(expression for _, expression in panels())]
    assert len(expressions) > 40
    assert [wrong for each in expressions for wrong in unknown_names(each, in_trouble.labels)] == []


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ('sum(rate(authserver_events_total{kind="x"}[5m]))', ["authserver_events_total: kind"]),
        ("rate(authserver_event_total[5m])", ["authserver_event_total"]),
    ],
)
def test_a_name_that_is_not_there_is_found(in_trouble: Watched, expression: str, wrong: list[str]) -> None:
    assert unknown_names(expression, in_trouble.labels) == wrong


# ---- promtool ---------------------------------------------------------------------------------------------


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[[Watched, list[dict[str, Any]]], str]:
    """What promtool says of these queries, with the alert rules, after the minutes."""
    if PROMTOOL is None and not os.environ.get("CI"):
        pytest.skip("promtool is not installed; on Debian: apt-get install prometheus")

    def run(watched: Watched, queries: list[dict[str, Any]]) -> str:
        assert PROMTOOL is not None
        test = {
            "rule_files": [str(FOLDER / "alerts.yml")],
            "evaluation_interval": "1m",
            "tests": [{"interval": "1m", "input_series": watched.series(), "promql_expr_test": queries}],
        }
        # JSON is YAML.
        (tmp_path / "test.yml").write_text(json.dumps(test))
        done = subprocess.run(
            [PROMTOOL, "test", "rules", str(tmp_path / "test.yml")],
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout + done.stderr

    return run


def firing(names: list[str]) -> dict[str, Any]:
    """The query for alerts that fire, and that these do."""
    return {
        "expr": 'min by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{MINUTES - 5}m",
        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names],
    }


def test_no_alert_fires_while_all_is_well(well: Watched, evaluate: Callable[..., str]) -> None:
    assert "SUCCESS" in evaluate(well, [firing([])])


def test_every_alert_fires_in_trouble(in_trouble: Watched, evaluate: Callable[..., str]) -> None:
    said = evaluate(in_trouble, [firing(sorted(alerts()))])
    assert "SUCCESS" in said, said


def test_every_panel_of_the_dashboard_has_something_to_show(
    in_trouble: Watched, evaluate: Callable[..., str]
) -> None:
    """promtool is told to expect nothing, and so complains of each query that finds something."""
    queries = [{"expr": expression, "eval_time": "30m", "exp_samples": []} for _, expression in panels()]
    said = evaluate(in_trouble, queries)
    silent = [title for title, expression in panels() if json.dumps(expression) not in said]
    assert silent == []


def test_the_files_are_what_prometheus_reads(tmp_path: Path) -> None:
    if PROMTOOL is None and not os.environ.get("CI"):
        pytest.skip("promtool is not installed; on Debian: apt-get install prometheus")
    assert PROMTOOL is not None
    shutil.copytree(FOLDER, tmp_path / "monitoring")
    (tmp_path / "monitoring/metrics_token").write_text(TOKEN)
    run = subprocess.run(
        [PROMTOOL, "check", "config", str(tmp_path / "monitoring/prometheus.yml")],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert f"{len(alerts())} rules found" in run.stdout


def test_the_readme_says_what_each_alert_means() -> None:
    found = re.findall(r"^\| (Authserver\w+) \| \S.*\|$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert found == list(alerts())


def test_the_panels_have_ids_and_places_of_their_own() -> None:
    """Grafana shows two with one id once."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
