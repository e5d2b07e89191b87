"""What `pserve` calls for `[server:main]`: waitress, on addresses that are taken before anything else begins."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pyramid.router import Router
from waitress.adjustments import Adjustments
from waitress.server import create_server

from authserver.ini import did_you_mean, unused_variables

# What says where to listen; our sockets take their place.
_ADDRESSES = ("listen", "host", "port", "ipv4", "ipv6")
_SETTINGS = [name for name, _ in Adjustments._params if name != "sockets"]
log = logging.getLogger("authserver")


class CannotListen(Exception):
    """The addresses cannot be used; the message says which, why, and what to change."""


def server(global_config: Mapping[str, str], **settings: str) -> Callable[[Router], None]:
    """The server of a `[server:main]` section, `use = egg:authserver`; every setting is one of waitress.

    What is wrong with the section, or an address in use, ends the process with a sentence and exit status 1. `pserve`
    calls this before it makes the application.
    """
    if problems := unused_variables(global_config):
        raise SystemExit(cannot_start(problems))
    ini = Path(global_config.get("__file__", "the INI file")).name
    try:
        adjustments = _adjustments(settings)
        sockets = [] if adjustments.unix_socket else _all_bound(adjustments.listen)
    except CannotListen as error:
        raise SystemExit(cannot_start([f"[server:main] of {ini}: {error}"])) from None
    where = adjustments.unix_socket or ", ".join(_words(item.getsockname()) for item in sockets)
    others: dict[str, Any] = {name: text for name, text in settings.items() if name not in _ADDRESSES}
    if sockets:
        others["sockets"] = sockets

    def serve(application: Router) -> None:
        try:
            running = create_server(application, **others)
        except OSError as error:
            # Another server took an address at the same moment, or the file of the socket cannot be made. After a
            # SystemExit from here the exit status of `pserve` would be 0.
            sys.tracebacklimit = 0
            raise CannotListen(f"[server:main] of {ini}: {_why(where, error)}") from None
        log.info("listening on %s", where)
        running.run()

    return serve


def cannot_start(problems: Iterable[str]) -> str:
    """What ends the process, a line for each problem."""
    return "authserver cannot start:\n  " + "\n  ".join(problems)


def _adjustments(settings: Mapping[str, str]) -> Adjustments:
    """The settings as waitress reads them. Raises CannotListen."""
    for name in settings:
        if name not in _SETTINGS:
            raise CannotListen(f"{name}: no such setting of waitress; {did_you_mean(name, _SETTINGS, '')}")
    try:
        adjustments = Adjustments(**settings)
    except ValueError as error:
        if str(error) == "Invalid host/port specified.":
            given = settings.get("listen") or f"{settings.get('host', '')}:{settings.get('port', '')}"
            raise CannotListen(f"{given} is no address to listen on; expected HOST:PORT") from None
        raise CannotListen(str(error)) from None
    # Without any, waitress would listen on its default, port 8080 of every interface.
    if not (adjustments.listen or adjustments.unix_socket):
        raise CannotListen("listen names no address; expected HOST:PORT")
    return adjustments


def _all_bound(addresses: Iterable[Any]) -> list[socket.socket]:
    """A socket for each address, or none at all. Raises CannotListen."""
    with ExitStack() as unless_all_are_bound:
        sockets = [_bound(unless_all_are_bound, *address) for address in addresses]
        unless_all_are_bound.pop_all()
    return sockets


def _bound(opened: ExitStack, family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    """A socket that has this address and accepts no connection yet. Raises CannotListen."""
    try:
        bound = opened.enter_context(socket.socket(family, kind, protocol))
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # So that a restart need not wait for the connections of before.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise CannotListen(_why(_words(address), error)) from None
    return bound


def _why(where: str, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"{where} is in use, perhaps by a server that is still running; stop that one, or change the address "
                "here, and in authserver.issuer if it names this port"
            )
        case errno.EACCES:
            return f"{where} may not be used by this user; take a port above 1023"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return f"{where} is no address of this machine; change it here"
        case number:
            return f"{where} cannot be used ({os.strerror(number) if number else error}); change it here"


def _words(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
