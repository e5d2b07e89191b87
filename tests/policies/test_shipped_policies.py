"""The shipped policies by themselves: frozen values asked as functions, without server or database."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from authserver.api import (
    INITIAL_ACCESS_TOKEN_REQUIRED,
    REGISTRATION_POLICY_UNKNOWN,
    ClientMetadata,
    Credentials,
    Decision,
    IntrospectedToken,
    Secret,
    allow,
    deny,
    narrow,
)
from authserver.engine.crypto import digests
from authserver.engine.records import RegisteredBy, Resource, TokenKind
from authserver.engine.uris import needs_permission
from authserver.ini import convert
from authserver.policies.client_auth import ClientSecretBasic, ClientSecretPost, PublicClient
from authserver.policies.consent import ConsentFirstParty, ConsentRemembered
from authserver.policies.introspection import IntrospectOwn, IntrospectResourceServers
from authserver.policies.login import LoginPassword
from authserver.policies.mcp_clients import McpClients
from authserver.policies.origins import OriginsListed, OriginsRegistered
from authserver.policies.redirect_uris import RedirectExact, RedirectLoopback, RedirectPrivateUse
from authserver.policies.registration import RegistrationOpen, RegistrationToken
from authserver.policies.resources import ResourcesListed, ResourcesRegistered
from authserver.policies.scopes import ScopesDefault, ScopesRegistered
from authserver.testing.records import NOW, a_client, a_consent, a_user, an_initial_token

# ---- client_auth_decision --------------------------------------------------------------------------

METHODS: dict[str, Any] = {
    "client_secret_basic": ClientSecretBasic(),
    "client_secret_post": ClientSecretPost(),
    "none": PublicClient(),
}


@pytest.mark.parametrize("used", METHODS)
@pytest.mark.parametrize("registered", METHODS)
@pytest.mark.parametrize("asked", METHODS)
@pytest.mark.parametrize("matches", [True, False])
def test_a_method_speaks_for_clients_that_are_registered_for_it_and_use_it(
    asked: str, registered: str, used: str, matches: bool
) -> None:
    """J-04, T042: silence for every other method; the secret decides where there is one."""
    credentials = Credentials(method=used, client_id="reports", secret_matches=matches)
    decision = METHODS[asked].client_auth_decision(a_client(auth_method=registered), credentials)
    if not asked == registered == used:
        assert decision is None
    elif asked == "none":
        assert decision == allow("public-client")
    else:
        assert decision == (allow("secret-matches") if matches else deny("secret-wrong"))


@pytest.mark.parametrize(("name", "plugin"), METHODS.items())
def test_a_method_advertises_itself(name: str, plugin: Any) -> None:
    """A-11: by the line of the INI that switches it on."""
    assert plugin.server_metadata() == {"token_endpoint_auth_methods_supported": [name]}


# ---- redirect_uri_decision -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registered", "asked", "exact", "loopback"),
    [
        ("https://a.example/cb", "https://a.example/cb", True, False),
        ("https://a.example/cb", "https://a.example/cb/", False, False),
        ("https://a.example/cb", "https://a.example/cb?x=1", False, False),
        ("https://a.example/cb", "https://A.example/cb", False, False),
        ("https://a.example/cb", "https://a.example:8443/cb", False, False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152/cb", False, True),
        ("http://127.0.0.1:80/cb", "http://127.0.0.1:49152/cb", False, True),
        ("http://[::1]/cb", "http://[::1]:49152/cb", False, True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152/other", False, False),
        ("http://127.0.0.1/cb", "http://[::1]:49152/cb", False, False),
        ("http://127.0.0.1/cb", "https://127.0.0.1:49152/cb", False, False),
        ("http://localhost/cb", "http://localhost:49152/cb", False, False),
    ],
)
def test_which_redirect_uris_are_accepted(registered: str, asked: str, exact: bool, loopback: bool) -> None:
    """C-02, C-03: character by character, or a loopback address with any port (not `localhost` unless listed)."""
    client = a_client(redirect_uris=("https://other.example/", registered))
    assert RedirectExact().redirect_uri_decision(client, asked) == (
        allow("registered-exactly") if exact else None
    )
    decision = RedirectLoopback().redirect_uri_decision(client, asked)
    assert decision == (allow("loopback-port") if loopback else None)


def test_localhost_counts_where_it_is_listed() -> None:
    """C-04: a setting, since a name can be made to point elsewhere."""
    client = a_client(redirect_uris=("http://localhost/cb",))
    plugin = RedirectLoopback(hosts=("localhost",))
    assert plugin.redirect_uri_decision(client, "http://localhost:49152/cb") == allow("loopback-port")


@pytest.mark.parametrize("host", ["0.0.0.0", "as.example", "::1", "127.0.0.2"])
def test_another_host_is_no_loopback_host(host: str) -> None:
    """T142: the setting names what is wrong and what is known."""
    with pytest.raises(ValueError, match=r"hosts: .*not a loopback host; known: 127.0.0.1"):
        RedirectLoopback(hosts=(host,))


# ---- origin_decision -------------------------------------------------------------------------------


def test_which_origins_may_read() -> None:
    """T085: those of registered redirect URIs, or those that are listed, whole."""
    assert OriginsRegistered().origin_decision(registered=True) == allow("origin-registered")
    assert OriginsRegistered().origin_decision(registered=False) is None
    plugin = OriginsListed(origins=("https://app.example", "capacitor://localhost"))
    for origin in plugin.origins:
        assert plugin.origin_decision(origin) == allow("origin-listed")
    for origin in ("https://sub.app.example", "https://app.example:8443", "capacitor://localhost2"):
        assert plugin.origin_decision(origin) is None


@pytest.mark.parametrize("origin", ["*", "null", "https://App.example", "http://app.example", "file://"])
def test_what_is_no_origin_cannot_be_listed(origin: str) -> None:
    """T085, T142: the server does not start, and says why."""
    with pytest.raises(
        ValueError, match=f"origins: {re.escape(origin)}: It|origins: {re.escape(origin)}: Every"
    ):
        OriginsListed(origins=("https://app.example", origin))


# ---- scope_decision --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requested", "registered", "default"),
    [
        (("read",), allow("scopes-registered", ("read",)), None),
        (("write", "read"), allow("scopes-registered", ("write", "read")), None),
        (("read", "admin"), deny("scope-not-registered"), None),
        ((), None, allow("scopes-default", ("read",))),
    ],
)
def test_which_scopes_are_allowed(
    requested: tuple[str, ...], registered: Decision | None, default: Decision | None
) -> None:
    """T081: all that were asked for or none; the default only where nothing was asked for."""
    client = a_client(scopes=("read", "write"))
    for grant_type in ("authorization_code", "client_credentials"):
        assert ScopesRegistered().scope_decision(client, grant_type, requested) == registered
    assert ScopesDefault(scopes=("profile", "read")).scope_decision(client, requested) == default


@pytest.mark.parametrize(
    ("grant_type", "requested", "decision"),
    [
        ("authorization_code", ("read", "write"), allow("scopes-registered", ("read", "write"))),
        ("authorization_code", ("openid", "write", "read"), allow("scopes-left-out", ("write", "read"))),
        ("authorization_code", ("openid", "email"), deny("scope-not-registered")),
        ("authorization_code", (), None),
        ("client_credentials", ("openid", "read"), deny("scope-not-registered")),
    ],
)
def test_a_program_that_registered_itself_may_ask_for_too_much(
    grant_type: str, requested: tuple[str, ...], decision: Decision | None
) -> None:
    """B-27: at the authorization endpoint it gets what it is registered for; an operator's client must ask properly."""
    client = a_client(scopes=("read", "write"), registered_by=RegisteredBy.SELF)
    assert ScopesRegistered().scope_decision(client, grant_type, requested) == decision


