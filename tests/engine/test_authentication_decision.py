"""What policies may demand of the sign-in behind an authorization request: `authentication_decision`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from authserver import app
from authserver.api import (
    AuthenticationStep,
    Client,
    Decision,
    Parameters,
    Session,
    SignIn,
    User,
    allow,
    deny,
    hookimpl,
    narrow,
)
from authserver.engine import authorize
from authserver.engine.authorization_request import _strictest
from authserver.engine.authorize import AskConsent, AskLogin, Redirect
from authserver.engine.context import Engine
from authserver.engine.decisions import Verdict
from authserver.engine.errors import PageError, RedirectError
from authserver.engine.pending import Browser, mark_of
from authserver.engine.records import RegisteredBy
from authserver.engine.session_handles import session_handle
from authserver.limits import MAXIMUM_LEVEL, MAXIMUM_WHY
from authserver.plugins.asking import PluginSet
from authserver.testing.records import NOW, a_client, a_session, a_user
from authserver.testing.rules import over
from authserver.testing.server import SETTINGS
from authserver.testing.stores import MemoryStores

ADA = a_user()
CLIENT = a_client(scopes=("profile", "files.read"))
OLD = a_session(authenticated_at=NOW - timedelta(microseconds=1), details={"amr": ["pwd"]})
NEW = replace(OLD, digest=b"digest of a new session id", authenticated_at=NOW + timedelta(seconds=30))
NOBODY = Browser()
SIGNED_IN = Browser(session_id="old", session=OLD, user=ADA)
AGAIN = allow("fresh", AuthenticationStep.SIGN_IN_AGAIN)
GO_ON = allow("fine", AuthenticationStep.GO_ON)
REFUSED = deny("nobody-to-ask", "login_required")

SAYS: list[Callable[[], Any]] = []
ASKED: list[tuple[Client, User | None, Session | None, Parameters]] = []

Make = Callable[..., Engine]


@dataclass(frozen=True)
class Says:
    """Says what the test says."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def authentication_decision(
        self, client: Client, user: User | None, session: Session | None, parameters: Parameters
    ) -> Decision[AuthenticationStep] | None:
        ASKED.append((client, user, session, parameters))
        return SAYS[-1]()


