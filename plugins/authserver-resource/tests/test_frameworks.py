"""Each framework, the real one: the same requests get the same answers.

Without `from __future__ import annotations`: FastAPI reads annotations that name what is local here.
"""

import asyncio
import json
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

from authserver_resource import Access, Dpop, Issuer, Nonces, ProtectedResource, Refusal, needs
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


def wsgi(protected: ProtectedResource) -> Send:
    def application(environ, start_response):
        assert "HTTP_AUTHORIZATION" not in environ
        assert "HTTP_DPOP" not in environ
        protected.demand(environ[ACCESS], needs("files.read"))
        body = json.dumps(shown(environ[ACCESS])).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def rule(method: str, path: str):
        return None if path == "/health" else needs("files.read")

    def open_too(environ, start_response):
        if environ["PATH_INFO"] == "/health":
            start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
            return [b"ok"]
        return application(environ, start_response)

    return by_wsgi(WsgiProtection(open_too, protected, rule))


def asgi(protected: ProtectedResource) -> Send:
    async def files(request: StarletteRequest) -> Response:
        assert not {"authorization", "dpop"} & set(request.headers)
        protected.demand(request.scope[ACCESS], needs("files.read"))
        return JSONResponse(shown(request.scope[ACCESS]))

    async def health(request: StarletteRequest) -> Response:
        return Response("ok")

    app = Starlette(routes=[Route("/v1/files", files), Route("/health", health)])
    return by_asgi(
        AsgiProtection(
            app, protected, lambda method, path: None if path == "/health" else needs("files.read")
        )
    )


def fastapi(protected: ProtectedResource) -> Send:
    app = FastAPI()
    protection = StarletteProtection(app, protected)

    @app.get("/v1/files")
    def files(access: Annotated[Access, Depends(protection.requires("files.read"))]) -> dict[str, Any]:
        return shown(access)

    @app.get("/health")
    def health() -> str:
        return "ok"

    return by_asgi(app)


def fastapi_behind_the_middleware(protected: ProtectedResource) -> Send:
    """Both together: a proof is used once all the same."""
    app = FastAPI()
    protection = StarletteProtection(app, protected)

    @app.get("/v1/files")
    def files(access: Annotated[Access, Depends(protection.requires("files.read"))]) -> dict[str, Any]:
        return shown(access)

    @app.get("/health")
    def health() -> str:
        return "ok"

    return by_asgi(
        AsgiProtection(
            app, protected, lambda method, path: None if path == "/health" else needs("files.read")
        )
    )


def flask(protected: ProtectedResource) -> Send:
    app = Flask("files")
    protection = FlaskProtection(app, protected)

    @app.get("/v1/files")
    @protection.requires("files.read")
    def files():
        return shown(g.access)

    @app.get("/health")
    def health():
        return "ok"

    return by_wsgi(app)


def pyramid(protected: ProtectedResource, **options: Any) -> Send:
    config = Configurator()
    config.include("authserver_resource.pyramid")
    config.protect(protected)
    config.add_route("files", "/v1/files")
    config.add_route("health", "/health")
    config.add_view(
        lambda request: shown(request.identity),
        route_name="files",
        renderer="json",
        **(options or {"requires": "files.read"}),
    )
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
    def health(request):
        return HttpResponse("ok")


Urls.urlpatterns = [
    django_path("v1/files", Urls.files),
    django_path("v1/later", Urls.later),
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


def test_each_framework_lets_in_and_refuses(framework):
    """P-01, P-02, P-03, P-04, P-05, P-06, P-09, P-12: with the status, the challenge and the body that the verifier says."""
    protected, issuer = resource(implied_scopes={"files.write": ["files.read"]}, dpop=None)
    send = framework(protected)
    status, _, body = send(
        "GET", "/v1/files", {"Authorization": f"Bearer {issuer.token(scope='files.write')}"}
    )
    assert (status, json.loads(body)) == (200, {"subject": "ann", "scopes": ["files.read", "files.write"]})
    assert send("GET", "/health", {})[0] == 200

    status, headers, body = send("GET", f"/v1/files?access_token={issuer.token(scope='files.read')}", {})
    assert (status, body) == (401, b"{}")
    assert headers["Www-Authenticate" if "Www-Authenticate" in headers else "WWW-Authenticate"] == (
        f'Bearer scope="files.read", {FOUND}'
    )
    for token, status_wanted, error in (
        ("bad", 401, "invalid_token"),
        (issuer.opaque_token(aud="https://other.example/"), 401, "invalid_token"),
        (issuer.token(scope="other"), 403, "insufficient_scope"),
        ("a, Bearer b", 400, "invalid_request"),
    ):
        status, headers, body = send("GET", "/v1/files", {"Authorization": f"Bearer {token}"})
        assert (status, json.loads(body)["error"]) == (status_wanted, error)
        challenge = {name.lower(): text for name, text in headers.items()}["www-authenticate"]
        assert challenge.startswith(f'Bearer error="{error}"')
        assert FOUND in challenge


def test_each_framework_says_that_the_issuer_is_down(framework):
    """503 with Retry-After."""
    protected, issuer = resource()
    issuer.down = True
    status, headers, _ = framework(protected)(
        "GET", "/v1/files", {"Authorization": f"Bearer {issuer.token()}"}
    )
    assert status == 503
    assert int(headers["Retry-After"]) > 0


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


def test_pyramid_steps_up():
    """STEP-03."""
    protected, issuer = resource(dpop=None)
    send = pyramid(protected, requires=needs("files.read", acr_values=("gold",)))
    headers = {"Authorization": f"Bearer {issuer.token(scope='files.read')}"}
    assert json.loads(send("GET", "/v1/files", headers)[2])["error"] == "insufficient_user_authentication"


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
