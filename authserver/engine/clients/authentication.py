"""Which client is asking: reading its credentials strictly, and asking the policies about them."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from authserver.engine import rates
from authserver.engine.clients import secrets
from authserver.engine.context import Engine
from authserver.engine.errors import InvalidClient, InvalidRequest
from authserver.engine.parameters import Parameters
from authserver.engine.questions import ClientAuthQuestion, Counted, Credentials
from authserver.engine.records import Client, ClientSecret, EventType
from authserver.settings import Secret

# How a client of each known method presents itself; others (such as a certificate) have no credential of
# these kinds.
PRESENTATION = {
    "none": "none",
    "client_secret_basic": "client_secret_basic",
    "client_secret_post": "client_secret_post",
    "private_key_jwt": "client_assertion",
}
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_REFUSED = "Client authentication failed."


@dataclass(frozen=True, slots=True)
class Presented:
    """Credentials as read from the wire, before they were compared with anything."""

    method: str
    client_id: str
    secret: str | None = field(default=None, repr=False)
    assertion: str | None = field(default=None, repr=False)
    scheme: str = "Basic"


def authenticate(engine: Engine, parameters: Parameters) -> Client:
    """The client that sent this request, by exactly the method it is registered for (OAuth 2.1, 2.4).

    Whatever happens afterwards, it is the actor (see `Event.actor`). A public client has proven nothing yet: it is the
    actor once it shows what was issued to it.

    Args:
        parameters: the form body.

    Raises:
        InvalidRequest: two methods at once, or two different client ids.
        InvalidClient: anything else; unknown, disabled and wrong secret look and cost the same (J-07).
        TooManyRequests: it failed too often (J-08). Right credentials are accepted in any case (R-20): a secret has 256
            random bits, so it is not guessed however often somebody tries.
    """
    try:
        presented = read_credentials(engine.caller.authorization, parameters)
        refuse_malformed(presented)
        client, used = judge(engine, presented)
    except InvalidClient:
        rates.claim(engine, Counted.FAILED_CLIENT_AUTHENTICATION, client_id=engine.journal.client_id)
        raise
    if not client.is_public:
        engine.journal.acts(client)
    if used is not None and presented.secret is not None:
        secrets.note_use(engine, client, used, presented.secret)
    return client


def refuse_malformed(presented: Presented) -> None:
    """Refuse a text that cannot be a secret, so that no client need be looked up. Raises InvalidClient."""
    if presented.secret is not None and not secrets.may_be_secret(presented.secret):
        raise InvalidClient(_REFUSED, reason="secret-malformed", scheme=presented.scheme)


def judge(engine: Engine, presented: Presented) -> tuple[Client, ClientSecret | None]:
    """The client that these credentials prove, and the secret that did, if it is kept here; nothing is written.

    Raises InvalidClient.
    """
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
        raise refused
    if PRESENTATION.get(client.auth_method, presented.method) != presented.method:
        refused.reason = "credential-missing" if presented.method == "none" else "method-not-registered"
        refused.facts = {"method": presented.method, "registered_method": client.auth_method}
        raise refused
    credentials = Credentials(
        method=presented.method,
        client_id=presented.client_id,
        secret_matches=used is not None,
        assertion=presented.assertion,
        headers=engine.caller.headers,
    )
    ruling = engine.ask(ClientAuthQuestion(client=client, credentials=credentials))
    if not ruling.allowed or (presented.secret is not None and used is None):
        refused.reason = "secret-wrong" if ruling.allowed else ruling.reason
        raise refused
    return client, used if kept else None


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
    if client_id is None:
        raise InvalidClient(_REFUSED, reason="client-id-missing")
    if secret is not None:
        return Presented("client_secret_post", client_id, secret)
    if assertion is not None:
        return Presented("client_assertion", client_id, assertion=assertion)
    return Presented("none", client_id)


def read_bearer(authorization: str | None) -> Secret | None:
    """The bearer token of an Authorization header (RFC 6750, 2.1); None when there is no such header.

    Anything that is not one well-formed bearer token counts as a token that nobody accepts (T086).
    """
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    return Secret(token if scheme.lower() == "bearer" and _TOKEN68.fullmatch(token) else "malformed")


def disable_client(engine: Engine, client_id: str) -> bool:
    """Disable a client from the next request on (R-09); False when it is unknown or was disabled before."""
    if not engine.stores.clients.disable(client_id, engine.now):
        return False
    engine.journal.client_id = client_id
    engine.record(EventType.CLIENT_DISABLED)
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
