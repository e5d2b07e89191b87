"""Sends mail by SMTP (RFC 5321; hook `send_mail`): one message in one connection, over TLS with a checked certificate."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, localtime, make_msgid
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from authserver.api import LOOPBACK_HOSTS, Mail, MailFailed, Secret, hookimpl, mail_address_problem

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\]")
_MAXIMUM_NAME = 60


class Tls(StrEnum):
    """When TLS begins: at once (RFC 8314), by STARTTLS (RFC 3207), or never."""

    IMPLICIT = "implicit"
    STARTTLS = "starttls"
    NONE = "none"


PORTS = {Tls.IMPLICIT: 465, Tls.STARTTLS: 587, Tls.NONE: 25}


@dataclass(frozen=True)
class SmtpMail:
    """Send mail to people through a mail server.

    Attributes:
        host: the host of the mail server.
        sender: the address that mail comes from, such as `sign-in@example.com`.
        sender_name: the name beside the address; empty for none.
        tls: `implicit` (TLS from the first byte), `starttls`, or `none`, which production accepts only for a loopback host.
        port: the port of the mail server; 0 for the usual one: 465, 587 or 25.
        username: the name to sign in with at the mail server; empty for none.
        password: the password to sign in with.
        ca_file: the path of the certificates (PEM) to trust; empty for those of the system.
        timeout: seconds for one whole mail (1 to 120).
    """

    host: str
    sender: str
    sender_name: str = ""
    tls: Tls = Tls.IMPLICIT
    port: int = 0
    username: str = ""
    password: Secret | None = field(default=None, repr=False)
    ca_file: str = ""
    timeout: float = 20.0

    # It has a time limit of its own (`timeout`).
    immediate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise ValueError("host: expected a host name or an address, such as mail.example.com")
        if problem := mail_address_problem(self.sender):
            raise ValueError(f"sender: {problem}")
        if len(self.sender_name) > _MAXIMUM_NAME or not self.sender_name.isprintable():
            raise ValueError(f"sender_name: expected at most {_MAXIMUM_NAME} visible characters")
        if not 0 <= self.port <= 65_535:
            raise ValueError("port: expected 1 to 65535, or 0 for the usual one")
        if not 1 <= self.timeout <= 120:
            raise ValueError("timeout: expected 1 to 120 seconds")
        if bool(self.username) != bool(self.password and self.password.value):
            raise ValueError("username and password: give both, or neither")
        if self.password and self.tls is Tls.NONE and not self._is_loopback:
            raise ValueError("password: without TLS it would be sent unencrypted; set tls")

    @property
    def insecure(self) -> tuple[str, ...]:
        """The setting that a production server refuses: mail with links to set passwords that is not encrypted."""
        if self.tls is Tls.NONE and not self._is_loopback:
            return ("tls: none sends links to set passwords unencrypted; use implicit or starttls",)
        return ()

    def prepare(self) -> None:
        """Read the certificates. Raises ValueError."""
        if self.ca_file and not Path(self.ca_file).is_file():
            raise ValueError(f"ca_file: there is no file {self.ca_file}")
        try:
            self._context()
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"ca_file: {self.ca_file} cannot be read as certificates in PEM: {error}"
            ) from None

    @hookimpl
    def send_mail(self, mail: Mail) -> bool:
        message = self._message(mail)
        with _in_sentences(self.host), self._connected() as server:
            server.send_message(message, self.sender, [mail.recipient])
        return True

    @property
    def _is_loopback(self) -> bool:
        return self.host in LOOPBACK_HOSTS

    def _message(self, mail: Mail) -> EmailMessage:
        # The policy refuses a line break in any header, and addresses are checked, so nothing can add one.
        message = EmailMessage(policy=SMTP_POLICY)
        user, _, domain = self.sender.rpartition("@")
        try:
            message["From"] = Address(self.sender_name, user, domain)
            message["To"] = mail.recipient
            message["Subject"] = mail.subject
            message["Date"] = format_datetime(localtime())
            message["Message-ID"] = make_msgid(domain=domain)
            # This prevents automatic answers, such as vacation replies (RFC 3834, 5).
            message["Auto-Submitted"] = "auto-generated"
            message.set_content(mail.text)
            message["Content-Language"] = mail.language
        except ValueError as error:
            raise MailFailed(f"the mail cannot be written: {error}", is_final=True) from None
        return message

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file or None)

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        """A connection that is closed after `timeout`, whatever the mail server does."""
        connection = Connection(None if self.tls is Tls.NONE else self._context(), self.tls, self.timeout)
        # The timeout of a socket is for one read only: a server that sends a byte now and then would keep it open forever.
        alarm = threading.Timer(self.timeout, connection.shut)
        alarm.daemon = True
        alarm.start()
        try:
            connection.connect(self.host.strip("[]"), self.port or PORTS[self.tls])
            if self.tls is Tls.STARTTLS:
                connection.secure()
            if self.password:
                connection.login(self.username, self.password.value)
            yield connection
            connection.quit()
        finally:
            alarm.cancel()
            connection.close()


class Connection(smtplib.SMTP):
    """A connection to a mail server that another thread can end at any time, also while TLS begins."""

    def __init__(self, context: ssl.SSLContext | None, tls: Tls, timeout: float) -> None:
        super().__init__(timeout=timeout)
        self._context = context
        self._tls = tls
        self._server = ""
        self._opened: socket.socket | None = None

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Open the socket; overrides the method of `smtplib`."""
        self._server = host
        self._opened = socket.create_connection((host, port), timeout)
        return self._secured(self._opened) if self._tls is Tls.IMPLICIT else self._opened

    def secure(self) -> None:
        """Begin TLS (RFC 3207). Everything that the server said before is discarded.

        Raises:
            SMTPNotSupportedError: the server has no TLS; nothing else is sent.
            SMTPResponseException: the server has no TLS at this moment.
        """
        self.ehlo_or_helo_if_needed()
        if not self.has_extn("starttls"):
            raise smtplib.SMTPNotSupportedError
        code, answer = self.docmd("STARTTLS")
        if code != 220:
            raise smtplib.SMTPResponseException(code, answer)
        assert self.sock is not None
        self.sock = self._secured(self.sock)
        # The buffer may hold bytes that an attacker on the way added before TLS began.
        self.file = None
        self.helo_resp = self.ehlo_resp = None
        self.esmtp_features = {}
        self.does_esmtp = False

    def shut(self) -> None:
        """Shut down the socket itself, without ending TLS first: otherwise a write could go out unencrypted."""
        if self._opened is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._opened, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, even if TLS did not begin."""
        super().close()
        if self._opened is not None:
            self._opened.close()

    def _secured(self, plain: socket.socket) -> socket.socket:
        assert self._context is not None
        secured = self._context.wrap_socket(
            plain, server_hostname=self._server, do_handshake_on_connect=False
        )
        self._opened = secured
        secured.do_handshake()
        return secured


@contextmanager
def _in_sentences(host: str) -> Iterator[None]:
    """Turn each failure into a MailFailed, without the text of the mail server, which may repeat the mail."""
    try:
        yield
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        raise MailFailed(
            f"{host} refuses the recipient ({codes[0]})", is_final=all(500 <= code < 600 for code in codes)
        ) from None
    except smtplib.SMTPAuthenticationError as error:
        raise MailFailed(f"{host} refuses username and password ({error.smtp_code})") from None
    except smtplib.SMTPNotSupportedError:
        raise MailFailed(
            f"{host} does not support STARTTLS or the sign-in that is set; check tls and username"
        ) from None
    except smtplib.SMTPServerDisconnected:
        raise MailFailed(f"{host} ended the connection, or took longer than `timeout`") from None
    except smtplib.SMTPResponseException as error:
        raise MailFailed(
            f"{host} refuses the mail ({error.smtp_code})", is_final=500 <= error.smtp_code < 600
        ) from None
    except smtplib.SMTPException as error:
        raise MailFailed(f"{host} gives an answer that is not SMTP: {type(error).__name__}") from None
    except ssl.SSLCertVerificationError as error:
        raise MailFailed(f"the certificate of {host} is not accepted: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise MailFailed(
            f"{host} does not speak TLS as set: {error.reason or error}; check tls and port"
        ) from None
    except TimeoutError:
        raise MailFailed(f"{host} did not answer in time") from None
    except OSError as error:
        raise MailFailed(f"{host} cannot be reached: {error.strerror or error}") from None
