"""The groups and attributes of people: kept, brought along at a sign-in, and seen by policies whenever they are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import pytest

from authserver.api import Consent, Decision, Identity, User, allow, hookimpl
from authserver.engine.authorize import AskConsent
from authserver.engine.context import Caller
from authserver.engine.errors import ServerError
from authserver.engine.people.attributes import ChangedMeanwhile, change
from authserver.engine.people.login import SignedIn, sign_in
from authserver.engine.questions import ConsentQuestion, Known, ScopeQuestion
from authserver.explaining.replay import Result, replay
from authserver.settings import Secret
from authserver.testing.records import a_client, a_user
from authserver.testing.rules import Rules, assert_refused
from authserver.testing.server import SETTINGS

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
STRANGER = Caller(endpoint="login")
# What the directory says at the next sign-in.
SAYS: dict[str, Any] = {}
# What happens while it is asked.
MEANWHILE: list[Callable[[], None]] = []


@dataclass(frozen=True)
class Directory:
    """Signs everybody in who types a name."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def login_decision(self, username: str) -> Decision[Identity] | None:
        while MEANWHILE:
            MEANWHILE.pop()()
        return allow("directory", Identity(username=username, **SAYS))


@dataclass(frozen=True)
class Shows:
    """Answers by groups and attributes wherever a hook gets the user."""

    claims: ClassVar[frozenset[str]] = frozenset({"department", "groups"})
    immediate: ClassVar[bool] = True

    @hookimpl
    def consent_decision(self, user: User, remembered: Consent | None) -> Decision[None] | None:
        return allow("staff") if "staff" in user.groups else None

    @hookimpl
    def token_claims(self, user: User | None) -> Mapping[str, object] | None:
        if user is None:
            return None
        return {"department": list(user.attributes.get("department", ())), "groups": list(user.groups)}


@pytest.fixture
def directory() -> Iterator[Rules]:
    SAYS.clear()
    yield Rules({"authserver.plugins": f"{SETTINGS['authserver.plugins']} {__name__}:Directory"})
    SAYS.clear()


def signed_in(rules: Rules, name: str = "ann", **says: Any) -> User:
    SAYS.clear()
    SAYS.update(says)
    with rules.begin() as engine:
        result: SignedIn = sign_in(replace(engine, caller=STRANGER), name, Secret(""))
        stored = engine.stores.users.find(result.user.user_id)
    assert stored == result.user
    return result.user


def test_a_sign_in_brings_groups_and_attributes_along(directory: Rules) -> None:
    """A new person has them from the beginning, and one that is known gets the present ones."""
    first = signed_in(directory, groups=("staff", "finance"), attributes={"department": ("payments",)})
    assert (first.groups, first.attributes) == (("finance", "staff"), {"department": ("payments",)})
    with pytest.raises(TypeError):
        first.attributes["department"] = ()
    second = signed_in(directory, groups=["staff", "audit"], attributes={"room": ["12", "12"], "empty": ()})
    assert second == replace(first, groups=("audit", "staff"), attributes={"room": ("12",)})
    assert [row["details"] for row in directory.events("user.changed")] == [
        {"groups_added": ["audit"], "groups_removed": ["finance"], "attributes": ["department", "room"]}
    ]
    (event,) = directory.events("user.changed")
    assert (event["actor"], event["reason"]) == (f"user:{first.user_id}", "directory")


def test_a_sign_in_that_says_nothing_about_them_changes_nothing(directory: Rules) -> None:
    before = signed_in(directory, groups=("staff",), attributes={"room": ("12",)})
    assert signed_in(directory) == before
    assert signed_in(directory, groups=("staff",)) == before
    assert signed_in(directory, attributes={"room": ("12",)}) == before
    assert directory.events("user.changed") == []
    assert signed_in(directory, groups=(), attributes={}) == replace(before, groups=(), attributes={})


