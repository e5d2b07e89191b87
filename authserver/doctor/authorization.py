"""How a program asks for a code, up to the sign-in of a person, and which requests the server must refuse."""

from __future__ import annotations

from authserver.doctor.pages import cannot_be_framed, followed, looks_like, sent_back, without_query
from authserver.doctor.reading import page_text, quoted, text_of, texts_of
from authserver.doctor.recordings import Authorization, TokenRequest
from authserver.doctor.sending import authorization_of, token_request_of
from authserver.doctor.server import with_query
from authserver.doctor.visit import SAFE_TYPE, Introduction, Visit, error_id_of, refusal_of
from authserver.doctor.wire import Answer, Unanswered

# The check to which an error of an authorization request belongs, if it has a check of its own.
_CHECKS_OF_ERRORS = {"invalid_target": "audience", "invalid_scope": "asks-for-scopes"}


def authorizes(visit: Visit) -> bool:
    """Whether one of its requests leads to the sign-in."""
    endpoint = text_of(visit.told.metadata, "authorization_endpoint")
    accepted: Answer | None = None
    registered = texts_of(visit.told.registered, "redirect_uris")
    for way in visit.recording.authorization:
        parameters = authorization_of(visit.recording, way, visit.told)
        try:
            answer = _opens(visit, endpoint, parameters)
        except Unanswered as error:
            visit.findings.stumble("authorizes", f"the authorization endpoint: {error}")
            return accepted is not None
        if _is_accepted(visit, way, parameters, answer, registered) and accepted is None:
            accepted = answer
            _sees_sign_in(visit, answer)
            _sends_what_must_be_refused(visit, endpoint, way, parameters, answer)
    return accepted is not None


def _opens(visit: Visit, endpoint: str, parameters: dict[str, str]) -> Answer:
    """Raises Unanswered."""
    return visit.wire.ask("GET", with_query(endpoint, parameters), {"Accept": "text/html"}, page=True)


def _is_accepted(
    visit: Visit, way: Authorization, parameters: dict[str, str], answer: Answer, registered: tuple[str, ...]
) -> bool:
    check = "document" if visit.introduction is Introduction.DOCUMENT else "authorizes"
    named = f"{way.way} ({way.redirect_uri})"
    sent = sent_back(answer, way.redirect_uri)
    if sent is not None and "error" in sent:
        described = quoted(sent.get("error_description", ""))
        words = f"{named}: it comes back with {quoted(sent['error'])}{f' ({described})' if described else ''}"
        _stumbles(visit, sent["error"], words)
        return False
    if sent is not None:
        visit.findings.warn("authorizes", f"{named}: a code comes back although nobody signed in")
        return True
    if answer.status == 429:
        visit.findings.not_run("authorizes", f"{named}: the server takes no more requests from here (429)")
        return False
    if answer.status >= 400:
        if registered and way.redirect_uri not in registered and way.redirect_uri in _asked_uris(visit):
            return False  # it was left out, and that was said
        words = f"{named}: the person sees an error page: {answer.status}, {page_text(answer.body)!r}"
        if visit.introduction is Introduction.GIVEN:
            words += f"; is this redirect URI registered for {quoted(visit.options.client_id)}?"
        visit.findings.stumble(check, words)
        return False
    if refusal := _pushed(visit, parameters):
        words = f"{named}: behind the sign-in it is refused with {refusal_of(refusal)}"
        _stumbles(visit, refusal.error(), words, error_id_of(refusal))
        return False
    where = f"goes on to {quoted(without_query(answer.location))}" if answer.location else "a page is shown"
    visit.findings.ok(check, f"{named}: {where}")
    return True


def _stumbles(visit: Visit, error: str, words: str, error_id: str = "") -> None:
    """Add the finding of a refused request; the API of the program is known only if the operator named one."""
    if error == "invalid_target" and visit.told.resource is None:
        visit.findings.not_run("audience", f"{words}; name the API with --resource")
    else:
        visit.findings.stumble(_CHECKS_OF_ERRORS.get(error, "authorizes"), words, error_id)


def _asked_uris(visit: Visit) -> list[str]:
    return list(visit.recording.registration.body.get("redirect_uris", []))


