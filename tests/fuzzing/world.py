"""A server with every shipped feature, what an attacker of it may hold, and what must be true after every request.

Credentials have names (`Known("code of web")`), so that a message is printed as something that can be sent again: their
values are different in each run. The clock stands still, and only a message moves it. What a message changed is put
back after it, so no message depends on those before it.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote_plus, unquote_plus, urlencode, urlsplit

import time_machine
from joserfc.jwk import ECKey, KeySet
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64encode
from webob import Request, Response
from webtest import TestApp, TestResponse

from authserver.engine.clients import initial_tokens
from authserver.engine.clients.editing import ClientEdit, edit
from authserver.engine.errors import OAuthError
from authserver.engine.grants.authorization_code import MAXIMUM_FAILURES
from authserver.engine.people.login import disable_user
from authserver.engine.records import SUBJECT, Client
from authserver.features.step_up import LOGIN_REQUIRED, UNMET
from authserver.storage.tables import Base
from authserver.testing.server import (
    CHALLENGE,
    ISSUER,
    PASSWORD,
    REDIRECT_URI,
    RESOURCE,
    SETTINGS,
    Server,
    basic,
    forged,
    form_with,
)
from authserver.web.openapi import document
from authserver.web.route import Medium, Route
from tests.client_keys import ABSENT, ASSERTION_TYPE, METHOD, Key
from tests.fuzzing.documents import ACCEPTED, ODD, OTHER_URI, REFUSED, SECTORS, Documents
from tests.trusted_issuers import Issuer
from tests.web.account_steps import form_token

HOST = urlsplit(ISSUER).netloc
FORM = "application/x-www-form-urlencoded"
TRUSTED = "https://issuer.example"
ASSERTIONS = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
ACCESS_TOKEN, REFRESH_TOKEN, ID_JAG = (
    f"urn:ietf:params:oauth:token-type:{name}" for name in ("access_token", "refresh_token", "id-jag")
)
FILES, OUTSIDE = "https://files.example/", "https://other.example"
# Resources that an exchange may add, because a rule says so.
TARGETS = (FILES,)
INITIAL_TOKEN, FIGURES_TOKEN = "initial-access-token-of-the-operator", "token-of-the-collector-of-figures"
# An origin that no redirect URI has, and that the operator lists.
LISTED = "chrome-extension://abcdefghijklmnopabcdefghijklmnop"
# Seconds of the real clock after which counted refusals are stored here; in a server, a minute.
COUNTED_FOR = 20
# The scopes of clients that a document describes.
OF_DOCUMENTS = ("profile", "files.read")
# What the company says of the agent of ann, and how its assertions are marked.
ID_JAG_TYPE = "oauth-id-jag+jwt"
OF_COMPANY = {"client_id": "agent", "resource": RESOURCE, "scope": "profile files.read"}
LOOPBACK, SCHEME = "http://127.0.0.1/cb", "com.example.app:/cb"
SECOND_URI = "https://client.example/other?tenant=1"
# Where people are sent after they have signed out for a client.
AFTERWARDS = "https://client.example/bye"
# The clients that ask who somebody is (OpenID Connect), and one whose ids of people cannot be made.
KNOWING, UNKNOWING = ("openly", "pairwise"), "sectorless"
# What refusals may leave beside their events, by the reason or the type of these.
CONSEQUENCES: Mapping[str, frozenset[tuple[str, str]]] = {
    reason: frozenset(writes)
    for reason, *writes in (
        # What a replay has revoked stays revoked.
        ("code-replayed", ("grants", "UPDATE")),
        ("code-burnt", ("grants", "UPDATE")),
        ("refresh-token-reused", ("grants", "UPDATE")),
        # Wrong proofs of a code are counted.
        ("redirect-uri-differs", ("tokens", "UPDATE")),
        ("verifier-wrong", ("tokens", "UPDATE")),
        ("verifier-without-challenge", ("tokens", "UPDATE")),
        # A person has answered, once, and was seen.
        ("consent.refused", ("kept", "INSERT"), ("sessions", "UPDATE")),
    )
}
# What they may leave without an event, by the code of the error: a device polls all the time.
POLLS: Mapping[str, frozenset[tuple[str, str]]] = {
    code: frozenset({("kept", "UPDATE")}) for code in ("authorization_pending", "slow_down")
}
# Clients that authenticate with a key, and some whose keys nobody can have.
SIGNERS = ("signer", "fetching", "keyed", "remote")
WITHOUT_KEYS = ("unkeyed", "lost", "offline")
# Why an answer may be 503 although this server does what it should.
UNREACHABLE = {
    "sector-unavailable",
    "client-document-unreachable",
    "client-keys-unreachable",
    "issuer-keys-unreachable",
    # What a logout token is verified with cannot be had, whatever is wrong with it.
    "provider-configuration-refused",
    "provider-keys-refused",
    "provider-unreachable",
    "provider-unavailable",
}
# Bytes of one event, with everything that is in it.
MAXIMUM_EVENT = 20_000
COOKIES = re.compile(r"__Host-authserver-(session|device|request-[A-Za-z0-9_-]{22})")
log = logging.getLogger("authserver")


def error_codes(kind: type[OAuthError] = OAuthError) -> Iterator[str]:
    """The codes of all errors that there are, those of features too."""
    for below in kind.__subclasses__():
        if isinstance(code := below.__dict__.get("code"), str):
            yield code
        yield from error_codes(below)


@dataclass(frozen=True, slots=True)
class Known:
    """A value that the world has under this name, with a word before it."""

    name: str
    before: str = ""


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that stand in a query or a form as they are, without being encoded."""

    text: bytes


