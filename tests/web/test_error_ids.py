"""Every error that leaves the server has an id, and the id leads to everything that is known of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from webtest import TestResponse

from authserver.api import Decision, hookimpl
from authserver.explaining.explain import Explanation, explain_event
from authserver.storage.database import StorageBusy, StorageSlow
from authserver.testing.server import VERIFIER, Server, forged, form_with
from authserver.testing.stories import assert_json_error, reference_on, signed_in, stored


def error_id_of(answer: TestResponse) -> str:
    """The id that the client, or the person, was told."""
    if answer.content_type == "application/json":
        return str(answer.json["error_id"])
    return reference_on(answer)


def told(server: Server, error_id: str) -> Explanation:
    """What `authserver explain --error-id` tells."""
    with server.application.begin() as engine:
        event = engine.stores.events.find(error_id)
        assert event is not None, "the id leads nowhere"
        return explain_event(engine, event, server.application.parts.policies)


def latest(server: Server, type: str) -> str:
    """The id of a redirected error: the client is not told it, the log is."""
    return str(server.events(type)[-1]["event_id"])


# ---- refusals ----------------------------------------------------------------------------------------


def wrong_secret(server: Server) -> TestResponse:
    client, _ = server.add_client(grant_types=("client_credentials",))
    return server.token(client, forged("as_secret_"), grant_type="client_credentials")


def torn_secret(server: Server) -> TestResponse:
    client, secret = server.add_client(grant_types=("client_credentials",))
    return server.token(client, (secret or "")[:-1], grant_type="client_credentials")


def wrong_scope(server: Server) -> TestResponse:
    client, secret = server.add_client(grant_types=("client_credentials",))
    return server.token(client, secret, grant_type="client_credentials", scope="admin")


def unknown_code(server: Server) -> TestResponse:
    client, secret = server.add_client()
    code = forged("as_code_")
    return server.token(client, secret, grant_type="authorization_code", code=code, code_verifier=VERIFIER)


def bad_metadata(server: Server) -> TestResponse:
    return server.http.post_json("/oauth/register", {"redirect_uris": ["/cb"]}, expect_errors=True)


def nowhere_to_go(server: Server) -> TestResponse:
    return server.http.post_json("/oauth/register", {"redirect_uris": ["myapp:/cb"]}, expect_errors=True)


def unknown_client(server: Server) -> TestResponse:
    return server.http.get("/oauth/authorize?client_id=nobody", expect_errors=True)


def unregistered_uri(server: Server) -> TestResponse:
    client, _ = server.add_client()
    url = server.authorization_url(client, redirect_uri="https://elsewhere.example/")
    return server.http.get(url, expect_errors=True)


def broken_request(server: Server) -> TestResponse:
    return server.http.get("/login?request=broken", expect_errors=True)


def form_without_token(server: Server) -> TestResponse:
    return server.http.post("/logout", {"csrf_token": "another"}, expect_errors=True)


def wrong_password(server: Server) -> TestResponse:
    return server.sign_in(server.browser(), password="wrong password")


def wrong_method(server: Server) -> TestResponse:
    return server.http.get("/oauth/token", expect_errors=True)


def too_large(server: Server) -> TestResponse:
    return server.http.post("/oauth/token", "a" * 70_000, expect_errors=True)


def wrong_method_on_a_page(server: Server) -> TestResponse:
    return server.http.put("/login", expect_errors=True)


@pytest.mark.parametrize(
    ("ask", "verdict", "reason", "checks"),
    [
        (wrong_secret, "token.refused", "secret-wrong", ["client_auth_decision"]),
        (torn_secret, "token.refused", "secret-malformed", ["core"]),
        (
            wrong_scope,
            "token.refused",
            "scope-not-registered",
            ["client_auth_decision", "resource_decision", "scope_decision"],
        ),
        (unknown_code, "token.refused", "code-unknown", ["client_auth_decision", "core"]),
        (bad_metadata, "registration.refused", "invalid_redirect_uri", ["core"]),
        (nowhere_to_go, "registration.refused", "no-redirect-uri", ["registration_decision", "core"]),
        (unknown_client, "authorization.refused", "client-unknown", ["core"]),
        (unregistered_uri, "authorization.refused", "nobody-answered", ["redirect_uri_decision"]),
        (broken_request, "sign_in.refused", "request-unsealable", None),
        (form_without_token, "request.refused", "form-token", ["core"]),
        (wrong_password, "sign_in.refused", "password-wrong", ["login_decision"]),
        (wrong_method, "request.refused", "method-not-allowed", ["core"]),
        (too_large, "request.refused", "request-entity-too-large", ["core"]),
        (wrong_method_on_a_page, "request.refused", "method-not-allowed", ["core"]),
    ],
)
def test_an_error_id_leads_to_every_check(
    server: Server, ask: Callable[[Server], TestResponse], verdict: str, reason: str, checks: list[str] | None
) -> None:
    """In order, each with what would change it; a redirected error has its record too."""
    answer = ask(server)
    assert answer.status_int >= 400
    explanation = told(server, error_id_of(answer))
    assert (explanation.verdict, explanation.reason) == (verdict, reason)
    assert checks is None or [check.hook for check in explanation.checks] == checks
    assert explanation.checks[-1].remedies
    assert explanation.outcome["method"] in ("GET", "POST", "PUT")
    if answer.content_type == "application/json" and explanation.description:
        assert explanation.description == answer.json["error_description"]


def test_a_redirected_error_has_its_record(server: Server) -> None:
    client, _ = server.add_client()
    answer = signed_in(server).get(server.authorization_url(client, scope="admin"))
    assert answer.status_int == 303 and "error=invalid_scope" in answer.location
    explanation = told(server, latest(server, "authorization.refused"))
    assert explanation.outcome["error"] == "invalid_scope"
    assert [check.hook for check in explanation.checks][-1] == "scope_decision"
    assert "error_id" not in answer.location


@pytest.mark.parametrize("path", ["/wp-login.php", "/oauth/token/", "/%ff", "/.well-known/nothing"])
def test_a_page_that_is_not_there_shows_no_id_that_leads_nowhere(server: Server, path: str) -> None:
    """Strangers ask for many; nothing was decided, so nothing is stored, and nothing refers to it."""
    before = server.events()
    answer = server.http.get(path, expect_errors=True)
    assert answer.status_int == 404
    assert "Reference" not in answer.text
    assert "error_id" not in answer.text
    assert server.events() == before


def test_the_id_of_a_refused_host_leads_to_the_log_alone(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """T138: strangers' requests fill no table."""
    before = server.events()
    with caplog.at_level(logging.INFO):
        answer = server.http.get("/", extra_environ={"HTTP_HOST": "evil.example"}, expect_errors=True)
    assert answer.status_int == 400
    assert f"error_id={answer.json['error_id']}" in caplog.text
    assert server.events() == before


