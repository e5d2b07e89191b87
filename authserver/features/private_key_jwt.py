"""Clients that authenticate with a key: they sign an assertion about themselves (RFC 7523, 2.2 and 3).

The server knows public keys only, so nothing that it stores or logs can be used in the name of a client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from authserver.api import (
    TRUSTED_ALGORITHMS,
    BadAssertion,
    Client,
    ClientMetadata,
    ClientProof,
    Credentials,
    Decision,
    Described,
    DocumentKind,
    Engine,
    FetchFailed,
    InvalidClient,
    InvalidClientMetadata,
    Parameter,
    ReadMember,
    Reply,
    SingleUse,
    TemporarilyUnavailable,
    TrustedKeys,
    allow,
    fetch_named,
    fetched_problem,
    hookimpl,
    is_same_algorithm,
    is_used,
    single_use,
    verify_assertion,
)

METHOD = "private_key_jwt"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# The explicit type that draft-ietf-oauth-rfc7523bis gives these assertions.
TYPE = "client-authentication+jwt"
# Members of the metadata of a client (RFC 7591, 2; OIDC Registration, 2).
KEYS, KEYS_ADDRESS, ALGORITHM = "jwks", "jwks_uri", "token_endpoint_auth_signing_alg"
# How many seconds a client should wait if its keys cannot be fetched now, and no longer time is known.
WAIT = 5
_REFUSED = "Client authentication failed."
_UNREACHABLE = "The keys of the client cannot be fetched now. Try again later."
# A key set like that of most clients. Nobody has the private part of this key.
_NOBODYS = {
    "keys": [
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f-vzhkafBpUMlX7AHAJrD3VTXAilwYcaDApH205b-b0",
            "y": "ycvMEEQw7VAsgYYmrwDfup7ce79McQCvdBnSnWMX9xA",
        }
    ]
}
# After these reasons the keys are fetched again: a newer key set may have the key, or another key with the same name.
_KEY_MAY_BE_NEW = frozenset({"assertion-key-unknown", "assertion-signature"})


@dataclass(frozen=True)
class PrivateKeyJwt:
    """Let clients authenticate with an assertion that they sign with a key of their own (RFC 7523, 2.2).

    A client registers its public keys, or the address where it publishes them.

    Attributes:
        algorithms: the accepted signature algorithms, out of ES256, RS256, PS256, EdDSA and Ed25519.
        lifetime: how many seconds in the future `exp` may be.
        token_endpoint_audience: whether `aud` may also be the address of the token endpoint, as older clients send it.
            INSECURE: an attacker who makes a client believe that our token endpoint is theirs can use its assertions here.
    """

    # Its fetches have time limits of their own (`engine.fetcher`).
    immediate: ClassVar[bool] = True
    described: ClassVar[Mapping[str, Described]] = {
        "client_proofs": Described(
            members={
                "client_assertion": Parameter(
                    description=f"With the method `{METHOD}`: the assertion (RFC 7523, 2.2)."
                ),
                "client_assertion_type": Parameter(
                    description="The type of the assertion.", schema={"const": ASSERTION_TYPE}
                ),
            }
        ),
        "client_metadata": Described(
            members={
                KEYS: Parameter(
                    description=f"The public keys of the client (RFC 7517, 5); excludes `{KEYS_ADDRESS}`.",
                    schema={"type": ["object", "null", "array", "string"]},
                ),
                KEYS_ADDRESS: Parameter(
                    description="The https address of its public keys.", schema={"type": ["string", "null"]}
                ),
                ALGORITHM: Parameter(
                    description="The algorithm of its assertions; any offered one if this is absent.",
                    schema={"enum": [*TRUSTED_ALGORITHMS, "", None]},
                ),
            }
        ),
    }
    reasons: ClassVar[Mapping[str, str]] = {
        "client-assertion-verified": "",
        "client-assertion-missing": (
            "the client must authenticate by private_key_jwt, for which it is registered: with a client_assertion that it signs"
        ),
        "client-assertion-type-unknown": f"client_assertion_type must be {ASSERTION_TYPE}",
        "client-assertion-header": "the header of the assertion must have alg, kid and typ only: no key, no address, no extension",
        "client-assertion-type": f"typ in the header of the assertion must be {TYPE} or JWT, or absent",
        "client-assertion-issuer-not-trusted": "iss of the assertion must be the client_id",
        "client-assertion-subject-missing": "sub of the assertion must be the client_id",
        "client-assertion-subject-differs": "iss and sub of the assertion must be the client_id",
        "client-assertion-audience": "aud of the assertion must be the issuer of this server alone, and no address of an endpoint",
        "client-assertion-times-malformed": "exp, iat and nbf must be whole numbers of seconds since 1970, and exp is required",
        "client-assertion-expired": "the client must make a new assertion for each request; or its clock is slow",
        "client-assertion-not-yet-valid": "iat or nbf of the assertion is in the future: the clock of the client is fast",
        "client-assertion-lives-too-long": (
            "authserver.plugin.private_key_jwt.lifetime says how many seconds in the future exp may be, at most 3600"
        ),
        "client-assertion-jti-missing": "the assertion must have a jti of its own",
        "client-assertion-replayed": "",
        "client-assertion-key-unknown": (
            "kid of the assertion must be that of a key that is registered for the client: `authserver client show {client_id}`; "
            "`authserver client edit {client_id} --jwks FILE` registers others"
        ),
        "client-assertion-algorithm": (
            f"alg of the assertion must be that of its key, that of {ALGORITHM} if the client has one, and one of "
            "authserver.plugin.private_key_jwt.algorithms; an RSA key without an algorithm is for RS256"
        ),
        "client-assertion-signature": (
            "the assertion was not signed with the key that is registered for the client under its kid: "
            "`authserver client edit {client_id} --jwks FILE` registers another"
        ),
        "client-keys-missing": "register its public keys: `authserver client edit {client_id} --jwks FILE`",
        "client-keys-refused": (
            "the key set at the jwks_uri of the client cannot be used: the event says why, and "
            "`authserver client edit {client_id} --jwks URL` registers another address"
        ),
        "client-keys-unreachable": (
            "the key set at the jwks_uri of the client could not be fetched: the event says why; the client tries again"
        ),
    }

    algorithms: tuple[str, ...] = TRUSTED_ALGORITHMS
    lifetime: int = 300
    token_endpoint_audience: bool = False

    def __post_init__(self) -> None:
        if not self.algorithms or not set(self.algorithms) <= set(TRUSTED_ALGORITHMS):
            raise ValueError(f"algorithms: must be some of {' '.join(TRUSTED_ALGORITHMS)}")
        if not 10 <= self.lifetime <= 3600:
            raise ValueError("lifetime: must be 10 to 3600 seconds")

    @property
    def insecure(self) -> tuple[str, ...]:
        problem = "token_endpoint_audience: another server that a client uses can send its assertions here; accept only the issuer"
        return (problem,) if self.token_endpoint_audience else ()

    @hookimpl
    def server_metadata(self) -> Mapping[str, Any]:
        return {
            "token_endpoint_auth_methods_supported": [METHOD],
            "token_endpoint_auth_signing_alg_values_supported": list(self.algorithms),
        }

    @hookimpl
    def client_metadata(self) -> Mapping[str, ReadMember]:
        return {KEYS: _read_keys, KEYS_ADDRESS: _read_address, ALGORITHM: self._read_algorithm}

    @hookimpl
    def client_proofs(self) -> Mapping[str, ClientProof]:
        return {METHOD: ClientProof(prove=self.prove, check=self.check, stand_in={KEYS: _NOBODYS})}

    @hookimpl
    def client_auth_decision(self, client: Client, credentials: Credentials) -> Decision[None] | None:
        if client.auth_method == METHOD and credentials.is_proven:
            return allow("client-assertion-verified")
        return None

    def check(self, metadata: ClientMetadata) -> None:
        """Check that a client with this metadata could sign an assertion. Raises InvalidClientMetadata."""
        keys, address = metadata.details.get(KEYS), metadata.details.get(KEYS_ADDRESS)
        if (keys is None) == (address is None):
            if keys is None:
                problem, reason = f"{METHOD} needs {KEYS} or {KEYS_ADDRESS}.", "client-keys-missing"
            else:
                problem, reason = f"{KEYS} and {KEYS_ADDRESS} exclude each other.", ""
            raise InvalidClientMetadata(problem, reason=reason)
        algorithm = metadata.details.get(ALGORITHM)
        allowed = self._allowed(algorithm)
        if keys is not None and not any(
            is_same_algorithm(key.algorithm, each)
            for _, key in _keys(_text(keys), algorithm).keys
            for each in allowed
        ):
            raise InvalidClientMetadata(f"{KEYS} holds no key for {' or '.join(allowed)}.")

    def prove(self, engine: Engine, client: Client, credentials: Credentials) -> tuple[SingleUse, ...]:
        """The `jti` of the client's assertion, which it uses up (RFC 7523, 3).

        Raises:
            InvalidClient: the assertion is missing or not accepted, or was used before.
            TemporarilyUnavailable: the keys of the client cannot be fetched now.
            TooManyRequests: too many documents that this source named could not be fetched.
        """
        try:
            if credentials.assertion is None:
                raise BadAssertion("assertion-missing")
            if credentials.assertion_type != ASSERTION_TYPE:
                raise BadAssertion("assertion-type-unknown")
            claims = self._claims(engine, client, credentials.assertion)
            if claims["sub"] != client.client_id:
                raise BadAssertion("assertion-subject-differs")
            use = single_use(
                claims,
                lifetime=self.lifetime,
                refusal=InvalidClient(_REFUSED, reason="client-assertion-replayed"),
                purpose=METHOD,
            )
        except BadAssertion as bad:
            # These reasons have names of their own, because their remedies differ from those for assertions of issuers.
            raise InvalidClient(_REFUSED, reason=f"client-{bad.reason}") from None
        except FetchFailed as failure:
            raise _without_keys(failure) from None
        # A replay of a client's assertion is refused before anything else is checked (T051).
        if is_used(engine, use):
            raise use.refusal
        return (use,)

    def _claims(self, engine: Engine, client: Client, text: str) -> Mapping[str, Any]:
        """The claims of an assertion that the client signed.

        Raises:
            BadAssertion: the assertion is not accepted.
            FetchFailed: the keys of the client cannot be fetched.
        """
        try:
            return self._verified(engine, client, text)
        except BadAssertion as bad:
            if bad.reason not in _KEY_MAY_BE_NEW or KEYS_ADDRESS not in client.details:
                raise
        # Fetch the keys again once, and not more often than the kind allows: anybody can name an unknown key (J-15).
        return self._verified(engine, client, text, again=True)

    def _verified(
        self, engine: Engine, client: Client, text: str, *, again: bool = False
    ) -> Mapping[str, Any]:
        algorithm = client.details.get(ALGORITHM)

        def keys_of(issuer: str) -> TrustedKeys | None:
            # The keys are fetched only now, so that a form that names a client is not enough to cause a request.
            return _keys_of(engine, client, algorithm, again=again) if issuer == client.client_id else None

        at_token_endpoint = self.token_endpoint_audience and engine.caller.endpoint == "token"
        return verify_assertion(
            engine,
            text,
            keys_of,
            typ=TYPE,
            lifetime=self.lifetime,
            algorithms=self._allowed(algorithm),
            audiences=(engine.caller.url,) if at_token_endpoint else (),
        )

    def _allowed(self, algorithm: str | None) -> tuple[str, ...]:
        """The algorithms that a client may use if it is registered for this algorithm, or for none."""
        return tuple(each for each in self.algorithms if algorithm in (None, each))

    def _read_algorithm(self, name: str, value: object) -> str:
        if not isinstance(value, str) or value not in self.algorithms:
            raise InvalidClientMetadata(f"{name} must be one of {' '.join(self.algorithms)}.")
        return value


def _keys_of(engine: Engine, client: Client, algorithm: str | None, *, again: bool) -> TrustedKeys:
    """The keys that the client signs with. Raises BadAssertion, FetchFailed, TooManyRequests."""
    try:
        if KEYS in client.details:
            return _keys(_text(client.details[KEYS]), algorithm)
        if KEYS_ADDRESS in client.details:
            fetched = fetch_named(engine, KEY_SET, client.details[KEYS_ADDRESS], again=again)
            return _keys(fetched.value, algorithm)
    except ValueError:
        # The client comes from a plugin, or an earlier version stored the keys.
        raise BadAssertion("keys-refused") from None
    raise BadAssertion("keys-missing")


def _without_keys(failure: FetchFailed) -> InvalidClient | TemporarilyUnavailable:
    """The refusal if the keys of a client cannot be fetched. A temporary failure is not `invalid_client`, after which
    clients forget their registration (F-14).
    """
    refused: InvalidClient | TemporarilyUnavailable
    if failure.is_temporary:
        refused = TemporarilyUnavailable(
            _UNREACHABLE,
            reason="client-keys-unreachable",
            retry_after=failure.seconds_to_wait or WAIT,
        )
    else:
        refused = InvalidClient(_REFUSED, reason="client-keys-refused")
    refused.facts = {name: str(fact) for name, fact in failure.facts().items()}
    return refused


@lru_cache(maxsize=1000)
def _keys(text: bytes, algorithm: str | None) -> TrustedKeys:
    """The keys of a JWK Set. They are cached, because to import keys takes longer than to verify. Raises ValueError."""
    return TrustedKeys.read(text, algorithm=algorithm)


def _text(keys: object) -> bytes:
    return json.dumps(keys, separators=(",", ":")).encode()


def _read_document(reply: Reply) -> bytes:
    """The key set at a `jwks_uri`, unchanged, because the algorithm of a key may depend on the client."""
    _keys(reply.body, None)
    return reply.body


# If the key server of a client fails, its last good keys are used for a day. A withdrawn key is refused after an hour.
KEY_SET = DocumentKind(
    name="key set",
    read=_read_document,
    accept="application/jwk-set+json, application/json",
    maximum=32_768,
    maximum_age=3600,
    last_good_for=86_400,
)


def _read_keys(name: str, value: object) -> object:
    """The key set of a client, unchanged; an empty one counts as absent. Raises InvalidClientMetadata."""
    if value == {"keys": []}:
        return None
    try:
        _keys(_text(value), None)
    except ValueError as error:
        raise InvalidClientMetadata(f"{name}: {error}.") from None
    return value


def _read_address(name: str, value: object) -> str:
    """The address of a key set. Raises InvalidClientMetadata."""
    if not isinstance(value, str):
        raise InvalidClientMetadata(f"{name} must be a string.")
    if problem := fetched_problem(value):
        raise InvalidClientMetadata(f"{name}: {problem}")
    return value
