"""Everything that a plugin may import.

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
(`authserver.testing.contract`) refuses a decision with another reason. It may be a mapping from each reason to its remedy,
which `authserver explain` shows; the remedy is "" for a mistake of the client or user. `immediate`: True if the plugin
asks no other service, uses no network and reads no slow file; the server then calls it directly, which is faster, and
sets no time limit. Every other plugin has `authserver.policy_time_limit` seconds, in a thread of its own, and
`authserver.fetch_time_limit` seconds more if it takes `engine`, with which it can fetch. `serves`: the
hooks that this plugin serves, if its settings decide that; without it, all that it implements. `insecure`: a sentence
for each value that must not be set in production; a development server logs them, a production server does not start.

A plugin may have three methods that are not hooks. `prepare()`, called once at start, opens files, connections and the
like, or raises ValueError with a sentence; `close()` closes them at the end. `check_services()` is called when a server
starts, not for commands and not in a process that replaces another one: it raises ValueError with a sentence if a service
that the plugin asks does not answer. A plugin that keeps something open is a `@dataclass(eq=False)`; every other plugin
is a frozen dataclass.

For editors and type checkers: each hook has a `Protocol`, such as `ScopeDecisionHook` for `scope_decision`. A plugin
that inherits from it takes the arguments as keywords, and the rest as `**others` (`authserver.protocols`).

For one implementation of several deciding hooks: `DECIDING` has every deciding hook by name, and an implementation
that takes `question` gets the whole `Question`, whose `facts()` hold no secret.

For grant types (`grant_types`): a grant type takes an `Engine`, a `Client` and `Parameters`, and returns an `Issue`
with a `Grant` (the function is a `Redeem`); `requested_scopes`, `allowed_scopes` and `allowed_resources` ask the
policies and apply the floor; `InvalidGrant`, `InvalidRequest`, `InvalidScope`, `InvalidTarget` and
`UnauthorizedClient` are its refusals; `verify_assertion`, `single_use` and `TrustedKeys` are for assertions that
other issuers signed. A grant from a token or an assertion is made only with `derive`: its `Parent` is the result of
`parent_of_token` or `parent_of_assertion`, which raise `NotLive`; `acted` adds the client that acts to the actors, and
`actors_of` reads them.

For grant types that ask people on pages of their own: an `Agreement` is the question to a person, `consents_already` asks
the policies, `complete_parameters` and `required_sign_in` say which sign-in is needed, and `agreement_problem` says why an
answer is not valid; `hold_session` comes before the first write, `agree` makes the grant, `keep_approved` stores it with a
code, and `decline` notes a refusal. A client redeems the code with `check_approved` and `redeem_approved`.
`describe_client`, `named_resources`, `scope_sentences` and `grouped_scopes` return the values that a page may show;
`ON_ANOTHER_DEVICE` marks the grant.

For people (`login_decision`): `Identity` is the answer; `normalise_username` gives the form in which a user name is
stored and compared. For the sign-in behind an authorization request (`authentication_decision`):
`AuthenticationStep` is the answer, or a `SignIn`, which also says why, or which level was reached.

For people who sign in at another server (`identity_decision`): `VouchedIdentity` is the verified identity there, and
`joined_user` returns the user to whom it is joined. `sign_in_vouched` begins a session, or raises `SignInRefused`;
`join_identity` joins the identity to the account in which the person is signed in, unless it belongs to somebody else
(`IdentityTaken`); `remove_identity` removes it; `identity_handle` names it in forms. `config.add_sign_in_way` adds a
`SignInWay` to the sign-in page; its page reads the `Purpose` of the sign-in with `read_purpose`, finds the application that
asks with `requester_of`, and ends with `begin_and_go_on`, or with `go_on` if somebody is signed in already.
`browser_handle` marks the `Browser`, and `is_marked` says whether it is the same one. `verify_for_us` verifies a token that
the other server made for this one. `THROUGH` is the member of a session's details that names the other server, and
`end_through` ends everything that came through that server.

For limits (`rate_decision`): `Counted` is the kind of action, a `RateStep` says what to do, and `Wait` goes into a `deny`.
An endpoint of a plugin asks with `claim_rate`, and takes a claim back with `give_back_rate`; all clients that registered
themselves count as one client, `SELF_REGISTERED`. `authserver limits` shows a plugin with `is_shared` and the methods
`table`, `usage` (of `Usage`) and `lift`. `network_of` returns the network that counts as one source.

For registrations (`registration_decision`): an `InitialAccessToken` names a policy. A plugin with such policies has a
method `registration_policies` that returns their names, and refuses a token with another policy with the reason
`REGISTRATION_POLICY_UNKNOWN`.

For scripts of other origins (`origin_decision`): `origin_problem` says why a text cannot be an origin.

For client metadata (`client_metadata`): `read_flag` reads a member that is true or false, `link_problem` says why a text
cannot be an https address, and `InvalidClientMetadata` refuses one.

For clients that are kept elsewhere (`find_client`): `describe_elsewhere` makes a client from the metadata that another
place has, within limits and with the rules of registration; `read_metadata` only checks the form; `link_problem`,
`fetched_problem` and `is_loopback` check an address; and `InvalidClient` refuses the client.

For registrations: `expand_registration` adds members to those that a client sends, and a `Welcome` is the answer of
`registration_response`. `update_registration` and `remove_registration` are for a client that has authenticated: they check
and write its changes to its own registration, and `as_managed` notes that it changed itself; `AccessDenied` says that it
may not, and `ChangedMeanwhile` that somebody else changed it. `read_object` reads the members that it sends, `is_secret_of`
compares a secret among them, and `describe_registration` returns the registered ones.
`verify_statement` verifies what a trusted issuer says of a program, and `TRUSTED_ALGORITHMS` are those of `TrustedKeys`;
`is_same_algorithm` says whether two of these names mean the same algorithm.

For endpoints (`config.add_endpoint` in `includeme`): a `Route` has the path of the endpoint, its kind of response
(`Medium`) and the web `Origins` that may read it. An endpoint that answers JSON has a transaction of its own, which ends
with its view; a page has that of `request.tm`. `EventType` has the types of the events of its refusals. `read_form` reads
the form of a `Request`, `read_json` its JSON body and `read_query` its address. `authenticate` authenticates its client
as the token endpoint does; an endpoint that asks plugins afterwards calls `proven_client`, and claims the `uses` at the
end. `json_response` makes a response, and an `OAuthError` becomes an error in the medium of the endpoint;
`TemporarilyUnavailable` says that trying again may help. `read_bearer` reads an access token from the Authorization
header of the caller, `find_issued` finds the stored token (`Issued`), and `InvalidToken` refuses it.

A page for signed-in people (`personal` in its `Route`) reads its address with `read_page_query` and its form with
`read_own_form`, whose token is the `session_token`; `see_login` sends other people to sign in and back, `see_other`
redirects to another address, `own_url` returns the address of a page, and a `PageError` is shown as a page.
`config.add_account_tab` adds a page to people's accounts, and `account_page` renders it with links to the others. For a
redirect URI, `display_host` returns the text that a page may show, `origin_of` the origin, and `form_target` the target
for `form-action`. A page that ends the session of its browser calls `sign_out_here`; `session_handle` is the public
handle of that session, as in a grant. A form that other sites may send is read with `read_page_form`, `see_own`
redirects to a page of this server, and `in_words` translates the reason of a refusal. `translatable`, imported as `_`,
marks a sentence for the catalogues. If a form leads to an application, its page calls `let_forms_lead_on`, and its
answer is that of `lead_on`; `with_query` adds parameters to an accepted address. `InsufficientScope` refuses a token
without the needed scope, with a challenge. `config.add_cross_origin_headers` allows more headers to other origins.
`config.add_well_known` adds a document about the issuer at its well-known address; `metadata_document` answers with the
server metadata, whose operation is `METADATA_DOCUMENT`.

For an endpoint with problem details (RFC 9457): its `Medium` is `PROBLEM`; it raises a `Problem` of a `Kind`, or
`NothingThere`. The path of a `Route` may have placeholders such as `{name}`, which are in `request.matchdict`.
`read_json_object` reads an object strictly, `object_schema` is the schema of one, and `or_not_modified` answers 304. A
plugin that serves a resource itself declares it in a mapping `own_resources`, by the path below the issuer. A plugin with
which members of groups administer this server names the groups in a mapping `operator_groups`, so that operators with
fewer rights cannot take over their accounts. `describe_issued` returns the introspection of a token. The acts of operators
are in `authserver.administration`.

For requests as a whole (`observe_request`): a `Timeline` has the ids of a request, how it was answered, and the work for
it, in which each `Span` has its `SpanKind`.

For the OpenAPI document (`authserver openapi`): the `Operation` of a `Route` describes the requests, answers and errors of
the endpoint; each `Parameter` has its JSON Schema. Additions of a plugin to other operations are in its class variable
`described`, a mapping of `Described`. `AUTHORIZATION_REQUEST` and `AUTHORIZATION_ERRORS` are the parameters and the errors
of an authorization request, `SCOPE_PARAMETER` and `RESOURCE_PARAMETER` are parameters for grant types, `CLIENT_METADATA` is
the metadata that a client sends, and `CLIENT_INFORMATION` the metadata that it gets back; `Bearer` is a kind of bearer
token, and `FLAG` and `TEXT` are the schemas of a member that is true or false, and of a text that is not empty.

For authorization requests (`expand_authorization_request`): `Expanded` is the answer, `check_request` makes all checks
that do not depend on a user; `engine.ring` seals, and `to_text` and `from_text` convert sealed bytes.

For small records that expire (`engine.stores.kept`): a `Kept` has a kind, which is a name that the plugin chooses, and a
`digest`, which is that of a `new_credential` or of another text. `well_formed` refuses a credential that this server cannot
have made, without a query to the database.

For mail (`send_mail`): a `Mail` is the message, `MailFailed` says that it was not sent, and whether another attempt can
help; `mail_address_problem` says why a text cannot be an address.

For documents at URLs that somebody else named, such as a client (`engine.fetcher`): `DocumentKind` says how a kind of
document is read and how long it may be used, `fetch` returns a `Document`, and `FetchFailed` says why there is none, with
its `FetchProblem`. `post` sends something to such a URL and returns the `Reply`. For a URL that the operator set, which may
be inside the operator's network, make a `Service` in `prepare`.

For methods of client authentication (`client_proofs`): a `ClientProof` checks the proof of a client, `InvalidClient`
refuses it, and `is_used` says early that a `SingleUse` was used before. `verify_assertion`, `single_use` and `TrustedKeys`
are for assertions that clients sign.

For assertions of trusted issuers (`assertion_profiles`): an `AssertionProfile` gives them a meaning, and returns a
`Vouched`; `issuer_options` reads the options for the profile in the entry of an issuer, a `TrustedIssuer`. `vouched_user`
and `new_vouched_user` join a person to issuer, tenant and subject; `scope_set` reads a `scope`.

For types of tokens that clients exchange (`exchangeable_tokens`): an `ExchangeableToken` reads such a token, and returns a
`Presented`, or makes one, as the `OtherToken` of an `Issue`; `parent_of_grant` and `parent_of_token` check everything that
must be live.

For events that are sent elsewhere (`observe`, `deliver`): `event_as_json` returns all members of an `Event`, and a
`Service` sends it. The handles of the sessions that ended are the `ENDED_SESSIONS` of its details. To read or keep
something else, use the transaction of a `Begin`; a `GrantFilter` selects grants.

For response modes (`response_modes`): a `Respond` makes the HTTP response. For agreements (`grant_details`):
`AuthenticationRefused` refuses the signed-in person, with an error code for the client. For claims about people
(`person_claims`): a `ServerError` says that a plugin is at fault.

For keys that clients prove (`token_binding`): `Binding` is the answer; `read_jws` parses a JWS, and `foreign_key` reads
the key that signed it. Something that may be used only once is a `SingleUse` among the `uses` of a `Binding` or an
`Issue`: the server claims it when it issues, after the last question to a plugin. An endpoint of a plugin asks for the
key with `proven_key`, and claims with `claim`. Refuse a single use that is not stored and not `of_this_generation`: it may
have been used before the database was restored.
"""

