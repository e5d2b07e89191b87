"""Each framework, the real one: the same requests get the same answers.

Without `from __future__ import annotations`: FastAPI reads annotations that name what is local here.
"""

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import django
import httpx2
import pytest
from django.conf import settings as django_settings
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path as django_path
from fastapi import Depends, FastAPI
from flask import Flask, g
from pyramid.config import Configurator
from pyramid.response import Response as PyramidResponse
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from steps import ISSUER, METADATA, RESOURCE
from webtest import TestApp

from authserver_resource import Access, Dpop, Issuer, Nonces, ProtectedResource, Refusal, Requirement, needs
from authserver_resource.asgi import AsgiProtection
from authserver_resource.django import ProtectionMiddleware, requires
from authserver_resource.flask import FlaskProtection
from authserver_resource.starlette import StarletteProtection
from authserver_resource.testing import DpopKey, LocalIssuer
from authserver_resource.wsgi import ACCESS, WsgiProtection

FOUND = f'resource_metadata="{METADATA}"'
Answer = tuple[int, dict[str, str], bytes]
# Method, path and headers in, the answer out.
Send = Callable[..., Answer]


def resource(**changes: Any) -> tuple[ProtectedResource, LocalIssuer]:
    protected = ProtectedResource(
        RESOURCE,
        Issuer(ISSUER, client_id="api", client_secret="secret"),
        **{"scopes": ["files.read"], "dpop": Dpop(nonces=Nonces(b"k" * 32)), **changes},
    )
    return protected, LocalIssuer.of(protected)


def shown(access: Access) -> dict[str, Any]:
    return {"subject": access.subject, "scopes": sorted(access.scopes)}