def test_a_default_that_no_client_may_have_is_silence() -> None:
    """R-14: nothing is allowed by an empty list."""
    assert ScopesDefault(scopes=("admin",)).scope_decision(a_client(), ()) is None
    assert ScopesDefault().scope_decision(a_client(), ()) is None


# ---- resource_decision -----------------------------------------------------------------------------

LISTED = ResourcesListed(
    resources=(("https://api.example/", "*"), ("https://files.example/", "read write")),
    default="https://api.example/",
)


@pytest.mark.parametrize(
    ("resource", "decision"),
    [
        (None, allow("resource-default", "https://api.example/")),
        ("https://files.example/", allow("resource-listed", "https://files.example/")),
        ("https://files.example/deeper", None),
        ("https://other.example/", None),
    ],
)
def test_which_resources_are_allowed(resource: str | None, decision: Decision | None) -> None:
    """RFC 8707, 2: the listed ones, each by its whole name."""
    assert LISTED.resource_decision(resource, None) == decision


def test_without_a_default_a_resource_must_be_named() -> None:
    assert replace(LISTED, default="").resource_decision(None, None) == deny("resource-missing")
    # It leaves a default to others, such as a plugin that has one.
    assert ResourcesRegistered().resource_decision(None, None) is None
    assert ResourcesRegistered().resource_decision("https://api.example/", None) is None


