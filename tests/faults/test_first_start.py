"""Many processes start at the same moment on a database that is migrated and otherwise empty."""

from __future__ import annotations

from collections import Counter
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier

import sqlalchemy as sa

from authserver import app
from authserver.storage.database import open_engine
from authserver.testing.server import SETTINGS
from tests.processes import context


def start(settings: dict[str, str], everybody: Barrier, published: SimpleQueue) -> None:
    """Make an application when everybody is there, and say which keys it publishes."""
    everybody.wait(timeout=60)
    wsgi = app.start(settings)
    published.put(dict(wsgi.registry.application.parts.signer.jwks()))


def test_8_processes_that_start_at_once_make_one_key(database_url):
    """N-07, T113: and all of them publish and use that one."""
    settings = {**SETTINGS, "authserver.database_url": database_url}
    everybody, published = context.Barrier(8), context.SimpleQueue()
    processes = [context.Process(target=start, args=(settings, everybody, published)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=180)

    assert [process.exitcode for process in processes] == [0] * 8
    key_sets = [published.get() for _ in processes]
    assert all(keys == key_sets[0] for keys in key_sets)
    (key,) = key_sets[0]["keys"]
    engine = open_engine(database_url)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT kid, algorithm, retires_at FROM signing_keys")).all()
        events = Counter(connection.execute(sa.text("SELECT type FROM events")).scalars())
    engine.dispose()
    assert rows == [(key["kid"], "ES256", None)]
    assert events == {"key.created": 1}
