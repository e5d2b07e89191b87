"""`authserver end`, and the commands that disable or remove: one act, which says how much ends (L-08)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from authserver.cli.configuration import Configuration
from authserver.engine.records import VOUCHED_BY, Event, EventType, GrantFilter, TokenKind
from authserver.testing.records import a_consent, a_grant, a_session, a_token

DAY = timedelta(days=1)
DEMO = "http://localhost:6543/demo-api"
IDP = "https://idp.example"


@pytest.fixture
def used(run, ini: Path) -> Configuration:
    """The user demo with a session, a consent and three grants; and a grant that an issuer vouched for."""
    configuration = Configuration(ini)
    with configuration.engine() as engine:
        stores, now = engine.stores, engine.now
        demo = stores.users.find_by_name("demo")
        times = {"created_at": now, "expires_at": now + DAY}
        stores.sessions.add(a_session(user_id=demo.user_id, last_seen_at=now, expires_at=now + DAY))
        for number, (client_id, scopes) in enumerate(
            [
                ("playground", ("profile", "notes.read")),
                ("playground", ("profile",)),
                ("demo-app", ("notes.read",)),
            ]
        ):
            grant = a_grant(
                grant_id=f"grant_{number}", client_id=client_id, user_id=demo.user_id, scopes=scopes, **times
            )
            stores.grants.add(grant)
            for kind in (TokenKind.REFRESH, TokenKind.ACCESS):
                digest = f"{kind} {number}".encode()
                stores.tokens.add(
                    a_token(kind=kind, digest=digest, grant_id=grant.grant_id, scopes=scopes, **times)
                )
        vouched = a_grant(grant_id="vouched", client_id="playground", details={VOUCHED_BY: IDP}, **times)
        stores.grants.add(vouched)
        stores.consents.remember(
            a_consent(user_id=demo.user_id, client_id="playground", scopes=("profile", "notes.read"))
        )
    return configuration


def live(configuration: Configuration) -> list[str]:
    with configuration.engine() as engine:
        found = engine.stores.grants.search(GrantFilter(live_at=engine.now), limit=99)
        return sorted(grant.grant_id for grant in found)


def events(configuration: Configuration, type: EventType) -> list[Event]:
    with configuration.engine() as engine:
        return list(engine.stores.events.since(engine.now - DAY, type=type))


def told(run, *arguments: str) -> dict:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def numbers(told: dict) -> dict[str, int]:
    """Those that are not 0."""
    return {name: value for name, value in told.items() if type(value) is int and value}


FIGURES = {
    ("end", "user", "demo"): {
        "sessions": 1,
        "grants": 3,
        "refresh_tokens": 3,
        "access_tokens": 3,
        "consents": 1,
    },
    ("end", "client", "playground"): {
        "grants": 3,
        "refresh_tokens": 2,
        "access_tokens": 2,
        "consents": 1,
    },
    ("end", "resource", "https://api.example"): {"grants": 4, "refresh_tokens": 3, "access_tokens": 3},
    ("end", "scope", "notes.read"): {
        "grants": 1,
        "narrowed_grants": 1,
        "refresh_tokens": 1,
        "access_tokens": 2,
        "narrowed_consents": 1,
    },
    ("end", "scope", "notes.read", "--from-clients"): {
        "grants": 1,
        "narrowed_grants": 1,
        "refresh_tokens": 1,
        "access_tokens": 2,
        "narrowed_consents": 1,
        "registrations": 2,
    },
    ("end", "issuer", IDP): {"grants": 1, "jwts": 1},
}


@pytest.mark.parametrize("command", FIGURES, ids=" ".join)
def test_an_act_is_counted_first_and_then_done(run, used: Configuration, command: tuple[str, ...]) -> None:
    """L-08: the dry run changes nothing, and its figures are those of the act."""
    before = live(used)
    dry = told(run, *command, "--dry-run")
    assert dry["dry_run"] and live(used) == before
    done = told(run, *command)
    assert not done["dry_run"]
    assert numbers(dry) == numbers(done) == FIGURES[command]
    assert len(live(used)) == len(before) - FIGURES[command]["grants"]
    kind = EventType.SIGNED_OUT_EVERYWHERE if "user" in command else EventType.GRANTS_REVOKED
    (event,) = events(used, kind)
    assert event.actor == f"command:{' '.join(command[:2])}"
    assert event.details["grants"] == FIGURES[command]["grants"]
    again = run(*command, "--dry-run")
    assert again.stdout.startswith("Nothing would end.") or again.exit_code == 1


def test_what_is_disabled_says_the_same(run, used: Configuration) -> None:
    """L-08: `user disable` and `client disable` do and say what `end` does, for good."""
    result = run("client", "disable", "playground")
    assert result.stdout.startswith(
        "playground is disabled. Ended: 3 grants, 2 refresh tokens, 2 access tokens, 1 remembered consent.\n"
    )
    assert live(used) == ["grant_2"]
    (event,) = events(used, EventType.CLIENT_DISABLED)
    assert event.client_id == "playground"
    again = run("client", "disable", "playground")
    assert again.exit_code == 1 and "it is disabled already" in again.stderr
    result = run("user", "disable", "demo")
    assert result.stdout == "demo is disabled. Ended: 1 session, 1 grant, 1 refresh token, 1 access token.\n"
    assert live(used) == []


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        (("end", "user", "demo"), "End this of demo? Would end: 1 session, 3 grants,"),
        (("user", "disable", "demo"), "Disable demo? Would end: 1 session, 3 grants,"),
        (("client", "disable", "playground"), "Disable playground for good? Would end: 3 grants,"),
        (("end", "issuer", IDP), f"End this of {IDP}? Would end: 1 grant."),
        (
            ("user", "password", "demo", "--password-stdin"),
            "Give demo another password? Would end: 1 session,",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_a_person_at_a_terminal_is_asked_with_the_figures(
    run, used: Configuration, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], asked: str
) -> None:
    monkeypatch.setattr("authserver.cli.ending.is_interactive", lambda: True)
    before = live(used)
    refused = run(*command, stdin="n\n")
    assert refused.exit_code == 1 and asked in refused.stderr
    assert live(used) == before
    assert asked not in run(*command, "--yes", stdin="a good password\n").output
    assert live(used) != before


def test_until_when_jwts_are_accepted_is_said(run, used: Configuration) -> None:
    with used.engine() as engine:
        engine.journal.client_id = "playground"
        engine.record(
            EventType.TOKEN_ISSUED, details={"scopes": ["profile"], "resources": [DEMO], "retry": False}
        )
    result = run("end", "client", "playground", "--dry-run")
    text = " ".join(result.stdout.split())
    assert "JWT access tokens cannot be revoked: 1 may be valid." in text
    assert "at the latest, if this is done now." in text
    done = told(run, "end", "client", "playground")
    left = datetime.fromisoformat(done["jwts_until"]) - datetime.now(UTC)
    assert (done["jwts"], timedelta(minutes=14) < left <= timedelta(minutes=15)) == (1, True)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("end", "user", "nobody"), "nobody: no such user"),
        (("end", "client", "nothing"), "nothing: no such client, or nothing of it could end"),
        (("end", "resource", "urn:nothing"), "urn:nothing: nothing is granted for such a resource"),
        (("end", "resource", "nothing"), "nothing: expected an absolute URI"),
        (("end", "scope", "profiles"), "profiles: no such scope; did you mean profile"),
        (("client", "disable", "nothing"), "nothing: no such client"),
        (("user", "disable", "nobody"), "nobody: no such user"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_not_known_is_said(run, command: tuple[str, ...], words: str) -> None:
    result = run(*command)
    assert result.exit_code in (1, 2) and words in result.stderr
    assert result.stdout == ""


def test_how_the_next_assertions_of_an_issuer_are_refused_is_said(run, used: Configuration) -> None:
    """L-08: what ends here may begin anew at once, until the issuer is disabled."""
    said = " ".join(run("end", "issuer", IDP).stdout.split())
    assert "`authserver issuer disable` refuses them, too" in said
    assert "if the INI names it, take it out there" in said
