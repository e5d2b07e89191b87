"""Each refusal leaves one event, whatever is done about it afterwards: by a view, a template, an observer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest

from authserver.testing.server import SETTINGS, Server, form_with

CHECKOUT = Path(__file__).parents[2]
FORM = "application/x-www-form-urlencoded"
OBSERVED = {"authserver.plugins": SETTINGS["authserver.plugins"] + " log_events"}
MakeServer = Callable[..., Server]


@pytest.fixture(params=["", "log_events"], ids=["unobserved", "observed"])
def observed_or_not(request: pytest.FixtureRequest, make_server: MakeServer) -> Server:
    """A server without and with a plugin that observes."""
    server = make_server({"authserver.plugins": f"{SETTINGS['authserver.plugins']} {request.param}"})
    server.add_user("ann")
    return server


def refusals(server: Server) -> list[tuple[str, str]]:
    """Type and reason of each event about a request that was refused or failed."""
    return [
        (row["type"], row["reason"])
        for row in server.events()
        if row["type"].endswith((".refused", ".failed"))
    ]


# ---- What went wrong once --------------------------------------------------------------------------


def test_a_wrong_password_counts_whatever_else_the_form_holds(observed_or_not: Server) -> None:
    """T100, T108: its event does not depend on the page that is shown again."""
    server = observed_or_not
    browser = server.browser()
    form = form_with(browser.get("/login"), "username")
    sent = [("csrf_token", form["csrf_token"].value), ("username", "ann"), ("password", "wrong")]
    answer = browser.post("/login", urlencode([*sent, ("page", "a"), ("page", "b")]), expect_errors=True)
    assert answer.status_int >= 400
    ((kind, reason),) = refusals(server)
    assert kind == "sign_in.refused"
    assert reason in ("password-wrong", "parameter-repeated", "invalid_request")


def test_a_forged_form_leaves_its_event(observed_or_not: Server) -> None:
    """E-03, T108: the request's transaction was over before anybody had asked for its engine."""
    server = observed_or_not
    answer = server.http.post("/login", {"csrf_token": "x"}, expect_errors=True)
    assert (answer.status_int, answer.content_type) == (403, "text/html")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert refusals(server) == [("sign_in.refused", "form-token")]


@pytest.mark.parametrize(
    "path", ["/oauth/token", "/oauth/jwks", "/health/live", "/static/style.css", "/login"]
)
def test_a_method_that_a_path_does_not_have_leaves_its_event(path: str, observed_or_not: Server) -> None:
    """B-01, F-01: also where no transaction belongs to the path."""
    server = observed_or_not
    answer = server.http.put(path, expect_errors=True)
    assert answer.status_int == 405
    assert answer.headers["Allow"]
    assert refusals(server) == [("request.refused", "method-not-allowed")]
