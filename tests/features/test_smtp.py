"""The plugin `smtp_mail`: against real mail servers on loopback, with TLS and without."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from authserver.api import Mail, MailFailed, Secret
from authserver.features.smtp import SmtpMail, Tls
from authserver.settings import SettingsError
from authserver.testing.origins import Authority
from authserver.testing.server import Server, with_plugin
from tests.mail_servers import PASSWORD, USERNAME, MailServer, mail_server, raw_server

SENDER = "sign-in@server.example"
SECRET = "as_link_SECRET"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def plain() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


def a_mail(**changes: Any) -> Mail:
    values = {
        "recipient": "ann@people.example",
        "subject": "Set a new password",
        "text": f"Hello,\n\nhttps://server.example/set-password#{SECRET}\n",
        "language": "en",
    }
    return Mail(**(values | changes))


def plugin(port: int, **changes: Any) -> SmtpMail:
    values: dict[str, Any] = {
        "host": "localhost",
        "sender": SENDER,
        "tls": Tls.NONE,
        "port": port,
        "timeout": 5.0,
    }
    made = SmtpMail(**(values | changes))
    made.prepare()
    return made


def text_of(message: EmailMessage) -> str:
    """Its lines end as in Python, not as in mail."""
    return str(message.get_content()).replace("\r\n", "\n")


def failure(made: SmtpMail, mail: Mail | None = None) -> MailFailed:
    with pytest.raises(MailFailed) as caught:
        made.send_mail(mail or a_mail())
    assert SECRET not in str(caught.value) and PASSWORD not in str(caught.value)
    return caught.value


def test_a_mail_arrives_as_it_was_written(plain: MailServer) -> None:
    """RFC 5322, RFC 3834, 5: no program answers it."""
    mail = a_mail(
        subject="Passwort für Ännchen 🗝", text="Grüße, Ännchen\n" + "x" * 2000 + "\n", language="de"
    )
    assert plugin(plain.port, sender_name='Anmeldung; "Beispiel"').send_mail(mail) is True
    (message,) = plain.messages()
    assert message["From"].addresses == (Address('Anmeldung; "Beispiel"', addr_spec=SENDER),)
    assert (message["To"], message["Subject"], message["Content-Language"]) == (
        mail.recipient,
        mail.subject,
        "de",
    )
    assert message["Auto-Submitted"] == "auto-generated" and message["Message-ID"] and message["Date"]
    assert message.get_content_type() == "text/plain" and text_of(message) == mail.text
    (envelope,) = plain.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == (SENDER, [mail.recipient])


@pytest.mark.parametrize("implicit", [True, False])
def test_over_tls_it_signs_in_and_sends(authority: Authority, implicit: bool) -> None:
    """RFC 8314 and RFC 3207: what the server asks for before a mail."""
    certificate = authority.certificate("localhost")
    with mail_server(certificate, implicit=implicit, asks_password=True) as server:
        made = plugin(
            server.port,
            tls=Tls.IMPLICIT if implicit else Tls.STARTTLS,
            ca_file=str(authority.ca_file),
            username=USERNAME,
            password=Secret(PASSWORD),
        )
        assert made.send_mail(a_mail()) is True
        assert server.signed_in == [True]


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("wrong", ["name", "expired", "unknown authority"])
def test_a_certificate_that_is_not_right_gets_neither_mail_nor_password(
    authority: Authority, wrong: str, implicit: bool
) -> None:
    """R-13."""
    host = "elsewhere.example" if wrong == "name" else "localhost"
    lasts = timedelta(hours=-1) if wrong == "expired" else timedelta(days=1)
    with mail_server(authority.certificate(host, valid_for=lasts), implicit=implicit) as server:
        made = plugin(
            server.port,
            tls=Tls.IMPLICIT if implicit else Tls.STARTTLS,
            ca_file="" if wrong == "unknown authority" else str(authority.ca_file),
        )
        failed = failure(made)
        assert "the certificate of localhost is not accepted" in str(failed) and not failed.is_final
        assert not server.envelopes


def test_nothing_is_sent_where_starttls_is_not_offered(plain: MailServer) -> None:
    """Somebody in between can leave the offer out (RFC 3207, 6)."""
    failed = failure(plugin(plain.port, tls=Tls.STARTTLS))
    assert "STARTTLS" in str(failed) and not plain.envelopes


def test_what_was_said_before_tls_counts_no_more(authority: Authority) -> None:
    """Answers that somebody in between adds behind the one to STARTTLS are not read as those of the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate("localhost"))
    heard: list[bytes] = []

    def answer(connection: Any) -> None:
        connection.sendall(b"220 here\r\n")
        connection.recv(1000)
        connection.sendall(b"250-here\r\n250 STARTTLS\r\n")
        connection.recv(1000)
        connection.sendall(b"220 go on\r\n550 injected\r\n550 injected\r\n")
        with context.wrap_socket(connection, server_side=True) as secured:
            while command := secured.recv(10_000):
                heard.append(command)
                secured.sendall(b"354 go on\r\n" if command == b"data\r\n" else b"250 yes\r\n")

    with raw_server(answer) as port:
        assert plugin(port, tls=Tls.STARTTLS, ca_file=str(authority.ca_file)).send_mail(a_mail())
    assert heard[0].startswith(b"ehlo") and SECRET.encode() in b"".join(heard)


