"""The measurement of floods works: each of them, on a real server, in a few requests. Its figures say nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FEW = "--requests 120 --rate 200 --sign-ins 20 --seconds 0.5 --connections 5 --pause 0.2 --json"


def test_every_flood_is_measured() -> None:
    """The honest are answered during each of them, and the flood gets what it should."""
    command = [sys.executable, "benchmarks/floods.py", *FEW.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout)
    assert told["machine"]["processors"] >= 1
    sent = {row["flood"]: row["sent"] for row in told["floods"]}
    assert sent == {"registrations": 120, "secrets": 120, "sign-ins": 10, "connections": 5}
    for row in (told["idle"], *told["floods"]):
        assert row["callers"].keys() == {"token", "sign-in", "liveness"}
        for caller in row["callers"].values():
            assert caller["requests"] >= 1
            assert caller["first_wrong"] == ""
            assert 0 < caller["p50"] <= caller["p95"]
    answers = {row["flood"]: row["answers"] for row in told["floods"]}
    assert answers["registrations"] == {"201": 100, "429": 20}
    assert answers["secrets"] == {"401": 120}
    assert set(answers["sign-ins"]) <= {"400", "503"}
    assert answers["connections"] == {"still open": 5}