@pytest.mark.parametrize(
    "says",
    [
        {"groups": "staff"},
        {"groups": ("",)},
        {"groups": ("a\nb",)},
        {"groups": (" a",)},
        {"groups": (1,)},
        {"groups": tuple(f"g{number}" for number in range(101))},
        {"attributes": {"": ("x",)}},
        {"attributes": {"a=b": ("x",)}},
        {"attributes": {"room": "12"}},
        {"attributes": {"room": ("x" * 201,)}},
        {"attributes": {1: ("x",)}},
        {"attributes": [("room", "12")]},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["ann", "known"])
def test_what_cannot_be_kept_signs_nobody_in(directory: Rules, name: str, says: dict[str, Any]) -> None:
    """R-14: the plugin is at fault; nothing of it is stored, and nobody is created."""
    signed_in(directory, "known", groups=("staff",))
    before = directory.rows("users"), directory.rows("sessions")
    with pytest.raises(ServerError) as refused:
        signed_in(directory, name, **says)
    assert refused.value.reason == "wrong-value"
    assert (directory.rows("users"), directory.rows("sessions")) == before


def test_a_sign_in_does_not_undo_what_an_operator_changed_meanwhile(directory: Rules) -> None:
    """T144: a directory may take its time; what it does not say anything about stays as it is now."""
    signed_in(directory, groups=("staff",), attributes={"clearance": ("secret",)})
    MEANWHILE.append(lambda: edit(directory, display_name="Ann Lee", attributes={}))
    user = signed_in(directory, groups=("audit",))
    assert (user.groups, user.attributes, user.display_name) == (("audit",), {}, "Ann Lee")
    *_, event = directory.events("user.changed")
    assert event["details"] == {"groups_added": ["audit"], "groups_removed": ["staff"]}


def test_two_operators_cannot_undo_each_others_change(rules: Rules) -> None:
    with rules.begin() as engine:
        read = engine.stores.users.find_by_name("ann")
        assert read is not None
        assert change(engine, read, groups=("staff",)).groups == ("staff",)
        with pytest.raises(ChangedMeanwhile, match="try again"):
            change(engine, read, groups=("finance",))
    assert rules.rows("users")[0]["groups"] == ("staff",)


@pytest.fixture
def finance(monkeypatch: pytest.MonkeyPatch) -> Rules:
    """The example of docs/writing-plugins.rst: files.read is for the group finance."""
    monkeypatch.syspath_prepend(EXAMPLES)
    plugins = f"{SETTINGS['authserver.plugins']} group_scopes:GroupScopes {__name__}:Shows"
    return Rules(
        {
            "authserver.plugins": plugins,
            "authserver.plugin.group_scopes.scopes": "files.read = finance board",
        }
    )


def edit(rules: Rules, **changes: Any) -> None:
    with rules.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
        assert user is not None
        change(engine, user, **changes)


def test_the_example_gives_a_scope_to_one_group_alone(finance: Rules) -> None:
    finance.add_user("ann", groups=("staff",), attributes={"department": ("payments",)})
    client, secret = finance.add_client()
    answer = finance.redeem(client, secret, finance.code(client, scope="profile files.read")).json
    assert answer["scope"] == "profile"
    claims = finance.claims(answer["access_token"])
    assert (claims["department"], claims["groups"]) == (["payments"], ["staff"])
    edit(finance, groups=("finance",))
    browser = finance.signed_in()
    asked = finance.authorize(client, browser, scope="profile files.read")
    assert isinstance(asked, AskConsent)
    assert [name for name, _ in asked.scopes] == ["profile", "files.read"]
    service, service_secret = finance.add_client(grant_types=("client_credentials",))
    answer = finance.token(
        service, service_secret, grant_type="client_credentials", scope="profile files.read"
    )
    assert answer.json["scope"] == "profile"
    page = (EXAMPLES.parent / "writing-plugins.rst").read_text()
    assert ".. literalinclude:: examples/group_scopes.py" in page


def test_a_refresh_sees_the_groups_of_today(finance: Rules) -> None:
    """No browser is there, and nobody signs in: what was kept last counts."""
    finance.add_user("ann", groups=("finance", "staff"))
    client, secret = finance.add_client()
    tokens = finance.redeem(client, secret, finance.code(client, scope="profile files.read")).json
    assert tokens["scope"] == "profile files.read"
    edit(finance, groups=("staff",), attributes={"department": ("sales",)})
    tokens = finance.refresh(client, secret, tokens["refresh_token"]).json
    assert tokens["scope"] == "profile"
    claims = finance.claims(tokens["access_token"])
    assert (claims["department"], claims["groups"]) == (["sales"], ["staff"])
    edit(finance, groups=())
    answer = finance.refresh(client, secret, tokens["refresh_token"], scope="files.read")
    assert_refused(answer, "invalid_scope")


def test_no_client_gets_them_unless_a_policy_says_so() -> None:
    """The shipped claims_profile puts two names into a token, whatever is known of the person."""
    rules = Rules({"authserver.plugins": f"{SETTINGS['authserver.plugins']} claims_profile"})
    rules.add_user("eve", groups=("secret-project",), attributes={"salary": ("12",)})
    client, secret = rules.add_client()
    code = rules.code(client, rules.signed_in("eve"), scope="profile")
    tokens = rules.redeem(client, secret, code).json
    claims = rules.claims(tokens["access_token"])
    assert claims["preferred_username"] == "eve"
    told = str([claims, tokens, rules.introspect(client, secret, tokens["refresh_token"]).json])
    assert "secret-project" not in told and "salary" not in told
    assert "secret-project" not in repr(a_user(groups=("secret-project",), attributes={"salary": ("12",)}))


PERSON = a_user(groups=("finance",), attributes=MappingProxyType({"department": ("payments",)}))


@pytest.mark.parametrize(
    "question",
    [
        ScopeQuestion(
            client=a_client(), user=PERSON, grant_type="refresh_token", requested=("read",), resources=()
        ),
        ConsentQuestion(client=a_client(), user=PERSON, scopes=("read",), resources=(), remembered=None),
    ],
    ids=lambda question: question.hook,
)
def test_a_question_that_is_asked_again_has_the_groups_of_then(question: Any) -> None:
    known = Known(
        lambda _: a_client(),
        lambda _: replace(PERSON, groups=(), attributes={}),
        lambda *_: None,
        lambda _: None,
    )
    again = type(question).again(question.facts(), known)
    assert again == question
    with pytest.raises(TypeError):
        again.user.attributes["department"] = ()
    # What an earlier version recorded has none: the present ones count.
    facts = {name: value for name, value in question.facts().items() if name not in ("groups", "attributes")}
    assert type(question).again(facts, known).user.groups == ()


def test_a_replay_is_right_although_the_person_changed(finance: Rules) -> None:
    finance.add_user("ann", groups=("finance",))
    client, secret = finance.add_client()
    finance.redeem(client, secret, finance.code(client, scope="profile files.read"))
    edit(finance, groups=())
    with finance.begin() as engine:
        events = list(engine.stores.events.since(engine.now - timedelta(days=1)))
        results = {(item.hook, item.result) for item in replay(events, engine)}
    assert ("scope_decision", Result.SAME) in results
    assert Result.FLIPPED not in {result for _, result in results}
