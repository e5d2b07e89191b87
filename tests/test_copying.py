"""T140: whatever a plugin does to what it is handed, and whatever its answer turns out to be, the engine's own
values stay as they were read, and nothing is granted that would not have been."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar

import pytest

from authserver.api import (
    AuthenticationStep,
    Client,
    ClientMetadata,
    Identity,
    Parameters,
    Secret,
    allow,
    hookimpl,
)
from authserver.engine.asking import allowed_resources
from authserver.engine.clients.authentication import Credentials
from authserver.engine.decisions import Verdict
from authserver.engine.errors import InvalidTarget
from authserver.engine.letters import Mail
from authserver.engine.records import RegisteredBy
from authserver.hookspecs import DECIDING
from authserver.plugins.asking import PluginFailed, PluginSet
from authserver.testing.questions import a_question
from authserver.testing.records import (
    NOW,
    a_client,
    a_consent,
    a_grant,
    a_resource,
    a_session,
    a_token,
    a_user,
    an_event,
)
from authserver.testing.server import Server, form_with, with_plugin
from authserver.testing.stories import assert_inactive, assert_json_error, register, signed_in, stored

# What the plugin does with its arguments at the hook at hand, and what it answers.
ACT: list[Callable[[dict[str, Any]], Any]] = [lambda asked: None]
GRANT_TYPE = "urn:example:grant-type:acts"


@dataclass(frozen=True)
class Acts:
    """Does at one hook what a test says."""

    immediate: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"extra"})
    members: ClassVar[frozenset[str]] = frozenset({"extra"})
    details: ClassVar[frozenset[str]] = frozenset({"extra"})

    hook: str
    number: int = 0

    @property
    def serves(self) -> tuple[str, ...]:
        return ("grant_types" if self.hook == "redeem" else self.hook,)

    def act(self, asked: dict[str, Any]) -> Any:
        asked.pop("self")
        return ACT[0](asked)

    @hookimpl
    def client_auth_decision(self, client: Any, credentials: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def redirect_uri_decision(self, client: Any, redirect_uri: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def scope_decision(
        self, client: Any, user: Any, grant_type: Any, requested: Any, resources: Any, registered: Any
    ) -> Any:
        return self.act(locals())

    @hookimpl
    def resource_decision(self, client: Any, resource: Any, registered: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def authentication_decision(
        self, client: Any, user: Any, session: Any, is_fresh: Any, parameters: Any
    ) -> Any:
        return self.act(locals())

    @hookimpl
    def consent_decision(self, client: Any, user: Any, scopes: Any, resources: Any, remembered: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def login_decision(self, username: Any, password: Any, user: Any, headers: Any, source: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def identity_decision(self, provider: Any, issuer: Any, claims: Any, user: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def registration_decision(self, metadata: Any, bearer: Any, token: Any, source: Any, client: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def introspection_decision(self, caller: Any, token: Any, registered: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def origin_decision(self, origin: Any, endpoint: Any, registered: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def rate_decision(  # every argument there is
        self, counted, step, endpoint, source, client_id, account, device_id, grant_id
    ) -> Any:
        return self.act(locals())

    @hookimpl
    def find_client(self, client_id: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def expand_authorization_request(self, parameters: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def expand_registration(self, sent: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def registration_response(self, client: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def code_details(self, client: Any, parameters: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def implied_parameters(self, client: Any, parameters: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def grant_details(self, client: Any, user: Any, scopes: Any, parameters: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def person_claims(self, client: Any, user: Any, scopes: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def token_binding(self, client: Any, parameters: Any, grant: Any, spends: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def send_mail(self, mail: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def token_claims(self, client: Any, user: Any, grant: Any, scopes: Any, resources: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def token_response(self, client: Any, grant: Any, scopes: Any, now: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def observe(self, event: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def deliver(self, events: Any) -> Any:
        return self.act(locals())

    @hookimpl
    def grant_types(self) -> Any:
        return {GRANT_TYPE: self.redeem}

    def redeem(self, engine: Any, client: Any, parameters: Any) -> Any:
        return self.act(locals())


@dataclass(frozen=True)
class ActsInTime(Acts):
    """The same in a thread of its own."""

    immediate: ClassVar[bool] = False


@pytest.fixture(autouse=True)
def nothing_else_to_do() -> Iterator[None]:
    yield
    ACT[0] = lambda asked: None


def spoil(value: Any) -> None:
    """Write into everything that can be reached from here, by every means there is."""
    if isinstance(value, tuple | list):
        for item in value:
            spoil(item)
    elif isinstance(value, Secret):
        object.__setattr__(value, "_value", "spoilt")
    elif is_dataclass(value):
        for item in fields(value):
            spoil(getattr(value, item.name))
            object.__setattr__(value, item.name, "spoilt")
    elif isinstance(value, MappingProxyType):
        for inner in gc.get_referents(value):
            spoil(inner)
    elif isinstance(value, dict):
        for item in value.values():
            spoil(item)
        value["spoilt"] = "spoilt"
    if isinstance(value, list):
        value.append("spoilt")


def described(value: Any) -> Any:
    """All that a value says, so that a change shows."""
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, {
            item.name: described(getattr(value, item.name)) for item in fields(value)
        }
    if isinstance(value, Secret):
        return value.value
    if isinstance(value, Mapping):
        return {name: described(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [described(item) for item in value]
    return value


# ---- What a plugin is handed --------------------------------------------------------------------------


def a_rich_client() -> Client:
    return a_client(
        details={"contacts": ["ann@client.example"], "jwks": {"keys": [{"kty": "EC"}]}},
        private_details={"acme": {"notes": ["a"]}},
    )


def contributing() -> dict[str, dict[str, Any]]:
    client, user = a_rich_client(), a_user()
    grant = a_grant(details={"amr": ["pwd"]})
    parameters = Parameters.parse("scope=read&resource=https://api.example/")
    return {
        "find_client": {"client_id": "elsewhere"},
        "expand_authorization_request": {"parameters": parameters},
        "expand_registration": {"sent": {"contacts": ["ann@client.example"]}},
        "registration_response": {"client": client},
        "code_details": {"client": client, "parameters": parameters},
        "implied_parameters": {"client": client, "parameters": parameters},
        "grant_details": {"client": client, "user": user, "scopes": ("read",), "parameters": parameters},
        "person_claims": {"client": client, "user": user, "scopes": ("read",)},
        "token_binding": {
            "client": client,
            "parameters": parameters,
            "grant": grant,
            "spends": a_token(details={"cnf": {"jkt": "a"}}),
        },
        "token_claims": {
            "client": client,
            "user": user,
            "grant": grant,
            "scopes": ("read",),
            "resources": (),
        },
        "send_mail": {"mail": Mail(recipient="ann@people.example", subject="a", text="b\n", language="en")},
        "token_response": {"client": client, "grant": grant, "scopes": ("read",), "now": NOW},
    }


def deciding(hook: str) -> Any:
    """The question of a hook, with everything in it that could be written into."""
    changes: dict[str, Any] = {
        "client": a_rich_client(),
        "credentials": Credentials(
            method="client_secret_basic",
            client_id="reports",
            secret_matches=False,
            headers={"host": "as.example"},
        ),
        "session": a_session(details={"amr": ["pwd"]}),
        "remembered": a_consent(),
        "headers": {"user-agent": "browser"},
        "metadata": ClientMetadata(details={"contacts": ["ann@client.example"]}),
        "bearer": Secret("an initial access token"),
    }
    names = {item.name for item in fields(DECIDING[hook].question)}
    if hook != "origin_decision":
        known = a_resource(introspecting_clients=("the api",))
        changes["registered"] = known if hook == "resource_decision" else (known,)
    return a_question(hook, **{name: value for name, value in changes.items() if name in names})


every_kind = pytest.mark.parametrize("kind", [Acts, ActsInTime])


@every_kind
@pytest.mark.parametrize("hook", DECIDING)
def test_nothing_that_a_policy_is_asked_with_can_be_changed(kind: type[Acts], hook: str) -> None:
    """T140: at every deciding hook; neither for the engine nor for the plugin that is asked next."""
    seen: list[Any] = []
    ACT[0] = lambda asked: (seen.append(described(asked)), spoil(list(asked.values())))[0]
    question = deciding(hook)
    before = described(question)
    plugins = PluginSet([("one", kind(hook)), ("other", kind(hook, 1))])
    assert plugins.decide(question).verdict is Verdict.SILENT
    assert described(question) == before
    assert seen == [before[1], before[1]]


@every_kind
@pytest.mark.parametrize("hook", contributing())
def test_nothing_that_a_contributing_plugin_is_asked_with_can_be_changed(kind: type[Acts], hook: str) -> None:
    """T140: where something is issued, and where it is asked for."""
    ACT[0] = lambda asked: spoil(list(asked.values()))
    question = contributing()[hook]
    before = described(question)
    PluginSet([("acts", kind(hook))]).contribute(hook, **question)
    assert described(question) == before


@every_kind
def test_an_event_that_an_observer_writes_into_is_another_s_as_it_was(kind: type[Acts]) -> None:
    ACT[0] = lambda asked: spoil(list(asked.values()))
    event = an_event(details={"scopes": ["read"]}, decisions=({"facts": {"scopes": ["read"]}},))
    before = described(event)
    PluginSet([("acts", kind("observe"))]).observe(event)
    PluginSet([("acts", kind("deliver"))]).deliver("acts", (event,), nullcontext)
    assert described(event) == before


def test_a_grant_type_writes_into_copies_too() -> None:
    ACT[0] = lambda asked: spoil([asked["client"], asked["parameters"]])
    client, parameters = a_rich_client(), Parameters.parse("scope=read")
    before = described([client, parameters])
    ((_, redeems),) = PluginSet([("acts", Acts("redeem"))]).contribute("grant_types")
    with pytest.raises(Exception, match="could not answer"):
        redeems[GRANT_TYPE](None, client, parameters)
    assert described([client, parameters]) == before


# ---- What it answers -----------------------------------------------------------------------------------


class Anything(str):
    """A text that says it is every other."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class Scope(StrEnum):
    READ = "read"