Value = str | Known | Raw
Pair = tuple[Value, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One request. `later` is how many seconds after everything else it is sent; values in `json` may be `Known`.

    `published` are members of the document of the client `drawn` while it is answered.
    """

    method: str
    path: str
    query: tuple[Pair, ...] = ()
    form: tuple[Pair, ...] | None = None
    json: Mapping[str, Any] | None = None
    body: bytes | None = None
    headers: tuple[tuple[str, Value], ...] = ()
    later: float = 0
    published: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Written:
    """What a request has committed: how often which act happened to which table, and the new events."""

    acts: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    grants: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def reasons(self) -> set[str]:
        return {event["reason"] for event in self.events}


class Log(logging.Handler):
    """Everything that was logged, with the tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class World:
    """The server, and everything that has a name.

    Args:
        path: of a migrated SQLite file of its own.
        folder: for the keys of the trusted issuer of assertions.
        settings: INI keys that are different.
        plugins: that are listed besides.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        settings: Mapping[str, str | None] | None = None,
        plugins: str = "",
    ) -> None:
        self.known: dict[str, str] = {}
        self.clients: dict[str, Client] = {}
        self.secrets: dict[str, str | None] = {}
        self.users: dict[str, str] = {}
        # How often each error was answered that the OpenAPI document names.
        self.told: Counter[tuple[str, str, int, str]] = Counter()
        self.reached: Counter[str] = Counter()
        # How an address begins at which a provider asks people, and what each attempt there is to come back with.
        self.elsewhere = f"{ISSUER}/"
        self.nonces: dict[str, str] = {}
        # How many events there were for refusals that were counted, and of how many refusals they told.
        self.counted: Counter[str] = Counter()
        self.last = Written()
        self._counting_since = time.monotonic()
        self.keys = {name: ECKey.generate_key("P-256") for name in ("one", "other", "issuer")}
        key_file = folder / "issuer.json"
        key_file.write_text(json.dumps(KeySet([self.keys["issuer"]]).as_dict(private=False)))
        # Its certificate is of now, before the clock is moved.
        self.documents = Documents(folder)
        self.signing = {**self.documents.keys, **{name: Key(kid=name) for name in ("signer", *WITHOUT_KEYS)}}
        self.signing["fetching"] = self.signing["remote"]
        # Those who vouch for people, and for programs, each by its name.
        self.company = Issuer("https://idp.example", typ=ID_JAG_TYPE, claims=OF_COMPANY)
        self.platform = Issuer("https://platform.example", claims={"sub": "job", "repository_id": "74"})
        self.issuers = {
            name: Issuer(f"https://{name}.example", typ=ID_JAG_TYPE, key=self.company.key, claims=OF_COMPANY)
            for name in ("strict", "open", "shut", "strange", "unreachable", "broken")
        }
        self._clock = time_machine.travel(datetime(2026, 6, 1, 12, tzinfo=UTC), tick=False)
        self.clock = self._clock.start()
        self.began = datetime.now(UTC)
        self.log = Log()
        self._level = log.level
        logging.getLogger().addHandler(self.log)
        log.addHandler(self.log)
        log.setLevel(logging.INFO)
        # pytest would keep every line.
        log.propagate = False
        self.server = Server(f"sqlite:///{path}", {**_settings(key_file, plugins), **(settings or {})})
        self.forget_documents()
        # Those of features are there when the features are loaded.
        # And those that a policy chooses for itself (hook `authentication_decision`).
        self.codes = frozenset(error_codes()) | {UNMET, LOGIN_REQUIRED, "consent_required"}
        self.routes: dict[str, Route] = dict(self.server.wsgi.registry.paths)
        self.documented = _documented(document(self.server.wsgi.registry))
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.row_factory = sqlite3.Row
        self._fill()
        self.forget_documents()
        self._watch()
        self.snapshot = sqlite3.connect(":memory:")
        self.database.backup(self.snapshot)
        self._last = self._seen()
        self._hidden = self._never_shown()
        self.log.lines.clear()

    def close(self) -> None:
        self.server.close()
        self.documents.close()
        self.database.close()
        self.snapshot.close()
        self._clock.stop()
        logging.getLogger().removeHandler(self.log)
        log.removeHandler(self.log)
        log.setLevel(self._level)
        log.propagate = True

    # ---- what there is --------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Clients of each kind, people of each kind, and what was issued to them in each state."""
        identified = {"scopes": ("profile", "files.read", "openid", "email")}
        for name, metadata in {
            "web": {
                "redirect_uris": (REDIRECT_URI, SECOND_URI),
                "grant_types": ("authorization_code", "refresh_token", EXCHANGE),
            },
            "post": {"token_endpoint_auth_method": "client_secret_post"},
            "native": {
                "token_endpoint_auth_method": "none",
                "redirect_uris": (LOOPBACK, SCHEME),
                "application_type": "native",
            },
            "first": {"scopes": ("profile", "files.read", "files.write", "admin", "openid")},
            "openly": {**identified, "details": {"post_logout_redirect_uris": [AFTERWARDS]}},
            "pairwise": {**identified, "details": {"subject_type": "pairwise"}},
            UNKNOWING: {
                **identified,
                "redirect_uris": (REDIRECT_URI, "https://other.example/cb"),
                "details": {"subject_type": "pairwise"},
            },
            "service": {"grant_types": ("client_credentials",)},
            "api": {"grant_types": ("client_credentials", "refresh_token", EXCHANGE)},
            "next": {"grant_types": ("client_credentials", EXCHANGE)},
            "agent": {"grant_types": (ASSERTIONS, EXCHANGE)},
            "reports": {"grant_types": (ASSERTIONS,), "token_endpoint_auth_method": "none"},
            "tv": {"grant_types": (DEVICE, "refresh_token"), "token_endpoint_auth_method": "none"},
            "printer": {"grant_types": (DEVICE,)},
            "bound": {"details": {"dpop_bound_access_tokens": True}, "token_endpoint_auth_method": "none"},
            "pushing": {"details": {"require_pushed_authorization_requests": True}},
            "vouched": {"grant_types": (ASSERTIONS,)},
            "gone": {},
            "scopeless": {"scopes": ("admin",)},
            "narrow": {},
            "moved": {},
            "former": {},
            "signer": {"details": {"jwks": self.signing["signer"].jwks()}},
            "fetching": {"details": {"jwks_uri": self.documents.url("remote-keys")}},
            "unkeyed": {"details": {"jwks": self.signing["unkeyed"].jwks()}},
            "lost": {"details": {"jwks_uri": self.documents.url("private-keys")}},
            "offline": {"details": {"jwks_uri": self.documents.url("failing")}},
        }.items():
            if name in (*SIGNERS, *WITHOUT_KEYS):
                metadata |= {"token_endpoint_auth_method": METHOD}
            self._add(name, *self.server.add_client(client_id=name, first_party=name == "first", **metadata))
        for name in ACCEPTED:
            with self.server.begin() as engine:
                client = engine.find_client(self.documents.url(name))
            assert client is not None
            self._add(name, client, None)
        for name in (*REFUSED, *ODD):
            self.known[f"id of {name}"] = self.documents.url(name)
        for name in SECTORS:
            self.known[f"address of {name}"] = self.documents.url(name)
        for name, host in {
            "blocked": "blocked.example",
            "foreign": "other.invalid",
            "gone-host": "app.example",
        }.items():
            self.known[f"id of {name}"] = f"https://{host}/client.json"
        for name in ("ann", "bob", "carl", "dora"):
            self.users[name] = self.server.add_user(name).user_id
        browsers = {name: self.server.browser() for name in (*self.users, "nobody")}
        for name in self.users:
            assert self.server.sign_in(browsers[name], name).status_int == 303
        self._register()
        self._hand_out()
        for name in (
            *("web", "post", "native", "first", "bound", "stranger", "gone", "moved"),
            *("signer", "fetching", "document", "keyed", "remote", "changed", *KNOWING),
        ):
            self._let_in(name, browsers["ann"])
        self._let_in("web", browsers["bob"], "bob of web")
        self._let_in("web", browsers["dora"], "dora of web")
        self._let_in("openly", browsers["bob"], "bob of openly")
        # A confidential client of OpenID Connect need not prove its codes, if it sends a nonce.
        unproven = {"code_challenge": None, "code_challenge_method": None, "nonce": "n", "scope": "openid"}
        self.known["unproven code of openly"] = self.server.code(
            self.clients["openly"], browsers["ann"], **unproven
        )
        self._spend()
        self._trust()
        self._connect(browsers["ann"])
        self._derive()
        for name in ("web", "native", "stranger", "pushing", "signer", "document", "keyed", "changed"):
            self._push(name)
        self.documents.publish("changed", redirect_uris=[REDIRECT_URI, OTHER_URI])
        answered = self._begin("answered", browsers["ann"])
        assert self.server.consent(answered).status_int == 303
        for name in ("ann", "bob", "nobody"):
            self._begin(name, browsers[name])
        with self.server.begin() as engine:
            disable_user(engine, "dora")
            engine.stores.clients.disable("gone", engine.now)
        # As operators do; and carl signs in without a password from now on.
        for change in (
            "redirect_uris = 'https://new.example/cb' WHERE client_id = 'moved'",
            f"resources = '{RESOURCE}' WHERE client_id = 'narrow'",
            "details = '{}' WHERE client_id = 'unkeyed'",
            "grant_types = 'client_credentials', response_types = '' WHERE client_id = 'former'",
        ):
            self.database.execute(f"UPDATE clients SET {change}")
        self.database.execute("UPDATE users SET password_hash = NULL WHERE username = 'carl'")
        for name, browser in browsers.items():
            self.known[f"cookies of {name}"] = "; ".join(f"{k}={v}" for k, v in browser.cookies.items())
            if name != "nobody":
                for route in self.server.wsgi.registry.routes.values():
                    self.known[f"token of {name} for {route.name}"] = form_token(
                        self.server, browser, route.name
                    )
        self.known["session"] = self.known["cookies of ann"].partition("session=")[2].partition(";")[0]
        own = next(row for row in self.server.rows("grants") if row["client_id"] == "post")
        self.known["grant of ann"] = own["grant_id"]
        page = browsers["ann"].get(self.server.path("/account/sessions"))
        self.known["handle of a session"] = re.findall(r'name="session" value="([^"]+)"', page.text)[0]
        self._sign()

    def _add(self, name: str, client: Client, secret: str | None) -> None:
        self.clients[name], self.secrets[name] = client, secret
        self.known[f"id of {name}"] = client.client_id
        if secret is not None:
            self.known[f"secret of {name}"] = secret
            self.known[f"basic of {name}"] = basic(client.client_id, secret)

    def _register(self) -> None:
        """A public client and a confidential one that registered themselves, and one that an operator edits."""
        for name, method in (("stranger", "none"), ("newcomer", "client_secret_basic"), ("edited", "none")):
            self._register_one(name, method, INITIAL_TOKEN)

    def _register_one(self, name: str, method: str, token: str) -> None:
        answer = self.server.http.post_json(
            "/oauth/register",
            {"client_name": name, "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": method,
             "grant_types": ["authorization_code", "refresh_token"], "scope": "profile files.read"},
            headers={"Authorization": f"Bearer {token}"},
        ).json  # fmt: skip
        with self.server.begin() as engine:
            client = engine.stores.clients.find(answer["client_id"], engine.now)
        assert client is not None
        self._add(name, client, answer.get("client_secret"))
        self.known[f"registration token of {name}"] = answer["registration_access_token"]

    def _hand_out(self) -> None:
        """Initial access tokens: each says in its name how it stands with it."""
        with self.server.begin() as engine:
            for words, policy, uses, lasts in (
                ("for partners", "partners", None, 1),
                ("of a full policy", "full", None, 1),
                ("of an unknown policy", "forgotten", None, 1),
                ("that is used up", "full", 1, 1),
                ("that has expired", "partners", None, -1),
                ("that is revoked", "partners", None, 1),
            ):
                token, text = initial_tokens.make(
                    engine, policy="full", uses=uses, expires_at=engine.now + timedelta(days=lasts), note=""
                )
                # One is of a policy that was there when it was made.
                assert engine.stores.initial_tokens.change(token, replace(token, policy=policy))
                self.known[f"initial token {words}"] = text
            assert initial_tokens.revoke(engine, token.token_id)
        self._register_one("filler", "none", self.known["initial token that is used up"])
        with self.server.begin() as engine:
            edit(engine, self.clients["edited"].client_id, ClientEdit(name="Edited"))

    def _let_in(self, name: str, browser: TestApp, words: str | None = None) -> None:
        """Tokens of somebody, and codes that wait to be redeemed."""
        client, words = self.clients[name], words or name
        changes = {"scope": "openid profile" if name in KNOWING else "profile files.read", "state": "s"}
        headers = {}
        if name == "bound":
            headers["DPoP"] = self.known["proof of before"] = self.proof()
        code = self.server.code(client, browser, **changes)
        answer = self.server.redeem(client, self.secrets[name], code, headers=headers, **self.signed(name))
        assert answer.status_int == 200, answer.text
        self.known[f"used code of {words}"] = code
        self.known[f"refresh token of {words}"] = answer.json["refresh_token"]
        self.known[f"access token of {words}"] = answer.json["access_token"]
        if "id_token" in answer.json:
            self.known[f"id token of {words}"] = answer.json["id_token"]
        self.known[f"code of {words}"] = self.server.code(client, browser, **changes)

    def signed(self, name: str) -> dict[str, str]:
        """With what a client that has a key authenticates: a new assertion each time."""
        if name not in SIGNERS:
            return {}
        assertion = self.signing[name].assertion(self.clients[name])
        self.known[f"client assertion of before of {name}"] = assertion
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}

    def _spend(self) -> None:
        """A refresh token that was used, and one whose grant has ended."""
        client, secret = self.clients["web"], self.secrets["web"]
        browser = self.server.browser()
        self.server.sign_in(browser)
        for words in ("used", "ended"):
            code = self.server.code(client, browser, scope="profile")
            token = self.server.redeem(client, secret, code).json["refresh_token"]
            answer = self.server.refresh(client, secret, token)
            self.known[f"refresh token of {words}"] = (
                token if words == "used" else answer.json["refresh_token"]
            )
            self.known[f"access token of {words}"] = answer.json["access_token"]
        self.server.revoke(client, secret, self.known["refresh token of ended"])
        self.known["code of ended"] = self.server.code(client, browser)
        self.known["burnt code of web"] = self.server.code(client, browser)
        for _ in range(MAXIMUM_FAILURES):
            self.server.redeem(client, secret, self.known["burnt code of web"], code_verifier="x" * 43)
        vouched = self.known["assertion of before"] = self.assertion()
        answer = self.server.token(
            self.clients["vouched"], self.secrets["vouched"], grant_type=ASSERTIONS, assertion=vouched
        )
        assert answer.status_int == 200, answer.text
        service, its_secret = self.clients["service"], self.secrets["service"]
        answer = self.server.token(service, its_secret, grant_type="client_credentials")
        self.known["access token of service"] = answer.json["access_token"]

    def _trust(self) -> None:
        """Issuers of assertions: right ones, and one for each thing that may be wrong with one."""
        company = {
            "clients": ("agent", "first"),
            "resources": (RESOURCE, FILES),
            "scopes": ("profile", "files.read"),
        }
        self.company.trust(self.server, "mcp", options={"usernames": True}, **company)
        strict = {"usernames": True, "levels": ["gold"], "maximum_age": 60, "tenants": ["us"]}
        self.issuers["strict"].trust(self.server, "draft", options=strict)
        self.issuers["open"].trust(
            self.server, "draft", options={"create_users": True}, default_resource=RESOURCE
        )
        for name in ("shut", "strange"):
            self.issuers[name].trust(self.server, "draft", options={"usernames": True})
        for name, published in {"unreachable": "failing", "broken": "private-keys"}.items():
            uri = self.documents.url(published)
            self.issuers[name].trust(self.server, "draft", options={"usernames": True}, jwks_uri=uri)
        rules = [
            {"name": name, "client": client, "claims": {"repository_id": number}, "resources": [RESOURCE],
             "scopes": ["profile", "files.read"]}
            for name, client, number in (
                ("job", "reports", "74"), ("twin", "reports", "75"), ("other-twin", "vouched", "75"),
                ("of-nobody", "nobody", "76"), ("of-a-stranger", self.clients["stranger"].client_id, "77"),
            )
        ]  # fmt: skip
        self.platform.trust(self.server, "workload_identity", options={"rules": rules})
        # Its plugin was taken away since.
        change = "value = replace(value, '\"draft\"', '\"forgotten\"')"
        self.database.execute(
            f"UPDATE stored_settings SET {change} WHERE name = ?", (self.issuers["strange"].name,)
        )

    def _connect(self, browser: TestApp) -> None:
        """Requests of devices, in each state."""
        for name in ("tv", "printer"):
            for state in ("", "seen ", "approved ", "used ", "denied "):
                self._connect_one(name, state, browser)

    def _connect_one(self, name: str, state: str, browser: TestApp) -> None:
        client, secret = self.clients[name], self.secrets[name]
        told = self.server.ask("/oauth/device_authorization", client, secret, scope="profile files.read").json
        words = f"{state}device code of {name}"
        self.known[words], self.known[f"{state}user code of {name}"] = told["device_code"], told["user_code"]
        if not state:
            return
        form = form_with(browser.get("/device"), "user_code")
        form["user_code"] = told["user_code"]
        page = form.submit()
        if state == "seen ":
            return
        form = form_with(page, "scope")
        done = form.submit("answer", value="deny" if state == "denied " else "allow")
        assert done.status_int == 200, done.text
        if state == "used ":
            answer = self.server.token(client, secret, grant_type=DEVICE, device_code=told["device_code"])
            assert answer.status_int == 200, answer.text
            self.known[f"access token of {name}"] = answer.json["access_token"]
            if "refresh_token" in answer.json:
                self.known[f"refresh token of {name}"] = answer.json["refresh_token"]

    def _derive(self) -> None:
        """Tokens that come from others, directly or through another, and some whose origin has ended."""
        for words, client, source in (
            ("api", "api", "access token of web"),
            ("next", "next", "access token of api"),
            ("the end of a chain", "api", "access token of next"),
            ("an orphan", "api", "access token of dora of web"),
        ):
            answer = self.exchanged(client, self.known[source])
            assert answer.status_int == 200, answer.text
            self.known[f"access token of {words}"] = answer.json["access_token"]
            if "refresh_token" in answer.json:
                self.known[f"refresh token of {words}"] = answer.json["refresh_token"]
        for words, client, assertion in (
            ("agent", "agent", self.company.assertion()),
            ("a guest", "agent", self.issuers["open"].assertion(sub="guest")),
            ("the shut", "agent", self.issuers["shut"].assertion()),
            ("reports", "reports", self.platform.assertion()),
        ):
            sent = {"grant_type": ASSERTIONS, "assertion": assertion, "resource": RESOURCE}
            answer = self.server.token(self.clients[client], self.secrets[client], **sent)
            assert answer.status_int == 200, answer.text
            self.known[f"access token of {words}"] = answer.json["access_token"]
        # The grants that came of it are still there, as for an operator who was interrupted.
        self.issuers["shut"].disable(self.server, at_once=True)
        for name in ("api", "next"):
            answer = self.server.token(
                self.clients[name], self.secrets[name], grant_type="client_credentials"
            )
            self.known[f"own access token of {name}"] = answer.json["access_token"]

    def exchanged(self, name: str, token: str, **form: Any) -> TestResponse:
        """The answer to this client, which exchanges a token."""
        sent = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN, **form}
        return self.server.token(self.clients[name], self.secrets[name], **sent)

    def _push(self, name: str) -> None:
        client, secret = self.clients[name], self.secrets[name]
        form = {"client_id": client.client_id, "response_type": "code", "redirect_uri": client.redirect_uris[0], "scope": "profile",
                "code_challenge": CHALLENGE, "code_challenge_method": "S256", **self.signed(name)}  # fmt: skip
        answer = self.server.post(
            "/oauth/par", urlencode(form), authorization=basic(client.client_id, secret) if secret else None
        )
        assert answer.status_int == 201, answer.text
        self.known[f"request of {name}"] = answer.json["request_uri"]

    def _begin(self, name: str, browser: TestApp) -> TestResponse:
        """A request that waits on a page: for consent of who is signed in, else for a sign-in."""
        client = self.clients["newcomer"]
        answer = browser.get(self.server.authorization_url(client, scope="profile files.read"))
        if answer.status_int == 303:
            answer = answer.follow()
        form = form_with(answer, "csrf_token") if name == "nobody" else form_with(answer, "scope")
        self.known[f"sealed request of {name}"] = form["request"].value
        self.known[f"form token of {name}"] = form["csrf_token"].value
        return answer

    def _sign(self) -> None:
        """Proofs and assertions, each correct but for what its name says."""
        for name, changes in {
            "": {},
            "of a pushed request": {"htu": f"{ISSUER}/oauth/par"},
            "with another url": {"htu": "https://evil.example/"},
            "with another method": {"htm": "GET"},
            "of a resource": {"htu": f"{ISSUER}/oauth/userinfo", "htm": "GET"},
            "of yesterday": {"iat": int(time.time()) - 86_400},
            "without id": {"jti": None},
        }.items():
            self.known[f"proof {name}".strip()] = self.proof(**changes)
        self.known["proof of another key"] = self.proof("other")
        self.known["proof with a wrong signature"] = self.proof(signed_by="other")
        self.known["proof of another type"] = self.proof(header={"typ": "JWT"})
        self.known["proof of another algorithm"] = self.proof(header={"alg": "none"})
        self.known["proof without key"] = self.proof(header={"jwk": None})
        # Of a right form, and of nothing that there is.
        self.known["basic with a wrong secret"] = basic("web", forged("as_secret_"))
        self.known["thumbprint"] = self.keys["one"].thumbprint()
        now = int(time.time())
        for name, changes in {
            "": {},
            "of a stranger": {"iss": "https://stranger.example"},
            "for another": {"aud": "https://other.example"},
            "about nobody": {"sub": "nobody"},
            "about dora": {"sub": "dora"},
            "without subject": {"sub": None},
            "without id": {"jti": None},
            "without end": {"exp": None},
            "that has ended": {"exp": now - 100},
            "that lives too long": {"exp": now + 100_000},
            "of tomorrow": {"iat": now + 3_000, "nbf": now + 3_000, "exp": now + 3_100},
        }.items():
            self.known[f"assertion {name}".strip()] = self.assertion(**changes)
        for name, claims in {
            "": {"client_name": "Vouched for"},
            "of a stranger": {"iss": "https://stranger.example", "client_name": "Stranger"},
            "for another": {"aud": "https://other.example", "client_name": "Other"},
            "without a word": {},
            "that asks for more": {"scope": "admin", "redirect_uris": ["https://evil.example/cb"]},
            "that has ended": {"exp": now - 100, "client_name": "Late"},
        }.items():
            self.known[f"statement {name}".strip()] = self.statement(**claims)
        self.known["statement with a wrong signature"] = self.statement(signed_by="one", client_name="Forged")
        self.known["assertion with a wrong signature"] = self.assertion(signed_by="one")
        self.known["assertion of an unknown key"] = self.assertion(header={"kid": "unknown"})
        self.known["assertion of another type"] = self.assertion(header={"typ": "at+jwt"})
        self.known["assertion of another algorithm"] = self.assertion(header={"alg": "RS256"})
        self.known["assertion with extensions"] = self.assertion(header={"crit": ["b64"]})

        self._vouch()
        self._sign_for_clients()

    def _vouch(self) -> None:
        """Assertions about people for their agents, and about programs, each correct but for what its name says."""
        now, company, platform = int(time.time()), self.company, self.platform
        for name, changes in {
            "": {},
            "of another client": {"client_id": "web"},
            "without client": {"client_id": ABSENT},
            "without a resource": {"resource": ABSENT},
            "for an unknown resource": {"resource": "https://evil.example/"},
            "for two resources": {"resource": [RESOURCE, FILES]},
            "for no resource": {"resource": []},
            "with an unknown scope": {"scope": "unknown"},
            "with another scope": {"scope": "files.write"},
            "of a tenant": {"tenant": "eu"},
            "with details": {"authorization_details": [{"type": "x"}]},
            "with a key": {"cnf": {"jkt": self.known["thumbprint"]}},
            "with another key": {"cnf": {"jkt": self.keys["other"].thumbprint()}},
            "with an odd key": {"cnf": []},
            "about dora": {"sub": "dora"},
            "about nobody": {"sub": "nobody"},
            "that has ended": {"exp": now - 100},
            "of the other server": {"aud": OUTSIDE},
        }.items():
            self.known[f"identity assertion {name}".strip()] = company.assertion(**changes)
        for typ in ("JWT", "at+jwt", "logout+jwt"):
            self.known[f"identity assertion of type {typ}"] = company.assertion(header={"typ": typ})
        self.known["identity assertion of our own"] = self.server.application.parts.signer.sign(
            {**company.claims(), "iss": ISSUER}, typ=ID_JAG_TYPE
        )
        signed_in = {"acr": "gold", "auth_time": now - 10, "tenant": "us"}
        for name, changes in {
            "": {},
            "signed in long ago": {"auth_time": now - 100},
            "signed in weakly": {"acr": "lead"},
            "signed in some time": {"auth_time": "x"},
        }.items():
            claims = {**signed_in, **changes}
            self.known[f"strict identity assertion {name}".strip()] = self.issuers["strict"].assertion(
                **claims
            )
        for name, issuer in self.issuers.items():
            if name != "strict":
                self.known[f"identity assertion of the {name}"] = issuer.assertion(sub="guest")
        for name, changes in {
            "": {},
            "of an unknown one": {"repository_id": "1"},
            "of two rules": {"repository_id": "75"},
            "of the client of nobody": {"repository_id": "76"},
            "of the client of a stranger": {"repository_id": "77"},
            "that has just ended": {"exp": now - 5},
            "of yesterday": {"exp": now - 90_000, "iat": now - 90_100},
            "for another": {"aud": OUTSIDE},
        }.items():
            self.known[f"workload assertion {name}".strip()] = platform.assertion(**changes)
        self.known["assertion of an actor"] = self.assertion(act={"sub": "web"})
        self.known["assertion for the actor api"] = self.assertion(may_act={"sub": "api"})
        self.known["assertion for an odd actor"] = self.assertion(may_act="api")

    def _sign_for_clients(self) -> None:
        """Assertions with which clients authenticate."""
        for name in (*SIGNERS, *WITHOUT_KEYS):
            self.known[f"client assertion of {name}"] = self.signing[name].assertion(self.clients[name])
        key, now = self.signing["signer"], int(time.time())
        for name, changes in {
            "of another": {"iss": "web"},
            "about another": {"sub": "web"},
            "about nobody": {"sub": ABSENT},
            "for an endpoint": {"aud": f"{ISSUER}/oauth/token"},
            "for two": {"aud": [ISSUER, "https://other.example"]},
            "without id": {"jti": ABSENT},
            "without end": {"exp": ABSENT},
            "that has ended": {"exp": now - 100},
            "that lives too long": {"exp": now + 100_000},
            "of tomorrow": {"iat": now + 3_000, "exp": now + 3_100},
        }.items():
            self.known[f"client assertion {name}"] = key.assertion("signer", **changes)
        for name, header in {
            "of an unknown key": {"kid": "unknown"},
            "of another type": {"typ": "at+jwt"},
            "of another algorithm": {"alg": "RS256"},
            "with extensions": {"crit": ["b64"]},
            "with a key": {"jwk": key.jwk()},
        }.items():
            self.known[f"client assertion {name}"] = key.signed(key.header(**header), key.claims("signer"))
        another = Key(kid="signer")
        self.known["client assertion with a wrong signature"] = another.assertion("signer")

    def proof(
        self,
        key: str = "one",
        *,
        signed_by: str | None = None,
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A DPoP proof; None removes a member."""
        public = self.keys[key].as_dict(private=False)
        public = {name: public[name] for name in ("kty", "crv", "x", "y")}
        head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": public, **(header or {})}
        body = {"htm": "POST", "htu": f"{ISSUER}/oauth/token", "iat": int(time.time()),
                "jti": f"proof {len(self.known)}", **claims}  # fmt: skip
        return _jws(head, body, self.keys[signed_by or key])

    def assertion(
        self, *, signed_by: str = "issuer", header: Mapping[str, Any] | None = None, **claims: Any
    ) -> str:
        """An assertion about ann; None removes a member."""
        now = int(time.time())
        head = {"alg": "ES256", "kid": self.keys["issuer"].kid, **(header or {})}
        body = {"iss": TRUSTED, "sub": "ann", "aud": ISSUER, "exp": now + 120, "iat": now,
                "jti": f"assertion {len(self.known)}", **claims}  # fmt: skip
        return _jws(head, body, self.keys[signed_by])

    def statement(self, *, signed_by: str = "issuer", **claims: Any) -> str:
        """A software statement."""
        head = {"alg": "ES256", "kid": self.keys["issuer"].kid}
        return _jws(head, {"iss": TRUSTED, **claims}, self.keys[signed_by])

    def _never_shown(self) -> tuple[str, ...]:
        """What no answer, no line of the log and no event may hold."""
        kinds = (
            "secret of", "code of", "used code of", "refresh token of", "access token of", "basic of",
            "registration token of", "client assertion of", "initial token", "device code of", "used device code of",
            "approved device code of",
        )  # fmt: skip
        held = [value for name, value in self.known.items() if name.startswith(kinds)]
        held += [cookie for name, cookie in self.known.items() if name.startswith("cookies of ")]
        hashes = [row["password_hash"] for row in self.server.rows("users") if row["password_hash"]]
        ring = self.server.ini["authserver.secret_keys"].partition(":")[2]
        urls = [self.server.ini["authserver.database_url"]]
        return (PASSWORD, INITIAL_TOKEN, FIGURES_TOKEN, ring, self.known["session"], *urls, *hashes, *held)

    # ---- sending --------------------------------------------------------------------------------------

    def text(self, value: Value) -> str:
        """What a value stands for."""
        match value:
            case Known(name=name, before=before):
                return before + self.known[name]
            case Raw(text=text):
                return text.decode("latin-1")
            case str():
                return value

    def send(self, message: Message) -> Response:
        """Send a message, check the answer and what was written, and put everything back."""
        self.clock.move_to(self.began + timedelta(seconds=message.later))
        if message.published is not None:
            members = json.loads(json.dumps(message.published, default=self.text))
            self.documents.publish("drawn", **members)
        try:
            return self._send(message)
        finally:
            self.clock.move_to(self.began)
            if any(self.server.application.parts.fetcher.outcomes().values()):
                self.forget_documents()
            if message.published is not None:
                self.documents.publish("drawn")

    def forget_documents(self) -> None:
        """Nothing was fetched, and no host has failed."""
        application = self.server.application
        parts = replace(application.parts, fetcher=self.documents.fetcher())
        # A server keeps its parts for good.
        object.__setattr__(application, "parts", parts)

    def _send(self, message: Message) -> Response:
        environ = {**Request.blank("/", base_url=ISSUER).environ, "REMOTE_ADDR": "192.0.2.1"}
        environ["REQUEST_METHOD"] = message.method
        environ["PATH_INFO"] = message.path
        environ["QUERY_STRING"] = self.encoded(message.query)
        request = Request(environ)
        if message.form is not None:
            environ["CONTENT_TYPE"] = FORM
            request.body = self.encoded(message.form).encode("latin-1")
        elif message.json is not None:
            request.body = json.dumps(message.json, default=self.text).encode()
        elif message.body is not None:
            request.body = message.body
        for name, value in message.headers:
            key = name.upper().replace("-", "_")
            text = self.text(value).encode("utf-8", "surrogatepass").decode("latin-1")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = text
        return self.exchange(request)

    def exchange(self, request: Request) -> Response:
        """Send a request as it is, check the answer and what was written, and put everything back."""
        try:
            answer = self._answered(request)
        finally:
            self.log.lines.clear()
            self.put_back(self.last)
        return answer

    def _answered(self, request: Request) -> Response:
        """The answer to a request. It and what was written are checked."""
        if time.monotonic() - self._counting_since > COUNTED_FOR:
            self.end_minute()
        sent = f"{request.environ['QUERY_STRING']} {request.body.decode('latin-1')}"
        # The token with which a registration is read is part of the answer (RFC 7592, 3).
        sent = f"{sent} {unquote_plus(sent)} {request.environ.get('HTTP_AUTHORIZATION', '')}"
        answer = request.get_response(self.server.wsgi)
        self.last = self.written()
        if answer.status_int == 503:
            # Somebody else's server failed, and the client is told when to try again (F-14).
            assert self.last.reasons <= UNREACHABLE, self.last.reasons
            assert int(answer.headers["Retry-After"]) > 0
        else:
            assert answer.status_int < 500, (answer.status, self.log.lines)
        self.assert_sound(request, answer, sent, self.last)
        self.assert_stored(answer, self.last)
        if request.environ["PATH_INFO"] == "/oauth/token" and answer.status_int == 200:
            self._assert_issued(json.loads(answer.body))
        return answer

    def end_minute(self) -> None:
        """What was counted is stored, as after each minute: bounded events, and nothing else."""
        self._counting_since = time.monotonic()
        self.server.application.floods.store(everything=True)
        written = self.written()
        assert written.acts.keys() <= {("events", "INSERT")}, written.acts
        self._assert_bounded(written.events)
        for event in written.events:
            more = json.loads(event["details"]).get("more", {})
            assert more.get("count", 1) >= 1
            self.counted["events"] += 1
            self.counted["refusals"] += 1 + more.get("count", 0)

    def checked(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The server as an application whose answers are checked, for clients that keep what was changed."""
        # Or WebOb keeps a long body in a file, which it leaves open.
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ |= {"wsgi.input": io.BytesIO(body), "webob.is_body_seekable": True}
        answer = self._answered(Request(environ))
        self.log.lines.clear()
        return answer(environ, start_response)

    def tried(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The same, and what was changed is put back."""
        try:
            return self.checked(environ, start_response)
        finally:
            self.put_everything_back()

    def api(self) -> TestApp:
        """A client whose answers are checked."""
        environ = {"HTTP_HOST": HOST, "wsgi.url_scheme": "https", "REMOTE_ADDR": "192.0.2.1"}
        return TestApp(self.checked, extra_environ=environ)

    def encoded(self, pairs: tuple[Pair, ...]) -> str:
        return "&".join(f"{self._part(name)}={self._part(value)}" for name, value in pairs)

    def _part(self, value: Value) -> str:
        if isinstance(value, Raw):
            return value.text.decode("latin-1")
        return _quoted(self.text(value))

    def put_back(self, written: Written) -> None:
        """Everything is as it was, but for the events, which nothing here reads again."""
        if written.acts.keys() - {("events", "INSERT")}:
            self.put_everything_back()

    def keep(self) -> None:
        """What is there now is what everything is put back to."""
        self.database.backup(self.snapshot)
        self._last = self._seen()
        self._hidden = self._never_shown()

    def put_everything_back(self) -> None:
        """The database is as it was made."""
        self.snapshot.backup(self.database)
        self._last = self._seen()
        self.log.lines.clear()

    # ---- what must be true ----------------------------------------------------------------------------

    def assert_sound(self, request: Request, answer: Response, sent: str, written: Written) -> None:
        """No failure, no traceback, no secret; what every answer has; and it leads nowhere else."""
        logged = "\n".join(self.log.lines)
        assert "Traceback" not in logged, logged
        assert not [line for line in self.log.lines if line.startswith(("ERROR", "CRITICAL"))], logged
        headers = "\n".join(f"{name}: {value}" for name, value in answer.headerlist)
        shown = answer.body.decode("utf-8", "replace") + headers
        assert "Traceback" not in shown
        # What each setting means is said there.
        if request.environ["PATH_INFO"] != "/admin/settings":
            assert "authserver/" not in shown
            assert "sqlalchemy" not in shown.lower()
        for secret in self._hidden:
            assert secret not in logged
            # What a client sends as its state comes back to it.
            assert secret not in shown or secret in sent, secret
        assert all(text.isprintable() for name_and_value in answer.headerlist for text in name_and_value)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "evil.example" not in headers or "evil.example" in sent
        if answer.content_type == "text/html":
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
        for cookie in answer.headers.getall("Set-Cookie"):
            name, *flags = re.split("[=;] ?", cookie)
            assert COOKIES.fullmatch(name), cookie
            assert {"HttpOnly", "secure", "Path", "SameSite", "Lax"} <= {*flags}, cookie
            assert "Domain" not in flags
        self._assert_form_of(request, answer)
        self._assert_target(request.environ["PATH_INFO"], answer, written)

    def _assert_form_of(self, request: Request, answer: Response) -> None:
        """An endpoint that clients call answers JSON, with an error code that there is."""
        route = self.routes.get(request.environ["PATH_INFO"])
        is_json = answer.content_type == "application/json"
        if route is not None and route.medium is Medium.JSON and answer.body:
            assert is_json or answer.content_type == "application/token-introspection+jwt", (
                answer.content_type
            )
        if is_json and answer.body:
            body = json.loads(answer.body)
            if answer.status_int >= 400:
                assert answer.headers["Cache-Control"] == "no-store"
                assert body["error"] in self.codes, body
                # How the person must sign in again (RFC 9470, 3).
                more = (
                    {"acr_values", "max_age"}
                    if body["error"] == "insufficient_user_authentication"
                    else set()
                )
                assert body.keys() <= {"error", "error_description", "error_id", *more}
                self.reached[f"{body['error']} {answer.status_int}"] += 1
                if body["error"] in POLLS:
                    # There is no event that says so.
                    self.reached[body["error"]] += 1
                if route is not None and route.medium is Medium.JSON and request.method in route.methods:
                    operation = (request.method, route.path, answer.status_int)
                    told = self.documented.get(operation, set())
                    assert body["error"] in told, (operation, body)
                    self.told[*operation, body["error"]] += 1
            challenged = answer.status_int == 401 or body.get("error") == "insufficient_scope"
            assert challenged == ("WWW-Authenticate" in answer.headers)

    def _assert_target(self, path: str, answer: Response, written: Written) -> None:
        """A redirect leads to a page of ours, or to a registered redirect URI with what belongs there."""
        if not 300 < answer.status_int < 400 or answer.status_int == 304:
            # What was made has an address (RFC 9110, 15.3.2).
            assert answer.location is None or answer.status_int == 201
            assert (answer.location or ISSUER).startswith(ISSUER)
            return
        # 301 is how a folder of files adds its slash.
        assert answer.status_int == 303 or answer.location.startswith(f"{ISSUER}/playground/static/")
        if answer.location.startswith((f"{ISSUER}/", self.elsewhere)):
            return
        values = dict(parse_qsl(urlsplit(answer.location).query, keep_blank_values=True))
        if path.startswith("/oauth/logout"):
            # Whoever has signed out goes where the client has registered that, with nothing but its own `state`.
            assert answer.location.partition("?")[0] == AFTERWARDS and values.keys() <= {"state"}, (
                answer.location
            )
            return
        assert values["iss"] == ISSUER
        assert ("code" in values) != ("error" in values)
        assert "error" not in values or values["error"] in self.codes
        registered = dict(self.documents.redirect_uris()) | {
            row["client_id"]: _texts(row["redirect_uris"])
            for row in self.database.execute("SELECT client_id, redirect_uris FROM clients").fetchall()
        }
        # The same answer as a moment before leads there again, and is not recorded again.
        clients = [event["client_id"] for event in written.events[-1:]] or list(registered)
        uris = [uri for client_id in clients for uri in registered.get(client_id, ())]
        assert any(_leads_to(uri, answer.location) for uri in uris), answer.location

    def _client(self, client_id: str | None) -> sqlite3.Row | None:
        return self.database.execute("SELECT * FROM clients WHERE client_id = ?", (client_id,)).fetchone()

    def assert_stored(self, answer: Response, written: Written) -> None:
        """A refusal has stored its events and nothing else; what was issued rests on a grant and a consent."""
        self._assert_bounded(written.events)
        error = "error=" in urlsplit(answer.location or "").query
        if answer.status_int >= 400 or error:
            kinds = {event["type"] for event in written.events}
            allowed = {("events", "INSERT")}.union(
                *(CONSEQUENCES.get(it, ()) for it in written.reasons | kinds)
            )
            if not written.events:
                # A page is shown again, because something is missing in its form: the session was seen.
                allowed.add(("sessions", "UPDATE"))
                if b'name="user_code"' in answer.body:
                    # And the person was shown what a device asks for, which nobody else is from then on.
                    allowed.add(("kept", "UPDATE"))
                is_json = answer.content_type == "application/json" and answer.body
                allowed |= POLLS.get(json.loads(answer.body)["error"], frozenset()) if is_json else set()
            assert written.acts.keys() <= allowed, (written.acts, written.reasons)
            # A revocation has an event of its own.
            assert written.acts["events", "INSERT"] <= 2
            assert not {kind for kind in kinds if kind.endswith((".issued", ".registered"))}, kinds
        for grant in written.grants:
            self._assert_derived(grant)
        for token in written.tokens:
            self._assert_granted(token)

    def _assert_bounded(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events:
            self.reached[event["reason"]] += 1
            for decision in json.loads(event["decisions"]):
                self.reached[decision["reason"]] += 1
            kept = repr(dict(event))
            assert len(kept) <= MAXIMUM_EVENT, len(kept)
            assert not [secret for secret in self._hidden if secret in kept], kept

    def _assert_granted(self, token: Mapping[str, Any]) -> None:
        found = self.database.execute(
            "SELECT * FROM grants WHERE grant_id = ?", (token["grant_id"],)
        ).fetchone()
        assert found is not None
        assert found["client_id"] == token["client_id"]
        # A refresh token goes on for what is left of its grant and its client, and is compared with both when it is used.
        scopes = {*_texts(token["scopes"])} if token["kind"] != "refresh" else set()
        assert scopes <= {*_texts(found["scopes"])}
        assert found["revoked_at"] is None
        client = self._client(token["client_id"])
        if client is None:
            assert token["client_id"] in self.documents.redirect_uris()
            assert scopes <= {*OF_DOCUMENTS}
        else:
            assert client["disabled_at"] is None
            assert scopes <= {*_texts(client["scopes"])}
            if found["user_id"] is None or client["first_party"] or "vouched_by" in found["details"]:
                return
        if found["parent_id"] is not None:
            # What people agreed to is the first of them.
            return
        if json.loads(found["details"]).get("grant_type") == DEVICE:
            self._assert_approved(found)
            return
        agreed = self.database.execute(
            "SELECT * FROM consents WHERE user_id = ? AND client_id = ?",
            (found["user_id"], token["client_id"]),
        ).fetchone()
        assert agreed is not None
        assert {*_texts(found["scopes"])} <= {*_texts(agreed["scopes"])}

    def _assert_approved(self, grant: Mapping[str, Any]) -> None:
        """The person of this grant has allowed a device what is in it, and nobody remembers that (DEV-13)."""
        (approved,) = self.database.execute(
            "SELECT * FROM events WHERE type = 'consent.given' AND grant_id = ?", (grant["grant_id"],)
        ).fetchall()
        assert (approved["user_id"], approved["client_id"]) == (grant["user_id"], grant["client_id"])
        assert {*_texts(grant["scopes"])} <= {*json.loads(approved["details"])["scopes"]}

    def _assert_derived(self, grant: Mapping[str, Any]) -> None:
        """T163, T164: a new grant is within what it comes from, which is live: its parents, and who vouched for it."""
        issuer = json.loads(grant["details"]).get("vouched_by")
        if issuer is not None and issuer != TRUSTED:
            (entry,) = self.database.execute(
                "SELECT value FROM stored_settings WHERE name = ?", (issuer,)
            ).fetchone()
            assert json.loads(entry)["is_enabled"]
        user = self.database.execute(
            "SELECT disabled_at FROM users WHERE user_id = ?", (grant["user_id"],)
        ).fetchone()
        assert user is None or user["disabled_at"] is None
        parent_id, child = grant["parent_id"], grant
        while parent_id is not None:
            parent = self.database.execute("SELECT * FROM grants WHERE grant_id = ?", (parent_id,)).fetchone()
            assert parent["user_id"] == child["user_id"]
            assert parent["revoked_at"] is None
            assert parent["expires_at"] >= child["expires_at"]
            owner = self._client(parent["client_id"])
            assert owner is None or owner["disabled_at"] is None
            details = json.loads(child["details"])
            if details.get("exchanged_for") != ID_JAG:
                assert {*_texts(child["scopes"])} <= {*_texts(parent["scopes"])}
                assert {*_texts(child["resources"])} <= {*_texts(parent["resources"]), *TARGETS}
                assert details.get("act", {}).get("sub") == child["client_id"]
                assert details["act"].get("act") == json.loads(parent["details"]).get("act")
            parent_id, child = parent["parent_id"], parent

    def _assert_issued(self, answer: Mapping[str, Any]) -> None:
        """A JWT says no more than its grant: its client, person, scopes, resources, end and actors."""
        if answer["token_type"] == "N_A" or "." not in answer["access_token"]:
            # One for another server, or an opaque one, which is stored.
            return
        claims = self.server.claims(answer["access_token"])
        grant = self.database.execute(
            "SELECT * FROM grants WHERE grant_id = ?", (claims["jti"].partition(".")[0],)
        ).fetchone()
        assert answer["scope"] == claims["scope"]
        if grant is None:
            # The client's own: the JWT is all that there is of it.
            assert claims["sub"] == claims["client_id"]
            assert "act" not in claims
            return
        details = json.loads(grant["details"])
        assert claims["client_id"] == grant["client_id"]
        # A client that must not compare people with other clients gets ids of its own (OpenID Connect Core, 8.1).
        assert claims["sub"] == details.get(SUBJECT, grant["user_id"])
        assert {*claims["scope"].split()} <= {*_texts(grant["scopes"])}
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        assert {*audience} <= {*_texts(grant["resources"])}
        assert datetime.fromtimestamp(claims["exp"], UTC) <= _time(grant["expires_at"])
        assert claims.get("act") == details.get("act")

    # ---- what was written -----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Let the database note each committed insert, update and delete."""
        self.database.execute("CREATE TABLE written (number INTEGER PRIMARY KEY, name, act, row)")
        for table in Base.metadata.sorted_tables:
            for act, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
                self.database.execute(
                    f"CREATE TRIGGER written_{table.name}_{act} AFTER {act} ON {table.name} BEGIN"
                    f" INSERT INTO written (name, act, row) VALUES ('{table.name}', '{act}', {row}.rowid); END"
                )

    def _seen(self) -> int:
        return self.database.execute("SELECT coalesce(max(number), 0) FROM written").fetchone()[0]

    def written(self) -> Written:
        """What was committed since this was asked last."""
        written = Written()
        rows = self.database.execute(
            "SELECT number, name, act, row FROM written WHERE number > ? ORDER BY number", (self._last,)
        ).fetchall()
        for number, name, act, row in rows:
            self._last = number
            written.acts[name, act] += 1
            for table, found in (
                ("events", written.events),
                ("grants", written.grants),
                ("tokens", written.tokens),
            ):
                if name == table and act == "INSERT":
                    found += self.database.execute(
                        f"SELECT * FROM {table} WHERE rowid = ?", (row,)
                    ).fetchall()
        return written


def _settings(key_file: Path, plugins: str) -> dict[str, str | None]:
    """Every shipped feature of clients and people, with limits that are not reached."""
    features = (
        "registration_token claims_profile authorization_expiry log_events jwt_bearer pushed_requests dpop "
        "client_management software_statements origins_listed private_key_jwt client_id_documents "
        "step_up openid token_exchange id_jag_issuer id_jag workload_identity device_grant"
    )
    limits = (
        "failed_client_authentication, client+source", "token_request, client", "token_request, grant",
        "unknown_token, client", "authorization_request, source", "request_in_advance, client",
        "sign_in, account+source", "sign_in, account+device", "registration, all", "failed_registration, source",
        "registration_change, client", "failed_grant, source", "unknown_origin, source", "failed_fetch, source",
    )  # fmt: skip
    return {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']} {features} playground metrics rate_limits {plugins}",
        # Every refusal is stored by itself, unless a test wants them counted.
        "authserver.refusals_per_minute": "100000",
        "authserver.plugin.registration_token.tokens": INITIAL_TOKEN,
        "authserver.plugin.registration_token.scopes": "profile files.read",
        "authserver.plugin.registration_token.policies": (
            "partners = scopes profile, redirect_hosts client.example, auth_methods none\nfull = clients 1"
        ),
        "authserver.plugin.metrics.tokens": FIGURES_TOKEN,
        "authserver.plugin.step_up.levels": "password = pwd\ntwo-factors = pwd+otp",
        "authserver.plugin.step_up.wished_with": "openid",
        "authserver.plugin.openid.require_pkce": "false",
        "authserver.plugin.openid.pairwise_salt": "0123456789abcdef0123456789abcdef",
        "authserver.plugin.jwt_bearer.issuers": f"{TRUSTED} = {key_file}",
        "authserver.plugin.jwt_bearer.exchanged": "true",
        "authserver.plugin.token_exchange.targets": f"api = {FILES}",
        "authserver.plugin.token_exchange.sources": "api = post next\nnext = api",
        "authserver.plugin.token_exchange.audiences": f"files = {FILES}",
        "authserver.plugin.token_exchange.named_actors": "first = next",
        "authserver.plugin.token_exchange.refreshers": "api",
        "authserver.plugin.token_exchange.maximum_actors": "3",
        "authserver.plugin.id_jag_issuer.rules": "\n".join(
            (
                f"web {OUTSIDE} = client_id=a scope=profile resource=https://notes.example/",
                "web https://strict.example = client_id=a scope=profile maximum_age=60",
                "web https://golden.example = client_id=a scope=profile level=gold",
                "web https://staff.example = client_id=a scope=profile group=staff",
                f"web https://ours.example = issuer={ISSUER} client_id=a scope=profile",
            )
        ),
        "authserver.plugin.software_statements.issuers": f"{TRUSTED} = {key_file}",
        "authserver.plugin.origins_listed.origins": LISTED,
        "authserver.plugin.client_id_documents.scopes": " ".join(OF_DOCUMENTS),
        "authserver.plugin.client_id_documents.allowed": "127.0.0.1 *.example",
        "authserver.plugin.client_id_documents.blocked": "blocked.example",
        "authserver.fetch_loopback": "true",
        "authserver.plugin.rate_limits.limits": "\n".join(
            f"limit-{number} = {limit}, 1000000, day" for number, limit in enumerate(limits)
        ),
    }


def _documented(document: Mapping[str, Any]) -> dict[tuple[str, str, int], set[str]]:
    """The codes of the errors that each endpoint may answer, by the method, its path and the status."""
    return {
        (method.upper(), path, int(status)): set(
            response["content"]["application/json"]["schema"]["properties"]["error"]["enum"]
        )
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status, response in operation["responses"].items()
        if "error"
        in response.get("content", {}).get("application/json", {}).get("schema", {}).get("properties", {})
    }


def _jws(head: Mapping[str, Any], body: Mapping[str, Any], key: ECKey) -> str:
    parts = [
        urlsafe_b64encode(
            json.dumps({name: value for name, value in part.items() if value is not None}).encode()
        )
        for part in (head, body)
    ]
    text = b".".join(parts)
    return (text + b"." + urlsafe_b64encode(JWSRegistry.algorithms["ES256"].sign(text, key))).decode()


def _quoted(text: str) -> str:
    """Form-encoded; what is no text goes out as the bytes that a careless client would send."""
    return quote_plus(text.encode("utf-8", "surrogatepass"))


def _texts(stored: str) -> list[str]:
    return stored.split()


def _time(stored: str) -> datetime:
    return datetime.fromisoformat(stored).replace(tzinfo=UTC)


def _leads_to(registered: str, location: str) -> bool:
    """Whether the location is this redirect URI with a query; of a loopback one, the port is free."""
    if registered.startswith("http://127.0.0.1/"):
        location = re.sub(r"^http://127\.0\.0\.1:[0-9]+/", "http://127.0.0.1/", location)
    return location.startswith(registered + ("&" if "?" in registered else "?"))
