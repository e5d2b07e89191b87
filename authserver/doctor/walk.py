"""The requests of one program to a server, up to the point at which a person must sign in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from authserver.doctor.authorization import authorizes
from authserver.doctor.discovery import discovers, has_members
from authserver.doctor.introduction import introduces_itself, remove
from authserver.doctor.reading import quoted, text_of
from authserver.doctor.recordings import TokenRequest
from authserver.doctor.sending import token_request_of
from authserver.doctor.visit import Introduction, Visit
from authserver.doctor.wire import Unanswered


def go(visit: Visit, progress: Callable[[str], None]) -> None:
    """Make the requests of the program until one fails. The client that it registered is always removed."""
    progress("looks for the metadata")
    if not discovers(visit):
        return
    try:
        progress("introduces itself")
        if has_members(visit) and introduces_itself(visit):
            progress("asks for a code")
            accepted = authorizes(visit)
            # If its document was not accepted, there is no client that could ask for a token.
            if accepted or visit.introduction is not Introduction.DOCUMENT:
                progress("asks for a token")
                _asks_for_tokens(visit)
    finally:
        if visit.to_remove:
            progress("is removed")
            remove(visit)


def _asks_for_tokens(visit: Visit) -> None:
    """Redeem a code and a refresh token that do not exist: the server refuses them only after accepting the client."""
    if text_of(visit.told.registered, "token_endpoint_auth_method") == "private_key_jwt":
        visit.findings.not_run("authenticates", "it authenticates with a key, which only the program has")
        return
    way = visit.recording.authorization[0]
    verifier = visit.recording.code_verifier
    code = {"code": "doctor", "code_verifier": verifier, "redirect_uri": way.redirect_uri}
    if _is_refused_in_words(visit, visit.recording.token, code, "code"):
        _is_refused_in_words(visit, visit.recording.refresh, {"refresh_token": "doctor"}, "refresh token")


def _is_refused_in_words(visit: Visit, request: TokenRequest, values: Mapping[str, str], what: str) -> bool:
    headers, form = token_request_of(visit.recording, request, visit.told, values)
    try:
        answer = visit.ask("POST", text_of(visit.told.metadata, "token_endpoint"), headers, form)
    except Unanswered as error:
        visit.unanswered("authenticates", "the token endpoint", error)
        return False
    visit.in_time(answer, "token")
    error_code = answer.error()
    if error_code == "invalid_grant":
        visit.findings.ok(
            "authenticates", f"its client is taken, and a {what} that does not exist is refused"
        )
        return True
    if answer.status == 429:
        visit.findings.not_run(
            "authenticates", "the server takes no more requests from here at present (429)"
        )
    elif error_code in ("invalid_client", "unauthorized_client") or answer.status == 401:
        method: str = request.authentication
        if method == "registered":
            method = text_of(visit.told.registered, "token_endpoint_auth_method") or "client_secret_basic"
        if not text_of(visit.told.registered, "client_secret"):
            method = "none"
        visit.findings.stumble(
            "authenticates",
            f"it is refused as a client ({answer.status} {quoted(error_code)}): it authenticates by {method} here, "
            f"with a {what}",
        )
    elif 400 <= answer.status < 500 and error_code:
        visit.findings.warn(
            "authenticates",
            f"a {what} that does not exist is refused with {quoted(error_code)}, not with invalid_grant",
        )
    else:
        visit.findings.stumble("authenticates", f"a {what} that does not exist is answered by {answer.kind}")
    return False
