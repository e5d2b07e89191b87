"""A host on which anybody can publish: documents that describe clients, and key sets, right ones and wrong ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from authserver.fetching.addresses import Reach
from authserver.fetching.fetcher import Fetcher, Limits
from authserver.testing.origins import Authority, Reply, raw, resolving, sending, serving
from authserver.testing.service import REDIRECT_URI
from tests.client_keys import METHOD, Key

HOST = "127.0.0.1"
OTHER_URI = "https://client.example/moved"
# Documents that describe a client which can be used here.
ACCEPTED = ("document", "keyed", "remote", "changed", "drawn")
# Addresses that cannot be those of a document, by a word of what is wrong.
ODD = {"query": "/document.json?x=1", "root": "/", "dots": "/a/../document.json", "empty": "//document.json"}
# What a client document may be, that is none.
WRONG: Mapping[str, Any] = {
    "another": {"client_id": "https://client.example/client.json"},
    "secretive": {"client_secret": "s"},
    "shared": {"token_endpoint_auth_method": "client_secret_post"},
    "nameless": {"client_name": None},
    "homeless": {"redirect_uris": ["https://evil.example/cb#x"]},
    "keyless": {"token_endpoint_auth_method": METHOD},
    "unsafe": {"client_name": "a\N{RIGHT-TO-LEFT OVERRIDE}b", "logo_uri": "javascript:alert(1)"},
}
ANSWERS: Mapping[str, Reply] = {
    "missing": sending(b"", 404),
    "withdrawn": sending(b"", 410),
    "failing": sending(b"", 500),
    "busy": sending(b"", 503, Retry_After="x"),
    "forbidden": sending(b"", 403),
    "redirecting": sending(b"", 302, Location="https://evil.example/client.json"),
    "huge": sending(b'{"x":"' + b"a" * 70_000 + b'"}'),
    "page": sending(b"<html>", Content_Type="text/html"),
    "deep": sending(b"[" * 4_000),
    "empty": sending(b""),
    "text": sending(b'"\xff"'),
    "packed": sending(b"\x1f\x8b" + bytes(50), Content_Encoding="gzip"),
    "cut": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
    "garbage": raw(b"\x16\x03\x01\0\0"),
    "smuggled": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"),
}
REFUSED = (*WRONG, *ANSWERS)
# What an address may lead to that should list the redirect URIs of a client (`sector_identifier_uri`).
SECTORS: Mapping[str, list[str]] = {
    "sector": [REDIRECT_URI, OTHER_URI, "https://other.example/cb"],
    "another-sector": ["https://other.example/cb"],
}


class Documents:
    """The host. `keys` sign for the clients that it describes, by their names.

    Args:
        folder: for its certificate, which is valid longer than the fuzzing takes.
    """

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder, valid_for=timedelta(days=2))
        self._end = ExitStack()
        self._origin = self._end.enter_context(serving(authority.context(HOST, valid_for=timedelta(days=2))))
        self._origin.reply = self._reply
        self._limits = Limits(reach=Reach(loopback=True), ca_file=str(authority.ca_file))
        self._replies = {f"/{name}.json": reply for name, reply in ANSWERS.items()}
        self._members: dict[str, dict[str, Any]] = {}
        self.keys = {name: Key(kid=name) for name in ("keyed", "remote")}
        for name in (*ACCEPTED, *WRONG):
            self.publish(name)
        for name, keys in {
            "remote-keys": self.keys["remote"].jwks(),
            "private-keys": self._private(),
        }.items():
            self._replies[f"/{name}.json"] = sending(json.dumps(keys).encode())
        for name, uris in SECTORS.items():
            self._replies[f"/{name}.json"] = sending(json.dumps(uris).encode())

    def close(self) -> None:
        self._end.close()

    def url(self, name: str) -> str:
        """The address of the document of this name."""
        return f"https://{HOST}:{self._origin.port}{ODD.get(name, f'/{name}.json')}"

    def document(self, name: str, **changes: Any) -> dict[str, Any]:
        """What is published under this name at first, with these members changed; None removes one."""
        members = {
            "client_id": self.url(name),
            "client_name": f"Application {name}",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            **WRONG.get(name, {}),
        }
        if name == "keyed":
            members |= {"token_endpoint_auth_method": METHOD, "jwks": self.keys[name].jwks()}
        if name == "remote":
            members |= {"token_endpoint_auth_method": METHOD, "jwks_uri": self.url("remote-keys")}
        return {member: value for member, value in (members | changes).items() if value is not None}

    def publish(self, name: str, **changes: Any) -> None:
        """From now on it is this."""
        members = self._members[self.url(name)] = self.document(name, **changes)
        self._replies[f"/{name}.json"] = sending(json.dumps(members).encode())

    def redirect_uris(self) -> Mapping[str, list[str]]:
        """Those that each published document names, by the address of the document."""
        found = {url: members.get("redirect_uris") for url, members in self._members.items()}
        return {
            url: [uri for uri in uris if isinstance(uri, str)]
            for url, uris in found.items()
            if isinstance(uris, list)
        }

    def fetcher(self) -> Fetcher:
        """A fetcher that has fetched nothing yet, and that knows no other host."""
        return Fetcher(self._limits, resolve=resolving({}))

    def _private(self) -> dict[str, Any]:
        return {"keys": [self.keys["remote"].private.as_dict(private=True)]}

    def _reply(self, handler: BaseHTTPRequestHandler) -> None:
        self._replies.get(handler.path, sending(b"", 404))(handler)
