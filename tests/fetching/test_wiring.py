"""From the INI to a fetcher and to a service: what may be set, and that rules and plugins have it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authserver.api import DocumentKind, FetchFailed, FetchProblem, Service
from authserver.engine.errors import InvalidRequest
from authserver.fetching.fetcher import fetcher_of
from authserver.ini import Loaded, load
from authserver.settings import SettingsError
from authserver.testing.origins import proxying, sending, serving
from authserver.testing.rules import Rules
from authserver.testing.server import SETTINGS

CHECKOUT = Path(__file__).parents[2]
PAGE = DocumentKind(name="page", read=lambda reply: reply.body)


def loaded(**changes: str) -> Loaded:
    own = {
        key: text
        for key, text in SETTINGS.items()
        if not key.startswith(("authserver.plugin.", "authserver.plugins"))
    }
    own["authserver.database_url"] = "sqlite://"
    return load({**own, **{f"authserver.{name}": text for name, text in changes.items()}})


BAD = {
    "a network with host bits": ({"fetch_refused_networks": "10.0.0.0/8 192.0.2.1/24"}, "has host bits set"),
    "no network": ({"fetch_refused_networks": "everything"}, "fetch_refused_networks: 'everything'"),
    "no port": ({"fetch_ports": "443 70000"}, "fetch_ports: .* <= 65535"),
    "a port in words": ({"fetch_ports": "https"}, "fetch_ports: "),
    "no file": ({"fetch_ca_file": "/nowhere.pem"}, "fetch_ca_file: there is no file /nowhere.pem"),
    "a proxy with TLS": ({"fetch_proxy": "https://proxy.example:3128"}, "fetch_proxy: must be such as"),
    "a proxy without port": ({"fetch_proxy": "http://proxy.example"}, "fetch_proxy: must be such as"),
    "credentials in the URL": ({"fetch_proxy": "http://a:canary@proxy.example:1"}, "fetch_proxy_credentials"),
    "credentials without proxy": (
        {"fetch_proxy_credentials": "a:canary"},
        "there is no authserver.fetch_proxy",
    ),
    "credentials without colon": (
        {"fetch_proxy": "http://proxy.example:1", "fetch_proxy_credentials": "canary"},
        "must be user:password",
    ),
    "proxy and loopback": (
        {"fetch_proxy": "http://proxy.example:1", "fetch_loopback": "true"},
        "fetch_loopback to false",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_meant_stops_the_start(what: str) -> None:
    """T142: with the key, and without what is secret."""
    changes, words = BAD[what]
    with pytest.raises(SettingsError, match=words) as raised:
        loaded(**changes)
    assert "canary" not in str(raised.value)


def test_a_file_without_certificates_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    settings = loaded(fetch_ca_file=str(tmp_path / "ca.pem")).settings
    with pytest.raises(SettingsError, match="fetch_ca_file: cannot be used"):
        fetcher_of(settings)


def test_loopback_is_for_development_and_a_password_for_outside_the_file() -> None:
    """T122, T142: announced in development; production refuses both."""
    insecure = loaded(fetch_loopback="true").insecure
    assert any("fetch_loopback: strangers can make this machine ask itself" in line for line in insecure)
    proxied = {"fetch_proxy": "http://proxy.example:3128", "fetch_proxy_credentials": "user:canary"}
    assert any("fetch_proxy_credentials: is in the INI" in line for line in loaded(**proxied).insecure)
    for changes in ({"fetch_loopback": "true"}, proxied):
        with pytest.raises(SettingsError, match=f"{list(changes)[-1]}: .*refused in production"):
            loaded(environment="production", **changes)


def test_each_setting_reaches_the_fetcher(world: Any, tmp_path: Path) -> None:
    """R-13: the ports, the networks, the authority, the proxy and its password, the deadline."""
    origin = world.origin()
    ca_file = str(world.authority.ca_file)
    with proxying({"client.example": origin.port}) as tunnels:
        (tmp_path / "password").write_text("user:password\n")
        proxied = fetcher_of(
            loaded(
                fetch_ca_file=ca_file,
                fetch_proxy=f"http://127.0.0.1:{tunnels.port}",
                fetch_proxy_credentials=f"file:{tmp_path / 'password'}",
                fetch_ports="443 8443",
                fetch_refused_networks="1.1.1.0/24",
            ).settings
        )
        assert proxied.fetch(PAGE, "https://client.example:8443/").value == b"{}"
        with pytest.raises(FetchFailed) as failed:
            proxied.fetch(PAGE, "https://1.1.1.1/")
    assert "fetch_refused_networks" in failed.value.detail
    assert (
        tunnels.asked[0].startswith("CONNECT client.example:8443 ")
        and "dXNlcjpwYXNzd29yZA" in tunnels.asked[0]
    )
    local = fetcher_of(loaded(fetch_ca_file=ca_file, fetch_loopback="true", fetch_time_limit="0.2").settings)
    own = world.stack.enter_context(serving(world.authority.context("127.0.0.1")))
    assert local.fetch(PAGE, f"https://127.0.0.1:{own.port}/").value == b"{}"
    own.reply = lambda handler: time.sleep(1)
    begun = time.monotonic()
    with pytest.raises(FetchFailed):
        local.fetch(PAGE, f"https://127.0.0.1:{own.port}/slow")
    assert time.monotonic() - begun < 0.9


def test_a_rule_fetches_by_its_engine(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/writing-plugins.rst shows it; by default nothing of this machine is reached (T122, T127)."""
    monkeypatch.syspath_prepend(CHECKOUT / "docs/examples")
    from sector import uris_of

    origin = world.origin()
    url = f"https://client.example:{origin.port}/sector"
    rules = Rules()
    with rules.begin() as engine, pytest.raises(InvalidRequest) as refused:
        uris_of(engine, url)
    assert refused.value.reason == "sector-url-refused"
    rules.parts = replace(rules.parts, fetcher=world.fetcher())
    with rules.begin() as engine:
        origin.script = [sending(b'{"no": "array"}'), sending(b'["https://a.example/"]')]
        with pytest.raises(InvalidRequest, match=r"The document could not be fetched\.") as refused:
            uris_of(engine, url)
        assert refused.value.reason == "sector-document-refused"
        world.clock.now += 2
        assert uris_of(engine, url) == {"https://a.example/"}


