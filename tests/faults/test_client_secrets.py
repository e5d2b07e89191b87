"""Client secrets that are replaced while two processes serve."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from authserver.engine.clients.secrets import rotate_secret
from authserver.testing.threads import at_once


def test_both_processes_follow_at_the_next_request(cluster):
    """R-05: a new secret counts in each of them at once, an ended one no longer, and nobody is restarted."""
    client, first = cluster.server.add_client(grant_types=("client_credentials",))

    def rotate(overlap):
        with cluster.server.application.begin() as engine:
            return rotate_secret(engine, client.client_id, overlap)

    def ask(process, secret):
        return cluster.token(process, client, secret, grant_type="client_credentials").status

    uses = at_once(16, lambda number: ask(cluster.processes[number % 2], first))
    assert Counter(uses) == {200: 16}
    second = rotate(timedelta(hours=1))
    assert [ask(process, secret) for process in cluster.processes for secret in (first, second)] == [200] * 4
    third = rotate(timedelta(0))
    for process in cluster.processes:
        assert [ask(process, secret) for secret in (first, second, third)] == [401, 401, 200]
    assert "locked" not in "".join(process.log() for process in cluster.processes)
