"""A provider as a judge from outside meets it: a process of its own, set up as docs/openid-conformance.rst says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from joserfc.jwk import RSAKey

from authserver.testing.live import free_port
from authserver.testing.origins import Origin, sending, serving
from tests.openid_plans.judge import CALLBACK, HOST, Browser, Judge, RelyingParty, ThroughProxy, Variant

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "openid-conformance.rst"
ISSUER = "https://op.example"
SECONDS_TO_START = 60
# The person of the plans: with a value for each claim that a scope covers.
PERSON = {
    "name": "Ann Example",
    "given_name": "Ann",
    "family_name": "Example",
    "middle_name": "Q",
    "nickname": "annie",
    "profile": "https://ann.example/",
    "picture": "https://ann.example/me.png",
    "website": "https://ann.example/blog",
    "gender": "female",
    "birthdate": "1990-01-31",
    "zoneinfo": "Europe/Oslo",
    "locale": "en",
    "email": "ann@example.com",
    "email_verified": "ann@example.com",
    "phone_number": "+49 30 1234",
    "phone_number_verified": "+49 30 1234",
    "address.locality": "Berlin",
    "address.country": "DE",
}
PASSWORD = "correct horse battery staple"
LOGOUT_CALLBACK = f"{HOST}/logged-out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A server process.

    Attributes:
        port: where it listens, behind what terminates TLS.
        key: of relying parties that authenticate by one.
        added: clients that an operator added, by what they are.
    """

    ini: Path
    port: int
    origin: Origin
    key: RSAKey
    added: dict[tuple[Any, ...], RelyingParty] = field(default_factory=dict)

    def command(self, *words: str, **options: Any) -> str:
        """What a command of the operator prints."""
        command = [str(Path(sys.executable).with_name("authserver")), "-c", str(self.ini), *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout

    def add(self, auth_method: str, **metadata: Any) -> RelyingParty:
        """A client as an operator adds it: once for all tests."""
        known = (auth_method, json.dumps(metadata))
        if known not in self.added:
            words = [
                f"--name=Judge {len(self.added)}",
                f"--redirect-uri={CALLBACK}",
                f"--auth-method={auth_method}",
            ]
            words += ["--grant-type=authorization_code", "--grant-type=refresh_token"]
            words += [f"--scope={scope}" for scope in ("openid", "profile", "email", "address", "phone")]
            words += [f"--metadata={name}={json.dumps(value)}" for name, value in metadata.items()]
            if auth_method == "private_key_jwt":
                keys = self.ini.with_name("judge.jwks")
                keys.write_text(json.dumps({"keys": [public(self.key)]}), encoding="utf-8")
                words.append(f"--jwks={keys}")
            if auth_method == "none":
                # Nothing proves a client without a secret: without this, each request of it asks (E-12).
                words.append("--first-party")
            told = json.loads(self.command("client", "add", "--json", *words))
            self.added[known] = RelyingParty(
                client_id=told["client_id"],
                secret=told.get("client_secret") or "",
                auth_method=auth_method,
                key=self.key,
            )
        return self.added[known]

    def register(self, auth_method: str, **metadata: Any) -> RelyingParty:
        """A client as the suite registers it for a module."""
        reply = self.post_registration(auth_method, **metadata)
        assert reply.status_code == 201, reply.text
        told = reply.json()
        assert {"client_id", "registration_client_uri", "registration_access_token"} <= told.keys()
        assert "client_secret" not in told or "client_secret_expires_at" in told
        return RelyingParty(
            client_id=told["client_id"],
            secret=told.get("client_secret", ""),
            auth_method=auth_method,
            key=self.key,
            registration=told,
        )

    def post_registration(self, auth_method: str, **metadata: Any) -> requests.Response:
        sent = {
            "client_name": "Judge",
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
            "jwks": {"keys": [public(self.key)]},
            "token_endpoint_auth_method": auth_method,
            "redirect_uris": [CALLBACK],
            "contacts": ["judge@rp.example"],
            **metadata,
        }
        sent = {name: value for name, value in sent.items() if value is not None}
        return self.http().post(f"{ISSUER}/oauth/register", json=sent, timeout=20)

    def http(self) -> requests.Session:
        session = requests.Session()
        session.mount("https://", ThroughProxy(self.port))
        return session


def public(key: RSAKey) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": key.kid, "use": "sig", "alg": "RS256"}


def configured(text: str, page: str) -> str:
    """development.ini with the plugins and the lines that the page names."""
    listed, lines = re.findall(r"\.\. code-block:: ini\n\n((?:   .*\n|\n)+)", page)[:2]
    for plugin in listed.split()[2:]:
        text, found = re.subn(rf"^    # {plugin}$", f"    {plugin}", text, flags=re.MULTILINE)
        assert found == 1, plugin
    for line in filter(None, map(str.strip, lines.splitlines())):
        key = line.partition(" =")[0]
        text, found = re.subn(
            rf"^(# )?{re.escape(key)} =.*$", lambda _, line=line: line, text, flags=re.MULTILINE
        )
        assert found == 1, line
    return text


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    folder = tmp_path_factory.mktemp("provider")
    ini, log, port = folder / "development.ini", folder / "server.log", free_port()
    text = configured(
        (CHECKOUT / "development.ini").read_text(encoding="utf-8"), PAGE.read_text(encoding="utf-8")
    )
    ini.write_text(text.replace("localhost:6543", f"localhost:{port}"), encoding="utf-8")
    with serving() as origin:
        origin.reply = sending(b"")
        key = RSAKey.generate_key(2048, {"kid": "judge"}, auto_kid=False)
        provider = Provider(ini=ini, port=port, origin=origin, key=key)
        provider.command("demo")
        words = [f"--attribute={name}={value}" for name, value in PERSON.items() if name != "name"]
        provider.command(
            "user",
            "add",
            "ann",
            "--password-stdin",
            f"--display-name={PERSON['name']}",
            *words,
            input=f"{PASSWORD}\n",
        )
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "pyramid.scripts.pserve", str(ini)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for(provider, process, log)
            yield provider
        finally:
            process.terminate()
            process.wait(timeout=20)
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said and "unexpected error" not in said


def wait_for(provider: Provider, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if provider.http().get(f"{ISSUER}/health/ready", timeout=5).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(f"it did not start:\n{log.read_text(encoding='utf-8')}")


BASIC = Variant(name="basic")
VARIANTS = (BASIC, Variant(name="basic, dynamic clients", dynamic=True))
# The same modules once more: `make check` runs them, `make test` does not.
MORE_VARIANTS = (
    Variant(name="form post", response_mode="form_post"),
    Variant(name="post", auth_method="client_secret_post"),
    Variant(name="none", auth_method="none"),
    Variant(name="private_key_jwt", auth_method="private_key_jwt"),
)


@pytest.fixture(
    params=[*VARIANTS, *(pytest.param(each, marks=pytest.mark.slow) for each in MORE_VARIANTS)],
    ids=lambda variant: variant.name,
)
def judge(request: pytest.FixtureRequest, begin: Callable[..., Judge]) -> Judge:
    """One module on each variant in turn: a relying party and a person who is not signed in."""
    return begin(request.param)


@pytest.fixture
def begin(provider: Provider) -> Callable[..., Judge]:
    """Begin a module: on this variant, with these members in the metadata of its client."""

    def begun(variant: Variant = BASIC, rp: RelyingParty | None = None, **metadata: Any) -> Judge:
        add = provider.register if variant.dynamic else provider.add
        rp = rp or add(variant.auth_method, **metadata)
        browser = Browser(provider.port, "ann", PASSWORD)
        return Judge(ISSUER, provider.port, variant, rp, browser)

    return begun
