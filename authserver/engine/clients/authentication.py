"""Authentication of clients: reads the credentials strictly, and asks the policies about them."""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from urllib.parse import unquote_to_bytes

from authserver.engine import rates
from authserver.engine.clients import secrets
from authserver.engine.context import Engine, SingleUse
from authserver.engine.crypto.jose import read_jws
from authserver.engine.ending import Act, Subject, end_at_once
from authserver.engine.errors import InvalidClient, InvalidRequest, OAuthError
from authserver.engine.parameters import Parameters
from authserver.engine.questions import ClientAuthQuestion, Counted, Credentials
from authserver.engine.records import Client, ClientSecret
from authserver.settings import Secret

# The form in which a client of each known method presents its credentials. Clients of other methods present an
# assertion, a certificate or something else.
PRESENTATION = {
    "none": "none",
    "client_secret_basic": "client_secret_basic",
    "client_secret_post": "client_secret_post",
}
ASSERTION = "client_assertion"
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# The reason of a refusal when the request names no client.
NOBODY_NAMED = "client-id-missing"
_REFUSED = "Client authentication failed."


@dataclass(frozen=True, slots=True)
class Presented:
    """Credentials as read from the request, not verified yet."""

    method: str
    client_id: str
    secret: str | None = field(default=None, repr=False)
    assertion: str | None = field(default=None, repr=False)
    assertion_type: str | None = None
    scheme: str = "Basic"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenClient:
    """A client that has proven who it is, unless it is public.

    Attributes:
        client: the client.
        uses: the mark that its proof is used; claim it after the last question to a plugin, and before the answer.
    """

    client: Client
    uses: tuple[SingleUse, ...] = ()


def proven_client(engine: Engine, parameters: Parameters) -> ProvenClient:
    """The client that sent this request, authenticated by exactly its registered method (OAuth 2.1, 2.4).

    It is the actor of all following events (see `Event.actor`). A public client has proven nothing yet: it becomes the
    actor when it presents a code or token that was issued to it.

    Args:
        parameters: the form body.

    Raises:
        InvalidRequest: two methods at once, or two different client ids.
        InvalidClient: anything else; an unknown client, a disabled one and a wrong secret look and cost the same (J-07).
        TemporarilyUnavailable: the keys that verify its proof cannot be fetched now (F-14).
        TooManyRequests: it failed too often (J-08). Right credentials are accepted in any case (R-20): a secret has 256
            random bits, so it cannot be guessed.
    """
    try:
        presented = read_credentials(engine.caller.authorization, parameters)
        refuse_malformed(presented)
        judged = judge(engine, presented)
    except InvalidClient:
        rates.claim(engine, Counted.FAILED_CLIENT_AUTHENTICATION, client_id=engine.journal.client_id)
        raise
    client = judged.client
    if not client.is_public:
        engine.journal.acts(client)
    if judged.secret is not None and presented.secret is not None:
        secrets.note_use(engine, client, judged.secret, presented.secret)
    return ProvenClient(client=client, uses=judged.uses)


