"""Names on the command line: what is accepted, and how it is shown (B020, B201, B202)."""

from __future__ import annotations

import json
import unicodedata

import pytest

PASSWORD = "correct horse battery"


def test_people_have_the_names_they_have(run) -> None:
    """B201, B202: in every normalisation form of what is typed, for each command that takes a user name."""
    names = ("कृष्ण", "นิวัฒน์", "佐々木", "ẹ̀kọ́", "o'brien@example.com", "CORP\\ann", "svc$", "a/b@example.com")
    for name in names:
        added = run("user", "add", name, "--password-stdin", "--json", stdin=f"{PASSWORD}\n")
        assert added.exit_code == 0, added.output
        stored = json.loads(added.stdout)["username"]
        assert stored in run("user", "list").stdout
        for form in ("NFC", "NFD"):
            typed = unicodedata.normalize(form, name)
            for command in (
                ("user", "sign-out", typed),
                ("user", "password", typed, "--password-stdin"),
                ("grant", "list", "--user", typed),
                ("explain", "consent", "playground", typed),
            ):
                result = run(*command, stdin=f"{PASSWORD}\n")
                assert result.exit_code == 0, (command, result.output)
        assert run("user", "disable", name).exit_code == 0


@pytest.mark.parametrize("name", ["аnn", "a\u200bnn", "ann lee", "a\u202enn"], ids=ascii)
def test_a_name_that_imitates_or_hides_is_refused_with_the_reason(run, name: str) -> None:
    """T105."""
    result = run("user", "add", name, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert result.exit_code == 1 and "a user name" in result.stderr


@pytest.mark.parametrize(
    "name",
    [
        "Notes \u2764\ufe0f",
        "Dev \U0001f469\u200d\U0001f4bb",
        "\u0645\u06cc\u200c\u0646\u0648\u06cc\u0633\u0645",
        "\u0915\u094d\u200d\u0937",
    ],
    ids=ascii,
)
def test_a_client_name_may_need_joiners(run, name: str) -> None:
    """B020: registered and shown as given."""
    result = run(
        "client",
        "add",
        "--name",
        name,
        "--scope",
        "profile",
        "--redirect-uri",
        "https://client.example/cb",
        "--json",
    )
    assert result.exit_code == 0, result.output
    shown = run("client", "show", json.loads(result.stdout)["client_id"])
    assert name in shown.stdout


@pytest.mark.parametrize(
    "name", ["a\u200db", "a\ufe0fb", "\u200d", "a\u200bb", "a\u202eb", "a\nb"], ids=ascii
)
def test_a_client_name_that_hides_something_is_refused(run, name: str) -> None:
    """B020, T094."""
    result = run(
        "client", "add", "--name", name, "--scope", "profile", "--redirect-uri", "https://client.example/cb"
    )
    assert result.exit_code == 1 and "printable" in result.stderr
