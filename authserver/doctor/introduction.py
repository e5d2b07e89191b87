"""How a program gets a client id: it was given one, has a document, or registers; a registration is removed later."""

from __future__ import annotations

from typing import Any

import msgspec

from authserver.doctor.reading import Json, origin_of, quoted, text_of, texts_of
from authserver.doctor.sending import registration_of, scope_of
from authserver.doctor.server import takes_documents
from authserver.doctor.visit import Introduction, Visit, error_id_of, refusal_of
from authserver.doctor.wire import Answer, NotADocument, Unanswered


def introduces_itself(visit: Visit) -> bool:
    """Get a client id; whether the program has one now."""
    metadata = visit.told.metadata
    if visit.options.client_id:
        visit.introduction = Introduction.GIVEN
        visit.told.registered = {
            "client_id": visit.options.client_id,
            "token_endpoint_auth_method": "none",
        }
        visit.findings.ok("introduces-itself", "it uses the client id that was given")
        return True
    if _uses_document(visit):
        return True
    if text_of(metadata, "registration_endpoint"):
        visit.introduction = Introduction.REGISTRATION
        visit.findings.ok("introduces-itself", "it registers itself")
        return _registers(visit)
    visit.findings.stumble(
        "introduces-itself",
        "the metadata offers no way in that it knows: "
        + (
            "neither documents nor registration"
            if visit.recording.metadata_document
            else "no registration_endpoint"
        ),
    )
    return False


def _uses_document(visit: Visit) -> bool:
    document, metadata = visit.recording.metadata_document, visit.told.metadata
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
        visit.findings.warn(
            "introduces-itself",
            f"it would introduce itself by its document, for which it needs the method {' or '.join(methods)}"
            f"{f' with {algorithm}' if algorithm else ''}, and that is not listed",
        )
        return False
    visit.introduction = Introduction.DOCUMENT
    # A key if the server accepts keys, because that is stronger.
    visit.told.registered = {
        "client_id": document.url,
        "token_endpoint_auth_method": "private_key_jwt" if "private_key_jwt" in fitting else "none",
    }
    visit.findings.ok("introduces-itself", f"it introduces itself by {document.url}")
    return True


def _registers(visit: Visit) -> bool:
    body = registration_of(visit.recording, visit.told)
    if visit.server.takes_registrations is False:
        visit.findings.stumble("registers", "the server takes no registration from it")
        return False
    if not visit.options.register:
        asked = body.get("token_endpoint_auth_method", "client_secret_basic")
        if asked not in _offered_methods(visit):
            visit.findings.warn(
                "method-offered", f"it asks for the authentication method {asked}, which is not listed"
            )
        _compares_scopes(visit)
        visit.findings.not_run(
            "registers",
            "whether its registration is taken, and what comes after it; --register tries it",
        )
        return False
    headers = visit.recording.registration.headers
    try:
        answer = visit.ask(
            "POST",
            text_of(visit.told.metadata, "registration_endpoint"),
            headers,
            msgspec.json.encode(body),
        )
    except Unanswered as error:
        visit.unanswered("registers", "the registration endpoint", error)
        return False
    if answer.status == 429:
        wait = answer.headers.get("retry-after", "")
        visit.findings.not_run(
            "registers",
            "the server takes no more registrations from here at present (429); try again "
            + (f"in {wait} s" if wait.isascii() and wait.isdigit() else "later"),
        )
        return False
    try:
        document = answer.document()
    except NotADocument as error:
        visit.findings.stumble("registers", f"its registration is answered by {answer.kind}, but {error}")
        return False
    if not 200 <= answer.status < 300:
        _is_refused_registration(visit, answer, body)
        return False
    visit.to_remove = document
    if not text_of(document, "client_id"):
        visit.findings.stumble("registers", "the answer to its registration has no client_id")
        return False
    visit.told.registered = document
    visit.findings.ok("registers", f"its registration is taken ({answer.status})")
    _checks_registered(visit, answer, body, document)
    visit.in_time(answer, "registration")
    return True