class Changing(dict[str, Any]):
    """A mapping that is another each time it is read."""

    def items(self) -> Any:
        return {"iss": "https://evil.example/"}.items()


@dataclass(frozen=True)
class Chameleon(Identity):
    """A person who is somebody else each time one looks."""

    def __getattribute__(self, name: str) -> Any:
        if name == "username":
            NAMES.append(name)
            return f"user{len(NAMES)}"
        return super().__getattribute__(name)


NAMES: list[str] = []


@every_kind
def test_a_text_that_equals_every_other_is_only_what_it_says(kind: type[Acts]) -> None:
    """T140: no floor that compares can be fooled by a type of the plugin's own."""
    ACT[0] = lambda asked: allow("fine", (Anything("admin"),))
    ruling = PluginSet([("acts", kind("scope_decision"))]).decide(a_question("scope_decision"))
    assert [type(scope) for scope in ruling.value] == [str]
    assert ruling.value == ("admin",)
    assert ruling.value[0] != "read"


def test_an_enumeration_of_scopes_is_as_good_as_texts() -> None:
    ACT[0] = lambda asked: allow("fine", (Scope.READ,))
    ruling = PluginSet([("acts", Acts("scope_decision"))]).decide(a_question("scope_decision"))
    assert (ruling.value, type(ruling.value[0])) == (("read",), str)


