"""`authserver explain`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlencode

import click
import pytest

from authserver.engine.evidence import bounded
from authserver.engine.records import Event, EventType
from authserver.storage.database import Database
from tests.client_keys import ASSERTION_TYPE, Key

CALLBACK = "http://localhost:6543/playground"
SHADOW = """
from dataclasses import dataclass
from authserver.api import deny, hookimpl

@dataclass(frozen=True)
class Never:
    @hookimpl
    def scope_decision(self):
        return deny("never")

    @hookimpl
    def redirect_uri_decision(self):
        return deny("never")
"""


@pytest.fixture
def told(run):
    """The explanation as JSON."""

    def tell(*arguments: str, stdin: str = "") -> dict:
        result = run("explain", *arguments, "--json", stdin=stdin)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return json.loads(result.stdout)

    return tell


def contents(ini) -> dict[str, list]:
    with closing(sqlite3.connect(ini.parent / ".local" / "authserver.sqlite")) as connection, connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


def verdicts(told: dict) -> list[tuple[str, str, str]]:
    return [(check["hook"], check["verdict"], check["reason"]) for check in told["checks"]]


# ---- questions ---------------------------------------------------------------------------------------


def test_a_redirect_uri_that_is_allowed(told) -> None:
    explanation = told("redirect-uri", "playground", CALLBACK)
    assert explanation["verdict"] == "allowed"
    (check,) = explanation["checks"]
    assert check["facts"] == {"client_id": "playground", "redirect_uri": CALLBACK}
    assert (check["verdict"], check["by"], check["reason"]) == (
        "allow",
        "redirect_exact",
        "registered-exactly",
    )
    assert [answer["by"] for answer in check["answers"]] == ["redirect_exact", "redirect_loopback"]
    assert check["remedies"] == [] and check["settings"] == {}


def test_a_redirect_uri_that_nobody_accepts(told) -> None:
    explanation = told("redirect-uri", "playground", "http://localhost:6543/other")
    assert (explanation["verdict"], explanation["reason"]) == ("refused", "nobody-answered")
    assert explanation["description"] == "The redirect_uri is not registered for this application."
    (check,) = explanation["checks"]
    assert [answer["verdict"] for answer in check["answers"]] == ["silent", "silent"]
    assert check["note"] == "refused with an error page"
    assert check["remedies"] == [
        (
            "register the URI for the client: "
            "`authserver client edit playground --add-redirect-uri http://localhost:6543/other`"
        )
    ]
    assert check["settings"] == {"authserver.plugin.redirect_loopback.hosts": "127.0.0.1 [::1] localhost"}


def test_which_origins_may_read(told) -> None:
    """T085: those of the playground's redirect URI; what would let others read is said."""
    explanation = told("origin", "http://localhost:6543")
    assert verdicts(explanation) == [("origin_decision", "allow", "origin-registered")]
    explanation = told(
        "origin", "chrome-extension://abcdefghijklmnopabcdefghijklmnop", "--endpoint", "revoke"
    )
    assert (explanation["verdict"], explanation["reason"]) == ("refused", "nobody-answered")
    (check,) = explanation["checks"]
    assert check["facts"]["endpoint"] == "revoke"
    assert "authserver.plugin.origins_listed.origins" in check["remedies"][0]
    explanation = told("origin", "null")
    assert verdicts(explanation) == [("core", "refused", "origin-malformed")]
    assert "sandboxed" in explanation["description"]


@pytest.mark.parametrize(
    ("uri", "client", "reason"),
    [
        ("https://client.example/cb#fragment", "playground", "redirect-uri-malformed"),
        (CALLBACK, "nobody", "client-unknown"),
    ],
)
def test_what_no_policy_is_asked_about_is_decided_by_the_core(told, uri, client, reason) -> None:
    explanation = told("redirect-uri", client, uri)
    assert verdicts(explanation) == [("core", "refused", reason)]
    assert explanation["checks"][0]["remedies"]


def test_a_disabled_client_is_told_apart_from_an_unknown_one(run, told) -> None:
    """R-09: to operators, not to clients."""
    assert run("client", "disable", "demo-service").exit_code == 0
    for question in (
        ["scope", "demo-service"],
        ["resource", "demo-service"],
        ["client-auth", "demo-service"],
    ):
        assert told(*question)["reason"] == "client-disabled"


