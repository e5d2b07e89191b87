"""All the hooks, at which the engine asks plugins or tells them something. There are three kinds (`authserver.hooks`).

A deciding hook asks a question of policy. A plugin answers `allow(reason, value)`, `narrow(reason, value)`, `deny(reason)`
or None ("not mine"). One deny refuses, each narrowing applies, and the first allow gives the value.

A contributing hook asks for something that the engine does not have itself, such as a client that is kept elsewhere, or
more claims of a token. An observing hook tells what has happened; no answer is expected.

`Silence` says what applies if no plugin answers. Plugins are asked in the order of the INI; an implementation may take
fewer arguments than the hook has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pyramid.config import Configurator

from authserver.engine.authorization_request import CORE_PARAMETERS, Expanded
from authserver.engine.clients.client_metadata import CORE_MEMBERS
from authserver.engine.context import (
    AssertionProfile,
    Begin,
    Binding,
    ClientProof,
    Engine,
    ExchangeableToken,
    ReadMember,
    Redeem,
    Respond,
    Welcome,
)
from authserver.engine.decisions import Decision
from authserver.engine.letters import Mail
from authserver.engine.parameters import Parameters
from authserver.engine.questions import (
    AuthenticationQuestion,
    AuthenticationStep,
    ClientAuthQuestion,
    ConsentQuestion,
    Counted,
    Credentials,
    Identity,
    IdentityQuestion,
    IntrospectedToken,
    IntrospectionQuestion,
    LoginQuestion,
    OriginQuestion,
    RateQuestion,
    RateStep,
    RedirectUriQuestion,
    RegistrationQuestion,
    ResourceQuestion,
    ScopeQuestion,
    SignIn,
)
from authserver.engine.records import (
    Client,
    ClientMetadata,
    Consent,
    Event,
    Grant,
    InitialAccessToken,
    Resource,
    Session,
    Token,
    User,
)
from authserver.engine.timeline import Timeline
from authserver.engine.tokens.issuing import CODE_DETAILS, CORE_CLAIMS, CORE_RESPONSE_MEMBERS, GRANT_DETAILS
from authserver.hooks import (
    CONTRIBUTING,
    DECIDING,
    OBSERVING,
    contributing,
    deciding,
    every_hook,
    hookimpl,
    observing,
)
from authserver.settings import Secret

# Import these from here and not from `hooks`: only here have all hooks been declared.
__all__ = ["CONTRIBUTING", "DECIDING", "OBSERVING", "every_hook", "hookimpl"]


@deciding(
    ClientAuthQuestion,
    silence="refused with invalid_client",
    remedy=(
        "list the plugin of the client's authentication method in authserver.plugins, or register the client for a method "
        "that a plugin serves: `authserver client edit {client_id} --auth-method METHOD`"
    ),
)
def client_auth_decision(client: Client, credentials: Credentials) -> Decision[None] | None:
    """Whether this request comes from the client that it names.

    Arguments:
        client: the client that the request names; known and enabled.
        credentials: which method was used and whether a presented secret matches; it holds no secret.

    Answers:
        allow(reason): it does. The engine still refuses a method the client is not registered for,
            and a secret that does not match.
        deny(reason): it does not; the client gets `invalid_client`.
        None: not my method.

    Silence: refused with `invalid_client`.

    Example::

        @hookimpl
        def client_auth_decision(self, client, credentials):
            if credentials.headers.get("x-client-verified") == client.client_id:
                return allow("gateway-verified")

    Added in 0.1.
    """


@deciding(
    RedirectUriQuestion,
    silence="refused with an error page",
    remedy=(
        "register the URI for the client: `authserver client edit {client_id} --add-redirect-uri {redirect_uri}`"
    ),
)
def redirect_uri_decision(client: Client, redirect_uri: str) -> Decision[None] | None:
    """Whether an authorization response may go to this URI.

    Asked for each authorization request, again when its code is redeemed, and for each URI of a client that registers
    itself: a URI that is not accepted is not registered.

    Arguments:
        client: the client that asks; during its registration, the client as it would be stored with all the URIs it
            asks for.
        redirect_uri: as it was sent; well formed.

    Answers:
        allow(reason): it may. The engine still refuses a URI that could not have been registered.
        deny(reason): it may not; the user sees an error page and is not redirected. A code that was sent there is
            refused with `invalid_grant`.
        None: not mine.

    Silence: refused with an error page.

    Example::

        @hookimpl
        def redirect_uri_decision(self, client, redirect_uri):
            if redirect_uri in client.redirect_uris:
                return allow("registered-exactly")

    Added in 0.1.
    """


@deciding(
    ScopeQuestion,
    silence="refused with invalid_scope",
    narrows=True,
    remedy=(
        "the request must name a scope; or a scope of the client's registration must be a default: list scopes_default in "
        "authserver.plugins and name the scope in authserver.plugin.scopes_default.scopes"
    ),
)
def scope_decision(
    client: Client,
    user: User | None,
    grant_type: str,
    requested: tuple[str, ...],
    resources: tuple[str, ...],
    registered: tuple[Resource, ...],
) -> Decision[tuple[str, ...]] | None:
    """Which scopes may be granted.

    Arguments:
        client: the client that asks.
        user: the person who would grant them, with groups and attributes; None when the client acts on its own behalf,
            or nobody has signed in yet.
        grant_type: `authorization_code` also while the user is still being asked.
        requested: the scopes of the request, in order; empty when it named none.
        resources: the canonical resources of the request.
        registered: their entries in the INI or the database; a resource without an entry is missing here.

    Answers:
        allow(reason, scopes): these. The engine still removes those that were not requested or not registered.
        narrow(reason, scopes): no more than these, whichever plugin allows.
        deny(reason): none; the client gets `invalid_scope`.
        None: not mine.

    Silence: refused with `invalid_scope`.

    Example::

        @hookimpl
        def scope_decision(self, requested):
            if "payments" in requested and is_night():
                return narrow("no-payments-at-night", tuple(s for s in requested if s != "payments"))

    Added in 0.1.
    """


@deciding(
    ResourceQuestion,
    silence="refused with invalid_target",
    remedy=(
        "register the resource with its scopes: `authserver resource add URI`, or list it in "
        "authserver.plugin.resources_listed.resources; or the client must ask for one that is registered"
    ),
)
def resource_decision(
    client: Client, resource: str | None, registered: Resource | None
) -> Decision[str] | None:
    """Whether a token for this resource may be asked for (RFC 8707), and its canonical name.

    Asked again when a code or refresh token is redeemed: a resource that no plugin knows any more does not exist.

    Arguments:
        client: the client that asks.
        resource: an absolute URI without fragment, scheme and host in lower case; None when the
            request names none, which asks for the default.
        registered: its entry in the INI or the database, or the entry of the default if `resource` is None; None if it
            has no entry.

    Answers:
        allow(reason, resource): it may; the value becomes the audience.
        deny(reason): it may not; the client gets `invalid_target`.
        None: not mine.

    Silence: refused with `invalid_target`.

    Example::

        @hookimpl
        def resource_decision(self, resource):
            if resource == "https://api.example.com/":
                return allow("our-api", resource)

    Added in 0.1.
    """


@deciding(
    AuthenticationQuestion,
    silence="a user who is not signed in must sign in",
    codes=True,
    silence_refuses=False,
)
def authentication_decision(
    client: Client, user: User | None, session: Session | None, is_fresh: bool, parameters: Parameters
) -> Decision[AuthenticationStep | SignIn] | None:
    """What an authorization request demands of the user's sign-in.

    Asked at each step of each authorization request, also before anybody has signed in.

    Arguments:
        client: the client that asks.
        user: who is signed in; None when nobody is.
        session: the session of this user: when they signed in (`authenticated_at`) and how (`amr` among its details);
            None when nobody is signed in.
        is_fresh: whether this user signed in since the request began.
        parameters: of the authorization request; its client and redirect URI are accepted, and none but `resource`
            is repeated. Nothing else about them was checked yet.

    Answers:
        allow(reason, step): an `AuthenticationStep`. `GO_ON` has the same effect as silence. `SIGN_IN_AGAIN` shows the
            sign-in page even to somebody who is signed in; a sign-in since the request began is enough, so nobody is
            asked for a second one. If another person signs in instead, the request starts again for them. A `SignIn` says
            more than a step: why, which level the sign-in reached, and whether a page may or must be shown. A demand of
            one plugin counts, whatever the others answer.
        deny(reason, error_code): refuse; the client gets this error code, or `access_denied` if there is none. The user
            sees no page, unless the client registered itself. Even then there is no page if the request may show none:
            a plugin says that it is `silent`, or the code is one that only such a request gets, such as `login_required`.
            A plugin that makes requests silent has a mapping `silences`, from each parameter that does so to the
            reason. Then the account page says of clients that registered themselves that they may get again, without a
            question, what was agreed to.
        None: not mine.

    Silence: a user who is not signed in must sign in.

    Example::

        @hookimpl
        def authentication_decision(self, session, parameters):
            if session is None and parameters.get("ui") == "none":
                return deny("nobody-to-ask", "login_required")
            if parameters.get("ui") == "sign-in":
                return allow("fresh-sign-in", AuthenticationStep.SIGN_IN_AGAIN)

    Added in 0.1.
    """


@deciding(
    ConsentQuestion,
    silence="the user is asked",
    silence_refuses=False,
)
def consent_decision(
    client: Client,
    user: User,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    remembered: Consent | None,
) -> Decision[None] | None:
    """Whether to go on without asking the user.

    Arguments:
        client: the client that asks.
        user: who is signed in.
        scopes: what would be granted.
        resources: for which resources.
        remembered: what this user last agreed to for this client; None when nothing is remembered, or when the client's
            name changed or a redirect URI was added after the user agreed.

    Answers:
        allow(reason): go on without a consent page. The engine still asks when nothing proves the identity of the
            client: it registered itself, it is neither confidential nor first-party, or its redirect URI is not https to
            another device.
        deny(reason): refuse; the client gets `access_denied`.
        None: not mine.

    Silence: the user is asked.

    Example::

        @hookimpl
        def consent_decision(self, client):
            if client.first_party:
                return allow("first-party")

    Added in 0.1.
    """


@deciding(
    LoginQuestion,
    silence="refused",
    remedy=(
        "no person here has that user name, or the person has no password here: `authserver user list` shows everybody, "
        "`authserver user add NAME` adds a person, `authserver user password NAME` sets a password; or list the plugin that "
        "signs such people in in authserver.plugins"
    ),
)
def login_decision(
    username: str, password: Secret, user: User | None, headers: Mapping[str, str], source: str
) -> Decision[Identity] | None:
    """Who is signing in.

    Asked when somebody sends the sign-in form. Asked also before the form is shown, with an empty name and password: a
    policy that recognises a person by the request alone answers then.

    Arguments:
        username: as typed, normalised; empty when nothing was typed, or something that cannot be a user name.
        password: as typed.
        user: the stored user of that name; None when there is none.
        headers: the request's headers by lower-case name, without cookies.
        source: the network address that the request came from.

    Answers:
        allow(reason, identity): this person; a user is created for an identity not seen before. If its name cannot
            be a user name, nobody is signed in, and the log says why.
        deny(reason): nobody is signed in; the page says that name or password is wrong, whatever the reason.
        None: not mine.

    Silence: refused.

    Example::

        @hookimpl
        def login_decision(self, username, password):
            if directory.bind(username, password.value):
                return allow("directory-bind", Identity(username=username))

    Added in 0.1.
    """


@deciding(
    IdentityQuestion,
    silence="refused",
    remedy="list a plugin in authserver.plugins that says which person here belongs to a sign-in at the other server",
)
def identity_decision(
    provider: str, issuer: str, claims: Mapping[str, Any], user: User | None
) -> Decision[Identity] | None:
    """Which person here has signed in at another server, and which groups the person is in.

    Asked at each sign-in through another server, after its ID token was verified. The plugin for such sign-ins answers as
    its settings say; a plugin that is listed before it answers first.

    Arguments:
        provider: the name of that server in the settings.
        issuer: the issuer identifier of that server.
        claims: what that server says of the person: `sub` and all other claims, as JSON.
        user: the person here to whom `issuer` and `sub` are joined; None for somebody who was never here.

    Answers:
        allow(reason, identity): it is this person. The `username` and `display_name` count only for somebody who was never
            here; they never join somebody to an existing person: if the user name is taken, nobody is signed in. A group
            whose members administer this server is neither given nor removed, unless the settings of that server name it.
        deny(reason): nobody is signed in, and no user is created.
        None: not mine.

    Silence: refused.

    Example::

        @hookimpl
        def identity_decision(self, provider, claims):
            if provider == "staff" and claims.get("department") == "Sales":
                return allow("of-sales", Identity(username=claims["employee"], groups=("sales",)))

    Added in 0.1.
    """


@deciding(
    RegistrationQuestion,
    silence="registration is closed",
    remedy="list registration_token or registration_open in authserver.plugins",
)
def registration_decision(
    metadata: ClientMetadata,
    bearer: Secret | None,
    token: InitialAccessToken | None,
    source: str,
    client: Client | None,
) -> Decision[ClientMetadata] | None:
    """Whether a client may register itself (RFC 7591), and with which metadata.

    Asked again, with all of its metadata, when a client changes its registration: so a change cannot give a client more
    than a new registration would.

    Arguments:
        metadata: the metadata that the client asks for. Only the form was checked: it may name grant types and scopes
            that are not offered, and redirect URIs that cannot be registered.
        bearer: the initial access token that the client sent, if any; None when it changes its registration.
        token: the record of that token, if it was made by `authserver initial-token add` and can be used; its `policy`
            says what its clients may be, and its `clients` how many there are already. The server counts its use.
        source: the network address that the request came from.
        client: the client as it is registered now, when it changes its registration; its `registration_reasons` are those
            for which policies let it register. None for a new client.

    Answers:
        allow(reason, metadata): it may, with this metadata. The engine leaves out what is not offered and the
            redirect URIs that no policy accepts, and refuses dangerous metadata. A policy may add JSON to the `details`,
            under names that the core does not use.
        deny(reason): it may not: 401 when the reason is `INITIAL_ACCESS_TOKEN_REQUIRED` or
            `REGISTRATION_POLICY_UNKNOWN` (403 when it changes its registration), else `invalid_client_metadata`.
        None: not mine.

    Silence: registration is closed and its endpoint answers 404.

    Example::

        @hookimpl
        def registration_decision(self, metadata):
            return allow("scopes-cut", replace(metadata, scopes=("read",)))

    Added in 0.1.
    """


@deciding(
    IntrospectionQuestion,
    silence="refused as inactive",
    remedy=(
        "list introspect_own in authserver.plugins; or name the client of the resource server: `authserver resource edit URI "
        "--introspecting-client CLIENT_ID`, or with its resources in authserver.plugin.introspect_resource_servers.clients"
    ),
)
def introspection_decision(
    caller: Client, token: IntrospectedToken, registered: tuple[Resource, ...]
) -> Decision[None] | None:
    """Whether a client may read what a token allows (RFC 7662).

    Arguments:
        caller: the client that asks; authenticated, and not public.
        token: the facts of the token, without its text; it is active.
        registered: the entries of its audience in the INI or the database; a resource without an entry is missing here.

    Answers:
        allow(reason): it may. The engine still shows a refresh token only to its own client.
        deny(reason): it may not; the answer is that the token is inactive.
        None: not mine.

    Silence: refused as inactive; if no plugin serves this hook at all, the endpoint answers 404.

    Example::

        @hookimpl
        def introspection_decision(self, caller, token):
            if caller.client_id == "api-gateway":
                return allow("gateway")

    Added in 0.1.
    """


@deciding(
    OriginQuestion,
    silence="refused, and scripts cannot read the answer",
    remedy=(
        "a client must register a redirect URI of the origin, with origins_registered in authserver.plugins; or list "
        "origins_listed there, and the origin in authserver.plugin.origins_listed.origins"
    ),
)
def origin_decision(origin: str, endpoint: str, registered: bool) -> Decision[None] | None:
    """Whether programs of this web origin may read the answers of an endpoint that clients call (CORS).

    Asked for each request with an `Origin`, preflights included, at endpoints with `Origins.CLIENTS` such as the token
    endpoint, when the answer is made: a refusal keeps browsers from showing the answer to the script, and changes nothing
    else. Therefore it is not recorded with the event of the request.

    Arguments:
        origin: as browsers send it; well formed, and never `null`. Its scheme is https, or http with a loopback host, or
            the scheme of browser extensions or of an application.
        endpoint: the name of the route.
        registered: whether an enabled client registered a redirect URI of this origin; for a loopback origin, with any
            port. After too many refused origins from one source, new origins from it are not looked up, and this is False.

    Answers:
        allow(reason): they may; without cookies, which these endpoints do not read.
        deny(reason): they may not.
        None: not mine.

    Silence: refused, and scripts cannot read the answer.

    Example::

        @hookimpl
        def origin_decision(self, origin):
            if origin == "https://developers.example.com":
                return allow("our-documentation")

    Added in 0.1.
    """


@deciding(
    RateQuestion,
    waits=True,
    silence="there is no limit",
    silence_refuses=False,
)
def rate_decision(
    counted: Counted,
    step: RateStep,
    endpoint: str,
    source: str,
    client_id: str | None,
    account: str,
    device_id: str | None,
    grant_id: str | None,
) -> Decision[None] | None:
    """Whether somebody does something too often.

    Arguments:
        counted: the kind of action that is counted.
        step: CLAIM: count the action, if no limit forbids it; several limits count together or not at all. CHECK: count
            nothing. GIVE_BACK: the action that was claimed turned out well, so subtract it; the answer does not matter.
        endpoint: the name of the route.
        source: the network address that the request came from.
        client_id: the id of a known client: the authenticated one, or the one in whose name an authentication failed. For
            requests in advance, all clients that registered themselves count as one client.
        account: the user name that somebody signs in with; an unknown one is replaced by `unknown-` and a digest, since it
            may be a password in the wrong field. Empty where nobody signs in, or the text cannot be a user name.
        device_id: the id of the browser, if this user signed in there before.
        grant_id: the grant that a token request is for, unless it makes a new one.

    Answers:
        allow(reason): they do not. The effect is that of None, but it is recorded with the event of the request.
        deny(reason, wait=Wait(seconds)): they do; the client gets 429 with `Retry-After`. Without a `wait`,
            `Retry-After` is one minute. With `leaves_event=False` the refusal is only logged.
        None: not too often, or not mine.

    Silence: there is no limit.

    Example::

        @hookimpl
        def rate_decision(self, counted, source):
            if counted == "registration" and source in self.flooding:
                return deny("flooding", wait=Wait(600))

    Added in 0.1.
    """


@contributing(Client, timed=True, refusing=True)
def find_client(engine: Engine, client_id: str) -> Client | None:
    """A client that is kept elsewhere.

    Asked when no client of this id is stored here; of several answers the first is used.

    Arguments:
        engine: of this request.
        client_id: as it was sent; up to 2048 printable ASCII characters.

    Answers:
        The client, with digests of its secrets if it has any; all rules for stored clients apply to it.
        An OAuth error that it raises ends the request: `InvalidClient` if there is such a client elsewhere and it is not
            accepted, which the authorization endpoint shows on a page; `TemporarilyUnavailable` if the plugin cannot know
            that now.
        None: not mine.

    Silence: there is no such client.

    Example::

        @hookimpl
        def find_client(self, client_id):
            return self.directory.get(client_id)

    Added in 0.1.
    """


@contributing(Expanded, timed=True, refusing=True)
def expand_authorization_request(engine: Engine, parameters: Parameters) -> Expanded | None:
    """The authorization request that these parameters refer to, if they only refer to one.

    Asked before anything else is checked. While the request is pending, the hook is asked again only if the answer had
    a `reference`, to expand that reference.

    Arguments:
        engine: of this request.
        parameters: as they were sent; nothing about them was checked yet.

    Answers:
        An `Expanded` with the parameters to use in place of these; they are checked as if they had been sent. It may
            have a refusal, which is sent to the client once its redirect URI is accepted. Of several plugins the
            first decides, and any refusal refuses. Parameters that are too long for an address need a `reference`,
            which travels in their place.
        An OAuth error that it raises is shown on a page: the user is not redirected.
        None: not mine.

    Silence: the parameters are used as they are; `request` and `request_uri` are refused.

    Example::

        @hookimpl
        def expand_authorization_request(self, parameters):
            if name := parameters.get("request_template"):
                return Expanded(parameters=Parameters.parse(self.templates[name]))

    Added in 0.1.
    """


@contributing(Mapping)
def scopes() -> Mapping[str, str] | None:
    """Scopes to add to those of `authserver.scopes`. Asked once, at start.

    Answers:
        A mapping of scope names to the sentences of the consent page. The start stops if a scope exists already, with a
            message that names both plugins, or if the scopes do not all fit into one request.
        None: nothing to add.

    Silence: the scopes of the setting only.

    Example::

        @hookimpl
        def scopes(self):
            return {"calendar.read": "See your calendar"}

    Added in 0.1.
    """


@contributing(tuple)
def private_use_redirect_uris() -> tuple[str, ...] | None:
    """Redirect URIs that may be registered although their private-use scheme has no period. Asked once, at start.

    A scheme with a period is named after a domain, and so after its owner (RFC 8252, 7.1). A scheme without one has
    no owner, so an operator must allow it.

    Answers:
        Complete URIs, compared as whole strings. All other rules still apply: a dangerous or malformed one is
            refused.
        None: nothing to add.

    Silence: such a URI is neither registered nor accepted.

    Example::

        @hookimpl
        def private_use_redirect_uris(self):
            return ("acme://signed-in",)

    Added in 0.1.
    """


@contributing(Mapping)
def grant_types() -> Mapping[str, Redeem] | None:
    """Grant types to add to those of `authserver.grant_types`. Asked once, at start.

    Answers:
        A mapping of grant type names to functions. Each takes the engine of the request, the authenticated
            client and the parameters, checks everything, writes nothing, and returns an `Issue` that says what
            may be issued and what it uses up, or raises an OAuth error. A name that exists already stops the
            start.
        None: nothing to add.

    Silence: the grant types of the setting only.

    Example::

        @hookimpl
        def grant_types(self):
            return {"urn:example:grant": self.redeem}

    Added in 0.1.
    """


@contributing(Mapping)
def assertion_profiles() -> Mapping[str, AssertionProfile] | None:
    """Profiles of the assertions that trusted issuers sign (RFC 7523, 2.1). Asked once, at start.

    If there is at least one profile, the server offers the grant type `urn:ietf:params:oauth:grant-type:jwt-bearer`. The
    entry of an issuer names its profile (`authserver issuer add`), and the server enforces everything else in the entry.

    Answers:
        A mapping of the names of profiles to an `AssertionProfile` each. Its `accept` takes the engine, the client, the
            entry and the claims of an assertion that was verified, writes nothing, and returns a `Vouched`: whom the
            assertion is about, and the most that it may give; or it raises an OAuth error. A name that exists already
            stops the start, and so does an issuer that two plugins list.
        None: nothing to add.

    Silence: the grant type is not offered.

    Example::

        @hookimpl
        def assertion_profiles(self):
            return {"badge": AssertionProfile(typ="badge+jwt", accept=self.accept, check=self.check)}

    Added in 0.1.
    """


@contributing(Mapping)
def exchangeable_tokens() -> Mapping[str, ExchangeableToken] | None:
    """Types of tokens that clients may exchange for others, or get in exchange (RFC 8693). Asked once, at start.

    The plugin of the token exchange uses them; without that plugin they do nothing.

    Answers:
        A mapping of the names of types (RFC 8693, 3), which are URIs, to an `ExchangeableToken` each. Its `read` takes the
            engine, the client and the text of a token, writes nothing, and returns a `Presented`: what the token stands for
            at this moment, and what limits it; or it raises InvalidRequest. Its `make` also takes a `Presented`, and
            returns an `Issue`. A name that exists already stops the start.
        None: nothing to add.

    Silence: access tokens, and the JWTs of trusted issuers whose entries say so, are all that can be exchanged.

    Example::

        @hookimpl
        def exchangeable_tokens(self):
            return {"urn:example:token-type:badge": ExchangeableToken(read=self.read)}

    Added in 0.1.
    """


@contributing(Mapping)
def client_proofs() -> Mapping[str, ClientProof] | None:
    """Methods of client authentication with a proof that is checked with the engine, such as a signed assertion.

    Asked once, at start. A client that is registered for such a method is authenticated only with such a proof;
    `client_auth_decision` is asked afterwards, with `is_proven`. A plugin that offers the method says so in
    `server_metadata`.

    Answers:
        A mapping of methods to a `ClientProof` each. Its `prove` writes nothing, and returns a tuple of what the proof
            uses up, empty for nothing; it raises `InvalidClient` if the proof is missing or wrong, and
            `TemporarilyUnavailable` if it cannot be checked now. Its `check` raises `InvalidClientMetadata` for a client
            that could never give a proof. A method that exists already stops the start.
        None: nothing to add.

    Silence: clients authenticate by secret, by what a policy sees in the headers, or not at all.

    Example::

        @hookimpl
        def client_proofs(self):
            return {"acme_ticket": ClientProof(prove=self.prove, check=self.check)}

    Added in 0.1.
    """


@contributing(Mapping)
def client_metadata() -> Mapping[str, ReadMember] | None:
    """Members of client metadata to store (RFC 7591, 2). Asked once, at start.

    A client registers itself with them, and an operator sets them with `--metadata` of `authserver client add` and
    `authserver client edit`. The stored value is in `Client.details` under the same name, and is shown with the client.

    Answers:
        A mapping of names to functions. Each takes the name and the JSON value that was sent, and returns the JSON
            value to store, or None to store nothing; given the stored value, it must return the same. It raises
            `InvalidClientMetadata` for a value that cannot be registered. A name that exists already stops the start.
            A plugin may have a mapping `proven_at_registration`, from members to what proves them. Such members are
            ignored in metadata of a client that is kept elsewhere (`describe_elsewhere`), because `expand_registration`
            proves nothing there.
        None: nothing to add.

    Silence: the members of the core only; all others are ignored.

    Example::

        @hookimpl
        def client_metadata(self):
            return {"acme_beta_tester": read_flag}

    Added in 0.1.
    """


@contributing(Mapping, timed=True, refusing=True)
def expand_registration(
    engine: Engine, sent: Mapping[str, Any], client: Client | None
) -> Mapping[str, Any] | None:
    """Members that replace those that a client sent to register itself, before anything of them is checked.

    Asked each time a client registers itself or changes its registration.

    Arguments:
        engine: of this request.
        sent: the members of the JSON object; none of them is empty, and nothing else was checked.
        client: the registered client, if it changes its registration; None for a new one.

    Answers:
        A mapping: its members are added to those that were sent, in place of those of the same name, and are checked
            as if the client had sent them.
        An OAuth error that it raises goes to the client.
        None: nothing to add.

    Silence: what the client sent counts.

    Example::

        @hookimpl
        def expand_registration(self, sent):
            if voucher := sent.get("acme_voucher"):
                return self.members_of(voucher)

    Added in 0.1.
    """


@contributing(Welcome, timed=True, declared="registration_members", reserved=CORE_MEMBERS)
def registration_response(engine: Engine, client: Client) -> Welcome | None:
    """What to tell a client that registers itself, in addition to its metadata (RFC 7591, 3.2.1).

    Asked when everything was checked, before the client is stored.

    Arguments:
        engine: of this request.
        client: as it will be stored, without its secret.

    Answers:
        A `Welcome`: the members of the response, and what is kept of the client for the plugin alone. A plugin declares
            the names of the members in `registration_members`, so that two plugins with the same member stop the start.
            A member that is not declared is a fault: nothing is registered.
        None: nothing to add.

    Silence: the response has the registered metadata, and a secret if the client has one.

    Example::

        registration_members: ClassVar[frozenset[str]] = frozenset({"acme_welcome"})

        @hookimpl
        def registration_response(self, client):
            return Welcome(members={"acme_welcome": f"https://acme.example/?client={client.client_id}"})

    Added in 0.1.
    """


@contributing(Mapping, timed=True, refusing=True, declared="details", reserved=CODE_DETAILS)
def code_details(client: Client, parameters: Parameters) -> Mapping[str, Any] | None:
    """What to store of an authorization request with its code.

    Asked whenever a request is checked: when a client sends it in advance, and at each step once somebody is signed in.

    Arguments:
        client: the client that asks.
        parameters: of the authorization request; none but `resource` is repeated.

    Answers:
        A mapping for the `details` of the code. A plugin declares its names in `details`, so that two plugins
            with the same name stop the start. `cnf` binds the code to a key: the token request must prove it
            (`token_binding`). A detail that is declared in `replaces_pkce`, a mapping of names to reasons, protects the
            code as PKCE does: then a confidential client needs no `code_challenge` (OAuth 2.1, 7.5.1). A detail that is
            declared in `waives_pkce` lets every client omit `code_challenge`, and protects nothing: the plugin must say
            so in `insecure`, so that a production server refuses it.
        An OAuth error that it raises goes to the client.
        None: nothing to store.

    Silence: only what the core stores.

    Example::

        details: ClassVar[frozenset[str]] = frozenset({"campaign"})

        @hookimpl
        def code_details(self, parameters):
            if campaign := parameters.get("campaign"):
                return {"campaign": campaign}

    Added in 0.1.
    """


@contributing(Mapping, timed=True, declared="implied", reserved=CORE_PARAMETERS)
def implied_parameters(client: Client, parameters: Parameters) -> Mapping[str, str] | None:
    """Parameters of an authorization request that count although the client did not send them.

    An example is a default from the registration of the client, or a value that follows from another parameter. Asked
    whenever a request is checked, after its client and its redirect URI and before everything else.

    Arguments:
        client: the client that asks.
        parameters: of the authorization request; none but `resource` is repeated.

    Answers:
        A mapping of parameters. A parameter that was sent replaces an implied one. A plugin declares their names in
            `implied`, so that two plugins with the same name stop the start; those of the core cannot be implied.
        None: nothing to add.

    Silence: the parameters count as they were sent.

    Example::

        implied: ClassVar[frozenset[str]] = frozenset({"campaign"})

        @hookimpl
        def implied_parameters(self, client):
            return {"campaign": client.details.get("campaign", "none")}

    Added in 0.1.
    """


@contributing(Mapping, timed=True, refusing=True, declared="grant_members", reserved=GRANT_DETAILS)
def grant_details(
    engine: Engine,
    client: Client,
    user: User,
    acr: str | None,
    scopes: tuple[str, ...],
    parameters: Parameters,
) -> Mapping[str, Any] | None:
    """What to keep of an authorization request with the grant, as long as the grant lasts.

    Asked at each step once somebody is signed in, when everything else was checked; and when another grant type makes a
    grant for a person.

    Arguments:
        engine: of this request.
        client: the client that asks.
        user: who is signed in.
        acr: the level that their sign-in reached, if a policy says so (RFC 9470).
        scopes: what would be granted.
        parameters: of the authorization request, with the implied ones; none but `resource` is repeated. Empty if the
            grant comes from another grant type.

    Answers:
        A mapping for the `details` of the grant. A plugin declares its names in `grant_members`, so that two plugins
            with the same name stop the start. `subject` is the `sub` in tokens of this grant, in place of the id of the
            user.
        An OAuth error that it raises goes to the client.
        None: nothing to keep.

    Silence: only what the core keeps.

    Example::

        grant_members: ClassVar[frozenset[str]] = frozenset({"campaign"})

        @hookimpl
        def grant_details(self, parameters):
            if campaign := parameters.get("campaign"):
                return {"campaign": campaign}

    Added in 0.1.
    """


@contributing(Mapping)
def response_modes() -> Mapping[str, Respond] | None:
    """Ways to send an authorization response to its client, beside the query of its redirect URI. Asked once, at start.

    Answers:
        A mapping of values of `response_mode` to functions. Each takes the web request, the redirect URI and a mapping of
            the parameters of the response, and returns the HTTP response. It is called for errors, too, and only for http
            and https URIs that were accepted. A mode that exists already stops the start.
        None: nothing to add.

    Silence: `query` alone.

    Example::

        @hookimpl
        def response_modes(self):
            return {"acme_message": self.show_message}

    Added in 0.1.
    """


@contributing(Binding, refusing=True, declared="confirmations")
def token_binding(
    engine: Engine,
    client: Client,
    parameters: Parameters,
    grant: Grant | None,
    spends: Token | None,
) -> Binding | None:
    """The key that this request proves; the code or tokens that it gets are bound to that key.

    Asked once in a request, before anything is written: at the endpoint where a client sends an authorization request
    in advance, and at the token endpoint after everything else was checked. It has no time limit.

    Arguments:
        engine: of this request; its `caller` has the headers, and the URL of the endpoint.
        client: the client that asks; authenticated.
        parameters: of this request.
        grant: what was agreed; None if no token is issued yet: then a key need not be proven.
        spends: the code or refresh token that is spent, if any. The engine compares its key with the proven one.

    Answers:
        A `Binding`: its `cnf` goes into the access token, and with `binds_refresh` the refresh token can be used
            with this key only. For an authorization request it goes into the code. A plugin declares in
            `confirmations` the members of its `cnf`, each with the type of a token that is bound so; two plugins
            with the same member stop the start. If a proof may be used only once, it is a `SingleUse` among the `uses`,
            which the server claims at the end. If two plugins prove a key in one request, that is a fault: nothing is
            issued.
        An OAuth error that it raises is sent to the client: the proof is not valid, or this client needs one.
        None: no key of my kind is proven.

    Silence: bearer tokens; a code or refresh token that is bound to a key is refused.

    Example::

        confirmations: ClassVar[Mapping[str, str]] = {"x5t#S256": "Bearer"}

        @hookimpl
        def token_binding(self, engine, client):
            if thumbprint := engine.caller.headers.get("x-client-certificate-thumbprint"):
                return Binding(confirmation={"x5t#S256": thumbprint}, binds_refresh=client.is_public)

    Added in 0.1.
    """


@contributing(Mapping, timed=True, declared="claims", reserved=CORE_CLAIMS)
def token_claims(
    client: Client, user: User | None, grant: Grant, scopes: tuple[str, ...], resources: tuple[str, ...]
) -> Mapping[str, Any] | None:
    """Claims to add to a JWT access token (RFC 9068, 2.2.2).

    Arguments:
        client: the client that gets the token.
        user: the person who granted it; None when the client acts on its own behalf.
        grant: what was agreed.
        scopes: of this token.
        resources: its audience.

    Answers:
        A mapping of claims. A plugin declares their names in `claims`, so that two plugins with the same
            claim stop the start; the claims of the core cannot be replaced. A claim that is not declared
            is a fault: nothing is issued.
        None: nothing to add.

    Silence: the claims of the core only.

    Example::

        claims: ClassVar[frozenset[str]] = frozenset({"tenant"})

        @hookimpl
        def token_claims(self, user):
            return {"tenant": self.tenant_of(user)} if user else None

    Added in 0.1.
    """


@contributing(Mapping, timed=True, declared="members", reserved=CORE_RESPONSE_MEMBERS)
def token_response(
    engine: Engine,
    client: Client,
    user: User | None,
    grant: Grant,
    scopes: tuple[str, ...],
    spends: Token | None,
    access_token: str,
    now: datetime,
) -> Mapping[str, Any] | None:
    """Members to add to the response of the token endpoint (OAuth 2.1, 3.2.3).

    Arguments:
        engine: of this request.
        client: the client that gets the response.
        user: the person who granted it; None when the client acts on its own behalf.
        grant: what was agreed.
        scopes: of the access token.
        spends: the code or refresh token that is spent, with the details kept with it (`code_details`); None if there is
            none.
        access_token: the access token in the response.
        now: the time of the request.

    Answers:
        A mapping of members, declared in `members` like the claims of `token_claims`.
        None: nothing to add.

    Silence: the members of the core only.

    Example::

        members: ClassVar[frozenset[str]] = frozenset({"tenant"})

        @hookimpl
        def token_response(self, client):
            return {"tenant": self.tenant_of(client)}

    Added in 0.1.
    """


@contributing(Mapping, timed=True, declared="person_claim_names", reserved=CORE_CLAIMS)
def person_claims(client: Client, user: User, scopes: tuple[str, ...]) -> Mapping[str, Any] | None:
    """Claims about a person to add to those that are stored, where a plugin tells clients about people.

    Arguments:
        client: the client that gets the claims.
        user: the person, with groups and attributes.
        scopes: the scopes of the access token, to which the person has agreed: add only claims that these scopes cover.

    Answers:
        A mapping of claims: JSON values, such as a list of groups. They replace the stored claims of the same name. A
            plugin declares their names in `person_claim_names`, so that two plugins with the same claim stop the start;
            the claims of the core, which are about the token, cannot be replaced.
        None: nothing to add.

    Silence: clients get the claims that are stored of the person.

    Example::

        person_claim_names: ClassVar[frozenset[str]] = frozenset({"groups"})

        @hookimpl
        def person_claims(self, user, scopes):
            return {"groups": list(user.groups)} if "groups" in scopes else None

    Added in 0.1.
    """


@contributing(bool)
def send_mail(mail: Mail) -> bool | None:
    """Send a mail to a person: a link to set a password, or the notice that a password has changed.

    Called after the transaction was committed, in the background of a server process, and by the commands that send mail.
    It has no time limit, so it needs one of its own.

    Arguments:
        mail: recipient, subject and plain text; the text may hold a secret.

    Answers:
        True: the mail was sent. With several plugins each sends it.
        After a `MailFailed` that it raises, the mail is tried again several times, unless `is_final` is set; after any
            other error, too.
        None: not mine.

    Silence: no mail is sent, and the sign-in page has no "Forgot your password?".

    Example::

        @hookimpl
        def send_mail(self, mail):
            self.mailbox.put(mail.recipient, mail.subject, mail.text)
            return True

    Added in 0.1.
    """


@contributing(Mapping)
def server_metadata(issuer: str) -> Mapping[str, Any] | None:
    """Members to add to the server metadata (RFC 8414). Asked once, at start.

    Arguments:
        issuer: the issuer identifier, with which the URL of every endpoint begins.

    Answers:
        A mapping. A list is joined to the list of the same name. Any other member must be new; otherwise the start
            stops, and the message names both plugins.
        None: nothing to add.

    Silence: the metadata has the members of the core only.

    Example::

        @hookimpl
        def server_metadata(self):
            return {"service_documentation": "https://docs.example.com/"}

    Added in 0.1.
    """


@contributing(object)
def includeme(config: Configurator) -> None:
    """Add endpoints and static files: Pyramid's own `includeme`. Called once, at start.

    Arguments:
        config: the Pyramid configurator, with directives of this server: `add_endpoint(Route(...), view)`,
            `add_well_known`, `add_cross_origin_headers`, `add_home_link`, `add_account_tab` and `add_sign_in_way`. A
            conflict with an endpoint that exists stops the start.

    Answers:
        Nothing.

    Silence: the core's pages only.

    Example::

        @hookimpl
        def includeme(self, config):
            config.add_endpoint(Route("about", "/about", ("GET",)), about, renderer="string")

    Added in 0.1.
    """


@observing(timed=True)
def observe(event: Event) -> None:
    """Called with each event after it was committed, except those about shadow plugins.

    Arguments:
        event: what happened, as it is stored in the event table.

    Answers:
        Nothing. A failure is logged and changes nothing; a slow observer delays the response, up to the time limit.

    Silence: events are still stored in the event table.

    Example::

        @hookimpl
        def observe(self, event):
            self.counter.increment(event.type)

    Added in 0.1.
    """


@observing(timed=False)
def deliver(events: Sequence[Event], begin: Begin) -> None:
    """Called with every event after it was committed, until the plugin accepts it: at least once, also after a crash.

    It is called in the background, in one server process at a time, with a few events in the order in which they were
    stored. If it raises an error, the error is logged and the plugin is called with the same events again, after pauses of
    up to a minute; meanwhile it gets no other event. After ten failures in a row it is called with one event at a time; an
    event that always fails while another one is accepted is set aside (`event.set_aside`). A new plugin gets the events
    that are stored from then on.

    Arguments:
        events: what happened, as it is stored in the event table; at least one. Events about shadow plugins and events of
            commands are among them.
        begin: gives an engine in a transaction of its own, to read or keep something. Send nothing in it.

    Answers:
        Nothing. When it returns, the events count as accepted and are not delivered again. It must end by itself: no time
        limit ends it.

    Silence: events are still stored in the event table.

    Example::

        @hookimpl
        def deliver(self, events):
            for event in events:
                self.queue.send(key=event.event_id, body=event.type, timeout=10)

    Added in 0.1.
    """


@observing(timed=False)
def look_after(begin: Begin) -> None:
    """Called in the background of a server: when it starts, and each time that it cleans up, in one process at a time.

    An error that it raises is logged, and it is called again the next time.

    Arguments:
        begin: gives an engine in a transaction of its own; work in small ones, so that others can write meanwhile.

    Answers:
        Nothing. It must end by itself: no time limit ends it.

    Silence: the core cleans up what it stores itself, and nothing else.

    Example::

        @hookimpl
        def look_after(self, begin):
            with begin() as engine:
                self.end_what_is_over(engine)

    Added in 0.1.
    """


@observing(timed=True)
def observe_request(timeline: Timeline) -> None:
    """Called with each request when its answer is made, before it is sent.

    While a plugin serves this hook, the timeline has the work for the request as spans: decisions, statements, fetches and
    password checks.

    Arguments:
        timeline: the request with its ids, its endpoint, status and duration, why it was refused, and its spans. It has no
            secret, and nothing about a person.

    Answers:
        Nothing. A failure is logged and changes nothing; a slow observer delays the response, up to the time limit.

    Silence: spans are not collected.

    Example::

        @hookimpl
        def observe_request(self, timeline):
            if timeline.nanoseconds > 1_000_000_000:
                log.warning("%s took more than a second", timeline.endpoint)

    Added in 0.1.
    """
