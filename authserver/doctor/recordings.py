"""The requests of real programs, as JSON files in `programs/`: one for each program, dated, with the source of each part.

A recording holds requests, not expectations. If a program builds a value from an answer (the scopes of the protected
resource, the grant types of our metadata), the recording says how. Then the value is right also when our answer changes.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

FOLDER = Path(__file__).parent / "programs"

# A repository with an issue, pull request or file; or a package; or a page. Then the date of its version.
_SOURCE = re.compile(r"(reconstructed from )?[\w@.-]+[/ ][^,]*, .*[0-9]{4}-[0-9]{2}-[0-9]{2}.*", re.DOTALL)


ResourceForm = Literal["verbatim", "href", "without slash"]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a recording: a member that is not listed here is an error."""


class Sources(Strict, frozen=True):
    """The source and date of each part; `reconstructed from` if no source shows the request itself."""

    discovery: str
    registration: str
    authorization: str
    token: str
    refresh: str

    def __post_init__(self) -> None:
        for part in self.__struct_fields__:
            if not _SOURCE.fullmatch(getattr(self, part)):
                raise ValueError(f"{part}: a source names a repository, package or page, and a date")


class Scope(Strict, frozen=True):
    """How a program chooses a scope: the first of these sources that has one, else a text of its own.

    Attributes:
        first_of: `challenge` is the `scope` of the API's 401 (RFC 6750, 3), `resource` the `scopes_supported` of the
            protected resource metadata (RFC 9728), `registered` the `scope` of our answer to the registration, `server`
            the `scopes_supported` of our metadata, `granted` the `scope` of our token response.
        otherwise: the scope that it sends if none of them has one; null sends no `scope`.
        added_if_advertised: scopes that it adds if our metadata lists them.
    """

    first_of: tuple[Literal["challenge", "resource", "registered", "server", "granted"], ...] = ()
    otherwise: str | None = None
    added_if_advertised: tuple[str, ...] = ()


class Discovery(Strict, frozen=True):
    """How a program finds our metadata.

    Attributes:
        documents: the addresses in the order in which they are tried; `{origin}` and `{path}` are those of the issuer.
        headers: the headers of each request.
        needs: members of the metadata that the program needs, each with a required value, or null for any value.
        on_not_found: what it does when an address answers 404.
        at_the_api: whether it asks at the origin of the API, which must return our metadata, instead of the issuer's.
    """

    documents: tuple[str, ...]
    headers: Mapping[str, str]
    needs: Mapping[str, str | None]
    on_not_found: str
    at_the_api: bool = False


class Choice(Strict, frozen=True):
    """A member of a registration that a program chooses: the first of these that our metadata lists."""

    listed_in: str
    first_of: tuple[str, ...]


class Registration(Strict, frozen=True):
    """The registration request (RFC 7591, 3.1).

    Attributes:
        body: the body as sent, without the members that the program computes.
        cut_to: members whose values are cut to those that a member of our metadata lists.
        chosen: members that are chosen from what our metadata lists.
        scope: the member `scope`.
        insists_on_method: whether it stops when the answer names another authentication method.
    """

    headers: Mapping[str, str]
    body: Mapping[str, Any]
    cut_to: Mapping[str, str] = {}
    chosen: Mapping[str, Choice] = {}
    scope: Scope = Scope()
    insists_on_method: bool = False


class Authorization(Strict, frozen=True):
    """One way in which a program asks for a code.

    Attributes:
        way: a name for it.
        redirect_uri: the redirect URI; as registered, or with the port on which the program listens now.
        state: an example, in the program's form where a source shows that.
        parameters: in order; the program fills in each `{…}`. A `{scope}` that is null is left out, and
            `{prompt}` is `consent` beside the scope offline_access and left out otherwise.
        scope: the parameter `scope`.
    """

    way: str
    redirect_uri: str
    state: str
    parameters: Mapping[str, str]
    scope: Scope = Scope()


class TokenRequest(Strict, frozen=True):
    """A request to the token endpoint.

    Attributes:
        authentication: `registered` is the method that our answer to the registration names; `none` sends `client_id`
            alone; the others send the secret, if there is one.
        form: in order; as for `Authorization.parameters`.
    """

    headers: Mapping[str, str]
    authentication: Literal["registered", "none", "client_secret_post", "client_secret_basic"]
    form: Mapping[str, str]
    scope: Scope = Scope()


class MetadataDocument(Strict, frozen=True):
    """The client id metadata document that the program prefers if a server accepts one."""

    url: str
    source: str
    document: Mapping[str, Any] | None = None


class Recording(Strict, frozen=True):
    """What one program sends.

    Attributes:
        recorded: the date of the recording.
        code_verifier: an example, in the program's form (RFC 7636, 4.1).
        resource: `verbatim` is the identifier as the protected resource metadata has it, `href` is what a URL parser of
            a browser makes of it (a slash at the end of a bare host), `without slash` has none at its end; null sends
            none.
        patience: seconds that it waits for the answer to a registration or a token request, where that is known.
        notes: facts that explain the rest.
    """

    program: str
    version: str
    recorded: datetime.date
    sources: Sources
    discovery: Discovery
    registration: Registration
    code_verifier: str
    resource: ResourceForm | None
    authorization: tuple[Authorization, ...]
    token: TokenRequest
    refresh: TokenRequest
    metadata_document: MetadataDocument | None = None
    patience: float | None = None
    notes: tuple[str, ...] = ()


def load(name: str) -> Recording:
    """The recording with this file name. Raises msgspec.ValidationError that names the wrong member."""
    return msgspec.json.decode((FOLDER / f"{name}.json").read_bytes(), type=Recording)


NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
