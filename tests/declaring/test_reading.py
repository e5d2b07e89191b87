"""Files of declarations: what is wrong is named with file, line and column, and nothing hostile gets far (R-17)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from authserver.declaring import files
from authserver.declaring.reading import BadDeclarations, ReadFiles, read_files
from authserver.engine.declarations.forms import DeclaredClient, Reference

PLACES = '{ env = "NAME" } or { file = "PATH" }'
CLIENT = '[clients.a]\nclient_name = "A"\n'


def read(folder: Path, text: str | bytes, name: str = "a.toml") -> ReadFiles:
    content = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(content)
    return read_files(folder)


def problems(folder: Path, text: str | bytes) -> list[str]:
    """What is wrong with this file, with places without the folder."""
    with pytest.raises(BadDeclarations) as raised:
        read(folder, text)
    return [problem.replace(f"{folder}/", "") for problem in raised.value.problems]


WRONG: list[tuple[str | bytes, str]] = [
    # keys and values
    ("[client.a]\n", "a.toml:1:2: client: no such key; did you mean clients"),
    (
        CLIENT + 'redirect_urls = ["x"]',
        "a.toml:3:1: clients.a.redirect_urls: no such key; did you mean redirect_uris",
    ),
    (CLIENT + 'scopes = ["x",\n  3]', "a.toml:4:3: clients.a.scopes[1]: Expected `str`, got `int`"),
    (CLIENT + 'scopes = "x"', "a.toml:3:1: clients.a.scopes: Expected `array`, got `str`"),
    (CLIENT + "first_party = 1", "a.toml:3:1: clients.a.first_party: Expected `bool`, got `int`"),
    (
        CLIENT + 'application_type = "desktop"',
        "a.toml:3:1: clients.a.application_type: Invalid enum value 'desktop'",
    ),
    (
        CLIENT + "metadata = { since = 2026-01-01 }",
        "a.toml:3:1: clients.a.metadata: must be what JSON can say: no dates, and not nested too deeply",
    ),
    ('[clients."a b"]\nscopes = []', 'a.toml:1:10: clients."a b": client_name is missing'),
    (CLIENT + f"metadata = {{ n = {'9' * 5_000} }}", "a.toml: a number in it has too many digits"),
    (
        CLIENT + f"metadata = {{ n = 0x{'f' * 5_000} }}",
        "a.toml:3:1: clients.a.metadata: must be what JSON can say: no dates, and not nested too deeply",
    ),
    (
        '[initial_tokens.a]\nexpires_at = 9999-12-31T23:00:00-02:00\npolicy = "p"\ntoken = { env = "PATH" }',
        "a.toml:2:1: initial_tokens.a.expires_at: must be a time of the years 1 to 9999 in UTC",
    ),
    ("[clients]\na = 1", "a.toml:2:1: clients.a: must be a table, such as [clients.NAME]"),
    ("clients = 1", "a.toml:1:1: clients: must be a table, such as [clients.NAME]"),
    ("[[clients]]", "a.toml:1:3: clients: must be a table, such as [clients.NAME]"),
    (
        '[resources."urn:a"]\ntoken_lifetime = 9',
        'a.toml:2:1: resources."urn:a".token_lifetime: Expected `int` >= 10',
    ),
    (
        '[resources."urn:a"]\ntoken_format = "JWT"',
        "a.toml:2:1: resources.\"urn:a\".token_format: Invalid enum value 'JWT'",
    ),
    ("[scopes]\nprofile = 1", "a.toml:2:1: scopes.profile: Expected `str`, got `int`"),
    (
        '[limits.x]\ncounted = "a"\nkey = "b"\ncount = 0\nseconds = 1',
        "a.toml:4:1: limits.x.count: Expected `int` >= 1",
    ),
    ('[trusted_issuers]\nx = "y"', "a.toml:2:1: trusted_issuers.x: Expected `array`, got `str`"),
    # references
    (
        CLIENT + 'secret = "hunter2hunter2hunter2"',
        f"a.toml:3:1: clients.a.secret: a secret is never written here: name the place where it is, secret = {PLACES}",
    ),
    (
        CLIENT + 'secret = { env = "A", file = "b" }',
        f"a.toml:3:1: clients.a.secret: must name one place, {PLACES}",
    ),
    (
        CLIENT + "secret = {}",
        f"a.toml:3:1: clients.a.secret: must name one place, {PLACES}",
    ),
    (
        CLIENT + 'secret = { environment = "A" }',
        "a.toml:3:12: clients.a.secret.environment: no such key; known: env, file",
    ),
    (
        CLIENT + 'secret = { env = "NOT_SET" }',
        "a.toml:3:1: clients.a.secret: the environment variable NOT_SET is not set",
    ),
    (CLIENT + 'secret = { env = "EMPTY" }', "a.toml:3:1: clients.a.secret: there is nothing at env:EMPTY"),
    (CLIENT + 'secret = { file = "gone" }', "a.toml:3:1: clients.a.secret: gone: No such file or directory"),
    (
        CLIENT + 'secret = { file = "/dev/null" }',
        "a.toml:3:1: clients.a.secret: /dev/null: this is not a regular file",
    ),
    (CLIENT + 'secret = { file = "a\\u0000b" }', "a.toml:3:1: clients.a.secret: a\0b: embedded null byte"),
    (
        CLIENT + 'logo = { env = "EMPTY" }',
        'a.toml:3:1: clients.a.logo: must be a file, { file = "PATH" }',
    ),
    (
        '[initial_tokens.a]\npolicy = "p"\ntoken = { env = "SECRET" }\nexpires_at = 2027-01-01',
        "a.toml:4:1: initial_tokens.a.expires_at: must be a date and a time with an offset, such as 2027-01-31T12:00:00Z",
    ),
    (
        '[initial_tokens.a]\npolicy = "p"\ntoken = { env = "SECRET" }\nexpires_at = 2027-01-01T00:00:00',
        "a.toml:4:1: initial_tokens.a.expires_at: Expected `datetime` with a timezone component",
    ),
    # syntax, and what is hostile
    (CLIENT + "client_name = 'again'", "a.toml:3:22: Cannot overwrite a value"),
    (CLIENT + CLIENT, "a.toml:3:11: Cannot declare ('clients', 'a') twice"),
    (CLIENT + "scopes = [", "a.toml:3:11: Invalid value"),
    (b"[clients.a]\nclient_name = '\xff'\n", "a.toml:2: this is not UTF-8"),
    (CLIENT + "x = 'a\0b'", "a.toml:3:7: Found invalid character '\\x00'"),
    (CLIENT + "x = 'a\rb'", "a.toml:3:7: Found invalid character '\\r'"),
    ("\ufeff\ufeff" + CLIENT, "a.toml:1:1: Invalid statement"),
    ("a = " + "[" * 100_000, "a.toml: arrays or tables are nested too deeply in it"),
    ("a = " + "{a=" * 100_000, "a.toml: arrays or tables are nested too deeply in it"),
    ("\n" + "a." * 100_000 + "a = 1", "a.toml:2: a key has more than 32 parts"),
    ("# " + "x" * files.MAXIMUM_FILE, f"a.toml: it has more than {files.MAXIMUM_FILE} bytes"),
]


@pytest.mark.parametrize(("text", "problem"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes, problem: str
) -> None:
    monkeypatch.setenv("EMPTY", " ")
    monkeypatch.setenv("SECRET", "not told")
    began = time.monotonic()
    assert problems(tmp_path, text) == [problem]
    assert time.monotonic() - began < 5


def test_all_that_is_wrong_in_all_files_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("= 1")
    assert problems(
        tmp_path, '[clients.a]\nx = 1\n[clients.b]\nclient_name = 3\n[scopes]\ny = ""\n[z]\n'
    ) == [
        "a.toml:2:1: clients.a.x: no such key; the nearest of 18 known: tos_uri, token_endpoint_auth_method, software_version",
        "a.toml:4:1: clients.b.client_name: Expected `str`, got `int`",
        "a.toml:7:2: z: no such key; known: clients, initial_tokens, issuers, limits, resources, scopes, trusted_issuers",
        "b.toml:1:1: Invalid statement",
    ]


@pytest.mark.parametrize(
    "text",
    [
        CLIENT,
        CLIENT.replace("\n", "\r\n"),
        "\ufeff" + CLIENT,
        "clients.a.client_name = 'A'",
        "clients = { a = { client_name = 'A' } }",
    ],
)
def test_however_it_is_written_it_is_the_same(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    assert found.declared.forms.clients == {"a": DeclaredClient(client_name="A")}
    assert found.place(("clients", "a", "scopes", 3)).startswith(f"{tmp_path}/a.toml:1:")
    assert found.place(("clients", "b")) == ""
    assert found.told(("clients", "b"), "nobody") == "nobody"


def test_a_thing_is_declared_once_in_all_files(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("\n" + CLIENT)
    assert problems(tmp_path, CLIENT) == ["b.toml:2:10: clients.a: is declared in a.toml:1:10 already"]


# ---- Folders


def test_a_folder_is_read_with_the_folders_in_it_and_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b/c/x.toml", ".git/y.toml", "b/.hidden.toml", "b/z.toml.bak"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(CLIENT if name.startswith("b/c") else "wrong")
    assert list(read_files(tmp_path).declared.forms.clients) == ["a"]
    assert list(read_files(tmp_path / "b/c/x.toml").declared.forms.clients) == ["a"]


def test_links_are_read_as_files_and_never_followed_into_folders(tmp_path: Path) -> None:
    """As the files that orchestrators mount are: each leads into a hidden folder."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data/a.toml").write_text(CLIENT)
    (tmp_path / "a.toml").symlink_to("..data/a.toml")
    (tmp_path / "round").symlink_to(tmp_path)
    assert list(read_files(tmp_path).declared.forms.clients) == ["a"]


