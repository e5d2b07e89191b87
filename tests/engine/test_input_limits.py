"""Every limit of `authserver.limits` at its edge: what is exactly as long is accepted, what is one longer is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from authserver import limits
from authserver.api import allow, hookimpl
from authserver.engine import uris
from authserver.engine.asking import allowed_resources
from authserver.engine.clients.client_metadata import read_metadata, read_object
from authserver.engine.clients.logos import read_logo
from authserver.engine.clients.secrets import may_be_secret
from authserver.engine.crypto import digests, strict_json
from authserver.engine.crypto.jose import read_jws
from authserver.engine.errors import (
    InvalidClientMetadata,
    InvalidRedirectUri,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    ServerError,
)
from authserver.engine.parameters import Parameters, scope_set
from authserver.engine.people.attributes import (
    BadAttributes,
    checked_attributes,
    checked_groups,
    shortened,
)
from authserver.engine.people.known_devices import cookie_with, device_id_of
from authserver.engine.people.login import sign_in
from authserver.engine.people.usernames import BadUsername, normalise_username
from authserver.engine.questions import Identity
from authserver.engine.tokens.assertions import BadAssertion, TrustedKeys, single_use
from authserver.fetching.freshness import validators
from authserver.plugins.asking import PluginSet
from authserver.settings import Secret, scope_problems
from authserver.testing.logos import SVG_LOGO, png
from authserver.testing.records import a_client, a_user
from authserver.testing.rules import Rules
from authserver.web.languages import Languages


class Refused(Exception):
    """What is not accepted, and raises nothing by itself."""


@dataclass(frozen=True)
class Edge:
    """How a limit is met: with a number to send so much, and what is raised above it."""

    send: Callable[[int], object]
    error: type[Exception] = Refused
    says: str | None = None


def accept(holds: object) -> None:
    if not holds:
        raise Refused


def registration(**members: Any) -> None:
    body = json.dumps({"redirect_uris": ["https://a.example/cb"], **members}).encode()
    read_metadata(read_object(body), {})


def jws(length: int) -> None:
    header = "eyJhbGciOiJFUzI1NiJ9"
    claims = "eyJ4IjoxfQ"
    rest = length - len(header) - len(claims) - 2
    read_jws(f"{header}.{claims}.{'A' * rest}")


def key_set(text: bytes) -> None:
    TrustedKeys.read(text)


def many_keys(number: int) -> None:
    keys = [{"kty": "EC", "use": "enc"} for _ in range(number - 1)]
    key_set(json.dumps({"keys": [A_KEY, *keys]}).encode())


def nested(depth: int) -> None:
    strict_json.loads(b"[" * depth + b"]" * depth)


def resources(number: int) -> None:
    with Rules(
        {"authserver.plugin.resources_listed.resources": "https://api.example/ = *"}
    ).begin() as engine:
        client = SimpleNamespace(resources=(), client_id="reports")
        allowed_resources(engine, client, ["https://api.example/"] * number)


def client_id(length: int) -> None:
    """It is looked up, and found."""
    with Rules().begin() as engine:
        engine.stores.clients.add(a_client(client_id="x" * length))
        accept(engine.find_client("x" * length))


def people_at_one_browser(number: int) -> None:
    """The browser is still known for the first of them."""
    with Rules().begin() as engine:
        people = [a_user(user_id=f"user_{each}") for each in range(number)]
        cookie = ""
        for user in people:
            cookie = cookie_with(engine, cookie, user)
        accept(device_id_of(engine, cookie, people[0]))


A_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "kid": "one",
    "use": "sig",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
HTTP = "https://a.example/"
NAMES = [f"a{number}" for number in range(200)]


class Told(NamedTuple):
    languages: tuple[str, ...]
    translations: str


EDGES: dict[str, list[Edge]] = {
    "MAXIMUM_PARAMETERS": [
        Edge(
            lambda n: Parameters.parse("&".join(f"p{i}=" for i in range(n))),
            InvalidRequest,
            "too many parameters",
        )
    ],
    "MAXIMUM_PARAMETER": [
        Edge(lambda n: Parameters.parse(f"x={'x' * n}"), InvalidRequest, "a parameter is too long"),
        Edge(lambda n: Parameters.parse(f"{'x' * n}=x"), InvalidRequest, "a parameter is too long"),
        Edge(lambda n: Parameters.parse(f"x={quote('é') * n}"), InvalidRequest, "a parameter is too long"),
    ],
    "MAXIMUM_SCOPE": [
        Edge(lambda n: scope_set("x" * n), InvalidScope, "the scope is too long"),
        Edge(lambda n: registration(scope="x" * n), InvalidClientMetadata, "scope must be"),
    ],
    "MAXIMUM_SCOPE_NAME": [Edge(lambda n: accept(not scope_problems(["x" * n], 10_000)))],
    "MAXIMUM_RESOURCES": [Edge(resources, InvalidTarget, "Too many resources")],
    "MAXIMUM_URI": [
        Edge(lambda n: accept(uris.malformed(HTTP.ljust(n, "a")) is None)),
        Edge(lambda n: uris.canonical_resource(HTTP.ljust(n, "a")), InvalidTarget),
        Edge(lambda n: registration(redirect_uris=[HTTP.ljust(n, "a")]), InvalidRedirectUri, "at most 2048"),
    ],
    "MAXIMUM_CLIENT_ID": [Edge(client_id)],
    "MAXIMUM_ORIGIN": [Edge(lambda n: accept(uris.origin_problem("app://".ljust(n, "a")) is None))],
    "MAXIMUM_REDIRECT_URIS": [
        Edge(
            lambda n: registration(redirect_uris=[f"https://a.example/{i}" for i in range(n)]),
            InvalidRedirectUri,
            "more than 10 URIs",
        )
    ],
    "MAXIMUM_CLIENT_NAME": [
        Edge(lambda n: registration(**{"client_name#de": "x" * n}), InvalidClientMetadata, "up to 100")
    ],
    "MAXIMUM_MEMBER": [
        Edge(lambda n: registration(software_id="x" * n), InvalidClientMetadata, "software_id must be")
    ],
    "MAXIMUM_ITEMS": [
        Edge(
            lambda n: registration(contacts=[f"{i}@a.example" for i in range(n)]),
            InvalidClientMetadata,
            "contacts must be an array",
        )
    ],
    "MAXIMUM_CONTACT": [
        Edge(lambda n: registration(contacts=["x" * n]), InvalidClientMetadata, "contacts must be short")
    ],
    "MAXIMUM_LOGO": [
        Edge(lambda n: read_logo(SVG_LOGO.ljust(n)), InvalidClientMetadata, "more than 64 kB"),
    ],
    "MAXIMUM_LOGO_SIDE": [
        Edge(lambda n: read_logo(png(n, 1)), InvalidClientMetadata, "1 to 1024 pixels"),
        Edge(lambda n: read_logo(png(1, n)), InvalidClientMetadata, "1 to 1024 pixels"),
    ],
    "MAXIMUM_JSON": [
        Edge(lambda n: strict_json.loads(b"1".ljust(n)), ValueError, "the JSON is too large"),
        Edge(
            lambda n: read_object(b'{"redirect_uris":["https://a.example/cb"]}'.ljust(n)),
            InvalidClientMetadata,
            "at most 16 kB",
        ),
    ],
    "MAXIMUM_DEPTH": [Edge(nested, ValueError, "nested too deeply")],
    "MAXIMUM_INTEGER": [
        Edge(lambda n: strict_json.loads(str(n).encode()), ValueError, "number that is too large"),
        Edge(lambda n: strict_json.loads(str(-n).encode()), ValueError, "number that is too large"),
    ],
    "MAXIMUM_TOKEN": [Edge(jws, ValueError, "not a compact JWS")],
    "MAXIMUM_KEY_SET": [
        Edge(lambda n: key_set(json.dumps({"keys": [A_KEY]}).encode().ljust(n)), ValueError, "too large")
    ],
    "MAXIMUM_KEYS": [Edge(many_keys, ValueError, "more than 20 keys")],
    "MAXIMUM_KEY_ID": [
        Edge(
            lambda n: key_set(json.dumps({"keys": [{**A_KEY, "kid": "k" * n}]}).encode()),
            ValueError,
            "up to 128 printable",
        )
    ],
    "MAXIMUM_IDENTIFIER": [
        Edge(
            lambda n: single_use(
                {"jti": "x" * n, "iss": HTTP, "exp": 4_000_000_000},
                lifetime=60,
                refusal=InvalidRequest("used"),
            ),
            BadAssertion,
        )
    ],
    "MAXIMUM_PEOPLE": [Edge(people_at_one_browser)],
    "MAXIMUM_VALIDATOR": [Edge(lambda n: accept(validators({"etag": "x" * n})))],
    "MAXIMUM_USERNAME": [Edge(lambda n: normalise_username("x" * n), BadUsername, "1 to 100 characters")],
    "MAXIMUM_TYPED_USERNAME": [
        Edge(lambda n: normalise_username("x".ljust(n)), BadUsername, "1 to 100 characters")
    ],
    "MAXIMUM_DISPLAY_NAME": [Edge(lambda n: accept(shortened("x" * n) == "x" * n))],
    "MAXIMUM_GROUPS": [Edge(lambda n: checked_groups(NAMES[:n]), BadAttributes, "at most 100 groups")],
    "MAXIMUM_GROUP": [Edge(lambda n: checked_groups(["x" * n]), BadAttributes, "1 to 100 visible")],
    "MAXIMUM_ATTRIBUTES": [
        Edge(lambda n: checked_attributes({name: ["x"] for name in NAMES[:n]}), BadAttributes, "at most 20")
    ],
    "MAXIMUM_ATTRIBUTE_NAME": [
        Edge(lambda n: checked_attributes({"x" * n: ["x"]}), BadAttributes, "1 to 100 letters")
    ],
    "MAXIMUM_ATTRIBUTE_VALUES": [
        Edge(lambda n: checked_attributes({"x": NAMES[:n]}), BadAttributes, "at most 20 values")
    ],
    "MAXIMUM_ATTRIBUTE_VALUE": [
        Edge(lambda n: checked_attributes({"x": ["x" * n]}), BadAttributes, "1 to 200 visible")
    ],
    "MAXIMUM_PASSWORD": [
        Edge(lambda n: digests.hash_password("x" * n), ValueError, "longer than 1024 bytes")
    ],
    "MAXIMUM_CLIENT_SECRET": [Edge(lambda n: accept(may_be_secret("x" * n)))],
    "MAXIMUM_LANGUAGES": [
        Edge(
            lambda n: accept(Languages(Told(("en", "de"), "")).choose("", f"de{' ' * (n - 4)},x").tag == "de")
        ),
        Edge(lambda n: accept(Languages(Told(("en", "de"), "")).choose("de".ljust(n), "").tag == "de")),
    ],
}


def signed_in_by(methods: tuple[str, ...]) -> None:
    """A plugin signs somebody in by these methods."""

    class SignsIn:
        immediate = True

        @hookimpl
        def login_decision(self) -> Any:
            return allow("fine", Identity(username="ann", methods=methods))

    rules = Rules()
    rules.add_user("ann")
    with rules.begin() as engine:
        engine = replace(engine, policies=PluginSet([("signs_in", SignsIn())]))
        sign_in(engine, "ann", Secret("correct horse battery staple"))


EDGES |= {
    "MAXIMUM_METHODS": [Edge(lambda n: signed_in_by(("x",) * n), ServerError)],
    "MAXIMUM_METHOD": [Edge(lambda n: signed_in_by(("x" * n,)), ServerError)],
}
# Those that are met on the wire, in a browser or by other servers, with the file that does it.
ELSEWHERE = {
    "MAXIMUM_HEAD": "web/test_input_limits.py",
    "MAXIMUM_BODY": "web/test_input_limits.py",
    "MAXIMUM_LEVEL": "engine/test_authentication_decision.py",
    "MAXIMUM_WHY": "engine/test_authentication_decision.py",
    "MAXIMUM_MARKS": "web/test_tabs.py",
    "MAXIMUM_REQUEST_ID": "web/test_request_ids.py",
    "MAXIMUM_USER_AGENT": "web/test_devices.py",
    "MAXIMUM_ORIGINS": "engine/test_origins.py",
    "MAXIMUM_FETCHED_HEAD": "fetching/test_exchanges.py",
    "MAXIMUM_DOCUMENT": "fetching/test_exchanges.py",
    "MAXIMUM_DOCUMENTS": "fetching/test_fetcher.py",
    "MAXIMUM_DOCUMENTS_SIZE": "fetching/test_fetcher.py",
    "MAXIMUM_LOOKUPS": "fetching/test_exchanges.py",
    "MAXIMUM_REMEMBERED": "fetching/test_fetcher.py",
    "MAXIMUM_ADDRESSES": "fetching/test_exchanges.py",
    "MAXIMUM_STRANGER_REFUSAL_EVENT": "engine/test_evidence.py",
    "MAXIMUM_STRANGER_EVENT": "engine/test_evidence.py",
    "MAXIMUM_KNOWN_REFUSAL_EVENT": "engine/test_evidence.py",
    "MAXIMUM_DIFFERENCE_EVENT": "engine/test_evidence.py",
}
CASES = [
    pytest.param(name, edge, id=f"{name.removeprefix('MAXIMUM_').lower()}-{number}")
    for name, edges in EDGES.items()
    for number, edge in enumerate(edges)
]


@pytest.mark.parametrize(("name", "edge"), CASES)
def test_exactly_so_much_is_accepted_and_one_more_is_refused(name: str, edge: Edge) -> None:
    """T057, T062, T131, T137: with the error that clients get."""
    maximum: int = getattr(limits, name)
    edge.send(maximum)
    with pytest.raises(edge.error, match=edge.says):
        edge.send(maximum + 1)


def test_no_limit_is_forgotten() -> None:
    """Each of the list is met here, or in the file that is named."""
    numbers = {name for name, value in vars(limits).items() if isinstance(value, int)}
    assert EDGES.keys().isdisjoint(ELSEWHERE)
    assert EDGES.keys() | ELSEWHERE.keys() == numbers
    for name, path in ELSEWHERE.items():
        assert name in (Path(__file__).parents[1] / path).read_text(), name


def cpu_milliseconds(act: Callable[[], object], error: type[Exception]) -> float:
    """The least of three attempts, which must be refused."""
    taken = []
    for _ in range(3):
        begun = time.process_time()
        with pytest.raises(error):
            act()
        taken.append(1000 * (time.process_time() - begun))
    return min(taken)


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda: Parameters.parse(b"x=%41&" * 200_000), InvalidRequest),
        (lambda: Parameters.parse(b"&" * 1_200_000), InvalidRequest),
        (lambda: scope_set("a " * 600_000), InvalidScope),
        (lambda: strict_json.loads(b"[" * 1_200_000), ValueError),
        (lambda: strict_json.loads(b"[" * 16_000), ValueError),
        (lambda: strict_json.loads(b"9" * 16_000), ValueError),
        (lambda: read_jws("." * 1_200_000), ValueError),
        (lambda: accept(uris.origin_problem("https://" + "a" * 1_200_000) is None), Refused),
        (lambda: accept(uris.malformed("https://" + "a/" * 600_000) is None), Refused),
        (lambda: normalise_username("\ufdfa" * 400_000), BadUsername),
        (lambda: digests.hash_password("x" * 1_200_000), ValueError),
    ],
    ids=[
        "fields",
        "separators",
        "scopes",
        "brackets",
        "nesting",
        "digits",
        "periods",
        "origin",
        "segments",
        "ligatures",
        "password",
    ],
)
def test_a_megabyte_is_refused_before_it_is_read(act: Callable[[], object], error: type[Exception]) -> None:
    """T057, T062, T137: a body of 200,000 fields costs less than 20 ms of a processor; read, it costs 300."""
    assert cpu_milliseconds(act, error) < 20
