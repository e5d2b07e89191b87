"""Tokens that are bound to a certificate of the client (RFC 8705, 3)."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from steps import let_in, refused, request

from authserver_resource import InvalidToken, MutualTls
from authserver_resource.request import of_asgi, of_wsgi, read_certificate


def certificate() -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


OURS, OTHER = certificate(), certificate()
DER = OURS.public_bytes(Encoding.DER)
PEM = OURS.public_bytes(Encoding.PEM).decode()
BOUND = {"x5t#S256": base64.urlsafe_b64encode(hashlib.sha256(DER).digest()).rstrip(b"=").decode()}
FORMS = {
    "PEM": PEM,
    "nginx": quote(PEM),
    "on one line": PEM.replace("\n", " "),
    "RFC 9440": f":{base64.b64encode(DER).decode()}:",
}


def test_the_certificate_of_the_connection_must_be_that_of_the_token(make):
    protected, issuer = make(mutual_tls=MutualTls())
    token = issuer.token(cnf=BOUND)
    assert protected.check(request(f"Bearer {token}", certificate=DER)).subject == "ann"
    for wrong in (None, OTHER.public_bytes(Encoding.DER)):
        assert isinstance(refused(protected, f"Bearer {token}", certificate=wrong), InvalidToken)
    assert let_in(protected, issuer.token()).subject == "ann"


def test_where_certificates_are_not_taken_such_tokens_are_refused(protected, issuer):
    token = issuer.token(cnf=BOUND)
    assert isinstance(refused(protected, f"Bearer {token}", certificate=DER), InvalidToken)


@pytest.mark.parametrize("form", FORMS)
def test_a_certificate_is_read_in_each_form_that_proxies_send(form):
    text = FORMS[form]
    assert read_certificate(text) == DER
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_CLIENT_CERT": text}
    assert of_wsgi(environ, certificate_header="Client-Cert").certificate == DER
    scope = {"method": "GET", "path": "/", "headers": [(b"client-cert", text.encode())]}
    assert of_asgi(scope, certificate_header="Client-Cert").certificate == DER


def test_a_header_counts_only_where_a_proxy_is_known_to_set_it():
    """Whoever sends it himself is not believed."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "HTTP_CLIENT_CERT": PEM,
        "HTTP_SSL_CLIENT_CERT": PEM,
    }
    assert of_wsgi(environ).certificate is None
    assert (
        of_asgi({"method": "GET", "path": "/", "headers": [(b"client-cert", PEM.encode())]}).certificate
        is None
    )
    two = [(b"client-cert", PEM.encode())] * 2
    assert of_asgi({"path": "/", "headers": two}, certificate_header="Client-Cert").certificate is None


def test_what_the_server_itself_knows_is_read():
    assert of_wsgi({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SSL_CLIENT_CERT": PEM}).certificate == DER
    scope = {"path": "/", "headers": [], "extensions": {"tls": {"client_cert_chain": [PEM, "issuer"]}}}
    assert of_asgi(scope).certificate == DER


@pytest.mark.parametrize(
    "text",
    ["", ":", "::", ":?:", "x", "-----BEGIN CERTIFICATE-----", ":" + "A" * 70_000 + ":", "\xff", PEM[:-40]],
)
def test_what_is_no_certificate_is_none(text):
    assert not read_certificate(text)