def test_scopes_are_asked_after_resources(told) -> None:
    explanation = told("scope", "demo-service", "--scope", "notes.read")
    assert verdicts(explanation) == [
        ("resource_decision", "allow", "resource-default"),
        ("scope_decision", "allow", "scopes-registered"),
    ]
    assert explanation["outcome"] == ["notes.read"]
    assert explanation["checks"][1]["facts"]["grant_type"] == "client_credentials"


def test_a_scope_that_a_policy_refuses(run, told) -> None:
    done = run("client", "add", "--name", "Few", "--client-id", "few", "--scope", "notes.read")
    assert done.exit_code == 0, done.output
    explanation = told("scope", "few", "--scope", "profile")
    assert verdicts(explanation)[-1] == ("scope_decision", "deny", "scope-not-registered")
    assert explanation["checks"][-1]["by"] == "scopes_registered"
    assert explanation["checks"][-1]["remedies"] == [
        "scopes_registered: register the client for the scope: `authserver client edit few --add-scope profile`"
    ]
    assert [check["remedies"] for check in explanation["checks"][:-1]] == [[]]


def test_scopes_that_are_not_offered_are_listed_first(run, told) -> None:
    """One command for all that is missing; what the client has already is not named."""
    done = run("client", "add", "--name", "Few", "--client-id", "few", "--scope", "notes.read")
    assert done.exit_code == 0, done.output
    options = [f"--scope={name}" for name in ("notes.read", "profile", "notes.everything")]
    assert told("scope", "few", *options)["checks"][-1]["remedies"] == [
        (
            "scopes_registered: first list notes.everything in authserver.scopes, or the plugin that adds it in "
            "authserver.plugins: no such scope is offered yet"
        ),
        (
            "scopes_registered: register the client for the scope: "
            "`authserver client edit few --add-scope profile --add-scope notes.everything`"
        ),
    ]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (
            ["scope", "demo-service", "--user", "demo"],
            "edit demo-service --add-grant-type authorization_code",
        ),
        (
            ["client-auth", "demo-service", "--method", "client_secret_post"],
            "edit demo-service --auth-method client_secret_post",
        ),
        (["client-auth", "demo-service"], "rotate-secret demo-service"),
        (
            ["redirect-uri", "playground", "http://localhost:6543/?a=1&b=2;c"],
            "edit playground --add-redirect-uri 'http://localhost:6543/?a=1&b=2;c'",
        ),
    ],
    ids=["grant type", "method", "secret", "quoted for the shell"],
)
def test_the_command_of_a_remedy_is_complete(run, ini, arguments: list[str], command: str) -> None:
    """It stands in a line of its own, for this server, however narrow the terminal is."""
    out = run("explain", *arguments).stdout
    assert f"      authserver -c {ini} client {command}\n" in out


def test_the_command_of_a_remedy_is_shorter_where_the_environment_names_the_server(
    run, ini, monkeypatch
) -> None:
    monkeypatch.setenv("AUTHSERVER_CONFIG", str(ini))
    assert (
        "      authserver client rotate-secret demo-service\n"
        in run("explain", "client-auth", "demo-service").stdout
    )


def test_a_client_that_is_not_kept_here_is_not_edited_here(told, ini, tmp_path) -> None:
    path = tmp_path / "clients.toml"
    path.write_text('[filed]\nname = "Filed"\nredirect_uris = ["https://client.example/cb"]\n')
    ini.write_text(
        ini.read_text()
        .replace("    redirect_exact\n", "    redirect_exact\n    clients_file\n")
        .replace("[server:main]", f"authserver.plugin.clients_file.file = {path}\n[server:main]")
    )
    (remedy,) = told("redirect-uri", "filed", "https://client.example/other")["checks"][-1]["remedies"]
    assert remedy.startswith("register the URI for the client; but the database has no client of this id")
    assert "authserver client" not in remedy


