"""`authserver demo`: makes everything that a newcomer needs to try the server, and shows it every time."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import click

from authserver import ini as ini_reader
from authserver import private_files
from authserver.cli.configuration import Configuration
from authserver.cli.keys import new_ring_entry
from authserver.cli.printing import say
from authserver.engine.clients.registration import add_client
from authserver.engine.clients.secrets import is_secret_of
from authserver.engine.context import Engine
from authserver.engine.crypto.digests import verify_password
from authserver.engine.people.login import add_user
from authserver.engine.records import ClientMetadata
from authserver.settings import Environment, Settings

USERNAME = "demo"
# The group whose members administer the server, unless the INI file names another one.
ADMINISTRATORS = "authserver-admins"
SERVICE = "demo-service"
PLAYGROUND = "playground"


@click.command()
@click.pass_obj
def demo(configuration: Configuration) -> None:
    """Make development secrets, the database, a demo user and demo clients; print how to try them.

    Existing ones are kept. The command is refused unless authserver.environment is development.
    """
    # Imported here: the rest of the command line needs no migrations.
    from authserver.storage import migrate

    ini = configuration.ini()
    assert configuration.path is not None  # or it could not be read
    folder = prepare_files(ini, configuration.path.resolve().parent)
    loaded = configuration.settings()
    migrate.upgrade(loaded.database_url.value)
    with configuration.engine() as engine:
        password = ensure_user(engine, folder)
        secret = ensure_service(engine, folder)
        ensure_playground(engine)
    say(announcement(loaded, password, secret))


def prepare_files(ini: Mapping[str, str], home: Path) -> Path:
    """Make the key ring file that the INI names, if it is missing or empty, and return its folder.

    Args:
        home: the folder of the INI file. An existing folder in it is closed to other users.

    Raises:
        click.ClickException: this is not a development server, its key ring is not a file in a folder, or the ring is
            missing although secrets were made with it.
    """
    key = "authserver.environment"
    if ini_reader.resolve(key, ini.get(key, "production")).text != Environment.DEVELOPMENT:
        raise click.ClickException(
            f"{key} is not development: there are no demo users and clients in production"
        )
    kind, _, path = ini.get("authserver.secret_keys", "").strip().partition(":")
    if kind != "file":
        raise click.ClickException(
            "authserver.secret_keys: the demo needs file:PATH here, and keeps its other secrets beside that file; see "
            "development.ini"
        )
    ring = Path(path)
    if ring.parent.exists() and not ring.parent.is_dir():
        raise click.ClickException(f"{ring.parent} is a file; the secrets need a folder there: move it away")
    private_files.create_folder(ring.parent)
    if home in ring.parent.resolve().parents:
        private_files.tighten(ring.parent)
    if ring.exists() and ring.read_bytes().strip():
        private_files.tighten(ring)
    else:
        for later in ("authserver.sqlite", "demo.password", "demo-service.secret"):
            if (ring.parent / later).exists():
                state = "empty" if ring.exists() else "missing"
                raise click.ClickException(
                    f"{ring} is {state}, and {later} needs it; put it back, or remove {ring.parent} to start again"
                )
        write_secret(ring, new_ring_entry())
    return ring.parent


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read; it replaces an existing one."""
    path.unlink(missing_ok=True)
    private_files.create(path, f"{text}\n")


def ensure_user(engine: Engine, folder: Path) -> str | None:
    """Add the demo user unless it exists, and return the password, or None if it was changed since."""
    path = folder / "demo.password"
    user = engine.stores.users.find_by_name(USERNAME)
    if user is None:
        password = secrets.token_hex(5)
        user = add_user(engine, USERNAME, password, display_name="Demo user", groups=[ADMINISTRATORS])
        write_secret(path, password)
    password = kept(path)
    return password if verify_password(password, user.password_hash) else None


def ensure_service(engine: Engine, folder: Path) -> str | None:
    """Add the demo service, a client that acts on its own behalf, unless it exists.

    Returns:
        its secret, or None if another one was made since and this one has ended.
    """
    path = folder / "demo-service.secret"
    client = engine.stores.clients.find(SERVICE, engine.now)
    if client is None:
        metadata = ClientMetadata(
            client_name="Demo service",
            grant_types=("client_credentials",),
            response_types=(),
            scopes=tuple(engine.scopes),
        )
        client, secret = add_client(engine, metadata, client_id=SERVICE)
        write_secret(path, secret or "")
    secret = kept(path)
    return secret if is_secret_of(engine, client, secret) else None


def ensure_playground(engine: Engine) -> None:
    """Add the public client of the page at /playground, unless it exists."""
    if engine.stores.clients.find(PLAYGROUND, engine.now) is None:
        metadata = ClientMetadata(
            client_name="Playground",
            redirect_uris=(f"{engine.settings.issuer}/playground",),
            token_endpoint_auth_method="none",
            grant_types=("authorization_code", "refresh_token"),
            scopes=tuple(engine.scopes),
            application_type="native",
        )
        add_client(engine, metadata, client_id=PLAYGROUND)


def kept(path: Path) -> str:
    """The secret in this file. Raises click.ClickException if the file was removed or emptied."""
    private_files.tighten(path)
    secret = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
    if not secret:
        state = "empty" if path.exists() else "missing"
        raise click.ClickException(f"{path} is {state}; remove {path.parent} to start again")
    return secret


def announcement(loaded: Settings, password: str | None, secret: str | None) -> str:
    """The text for a newcomer: the addresses, the demo user, and commands to paste.

    Args:
        password: of the demo user, or None if it was changed.
        secret: of the demo service, or None if it was replaced.
    """
    issuer = loaded.issuer
    metadata_url = f"{loaded.issuer_origin}/.well-known/oauth-authorization-server{urlsplit(issuer).path}"
    scope = next(iter(loaded.scope_sentences), "")
    known_password = f"password  {password}" if password else "with the password that it was given since"
    replaced = "" if secret else ", with its present secret in the place of SECRET"
    registration = '{"client_name": "My application", "redirect_uris": ["http://127.0.0.1/callback"]}'
    return f"""
  {loaded.product_name}: DEMO, with a demo user and demo clients; not for anybody else's eyes

  Open          {issuer}/
  Try OAuth     {issuer}/playground
  Operate       {issuer}/admin
  Sign in as    {USERNAME}   {known_password}

  Paste into another terminal:

  # what this server offers
  curl -s {metadata_url}

  # a token for a service that acts on its own behalf{replaced}
  curl -s -u {SERVICE}:{secret or "SECRET"} -d grant_type=client_credentials -d scope={scope} {issuer}/oauth/token

  # a new application registers itself
  curl -s -H 'Content-Type: application/json' -d '{registration}' {issuer}/oauth/register
"""
