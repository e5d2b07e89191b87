"""Runs this server with gunicorn: `use = egg:authserver#gunicorn` in a server section.

The arbiter of gunicorn starts and replaces the processes. Each process makes the application for itself, because threads
and connections to the database do not survive a fork; `egg:gunicorn` would make it only once, before the fork.
"""

from __future__ import annotations

import fcntl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pyramid.router import Router

from authserver.ini import did_you_mean, unused_variables
from authserver.limits import MAXIMUM_HEAD
from authserver.web import management
from authserver.web.serving import (
    CannotListen,
    all_bound,
    cannot_start,
    management_addresses,
    moved,
    resolved,
    whole_number,
)

# The defaults that differ from those of gunicorn.
_DEFAULTS: Mapping[str, str] = {
    "bind": "127.0.0.1:6543",
    "control_socket_disable": "true",
    "keepalive": "20",
    "limit_request_field_size": str(MAXIMUM_HEAD),
    "limit_request_line": str(MAXIMUM_HEAD),
    "threads": "8",
    "worker_class": "gthread",
    "workers": "2",
}
# gunicorn must trust no proxy: `web.forwarding` does that, with settings of the application.
_FIXED: Mapping[str, str] = {"forwarded_allow_ips": "", "forwarder_headers": "", "header_map": "drop"}
# Settings that are refused: processes would share what they must not share, or requests could be read in several ways.
_REFUSED = (
    *_FIXED,
    "casefold_http_method",
    "permit_obsolete_folding",
    "permit_unconventional_http_method",
    "permit_unconventional_http_version",
    "preload_app",
    "proxy_protocol",
    "secure_scheme_headers",
    "strip_header_spaces",
)
# Seconds between two attempts to find a management address that no other process uses.
_PAUSE = 0.5


def server(global_config: Mapping[str, str], **settings: str) -> Callable[[Router], None]:
    """The server of a section with `use = egg:authserver#gunicorn`: settings of gunicorn, and `management_listen`.

    It never returns: gunicorn runs until it is told to end, and that ends the process.
    """
    if problems := unused_variables(global_config):
        raise SystemExit(cannot_start(problems))
    ini = Path(global_config.get("__file__", "the INI file")).name
    try:
        from gunicorn.config import KNOWN_SETTINGS

        known = [item.name for item in KNOWN_SETTINGS if item.name not in _REFUSED]
        settings = resolved(settings)
        for_operators = management_addresses(settings)
        own = {name: text for name, text in settings.items() if name != "management_listen"}
        for name in own:
            if name in _REFUSED:
                raise CannotListen(f"{name}: is not for this server; remove the line")
            if name not in known:
                raise CannotListen(f"{name}: no such setting; {did_you_mean(name, known, '')}")
        with ExitStack() as unless_all_are_bound:
            groups = [
                all_bound(unless_all_are_bound, moved(for_operators, by))
                for by in range(whole_number(own, "workers", int(_DEFAULTS["workers"]), minimum=1))
            ]
            unless_all_are_bound.pop_all()
    except ImportError:
        raise SystemExit(
            cannot_start([f"{ini}: gunicorn is not installed; pip install 'authserver[gunicorn]'"])
        ) from None
    except CannotListen as error:
        raise SystemExit(cannot_start([f"the server section of {ini}: {error}"])) from None
    _run(global_config, {**_DEFAULTS, **own, **_FIXED}, groups)
    raise SystemExit(0)


def _run(global_config: Mapping[str, str], settings: Mapping[str, str], groups: list[list[Any]]) -> None:
    from gunicorn.app.base import BaseApplication
    from gunicorn.arbiter import Arbiter
    from paste.deploy import loadapp

    class Server(BaseApplication):
        def load_config(self) -> None:
            for name, text in settings.items():
                self.cfg.set(name, text)

        def load(self) -> Router:
            variables = {
                name: text for name, text in global_config.items() if name not in ("here", "__file__")
            }
            try:
                router: Router = loadapp(f"config:{global_config['__file__']}", global_conf=variables)
            except SystemExit as error:
                # With this status the arbiter ends instead of trying again.
                sys.stderr.write(f"{error}\n")
                raise SystemExit(Arbiter.APP_LOAD_ERROR) from None
            threading.Thread(
                target=_answer_operators, args=(router, groups, places.fileno()), daemon=True
            ).start()
            return router

    # A process holds a lock on one byte of this file for the address at which it answers; the lock ends with the process.
    with tempfile.TemporaryFile() as places:
        Server().run()


def _answer_operators(router: Router, groups: list[list[Any]], places: int) -> None:
    """Answer at one of the management addresses, as soon as one is not used by another process."""
    while any(groups):
        for number, sockets in enumerate(groups):
            try:
                fcntl.lockf(places, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                continue
            management.start(router, sockets)
            return
        time.sleep(_PAUSE)