def test_what_the_floor_takes_away_is_a_check_of_its_own(run, told, ini) -> None:
    """T139: a scope of the policy's own that is registered for nobody is cut, and it shows."""
    text = ini.read_text().replace("    scopes_registered\n", "    floor_policies:Generous\n")
    ini.write_text(text)
    (ini.parent / "floor_policies.py").write_text(
        SHADOW.replace("Never", "Generous")
        .replace('deny("never")', 'allow("all", ("notes.read", "extra"))')
        .replace("import deny", "import allow")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ini.parent))
        explanation = told("scope", "demo-service", "--scope", "notes.read")
    assert explanation["checks"][-2]["outcome"] == ["notes.read", "extra"]
    assert verdicts(explanation)[-1] == ("core", "narrow", "core-floor")
    assert explanation["outcome"] == ["notes.read"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["playground"], "grant-type-not-registered"),
        (["demo-service", "--user", "demo"], "grant-type-not-registered"),
        (["demo-service", "--grant-type", "password"], "unsupported_grant_type"),
        (["demo-service", "--scope", 'a"b'], "invalid_scope"),
        (["demo-service", "--resource", "https://other.example/"], "nobody-answered"),
        (["demo-service", "--resource", "relative"], "invalid_target"),
    ],
)
def test_a_refusal_on_the_way_to_the_scopes_is_the_answer(told, arguments, reason) -> None:
    explanation = told("scope", *arguments)
    assert (explanation["verdict"], explanation["reason"]) == ("refused", reason)


def test_several_resources_are_several_checks(told) -> None:
    twice = ["--resource", "http://localhost:6543/demo-api"] * 2
    explanation = told("resource", "demo-service", *twice)
    assert len(explanation["checks"]) == 2
    assert explanation["outcome"] == ["http://localhost:6543/demo-api"]


def test_a_value_may_have_several_scopes_or_resources(told) -> None:
    demo = "http://localhost:6543/demo-api"
    explanation = told("scope", "demo-service", "--scope", "notes.read notes.write")
    assert explanation["outcome"] == ["notes.read", "notes.write"]
    assert len(told("resource", "demo-service", "--resource", f"{demo} {demo}")["checks"]) == 2


def test_client_authentication(told, run) -> None:
    added = json.loads(run("client", "add", "--name", "S", "--client-id", "s", "--json").stdout)
    secret = added["client_secret"]
    right = told("client-auth", "s", "--secret-stdin", stdin=f"{secret}\n")
    assert (right["verdict"], right["outcome"]) == ("allowed", "s")
    assert secret not in json.dumps(right)
    torn = told("client-auth", "s", "--secret-stdin", stdin=secret[:-1])
    assert (torn["verdict"], torn["reason"]) == ("refused", "secret-malformed")
    wrong = told("client-auth", "s")
    assert (wrong["verdict"], wrong["reason"]) == ("refused", "secret-wrong")
    other = told("client-auth", "s", "--method", "client_secret_post", "--secret-stdin", stdin=secret)
    assert verdicts(other) == [("core", "refused", "method-not-registered")]
    (remedy,) = other["checks"][0]["remedies"]
    assert remedy.endswith("`authserver client edit s --auth-method client_secret_post`")
    # Who sends nothing but a client_id must not lead to a client that needs no secret.
    alone = told("client-auth", "s", "--method", "none")
    assert verdicts(alone) == [("core", "refused", "credential-missing")]
    assert "--auth-method" not in json.dumps(alone)
    assert told("client-auth", "playground")["verdict"] == "allowed"


