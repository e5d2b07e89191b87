"""Client ID Metadata Documents: clients whose id is the address of a document (CIMD-01 to CIMD-24, T128 to T130)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import pytest

from authserver.api import Credentials, Decision, ReadMember, allow, deny, hookimpl
from authserver.engine.authorize import AskConsent
from authserver.engine.errors import PageError, TooManyRequests
from authserver.engine.records import Client, RegisteredBy
from authserver.fetching.addresses import Reach
from authserver.fetching.fetcher import Fetcher, Limits
from authserver.settings import SettingsError
from authserver.testing import forgeries
from authserver.testing.origins import Authority, Origin, resolving, sending, serving
from authserver.testing.rules import Answer, Rules, assert_code, assert_page_error, assert_refused
from authserver.testing.server import SETTINGS
from authserver.testing.service import REDIRECT_URI, VERIFIER
from tests.client_keys import Key

HOST = "app.example"
PLUGIN = "authserver.plugin.client_id_documents."


def with_documents(**fields: str) -> dict[str, str | None]:
    return {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']} client_id_documents",
        f"{PLUGIN}scopes": "profile files.read",
        **{PLUGIN + name: value for name, value in fields.items()},
    }


@dataclass
class World:
    """The rules, and a host on which anybody can publish."""

    rules: Rules
    origin: Origin
    clock: list[float]

    def url(self, path: str = "/client.json", host: str = HOST) -> str:
        return f"https://{host}:{self.origin.port}{path}"

    def document(self, **changes: Any) -> dict[str, Any]:
        """A correct document with these members changed; None removes one."""
        members = {
            "client_id": self.url(),
            "client_name": "Notes",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
            **changes,
        }
        return {name: value for name, value in members.items() if value is not None}

    def publish(self, status: int = 200, headers: Mapping[str, str] | None = None, **changes: Any) -> None:
        """What is at every address of the host from now on."""
        body = json.dumps(self.document(**changes)).encode()
        self.origin.reply = sending(body, status, **(headers or {}))

    def client(self, client_id: str | None = None, **changes: Any) -> Client:
        """How a test names the client, whatever its document says."""
        return Client(
            client_id=client_id or self.url(),
            name="Notes",
            auth_method="none",
            redirect_uris=(REDIRECT_URI,),
            created_at=self._now(),
            **changes,
        )

    def asked(self, **changes: Any) -> Any:
        """The outcome of an authorization request of `ann`."""
        return self.rules.authorize(self.client(), self.rules.signed_in(), **changes)

    def tokens(self) -> Mapping[str, Any]:
        """From the authorization request to tokens."""
        answer = self.redeem(self.rules.code(self.client()))
        assert answer.refusal is None, answer
        return answer.json

    def redeem(self, code: str) -> Answer:
        return self.rules.token(
            self.client(),
            grant_type="authorization_code",
            code=code,
            redirect_uri=REDIRECT_URI,
            code_verifier=VERIFIER,
        )

    def refresh(self, token: str) -> Answer:
        return self.rules.token(self.client(), grant_type="refresh_token", refresh_token=token)

    def pass_time(self, seconds: float) -> None:
        """For the fetcher: documents age, and pauses end."""
        self.clock[0] += seconds

    def _now(self) -> Any:
        with self.rules.begin() as engine:
            return engine.now


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def listener(authority: Authority) -> Iterator[Origin]:
    with serving(authority.context(HOST, "other.example", "sub.app.example")) as origin:
        yield origin


@pytest.fixture
def make(listener: Origin, authority: Authority) -> Callable[..., World]:
    listener.received.clear()
    listener.script.clear()

    def make(**fields: str) -> World:
        rules, clock = Rules(with_documents(**fields)), [1000.0]
        fetcher = Fetcher(
            Limits(reach=Reach(refused=(), loopback=True), ca_file=str(authority.ca_file)),
            resolve=resolving({name: ["127.0.0.1"] for name in (HOST, "other.example", "sub.app.example")}),
            clock=lambda: clock[0],
        )
        rules.parts = replace(rules.parts, fetcher=fetcher)
        rules.add_user("ann")
        world = World(rules, listener, clock)
        world.publish()
        return world

    return make


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()


def test_a_client_that_nobody_knew_gets_tokens(world: World) -> None:
    """CIMD-04, CIMD-06: from its first authorization request to tokens and back, by its document alone."""
    tokens = world.tokens()
    assert world.rules.claims(tokens["access_token"])["client_id"] == world.url()
    assert world.refresh(tokens["refresh_token"]).json["access_token"]
    assert [received.path for received in world.origin.received] == ["/client.json"]


# ---- What an address may be, and what a document must be ----------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "",
        "?version=2",
        "/client.json#top",
        "/client.json?version=2#top",
        "/client.json?",
        "/a/../client.json",
        "/a//client.json",
        "/a/%2e%2e/client.json",
        "/a;b/client.json",
        "/a b",
        "/*.json",
    ],
)
def test_an_address_of_another_form_is_refused_without_a_request(world: World, path: str) -> None:
    """CIMD-02, T129: on a page, and nothing is fetched."""
    answer = world.rules.authorize(world.client(world.url(path)), world.rules.signed_in())
    assert_page_error(answer)
    assert world.origin.received == []


@pytest.mark.parametrize(
    "prefix", ["https://ann@", "https://ann:secret@", "HTTPS://", "https:/", "ftp://", "http://"]
)
def test_an_address_of_another_kind_is_refused_without_a_request(world: World, prefix: str) -> None:
    """CIMD-02, T129: no user name, no other scheme; http is for loopback hosts, where that may be fetched from."""
    address = world.url().replace("https://", prefix)
    assert_page_error(world.rules.authorize(world.client(address), world.rules.signed_in()))
    assert world.origin.received == []


@pytest.mark.parametrize("path", ["/", "/client.json?version=2", "/?a=b&c=/../d"])
def test_an_address_that_is_only_not_recommended_is_accepted(world: World, path: str) -> None:
    """CIMD-02: a query, and a path that is a slash alone, are valid; the document names the same address, with the query."""
    address = world.url(path)
    world.publish(client_id=address)
    code = world.rules.code(world.client(address))
    answer = world.rules.token(
        world.client(address),
        grant_type="authorization_code",
        code=code,
        redirect_uri=REDIRECT_URI,
        code_verifier=VERIFIER,
    )
    assert world.rules.claims(answer.json["access_token"])["client_id"] == address
    if path.startswith("/client.json"):
        assert_page_error(world.asked())  # without the query it is another address


@pytest.mark.parametrize(
    ("names", "counts"),
    [(HOST, False), ("*.example", False), ("{url}", True), ("{url} " + HOST, True), ("{url}&c=d", False)],
)
def test_no_host_is_vouched_for_what_it_answers_to_a_query(
    make: Callable[..., World], listener: Origin, names: str, counts: bool
) -> None:
    """CIMD-02, CIMD-13: an answer can be made of the query, by whoever wrote that; so lists name such an address itself."""
    address = f"https://{HOST}:{listener.port}/client.json?a=b"
    names = names.format(url=address)
    allowing = make(allowed=names)
    allowing.publish(client_id=address)
    outcome = allowing.rules.authorize(allowing.client(address), allowing.rules.signed_in())
    assert isinstance(outcome, AskConsent if counts else PageError)
    trusting = make(trusted=names)
    trusting.publish(client_id=address)
    outcome = trusting.rules.authorize(trusting.client(address), trusting.rules.signed_in())
    assert isinstance(outcome, AskConsent)
    is_trusted = outcome.agreement.client.registered_by is RegisteredBy.OPERATOR
    assert is_trusted is counts
    blocking = make(blocked=HOST)
    outcome = blocking.rules.authorize(blocking.client(address), blocking.rules.signed_in())
    assert_page_error(outcome)
    assert outcome.reason == "client-host-blocked"


HOSTILE: dict[str, Callable[[World], Any]] = {
    "another address": lambda world: sending(
        json.dumps(world.document(client_id=world.url("/other"))).encode()
    ),
    "address in other letters": lambda world: sending(
        json.dumps(world.document(client_id=world.url().replace(HOST, HOST.upper()))).encode()
    ),
    "no client_id": lambda world: sending(json.dumps(world.document(client_id=None)).encode()),
    "client_id is a list": lambda world: sending(
        json.dumps(world.document(client_id=[world.url()])).encode()
    ),
    "a secret": lambda world: sending(json.dumps(world.document(client_secret="x")).encode()),
    "the end of a secret": lambda world: sending(
        json.dumps(world.document(client_secret_expires_at=0)).encode()
    ),
    "client_secret_basic": lambda world: sending(
        json.dumps(world.document(token_endpoint_auth_method="client_secret_basic")).encode()
    ),
    "client_secret_jwt": lambda world: sending(
        json.dumps(world.document(token_endpoint_auth_method="client_secret_jwt")).encode()
    ),
    "a method that nobody has": lambda world: sending(
        json.dumps(world.document(token_endpoint_auth_method="magic")).encode()
    ),
    "a blank name": lambda world: sending(json.dumps(world.document(client_name="  ")).encode()),
    "no name": lambda world: sending(json.dumps(world.document(client_name=None)).encode()),
    "a name that is too long": lambda world: sending(
        json.dumps(world.document(client_name="x" * 101)).encode()
    ),
    "a name that turns text around": lambda world: sending(
        json.dumps(world.document(client_name="a\u202eb")).encode()
    ),
    "no redirect URI": lambda world: sending(json.dumps(world.document(redirect_uris=[])).encode()),
    "javascript": lambda world: sending(
        json.dumps(world.document(redirect_uris=["javascript:alert(1)"])).encode()
    ),
    "http to another host": lambda world: sending(
        json.dumps(world.document(redirect_uris=[REDIRECT_URI, "http://evil.example/cb"])).encode()
    ),
    "a redirect URI with a fragment": lambda world: sending(
        json.dumps(world.document(redirect_uris=[f"{REDIRECT_URI}#x"])).encode()
    ),
    "only a scheme that nobody owns": lambda world: sending(
        json.dumps(world.document(redirect_uris=["acme:/cb"])).encode()
    ),
    "both kinds of keys": lambda world: sending(
        json.dumps(world.document(jwks={"keys": []}, jwks_uri="https://app.example/jwks")).encode()
    ),
    "keys at an address that is none": lambda world: sending(
        json.dumps(world.document(jwks_uri="javascript:alert(1)")).encode()
    ),
    "keys at an address without TLS": lambda world: sending(
        json.dumps(world.document(jwks_uri="http://app.example/jwks")).encode()
    ),
    "only grants that are not for it": lambda world: sending(
        json.dumps(world.document(grant_types=["client_credentials"])).encode()
    ),
    "two members of one name": lambda world: sending(
        json.dumps(world.document()).encode()[:-1] + b', "client_name": "Other"}'
    ),
    **{name: lambda world, text=text: sending(text) for name, text in forgeries.NO_OBJECTS.items()},
    # A right document, but for one thing that two readers could read differently.
    **{
        name: lambda world, text=text: sending(forgeries.beside(world.document(), text))
        for name, text in forgeries.JSON.items()
    },
    "HTML by its type": lambda world: sending(
        json.dumps(world.document()).encode(), Content_Type="text/html"
    ),
    "no type": lambda world: sending(json.dumps(world.document()).encode(), Content_Type=""),
    "too long": lambda world: sending(json.dumps(world.document(software_id="x" * 6_000)).encode()),
    "compressed": lambda world: sending(json.dumps(world.document()).encode(), Content_Encoding="gzip"),
    "elsewhere": lambda world: sending(b"", 302, Location=world.url("/other")),
    "created": lambda world: sending(json.dumps(world.document()).encode(), 201),
    "forbidden": lambda world: sending(b"", 403),
    "not found": lambda world: sending(b"", 404),
    "gone": lambda world: sending(b"", 410),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_document_that_is_not_accepted_makes_no_client(world: World, name: str) -> None:
    """CIMD-03 to CIMD-08, T129: a page for the user, 401 for the client, and the cause in the event alone (T127)."""
    world.origin.reply = HOSTILE[name](world)
    answer = world.asked()
    assert_page_error(answer)
    assert answer.reason in ("client-document-refused", "client-document-unavailable")
    assert answer.facts["host"] == HOST
    refused = world.redeem("code")
    assert_refused(refused, "invalid_client", status=401)
    for said in (answer.description, refused.json["error_description"]):
        assert str(world.origin.port) not in said
        assert said.startswith("The document at client_id ")
    (event, *_) = world.rules.events("authorization.refused")
    assert event["details"]["facts"]["host"] == HOST


def test_what_this_server_lacks_is_left_out(world: World) -> None:
    """CIMD-17: a document speaks to every server at once, as that of VS Code does."""
    world.publish(
        grant_types=["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        response_types=["code", "id_token"],
        redirect_uris=[REDIRECT_URI, "http://127.0.0.1/", "cursor://callback"],
        scope="profile openid",
        acme_whatever={"a": 1},
        client_uri="https://app.example/",
    )
    outcome = world.asked()
    assert isinstance(outcome, AskConsent)
    client = outcome.agreement.client
    assert client.grant_types == ("authorization_code", "refresh_token")
    assert client.response_types == ("code",)
    assert client.redirect_uris == (REDIRECT_URI, "http://127.0.0.1/")
    assert client.scopes == ("profile",)
    assert client.details == {"client_uri": "https://app.example/"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logo_uri", "http://app.example/logo.png"),
        ("logo_uri", "data:image/png;base64,AA=="),
        ("logo_uri", 7),
        ("client_uri", "javascript:alert(1)"),
        ("client_uri#fr", "javascript:alert(1)"),
        ("tos_uri", ["https://app.example/tos"]),
        ("policy_uri", "app.example/policy"),
        ("contacts", "ann@app.example"),
        ("contacts", [{"email": "ann@app.example"}]),
        ("contacts", ["x" * 1_000]),
        ("client_name#ja", "a\u202eb"),
        ("client_name#de", {"text": "Notizen"}),
        ("software_version", 1.5),
        ("software_id", "a\u202eb"),
    ],
)
def test_no_client_fails_because_of_what_people_are_only_shown(world: World, name: str, value: Any) -> None:
    """CIMD-17, T134: a bad logo, link, contact or translation is left out and never shown; what directs is strict."""
    world.publish(**{name: value}, jwks_uri="https://app.example/keys")
    outcome = world.asked()
    assert isinstance(outcome, AskConsent)
    assert outcome.agreement.client.details == {}
    assert outcome.agreement.client.name == "Notes"
    assert world.tokens()


def test_a_client_that_registers_itself_is_told_of_them(world: World) -> None:
    """K-06: a registration is for this server alone, so its sender can mend it."""
    answer = world.rules.register(
        {"redirect_uris": [REDIRECT_URI], "logo_uri": "http://app.example/logo.png"}
    )
    assert_refused(answer, "invalid_client_metadata")


def test_a_client_without_a_method_is_public(world: World) -> None:
    """CIMD-05: a shared secret, the default of RFC 7591, it cannot have."""
    world.publish(token_endpoint_auth_method=None)
    assert world.tokens()


def test_another_json_type_is_accepted(world: World) -> None:
    """CIMD-04: application/json, or a type that is JSON by its suffix."""
    world.publish(headers={"Content_Type": "application/cimd+json; charset=utf-8"})
    assert world.tokens()


def test_a_loopback_redirect_uri_has_any_port(world: World) -> None:
    """CIMD-06, C-02: as for every other client."""
    world.publish(redirect_uris=["http://127.0.0.1/callback"])
    asked = world.asked(redirect_uri="http://127.0.0.1:53121/callback")
    assert_code(world.rules.consent(asked), redirect_uri="http://127.0.0.1:53121/callback")
    assert_page_error(world.asked(redirect_uri="http://127.0.0.1:53121/other"))


@pytest.mark.parametrize("hosts", ["127.0.0.1 [::1]", "127.0.0.1 [::1] localhost"])
def test_loopback_redirect_uris_are_those_of_registered_clients(
    make: Callable[..., World], hosts: str
) -> None:
    """CIMD-06, C-02, C-07: any port of the hosts that the operator lists, the same scheme, host, path and query."""
    world = make()
    rules = Rules(
        with_documents() | {"authserver.plugin.redirect_loopback.hosts": hosts}, stores=world.rules.stores
    )
    rules.parts = replace(rules.parts, fetcher=world.rules.parts.fetcher)
    uris = [
        "http://127.0.0.1/cb",
        "http://[::1]:8000/cb",
        "http://localhost/cb?a=b",
        "http://localhost:3000/",
    ]
    world.publish(redirect_uris=uris)
    registered, _ = rules.add_client(
        redirect_uris=tuple(uris), token_endpoint_auth_method="none", application_type="native"
    )
    accepted = []
    for uri in [
        *uris,
        "http://127.0.0.1:53121/cb",
        "http://[::1]:53121/cb",
        "http://localhost:53121/cb?a=b",
        "http://localhost:53121/",
        "http://localhost:53121/cb",
        "https://127.0.0.1:53121/cb",
        "http://127.0.0.2:53121/cb",
        "http://127.0.0.1:53121/cb?a=b",
        "http://localhost.app.example:53121/",
    ]:
        asked = [
            type(rules.authorize(client, rules.signed_in(), redirect_uri=uri))
            for client in (world.client(), registered)
        ]
        assert asked[0] is asked[1], uri
        if asked[0] is AskConsent:
            accepted.append(uri)
    assert accepted == [
        *uris,
        "http://127.0.0.1:53121/cb",
        "http://[::1]:53121/cb",
        *(["http://localhost:53121/cb?a=b", "http://localhost:53121/"] if "localhost" in hosts else []),
    ]


def test_its_scopes_are_confined(make: Callable[..., World]) -> None:
    """K-11: to those of the setting, whatever the document and the request name."""
    world = make(scopes="profile")
    world.publish(scope="profile files.read admin")
    outcome = world.asked(scope="profile files.read")
    assert isinstance(outcome, AskConsent)
    assert [name for name, _ in outcome.scopes] == ["profile"]


@dataclass(frozen=True)
class ByAssertion:
    """Offers a method with keys, as a plugin for `private_key_jwt` does; the right assertion is a word."""

    @hookimpl
    def client_auth_decision(self, client: Client, credentials: Credentials) -> Decision[None] | None:
        if client.auth_method != "private_key_jwt":
            return None
        return allow("signed") if credentials.assertion == client.details["jwks_uri"] else deny("not-signed")

    @hookimpl
    def server_metadata(self) -> Mapping[str, object]:
        return {"token_endpoint_auth_methods_supported": ["private_key_jwt"]}

    @hookimpl
    def client_metadata(self) -> Mapping[str, ReadMember]:
        return {"jwks_uri": lambda name, value: value}


def test_a_client_with_keys_must_authenticate(world: World) -> None:
    """CIMD-11, CIMD-16: where a plugin offers the method; without one it is refused, as there is nothing to step down to."""
    keys = "https://app.example/keys"
    world.publish(token_endpoint_auth_method="private_key_jwt", jwks_uri=keys)
    refused = world.asked()
    assert_page_error(refused)
    assert refused.description.endswith("token_endpoint_auth_method is not offered.")
    offering = f"{ByAssertion.__module__}:{ByAssertion.__qualname__}"
    rules = Rules(
        with_documents()
        | {"authserver.plugins": f"{SETTINGS['authserver.plugins']} client_id_documents {offering}"},
        stores=world.rules.stores,
    )
    rules.parts = replace(rules.parts, fetcher=world.rules.parts.fetcher)
    world.rules = rules
    code = rules.code(world.client())
    assert_refused(world.redeem(code), "invalid_client", status=401)

    def redeem(assertion: str) -> Answer:
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
        return rules.post(
            "/oauth/token", urlencode({**form, "client_id": world.url(), "client_assertion": assertion})
        )

    assert_refused(redeem("another"), "invalid_client", status=401)
    assert redeem(keys).refusal is None


# ---- Lists, and clients that are registered here ------------------------------------------------------


@pytest.mark.parametrize("blocked", [HOST, "*.example", "{url}"])
def test_what_is_blocked_is_not_fetched(make: Callable[..., World], blocked: str, listener: Origin) -> None:
    """CIMD-13, CIMD-21."""
    world = make(blocked=blocked.format(url=f"https://{HOST}:{listener.port}/client.json"))
    answer = world.asked()
    assert_page_error(answer)
    assert (answer.reason, answer.facts["host"]) == ("client-host-blocked", HOST)
    assert_refused(world.redeem("code"), "invalid_client", status=401)
    assert world.origin.received == []


def test_a_block_ends_what_was_given(make: Callable[..., World]) -> None:
    """CIMD-21, R-09: its tokens are refused and inactive from then on."""
    world = make()
    tokens = world.tokens()
    api, secret = world.rules.add_client(client_id="api", grant_types=("client_credentials",))
    assert world.rules.introspect(api, secret, tokens["access_token"]).json["active"] is True
    blocked = make(blocked=HOST).rules
    blocked.stores = world.rules.stores
    blocked.parts = replace(
        blocked.parts, signer=world.rules.parts.signer, generation=world.rules.parts.generation
    )
    world.rules = blocked
    assert_refused(world.refresh(tokens["refresh_token"]), "invalid_client", status=401)
    assert blocked.introspect(api, secret, tokens["access_token"]).json == {"active": False}


@pytest.mark.parametrize(
    ("allowed", "accepts"), [(HOST, True), ("*.example", True), ("*.app.example", False)]
)
def test_only_hosts_of_the_list_are_accepted(make: Callable[..., World], allowed: str, accepts: bool) -> None:
    """CIMD-13: `*.app.example` are the names below app.example, not that itself."""
    outcome = make(allowed=allowed).asked()
    if accepts:
        assert isinstance(outcome, AskConsent)
    else:
        assert_page_error(outcome)
        assert outcome.reason == "client-host-not-allowed"


@pytest.mark.parametrize(
    ("trusted", "registered_by"), [("", RegisteredBy.SELF), (HOST, RegisteredBy.OPERATOR)]
)
def test_the_operator_vouches_for_trusted_hosts(
    make: Callable[..., World], trusted: str, registered_by: RegisteredBy
) -> None:
    """CIMD-13, E-09: any other client is unverified; the user is asked in both cases, however often they agreed (E-19)."""
    world = make(trusted=trusted)
    for _ in range(2):
        outcome = world.asked()
        assert isinstance(outcome, AskConsent)
        assert outcome.agreement.client.registered_by is registered_by
        assert_code(world.rules.consent(outcome))


@pytest.mark.parametrize("name", ["allowed", "blocked", "trusted"])
@pytest.mark.parametrize(
    "text",
    [
        "https://app.example",
        "app.example/x",
        "APP.example",
        "*",
        "a..b",
        "app.example:443",
        "http://a.example/",
    ],
)
def test_a_host_that_can_match_nothing_stops_the_start(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"client_id_documents: {name}: "):
        Rules(with_documents(**{name: text}))


def test_it_needs_scopes() -> None:
    with pytest.raises(SettingsError, match="client_id_documents"):
        Rules(with_documents(scopes=""))


def test_a_client_that_is_registered_here_wins(world: World) -> None:
    """CIMD-21: over its document, which is not even fetched; also when it is disabled."""
    with world.rules.begin() as engine:
        engine.stores.clients.add(
            world.client(
                scopes=("profile",), grant_types=("authorization_code",), registered_by=RegisteredBy.OPERATOR
            )
        )
    assert world.rules.code(world.client())
    with world.rules.begin() as engine:
        engine.stores.clients.disable(world.url(), engine.now)
    assert_page_error(world.asked())
    assert world.origin.received == []


# ---- Fresh, last good, gone ---------------------------------------------------------------------------


def test_a_document_is_fetched_once_while_it_is_fresh(world: World) -> None:
    """CIMD-09: by its headers, within bounds."""
    world.publish(headers={"Cache_Control": "max-age=1000"})
    world.tokens()
    world.pass_time(999)
    world.tokens()
    assert len(world.origin.received) == 1
    world.pass_time(2)
    world.tokens()
    assert len(world.origin.received) == 2


@pytest.mark.parametrize("control", ["no-store", "private", "max-age=0", "max-age=1", "no-cache"])
def test_however_short_a_document_lives_its_last_good_one_serves_for_a_day(
    world: World, control: str
) -> None:
    """CIMD-18: publishers that let nobody keep a document lose it for a while, too; 410 ends it (T130)."""
    world.publish(headers={"Cache_Control": control})
    token = world.tokens()["refresh_token"]
    world.origin.reply = sending(b"", 503)
    for passed in (61, 80_000):
        world.pass_time(passed)
        answer = world.refresh(token)
        assert answer.refusal is None
        token = answer.json["refresh_token"]
    world.origin.reply = sending(b"", 410)
    world.pass_time(120)
    assert_refused(world.refresh(token), "invalid_client", status=401)
    world.origin.reply = sending(b"", 503)
    world.pass_time(120)
    assert_refused(world.refresh(token), "temporarily_unavailable", status=503)


def test_a_document_that_must_not_be_kept_is_fetched_each_time(world: World) -> None:
    """CIMD-20: and that spends nothing, as it succeeds."""
    world.publish(headers={"Cache_Control": "no-store"})
    for _ in range(5):
        world.tokens()
    assert len(world.origin.received) >= 10


@pytest.mark.parametrize("status", [404, 408, 429, 500, 503])
def test_the_last_good_document_serves_for_a_day(world: World, status: int) -> None:
    """CIMD-18, T130: while its server does not answer; then 503 and no `invalid_client` (CIMD-19, F-14).

    A document that is not found for that long is none: the client is not told to try again.
    """
    refresh_token = world.tokens()["refresh_token"]
    world.origin.reply = sending(b"", status)
    world.pass_time(301)
    answer = world.refresh(refresh_token)
    assert answer.refusal is None
    world.pass_time(86_400)
    refused = world.refresh(answer.json["refresh_token"])
    is_lost = status == 404
    code = "invalid_client" if is_lost else "temporarily_unavailable"
    assert_refused(refused, code, status=401 if is_lost else 503)
    assert refused.refusal is not None
    assert refused.refusal.facts["host"] == HOST
    assert_page_error(world.asked(), "invalid_request" if is_lost else code)


@pytest.mark.parametrize("status", [401, 403, 410])
def test_a_document_that_is_withdrawn_ends_its_client_at_once(world: World, status: int) -> None:
    """CIMD-18, T130: what its server says counts."""
    refresh_token = world.tokens()["refresh_token"]
    world.origin.reply = sending(b"", status)
    world.pass_time(301)
    assert_refused(world.refresh(refresh_token), "invalid_client", status=401)
    world.origin.reply = sending(b"", 503)
    world.pass_time(120)
    assert world.refresh(refresh_token).status_int != 200


def test_a_document_that_became_invalid_ends_its_client_at_once(world: World) -> None:
    """CIMD-09, CIMD-18, T130."""
    refresh_token = world.tokens()["refresh_token"]
    world.publish(client_id=world.url("/other"))
    world.pass_time(301)
    assert_refused(world.refresh(refresh_token), "invalid_client", status=401)
    world.publish()
    world.pass_time(120)
    assert world.refresh(refresh_token).refusal is None


def test_tokens_stay_active_while_the_document_cannot_be_had(world: World) -> None:
    """F-14, M-04: APIs do not depend on the server of somebody else; a document that is gone makes them inactive."""
    tokens = world.tokens()
    api, secret = world.rules.add_client(client_id="api", grant_types=("client_credentials",))
    world.origin.reply = sending(b"", 503)
    world.pass_time(90_000)
    assert world.rules.introspect(api, secret, tokens["access_token"]).json["active"] is True
    world.origin.reply = sending(b"", 410)
    world.pass_time(600)
    for _ in range(3):  # also while the next attempt waits
        assert world.rules.introspect(api, secret, tokens["access_token"]).json == {"active": False}


# ---- Changes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uris": [REDIRECT_URI, "https://evil.example/cb"]},
        {"jwks_uri": "https://app.example/other-keys"},
    ],
)
def test_a_change_of_redirect_uris_or_keys_voids_codes(world: World, changes: dict[str, Any]) -> None:
    """CIMD-22: a code that was given for the document as it was."""
    code = world.rules.code(world.client())
    world.publish(**changes)
    world.pass_time(301)
    answer = world.redeem(code)
    assert_refused(answer, "invalid_grant")
    assert answer.refusal is not None
    assert answer.refusal.reason == "client-document-changed"


def test_a_client_whose_key_is_taken_away_loses_what_the_key_protected(world: World) -> None:
    """CIMD-22: refresh needs the new key; without one anybody could refresh, so the grant ends, as after `client edit`."""
    plugins = f"{SETTINGS['authserver.plugins']} client_id_documents private_key_jwt"
    rules = Rules(with_documents() | {"authserver.plugins": plugins}, stores=world.rules.stores)
    rules.parts = replace(rules.parts, fetcher=world.rules.parts.fetcher)
    world.rules = rules
    key, next_key = Key(), Key()
    world.publish(token_endpoint_auth_method="private_key_jwt", jwks=key.jwks())
    form = {"grant_type": "authorization_code", "code_verifier": VERIFIER}
    tokens = [key.ask(rules, world.client(), code=rules.code(world.client()), **form).json for _ in range(2)]
    world.publish(token_endpoint_auth_method="private_key_jwt", jwks=next_key.jwks())
    world.pass_time(301)
    form = {"grant_type": "refresh_token", "refresh_token": tokens[0]["refresh_token"]}
    assert_refused(key.ask(rules, world.client(), **form), "invalid_client", status=401)
    refreshed = next_key.ask(rules, world.client(), **form)
    assert refreshed.refusal is None
    world.publish(token_endpoint_auth_method="none")
    world.pass_time(301)
    for token in (refreshed.json["refresh_token"], tokens[1]["refresh_token"]):
        refused = world.refresh(token)
        assert_refused(refused, "invalid_grant")
        assert refused.refusal is not None
        assert refused.refusal.reason == "client-made-public"
        assert_refused(world.refresh(token), "invalid_grant")
    assert {grant["revoked_reason"] for grant in rules.rows("grants")} == {"client-made-public"}
    # What it was given since then is that of a public client.
    assert world.refresh(world.tokens()["refresh_token"]).refusal is None


def test_a_change_of_the_name_alone_voids_no_code(world: World) -> None:
    code = world.rules.code(world.client())
    world.publish(client_name="Notes 2")
    world.pass_time(301)
    assert world.redeem(code).refusal is None


def test_an_answer_to_a_page_from_before_a_change_does_not_count(world: World) -> None:
    """CIMD-22, E-13: the page is shown again, with what is true now."""
    asked = world.asked()
    world.publish(redirect_uris=[REDIRECT_URI, "https://evil.example/cb"])
    world.pass_time(301)
    answer = world.rules.consent(asked)
    assert isinstance(answer, PageError)
    assert answer.reason == "form-token"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, ()),
        ({"client_name": "Other"}, ("client_name",)),
        ({"redirect_uris": [REDIRECT_URI, "https://other.example/"]}, ("redirect_uris",)),
        ({"client_uri": "https://app.example/"}, ("client_uri",)),
        ({"software_version": "2", "scope": "files.read profile"}, ("software_version",)),
    ],
)
def test_the_consent_page_names_what_has_changed(
    world: World, changes: dict[str, Any], named: tuple[str, ...]
) -> None:
    """E-20: since this user last agreed."""
    world.tokens()
    world.publish(**changes)
    world.pass_time(301)
    assert world.asked().changed == named
    world.rules.consent(world.asked())
    assert world.asked().changed == ()


def test_a_change_of_redirect_uris_voids_remembered_consent(world: World) -> None:
    """CIMD-12: what was agreed to before is replaced, not added to."""
    world.rules.consent(world.asked(scope="profile files.read"))
    world.publish(redirect_uris=[REDIRECT_URI, "https://other.example/"])
    world.pass_time(301)
    world.rules.consent(world.asked())
    (consent,) = world.rules.rows("consents")
    assert consent["scopes"] == ("profile",)


# ---- Floods ------------------------------------------------------------------------------------------------


def test_a_stranger_cannot_make_us_fetch_without_bound(make: Callable[..., World]) -> None:
    """T128, CIMD-14: failures are counted by source; a client that is known goes on, and a good document spends nothing."""
    rules = "authserver.plugin.rate_limits.limits"
    world = make()
    world.rules = Rules(
        with_documents()
        | {
            "authserver.plugins": f"{SETTINGS['authserver.plugins']} client_id_documents rate_limits",
            rules: "f = failed_fetch, source, 3, minute",
        },
        stores=world.rules.stores,
    )
    limited = make()
    world.rules.parts = replace(world.rules.parts, fetcher=limited.rules.parts.fetcher)
    world.origin.received.clear()
    world.tokens()
    world.origin.reply = sending(b"", 404)
    answers = [
        world.rules.authorize(world.client(world.url(f"/{number}")), world.rules.signed_in())
        for number in range(6)
    ]
    assert [type(answer) for answer in answers] == [PageError] * 3 + [TooManyRequests] * 3
    assert len(world.origin.received) == 4
    world.tokens()


def test_a_failed_address_is_not_tried_again_at_once(world: World) -> None:
    """CIMD-20, T128: however many ask for it."""
    world.origin.reply = sending(b"", 500)
    for _ in range(10):
        assert_page_error(world.asked(), "temporarily_unavailable")
    assert len(world.origin.received) == 1


# ---- Lengths -----------------------------------------------------------------------------------------------


def test_an_id_of_two_thousand_characters_works_end_to_end(world: World) -> None:
    """CIMD-24."""
    address = world.url("/" + "x" * (2_000 - len(world.url("/"))))
    assert len(address) == 2_000
    world.publish(client_id=address)
    answer = world.rules.token(
        world.client(address),
        grant_type="authorization_code",
        code=world.rules.code(world.client(address)),
        redirect_uri=REDIRECT_URI,
        code_verifier=VERIFIER,
    )
    assert world.rules.claims(answer.json["access_token"])["client_id"] == address
    assert {event["client_id"] for event in world.rules.events() if event["client_id"]} == {address}


def test_a_longer_id_than_any_is_refused_on_a_page(world: World) -> None:
    """CIMD-24."""
    assert_page_error(
        world.rules.authorize(world.client(world.url("/" + "x" * 2_100)), world.rules.signed_in())
    )
    assert world.origin.received == []
