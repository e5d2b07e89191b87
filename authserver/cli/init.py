"""`authserver init`: writes the INI file of a new server and its secrets, and prints the next commands."""

from __future__ import annotations

import difflib
import os
import re
import secrets
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import click

import authserver
from authserver import private_files
from authserver.cli.configuration import Configuration
from authserver.cli.demo import prepare_files
from authserver.cli.keys import new_ring_entry
from authserver.cli.printing import say, words
from authserver.engine.printable import made_visible

# Characters of a path that pserve and the INI reader would treat as part of a URL or as an interpolation.
_UNREADABLE = re.compile(r"[%#?\x00-\x1f\x7f]")
# Settings whose values are not shown.
_SECRET = re.compile(r"secret|password|token|key|database_url|credential")
_KEY = re.compile(r"(?:# ?)?([A-Za-z_][\w.@-]*)\s*[=:]\s*(.*)")

ENVIRONMENT = """\
# What production.ini takes from outside. Fill in what is empty, inside of the quotes.
# systemd reads this file (EnvironmentFile=), and so does a shell:
#     set -a; . {file}; set +a
# Keep a copy where your other secrets are, apart from the backups of the database.

# The INI file that the commands of authserver read.
AUTHSERVER_CONFIG={ini}

# Where browsers and clients reach the server, such as https://login.example.com
AUTHSERVER_ISSUER=''

# Such as postgresql+psycopg://authserver:PASSWORD@db.example.com/authserver
AUTHSERVER_DATABASE_URL=''

# The API that tokens are for, and the scopes that make sense there (* for all), such as https://api.example.com/ = *
AUTHSERVER_RESOURCES=''

# The key ring, made by `authserver init`. Without it the stored signing keys cannot be opened.
AUTHSERVER_SECRET_KEYS='{secret_keys}'

# Who sends this as a bearer token may register clients; made by `authserver init`.
AUTHSERVER_REGISTRATION_TOKENS='{registration_token}'
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--production", is_flag=True, help="For PostgreSQL and https, with its secrets in the file `environment`."
)
def init(folder: Path, production: bool) -> None:
    """Write the INI file of a new server into FOLDER, make its secrets, and print the next commands.

    Existing files are kept, and missing ones are added. An INI file that differs from the one of this version
    is not changed: the differences are shown.
    """
    name = "production.ini" if production else "development.ini"
    text = shipped(name)
    _check(folder)
    ini = folder / name
    try:
        _make(folder)
        if differences := _write_ini(ini, text):
            if production:
                _say_empty(folder / "environment", ini)
            raise click.ClickException(differences)
        (_prepare_production if production else _prepare_development)(ini)
    except BrokenPipeError:  # the folder can be used
        raise
    except OSError as error:
        raise click.ClickException(
            f"{error.filename or folder}: {error.strerror}; name a folder in which you may write"
        ) from error


def shipped(name: str) -> str:
    """The text of an INI file of this version: it is in `authserver/ini_files` as installed, and in a checkout beside
    the package.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    package = Path(authserver.__file__).parent
    for folder in (package / "ini_files", package.parent):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise FileNotFoundError(2, "this installation lacks it; install authserver again", name)


def _check(folder: Path) -> None:
    """Raises click.ClickException if no server can live in this folder."""
    if found := _UNREADABLE.search(os.path.abspath(folder) + str(folder.resolve())):
        raise click.ClickException(
            f"{words(os.path.abspath(folder))}: pserve cannot read a file below a folder with {found[0]!r} in its name; "
            "choose another folder"
        )
    if folder.exists() and not folder.is_dir():
        raise click.ClickException(f"{folder} is a file; name a folder for the server")
    if folder.exists() and folder.stat().st_mode & stat.S_IWOTH:
        raise click.ClickException(
            f"{folder}: every user of this machine can write there, and so change the server; name another folder, "
            f"or remove that right: chmod o-w {shlex.quote(str(folder))}"
        )