@pytest.mark.parametrize(
    ("arguments", "verdict", "outcome"),
    [
        ([], "allowed", "the person must sign in"),
        (["--user", "demo"], "allowed", "the sign-in suffices, at the level password"),
        (
            ["--user", "demo", "--seconds-ago", "400", "--parameter", "max_age=300"],
            "allowed",
            "the person must sign in again: You signed in some time ago.",
        ),
        (
            ["--user", "demo", "--seconds-ago", "400", "--fresh", "--parameter", "max_age=300"],
            "allowed",
            "the sign-in suffices",
        ),
        (["--user", "demo", "--parameter", "acr_values=gold"], "refused", "level-unknown"),
        (
            ["--user", "demo", "--method", "hwk", "--parameter", "acr_values=password"],
            "allowed",
            "the person must sign in again: What this application asks for needs a stronger",
        ),
        (["--user", "demo", "--parameter", "max_age=soon"], "refused", "max-age-malformed"),
        (
            ["--user", "demo", "--parameter", "max_age=1", "--parameter", "max_age=2"],
            "refused",
            "invalid_request",
        ),
        (["--parameter", "prompt=none"], "refused", "nobody-signed-in"),
    ],
    ids=" ".join,
)
def test_the_sign_in_behind_a_request(told, arguments, verdict, outcome) -> None:
    """STEP-01, STEP-02, STEP-08: with the parameters that a client would send."""
    explanation = told("sign-in", "playground", *arguments)
    assert explanation["verdict"] == verdict
    assert str(explanation["outcome"] if verdict == "allowed" else explanation["reason"]).startswith(outcome)
    if outcome == "level-unknown":
        assert "authserver.plugin.step_up.levels" in json.dumps(explanation["checks"][-1]["remedies"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--parameter", "max_age"], "'max_age' is not NAME=VALUE"),
        (["--parameter", "=5"], "'=5' is not NAME=VALUE"),
        (["--fresh"], "give --user as well"),
        (["--seconds-ago", "-1", "--user", "demo"], "-1 is not in the range"),
        (["--seconds-ago", "9" * 20, "--user", "demo"], "is not in the range 0<=x<=31536000"),
        (["--user", "nobody"], "there is no user nobody"),
    ],
    ids=" ".join,
)
def test_a_sign_in_that_cannot_be_meant(run, arguments, problem) -> None:
    result = run("explain", "sign-in", "playground", *arguments)
    assert result.exit_code != 0
    assert problem in result.stderr


def test_a_setting_is_shown_as_it_stands_in_the_ini(run) -> None:
    """So that the line can be copied there."""
    shown = run(
        "explain", "sign-in", "playground", "--user", "demo", "--parameter", "acr_values=unknown"
    ).stdout
    assert "set authserver.plugin.step_up.essential = false" in shown
    assert "authserver.plugin.step_up.essential = true" in shown


def test_authentication_with_a_key(told, run, ini, tmp_path) -> None:
    """J-10: an assertion, which is not used up; and each reason why another is not accepted."""
    ini.write_text(
        ini.read_text().replace("authserver.plugins =", "authserver.plugins =\n    private_key_jwt")
    )
    key, issuer = Key(), "http://localhost:6543"
    (tmp_path / "jwks.json").write_text(json.dumps(key.jwks()))
    options = [
        "--auth-method",
        "private_key_jwt",
        "--jwks",
        str(tmp_path / "jwks.json"),
        "--client-id",
        "signer",
    ]
    added = run("client", "add", "--name", "S", *options, "--redirect-uri", CALLBACK, "--scope", "profile")
    assert added.exit_code == 0, added.output

    def form(**changes: object) -> str:
        text = key.assertion("signer", aud=issuer, **changes)
        return urlencode({"client_assertion": text, "client_assertion_type": ASSERTION_TYPE})

    right = form()
    for _ in range(2):
        allowed = told("client-auth", "signer", "--form-stdin", stdin=f"{right}\n")
        assert (allowed["verdict"], allowed["outcome"]) == ("allowed", "signer")
        assert parse_qs(right)["client_assertion"][0] not in json.dumps(allowed)
    late = told("client-auth", "signer", "--form-stdin", stdin=form(exp=1))
    assert (late["verdict"], late["reason"]) == ("refused", "client-assertion-expired")
    assert told("client-auth", "signer")["reason"] == "client-assertion-missing"
    other = run("explain", "client-auth", "playground", "--form-stdin", stdin=right)
    assert (other.exit_code, "another client" in other.stderr) == (1, True)
    both = run("explain", "client-auth", "signer", "--form-stdin", "--secret-stdin", stdin=right)
    assert both.exit_code == 2