def by_wsgi(application: Any) -> Send:
    browser = TestApp(
        application, extra_environ={"HTTP_HOST": "api.example", "wsgi.url_scheme": "https"}, lint=True
    )

    def send(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        answer = browser.request(path, method=method, headers=dict(headers), expect_errors=True)
        return answer.status_int, dict(answer.headers), answer.body

    return send


def by_asgi(application: Any) -> Send:
    async def sent(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="https://api.example") as client:
            answer = await client.request(method, path, headers=dict(headers))
            return (
                answer.status_code,
                {name.title(): text for name, text in answer.headers.items()},
                answer.content,
            )

    return lambda *asked: asyncio.run(sent(*asked))


PAYMENTS = {"acr_values": ("gold",), "max_age": 300}
DETAILS = [{"type": "transfer", "amount": "10"}]


def transfer(protected: ProtectedResource, access: Access) -> None:
    """A rule of the API's own."""
    raise protected.refusal(access, "transfers", description="Too much.", authorization_details=DETAILS)


def rule(method: str, path: str) -> Requirement | None:
    """For the middleware: what each path needs."""
    if path == "/v1/payments":
        return needs("pay", **PAYMENTS)
    return None if path == "/health" else needs("files.read")


def wsgi(protected: ProtectedResource) -> Send:
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/health":
            start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
            return [b"ok"]
        assert "HTTP_AUTHORIZATION" not in environ
        assert "HTTP_DPOP" not in environ
        if environ["PATH_INFO"] == "/v1/transfers":
            transfer(protected, environ[ACCESS])
        protected.demand(environ[ACCESS], needs("files.read"))
        body = json.dumps(shown(environ[ACCESS])).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return by_wsgi(WsgiProtection(application, protected, rule))


def asgi(protected: ProtectedResource) -> Send:
    async def files(request: StarletteRequest) -> Response:
        assert not {"authorization", "dpop"} & set(request.headers)
        protected.demand(request.scope[ACCESS], needs("files.read"))
        return JSONResponse(shown(request.scope[ACCESS]))

    async def transfers(request: StarletteRequest) -> Response:
        transfer(protected, request.scope[ACCESS])
        raise AssertionError

    async def health(request: StarletteRequest) -> Response:
        return Response("ok")

    routes = [Route("/v1/files", files), Route("/v1/transfers", transfers), Route("/health", health)]
    return by_asgi(AsgiProtection(Starlette(routes=routes), protected, rule))


def fastapi_app(protected: ProtectedResource) -> FastAPI:
    app = FastAPI()
    protection = StarletteProtection(app, protected)
    reading, paying = protection.requires("files.read"), protection.requires("pay", **PAYMENTS)

    @app.get("/v1/files")
    def files(access: Annotated[Access, Depends(reading)]) -> dict[str, Any]:
        return shown(access)

    @app.get("/v1/payments")
    def payments(access: Annotated[Access, Depends(paying)]) -> None: ...

    @app.get("/v1/transfers")
    def transfers(access: Annotated[Access, Depends(reading)]) -> None:
        transfer(protected, access)

    @app.get("/health")
    def health() -> str:
        return "ok"

    return app


def fastapi(protected: ProtectedResource) -> Send:
    return by_asgi(fastapi_app(protected))


def fastapi_behind_the_middleware(protected: ProtectedResource) -> Send:
    """Both together: a proof is used once all the same."""
    return by_asgi(AsgiProtection(fastapi_app(protected), protected, rule))


def flask(protected: ProtectedResource) -> Send:
    app = Flask("files")
    protection = FlaskProtection(app, protected)

    @app.get("/v1/files")
    @protection.requires("files.read")
    def files():
        return shown(g.access)

    @app.get("/v1/payments")
    @protection.requires("pay", **PAYMENTS)
    def payments():
        return {}

    @app.get("/v1/transfers")
    @protection.requires("files.read")
    def transfers():
        transfer(protected, g.access)

    @app.get("/health")
    def health():
        return "ok"

    return by_wsgi(app)


def pyramid(protected: ProtectedResource, **options: Any) -> Send:
    config = Configurator()
    config.include("authserver_resource.pyramid")
    config.protect(protected)
    options = options or {"requires": "files.read"}
    for name, view, others in (
        ("files", lambda request: shown(request.identity), options),
        ("transfers", lambda request: transfer(protected, request.identity), options),
        ("payments", lambda request: {}, {"requires": needs("pay", **PAYMENTS)}),
    ):
        config.add_route(name, f"/v1/{name}")
        config.add_view(view, route_name=name, renderer="json", **others)
    config.add_route("health", "/health")
    config.add_view(lambda request: PyramidResponse("ok"), route_name="health")
    return by_wsgi(config.make_wsgi_app())


def pyramid_by_permission(protected: ProtectedResource) -> Send:
    """A permission is a scope."""
    return pyramid(protected, permission="files.read")


class Urls:
    """What Django knows as a module."""

    @staticmethod
    @requires("files.read")
    def files(request):
        return JsonResponse(shown(request.access))

    @staticmethod
    @requires("files.read")
    async def later(request):
        return JsonResponse(shown(request.access))

    @staticmethod
    @requires("pay", **PAYMENTS)
    def payments(request):
        return JsonResponse({})

    @staticmethod
    @requires("files.read")
    def transfers(request):
        transfer(django_settings.AUTHSERVER_RESOURCE, request.access)

    @staticmethod
    def health(request):
        return HttpResponse("ok")


Urls.urlpatterns = [
    django_path("v1/files", Urls.files),
    django_path("v1/later", Urls.later),
    django_path("v1/payments", Urls.payments),
    django_path("v1/transfers", Urls.transfers),
    django_path("health", Urls.health),
]
django_settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["authserver_resource.django.ProtectionMiddleware"],
    ROOT_URLCONF=Urls,
    LOGGING_CONFIG=None,
)
django.setup()


def django_wsgi(protected: ProtectedResource) -> Send:
    django_settings.AUTHSERVER_RESOURCE = protected
    return by_wsgi(get_wsgi_application())


def django_asgi(protected: ProtectedResource) -> Send:
    django_settings.AUTHSERVER_RESOURCE = protected
    return by_asgi(get_asgi_application())


@pytest.fixture(
    params=[
        wsgi,
        asgi,
        fastapi,
        fastapi_behind_the_middleware,
        flask,
        pyramid,
        pyramid_by_permission,
        django_wsgi,
        django_asgi,
    ],
    ids=lambda framework: framework.__name__,
)
def framework(request: pytest.FixtureRequest) -> Callable[[ProtectedResource], Send]:
    return request.param


def challenge_of(answer: Answer) -> str:
    """Its one `WWW-Authenticate`, whose every challenge is well-formed: each attribute once, in allowed characters (P-07)."""
    text = {name.lower(): value for name, value in answer[1].items()}["www-authenticate"]
    for challenge in re.split(r", (?=(?:Bearer|DPoP) )", text):
        scheme, _, attributes = challenge.partition(" ")
        assert scheme in ("Bearer", "DPoP")
        found = re.findall(r'([a-z_]+)=(?:"[\x20\x21\x23-\x5B\x5D-\x7E]*"|\d+)(?:, |$)', attributes)
        assert found and len(found) == len(set(found)) == attributes.count("="), challenge
    return text


