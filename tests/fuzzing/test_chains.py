"""Access that comes from other access, in any order and in chains: bound, live, never wider, never longer (T163 to T168).

People agree on a page or for a device, issuers vouch for people and for programs, services exchange what they are called
with, and meanwhile anything ends: tokens, grants, people, clients, issuers, scopes and resources. The model knows what each
access hangs on. Introspection must say the same of every token, after every sequence, and `World` checks every answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from inspect import signature
from typing import Any
from urllib.parse import urlencode

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from webtest import TestApp, TestResponse

from authserver.engine import issuer_registry, issuers
from authserver.engine.clients.editing import ClientEdit, ListEdit, edit
from authserver.engine.crypto.digests import new_identifier
from authserver.engine.ending import Act, Subject, end
from authserver.engine.people.account import enable_user
from authserver.engine.uris import resource_form
from authserver.testing.server import VERIFIER, authorization_query, basic, form_with, query_of
from authserver.testing.stories import sign_in_at
from tests.fuzzing.conftest import IS_LONG, REPORT
from tests.fuzzing.world import (
    ACCESS_TOKEN,
    ASSERTIONS,
    DEVICE,
    EXCHANGE,
    FILES,
    FORM,
    ID_JAG,
    ISSUER,
    OUTSIDE,
    REFRESH_TOKEN,
    RESOURCE,
    TRUSTED,
    World,
)
from tests.web.account_steps import token_for

SEQUENCES, STEPS = (300, 50) if IS_LONG else (6, 25)
READER = "reader"
# Lifetimes as they are shipped, in seconds.
OF_DEVICES, INTERVAL, OF_REFRESH_TOKENS = 600, 5, 1_209_600
# After so many services none acts through another.
MOST_ACTORS = 3
SETTINGS = {
    # Whoever presents a used refresh token again is a thief, from the first moment.
    "authserver.refresh_token_retry_window": "0",
    # Tokens of both forms.
    "authserver.opaque_resources": FILES,
    # A service that may ask about each token, and the services that are called with them.
    "authserver.plugin.introspect_resource_servers.clients": (
        f"{READER} = {RESOURCE} {FILES}\napi = {RESOURCE}\nnext = {FILES}"
    ),
}
PEOPLE = ("ann", "bob")
APPLICATIONS = ("web", "native", "first", "bound", "pushing")
SERVICES = ("api", "next", "web", "agent")
DEVICES = ("tv", "printer")
ISSUERS = ("https://idp.example", "https://open.example", "https://platform.example", TRUSTED)
KEYS = (None, None, "one", "other")
ALL = frozenset({"profile", "files.read"})
# Resources and scopes that an assertion may have together.
OF_ASSERTIONS = ((RESOURCE, "profile files.read"), (RESOURCE, "profile"), (FILES, "files.read"))
# By which client each kind of assertion is presented, and about whom it is, if not about ann or bob.
PRESENTED = {
    "company": ("agent", None),
    "open": ("agent", "guest"),
    "platform": ("reports", ""),
    "listed": ("vouched", None),
}
# Those that may name the key of their client.
BOUND = ("company", "open")
# How access may come about; the long run goes each of these ways.
WAYS = (
    "as an assertion for another server",
    "by exchange through 1",
    "by exchange through 2",
    "by exchange through 3",
    "by refresh",
    "from a device",
    "from a page",
    "from a pushed request",
    *(f"from an assertion ({way})" for way in ("company", "exchanged", "listed", "open", "platform")),
)


class Shown:
    """Has a short form in the story of a failure."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


@dataclass(eq=False, slots=True, repr=False)
class Access(Shown):
    """What a client may do for a person, for a program, or through another access.

    Attributes:
        person: the name of the user; "" for a program.
        ends: when the grant ends by itself.
        parent: the access that it was derived from.
        issuer: who vouched for its person or program.
        has_ended: whether somebody ended it.
        is_narrowed: whether somebody has taken a scope from it; it gets none any more.
    """

    app: str
    person: str
    scopes: frozenset[str]
    resources: frozenset[str]
    ends: datetime
    parent: Access | None = None
    issuer: str = ""
    actors: tuple[str, ...] = ()
    has_ended: bool = False
    is_narrowed: bool = False
    tokens: list[Token] = field(default_factory=list)
    refresh: list[Token] = field(default_factory=list)

    def __repr__(self) -> str:
        """Without its tokens, which have it in theirs."""
        words = [
            self.app,
            "for",
            self.person,
            *sorted(self.scopes),
            *sorted(self.resources),
            "until",
            f"{self.ends:%d %T}",
        ]
        words += ["vouched for by", self.issuer] if self.issuer else []
        words += ["ended"] if self.has_ended else []
        return " ".join(words) + (f" <- {self.parent}" if self.parent else "")