def test_consent_is_asked_for_or_not(told, run) -> None:
    asked = told("consent", "playground", "demo", "--scope", "profile")
    assert verdicts(asked)[-1] == ("consent_decision", "silent", "nobody-answered")
    assert asked["outcome"].startswith("the person is asked, because no consent policy allows it")
    assert asked["reason"] == "" and asked["checks"][-1]["note"] == "the user is asked"
    assert [check["remedies"] for check in asked["checks"]] == [[], [], []]
    for client_id, uri, outcome in (
        ("ours", "https://ours.example/cb", "the person is not asked"),
        ("local", "http://127.0.0.1/cb", "the person is asked anyway"),
    ):
        options = ["--client-id", client_id, "--redirect-uri", uri, "--first-party", "--scope", "profile"]
        done = run("client", "add", "--name", "Ours", "--auth-method", "none", *options)
        assert done.exit_code == 0, done.output
        assert told("consent", client_id, "demo", "--scope", "profile")["outcome"].startswith(outcome)


def test_consent_of_somebody_who_cannot_sign_in(told, run) -> None:
    missing = run("explain", "consent", "playground", "nobody")
    assert missing.exit_code == 1 and "authserver user list" in missing.stderr
    assert run("user", "disable", "demo").exit_code == 0
    assert told("consent", "playground", "demo")["reason"] == "user-disabled"


def test_registration(told, tmp_path) -> None:
    metadata = tmp_path / "client.json"
    metadata.write_text('{"redirect_uris": ["https://new.example/cb"], "scope": "profile"}')
    explanation = told("registration", str(metadata))
    assert verdicts(explanation) == [
        ("registration_decision", "allow", "open-registration"),
        ("redirect_uri_decision", "allow", "registered-exactly"),
    ]
    assert explanation["checks"][0]["outcome"] == ["profile"]
    refused = told("registration", "-", stdin='{"redirect_uris": []}')
    assert refused["reason"] == "no-redirect-uri"
    assert refused["description"].startswith("redirect_uris is missing")
    cursor = '{"redirect_uris": ["https://new.example/cb", "cursor://anysphere.cursor-mcp/oauth/callback", "app:/"]}'
    kept = told("registration", "-", stdin=cursor)["outcome"].partition("redirect URIs: ")[2]
    assert kept == "https://new.example/cb cursor://anysphere.cursor-mcp/oauth/callback"
    closed = told("registration", "-", stdin='{"grant_types": ["client_credentials"]}')
    assert closed["reason"] == "grant-type-not-open"
    assert closed["checks"][0]["remedies"][0].startswith("registration_open: list one of the grant types")
    assert "authserver.plugin.registration_open.grant_types" in closed["checks"][0]["settings"]


def test_registration_with_an_initial_access_token(run, ini, told) -> None:
    """K-14: as its holder, by the token or by its id; what it may register is up to its policy, and none of it is used up."""
    text = ini.read_text().replace("    registration_open\n", "    registration_token\n")
    text = text.replace("authserver.plugin.registration_open.", "# authserver.plugin.registration_open.")
    ini.write_text(
        text.replace(
            "[server:main]",
            "authserver.plugin.registration_token.policies = partners = scopes profile\n[server:main]",
        )
    )
    made = run("initial-token", "add", "--policy", "partners", "--uses", "1", "--json")
    assert made.exit_code == 0, made.output
    token = json.loads(made.stdout)
    asked = '{"redirect_uris": ["https://new.example/cb"]}'
    assert told("registration", "-", stdin=asked)["reason"] == "initial-access-token-required"
    (token_id,) = [value for value in token.values() if str(value).startswith("initial_")]
    for _ in range(2):
        allowed = told("registration", "-", "--initial-token", token_id, stdin=asked)
        assert allowed["outcome"].startswith("scopes: profile; ")
    assert run("initial-token", "revoke", token_id).exit_code == 0
    refused = told("registration", "-", "--initial-token", token_id, stdin=asked)
    assert refused["reason"] == "initial-access-token-revoked"
    missing = run("explain", "registration", "-", "--initial-token", "initial_x", stdin=asked)
    assert (missing.exit_code, "authserver initial-token list" in missing.stderr) == (1, True)