@pytest.fixture(scope="module")
def built() -> app.Application:
    return app.build({**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"})


@pytest.fixture
def make(built: app.Application, memory_stores: MemoryStores) -> Iterator[Make]:
    """An engine with the policies of the tests and one that says this, at some time."""
    memory_stores.clients.add(CLIENT)
    memory_stores.users.add(ADA)
    memory_stores.sessions.add(OLD)
    memory_stores.sessions.add(NEW)
    shipped = [(name, built.parts.policies.plugin(name)) for name in built.parts.policies.names]

    def make(says: Decision[Any] | Callable[[], Any] | None, *, seconds: int = 0) -> Engine:
        SAYS[:] = [says if callable(says) else lambda: says]
        policies = PluginSet([*shipped, ("says", Says())])
        parts = replace(over(memory_stores, built.parts), policies=policies)
        return Engine.of(parts, memory_stores, NOW + timedelta(seconds=seconds))

    ASKED.clear()
    yield make
    SAYS.clear()


def request_of(client: Client = CLIENT, **changes: str) -> str:
    return urlencode(
        {
            "response_type": "code",
            "client_id": client.client_id,
            "redirect_uri": client.redirect_uris[0],
            "scope": "profile",
            "state": "xyz",
            "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
            "code_challenge_method": "S256",
        }
        | changes
    )


def begin(engine: Engine, browser: Browser, text: str | None = None) -> authorize.Outcome:
    return authorize.begin(engine, Parameters.parse(text or request_of()), browser)


def marked(engine: Engine, browser: Browser, asked: AskLogin | AskConsent) -> Browser:
    """The browser in which this request began."""
    return replace(browser, marks={asked.handle: mark_of(engine, asked.handle)})


def refused(engine: Engine, browser: Browser, text: str | None = None) -> RedirectError:
    with pytest.raises(RedirectError) as caught:
        begin(engine, browser, text)
    return caught.value


@pytest.mark.parametrize(
    ("browser", "says", "outcome", "again"),
    [
        (NOBODY, None, AskLogin, False),
        (NOBODY, GO_ON, AskLogin, False),
        (NOBODY, AGAIN, AskLogin, False),
        (SIGNED_IN, None, AskConsent, None),
        (SIGNED_IN, GO_ON, AskConsent, None),
        (SIGNED_IN, AGAIN, AskLogin, True),
        (replace(SIGNED_IN, session=NEW), AGAIN, AskConsent, None),
    ],
)
def test_what_comes_next(
    make: Make, browser: Browser, says: Decision[Any], outcome: type, again: bool
) -> None:
    """E-01: nobody goes on without a sign-in, whatever a policy says; and a fresh one is enough for every policy."""
    asked = begin(make(says), browser)
    assert type(asked) is outcome
    assert getattr(asked, "again", None) == again


@pytest.mark.parametrize("browser", [NOBODY, SIGNED_IN])
@pytest.mark.parametrize(
    ("says", "code"),
    [
        (REFUSED, "login_required"),
        (deny("nobody-to-ask", "interaction_required"), "interaction_required"),
        (deny("nobody-to-ask"), "access_denied"),
    ],
)
def test_a_refusal_goes_to_the_client_with_its_code(
    make: Make, memory_stores: MemoryStores, browser: Browser, says: Decision[Any], code: str
) -> None:
    """OAuth 2.1, 4.1.2.1: before any page, to the redirect URI that was accepted, with the state."""
    before = memory_stores.tables.copy()
    engine = make(says)
    error = refused(engine, browser)
    assert (error.code, error.reason, error.ask_first) == (code, "nobody-to-ask", False)
    location = urlsplit(authorize.error_location(error, "https://as.example"))
    assert location.netloc == "reports.example"
    assert parse_qs(location.query) == {
        "error": [code],
        "error_description": ["This is not allowed here."],
        "state": ["xyz"],
        "iss": ["https://as.example"],
    }
    assert memory_stores.tables == before
    record = engine.journal.decisions[-1].as_record()
    assert (record["verdict"], record["outcome"]) == ("deny", says.error_code)


def test_it_is_asked_about_this_person_this_session_and_these_parameters(make: Make) -> None:
    """All of them as they were sent; nobody is nobody."""
    engine = make(None)
    sent = Parameters.parse(request_of(ui="none"))
    for browser in (NOBODY, SIGNED_IN):
        authorize.begin(engine, sent, browser)
    assert [(CLIENT, None, None, sent), (CLIENT, ADA, OLD, sent)] == ASKED


def test_what_is_written_down_holds_no_parameter(make: Make) -> None:
    """T145: what a stranger sends may be long, and may be a token."""
    engine = make(None)
    begin(engine, SIGNED_IN, request_of(id_token_hint="canary"))
    (record,) = (ruling.as_record() for ruling in engine.journal.decisions if ruling.hook.startswith("auth"))
    assert record["facts"] == {
        "client_id": "reports",
        "user_id": "user_ada",
        "authenticated_at": OLD.authenticated_at.isoformat(),
        "is_fresh": False,
    }


@pytest.mark.parametrize("changes", [{"client_id": "other"}, {"redirect_uri": "https://evil.example/cb"}])
@pytest.mark.parametrize("browser", [NOBODY, SIGNED_IN])
def test_nobody_is_asked_before_the_redirect_uri_is_accepted(
    make: Make, browser: Browser, changes: dict[str, str]
) -> None:
    """T001: `login_required` does not make an open redirector of us."""
    with pytest.raises(PageError):
        begin(make(REFUSED), browser, request_of(**changes))
    assert ASKED == []


@pytest.mark.parametrize("text", [f"{request_of()}&ui=a&ui=b", request_of(state="é")])
def test_a_request_of_bad_form_is_not_asked_about(make: Make, text: str) -> None:
    """OAuth 2.1, 7.13.2: whoever is signed in takes its error to the client, everybody else signs in first."""
    engine = make(REFUSED)
    assert type(begin(engine, NOBODY, text)) is AskLogin
    assert refused(engine, SIGNED_IN, text).code == "invalid_request"
    assert engine.journal.user_id == ADA.user_id
    assert ASKED == []


def test_a_client_that_registered_itself_gets_its_refusal_from_the_person(
    make: Make, memory_stores: MemoryStores
) -> None:
    """B-17: nobody vouches for its redirect URI, so nobody is sent there unasked."""
    client = a_client(client_id="itself", registered_by=RegisteredBy.SELF)
    memory_stores.clients.add(client)
    assert refused(make(deny("not-now")), NOBODY, request_of(client)).ask_first


def test_a_request_that_may_show_no_page_shows_none(make: Make, memory_stores: MemoryStores) -> None:
    """B-16 before B-17, OIDC-05: with the code of such a request, also for a client that registered itself."""
    client = a_client(client_id="itself", registered_by=RegisteredBy.SELF)
    memory_stores.clients.add(client)
    assert not refused(make(REFUSED), NOBODY, request_of(client)).ask_first


def test_what_one_policy_demands_counts_whatever_others_say(make: Make) -> None:
    """The strictest step, silence, a page, the first level and the first sentence, in whichever order they are said."""
    said = [
        SignIn(acr="gold", silent=True),
        SignIn(step=AuthenticationStep.SIGN_IN_AGAIN, why="Again."),
        SignIn(asks=True, acr="silver"),
    ]
    for order in (said, said[::-1]):
        acr = next(each.acr for each in order if each.acr)
        assert _strictest(order) == SignIn(
            step=AuthenticationStep.SIGN_IN_AGAIN, why="Again.", acr=acr, silent=True, asks=True
        )
    assert _strictest([]) == SignIn()


def raising() -> Decision[Any]:
    raise RuntimeError("canary")


BAD: dict[str, Any] = {
    "no step": allow("fine"),
    "the name of a step": allow("fine", "sign_in_again"),
    "an unknown step": allow("fine", "sign_out"),
    "something else": allow("fine", object()),
    "a narrowing": narrow("fine", ("sign_in_again",)),
    "a step with a code": replace(GO_ON, error_code="login_required"),
    "a refusal with a step": Decision(Verdict.DENY, "no", AuthenticationStep.GO_ON),
    "a long sentence": allow("fine", SignIn(why="a" * (MAXIMUM_WHY + 1))),
    "a level with a space": allow("fine", SignIn(acr="two factors")),
    "a level without a name": allow("fine", SignIn(acr="")),
    "a long level": allow("fine", SignIn(acr="a" * (MAXIMUM_LEVEL + 1))),
    "the name of a step inside": allow("fine", SignIn(step="sign_in_again")),
    "an unknown step inside": allow("fine", SignIn(step="sign_out")),
    "a level that is no text": allow("fine", SignIn(acr=7)),
    "a sentence that is no text": allow("fine", SignIn(why=None)),
    "a code with a space": deny("no", "login required"),
    "a code with a line end": deny("no", "login_required\r\nLocation: https://evil.example"),
    "a code in capitals": deny("no", "LOGIN"),
    "a code of another alphabet": deny("no", "логин"),
    "an empty code": deny("no", ""),
    "a long code": deny("no", "a" * 51),
    "a huge code": deny("no", "a" * 10_000_000),
    "a code that is no text": deny("no", 7),
    "a huge reason": deny("a" * 10_000_000, "login_required"),
    "no decision": "login_required",
    "a failure": raising,
}


@pytest.mark.parametrize("browser", [NOBODY, SIGNED_IN])
@pytest.mark.parametrize("says", BAD.values(), ids=BAD)
def test_a_bad_answer_is_a_server_error(
    make: Make, memory_stores: MemoryStores, browser: Browser, says: Any
) -> None:
    """R-14, T140: nothing is issued, and nothing of the answer leaves the house."""
    before = memory_stores.tables.copy()
    error = refused(make(says), browser)
    assert error.code == "server_error"
    assert "canary" not in error.description
    assert memory_stores.tables == before


def test_the_pending_request_survives_a_second_sign_in(make: Make, memory_stores: MemoryStores) -> None:
    """T024; OIDC Core, 3.1.2.1 (`prompt=login`): however often the policy asks, one fresh sign-in answers it."""
    engine = make(AGAIN)
    asked = begin(engine, SIGNED_IN)
    assert isinstance(asked, AskLogin)
    before = marked(engine, SIGNED_IN, asked)
    # The session that was there leads back to the sign-in page, and the page shows its form.
    again = authorize.resume(engine, asked.sealed_request, before)
    assert isinstance(again, AskLogin) and again.again
    assert authorize.wants_sign_in_again(engine, again.sealed_request, before)
    after, later = replace(before, session_id="new", session=NEW), make(AGAIN, seconds=60)
    assert not authorize.wants_sign_in_again(later, again.sealed_request, after)
    page = authorize.resume(later, again.sealed_request, after)
    assert isinstance(page, AskConsent)
    answered = authorize.answer(
        later,
        page.sealed_request,
        after,
        form_token=page.form_token,
        allowed=True,
        scopes=("profile",),
        confirmed=False,
    )
    assert isinstance(answered, Redirect)
    (grant,) = memory_stores.tables.grants.values()
    assert grant.details["auth_time"] == int(NEW.authenticated_at.timestamp())


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (SignIn(step=AuthenticationStep.SIGN_IN_AGAIN, why="It is late."), "It is late."),
        (SignIn(step=AuthenticationStep.SIGN_IN_AGAIN), ""),
        (AuthenticationStep.SIGN_IN_AGAIN, ""),
    ],
)
def test_the_sign_in_page_can_say_why(make: Make, says: AuthenticationStep | SignIn, why: str) -> None:
    """It travels with the request, so that a page which comes back says the same."""
    engine = make(allow("fresh", says))
    asked = begin(engine, SIGNED_IN)
    assert isinstance(asked, AskLogin)
    browser = marked(engine, SIGNED_IN, asked)
    assert authorize.describe_pending(engine, asked.sealed_request, browser).why == why