STORED = Resource(
    form="https://files.example/",
    uri="https://files.example",
    scopes=("read", "write"),
    introspecting_clients=("files-api",),
    created_at=NOW,
)


def test_a_registered_resource_is_allowed_as_it_is_written() -> None:
    """O-09, O-10; a default of the database is no business of the list of the INI."""
    policy = ResourcesRegistered()
    assert policy.resource_decision(STORED.form, STORED) == allow("resource-registered", STORED.uri)
    assert policy.resource_decision(None, STORED) == allow("resource-default", STORED.uri)
    assert replace(LISTED, default="").resource_decision(None, STORED) is None


def test_what_the_ini_names_is_not_for_the_database_to_allow() -> None:
    """What the INI says of a resource counts; a line that only names it does not offer it."""
    named = replace(STORED, settings=("authserver.resource_names",), scopes=())
    assert ResourcesRegistered().resource_decision(named.form, named) is None
    assert ResourcesRegistered().resource_decision(None, named) is None
    assert ResourcesRegistered().scope_decision((named,)) is None


def test_resources_of_the_ini_and_of_the_database_have_their_scopes_together() -> None:
    """O-07: each policy knows what the other says, so neither takes the scopes of the other's resource."""
    listed = ResourcesListed(resources=(("https://notes.example/", "notes"),))
    both = (*listed.known_resources.values(), STORED)
    together = narrow("scopes-of-resource", ("notes", "read", "write"))
    assert listed.scope_decision(("https://notes.example/", STORED.uri), both) == together
    assert ResourcesRegistered().scope_decision(both) == together
    assert ResourcesRegistered().scope_decision((replace(STORED, scopes=None),)) is None


@pytest.mark.parametrize(
    ("client_id", "kind", "decision"),
    [
        ("files-api", TokenKind.ACCESS, allow("introspecting-client")),
        ("files-api", TokenKind.REFRESH, None),
        ("notes-api", TokenKind.ACCESS, None),
    ],
)
def test_the_clients_of_a_resource_may_introspect_its_access_tokens(
    client_id: str, kind: TokenKind, decision: Decision | None
) -> None:
    """RFC 7662, 4: the resource server, and nobody else; refresh tokens are for this server alone."""
    token = IntrospectedToken(
        client_id="reports", subject="user_ada", audience=(STORED.uri,), scopes=("read",), kind=kind
    )
    caller = a_client(client_id=client_id)
    assert IntrospectResourceServers().introspection_decision(caller, token, (STORED,)) == decision


def test_only_is_the_default_while_exactly_one_resource_is_listed() -> None:
    """O-08: with a second one an operator must say which; no token changes its audience by the order of lines."""
    one = ResourcesListed(resources=LISTED.resources[:1], default="only")
    assert one.resource_decision(None, None) == allow("resource-default", "https://api.example/")
    for resources, told in (
        (
            LISTED.resources,
            "default: `only` is for exactly one resource, and resources lists 2; name here the one",
        ),
        ((), "default: `only` is for exactly one resource, and resources lists 0"),
    ):
        with pytest.raises(ValueError, match=told):
            ResourcesListed(resources=resources, default="only")


