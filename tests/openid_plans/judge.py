"""A relying party and a person at a browser, who know of the server what HTTP and the specifications say.

No line of the server is used: a request goes to a server process over a socket, and what comes back is read and verified by
libraries of others. The names of test modules are those of the conformance suite of the OpenID Foundation.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import requests
from bs4 import BeautifulSoup
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from requests.adapters import HTTPAdapter

# Where the relying party is: nothing listens there, as the browser stops at its addresses.
HOST = "https://rp.example"
CALLBACK = f"{HOST}/callback"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


class ThroughProxy(HTTPAdapter):
    """What a reverse proxy does that terminates TLS: the browser talks https, the server is reached by http."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        sent = request.copy()
        parts = urlsplit(str(request.url))
        sent.headers.update(
            {"Host": parts.netloc, "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}
        )
        sent.url = parts._replace(scheme="http", netloc=f"localhost:{self._port}").geturl()
        return super().send(sent, *args, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """How a plan is run: the way in which clients authenticate, are registered, and get their answers."""

    name: str
    auth_method: str = "client_secret_basic"
    dynamic: bool = False
    response_mode: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelyingParty:
    """A client of the provider.

    Attributes:
        key: it signs with, if it authenticates by key; its public part is registered.
        registration: what the registration endpoint answered; empty for a client that an operator added.
    """

    client_id: str
    secret: str
    auth_method: str
    key: RSAKey
    registration: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """Where an address led the browser: to the relying party, with these parameters, or to a page of the provider.

    Attributes:
        signed_in: whether the person had to sign in on the way.
        asked: whether they were asked for consent.
        method: of the request to the relying party.
        pages: the pages on the way, the last one where it ended, if it is one.
    """

    url: str
    parameters: Mapping[str, str]
    method: str
    signed_in: bool
    asked: bool
    status: int
    pages: tuple[BeautifulSoup, ...]

    @property
    def is_page(self) -> bool:
        return not self.url.startswith(HOST)


class Browser:
    """A person's browser: it keeps cookies, follows redirects and sends forms, and leaves the relying party's host alone."""

    def __init__(self, port: int, username: str, password: str) -> None:
        self.http = requests.Session()
        self.http.mount("https://", ThroughProxy(port))
        self._username, self._password = username, password

    def go(self, url: str, *, form: Mapping[str, str] | None = None, answers: bool = True) -> Came:
        """Follow an address, or send a form there; sign in and allow where the provider asks.

        Args:
            answers: whether the person answers; otherwise it ends at the first page.
        """
        method: str = "GET" if form is None else "POST"
        sent: Any = form
        pages: list[BeautifulSoup] = []
        seen: set[str] = set()
        for _ in range(20):
            if url.startswith(HOST):
                told = parse_qsl(urlsplit(url).query, keep_blank_values=True) + list(dict(sent or {}).items())
                assert len(dict(told)) == len(told), "no parameter comes twice"
                return self._came(url, dict(told), method, seen, 0, pages)
            reply = self.http.request(method, url, data=sent, allow_redirects=False, timeout=20)
            if reply.is_redirect:
                assert reply.status_code in (302, 303)
                method, url, sent = "GET", reply.headers["Location"], None
                continue
            page = BeautifulSoup(reply.text, "html.parser")
            pages.append(page)
            filled = self._filled(page, seen) if answers else None
            if filled is None:
                return self._came(url, {}, method, seen, reply.status_code, pages)
            method, (url, sent) = "POST", filled
        raise AssertionError("the browser goes round in circles")

    def _filled(
        self, page: BeautifulSoup, seen: set[str]
    ) -> tuple[str, dict[str, str] | list[tuple[str, str]]] | None:
        """The form of this page as the person sends it, and where to; None if nothing is asked."""
        for form in page.select("form"):
            fields = [(item["name"], item.get("value", "on")) for item in form.select("input[name]")]
            names = {name for name, _ in fields}
            if "password" in names:
                seen.add("sign-in")
                typed = {"username": self._username, "password": self._password}
                return form["action"], {**dict(fields), **typed}
            if "scope" in names:
                seen.add("consent")
                return form["action"], [*fields, ("answer", "allow")]
            if form["action"].startswith(HOST):
                return form["action"], dict(fields)
        return None

    @staticmethod
    def _came(
        url: str,
        parameters: Mapping[str, str],
        method: str,
        seen: set[str],
        status: int,
        pages: list[BeautifulSoup],
    ) -> Came:
        return Came(
            url=url,
            parameters=parameters,
            method=method,
            signed_in="sign-in" in seen,
            asked="consent" in seen,
            status=status,
            pages=tuple(pages),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A code flow that succeeded: where the browser went, what the token endpoint said, and the claims of the ID token."""

    came: Came
    code: str
    tokens: Mapping[str, Any]
    claims: Mapping[str, Any]


class Judge:
    """One module of a plan on one variant: a relying party, a browser in which nobody is signed in, and what both may check.

    Args:
        issuer: of the provider.
        port: where it is, behind the proxy.
    """

    def __init__(self, issuer: str, port: int, variant: Variant, rp: RelyingParty, browser: Browser) -> None:
        self.issuer, self.variant, self.rp, self.browser = issuer, variant, rp, browser
        self.http = requests.Session()
        self.http.mount("https://", ThroughProxy(port))
        self.metadata: Mapping[str, Any] = self.get_json("/.well-known/openid-configuration")

    def get_json(self, path: str) -> Any:
        reply = self.http.get(self.issuer + path, timeout=20)
        assert reply.status_code == 200
        assert reply.headers["Content-Type"].split(";")[0] in ("application/json", "application/jwk-set+json")
        return reply.json()

    def keys(self) -> Mapping[str, Any]:
        keys: Mapping[str, Any] = self.http.get(self.metadata["jwks_uri"], timeout=20).json()
        return keys

    # ---- The authorization endpoint ----

    def request(self, **changes: str | None) -> tuple[dict[str, str], str]:
        """A request as the suite makes it: `state` and `nonce`, and no PKCE. Its parameters, and the address."""
        asked: dict[str, str | None] = {
            "client_id": self.rp.client_id,
            "redirect_uri": CALLBACK,
            "scope": "openid",
            "response_type": "code",
            "state": secrets.token_urlsafe(8),
            "nonce": secrets.token_urlsafe(8),
            "response_mode": self.variant.response_mode,
            **changes,
        }
        sent = {name: value for name, value in asked.items() if value is not None}
        return sent, f"{self.metadata['authorization_endpoint']}?{urlencode(sent, quote_via=quote)}"

    def authorize(self, *, answers: bool = True, **changes: str | None) -> tuple[Came, dict[str, str]]:
        """Send the browser there; where it came, and what was asked. An answer has our `state` and the right `iss`."""
        sent, url = self.request(**changes)
        came = self.browser.go(url, answers=answers)
        if not came.is_page:
            self.check_answer(came, sent)
        return came, sent

    def check_answer(self, came: Came, sent: Mapping[str, str]) -> None:
        assert came.parameters.get("state") == sent.get("state")
        assert came.parameters["iss"] == self.issuer
        assert ("code" in came.parameters) != ("error" in came.parameters)
        assert came.url.partition("?")[0] == sent["redirect_uri"].partition("?")[0]
        by_form = self.variant.response_mode == "form_post"
        assert came.method == ("POST" if by_form else "GET")
        if by_form:
            assert "?" not in came.url

    def error(self, **changes: str | None) -> str:
        """The code of the error that the relying party gets, without any page on the way."""
        came, _ = self.authorize(answers=self.variant.response_mode == "form_post", **changes)
        assert not came.signed_in and not came.asked and not came.is_page
        assert set(came.parameters) <= {"error", "error_description", "state", "iss"}
        assert came.parameters.get("error_description", "").isprintable()
        return came.parameters["error"]

    # ---- The token endpoint ----

    def ask(
        self, form: Mapping[str, str], *, rp: RelyingParty | None = None, audience: str | None = None
    ) -> requests.Response:
        """A token request, authenticated as the client is registered for."""
        rp = rp or self.rp
        sent, basic = dict(form), None
        match rp.auth_method:
            case "client_secret_basic":
                basic = (quote(rp.client_id, safe=""), quote(rp.secret, safe=""))
            case "client_secret_post":
                sent |= {"client_id": rp.client_id, "client_secret": rp.secret}
            case "none":
                sent["client_id"] = rp.client_id
            case "private_key_jwt":
                assertion = self.assertion(rp, audience or self.metadata["token_endpoint"])
                sent |= {"client_assertion_type": ASSERTION, "client_assertion": assertion}
        reply = self.http.post(self.metadata["token_endpoint"], data=sent, auth=basic, timeout=20)
        assert reply.headers["Content-Type"].startswith("application/json")
        assert "no-store" in reply.headers["Cache-Control"]
        return reply

    @staticmethod
    def assertion(rp: RelyingParty, audience: str) -> str:
        now = int(time.time())
        claims = {
            "iss": rp.client_id,
            "sub": rp.client_id,
            "aud": audience,
            "jti": secrets.token_urlsafe(15),
            "iat": now,
            "exp": now + 60,
        }
        header = {"alg": "RS256", **({"kid": rp.key.kid} if rp.key.kid else {})}
        return jwt.encode(header, claims, rp.key, algorithms=["RS256"])

    def redeem(self, code: str, *, redirect_uri: str = CALLBACK, **more: str) -> requests.Response:
        return self.ask(
            {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, **more}
        )

    def refresh(self, token: str, *, rp: RelyingParty | None = None) -> requests.Response:
        return self.ask({"grant_type": "refresh_token", "refresh_token": token}, rp=rp)

    def flow(self, *, verifier: str | None = None, **changes: str | None) -> Flow:
        """A whole code flow, with all the checks of an ID token, and an answer of UserInfo about the same person."""
        if verifier is not None:
            digest = hashlib.sha256(verifier.encode()).digest()
            changes |= {
                "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
                "code_challenge_method": "S256",
            }
        came, sent = self.authorize(**changes)
        assert "code" in came.parameters, (
            came.parameters,
            came.pages and came.pages[-1].get_text(" ", strip=True),
        )
        code = came.parameters["code"]
        more = {} if verifier is None else {"code_verifier": verifier}
        reply = self.redeem(code, redirect_uri=sent["redirect_uri"], **more)
        assert reply.status_code == 200, reply.text
        tokens = reply.json()
        assert tokens["token_type"].lower() == "bearer" and tokens["expires_in"] > 0
        claims = self.check_id_token(
            tokens["id_token"], nonce=sent.get("nonce"), access_token=tokens["access_token"]
        )
        about = self.userinfo(tokens["access_token"])
        assert about.status_code == 200
        return Flow(came=came, code=code, tokens=tokens, claims=claims)

    # ---- What comes back ----

    def check_id_token(
        self, text: str, *, nonce: str | None, access_token: str | None = None, algorithm: str = "RS256"
    ) -> Mapping[str, Any]:
        """OIDC Core, 3.1.3.7: the claims, verified with the key of the provider that the header names."""
        keys = KeySet.import_key_set(dict(self.keys()))
        token = jwt.decode(text, keys, algorithms=[algorithm])
        header, claims, now = token.header, token.claims, time.time()
        assert header["kid"] in {key["kid"] for key in self.keys()["keys"]}
        assert claims["iss"] == self.issuer
        assert claims["aud"] in (self.rp.client_id, [self.rp.client_id])
        assert claims.get("azp", self.rp.client_id) == self.rp.client_id
        assert claims["sub"] and len(claims["sub"]) <= 255 and claims["sub"].isascii()
        assert claims["iat"] - 10 <= now < claims["exp"] and claims["exp"] - claims["iat"] < 24 * 3600
        assert claims.get("nonce") == nonce
        assert isinstance(claims.get("auth_time", 0), int)
        if access_token is not None:
            half = hashlib.sha256(access_token.encode()).digest()[:16]
            assert claims["at_hash"] == base64.urlsafe_b64encode(half).rstrip(b"=").decode()
        return dict(claims)

    def userinfo(self, token: str, *, by: str = "get") -> requests.Response:
        """Ask UserInfo, with the access token in the header by GET or POST, or in a form."""
        url = self.metadata["userinfo_endpoint"]
        if by == "form":
            return self.http.post(url, data={"access_token": token}, timeout=20)
        return self.http.request(
            "GET" if by == "get" else "POST", url, headers={"Authorization": f"Bearer {token}"}, timeout=20
        )

    # ---- Sessions ----

    def end_session(self, *, answers: bool = False, **parameters: str | None) -> Came:
        sent = {name: value for name, value in parameters.items() if value is not None}
        return self.browser.go(f"{self.metadata['end_session_endpoint']}?{urlencode(sent)}", answers=answers)