def refuse_malformed(presented: Presented) -> None:
    """Refuse a text that cannot be a secret, so that no client need be looked up. Raises InvalidClient."""
    if presented.secret is not None and not secrets.may_be_secret(presented.secret):
        raise InvalidClient(_REFUSED, reason="secret-malformed", scheme=presented.scheme)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The result of checking credentials.

    Attributes:
        client: the client.
        secret: the stored secret that matched, or None.
        uses: the mark that the proof is used.
    """

    client: Client
    secret: ClientSecret | None
    uses: tuple[SingleUse, ...]


def judge(engine: Engine, presented: Presented) -> Judged:
    """The client that these credentials prove; nothing is written. Raises InvalidClient, TemporarilyUnavailable."""
    engine.journal.client_id = presented.client_id
    kept = engine.find_kept_client(presented.client_id)
    client = kept or engine.find_client_elsewhere(presented.client_id)
    used = None
    if presented.secret is not None:
        used = secrets.matching(engine, client, presented.client_id, presented.secret)
    refused = InvalidClient(_REFUSED, reason="client-refused", scheme=presented.scheme)
    if client is None or not client.is_enabled:
        refused.reason = "client-unknown" if client is None else "client-disabled"
        engine.journal.client_id = client.client_id if client else None
        if presented.assertion is not None:
            _pretend(engine, presented)
        raise refused
    if not _is_registered_for(client, presented.method):
        refused.reason = "credential-missing" if presented.method == "none" else "method-not-registered"
        refused.facts = {"method": presented.method, "registered_method": client.auth_method}
        raise refused
    credentials = _credentials(engine, presented, secret_matches=used is not None)
    uses: tuple[SingleUse, ...] = ()
    if (proof := engine.client_proofs.get(client.auth_method)) is not None:
        uses = proof.prove(engine, client, credentials)
        credentials = replace(credentials, is_proven=True)
    ruling = engine.ask(ClientAuthQuestion(client=client, credentials=credentials))
    if not ruling.allowed or (presented.secret is not None and used is None):
        refused.reason = "secret-wrong" if ruling.allowed else ruling.reason
        raise refused
    return Judged(client=client, secret=used if kept else None, uses=uses)


def _credentials(engine: Engine, presented: Presented, *, secret_matches: bool) -> Credentials:
    return Credentials(
        method=presented.method,
        client_id=presented.client_id,
        secret_matches=secret_matches,
        assertion=presented.assertion,
        assertion_type=presented.assertion_type,
        headers=engine.caller.headers,
    )


def _pretend(engine: Engine, presented: Presented) -> None:
    """Check an assertion of an unknown client as if the client existed; the result is not used (J-07)."""
    credentials = _credentials(engine, presented, secret_matches=False)
    for method, proof in engine.client_proofs.items():
        if not proof.stand_in:
            continue
        client = Client(
            client_id=presented.client_id,
            name="",
            auth_method=method,
            created_at=engine.now,
            details=proof.stand_in,
        )
        with suppress(OAuthError):
            proof.prove(engine, client, credentials)


def _is_registered_for(client: Client, presented: str) -> bool:
    """Whether these credentials fit the method for which the client is registered."""
    if client.auth_method in PRESENTATION:
        return PRESENTATION[client.auth_method] == presented
    return not secrets.needs_secret(presented)


def authenticates(authorization: str | None, parameters: Parameters) -> bool:
    """Whether a request has credentials of a client, right or wrong."""
    return authorization is not None or "client_secret" in parameters or ASSERTION in parameters


def read_credentials(authorization: str | None, parameters: Parameters) -> Presented:
    """Read exactly one method of client authentication (J-04, T042, T043).

    Raises:
        InvalidRequest: several methods, or client ids that differ.
        InvalidClient: none, or one that cannot be read.
    """
    client_id = parameters.get("client_id")
    secret = parameters.get("client_secret")
    assertion = parameters.get("client_assertion")
    if sum(item is not None for item in (authorization, secret, assertion)) > 1:
        raise InvalidRequest("Use one method of client authentication.", reason="two-methods")
    if authorization is not None:
        presented = _read_authorization(authorization)
        if client_id is not None and client_id != presented.client_id:
            raise InvalidRequest(
                "The client_id differs from the authenticated client.", reason="client-id-differs"
            )
        return presented
    if client_id is None and assertion is not None:
        client_id = _subject_of(assertion)
    if client_id is None:
        raise InvalidClient(_REFUSED, reason=NOBODY_NAMED)
    if secret is not None:
        return Presented("client_secret_post", client_id, secret)
    if assertion is not None:
        kind = parameters.get("client_assertion_type")
        return Presented(ASSERTION, client_id, assertion=assertion, assertion_type=kind)
    return Presented("none", client_id)


def _subject_of(assertion: str) -> str:
    """The client id in an assertion that is not verified yet (RFC 7521, 4.2). Raises InvalidClient."""
    try:
        subject = read_jws(assertion).claims.get("sub")
    except ValueError:
        subject = None
    if not isinstance(subject, str) or not subject:
        raise InvalidClient(_REFUSED, reason="client-assertion-malformed")
    return subject


def read_bearer(authorization: str | None) -> Secret | None:
    """The bearer token of an Authorization header (RFC 6750, 2.1); None without one, or with one of another scheme.

    With the scheme Bearer, anything but one well-formed token counts as an invalid token (T086).
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    return Secret(token if _TOKEN68.fullmatch(token) else "malformed")


def disable_client(engine: Engine, client_id: str) -> bool:
    """Disable a client from the next request on (R-09), and end all that it may do, in this transaction (L-08).

    False when it is unknown or was disabled before.
    """
    client = engine.stores.clients.find(client_id, engine.now)
    if client is None or not client.is_enabled:
        return False
    end_at_once(engine, Act(subject=Subject.client(client_id), for_good=True))
    return True


def _read_authorization(authorization: str) -> Presented:
    """The Basic scheme, strictly: canonical base64, a colon, form-encoded halves (J-02, T045)."""
    scheme, _, encoded = authorization.partition(" ")
    refused = InvalidClient(_REFUSED, reason="authorization-malformed", scheme=scheme)
    if scheme.lower() != "basic":
        refused.reason = "authorization-scheme"
        raise refused
    try:
        decoded = base64.b64decode(encoded.strip(" "), validate=True)
        first, colon, second = decoded.partition(b":")
        client_id, secret = _form_decode(first), _form_decode(second)
    except (binascii.Error, ValueError):
        raise refused from None
    is_canonical = base64.b64encode(decoded).decode() == encoded.strip(" ")
    if not colon or not client_id or not is_canonical:
        raise refused
    return Presented("client_secret_basic", client_id, secret)


def _form_decode(half: bytes) -> str:
    if re.search(rb"%(?![0-9A-Fa-f]{2})", half):
        raise ValueError("bad percent escape")
    text = unquote_to_bytes(half.replace(b"+", b" ")).decode("utf-8")
    if "\0" in text:
        raise ValueError("NUL")
    return text
