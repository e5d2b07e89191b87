"""Steps and assertions for tests through WebTest; there is one for each form of an error response."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.jwk import KeySet
from webtest import TestApp, TestResponse

from authserver.engine.records import Client
from authserver.hooks import DESCRIPTION
from authserver.testing.server import Server, forged, form_with
from authserver.testing.service import (
    CHALLENGE,
    ISSUER,
    PASSWORD,
    REDIRECT_URI,
    RESOURCE,
    Service,
    response_at,
    self_registration,
)

FILES = "https://files.example/"
# Every table but the signing keys and the events.
RECORDS = (
    "clients",
    "client_secrets",
    "resources",
    "users",
    "sessions",
    "consents",
    "grants",
    "tokens",
    "kept",
)


class Granted:
    """A client with tokens of user `ann`, and the resource server `api` that the access token is for.

    Args:
        auth_method: how the client authenticates.
        request: parameters of its authorization request.
    """

    def __init__(
        self, server: Service[Any], auth_method: str = "client_secret_basic", **request: Any
    ) -> None:
        self.server = server
        self.client, self.secret = server.add_client(token_endpoint_auth_method=auth_method)
        self.api, self.api_secret = server.add_client(client_id="api", grant_types=("client_credentials",))
        self.code = server.code(self.client, scope="profile files.read", **request)
        self.answer: dict[str, Any] = server.redeem(self.client, self.secret, self.code).json
        self.access: str = self.answer["access_token"]
        self.refresh: str = self.answer["refresh_token"]
        (grant,) = server.rows("grants")
        self.grant_id: str = grant["grant_id"]

    def grant(self) -> dict[str, Any]:
        """The grant as it is stored."""
        (row,) = [row for row in self.server.rows("grants") if row["grant_id"] == self.grant_id]
        return row

    def introspect(self, token: str, **form: Any) -> TestResponse:
        """Introspection by the client itself."""
        return self.server.introspect(self.client, self.secret, token, **form)

    def introspect_as_api(self, token: str) -> TestResponse:
        """Introspection by the resource server."""
        return self.server.introspect(self.api, self.api_secret, token)

    def revoke(self, token: str, **form: Any) -> TestResponse:
        """Revocation by the client."""
        return self.server.revoke(self.client, self.secret, token, **form)

    def never_issued(self) -> tuple[str, ...]:
        """Texts that are not tokens of this server: garbage, forgeries, and credentials of other kinds."""
        unsigned = "eyJhbGciOiJub25lIn0.e30."
        return (
            *("garbage", ".", "a.b.c", "\u00e9", "A" * 8000, unsigned),
            *(self.access[:-4] + "AAAA", self.refresh[:-1] + ("A" if self.refresh[-1] != "A" else "B")),
            *(forged("as_access_"), forged("as_refresh_"), self.code, self.secret or forged("as_secret_")),
        )

    def renew(self, token: str) -> TestResponse:
        """A refresh with this token."""
        return self.server.refresh(self.client, self.secret, token)


class TokenFamily:
    """A client with a refresh token of user `ann`, and its successors.

    Args:
        auth_method: how the client authenticates.
        request: parameters of its authorization request.
    """

    def __init__(
        self, server: Service[Any], auth_method: str = "client_secret_basic", **request: Any
    ) -> None:
        self.server = server
        self.client, self.secret = server.add_client(
            token_endpoint_auth_method=auth_method, scopes=("profile", "files.read", "files.write")
        )
        request = {"scope": "profile files.read", "resource": [RESOURCE, FILES], **request}
        self.code = server.code(self.client, **request)
        self.first = server.redeem(self.client, self.secret, self.code).json
        self.token: str = self.first["refresh_token"]

    def refresh(self, token: str | None = None, **form: str | list[str]) -> Any:
        """A refresh with this token, or with the first."""
        return self.server.refresh(self.client, self.secret, token or self.token, **form)

    def is_dead(self, *tokens: str) -> bool:
        """Whether each of these tokens is refused."""
        return [self.refresh(token).json.get("error") for token in tokens] == ["invalid_grant"] * len(tokens)


def records(server: Service[Any]) -> dict[str, list[dict[str, Any]]]:
    """Everything that is stored, for comparison: a refusal does not change it.

    It does not include when a secret was last used: a refused request uses it, too.
    """
    rows = {table: server.rows(table) for table in RECORDS}
    for secret in rows["client_secrets"]:
        del secret["last_used_at"]
    return {table: sorted(found, key=repr) for table, found in rows.items()}


def stored(server: Service[Any]) -> tuple[Any, Any]:
    """The records and the issuing events; a refusal adds to neither."""
    return records(server), [*server.events("token.issued"), *server.events("code.issued")]


def register(server: Server, **metadata: Any) -> Client:
    """A public client that registered itself over HTTP; by default with one https redirect URI."""
    body = self_registration(**metadata)
    answer = server.browser().post_json(server.path("/oauth/register"), body)
    with server.application.begin() as engine:
        client = engine.stores.clients.find(answer.json["client_id"], engine.now)
    assert client is not None
    return client


def sign_in_at(page: TestResponse, username: str = "ann", password: str = PASSWORD) -> TestResponse:
    """Fill in and send the form of this sign-in page, with its pending request if it has one."""
    form = form_with(page, "username")
    form["username"], form["password"] = username, password
    answer: TestResponse = form.submit(expect_errors=True)
    return answer


def fields_of(page: TestResponse, field: str) -> dict[str, str]:
    """The hidden fields of the form that has this field, which a script would send."""
    form = form_with(page, field)
    return {name: form[name].value for name in ("csrf_token", "request")}


def signed_in(server: Server, username: str = "ann") -> TestApp:
    """A browser in which this user is signed in."""
    browser = server.browser()
    answer = server.sign_in(browser, username)
    assert answer.status_int == 303, answer.text
    return browser


def is_signed_in(server: Server, browser: TestApp, *, cookie: str | None = None) -> bool:
    """Whether the front page offers to sign out, for this browser or for one that sends this Cookie header."""
    page = browser.get(server.path("/"), headers={"Cookie": cookie} if cookie is not None else None)
    assert page.status_int == 200
    return any(form.action.endswith("/logout") for form in page.forms.values())


def challenge() -> dict[str, str]:
    """The PKCE parameters of a correct request."""
    return {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}


def reference_on(page: TestResponse) -> str:
    """The error id that a page gives the person."""
    return str(page.html.select_one("code.whole").text)


def says(answer: TestResponse, word: str) -> bool:
    """Whether an answer has this word. Its letters alone prove nothing, because random values may contain them."""
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", answer.text) is not None


def assert_page_error(
    answer: TestResponse, code: str = "invalid_request", *, status: int = 400, supplied: str = ""
) -> None:
    """Check an error page of this server, without a link or redirect to the URI of the request."""
    assert answer.status_int == status, answer.location or answer.text
    assert answer.content_type == "text/html"
    assert "Location" not in answer.headers
    assert "Refresh" not in answer.headers
    assert f'<code dir="ltr">{code}</code>' in answer.text
    lower = answer.text.lower()
    assert "http-equiv" not in lower
    assert "<script" not in lower
    assert "<form" not in lower
    assert set(re.findall(r'href="(https?://[^/"]+)', answer.text)) <= {ISSUER}
    if supplied:
        assert supplied not in answer.text
        assert html.escape(supplied) not in answer.text


def assert_redirect_error(
    answer: TestResponse, code: str, *, redirect_uri: str = REDIRECT_URI, state: str | None = "xyz"
) -> None:
    """Check an error that is sent to the client: 303 to its URI, with error, state and iss, each once, and no code."""
    values = assert_response(answer, redirect_uri=redirect_uri, state=state)
    assert values["error"] == code
    assert "code" not in values
    assert DESCRIPTION.fullmatch(values["error_description"])


def assert_code(answer: TestResponse, *, redirect_uri: str = REDIRECT_URI, state: str | None = "xyz") -> str:
    """Check a successful response to the client; returns the code."""
    values = assert_response(answer, redirect_uri=redirect_uri, state=state)
    assert "error" not in values
    return values["code"]


def assert_response(answer: TestResponse, *, redirect_uri: str, state: str | None) -> dict[str, str]:
    """Check the common parts of an authorization response; returns its parameters without those of the redirect URI."""
    assert answer.status_int == 303, answer.text
    values = response_at(answer.location, redirect_uri=redirect_uri, state=state)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    return values


def verified(server: Server, token: str, algorithms: list[str]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Header and claims, verified with the keys that the metadata document names."""
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    keys = KeySet.import_key_set(server.http.get(metadata["jwks_uri"].removeprefix(ISSUER)).json)
    decoded = jwt.decode(token, keys, algorithms=algorithms)
    return decoded.header, decoded.claims


def assert_inactive(answer: TestResponse) -> None:
    """Check the introspection response for a token that is not active (RFC 7662, 2.2)."""
    assert answer.status_int == 200, answer.text
    assert answer.body == b'{"active":false}'
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"


def is_active(answer: TestResponse) -> bool:
    """Whether this introspection response says that the token is active."""
    if answer.json["active"] is True:
        return True
    assert_inactive(answer)
    return False


def assert_json_error(answer: TestResponse, code: str, *, status: int = 400) -> None:
    """Check an error of an endpoint for clients."""
    assert answer.status_int == status, answer.text
    assert answer.content_type == "application/json"
    assert answer.json["error"] == code
    assert answer.json.keys() == {"error", "error_description", "error_id"}
    assert all(isinstance(text, str) and DESCRIPTION.fullmatch(text) for text in answer.json.values())
    assert "no-store" in answer.headers["Cache-Control"]
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