def test_an_answer_is_read_once() -> None:
    """T140: what was checked is what is used."""
    ACT[0] = lambda asked: allow("fine", Chameleon(username="ann"))
    ruling = PluginSet([("acts", Acts("login_decision"))]).decide(a_question("login_decision"))
    assert type(ruling.value) is Identity
    assert ruling.value.username == ruling.value.username


def test_a_mapping_that_changes_adds_nothing_that_was_not_declared() -> None:
    ACT[0] = lambda asked: Changing(extra=1)
    with pytest.raises(PluginFailed, match="does not declare iss"):
        PluginSet([("acts", Acts("token_claims"))]).contribute(
            "token_claims", **contributing()["token_claims"]
        )


def test_a_client_that_a_plugin_keeps_in_its_hand_is_not_the_engine_s() -> None:
    """T140: what it writes into it later changes nothing."""
    kept = a_rich_client()
    ACT[0] = lambda asked: kept
    ((_, found),) = PluginSet([("acts", Acts("find_client"))]).contribute("find_client", client_id="reports")
    before = described(found)
    spoil(kept)
    assert described(found) == before


# ---- On a whole server ---------------------------------------------------------------------------------


def change(value: Any, **members: Any) -> None:
    for name, changed in members.items():
        object.__setattr__(value, name, changed)


