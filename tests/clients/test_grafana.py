"""What Grafana's generic OAuth does with a server, by its documentation: the program itself is not run here.

https://grafana.com/docs/grafana/latest/setup-grafana/configure-access/configure-authentication/generic-oauth/ says which settings
there are, that the client authenticates as golang.org/x/oauth2 does, and that login, name, e-mail and role are JMESPath expressions,
tried with the ID token first and then with what UserInfo says.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jmespath
import pytest
import requests
from click.testing import CliRunner
from jmespath.exceptions import JMESPathError
from joserfc import jws

from authserver.cli import main
from authserver.testing.live import live_server
from authserver.testing.server import VERIFIER, Server, basic
from tests.clients.conftest import Person
from tests.features.openid_steps import ATTRIBUTES, ON

PAGE = Path(__file__).parents[2] / "docs" / "openid-recipes.rst"
HERE = "https://auth.example.com"
HOME = "https://grafana.example.com/login"
ROLES = ("None", "Viewer", "Editor", "Admin", "GrafanaAdmin")
# S256 of VERIFIER (RFC 7636, appendix B).
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def recipe() -> tuple[list[str], dict[str, str]]:
    """The words of the command on the page, and the settings of `grafana.ini` there."""
    text = PAGE.read_text(encoding="utf-8").partition("\nGrafana\n")[2].partition("\nFlask and Authlib\n")[0]
    blocks = re.findall(r"\.\. code-block:: \w+\n\n((?:      .*\n|\n)+)", text)
    (command,) = [block for block in blocks if "client add" in block]
    (ini,) = [block for block in blocks if "[auth.generic_oauth]" in block]
    parser = ConfigParser(interpolation=None)
    parser.read_string(re.sub(r"^ +", "", ini, flags=re.MULTILINE))
    return shlex.split(command.replace("\\\n", " ")), dict(parser["auth.generic_oauth"])


@pytest.fixture(scope="module")
def server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("grafana") / "server.db"
    path.write_bytes(migrated_sqlite_file.read_bytes())
    settings = {**ON, "authserver.plugins": f"{ON['authserver.plugins']}\nclaims_groups"}
    with live_server(f"sqlite:///{path}", settings) as server:
        server.add_user("ann", attributes=ATTRIBUTES, groups=("grafana-admins",))
        server.add_user("bob", attributes=ATTRIBUTES, groups=("staff",))
        yield server


@pytest.fixture(scope="module")
def grafana(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Grafana:
    """The application, added with the command of the page."""
    words, settings = recipe()
    assert words[:3] == ["authserver", "client", "add"]
    ini = tmp_path_factory.mktemp("ini") / "server.ini"
    lines = [
        f"{key} = " + "\n    ".join(value.strip().replace("%", "%%").splitlines())
        for key, value in server.ini.items()
    ]
    ini.write_text("[app:main]\nuse = egg:authserver\n" + "\n".join(lines) + "\n", encoding="utf-8")
    answer = CliRunner().invoke(main, ["-c", str(ini), *words[1:], "--json"])
    assert answer.exit_code == 0, answer.output
    (added,) = re.findall(r"\{.*\}", answer.stdout, flags=re.DOTALL)
    client = json.loads(added)
    filled = {
        name: text.replace(HERE, server.issuer)
        .replace("CLIENT_ID", client["client_id"])
        .replace("SECRET", client["client_secret"])
        for name, text in settings.items()
    }
    return Grafana(filled)


def said(tokens: Mapping[str, Any]) -> dict[str, Any]:
    """The claims of the ID token."""
    return dict(json.loads(jws.extract_compact(tokens["id_token"].encode()).payload))


class Grafana:
    """What it sends and reads, as its settings say."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.settings = settings

    def address(self) -> str:
        """Where it sends the browser."""
        assert self.settings["use_pkce"] == "true"
        sent = {
            "client_id": self.settings["client_id"],
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "redirect_uri": f"{HOME}/generic_oauth",
            "response_type": "code",
            "scope": self.settings["scopes"],
            "state": "a-state",
        }
        return f"{self.settings['auth_url']}?{urlencode(sent)}"

    def tokens(self, style: str, **form: str) -> dict[str, Any]:
        """From the token endpoint, as `auth_style` has it."""
        headers, secret = {}, self.settings["client_secret"]
        if style == "InHeader":
            headers["Authorization"] = basic(self.settings["client_id"], secret)
        else:
            form |= {"client_id": self.settings["client_id"], "client_secret": secret}
        answer = requests.post(self.settings["token_url"], form, headers=headers, timeout=10)
        return {"status": answer.status_code, **answer.json()}

    def redeem(self, person: Person, style: str = "InHeader") -> dict[str, Any]:
        """What it has when the person is back."""
        location = person.authorize(self.address())
        assert location.startswith(f"{HOME}/generic_oauth?")
        answer = dict(parse_qsl(urlsplit(location).query))
        assert answer["state"] == "a-state"
        return self.tokens(
            style,
            grant_type="authorization_code",
            code=answer["code"],
            redirect_uri=f"{HOME}/generic_oauth",
            code_verifier=VERIFIER,
        )

    def knows(self, tokens: Mapping[str, Any]) -> dict[str, Any]:
        """What it takes of the person: from the ID token, and what that does not say from UserInfo."""
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        about = requests.get(self.settings["api_url"], headers=bearer, timeout=10)
        assert about.status_code == 200, about.text
        sources = [said(tokens), about.json()]
        found: dict[str, Any] = {}
        for name in ("login", "name", "email", "groups", "role"):
            for source in sources:
                try:
                    value = jmespath.search(self.settings[f"{name}_attribute_path"], source)
                except JMESPathError:
                    continue
                if value:
                    found[name] = value
                    break
        return found


