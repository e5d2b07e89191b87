"""A `pserve` that says in one line what is wrong with an INI file that cannot be read.

The original `pserve` reads the file before any code of this package runs, and a package cannot replace its loader for INI
files. So the original command ends with a traceback. `authserver serve`, and each of several processes, use this one.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import plaster
import plaster_pastedeploy
from paste.deploy.loadwsgi import APP, SERVER, loadcontext
from pyramid.scripts.pserve import PServeCommand

from authserver.ini import unreadable
from authserver.web.serving import cannot_start


class Loader(plaster_pastedeploy.Loader):
    """Reads one INI file. Every method raises SystemExit with one line if the file cannot be read.

    Args:
        app_name: the name of the application that will be loaded.
    """

    def __init__(self, uri: Any, app_name: str | None) -> None:
        super().__init__(uri)
        self._app_name = app_name

    def get_settings(self, *arguments: Any) -> Mapping[str, str]:
        with self._in_a_line():
            settings: Mapping[str, str] = super().get_settings(*arguments)
            return settings

    def setup_logging(self, defaults: Mapping[str, str] | None = None) -> None:
        with self._in_a_line():
            self.get_sections()
        try:
            super().setup_logging(defaults)
        except Exception as error:
            problem = f"{self.uri.path}: the sections about the log cannot be used: {_words(error)}; correct [loggers], "
            problem += "[handlers], [formatters] and the sections that they name"
            raise SystemExit(cannot_start([problem])) from None

    def get_wsgi_server(self, name: str | None = None, defaults: Mapping[str, str] | None = None) -> Any:
        self._look_for(SERVER, name, defaults)
        # The section of the application is checked before the server takes an address.
        self._look_for(APP, self._app_name, defaults)
        return super().get_wsgi_server(name, defaults)

    def _look_for(self, kind: Any, name: str | None, defaults: Mapping[str, str] | None) -> None:
        with self._in_a_line():
            loadcontext(
                kind,
                self.pastedeploy_spec,
                name=self._maybe_get_default_name(name),
                relative_to=self.relative_to,
                global_conf=self._get_defaults(defaults),
            )

    @contextmanager
    def _in_a_line(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UnicodeDecodeError, configparser.Error, LookupError, ModuleNotFoundError) as error:
            raise SystemExit(cannot_start([unreadable(self.uri.path, error)])) from None


class _Serve(PServeCommand):
    def _get_config_loader(self, uri: str) -> Any:
        found = plaster.get_loader(uri, protocols=["wsgi"])
        is_of_pastedeploy = type(found) is plaster_pastedeploy.Loader
        return Loader(found.uri, self.args.app_name) if is_of_pastedeploy else found


def main(arguments: Sequence[str]) -> int | None:
    """Do what `pserve` does; the first argument is the name of the command. Returns the exit status.

    Raises:
        SystemExit: the server cannot start; the message has a line for each problem.
    """
    status: int | None = _Serve(arguments).run()
    return status


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
