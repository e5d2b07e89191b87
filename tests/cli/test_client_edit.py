"""`authserver client edit`, and links and logos by `client add`."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from authserver.cli.client import edit_client
from authserver.cli.configuration import Configuration
from authserver.testing.logos import PNG_LOGO, SVG_LOGO

NOTES = ("--redirect-uri", "https://notes.example/cb", "--scope", "notes.read")


@pytest.fixture
def notes(run) -> str:
    """The id of a confidential client with a redirect URI."""
    added = run("client", "add", "--client-id", "notes", "--name", "Notes", *NOTES)
    assert added.exit_code == 0, added.output
    return "notes"


@pytest.fixture
def logo(tmp_path: Path) -> str:
    path = tmp_path / "logo.svg"
    path.write_bytes(SVG_LOGO)
    return str(path)


def edited(run, *arguments: str) -> dict[str, Any]:
    result = run("client", "edit", "--json", "notes", *arguments)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def shown(run) -> dict[str, Any]:
    return dict(json.loads(run("client", "show", "notes", "--json").stdout))


def test_everything_can_be_changed_at_once(run, notes: str, logo: str) -> None:
    answer = edited(
        run,
        *("--name", "Notebook", "--add-redirect-uri", "https://notes.example/new"),
        *("--remove-redirect-uri", "https://notes.example/cb", "--add-scope", "notes.write"),
        *("--remove-grant-type", "refresh_token", "--auth-method", "client_secret_post"),
        *("--client-uri", "https://notes.example/", "--policy-uri", "https://notes.example/privacy"),
        *("--tos-uri", "https://notes.example/terms", "--logo", logo, "--no-refresh-rotation"),
        *("--first-party", "--metadata", "dpop_bound_access_tokens=true", "--application-type", "native"),
    )
    after = shown(run)
    assert {name: after[name] for name in answer["changed"]} == {
        name: change["to"] for name, change in answer["changed"].items()
    }
    assert after["client_name"] == "Notebook"
    assert after["redirect_uris"] == ["https://notes.example/new"]
    assert after["scope"] == "notes.read notes.write"
    assert after["grant_types"] == ["authorization_code"]
    assert after["token_endpoint_auth_method"] == "client_secret_post"
    assert after["policy_uri"] == "https://notes.example/privacy"
    assert after["first_party"] is True
    assert after["rotates_refresh_tokens"] is False
    assert after["dpop_bound_access_tokens"] is True
    assert after["application_type"] == "native"
    assert len(after["logo"]) == 32
    assert (answer["asks_again"], answer["grants_revoked"]) == (True, 0)
    assert "client_secret" not in answer


def test_lists_are_replaced_whole(run, notes: str) -> None:
    uris = ("https://b.example/cb", "https://a.example/cb")
    edited(run, "--redirect-uri", uris[0], "--redirect-uri", uris[1], "--scope", "notes.write")
    after = shown(run)
    assert after["redirect_uris"] == list(uris)
    assert after["scope"] == "notes.write"
    edited(run, "--grant-type", "authorization_code", "--grant-type", "client_credentials")
    assert shown(run)["grant_types"] == ["authorization_code", "client_credentials"]


def test_a_value_may_have_several_scopes(run, notes: str) -> None:
    edited(run, "--add-scope", "notes.write profile")
    assert shown(run)["scope"] == "notes.read notes.write profile"
    edited(run, "--remove-scope", "notes.read profile")
    assert shown(run)["scope"] == "notes.write"
    edited(run, "--scope", "profile notes.read")
    assert shown(run)["scope"] == "profile notes.read"


def test_what_is_empty_takes_a_link_or_the_logo_away(run, notes: str, logo: str) -> None:
    edited(
        run, "--client-uri", "https://notes.example/", "--tos-uri", "https://notes.example/t", "--logo", logo
    )
    answer = edited(run, "--client-uri", "", "--logo", "", "--metadata", "dpop_bound_access_tokens=null")
    assert answer["changed"].keys() == {"client_uri", "logo"}
    after = shown(run)
    assert "client_uri" not in after
    assert after["logo"] is None
    assert after["tos_uri"] == "https://notes.example/t"
    edited(run, "--metadata", "dpop_bound_access_tokens=true")
    edited(run, "--metadata", "dpop_bound_access_tokens=false")
    assert "dpop_bound_access_tokens" not in shown(run)


def test_people_read_what_changed_and_what_follows(run, notes: str) -> None:
    result = run("client", "edit", "notes", "--name", "Notebook", "--auth-method", "none")
    assert result.exit_code == 0
    assert "client name" in result.stdout and "Notebook" in result.stdout
    assert "People who agreed before are asked again." in result.stdout
    again = run("client", "edit", "notes", "--name", "Notebook")
    assert (again.exit_code, again.stdout) == (0, "Nothing was changed: it has these values already.\n")


def test_a_new_secret_is_shown_once(run, notes: str) -> None:
    """R-02: where the new method needs one; never in an event."""
    edited(run, "--auth-method", "none")
    assert run("client", "secrets", "notes").exit_code == 1
    result = run("client", "edit", "notes", "--auth-method", "client_secret_basic")
    assert "will not be shown again" in result.stderr
    secret = next(line.split()[-1] for line in result.stdout.splitlines() if "client secret" in line)
    asked = ("explain", "client-auth", "notes", "--secret-stdin", "--json")
    assert json.loads(run(*asked, stdin=f"{secret}\n").stdout)["verdict"] == "allowed"
    assert secret not in run("client", "show", "notes", "--json").output
    answer = edited(run, "--auth-method", "none")
    assert "client_secret" not in answer


def test_an_edit_is_audited(run, ini: Path, notes: str) -> None:
    """The event says who, what, from what and to what."""
    edited(run, "--add-scope", "notes.write")
    with Configuration(ini).engine() as engine:
        (event,) = engine.stores.events.since(datetime(2020, 1, 1, tzinfo=UTC), type="client.changed")
        added = engine.stores.events.since(datetime(2020, 1, 1, tzinfo=UTC), type="client.registered")
        (client,) = (each.details["client"] for each in added if each.client_id == "notes")
    assert (client["scope"], client["first_party"]) == ("notes.read", False)
    assert (event.client_id, event.actor) == ("notes", "command:client edit")
    assert event.details == {"changed": {"scope": {"from": "notes.read", "to": "notes.read notes.write"}}}


def test_without_options_it_says_what_can_be_changed(run, notes: str) -> None:
    result = run("client", "edit", "notes")
    assert (result.exit_code, result.stdout) == (2, "")
    options = [option.opts[0] for option in edit_client.params if option.name not in ("client_id", "as_json")]
    assert len(options) == 20
    assert all(option in result.stderr for option in options)
    assert "authserver client show notes" in result.stderr


REFUSED: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (
        ("--add-scope", "notes.raed"),
        2,
        "--add-scope notes.raed: not offered here; did you mean notes.read",
    ),
    (("--scope", "notes.raed"), 2, "--scope notes.raed: not offered here"),
    (("--add-grant-type", "password"), 2, "--add-grant-type password: not offered here"),
    (("--auth-method", "tls"), 2, "--auth-method tls: not offered here"),
    (("--metadata", "no_such=1"), 2, "--metadata no_such: not offered here"),
    (("--metadata", "dpop_bound_access_tokens=1"), 1, "must be true or false"),
    (("--remove-scope", "notes.write"), 1, "scope: notes.write is not in the list, which has notes.read"),
    (("--scope", "notes.write", "--add-scope", "notes.read"), 1, "either give a whole new list"),
    (("--add-redirect-uri", "http://notes.example/cb"), 1, "redirect_uris"),
    (("--add-redirect-uri", "foo://x/cb"), 1, "authserver.plugin.redirect_private_use.uris"),
    (("--redirect-uri", ""), 1, "redirect_uris"),
    (("--remove-scope", "notes.read"), 1, "scope must name at least one"),
    (("--name", ""), 1, "client_name must not be empty"),
    (("--client-uri", "http://notes.example/"), 1, "client_uri"),
    (("--logo", "no-such-file.svg"), 1, "no-such-file.svg: No such file or directory"),
    (("--logo", __file__), 1, "logo: it must be an SVG or PNG file"),
    # Not the empty text that takes the logo away.
    (("--logo", os.devnull), 1, f"{os.devnull}: the file is empty"),
    (("--auth-method", "none", "--no-refresh-rotation"), 1, "rotate"),
)


def test_what_is_wrong_is_refused_in_a_sentence(run, notes: str) -> None:
    """And nothing is written."""
    before = shown(run)
    for options, exit_code, message in REFUSED:
        result = run("client", "edit", "notes", *options)
        assert (result.exit_code, result.stdout) == (exit_code, ""), options
        assert message in result.stderr
    assert shown(run) == before


def test_a_client_that_is_not_there_or_disabled_is_refused(run, notes: str) -> None:
    unknown = run("client", "edit", "nobody", "--name", "x")
    assert unknown.exit_code == 1 and "authserver client list" in unknown.stderr
    run("client", "disable", "notes")
    disabled = run("client", "edit", "notes", "--name", "x")
    assert disabled.exit_code == 1 and "disabled for good" in disabled.stderr


def test_a_client_is_added_with_links_and_a_logo(run, tmp_path: Path) -> None:
    path = tmp_path / "logo.png"
    path.write_bytes(PNG_LOGO)
    links = {
        "client_uri": "https://notes.example/",
        "policy_uri": "https://notes.example/privacy",
        "tos_uri": "https://notes.example/terms",
    }
    options = [text for name, url in links.items() for text in (f"--{name.replace('_', '-')}", url)]
    added = run("client", "add", "--json", "--name", "Notes", *NOTES, *options, "--logo", str(path))
    assert added.exit_code == 0, added.output
    record = json.loads(added.stdout)
    assert {name: record[name] for name in links} == links
    assert record["logo"]
    refused = run("client", "add", "--name", "Notes", *NOTES, "--logo", __file__)
    assert refused.exit_code == 1 and "logo: it must be an SVG or PNG file" in refused.stderr
    wrong = run("client", "add", "--name", "Notes", *NOTES, "--tos-uri", "javascript:alert(1)")
    assert wrong.exit_code == 1 and "tos_uri" in wrong.stderr
    assert len(json.loads(run("client", "list", "--json").stdout)) == 3