def test_the_documentation_has_each_problem_with_its_meaning() -> None:
    page = (CHECKOUT / "docs/deploying.rst").read_text()
    assert re.findall(r"(?m)^`([a-z-]+)`  +\S", page) == [problem.value for problem in FetchProblem]


# ---- What the operator names ------------------------------------------------------------------------


def test_a_service_of_the_operator_may_be_anywhere_and_keeps_its_connection(world: Any) -> None:
    """The same deadline, limits and certificate checks (R-15); any address."""
    origin = world.stack.enter_context(serving(world.authority.context("127.0.0.1")))
    service = Service(f"https://127.0.0.1:{origin.port}/ask?a=b", ca_file=str(world.authority.ca_file))

    def post(seconds: float = 5) -> Any:
        return service.post(b"?", {}, deadline=time.monotonic() + seconds, maximum=10)

    assert [post().body for _ in range(3)] == [b"{}"] * 3
    assert len({item.peer for item in origin.received}) == 1 and origin.received[0].path == "/ask?a=b"
    refusals: dict[FetchProblem, Callable[[Any], None]] = {
        FetchProblem.TOO_LARGE: sending(b" " * 11),
        FetchProblem.REDIRECTED: sending(status=307, Location="/"),
        FetchProblem.TOO_SLOW: lambda handler: time.sleep(1),
    }
    for problem, origin.reply in refusals.items():
        with pytest.raises(FetchFailed) as failed:
            post(0.3)
        assert failed.value.problem is problem
    service.close()
    stranger = Service(f"https://127.0.0.1:{origin.port}/")
    with pytest.raises(FetchFailed) as failed:
        stranger.post(b"?", {}, deadline=time.monotonic() + 5, maximum=10)
    assert failed.value.problem is FetchProblem.TLS_FAILED


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://policy.example/", "url: must be https"),
        ("https://user@policy.example/", "without user"),
        ("https://policy.example/#a", "fragment"),
        ("https://policy.example/ä", "visible ASCII"),
        ("https://[::1/", "must be such as"),
        ("policy.example", "must be such as"),
    ],
)
def test_a_service_needs_a_plain_url(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Service(url)


@pytest.mark.parametrize("url", ["http://localhost:8099/", "https://policy.example/"])
def test_a_service_needs_a_fitting_ca_file(url: str, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ValueError, match=r"ca_file: (is for https|cannot be used)"):
        Service(url, ca_file=str(tmp_path / "ca.pem"))
