"""Links with which people set a password (I-14, T073)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from authserver.engine.context import Caller, Engine, Journal
from authserver.engine.crypto import digests
from authserver.engine.ending import Act, Ended, Subject, end, plan
from authserver.engine.errors import PasswordLinkRefused, PasswordRefused
from authserver.engine.people.account import enable_user, set_password, sign_out_everywhere
from authserver.engine.people.attributes import change
from authserver.engine.people.login import add_user, disable_user
from authserver.engine.people.password_links import NoLink, PasswordLink, make_link, open_link, use_link
from authserver.engine.records import User
from authserver.settings import Secret
from authserver.testing.records import a_consent, a_grant
from authserver.testing.rules import Rules

NEW = "a new and long password"


@pytest.fixture
def rules() -> Rules:
    rules = Rules()
    rules.add_user("ann")
    return rules


def within(rules: Rules, act: Callable[..., Any], *, later: timedelta = timedelta()) -> Any:
    """The result of something that is done in a transaction of its own, perhaps later."""
    with rules.stores.begin() as stores:
        caller = Caller(endpoint="password_link", source="192.0.2.1")
        engine = Engine.of(rules.parts, stores, datetime.now(UTC) + later, caller=caller, journal=Journal())
        user = engine.stores.users.find_by_name("ann")
        return act(engine, user)


def made(rules: Rules, lifetime: timedelta | None = None) -> PasswordLink:
    link: PasswordLink = within(rules, lambda engine, user: make_link(engine, user, lifetime))
    return link


def used(rules: Rules, presented: str, *, later: timedelta = timedelta(), **passwords: str) -> str:
    """Use a link; the reason of its refusal, or "used"."""
    new, repeated = (Secret(passwords.get(name, NEW)) for name in ("new", "repeated"))
    try:
        within(rules, lambda engine, _: use_link(engine, presented, new=new, repeated=repeated), later=later)
    except (PasswordLinkRefused, PasswordRefused) as refused:
        return refused.reason
    return "used"


def has_password(rules: Rules, password: str) -> bool:
    user: User = within(rules, lambda _, user: user)
    return digests.verify_password(password, user.password_hash)


def test_a_link_sets_the_password_once_and_ends_all_that_the_old_one_led_to(rules: Rules) -> None:
    """I-14, T073: sessions, grants and remembered consents."""
    link = made(rules)
    browser = rules.signed_in("ann")
    now, later = datetime.now(UTC), datetime.now(UTC) + timedelta(days=1)
    with rules.begin() as engine:
        times = {"created_at": now, "expires_at": later}
        engine.stores.grants.add(a_grant(user_id=link.user.user_id, **times))
        engine.stores.consents.remember(a_consent(user_id=link.user.user_id))
    assert browser.session is not None and not has_password(rules, NEW)
    assert used(rules, link.address) == "used"
    assert has_password(rules, NEW)
    assert not rules.rows("sessions") and not rules.rows("consents")
    assert [row["revoked_reason"] for row in rules.rows("grants")] == ["password-changed"]
    assert used(rules, link.address, new="another password", repeated="another password") == "link-used"
    assert has_password(rules, NEW)
    events = [(event["type"], event["actor"], event["user_id"]) for event in rules.rows("events")]
    acts = f"user:{link.user.user_id}"
    assert ("password_link.made", "stranger", link.user.user_id) in events
    assert ("password_link.used", acts, link.user.user_id) in events
    assert ("password.changed", acts, link.user.user_id) in events


def test_a_link_is_stored_as_a_digest_and_no_event_has_it(rules: Rules) -> None:
    """R-04."""
    link = made(rules)
    secret = link.address.rpartition(".")[2]
    assert digests.well_formed(digests.LINK, secret)
    assert link.address.startswith(f"{rules.parts.settings.issuer}/set-password#{link.user.user_id}.")
    assert secret not in str(rules.rows("kept")) + str(rules.rows("events"))
    assert link.address not in repr(link)


def test_opening_a_link_uses_nothing_up(rules: Rules) -> None:
    """Programs that look at mail open links before people do."""
    link = made(rules)
    for presented in (link.address, link.address.partition("#")[2], f"  {link.address}\n"):
        opened = within(rules, lambda engine, _, text=presented: open_link(engine, text))
        assert (opened.user.username, opened.expires_at) == ("ann", link.expires_at)
    assert used(rules, link.address) == "used"


def change_password(engine: Engine, user: User) -> None:
    set_password(engine, user, "set by an operator")


def disable(engine: Engine, user: User) -> None:
    disable_user(engine, user.username)


def disable_and_enable(engine: Engine, user: User) -> None:
    disable_user(engine, user.username)
    disabled = engine.stores.users.find_by_name(user.username)
    assert disabled
    enable_user(engine, disabled)


def sign_out(engine: Engine, user: User) -> None:
    sign_out_everywhere(engine, user)


def end_all(engine: Engine, user: User) -> None:
    act = Act(subject=Subject.user(user))
    counted = sum(plan(lambda: nullcontext(engine), act), Ended())
    ended = sum(end(lambda: nullcontext(engine), act), Ended())
    assert (counted.password_links, ended.password_links) == (1, 1)


def promote(engine: Engine, user: User) -> None:
    change(engine, user, groups=[*user.groups, "authserver-admins"])


def restore(engine: Engine, user: User) -> None:
    engine.stores.generations.begin(engine.now + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (make_link, "link-unknown"),
        (change_password, "link-password-changed"),
        (disable, "user-disabled"),
        (disable_and_enable, "link-expired"),
        (sign_out, "link-expired"),
        (end_all, "link-expired"),
        (promote, "link-groups-changed"),
        (restore, "link-before-restore"),
    ],
)
def test_what_makes_a_link_worthless(rules: Rules, act: Callable[..., Any], reason: str) -> None:
    """A newer link, another password, a disabled person, a sign-out everywhere, the kill switch, another group, and a database from a backup, which forgot what was
    used. Whoever made a link for somebody must not take the place of the administrator that they became.
    """
    link = made(rules)
    within(rules, act)
    rules.parts.generation.read()
    assert used(rules, link.address) == reason
    assert not has_password(rules, NEW)


def test_a_link_expires(rules: Rules) -> None:
    link = made(rules)
    assert used(rules, link.address, later=timedelta(minutes=61)) == "link-expired"
    assert used(rules, link.address, later=timedelta(minutes=59)) == "used"
    longer = made(rules, timedelta(days=7))
    assert used(rules, longer.address, later=timedelta(days=6), new="x" * 9, repeated="x" * 9) == "used"


def test_what_is_no_link_is_refused(rules: Rules) -> None:
    """And a right secret works for its person alone."""
    link = made(rules)
    secret = link.address.rpartition(".")[2]
    with rules.begin() as engine:
        bob = add_user(engine, "bob", "bob has a password")
        make_link(engine, bob)
    for presented, reason in (
        ("", "link-malformed"),
        (secret, "link-unknown"),
        ("é\0" * 4000, "link-malformed"),
        (link.address[:-1], "link-malformed"),
        (f"\0.{secret}", "link-unknown"),
        (f"{link.user.user_id}.{digests.new_credential(digests.LINK)}", "link-unknown"),
        (f"{bob.user_id}.{secret}", "link-unknown"),
        (f"{link.user.user_id}.{digests.new_credential(digests.SESSION)}", "link-malformed"),
    ):
        assert used(rules, presented) == reason, presented
    assert used(rules, link.address) == "used"


@pytest.mark.parametrize(
    ("passwords", "reason"),
    [
        ({"new": "short", "repeated": "short"}, "new-password-length"),
        ({"new": "x" * 1025, "repeated": "x" * 1025}, "new-password-length"),
        ({"repeated": "something else"}, "new-password-differs"),
        ({"new": "", "repeated": ""}, "new-password-length"),
        ({"new": "the present one", "repeated": "the present one"}, "new-password-same"),
    ],
)
def test_a_password_that_cannot_be_used_leaves_the_link(
    rules: Rules, passwords: dict[str, str], reason: str
) -> None:
    """The rules are those of the account page."""
    within(rules, lambda engine, user: set_password(engine, user, "the present one"))
    link = made(rules)
    assert used(rules, link.address, **passwords) == reason
    assert used(rules, link.address) == "used"


def test_somebody_without_a_password_gets_the_first_one(rules: Rules) -> None:
    """An invitation; it works for longer."""
    with rules.begin() as engine:
        bob = add_user(engine, "bob", None)
        link = make_link(engine, bob)
        assert link.expires_at - engine.now == timedelta(days=3)
    assert used(rules, link.address) == "used"
    with rules.begin() as engine:
        bob = engine.stores.users.find(bob.user_id)
        assert digests.verify_password(NEW, bob.password_hash)


@pytest.mark.parametrize("lifetime", [timedelta(seconds=59), timedelta(days=7, seconds=1), timedelta()])
def test_a_lifetime_out_of_bounds_is_refused(rules: Rules, lifetime: timedelta) -> None:
    with pytest.raises(NoLink, match="60s to 7d"):
        made(rules, lifetime)
    assert not rules.rows("kept")


def test_a_disabled_person_gets_no_link(rules: Rules) -> None:
    within(rules, disable)
    with pytest.raises(NoLink, match="enable them first"):
        made(rules)


def test_a_link_that_was_made_meanwhile_is_not_overwritten(rules: Rules) -> None:
    """Both would be shown, and only one would work."""
    made(rules)
    with rules.begin() as engine:
        user = engine.stores.users.find_by_name("ann")
        kept = engine.stores.kept
        find, kinds = kept.find, []

        def found(kind: str, digest: bytes) -> Any:
            before = find(kind, digest)
            if not kinds:
                kinds.append(kind)
                make_link(engine, user)
            return before

        object.__setattr__(kept, "find", found)
        with pytest.raises(NoLink, match="try again"):
            make_link(engine, user)


def test_a_session_of_somebody_else_stays(rules: Rules) -> None:
    rules.add_user("bob")
    rules.signed_in("bob")
    link = made(rules)
    assert used(rules, link.address) == "used"
    (session,) = rules.rows("sessions")
    assert session["user_id"] != link.user.user_id
