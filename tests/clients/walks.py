"""A recorded program at work: finds us, registers, sends a person to us, redeems and refreshes, as its recording says."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from webtest import TestApp, TestResponse

from authserver.testing.server import PASSWORD, Server, form_with
from tests.clients.recordings import Authorization, Recording, Scope, TokenRequest

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
        for document in dict.fromkeys(self.recording.discovery.documents):
            address = document.format(origin=origin, path=path)
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
        recorded = self.recording.registration
        body = dict(recorded.body)
        for member, listed_in in recorded.cut_to.items():
            body[member] = [value for value in body[member] if value in self.metadata[listed_in]]
        for member, choice in recorded.chosen.items():
            body[member] = next(
                value for value in choice.first_of if value in self.metadata[choice.listed_in]
            )
        scope = self._scope(recorded.scope)
        if scope is not None:
            body["scope"] = scope
        self.asked = body
        endpoint = self.metadata["registration_endpoint"]
        answer = self._ask("POST", endpoint, recorded.headers, msgspec.json.encode(body))
        if answer.status_int == 201:
            self.registered = answer.json
        return answer

    def authorization_url(self, way: Authorization) -> str:
        """The address that the program opens in a browser."""
        scope = self._scope(way.scope)
        values = {
            "client_id": self.registered["client_id"],
            "redirect_uri": way.redirect_uri,
            "state": way.state,
            "code_challenge": _challenge(self.recording.code_verifier),
            "resource": self._resource(),
            "scope": scope,
            "prompt": "consent" if scope and "offline_access" in scope.split() else None,
        }
        return self.metadata["authorization_endpoint"] + "?" + urlencode(_filled(way.parameters, values))

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
        client_id, secret = self.registered["client_id"], self.registered.get("client_secret")
        values = {
            **values,
            "client_id": client_id,
            "resource": self._resource(),
            "scope": self._scope(request.scope),
        }
        form, headers = _filled(request.form, values), dict(request.headers)
        method = request.authentication
        if method == "registered":
            method = self.registered["token_endpoint_auth_method"]
        if method == "client_secret_basic" and secret:
            credentials = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
            headers["Authorization"] = f"Basic {credentials}"
        else:
            form["client_id"] = client_id
            if method != "none" and secret:
                form["client_secret"] = secret
        answer = self._ask("POST", self.metadata["token_endpoint"], headers, urlencode(form).encode())
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

    def _scope(self, rule: Scope) -> str | None:
        told = {
            "challenge": "",
            "resource": " ".join(self.api.scopes),
            "registered": self.registered.get("scope", ""),
            "server": " ".join(self.metadata.get("scopes_supported", ())),
            "granted": self.tokens.get("scope", ""),
        }
        chosen = next((told[source] for source in rule.first_of if told[source]), rule.otherwise)
        advertised = self.metadata.get("scopes_supported", ())
        added = [scope for scope in rule.added_if_advertised if scope in advertised]
        if not added:
            return chosen
        return " ".join(dict.fromkeys([*(chosen or "").split(), *added]))

    def _resource(self) -> str | None:
        identifier = self.api.identifier
        match self.recording.resource:
            case "href" if not urlsplit(identifier).path:
                return identifier + "/"
            case "without slash":
                return identifier.removesuffix("/")
            case None:
                return None
        return identifier


def _filled(template: Mapping[str, str], values: Mapping[str, str | None]) -> dict[str, str]:
    """The parameters, in order, with `{name}` replaced; one without a value is left out."""
    filled = {}
    for name, text in template.items():
        value = values[text[1:-1]] if text.startswith("{") else text
        if value is not None:
            filled[name] = value
    return filled


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


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
