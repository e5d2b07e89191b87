"""The server that `pserve` calls for `[server:main]`: waitress (`web.connections`). It takes its addresses first."""

from __future__ import annotations

import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pyramid.router import Router
from waitress.adjustments import Adjustments
from waitress.utilities import cleanup_unix_socket

from authserver.ini import did_you_mean, referred_files, resolve, unused_variables
from authserver.limits import MAXIMUM_BODY, MAXIMUM_HEAD
from authserver.settings import SettingsError
from authserver.web import management, processes
from authserver.web.connections import Bounds, listen
from authserver.web.last_resort import answer_at_once
from authserver.web.processes import Ending

# The settings of waitress about proxies, which are refused: `web.forwarding` handles proxies, with settings of the
# application.
_ABOUT_PROXIES = (
    "trusted_proxy",
    "trusted_proxy_count",
    "trusted_proxy_headers",
    "log_untrusted_proxy_headers",
    "clear_untrusted_proxy_headers",
)
_OURS = (
    "management_listen",
    "connections_per_address",
    "request_time_limit",
    "processes",
    "stop_delay",
    "stop_time_limit",
    "secrets_interval",
)
_SETTINGS = [
    *_OURS,
    *(name for name, _ in Adjustments._params if name != "sockets" and name not in _ABOUT_PROXIES),
]
# The defaults that differ from those of waitress, because this server must work without a proxy in front.
_DEFAULTS: Mapping[str, str] = {
    "asyncore_use_poll": "true",  # select() takes no descriptor above 1023
    "channel_timeout": "20",
    "cleanup_interval": "5",
    "connection_limit": "800",
    "ident": "",  # the name of the program would help only attackers
    "max_request_body_size": str(MAXIMUM_BODY + 1),
    "max_request_header_size": str(MAXIMUM_HEAD),
}
# The settings of waitress with which it would answer nothing if they were 0.
_AT_LEAST_ONE = frozenset({"backlog", "channel_timeout", "cleanup_interval", "connection_limit", "threads"})
MAXIMUM_PORT = 65_535
# How many files a process has open beside its connections: the database, logs and listening sockets.
_OTHER_FILES = 128
# The errors that mean that the machine does not have this address, or no address of this family.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# The IPv4 addresses with the same meaning as these IPv6 addresses.
_WITHOUT_IPV6 = {"::1": "127.0.0.1", "::": "0.0.0.0"}  # noqa: S104 - as the INI file says
log = logging.getLogger("authserver")


class CannotListen(Exception):
    """The addresses cannot be used; the message says which, why, and what to change."""


class NoSuchAddress(CannotListen):
    """This machine does not have the address."""


def server(global_config: Mapping[str, str], **settings: str) -> Callable[[Router], None]:
    """The server of a `[server:main]` section with `use = egg:authserver`: settings of waitress, and some of our own.

    A mistake in the section, or an address in use, ends the process with a sentence and exit status 1. `pserve` calls this
    before it makes the application.
    """
    if problems := unused_variables(global_config):
        raise SystemExit(cannot_start(problems))
    ini = Path(global_config.get("__file__", "the INI file")).name
    inherited = processes.Inherited.take()
    try:
        section = Section.read(settings)
        _raise_limit_of_open_files(section.adjustments.connection_limit + _OTHER_FILES)
        if inherited:
            sockets, for_operators = list(inherited.sockets), [list(inherited.management)]
        else:
            if section.processes and not processes.is_pserve(global_config):
                raise CannotListen(
                    "processes: only `pserve` without --reload starts several; remove the line"
                )
            with ExitStack() as unless_all_are_bound:
                sockets = _of_systemd() or _all_public(unless_all_are_bound, section.adjustments)
                for_operators = [
                    all_bound(unless_all_are_bound, moved(section.management, by))
                    for by in range(section.processes or 1)
                ]
                unless_all_are_bound.pop_all()
    except CannotListen as error:
        raise SystemExit(cannot_start([f"[server:main] of {ini}: {error}"])) from None
    if section.processes and not inherited:
        parent = processes.Parent(
            processes.command(sys.argv, sys.warnoptions),
            sockets,
            for_operators,
            count=section.processes,
            stop_delay=section.stop_delay,
            stop_time_limit=section.stop_time_limit,
            files=referred_files(global_config),
            files_interval=section.secrets_interval,
        )
        raise SystemExit(parent.run())
    where = ", ".join(_words(item.getsockname()) for item in sockets)

    def serve(application: Router) -> None:
        if not hasattr(application, "registry"):
            for item in (*sockets, *for_operators[0]):
                item.close()
            sys.tracebacklimit = 0
            raise CannotListen(
                f"[server:main] of {ini}: can serve only authserver itself, without a filter around it; use another server, "
                "such as `use = egg:waitress`, or remove the filter"
            )
        try:
            running = listen(
                application,
                section.adjustments,
                sockets,
                Bounds(
                    connections_per_address=section.connections_per_address,
                    request_time_limit=section.request_time_limit,
                    trusts=application.registry.forwarding.trusts,
                    with_password={
                        path for path, route in application.registry.paths.items() if route.takes_password
                    },
                    client_of=application.registry.forwarding.client_of,
                ),
                passwords=application.registry.application.parts.settings.password_checks,
                at_once=partial(answer_at_once, router=application),
                counts=inherited.counts if inherited else None,
            )
            # The management listener starts only now, so that it never reports a server that does not listen yet.
            if for_operators[0]:
                management.start(application, for_operators[0])
                log.info(
                    "for operators: %s", ", ".join(_words(item.getsockname()) for item in for_operators[0])
                )
        except OSError as error:
            # Another server took an address at the same moment. This is not a SystemExit, because then the exit status of
            # `pserve` would be 0.
            sys.tracebacklimit = 0
            raise CannotListen(f"[server:main] of {ini}: {_why(where, error)}") from None
        log.info("listening on %s", where)
        ending: Ending = application.registry.application.ending

        def end(number: int) -> None:
            if number == signal.SIGINT:
                running.end(accept=0, keep=0, limit=section.stop_time_limit)
            elif number == processes.REPLACED:
                # Other processes accept the new connections; connections to this process are closed after their answers.
                running.end(accept=0, keep=section.stop_delay, limit=section.stop_time_limit)
            else:
                ending.has_begun = True
                running.end(accept=section.stop_delay, keep=0, limit=section.stop_time_limit)

        processes.on_signals(end)
        # The present objects stay until the end, so the garbage collector need not examine them again and again.
        gc.collect()
        gc.freeze()
        if inherited:
            inherited.tell_ready()
        running.run()

    return serve