from authserver.engine.asking import OFFLINE_ACCESS, allowed_resources, allowed_scopes, requested_scopes
from authserver.engine.audit import as_json as event_as_json
from authserver.engine.authorization_request import Expanded, check_request, kept_with_grant, required_sign_in
from authserver.engine.authorization_request import complete as complete_parameters
from authserver.engine.clients.authentication import proven_client, read_bearer
from authserver.engine.clients.client_metadata import read_flag, read_members, read_metadata, read_object
from authserver.engine.clients.editing import ChangedMeanwhile, as_managed
from authserver.engine.clients.editing import remove as remove_registration
from authserver.engine.clients.editing import update as update_registration
from authserver.engine.clients.registration import (
    INITIAL_ACCESS_TOKEN_REQUIRED,
    REGISTRATION_POLICY_UNKNOWN,
    RESERVED_PREFIXES,
    describe_elsewhere,
)
from authserver.engine.clients.registration import describe as describe_registration
from authserver.engine.clients.secrets import is_secret_of
from authserver.engine.consent import Agreement, agree, consents_already, decline, hold_session
from authserver.engine.consent import problem_with as agreement_problem
from authserver.engine.consent import sentences as scope_sentences
from authserver.engine.context import (
    AssertionProfile,
    Begin,
    Binding,
    ClientProof,
    Engine,
    ExchangeableToken,
    Issue,
    OtherToken,
    ReadMember,
    Redeem,
    Respond,
    SingleUse,
    Vouched,
    Welcome,
)
from authserver.engine.crypto.digests import (
    digest,
    equal,
    new_credential,
    new_identifier,
    verify_password,
    well_formed,
)
from authserver.engine.crypto.jose import (
    FOREIGN_ALGORITHMS,
    ForeignKey,
    Jws,
    foreign_key,
    is_same_algorithm,
    read_jws,
)
from authserver.engine.crypto.sealing import Unsealable, from_text, to_text
from authserver.engine.crypto.strict_json import object_of as read_json_object
from authserver.engine.decisions import Decision, Wait, allow, deny, narrow
from authserver.engine.documents import Document, DocumentKind, FetchFailed, FetchProblem, Reply
from authserver.engine.ending import end_through
from authserver.engine.errors import (
    AccessDenied,
    AuthenticationRefused,
    InsufficientScope,
    InvalidClient,
    InvalidClientMetadata,
    InvalidGrant,
    InvalidRedirectUri,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    InvalidToken,
    OAuthError,
    PageError,
    ServerError,
    SignInRefused,
    TemporarilyUnavailable,
    TooManyRequests,
    UnauthorizedClient,
)
from authserver.engine.fetches import fetch as fetch_named
from authserver.engine.grants.assertion import present as present_assertion
from authserver.engine.grants.deriving import (
    NotLive,
    Parent,
    Presented,
    acted,
    actors_of,
    check_approved,
    derive,
    redeem_approved,
)
from authserver.engine.grants.deriving import of_assertion as parent_of_assertion
from authserver.engine.grants.deriving import of_grant as parent_of_grant
from authserver.engine.grants.deriving import of_token as parent_of_token
from authserver.engine.introspect import described as describe_issued
from authserver.engine.issuer_registry import options_of as issuer_options
from authserver.engine.letters import Mail, MailFailed, mail_address_problem
from authserver.engine.parameters import Parameters, scope_set
from authserver.engine.pending import Browser, is_marked
from authserver.engine.people.joining import (
    IdentityTaken,
    VouchedIdentity,
    identity_handle,
    joined_user,
    sign_in_vouched,
)
from authserver.engine.people.joining import join as join_identity
from authserver.engine.people.joining import remove as remove_identity
from authserver.engine.people.usernames import normalise_username
from authserver.engine.people.vouched import new_vouched_user, vouched_user
from authserver.engine.questions import (
    AuthenticationStep,
    Counted,
    Credentials,
    Identity,
    IntrospectedToken,
    Question,
    RateQuestion,
    RateStep,
    SignIn,
)
from authserver.engine.rates import SELF_REGISTERED, Usage
from authserver.engine.rates import claim as claim_rate
from authserver.engine.rates import give_back as give_back_rate
from authserver.engine.records import (
    ENDED_SESSIONS,
    ON_ANOTHER_DEVICE,
    THROUGH,
    Client,
    ClientMetadata,
    Consent,
    Event,
    EventType,
    Grant,
    GrantFilter,
    InitialAccessToken,
    JoinedIdentity,
    Kept,
    RegisteredBy,
    Resource,
    Session,
    Token,
    TokenKind,
    User,
)
from authserver.engine.setting_records import TrustedIssuer
from authserver.engine.sources import network_of
from authserver.engine.timeline import Span, SpanKind, Timeline
from authserver.engine.token import authenticate, proven_key
from authserver.engine.tokens.assertions import (
    TRUSTED_ALGORITHMS,
    BadAssertion,
    TrustedKeys,
    single_use,
    verify_assertion,
    verify_for_us,
    verify_statement,
)
from authserver.engine.tokens.issued import Issued, find_issued
from authserver.engine.tokens.issuing import keep_approved
from authserver.engine.tokens.once import claim, is_used, of_this_generation
from authserver.engine.uris import (
    canonical_resource,
    display_host,
    fetched_problem,
    fitting_application_type,
    form_target,
    is_loopback,
    link_problem,
    origin_problem,
    redirect_uri_problem,
    same_loopback_redirect_uri,
    with_query,
)
from authserver.engine.uris import origin as origin_of
from authserver.fetching.service import Service
from authserver.hookspecs import DECIDING, hookimpl
from authserver.ini import did_you_mean
from authserver.limits import (
    MAXIMUM_BODY,
    MAXIMUM_HEAD,
    MAXIMUM_IDENTIFIER,
    MAXIMUM_LEVEL,
    MAXIMUM_METHOD,
    MAXIMUM_METHODS,
    MAXIMUM_PARAMETER,
    MAXIMUM_RESOURCES,
)
from authserver.protocols import (
    AssertionProfilesHook,
    AuthenticationDecisionHook,
    ClientAuthDecisionHook,
    ClientMetadataHook,
    ClientProofsHook,
    CodeDetailsHook,
    ConsentDecisionHook,
    DeliverHook,
    ExchangeableTokensHook,
    ExpandAuthorizationRequestHook,
    ExpandRegistrationHook,
    FindClientHook,
    GrantDetailsHook,
    GrantTypesHook,
    IdentityDecisionHook,
    ImpliedParametersHook,
    IncludemeHook,
    IntrospectionDecisionHook,
    LoginDecisionHook,
    LookAfterHook,
    ObserveHook,
    ObserveRequestHook,
    OriginDecisionHook,
    PersonClaimsHook,
    PrivateUseRedirectUrisHook,
    RateDecisionHook,
    RedirectUriDecisionHook,
    RegistrationDecisionHook,
    RegistrationResponseHook,
    ResourceDecisionHook,
    ResponseModesHook,
    ScopeDecisionHook,
    ScopesHook,
    SendMailHook,
    ServerMetadataHook,
    TokenBindingHook,
    TokenClaimsHook,
    TokenResponseHook,
)
from authserver.settings import LOOPBACK_HOSTS, Secret
from authserver.web.account import account_page
from authserver.web.authorize import describe_client, named_resources
from authserver.web.forms import read_body, read_form, read_json, read_page_form, read_page_query, read_query
from authserver.web.json import json_response
from authserver.web.languages import in_words, translatable
from authserver.web.login import Purpose, begin_and_go_on, go_on, read_purpose, requester_of, sign_out_here
from authserver.web.metadata import metadata as metadata_document
from authserver.web.onward import lead_on, let_forms_lead_on
from authserver.web.operation import FLAG, TEXT, Bearer, Described, Operation, Parameter, object_schema
from authserver.web.operations import (
    AUTHORIZATION_ERRORS,
    AUTHORIZATION_REQUEST,
    METADATA_DOCUMENT,
    RESOURCE_PARAMETER,
    SCOPE_PARAMETER,
)
from authserver.web.operations import INFORMATION as CLIENT_INFORMATION
from authserver.web.operations import METADATA as CLIENT_METADATA
from authserver.web.pages import SignInWay, own_url, see_other, see_own
from authserver.web.problems import Kind, NothingThere, Problem
from authserver.web.request import Request
from authserver.web.revalidation import or_not_modified
from authserver.web.route import Medium, Origins, Route
from authserver.web.scope_list import grouped as grouped_scopes
from authserver.web.session import browser_handle, read_own_form, see_login, session_handle, session_token