def test_a_link_in_a_circle_and_a_pipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").symlink_to("b.toml")
    (tmp_path / "b.toml").symlink_to("a.toml")
    os.mkfifo(tmp_path / "c.toml")
    with pytest.raises(BadDeclarations) as raised:
        read_files(tmp_path)
    assert [problem.rpartition(": ")[2] for problem in raised.value.problems] == [
        "Too many levels of symbolic links",
        "Too many levels of symbolic links",
        "this is not a regular file",
    ]


def test_a_thousand_files_are_read_and_more_are_refused(tmp_path: Path) -> None:
    for number in range(files.MAXIMUM_FILES):
        (tmp_path / f"{number}.toml").write_text(CLIENT.replace("clients.a", f"clients.c{number}"))
    assert len(read_files(tmp_path).declared.forms.clients) == files.MAXIMUM_FILES
    assert problems(tmp_path, CLIENT) == [
        f"{tmp_path}: there are more than 1000 .toml files; name a folder with fewer"
    ]


def test_too_much_in_all_files_together_is_refused(tmp_path: Path) -> None:
    for number in range(17):
        (tmp_path / f"{number}.toml").write_text("#" * files.MAXIMUM_FILE)
    assert problems(tmp_path, "") == [f"{tmp_path}: the files have more than 16777216 bytes together"]