def test_each_framework_lets_in_and_refuses(framework):
    """P-01, P-02, P-03, P-04, P-05, P-06, P-07, P-08, P-09, P-12: with the status, the challenge and the body that the verifier says."""
    protected, issuer = resource(implied_scopes={"files.write": ["files.read"]}, dpop=None)
    send = framework(protected)
    for scheme in ("Bearer", "bearer"):
        status, _, body = send(
            "GET", "/v1/files", {"Authorization": f"{scheme} {issuer.token(scope='files.write')}"}
        )
        assert (status, json.loads(body)) == (
            200,
            {"subject": "ann", "scopes": ["files.read", "files.write"]},
        )
    assert send("GET", "/health", {})[0] == 200

    answer = send("GET", f"/v1/files?access_token={issuer.token(scope='files.read')}", {})
    assert (answer[0], answer[2]) == (401, b"{}")
    assert challenge_of(answer) == f'Bearer scope="files.read", {FOUND}'
    for token, status_wanted, error in (
        ("bad", 401, "invalid_token"),
        (issuer.token(exp=1), 401, "invalid_token"),
        (issuer.token(iss="https://evil.example"), 401, "invalid_token"),
        (issuer.token(aud="https://other.example/"), 401, "invalid_token"),
        (issuer.opaque_token(aud="https://other.example/"), 401, "invalid_token"),
        (issuer.token(scope="other"), 403, "insufficient_scope"),
        ("a, Bearer b", 400, "invalid_request"),
    ):
        answer = send("GET", "/v1/files", {"Authorization": f"Bearer {token}"})
        assert (answer[0], json.loads(answer[2])["error"]) == (status_wanted, error)
        assert challenge_of(answer).startswith(f'Bearer error="{error}"')
        assert FOUND in challenge_of(answer)


def test_each_framework_steps_up_and_names_all_at_once(framework):
    """P-06, P-14, STEP-03: one challenge for the sign-in and the scopes, those that are held and those that are needed."""
    protected, issuer = resource(dpop=None)
    send = framework(protected)
    old = int(time.time()) - 3600

    def asked(**claims: Any) -> Answer:
        return send("GET", "/v1/payments", {"Authorization": f"Bearer {issuer.token(**claims)}"})

    first = asked(scope="mail files.read offline_access", acr="bronze", auth_time=old)
    assert first[0] == 401
    assert challenge_of(first) == (
        'Bearer error="insufficient_user_authentication", '
        'error_description="A more recent or stronger sign-in is needed.", '
        f'acr_values="gold", max_age=300, scope="files.read mail pay", {FOUND}'
    )
    # Who comes back with nothing better gets the same challenge to the byte, and sees that it goes in a circle.
    again = asked(scope="offline_access files.read mail", acr="bronze", auth_time=old)
    assert (again[0], challenge_of(again), again[2]) == (first[0], challenge_of(first), first[2])
    # With the sign-in alone, the scopes are left, and they are the same ones.
    signed_in = asked(scope="files.read mail", acr="gold", auth_time=int(time.time()))
    assert signed_in[0] == 403
    assert challenge_of(signed_in) == (
        'Bearer error="insufficient_scope", error_description="The access token lacks a scope.", '
        f'scope="files.read mail pay", {FOUND}'
    )
    # With all of it, what is behind is reached: where the middleware alone protects, nothing is there.
    assert asked(scope="files.read mail pay", acr="gold", auth_time=int(time.time()))[0] in (200, 404)


def test_each_framework_sends_what_a_rule_of_the_api_says(framework):
    """P-13, P-14."""
    protected, issuer = resource(dpop=None, send_authorization_details=True)
    headers = {"Authorization": f"Bearer {issuer.token(scope='files.read')}"}
    answer = framework(protected)("GET", "/v1/transfers", headers)
    assert (answer[0], json.loads(answer[2])) == (
        403,
        {
            "error": "insufficient_scope",
            "error_description": "Too much.",
            "authorization_details": DETAILS,
        },
    )
    assert challenge_of(answer) == (
        f'Bearer error="insufficient_scope", error_description="Too much.", scope="files.read transfers", {FOUND}'
    )