def cannot_start(problems: Iterable[str]) -> str:
    """The message that ends the process, with a line for each problem."""
    return "authserver cannot start:\n  " + "\n  ".join(problems)


@dataclass(frozen=True, slots=True)
class Section:
    """The settings of `[server:main]`.

    Attributes:
        adjustments: the settings of waitress.
        management: the addresses of the management listener.
        connections_per_address, request_time_limit: see `web.connections.Bounds`.
        processes: how many processes a parent starts; 0 if this process answers itself.
        stop_delay: seconds after SIGTERM in which this process still accepts connections, while it is not ready.
        stop_time_limit: seconds in which running requests must end after that.
        secrets_interval: seconds between two checks of the files that values refer to; 0 for no checks.
    """

    adjustments: Adjustments
    management: tuple[Any, ...]
    connections_per_address: int
    request_time_limit: int
    processes: int
    stop_delay: int
    stop_time_limit: int
    secrets_interval: int

    @classmethod
    def read(cls, settings: Mapping[str, str]) -> Section:
        """Read the settings of the section. Raises CannotListen."""
        settings = resolved(settings)
        for name in settings:
            if name in _ABOUT_PROXIES:
                raise CannotListen(
                    f"{name}: name your proxies in authserver.trusted_proxies of [app:main] instead, and remove this line"
                )
            if name not in _SETTINGS:
                raise CannotListen(f"{name}: no such setting; {did_you_mean(name, _SETTINGS, '')}")
        for name in _AT_LEAST_ONE & settings.keys():
            whole_number(settings, name, 1, minimum=1)
        return cls(
            _adjustments({name: text for name, text in settings.items() if name not in _OURS}),
            management_addresses(settings),
            whole_number(settings, "connections_per_address", 64, minimum=0),
            whole_number(settings, "request_time_limit", 20, minimum=1),
            whole_number(settings, "processes", 0, minimum=0),
            whole_number(settings, "stop_delay", 0, minimum=0),
            whole_number(settings, "stop_time_limit", 5, minimum=1),
            whole_number(settings, "secrets_interval", 0, minimum=0),
        )


