"""The rules without HTTP: the engine with the shipped plugins on memory stores, with the methods of `Server`.

    rules = Rules()
    rules.add_user("ann")
    client, secret = rules.add_client()
    answer = rules.redeem(client, secret, rules.code(client))

A request takes a hundredth of the time that it takes there, so tables of cases are tested here. Headers, pages, cookies
and broken bodies are tested with `authserver.testing.server.Server`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from authserver import app
from authserver.engine import authorize as authorization
from authserver.engine.authorize import AskConsent, AskLogin, Outcome, Redirect, error_location
from authserver.engine.clients.registration import register
from authserver.engine.context import Caller, Engine, Journal
from authserver.engine.crypto import digests
from authserver.engine.errors import InvalidRequest, OAuthError, PageError, RedirectError, Refusal
from authserver.engine.introspect import introspect
from authserver.engine.keys import signing_keys
from authserver.engine.keys.following import FollowedSigningKeys
from authserver.engine.parameters import Parameters
from authserver.engine.pending import Browser, mark_of
from authserver.engine.people.login import SESSION_KIND
from authserver.engine.ports import Storage
from authserver.engine.records import Client, EventType
from authserver.engine.restore.generation import FollowedGeneration
from authserver.engine.revoke import revoke
from authserver.engine.token import exchange
from authserver.hooks import DESCRIPTION
from authserver.limits import sealed_length
from authserver.testing.records import a_session
from authserver.testing.server import SETTINGS
from authserver.testing.service import (
    REDIRECT_URI,
    Service,
    authorization_query,
    response_at,
    self_registration,
)
from authserver.testing.stores import MemoryStores
from authserver.web.refusals import keep
from authserver.web.routes import ROUTES

STRANGER = Browser()

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The response of an endpoint for clients; its names are those of WebTest, so that tests of both kinds read the same.

    Attributes:
        status_int: the HTTP status.
        json: the members of the response.
        refusal: the error that was raised, or None.
    """

    status_int: int
    json: Mapping[str, Any]
    refusal: OAuthError | None = None


