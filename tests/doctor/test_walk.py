"""The way of each recorded program through a server of somebody else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from authserver.doctor.findings import Findings, Result
from authserver.doctor.recordings import NAMES, load
from authserver.doctor.sending import Told
from authserver.doctor.server import Server
from authserver.doctor.visit import Introduction, Options, Visit
from authserver.doctor.walk import go
from authserver.doctor.wire import Wire
from tests.doctor.conftest import OPEN, Other, Reply, authorize, found, looked_at, refuse, register


def answering(key: str, reply: Any) -> Callable[[Other], None]:
    return lambda other: other.answers.update({key: reply})


def registering(**changes: Any) -> Callable[[Other], None]:
    """It answers registrations with these members changed; None takes one away."""

    def reply(other: Other, *arguments: Any) -> Reply:
        made = register(other, *arguments)
        if made.status == 201:
            made.body |= changes
            made.body = {name: value for name, value in made.body.items() if value != "absent"}
            other.clients[made.body["client_id"]] |= changes
        return made

    return answering("POST /register", reply)


def carelessly(other: Other, _method: str, query: Mapping[str, str], *_: Any) -> Reply:
    """It leads everybody to the sign-in."""
    return Reply(303, None, {"Location": "{origin}/sign-in?for=" + query.get("client_id", "")})


def sending(**parameters: str) -> Callable[..., Reply]:
    """It sends the registered ones back with this."""

    def reply(other: Other, method: str, query: Mapping[str, str], *arguments: Any) -> Reply:
        if query.get("client_id") not in other.clients:
            return authorize(other, method, query, *arguments)
        words = "&".join(f"{name}={text}" for name, text in parameters.items())
        return Reply(302, None, {"Location": f"{query['redirect_uri']}?{words}"})

    return reply


def test_programs_come_as_far_as_a_client_id_is_needed_and_leave_nothing_behind(other: Other) -> None:
    """Without --register nothing is sent that could register anything."""
    report = looked_at(other, *NAMES)
    assert [walked.name for walked in report.programs] == list(NAMES)
    for walked in report.programs:
        assert walked.introduction is Introduction.REGISTRATION
        results = {finding.check: finding.result for finding in walked.found}
        assert (results["finds-metadata"], results["registers"]) == (Result.OK, Result.NOT_RUN)
        assert walked.result is not Result.STUMBLES
    bodies = {received.body for received in other.origin.received if received.path == "/register"}
    assert bodies <= {b"[]", b""}
    assert other.clients == {}


def test_programs_that_may_register_are_walked_to_the_token_endpoint_and_removed(other: Other) -> None:
    """RFC 7592, 2.3: what was registered is removed."""
    other.metadata["token_endpoint_auth_methods_supported"].append("client_secret_basic")
    report = looked_at(other, *NAMES, register=True)
    for walked in report.programs:
        registered = walked.recording.registration.body["redirect_uris"]
        # The server of the tests takes no other port of a loopback address.
        others = {way.redirect_uri for way in walked.recording.authorization} - set(registered)
        assert (walked.result is Result.STUMBLES) is bool(others), walked
        refused = [finding.check for finding in walked.found if finding.result is Result.STUMBLES]
        assert set(refused) <= {"authorizes"}
        results = [(finding.check, finding.result) for finding in walked.found]
        assert results.count(("authenticates", Result.OK)) == 2
        assert ("registration-removed", Result.OK) in results
        assert ("sign-in", Result.OK) in results
    assert other.removed == list(other.clients)
    sent = [received.body for received in other.origin.received if received.path == "/register"]
    bodies = [msgspec.json.decode(body) for body in sent if len(body) > 2]
    assert [body["redirect_uris"] for body in bodies] == [
        walked.recording.registration.body["redirect_uris"] for walked in report.programs
    ]


def kept(reply: Reply) -> Reply:
    return Reply(reply.status, reply.body, OPEN)


def test_the_cookies_of_the_server_come_along_to_the_sign_in(other: Other) -> None:
    def lead(server: Other, method: str, query: Mapping[str, str], *rest: Any) -> Reply:
        reply = authorize(server, method, query, *rest)
        if reply.headers.get("Location", "").endswith("/sign-in"):
            cookies = "a=1; Expires=Tue, 01 Dec 2026 07:10:29 GMT; Path=/, b=2; HttpOnly"
            return Reply(303, None, {**reply.headers, "Set-Cookie": cookies})
        return reply

    other.answers["GET /authorize"] = lead
    looked_at(other, "zed", register=True)
    (asked,) = [received for received in other.origin.received if received.path == "/sign-in"]
    assert asked.headers["Cookie"] == "a=1; b=2"


SHOWN = '<a href="{}?error=access_denied&amp;state=x">Go back</a>'
# The program, what is changed, what is found, its result, and what is said.
BROKEN: dict[str, tuple[str, Callable[[Other], None], str, Result, str]] = {
    "no registration": (
        "claude", lambda other: other.metadata.pop("registration_endpoint") and None, "introduces-itself", Result.STUMBLES, "no way in",
    ),
    "a member of its own": (
        "chatgpt", lambda other: other.metadata.update(token_endpoint_auth_methods_supported=["client_secret_post"]),
        "finds-members", Result.STUMBLES, "token_endpoint_auth_methods_supported with none",
    ),
    "nothing at its one address": (
        "mcp-remote-0.1.31",
        lambda other: other.answers.update(
            {"* /.well-known/openid-configuration": other.answers.pop("* /.well-known/oauth-authorization-server")}
        ),
        "finds-metadata", Result.STUMBLES, "/authorize, /token and /register",
    ),
    "registration by token": ("zed", answering("POST /register", refuse("invalid_token", 401)), "registers", Result.STUMBLES, "takes no registration"),
    "a refused registration": (
        "cursor", answering("POST /register", Reply(400, {"error": "invalid_redirect_uri", "error_description": "Only https.", "error_id": "Q1"})),
        "redirect-uris", Result.STUMBLES, "is refused with 400 invalid_redirect_uri: Only https",
    ),
    "too many registrations": ("zed", answering("POST /register", Reply(429, {}, {"Retry-After": "30"})), "registers", Result.NOT_RUN, "in 30 s"),
    "a registration without an id": ("zed", answering("POST /register", Reply(201, {})), "registers", Result.STUMBLES, "no client_id"),
    "a registration that is a page": ("zed", answering("POST /register", Reply(403, "no", kind="text/html")), "registers", Result.STUMBLES, "takes no"),
    "200 for a registration": (
        "zed", answering("POST /register", lambda *arguments: Reply(200, register(*arguments).body) if arguments[3] != b"[]" else refuse("x")),
        "registers", Result.WARNING, "201",
    ),
    "null members": ("zed", registering(client_uri=None), "registered-as-asked", Result.WARNING, "client_uri"),
    "another method": ("zed", registering(token_endpoint_auth_method="client_secret_post"), "registered-as-asked", Result.WARNING, "client_secret_post"),
    "another method for who insists": (
        "chatgpt", registering(token_endpoint_auth_method="client_secret_post"), "registered-as-asked", Result.STUMBLES, "goes no further",
    ),
    "a redirect URI left out": (
        "cursor", registering(redirect_uris=["http://localhost:8787/callback"]), "registered-as-asked", Result.WARNING, "cursor://",
    ),
    "no refresh tokens": ("zed", registering(grant_types=["authorization_code"]), "registered-as-asked", Result.WARNING, "signs in again"),
    "a secret without an end": (
        "claude", registering(client_secret_expires_at="absent"), "registered-as-asked", Result.WARNING, "client_secret_expires_at",
    ),
    "no way to remove": ("zed", registering(registration_client_uri="absent"), "registration-removed", Result.WARNING, "no way"),
    "removal elsewhere": (
        "zed", registering(registration_client_uri="https://evil.example/client"), "registration-removed", Result.WARNING, "another host",
    ),
    "removal that fails": (
        "zed", registering(registration_access_token="wrong"), "registration-removed", Result.WARNING, "401",
    ),
    "a token that is no header": (
        "zed", registering(registration_access_token="a\r\nX-Evil: 1"), "registration-removed", Result.WARNING, "characters",
    ),
    "an error page": ("zed", answering("GET /authorize", Reply(400, "<title>Sorry</title>invalid_request", kind="text/html")), "authorizes", Result.STUMBLES, "Sorry: invalid_request"),
    "a refused scope": ("zed", answering("GET /authorize", sending(error="invalid_scope", error_description="No.")), "asks-for-scopes", Result.STUMBLES, "invalid_scope (No.)"),
    "a resource that is not named": ("zed", answering("GET /authorize", sending(error="invalid_target")), "audience", Result.NOT_RUN, "--resource"),
    "a page that leads back": (
        "zed", answering("GET /authorize", Reply(200, SHOWN.format("http://127.0.0.1:12345/callback"), kind="text/html")),
        "authorizes", Result.STUMBLES, "access_denied",
    ),
    "a registration that caches keep": (
        "zed", answering("POST /register", lambda *arguments: kept(register(*arguments))), "not-kept", Result.WARNING, "no-store",
    ),
    "a sign-in that fails": ("zed", answering("GET /sign-in", Reply(500, "oops", kind="text/plain")), "sign-in", Result.STUMBLES, "500 text/plain"),
    "a sign-in that can be framed": ("zed", answering("GET /sign-in", Reply(200, "Hi", kind="text/html")), "sign-in", Result.WARNING, "frame"),
    "a sign-in elsewhere": (
        "zed", answering("GET /sign-in", Reply(302, None, {"Location": "https://idp.example/login"})), "sign-in", Result.OK, "another host",
    ),
    "a sign-in without end": ("zed", answering("GET /sign-in", Reply(302, None, {"Location": "/sign-in"})), "sign-in", Result.STUMBLES, "302"),
    "a code for nobody": ("zed", answering("GET /authorize", sending(code="x")), "authorizes", Result.WARNING, "nobody signed in"),
    "no PKCE, as far as is seen": ("zed", answering("GET /authorize", carelessly), "pkce-required", Result.NOT_RUN, "needs a person"),
    "any redirect URI": ("zed", answering("GET /authorize", carelessly), "redirect-exact", Result.STUMBLES, "12345/callback/doctor"),
    "an authorization endpoint that hangs up": (
        "zed", lambda other: other.metadata.update(authorization_endpoint="http://127.0.0.1:9/"), "authorizes", Result.STUMBLES, "no connection",
    ),
    "a client that is not taken": (
        "claude", answering("POST /token", refuse("invalid_client", 401)), "authenticates", Result.STUMBLES, "client_secret_post",
    ),
    "another error": ("zed", answering("POST /token", refuse("invalid_request")), "authenticates", Result.WARNING, "invalid_request"),
    "a token endpoint that fails": ("zed", answering("POST /token", Reply(500, "x", kind="text/html")), "authenticates", Result.STUMBLES, "500"),
    "a page that may not ask": (
        "inspector-in-the-browser", answering("OPTIONS /register", Reply(404)), "reads-answers", Result.STUMBLES, "/register: the preflight",
    ),
    "a page that may not read": (
        "inspector-in-the-browser", answering("POST /token", Reply(400, {"error": "invalid_grant"})), "reads-answers", Result.STUMBLES, "read the answer",
    ),
    "a page whose header is refused": (
        "inspector-in-the-browser", answering("OPTIONS /.well-known/oauth-authorization-server", Reply(204, None, {"Access-Control-Allow-Origin": "*"})),
        "reads-answers", Result.WARNING, "mcp-protocol-version",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "change", "check", "result", "words"), BROKEN.values(), ids=BROKEN)
def test_what_a_program_stumbles_over_is_found(
    other: Other, name: str, change: Callable[[Other], None], check: str, result: Result, words: str
) -> None:
    change(other)
    report = looked_at(other, name, register=True)
    said = [finding.what for finding in found(report, check, result)]
    assert any(words in text for text in said), report.programs[0].found
    secrets = ("hush", "secret-client")
    assert not any(secret in finding.what for finding in report.all_found for secret in secrets)


def test_what_stays_behind_is_named(other: Other) -> None:
    registering(registration_client_uri="absent")(other)
    (walked,) = looked_at(other, "zed", register=True).programs
    assert walked.left_behind == "client-0"


def test_a_token_of_a_registration_is_sent_to_nobody_else(other: Other) -> None:
    registering(registration_client_uri="http://localhost:9/clients/client-0")(other)
    report = looked_at(other, "zed", register=True)
    assert found(report, "registration-removed", Result.WARNING)
    assert not any("Authorization" in received.headers for received in other.origin.received)


def test_a_pushed_request_shows_what_comes_behind_the_sign_in(other: Other) -> None:
    """RFC 9126, 2.1: it is checked as an authorization request is."""
    other.answers["GET /authorize"] = carelessly
    other.metadata["pushed_authorization_request_endpoint"] = "{origin}/par"
    other.answers["POST /par"] = refuse("invalid_scope")
    assert found(looked_at(other, "zed", register=True), "asks-for-scopes", Result.STUMBLES)
    other.answers["POST /par"] = refuse("invalid_target")
    assert found(looked_at(other, "zed", register=True), "audience", Result.NOT_RUN)
    other.answers["POST /par"] = Reply(201, {"request_uri": "urn:x", "expires_in": 60})
    assert found(looked_at(other, "zed", register=True), "pkce-required", Result.STUMBLES)


def test_error_responses_are_read_as_the_program_reads_them(other: Other) -> None:
    """RFC 9207, 2 and RFC 6749, 4.1.2.1: `iss` and `state`."""

    def reply(iss: str, state: str) -> Callable[..., Reply]:
        def answer(server: Other, method: str, query: Mapping[str, str], *rest: Any) -> Reply:
            made = authorize(server, method, query, *rest)
            if "error=" in made.headers.get("Location", ""):
                location = (
                    f"{query['redirect_uri']}?error=invalid_request&state={state or query['state']}{iss}"
                )
                return Reply(303, None, {"Location": location})
            return made

        return answer

    for iss, state, check, result in (
        ("&iss={origin}", "", "response-iss", Result.OK),
        ("", "", "response-iss", Result.STUMBLES),
        ("&iss=https://evil.example", "", "response-iss", Result.STUMBLES),
        ("&iss={origin}", "other", "response-state", Result.STUMBLES),
    ):
        other.answers["GET /authorize"] = reply(iss, state)
        other.metadata["issuer"] = other.issuer
        assert found(looked_at(other, "zed", register=True), check, result), (iss, state)


def test_a_program_introduces_itself_by_its_document_where_that_is_announced(other: Other) -> None:
    """Where none is listed, too; the request names the address of the document."""
    other.metadata["client_id_metadata_document_supported"] = True
    document = load("claude").metadata_document
    assert document is not None
    other.clients[document.url] = {"redirect_uris": ["https://claude.ai/api/mcp/auth_callback"]}
    report = looked_at(other, "claude")
    (walked,) = report.programs
    assert (walked.introduction, walked.result) == (Introduction.DOCUMENT, Result.OK)
    assert len(found(report, "authenticates", Result.OK)) == 2
    other.clients.clear()
    report = looked_at(other, "claude")
    assert found(report, "document", Result.STUMBLES)
    assert not [finding for finding in report.all_found if finding.check == "authenticates"]
    other.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    report = looked_at(other, "claude")
    assert found(report, "introduces-itself", Result.WARNING)
    assert report.programs[0].introduction is Introduction.REGISTRATION


def test_a_program_with_a_key_of_its_own_is_not_played(other: Other) -> None:
    other.metadata["client_id_metadata_document_supported"] = True
    other.metadata["token_endpoint_auth_methods_supported"].append("private_key_jwt")
    document = load("chatgpt").metadata_document
    assert document is not None
    other.clients[document.url] = {"redirect_uris": [load("chatgpt").authorization[0].redirect_uri]}
    assert found(looked_at(other, "chatgpt"), "authenticates", Result.NOT_RUN)
    # It signs with RS256; where that is not taken, it has no secret instead.
    other.metadata["token_endpoint_auth_signing_alg_values_supported"] = ["ES256"]
    assert len(found(looked_at(other, "chatgpt"), "authenticates", Result.OK)) == 2


def test_a_given_client_id_is_used_in_the_place_of_a_registration(other: Other) -> None:
    other.clients["given"] = {"redirect_uris": ["http://127.0.0.1:12345/callback"]}
    report = looked_at(other, "zed", "raycast", client_id="given")
    zed, raycast = report.programs
    assert (zed.introduction, zed.result) == (Introduction.GIVEN, Result.OK)
    (said,) = found(report, "authorizes", Result.STUMBLES)
    assert said.program == raycast.name
    assert "is this redirect URI registered for given?" in said.what


def test_a_server_that_takes_too_long_for_a_program_is_named(other: Other) -> None:
    """Claude waits ten seconds; from half of that on it is said."""

    def slowly(*arguments: Any) -> Reply:
        time.sleep(0.3)
        return register(*arguments)

    other.answers["POST /register"] = slowly
    server = Server(issuer=other.issuer)
    visit = Visit(
        wire=Wire([other.issuer]),
        recording=msgspec.structs.replace(load("claude"), patience=0.5),
        server=server,
        options=Options(register=True),
        told=Told(),
        findings=Findings("claude"),
    )
    go(visit, lambda words: None)
    assert ("in-time", Result.WARNING) in {
        (finding.check, finding.result) for finding in visit.findings.found
    }
    assert load("claude").patience == 10


def test_a_redirected_document_is_followed_and_named(other: Other) -> None:
    other.answers["* /elsewhere"] = other.answers["* /.well-known/oauth-authorization-server"]
    other.answers["* /.well-known/oauth-authorization-server"] = Reply(
        301, None, {"Location": "/elsewhere", **OPEN}
    )
    other.answers["* /.well-known/openid-configuration"] = other.answers["* /elsewhere"]
    report = looked_at(other, "zed")
    assert found(report, "finds-metadata", Result.WARNING)
    assert found(report, "finds-metadata", Result.OK)