__all__ = [
    "AUTHORIZATION_ERRORS",
    "AUTHORIZATION_REQUEST",
    "CLIENT_INFORMATION",
    "CLIENT_METADATA",
    "DECIDING",
    "ENDED_SESSIONS",
    "FLAG",
    "FOREIGN_ALGORITHMS",
    "INITIAL_ACCESS_TOKEN_REQUIRED",
    "LOOPBACK_HOSTS",
    "MAXIMUM_BODY",
    "MAXIMUM_HEAD",
    "MAXIMUM_IDENTIFIER",
    "MAXIMUM_LEVEL",
    "MAXIMUM_METHOD",
    "MAXIMUM_METHODS",
    "MAXIMUM_PARAMETER",
    "MAXIMUM_RESOURCES",
    "METADATA_DOCUMENT",
    "OFFLINE_ACCESS",
    "ON_ANOTHER_DEVICE",
    "REGISTRATION_POLICY_UNKNOWN",
    "RESERVED_PREFIXES",
    "RESOURCE_PARAMETER",
    "SCOPE_PARAMETER",
    "SELF_REGISTERED",
    "TEXT",
    "THROUGH",
    "TRUSTED_ALGORITHMS",
    "AccessDenied",
    "Agreement",
    "AssertionProfile",
    "AssertionProfilesHook",
    "AuthenticationDecisionHook",
    "AuthenticationRefused",
    "AuthenticationStep",
    "BadAssertion",
    "Bearer",
    "Begin",
    "Binding",
    "Browser",
    "ChangedMeanwhile",
    "Client",
    "ClientAuthDecisionHook",
    "ClientMetadata",
    "ClientMetadataHook",
    "ClientProof",
    "ClientProofsHook",
    "CodeDetailsHook",
    "Consent",
    "ConsentDecisionHook",
    "Counted",
    "Credentials",
    "Decision",
    "DeliverHook",
    "Described",
    "Document",
    "DocumentKind",
    "Engine",
    "Event",
    "EventType",
    "ExchangeableToken",
    "ExchangeableTokensHook",
    "ExpandAuthorizationRequestHook",
    "ExpandRegistrationHook",
    "Expanded",
    "FetchFailed",
    "FetchProblem",
    "FindClientHook",
    "ForeignKey",
    "Grant",
    "GrantDetailsHook",
    "GrantFilter",
    "GrantTypesHook",
    "Identity",
    "IdentityDecisionHook",
    "IdentityTaken",
    "ImpliedParametersHook",
    "IncludemeHook",
    "InitialAccessToken",
    "InsufficientScope",
    "IntrospectedToken",
    "IntrospectionDecisionHook",
    "InvalidClient",
    "InvalidClientMetadata",
    "InvalidGrant",
    "InvalidRedirectUri",
    "InvalidRequest",
    "InvalidScope",
    "InvalidTarget",
    "InvalidToken",
    "Issue",
    "Issued",
    "JoinedIdentity",
    "Jws",
    "Kept",
    "Kind",
    "LoginDecisionHook",
    "LookAfterHook",
    "Mail",
    "MailFailed",
    "Medium",
    "NotLive",
    "NothingThere",
    "OAuthError",
    "ObserveHook",
    "ObserveRequestHook",
    "Operation",
    "OriginDecisionHook",
    "Origins",
    "OtherToken",
    "PageError",
    "Parameter",
    "Parameters",
    "Parent",
    "PersonClaimsHook",
    "Presented",
    "PrivateUseRedirectUrisHook",
    "Problem",
    "Purpose",
    "Question",
    "RateDecisionHook",
    "RateQuestion",
    "RateStep",
    "ReadMember",
    "Redeem",
    "RedirectUriDecisionHook",
    "RegisteredBy",
    "RegistrationDecisionHook",
    "RegistrationResponseHook",
    "Reply",
    "Request",
    "Resource",
    "ResourceDecisionHook",
    "Respond",
    "ResponseModesHook",
    "Route",
    "ScopeDecisionHook",
    "ScopesHook",
    "Secret",
    "SendMailHook",
    "ServerError",
    "ServerMetadataHook",
    "Service",
    "Session",
    "SignIn",
    "SignInRefused",
    "SignInWay",
    "SingleUse",
    "Span",
    "SpanKind",
    "TemporarilyUnavailable",
    "Timeline",
    "Token",
    "TokenBindingHook",
    "TokenClaimsHook",
    "TokenKind",
    "TokenResponseHook",
    "TooManyRequests",
    "TrustedIssuer",
    "TrustedKeys",
    "UnauthorizedClient",
    "Unsealable",
    "Usage",
    "User",
    "Vouched",
    "VouchedIdentity",
    "Wait",
    "Welcome",
    "account_page",
    "acted",
    "actors_of",
    "agree",
    "agreement_problem",
    "allow",
    "allowed_resources",
    "allowed_scopes",
    "as_managed",
    "authenticate",
    "begin_and_go_on",
    "browser_handle",
    "canonical_resource",
    "check_approved",
    "check_request",
    "claim",
    "claim_rate",
    "complete_parameters",
    "consents_already",
    "decline",
    "deny",
    "derive",
    "describe_client",
    "describe_elsewhere",
    "describe_issued",
    "describe_registration",
    "did_you_mean",
    "digest",
    "display_host",
    "end_through",
    "equal",
    "event_as_json",
    "fetch_named",
    "fetched_problem",
    "find_issued",
    "fitting_application_type",
    "foreign_key",
    "form_target",
    "from_text",
    "give_back_rate",
    "go_on",
    "grouped_scopes",
    "hold_session",
    "hookimpl",
    "identity_handle",
    "in_words",
    "is_loopback",
    "is_marked",
    "is_same_algorithm",
    "is_secret_of",
    "is_used",
    "issuer_options",
    "join_identity",
    "joined_user",
    "json_response",
    "keep_approved",
    "kept_with_grant",
    "lead_on",
    "let_forms_lead_on",
    "link_problem",
    "mail_address_problem",
    "metadata_document",
    "named_resources",
    "narrow",
    "network_of",
    "new_credential",
    "new_identifier",
    "new_vouched_user",
    "normalise_username",
    "object_schema",
    "of_this_generation",
    "or_not_modified",
    "origin_of",
    "origin_problem",
    "own_url",
    "parent_of_assertion",
    "parent_of_grant",
    "parent_of_token",
    "present_assertion",
    "proven_client",
    "proven_key",
    "read_bearer",
    "read_body",
    "read_flag",
    "read_form",
    "read_json",
    "read_json_object",
    "read_jws",
    "read_members",
    "read_metadata",
    "read_object",
    "read_own_form",
    "read_page_form",
    "read_page_query",
    "read_purpose",
    "read_query",
    "redeem_approved",
    "redirect_uri_problem",
    "remove_identity",
    "remove_registration",
    "requested_scopes",
    "requester_of",
    "required_sign_in",
    "same_loopback_redirect_uri",
    "scope_sentences",
    "scope_set",
    "see_login",
    "see_other",
    "see_own",
    "session_handle",
    "session_token",
    "sign_in_vouched",
    "sign_out_here",
    "single_use",
    "to_text",
    "translatable",
    "update_registration",
    "verify_assertion",
    "verify_for_us",
    "verify_password",
    "verify_statement",
    "vouched_user",
    "well_formed",
    "with_query",
]
