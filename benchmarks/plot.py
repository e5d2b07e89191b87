"""The picture of a benchmark: what 1,000 requests of each workload cost, and how long one takes.

    plot.py bench.json > bench.svg

An SVG of its own, so that drawing needs nothing that is not installed anyway.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _BAR, _ROW, _TOP = 880, 60, 460, 62, 66
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1d2330 } .small { font-size: 12px; fill: #556 }
.server { fill: #2f5fd0 } .database { fill: #e0912f } .axis { stroke: #ccd }
@media (prefers-color-scheme: dark) { svg { background: #14171f } text { fill: #e8eaf2 } .small { fill: #a8adbd }
.server { fill: #7fa3ff } .axis { stroke: #3a4050 } }
"""


def picture(rows: Sequence[Mapping[str, Any]], workloads: Mapping[str, str]) -> str:
    """The SVG of these figures (`run.Figures`, as mappings).

    Args:
        workloads: what each is, by its name.
    """
    most = max((row["server_cpu"] + row["postgresql_cpu"] for row in rows), default=1.0) or 1.0
    height = _TOP + _ROW * len(rows) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        "<title>CPU seconds for 1,000 requests, and milliseconds for one</title>",
        f"<style>{_STYLE}</style>",
        f'<text x="{_LEFT}" y="24" font-weight="600">CPU seconds for 1,000 requests</text>',
        *_key(_LEFT, "server", "the server"),
        *_key(_LEFT + 120, "database", "PostgreSQL"),
        f'<text class="small" x="{_LEFT + _BAR + 130}" y="48">milliseconds: half, 99 of 100</text>',
        f'<line class="axis" x1="{_LEFT}" y1="{_TOP - 8}" x2="{_LEFT}" y2="{height - 12}"/>',
    ]
    for number, row in enumerate(rows):
        parts += _bar(row, workloads[row["workload"]], _TOP + _ROW * number, most)
    return "\n".join([*parts, "</svg>", ""])


def _key(x: int, kind: str, words: str) -> list[str]:
    return [
        f'<rect class="{kind}" x="{x}" y="38" width="12" height="12" rx="2"/>',
        f'<text class="small" x="{x + 18}" y="48">{words}</text>',
    ]


def _bar(row: Mapping[str, Any], words: str, y: int, most: float) -> list[str]:
    server, database = (row[name] / most * _BAR for name in ("server_cpu", "postgresql_cpu"))
    total = row["server_cpu"] + row["postgresql_cpu"]
    return [
        f'<text x="{_LEFT - 10}" y="{y + 18}" text-anchor="end">{row["workload"]}</text>',
        f'<rect class="server" x="{_LEFT}" y="{y}" width="{server:.1f}" height="26"/>',
        f'<rect class="database" x="{_LEFT + server:.1f}" y="{y}" width="{database:.1f}" height="26"/>',
        f'<text x="{_LEFT + server + database + 8:.1f}" y="{y + 18}">{total:.3f}</text>',
        f'<text class="small" x="{_LEFT}" y="{y + 42}">{escape(words)}</text>',
        f'<text x="{_LEFT + _BAR + 130}" y="{y + 18}">{row["p50"]:.1f} · {row["p99"]:.1f}</text>',
    ]


if __name__ == "__main__":
    from run import WORKLOADS

    print(picture(json.loads(Path(sys.argv[1]).read_text()), WORKLOADS), end="")