def test_secrets_of_plugins_are_not_shown(run, ini, told) -> None:
    """T145: an initial access token stands among the settings of its plugin."""
    token = "initial-access-token-0123456789abcdef"
    text = ini.read_text().replace("    registration_open\n", "    registration_token\n")
    text = text.replace("authserver.plugin.registration_open.", "# authserver.plugin.registration_open.")
    ini.write_text(
        text.replace("[server:main]", f"authserver.plugin.registration_token.tokens = {token}\n[server:main]")
    )
    explanation = told("registration", "-", stdin='{"redirect_uris": ["https://new.example/cb"]}')
    assert explanation["reason"] == "initial-access-token-required"
    assert token not in json.dumps(explanation)
    assert "(secret)" in json.dumps(explanation)


# ---- nothing changes, nothing leaks -------------------------------------------------------------------


def test_nothing_changes_even_with_shadow_plugins(run, ini, tmp_path, monkeypatch) -> None:
    """All tables before and after every question, while a shadow plugin would have differed each time."""
    (tmp_path / "explain_shadow.py").write_text(SHADOW)
    monkeypatch.syspath_prepend(str(tmp_path))
    ini.write_text(
        ini.read_text().replace(
            "# authserver.shadow_plugins =", "authserver.shadow_plugins = explain_shadow:Never"
        )
    )
    metadata = '{"redirect_uris": ["https://new.example/cb"]}'
    before = contents(ini)
    for arguments, stdin in (
        (["redirect-uri", "playground", CALLBACK], ""),
        (["redirect-uri", "nobody", CALLBACK], ""),
        (["scope", "demo-service", "--scope", "notes.read"], ""),
        (["scope", "playground", "--user", "demo"], ""),
        (["resource", "demo-service"], ""),
        (["consent", "playground", "demo", "--scope", "profile"], ""),
        (["client-auth", "demo-service"], ""),
        (["client-auth", "demo-service", "--secret-stdin"], "wrong\n"),
        (["registration", "-"], metadata),
        (["--error-id", "unknown"], ""),
    ):
        result = run("explain", *arguments, stdin=stdin)
        assert result.exit_code == (1 if "--error-id" in arguments else 0), result.output
    assert contents(ini) == before


# ---- what happened ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hook", "outcome", "line"),
    [
        ("scope_decision", None, "1. scope_decision: deny, by retired_plugin: quiet-hours"),
        (
            "authentication_decision",
            "login_required",
            "1. authentication_decision: deny login_required, by retired_plugin: quiet-hours",
        ),
    ],
)
def test_an_error_id_leads_to_the_record(run, ini, hook, outcome, line) -> None:
    """With the error code that a policy refused with, where it chose one."""
    decision = {
        "slot": hook,
        "facts": {"client_id": "demo-service", "requested": ["profile"]},
        "verdict": "deny",
        "reason": "quiet-hours",
        "decided_by": "retired_plugin",
        "outcome": outcome,
        "answers": [
            {"plugin": "retired_plugin", "verdict": "deny", "reason": "quiet-hours", "microseconds": 7}
        ],
    }
    event = Event(
        event_id="error-1",
        type=EventType.TOKEN_REFUSED,
        at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        actor="client:demo-service",
        source="192.0.2.1",
        client_id="demo-service",
        reason="quiet-hours",
        decisions=(decision,),
        details={"error": "invalid_scope", "description": "The requested scope is not allowed."},
    )
    database = Database(f"sqlite:///{ini.parent}/.local/authserver.sqlite")
    with database.begin() as stores:
        stores.events.add(event)
    database.close()
    result = run("explain", "--error-id", "error-1", "--json")
    explanation = json.loads(result.stdout)
    assert explanation["at"] == "2026-01-02T03:04:05Z"
    assert (explanation["actor"], explanation["source"]) == ("client:demo-service", "192.0.2.1")
    assert explanation["client_id"] == "demo-service"
    assert (explanation["verdict"], explanation["reason"]) == ("token.refused", "quiet-hours")
    assert explanation["outcome"]["error"] == "invalid_scope"
    (check,) = explanation["checks"]
    assert check["facts"] == decision["facts"]
    assert check["remedies"] == ["retired_plugin: it is not in authserver.plugins any more"]
    people = run("explain", "--error-id", "error-1").stdout
    for words in (
        line,
        "2026-01-02 03:04:05Z",
        "profile",
    ):
        assert words in people


