"""What asking costs: the CPU time of all decisions of one token request, with every plugin loaded.

decisions.py [--requests N] [--json]

Needs no database. The plugins are those of the measured server; the question is that of a client
credentials request: which client, for which resource, with which scopes.
"""

import argparse
import json
import os
import time
from typing import Any

from settings import RESOURCE, ini

from authserver import app
from authserver.engine.decisions import Ruling
from authserver.engine.questions import (
    ClientAuthQuestion,
    Counted,
    Credentials,
    RateQuestion,
    RateStep,
    ResourceQuestion,
    ScopeQuestion,
)
from authserver.engine.records import Client
from authserver.plugins.asking import PluginSet
from authserver.testing.records import a_client

# The goal, in microseconds; also under 5 % of the whole request (see `run.py`).
GOAL = 60.0
ROUNDS = 5


def decide(plugins: PluginSet, client: Client, credentials: Credentials) -> list[Ruling[Any]]:
    """The decisions of one request, in order."""
    return [
        plugins.decide(ClientAuthQuestion(client=client, credentials=credentials)),
        plugins.decide(ResourceQuestion(client=client, resource=None)),
        plugins.decide(
            ScopeQuestion(
                client=client,
                user=None,
                grant_type="client_credentials",
                requested=("read",),
                resources=(RESOURCE,),
            )
        ),
        plugins.decide(
            RateQuestion(
                counted=Counted.TOKEN_REQUEST,
                step=RateStep.CLAIM,
                endpoint="token",
                source="192.0.2.1",
                client_id=client.client_id,
            )
        ),
    ]


def measure(requests: int) -> dict[str, float]:
    """Microseconds of CPU a request: asking and combining, and writing the record of it. The best of some rounds."""
    os.environ.setdefault("DATABASE_URL", "sqlite:///never-opened.sqlite")
    plugins = app.build(ini()).parts.policies
    client = a_client(grant_types=("client_credentials",), scopes=("read",))
    credentials = Credentials(method="client_secret_basic", client_id=client.client_id, secret_matches=True)
    best = {"asking": float("inf"), "recording": float("inf")}
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(requests):
            rulings = decide(plugins, client, credentials)
        best["asking"] = min(best["asking"], (time.process_time() - begun) / requests * 1e6)
        # Nothing limits them.
        assert all(ruling.allowed or ruling.hook == "rate_decision" for ruling in rulings)
        begun = time.process_time()
        for _ in range(requests):
            for ruling in rulings[:-1]:
                ruling.as_record()
        best["recording"] = min(best["recording"], (time.process_time() - begun) / requests * 1e6)
    return {"plugins": float(len(plugins.names)), "decisions": float(len(rulings)), **best}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.requests)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(
        f"{figures['decisions']:.0f} decisions of one request, {figures['plugins']:.0f} plugins loaded, "
        f"CPU microseconds: asking {figures['asking']:.1f}, recording {figures['recording']:.1f} (goal: {GOAL:.0f})"
    )


if __name__ == "__main__":
    main()