class Rules(Service[Answer]):
    """An engine with the shipped plugins and empty stores.

    Args:
        settings: INI keys that differ from `authserver.testing.server.SETTINGS`; None removes a key.
        stores: of another engine, to share them.
    """

    def __init__(
        self, settings: Mapping[str, str | None] | None = None, stores: MemoryStores | None = None
    ) -> None:
        self.stores = stores or MemoryStores()
        self._ahead = timedelta(0)
        parts = _parts(tuple(sorted((settings or {}).items())))
        keys = FollowedSigningKeys(self.stores, parts.ring, parts.settings.signing_algorithm)
        self.parts = replace(over(self.stores, parts), signer=keys)
        with self.begin() as engine:
            signing_keys.prepare(engine)
        keys.load()
        self._browsers: dict[str, Browser] = {}

    @property
    def now(self) -> datetime:
        """The time of its clock."""
        return datetime.now(UTC) + self._ahead

    def wait(self, seconds: float) -> None:
        """Let this many seconds pass."""
        self._ahead += timedelta(seconds=seconds)

    @contextmanager
    def begin(self) -> Iterator[Engine]:
        with self.stores.begin() as stores:
            yield Engine.of(self.parts, stores, self.now)

    def at(
        self, endpoint: str, decide: Callable[[Engine], _Result], *, source: str = "192.0.2.1", **http: Any
    ) -> _Result | Refusal:
        """The result of one request to an endpoint, for example of a plugin, or its refusal."""
        return self._within(self._caller(endpoint, source=source, **http), decide)

    def post(
        self,
        path: str,
        body: str | bytes,
        *,
        authorization: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        endpoint = path.removeprefix("/oauth/")
        ask = _ENDPOINTS[endpoint]
        caller = self._caller(endpoint, authorization=authorization, headers=headers or {})
        return _answer(self._within(caller, lambda engine: ask(engine, Parameters.parse(body))))

    def register(self, metadata: object, *, bearer: str | None = None, source: str = "192.0.2.1") -> Answer:
        """A client's own registration, with this JSON; bytes are sent as they are."""
        body = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
        authorization = None if bearer is None else f"Bearer {bearer}"
        caller = self._caller("register", authorization=authorization, source=source)
        return _answer(self._within(caller, lambda engine: register(engine, body)), status=201)

    def self_registered(self, **metadata: Any) -> Client:
        """A public client that registered itself; by default with one https redirect URI."""
        answer = self.register(self_registration(**metadata))
        assert answer.refusal is None, answer
        return self.stores.tables.clients[answer.json["client_id"]]

    def signed_in(
        self, username: str = "ann", *, methods: Collection[str] = (), seconds_ago: float = 0
    ) -> Browser:
        """A browser with a session of this user, who signed in by these methods (`amr`), so long ago."""
        session_id = digests.new_credential(digests.SESSION)
        with self.begin() as engine:
            user = engine.stores.users.find_by_name(username)
            assert user is not None
            session = a_session(
                digest=digests.digest(SESSION_KIND, session_id),
                user_id=user.user_id,
                authenticated_at=engine.now - timedelta(seconds=seconds_ago),
                details={"amr": list(methods)},
                last_seen_at=engine.now,
                expires_at=engine.now.replace(year=engine.now.year + 1),
            )
            engine.stores.sessions.add(session)
        return Browser(session_id=session_id, session=session, user=user)

    def authorize(self, client: Client, browser: Browser, **changes: Any) -> Outcome | Refusal:
        """A correct authorization request with these parameters changed; None removes one."""

        def begin(engine: Engine) -> Outcome:
            query = authorization_query(client, **changes)
            maximum = sealed_length(engine.settings.maximum_request)
            try:
                parameters = Parameters.parse_readable(query, maximum=maximum)
            except InvalidRequest as error:
                raise PageError(error) from None
            return authorization.begin(engine, parameters, browser)

        return self._asked(self._within(self._caller("authorize"), begin), browser)

    def resume(self, asked: Any, browser: Browser) -> Outcome | Refusal:
        """Continue the request of this browser after the sign-in that it needed."""
        assert isinstance(asked, AskLogin), asked

        def resume(engine: Engine) -> Outcome:
            marks = {asked.handle: mark_of(engine, asked.handle)}
            return authorization.resume(engine, asked.sealed_request, replace(browser, marks=marks))

        return self._asked(self._within(self._caller("consent"), resume), browser)

    def consent(
        self, asked: Any, answer: str = "allow", scopes: Collection[str] | None = None
    ) -> Outcome | Refusal:
        """Answer the consent page in its browser, with all scopes ticked or only these."""
        assert isinstance(asked, AskConsent), asked
        ticked = [name for name, _ in asked.scopes] if scopes is None else scopes

        def give(engine: Engine) -> Outcome:
            return authorization.answer(
                engine,
                asked.sealed_request,
                replace(self._browsers[asked.handle], marks={asked.handle: mark_of(engine, asked.handle)}),
                form_token=asked.form_token,
                allowed=answer == "allow",
                scopes=ticked,
                confirmed=True,
            )

        return self._within(self._caller("consent"), give)

    def code(self, client: Client, browser: Browser | None = None, **changes: Any) -> str:
        browser = browser or self.signed_in()
        outcome = self.authorize(client, browser, **changes)
        if isinstance(outcome, AskConsent):
            outcome = self.consent(outcome)
        assert isinstance(outcome, Redirect), outcome
        return dict(parse_qsl(urlsplit(outcome.location).query))["code"]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The records that are kept under the name of this table, each as a mapping of its fields."""
        tables = self.stores.tables
        if table == "client_secrets":
            return [
                {"client_id": client.client_id, **_row(secret)}
                for client in tables.clients.values()
                for secret in client.secrets
            ]
        return [_row(record) for record in getattr(tables, table).values()]

    def change(self, table: str, **fields: Any) -> None:
        """Change all records under this name, as an operator could in the database."""
        records = getattr(self.stores.tables, table)
        for key, record in records.items():
            records[key] = replace(record, **fields)

    def claims(self, token: str) -> dict[str, Any]:
        return dict(self.parts.signer.verify(token, typ="at+jwt"))

    def _caller(self, endpoint: str, *, source: str = "192.0.2.1", **http: Any) -> Caller:
        url = f"{self.parts.settings.issuer}/oauth/{endpoint}"
        return Caller(endpoint=endpoint, source=source, url=url, **http)

    def _within(self, caller: Caller, decide: Callable[[Engine], _Result]) -> _Result | Refusal:
        """The result of one request in its transaction; records that must outlive a refusal are stored."""
        journal = Journal()
        try:
            with self.stores.begin() as stores:
                return decide(Engine.of(self.parts, stores, self.now, caller=caller, journal=journal))
        except Refusal as refusal:
            with self.stores.begin() as stores:
                journal = replace(journal, events=[])
                engine = Engine.of(self.parts, stores, self.now, caller=caller, journal=journal)
                found = (route.refused for route in ROUTES if route.name == caller.endpoint)
                kind = next(found, EventType.REQUEST_REFUSED)
                keep(engine, refusal, kind, details={"endpoint": caller.endpoint})
            return refusal

    def _asked(self, outcome: Outcome | Refusal, browser: Browser) -> Outcome | Refusal:
        if isinstance(outcome, AskConsent):
            self._browsers[outcome.handle] = browser
        return outcome


def assert_refused(answer: Answer, code: str, *, status: int = 400) -> None:
    """Check a refusal of an endpoint for clients."""
    refusal = answer.refusal
    assert refusal is not None, answer
    assert (refusal.code, refusal.status) == (code, status), refusal
    assert DESCRIPTION.fullmatch(refusal.description)
    assert refusal.reason


def assert_inactive(answer: Answer) -> None:
    """Check the introspection response for a token that is not active (RFC 7662, 2.2)."""
    assert (answer.status_int, answer.json) == (200, {"active": False}), answer


def is_active(answer: Answer) -> bool:
    """Whether this introspection response says that the token is active."""
    if answer.json.get("active") is True:
        return True
    assert_inactive(answer)
    return False


def assert_page_error(
    answer: Outcome | Refusal, code: str = "invalid_request", *, status: int = 400, supplied: str = ""
) -> None:
    """Check a refusal on a page, without a link or redirect, that does not repeat the URI of the request."""
    assert isinstance(answer, PageError), answer
    assert (answer.code, answer.status) == (code, status)
    assert not supplied or supplied not in answer.description


def assert_redirect_error(
    answer: Outcome | Refusal, code: str, *, redirect_uri: str = REDIRECT_URI, state: str | None = "xyz"
) -> None:
    """Check a refusal that is sent to the client at its redirect URI: with error, state and iss, and no code."""
    values = response_at(location_of(answer), redirect_uri=redirect_uri, state=state)
    assert values["error"] == code
    assert "code" not in values
    assert DESCRIPTION.fullmatch(values["error_description"])


def assert_code(
    answer: Outcome | Refusal, *, redirect_uri: str = REDIRECT_URI, state: str | None = "xyz"
) -> str:
    """Check a successful response to the client; returns the code."""
    assert isinstance(answer, Redirect), answer
    values = response_at(answer.location, redirect_uri=redirect_uri, state=state)
    assert "error" not in values
    return values["code"]


def location_of(answer: Outcome | Refusal) -> str:
    """The URL of the response to the client, whether success or error."""
    if isinstance(answer, RedirectError):
        return error_location(answer, SETTINGS["authserver.issuer"])
    assert isinstance(answer, Redirect), answer
    return answer.location


def _introspect(engine: Engine, form: Parameters) -> Mapping[str, Any]:
    return introspect(engine, form).members


def _revoke(engine: Engine, form: Parameters) -> Mapping[str, Any]:
    revoke(engine, form)
    return {}


def _exchange(engine: Engine, form: Parameters) -> Mapping[str, Any]:
    return exchange(engine, form).as_json()


_ENDPOINTS = {"token": _exchange, "introspect": _introspect, "revoke": _revoke}


def _answer(result: Mapping[str, Any] | Refusal, *, status: int = 200) -> Answer:
    if not isinstance(result, Refusal):
        return Answer(status_int=status, json=result)
    assert isinstance(result, OAuthError), result
    return Answer(
        status_int=result.status,
        json={**result.members, "error": result.code, "error_description": result.description},
        refusal=result,
    )


def _row(record: Any) -> dict[str, Any]:
    return {each.name: getattr(record, each.name) for each in fields(record) if each.name != "secrets"}


def over(storage: Storage, parts: app.ServerParts) -> app.ServerParts:
    """The parts of a built server with another storage, for tests of rules on memory stores."""
    return replace(parts, generation=FollowedGeneration(storage), offered=parts.offered.over(storage))


@cache
def _parts(settings: tuple[tuple[str, str | None], ...]) -> app.ServerParts:
    """The parts for these settings, built once; tests do not change them."""
    ini = {**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db", **dict(settings)}
    return app.build({key: value for key, value in ini.items() if value is not None}).parts