@pytest.mark.parametrize(
    ("resources", "decision"),
    [
        (("https://files.example/",), narrow("scopes-of-resource", ("read", "write"))),
        (("https://api.example/",), None),
        (("https://files.example/", "https://api.example/"), None),
        (("https://other.example/",), None),
        ((), None),
    ],
)
def test_a_resource_narrows_the_scopes(resources: tuple[str, ...], decision: Decision | None) -> None:
    """RFC 8707, 2.2: to those that make sense at one of the resources."""
    assert LISTED.scope_decision(resources, ()) == decision


@pytest.mark.parametrize(
    ("resources", "default", "words"),
    [
        ((("api", "*"),), "", "resources: api: "),
        (
            (("https://api.example", "*"), ("https://API.example/", "*")),
            "",
            "two lines name the same resource",
        ),
        ((("https://api.example/#x", "*"),), "", "resources: "),
        ((), "https://api.example/", "default: .* is not among resources"),
    ],
)
def test_a_resource_that_is_none_stops_the_start(
    resources: tuple[tuple[str, str], ...], default: str, words: str
) -> None:
    """T142: each is a URI, and named once."""
    with pytest.raises(ValueError, match=words):
        ResourcesListed(resources=resources, default=default)


# ---- consent_decision ------------------------------------------------------------------------------

CLIENT = a_client()
AGREED = a_consent(scopes=("read", "write"), resources=("https://api.example/",))


@pytest.mark.parametrize(
    ("scopes", "resources", "remembered", "allowed"),
    [
        (("read",), ("https://api.example/",), AGREED, True),
        (("read", "write"), (), AGREED, True),
        (("read", "admin"), ("https://api.example/",), AGREED, False),
        (("read",), ("https://other.example/",), AGREED, False),
        (("read",), (), None, False),
    ],
)
def test_what_is_remembered_spares_the_page_until_something_grows(
    scopes: tuple[str, ...], resources: tuple[str, ...], remembered: Any, allowed: bool
) -> None:
    """E-13, T089: new scope or new resource ask again; of a changed client no policy gets the consent."""
    decision = ConsentRemembered().consent_decision(scopes, resources, remembered)
    assert decision == (allow("consent-remembered") if allowed else None)


def test_only_applications_of_the_house_are_first_party() -> None:
    """E-12: a mark that an operator set, and never the client itself."""
    assert ConsentFirstParty().consent_decision(a_client(first_party=True)) == allow("first-party")
    assert ConsentFirstParty().consent_decision(a_client()) is None


# ---- login_decision --------------------------------------------------------------------------------


def test_the_password_decides_who_signs_in() -> None:
    """T100: a wrong one is refused; whose password is not here is not this policy's to say."""
    user = a_user(password_hash=digests.hash_password("a good password"))
    plugin = LoginPassword()
    right = plugin.login_decision(Secret("a good password"), user)
    assert right is not None
    assert (right.reason, right.value.username) == ("password-matches", user.username)
    assert plugin.login_decision(Secret("a bad password"), user) == deny("password-wrong")
    assert plugin.login_decision(Secret("a good password"), None) is None
    assert plugin.login_decision(Secret("a good password"), a_user()) is None


# ---- registration_decision -------------------------------------------------------------------------

METADATA = ClientMetadata(client_name="New", redirect_uris=("https://new.example/cb",), scopes=("read",))
TOKENS = ("a" * 31 + "1", "b" * 31 + "2")


