"""`authserver limits`: shows how much of each limit is used and by whom, and lifts a limit."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from authserver.cli.configuration import Configuration, OneSentence
from authserver.cli.printing import json_option, print_json, print_rows, say
from authserver.engine.rates import Limiter, limiters, record_lifted, table_of, usage_of
from authserver.engine.rates import lift as lift_limit

if TYPE_CHECKING:
    from authserver.app import Application

_NOTHING_LIMITS = "No plugin of authserver.plugins limits how often anything may be done."
IN_MEMORY = "the counts are in the memory of each server process, and"
# How long a process may take to answer; strangers may have invented many names, which are counted.
SECONDS = 10.0

server_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--server",
    metavar="HOST:PORT",
    help="The address for operators of one process, if the counts are in its memory; by default all processes of the INI "
    "file are asked.",
)


class CannotAsk(Exception):
    """No process can be asked for its counts; the message says why and what to do, after `IN_MEMORY`."""


@click.group(cls=OneSentence, invoke_without_command=True)
@click.option("--all", "show_all", is_flag=True, help="Show also limits of which less than half is used.")
@server_option
@json_option
@click.pass_context
def limits(context: click.Context, show_all: bool, server: str | None, as_json: bool) -> None:
    """Show the limits of requests of clients, people and strangers, and how much of each is used by whom."""
    if context.invoked_subcommand is not None:
        if show_all or server or as_json:
            raise click.UsageError("give options after the command")
        return
    configuration: Configuration = context.obj
    problem, used, more = "", None, 0
    with closing(configuration.application()) as application:
        application.check_database()
        application.parts.offered.read()
        found = _limiters(application)
        try:
            rows = table_of(found)
            if all(limiter.is_shared for limiter in found):
                used = [asdict(item) for item in usage_of(found, everything=show_all)]
            else:
                told = _asked(configuration, application, server, all=show_all)
                used, more = told["used"], told["more"]
        except CannotAsk as error:
            problem = f"The use of the limits cannot be shown: {IN_MEMORY} {error}."
        except ValueError as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        print_json({"limits": rows, "used": used, "more": more})
        if problem:
            say(problem, err=True)
        return
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    print_rows(rows, columns, empty=_NOTHING_LIMITS)
    if not found:
        return
    say("")
    if used is None:
        say(problem)
        return
    print_rows(
        used,
        ("limit", "who", "used", "allowed", "seconds"),
        empty=f"No limit {'is used' if show_all else 'is used by half or more'} by anybody now.",
    )
    if more:
        say(f"These are the fullest; there are {more} more.")


@limits.command()
@click.argument("limit")
@click.argument("who", required=False)
@server_option
@json_option
@click.pass_obj
def lift(
    configuration: Configuration, limit: str, who: str | None, server: str | None, as_json: bool
) -> None:
    """Reset the count of LIMIT for WHO, both as `authserver limits` shows them; without WHO for everybody."""
    with closing(configuration.application()) as application:
        found = _limiters(application)
        if not found:
            raise click.ClickException(_NOTHING_LIMITS)
        try:
            with application.begin() as engine:
                if all(limiter.is_shared for limiter in found):
                    lifted = lift_limit(engine, found, limit, who)
                else:
                    lifted = _asked(configuration, application, server, limit=limit, who=who)["lifted"]
                    record_lifted(engine, limit, who, lifted)
        except CannotAsk as error:
            raise click.ClickException(f"nothing was lifted: {IN_MEMORY} {error}") from None
        except ValueError as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        print_json({"limit": limit, "lifted": lifted})
        return
    if not lifted:
        raise click.ClickException(
            f"nobody{f' called {who}' if who else ''} has used anything of {limit} now; `authserver limits --all` shows who has"
        )
    say(f"{limit} is lifted for {who or ('everybody' if lifted > 1 else 'the one who used it')}.")


def _limiters(application: Application) -> Sequence[Limiter]:
    policies = application.parts.policies
    return limiters(map(policies.plugin, policies.names))


def _asked(
    configuration: Configuration, application: Application, server: str | None, **question: Any
) -> Mapping[str, Any]:
    """The answers of one process, or of all processes of the INI file. Each counts by itself, so the highest count is
    nearest to its limit.

    Raises CannotAsk, and ValueError if one refuses.
    """
    answers = [
        _asked_one(application, where, **question)
        for where in ([server] if server else _management_listen(configuration))
    ]
    if "lifted" in answers[0]:
        return {"lifted": max(answer["lifted"] for answer in answers)}
    used: dict[tuple[str, str], Mapping[str, Any]] = {}
    for item in (item for answer in answers for item in answer["used"]):
        key = item["limit"], item["who"]
        if key not in used or used[key]["used"] < item["used"]:
            used[key] = item
    fullest_first = sorted(used.values(), key=lambda item: -item["used"] / max(item["allowed"], 1))
    return {"used": fullest_first, "more": max(answer["more"] for answer in answers)}


def _asked_one(application: Application, where: str, **question: Any) -> Mapping[str, Any]:
    """The answer of the process. Raises CannotAsk, and ValueError if it refuses."""
    # Imported here: it brings Pyramid, which no other command needs before it has read its arguments.
    from authserver.web.limits import MAXIMUM_ANSWER, NotAnswered, ask

    host, port = _address(where)

    def send(body: bytes) -> bytes:
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
        with closing(connection):
            connection.request("POST", "/limits", body, {"Content-Type": "application/octet-stream"})
            response = connection.getresponse()
            if response.status != 200:
                raise NotAnswered
            return response.read(MAXIMUM_ANSWER)

    try:
        return ask(application.parts.ring, send, **question)
    except ConnectionRefusedError:
        raise CannotAsk(
            f"no process runs at {where}; start it, or name another one with --server HOST:PORT"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise CannotAsk(
            f"the process at {where} does not answer ({str(error) or type(error).__name__})"
        ) from None
    except NotAnswered:
        raise CannotAsk(
            f"at {where} another server answers, or this one with other secret keys; name it with "
            "--server HOST:PORT, or restart it with the keys of this INI file"
        ) from None


def _management_listen(configuration: Configuration) -> list[str]:
    """The first address for operators that the INI file names, and those of the next processes. Raises CannotAsk."""
    section = configuration.server_section()
    named = section.get("management_listen", "").split()
    if not named:
        raise CannotAsk(
            "management_listen of [server:main], at which this command asks for them, is not set; set it, for example to "
            "127.0.0.1:16543, and restart the server, or share the counts between the processes: set `storage` of the "
            "plugin that counts"
        )
    host, port = _address(named[0])
    count = section.get("processes", "").strip()
    others = range(1, int(count) if count.isascii() and count.isdigit() else 1)
    return [named[0], *(f"[{host}]:{port + by}" if ":" in host else f"{host}:{port + by}" for by in others)]


def _address(text: str) -> tuple[str, int]:
    """Raises CannotAsk."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise CannotAsk(f"{text} is no address of a process of the server; expected HOST:PORT")
    # A `*` means every address of the machine.
    return "localhost" if host == "*" else host, int(port)