def _compares_scopes(visit: Visit) -> None:
    advertised = texts_of(visit.told.metadata, "scopes_supported")
    if not advertised:
        return
    rules = [visit.recording.registration.scope, *(way.scope for way in visit.recording.authorization)]
    wanted = dict.fromkeys(scope for rule in rules for scope in (scope_of(rule, visit.told) or "").split())
    if unknown := [scope for scope in wanted if scope not in advertised]:
        visit.findings.warn(
            "asks-for-scopes",
            f"it asks for {', '.join(map(quoted, unknown))}, which the metadata does not list; authserver leaves such a "
            "scope out, other servers may refuse it",
        )


def _is_refused_registration(visit: Visit, answer: Answer, asked: dict[str, Any]) -> None:
    method = asked.get("token_endpoint_auth_method", "client_secret_basic")
    check, told = "registers", "its registration"
    if answer.error() == "invalid_redirect_uri":
        check, told = "redirect-uris", f"its registration ({', '.join(asked.get('redirect_uris', []))})"
    elif method not in _offered_methods(visit):
        check, told = "method-offered", f"its registration for the authentication method {method}"
    visit.findings.stumble(check, f"{told} is refused with {refusal_of(answer)}", error_id_of(answer))


def _offered_methods(visit: Visit) -> tuple[str, ...]:
    # RFC 8414, 2: the default.
    return texts_of(visit.told.metadata, "token_endpoint_auth_methods_supported") or ("client_secret_basic",)


def _checks_registered(visit: Visit, answer: Answer, asked: dict[str, Any], registered: Json) -> None:
    if answer.status != 201:
        visit.findings.warn(
            "registers", f"a registration is answered by {answer.status}; 201 is what some need"
        )
    if "no-store" not in answer.headers.get("cache-control", "").lower():
        visit.findings.warn(
            "not-kept",
            "the answer to a registration may be kept by caches (Cache-Control without no-store)",
        )
    if nulls := [name for name, value in registered.items() if value is None]:
        visit.findings.warn(
            "registered-as-asked",
            f"members are null, where clients expect none: {quoted(', '.join(nulls))}",
        )
    if "client_secret" in registered and "client_secret_expires_at" not in registered:
        visit.findings.warn("registered-as-asked", "client_secret_expires_at is missing beside client_secret")
    method = asked.get("token_endpoint_auth_method")
    given = text_of(registered, "token_endpoint_auth_method")
    if method and given and given != method:
        words = f"it asked for the authentication method {method} and is registered with {quoted(given)}"
        if visit.recording.registration.insists_on_method:
            visit.findings.stumble("registered-as-asked", f"{words}, with which it goes no further")
        else:
            visit.findings.warn("registered-as-asked", words)
    uris = texts_of(registered, "redirect_uris")
    if gone := [uri for uri in asked.get("redirect_uris", []) if uris and uri not in uris]:
        visit.findings.warn("registered-as-asked", f"redirect URIs were left out: {', '.join(gone)}")
    grant_types = texts_of(registered, "grant_types")
    if grant_types and "refresh_token" in asked.get("grant_types", []) and "refresh_token" not in grant_types:
        visit.findings.warn(
            "registered-as-asked",
            "it is registered without refresh tokens, so a person signs in again whenever a token ends",
        )


def remove(visit: Visit) -> None:
    """Remove the registered client (RFC 7592, 2.3), or add a finding that it stays."""
    if problem := _problem_of_removing(visit):
        visit.left_behind = quoted(text_of(visit.to_remove, "client_id"))
        visit.findings.warn("registration-removed", f"what it registered stays behind: {problem}")
    else:
        visit.findings.ok("registration-removed", "what it registered is removed")
    visit.to_remove = {}


def _problem_of_removing(visit: Visit) -> str:
    address = text_of(visit.to_remove, "registration_client_uri")
    token = text_of(visit.to_remove, "registration_access_token")
    if not address or not token:
        return "the server offers no way to remove it"
    if origin_of(address) != origin_of(text_of(visit.told.metadata, "registration_endpoint")):
        return "it is managed at another host, to which its token is not sent"
    if not token.isascii() or not token.isprintable():
        return "its token has characters that none may have"
    try:
        answer = visit.wire.ask("DELETE", address, {"Authorization": f"Bearer {token}"})
    except Unanswered as error:
        return str(error)
    return "" if answer.status == 204 else f"removing it is answered by {answer.kind}"
