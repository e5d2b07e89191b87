"""The resource of a token is one that its origin covers: what a person agreed to, what an issuer or a rule says.

In another server a client that had been let in for one resource got tokens for any other that the server knew
(CVE-2026-67332, GHSA-p2fr-6hmx-4528): the audience was compared with a list of the server, and not with the grant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from webtest import TestResponse

from authserver.features.device.protocol import GRANT_TYPE as DEVICE
from authserver.features.token_exchange import ACCESS_TOKEN, JWT
from authserver.features.token_exchange import GRANT_TYPE as EXCHANGE
from authserver.testing.server import RESOURCE, SETTINGS, Server, form_with
from authserver.testing.stories import assert_json_error, stored
from tests.trusted_issuers import GRANT_TYPE as JWT_BEARER
from tests.trusted_issuers import Issuer

FILES = "https://files.example/"
CODE = ("authorization_code", "refresh_token")
FEATURES = "device_grant token_exchange jwt_bearer id_jag workload_identity"
# What operators are told: what the origin does not cover, and not what the server or a policy does not know.
BEYOND = {"resource-not-granted", "resource-beyond-parent", "issuer-resource-not-allowed"}


class Agreeing(Server):
    """A server with every grant type that comes of something else, and whose clients may all use both resources."""

    def __init__(self, database_url: str) -> None:
        refreshers = {"authserver.plugin.token_exchange.refreshers": "service"}
        plugins = f"{SETTINGS['authserver.plugins']} {FEATURES}"
        super().__init__(database_url, {"authserver.plugins": plugins, **refreshers})
        self.add_user("ann")
        self.clients = {
            name: self.add_client(client_id=name, grant_types=grants, scopes=("profile", "files.read"))
            for name, grants in {
                "agent": (*CODE, JWT_BEARER, EXCHANGE),
                "service": (*CODE, EXCHANGE),
                "tv": (DEVICE, "refresh_token"),
                "job": (JWT_BEARER,),
            }.items()
        }
        self.company = Issuer("https://idp.example", typ="oauth-id-jag+jwt", claims={"client_id": "agent"})
        self.partner = Issuer("https://partner.example")
        self.platform = Issuer("https://platform.example", claims={"sub": "job", "repository_id": "74"})
        self.company.trust(self, "mcp", options={"usernames": True})
        self.partner.trust(
            self, options={"exchanged": True}, resources=(RESOURCE,), default_resource=RESOURCE
        )
        rule = {"name": "job", "client": "job", "claims": {"repository_id": "74"}, "scopes": ["files.read"]}
        self.platform.trust(self, "workload_identity", options={"rules": [{**rule, "resources": [RESOURCE]}]})

    def as_client(self, name: str, grant_type: str, **form: Any) -> TestResponse:
        return self.token(*self.clients[name], grant_type=grant_type, **form)

    def agreed(self, name: str = "agent", **wanted: Any) -> Mapping[str, Any]:
        """What a client got that ann let in for one resource."""
        client, secret = self.clients[name]
        wanted = {"scope": "files.read", "resource": RESOURCE, **wanted}
        tokens: Mapping[str, Any] = self.redeem(client, secret, self.code(client, **wanted)).json
        return tokens


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Agreeing]:
    server = Agreeing(sqlite_url)
    yield server
    server.close()


# Each makes a request for a token that can be sent with any resource.
Ask = Callable[..., TestResponse]


def by_code(server: Agreeing) -> Ask:
    code = server.code(server.clients["agent"][0], scope="files.read", resource=RESOURCE)
    return lambda **form: server.redeem(*server.clients["agent"], code, **form)


def by_code_without_resource(server: Agreeing) -> Ask:
    """Who names none agrees to the default of the server, and to no other."""
    code = server.code(server.clients["agent"][0], scope="files.read")
    return lambda **form: server.redeem(*server.clients["agent"], code, **form)


def by_refresh(server: Agreeing) -> Ask:
    token = server.agreed()["refresh_token"]
    return lambda **form: server.refresh(*server.clients["agent"], token, **form)


def by_device(server: Agreeing) -> Ask:
    client, secret = server.clients["tv"]
    sent = {"client_id": "tv", "scope": "files.read", "resource": RESOURCE}
    told = server.ask("/oauth/device_authorization", client, secret, **sent).json
    browser = server.browser()
    server.sign_in(browser)
    form = form_with(browser.get("/device"), "user_code")
    form["user_code"] = told["user_code"]
    assert form_with(form.submit(), "scope").submit("answer", value="allow").status_int == 200
    return lambda **form: server.as_client("tv", DEVICE, device_code=told["device_code"], **form)


def by_exchange(server: Agreeing) -> Ask:
    shown = {"subject_token": server.agreed()["access_token"], "subject_token_type": ACCESS_TOKEN}
    return lambda **form: server.as_client("agent", EXCHANGE, **shown, **form)


def by_exchanged_refresh(server: Agreeing) -> Ask:
    shown = {"subject_token": server.agreed("service")["access_token"], "subject_token_type": ACCESS_TOKEN}
    token = server.as_client("service", EXCHANGE, **shown).json["refresh_token"]
    return lambda **form: server.refresh(*server.clients["service"], token, **form)


def by_identity_assertion(server: Agreeing) -> Ask:
    text = server.company.assertion(resource=RESOURCE, scope="files.read")
    return lambda **form: server.as_client("agent", JWT_BEARER, assertion=text, **form)


def by_assertion(server: Agreeing) -> Ask:
    text = server.partner.assertion()
    return lambda **form: server.as_client("agent", JWT_BEARER, assertion=text, scope="files.read", **form)


def by_exchanged_assertion(server: Agreeing) -> Ask:
    shown = {"subject_token": server.partner.assertion(), "subject_token_type": JWT, "scope": "files.read"}
    return lambda **form: server.as_client("agent", EXCHANGE, **shown, **form)


def by_workload(server: Agreeing) -> Ask:
    text = server.platform.assertion()
    return lambda **form: server.as_client("job", JWT_BEARER, assertion=text, **form)


WAYS = (by_code, by_code_without_resource, by_refresh, by_device, by_exchange, by_exchanged_refresh,
        by_identity_assertion, by_assertion, by_exchanged_assertion, by_workload)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_no_token_is_for_a_resource_that_its_origin_does_not_cover(
    server: Agreeing, way: Callable[[Agreeing], Ask]
) -> None:
    """CVE-2026-67332, T036, T070, T163, O-04, I-16, DEV-07, TX-05, TX-18, JAG-13, WIF-13: known to the server, open to the client, and not granted."""
    ask = way(server)
    before = stored(server)
    for resource in (FILES, "https://FILES.example", [RESOURCE, FILES], [FILES, RESOURCE]):
        assert_json_error(ask(resource=resource), "invalid_target", status=400)
        assert stored(server) == before
        assert server.events("token.refused")[-1]["reason"] in BEYOND
    # What was refused has used up nothing, and is right for what was granted.
    answer = ask(resource=RESOURCE)
    assert answer.status_int == 200, answer.text
    assert server.claims(answer.json["access_token"])["aud"] == RESOURCE


@pytest.mark.parametrize("way", [by_exchange, by_exchanged_assertion])
def test_an_audience_is_no_way_around_the_resource(server: Agreeing, way: Callable[[Agreeing], Ask]) -> None:
    """CVE-2026-67332, TX-03, TX-18: `audience` names a resource, too, and together with `resource` all count."""
    ask = way(server)
    before = stored(server)
    for form in (
        {"audience": FILES},
        {"audience": FILES, "resource": RESOURCE},
        {"audience": [RESOURCE, FILES]},
    ):
        assert_json_error(ask(**form), "invalid_target", status=400)
        assert stored(server) == before
        assert server.events("token.refused")[-1]["reason"] in BEYOND
    assert server.claims(ask(audience=RESOURCE).json["access_token"])["aud"] == RESOURCE