# ---- faults ------------------------------------------------------------------------------------------


@contextmanager
def failing_statements(server: Server, prefix: str, error: Exception, times: int) -> Iterator[None]:
    """The next `times` statements that begin so fail in this way."""
    failed: list[str] = []

    def fail(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith(prefix) and len(failed) < times:
            failed.append(statement)
            raise error

    engine = server.application.storage.engine
    sa.event.listen(engine, "before_cursor_execute", fail)
    try:
        yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", fail)
    assert len(failed) == times


def test_an_unexpected_error_has_its_record(server: Server) -> None:
    """F-12: with the decisions made so far, and of the error its class only."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    before = stored(server)
    with failing_statements(server, "INSERT INTO events", RuntimeError("canary-secret"), 1):
        answer = server.token(client, secret, grant_type="client_credentials", scope="profile")
    assert_json_error(answer, "server_error", status=500)
    explanation = told(server, error_id_of(answer))
    assert (explanation.verdict, explanation.reason) == ("request.failed", "unexpected-error")
    assert explanation.outcome["exception"] == "RuntimeError"
    assert [check.hook for check in explanation.checks] == [
        "client_auth_decision",
        "resource_decision",
        "scope_decision",
        "core",
    ]
    assert "canary-secret" not in repr(server.events())
    assert stored(server) == before


def test_an_unexpected_error_of_a_page_has_its_record(server: Server) -> None:
    client, _ = server.add_client()
    with failing_statements(server, "SELECT clients", RuntimeError("injected"), 1):
        answer = server.http.get(server.authorization_url(client), expect_errors=True)
    assert answer.status_int == 500
    assert told(server, error_id_of(answer)).reason == "unexpected-error"


def test_an_unexpected_error_that_is_redirected_has_its_record(server: Server) -> None:
    """B-19."""
    client, _ = server.add_client()
    browser = signed_in(server)
    with failing_statements(server, "SELECT consents", RuntimeError("injected"), 1):
        answer = browser.get(server.authorization_url(client))
    assert "error=server_error" in answer.location
    assert told(server, latest(server, "request.failed")).outcome["endpoint"] == "authorize"


def test_a_busy_database_has_its_record_once_it_can(server: Server) -> None:
    """T111: only the last attempt leaves the server, and only that one is recorded."""
    client, secret = server.add_client(grant_types=("client_credentials",))
    with failing_statements(server, "INSERT INTO events", StorageBusy("chosen as a victim"), 3):
        answer = server.token(client, secret, grant_type="client_credentials", scope="profile")
    assert_json_error(answer, "temporarily_unavailable", status=503)
    assert told(server, error_id_of(answer)).reason == "storage-unavailable"
    assert len(server.events("request.failed")) == 1


def test_an_attempt_that_is_repeated_is_no_error(server: Server) -> None:
    client, secret = server.add_client(grant_types=("client_credentials",))
    with failing_statements(server, "INSERT INTO events", StorageBusy("chosen as a victim"), 2):
        answer = server.token(client, secret, grant_type="client_credentials", scope="profile")
    assert answer.status_int == 200
    assert server.events("request.failed") == []


def test_who_waited_for_the_database_does_not_wait_again(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """T114: the log alone knows the id."""
    caplog.set_level(logging.INFO)
    client, secret = server.add_client(grant_types=("client_credentials",))
    with failing_statements(server, "INSERT INTO events", StorageSlow("waited"), 1):
        answer = server.token(client, secret, grant_type="client_credentials", scope="profile")
    assert_json_error(answer, "temporarily_unavailable", status=503)
    assert server.events("request.failed") == []
    assert f"storage-unavailable error_id={answer.json['error_id']}" in caplog.text


def test_a_failure_that_cannot_be_recorded_is_answered_all_the_same(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    client, secret = server.add_client(grant_types=("client_credentials",))
    with failing_statements(server, "INSERT INTO events", RuntimeError("injected"), 2):
        answer = server.token(client, secret, grant_type="client_credentials", scope="profile")
    assert_json_error(answer, "server_error", status=500)
    assert f"error_id={answer.json['error_id']} is only in this log" in caplog.text


@dataclass(frozen=True)
class Raises:
    """A policy with a fault."""

    @hookimpl
    def scope_decision(self) -> Decision:
        raise LookupError("canary-secret")


def test_a_plugin_that_fails_is_named(make_server: Callable[..., Server]) -> None:
    """R-14: the operator reads which plugin it was; the client does not."""
    server = make_server()
    plugins = server.ini["authserver.plugins"] + f"\n{__name__}:Raises"
    server = make_server({"authserver.plugins": plugins})
    client, secret = server.add_client(grant_types=("client_credentials",))
    answer = server.token(client, secret, grant_type="client_credentials", scope="profile")
    assert_json_error(answer, "server_error", status=500)
    last = told(server, error_id_of(answer)).checks[-1]
    assert (last.hook, last.verdict, last.by, last.reason) == (
        "scope_decision",
        "failed",
        "raises",
        "plugin-raised",
    )
    assert "raises" not in answer.text and "canary" not in answer.text


def test_the_sign_in_page_tells_the_id_of_a_refusal(server: Server) -> None:
    """The same page without a refusal has none."""
    page = server.http.get("/login")
    assert form_with(page, "username") and not page.html.find_all("code")
    assert error_id_of(wrong_password(server)) == latest(server, "sign_in.refused")
