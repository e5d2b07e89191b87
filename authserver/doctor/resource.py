"""A protected resource as clients see it: its challenge (RFC 6750), its metadata (RFC 9728) and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from authserver.doctor.findings import Findings
from authserver.doctor.reading import (
    Json,
    challenges,
    encoded,
    has,
    origin_of,
    parts_of,
    quoted,
    text_of,
    texts_of,
)
from authserver.doctor.server import STRANGER, is_local, readable_by, with_query
from authserver.doctor.wire import Answer, NotADocument, Unanswered, Wire

WELL_KNOWN = "/.well-known/oauth-protected-resource"
# A resource names few authorization servers; further ones are not examined.
MAXIMUM_SERVERS = 3
BAD_TOKEN = "doctor.is.not.a.token"
# The first message of an MCP client; it changes nothing.
_INITIALIZE = msgspec.json.encode(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "authserver doctor", "version": "1"},
        },
    }
)
_MCP_HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@dataclass(slots=True, kw_only=True)
class Resource:
    """A protected resource.

    Attributes:
        url: its URL as the operator wrote it.
        identifier: the `resource` of its metadata; `url` if it has none.
        challenge: the scopes of its 401.
        scopes: the `scopes_supported` of its metadata.
        servers: its authorization servers, at most three.
    """

    url: str
    identifier: str
    challenge: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()


def look_at(wire: Wire, url: str, findings: Findings, progress: Callable[[str], None]) -> Resource:
    """Examine the resource, and add to `findings`.

    Raises:
        Unanswered: its URL does not answer.
    """
    resource = Resource(url=url, identifier=url)
    if not url.startswith("https://"):
        if is_local(url):
            findings.warn(
                "resource-https", "it is an http address, which programs take on this computer alone"
            )
        else:
            findings.stumble("resource-https", "it is an http address, over which tokens can be read")
    progress("asks without a token")
    asking = _way_of_asking(wire, url)
    answer = asking({})
    named = _look_at_challenge(answer, resource, findings)
    if answer.status == 401:
        progress("asks with tokens that must be refused")
        _send_bad_tokens(asking, resource, findings)
    progress("asks for its metadata")
    _look_at_document(wire, resource, named, findings)
    findings.not_run(
        "with-a-token",
        "too little scope (403 insufficient_scope), a wrong audience and step-up need a token that a person allowed",
    )
    return resource


# One request to the resource with these headers, and with these parameters in the URL.
Asking = Callable[..., Answer]


def _way_of_asking(wire: Wire, url: str) -> Asking:
    """GET, or the first message of an MCP client if the resource does not take GET. Raises Unanswered."""

    def by_get(headers: dict[str, str], **query: str) -> Answer:
        return wire.ask(
            "GET", with_query(url, query) if query else url, {"Accept": "*/*", **headers}, page=True
        )

    def by_post(headers: dict[str, str], **query: str) -> Answer:
        address = with_query(url, query) if query else url
        return wire.ask("POST", address, {**_MCP_HEADERS, **headers}, _INITIALIZE, page=True)

    return by_post if by_get({}).status in (400, 404, 405, 406) else by_get


def _look_at_challenge(answer: Answer, resource: Resource, findings: Findings) -> str:
    """The URL of the metadata that the challenge names; "" for none."""
    if answer.status != 401:
        told = {
            200: "it answers without a token, so it is not protected",
            403: "it answers 403 without a token; only 401 makes a program ask for one",
        }
        findings.stumble(
            "resource-protected",
            told.get(answer.status, f"without a token it answers {answer.kind}, where 401 is needed"),
        )
        return ""
    findings.ok("resource-protected", "without a token it answers 401")
    header = answer.headers.get("www-authenticate", "")
    bearer = [attributes for scheme, attributes in challenges(header) if scheme.lower() == "bearer"]
    if not bearer:
        findings.stumble(
            "challenge", f"the 401 has no challenge Bearer (WWW-Authenticate: {quoted(header) or 'none'})"
        )
        return ""
    attributes = bearer[0]
    names = [name for name, _ in attributes]
    values = dict(attributes)
    if not attributes:
        findings.warn("challenge", "the challenge has no attribute, and needs at least one")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        findings.stumble("challenge", f"the challenge has an attribute twice: {', '.join(twice)}")
    if "error" in values:
        findings.warn(
            "challenge",
            f"the challenge has error={quoted(values['error'])} although there was no token, so a program takes the token "
            "that it does not have for a bad one",
        )
    elif attributes:
        findings.ok("challenge", f"the challenge is Bearer with {', '.join(map(quoted, names))}")
    scope = values.get("scope", "")
    resource.challenge = tuple(scope.split())
    if resource.challenge:
        findings.ok("challenge-scope", f"the challenge names the scope {quoted(scope)!r}")
    else:
        findings.warn(
            "challenge-scope",
            "the challenge names no scope, so programs ask for all scopes that are listed anywhere, or for none",
        )
    named = values.get("resource_metadata", "")
    if named:
        findings.ok("challenge-metadata", f"the challenge names the metadata {quoted(named)}")
    else:
        findings.warn(
            "challenge-metadata",
            "the challenge has no resource_metadata, so a program has to guess where the metadata is",
        )
    exposed = answer.headers.get("access-control-expose-headers", "").lower()
    if (
        answer.headers.get("access-control-allow-origin")
        and "www-authenticate" not in exposed
        and "*" not in exposed
    ):
        findings.warn(
            "challenge", "programs in a browser cannot read the challenge (Access-Control-Expose-Headers)"
        )
    return named


def _send_bad_tokens(asking: Asking, resource: Resource, findings: Findings) -> None:
    try:
        for scheme in ("Bearer", "bearer"):
            answer = asking({"Authorization": f"{scheme} {BAD_TOKEN}"})
            error = _error_of(answer)
            if answer.status == 401 and error == "invalid_token":
                findings.ok("bad-token", f"a bad token ({scheme}) is refused with invalid_token")
            elif answer.status == 401:
                findings.warn(
                    "bad-token",
                    f"a bad token ({scheme}) is refused with {quoted(error) or 'no error'}; after invalid_token alone "
                    "each program refreshes",
                )
            else:
                findings.stumble(
                    "bad-token", f"a bad token ({scheme}) is answered by {answer.kind}, not by 401"
                )
        forged = asking({"Authorization": f"Bearer {_forged(resource)}"})
        if forged.status == 401:
            findings.ok("forged-token", "a JWT without a signature is refused")
        elif forged.status < 400:
            findings.stumble(
                "forged-token", f"a JWT without a signature (alg none) is accepted: {forged.kind}"
            )
        else:
            findings.warn(
                "forged-token", f"a JWT without a signature is answered by {forged.kind}, not by 401"
            )
        in_query = asking({}, access_token=BAD_TOKEN)
        if _error_of(in_query) == "invalid_token" != _error_of(asking({})):
            findings.warn("token-in-query", "a token in the URL is read, where it ends in logs")
        elif in_query.status < 400:
            findings.stumble("token-in-query", f"with any token in the URL it answers {in_query.kind}")
        else:
            findings.ok("token-in-query", "a token in the URL is not read")
    except Unanswered as error:
        findings.stumble("bad-token", f"a request with a bad token: {error}")


def _error_of(answer: Answer) -> str:
    for scheme, attributes in challenges(answer.headers.get("www-authenticate", "")):
        if scheme.lower() == "bearer":
            return dict(attributes).get("error", "")
    return ""


def _forged(resource: Resource) -> str:
    """A JWT with the right claims and no signature."""
    header = {"alg": "none", "typ": "at+jwt"}
    claims = {
        "iss": origin_of(resource.url),
        "aud": resource.identifier,
        "sub": "doctor",
        "client_id": "doctor",
        "iat": 1_700_000_000,
        "exp": 4_000_000_000,
        "jti": "doctor",
        "scope": " ".join(resource.challenge),
    }
    return f"{encoded(msgspec.json.encode(header))}.{encoded(msgspec.json.encode(claims))}."


def _look_at_document(wire: Wire, resource: Resource, named: str, findings: Findings) -> None:
    origin, path = origin_of(resource.url), parts_of(resource.url).path
    own = f"{origin}{WELL_KNOWN}{'' if path == '/' else path}"
    addresses = dict.fromkeys(filter(None, (named, own, f"{origin}{WELL_KNOWN}")))
    for address in addresses:
        try:
            answer = wire.ask("GET", address, {"Accept": "application/json", "Origin": STRANGER})
        except Unanswered as error:
            findings.stumble("resource-document", f"{quoted(address)}: {error}")
            continue
        if answer.status == 404 and address != named:
            continue
        if answer.status != 200:
            findings.stumble("resource-document", f"{quoted(address)} is answered by {answer.kind}")
            continue
        try:
            document = answer.document()
        except NotADocument as error:
            findings.stumble(
                "resource-document", f"{quoted(address)} is answered by {answer.kind}, but {error}"
            )
            continue
        findings.ok("resource-document", f"its metadata is at {quoted(address)}")
        if answer.media_type != "application/json":
            findings.warn(
                "resource-document",
                f"it is sent as {answer.media_type or 'no type'}, not as application/json",
            )
        if not readable_by(answer, STRANGER):
            findings.warn("cross-origin", "programs in a browser cannot read the metadata of the resource")
        _look_at_metadata(resource, document, findings)
        return
    if not any(finding.check == "resource-document" for finding in findings.found):
        findings.stumble(
            "resource-document",
            f"there is no metadata of the resource ({', '.join(map(quoted, addresses))}), so no program finds its "
            "authorization server",
        )


def _look_at_metadata(resource: Resource, document: Json, findings: Findings) -> None:
    stated = text_of(document, "resource")
    if stated == resource.url:
        findings.ok("resource-equal", "the metadata names the resource exactly as it was asked for")
    elif (
        stated
        and stated.rstrip("/") == resource.url.rstrip("/")
        and not parts_of(resource.url).path.strip("/")
    ):
        findings.warn(
            "resource-equal",
            f"the metadata names {quoted(stated)}, which differs from the address by a slash alone",
        )
    else:
        findings.stumble(
            "resource-equal",
            f"the metadata names the resource {quoted(stated)!r}, which is not {resource.url!r}: a program that checks it "
            "does not use it",
        )
    if stated:
        resource.identifier = stated
    servers = texts_of(document, "authorization_servers")
    good = tuple(server for server in servers if server.startswith("https://") or is_local(server))
    if not servers:
        findings.stumble("resource-servers", "the metadata lists no authorization_servers")
    elif len(good) < len(servers):
        findings.stumble(
            "resource-servers", f"an authorization server is not an https address: {quoted(servers[0])}"
        )
    else:
        findings.ok(
            "resource-servers", f"its authorization servers are {', '.join(map(quoted, servers[:3]))}"
        )
    resource.servers = good[:MAXIMUM_SERVERS]
    resource.scopes = texts_of(document, "scopes_supported")
    if "offline_access" in resource.scopes:
        findings.warn(
            "resource-scopes", "scopes_supported lists offline_access, which is no scope of a resource"
        )
    elif resource.scopes:
        findings.ok("resource-scopes", f"its scopes are {quoted(' '.join(resource.scopes))}")
    else:
        findings.warn("resource-scopes", "the metadata lists no scopes_supported")
    methods = document.get("bearer_methods_supported")
    if has(document, "bearer_methods_supported") and "header" not in texts_of(
        document, "bearer_methods_supported"
    ):
        findings.stumble(
            "resource-scopes", f"bearer_methods_supported does not list header: {quoted(repr(methods))}"
        )
