"""All that a plugin may import.

from dataclasses import dataclass
from typing import ClassVar
from authserver.api import allow, hookimpl

@dataclass(frozen=True)
class NightShift:
    reasons: ClassVar[frozenset[str]] = frozenset({"not-on-shift"})
    immediate: ClassVar[bool] = True

    team: str = "operations"

    @hookimpl
    def scope_decision(self, client, requested): ...

Two things a deciding plugin says of itself, as class variables, which are no settings. `reasons`: every reason that
its decisions may have; operators, counters and translations know it by them, and the contract kit
(`authserver.testing.contract`) refuses any other. `immediate`: that it asks nobody outside, no network and no slow
file; the server then calls it directly, which is faster, and does not time it. Without it a plugin has
`authserver.policy_time_limit` seconds, in a thread of its own.

For grant types (`grant_types`): `Engine`, `Parameters`, `Issue`, `Grant` and `Redeem` are what a grant is handed and
what it says; `requested_scopes`, `allowed_scopes` and `allowed_resources` ask the policies and hold the floor;
`InvalidGrant`, `InvalidRequest`, `InvalidScope`, `InvalidTarget` and `UnauthorizedClient` are its refusals;
`verify_assertion`, `use_once` and `TrustedKeys` are for what others signed.

For endpoints (`config.add_json_endpoint` in `includeme`): `read_form` and `headers_of` read a request, `authenticate`
proves its client as the token endpoint does, `json_response` answers, and an `OAuthError` becomes a JSON error.

For authorization requests (`expand_authorization_request`): `Expanded` is the answer, `check_request` checks what
needs nobody signed in; `engine.keys` seals, `to_text` and `from_text` carry what is sealed.

For keys that clients prove (`token_binding`): `Binding` is the answer, `InvalidDpopProof` a refusal; `read_jws` takes
a JWS apart, `foreign_key` reads the key that made it, and `first_use` says whether it was seen before. What is
stored nowhere and was made before the database was restored is not `of_this_generation`: refuse it.
"""

from authserver.engine.asking import OFFLINE_ACCESS, allowed_resources, allowed_scopes, requested_scopes
from authserver.engine.assertions import BadAssertion, TrustedKeys, use_once, verify_assertion
from authserver.engine.authorize import Expanded, check_request
from authserver.engine.clients import Credentials, authenticate
from authserver.engine.context import Binding, Engine, Issue, Redeem
from authserver.engine.decisions import Decision, allow, deny, narrow
from authserver.engine.digests import equal, new_identifier, verify_password
from authserver.engine.errors import (
    InvalidDpopProof,
    InvalidGrant,
    InvalidRequest,
    InvalidRequestUri,
    InvalidScope,
    InvalidTarget,
    OAuthError,
    UnauthorizedClient,
)
from authserver.engine.introspect import IntrospectedToken
from authserver.engine.jose import FOREIGN_ALGORITHMS, ForeignKey, Jws, foreign_key, read_jws
from authserver.engine.login import Identity
from authserver.engine.once import first_use, of_this_generation
from authserver.engine.parameters import LONGEST_TEXT, Parameters
from authserver.engine.questions import facts_of
from authserver.engine.records import Client, Consent, Event, Grant, RegisteredBy, User
from authserver.engine.register import INITIAL_ACCESS_TOKEN_REQUIRED, ClientMetadata
from authserver.engine.sealing import Unsealable, from_text, to_text
from authserver.engine.uris import (
    canonical_resource,
    fitting_application_type,
    redirect_uri_problem,
    same_loopback_redirect_uri,
    same_redirect_uri,
)
from authserver.hookspecs import hookimpl
from authserver.settings import Secret
from authserver.web.forms import headers_of, read_form
from authserver.web.json import json_response

__all__ = [
    "FOREIGN_ALGORITHMS",
    "INITIAL_ACCESS_TOKEN_REQUIRED",
    "LONGEST_TEXT",
    "OFFLINE_ACCESS",
    "BadAssertion",
    "Binding",
    "Client",
    "ClientMetadata",
    "Consent",
    "Credentials",
    "Decision",
    "Engine",
    "Event",
    "Expanded",
    "ForeignKey",
    "Grant",
    "Identity",
    "IntrospectedToken",
    "InvalidDpopProof",
    "InvalidGrant",
    "InvalidRequest",
    "InvalidRequestUri",
    "InvalidScope",
    "InvalidTarget",
    "Issue",
    "Jws",
    "OAuthError",
    "Parameters",
    "Redeem",
    "RegisteredBy",
    "Secret",
    "TrustedKeys",
    "UnauthorizedClient",
    "Unsealable",
    "User",
    "allow",
    "allowed_resources",
    "allowed_scopes",
    "authenticate",
    "canonical_resource",
    "check_request",
    "deny",
    "equal",
    "facts_of",
    "first_use",
    "fitting_application_type",
    "foreign_key",
    "from_text",
    "headers_of",
    "hookimpl",
    "json_response",
    "narrow",
    "new_identifier",
    "of_this_generation",
    "read_form",
    "read_jws",
    "redirect_uri_problem",
    "requested_scopes",
    "same_loopback_redirect_uri",
    "same_redirect_uri",
    "to_text",
    "use_once",
    "verify_assertion",
    "verify_password",
]
