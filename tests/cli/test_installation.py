"""`authserver doctor` with the INI file alone: what it says of the server's own database and keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from authserver.cli.installation import OLD_KEY, OLD_RING_KEY, Checked, examine_installation
from authserver.doctor.findings import Result
from authserver.engine import issuers
from authserver.storage.database import Database
from authserver.storage.tables import ring_keys, signing_keys
from authserver.testing.origins import Authority, sending, serving
from authserver.testing.records import a_client
from authserver.testing.server import Server, with_plugin
from tests.trusted_issuers import Issuer


@pytest.fixture
def server(database: Database) -> Iterator[Server]:
    server = Server(database.engine.url.render_as_string(hide_password=False))
    yield server
    server.close()


def seen(server: Server) -> dict[str, Result]:
    return {each.check: each.result for each in examine_installation(server.application)}


def change(server: Server, *statements: object) -> None:
    with server.application.storage.engine.connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement) if isinstance(statement, str) else statement)


def test_a_new_server_is_well(server: Server) -> None:
    server.add_client()
    everything = {
        "clock",
        "schema",
        "indexes",
        "signing keys",
        "key ring",
        "events",
        "clients",
        "trusted issuers",
    }
    assert seen(server) == dict.fromkeys(everything, Result.OK)


def test_what_is_amiss_is_found_and_says_what_to_do(server: Server) -> None:
    """An index that somebody dropped, keys that are old, and a client whose policy was tightened (K-26)."""
    with server.begin() as engine:
        engine.stores.clients.add(a_client(client_id="editor", scopes=("profile", "withdrawn")))
    old = {signing_keys.c.created_at: OLD_KEY, ring_keys.c.first_used_at: OLD_RING_KEY}
    for column, age in old.items():
        with server.application.begin() as engine:
            change(server, column.table.update().values({column: engine.now - age - timedelta(days=1)}))
    change(server, "DROP INDEX ix_grants_expires_at")
    try:
        found = {each.check: each for each in examine_installation(server.application)}
    finally:
        change(server, "CREATE INDEX ix_grants_expires_at ON grants (expires_at)")
    told = {name for name, each in found.items() if each.result is Result.WARNING}
    assert told == {"indexes", "signing keys", "key ring", "clients"}
    assert all(found[name].remedy for name in told)
    assert "ix_grants_expires_at on grants" in found["indexes"].what


def test_each_enabled_issuer_is_tried(sqlite_url: str, tmp_path: Path) -> None:
    """Of the INI and of the database: are its keys there now, fetched where it publishes them, and is its entry right?"""
    authority, idp = Authority(tmp_path), Issuer()
    file = tmp_path / "listed.json"
    file.write_text(json.dumps(idp.key.jwks()))
    settings = with_plugin("jwt_bearer", {"issuers": f"https://listed.example = {file}"})
    settings |= {"authserver.fetch_loopback": "true", "authserver.fetch_ca_file": str(authority.ca_file)}
    with (
        serving(authority.context("127.0.0.1")) as origin,
        closing(Server(sqlite_url, settings)) as server,
    ):
        address = f"https://127.0.0.1:{origin.port}/jwks"
        with server.begin() as engine:
            for name, members in {
                "remote": {"jwks_uri": address},
                "lost": {"jwks_uri": "https://127.0.0.1:9/jwks"},
                "other": {"algorithms": ("RS256",)},
                "disabled": {"algorithms": ("RS256",), "is_enabled": False},
            }.items():
                issuers.add(engine, Issuer(f"https://{name}.example", key=idp.key).entry(**members))

        def tried() -> dict[str, Checked]:
            found = examine_installation(server.application)
            issuers = [each for each in found if each.check == "trusted issuers"]
            return {urlsplit(each.what.partition(": ")[0]).netloc.partition(".")[0]: each for each in issuers}

        origin.reply = sending(json.dumps(idp.key.jwks()).encode())
        found = tried()
        assert found.keys() == {"listed", "remote", "lost", "other"}
        assert found["listed"].what == "https://listed.example: 1 key in its entry"
        assert found["remote"].what == f"https://remote.example: 1 key fetched from {address}"
        assert len(origin.received) == 1
        for name, problem in {
            "lost": "https://127.0.0.1:9/jwks: ",
            "other": "none of its keys is for RS256",
        }.items():
            assert (found[name].result, found[name].remedy) == (
                Result.WARNING,
                f"`authserver issuer test https://{name}.example` tries it again",
            )
            assert found[name].what.startswith(f"https://{name}.example: {problem}")


def test_a_schema_that_is_behind_ends_the_look(server: Server) -> None:
    change(server, "UPDATE alembic_version SET version_num = '0024'")
    try:
        assert seen(server) == {"clock": Result.OK, "schema": Result.STUMBLES}
    finally:
        from authserver.storage import migrate

        change(server, f"UPDATE alembic_version SET version_num = '{migrate.head()}'")


def test_the_command_tells_of_both_and_fails_for_what_stumbles(run, ini) -> None:
    """Nobody serves at that address: what the database says is there all the same."""
    done = run("doctor", "--time-limit", "1", "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["result"]) == (2, "unreachable")
    assert {row["check"]: row["result"] for row in told["installation"]}["schema"] == "ok"
    assert "This installation" in run("doctor", "--time-limit", "1").stdout
