"""The figures of the calls of one phase of a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from adprior_bench.open_loop.loop import CallRecord

LATE_MS: Final = 20.0
"""If calls begin later than that, the figures are of the callers' machine, not of the servers."""


def phase_figures(name: str, records: Sequence[CallRecord], seconds: float) -> dict[str, Any]:
    """Return the figures of the calls that began in a phase; NaN for times without a call.

    Args:
        name: The phase.
        records: The calls.
        seconds: The length of the phase.
    """
    reasons = Counter(record.reason for record in records if record.reason)
    took = 1e3 * np.array([record.took_s for record in records])
    late = 1e3 * np.array([record.late_s for record in records])
    p50, p99, longest = np.quantile(took, (0.5, 0.99, 1)) if len(took) else [np.nan] * 3
    return {
        "phase": name,
        "seconds": seconds,
        "calls": len(records),
        "without_forecast": reasons.total(),
        "share_percent": 100 * reasons.total() / max(1, len(records)),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": float(longest),
        "late_p99_ms": float(np.quantile(late, 0.99)) if len(late) else np.nan,
        "reasons": dict(reasons),
    }


def reasons_text(reasons: Mapping[str, int]) -> str:
    """Return reasons and their numbers as one line."""
    return ", ".join(f"{name} {number}" for name, number in reasons.items())