@pytest.mark.parametrize(
    ("bearer", "decision"),
    [
        (TOKENS[0], allow("initial-access-token", METADATA)),
        (TOKENS[1], allow("initial-access-token", METADATA)),
        (TOKENS[0][:-1], deny(INITIAL_ACCESS_TOKEN_REQUIRED)),
        ("", deny(INITIAL_ACCESS_TOKEN_REQUIRED)),
        (None, deny(INITIAL_ACCESS_TOKEN_REQUIRED)),
    ],
)
def test_an_initial_access_token_lets_in(bearer: str | None, decision: Decision) -> None:
    """K-09: one of the operator's, whole."""
    plugin = RegistrationToken(tokens=tuple(map(Secret, TOKENS)), scopes=METADATA.scopes)
    assert (
        plugin.registration_decision(METADATA, None if bearer is None else Secret(bearer), None) == decision
    )
    assert TOKENS[0] not in repr(plugin)


@pytest.mark.parametrize(
    ("reasons", "is_let_in"),
    [(["initial-access-token"], True), (["open-registration"], False), ([], False)],
)
def test_a_client_changes_itself_within_the_policy_it_registered_by(
    reasons: list[str], is_let_in: bool
) -> None:
    """K-20: without the token, which the client does not keep; one that registered otherwise may not."""
    client = a_client(registered_by=RegisteredBy.SELF, private_details={"registration_reasons": reasons})
    plugin = RegistrationToken(tokens=(Secret("a" * 32),), scopes=("read",))
    decision = plugin.registration_decision(METADATA, None, None, client)
    if is_let_in:
        assert decision == allow("initial-access-token", replace(METADATA, scopes=("read",)))
    else:
        assert decision == deny("initial-access-token-required")


def test_a_client_that_a_policy_let_in_changes_itself_within_that_policy() -> None:
    """K-20: also when there are as many clients as there may be; and not when the policy is gone."""
    client = a_client(registered_by=RegisteredBy.SELF, registration_policy="partners")
    plugin = policies("partners = scopes read, clients 1")
    decision = plugin.registration_decision(METADATA, None, None, client)
    assert decision == allow("initial-access-token", replace(METADATA, scopes=("read",)))
    gone = RegistrationToken(tokens=(Secret("a" * 32),), scopes=METADATA.scopes)
    assert gone.registration_decision(METADATA, None, None, client) == deny("registration-policy-unknown")


def test_without_tokens_nobody_is_let_in_and_short_ones_are_none() -> None:
    """R-03, T142: at least 32 characters; the short one is not repeated."""
    assert RegistrationToken().registration_decision(METADATA, Secret(""), None) == deny(
        INITIAL_ACCESS_TOKEN_REQUIRED
    )
    with pytest.raises(ValueError, match="at least 32") as raised:
        RegistrationToken(tokens=(Secret("canary"),))
    assert "canary" not in str(raised.value)


def policies(*lines: str) -> RegistrationToken:
    """The plugin with these lines of its table, as the INI has them."""
    table = convert("\n".join(lines), tuple[tuple[str, str], ...])
    return RegistrationToken(scopes=("profile", "read"), policies=table)