def test_a_wrong_password_of_the_mail_server_is_named(authority: Authority) -> None:
    with mail_server(authority.certificate("localhost"), asks_password=True) as server:
        made = plugin(
            server.port,
            tls=Tls.STARTTLS,
            ca_file=str(authority.ca_file),
            username=USERNAME,
            password=Secret("wrong"),
        )
        assert "refuses username and password (535)" in str(failure(made))


@pytest.mark.parametrize(("answer", "is_final"), [("550 no such user ann", True), ("451 greylisted", False)])
def test_a_refused_recipient(plain: MailServer, answer: str, is_final: bool) -> None:
    """What is refused for good is not tried again (RFC 5321, 4.2.1)."""
    plain.answer = answer
    failed = failure(plugin(plain.port))
    assert failed.is_final is is_final
    assert f"refuses the recipient ({answer[:3]})" in str(failed) and "ann" not in str(failed)


def silent(connection: Any) -> None:
    connection.recv(1000)
    time.sleep(5)


def dripping(connection: Any) -> None:
    """A byte now and then: each read gets something in time."""
    for _ in range(100):
        connection.sendall(b"2")
        time.sleep(0.1)


@pytest.mark.parametrize("answer", [silent, dripping])
@pytest.mark.parametrize("tls", list(Tls))
def test_a_slow_server_is_left_after_the_time_limit(answer: Callable[[Any], None], tls: Tls) -> None:
    """T114: of the mail as a whole, also while TLS begins."""
    with raw_server(answer) as port:
        begun = time.monotonic()
        failed = failure(plugin(port, tls=tls, timeout=1.0))
        assert time.monotonic() - begun < 4
        assert not failed.is_final


def test_a_server_that_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failed = failure(plugin(port))
    assert str(failed) == "localhost cannot be reached: Connection refused" and not failed.is_final


def test_a_server_that_speaks_something_else() -> None:
    with raw_server(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        for tls in Tls:
            assert "localhost" in str(failure(plugin(port, tls=tls)))


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "Hello\r\nBcc: eve@evil.example"},
        {"recipient": "ann@people.example\nBcc: eve@evil.example"},
        {"language": "en\r\nBcc: eve@evil.example"},
    ],
)
def test_nothing_can_add_a_header_or_a_recipient(plain: MailServer, changes: dict[str, str]) -> None:
    """A line break would begin another header."""
    assert failure(plugin(plain.port), a_mail(**changes)).is_final
    assert not plain.envelopes


def test_a_line_of_a_text_cannot_end_the_mail(plain: MailServer) -> None:
    """RFC 5321, 4.5.2."""
    mail = a_mail(text="one\n.\nMAIL FROM:<eve@evil.example>\n..\n")
    plugin(plain.port).send_mail(mail)
    (message,) = plain.messages()
    assert text_of(message) == mail.text


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"host": "mail.example/x"}, "host: expected"),
        ({"host": ""}, "host: expected"),
        ({"sender": "nobody"}, "sender: expected a mail address"),
        ({"sender": "a@b.example, c@d.example"}, "sender: expected a mail address"),
        ({"sender_name": "x" * 61}, "sender_name: expected at most"),
        ({"tls": "maybe"}, "tls"),
        ({"port": "70000"}, "port: expected 1 to 65535"),
        ({"timeout": "0"}, "timeout: expected 1 to 120"),
        ({"username": "me"}, "username and password: give both"),
        ({"ca_file": "/nowhere.pem"}, "ca_file: there is no file"),
        ({"tls": "none", "username": "me", "password": "secret"}, "without TLS it would be sent unencrypted"),
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_start(
    sqlite_url: str, fields: dict[str, str], problem: str
) -> None:
    settings = {"host": "mail.example", "sender": SENDER} | fields
    with pytest.raises(SettingsError, match=problem):
        Server(sqlite_url, with_plugin("smtp_mail", settings))


def test_a_file_that_holds_no_certificates_stops_the_start(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    settings = {"host": "mail.example", "sender": SENDER, "ca_file": str(tmp_path / "ca.pem")}
    with pytest.raises(SettingsError, match="cannot be read as certificates"):
        Server(sqlite_url, with_plugin("smtp_mail", settings))


@pytest.mark.parametrize(
    ("host", "is_insecure"), [("mail.example", True), ("localhost", False), ("[::1]", False)]
)
def test_production_sends_no_link_without_tls_over_a_network(host: str, is_insecure: bool) -> None:
    made = SmtpMail(host=host, sender=SENDER, tls=Tls.NONE)
    assert bool(made.insecure) is is_insecure
    assert not SmtpMail(host=host, sender=SENDER).insecure
