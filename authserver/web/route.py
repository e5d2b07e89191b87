"""The facts about an endpoint: a row of the route table (`web.routes`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from authserver.engine.origins import KnownOrigins
from authserver.engine.records import EventType
from authserver.web.operation import Operation


class Medium(StrEnum):
    """The kind of the answers of an endpoint, errors included."""

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
        name: its name, for its view and in its events.
        path: its path below that of the issuer. A placeholder such as `{client_id}` stands for a whole segment of any text.
        methods: the methods that it answers; GET includes HEAD.
        medium: the kind of its responses, errors included.
        origins: which web origins may read its responses.
        stored: whether it needs the transaction of the request.
        direct: whether it is answered in front of pyramid_tm and the router of Pyramid (`web.direct`), as JSON always is.
        personal: whether it is for signed-in users; others are sent to sign in, and come back to it.
        takes_password: whether a password is sent to it, which takes a processor for long (`web.lane`).
        purpose: the purpose of a sign-in that leads back to it, in the words of the sign-in page; "" for none.
        refused: the type of the events of its refusals.
        metadata: the member of the server metadata that contains its URL (RFC 8414, 2); "" for none.
        decided_by: the hook that it needs; if no plugin serves that hook, the endpoint answers 404. "" for none.
        for_operators: whether the management listener has it, too (`web.management`).
        administers: whether operators administer this server with it; it is hidden from other networks
            (`web.admin_networks`).
        operation: its description for the OpenAPI document, if it answers JSON; a mapping by method if the methods differ.
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
    administers: bool = False
    operation: Operation | Mapping[str, Operation] | None = field(default=None, repr=False)

    @property
    def is_direct(self) -> bool:
        """Whether `web.direct` answers it; its path must have no placeholder."""
        return (self.direct or self.medium.is_json) and "{" not in self.path

    def operations(self) -> Mapping[str, Operation]:
        """The descriptions of its methods, by method."""
        if isinstance(self.operation, Mapping):
            return self.operation
        return dict.fromkeys(self.methods, self.operation or Operation(summary=self.name))


@dataclass
class CrossOrigin:
    """The headers for programs in browsers from other origins.

    Attributes:
        sent: headers that they may send.
        read: headers of answers that they may read.
        known: the origins of clients that were looked up recently.
    """

    sent: set[str] = field(default_factory=lambda: {"Authorization", "Content-Type", "MCP-Protocol-Version"})
    read: set[str] = field(default_factory=lambda: {"Retry-After", "WWW-Authenticate"})
    known: KnownOrigins = field(default_factory=KnownOrigins)

    @cached_property
    def sendable(self) -> str:
        """The value of the header that lists `sent`; read it only after every feature has added its headers."""
        return ", ".join(sorted(self.sent))

    @cached_property
    def readable(self) -> str:
        """The value of the header that lists `read`."""
        return ", ".join(sorted(self.read))
