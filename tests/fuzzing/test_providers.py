"""Whatever a browser, a stranger or the provider itself sends where people sign in through a provider: what `World` says must be true.

`make fuzz` sends many more. Nobody gets into an account that is not theirs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.testing import hostile
from authserver.testing.server import ISSUER, form_with
from tests.features.upstream_steps import Liar, a_liar, query_of, with_provider
from tests.fuzzing.conftest import IS_LONG, examples
from tests.fuzzing.documents import ANSWERS
from tests.fuzzing.world import Known, Message, World
from tests.web.account_steps import form_token

EACH = 2_000 if IS_LONG else 80
EVENT = "http://schemas.openid.net/event/backchannel-logout"
START, CALLBACK, LOGOUT, ACCOUNT = (
    "/login/staff",
    "/login/staff/callback",
    "/login/staff/logout",
    "/account/identities",
)
# Attempts that wait for their answer, by the browser in which they began.
ATTEMPTS = ("nobody", "ann", "bob")


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    with a_liar() as liar:
        yield liar


@pytest.fixture(scope="module")
def world(
    liar: Liar, migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    path = Path(shutil.copy(migrated_sqlite_file, folder / "authserver.db"))
    liar.configuration["userinfo_endpoint"] = f"{liar.issuer}/userinfo"
    settings = with_provider(
        liar.issuer,
        "authserver",
        "secret",
        groups_claim="groups",
        attributes="email = email",
        trusts_methods="true",
    )
    settings = {name: text for name, text in settings.items() if name.startswith("authserver.plugin.")}
    world = World(path, folder, settings, "upstream")
    world.elsewhere = f"{liar.issuer}/authorize?"
    _begin(world, liar)
    world.keep()
    yield world
    world.close()


def _begin(world: World, liar: Liar) -> None:
    """Attempts of people: nobody signs in, bob is to sign in again, and ann adds the provider to her account."""
    for name in ATTEMPTS:
        browser = world.server.browser()
        if name != "nobody":
            assert world.server.sign_in(browser, name).status_int == 303
        if name == "ann":
            away = form_with(browser.get(ACCOUNT), "add").submit("add")
            world.known["token of adding"] = form_token(world.server, browser, "account_identities")
        else:
            query = {"page": "account_apps", "again": "yes"} if name == "bob" else {}
            away = browser.get(START, query)
        sent = query_of(away.location)
        world.known[f"state of {name}"] = sent["state"]
        world.nonces[name] = sent["nonce"]
        world.known[f"cookies at the provider of {name}"] = "; ".join(
            f"{k}={v}" for k, v in browser.cookies.items()
        )
    world.known["issuer"] = liar.issuer


TEXTS = st.sampled_from(
    [*hostile.SCOPES, *hostile.REDIRECT_URIS, "ann", "bob", "root", "a\0b", "é" * 300, ""]
)
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**70), TEXTS, st.lists(TEXTS, max_size=2), st.just({})
)
CLAIMS = (
    *(
        "iss",
        "sub",
        "aud",
        "azp",
        "nonce",
        "exp",
        "iat",
        "nbf",
        "auth_time",
        "acr",
        "amr",
        "sid",
        "jti",
        "events",
    ),
    *("preferred_username", "name", "email", "email_verified", "groups", "at_hash"),
)
LIES = st.dictionaries(st.sampled_from(CLAIMS), ODD, max_size=3)
HEADERS = st.dictionaries(
    st.sampled_from(("alg", "kid", "typ", "crit", "jku", "jwk", "x5u", "b64")), ODD, max_size=2
)
BROKEN = st.dictionaries(
    st.sampled_from(("/token", "/keys", "/userinfo", "/.well-known/openid-configuration")),
    st.sampled_from(sorted(ANSWERS)),
    max_size=1,
)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """A request to one of the addresses: as browsers and providers send them, and with anything else."""
    who = draw(st.sampled_from(ATTEMPTS))
    names = [Known(f"state of {name}") for name in (who, who, who, *ATTEMPTS)]
    headers = (
        ("Cookie", Known(f"cookies at the provider of {draw(st.sampled_from((who, who, who, *ATTEMPTS)))}")),
    )
    more = draw(
        st.lists(
            st.tuples(st.sampled_from(("state", "code", "iss", "error", "page", "x")), TEXTS), max_size=2
        )
    )
    match draw(st.sampled_from(("callback", "callback", "callback", "start", "account", "path"))):
        case "callback":
            pairs: list[tuple[Any, Any]] = [("state", draw(st.sampled_from(names))), ("code", "a-code")]
            if draw(st.booleans()):
                pairs.append(("iss", Known("issuer")))
            if not draw(st.integers(0, 5)):
                errors = (
                    "access_denied",
                    "login_required",
                    "server_error",
                    "invalid_request",
                    "<x>",
                    "é" * 200,
                )
                pairs[1] = ("error", draw(st.sampled_from(errors)))
            later = draw(st.sampled_from((0, 0, 0, 5, 899, 1_000, 100_000)))
            return Message(method="GET", path=CALLBACK, query=(*pairs, *more), headers=headers, later=later)
        case "start":
            asked = [
                ("request", Known("sealed request of nobody")),
                ("page", "account_apps"),
                ("again", "yes"),
            ]
            chosen = draw(st.lists(st.sampled_from(asked), max_size=3, unique_by=lambda pair: pair[0]))
            return Message(method="GET", path=START, query=(*chosen, *more), headers=headers)
        case "account":
            choice = draw(st.sampled_from((("add", "staff"), ("add", "x"), ("remove", "x"), ("remove", ""))))
            token = draw(st.sampled_from((Known("token of adding"), "x")))
            return Message(
                method="POST",
                path=ACCOUNT,
                form=(choice, ("csrf_token", token), *more),
                headers=(*headers, ("Origin", ISSUER)),
            )
    path = draw(
        st.sampled_from(("/login/x", "/login/x/callback", "/login/staff/", "/login/STAFF", "/login/staff%2f"))
    )
    return Message(method=draw(st.sampled_from(("GET", "POST"))), path=path, headers=headers)


def _lie(liar: Liar, claims: Mapping[str, Any], header: Mapping[str, Any], broken: Mapping[str, str]) -> None:
    liar.claims, liar.header = dict(claims), dict(header)
    liar.answers.clear()
    liar.answers.update({path: ANSWERS[name] for path, name in broken.items()})


@examples(EACH)
@given(message=messages(), claims=LIES, header=HEADERS, broken=BROKEN)
def test_the_way_through_a_provider_stands(
    world: World, liar: Liar, message: Message, claims: Any, header: Any, broken: Any
) -> None:
    """UP-01, UP-02, UP-03, UP-06: an answer that is not right signs nobody in, and whoever comes in is who they are there."""
    _lie(liar, claims, header, broken)
    state = next(
        (value.name for name, value in message.query if name == "state" and isinstance(value, Known)), ""
    )
    attempt = state.removeprefix("state of ")
    liar.nonce = world.nonces.get(attempt, "")
    answer = world.send(message)
    kinds = [event["type"] for event in world.last.events]
    about = {event["user_id"] for event in world.last.events if event["type"] == "identity.joined"}
    if answer.status_int != 303:
        assert not {"sign_in.succeeded", "identity.joined", "user.added"} & set(kinds), kinds
        return
    if message.path == CALLBACK:
        assert message.later < 900 and not broken.keys() & {"/token", "/userinfo"}
        assert not {"nonce", "iss", "aud", "sub"} & claims.keys() or all(
            claims.get(name, expected) == expected or name == "sub"
            for name, expected in (("iss", liar.issuer), ("aud", "authserver"), ("nonce", liar.nonce))
        )
    # By its own wish alone, ann's account has an identity more; and nobody else's has one without being new.
    known = set(world.users.values())
    assert about & known <= ({world.users["ann"]} if attempt == "ann" else set())
    assert ("user.added" in kinds) == bool(about - known)


@st.composite
def logout_tokens(draw: st.DrawFn) -> dict[str, Any]:
    right = {
        "nonce": None,
        "jti": draw(st.sampled_from(("one", "two"))),
        "events": {EVENT: {}},
        "sid": "there",
    }
    return {**right, **draw(LIES)}


@examples(EACH)
@given(claims=logout_tokens(), header=HEADERS, broken=BROKEN, text=st.none() | TEXTS)
def test_what_says_that_somebody_signed_out_stands(
    world: World, liar: Liar, claims: Any, header: Any, broken: Any, text: Any
) -> None:
    """UP-10: whoever sends it, and whatever it is; no session ends that did not come from there."""
    _lie(liar, {}, {}, broken)
    token = text
    if token is None:
        liar.header = {"typ": "logout+jwt", **header}
        try:
            token = liar.id_token(**claims)
        except Exception:  # not even the library signs that
            token = "a.b.c"
        liar.header = {}
    answer = world.send(Message(method="POST", path=LOGOUT, form=(("logout_token", token),)))
    assert answer.status_int in (200, 400, 503), answer.status
    assert not [event for event in world.last.events if event["type"] == "session.ended"]
    if answer.status_int == 200:
        assert text is None and broken.keys() <= {"/token", "/userinfo"}
