"""Findings: a result for each check, and the list of all checks with their clauses and remedies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Result(StrEnum):
    """The result of a check, from good to bad."""

    OK = "ok"
    NOT_RUN = "not run"
    WARNING = "warning"
    STUMBLES = "stumbles"


@dataclass(frozen=True, slots=True)
class Check:
    """A check.

    Attributes:
        step: the part of a connection that it belongs to.
        clause: the specification and section that it comes from.
        remedy: what to change if the server is authserver; "" if no change of a server helps.
    """

    step: str
    clause: str
    remedy: str = ""


_MCP_DISCOVERY = "MCP authorization, Authorization Server Metadata Discovery"
_CIMD = "draft-ietf-oauth-client-id-metadata-document"

CHECKS: Mapping[str, Check] = {
    # ---- every client ---------------------------------------------------------------------------------
    "issuer-https": Check(
        "address",
        "RFC 8414, 2",
        "set authserver.issuer to an https address; the reverse proxy terminates TLS",
    ),
    "clock": Check(
        "address",
        "RFC 9110, 6.6.1; RFC 7519, 4.1.5",
        "let both computers take their time from the network (NTP)",
    ),
    "metadata-address": Check(
        "discovery",
        f"RFC 8414, 3.1; {_MCP_DISCOVERY}",
        "authserver has the document at the address that follows from authserver.issuer; let the reverse proxy pass "
        "/.well-known/ on, with the path behind it",
    ),
    "metadata-missing": Check(
        "discovery",
        f"RFC 8414, 3.2; {_MCP_DISCOVERY}",
        "authserver answers 404 where it has no document; let the reverse proxy pass everything below /.well-known/ on",
    ),
    "metadata-answer": Check(
        "discovery", "RFC 8414, 3.2", "let the reverse proxy pass the answers of authserver on as they are"
    ),
    "metadata-agrees": Check(
        "discovery", "RFC 8414, 3.3", "let the reverse proxy pass all addresses on to the same server"
    ),
    "issuer-equal": Check(
        "discovery",
        "RFC 8414, 3.3",
        "set authserver.issuer to exactly the address that clients are given",
    ),
    "metadata-member": Check("metadata", "RFC 8414, 2", "authserver writes these members from its plugins"),
    "endpoint-https": Check(
        "metadata", "OAuth 2.1, 1.5", "the endpoints follow from authserver.issuer: set that to https"
    ),
    "pkce": Check("metadata", "RFC 8414, 2; RFC 7636, 4.2", "authserver always lists S256"),
    "grant-types": Check("metadata", "RFC 9700, 2.1.2 and 2.4", "authserver offers neither the implicit nor the password grant"),
    "iss-parameter": Check("metadata", "RFC 9207, 2.3 and 3", "authserver always sends and announces iss"),
    "public-clients": Check(
        "metadata", "RFC 8414, 2; RFC 7591, 2", "list public_client in authserver.plugins"
    ),
    "signing-algorithms": Check("metadata", "RFC 8414, 2", "the plugin private_key_jwt lists them"),
    "keys": Check("keys", "RFC 7517, 5; RFC 8414, 2", "`authserver keys list` shows the keys of the server"),
    "key-strength": Check("keys", "RFC 7518, 3.3; RFC 8725, 3.5", "`authserver keys rotate` makes a new key"),
    "cross-origin": Check(
        "browser",
        "Fetch standard, CORS protocol",
        "authserver allows every origin to read it; let the reverse proxy keep these headers",
    ),
    "head": Check("http", "RFC 9110, 9.1", "let the reverse proxy pass HEAD on"),
    "caching": Check("http", "RFC 9111, 5.2.2.1", "let the reverse proxy keep the Cache-Control of authserver"),
    "redirected": Check(
        "http",
        "RFC 9110, 15.4",
        "name the address that answers in authserver.issuer; let the reverse proxy not add or take away slashes",
    ),
    "ways-in": Check(
        "introduction",
        f"RFC 7591, 3; {_CIMD}, 5",
        "list registration_open or client_id_documents in authserver.plugins, or give each program a client id by "
        "`authserver client add`",
    ),
    "documents-announced": Check(
        "introduction",
        f"{_CIMD}, 5 and 8.2",
        "list client_id_documents and public_client in authserver.plugins",
    ),
    "registration-open": Check(
        "registration",
        "RFC 7591, 3",
        "list registration_open in the place of registration_token in authserver.plugins",
    ),
    "token-refusal": Check("token", "RFC 6749, 5.2", "let the reverse proxy pass refusals on as they are"),
    "token-methods": Check("token", "RFC 6749, 3.2", "authserver answers POST alone"),
    "redirect-refused": Check(
        "authorization",
        "RFC 6749, 4.1.2.1; RFC 9700, 4.11",
        "authserver never redirects to an address that was not registered",
    ),
    # ---- a program ------------------------------------------------------------------------------------
    "finds-metadata": Check(
        "discovery",
        f"RFC 8414, 3; {_MCP_DISCOVERY}",
        "let the reverse proxy pass /.well-known/ on, with the path behind it",
    ),
    "finds-metadata-at-api": Check(
        "discovery",
        "MCP authorization of 2025-03-26, Server Metadata Discovery",
        "this program asks the API, not the server: let the API answer there with the document of authserver",
    ),
    "finds-members": Check(
        "metadata",
        "RFC 8414, 2",
        "the members follow from authserver.plugins: `authserver plugins` lists who decides what",
    ),
    "introduces-itself": Check(
        "introduction",
        f"RFC 7591, 3; {_CIMD}, 5",
        "list registration_open or client_id_documents in authserver.plugins, or give this program a client id by "
        "`authserver client add` and name it with --client-id",
    ),
    "document": Check(
        "introduction",
        f"{_CIMD}, 4 and 5",
        "authserver.plugin.client_id_documents.allowed and .blocked say which hosts may be named; `authserver client "
        "show URL` fetches the document and explains it",
    ),
    "registers": Check(
        "registration", "RFC 7591, 3.2", "`authserver explain --error-id ID` says which plugin refused it"
    ),
    "redirect-uris": Check(
        "registration",
        "RFC 7591, 3.2.2; RFC 8252, 7",
        "list mcp_clients in authserver.plugins for Cursor, Cherry Studio App and RikkaHub; for any other program list "
        "redirect_private_use, and the whole redirect URI in authserver.plugin.redirect_private_use.uris",
    ),
    "method-offered": Check(
        "registration",
        "RFC 7591, 2 and 3.2.2",
        "list public_client (for none), client_secret_post or client_secret_basic in authserver.plugins",
    ),
    "registered-as-asked": Check(
        "registration",
        "RFC 7591, 3.2.1",
        "mcp_clients or redirect_private_use allow redirect URIs; client_secret_post, client_secret_basic and "
        "public_client offer authentication methods",
    ),
    "not-kept": Check(
        "registration", "RFC 7591, 3.2.1", "authserver sends no-store; let the reverse proxy keep it"
    ),
    "registration-removed": Check(
        "registration",
        "RFC 7592, 2.3",
        "list client_management in authserver.plugins; without it `authserver client disable` ends the client, and "
        "clients that nobody used are deleted after a while",
    ),
    "asks-for-scopes": Check(
        "authorization", "RFC 6749, 3.3; RFC 8414, 2", "list the scopes in authserver.scopes"
    ),
    "authorizes": Check(
        "authorization",
        "RFC 6749, 4.1.1 and 4.1.2.1",
        "`authserver explain --error-id ID` says which plugin refused it; redirect_loopback, mcp_clients and "
        "redirect_private_use allow redirect URIs",
    ),
    "sign-in": Check(
        "authorization",
        "RFC 9700, 4.16",
        "authserver sends frame-ancestors and X-Frame-Options with each page; let the reverse proxy keep them",
    ),
    "response-iss": Check("authorization", "RFC 9207, 2", "authserver always sends iss"),
    "response-state": Check("authorization", "RFC 6749, 4.1.2.1", "authserver returns state as it came"),
    "pkce-required": Check("authorization", "OAuth 2.1, 4.1.1; RFC 9700, 2.1.1", "authserver always requires S256"),
    "redirect-exact": Check(
        "authorization", "RFC 9700, 2.1; RFC 6749, 3.1.2.3", "list redirect_exact in authserver.plugins"
    ),
    "authenticates": Check(
        "token",
        "RFC 6749, 2.3 and 5.2",
        "list public_client, client_secret_post or client_secret_basic in authserver.plugins, as the program needs it",
    ),
    "reads-answers": Check(
        "browser",
        "Fetch standard, CORS protocol",
        "list origins_registered in authserver.plugins: it allows the origins of registered redirect URIs; let the "
        "reverse proxy pass OPTIONS on and keep these headers",
    ),
    "in-time": Check("http", "as recorded of this program", "look for what is slow before the server"),
    # ---- a protected resource -------------------------------------------------------------------------
    "resource-https": Check(
        "resource", "RFC 6750, 5.2; RFC 9728, 1.2", "let a reverse proxy terminate TLS before the resource"
    ),
    "resource-protected": Check(
        "resource", "RFC 6750, 3", "protect the resource: authserver-resource verifies tokens for it"
    ),
    "challenge": Check(
        "resource", "RFC 6750, 3 and 3.1; OAuth 2.1, 5.3.1", "authserver-resource writes this challenge"
    ),
    "challenge-metadata": Check(
        "resource",
        "RFC 9728, 5.1; MCP authorization, Protected Resource Metadata Discovery",
        "authserver-resource writes this challenge",
    ),
    "challenge-scope": Check(
        "resource", "RFC 6750, 3; MCP authorization, Scope Selection Strategy", "authserver-resource writes it"
    ),
    "bad-token": Check("resource", "RFC 6750, 3.1", "authserver-resource answers so"),
    "forged-token": Check(
        "resource", "RFC 8725, 3.1 and 3.2; RFC 9068, 4", "verify tokens with authserver-resource"
    ),
    "token-in-query": Check("resource", "OAuth 2.1, 5.1", "authserver-resource reads the header alone"),
    "resource-document": Check(
        "resource", "RFC 9728, 3.1 and 3.2", "authserver-resource serves it at /.well-known/oauth-protected-resource"
    ),
    "resource-equal": Check(
        "resource", "RFC 9728, 3.3", "give authserver-resource exactly the address that clients are given"
    ),
    "resource-servers": Check(
        "resource", "RFC 9728, 2", "give authserver-resource the value of authserver.issuer"
    ),
    "resource-scopes": Check("resource", "RFC 9728, 2", "give authserver-resource the scopes that it needs"),
    "audience": Check(
        "authorization",
        "RFC 8707, 2; RFC 9068, 3",
        "list the resource in authserver.plugin.resources_listed.resources exactly as its metadata names it",
    ),
    "with-a-token": Check("resource", "RFC 6750, 3.1; RFC 9470, 3"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        program: the file name of its recording; "" for a finding that concerns every client.
        check: its name in `CHECKS`.
        what: the finding as a sentence; it may quote an answer of the server, so print it as a stranger's text.
        error_id: the id by which an operator of authserver finds the refusal; "" for none. It is a stranger's text, too.
    """

    program: str
    check: str
    result: Result
    what: str
    error_id: str = ""

    @property
    def step(self) -> str:
        """The part of a connection that the check belongs to (`Check.step`), such as "resource"."""
        return CHECKS[self.check].step

    @property
    def clause(self) -> str:
        """The sections of the RFCs that the check comes from; "" if it comes from none."""
        return CHECKS[self.check].clause

    @property
    def remedy(self) -> str:
        """What to change if the server is authserver; "" if there is nothing to change."""
        return CHECKS[self.check].remedy if self.result in (Result.WARNING, Result.STUMBLES) else ""