def decided(plugin: RegistrationToken, asked: ClientMetadata = METADATA, **token: Any) -> Decision:
    answer = plugin.registration_decision(asked, Secret("x"), an_initial_token(**token))
    assert answer is not None
    return answer


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("partners = scope profile", "partners: scope: no such part; did you mean scopes"),
        ("partners = scopes profile,", "partners: nothing: no such part"),
        ("partners = scopes", "partners: scopes has no value"),
        ("partners = scopes a, scopes b", "partners: scopes is there twice"),
        ("partners = clients many", "partners: clients: expected one number"),
        ("partners = clients 1 2", "partners: clients: expected one number"),
        ("partners = clients -1", "partners: clients: expected one number"),
        ("partners = clients \u0661", "partners: clients: expected one number"),
    ],
)
def test_a_line_of_a_registration_policy_that_cannot_be_read_stops_the_start(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        policies(line)


def test_a_registration_policy_confines_what_its_tokens_register() -> None:
    """K-11, T132: what its line does not say is as for the tokens of the INI."""
    plugin = policies("partners = scopes read", "others = grant_types refresh_token")
    assert plugin.registration_policies() == ["partners", "others"]
    asked = replace(METADATA, scopes=("read", "profile"))
    assert decided(plugin, asked) == allow("initial-access-token", replace(asked, scopes=("read",)))
    assert decided(plugin, asked, policy="others") == deny("grant-type-not-open")
    assert decided(plugin, policy="gone") == deny(REGISTRATION_POLICY_UNKNOWN)


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("https://partner.example/cb", True),
        ("https://PARTNER.example:8443/cb", True),
        ("https://a.b.below.example/cb", True),
        ("https://below.example/cb", False),
        ("https://xbelow.example/cb", False),
        ("https://partner.example.evil.test/cb", False),
        ("https://evil.test/partner.example", False),
        ("https://partner.example@evil.test/cb", False),
        ("http://127.0.0.1:4000/cb", True),
        ("http://[::1]/cb", True),
        ("http://localhost/cb", False),
        ("com.example.app:/cb", True),
        ("com.example.application:/cb", False),
        ("com.example.app://partner.example/cb", True),
        ("other.scheme://partner.example/cb", False),
        ("https://[bad/cb", False),
        ("https:///cb", False),
    ],
)
def test_a_registration_policy_says_where_redirect_uris_may_lead(uri: str, kept: bool) -> None:
    """T132: other URIs are left out; a client without any that is left is refused."""
    plugin = policies(
        "partners = redirect_hosts partner.example *.below.example 127.0.0.1 [::1] com.example.app:"
    )
    mine = "https://partner.example/mine"
    answer = decided(plugin, replace(METADATA, redirect_uris=(uri, mine)))
    assert answer.value is not None
    assert answer.value.redirect_uris == ((uri, mine) if kept else (mine,))
    alone = decided(plugin, replace(METADATA, redirect_uris=(uri,)))
    assert (alone.reason == "redirect-host-not-open") is not kept


def test_a_registration_policy_says_how_clients_authenticate_and_how_many_there_may_be() -> None:
    plugin = policies("partners = auth_methods none private_key_jwt, clients 2", "nobody = clients 0")
    public = replace(METADATA, token_endpoint_auth_method="none")
    basic = replace(METADATA, token_endpoint_auth_method="client_secret_basic")
    assert decided(plugin, basic) == deny("auth-method-not-open")
    assert decided(plugin, public, clients=1).verdict == "allow"
    assert decided(plugin, public, clients=2) == deny("registration-policy-full")
    assert decided(plugin, public, policy="nobody") == deny("registration-policy-full")


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((), ("profile", "read")),
        (("read",), ("read",)),
        (("read", "admin"), ("read",)),
        (("admin",), ("profile", "read")),
    ],
)
def test_open_registration_confines_the_scopes(asked: tuple[str, ...], given: tuple[str, ...]) -> None:
    """K-11, K-28: never more than the line of the INI says, and never nothing."""
    decision = RegistrationOpen(scopes=("profile", "read")).registration_decision(
        replace(METADATA, scopes=asked)
    )
    assert decision == allow("open-registration", replace(METADATA, scopes=given))


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (("authorization_code", "refresh_token"), ("authorization_code", "refresh_token")),
        (("authorization_code", "client_credentials"), ("authorization_code",)),
        (("authorization_code", "urn:ietf:params:oauth:grant-type:device_code"), ("authorization_code",)),
    ],
)
def test_open_registration_leaves_out_other_grant_types(
    asked: tuple[str, ...], given: tuple[str, ...]
) -> None:
    """K-11, K-23, B005, B006."""
    decision = RegistrationOpen(scopes=("read",)).registration_decision(replace(METADATA, grant_types=asked))
    assert decision == allow("open-registration", replace(METADATA, grant_types=given))


def test_open_registration_refuses_where_nothing_is_left() -> None:
    """K-11, K-23, K-28: nobody registers itself for client_credentials, and without scopes it opens nothing."""
    metadata = replace(METADATA, grant_types=("client_credentials",))
    assert RegistrationOpen(scopes=("read",)).registration_decision(metadata) == deny("grant-type-not-open")
    assert RegistrationOpen().registration_decision(METADATA) == deny("scope-not-open")


