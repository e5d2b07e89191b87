"""Messages to every endpoint of the route table: right ones, and then changed in the ways of people who attack.

An endpoint without a grammar below gets every parameter that any other one knows, so a new route is tried by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from authserver.testing.server import (
    CHALLENGE,
    ISSUER,
    PASSWORD,
    REDIRECT_URI,
    RESOURCE,
    VERIFIER,
    basic,
    forged,
)
from authserver.web.route import Route
from tests.client_keys import ASSERTION_TYPE, METHOD
from tests.fuzzing.documents import ACCEPTED, ODD, OTHER_URI, REFUSED, SECTORS
from tests.fuzzing.world import (
    AFTERWARDS,
    ASSERTIONS,
    DEVICE,
    EXCHANGE,
    FIGURES_TOKEN,
    FILES,
    FORM,
    HOST,
    INITIAL_TOKEN,
    KNOWING,
    LISTED,
    LOOPBACK,
    OUTSIDE,
    SCHEME,
    SECOND_URI,
    SIGNERS,
    UNKNOWING,
    WITHOUT_KEYS,
    Known,
    Message,
    Pair,
    Raw,
    Value,
)

Draw = Callable[..., Any]

# Clients that registered themselves.
REGISTERED = ("stranger", "newcomer", "edited")
CLIENTS = ("web", "post", "native", "first", "service", "api", "bound", "pushing", "vouched", "gone",
           "next", "agent", "reports", "tv", "printer", "stranger", "newcomer", "scopeless", "narrow", "moved", "former", "signer", "fetching", *KNOWING, UNKNOWING, *WITHOUT_KEYS, *ACCEPTED)  # fmt: skip
# Addresses at which no client is described.
NOWHERE = (*REFUSED, *ODD, "blocked", "foreign", "gone-host")
# Clients that have tokens.
HOLDERS = ("web", "post", "native", "first", "bound", "stranger", "gone", "moved", "signer", "fetching", "document", "keyed",
           "remote", "changed", *KNOWING)  # fmt: skip
SECRETLESS = ("native", "bound", "reports", "tv", "stranger", "document", "changed", "drawn", *NOWHERE)
PEOPLE = ("ann", "bob", "carl", "dora", "nobody")
REDIRECT_URIS: Mapping[str, str] = {"native": LOOPBACK}
# Seconds: what the lifetimes of this server part, one by one.
LATER = (0, 9, 11, 61, 91, 301, 901, 3_601, 43_300, 604_900, 1_209_700, 40_000_000)
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "BREW", "A" * 9_000, "\0", "\xff")

NASTY = (
    "", " ", "\0", "a\0b", "\r\nSet-Cookie: a=b", "\r\n\r\n<html>", "'", '"><script>alert(1)</script>', "{{ 7*7 }}",
    "%", "%00", "%ff", "%0d%0aX: y", "\N{RIGHT-TO-LEFT OVERRIDE}", "\U0001f5a8", "\ufffe", "\ud800", "a" * 9_000,
    "-1", "9" * 5_000, "../../etc/passwd", "javascript:alert(1)", "https://[", "https://[::1",
    "https://\N{FULLWIDTH LATIN SMALL LETTER A}.example/", "http://client.example:99999/", f"{REDIRECT_URI}\0",
    "https://client.example.evil.example/cb", "https://evil.example/cb", "//evil.example", "true", "null", "[]", "{}",
    "1e999", "é", "a b", "a,b", "*", "urn:ietf:params:oauth:request_uri:", "https://evil.example/request.jwt",
)  # fmt: skip
FORGED = tuple(map(forged, ("as_code_", "as_refresh_", "as_session_", "as_access_", "as_secret_")))
WORDS = (
    "code", "token", "S256", "plain", "query", "fragment", "form_post", "profile", "files.read", "admin", "openid",
    "offline_access", "profile files.read", "authorization_code", "refresh_token", "client_credentials", "implicit",
    "password", ASSERTIONS, EXCHANGE, DEVICE, "none", "login", "consent", "select_account", "allow", "deny", "switch", "all", "ann",
    "bob", "carl", "dora", "access_token", "apps", "account_apps", "de", "fr en", PASSWORD, RESOURCE,
    "https://files.example/", REDIRECT_URI, SECOND_URI, LOOPBACK, SCHEME, "http://127.0.0.1:8123/cb", CHALLENGE,
    VERIFIER, ISSUER, f"{ISSUER}/oauth/token", OTHER_URI, METHOD, ASSERTION_TYPE, *FORGED,
)  # fmt: skip
NAMES = (
    "response_type", "response_mode", "client_id", "client_secret", "client_assertion", "client_assertion_type",
    "redirect_uri", "scope", "state", "resource", "code", "code_challenge", "code_challenge_method", "code_verifier",
    "grant_type", "refresh_token", "assertion", "token", "token_type_hint", "request", "request_uri", "prompt",
    "max_age", "login_hint", "acr_values", "ui_locales", "nonce", "dpop_jkt", "csrf_token", "username", "password",
    "page", "answer", "confirm_unverified", "ticks", "notice", "disconnect", "revoke", "session", "others",
    "current_password", "new_password", "repeated", "client", "v", "_LOCALE_", "_charset_", "__proto__", "claims",
    "id_token_hint", "access_token", "display", "subject_token", "subject_token_type", "actor_token", "audience",
    "actor_token_type", "requested_token_type", "device_code", "user_code", "authorization_details",
    "post_logout_redirect_uri", "logout_hint",
)  # fmt: skip
MEMBERS = (
    "client_name", "redirect_uris", "grant_types", "response_types", "token_endpoint_auth_method", "scope",
    "application_type", "contacts", "client_uri", "logo_uri", "tos_uri", "policy_uri", "jwks", "jwks_uri",
    "software_id", "software_version", "software_statement", "client_name#de", "logo_uri#de", "client_id",
    "dpop_bound_access_tokens", "require_pushed_authorization_requests", "token_endpoint_auth_signing_alg", "__proto__",
    "subject_type", "id_token_signed_response_alg", "sector_identifier_uri", "default_max_age", "default_acr_values",
    "post_logout_redirect_uris", "nonce_replaces_pkce", "id_token_encrypted_response_alg",
)  # fmt: skip
PROOFS = (
    "proof", "proof of a pushed request", "proof of a resource", "proof with another url", "proof with another method", "proof of yesterday",
    "proof without id", "proof of another key", "proof with a wrong signature", "proof of another type",
    "proof of another algorithm", "proof without key", "proof of before",
)  # fmt: skip
VOUCHERS = (
    "assertion", "assertion of a stranger", "assertion for another", "assertion about nobody", "assertion about dora",
    "assertion without subject", "assertion without id", "assertion without end", "assertion that has ended",
    "assertion that lives too long", "assertion of tomorrow", "assertion with a wrong signature",
    "assertion of an unknown key", "assertion of another type", "assertion of another algorithm",
    "assertion with extensions", "assertion of before", "assertion of an actor", "assertion for the actor api",
    "assertion for an odd actor",
)  # fmt: skip
# What issuers say of people to their agents, and of programs.
IDENTITIES = (
    "identity assertion",
    *(
        f"identity assertion {words}"
        for words in (
            "of another client", "without client", "without a resource", "for an unknown resource", "for two resources",
            "for no resource", "with an unknown scope", "with another scope", "of a tenant", "with details", "with a key",
            "with another key", "with an odd key", "about dora", "about nobody", "that has ended", "of the other server",
            "of type JWT", "of type at+jwt", "of type logout+jwt", "of our own", "of the open", "of the shut",
            "of the strange", "of the unreachable", "of the broken",
        )
    ),
    "strict identity assertion",
    *(f"strict identity assertion signed in {words}" for words in ("long ago", "weakly", "some time")),
)  # fmt: skip
WORKLOADS = (
    "workload assertion",
    *(
        f"workload assertion {words}"
        for words in (
            "of an unknown one", "of two rules", "of the client of nobody", "of the client of a stranger",
            "that has just ended", "of yesterday", "for another",
        )
    ),
)  # fmt: skip
SIGNED = (
    "client assertion of another", "client assertion about another", "client assertion about nobody",
    "client assertion for an endpoint", "client assertion for two", "client assertion without id",
    "client assertion without end", "client assertion that has ended", "client assertion that lives too long",
    "client assertion of tomorrow", "client assertion of an unknown key", "client assertion of another type",
    "client assertion of another algorithm", "client assertion with extensions", "client assertion with a key",
    "client assertion with a wrong signature", "client assertion of before of signer",
)  # fmt: skip
INITIALS = (
    "initial token for partners", "initial token of a full policy", "initial token of an unknown policy",
    "initial token that is used up", "initial token that has expired", "initial token that is revoked",
)  # fmt: skip
STATEMENTS = (
    "statement", "statement of a stranger", "statement for another", "statement without a word",
    "statement that asks for more", "statement that has ended", "statement with a wrong signature",
)  # fmt: skip
# Everything that was issued, and where it belongs.
CODES = (
    *(f"{state}code of {name}" for name in HOLDERS for state in ("", "used ")),
    "code of ended",
    "code of bob of web",
    "code of dora of web",
    "code of bob of openly",
    "burnt code of web",
    "unproven code of openly",
)
TOKENS = (
    *tuple(
        f"{kind} token of {name}"
        for kind in ("access", "refresh")
        for name in (*HOLDERS, "used", "ended", "bob of web", "dora of web", "bob of openly")
    ),
    "access token of service",
    *(f"own access token of {name}" for name in ("api", "next")),
    *(f"access token of {name}" for name in ("tv", "printer", "api", "next", "agent", "reports")),
    *(f"refresh token of {name}" for name in ("tv", "api")),
    *(f"access token of {words}" for words in ("the end of a chain", "an orphan", "a guest", "the shut")),
)
STATES = ("", "seen ", "approved ", "used ", "denied ")
ID_TOKENS = tuple(f"id token of {name}" for name in (*KNOWING, "bob of openly"))
DEVICE_CODES = tuple(f"{state}device code of {name}" for name in ("tv", "printer") for state in STATES)
USER_CODES = tuple(f"{state}user code of {name}" for name in ("tv", "printer") for state in STATES)
TOKEN_TYPES = ("access_token", "jwt", "id_token", "refresh_token", "id-jag", "saml2")
PUSHERS = ("web", "native", "stranger", "pushing", "signer", "document", "keyed", "changed")
PUSHED = tuple(f"request of {name}" for name in PUSHERS)
SEALED = tuple(f"sealed request of {name}" for name in ("ann", "bob", "nobody", "answered"))
HELD = (
    *(f"id of {name}" for name in (*CLIENTS, *NOWHERE)),
    *(f"client assertion of {name}" for name in SIGNERS),
    *(f"secret of {name}" for name in ("web", "post", "api", "newcomer")),
    *CODES, *TOKENS, *ID_TOKENS, *DEVICE_CODES, *USER_CODES, *PUSHED, *SEALED, *(f"form token of {name}" for name in ("ann", "bob", "nobody", "answered")),
    "session", "grant of ann", "handle of a session", "thumbprint", *PROOFS[:2], *VOUCHERS[:2],
    *IDENTITIES[:2], *WORKLOADS[:2],
)  # fmt: skip

# What is wrong with a parameter in its own way.
OF_NAMES: Mapping[str, tuple[Value, ...]] = {
    "assertion": tuple(map(Known, (*VOUCHERS, *IDENTITIES, *WORKLOADS))),
    "device_code": (FORGED[0], *map(Known, (*DEVICE_CODES, *USER_CODES))),
    "user_code": (
        "BBBB-BBBB",
        "bbbb bbbb",
        "AEIO-UAEI",
        "B" * 9_000,
        *map(Known, (*USER_CODES, *DEVICE_CODES)),
    ),
    "id_token_hint": tuple(map(Known, (*ID_TOKENS, *TOKENS, *VOUCHERS))),
    "post_logout_redirect_uri": (AFTERWARDS, f"{AFTERWARDS}/", REDIRECT_URI, "https://evil.example/bye"),
    "subject_token": tuple(map(Known, (*TOKENS, *ID_TOKENS, *VOUCHERS, *IDENTITIES, *WORKLOADS))),
    "actor_token": tuple(map(Known, TOKENS)),
    "client_assertion": tuple(map(Known, (*(f"client assertion of {name}" for name in SIGNERS), *SIGNED))),
    "client_assertion_type": (
        "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
        ASSERTION_TYPE.upper(),
    ),
    "client_id": (*(Known(f"id of {name}") for name in (*CLIENTS, *NOWHERE)),),
    "client_secret": ("short", FORGED[-1], Known("secret of web")),
    "code": (FORGED[0], FORGED[1], *map(Known, CODES)),
    "code_challenge": ("short", "=" * 43, VERIFIER + "x"),
    "code_challenge_method": ("plain", "s256"),
    "code_verifier": ("short", "x" * 43, "x" * 129, "=" * 43),
    "csrf_token": tuple(Known(f"form token of {name}") for name in ("ann", "bob", "nobody", "answered")),
    "grant_type": (
        "implicit",
        "password",
        "client_credentials",
        ASSERTIONS,
        EXCHANGE,
        DEVICE,
        "refresh_token",
    ),
    "redirect_uri": (
        "https://evil.example/cb",
        f"{REDIRECT_URI}/",
        SECOND_URI,
        LOOPBACK,
        "nowhere",
        f"{REDIRECT_URI}#",
    ),
    "refresh_token": (FORGED[1], FORGED[0], *map(Known, TOKENS)),
    "request": tuple(map(Known, SEALED)),
    "request_uri": (
        "https://client.example/r",
        *map(Known, PUSHED),
        f"urn:ietf:params:oauth:request_uri:{FORGED[0]}",
    ),
    "resource": ("https://evil.example/", "nowhere", "https://api.example/#x"),
    "response_mode": ("fragment", "form_post"),
    "response_type": ("token", "code token", "id_token"),
    "scope": ("admin", "openid", "openid profile", "a  b", 'a"b', "x" * 5_000),
    "state": ("é", "x" * 8_200, "x" * 12_000, "\n"),
    "token": (*map(Known, TOKENS), *map(Known, CODES), *FORGED),
}

nasty = st.sampled_from(NASTY)
raw = st.one_of(
    st.sampled_from(
        (b"%ff", b"%c0%ae", b"%ed%a0%80", b"%00", b"\xff", b"%", b"%zz", b"a;b=c", b"+", b"&", b"=")
    ),
    st.binary(max_size=12),
).map(Raw)
values: st.SearchStrategy[Value] = st.one_of(
    st.sampled_from(WORDS), st.sampled_from(HELD).map(Known), nasty, st.text(max_size=20), raw
)
names: st.SearchStrategy[Value] = st.one_of(st.sampled_from(NAMES), st.text(max_size=10), raw)
pairs = st.tuples(names, values)

# ---- headers ----------------------------------------------------------------------------------------

# What a server in front passes on: visible characters, spaces and tabs, and bytes beyond ASCII (RFC 9110, 5.5).
field = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)
OF_HEADERS: Mapping[str, tuple[Value, ...]] = {
    "Authorization": (
        "Basic", "Basic ", "Basic Og==", "Basic \xff", "Basic ===", basic("web", "wrong"), basic("web\0", "\0"),
        basic("\N{SNOWMAN}", "\N{SNOWMAN}"), Known("basic with a wrong secret"), "Bearer", "Bearer x", "bEaReR x", "Digest username=x", "DPoP x",
        f"Bearer {INITIAL_TOKEN}", f"Bearer {FIGURES_TOKEN}", f"bearer {INITIAL_TOKEN}",
        *(Known(f"basic of {name}") for name in ("web", "api", "gone", "newcomer", "service")),
        f"Bearer {forged('as_registration_')}", f"Bearer {forged('as_initial_')}",
    ),
    "Content-Type": (
        FORM, f"{FORM}; charset=utf-16", f"{FORM}, text/html", "multipart/form-data", "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\xff", "application/json", "application/json; charset=utf-7",
        "application/jwt", "text/html; charset=nonsense", "", "/", "application/x-www-form-urlencoded;",
    ),
    "Cookie": (
        "__Host-authserver-session=", "__Host-authserver-session=a.b; __Host-authserver-session=c.d",
        f"__Host-authserver-session={forged('as_session_')}.AAAA", '__Host-authserver-session="\\377"', "=; ;;=",
        "__Host-authserver-device=x", "__Host-authserver-request-x=y", "authserver-session=a.b",
        *(Known(f"cookies of {name}") for name in PEOPLE),
    ),
    "Origin": (LISTED, "https://client.example", ISSUER, "null", "https://evil.example", "https://[", "http://127.0.0.1",
               "https://client.example:99999", "*"),
    "Host": (HOST, f"{HOST}:443", f"{HOST}:x", f"{HOST}, evil.example", "evil.example", "[::1", HOST.upper()),
    "Accept": ("application/token-introspection+jwt", "application/json", "text/html", "*/*;q=0", ";;q=x,"),
    "Accept-Language": ("de", "fr;q=0.9, de", "en;q=0, *;q=0", "de-DE-1996-x-a;q=1.0000", "*;q=2", "x" * 2_000),
    "Accept-Encoding": ("gzip", "*;q=0"),
    "If-None-Match": ('W/"x", *', '"', "*"),
    "If-Modified-Since": ("Thu, 99 Foo 99999 99:99:99 GMT",),
    "Range": ("bytes=0-0", "bytes=-1, 5-"),
    "Referer": ("https://evil.example/",),
    "Access-Control-Request-Method": ("POST", "BREW"),
    "X-Forwarded-For": ("evil.example", "127.0.0.1", "::1, x"),
    "X-Forwarded-Host": ("evil.example",),
    "X-Forwarded-Proto": ("http", "javascript"),
    "X-Forwarded-Prefix": ("//evil.example",),
    "Forwarded": ("for=_x;host=evil.example;proto=http",),
    "X-HTTP-Method-Override": ("DELETE",),
    "DPoP": tuple(map(Known, PROOFS)),
    "MCP-Protocol-Version": ("2025-06-18", "\xff"),
    "User-Agent": ("x" * 5_000, "\N{LATIN SMALL LETTER E WITH ACUTE}"),
}  # fmt: skip
headers = st.sampled_from(sorted(OF_HEADERS)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(OF_HEADERS[name]) | field)
)

# ---- right messages ---------------------------------------------------------------------------------


def _one(draw: Draw, *choices: Any) -> Any:
    return draw(st.sampled_from(choices))


def _somebody(draw: Draw) -> str:
    """The name of a client, of one that signs more often; now and then of one that is none."""
    if _one(draw, True, False, False, False, False):
        return str(_one(draw, *NOWHERE))
    return str(_one(draw, *CLIENTS, *["signer"] * 6, *KNOWING * 2, *["narrow"] * 2))


def _cookies(draw: Draw, *people: str) -> tuple[tuple[str, Value], ...]:
    """The cookies of one of these people; of ann more often than of others."""
    who = _one(draw, *(people or ("ann", "ann", "ann", *PEOPLE, None)))
    return () if who is None else (("Cookie", Known(f"cookies of {who}")),)


def _some(draw: Draw, **optional: tuple[Any, ...]) -> tuple[Pair, ...]:
    """Some of these parameters, few."""
    chosen = draw(st.lists(st.sampled_from(sorted(optional)), max_size=2, unique=True))
    return tuple((name, _one(draw, *optional[name])) for name in chosen)


def _proves(draw: Draw, name: str) -> tuple[tuple[Pair, ...], tuple[tuple[str, Value], ...]]:
    """How this client authenticates: parameters and headers."""
    client_id: Pair = ("client_id", Known(f"id of {name}"))
    if name in SECRETLESS:
        return (client_id,), ()
    if name == "post":
        return (client_id, ("client_secret", Known("secret of post"))), ()
    if name in (*SIGNERS, *WITHOUT_KEYS):
        right = f"client assertion of {name}"
        wrong = SIGNED if name == "signer" else (right,)
        assertion: Pair = ("client_assertion", Known(_one(draw, *[right] * 6, *wrong)))
        # It names its client by itself.
        named = _one(draw, (client_id,), ())
        return (*named, ("client_assertion_type", ASSERTION_TYPE), assertion), ()
    return (), (("Authorization", Known(f"basic of {name}")),)


def _wanted(draw: Draw, name: str) -> tuple[Pair, ...]:
    """The parameters of an authorization request."""
    uri = REDIRECT_URIS.get(name, REDIRECT_URI)
    if name == "native":
        uri = _one(draw, LOOPBACK, "http://127.0.0.1:8123/cb", SCHEME)
    wanted: dict[str, Value] = {
        "response_type": "code",
        "client_id": Known(f"id of {name}"),
        "redirect_uri": uri,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "state": _one(draw, *["s"] * 20, "x" * 9_000),
    }
    if name in (*KNOWING, UNKNOWING):
        wanted["scope"] = _one(draw, "openid", "openid profile email")
        return (*wanted.items(), *_identifying(draw))
    extra = _some(
        draw,
        scope=(
            "profile",
            "files.read",
            "profile files.read",
            "admin",
            "openid",
            "files.write",
            "openid profile",
        ),
        resource=(RESOURCE, "https://files.example/", "https://evil.example/", "nowhere"),
        response_mode=("query", "fragment", "form_post"),
        nonce=("n", "n" * 3_000),
        claims=(
            "{",
            '{"id_token":{"acr":{"essential":true,"value":"password"}}}',
            '{"userinfo":{"sub":{"value":"x"}}}',
        ),
        id_token_hint=("a.b.c", Known("access token of web")),
        prompt=("none", "login", "consent", "none login", "select_account"),
        max_age=("0", "-1", "1"),
        acr_values=("password", "two-factors password", "two-factors", "unknown", '"'),
        ui_locales=("de", "x" * 2_000),
        dpop_jkt=(Known("thumbprint"), "malformed"),
        request=("a.b.c",),
        request_uri=("https://client.example/r", Known("request of web")),
    )
    return (*wanted.items(), *extra)


def _identifying(draw: Draw) -> tuple[Pair, ...]:
    """The parameters by which a client wants to know who somebody is (OpenID Connect Core, 3.1.2.1)."""
    return _some(
        draw,
        nonce=("n", "n" * 3_000),
        claims=(
            "{",
            '{"id_token":{"acr":{"essential":true,"values":["two-factors"]}}}',
            '{"id_token":{"iss":{"essential":true}}}',
            '{"userinfo":{"sub":{"value":"x"}}}',
            '{"id_token":{"sub":{"value":"x"}}}',
        ),
        id_token_hint=("a.b.c", *map(Known, ID_TOKENS), Known("access token of web")),
        prompt=("none", "login", "consent", "none login", "select_account", "create"),
        max_age=("0", "-1", "1", "x"),
        acr_values=("password", "two-factors"),
        display=("page", "popup", "x"),
        response_mode=("query", "fragment", "form_post"),
        request=("a.b.c",),
    )


def _authorize(draw: Draw, path: str) -> Message:
    name = _somebody(draw)
    if _one(draw, True, True, False):
        sent = _wanted(draw, name)
    else:
        owner = _one(draw, *PUSHERS)
        sent = (("client_id", Known(f"id of {owner}")), ("request_uri", Known(f"request of {owner}")))
    cookies, published = _cookies(draw), _published(draw, name)
    if _one(draw, True, True, False):
        return Message(method="GET", path=path, query=sent, headers=cookies, published=published)
    return Message(method="POST", path=path, form=sent, headers=cookies, published=published)


def _published(draw: Draw, name: str) -> dict[str, Any] | None:
    """What the document of the client `drawn` says."""
    return _metadata(draw, ("none", "none", METHOD)) if name == "drawn" else None


def _consent(draw: Draw, path: str) -> Message:
    who = _one(draw, "ann", "bob", "nobody", "answered")
    sealed: Pair = ("request", Known(f"sealed request of {who}"))
    whose = "ann" if who == "answered" else who
    cookies = _cookies(draw, whose, whose, whose, whose, *PEOPLE)
    if _one(draw, True, False, False):
        return Message(
            method="GET", path=path, query=(sealed, *_some(draw, ticks=("none", "all"))), headers=cookies
        )
    scopes = draw(st.lists(st.sampled_from(("profile", "files.read", "admin")), max_size=3))
    form: tuple[Pair, ...] = (
        sealed,
        ("csrf_token", Known(f"form token of {who}")),
        ("answer", _one(draw, "allow", "allow", "deny", "switch")),
        *(("scope", scope) for scope in scopes),
        *_some(draw, confirm_unverified=("yes",)),
    )
    return Message(method="POST", path=path, form=form, headers=cookies)


def _login(draw: Draw, path: str) -> Message:
    waiting = _some(draw, request=("", *tuple(map(Known, SEALED))), page=("account_apps", "login", "nowhere"))
    if _one(draw, True, False, False):
        return Message(method="GET", path=path, query=waiting, headers=_cookies(draw))
    form: tuple[Pair, ...] = (
        ("csrf_token", Known("form token of nobody")),
        ("username", _one(draw, "ann", "bob", "carl", "dora", "nobody", "ANN", "\N{SNOWMAN}", "a b")),
        ("password", _one(draw, PASSWORD, "wrong", "x" * 2_000)),
        *waiting,
    )
    return Message(method="POST", path=path, form=form, headers=_cookies(draw, "nobody", "nobody", "ann"))


def _own_form(route: Route) -> Callable[[Draw, str], Message]:
    """A form of a page of a signed-in person."""

    def message(draw: Draw, path: str) -> Message:
        who = _one(draw, "ann", "ann", "bob", "carl", "dora")
        if "POST" not in route.methods or _one(draw, True, False, False):
            return Message(
                method="GET",
                path=path,
                query=_some(draw, notice=("revoked", "x")),
                headers=_cookies(draw, who),
            )
        passwords = (PASSWORD, "wrong", "a battery of correct horses", "short", "x" * 2_000)
        fields = {
            "account_apps": [
                ("disconnect", Known(f"id of {_one(draw, *CLIENTS)}")),
                ("revoke", Known("grant of ann")),
            ],
            "account_sessions": [("session", Known("handle of a session")), ("others", "yes")],
        }.get(route.name, [])
        chosen = draw(st.lists(st.sampled_from(fields), max_size=2, unique=True)) if fields else []
        if route.name == "account_password":
            new = _one(draw, *passwords)
            repeated = _one(draw, new, new, *passwords)
            current = _one(draw, PASSWORD, PASSWORD, *passwords)
            chosen = [("current_password", current), ("new_password", new), ("repeated", repeated)]
        form = (("csrf_token", Known(f"token of {who} for {route.name}")), *chosen)
        return Message(method="POST", path=path, form=form, headers=_cookies(draw, who, who, who, "bob"))

    return message


def _redeemed(draw: Draw, kind: str) -> tuple[str, tuple[Pair, ...]]:
    """A client that has got a code or a refresh token, and what it sends with it."""
    if kind == "code":
        code = _one(draw, *CODES, *["code of bound", "unproven code of openly"] * 3)
        name = code.split()[-1] if code != "code of ended" else "web"
        return name, (
            ("grant_type", "authorization_code"),
            ("code", _one(draw, *[Known(code)] * 12, FORGED[0])),
            ("code_verifier", _one(draw, *[VERIFIER] * 8, "x" * 43)),
            *_some(draw, redirect_uri=(REDIRECT_URI, LOOPBACK), resource=(RESOURCE, FILES)),
        )
    token = _one(draw, *(token for token in TOKENS if token.startswith("refresh")))
    name = token.split()[-1] if token.split()[-1] not in ("used", "ended") else "web"
    return name, (
        ("grant_type", "refresh_token"),
        ("refresh_token", _one(draw, *[Known(token)] * 12, FORGED[1])),
        *_some(draw, scope=("profile", "admin", "files.read"), resource=(RESOURCE, FILES)),
    )


def _for_itself(draw: Draw) -> tuple[str, tuple[Pair, ...]]:
    name = _one(draw, "service", "service", "api", "web", "native", "stranger", "scopeless")
    extra = _some(draw, scope=("profile", "admin", "openid", "a  b"), resource=(RESOURCE, "nowhere"))
    many = tuple(("resource", f"https://api.example/{number}") for number in range(11))
    return name, (("grant_type", "client_credentials"), *_one(draw, *[extra] * 8, many))


def _polled(draw: Draw) -> tuple[str, tuple[Pair, ...]]:
    name = _one(draw, "tv", "printer")
    state = _one(draw, *STATES, "approved ")
    extra = _some(draw, resource=(RESOURCE, FILES), code_verifier=(VERIFIER,), scope=("profile", "admin"))
    return name, (
        ("grant_type", DEVICE),
        ("device_code", Known(f"{state}device code of {name}")),
        *extra,
    )


def _exchanged(draw: Draw) -> tuple[str, tuple[Pair, ...]]:
    """A client that shows a token to get another one, for the next service or for another server."""
    types = [f"urn:ietf:params:oauth:token-type:{each}" for each in TOKEN_TYPES]
    access, jwt, _, refresh, id_jag, _ = types
    name, subject, its_type = _one(
        draw,
        *[
            ("api", f"access token of {owner}", access)
            for owner in ("web", "post", "next", "bound", "an orphan", "gone", "service")
        ],
        *[("api", voucher, jwt) for voucher in VOUCHERS[:1] + VOUCHERS[-3:]],
        ("api", "access token of first", access),
        ("next", "access token of api", access),
        ("next", "access token of the end of a chain", access),
        *[("web", "refresh token of web", refresh)] * 5,
        ("web", "access token of web", access),
        ("api", _one(draw, *TOKENS), access),
        ("api", _one(draw, *VOUCHERS, *IDENTITIES, *WORKLOADS), _one(draw, jwt, jwt, *types)),
    )
    sent: tuple[Pair, ...] = (
        ("grant_type", EXCHANGE),
        ("subject_token", Known(subject)),
        ("subject_token_type", its_type),
    )
    # Who is signed in is told by a refresh token, and by no access token.
    if name == "web" and _one(draw, True, True, False):
        servers = (
            *[OUTSIDE, "https://strict.example"] * 3,
            *(f"https://{each}.example" for each in ("strict", "golden", "staff", "ours")),
        )
        extra = _some(
            draw,
            scope=("profile", "admin"),
            resource=("https://notes.example/", RESOURCE),
            authorization_details=("[]",),
        )
        audience: tuple[Pair, ...] = (("audience", _one(draw, *servers)),) * _one(draw, 1, 1, 1, 1, 2)
        return name, (*sent, ("requested_token_type", id_jag), *audience, *extra)
    actor = Known(_one(draw, "own access token of api", "own access token of api", *TOKENS))
    with_actor: tuple[Pair, ...] = (("actor_token", actor), ("actor_token_type", access))
    return name, (
        *sent,
        *_one(draw, (), (), with_actor),
        *_some(
            draw,
            scope=("profile", "admin", "files.write"),
            resource=(RESOURCE, FILES),
            audience=(FILES, OUTSIDE, "files", "nowhere"),
            requested_token_type=tuple(types),
            actor_token_type=tuple(types),
        ),
    )


def _vouched(draw: Draw) -> tuple[str, tuple[Pair, ...]]:
    """A client that shows what others have signed."""
    name, assertion = _one(
        draw,
        ("vouched", _one(draw, *VOUCHERS)),
        *[("agent", each) for each in (IDENTITIES[0], _one(draw, *IDENTITIES), _one(draw, *IDENTITIES))],
        *[("reports", each) for each in (WORKLOADS[0], _one(draw, *WORKLOADS))],
    )
    return name, (
        ("grant_type", ASSERTIONS),
        ("assertion", Known(assertion)),
        *_one(draw, (("resource", RESOURCE),), ()),
        *_some(draw, scope=("profile", "admin", "files.write"), resource=(RESOURCE, FILES)),
    )


GRANTS: Mapping[str, Callable[[Draw], tuple[str, tuple[Pair, ...]]]] = {
    "client": _for_itself,
    "device": _polled,
    "exchange": _exchanged,
    "assertion": _vouched,
}


def _token(draw: Draw, path: str) -> Message:
    kind = _one(draw, *["code"] * 2, *["refresh"] * 2, *GRANTS)
    name, sent = GRANTS[kind](draw) if kind in GRANTS else _redeemed(draw, kind)
    if _one(draw, False, False, True):
        name = _somebody(draw)
    proven, headers = _proves(draw, name)
    if name == "reports" and _one(draw, True, False):
        # The rule for a workload names its client.
        proven = ()
    proofs = (True, True, False) if name == "bound" else (True, False, False)
    if _one(draw, *proofs):
        headers = (*headers, ("DPoP", Known(_one(draw, "proof", "proof", *PROOFS))))
    # Codes and tokens end at some time.
    later = _one(draw, *[0] * 3 * len(LATER), *LATER)
    return Message(
        method="POST",
        path=path,
        form=(*proven, *sent),
        headers=headers,
        later=later,
        published=_published(draw, name),
    )


def _device_authorization(draw: Draw, path: str) -> Message:
    """A device asks for its codes."""
    name = _one(draw, "tv", "printer", _somebody(draw))
    proven, headers = _proves(draw, name)
    extra = _some(
        draw,
        scope=("profile", "files.read", "admin", "openid"),
        resource=(RESOURCE, "https://evil.example/"),
        code_challenge=(CHALLENGE,),
        nonce=("n",),
        request=("a.b.c",),
        acr_values=("password", "x" * 9_000),
    )
    named: tuple[Pair, ...] = (
        () if ("client_id", Known(f"id of {name}")) in proven else (("client_id", Known(f"id of {name}")),)
    )
    if _one(draw, True, False, False, False):
        headers = (*headers, ("DPoP", Known(_one(draw, *PROOFS))))
    return Message(
        method="POST",
        path=path,
        form=(*proven, *named, *extra),
        headers=headers,
        published=_published(draw, name),
    )


def _typed(draw: Draw, path: str) -> Message:
    """Somebody types the code of a device, or answers it."""
    who = _one(draw, "ann", "ann", "ann", "bob", "carl", "dora")
    cookies = _cookies(draw, who, who, who, who, *PEOPLE)
    code: Pair = ("user_code", _one(draw, *map(Known, USER_CODES), "BBBB-BBBB"))
    later = _one(draw, *[0] * 12, 61, 601, 901)
    if not path.endswith("answer") and _one(draw, True, False, False):
        return Message(method="GET", path=path, query=_one(draw, (), (code,)), headers=cookies, later=later)
    page = "device_answer" if path.endswith("answer") else "device"
    form: tuple[Pair, ...] = (("csrf_token", Known(f"token of {who} for {page}")), code)
    if page == "device_answer":
        scopes = draw(st.lists(st.sampled_from(("profile", "files.read", "admin")), max_size=3))
        form = (
            *form,
            ("answer", _one(draw, "allow", "allow", "deny")),
            *(("scope", scope) for scope in scopes),
        )
    return Message(method="POST", path=path, form=form, headers=cookies, later=later)


def _about_a_token(draw: Draw, path: str) -> Message:
    name = _one(draw, "api", "web", "web", "post", _somebody(draw))
    proven, headers = _proves(draw, name)
    token: Value = _one(draw, *map(Known, TOKENS), *map(Known, CODES[:2]), Known("session"), *FORGED)
    extra = _some(draw, token_type_hint=("access_token", "refresh_token", "nonsense"))
    if _one(draw, True, False, False):
        headers = (*headers, ("Accept", "application/token-introspection+jwt"))
    return Message(method="POST", path=path, form=(*proven, ("token", token), *extra), headers=headers)


def _end_session(draw: Draw, path: str) -> Message:
    """A client signs somebody out, or the person answers whether that is right (OpenID Connect RP-Initiated Logout)."""
    who = _one(draw, "ann", "ann", "bob", "nobody")
    sent = _some(
        draw,
        id_token_hint=(*map(Known, ID_TOKENS), Known("access token of openly"), "a.b.c"),
        client_id=tuple(Known(f"id of {name}") for name in ("openly", "pairwise", "web")),
        post_logout_redirect_uri=(AFTERWARDS, "https://evil.example/bye"),
        state=("s", "x" * 9_000),
        logout_hint=("ann",),
        ui_locales=("de",),
    )
    later = _one(draw, *[0] * 6, *LATER)
    if not path.endswith("answer") and _one(draw, True, False):
        return Message(method="GET", path=path, query=sent, headers=_cookies(draw, who), later=later)
    token: Pair = ("csrf_token", Known(f"token of {'ann' if who == 'nobody' else who} for logout"))
    return Message(method="POST", path=path, form=(token, *sent), headers=_cookies(draw, who), later=later)


def _userinfo(draw: Draw, path: str) -> Message:
    """Whatever there is as a bearer token."""
    token = _one(
        draw, *["access token of openly", "access token of pairwise"] * 8, *TOKENS, *ID_TOKENS, *CODES[:2], *DEVICE_CODES[:2],
        *IDENTITIES[:1], *WORKLOADS[:1],
    )  # fmt: skip
    scheme = _one(draw, "Bearer ", "Bearer ", "DPoP ")
    headers: tuple[tuple[str, Value], ...] = (("Authorization", Known(token, scheme)),)
    if scheme == "DPoP ":
        headers = (("Authorization", Known(_one(draw, "access token of bound", token), scheme)),)
        headers = (*headers, ("DPoP", Known(_one(draw, *["proof of a resource"] * 6, *PROOFS))))
    later = _one(draw, *[0] * 12, *LATER)
    method = _one(draw, "GET", "POST")
    # In a form as well, or there alone (RFC 6750, 2.2).
    form: tuple[Pair, ...] | None = (("access_token", Known(token)),) if method == "POST" else None
    if form and _one(draw, True, False):
        headers = ()
    return Message(method=method, path=path, form=form, headers=headers, later=later)


def _pushed(draw: Draw, path: str) -> Message:
    name = _somebody(draw)
    proven, headers = _proves(draw, name)
    wanted = tuple(pair for pair in _wanted(draw, name) if pair not in proven)
    if _one(draw, True, False, False):
        headers = (*headers, ("DPoP", Known(_one(draw, "proof of a pushed request", *PROOFS))))
    return Message(
        method="POST",
        path=path,
        form=(*proven, *wanted),
        headers=headers,
        published=_published(draw, name),
    )


def _metadata(
    draw: Draw, methods: tuple[str, ...] = ("none", "client_secret_basic", "client_secret_post", METHOD)
) -> dict[str, Any]:
    """What a client says of itself, right or nearly so."""
    metadata: dict[str, Any] = {
        "client_name": "New",
        "redirect_uris": [
            _one(
                draw,
                REDIRECT_URI,
                LOOPBACK,
                SCHEME,
                "myapp://cb",
                "cursor://anysphere.cursor-mcp/oauth/callback",
            )
        ],
        "token_endpoint_auth_method": _one(draw, *methods),
        "scope": "profile",
    }
    if metadata["token_endpoint_auth_method"] == METHOD:
        metadata |= _one(
            draw, {"jwks": GOOD_KEYS}, {"jwks": GOOD_KEYS}, {"jwks_uri": "https://app.example/jwks"}
        )
    if _one(draw, True, False, False, False):
        metadata |= {"scope": "openid profile", "subject_type": "pairwise"}
        metadata["redirect_uris"] = [REDIRECT_URI, _one(draw, OTHER_URI, "https://other.example/cb")]
        sector = _one(draw, *(f"address of {name}" for name in SECTORS), "id of failing", "id of page", None)
        metadata |= {"sector_identifier_uri": Known(sector)} if sector else {}
    metadata |= draw(st.dictionaries(st.sampled_from(MEMBERS), members, max_size=3))
    for gone in draw(st.lists(st.sampled_from(sorted(metadata)), max_size=1)):
        del metadata[gone]
    if _one(draw, True, False, False):
        metadata["software_statement"] = Known(_one(draw, "statement", "statement", *STATEMENTS))
    return metadata


def _register(draw: Draw, path: str) -> Message:
    metadata = _metadata(draw)
    kind = _one(draw, *["operator's"] * 8, *["own"] * 4, "wrong")
    if kind == "operator's":
        headers: tuple[tuple[str, Value], ...] = (("Authorization", f"Bearer {INITIAL_TOKEN}"),)
    elif kind == "own":
        token = _one(draw, INITIALS[0], *INITIALS)
        headers = (("Authorization", Known(token, "Bearer ")),)
    else:
        headers = draw(st.sampled_from(((), (("Authorization", "Bearer x"),))))
    return Message(
        method="POST", path=path, json=metadata, headers=(("Content-Type", "application/json"), *headers)
    )


def _manage(draw: Draw, path: str) -> Message:
    """A client reads, changes or ends its registration."""
    name = _one(draw, *REGISTERED)
    whose = _one(draw, name, name, name, *REGISTERED, None)
    headers: tuple[tuple[str, Value], ...] = ()
    if whose is not None:
        headers = (("Authorization", Known(f"registration token of {whose}", "Bearer ")),)
    query: tuple[Pair, ...] = (("client_id", Known(f"id of {_one(draw, name, name, name, *CLIENTS)}")),)
    method = _one(draw, "GET", "PUT", "PUT", "PUT", "DELETE")
    if method != "PUT":
        return Message(method=method, path=path, query=query, headers=headers)
    metadata = {"client_id": Known(f"id of {name}"), **_metadata(draw)}
    if _one(draw, True, False, False, False):
        own = ("client_secret", "registration_access_token", "registration_client_uri", "client_id_issued_at")
        metadata[_one(draw, *own)] = draw(members)
    return Message(
        method=method,
        path=path,
        query=query,
        json=metadata,
        headers=(*headers, ("Content-Type", "application/json")),
    )


# The public key of RFC 7517, A.1; others that nobody may have, or that are none.
_PUBLIC = {"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
           "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "sig", "kid": "1", "alg": "ES256"}  # fmt: skip
GOOD_KEYS = {"keys": [_PUBLIC]}
BAD_KEYS: tuple[Any, ...] = (
    {"keys": [{**_PUBLIC, "d": "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}]},
    {"keys": [{**_PUBLIC, "x": _PUBLIC["y"]}]},
    {"keys": [{**_PUBLIC, "kid": str(number)} for number in range(30)]},
    {"keys": [_PUBLIC, _PUBLIC]},
    {"keys": [{"kty": "oct", "k": "AAAA", "alg": "HS256"}]},
    {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQ", "kid": "2"}]},
    {"keys": [{**_PUBLIC, "crv": "P-384"}, None, 1, []]},
    {"keys": {"1": _PUBLIC}},
)

# What a client says of itself is public; nobody says a password there.
_words = st.sampled_from([word for word in WORDS if word != PASSWORD])
_leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), _words, nasty)
members = st.one_of(
    _leaves,
    st.lists(_leaves, max_size=4),
    st.lists(_words, min_size=1, max_size=12),
    st.dictionaries(st.text(max_size=5), st.lists(_leaves, max_size=2), max_size=3),
    st.sampled_from(
        (
            *([REDIRECT_URI], ["authorization_code"], ["client_credentials"], ["implicit"], []),
            *({"keys": []}, GOOD_KEYS, *BAD_KEYS, METHOD),
        )
    ),
)


def _figures(draw: Draw, path: str) -> Message:
    token = _one(draw, FIGURES_TOKEN, "wrong")
    return Message(method="GET", path=path, headers=(("Authorization", f"Bearer {token}"),))


def _anything(route: Route) -> Callable[[Draw, str], Message]:
    def message(draw: Draw, path: str) -> Message:
        method = _one(draw, *route.methods)
        sent = tuple(draw(st.lists(pairs, max_size=4)))
        if method == "POST":
            return Message(method=method, path=path, form=sent, headers=_cookies(draw))
        return Message(method=method, path=path, query=sent, headers=_cookies(draw))

    return message


GRAMMARS: Mapping[str, Callable[[Draw, str], Message]] = {
    "authorize": _authorize,
    "consent": _consent,
    "device": _typed,
    "device_answer": _typed,
    "device_authorization": _device_authorization,
    "end_session": _end_session,
    "end_session_answer": _end_session,
    "introspect": _about_a_token,
    "login": _login,
    "metrics": _figures,
    "pushed_requests": _pushed,
    "register": _register,
    "registration": _manage,
    "revoke": _about_a_token,
    "token": _token,
    "userinfo": _userinfo,
}
# Where most is decided, more is sent.
WEIGHTS: Mapping[str, int] = {
    "account_password": 2, "authorize": 10, "consent": 5, "device": 2, "device_answer": 4, "device_authorization": 4, "end_session": 2, "introspect": 4, "login": 4, "pushed_requests": 6, "register": 8, "registration": 8, "revoke": 2,
    "token": 24, "userinfo": 2,
}  # fmt: skip

# ---- what is done to them ---------------------------------------------------------------------------


@st.composite
def messages(draw: st.DrawFn, route: Route) -> Message:
    """Messages to this endpoint: right ones, and ones with a few changes."""
    own = route.personal or route.name == "logout"
    grammar = GRAMMARS.get(route.name) or (_own_form(route) if own else _anything(route))
    path = route.path.replace("*name", "nothing")
    message = grammar(draw, path)
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=3)):
        message = change(draw, message)
    return message


def _changed(message: Message, sent: tuple[Pair, ...]) -> Message:
    """With these parameters in the place of those that it has."""
    if message.form is not None:
        return replace(message, form=sent)
    return replace(message, query=sent)


def _sent(message: Message) -> tuple[Pair, ...]:
    return message.query if message.form is None else message.form


def _drop(draw: Draw, message: Message) -> Message:
    sent = list(_sent(message))
    if sent:
        sent.pop(draw(st.integers(0, len(sent) - 1)))
    return _changed(message, tuple(sent))


def _double(draw: Draw, message: Message) -> Message:
    sent = _sent(message)
    return _changed(message, (*sent, _one(draw, *sent))) if sent else message


def _swap(draw: Draw, message: Message) -> Message:
    """Two values change places."""
    sent = list(_sent(message))
    if len(sent) > 1:
        one, other = (draw(st.integers(0, len(sent) - 1)) for _ in range(2))
        (name, value), (other_name, other_value) = sent[one], sent[other]
        sent[one], sent[other] = (name, other_value), (other_name, value)
    return _changed(message, tuple(sent))


def _replace(draw: Draw, message: Message) -> Message:
    sent = list(_sent(message))
    if sent:
        place = draw(st.integers(0, len(sent) - 1))
        name = sent[place][0]
        known = OF_NAMES.get(name) if isinstance(name, str) else None
        sent[place] = (name, _one(draw, *known) if known and draw(st.booleans()) else draw(values))
    return _changed(message, tuple(sent))


def _add(draw: Draw, message: Message) -> Message:
    return _changed(message, (*_sent(message), draw(pairs)))


def _flood(draw: Draw, message: Message) -> Message:
    """More parameters, or a longer one, than are read."""
    many = _one(
        draw, (("p", "x"),) * 101, (("x" * 9_000, "x"),), (("state", "x" * 20_000),), (("", ""),) * 200
    )
    return _changed(message, (*_sent(message), *many))


def _move(draw: Draw, message: Message) -> Message:
    """What belongs into the body stands in the address, or the other way round."""
    if message.form is not None:
        return replace(message, query=message.form, form=())
    return replace(message, query=(), form=message.query)


def _another_method(draw: Draw, message: Message) -> Message:
    return replace(message, method=_one(draw, *METHODS))


def _another_header(draw: Draw, message: Message) -> Message:
    return replace(message, headers=(*message.headers, draw(headers)))


def _another_credential(draw: Draw, message: Message) -> Message:
    return replace(
        message, headers=(*message.headers, ("Authorization", _one(draw, *OF_HEADERS["Authorization"])))
    )


def _two_sessions(draw: Draw, message: Message) -> Message:
    return replace(message, headers=(*message.headers, ("Cookie", _one(draw, *OF_HEADERS["Cookie"]))))


def _no_header(draw: Draw, message: Message) -> Message:
    return replace(message, headers=message.headers[1:])


def _another_type(draw: Draw, message: Message) -> Message:
    return replace(
        message, headers=(*message.headers, ("Content-Type", _one(draw, *OF_HEADERS["Content-Type"])))
    )


def _another_body(draw: Draw, message: Message) -> Message:
    """What is no form, and often no JSON either; or too much of it."""
    body = draw(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from((
                b"", b"{}", b"[]", b"null", b"{", b'{"a":1,"a":2}', b"[" * 5_000, b'{"client_name":"\\ud800"}',
                b'{"a":1e999}', b'{"a":NaN}', b"\xef\xbb\xbf{}", b"a" * 65_537, b'{"x":"' + b"a" * 20_000 + b'"}',
                b'--b\r\nContent-Disposition: form-data; name="grant_type"\r\n\r\nx\r\n--b--\r\n', b"a=b;c=d", b"&" * 50,
            )),
        )
    )  # fmt: skip
    return replace(
        message,
        form=None,
        json=None,
        body=body,
        headers=(
            *message.headers,
            ("Content-Type", _one(draw, FORM, "application/json", "multipart/form-data; boundary=b")),
        ),
    )


def _too_large(draw: Draw, message: Message) -> Message:
    """A body that is not read, of the type that it should have."""
    if message.form is None:
        return replace(message, json=None, body=(message.body or b"{}") + b" " * 65_537)
    return replace(message, form=(*message.form, ("a", "x" * 65_537)))


def _another_proof(draw: Draw, message: Message) -> Message:
    return replace(
        message, headers=(*message.headers, ("DPoP", _one(draw, "a.b.c", "é", *map(Known, PROOFS))))
    )


def _later(draw: Draw, message: Message) -> Message:
    return replace(message, later=_one(draw, *LATER))


def _another_path(draw: Draw, message: Message) -> Message:
    return replace(
        message, path=message.path + _one(draw, "/", "//", ";x", "\n", "\0", "/..", "%2f", "\xff", ".json")
    )


CHANGES = (
    *[_replace] * 6, *[_drop] * 2, *[_double] * 2, *[_another_header] * 2, *[_later] * 2, _swap, _add, _flood, _move,
    _another_method, _another_credential, _another_proof, _too_large, _two_sessions, _no_header, _another_type, _another_body, _another_path,
)  # fmt: skip

# ---- any path ---------------------------------------------------------------------------------------

SEGMENTS = st.one_of(
    st.sampled_from(
        [*b"oauth token authorize register jwks consent login logout health live ready static playground".split(),
         *b"admin .well-known oauth-authorization-server openid-configuration style.css @@ favicon.svg".split(),
         b"", b".", b"..", b";", b"token;x=1", b"%2e%2e", b"..;", b"\\", b"..\\..", b"\0", b"\xff", b"\xc0\xae",
         b"\xed\xa0\x80", b"{x}", b"*traverse", b"a" * 3_000, "\N{FULLWIDTH FULL STOP}".encode()]
    ),
    st.binary(max_size=12),
    st.text(max_size=12).map(str.encode),
)  # fmt: skip
PATHS = st.builds(
    lambda first, segments, last: (first + b"/".join(segments) + last).decode("latin-1"),
    st.sampled_from([b"/", b"", b"//", b"/oauth/", b"/static/", b"/playground/static/", b"/.well-known/"]),
    st.lists(SEGMENTS, max_size=6),
    st.sampled_from([b"", b"/", b"/\xff", b"%00"]),
)
anywhere = st.builds(
    Message, method=st.sampled_from(METHODS), path=PATHS, headers=st.lists(headers, max_size=3).map(tuple)
)