def _make(folder: Path) -> None:
    """Make a folder and its parents unless they exist; nobody else can write to it, whatever the umask."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(mode=0o755, exist_ok=True)


def _write_ini(ini: Path, text: str) -> str:
    """Write an INI file unless it exists; an unfinished one is finished.

    Returns:
        The differences of an existing file, in words; "" if there are none.

    Raises:
        click.ClickException: it exists and is no text.
    """
    try:
        present = ini.read_text(encoding="utf-8")
    except FileNotFoundError:
        present = ""
    except UnicodeDecodeError:
        raise click.ClickException(f"{ini} is there and is not UTF-8; nothing was changed") from None
    if present == text:
        say(f"{ini} is there, as this version writes it")
        return ""
    if not text.startswith(present):
        return (
            f"{ini} is there and differs from that of authserver {version('authserver')}; nothing was changed. "
            "This would be different:\n" + "\n".join(_differences(present, text))
        )
    # With any umask, nobody else may change which plugins are loaded.
    with open(ini, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o644)) as file:
        file.write(text)
    say(f"Wrote {ini}")
    return ""


def _differences(present: str, text: str) -> Iterator[str]:
    """A unified diff from the existing file to the one of this version, without secrets."""
    lines = difflib.unified_diff(
        _veiled(present.splitlines()),
        _veiled(text.splitlines()),
        "as it is",
        "as it would be written",
        n=0,
        lineterm="",
    )
    return map(made_visible, lines)


def _veiled(lines: Sequence[str]) -> list[str]:
    """Lines of an INI file, without the values of settings that may be secret; references to other places are shown."""
    veiled, secret = [], False
    for line in lines:
        if found := _KEY.fullmatch(line):
            secret = _SECRET.search(found[1]) is not None
            if secret and found[2] and not found[2].startswith(("env:", "file:")):
                line = line[: found.start(2)] + "…"
        elif secret and line[:1].isspace() and line.strip():
            line = "    …"
        veiled.append(line)
    return veiled


def _prepare_development(ini: Path) -> None:
    folder = prepare_files(Configuration(ini).ini(), ini.resolve().parent)
    say(f"The key ring is in {folder}, which no other user can read.")
    _say_next(
        ("authserver", f"-c {_shown(ini)} demo", "a database, a demo user and demo clients"),
        ("pserve", _shown(ini), "the server, on http://localhost:6543"),
        ("authserver", f"-c {_shown(ini)} plugins", "which plugin decides what"),
    )


def _prepare_production(ini: Path) -> None:
    file = ini.parent / "environment"
    if file.exists() and file.read_bytes().strip():
        private_files.tighten(file)
    else:
        file.unlink(missing_ok=True)
        text = ENVIRONMENT.format(
            file=shlex.quote(os.path.abspath(file)),
            ini=shlex.quote(os.path.abspath(ini)),
            secret_keys=new_ring_entry(),
            registration_token=secrets.token_hex(32),
        )
        private_files.create(file, text)
        say(f"Wrote {file}, with new secrets, for its owner alone")
    _say_empty(file, ini)
    _say_next(
        ("", f"set -a; . {_shown(file, absolute=True)}; set +a", "every command needs these variables"),
        ("authserver", "db upgrade", "make the tables"),
        ("pserve", _shown(ini), "the server, on 127.0.0.1:6543, for your proxy"),
    )


def _say_empty(file: Path, ini: Path) -> None:
    """Print the environment variables that have no value yet in the file `environment`; nothing without the file."""
    if file.is_file() and (empty := _without_value(file.read_text(encoding="utf-8", errors="replace"), ini)):
        say(f"Fill in {', '.join(empty)} in {file}")


def _without_value(environment: str, ini: Path) -> list[str]:
    """The environment variables of an INI file that are empty or missing in a file of variables."""
    set_there = {
        name
        for name, value in re.findall(r"(?m)^\s*(?:export\s+)?(\w+)=(.*)$", environment)
        if value.strip().strip("'\"").strip()
    }
    values = (value.strip() for value in Configuration(ini).ini().values())
    referred = [value.removeprefix("env:") for value in values if value.startswith("env:")]
    return [name for name in referred if name not in set_there]


def _shown(path: Path, *, absolute: bool = False) -> str:
    """A path quoted for a shell, so that no program takes it for an option or a URL."""
    text = os.path.abspath(path) if absolute else str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") or ":" in text.partition("/")[0] else text)


def _say_next(*commands: tuple[str, str, str]) -> None:
    """Print commands with their purposes; a program is named as it can be called from here."""
    lines = [(f"{_program(program)} {rest}".strip(), purpose) for program, rest, purpose in commands]
    width = max(len(line) for line, _ in lines)
    say("\nNext:\n")
    for line, purpose in lines:
        say(f"  {line:{width}}  # {purpose}")


def _program(name: str) -> str:
    """The name of a program of this installation if the shell finds it, else its path."""
    beside = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not name or not beside.exists() or (found and os.path.samefile(found, beside)):
        return name
    path = os.path.relpath(beside)
    return shlex.quote(str(beside) if path.startswith(os.pardir) else path)
