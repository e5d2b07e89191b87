"""One program at one server: what each has told the other, and how the program sends a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from authserver.doctor.findings import Findings
from authserver.doctor.reading import Json, quoted, text_of
from authserver.doctor.recordings import Recording
from authserver.doctor.sending import Told
from authserver.doctor.server import Server, preflight, readable_by
from authserver.doctor.wire import Answer, Unanswered, Wire

# The headers that a browser sends across origins without a preflight (Fetch standard, CORS-safelisted request-header);
# a body may be a form, but not JSON.
SAFE_HEADERS = {"accept", "accept-language", "content-language", "origin"}
SAFE_TYPE = "application/x-www-form-urlencoded"


class NotSent(Unanswered):
    """A browser does not send this request; the text says why, for people."""


class Introduction(StrEnum):
    """How a program gets a client id."""

    GIVEN = "the client id that was given"
    DOCUMENT = "the address of its document"
    REGISTRATION = "registration"
    NONE = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command.

    Attributes:
        register: whether programs may register; the registration is removed again if the server offers that.
        client_id: the id of a client that was registered before, which programs use instead of registering.
    """

    register: bool = False
    client_id: str = ""


@dataclass(slots=True, kw_only=True)
class Visit:
    """One program at one server.

    Attributes:
        told: the answers so far; it begins with those of the resource.
        introduction: how it got a client id; None before.
        to_remove: the answer to its registration, as long as the registered client exists.
        left_behind: the id of a client that it registered and could not remove.
    """

    wire: Wire
    recording: Recording
    server: Server
    options: Options
    told: Told
    findings: Findings
    introduction: Introduction = Introduction.NONE
    to_remove: Json = field(default_factory=dict)
    left_behind: str = ""

    def ask(self, method: str, url: str, headers: Any, body: bytes | None = None) -> Answer:
        """Send one request as the program does; in a browser, check that the browser allows it. Raises Unanswered."""
        headers = dict(headers)
        page = headers.get("Origin")
        if page is not None:
            own = {name.lower(): text for name, text in headers.items()}
            asking = tuple(
                name
                for name, text in own.items()
                if name not in SAFE_HEADERS and (name, text) != ("content-type", SAFE_TYPE)
            )
            if asking and (refused := preflight(self.wire, method, url, page, asking)):
                raise NotSent(f"a browser does not let the page {page} ask {quoted(url)}: {refused}")
        answer = self.wire.ask(method, url, headers, body)
        if page is not None and answer.status != 404 and not readable_by(answer, page):
            self.findings.stumble(
                "reads-answers", f"a browser does not let the page {page} read the answer of {quoted(url)}"
            )
        elif page is not None:
            self.findings.ok("reads-answers", f"the page {page} reads the answer of {quoted(url)}")
        return answer

    def unanswered(self, check: str, what: str, error: Unanswered) -> None:
        """Add the finding that a request got no answer, or that a browser would not have sent it."""
        if isinstance(error, NotSent):
            self.findings.stumble("reads-answers", str(error))
        else:
            self.findings.stumble(check, f"{what}: {error}")

    def in_time(self, answer: Answer, what: str) -> None:
        """Add a warning when an answer took more than half the time that the program waits for it."""
        patience = self.recording.patience
        if patience is not None and answer.seconds > patience / 2:
            self.findings.warn(
                "in-time",
                f"a {what} request took {answer.seconds:.1f} s; it waits {patience:g} s and then gives up",
            )


def refusal_of(answer: Answer) -> str:
    """Status, error code and description."""
    document = answer.document()
    words = f"{answer.status} {quoted(text_of(document, 'error'))}".strip()
    if description := text_of(document, "error_description"):
        words += f": {quoted(description).rstrip('.')}"
    return words


def error_id_of(answer: Answer) -> str:
    """The error id of a refusal of authserver, quoted; "" when the answer has none."""
    return quoted(text_of(answer.document(), "error_id"))