# ---- private_use_redirect_uris ---------------------------------------------------------------------


def test_the_uris_that_an_operator_allows_are_complete_ones() -> None:
    """C-16, T142: what is dangerous or malformed stops the start, with the URI named."""
    plugin = RedirectPrivateUse(uris=("acme://signed-in", "raycast://oauth?package_name=notes"))
    assert plugin.private_use_redirect_uris() == plugin.uris
    for uri in (
        "acme",
        "acme:",
        "acme://*",
        "javascript://x/y",
        "http://evil.example/",
        "acme://u@x",
        "acme://x#y",
    ):
        with pytest.raises(ValueError, match=f"uris: {re.escape(uri)}: It"):
            RedirectPrivateUse(uris=(uri,))


def test_the_preset_allows_uris_that_could_be_allowed() -> None:
    """C-16: each of them needs it, and nothing else is wrong with it."""
    allowed = McpClients().private_use_redirect_uris()
    assert "cursor://anysphere.cursor-mcp/oauth/callback" in allowed
    assert RedirectPrivateUse(uris=allowed).uris == allowed
    assert all(map(needs_permission, allowed))


# ---- introspection_decision ------------------------------------------------------------------------

TOKEN = IntrospectedToken(
    client_id="reports",
    subject="user_ada",
    audience=("https://api.example", "https://files.example/v1"),
    scopes=("read",),
    kind=TokenKind.ACCESS,
)


@pytest.mark.parametrize("kind", [TokenKind.ACCESS, TokenKind.REFRESH])
def test_a_client_may_know_its_own_tokens(kind: TokenKind) -> None:
    """M-03, M-07.b: of either kind, and no other client's."""
    plugin, token = IntrospectOwn(), replace(TOKEN, kind=kind)
    assert plugin.introspection_decision(a_client(), token) == allow("own-token")
    assert plugin.introspection_decision(a_client(client_id="other"), token) is None


@pytest.mark.parametrize(
    ("client_id", "audience", "knows"),
    [
        ("api", ("https://api.example",), True),
        ("api", ("HTTPS://API.example/",), True),
        ("api", ("https://files.example/v1", "https://api.example/"), True),
        ("api", ("https://api.example/v1",), False),
        ("api", ("https://files.example/v1",), False),
        ("api", (), False),
        ("files", ("https://files.example/v1",), True),
        ("files", ("https://files.example/v2",), True),
        ("files", ("https://files.example/",), False),
        ("reports", ("https://api.example",), False),
    ],
)
def test_a_resource_server_may_know_the_tokens_for_it(
    client_id: str, audience: tuple[str, ...], knows: bool
) -> None:
    """M-06, O-09, T078: its own resources, however scheme, host and empty path are spelled; silence otherwise."""
    plugin = IntrospectResourceServers(
        clients=(
            ("api", "https://api.example/"),
            ("files", "https://files.example/v1 https://files.example/v2"),
        )
    )
    asked = replace(TOKEN, audience=audience)
    decision = plugin.introspection_decision(a_client(client_id=client_id), asked, ())
    assert decision == (allow("in-audience") if knows else None)


def test_a_resource_server_knows_no_refresh_token() -> None:
    """M-07.b: those are for the authorization server alone."""
    plugin = IntrospectResourceServers(clients=(("api", "https://api.example"),))
    asked = replace(TOKEN, kind=TokenKind.REFRESH)
    assert plugin.introspection_decision(a_client(client_id="api"), asked, ()) is None


@pytest.mark.parametrize(
    ("clients", "problem"),
    [
        ((("api", "https://api.example"), ("api", "https://files.example")), "two lines name the client api"),
        ((("api", ""),), "api: no resource is named"),
        ((("api", "https://api.example api"),), "api: resource must be an absolute URI"),
    ],
)
def test_a_resource_server_that_is_written_wrongly_stops_the_start(
    clients: tuple[tuple[str, str], ...], problem: str
) -> None:
    """T142: the line says which client."""
    with pytest.raises(ValueError, match=problem):
        IntrospectResourceServers(clients=clients)
