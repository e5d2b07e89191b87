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

A plugin may declare four things as class variables or properties; they are not settings. `reasons`: every reason
that its decisions and errors may have; operators, counters and translations use them, and the contract kit
(`authserver.testing.contract`) refuses a decision with any other. It may be a mapping from each reason to its remedy,
which `authserver explain` shows; the remedy is "" for a mistake of the client or user. `immediate`: True if the plugin
asks no other service, uses no network and reads no slow file; the server then calls it directly, which is faster, and
sets no time limit. Any other plugin has `authserver.policy_time_limit` seconds, in a thread of its own. `serves`: the
hooks that this plugin serves, if its settings decide that; without it, all that it implements. `insecure`: a sentence
for each value that must not be set in production; a development server logs them, a production server does not start.

A plugin may have two methods that are not hooks. `prepare()`, called once at start, opens what the plugin works with,
or raises ValueError with a sentence; `close()` closes it at the end. A plugin that keeps something it has opened is a
`@dataclass(eq=False)`; any other is a frozen dataclass.

For editors and type checkers: each hook has a `Protocol`, such as `ScopeDecisionHook` for `scope_decision`. A plugin
that inherits from it takes the arguments as keywords, and the rest as `**others` (`authserver.protocols`).

For one implementation of several deciding hooks: `DECIDING` has every deciding hook by name, and an implementation
that takes `question` gets the whole `Question`, whose `facts()` hold no secret.

For grant types (`grant_types`): a grant type takes an `Engine`, a `Client` and `Parameters`, and returns an `Issue`
with a `Grant` (the function is a `Redeem`); `requested_scopes`, `allowed_scopes` and `allowed_resources` ask the
policies and apply the floor; `InvalidGrant`, `InvalidRequest`, `InvalidScope`, `InvalidTarget` and
`UnauthorizedClient` are its refusals; `verify_assertion`, `single_use` and `TrustedKeys` are for assertions that
other issuers signed.

For people (`login_decision`): `Identity` is the answer; `normalise_username` gives the form in which a user name is
stored and compared. For the sign-in behind an authorization request (`authentication_decision`):
`AuthenticationStep` is the answer.

For how often (`rate_decision`): `Counted` is what the engine asks about, a `RateStep` what is to be done, and `Wait` goes
into a `deny`. An endpoint of a plugin asks with `claim_rate`; `SELF_REGISTERED` is the one client that all clients are
which registered themselves, and `network_of` gives what counts as one source. A plugin with the methods `usage` (of
`Usage`) and `lift` is shown by `authserver limits`.

For client metadata (`client_metadata`): `read_flag` reads a member that is true or false, and `InvalidClientMetadata`
refuses one.

For endpoints (`config.add_endpoint` in `includeme`): a `Route` gives the path of one, its kind of response (`Medium`)
and the web `Origins` that may read it. `read_form` reads a `Request`, `authenticate` authenticates its client as the
token endpoint does, `json_response` makes a response, and an `OAuthError` becomes an error in the medium of the
endpoint. `read_bearer` reads an access token from the Authorization header of the caller, `find_issued` finds the
`Issued` behind it, and `InvalidToken` refuses it. `config.add_cross_origin_headers` allows more headers to other
origins. `config.add_well_known` adds a document about the issuer at its well-known address.

For authorization requests (`expand_authorization_request`): `Expanded` is the answer, `check_request` makes all checks
that do not depend on a user; `engine.ring` seals, `to_text` and `from_text` convert what is sealed.

For small records that expire (`engine.stores.kept`): `Kept` is one; its kind is a name that the plugin chooses, its
`digest` is that of a `new_credential` or of another text, and `well_formed` refuses, without a look into the database,
what this server cannot have made.

For documents at URLs that somebody else named, such as a client (`engine.fetcher`): `DocumentKind` says how a kind of
document is read and how long it may be used, `fetch` returns a `Document`, and `FetchFailed` says why there is none, by
its `FetchProblem`. `post` sends something to such a URL and returns the `Reply`. For a URL of the operator's, which may
be inside the operator's network, make a `Service` in `prepare`.

