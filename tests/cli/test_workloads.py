"""Workload identity on the command line: an entry with rules is added, judged and brought about from files."""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

from authserver.features.workload_identity.rules import read
from tests.client_keys import Key
from tests.trusted_issuers import Issuer

GITHUB = "https://token.actions.githubusercontent.com"
KEY = Key("RS256")
RULE = {
    "name": "deploy",
    "client": "demo-service",
    "claims": {"repository": "octo-org/app"},
    "resources": ["http://localhost:6543/demo-api"],
    "scopes": ["notes.read"],
}


@pytest.fixture(autouse=True)
def on(ini: Path, tmp_path: Path) -> None:
    """The profile is switched on, and the keys of the platform are in a file."""
    text = ini.read_text("utf-8")
    assert "    # workload_identity\n" in text
    ini.write_text(text.replace("    # workload_identity\n", "    workload_identity\n"), "utf-8")
    (tmp_path / "github.json").write_text(json.dumps(KEY.jwks()))


@pytest.fixture
def add(run, tmp_path: Path):
    def add(*rules: Any, status: int = 0, **options: Any) -> Any:
        named = {"platform": "github-actions", "rules": list(rules), **options}
        given = [word for name, value in named.items() for word in ("--option", f"{name}={as_option(value)}")]
        keys = str(tmp_path / "github.json")
        result = run(
            "issuer", "add", GITHUB, "--profile", "workload_identity", "--jwks", keys, "--json", *given
        )
        assert result.exit_code == status, result.output
        return json.loads(result.stdout) if status == 0 else " ".join(result.stderr.split())

    return add


def as_option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_an_entry_with_rules_is_added(add, run) -> None:
    """WIF-01, WIF-02: as options of its profile."""
    added = add({**RULE, "claims": {"repository_id": "74"}})
    assert (added["issuer"], added["profile"]) == (GITHUB, "workload_identity")
    assert run("issuer", "test", GITHUB).exit_code == 0
    assert json.loads(run("lint", "--json").stdout)["issuers"] == []


def test_what_is_wrong_with_rules_is_said_in_a_sentence(add) -> None:
    """WIF-01, WIF-04: and nothing is added."""
    assert "rules: deploy: claims: repository: the first segment" in add(
        {**RULE, "claims": {"repository": "*/app"}}, status=1
    )
    assert "platform: must be one of" in add(RULE, platform="github", status=1)


def test_lint_warns_of_names_and_of_what_is_presented_again(add, run) -> None:
    """WIF-03, WIF-05: it fails for that only if it is strict."""
    add(RULE, reusable=True)
    result = run("lint", "--json")
    edit = {"issuer": GITHUB, "remedy": f"`authserver issuer edit {GITHUB}`"}
    assert json.loads(result.stdout)["issuers"] == [
        {**edit, "problem": "rule deploy: repository can come to name somebody else; add repository_id"},
        {**edit, "problem": "reusable: whoever gets hold of an assertion can present it again until it ends"},
    ]
    assert "Trusted issuers" in run("lint").stdout
    plain, strict = run("lint"), run("lint", "--strict")
    assert strict.exit_code == 1
    assert plain.exit_code <= strict.exit_code


PAGE = (Path(__file__).parents[2] / "docs/workloads.rst").read_text("utf-8")
(TOML,) = re.findall(r"\.\. code-block:: toml\n\n((?:(?:   .*)?\n)+)", PAGE)
PLATFORMS = {"kubernetes", "github-actions", "gitlab", "spiffe"}


def test_the_declaration_on_the_page_brings_an_entry_about(run, tmp_path: Path) -> None:
    """WIF-01, WIF-02: and what is exported is the same again."""
    text = textwrap.dedent(TOML).replace('"reports"', '"demo-service"')
    declared = text.replace("https://notes.example.com/", "http://localhost:6543/demo-api")
    files = tmp_path / "declared"
    files.mkdir()
    (files / "issuers.toml").write_text(declared, "utf-8")
    result = run("apply", str(files), "--yes")
    assert result.exit_code == 0, result.output
    shown = json.loads(run("issuer", "show", GITHUB, "--json").stdout)
    assert (shown["profile"], shown["algorithms"]) == ("workload_identity", ["RS256"])
    assert json.loads(run("lint", "--json").stdout)["issuers"] == []
    assert "Everything is as it is declared" in run("apply", str(files), "--yes").stdout


def test_each_recipe_has_rules_that_pin_its_workload() -> None:
    """WIF-03: those of every platform can be read, and none of them is warned of."""
    recipes = re.findall(r"--option platform=(\S+) \\\n\s+--option 'rules=(.*?)'\n", PAGE, re.DOTALL)
    found = {
        platform: read({"platform": platform, "rules": json.loads(rules)}) for platform, rules in recipes
    }
    (declared,) = tomllib.loads(textwrap.dedent(TOML))["issuers"].values()
    found["github-actions"] = read(declared["options"])
    assert found.keys() == PLATFORMS
    for rules in found.values():
        assert not [warning for warning in rules.warnings() if "rule" in warning.split(":")[0]]


@pytest.fixture
def explain(run, tmp_path: Path):
    """What `explain assertion` says of one with these claims, which stands in a file."""

    def explain(*arguments: str, **claims: str) -> Any:
        github = Issuer(GITHUB, key=KEY, claims={"sub": "repo:octo-org/app:ref:refs/heads/main"})
        (tmp_path / "assertion.jwt").write_text(github.assertion(aud="http://localhost:6543", **claims))
        file = str(tmp_path / "assertion.jwt")
        return json.loads(run("explain", "assertion", *arguments, "--file", file, "--json").stdout)

    return explain


def test_an_assertion_in_a_file_is_explained_by_the_rules_of_its_issuer(add, run, explain) -> None:
    """WIF-11: which rule it meets, and what that gives; or which claim each rule misses. Nothing of it is kept."""
    grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    run("client", "edit", "demo-service", "--add-grant-type", grant_type)
    add({**RULE, "claims": {"repository_id": "74"}}, {**RULE, "name": "main", "claims": {"ref": "main"}})
    resource = ("--resource", *RULE["resources"])
    for client in ((), ("demo-service",)):
        told = explain(*client, *resource, repository_id="74")
        assert told["verdict"] == "allowed", told
        assert told["workload"] == "deploy"
        assert (told["client_id"], told["scopes"]) == ("demo-service", RULE["scopes"])
    told = explain(*resource, repository_id="75")
    assert (told["verdict"], told["reason"]) == ("refused", "workload-unknown")
    assert "deploy misses repository_id; main misses ref" in json.dumps(told)
    assert explain(repository_id="74")["reason"] == "resource-missing"
    assert explain("demo-app", *resource, repository_id="74")["verdict"] == "refused"
    assert "octo-org" not in run("audit", "search", "--json").stdout
