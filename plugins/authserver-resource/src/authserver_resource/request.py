"""The parts of a request that matter for its access, read from WSGI or ASGI."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

# A client certificate in a header, with all of its chain, is shorter.
MAXIMUM_CERTIFICATE = 65_536
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a request that matter for its access.

    Attributes:
        method: the HTTP method.
        path: percent-encoded, without query: a token in the query is never seen (OAuth 2.1, 5.1).
        authorization: every `Authorization` header.
        dpop: every `DPoP` header.
        certificate: the client's, in DER, or None.
    """

    method: str
    path: str
    authorization: tuple[str, ...] = field(default=(), repr=False)
    dpop: tuple[str, ...] = field(default=(), repr=False)
    certificate: bytes | None = field(default=None, repr=False)


def of_wsgi(environ: Mapping[str, Any], *, certificate_header: str = "") -> Request:
    """A request of WSGI (PEP 3333), also of Django, Flask and Pyramid.

    Args:
        certificate_header: in which a proxy puts the client's certificate; "" reads what the server knows itself.
    """
    # WSGI's texts are bytes, decoded as Latin-1.
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1", "replace")
    if certificate_header:
        text = environ.get("HTTP_" + certificate_header.upper().replace("-", "_"), "")
    else:
        text = environ.get("SSL_CLIENT_CERT", "")
    return Request(
        environ["REQUEST_METHOD"],
        quote(path, safe="/"),
        _given(environ.get("HTTP_AUTHORIZATION")),
        _given(environ.get("HTTP_DPOP")),
        read_certificate(text),
    )


def of_asgi(scope: Mapping[str, Any], *, certificate_header: str = "") -> Request:
    """A request of ASGI (HTTP connection scope), also of Starlette and FastAPI.

    Args:
        certificate_header: in which a proxy puts the client's certificate; "" reads what the server knows itself.
    """
    authorization: tuple[str, ...] = ()
    dpop: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    sought = certificate_header.lower().encode()
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization += (value.decode("latin-1"),)
        elif name == b"dpop":
            dpop += (value.decode("latin-1"),)
        elif sought and name == sought:
            certificates += (value.decode("latin-1"),)
    if not sought:
        tls = (scope.get("extensions") or {}).get("tls") or {}
        certificates = tuple(tls.get("client_cert_chain") or ())[:1]
    return Request(
        # A WebSocket begins as GET (RFC 6455, 4.1).
        scope.get("method", "GET"),
        quote(scope["path"], safe="/"),
        authorization,
        dpop,
        read_certificate(certificates[0]) if len(certificates) == 1 else None,
    )


def read_certificate(text: str) -> bytes | None:
    """A certificate in DER, from PEM, percent-encoded PEM, or the form of RFC 9440 (`:base64:`).

    None if there is none that can be read: a token that is bound to one is refused then.
    """
    if not text or len(text) > MAXIMUM_CERTIFICATE:
        return None
    try:
        if text[0] == ":" == text[-1] and len(text) > 2:
            return base64.b64decode(text[1:-1], validate=True)
        found = _PEM.search(unquote(text))
        return base64.b64decode("".join(found[1].split()), validate=True) if found else None
    except (binascii.Error, ValueError):
        return None


def _given(header: str | None) -> tuple[str, ...]:
    return () if header is None else (header,)
