"""As much as there may be, through a real server that takes no longer headers than the shipped INI files allow."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from authserver.limits import MAXIMUM_URI

SCOPES = tuple(f"s{number}.".ljust(100, "x") for number in range(40))
REDIRECT_URI = "https://client.example/".ljust(MAXIMUM_URI, "a")


@pytest.fixture(scope="module")
def settings_of_running_server() -> dict[str, str]:
    return {
        "authserver.scopes": "\n".join(f"{name} = Words" for name in SCOPES),
        "authserver.hidden_scopes": "",
        "authserver.plugin.scopes_default.scopes": "",
        "authserver.plugin.registration_open.scopes": "",
    }


@pytest.mark.parametrize("state", ["xyz", "s" * 2000])
def test_the_longest_scopes_redirect_uri_and_state_come_through_sign_in_and_consent(
    running_server, ann, state
):
    """B206, B-25.a, T136: each address fits into 16 kB together with the headers of a browser."""
    client, _ = running_server.records.add_client(redirect_uris=(REDIRECT_URI,), scopes=SCOPES)
    url = running_server.records.authorization_url(
        client, redirect_uri=REDIRECT_URI, scope=" ".join(SCOPES), state=state
    )
    answer = ann.authorize(running_server.issuer + url)
    assert answer.startswith(REDIRECT_URI + "?")
    values = parse_qs(urlsplit(answer).query)
    assert values["state"] == [state]
    assert "code" in values
