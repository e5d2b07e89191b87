"""The OpenAPI document says what there is: it is made of the code, and published as it is made."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import authserver_resource
from authserver.cli import main
from authserver.engine.grants import CORE, assertion
from authserver.features.admin_api import access
from authserver.hooks import is_implemented
from authserver.testing.server import SETTINGS, Server
from authserver.web.openapi import document
from authserver.web.operations import GRANT_FORMS
from authserver.web.route import Medium
from authserver.web.routes import ROUTES

CHECKOUT = Path(__file__).parents[1]
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


def of(server: Server) -> dict[str, Any]:
    return document(server.wsgi.registry)


@pytest.fixture
def plain(sqlite_url: str) -> Iterator[Server]:
    """A server without a feature."""
    server = Server(sqlite_url)
    yield server
    server.close()


def test_the_published_document_is_what_the_code_says() -> None:
    """If this fails: `.venv/bin/python docs/openapi.py`."""
    script = runpy.run_path(str(CHECKOUT / "docs/openapi.py"))
    assert (CHECKOUT / "docs/openapi.json").read_text(encoding="utf-8") == script["text"]()


def test_access_tokens_are_taken_by_the_api_for_operators_and_by_userinfo_alone() -> None:
    """T079: the API verifies them as `authserver-resource` does; what else is taken as a bearer is for registrations."""
    published = json.loads((CHECKOUT / "docs/openapi.json").read_text(encoding="utf-8"))
    schemes = published["components"]["securitySchemes"]
    bearers = {name for name, scheme in schemes.items() if scheme.get("scheme") == "bearer"}
    assert bearers == {
        "initial_access_token",
        "registration_access_token",
        "admin_api_token",
        "access_token",
    }

    def taking(token: str) -> set[str]:
        return {
            path
            for path, methods in published["paths"].items()
            if any({token} & {*needed} for each in methods.values() for needed in each.get("security", []))
        }

    assert taking("admin_api_token") and all(
        path.startswith("/admin/api") for path in taking("admin_api_token")
    )
    assert taking("access_token") == {"/oauth/userinfo"}
    # The tokens of forgers are sent to it in `tests/features/test_admin_api_requests.py`.
    assert access.ProtectedResource is authserver_resource.ProtectedResource


def test_every_json_endpoint_of_the_core_says_what_it_takes_and_answers() -> None:
    assert [route.name for route in ROUTES if (route.medium is Medium.JSON) != bool(route.operation)] == []


def test_every_json_endpoint_of_a_shipped_feature_says_it_for_each_of_its_methods() -> None:
    script = runpy.run_path(str(CHECKOUT / "docs/openapi.py"))
    served = script["served"]()
    routes = [route for route in served.paths.values() if route.medium is Medium.JSON]
    assert {"registration", "pushed_requests", "userinfo"} <= {route.name for route in routes}
    assert [route.name for route in routes if route.operation is None] == []
    assert [route.name for route in routes if {*route.operations()} != {*route.methods}] == []


def test_the_published_document_has_the_endpoints_of_every_shipped_feature() -> None:
    shipped = {point.name: point.load() for point in entry_points(group="authserver.plugins")}
    adding = {name for name, kind in shipped.items() if is_implemented(kind, "includeme")}
    script = runpy.run_path(str(CHECKOUT / "docs/openapi.py"))
    # Those that add pages alone, and those for collectors.
    assert adding - {*script["INI"]["authserver.plugins"].split()} == {
        "admin_console",
        "metrics",
        "opentelemetry",
        "playground",
    }


def test_every_grant_type_of_the_core_says_what_it_takes() -> None:
    """Those that there always are, and that of assertions, which is offered with the first of their profiles."""
    assert GRANT_FORMS.keys() == {*CORE, assertion.GRANT_TYPE}


def test_the_errors_of_a_grant_type_are_among_those_of_the_token_endpoint() -> None:
    """DEV-02: those that a plugin declares for its own grant type, each with its status."""
    paths = json.loads((CHECKOUT / "docs/openapi.json").read_text(encoding="utf-8"))["paths"]
    refused = paths["/oauth/token"]["post"]["responses"]["400"]["content"][JSON]["schema"]
    told = {*refused["properties"]["error"]["enum"]}
    assert {"authorization_pending", "slow_down", "access_denied", "expired_token"} <= told


def test_a_server_without_features_has_none_in_its_document(plain: Server) -> None:
    made = of(plain)
    text = json.dumps(made).lower()
    assert "/oauth/par" not in made["paths"]
    assert not [
        word for word in ("dpop", "pushed", "jwt-bearer", "registration_access_token") if word in text
    ]
    forms = made["paths"]["/oauth/token"]["post"]["requestBody"]["content"][FORM]["schema"]["oneOf"]
    assert [form["title"] for form in forms] == list(CORE)


def test_what_two_plugins_add_to_one_operation_is_all_in_it() -> None:
    """What a client may send with its registration, and what it is told; and each method of one address by itself."""
    paths = json.loads((CHECKOUT / "docs/openapi.json").read_text(encoding="utf-8"))["paths"]
    register = paths["/oauth/register"]["post"]
    own = {"dpop_bound_access_tokens", "require_pushed_authorization_requests", "software_statement"}
    sent = register["requestBody"]["content"][JSON]["schema"]["properties"]
    told = register["responses"]["201"]["content"][JSON]["schema"]
    assert own <= sent.keys() & told["properties"].keys()
    assert {"registration_access_token", "registration_client_uri"} <= {*told["required"]}
    manage = paths["/oauth/register/client"]
    assert {*manage} == {"get", "put", "delete"}
    assert len({operation["operationId"] for operation in manage.values()}) == 3
    for operation in manage.values():
        assert operation["security"] == [{"registration_access_token": []}]
        assert {"401", "429", "503"} <= operation["responses"].keys()
        (parameter,) = operation["parameters"]
        assert (parameter["name"], parameter["in"], parameter["required"]) == ("client_id", "query", True)
    assert "content" not in manage["delete"]["responses"]["204"]
    assert {"403", "413", "415"} <= manage["put"]["responses"].keys()


def test_what_is_switched_off_is_not_in_it(sqlite_url: str) -> None:
    """Registration without a policy, introspection without one, and a method of authentication without a plugin."""
    left = "client_secret_post public_client redirect_exact scopes_registered resources_listed login_password"
    unused = ("redirect_loopback", "scopes_default", "registration_open", "introspect_resource_servers")
    without = {
        key: None
        for key in SETTINGS
        if key.startswith(tuple(f"authserver.plugin.{name}." for name in unused))
    }
    settings = {**without, "authserver.plugins": left, "authserver.grant_types": "authorization_code"}
    server = Server(sqlite_url, settings)
    try:
        made = of(server)
    finally:
        server.close()
    assert not {"/oauth/register", "/oauth/introspect"} & made["paths"].keys()
    token = made["paths"]["/oauth/token"]["post"]
    assert token["security"] == []
    (form,) = token["requestBody"]["content"][FORM]["schema"]["oneOf"]
    assert form["title"] == "authorization_code"


def test_an_endpoint_of_a_plugin_is_in_it(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that says nothing about itself."""
    monkeypatch.syspath_prepend(CHECKOUT / "docs/examples")
    server = Server(sqlite_url, {"authserver.plugins": SETTINGS["authserver.plugins"] + " who_am_i:WhoAmI"})
    try:
        found = of(server)["paths"]["/who-am-i"]["get"]
    finally:
        server.close()
    assert found["operationId"] == "who_am_i"
    assert {"200", "400", "500"} <= found["responses"].keys()