@pytest.fixture
def serve(sqlite_url: str) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(hook: str, **settings: str) -> Server:
        servers.append(Server(sqlite_url, {**with_plugin(Acts, {"hook": hook}), **settings}))
        servers[-1].add_user("ann")
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def test_a_scope_that_the_client_is_not_registered_for_is_not_granted(serve: Callable[..., Server]) -> None:
    """T140: the policy writes it into the client, and allows it."""

    def act(asked: dict[str, Any]) -> Any:
        change(asked["client"], scopes=("profile", "files.read", "files.write"))
        return allow("all-of-them", ("profile", "files.read", "files.write"))

    server = serve("scope_decision")
    client, secret = server.add_client(grant_types=("client_credentials",), scopes=("profile",))
    ACT[0] = act
    answer = server.token(client, secret, grant_type="client_credentials")
    assert answer.json["scope"] == "profile"
    asked = server.token(client, secret, grant_type="client_credentials", scope="files.write")
    assert_json_error(asked, "invalid_scope")


def test_a_resource_that_the_client_is_not_registered_for_is_not_granted(
    serve: Callable[..., Server],
) -> None:
    def act(asked: dict[str, Any]) -> Any:
        change(asked["client"], resources=())
        return allow("any", "https://files.example/")

    server = serve("resource_decision")
    client = a_client(resources=("https://api.example/",))
    ACT[0] = act
    with server.application.begin() as engine, pytest.raises(InvalidTarget):
        allowed_resources(engine, client, ())


def test_a_grant_type_that_the_client_is_not_registered_for_is_refused(serve: Callable[..., Server]) -> None:
    """T140: written into the client while it is authenticated."""
    server = serve("client_auth_decision")
    client, secret = server.add_client()
    ACT[0] = lambda asked: change(asked["client"], grant_types=("client_credentials",), auth_method="none")
    before = stored(server)
    answer = server.token(client, secret, grant_type="client_credentials")
    assert_json_error(answer, "unauthorized_client")
    assert stored(server)[0] == before[0]


def test_a_secret_that_does_not_match_is_refused(serve: Callable[..., Server]) -> None:
    def act(asked: dict[str, Any]) -> Any:
        change(asked["credentials"], secret_matches=True)
        return allow("fine")

    server = serve("client_auth_decision")
    client, _ = server.add_client(grant_types=("client_credentials",))
    ACT[0] = act
    answer = server.token(client, "wrong", grant_type="client_credentials")
    assert_json_error(answer, "invalid_client", status=401)


def test_the_person_is_asked_although_a_policy_makes_the_client_first_party(
    serve: Callable[..., Server],
) -> None:
    """T140, E-12: a client that registered itself passes nobody in silence."""

    def act(asked: dict[str, Any]) -> Any:
        change(asked["client"], first_party=True, registered_by=RegisteredBy.OPERATOR)
        return allow("everybody")

    server = serve("consent_decision")
    client = register(server)
    ACT[0] = act
    page = signed_in(server).get(server.authorization_url(client))
    assert form_with(page, "scope") is not None