@dataclass(eq=False, slots=True, kw_only=True, repr=False)
class Token(Shown):
    """An access token or refresh token.

    Attributes:
        key: the name of the key to which it is bound.
        ends: when it ends by itself.
    """

    text: str
    of: Access
    scopes: frozenset[str]
    resources: frozenset[str]
    key: str | None
    ends: datetime

    def __repr__(self) -> str:
        number = [*self.of.tokens, *self.of.refresh].index(self)
        words = (*sorted(self.scopes), *sorted(self.resources), f"{self.ends:%d %T}", f"key {self.key}")
        return f"<token {number} {' '.join(words)} of {self.of}>"


@dataclass(eq=False, slots=True)
class Asked:
    """A device that has asked for access.

    Attributes:
        person: who has typed its code first.
        allowed: what somebody has answered; None: nobody has.
        access: that somebody gave.
    """

    app: str
    device_code: str
    user_code: str
    scopes: frozenset[str]
    key: str | None
    ends: datetime
    person: str = ""
    allowed: bool | None = None
    access: Access | None = None
    is_redeemed: bool = False


def test_what_is_derived_is_never_more_and_dies_with_its_parent(world: World) -> None:
    """T163, T164, T167, TX-07 to TX-10, JAG-08, JAG-17, WIF-07, DEV-07, DEV-08, L-07, L-08: whatever comes from what."""
    _, secret = world.server.add_client(client_id=READER, grant_types=("client_credentials",))
    world.keep()
    Steps.world, Steps.secret, Steps.reached = world, secret or "", Counter()
    run_state_machine_as_test(
        Steps,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )
    REPORT.append(f"access came {', '.join(f'{n} times {way}' for way, n in sorted(Steps.reached.items()))}")
    if IS_LONG:
        assert {*WAYS} <= Steps.reached.keys()


# What may happen, how often, and what is drawn for it.
ACTS: dict[str, tuple[int, Mapping[str, st.SearchStrategy[Any]]]] = {}