def resolved(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings with the values that `env:` and `file:` refer to. Raises CannotListen."""
    try:
        return {name: resolve(name, text).text for name, text in settings.items()}
    except SettingsError as error:
        raise CannotListen(error.problems[0]) from None


def management_addresses(settings: Mapping[str, str]) -> tuple[Any, ...]:
    """The addresses of the management listener in a section. Raises CannotListen."""
    text = settings.get("management_listen", "")
    return tuple(_adjustments({"listen": text}).listen) if text.strip() else ()


def whole_number(settings: Mapping[str, str], name: str, default: int, *, minimum: int) -> int:
    """The number of this name. Raises CannotListen."""
    text = settings.get(name, str(default)).strip()
    # More digits are a mistake, and Python refuses numbers with thousands of digits.
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) < minimum:
        raise CannotListen(f"{name}: {text[:20]} is not a whole number from {minimum} to 999999999999")
    return int(text)


def _adjustments(settings: Mapping[str, str]) -> Adjustments:
    """The settings in the form of waitress. Raises CannotListen."""
    ports = [text.rpartition(":")[2] for text in settings.get("listen", "").split()]
    for port in (*ports, settings.get("port", "")):
        # Otherwise the resolver of the system would take the port modulo 65536.
        if port.isdecimal() and int(port[:12]) > MAXIMUM_PORT:
            raise CannotListen(f"{port[:12]} is not a port; expected a number up to {MAXIMUM_PORT}")
    try:
        adjustments = Adjustments(**{**_DEFAULTS, **settings}, clear_untrusted_proxy_headers=False)
    except ValueError as error:
        if str(error) == "Invalid host/port specified.":
            given = settings.get("listen") or f"{settings.get('host', '')}:{settings.get('port', '')}"
            raise CannotListen(f"{given} is not an address to listen on; expected HOST:PORT") from None
        raise CannotListen(str(error)) from None
    if adjustments.unix_socket:
        adjustments.listen = []
    # Without an address, waitress would listen on its default, port 8080 of every interface.
    elif not adjustments.listen:
        raise CannotListen("listen names no address; expected HOST:PORT")
    return adjustments


def _raise_limit_of_open_files(needed: int) -> None:
    """Allow this process as many open files as needed. Raises CannotListen if the system does not allow that."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (allowed, most) or allowed >= needed:
        return
    if most < needed:
        raise CannotListen(
            f"connection_limit needs {needed} open files, and the system allows this process {most}; lower it, or raise "
            "the limit (systemd: LimitNOFILE)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def _of_systemd() -> list[socket.socket]:
    """The sockets that systemd opened for this process (sd_listen_fds(3)); they take the place of `listen`."""
    count = os.environ.pop("LISTEN_FDS", "")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdigit():
        return []
    # The first descriptor is always 3.
    return [socket.socket(fileno=descriptor) for descriptor in range(3, 3 + int(count))]


def _all_public(opened: ExitStack, adjustments: Adjustments) -> list[socket.socket]:
    """The sockets of the public listener. Raises CannotListen."""
    path = adjustments.unix_socket
    if not path:
        return all_bound(opened, adjustments.listen)
    with ExitStack() as unless_bound:
        bound = unless_bound.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            cleanup_unix_socket(path)  # what an earlier process left
            bound.bind(path)
            Path(path).chmod(adjustments.unix_socket_perms)
        except OSError as error:
            raise CannotListen(_why(path, error)) from None
        unless_bound.pop_all()
    return [opened.enter_context(bound)]


def moved(addresses: Iterable[Any], by: int) -> list[Any]:
    """The same addresses with higher ports, because each process has its own management listener. Raises CannotListen."""
    addresses = list(addresses)
    for *_, address in addresses:
        if address[1] + by > MAXIMUM_PORT:
            raise CannotListen(
                f"management_listen: process {by + 1} would have port {address[1] + by}; begin with a lower port"
            )
    return [
        (family, kind, protocol, (address[0], address[1] + by, *address[2:]))
        for family, kind, protocol, address in addresses
    ]


def all_bound(opened: ExitStack, addresses: Iterable[Any]) -> list[socket.socket]:
    """A socket for each address. Raises CannotListen.

    `localhost` is often also ::1 even if IPv6 is switched off, as in most containers, and `*` is both families. Without
    IPv6 the server listens only on the IPv4 address.
    """
    sockets = []
    wanted = list(addresses)
    for address in wanted:
        try:
            sockets.append(_bound(opened, *address))
        except NoSuchAddress:
            host, port = address[3][:2]
            if not any(other[3][:2] == (_WITHOUT_IPV6.get(host), port) for other in wanted):
                raise
    return sockets


def _bound(opened: ExitStack, family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    """A socket that has this address and accepts no connection yet. Raises CannotListen."""
    with ExitStack() as unless_bound:
        try:
            bound = unless_bound.enter_context(socket.socket(family, kind, protocol))
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # With this, a restart need not wait until the earlier connections are forgotten.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError as error:
            refusal = NoSuchAddress if error.errno in _NOT_HERE else CannotListen
            raise refusal(_why(_words(address), error)) from None
        unless_bound.pop_all()
    return opened.enter_context(bound)


def _why(where: str, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"{where} is in use, perhaps by a server that is still running; stop that one, or change the address "
                "here, and in authserver.issuer if it names this port"
            )
        case errno.EACCES:
            return f"{where} may not be used by this user; choose a port above 1023"
        case number if number in _NOT_HERE:
            return f"{where} is not an address of this machine; change it here"
        case number:
            return f"{where} cannot be used ({os.strerror(number) if number else error}); change it here"


def _words(address: Any) -> str:
    if isinstance(address, str):
        return address  # the path of a Unix socket
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
