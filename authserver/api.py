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
`verify_assertion`, `single_use` and `TrustedKeys` are for what others signed.

For people (`login_decision`): `Identity` is the answer; `normalise_username` gives the form in which a user name is
stored and compared.

For endpoints (`config.add_json_endpoint` in `includeme`): `read_form` reads a `Request`, `authenticate` proves its
client as the token endpoint does, `json_response` answers, and an `OAuthError` becomes a JSON error.
`config.add_well_known` adds a document about the issuer where clients look for it.

For authorization requests (`expand_authorization_request`): `Expanded` is the answer, `check_request` checks what
needs nobody signed in; `engine.ring` seals, `to_text` and `from_text` carry what is sealed.

For keys that clients prove (`token_binding`): `Binding` is the answer, `InvalidDpopProof` a refusal; `read_jws` takes
a JWS apart, and `foreign_key` reads the key that made it. What counts once is a `SingleUse` among the `uses` of a
`Binding` or an `Issue`: the server claims it when it issues, after the last question to a plugin. An endpoint of your
own asks for the key with `proven_key`, and claims with `claim`. What is stored nowhere and was made before the database was restored is not `of_this_generation`: refuse it.
"""

from authserver.engine.asking import OFFLINE_ACCESS, allowed_resources, allowed_scopes, requested_scopes
from authserver.engine.authorize import Expanded, check_request
from authserver.engine.clients.authentication import Credentials, authenticate
from authserver.engine.clients.registration import INITIAL_ACCESS_TOKEN_REQUIRED, ClientMetadata
from authserver.engine.context import Binding, Engine, Issue, Redeem, SingleUse
from authserver.engine.crypto.digests import equal, new_identifier, verify_password
from authserver.engine.crypto.jose import FOREIGN_ALGORITHMS, ForeignKey, Jws, foreign_key, read_jws
from authserver.engine.crypto.sealing import Unsealable, from_text, to_text
from authserver.engine.decisions import Decision, allow, deny, narrow
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
from authserver.engine.parameters import Parameters
from authserver.engine.people.login import Identity
from authserver.engine.people.usernames import normalise_username
from authserver.engine.questions import facts_of
from authserver.engine.records import Client, Consent, Event, Grant, RegisteredBy, User
from authserver.engine.token import proven_key
from authserver.engine.tokens.assertions import BadAssertion, TrustedKeys, single_use, verify_assertion
from authserver.engine.tokens.once import claim, of_this_generation
from authserver.engine.uris import (
    canonical_resource,
    fitting_application_type,
    redirect_uri_problem,
    same_loopback_redirect_uri,
    same_redirect_uri,
)
from authserver.hookspecs import hookimpl
from authserver.limits import MAXIMUM_IDENTIFIER
from authserver.settings import Secret
from authserver.web.forms import read_form
from authserver.web.json import json_response
from authserver.web.request import Request

__all__ = [
    "FOREIGN_ALGORITHMS",
    "INITIAL_ACCESS_TOKEN_REQUIRED",
    "MAXIMUM_IDENTIFIER",
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
    "Request",
    "Secret",
    "SingleUse",
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
    "claim",
    "deny",
    "equal",
    "facts_of",
    "fitting_application_type",
    "foreign_key",
    "from_text",
    "hookimpl",
    "json_response",
    "narrow",
    "new_identifier",
    "normalise_username",
    "of_this_generation",
    "proven_key",
    "read_form",
    "read_jws",
    "redirect_uri_problem",
    "requested_scopes",
    "same_loopback_redirect_uri",
    "same_redirect_uri",
    "single_use",
    "to_text",
    "verify_assertion",
    "verify_password",
]
