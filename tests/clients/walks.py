"""A recorded program at work: finds us, registers, sends a person to us, redeems and refreshes, as its recording says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import msgspec
from webtest import TestApp, TestResponse

from authserver.doctor.recordings import Authorization, Recording, TokenRequest
from authserver.doctor.sending import (
    Told,
    authorization_of,
    documents_of,
    registration_of,
    token_request_of,
)
from authserver.testing.server import PASSWORD, Server, form_with

DEVELOPMENT_API = "http://localhost:6543/demo-api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """A protected resource, as far as a program reads it: its metadata (RFC 9728) and the challenge of its 401.

    Attributes:
        identifier: the `resource` of its metadata.
        scopes: its `scopes_supported`; empty where it names none.
        listed: how our INI writes it; tokens are for this.
    """

    identifier: str = DEVELOPMENT_API
    scopes: tuple[str, ...] = ()
    listed: str = DEVELOPMENT_API


@dataclass(slots=True, kw_only=True)
class Program:
    """One program with one API. Each step returns the answer, and keeps what the next one needs.

    Attributes:
        metadata: our metadata, when it has been found.
        asked: the body of the registration.
        registered: our answer to it.
        tokens: the last token response.
    """

    recording: Recording
    server: Server
    api: Api
    metadata: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    registered: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)

    def discover(self) -> dict[str, Any]:
        """Ask the addresses in the program's order until one answers."""
        origin, path = self.server.issuer.removesuffix(self.server.path("")), self.server.path("")
        for address in documents_of(self.recording, origin, path):
            answer = self._ask("GET", address, self.recording.discovery.headers)
            if answer.status_int == 200:
                break
            assert answer.status_int == 404, f"{address}: {answer.status}"
        else:
            raise AssertionError("no address of the metadata answered")
        assert answer.content_type == "application/json"
        self.metadata = answer.json
        assert self.metadata["issuer"] == self.server.issuer
        for member, value in self.recording.discovery.needs.items():
            assert self.metadata[member]
            assert value is None or value in self.metadata[member], (member, value)
        return self.metadata

    def register(self) -> TestResponse:
        """Send the registration; any status comes back."""
        body = registration_of(self.recording, self._told())
        self.asked = body
        endpoint = self.metadata["registration_endpoint"]
        headers = self.recording.registration.headers
        answer = self._ask("POST", endpoint, headers, msgspec.json.encode(body))
        if answer.status_int == 201:
            self.registered = answer.json
        return answer

    def authorization_url(self, way: Authorization) -> str:
        """The address that the program opens in a browser."""
        parameters = authorization_of(self.recording, way, self._told())
        return self.metadata["authorization_endpoint"] + "?" + urlencode(parameters)

    def redeem(self, way: Authorization, code: str) -> TestResponse:
        """Redeem this code."""
        values = {
            "code": code,
            "code_verifier": self.recording.code_verifier,
            "redirect_uri": way.redirect_uri,
        }
        return self._token(self.recording.token, values)

    def refresh(self) -> TestResponse:
        """Present the refresh token that it has."""
        return self._token(self.recording.refresh, {"refresh_token": self.tokens["refresh_token"]})

    def _token(self, request: TokenRequest, values: Mapping[str, str | None]) -> TestResponse:
        headers, form = token_request_of(self.recording, request, self._told(), values)
        answer = self._ask("POST", self.metadata["token_endpoint"], headers, form)
        if answer.status_int == 200:
            self.tokens = {"refresh_token": self.tokens.get("refresh_token"), **answer.json}
        return answer

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> TestResponse:
        """One request. A page of a browser asks first whether it may, and needs to be told so (Fetch, 3.2)."""
        page = headers.get("Origin")
        if page is not None:
            asked = {"Access-Control-Request-Method": method}
            own = ", ".join(sorted(name.lower() for name in headers if name != "Origin"))
            preflight = self.server.http.options(
                url, headers={"Origin": page, "Access-Control-Request-Headers": own, **asked}
            )
            assert preflight.status_int in (200, 204)
            assert preflight.headers["Access-Control-Allow-Origin"] in ("*", page)
        answer = self.server.http.request(
            url, method=method, headers=dict(headers), body=body, expect_errors=True
        )
        if page is not None and answer.status_int < 400:
            assert answer.headers["Access-Control-Allow-Origin"] in ("*", page)
        return answer

    def _told(self) -> Told:
        return Told(
            resource=self.api.identifier,
            resource_scopes=self.api.scopes,
            metadata=self.metadata,
            registered=self.registered,
            tokens=self.tokens,
        )


def answer_of_a_person(
    server: Server, url: str, *, browser: TestApp | None = None, ticked: list[str] | None = None
) -> TestResponse:
    """Open this address, sign in where asked, allow what is ticked (everything); the answer that leaves the server."""
    browser = browser or server.browser()
    answer = browser.get(url, expect_errors=True)
    for _ in range(10):
        if answer.status_int in (302, 303):
            if not answer.location.startswith(server.issuer + "/"):
                return answer
            answer = browser.get(answer.location, expect_errors=True)
            continue
        assert answer.status_int == 200, answer.text
        fields = {name for form in answer.forms.values() for name in form.fields}
        if "password" in fields:
            form = form_with(answer, "password")
            form["username"], form["password"] = "ann", PASSWORD
            answer = form.submit(expect_errors=True)
        else:
            answer = server.consent(answer, scopes=ticked)
    raise AssertionError("the browser goes round in circles")
