"""``adprior bench quality --logs``: what the prior did to ranking, from the clients' own log.

Reads rows of `adprior_client.Ranking.to_log` with a ``label`` (0 or 1) joined to them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from adprior_build.log_columns import cast_column, hash_requests, read_numbers, refuse_rows
from adprior_build.tables import read_table
from adprior_runtime.errors import InvalidInputError

__all__ = ["measure_log", "ranking_table"]

_Float64Array = npt.NDArray[np.float64]
_COLUMNS: Final = ("request", "base_logit", "adjusted_logit", "label")
_RESAMPLES: Final = 1000


def measure_log(path: Path) -> dict[str, Any]:
    """Compare base and adjusted logits, for treated rows that have an adjustment.

    AUC is over all rows; log-loss in nats a row. Intervals are 95 % percentiles of a bootstrap over
    requests, in pairs: both logits see the same resamples.

    Raises:
        InvalidInputError: A column is missing or impossible, or all labels are alike.
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
            f"{path}: {int(kept.sum())} of {len(kept)} rows have an answer, and all labels of "
            "those are alike: nothing to compare"
        )
    weights = _resampled(requests)
    rows = []
    for metric, measure in (("auc", _auc), ("log_loss", _log_loss)):
        found = {
            name: np.array([measure(values[kept], label, weight) for weight in weights])
            for name, values in logits.items()
        }
        rows += [_row(metric, name, values) for name, values in found.items()]
        rows.append(_row(metric, "adjusted - base", found["adjusted"] - found["base"]))
    return {
        "rows": len(kept),
        "rows_with_an_answer": int(kept.sum()),
        "requests": len(np.unique(requests)),
        "positives": int(label.sum()),
        "metrics": rows,
    }


def ranking_table(report: dict[str, Any]) -> str:
    """Return a report for people."""
    lines = [
        f"{report['rows_with_an_answer']:,} of {report['rows']:,} rows have an answer, in "
        f"{report['requests']:,} requests, {report['positives']:,} of them positive",
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
    """Return the rows that a head has judged: without an answer both logits are the same."""
    kept = np.ones(table.num_rows, dtype=np.bool_)
    if "status" in table.column_names:
        status = cast_column(path, table, "status", pa.string())
        kept &= status.to_numpy(zero_copy_only=False) != "unknown"
    return kept


def _resampled(requests: npt.NDArray[np.uint64]) -> _Float64Array:
    """Return how often each row counts: once each first, then in each resample of requests."""
    distinct, owner = np.unique(requests, return_inverse=True)
    random = np.random.default_rng(0)
    even = np.full(len(distinct), 1 / len(distinct))
    counts = random.multinomial(len(distinct), even, size=_RESAMPLES)
    weights: _Float64Array = np.concatenate([np.ones((1, len(distinct))), counts])[:, owner]
    return weights


def _row(metric: str, logits: str, values: _Float64Array) -> dict[str, Any]:
    resampled = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(resampled, [0.025, 0.975]).tolist()
    return {
        "metric": metric,
        "logits": logits,
        "value": float(values[0]),
        "interval": [low, high],
    }


def _auc(logits: _Float64Array, label: _Float64Array, weight: _Float64Array) -> float:
    """The weighted chance that a positive outranks a negative, ties counting half."""
    _, place = np.unique(logits, return_inverse=True)
    positive = np.bincount(place, weight * label)
    negative = np.bincount(place, weight * (1 - label))
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs else float("nan")


def _log_loss(logits: _Float64Array, label: _Float64Array, weight: _Float64Array) -> float:
    losses = np.logaddexp(0, logits) - label * logits
    return float((weight * losses).sum() / weight.sum())
