"""``adprior bench quality --logs``: base and adjusted logits compared on the clients' ranking log.

The rows are those of `adprior_client.Ranking.to_log`, with a ``label`` (0 or 1) joined to them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from adprior_bench.quality.intervals import Draws, UserBootstrap, estimate
from adprior_bench.quality.ranking.ranking_metrics import area_draws, log_loss_draws
from adprior_build.data.number_columns import cast_column, hash_requests, read_numbers, refuse_rows
from adprior_build.data.tables import read_table
from adprior_runtime.errors import InvalidInputError

_COLUMNS: Final = ("request", "base_logit", "adjusted_logit", "label")


def measure_log(path: Path) -> dict[str, Any]:
    """Compare base and adjusted logits, on the rows with a prior.

    Intervals are 95 % percentile intervals of a bootstrap over requests; differences are paired.

    Raises:
        InvalidInputError: A column is missing or wrong, or all labels are equal.
    """
    table = read_table(path, list(_COLUMNS))
    label = read_numbers(path, table, "label", pa.float64())
    refuse_rows(path, "label", ~np.isin(label, (0.0, 1.0)), "expected 0 or 1")
    logits = {
        name: read_numbers(path, table, f"{name}_logit", pa.float64())
        for name in ("base", "adjusted")
    }
    for name, values in logits.items():
        refuse_rows(path, f"{name}_logit", ~np.isfinite(values), "expected a finite number")
    requests = hash_requests(path, table)
    kept = _rows_with_an_answer(path, table)
    label, requests = label[kept], requests[kept]
    if len(np.unique(label)) < 2:
        raise InvalidInputError(
            f"{path}: {int(kept.sum())} of {len(kept)} rows have an answer, and all of their "
            "labels are equal: nothing to compare"
        )
    bootstrap, positive = UserBootstrap(requests), label == 1
    rows = []
    for metric, measure in (("auc", _auc), ("log_loss", log_loss_draws)):
        found = {
            name: measure(values[kept], positive, bootstrap) for name, values in logits.items()
        }
        rows += [_row(metric, name, draws) for name, draws in found.items()]
        rows.append(_row(metric, "adjusted - base", found["adjusted"] - found["base"]))
    return {
        "rows": len(kept),
        "rows_with_an_answer": int(kept.sum()),
        "requests": bootstrap.users,
        "positives": int(label.sum()),
        "rows_by_bundle": _count_bundles(path, table, kept),
        "metrics": rows,
    }


def ranking_table(report: dict[str, Any]) -> str:
    """Return the comparison as text."""
    lines = [
        f"{report['rows_with_an_answer']:,} of {report['rows']:,} rows have an answer, in "
        f"{report['requests']:,} requests, {report['positives']:,} of them positive",
        *_bundle_lines(report["rows_by_bundle"]),
        "",
        f"{'metric':<10} {'logits':<16} {'value':>10}  95 % interval, over requests",
    ]
    for row in report["metrics"]:
        low, high = row["interval"]
        lines.append(
            f"{row['metric']:<10} {row['logits']:<16} {row['value']:>10.5f}  "
            f"{low:.5f} to {high:.5f}"
        )
    return "\n".join(lines)


def _rows_with_an_answer(path: Path, table: pa.Table) -> npt.NDArray[np.bool_]:
    """Return the rows with a prior; without one, both logits are equal."""
    kept = np.ones(table.num_rows, dtype=np.bool_)
    if "status" in table.column_names:
        status = cast_column(path, table, "status", pa.string())
        kept &= status.to_numpy(zero_copy_only=False) != "unknown"
    return kept


def _count_bundles(path: Path, table: pa.Table, kept: npt.NDArray[np.bool_]) -> dict[str, int]:
    """Return the number of rows by bundle, empty if the log does not record bundles."""
    if "bundle_id" not in table.column_names:
        return {}
    named = cast_column(path, table, "bundle_id", pa.string()).fill_null("unnamed")
    names, counts = np.unique(
        named.to_numpy(zero_copy_only=False)[kept].astype(str), return_counts=True
    )
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _bundle_lines(found: dict[str, int]) -> list[str]:
    if not found:
        return []
    shown = ", ".join(f"{name} {rows:,} rows" for name, rows in found.items())
    return [f"of bundle {shown}" + ("" if len(found) == 1 else ": the figures mix them")]


def _auc(
    logits: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_], bootstrap: UserBootstrap
) -> Draws:
    return area_draws(logits, positive, bootstrap)[0]


def _row(metric: str, logits: str, draws: Draws) -> dict[str, Any]:
    found = estimate(draws)
    return {
        "metric": metric,
        "logits": logits,
        "value": found.value,
        "interval": [found.low, found.high],
    }
