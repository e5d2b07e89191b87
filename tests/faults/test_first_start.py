"""Many processes start at the same moment on a database that is migrated and otherwise empty."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import sqlalchemy as sa

from authserver.storage.database import open_engine
from authserver.testing.server import SETTINGS

# Imports first and then waits for the word, so that all of them make their application at once.
START = """
import json, sys
from authserver import app
import authserver.policies.login
settings = json.loads(sys.stdin.readline())
print("imported", flush=True)
sys.stdin.readline()
application = app.start(settings).registry.application
print(json.dumps(dict(application.parts.signer.jwks())), flush=True)
"""


def test_8_processes_that_start_at_once_make_one_key(database_url):
    """N-07, T113: and all of them publish and use that one."""
    settings = {**SETTINGS, "authserver.database_url": database_url}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        for _ in range(8)
    ]
    try:
        for process in processes:
            process.stdin.write(json.dumps(settings) + "\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout.readline() == "imported\n"
        for process in processes:
            process.stdin.write("start\n")
            process.stdin.flush()
        results = [process.communicate(timeout=180) for process in processes]
    finally:
        for process in processes:
            process.kill()

    for process, (_, errors) in zip(processes, results, strict=True):
        assert process.returncode == 0, errors
    published = [json.loads(output) for output, _ in results]
    assert all(keys == published[0] for keys in published)
    (key,) = published[0]["keys"]
    engine = open_engine(database_url)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT kid, algorithm, retires_at FROM signing_keys")).all()
        events = Counter(connection.execute(sa.text("SELECT type FROM events")).scalars())
    engine.dispose()
    assert rows == [(key["kid"], "ES256", None)]
    assert events == {"key.created": 1}
