"""Hostile servers: whatever comes back ends in a finding or in a sentence, within bounds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from authserver.doctor.examination import Unreachable
from authserver.doctor.findings import Result
from authserver.doctor.reading import MAXIMUM_QUOTED, page_text, quoted, text_of, texts_of
from authserver.doctor.recordings import NAMES
from authserver.doctor.wire import NotADocument, Unanswered, Wire
from authserver.testing.origins import Authority, Origin, Reply, dripping, raw, sending, serving
from tests.doctor.conftest import Other, found, looked_at

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
HOSTILE: dict[str, Reply] = {
    "endless": dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"),
    "endless headers": dripping(HEAD, b"X-More: 1\r\n", seconds=0.01),
    "huge": sending(b'{"issuer": "' + b"x" * 1_000_000 + b'"}'),
    "compressed": sending(b"\x1f\x8b", Content_Encoding="gzip"),
    "nothing": raw(b""),
    "not HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "cut": raw(HEAD + b"Content-Length: 100\r\n\r\n{"),
    "two lengths": raw(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"),
    "deep": sending(b"[" * 5000),
    "numbers": sending(b'{"issuer": 1e999}'),
    "lone surrogates": sending(b'{"issuer": "\\ud800"}'),
    "bytes": sending(b"\xff\xfe\x00"),
    "null": sending(b"null"),
    "redirects to itself": sending(status=302, Location="/.well-known/oauth-authorization-server"),
    "redirects to nowhere": sending(status=301, Location="http://[::1"),
    "redirects without an address": sending(status=307),
    "100 and nothing": raw(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a status of its own": raw(b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n"),
    "every member of another type": sending(
        b'{"issuer": 1, "authorization_endpoint": [], "token_endpoint": {}, "registration_endpoint": true, "jwks_uri": 7,'
        b'"scopes_supported": "x", "response_types_supported": {"code": 1}, "code_challenge_methods_supported": [["S256"]],'
        b'"token_endpoint_auth_methods_supported": [null], "client_id_metadata_document_supported": "true"}'
    ),
    "endpoints that are no URLs": sending(
        b'{"issuer": "x", "authorization_endpoint": "javascript:alert(1)", "token_endpoint": "http://[", "jwks_uri": "//x",'
        b'"registration_endpoint": "http://x:99999/", "response_types_supported": ["code"],'
        b'"code_challenge_methods_supported": ["S256"], "client_id_metadata_document_supported": true,'
        b'"token_endpoint_auth_methods_supported": ["none"]}'
    ),
}


@pytest.fixture
def origin() -> Iterator[Origin]:
    with serving() as origin:
        yield origin


def issuer(origin: Origin) -> str:
    return f"http://127.0.0.1:{origin.port}"


def result_of(*programs: str, seconds: float = 0.3, **options: Any) -> Result | str:
    """The result, or why nothing was reached."""
    try:
        return looked_at(None, *programs, seconds=seconds, **options).result
    except Unreachable as error:
        return str(error)


@pytest.mark.parametrize("reply", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_answer_ends_in_words(origin: Origin, reply: Reply) -> None:
    """Programs meet it too, and with the permission to register."""
    origin.reply = reply
    began = time.monotonic()
    result = result_of("claude", "inspector-in-the-browser", issuer=issuer(origin), register=True)
    assert result is Result.STUMBLES or issuer(origin) in result
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("reply", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_resource_ends_in_words(origin: Origin, reply: Reply) -> None:
    origin.reply = reply
    assert result_of(resource=f"{issuer(origin)}/mcp", seconds=0.2) is not Result.OK


def test_a_hostile_challenge_ends_in_words(origin: Origin) -> None:
    origin.reply = sending(status=401, WWW_Authenticate="Bearer " + 'a="' * 2000)
    assert result_of(resource=f"{issuer(origin)}/mcp") is Result.STUMBLES


def test_terminal_escapes_are_quoted_shortly() -> None:
    assert len(quoted("a\n\x1b[2J" * 1000)) == MAXIMUM_QUOTED
    assert "\n" not in quoted("a\n b\r\n c")
    hidden = b"<title>T</title><script>invalid_client</script><p>invalid_grant &lt;b&gt;</p>"
    assert page_text(hidden) == "T: invalid_grant <b>"
    assert page_text(b"<h1></h1>plain \xff words") == "plain \ufffd words"
    assert page_text(b"") == ""
    assert page_text(b"1 < 2 &amp; 3") == "1 < 2 & 3"
    assert page_text(b"<title>T</title><h1 class=a>No <b>way</b></h1><p>client_id") == "No way: client_id"


@pytest.mark.parametrize("part", [b"<script", b"<script>", b"<h1>", b"<h1", b"<", b"<h1></h1 "])
def test_no_page_takes_long_to_read(part: bytes) -> None:
    """A stranger chooses it: reading it anew from each of its tags would take half a minute."""
    began = time.process_time()
    page_text((part * 65_536)[:65_536])
    assert time.process_time() - began < 2


@pytest.mark.parametrize("value", [None, 1, True, [], {}, ["x", 1], {"x": "y"}])
def test_members_of_another_type_are_as_good_as_absent(value: Any) -> None:
    assert text_of({"member": value}, "member") == ""
    assert texts_of({"member": value}, "member") == ()


# ---- where requests may lead ----------------------------------------------------------------------------


def test_a_server_in_the_internet_leads_nobody_into_this_network() -> None:
    """SSRF: the names are those of a document; what the operator named may be anywhere."""
    places = {
        "login.example.com": "127.0.0.1",
        "api.internal": "10.0.0.1",
        "cloud.internal": "169.254.169.254",
    }
    wire = Wire(["https://public.example"], seconds=1, resolve=lambda host, port: [places[host]])
    for host in places:
        with pytest.raises(Unanswered, match="another network"):
            wire.ask("GET", f"http://{host}/")


def test_a_server_on_this_computer_may_name_others_here(origin: Origin) -> None:
    """Tests of a developer: server and API on loopback ports; the metadata service of a cloud is refused all the same."""
    places = {"localhost": "127.0.0.1", "also.localhost": "127.0.0.1", "cloud.internal": "169.254.169.254"}
    wire = Wire(["http://localhost"], seconds=1, resolve=lambda host, port: [places[host]])
    assert wire.ask("GET", f"http://localhost:{origin.port}/").status == 200
    assert wire.ask("GET", f"http://also.localhost:{origin.port}/").status == 200
    with pytest.raises(Unanswered, match="another network"):
        wire.ask("GET", "http://cloud.internal/")


def test_an_endpoint_in_another_network_is_a_finding(other: Other) -> None:
    other.metadata["jwks_uri"] = "http://169.254.169.254/latest/meta-data"
    (said,) = found(looked_at(other), "keys", Result.STUMBLES)
    assert "another network" in said.what


@pytest.mark.parametrize(
    "url", ["", "x", "file:///etc/passwd", "https://", "https://u:p@host/", "https://host\\@evil/", "https://host/ä", "https://host/\r\nX: 1", "https://h/" + "a" * 9000]
)  # fmt: skip
def test_what_is_no_address_is_not_asked(url: str) -> None:
    with pytest.raises(Unanswered, match="it is"):
        Wire([]).ask("GET", url)


# ---- TLS in words ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_tls_problems_are_explained(authority: Authority, tmp_path: Path) -> None:
    cases = {
        "has expired": (authority.context("localhost", valid_for=timedelta(hours=-1)), True),
        "for another host name": (authority.context("login.example.com"), True),
        "an authority that is not trusted here": (authority.context("localhost"), False),
    }
    for words, (context, trusted) in cases.items():
        with serving(context) as origin:
            ca_file = str(authority.ca_file) if trusted else ""
            with pytest.raises(Unreachable, match=words):
                looked_at(issuer=f"https://localhost:{origin.port}", ca_file=ca_file)
    with serving() as origin, pytest.raises(Unreachable, match="a port for http"):
        looked_at(issuer=f"https://localhost:{origin.port}")


def test_a_trusted_certificate_is_taken(authority: Authority) -> None:
    with serving(authority.context("localhost")) as origin:
        answer = Wire([f"https://localhost:{origin.port}"], ca_file=str(authority.ca_file)).ask(
            "GET", f"https://localhost:{origin.port}/"
        )
    assert answer.document() == {}


def test_what_is_no_document_says_why(origin: Origin) -> None:
    origin.reply = sending(b"[]")
    answer = Wire([issuer(origin)]).ask("GET", f"{issuer(origin)}/")
    with pytest.raises(NotADocument, match="not an object"):
        answer.document()
    assert answer.error() == ""


def test_every_program_is_recorded() -> None:
    assert len(NAMES) >= 22
