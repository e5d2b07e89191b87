"""`make bench` measures what `pserve production.ini` runs: how the settings of the measured server differ, and its picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from paste.deploy import appconfig, loadwsgi

from authserver import ini
from benchmarks import plot, settings

LIMITS = "authserver.plugin.rate_limits.limits"


def sections(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What `pserve` gives to the application, and to the server."""
    application = appconfig(f"config:{path}", name="main").local_conf
    server = loadwsgi.loadcontext(loadwsgi.SERVER, f"config:{path}", name="main").local_conf
    return dict(application), dict(server)


def test_the_measured_server_is_that_of_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plugin, the proxy, the log, as many processes and threads: only numbers of limits and a pause are others."""
    shipped, shipped_server = sections(settings.PRODUCTION)
    measured, measured_server = sections(settings.write_ini(tmp_path))
    assert {name for name in shipped if shipped[name] != measured[name]} == {LIMITS}
    assert [line.split(",")[:2] for line in measured[LIMITS].splitlines()] == [
        line.split(",")[:2] for line in shipped[LIMITS].splitlines()
    ]
    assert measured_server == {**shipped_server, "stop_delay": "0"}
    for name, value in settings.environment("sqlite:///none.db").items():
        monkeypatch.setenv(name, value)
    assert ini.load(measured).settings.is_production


def test_the_picture_has_a_bar_for_each_workload() -> None:
    """An SVG that can be parsed; the most expensive one takes the whole width."""
    figures = {"p50": 1.0, "p99": 2.0, "postgresql_cpu": 0.5}
    rows = [{"workload": name, "server_cpu": cpu, **figures} for name, cpu in (("W1", 1.5), ("W5", 0.5))]
    drawn = ElementTree.fromstring(plot.picture(rows, {"W1": "a token & more", "W5": "the metadata"}))
    widths = [float(each.get("width", "0")) for each in drawn.iter() if each.get("height") == "26"]
    assert widths == [345.0, 115.0, 115.0, 115.0]
    assert "a token & more" in [each.text for each in drawn.iter()]
