"""A comparison with peers as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adprior_bench.report.plots import draw
from adprior_bench.report.schema import BarsPlot
from adprior_bench.search.peers.system import ADPRIOR
from adprior_runtime.files.atomic import replace_file

_Row = Mapping[str, Any]


def write_plot(rows: Sequence[_Row], path: Path) -> None:
    """Write the systems that answered as a PNG."""
    shown = [row for row in rows if row["rounds"]]
    plot: BarsPlot = {
        "kind": "bars",
        "name": path.stem,
        "title": f"{rows[0]['model']}, {rows[0]['catalogue_size']:,} names, "
        f"beams of {rows[0]['beam_width']}",
        "format": "decimal",
        "digits": 1,
        "groups": [
            "times adprior's time", "illegal beams, %", f"of the true {rows[0]['top_k']}"
        ],
        "series": [
            {"label": row["system"], "estimates": _estimates(row),
             "highlight": row["system"] == ADPRIOR}
            for row in shown
        ],
    }  # fmt: skip
    with replace_file(path) as fresh:
        fresh.write_bytes(draw(plot))


def _estimates(row: _Row) -> list[dict[str, float]]:
    low, high = row["times_adprior_quartiles"]
    return [
        {"value": row["times_adprior"], "low": low, "high": high},
        {"value": 100 * row["illegal_share"]},
        {"value": row["true_found"]},
    ]
