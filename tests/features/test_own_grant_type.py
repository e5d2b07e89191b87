"""docs/writing-plugins.rst, "A grant type of your own": its example is a grant type, complete as it stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from authserver.testing.server import RESOURCE, Server, with_plugin
from authserver.testing.stories import assert_json_error, stored

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
GRANT_TYPE = "urn:example:grant-type:badge"


@pytest.fixture
def server(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.syspath_prepend(EXAMPLES)
    server = Server(
        sqlite_url, with_plugin("badges:Badges", {"badges": "b-17 = ann\nb-18 = bob\nb-19 = eve"})
    )
    server.add_user("ann")
    yield server
    server.close()


def test_the_example_gives_tokens_for_the_person_it_names(server: Server) -> None:
    """A-09: with scopes, resources, registration and metadata as for every other grant type."""
    assert (
        GRANT_TYPE in server.http.get("/.well-known/oauth-authorization-server").json["grant_types_supported"]
    )
    client, secret = server.add_client(grant_types=(GRANT_TYPE,))
    answer = server.token(client, secret, grant_type=GRANT_TYPE, badge="b-17", scope="files.read")
    assert (answer.status_int, answer.json["scope"]) == (200, "files.read")
    assert "refresh_token" not in answer.json
    claims = server.claims(answer.json["access_token"])
    (user,) = server.rows("users")
    assert (claims["sub"], claims["aud"]) == (user["user_id"], RESOURCE)
    (event,) = server.events("token.issued")
    assert event["user_id"] == user["user_id"]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"badge": "b-99"}, "invalid_grant"),
        ({"badge": "b-18"}, "invalid_grant"),
        ({"badge": "b-17", "scope": "admin"}, "invalid_scope"),
        ({"badge": "b-17", "resource": "https://other.example/"}, "invalid_target"),
    ],
)
def test_the_example_refuses_as_every_grant_type_does(
    server: Server, form: dict[str, str], error: str
) -> None:
    client, secret = server.add_client(grant_types=(GRANT_TYPE,))
    before = stored(server)
    assert_json_error(server.token(client, secret, grant_type=GRANT_TYPE, **form), error)
    assert stored(server) == before


def test_the_documentation_shows_this_very_file() -> None:
    page = (EXAMPLES.parent / "writing-plugins.rst").read_text()
    assert ".. literalinclude:: examples/badges.py" in page
