"""URIs: which of them may be registered, when two of them are equal, and how parameters are added.

The text decides, never the result of a parser, because each parser drops and changes characters in another way. A URI
must match a narrow ASCII grammar of RFC 3986, which browsers and Python read in the same way. Then it is compared code
point by code point.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_plus, urlencode

from authserver.engine.errors import InvalidTarget
from authserver.limits import MAXIMUM_ORIGIN, MAXIMUM_URI
from authserver.settings import LOOPBACK_HOSTS

_DEFAULT_PORTS = {"http": "80", "https": "443"}
# The parameters that this server adds to a redirect URI, which must not have them already (OAuth 2.1, 4.1.2).
_RESPONSE_PARAMETERS = frozenset(
    {"code", "state", "iss", "error", "error_description", "error_uri", "response", "id_token"}
)
# Schemes that a browser or a system handles itself: no application owns them, so none is private-use.
_NEVER_PRIVATE_USE = frozenset(
    {"about", "blob", "chrome", "content", "data", "file", "filesystem", "ftp", "intent", "jar", "javascript",
     "mailto", "ms-msdt", "resource", "search-ms", "sms", "tel", "urn", "vbscript", "view-source", "ws", "wss"}
)  # fmt: skip

_PORT = r"[1-9][0-9]{0,4}"
# The characters of the grammar without three: browsers rewrite `'`, some parsers cut a path at `;` (a query may have
# it), and `*` must not look like a wildcard.
_CHARACTER = r"(?:[A-Za-z0-9._~!$&()+,=:@-]|%[0-9A-Fa-f]{2})"
_PATH_AND_QUERY = rf"((?:/{_CHARACTER}*)*)(?:\?((?:{_CHARACTER}|[/?;])+))?"
_WEB = re.compile(rf"(https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?::({_PORT}))?{_PATH_AND_QUERY}")
# With one slash, or with two and any text of the application in the place of a host.
_PRIVATE_USE = re.compile(
    rf"([a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)*):(?:(?=/(?!/))|//[A-Za-z0-9._-]+(?::{_PORT})?){_PATH_AND_QUERY}"
)
_APPLICATION_ORIGIN = re.compile(rf"[a-z][a-z0-9+.-]*://[A-Za-z0-9._-]+(?::{_PORT})?")
_LOOPBACK_HOST = "|".join(map(re.escape, sorted(LOOPBACK_HOSTS)))
_LOOPBACK = re.compile(rf"http://({_LOOPBACK_HOST})(?::({_PORT}))?((?:[/?].*)?)", re.DOTALL)

_NOT_ALLOWED = re.compile(r"[^\x21-\x7E]|[\\\"'<>^`{|}]|%(?![0-9A-Fa-f]{2})")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_USERINFO = re.compile(r"[^/?#]*//[^/?#]*@")
_DOT_SEGMENT = re.compile(r"/\.{1,2}(?:/|$)")
# An encoded dot, slash, backslash, percent sign (that is double encoding) or control character.
_DISGUISED = re.compile(r"%(?:[01][0-9A-F]|7F|2[5EF]|5C)", re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_RESOURCE_CHARACTER = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_RESOURCE = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*):"
    rf"(?://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:{_PORT})?((?:/{_RESOURCE_CHARACTER}*)*)"
    rf"|(?!//)((?:{_RESOURCE_CHARACTER}|/)+))"
    rf"(\?(?:{_RESOURCE_CHARACTER}|[/?])*)?"
)


class _Web(NamedTuple):
    """An http or https URI of our grammar, its host in lower case; `port` is "" when it names none."""

    scheme: str
    host: str
    port: str
    path: str
    query: str


class _PrivateUse(NamedTuple):
    """A URI of our grammar with any other scheme."""

    scheme: str
    path: str
    query: str


def malformed(uri: str) -> str | None:
    """Why this URI can never be a redirect URI, under any policy; a fixed sentence, or None if it can be one."""
    if problem := _text_problem(uri):
        return problem
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return "It must be an absolute URI with a scheme."
    parsed = _web(uri) or _private_use(uri)
    if parsed is None and scheme[1].lower() in _DEFAULT_PORTS:
        return "It must be a complete URI with a valid host."
    if parsed is None:
        return (
            "It must use https, http to a loopback host, or a private-use scheme in lower case with a slash, "
            "such as com.example.app:/callback."
        )
    return _path_problem(parsed.path)


def redirect_uri_problem(
    uri: str, *, application_type: str | None = None, private_use: Collection[str] = ()
) -> str | None:
    """Why this redirect URI may not be registered, as a fixed sentence, or None when it may.

    Allowed are https, http to a loopback host, and a private-use scheme with a period (RFC 8252, 7). Without
    a period the owner of a scheme is unknown: then the complete URI must be one of `private_use`, which the
    operator allows. A `web` application must have https and a host that is not loopback (OIDC Registration, 2);
    `native` and None need not.
    """
    if problem := malformed(uri):
        return problem
    web, private = _web(uri), _private_use(uri)
    if web and web.scheme == "http" and web.host not in LOOPBACK_HOSTS:
        return "It must use https unless its host is 127.0.0.1, [::1] or localhost."
    if private and private.scheme in _NEVER_PRIVATE_USE:
        return "It must not have a scheme that browsers or systems handle themselves."
    if needs_permission(uri) and uri not in private_use:
        return (
            "A private-use scheme must have a period, as in com.example.app:/callback, "
            "unless the operator allows this complete URI."
        )
    if application_type == "web" and not is_remote_https(uri):
        return (
            "A web application must use https and a host that is not loopback; "
            "leave application_type (--application-type) out, or make it native."
        )
    parsed = web or private
    return _query_problem(parsed.query) if parsed else None


def needs_permission(uri: str) -> bool:
    """Whether it has a private-use scheme without a period, so that only an operator can allow it."""
    private = _private_use(uri)
    return private is not None and "." not in private.scheme and private.scheme not in _NEVER_PRIVATE_USE


def fitting_application_type(redirect_uris: Iterable[str]) -> str:
    """`web`, unless a redirect URI is one that only a native app can have (OIDC Registration, 2)."""
    return "web" if all(map(is_remote_https, redirect_uris)) else "native"


def same_loopback_redirect_uri(registered: str, requested: str, hosts: Collection[str]) -> bool:
    """Whether they are equal except for the port of a loopback host in `hosts` (RFC 8252, 7.3).

    Only http; the host is the registered one literally: localhost is not 127.0.0.1.
    """
    ours, theirs = _LOOPBACK.fullmatch(registered), _LOOPBACK.fullmatch(requested)
    if ours is None or theirs is None:
        return False
    return (
        ours[1] in hosts and ours[1] == theirs[1] and int(theirs[2] or "80") <= 65535 and ours[3] == theirs[3]
    )


def at_loopback_port(uri: str, port: int) -> str | None:
    """The same URI with this port, if it is an http URI of a loopback host that names none; else None."""
    found = _LOOPBACK.fullmatch(uri)
    return f"http://{found[1]}:{port}{found[3]}" if found and not found[2] else None


def is_loopback(uri: str) -> bool:
    """Whether it is an http or https URI of 127.0.0.1, [::1] or localhost."""
    web = _web(uri)
    return web is not None and web.host in LOOPBACK_HOSTS


def is_web(uri: str) -> bool:
    """Whether it is a well-formed http or https URI, to which a browser can send a form."""
    return _web(uri) is not None


def is_remote_https(uri: str) -> bool:
    """Whether it is a well-formed https URI that leads to another machine."""
    web = _web(uri)
    return web is not None and web.scheme == "https" and not _stays_on_the_device(web.host)


def display_host(uri: str) -> str:
    """The destination to show to a person: the host in lower case, or the private-use scheme; "" if there is neither."""
    if web := _web(uri):
        return web.host
    private = _private_use(uri)
    return private.scheme if private else ""


def origin(uri: str) -> str | None:
    """The web origin (RFC 6454) of an http or https URI, or None. A loopback origin has no port."""
    web = _web(uri)
    if web is None:
        return None
    implied = web.host in LOOPBACK_HOSTS or web.port == _DEFAULT_PORTS[web.scheme]
    port = "" if implied or not web.port else f":{web.port}"
    return f"{web.scheme}://{web.host}{port}"


def form_target(uri: str) -> str:
    """The source expression that allows a form only the origin of an http or https URI (CSP 3, 2.3.1); else 'none'.

    Unlike `origin` it has the port of a loopback host, because browsers compare that, too.
    """
    web = _web(uri)
    if web is None:
        return "'none'"
    return f"{web.scheme}://{web.host}{f':{web.port}' if web.port else ''}"


def origin_problem(text: str) -> str | None:
    """Why this cannot be the origin of a program that may read answers, as a fixed sentence, or None when it can.

    It must be written as browsers send it (RFC 6454, 6.1), with https, http to a loopback host, or the scheme of one
    browser's extensions or of an application.
    """
    if text == "*":
        return "It would allow every page of the web; name each origin."
    if text == "null":
        return "Every sandboxed page and every local file sends it, so it names nobody."
    if len(text) > MAXIMUM_ORIGIN:
        return f"It is longer than {MAXIMUM_ORIGIN} characters."
    scheme = _SCHEME.match(text)
    if scheme is not None and scheme[1] in _NEVER_PRIVATE_USE:
        return "It has a scheme that browsers or systems handle themselves, so it names no application."
    web = _web(text)
    if web is None:
        if scheme is not None and scheme[1] not in _DEFAULT_PORTS and _APPLICATION_ORIGIN.fullmatch(text):
            return None
        return "It must be a scheme, :// and a host, and no more, such as https://app.example.com."
    port = f":{web.port}" if web.port and web.port != _DEFAULT_PORTS[web.scheme] else ""
    if text != f"{web.scheme}://{web.host}{port}":
        return (
            "It must be as browsers send it: host in lower case, no port that the scheme implies, no path, and nothing "
            "after it."
        )
    if web.scheme == "http" and web.host not in LOOPBACK_HOSTS:
        return "It must use https unless its host is 127.0.0.1, [::1] or localhost."
    return None


# A request compares its few resources several times.
@lru_cache(maxsize=256)
def canonical_resource(uri: str) -> str:
    """The form in which resources are compared: scheme and host in lower case, an empty path as `/`.

    Everything else counts as written. Raises InvalidTarget when it is not an absolute URI, or has
    a fragment or user name (RFC 8707, 2).
    """
    found = _RESOURCE.fullmatch(uri) if len(uri) <= MAXIMUM_URI else None
    if found is None:
        raise InvalidTarget("resource must be an absolute URI without a fragment")
    scheme, host, port, path, opaque, query = found.groups(default="")
    if not host:
        if scheme.lower() in _DEFAULT_PORTS:
            raise InvalidTarget("resource must be an absolute URI without a fragment")
        return f"{scheme.lower()}:{opaque}{query}"
    return f"{scheme.lower()}://{host.lower()}{port}{path or '/'}{query}"


def resource_form(text: str) -> str:
    """The canonical form of a resource; the text itself if it is not a resource, as for a grant type of a plugin."""
    try:
        return canonical_resource(text)
    except InvalidTarget:
        return text


def with_query(uri: str, parameters: Iterable[tuple[str, str]]) -> str:
    """The URI with these parameters after whatever query it has (OAuth 2.1, 2.3)."""
    added = urlencode(list(parameters), quote_via=quote, safe="")
    if not added:
        return uri
    separator = "" if uri.endswith(("?", "&")) else "&" if "?" in uri else "?"
    return f"{uri}{separator}{added}"


def without_response(location: str) -> tuple[str, dict[str, str]]:
    """The redirect URI, and the response that `with_query` added to it; no redirect URI has such parameters itself."""
    uri, _, query = location.partition("?")
    own, response = [], {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name in _RESPONSE_PARAMETERS:
            response[name] = unquote(value)
        else:
            own.append(pair)
    rest = "&".join(own)
    return (f"{uri}?{rest}" if rest else uri), response


def link_problem(uri: str) -> str | None:
    """Why a page of this server may not link to this `client_uri`, `logo_uri`, `tos_uri` or `policy_uri`, or None."""
    if problem := _text_problem(uri):
        return problem
    web = _web(uri)
    if web is None or web.scheme != "https":
        return "It must be a complete https URI with a valid host."
    return _path_problem(web.path)


def fetched_problem(uri: str) -> str | None:
    """Why this cannot be the address of a document that a client names, as a fixed sentence, or None when it can.

    http is only for loopback hosts; `authserver.fetch_loopback` decides whether anything is fetched from them.
    """
    is_local = uri.startswith("http:") and is_loopback(uri)
    return link_problem(f"https:{uri[5:]}" if is_local else uri)


def _text_problem(uri: str) -> str | None:
    if len(uri) > MAXIMUM_URI:
        return f"It must have at most {MAXIMUM_URI} characters."
    if _NOT_ALLOWED.search(uri):
        return "It must hold only characters that a URI may hold; others are percent-encoded."
    if "#" in uri:
        return "It must not have a fragment."
    if "*" in uri:
        return "It must not have a wildcard: there is no pattern matching."
    if _USERINFO.match(uri):
        return "It must not have a user name or password."
    if ";" in uri.partition("?")[0]:
        return "It must not have a semicolon in its path."
    return None


def _path_problem(path: str) -> str | None:
    if _DOT_SEGMENT.search(path):
        return "It must not have dot segments in its path."
    if _DISGUISED.search(path):
        return "It must not have an encoded dot, slash, backslash, percent sign or control character in its path."
    return None


def _query_problem(query: str) -> str | None:
    names = {unquote_plus(pair.partition("=")[0]) for pair in re.split("[&;]", query)}
    if names & _RESPONSE_PARAMETERS:
        return "It must not have a parameter of the authorization response in its query."
    return None


def _web(uri: str) -> _Web | None:
    found = _WEB.fullmatch(uri) if len(uri) <= MAXIMUM_URI else None
    if found is None:
        return None
    scheme, host, port, path, query = found.groups(default="")
    web = _Web(scheme, host.lower(), port, path, query)
    return web if _is_host(web.host) and int(port or "1") <= 65535 else None


def _private_use(uri: str) -> _PrivateUse | None:
    found = _PRIVATE_USE.fullmatch(uri) if len(uri) <= MAXIMUM_URI else None
    private = _PrivateUse(*found.groups(default="")) if found else None
    return None if private is None or private.scheme in _DEFAULT_PORTS else private


def _is_host(host: str) -> bool:
    """Whether every parser takes this host for the same one: DNS labels, or one spelling of an address."""
    if host.startswith("["):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return address.ipv4_mapped is None and str(address) == host[1:-1]
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # browsers read this as an IPv4 address in some spelling
        try:
            return str(ipaddress.IPv4Address(host)) == host
        except ValueError:
            return False
    return len(host) <= 253 and all(map(_LABEL.fullmatch, labels))


def _stays_on_the_device(host: str) -> bool:
    if host in LOOPBACK_HOSTS or host.endswith(".localhost"):
        return True
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None and host.startswith("127.")
