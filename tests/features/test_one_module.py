"""A capability is one module of `features/`: its name and its words on the wire occur nowhere else in the package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import authserver
from authserver.plugins.loading import GROUP

PACKAGE = Path(authserver.__file__).parent
FEATURES = PACKAGE / "features"
TEXTS = {".css", ".jinja2", ".js", ".py", ".txt"}
# The words of each module, without regard to case; the names of its entry point and its class are added. `dpop` is in
# `dpop_jkt`, `DPoP-Nonce` and `use_dpop_nonce`, `pushed` in `require_pushed_authorization_requests`.
# Not here, because they are the core's: `request_uri` and `request`, which it refuses where nobody reads them (RFC
# 9101, 7), and `client_assertion`, of which it sees that it is a method beside others (RFC 7521, 4.2); `jwks`, which is
# also what this server publishes; and the grant type of assertions, which each of their profiles shares.
WORDS = {
    "admin_api": ["admin api", "authserver:clients", "admin_api_token"],
    "client_id_documents": [
        "client id document",
        "client id documents",
        "client id metadata document",
        "client id metadata documents",
        "client_id_metadata_document_supported",
        "cimd",
    ],
    "client_management": ["registration_access_token", "registration_client_uri"],
    # Not "console", which is also what a terminal is called.
    "console": [
        "admin_overview",
        "admin_people",
        "admin_person",
        "admin_grants",
        "admin_grant",
        "admin_audit",
        "admin_event",
        "admin_end",
        "age_for_reading",
        "age_for_changing",
    ],
    # Not "device", which is also what somebody signs in on.
    "device": [
        "device_code",
        "device code",
        "device codes",
        "device flow",
        "device_authorization",
        "user_code",
        "user code",
        "verification_uri",
    ],
    "dpop": ["dpop", "jkt"],
    "id_jag": ["id-jag", "enterprise-managed", "identity assertion grant", "identity assertion grants"],
    "id_jag_issuer": ["identity_chaining_requested_token_types_supported"],
    "jwt_bearer": ["authorization-grant+jwt"],
    "metrics": ["metrics", "prometheus"],
    "opentelemetry": ["opentelemetry", "otlp"],
    # Not "nonce", which is also a term of cryptography, and in its name of the specification "OIDC".
    "openid": ["openid", "userinfo", "id_token", "id_token_hint", "form_post", "pairwise", "at_hash"],
    "par": ["par", "pushed", "push", "pushes", "invalid_request_uri"],
    "playground": ["playground"],
    "software_statements": ["software statement", "software statements", "software_statement"],
    "private_key_jwt": [
        "private_key_jwt",
        "client-assertion-type",
        "client-authentication+jwt",
    ],
    # Not `max_age`, which is a member of cookies too, and not `acr`, which the core puts into tokens.
    "step_up": ["step up", "acr_values", "acr_values_supported", "unmet_authentication_requirements"],
    # Not "act", which is the core's: it says who acts by any derived grant.
    "token_exchange": [
        "subject_token",
        "actor_token",
        "issued_token_type",
        "grant-type:token-exchange",
    ],
    # Not "provider", which is also what operators call a server of others.
    "upstream": [
        "upstream",
        "upstreams",
        "provider_start",
        "provider_callback",
        "asks_userinfo",
    ],
    "workload_identity": ["workload", "workloads", "kubernetes", "github", "gitlab", "spiffe"],
    "webhook_events": ["webhook", "whsec"],
    "syslog_events": ["syslog"],
    "otlp_events": ["otlp"],
    "smtp": ["smtp"],
    "rate_limits": ["rate limit", "rate limits", "redis", "valkey"],
}
# Commands that start a whole server and list its plugins, as an INI file does; what makes up requests of strangers; and
# what verifies the tokens of others.
LISTING = {
    # An API, which takes access tokens of every type, as those of others do.
    "dpop": {"features/admin_api/access.py"},
    # The other side of the same protocol; either is of use without the other.
    "id_jag": {"features/id_jag_issuer.py"},
    # Parameters of a response, which no redirect URI may have; and what strangers ask for.
    "openid": {
        "engine/uris.py",
        "testing/hostile.py",
        "testing/strategies.py",
        # It speaks to other servers in the words of OpenID Connect, as a client of theirs.
        *(
            f"features/upstream/{name}.py"
            for name in ("__init__", "documents", "ending", "providers", "tokens")
        ),
    },
    "playground": {"cli/demo.py", "testing/live.py"},
    # A request says in the words of OpenID Connect, too, which level of sign-in it needs.
    "step_up": {
        "testing/strategies.py",
        "features/id_jag_issuer.py",
        "features/openid/__init__.py",
        "features/openid/sign_in.py",
        "features/upstream/pages.py",
    },
    # Both speak of OpenTelemetry: one sends traces, the other events as log records.
    "opentelemetry": {"features/otlp_events.py"},
    "otlp_events": {"features/opentelemetry.py"},
}
# It looks at servers from outside, whatever they are made of, and so speaks all of their words.
FROM_OUTSIDE = PACKAGE / "doctor"


def modules() -> list[str]:
    return sorted(
        path.stem for path in FEATURES.iterdir() if path.stem != "__init__" and not path.name.startswith("__")
    )


def names_of(module: str) -> Iterator[str]:
    """What a module is known by: its entry point, and the class behind it."""
    for point in entry_points(group=GROUP):
        if point.module == f"authserver.features.{module}":
            yield point.name
            yield point.attr


def pattern_of(module: str) -> re.Pattern[str]:
    """Its words as whole words. Underscores and hyphens part words: `dpop` is found in `dpop_jkt`."""
    words = "|".join(map(re.escape, sorted({*WORDS[module], *names_of(module)})))
    return re.compile(rf"(?<![a-z0-9])({words})(?![a-z0-9])", re.IGNORECASE)


def holds(pattern: re.Pattern[str], line: str) -> bool:
    # The name of a class has a word for each capital letter.
    return any(pattern.search(text) for text in (line, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", line)))


def occurrences(module: str) -> list[str]:
    """The lines of other files that hold a word of the module."""
    pattern = pattern_of(module)
    own = {FEATURES / module, FEATURES / f"{module}.py", FROM_OUTSIDE}
    found = []
    for path in sorted(PACKAGE.rglob("*")):
        name = path.relative_to(PACKAGE).as_posix()
        if path.suffix not in TEXTS or name in LISTING.get(module, ()) or own & {path, *path.parents}:
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [f"{name}:{number}: {line}" for number, line in enumerate(lines, 1) if holds(pattern, line)]
    return found


def test_every_module_says_its_words() -> None:
    assert set(WORDS) == set(modules())


@pytest.mark.parametrize("module", sorted(WORDS))
def test_its_words_occur_in_no_other_file(module: str) -> None:
    assert occurrences(module) == []


@pytest.mark.parametrize(
    ("module", "line", "is_found"),
    [
        ("dpop", 'raise InvalidDpopProof("…")', True),
        ("dpop", "details.pop(dpop_bound_access_tokens)", True),
        ("dpop", 'headers["DPoP-Nonce"]', True),
        ("dpop", "endpoint", False),
        ("par", "PushedRequests()", True),
        ("par", "reason=request-not-pushed", True),
        ("par", "parse(parameters)", False),
        ("jwt_bearer", "class JwtBearer:", True),
        ("jwt_bearer", "a bearer token that is a JWT", False),
    ],
)
def test_a_word_is_found_however_it_is_written(module: str, line: str, is_found: bool) -> None:
    assert holds(pattern_of(module), line) is is_found
