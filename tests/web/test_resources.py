"""Resource indicators (RFC 8707), at the authorization and the token endpoint."""

from __future__ import annotations

from webtest import TestResponse

from authserver.engine import ending, resources
from authserver.engine.ending import Act, Ended, Subject
from authserver.testing.records import a_resource
from authserver.testing.server import RESOURCE, Server
from authserver.testing.stories import FILES, assert_json_error, stored


def audience(server: Server, answer: TestResponse) -> list[str]:
    value = server.claims(answer.json["access_token"])["aud"]
    return value if isinstance(value, list) else [value]


def test_the_token_request_narrows_and_never_widens(server: Server) -> None:
    """O-04, O-05, O-06, I-16, T036, T070: by code and by refresh, one token for one resource each."""
    client, secret = server.add_client(scopes=("profile", "files.read", "files.write"))
    code = server.code(client, scope="profile files.read", resource=[RESOURCE, FILES])
    before = stored(server)
    answer = server.redeem(client, secret, code, resource="https://other.example/")
    assert_json_error(answer, "invalid_target")
    assert stored(server) == before
    answer = server.redeem(client, secret, code, resource=RESOURCE)
    assert audience(server, answer) == [RESOURCE]
    # The refresh token stands for all that was agreed, not for that one request.
    answer = server.refresh(client, secret, answer.json["refresh_token"], resource="https://Files.example")
    assert audience(server, answer) == [FILES]
    answer = server.refresh(client, secret, answer.json["refresh_token"])
    assert audience(server, answer) == [RESOURCE, FILES]


def test_a_registered_resource_from_consent_to_its_removal(server: Server) -> None:
    """I-16, I-17, O-04, O-10, L-08: the page names it with its URI; what was agreed ends with it, whatever is asked for."""
    client, secret = server.add_client(scopes=("profile", "files.read"))
    with server.begin() as engine:
        notes = a_resource(
            form="https://notes.example/", uri="https://notes.example", name="Your notes", scopes=None
        )
        resources.add(engine, notes)
    browser = server.browser()
    server.sign_in(browser)
    page = browser.get(server.authorization_url(client, scope="profile", resource="https://Notes.example/"))
    shown = page.html.select_one("ul.resources").get_text(" ", strip=True)
    assert shown == "Your notes https://notes.example"
    alone = server.redeem(client, secret, server.code(client, scope="profile", resource=notes.uri))
    assert audience(server, alone) == ["https://notes.example"]
    both = server.redeem(client, secret, server.code(client, scope="profile", resource=[notes.uri, RESOURCE]))
    removal = Act(subject=Subject.resource(notes.form, notes.uri), for_good=True)
    ended = sum(ending.end(server.begin, removal), Ended())
    assert (ended.grants, ended.narrowed_grants) == (1, 1)
    assert_json_error(server.refresh(client, secret, alone.json["refresh_token"]), "invalid_grant")
    named = server.refresh(client, secret, alone.json["refresh_token"], resource=notes.uri)
    assert_json_error(named, "invalid_grant")
    refresh = both.json["refresh_token"]
    assert_json_error(server.refresh(client, secret, refresh, resource=notes.uri), "invalid_target")
    assert audience(server, server.refresh(client, secret, refresh)) == [RESOURCE]
