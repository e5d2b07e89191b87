"""How a program finds the metadata of a server, and whether the metadata has the members that the program needs."""

from __future__ import annotations

from authserver.doctor.pages import MAXIMUM_REDIRECTS, joined
from authserver.doctor.reading import origin_of, quoted, texts_of
from authserver.doctor.sending import documents_of
from authserver.doctor.visit import SAFE_HEADERS, NotSent, Visit
from authserver.doctor.wire import Answer, NotADocument, Unanswered


def discovers(visit: Visit) -> bool:
    """Whether the program finds metadata that it can read (RFC 8414, 3; RFC 9728, 3), asking as its recording says.

    Findings go into `visit.findings`, and the document into `visit.told.metadata`.
    """
    check, origin, path = "finds-metadata", visit.server.origin, visit.server.path
    if visit.recording.discovery.at_the_api and visit.told.resource is not None:
        check, origin, path = "finds-metadata-at-api", origin_of(visit.told.resource), ""
    addresses = documents_of(visit.recording, origin, path)
    for address in addresses:
        try:
            answer = _fetched(visit, address)
        except Unanswered as error:
            visit.unanswered(check, address, error)
            return False
        if answer.status == 200:
            return _reads(visit, answer, check)
        if answer.status >= 500 or answer.location:
            visit.findings.stumble(check, f"{address} is answered by {answer.kind}, where it stops")
            return False
        if answer.status != 404:
            visit.findings.warn(
                check,
                f"{address} is answered by {answer.kind}; it is known to go on after a 404",
            )
    visit.findings.stumble(
        check,
        f"none of the addresses it asks has the metadata ({', '.join(addresses)}): it "
        f"{visit.recording.discovery.on_not_found}",
    )
    return False


def _fetched(visit: Visit, address: str) -> Answer:
    """Raises Unanswered."""
    headers = visit.recording.discovery.headers
    try:
        answer = visit.ask("GET", address, headers)
    except NotSent as refused:
        # The MCP SDK then leaves its header out, so that the browser sends no preflight.
        visit.findings.warn("reads-answers", str(refused))
        headers = {name: text for name, text in headers.items() if name.lower() in SAFE_HEADERS}
        answer = visit.ask("GET", address, headers)
    for _ in range(MAXIMUM_REDIRECTS):
        target = joined(answer.url, answer.location)
        if not answer.location or origin_of(target) != origin_of(address):
            break
        visit.findings.warn(
            "finds-metadata",
            f"{address} redirects to {quoted(answer.location)}, which not every build follows",
        )
        answer = visit.ask("GET", target, headers)
    return answer


def _reads(visit: Visit, answer: Answer, check: str) -> bool:
    try:
        visit.told.metadata = answer.document()
    except NotADocument as error:
        visit.findings.stumble(check, f"{answer.url} is answered by {answer.kind}, but {error}")
        return False
    visit.findings.ok(check, f"it finds the metadata at {answer.url}")
    return True


def has_members(visit: Visit) -> bool:
    """Whether the metadata has each member and value that the program needs; findings go into `visit`."""
    metadata, missing = visit.told.metadata, []
    for member, value in visit.recording.discovery.needs.items():
        if member == "registration_endpoint":
            continue  # another way in will do
        if value is None and not metadata.get(member):
            missing.append(member)
        if value is not None and value not in texts_of(metadata, member):
            missing.append(f"{member} with {value}")
    if missing:
        visit.findings.stumble("finds-members", f"it needs {', '.join(missing)} in the metadata")
        return False
    if needs := [member for member in visit.recording.discovery.needs if member in metadata]:
        visit.findings.ok("finds-members", f"the metadata has what it needs: {', '.join(needs)}")
    return True
