"""What is known of an endpoint: a row of the route table (`web.routes`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from authserver.engine.origins import KnownOrigins
from authserver.engine.records import EventType
from authserver.web.operation import Operation


class Medium(StrEnum):
    """What an endpoint answers with, errors included."""

    PAGE = "page"
    JSON = "json"
    # JSON too, but errors are problem details (RFC 9457).
    PROBLEM = "problem"

    @property
    def is_json(self) -> bool:
        """Whether answers are JSON of either form."""
        return self is not Medium.PAGE


class Origins(StrEnum):
    """Which web origins may read the answers (CORS)."""

    NONE = "none"
    ALL = "all"
    CLIENTS = "clients"


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint.

    Attributes:
        name: used by its view and in its events.
        path: below the path of the issuer. A placeholder such as `{client_id}` stands for a whole segment of any text.
        methods: those that it answers; GET includes HEAD.
        medium: of its responses, errors included.
        origins: which web origins may read its responses.
        stored: whether it needs the request's transaction.
        direct: whether it is answered in front of pyramid_tm and Pyramid's router (`web.direct`), as JSON always is.
        personal: whether it is for signed-in users; others are sent back to it after they have signed in.
        takes_password: whether a password is sent to it, which costs a processor much (`web.lane`).
        purpose: what somebody signs in for who is sent back to it, as the sign-in page says it; "" for nothing to say.
        refused: the type of the events of its refusals.
        metadata: the member of the server metadata that contains its URL (RFC 8414, 2); "" for none.
        decided_by: the hook without which it is of no use; if no plugin serves that hook, the endpoint answers 404. "" for
            none.
        for_operators: whether the listener for operators has it, too (`web.management`).
        operation: what it takes and answers, for the OpenAPI document; of endpoints that answer JSON. By the method where
            each does something else.
    """

    name: str
    path: str
    methods: tuple[str, ...]
    medium: Medium = Medium.PAGE
    origins: Origins = Origins.NONE
    stored: bool = True
    direct: bool = False
    personal: bool = False
    takes_password: bool = False
    purpose: str = ""
    refused: EventType = EventType.REQUEST_REFUSED
    metadata: str = ""
    decided_by: str = ""
    for_operators: bool = False
    operation: Operation | Mapping[str, Operation] | None = field(default=None, repr=False)

    @property
    def is_direct(self) -> bool:
        """Whether `web.direct` answers it; its path must have no placeholder."""
        return (self.direct or self.medium.is_json) and "{" not in self.path

    def operations(self) -> Mapping[str, Operation]:
        """What each of its methods takes and answers, by the method."""
        if isinstance(self.operation, Mapping):
            return self.operation
        return dict.fromkeys(self.methods, self.operation or Operation(summary=self.name))


@dataclass
class CrossOrigin:
    """What programs in browsers may do from other origins.

    Attributes:
        sent: headers that they may send.
        read: headers of answers that they may read.
        known: the origins of clients that were looked up lately.
    """

    sent: set[str] = field(default_factory=lambda: {"Authorization", "Content-Type", "MCP-Protocol-Version"})
    read: set[str] = field(default_factory=lambda: {"Retry-After", "WWW-Authenticate"})
    known: KnownOrigins = field(default_factory=KnownOrigins)

    @cached_property
    def sendable(self) -> str:
        """What may be sent, as the header of an answer has it; once every feature has added its own."""
        return ", ".join(sorted(self.sent))

    @cached_property
    def readable(self) -> str:
        """The same of what may be read."""
        return ", ".join(sorted(self.read))
