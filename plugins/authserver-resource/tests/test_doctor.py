"""What a stranger sees of a protected resource, by `authserver doctor`: nothing that a client would stumble over."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from waitress.server import create_server

from authserver.doctor import resource
from authserver.doctor.findings import Findings, Result
from authserver.doctor.wire import Wire
from authserver.testing.live import free_port
from authserver_resource import ProtectedResource, needs
from authserver_resource.wsgi import WsgiProtection


def test_the_challenge_the_metadata_and_the_refusals_are_as_clients_need_them() -> None:
    """RFC 6750, 3; RFC 9728, 3 and 5.1."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise AssertionError("nobody is let in")

    port = free_port()
    url = f"http://localhost:{port}/files"
    protected = ProtectedResource(url, "http://localhost:9", scopes=["files.read"], development=True)
    server = create_server(
        WsgiProtection(application, protected, needs("files.read")),
        host="127.0.0.1",
        port=port,
        clear_untrusted_proxy_headers=True,
    )
    threading.Thread(target=server.run, daemon=True).start()
    findings = Findings()
    try:
        seen = resource.look_at(Wire([url]), url, findings, lambda words: None)
    finally:
        server.close()
    assert {
        finding.check for finding in findings.found if finding.result in (Result.WARNING, Result.STUMBLES)
    } == {"resource-https"}
    assert (seen.identifier, seen.servers) == (url, ("http://localhost:9",))
    assert seen.challenge == seen.scopes == ("files.read",)
