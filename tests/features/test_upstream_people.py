"""Who somebody is for whom a provider vouches: accounts, joining, groups, attributes, levels, and what ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from transaction.interfaces import TransientError
from webtest import TestApp, TestResponse

from authserver import app
from authserver.cli.keys import new_ring_entry
from authserver.engine.people.attributes import change
from authserver.explaining.settings import of_plugins
from authserver.features.upstream import attempts
from authserver.settings import SettingsError
from authserver.testing.server import ISSUER, SETTINGS, Server, form_with
from tests.features.upstream_steps import (
    PREFIX,
    Liar,
    a_liar,
    come_back,
    path_of,
    query_of,
    reasons,
    to_the_provider,
    with_provider,
)

NOW = int(datetime.now(UTC).timestamp())
EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture
def liar() -> Iterator[Liar]:
    with a_liar() as liar:
        yield liar


@contextmanager
def running(
    url: str, liar: Liar, more: dict[str, str | None] | None = None, **entry: str
) -> Iterator[Server]:
    server = Server(url, {**with_provider(liar.issuer, "authserver", "secret", **entry), **(more or {})})
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def server(sqlite_url: str, liar: Liar) -> Iterator[Server]:
    with running(sqlite_url, liar) as server:
        yield server


def users(server: Server) -> dict[str, Any]:
    return {row["username"]: row for row in server.rows("users")}


def groups_of(server: Server, username: str = "ann") -> list[str]:
    return list(json.loads(users(server)[username]["groups"]))


def attributes_of(server: Server, username: str = "ann") -> dict[str, list[str]]:
    return dict(json.loads(users(server)[username]["attributes"]))


# ---- who it is --------------------------------------------------------------------------------------


def test_the_same_person_comes_again(server: Server, liar: Liar) -> None:
    """UP-03: by issuer and subject, whatever they are called now."""
    assert come_back(server, liar).status_int == 303
    liar.claims |= {"preferred_username": "ann.married", "email": "new@example.com", "name": "Ann M."}
    assert come_back(server, liar).status_int == 303
    assert list(users(server)) == ["ann"]
    assert len(server.rows("sessions")) == 2


def test_another_subject_with_the_same_name_is_another_person(server: Server, liar: Liar) -> None:
    """UP-03: a name that was given to somebody else there lets nobody into the account."""
    assert come_back(server, liar).status_int == 303
    liar.claims["sub"] = "another-subject"
    answer = come_back(server, liar)
    assert answer.status_int == 400
    assert reasons(server) == ["identity-name-taken"]
    assert len(server.rows("identities")) == 1


def test_neither_name_nor_mail_address_joins_an_account(server: Server, liar: Liar) -> None:
    """UP-03, T165 (better-auth CVE-2026-53516, allauth CVE-2025-65431): not a verified one either, nor of one with a password."""
    server.add_user("ann", attributes={"email": ("ann@example.com",), "email_verified": ("ann@example.com",)})
    liar.claims |= {"email": "ann@example.com", "email_verified": True}
    answer = come_back(server, liar)
    assert answer.status_int == 400
    assert reasons(server) == ["identity-name-taken"]
    liar.claims["preferred_username"] = "somebody"
    assert come_back(server, liar).status_int == 303
    assert sorted(users(server)) == ["ann", "somebody"]


def test_nobody_gets_an_account_unless_the_entry_says_so(sqlite_url: str, liar: Liar) -> None:
    """UP-03: as shipped; the page says what to do."""
    with running(sqlite_url, liar, adds_people="false") as server:
        answer = come_back(server, liar)
        assert answer.status_int == 400
        assert reasons(server) == ["identity-unknown"]
        assert "add that provider in your account" in answer.text
        assert not server.rows("users") and not server.rows("identities")


def test_a_disabled_person_stays_out(server: Server, liar: Liar) -> None:
    assert come_back(server, liar).status_int == 303
    with server.begin() as engine:
        (user,) = engine.stores.users.list()
        engine.stores.users.disable(user.user_id, engine.now)
    assert come_back(server, liar).status_int == 400
    assert reasons(server) == ["user-disabled"]


def join(server: Server, liar: Liar, browser: TestApp, **answer: Any) -> TestResponse:
    """Add the provider on the page of the account, and come back from there."""
    page = browser.get("/account/identities")
    away = form_with(page, "add").submit("add")
    liar.nonce = (sent := query_of(away.location))["nonce"]
    said = {"code": "a-code", "state": sent["state"], **answer}
    return browser.get("/login/staff/callback", said, expect_errors=True)


def signed_in(server: Server, username: str = "bob") -> TestApp:
    browser = server.browser()
    server.sign_in(browser, username)
    return browser


def test_somebody_who_is_signed_in_adds_a_provider(sqlite_url: str, liar: Liar) -> None:
    """UP-03: that is how an account that there is gets one; then it lets in, and the account shows it."""
    with running(sqlite_url, liar, adds_people="false") as server:
        user = server.add_user("bob")
        browser = signed_in(server)
        liar.claims["email"] = "robert@example.com"
        answer = join(server, liar, browser)
        assert urlsplit(answer.location).path == "/account/identities"
        page = browser.get(path_of(answer.location))
        assert "That provider is added" in page.text
        assert "robert@example.com" in page.text
        assert not page.html.find("button", attrs={"name": "add"})
        assert come_back(server, liar).status_int == 303
        assert {row["user_id"] for row in server.rows("sessions")} == {user.user_id}
        events = [row["type"] for row in server.rows("events")]
        assert events.count("identity.joined") == 1


def test_an_identity_has_one_account(server: Server, liar: Liar) -> None:
    """UP-03: what is joined to somebody cannot be joined to another person."""
    assert come_back(server, liar).status_int == 303
    server.add_user("bob")
    answer = join(server, liar, signed_in(server))
    assert answer.status_int == 400
    assert reasons(server) == ["identity-taken"]
    assert len(server.rows("identities")) == 1


def test_only_who_asked_for_it_is_joined(server: Server, liar: Liar) -> None:
    """UP-03, UP-06: another person signed in in that browser meanwhile, or nobody is."""
    server.add_user("bob")
    server.add_user("carol")
    browser = signed_in(server)
    away = form_with(browser.get("/account/identities"), "add").submit("add")
    liar.nonce = (sent := query_of(away.location))["nonce"]
    server.sign_in(browser, "carol")
    said = {"code": "a-code", "state": sent["state"]}
    answer = browser.get("/login/staff/callback", said, expect_errors=True)
    assert answer.status_int == 400
    assert reasons(server) == ["provider-signed-out"]
    assert not server.rows("identities")


def test_a_foreign_page_adds_nothing(server: Server, liar: Liar) -> None:
    """UP-03: the form has a token; and a sign-in of long ago is not enough."""
    server.add_user("bob")
    browser = signed_in(server)
    assert browser.post("/account/identities", {"add": "staff"}, expect_errors=True).status_int == 403
    page = browser.get("/account/identities")
    with server.application.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE sessions SET authenticated_at = '2026-01-01 00:00:00.000000'")
    answer = form_with(page, "add").submit("add")
    assert urlsplit(answer.location).path == "/login"
    assert query_of(answer.location) == {"page": "account_identities", "again": "yes"}


def test_the_last_way_in_stays(server: Server, liar: Liar) -> None:
    """The account page removes a provider, with sessions and access that came through it, unless nothing else lets in."""
    browser = server.browser()
    come_back(server, liar, browser)
    page = browser.get("/account/identities")
    assert "only way" in page.text and not page.html.find("button", attrs={"name": "remove"})
    server.add_user("bob")
    other = signed_in(server)
    liar.claims["sub"] = "bob-there"
    join(server, liar, other)
    come_back(server, liar)
    assert len(server.rows("sessions")) == 3
    removed = form_with(other.get("/account/identities"), "remove").submit("remove")
    assert query_of(removed.location) == {"notice": "identity-removed"}
    assert len(server.rows("identities")) == 1
    assert len(server.rows("sessions")) == 2, "the one that came through it has ended"
    liar.claims["preferred_username"] = "robert"
    assert come_back(server, liar).status_int == 303, "and is a stranger from then on"
    assert sorted(users(server)) == ["ann", "bob", "robert"]


# ---- what is said of them ----------------------------------------------------------------------------


def test_groups_and_attributes_as_the_entry_says(sqlite_url: str, liar: Liar) -> None:
    """UP-09: mapped at each sign-in; what the entry does not name stays as it is here."""
    entry = {
        "groups_claim": "roles",
        "groups": "there-1 = sales\nthere-2 = support",
        "attributes": "email = email\ndepartment = dep",
        "trusts_email": "true",
    }
    with running(sqlite_url, liar, **entry) as server:
        liar.claims |= {
            "roles": ["there-1", "there-3", 7],
            "email": "ann@example.com",
            "email_verified": True,
            "dep": ["a", "b"],
        }
        assert come_back(server, liar).status_int == 303
        assert groups_of(server) == ["sales"]
        assert attributes_of(server) == {
            "department": ["a", "b"],
            "email": ["ann@example.com"],
            "email_verified": ["ann@example.com"],
        }
        liar.claims |= {"roles": "there-2", "email_verified": "true", "dep": None}
        assert come_back(server, liar).status_int == 303
        assert groups_of(server) == ["support"]
        assert attributes_of(server) == {"email": ["ann@example.com"]}


def test_an_address_is_verified_here_only_if_the_entry_trusts_that(sqlite_url: str, liar: Liar) -> None:
    """UP-09, OIDC-41."""
    with running(sqlite_url, liar, attributes="email = email") as server:
        liar.claims |= {"email": "ann@example.com", "email_verified": True}
        assert come_back(server, liar).status_int == 303
        assert attributes_of(server) == {"email": ["ann@example.com"]}


CONSOLE = {
    "authserver.plugin.admin_console.administer": "admins",
    "authserver.plugin.admin_console.read": "auditors",
}


@pytest.mark.parametrize(
    ("named", "first", "later"),
    [
        ("", ["sales"], ["admins", "sales"]),
        ("admins", ["admins", "sales"], ["sales"]),
    ],
)
def test_no_group_from_there_gives_administration(
    sqlite_url: str, liar: Liar, named: str, first: list[str], later: list[str]
) -> None:
    """UP-09: unless the entry names the group; else the provider can neither give nor take it away."""
    plugins = with_provider(liar.issuer, "authserver", "secret")["authserver.plugins"]
    more = {**CONSOLE, "authserver.plugins": f"{plugins}\nadmin_console"}
    entry = {"groups_claim": "roles", "administering_groups": named}
    with running(sqlite_url, liar, more, **entry) as server:
        liar.claims["roles"] = ["sales", "admins", "auditors"]
        come_back(server, liar)
        assert groups_of(server) == first
        with server.begin() as engine:
            (user,) = engine.stores.users.list()
            change(engine, user, groups=("admins",))
        liar.claims["roles"] = ["sales"]
        come_back(server, liar)
        assert groups_of(server) == later


def amr(server: Server) -> list[str]:
    return list(json.loads(server.rows("sessions")[-1]["details"])["amr"])


@pytest.mark.parametrize(
    ("entry", "methods"),
    [
        ({}, ["staff"]),
        ({"trusts_methods": "true"}, ["staff", "pwd", "otp"]),
        ({"methods": "mfa-there = hwk+pin"}, ["staff", "hwk", "pin"]),
        ({"methods": "other = hwk"}, ["staff"]),
    ],
    ids=str,
)
def test_how_somebody_signed_in_there_counts_if_the_entry_says_so(
    sqlite_url: str, liar: Liar, entry: dict[str, str], methods: list[str]
) -> None:
    """UP-05, OIDC-29: neither `amr` nor `acr` is believed by default."""
    with running(sqlite_url, liar, **entry) as server:
        liar.claims |= {"amr": ["pwd", "otp"], "acr": "mfa-there"}
        come_back(server, liar)
        assert amr(server) == methods


# ---- recent sign-ins and levels ----------------------------------------------------------------------


def pending(server: Server, browser: TestApp, **parameters: str) -> dict[str, str]:
    """The query of the sign-in page to which an authorization request with these parameters leads."""
    client, _ = server.add_client(first_party=True)
    answer = browser.get(server.authorization_url(client, **parameters))
    return query_of(answer.location)


LEVELS = {
    "authserver.plugin.step_up.levels": "password = pwd\nstrong = hwk",
}


def with_levels(liar: Liar) -> dict[str, str | None]:
    plugins = with_provider(liar.issuer, "authserver", "secret")["authserver.plugins"]
    return {**LEVELS, "authserver.plugins": f"{plugins}\nstep_up"}


def test_what_the_application_asks_for_is_passed_on(sqlite_url: str, liar: Liar) -> None:
    """UP-05: `max_age` and `acr_values`, in the words of the provider; `login_hint` and `domain_hint` along."""
    with running(sqlite_url, liar, with_levels(liar), levels="strong = mfa-there") as server:
        browser = server.browser()
        asked = pending(
            server,
            browser,
            max_age="300",
            acr_values="strong other",
            login_hint="ann@example.com",
            domain_hint="example.com",
        )
        sent = query_of(to_the_provider(browser, **asked))
        assert sent["max_age"] == "300"
        assert sent["acr_values"] == "mfa-there other"
        assert (sent["login_hint"], sent["domain_hint"]) == ("ann@example.com", "example.com")
        assert "prompt" not in sent


@pytest.mark.parametrize(
    ("age", "reason"),
    [(100, ""), (4_000, "provider-sign-in-old"), (None, "provider-sign-in-old")],
    ids=["recent", "old", "unknown"],
)
def test_the_age_of_the_sign_in_is_checked(sqlite_url: str, liar: Liar, age: int | None, reason: str) -> None:
    """UP-05: a provider that ignores `max_age`, or does not say when, signs nobody in for such a request."""
    with running(sqlite_url, liar, with_levels(liar)) as server:
        browser = server.browser()
        auth_time = int(datetime.now(UTC).timestamp()) - (age or 0)
        liar.claims["auth_time"] = None if age is None else auth_time
        asked = pending(server, browser, max_age="300")
        answer = come_back(server, liar, browser, query=asked)
        assert reasons(server) == ([reason] if reason else [])
        assert answer.status_int == (400 if reason else 303)
        if not reason:
            assert urlsplit(answer.location).path == "/oauth/consent"
            (session,) = server.rows("sessions")
            assert session["authenticated_at"].startswith(
                datetime.fromtimestamp(auth_time, UTC).strftime("%Y-%m-%d %H:%M:%S")
            ), "and here it counts from then"


def test_a_new_sign_in_is_a_new_one_there(sqlite_url: str, liar: Liar) -> None:
    """UP-05: `prompt=login` and `max_age=0` go along, and an old sign-in there is none; no loop, no code."""
    with running(sqlite_url, liar, with_levels(liar)) as server:
        browser = server.browser()
        come_back(server, liar, browser)
        asked = pending(server, browser, prompt="login")
        sent = query_of(to_the_provider(browser, **asked))
        assert (sent["prompt"], sent["max_age"]) == ("login", "0")
        liar.claims["auth_time"] = NOW - 4_000
        answer = come_back(server, liar, browser, query=asked)
        assert answer.status_int == 400
        assert reasons(server) == ["provider-sign-in-old"]
        assert "did not ask you to sign in again" in answer.text
        liar.claims["auth_time"] = int(datetime.now(UTC).timestamp())
        answer = come_back(server, liar, browser, query=asked)
        assert urlsplit(answer.location).path == "/oauth/consent"
        code = browser.get(path_of(answer.location))
        assert "code=" in (code.location or code.text)


def test_a_new_sign_in_is_one_also_for_somebody_who_was_not_signed_in_here(
    sqlite_url: str, liar: Liar
) -> None:
    """UP-05: else a session there would count as the new sign-in that the application asks for."""
    with running(sqlite_url, liar, with_levels(liar)) as server:
        browser = server.browser()
        asked = pending(server, browser, prompt="login")
        sent = query_of(to_the_provider(browser, **asked))
        assert (sent["prompt"], sent["max_age"]) == ("login", "0")
        assert come_back(server, liar, browser, query=asked).status_int == 400
        assert reasons(server) == ["provider-sign-in-old"], "it does not say when that was"


def test_the_choice_of_an_account_is_passed_on(sqlite_url: str, liar: Liar) -> None:
    """UP-05: `prompt=select_account`."""
    with running(sqlite_url, liar) as server:
        browser = server.browser()
        sent = query_of(to_the_provider(browser, **pending(server, browser, prompt="select_account")))
        assert sent["prompt"] == "select_account"
        assert "max_age" not in sent


def test_without_passwords_the_providers_are_the_only_way(sqlite_url: str, liar: Liar) -> None:
    """UP-11: no form that nobody would answer."""
    plugins = str(with_provider(liar.issuer, "authserver", "secret")["authserver.plugins"])
    more: dict[str, str | None] = {"authserver.plugins": plugins.replace("login_password", "")}
    with running(sqlite_url, liar, more) as server:
        page = server.http.get("/login")
        assert not page.html.find("input", attrs={"name": "password"})
        assert page.html.find(id="ways-heading").text == "Sign in with"
        assert come_back(server, liar).status_int == 303


def test_a_level_that_was_not_reached_there_is_not_reached_here(sqlite_url: str, liar: Liar) -> None:
    """UP-05, RFC 9470, 5: the application gets the error, not a token of a lower level."""
    with running(sqlite_url, liar, with_levels(liar), methods="mfa-there = hwk") as server:
        browser = server.browser()
        liar.claims["acr"] = "password-there"
        asked = pending(server, browser, acr_values="strong")
        answer = come_back(server, liar, browser, query=asked)
        answer = browser.get(path_of(answer.location))
        assert "unmet_authentication_requirements" in (answer.location or answer.text)


# ---- what ends ----------------------------------------------------------------------------------------


def token_through(server: Server, liar: Liar, browser: TestApp) -> tuple[Any, str | None, str]:
    """A client with a refresh token that Ann agreed to after she had signed in through the provider."""
    client, secret = server.add_client(first_party=True)
    answer = browser.get(server.authorization_url(client))
    if urlsplit(answer.location or "").path == "/login":
        answer = come_back(server, liar, browser, query=query_of(answer.location))
        answer = browser.get(path_of(answer.location))
    code = query_of(answer.location)["code"]
    return client, secret, server.redeem(client, secret, code).json["refresh_token"]


@pytest.mark.parametrize("ends", [True, False])
def test_a_provider_that_is_off(sqlite_url: str, liar: Liar, ends: bool) -> None:
    """UP-04, T164 (Keycloak CVE-2026-1486): nobody signs in through it; by setting, what came through it ends, and nothing else."""
    with running(sqlite_url, liar) as server:
        server.add_user("bob")
        mine, others = server.browser(), signed_in(server)
        client, secret, refresh = token_through(server, liar, mine)
        _, _, other_refresh = token_through(server, liar, others)
        waiting = query_of(to_the_provider(server.browser()))
    off = {"enabled": "false", "ends_access": str(ends).lower()}
    with running(sqlite_url, liar, **off) as server:
        assert "Staff" not in server.http.get("/login").text
        assert server.http.get("/login/staff", expect_errors=True).status_int == 400
        back = server.http.get(
            "/login/staff/callback", {"code": "c", "state": waiting["state"]}, expect_errors=True
        )
        assert back.status_int == 400
        assert set(reasons(server)) == {"provider-off"}
        browser = server.browser()
        browser.cookiejar = mine.cookiejar
        again = browser.get(server.authorization_url(client))
        if ends:
            assert urlsplit(again.location).path == "/login", "at once, also before the sessions have ended"
        server.application.parts.policies.look_after(server.begin)
        assert len(server.rows("sessions")) == (1 if ends else 2)
        answer = server.token(client, secret, grant_type="refresh_token", refresh_token=refresh)
        assert answer.status_int == (400 if ends else 200)
        assert [row["revoked_reason"] for row in server.rows("grants") if row["revoked_at"]] == (
            ["provider-off"] if ends else []
        )
        ended = [row for row in server.rows("events") if row["reason"] == "provider-off" and row["user_id"]]
        assert [row["type"] for row in ended] == (["grants.revoked"] if ends else [])
    assert other_refresh


def logout(server: Server, liar: Liar, **changes: Any) -> TestResponse:
    claims = {
        "nonce": None,
        "sub": None,
        "preferred_username": None,
        "name": None,
        "jti": f"jti-{len(server.rows('kept'))}",
        "events": {EVENT: {}},
        **changes,
    }
    header, liar.header = liar.header, {"typ": "logout+jwt", **liar.header}
    try:
        token = liar.id_token(**claims)
    finally:
        liar.header = header
    return server.post("/login/staff/logout", f"logout_token={token}")


def test_who_signs_out_there_is_signed_out_here(server: Server, liar: Liar) -> None:
    """UP-10: one session there, by `sid` with or without `sub`; or all of a person, by `sub`."""
    for sid in ("one", "two", "three", "four"):
        liar.claims["sid"] = sid
        come_back(server, liar)
    liar.claims.pop("sid")
    subject = "248289761001"
    assert len(server.rows("sessions")) == 4
    assert logout(server, liar, sid="one", sub=subject).status_int == 200
    assert len(server.rows("sessions")) == 3
    assert logout(server, liar, sid="two").status_int == 200
    assert len(server.rows("sessions")) == 2
    assert logout(server, liar, sid="unknown").status_int == 200
    assert logout(server, liar, sub="unknown").status_int == 200
    assert len(server.rows("sessions")) == 2
    assert logout(server, liar, sub=subject).status_int == 200
    assert not server.rows("sessions")
    ended = [row for row in server.rows("events") if row["type"] == "session.ended"]
    assert [row["reason"] for row in ended] == ["signed-out-at-provider"] * 3


def test_a_password_session_stays(sqlite_url: str, liar: Liar) -> None:
    """UP-10: a provider ends what came through it alone, also of somebody who has joined it."""
    with running(sqlite_url, liar) as server:
        server.add_user("bob")
        browser = signed_in(server)
        join(server, liar, browser)
        come_back(server, liar)
        assert logout(server, liar, sub="248289761001").status_int == 200
        assert len(server.rows("sessions")) == 1
        assert browser.get("/account/sessions").status_int == 200


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"events": None}, "provider-logout-event"),
        ({"events": {}}, "provider-logout-event"),
        ({"events": {EVENT: "x"}}, "provider-logout-event"),
        ({"events": [EVENT]}, "provider-logout-event"),
        ({"nonce": "n"}, "provider-logout-event"),
        ({"sub": None}, "provider-logout-nobody"),
        ({"sid": 7}, "provider-logout-nobody"),
        ({"jti": None}, "provider-logout-jti"),
        ({"iss": "https://other.example"}, "provider-token-issuer-not-trusted"),
        ({"aud": "another-client"}, "provider-token-audience"),
        ({"exp": NOW - 600}, "provider-token-expired"),
        ({"iat": None}, "provider-token-times-malformed"),
    ],
    ids=range(12),
)
def test_a_logout_token_that_is_none(
    server: Server, liar: Liar, changes: dict[str, Any], reason: str
) -> None:
    """UP-10: the checks of Back-Channel Logout, 2.6; nothing ends."""
    come_back(server, liar)
    answer = logout(server, liar, **{"sub": "248289761001", **changes})
    assert answer.status_int == 400
    assert answer.json["error"] == "invalid_request"
    assert server.rows("events")[-1]["reason"] == reason
    assert len(server.rows("sessions")) == 1


def test_a_logout_token_works_once_and_an_id_token_is_none(server: Server, liar: Liar) -> None:
    """UP-10: `jti` is used up; an ID token ends nothing, and a logout token signs nobody in."""
    come_back(server, liar)
    assert logout(server, liar, sub="unknown", jti="j").status_int == 200
    assert logout(server, liar, sub="248289761001", jti="j").status_int == 400
    assert server.rows("events")[-1]["reason"] == "provider-logout-replayed"
    assert server.post("/login/staff/logout", f"logout_token={liar.id_token()}").status_int == 400
    assert server.post("/login/other/logout", "logout_token=x").status_int == 404
    assert len(server.rows("sessions")) == 1
    liar.header["typ"] = "logout+jwt"
    assert come_back(server, liar).status_int == 400
    assert reasons(server) == ["provider-token-type"]


def test_no_token_of_the_provider_is_kept(server: Server, liar: Liar) -> None:
    """UP-07: there is no setting that keeps one, so none is anywhere."""
    come_back(server, liar)
    tables = ("users", "identities", "sessions", "kept", "events", "grants", "tokens")
    stored = "".join(str(server.rows(table)) for table in tables)
    assert "there" not in stored.replace("Known there", "")
    assert liar.id_token().split(".")[1][:40] not in stored


def test_several_providers_and_passwords_at_once(sqlite_url: str, liar: Liar) -> None:
    """UP-11: each has a button, in the order of the entries; the one that is hinted at comes first, and no other changes."""
    more = {
        f"{PREFIX}partners.issuer": "https://partners.example",
        f"{PREFIX}partners.client_id": "c",
        f"{PREFIX}partners.client_secret": "s",
        f"{PREFIX}partners.label": "Partners",
        f"{PREFIX}partners.domains": "partner.example",
    }
    with running(sqlite_url, liar, more) as server:

        def buttons(page: TestResponse) -> list[str]:
            return [link.text for link in page.html.select(".ways a")]

        page = server.http.get("/login")
        assert buttons(page) == ["Staff", "Partners"]
        assert form_with(page, "password")
        client, _ = server.add_client()
        for hint in ({"login_hint": "joe@Partner.example"}, {"domain_hint": "partner.example"}):
            browser = server.browser()
            answer = browser.get(server.authorization_url(client, **hint))
            page = browser.get(path_of(answer.location))
            assert buttons(page) == ["Partners", "Staff"]
            assert form_with(page, "password")


def test_the_callback_of_one_provider_takes_no_answer_of_another(sqlite_url: str, liar: Liar) -> None:
    """UP-02, RFC 9700, 4.4.2: a `state` is good at the address of its provider alone."""
    with a_liar() as other:
        more = {
            f"{PREFIX}partners.issuer": other.issuer,
            f"{PREFIX}partners.client_id": "authserver",
            f"{PREFIX}partners.client_secret": "s",
        }
        with running(sqlite_url, liar, more) as server:
            browser = server.browser()
            sent = query_of(to_the_provider(browser))
            said = {"code": "a-code", "state": sent["state"]}
            assert browser.get("/login/partners/callback", said, expect_errors=True).status_int == 400
            assert reasons(server) == ["provider-state-foreign"]
            assert not other.asked


def test_a_callback_needs_its_browser(server: Server, liar: Liar) -> None:
    """UP-01, T166 (FastMCP GHSA-rww4-4w9c-7733, Authlib CVE-2026-41425): another browser, or no state, another, two, an altered one."""
    browser = server.browser()
    sent = query_of(to_the_provider(browser))
    state = sent["state"]
    assert (
        server.browser()
        .get("/login/staff/callback", {"code": "c", "state": state}, expect_errors=True)
        .status_int
        == 400
    )
    for said in (
        "code=c",
        "code=c&state=x",
        f"code=c&state={state}&state={state}",
        f"code=c&state={state[:-8]}AAAAAAAA",
    ):
        answer = browser.get(f"/login/staff/callback?{said}", expect_errors=True)
        assert answer.status_int == 400
        assert answer.html.find("a", string="Try again")
    assert set(reasons(server)) == {"provider-state-foreign"}
    assert not liar.asked


def test_a_callback_works_once(server: Server, liar: Liar) -> None:
    """UP-01, UP-06, T166: a second one, as by the back button, is refused with a way on; the session is a new one each time."""
    browser = server.browser()
    sent = query_of(to_the_provider(browser))
    liar.nonce = sent["nonce"]
    said = {"code": "a-code", "state": sent["state"]}
    first = browser.get("/login/staff/callback", said)
    assert first.status_int == 303
    again = browser.get("/login/staff/callback", said, expect_errors=True)
    assert again.status_int == 400
    assert reasons(server) == ["provider-attempt-used"]
    assert again.html.find("a", string="Go on")["href"] == f"{ISSUER}/"
    assert len(liar.asked) == 1
    assert len(server.rows("sessions")) == 1


def test_the_session_is_renewed(server: Server, liar: Liar) -> None:
    """UP-06, E-17: the id that the browser had before is worth nothing afterwards."""
    server.add_user("bob")
    browser = signed_in(server)
    before = dict(browser.cookies)
    (bob,) = server.rows("sessions")
    browser.get("/login/staff")
    assert query_of(to_the_provider(browser, page="account_apps", again="yes"))["prompt"] == "login"
    liar.claims["auth_time"] = int(datetime.now(UTC).timestamp())
    come_back(server, liar, browser, query={"page": "account_apps", "again": "yes"})
    assert browser.cookies != before
    (session,) = server.rows("sessions")
    assert session["digest"] != bob["digest"] and session["user_id"] != bob["user_id"]


def test_an_attempt_that_took_too_long(server: Server, liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    """UP-01: the page leads on to what the person signed in for."""
    browser = server.browser()
    asked = pending(server, browser)
    sent = query_of(to_the_provider(browser, **asked))
    monkeypatch.setattr(attempts, "LIFETIME", timedelta(seconds=-1))
    answer = browser.get("/login/staff/callback", {"code": "c", "state": sent["state"]}, expect_errors=True)
    assert answer.status_int == 400
    assert reasons(server) == ["provider-attempt-expired"]
    assert query_of(answer.html.find("a", string="Try again")["href"]) == asked


def test_two_tabs(server: Server, liar: Liar) -> None:
    """UP-06: two requests at once in one browser; each goes on with its own, in the one session."""
    browser = server.browser()
    first, second = pending(server, browser), pending(server, browser, state="other")
    states = [query_of(to_the_provider(browser, **asked)) for asked in (first, second)]
    for sent, asked in zip(states, (first, second), strict=True):
        liar.nonce = sent["nonce"]
        answer = browser.get("/login/staff/callback", {"code": "c", "state": sent["state"]})
        assert query_of(answer.location) == asked
    assert len(server.rows("sessions")) == 1


def test_somebody_who_is_signed_in_is_not_sent_away(server: Server, liar: Liar) -> None:
    """No link of somebody else makes another person of whoever is signed in."""
    server.add_user("bob")
    browser = signed_in(server)
    assert browser.get("/login/staff").location == f"{ISSUER}/"
    assert browser.get("/login/nobody", expect_errors=True).status_int == 404


# ---- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"issuer": "http://login.example"}, "staff.issuer: "),
        ({"issuer": "login.example"}, "staff.issuer: "),
        ({"issuer": "https://login.example/?x=1"}, "staff.issuer: it must not have a query"),
        ({"client_secret": None}, "staff.client_secret: missing"),
        ({"client_secret": ""}, "staff.client_secret: is empty"),
        ({"client_id": ""}, "staff.client_id: "),
        ({"auth_method": "none"}, "staff.auth_method: must be client_secret_basic or client_secret_post"),
        ({"algorithms": "none"}, "staff.algorithms: must be some of"),
        ({"algorithms": "HS256"}, "staff.algorithms: must be some of"),
        ({"administering_groups": "admins"}, "staff.administering_groups: admins comes from nowhere"),
        ({"isuer": "https://login.example"}, "staff.isuer: no such setting; did you mean"),
    ],
    ids=str,
)
def test_an_entry_that_cannot_be_is_one_sentence_with_its_key(
    entry: dict[str, str | None], problem: str
) -> None:
    """UP-12: the start is refused."""
    given = with_provider("https://login.example", "authserver", "secret")
    given |= {f"{PREFIX}staff.{name}": text for name, text in entry.items()}
    ini = {**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db", **given}
    with pytest.raises(SettingsError) as refused:
        app.build({name: text for name, text in ini.items() if text is not None})
    assert any(line.startswith(PREFIX + problem) for line in refused.value.problems), refused.value.problems


def test_two_entries_have_two_issuers_and_names_of_one_form() -> None:
    given = with_provider("https://login.example", "authserver", "secret")
    ini = {**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db", **given}
    for name, problem in (
        ("other", "two entries have the same issuer"),
        ("Other", "the name of a provider has"),
    ):
        twice = {key.replace(".staff.", f".{name}."): text for key, text in given.items() if ".staff." in key}
        with pytest.raises(SettingsError, match=problem):
            app.build({name: text for name, text in {**ini, **twice}.items() if text is not None})


def test_production_takes_no_secret_from_the_file_and_no_plain_http(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """UP-12: by a file or a variable alone; and what the settings show of it is nothing."""
    monkeypatch.setenv("RING", new_ring_entry())
    (tmp_path / "secret").write_text("a very secret secret\n")
    production = {
        **SETTINGS,
        "authserver.environment": "production",
        "authserver.secret_keys": "env:RING",
        "authserver.database_url": "sqlite:///never-opened.db",
        **with_provider("https://login.example", "authserver", "secret"),
        "authserver.fetch_loopback": "false",
    }
    with pytest.raises(SettingsError, match=r"staff\.client_secret: a secret is in the INI file"):
        app.build({name: text for name, text in production.items() if text is not None})
    safe = {**production, f"{PREFIX}staff.client_secret": f"file:{tmp_path}/secret"}
    application = app.build({name: text for name, text in safe.items() if text is not None})
    shown = of_plugins(application.parts.policies, {})["upstream"]
    assert {each.key: each.value for each in shown}[f"{PREFIX}staff.client_secret"] == "(secret)"
    assert "very secret" not in repr(application.parts.policies.plugin("upstream"))
    application.close()
    plain = {**safe, f"{PREFIX}staff.issuer": "http://localhost:1"}
    with pytest.raises(SettingsError, match=r"staff\.issuer: plain http"):
        app.build({name: text for name, text in plain.items() if text is not None})


def test_a_request_that_is_repeated_redeems_its_code_once(
    server: Server, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T111: another request held the database; a code works once, so the answer of the provider is kept for the next try."""
    use, calls = attempts.use, []

    def fail_once(engine: Any, attempt: Any) -> bool:
        calls.append(attempt)
        if len(calls) == 1:
            raise TransientError
        return use(engine, attempt)

    monkeypatch.setattr(attempts, "use", fail_once)
    assert come_back(server, liar).status_int == 303
    assert len(calls) == 2
    assert len(liar.asked) == 1
    assert len(server.rows("users")) == len(server.rows("sessions")) == 1
