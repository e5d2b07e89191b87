"""Checks everything at an authorization server that all clients rely on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from authserver.doctor.findings import Findings
from authserver.doctor.reading import (
    Json,
    counted,
    has,
    origin_of,
    parts_of,
    query_of,
    quoted,
    text_of,
    texts_of,
)
from authserver.doctor.wire import Answer, NotADocument, Unanswered, Wire

OAUTH, OPENID = "oauth-authorization-server", "openid-configuration"
# These belong to nobody: the origin of a page, a client and its redirect URI.
STRANGER = "https://doctor.invalid"
STRANGERS_CLIENT = "authserver-doctor"
STRANGERS_REDIRECT_URI = f"{STRANGER}/callback"
CLOCK_WARNING, CLOCK_PROBLEM = 30, 300
CACHING_WARNING = 86_400
SMALLEST_RSA = 2048

_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
_URLS = (
    "authorization_endpoint",
    "token_endpoint",
    "registration_endpoint",
    "jwks_uri",
    "introspection_endpoint",
    "revocation_endpoint",
    "pushed_authorization_request_endpoint",
)
_LISTS = (
    "scopes_supported",
    "response_types_supported",
    "response_modes_supported",
    "grant_types_supported",
    "token_endpoint_auth_methods_supported",
    "token_endpoint_auth_signing_alg_values_supported",
    "code_challenge_methods_supported",
)
_FLAGS = ("authorization_response_iss_parameter_supported", "client_id_metadata_document_supported")
# By the type of a key: its private members (RFC 7518, 6).
_PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}


@dataclass(slots=True, kw_only=True)
class Server:
    """An authorization server as seen from outside.

    Attributes:
        issuer: the issuer as the operator wrote it.
        metadata: its document; empty when there is none.
        metadata_url: the URL of the document; "" when there is none.
        takes_registrations: whether anybody may register, as far as that shows without registering; None for unknown.
    """

    issuer: str
    metadata: Json = field(default_factory=dict)
    metadata_url: str = ""
    takes_registrations: bool | None = None

    @property
    def origin(self) -> str:
        """Scheme, host and port of the issuer."""
        return origin_of(self.issuer)

    @property
    def path(self) -> str:
        """The path of the issuer without a slash at its end; "" for none."""
        return parts_of(self.issuer).path.rstrip("/")

    def endpoint(self, name: str) -> str:
        """The URL of an endpoint as the metadata names it, `token` for example; "" when it names none."""
        return text_of(self.metadata, f"{name}_endpoint")


def look_at(wire: Wire, issuer: str, findings: Findings, progress: Callable[[str], None]) -> Server:
    """Examine the server, and add to `findings`.

    Raises:
        Unanswered: the first address does not answer, so no other one would.
    """
    server = Server(issuer=issuer)
    _look_at_issuer(server, findings)
    progress("asks for the metadata")
    answer = _find_metadata(wire, server, findings)
    if answer is None:
        return server
    _look_at_clock(answer, findings)
    _look_at_members(server, findings)
    _look_at_ways_in(server, findings)
    progress("asks for the keys")
    _look_at_keys(wire, server, findings)
    progress("asks as a browser asks")
    _look_at_http(wire, server, answer, findings)
    progress("sends what must be refused")
    _look_at_registration(wire, server, findings)
    _look_at_token_endpoint(wire, server, findings)
    _look_at_authorization_endpoint(wire, server, findings)
    return server


def is_local(url: str) -> bool:
    """Whether a URL names this computer."""
    return parts_of(url).hostname in ("localhost", "127.0.0.1", "::1")


def readable_by(answer: Answer, origin: str) -> bool:
    """Whether a page of this origin may read the answer."""
    return answer.headers.get("access-control-allow-origin", "").strip() in ("*", origin)


def preflight(wire: Wire, method: str, url: str, origin: str, names: tuple[str, ...]) -> str:
    """Send the preflight of a browser. Returns why the browser would not send the request, or "".

    Args:
        names: the headers that need a preflight, in lower case.

    Raises:
        Unanswered: there is no answer.
    """
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if names:
        asked["Access-Control-Request-Headers"] = ",".join(sorted(names))
    answer = wire.ask("OPTIONS", url, asked)
    if not 200 <= answer.status < 300:
        return f"the preflight (OPTIONS) is answered by {answer.kind}"
    if not readable_by(answer, origin):
        return "the preflight (OPTIONS) is answered without Access-Control-Allow-Origin for it"
    allowed = {
        name.strip().lower() for name in answer.headers.get("access-control-allow-headers", "").split(",")
    }
    missing = [name for name in names if name not in allowed and "*" not in allowed]
    if missing:
        return f"the preflight (OPTIONS) does not allow the header {', '.join(missing)}"
    return ""


def _look_at_issuer(server: Server, findings: Findings) -> None:
    if server.issuer.startswith("https://"):
        findings.ok("issuer-https", "the issuer is an https address")
    elif is_local(server.issuer):
        findings.warn(
            "issuer-https",
            "the issuer is an http address: on this computer most programs take it, anywhere else none does",
        )
    else:
        findings.stumble("issuer-https", "the issuer is an http address, over which tokens can be read")


def _find_metadata(wire: Wire, server: Server, findings: Findings) -> Answer | None:
    """Ask all addresses that any program asks. Returns the answer with the document."""
    # One of them twice where the issuer has no path.
    addresses = list(
        dict.fromkeys(
            (
                f"{server.origin}/.well-known/{OAUTH}{server.path}",
                f"{server.origin}/.well-known/{OPENID}{server.path}",
                f"{server.origin}{server.path}/.well-known/{OPENID}",
            )
        )
    )
    answers: dict[str, tuple[Answer | None, Json]] = {}
    for url in addresses:
        try:
            answers[url] = _ask_for_document(wire, url, findings)
        except Unanswered as error:
            if not answers and error.status is None:
                raise Unanswered(f"{url}: {error}") from None
            findings.stumble("metadata-answer", f"{url}: {error}")
            answers[url] = None, {}
    good = {url: (answer, document) for url, (answer, document) in answers.items() if answer and document}
    if not good:
        where = ", ".join(
            f"{url}: {answer.kind if answer else 'no answer'}" for url, (answer, _) in answers.items()
        )
        findings.stumble(
            "metadata-address", f"there is no metadata at any address that programs ask ({where})"
        )
        return None
    first = addresses[0]
    if first in good:
        findings.ok("metadata-address", f"the metadata is at {first}")
    else:
        findings.warn(
            "metadata-address",
            f"the metadata is at {next(iter(good))} alone; programs of OAuth ask {first} first, some of them nothing else",
        )
    url, (answer, document) = next(iter(good.items()))
    server.metadata, server.metadata_url = document, url
    for other, (_, second) in good.items():
        if differing := [name for name in ("issuer", *_URLS[:3]) if document.get(name) != second.get(name)]:
            findings.stumble(
                "metadata-agrees", f"{other} says something else than {url}: {', '.join(differing)}"
            )
    stated = text_of(document, "issuer")
    if stated == server.issuer:
        findings.ok("issuer-equal", "the metadata names the issuer exactly as it was asked for")
    else:
        findings.stumble(
            "issuer-equal",
            f"the metadata names the issuer {quoted(stated)!r}, which is not {server.issuer!r}: a program that checks "
            "it goes no further",
        )
    return answer


def _ask_for_document(wire: Wire, url: str, findings: Findings) -> tuple[Answer | None, Json]:
    """The answer and the document; findings for an answer that is neither a document nor a 404.

    Raises:
        Unanswered: there is no answer.
    """
    answer = wire.ask("GET", url, {"Accept": "application/json"})
    if answer.status == 404:
        return answer, {}
    if answer.status != 200:
        kind = (
            answer.kind
            if not answer.location
            else f"{answer.status}, a redirect to {quoted(answer.location)}"
        )
        findings.stumble(
            "metadata-missing",
            f"{url} is answered by {kind}; only after a 404 each program asks the next address",
        )
        return answer, {}
    try:
        document = answer.document()
    except NotADocument as error:
        findings.stumble(
            "metadata-missing" if answer.media_type == "text/html" else "metadata-answer",
            f"{url} is answered by {answer.kind}, but {error}; where there is no document programs need a 404",
        )
        return answer, {}
    if answer.media_type != "application/json":
        findings.warn(
            "metadata-answer",
            f"{url} is sent as {answer.media_type or 'no type at all'}, not as application/json",
        )
    return answer, document


def _look_at_clock(answer: Answer, findings: Findings) -> None:
    skew = answer.skew()
    if skew is None:
        findings.not_run("clock", "the answer has no Date, so its clock cannot be compared")
        return
    direction = "ahead of" if skew > 0 else "behind"
    told = f"the server's clock is {abs(skew):.0f} s {direction} that of this computer"
    if abs(skew) >= CLOCK_PROBLEM:
        findings.stumble("clock", f"{told}: tokens are refused as expired or not yet valid")
    elif abs(skew) >= CLOCK_WARNING:
        findings.warn("clock", f"{told}: a verifier that allows no leeway refuses new tokens")
    else:
        findings.ok("clock", "the server's clock and that of this computer agree")


def _look_at_members(server: Server, findings: Findings) -> None:
    metadata = server.metadata
    wrong = [name for name in _LISTS if name in metadata and not _is_list_of_texts(metadata[name])]
    wrong += [name for name in ("issuer", *_URLS) if name in metadata and not text_of(metadata, name)]
    wrong += [name for name in _FLAGS if name in metadata and not isinstance(metadata[name], bool)]
    for name in wrong:
        findings.stumble("metadata-member", f"{name} has the wrong type: {quoted(repr(metadata[name]))}")
    required = ("issuer", "authorization_endpoint", "token_endpoint", "response_types_supported")
    missing = [name for name in required if name not in metadata]
    if missing:
        findings.stumble(
            "metadata-member", f"members are missing that every client needs: {', '.join(missing)}"
        )
    response_types = texts_of(metadata, "response_types_supported")
    if response_types and "code" not in response_types:
        findings.stumble("metadata-member", "response_types_supported does not list code")
    if not wrong and not missing:
        findings.ok(
            "metadata-member", "the members that every client needs are there, and have the right types"
        )
    for name in _URLS:
        url = text_of(metadata, name)
        if url and not url.startswith("https://") and not (is_local(url) and is_local(server.issuer)):
            findings.stumble("endpoint-https", f"{name} is not an https address: {quoted(url)}")
    methods = texts_of(metadata, "code_challenge_methods_supported")
    if "S256" not in methods:
        findings.stumble(
            "pkce",
            "code_challenge_methods_supported does not list S256; programs of MCP go no further without it",
        )
    elif "plain" in methods:
        findings.warn("pkce", "code_challenge_methods_supported lists plain, which protects no code")
    else:
        findings.ok("pkce", "code_challenge_methods_supported lists S256")
    old = {"implicit", "password"} & set(texts_of(metadata, "grant_types_supported"))
    if old or any("token" in response_type.split() for response_type in response_types):
        names = ", ".join(sorted(old)) or "response types with token"
        findings.warn("grant-types", f"the metadata offers {names}, which OAuth 2.1 no longer has")
    if metadata.get("authorization_response_iss_parameter_supported") is True:
        findings.ok("iss-parameter", "answers to authorization requests name the issuer")
    else:
        findings.warn(
            "iss-parameter",
            "answers to authorization requests do not name the issuer, so a program that talks to several servers can "
            "take the answer of one for that of another",
        )
    auth_methods = texts_of(metadata, "token_endpoint_auth_methods_supported")
    if "none" in auth_methods:
        findings.ok("public-clients", "clients without a secret are taken")
    else:
        findings.warn(
            "public-clients",
            "token_endpoint_auth_methods_supported does not list none"
            + ("" if auth_methods else " (it is not there, which means client_secret_basic alone)")
            + ", and most programs on a device have no secret",
        )
    algorithms = texts_of(metadata, "token_endpoint_auth_signing_alg_values_supported")
    if "none" in algorithms:
        findings.stumble("signing-algorithms", "token_endpoint_auth_signing_alg_values_supported lists none")
    elif {"private_key_jwt", "client_secret_jwt"} & set(auth_methods) and not algorithms:
        findings.warn(
            "signing-algorithms",
            "an authentication method with a JWT is offered, but token_endpoint_auth_signing_alg_values_supported is missing",
        )


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def takes_documents(metadata: Json) -> bool:
    """Whether the metadata says that a client may be the address of its document (CIMD, 5)."""
    return metadata.get("client_id_metadata_document_supported") is True


def _look_at_ways_in(server: Server, findings: Findings) -> None:
    metadata = server.metadata
    documents, registration = takes_documents(metadata), has(metadata, "registration_endpoint")
    ways = [
        words
        for offered, words in (
            (documents, "by the address of a document"),
            (registration, "by registration"),
        )
        if offered
    ]
    if ways:
        findings.ok("ways-in", f"a program introduces itself {' or '.join(ways)}")
    else:
        findings.warn(
            "ways-in",
            "the metadata offers neither registration nor documents, so only programs connect that were given a client id",
        )
    if documents and "none" not in texts_of(metadata, "token_endpoint_auth_methods_supported"):
        findings.stumble(
            "documents-announced",
            "client_id_metadata_document_supported is true, but the method none is not listed: Claude, opencode and "
            "others then register instead, or give up",
        )


def _look_at_keys(wire: Wire, server: Server, findings: Findings) -> None:
    url = text_of(server.metadata, "jwks_uri")
    if not url:
        findings.warn("keys", "there is no jwks_uri, so an API can check tokens by introspection alone")
        return
    try:
        answer = wire.ask("GET", url, {"Accept": "application/json"})
        if answer.status != 200:
            findings.stumble("keys", f"{quoted(url)} is answered by {answer.kind}")
            return
        keys = answer.document().get("keys")
    except (Unanswered, NotADocument) as error:
        findings.stumble("keys", f"{quoted(url)}: {error}")
        return
    if not isinstance(keys, list) or not all(isinstance(key, dict) and text_of(key, "kty") for key in keys):
        findings.stumble("keys", f"{quoted(url)} has no list of keys, each with a kty")
        return
    if not keys:
        findings.stumble("keys", f"{quoted(url)} has no key, so no token can be verified")
        return
    findings.ok("keys", f"{counted(len(keys), 'key')} can be read: {', '.join(map(_key_words, keys[:8]))}")
    for key in keys:
        if text_of(key, "kty") == "oct" or _PRIVATE & set(key):
            findings.stumble(
                "keys", f"a private or symmetric key is published: kid {quoted(text_of(key, 'kid'))!r}"
            )
        elif text_of(key, "kty") == "RSA" and _bits(text_of(key, "n")) < SMALLEST_RSA:
            findings.stumble("key-strength", f"an RSA key has {_bits(text_of(key, 'n'))} bits")
    named = [text_of(key, "kid") for key in keys]
    if len(keys) > 1 and (len(set(named)) < len(named) or "" in named):
        findings.warn(
            "keys", "not every key has a kid of its own, so a verifier cannot tell which one to use"
        )
    if not readable_by(_with_origin(wire, url) or answer, STRANGER):
        findings.warn(
            "cross-origin", "programs in a browser cannot read the keys (Access-Control-Allow-Origin)"
        )


def _with_origin(wire: Wire, url: str) -> Answer | None:
    try:
        return wire.ask("GET", url, {"Accept": "application/json", "Origin": STRANGER})
    except Unanswered:
        return None


def _key_words(key: Mapping[str, Any]) -> str:
    size = text_of(key, "crv") or (f"{_bits(text_of(key, 'n'))} bits" if text_of(key, "n") else "")
    return quoted(" ".join(filter(None, (text_of(key, "kty"), size, text_of(key, "alg")))))


def _bits(number: str) -> int:
    """The approximate number of bits of a number in base64url."""
    return len(number) * 6 // 8 * 8


def _look_at_http(wire: Wire, server: Server, answer: Answer, findings: Findings) -> None:
    url = server.metadata_url
    try:
        head = wire.ask("HEAD", url, {"Accept": "application/json"})
        if head.status == 200:
            findings.ok("head", "HEAD is answered as GET is")
        else:
            findings.warn("head", f"HEAD is answered by {head.status}, where GET is by 200; monitors ask so")
        asked = wire.ask("GET", url, {"Accept": "application/json", "Origin": STRANGER})
        refused = preflight(wire, "GET", url, STRANGER, ("mcp-protocol-version",))
    except Unanswered as error:
        findings.warn("head", f"{url}: {error}")
        return
    if not readable_by(asked, STRANGER):
        findings.warn(
            "cross-origin", "programs in a browser cannot read the metadata (Access-Control-Allow-Origin)"
        )
    elif refused:
        findings.warn(
            "cross-origin",
            f"programs in a browser can read the metadata, but not with the header MCP-Protocol-Version: {refused}",
        )
    else:
        findings.ok("cross-origin", "programs in a browser can read the metadata")
    if asked.headers.get("access-control-allow-credentials", "").lower() == "true" and readable_by(
        asked, STRANGER
    ):
        findings.warn("cross-origin", "the metadata is readable with credentials, which it has no use for")
    seconds = _maximum_age(answer)
    if seconds is not None and seconds > CACHING_WARNING:
        findings.warn(
            "caching",
            f"the metadata may be kept for {seconds // 3600} hours, so a change reaches programs that late",
        )
    else:
        findings.ok("caching", "the metadata is not kept for longer than a day")


def _maximum_age(answer: Answer) -> int | None:
    for part in answer.headers.get("cache-control", "").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "max-age" and value.isascii() and value.isdigit() and len(value) < 12:
            return int(value)
    return None


def _look_at_registration(wire: Wire, server: Server, findings: Findings) -> None:
    """Find out whether anybody may register, with a body that cannot register a client."""
    url = server.endpoint("registration")
    if not url:
        return
    try:
        # A list does not describe a client (RFC 7591, 3.1).
        answer = wire.ask(
            "POST", url, {"Content-Type": "application/json", "Accept": "application/json"}, b"[]"
        )
    except Unanswered as error:
        findings.stumble("registration-open", f"{quoted(url)}: {error}")
        server.takes_registrations = False
        return
    if answer.location:
        findings.stumble("redirected", f"the registration endpoint redirects to {quoted(answer.location)}")
    elif answer.status in (401, 403):
        server.takes_registrations = False
        findings.warn(
            "registration-open",
            f"registration needs an initial access token ({answer.kind}), which none of the recorded programs has",
        )
    elif answer.status in (404, 405) or answer.status >= 500:
        server.takes_registrations = False
        findings.stumble("registration-open", f"the registration endpoint answers {answer.kind}")
    elif answer.status == 429:
        findings.not_run(
            "registration-open", "the server takes no more registrations from here at present (429)"
        )
    elif 400 <= answer.status < 500:
        server.takes_registrations = True
        findings.ok("registration-open", "anybody may send a registration; one that says nothing is refused")
        if answer.media_type != "application/json":
            findings.warn("registration-open", f"it refuses by {answer.kind}, where programs expect JSON")
    else:
        findings.stumble(
            "registration-open", f"a registration that is no JSON object is answered by {answer.kind}"
        )


def _look_at_token_endpoint(wire: Wire, server: Server, findings: Findings) -> None:
    url = server.endpoint("token")
    if not url:
        return
    form = {
        "grant_type": "authorization_code",
        "client_id": STRANGERS_CLIENT,
        "code": "doctor",
        "code_verifier": "d" * 43,
        "redirect_uri": STRANGERS_REDIRECT_URI,
    }
    try:
        answer = wire.ask("POST", url, _FORM, urlencode(form).encode())
        by_get = wire.ask(
            "GET", f"{url}{'&' if '?' in url else '?'}{urlencode(form)}", {"Accept": "application/json"}
        )
    except Unanswered as error:
        findings.stumble("token-refusal", f"{quoted(url)}: {error}")
        return
    if answer.location:
        findings.stumble(
            "redirected",
            f"the token endpoint redirects to {quoted(answer.location)}, and a POST does not come along",
        )
        return
    error_code = answer.error()
    if answer.status == 429:
        findings.not_run(
            "token-refusal", "the server takes no more token requests from here at present (429)"
        )
    elif answer.status in (400, 401) and error_code == "invalid_client":
        findings.ok("token-refusal", "an unknown client is refused with invalid_client, in JSON")
        if answer.status == 400:
            findings.warn(
                "token-refusal",
                "invalid_client comes with status 400; some programs register again only after 401 when their client "
                "is gone",
            )
    elif error_code:
        findings.warn(
            "token-refusal",
            f"an unknown client is refused with {quoted(error_code)} ({answer.status}), where invalid_client makes a "
            "program register again",
        )
    else:
        findings.stumble(
            "token-refusal", f"an unknown client is answered by {answer.kind}, without an error code in JSON"
        )
    if by_get.status == 200 or by_get.error() == error_code == "invalid_client":
        findings.warn("token-methods", "the token endpoint reads GET, too, so secrets end in logs")
    else:
        findings.ok("token-methods", "the token endpoint answers POST alone")


def _look_at_authorization_endpoint(wire: Wire, server: Server, findings: Findings) -> None:
    url = server.endpoint("authorization")
    if not url:
        return
    query = {
        "response_type": "code",
        "client_id": STRANGERS_CLIENT,
        "redirect_uri": STRANGERS_REDIRECT_URI,
        "state": "doctor",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    try:
        answer = wire.ask("GET", with_query(url, query), {"Accept": "text/html"}, page=True)
    except Unanswered as error:
        findings.stumble("redirect-refused", f"{quoted(url)}: {error}")
        return
    if answer.location.lower().startswith(STRANGER):
        error_code = query_of(answer.location).get("error", "no error")
        findings.stumble(
            "redirect-refused",
            f"a client that does not exist is sent to any address it names ({quoted(error_code)}): an open redirector",
        )
    elif answer.status >= 500:
        findings.stumble("redirect-refused", f"a client that does not exist is answered by {answer.kind}")
    elif answer.status == 429:
        findings.not_run("redirect-refused", "the server takes no more requests from here at present (429)")
    else:
        findings.ok(
            "redirect-refused",
            f"a client that does not exist is not redirected anywhere of its own ({answer.status})",
        )


def with_query(url: str, parameters: Mapping[str, str]) -> str:
    """A URL with these parameters added to its query."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"