def test_a_grant_says_how_and_when_somebody_signed_in_whatever_a_policy_makes_of_the_session(
    serve: Callable[..., Server],
) -> None:
    """T140: `amr` and `auth_time` are those that were read before the policy was asked (RFC 9068, 2.2.1)."""

    def act(asked: dict[str, Any]) -> Any:
        if asked["session"] is not None:
            asked["session"].details["amr"].append("otp")
            change(asked["session"], authenticated_at=NOW, user_id="user_root", details={"amr": ["otp"]})
            change(asked["user"], user_id="user_root")
        return allow("fine", AuthenticationStep.GO_ON)

    server = serve("authentication_decision")
    client, _ = server.add_client()
    browser = signed_in(server)
    ACT[0] = act
    server.consent(browser.get(server.authorization_url(client)))
    (grant,), (session,), (user,) = (server.rows(table) for table in ("grants", "sessions", "users"))
    assert grant["user_id"] == user["user_id"]
    signed_in_at = datetime.fromisoformat(session["authenticated_at"]).replace(tzinfo=UTC)
    details = json.loads(grant["details"])
    assert details.pop("session")
    assert details == {"amr": ["pwd"], "auth_time": int(signed_in_at.timestamp())}


def test_a_disabled_person_is_not_signed_in(serve: Callable[..., Server]) -> None:
    def act(asked: dict[str, Any]) -> Any:
        if asked["user"] is None:
            return None
        change(asked["user"], disabled_at=None)
        return allow("fine", Identity(username=asked["user"].username))

    server = serve("login_decision")
    with server.application.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
        assert user is not None
        engine.stores.users.disable(user.user_id, engine.now)
    ACT[0] = act
    answer = server.sign_in(server.browser())
    assert not answer.headers.getall("Set-Cookie") or server.rows("sessions") == []
    assert server.rows("sessions") == []


def test_a_refresh_token_is_shown_to_its_own_client_alone(serve: Callable[..., Server]) -> None:
    """T140, M-07.b: the policy makes the caller the token's own client."""

    def act(asked: dict[str, Any]) -> Any:
        change(asked["caller"], client_id=asked["token"].client_id)
        return allow("fine")

    server = serve("introspection_decision")
    client, secret = server.add_client()
    tokens = server.redeem(client, secret, server.code(client)).json
    other, other_secret = server.add_client(grant_types=("client_credentials",))
    ACT[0] = act
    assert_inactive(server.introspect(other, other_secret, tokens["refresh_token"]))


def test_a_registration_that_was_cut_is_refused_where_registration_is_strict(
    serve: Callable[..., Server],
) -> None:
    """T140: what was asked for is what the client asked for, not what a policy makes of it."""

    def act(asked: dict[str, Any]) -> Any:
        change(asked["metadata"], scopes=("profile",))
        return None

    server = serve("registration_decision", **{"authserver.strict_registration": "true"})
    ACT[0] = act
    body = {"redirect_uris": ["https://client.example/cb"], "scope": "profile admin"}
    answer = server.http.post_json(server.path("/oauth/register"), body, expect_errors=True)
    assert_json_error(answer, "invalid_client_metadata")


@pytest.mark.parametrize("hook", ["token_claims", "token_response", "token_binding"])
def test_a_token_says_what_was_agreed(serve: Callable[..., Server], hook: str) -> None:
    """T140: a plugin that adds to a token writes the grant, the person and the client full of others."""
    server = serve(hook)
    client, secret = server.add_client()
    code = server.code(client)

    def act(asked: dict[str, Any]) -> Any:
        change(asked["grant"], user_id="user_root", client_id="other", scopes=("admin",))
        change(asked["client"], client_id="other")
        if asked.get("user") is not None:
            change(asked["user"], user_id="user_root")

    ACT[0] = act
    tokens = server.redeem(client, secret, code).json
    claims = server.claims(tokens["access_token"])
    user = next(row for row in server.rows("users") if row["username"] == "ann")
    assert (claims["sub"], claims["client_id"]) == (user["user_id"], client.client_id)
    assert "admin" not in claims["scope"].split()
    assert {row["client_id"] for row in server.rows("tokens")} == {client.client_id}
