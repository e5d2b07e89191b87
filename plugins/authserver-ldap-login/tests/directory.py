"""A real slapd with a few people in it, for as long as a test runs."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ldap3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ldap3.core.exceptions import LDAPSocketOpenError

# Debian keeps it where only root's PATH looks.
SLAPD = shutil.which("slapd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/libexec")
SUFFIX = "dc=example,dc=com"
PEOPLE = f"ou=people,{SUFFIX}"
GROUP = f"cn=staff,{SUFFIX}"
GROUPS = f"ou=groups,{SUFFIX}"
SERVICE = f"cn=authserver,{SUFFIX}"
SERVICE_PASSWORD = "the password of the account that searches"
START_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A running slapd: its plain address, its TLS address, and the certificate to trust."""

    url: str
    tls_url: str
    ca_file: str
    process: subprocess.Popen[bytes]


@contextmanager
def running(folder: Path) -> Iterator[Directory]:
    """Start slapd on free loopback ports with a database in this folder."""
    assert SLAPD is not None
    (folder / "database").mkdir()
    ca_file, key_file = make_certificate(folder)
    port, tls_port = free_ports(2)
    url, tls_url = f"ldap://127.0.0.1:{port}", f"ldaps://127.0.0.1:{tls_port}"
    configuration = folder / "slapd.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, certificate=ca_file, key=key_file))
    log = folder / "slapd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            # -d keeps it in the foreground, a child of ours.
            [SLAPD, "-h", f"{url} {tls_url}", "-f", str(configuration), "-d", "0"],
            stdout=output,
            stderr=output,
        )
    try:
        fill(url, process, log)
        yield Directory(url=url, tls_url=tls_url, ca_file=str(ca_file), process=process)
    finally:
        process.terminate()
        process.wait(timeout=20)


def fill(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until it answers, and add the people."""
    deadline = time.monotonic() + START_SECONDS
    server = ldap3.Server(url, get_info=ldap3.NONE)
    while True:
        root = ldap3.Connection(server, f"cn=root,{SUFFIX}", "root", raise_exceptions=True)
        try:
            root.bind()
            break
        except LDAPSocketOpenError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    for dn, attributes in ENTRIES.items():
        root.add(f"{dn},{SUFFIX}" if dn else SUFFIX, attributes=attributes)
    root.unbind()


def make_certificate(folder: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate that signs itself, for this address, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "directory")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for listener in sockets:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def hashed(password: str) -> str:
    """A password as slapd keeps it."""
    salt = b"salt"
    return "{SSHA}" + base64.b64encode(hashlib.sha1(password.encode() + salt).digest() + salt).decode()


def person(uid: str, name: str, password: str, **more: list[str]) -> dict[str, list[str]]:
    return {
        "objectClass": ["inetOrgPerson"],
        "uid": [uid],
        "cn": [name],
        "sn": [name.rpartition(" ")[2]],
        "userPassword": [hashed(password)],
        **more,
    }


def without(attribute: str, entry: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: values for name, values in entry.items() if name != attribute}


ENTRIES: dict[str, dict[str, list[str]]] = {
    "": {"objectClass": ["dcObject", "organization"], "o": ["Example"], "dc": ["example"]},
    "cn=authserver": {
        "objectClass": ["organizationalRole", "simpleSecurityObject"],
        "userPassword": [hashed(SERVICE_PASSWORD)],
    },
    "ou=people": {"objectClass": ["organizationalUnit"]},
    "uid=ann,ou=people": person(
        "ann", "Ann Lee", "ann's password", mail=["ann@example.com", "lee@example.com"]
    ),
    # Characters that mean something in a DN and in a filter.
    r"cn=Bo\, (the) B*b\\,ou=people": person("bob", "Bo, (the) B*b\\", "bob's password"),
    "uid=cid,ou=people": person("cid", "Cid Moe", "cid's password", mail=["twin@example.com"]),
    "uid=dan,ou=people": person("dan", "Dan Moe", "dan's password", mail=["twin@example.com"]),
    "uid=eve,ou=people": person("eve", "Eve Moe", "eve's password") | {"uid": ["eve", "adam"]},
    "uid=fay,ou=people": without("userPassword", person("fay", "Fay Moe", "")),
    "cn=gus,ou=people": without("uid", person("", "gus", "gus's password", mail=["gus@example.com"])),
    "uid=jørgen,ou=people": person("jørgen", "Jørgen Ås", "pässword 中"),
    # Names as directories have them.
    r"uid=CORP\\ivy,ou=people": person("CORP\\ivy", "Ivy Moe", "ivy's password"),
    "uid=o'brien@example.com,ou=people": person("o'brien@example.com", "Jo O'Brien", "jo's password"),
    "uid=svc$,ou=people": person("svc$", "A service", "svc's password"),
    "cn=staff": {
        "objectClass": ["groupOfNames"],
        "member": [f"uid=ann,{PEOPLE}", rf"cn=Bo\, (the) B*b\\,{PEOPLE}"],
    },
    "ou=groups": {"objectClass": ["organizationalUnit"]},
    "cn=finance,ou=groups": {"objectClass": ["groupOfNames"], "member": [f"uid=ann,{PEOPLE}"]},
    "cn=R&D (Bergen),ou=groups": {
        "objectClass": ["groupOfNames"],
        "member": [f"uid=ann,{PEOPLE}", f"uid=cid,{PEOPLE}"],
    },
    "cn=empty,ou=groups": {"objectClass": ["groupOfNames"], "member": [f"cn=nobody,{SUFFIX}"]},
}

CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
# As careless as some are: a bind with a name and no password succeeds.
allow bind_anon_cred bind_anon_dn
# Where it sends whoever asks for what is not its own.
referral ldap://127.0.0.1:1
database mdb
suffix "dc=example,dc=com"
directory {folder}/database
rootdn "cn=root,dc=example,dc=com"
rootpw root
# Passwords are for binding alone, and only the service account reads the rest.
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=authserver,dc=example,dc=com" read by anonymous auth by * none
"""
