"""Trusted issuers of the INI, of every profile (`authserver.trusted_issuers`), and what `authserver lint` says of entries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from authserver.settings import SettingsError
from authserver.testing.rules import Rules
from authserver.testing.server import RESOURCE, SETTINGS
from tests.client_keys import Key
from tests.trusted_issuers import GRANT_TYPE, Issuer

GITHUB = "https://token.actions.githubusercontent.com"
KEY = Key("RS256")
DEMO = "http://localhost:6543/demo-api"
RULE = """
[[issuers."{issuer}".options.rules]]
name = "deploy"
client = "{client}"
claims = {{ {claims} }}
resources = ["{resource}"]
scopes = ["{scope}"]
"""
ENTRY = """
[issuers."{issuer}"]
profile = "{profile}"
jwks = {{ file = "keys.json" }}
{members}

[issuers."{issuer}".options]
{options}
"""


def an_entry(
    profile: str = "workload_identity", members: str = "", options: str = "", issuer: str = GITHUB
) -> str:
    return ENTRY.format(issuer=issuer, profile=profile, members=members, options=options)


def a_rule(
    claims: str = 'repository_id = "74"',
    client: str = "demo-service",
    resource: str = DEMO,
    scope: str = "notes.read",
) -> str:
    return RULE.format(issuer=GITHUB, client=client, claims=claims, resource=resource, scope=scope)


PLATFORM = an_entry(options='platform = "github-actions"')


@pytest.fixture
def listed(tmp_path: Path) -> Any:
    """Rules whose INI names a file with this text."""
    (tmp_path / "keys.json").write_text(json.dumps(KEY.jwks()))

    def listed(text: str, **settings: str) -> Rules:
        file = tmp_path / "issuers.toml"
        file.write_text(text, "utf-8")
        plugins = f"{SETTINGS['authserver.plugins']} jwt_bearer id_jag workload_identity"
        return Rules({"authserver.plugins": plugins, "authserver.trusted_issuers": str(file), **settings})

    return listed


def test_a_workload_of_the_ini_gets_its_token(listed: Any) -> None:
    """WIF-01, WIF-02: in the form and by the rules of an entry of the database, which is not asked."""
    rules = listed(PLATFORM + a_rule(client="job", resource=RESOURCE, scope="files.read"))
    rules.add_client(client_id="job", grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none")
    platform = Issuer(GITHUB, key=KEY, claims={"repository_id": "74", "sub": "job"})

    def present(**changes: Any) -> Any:
        form = {"grant_type": GRANT_TYPE, "resource": RESOURCE, "assertion": platform.assertion(**changes)}
        return rules.post("/oauth/token", urlencode(form))

    answer = present()
    claims = rules.claims(answer.json["access_token"])
    assert (claims["sub"], claims["client_id"], claims["scope"]) == ("workload:deploy", "job", "files.read")
    assert present(repository_id="75").json["error"] == "invalid_grant"
    assert rules.rows("stored_settings") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PLATFORM, "rules: must be a list with a rule at least"),
        (PLATFORM + a_rule(claims=""), "claims: must name a claim at least"),
        (an_entry("nobody"), "nobody: no plugin here has this profile"),
        (an_entry(members="lifetime = 1"), "lifetime"),
        (an_entry(members='scopes = ["nothing"]'), "nothing: no such scope"),
        (an_entry("mcp", options="unknown = 1"), "unknown: no such option"),
        (an_entry("mcp"), "it would accept nobody"),
        (an_entry("jwt_bearer", issuer="https://as.example"), "accepts nothing that it signed itself"),
        ('[issuers."https://x.example"]\nprofile = "mcp"', "its keys, or the https address"),
        ('[scopes]\nx = "x"', "only issuers are declared here"),
        ("[issuers", "issuers.toml:1"),
    ],
    ids=lambda value: value[-24:],
)
def test_what_is_wrong_with_an_issuer_of_the_ini_stops_the_start(listed: Any, text: str, told: str) -> None:
    """WIF-01: all of an entry is known before start, and the message has the setting, the file and the line."""
    with pytest.raises(SettingsError) as error:
        listed(text)
    (problem,) = error.value.problems
    assert problem.startswith("authserver.trusted_issuers: ")
    assert told in problem


def test_an_issuer_is_in_one_place_of_the_ini(listed: Any) -> None:
    """WIF-10: two entries of one issuer cannot be."""
    keys = json.dumps(KEY.jwks())
    with pytest.raises(SettingsError, match=r"in authserver.trusted_issuers and in .*jwt_bearer.issuers"):
        listed(PLATFORM + a_rule(), **{"authserver.plugin.jwt_bearer.issuers": f"{GITHUB} = {keys}"})


def test_a_folder_that_is_not_there_is_told(listed: Any) -> None:
    with pytest.raises(SettingsError, match=r"authserver.trusted_issuers: .*no such file or folder"):
        listed("", **{"authserver.trusted_issuers": "/nowhere/issuers.toml"})


# ---- lint ----------------------------------------------------------------------------------------------


@pytest.fixture
def linted(run, ini: Path, tmp_path: Path) -> Any:
    """What `authserver lint` says of the issuers in a file of the INI: (problem, what to change)."""
    (tmp_path / "keys.json").write_text(json.dumps(KEY.jwks()))
    text = ini.read_text("utf-8")
    for plugin in ("workload_identity", "jwt_bearer", "id_jag"):
        text = text.replace(f"    # {plugin}\n", f"    {plugin}\n")
    named = "# authserver.trusted_issuers ="
    assert named in text
    ini.write_text(text.replace(named, f"authserver.trusted_issuers = {tmp_path}/issuers.toml"), "utf-8")

    def linted(entry: str, status: int = 0) -> list[tuple[str, str]]:
        (tmp_path / "issuers.toml").write_text(entry, "utf-8")
        result = run("lint", "--json", *(["--strict"] if status else []))
        assert result.exit_code == status, result.output
        return [(each["problem"], each["remedy"]) for each in json.loads(result.stdout)["issuers"]]

    return linted


NAMED = f'clients = ["demo-service"]\nresources = ["{DEMO}"]'


@pytest.mark.parametrize(
    ("entry", "problems"),
    [
        (PLATFORM + a_rule(), []),
        (
            PLATFORM + a_rule('repository = "octo/app"'),
            ["rule deploy: repository can come to name somebody else"],
        ),
        (
            PLATFORM + "reusable = true\n" + a_rule(),
            ["reusable: whoever gets hold of an assertion can present it again"],
        ),
        (an_entry("mcp", NAMED, "create_users = true"), []),
        (
            an_entry("mcp", "", "create_users = true"),
            [
                "clients: it names none, so each client",
                "resources: it names none, so its assertions may give tokens",
            ],
        ),
        (
            an_entry(
                "mcp", 'clients = ["nobody"]\nresources = ["https://gone.example/"]', "usernames = true"
            ),
            ["clients: nobody: no such client", "usernames: it can name every user of this server"],
        ),
        (
            an_entry(
                "mcp",
                'clients = ["demo-service"]\nresources = ["https://gone.example/"]',
                "create_users = true",
            ),
            ["resources: https://gone.example/: no such resource"],
        ),
        (
            an_entry("draft", NAMED, "create_users = true\npublic_clients = true"),
            ["public_clients: whoever gets hold of an assertion"],
        ),
        (
            an_entry("jwt_bearer", NAMED, "single_use = false"),
            ["subject: it can name every user of this server", "single_use: whoever gets hold"],
        ),
        (an_entry("jwt_bearer", NAMED, 'subject = "listed"\nsubjects = { x = "demo" }'), []),
    ],
    ids=[
        "right",
        "a name that can be reused",
        "reusable",
        "a company",
        "everything",
        "nothing, and everybody",
        "no resource",
        "public clients",
        "user names",
        "listed",
    ],
)
def test_lint_says_what_an_entry_lets_in(linted: Any, entry: str, problems: list[str]) -> None:
    """WIF-03, WIF-05, JAG-16: what matches nothing or everything, and options that let too much in, with the key to change."""
    found = linted(entry)
    assert len(found) == len(problems), found
    for (problem, remedy), wanted in zip(found, problems, strict=True):
        assert problem.startswith(wanted)
        assert remedy == "authserver.trusted_issuers"
    if problems:
        linted(entry, status=1)


def test_lint_names_the_command_for_an_issuer_of_the_database(run, ini: Path, tmp_path: Path) -> None:
    """JAG-16"""
    ini.write_text(ini.read_text("utf-8").replace("    # jwt_bearer\n", "    jwt_bearer\n"), "utf-8")
    (tmp_path / "keys.json").write_text(json.dumps(KEY.jwks()))
    keys = str(tmp_path / "keys.json")
    assert run("issuer", "add", GITHUB, "--profile", "jwt_bearer", "--jwks", keys).exit_code == 0
    found = json.loads(run("lint", "--json").stdout)["issuers"]
    assert {each["remedy"] for each in found} == {f"`authserver issuer edit {GITHUB}`"}
    assert len(found) == 3