def test_an_event_that_was_cut_or_stands_for_others_says_so(run, ini) -> None:
    """Parts are shown as parts, with the length of the whole; and how many refusals there were."""
    asked = {"client_id": "demo-service", "redirect_uri": "https://x.example/" + "p" * 1_500}
    decision = {
        "slot": "redirect_uri_decision",
        "facts": asked,
        "verdict": "silent",
        "reason": "nobody-answered",
        "decided_by": "",
        "outcome": None,
        "answers": [],
    }
    more = {"count": 1_482, "until": "2026-01-02T03:05:04+00:00", "sources": 7}
    event = Event(
        event_id="error-1",
        type=EventType.AUTHORIZATION_REFUSED,
        at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        actor="stranger",
        reason="nobody-answered",
        decisions=(decision,) * 9,
        details={"error": "invalid_request", "description": "No.", "more": more},
    )
    database = Database(f"sqlite:///{ini.parent}/.local/authserver.sqlite")
    with database.begin() as stores:
        stores.events.add(bounded(event))
    database.close()
    told = json.loads(run("explain", "--error-id", "error-1", "--json").stdout)
    assert told["more"] == more
    assert told["left_out"] == {"redirect_uri_decision": 9 - len(told["checks"])}
    assert told["checks"][-1]["cut"] == {"facts.redirect_uri": "1518 characters"}
    people = " ".join(run("explain", "--error-id", "error-1").stdout.split())
    for words in (
        "redirect uri of 1518 characters",
        f"{told['left_out']['redirect_uri_decision']} more of redirect_uri_decision were left out",
        "1,482 more refusals of this kind were counted with this one, from 7 addresses in all, until 2026-01-02 03:05:04Z",
    ):
        assert words in people


def test_an_unknown_error_id_is_one_sentence(run) -> None:
    result = run("explain", "--error-id", "nothing")
    assert result.exit_code == 1
    assert "no event has the id nothing" in result.stderr and "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments", [[], ["--error-id", "x", "resource", "demo-service"], ["--json", "resource", "demo-service"]]
)
def test_a_wrong_command_line_says_so(run, arguments) -> None:
    result = run("explain", *arguments)
    assert result.exit_code == 2
    assert "--error-id" in result.stderr


def test_a_request_that_names_no_resource_or_scope_leads_to_the_setting(run, ini) -> None:
    """What the client is told it must send, and what the operator can set instead."""
    text = ini.read_text()
    for line in (
        "    scopes_default\n",
        "authserver.plugin.scopes_default.scopes = profile\n",
        "authserver.plugin.resources_listed.default = http://localhost:6543/demo-api\n",
    ):
        assert text.count(line) == 1
        text = text.replace(line, "")
    ini.write_text(text)
    shown = run("explain", "resource", "demo-service").stdout
    assert "The request names no resource: the parameter resource is required." in shown
    assert "or one must be the default: authserver.plugin.resources_listed.default" in shown
    shown = run("explain", "scope", "demo-service", "--resource", "http://localhost:6543/demo-api").stdout
    assert "The request names no scope: the parameter scope is required." in shown
    assert "name the scope in authserver.plugin.scopes_default.scopes" in shown


@pytest.mark.parametrize("columns", [80, 200])
def test_nothing_is_wider_than_the_terminal(run, monkeypatch, columns) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = run("explain", "scope", "playground", "--user", "demo").stdout
    assert "scopes_default" in out
    assert max(map(len, click.unstyle(out).splitlines())) <= columns


def test_whether_a_client_may_read_a_token(run, told) -> None:
    """The question of the introspection endpoint, without a token; a refresh token is for its own client alone."""
    own = told("introspection", "demo-service", "demo-service", "--scope", "notes.read")
    assert (own["verdict"], own["outcome"]) == ("allowed", "the client may read the token")
    other = told("introspection", "demo-service", "playground", "--user", "demo", "--refresh")
    assert other["verdict"] == "refused"
    assert next(hook for hook, *_ in verdicts(other)) == "introspection_decision"
    public = told("introspection", "playground", "demo-service")
    assert (public["verdict"], public["reason"]) == ("refused", "public-caller")
    nobody = run("explain", "introspection", "demo-service", "demo-service", "--user", "nobody")
    assert nobody.exit_code == 1 and "there is no user nobody" in nobody.output