@dataclass(slots=True)
class Findings:
    """The findings about one server, or about one program with it.

    Attributes:
        program: as in `Finding`.
    """

    program: str = ""
    found: list[Finding] = field(default_factory=list)

    def add(self, check: str, result: Result, what: str, error_id: str = "") -> None:
        """Add a finding, unless there is an equal one. `check` is a name in `CHECKS`."""
        assert check in CHECKS
        finding = Finding(program=self.program, check=check, result=result, what=what, error_id=error_id)
        if finding not in self.found:
            self.found.append(finding)

    def ok(self, check: str, what: str) -> None:
        """Add that the check passed."""
        self.add(check, Result.OK, what)

    def not_run(self, check: str, what: str) -> None:
        """Add that the check was not run; `what` says why."""
        self.add(check, Result.NOT_RUN, what)

    def warn(self, check: str, what: str) -> None:
        """Add a warning: the program can go on, but something is wrong."""
        self.add(check, Result.WARNING, what)

    def stumble(self, check: str, what: str, error_id: str = "") -> None:
        """Add that the program cannot go on here, with the error id of the refusal if there is one."""
        self.add(check, Result.STUMBLES, what, error_id)


def worst(found: list[Finding]) -> Result:
    """The worst result of these; a check that was not run makes nothing worse."""
    results = {finding.result for finding in found}
    return next((result for result in (Result.STUMBLES, Result.WARNING) if result in results), Result.OK)