For keys that clients prove (`token_binding`): `Binding` is the answer; `read_jws` parses a JWS, and `foreign_key` reads
the key that signed it. Something that may be used only once is a `SingleUse` among the `uses` of a `Binding` or an
`Issue`: the server claims it when it issues, after the last question to a plugin. An endpoint of a plugin asks for the
key with `proven_key`, and claims with `claim`. Refuse what is not stored and is not `of_this_generation`: it was made
before the database was restored.
"""

from authserver.engine.asking import OFFLINE_ACCESS, allowed_resources, allowed_scopes, requested_scopes
from authserver.engine.authorize import Expanded, check_request
from authserver.engine.clients.authentication import authenticate, read_bearer
from authserver.engine.clients.client_metadata import read_flag
from authserver.engine.clients.registration import INITIAL_ACCESS_TOKEN_REQUIRED, RESERVED_PREFIXES
from authserver.engine.context import Binding, Engine, Issue, ReadMember, Redeem, SingleUse
from authserver.engine.crypto.digests import (
    digest,
    equal,
    new_credential,
    new_identifier,
    verify_password,
    well_formed,
)
from authserver.engine.crypto.jose import FOREIGN_ALGORITHMS, ForeignKey, Jws, foreign_key, read_jws
from authserver.engine.crypto.sealing import Unsealable, from_text, to_text
from authserver.engine.decisions import Decision, Wait, allow, deny, narrow
from authserver.engine.documents import Document, DocumentKind, FetchFailed, FetchProblem, Reply
from authserver.engine.errors import (
    InvalidClientMetadata,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    InvalidToken,
    OAuthError,
    TooManyRequests,
    UnauthorizedClient,
)
from authserver.engine.parameters import Parameters
from authserver.engine.people.usernames import normalise_username
from authserver.engine.questions import (
    AuthenticationStep,
    Counted,
    Credentials,
    Identity,
    IntrospectedToken,
    Question,
    RateQuestion,
    RateStep,
)
from authserver.engine.rates import SELF_REGISTERED, Usage, network_of
from authserver.engine.rates import claim as claim_rate
from authserver.engine.records import (
    Client,
    ClientMetadata,
    Consent,
    Event,
    Grant,
    Kept,
    RegisteredBy,
    Session,
    Token,
    TokenKind,
    User,
)
from authserver.engine.token import proven_key
from authserver.engine.tokens.assertions import BadAssertion, TrustedKeys, single_use, verify_assertion
from authserver.engine.tokens.issued import Issued, find_issued
from authserver.engine.tokens.once import claim, of_this_generation
from authserver.engine.uris import (
    canonical_resource,
    fitting_application_type,
    redirect_uri_problem,
    same_loopback_redirect_uri,
)
from authserver.fetching.service import Service
from authserver.hookspecs import DECIDING, hookimpl
from authserver.ini import did_you_mean
from authserver.limits import MAXIMUM_BODY, MAXIMUM_IDENTIFIER, MAXIMUM_PARAMETER
from authserver.protocols import (
    AuthenticationDecisionHook,
    ClientAuthDecisionHook,
    ClientMetadataHook,
    CodeDetailsHook,
    ConsentDecisionHook,
    ExpandAuthorizationRequestHook,
    FindClientHook,
    GrantTypesHook,
    IncludemeHook,
    IntrospectionDecisionHook,
    LoginDecisionHook,
    ObserveHook,
    PrivateUseRedirectUrisHook,
    RateDecisionHook,
    RedirectUriDecisionHook,
    RegistrationDecisionHook,
    ResourceDecisionHook,
    ScopeDecisionHook,
    ScopesHook,
    ServerMetadataHook,
    TokenBindingHook,
    TokenClaimsHook,
    TokenResponseHook,
)
from authserver.settings import LOOPBACK_HOSTS, Secret
from authserver.web.forms import read_form
from authserver.web.json import json_response
from authserver.web.request import Request
from authserver.web.route import Medium, Origins, Route

__all__ = [
    "DECIDING",
    "FOREIGN_ALGORITHMS",
    "INITIAL_ACCESS_TOKEN_REQUIRED",
    "LOOPBACK_HOSTS",
    "MAXIMUM_BODY",
    "MAXIMUM_IDENTIFIER",
    "MAXIMUM_PARAMETER",
    "OFFLINE_ACCESS",
    "RESERVED_PREFIXES",
    "SELF_REGISTERED",
    "AuthenticationDecisionHook",
    "AuthenticationStep",
    "BadAssertion",
    "Binding",
    "Client",
    "ClientAuthDecisionHook",
    "ClientMetadata",
    "ClientMetadataHook",
    "CodeDetailsHook",
    "Consent",
    "ConsentDecisionHook",
    "Counted",
    "Credentials",
    "Decision",
    "Document",
    "DocumentKind",
    "Engine",
    "Event",
    "ExpandAuthorizationRequestHook",
    "Expanded",
    "FetchFailed",
    "FetchProblem",
    "FindClientHook",
    "ForeignKey",
    "Grant",
    "GrantTypesHook",
    "Identity",
    "IncludemeHook",
    "IntrospectedToken",
    "IntrospectionDecisionHook",
    "InvalidClientMetadata",
    "InvalidGrant",
    "InvalidRequest",
    "InvalidScope",
    "InvalidTarget",
    "InvalidToken",
    "Issue",
    "Issued",
    "Jws",
    "Kept",
    "LoginDecisionHook",
    "Medium",
    "OAuthError",
    "ObserveHook",
    "Origins",
    "Parameters",
    "PrivateUseRedirectUrisHook",
    "Question",
    "RateDecisionHook",
    "RateQuestion",
    "RateStep",
    "ReadMember",
    "Redeem",
    "RedirectUriDecisionHook",
    "RegisteredBy",
    "RegistrationDecisionHook",
    "Reply",
    "Request",
    "ResourceDecisionHook",
    "Route",
    "ScopeDecisionHook",
    "ScopesHook",
    "Secret",
    "ServerMetadataHook",
    "Service",
    "Session",
    "SingleUse",
    "Token",
    "TokenBindingHook",
    "TokenClaimsHook",
    "TokenKind",
    "TokenResponseHook",
    "TooManyRequests",
    "TrustedKeys",
    "UnauthorizedClient",
    "Unsealable",
    "Usage",
    "User",
    "Wait",
    "allow",
    "allowed_resources",
    "allowed_scopes",
    "authenticate",
    "canonical_resource",
    "check_request",
    "claim",
    "claim_rate",
    "deny",
    "did_you_mean",
    "digest",
    "equal",
    "find_issued",
    "fitting_application_type",
    "foreign_key",
    "from_text",
    "hookimpl",
    "json_response",
    "narrow",
    "network_of",
    "new_credential",
    "new_identifier",
    "normalise_username",
    "of_this_generation",
    "proven_key",
    "read_bearer",
    "read_flag",
    "read_form",
    "read_jws",
    "redirect_uri_problem",
    "requested_scopes",
    "same_loopback_redirect_uri",
    "single_use",
    "to_text",
    "verify_assertion",
    "verify_password",
    "well_formed",
]