def act(weight: int, **drawn: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """Make a method an act. One that takes `data` draws the rest itself."""

    def mark(method: Any) -> Any:
        ACTS[method.__name__] = (weight, drawn)
        return method

    return mark


class Steps(RuleBasedStateMachine):
    """The steps, and the model. Each begins with the world as it is made."""

    world: World
    secret: str
    reached: Counter[str]

    @initialize()
    def begin(self) -> None:
        self.accesses: list[Access] = []
        self.asked: list[Asked] = []
        # Assertions that were accepted, and count once: the client that presented it, and the form.
        self.spent: list[tuple[str, dict[str, Any]]] = []
        self.disabled: set[str] = set()
        # What each client was made less of since.
        self.taken: dict[str, set[str]] = {}
        self.subjects = dict(self.world.users)
        # What each person has allowed each client, which its older accesses get, too (I-19).
        self.agreed: dict[tuple[str, str], frozenset[str]] = {}
        # Something of each kind is there already.
        self.agree("web", "ann", ALL, (RESOURCE, FILES), False, None, "")
        self.agree("native", "bob", ALL, (), True, "one", "")
        self.vouch("ann", OF_ASSERTIONS[0], "company", None, None, None)
        self._exchange(self.accesses[0].tokens[0], "api", None, RESOURCE, None, False)
        for app, key in (("tv", None), ("tv", "one"), ("printer", None)):
            self.ask_for_codes(app, ALL, key)
        for asked in self.asked[:2]:
            self._type_code(asked, "ann", "allow", False)

    def teardown(self) -> None:
        try:
            self._look_at_all()
        finally:
            self.world.clock.move_to(self.world.began)
            self.world.end_minute()
            self.world.put_everything_back()

    @rule(data=st.data())
    def happen(self, data: st.DataObject) -> None:
        """One rule for all acts: Hypothesis would switch some rules off in each sequence, and only together they are a chain."""
        name = data.draw(st.sampled_from(OFTEN))
        method = getattr(self, name)
        arguments = {each: data.draw(strategy, label=each) for each, strategy in ACTS[name][1].items()}
        if "data" in signature(method).parameters:
            arguments["data"] = data
        method(**arguments)

    # ---- what people give -----------------------------------------------------------------------------

    @act(
        2,
        app=st.sampled_from(APPLICATIONS),
        person=st.sampled_from(PEOPLE),
        scopes=st.sampled_from((ALL, ALL, frozenset({"profile"}))),
        resources=st.sampled_from(((), (RESOURCE,), (RESOURCE, FILES))),
        pushed=st.booleans(),
        key=st.sampled_from(KEYS),
        meanwhile=st.sampled_from(("", "", "", "", "wait", "person", "client")),
    )
    def agree(
        self,
        app: str,
        person: str,
        scopes: frozenset[str],
        resources: tuple[str, ...],
        pushed: bool,
        key: str | None,
        meanwhile: str,
    ) -> None:
        """A person lets an application in, and it redeems its code: now, or after something has happened."""
        scopes &= self._registered(app)
        code = self._code(app, person, scopes, resources, pushed)
        if code is None:
            return
        access = self._given(app, person, scopes, frozenset(resources or (RESOURCE,)))
        self.agreed[app, person] = self.agreed.get((app, person), frozenset()) | scopes
        made = self._now
        if meanwhile == "wait":
            self.wait(61)
        elif meanwhile:
            self.end(person if meanwhile == "person" else app, meanwhile, for_good=False, cut=False)
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
        answer = self._ask("/oauth/token", app, form, key)
        may = self._is_live(access) and self._now < made + timedelta(seconds=60)
        self._assert(answer, may and (app != "bound" or key is not None))
        if answer.status_int == 200:
            self._got(access, answer, key, "from a page" if not pushed else "from a pushed request")

    def _code(
        self, app: str, person: str, scopes: frozenset[str], resources: tuple[str, ...], pushed: bool
    ) -> str | None:
        """A code to which this person has agreed; None if they or the client may not."""
        client = self.world.clients[app]
        uri = client.redirect_uris[0]
        query = authorization_query(
            client, redirect_uri=uri, scope=" ".join(sorted(scopes)), prompt="consent", resource=resources
        )
        browser = self._signed_in(person)
        if browser is None or self._is_disabled(app) or not scopes:
            return None
        if pushed or app == "pushing":
            answer = self._send("/oauth/par", app, query)
            assert answer.status_int == 201, answer.text
            query = urlencode({"client_id": client.client_id, "request_uri": answer.json["request_uri"]})
        answer = browser.get(f"/oauth/authorize?{query}", status="*")
        while answer.status_int == 303 and answer.location.startswith(f"{ISSUER}/"):
            answer = browser.get(answer.location.removeprefix(ISSUER), status="*")
        if answer.status_int == 200:
            answer = self.world.server.consent(answer)
        return query_of(answer)["code"]

    def _signed_in(self, person: str) -> TestApp | None:
        browser = self.world.api()
        answer = sign_in_at(browser.get("/login"), person)
        assert (answer.status_int == 303) == (person not in self.disabled)
        return browser if answer.status_int == 303 else None

    def _given(self, app: str, person: str, scopes: frozenset[str], resources: frozenset[str]) -> Access:
        """What a person has agreed to, before its client has come for it."""
        ends = self._now + timedelta(seconds=self._settings.grant_lifetime)
        access = Access(app, person, scopes, resources, ends)
        self.accesses.append(access)
        return access

    # ---- devices --------------------------------------------------------------------------------------

    @act(
        1,
        app=st.sampled_from(DEVICES),
        scopes=st.sampled_from((ALL, frozenset({"profile"}))),
        key=st.sampled_from(KEYS),
    )
    def ask_for_codes(self, app: str, scopes: frozenset[str], key: str | None) -> None:
        client_id = self.world.clients[app].client_id
        form = {"client_id": client_id, "scope": " ".join(sorted(scopes))}
        answer = self._ask("/oauth/device_authorization", app, form, key)
        self._assert(answer, not self._is_disabled(app))
        if answer.status_int == 200:
            told = answer.json
            ends = self._now + timedelta(seconds=OF_DEVICES)
            self.asked.append(Asked(app, told["device_code"], told["user_code"], scopes, key, ends))

    @act(
        3,
        person=st.sampled_from(PEOPLE),
        given=st.sampled_from(("allow", "allow", "deny", "")),
        some=st.booleans(),
    )
    def type_code(self, data: st.DataObject, person: str, given: str, some: bool) -> None:
        self._type_code(data.draw(st.sampled_from(self.asked)), person, given, some)

    def _type_code(self, asked: Asked, person: str, given: str, some: bool) -> None:
        """Somebody types a code, and answers. Only the first one who does may."""
        browser = self._signed_in(person)
        if browser is None:
            return
        form = form_with(browser.get("/device"), "user_code")
        form["user_code"] = asked.user_code
        page = form.submit(expect_errors=True)
        may = asked.person in ("", person) and asked.allowed is None and not self._is_disabled(asked.app)
        may = may and self._now <= asked.ends - timedelta(seconds=INTERVAL)
        self._assert(page, may)
        if not may:
            return
        asked.person = person
        if not given:
            return
        chosen = frozenset({"profile"}) if some else asked.scopes
        form = form_with(page, "scope")
        for box in form.fields["scope"]:
            box.checked = box._value in chosen
        self._assert(form.submit("answer", value=given, expect_errors=True), True)
        asked.allowed = given == "allow"
        if asked.allowed:
            asked.access = self._given(asked.app, person, chosen, frozenset({RESOURCE}))

    @act(4, other=st.sampled_from(DEVICES), key=st.sampled_from(KEYS))
    def poll(self, data: st.DataObject, other: str, key: str | None) -> None:
        asked = data.draw(st.sampled_from(self.asked))
        by = data.draw(st.sampled_from((asked.app, asked.app, asked.app, other)))
        key = data.draw(st.sampled_from((asked.key, asked.key, key)))
        answer = self._ask("/oauth/token", by, {"grant_type": DEVICE, "device_code": asked.device_code}, key)
        access = asked.access
        may = access is not None and self._is_live(access) and by == asked.app and not asked.is_redeemed
        may = may and self._now < asked.ends and asked.key in (None, key)
        self._assert(answer, may)
        if access is not None and may:
            asked.is_redeemed = True
            self._got(access, answer, key, "from a device")

    # ---- assertions -----------------------------------------------------------------------------------

    @act(
        3,
        person=st.sampled_from(PEOPLE),
        wanted=st.sampled_from(OF_ASSERTIONS),
        way=st.sampled_from(tuple(PRESENTED)),
        by=st.sampled_from((None, None, None, "agent", "reports", "vouched", "api")),
        bound=st.sampled_from((None, None, "one")),
        key=st.sampled_from(KEYS),
    )
    def vouch(
        self,
        person: str,
        wanted: tuple[str, str],
        way: str,
        by: str | None,
        bound: str | None,
        key: str | None,
    ) -> None:
        """A client presents what an issuer says of a person, or of a program."""
        right, whom = PRESENTED[way]
        app, person = by or right, person if whom is None else whom
        name, form = self._vouched(way, person, wanted, bound)
        answer = self._ask("/oauth/token", app, form, key)
        # A plain assertion names only a person: its issuer trusts each client of the grant type.
        may = app == right or (way == "listed" and app == "agent")
        may = may and not {app, name, person} & self.disabled
        may = may and (way not in BOUND or bound in (None, key))
        self._assert(answer, may)
        if not may:
            return
        if way != "open":
            self.spent.append((app, form))
        resource, scope = wanted if way in BOUND else OF_ASSERTIONS[0]
        lifetime = 120 if way == "platform" else self._settings.access_token_lifetime
        ends = self._now + timedelta(seconds=lifetime)
        access = Access(app, person, frozenset(scope.split()), frozenset({resource}), ends, issuer=name)
        self.accesses.append(access)
        self._got(access, answer, key, f"from an assertion ({way})")

    def _vouched(
        self, way: str, person: str, wanted: tuple[str, str], bound: str | None
    ) -> tuple[str, dict[str, Any]]:
        """An issuer, and what a client sends with an assertion of it."""
        world, (resource, scope) = self.world, OF_ASSERTIONS[0]
        asking = {"grant_type": ASSERTIONS, "resource": resource, "scope": scope}
        if way == "listed":
            return TRUSTED, {**asking, "assertion": world.assertion(sub=person, jti=new_identifier())}
        if way == "platform":
            return world.platform.name, {**asking, "assertion": world.platform.assertion()}
        issuer = world.company if way == "company" else world.issuers["open"]
        claims: dict[str, Any] = {"sub": person, "resource": wanted[0], "scope": wanted[1]}
        if bound:
            claims["cnf"] = {"jkt": world.keys[bound].thumbprint()}
        return issuer.name, {"grant_type": ASSERTIONS, "assertion": issuer.assertion(**claims)}

    @act(1, key=st.sampled_from(KEYS))
    def present_again(self, data: st.DataObject, key: str | None) -> None:
        app, form = data.draw(st.sampled_from(self.spent))
        self._assert(self._ask("/oauth/token", app, form, key), False)

    @act(1, person=st.sampled_from(PEOPLE), key=st.sampled_from(KEYS))
    def exchange_assertion(self, person: str, key: str | None) -> None:
        """A service shows the JWT of an issuer that lets it be exchanged."""
        text = self.world.assertion(sub=person, jti=new_identifier())
        kind = "urn:ietf:params:oauth:token-type:jwt"
        scopes = self._registered("api")
        form = {"grant_type": EXCHANGE, "subject_token": text, "subject_token_type": kind}
        form["scope"] = " ".join(scopes)
        answer = self._ask("/oauth/token", "api", form, key)
        may = person not in self.disabled and not self._is_disabled("api")
        self._assert(answer, may)
        if answer.status_int == 200:
            ends = self._now + timedelta(seconds=120)
            resources = frozenset({RESOURCE})
            access = Access("api", person, scopes, resources, ends, issuer=TRUSTED, actors=("api",))
            self.accesses.append(access)
            self._got(access, answer, key, "from an assertion (exchanged)")

    # ---- exchange -------------------------------------------------------------------------------------

    @act(
        6,
        services=st.lists(st.sampled_from(("", "", "", *SERVICES)), min_size=1, max_size=4),
        scope=st.sampled_from((*[None] * 6, "profile", "files.read", "files.write")),
        resource=st.sampled_from((*[None] * 6, RESOURCE, FILES)),
        key=st.sampled_from((None, None, *KEYS)),
        acting=st.booleans(),
    )
    def exchange(
        self,
        data: st.DataObject,
        services: list[str],
        scope: str | None,
        resource: str | None,
        key: str | None,
        acting: bool,
    ) -> None:
        """Services call one another, each with a token for what it was called with."""
        token: Token | None = self._draw(data)
        for named in services:
            if token is None:
                return
            by = named or ("next" if token.of.app in ("api", "first") else "api")
            proven = data.draw(st.sampled_from((token.key, token.key, key)))
            token = self._exchange(token, by, scope, resource, proven, acting)

    def _exchange(
        self, token: Token, by: str, scope: str | None, resource: str | None, key: str | None, acting: bool
    ) -> Token | None:
        """What a service gets for a token that it was called with, or that it has found."""
        form: dict[str, Any] = {
            "grant_type": EXCHANGE,
            "subject_token": token.text,
            "subject_token_type": ACCESS_TOKEN,
            **({"scope": scope} if scope else {}),
            **({"resource": resource} if resource else {}),
        }
        if acting and by in ("api", "next") and not self._is_disabled(by):
            asking = {"grant_type": "client_credentials", "scope": " ".join(self._registered(by))}
            own = self._ask("/oauth/token", by, asking, None)
            form |= {"actor_token": own.json["access_token"], "actor_token_type": ACCESS_TOKEN}
        answer = self._ask("/oauth/token", by, form, key)
        parent = token.of
        may = self._is_valid(token) and self._may_exchange(by, token) and len(parent.actors) < MOST_ACTORS
        may = may and token.key in (None, key) and not self._is_disabled(by)
        may = may and bool(parent.person)
        left = token.scopes & self._registered(by)
        beyond = scope and scope not in left
        if resource is None and token.resources == {RESOURCE} and not beyond and left:
            # Nothing else is a matter of policies.
            self._assert(answer, may)
        assert may or answer.status_int in (400, 401), answer.text
        if answer.status_int != 200:
            return None
        assert not beyond
        ceiling = token.resources | ({FILES} if by == "api" else set())
        access = Access(
            by,
            parent.person,
            frozenset({scope}) if scope else left,
            frozenset({resource}) if resource else frozenset(token.resources),
            min(token.ends, self._now + timedelta(seconds=self._settings.grant_lifetime)),
            parent=parent,
            issuer=parent.issuer,
            actors=(by, *parent.actors),
        )
        assert access.resources <= ceiling
        self.accesses.append(access)
        self._got(access, answer, key, f"by exchange through {len(access.actors)}")
        return access.tokens[-1]

    def _may_exchange(self, by: str, token: Token) -> bool:
        """Its own tokens, those for itself, and those that a rule names."""
        owner = token.of.app
        if owner == "first":
            return by == "next"
        served = {"api": RESOURCE, "next": FILES}.get(by)
        is_named = (by, owner) in (("api", "post"), ("api", "next"), ("next", "api"))
        return by == owner or served in token.resources or is_named

    @act(2, audience=st.sampled_from((OUTSIDE, OUTSIDE, "https://nowhere.example", ISSUER)))
    def ask_for_assertion(self, data: st.DataObject, audience: str) -> None:
        """A client shows who is signed in, to be let in at another server; here that is worth nothing."""
        access = data.draw(st.sampled_from([access for access in self.accesses if access.refresh]))
        token = access.refresh[-1]
        form = {
            "grant_type": EXCHANGE,
            "subject_token": token.text,
            "subject_token_type": REFRESH_TOKEN,
            "requested_token_type": ID_JAG,
            "audience": audience,
        }
        answer = self._ask("/oauth/token", "web", form, None)
        may = access.app == "web" and self._is_valid(token) and audience == OUTSIDE
        self._assert(answer, may and not self._is_disabled("web"))
        if answer.status_int != 200:
            return
        self.reached["as an assertion for another server"] += 1
        text = answer.json["access_token"]
        claims = self.world.server.application.parts.signer.verify(text, typ="oauth-id-jag+jwt")
        assert (claims["aud"], claims["sub"], claims["client_id"]) == (
            OUTSIDE,
            self.subjects[access.person],
            "a",
        )
        assert datetime.fromtimestamp(claims["exp"], UTC) <= min(access.ends, token.ends)
        form = {"grant_type": ASSERTIONS, "assertion": text, "resource": RESOURCE}
        self._assert(self._ask("/oauth/token", "agent", form, None), False)
        form = {"grant_type": EXCHANGE, "subject_token": text, "subject_token_type": ACCESS_TOKEN}
        self._assert(self._ask("/oauth/token", "api", form, None), False)

    # ---- going on, and ending -------------------------------------------------------------------------

    @act(
        4,
        other=st.sampled_from((*APPLICATIONS, "api", "tv")),
        newest=st.sampled_from((True, True, True, False)),
        key=st.sampled_from(KEYS),
        resource=st.sampled_from((None, None, RESOURCE, FILES)),
    )
    def renew(
        self, data: st.DataObject, other: str, newest: bool, key: str | None, resource: str | None
    ) -> None:
        access = data.draw(st.sampled_from([access for access in self.accesses if access.refresh]))
        by = data.draw(st.sampled_from((access.app, access.app, access.app, other)))
        token = access.refresh[-1 if newest else 0]
        key = data.draw(st.sampled_from((token.key, token.key, key)))
        form = {"grant_type": "refresh_token", "refresh_token": token.text}
        form |= {"resource": resource} if resource else {}
        answer = self._ask("/oauth/token", by, form, key)
        is_owner, is_newest = by == access.app, token is access.refresh[-1]
        may = is_owner and is_newest and self._is_valid(token) and not self._is_disabled(by)
        may = may and token.key in (None, key) and (by != "bound" or key is not None)
        # CVE-2026-67332: never for a resource to which nobody agreed.
        may = may and resource in (None, *(token.resources & access.resources))
        is_whole = (
            token.scopes <= access.scopes & self._registered(by) and token.resources <= access.resources
        )
        if is_whole and resource != FILES:
            self._assert(answer, may)
        assert may or answer.status_int in (400, 401), answer.text
        if answer.status_int == 200:
            if not access.is_narrowed:
                # The person may have allowed more since.
                more = self.agreed.get((by, access.person), frozenset())
                access.scopes |= more & frozenset(answer.json["scope"].split())
            self._got(access, answer, key, "by refresh")
        elif is_owner and not is_newest and self._is_live(access) and not self._is_disabled(by):
            access.has_ended = True

    @act(3, other=st.sampled_from((*APPLICATIONS, *SERVICES, "tv", "reports")))
    def revoke(self, data: st.DataObject, other: str) -> None:
        """A client ends its own access, and all that came of it; nobody else's, and not the access that it came from."""
        token = self._draw(data, refresh=True)
        by = data.draw(st.sampled_from((token.of.app, other)))
        answer = self._ask("/oauth/revoke", by, {"token": token.text}, None)
        self._assert(answer, not self._is_disabled(by))
        counts = token in token.of.refresh or self._now < token.ends
        if by == token.of.app and not self._is_disabled(by) and counts:
            token.of.has_ended = True

    @act(
        1,
        person=st.sampled_from(PEOPLE),
        app=st.sampled_from((*APPLICATIONS, *SERVICES, *DEVICES, "vouched")),
    )
    def disconnect(self, person: str, app: str) -> None:
        """People see each access, also one that was derived or that somebody vouched for, and end it."""
        browser = self._signed_in(person)
        if browser is None:
            return
        page = browser.get("/account/apps")
        for access in self.accesses:
            if access.person == person and access.tokens and self._is_live(access):
                assert access.app in page.text, access
        client_id = self.world.clients[app].client_id
        form = {"csrf_token": token_for(self.world.server, browser, "apps"), "disconnect": client_id}
        browser.post("/account/apps", form, status="*")
        self._end_all(lambda access: (access.person, access.app) == (person, app))

    @act(
        2,
        name=st.sampled_from((*APPLICATIONS, *SERVICES, *DEVICES)),
        for_good=st.sampled_from((False, False, True)),
        cut=st.booleans(),
    )
    def end_client(self, name: str, for_good: bool, cut: bool) -> None:
        self.end(name, "client", for_good=for_good, cut=cut)

    @act(1, name=st.sampled_from(PEOPLE), for_good=st.booleans())
    def end_person(self, name: str, for_good: bool) -> None:
        self.end(name, "person", for_good=for_good, cut=False)

    @act(2, name=st.sampled_from(ISSUERS), for_good=st.booleans(), cut=st.booleans())
    def end_issuer(self, name: str, for_good: bool, cut: bool) -> None:
        self.end(name, "issuer", for_good=for_good, cut=cut)

    @act(1, name=st.sampled_from(("profile", "files.read", RESOURCE, FILES)))
    def end_scope_or_resource(self, name: str) -> None:
        self.end(name, "resource" if "://" in name else "scope", for_good=False, cut=False)

    def end(self, name: str, kind: str, *, for_good: bool, cut: bool) -> None:
        """An operator ends all of one thing; or is interrupted when that is disabled, and before anything has ended."""
        server = self.world.server
        if kind == "person":
            with server.begin() as engine:
                user = engine.stores.users.find_by_name(name)
            assert user is not None
            subject = Subject.user(user)
        else:
            subject = {
                "client": Subject.client,
                "issuer": Subject.issuer,
                "scope": Subject.scope,
                "resource": lambda uri: Subject.resource(resource_form(uri), uri),
            }[kind](name)
        cut = cut and for_good
        work = end(server.begin, Act(subject=subject, for_good=for_good))
        for _ in work:
            if cut:
                break
        work.close()
        self._was_no_request()
        if for_good and name != TRUSTED:
            self.disabled.add(name)
        if cut:
            pass
        elif kind in ("scope", "resource"):
            for access in self.accesses:
                if kind == "scope":
                    access.is_narrowed = access.is_narrowed or name in access.scopes
                    access.scopes -= {name}
                else:
                    access.resources -= {name}
            self._end_all(lambda access: not access.scopes or not access.resources)
        else:
            member = {"person": "person", "client": "app", "issuer": "issuer"}[kind]
            self._end_all(lambda access: getattr(access, member) == name)
        self._look_at_all()

    @act(2, name=st.sampled_from((*PEOPLE, *ISSUERS)))
    def enable(self, name: str) -> None:
        """What has ended does not come back."""
        if name not in self.disabled or (
            name == self.world.company.name and {"agent", "first"} & self.disabled
        ):
            # An entry that names a client is not enabled without it.
            return
        self.disabled.discard(name)
        with self.world.server.begin() as engine:
            if name in PEOPLE:
                user = engine.stores.users.find_by_name(name)
                assert user is not None
                enable_user(engine, user)
            else:
                issuer = issuer_registry.find(engine, name)
                assert issuer is not None
                issuers.enable(engine, issuer)
        self._was_no_request()

    @act(1, app=st.sampled_from(("api", "next", "web", "native")), scope=st.sampled_from(sorted(ALL)))
    def take_scope(self, app: str, scope: str) -> None:
        """A client is not registered for a scope any more: nothing new has it."""
        if self._is_disabled(app) or self._registered(app) != ALL:
            return
        with self.world.server.begin() as engine:
            edit(engine, app, ClientEdit(scopes=ListEdit(removed=(scope,))))
        self.taken[app] = {scope}
        self._was_no_request()

    @act(2, seconds=st.sampled_from((1, 5, 30, 121, 301, 599, 901, 3_601, 86_401, 1_209_601)))
    def wait(self, seconds: int) -> None:
        self.world.clock.move_to(self._now + timedelta(seconds=seconds))

    @act(
        3,
    )
    def look(self, data: st.DataObject) -> None:
        self._look(self._draw(data))

    # ---- the model ------------------------------------------------------------------------------------

    @property
    def _now(self) -> datetime:
        return datetime.now(UTC)

    @property
    def _settings(self) -> Any:
        return self.world.server.application.parts.settings

    def _is_disabled(self, app: str) -> bool:
        return app in self.disabled

    def _registered(self, app: str) -> frozenset[str]:
        return frozenset(self.world.clients[app].scopes) - self.taken.get(app, set())

    def _is_live(self, access: Access) -> bool:
        """It has not ended, nor has anything that it hangs on."""
        return (
            not access.has_ended
            and self._now < access.ends
            and not {access.app, access.person, access.issuer} & self.disabled
            and (access.parent is None or self._is_live(access.parent))
        )

    def _is_valid(self, token: Token) -> bool:
        """Whether this token is good for anything now."""
        access, is_refresh = token.of, token in token.of.refresh
        if not self._is_live(access) or self._now >= token.ends:
            return False
        if is_refresh:
            return bool(token.scopes & access.scopes and token.resources & access.resources)
        return token.scopes <= access.scopes and token.resources <= access.resources

    def _was_no_request(self) -> None:
        """What an operator has written is no answer's."""
        self.world.written()

    def _end_all(self, is_meant: Callable[[Access], bool]) -> None:
        for access in filter(is_meant, self.accesses):
            access.has_ended = True

    def _tokens(self) -> Iterator[Token]:
        for access in self.accesses:
            yield from access.tokens

    def _draw(self, data: st.DataObject, *, refresh: bool = False) -> Token:
        """Some token; more often one of those that were issued last."""
        tokens = [*self._tokens(), *(each for access in self.accesses for each in access.refresh if refresh)]
        return data.draw(st.sampled_from([*tokens, *tokens[-6:], *tokens[-2:]]))

    def _got(self, access: Access, answer: TestResponse, key: str | None, way: str) -> None:
        """What an answer gives belongs to this access, and is no more than that."""
        self.reached[way] += 1
        is_bound = key is not None
        told = self._introspected(answer.json["access_token"])
        assert told["active"], (answer.json, access)
        scopes, audience = frozenset(told["scope"].split()), told["aud"]
        resources = frozenset([audience] if isinstance(audience, str) else audience)
        assert scopes <= access.scopes & self._registered(access.app), (told, access)
        assert resources <= access.resources, (told, access)
        assert told["client_id"] == self.world.clients[access.app].client_id
        assert told.get("cnf") == ({"jkt": self.world.keys[key].thumbprint()} if key else None)
        assert (answer.json["token_type"] == "DPoP") == is_bound
        if access.person:
            assert told["sub"] == self.subjects.setdefault(access.person, told["sub"])
        else:
            assert told["sub"] == "workload:job"
        assert _actors(told.get("act")) == access.actors
        (grant,) = self.world.database.execute(
            "SELECT * FROM grants WHERE grant_id = ?", (told["jti"].partition(".")[0],)
        ).fetchall()
        ends = datetime.fromisoformat(grant["expires_at"]).replace(tzinfo=UTC)
        assert ends <= access.ends
        expires = datetime.fromtimestamp(told["exp"], UTC)
        assert expires <= ends
        if not access.tokens:
            access.ends = ends
            access.scopes, access.resources = (
                kept & frozenset(grant[column].split())
                for column, kept in (("scopes", access.scopes), ("resources", access.resources))
            )
        access.tokens.append(
            Token(
                text=answer.json["access_token"],
                of=access,
                scopes=scopes,
                resources=resources,
                key=key,
                ends=expires,
            )
        )
        if "refresh_token" in answer.json:
            client = self.world.clients[access.app]
            kept = access.refresh[-1] if access.refresh else None
            token = Token(
                text=answer.json["refresh_token"],
                of=access,
                scopes=kept.scopes if kept else frozenset(access.scopes),
                resources=kept.resources if kept else frozenset(access.resources),
                key=key if client.is_public else None,
                ends=min(ends, self._now + timedelta(seconds=OF_REFRESH_TOKENS)),
            )
            access.refresh.append(token)

    def _look_at_all(self) -> None:
        for token in self._tokens():
            if self._now < token.ends:
                self._look(token)

    def _look(self, token: Token) -> None:
        """A service that asks about a token is told what the model says."""
        told = self._introspected(token.text)
        assert told["active"] == self._is_valid(token), (told, token, token.of, self.disabled)

    def _introspected(self, text: str) -> dict[str, Any]:
        headers = {"Authorization": basic(READER, self.secret)}
        answer = self.world.api().post(
            "/oauth/introspect", urlencode({"token": text}), headers, content_type=FORM
        )
        told: dict[str, Any] = answer.json
        return told

    def _ask(self, path: str, app: str, form: dict[str, Any], key: str | None) -> TestResponse:
        headers = {}
        if key is not None:
            headers["DPoP"] = self.world.proof(key, htu=f"{ISSUER}{path}", jti=new_identifier())
        return self._send(path, app, urlencode(form, doseq=True), headers)

    def _send(self, path: str, app: str, form: str, headers: dict[str, str] | None = None) -> TestResponse:
        client, headers = self.world.clients[app], headers or {}
        if client.auth_method == "client_secret_basic":
            headers["Authorization"] = basic(client.client_id, self.world.secrets[app] or "")
        elif "client_id=" not in form:
            form = f"{form}&{urlencode({'client_id': client.client_id})}"
        return self.world.api().post(path, form, headers=headers, content_type=FORM, status="*")

    @staticmethod
    def _assert(answer: TestResponse, may: bool) -> None:
        assert (answer.status_int == 200) == may, (answer.status, answer.text[:2_000])


def _actors(actor: Any) -> tuple[str, ...]:
    return () if actor is None else (actor["sub"], *_actors(actor.get("act")))


OFTEN = [name for name, (weight, _) in ACTS.items() for _ in range(weight)]
