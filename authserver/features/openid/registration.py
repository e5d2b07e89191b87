"""Members of client metadata for OpenID Connect (OIDC Registration, 2), and the sector of redirect URIs (5)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from authserver.api import (
    Client,
    DocumentKind,
    Engine,
    FetchFailed,
    InvalidClientMetadata,
    Parameter,
    ReadMember,
    Reply,
    TemporarilyUnavailable,
    fetch_named,
    fetched_problem,
    link_problem,
    read_flag,
    redirect_uri_problem,
)
from authserver.features.openid import back_channel, id_tokens, subjects, userinfo
from authserver.features.openid.claims import OPENID
from authserver.features.openid.sign_in import DEFAULT_AGE, DEFAULT_LEVELS

# Whether the client's `nonce` replaces PKCE (OAuth 2.1, 7.5.1). Only operators can set it, no client itself.
WITHOUT_PKCE = "nonce_replaces_pkce"
# Members for encryption, which is not supported; a client that asks for it is refused, so that it does not expect it.
ENCRYPTED = tuple(
    f"{what}_{how}"
    for what in ("id_token_encrypted_response", "userinfo_encrypted_response", "request_object_encryption")
    for how in ("alg", "enc")
)
MAXIMUM_AGE = 10**9
MAXIMUM_URIS = 20
MAXIMUM_LEVELS = 20
_ALGORITHM = {"type": ["string", "null"]}
_TEXTS = {"type": ["array", "null"], "items": {"type": "string"}}
MEMBERS: Mapping[str, Parameter] = {
    id_tokens.ALGORITHM: Parameter(
        description="The algorithm of ID tokens; RS256 if it is absent (OIDC Registration, 2).",
        schema=_ALGORITHM,
    ),
    userinfo.ALGORITHM: Parameter(
        description="The algorithm of UserInfo responses; they are JSON without a signature if it is absent.",
        schema=_ALGORITHM,
    ),
    subjects.TYPE: Parameter(
        description="Whether people have one id for all clients, or one for each sector.",
        schema={"enum": [subjects.PUBLIC, subjects.PAIRWISE, "", None]},
    ),
    subjects.SECTOR: Parameter(
        description="The https address of a JSON array with all redirect URIs of the sector.",
        schema={"type": ["string", "null"]},
    ),
    DEFAULT_AGE: Parameter(
        description="How many seconds ago the sign-in may be, if a request does not say.",
        schema={"type": ["integer", "null"], "minimum": 0, "maximum": MAXIMUM_AGE},
    ),
    "require_auth_time": Parameter(
        description="Whether ID tokens say when the person signed in; they always do.",
        schema={"type": ["boolean", "null"]},
    ),
    DEFAULT_LEVELS: Parameter(description="Levels of sign-in, if a request names none.", schema=_TEXTS),
    "initiate_login_uri": Parameter(
        description="The https address at which the client begins a sign-in.",
        schema={"type": ["string", "null"]},
    ),
    "post_logout_redirect_uris": Parameter(
        description="Where a person may be sent after signing out.", schema=_TEXTS
    ),
    back_channel.URI: Parameter(
        description="The https address that gets a logout token when a session ends.",
        schema={"type": ["string", "null"]},
    ),
    back_channel.SESSION_REQUIRED: Parameter(
        description="Whether logout tokens must name the session; they always do.",
        schema={"type": ["boolean", "null"]},
    ),
}


def readers(algorithms: Collection[str], types: Collection[str]) -> Mapping[str, ReadMember]:
    """The functions that read the members, by name.

    Args:
        algorithms: the algorithms with which this server signs.
        types: the subject types that it offers.
    """
    signed = partial(_one_of, algorithms)
    return {
        id_tokens.ALGORITHM: signed,
        userinfo.ALGORITHM: signed,
        subjects.TYPE: partial(_one_of, types),
        subjects.SECTOR: _fetched,
        DEFAULT_AGE: _age,
        "require_auth_time": read_flag,
        DEFAULT_LEVELS: _levels,
        "initiate_login_uri": _link,
        "post_logout_redirect_uris": _redirects,
        back_channel.URI: _fetched,
        back_channel.SESSION_REQUIRED: read_flag,
        WITHOUT_PKCE: read_flag,
        **dict.fromkeys(ENCRYPTED, _refused),
    }


def complete(engine: Engine, sent: Mapping[str, Any], client: Client | None) -> Mapping[str, Any]:
    """The members to store for a client that registers itself: replaced values, and the defaults.

    Raises:
        InvalidClientMetadata: the sector is not that of all redirect URIs, or changes for a client with grants.
        TemporarilyUnavailable: the document of the sector cannot be fetched now.
    """
    members: dict[str, Any] = {WITHOUT_PKCE: False} if WITHOUT_PKCE in sent else {}
    scope = sent.get("scope")
    if isinstance(scope, str) and OPENID in scope.split(" "):
        members |= {
            id_tokens.ALGORITHM: sent.get(id_tokens.ALGORITHM, id_tokens.DEFAULT_ALGORITHM),
            subjects.TYPE: sent.get(subjects.TYPE, subjects.PUBLIC),
        }
    address, uris = sent.get(subjects.SECTOR), sent.get("redirect_uris", [])
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
        return members  # which the core refuses
    if address is not None:
        _fetched(subjects.SECTOR, address)
        _check_sector(engine, address, uris)
    if sent.get(subjects.TYPE) == subjects.PAIRWISE and subjects.sector_of(uris, address) is None:
        raise InvalidClientMetadata(
            "subject_type: without a sector_identifier_uri, all redirect URIs must be of one host.",
            reason="sector-missing",
        )
    if client is not None:
        _check_unchanged(engine, client, sent, uris)
    return members


def _check_unchanged(engine: Engine, client: Client, sent: Mapping[str, Any], uris: list[str]) -> None:
    """Raises InvalidClientMetadata if the ids of people would change for this client (OIDC-48)."""
    before = subjects.sector_of_client(client) if subjects.is_pairwise(client) else None
    is_pairwise = sent.get(subjects.TYPE) == subjects.PAIRWISE
    after = subjects.sector_of(uris, sent.get(subjects.SECTOR)) if is_pairwise else None
    if before != after and engine.stores.grants.list(engine.now, client_id=client.client_id):
        raise InvalidClientMetadata(
            "subject_type: people have agreed to this client, and would get other ids; register a new one.",
            reason="sector-changed",
        )


def _check_sector(engine: Engine, address: str, uris: list[str]) -> None:
    """Raises InvalidClientMetadata unless the document at this address has all these redirect URIs (OIDC-46)."""
    try:
        listed = fetch_named(engine, SECTOR, address).value
    except FetchFailed as failed:
        if failed.is_temporary:
            raise TemporarilyUnavailable(
                "sector_identifier_uri cannot be fetched now.", reason="sector-unavailable"
            ) from None
        raise InvalidClientMetadata(
            "sector_identifier_uri must lead to a JSON array of redirect URIs.", reason="sector-refused"
        ) from None
    if not listed.issuperset(uris):
        raise InvalidClientMetadata(
            "sector_identifier_uri does not list all redirect_uris.", reason="sector-incomplete"
        )


def _read_sector(reply: Reply) -> frozenset[str]:
    """The redirect URIs in a document. Raises ValueError."""
    try:
        listed = json.loads(reply.body.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(listed, list) or not all(isinstance(uri, str) for uri in listed):
        raise ValueError("it is no array of texts")
    return frozenset(listed)


SECTOR = DocumentKind(name="sector", read=_read_sector, maximum=65_536, maximum_age=300)


def _one_of(known: Collection[str], name: str, value: object) -> str:
    if value not in known:
        raise InvalidClientMetadata(f"{name} must be one of {', '.join(known)}.")
    return str(value)


def _fetched(name: str, value: object) -> str:
    if not isinstance(value, str) or (problem := fetched_problem(value)):
        raise InvalidClientMetadata(
            f"{name}: {problem if isinstance(value, str) else 'It must be an address.'}"
        )
    return value


def _link(name: str, value: object) -> str:
    if not isinstance(value, str) or (problem := link_problem(value)):
        raise InvalidClientMetadata(
            f"{name}: {problem if isinstance(value, str) else 'It must be an address.'}"
        )
    return value


def _age(name: str, value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAXIMUM_AGE:
        raise InvalidClientMetadata(f"{name} must be a whole number of seconds.")
    return value


def _levels(name: str, value: object) -> list[str] | None:
    levels = _texts(name, value, MAXIMUM_LEVELS)
    if any(not level or " " in level or not level.isascii() for level in levels):
        raise InvalidClientMetadata(f"{name} must be names of levels, without spaces.")
    return levels or None


def _redirects(name: str, value: object) -> list[str] | None:
    uris = _texts(name, value, MAXIMUM_URIS)
    for uri in uris:
        if problem := redirect_uri_problem(uri):
            raise InvalidClientMetadata(f"{name}: {problem}")
    return uris or None


def _texts(name: str, value: object, maximum: int) -> list[str]:
    if (
        not isinstance(value, list)
        or len(value) > maximum
        or not all(isinstance(item, str) for item in value)
    ):
        raise InvalidClientMetadata(f"{name} must be an array of at most {maximum} texts.")
    return list(dict.fromkeys(value))


def _refused(name: str, value: object) -> None:
    raise InvalidClientMetadata(f"{name}: nothing is encrypted here.", reason="encryption-not-offered")