def test_several_plugins_add_to_one_operation(sqlite_url: str) -> None:
    """RFC 9126, 6; RFC 9449, 5.2: none takes the place of another."""
    server = Server(
        sqlite_url, {"authserver.plugins": SETTINGS["authserver.plugins"] + " pushed_requests dpop"}
    )
    try:
        body = of(server)["paths"]["/oauth/register"]["post"]["requestBody"]
    finally:
        server.close()
    members = body["content"][JSON]["schema"]["properties"]
    assert {
        "require_pushed_authorization_requests",
        "dpop_bound_access_tokens",
        "client_name",
    } <= members.keys()


def test_each_method_of_an_endpoint_may_be_another_operation(sqlite_url: str) -> None:
    """RFC 7592, 2: a client reads, changes and ends its registration with its own token, at the same address."""
    plugins = SETTINGS["authserver.plugins"] + " client_management"
    server = Server(sqlite_url, {"authserver.plugins": plugins})
    try:
        made = of(server)
    finally:
        server.close()
    found = made["paths"]["/oauth/register/client"]
    assert list(found) == ["get", "put", "delete"]
    assert len({operation["operationId"] for operation in found.values()}) == 3
    for operation in found.values():
        assert operation["security"] == [{"registration_access_token": []}]
        assert [item["name"] for item in operation["parameters"] if item["in"] == "query"] == ["client_id"]
        assert {"401", "429"} <= operation["responses"].keys()
    assert ["requestBody" in operation for operation in found.values()] == [False, True, False]
    assert "content" not in found["delete"]["responses"]["204"]
    assert "403" in found["put"]["responses"]
    schemes = made["components"]["securitySchemes"]
    assert {"registration_access_token", "initial_access_token"} <= schemes.keys()


def test_the_metadata_in_it_are_those_that_are_published(plain: Server) -> None:
    path = "/.well-known/oauth-authorization-server"
    schema = of(plain)["paths"][path]["get"]["responses"]["200"]["content"][JSON]["schema"]
    assert schema["required"] == list(plain.http.get(path).json)


def test_the_path_of_the_issuer_is_in_it(sqlite_url: str) -> None:
    server = Server(sqlite_url, {"authserver.issuer": "https://as.example/tenant"})
    try:
        made = of(server)
    finally:
        server.close()
    assert made["servers"] == [{"url": "https://as.example"}]
    assert {"/tenant/oauth/token", "/.well-known/oauth-authorization-server/tenant"} <= made["paths"].keys()


def test_the_command_prints_it_or_writes_it(tmp_path: Path) -> None:
    """Without a database: there need not be one yet."""
    ini = tmp_path / "server.ini"
    settings: Mapping[str, str] = {**SETTINGS, "authserver.database_url": f"sqlite:///{tmp_path}/none.db"}
    lines = [f"{key} = {value}".replace("\n", "\n  ") for key, value in settings.items()]
    ini.write_text("\n".join(["[app:main]", "use = egg:authserver", *lines]))
    printed = CliRunner().invoke(main, ["-c", str(ini), "openapi"])
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.stdout)["openapi"] == "3.1.0"
    target = tmp_path / "openapi.json"
    written = CliRunner().invoke(main, ["-c", str(ini), "openapi", "--output", str(target)])
    assert written.exit_code == 0, written.output
    assert written.stdout == f"{target} is written.\n"
    assert json.loads(target.read_text(encoding="utf-8")) == json.loads(printed.stdout)
    missing = CliRunner().invoke(
        main, ["-c", str(ini), "openapi", "--output", str(tmp_path / "no/such.json")]
    )
    assert missing.exit_code == 1
    assert "No such file or directory" in missing.output