def test_people_sign_in_with_their_roles(server: Server, grafana: Grafana) -> None:
    """OIDC-09, OIDC-10, OIDC-31: what is not in the ID token is in UserInfo, so no expression decides too early."""
    for username, role in (("ann", "Admin"), ("bob", "Viewer")):
        tokens = grafana.redeem(Person(server.issuer, username))
        assert tokens["status"] == 200 and tokens["token_type"] == "Bearer"
        known = grafana.knows(tokens)
        assert known.pop("groups") == (["grafana-admins"] if role == "Admin" else ["staff"])
        assert known == {
            "login": username,
            "name": username.title(),
            "email": "ann@example.com",
            "role": role,
        }
        assert role in ROLES
        # The ID token has no groups, and is asked first.
        early = jmespath.search(
            "contains(groups || `[]`, 'grafana-admins') && 'Admin' || 'Viewer'", said(tokens)
        )
        assert early == "Viewer"


@pytest.mark.parametrize("style", ["InHeader", "InParams"])
def test_how_it_authenticates(server: Server, grafana: Grafana, style: str) -> None:
    """AutoDetect sends the header first, and that is right; a form is refused, and the code is worth nothing then."""
    tokens = grafana.redeem(Person(server.issuer), style)
    assert tokens["status"] == (200 if style == "InHeader" else 401), tokens


def test_its_access_goes_on(server: Server, grafana: Grafana) -> None:
    """OIDC-08: `use_refresh_token`; each answer has another refresh token, and the old one is not used again."""
    assert grafana.settings["use_refresh_token"] == "true"
    tokens = grafana.redeem(Person(server.issuer))
    for _ in range(2):
        again = grafana.tokens("InHeader", grant_type="refresh_token", refresh_token=tokens["refresh_token"])
        assert again["status"] == 200 and again["refresh_token"] != tokens["refresh_token"]
        assert grafana.knows(again)["role"] == "Admin"
        tokens = again


@pytest.mark.parametrize("hinted", [True, False])
def test_signing_out_there_ends_the_session_here(server: Server, grafana: Grafana, hinted: bool) -> None:
    """OUT-01, OUT-02: with the ID token, which Grafana adds as `id_token_hint`, at once and back; else the page asks first."""
    person = Person(server.issuer)
    tokens = grafana.redeem(person)
    address = grafana.settings["signout_redirect_url"]
    if hinted:
        address += f"&{urlencode({'id_token_hint': tokens['id_token']})}"
    answer = person.http.get(address, allow_redirects=False, timeout=10)
    if hinted:
        assert (answer.status_code, answer.headers["Location"]) == (303, HOME)
    else:
        assert answer.status_code == 200 and "<form" in answer.text
    location = person.http.get(grafana.address(), allow_redirects=False, timeout=10).headers.get(
        "Location", ""
    )
    assert location.startswith(f"{server.issuer}/login") is hinted
