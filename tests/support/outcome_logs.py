"""Logs of rankings with outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_outcomes(
    path: Path, rows: Sequence[tuple[str | None, float | None]], logit: float = 0.0
) -> Path:
    """Write a bundle and a label for each row, by a rename; all rows have the same logit."""
    bundles, labels = [bundle for bundle, _ in rows], [label for _, label in rows]
    table = pa.table(
        {
            "bundle_id": pa.array(bundles, pa.string()),
            "adjusted_logit": [logit] * len(rows),
            "label": pa.array(labels, pa.float64()),
        }
    )
    new = path.with_name(f".{path.name}.new")
    pq.write_table(table, new)
    new.rename(path)
    return path
