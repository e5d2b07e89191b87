"""The way of one program through a server, as far as it goes without a person who signs in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from authserver.doctor.findings import Findings
from authserver.doctor.pages import (
    MAXIMUM_REDIRECTS,
    cannot_be_framed,
    followed,
    looks_like,
    sent_back,
    without_query,
)
from authserver.doctor.reading import (
    Json,
    origin_of,
    page_text,
    quoted,
    text_of,
    texts_of,
)
from authserver.doctor.recordings import Authorization, Recording, TokenRequest
from authserver.doctor.sending import (
    Told,
    authorization_of,
    documents_of,
    registration_of,
    scope_of,
    token_request_of,
)
from authserver.doctor.server import Server, preflight, readable_by, takes_documents, with_query
from authserver.doctor.wire import Answer, NotADocument, Unanswered, Wire

# What a browser sends across origins without asking first (Fetch standard, CORS-safelisted request-header); so is a
# form, but not JSON.
_SAFE_HEADERS = {"accept", "accept-language", "content-language", "origin"}
_SAFE_TYPE = "application/x-www-form-urlencoded"
# The check that an error of an authorization request belongs to, where it is a more particular one.
_CHECKS_OF_ERRORS = {"invalid_target": "audience", "invalid_scope": "asks-for-scopes"}


class NotSent(Unanswered):
    """A browser does not send this request; the text says why, for people."""


class Introduction(StrEnum):
    """How a program says who it is."""

    GIVEN = "the client id that was given"
    DOCUMENT = "the address of its document"
    REGISTRATION = "registration"
    NONE = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator allows.

    Attributes:
        register: whether programs may register; what is registered is removed again where the server offers that.
        client_id: of a client that was registered before, for programs to use in the place of a registration.
    """

    register: bool = False
    client_id: str = ""


