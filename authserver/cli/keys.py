"""`authserver keys`: the keys that sign, and the key ring that seals."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime

import click

from authserver.cli.configuration import Configuration
from authserver.cli.printing import json_option, print_json, print_rows


@click.group()
def keys() -> None:
    """The keys that sign tokens, and the key ring that seals."""


@keys.command("list")
@json_option
@click.pass_obj
def list_keys(configuration: Configuration, as_json: bool) -> None:
    """List the signing keys, oldest first; their private parts stay sealed."""
    with configuration.engine() as engine:
        rows = [
            {
                "kid": key.kid,
                "algorithm": key.algorithm,
                "state": str(key.state(engine.now)),
                "created_at": key.created_at,
                "public_jwk": dict(key.public_jwk),
            }
            for key in engine.stores.keys.list()
        ]
    if as_json:
        print_json(rows)
    else:
        print_rows(
            rows,
            ("kid", "algorithm", "state", "created_at"),
            empty="There are none; the server makes one at start.",
        )


@keys.command()
def secret() -> None:
    """Print a fresh entry for authserver.secret_keys; needs no INI file."""
    click.echo(new_ring_entry())


def new_ring_entry() -> str:
    """An entry of the key ring: `id:base64` of 32 random bytes; the id tells the day it was made."""
    key_id = f"{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(2)}"
    return f"{key_id}:{base64.b64encode(secrets.token_bytes(32)).decode('ascii')}"