def test_a_folder_without_files_and_a_file_that_is_not_there_are_told(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "there is no .toml file in it"), (tmp_path / "x", "no such file or folder")):
        with pytest.raises(BadDeclarations, match=why):
            read_files(path)


# ---- Secrets


def test_a_secret_is_read_from_the_environment_or_a_file_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "in the environment")
    (tmp_path / "run").mkdir()
    file = tmp_path / "run/secret"
    file.write_text("in the file\n")
    file.chmod(0o640)
    text = (
        CLIENT
        + 'secret = { env = "A_SECRET" }\n[clients.b]\nclient_name="B"\nsecret = { file = "run/secret" }'
    )
    found = read(tmp_path, text)
    assert {path[1]: secret.value for path, secret in found.declared.secrets.items()} == {
        "a": "in the environment",
        "b": "in the file",
    }
    assert found.declared.forms.clients["b"].secret == Reference(file="run/secret")
    assert "in the" not in repr(found)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o606])
def test_a_secret_that_every_user_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text("a secret of thirty-two characters")
    file.chmod(mode)
    (problem,) = problems(tmp_path, CLIENT + 'secret = { file = "secret" }')
    assert problem == (
        "a.toml:3:1: clients.a.secret: secret: every user of this machine may read it: `chmod o= secret` changes that"
    )


def test_what_is_no_text_or_too_long_is_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for content, why in (
        (b"\xff" * 30, "this is not UTF-8"),
        (b"x" * 70_000, "it has more than 65536 bytes"),
    ):
        file.write_bytes(content)
        file.chmod(0o600)
        (problem,) = problems(tmp_path, CLIENT + 'secret = { file = "secret" }')
        assert why in problem
