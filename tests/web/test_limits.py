"""What is advertised or registered can be asked for, however much it is (B206)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlencode, urlsplit

import pytest

from authserver.api import hookimpl
from authserver.limits import MAXIMUM_HEAD, MAXIMUM_SCOPE, MAXIMUM_TOKEN, MAXIMUM_URI, sealed_length
from authserver.settings import Settings, SettingsError
from authserver.testing.server import REDIRECT_URI, Server, form_with, query_of, with_plugin
from authserver.testing.stories import assert_code, sign_in_at, signed_in

MakeServer = Callable[..., Server]
WELL_KNOWN = "/.well-known/oauth-authorization-server"


def named(count: int, length: int) -> tuple[str, ...]:
    """So many scopes, each name so long."""
    return tuple(f"s{number}.".ljust(length, "x") for number in range(count))


# Sixty of an ordinary length, more than a form may have parameters, and as much text as there may be.
SCOPES = {
    "sixty": named(60, 24),
    "three hundred": named(300, 12),
    "as many as there may be": named(MAXIMUM_SCOPE // 6, 5),
    "names that are URLs": tuple(f"https://api.example/scopes/{number:03}" for number in range(130)),
    "as long as they may be": named(40, 100),
}


def with_scopes(scopes: tuple[str, ...], **settings: str) -> dict[str, str | None]:
    return {
        "authserver.scopes": "\n".join(f"{name} = Words" for name in scopes),
        "authserver.hidden_scopes": None,
        "authserver.plugin.scopes_default.scopes": scopes[0],
        "authserver.plugin.registration_open.scopes": " ".join(scopes),
        "authserver.plugin.registration_open.grant_types": "authorization_code refresh_token client_credentials",
        **settings,
    }


@pytest.fixture(params=SCOPES.values(), ids=SCOPES)
def scopes(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


@pytest.fixture
def server(make_server: MakeServer, scopes: tuple[str, ...]) -> Server:
    server = make_server(with_scopes(scopes))
    server.add_user("ann")
    return server


def test_all_scopes_can_be_registered_asked_for_and_used(server: Server, scopes: tuple[str, ...]) -> None:
    """B206, A-16, A-18, B-10: each step with every scope by name: registration, sign-in, consent, tokens, refresh."""
    text = " ".join(server.http.get(WELL_KNOWN).json["scopes_supported"])
    assert text == " ".join(scopes)
    metadata = {
        "redirect_uris": [REDIRECT_URI],
        "scope": text,
        "grant_types": ["authorization_code", "refresh_token", "client_credentials"],
    }
    registered = server.http.post_json("/oauth/register", metadata)
    assert registered.json["scope"] == text
    with server.application.begin() as engine:
        client = engine.stores.clients.find(registered.json["client_id"], engine.now)
    assert client is not None
    secret = registered.json["client_secret"]

    machine = server.token(client, secret, grant_type="client_credentials", scope=text)
    assert machine.json["scope"] == text
    browser = server.browser()
    to_login = browser.get(server.authorization_url(client, scope=text))
    page = sign_in_at(to_login.follow()).follow()
    boxes = form_with(page, "scope").fields["scope"]
    assert len(boxes) == len(scopes)
    code = assert_code(server.consent(page))
    tokens = server.redeem(client, secret, code).json
    assert tokens["scope"] == text
    # The signature of an RSA key is 256 characters longer than this one.
    assert len(tokens["access_token"]) < MAXIMUM_TOKEN - 256
    assert server.refresh(client, secret, tokens["refresh_token"], scope=text).json["scope"] == text
    asked = server.introspect(client, secret, tokens["access_token"])
    assert asked.json["scope"] == text


def test_the_address_of_our_own_pages_stays_within_what_servers_take(
    server: Server, scopes: tuple[str, ...]
) -> None:
    """B206, T136: with the longest redirect URI and all scopes; 2 kB are left for the other headers."""
    redirect_uri = "https://client.example/".ljust(MAXIMUM_URI, "a")
    client, _ = server.add_client(redirect_uris=(redirect_uri,), scopes=scopes)
    url = server.authorization_url(client, redirect_uri=redirect_uri, scope=" ".join(scopes))
    browser = server.browser()
    to_login = browser.get(url)
    to_consent = sign_in_at(to_login.follow())
    for address in (url, to_login.location, to_consent.location):
        assert len(address) < MAXIMUM_HEAD - 2048
    assert_code(server.consent(to_consent.follow()), redirect_uri=redirect_uri)


def test_addresses_are_as_long_as_the_documentation_says() -> None:
    """B206: 14,200 characters at the default, and less than 8 kB with 5,000."""
    path = len("https://login.example.com/oauth/consent?request=")
    assert 14_000 < path + sealed_length(Settings.__dataclass_fields__["maximum_request"].default) < 14_200
    assert path + sealed_length(5000) < 8000


@pytest.mark.parametrize("maximum", [4096, 10_000, 32_768])
def test_the_longest_request_is_sealed_as_short_as_is_said(maximum: int, make_server: MakeServer) -> None:
    """B206: proxies are set up by that; one character more is refused."""
    server = make_server({"authserver.maximum_request": str(maximum)})
    server.add_user("ann")
    client, _ = server.add_client()
    parameters = urlsplit(server.authorization_url(client)).query
    rest = maximum - len(parameters) - len("&x=&y=&z=&u=")
    for length, error in ((rest, None), (rest + 1, "invalid_request")):
        padding = {"x": "x" * (length // 4), "y": "y" * (length // 4), "z": "z" * (length // 4)}
        padding["u"] = "u" * (length - 3 * (length // 4))
        browser = server.browser()
        to_login = browser.get(server.authorization_url(client, **padding))
        assert len(query_of(to_login)["request"]) <= sealed_length(maximum)
        if error is None:
            assert len(query_of(to_login)["request"]) > maximum * 4 // 3
            page = sign_in_at(to_login.follow()).follow()
            assert_code(server.consent(page))
        else:
            assert query_of(sign_in_at(to_login.follow()).follow())["error"] == error


@dataclass(frozen=True)
class FurtherScopes:
    immediate: ClassVar[bool] = True

    names: tuple[str, ...] = ()

    @hookimpl
    def scopes(self) -> Mapping[str, str]:
        return dict.fromkeys(self.names, "Words")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (('wrong"name',), "is not a scope name of up to 100 characters"),
        (("x" * 101,), "is not a scope name of up to 100 characters"),
        (named(800, 5), "scopes in one request are"),
    ],
)
def test_scopes_of_plugins_fit_as_well_or_stop_the_start(
    names: tuple[str, ...], problem: str, make_server: MakeServer
) -> None:
    """B206: a plugin cannot have what a request may not name."""
    with pytest.raises(SettingsError, match=problem):
        make_server(with_plugin(FurtherScopes, {"names": " ".join(names)}))


def test_a_form_of_ours_has_no_more_parameters_than_the_consent_page_needs(
    server: Server, scopes: tuple[str, ...]
) -> None:
    """T137: whatever is configured."""
    client, _ = server.add_client(scopes=scopes)
    form = form_with(signed_in(server).get(server.authorization_url(client, scope=" ".join(scopes))), "scope")
    fields = [(name, value) for name, value in form.submit_fields() if name != "scope"]
    body = urlencode([*fields, *(("scope", f"s{number}") for number in range(len(scopes) + 100))])
    answer = server.http.post(
        "/oauth/consent", body, content_type="application/x-www-form-urlencoded", expect_errors=True
    )
    assert answer.status_int in (400, 413)
