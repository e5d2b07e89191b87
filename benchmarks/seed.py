"""Prepare a database for the benchmark.

seed.py setup            migrate, and add the two clients and a user
seed.py clients N        add clients bench-1 to bench-N, which ask on their own behalf
seed.py codes N FILE     store N fresh codes and write them to FILE, one a line
"""

import os
import sys
from datetime import timedelta

from settings import CHALLENGE, REDIRECT_URI, RESOURCE, SECRET, ini
from sqlalchemy import insert

from authserver import app
from authserver.engine.clients.secrets import stored_secret
from authserver.engine.context import Engine
from authserver.engine.crypto import digests
from authserver.engine.people.login import add_user
from authserver.engine.ports import AlreadyExists
from authserver.engine.records import Client, Grant, Token, TokenKind
from authserver.storage import migrate
from authserver.storage.rows import Rows
from authserver.storage.tables import grants, tokens

CHUNK = 1000


def setup() -> None:
    """Tables, clients and a user; harmless when they are there."""
    migrate.upgrade(os.environ["DATABASE_URL"])
    application = app.build(ini())
    for client_id, grant_types, redirect_uris in (
        ("bench-cc", ("client_credentials",), ()),
        ("bench-code", ("authorization_code", "refresh_token"), (REDIRECT_URI,)),
    ):
        try:
            with application.begin() as engine:
                engine.stores.clients.add(client_of(engine, client_id, grant_types, redirect_uris))
        except AlreadyExists:
            pass
    try:
        with application.begin() as engine:
            add_user(engine, "bench", None)
    except AlreadyExists:
        pass


def clients(number: int) -> None:
    """More clients like bench-cc."""
    application = app.build(ini())
    with application.begin() as engine:
        for each in range(1, number + 1):
            engine.stores.clients.add(client_of(engine, f"bench-{each}", ("client_credentials",)))


def client_of(
    engine: Engine, client_id: str, grant_types: tuple[str, ...], redirect_uris: tuple[str, ...] = ()
) -> Client:
    """A client with the secret that all of them have."""
    return Client(
        client_id=client_id,
        name=client_id,
        auth_method="client_secret_basic",
        redirect_uris=redirect_uris,
        grant_types=grant_types,
        response_types=("code",) if redirect_uris else (),
        scopes=("read",),
        created_at=engine.now,
        secrets=(stored_secret(engine.ring, client_id, SECRET, engine.now),),
    )


def codes(number: int, path: str) -> None:
    """Store grants and codes in bulk: the exchange is measured, not the making."""
    application = app.build(ini())
    with application.begin() as engine:
        user = engine.stores.users.find_by_name("bench")
        assert user is not None
        now = engine.now
    grant_rows, token_rows = Rows(Grant, grants), Rows(Token, tokens)
    with open(path, "w") as file:
        for start in range(0, number, CHUNK):
            new = [
                (digests.new_identifier(), digests.new_credential(digests.CODE))
                for _ in range(min(CHUNK, number - start))
            ]
            with application.storage.engine.connect().execution_options(
                isolation_level="SERIALIZABLE"
            ) as connection:
                connection.execute(
                    insert(grants),
                    [
                        grant_rows.row(
                            Grant(
                                grant_id=grant_id,
                                client_id="bench-code",
                                user_id=user.user_id,
                                scopes=("read",),
                                resources=(RESOURCE,),
                                created_at=now,
                                expires_at=now + timedelta(days=30),
                            )
                        )
                        for grant_id, _ in new
                    ],
                )
                connection.execute(
                    insert(tokens),
                    [
                        token_rows.row(
                            Token(
                                kind=TokenKind.CODE,
                                digest=digests.digest(TokenKind.CODE, code),
                                grant_id=grant_id,
                                client_id="bench-code",
                                scopes=("read",),
                                resources=(RESOURCE,),
                                created_at=now,
                                expires_at=now + timedelta(days=1),
                                details={"redirect_uri": REDIRECT_URI, "code_challenge": CHALLENGE},
                            )
                        )
                        for grant_id, code in new
                    ],
                )
                connection.commit()
            file.writelines(f"{code}\n" for _, code in new)


if __name__ == "__main__":
    if sys.argv[1] == "setup":
        setup()
    elif sys.argv[1] == "clients":
        clients(int(sys.argv[2]))
    else:
        codes(int(sys.argv[2]), sys.argv[3])