def test_the_level_that_a_policy_names_is_kept_with_the_grant(
    make: Make, memory_stores: MemoryStores
) -> None:
    """STEP-06, N-08; the words for the sign-in page are not, nor is a level where a new sign-in is needed."""
    engine = make(allow("fine", SignIn(acr="gold", why="Nobody sees this.")))
    page = begin(engine, SIGNED_IN)
    assert isinstance(page, AskConsent)
    authorize.answer(
        engine,
        page.sealed_request,
        marked(engine, SIGNED_IN, page),
        form_token=page.form_token,
        allowed=True,
        scopes=("profile",),
        confirmed=False,
    )
    (grant,) = memory_stores.tables.grants.values()
    assert dict(grant.details) == {
        "acr": "gold",
        "amr": ["pwd"],
        "auth_time": int(OLD.authenticated_at.timestamp()),
        "session": session_handle(OLD),
    }


def test_a_request_without_pages_is_refused_where_one_would_ask(
    make: Make, memory_stores: MemoryStores
) -> None:
    """OpenID Connect Core, 3.1.2.6."""
    before = memory_stores.tables.copy()
    error = refused(make(allow("quiet", SignIn(silent=True))), SIGNED_IN)
    assert (error.code, error.reason) == ("consent_required", "consent-needed")
    assert memory_stores.tables == before


@pytest.mark.parametrize("sealed", ["", "garbage"])
def test_a_request_that_cannot_go_on_wants_no_sign_in(make: Make, sealed: str) -> None:
    assert not authorize.wants_sign_in_again(make(AGAIN), sealed, SIGNED_IN)


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize(("says", "outcome"), [(AGAIN, AskLogin), (REFUSED, RedirectError)])
def test_it_is_asked_again_when_the_page_is_answered(
    make: Make, memory_stores: MemoryStores, allowed: bool, says: Decision[Any], outcome: type
) -> None:
    """E-02: everything is checked again; what a policy allowed when the page was shown it may refuse now."""
    engine = make(None)
    page = begin(engine, SIGNED_IN)
    assert isinstance(page, AskConsent)
    browser, before = marked(engine, SIGNED_IN, page), memory_stores.tables.copy()
    SAYS.append(lambda: says)
    try:
        answered: object = authorize.answer(
            engine,
            page.sealed_request,
            browser,
            form_token=page.form_token,
            allowed=allowed,
            scopes=("profile",),
            confirmed=False,
        )
    except RedirectError as error:
        answered = error
    assert type(answered) is outcome
    assert memory_stores.tables == before
