"""The whole examination: a resource if one is named, its authorization server, and each program with that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from authserver.doctor import resource as resources
from authserver.doctor import server as servers
from authserver.doctor.findings import Finding, Findings, Result, worst
from authserver.doctor.reading import counted
from authserver.doctor.recordings import Recording, load
from authserver.doctor.resource import Resource
from authserver.doctor.sending import Told
from authserver.doctor.server import Server
from authserver.doctor.visit import Introduction, Options, Visit
from authserver.doctor.walk import go
from authserver.doctor.wire import Unanswered, Wire

# Progress: who does what, for the person who waits.
Progress = Callable[[str, str], None]


class Unreachable(Exception):
    """The first address does not answer; the text says which and why, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """The result of one program.

    Attributes:
        name: the file name of its recording.
        left_behind: as in `Visit`.
    """

    name: str
    recording: Recording
    introduction: Introduction
    found: list[Finding]
    left_behind: str

    @property
    def result(self) -> Result:
        """The worst result of this program."""
        return worst(self.found)


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found.

    Attributes:
        issuer: the examined authorization server; "" when the resource names none.
        resource: the protected resource, if one was named.
        found: the findings for every client.
        programs: the findings for each program.
    """

    issuer: str = ""
    resource: str = ""
    found: list[Finding] = field(default_factory=list)
    programs: list[Walked] = field(default_factory=list)

    @property
    def all_found(self) -> list[Finding]:
        """All findings: first those for every client, then those of each program."""
        return [*self.found, *(finding for walked in self.programs for finding in walked.found)]

    @property
    def result(self) -> Result:
        """The worst result of all findings."""
        return worst(self.all_found)


def examine(
    wire: Wire,
    *,
    issuer: str = "",
    resource: str = "",
    programs: Sequence[str],
    options: Options,
    progress: Progress,
) -> Report:
    """Examine a resource, an authorization server or both, and make the requests of each program.

    Args:
        issuer: the authorization server; "" for the first one that the resource names, which programs choose.
        programs: the names of recordings, in the order of the report.

    Raises:
        Unreachable: the first address does not answer.
    """
    findings, report = Findings(), Report(resource=resource)
    protected: Resource | None = None
    try:
        if resource:
            protected = resources.look_at(wire, resource, findings, lambda words: progress("resource", words))
            issuer = _chosen(issuer, protected, findings)
        if issuer:
            report.issuer = issuer
            server = servers.look_at(wire, issuer, findings, lambda words: progress("every client", words))
            report.programs = [_walked(wire, name, server, protected, options, progress) for name in programs]
            if protected is not None:
                _look_at_audience(report, protected, findings)
    except Unanswered as error:
        raise Unreachable(str(error)) from None
    report.found = findings.found
    return report


def _chosen(issuer: str, protected: Resource, findings: Findings) -> str:
    """The authorization server to examine: the one that was named, else the first of the resource."""
    if issuer and protected.servers and issuer not in protected.servers:
        findings.stumble(
            "resource-servers", f"the resource does not name {issuer}, so no program comes from there to it"
        )
    return issuer or next(iter(protected.servers), "")


def _walked(
    wire: Wire, name: str, server: Server, protected: Resource | None, options: Options, progress: Progress
) -> Walked:
    recording = load(name)
    told = Told()
    if protected is not None:
        told = Told(
            resource=protected.identifier,
            challenge=protected.challenge,
            resource_scopes=protected.scopes,
        )
    visit = Visit(
        wire=wire,
        recording=recording,
        server=replace(server),
        options=options,
        told=told,
        findings=Findings(name),
    )
    # If its recording does not fit this server, the other programs are examined all the same.
    go(visit, lambda words: progress(recording.program, words))
    return Walked(
        name=name,
        recording=recording,
        introduction=visit.introduction,
        found=visit.findings.found,
        left_behind=visit.left_behind,
    )


def _look_at_audience(report: Report, protected: Resource, findings: Findings) -> None:
    """Whether the server gives tokens for the resource, according to the requests of the programs."""
    asked = [
        finding
        for walked in report.programs
        if walked.recording.resource is not None
        for finding in walked.found
        if finding.check in ("authorizes", "document", "audience") and finding.result is not Result.NOT_RUN
    ]
    if refused := [finding for finding in asked if finding.check == "audience"]:
        findings.stumble(
            "audience",
            f"the authorization server gives no tokens for {protected.identifier}: it answers invalid_target to "
            f"{counted(len(refused), 'request')}",
        )
    elif any(finding.result is Result.OK for finding in asked):
        findings.ok("audience", f"authorization requests for {protected.identifier} are accepted")
    else:
        findings.not_run(
            "audience",
            "whether the server gives tokens for it needs a client: --register, or --client-id",
        )


def problem_of(url: str) -> str:
    """Why this URL cannot be an issuer or a resource; "" when it can."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port  # both raise ValueError for an impossible host or port
    except ValueError:
        return "it is not a URL"
    if parts.scheme not in ("https", "http") or not host:
        return "it must be a URL such as https://login.example.com"
    if "@" in parts.netloc or parts.fragment:
        return "it must have neither a user nor a fragment"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "it must have visible ASCII characters only; write others as %XX"
    return ""
