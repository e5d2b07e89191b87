"""`authserver client`."""

from __future__ import annotations

import json
import re

import pytest

EDITOR = ("--name", "Editor", "--auth-method", "none", "--scope", "notes.read")


def add(run, *arguments: str):
    result = run("client", "add", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_client_with_a_redirect_uri_may_use_codes_and_refresh_tokens(run) -> None:
    client = add(
        run, "--name", "Notes", "--redirect-uri", "https://notes.example/cb", "--scope", "notes.read"
    )
    assert client["grant_types"] == ["authorization_code", "refresh_token"]
    assert client["redirect_uris"] == ["https://notes.example/cb"]
    assert client["scope"] == "notes.read"
    assert client["application_type"] == "web"
    assert client["token_endpoint_auth_method"] == "client_secret_basic"
    assert client["registered_by"] == "operator"


def test_a_value_may_have_several_scopes(run) -> None:
    """RFC 6749, 3.3: separated by spaces, as everybody writes them."""
    several = ("--scope", "notes.read  notes.write", "--scope", "profile")
    assert add(run, "--name", "Notes", *several)["scope"] == "notes.read notes.write profile"
    refused = run("client", "add", "--name", "Notes", "--scope", "notes.read notes.wriet")
    assert refused.exit_code == 2
    assert "--scope notes.wriet: not offered here" in refused.stderr
    assert run("client", "add", "--name", "Notes", "--scope", " ").exit_code == 2


def test_a_client_without_redirect_uri_acts_on_its_own_behalf(run) -> None:
    assert add(run, "--name", "Backup")["grant_types"] == ["client_credentials"]


def test_a_client_without_a_scope_is_no_surprise(run) -> None:
    """It may be a resource server, which only introspects; as a client it would get nothing."""
    added = run("client", "add", "--name", "Backup", "--client-id", "backup")
    assert "authserver client edit backup --add-scope SCOPE" in added.stderr
    assert json.loads(run("explain", "scope", "backup", "--json").stdout)["verdict"] == "refused"
    with_scope = run("client", "add", "--name", "Backup", "--scope", "notes.read")
    assert "--add-scope" not in with_scope.stderr


def test_a_loopback_redirect_uri_makes_a_native_application(run) -> None:
    client = add(run, *EDITOR, "--redirect-uri", "http://127.0.0.1/cb")
    assert client["application_type"] == "native"
    assert "client_secret" not in client


def test_an_application_type_that_is_not_given_follows_from_the_redirect_uris(run) -> None:
    """B204, K-12: `https://localhost` is one of a native application; a type that contradicts it is named."""
    local = ("--redirect-uri", "https://localhost:5001/signin-oidc")
    client = add(run, *EDITOR, *local)
    assert (client["application_type"], client["redirect_uris"]) == ("native", [local[1]])
    refused = run("client", "add", *EDITOR, *local, "--application-type", "web")
    assert refused.exit_code == 1
    assert "--application-type" in refused.stderr


def test_a_private_use_uri_is_added_where_the_ini_allows_it(run, ini) -> None:
    """C-16: the same floor as for strangers; the message says which lines allow it."""
    cursor = ("--redirect-uri", "cursor://anysphere.cursor-mcp/oauth/callback")
    assert add(run, *EDITOR, *cursor)["redirect_uris"] == [cursor[1]]
    for uri in ("cursor://evil.example/cb", "javascript://evil.example/x", "http://evil.example/cb"):
        assert run("client", "add", *EDITOR, "--redirect-uri", uri).exit_code == 1
    ini.write_text(ini.read_text().replace("    mcp_clients\n", ""))
    refused = run("client", "add", *EDITOR, *cursor)
    assert refused.exit_code == 1
    assert "mcp_clients" in refused.stderr
    assert "authserver.plugin.redirect_private_use.uris" in refused.stderr


def test_a_client_with_a_redirect_uri_needs_a_scope(run) -> None:
    """K-28: the message names those that there are; a client that only introspects needs none."""
    refused = run("client", "add", "--name", "Notes", "--redirect-uri", "https://notes.example/cb")
    assert refused.exit_code == 2
    assert "--scope" in refused.stderr
    assert "notes.read" in refused.stderr
    assert add(run, "--name", "API")["scope"] == ""


def test_a_secret_is_shown_once(run) -> None:
    """R-02: in the answer to `add`, and never again."""
    client = add(run, "--name", "Backup", "--client-id", "backup")
    assert client["client_id"] == "backup"
    secret = client["client_secret"]
    assert len(secret) > 40
    for command in (
        ["client", "list"],
        ["client", "list", "--json"],
        ["client", "show", "backup"],
        ["client", "show", "backup", "--json"],
    ):
        shown = run(*command)
        assert "backup" in shown.stdout
        assert secret not in shown.output and 'client_secret"' not in shown.output
    people = run("client", "add", "--name", "Other")
    assert "client secret " in people.stdout and "will not be shown again" in people.stderr


def test_what_is_not_offered_is_named_with_what_is(run) -> None:
    for option, value, hint in (
        ("--scope", "notes.raed", "notes.read"),
        ("--grant-type", "password", "client_credentials"),
        ("--auth-method", "client_secret_jwt", "client_secret_basic"),
    ):
        result = run("client", "add", "--name", "x", option, value)
        assert result.exit_code == 2, result.output
        assert f"{option} {value}: not offered here" in result.stderr and hint in result.stderr


def test_an_operator_is_held_to_the_rules_of_registration(run) -> None:
    """K-05: an http redirect URI, and a public client that would act on its own behalf."""
    http = run("client", "add", "--name", "x", *EDITOR, "--redirect-uri", "http://notes.example/cb")
    assert http.exit_code == 1 and "redirect_uris" in http.stderr
    public = run("client", "add", "--name", "x", "--auth-method", "none")
    assert public.exit_code == 1 and "client_credentials needs a client that authenticates" in public.stderr
    taken = run("client", "add", "--name", "x", "--client-id", "playground")
    assert taken.exit_code == 1 and "taken" in taken.stderr
    assert len(json.loads(run("client", "list", "--json").stdout)) == 2


def test_a_disabled_client_is_listed_as_such(run) -> None:
    """R-09."""
    assert run("client", "disable", "demo-service").exit_code == 0
    shown = json.loads(run("client", "show", "demo-service", "--json").stdout)
    assert shown["disabled_at"] is not None
    again = run("client", "disable", "demo-service")
    assert again.exit_code == 1 and "authserver client list" in again.stderr


def test_an_unknown_client_leads_to_the_list(run) -> None:
    result = run("client", "show", "nobody")
    assert result.exit_code == 1
    assert "authserver client list" in result.stderr


def test_a_first_party_client_is_marked(run) -> None:
    uri = ("--redirect-uri", "https://ours.example/cb")
    assert add(run, *EDITOR, *uri, "--first-party")["first_party"] is True
    assert add(run, *EDITOR, *uri)["first_party"] is False


def test_names_from_outside_cannot_draw_on_the_terminal(run) -> None:
    """A client's name is shown as text: neither markup nor control characters work."""
    add(run, "--name", "[bold red]Bank[/]", "--client-id", "marked")
    assert "[bold red]Bank[/]" in run("client", "list").stdout
    refused = run("client", "add", "--name", "\x1b[2J")
    assert refused.exit_code == 1 and "printable" in refused.stderr


def test_a_client_that_must_prove_a_key_is_registered_so(run, ini) -> None:
    """DPOP-05: only where a plugin looks for proofs."""
    bound = ("--metadata", "dpop_bound_access_tokens=true")
    added = add(run, "--name", "Vault", *bound)
    assert added["dpop_bound_access_tokens"] is True
    assert "dpop_bound_access_tokens" not in add(run, "--name", "Backup")
    shown = run("client", "show", added["client_id"], "--json").stdout
    assert json.loads(shown)["dpop_bound_access_tokens"] is True
    rows = json.loads(run("client", "list", "--json").stdout)
    assert [row["client_name"] for row in rows if row.get("dpop_bound_access_tokens")] == ["Vault"]
    assert "dpop bound access tokens" in run("client", "list").stdout
    text = ini.read_text()
    assert "    dpop\n" in text
    kept = [line for line in text.replace("    dpop\n", "").splitlines() if "plugin.dpop." not in line]
    ini.write_text("\n".join(kept))
    refused = run("client", "add", "--name", "Vault", *bound)
    assert refused.exit_code == 2
    assert "--metadata dpop_bound_access_tokens: not offered here" in refused.output


def test_a_client_that_must_push_is_registered_so(run) -> None:
    """PAR-08: set by the operator, and shown."""
    uri = ("--redirect-uri", "https://notes.example/cb", "--scope", "notes.read")
    name = "require_pushed_authorization_requests"
    added = add(run, "--name", "Notes", *uri, "--metadata", f"{name}=true")
    assert added[name] is True
    shown = run("client", "show", added["client_id"]).stdout
    assert re.search(r"require pushed authorization requests +yes", shown)
    assert name not in add(run, "--name", "Notes", *uri, "--metadata", f"{name}=false")


@pytest.mark.parametrize("blank", ["", "   "], ids=repr)
def test_a_client_of_an_operator_has_a_name(run, blank: str) -> None:
    """The consent page would say that nobody asks; and its id was never meant to be its name."""
    refused = run("client", "add", "--name", blank, "--scope", "profile")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "client_name must not be empty" in refused.stderr
    assert add(run, "--name", "  Notes ")["client_name"] == "Notes"


def test_a_member_that_cannot_be_registered_is_refused(run) -> None:
    """client_metadata: in the plugin's own words; a column that no client fills is not shown."""
    for value in ("yes", "1", '"true"', "[]", ""):
        refused = run("client", "add", "--name", "Vault", "--metadata", f"dpop_bound_access_tokens={value}")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "dpop_bound_access_tokens must be true or false" in refused.stderr
    assert run("client", "add", "--name", "Vault", "--metadata", "dpop_bound_access_tokens").exit_code == 2
    both = (f"--metadata=dpop_bound_access_tokens={value}" for value in ("true", "false"))
    twice = run("client", "add", "--name", "Vault", *both)
    assert twice.exit_code == 2 and "dpop_bound_access_tokens: given twice" in twice.stderr
    unknown = run("client", "add", "--name", "Vault", "--metadata", "dpop_bound_acess_tokens=true")
    assert "did you mean dpop_bound_access_tokens" in unknown.output
    assert "dpop bound access tokens" not in run("client", "list").stdout