@pytest.mark.parametrize("opaque", [False, True], ids=["jwt", "opaque"])
def test_each_framework_says_that_the_issuer_is_down(framework, opaque):
    """P-05: 503 with Retry-After, and no challenge, after which a client would throw its token away."""
    protected, issuer = resource()
    issuer.down = True
    token = issuer.opaque_token() if opaque else issuer.token()
    status, headers, _ = framework(protected)("GET", "/v1/files", {"Authorization": f"Bearer {token}"})
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert "www-authenticate" not in {name.lower() for name in headers}


def test_each_framework_serves_the_metadata(framework):
    """P-10, P-11."""
    protected, _ = resource()
    send = framework(protected)
    path = "/.well-known/oauth-protected-resource/v1"
    status, headers, body = send("GET", path, {})
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert json.loads(body) == dict(protected.metadata)
    assert {name.lower(): text for name, text in headers.items()}["access-control-allow-origin"] == "*"
    assert send("OPTIONS", path, {"Origin": "https://app.example"})[0] == 200
    assert send("POST", path, {})[0] == 405


def test_each_framework_takes_a_bound_token_and_gives_the_next_nonce(framework):
    """DPOP-07, DPOP-12, DPOP-13."""
    protected, issuer = resource()
    key, nonces = DpopKey(), Nonces(b"k" * 32)
    send = framework(protected)
    token = issuer.token(scope="files.read", cnf=key.confirmation)

    def sent(nonce: str | None, method: str = "GET") -> Answer:
        proof = key.proof(method, "https://api.example/v1/files", token, nonce=nonce)
        return send("GET", "/v1/files?page=2", {"Authorization": f"DPoP {token}", "DPoP": proof})

    status, headers, body = sent(None)
    assert (status, json.loads(body)["error"]) == (401, "use_dpop_nonce")
    assert {name.lower(): text for name, text in headers.items()}["dpop-nonce"] == nonces.current()
    assert sent(nonces.current())[0] == 200
    status, headers, _ = sent(nonces._of(int(time.time() // 120) - 1))
    assert status == 200
    lower = {name.lower(): text for name, text in headers.items()}
    assert lower["dpop-nonce"] == nonces.current()
    assert lower["cache-control"] == "no-store"
    assert sent(nonces.current(), "POST")[0] == 401


def test_a_path_that_is_written_in_another_way_is_the_same_path():
    """DPOP-15: also where a server decodes the path before the application sees it."""
    protected, issuer = resource(dpop=Dpop())
    key = DpopKey()
    token = issuer.token(scope="files.read", cnf=key.confirmation)
    for send in (flask_of_all(protected), asgi_of_all(protected)):
        url = "/v1/caf%C3%A9%20%2Fx"
        proof = key.proof("GET", f"https://api.example{url}", token)
        assert send("GET", url, {"Authorization": f"DPoP {token}", "DPoP": proof})[0] == 200


def flask_of_all(protected: ProtectedResource) -> Send:
    app = Flask("all")
    protection = FlaskProtection(app, protected)

    @app.get("/<path:path>")
    @protection.requires("files.read")
    async def everything(path: str):
        return "ok"

    return by_wsgi(app)


def asgi_of_all(protected: ProtectedResource) -> Send:
    async def everything(scope, receive, send):
        await Response("ok")(scope, receive, send)

    return by_asgi(AsgiProtection(everything, protected))


def test_an_asynchronous_view_of_django(monkeypatch):
    protected, issuer = resource(dpop=None)
    for framework in (django_wsgi, django_asgi):
        send = framework(protected)
        token = issuer.opaque_token(scope="files.read")
        assert send("GET", "/v1/later", {"Authorization": f"Bearer {token}"})[0] == 200
        assert send("GET", "/v1/later", {})[0] == 401
    monkeypatch.setattr(django_settings, "AUTHSERVER_RESOURCE", "x")
    with pytest.raises(ImproperlyConfigured, match="AUTHSERVER_RESOURCE"):
        ProtectionMiddleware(lambda request: None)


def test_pyramid_chooses_a_view_by_scope():
    """The view predicate."""
    protected, issuer = resource(dpop=None)
    config = Configurator()
    config.include("authserver_resource.pyramid")
    config.protect(protected)
    config.add_route("files", "/v1/files")
    config.add_view(lambda request: PyramidResponse("everybody"), route_name="files")
    config.add_view(
        lambda request: PyramidResponse(f"administrator {request.authenticated_userid}"),
        route_name="files",
        has_scope="admin",
    )
    send = by_wsgi(config.make_wsgi_app())
    for scope, said in (("admin", b"administrator ann"), ("other", b"everybody")):
        headers = {"Authorization": f"Bearer {issuer.token(scope=scope)}"}
        assert send("GET", "/v1/files", headers)[2] == said
    assert send("GET", "/v1/files", {})[2] == b"everybody"
    issuer.down = True
    assert send("GET", "/v1/files", {"Authorization": f"Bearer {issuer.opaque_token()}"})[0] == 503


def test_fastapi_describes_who_may_come():
    """A view of FastAPI with a dependency of ours is in its OpenAPI document, and the metadata are not."""
    protected, _ = resource()
    app = FastAPI()
    protection = StarletteProtection(app, protected)

    @app.get("/v1/files")
    def files(access: Annotated[Access, Depends(protection.requires("files.read"))]) -> None: ...

    assert list(app.openapi()["paths"]) == ["/v1/files"]
    assert "parameters" not in app.openapi()["paths"]["/v1/files"]["get"]


def test_a_websocket_is_protected_too():
    protected, issuer = resource(dpop=None)

    async def chat(websocket):
        await websocket.accept()
        await websocket.send_json(shown(websocket.scope[ACCESS]))
        await websocket.close()

    app = AsgiProtection(Starlette(routes=[WebSocketRoute("/v1/chat", chat)]), protected, needs("files.read"))
    client = TestClient(app, base_url="https://api.example")
    headers = {"Authorization": f"Bearer {issuer.token(scope='files.read')}"}
    with client.websocket_connect("/v1/chat", headers=headers) as websocket:
        assert websocket.receive_json()["subject"] == "ann"
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/v1/chat"):
        pass
    assert denied.value.status_code == 401
    assert denied.value.headers["WWW-Authenticate"] == f'Bearer scope="files.read", {FOUND}'


def test_a_websocket_of_a_server_that_can_send_no_response_is_closed():
    protected, _ = resource()
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    async def nobody(scope, receive, send):
        raise AssertionError

    scope = {"type": "websocket", "path": "/v1/chat", "headers": []}
    asyncio.run(AsgiProtection(nobody, protected)(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_refusal_after_the_response_has_begun_is_not_hidden():
    protected, issuer = resource(dpop=None)

    async def late(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        protected.demand(scope[ACCESS], needs("files.write"))

    send = by_asgi(AsgiProtection(late, protected))
    with pytest.raises(Refusal):
        send("GET", "/v1/files", {"Authorization": f"Bearer {issuer.token()}"})


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_500_of_the_application_is_sent_as_it_is(pieces):
    """It is held back for a moment only, since a framework may raise a refusal after it."""
    protected, issuer = resource(dpop=None)

    async def failing(scope, receive, send):
        await send({"type": "http.response.start", "status": 500, "headers": [(b"x-a", b"b")]})
        for number in range(pieces):
            await send({"type": "http.response.body", "body": b"x", "more_body": number < pieces - 1})

    async def broken(scope, receive, send):
        await failing(scope, receive, send)
        raise LookupError

    headers = {"Authorization": f"Bearer {issuer.token()}"}
    status, sent, body = by_asgi(AsgiProtection(failing, protected))("GET", "/v1/files", headers)
    assert (status, sent["X-A"], body) == (500, "b", b"x" * pieces)
    with pytest.raises(LookupError):
        by_asgi(AsgiProtection(broken, protected))("GET", "/v1/files", headers)


def test_the_event_loop_does_not_wait_for_the_issuer():
    """What must be fetched is fetched in a thread, and what is known needs none."""
    protected, issuer = resource(dpop=None)
    answer, threads = issuer.fetch, set()

    def fetch(*asked):
        threads.add(threading.current_thread())
        return answer(*asked)

    protected.use(fetch)
    send = asgi(protected)
    for token in (issuer.token(scope="files.read"), issuer.opaque_token(scope="files.read")):
        for _ in range(2):
            assert send("GET", "/v1/files", {"Authorization": f"Bearer {token}"})[0] == 200
    assert len(issuer.requests) == 3
    assert threading.main_thread() not in threads
