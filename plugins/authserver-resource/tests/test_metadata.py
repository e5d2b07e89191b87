"""The metadata of the resource (RFC 9728)."""

from __future__ import annotations

import json

import pytest
from steps import ISSUER, METADATA, RESOURCE

from authserver_resource import Dpop, MutualTls, ProtectedResource


def test_the_metadata_say_what_clients_need(make):
    """P-10, P-11: without offline_access, which is no right here."""
    protected, _ = make(dpop=None, name="Files", documentation="https://docs.example/files")
    assert protected.metadata_url == METADATA
    assert json.loads(protected.metadata_body) == {
        "resource": RESOURCE,
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["files.read", "files.write"],
        "resource_name": "Files",
        "resource_documentation": "https://docs.example/files",
    }


def test_bindings_are_in_the_metadata(make):
    """DPOP-18."""
    protected, _ = make(dpop=Dpop(required=True, algorithms=("ES256",)), mutual_tls=MutualTls())
    assert protected.metadata["dpop_signing_alg_values_supported"] == ["ES256"]
    assert protected.metadata["dpop_bound_access_tokens_required"] is True
    assert protected.metadata["tls_client_certificate_bound_access_tokens"] is True


@pytest.mark.parametrize(
    ("identifier", "url"),
    [
        ("https://api.example", "https://api.example/.well-known/oauth-protected-resource"),
        ("https://api.example/", "https://api.example/.well-known/oauth-protected-resource"),
        ("https://api.example:8443/mcp", "https://api.example:8443/.well-known/oauth-protected-resource/mcp"),
        ("https://api.example/a/b/", "https://api.example/.well-known/oauth-protected-resource/a/b/"),
    ],
)
def test_the_well_known_segment_is_between_host_and_path(identifier, url):
    """P-10, RFC 9728, 3.1."""
    protected = ProtectedResource(identifier, "https://as.example")
    assert protected.metadata_url == url
    assert protected.metadata["resource"] == identifier
