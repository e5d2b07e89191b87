"""`authserver doctor`: finds the problems that real programs would have with a running server, from outside."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console

from authserver.cli.configuration import Configuration, Plugins
from authserver.cli.installation import Checked, examine_installation
from authserver.cli.printing import json_option, print_json, print_rows, safe, say, words
from authserver.doctor.examination import Report, Unreachable, Walked, examine, problem_of
from authserver.doctor.findings import Finding, Result
from authserver.doctor.reading import counted
from authserver.doctor.recordings import NAMES, load
from authserver.doctor.visit import Options
from authserver.doctor.wire import Wire
from authserver.settings import SettingsError

UNREACHABLE = 2
# How many programs are named in one cell.
NAMED = 4
_TOLD = (Result.STUMBLES, Result.WARNING, Result.NOT_RUN)


def _url(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and (problem := problem_of(value)):
        raise click.BadParameter(problem, param=parameter)
    return value


def _programs(
    _context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    for value in values:
        if value not in NAMES:
            close = difflib.get_close_matches(value.lower(), NAMES, n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(close)}?" if close else "`authserver doctor --list` names all"
            raise click.BadParameter(f"no program {value!r} was recorded; {hint}", param=parameter)
    return tuple(dict.fromkeys(values)) or NAMES


@click.command()
@click.argument("issuer", required=False, callback=_url)
@click.option("--as", "programs", metavar="PROGRAM", multiple=True, callback=_programs,
              help="Send the requests of this program only; may be repeated. Without it: the requests of all programs.")  # fmt: skip
@click.option("--resource", metavar="URL", callback=_url,
              help="Examine this protected resource first, and then its authorization server.")  # fmt: skip
@click.option("--register", is_flag=True,
              help="Let programs register. Each registration is removed again, if the server offers that.")  # fmt: skip
@click.option("--client-id", metavar="ID",
              help="Let programs use this public client, which was registered before, and register nothing.")  # fmt: skip
@click.option("--ca-file", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
              help="Trust the certificates of this file instead of those of the system.")  # fmt: skip
@click.option("--time-limit", metavar="SECONDS", default=10.0, type=click.FloatRange(0.1, 120), show_default=True,
              help="The time limit of each request.")  # fmt: skip
@click.option("--verbose", is_flag=True, help="List passed checks, too.")
@click.option("--list", "list_only", is_flag=True, help="List the recorded programs, and do nothing else.")
@json_option
@click.pass_obj
@click.pass_context
def doctor(
    context: click.Context,
    configuration: Configuration,
    issuer: str | None,
    programs: tuple[str, ...],
    resource: str | None,
    register: bool,
    client_id: str | None,
    ca_file: str | None,
    time_limit: float,
    verbose: bool,
    list_only: bool,
    as_json: bool,
) -> None:
    """Find the problems that programs would have with a running authorization server, any server, from outside.

    ISSUER is its address; without it that of the INI file is taken (-c), or the one that the --resource names. First the
    doctor checks everything that all clients rely on, then it sends the requests of each recorded program, as far as that
    is possible without a person who signs in.

    With the INI file alone it first examines the server's own database: its clock, tables and indexes, the age of the
    keys, events that wait, clients that a tightened policy would refuse, and whether the keys of each trusted issuer
    can be fetched now.

    Nothing is left behind: without --register, programs that would register stop there, and the values that they would
    ask for are compared with the metadata. The server's log shows refusals, because the doctor also sends requests that
    must be refused. To check the registered clients of your own server use `authserver lint`.

    The exit status is 0 when every program can connect, 1 when one cannot, and 2 when nothing could be reached.
    """
    if list_only:
        _list(as_json)
        return
    installation: list[Checked] = []
    if issuer is None and resource is None:
        if configuration.path is not None:
            installation = _installation(configuration)
            if not as_json:
                _print_installation(installation, verbose=verbose)
        issuer = configuration.settings().issuer if configuration.path is not None else None
        if issuer is None:
            raise click.UsageError(
                "no server is named: give its address, as in `authserver doctor https://login.example.com`"
            )
    if register and client_id:
        raise click.UsageError(
            "--register and --client-id exclude each other: with a client id nobody registers"
        )
    try:
        wire = Wire(filter(None, (issuer, resource)), seconds=time_limit, ca_file=ca_file or "")
    except ValueError as error:
        raise click.UsageError(f"--ca-file: {error}") from None
    with Console(stderr=True).status("") as status:
        if as_json:
            status.stop()
        try:
            report = examine(
                wire,
                issuer=issuer or "",
                resource=resource or "",
                programs=programs,
                options=Options(register=register, client_id=client_id or ""),
                progress=lambda who, step: status.update(safe(f"{who}: {step}").replace("[", r"\[")),
            )
        except Unreachable as error:
            status.stop()
            if as_json:
                problem = {"result": "unreachable", "problem": str(error)}
                print_json({**problem, "installation": list(map(asdict, installation))})
            else:
                say(f"Nothing could be checked. {error}", err=True)
            context.exit(UNREACHABLE)
    if as_json:
        print_json({**_as_json(report), "installation": list(map(asdict, installation))})
    else:
        _print(report, verbose=verbose, registered=register)
    if Result.STUMBLES in (report.result, *(each.result for each in installation)):
        context.exit(1)


def _installation(configuration: Configuration) -> list[Checked]:
    try:
        application = configuration.application(Plugins.DECIDE)
    except SettingsError as error:
        what, remedy = "; ".join(error.problems), "`authserver lint` names the keys to change"
        return [Checked(check="settings", result=Result.STUMBLES, what=what, remedy=remedy)]
    with closing(application):
        # This is no real request, so shadow plugins are not asked: they would record their answers.
        application.parts.policies.end_shadow()
        return list(examine_installation(application))


def _print_installation(installation: Sequence[Checked], *, verbose: bool) -> None:
    say("This installation")
    told = [each for each in installation if verbose or each.result in _TOLD]
    rows = [
        {"check": one.check, "result": one.result.value, "what": one.what, "remedy": one.remedy}
        for one in told
    ]
    print_rows(rows, ("check", "result", "what", "remedy"), empty="")
    good = len(installation) - len(told)
    say(f"{counted(good, 'check')} ok; --verbose lists them.\n" if good else "")


def _list(as_json: bool) -> None:
    rows = []
    for name in NAMES:
        recording = load(name)
        rows.append(
            {
                "name": name,
                "program": recording.program,
                "version": recording.version,
                "recorded": recording.recorded.isoformat(),
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("name", "program", "version", "recorded"), empty="")


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "result": report.result.value,
        "issuer": report.issuer or None,
        "resource": report.resource or None,
        "programs": [
            {
                "name": walked.name,
                "program": walked.recording.program,
                "version": walked.recording.version,
                "recorded": walked.recording.recorded.isoformat(),
                "introduction": walked.introduction.name.lower(),
                "result": walked.result.value,
                "left_behind": walked.left_behind or None,
            }
            for walked in report.programs
        ],
        "findings": [
            {
                "program": finding.program or None,
                "check": finding.check,
                "step": finding.step,
                "result": finding.result.value,
                "what": finding.what,
                "error_id": finding.error_id or None,
                "clause": finding.clause,
                "remedy": finding.remedy or None,
            }
            for finding in report.all_found
        ],
    }


def _print(report: Report, *, verbose: bool, registered: bool) -> None:
    target = " at ".join(filter(None, (report.resource, report.issuer)))
    say(f"Every client of {target}" if report.issuer else f"Every client of {report.resource}")
    _print_findings(report.found, verbose=verbose)
    if report.programs:
        say("\nPrograms")
        rows = [_program_row(walked) for walked in report.programs]
        print_rows(rows, ("name", "program", "introduces_itself_by", "result", "at"), empty="")
        found = [finding for walked in report.programs for finding in walked.found]
        if not verbose:
            found = [finding for finding in found if finding.result in _TOLD]
        told = list(_grouped(found, len(report.programs)))
        if told:
            say("\nResults")
            print_rows(told, ("programs", "step", "result", "what_happens", "clause"), empty="")
    _print_remedies(report.all_found)
    if left := [walked.left_behind for walked in report.programs if walked.left_behind]:
        say("\nThese clients stay behind: " + " ".join(map(words, left)))
    say(f"\n{_sentence(report, registered=registered)}")


def _print_findings(found: Sequence[Finding], *, verbose: bool) -> None:
    told = found if verbose else [finding for finding in found if finding.result in _TOLD]
    rows = [
        {
            "step": finding.step,
            "result": finding.result.value,
            "what_happens": finding.what,
            "clause": finding.clause,
        }
        for finding in told
    ]
    good = sum(finding.result is Result.OK for finding in found)
    print_rows(rows, ("step", "result", "what_happens", "clause"), empty="")
    if not verbose and good:
        say(f"{counted(good, 'check')} ok; --verbose lists them.")


def _program_row(walked: Walked) -> dict[str, Any]:
    told = Result.NOT_RUN if walked.result is Result.OK else walked.result
    steps = dict.fromkeys(finding.step for finding in walked.found if finding.result is told)
    return {
        "name": walked.name,
        "program": walked.recording.program,
        "introduces_itself_by": walked.introduction.value,
        "result": walked.result.value,
        "at": ", ".join(f"{step} not run" if told is Result.NOT_RUN else step for step in steps),
    }


def _grouped(found: Sequence[Finding], of: int) -> Iterator[dict[str, Any]]:
    """A row for each finding, with all programs that have it; the worst comes first."""
    order = (Result.STUMBLES, Result.WARNING, Result.NOT_RUN, Result.OK)
    groups: dict[tuple[str, Result, str, str], list[Finding]] = {}
    for finding in sorted(found, key=lambda finding: order.index(finding.result)):
        key = (finding.step, finding.result, finding.what, finding.clause)
        groups.setdefault(key, []).append(finding)
    for (step, result, what, clause), same in groups.items():
        error_id = next((finding.error_id for finding in same if finding.error_id), "")
        yield {
            "programs": _names([finding.program for finding in same], of),
            "step": step,
            "result": result.value,
            "what_happens": f"{what} (error_id {error_id})" if error_id else what,
            "clause": clause,
        }


def _names(programs: Sequence[str], of: int) -> str:
    """The programs that have a finding, a few by name; the table above and --json name all."""
    if 1 < of == len(programs):
        return "all"
    more = len(programs) - NAMED
    return ", ".join(programs[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _print_remedies(found: Sequence[Finding]) -> None:
    """Print what to change at an authserver, once for each step and remedy, because one cause leads to many findings."""
    remedies = dict.fromkeys((finding.step, finding.remedy) for finding in found if finding.remedy)
    if remedies:
        say("\nWhere this server is authserver")
        rows = [{"step": step, "what_mends_it": remedy} for step, remedy in remedies]
        print_rows(rows, ("step", "what_mends_it"), empty="")


def _sentence(report: Report, *, registered: bool) -> str:
    stumbling = [walked for walked in report.programs if walked.result is Result.STUMBLES]
    of_all = sum(finding.result is Result.STUMBLES for finding in report.found)
    told = []
    if of_all:
        told.append(f"{counted(of_all, 'thing')} {'is' if of_all == 1 else 'are'} wrong for every client.")
    if stumbling:
        told.append(f"{len(stumbling)} of {len(report.programs)} programs stumble.")
    elif report.programs and not of_all:
        told.append(f"None of {len(report.programs)} programs stumbles, as far as was checked.")
    not_run = {finding.check for finding in report.all_found if finding.result is Result.NOT_RUN}
    if "registers" in not_run and not registered:
        told.append("Registration was not tried; --register tries it.")
    return " ".join(told) or "Nothing is wrong, as far as was checked."
