"""Reads the INI file for a command, and turns each failure into one sentence."""

from __future__ import annotations

import configparser
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import sqlalchemy.exc
from paste.deploy import appconfig
from paste.deploy.loadwsgi import SERVER, loadcontext

from authserver import ini as ini_reader
from authserver.cli.printing import safe, say
from authserver.containment import Interrupted
from authserver.engine.audit import BadSearch
from authserver.engine.context import Caller, Engine
from authserver.engine.errors import Refusal
from authserver.engine.letters import MailFailed, NoMail
from authserver.engine.people.attributes import BadAttributes, ChangedMeanwhile
from authserver.engine.people.login import BadPassword
from authserver.engine.people.password_links import NoLink
from authserver.engine.people.usernames import BadUsername
from authserver.engine.ports import AlreadyExists, StorageUnavailable
from authserver.settings import Settings, SettingsError

if TYPE_CHECKING:
    from authserver.app import Application


# `patience` of a command that can do without plugins.
PATIENCE = 10.0


class Plugins(Enum):
    """Why a command needs the plugins; except with DECIDE it also works without plugins that cannot be loaded.

    The values are the ends of the message about that.
    """

    DECIDE = ""
    OBSERVE = "they are not notified of this"
    EXPLAIN = "their remedies are not shown"
    UNUSED = "nothing is missing"


class Configuration:
    """The INI file of `-c`. It is read only when a command needs it, so that `--help` works without one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @property
    def command(self) -> str:
        """The command line that calls this program for the same server, quoted for a shell."""
        named_elsewhere = self.path is None or os.environ.get("AUTHSERVER_CONFIG") == str(self.path)
        return "authserver" if named_elsewhere else f"authserver -c {shlex.quote(str(self.path))}"

    def file(self) -> Path:
        """The INI file. Raises click.ClickException if none is named, or there is no such file."""
        if self.path is None:
            raise click.UsageError(
                "no server is named: give its INI file with -c FILE, or AUTHSERVER_CONFIG in the environment; "
                "`authserver init FOLDER` writes that of a new server"
            )
        if not self.path.is_file():
            raise click.ClickException(f"{self.path}: no such file; name the server's INI file with -c FILE")
        return self.path

    def ini(self) -> Mapping[str, str]:
        """The keys of `[app:main]`, as pserve gives them to the application.

        Raises:
            click.ClickException: there is no such file, or it cannot be read.
        """
        path = self.file()
        try:
            section = appconfig(f"config:{path.resolve()}", name="main")
        except (OSError, configparser.Error, LookupError, UnicodeDecodeError, ModuleNotFoundError) as error:
            raise click.ClickException(ini_reader.unreadable(path, error)) from error
        own: Mapping[str, str] = section.local_conf
        return own

    def server_section(self) -> Mapping[str, str]:
        """The keys of `[server:main]`, as pserve gives them to the server; empty if it cannot be read."""
        assert self.path is not None  # or `ini` said so
        try:
            context = loadcontext(SERVER, f"config:{self.path.resolve()}", name="main")
        except (configparser.Error, LookupError, ImportError):
            return {}
        section: Mapping[str, str] = context.local_conf
        return section

    def folder(self) -> Path:
        """The folder of the INI file, which may also have modules of plugins."""
        assert self.path is not None  # or it could not be read
        return self.path.resolve().parent

    def settings(self) -> Settings:
        """The server's own settings, without those of plugins. Raises SettingsError."""
        return ini_reader.load(ini_reader.without_plugins(self.ini())).settings

    def application(self, plugins: Plugins = Plugins.DECIDE) -> Application:
        """The server, as it would start; without plugins if they are not needed and cannot be loaded.

        Raises:
            SettingsError: the server could not start.
        """
        # Imported here, because it imports Pyramid, for which a usage error need not wait.
        from authserver import app

        command = _command()
        caller = Caller(endpoint=f"command {command}", actor=f"command:{command}")
        ini, folder = self.ini(), self.folder()
        if plugins is Plugins.DECIDE:
            return app.build(ini, folder=folder, caller=caller)
        problems: Sequence[str] = ()
        if plugins is not Plugins.UNUSED:
            try:
                # No question is asked, so shadow plugins are not needed.
                return app.build(ini, folder=folder, caller=caller, patience=PATIENCE, shadow=False)
            except SettingsError as error:
                problems = error.problems
        application = app.build(ini_reader.without_plugins(ini), caller=caller)
        # The application was built without plugins, so all problems were those of plugins.
        if problems:
            say(f"The plugins cannot be loaded, so {plugins.value}:\n  " + "\n  ".join(problems), err=True)
        return application

    @contextmanager
    def engine(self, plugins: Plugins = Plugins.DECIDE) -> Iterator[Engine]:
        """An engine in a transaction of its own, committed at the end; `plugins` as for `application`."""
        application = self.application(plugins)
        try:
            with application.begin() as engine:
                yield engine
        finally:
            application.close()


def _command() -> str:
    """The name of the running command with its group, such as `client add`."""
    names: list[str] = []
    context = click.get_current_context(silent=True)
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(names)


class OneSentence(click.Group):
    """A group whose commands end in one clear sentence when something is wrong, never in a traceback.

    Its help has the whole first sentence of each command, which click would cut after some words.
    """

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        found = ((name, self.get_command(context, name)) for name in self.list_commands(context))
        rows = [
            (name, each.get_short_help_str(sys.maxsize)) for name, each in found if each and not each.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, context: click.Context) -> Any:
        try:
            return self._in_a_sentence(context)
        except click.ClickException as error:
            error.message = safe(error.message)  # type: ignore[misc]  # what click prints, each kind in its form
            raise

    def _in_a_sentence(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:
            # The reader closed the pipe (`| head`); click ends the command without a message.
            raise
        except Interrupted as error:
            raise (click.ClickException(str(error)) if str(error) else error) from None
        except SettingsError as error:
            raise click.ClickException("\n       ".join(error.problems)) from error
        except Refusal as error:
            raise click.ClickException(error.description) from error
        except MailFailed as error:
            raise click.ClickException(
                f"the mail was not sent: {error}. Run the command again later; without --mail it prints the link"
            ) from error
        except AlreadyExists as error:
            raise click.ClickException("that name or identifier is taken; choose another") from error
        except (
            BadUsername,
            BadPassword,
            BadAttributes,
            BadSearch,
            ChangedMeanwhile,
            NoLink,
            NoMail,
        ) as error:
            raise click.ClickException(str(error)) from error
        except UnicodeDecodeError as error:
            # Its own text would repeat what may be a password.
            raise click.ClickException("what was read is not valid UTF-8") from error
        except (StorageUnavailable, sqlalchemy.exc.DBAPIError) as error:
            cause = getattr(error, "orig", None) or error.__cause__ or error
            line = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]
            raise click.ClickException(
                f"the database cannot be used ({line}); is authserver.database_url right, is it running, "
                "and was `authserver db upgrade` run?"
            ) from error
        except OSError as error:
            raise click.ClickException(
                f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"
            ) from error