def _sees_sign_in(visit: Visit, answer: Answer) -> None:
    """Follow the redirects to the sign-in page as a browser does, as long as they stay at the server."""
    try:
        page = followed(visit.wire, answer)
    except Unanswered as error:
        visit.findings.stumble("sign-in", f"the sign-in: {error}")
        return
    if page is None:
        visit.findings.ok("sign-in", "the sign-in is at another host")
        return
    if page.status == 429:
        visit.findings.not_run("sign-in", "the server takes no more requests from here at present (429)")
    elif page.status != 200:
        visit.findings.stumble(
            "sign-in",
            f"instead of a page to sign in there is {page.kind} at {quoted(without_query(page.url))}",
        )
    elif cannot_be_framed(page):
        visit.findings.ok("sign-in", "the page to sign in is shown, and cannot be framed")
    else:
        visit.findings.warn(
            "sign-in",
            "the page to sign in can be shown in the frame of any site (neither frame-ancestors nor X-Frame-Options)",
        )


def _sends_what_must_be_refused(
    visit: Visit, endpoint: str, way: Authorization, parameters: dict[str, str], accepted: Answer
) -> None:
    """Send an authorization request without PKCE, and one with another redirect URI."""
    left = {name: text for name, text in parameters.items() if not name.startswith("code_challenge")}
    elsewhere = way.redirect_uri.rstrip("/") + "/doctor"
    if "?" in way.redirect_uri:
        elsewhere = way.redirect_uri + "doctor"
    try:
        unprotected = _opens(visit, endpoint, left)
        astray = _opens(visit, endpoint, {**parameters, "redirect_uri": elsewhere})
    except Unanswered as error:
        visit.findings.stumble("authorizes", f"a request that must be refused: {error}")
        return
    sent = sent_back(unprotected, way.redirect_uri)
    if 429 in (unprotected.status, astray.status):
        visit.findings.not_run(
            "pkce-required", "the server takes no more requests from here at present (429)"
        )
        return
    if sent is None and looks_like(unprotected, accepted):
        if _pushed(visit, left) is not None:
            visit.findings.ok("pkce-required", "a pushed request without code_challenge is refused")
        elif _can_push(visit):
            visit.findings.stumble(
                "pkce-required",
                "a request without code_challenge is accepted, so a stolen code can be redeemed",
            )
        else:
            visit.findings.not_run(
                "pkce-required",
                "a request without code_challenge leads to the same sign-in; what comes behind it needs a person",
            )
    else:
        visit.findings.ok("pkce-required", "a request without code_challenge is refused")
    if sent is not None and "error" in sent:
        _checks_error_response(visit, sent, parameters)
    if sent_back(astray, elsewhere) is not None or looks_like(astray, accepted):
        visit.findings.stumble(
            "redirect-exact", f"a redirect URI that was not registered is accepted: {elsewhere}"
        )
    else:
        visit.findings.ok("redirect-exact", "another path than the registered one is refused")


def _checks_error_response(visit: Visit, sent: dict[str, str], parameters: dict[str, str]) -> None:
    if sent.get("state", "") == parameters.get("state", ""):
        visit.findings.ok("response-state", "the answer has the state of the request")
    else:
        visit.findings.stumble(
            "response-state", "the answer has another state than the request, so the program drops it"
        )
    issuer, announced = sent.get("iss"), "authorization_response_iss_parameter_supported"
    if issuer is None and visit.told.metadata.get(announced) is True:
        visit.findings.stumble("response-iss", "the metadata announces iss, but the answer does not have it")
    elif issuer is not None and issuer != text_of(visit.told.metadata, "issuer"):
        visit.findings.stumble("response-iss", f"the answer names another issuer: {quoted(issuer)!r}")
    elif issuer is not None:
        visit.findings.ok("response-iss", "the answer names the issuer")


def _pushed(visit: Visit, parameters: dict[str, str]) -> Answer | None:
    """The refusal of a pushed authorization request (RFC 9126, 2.1); None when it is accepted or none can be sent.

    Many servers refuse a wrong request only after the sign-in, but a pushed one at once.
    """
    if not _can_push(visit):
        return None
    request = TokenRequest(
        headers={"Content-Type": SAFE_TYPE, "Accept": "application/json"},
        authentication=visit.recording.token.authentication,
        form=parameters,
    )
    headers, form = token_request_of(visit.recording, request, visit.told, {})
    try:
        answer = visit.wire.ask("POST", _pushing_endpoint(visit), headers, form)
    except Unanswered:
        return None
    # An error of the client or of the server does not show that the request was refused.
    of_request = answer.error() not in ("", "invalid_client", "unauthorized_client")
    return answer if of_request and 400 <= answer.status < 500 and answer.status != 429 else None


def _can_push(visit: Visit) -> bool:
    method = text_of(visit.told.registered, "token_endpoint_auth_method")
    return bool(_pushing_endpoint(visit)) and method != "private_key_jwt"


def _pushing_endpoint(visit: Visit) -> str:
    return text_of(visit.told.metadata, "pushed_authorization_request_endpoint")