@dataclass(slots=True, kw_only=True)
class Walk:
    """One program, one server.

    Attributes:
        told: what it knows of the API; what it is told on the way is added.
        introduction: how it introduced itself, once it has.
        left_behind: the id of a client that it registered and that could not be removed.
    """

    wire: Wire
    recording: Recording
    server: Server
    options: Options
    told: Told
    findings: Findings
    introduction: Introduction = Introduction.NONE
    left_behind: str = ""
    _registered: Json = field(default_factory=dict)

    def go(self, progress: Callable[[str], None]) -> None:
        """Go as far as the program comes. What it registered is removed, whatever happens."""
        progress("looks for the metadata")
        if not self._discovers():
            return
        try:
            progress("introduces itself")
            if self._has_members() and self._introduces_itself():
                progress("asks for a code")
                accepted = self._authorizes()
                # Where its document was not taken there is no client that a token could be for.
                if accepted or self.introduction is not Introduction.DOCUMENT:
                    progress("asks for a token")
                    self._asks_for_tokens()
        finally:
            if self._registered:
                progress("is removed")
                self._remove()

    # ---- discovery and metadata -----------------------------------------------------------------------

    def _discovers(self) -> bool:
        check, origin, path = "finds-metadata", self.server.origin, self.server.path
        if self.recording.discovery.at_the_api and self.told.resource is not None:
            check, origin, path = "finds-metadata-at-api", origin_of(self.told.resource), ""
        addresses = documents_of(self.recording, origin, path)
        for address in addresses:
            try:
                answer = self._fetched(address)
            except Unanswered as error:
                self._unanswered(check, address, error)
                return False
            if answer.status == 200:
                return self._reads(answer, check)
            if answer.status >= 500 or answer.location:
                self.findings.stumble(check, f"{address} is answered by {answer.kind}, where it stops")
                return False
            if answer.status != 404:
                self.findings.warn(
                    check,
                    f"{address} is answered by {answer.kind}; it is known to go on after a 404",
                )
        self.findings.stumble(
            check,
            f"none of the addresses it asks has the metadata ({', '.join(addresses)}): it "
            f"{self.recording.discovery.on_not_found}",
        )
        return False

    def _fetched(self, address: str) -> Answer:
        """Raises Unanswered."""
        headers = self.recording.discovery.headers
        try:
            answer = self._ask("GET", address, headers)
        except NotSent as refused:
            # The SDK of the protocol then leaves its header out, with which no preflight is needed.
            self.findings.warn("reads-answers", str(refused))
            headers = {name: text for name, text in headers.items() if name.lower() in _SAFE_HEADERS}
            answer = self._ask("GET", address, headers)
        for _ in range(MAXIMUM_REDIRECTS):
            if not answer.location or origin_of(answer.location) != origin_of(address):
                break
            self.findings.warn(
                "finds-metadata",
                f"{address} redirects to {quoted(answer.location)}, which not every build follows",
            )
            answer = self._ask("GET", answer.location, headers)
        return answer

    def _reads(self, answer: Answer, check: str) -> bool:
        try:
            self.told.metadata = answer.document()
        except NotADocument as error:
            self.findings.stumble(check, f"{answer.url} is answered by {answer.kind}, but {error}")
            return False
        self.findings.ok(check, f"it finds the metadata at {answer.url}")
        return True

    def _has_members(self) -> bool:
        metadata, missing = self.told.metadata, []
        for member, value in self.recording.discovery.needs.items():
            if member == "registration_endpoint":
                continue  # another way in will do
            if value is None and not metadata.get(member):
                missing.append(member)
            if value is not None and value not in texts_of(metadata, member):
                missing.append(f"{member} with {value}")
        if missing:
            self.findings.stumble("finds-members", f"it needs {', '.join(missing)} in the metadata")
            return False
        if needs := [member for member in self.recording.discovery.needs if member in metadata]:
            self.findings.ok("finds-members", f"the metadata has what it needs: {', '.join(needs)}")
        return True

    # ---- introduction ---------------------------------------------------------------------------------

    def _introduces_itself(self) -> bool:
        """Whether it has a client id now."""
        metadata = self.told.metadata
        if self.options.client_id:
            self.introduction = Introduction.GIVEN
            self.told.registered = {
                "client_id": self.options.client_id,
                "token_endpoint_auth_method": "none",
            }
            self.findings.ok("introduces-itself", "it uses the client id that was given")
            return True
        if self._uses_document():
            return True
        if text_of(metadata, "registration_endpoint"):
            self.introduction = Introduction.REGISTRATION
            self.findings.ok("introduces-itself", "it registers itself")
            return self._registers()
        self.findings.stumble(
            "introduces-itself",
            "the metadata offers no way in that it knows: "
            + (
                "neither documents nor registration"
                if self.recording.metadata_document
                else "no registration_endpoint"
            ),
        )
        return False

    def _uses_document(self) -> bool:
        document, metadata = self.recording.metadata_document, self.told.metadata
        if document is None or not takes_documents(metadata):
            return False
        known = document.document or {}
        methods = texts_of(known, "token_endpoint_auth_methods_supported") or (
            text_of(known, "token_endpoint_auth_method") or "none",
        )
        offered = texts_of(metadata, "token_endpoint_auth_methods_supported")
        algorithm = text_of(known, "token_endpoint_auth_signing_alg")
        algorithms = texts_of(metadata, "token_endpoint_auth_signing_alg_values_supported")
        fitting = [
            method
            for method in methods
            if method in offered
            and (method != "private_key_jwt" or not algorithm or not algorithms or algorithm in algorithms)
        ]
        if not fitting:
            self.findings.warn(
                "introduces-itself",
                f"it would introduce itself by its document, for which it needs the method {' or '.join(methods)}"
                f"{f' with {algorithm}' if algorithm else ''}, and that is not listed",
            )
            return False
        self.introduction = Introduction.DOCUMENT
        # A key where that is taken: it is the stronger one.
        self.told.registered = {
            "client_id": document.url,
            "token_endpoint_auth_method": "private_key_jwt" if "private_key_jwt" in fitting else "none",
        }
        self.findings.ok("introduces-itself", f"it introduces itself by {document.url}")
        return True

    def _registers(self) -> bool:
        body = registration_of(self.recording, self.told)
        if self.server.takes_registrations is False:
            self.findings.stumble("registers", "the server takes no registration from it")
            return False
        if not self.options.register:
            asked = body.get("token_endpoint_auth_method", "client_secret_basic")
            if asked not in self._offered_methods():
                self.findings.warn(
                    "method-offered", f"it asks for the authentication method {asked}, which is not listed"
                )
            self._compares_scopes()
            self.findings.not_run(
                "registers",
                "whether its registration is taken, and what comes after it; --register tries it",
            )
            return False
        headers = self.recording.registration.headers
        try:
            answer = self._ask(
                "POST",
                text_of(self.told.metadata, "registration_endpoint"),
                headers,
                msgspec.json.encode(body),
            )
        except Unanswered as error:
            self._unanswered("registers", "the registration endpoint", error)
            return False
        if answer.status == 429:
            wait = answer.headers.get("retry-after", "")
            self.findings.not_run(
                "registers",
                "the server takes no more registrations from here at present (429); try again "
                + (f"in {wait} s" if wait.isascii() and wait.isdigit() else "later"),
            )
            return False
        try:
            document = answer.document()
        except NotADocument as error:
            self.findings.stumble("registers", f"its registration is answered by {answer.kind}, but {error}")
            return False
        if not 200 <= answer.status < 300:
            self._is_refused_registration(answer, body)
            return False
        self._registered = document
        if not text_of(document, "client_id"):
            self.findings.stumble("registers", "the answer to its registration has no client_id")
            return False
        self.told.registered = document
        self.findings.ok("registers", f"its registration is taken ({answer.status})")
        self._checks_registered(answer, body, document)
        self._in_time(answer, "registration")
        return True

    def _is_refused_registration(self, answer: Answer, asked: dict[str, Any]) -> None:
        method = asked.get("token_endpoint_auth_method", "client_secret_basic")
        check, told = "registers", "its registration"
        if answer.error() == "invalid_redirect_uri":
            check, told = "redirect-uris", f"its registration ({', '.join(asked.get('redirect_uris', []))})"
        elif method not in self._offered_methods():
            check, told = "method-offered", f"its registration for the authentication method {method}"
        self.findings.stumble(check, f"{told} is refused with {_refusal(answer)}", _error_id(answer))

    def _offered_methods(self) -> tuple[str, ...]:
        # RFC 8414, 2: what is meant where nothing is said.
        return texts_of(self.told.metadata, "token_endpoint_auth_methods_supported") or (
            "client_secret_basic",
        )

    def _checks_registered(self, answer: Answer, asked: dict[str, Any], registered: Json) -> None:
        if answer.status != 201:
            self.findings.warn(
                "registers", f"a registration is answered by {answer.status}; 201 is what some need"
            )
        if "no-store" not in answer.headers.get("cache-control", "").lower():
            self.findings.warn(
                "not-kept",
                "the answer to a registration may be kept by caches (Cache-Control without no-store)",
            )
        if nulls := [name for name, value in registered.items() if value is None]:
            self.findings.warn(
                "registered-as-asked",
                f"members are null, where clients expect none: {quoted(', '.join(nulls))}",
            )
        if "client_secret" in registered and "client_secret_expires_at" not in registered:
            self.findings.warn(
                "registered-as-asked", "client_secret_expires_at is missing beside client_secret"
            )
        method = asked.get("token_endpoint_auth_method")
        given = text_of(registered, "token_endpoint_auth_method")
        if method and given and given != method:
            words = f"it asked for the authentication method {method} and is registered with {quoted(given)}"
            if self.recording.registration.insists_on_method:
                self.findings.stumble("registered-as-asked", f"{words}, with which it goes no further")
            else:
                self.findings.warn("registered-as-asked", words)
        uris = texts_of(registered, "redirect_uris")
        if gone := [uri for uri in asked.get("redirect_uris", []) if uris and uri not in uris]:
            self.findings.warn("registered-as-asked", f"redirect URIs were left out: {', '.join(gone)}")
        grant_types = texts_of(registered, "grant_types")
        if (
            grant_types
            and "refresh_token" in asked.get("grant_types", [])
            and "refresh_token" not in grant_types
        ):
            self.findings.warn(
                "registered-as-asked",
                "it is registered without refresh tokens, so a person signs in again whenever a token ends",
            )

    def _remove(self) -> None:
        """Remove what was registered (RFC 7592, 2.3), or say that it stays behind."""
        if problem := self._problem_of_removing():
            self.left_behind = quoted(text_of(self._registered, "client_id"))
            self.findings.warn("registration-removed", f"what it registered stays behind: {problem}")
        else:
            self.findings.ok("registration-removed", "what it registered is removed")
        self._registered = {}

    def _problem_of_removing(self) -> str:
        address = text_of(self._registered, "registration_client_uri")
        token = text_of(self._registered, "registration_access_token")
        if not address or not token:
            return "the server offers no way to remove it"
        if origin_of(address) != origin_of(text_of(self.told.metadata, "registration_endpoint")):
            return "it is managed at another host, to which its token is not sent"
        if not token.isascii() or not token.isprintable():
            return "its token has characters that none may have"
        try:
            answer = self.wire.ask("DELETE", address, {"Authorization": f"Bearer {token}"})
        except Unanswered as error:
            return str(error)
        return "" if answer.status == 204 else f"removing it is answered by {answer.kind}"

    # ---- authorization --------------------------------------------------------------------------------

    def _authorizes(self) -> bool:
        """Whether one of its requests leads to the sign-in."""
        endpoint = text_of(self.told.metadata, "authorization_endpoint")
        accepted: Answer | None = None
        registered = texts_of(self.told.registered, "redirect_uris")
        for way in self.recording.authorization:
            parameters = authorization_of(self.recording, way, self.told)
            try:
                answer = self._opens(endpoint, parameters)
            except Unanswered as error:
                self.findings.stumble("authorizes", f"the authorization endpoint: {error}")
                return accepted is not None
            if self._is_accepted(way, parameters, answer, registered) and accepted is None:
                accepted = answer
                self._sees_sign_in(answer)
                self._sends_what_must_be_refused(endpoint, way, parameters, answer)
        return accepted is not None

    def _opens(self, endpoint: str, parameters: dict[str, str]) -> Answer:
        """Raises Unanswered."""
        return self.wire.ask("GET", with_query(endpoint, parameters), {"Accept": "text/html"}, page=True)

    def _is_accepted(
        self, way: Authorization, parameters: dict[str, str], answer: Answer, registered: tuple[str, ...]
    ) -> bool:
        check = "document" if self.introduction is Introduction.DOCUMENT else "authorizes"
        named = f"{way.way} ({way.redirect_uri})"
        sent = sent_back(answer, way.redirect_uri)
        if sent is not None and "error" in sent:
            error, described = quoted(sent["error"]), quoted(sent.get("error_description", ""))
            words = f"{named}: it comes back with {error}{f' ({described})' if described else ''}"
            if error == "invalid_target" and self.told.resource is None:
                self.findings.not_run("audience", f"{words}; name the API with --resource")
            else:
                self.findings.stumble(_CHECKS_OF_ERRORS.get(error, "authorizes"), words)
            return False
        if sent is not None:
            self.findings.warn("authorizes", f"{named}: a code comes back although nobody signed in")
            return True
        if answer.status == 429:
            self.findings.not_run("authorizes", f"{named}: the server takes no more requests from here (429)")
            return False
        if answer.status >= 400:
            if self.introduction is Introduction.GIVEN and self.told.registered:
                words = f"{named}: the person sees an error page: {answer.status}, {page_text(answer.body)!r}"
                self.findings.stumble(
                    "authorizes",
                    f"{words}; is this redirect URI registered for {quoted(self.options.client_id)}?",
                )
                return False
            if registered and way.redirect_uri not in registered and way.redirect_uri in self._asked_uris():
                return False  # it was left out, and that was said
            self.findings.stumble(
                check, f"{named}: the person sees an error page: {answer.status}, {page_text(answer.body)!r}"
            )
            return False
        if refusal := self._pushed(parameters):
            check = _CHECKS_OF_ERRORS.get(refusal.error(), "authorizes")
            words = f"{named}: behind the sign-in it is refused with {_refusal(refusal)}"
            self.findings.stumble(check, words, _error_id(refusal))
            return False
        where = (
            f"goes on to {quoted(without_query(answer.location))}" if answer.location else "a page is shown"
        )
        self.findings.ok(check, f"{named}: {where}")
        return True

    def _sees_sign_in(self, answer: Answer) -> None:
        """Follow to the page at which a person signs in, as far as it is the server's own, as a browser would."""
        try:
            page = followed(self.wire, answer)
        except Unanswered as error:
            self.findings.stumble("sign-in", f"the sign-in: {error}")
            return
        if page is None:
            self.findings.ok("sign-in", "the sign-in is at another host")
            return
        if page.status == 429:
            self.findings.not_run("sign-in", "the server takes no more requests from here at present (429)")
        elif page.status != 200:
            self.findings.stumble(
                "sign-in",
                f"instead of a page to sign in there is {page.kind} at {quoted(without_query(page.url))}",
            )
        elif cannot_be_framed(page):
            self.findings.ok("sign-in", "the page to sign in is shown, and cannot be framed")
        else:
            self.findings.warn(
                "sign-in",
                "the page to sign in can be shown in the frame of any site (neither frame-ancestors nor X-Frame-Options)",
            )

    def _pushed(self, parameters: dict[str, str]) -> Answer | None:
        """The refusal of a pushed authorization request (RFC 9126, 2.1); None when it is taken or none can be sent.

        Many servers let a person sign in before they say what is wrong with a request; a pushed one they refuse at once.
        """
        if not self._can_push():
            return None
        request = TokenRequest(
            headers={"Content-Type": _SAFE_TYPE, "Accept": "application/json"},
            authentication=self.recording.token.authentication,
            form=parameters,
        )
        headers, form = token_request_of(self.recording, request, self.told, {})
        try:
            answer = self.wire.ask("POST", self._pushing_endpoint(), headers, form)
        except Unanswered:
            return None
        # What is wrong with the client, or with the server, is not wrong with the request.
        of_request = answer.error() not in ("", "invalid_client", "unauthorized_client")
        return answer if of_request and 400 <= answer.status < 500 and answer.status != 429 else None

    def _can_push(self) -> bool:
        method = text_of(self.told.registered, "token_endpoint_auth_method")
        return bool(self._pushing_endpoint()) and method != "private_key_jwt"

    def _pushing_endpoint(self) -> str:
        return text_of(self.told.metadata, "pushed_authorization_request_endpoint")

    def _asked_uris(self) -> list[str]:
        return list(self.recording.registration.body.get("redirect_uris", []))

    def _sends_what_must_be_refused(
        self, endpoint: str, way: Authorization, parameters: dict[str, str], accepted: Answer
    ) -> None:
        """An authorization request without PKCE, and one that leads elsewhere."""
        left = {name: text for name, text in parameters.items() if not name.startswith("code_challenge")}
        elsewhere = way.redirect_uri.rstrip("/") + "/doctor"
        if "?" in way.redirect_uri:
            elsewhere = way.redirect_uri + "doctor"
        try:
            unprotected = self._opens(endpoint, left)
            astray = self._opens(endpoint, {**parameters, "redirect_uri": elsewhere})
        except Unanswered as error:
            self.findings.stumble("authorizes", f"a request that must be refused: {error}")
            return
        sent = sent_back(unprotected, way.redirect_uri)
        if 429 in (unprotected.status, astray.status):
            self.findings.not_run(
                "pkce-required", "the server takes no more requests from here at present (429)"
            )
            return
        if sent is None and looks_like(unprotected, accepted):
            if self._pushed(left) is not None:
                self.findings.ok("pkce-required", "a pushed request without code_challenge is refused")
            elif self._can_push():
                self.findings.stumble(
                    "pkce-required",
                    "a request without code_challenge is accepted, so a stolen code can be redeemed",
                )
            else:
                self.findings.not_run(
                    "pkce-required",
                    "a request without code_challenge leads to the same sign-in; what comes behind it needs a person",
                )
        else:
            self.findings.ok("pkce-required", "a request without code_challenge is refused")
        if sent is not None and "error" in sent:
            self._checks_error_response(sent, parameters)
        if sent_back(astray, elsewhere) is not None or looks_like(astray, accepted):
            self.findings.stumble(
                "redirect-exact", f"a redirect URI that was not registered is accepted: {elsewhere}"
            )
        else:
            self.findings.ok("redirect-exact", "another path than the registered one is refused")

    def _checks_error_response(self, sent: dict[str, str], parameters: dict[str, str]) -> None:
        if sent.get("state", "") == parameters.get("state", ""):
            self.findings.ok("response-state", "the answer has the state of the request")
        else:
            self.findings.stumble(
                "response-state", "the answer has another state than the request, so the program drops it"
            )
        issuer, announced = sent.get("iss"), "authorization_response_iss_parameter_supported"
        if issuer is None and self.told.metadata.get(announced) is True:
            self.findings.stumble(
                "response-iss", "the metadata announces iss, but the answer does not have it"
            )
        elif issuer is not None and issuer != text_of(self.told.metadata, "issuer"):
            self.findings.stumble("response-iss", f"the answer names another issuer: {quoted(issuer)!r}")
        elif issuer is not None:
            self.findings.ok("response-iss", "the answer names the issuer")

    def _compares_scopes(self) -> None:
        advertised = texts_of(self.told.metadata, "scopes_supported")
        if not advertised:
            return
        rules = [self.recording.registration.scope, *(way.scope for way in self.recording.authorization)]
        wanted = dict.fromkeys(scope for rule in rules for scope in (scope_of(rule, self.told) or "").split())
        if unknown := [scope for scope in wanted if scope not in advertised]:
            self.findings.warn(
                "asks-for-scopes",
                f"it asks for {', '.join(map(quoted, unknown))}, which the metadata does not list; authserver leaves such a "
                "scope out, other servers may refuse it",
            )

    # ---- tokens ---------------------------------------------------------------------------------------

    def _asks_for_tokens(self) -> None:
        """Redeem a code and a refresh token that do not exist: who gets that far has been taken as a client."""
        if text_of(self.told.registered, "token_endpoint_auth_method") == "private_key_jwt":
            self.findings.not_run("authenticates", "it authenticates with a key, which only the program has")
            return
        way = self.recording.authorization[0]
        verifier = self.recording.code_verifier
        code = {"code": "doctor", "code_verifier": verifier, "redirect_uri": way.redirect_uri}
        if self._is_refused_in_words(self.recording.token, code, "code"):
            self._is_refused_in_words(self.recording.refresh, {"refresh_token": "doctor"}, "refresh token")

    def _is_refused_in_words(self, request: TokenRequest, values: Mapping[str, str], what: str) -> bool:
        headers, form = token_request_of(self.recording, request, self.told, values)
        try:
            answer = self._ask("POST", text_of(self.told.metadata, "token_endpoint"), headers, form)
        except Unanswered as error:
            self._unanswered("authenticates", "the token endpoint", error)
            return False
        self._in_time(answer, "token")
        error_code = answer.error()
        if error_code == "invalid_grant":
            self.findings.ok(
                "authenticates", f"its client is taken, and a {what} that does not exist is refused"
            )
            return True
        if answer.status == 429:
            self.findings.not_run(
                "authenticates", "the server takes no more requests from here at present (429)"
            )
        elif error_code in ("invalid_client", "unauthorized_client") or answer.status == 401:
            method: str = request.authentication
            if method == "registered":
                method = text_of(self.told.registered, "token_endpoint_auth_method") or "client_secret_basic"
            if not text_of(self.told.registered, "client_secret"):
                method = "none"
            self.findings.stumble(
                "authenticates",
                f"it is refused as a client ({answer.status} {quoted(error_code)}): it authenticates by {method} here, "
                f"with a {what}",
            )
        elif 400 <= answer.status < 500 and error_code:
            self.findings.warn(
                "authenticates",
                f"a {what} that does not exist is refused with {quoted(error_code)}, not with invalid_grant",
            )
        else:
            self.findings.stumble(
                "authenticates", f"a {what} that does not exist is answered by {answer.kind}"
            )
        return False

    # ---- how it asks ----------------------------------------------------------------------------------

    def _ask(self, method: str, url: str, headers: Any, body: bytes | None = None) -> Answer:
        """One request as the program sends it; of a page in a browser also whether it may. Raises Unanswered."""
        headers = dict(headers)
        page = headers.get("Origin")
        if page is not None:
            own = {name.lower(): text for name, text in headers.items()}
            asking = tuple(
                name
                for name, text in own.items()
                if name not in _SAFE_HEADERS and (name, text) != ("content-type", _SAFE_TYPE)
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

    def _unanswered(self, check: str, what: str, error: Unanswered) -> None:
        if isinstance(error, NotSent):
            self.findings.stumble("reads-answers", str(error))
        else:
            self.findings.stumble(check, f"{what}: {error}")

    def _in_time(self, answer: Answer, what: str) -> None:
        patience = self.recording.patience
        if patience is not None and answer.seconds > patience / 2:
            self.findings.warn(
                "in-time",
                f"a {what} request took {answer.seconds:.1f} s; it waits {patience:g} s and then gives up",
            )


def _refusal(answer: Answer) -> str:
    """Status, error code and description."""
    document = answer.document()
    words = f"{answer.status} {quoted(text_of(document, 'error'))}".strip()
    if description := text_of(document, "error_description"):
        words += f": {quoted(description).rstrip('.')}"
    return words


def _error_id(answer: Answer) -> str:
    return quoted(text_of(answer.document(), "error_id"))
